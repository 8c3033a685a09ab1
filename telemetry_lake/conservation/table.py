"""The rows of the table, as Athena gives them to everybody.

Athena writes a result as CSV (https://docs.aws.amazon.com/athena/latest/ug/querying-finding-output-files.html), doubles
as Java prints them: ``1.760486400123E9``. That reads back as the same double in every version of Java, if not always in
the fewest digits (https://github.com/openjdk/jdk/pull/3402). Were a digit ever lost, two findings would say so, a lost
reading and a row that was never sent: no loss can hide behind it.
"""

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, cast

from telemetry_lake.conservation.books import Element, key_of
from telemetry_lake.conservation.elements import Reading
from telemetry_lake.console import OperatorError, Step, size_text

if TYPE_CHECKING:
    from mypy_boto3_athena import AthenaClient
    from mypy_boto3_s3 import S3Client

POLL_SECONDS = 0.3
# Athena takes a query of 262,144 bytes, and a device's name has 256 characters at most:
# https://docs.aws.amazon.com/athena/latest/ug/service-limits.html
MOST_DEVICES_NAMED = 200
BUFFER_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Table:
    """A table of a database, and the workgroup to ask in."""

    database: str
    name: str
    work_group: str


def row_keys(
    athena: "AthenaClient",
    s3: "S3Client",
    table: Table,
    devices: Sequence[str] | None,
    step: Step,
    *,
    days: Sequence[date] | None = None,
) -> Iterator[bytes]:
    """Yield the key of every row; Ctrl-C cancels the query in Athena too.

    Args:
        athena: the client.
        s3: the client for the result.
        table: where to ask.
        devices: ask for their rows alone; None for all.
        step: is told how far it is.
        days: ask for these partitions alone; None for all.

    Raises:
        OperatorError: Athena refused or failed the query; its reason and the execution id are shown.
    """
    bucket, _, key = _result(athena, table, _query(table, devices, days), step).removeprefix("s3://").partition("/")
    body = cast("io.RawIOBase", s3.get_object(Bucket=bucket, Key=key)["Body"])
    with io.TextIOWrapper(io.BufferedReader(body, BUFFER_BYTES), "utf-8", newline="") as text:
        rows = csv.reader(text, strict=True)
        next(rows)  # the names of the columns
        for number, row in enumerate(rows, start=1):
            yield _key(row)
            if number % 10_000 == 0:
                step.update(note=f"{number:,} rows")


def _key(row: Sequence[str]) -> bytes:
    device_id, timestamp, temperature = row
    try:
        return key_of(Reading(device_id, float(timestamp) + 0.0, float(temperature) + 0.0))
    except ValueError:  # a null is empty, and no reading has one
        return Element.of(repr(row).encode()).key


def _query(table: Table, devices: Sequence[str] | None, days: Sequence[date] | None) -> str:
    conditions = []
    if devices is not None:
        names = ", ".join("'" + device.replace("'", "''") + "'" for device in devices)
        conditions.append(f"device_id IN ({names})")
    if days is not None:
        partitions = " OR ".join(f"(year = {day.year} AND month = {day.month} AND day = {day.day})" for day in days)
        conditions.append(f"({partitions})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f'SELECT device_id, "timestamp", temperature FROM "{table.name}"{where}'


def _result(athena: "AthenaClient", table: Table, query: str, step: Step) -> str:
    """Run the query and return the address of its result."""
    execution_id = athena.start_query_execution(
        QueryString=query,
        QueryExecutionContext={"Database": table.database},
        WorkGroup=table.work_group,
    )["QueryExecutionId"]
    try:
        execution: Any = athena.get_query_execution(QueryExecutionId=execution_id)["QueryExecution"]
        while execution["Status"]["State"] in ("QUEUED", "RUNNING"):
            step.update(note=execution["Status"]["State"].lower())
            time.sleep(POLL_SECONDS)
            execution = athena.get_query_execution(QueryExecutionId=execution_id)["QueryExecution"]
    except KeyboardInterrupt:
        athena.stop_query_execution(QueryExecutionId=execution_id)
        raise
    state = execution["Status"]["State"]
    if state != "SUCCEEDED":
        reason = execution["Status"].get("StateChangeReason", "no reason given")
        raise OperatorError(f"The query {state.lower()}: {reason}", f"Query execution id: {execution_id}")
    step.update(note=f"{size_text(execution.get('Statistics', {}).get('DataScannedInBytes', 0))} scanned")
    return str(execution["ResultConfiguration"]["OutputLocation"])
