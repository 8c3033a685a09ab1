"""The Athena check: what is asked, what the answers mean, and that a failed check fails by name."""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest
import sqlglot

from athena_check.athena import AthenaQueries
from athena_check.checks import (
    AthenaCheckFailed,
    Check,
    Expectation,
    check_summary,
    days_predicate,
    load_checks,
)
from athena_check.settings import Settings
from athena_check.summary import TouchedDay, UnusableSummaryError, read_summary
from tests.contracts.fakes import client_answered_by

SETTINGS = Settings(
    stage="prod",
    metrics_namespace="TelemetryLake",
    workgroup="temperature-analytics",
    database="temperature_lake",
    table="device_telemetry",
    query_timeout_seconds=5,
    scanned_bytes_budget=1_000_000,
    temperature_min=-100.0,
    temperature_max=200.0,
)


class FakeAthena:
    """Answers each query with a number found by a part of its text; remembers what it was asked."""

    def __init__(self, answers: Mapping[str, int | str], scanned_bytes: int = 1000, unfinished_polls: int = 1) -> None:
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
        status = {"State": "SUCCEEDED"} if isinstance(answer, int) else {"State": "FAILED", "StateChangeReason": answer}
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

    def _answer(self, query_id: str) -> int | str:
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
        "counts": {"new": 3},
        "partitions": [
            {"year": 2026, "month": 10, "day": 15, "new": 2, "duplicate": 0},
            {"year": 2026, "month": 10, "day": 1, "new": 1, "duplicate": 4},
        ],
        "partition_count": 2,
        **changes,
    }
    return {"execution": "name", "summary": summary}


# ---------------------------------------------------------------- what is asked


def test_partitions_are_named_by_literals_so_that_they_prune() -> None:
    # WHEN
    days = [TouchedDay(2026, 10, 15, 1), TouchedDay(2025, 1, 2, 0), TouchedDay(2026, 10, 3, 1)]
    predicate = days_predicate(days)

    # THEN the days of a month share a term
    assert predicate == "(year = 2025 AND month = 1 AND day IN (2)) OR (year = 2026 AND month = 10 AND day IN (3, 15))"


def test_every_query_is_sql_that_names_the_touched_partitions() -> None:
    # WHEN
    checks = load_checks(read_summary(summary_event()), SETTINGS)

    # THEN
    assert [check.name for check in checks] == [
        "duplicate_readings",
        "missing_values",
        "rows_of_the_run",
        "values_in_range",
    ]
    for check in checks:
        sqlglot.parse_one(check.query, dialect="athena")
        assert "year = 2026 AND month = 10 AND day IN (1, 15)" in check.query
        assert "${" not in check.query
    rows = next(check for check in checks if check.name == "rows_of_the_run")
    assert str(rows.expectation) == "equals 3"
    assert """strpos("$path", '/jr_1-') > 0""" in rows.query


def test_a_run_that_touched_no_partition_asks_nothing() -> None:
    # GIVEN
    event = summary_event(counts={"new": 0}, partitions=[], partition_count=0)

    # WHEN / THEN
    assert load_checks(read_summary(event), SETTINGS) == ()


def test_a_cut_list_of_partitions_is_compared_with_its_own_rows_only() -> None:
    # GIVEN a run that touched 5,000 partitions and lists two
    summary = read_summary(summary_event(counts={"new": 9_000}, partition_count=5_000))

    # WHEN
    rows = next(check for check in load_checks(summary, SETTINGS) if check.name == "rows_of_the_run")

    # THEN
    assert rows.expectation == Expectation("equals", 3)
    assert check_summary(summary) is None


def test_a_whole_list_of_partitions_must_add_up() -> None:
    # WHEN
    result = check_summary(read_summary(summary_event(counts={"new": 4})))

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
        summary_event(counts={"new": -1}),
        summary_event(partitions=[{"year": 2026, "month": 13, "day": 1, "new": 1}]),
        summary_event(partitions=[{"year": "2026; DROP", "month": 1, "day": 1, "new": 1}]),
        summary_event(partitions=[{"year": 2026, "month": 1, "day": 1}]),
    ],
)
def test_an_event_without_a_usable_summary_is_refused(event: dict[str, Any]) -> None:
    # WHEN / THEN
    with pytest.raises(UnusableSummaryError):
        read_summary(event)


def test_a_check_without_an_expectation_is_refused(tmp_path: Path) -> None:
    # GIVEN
    (tmp_path / "nothing_expected.sql").write_text("SELECT 1 AS value", "utf-8")

    # WHEN / THEN
    with pytest.raises(ValueError, match=r"nothing_expected\.sql"):
        load_checks(read_summary(summary_event()), SETTINGS, tmp_path)


@pytest.mark.parametrize(
    ("comparison", "value", "is_met"),
    [("equals", 3, True), ("equals", 2, False), ("equals", 4, False), ("at_most", 3, True), ("at_most", 4, False)],
)
def test_expectations(comparison: str, value: int, is_met: bool) -> None:
    # WHEN / THEN
    assert Expectation(comparison, 3).is_met_by(value) is is_met


GOOD_ROW = ("a", 20.0, 1792034000.5, "2026-10-15 03:13:20.5", "s3://b/t/jr_1-0.snappy.parquet", 2026, 10, 15)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ((), {}),
        (GOOD_ROW, {"duplicate_readings": 1, "rows_of_the_run": 4}),
        (("b", *GOOD_ROW[1:]), {"rows_of_the_run": 4}),
        (("b", *GOOD_ROW[1:4], "s3://b/t/jr_10-0.snappy.parquet", *GOOD_ROW[5:]), {}),
        (("b", None, *GOOD_ROW[2:]), {"missing_values": 1, "rows_of_the_run": 4}),
        (("b", 200.5, *GOOD_ROW[2:]), {"values_in_range": 1, "rows_of_the_run": 4}),
        (("b", math.nan, *GOOD_ROW[2:]), {"values_in_range": 1, "rows_of_the_run": 4}),
        (("", *GOOD_ROW[1:]), {"values_in_range": 1, "rows_of_the_run": 4}),
        (("b", 200.5, *GOOD_ROW[2:4], "s3://b/t/jr_0-0.snappy.parquet", *GOOD_ROW[5:]), {}),
        ((*GOOD_ROW[:7], 16), {}),
    ],
)
def test_each_query_finds_what_it_is_for_and_nothing_else(row: tuple[Any, ...], found: dict[str, int]) -> None:
    # GIVEN a table with three good rows of the run, two of them on the 15th, and one more row
    connection = duckdb.connect()
    connection.execute(
        """CREATE TABLE device_telemetry (device_id VARCHAR, temperature DOUBLE, "timestamp" DOUBLE,
        event_time TIMESTAMP, "$path" VARCHAR, year INT, month INT, day INT)"""
    )
    rows = [GOOD_ROW, ("a", 20.5, *GOOD_ROW[2:]), ("a", 20.0, 1790824400.5, *GOOD_ROW[3:7], 1), *([row] if row else [])]
    connection.executemany("INSERT INTO device_telemetry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    # WHEN
    values = {}
    for check in load_checks(read_summary(summary_event()), SETTINGS):
        (query,) = sqlglot.transpile(check.query, read="athena", write="duckdb")
        answer = connection.execute(query).fetchone()
        assert answer is not None
        values[check.name] = int(answer[0])

    # THEN
    nothing = {"duplicate_readings": 0, "missing_values": 0, "rows_of_the_run": 3, "values_in_range": 0}
    assert values == nothing | found


# ---------------------------------------------------------------- what the answers mean


def test_all_queries_are_started_before_any_is_waited_for() -> None:
    # GIVEN
    athena = FakeAthena({"SELECT 1": 1, "SELECT 2": 5})
    checks = [Check(f"check_{n}", f"SELECT {n} AS value", Expectation("equals", 1)) for n in (1, 2)]

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
    (result,) = queries_of(athena).run([Check("check", "SELECT 1", Expectation("equals", 1))])

    # THEN
    assert (result.passed, result.value, result.scanned_bytes) == (False, None, 1000)
    assert result.error is not None
    assert "Bytes scanned limit was exceeded" in result.error


def test_a_query_that_does_not_end_is_stopped_and_fails() -> None:
    # GIVEN
    athena = FakeAthena({}, unfinished_polls=10**6)

    # WHEN
    (result,) = queries_of(athena, timeout_seconds=2).run([Check("check", "SELECT 1", Expectation("equals", 0))])

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
    athena = FakeAthena({"is_nan": 0, "strpos": 4})
    monkeypatch.setattr(handler, "queries", queries_of(athena))

    # WHEN
    answer = handler.handler(load_event("athena_check/load_with_new_rows.json"), lambda_context)

    # THEN
    assert answer["passed"] is True
    assert {check["name"] for check in answer["checks"]} == {
        "summary_adds_up",
        "duplicate_readings",
        "missing_values",
        "rows_of_the_run",
        "values_in_range",
        "scanned_bytes",
    }
    for check in answer["checks"]:
        assert set(check) == {"name", "passed", "value", "expectation", "scanned_bytes"}
    assert emitted_metrics() == {
        ("TelemetryLake", "Stage=prod"): {
            "ChecksRun": 6,
            "CheckFailures": 0,
            "CheckRows": 4,
            "CheckScannedBytes": 4000,
        }
    }


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
    monkeypatch.setattr(handler, "queries", queries_of(FakeAthena({"is_nan": 0, "strpos": rows_there})))
    event = load_event("athena_check/load_with_new_rows.json")
    event["summary"]["mode"] = "audit"

    # WHEN
    with nullcontext() if rows_there == 4 else pytest.raises(AthenaCheckFailed):
        handler.handler(event, lambda_context)

    # THEN
    assert emitted_metrics()["TelemetryLake", "Stage=prod"]["AuditRowsAdded"] == 4


def test_a_run_without_lines_passes_without_a_query(
    handler: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    load_event: Callable[[str], dict[str, Any]],
    lambda_context: Any,
) -> None:
    # GIVEN
    athena = FakeAthena({})
    monkeypatch.setattr(handler, "queries", queries_of(athena))

    # WHEN
    answer = handler.handler(load_event("athena_check/load_without_lines.json"), lambda_context)

    # THEN
    assert answer["passed"] is True
    assert athena.started == []


@pytest.mark.parametrize(
    ("answers", "scanned_bytes", "failed"),
    [
        ({"is_nan": 0, "strpos": 3}, 1, "rows_of_the_run"),
        ({"is_nan": 0, "strpos": 4, "HAVING": 2}, 1, "duplicate_readings"),
        ({"is_nan": 1, "strpos": 4}, 1, "values_in_range"),
        ({"is_nan": 0, "strpos": 4, "IS NULL": 1}, 1, "missing_values"),
        ({"is_nan": 0, "strpos": 4}, 250_001, "scanned_bytes"),
    ],
)
def test_a_failed_check_raises_with_every_result(  # noqa: PLR0917 - most of them are fixtures
    answers: dict[str, int],
    scanned_bytes: int,
    failed: str,
    handler: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    load_event: Callable[[str], dict[str, Any]],
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
) -> None:
    # GIVEN
    monkeypatch.setattr(handler, "queries", queries_of(FakeAthena(answers, scanned_bytes)))

    # WHEN
    with pytest.raises(AthenaCheckFailed) as raised:
        handler.handler(load_event("athena_check/load_with_new_rows.json"), lambda_context)

    # THEN
    message = str(raised.value)
    assert message.startswith(f"failed: {failed};")
    results = json.loads(message.partition("all results: ")[2])
    assert [result["name"] for result in results if not result["passed"]] == [failed]
    assert len(results) == 6
    assert emitted_metrics()["TelemetryLake", "Stage=prod"]["CheckFailures"] == 1


def test_a_table_name_that_is_no_catalog_name_is_refused() -> None:
    # GIVEN
    variables = {
        "STAGE": "prod",
        "POWERTOOLS_METRICS_NAMESPACE": "TelemetryLake",
        "ATHENA_WORKGROUP": "w",
        "GLUE_DATABASE": "d",
        "TABLE_NAME": 't" WHERE 1=1 --',
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
