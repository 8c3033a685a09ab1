"""Run SQL in the stack's Athena workgroup and say what it cost."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from telemetry_lake.console import OperatorError, Reporter, size_text
from telemetry_lake.target import Target

if TYPE_CHECKING:
    from mypy_boto3_athena import AthenaClient

ROWS_SHOWN = 1000
POLL_SECONDS = 0.3


@dataclass(frozen=True)
class QueryResult:
    """What a query gave: column names, rows of texts (None for null), and its statistics."""

    execution_id: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    scanned_bytes: int
    milliseconds: int
    complete: bool = True

    def single_number(self) -> int:
        """Return the one number of a result with one row and one column."""
        ((value,),) = self.rows
        return int(value or 0)


def representative_query(table_name: str, day: date) -> str:
    """Return the average temperature of each device on one day, with the partition narrowed down."""
    return (
        f"SELECT device_id, AVG(temperature) AS avg_temp\nFROM {table_name}\n"
        f"WHERE year={day.year} AND month={day.month} AND day={day.day}\n"
        "GROUP BY device_id\nORDER BY avg_temp DESC"
    )


def today(time_zone_name: str, now: datetime | None = None) -> date:
    """Return the date now in the time zone by which the table is partitioned.

    Raises:
        OperatorError: this machine does not know the time zone.
    """
    return (now or datetime.now(UTC)).astimezone(zone_named(time_zone_name)).date()


def zone_named(time_zone_name: str) -> tzinfo:
    """Return a time zone by its IANA name.

    Raises:
        OperatorError: this machine does not know it.
    """
    if time_zone_name == "UTC":
        return UTC
    try:
        return ZoneInfo(time_zone_name)
    except ZoneInfoNotFoundError:
        raise OperatorError(
            f"This machine does not know the time zone {time_zone_name}.",
            "Install its time zone data (Debian: apt install tzdata), or name the day with --day.",
        ) from None


def run_query(target: Target, sql: str, reporter: Reporter, most_rows: int = ROWS_SHOWN) -> QueryResult:
    """Run ``sql`` in the stack's workgroup and database; Ctrl-C cancels it there too.

    Raises:
        OperatorError: Athena refused or failed it; its reason and the execution id are shown.
    """
    athena = target.athena
    execution_id = athena.start_query_execution(
        QueryString=sql,
        QueryExecutionContext={"Database": target.outputs.database_name},
        WorkGroup=target.outputs.work_group_name,
    )["QueryExecutionId"]
    with reporter.step("Querying Athena") as step, _cancelled_when_interrupted(athena, execution_id):
        while True:
            execution = athena.get_query_execution(QueryExecutionId=execution_id)["QueryExecution"]
            state = execution["Status"]["State"]
            if state not in ("QUEUED", "RUNNING"):
                break
            step.update(note=state.lower())
            time.sleep(POLL_SECONDS)
        statistics = execution.get("Statistics", {})
        scanned_bytes = statistics.get("DataScannedInBytes", 0)
        step.update(note=f"{state.lower()}, {size_text(scanned_bytes)} scanned")
        if state != "SUCCEEDED":
            reason = execution["Status"].get("StateChangeReason", "no reason given")
            raise OperatorError(f"The query {state.lower()}: {reason}", f"Query execution id: {execution_id}")
    columns, rows, complete = _rows(athena, execution_id, most_rows)
    milliseconds = statistics.get("TotalExecutionTimeInMillis", statistics.get("EngineExecutionTimeInMillis", 0))
    return QueryResult(execution_id, columns, rows, scanned_bytes, milliseconds, complete)


def _rows(
    athena: "AthenaClient", execution_id: str, most_rows: int
) -> tuple[tuple[str, ...], tuple[tuple[str | None, ...], ...], bool]:
    columns: tuple[str, ...] = ()
    rows: list[tuple[str | None, ...]] = []
    for page in athena.get_paginator("get_query_results").paginate(QueryExecutionId=execution_id):
        result = page["ResultSet"]
        values = [tuple(cell.get("VarCharValue") for cell in row.get("Data", [])) for row in result.get("Rows", [])]
        if not columns:
            columns = tuple(column["Name"] for column in result.get("ResultSetMetadata", {}).get("ColumnInfo", []))
            # The first row of a SELECT's first page repeats the column names:
            # https://docs.aws.amazon.com/athena/latest/APIReference/API_GetQueryResults.html
            if values and values[0] == columns:
                values = values[1:]
        rows.extend(values)
        if len(rows) > most_rows:
            return columns, tuple(rows[:most_rows]), False
    return columns, tuple(rows), True


@contextmanager
def _cancelled_when_interrupted(athena: "AthenaClient", execution_id: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        athena.stop_query_execution(QueryExecutionId=execution_id)
        raise
