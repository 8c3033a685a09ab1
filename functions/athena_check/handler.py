"""Entry point of the checks that end an execution of the pipeline: after each load, and on days that are over."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from athena_check.athena import AthenaQueries
from athena_check.checks import (
    AthenaCheckFailed,
    CheckResult,
    Severity,
    check_scanned_bytes,
    check_summary,
    load_checks,
    not_passed,
)
from athena_check.occasion import Occasion, read_occasion
from athena_check.settings import Settings
from athena_check.summary import RunSummary
from function_support.metrics import emit_metrics

settings = Settings.from_environment(os.environ)
queries = AthenaQueries.connect(settings)
logger = Logger()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Compare the table, as Athena sees it, with the run that has just loaded it, or judge days that are over.

    Returns:
        ``{"passed": true, "warnings": ["late_share"], "checks": [...]}``.

    Raises:
        AthenaCheckFailed: a check of severity ``stop`` has not passed; every result is in the message, the metrics and
            the log.
        UnusableSummaryError: the event holds neither days nor a run's summary.
        UnusableDaysError: its days are none, or not over.
    """
    occasion = read_occasion(event, settings.partition_time_zone, datetime.now(UTC))
    results = _run_checks(occasion)
    _report(occasion, results)
    if not_passed(results, Severity.STOP):
        raise AthenaCheckFailed(results)
    return {
        "passed": True,
        "warnings": [result.name for result in not_passed(results, Severity.WARN)],
        "checks": [result.to_answer() for result in results],
    }


def _run_checks(occasion: Occasion) -> list[CheckResult]:
    results = list(queries.run(load_checks(occasion, settings)))
    adds_up = check_summary(occasion)
    return [
        *([adds_up] if adds_up else []),
        *results,
        check_scanned_bytes(results, settings.scanned_bytes_budget),
    ]


def _report(occasion: Occasion, results: Sequence[CheckResult]) -> None:
    logger.info(
        "checked",
        occasion=occasion.name,
        days=[day.isoformat() for day in occasion.days],
        job_run_id=occasion.run and occasion.run.job_run_id,
        checks=[result.to_answer() for result in results],
    )
    for result in results:
        _emit(
            {"CheckFailed": int(not result.passed), **({} if result.value is None else {"CheckValue": result.value})},
            Check=result.name,
        )
    failures = len(not_passed(results, Severity.STOP))
    warnings = len(not_passed(results, Severity.WARN))
    # A name of its own for each occasion: a load that passes says nothing about a day that has not.
    if occasion.run is None:
        _emit({"DayCheckFailures": failures, "DayCheckWarnings": warnings})
    else:
        # An empty load asks nothing of the rows: it takes back no failure of an earlier one.
        if occasion.days or failures or warnings:
            _emit({"CheckFailures": failures, "CheckWarnings": warnings})
        _report_run(occasion.run)
    _emit({"CheckScannedBytes": sum(result.scanned_bytes for result in results)}, unit=MetricUnit.Bytes)


def _report_run(run: RunSummary) -> None:
    """What only the run's summary knows; the job itself has no way to write metrics of its own."""
    _emit({"RunRowsAdded": run.new, "RunReadingsRejected": run.rejected})
    _emit({"RunSeconds": run.seconds}, unit=MetricUnit.Seconds)
    if run.mode == "audit":
        _emit({"AuditRowsAdded": run.new})


def _emit(values: dict[str, float], *, unit: MetricUnit = MetricUnit.Count, **dimensions: str) -> None:
    emit_metrics(
        values,
        namespace=settings.metrics_namespace,
        dimensions={"Stage": settings.stage, **dimensions},
        units=dict.fromkeys(values, unit),
    )
