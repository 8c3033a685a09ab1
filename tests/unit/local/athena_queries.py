"""Queries of the embedded Athena through boto3, from their start to their rows, for its tests."""

import io
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.unit.local.endpoint_process import wait_until


@dataclass(frozen=True)
class Outcome:
    execution: dict[str, Any]
    rows: list[list[str | None]]
    columns: list[tuple[str, str]]

    @property
    def state(self) -> str:
        return str(self.execution["Status"]["State"])

    @property
    def reason(self) -> str:
        return str(self.execution["Status"].get("StateChangeReason"))

    @property
    def scanned_bytes(self) -> int:
        return int(self.execution["Statistics"]["DataScannedInBytes"])


def run(athena: Any, sql: str, workgroup: str = "analysts", **arguments: Any) -> Outcome:
    query_id = athena.start_query_execution(
        QueryString=sql, WorkGroup=workgroup, QueryExecutionContext={"Database": "lake"}, **arguments
    )["QueryExecutionId"]
    execution = wait_until(lambda: finished(athena, query_id), 120)
    if execution["Status"]["State"] != "SUCCEEDED":
        return Outcome(execution, [], [])
    results = athena.get_query_results(QueryExecutionId=query_id)
    rows = [[cell.get("VarCharValue") for cell in row["Data"]] for row in results["ResultSet"]["Rows"]]
    columns = [(c["Name"], c["Type"]) for c in results["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]]
    return Outcome(execution, rows, columns)


def finished(athena: Any, query_id: str) -> Any:
    execution = athena.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
    return execution if execution["Status"]["State"] in ("SUCCEEDED", "FAILED", "CANCELLED") else None


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()
