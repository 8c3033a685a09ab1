"""``tlake demo``: the whole way of a reading on this machine, with evidence at every stop."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import click

from telemetry_lake import journey
from telemetry_lake.checklist import walk
from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.commands.produce import Plan, send
from telemetry_lake.commands.report import write_report
from telemetry_lake.commands.up import bring_up
from telemetry_lake.commands.verify import check, show_checklist, verdict_text
from telemetry_lake.console import OperatorError, Reporter, counts_text, size_text
from telemetry_lake.deployment import DemoSettings, read_demo_settings, read_settings
from telemetry_lake.laptop import Laptop
from telemetry_lake.ledger import read_ledger
from telemetry_lake.pipeline import Execution, StoredObject, partition_text
from telemetry_lake.producer import Delivery
from telemetry_lake.queries import representative_query, run_query
from telemetry_lake.recorded import RECORDINGS
from telemetry_lake.target import Target

GOOD_READINGS = 30_000
BAD_READINGS = 300
KEYS_SHOWN = 3
REPORT_HOURS = 1
LEDGER = "ledger.jsonl"
REPORT = "report.html"


@click.command()
@click.option("--count", type=click.IntRange(min=1), default=GOOD_READINGS, show_default=True, help="Good readings.")
@click.option("--bad", type=click.IntRange(min=1), default=BAD_READINGS, show_default=True, help="Bad records.")
@pass_context
def demo(context: Context, count: int, bad: int) -> None:
    """Show the whole way of a reading on this machine, then tear it down.

    The good readings are recorded ones, of a buoy at sea and two cities, their times brought into the last two days.
    It has a state directory of its own (.tlake/demo, made anew) and checks what it shows: every good reading is one
    row, every bad one a reject with a reason, averages are those of the input, a second run changes nothing, and the
    checklist is green. Otherwise the exit code is 1. The report is kept in the state directory.
    """
    reporter = context.reporter
    settings = read_demo_settings(context.project)
    laptop = Laptop(context.state_directory / "demo")
    with laptop.locked():
        laptop.stop(reporter)
        laptop.delete_data()
        laptop.directory.mkdir(parents=True, exist_ok=True)
        _say_parameters(context.project, settings, reporter)
        try:
            target = bring_up(context.project, laptop, reporter, exit_with_parent=True)
            wrong = show(target, _plan(settings, count, bad, laptop.directory), laptop.directory, reporter)
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
        "Every good reading is one row, every bad one a reject with its reason, and the checklist is green."
    )
    reporter.line(f"The report, for a browser: {laptop.directory / REPORT}")
    reporter.line(f"Nothing is left running. What the demo wrote is in {laptop.directory} until the next one.")


def _plan(settings: DemoSettings, count: int, bad: int, directory: Path) -> Plan:
    return Plan(
        count=count,
        bad=bad,
        spread_hours=settings.spread_hours,
        recorded=tuple(RECORDINGS),
        readings_per_record=settings.readings_per_record,
        ledger=directory / LEDGER,
    )


def show(target: Target, plan: Plan, directory: Path, reporter: Reporter) -> list[str]:
    """Send readings, follow them, print the evidence, and return what is not as it must be.

    The plan's ledger is in ``directory``, and the report is written there.
    """
    ledger = directory / LEDGER
    delivery = send(target, plan, reporter)
    good = delivery.readings
    _show_stream(delivery, ledger, reporter)
    landing = journey.wait_for_landing(target, good, delivery.bad, reporter)
    _show_landing(target, landing, reporter)
    executions, summaries = journey.wait_for_pipeline(target, landing, reporter)
    _show_runs(executions, summaries, reporter)
    table = journey.read_table(target, reporter)
    _show_table(target, table, reporter)
    wrong = journey.differences(good, summaries)
    wrong += _reason_differences(delivery, landing)
    wrong += _show_averages(target, ledger, reporter)
    _show_everyday_question(target, table, landing, reporter)

    again = journey.run_once_more(target, reporter)
    after = journey.read_table(target, reporter)
    changes = journey.changes_between(table, after)
    reporter.heading("Once more, with nothing new")
    reporter.fact("execution", f"{again.name}: {again.status} in {again.seconds:.1f} s")
    reporter.fact("changed", "; ".join(changes) or "nothing: the same files, partitions and rows")
    reporter.line()
    wrong += [f"the second run changed {change}" for change in changes]

    verification = check(target, [ledger], reporter)
    reporter.heading("The independent check, ledger against table and rejects")
    reporter.fact("verdict", verdict_text(verification))
    reporter.line()
    wrong += [f"{finding.count:,} {finding.kind}: {finding.examples[0]}" for finding in verification.report.findings]

    steps = walk(target, REPORT_HOURS, reporter)
    reporter.heading("The checklist")
    show_checklist(steps, reporter)
    red = [step for step in steps if not step.is_green]
    wrong += [f"step {step.number}, {step.name}: {'; '.join(step.finding.faults)}" for step in red]
    write_report(target, directory / REPORT, REPORT_HOURS, steps, reporter)
    return wrong


def _say_parameters(project: Path, settings: DemoSettings, reporter: Reporter) -> None:
    parameters = read_settings(project).parameters
    quick = " ".join(f"{name}={value}" for name, value in parameters.items() if name.endswith("Seconds"))
    reporter.line(f"Short buffers and windows, by the template's own parameters: {quick}")
    reporter.line(
        f"{settings.readings_per_record} readings of a device in a record, their times brought into "
        f"{settings.spread_hours:g} hours. All of this is the stage laptop of samconfig.toml."
    )


def _show_averages(target: Target, ledger: Path, reporter: Reporter) -> list[str]:
    sent, found = journey.averages_sent(read_ledger(ledger)), journey.averages_by_athena(target, reporter)
    reporter.heading("Athena, against the same computed from the input")
    for device, average in sorted(found.items()):
        reporter.fact(device, f"{average.readings:,} readings, {average.celsius:.9f} °C on average")
    wrong = journey.average_differences(sent, found)
    reporter.fact("difference", "; ".join(wrong) or "none: counts are equal, averages to 1e-9 °C")
    reporter.line()
    return wrong


def _show_everyday_question(target: Target, table: journey.Table, landing: journey.Landing, reporter: Reporter) -> None:
    # The last day is not over: just after midnight it has hardly any readings.
    year, month, day = map(int, table.partitions[-2:][0])
    sql = representative_query(target.outputs.table_name, date(year, month, day))
    result = run_query(target, sql, reporter)
    raw_bytes = sum(stored.size_bytes for stored in landing.raw_objects)
    reporter.heading("Athena, the everyday question (one partition)")
    reporter.line(sql, style="dim")
    for device_id, average in result.rows:
        reporter.fact(str(device_id), f"{float(average or 'nan'):.2f} °C")
    reporter.fact("scanned", f"{size_text(result.scanned_bytes)}, execution {result.execution_id}")
    share = result.scanned_bytes / landing.raw_json_bytes
    reporter.fact(
        "the raw JSON",
        f"{size_text(landing.raw_json_bytes)} ({size_text(raw_bytes)} compressed): scanned is {share:.1%}",
    )
    reporter.line()


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
