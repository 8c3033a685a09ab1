"""``tlake verify``: the checklist, or the proof that what was sent is stored once, or kept with a reason."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from telemetry_lake import journey
from telemetry_lake.checklist import Step, walk
from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.conservation import comparison
from telemetry_lake.conservation.books import Books
from telemetry_lake.conservation.comparison import Finding, Report
from telemetry_lake.conservation.ledgers import enter_ledger
from telemetry_lake.conservation.objects import (
    Folder,
    dead_letters,
    keys_in,
    parked_records,
    quarantined_readings,
    readings_in,
    tombstones,
)
from telemetry_lake.conservation.table import MOST_DEVICES_NAMED, Table, row_keys
from telemetry_lake.console import OperatorError, Reporter, counts_text
from telemetry_lake.pipeline import EXECUTION_SECONDS, RUNNING, SUCCEEDED, queue_depth, recent_raw_prefixes
from telemetry_lake.rejects import RESOLVED_PREFIX
from telemetry_lake.target import Target

# CloudWatch has five-minute values for 63 days, and answers with 100,800 of them at most:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
MOST_HOURS = 14 * 24

ADVICE = {
    comparison.LOST_READING: (
        "Run tlake reprocess: the job stores what the raw zone has, and nothing twice. What is lost after that never "
        "came out of Firehose: send it again."
    ),
    comparison.LOST_RECORD: "See the transform's log group, and send it again: its reject says what is wrong with it.",
    comparison.STORED_TWICE: (
        "Ask which files have it (tlake query 'SELECT \"$path\", ... WHERE device_id = ...'), find out who else writes "
        "to the table's folder, and move the later file elsewhere."
    ),
    comparison.ROW_NEVER_SENT: (
        "Name every ledger of what was ever sent to this stack (--ledger again), or judge the devices of these alone "
        "(--ledger-devices-only)."
    ),
    comparison.REJECT_NEVER_SENT: "As for rows that were never sent: name every ledger, or judge its devices alone.",
    comparison.IN_BOTH_PLACES: (
        "Was a replay interrupted, run it again. Otherwise look at the reject "
        "(tlake query 'SELECT * FROM rejected_readings WHERE reject_id = ...') and at the transform's versions."
    ),
    comparison.IN_RAW_ZONE: "Run this again after the pipeline's next run (tlake status shows it).",
    comparison.NOT_DELIVERED: "Run this again when Firehose's buffer time is over; what is still here then is lost.",
    comparison.RECORD_NOT_DELIVERED: "Run this again when Firehose's buffer time is over; what is still here is lost.",
}


@click.command()
@click.option(
    "--hours",
    type=click.IntRange(min=1, max=MOST_HOURS),
    default=24,
    show_default=True,
    help="How far back the checklist looks for what happens all the time: arrivals, deliveries, rejects.",
)
@click.option("--rerun", is_flag=True, help="Run the pipeline once more before the checklist is walked.")
@click.option("--conservation", is_flag=True, help="Instead: compare what was sent with what is there.")
@click.option(
    "--ledger",
    "ledgers",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="With --conservation: what tlake produce --ledger wrote; repeat it for each.",
)
@click.option("--ledger-devices-only", is_flag=True, help="Judge the ledgers' devices alone: there is other data too.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@pass_context
def verify(
    context: Context,
    *,
    hours: int,
    rerun: bool,
    conservation: bool,
    ledgers: tuple[Path, ...],
    ledger_devices_only: bool,
    as_json: bool,
) -> None:
    """Walk the checklist: the seven steps of the way of a reading, each with what was measured and a verdict.

    It writes nothing, apart from --rerun. The exit code is 0 only when all steps are green.

    With --conservation: prove that every reading that Kinesis acknowledged is stored once, or kept with a reason. The
    ledgers have to cover everything that was ever sent to the stack. All of the table's readings and all rejects are
    read. The exit code is 0 only when everything is conserved; while readings are on their way it is 1 as well.
    """
    if conservation != bool(ledgers) or (conservation and rerun):
        raise OperatorError("--conservation needs --ledger, takes no --rerun, and --ledger is for it alone.")
    reporter = context.reporter
    reporter.line(f"The {context.target.description}")
    if conservation:
        _prove_conservation(context.target, ledgers, reporter, ledger_devices_only=ledger_devices_only, as_json=as_json)
        return
    if rerun:
        journey.run_once_more(context.target, reporter, EXECUTION_SECONDS)
    steps = walk(context.target, hours, reporter)
    if as_json:
        reporter.json({"verdict": checklist_verdict(steps), "hours": hours, "steps": [s.as_mapping() for s in steps]})
    else:
        show_checklist(steps, reporter)
    if checklist_verdict(steps) != "green":
        raise SystemExit(1)


def checklist_verdict(steps: Sequence[Step]) -> str:
    """``green`` only if all steps are."""
    return "green" if all(step.is_green for step in steps) else "red"


def show_checklist(steps: Sequence[Step], reporter: Reporter) -> None:
    """Print the steps as a table, then what is wrong and what to do about it."""
    reporter.table(
        ("step", "", "evidence", "verdict"),
        [(f"{step.number}", step.name, "; ".join(step.finding.evidence), step.verdict) for step in steps],
    )
    for step in steps:
        if not step.is_green:
            reporter.line(f"! {step.number} {step.name}: {'; '.join(step.finding.faults)}", style="yellow")
            reporter.line(f"  next: {step.next_step}")
    green = sum(step.is_green for step in steps)
    reporter.result(f"{green} of {len(steps)} steps are green.")


def _prove_conservation(
    target: Target, ledgers: Sequence[Path], reporter: Reporter, *, ledger_devices_only: bool, as_json: bool
) -> None:
    verification = check(target, ledgers, reporter, ledger_devices_only=ledger_devices_only)
    if as_json:
        reporter.json({"verdict": verification.verdict, **asdict(verification)})
    else:
        show(verification, reporter)
    if not verification.report.is_conserved:
        raise SystemExit(1)


@dataclass(frozen=True)
class Verification:
    """The report on a stack, what was at work meanwhile, and what else a reader has to know."""

    report: Report
    at_work: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One word for scripts."""
        if self.report.is_conserved:
            return "conserved"
        return "in_flight" if self.report.is_in_flight else "not_conserved"


def check(
    target: Target, ledgers: Sequence[Path], reporter: Reporter, *, ledger_devices_only: bool = False
) -> Verification:
    """Compare the ledgers with the table and the rejects.

    Raises:
        OperatorError: a ledger, an object or the table cannot be read.
    """
    outputs, s3 = target.outputs, target.s3
    analytics = outputs.analytics_bucket_name
    notes = []
    with Books() as books:
        with reporter.step("Reading the ledgers", sum(path.stat().st_size for path in ledgers)) as step:
            for path in ledgers:
                enter_ledger(path, books, step)
        # Before the table: what is read in the meantime is in one of the two.
        with reporter.step("Asking what has not been read yet"):
            at_work, unread = _still_at_work(target)
        with reporter.step("Reading the table through Athena") as step:
            table = Table(outputs.database_name, outputs.table_name, outputs.work_group_name)
            devices = books.devices_sent(MOST_DEVICES_NAMED) if ledger_devices_only else None
            books.add_stored(row_keys(target.athena, s3, table, devices, step))
        damaged: list[str] = []
        with reporter.step("Reading the rejects") as step:
            books.add_rejects(dead_letters(s3, Folder(analytics, outputs.dlq_prefix), step))
            books.add_rejects(parked_records(s3, Folder(outputs.raw_bucket_name, outputs.error_prefix), step))
            books.add_rejects(quarantined_readings(s3, Folder(analytics, outputs.quarantine_prefix), damaged))
            books.add_resolved(tombstones(s3, Folder(analytics, RESOLVED_PREFIX)))
        notes += [f"{key} cannot be read to its end: lost readings may be in it." for key in damaged]
        with reporter.step("Comparing"):
            foreign = books.close_entries(only_devices_sent=ledger_devices_only)
            missing = comparison.find_missing(books)
        if ledger_devices_only:
            notes.append(
                f"Only the ledgers' devices were judged; {foreign:,} reject(s) without a device may be anybody's."
            )
        if missing and unread:
            with reporter.step(f"Reading {len(unread):,} raw objects that no run has finished with") as step:
                books.add_waiting(readings_in(s3, outputs.raw_bucket_name, unread, step))
        with reporter.step("Giving the verdict"):
            report = comparison.compare(books, target.policy.contract_version)
    return Verification(report, tuple(at_work), tuple(notes))


def _still_at_work(target: Target) -> tuple[list[str], list[str]]:
    """Return what the pipeline has before it, in words, and the raw objects that no run has finished with.

    A run reads whatever is there when it starts, so these are the objects that are not older than the start of the last
    execution that succeeded: the newest is listed first
    (https://docs.aws.amazon.com/step-functions/latest/apireference/API_ListExecutions.html).
    """
    outputs, machine = target.outputs, target.outputs.state_machine_arn
    finished = target.stepfunctions.list_executions(stateMachineArn=machine, statusFilter=SUCCEEDED, maxResults=1)[
        "executions"
    ]
    since = finished[0]["startDate"].astimezone(UTC) if finished else None
    unread = [
        key
        for prefix in _prefixes_since(outputs.raw_prefix, since)
        for key in keys_in(target.s3, Folder(outputs.raw_bucket_name, prefix), since)
    ]
    running = target.stepfunctions.list_executions(stateMachineArn=machine, statusFilter=RUNNING)["executions"]
    queued = queue_depth(target, outputs.trigger_queue_url) if outputs.trigger_queue_url is not None else 0
    facts = (
        (len(running), "execution(s) running"),
        (queued, "trigger message(s) waiting"),
        (len(unread), "raw object(s) that no finished run has read"),
    )
    return [f"{number:,} {what}" for number, what in facts if number], unread


def _prefixes_since(raw_prefix: str, since: datetime | None) -> list[str]:
    """Return where raw objects written since then may be: their folders are days of arrival, which may be earlier."""
    if since is None:
        return [raw_prefix]
    now = datetime.now(UTC)
    return recent_raw_prefixes(raw_prefix, now, (now.date() - since.date()).days + 2)


def show(verification: Verification, reporter: Reporter) -> None:
    """Print what was compared, what is legal for a cause, what must not be and what to do about it, and the verdict."""
    report = verification.report
    reporter.table(("what", "count"), [(name, f"{count:,}") for name, count in report.counts.items()])
    if report.causes:
        _show_findings("stored and rejected, with a cause", report.causes, reporter)
    if report.findings:
        _show_findings("must not be", report.findings, reporter)
    for note in verification.notes:
        reporter.line(f"! {note}", style="yellow")
    for work in verification.at_work:
        reporter.line(f"The pipeline is still at work: {work}")
    for kind in dict.fromkeys(finding.kind for finding in report.findings):
        reporter.line(f"{kind}: {ADVICE[kind]}")
    reporter.result(verdict_text(verification))


def _show_findings(title: str, findings: Sequence[Finding], reporter: Reporter) -> None:
    rows = []
    for finding in findings:
        first, *others = finding.examples
        rows.append((finding.kind, f"{finding.count:,}", first))
        rows += [("", "", other) for other in others]
    reporter.table((title, "count", "for instance"), rows)


def verdict_text(verification: Verification) -> str:
    """Return the verdict in one sentence."""
    report = verification.report
    if report.is_conserved:
        readings, unreadable = (
            report.counts[name] for name in (comparison.READINGS_ACKNOWLEDGED, comparison.UNREADABLE_ACKNOWLEDGED)
        )
        return (
            f"Conserved: each of the {readings:,} readings is one row or a reject, each of the {unreadable:,} "
            "unreadable elements is a reject, and nothing else is there."
        )
    found = counts_text({finding.kind: finding.count for finding in report.findings})
    if report.is_in_flight:
        return f"Not yet: {found}. Nothing is lost so far; run this again when the pipeline has caught up."
    return f"NOT conserved: {found}."
