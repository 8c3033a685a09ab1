"""What all commands share: the options of the group, and what they lead to."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click

from telemetry_lake import deployment, toolchain
from telemetry_lake.console import Reporter
from telemetry_lake.laptop import Laptop
from telemetry_lake.target import Target, choose_target


@dataclass
class Context:
    """The group's options; each command gets this object."""

    state_directory: Path
    stack_name: str | None
    region: str | None
    account: bool
    reporter: Reporter

    @property
    def project(self) -> Path:
        """The checkout."""
        return toolchain.project_directory()

    @cached_property
    def laptop(self) -> Laptop:
        """The state directory's endpoint."""
        return Laptop(self.state_directory)

    @cached_property
    def target(self) -> Target:
        """What the command talks to."""
        record = deployment.read_record(self.laptop)
        deployed = record.stack_name if record is not None else None
        return choose_target(self.laptop, deployed, self.stack_name, self.region, self.account)


pass_context = click.make_pass_decorator(Context)
