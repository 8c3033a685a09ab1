"""``tlake verify``: every step is green with its evidence, and what is planted turns exactly its own step red."""

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner
from moto import mock_aws

from telemetry_lake.checklist import Step, walk
from telemetry_lake.commands.context import Context
from telemetry_lake.commands.verify import verify
from telemetry_lake.console import Reporter
from telemetry_lake.pipeline import Execution
from telemetry_lake.target import Target

REGION: Final = "ap-northeast-1"
QUIET = Reporter(quiet=True)
NOW = datetime.now(UTC).replace(microsecond=0)
TODAY = NOW.date()
RAW_KEY = f"raw_data/{TODAY:%Y/%m/%d}/00/1.gz"
DLQ_KEY = f"dlq/raw_json/year={TODAY.year}/month={TODAY.month}/day={TODAY.day}/1.json.gz"
LINES = b'{"device_id":"a","temperature":1.5,"timestamp":1}\n' * 3
LETTER = {
    "reject_id": "r1",
    "reason": "wrong_type",
    "detail": None,
    "device_id": None,
    "stage": "transform",
    "original": "{}",
    "original_base64": None,
    "source": None,
    "arrived_at": None,
}


def partition(day: date) -> list[str]:
    return [str(day.year), str(day.month), str(day.day)]


def curated_key(day: date) -> str:
    return f"curated/year={day.year}/month={day.month}/day={day.day}/jr_1-0.snappy.parquet"


@dataclass
class Glue:
    """A job that loaded twice, and a crawler whose newest crawl registered today."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    crawls: list[dict[str, Any]] = field(default_factory=list)
    made: dict[date, datetime] = field(default_factory=dict)
    bookmark: str = "job-bookmark-enable"

    def get_job_runs(self, **_: Any) -> dict[str, Any]:
        return {"JobRuns": self.runs}

    def get_job(self, **_: Any) -> dict[str, Any]:
        return {"Job": {"Name": "etl", "DefaultArguments": {"--job-bookmark-option": self.bookmark}}}

    def get_table(self, **_: Any) -> dict[str, Any]:
        return {"Table": {"Name": "table", "PartitionKeys": [{"Name": "year", "Type": "int"}]}}

    def list_crawls(self, **_: Any) -> dict[str, Any]:
        return {"Crawls": self.crawls}

    def get_partitions(self, **_: Any) -> dict[str, Any]:
        return {"Partitions": [{"Values": partition(day), "CreationTime": at} for day, at in self.made.items()]}


def load(number: int, minutes: int, **changes: Any) -> dict[str, Any]:
    """A load that started so many minutes from now and took one."""
    started = NOW + timedelta(minutes=minutes)
    times = {"StartedOn": started, "CompletedOn": started + timedelta(minutes=1)}
    return {"Id": f"jr_{number}", "JobRunState": "SUCCEEDED", **times, **changes}


def crawl(minutes: int, state: str = "COMPLETED") -> dict[str, Any]:
    started = NOW + timedelta(minutes=minutes)
    return {"State": state, "StartTime": started, "EndTime": started + timedelta(minutes=1)}


@dataclass
class Athena:
    """Answers the everyday question and counts rejects."""

    averages: list[list[str]] = field(default_factory=lambda: [["sensor-1", "20.5"], ["sensor-2", "21"]])
    rejects: int = 1
    scanned_bytes: int = 5
    state: str = "SUCCEEDED"
    asked: list[str] = field(default_factory=list)

    def start_query_execution(self, QueryString: str, **_: Any) -> dict[str, Any]:  # noqa: N803  the API's own name
        self.asked.append(QueryString)
        return {"QueryExecutionId": str(len(self.asked) - 1)}

    def get_query_execution(self, **_: Any) -> dict[str, Any]:
        return {
            "QueryExecution": {
                "Status": {"State": self.state, "StateChangeReason": "scan limit"},
                "Statistics": {"DataScannedInBytes": self.scanned_bytes},
            }
        }

    def get_query_results(self, QueryExecutionId: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        is_count = "reject_id" in self.asked[int(QueryExecutionId)]
        rows = [[str(self.rejects)]] if is_count else self.averages
        return {"ResultSet": {"Rows": [{"Data": [{"VarCharValue": value} for value in row]} for row in rows]}}


@dataclass
class Lake:
    """A stack on which all is well; a test plants what is not."""

    target: Target
    glue: Glue
    athena: Athena

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.target.s3.put_object(Bucket=bucket, Key=key, Body=body)

    def delete(self, bucket: str, key: str) -> None:
        self.target.s3.delete_object(Bucket=bucket, Key=key)

    def metric(self, namespace: str, name: str, value: float, **dimensions: str) -> None:
        self.target.cloudwatch.put_metric_data(
            Namespace=namespace,
            MetricData=[
                {
                    "MetricName": name,
                    "Value": value,
                    "Timestamp": NOW - timedelta(minutes=1),
                    "Dimensions": [{"Name": key, "Value": each} for key, each in dimensions.items()],
                }
            ],
        )

    def read_by_the_newest_load(self, lines: int) -> None:
        self.read_by("jr_2", lines)

    def read_by(self, run_id: str, lines: int) -> None:
        counts = {"lines": lines, "new": lines, "duplicate": 0, "rejected": 0}
        self.put("analytics", f"run_summaries/{run_id}.json", json.dumps({"counts": counts}).encode())

    def walk(self) -> list[Step]:
        return walk(self.target, 24, QUIET)

    def red(self) -> list[int]:
        return [step.number for step in self.walk() if not step.is_green]


@pytest.fixture(scope="module")
def target() -> Target:
    """One for all tests: its clients take longer to make than a test takes, and know nothing of what moto holds."""
    return Target(REGION, None, "lake")


@pytest.fixture
def bare(target: Target, client_of: Callable[[str, Any], Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """A stack that nothing has come through."""
    monkeypatch.setattr("telemetry_lake.queries.POLL_SECONDS", 0)
    with mock_aws():
        for bucket in ("raw", "analytics"):
            target.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        outputs = {
            "stream_name": "stream",
            "delivery_stream_name": "delivery",
            "raw_bucket_name": "raw",
            "raw_prefix": "raw_data/",
            "error_prefix": "firehose_errors/",
            "analytics_bucket_name": "analytics",
            "curated_prefix": "curated/",
            "dlq_prefix": "dlq/raw_json/",
            "summaries_prefix": "run_summaries/",
            "state_machine_arn": "arn:m",
            "job_name": "etl",
            "crawler_name": "crawler",
            "database_name": "lake",
            "table_name": "table",
            "rejected_table_name": "rejected_readings",
            "work_group_name": "analytics",
        }
        glue, athena = Glue(), Athena(averages=[], rejects=0)
        monkeypatch.setattr(Target, "outputs", SimpleNamespace(**outputs))
        for service, fake in (("glue", glue), ("athena", athena)):
            monkeypatch.setattr(Target, service, client_of(service, fake))
        yield Lake(target, glue, athena)


@pytest.fixture
def lake(bare: Lake) -> Lake:
    """A stack on which all is well: a raw object, read by the first load, and a second load that left it alone."""
    bare.metric("AWS/Kinesis", "IncomingRecords", 7, StreamName="stream")
    bare.metric("AWS/Firehose", "DeliveryToS3.Success", 1, DeliveryStreamName="delivery")
    bare.put("raw", RAW_KEY, gzip.compress(LINES))
    bare.put("analytics", curated_key(TODAY), b"PAR1 and so on")
    bare.put("analytics", DLQ_KEY, gzip.compress(json.dumps(LETTER).encode()))
    bare.read_by("jr_1", 3)
    bare.read_by_the_newest_load(0)
    # Both after the raw object, whose time of writing is the test's.
    bare.glue.runs += [load(3, 9, JobRunState="RUNNING"), load(2, 6), load(1, 3)]
    bare.glue.crawls += [crawl(7), crawl(4)]
    bare.glue.made |= {TODAY: NOW + timedelta(minutes=4), TODAY - timedelta(days=1): NOW - timedelta(days=1)}
    bare.athena.averages, bare.athena.rejects = Athena().averages, 1
    return bare


def test_each_step_is_green_with_what_was_measured(lake: Lake) -> None:
    # GIVEN / WHEN
    steps = lake.walk()

    # THEN
    assert [(step.number, step.verdict) for step in steps] == [(number, "green") for number in range(1, 8)]
    stream, delivery, job, crawler, athena, rerun, letters = (step.finding.measured for step in steps)
    assert (stream["incoming_records"], stream["throttled_records"]) == (7, 0)
    assert (delivery["deliveries"], delivery["success"], delivery["objects"]) == (1, 1.0, 1)
    assert (job["run"], job["counts"]["lines"], job["files"], job["days"]) == ("jr_2", 0, 1, 1)
    # The partition that the second crawl from the top registered; the one of yesterday is nobody's.
    assert crawler["registered_by_this_crawl"] == [f"{TODAY:%Y-%m-%d}"]
    assert crawler["crawl_started"] == NOW + timedelta(minutes=4)
    assert (athena["rows"], athena["scanned_bytes"], athena["partition_bytes"]) == (2, 5, 14)
    assert (rerun["lines_read"], rerun["objects_left_alone"], rerun["run_before"]) == (0, 1, "jr_1")
    assert (letters["by_reason"], letters["seen_by_athena"]) == ({"wrong_type": 1}, 1)
    # AND a person reads it so
    day = f"{TODAY:%Y-%m-%d}"
    assert [step.finding.evidence for step in steps] == [
        ("7 records by IncomingRecords in 24 h", "0 throttled"),
        ("DeliveryToS3.Success 1.000 over 1 deliveries", f"1 objects, {len(gzip.compress(LINES))} B in raw_data/"),
        (
            "run jr_2…: duplicate 0, lines 0, new 0, rejected 0",
            "the last that read anything: run jr_1…: lines 3, new 3, duplicate 0, rejected 0",
            "1 files, 14 B in 1 days",
        ),
        (
            "lake.table (year int), 2 partitions",
            f"the crawl of {NOW + timedelta(minutes=4):%Y-%m-%d %H:%M:%S} UTC registered {day}",
        ),
        (f"2 devices on {day}", "5 B scanned, of 14 B in the partition and 14 B in the table"),
        ("run jr_2… read 0 lines; 0 objects are as new as the run before", "1 older objects were left alone"),
        ("1 distinct rejects by 1 reasons: wrong_type 1", "1 in rejected_readings; 0 parked by Firehose"),
    ]
    assert {step.as_mapping()["next"] for step in steps} == {""}


def test_a_stack_that_nothing_has_come_through_has_no_green_step(bare: Lake) -> None:
    # GIVEN / WHEN
    steps = bare.walk()

    # THEN each says what is missing, and what to do for it
    assert [step.number for step in steps if step.is_green] == []
    for step in steps:
        assert all(step.finding.faults), step.name
        assert step.as_mapping()["next"]


def denied(**_: Any) -> Any:
    raise ClientError({"Error": {"Code": "AccessDenied", "Message": "not yours"}}, "GetTable")


def without_records(lake: Lake) -> None:
    lake.target.outputs.__dict__["stream_name"] = "another"


def failed_delivery(lake: Lake) -> None:
    lake.metric("AWS/Firehose", "DeliveryToS3.Success", 0, DeliveryStreamName="delivery")


def no_delivery(lake: Lake) -> None:
    lake.target.outputs.__dict__["delivery_stream_name"] = "another"


def raw_that_is_no_gzip(lake: Lake) -> None:
    lake.put("raw", RAW_KEY, LINES)


def raw_of_another_day(lake: Lake) -> None:
    lake.delete("raw", RAW_KEY)
    lake.put("raw", "raw_data/2020/01/01/00/1.gz", gzip.compress(LINES))


def failed_run(lake: Lake) -> None:
    lake.glue.runs.insert(0, load(4, 12, JobRunState="FAILED", ErrorMessage="out of memory"))


def table_file_that_is_no_parquet(lake: Lake) -> None:
    lake.put("analytics", curated_key(TODAY), b"{}            ")


def failed_crawl(lake: Lake) -> None:
    lake.glue.crawls.insert(0, crawl(9, "FAILED") | {"ErrorMessage": "access denied"})


def partition_of_no_crawl(lake: Lake) -> None:
    lake.glue.made[TODAY] = NOW - timedelta(hours=1)


def folder_without_partition(lake: Lake) -> None:
    lake.put("analytics", curated_key(TODAY - timedelta(days=9)), b"PAR1 and so on")


def catalog_that_does_not_answer(lake: Lake) -> None:
    lake.glue.__dict__["get_table"] = denied


def query_without_rows(lake: Lake) -> None:
    lake.athena.averages = []


def query_that_scans_more_than_its_partition(lake: Lake) -> None:
    lake.athena.scanned_bytes = 15


def bookmark_that_is_off(lake: Lake) -> None:
    lake.glue.bookmark = "job-bookmark-disable"


def second_load_that_read_all_again(lake: Lake) -> None:
    lake.read_by_the_newest_load(3)


def one_load_alone(lake: Lake) -> None:
    lake.glue.runs.pop()


def nothing_to_leave_alone(lake: Lake) -> None:
    lake.glue.runs[-1] |= {"StartedOn": NOW - timedelta(minutes=3)}


def no_reject(lake: Lake) -> None:
    lake.delete("analytics", DLQ_KEY)


def reject_that_athena_does_not_see(lake: Lake) -> None:
    lake.athena.rejects = 0


PLANTED: list[tuple[int, Callable[[Lake], None], str]] = [
    (1, without_records, "no record in 24 h"),
    (2, failed_delivery, "1 deliveries failed"),
    (2, no_delivery, "no delivery in 24 h"),
    (2, raw_that_is_no_gzip, f"{RAW_KEY} is no gzip"),
    (2, raw_of_another_day, "no object written in 24 h"),
    (3, failed_run, "the run jr_4 ended FAILED: out of memory"),
    (3, table_file_that_is_no_parquet, "is no Parquet"),
    (4, failed_crawl, "the newest crawl failed: access denied"),
    (4, partition_of_no_crawl, "no crawl has registered a partition"),
    (4, folder_without_partition, "1 folders with files have no partition: "),
    (4, catalog_that_does_not_answer, "AccessDenied"),
    (5, query_without_rows, "no row for"),
    (5, query_that_scans_more_than_its_partition, "more than the partition was scanned"),
    (6, bookmark_that_is_off, "--job-bookmark-option is job-bookmark-disable"),
    (6, second_load_that_read_all_again, "3 lines were read that are in older objects"),
    (6, one_load_alone, "fewer than two loads"),
    (6, nothing_to_leave_alone, "no raw object is older"),
    (7, no_reject, "no reject is kept"),
    (7, reject_that_athena_does_not_see, "Athena sees 0 of them"),
]


@pytest.mark.parametrize(("number", "plant", "fault"), PLANTED, ids=[plant.__name__ for _, plant, _ in PLANTED])
def test_what_is_planted_turns_its_own_step_red_and_no_other(
    lake: Lake, number: int, plant: Callable[[Lake], None], fault: str
) -> None:
    # GIVEN / WHEN
    plant(lake)
    red = [step for step in lake.walk() if not step.is_green]

    # THEN
    assert [step.number for step in red] == [number]
    assert fault in "; ".join(red[0].finding.faults)


def test_every_step_has_a_planted_failure() -> None:
    assert {number for number, _, _ in PLANTED} == set(range(1, 8))


def test_a_query_that_fails_turns_the_two_steps_red_that_ask_athena(lake: Lake) -> None:
    lake.athena.state = "FAILED"
    assert lake.red() == [5, 7]


def test_a_load_that_read_what_had_come_since_is_green(lake: Lake) -> None:
    # GIVEN an object that was written while the load before was at work, and that the newest one has read
    lake.glue.runs[-1] |= {"StartedOn": NOW - timedelta(minutes=1)}
    lake.read_by_the_newest_load(3)

    # WHEN / THEN its lines are no fault; only that nothing older is there
    (rerun,) = (step for step in lake.walk() if not step.is_green)
    assert rerun.finding.faults == (
        "no raw object is older than the load before the newest: there is nothing to leave alone",
    )


@pytest.mark.parametrize(("spoilt", "exit_code", "verdict"), [(False, 0, "green"), (True, 1, "red")])
def test_the_exit_code_is_0_only_when_all_steps_are_green(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, spoilt: bool, exit_code: int, verdict: str
) -> None:
    # GIVEN
    monkeypatch.setattr(Context, "target", lake.target)
    context = Context(SimpleNamespace(), None, None, True, Reporter())  # type: ignore[arg-type]
    if spoilt:
        no_reject(lake)

    # WHEN
    as_json = CliRunner().invoke(verify, ["--json"], obj=context)
    as_table = CliRunner().invoke(verify, [], obj=context)

    # THEN
    assert (as_json.exit_code, as_table.exit_code) == (exit_code, exit_code), as_table.output
    document = json.loads(as_json.stdout)
    assert (document["verdict"], len(document["steps"])) == (verdict, 7)
    assert document["steps"][0]["measured"]["incoming_records"] == 7
    assert "7 records by IncomingRecords in 24 h" in as_table.stdout
    assert f"{6 if spoilt else 7} of 7 steps are green." in as_table.stdout
    assert ("next: tlake produce --count 0 --bad 13" in as_table.stderr) == spoilt


def test_a_rerun_comes_before_the_checklist(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN one load, whose summary is gone; the pipeline's next execution is the second
    second = lake.glue.runs.pop(1)
    lake.delete("analytics", "run_summaries/jr_1.json")
    assert lake.red() == [3, 6]

    def run_once_more(*_: Any) -> Execution:
        lake.glue.runs.insert(1, second)
        return Execution("arn:e", "e", "SUCCEEDED", "hand", (), NOW, NOW, "", "", "")

    monkeypatch.setattr("telemetry_lake.journey.run_once_more", run_once_more)
    monkeypatch.setattr(Context, "target", lake.target)
    context = Context(SimpleNamespace(), None, None, True, QUIET)  # type: ignore[arg-type]

    # WHEN
    outcome = CliRunner().invoke(verify, ["--rerun", "--json"], obj=context)

    # THEN
    assert outcome.exit_code == 0, outcome.output


@pytest.mark.parametrize("words", [("--conservation",), ("--ledger", __file__), ("--conservation", "--rerun")])
def test_options_of_the_other_proof_are_refused(lake: Lake, words: tuple[str, ...]) -> None:
    outcome = CliRunner().invoke(verify, words, obj=Context(SimpleNamespace(), None, None, True, QUIET))  # type: ignore[arg-type]
    assert outcome.exit_code == 1
    assert "--conservation needs --ledger" in outcome.output
