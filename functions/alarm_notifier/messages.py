"""From an event to a message: what is wrong in one sentence, since when, the likely cause, what to do next, and links.

Pure functions, one for each kind of event. What none of them understands is passed on whole: a message that is hard to
read is better than none.

That nobody is flooded is decided elsewhere: CloudWatch acts on an alarm's changes of state alone; the template lets one
composite alarm speak for those that see one incident from several sides; and a failure whose alarm rings already
(`Notification.alarm`) is no news to the handler.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
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
        alarm: name of the alarm that rings from the first failure of this kind to the next success; empty where none
            does.
    """

    subject: str
    body: str
    alarm: str = ""


@dataclass(frozen=True, slots=True)
class _Finding:
    """What an event says, before it is laid out."""

    state: str
    sentence: str
    since: str
    likely: str
    reason: str
    runbook: str
    next_command: str
    console: str
    because: tuple[str, ...] = ()
    alarm: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """What a failure's words make likely.

    Attributes:
        words: pattern that the error or its cause contains.
        likely: the likely cause.
        section: section of the runbook.
        command: what to run next; None for the usual of its kind.
    """

    words: str
    likely: str
    section: str
    command: tuple[str, ...] | None = None


CAUSES = (
    Cause(
        "Unable to parse file",
        "an object of the raw zone is damaged; every run fails until it is taken out of the way.",
        "unreadable-object",
        ("tlake", "quarantine", "--scan"),
    ),
    Cause(
        "AthenaCheckFailed", "partitions are missing, or something else wrote into the table.", "athena-check-failures"
    ),
    Cause("CrawlFailed", "the crawler cannot add partitions, mostly for a lost permission.", "crawler-failed"),
    Cause("JobStillBusy", "a run of the job hangs.", "job-failed"),
    Cause("UnknownMode|UnusableDays", "the input of the execution is mistaken.", "pipeline-failed"),
    Cause(
        "AccessDenied|not authorized|KMS",
        "a role, a bucket policy or a key policy was changed.",
        "access-denied",
    ),
)
"""The first that fits is taken."""

# States of the machine at which nothing can be continued: https://docs.aws.amazon.com/step-functions/latest/dg/redrive-executions.html
# continues at a Fail state only to fail again.
_START_ANEW = "CrawlFailed|JobStillBusy|UnknownMode|UnusableDays"
_DESCRIPTION = re.compile(
    r"(?P<sentence>.*?)(?: Likely: (?P<likely>.*?))?(?: Next: (?P<next>.*?))?(?: Runbook: (?P<runbook>\S+))?\s*",
    re.DOTALL,
)
_NAME_PREFIX = "temperature-"


def notifications_of(event: Mapping[str, Any], settings: Settings) -> tuple[Notification, ...]:
    """The messages that an invocation's event stands for: one for each SNS record, else one; none for good news.

    Args:
        event: an SNS event (https://docs.aws.amazon.com/lambda/latest/dg/with-sns.html) or an EventBridge event
            (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html).
        settings: the stack's names.
    """
    records = event.get("Records")
    if isinstance(records, list) and records:
        found = [_of_sns_record(record, settings) for record in records]
    else:
        found = [_of_bridge_event(event, settings)]
    return tuple(notification for notification in found if notification is not None)


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


def ended_runs(event: Mapping[str, Any]) -> dict[str, int]:
    """The metric of a job run or a crawl that has ended: 1 if it failed, 0 if not; none for other events.

    AWS has no metric of either; an alarm on this one rings from the first failure to the next success.
    """
    name = {"Glue Job State Change": "JobRunsFailed", "Glue Crawler State Change": "CrawlsFailed"}.get(
        str(event.get("detail-type"))
    )
    detail = event.get("detail")
    if name is None or not isinstance(detail, Mapping) or "state" not in detail:
        return {}
    return {name: int(not _is_success(detail))}


def _is_success(detail: Mapping[str, Any]) -> bool:
    return str(detail["state"]).upper() == "SUCCEEDED"


def _of_bridge_event(event: Mapping[str, Any], settings: Settings) -> Notification | None:
    finding_of = _BRIDGE_FINDINGS.get(str(event.get("detail-type")))
    if finding_of is None:
        return _pass_on(event, settings)
    try:
        if "state" in event["detail"] and _is_success(event["detail"]):
            return None
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
    # The template writes each description in these parts; what somebody else wrote is one sentence.
    description = _DESCRIPTION.fullmatch(str(alarm.get("AlarmDescription") or ""))
    parts: dict[str, str | None] = description.groupdict() if description else {}
    sentence = parts.get("sentence") or ""
    return _Finding(
        state=state,
        sentence={
            "ALARM": sentence or f"The alarm {name} has gone off.",
            "OK": f"Over: {sentence or name}",
        }.get(state, f"CloudWatch cannot tell: {sentence or name}"),
        since=str(alarm["StateChangeTime"]),
        likely=parts.get("likely") or "",
        reason=str(alarm.get("NewStateReason") or ""),
        runbook=parts.get("runbook") or settings.runbook_url,
        next_command=parts.get("next")
        or _command("aws", "cloudwatch", "describe-alarm-history", "--region", region, "--alarm-name", name),
        console=_console(region, f"cloudwatch/home?region={region}#alarmsV2:alarm/{quote(name, safe='')}"),
        because=tuple(_ringing_children(alarm, settings)),
    )


def _ringing_children(alarm: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    """The alarms for which a composite alarm speaks and that ring, each with its section of the runbook.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Create_Composite_Alarm.html
    """
    for child in alarm.get("TriggeringChildren") or ():
        state = child["State"]
        if state["Value"] == "ALARM":
            name = str(child["Arn"]).rpartition(":")[2]
            section = name.removeprefix(_NAME_PREFIX).removesuffix(f"-{settings.stage}")
            yield f"{name} since {state['Timestamp']}, {settings.runbook_url}#{section}"


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
    reason = ": ".join(str(detail[name]) for name in ("error", "cause") if detail.get(name))
    usual = {
        "TIMED_OUT": Cause("", "a run of the job or a crawl hangs.", "pipeline-timed-out"),
        "ABORTED": Cause("", "somebody stopped it.", "pipeline-failed"),
    }.get(status, Cause("", "the reason says it.", "pipeline-failed"))
    cause = _cause(reason, usual)
    # Redrive continues at the state that failed, with what the others already did.
    command: tuple[str, ...] = ("aws", "stepfunctions", "redrive-execution", "--region", region, "--execution-arn", arn)
    if status != "FAILED" or re.match(_START_ANEW, reason):
        machine_arn = str(detail["stateMachineArn"])
        command = ("aws", "stepfunctions", "start-execution", "--region", region, "--state-machine-arn", machine_arn)
        command += ("--input", "{}")
    return _Finding(
        state=status,
        sentence=f"An execution of {machine} {ending}: {detail['name']}.",
        since=str(event["time"]),
        likely=cause.likely,
        reason=reason,
        runbook=f"{settings.runbook_url}#{cause.section}",
        next_command=_command(*(cause.command or command)),
        console=_console(region, f"states/home?region={region}#/v2/executions/details/{arn}"),
        alarm=settings.executions_alarm,
    )


def _cause(reason: str, usual: Cause) -> Cause:
    return next((cause for cause in CAUSES if re.search(cause.words, reason)), usual)


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
    reason = str(detail.get("message") or "")
    likely = "a backlog, or a run that hangs." if detail["state"] == "TIMEOUT" else "the reason says it."
    cause = _cause(reason, Cause("", likely, "job-failed"))
    usual_command = ("aws", "glue", "get-job-run", "--region", region, "--job-name", job, "--run-id", run)
    return _Finding(
        state=detail["state"],
        sentence=f"A run of the Glue job {job} {ending}: {run}.",
        since=str(event["time"]),
        likely=cause.likely,
        reason=reason,
        runbook=f"{settings.runbook_url}#{cause.section}",
        next_command=_command(*(cause.command or usual_command)),
        console=_console(region, f"gluestudio/home?region={region}#/job/{quote(job)}/run/{quote(run)}"),
        alarm=settings.job_runs_alarm,
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
        likely="its role lost a permission, or Glue has trouble; the execution starts it three times.",
        reason=str(detail.get("errorMessage") or detail.get("message") or ""),
        runbook=f"{settings.runbook_url}#crawler-failed",
        next_command=_command("aws", "glue", "get-crawler", "--region", region, "--name", crawler),
        console=_console(region, f"glue/home?region={region}#/v2/data-catalog/crawlers/view/{quote(crawler)}"),
        alarm=settings.crawls_alarm,
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
        *(f"Because: {each}" for each in finding.because),
        *([f"Likely:  {finding.likely}"] if finding.likely else []),
        f"Reason:  {_cut(finding.reason, _MAX_CAUSE_LENGTH) or 'none given'}",
        f"Next:    {finding.next_command}",
        f"Runbook: {finding.runbook}",
        f"Console: {finding.console}",
        f"Stack:   {settings.stack_name} (stage {settings.stage})",
    ]
    subject = f"[{settings.stack_name}] {finding.state}: {finding.sentence}"
    return _notification(subject, "\n".join(lines), finding.alarm)


def _pass_on(content: Any, settings: Settings) -> Notification:
    text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)
    body = f"{settings.stack_name} (stage {settings.stage}) was sent this, which it does not understand:\n\n{text}\n"
    return _notification(f"[{settings.stack_name}] a message that could not be read", body)


def _notification(subject: str, body: str, alarm: str = "") -> Notification:
    printable = "".join(character if " " <= character <= "~" else "?" for character in subject)
    # A lone surrogate, which JSON can spell, is no UTF-8; and a cut may fall inside a character.
    encoded = body.encode("utf-8", "replace")[:MAX_BODY_BYTES]
    return Notification(_cut(printable, MAX_SUBJECT_LENGTH), encoded.decode("utf-8", "ignore"), alarm)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _command(*words: str) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _console(region: str, path: str) -> str:
    return f"https://{region}.console.aws.amazon.com/{path}"
