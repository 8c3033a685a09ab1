"""No answer that the project relies on escapes the judge, and no admitted deviation outlives its reason."""

import json

import pytest

from tests.contracts.calls import calls_of
from tests.contracts.deviations import DEVIATIONS
from tests.contracts.plugin import recorder
from tests.judging import REPOSITORY
from tests.template.statemachine import operation_of

# What `sam deploy` asks: seen in the end-to-end tests, where its answers are judged too.
SAM_CLI = {
    ("cloudformation", operation)
    for operation in (
        "CreateChangeSet",
        "DescribeChangeSet",
        "ExecuteChangeSet",
        "DescribeStacks",
        "DescribeStackEvents",
    )
} | {("s3", "PutObject")}


def state_machine() -> set[tuple[str, str]]:
    states = json.loads((REPOSITORY / "statemachine" / "pipeline.asl.json").read_text())["States"].values()
    operations = [operation_of(state["Resource"]) for state in states if "Resource" in state]
    return {(each.service_model.service_name, each.name) for each in operations if each is not None}


@pytest.mark.own_machinery("counts what the other tests of this layer asked")
@pytest.mark.after_all_of_its_layer
def test_every_operation_that_the_project_relies_on_was_answered_and_judged() -> None:
    # GIVEN the calls of the functions, the job, the commands, the state machine and the SAM CLI
    relied_on = {call.pair for call in calls_of("functions", "glue", "telemetry_lake")} | state_machine() | SAM_CLI
    assert len(relied_on) >= 30

    # WHEN / THEN
    assert sorted(relied_on - recorder.answers) == []


@pytest.mark.own_machinery("counts what the other tests of this layer asked")
@pytest.mark.after_all_of_its_layer
def test_every_admitted_deviation_was_needed() -> None:
    assert [deviation for deviation in DEVIATIONS if deviation not in recorder.deviations] == []
