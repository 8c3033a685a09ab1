"""A dashboard's body is read as AWS's page describes it."""

import json
from typing import Any

from telemetry_lake.metrics import Metric
from telemetry_lake.report.dashboard import Plot, metric_widgets


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
    found = metric_widgets(body(text, *(widget(metric, x=x, y=y, title=title) for x, y, title in places)))

    # THEN
    assert [each.title for each in found] == ["a", "b", "c"]


def test_options_of_a_metric_go_before_those_of_its_widget_and_those_before_the_defaults() -> None:
    # GIVEN
    errors = ["AWS/Lambda", "Errors", "FunctionName", "f", {"stat": "Sum", "label": "failed"}]
    duration = ["AWS/Lambda", "Duration", "FunctionName", "f", {"yAxis": "right", "period": 300}]

    # WHEN
    (own,) = metric_widgets(body(widget(errors, duration, stat="Maximum", period=60)))
    (default,) = metric_widgets(body(widget(["N", "M"])))

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
    (found,) = metric_widgets(body(widget(*entries)))

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
        [".", "Shown", ".", "."],
    )

    # WHEN
    (found,) = metric_widgets(body(widget(*entries), widget([{"expression": "SEARCH('x')"}])))

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
    (found,) = metric_widgets(body(widget(*entries)))

    # THEN
    assert [each.label for each in found.plots] == [
        "TotalExecutionTime SUCCEEDED",
        "TotalExecutionTime FAILED",
        "ProcessedBytes",
    ]
