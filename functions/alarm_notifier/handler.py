"""Entry point of the notifier: called by the alarms' topic and by rules on the status of runs."""

import os
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from alarm_notifier.messages import Notification, ended_runs, notifications_of
from alarm_notifier.settings import Settings
from function_support.metrics import emit_metrics

_CLIENT_SETTINGS = Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})

settings = Settings.from_environment(os.environ)
topics = boto3.client("sns", config=_CLIENT_SETTINGS)
alarms = boto3.client("cloudwatch", config=_CLIENT_SETTINGS)
logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Publish one readable message for each thing that the event reports and that is news.

    Returns:
        The number of messages published, and of those that an alarm tells already.

    Raises:
        botocore.exceptions.ClientError: SNS refused; Lambda tries an asynchronous invocation twice more
            (https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html).
    """
    _emit(ended_runs(event))
    published = repeated = 0
    for notification in notifications_of(event, settings):
        if _rings_already(notification):
            repeated += 1
            logger.info("not repeated", subject=notification.subject, alarm=notification.alarm, body=notification.body)
            continue
        topics.publish(
            TopicArn=settings.notifications_topic_arn, Subject=notification.subject, Message=notification.body
        )
        published += 1
        logger.info("notified", subject=notification.subject)
    _emit({"NotificationsSent": published, "NotificationsRepeated": repeated})
    return {"published": published, "repeated": repeated}


def _rings_already(notification: Notification) -> bool:
    """Whether the failure's alarm rings since an earlier one: a schedule that fails every five minutes is told once.

    CloudWatch sees a failure minutes later than its event comes, so the first one is always told.
    """
    if not notification.alarm:
        return False
    try:
        found = alarms.describe_alarms(AlarmNames=[notification.alarm])["MetricAlarms"]
    except (ClientError, BotoCoreError):
        logger.exception("cannot see what rings: the failure is told")
        return False
    return any(alarm["StateValue"] == "ALARM" for alarm in found)


def _emit(values: dict[str, int]) -> None:
    if values:
        emit_metrics(values, namespace=settings.metrics_namespace, dimensions={"Stage": settings.stage})
