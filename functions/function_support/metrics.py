"""Custom metrics in CloudWatch's embedded metric format, with exactly the dimensions that alarms and widgets name.

An alarm matches a metric only when the whole set of dimensions is equal, and Powertools adds a ``service`` dimension
wherever a service name is known; so each set is written here by a provider that was given an empty one.

The format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from collections.abc import Mapping

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider


def emit_metrics(
    values: Mapping[str, float],
    *,
    namespace: str,
    dimensions: Mapping[str, str],
    units: Mapping[str, MetricUnit] | None = None,
) -> None:
    """Write one set of metrics, all under the same dimensions, to standard output, where CloudWatch Logs picks it up.

    Args:
        values: metric name to value.
        namespace: the CloudWatch namespace.
        dimensions: the complete dimension set.
        units: units of those metrics that are not counts.
    """
    # An empty service, not none: none would be looked up in the environment and become a dimension.
    provider = AmazonCloudWatchEMFProvider(namespace=namespace, service="", default_dimensions=dict(dimensions))
    for name, value in values.items():
        provider.add_metric(name, (units or {}).get(name, MetricUnit.Count), value)
    provider.flush_metrics()
