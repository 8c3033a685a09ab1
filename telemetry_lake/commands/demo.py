"""``tlake demo``: the whole way of a reading on this machine, with evidence at every stop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from telemetry_lake import journey
from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.commands.produce import Plan, send
from telemetry_lake.commands.up import bring_up
from telemetry_lake.commands.verify import check, verdict_text
from telemetry_lake.console import OperatorError, Reporter, counts_text, size_text
from telemetry_lake.deployment import read_settings
from telemetry_lake.laptop import Laptop
from telemetry_lake.pipeline import Execution, StoredObject, partition_text
from telemetry_lake.producer import Delivery
from telemetry_lake.queries import representative_query, run_query, today
from telemetry_lake.target import Target

GOOD_READINGS = 2000
BAD_READINGS = 33
# Over more than a day, so that the readings belong to several partitions.
SPREAD_HOURS = 36.0
KEYS_SHOWN = 3


@click.command()
@click.option("--count", type=click.IntRange(min=1), default=GOOD_READINGS, show_default=True, help="Good readings.")
@click.option("--bad", type=click.IntRange(min=0), default=BAD_READINGS, show_default=True, help="Bad records.")
@pass_context
def demo(context: Context, count: int, bad: int) -> None:
    """Show the whole way of a reading on this machine, then tear it down.

    It has a state directory of its own (.tlake/demo, made anew) and checks what it shows: every good reading is one
    row, every bad one a reject with a reason, and a second run changes nothing. Otherwise the exit code is 1.
    """
    reporter = context.reporter
    laptop = Laptop(context.state_directory / "demo")
    with laptop.locked():
        laptop.stop(reporter)
        laptop.delete_data()
        laptop.directory.mkdir(parents=True, exist_ok=True)
        _say_parameters(context.project, reporter)
        try:
            target = bring_up(context.project, laptop, reporter, exit_with_parent=True)
            wrong = show(target, count, bad, laptop.directory / "ledger.jsonl", reporter)
        except OperatorError as error:
            # Its own advice may name the endpoint, which is gone by the time that anybody reads it.
            raise OperatorError(error.happened, f"The endpoint's log is kept: {laptop.log_file}") from error
        finally:
            reporter.line()
            laptop.stop(reporter)
    if wrong:
        raise OperatorError(
            "The demo found what must not be:\n" + "\n".join(f"  {difference}" for difference in wrong),
            f"What it wrote is kept in {laptop.directory}; the endpoint's log: {laptop.log_file}",
        )
    reporter.result(
        f"Every one of the {count:,} good readings is one row, and every one of the {bad:,} bad ones a reject."
    )
    reporter.line(f"Nothing is left running. What the demo wrote is in {laptop.directory} until the next one.")


def show(target: Target, count: int, bad: int, ledger: Path, reporter: Reporter) -> list[str]:
    """Send readings, follow them, print the evidence, and return what is not as it must be."""
    outputs = target.outputs
    delivery = send(target, Plan(count=count, bad=bad, spread_hours=SPREAD_HOURS, ledger=ledger), reporter)
    _show_stream(delivery, ledger, reporter)
    landing = journey.wait_for_landing(target, count, bad, reporter)
    _show_landing(target, landing, reporter)
    executions, summaries = journey.wait_for_pipeline(target, landing, reporter)
    _show_runs(executions, summaries, reporter)
    table = journey.read_table(target, reporter)
    _show_table(target, table, reporter)
    sql = representative_query(outputs.table_name, today(outputs.partition_time_zone))
    result = run_query(target, sql, reporter)
    reporter.heading("Athena, the everyday question (one partition)")
    reporter.line(sql, style="dim")
    for device_id, average in result.rows:
        reporter.fact(str(device_id), f"{float(average or 'nan'):.2f} °C")
    reporter.fact("scanned", f"{size_text(result.scanned_bytes)}, execution {result.execution_id}")
    wrong = journey.differences(count, summaries)
    wrong += _reason_differences(delivery, landing)

    again = journey.run_once_more(target, reporter)
    after = journey.read_table(target, reporter)
    changes = journey.changes_between(table, after)
    reporter.heading("Once more, with nothing new")
    reporter.fact("execution", f"{again.name}: {again.status} in {again.seconds:.1f} s")
    reporter.fact("changed", "; ".join(changes) or "nothing: the same files, partitions and rows")
    verification = check(target, [ledger], reporter)
    reporter.heading("The independent check, ledger against table and rejects")
    reporter.fact("verdict", verdict_text(verification))
    wrong += [f"{finding.count:,} {finding.kind}: {finding.examples[0]}" for finding in verification.report.findings]
    return wrong + [f"the second run changed {change}" for change in changes]


def _say_parameters(project: Path, reporter: Reporter) -> None:
    parameters = read_settings(project).parameters
    quick = " ".join(f"{name}={value}" for name, value in parameters.items() if name.endswith("Seconds"))
    reporter.line(f"Short buffers and windows for this run, by the template's own parameters: {quick}")


def _reason_differences(delivery: Delivery, landing: journey.Landing) -> list[str]:
    """Compare the reasons in the DLQ with what was wrong with the records that were sent."""
    found = landing.rejects_by_reason
    return [
        f"rejects for the reason {reason}: {found[reason]:,} instead of {delivery.by_fault[reason]:,}"
        for reason in sorted(found | delivery.by_fault)
        if found[reason] != delivery.by_fault[reason]
    ]


def _show_stream(delivery: Delivery, ledger: Path, reporter: Reporter) -> None:
    reporter.heading("Kinesis took the records")
    for shard, records in sorted(delivery.by_shard.items()):
        last = delivery.last_sequence_number[shard]
        reporter.fact(shard, f"{records:,} records acknowledged, the last one ...{last[-12:]}")
    reporter.fact("ledger", f"{ledger} (each record before it was sent, and its place)")
    reporter.line()


def _show_landing(target: Target, landing: journey.Landing, reporter: Reporter) -> None:
    outputs = target.outputs
    reporter.heading("Firehose and the transform wrote")
    _show_objects("raw", outputs.raw_bucket_name, landing.raw_objects, reporter)
    reporter.fact("raw lines", f"{landing.raw_lines:,}")
    _show_objects("rejects", outputs.analytics_bucket_name, landing.reject_objects, reporter)
    reporter.fact("reasons", journey.reasons_text(landing) or "none")
    reporter.line()


def _show_objects(label: str, bucket: str, objects: Sequence[StoredObject], reporter: Reporter) -> None:
    for stored in objects[:KEYS_SHOWN]:
        reporter.fact(label, f"s3://{bucket}/{stored.key} ({size_text(stored.size_bytes)})")
    if len(objects) > KEYS_SHOWN:
        reporter.fact(label, f"and {len(objects) - KEYS_SHOWN:,} more objects")


def _show_runs(executions: Sequence[Execution], summaries: Sequence[dict[str, Any]], reporter: Reporter) -> None:
    reporter.heading("The pipeline ran")
    for execution in executions:
        objects = f" for {len(execution.object_keys)} object(s)" if execution.object_keys else ""
        reporter.fact("execution", f"{execution.name}: {execution.status} in {execution.seconds:.1f} s")
        reporter.fact("", f"started by the {execution.trigger}{objects}")
    for summary in summaries:
        reporter.fact("job run", f"{summary['job_run_id']}: {counts_text(summary['counts'])}")
    reporter.line()


def _show_table(target: Target, table: journey.Table, reporter: Reporter) -> None:
    outputs = target.outputs
    reporter.heading("The table holds")
    _show_objects("Parquet", outputs.analytics_bucket_name, table.files, reporter)
    reporter.fact("partitions", ", ".join(map(partition_text, table.partitions)) or "none")
    reporter.fact("Athena", f"{table.rows:,} rows, {table.distinct_readings:,} distinct readings")
    reporter.fact("scanned", f"{size_text(table.counts.scanned_bytes)}, execution {table.counts.execution_id}")
    reporter.line()
