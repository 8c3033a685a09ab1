"""The transform's environment, validated once at start."""

from collections.abc import Mapping

import msgspec

from function_support.environment import EnvironmentReader
from telemetry_contract import Policy


class Settings(msgspec.Struct, frozen=True):
    """What the template tells the transform.

    Attributes:
        stage: the stage, as the dimension of every custom metric.
        metrics_namespace: CloudWatch namespace of the custom metrics.
        dead_letter_bucket: bucket that takes the rejects.
        dead_letter_prefix: key prefix of the rejects, ended by a slash.
        policy: the limits readings are judged by.
    """

    stage: str
    metrics_namespace: str
    dead_letter_bucket: str
    dead_letter_prefix: str
    policy: Policy

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> "Settings":
        """Read and validate the environment.

        Raises:
            ValueError: a variable is missing or unusable (all of them are named), or the limits contradict each other.
        """
        reader = EnvironmentReader(variables)
        stage = reader.text("STAGE")
        metrics_namespace = reader.text("POWERTOOLS_METRICS_NAMESPACE")
        dead_letter_bucket = reader.text("DLQ_BUCKET")
        dead_letter_prefix = reader.prefix("DLQ_PREFIX")
        temperature_min = reader.number("TEMPERATURE_MIN")
        temperature_max = reader.number("TEMPERATURE_MAX")
        max_future_seconds = reader.number("MAX_FUTURE_SECONDS")
        max_age_days = reader.number("MAX_AGE_DAYS")
        reader.finish()
        return cls(
            stage=stage,
            metrics_namespace=metrics_namespace,
            dead_letter_bucket=dead_letter_bucket,
            dead_letter_prefix=dead_letter_prefix,
            policy=Policy(
                temperature_min=temperature_min,
                temperature_max=temperature_max,
                max_future_seconds=max_future_seconds,
                max_age_days=max_age_days,
            ),
        )
