"""CloudFormation that refuses what it cannot do: no property of a template is dropped silently.

MiniStack takes any property of a resource and ignores those that it does not know. Here ``PROPERTIES`` lists, for every
resource type that this endpoint models, what is applied; anything else, a reference to something that the template
does not have included, fails the change set by name, before anything is created. The values of properties are brought
to the types of the service's own API model and checked against it, as CloudFormation does
(https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/resource-type-schemas.html): a number that comes from a
parameter arrives as a string and is a number for the service.

Known deviations from AWS:

* Resource types outside of ``PROPERTIES`` are refused, custom resources and nested stacks included.
* The properties in ``WITHOUT_EFFECT`` are accepted, kept and described, and do nothing else; the reason stands there.
* Lifecycle rules of a bucket are kept and described; objects neither expire nor change their storage class.
* Encryption of buckets, streams, queues, topics and log groups is kept and described; nothing on disk is encrypted. For
  what a use of their keys is asked about, see ``encryption``.
* Tags of a delivery stream that an update changes stay as they were.
* Patterns (regular expressions) of the services' APIs are not checked; types, required members, ranges and enumerations
  are.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import botocore.loaders
import botocore.model
import botocore.serialize
import botocore.validate

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint
from telemetry_lake.local.state_machine_definition import refusal

Properties = dict[str, Any]
Attributes = dict[str, Any]
Provisioned = tuple[str, Attributes]
Handler = dict[str, Any]


class TemplateError(ValueError):
    """A template asks for something that AWS refuses, or that this endpoint does not model."""


# What is applied, by resource type (https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/).
PROPERTIES: Mapping[str, frozenset[str]] = {
    kind: frozenset(names.split())
    for kind, names in {
        "AWS::Athena::NamedQuery": "Database Description Name QueryString WorkGroup",
        "AWS::Athena::WorkGroup": "Description Name State Tags WorkGroupConfiguration",
        "AWS::CloudWatch::Alarm": (
            "ActionsEnabled AlarmActions AlarmDescription AlarmName ComparisonOperator DatapointsToAlarm Dimensions"
            " EvaluationPeriods ExtendedStatistic InsufficientDataActions MetricName Metrics Namespace OKActions Period"
            " Statistic Tags Threshold TreatMissingData Unit"
        ),
        "AWS::CloudWatch::CompositeAlarm": (
            "ActionsEnabled AlarmActions AlarmDescription AlarmName AlarmRule InsufficientDataActions OKActions Tags"
        ),
        "AWS::CloudWatch::Dashboard": "DashboardBody DashboardName",
        "AWS::Events::Rule": "Description EventBusName EventPattern Name RoleArn ScheduleExpression State Tags Targets",
        "AWS::Glue::Crawler": (
            "Classifiers Configuration CrawlerSecurityConfiguration DatabaseName Description Name RecrawlPolicy Role"
            " Schedule SchemaChangePolicy TablePrefix Tags Targets"
        ),
        "AWS::Glue::Database": "CatalogId DatabaseInput DatabaseName",
        "AWS::Glue::Job": (
            "Command Connections DefaultArguments Description ExecutionClass ExecutionProperty GlueVersion JobMode"
            " JobRunQueuingEnabled MaxCapacity MaxRetries Name NonOverridableArguments"
            " NotificationProperty NumberOfWorkers Role SecurityConfiguration Tags Timeout WorkerType"
        ),
        "AWS::Glue::SecurityConfiguration": "EncryptionConfiguration Name",
        "AWS::Glue::Table": "CatalogId DatabaseName Name TableInput",
        "AWS::IAM::ManagedPolicy": "Description Groups ManagedPolicyName Path PolicyDocument Roles Users",
        "AWS::IAM::Policy": "Groups PolicyDocument PolicyName Roles Users",
        "AWS::IAM::Role": (
            "AssumeRolePolicyDocument Description ManagedPolicyArns MaxSessionDuration Path Policies RoleName Tags"
        ),
        "AWS::KMS::Alias": "AliasName TargetKeyId",
        "AWS::KMS::Key": (
            "Description EnableKeyRotation Enabled KeyPolicy KeySpec KeyUsage MultiRegion Origin PendingWindowInDays"
            " RotationPeriodInDays Tags"
        ),
        "AWS::Kinesis::Stream": "Name RetentionPeriodHours ShardCount StreamEncryption StreamModeDetails Tags",
        "AWS::KinesisFirehose::DeliveryStream": (
            "DeliveryStreamName DeliveryStreamType ExtendedS3DestinationConfiguration KinesisStreamSourceConfiguration"
            " Tags"
        ),
        "AWS::Lambda::EventInvokeConfig": (
            "DestinationConfig FunctionName MaximumEventAgeInSeconds MaximumRetryAttempts Qualifier"
        ),
        "AWS::Lambda::Function": (
            "Code DeadLetterConfig Description Environment FunctionName Handler LoggingConfig"
            " ReservedConcurrentExecutions Role Tags Timeout"
        ),
        "AWS::Lambda::Permission": "Action FunctionName Principal SourceAccount SourceArn",
        "AWS::Logs::LogGroup": "KmsKeyId LogGroupClass LogGroupName RetentionInDays Tags",
        "AWS::Logs::LogStream": "LogGroupName LogStreamName",
        "AWS::Pipes::Pipe": (
            "Description DesiredState Enrichment EnrichmentParameters KmsKeyIdentifier LogConfiguration Name RoleArn"
            " Source SourceParameters Tags Target TargetParameters"
        ),
        "AWS::S3::Bucket": (
            "BucketEncryption BucketName CorsConfiguration LifecycleConfiguration NotificationConfiguration"
            " OwnershipControls PublicAccessBlockConfiguration Tags VersioningConfiguration WebsiteConfiguration"
        ),
        "AWS::S3::BucketPolicy": "Bucket PolicyDocument",
        "AWS::SNS::Subscription": (
            "DeliveryPolicy Endpoint FilterPolicy FilterPolicyScope Protocol RawMessageDelivery RedrivePolicy"
            " SubscriptionRoleArn TopicArn"
        ),
        "AWS::SNS::Topic": "DisplayName KmsMasterKeyId Subscription Tags TopicName",
        "AWS::SNS::TopicPolicy": "PolicyDocument Topics",
        "AWS::SQS::Queue": (
            "ContentBasedDeduplication DeduplicationScope DelaySeconds FifoQueue FifoThroughputLimit"
            " KmsDataKeyReusePeriodSeconds KmsMasterKeyId MaximumMessageSize MessageRetentionPeriod QueueName"
            " ReceiveMessageWaitTimeSeconds RedriveAllowPolicy RedrivePolicy SqsManagedSseEnabled Tags"
            " VisibilityTimeout"
        ),
        "AWS::SQS::QueuePolicy": "PolicyDocument Queues",
        "AWS::Scheduler::Schedule": "Description FlexibleTimeWindow GroupName Name ScheduleExpression State Target",
        "AWS::StepFunctions::StateMachine": (
            "Definition DefinitionS3Location DefinitionString DefinitionSubstitutions EncryptionConfiguration"
            " LoggingConfiguration RoleArn StateMachineName StateMachineType Tags"
        ),
    }.items()
}

WITHOUT_EFFECT: Mapping[str, Mapping[str, str]] = {
    "AWS::Athena::WorkGroup": {
        "RecursiveDeleteOption": "a work group is always deleted together with its queries",
    },
    "AWS::Lambda::Function": {
        "Architectures": "functions run on the host; compiled requirements are resolved again for it",
        "EphemeralStorage": "the size of /tmp is the host's",
        "MemorySize": "functions get the host's memory and processors; the figure reaches their environment",
        "PackageType": "Zip only: an image is refused when it is invoked",
        "Runtime": "the interpreter is the one that the Lambda runtime's environment was made with",
        "TracingConfig": "there is no X-Ray",
    },
    "AWS::StepFunctions::StateMachine": {
        "TracingConfiguration": "there is no X-Ray",
    },
}

# The shape in the service's API that a property's value has, as "service.Operation.Member[.Member]". A property that is
# absent here has no shape of the same form; MiniStack's provisioner, or this module, reads it by itself.
_OPERATIONS: Mapping[str, tuple[str, str]] = {
    "AWS::Athena::NamedQuery": ("athena", "CreateNamedQuery"),
    "AWS::CloudWatch::Alarm": ("cloudwatch", "PutMetricAlarm"),
    "AWS::CloudWatch::CompositeAlarm": ("cloudwatch", "PutCompositeAlarm"),
    "AWS::Events::Rule": ("events", "PutRule"),
    "AWS::Glue::Crawler": ("glue", "CreateCrawler"),
    "AWS::Glue::Database": ("glue", "CreateDatabase"),
    "AWS::Glue::Job": ("glue", "CreateJob"),
    "AWS::Glue::Table": ("glue", "CreateTable"),
    "AWS::KMS::Key": ("kms", "CreateKey"),
    "AWS::Kinesis::Stream": ("kinesis", "CreateStream"),
    "AWS::KinesisFirehose::DeliveryStream": ("firehose", "CreateDeliveryStream"),
    "AWS::Lambda::EventInvokeConfig": ("lambda", "PutFunctionEventInvokeConfig"),
    "AWS::Lambda::Function": ("lambda", "CreateFunction"),
    "AWS::Lambda::Permission": ("lambda", "AddPermission"),
    "AWS::Pipes::Pipe": ("pipes", "CreatePipe"),
    "AWS::Scheduler::Schedule": ("scheduler", "CreateSchedule"),
}
_SHAPES: Mapping[str, Mapping[str, str | None]] = {
    "AWS::Athena::WorkGroup": {"WorkGroupConfiguration": "athena.CreateWorkGroup.Configuration"},
    "AWS::Events::Rule": {"EventPattern": None, "Targets": "events.PutTargets.Targets"},
    "AWS::Glue::Crawler": {"Schedule": None},
    "AWS::IAM::Role": {"MaxSessionDuration": "iam.CreateRole.MaxSessionDuration"},
    "AWS::KMS::Key": {
        "EnableKeyRotation": "kms.CreateKey.MultiRegion",
        "Enabled": "kms.CreateKey.MultiRegion",
        "PendingWindowInDays": "kms.ScheduleKeyDeletion.PendingWindowInDays",
        "RotationPeriodInDays": "kms.EnableKeyRotation.RotationPeriodInDays",
    },
    "AWS::Kinesis::Stream": {
        "RetentionPeriodHours": "kinesis.IncreaseStreamRetentionPeriod.RetentionPeriodHours",
        "StreamEncryption": "kinesis.StartStreamEncryption",
    },
    "AWS::Lambda::Function": {
        "Code": None,
        "ReservedConcurrentExecutions": "lambda.PutFunctionConcurrency.ReservedConcurrentExecutions",
    },
    "AWS::Logs::LogGroup": {"RetentionInDays": "logs.PutRetentionPolicy.retentionInDays"},
    "AWS::Pipes::Pipe": {"Tags": None},
    "AWS::S3::Bucket": {
        "PublicAccessBlockConfiguration": "s3.PutPublicAccessBlock.PublicAccessBlockConfiguration",
        "VersioningConfiguration": "s3.PutBucketVersioning.VersioningConfiguration",
    },
}

_PSEUDO_PARAMETERS = frozenset(
    f"AWS::{name}"
    for name in ("AccountId", "NoValue", "NotificationARNs", "Partition", "Region", "StackId", "StackName", "URLSuffix")
)
_SUBSTITUTION = re.compile(r"\$\{([^!}][^}]*)\}")


# --- what a template may say ----------------------------------------------------------------------------------------


def unknown_properties(resources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one sentence for each resource type and each property that this endpoint would have to ignore."""
    problems = []
    for logical_id, resource in resources.items():
        kind = resource.get("Type", "")
        if kind not in PROPERTIES:
            problems.append(f"{logical_id}: the embedded endpoint does not model {kind}")
            continue
        known = PROPERTIES[kind] | WITHOUT_EFFECT.get(kind, {}).keys()
        problems += [
            f"{logical_id}: the embedded endpoint does not model property {name} of {kind}"
            for name in resource.get("Properties") or {}
            if name not in known
        ]
    return problems


def references(value: Any, conditions: Mapping[str, bool]) -> Iterator[str]:
    """Yield the names that ``Ref``, ``Fn::GetAtt`` and ``Fn::Sub`` use, in the branches that ``Fn::If`` chooses."""
    if isinstance(value, list):
        for item in value:
            yield from references(item, conditions)
    elif isinstance(value, dict):
        if isinstance(value.get("Ref"), str) and len(value) == 1:
            yield value["Ref"]
        elif "Fn::GetAtt" in value and len(value) == 1:
            argument = value["Fn::GetAtt"]
            yield str(argument).split(".", 1)[0] if isinstance(argument, str) else argument[0]
        elif "Fn::Sub" in value and len(value) == 1:
            argument = value["Fn::Sub"]
            text, variables = (argument, {}) if isinstance(argument, str) else (argument[0], argument[1])
            yield from references(list(variables.values()), conditions)
            for name in _SUBSTITUTION.findall(text):
                if name not in variables:
                    yield name.strip().split(".", 1)[0]
        elif "Fn::If" in value and len(value) == 1 and isinstance(value["Fn::If"][0], str):
            name, if_true, if_false = value["Fn::If"]
            yield from references(if_true if conditions.get(name, False) else if_false, conditions)
        else:
            for item in value.values():
                yield from references(item, conditions)


def active_resources(template: Mapping[str, Any], conditions: Mapping[str, bool]) -> dict[str, Mapping[str, Any]]:
    """Return the resources whose condition holds."""
    return {
        logical_id: resource
        for logical_id, resource in (template.get("Resources") or {}).items()
        if isinstance(resource, dict) and conditions.get(resource.get("Condition", ""), True)
    }


def unresolved_references(template: Mapping[str, Any], conditions: Mapping[str, bool]) -> list[str]:
    """Return one sentence, in AWS's words, for each reference that leads nowhere.

    A resource whose condition does not hold cannot be referred to
    (https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/conditions-section-structure.html).
    """
    resources = active_resources(template, conditions)
    known = resources.keys() | (template.get("Parameters") or {}).keys() | _PSEUDO_PARAMETERS
    missing = {
        name
        for resource in resources.values()
        for name in references(resource.get("Properties") or {}, conditions)
        if name not in known
    }
    problems = []
    if missing:
        names = ", ".join(sorted(missing))
        problems.append(f"Unresolved resource dependencies [{names}] in the Resources block of the template")
    for name, output in (template.get("Outputs") or {}).items():
        if not conditions.get(output.get("Condition", ""), True):
            continue
        missing = set(references(output.get("Value"), conditions)) - known
        if missing:
            problems.append(
                f"Output {name}: unresolved resource dependencies [{', '.join(sorted(missing))}] in the Outputs block"
            )
    return problems


# --- values ---------------------------------------------------------------------------------------------------------


def _shape_named(path: str) -> botocore.model.Shape:
    service, operation, *members = path.split(".")
    description = botocore.loaders.Loader().load_service_model(service, "service-2")
    shape: Any = botocore.model.ServiceModel(description, service).operation_model(operation).input_shape
    for member in members:
        shape = shape.members[member]
    return shape  # type: ignore[no-any-return]


class ApiShapes:
    """The shapes of properties in the services' API models, loaded once."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, str], botocore.model.Shape | None] = {}

    def shape(self, kind: str, name: str) -> botocore.model.Shape | None:
        """Return the shape of property ``name`` of resource type ``kind``, None when it has none of the same form."""
        if (kind, name) not in self._shapes:
            self._shapes[kind, name] = self._find(kind, name)
        return self._shapes[kind, name]

    @staticmethod
    def _find(kind: str, name: str) -> botocore.model.Shape | None:
        if name in _SHAPES.get(kind, {}):
            path = _SHAPES[kind][name]
            return _shape_named(path) if path is not None else None
        if kind not in _OPERATIONS or name == "Tags":
            return None
        service, operation = _OPERATIONS[kind]
        members = getattr(_shape_named(f"{service}.{operation}"), "members", {})
        return members.get(name)


def coerced(value: Any, shape: botocore.model.Shape, path: str) -> Any:
    """Return ``value`` with the types of ``shape``: numbers and booleans that are strings, and the other way round.

    Raises:
        TemplateError: a member that the service does not know, a value that has another type, or one that is not in
            the enumeration; the message starts with ``path``.
    """
    match shape.type_name:
        case "structure":
            if not isinstance(value, dict):
                raise TemplateError(f"{path} has to be an object")
            members = shape.members  # type: ignore[attr-defined]
            unknown = value.keys() - members.keys()
            if unknown:
                raise TemplateError(f"{path} has no property {', '.join(sorted(unknown))}")
            return {name: coerced(item, members[name], f"{path}.{name}") for name, item in value.items()}
        case "list":
            if not isinstance(value, list):
                raise TemplateError(f"{path} has to be a list")
            member = shape.member  # type: ignore[attr-defined]
            return [coerced(item, member, f"{path}[{index}]") for index, item in enumerate(value)]
        case "map":
            if not isinstance(value, dict):
                raise TemplateError(f"{path} has to be an object")
            item_shape = shape.value  # type: ignore[attr-defined]
            return {name: coerced(item, item_shape, f"{path}.{name}") for name, item in value.items()}
    return _scalar(value, shape, path)


def _scalar(value: Any, shape: botocore.model.Shape, path: str) -> Any:
    match shape.type_name:
        case "integer" | "long":
            return _number(value, int, path)
        case "float" | "double":
            return _number(value, float, path)
        case "boolean":
            return _boolean(value, path)
        case "string":
            return _string(value, shape, path)
    return value


def _number(value: Any, kind: type[int] | type[float], path: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TemplateError(f"{path} has to be a number, not {value!r}")
    try:
        number = float(value)
    except ValueError:
        raise TemplateError(f"{path} has to be a number, not {value!r}") from None
    if kind is int and number != int(number):
        raise TemplateError(f"{path} has to be a whole number, not {value!r}")
    return kind(number)


def _boolean(value: Any, path: str) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise TemplateError(f"{path} has to be true or false, not {value!r}")
    return text == "true"


def _string(value: Any, shape: botocore.model.Shape, path: str) -> str:
    if isinstance(value, (dict, list)):
        raise TemplateError(f"{path} has to be a string")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    enumeration = getattr(shape, "enum", ())
    if enumeration and text not in enumeration:
        raise TemplateError(f"{path} has to be one of {', '.join(enumeration)}, not {text!r}")
    return text


def checked_properties(kind: str, properties: Mapping[str, Any], shapes: ApiShapes) -> Properties:
    """Return the properties with the types of the service's API, checked against its model.

    Raises:
        TemplateError: a property, or something inside of it, is not what the service takes.
    """
    result = dict(properties)
    for name, value in properties.items():
        shape = shapes.shape(kind, name)
        if shape is None or value is None:
            continue
        result[name] = coerced(value, shape, f"{kind} {name}")
        report = botocore.validate.ParamValidator().validate(result[name], shape)
        if report.has_errors():
            raise TemplateError(f"{kind} {name}: {report.generate_report()}")
    return result


# --- buckets --------------------------------------------------------------------------------------------------------


def _renamed(source: Mapping[str, Any], names: Mapping[str, str], path: str) -> dict[str, Any]:
    unknown = source.keys() - names.keys()
    if unknown:
        raise TemplateError(f"the embedded endpoint does not model {', '.join(sorted(unknown))} of {path}")
    return {names[name]: value for name, value in source.items()}


_TRANSITION = {"StorageClass": "StorageClass", "TransitionInDays": "Days", "TransitionDate": "Date"}
_NONCURRENT_TRANSITION = {
    "NewerNoncurrentVersions": "NewerNoncurrentVersions",
    "StorageClass": "StorageClass",
    "TransitionInDays": "NoncurrentDays",
}
_LIFECYCLE_FILTER = ("Prefix", "TagFilters", "ObjectSizeGreaterThan", "ObjectSizeLessThan")
_LIFECYCLE_EXPIRATION = {
    "ExpirationDate": "Date",
    "ExpirationInDays": "Days",
    "ExpiredObjectDeleteMarker": "ExpiredObjectDeleteMarker",
}


def lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rule of ``LifecycleConfiguration`` as PutBucketLifecycleConfiguration takes it.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-s3-bucket-rule.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_LifecycleRule.html
    """
    rest = dict(rule)
    result: dict[str, Any] = {"Status": rest.pop("Status")}
    if "Id" in rest:
        result["ID"] = rest.pop("Id")
    conditions = {name: rest.pop(name) for name in _LIFECYCLE_FILTER if name in rest}
    tags = conditions.pop("TagFilters", [])
    if len(conditions) + len(tags) > 1:
        result["Filter"] = {"And": conditions | ({"Tags": tags} if tags else {})}
    else:
        result["Filter"] = {"Tag": tags[0]} if tags else conditions or {"Prefix": ""}
    expiration = {api: rest.pop(name) for name, api in _LIFECYCLE_EXPIRATION.items() if name in rest}
    if expiration:
        result["Expiration"] = expiration
    if "Transitions" in rest:
        result["Transitions"] = [_renamed(item, _TRANSITION, "Transitions") for item in rest.pop("Transitions")]
    if "NoncurrentVersionTransitions" in rest:
        result["NoncurrentVersionTransitions"] = [
            _renamed(item, _NONCURRENT_TRANSITION, "NoncurrentVersionTransitions")
            for item in rest.pop("NoncurrentVersionTransitions")
        ]
    for name in ("AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"):
        if name in rest:
            result[name] = rest.pop(name)
    if rest:
        raise TemplateError(f"the embedded endpoint does not model {', '.join(sorted(rest))} of a lifecycle rule")
    return result


def encryption_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rule of ``BucketEncryption`` as PutBucketEncryption takes it.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-s3-bucket-serversideencryptionrule.html
    """
    names = {
        "BlockedEncryptionTypes": "BlockedEncryptionTypes",
        "BucketKeyEnabled": "BucketKeyEnabled",
        "ServerSideEncryptionByDefault": "ApplyServerSideEncryptionByDefault",
    }
    return _renamed(rule, names, "a rule of BucketEncryption")


def _s3_document(operation: str, member: str, value: Any) -> bytes:
    """Return the XML body of an S3 request with one member, its value brought to the API's types."""
    description = botocore.loaders.Loader().load_service_model("s3", "service-2")
    model = botocore.model.ServiceModel(description, "s3").operation_model(operation)
    shape: Any = model.input_shape
    checked = coerced(value, shape.members[member], member)
    report = botocore.validate.ParamValidator().validate(checked, shape.members[member])
    if report.has_errors():
        raise TemplateError(f"{member}: {report.generate_report()}")
    request = botocore.serialize.create_serializer("rest-xml").serialize_to_request(
        {"Bucket": "bucket", member: checked}, model
    )
    return bytes(request["body"])


def bucket_documents(properties: Mapping[str, Any]) -> dict[str, bytes | None]:
    """Return the XML document of each configuration that MiniStack drops, None where the template has none."""
    documents: dict[str, bytes | None] = dict.fromkeys(
        ("BucketEncryption", "LifecycleConfiguration", "OwnershipControls", "Tags")
    )
    if properties.get("BucketEncryption"):
        rules = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        documents["BucketEncryption"] = _s3_document(
            "PutBucketEncryption",
            "ServerSideEncryptionConfiguration",
            {"Rules": [encryption_rule(rule) for rule in rules]},
        )
    if properties.get("LifecycleConfiguration"):
        configuration = properties["LifecycleConfiguration"]
        if configuration.keys() != {"Rules"}:
            raise TemplateError("the embedded endpoint models the Rules of LifecycleConfiguration only")
        documents["LifecycleConfiguration"] = _s3_document(
            "PutBucketLifecycleConfiguration",
            "LifecycleConfiguration",
            {"Rules": [lifecycle_rule(rule) for rule in configuration["Rules"]]},
        )
    if properties.get("OwnershipControls"):
        documents["OwnershipControls"] = _s3_document(
            "PutBucketOwnershipControls", "OwnershipControls", properties["OwnershipControls"]
        )
    if properties.get("Tags"):
        documents["Tags"] = _s3_document("PutBucketTagging", "Tagging", {"TagSet": properties["Tags"]})
    return documents


# --- other services -------------------------------------------------------------------------------------------------


def logging_configuration(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state machine's ``LoggingConfiguration`` with the names of the Step Functions API.

    https://docs.aws.amazon.com/step-functions/latest/apireference/API_LoggingConfiguration.html
    """
    result = _renamed(
        configuration,
        {"Destinations": "destinations", "IncludeExecutionData": "includeExecutionData", "Level": "level"},
        "LoggingConfiguration",
    )
    result["destinations"] = [
        {"cloudWatchLogsLogGroup": {"logGroupArn": destination["CloudWatchLogsLogGroup"]["LogGroupArn"]}}
        for destination in result.get("destinations", [])
    ]
    result["includeExecutionData"] = _boolean(result.get("includeExecutionData", False), "IncludeExecutionData")
    result.setdefault("level", "OFF")
    return result


def security_configuration(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Glue security configuration's encryption with the names of the Glue API.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-glue-securityconfiguration-encryptionconfiguration.html
    """
    names = {
        "CloudWatchEncryption": "CloudWatchEncryption",
        "JobBookmarksEncryption": "JobBookmarksEncryption",
        "S3Encryptions": "S3Encryption",
    }
    renamed = _renamed(configuration, names, "EncryptionConfiguration")
    shape = _shape_named("glue.CreateSecurityConfiguration.EncryptionConfiguration")
    result: dict[str, Any] = coerced(renamed, shape, "EncryptionConfiguration")
    return result


def _answer(response: tuple[int, Any, Any], what: str) -> dict[str, Any]:
    """Return the body of a MiniStack answer.

    Raises:
        TemplateError: the service refused; the message is its own.
    """
    status, _, body = response
    text = body.decode() if isinstance(body, bytes) else body
    if status >= 400:  # noqa: PLR2004
        raise TemplateError(f"{what}: {text}")
    return json.loads(text) if text.startswith("{") else {}


class CloudFormation:
    """The resource handlers that are added to MiniStack's, and those that complete its own."""

    def __init__(self, endpoint: Endpoint, provisioners: ModuleType) -> None:
        self._endpoint = endpoint
        self._provisioners = provisioners
        self._handlers: dict[str, Handler] = seams.require(provisioners, "_RESOURCE_HANDLERS")
        self._shapes = ApiShapes()

    def _service(self, alias: str) -> ModuleType:
        service: ModuleType = seams.require(self._provisioners, alias)
        return service

    def _call(self, alias: str, name: str, *arguments: Any) -> dict[str, Any]:
        """Call a service's function as it stands now, that is, with what other modules put in its place."""
        return _answer(seams.require(self._service(alias), name)(*arguments), name.strip("_"))

    def _name(self, given: str | None, stack_name: str, logical_id: str, longest: int) -> str:
        physical_name = seams.require(self._provisioners, "_physical_name")
        return given or str(physical_name(stack_name, logical_id, max_len=longest))

    # Completed handlers

    def complete(self, kind: str, apply: Callable[[str, Properties | None, Properties], None]) -> None:
        """After MiniStack created or updated a resource, apply what it dropped."""
        handler = self._handlers[kind]
        create, update = handler["create"], handler["update"]

        def created(logical_id: str, properties: Properties, stack_name: str) -> Provisioned:
            provisioned: Provisioned = create(logical_id, properties, stack_name)
            apply(provisioned[0], None, properties)
            return provisioned

        def updated(physical_id: str, old: Properties, new: Properties, *names: str) -> Provisioned:
            provisioned: Provisioned = update(physical_id, old, new, *names)
            apply(provisioned[0], old, new)
            return provisioned

        handler["create"], handler["update"] = created, updated

    def apply_bucket(self, name: str, old: Properties | None, new: Properties) -> None:
        """Apply encryption, lifecycle, ownership and tags, and suspend versioning."""
        s3 = self._service("_s3")
        put = {
            "BucketEncryption": "_put_bucket_encryption",
            "LifecycleConfiguration": "_put_bucket_lifecycle",
            "OwnershipControls": "_put_bucket_ownership_controls",
            "Tags": "_put_bucket_tagging",
        }
        remove = {
            "BucketEncryption": "_delete_bucket_encryption",
            "LifecycleConfiguration": "_delete_bucket_lifecycle",
            "OwnershipControls": "_delete_bucket_ownership_controls",
            "Tags": "_delete_bucket_tagging",
        }
        for configuration, document in bucket_documents(new).items():
            if document is not None:
                self._call("_s3", put[configuration], name, document)
            elif old and old.get(configuration):
                self._call("_s3", remove[configuration], name)
        if (new.get("VersioningConfiguration") or {}).get("Status") == "Suspended":
            seams.require(s3, "_bucket_versioning")[name] = "Suspended"

    def delete_bucket(self, delete: Callable[[str, Properties], None]) -> Callable[[str, Properties], None]:
        """Refuse to delete a bucket that holds something, as AWS does.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteBucket.html
        """

        def delete_if_empty(name: str, properties: Properties) -> None:
            s3 = self._service("_s3")
            bucket = seams.require(s3, "_buckets").get(name)
            if bucket is not None and (bucket["objects"] or seams.require(s3, "_bucket_has_versions")(name)):
                raise TemplateError(f"The bucket you tried to delete is not empty: {name}")
            delete(name, properties)

        return delete_if_empty

    def apply_stream(self, name: str, old: Properties | None, new: Properties) -> None:
        """Apply the encryption of a stream, and a changed number of shards."""
        encryption = new.get("StreamEncryption")
        if encryption:
            self._call("_kinesis", "_start_stream_encryption", {"StreamName": name, **encryption})
        elif old and old.get("StreamEncryption"):
            self._call("_kinesis", "_stop_stream_encryption", {"StreamName": name})
        if old and old.get("ShardCount") and new.get("ShardCount") and old["ShardCount"] != new["ShardCount"]:
            raise TemplateError("the embedded endpoint does not split or merge shards: keep ShardCount, or start anew")

    def apply_topic(self, arn: str, old: Properties | None, new: Properties) -> None:
        """Apply the key of a topic."""
        attributes = seams.require(self._service("_sns"), "_topics")[arn]["attributes"]
        if new.get("KmsMasterKeyId"):
            attributes["KmsMasterKeyId"] = new["KmsMasterKeyId"]
        elif old and old.get("KmsMasterKeyId"):
            attributes.pop("KmsMasterKeyId", None)

    def apply_function(self, name: str, old: Properties | None, new: Properties) -> None:
        """Apply the dead-letter queue and the reserved concurrency of a function."""
        function = seams.require(self._service("_lambda_svc"), "_functions")[name]
        if new.get("PackageType", "Zip") != "Zip":
            raise TemplateError("the embedded endpoint does not run container images: PackageType has to be Zip")
        if new.get("DeadLetterConfig"):
            function["config"]["DeadLetterConfig"] = new["DeadLetterConfig"]
        elif old and old.get("DeadLetterConfig"):
            function["config"].pop("DeadLetterConfig", None)
        if new.get("ReservedConcurrentExecutions") is not None:
            function["concurrency"] = new["ReservedConcurrentExecutions"]
        elif old and old.get("ReservedConcurrentExecutions") is not None:
            function["concurrency"] = None

    def state_machine_definition(self, original: Callable[[Properties], str]) -> Callable[[Properties], str]:
        """Return the step that finds a state machine's definition, with the check of Step Functions.

        https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html
        """

        def checked_definition(properties: Properties) -> str:
            definition = original(properties)
            message = refusal(definition)
            if message is not None:
                body = json.dumps({"message": message})
                raise seams.require(self._provisioners, "_sfn_service_error")((400, {}, body))
            return definition

        return checked_definition

    def apply_state_machine(self, arn: str, _old: Properties | None, new: Properties) -> None:
        """Keep the logging configuration with the names that the Step Functions API has."""
        machine = seams.require(seams.require(self._provisioners, "_sfn"), "_state_machines")[arn]
        machine["loggingConfiguration"] = logging_configuration(new.get("LoggingConfiguration") or {})

    def apply_catalog_id(self, _physical_id: str, _old: Properties | None, new: Properties) -> None:
        """Refuse a catalog of another account: there is one here."""
        if new.get("CatalogId", self._endpoint.settings.account_id) != self._endpoint.settings.account_id:
            raise TemplateError(f"CatalogId {new['CatalogId']} is not this account")

    # Alarms

    def create_composite_alarm(self, logical_id: str, properties: Properties, stack_name: str) -> Provisioned:
        """AWS::CloudWatch::CompositeAlarm: ``Ref`` is the name, ``Arn`` the ARN."""
        name = self._name(properties.get("AlarmName"), stack_name, logical_id, 255)
        self._call("_cw", "_put_composite_alarm", {}, {**properties, "AlarmName": name}, False, True)
        scope = f"{self._endpoint.settings.region}:{self._endpoint.settings.account_id}"
        return name, {"Arn": f"arn:aws:cloudwatch:{scope}:alarm:{name}"}

    def update_composite_alarm(
        self, physical_id: str, old: Properties, new: Properties, stack_name: str, logical_id: str
    ) -> Provisioned:
        """Everything but the name is changed in place."""
        named = {**new, "AlarmName": new.get("AlarmName") or physical_id}
        return self.create_composite_alarm(logical_id, named, stack_name)

    def delete_composite_alarm(self, physical_id: str, _properties: Properties) -> None:
        """Delete the alarm."""
        self._call("_cw", "_delete_alarms", {}, {"AlarmNames": [physical_id]}, False, True)

    # Athena and Glue

    def create_named_query(self, logical_id: str, properties: Properties, stack_name: str) -> Provisioned:
        """AWS::Athena::NamedQuery: ``Ref`` is the id of the query."""
        name = self._name(properties.get("Name"), stack_name, logical_id, 128)
        query_id = self._call("_athena", "_create_named_query", {**properties, "Name": name})["NamedQueryId"]
        return query_id, {"NamedQueryId": query_id}

    def delete_named_query(self, physical_id: str, _properties: Properties) -> None:
        """Delete the query."""
        self._call("_athena", "_delete_named_query", {"NamedQueryId": physical_id})

    def create_security_configuration(self, logical_id: str, properties: Properties, stack_name: str) -> Provisioned:
        """AWS::Glue::SecurityConfiguration: ``Ref`` is the name."""
        name = self._name(properties.get("Name"), stack_name, logical_id, 255)
        encryption = security_configuration(properties["EncryptionConfiguration"])
        self._call("_glue", "_create_security_configuration", {"Name": name, "EncryptionConfiguration": encryption})
        return name, {}

    def delete_security_configuration(self, physical_id: str, _properties: Properties) -> None:
        """Delete the security configuration."""
        self._call("_glue", "_delete_security_configuration", {"Name": physical_id})

    def delete_crawler(self, delete: Callable[[str, Properties], None]) -> Callable[[str, Properties], None]:
        """Fail with the refusal of the crawler's deletion, for example because it runs.

        https://docs.aws.amazon.com/glue/latest/webapi/API_DeleteCrawler.html
        """

        def delete_if_ready(name: str, properties: Properties) -> None:
            if name in seams.require(self._service("_glue"), "_crawlers"):
                self._call("_glue", "_delete_crawler", {"Name": name})
            delete(name, properties)

        return delete_if_ready

    # The whole

    def install_handlers(self) -> None:
        """Complete MiniStack's handlers and add the missing types."""
        self.complete("AWS::S3::Bucket", self.apply_bucket)
        bucket = self._handlers["AWS::S3::Bucket"]
        bucket["delete"] = self.delete_bucket(bucket["delete"])
        self.complete("AWS::Kinesis::Stream", self.apply_stream)
        self.complete("AWS::SNS::Topic", self.apply_topic)
        self.complete("AWS::Lambda::Function", self.apply_function)
        self.complete("AWS::StepFunctions::StateMachine", self.apply_state_machine)
        self.complete("AWS::Glue::Database", self.apply_catalog_id)
        self.complete("AWS::Glue::Table", self.apply_catalog_id)
        crawler = self._handlers["AWS::Glue::Crawler"]
        crawler["delete"] = self.delete_crawler(crawler["delete"])
        self._handlers["AWS::CloudWatch::CompositeAlarm"] = {
            "create": self.create_composite_alarm,
            "update": self.update_composite_alarm,
            "update_with_logical_id": True,
            "delete": self.delete_composite_alarm,
        }
        # Nothing of these two changes in place, see stack_changes.CREATE_ONLY.
        self._handlers["AWS::Athena::NamedQuery"] = {
            "create": self.create_named_query,
            "delete": self.delete_named_query,
        }
        self._handlers["AWS::Glue::SecurityConfiguration"] = {
            "create": self.create_security_configuration,
            "delete": self.delete_security_configuration,
        }

    def checked_template(self, original: Callable[..., None]) -> Callable[..., None]:
        """Return MiniStack's check of a template, followed by what it does not look at."""

        def check(template: dict[str, Any], conditions: dict[str, bool], params: dict[str, Any] | None = None) -> None:
            original(template, conditions, params=params)
            if template.get("Transform"):
                return
            problems = unknown_properties(active_resources(template, conditions))
            if params is not None:
                problems += unresolved_references(template, conditions)
            if problems:
                raise TemplateError("Template format error: " + "; ".join(problems))

        return check

    def checked_values(self, original: Callable[..., Properties]) -> Callable[..., Properties]:
        """Return the last step before a resource is provisioned, with the values checked and brought to their types."""

        def check(kind: str, properties: Properties, *arguments: Any) -> Properties:
            return original(kind, checked_properties(kind, properties, self._shapes), *arguments)

        return check


def install(endpoint: Endpoint) -> None:
    """Make MiniStack's CloudFormation complete for the types of ``PROPERTIES`` and strict about everything else."""
    from ministack.services.cloudformation import changesets, handlers, provisioners, stacks

    cloudformation = CloudFormation(endpoint, provisioners)
    cloudformation.install_handlers()
    definition = cloudformation.state_machine_definition(seams.require(provisioners, "_sfn_definition"))
    seams.replace(provisioners, "_sfn_definition", definition)
    for module in (changesets, handlers):
        check = cloudformation.checked_template(seams.require(module, "validate_template_support"))
        seams.replace(module, "validate_template_support", check)
    seams.replace(stacks, "_with_stack_tags", cloudformation.checked_values(seams.require(stacks, "_with_stack_tags")))
