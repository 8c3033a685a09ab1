"""What CloudWatch has on record of the stack's services."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from telemetry_lake.target import Target

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.literals import StatisticType
    from mypy_boto3_cloudwatch.type_defs import MetricDataQueryTypeDef

PERIOD_SECONDS = 300


@dataclass(frozen=True)
class Metric:
    """A metric of one resource, and which statistic of it is wanted, for example ``Sum``."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    statistic: "StatisticType"


def values_of(
    target: Target, metrics: Mapping[str, Metric], since: datetime, until: datetime
) -> dict[str, list[float]]:
    """Return the values of metrics in periods of five minutes, one list for each name; empty where there is no data.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
    """
    ids = {f"m{number}": name for number, name in enumerate(metrics)}
    queries: list[MetricDataQueryTypeDef] = [
        {
            "Id": query_id,
            "MetricStat": {
                "Metric": {
                    "Namespace": metrics[name].namespace,
                    "MetricName": metrics[name].name,
                    "Dimensions": [{"Name": key, "Value": value} for key, value in metrics[name].dimensions.items()],
                },
                "Period": PERIOD_SECONDS,
                "Stat": metrics[name].statistic,
            },
        }
        for query_id, name in ids.items()
    ]
    found: dict[str, list[float]] = {name: [] for name in metrics}
    pages = target.cloudwatch.get_paginator("get_metric_data").paginate(
        MetricDataQueries=queries, StartTime=since, EndTime=until
    )
    for page in pages:
        for result in page["MetricDataResults"]:
            found[ids[result["Id"]]] += result["Values"]
    return found
