"""``tlake reprocess``: let the job read raw objects again, and show that nothing changed that should not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.console import OperatorError, Reporter, counts_text, is_interactive
from telemetry_lake.job_runs import assert_none_active
from telemetry_lake.pipeline import EXECUTION_SECONDS, follow_execution, start_execution
from telemetry_lake.reprocess import Look, Plan, look, losses, make_plan, move_bookmark_back, new_loads, plan_lines
from telemetry_lake.target import Target


def parse_moment(text: str) -> datetime:
    """Read a day or a time in ISO 8601; UTC unless it says otherwise.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time such as 2026-11-20 or 2026-11-20T05:00:00+09:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


@click.command()
@click.option(
    "--from",
    "since",
    metavar="TIME",
    callback=lambda _context, _parameter, text: None if text is None else parse_moment(text),
    help="Read again what was written to the raw zone from then on, UTC (default: everything).",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@pass_context
def reprocess(context: Context, since: datetime | None, yes: bool, as_json: bool) -> None:
    """Move the job's bookmark back and run the pipeline.

    The job finds what the table holds already, so nothing is stored twice; what was missing is stored. Rows, readings,
    partitions and rejects are counted before and after. The exit code is 1 if the table has lost or doubled anything.
    """
    target, reporter = context.target, context.reporter
    reporter.line(f"The {target.description}")
    assert_none_active(target)
    plan = make_plan(target, since, reporter)
    for label, sentence in plan_lines(plan, since, target.outputs.job_name):
        reporter.fact(label, sentence)
    if not yes:
        _ask()
    before = look(target, reporter)
    # Counting takes a while, and a run that is at work when the bookmark moves cannot commit its own.
    assert_none_active(target)
    move_bookmark_back(target, plan)
    arn = _run(target, reporter)
    after = look(target, reporter)
    loads = new_loads(target, before)
    found = losses(before, after)
    if as_json:
        reporter.json(_as_mapping(plan, arn, loads, before, after) | {"lost_or_doubled": found})
    else:
        _show(loads, before, after, reporter)
    if found:
        raise OperatorError(
            "The table is not as it was:\n" + "\n".join(f"  {loss}" for loss in found),
            "Stop the triggers, keep the raw zone as it is, and see the entry reprocess in docs/runbook.md.",
        )


def _ask() -> None:
    if not is_interactive():
        raise OperatorError("Nothing was done: this is no terminal to ask on.", "Say --yes to go on without asking.")
    click.confirm("Go on?", abort=True, err=True)


def _run(target: Target, reporter: Reporter) -> str:
    arn = start_execution(target, {})
    try:
        with reporter.step("Running the pipeline") as step:
            follow_execution(target, arn, step, EXECUTION_SECONDS)
    except KeyboardInterrupt:
        reporter.line("The execution goes on without you: tlake status shows it.")
        raise
    except OperatorError as error:
        raise OperatorError(
            f"{error.happened}\nThe bookmark stays moved back: the next run that succeeds reads all of it.",
            f"{error.next_step}\nMend the cause, then run tlake reprocess again.",
        ) from error
    return arn


def _totals(loads: Sequence[Mapping[str, Any]]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for summary in loads:
        totals.update(summary["counts"])
    return totals


def _show(loads: Sequence[Mapping[str, Any]], before: Look, after: Look, reporter: Reporter) -> None:
    was, now = before.counts(), after.counts()
    reporter.table(
        ("what is stored", "before", "after", "change"),
        [(name, f"{was[name]:,}", f"{now[name]:,}", f"{now[name] - was[name]:+,}") for name in was],
    )
    totals = _totals(loads)
    reporter.line(f"Read by {len(loads):,} run(s): {counts_text(totals)}.")
    if totals["new"]:
        reporter.line(f"{totals['new']:,} readings were stored: they had been missing, or arrived meanwhile.")
    else:
        reporter.line("Nothing was missing, and nothing was stored twice.")


def _as_mapping(plan: Plan, arn: str, loads: Sequence[Mapping[str, Any]], before: Look, after: Look) -> dict[str, Any]:
    return {
        "bookmark_back_to_run": plan.after.id if plan.after is not None else None,
        "raw_objects": plan.objects,
        "raw_bytes": plan.size_bytes,
        "execution": arn,
        "job_runs": [summary["job_run_id"] for summary in loads],
        "read": dict(_totals(loads)),
        "before": before.counts(),
        "after": after.counts(),
    }
