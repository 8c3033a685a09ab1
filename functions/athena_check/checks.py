"""The checks: SQL files with an expectation each, and what their answers mean.

A file in ``checks/`` holds one query that answers one number, and a line ``-- expectation: equals 0`` (or ``at_most``)
that says what it must be. ``${name}`` stands for a value of the run: the table, the touched partitions, the run's id.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template

from athena_check.settings import Settings
from athena_check.summary import RunSummary, TouchedDay

CHECKS_DIRECTORY = Path(__file__).parent / "checks"


class _QueryTemplate(Template):
    """A template with braces only: Athena's own ``"$path"`` is text."""

    pattern = r"\$\{(?P<braced>[a-z_]+)\}|(?P<escaped>(?!))|(?P<named>(?!))|(?P<invalid>(?!))"  # type: ignore[assignment]


_EXPECTATION = re.compile(r"^-- expectation: (?P<comparison>equals|at_most) (?P<bound>\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a number must be: ``equals`` or ``at_most`` a bound."""

    comparison: str
    bound: int

    def is_met_by(self, value: int) -> bool:
        """Whether a value is as expected."""
        return value == self.bound if self.comparison == "equals" else value <= self.bound

    def __str__(self) -> str:
        return f"{self.comparison} {self.bound}"


@dataclass(frozen=True, slots=True)
class Check:
    """One query and what its number must be."""

    name: str
    query: str
    expectation: Expectation


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check came to.

    Attributes:
        name: the check's name.
        passed: whether the value was as expected.
        value: the number that was found; None when the query gave none.
        expectation: what it had to be.
        scanned_bytes: bytes that Athena read for it.
        error: why the query gave no number, else None.
    """

    name: str
    passed: bool
    value: int | None
    expectation: str
    scanned_bytes: int
    error: str | None = None

    def to_answer(self) -> dict[str, str | int | bool | None]:
        """The result as the function answers it; ``error`` only where there is one."""
        fields = asdict(self)
        return fields if self.error else {name: value for name, value in fields.items() if name != "error"}


class AthenaCheckFailed(Exception):  # noqa: N818 - the state machine knows the error by this name
    """At least one check failed; the message holds every result as JSON."""

    def __init__(self, results: Sequence[CheckResult]) -> None:
        failed = ", ".join(result.name for result in results if not result.passed)
        answers = json.dumps([result.to_answer() for result in results])
        super().__init__(f"failed: {failed}; all results: {answers}")
        self.results = tuple(results)


def load_checks(summary: RunSummary, settings: Settings, directory: Path = CHECKS_DIRECTORY) -> tuple[Check, ...]:
    """The checks of a run, in the order of their file names; none when the run touched no partition.

    Args:
        summary: the run.
        settings: table and limits.
        directory: where the SQL files are.

    Raises:
        ValueError: a file has no expectation, or uses a name that has no value.
    """
    if not summary.days:
        return ()
    values = _query_values(summary, settings)
    return tuple(_load_check(path, values) for path in sorted(directory.glob("*.sql")))


def check_summary(summary: RunSummary) -> CheckResult | None:
    """Whether the summary adds up; None when its list of partitions was cut, so that it cannot."""
    if not summary.lists_all_days:
        return None
    return judge_value("summary_adds_up", summary.listed_new, Expectation("equals", summary.new), 0)


def check_scanned_bytes(results: Sequence[CheckResult], budget: int) -> CheckResult:
    """Whether the checks together stayed within their budget: partitions that stop pruning show here first."""
    scanned_bytes = sum(result.scanned_bytes for result in results)
    return judge_value("scanned_bytes", scanned_bytes, Expectation("at_most", budget), 0)


def judge_value(name: str, value: int, expectation: Expectation, scanned_bytes: int) -> CheckResult:
    """The result of a check whose query gave a number."""
    return CheckResult(name, expectation.is_met_by(value), value, str(expectation), scanned_bytes)


def judge_failure(check: Check, error: str, scanned_bytes: int) -> CheckResult:
    """The result of a check whose query gave none: what cannot be checked has not passed."""
    return CheckResult(check.name, False, None, str(check.expectation), scanned_bytes, error)


def _load_check(path: Path, values: Mapping[str, str]) -> Check:
    text = _QueryTemplate(path.read_text("utf-8")).substitute(values)
    expectation = _EXPECTATION.search(text)
    if not expectation:
        raise ValueError(f"{path.name} has no line '-- expectation: equals <number>'")
    query = "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip()
    return Check(path.stem, query, Expectation(expectation["comparison"], int(expectation["bound"])))


def _query_values(summary: RunSummary, settings: Settings) -> dict[str, str]:
    return {
        "table": f'"{settings.table}"',
        "touched_days": days_predicate(summary.days),
        "job_run_id": summary.job_run_id,
        "listed_new": str(summary.listed_new),
        "temperature_min": repr(settings.temperature_min),
        "temperature_max": repr(settings.temperature_max),
    }


def days_predicate(days: Sequence[TouchedDay]) -> str:
    """A condition on the partition columns, with literals only, so that Athena reads those partitions and no other.

    The days of a month share a term: a batch of a year would otherwise have a query of hundreds of terms.
    https://docs.aws.amazon.com/athena/latest/ug/partitions.html
    """
    by_month: dict[tuple[int, int], list[int]] = {}
    for day in sorted(days, key=lambda day: (day.year, day.month, day.day)):
        by_month.setdefault((day.year, day.month), []).append(day.day)
    return " OR ".join(
        f"(year = {year} AND month = {month} AND day IN ({', '.join(map(str, numbers))}))"
        for (year, month), numbers in by_month.items()
    )
