"""The Glue versions: one list of them, and what counts as a run of all tests on each."""

import tomllib
from pathlib import Path

import pytest

from telemetry_lake import toolchain
from telemetry_lake.local.spark_runtime import RELEASES
from tests import glue_versions
from tests.glue_versions import Outcome
from tests.template.expansion import sam_template

PROJECT = Path(__file__).resolve().parents[2]


def outcome(glue_version: str = "5.1", *tests: str, exit_code: int = 0, skipped: tuple[str, ...] = ()) -> Outcome:
    return Outcome(glue_version, exit_code, frozenset(tests), frozenset(skipped), 1.0)


def test_what_the_template_allows_is_what_is_tested() -> None:
    # GIVEN
    parameter = sam_template()["Parameters"]["GlueVersion"]

    # WHEN
    tested = glue_versions.chosen_versions(["all"])

    # THEN
    assert parameter["AllowedValues"] == tested == list(RELEASES)
    assert parameter["Default"] == toolchain.GLUE_VERSION


def test_each_environment_has_the_spark_of_its_glue_version() -> None:
    # GIVEN
    groups = tomllib.loads((PROJECT / "pyproject.toml").read_text())["dependency-groups"]

    # WHEN / THEN
    for glue_version, release in RELEASES.items():
        group = groups[toolchain.glue_environment(glue_version).selection[1]]
        assert f"pyspark=={release.spark_version}" in group, glue_version


def test_versions_are_chosen_by_name() -> None:
    assert glue_versions.chosen_versions(["6.0", "4.0", "6.0"]) == ["4.0", "6.0"]
    with pytest.raises(ValueError, match=r"Unknown Glue version: 3\.0 \(known: 4\.0, 5\.0, 5\.1, 6\.0, all\)"):
        glue_versions.chosen_versions(["5.1", "3.0"])


def test_a_version_that_runs_all_tests_is_no_finding() -> None:
    assert glue_versions.findings([outcome("4.0", "a", "b"), outcome("5.1", "a", "b")]) == []


@pytest.mark.parametrize(
    ("other", "finding"),
    [
        (outcome("6.0", "a", exit_code=1), "Glue 6.0: pytest ended with 1"),
        (outcome("6.0"), "Glue 6.0: no test ran"),
        (outcome("6.0", "a", skipped=("a",)), "Glue 6.0: skipped a"),
        (outcome("6.0", "b"), "Glue 6.0: did not run a"),
    ],
)
def test_a_version_that_did_less_than_the_others_is_a_finding(other: Outcome, finding: str) -> None:
    assert finding in glue_versions.findings([outcome("5.1", "a"), other])


def test_pytest_says_what_ran_and_what_was_skipped(tmp_path: Path) -> None:
    # GIVEN tests, one of which is skipped, and the interpreter of this environment
    (tmp_path / "test_some.py").write_text(
        "import pytest\ndef test_a(): pass\n@pytest.mark.skip\ndef test_b(): pass\n"
        "@pytest.mark.parametrize('n', [1, 2])\ndef test_c(n): pass\n"
    )
    report = tmp_path / "report.xml"

    # WHEN
    assert pytest.main(["-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(tmp_path)]) == 0
    tests, skipped = glue_versions.read_report(report)

    # THEN
    assert {name.rpartition("::")[2] for name in tests} == {"test_a", "test_b", "test_c[1]", "test_c[2]"}
    assert {name.rpartition("::")[2] for name in skipped} == {"test_b"}
    assert glue_versions.read_report(tmp_path / "none.xml") == (frozenset(), frozenset())


def test_ci_runs_the_job_on_the_oldest_and_the_newest_spark_too() -> None:
    # GIVEN
    [line] = [line for line in (PROJECT / ".ci" / "run").read_text().splitlines() if " GLUE=" in line]
    releases = list(RELEASES)

    # THEN
    assert f'GLUE="{releases[0]} {releases[-1]}"' in line
