"""The checks: SQL files with an expectation and a severity each, and what their answers mean.

A file in ``checks/`` holds one query that answers one number, below lines that say what it is for:

* ``-- when: load, empty_load, day``: after a load of readings, after one without any, on a day that is over;
* ``-- severity: stop`` fails the execution, ``warn`` raises a warning, ``record`` only keeps the number;
* ``-- expectation: equals 0`` or ``at_most 5``: what the number must be.

``${name}`` stands for a value of the occasion (`query_values`) or a threshold of the environment
(`athena_check.settings.Settings.thresholds`), also in the expectation. A new file is a new check: it is run, judged and
counted by its name without a change of code.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from string import Template

from athena_check.occasion import Occasion, days_predicate
from athena_check.settings import Settings

CHECKS_DIRECTORY = Path(__file__).parent / "checks"


class _QueryTemplate(Template):
    """A template with braces only: Athena's own ``"$path"`` is text."""

    pattern = r"\$\{(?P<braced>[a-z_]+)\}|(?P<escaped>(?!))|(?P<named>(?!))|(?P<invalid>(?!))"  # type: ignore[assignment]


_HEADER = re.compile(r"^-- (?P<name>when|severity|expectation): (?P<text>.+)$", re.MULTILINE)
_EXPECTATION = re.compile(r"(?P<comparison>equals|at_most) (?P<bound>-?\d+(?:\.\d+)?)")


class Severity(StrEnum):
    """What follows from a check that has not passed."""

    STOP = "stop"
    WARN = "warn"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a number must be: ``equals`` or ``at_most`` a bound."""

    comparison: str
    bound: float

    def is_met_by(self, value: float) -> bool:
        """Whether a value is as expected."""
        return value == self.bound if self.comparison == "equals" else value <= self.bound

    def __str__(self) -> str:
        return f"{self.comparison} {_number_text(self.bound)}"


@dataclass(frozen=True, slots=True)
class Check:
    """One query, what its number must be, and what follows if it is not."""

    name: str
    query: str
    expectation: Expectation
    severity: Severity


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check came to.

    Attributes:
        name: the check's name.
        severity: what follows if it has not passed.
        passed: whether the value was as expected.
        value: the number that was found; None when the query gave none.
        expectation: what it had to be.
        scanned_bytes: bytes that Athena read for it.
        error: why the query gave no number, else None.
    """

    name: str
    severity: Severity
    passed: bool
    value: float | None
    expectation: str
    scanned_bytes: int
    error: str | None = None

    def to_answer(self) -> dict[str, str | float | bool | None]:
        """The result as the function answers it; ``error`` only where there is one."""
        fields = asdict(self)
        return fields if self.error else {name: value for name, value in fields.items() if name != "error"}


class AthenaCheckFailed(Exception):  # noqa: N818 - the state machine knows the error by this name
    """At least one check of severity ``stop`` has not passed; the message holds every result as JSON."""

    def __init__(self, results: Sequence[CheckResult]) -> None:
        failed = ", ".join(result.name for result in not_passed(results, Severity.STOP))
        answers = json.dumps([result.to_answer() for result in results])
        super().__init__(f"failed: {failed}; all results: {answers}")
        self.results = tuple(results)


def not_passed(results: Sequence[CheckResult], severity: Severity) -> list[CheckResult]:
    """The results of one severity that are not as expected."""
    return [result for result in results if result.severity is severity and not result.passed]


def load_checks(occasion: Occasion, settings: Settings, directory: Path = CHECKS_DIRECTORY) -> tuple[Check, ...]:
    """The checks of an occasion, in the order of their file names.

    Args:
        occasion: a load, or days that are over.
        settings: tables and thresholds.
        directory: where the SQL files are.

    Raises:
        ValueError: a file lacks a line that says what it is for, or uses a name that has no value on its occasion.
    """
    values = query_values(occasion, settings)
    checks = (_load_check(path, occasion.name, values) for path in sorted(directory.glob("*.sql")))
    return tuple(check for check in checks if check is not None)


def check_summary(occasion: Occasion) -> CheckResult | None:
    """Whether a run's summary adds up; None for days, and where its list of partitions was cut so that it cannot."""
    run = occasion.run
    if run is None or not run.lists_all_days:
        return None
    return judge_value(Check("summary_adds_up", "", Expectation("equals", run.new), Severity.STOP), run.listed_new, 0)


def check_scanned_bytes(results: Sequence[CheckResult], budget: int) -> CheckResult:
    """Whether the checks together stayed within their budget: partitions that stop pruning show here first."""
    scanned_bytes = sum(result.scanned_bytes for result in results)
    return judge_value(Check("scanned_bytes", "", Expectation("at_most", budget), Severity.WARN), scanned_bytes, 0)


def judge_value(check: Check, value: float, scanned_bytes: int) -> CheckResult:
    """The result of a check whose query gave a number."""
    passed = check.expectation.is_met_by(value)
    return CheckResult(check.name, check.severity, passed, value, str(check.expectation), scanned_bytes)


def judge_failure(check: Check, error: str, scanned_bytes: int) -> CheckResult:
    """The result of a check whose query gave none: what cannot be checked has not passed."""
    return CheckResult(check.name, check.severity, False, None, str(check.expectation), scanned_bytes, error)


def _load_check(path: Path, occasion_name: str, values: Mapping[str, str]) -> Check | None:
    source = path.read_text("utf-8")
    header = {match["name"]: match["text"].strip() for match in _HEADER.finditer(source)}
    if header.keys() != {"when", "severity", "expectation"}:
        raise ValueError(
            f"{path.name} must have the lines '-- when: load, empty_load, day', '-- severity: stop' (or warn, record) "
            "and '-- expectation: equals <number>' (or at_most)"
        )
    if occasion_name not in re.split(r", *", header["when"]):
        return None
    try:
        expectation = _EXPECTATION.fullmatch(_QueryTemplate(header["expectation"]).substitute(values))
        query = _QueryTemplate(_HEADER.sub("", source)).substitute(values)
    except KeyError as missing:
        raise ValueError(f"{path.name} uses {missing}, which has no value for the occasion {occasion_name!r}") from None
    if expectation is None:
        raise ValueError(f"{path.name} expects {header['expectation']!r}: neither 'equals' nor 'at_most' a number")
    return Check(
        name=path.stem,
        query="\n".join(line for line in query.splitlines() if not line.startswith("--")).strip(),
        expectation=Expectation(expectation["comparison"], float(expectation["bound"])),
        severity=Severity(header["severity"]),
    )


def query_values(occasion: Occasion, settings: Settings) -> dict[str, str]:
    """What ``${name}`` may stand for in a file, beside the thresholds.

    Always: the tables; the limits of the policy; and, but for an empty load, ``days``, a condition on the partition
    columns. After a load, also an empty one:
    ``files``, a condition that holds for the rows of the run's files; ``listed_new``, their number by the summary;
    ``started_at``, the run's start in UTC; ``recent_days``, a condition for that day and the one before.
    """
    values = {
        **settings.thresholds,
        "table": f'"{settings.table}"',
        "rejects_table": f'"{settings.rejects_table}"',
        "temperature_min": repr(settings.temperature_min),
        "temperature_max": repr(settings.temperature_max),
    }
    if occasion.days:
        values["days"] = days_predicate(occasion.days)
    run = occasion.run
    if run is None:
        return values
    return values | {
        "files": f"""strpos("$path", '/{run.job_run_id}-') > 0""",
        "listed_new": str(run.listed_new),
        "started_at": f"{run.started_at:%Y-%m-%d %H:%M:%S}",
        "recent_days": days_predicate(occasion.recent_days),
    }


def _number_text(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)
