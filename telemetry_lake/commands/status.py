"""``tlake status``: where the readings are."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.console import Reporter, counts_text, size_text
from telemetry_lake.pipeline import (
    Execution,
    cause_text,
    current_state,
    list_executions,
    list_objects,
    newest_summary,
    partition_text,
    partition_values,
    queue_depth,
    recent_raw_prefixes,
)
from telemetry_lake.target import Target

EXECUTIONS_SHOWN = 5
FAILED_STATES = ("FAILED", "TIMED_OUT", "ABORTED")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@pass_context
def status(context: Context, as_json: bool) -> None:
    """Show every stop of the way: stream, Firehose, raw zone, trigger, pipeline, table.

    The exit code is 1 when something needs a person: Firehose is not delivering, the newest execution failed, records
    are in Firehose's error prefix, or trigger messages are in the dead letters.
    """
    target, reporter = context.target, context.reporter
    reporter.line(f"The {target.description}")
    with reporter.step("Asking the services") as step:
        stops = collect(target, lambda name: step.update(note=name))
        step.update(note="")
    stops["problems"] = problems(stops)
    if as_json:
        reporter.json(stops)
    else:
        _show(stops, reporter)
    if stops["problems"]:
        raise SystemExit(1)


def collect(target: Target, asking: Any = lambda _name: None) -> dict[str, Any]:
    """Return what each service says, in the order of the data; ``asking(name)`` is called before each."""
    outputs = target.outputs
    now = datetime.now(UTC)
    asking("Kinesis")
    stream = target.kinesis.describe_stream_summary(StreamName=outputs.stream_name)["StreamDescriptionSummary"]
    asking("Firehose")
    delivery = target.firehose.describe_delivery_stream(DeliveryStreamName=outputs.delivery_stream_name)
    asking("S3")
    raw = [
        stored
        for prefix in recent_raw_prefixes(outputs.raw_prefix, now)
        for stored in list_objects(target.s3, outputs.raw_bucket_name, prefix)
    ]
    parked = list_objects(target.s3, outputs.raw_bucket_name, outputs.error_prefix)
    rejects = [
        stored
        for prefix in _dlq_prefixes(outputs.dlq_prefix, now)
        for stored in list_objects(target.s3, outputs.analytics_bucket_name, prefix)
    ]
    asking("Step Functions")
    executions = list_executions(target, EXECUTIONS_SHOWN)
    asking("Glue")
    crawler = target.glue.get_crawler(Name=outputs.crawler_name)["Crawler"]
    partitions = partition_values(target)
    return {
        "stack": target.stack_name,
        "stream": {
            "name": outputs.stream_name,
            "status": stream["StreamStatus"],
            "mode": stream.get("StreamModeDetails", {}).get("StreamMode", ""),
            "shards": stream["OpenShardCount"],
        },
        "delivery": {
            "name": outputs.delivery_stream_name,
            "status": delivery["DeliveryStreamDescription"]["DeliveryStreamStatus"],
        },
        "raw_since_yesterday": {
            "objects": len(raw),
            "bytes": sum(stored.size_bytes for stored in raw),
            "newest": max((stored.last_modified for stored in raw), default=None),
        },
        "parked_by_firehose": {"objects": len(parked)},
        "dlq_since_yesterday": {"objects": len(rejects), "bytes": sum(stored.size_bytes for stored in rejects)},
        "trigger": _trigger(target),
        "executions": [_execution(target, execution) for execution in executions],
        "newest_run": newest_summary(target),
        "crawler": {
            "name": outputs.crawler_name,
            "state": crawler["State"],
            "last_crawl": crawler.get("LastCrawl", {}).get("Status"),
        },
        "partitions": [partition_text(values) for values in partitions],
    }


def problems(stops: Mapping[str, Any]) -> list[str]:
    """Return what needs a person, and what that person may do, out of ``collect``'s answer."""
    found = []
    if stops["delivery"]["status"] != "ACTIVE":
        found.append(
            f"Firehose {stops['delivery']['name']} is {stops['delivery']['status']}: readings are not delivered."
        )
    if stops["parked_by_firehose"]["objects"]:
        found.append(
            f"Firehose parked records in {stops['parked_by_firehose']['objects']:,} object(s) of its error prefix: "
            "see the transform function's log."
        )
    if stops["trigger"] is not None and stops["trigger"]["dead_letters"]:
        found.append(
            f"{stops['trigger']['dead_letters']:,} trigger message(s) are in the dead letters: the schedule's next run "
            "reads their objects; see why the pipe could not start an execution."
        )
    finished = [execution for execution in stops["executions"] if execution["status"] != "RUNNING"]
    if finished and finished[0]["status"] in FAILED_STATES:
        newest = finished[0]
        cause = cause_text(newest["cause"])
        # What Glue calls an object that it cannot read.
        first = "tlake quarantine --scan, then " if "Unable to parse file" in cause else ""
        found.append(
            f"The newest finished execution {newest['name']} {newest['status'].lower()}: {newest['error']} "
            f"{cause[:300]} ({first}aws stepfunctions redrive-execution --execution-arn {newest['arn']})"
        )
    return found


def _trigger(target: Target) -> dict[str, int] | None:
    outputs = target.outputs
    if outputs.trigger_queue_url is None or outputs.trigger_dead_letter_queue_url is None:
        return None
    return {
        "waiting": queue_depth(target, outputs.trigger_queue_url),
        "dead_letters": queue_depth(target, outputs.trigger_dead_letter_queue_url),
    }


def _execution(target: Target, execution: Execution) -> dict[str, Any]:
    return {
        "name": execution.name,
        "arn": execution.arn,
        "status": execution.status,
        "trigger": execution.trigger,
        "objects": len(execution.object_keys),
        "started": execution.started,
        "seconds": round(execution.seconds, 1),
        "state": current_state(target, execution.arn) if execution.status == "RUNNING" else "",
        "error": execution.error,
        "cause": execution.cause,
    }


def _dlq_prefixes(dlq_prefix: str, now: datetime) -> list[str]:
    return [
        f"{dlq_prefix}year={day.year}/month={day.month}/day={day.day}/"
        for day in (datetime.fromordinal(now.toordinal() - age) for age in range(2))
    ]


def _show(stops: Mapping[str, Any], reporter: Reporter) -> None:
    raw, dlq, trigger, run = (
        stops[name] for name in ("raw_since_yesterday", "dlq_since_yesterday", "trigger", "newest_run")
    )
    newest = f", newest {raw['newest']:%Y-%m-%d %H:%M:%S} UTC" if raw["newest"] else ""
    stream = stops["stream"]
    rows = [
        ("stream", f"{stream['name']}: {stream['status']}, {stream['shards']} shard(s), {stream['mode']}"),
        ("Firehose", f"{stops['delivery']['name']}: {stops['delivery']['status']}"),
        ("raw zone", f"{raw['objects']:,} object(s), {size_text(raw['bytes'])} since yesterday{newest}"),
        ("rejects", f"{dlq['objects']:,} object(s), {size_text(dlq['bytes'])} since yesterday"),
        ("parked by Firehose", f"{stops['parked_by_firehose']['objects']:,} object(s)"),
    ]
    if trigger is not None:
        rows.append(("trigger queue", f"{trigger['waiting']:,} waiting, {trigger['dead_letters']:,} dead letter(s)"))
    for execution in stops["executions"]:
        state = f" in {execution['state']}" if execution["state"] else ""
        objects = f", {execution['objects']} object(s)" if execution["objects"] else ""
        rows.append(
            (
                "execution",
                f"{execution['started']:%Y-%m-%d %H:%M:%S} by {execution['trigger']}{objects}: {execution['status']}"
                f"{state} ({execution['seconds']:.0f} s)",
            )
        )
    if run is not None:
        rows.append(("newest run", run["job_run_id"]))
        # A run of an older script has no words.
        rows += [("", sentence) for sentence in run.get("in_words", [counts_text(run["counts"])])]
    partitions = stops["partitions"]
    span = f", {partitions[0]} to {partitions[-1]}" if partitions else ""
    rows.append(("crawler", f"{stops['crawler']['state']}, last crawl {stops['crawler']['last_crawl'] or 'never'}"))
    rows.append(("partitions", f"{len(partitions):,}{span}"))
    reporter.table(("stop", "what is there"), rows)
    for problem in stops["problems"]:
        reporter.line(f"! {problem}", style="yellow")
