"""Follow readings through a whole stack and collect the evidence of every stop.

For a stack that holds nothing else. Used by ``tlake demo`` and by the end-to-end tests; whether everything is conserved
is for ``tlake verify --conservation`` to say.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telemetry_lake.console import OperatorError, Reporter, counts_text
from telemetry_lake.ledger import Entry
from telemetry_lake.pipeline import (
    RUNNING,
    Execution,
    LineCounter,
    StoredObject,
    assert_none_failed,
    current_state,
    follow_execution,
    list_executions,
    list_objects,
    partition_values,
    read_summaries,
    start_execution,
    ticks,
)
from telemetry_lake.queries import QueryResult, run_query
from telemetry_lake.target import Target

AVERAGE_TOLERANCE_CELSIUS = 1e-9
DELIVERY_SECONDS = 300.0
PIPELINE_SECONDS = 900.0


@dataclass(frozen=True)
class Landing:
    """What Firehose and the transform have written: raw lines, and rejects by ``reject_id``.

    ``raw_json_bytes`` is what the raw lines have before they are compressed.
    """

    raw_objects: Sequence[StoredObject]
    raw_lines: int
    raw_json_bytes: int
    reject_objects: Sequence[StoredObject]
    rejects: dict[str, dict[str, Any]]

    @property
    def rejects_by_reason(self) -> Counter[str]:
        """How many distinct rejects there are for each reason."""
        return Counter(str(reject["reason"]) for reject in self.rejects.values())


@dataclass(frozen=True)
class DeviceAverage:
    """How many readings of a device there are, and their average temperature in degrees Celsius."""

    readings: int
    celsius: float


@dataclass(frozen=True)
class Table:
    """What the table holds by itself and by Athena."""

    files: Sequence[StoredObject]
    partitions: Sequence[tuple[str, ...]]
    counts: QueryResult

    @property
    def rows(self) -> int:
        """Rows by Athena."""
        return int(self.counts.rows[0][0] or 0)

    @property
    def distinct_readings(self) -> int:
        """Distinct triples of device, timestamp and temperature by Athena."""
        return int(self.counts.rows[0][1] or 0)


def wait_for_landing(
    target: Target, good: int, bad: int, reporter: Reporter, seconds: float = DELIVERY_SECONDS
) -> Landing:
    """Wait until the raw zone has a line for each good reading and the DLQ a reject for each bad record.

    Raises:
        OperatorError: they are not there within ``seconds``, or Firehose parked records in its error prefix.
    """
    outputs = target.outputs
    raw = LineCounter(target.s3, outputs.raw_bucket_name, outputs.raw_prefix)
    dead = LineCounter(target.s3, outputs.analytics_bucket_name, outputs.dlq_prefix)
    with reporter.step("Waiting for Firehose to deliver", good + bad) as step:
        for _ in ticks(seconds):
            parked = list_objects(target.s3, outputs.raw_bucket_name, outputs.error_prefix)
            if parked:
                raise OperatorError(
                    f"Firehose parked records in its error prefix: s3://{outputs.raw_bucket_name}/{parked[0].key}",
                    "The transform failed on them: see its log group and the errorMessage in that object.",
                )
            lines = raw.refresh()
            dead.refresh()
            rejects = dead.rejects()
            step.update(
                completed=min(lines, good) + min(len(rejects), bad),
                note=f"{lines:,} raw lines, {len(rejects):,} rejects",
            )
            if lines >= good and len(rejects) >= bad:
                return Landing(raw.objects, lines, raw.content_bytes, dead.objects, rejects)
    raise OperatorError(
        f"After {seconds:.0f} s the raw zone has {lines:,} lines for {good:,} good readings, and the DLQ "
        f"{len(rejects):,} rejects for {bad:,} bad ones.",
        "tlake status shows where they are stuck.",
    )


def wait_for_pipeline(
    target: Target, landing: Landing, reporter: Reporter, seconds: float = PIPELINE_SECONDS
) -> tuple[list[Execution], list[dict[str, Any]]]:
    """Wait until runs have read every raw line, every raw object's event has started an execution, and none is at work.

    Returns:
        The executions, the earliest first, and the summaries of the job's runs.

    Raises:
        OperatorError: an execution failed, or they are not done within ``seconds``.
    """
    raw_lines = landing.raw_lines
    raw_keys = {stored.key for stored in landing.raw_objects} if target.outputs.pipe_name is not None else set()
    with reporter.step("Waiting for the pipeline", raw_lines) as step:
        for _ in ticks(seconds, 1.0):
            executions = list_executions(target)[::-1]
            assert_none_failed(executions)
            summaries = read_summaries(target)
            read = sum(summary["counts"]["lines"] for summary in summaries)
            running = [execution for execution in executions if execution.status == RUNNING]
            unnamed = raw_keys.difference(*(execution.object_keys for execution in executions))
            state = current_state(target, running[-1].arn) if running else ""
            step.update(
                completed=min(read, raw_lines), note=f"{len(executions)} execution(s), {state or 'none running'}"
            )
            if executions and not running and not unnamed and read >= raw_lines:
                step.update(note=f"{len(executions)} execution(s), {read:,} lines read")
                return executions, summaries
    raise OperatorError(
        f"After {seconds:.0f} s the job has read {read:,} of {raw_lines:,} raw lines in {len(executions)} executions, "
        f"and there are {len(unnamed):,} raw objects whose event started none.",
        "tlake status shows the executions; the job's log is in the log group /aws-glue/jobs/error.",
    )


def run_once_more(target: Target, reporter: Reporter, seconds: float = PIPELINE_SECONDS) -> Execution:
    """Start the pipeline by hand with ``{}`` and wait for its end.

    Raises:
        OperatorError: it failed, or is not done within ``seconds``.
    """
    arn = start_execution(target, {})
    with reporter.step("Running the pipeline once more with {}") as step:
        return follow_execution(target, arn, step, seconds)


def read_table(target: Target, reporter: Reporter) -> Table:
    """Return the table's files, its registered partitions, and Athena's counts of rows and of distinct readings."""
    outputs = target.outputs
    table = outputs.table_name
    triples = f'SELECT DISTINCT device_id, "timestamp", temperature FROM {table}'  # noqa: S608  a name from the stack
    counts = run_query(
        target,
        f"SELECT COUNT(*) AS row_count, (SELECT COUNT(*) FROM ({triples})) AS distinct_count FROM {table}",  # noqa: S608
        reporter,
    )
    files = list_objects(target.s3, outputs.analytics_bucket_name, outputs.curated_prefix)
    return Table(files, partition_values(target), counts)


def averages_sent(entries: Iterable[Entry]) -> dict[str, DeviceAverage]:
    """Return the average of each device out of what was sent, computed here, from a ledger of distinct readings.

    A good record holds a reading a line; one with a fault holds none.
    """
    temperatures: dict[str, list[float]] = {}
    for entry in entries:
        if entry.fault is None:
            for line in entry.data.splitlines():
                reading = json.loads(line)
                temperatures.setdefault(reading["device_id"], []).append(reading["temperature"])
    return {device: DeviceAverage(len(each), math.fsum(each) / len(each)) for device, each in temperatures.items()}


def averages_by_athena(target: Target, reporter: Reporter) -> dict[str, DeviceAverage]:
    """Return the average of each device over the whole table."""
    table = target.outputs.table_name
    sql = f"SELECT device_id, COUNT(*) AS readings, AVG(temperature) AS celsius FROM {table} GROUP BY device_id"  # noqa: S608
    rows = run_query(target, sql, reporter).rows
    return {
        str(device): DeviceAverage(int(readings or 0), float(celsius or "nan")) for device, readings, celsius in rows
    }


def average_differences(sent: Mapping[str, DeviceAverage], found: Mapping[str, DeviceAverage]) -> list[str]:
    """Return where Athena's answer is not what the input gives: counts exactly, averages to 1e-9 °C."""
    none = DeviceAverage(0, math.nan)
    wrong = []
    for device in sorted(sent.keys() | found.keys()):
        wanted, got = sent.get(device, none), found.get(device, none)
        if wanted.readings != got.readings:
            wrong.append(f"readings of {device}: {got.readings:,} instead of {wanted.readings:,}")
        elif not abs(wanted.celsius - got.celsius) <= AVERAGE_TOLERANCE_CELSIUS:
            wrong.append(f"average of {device}: {got.celsius!r} instead of {wanted.celsius!r} °C")
    return wrong


def differences(good: int, summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Return what the run summaries should not say after ``good`` distinct readings; empty is well.

    Raw lines may be more than the readings, since Firehose delivers at least once; new ones may not.
    """
    new = sum(summary["counts"]["new"] for summary in summaries)
    rejected_by_job = sum(summary["counts"]["rejected"] for summary in summaries)
    expectations = (
        ("new readings by the run summaries", new, good),
        ("lines that the job rejected", rejected_by_job, 0),
        (
            "lines judged by the job",
            sum(summary["counts"]["lines"] for summary in summaries),
            sum(
                sum(summary["counts"][verdict] for verdict in ("new", "duplicate", "rejected")) for summary in summaries
            ),
        ),
    )
    return [f"{what}: {found:,} instead of {wanted:,}" for what, found, wanted in expectations if found != wanted]


def changes_between(before: Table, after: Table) -> list[str]:
    """Return what changed in the table between two looks; empty when nothing did."""
    found = []
    if [(file.key, file.etag) for file in before.files] != [(file.key, file.etag) for file in after.files]:
        found.append(f"files: {len(before.files):,}, then {len(after.files):,}")
    if list(before.partitions) != list(after.partitions):
        found.append(f"partitions: {len(before.partitions):,}, then {len(after.partitions):,}")
    if before.rows != after.rows:
        found.append(f"rows: {before.rows:,}, then {after.rows:,}")
    return found


def reasons_text(landing: Landing) -> str:
    """Return the rejects by reason, as text."""
    return counts_text(landing.rejects_by_reason)
