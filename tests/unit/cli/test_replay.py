"""``tlake dlq replay``: nothing is resolved before it is seen, and an interrupted replay is simply run again.

The stream, the transform's own judgement, its dead letters and tombstones are real; Athena and the pipeline's
executions are stand-ins, and time passes whenever the command looks.
"""

import base64
import gzip
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result
from moto import mock_aws

from telemetry_contract import Policy
from telemetry_lake.cli import group
from telemetry_lake.commands.context import Context
from telemetry_lake.commands.verify import check
from telemetry_lake.conservation import comparison
from telemetry_lake.console import Reporter
from telemetry_lake.ledger import Ledger
from telemetry_lake.local.athena.values import double_text
from telemetry_lake.producer import Producer
from telemetry_lake.readings import Record
from telemetry_lake.rejects import RESOLVED_PREFIX, Reject, resolved_ids
from telemetry_lake.replay import candidate_of
from telemetry_lake.target import Target
from transform.logic import plan_batch

REGION: Final = "ap-northeast-1"
QUIET = Reporter(quiet=True)
NOW = datetime.now(UTC)
STARTED = time.time()
STRICT = Policy(temperature_max=30)
"""The limits at first; later the stack's are wider."""


def line(device: str, temperature: float, **other: Any) -> bytes:
    reading = {"device_id": device, "temperature": temperature, "timestamp": int(STARTED) - 60, **other}
    return json.dumps(reading).encode()


@dataclass
class Lake:
    """A pipeline that does its work one pass after the other, and can be hurt in between."""

    target: Target
    ledger: Path
    policy: Policy = STRICT
    rows: list[tuple[str, float, float]] = field(default_factory=list)
    passes: int = 0
    interrupted_after: int | None = None
    is_parking: bool = False
    job_rejects: bool = False
    asked: list[str] = field(default_factory=list)
    _iterators: dict[str, str] = field(default_factory=dict)

    # ----------------------------------------------------------------- the pipeline

    def send(self, *records: bytes) -> None:
        with Ledger(self.ledger) as ledger:
            Producer(self.target.kinesis, "stream", ledger).send([Record(data, "key") for data in records])
        self.work()

    def work(self) -> None:
        """Take what is new on the stream through the transform, the job and an execution."""
        self.passes += 1
        records = [self._as_firehose_has_it(shard, record) for shard, record in self._new_records()]
        if not records:
            return
        if self.is_parking:
            self._park(records)
            return
        plan = plan_batch({"records": records}, policy=self.policy, dead_letter_prefix="dlq/raw_json/", now=NOW)
        if plan.dead_letter_key is not None:
            self.put("analytics", plan.dead_letter_key, plan.dead_letter_body)
        for each in b"".join(plan.lines).splitlines():
            if self.job_rejects:
                self._reject_by_job(each)
                continue
            fields = json.loads(each)
            row = (fields["device_id"], float(fields["timestamp"]), float(fields["temperature"]))
            self.rows += [] if row in self.rows else [row]

    def _new_records(self) -> Iterator[tuple[str, Any]]:
        kinesis = self.target.kinesis
        for shard in (each["ShardId"] for each in kinesis.list_shards(StreamName="stream")["Shards"]):
            iterator = (
                self._iterators.get(shard)
                or kinesis.get_shard_iterator(StreamName="stream", ShardId=shard, ShardIteratorType="TRIM_HORIZON")[
                    "ShardIterator"
                ]
            )
            answer = kinesis.get_records(ShardIterator=iterator)
            self._iterators[shard] = answer["NextShardIterator"]
            yield from ((shard, record) for record in answer["Records"])

    def _as_firehose_has_it(self, shard: str, record: Any) -> dict[str, Any]:
        arrived = int(time.time() * 1000)
        return {
            "recordId": f"{shard}-{record['SequenceNumber']}",
            "approximateArrivalTimestamp": arrived,
            "data": base64.b64encode(record["Data"]).decode(),
            "kinesisRecordMetadata": {
                "shardId": shard,
                "sequenceNumber": record["SequenceNumber"],
                "subsequenceNumber": 0,
                "partitionKey": record["PartitionKey"],
                "approximateArrivalTimestamp": arrived,
            },
        }

    def _park(self, records: list[dict[str, Any]]) -> None:
        parked = [
            {
                "attemptsMade": 4,
                "arrivalTimestamp": record["approximateArrivalTimestamp"],
                "errorCode": "Lambda.FunctionError",
                "errorMessage": "The function failed.",
                "rawData": record["data"],
            }
            for record in records
        ]
        key = f"firehose_errors/processing-failed/{datetime.now(UTC):%Y/%m/%d/%H}/parked-{self.passes}"
        self.put("raw", key, b"".join(json.dumps(each).encode() + b"\n" for each in parked))

    def _reject_by_job(self, data: bytes) -> None:
        letter = {
            "reject_id": hashlib.sha256(data).hexdigest(),
            "reason": "wrong_type",
            "detail": None,
            "device_id": None,
            "stage": "etl",
            "original": data.decode(),
            "original_base64": None,
            "source": None,
            "arrived_at": None,
            "contract_version": self.policy.contract_version,
        }
        key = f"dlq/raw_json/year={NOW.year}/month={NOW.month}/day={NOW.day}/jr_{self.passes}.json.gz"
        self.put("analytics", key, gzip.compress(json.dumps(letter).encode() + b"\n"))

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.target.s3.put_object(Bucket=bucket, Key=key, Body=body)

    def ticks(self, _seconds: float, _interval_seconds: float) -> Iterator[None]:
        """Let a pass go by before each look, and the operator's patience end after ten."""
        for number in range(10):
            if number == self.interrupted_after:
                raise KeyboardInterrupt
            self.work()
            yield

    # ----------------------------------------------------------------- the services that are stood in for

    def list_executions(self, **_: Any) -> dict[str, Any]:
        facts = {
            "stateMachineArn": "arn:aws:states:ap-northeast-1:123456789012:stateMachine:m",
            "status": "SUCCEEDED",
            "startDate": NOW,
        }
        return {
            "executions": [
                {
                    **facts,
                    "executionArn": f"arn:aws:states:ap-northeast-1:123456789012:execution:m:e{number}",
                    "name": f"e{number}",
                }
                for number in range(self.passes)
            ]
        }

    def start_query_execution(self, QueryString: str, **_: Any) -> dict[str, Any]:  # noqa: N803  the API's own name
        self.asked.append(QueryString)
        lines = ['"device_id","timestamp","temperature"']
        lines += [",".join((device, *map(double_text, numbers))) for device, *numbers in self.rows]
        self.put("analytics", "results/q.csv", "".join(f"{each}\n" for each in lines).encode())
        return {"QueryExecutionId": "q"}

    def get_query_execution(self, **_: Any) -> dict[str, Any]:
        place = {"OutputLocation": "s3://analytics/results/q.csv"}
        return {"QueryExecution": {"Status": {"State": "SUCCEEDED"}, "ResultConfiguration": place}}

    # ----------------------------------------------------------------- what a person does and sees

    def tlake(self, *words: str) -> Result:
        return CliRunner().invoke(group, ["--account", "dlq", *words])

    def replay(self, *words: str) -> dict[str, Any]:
        """Replay, and return what is printed for scripts; the exit code has to be 0."""
        result = self.tlake("replay", *words, "--yes", "--json")
        assert result.exit_code == 0, result.output
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    def states(self) -> dict[str, str]:
        """Each reject's state by its original."""
        shown = json.loads(self.tlake("show", "--limit", "100", "--json").stdout)
        return {f"{reject['original']} {reject['reject_id']}": reject["state"] for reject in shown}

    def open_originals(self) -> list[str]:
        return sorted(name.rpartition(" ")[0] for name, state in self.states().items() if state == "open")

    def found(self) -> dict[str, int]:
        report = check(self.target, [self.ledger], QUIET).report
        return {finding.kind: finding.count for finding in (*report.findings, *report.causes)}


@pytest.fixture(scope="module")
def target() -> Target:
    """One for all tests: its clients take longer to make than a test takes, and know nothing of what moto holds."""
    return Target(REGION, None, "lake")


@pytest.fixture
def lake(
    target: Target, client_of: Callable[[str, Any], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Lake]:
    """A stack that was sent a good reading, one that is too hot for its limits at first, and what is no JSON."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("telemetry_lake.conservation.table.POLL_SECONDS", 0)
    with mock_aws():
        for bucket in ("raw", "analytics"):
            target.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        target.kinesis.create_stream(StreamName="stream", ShardCount=2)
        target.firehose.create_delivery_stream(
            DeliveryStreamName="delivery",
            ExtendedS3DestinationConfiguration={
                "RoleARN": "arn:aws:iam::123456789012:role/r",
                "BucketARN": "arn:aws:s3:::raw",
            },
        )
        outputs = {
            "stream_name": "stream",
            "delivery_stream_name": "delivery",
            "raw_bucket_name": "raw",
            "raw_prefix": "raw_data/",
            "error_prefix": "firehose_errors/",
            "analytics_bucket_name": "analytics",
            "dlq_prefix": "dlq/raw_json/",
            "quarantine_prefix": "quarantine/",
            "database_name": "lake",
            "table_name": "table",
            "work_group_name": "analytics",
            "state_machine_arn": "arn:aws:states:ap-northeast-1:123456789012:stateMachine:m",
            "partition_time_zone": "UTC",
            "trigger_queue_url": None,
        }
        lake = Lake(target, tmp_path / "ledger")
        monkeypatch.setattr(Target, "outputs", SimpleNamespace(**outputs))
        monkeypatch.setattr(Target, "policy", Policy())
        monkeypatch.setattr(Target, "athena", client_of("athena", lake))
        monkeypatch.setattr(Target, "stepfunctions", client_of("stepfunctions", lake))
        monkeypatch.setattr(Context, "target", target)
        monkeypatch.setattr("telemetry_lake.replay.ticks", lake.ticks)
        lake.send(line("a", 20.0), line("hot", 40.5), b"no JSON")
        # From here on the contract takes it.
        lake.policy = Policy()
        yield lake


HOT = line("hot", 40.5).decode()


def test_a_reject_that_the_rules_accept_now_is_put_seen_in_the_table_and_resolved(lake: Lake) -> None:
    # GIVEN
    assert lake.open_originals() == ["no JSON", HOT]

    # WHEN
    outcome = lake.replay()

    # THEN what would be rejected again was left alone
    assert (outcome["put"], outcome["left_out"]) == (1, {"malformed_json": 1})
    assert list(outcome["resolved"].values()) == ["stored"]
    assert ("hot", int(STARTED) - 60.0, 40.5) in lake.rows
    assert lake.open_originals() == ["no JSON"]

    # AND the query names the device and its day alone
    assert "WHERE device_id IN ('hot') AND ((year = " in lake.asked[-1]

    # AND everything is conserved, for the cause of the replay
    assert lake.found() == {comparison.REPLAY: 1}

    # AND the tombstone says what became of it, and the dead letters are as they were
    (reject_id,) = outcome["resolved"]
    body = lake.target.s3.get_object(Bucket="analytics", Key=f"{RESOLVED_PREFIX}{reject_id}")["Body"].read()
    assert body.count(b"\n") == 1
    assert {**json.loads(body), "resolved_at": ""} == {
        "reject_id": reject_id,
        "outcome": "stored",
        "new_reject_ids": [],
        "resolved_at": "",
    }
    assert len(lake.states()) == 2


def test_what_is_rejected_again_becomes_a_new_reject_and_the_old_one_is_resolved(lake: Lake) -> None:
    # GIVEN / WHEN
    outcome = lake.replay("--reason", "malformed_json", "--send-invalid")

    # THEN
    assert (outcome["put"], list(outcome["resolved"].values())) == (1, ["rejected"])
    (new_id,) = outcome["new_reject_ids"]
    assert {name.rpartition(" ")[2]: state for name, state in lake.states().items() if "no JSON" in name} == {
        next(iter(outcome["resolved"])): "resolved",
        new_id: "open",
    }
    assert lake.found() == {}


def test_an_interrupted_replay_is_simply_run_again(lake: Lake) -> None:
    # GIVEN a replay that is interrupted after its record was put, before anything was seen
    lake.interrupted_after = 0
    broken_off = lake.tlake("replay", "--yes")
    assert broken_off.exit_code == 1
    assert "run the same command again" in broken_off.stderr
    assert resolved_ids(lake.target) == set()

    # WHEN the pipeline goes on, THEN the checker knows that something is unfinished, and its advice says what
    lake.work()
    assert lake.found() == {comparison.IN_BOTH_PLACES: 1}

    # WHEN it is run again
    lake.interrupted_after = None
    outcome = lake.replay()

    # THEN the table holds it already, so nothing is put
    assert (outcome["put"], outcome["stored_already"]) == (0, 1)
    assert lake.open_originals() == ["no JSON"]
    assert lake.found() == {comparison.REPLAY: 1}
    assert len(lake.rows) == 2

    # AND once more there is nothing to do
    again = lake.replay()
    assert (again["put"], again["stored_already"], again["resolved"]) == (0, 0, {})


def test_an_interruption_after_a_new_rejection_leaves_one_more_reject_and_nothing_lost(lake: Lake) -> None:
    # GIVEN
    lake.interrupted_after = 0
    lake.tlake("replay", "--reason", "malformed_json", "--send-invalid", "--yes")
    lake.work()
    lake.interrupted_after = None
    assert lake.open_originals().count("no JSON") == 2

    # WHEN
    outcome = lake.replay("--reason", "malformed_json", "--send-invalid")

    # THEN both are put, and each becomes a new one
    assert (outcome["put"], len(set(outcome["new_reject_ids"]))) == (2, 2)
    assert lake.open_originals().count("no JSON") == 2
    assert lake.found() == {}


def test_what_is_not_seen_stays_open_and_the_exit_code_says_so(lake: Lake) -> None:
    # GIVEN readings that do not arrive
    lake.work = lambda: None  # type: ignore[method-assign]

    # WHEN
    result = lake.tlake("replay", "--yes")

    # THEN
    assert result.exit_code == 1
    assert "1 put and not resolved" in result.stderr
    assert "run the same command again later" in result.stderr
    assert resolved_ids(lake.target) == set()


def test_what_firehose_has_parked_is_put_whole_and_each_element_is_seen(lake: Lake) -> None:
    # GIVEN a record with a good reading and a bad one, parked as a whole
    lake.is_parking = True
    lake.send(line("parked", 21.0) + b"\nnot this")
    lake.is_parking = False
    (parked,) = (name for name in lake.states() if "not this" in name)
    assert lake.found() == {}

    # WHEN
    outcome = lake.replay("--parked")

    # THEN
    assert list(outcome["resolved"].items()) == [(parked.rpartition(" ")[2], "stored and rejected")]
    assert ("parked", int(STARTED) - 60.0, 21.0) in lake.rows
    assert "not this" in lake.open_originals()
    assert lake.found() == {comparison.REPLAY: 1}


def test_what_is_parked_once_more_is_a_new_reject(lake: Lake) -> None:
    # GIVEN
    lake.is_parking = True
    lake.send(line("parked", 21.0))

    # WHEN the function still fails
    outcome = lake.replay("--parked")

    # THEN
    assert list(outcome["resolved"].values()) == ["rejected"]
    assert len(outcome["new_reject_ids"]) == 1
    assert lake.open_originals().count(line("parked", 21.0).decode()) == 1
    assert lake.found() == {}


def test_what_the_job_rejects_again_under_the_same_id_stays_open(lake: Lake) -> None:
    # GIVEN a line that the job rejects, and names by its bytes
    lake.job_rejects = True
    lake.send(line("odd", 22.0))
    (odd,) = (name for name in lake.open_originals() if "odd" in name)

    # WHEN
    result = lake.tlake("replay", "--reason", "wrong_type", "--yes")

    # THEN
    assert result.exit_code == 1
    assert "the job has rejected it again, under the same id" in result.stderr
    assert odd in lake.open_originals()


def test_a_new_rejection_by_the_job_resolves_the_transform_s(lake: Lake) -> None:
    # GIVEN
    lake.job_rejects = True

    # WHEN
    outcome = lake.replay()

    # THEN
    assert list(outcome["resolved"].values()) == ["rejected"]
    assert len(lake.open_originals()) == 2


@pytest.mark.parametrize(
    ("words", "put"),
    [
        (("--device", "hot"), 1),
        (("--device", "another"), 0),
        (("--reason", "temperature_out_of_range"), 1),
        (("--reason", "wrong_type"), 0),
        (("--to", "2020-01-01"), 0),
        (("--parked",), 0),
    ],
)
def test_rejects_are_chosen_as_show_does_it(lake: Lake, words: tuple[str, ...], put: int) -> None:
    assert lake.replay(*words)["put"] == put


def test_a_reject_is_chosen_by_the_beginning_of_its_id(lake: Lake) -> None:
    # GIVEN
    (reject_id,) = (name.rpartition(" ")[2] for name in lake.states() if HOT in name)

    # WHEN / THEN
    unknown = lake.tlake("replay", "zzz", "--yes")
    assert (unknown.exit_code, "No reject zzz" in unknown.stderr) == (1, True)
    assert list(lake.replay(reject_id[:9])["resolved"]) == [reject_id]


def test_it_says_what_it_will_do_and_does_nothing_where_nobody_can_be_asked(lake: Lake) -> None:
    # GIVEN / WHEN
    result = lake.tlake("replay")

    # THEN
    assert result.exit_code == 1
    assert "put again" in result.stderr
    assert "1 records on stream" in result.stderr
    assert "malformed_json 1: would be rejected again" in result.stderr
    assert "Nothing was done" in result.stderr
    assert lake.open_originals() == ["no JSON", HOT]


def test_parked_records_are_of_all_days(lake: Lake) -> None:
    result = lake.tlake("replay", "--parked", "--from", "2026-01-01")
    assert (result.exit_code, "--parked is for all days" in result.stderr) == (1, True)


@pytest.mark.parametrize("key", ["firehose_errors/x", "firehose_errors/processing-failed/2026/13/01/00/x"])
def test_an_object_that_firehose_has_not_parked_is_named(lake: Lake, key: str) -> None:
    lake.put("raw", key, b"{}")
    result = lake.tlake("replay", "--parked", "--yes")
    assert (result.exit_code, f"{key} is not where Firehose parks records" in result.stderr) == (1, True)


def test_the_list_says_how_many_are_open(lake: Lake) -> None:
    # GIVEN
    lake.replay()

    # WHEN
    as_table = lake.tlake("list").stdout
    as_json = json.loads(lake.tlake("list", "--json").stdout)

    # THEN
    assert "malformed_json\t1\t1\tno JSON" in as_table
    assert "temperature_out_of_range\t1\t0\t" in as_table
    assert (as_json["rejects"], as_json["open"]) == (2, 1)
    assert as_json["open_by_reason"] == {"malformed_json": {"malformed_json": 1}}
    assert "(resolved)" in lake.tlake("show").stdout


def reject(original: bytes, reason: str = "wrong_type", stage: str = "transform") -> Reject:
    return Reject("id", reason, "", None, NOW.date(), stage, original, "", None, "s3://x", None)


@pytest.mark.parametrize(
    ("original", "data"),
    [
        (b'{"a":1}', b'{"a":1}'),
        (b"no JSON", b"no JSON"),
        (b'{"a":\n 1}', b'{"a":\n 1}'),
        # Alone they would be taken apart, and then be something else.
        (b"[1, 2]", b"[[1, 2]]"),
        (b"[]", b"[[]]"),
        (b"[\n1]", b"[[\n1]]"),
        (b"\xff\xfe", b"\xff\xfe"),
    ],
)
def test_an_element_is_put_so_that_it_stays_one_element(original: bytes, data: bytes) -> None:
    candidate = candidate_of(reject(original))
    assert candidate is not None
    assert (candidate.data, candidate.pending.total()) == (data, 1)


def test_what_can_only_be_taken_apart_is_not_put() -> None:
    assert candidate_of(reject(b"no\nJSON")) is None
    assert candidate_of(reject(b"x", "empty_record")) is None


@pytest.mark.parametrize("original", [b" \n", b"[]", b""])
def test_a_record_without_elements_is_put_as_it_is(original: bytes) -> None:
    candidate = candidate_of(reject(original, "empty_record"))
    assert candidate is not None
    assert (candidate.data, candidate.pending.total()) == (original, 1)
