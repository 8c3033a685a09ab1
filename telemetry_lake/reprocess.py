"""Read raw objects again, and prove that the table has lost and doubled nothing by it.

The bookmark is moved back with ResetJobBookmark. Without a run it goes back to the beginning; with one it goes back to
the end of that run (https://docs.aws.amazon.com/glue/latest/dg/monitor-continuations.html calls it rewinding, and
https://aws.amazon.com/blogs/big-data/load-data-incrementally-and-optimized-parquet-writer-with-aws-glue/ says to which
end). A bookmark knows the ends of runs only, so "from a time" is from the last successful load that had ended by then.
The other way, a run with ``--job-bookmark-from`` and ``--job-bookmark-to``, leaves the bookmark as it is, so that a run
which fails half-way would have to be remembered by somebody else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from telemetry_lake.console import OperatorError, Reporter, size_text
from telemetry_lake.job_runs import JobRun, job_runs, last_load_before
from telemetry_lake.pipeline import StoredObject, list_objects, partition_text, partition_values, read_summaries
from telemetry_lake.prices import price
from telemetry_lake.queries import run_query
from telemetry_lake.target import Target

SECONDS_OF_AN_HOUR = 3600


@dataclass(frozen=True)
class Plan:
    """What will be read again.

    Attributes:
        after: the run to whose end the bookmark goes back; None for the beginning.
        objects: how many raw objects, at most: what was written while ``after`` ran may have been read by it.
        size_bytes: their size.
        earliest: when the first of them was written.
        dpus: of the job; None before its first run.
    """

    after: JobRun | None
    objects: int
    size_bytes: int
    earliest: datetime | None
    dpus: int | None

    @property
    def least_cost_usd(self) -> float | None:
        """What Glue bills for a run at least."""
        if self.dpus is None:
            return None
        hours = price("glue_job_minimum_seconds").value / SECONDS_OF_AN_HOUR
        return price("glue_dpu_hour").value * self.dpus * hours


def make_plan(target: Target, since: datetime | None, reporter: Reporter) -> Plan:
    """Find out what would be read again.

    Args:
        target: the stack.
        since: read again what was written from then on; None for everything.
        reporter: shows the progress.
    """
    outputs = target.outputs
    with reporter.step("Looking at the job's runs and the raw zone") as step:
        newest = next(job_runs(target), None)
        after = last_load_before(job_runs(target), since) if since is not None else None
        raw = list_objects(target.s3, outputs.raw_bucket_name, outputs.raw_prefix)
        # The run listed the raw zone after it had started, and before it ended.
        again = [each for each in raw if after is None or each.last_modified >= after.started]
        step.update(note=f"{len(again):,} of {len(raw):,} raw objects")
    return Plan(
        after,
        len(again),
        sum(each.size_bytes for each in again),
        min((each.last_modified for each in again), default=None),
        newest.dpus if newest is not None else None,
    )


def plan_lines(plan: Plan, since: datetime | None, job_name: str) -> list[tuple[str, str]]:
    """Return what a plan means, as labels and sentences."""
    if plan.after is not None:
        back_to = f"the end of the run {plan.after.id} ({plan.after.completed:%Y-%m-%d %H:%M:%S %Z})"
    elif since is not None:
        back_to = f"the beginning: no load that ended by {since:%Y-%m-%d %H:%M:%S %Z} is on record (Glue keeps 90 days)"
    else:
        back_to = "the beginning"
    earliest = f", the first written {plan.earliest:%Y-%m-%d %H:%M:%S %Z}" if plan.earliest else ""
    lines = [
        ("bookmark", f"of the job {job_name} goes back to {back_to}"),
        ("read again", f"{plan.objects:,} raw objects, {size_text(plan.size_bytes)}{earliest}"),
        ("stored again", "nothing: what the table holds is found, counted as duplicate and left as it is"),
    ]
    if plan.least_cost_usd is not None:
        dpu_hour = price("glue_dpu_hour")
        lines.append(
            (
                "cost",
                f"${plan.least_cost_usd:.3f} at least: {plan.dpus} DPUs at ${dpu_hour.value:.2f} an hour, for as long "
                f"as it takes to read all that (price of {dpu_hour.read}; S3 and Athena requests come on top)",
            )
        )
    return lines


@dataclass(frozen=True)
class DayRows:
    """Of one day of the table: its rows, and how many distinct readings they are."""

    rows: int
    distinct: int


@dataclass(frozen=True)
class Look:
    """What the table and the DLQ hold at one time.

    Attributes:
        days: by partition.
        files: the table's Parquet files.
        rejects: distinct ones in the DLQ.
        summaries: keys of the run summaries.
    """

    days: Mapping[tuple[str, ...], DayRows]
    files: Sequence[StoredObject]
    rejects: int
    summaries: frozenset[str]

    @property
    def rows(self) -> int:
        """Rows of all days."""
        return sum(day.rows for day in self.days.values())

    @property
    def distinct(self) -> int:
        """Distinct readings; the same reading is always of the same day."""
        return sum(day.distinct for day in self.days.values())

    def counts(self) -> dict[str, int]:
        """Return what is shown of it."""
        return {
            "rows": self.rows,
            "distinct readings": self.distinct,
            "partitions": len(self.days),
            "Parquet files": len(self.files),
            "distinct rejects": self.rejects,
        }


def look(target: Target, reporter: Reporter) -> Look:
    """Count what the table and the DLQ hold, by Athena; month by month, so that the scan limit holds for each."""
    outputs = target.outputs
    partitions = partition_values(target)
    months = sorted({(int(year), int(month)) for year, month, _day in partitions})
    days = {values: DayRows(0, 0) for values in partitions}
    quiet = Reporter(quiet=True)
    with reporter.step("Counting what is stored", len(months) + 1) as step:
        for year, month in months:
            result = run_query(target, _count_query(outputs.table_name, year, month), quiet)
            for *values, rows, distinct in result.rows:
                days[tuple(str(value) for value in values)] = DayRows(int(rows or 0), int(distinct or 0))
            step.advance()
        rejects = run_query(
            target,
            f"SELECT count(DISTINCT reject_id) FROM {outputs.rejected_table_name}",  # noqa: S608  a name from the stack
            quiet,
        ).single_number()
        files = list_objects(target.s3, outputs.analytics_bucket_name, outputs.curated_prefix)
        summaries = list_objects(target.s3, outputs.analytics_bucket_name, outputs.summaries_prefix)
        found = Look(days, files, rejects, frozenset(stored.key for stored in summaries))
        step.update(note=f"{found.rows:,} rows, {found.distinct:,} distinct readings, {found.rejects:,} rejects")
    return found


def _count_query(table: str, year: int, month: int) -> str:
    return (
        "SELECT year, month, day, sum(copies) AS row_count, count(*) AS distinct_count FROM ("  # noqa: S608
        f"SELECT year, month, day, count(*) AS copies FROM {table} WHERE year = {year} AND month = {month} "
        'GROUP BY year, month, day, device_id, "timestamp", temperature) AS readings GROUP BY year, month, day'
    )


def losses(before: Look, after: Look) -> list[str]:
    """Return what the table has lost or holds twice; rows that came in addition are neither."""
    found = []
    kept = {(stored.key, stored.etag) for stored in after.files}
    gone = [stored.key for stored in before.files if (stored.key, stored.etag) not in kept]
    if gone:
        found.append(f"{len(gone):,} Parquet file(s) are gone or changed, such as {gone[0]}")
    for values, day in before.days.items():
        now = after.days.get(values)
        if now is None:
            found.append(f"the partition {partition_text(values)} is gone")
        elif now.distinct < day.distinct:
            found.append(f"{partition_text(values)} has lost {day.distinct - now.distinct:,} readings")
    for values, day in after.days.items():
        if day.rows > day.distinct:
            found.append(f"{partition_text(values)} holds {day.rows - day.distinct:,} readings twice")
    if after.rejects < before.rejects:
        found.append(f"{before.rejects - after.rejects:,} rejects are gone")
    return found


def new_loads(target: Target, before: Look) -> list[dict[str, Any]]:
    """Return the summaries of the loads that have ended since a look."""
    return [summary for summary in read_summaries(target, before.summaries) if summary["mode"] == "load"]


def move_bookmark_back(target: Target, plan: Plan) -> None:
    """Let the next run read again what the plan says.

    Raises:
        OperatorError: Glue does not have the bookmark of that run any more.
    """
    job = target.outputs.job_name
    try:
        if plan.after is None:
            target.glue.reset_job_bookmark(JobName=job)
        else:
            target.glue.reset_job_bookmark(JobName=job, RunId=plan.after.id)
    except target.glue.exceptions.EntityNotFoundException as error:
        # Without any bookmark, which is an error too, the next run reads everything anyway.
        if plan.after is not None:
            raise OperatorError(
                f"Glue cannot go back to the run {plan.after.id}: {error}",
                "Nothing has changed. Choose an earlier --from, or leave it out to read everything again.",
            ) from error
