"""The template as CloudFormation sees it, expanded, and the state machine's definition, substituted.

Every judge reads this and not the SAM file: cfn-lint since 1.54 does not run the transform
(https://github.com/aws-cloudformation/cfn-lint/issues/4491), and the policies that SAM writes exist only here.
"""

import functools
import json
import os
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

from tests.judging import REPOSITORY

TEMPLATE = REPOSITORY / "template.yaml"
DEFINITION = REPOSITORY / "statemachine" / "pipeline.asl.json"
REGION = "ap-northeast-1"
ACCOUNT_ID = "123456789012"

# One value for each thing that the template hands to the definition, as CloudFormation would resolve it.
DEFINITION_SUBSTITUTIONS = {
    "JobName": "temperature-etl",
    "JobTimeoutMinutes": "60",
    "JobWaitSeconds": "60",
    "AnalyticsBucketName": f"temperature-analytics-bucket-{ACCOUNT_ID}-{REGION}",
    "DatabaseName": "temperature_lake",
    "TableName": "device_telemetry",
    "CrawlerName": "temperature-crawler",
    "CrawlerPollSeconds": "15",
    "AthenaCheckFunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:temperature-athena-check",
}


class _NoManagedPolicies:
    """Stands in for the translator's iam:ListPolicies call; the template names no managed policy."""

    def load(self) -> dict[str, str]:
        return {}


@functools.cache
def _sam_template() -> dict[str, Any]:
    from samtranslator.yaml_helper import yaml_parse

    return cast("dict[str, Any]", yaml_parse(TEMPLATE.read_text()))


def sam_template() -> dict[str, Any]:
    """Return a fresh copy of the template as written, intrinsic functions in their long form."""
    return deepcopy(_sam_template())


def expanded_template(defaults: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the template that CloudFormation would deploy, with packaged artifacts in place of local paths.

    Args:
        defaults: values to put in the place of the parameters' own.
    """
    from samtranslator.translator.transform import transform

    template = sam_template()
    for name, value in (defaults or {}).items():
        template["Parameters"][name]["Default"] = value
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        match resource["Type"]:
            case "AWS::Serverless::Function":
                properties["CodeUri"] = "s3://artifacts/functions.zip"
            case "AWS::Serverless::StateMachine":
                properties["DefinitionUri"] = {"Bucket": "artifacts", "Key": "pipeline.asl.json"}
            case "AWS::Glue::Job":
                properties["Command"]["ScriptLocation"] = "s3://artifacts/telemetry_etl.py"
    template["Globals"]["Function"]["CodeUri"] = "s3://artifacts/functions.zip"
    os.environ.setdefault("AWS_DEFAULT_REGION", REGION)
    return cast("dict[str, Any]", transform(template, {"AWS::Region": REGION}, _NoManagedPolicies()))


def substituted_definition(substitutions: Mapping[str, str] = DEFINITION_SUBSTITUTIONS) -> dict[str, Any]:
    """Return the state machine's definition with every ``${Name}`` replaced.

    Raises:
        KeyError: the definition asks for a name that ``substitutions`` lacks.
    """
    text = re.sub(r"\$\{(\w+)\}", lambda match: substitutions[match[1]], DEFINITION.read_text())
    return cast("dict[str, Any]", json.loads(text))


def resources_of_type(template: Mapping[str, Any], resource_type: str) -> dict[str, dict[str, Any]]:
    """Return the template's resources of one type by logical id."""
    return {
        name: deepcopy(resource)
        for name, resource in template["Resources"].items()
        if resource["Type"] == resource_type
    }
