"""What is drawn from the evidence: charts as plain data, each with a table of the same numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from telemetry_lake.console import size_text
from telemetry_lake.metrics import Point
from telemetry_lake.report.evidence import Evidence, Series

SHORTEST_AXIS = timedelta(minutes=10)
NEWEST_PARTITIONS = 400
NEWEST_RUNS = 200
COUNT, SECONDS, BYTES = "count", "seconds", "bytes"
SQL_CHARACTERS = 300


@dataclass(frozen=True)
class Table:
    """Texts in rows; ``numeric`` says from which column on they are numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: int = 1


@dataclass(frozen=True)
class Line:
    """One line of a time chart."""

    name: str
    points: tuple[Point, ...]
    on_right_axis: bool = False


@dataclass(frozen=True)
class TimeChart:
    """Lines over time, on an axis from ``start`` to ``end``."""

    title: str
    lines: tuple[Line, ...]
    start: datetime
    end: datetime
    unit: str = COUNT

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(line.points for line in self.lines)

    @property
    def description(self) -> str:
        """What somebody hears who does not see it."""
        names = ", ".join(line.name for line in self.lines)
        return f"{self.title}. Lines over time: {names}. The numbers are in the table below."

    def drawing(self) -> dict[str, Any]:
        """Return it for the script of the page, times as milliseconds of UNIX time."""
        return {
            "kind": "time",
            "title": self.title,
            "unit": self.unit,
            "start": _milliseconds(self.start),
            "end": _milliseconds(self.end),
            "series": [
                {
                    "name": line.name,
                    "right": line.on_right_axis,
                    "values": [[_milliseconds(moment), value] for moment, value in line.points],
                }
                for line in self.lines
            ],
        }

    def table(self) -> Table:
        """Return its numbers, a row for each moment that a line has a value for."""
        values = [dict(line.points) for line in self.lines]
        moments = sorted({moment for each in values for moment in each})
        rows = [
            (moment_text(moment), *(_number_text(each.get(moment), self.unit) for each in values)) for moment in moments
        ]
        return Table(("UTC", *(line.name for line in self.lines)), tuple(rows))


@dataclass(frozen=True)
class BarChart:
    """Bars by category; those of several series stand on each other."""

    title: str
    category: str
    categories: tuple[str, ...]
    series: Mapping[str, tuple[float, ...]]
    unit: str = COUNT
    horizontal: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.categories

    @property
    def description(self) -> str:
        """What somebody hears who does not see it."""
        names = ", ".join(self.series)
        return f"{self.title}. Bars by {self.category}: {names}. The numbers are in the table below."

    def drawing(self) -> dict[str, Any]:
        """Return it for the script of the page."""
        return {
            "kind": "bars",
            "title": self.title,
            "unit": self.unit,
            "horizontal": self.horizontal,
            "categories": list(self.categories),
            "series": [{"name": name, "values": list(values)} for name, values in self.series.items()],
        }

    def table(self) -> Table:
        """Return its numbers, a row for each category."""
        columns = zip(*self.series.values(), strict=True) if self.series else ()
        rows = [
            (category, *(_number_text(value, self.unit) for value in values))
            for category, values in zip(self.categories, columns, strict=True)
        ]
        return Table((self.category, *self.series), tuple(rows))


Chart = TimeChart | BarChart


@dataclass(frozen=True)
class Fact:
    """One number that is worth a look first."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Section:
    """A part of the page: charts under a title, with a sentence on what good looks like."""

    title: str
    lead: str
    charts: tuple[Chart, ...] = ()
    table: Table | None = None


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def moment_text(moment: datetime) -> str:
    """Return a moment as ``2026-11-27 09:05:00``."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _number_text(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == BYTES or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.3f}"


def seconds_text(seconds: float) -> str:
    """Return a length of time as people say it: ``41 s``, ``12 min``, ``3.5 h``, ``12 days``."""
    for length, name, digits in ((86_400 * 2, "days", 0), (3600 * 2, "h", 1), (60 * 2, "min", 0)):
        if seconds >= length:
            unit_seconds = {"days": 86_400, "h": 3600, "min": 60}[name]
            return f"{seconds / unit_seconds:,.{digits}f} {name}"
    return f"{seconds:,.0f} s"


def facts(evidence: Evidence) -> list[Fact]:
    """Return the numbers for the top of the page."""
    counts = {name: _total(evidence.runs, name) for name in ("lines", "new", "duplicate", "rejected")}
    rejected = sum(evidence.rejects_by_reason.values())
    failed = sum(execution.status in ("FAILED", "TIMED_OUT", "ABORTED") for execution in evidence.executions)
    ages = _readable_after(evidence)
    largest = max((query.scanned_bytes for query in evidence.queries), default=0)
    table_bytes = sum(partition.size_bytes for partition in evidence.partitions)
    files = sum(partition.files for partition in evidence.partitions)
    green = sum(step.is_green for step in evidence.checklist)
    return [
        Fact("checklist", f"{green} of {len(evidence.checklist)}", "steps are green"),
        Fact(
            "readings stored",
            f"{counts['new']:,}",
            f"of {counts['lines']:,} lines, {counts['duplicate']:,} repeats; {size_text(evidence.raw_bytes)} of gzip",
        ),
        Fact("rejects", f"{rejected:,}", f"for {len(evidence.rejects_by_reason):,} reasons, days in UTC"),
        Fact(
            "executions", f"{len(evidence.executions):,}", f"{failed:,} failed; {len(evidence.runs):,} runs of the job"
        ),
        Fact(
            "newest reading",
            seconds_text(ages[-1][1]) if ages else "none",
            "old when the last run had stored it" if ages else "no run stored any",
        ),
        Fact("the table", size_text(table_bytes), f"in {files:,} files of {len(evidence.partitions):,} days"),
        Fact("largest scan", size_text(largest), f"by one of {len(evidence.queries):,} queries"),
    ]


def _total(runs: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(run["counts"][name] for run in runs)


def _readable_after(evidence: Evidence) -> list[Point]:
    """Return how old the newest reading was at the end of each run that stored any, in seconds."""
    found = []
    for run in evidence.runs:
        if run["counts"]["new"]:
            finished = datetime.fromisoformat(run["finished_at"])
            newest = datetime.fromisoformat(run["event_time"]["max"])
            found.append((finished, (finished - newest).total_seconds()))
    return found


def sections(evidence: Evidence) -> list[Section]:
    """Return the parts of the page, in the order in which they are read."""
    start, end = _axis(evidence)

    def over_time(title: str, series: Sequence[Series], unit: str = COUNT, more: Sequence[Line] = ()) -> TimeChart:
        lines = [Line(each.plot.label, each.points, each.plot.on_right_axis) for each in series]
        return TimeChart(title, (*lines, *more), start, end, unit)

    checklist = Section(
        "Checklist",
        "The seven steps of the way of a reading, each with what was measured: tlake verify.",
        table=_checklist(evidence),
    )
    readable = Line("in the table (newest)", tuple(_readable_after(evidence)))
    return [
        checklist,
        Section(
            "Readings",
            "Accepted readings come steadily, rejected ones hardly ever; what is delivered is hardly older than the "
            "buffers, and a run leaves the newest reading not much older than its window and itself.",
            (
                over_time("Readings by the transform, a minute", evidence.throughput),
                over_time("Age of readings", [evidence.delivery_ages], SECONDS, [readable]),
            ),
        ),
        Section(
            "Rejects",
            "Each is kept with its reason: tlake dlq show. A reason that grows suddenly is a device that changed.",
            (_rejects(evidence),),
        ),
        Section(
            "The job",
            "Its time follows what it loads, not what the table holds; a day has few files.",
            (_seconds_by_step(evidence), _files(evidence)),
        ),
        Section(
            "Athena",
            "A query that names a day scans that day alone.",
            (_scans(evidence),),
            _query_table(evidence),
        ),
        Section("Executions", "They succeed; one that failed may be redriven.", table=_execution_table(evidence)),
        Section(
            "Dashboard",
            "The widgets of the stack's CloudWatch dashboard, in the order of the data; each title says what is well. "
            "The alarms are as they were when this page was made.",
            tuple(over_time(widget.title, widget.series) for widget in evidence.widgets),
            _alarm_table(evidence),
        ),
    ]


def _checklist(evidence: Evidence) -> Table:
    rows = [
        (f"{step.number}", step.name, step.verdict, "; ".join((*step.finding.faults, *step.finding.evidence)))
        for step in evidence.checklist
    ]
    return Table(("step", "what", "verdict", "evidence"), tuple(rows), numeric=4)


def _axis(evidence: Evidence) -> tuple[datetime, datetime]:
    """Return the part of the period in which something happened, the same for all charts."""
    series = (
        *evidence.throughput,
        evidence.delivery_ages,
        *(each for widget in evidence.widgets for each in widget.series),
    )
    moments = [moment for each in series for moment, _ in each.points]
    moments += [datetime.fromisoformat(run["finished_at"]) for run in evidence.runs]
    end = evidence.period.end
    earliest = min(moments, default=evidence.period.start)
    return min(earliest, end - SHORTEST_AXIS), end


def _rejects(evidence: Evidence) -> BarChart:
    by_count = sorted(evidence.rejects_by_reason.items(), key=lambda item: (-item[1], item[0]))
    return BarChart(
        "Rejects by reason",
        "reason",
        tuple(reason for reason, _ in by_count),
        {"rejects": tuple(count for _, count in by_count)},
        horizontal=True,
    )


def _seconds_by_step(evidence: Evidence) -> BarChart:
    runs = evidence.runs[-NEWEST_RUNS:]
    steps = list(dict.fromkeys(step for run in runs for step in run["seconds_by_step"]))
    return BarChart(
        "Seconds of each run, by step",
        "run",
        tuple(f"{datetime.fromisoformat(run['started_at']):%m-%d %H:%M} {run['mode']}" for run in runs),
        {step: tuple(run["seconds_by_step"].get(step, 0.0) for run in runs) for step in steps},
        SECONDS,
    )


def _files(evidence: Evidence) -> BarChart:
    newest = evidence.partitions[-NEWEST_PARTITIONS:]
    return BarChart(
        "Files of each partition",
        "day",
        tuple(partition.day for partition in newest),
        {"files": tuple(partition.files for partition in newest)},
    )


def _scans(evidence: Evidence) -> BarChart:
    return BarChart(
        "Bytes scanned by each query",
        "query",
        tuple(f"{query.submitted:%m-%d %H:%M:%S}" for query in evidence.queries),
        {"scanned": tuple(query.scanned_bytes for query in evidence.queries)},
        BYTES,
    )


def _query_table(evidence: Evidence) -> Table:
    rows = [
        (
            moment_text(query.submitted),
            query.execution_id[:8],
            query.state,
            " ".join(query.sql.split())[:SQL_CHARACTERS],
            f"{query.scanned_bytes:,}",
        )
        for query in reversed(evidence.queries)
    ]
    return Table(("UTC", "query", "state", "SQL", "bytes scanned"), tuple(rows), numeric=4)


def _alarm_table(evidence: Evidence) -> Table:
    rows = [(alarm.name, alarm.state, moment_text(alarm.since), alarm.reason) for alarm in evidence.alarms]
    return Table(("alarm", "state", "since (UTC)", "why"), tuple(rows), numeric=4)


def _execution_table(evidence: Evidence) -> Table:
    rows = [
        (
            moment_text(execution.started),
            execution.name,
            execution.trigger,
            execution.status,
            f"{len(execution.object_keys):,}",
            f"{execution.seconds:,.1f}",
        )
        for execution in evidence.executions
    ]
    return Table(("UTC", "execution", "started by", "status", "raw objects", "seconds"), tuple(rows), numeric=4)
