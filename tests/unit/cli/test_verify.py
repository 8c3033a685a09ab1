"""``tlake verify --conservation``: each planted fault is found, in an account that holds what a stack has written."""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import boto3
import pytest
from click.testing import CliRunner
from moto import mock_aws

from telemetry_contract import Policy
from telemetry_lake.commands.context import Context
from telemetry_lake.commands.verify import ADVICE, Verification, check, show, verify
from telemetry_lake.conservation import comparison
from telemetry_lake.console import OperatorError, Reporter
from telemetry_lake.ledger import Ledger, Place
from telemetry_lake.local.athena.values import double_text
from telemetry_lake.readings import Record
from telemetry_lake.target import Target
from tests.contracts.fakes import client_answered_by

REGION: Final = "ap-northeast-1"
SHARD = "shardId-000000000000"
NOW_PREFIX = f"raw_data/{datetime.now(UTC):%Y/%m/%d}/00/"
QUIET = Reporter(quiet=True)

Triple = tuple[str, float, float]


@dataclass
class Athena:
    """Answers with the rows that it is given, as a result file in S3."""

    s3: Any
    rows: list[Triple] = field(default_factory=list)
    states: list[str] = field(default_factory=lambda: ["RUNNING", "SUCCEEDED"])
    stopped: list[str] = field(default_factory=list)
    asked: str = ""

    def start_query_execution(self, QueryString: str, **_arguments: Any) -> dict[str, str]:  # noqa: N803
        self.asked = QueryString
        self.left = list(self.states)
        lines = ['"device_id","timestamp","temperature"']
        for device, *numbers in self.rows:
            quoted = device.replace('"', '""')
            lines.append(",".join((f'"{quoted}"', *(f'"{double_text(number)}"' for number in numbers))))
        self.s3.put_object(
            Bucket="analytics", Key="results/q-1.csv", Body="".join(f"{line}\n" for line in lines).encode()
        )
        return {"QueryExecutionId": "q-1"}

    def get_query_execution(self, **_arguments: str) -> dict[str, Any]:
        state = self.left.pop(0)
        if state == "CTRL-C":
            raise KeyboardInterrupt
        reason = {"StateChangeReason": "scan limit"} if state == "FAILED" else {}
        return {
            "QueryExecution": {
                "Status": {"State": state, **reason},
                "Statistics": {"DataScannedInBytes": 1234},
                "ResultConfiguration": {"OutputLocation": "s3://analytics/results/q-1.csv"},
            }
        }

    def stop_query_execution(self, QueryExecutionId: str) -> dict[str, Any]:  # noqa: N803
        self.stopped.append(QueryExecutionId)
        return {}


def line_of(triple: Triple) -> bytes:
    device, timestamp, temperature = triple
    return json.dumps({"device_id": device, "temperature": temperature, "timestamp": timestamp}).encode()


@dataclass
class Lake:
    """A lake that has done everything right with what was sent; a test plants what is wrong."""

    target: Target
    athena: Athena
    ledger: Path
    sent: list[tuple[bytes, int]] = field(default_factory=list)

    def send(self, *records: bytes) -> None:
        with Ledger(self.ledger) as ledger:
            names = ledger.sending([Record(data, "a") for data in records])
            places = {}
            for name, data in zip(names, records, strict=True):
                self.sent.append((data, len(self.sent) + 1))
                places[name] = Place(SHARD, str(len(self.sent)))
            ledger.acknowledged(places)

    def reject(self, data: bytes, number: int | None = None, reason: str = "malformed_json", **other: Any) -> str:
        """Write a dead letter, at the place of the sending with this number, and return its id."""
        name = hashlib.sha256(data + str(number).encode() + reason.encode()).hexdigest()
        letter = {
            "reject_id": name,
            "reason": reason,
            "stage": "transform",
            "original": data.decode("utf-8", "replace"),
            "original_base64": None,
            "source": {"shard_id": SHARD, "sequence_number": str(number)} if number else {},
            "contract_version": Policy().contract_version,
            **other,
        }
        self.put("analytics", f"dlq/raw_json/year=2026/{name}.json.gz", json.dumps(letter).encode())
        return name

    def put(self, bucket: str, key: str, *lines: bytes) -> None:
        self.target.s3.put_object(Bucket=bucket, Key=key, Body=gzip.compress(b"".join(line + b"\n" for line in lines)))

    def check(self, *, only: bool = False) -> Verification:
        return check(self.target, [self.ledger], QUIET, ledger_devices_only=only)

    def found(self) -> dict[str, int]:
        report = self.check().report
        return {finding.kind: finding.count for finding in (*report.findings, *report.causes)}


GOOD: list[Triple] = [
    ("a", 1792034000.123456, 0.1 + 0.2),
    ("a", 1792034000.0, -0.0),
    ('é, "b"', 1e-7, 21.5),
    ("c", 1792034000.5, 2e-3),
]
BAD = [b"\xff", b" \n", b" \n", b"{}{}"]


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Lake]:
    monkeypatch.setattr("telemetry_lake.conservation.table.POLL_SECONDS", 0)
    with mock_aws():
        target = Target(REGION, None, "lake")
        for bucket in ("raw", "analytics"):
            target.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        definition = json.dumps({"StartAt": "Run", "States": {"Run": {"Type": "Pass", "End": True}}})
        machine = boto3.client("stepfunctions", region_name=REGION).create_state_machine(
            name="pipeline", definition=definition, roleArn="arn:aws:iam::123456789012:role/role"
        )
        outputs = {
            "raw_bucket_name": "raw",
            "raw_prefix": "raw_data/",
            "error_prefix": "firehose_errors/",
            "analytics_bucket_name": "analytics",
            "dlq_prefix": "dlq/raw_json/",
            "quarantine_prefix": "quarantine/",
            "database_name": "lake",
            "table_name": "table",
            "work_group_name": "analytics",
            "state_machine_arn": machine["stateMachineArn"],
            "trigger_queue_url": target.sqs.create_queue(QueueName="trigger")["QueueUrl"],
        }
        athena = Athena(target.s3)
        monkeypatch.setattr(Target, "outputs", SimpleNamespace(**outputs))
        monkeypatch.setattr(Target, "policy", Policy())
        monkeypatch.setattr(Target, "athena", client_answered_by("athena", athena))
        lake = Lake(target, athena, tmp_path / "ledger with space")
        lake.send(b"\n".join(map(line_of, GOOD[:2])), *map(line_of, GOOD[2:]), *BAD)
        athena.rows = list(GOOD)
        lake.reject(BAD[0], 4, original=None, original_base64="/w==")
        for number, data in enumerate(BAD[1:], start=5):
            lake.reject(data, number)
        yield lake


def test_what_is_stored_and_rejected_as_it_was_sent_is_conserved(lake: Lake) -> None:
    # GIVEN / WHEN
    verification = lake.check()

    # THEN
    assert verification.verdict == "conserved"
    assert verification.report.counts == {
        "records acknowledged": 7,
        "records of which it is not known": 0,
        "readings acknowledged": 4,
        "unreadable elements acknowledged": 4,
        "rows": 4,
        "dead letters": 4,
        "elements parked by Firehose": 0,
        "readings in quarantine": 0,
        "resolved by tombstones": 0,
    }
    assert (verification.at_work, verification.notes, lake.athena.asked) == (
        (),
        (),
        'SELECT device_id, "timestamp", temperature FROM "table"',
    )


# ---------------------------------------------------------------- planted faults


def test_a_lost_reading_is_found_once_a_later_one_of_its_shard_has_come(lake: Lake) -> None:
    # GIVEN / WHEN it is missing, though the two after it are there
    del lake.athena.rows[1]

    # THEN
    assert lake.found() == {comparison.LOST_READING: 1}
    assert lake.check().verdict == "not_conserved"


def test_the_last_digit_of_a_double_counts(lake: Lake) -> None:
    lake.athena.rows[0] = ("a", 1792034000.123456, 0.3)
    assert lake.found() == {comparison.LOST_READING: 1, comparison.ROW_NEVER_SENT: 1}


def test_of_two_equal_unreadable_records_each_needs_its_reject(lake: Lake) -> None:
    # GIVEN / WHEN one of the two blank ones has none, and a later record was judged
    (key,) = [
        each["Key"]
        for each in lake.target.s3.list_objects_v2(Bucket="analytics")["Contents"]
        if sequence(lake, each["Key"]) == "5"
    ]
    lake.target.s3.delete_object(Bucket="analytics", Key=key)

    # THEN
    assert lake.found() == {comparison.LOST_RECORD: 1}


def sequence(lake: Lake, key: str) -> str:
    body = lake.target.s3.get_object(Bucket="analytics", Key=key)["Body"].read()
    return str(json.loads(gzip.decompress(body))["source"]["sequence_number"]) if key.startswith("dlq/") else ""


def test_a_reading_that_is_stored_twice_is_found(lake: Lake) -> None:
    lake.athena.rows.append(("a", 1792034000.0, 0.0))
    assert lake.found() == {comparison.STORED_TWICE: 1}


def test_rows_and_rejects_that_nobody_sent_are_found(lake: Lake) -> None:
    # GIVEN / WHEN
    lake.athena.rows.append(("intruder", 1.0, 2.0))
    lake.reject(b"intruder", 99)
    lake.put("raw", "firehose_errors/x/1", json.dumps({"rawData": base64.b64encode(b"nobody").decode()}).encode())

    # THEN
    assert lake.found() == {comparison.ROW_NEVER_SENT: 1, comparison.REJECT_NEVER_SENT: 2}


def test_a_reading_in_both_places_without_a_cause_is_found(lake: Lake) -> None:
    lake.reject(line_of(GOOD[3]), 3, "timestamp_in_future")
    assert lake.found() == {comparison.IN_BOTH_PLACES: 1}


# ---------------------------------------------------------------- legal for a cause


def test_a_reading_in_both_places_is_legal_for_a_cause_which_is_named(lake: Lake) -> None:
    # GIVEN readings that were sent again
    first, other = line_of(GOOD[0]), line_of(GOOD[3])[:-1] + b', "note": 1e999}'
    lake.send(first, other)

    # WHEN each arrival got another verdict
    lake.reject(first, 8, "timestamp_in_future")
    lake.reject(first, 8, "temperature_out_of_range", contract_version="1;earlier")
    lake.reject(other, 9, "not_finite")

    # THEN
    assert lake.found() == {comparison.CLOCK: 1, comparison.CONTRACT_CHANGE: 1, comparison.OTHER_FIELDS: 1}
    assert lake.check().verdict == "conserved"


def test_a_replayed_reject_is_resolved_and_no_longer_keeps_its_reading(lake: Lake) -> None:
    # GIVEN a reject of a reading that a replay has stored
    name = lake.reject(line_of(GOOD[3]), 3, "temperature_out_of_range")
    lake.target.s3.put_object(Bucket="analytics", Key=f"dlq/resolved/{name}", Body=b"{}")
    assert lake.found() == {comparison.REPLAY: 1}

    # WHEN it is not in the table after all
    lake.athena.rows.pop()
    lake.send(line_of(("c", 1.0, 2.0)))
    lake.athena.rows.append(("c", 1.0, 2.0))

    # THEN
    assert lake.found() == {comparison.LOST_READING: 1}


def test_a_record_that_firehose_keeps_whole_keeps_all_its_elements(lake: Lake) -> None:
    # GIVEN a record with a good and a bad element, in the error prefix
    record = line_of(("parked", 1.0, 2.0)) + b"\nbad"
    lake.send(record, line_of(("after", 1.0, 2.0)))
    lake.athena.rows.append(("after", 1.0, 2.0))
    lake.put(
        "raw",
        "firehose_errors/processing-failed/1",
        json.dumps({"rawData": base64.b64encode(record).decode()}).encode(),
    )
    assert lake.found() == {}

    # WHEN the good one is stored all the same
    lake.athena.rows.append(("parked", 1.0, 2.0))

    # THEN
    assert lake.found() == {comparison.PARKED_WHOLE: 1}

    # AND when its tombstone says that it is resolved, what was bad in it needs a reject of its own
    name = hashlib.sha256(b"s3://raw/firehose_errors/processing-failed/1\n0").hexdigest()
    lake.target.s3.put_object(Bucket="analytics", Key=f"dlq/resolved/{name}", Body=b"{}")
    assert lake.found() == {comparison.REPLAY: 1, comparison.LOST_RECORD: 1}
    lake.reject(b"bad", 999)
    assert lake.found() == {comparison.REPLAY: 1}


def test_a_quarantined_object_keeps_its_readings_as_far_as_it_can_be_read(lake: Lake) -> None:
    # GIVEN an object that is cut off, and the page beside it
    readings = [("q", float(number), 2.5) for number in range(2000)]
    lake.send(*map(line_of, readings), line_of(("after", 1.0, 1.0)))
    lake.athena.rows.append(("after", 1.0, 1.0))
    whole = gzip.compress(b"".join(line_of(each) + b"\n" for each in readings))
    key = "quarantine/raw_data/2026/11/01/00/a b.gz"
    lake.target.s3.put_object(Bucket="analytics", Key=f"{key}.json", Body=b'{"why": "cut off"}')
    lake.target.s3.put_object(Bucket="analytics", Key=key, Body=whole)
    assert lake.found() == {}

    # WHEN
    lake.target.s3.put_object(Bucket="analytics", Key=key, Body=whole[: len(whole) // 2])
    verification = lake.check()

    # THEN
    (finding,) = verification.report.findings
    assert (finding.kind, 0 < finding.count < 2000) == (comparison.LOST_READING, True)
    assert verification.notes == (f"{key} cannot be read to its end: lost readings may be in it.",)


# ---------------------------------------------------------------- on its way


def test_what_no_run_has_read_yet_is_on_its_way(lake: Lake) -> None:
    # GIVEN a reading in the raw zone, two that Firehose may hold still, and a message that waits
    lake.send(line_of(("d", 1.0, 1.0)), line_of(("d", 2.0, 1.0)), b"no reading")
    lake.put("raw", f"{NOW_PREFIX}1.gz", line_of(("d", 1.0, 1.0)))
    lake.target.sqs.send_message(QueueUrl=lake.target.outputs.trigger_queue_url or "", MessageBody="{}")

    # WHEN
    verification = lake.check()

    # THEN
    assert verification.verdict == "in_flight"
    assert lake.found() == {
        comparison.IN_RAW_ZONE: 1,
        comparison.NOT_DELIVERED: 1,
        comparison.RECORD_NOT_DELIVERED: 1,
    }
    assert verification.at_work == ("1 trigger message(s) waiting", "1 raw object(s) that no finished run has read")


# ---------------------------------------------------------------- other data, and what cannot be read


def test_other_devices_can_be_left_out(lake: Lake) -> None:
    # GIVEN data of another ledger, and a reject of which nobody knows the device
    lake.athena.rows.append(("intruder", 1.0, 2.0))
    lake.reject(line_of(("intruder", 2.0, 2.0)), 99)
    lake.reject(b"intruder", 99)
    assert lake.check().verdict == "not_conserved"

    # WHEN
    verification = lake.check(only=True)

    # THEN
    assert verification.verdict == "conserved"
    assert verification.notes == (
        "Only the ledgers' devices were judged; 1 reject(s) without a device may be anybody's.",
    )
    assert lake.athena.asked.endswith("WHERE device_id IN ('a', 'c', 'é, \"b\"')")

    # AND what is wrong with their own is still found
    lake.athena.rows.append(("a", 7.0, 7.0))
    assert not lake.check(only=True).report.is_conserved


@pytest.mark.parametrize("body", [b"{}\n", b"no json\n", b"[]\n", gzip.compress(b"x" * 9000)[:30]])
def test_a_dead_letter_that_cannot_be_understood_is_named(lake: Lake, body: bytes) -> None:
    lake.target.s3.put_object(Bucket="analytics", Key="dlq/raw_json/odd.gz", Body=body)
    with pytest.raises(OperatorError, match=r"(?s)s3://analytics/dlq/raw_json/odd.gz.*Restore"):
        lake.check()


def test_a_query_that_fails_gives_athena_s_reason(lake: Lake) -> None:
    lake.athena.states = ["FAILED"]
    with pytest.raises(OperatorError, match="failed: scan limit"):
        lake.check()


def test_ctrl_c_cancels_the_query_in_athena_too(lake: Lake) -> None:
    # GIVEN
    lake.athena.states = ["RUNNING", "CTRL-C"]

    # WHEN
    with pytest.raises(KeyboardInterrupt):
        lake.check()

    # THEN
    assert lake.athena.stopped == ["q-1"]


def test_a_row_without_a_reading_is_one_that_nobody_sent(lake: Lake) -> None:
    lake.athena.rows.append(("", float("nan"), float("inf")))
    assert lake.found() == {comparison.ROW_NEVER_SENT: 1}


# ---------------------------------------------------------------- what a person sees


def test_each_finding_is_shown_with_an_example_and_what_to_do_next(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    # GIVEN
    lake.athena.rows.append(GOOD[0])
    lake.athena.rows.append(("intruder", 1.0, 2.0))

    # WHEN
    show(lake.check(), Reporter())

    # THEN
    shown = capsys.readouterr()
    assert '{"device_id": "intruder", "timestamp": 1.0, "temperature": 2.0}' in shown.out
    assert f'"temperature": 0.30000000000000004}}, sent to {SHARD} 1, 2 rows' in shown.out
    assert shown.out.endswith(f"NOT conserved: {comparison.ROW_NEVER_SENT} 1, {comparison.STORED_TWICE} 1.\n")
    for kind in (comparison.STORED_TWICE, comparison.ROW_NEVER_SENT):
        assert f"{kind}: {ADVICE[kind]}" in shown.err


def test_every_kind_of_finding_has_its_advice() -> None:
    kinds = {
        value for name, value in vars(comparison).items() if name.startswith(("LOST_", "STORED_", "ROW_", "REJECT_"))
    }
    assert {*kinds, comparison.IN_BOTH_PLACES, *comparison.IN_FLIGHT} == set(ADVICE)


@pytest.mark.parametrize(("spoilt", "exit_code", "verdict"), [(False, 0, "conserved"), (True, 1, "not_conserved")])
def test_the_exit_code_is_0_only_when_all_is_conserved(lake: Lake, spoilt: bool, exit_code: int, verdict: str) -> None:
    # GIVEN
    if spoilt:
        lake.athena.rows.append(GOOD[0])
    context = Context(lake.ledger.parent, None, None, True, QUIET)
    context.__dict__["target"] = lake.target

    # WHEN
    outcome = CliRunner().invoke(verify, ["--conservation", "--ledger", str(lake.ledger), "--json"], obj=context)

    # THEN
    assert (outcome.exit_code, json.loads(outcome.stdout)["verdict"]) == (exit_code, verdict), outcome.output
