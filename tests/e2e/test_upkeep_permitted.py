"""Every command with exactly the permissions that the README lists for it, and with no grant that it does not use.

The tests share their stack with those of other modules, so each looks at what is its own, by its device.
"""

import base64
import gzip
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.client import BaseClient
from click.testing import CliRunner

from telemetry_lake.cli import group
from telemetry_lake.ledger import Ledger
from telemetry_lake.pipeline import queue_depth, start_execution
from telemetry_lake.producer import Producer
from telemetry_lake.readings import Record
from telemetry_lake.rejects import read_rejects
from telemetry_lake.toolchain import project_directory
from tests.e2e.test_upkeep import eventually, put_readings, settle
from tests.stack import Lake, client, physical_id

DEVICE = "permitted"
LEDGER = "permitted.jsonl"
POLICIES = {"AnalystPolicyArn": "AnalystPolicy", "ProducerPolicyArn": "ProducerPolicy"}
# What an action is called where it is not called as its operation:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
ACTIONS = {"ListObjectsV2": "ListBucket", "HeadObject": "GetObject", "CopyObject": "PutObject"}
SERVICES = {"monitoring": "cloudwatch"}
AT_WORK = ("tlake status", "tlake verify --conservation")
"""Commands that ask more while an execution runs, and a reading and an object have not been read yet."""
JUDGES = ("tlake status", "tlake verify", "tlake verify --rerun", "tlake verify --conservation")
"""Commands whose exit code tells what they think of the stack."""


@dataclass(frozen=True)
class Row:
    """A line of the README's table of permissions."""

    commands: tuple[str, ...]
    policies: tuple[str, ...]
    grants: Mapping[str, tuple[str, ...]]


def read_rows() -> dict[str, Row]:
    """Read the table: commands, policies and actions as code, the folders of an action in brackets behind it."""
    text = (project_directory() / "README.md").read_text("utf-8")
    rows = {}
    for command, needs in re.findall(r"^\| `(tlake [^`]+)` \| (`.*) \|$", text, re.MULTILINE):
        found = re.findall(r"`([^`]+)`(?: \(([^)]+)\))?", needs)
        rows[command] = Row(
            tuple(word for word, _ in found if word.startswith("tlake ")),
            tuple(word for word, _ in found if word.endswith("PolicyArn")),
            {word: tuple(re.findall(r"`([^`]+)`", folders)) for word, folders in found if ":" in word},
        )
    return rows


ROWS = read_rows()


def with_those_it_refers_to(row: Row) -> Iterator[Row]:
    yield row
    for command in row.commands:
        yield from with_those_it_refers_to(ROWS[command])


class Operator:
    """A user of the account who has what the README lists for a command, and nothing else."""

    def __init__(self, lake: Lake, command: str) -> None:
        self._lake, self._command = lake, command
        iam, name = client(lake, "iam"), "-".join(re.findall(r"\w+", command))
        rows = list(with_those_it_refers_to(ROWS[command]))
        statements = [self._statement(action, folders) for row in rows for action, folders in row.grants.items()]
        iam.create_user(UserName=name)
        iam.put_user_policy(
            UserName=name,
            PolicyName="as-the-readme-says",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
        )
        for policy in {policy for row in rows for policy in row.policies}:
            iam.attach_user_policy(UserName=name, PolicyArn=physical_id(lake, POLICIES[policy]))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self._environment = {
            "AWS_ENDPOINT_URL": lake.target.laptop_url,
            "AWS_REGION": lake.target.region,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }

    def _statement(self, action: str, folders: tuple[str, ...]) -> dict[str, Any]:
        outputs = self._lake.target.outputs
        buckets = [f"arn:aws:s3:::{name}" for name in (outputs.raw_bucket_name, outputs.analytics_bucket_name)]
        objects = [f"{bucket}/{folder}*" for bucket in buckets for folder in folders]
        resources = objects or (buckets if action.startswith("s3:") else ["*"])
        return {"Effect": "Allow", "Action": action, "Resource": resources}

    def runs(self, *words: str) -> str:
        """Run a command to its end, and return what it said; nothing may have been refused."""
        stack = ("--account", "--stack-name", self._lake.target.stack_name)
        result = CliRunner().invoke(group, [*stack, *words], env=self._environment)
        assert not re.search("AccessDenied|not authorized", f"{result.output}{result.exception}"), result.output
        assert result.exit_code == 0 or self._command in JUDGES, result.output
        return result.output


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """The actions of the calls that were made, with the key of the object if there is one."""
    found: set[tuple[str, str]] = set()
    call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def recorded(self: Any, operation: str, parameters: Any) -> Any:
        service = self.meta.service_model.signing_name
        action = f"{SERVICES.get(service, service)}:{ACTIONS.get(operation, operation)}"
        found.add((action, parameters.get("Key", "")))
        return call(self, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", recorded)
    return found


def send(lake: Lake, temperature: float) -> None:
    reading = {"device_id": DEVICE, "temperature": temperature, "timestamp": int(time.time())}
    with Ledger(lake.directory / LEDGER) as ledger:
        Producer(lake.target.kinesis, lake.target.outputs.stream_name, ledger).send(
            [Record(json.dumps(reading).encode(), DEVICE)]
        )


def put_parked(lake: Lake) -> str:
    """Put a record that Firehose has parked, and return the object's key.

    https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html#data-transformation-failure-handling
    """
    outputs, now = lake.target.outputs, datetime.now(UTC)
    key = f"{outputs.error_prefix}processing-failed/{now:%Y/%m/%d/%H}/permitted"
    line = {
        "attemptsMade": 4,
        "arrivalTimestamp": int(now.timestamp() * 1000),
        "errorCode": "Lambda.FunctionError",
        "errorMessage": "The Lambda function returned an error.",
        "attemptEndingTimestamp": int(now.timestamp() * 1000),
        "rawData": base64.b64encode(b"parked").decode(),
    }
    lake.target.s3.put_object(Bucket=outputs.raw_bucket_name, Key=key, Body=f"{json.dumps(line)}\n".encode())
    return key


@pytest.fixture(scope="module")
def raw_key(lake: Lake) -> Iterator[str]:
    """An object of the raw zone that is loaded, beside an open reject, a parked record and a quarantined object."""
    s3, outputs = lake.target.s3, lake.target.outputs
    send(lake, 999)
    key = put_readings(lake, "upkeep-permitted", 10)
    settle(lake, key)

    def is_rejected() -> bool:
        today = datetime.now(UTC).date()
        return any(reject.device_id == DEVICE for reject in read_rejects(lake.target, today, today, lake.reporter))

    assert eventually(is_rejected), "the reject has not come"
    parked, quarantined = put_parked(lake), f"{outputs.quarantine_prefix}{key}-taken-out"
    s3.put_object(Bucket=outputs.analytics_bucket_name, Key=quarantined, Body=gzip.compress(b""))
    yield key
    s3.delete_object(Bucket=outputs.raw_bucket_name, Key=parked)
    s3.delete_object(Bucket=outputs.analytics_bucket_name, Key=quarantined)
    # What came out of quarantine again is read before the next module counts lines.
    queue_url = outputs.trigger_queue_url
    assert queue_url is not None
    assert eventually(lambda: queue_depth(lake.target, queue_url) == 0)
    settle(lake)


def words_of(command: str, lake: Lake, raw_key: str) -> list[list[str]]:
    """What is typed to have a command do all that it does; by default the command itself."""
    typed: dict[str, list[list[str]]] = {
        "tlake query": [["query"]],
        "tlake produce": [["produce", "--count", "2"]],
        "tlake dlq list": [["dlq", "list"], ["dlq", "show", "--device", DEVICE]],
        "tlake dlq replay": [["dlq", "replay", "--device", DEVICE, "--send-invalid", "--yes"]],
        "tlake verify --conservation": [
            ["verify", "--conservation", "--ledger", str(lake.directory / LEDGER), "--ledger-devices-only"]
        ],
        "tlake report": [["report", "--out", str(lake.directory / "permitted.html")]],
        "tlake reprocess": [["reprocess", "--yes"]],
        "tlake quarantine": [
            ["quarantine", "--scan"],
            ["quarantine", raw_key, "--force", "--yes"],
            ["quarantine", "--list"],
            ["quarantine", raw_key, "--restore"],
        ],
    }
    return typed.get(command, [command.split()[1:]])


@pytest.mark.parametrize("command", ROWS)
def test_a_command_needs_what_the_readme_says_and_no_more(
    command: str, lake: Lake, raw_key: str, used: set[tuple[str, str]]
) -> None:
    # GIVEN
    settle(lake)
    operator = Operator(lake, command)
    if command in AT_WORK:
        start_execution(lake.target, {})
        put_readings(lake, f"{DEVICE}-{len(command)}", 1)
        send(lake, 20)
    used.clear()

    # WHEN
    said = "".join(operator.runs(*words) for words in words_of(command, lake, raw_key))

    # THEN
    for row in with_those_it_refers_to(ROWS[command]):
        for action, folders in row.grants.items():
            for folder in folders or ("",):
                assert any(each == action and key.startswith(folder) for each, key in used), (action, folder, said)
