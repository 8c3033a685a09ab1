"""Queries: the everyday one, results in pages, failures with Athena's reason."""

from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from telemetry_lake.console import OperatorError, Reporter
from telemetry_lake.queries import representative_query, run_query, today
from tests.contracts.fakes import client_answered_by

QUIET = Reporter(quiet=True)


class Athena:
    """Answers as Athena does: a state that comes to an end, pages of results, the header in the first row."""

    def __init__(self, states: list[str], pages: list[list[list[str | None]]], header: bool = True) -> None:
        self.states = states
        self.pages = pages
        self.header = header
        self.stopped: list[str] = []
        self.asked: dict[str, Any] = {}

    def start_query_execution(self, **arguments: Any) -> dict[str, str]:
        self.asked = arguments
        return {"QueryExecutionId": "q-1"}

    def get_query_execution(self, **_arguments: str) -> dict[str, Any]:
        state = self.states.pop(0)
        if state == "CTRL-C":
            raise KeyboardInterrupt
        status = {"State": state} | ({"StateChangeReason": "line 1:8: no column"} if state == "FAILED" else {})
        return {
            "QueryExecution": {
                "Status": status,
                "Statistics": {"DataScannedInBytes": 1234, "TotalExecutionTimeInMillis": 56},
            }
        }

    def stop_query_execution(self, **arguments: str) -> dict[str, Any]:
        self.stopped.append(arguments["QueryExecutionId"])
        return {}

    def get_query_results(self, QueryExecutionId: str, NextToken: str = "0") -> dict[str, Any]:  # noqa: N803
        def row(values: list[str | None]) -> dict[str, Any]:
            return {"Data": [{} if value is None else {"VarCharValue": value} for value in values]}

        names = ["device_id", "avg_temp"]
        number = int(NextToken)
        rows = [row(each) for each in self.pages[number]]
        if self.header and number == 0:
            rows.insert(0, row([*names]))
        columns = [{"Name": name, "Type": "varchar"} for name in names]
        following = {"NextToken": str(number + 1)} if number + 1 < len(self.pages) else {}
        return {"ResultSet": {"ResultSetMetadata": {"ColumnInfo": columns}, "Rows": rows}, **following}


def target_with(athena: Athena) -> Any:
    client = client_answered_by("athena", athena)
    return SimpleNamespace(athena=client, outputs=SimpleNamespace(database_name="lake", work_group_name="analytics"))


def test_a_query_runs_in_the_stack_s_workgroup_and_tells_what_it_scanned() -> None:
    # GIVEN two pages, the first with the header row
    athena = Athena(["QUEUED", "RUNNING", "SUCCEEDED"], [[["a", "20.5"]], [["b", None]]])

    # WHEN
    result = run_query(target_with(athena), "SELECT 1", QUIET)

    # THEN
    assert athena.asked["WorkGroup"] == "analytics"
    assert athena.asked["QueryExecutionContext"] == {"Database": "lake"}
    assert result.columns == ("device_id", "avg_temp")
    assert result.rows == (("a", "20.5"), ("b", None))
    assert (result.scanned_bytes, result.milliseconds, result.execution_id) == (1234, 56, "q-1")
    assert result.complete


def test_a_result_without_a_header_row_keeps_its_first_row() -> None:
    # GIVEN what SHOW and DESCRIBE answer
    athena = Athena(["SUCCEEDED"], [[["a", "1"]]], header=False)

    # WHEN / THEN
    assert run_query(target_with(athena), "SHOW", QUIET).rows == (("a", "1"),)


def test_more_rows_than_asked_for_are_cut_and_that_is_said() -> None:
    # GIVEN
    athena = Athena(["SUCCEEDED"], [[["a", "1"], ["b", "2"]], [["c", "3"]]])

    # WHEN
    result = run_query(target_with(athena), "SELECT 1", QUIET, most_rows=2)

    # THEN
    assert len(result.rows) == 2
    assert not result.complete


def test_a_failed_query_gives_athena_s_reason_and_the_execution_id() -> None:
    with pytest.raises(OperatorError, match=r"(?s)failed: line 1:8: no column.*q-1"):
        run_query(target_with(Athena(["FAILED"], [])), "SELECT nope", QUIET)


def test_ctrl_c_cancels_the_query_in_athena_too() -> None:
    # GIVEN
    athena = Athena(["RUNNING", "CTRL-C"], [])

    # WHEN
    with pytest.raises(KeyboardInterrupt):
        run_query(target_with(athena), "SELECT 1", QUIET)

    # THEN
    assert athena.stopped == ["q-1"]


def test_the_everyday_query_names_one_partition_with_numbers() -> None:
    assert "WHERE year=2025 AND month=10 AND day=5" in representative_query("device_telemetry", date(2025, 10, 5))


def test_today_is_the_day_of_the_partition_time_zone() -> None:
    # GIVEN an hour at which Tokyo is a day ahead
    now = datetime(2025, 10, 14, 20, 0, tzinfo=UTC)

    # WHEN / THEN
    assert today("UTC", now) == date(2025, 10, 14)
    assert today("Asia/Tokyo", now) == date(2025, 10, 15)


def test_an_unknown_time_zone_says_what_to_install() -> None:
    with pytest.raises(OperatorError, match=r"(?s)Mars/Olympus.*tzdata"):
        today("Mars/Olympus")
