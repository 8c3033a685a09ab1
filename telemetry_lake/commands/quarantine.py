"""``tlake quarantine``: take raw objects that cannot be read out of the job's way."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime

import click

from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.console import OperatorError, Reporter, is_interactive, size_text
from telemetry_lake.job_runs import FAILED_STATES, job_runs
from telemetry_lake.pipeline import READERS, list_objects
from telemetry_lake.quarantine import Inspection, Quarantine, Record, inspect, suspects
from telemetry_lake.target import Target


@click.command()
@click.argument("keys", nargs=-1)
@click.option("--scan", is_flag=True, help="Look for objects that cannot be read, those first that a failed run named.")
@click.option("--all", "look_at_all", is_flag=True, help="With --scan: also what successful loads have read.")
@click.option("--list", "list_them", is_flag=True, help="Show what is in quarantine.")
@click.option("--restore", is_flag=True, help="Put KEYS back into the raw zone, where they count as new.")
@click.option("--force", is_flag=True, help="Move an object that can be read; put one back that cannot.")
@click.option("--yes", is_flag=True, help="With --scan: move what was found without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print the objects as JSON.")
@pass_context
def quarantine(
    context: Context,
    *,
    keys: tuple[str, ...],
    scan: bool,
    look_at_all: bool,
    list_them: bool,
    restore: bool,
    force: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Move raw objects that cannot be read to quarantine/ in the analytics bucket, so that the next run succeeds.

    KEYS are those of raw objects, or their s3:// addresses. Every byte is kept, and beside each object a record of what
    is wrong. An interrupted move is completed by the same command.
    """
    if (scan, list_them, bool(keys)).count(True) != 1 or (restore and not keys):
        raise OperatorError("Name objects, or say --scan or --list.", "tlake quarantine --help")
    target, reporter = context.target, context.reporter
    place = Quarantine(target)
    if list_them:
        _show(target, list(place.records()), as_json, reporter)
        return
    if restore:
        _for_each(target, keys, lambda key: place.restore(key, force=force), as_json, reporter)
        return
    chosen: Sequence[str] = keys
    if scan:
        found = find_unreadable(target, look_at_all, reporter)
        for each in found:
            reporter.line(f"! {each.key}: {each.fault}; {each.readable_lines:,} lines can be read", style="yellow")
        if not found:
            reporter.line("Everything that was looked at can be read.")
        elif not yes:
            _ask(len(found))
        chosen = [each.key for each in found]
    moved = _for_each(target, chosen, lambda key: place.move(key, force=force), as_json, reporter)
    _say_what_next(target, moved, reporter)


def find_unreadable(target: Target, look_at_all: bool, reporter: Reporter) -> list[Inspection]:
    """Return the raw objects that cannot be read to their end."""
    outputs = target.outputs
    raw = list_objects(target.s3, outputs.raw_bucket_name, outputs.raw_prefix)
    error, last_load = _last_error_and_load(target)
    candidates = suspects(raw, error, None if look_at_all else last_load)
    found = []
    with reporter.step("Reading raw objects", len(candidates)) as step, ThreadPoolExecutor(READERS) as readers:
        for inspection in readers.map(lambda each: inspect(target, outputs.raw_bucket_name, each.key), candidates):
            step.advance()
            if inspection is not None and inspection.fault is not None:
                found.append(inspection)
                step.update(note=f"{len(found):,} cannot be read")
    return found


def _last_error_and_load(target: Target) -> tuple[str, datetime | None]:
    """Return what the newest failed run said, and when the last successful load began: what it has read can be read."""
    error = ""
    for run in job_runs(target):
        if run.has_loaded:
            return error, run.started
        if run.state in FAILED_STATES and not error:
            error = run.error
    return error, None


def _ask(count: int) -> None:
    if not is_interactive():
        raise OperatorError(f"{count:,} raw object(s) cannot be read. Nothing was moved.", "To move them: --scan --yes")
    click.confirm(f"Move {count:,} object(s) to the quarantine?", abort=True, err=True)


def _for_each(
    target: Target, keys: Sequence[str], act: Callable[[str], Record], as_json: bool, reporter: Reporter
) -> list[Record]:
    """Act on each object and show it; one that is refused does not keep the others from it.

    Raises:
        OperatorError: some were refused.
    """
    done, refused = [], []
    with reporter.step("Moving objects", len(keys)) as step:
        for key in keys:
            try:
                done.append(act(raw_key(target, key)))
            except OperatorError as error:
                refused.append(error.message)
            step.advance()
    _show(target, done, as_json, reporter)
    if refused:
        raise OperatorError("\n".join(refused))
    return done


def raw_key(target: Target, word: str) -> str:
    """Return the key of a raw object that is named by its key or its address.

    Raises:
        OperatorError: it is in no raw zone.
    """
    outputs = target.outputs
    key = word.removeprefix(f"s3://{outputs.raw_bucket_name}/")
    if not key.startswith(outputs.raw_prefix):
        raise OperatorError(f"{word} is not below s3://{outputs.raw_bucket_name}/{outputs.raw_prefix}")
    return key


def _show(target: Target, records: Sequence[Record], as_json: bool, reporter: Reporter) -> None:
    if as_json:
        reporter.json([asdict(record) for record in records])
        return
    if records:
        reporter.table(
            ("object", "size", "lines that can be read", "quarantined", "why"),
            [
                (
                    record.key,
                    size_text(record.size_bytes),
                    f"{record.readable_lines:,}",
                    record.quarantined_at,
                    record.reason,
                )
                for record in records
            ],
        )


def _say_what_next(target: Target, moved: Sequence[Record], reporter: Reporter) -> None:
    if not moved:
        return
    outputs = target.outputs
    reporter.line("Every byte is kept. Run the pipeline again, or redrive the execution that failed:")
    reporter.line(f"  aws stepfunctions start-execution --state-machine-arn {outputs.state_machine_arn} --input '{{}}'")
    for record in moved:
        if record.readable_lines:
            reporter.line(f"What can be read of {record.key} is not in the table unless you send it anew:")
            reporter.line(
                f"  aws s3 cp s3://{outputs.analytics_bucket_name}/{record.quarantined_key} - | gzip -dc "
                f"| head -n {record.readable_lines} | tlake produce --file -"
            )
