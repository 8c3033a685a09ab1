"""Is a stack healthy, how fresh is it, and what is stuck: what each of its services says, and what needs a person."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.console import OperatorError, Reporter, age_text
from telemetry_lake.job_runs import job_runs
from telemetry_lake.metrics import Metric, values_of
from telemetry_lake.pipeline import (
    RUNNING,
    SUCCEEDED,
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
from telemetry_lake.queries import run_query
from telemetry_lake.rejects import counts_by, read_parked, read_rejects, resolved_ids
from telemetry_lake.target import Target

EXECUTIONS_SHOWN = 5
FAILED_STATES = ("FAILED", "TIMED_OUT", "ABORTED")
# What the state machine fails with by itself, and its check with the same input: a redrive would end there again.
OWN_FAILURES = ("CrawlFailed", "JobStillBusy", "UnknownMode", "UnusableDays", "UnusableDaysError")
OWN_COMMAND = "tlake status"
PERMISSIONS_ADVICE = "Check the permissions of whoever runs this; README, section Who may do what, lists them."
RUNNING_PIPE = "RUNNING"
# The threshold of the alarm trigger-queue-age; two windows of the pipe take ten minutes at most.
LONGEST_WAIT_SECONDS = 1800
# SQS and Firehose tell their metrics once a minute, and CloudWatch has them some minutes later.
RECENT = timedelta(minutes=15)
ALARM_TYPES = ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")

QUIET = Reporter(quiet=True)


@dataclass(frozen=True)
class Problem:
    """What needs a person, and what that person may do next."""

    what: str
    next_step: str


@dataclass(frozen=True)
class Unanswered:
    """What a service said instead of an answer, and what to do about it, empty if that is not known."""

    reason: str
    next_step: str = ""


def collect(target: Target, asking: Callable[[str], None] = lambda _name: None) -> dict[str, Any]:
    """Return what each service says, in the order of the data; an `Unanswered` where one refuses.

    ``asking(name)`` is called before each.
    """
    stops: dict[str, Any] = {}
    for name, ask in QUESTIONS.items():
        asking(name.replace("_", " "))
        try:
            stops[name] = ask(target)
        except OperatorError as error:
            stops[name] = Unanswered(error.happened, error.next_step)
        except (ClientError, BotoCoreError) as error:
            stops[name] = Unanswered(str(error))
    return stops


def problems(stops: Mapping[str, Any]) -> list[Problem]:
    """Return what needs a person out of ``collect``'s answer."""
    found = []
    for name, answer in stops.items():
        if isinstance(answer, Unanswered):
            what = f"{name.replace('_', ' ')}: no answer: {answer.reason}"
            found.append(Problem(what, answer.next_step or PERMISSIONS_ADVICE))
        elif answer is not None and name in JUDGES:
            found += JUDGES[name](answer)
    return found


# ------------------------------------------------------------------------------------------------------ questions


def _now() -> datetime:
    return datetime.now(UTC)


def _stream(target: Target) -> dict[str, Any]:
    name = target.outputs.stream_name
    stream = target.kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    return {
        "name": name,
        "status": stream["StreamStatus"],
        "mode": stream.get("StreamModeDetails", {}).get("StreamMode", ""),
        "shards": stream["OpenShardCount"],
    }


def _delivery(target: Target) -> dict[str, Any]:
    name = target.outputs.delivery_stream_name
    delivery = target.firehose.describe_delivery_stream(DeliveryStreamName=name)["DeliveryStreamDescription"]
    freshness = Metric("AWS/Firehose", "DeliveryToS3.DataFreshness", {"DeliveryStreamName": name}, "Maximum")
    return {
        "name": name,
        "status": delivery["DeliveryStreamStatus"],
        "oldest_seconds": _recent_maximum(target, freshness),
    }


def _recent_maximum(target: Target, metric: Metric) -> float | None:
    values = values_of(target, {"value": metric}, _now() - RECENT, _now())["value"]
    return max(values, default=None)


def _raw(target: Target) -> dict[str, Any]:
    outputs = target.outputs
    raw = [
        stored
        for prefix in recent_raw_prefixes(outputs.raw_prefix, _now())
        for stored in list_objects(target.s3, outputs.raw_bucket_name, prefix)
    ]
    # Every load reads what is there when it starts, and the newest execution that succeeded is listed first:
    # https://docs.aws.amazon.com/step-functions/latest/apireference/API_ListExecutions.html
    loaded = target.stepfunctions.list_executions(
        stateMachineArn=outputs.state_machine_arn, statusFilter=SUCCEEDED, maxResults=1
    )["executions"]
    waiting = [stored.last_modified for stored in raw if not loaded or stored.last_modified >= loaded[0]["startDate"]]
    return {
        "objects": len(raw),
        "bytes": sum(stored.size_bytes for stored in raw),
        "newest": max((stored.last_modified for stored in raw), default=None),
        "waiting": len(waiting),
        "waiting_since": min(waiting, default=None),
        # Without events a schedule of any length may be what they wait for.
        "waits_for_events": outputs.pipe_name is not None,
    }


def _parked(target: Target) -> dict[str, int]:
    parked = read_parked(target, QUIET)
    resolved = resolved_ids(target)
    return {"records": len(parked), "open": sum(record.reject_id not in resolved for record in parked)}


def _rejects(target: Target) -> dict[str, Any]:
    today = _now().date()
    rejects = read_rejects(target, today - timedelta(days=1), today, QUIET)
    resolved = resolved_ids(target)
    still_open = [reject for reject in rejects if reject.reject_id not in resolved]
    return {
        "distinct": len(rejects),
        "open": len(still_open),
        "open_by_reason": {reason: counts.total() for reason, counts in counts_by(still_open, "reason").items()},
    }


def _trigger(target: Target) -> dict[str, Any] | None:
    outputs = target.outputs
    if outputs.trigger_queue_url is None or outputs.trigger_dead_letter_queue_url is None or outputs.pipe_name is None:
        return None
    pipe = target.pipes.describe_pipe(Name=outputs.pipe_name)
    queue_name = outputs.trigger_queue_url.rpartition("/")[2]
    age = Metric("AWS/SQS", "ApproximateAgeOfOldestMessage", {"QueueName": queue_name}, "Maximum")
    return {
        "waiting": queue_depth(target, outputs.trigger_queue_url),
        "oldest_seconds": _recent_maximum(target, age),
        "dead_letters": queue_depth(target, outputs.trigger_dead_letter_queue_url),
        "dead_letter_queue_url": outputs.trigger_dead_letter_queue_url,
        "pipe": outputs.pipe_name,
        "pipe_state": pipe["CurrentState"],
        "pipe_reason": pipe.get("StateReason", ""),
    }


def _executions(target: Target) -> list[dict[str, Any]]:
    return [_execution(target, execution) for execution in list_executions(target, EXECUTIONS_SHOWN)]


def _execution(target: Target, execution: Execution) -> dict[str, Any]:
    return {
        "name": execution.name,
        "arn": execution.arn,
        "state_machine_arn": target.outputs.state_machine_arn,
        "status": execution.status,
        "trigger": execution.trigger,
        "objects": len(execution.object_keys),
        "started": execution.started,
        "seconds": round(execution.seconds, 1),
        "state": current_state(target, execution.arn) if execution.status == RUNNING else "",
        "error": execution.error,
        "cause": execution.cause,
    }


def _job(target: Target) -> dict[str, Any] | None:
    for run in islice(job_runs(target), 1):
        return {
            "name": target.outputs.job_name,
            "run": run.id,
            "state": run.state,
            "mode": run.mode,
            "started": run.started,
            "completed": run.completed,
            "error": run.error,
        }
    return None


def _crawler(target: Target) -> dict[str, Any]:
    crawler = target.glue.get_crawler(Name=target.outputs.crawler_name)["Crawler"]
    last = crawler.get("LastCrawl", {})
    return {
        "name": target.outputs.crawler_name,
        "state": crawler["State"],
        "last_crawl": last.get("Status"),
        "last_crawl_started": last.get("StartTime"),
        "error": last.get("ErrorMessage", ""),
    }


def _table(target: Target) -> dict[str, Any] | None:
    """The newest reading, which is in the newest day; the query reads one column of one partition."""
    days = partition_values(target)
    if not days:
        return None
    year, month, day = (int(value) for value in days[-1])
    result = run_query(
        target,
        f'SELECT max("timestamp"), count(*) FROM {target.outputs.table_name} '  # noqa: S608  names from the stack
        f"WHERE year = {year} AND month = {month} AND day = {day}",
        QUIET,
    )
    ((newest, rows),) = result.rows
    return {
        "newest_reading": None if newest is None else datetime.fromtimestamp(float(newest), UTC),
        "newest_day": partition_text(days[-1]),
        "rows_of_newest_day": int(rows or 0),
        "scanned_bytes": result.scanned_bytes,
    }


def _alarms(target: Target) -> list[dict[str, Any]]:
    """The stack's alarms that are in ALARM, the earliest first."""
    pages = target.cloudformation.get_paginator("list_stack_resources").paginate(StackName=target.stack_name)
    ours = {
        resource.get("PhysicalResourceId", "").rpartition(":")[2]
        for page in pages
        for resource in page["StackResourceSummaries"]
        if resource["ResourceType"] in ALARM_TYPES
    }
    found = target.cloudwatch.get_paginator("describe_alarms").paginate(
        StateValue="ALARM", AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    alarms = [alarm for page in found for alarm in (*page.get("MetricAlarms", []), *page.get("CompositeAlarms", []))]
    return sorted(
        (
            {
                "name": alarm["AlarmName"],
                "since": alarm["StateUpdatedTimestamp"],
                "reason": alarm.get("StateReason", ""),
                "description": alarm.get("AlarmDescription", ""),
            }
            for alarm in alarms
            if alarm["AlarmName"] in ours
        ),
        key=lambda alarm: alarm["since"],
    )


QUESTIONS: Mapping[str, Callable[[Target], Any]] = {
    "stream": _stream,
    "delivery": _delivery,
    "raw_since_yesterday": _raw,
    "parked_by_firehose": _parked,
    "rejects_since_yesterday": _rejects,
    "trigger": _trigger,
    "executions": _executions,
    "job": _job,
    "newest_run": newest_summary,
    "crawler": _crawler,
    "partitions": lambda target: [partition_text(values) for values in partition_values(target)],
    "table": _table,
    "alarms": _alarms,
}


# --------------------------------------------------------------------------------------------------------- judges


def _judge_stream(stream: Mapping[str, Any]) -> list[Problem]:
    if stream["status"] in ("ACTIVE", "UPDATING"):
        return []
    return [
        Problem(
            f"The stream {stream['name']} is {stream['status']}: producers are refused.",
            f"aws kinesis describe-stream-summary --stream-name {stream['name']}",
        )
    ]


def _judge_delivery(delivery: Mapping[str, Any]) -> list[Problem]:
    if delivery["status"] == "ACTIVE":
        return []
    return [
        Problem(
            f"Firehose {delivery['name']} is {delivery['status']}: readings are not delivered.",
            f"aws firehose describe-delivery-stream --delivery-stream-name {delivery['name']}",
        )
    ]


def _judge_raw(raw: Mapping[str, Any]) -> list[Problem]:
    if not raw["waits_for_events"] or raw["waiting_since"] is None:
        return []
    age_seconds = (_now() - raw["waiting_since"]).total_seconds()
    if age_seconds < LONGEST_WAIT_SECONDS:
        return []
    return [
        Problem(
            f"{raw['waiting']:,} raw object(s) wait for a load, the oldest for {age_text(age_seconds)}.",
            "See the executions below; tlake verify --rerun runs the pipeline now.",
        )
    ]


def _judge_parked(parked: Mapping[str, Any]) -> list[Problem]:
    if not parked["open"]:
        return []
    return [
        Problem(
            f"Firehose parked {parked['open']:,} record(s) in its error prefix: the transform failed on them.",
            "See the entry transform-errors of docs/runbook.md, then: tlake dlq replay --parked",
        )
    ]


def _judge_trigger(trigger: Mapping[str, Any]) -> list[Problem]:
    found = []
    if trigger["pipe_state"] != RUNNING_PIPE:
        reason = f" ({trigger['pipe_reason']})" if trigger["pipe_reason"] else ""
        found.append(
            Problem(
                f"The pipe {trigger['pipe']} is {trigger['pipe_state']}{reason}: raw objects start nothing.",
                f"Mend the cause, then: aws pipes start-pipe --name {trigger['pipe']}",
            )
        )
    if (trigger["oldest_seconds"] or 0) > LONGEST_WAIT_SECONDS and trigger["waiting"]:
        found.append(
            Problem(
                f"A trigger message has waited for {age_text(trigger['oldest_seconds'])}.",
                f"aws pipes describe-pipe --name {trigger['pipe']}; the entry trigger-queue-age of docs/runbook.md.",
            )
        )
    if trigger["dead_letters"]:
        found.append(
            Problem(
                f"{trigger['dead_letters']:,} trigger message(s) are in the dead letters: the next run reads their "
                "objects all the same.",
                f"aws sqs receive-message --queue-url {trigger['dead_letter_queue_url']}  (why the pipe gave up), "
                f"then: aws sqs purge-queue --queue-url {trigger['dead_letter_queue_url']}",
            )
        )
    return found


def _judge_executions(executions: list[dict[str, Any]]) -> list[Problem]:
    finished = [execution for execution in executions if execution["status"] != RUNNING]
    if not finished or finished[0]["status"] not in FAILED_STATES:
        return []
    newest = finished[0]
    cause = cause_text(newest["cause"])
    # What Glue calls an object that it cannot read.
    first = "tlake quarantine --scan, then: " if "Unable to parse file" in cause else ""
    again = f"redrive-execution --execution-arn {newest['arn']}"
    # One that ran out of time or was aborted has nobody who waits for its end, and may have hung where it stood.
    if newest["status"] != "FAILED" or newest["error"] in OWN_FAILURES:
        again = f"start-execution --state-machine-arn {newest['state_machine_arn']} --input '{{}}'"
    return [
        Problem(
            f"The newest finished execution {newest['name']} {newest['status'].lower()}: {newest['error']} "
            f"{cause[:300]}",
            f"{first}aws stepfunctions {again}",
        )
    ]


def _judge_crawler(crawler: Mapping[str, Any]) -> list[Problem]:
    if crawler["last_crawl"] != "FAILED":
        return []
    return [
        Problem(
            f"The last crawl of {crawler['name']} failed: {crawler['error']}",
            "The entry crawler-failed of docs/runbook.md.",
        )
    ]


def _judge_alarms(alarms: list[dict[str, Any]]) -> list[Problem]:
    found = []
    for alarm in alarms:
        # A description is "what. Likely: ... Next: <command> Runbook: <entry>".
        rest, _, entry = alarm["description"].partition("Runbook: ")
        command = rest.partition("Next: ")[2].strip()
        what = f"Alarm {alarm['name']} since {alarm['since']:%Y-%m-%d %H:%M:%S %Z}: {alarm['reason']}"
        if command and command != OWN_COMMAND:
            found.append(Problem(f"{what} ({entry})" if entry else what, command))
        else:
            describe = f"aws cloudwatch describe-alarms --alarm-names {alarm['name']}"
            found.append(Problem(what, f"See {entry}" if entry else describe))
    return found


JUDGES: Mapping[str, Callable[[Any], list[Problem]]] = {
    "stream": _judge_stream,
    "delivery": _judge_delivery,
    "raw_since_yesterday": _judge_raw,
    "parked_by_firehose": _judge_parked,
    "trigger": _judge_trigger,
    "executions": _judge_executions,
    "crawler": _judge_crawler,
    "alarms": _judge_alarms,
}
