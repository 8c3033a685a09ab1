"""Entry point of the transform: Firehose's event in, its answer out, the rejects stored in between.

https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html
"""

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from function_support.metrics import emit_metrics
from transform.logic import BatchPlan, plan_batch
from transform.settings import Settings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

settings = Settings.from_environment(os.environ)
logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """Judge a batch, store its rejects, answer for every record.

    The outcome of every record is decided before the one side effect. If that fails, nothing is dropped: each record
    with a reject is handed back to Firehose, which keeps the original.
    """
    plan = plan_batch(
        event,
        policy=settings.policy,
        dead_letter_prefix=settings.dead_letter_prefix,
        now=datetime.now(UTC),
    )
    stored = _store_dead_letters(plan)
    _report(plan, dead_letters_stored=stored)
    return plan.answer(dead_letters_stored=stored)


def _store_dead_letters(plan: BatchPlan) -> bool:
    if plan.dead_letter_key is None:
        return True
    from transform.store import DeadLettersNotStoredError, put_dead_letters  # noqa: PLC0415  boto3 takes most of a start

    try:
        put_dead_letters(settings.dead_letter_bucket, plan.dead_letter_key, plan.dead_letter_body)
    except DeadLettersNotStoredError:
        logger.exception("the rejects could not be stored: Firehose keeps the records that have any")
        return False
    return True


def _report(plan: BatchPlan, *, dead_letters_stored: bool) -> None:
    rejected = plan.rejected_by_reason() if dead_letters_stored else {}
    parked_count = len(plan.parked(dead_letters_stored=dead_letters_stored))
    accepted_count = plan.accepted_count(dead_letters_stored=dead_letters_stored)
    logger.info(
        "batch judged",
        records=len(plan.record_ids),
        accepted=accepted_count,
        rejected=dict(rejected),
        parked=parked_count,
        dead_letter_key=plan.dead_letter_key if dead_letters_stored else None,
    )
    emit_metrics(
        {
            "RecordsReceived": len(plan.record_ids),
            "RecordsParked": parked_count,
            "ReadingsAccepted": accepted_count,
            "ReadingsRejected": sum(rejected.values()),
            "DlqPutFailures": 0 if dead_letters_stored else 1,
        },
        namespace=settings.metrics_namespace,
        dimensions={"Stage": settings.stage},
    )
    for reason, count in sorted(rejected.items()):
        emit_metrics(
            {"ReadingsRejectedByReason": count},
            namespace=settings.metrics_namespace,
            dimensions={"Stage": settings.stage, "Reason": reason},
        )
