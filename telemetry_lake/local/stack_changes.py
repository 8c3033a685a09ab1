"""CloudFormation's rules for changing what exists: replacement, names that are taken, import of what was retained.

* A property that cannot change in place replaces its resource, as the resource's schema says
  (https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-update-behaviors.html); a
  resource with a custom name is not replaced under the same name
  (https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-name.html).
* A change set that would create a resource under a name that exists already fails in the validation before the
  deployment (https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/validate-stack-deployments.html), and
  DescribeEvents tells which resources are concerned.
* A Kinesis stream can be imported, as MiniStack's buckets and keys can
  (https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources-manually.html).

Known deviations from AWS:

* Names are looked up before the deployment for the types whose name identifies them, in ``NAMINGS``; AWS does not list
  its own. A name that is taken in another type fails when the resource is created, with the same sentence.
* Of the validations before the deployment there are the names, and MiniStack's few properties; a property that this
  endpoint does not model is refused earlier, with the request. Buckets that are not empty are no warning.
* Of the template's types only buckets, streams, keys and their aliases, functions, roles, log groups, queues and topics
  can be imported.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

Properties = dict[str, Any]
Provisioned = tuple[str, dict[str, Any]]
Answer = tuple[int, Any, Any]
# Logical id, resource type, name of the validation, path in the template, reason.
Finding = tuple[str, str, str, str, str]

# Properties that cannot change in place, by resource type, where MiniStack has none or others: ``createOnlyProperties``
# of the schemas (https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html). For a
# security configuration the page of the type says it of every property.
CREATE_ONLY: Mapping[str, tuple[str, ...]] = {
    kind: tuple(names.split())
    for kind, names in {
        "AWS::Athena::NamedQuery": "Database Description Name QueryString WorkGroup",
        "AWS::CloudWatch::Alarm": "AlarmName",
        "AWS::CloudWatch::CompositeAlarm": "AlarmName",
        "AWS::CloudWatch::Dashboard": "DashboardName",
        "AWS::Events::Rule": "Name",
        "AWS::Glue::SecurityConfiguration": "EncryptionConfiguration Name",
        "AWS::IAM::Policy": "",
        "AWS::KMS::Alias": "AliasName",
        "AWS::KMS::Key": "",
        "AWS::Kinesis::Stream": "Name",
        "AWS::KinesisFirehose::DeliveryStream": (
            "DeliveryStreamName DeliveryStreamType KinesisStreamSourceConfiguration MSKSourceConfiguration"
            " DatabaseSourceConfiguration DirectPutSourceConfiguration"
        ),
        "AWS::Lambda::EventInvokeConfig": "FunctionName Qualifier",
        "AWS::Lambda::Permission": (
            "Action EventSourceToken FunctionName FunctionUrlAuthType InvokedViaFunctionUrl Principal PrincipalOrgID"
            " SourceAccount SourceArn"
        ),
        "AWS::Logs::LogGroup": "LogGroupName",
        "AWS::Pipes::Pipe": "Name Source",
        "AWS::S3::Bucket": "BucketName BucketNamePrefix BucketNamespace",
        "AWS::S3::BucketPolicy": "Bucket",
        "AWS::SNS::Subscription": "Endpoint Protocol TopicArn",
        "AWS::SNS::TopicPolicy": "",
        "AWS::SQS::QueuePolicy": "",
        "AWS::Scheduler::Schedule": "Name",
    }.items()
}

# Types that can need replacing for something else than their name, which MiniStack would replace under the same one.
CUSTOM_NAMES: Mapping[str, str] = {
    "AWS::Glue::SecurityConfiguration": "Name",
    "AWS::KinesisFirehose::DeliveryStream": "DeliveryStreamName",
}

NAME_CONFLICT = "NAME_CONFLICT_VALIDATION"
# Which check a change set names for a validation that failed, seen in
# https://github.com/aws/aws-cdk-cli/issues/1000 and https://github.com/aws-cloudformation/rain/pull/744.
_CHECKS = {NAME_CONFLICT: "AWS::EarlyValidation::ResourceExistenceCheck"}
_OTHER_CHECK = "AWS::EarlyValidation::PropertyValidation"


@dataclass(frozen=True)
class Naming:
    """How a resource type is named, and where MiniStack keeps what has the name.

    Attributes:
        kind: the resource type.
        name_property: the property with the name.
        service: MiniStack's service, as its provisioners call it.
        store: the service's dictionary.
        key: the key in it, with ``{name}``, ``{region}`` and ``{account}``.
        identifies: whether the name is the type's primary identifier, so that it can be looked up before a deployment.
    """

    kind: str
    name_property: str
    service: str
    store: str
    key: str = "{name}"
    identifies: bool = True


NAMINGS = (
    Naming("AWS::Athena::WorkGroup", "Name", "_athena", "_workgroups"),
    Naming("AWS::CloudWatch::Alarm", "AlarmName", "_cw", "_alarms"),
    Naming("AWS::CloudWatch::CompositeAlarm", "AlarmName", "_cw", "_composite_alarms"),
    Naming("AWS::CloudWatch::Dashboard", "DashboardName", "_cw", "_dashboards"),
    Naming("AWS::Glue::Crawler", "Name", "_glue", "_crawlers"),
    Naming("AWS::Glue::Job", "Name", "_glue", "_jobs"),
    Naming("AWS::Glue::SecurityConfiguration", "Name", "_glue", "_security_configs"),
    Naming("AWS::IAM::Role", "RoleName", "_iam", "_roles"),
    Naming("AWS::KMS::Alias", "AliasName", "_kms", "_aliases", "arn:aws:kms:{region}:{account}:{name}"),
    Naming("AWS::Kinesis::Stream", "Name", "_kinesis", "_streams"),
    Naming("AWS::KinesisFirehose::DeliveryStream", "DeliveryStreamName", "_firehose", "_streams"),
    Naming("AWS::Lambda::Function", "FunctionName", "_lambda_svc", "_functions"),
    Naming("AWS::Logs::LogGroup", "LogGroupName", "_cw_logs", "_log_groups"),
    Naming("AWS::Pipes::Pipe", "Name", "_pipes", "_pipes"),
    Naming("AWS::SNS::Topic", "TopicName", "_sns", "_topics", "arn:aws:sns:{region}:{account}:{name}", False),
    Naming("AWS::SQS::Queue", "QueueName", "_sqs", "_queue_name_to_url", "{name}", False),
    Naming(
        "AWS::StepFunctions::StateMachine",
        "StateMachineName",
        "_sfn",
        "_state_machines",
        "arn:aws:states:{region}:{account}:stateMachine:{name}",
        False,
    ),
)


class NameTakenError(ValueError):
    """A resource cannot be created because another one has its name."""


def taken(kind: str, name: str) -> str:
    """Return CloudFormation's sentence about a name that is taken."""
    return f"Resource of type '{kind}' with identifier '{name}' already exists."


def failure_reason(findings: Iterable[Finding]) -> str:
    """Return why a change set failed; what exactly is wrong, DescribeEvents tells."""
    checks = sorted({_CHECKS.get(validation, _OTHER_CHECK) for _, _, validation, _, _ in findings})
    return (
        f"The following hook(s)/validation failed: [{', '.join(checks)}]. To troubleshoot Early Validation errors, use "
        "the DescribeEvents API for detailed failure information."
    )


class StackChanges:
    """What is done around MiniStack's creation and update of stacks."""

    def __init__(self, endpoint: Endpoint, modules: Mapping[str, ModuleType]) -> None:
        """Take MiniStack's CloudFormation apart.

        Args:
            endpoint: the endpoint.
            modules: MiniStack's modules ``changesets``, ``handlers``, ``provisioners`` and ``stacks``.
        """
        self._settings = endpoint.settings
        self._changesets = modules["changesets"]
        self._handlers = modules["handlers"]
        self._provisioners = modules["provisioners"]
        self._stacks = modules["stacks"]
        for naming in NAMINGS:
            seams.require(seams.require(self._provisioners, naming.service), naming.store)

    def _exists(self, naming: Naming, name: str) -> bool:
        # Looked up anew: restoring the saved state may put another dictionary in its place.
        store = getattr(getattr(self._provisioners, naming.service), naming.store)
        key = naming.key.format(name=name, region=self._settings.region, account=self._settings.account_id)
        return key in store

    # Names

    def refusing(self, naming: Naming, create: Callable[..., Provisioned]) -> Callable[..., Provisioned]:
        """Return a creation that fails on a name that is taken, where MiniStack would replace what is there.

        The sentence: https://github.com/aws-samples/bedrock-chat/issues/794.
        """

        def created(logical_id: str, properties: Properties, stack_name: str) -> Provisioned:
            name = properties.get(naming.name_property)
            if name and self._exists(naming, str(name)):
                raise NameTakenError(
                    f'Resource handler returned message: "{taken(naming.kind, str(name))}" '
                    f"(RequestToken: {uuid.uuid4()}, HandlerErrorCode: AlreadyExists)"
                )
            return create(logical_id, properties, stack_name)

        return created

    def name_conflicts(
        self,
        resources: Mapping[str, Mapping[str, Any]],
        ordered: Iterable[str],
        scope: tuple[Any, ...],
        present: Mapping[str, Mapping[str, Any]],
    ) -> list[Finding]:
        """Return the resources that would be created under a name that another one has.

        Args:
            resources: those of the template.
            ordered: logical ids, in the order of creation.
            scope: what MiniStack resolves a value with: parameters, conditions, mappings, the stack's name and id.
            present: what the stack has by logical id.
        """
        namings = {naming.kind: naming for naming in NAMINGS if naming.identifies}
        conditions = scope[1]
        findings = []
        for logical_id in ordered:
            definition = resources[logical_id]
            naming = namings.get(definition.get("Type", ""))
            if naming is None or not conditions.get(definition.get("Condition", ""), True):
                continue
            value = (definition.get("Properties") or {}).get(naming.name_property)
            name = self._stacks._static_property(value, resources, *scope) if value else None
            own = present.get(logical_id, {})
            if not isinstance(name, str) or own.get("PhysicalResourceId") == name:
                continue
            if self._exists(naming, name):
                path = f"/Resources/{logical_id}"
                findings.append((logical_id, naming.kind, NAME_CONFLICT, path, taken(naming.kind, name)))
        return findings

    def validating(self, original: Callable[..., list[Finding]]) -> Callable[..., list[Finding]]:
        """Return MiniStack's validation before a deployment, with the names of more types than buckets."""

        def validate(
            resources: Mapping[str, Any], ordered: Iterable[str], *scope: Any, **keywords: Any
        ) -> list[Finding]:
            from ministack.services.cloudformation import _stacks

            # Parameters, conditions, mappings, the stack's name and id; MiniStack's last one is its buckets.
            of_stack = scope[:5]
            present = _stacks.get(of_stack[3], {}).get("_resources", {})
            ordered = list(ordered)
            found = original(resources, ordered, *scope, **keywords)
            return [*found, *self.name_conflicts(resources, ordered, of_stack, present)]

        return validate

    # Change sets

    def creating_change_sets(self, create: Callable[[Mapping[str, Any]], Answer]) -> Callable[..., Answer]:
        """Return CreateChangeSet, followed by the validation before the deployment.

        https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/validate-stack-deployments.html
        """

        def create_change_set(parameters: Mapping[str, Any]) -> Answer:
            answer = create(parameters)
            read = self._changesets._p
            _, change_set = self._changesets._find_change_set(
                read(parameters, "ChangeSetName"), read(parameters, "StackName")
            )
            if (
                answer[0] == 200  # noqa: PLR2004
                and change_set["Status"] == "CREATE_COMPLETE"
                and change_set["ChangeSetType"] != "IMPORT"
                and not change_set["_disable_validation"]
            ):
                self.validate_change_set(change_set)
            return answer

        return create_change_set

    def validate_change_set(self, change_set: dict[str, Any]) -> None:
        """Let a change set fail that would create what exists already."""
        from ministack.services.cloudformation import _stacks

        stack = _stacks[change_set["StackName"]]
        template, parameters = change_set["_template"], change_set["_resolved_params"]
        imported = change_set["_import_existing"]
        resources = {name: each for name, each in template.get("Resources", {}).items() if name not in imported}
        buckets = {
            each.get("PhysicalResourceId")
            for each in stack.get("_resources", {}).values()
            if each.get("ResourceType") == "AWS::S3::Bucket"
        }
        conditions = self._changesets._evaluate_conditions(template, parameters)
        findings = self._stacks._validation_errors(
            resources,
            list(resources),
            parameters,
            conditions,
            template.get("Mappings", {}),
            stack["StackName"],
            stack["StackId"],
            frozenset(buckets),
        )
        if not findings:
            return
        operation = str(uuid.uuid4())
        change_set |= {
            "Status": "FAILED",
            "ExecutionStatus": "UNAVAILABLE",
            "StatusReason": failure_reason(findings),
            "_operation": operation,
        }
        stack["_operation_events"] = [
            *(stack.get("_operation_events") or []),
            *(
                self._stacks._operation_event(
                    stack["StackId"],
                    operation,
                    "VALIDATION_ERROR",
                    "CREATE_CHANGESET",
                    LogicalResourceId=logical_id,
                    ResourceType=kind,
                    ValidationFailureMode="FAIL",
                    ValidationName=validation,
                    ValidationStatus="FAILED",
                    ValidationStatusReason=reason,
                    ValidationPath=path,
                )
                for logical_id, kind, validation, path, reason in findings
            ),
        ]

    def describing_events(self, describe: Callable[[Mapping[str, Any]], Answer]) -> Callable[..., Answer]:
        """Return DescribeEvents that knows change sets.

        https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeEvents.html
        """

        def describe_events(parameters: Mapping[str, Any]) -> Answer:
            read = self._changesets._p
            name = read(parameters, "ChangeSetName")
            _, change_set = self._changesets._find_change_set(name, read(parameters, "StackName"))
            if not name or change_set is None or "_operation" not in change_set:
                return describe(parameters)
            others = {key: value for key, value in parameters.items() if key != "ChangeSetName"}
            of_operation = {"StackName": [change_set["StackId"]], "OperationId": [change_set["_operation"]]}
            return describe({**others, **of_operation})

        return describe_events

    # The whole

    def import_stream(self, identifier: Mapping[str, str]) -> Provisioned:
        """AWS::Kinesis::Stream: take a stream that exists into a stack."""
        name = identifier["Name"]
        return name, {"Arn": self._provisioners._kinesis._streams[name]["StreamARN"]}

    def _stream_import_problem(self, name: str) -> str | None:
        if name in self._provisioners._kinesis._streams:
            return None
        return str(self._changesets._IMPORT_NOT_FOUND.format(type="AWS::Kinesis::Stream", value=name))

    def install(self) -> None:
        """Change MiniStack's tables and functions."""
        seams.require(self._provisioners, "_REPLACING_PROPERTIES").update(CREATE_ONLY)
        seams.require(self._provisioners, "_CUSTOM_NAME_REPLACEMENT").update(
            {kind: {"name": name} for kind, name in CUSTOM_NAMES.items()}
        )
        resource_handlers = seams.require(self._provisioners, "_RESOURCE_HANDLERS")
        for naming in NAMINGS:
            handler = resource_handlers[naming.kind]
            handler["create"] = self.refusing(naming, handler["create"])
        resource_handlers["AWS::Kinesis::Stream"]["import"] = self.import_stream
        seams.require(self._changesets, "_IMPORT_NOT_FOUND")
        seams.require(self._changesets, "_IMPORT_LOOKUPS")["AWS::Kinesis::Stream"] = (
            ("Name",),
            self._stream_import_problem,
        )
        for module, names in (
            (self._changesets, ("_p", "_find_change_set", "_evaluate_conditions")),
            (self._stacks, ("_static_property", "_operation_event")),
        ):
            for name in names:
                seams.require(module, name)
        validate = self.validating(seams.require(self._stacks, "_validation_errors"))
        seams.replace(self._stacks, "_validation_errors", validate)
        actions = seams.require(self._handlers, "_ACTION_HANDLERS")
        actions["CreateChangeSet"] = self.creating_change_sets(actions["CreateChangeSet"])
        actions["DescribeEvents"] = self.describing_events(actions["DescribeEvents"])


def install(endpoint: Endpoint) -> None:
    """Make MiniStack's CloudFormation change stacks as AWS's does; after the modules that add resource handlers."""
    from ministack.services.cloudformation import changesets, handlers, provisioners, stacks

    modules = {"changesets": changesets, "handlers": handlers, "provisioners": provisioners, "stacks": stacks}
    StackChanges(endpoint, modules).install()
