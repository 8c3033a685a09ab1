"""What the checks are asked for: the load that has just ended, or days of the table that are over."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from athena_check.summary import RunSummary, read_summary

LOAD, EMPTY_LOAD, DAY = "load", "empty_load", "day"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class UnusableDaysError(ValueError):
    """The event names days that are none, or that are not over."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """What is checked.

    Attributes:
        name: ``load`` or ``empty_load``, which brought no readings (also the load of an audit), or ``day``.
        days: the partitions concerned; none of an empty load.
        run: the run, of a load.
        recent_days: the day on which the run began and the one before, in the time zone of the partitions.
    """

    name: str
    days: tuple[date, ...]
    run: RunSummary | None = None
    recent_days: tuple[date, ...] = ()


def read_occasion(event: Mapping[str, Any], zone: ZoneInfo, now: datetime) -> Occasion:
    """Read what the state machine asks for.

    Args:
        event: ``{"summary": {...}}`` after a load, or ``{"days": ["2026-10-15"]}`` for days of the table; an empty list
            stands for yesterday.
        zone: time zone of the table's partitions.
        now: the present, UTC.

    Raises:
        UnusableDaysError: a day is not written as YYYY-MM-DD, or is not over.
        UnusableSummaryError: there are neither days nor a usable summary.
    """
    if "days" in event:
        today = now.astimezone(zone).date()
        days = _read_days(event["days"]) or (today - timedelta(days=1),)
        if max(days) >= today:
            raise UnusableDaysError(
                f"a check judges days of the table, in {zone.key}, that are over, so before {today}; "
                f"not over is {max(days)}"
            )
        return Occasion(DAY, days)
    run = read_summary(event)
    today = run.started_at.astimezone(zone).date()
    days = tuple(date(day.year, day.month, day.day) for day in run.days)
    return Occasion(LOAD if days else EMPTY_LOAD, days, run, (today - timedelta(days=1), today))


def _read_days(texts: Any) -> tuple[date, ...]:
    try:
        if not isinstance(texts, list) or not all(_DAY.fullmatch(text) for text in texts):
            raise ValueError(texts)
        return tuple(date.fromisoformat(text) for text in texts)
    except (TypeError, ValueError) as error:
        raise UnusableDaysError(f"days must be a list such as ['2026-10-15'], not {texts!r}") from error


def days_predicate(days: Iterable[date]) -> str:
    """A condition on the partition columns, with literals only, so that Athena reads those partitions and no other.

    The days of a month share a term: a batch of a year would otherwise have a query of hundreds of terms.
    https://docs.aws.amazon.com/athena/latest/ug/partitions.html
    """
    by_month: dict[tuple[int, int], list[int]] = {}
    for day in sorted(set(days)):
        by_month.setdefault((day.year, day.month), []).append(day.day)
    return " OR ".join(
        f"(year = {year} AND month = {month} AND day IN ({', '.join(map(str, numbers))}))"
        for (year, month), numbers in by_month.items()
    )
