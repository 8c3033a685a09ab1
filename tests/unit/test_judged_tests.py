"""A test fails when a request in it breaks AWS's API models, and no call in the code is overlooked."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts import calls
from tests.contracts.recording import Call
from tests.judging import REPOSITORY

CONFTEST = (REPOSITORY / "tests" / "conftest.py").read_text()
TESTS = """
import boto3, pytest
from botocore.exceptions import ClientError
from moto import mock_aws

def ask(name):
    with mock_aws():
        try:
            boto3.client("kinesis", region_name="eu-west-1").describe_stream_summary(StreamName=name)
        except ClientError:
            return

def test_good(): ask("a-stream")
def test_bad(): ask("a stream")
@pytest.mark.bad_requests
def test_bad_on_purpose(): ask("a stream")
@pytest.mark.bad_requests
def test_good_by_mistake(): ask("a-stream")
@pytest.mark.after_all_of_its_layer
def test_looking_back(): pass
"""


@pytest.mark.parametrize(("chosen", "deselected"), [((), 0), (("-k", "good or bad or looking"), 1)])
def test_the_hooks_fail_what_they_must(chosen: tuple[str, ...], deselected: int, tmp_path: Path) -> None:
    # GIVEN
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_requests.py").write_text(TESTS)

    # WHEN
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", *chosen]
    ended = subprocess.run(
        [*command, str(tmp_path), "--rootdir", str(tmp_path)],
        cwd=REPOSITORY,
        env={
            "PYTHONPATH": str(REPOSITORY),
            "PATH": "/usr/bin:/bin",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    # THEN
    failed = {line.split("::")[1].split()[0] for line in ended.stdout.splitlines() if line.startswith("FAILED")}
    assert failed == {"test_bad", "test_good_by_mistake"}, ended.stdout + ended.stderr
    assert "request kinesis.DescribeStreamSummary.StreamName: 'a stream' does not match" in ended.stdout
    assert f"{3 - deselected} passed" in ended.stdout
    assert (f"{deselected} deselected" in ended.stdout) == bool(deselected)


def found(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    monkeypatch.setattr(calls, "REPOSITORY", tmp_path)
    file = tmp_path / "code.py"
    file.write_text(source)
    services = calls.services_used([file])
    return list(calls.calls_in(file, services))


@pytest.mark.parametrize(
    ("line", "operations"),
    [
        ("s3.put_object(Bucket='b')", ["PutObject"]),
        ("pool.map(self._s3.get_object, keys)", ["GetObject"]),
        ("s3.get_paginator('list_objects_v2').paginate()", ["ListObjectsV2"]),
        ("self._s3.copy(source, 'b', 'k')", ["HeadObject", "CopyObject"]),
        ("names.copy()", []),
        ("put_object(1)", []),
    ],
)
def test_calls_are_found_in_every_form(
    line: str, operations: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"import boto3\ns3 = boto3.client('s3')\n{line}\n"
    assert [call.operation for call in found(source, tmp_path, monkeypatch)] == operations


def test_a_name_that_only_a_run_knows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"code\.py:3: get_paginator of a name"):
        found("import boto3\ns3 = boto3.client('s3')\ns3.get_paginator(name)\n", tmp_path, monkeypatch)


def test_no_client_is_called_by_a_computed_name() -> None:
    # GIVEN every getattr in code that runs on AWS or asks AWS
    files = calls.python_files("functions", "glue", "telemetry_lake")
    named = [
        f"{file.name}: {ast.unparse(node)}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr"
    ]

    # THEN none is of a client, which the search for calls would overlook
    assert [line for line in named if any(word in line.lower() for word in ("client", "s3", "glue", "athena"))] == []
