"""A whole stack of its own for the end-to-end tests, brought up and torn down by the command line's functions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from telemetry_lake.commands.up import bring_up
from telemetry_lake.console import Reporter
from telemetry_lake.laptop import Laptop
from telemetry_lake.target import Target
from telemetry_lake.toolchain import project_directory

STAGE = "e2e"


@dataclass(frozen=True)
class Lake:
    """A deployed stack on an endpoint of its own, and where its traces are."""

    laptop: Laptop
    target: Target
    reporter: Reporter
    directory: Path


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """One stack for the session, in a folder with a space in its name; the tests of a module come in order."""
    directory = tmp_path_factory.mktemp("telemetry lake")
    laptop = Laptop(directory / "state")
    reporter = Reporter()
    try:
        target = bring_up(
            project_directory(),
            laptop,
            reporter,
            stack_name=f"telemetry-lake-{STAGE}",
            parameters=[f"Stage={STAGE}"],
            exit_with_parent=True,
        )
        yield Lake(laptop, target, reporter, directory)
    finally:
        laptop.stop(reporter)
