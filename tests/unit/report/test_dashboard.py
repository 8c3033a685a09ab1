"""A dashboard's body is read as AWS's page describes it."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from telemetry_lake.metrics import Metric
from telemetry_lake.report.dashboard import Plot, Search, alarms_shown, metric_widgets


def nothing(search: Search) -> Sequence[Metric]:
    raise AssertionError(f"nothing is searched for here: {search}")


def body(*widgets: dict[str, Any]) -> str:
    return json.dumps({"widgets": list(widgets)})


def widget(*metrics: list[Any], x: int = 0, y: int = 0, **properties: Any) -> dict[str, Any]:
    return {"type": "metric", "x": x, "y": y, "properties": {"title": "T", "metrics": list(metrics), **properties}}


def test_the_widgets_come_in_reading_order_and_texts_and_alarms_are_left_out() -> None:
    # GIVEN
    metric = ["AWS/Kinesis", "IncomingRecords", "StreamName", "s"]
    text = {"type": "text", "properties": {"markdown": "# hello"}}
    places = [(12, 0, "b"), (0, 6, "c"), (0, 0, "a")]

    # WHEN
    found = metric_widgets(body(text, *(widget(metric, x=x, y=y, title=title) for x, y, title in places)), nothing)

    # THEN
    assert [each.title for each in found] == ["a", "b", "c"]


def test_the_alarms_are_those_of_all_widgets_each_once() -> None:
    # GIVEN
    arn = "arn:aws:cloudwatch:ap-northeast-1:123456789012:alarm:"
    first, second = (
        {"type": "alarm", "properties": {"alarms": [f"{arn}{name}" for name in names]}} for names in ("ab", "bc")
    )

    # WHEN / THEN
    assert alarms_shown(body(first, widget(["N", "M"]), second)) == ["a", "b", "c"]
    assert alarms_shown(body(widget(["N", "M"]))) == []


def test_options_of_a_metric_go_before_those_of_its_widget_and_those_before_the_defaults() -> None:
    # GIVEN
    errors = ["AWS/Lambda", "Errors", "FunctionName", "f", {"stat": "Sum", "label": "failed"}]
    duration = ["AWS/Lambda", "Duration", "FunctionName", "f", {"yAxis": "right", "period": 300}]

    # WHEN
    (own,) = metric_widgets(body(widget(errors, duration, stat="Maximum", period=60)), nothing)
    (default,) = metric_widgets(body(widget(["N", "M"])), nothing)

    # THEN
    function = {"FunctionName": "f"}
    assert own.plots == (
        Plot(Metric("AWS/Lambda", "Errors", function, "Sum", 60), "failed"),
        Plot(Metric("AWS/Lambda", "Duration", function, "Maximum", 300), "Duration", on_right_axis=True),
    )
    assert default.plots == (Plot(Metric("N", "M", {}, "Average", 300), "M"),)


def test_abbreviations_stand_for_what_the_entry_above_has() -> None:
    # GIVEN
    entries = (
        ["AWS/SQS", "Age", "QueueName", "a"],
        [".", "Visible", ".", "b"],
        ["...", "c", {"label": "third"}],
        ["..."],
    )

    # WHEN
    (found,) = metric_widgets(body(widget(*entries)), nothing)

    # THEN
    assert [(each.metric.name, each.metric.dimensions) for each in found.plots] == [
        ("Age", {"QueueName": "a"}),
        ("Visible", {"QueueName": "b"}),
        ("Visible", {"QueueName": "c"}),
        ("Visible", {"QueueName": "c"}),
    ]


def test_hidden_metrics_and_expressions_are_not_drawn_but_are_referred_to() -> None:
    # GIVEN
    entries = (
        ["N", "Hidden", "D", "v", {"visible": False, "id": "m1"}],
        [{"expression": "m1 * 2"}],
        [{"expression": "SEARCH('{N,D} MetricName=\"M\"', 'Sum')", "visible": False}],
        [".", "Shown", ".", "."],
    )

    # WHEN
    (found,) = metric_widgets(body(widget(*entries), widget([{"expression": "SEARCH('x')"}])), nothing)

    # THEN
    assert [(each.metric.name, each.metric.dimensions) for each in found.plots] == [("Shown", {"D": "v"})]


def test_plots_of_one_metric_are_told_apart_by_the_dimensions_in_which_they_differ() -> None:
    # GIVEN a metric of two states in one workgroup, and another one
    entries = (
        ["AWS/Athena", "TotalExecutionTime", "WorkGroup", "w", "QueryState", "SUCCEEDED"],
        ["...", "FAILED"],
        ["AWS/Athena", "ProcessedBytes", "WorkGroup", "w"],
    )

    # WHEN
    (found,) = metric_widgets(body(widget(*entries)), nothing)

    # THEN
    assert [each.label for each in found.plots] == [
        "TotalExecutionTime SUCCEEDED",
        "TotalExecutionTime FAILED",
        "ProcessedBytes",
    ]


def test_a_search_is_drawn_as_the_metrics_that_it_finds() -> None:
    # GIVEN a search for the metrics of all checks of a stage, and what there is
    expression = "SEARCH('{TelemetryLake,Check,Stage} MetricName=\"CheckFailed\" Stage=\"prod\"', 'Maximum', 300)"
    searches: list[Search] = []

    def find(search: Search) -> list[Metric]:
        searches.append(search)
        return [Metric("TelemetryLake", "CheckFailed", {"Check": name, "Stage": "prod"}, "Maximum") for name in "ab"]

    # WHEN
    (found,) = metric_widgets(body(widget([{"expression": expression}])), find)

    # THEN each is a line of its own
    assert searches == [
        Search("TelemetryLake", "CheckFailed", ("Check", "Stage"), {"Stage": "prod"}, "Maximum", 300),
    ]
    assert [(plot.label, plot.metric.dimensions["Check"]) for plot in found.plots] == [
        ("CheckFailed a", "a"),
        ("CheckFailed b", "b"),
    ]


@pytest.mark.parametrize(
    "expression",
    [
        "SEARCH('CPUUtilization', 'Average')",
        "SEARCH('{N,D} MetricName=\"M\" OR MetricName=\"O\"', 'Average')",
        "SUM(SEARCH('{N,D} MetricName=\"M\"', 'Average'))",
    ],
)
def test_a_search_of_another_form_is_not_drawn(expression: str) -> None:
    # GIVEN
    # WHEN
    # THEN
    assert metric_widgets(body(widget([{"expression": expression}])), nothing) == []
