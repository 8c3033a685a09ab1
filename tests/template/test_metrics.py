"""Every alarm and widget names a metric that AWS publishes for a resource of the template, or that our code emits.

An alarm on a name that nobody publishes never fires, and nothing else notices: CloudWatch accepts every name.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from telemetry_lake.report.evidence import own_plots
from tests.judging import REPOSITORY
from tests.template import variants

FUNCTIONS = ("transform", "athena_check", "alarm_notifier")


@dataclass(frozen=True)
class Published:
    """The metrics of one namespace that are used here: the dimension that they have, and what it stands for."""

    names: frozenset[str]
    dimension: str
    resource_type: str


# Names and dimensions as the pages list them.
PUBLISHED = {
    # https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html
    "AWS/Kinesis": Published(
        frozenset(
            {
                "GetRecords.IteratorAgeMilliseconds",
                "IncomingRecords",
                "ReadProvisionedThroughputExceeded",
                "WriteProvisionedThroughputExceeded",
            }
        ),
        "StreamName",
        "AWS::Kinesis::Stream",
    ),
    # https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-metrics.html
    "AWS/Firehose": Published(
        frozenset({"DeliveryToS3.DataFreshness", "DeliveryToS3.Success"}),
        "DeliveryStreamName",
        "AWS::KinesisFirehose::DeliveryStream",
    ),
    # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
    "AWS/Lambda": Published(frozenset({"Duration", "Errors"}), "FunctionName", "AWS::Lambda::Function"),
    # https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html
    "AWS/States": Published(
        frozenset({"ExecutionsFailed", "ExecutionsSucceeded", "ExecutionsTimedOut"}),
        "StateMachineArn",
        "AWS::StepFunctions::StateMachine",
    ),
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    "AWS/SQS": Published(
        frozenset({"ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible"}),
        "QueueName",
        "AWS::SQS::Queue",
    ),
}


@dataclass(frozen=True)
class Use:
    """A metric that an alarm or a widget names."""

    user: str
    namespace: str
    name: str
    dimensions: Mapping[str, Any]


def uses(template: Mapping[str, Any]) -> Iterator[Use]:
    for logical_id, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        match resource["Type"]:
            case "AWS::CloudWatch::Alarm":
                stats = [metric.get("MetricStat") for metric in properties.get("Metrics", [])]
                metrics = [stat["Metric"] for stat in stats if stat is not None] or [properties]
                for metric in metrics:
                    dimensions = {each["Name"]: each["Value"] for each in metric["Dimensions"]}
                    yield Use(logical_id, metric["Namespace"], metric["MetricName"], dimensions)
            case "AWS::CloudWatch::Dashboard":
                yield from widget_uses(logical_id, properties["DashboardBody"]["Fn::Sub"])


def widget_uses(logical_id: str, body: Any) -> Iterator[Use]:
    text = body if isinstance(body, str) else body[0]
    for widget in json.loads(text)["widgets"]:
        for namespace, name, *rest in widget["properties"]["metrics"]:
            words = [word for word in rest if isinstance(word, str)]
            dimensions = dict(zip(words[::2], words[1::2], strict=True))
            yield Use(f"{logical_id}, {widget['properties']['title']!r}", namespace, name, dimensions)


def emitted_by_code() -> set[tuple[str, frozenset[str]]]:
    """Names and dimension names of every literal call of emit_metrics in the functions."""
    found = set()
    for function in FUNCTIONS:
        tree = ast.parse((REPOSITORY / "functions" / function / "handler.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "emit_metrics":
                (values,) = node.args
                dimensions = next(keyword.value for keyword in node.keywords if keyword.arg == "dimensions")
                names = frozenset(keys_of(dimensions))
                found |= {(name, names) for name in keys_of(values)}
    return found


def keys_of(node: ast.expr) -> list[str]:
    assert isinstance(node, ast.Dict)
    return [key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def referred_type(template: Mapping[str, Any], value: Any) -> str | None:
    """The type of the resource that a dimension's value stands for: a reference, or the name that it has."""
    text = json.dumps(value)
    for name in re.findall(r'"Ref": "(\w+)"|"Fn::GetAtt": \["(\w+)"|\$\{(\w+)\}', text):
        logical_id = next(part for part in name if part)
        if logical_id in template["Resources"]:
            return str(template["Resources"][logical_id]["Type"])
    return None


def dashboard_names(template: Mapping[str, Any]) -> dict[str, str]:
    """The type of the resource that each of the dashboard's own variables names."""
    _, variables = template["Resources"]["PipelineDashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    queues = [each["Properties"]["QueueName"] for each in template["Resources"].values() if is_queue(each)]
    return {f"${{{name}}}": "AWS::SQS::Queue" for name, value in variables.items() if value in queues}


def is_queue(resource: Mapping[str, Any]) -> bool:
    return bool(resource["Type"] == "AWS::SQS::Queue")


def test_every_metric_that_an_alarm_or_a_widget_names_is_published_for_a_resource_of_the_template() -> None:
    # GIVEN what is named, and what our own code emits
    template = variants.template()
    named = list(uses(template))
    assert len(named) >= 30
    emitted = emitted_by_code()
    substituted = dashboard_names(template)

    for use in named:
        # WHEN it is looked up
        if use.namespace == "TelemetryLake":
            # THEN our code emits it under just these dimensions
            assert (use.name, frozenset(use.dimensions)) in emitted, use
            continue
        # THEN AWS publishes it, for a resource of this template
        published = PUBLISHED[use.namespace]
        assert use.name in published.names, use
        assert list(use.dimensions) == [published.dimension], use
        (value,) = use.dimensions.values()
        kind = substituted.get(str(value)) or referred_type(template, value)
        assert kind == published.resource_type, use


def test_the_report_draws_metrics_that_are_published_or_emitted() -> None:
    # GIVEN what it draws beside the dashboard
    throughput, age = own_plots("prod", "delivery")

    # WHEN / THEN
    emitted = emitted_by_code()
    for plot in throughput:
        assert (plot.metric.name, frozenset(plot.metric.dimensions)) in emitted
    published = PUBLISHED[age.metric.namespace]
    assert age.metric.name in published.names
    assert list(age.metric.dimensions) == [published.dimension]


def test_no_published_metric_is_listed_that_nothing_names() -> None:
    named = {(use.namespace, use.name) for use in uses(variants.template())}
    assert {(namespace, name) for namespace, each in PUBLISHED.items() for name in each.names} <= named
