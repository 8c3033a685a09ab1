"""``tlake dlq``: what was rejected, and why."""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click

from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.console import OperatorError, Reporter, counts_text
from telemetry_lake.rejects import Reject, counts_by, read_rejects

DAYS_SHOWN = 7
REJECTS_SHOWN = 10
EXAMPLE_LENGTH = 60
ID_LENGTH = 12

_DAY = click.DateTime(["%Y-%m-%d"])
_first = click.option("--from", "first", type=_DAY, help=f"First UTC day (default: {DAYS_SHOWN} days up to --to).")
_last = click.option("--to", "last", type=_DAY, help="Last UTC day (default: today).")
_reason = click.option("--reason", help="Only this reason, for example wrong_type.")
_device = click.option("--device", help="Only this device.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def dlq() -> None:
    """Say what was rejected and why: by the transform, by the job, and what Firehose itself has parked.

    Rejects are kept under the UTC day of their arrival, those of the job under the day of its run.
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
    if as_json:
        context.reporter.json({"from": days[0], "to": days[1], "rejects": len(rejects), by: parts})
        return
    examples = {name: reject for reject in reversed(rejects) for name in counts_by([reject], by)}
    rows = [_list_row(name, counts, examples[name], by) for name, counts in parts.items()]
    context.reporter.table((by, "rejects", "an example" if by == "reason" else "reasons", "show it"), rows)
    context.reporter.line(f"{len(rejects):,} distinct rejects from {days[0]} to {days[1]} (UTC)")


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
    for wanted in reject_ids:
        if not any(reject.reject_id.startswith(wanted) for reject in rejects):
            raise OperatorError(
                f"No reject {wanted} is kept under the days from {days[0]} to {days[1]} (UTC).",
                "tlake dlq list counts what there is; --from and --to choose other days.",
            )
    if reject_ids:
        rejects = [reject for reject in rejects if reject.reject_id.startswith(tuple(reject_ids))]
    shown = rejects if reject_ids else rejects[:limit]
    if as_json:
        context.reporter.json([as_mapping(reject) for reject in shown])
        return
    for reject in shown:
        _show(reject, context.reporter)
    context.reporter.line(f"{len(shown):,} of {len(rejects):,} distinct rejects from {days[0]} to {days[1]} (UTC)")


def as_mapping(reject: Reject) -> dict[str, Any]:
    """Return a reject for scripts; ``original`` is None where it is not UTF-8, and ``original_base64`` then is not."""
    try:
        original = {"original": reject.original.decode("utf-8"), "original_base64": None}
    except UnicodeDecodeError:
        original = {"original": None, "original_base64": base64.b64encode(reject.original).decode()}
    return {**vars(reject), **original}


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


def _list_row(name: str, counts: Mapping[str, int], example: Reject, by: str) -> tuple[str, str, str, str]:
    text = _shortened(example.original) if by == "reason" else counts_text(counts)
    return name, f"{sum(counts.values()):,}", text, f"tlake dlq show {example.reject_id[:ID_LENGTH]}"


def _shortened(original: bytes) -> str:
    text = _printable(_as_text(original))
    return text if len(text) <= EXAMPLE_LENGTH else f"{text[:EXAMPLE_LENGTH]}…"


def _as_text(original: bytes) -> str:
    return original.decode("utf-8", "backslashreplace")


def _printable(text: str) -> str:
    """Return text as one line that does nothing to a terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _show(reject: Reject, reporter: Reporter) -> None:
    reporter.result(f"reject {reject.reject_id}")
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
