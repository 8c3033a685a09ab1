"""Every metric of our own that an alarm or a widget names is one that the code emits: same name, same dimensions."""

import copy
from collections.abc import Callable
from itertools import product
from types import ModuleType
from typing import Any

import boto3
import pytest

from athena_check.checks import AthenaCheckFailed, judge_value
from telemetry_lake.costs import CUSTOM_METRICS
from telemetry_lake.report.evidence import own_plots
from tests.template import variants
from tests.template.expansion import resources_of_type
from tests.template.metrics import OWN_NAMESPACE, Emitted, Use, not_emitted, uses

RESOLVED = variants.resolved({})
NAMED = [use for use in uses(RESOLVED) if use.namespace == OWN_NAMESPACE]
NAMES = sorted({use.name for use in NAMED})
OWN_ALARMS = sorted({use.user for use in NAMED} & resources_of_type(RESOLVED, "AWS::CloudWatch::Alarm").keys())

EVENTS = {
    "transform": ("good", "bad"),
    "athena_check": ("load_with_new_rows", "audit_without_findings", "day_that_is_over"),
    "alarm_notifier": ("alarm", "job_failed", "crawler_succeeded"),
}


class EveryNumberIsAsExpected:
    """Stands for Athena."""

    def run(self, checks: Any) -> list[Any]:
        return [judge_value(check, check.expectation.bound, 1) for check in checks]


@pytest.fixture
def emitted(
    load_handler: Callable[[str], ModuleType],
    load_event: Callable[[str], dict[str, Any]],
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
    monkeypatch: pytest.MonkeyPatch,
) -> Emitted:
    """What the functions emit for sample events, as CloudWatch Logs would read it."""
    boto3.client("s3").create_bucket(
        Bucket="analytics", CreateBucketConfiguration={"LocationConstraint": "ap-northeast-1"}
    )
    boto3.client("sns").create_topic(Name="temperature-notifications")
    for function, samples in EVENTS.items():
        handler = load_handler(function)
        if function == "athena_check":
            monkeypatch.setattr(handler, "queries", EveryNumberIsAsExpected())
        for sample in samples:
            handler.handler(load_event(f"{function}/{sample}.json"), lambda_context)
    return {
        (namespace, name, frozenset((key, value) for key, _, value in (text.partition("=") for text in dimensions)))
        for (namespace, *dimensions), values in emitted_metrics().items()
        for name in values
    }


def test_every_metric_of_our_own_that_is_named_is_emitted(emitted: Emitted) -> None:
    assert len(NAMES) >= 15
    assert not_emitted(NAMED, emitted) == []


def test_the_worked_example_of_the_costs_counts_as_many(emitted: Emitted) -> None:
    # Not every reason is among the samples.
    assert 0.8 * CUSTOM_METRICS <= len(emitted) <= CUSTOM_METRICS


def test_the_report_draws_metrics_that_are_emitted(emitted: Emitted) -> None:
    throughput, _ = own_plots("prod", "temperature-to-s3")
    metrics = [plot.metric for plot in throughput]
    drawn = [Use("the report", metric.namespace, metric.name, metric.dimensions) for metric in metrics]
    assert drawn
    assert not_emitted(drawn, emitted) == []


def test_an_emission_that_is_deleted_is_missed_by_those_who_name_it(emitted: Emitted) -> None:
    for missing in NAMES:
        # GIVEN all but the metric of one name
        rest = {metric for metric in emitted if metric[1] != missing}

        # WHEN
        findings = not_emitted(NAMED, rest)

        # THEN
        assert findings, missing
        assert all(f"nothing emits {missing} for" in finding for finding in findings)


def test_a_change_of_any_alarms_metric_is_found(emitted: Emitted) -> None:
    for alarm, what in product(OWN_ALARMS, ("the name", "the dimension", "the dimension's value")):
        # GIVEN a template in which one thing about one alarm is changed
        template = copy.deepcopy(RESOLVED)
        properties = template["Resources"][alarm]["Properties"]
        stats = [metric["MetricStat"]["Metric"] for metric in properties.get("Metrics", []) if "MetricStat" in metric]
        for metric in stats or [properties]:
            match what:
                case "the name":
                    metric["MetricName"] += "s"
                case "the dimension":
                    metric["Dimensions"][0]["Name"] = "Environment"
                case _:
                    metric["Dimensions"][-1]["Value"] = "elsewhere"

        # WHEN
        findings = not_emitted(list(uses(template)), emitted)

        # THEN
        assert {finding.partition(":")[0] for finding in findings} == {alarm}, (alarm, what)


def test_a_failed_check_is_emitted_before_it_fails_the_execution(
    load_handler: Callable[[str], ModuleType],
    load_event: Callable[[str], dict[str, Any]],
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # GIVEN
    handler = load_handler("athena_check")

    class NoNumberIs(EveryNumberIsAsExpected):
        def run(self, checks: Any) -> list[Any]:
            return [judge_value(check, check.expectation.bound + 1, 1) for check in checks]

    monkeypatch.setattr(handler, "queries", NoNumberIs())

    # WHEN
    for sample in ("load_with_new_rows", "day_that_is_over"):
        with pytest.raises(AthenaCheckFailed):
            handler.handler(load_event(f"athena_check/{sample}.json"), lambda_context)

    # THEN
    totals = emitted_metrics()["TelemetryLake", "Stage=prod"]
    assert {name: totals[name] for name in totals if name.startswith(("Check", "Day")) and "Bytes" not in name} == {
        "CheckFailures": 4,
        "CheckWarnings": 1,
        "DayCheckFailures": 2,
        "DayCheckWarnings": 3,
    }
