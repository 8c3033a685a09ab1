"""From an event to a message: what is wrong in one sentence, since when, where the runbook helps, what to do next.

Pure functions, one for each kind of event. What none of them understands is passed on whole: a message that is hard to
read is better than none.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from alarm_notifier.settings import Settings

MAX_SUBJECT_LENGTH = 99
"""A subject has fewer than 100 characters (https://docs.aws.amazon.com/sns/latest/api/API_Publish.html)."""

MAX_BODY_BYTES = 250_000
"""A message has at most 262,144 bytes (same page); the rest is left for SNS's own envelope."""

_MAX_CAUSE_LENGTH = 2_000


@dataclass(frozen=True, slots=True)
class Notification:
    """One message for people.

    Attributes:
        subject: printable ASCII on one line, of fewer than 100 characters.
        body: the message, at most `MAX_BODY_BYTES` in UTF-8.
    """

    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class _Finding:
    """What an event says, before it is laid out."""

    state: str
    sentence: str
    since: str
    reason: str
    runbook: str
    next_command: str
    console: str


def notifications_of(event: Mapping[str, Any], settings: Settings) -> tuple[Notification, ...]:
    """The messages that an invocation's event stands for: one for each SNS record, else one.

    Args:
        event: an SNS event (https://docs.aws.amazon.com/lambda/latest/dg/with-sns.html) or an EventBridge event
            (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html).
        settings: the stack's names.
    """
    records = event.get("Records")
    if isinstance(records, list) and records:
        found = (_of_sns_record(record, settings) for record in records)
        return tuple(notification for notification in found if notification is not None)
    return (_of_bridge_event(event, settings),)


def _of_sns_record(record: Any, settings: Settings) -> Notification | None:
    try:
        message = record["Sns"]["Message"]
    except (KeyError, TypeError):
        return _pass_on(record, settings)
    try:
        alarm = json.loads(message)
        if (alarm.get("OldStateValue"), alarm.get("NewStateValue")) == ("INSUFFICIENT_DATA", "OK"):
            return None  # a new alarm has found its first data, and all is well
        return _lay_out(_alarm_finding(alarm, settings), settings)
    except (KeyError, TypeError, ValueError, AttributeError):
        return _pass_on(message, settings)


def _of_bridge_event(event: Mapping[str, Any], settings: Settings) -> Notification:
    finding_of = _BRIDGE_FINDINGS.get(str(event.get("detail-type")))
    if finding_of is None:
        return _pass_on(event, settings)
    try:
        return _lay_out(finding_of(event, settings), settings)
    except (KeyError, TypeError, ValueError, AttributeError):
        return _pass_on(event, settings)


def _alarm_finding(alarm: Mapping[str, Any], settings: Settings) -> _Finding:
    """A CloudWatch alarm's change of state, as its action publishes it.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html
    """
    name = alarm["AlarmName"]
    state = alarm["NewStateValue"]
    region = str(alarm["AlarmArn"]).split(":")[3]
    # The template writes each description as one sentence and the section of the runbook.
    sentence, _, runbook = str(alarm.get("AlarmDescription") or "").partition(" Runbook: ")
    return _Finding(
        state=state,
        sentence={
            "ALARM": sentence or f"The alarm {name} has gone off.",
            "OK": f"Over: {sentence or name}",
        }.get(state, f"CloudWatch cannot tell: {sentence or name}"),
        since=str(alarm["StateChangeTime"]),
        reason=str(alarm.get("NewStateReason") or ""),
        runbook=runbook or settings.runbook_url,
        next_command=_command("aws", "cloudwatch", "describe-alarm-history", "--region", region, "--alarm-name", name),
        console=_console(region, f"cloudwatch/home?region={region}#alarmsV2:alarm/{quote(name, safe='')}"),
    )


def _execution_finding(event: Mapping[str, Any], settings: Settings) -> _Finding:
    """An execution of the pipeline that has ended without success.

    https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html
    """
    detail = event["detail"]
    region = event["region"]
    status = detail["status"]
    arn = detail["executionArn"]
    machine = str(detail["stateMachineArn"]).rpartition(":")[2]
    ending = {"FAILED": "failed", "TIMED_OUT": "ran out of time", "ABORTED": "was aborted"}.get(status, f"is {status}")
    section = "pipeline-timed-out" if status == "TIMED_OUT" else "pipeline-failed"
    return _Finding(
        state=status,
        sentence=f"An execution of {machine} {ending}: {detail['name']}.",
        since=str(event["time"]),
        reason=": ".join(str(detail[name]) for name in ("error", "cause") if detail.get(name)),
        runbook=f"{settings.runbook_url}#{section}",
        # Redrive continues at the state that failed, with what the others already did.
        next_command=_command("aws", "stepfunctions", "redrive-execution", "--region", region, "--execution-arn", arn),
        console=_console(region, f"states/home?region={region}#/v2/executions/details/{arn}"),
    )


def _job_finding(event: Mapping[str, Any], settings: Settings) -> _Finding:
    """A run of the Glue job that has ended without success.

    https://docs.aws.amazon.com/glue/latest/dg/automating-awsglue-with-cloudwatch-events.html
    """
    detail = event["detail"]
    region = event["region"]
    job = detail["jobName"]
    run = detail["jobRunId"]
    ending = {"FAILED": "failed", "TIMEOUT": "ran out of time", "STOPPED": "was stopped"}.get(
        detail["state"], f"is {detail['state']}"
    )
    return _Finding(
        state=detail["state"],
        sentence=f"A run of the Glue job {job} {ending}: {run}.",
        since=str(event["time"]),
        reason=str(detail.get("message") or ""),
        runbook=f"{settings.runbook_url}#job-failed",
        next_command=_command("aws", "glue", "get-job-run", "--region", region, "--job-name", job, "--run-id", run),
        console=_console(region, f"gluestudio/home?region={region}#/job/{quote(job)}/run/{quote(run)}"),
    )


def _crawler_finding(event: Mapping[str, Any], settings: Settings) -> _Finding:
    """A crawl that has failed.

    https://docs.aws.amazon.com/eventbridge/latest/ref/events-ref-glue.html
    """
    detail = event["detail"]
    region = event["region"]
    crawler = detail["crawlerName"]
    return _Finding(
        state=detail["state"],
        sentence=f"The crawler {crawler} failed: new partitions may be missing in Athena.",
        since=str(event["time"]),
        reason=str(detail.get("errorMessage") or detail.get("message") or ""),
        runbook=f"{settings.runbook_url}#crawler-failed",
        next_command=_command("aws", "glue", "get-crawler", "--region", region, "--name", crawler),
        console=_console(region, f"glue/home?region={region}#/v2/data-catalog/crawlers/view/{quote(crawler)}"),
    )


_BRIDGE_FINDINGS: Mapping[str, Callable[[Mapping[str, Any], Settings], _Finding]] = {
    "Step Functions Execution Status Change": _execution_finding,
    "Glue Job State Change": _job_finding,
    "Glue Crawler State Change": _crawler_finding,
}


def _lay_out(finding: _Finding, settings: Settings) -> Notification:
    lines = [
        finding.sentence,
        "",
        f"State:   {finding.state} since {finding.since}",
        f"Stack:   {settings.stack_name} (stage {settings.stage})",
        f"Reason:  {_cut(finding.reason, _MAX_CAUSE_LENGTH) or 'none given'}",
        f"Runbook: {finding.runbook}",
        f"Next:    {finding.next_command}",
        f"Console: {finding.console}",
    ]
    return _notification(f"[{settings.stack_name}] {finding.state}: {finding.sentence}", "\n".join(lines))


def _pass_on(content: Any, settings: Settings) -> Notification:
    text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)
    body = f"{settings.stack_name} (stage {settings.stage}) was sent this, which it does not understand:\n\n{text}\n"
    return _notification(f"[{settings.stack_name}] a message that could not be read", body)


def _notification(subject: str, body: str) -> Notification:
    printable = "".join(character if " " <= character <= "~" else "?" for character in subject)
    # A lone surrogate, which JSON can spell, is no UTF-8; and a cut may fall inside a character.
    encoded = body.encode("utf-8", "replace")[:MAX_BODY_BYTES]
    return Notification(_cut(printable, MAX_SUBJECT_LENGTH), encoded.decode("utf-8", "ignore"))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _command(*words: str) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _console(region: str, path: str) -> str:
    return f"https://{region}.console.aws.amazon.com/{path}"
