"""References to resources, replaced by names and ARNs: what each policy says once it is deployed.

A resource whose own Condition does not hold is not there, and a reference to it is an error, as it would be at
deployment. Names that CloudFormation would generate (roles, the key, policies) are the logical ids, so that a finding
says which resource it is about.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tests.template import resolution
from tests.template.expansion import ACCOUNT_ID, REGION

_VARIABLE = re.compile(r"\$\{([^}]+)\}")

_PSEUDO_PARAMETERS = {
    "AWS::AccountId": ACCOUNT_ID,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::StackName": "telemetry-lake",
}

# The property that holds a resource's name, and what its ARN looks like around that name:
# https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
_NAME_AND_ARN: Mapping[str, tuple[str, str]] = {
    "AWS::Athena::WorkGroup": ("Name", "arn:aws:athena:{region}:{account}:workgroup/{name}"),
    "AWS::CloudWatch::Alarm": ("AlarmName", "arn:aws:cloudwatch:{region}:{account}:alarm:{name}"),
    "AWS::Events::Rule": ("Name", "arn:aws:events:{region}:{account}:rule/{name}"),
    "AWS::Glue::Crawler": ("Name", "arn:aws:glue:{region}:{account}:crawler/{name}"),
    "AWS::Glue::Job": ("Name", "arn:aws:glue:{region}:{account}:job/{name}"),
    "AWS::IAM::ManagedPolicy": ("ManagedPolicyName", "arn:aws:iam::{account}:policy/{name}"),
    "AWS::IAM::Role": ("RoleName", "arn:aws:iam::{account}:role/{name}"),
    "AWS::KMS::Key": ("", "arn:aws:kms:{region}:{account}:key/{name}"),
    "AWS::Kinesis::Stream": ("Name", "arn:aws:kinesis:{region}:{account}:stream/{name}"),
    "AWS::KinesisFirehose::DeliveryStream": (
        "DeliveryStreamName",
        "arn:aws:firehose:{region}:{account}:deliverystream/{name}",
    ),
    "AWS::Lambda::Function": ("FunctionName", "arn:aws:lambda:{region}:{account}:function:{name}"),
    # With the suffix: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-logs-loggroup.html
    "AWS::Logs::LogGroup": ("LogGroupName", "arn:aws:logs:{region}:{account}:log-group:{name}:*"),
    "AWS::S3::Bucket": ("BucketName", "arn:aws:s3:::{name}"),
    "AWS::SNS::Topic": ("TopicName", "arn:aws:sns:{region}:{account}:{name}"),
    "AWS::SQS::Queue": ("QueueName", "arn:aws:sqs:{region}:{account}:{name}"),
    "AWS::StepFunctions::StateMachine": (
        "StateMachineName",
        "arn:aws:states:{region}:{account}:stateMachine:{name}",
    ),
}
# Ref gives the name, but for these: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/ref.html
_REF_IS_ARN = frozenset({"AWS::SNS::Topic", "AWS::StepFunctions::StateMachine", "AWS::IAM::ManagedPolicy"})


class UnresolvedError(ValueError):
    """The template uses something that this resolver does not know, or refers to what is not there."""


@dataclass(frozen=True)
class Stack:
    """The template with a value for every parameter.

    Attributes:
        template: the expanded template.
        overrides: parameter values other than the defaults.
    """

    template: Mapping[str, Any]
    overrides: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def resources(self) -> dict[str, Mapping[str, Any]]:
        """The resources that are deployed; references to resources are still there."""
        return dict(resolution.resolve(self.template, self.overrides)["Resources"])

    def arn(self, logical_id: str) -> str:
        """Return the ARN of a deployed resource.

        Raises:
            UnresolvedError: it is not deployed, or its type has no ARN here.
        """
        arn = self.arn_or_none(logical_id)
        if arn is None:
            raise UnresolvedError(f"{logical_id}: no ARN is known for {self._resource(logical_id)['Type']}")
        return arn

    def arn_or_none(self, logical_id: str) -> str | None:
        """Return the ARN of a deployed resource, None for a type without one here."""
        kind = self._resource(logical_id)["Type"]
        if kind not in _NAME_AND_ARN:
            return None
        return _NAME_AND_ARN[kind][1].format(region=REGION, account=ACCOUNT_ID, name=self.name(logical_id))

    def name(self, logical_id: str) -> str:
        """Return the name of a deployed resource.

        Raises:
            UnresolvedError: it is not deployed, or its type has no name here.
        """
        resource = self._resource(logical_id)
        properties = resource["Properties"]
        match resource["Type"]:
            case "AWS::Glue::Table":
                return str(properties["TableInput"]["Name"])
            case "AWS::Glue::Database":
                return str(properties["DatabaseInput"]["Name"])
            case "AWS::Glue::SecurityConfiguration":
                return str(properties["Name"])
            case "AWS::Logs::LogStream":
                return str(properties["LogStreamName"])
            case kind if kind in _NAME_AND_ARN:
                return str(self.resolve(properties.get(_NAME_AND_ARN[kind][0], logical_id)))
            case kind:
                raise UnresolvedError(f"{logical_id}: no name is known for {kind}")

    def resolve(self, value: Any) -> Any:
        """Return a value of a deployed resource with every reference replaced.

        Raises:
            UnresolvedError: a function, a name or an attribute is unknown.
        """
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function == "Ref" or function.startswith("Fn::"):
                return self._call(function, argument)
        return {key: self.resolve(item) for key, item in value.items()}

    def _call(self, function: str, argument: Any) -> str:
        match function:
            case "Ref":
                return self._ref(argument)
            case "Fn::GetAtt":
                return self._attribute(*argument)
            case "Fn::Sub" if isinstance(argument, str):
                return _VARIABLE.sub(lambda match: self._variable(match[1]), argument)
        raise UnresolvedError(f"{function} is not known")

    def _ref(self, name: str) -> str:
        if name in _PSEUDO_PARAMETERS:
            return _PSEUDO_PARAMETERS[name]
        return self.arn(name) if self._resource(name)["Type"] in _REF_IS_ARN else self.name(name)

    def _attribute(self, logical_id: str, attribute: str) -> str:
        if attribute != "Arn":
            raise UnresolvedError(f"{logical_id}.{attribute} is not known")
        return self.arn(logical_id)

    def _variable(self, name: str) -> str:
        logical_id, _, attribute = name.partition(".")
        return self._attribute(logical_id, attribute) if attribute else self._ref(name)

    def _resource(self, logical_id: str) -> Mapping[str, Any]:
        if logical_id not in self.resources:
            raise UnresolvedError(f"{logical_id} is not deployed with these parameters")
        return self.resources[logical_id]
