"""Entry point of the notifier: called by the alarms' topic and by rules on the status of runs."""

import os
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from alarm_notifier.messages import notifications_of
from alarm_notifier.settings import Settings
from function_support.metrics import emit_metrics

settings = Settings.from_environment(os.environ)
topics = boto3.client(
    "sns", config=Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
)
logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Publish one readable message for each thing that the event reports.

    Returns:
        The number of messages published.

    Raises:
        botocore.exceptions.ClientError: SNS refused; Lambda tries an asynchronous invocation twice more
            (https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html).
    """
    notifications = notifications_of(event, settings)
    for notification in notifications:
        topics.publish(
            TopicArn=settings.notifications_topic_arn, Subject=notification.subject, Message=notification.body
        )
        logger.info("notified", subject=notification.subject)
    emit_metrics(
        {"NotificationsSent": len(notifications)},
        namespace=settings.metrics_namespace,
        dimensions={"Stage": settings.stage},
    )
    return {"published": len(notifications)}
