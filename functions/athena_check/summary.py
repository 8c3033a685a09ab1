"""What the check reads of a run's summary."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

_JOB_RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,255}")


class UnusableSummaryError(ValueError):
    """The event holds no run summary that the check understands."""


@dataclass(frozen=True, slots=True)
class TouchedDay:
    """One partition of the table that the run read or wrote, and how many rows it added there."""

    year: int
    month: int
    day: int
    new: int


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The part of a run's summary that can be compared with the table.

    Attributes:
        job_run_id: the run; the names of its files begin with it.
        mode: what the run was for, ``load`` or ``audit``.
        started_at: when the run began, UTC.
        seconds: how long it took.
        new: rows that the run says it added to the table.
        rejected: lines that it rejected; the transform's rejects are not among them.
        days: partitions it touched; may be fewer than `day_count` when the list was cut to bound the summary's size.
        day_count: number of partitions it touched.
    """

    job_run_id: str
    mode: str
    started_at: datetime
    seconds: float
    new: int
    rejected: int
    days: tuple[TouchedDay, ...]
    day_count: int

    @property
    def listed_new(self) -> int:
        """Rows added in the listed partitions: what a query over those partitions must find."""
        return sum(day.new for day in self.days)

    @property
    def lists_all_days(self) -> bool:
        """Whether no partition was left off the list."""
        return len(self.days) >= self.day_count


def read_summary(event: Mapping[str, Any]) -> RunSummary:
    """Take the run's summary out of the state machine's event.

    Raises:
        UnusableSummaryError: a field is missing, of another type, or not what SQL text may be built from.
    """
    summary = event.get("summary")
    if not isinstance(summary, Mapping):
        raise UnusableSummaryError("the event must have a run summary: {'execution': ..., 'summary': {...}}")
    try:
        partitions = [_read_day(partition) for partition in summary["partitions"]]
        job_run_id = str(summary["job_run_id"])
        mode = str(summary["mode"])
        started_at, finished_at = (_read_time(summary[name]) for name in ("started_at", "finished_at"))
        new, rejected = (_read_count(summary["counts"][name]) for name in ("new", "rejected"))
        day_count = _read_count(summary.get("partition_count", len(partitions)))
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableSummaryError(f"the run summary is not usable: {type(error).__name__}: {error}") from error
    if not _JOB_RUN_ID.fullmatch(job_run_id):
        raise UnusableSummaryError(f"not the id of a job run: {job_run_id!r}")
    return RunSummary(
        job_run_id=job_run_id,
        mode=mode,
        started_at=started_at,
        seconds=(finished_at - started_at).total_seconds(),
        new=new,
        rejected=rejected,
        days=tuple(partitions),
        day_count=day_count,
    )


def _read_day(partition: Mapping[str, Any]) -> TouchedDay:
    day = date(int(partition["year"]), int(partition["month"]), int(partition["day"]))
    return TouchedDay(day.year, day.month, day.day, _read_count(partition["new"]))


def _read_time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"not a time with its zone: {text!r}")
    return moment.astimezone(UTC)


def _read_count(value: object) -> int:
    # Step Functions' JSONata may hand a whole number over as 3.0.
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
        raise ValueError(f"not a count: {value!r}")
    return int(value)
