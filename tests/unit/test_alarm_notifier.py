"""The notifier: one readable message for each alarm and failure, and nothing swallowed."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from alarm_notifier.messages import CAUSES, MAX_BODY_BYTES, MAX_SUBJECT_LENGTH, notifications_of
from alarm_notifier.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.literals import StateValueType

SETTINGS = Settings(
    stage="prod",
    metrics_namespace="TelemetryLake",
    notifications_topic_arn="arn:aws:sns:ap-northeast-1:123456789012:temperature-notifications",
    stack_name="telemetry-lake",
    runbook_url="https://example.com/runbook.md",
    executions_alarm="temperature-pipeline-failed",
    job_runs_alarm="temperature-job-failed",
    crawls_alarm="temperature-crawler-failed",
)

LoadEvent = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize(
    ("sample", "parts"),
    [
        (
            "alarm",
            [
                "The transform fails as a whole; Firehose retries, then parks the batch.\n",
                "ALARM since 2026-10-15T03:20:43.123+0000",
                "Likely:  a deployment that does not start, or a lost permission; bad readings are rejects and no err",
                "Reason:  Threshold Crossed: 1 out of the last 1 datapoints",
                "Next:    aws logs tail /aws/lambda/temperature-transform --since 1h\n",
                "Runbook: docs/runbook.md#transform-errors\n",
                "#alarmsV2:alarm/temperature-transform-errors",
            ],
        ),
        (
            "alarm_composite",
            [
                "Readings do not reach the table in time.\n",
                "Because: temperature-delivery-freshness since 2026-10-15T03:20:43.123+0000, "
                "https://example.com/runbook.md#delivery-freshness\n",
                "Reason:  arn:aws:cloudwatch:ap-northeast-1:123456789012:alarm:temperature-delivery-freshness trans",
                "Next:    tlake status\n",
                "Runbook: docs/runbook.md#data-is-late\n",
            ],
        ),
        (
            "execution_timed_out",
            [
                "An execution of temperature-pipeline ran out of time: 0f0e9c1b-5f1e-4a57-8f4a-3a4a3f6f0c11.\n",
                "Likely:  a run of the job or a crawl hangs.\n",
                "Reason:  none given\n",
                "Next:    aws stepfunctions start-execution --region ap-northeast-1 --state-machine-arn arn:aws:",
                "Runbook: https://example.com/runbook.md#pipeline-timed-out\n",
            ],
        ),
        (
            "job_failed_on_damaged_object",
            [
                "Likely:  an object of the raw zone is damaged",
                "Reason:  Unable to parse file: s3://temperature-data-bucket-123456789012-ap-northeast-1/raw_data/",
                "Next:    tlake quarantine --scan\n",
                "Runbook: https://example.com/runbook.md#unreadable-object\n",
            ],
        ),
        (
            "execution_failed",
            [
                "An execution of temperature-pipeline failed: 0f0e9c1b-5f1e-4a57-8f4a-3a4a3f6f0c11.\n",
                "FAILED since 2026-10-15T03:25:31Z",
                "Reason:  AthenaCheckFailed: {",
                "Likely:  partitions are missing, or something else wrote into the table.\n",
                "Runbook: https://example.com/runbook.md#athena-check-failures\n",
                "redrive-execution --region ap-northeast-1 --execution-arn arn:aws:states:",
                "#/v2/executions/details/arn:aws:states:",
            ],
        ),
        (
            "job_failed",
            [
                "A run of the Glue job temperature-etl failed: jr_0123456789",
                "Reason:  An object of the raw zone cannot be read\n",
                "Runbook: https://example.com/runbook.md#job-failed\n",
                "aws glue get-job-run --region ap-northeast-1 --job-name temperature-etl --run-id jr_0123456789",
            ],
        ),
        (
            "crawler_failed",
            [
                "The crawler temperature-crawler failed",
                "Reason:  Internal Service Exception\n",
                "Runbook: https://example.com/runbook.md#crawler-failed\n",
                "aws glue get-crawler --region ap-northeast-1 --name temperature-crawler",
            ],
        ),
    ],
)
def test_a_message_says_what_since_when_where_and_what_next(
    sample: str, parts: list[str], load_event: LoadEvent
) -> None:
    # WHEN
    (notification,) = notifications_of(load_event(f"alarm_notifier/{sample}.json"), SETTINGS)

    # THEN
    for part in parts:
        assert part in notification.body
    assert "Stack:   telemetry-lake (stage prod)" in notification.body
    assert notification.subject.startswith("[telemetry-lake] ")


def test_an_alarm_that_is_over_says_so(load_event: LoadEvent) -> None:
    # GIVEN
    event = load_event("alarm_notifier/alarm.json")
    alarm = json.loads(event["Records"][0]["Sns"]["Message"])
    event["Records"][0]["Sns"]["Message"] = json.dumps({**alarm, "NewStateValue": "OK"})

    # WHEN
    (notification,) = notifications_of(event, SETTINGS)

    # THEN
    assert notification.subject.startswith("[telemetry-lake] OK: Over: The transform fails")


def test_an_alarm_without_a_description_names_itself_and_the_runbook(load_event: LoadEvent) -> None:
    # GIVEN
    event = load_event("alarm_notifier/alarm.json")
    alarm = json.loads(event["Records"][0]["Sns"]["Message"])
    event["Records"][0]["Sns"]["Message"] = json.dumps({**alarm, "AlarmDescription": None})

    # WHEN
    (notification,) = notifications_of(event, SETTINGS)

    # THEN
    assert "The alarm temperature-transform-errors has gone off." in notification.body
    assert "Runbook: https://example.com/runbook.md\n" in notification.body


@pytest.mark.parametrize("status", ["TIMED_OUT", "ABORTED"])
def test_each_ending_of_an_execution_is_told_apart(status: str, load_event: LoadEvent) -> None:
    # GIVEN
    event = load_event("alarm_notifier/execution_failed.json")
    event["detail"] |= {"status": status, "error": None, "cause": None}

    # WHEN
    (notification,) = notifications_of(event, SETTINGS)

    # THEN
    assert {"TIMED_OUT": "ran out of time", "ABORTED": "was aborted"}[status] in notification.subject
    assert "Reason:  none given" in notification.body


@pytest.mark.parametrize(
    ("error", "cause", "section", "command"),
    [
        ("CrawlFailed", "After three crawls", "crawler-failed", "start-execution"),
        ("JobStillBusy", "Other runs", "job-failed", "start-execution"),
        ("UnknownMode", "The input", "pipeline-failed", "start-execution"),
        ("States.TaskFailed", '{"ErrorMessage": "Unable to parse file: s3://b/x"}', "unreadable-object", "quarantine"),
        ("Glue.AccessDeniedException", "not authorized to perform", "access-denied", "redrive-execution"),
        ("States.TaskFailed", "something new", "pipeline-failed", "redrive-execution"),
    ],
)
def test_a_failure_leads_to_its_section_and_its_command(
    error: str, cause: str, section: str, command: str, load_event: LoadEvent
) -> None:
    # GIVEN
    event = load_event("alarm_notifier/execution_failed.json")
    event["detail"] |= {"error": error, "cause": cause}

    # WHEN
    (notification,) = notifications_of(event, SETTINGS)

    # THEN
    assert f"Runbook: https://example.com/runbook.md#{section}\n" in notification.body
    assert command in notification.body.partition("Next:")[2].splitlines()[0]


def test_every_section_that_a_message_names_is_in_the_runbook() -> None:
    # GIVEN
    runbook = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text("utf-8")
    sections = {cause.section for cause in CAUSES} | {"pipeline-failed", "pipeline-timed-out", "job-failed"}

    # THEN
    assert sections <= set(re.findall(r"^## ([a-z0-9-]+)$", runbook, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("description", "sentence", "parts"),
    [
        ("Somebody else's words.", "Somebody else's words.", {"Runbook": "https://example.com/runbook.md"}),
        ("It burns. Runbook: r.md#x", "It burns.", {"Runbook": "r.md#x"}),
        ("It burns. Likely: heat. Runbook: r.md#x", "It burns.", {"Likely": "heat.", "Runbook": "r.md#x"}),
        (
            "It burns. Likely: heat. Next: call help Runbook: r.md#x\n",
            "It burns.",
            {"Likely": "heat.", "Next": "call help", "Runbook": "r.md#x"},
        ),
    ],
)
def test_a_description_is_taken_apart_as_far_as_it_goes(
    description: str, sentence: str, parts: dict[str, str], load_event: LoadEvent
) -> None:
    # GIVEN
    event = load_event("alarm_notifier/alarm.json")
    alarm = json.loads(event["Records"][0]["Sns"]["Message"])
    event["Records"][0]["Sns"]["Message"] = json.dumps({**alarm, "AlarmDescription": description})

    # WHEN
    (notification,) = notifications_of(event, SETTINGS)

    # THEN
    lines = notification.body.splitlines()
    assert lines[0] == sentence
    found = dict(line.split(maxsplit=1) for line in lines[2:])
    assert {f"{name}:": text for name, text in parts.items()}.items() <= found.items()
    assert ("Likely:" in found) == ("Likely" in parts)


@pytest.mark.parametrize("sample", ["job_succeeded", "crawler_succeeded"])
def test_a_run_that_succeeded_is_no_news(sample: str, load_event: LoadEvent) -> None:
    # WHEN / THEN
    assert notifications_of(load_event(f"alarm_notifier/{sample}.json"), SETTINGS) == ()


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"hello": "wörld"},
        {"Records": [{"Sns": {}}]},
        {"Records": [17]},
        {"Records": [{"Sns": {"Message": '{"AlarmName": "incomplete"}'}}]},
        {"Records": [{"Sns": {"Message": '["no alarm"]'}}]},
        {"detail-type": "Glue Job State Change", "detail": {}},
        {"detail-type": "Glue Job State Change", "detail": None},
        {"detail-type": "Something New", "detail": {"important": True}},
    ],
)
def test_what_is_not_understood_is_passed_on_whole(event: dict[str, Any]) -> None:
    # GIVEN
    (content,) = event.get("Records") or [event]
    if isinstance(content, dict) and "Message" in content.get("Sns", {}):
        content = content["Sns"]["Message"]

    # WHEN
    (notification,) = notifications_of(event, SETTINGS)

    # THEN
    passed_on = notification.body.split("\n\n", 1)[1].rstrip("\n")
    assert passed_on == content if isinstance(content, str) else json.loads(passed_on) == content


def test_a_new_alarm_that_finds_its_first_data_and_is_well_says_nothing() -> None:
    # GIVEN the change that every alarm makes just after a deployment, and the one at the end of a trouble
    def change(old: str) -> dict[str, Any]:
        alarm = {
            "AlarmName": "x",
            "AlarmArn": "arn:aws:cloudwatch:ap-northeast-1:123456789012:alarm:x",
            "OldStateValue": old,
            "NewStateValue": "OK",
            "StateChangeTime": "now",
        }
        return {"Records": [{"Sns": {"Message": json.dumps(alarm)}}]}

    # WHEN / THEN
    assert notifications_of(change("INSUFFICIENT_DATA"), SETTINGS) == ()
    assert len(notifications_of(change("ALARM"), SETTINGS)) == 1


@given(st.text(), st.text())
def test_any_text_becomes_a_message_that_sns_takes(name: str, reason: str) -> None:
    # GIVEN
    alarm = {
        "AlarmName": name,
        "AlarmArn": "arn:aws:cloudwatch:ap-northeast-1:123456789012:alarm:x",
        "AlarmDescription": name + "\ud800",
        "NewStateValue": "ALARM",
        "NewStateReason": reason,
        "StateChangeTime": "now",
    }

    # WHEN
    (notification,) = notifications_of({"Records": [{"Sns": {"Message": json.dumps(alarm)}}]}, SETTINGS)

    # THEN
    assert notification.subject.startswith("[telemetry-lake] ALARM: ")
    assert len(notification.subject) <= MAX_SUBJECT_LENGTH
    assert notification.subject.isascii()
    assert notification.subject.isprintable()
    assert len(notification.body.encode("utf-8")) <= MAX_BODY_BYTES


def test_a_message_beyond_the_limit_is_cut_at_a_character() -> None:
    # WHEN
    (notification,) = notifications_of({"text": "é" * 200_000}, SETTINGS)

    # THEN
    assert MAX_BODY_BYTES - 2 <= len(notification.body.encode("utf-8")) <= MAX_BODY_BYTES


def test_the_handler_publishes_to_the_notifications_topic(
    load_handler: Callable[[str], ModuleType],
    load_event: LoadEvent,
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
) -> None:
    # GIVEN a topic with a queue that listens
    handler = load_handler("alarm_notifier")
    queue = listener()

    # WHEN
    answer = handler.handler(load_event("alarm_notifier/alarm.json"), lambda_context)

    # THEN
    assert answer == {"published": 1, "repeated": 0}
    (received,) = queue.receive_messages()
    message = json.loads(received.body)
    assert message["Subject"].startswith("[telemetry-lake] ALARM: The transform fails as a whole")
    assert "docs/runbook.md#transform-errors" in message["Message"]
    assert emitted_metrics() == {("TelemetryLake", "Stage=prod"): {"NotificationsSent": 1, "NotificationsRepeated": 0}}


def listener() -> Any:
    """A queue that hears the notifications."""
    topic_arn = boto3.client("sns").create_topic(Name="temperature-notifications")["TopicArn"]
    queue = boto3.resource("sqs").create_queue(QueueName="listener")
    boto3.client("sns").subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=queue.attributes["QueueArn"])
    return queue


def alarm_in_state(name: str, state: "StateValueType") -> None:
    cloudwatch = boto3.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="TelemetryLake",
        MetricName="JobRunsFailed",
        Statistic="Maximum",
        Period=300,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="test")


@pytest.mark.parametrize(
    ("sample", "alarm"),
    [
        ("execution_failed", "temperature-pipeline-failed"),
        ("job_failed", "temperature-job-failed"),
        ("crawler_failed", "temperature-crawler-failed"),
    ],
)
@pytest.mark.parametrize("state", ["OK", "ALARM", "INSUFFICIENT_DATA"])
def test_a_failure_is_told_once_until_its_alarm_is_over(  # noqa: PLR0917 - most are fixtures
    sample: str,
    alarm: str,
    state: "StateValueType",
    load_handler: Callable[[str], ModuleType],
    load_event: LoadEvent,
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
) -> None:
    # GIVEN the alarm that rings from a kind's first failure to its next success
    handler = load_handler("alarm_notifier")
    queue = listener()
    alarm_in_state(alarm, state)

    # WHEN it fails again
    answer = handler.handler(load_event(f"alarm_notifier/{sample}.json"), lambda_context)

    # THEN it is told unless it rings; and counted in each case
    repeated = int(state == "ALARM")
    assert answer == {"published": 1 - repeated, "repeated": repeated}
    assert len(queue.receive_messages()) == 1 - repeated
    counted = {"job_failed": {"JobRunsFailed": 1}, "crawler_failed": {"CrawlsFailed": 1}}.get(sample, {})
    assert emitted_metrics()["TelemetryLake", "Stage=prod"] == {
        "NotificationsSent": 1 - repeated,
        "NotificationsRepeated": repeated,
        **counted,
    }


@pytest.mark.parametrize(
    ("sample", "counted"),
    [("job_succeeded", {"JobRunsFailed": 0}), ("crawler_succeeded", {"CrawlsFailed": 0}), ("alarm", {})],
)
def test_the_end_of_each_run_is_counted(  # noqa: PLR0917 - most are fixtures
    sample: str,
    counted: dict[str, int],
    load_handler: Callable[[str], ModuleType],
    load_event: LoadEvent,
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
) -> None:
    # GIVEN
    handler = load_handler("alarm_notifier")
    listener()

    # WHEN
    handler.handler(load_event(f"alarm_notifier/{sample}.json"), lambda_context)

    # THEN
    metrics = emitted_metrics()["TelemetryLake", "Stage=prod"]
    assert {name: value for name, value in metrics.items() if name.endswith("Failed")} == counted


def test_a_failure_is_told_when_nobody_can_see_what_rings(
    load_handler: Callable[[str], ModuleType],
    load_event: LoadEvent,
    lambda_context: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # GIVEN a ringing alarm, and a role without the permission to see it
    handler = load_handler("alarm_notifier")
    queue = listener()
    alarm_in_state("temperature-job-failed", "ALARM")
    denied = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "DescribeAlarms")

    def refuse(**_: Any) -> None:
        raise denied

    monkeypatch.setattr(handler.alarms, "describe_alarms", refuse)

    # WHEN
    answer = handler.handler(load_event("alarm_notifier/job_failed.json"), lambda_context)

    # THEN
    assert answer == {"published": 1, "repeated": 0}
    assert len(queue.receive_messages()) == 1


def test_a_topic_that_refuses_fails_the_invocation_so_that_lambda_tries_again(
    load_handler: Callable[[str], ModuleType], load_event: LoadEvent, lambda_context: Any
) -> None:
    # GIVEN no topic
    handler = load_handler("alarm_notifier")

    # WHEN / THEN
    with pytest.raises(handler.topics.exceptions.NotFoundException):
        handler.handler(load_event("alarm_notifier/alarm.json"), lambda_context)
