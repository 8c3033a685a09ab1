"""An operator's work on a stack that runs: reading again, an object that cannot be read, the audit, the daily check.

The tests share their stack with those of other modules, so each looks at what is its own, by its devices.
"""

import gzip
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

import pytest

from telemetry_lake import journey
from telemetry_lake.commands.produce import Plan, send
from telemetry_lake.console import OperatorError
from telemetry_lake.pipeline import (
    RUNNING,
    Execution,
    follow_execution,
    list_executions,
    read_summaries,
    start_execution,
)
from telemetry_lake.queries import run_query
from tests.stack import Lake, client, physical_id, tlake
from tests.template import variants
from tests.template.metrics import OWN_NAMESPACE, not_emitted, uses

NOON = 1_793_188_800  # 2026-10-28T12:00:00Z
# One of the last two days that are over, also if midnight passes.
ARRIVAL_DAY = datetime.now(UTC) - timedelta(days=1)


def lines(device: str, count: int) -> list[str]:
    """Readings of two days."""
    return [
        json.dumps({"device_id": device, "temperature": n % 200 / 4, "timestamp": NOON + 86_400 * (n % 2) + n})
        for n in range(count)
    ]


def put_raw(lake: Lake, name: str, body: bytes) -> str:
    """Put an object into the raw zone, as if it had arrived yesterday, and return its key."""
    key = f"{lake.target.outputs.raw_prefix}{ARRIVAL_DAY:%Y/%m/%d}/05/{name}.gz"
    lake.target.s3.put_object(Bucket=lake.target.outputs.raw_bucket_name, Key=key, Body=body)
    return key


def put_readings(lake: Lake, device: str, count: int) -> str:
    return put_raw(lake, device, gzip.compress("\n".join([*lines(device, count), ""]).encode()))


def eventually(condition: Callable[[], bool], seconds: float = 300.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True


def settle(lake: Lake, *keys: str) -> None:
    """Wait until the executions that the pipe started for the keys have ended, and every other one too."""

    def is_quiet() -> bool:
        executions = list_executions(lake.target, 20)
        named = {key for execution in executions for key in execution.object_keys}
        return set(keys) <= named and all(execution.status != RUNNING for execution in executions)

    assert eventually(is_quiet, 900)


def run(lake: Lake, execution_input: Any) -> Execution:
    """Run the pipeline to its end."""
    arn = start_execution(lake.target, execution_input)
    with lake.reporter.step(f"Running the pipeline with {execution_input}") as step:
        return follow_execution(lake.target, arn, step, 900)


def rows_by_device(lake: Lake, *devices: str) -> dict[str, int]:
    names = ", ".join(f"'{device}'" for device in devices)
    table = lake.target.outputs.table_name
    sql = f"SELECT device_id, count(*) FROM {table} WHERE device_id IN ({names}) GROUP BY device_id"  # noqa: S608
    return {str(device): int(str(count)) for device, count in run_query(lake.target, sql, lake.reporter).rows}


@pytest.fixture(scope="module")
def loaded(lake: Lake) -> datetime:
    """A table with 40 readings of one device; the time at which they had been loaded."""
    settle(lake, put_readings(lake, "upkeep-a", 40))
    assert rows_by_device(lake, "upkeep-a") == {"upkeep-a": 40}
    time.sleep(1)
    return datetime.now(UTC)


def test_reading_everything_again_finds_duplicates_alone(lake: Lake, loaded: datetime) -> None:
    # GIVEN / WHEN
    exit_code, outcome, said = tlake(lake, "reprocess", "--yes", "--json")

    # THEN nothing is lost, doubled or new, and all lines of the raw zone have been read
    assert exit_code == 0, said
    assert outcome["bookmark_back_to_run"] is None
    assert outcome["lost_or_doubled"] == []
    assert outcome["before"] == outcome["after"]
    assert outcome["after"]["rows"] == outcome["after"]["distinct readings"] >= 40
    assert outcome["read"]["new"] == 0
    # Firehose may have delivered some readings twice.
    assert outcome["read"]["duplicate"] >= outcome["after"]["rows"]
    assert outcome["raw_objects"] >= 1


def test_reading_again_from_a_time_leaves_out_what_was_loaded_before(lake: Lake, loaded: datetime) -> None:
    # GIVEN an object that is loaded later
    settle(lake, put_readings(lake, "upkeep-b", 30))

    # WHEN
    exit_code, outcome, said = tlake(lake, "reprocess", "--from", loaded.isoformat(), "--yes", "--json")

    # THEN that one is read again, and nothing else
    assert exit_code == 0, said
    assert outcome["bookmark_back_to_run"].startswith("jr_")
    assert outcome["read"] == {"lines": 30, "new": 0, "duplicate": 30, "rejected": 0}
    assert outcome["before"] == outcome["after"]


@pytest.fixture(scope="module")
def notifications(lake: Lake) -> Callable[[], list[str]]:
    """What people have been told since the module began."""
    # https://docs.aws.amazon.com/sns/latest/dg/subscribe-sqs-queue-to-sns-topic.html
    topic = physical_id(lake, "NotificationsTopic")
    from_topic = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": "*",
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [from_topic]})
    queue = client(lake, "sqs").create_queue(QueueName="somebody-on-call", Attributes={"Policy": policy})["QueueUrl"]
    arn = client(lake, "sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    client(lake, "sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    told: list[str] = []

    def read() -> list[str]:
        while messages := client(lake, "sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                told.append(json.loads(message["Body"])["Message"])
                client(lake, "sqs").delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return told

    return read


def has_rung(lake: Lake, logical_id: str) -> bool:
    history = client(lake, "cloudwatch").describe_alarm_history(
        AlarmName=physical_id(lake, logical_id),
        AlarmTypes=["MetricAlarm", "CompositeAlarm"],
        HistoryItemType="StateUpdate",
    )
    return any("to ALARM" in item["HistorySummary"] for item in history["AlarmHistoryItems"])


def test_an_object_that_cannot_be_read_is_quarantined_and_its_neighbours_are_stored(
    lake: Lake, notifications: Callable[[], list[str]]
) -> None:
    # GIVEN an object that is cut off, and a good one beside it
    whole = gzip.compress("\n".join([*lines("upkeep-c", 3000), ""]).encode())
    bad = put_raw(lake, "upkeep-c", whole[: len(whole) // 2])
    good = put_readings(lake, "upkeep-d", 20)
    settle(lake, bad, good)

    # WHEN the pipeline runs
    # THEN it fails by the object's name
    with pytest.raises(OperatorError, match=f"Unable to parse file: s3://[^ ]*{bad}"):
        run(lake, {})
    assert rows_by_device(lake, "upkeep-c", "upkeep-d") == {}

    # WHEN it is quarantined
    exit_code, moved, said = tlake(lake, "quarantine", "--scan", "--yes", "--json")

    # THEN the next run succeeds and stores the neighbour
    assert exit_code == 0, said
    assert [record["key"] for record in moved] == [bad]
    assert 0 < moved[0]["readable_lines"] < 3000
    assert f"head -n {moved[0]['readable_lines']} | tlake produce --file -" in said
    assert run(lake, {}).status == "SUCCEEDED"
    assert rows_by_device(lake, "upkeep-c", "upkeep-d") == {"upkeep-d": 20}

    # WHEN it has been mended in its place and is put back
    outputs = lake.target.outputs
    place = f"{outputs.quarantine_prefix}{bad}"
    lake.target.s3.put_object(Bucket=outputs.analytics_bucket_name, Key=place, Body=whole)
    exit_code, _, said = tlake(lake, "quarantine", "--restore", bad, "--json")

    # THEN the bookmark takes it for new
    assert exit_code == 0, said
    run(lake, {})
    assert rows_by_device(lake, "upkeep-c", "upkeep-d") == {"upkeep-c": 3000, "upkeep-d": 20}
    assert tlake(lake, "quarantine", "--list", "--json")[1] == []
    settle(lake)


def test_people_are_told_of_the_run_that_failed_and_by_one_alarm_for_all_that_ring(
    lake: Lake, notifications: Callable[[], list[str]]
) -> None:
    # GIVEN the runs of the test before, WHEN their alarms have rung
    for alarm in ("JobFailedAlarm", "PipelineFailedAlarm", "RunsFailAlarm"):
        assert eventually(partial(has_rung, lake, alarm)), alarm

    # THEN
    assert eventually(lambda: any(message.startswith("Runs of the pipeline fail.\n") for message in notifications()))
    of_run = next(message for message in notifications() if message.startswith("A run of the Glue job"))
    assert "Next:    tlake quarantine --scan\n" in of_run
    assert "runbook.md#unreadable-object\n" in of_run
    assert not any(message.startswith("Runs of the Glue job fail.") for message in notifications())


def of_last_hour(lake: Lake, metric: str, statistic: Literal["Sum", "SampleCount"], **dimensions: str) -> float:
    """What a metric of ours comes to."""
    now = datetime.now(UTC)
    points: Sequence[Mapping[str, Any]] = client(lake, "cloudwatch").get_metric_statistics(
        Namespace=OWN_NAMESPACE,
        MetricName=metric,
        Dimensions=[
            {"Name": name, "Value": value} for name, value in {**dimensions, "Stage": lake.target.outputs.stage}.items()
        ],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=5),
        Period=300,
        Statistics=[statistic],
    )["Datapoints"]
    return sum(float(point[statistic]) for point in points)


def audit_metric(lake: Lake) -> float:
    """What the audits of the last hour have added, by the metric that the alarm looks at."""
    return of_last_hour(lake, "AuditRowsAdded", "Sum")


def newest_audit(lake: Lake) -> dict[str, Any]:
    return [summary for summary in read_summaries(lake.target) if summary["mode"] == "audit"][-1]


@pytest.fixture
def schedule_input(lake: Lake) -> Any:
    """What the audit's schedule starts the pipeline with."""
    _group, name = physical_id(lake, "AuditTimer").rpartition("/")[::2]
    schedule = client(lake, "scheduler").get_schedule(Name=name)
    assert schedule["ScheduleExpression"] == "cron(40 17 * * ? *)"
    return json.loads(schedule["Target"]["Input"])


def test_the_scheduled_audit_restores_what_was_missing_and_raises_the_alarm(lake: Lake, schedule_input: Any) -> None:
    # GIVEN readings that arrived yesterday and are gone from the table, while the bookmark takes them for read
    settle(lake, put_readings(lake, "upkeep-e", 10))
    assert rows_by_device(lake, "upkeep-e") == {"upkeep-e": 10}
    files = files_with(lake, "upkeep-e")
    for key in files:
        lake.target.s3.delete_object(Bucket=lake.target.outputs.analytics_bucket_name, Key=key)
    assert rows_by_device(lake, "upkeep-e") == {}
    run(lake, {})
    assert rows_by_device(lake, "upkeep-e") == {}

    # WHEN the audit is started as its schedule does it
    execution = run(lake, schedule_input)

    # THEN it has loaded first, and has then stored them again
    assert json.loads(execution.output)["outcome"] == "audited"
    assert newest_audit(lake)["counts"]["new"] == 10
    assert rows_by_device(lake, "upkeep-e") == {"upkeep-e": 10}

    # AND the metric and its alarm say so
    assert audit_metric(lake) == 10
    assert eventually(lambda: has_rung(lake, "AuditFoundRowsAlarm"))

    # AND an audit of that day by hand adds nothing
    day = f"{ARRIVAL_DAY:%Y-%m-%d}"
    run(lake, {"mode": "audit", "days": [day]})
    audit = newest_audit(lake)
    assert (audit["audited_days"], audit["counts"]["new"]) == ([day], 0)
    assert audit["counts"]["duplicate"] >= 10
    assert audit_metric(lake) == 10


def files_with(lake: Lake, device: str) -> list[str]:
    """The keys of the table's files that hold a device."""
    table = lake.target.outputs.table_name
    sql = f"""SELECT DISTINCT "$path" FROM {table} WHERE device_id = '{device}'"""  # noqa: S608
    rows = run_query(lake.target, sql, lake.reporter).rows
    return [str(path).split("/", 3)[3] for (path,) in rows]


@pytest.mark.parametrize("days", ["2026-11-20", ["2026-13-01"]])
def test_an_audit_of_days_that_are_none_fails_before_anything_runs(lake: Lake, days: Any) -> None:
    # GIVEN
    runs = len(read_summaries(lake.target))

    # WHEN / THEN
    with pytest.raises(OperatorError, match=r"UnusableDays Days are for an audit.* Start again with"):
        run(lake, {"mode": "audit", "days": days})
    assert len(read_summaries(lake.target)) == runs


def test_the_scheduled_check_loads_and_judges_days_that_are_over(lake: Lake) -> None:
    # GIVEN what the check's schedule starts the pipeline with, and the days of this module's readings
    schedule = client(lake, "scheduler").get_schedule(Name=physical_id(lake, "CheckTimer").rpartition("/")[2])
    given = json.loads(schedule["Target"]["Input"])
    settle(lake, put_readings(lake, "upkeep-f", 10))

    # WHEN
    execution = run(lake, {**given, "days": ["2026-10-28", "2026-10-29"]})

    # THEN it has loaded, and has then judged the days, with their rejects
    output = json.loads(execution.output)
    assert output["outcome"] == "checked"
    by_name = {each["name"]: each for each in output["checks"]}
    assert by_name["duplicate_readings"]["passed"]
    assert by_name["day_without_readings"]["value"] == 0
    assert by_name["open_rejects"]["value"] == 0
    assert "error" not in {key for each in output["checks"] for key in each}


def test_a_load_that_finds_nothing_new_looks_for_silent_producers_all_the_same(lake: Lake) -> None:
    # GIVEN
    def looked() -> float:
        return of_last_hour(lake, "CheckFailed", "SampleCount", Check="freshness")

    before = looked()

    # WHEN
    execution = run(lake, {})

    # THEN its check of the newest reading is counted, and no other
    output = json.loads(execution.output)
    assert output["counts"]["lines"] == 0
    assert [each["name"] for each in output["checks"]] == ["summary_adds_up", "freshness", "scanned_bytes"]
    assert eventually(lambda: looked() == before + 1)


def test_every_metric_of_our_own_that_an_alarm_or_a_widget_names_was_emitted(lake: Lake) -> None:
    # GIVEN a stack on which runs failed and succeeded, and a crawl, an audit and a check of days ended
    before = journey.read_table(lake.target, lake.reporter).rows

    # WHEN readings arrive
    send(lake.target, Plan(count=20, bad=2, spread_hours=1, seed=8), lake.reporter)
    named = uses(variants.resolved({"Stage": lake.target.outputs.stage}))
    own = [use for use in named if use.namespace == OWN_NAMESPACE]

    def missing() -> list[str]:
        pages = client(lake, "cloudwatch").get_paginator("list_metrics").paginate(Namespace=OWN_NAMESPACE)
        found = [metric for page in pages for metric in page["Metrics"]]
        emitted = {
            (each["Namespace"], each["MetricName"], frozenset((d["Name"], d["Value"]) for d in each["Dimensions"]))
            for each in found
        }
        return not_emitted(own, emitted)

    # THEN
    assert eventually(lambda: not missing()), missing()
    assert eventually(lambda: journey.read_table(lake.target, lake.reporter).rows == before + 20)
    settle(lake)


def test_in_the_end_every_reading_is_there_once(lake: Lake) -> None:
    table = journey.read_table(lake.target, lake.reporter)
    assert table.rows == table.distinct_readings
