"""What metrics the template names, and whether anybody publishes them.

An alarm on a name that nobody publishes never fires, and nothing else notices: CloudWatch accepts every name. A metric
is the same only if namespace, name and the whole set of dimensions are equal:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html#Dimension
"""

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).with_name("published_metrics.toml")
OWN_NAMESPACE = "TelemetryLake"
_REFERENCE = re.compile(r'"Ref": "(\w+)"|"Fn::GetAtt": \["(\w+)"|\$\{(\w+)[.}]')
_SEARCH = re.compile(r"SEARCH\('\{(?P<schema>[^}]+)\} MetricName=\"(?P<name>\w+)\"(?P<dimensions>[^']*)'")

Emitted = Collection[tuple[str, str, frozenset[tuple[str, str]]]]
"""Metrics that code emitted: namespace, name, dimensions."""


@dataclass(frozen=True)
class Use:
    """A metric that an alarm or a widget names.

    Attributes:
        user: the alarm's logical id, or the widget's title.
        namespace: such as ``AWS/Kinesis``.
        name: the metric's name.
        dimensions: name to value, which may be a reference; None for any value, in a search.
    """

    user: str
    namespace: str
    name: str
    dimensions: Mapping[str, Any]


def uses(template: Mapping[str, Any]) -> Iterator[Use]:
    """Yield every metric that the alarms and dashboards of a resolved template name."""
    for logical_id, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        match resource["Type"]:
            case "AWS::CloudWatch::Alarm":
                stats = [metric["MetricStat"] for metric in properties.get("Metrics", []) if "MetricStat" in metric]
                for metric in [stat["Metric"] for stat in stats] or [properties]:
                    dimensions = {each["Name"]: each["Value"] for each in metric["Dimensions"]}
                    yield Use(logical_id, metric["Namespace"], metric["MetricName"], dimensions)
            case "AWS::CloudWatch::Dashboard":
                yield from _widget_uses(properties["DashboardBody"])


def widgets(body: Any) -> list[dict[str, Any]]:
    """Return the widgets of a dashboard's body, references left as ``${Name}``."""
    text: str = json.loads(json.dumps(_substituted(body)))
    found: list[dict[str, Any]] = json.loads(text)["widgets"]
    return found


def _substituted(body: Any) -> str:
    if isinstance(body, str):
        return body
    argument = body["Fn::Sub"]
    if isinstance(argument, str):
        return argument
    text, variables = argument
    for name, value in variables.items():
        text = text.replace(f"${{{name}}}", _substituted(value))
    return str(text)


def _widget_uses(body: Any) -> Iterator[Use]:
    for widget in widgets(body):
        title = widget["properties"]["title"]
        for entry in widget["properties"].get("metrics", ()):
            if isinstance(entry[0], dict):
                yield _search(title, entry[0]["expression"])
                continue
            namespace, name, *rest = entry
            words = [word for word in rest if isinstance(word, str)]
            yield Use(title, namespace, name, dict(zip(words[::2], words[1::2], strict=True)))


def _search(title: str, expression: str) -> Use:
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html ."""
    search = _SEARCH.match(expression)
    assert search is not None, expression
    namespace, *names = search["schema"].split(",")
    values = dict(re.findall(r'(\w+)="([^"]+)"', search["dimensions"]))
    return Use(title, namespace, search["name"], {name: values.get(name) for name in names})


def published() -> list[dict[str, Any]]:
    """Return the list of what AWS publishes."""
    listed: list[dict[str, Any]] = tomllib.loads(PUBLISHED.read_text("utf-8"))["metrics"]
    return listed


def unpublished(named: Sequence[Use], template: Mapping[str, Any]) -> list[str]:
    """Return a finding for every metric of AWS's that no page lists, or not for a resource of the template."""
    by_name = {(each["namespace"], name): each["dimensions"] for each in published() for name in each["names"]}
    findings = []
    for use in named:
        if use.namespace == OWN_NAMESPACE:
            continue
        expected = by_name.get((use.namespace, use.name))
        if expected is None:
            findings.append(f"{use.user}: no page lists {use.namespace} {use.name}")
        elif use.dimensions.keys() != expected.keys():
            findings.append(
                f"{use.user}: {use.name} has the dimensions {sorted(expected)}, not {sorted(use.dimensions)}"
            )
        else:
            findings += [
                f"{use.user}: {use.name} is not published for {name} {use.dimensions[name]!r}"
                for name, what in expected.items()
                if not _stands_for(use.dimensions[name], what, template)
            ]
    return findings


def _stands_for(value: Any, what: str | Sequence[str], template: Mapping[str, Any]) -> bool:
    if not isinstance(what, str):
        return value in what
    references = [next(part for part in found if part) for found in _REFERENCE.findall(json.dumps(value))]
    types = {template["Resources"].get(name, {}).get("Type") for name in references}
    return types == {what}


def not_emitted(named: Sequence[Use], emitted: Emitted) -> list[str]:
    """Return a finding for every metric of our own that no code emitted under just these dimensions."""
    return [
        f"{use.user}: nothing emits {use.name} for {dict(use.dimensions)}"
        for use in named
        if use.namespace == OWN_NAMESPACE and not any(_is(use, *metric) for metric in emitted)
    ]


def _is(use: Use, namespace: str, name: str, dimensions: frozenset[tuple[str, str]]) -> bool:
    values = dict(dimensions)
    return (
        (use.namespace, use.name) == (namespace, name)
        and use.dimensions.keys() == values.keys()
        and all(expected in (None, values[key]) for key, expected in use.dimensions.items())
    )
