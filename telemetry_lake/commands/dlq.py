"""``tlake dlq``: what was rejected and why, and how it is sent again."""

import base64
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click

from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.console import OperatorError, Reporter, counts_text, is_interactive
from telemetry_lake.deployment import wait_until_delivering
from telemetry_lake.rejects import Reject, counts_by, read_parked, read_rejects, resolved_ids
from telemetry_lake.replay import Plan, Replay, make_plan
from telemetry_lake.target import Target

DAYS_SHOWN = 7
REJECTS_SHOWN = 10
EXAMPLE_LENGTH = 60
ID_LENGTH = 12
# Buffers, windows, a job and a crawl at the template's defaults take a quarter of an hour; a schedule alone, an hour.
WAIT_SECONDS = 5400.0

_DAY = click.DateTime(["%Y-%m-%d"])
_first = click.option("--from", "first", type=_DAY, help=f"First UTC day (default: {DAYS_SHOWN} days up to --to).")
_last = click.option("--to", "last", type=_DAY, help="Last UTC day (default: today).")
_reason = click.option("--reason", help="Only this reason, for example wrong_type.")
_device = click.option("--device", help="Only this device.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def dlq() -> None:
    """Say what was rejected and why: by the transform, by the job, and what Firehose itself has parked.

    Rejects are kept under the UTC day of their arrival, those of the job under the day of its run. One is open until a
    replay has seen what became of it.
    """


@dlq.command("list")
@_first
@_last
@_reason
@_device
@click.option(
    "--by", type=click.Choice(["reason", "device", "day"]), default="reason", show_default=True, help="What to count."
)
@_json
@pass_context
def list_command(
    context: Context,
    *,
    first: datetime | None,
    last: datetime | None,
    reason: str | None,
    device: str | None,
    by: str,
    as_json: bool,
) -> None:
    """Count the rejects by reason, device or day, with an example of each."""
    days = _days(first, last)
    rejects = _chosen(read_rejects(context.target, *days, context.reporter), reason, device)
    parts = counts_by(rejects, by)
    still_open = open_ones(rejects, resolved_ids(context.target))
    open_parts = counts_by(still_open, by)
    if as_json:
        facts = {"from": days[0], "to": days[1], "rejects": len(rejects), "open": len(still_open)}
        context.reporter.json({**facts, by: parts, f"open_by_{by}": open_parts})
        return
    examples = {name: reject for reject in reversed(rejects) for name in counts_by([reject], by)}
    rows = [
        _list_row(name, counts, open_parts.get(name, Counter()), examples[name], by) for name, counts in parts.items()
    ]
    context.reporter.table((by, "rejects", "open", "an example" if by == "reason" else "reasons", "show it"), rows)
    context.reporter.line(
        f"{len(rejects):,} distinct rejects from {days[0]} to {days[1]} (UTC), {len(still_open):,} of them open"
    )


@dlq.command("show")
@click.argument("reject_ids", nargs=-1, metavar="[REJECT_ID]...")
@_first
@_last
@_reason
@_device
@click.option("--limit", type=click.IntRange(min=1), default=REJECTS_SHOWN, show_default=True, help="Rejects to show.")
@_json
@pass_context
def show_command(
    context: Context,
    *,
    reject_ids: Sequence[str],
    first: datetime | None,
    last: datetime | None,
    reason: str | None,
    device: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show rejects whole, the newest first: the original, why it was rejected, and where it came from.

    The beginning of an id is enough. Without ids: the newest ones.
    """
    days = _days(first, last)
    rejects = _chosen(read_rejects(context.target, *days, context.reporter), reason, device)[::-1]
    resolved = resolved_ids(context.target)
    named = _named(rejects, reject_ids, days)
    shown = named if reject_ids else named[:limit]
    if as_json:
        context.reporter.json([as_mapping(reject, is_open=reject.reject_id not in resolved) for reject in shown])
        return
    for reject in shown:
        _show(reject, reject.reject_id not in resolved, context.reporter)
    context.reporter.line(f"{len(shown):,} of {len(rejects):,} distinct rejects from {days[0]} to {days[1]} (UTC)")


@dlq.command("replay")
@click.argument("reject_ids", nargs=-1, metavar="[REJECT_ID]...")
@_first
@_last
@_reason
@_device
@click.option("--parked", is_flag=True, help="What Firehose has parked, of all days, and nothing else.")
@click.option("--send-invalid", is_flag=True, help="Put what the contract would reject again, too.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=WAIT_SECONDS,
    show_default=True,
    help="How long to wait until everything is seen.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json
@pass_context
def replay_command(
    context: Context,
    *,
    reject_ids: Sequence[str],
    first: datetime | None,
    last: datetime | None,
    reason: str | None,
    device: str | None,
    parked: bool,
    send_invalid: bool,
    wait_seconds: float,
    yes: bool,
    as_json: bool,
) -> None:
    """Put open rejects on the stream again, and resolve those that are seen in the table or in a new reject.

    They are chosen as by show. The dead letters stay as they are; a tombstone under dlq/resolved/ says that one is
    resolved. If this is interrupted, run it again. The exit code is 0 only when all that was put has been seen.
    """
    if parked and (first or last):
        raise OperatorError("--parked is for all days.", "Leave out --from and --to.")
    target, reporter = context.target, context.reporter
    reporter.line(f"The {target.description}")
    days = _days(first, last)
    found = read_parked(target, reporter) if parked else read_rejects(target, *days, reporter)
    chosen = _named(_chosen(found, reason, device), reject_ids, days)
    still_open = open_ones(chosen, resolved_ids(target))
    with reporter.step("Asking what the table holds already") as step:
        plan = make_plan(target, still_open, send_invalid=send_invalid, now=time.time(), step=step)
    for label, sentence in _plan_lines(target, plan, len(chosen) - len(still_open)):
        reporter.fact(label, sentence)
    replay = Replay(target, plan)
    if plan.to_put or plan.stored_already:
        if not yes:
            _ask()
        _run(target, replay, plan, wait_seconds, reporter)
    _report(replay, plan, as_json, reporter)


def _plan_lines(target: Target, plan: Plan, resolved_before: int) -> Iterator[tuple[str, str]]:
    if resolved_before:
        yield "resolved already", f"{resolved_before:,}"
    if plan.left_out:
        yield "left out", f"{counts_text(plan.left_out)}: would be rejected again (--send-invalid puts them too)"
    if plan.taken_apart:
        yield "left out", f"{plan.taken_apart:,}: put alone they would be taken for something else"
    if plan.stored_already:
        yield "stored already", f"{len(plan.stored_already):,}: get their tombstone, and are not put"
    yield "put again", f"{len(plan.to_put):,} records on {target.outputs.stream_name}, judged as new arrivals"
    if plan.to_put:
        yield "then", "each is seen in the table, or in a new reject, before its tombstone is written"


def _ask() -> None:
    if not is_interactive():
        raise OperatorError("Nothing was done: this is no terminal to ask on.", "Say --yes to go on without asking.")
    click.confirm("Go on?", abort=True, err=True)


def _run(target: Target, replay: Replay, plan: Plan, wait_seconds: float, reporter: Reporter) -> None:
    replay.resolve_what_is_stored()
    if not plan.to_put:
        return
    wait_until_delivering(target, reporter)
    try:
        with reporter.step("Putting rejects on the stream", len(plan.to_put)) as step:
            replay.put(step)
        with reporter.step("Waiting until they are seen", len(plan.to_put)) as step:
            replay.wait(wait_seconds, step)
    except KeyboardInterrupt:
        reporter.line("What has not been seen stays open: run the same command again.")
        raise


def _report(replay: Replay, plan: Plan, as_json: bool, reporter: Reporter) -> None:
    """Print what became of everything.

    Raises:
        OperatorError: something was not seen.
    """
    outcomes = Counter(candidate.outcome.value for candidate in replay.resolved)
    if as_json:
        reporter.json(
            {
                "put": len(plan.to_put),
                "stored_already": len(plan.stored_already),
                "left_out": plan.left_out,
                "resolved": {candidate.reject.reject_id: candidate.outcome for candidate in replay.resolved},
                "new_reject_ids": [each for candidate in replay.resolved for each in candidate.new_rejects],
                "open": {candidate.reject.reject_id: candidate.stays_open for candidate in replay.waiting},
            }
        )
    else:
        reporter.result(f"Resolved: {counts_text(outcomes) or 'nothing'}.")
    if replay.waiting:
        named = next((candidate for candidate in replay.waiting if candidate.stays_open), replay.waiting[0])
        raise OperatorError(
            f"{len(replay.waiting):,} put and not resolved, such as {named.reject.reject_id[:ID_LENGTH]}: "
            f"{named.stays_open or 'seen neither in the table nor in a new reject yet'}.",
            "They stay open. tlake status shows where readings are; run the same command again later.",
        )


def open_ones(rejects: Sequence[Reject], resolved: Collection[str]) -> list[Reject]:
    """Return those that have no tombstone."""
    return [reject for reject in rejects if reject.reject_id not in resolved]


def _named(rejects: Sequence[Reject], reject_ids: Sequence[str], days: tuple[date, date]) -> list[Reject]:
    """Return the rejects whose ids begin as given, all of them if none is.

    Raises:
        OperatorError: one of the ids is none of theirs.
    """
    for wanted in reject_ids:
        if not any(reject.reject_id.startswith(wanted) for reject in rejects):
            raise OperatorError(
                f"No reject {wanted} is kept under the days from {days[0]} to {days[1]} (UTC).",
                "tlake dlq list counts what there is; --from and --to choose other days.",
            )
    return [reject for reject in rejects if not reject_ids or reject.reject_id.startswith(tuple(reject_ids))]


def as_mapping(reject: Reject, *, is_open: bool) -> dict[str, Any]:
    """Return a reject for scripts; ``original`` is None where it is not UTF-8, and ``original_base64`` then is not."""
    try:
        original = {"original": reject.original.decode("utf-8"), "original_base64": None}
    except UnicodeDecodeError:
        original = {"original": None, "original_base64": base64.b64encode(reject.original).decode()}
    place = None if reject.place is None else asdict(reject.place)
    return {**vars(reject), **original, "place": place, "state": _state(is_open)}


def _state(is_open: bool) -> str:
    return "open" if is_open else "resolved"


def _days(first: datetime | None, last: datetime | None) -> tuple[date, date]:
    end = last.date() if last is not None else datetime.now(UTC).date()
    begin = first.date() if first is not None else end - timedelta(days=DAYS_SHOWN - 1)
    if begin > end:
        raise OperatorError(f"--from {begin} is after --to {end}.")
    return begin, end


def _chosen(rejects: Sequence[Reject], reason: str | None, device: str | None) -> list[Reject]:
    return [
        reject
        for reject in rejects
        if (reason is None or reject.reason == reason) and (device is None or reject.device_id == device)
    ]


def _list_row(
    name: str, counts: Counter[str], still_open: Counter[str], example: Reject, by: str
) -> tuple[str, str, str, str, str]:
    text = _shortened(example.original) if by == "reason" else counts_text(counts)
    return (
        name,
        f"{counts.total():,}",
        f"{still_open.total():,}",
        text,
        f"tlake dlq show {example.reject_id[:ID_LENGTH]}",
    )


def _shortened(original: bytes) -> str:
    text = _printable(_as_text(original))
    return text if len(text) <= EXAMPLE_LENGTH else f"{text[:EXAMPLE_LENGTH]}…"


def _as_text(original: bytes) -> str:
    return original.decode("utf-8", "backslashreplace")


def _printable(text: str) -> str:
    """Return text as one line that does nothing to a terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _show(reject: Reject, is_open: bool, reporter: Reporter) -> None:
    reporter.result(f"reject {reject.reject_id} ({_state(is_open)})")
    facts = (
        ("reason", f"{reject.reason} ({reject.stage})"),
        ("why", reject.detail),
        ("device", reject.device_id or ""),
        ("from", reject.source),
        ("arrived", reject.arrived_at or ""),
        ("kept in", reject.address),
        ("original", _as_text(reject.original)),
    )
    for label, value in facts:
        if value:
            reporter.result(f"  {label:<9} {_printable(value)}")
    reporter.result("")
