"""A whole stack of its own for tests, brought up and torn down by the command line's functions."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from telemetry_lake.commands.up import bring_up
from telemetry_lake.console import Reporter
from telemetry_lake.laptop import Laptop
from telemetry_lake.target import Target
from telemetry_lake.toolchain import project_directory
from tests.contracts.plugin import recorder
from tests.contracts.sam import answers_to_sam


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
        with answers_to_sam(recorder):
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


def ledgers(lake: Lake) -> list[Path]:
    """Return the ledgers of everything that tests have sent to a stack: each keeps its own in the lake's directory."""
    return sorted(lake.directory.glob("*.jsonl"))


def tlake_command(lake: Lake, *words: str) -> list[str]:
    """Return the command line that a person would type for a lake."""
    options = ("--state-directory", str(lake.laptop.directory), "--stack-name", lake.target.stack_name)
    return [sys.executable, "-m", "telemetry_lake", *options, *words]


def tlake(lake: Lake, *words: str) -> tuple[int, Any, str]:
    """Run the command line as a person would, and return exit code, JSON and what it said."""
    completed = subprocess.run(tlake_command(lake, *words), capture_output=True, text=True, check=False, timeout=900)
    return completed.returncode, json.loads(completed.stdout or "null"), completed.stderr


def client(lake: Lake, service: str) -> Any:
    """Return a client of the account's root user, for what the command line itself does not need."""
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=lake.target.laptop_url,
        verify=lake.target.laptop_authority,
        region_name=lake.target.region,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def physical_id(lake: Lake, logical_id: str) -> str:
    """Return the name or ARN that a resource of the stack has."""
    detail = client(lake, "cloudformation").describe_stack_resource(
        StackName=lake.target.stack_name, LogicalResourceId=logical_id
    )
    return str(detail["StackResourceDetail"]["PhysicalResourceId"])


@contextmanager
def without_grant(lake: Lake, role: str, action: str) -> Iterator[None]:
    """Take an action away from a role of the stack, by logical id, and give it back afterwards."""
    iam, name = client(lake, "iam"), physical_id(lake, role)
    (policy_name,) = iam.list_role_policies(RoleName=name)["PolicyNames"]
    document = iam.get_role_policy(RoleName=name, PolicyName=policy_name)["PolicyDocument"]
    less = json.loads(json.dumps(document))
    for statement in less["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        statement["Action"] = [other for other in actions if other != action]
    less["Statement"] = [statement for statement in less["Statement"] if statement["Action"]]
    assert action in json.dumps(document), f"{role} is not granted {action}"
    iam.put_role_policy(RoleName=name, PolicyName=policy_name, PolicyDocument=json.dumps(less))
    try:
        yield
    finally:
        iam.put_role_policy(RoleName=name, PolicyName=policy_name, PolicyDocument=json.dumps(document))
