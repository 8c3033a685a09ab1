"""The check's environment, validated once at start."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from function_support.environment import EnvironmentReader, InvalidEnvironmentError

_CATALOG_NAME = re.compile(r"[a-z0-9_]+")
_THRESHOLD_PREFIX = "CHECK_"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the template tells the check.

    Attributes:
        stage: the stage, as the dimension of every custom metric.
        metrics_namespace: CloudWatch namespace of the custom metrics.
        workgroup: Athena workgroup; it decides where results go and how much a query may scan.
        database: Glue database of the table.
        table: name of the table.
        rejects_table: name of the table of rejects.
        partition_time_zone: time zone of the table's days.
        query_timeout_seconds: how long all of the queries together may take.
        scanned_bytes_budget: how many bytes all of the queries together may scan.
        temperature_min: lowest temperature that may be stored, degrees Celsius.
        temperature_max: highest temperature that may be stored, degrees Celsius.
        thresholds: numbers by name, as text, that SQL files may use: each variable ``CHECK_NAME`` is ``${name}`` there.
    """

    stage: str
    metrics_namespace: str
    workgroup: str
    database: str
    table: str
    rejects_table: str
    partition_time_zone: ZoneInfo
    query_timeout_seconds: int
    scanned_bytes_budget: int
    temperature_min: float
    temperature_max: float
    thresholds: Mapping[str, str]

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> "Settings":
        """Read and validate the environment.

        Raises:
            InvalidEnvironmentError: a variable is missing or unusable; all of them are named.
        """
        reader = EnvironmentReader(variables)
        settings = cls(
            stage=reader.text("STAGE"),
            metrics_namespace=reader.text("POWERTOOLS_METRICS_NAMESPACE"),
            workgroup=reader.text("ATHENA_WORKGROUP"),
            database=reader.text("GLUE_DATABASE"),
            table=reader.text("TABLE_NAME"),
            rejects_table=reader.text("REJECTS_TABLE_NAME"),
            partition_time_zone=reader.time_zone("PARTITION_TIME_ZONE"),
            query_timeout_seconds=reader.positive_integer("QUERY_TIMEOUT_SECONDS"),
            scanned_bytes_budget=reader.positive_integer("SCANNED_BYTES_BUDGET"),
            temperature_min=reader.number("TEMPERATURE_MIN"),
            temperature_max=reader.number("TEMPERATURE_MAX"),
            thresholds=reader.numbers_by_name(_THRESHOLD_PREFIX),
        )
        reader.finish()
        # Tables' names become part of SQL text, where a parameter cannot stand.
        for variable, name in (("TABLE_NAME", settings.table), ("REJECTS_TABLE_NAME", settings.rejects_table)):
            if not _CATALOG_NAME.fullmatch(name):
                raise InvalidEnvironmentError(f"{variable} must be lower-case letters, digits and _: {name!r}")
        return settings
