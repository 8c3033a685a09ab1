"""Which operations the project's code calls through boto3's clients, read from its syntax trees."""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import botocore.session
from botocore import xform_name

from tests.contracts.recording import TRANSFERS, Call
from tests.judging import REPOSITORY

# Methods that boto3 adds to the client of S3, and what they ask for at least; a large object takes other ways.
# https://boto3.amazonaws.com/v1/documentation/api/latest/reference/services/s3/client/copy.html
TRANSFER_METHODS = {"copy": ("HeadObject", "CopyObject")}
# What calls an operation by its name as text.
BY_NAME = ("get_paginator", "get_waiter")


@dataclass(frozen=True)
class Service:
    """A service of AWS: boto3's name of it, and its operations by the names of a client's methods."""

    name: str
    methods: dict[str, str]


@functools.cache
def service(name: str) -> Service:
    """Return a service by boto3's name."""
    operations = botocore.session.get_session().get_service_model(name).operation_names
    return Service(name, {xform_name(operation): operation for operation in operations})


def python_files(*folders: str) -> list[Path]:
    """Return the project's own Python files below some folders, the emulator's left out."""
    found = [file for folder in folders for file in sorted((REPOSITORY / folder).rglob("*.py"))]
    return [file for file in found if "telemetry_lake/local" not in file.as_posix()]


def services_used(files: list[Path]) -> set[str]:
    """Return the services that the files make clients of, or name the clients' types of."""
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mypy_boto3_"):
                found.add((node.module or "").split(".")[0].removeprefix("mypy_boto3_").replace("lambda_", "lambda"))
            if isinstance(node, ast.Call) and _method(node) in ("client", "_client") and node.args:
                found |= {str(node.args[0].value)} if isinstance(node.args[0], ast.Constant) else set()
    return found


def calls_in(file: Path, services: set[str]) -> Iterator[Call]:
    """Yield the operations that a file calls.

    Raises:
        ValueError: several of the services have a method of that name.
    """
    caller = file.relative_to(REPOSITORY).as_posix()
    for node in ast.walk(ast.parse(file.read_text())):
        # An attribute, not only a call: a client's method may be handed on.
        if (
            isinstance(node, ast.Attribute)
            and node.attr in TRANSFER_METHODS
            and "s3" in ast.unparse(node.value).lower()
        ):
            yield from (Call("s3", operation, TRANSFERS) for operation in TRANSFER_METHODS[node.attr])
        elif isinstance(node, ast.Attribute) and any(node.attr in service(name).methods for name in services):
            yield _call(node.attr, services, caller, node.lineno)
        elif isinstance(node, ast.Call) and _method(node) in BY_NAME:
            argument = node.args[0]
            if not isinstance(argument, ast.Constant):
                raise ValueError(f"{caller}:{node.lineno}: {_method(node)} of a name that only a run knows")
            yield _call(str(argument.value), services, caller, node.lineno)


def _call(method: str, services: set[str], caller: str, line: int) -> Call:
    owners = [name for name in sorted(services) if method in service(name).methods]
    if len(owners) != 1:
        raise ValueError(f"{caller}:{line}: {method} is a method of {owners or 'no service in use'}")
    return Call(owners[0], service(owners[0]).methods[method], caller)


def _method(node: ast.AST) -> str | None:
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None


def calls_of(*folders: str) -> set[Call]:
    """Return every operation that the project's code below some folders calls.

    Raises:
        ValueError: a service that is used is called nowhere, so that calls are being overlooked.
    """
    files = python_files(*folders)
    services = services_used(files)
    calls = {call for file in files for call in calls_in(file, services)}
    if idle := services - {call.service for call in calls}:
        raise ValueError(f"no call of {sorted(idle)} is found, and there are clients of it")
    return calls
