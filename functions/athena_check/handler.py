"""Entry point of the check that ends an execution of the pipeline."""

import os
from collections.abc import Sequence
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from athena_check.athena import AthenaQueries
from athena_check.checks import AthenaCheckFailed, CheckResult, check_scanned_bytes, check_summary, load_checks
from athena_check.settings import Settings
from athena_check.summary import RunSummary, read_summary
from function_support.metrics import emit_metrics

settings = Settings.from_environment(os.environ)
queries = AthenaQueries.connect(settings)
logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Compare the table, as Athena sees it, with the summary of the run that has just loaded it.

    Returns:
        ``{"passed": true, "checks": [...]}``.

    Raises:
        AthenaCheckFailed: a check did not pass; every result is in the message, the metrics and the log.
        UnusableSummaryError: the event holds no run summary.
    """
    summary = read_summary(event)
    results = _run_checks(summary)
    _report(summary, results)
    if not all(result.passed for result in results):
        raise AthenaCheckFailed(results)
    return {"passed": True, "checks": [result.to_answer() for result in results]}


def _run_checks(summary: RunSummary) -> list[CheckResult]:
    results = list(queries.run(load_checks(summary, settings)))
    adds_up = check_summary(summary)
    return [
        *([adds_up] if adds_up else []),
        *results,
        check_scanned_bytes(results, settings.scanned_bytes_budget),
    ]


def _report(summary: RunSummary, results: Sequence[CheckResult]) -> None:
    logger.info(
        "checked", job_run_id=summary.job_run_id, new=summary.new, checks=[result.to_answer() for result in results]
    )
    emit_metrics(
        {
            "ChecksRun": len(results),
            "CheckFailures": sum(not result.passed for result in results),
            "CheckRows": summary.listed_new,
            "CheckScannedBytes": sum(result.scanned_bytes for result in results),
        },
        namespace=settings.metrics_namespace,
        dimensions={"Stage": settings.stage},
        units={"CheckScannedBytes": MetricUnit.Bytes},
    )
    if summary.mode == "audit":
        emit_metrics(
            {"AuditRowsAdded": summary.new},
            namespace=settings.metrics_namespace,
            dimensions={"Stage": settings.stage},
        )
