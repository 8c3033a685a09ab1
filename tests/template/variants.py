"""The parameter values under which the template is judged, and the template resolved for them."""

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, cast

from tests.template.expansion import expanded_template, sam_template
from tests.template.resolution import all_pairs, conditions, parameter_values, resolve

# Every parameter that makes, removes or changes resources; the longest stage that the pattern admits among them.
FACTORS: dict[str, tuple[str, ...]] = {
    "Encryption": ("SSE-S3", "CustomerKey"),
    "Trigger": ("Both", "S3Events", "Schedule"),
    "AuditSchedule": ("cron(40 17 * * ? *)", ""),
    "CheckSchedule": ("cron(10 18 * * ? *)", ""),
    "StreamMode": ("ON_DEMAND", "PROVISIONED"),
    "Stage": ("prod", "dev", "longest"),
    "GlueVersion": ("5.1", "4.0", "5.0", "6.0"),
    "NotificationEmail": ("", "somebody@example.com"),
    "RawArchiveDays": ("90", "0"),
    "RawExpirationDays": ("0", "400"),
    "CuratedArchiveDays": ("365", "0"),
    "DataBucketName": ("", "a-raw-bucket"),
    "AnalyticsBucketName": ("", "an-analytics-bucket"),
}
LONGEST_STAGE = "longest"
# Three together decide whether there is a role for schedules, and pairs need not meet in this.
WITHOUT_SCHEDULES = {"Trigger": "S3Events", "AuditSchedule": "", "CheckSchedule": ""}


@functools.cache
def _template_text() -> str:
    return json.dumps(expanded_template())


def template() -> dict[str, Any]:
    """Return a fresh copy of the expanded template."""
    return cast("dict[str, Any]", json.loads(_template_text()))


def longest_stage(stage: Mapping[str, Any]) -> str:
    """Return a stage of the greatest length that the parameter's pattern admits.

    Raises:
        ValueError: the pattern bounds no length.
    """
    admitted = [length for length in range(1, 64) if re.fullmatch(stage["AllowedPattern"], "a" * length)]
    if not admitted or admitted[-1] == 63:
        raise ValueError("the pattern of Stage bounds no length")
    return "a" * admitted[-1]


@functools.cache
def _stage() -> str:
    return longest_stage(sam_template()["Parameters"]["Stage"])


def overrides() -> list[dict[str, str]]:
    """Return rows of parameter values in which every two values of two factors meet, and one without any schedule."""
    usual = {name: values[0] for name, values in FACTORS.items()}
    rows = [*all_pairs(FACTORS), usual | WITHOUT_SCHEDULES]
    return [row | {"Stage": row["Stage"].replace(LONGEST_STAGE, _stage())} for row in rows]


def resolved(row: Mapping[str, str]) -> dict[str, Any]:
    """Return the template resolved for one row."""
    return resolve(template(), row)


def undecided_conditions(rows: list[dict[str, str]]) -> list[str]:
    """Return a finding for every condition of the template that has the same outcome in all rows."""
    document = template()
    outcomes = [conditions(document, parameter_values(document, row)) for row in rows]
    return [
        f"condition {name} is {outcomes[0][name]} in every variant: add its parameter to FACTORS"
        for name in document["Conditions"]
        if len({outcome[name] for outcome in outcomes}) == 1
    ]
