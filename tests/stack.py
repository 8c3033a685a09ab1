"""A whole stack of its own for tests, brought up and torn down by the command line's functions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from telemetry_lake.commands.up import bring_up
from telemetry_lake.console import Reporter
from telemetry_lake.laptop import Laptop
from telemetry_lake.target import Target
from telemetry_lake.toolchain import project_directory


@dataclass(frozen=True)
class Lake:
    """A deployed stack on an endpoint of its own, and where its traces are."""

    laptop: Laptop
    target: Target
    reporter: Reporter
    directory: Path


@contextmanager
def deployed_lake(directory: Path, stage: str, *, parameters: Sequence[str] = (), tls: bool = False) -> Iterator[Lake]:
    """Deploy the template for a stage on an endpoint whose state is in ``directory``, and stop it afterwards.

    Args:
        directory: for the state, and for what a test writes.
        stage: the parameter ``Stage``; it is in the names of the stack and its resources.
        parameters: further ones, words like ``Encryption=CustomerKey``.
        tls: serve over TLS.
    """
    laptop = Laptop(directory / "state")
    reporter = Reporter()
    try:
        target = bring_up(
            project_directory(),
            laptop,
            reporter,
            stack_name=f"telemetry-lake-{stage}",
            parameters=[f"Stage={stage}", *parameters],
            over_tls=tls,
            exit_with_parent=True,
        )
        yield Lake(laptop, target, reporter, directory)
    finally:
        laptop.stop(reporter)
