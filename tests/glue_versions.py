"""Run the tests of the Glue job on the Spark of one Glue version after the other: ``make test-integration GLUE=all``.

A version whose environment runs no test, leaves one out or runs others than the rest do fails, like a failed test.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from telemetry_lake import toolchain
from telemetry_lake.local.spark_runtime import RELEASES

ALL = "all"


@dataclass(frozen=True)
class Outcome:
    """What pytest did in the environment of one Glue version."""

    glue_version: str
    exit_code: int
    tests: frozenset[str]
    skipped: frozenset[str]
    seconds: float

    def __str__(self) -> str:
        release = RELEASES[self.glue_version]
        verdict = "passed" if self.exit_code == 0 else f"pytest ended with {self.exit_code}"
        return (
            f"Glue {self.glue_version} (Spark {release.spark_version}): {len(self.tests)} tests, "
            f"{len(self.skipped)} skipped, {self.seconds:.0f} s: {verdict}"
        )


def chosen_versions(words: Sequence[str]) -> list[str]:
    """Return the Glue versions that the command line asks for, each once, in the order of the list of them.

    Raises:
        ValueError: one of them is not known.
    """
    unknown = sorted(set(words) - {ALL, *toolchain.GLUE_VERSIONS})
    if unknown or not words:
        known = ", ".join((*toolchain.GLUE_VERSIONS, ALL))
        raise ValueError(f"Unknown Glue version: {', '.join(unknown) or 'none is named'} (known: {known})")
    return [version for version in toolchain.GLUE_VERSIONS if version in words or ALL in words]


def read_report(report: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the tests in a report of pytest, of all and of those that were skipped; none without one."""
    if not report.exists():
        return frozenset(), frozenset()
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))  # noqa: S314  pytest's own file
    names = {f"{case.get('classname')}::{case.get('name')}": case.find("skipped") is not None for case in cases}
    return frozenset(names), frozenset(name for name, is_skipped in names.items() if is_skipped)


def run_tests(project: Path, glue_version: str, pytest_arguments: Sequence[str]) -> Outcome:
    """Run pytest in the environment of a Glue version.

    Raises:
        ToolchainError: the environment cannot be prepared.
    """
    toolchain.prepare(project, [f"glue-{glue_version}", f"spark-{glue_version}"])
    python = toolchain.environment_python(project, f"glue-{glue_version}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="glue-tests-") as name:
        report = Path(name) / "report.xml"
        command = [str(python), "-m", "pytest", "-q", f"--junitxml={report}", *pytest_arguments]
        exit_code = subprocess.run(command, cwd=project, stdin=subprocess.DEVNULL, check=False).returncode
        tests, skipped = read_report(report)
    return Outcome(glue_version, exit_code, tests, skipped, time.monotonic() - started)


def findings(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what is wrong with the outcomes, a line each; nothing if every version ran all of the tests well."""
    every_test = frozenset[str]().union(*(outcome.tests for outcome in outcomes))
    found = []
    for outcome in outcomes:
        name = f"Glue {outcome.glue_version}"
        if outcome.exit_code != 0:
            found.append(f"{name}: pytest ended with {outcome.exit_code}")
        if not outcome.tests:
            found.append(f"{name}: no test ran")
        found += [f"{name}: skipped {test}" for test in sorted(outcome.skipped)]
        found += [f"{name}: did not run {test}" for test in sorted(every_test - outcome.tests)]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests for the versions on the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.glue_versions", description=__doc__)
    parser.add_argument("versions", nargs="+", metavar="VERSION", help=f"{', '.join(toolchain.GLUE_VERSIONS)} or {ALL}")
    parser.add_argument("--tests", nargs="+", default=["tests/integration"], help="what pytest is to run")
    options = parser.parse_args(arguments)
    try:
        versions = chosen_versions(options.versions)
    except ValueError as error:
        parser.error(str(error))
    project = toolchain.project_directory()
    outcomes = []
    try:
        for version in versions:
            print(f"--- the Glue job on Glue {version}", flush=True)
            outcomes.append(run_tests(project, version, options.tests))
    except toolchain.ToolchainError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("---", *outcomes, sep="\n")
    wrong = findings(outcomes)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
