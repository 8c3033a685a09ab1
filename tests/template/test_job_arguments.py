"""The job's arguments: each is one that Glue knows or that the script reads, and the state machine passes no other."""

import ast
from collections.abc import Mapping
from typing import Any

from tests.judging import REPOSITORY
from tests.template.expansion import expanded_template, substituted_definition

SCRIPT = REPOSITORY / "glue" / "telemetry_etl.py"

# https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-etl-glue-arguments.html, and for the log groups
# https://docs.aws.amazon.com/glue/latest/dg/monitor-continuous-logging.html; with the values that each takes.
KNOWN_TO_GLUE: Mapping[str, set[str] | None] = {
    "--custom-logGroup-prefix": None,
    "--enable-metrics": {"true", "false"},
    "--job-bookmark-option": {"job-bookmark-enable", "job-bookmark-disable", "job-bookmark-pause"},
    "--job-language": {"python", "scala"},
}
# Names that Glue uses itself: "Don't set them" (the same page).
RESERVED = {"--conf", "--debug", "--mode", "--JOB_NAME"}


def constant(name: str) -> Any:
    """The value of a constant of the script."""
    for node in ast.parse(SCRIPT.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"the script has no constant {name}")


def read_by_the_script() -> set[str]:
    return {f"--{name}" for name in (*constant("REQUIRED_ARGUMENTS"), *constant("OPTIONAL_ARGUMENTS"))}


def default_arguments() -> dict[str, Any]:
    arguments: dict[str, Any] = expanded_template()["Resources"]["EtlJob"]["Properties"]["DefaultArguments"]
    return arguments


def test_every_default_argument_is_known_to_glue_or_read_by_the_script() -> None:
    assert set(default_arguments()) <= KNOWN_TO_GLUE.keys() | read_by_the_script()


def test_what_the_script_requires_is_given_except_for_the_job_name_which_glue_gives() -> None:
    required = {f"--{name}" for name in constant("REQUIRED_ARGUMENTS")}
    assert required - set(default_arguments()) == {"--JOB_NAME"}


def test_values_that_glue_reads_are_ones_that_it_knows() -> None:
    for name, value in default_arguments().items():
        admitted = KNOWN_TO_GLUE.get(name)
        assert admitted is None or value in admitted, name


def test_no_argument_has_a_name_that_glue_keeps_for_itself() -> None:
    assert RESERVED.isdisjoint(default_arguments())


def test_the_state_machine_passes_only_what_the_script_reads_as_strings() -> None:
    # GIVEN the state that starts the job
    arguments = substituted_definition()["States"]["RunJob"]["Arguments"]["Arguments"]

    # THEN every argument is one that the script reads, and none has a name of Glue's
    assert set(arguments) <= read_by_the_script()
    assert RESERVED.isdisjoint(arguments)
    assert all(isinstance(value, str) for value in arguments.values())
