"""Good and bad readings through the whole way: device, stream, Firehose, raw zone, pipeline, table, Athena."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas
import pytest

from telemetry_lake import journey
from telemetry_lake.checklist import walk
from telemetry_lake.commands.produce import Plan, send
from telemetry_lake.commands.report import write_report
from telemetry_lake.commands.verify import check
from telemetry_lake.health import collect, problems
from telemetry_lake.journey import Landing, Table
from telemetry_lake.ledger import Entry, read_ledger
from telemetry_lake.metrics import values_of
from telemetry_lake.pipeline import Execution, list_objects, partition_text, read_summaries, ticks, until
from telemetry_lake.producer import Delivery
from telemetry_lake.queries import representative_query, run_query
from telemetry_lake.rejects import counts_by, read_rejects
from telemetry_lake.report.dashboard import alarms_shown, metric_widgets
from telemetry_lake.report.evidence import find_metrics, own_plots
from tests.stack import Lake, ledgers
from tests.unit.report.reading import read

GOOD = 600
BAD = 26
SPREAD_HOURS = 36
ALARM_SECONDS = 60.0


@dataclass(frozen=True)
class Passage:
    """One passage of readings through the stack: what was sent and what was found."""

    sent: Sequence[Entry]
    delivery: Delivery
    landing: Landing
    executions: Sequence[Execution]
    summaries: Sequence[dict[str, Any]]
    table: Table

    @property
    def good_timestamps(self) -> list[float]:
        """When the readings that were sent as good ones were taken, UNIX seconds."""
        return [json.loads(entry.data)["timestamp"] for entry in self.sent if entry.fault is None]


@pytest.fixture(scope="module")
def passage(lake: Lake) -> Passage:
    ledger = lake.directory / "ledger.jsonl"
    plan = Plan(count=GOOD, bad=BAD, spread_hours=SPREAD_HOURS, seed=1, ledger=ledger)
    delivery = send(lake.target, plan, lake.reporter)
    landing = journey.wait_for_landing(lake.target, GOOD, BAD, lake.reporter)
    executions, summaries = journey.wait_for_pipeline(lake.target, landing, lake.reporter)
    table = journey.read_table(lake.target, lake.reporter)
    return Passage(list(read_ledger(ledger)), delivery, landing, executions, summaries, table)


def test_every_good_reading_is_one_row_and_every_bad_one_a_reject(lake: Lake, passage: Passage) -> None:
    assert passage.delivery.acknowledged == GOOD + BAD
    assert passage.table.rows == GOOD
    assert len(passage.landing.rejects) == BAD
    assert journey.differences(GOOD, passage.summaries) == []
    verification = check(lake.target, ledgers(lake), lake.reporter)
    assert verification.verdict == "conserved", verification


def test_each_bad_record_is_kept_for_the_reason_that_it_was_made_bad_for(passage: Passage) -> None:
    assert passage.landing.rejects_by_reason == passage.delivery.by_fault


def test_the_rejects_are_found_in_athena_and_by_the_command_line(lake: Lake, passage: Passage) -> None:
    # GIVEN / WHEN
    table = lake.target.outputs.rejected_table_name
    sql = f"SELECT reason, COUNT(DISTINCT reject_id) FROM {table} GROUP BY reason"  # noqa: S608
    result = run_query(lake.target, sql, lake.reporter)

    # THEN
    assert {reason: int(str(count)) for reason, count in result.rows} == dict(passage.delivery.by_fault)

    # AND the view has each once, with its struct, also where a batch that was tried again has stored it twice
    s3, bucket = lake.target.s3, lake.target.outputs.analytics_bucket_name
    stored = list_objects(s3, bucket, lake.target.outputs.dlq_prefix)[0].key
    copy = stored.replace(".json.gz", "-again.json.gz")
    s3.copy_object(Bucket=bucket, Key=copy, CopySource={"Bucket": bucket, "Key": stored})
    lines = run_query(lake.target, f"SELECT count(*) FROM {table}", lake.reporter).rows  # noqa: S608
    sql = "SELECT reason, count(*), count(detail.rule) FROM distinct_rejects GROUP BY reason"
    rows = run_query(lake.target, sql, lake.reporter).rows
    s3.delete_object(Bucket=bucket, Key=copy)
    assert int(str(lines[0][0])) > sum(passage.delivery.by_fault.values())
    assert {reason: (int(str(count)), int(str(rules))) for reason, count, rules in rows} == {
        reason: (count, count) for reason, count in passage.delivery.by_fault.items()
    }

    # WHEN the command line reads the objects themselves, of the days that the batches may have come on
    today = datetime.now(UTC).date()
    rejects = read_rejects(lake.target, today - timedelta(days=1), today, lake.reporter)

    # THEN
    assert {reason: counts.total() for reason, counts in counts_by(rejects, "reason").items()} == dict(
        passage.delivery.by_fault
    )


def test_the_pipe_started_executions_for_all_raw_objects(passage: Passage) -> None:
    # GIVEN
    named = {key for execution in passage.executions for key in execution.object_keys}

    # WHEN / THEN
    assert {execution.status for execution in passage.executions} == {"SUCCEEDED"}
    assert "pipe" in {execution.trigger for execution in passage.executions}
    assert named == {stored.key for stored in passage.landing.raw_objects}


def test_the_partitions_are_the_days_of_the_readings_registered_in_the_catalog(passage: Passage) -> None:
    # GIVEN the days, in UTC, of the timestamps that were sent
    days = {datetime.fromtimestamp(timestamp, UTC).date() for timestamp in passage.good_timestamps}

    # WHEN / THEN
    wanted = {(str(day.year), str(day.month), str(day.day)) for day in days}
    assert set(passage.table.partitions) == wanted
    assert len(wanted) >= 2


def test_a_query_of_one_day_scans_less_than_one_of_all(lake: Lake, passage: Passage) -> None:
    # GIVEN
    table = lake.target.outputs.table_name
    year, month, day = passage.table.partitions[-1]

    # WHEN
    one_day = run_query(
        lake.target, representative_query(table, datetime(int(year), int(month), int(day), tzinfo=UTC)), lake.reporter
    )
    all_days = run_query(lake.target, f"SELECT device_id, AVG(temperature) FROM {table} GROUP BY 1", lake.reporter)  # noqa: S608

    # THEN
    assert 0 < one_day.scanned_bytes < all_days.scanned_bytes
    assert 1 <= len(one_day.rows) <= 5


def test_counts_and_averages_are_those_that_pandas_computes_from_the_input(lake: Lake, passage: Passage) -> None:
    # GIVEN what was sent
    readings = pandas.DataFrame(json.loads(entry.data) for entry in passage.sent if entry.fault is None)
    wanted = readings.groupby("device_id")["temperature"].agg(["count", "mean"])

    # WHEN Athena is asked
    found = journey.averages_by_athena(lake.target, lake.reporter)

    # THEN
    assert {device: each.readings for device, each in found.items()} == wanted["count"].to_dict()
    averages = {device: each.celsius for device, each in found.items()}
    assert averages == pytest.approx(wanted["mean"].to_dict(), abs=1e-9, rel=0)
    assert journey.average_differences(journey.averages_sent(passage.sent), found) == []


def test_the_report_draws_the_numbers_of_this_run(lake: Lake, passage: Passage, tmp_path: Path) -> None:
    # GIVEN CloudWatch has the numbers of the last minute, too
    accepted = own_plots(lake.target.outputs.stage, lake.target.outputs.delivery_stream_name)[0][0].metric

    def all_are_counted() -> bool:
        now = datetime.now(UTC)
        return sum(values_of(lake.target, {"x": accepted}, now - timedelta(hours=1), now)["x"]) == GOOD

    until(all_are_counted, 120, "for CloudWatch to have what the transform accepted")

    # WHEN
    write_report(lake.target, tmp_path / "report.html", 1, [], lake.reporter)
    page = read((tmp_path / "report.html").read_text("utf-8"))

    # THEN
    assert page.facts["readings stored"] == f"{GOOD:,}"
    assert page.facts["rejects"] == f"{BAD:,}"
    rejects = page.chart("Rejects by reason")
    assert dict(zip(rejects["categories"], rejects["series"][0]["values"], strict=True)) == passage.delivery.by_fault
    throughput = {line["name"]: line["values"] for line in page.chart("Readings by the transform, a minute")["series"]}
    assert {name: sum(value for _, value in values) for name, values in throughput.items()} == {
        "accepted": GOOD,
        "rejected": BAD,
    }
    steps_drawn = {each["name"]: each["values"] for each in page.chart("Seconds of each run, by step")["series"]}
    assert steps_drawn == {
        step: [summary["seconds_by_step"][step] for summary in passage.summaries]
        for step in passage.summaries[0]["seconds_by_step"]
    }
    files = page.chart("Files of each partition")
    assert sum(files["series"][0]["values"]) == len(passage.table.files)
    assert files["categories"] == [partition_text(values) for values in passage.table.partitions]
    scans = page.chart("Bytes scanned by each query")["series"][0]["values"]
    assert passage.table.counts.scanned_bytes in scans

    # AND each widget of the deployed dashboard is drawn, those of what ran with values
    body = lake.target.cloudwatch.get_dashboard(DashboardName=lake.target.outputs.dashboard_name)["DashboardBody"]
    drawn = {chart["title"]: chart["series"] for chart in page.charts}
    widgets = metric_widgets(body, lambda search: find_metrics(lake.target, search))
    titles = [each["properties"]["title"] for each in json.loads(body)["widgets"] if each["type"] == "metric"]
    assert sorted(widget.title for widget in widgets) == sorted(titles)
    for widget in widgets:
        assert [line["name"] for line in drawn[widget.title]] == [plot.label for plot in widget.plots]
    assert {row[0] for row in page.tables["Dashboard"][1:]} == set(alarms_shown(body))
    lines = {line["name"]: line["values"] for series in drawn.values() for line in series if "right" in line}
    assert sum(value for _, value in lines["IncomingRecords"]) == passage.delivery.acknowledged


def test_the_status_of_a_healthy_stack_has_no_problems(lake: Lake, passage: Passage) -> None:
    # GIVEN / WHEN the alarm for a stack without any run has seen the runs
    for _ in ticks(ALARM_SECONDS, 2.0):
        stops = collect(lake.target)
        if not stops["alarms"]:
            break

    # THEN
    assert problems(stops) == []
    assert stops["raw_since_yesterday"]["objects"] == len(passage.landing.raw_objects)
    assert len(stops["partitions"]) == len(passage.table.partitions)
    assert stops["rejects_since_yesterday"]["open_by_reason"] == dict(passage.delivery.by_fault)
    assert (stops["trigger"]["pipe_state"], stops["job"]["state"]) == ("RUNNING", "SUCCEEDED")
    assert stops["table"]["newest_reading"].timestamp() == pytest.approx(max(passage.good_timestamps), abs=1e-3)


def test_a_second_execution_reads_nothing_and_changes_nothing(lake: Lake, passage: Passage) -> None:
    # GIVEN
    before = {summary["job_run_id"] for summary in read_summaries(lake.target)}

    # WHEN
    execution = journey.run_once_more(lake.target, lake.reporter)

    # THEN the bookmark leaves it nothing to read
    new = [summary for summary in read_summaries(lake.target) if summary["job_run_id"] not in before]
    assert execution.status == "SUCCEEDED"
    assert {summary["counts"]["lines"] for summary in new} == {0}
    assert journey.changes_between(passage.table, journey.read_table(lake.target, lake.reporter)) == []


def test_the_checklist_is_green_with_what_came_through(lake: Lake, passage: Passage) -> None:
    # GIVEN / WHEN
    steps = walk(lake.target, 1, lake.reporter)

    # THEN
    assert [(step.number, step.finding.faults) for step in steps] == [(number, ()) for number in range(1, 8)]
    stream, delivery, job, crawler, athena, rerun, letters = (step.finding.measured for step in steps)
    assert stream["incoming_records"] == GOOD + BAD
    assert delivery["objects"] == len(passage.landing.raw_objects)
    assert (job["files"], job["days"]) == (len(passage.table.files), len(passage.table.partitions))
    # All of them may have been registered by one crawl, or the days by several.
    assert set(crawler["registered_by_this_crawl"]) <= {partition_text(day) for day in passage.table.partitions}
    assert 0 < athena["scanned_bytes"] < athena["table_bytes"]
    assert (rerun["lines_read"], rerun["objects_left_alone"] > 0) == (0, True)
    assert letters["by_reason"] == dict(passage.delivery.by_fault)
