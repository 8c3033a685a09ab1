"""EXPLAIN: what a query would read, or whether it is one.

https://docs.aws.amazon.com/athena/latest/ug/athena-explain-statement.html
"""

import json
from collections.abc import Mapping, Sequence

from telemetry_lake.local.athena.catalog import CATALOG_NAME, Column
from telemetry_lake.local.athena.dialect import TableScan
from telemetry_lake.local.athena.scan import PlannedScan


def header(kind: str) -> str:
    """Return the name of the result's one column."""
    return "Valid" if kind == "VALIDATE" else "Query Plan"


def text_plan(
    output_names: Sequence[str],
    scans: Mapping[str, TableScan],
    plans: Mapping[str, PlannedScan],
    output_rows: int | None = None,
) -> str:
    """Return the plan as text; with ``output_rows`` also what running it has shown."""
    produced = "" if output_rows is None else f"    Output: {output_rows} rows\n"
    lines = ["Fragment 0 [SINGLE]\n", produced, f"    Output[columnNames = [{', '.join(output_names)}]]\n"]
    for name, scan in scans.items():
        plan, table = plans[name], scan.table
        read = [column for column in (*table.columns, *table.partition_keys) if column.name in scan.columns]
        lines.append(f"    └─ TableScan[table = {CATALOG_NAME}:{table.database}:{table.name}]\n")
        lines.append(f"           Layout: [{', '.join(map(_typed, read))}]\n")
        if table.partition_keys:
            keys = ", ".join(key.name for key in table.partition_keys)
            lines.append(f"           Partitions: {plan.partition_count} by [{keys}]\n")
        if output_rows is not None:
            lines.append(f"           Physical input: {plan.scanned_bytes}B in {len(plan.files)} files\n")
    return "".join(lines) + "\n\n"


def _typed(column: Column) -> str:
    return f"{column.name}:{column.type.trino()}"


def io_plan(scans: Mapping[str, TableScan], plans: Mapping[str, PlannedScan]) -> str:
    """Return the plan of ``TYPE IO``: which tables and columns are read."""
    inputs = [
        {
            "table": {
                "catalog": CATALOG_NAME,
                "schemaTable": {"schema": scan.table.database, "table": scan.table.name},
            },
            "columns": sorted(scan.columns),
            "estimate": {"outputSizeInBytes": float(plans[name].scanned_bytes)},
        }
        for name, scan in scans.items()
    ]
    return json.dumps({"inputTableColumnInfos": inputs}, indent=2)
