"""The widgets of the stack's CloudWatch dashboard: those that draw metrics, and the alarms that others show.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html: an entry of
``metrics`` is ``[namespace, name, dimension, value, ..., {options}]``; ``"."`` repeats what the entry above has in that
place, ``"..."`` all that it has there and that is not given.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from telemetry_lake.metrics import Metric

DEFAULT_STATISTIC = "Average"
DEFAULT_PERIOD_SECONDS = 300
RIGHT_AXIS = "right"
ALARM_ARN_COLONS = 6

SEARCH_EXPRESSION = re.compile(
    r"SEARCH\('\{(?P<namespace>[^,}\"]+),(?P<dimensions>[^}\"]+)\} MetricName=\"(?P<name>[^\"]+)\"(?P<terms>[^']*)', "
    r"'(?P<statistic>[^']+)'(?:, (?P<period>[0-9]+))?\)"
)
SEARCH_TERM = re.compile(r' ([A-Za-z0-9]+)="([^"]+)"')


@dataclass(frozen=True)
class Plot:
    """A metric, and how a chart draws it."""

    metric: Metric
    label: str
    on_right_axis: bool = False


@dataclass(frozen=True)
class Search:
    """Every metric of this name that has exactly these dimensions, some of them with a value that is given.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html
    """

    namespace: str
    name: str
    dimension_names: tuple[str, ...]
    values: Mapping[str, str]
    statistic: str
    period_seconds: int


Find = Callable[[Search], Iterable[Metric]]
"""Finds what a search stands for."""


@dataclass(frozen=True)
class Widget:
    """A widget that draws metrics; its title says what good looks like."""

    title: str
    plots: tuple[Plot, ...]


def metric_widgets(dashboard_body: str, find: Find) -> list[Widget]:
    """Return the widgets of a dashboard that draw metrics, in the order in which a reader meets them.

    Entries with an expression that is no plain `Search` are left out, and so is a widget that has nothing else.
    """
    widgets = json.loads(dashboard_body)["widgets"]
    ordered = sorted(widgets, key=lambda widget: (widget.get("y", 0), widget.get("x", 0)))
    found = [_widget(each["properties"], find) for each in ordered if each["type"] == "metric"]
    return [widget for widget in found if widget.plots]


def alarms_shown(dashboard_body: str) -> list[str]:
    """Return the names of the alarms whose states the dashboard shows, in the order of its widgets.

    An alarm's ARN is ``arn:aws:cloudwatch:<region>:<account>:alarm:<name>``.
    """
    widgets = json.loads(dashboard_body)["widgets"]
    arns = [arn for widget in widgets if widget["type"] == "alarm" for arn in widget["properties"]["alarms"]]
    return list(dict.fromkeys(arn.split(":", ALARM_ARN_COLONS)[-1] for arn in arns))


def _widget(properties: Mapping[str, Any], find: Find) -> Widget:
    return Widget(properties.get("title", ""), tuple(_told_apart(list(_plots(properties, find)))))


def _told_apart(plots: Sequence[Plot]) -> Iterator[Plot]:
    """Yield the plots, those with a label in common with the values of the dimensions in which they differ."""
    for plot in plots:
        namesakes = [each.metric.dimensions for each in plots if each.label == plot.label]
        own = [
            value
            for name, value in plot.metric.dimensions.items()
            if any(dimensions.get(name) != value for dimensions in namesakes)
        ]
        yield replace(plot, label=" ".join([plot.label, *own]))


def _plots(properties: Mapping[str, Any], find: Find) -> Iterator[Plot]:
    above: Sequence[str] = ()
    for entry in properties.get("metrics", ()):
        options = entry[-1] if isinstance(entry[-1], dict) else {}
        search = _search(options.get("expression", ""))
        if search is not None and options.get("visible") is not False:
            yield from (Plot(metric, metric.name, options.get("yAxis") == RIGHT_AXIS) for metric in find(search))
        words = _written_out([word for word in entry if isinstance(word, str)], above)
        if not words or options.get("visible") is False:
            above = words or above
            continue
        above = words
        namespace, name, *dimensions = words
        metric = Metric(
            namespace,
            name,
            dict(zip(dimensions[::2], dimensions[1::2], strict=True)),
            options.get("stat", properties.get("stat", DEFAULT_STATISTIC)),
            options.get("period", properties.get("period", DEFAULT_PERIOD_SECONDS)),
        )
        yield Plot(metric, options.get("label", name), options.get("yAxis") == RIGHT_AXIS)


def _search(expression: str) -> Search | None:
    match = SEARCH_EXPRESSION.fullmatch(expression)
    if match is None or SEARCH_TERM.sub("", match["terms"]):
        return None
    return Search(
        match["namespace"],
        match["name"],
        tuple(match["dimensions"].split(",")),
        dict(SEARCH_TERM.findall(match["terms"])),
        match["statistic"],
        int(match["period"] or DEFAULT_PERIOD_SECONDS),
    )


def _written_out(words: Sequence[str], above: Sequence[str]) -> list[str]:
    if "..." in words:
        given = words[words.index("...") + 1 :]
        return [*above[: len(above) - len(given)], *given]
    return [above[place] if word == "." else word for place, word in enumerate(words)]
