"""The Athena check: what is asked, what the answers mean, and that a failed check fails by name."""

import functools
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
import sqlglot

from athena_check.athena import AthenaQueries
from athena_check.checks import (
    CHECKS_DIRECTORY,
    AthenaCheckFailed,
    Check,
    Expectation,
    Severity,
    check_summary,
    load_checks,
)
from athena_check.occasion import Occasion, UnusableDaysError, days_predicate, read_occasion
from athena_check.settings import Settings
from athena_check.summary import UnusableSummaryError, read_summary
from tests.contracts.fakes import client_answered_by

SETTINGS = Settings(
    stage="prod",
    metrics_namespace="TelemetryLake",
    workgroup="temperature-analytics",
    database="temperature_lake",
    table="device_telemetry",
    rejects_table="rejected_readings",
    partition_time_zone=ZoneInfo("UTC"),
    query_timeout_seconds=5,
    scanned_bytes_budget=1_000_000,
    temperature_min=-100.0,
    temperature_max=200.0,
    thresholds={
        "max_reading_age_seconds": "7200",
        "late_after_hours": "24",
        "max_late_percent": "10",
        "max_open_rejects_percent": "5",
    },
)
NOW = datetime(2026, 10, 16, 3, 30, tzinfo=UTC)

ANSWERS = {"is_nan": 0, "count_if": 0, "strpos": 4}
"""A number for each query of the sample load, whose four rows are there; the first text that a query has decides."""


class FakeAthena:
    """Answers each query with a number found by a part of its text; remembers what it was asked."""

    def __init__(
        self, answers: Mapping[str, float | str], scanned_bytes: int = 1000, unfinished_polls: int = 1
    ) -> None:
        self.answers = answers
        self.scanned_bytes = scanned_bytes
        self.unfinished_polls = unfinished_polls
        self.started: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.polls: dict[str, int] = {}

    def start_query_execution(self, **request: Any) -> dict[str, str]:
        self.started.append(request)
        return {"QueryExecutionId": str(len(self.started) - 1)}

    def get_query_execution(self, *, QueryExecutionId: str) -> dict[str, Any]:  # noqa: N803 - the API's own name
        self.polls[QueryExecutionId] = self.polls.get(QueryExecutionId, 0) + 1
        answer = self._answer(QueryExecutionId)
        if self.polls[QueryExecutionId] <= self.unfinished_polls:
            return {"QueryExecution": {"Status": {"State": "RUNNING"}}}
        status = (
            {"State": "SUCCEEDED"}
            if isinstance(answer, int | float)
            else {"State": "FAILED", "StateChangeReason": answer}
        )
        return {"QueryExecution": {"Status": status, "Statistics": {"DataScannedInBytes": self.scanned_bytes}}}

    def get_query_results(self, *, QueryExecutionId: str, MaxResults: int) -> dict[str, Any]:  # noqa: N803
        rows = [
            {"Data": [{"VarCharValue": "value"}]},
            {"Data": [{"VarCharValue": str(self._answer(QueryExecutionId))}]},
        ]
        return {"ResultSet": {"Rows": rows[:MaxResults]}}

    def stop_query_execution(self, *, QueryExecutionId: str) -> dict[str, Any]:  # noqa: N803
        self.stopped.append(QueryExecutionId)
        return {}

    def _answer(self, query_id: str) -> float | str:
        query = self.started[int(query_id)]["QueryString"]
        return next((answer for part, answer in self.answers.items() if part in query), 0)


def queries_of(athena: FakeAthena, timeout_seconds: float = 5) -> AthenaQueries:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    client = client_answered_by("athena", athena)
    return AthenaQueries(client, "temperature-analytics", "temperature_lake", timeout_seconds, sleep, lambda: now[0])


def summary_event(**changes: Any) -> dict[str, Any]:
    summary = {
        "job_run_id": "jr_1",
        "mode": "load",
        "started_at": "2026-10-15T03:20:00Z",
        "finished_at": "2026-10-15T03:22:31.5Z",
        "counts": {"new": 3, "rejected": 2},
        "partitions": [
            {"year": 2026, "month": 10, "day": 15, "new": 2, "duplicate": 0},
            {"year": 2026, "month": 10, "day": 1, "new": 1, "duplicate": 4},
        ],
        "partition_count": 2,
        **changes,
    }
    return {"execution": "name", "summary": summary}


def load(**changes: Any) -> Occasion:
    return read_occasion(summary_event(**changes), SETTINGS.partition_time_zone, NOW)


def days(*texts: str, zone: str = "UTC") -> Occasion:
    return read_occasion({"execution": "name", "days": list(texts)}, ZoneInfo(zone), NOW)


# ---------------------------------------------------------------- what is asked


def test_partitions_are_named_by_literals_so_that_they_prune() -> None:
    # WHEN
    predicate = days_predicate([date(2026, 10, 15), date(2025, 1, 2), date(2026, 10, 3), date(2026, 10, 15)])

    # THEN the days of a month share a term
    assert predicate == "(year = 2025 AND month = 1 AND day IN (2)) OR (year = 2026 AND month = 10 AND day IN (3, 15))"


BY_OCCASION = {
    "load": {
        "duplicate_readings": Severity.STOP,
        "freshness": Severity.RECORD,
        "late_share": Severity.WARN,
        "missing_values": Severity.STOP,
        "rows_of_the_run": Severity.STOP,
        "values_in_range": Severity.STOP,
    },
    "empty_load": {"freshness": Severity.RECORD},
    "day": {
        "day_without_readings": Severity.WARN,
        "duplicate_readings": Severity.STOP,
        "missing_values": Severity.STOP,
        "open_rejects": Severity.WARN,
        "values_in_range_of_day": Severity.WARN,
    },
}


@pytest.mark.parametrize("occasion", [load(), days("2026-10-01", "2026-10-15")], ids=["load", "day"])
def test_every_query_is_sql_that_names_the_partitions(occasion: Occasion) -> None:
    # WHEN
    checks = load_checks(occasion, SETTINGS)

    # THEN
    assert {check.name: check.severity for check in checks} == BY_OCCASION[occasion.name]
    for check in checks:
        sqlglot.parse_one(check.query, dialect="athena")
        concerned = "IN (14, 15)" if check.name == "freshness" else "IN (1, 15)"
        assert f"year = 2026 AND month = 10 AND day {concerned}" in check.query
        assert "${" not in check.query
        assert not check.query.startswith("--")


def test_the_rows_of_a_run_are_those_of_its_files() -> None:
    # WHEN
    rows = next(check for check in load_checks(load(), SETTINGS) if check.name == "rows_of_the_run")

    # THEN
    assert str(rows.expectation) == "equals 3"
    assert """strpos("$path", '/jr_1-') > 0""" in rows.query


@pytest.mark.parametrize(
    ("zone", "yesterday"),
    [
        ("UTC", date(2026, 10, 15)),
        ("Asia/Tokyo", date(2026, 10, 15)),
        ("America/Los_Angeles", date(2026, 10, 14)),
    ],
)
def test_no_days_stand_for_yesterday_where_the_partitions_are(zone: str, yesterday: date) -> None:
    # WHEN / THEN
    assert days(zone=zone) == Occasion("day", (yesterday,))


@pytest.mark.parametrize("given", ["2026-10-15", None, [20261015], ["20261015"], ["2026-10-32"], [["2026-10-15"]]])
def test_days_that_are_none_are_refused(given: Any) -> None:
    # WHEN / THEN
    with pytest.raises(UnusableDaysError, match="days must be a list"):
        read_occasion({"days": given}, ZoneInfo("UTC"), NOW)


@pytest.mark.parametrize(("zone", "today"), [("UTC", "2026-10-16"), ("America/New_York", "2026-10-15")])
def test_a_day_that_is_not_over_where_the_partitions_are_is_refused(zone: str, today: str) -> None:
    # GIVEN half past three in the morning, UTC, of 16 October
    with pytest.raises(UnusableDaysError, match=f"days of the table, in {zone}, that are over, so before {today}"):
        # WHEN / THEN
        days("2026-10-14", today, zone=zone)


def test_a_day_that_is_over_where_the_partitions_are_is_checked_though_it_goes_on_in_utc() -> None:
    # GIVEN one o'clock in the morning in Tokyo
    now = datetime(2026, 10, 15, 16, 0, tzinfo=UTC)

    # WHEN / THEN
    assert read_occasion({"days": ["2026-10-15"]}, ZoneInfo("Asia/Tokyo"), now).days == (date(2026, 10, 15),)


def test_a_run_that_touched_no_partition_asks_for_the_newest_reading_alone() -> None:
    # GIVEN
    event = summary_event(counts={"new": 0, "rejected": 0}, partitions=[], partition_count=0)

    # WHEN
    checks = load_checks(read_occasion(event, ZoneInfo("UTC"), NOW), SETTINGS)

    # THEN
    assert {check.name: check.severity for check in checks} == BY_OCCASION["empty_load"]
    assert "IN (14, 15)" in checks[0].query


def test_a_cut_list_of_partitions_is_compared_with_its_own_rows_only() -> None:
    # GIVEN a run that touched 5,000 partitions and lists two
    occasion = load(counts={"new": 9_000, "rejected": 0}, partition_count=5_000)

    # WHEN
    rows = next(check for check in load_checks(occasion, SETTINGS) if check.name == "rows_of_the_run")

    # THEN
    assert rows.expectation == Expectation("equals", 3)
    assert check_summary(occasion) is None


def test_a_whole_list_of_partitions_must_add_up() -> None:
    # WHEN
    result = check_summary(load(counts={"new": 4, "rejected": 0}))

    # THEN
    assert result is not None
    assert (result.passed, result.value, result.expectation) == (False, 3, "equals 4")


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"summary": "text"},
        summary_event(job_run_id="x' OR 1=1 --"),
        summary_event(counts={}),
        summary_event(counts={"new": -1, "rejected": 0}),
        summary_event(counts={"new": 3}),
        summary_event(started_at=None),
        summary_event(finished_at="2026-10-15T03:22:31"),
        summary_event(partitions=[{"year": 2026, "month": 13, "day": 1, "new": 1}]),
        summary_event(partitions=[{"year": "2026; DROP", "month": 1, "day": 1, "new": 1}]),
        summary_event(partitions=[{"year": 2026, "month": 1, "day": 1}]),
    ],
)
def test_an_event_without_a_usable_summary_is_refused(event: dict[str, Any]) -> None:
    # WHEN / THEN
    with pytest.raises(UnusableSummaryError):
        read_summary(event)


HEADER = """-- when: load
-- severity: stop
-- expectation: equals 0
"""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("SELECT 1 AS value", "must have the lines"),
        (HEADER.replace("-- severity: stop\n", ""), "must have the lines"),
        (HEADER.replace("equals 0", "about 7"), "neither 'equals' nor 'at_most' a number"),
        (HEADER.replace("stop", "shout"), "shout"),
        (HEADER + "SELECT ${unheard_of}", "unheard_of"),
        (HEADER.replace("load", "load, day").replace("0", "${listed_new}"), "no value for the occasion 'day'"),
    ],
)
def test_a_file_that_does_not_say_what_it_is_for_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    # GIVEN
    (tmp_path / "odd.sql").write_text(text, "utf-8")

    # WHEN / THEN
    occasion = days("2026-10-15") if "day" in complaint else load()
    with pytest.raises(ValueError, match=complaint):
        load_checks(occasion, SETTINGS, tmp_path)


@pytest.mark.parametrize(
    ("comparison", "value", "is_met"),
    [("equals", 3, True), ("equals", 2, False), ("equals", 4, False), ("at_most", 3, True), ("at_most", 4, False)],
)
def test_expectations(comparison: str, value: int, is_met: bool) -> None:
    # WHEN / THEN
    assert Expectation(comparison, 3).is_met_by(value) is is_met


FOUR_ROWS = {"rows_of_the_run": 4, "late_share": 25}
GOOD_ROW = ("a", 20.0, 1792034000.5, "2026-10-15 03:13:20.5", "s3://b/t/jr_1-0.snappy.parquet", 2026, 10, 15)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ((), {}),
        (GOOD_ROW, {"duplicate_readings": 1, **FOUR_ROWS}),
        # The neighbouring double is another reading.
        (("a", math.nextafter(20.0, 21.0), *GOOD_ROW[2:]), FOUR_ROWS),
        (("b", *GOOD_ROW[1:]), FOUR_ROWS),
        (("b", *GOOD_ROW[1:4], "s3://b/t/jr_10-0.snappy.parquet", *GOOD_ROW[5:]), {}),
        (("b", None, *GOOD_ROW[2:]), {"missing_values": 1, **FOUR_ROWS}),
        (("b", 200.5, *GOOD_ROW[2:]), {"values_in_range": 1, "values_in_range_of_day": 1, **FOUR_ROWS}),
        (("b", math.nan, *GOOD_ROW[2:]), {"values_in_range": 1, "values_in_range_of_day": 1, **FOUR_ROWS}),
        (("", *GOOD_ROW[1:]), {"values_in_range": 1, "values_in_range_of_day": 1, **FOUR_ROWS}),
        (
            ("b", 200.5, *GOOD_ROW[2:4], "s3://b/t/jr_0-0.snappy.parquet", *GOOD_ROW[5:]),
            {"values_in_range_of_day": 1},
        ),
        ((*GOOD_ROW[:7], 16), {}),
        # Three minutes before the run, and one day and a second before it.
        (
            ("b", *GOOD_ROW[1:3], "2026-10-15 03:17:00", *GOOD_ROW[4:]),
            {**FOUR_ROWS, "freshness": 180},
        ),
        (("b", *GOOD_ROW[1:3], "2026-10-14 03:19:59", *GOOD_ROW[4:]), {"rows_of_the_run": 4, "late_share": 50}),
    ],
)
def test_each_query_finds_what_it_is_for_and_nothing_else(row: tuple[Any, ...], found: dict[str, int]) -> None:
    # GIVEN a table with three good rows of the run, two of them on the 15th, and one more row
    connection = duckdb.connect()
    connection.execute(
        """CREATE TABLE device_telemetry (device_id VARCHAR, temperature DOUBLE, "timestamp" DOUBLE,
        event_time TIMESTAMP, "$path" VARCHAR, year INT, month INT, day INT)"""
    )
    old = ("a", 20.0, 1790824400.5, "2026-10-01 03:13:20.5", *GOOD_ROW[4:7], 1)
    rows = [GOOD_ROW, ("a", 20.5, *GOOD_ROW[2:]), old, *([row] if row else [])]
    connection.executemany("INSERT INTO device_telemetry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.execute(
        """CREATE TABLE rejected_readings (reject_id VARCHAR, device_id VARCHAR, temperature DOUBLE, "timestamp" DOUBLE,
        year INT, month INT, day INT)"""
    )

    # WHEN
    values = numbers(connection, load()) | numbers(connection, days("2026-10-01", "2026-10-15"))

    # THEN
    nothing = {
        "day_without_readings": 0,
        "duplicate_readings": 0,
        # Trino counts whole seconds, DuckDB the seconds' ends.
        "freshness": pytest.approx(399.5, abs=1),
        "late_share": pytest.approx(100 / 3),
        "missing_values": 0,
        "open_rejects": 0,
        "rows_of_the_run": 3,
        "values_in_range": 0,
        "values_in_range_of_day": 0,
    }
    assert values == nothing | found


def numbers(connection: duckdb.DuckDBPyConnection, occasion: Occasion) -> dict[str, float]:
    """What an occasion's queries answer."""
    values = {}
    for check in load_checks(occasion, SETTINGS):
        (query,) = sqlglot.transpile(check.query, read="athena", write="duckdb")
        answer = connection.execute(query).fetchone()
        assert answer is not None
        values[check.name] = float(answer[0])
    return values


def test_a_table_without_readings_is_told_and_not_divided_by() -> None:
    # GIVEN
    connection = duckdb.connect()
    columns = """device_id VARCHAR, temperature DOUBLE, "timestamp" DOUBLE, year INT, month INT, day INT"""
    connection.execute(f"""CREATE TABLE device_telemetry ({columns}, event_time TIMESTAMP, "$path" VARCHAR)""")
    connection.execute(f"CREATE TABLE rejected_readings ({columns}, reject_id VARCHAR)")

    # WHEN
    values = numbers(connection, load(counts={"new": 0, "rejected": 0})) | numbers(connection, days("2026-10-15"))

    # THEN
    assert {name: value for name, value in values.items() if value} == {
        "day_without_readings": 1,
        "freshness": 2 * 86_400,
    }


@pytest.mark.parametrize(
    ("rejects", "open_percent"),
    [
        ([], 0),
        # The same reject twice, as a batch that was cut anew writes it: one of four readings.
        ([("r1", "b", 300.0, 1792034000.5), ("r1", "b", 300.0, 1792034000.5)], 25),
        # One that cannot be read at all.
        ([("r2", None, None, None)], 25),
        # One whose reading was stored from another arrival is open no more.
        ([("r3", "a", 20.0, 1792034000.5)], 0),
        ([("r3", "a", 20.0, 1792034000.5), ("r2", None, None, None)], 25),
    ],
)
def test_rejects_are_open_as_long_as_their_reading_is_not_stored(
    rejects: list[tuple[Any, ...]], open_percent: float
) -> None:
    # GIVEN three readings of a day, one of them in two rows, and the day's rejects
    connection = duckdb.connect()
    connection.execute(
        """CREATE TABLE device_telemetry AS SELECT * FROM (VALUES ('a', 20::DOUBLE, 1792034000.5::DOUBLE),
        ('a', 21, 1792034000.5), ('c', 21, 1792034000.5), ('c', 21, 1792034000.5))
        AS rows(device_id, temperature, "timestamp"), (VALUES (2026, 10, 15)) AS parts(year, month, day)"""
    )
    connection.execute(
        """CREATE TABLE rejected_readings (reject_id VARCHAR, device_id VARCHAR, temperature DOUBLE, "timestamp" DOUBLE,
        year INT, month INT, day INT)"""
    )
    for reject in rejects:
        connection.execute("INSERT INTO rejected_readings VALUES (?, ?, ?, ?, 2026, 10, 15)", reject)

    # WHEN
    (check,) = (each for each in load_checks(days("2026-10-15"), SETTINGS) if each.name == "open_rejects")
    (query,) = sqlglot.transpile(check.query, read="athena", write="duckdb")
    answer = connection.execute(query).fetchone()

    # THEN
    assert answer == (open_percent,)


# ---------------------------------------------------------------- what the answers mean


def test_all_queries_are_started_before_any_is_waited_for() -> None:
    # GIVEN
    athena = FakeAthena({"SELECT 1": 1, "SELECT 2": 5})
    checks = [Check(f"check_{n}", f"SELECT {n} AS value", Expectation("equals", 1), Severity.STOP) for n in (1, 2)]

    # WHEN
    results = queries_of(athena).run(checks)

    # THEN
    assert [(result.name, result.passed, result.value) for result in results] == [
        ("check_1", True, 1),
        ("check_2", False, 5),
    ]
    assert athena.started[0]["WorkGroup"] == "temperature-analytics"
    assert athena.started[0]["QueryExecutionContext"] == {"Database": "temperature_lake"}


def test_a_query_that_fails_is_a_failed_check_with_its_reason() -> None:
    # GIVEN
    athena = FakeAthena({"SELECT": "Bytes scanned limit was exceeded"})

    # WHEN
    (result,) = queries_of(athena).run([Check("check", "SELECT 1", Expectation("equals", 1), Severity.STOP)])

    # THEN
    assert (result.passed, result.value, result.scanned_bytes) == (False, None, 1000)
    assert result.error is not None
    assert "Bytes scanned limit was exceeded" in result.error


def test_a_query_that_does_not_end_is_stopped_and_fails() -> None:
    # GIVEN
    athena = FakeAthena({}, unfinished_polls=10**6)

    # WHEN
    (result,) = queries_of(athena, timeout_seconds=2).run(
        [Check("check", "SELECT 1", Expectation("equals", 0), Severity.STOP)]
    )

    # THEN
    assert not result.passed
    assert athena.stopped == ["0"]
    assert athena.polls["0"] < 10


# ---------------------------------------------------------------- the handler


@pytest.fixture
def handler(load_handler: Callable[[str], ModuleType]) -> ModuleType:
    return load_handler("athena_check")


def test_a_table_as_the_summary_says_passes(
    handler: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    load_event: Callable[[str], dict[str, Any]],
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
) -> None:
    # GIVEN
    monkeypatch.setattr(handler, "queries", queries_of(FakeAthena({**ANSWERS, "date_diff": 399})))

    # WHEN
    answer = handler.handler(load_event("athena_check/load_with_new_rows.json"), lambda_context)

    # THEN
    assert answer["passed"] is True
    assert answer["warnings"] == []
    values: dict[str, Any] = {check["name"]: check["value"] for check in answer["checks"]}
    assert values == dict.fromkeys(BY_OCCASION["load"], 0) | {
        "summary_adds_up": 4,
        "freshness": 399,
        "rows_of_the_run": 4,
        "scanned_bytes": 6000,
    }
    for check in answer["checks"]:
        assert set(check) == {"name", "severity", "passed", "value", "expectation", "scanned_bytes"}
    metrics = emitted_metrics()
    assert metrics.pop(("TelemetryLake", "Stage=prod")) == {
        "CheckFailures": 0,
        "CheckWarnings": 0,
        "CheckScannedBytes": 6000,
        "RunRowsAdded": 4,
        "RunReadingsRejected": 0,
        "RunSeconds": 151,
    }
    assert metrics == {
        ("TelemetryLake", "Stage=prod", f"Check={name}"): {"CheckFailed": 0, "CheckValue": value}
        for name, value in values.items()
    }


def test_days_that_are_over_are_judged_without_a_run(
    handler: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    load_event: Callable[[str], dict[str, Any]],
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
) -> None:
    # GIVEN a day of which six percent is rejected and still open, as a number with a fraction
    athena = FakeAthena({"open_rejects": 6.25})
    monkeypatch.setattr(handler, "queries", queries_of(athena))

    # WHEN
    answer = handler.handler(load_event("athena_check/day_that_is_over.json"), lambda_context)

    # THEN it warns, and the execution goes on
    assert answer["passed"] is True
    assert answer["warnings"] == ["open_rejects"]
    assert {check["name"] for check in answer["checks"]} == {*BY_OCCASION["day"], "scanned_bytes"}
    assert all(
        "day IN (14)" in request["QueryString"] or "IN (13, 14)" in request["QueryString"] for request in athena.started
    )
    metrics = emitted_metrics()
    assert metrics["TelemetryLake", "Stage=prod"] == {
        "DayCheckFailures": 0,
        "DayCheckWarnings": 1,
        "CheckScannedBytes": 5000,
    }
    assert metrics["TelemetryLake", "Stage=prod", "Check=open_rejects"] == {"CheckFailed": 1, "CheckValue": 6.25}


def test_a_new_file_is_a_new_check_without_a_change_of_code(  # noqa: PLR0917 - most of them are fixtures
    handler: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    load_event: Callable[[str], dict[str, Any]],
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
    tmp_path: Path,
) -> None:
    # GIVEN the project's checks, one file more, and a threshold in the environment
    directory = shutil.copytree(CHECKS_DIRECTORY, tmp_path / "checks")
    (directory / "devices.sql").write_text(
        "-- At least some devices.\n-- when: load, day\n-- severity: warn\n-- expectation: at_most ${max_devices}\n"
        "SELECT approx_distinct(device_id) AS value FROM ${table} WHERE (${days})\n",
        "utf-8",
    )
    monkeypatch.setenv("CHECK_MAX_DEVICES", "2.5")
    monkeypatch.setattr(handler, "settings", Settings.from_environment(os.environ))
    monkeypatch.setattr(handler, "load_checks", functools.partial(load_checks, directory=directory))
    monkeypatch.setattr(handler, "queries", queries_of(FakeAthena({**ANSWERS, "approx_distinct": 3})))

    # WHEN
    answer = handler.handler(load_event("athena_check/load_with_new_rows.json"), lambda_context)

    # THEN it is asked, judged by its severity, and counted under its name
    (devices,) = (check for check in answer["checks"] if check["name"] == "devices")
    assert (devices["passed"], devices["value"], devices["expectation"]) == (False, 3, "at_most 2.5")
    assert answer["warnings"] == ["devices"]
    metrics = emitted_metrics()
    assert metrics["TelemetryLake", "Stage=prod", "Check=devices"] == {"CheckFailed": 1, "CheckValue": 3}
    assert metrics["TelemetryLake", "Stage=prod"]["CheckWarnings"] == 1


@pytest.mark.parametrize(
    ("answers", "scanned_bytes", "warnings"),
    [
        ({"count_if": 10.5}, 1, ["late_share"]),
        ({"count_if": 10}, 1, []),
        ({"count_if": 11}, 200_000, ["late_share", "scanned_bytes"]),
        ({"count_if": "Bytes scanned limit was exceeded"}, 1, ["late_share"]),
        # What is only recorded warns of nothing.
        ({"date_diff": 7201}, 1, []),
        ({"date_diff": "Table not found"}, 1, []),
    ],
)
def test_a_warning_lets_the_execution_go_on(  # noqa: PLR0917 - most of them are fixtures
    answers: dict[str, Any],
    scanned_bytes: int,
    warnings: list[str],
    handler: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    load_event: Callable[[str], dict[str, Any]],
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
) -> None:
    # GIVEN
    monkeypatch.setattr(handler, "queries", queries_of(FakeAthena({**answers, **ANSWERS, **answers}, scanned_bytes)))

    # WHEN
    answer = handler.handler(load_event("athena_check/load_with_new_rows.json"), lambda_context)

    # THEN
    assert answer["warnings"] == warnings
    metrics = emitted_metrics()
    totals = metrics["TelemetryLake", "Stage=prod"]
    assert (totals["CheckFailures"], totals["CheckWarnings"]) == (0, len(warnings))
    is_stale = int("date_diff" in answers)
    assert metrics["TelemetryLake", "Stage=prod", "Check=freshness"]["CheckFailed"] == is_stale


@pytest.mark.parametrize("text", [None, "", "many", "NaN"])
def test_an_answer_that_is_no_number_is_a_failed_check(text: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN
    athena = FakeAthena({"SELECT": 1})
    cell = {} if text is None else {"VarCharValue": text}
    rows = [{"Data": [{"VarCharValue": "value"}]}, {"Data": [cell]}]
    monkeypatch.setattr(athena, "get_query_results", lambda **_: {"ResultSet": {"Rows": rows}})

    # WHEN
    (result,) = queries_of(athena).run([Check("check", "SELECT 1", Expectation("equals", 1), Severity.STOP)])

    # THEN
    assert (result.passed, result.value) == (False, None)
    assert "no number" in str(result.error)


@pytest.mark.parametrize("rows_there", [4, 3])
def test_what_an_audit_adds_is_a_metric_of_its_own_also_when_a_check_fails(  # noqa: PLR0917 - most are fixtures
    rows_there: int,
    handler: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    load_event: Callable[[str], dict[str, Any]],
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
) -> None:
    # GIVEN an audit that has stored four rows
    monkeypatch.setattr(handler, "queries", queries_of(FakeAthena({**ANSWERS, "strpos": rows_there})))
    event = load_event("athena_check/load_with_new_rows.json")
    event["summary"]["mode"] = "audit"

    # WHEN
    with nullcontext() if rows_there == 4 else pytest.raises(AthenaCheckFailed):
        handler.handler(event, lambda_context)

    # THEN
    assert emitted_metrics()["TelemetryLake", "Stage=prod"]["AuditRowsAdded"] == 4


def test_a_run_without_lines_tells_silent_producers_and_takes_no_failure_back(
    handler: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    load_event: Callable[[str], dict[str, Any]],
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
) -> None:
    # GIVEN a table without a reading on two days
    athena = FakeAthena({"date_diff": 172_800})
    monkeypatch.setattr(handler, "queries", queries_of(athena))

    # WHEN
    answer = handler.handler(load_event("athena_check/load_without_lines.json"), lambda_context)

    # THEN
    assert answer["passed"] is True
    assert len(athena.started) == 1
    metrics = emitted_metrics()
    assert metrics["TelemetryLake", "Stage=prod", "Check=freshness"] == {"CheckFailed": 1, "CheckValue": 172_800}
    assert not metrics["TelemetryLake", "Stage=prod"].keys() & {"CheckFailures", "CheckWarnings"}


@pytest.mark.parametrize(
    ("answers", "scanned_bytes", "failed"),
    [
        ({"strpos": 3}, 1, "rows_of_the_run"),
        ({"HAVING": 2}, 1, "duplicate_readings"),
        ({"is_nan": 1}, 1, "values_in_range"),
        ({"IS NULL": 1}, 1, "missing_values"),
        ({"IS NULL": "Access denied"}, 1, "missing_values"),
    ],
)
def test_a_failed_check_raises_with_every_result(  # noqa: PLR0917 - most of them are fixtures
    answers: dict[str, Any],
    scanned_bytes: int,
    failed: str,
    handler: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    load_event: Callable[[str], dict[str, Any]],
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
) -> None:
    # GIVEN
    monkeypatch.setattr(handler, "queries", queries_of(FakeAthena({**ANSWERS, **answers}, scanned_bytes)))

    # WHEN
    with pytest.raises(AthenaCheckFailed) as raised:
        handler.handler(load_event("athena_check/load_with_new_rows.json"), lambda_context)

    # THEN
    message = str(raised.value)
    assert message.startswith(f"failed: {failed};")
    results = json.loads(message.partition("all results: ")[2])
    assert [result["name"] for result in results if not result["passed"]] == [failed]
    assert len(results) == 8
    assert emitted_metrics()["TelemetryLake", "Stage=prod"]["CheckFailures"] == 1


def test_a_table_name_that_is_no_catalog_name_is_refused() -> None:
    # GIVEN
    variables = {
        "STAGE": "prod",
        "POWERTOOLS_METRICS_NAMESPACE": "TelemetryLake",
        "ATHENA_WORKGROUP": "w",
        "GLUE_DATABASE": "d",
        "TABLE_NAME": 't" WHERE 1=1 --',
        "REJECTS_TABLE_NAME": "rejected_readings",
        "PARTITION_TIME_ZONE": "Asia/Tokyo",
        "QUERY_TIMEOUT_SECONDS": "5",
        "SCANNED_BYTES_BUDGET": "1",
        "TEMPERATURE_MIN": "0",
        "TEMPERATURE_MAX": "1",
    }

    # WHEN / THEN
    with pytest.raises(ValueError, match="TABLE_NAME"):
        Settings.from_environment(variables)
    with pytest.raises(ValueError, match="QUERY_TIMEOUT_SECONDS"):
        Settings.from_environment({**variables, "QUERY_TIMEOUT_SECONDS": "0"})
    with pytest.raises(ValueError, match="REJECTS_TABLE_NAME"):
        Settings.from_environment({**variables, "TABLE_NAME": "t", "REJECTS_TABLE_NAME": "r; DROP"})
    with pytest.raises(ValueError, match=r"PARTITION_TIME_ZONE.*CHECK_LIMIT"):
        Settings.from_environment({**variables, "PARTITION_TIME_ZONE": "Asia/Atlantis", "CHECK_LIMIT": "1 OR 1=1"})
