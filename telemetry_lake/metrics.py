"""What CloudWatch has on record of the stack's services."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from telemetry_lake.target import Target

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.type_defs import MetricDataQueryTypeDef

PERIOD_SECONDS = 300
# A request may have 500 metrics, and its answer 100,800 values:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
METRICS_A_REQUEST = 50

Point = tuple[datetime, float]
"""When its period began, in UTC, and the value."""


@dataclass(frozen=True)
class Metric:
    """A metric of one resource, which statistic of it is wanted, for example ``Sum``, and over how many seconds."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    statistic: str
    period_seconds: int = PERIOD_SECONDS


def values_of(
    target: Target, metrics: Mapping[str, Metric], since: datetime, until: datetime
) -> dict[str, list[float]]:
    """Return the values of metrics, one list for each name; empty where there is no data."""
    found = points_of(target, list(metrics.values()), since, until)
    return {name: [value for _, value in points] for name, points in zip(metrics, found, strict=True)}


def points_of(target: Target, metrics: Sequence[Metric], since: datetime, until: datetime) -> list[list[Point]]:
    """Return the values of each metric with their times, the earliest first, in the order of the metrics.

    The first period of each is the one that ``since`` lies in. CloudWatch is asked from a whole multiple of it on,
    which it answers best (https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html).
    """
    points: dict[str, list[Point]] = {_query_id(number): [] for number in range(len(metrics))}
    queries = [_query(number, metric) for number, metric in enumerate(metrics)]
    longest_seconds = max((metric.period_seconds for metric in metrics), default=PERIOD_SECONDS)
    for first in range(0, len(queries), METRICS_A_REQUEST):
        pages = target.cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries[first : first + METRICS_A_REQUEST],
            StartTime=_beginning_of_period(since, longest_seconds),
            EndTime=until,
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                moments = (moment.astimezone(UTC) for moment in result["Timestamps"])
                points[result["Id"]] += zip(moments, result["Values"], strict=True)
    firsts = [_beginning_of_period(since, metric.period_seconds) for metric in metrics]
    return [
        sorted(point for point in each if point[0] >= first)
        for each, first in zip(points.values(), firsts, strict=True)
    ]


def _beginning_of_period(moment: datetime, period_seconds: int) -> datetime:
    return datetime.fromtimestamp(moment.timestamp() // period_seconds * period_seconds, UTC)


def _query_id(number: int) -> str:
    return f"metric{number}"


def _query(number: int, metric: Metric) -> "MetricDataQueryTypeDef":
    return {
        "Id": _query_id(number),
        "MetricStat": {
            "Metric": {
                "Namespace": metric.namespace,
                "MetricName": metric.name,
                "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions.items()],
            },
            "Period": metric.period_seconds,
            "Stat": metric.statistic,
        },
    }
