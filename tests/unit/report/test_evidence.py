"""What the report asks of the services, in an account that holds a stack's resources."""

import gzip
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import boto3
import pytest
from moto import mock_aws

from telemetry_lake.console import Reporter
from telemetry_lake.metrics import Metric, values_of
from telemetry_lake.pipeline import StoredObject
from telemetry_lake.report.dashboard import Search
from telemetry_lake.report.evidence import PartitionFiles, Period, collect, find_metrics, partition_files
from telemetry_lake.target import Target
from tests.unit.cli.conftest import Tlake, tlake
from tests.unit.report.reading import read
from tests.unit.report.samples import step

__all__ = ["tlake"]

REGION: Final = "ap-northeast-1"
STAGE = {"Stage": "prod"}
NOW = datetime.now(UTC).replace(microsecond=0)
PERIODS = {"minute": 60, "hour": 3600}
MINUTE = NOW.replace(second=0) - timedelta(minutes=5)


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Target]:
    monkeypatch.chdir(tmp_path)
    with mock_aws():
        target = Target(REGION, None, "lake")
        monkeypatch.setattr(Target, "outputs", SimpleNamespace(**resources(target)))
        yield target


def resources(target: Target) -> dict[str, Any]:
    for bucket in ("raw", "analytics"):
        target.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    machine = boto3.client("stepfunctions", region_name=REGION).create_state_machine(
        name="pipeline",
        definition=json.dumps({"StartAt": "Plan", "States": {"Plan": {"Type": "Pass", "End": True}}}),
        roleArn="arn:aws:iam::123456789012:role/role",
    )
    target.athena.create_work_group(
        Name="analytics", Configuration={"ResultConfiguration": {"OutputLocation": "s3://analytics/"}}
    )
    widget = {
        "type": "metric",
        "properties": {
            "title": "Audits",
            "stat": "Sum",
            "period": 60,
            "metrics": [
                ["TelemetryLake", "AuditRowsAdded", "Stage", "prod"],
                [{"expression": "SEARCH('{TelemetryLake,Stage} MetricName=\"RunSeconds\" Stage=\"prod\"', 'Sum', 60)"}],
            ],
        },
    }
    arn = "arn:aws:cloudwatch:ap-northeast-1:123456789012:alarm:"
    alarms = {"type": "alarm", "properties": {"alarms": [f"{arn}rings", f"{arn}gone", f"{arn}quiet"]}}
    body = json.dumps({"widgets": [widget, alarms]})
    target.cloudwatch.put_dashboard(DashboardName="temperature", DashboardBody=body)
    return {
        "stage": "prod",
        "delivery_stream_name": "delivery",
        "raw_bucket_name": "raw",
        "raw_prefix": "raw_data/",
        "error_prefix": "firehose_errors/",
        "analytics_bucket_name": "analytics",
        "curated_prefix": "curated/device_telemetry/",
        "dlq_prefix": "dlq/",
        "summaries_prefix": "run_summaries/",
        "state_machine_arn": machine["stateMachineArn"],
        "work_group_name": "analytics",
        "dashboard_name": "temperature",
    }


def put_metric(target: Target, name: str, value: float, moment: datetime, namespace: str = "TelemetryLake") -> None:
    dimension = ("DeliveryStreamName", "delivery") if namespace == "AWS/Firehose" else ("Stage", "prod")
    # Only AWS itself may put under a namespace of its own, and moto does not mind.
    boto3.client("cloudwatch", region_name=REGION).put_metric_data(
        Namespace=namespace,
        MetricData=[
            {
                "MetricName": name,
                "Dimensions": [{"Name": dimension[0], "Value": dimension[1]}],
                "Timestamp": moment,
                "Value": value,
            }
        ],
    )


def put_alarm(name: str, state: str, reason: str) -> None:
    cloudwatch: Any = boto3.client("cloudwatch", region_name=REGION)
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="N",
        MetricName="M",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=2,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason=reason)


def put_day(target: Target) -> None:
    """What one run leaves behind, and metrics of two minutes."""
    for name, value, minutes in (
        ("ReadingsAccepted", 40, 0),
        ("ReadingsAccepted", 2, 0),
        ("ReadingsAccepted", 8, 1),
        ("ReadingsRejected", 3, 1),
        ("AuditRowsAdded", 1, 0),
        ("RunSeconds", 30, 0),
    ):
        put_metric(target, name, value, MINUTE + timedelta(minutes=minutes))
    put_metric(target, "DeliveryToS3.DataFreshness", 61.5, MINUTE, "AWS/Firehose")
    summary = {
        "job_run_id": "jr_1",
        "mode": "load",
        "started_at": f"{MINUTE:%Y-%m-%dT%H:%M:%SZ}",
        "finished_at": f"{MINUTE + timedelta(seconds=30):%Y-%m-%dT%H:%M:%SZ}",
        "counts": {"lines": 50, "new": 49, "duplicate": 1, "rejected": 0},
        "event_time": {"min": None, "max": f"{MINUTE:%Y-%m-%dT%H:%M:%SZ}"},
        "seconds_by_step": {"read": 1.5},
    }
    folder = f"dlq/year={NOW.year}/month={NOW.month}/day={NOW.day}/"
    reject: dict[str, Any] = {
        "reject_id": "1",
        "reason": "wrong_type",
        "detail": {},
        "device_id": None,
        "stage": "transform",
        "original": "x",
        "source": None,
        "arrived_at": None,
    }
    objects = {
        "run_summaries/jr_1.json": json.dumps(summary).encode(),
        "curated/device_telemetry/year=2026/month=10/day=5/jr_1-0.parquet": b"12345",
        "curated/device_telemetry/year=2026/month=10/day=5/jr_1-1.parquet": b"123",
        f"{folder}a.json.gz": gzip.compress(json.dumps(reject).encode()),
    }
    for key, content in objects.items():
        target.s3.put_object(Bucket="analytics", Key=key, Body=content)
    target.s3.put_object(Bucket="raw", Key=f"raw_data/{NOW:%Y/%m/%d/%H}/a.gz", Body=b"1234567")


def test_the_evidence_is_what_each_service_says(target: Target) -> None:
    # GIVEN
    put_day(target)
    put_alarm("quiet", "OK", "0 < 2")
    put_alarm("rings", "ALARM", "3 > 2")
    put_alarm("of another stack", "ALARM", "9 > 2")
    execution = target.stepfunctions.start_execution(stateMachineArn=target.outputs.state_machine_arn, input="{}")
    query = target.athena.start_query_execution(QueryString="SELECT 1", WorkGroup="analytics")

    # WHEN
    found = collect(target, Period.until(datetime.now(UTC) + timedelta(seconds=5), 24), [], Reporter(quiet=True))

    # THEN
    assert [[value for _, value in each.points] for each in found.throughput] == [[42, 8], [3]]
    assert [moment for moment, _ in found.throughput[0].points] == [MINUTE, MINUTE + timedelta(minutes=1)]
    assert [value for _, value in found.delivery_ages.points] == [61.5]
    assert found.rejects_by_reason == {"wrong_type": 1}
    assert [each["job_run_id"] for each in found.runs] == ["jr_1"]
    assert [each.arn for each in found.executions] == [execution["executionArn"]]
    assert found.raw_bytes == 7
    assert found.partitions == [PartitionFiles("2026-10-05", 2, 8)]
    assert [(each.execution_id, each.sql) for each in found.queries] == [(query["QueryExecutionId"], "SELECT 1")]
    ((title, (audits, searched)),) = [(widget.title, widget.series) for widget in found.widgets]
    assert (title, [value for _, value in audits.points]) == ("Audits", [1])
    assert (searched.plot.label, [value for _, value in searched.points]) == ("RunSeconds", [30])
    assert [(each.name, each.state, each.reason) for each in found.alarms] == [
        ("rings", "ALARM", "3 > 2"),
        ("quiet", "OK", "0 < 2"),
    ]


def test_a_search_finds_metrics_with_exactly_its_dimensions_and_values(target: Target) -> None:
    # GIVEN metrics of one name: of two checks, of another stage, and of the stage alone
    dimensions = [
        {"Check": "a", "Stage": "prod"},
        {"Check": "b", "Stage": "prod"},
        {"Check": "a", "Stage": "dev"},
        STAGE,
    ]
    data: Any = [
        {"MetricName": "M", "Dimensions": [{"Name": n, "Value": v} for n, v in each.items()], "Value": 1}
        for each in dimensions
    ]
    boto3.client("cloudwatch", region_name=REGION).put_metric_data(Namespace="N", MetricData=data)

    # WHEN
    found = find_metrics(target, Search("N", "M", ("Check", "Stage"), STAGE, "Maximum", 60))

    # THEN
    assert found == [Metric("N", "M", each, "Maximum", 60) for each in dimensions[:2]]


def test_what_was_before_the_period_is_left_out(target: Target) -> None:
    # GIVEN
    put_day(target)
    target.athena.start_query_execution(QueryString="SELECT 1", WorkGroup="analytics")
    target.stepfunctions.start_execution(stateMachineArn=target.outputs.state_machine_arn, input="{}")

    # WHEN a period of the same day begins after all of that
    later = datetime.now(UTC) + timedelta(seconds=2)
    found = collect(target, Period(later, later + timedelta(seconds=1)), [], Reporter(quiet=True))

    # THEN the table is there all the same
    assert [each.points for each in (*found.throughput, found.delivery_ages)] == [(), (), ()]
    assert (found.runs, found.executions, found.queries, found.raw_bytes) == ([], [], [], 0)
    assert len(found.partitions) == 1


def test_more_metrics_than_a_request_takes_are_asked_for_in_several(target: Target) -> None:
    # GIVEN
    names = [f"Metric{number}" for number in range(120)]
    for name in (names[0], names[51], names[119]):
        put_metric(target, name, float(name.removeprefix("Metric")) + 1, MINUTE)

    # WHEN
    wanted = {name: Metric("TelemetryLake", name, STAGE, "Maximum", 60) for name in names}
    found = values_of(target, wanted, NOW - timedelta(hours=1), NOW)

    # THEN
    assert list(found) == names
    assert {name: values for name, values in found.items() if values} == {
        "Metric0": [1],
        "Metric51": [52],
        "Metric119": [120],
    }


def test_values_begin_with_the_period_of_each_metric_that_the_start_lies_in(target: Target) -> None:
    # GIVEN values of three minutes of one hour
    hour = NOW.replace(minute=0, second=0) - timedelta(hours=2)
    for minute, value in ((10, 1.0), (11, 10.0), (12, 100.0)):
        put_metric(target, "Counted", value, hour + timedelta(minutes=minute))

    # WHEN a metric by the minute is asked for from the second one on, beside one by the hour
    wanted = {name: Metric("TelemetryLake", "Counted", STAGE, "Sum", seconds) for name, seconds in PERIODS.items()}
    found = values_of(target, wanted, hour + timedelta(minutes=11, seconds=30), NOW)

    # THEN
    assert found == {"minute": [10.0, 100.0], "hour": [111.0]}


@pytest.mark.parametrize(
    ("hours", "wanted", "seconds"), [(1, 60, 60), (24, 60, 60), (25, 60, 120), (25, 300, 300), (24 * 63, 60, 3780)]
)
def test_a_long_period_has_points_of_more_minutes(hours: float, wanted: int, seconds: int) -> None:
    assert Period.until(NOW, hours).seconds_per_point(wanted) == seconds


def test_files_are_counted_by_day_in_the_order_of_days_and_other_objects_are_none() -> None:
    # GIVEN days that another order would come of as texts, and what a console makes of a folder
    files = ("year=2026/month=10/day=2/b", "year=2026/month=9/day=30/a", "year=2026/month=10/day=2/c")
    keys = [*(f"t/{file}.parquet" for file in files), "t/", "t/year=2026/", "t/metadata/v1.json"]

    # WHEN
    found = partition_files([StoredObject(key, 1, "", NOW) for key in keys], "t/")

    # THEN
    assert found == [PartitionFiles("2026-09-30", 1, 1), PartitionFiles("2026-10-02", 2, 2)]


@pytest.fixture
def checklist(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checklist has been walked: tests/unit/cli are about how."""
    monkeypatch.setattr("telemetry_lake.commands.report.walk", lambda *_: [step(1)])


@pytest.mark.usefixtures("checklist")
def test_the_command_writes_a_page_and_prints_where_it_is(target: Target, tlake: Tlake, tmp_path: Path) -> None:
    # GIVEN
    put_day(target)

    # WHEN
    result = tlake("--account", "report", "--out", "r.html")

    # THEN
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "r.html\n"
    text = (tmp_path / "r.html").read_text("utf-8")
    assert read(text).facts["readings stored"] == "49"
    assert read(text).facts["checklist"] == "1 of 1"
    assert re.search(r"A page of \d+\.\d KB", result.stderr)


@pytest.mark.usefixtures("target", "checklist")
def test_a_file_that_cannot_be_written_is_one_message(tlake: Tlake) -> None:
    # GIVEN / WHEN
    result = tlake("--account", "report", "--out", "missing/r.html")

    # THEN
    assert result.exit_code == 1
    assert "missing/r.html cannot be written: No such file or directory." in result.stderr
