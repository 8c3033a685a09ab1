"""Every alarm and widget names a metric that AWS publishes for a resource of the template.

Those of our own are compared with what the code emits: tests/unit/test_emitted_metrics.py.
"""

import re
from typing import Any

import pytest

from telemetry_lake.report.evidence import own_plots
from tests.template import variants
from tests.template.expansion import resources_of_type
from tests.template.metrics import OWN_NAMESPACE, published, unpublished, uses, widgets

TRIGGERS = ("Both", "S3Events", "Schedule")
ALARMS = sorted(
    {use.user for use in uses(variants.resolved({})) if use.namespace != OWN_NAMESPACE}
    & resources_of_type(variants.template(), "AWS::CloudWatch::Alarm").keys()
)


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_every_metric_that_an_alarm_or_a_widget_names_is_published_for_a_resource_of_the_template(trigger: str) -> None:
    # GIVEN
    template = variants.resolved({"Trigger": trigger})
    named = list(uses(template))
    assert len(named) >= 60

    # WHEN / THEN
    assert unpublished(named, template) == []


def test_the_report_draws_a_metric_that_is_published() -> None:
    # GIVEN what it draws beside the dashboard, of AWS's
    _, plot = own_plots("prod", "temperature-to-s3")
    age = plot.metric

    # WHEN / THEN
    (listed,) = (each for each in published() if each["namespace"] == age.namespace and age.name in each["names"])
    assert list(age.dimensions) == list(listed["dimensions"])


def test_no_published_metric_is_listed_that_nothing_names() -> None:
    named = {(use.namespace, use.name) for use in uses(variants.resolved({}))}
    assert {(each["namespace"], name) for each in published() for name in each["names"]} <= named
    assert all(each["source"].startswith("https://docs.aws.amazon.com/") for each in published())


@pytest.mark.parametrize("alarm", ALARMS)
@pytest.mark.parametrize("what", ["the name", "the dimension", "the dimension's value"])
def test_a_change_of_any_alarms_metric_is_found(alarm: str, what: str) -> None:
    # GIVEN a template in which one thing about one alarm is changed
    template = variants.resolved({})
    properties = template["Resources"][alarm]["Properties"]
    stats = [metric["MetricStat"]["Metric"] for metric in properties.get("Metrics", []) if "MetricStat" in metric]
    metric = (stats or [properties])[0]
    match what:
        case "the name":
            metric["MetricName"] += "s"
        case "the dimension":
            metric["Dimensions"][0]["Name"] = "Resource"
        case _:
            metric["Dimensions"][0]["Value"] = {"Ref": "PipelineRole"}

    # WHEN
    findings = unpublished(list(uses(template)), template)

    # THEN
    assert len(findings) == 1
    assert findings[0].startswith(f"{alarm}: ")


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_the_dashboard_has_a_row_for_each_stage_in_the_order_of_the_data(trigger: str) -> None:
    # GIVEN
    template = variants.resolved({"Trigger": trigger})
    found = widgets(template["Resources"]["PipelineDashboard"]["Properties"]["DashboardBody"])

    # THEN each title has its stage's number and says what good looks like
    titles = [widget["properties"]["title"] for widget in found]
    parts = [re.fullmatch(r"(\d) ([A-Z][a-z]+|What rings): .{8,}", title) for title in titles]
    assert None not in parts, titles

    # AND a stage is a row of its own, further down than the one before it, its widgets side by side
    rows: dict[int, list[Any]] = {}
    for widget, title in zip(found, titles, strict=True):
        rows.setdefault(int(title[0]), []).append(widget)
    tops = [{widget["y"] for widget in rows[stage]} for stage in sorted(rows)]
    assert all(len(top) == 1 for top in tops)
    assert sorted(tops, key=min) == tops
    for row in rows.values():
        ends = [(widget["x"], widget["x"] + widget["width"]) for widget in sorted(row, key=lambda each: each["x"])]
        assert [start for start, _ in ends] == [0, *(end for _, end in ends[:-1])]
        assert ends[-1][1] == 24
    assert sorted(rows) == [stage for stage in range(10) if stage != 4 or trigger != "Schedule"]


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_the_dashboard_shows_every_alarm_that_rings_for_somebody(trigger: str) -> None:
    # GIVEN the alarms that tell somebody, the silent ones within composites apart
    template = variants.resolved({"Trigger": trigger})
    audible = [
        logical_id
        for logical_id, resource in template["Resources"].items()
        if "Alarm" in resource["Type"] and resource["Properties"].get("AlarmActions")
    ]

    # WHEN
    (alarms,) = (
        widget["properties"]["alarms"]
        for widget in widgets(template["Resources"]["PipelineDashboard"]["Properties"]["DashboardBody"])
        if widget["type"] == "alarm"
    )
    shown = [re.fullmatch(r"\$\{(\w+)\.Arn\}", arn) for arn in alarms]

    # THEN
    assert sorted(match[1] if match else "" for match in shown) == sorted(audible)
