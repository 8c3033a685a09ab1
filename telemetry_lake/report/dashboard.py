"""The widgets of the stack's CloudWatch dashboard, as far as they draw metrics.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html: an entry of
``metrics`` is ``[namespace, name, dimension, value, ..., {options}]``; ``"."`` repeats what the entry above has in that
place, ``"..."`` all that it has there and that is not given.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEFAULT_STATISTIC = "Average"
DEFAULT_PERIOD_SECONDS = 300
RIGHT_AXIS = "right"


@dataclass(frozen=True)
class Metric:
    """A metric with one statistic over a period, and how a chart names it."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: str
    period_seconds: int
    label: str
    on_right_axis: bool = False


@dataclass(frozen=True)
class Widget:
    """A widget that draws metrics; its title says what good looks like."""

    title: str
    metrics: tuple[Metric, ...]


def metric_widgets(dashboard_body: str) -> list[Widget]:
    """Return the widgets of a dashboard that draw metrics, in the order in which a reader meets them.

    Entries with a metric math expression are left out: they draw metrics that stand beside them.
    """
    widgets = json.loads(dashboard_body)["widgets"]
    ordered = sorted(widgets, key=lambda widget: (widget.get("y", 0), widget.get("x", 0)))
    found = [_widget(each["properties"]) for each in ordered if each["type"] == "metric"]
    return [widget for widget in found if widget.metrics]


def _widget(properties: Mapping[str, Any]) -> Widget:
    return Widget(properties.get("title", ""), tuple(_metrics(properties)))


def _metrics(properties: Mapping[str, Any]) -> Iterator[Metric]:
    above: Sequence[str] = ()
    for entry in properties.get("metrics", ()):
        options = entry[-1] if isinstance(entry[-1], dict) else {}
        words = _written_out([word for word in entry if isinstance(word, str)], above)
        if not words or options.get("visible") is False:
            above = words or above
            continue
        above = words
        namespace, name, *dimensions = words
        yield Metric(
            namespace=namespace,
            name=name,
            dimensions=tuple(zip(dimensions[::2], dimensions[1::2], strict=True)),
            statistic=options.get("stat", properties.get("stat", DEFAULT_STATISTIC)),
            period_seconds=options.get("period", properties.get("period", DEFAULT_PERIOD_SECONDS)),
            label=options.get("label", name),
            on_right_axis=options.get("yAxis") == RIGHT_AXIS,
        )


def _written_out(words: Sequence[str], above: Sequence[str]) -> list[str]:
    if "..." in words:
        given = words[words.index("...") + 1 :]
        return [*above[: len(above) - len(given)], *given]
    return [above[place] if word == "." else word for place, word in enumerate(words)]
