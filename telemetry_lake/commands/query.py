"""``tlake query``: ask Athena."""

import sys
from datetime import datetime

import click

from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.console import OperatorError, size_text
from telemetry_lake.queries import ROWS_SHOWN, QueryResult, representative_query, run_query, today


@click.command()
@click.argument("sql", required=False)
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Day of the default query (default: today).")
@click.option("--limit", type=click.IntRange(min=1), default=ROWS_SHOWN, show_default=True, help="Rows to print.")
@click.option("--json", "as_json", is_flag=True, help="Print rows and statistics as JSON.")
@pass_context
def query(context: Context, sql: str | None, day: datetime | None, limit: int, as_json: bool) -> None:
    """Run SQL in the stack's workgroup (- reads it from standard input).

    Without SQL: the average temperature of each device today, one partition.
    """
    if sql is not None and day is not None:
        raise OperatorError("--day is for the default query.", "Write the day into the SQL instead.")
    target, reporter = context.target, context.reporter
    if sql == "-":
        sql = sys.stdin.read()
    if sql is None:
        chosen = day.date() if day is not None else today(target.outputs.partition_time_zone)
        sql = representative_query(target.outputs.table_name, chosen)
    reporter.line(sql, style="dim")
    result = run_query(target, sql, reporter, limit)
    if as_json:
        reporter.json(as_mapping(result))
        return
    reporter.table(result.columns, [[value if value is not None else "null" for value in row] for row in result.rows])
    if not result.complete:
        reporter.line(f"Only the first {limit:,} rows (--limit shows more).", style="yellow")
    reporter.line(
        f"{len(result.rows):,} rows, {size_text(result.scanned_bytes)} ({result.scanned_bytes:,} bytes) scanned, "
        f"{result.milliseconds:,} ms, execution {result.execution_id}"
    )


def as_mapping(result: QueryResult) -> dict[str, object]:
    """Return a query's result for scripts; values are texts as Athena gives them."""
    return {
        "execution_id": result.execution_id,
        "columns": list(result.columns),
        "rows": [dict(zip(result.columns, row, strict=True)) for row in result.rows],
        "complete": result.complete,
        "scanned_bytes": result.scanned_bytes,
        "milliseconds": result.milliseconds,
    }
