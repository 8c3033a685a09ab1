"""The notifier: one readable message for each alarm and failure, and nothing swallowed."""

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alarm_notifier.messages import MAX_BODY_BYTES, MAX_SUBJECT_LENGTH, notifications_of
from alarm_notifier.settings import Settings

SETTINGS = Settings(
    stage="prod",
    metrics_namespace="TelemetryLake",
    notifications_topic_arn="arn:aws:sns:ap-northeast-1:123456789012:temperature-notifications",
    stack_name="telemetry-lake",
    runbook_url="https://example.com/runbook.md",
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
                "Reason:  Threshold Crossed: 1 out of the last 1 datapoints",
                "Runbook: docs/runbook.md#transform-errors\n",
                "--region ap-northeast-1 --alarm-name temperature-transform-errors",
                "#alarmsV2:alarm/temperature-transform-errors",
            ],
        ),
        (
            "execution_failed",
            [
                "An execution of temperature-pipeline failed: 0f0e9c1b-5f1e-4a57-8f4a-3a4a3f6f0c11.\n",
                "FAILED since 2026-10-15T03:25:31Z",
                "Reason:  AthenaCheckFailed: {",
                "Runbook: https://example.com/runbook.md#pipeline-failed\n",
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
    topic_arn = boto3.client("sns").create_topic(Name="temperature-notifications")["TopicArn"]
    queue = boto3.resource("sqs").create_queue(QueueName="listener")
    boto3.client("sns").subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=queue.attributes["QueueArn"])

    # WHEN
    answer = handler.handler(load_event("alarm_notifier/alarm.json"), lambda_context)

    # THEN
    assert answer == {"published": 1}
    (received,) = queue.receive_messages()
    message = json.loads(received.body)
    assert message["Subject"].startswith("[telemetry-lake] ALARM: The transform fails as a whole")
    assert "docs/runbook.md#transform-errors" in message["Message"]
    assert emitted_metrics() == {("TelemetryLake", "Stage=prod"): {"NotificationsSent": 1}}


def test_a_topic_that_refuses_fails_the_invocation_so_that_lambda_tries_again(
    load_handler: Callable[[str], ModuleType], load_event: LoadEvent, lambda_context: Any
) -> None:
    # GIVEN no topic
    handler = load_handler("alarm_notifier")

    # WHEN / THEN
    with pytest.raises(handler.topics.exceptions.NotFoundException):
        handler.handler(load_event("alarm_notifier/alarm.json"), lambda_context)
