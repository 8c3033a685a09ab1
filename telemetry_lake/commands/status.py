"""``tlake status``: is it healthy, how fresh is it, what is stuck."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.console import Reporter, age_text, counts_text, size_text
from telemetry_lake.health import Problem, Unanswered, collect, problems
from telemetry_lake.pipeline import SUCCEEDED

Row = tuple[str, str]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@pass_context
def status(context: Context, as_json: bool) -> None:
    """Show every stop of the way: stream, Firehose, raw zone, rejects, trigger, pipeline, job, crawler, table, alarms.

    The exit code is 1 when something needs a person; what, and the next command, is printed last. It asks Athena for
    the newest reading.
    """
    target, reporter = context.target, context.reporter
    reporter.line(f"The {target.description}")
    with reporter.step("Asking the services") as step:
        stops = collect(target, lambda name: step.update(note=name))
        step.update(note="")
    found = problems(stops)
    if as_json:
        reporter.json(as_mapping(target.stack_name, stops, found))
    else:
        _show(stops, found, reporter)
    if found:
        raise SystemExit(1)


def as_mapping(stack_name: str, stops: Mapping[str, Any], found: list[Problem]) -> dict[str, Any]:
    """Return the status for scripts; what a service refused is ``{"unanswered": reason}``."""
    return {
        "stack": stack_name,
        "healthy": not found,
        "problems": [asdict(problem) for problem in found],
        **{
            name: {"unanswered": answer.reason} if isinstance(answer, Unanswered) else answer
            for name, answer in stops.items()
        },
    }


def _show(stops: Mapping[str, Any], found: list[Problem], reporter: Reporter) -> None:
    known = {
        name: answer for name, answer in stops.items() if answer is not None and not isinstance(answer, Unanswered)
    }
    now = datetime.now(UTC)
    reporter.result(f"healthy: {'yes' if not found else f'no, {len(found)} problem(s)'}")
    reporter.result(f"fresh:   {_freshness(known, now)}")
    reporter.result(f"stuck:   {_stuck(known, now)}")
    rows = [row for name, rows_of in ROWS.items() if name in known for row in rows_of(known[name])]
    reporter.table(("stop", "what is there"), rows)
    for problem in found:
        reporter.line(f"! {problem.what}", style="yellow")
        reporter.line(f"  next: {problem.next_step}")


def _freshness(known: Mapping[str, Any], now: datetime) -> str:
    succeeded = [each["started"] for each in known.get("executions", []) if each["status"] == SUCCEEDED]
    moments = (
        ("newest reading in the table", known.get("table", {}).get("newest_reading")),
        ("newest raw object", known.get("raw_since_yesterday", {}).get("newest")),
        ("last execution that succeeded", max(succeeded, default=None)),
    )
    known_moments = [f"{what} {_ago(moment, now)}" for what, moment in moments if moment is not None]
    return ", ".join(known_moments) or "nothing has come through yet"


def _stuck(known: Mapping[str, Any], now: datetime) -> str:
    raw, trigger = known.get("raw_since_yesterday", {}), known.get("trigger", {})
    facts = []
    if raw.get("waiting"):
        facts.append(
            f"{raw['waiting']:,} raw object(s) wait for a load, the oldest written {_ago(raw['waiting_since'], now)}"
        )
    if trigger.get("waiting"):
        age = f", the oldest for {age_text(trigger['oldest_seconds'])}" if trigger["oldest_seconds"] else ""
        facts.append(f"{trigger['waiting']:,} trigger message(s) wait{age}")
    if trigger.get("dead_letters"):
        facts.append(f"{trigger['dead_letters']:,} trigger dead letter(s)")
    if known.get("parked_by_firehose", {}).get("open"):
        facts.append(f"{known['parked_by_firehose']['open']:,} record(s) parked by Firehose")
    return "; ".join(facts) or "nothing"


def _ago(moment: datetime, now: datetime) -> str:
    return f"{age_text(max(0.0, (now - moment).total_seconds()))} ago"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


# ---------------------------------------------------------------------------------------------- the rows of each stop


def _stream_rows(stream: Mapping[str, Any]) -> Iterator[Row]:
    yield "stream", f"{stream['name']}: {stream['status']}, {stream['shards']} shard(s), {stream['mode']}"


def _delivery_rows(delivery: Mapping[str, Any]) -> Iterator[Row]:
    oldest = delivery["oldest_seconds"]
    lag = "" if oldest is None else f", its oldest record is {age_text(oldest)} old"
    yield "Firehose", f"{delivery['name']}: {delivery['status']}{lag}"


def _raw_rows(raw: Mapping[str, Any]) -> Iterator[Row]:
    newest = f", newest {_time(raw['newest'])} UTC" if raw["newest"] else ""
    yield "raw zone", f"{raw['objects']:,} object(s), {size_text(raw['bytes'])} since yesterday{newest}"


def _parked_rows(parked: Mapping[str, Any]) -> Iterator[Row]:
    yield "parked by Firehose", f"{parked['records']:,} record(s), {parked['open']:,} open"


def _reject_rows(rejects: Mapping[str, Any]) -> Iterator[Row]:
    reasons = f": {counts_text(rejects['open_by_reason'])}" if rejects["open"] else ""
    yield "rejects", f"{rejects['distinct']:,} since yesterday, {rejects['open']:,} open{reasons}"


def _trigger_rows(trigger: Mapping[str, Any]) -> Iterator[Row]:
    yield (
        "trigger",
        f"pipe {trigger['pipe_state']}, {trigger['waiting']:,} waiting, {trigger['dead_letters']:,} dead letter(s)",
    )


def _execution_rows(executions: list[dict[str, Any]]) -> Iterator[Row]:
    for execution in executions:
        state = f" in {execution['state']}" if execution["state"] else ""
        objects = f", {execution['objects']} object(s)" if execution["objects"] else ""
        yield (
            "execution",
            f"{_time(execution['started'])} by {execution['trigger']}{objects}: {execution['status']}{state} "
            f"({execution['seconds']:.0f} s)",
        )


def _job_rows(job: Mapping[str, Any]) -> Iterator[Row]:
    yield "job", f"{_time(job['started'])} {job['mode']} {job['run']}: {job['state']} {job['error']}".rstrip()


def _summary_rows(run: Mapping[str, Any]) -> Iterator[Row]:
    yield "newest summary", run["job_run_id"]
    # A run of an older script has no words.
    for sentence in run.get("in_words", [counts_text(run["counts"])]):
        yield "", sentence


def _crawler_rows(crawler: Mapping[str, Any]) -> Iterator[Row]:
    when = f" at {_time(crawler['last_crawl_started'])}" if crawler["last_crawl_started"] else ""
    yield "crawler", f"{crawler['state']}, last crawl {crawler['last_crawl'] or 'never'}{when}"


def _partition_rows(partitions: list[str]) -> Iterator[Row]:
    span = f", {partitions[0]} to {partitions[-1]}" if partitions else ""
    yield "partitions", f"{len(partitions):,}{span}"


def _table_rows(table: Mapping[str, Any]) -> Iterator[Row]:
    newest = _time(table["newest_reading"]) if table["newest_reading"] else "none"
    yield "newest reading", f"{newest} UTC, one of {table['rows_of_newest_day']:,} rows of {table['newest_day']}"


def _alarm_rows(alarms: list[dict[str, Any]]) -> Iterator[Row]:
    yield "alarms in ALARM", ", ".join(alarm["name"] for alarm in alarms) or "none"


ROWS: Mapping[str, Callable[[Any], Iterator[Row]]] = {
    "stream": _stream_rows,
    "delivery": _delivery_rows,
    "raw_since_yesterday": _raw_rows,
    "parked_by_firehose": _parked_rows,
    "rejects_since_yesterday": _reject_rows,
    "trigger": _trigger_rows,
    "executions": _execution_rows,
    "job": _job_rows,
    "newest_run": _summary_rows,
    "crawler": _crawler_rows,
    "partitions": _partition_rows,
    "table": _table_rows,
    "alarms": _alarm_rows,
}
