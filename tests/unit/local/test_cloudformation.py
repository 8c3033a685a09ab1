"""CloudFormation of the embedded endpoint: nothing of a template is dropped silently."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from telemetry_lake.local import cloudformation
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess

# --- templates ------------------------------------------------------------------------------------------------------


@pytest.mark.own_machinery("what this endpoint does not model is refused by name")
def test_resource_type_that_is_not_modelled_is_named() -> None:
    # GIVEN
    resources = {"Trail": {"Type": "AWS::CloudTrail::Trail"}}

    # WHEN
    problems = cloudformation.unknown_properties(resources)

    # THEN
    assert problems == ["Trail: the embedded endpoint does not model AWS::CloudTrail::Trail"]


@pytest.mark.own_machinery("what this endpoint does not model is refused by name")
def test_property_that_would_be_dropped_is_named_and_one_without_effect_is_not() -> None:
    # GIVEN
    resources = {
        "Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "b", "ReplicationConfiguration": {}}},
        "Function": {"Type": "AWS::Lambda::Function", "Properties": {"Architectures": ["arm64"]}},
    }

    # WHEN
    problems = cloudformation.unknown_properties(resources)

    # THEN
    assert problems == [
        "Bucket: the embedded endpoint does not model property ReplicationConfiguration of AWS::S3::Bucket"
    ]


@pytest.mark.own_machinery("the tables of what is modelled")
def test_property_is_applied_or_without_effect_but_never_both() -> None:
    for kind, without_effect in cloudformation.WITHOUT_EFFECT.items():
        assert not cloudformation.PROPERTIES[kind] & without_effect.keys()


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference.html")
@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"Ref": "A"}, {"A"}),
        ({"Fn::GetAtt": ["A", "Arn"]}, {"A"}),
        ({"Fn::GetAtt": "A.Arn"}, {"A"}),
        ({"Fn::Sub": "${A}/${B.Arn}/${!literal}/${AWS::Region}"}, {"A", "B", "AWS::Region"}),
        ({"Fn::Sub": ["${A}/${X}", {"X": {"Ref": "B"}}]}, {"A", "B"}),
        ({"Fn::If": ["Yes", {"Ref": "A"}, {"Ref": "B"}]}, {"A"}),
        ({"Fn::If": ["No", {"Ref": "A"}, {"Ref": "B"}]}, {"B"}),
        ([{"deep": {"Fn::Join": ["", ["x", {"Ref": "A"}]]}}], {"A"}),
        # not an intrinsic function: a policy may well have such a key
        ({"Ref": "A", "Other": 1}, set()),
    ],
)
def test_references_are_found_where_they_count(value: Any, names: set[str]) -> None:
    assert set(cloudformation.references(value, {"Yes": True, "No": False})) == names


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/conditions-section-structure.html")
def test_reference_to_nothing_or_to_a_resource_without_its_condition_is_named() -> None:
    # GIVEN
    template = {
        "Parameters": {"Stage": {}},
        "Resources": {
            "Topic": {"Properties": {"TopicName": {"Fn::Sub": "${Stage}-${Typo}"}}},
            "Other": {"Properties": {"TopicName": {"Ref": "Absent"}}},
            "Absent": {"Condition": "No"},
        },
        "Outputs": {"Name": {"Value": {"Ref": "Nowhere"}}, "Skipped": {"Condition": "No", "Value": {"Ref": "Absent"}}},
    }

    # WHEN
    problems = cloudformation.unresolved_references(template, {"No": False})

    # THEN
    assert problems == [
        "Unresolved resource dependencies [Absent, Typo] in the Resources block of the template",
        "Output Name: unresolved resource dependencies [Nowhere] in the Outputs block",
    ]


# --- values ---------------------------------------------------------------------------------------------------------


def checked(kind: str, properties: dict[str, Any]) -> dict[str, Any]:
    return cloudformation.checked_properties(kind, properties, cloudformation.ApiShapes())


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/resource-type-schemas.html")
def test_values_that_come_from_parameters_get_the_types_of_the_api() -> None:
    # WHEN a number and a boolean arrive as strings, and strings as numbers
    job = checked(
        "AWS::Glue::Job",
        {
            "Timeout": "60",
            "JobRunQueuingEnabled": "false",
            "ExecutionProperty": {"MaxConcurrentRuns": "1"},
            "DefaultArguments": {"--TARGET_FILE_MB": 256, "--enable-metrics": True},
            "Tags": {"stage": "prod"},
        },
    )

    # THEN
    assert job == {
        "Timeout": 60,
        "JobRunQueuingEnabled": False,
        "ExecutionProperty": {"MaxConcurrentRuns": 1},
        "DefaultArguments": {"--TARGET_FILE_MB": "256", "--enable-metrics": "true"},
        "Tags": {"stage": "prod"},
    }


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/resource-type-schemas.html")
@pytest.mark.parametrize(
    ("kind", "properties", "message"),
    [
        ("AWS::Glue::Job", {"Timeout": "soon"}, "AWS::Glue::Job Timeout has to be a number"),
        ("AWS::Glue::Job", {"Timeout": 1.5}, "has to be a whole number"),
        ("AWS::Glue::Job", {"Command": {"ScriptLocatio": "s3://b/k"}}, "Command has no property ScriptLocatio"),
        ("AWS::Glue::Job", {"ExecutionClass": "SLOW"}, "ExecutionClass has to be one of FLEX, STANDARD"),
        ("AWS::CloudWatch::Alarm", {"Period": "1m"}, "Period has to be a number"),
        ("AWS::Pipes::Pipe", {"SourceParameters": {"SqsQueueParameters": {"BatchSise": 1}}}, "no property BatchSise"),
        ("AWS::Athena::WorkGroup", {"WorkGroupConfiguration": {"BytesScannedCutoffPerQuery": 5}}, "min value"),
        ("AWS::KinesisFirehose::DeliveryStream", {"ExtendedS3DestinationConfiguration": {"RoleARN": "r"}}, "BucketARN"),
        ("AWS::Events::Rule", {"Targets": [{"Id": "1"}]}, "Missing required parameter"),
        ("AWS::S3::Bucket", {"VersioningConfiguration": {"Status": "On"}}, "has to be one of"),
    ],
)
def test_value_that_the_service_does_not_take_is_refused_by_name(
    kind: str, properties: dict[str, Any], message: str
) -> None:
    with pytest.raises(cloudformation.TemplateError, match=message):
        checked(kind, properties)


@pytest.mark.own_machinery("the tables of what is modelled name shapes of botocore")
def test_every_shape_that_is_named_exists() -> None:
    # GIVEN
    shapes = cloudformation.ApiShapes()

    # WHEN all of them are looked up; a path into an API model that is wrong raises
    found = {
        (kind, name): shapes.shape(kind, name) for kind, names in cloudformation.PROPERTIES.items() for name in names
    }

    # THEN
    assert found["AWS::Events::Rule", "Targets"] is not None
    assert found["AWS::Lambda::Function", "Code"] is None


# --- configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-s3-bucket-rule.html"
)
@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/API/API_LifecycleRule.html")
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            {"Id": "a", "Status": "Enabled", "Prefix": "raw/", "ExpirationInDays": "7"},
            {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": "raw/"}, "Expiration": {"Days": "7"}},
        ),
        (
            {"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}},
            {
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
            },
        ),
        (
            {
                "Status": "Enabled",
                "Prefix": "a/",
                "TagFilters": [{"Key": "k", "Value": "v"}],
                "Transitions": [{"StorageClass": "GLACIER_IR", "TransitionInDays": 90}],
                "NoncurrentVersionTransitions": [{"StorageClass": "GLACIER_IR", "TransitionInDays": 30}],
                "NoncurrentVersionExpiration": {"NoncurrentDays": 40},
            },
            {
                "Status": "Enabled",
                "Filter": {"And": {"Prefix": "a/", "Tags": [{"Key": "k", "Value": "v"}]}},
                "Transitions": [{"StorageClass": "GLACIER_IR", "Days": 90}],
                "NoncurrentVersionTransitions": [{"StorageClass": "GLACIER_IR", "NoncurrentDays": 30}],
                "NoncurrentVersionExpiration": {"NoncurrentDays": 40},
            },
        ),
    ],
)
def test_lifecycle_rule_gets_the_names_of_the_api(rule: dict[str, Any], expected: dict[str, Any]) -> None:
    assert cloudformation.lifecycle_rule(rule) == expected


@pytest.mark.own_machinery("what this endpoint does not model is refused by name")
def test_part_of_a_bucket_configuration_that_is_not_modelled_is_refused() -> None:
    with pytest.raises(cloudformation.TemplateError, match="NoncurrentVersionExpirationInDays"):
        cloudformation.lifecycle_rule({"Status": "Enabled", "NoncurrentVersionExpirationInDays": 1})
    with pytest.raises(cloudformation.TemplateError, match="TransitionDay"):
        cloudformation.lifecycle_rule({"Status": "Enabled", "Transitions": [{"TransitionDay": 1}]})
    with pytest.raises(cloudformation.TemplateError, match="BucketKey"):
        cloudformation.encryption_rule({"BucketKey": True})


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_LoggingConfiguration.html")
def test_logging_of_a_state_machine_gets_the_names_of_the_api() -> None:
    # WHEN
    configuration = cloudformation.logging_configuration(
        {
            "Level": "ERROR",
            "IncludeExecutionData": "true",
            "Destinations": [{"CloudWatchLogsLogGroup": {"LogGroupArn": "arn"}}],
        }
    )

    # THEN
    assert configuration == {
        "level": "ERROR",
        "includeExecutionData": True,
        "destinations": [{"cloudWatchLogsLogGroup": {"logGroupArn": "arn"}}],
    }


# --- stacks ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    process = EndpointProcess(tmp_path_factory.mktemp("cloudformation"))
    yield process
    process.stop()


def deploy(endpoint: EndpointProcess, name: str, template: dict[str, Any], **parameters: str) -> dict[str, str]:
    """Create or update a stack and return its outputs; a failure raises with the reasons of the resources."""
    client = endpoint.client("cloudformation")
    arguments = {
        "StackName": name,
        "TemplateBody": json.dumps(template),
        "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
    }
    try:
        client.describe_stacks(StackName=name)
    except ClientError:
        client.create_stack(**arguments)
        waiter = client.get_waiter("stack_create_complete")
    else:
        client.update_stack(**arguments)
        waiter = client.get_waiter("stack_update_complete")
    try:
        waiter.wait(StackName=name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 100})
    except Exception as problem:
        events = client.describe_stack_events(StackName=name)["StackEvents"]
        reasons = [event["ResourceStatusReason"] for event in events if event.get("ResourceStatusReason")]
        raise AssertionError(reasons) from problem
    stack = client.describe_stacks(StackName=name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def delete(endpoint: EndpointProcess, name: str) -> None:
    client = endpoint.client("cloudformation")
    client.delete_stack(StackName=name)
    client.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 100})


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/troubleshooting.html")
def test_template_with_an_unknown_property_or_reference_creates_nothing(endpoint: EndpointProcess) -> None:
    # GIVEN
    template = {
        "Resources": {
            "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "never", "DataProtectionPolicy": {}}},
            "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Fn::Sub": "${Stag}-queue"}}},
        }
    }

    # WHEN
    with pytest.raises(ClientError) as refusal:
        deploy(endpoint, "refused", template)

    # THEN
    message = refusal.value.response["Error"]["Message"]
    assert "Topic: the embedded endpoint does not model property DataProtectionPolicy of AWS::SNS::Topic" in message
    assert "Unresolved resource dependencies [Stag]" in message
    assert endpoint.client("sns").list_topics()["Topics"] == []


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/troubleshooting.html")
def test_value_that_the_service_refuses_fails_the_stack_by_name(endpoint: EndpointProcess) -> None:
    # GIVEN
    properties = {"Role": f"arn:aws:iam::{ACCOUNT}:role/r", "Command": {"ScriptLocatio": "s3://b/k"}}

    # WHEN / THEN
    with pytest.raises(AssertionError, match="AWS::Glue::Job Command has no property ScriptLocatio"):
        deploy(endpoint, "bad-job", {"Resources": {"Job": {"Type": "AWS::Glue::Job", "Properties": properties}}})


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html")
@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-stepfunctions-statemachine.html"
)
def test_state_machine_that_cannot_be_run_fails_the_stack(endpoint: EndpointProcess) -> None:
    # GIVEN a definition whose target comes from a substitution
    def template(target: str) -> dict[str, Any]:
        states = {"a": {"Type": "Pass", "Next": "${Target}"}, "b": {"Type": "Succeed"}}
        properties = {
            "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r",
            "DefinitionString": json.dumps({"StartAt": "a", "States": states}),
            "DefinitionSubstitutions": {"Target": target},
        }
        return {"Resources": {"Machine": {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}}}

    # WHEN / THEN neither a creation nor an update puts it in place
    missing = "Invalid State Machine Definition: .*MISSING_TRANSITION_TARGET.* target: nowhere at /States/a/Next"
    with pytest.raises(AssertionError, match=missing):
        deploy(endpoint, "bad-machine", template("nowhere"))
    deploy(endpoint, "good-machine", template("b"))
    with pytest.raises(AssertionError, match=missing):
        deploy(endpoint, "good-machine", template("nowhere"))
    [machine] = endpoint.client("stepfunctions").list_state_machines()["stateMachines"]
    described = endpoint.client("stepfunctions").describe_state_machine(stateMachineArn=machine["stateMachineArn"])
    assert json.loads(described["definition"])["States"]["a"]["Next"] == "b"
    delete(endpoint, "good-machine")


BUCKET = {
    "BucketEncryption": {
        "ServerSideEncryptionConfiguration": [
            {"BucketKeyEnabled": True, "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
        ]
    },
    "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]},
    "LifecycleConfiguration": {
        "Rules": [{"Id": "x", "Status": "Enabled", "Prefix": "p/", "ExpirationInDays": {"Ref": "Days"}}]
    },
    "VersioningConfiguration": {"Status": "Enabled"},
    "Tags": [{"Key": "stage", "Value": "test"}],
}


def bucket_template(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "Parameters": {"Days": {"Type": "Number", "Default": 7}},
        "Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": properties}},
        "Outputs": {"Name": {"Value": {"Ref": "Bucket"}}},
    }


@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-s3-bucket.html"
)
def test_bucket_has_what_the_template_says_and_follows_its_changes(endpoint: EndpointProcess) -> None:
    # GIVEN
    s3 = endpoint.client("s3")

    # WHEN it is created
    name = deploy(endpoint, "bucket", bucket_template(BUCKET))["Name"]

    # THEN
    encryption = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert encryption == {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"},
        "BucketKeyEnabled": True,
    }
    rules = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert rules == [{"ID": "x", "Status": "Enabled", "Filter": {"Prefix": "p/"}, "Expiration": {"Days": 7}}]
    assert s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"] == BUCKET["OwnershipControls"]
    assert {"Key": "stage", "Value": "test"} in s3.get_bucket_tagging(Bucket=name)["TagSet"]

    # WHEN a parameter changes, versioning is suspended and tags and ownership are dropped
    changed = {key: value for key, value in BUCKET.items() if key not in ("Tags", "OwnershipControls")}
    deploy(
        endpoint, "bucket", bucket_template({**changed, "VersioningConfiguration": {"Status": "Suspended"}}), Days="9"
    )

    # THEN
    assert s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"][0]["Expiration"] == {"Days": 9}
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Suspended"
    with pytest.raises(ClientError, match="NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=name)


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteBucket.html")
def test_bucket_that_holds_an_object_is_not_deleted(endpoint: EndpointProcess) -> None:
    # GIVEN
    s3, client = endpoint.client("s3"), endpoint.client("cloudformation")
    name = deploy(endpoint, "full-bucket", bucket_template({}))["Name"]
    s3.put_object(Bucket=name, Key="k", Body=b"x")

    # WHEN
    client.delete_stack(StackName="full-bucket")

    # THEN
    waiter = client.get_waiter("stack_delete_complete")
    with pytest.raises(Exception, match="DELETE_FAILED"):
        waiter.wait(StackName="full-bucket", WaiterConfig={"Delay": 0.2, "MaxAttempts": 50})
    assert s3.get_object(Bucket=name, Key="k")["Body"].read() == b"x"

    # WHEN it is emptied
    s3.delete_object(Bucket=name, Key="k")

    # THEN
    delete(endpoint, "full-bucket")


SERVICES = {
    "Parameters": {"Shards": {"Type": "Number", "Default": 1}, "Text": {"Type": "String", "Default": "SELECT 1"}},
    "Resources": {
        "Key": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {"Version": "2012-10-17", "Statement": []}}},
        "Stream": {
            "Type": "AWS::Kinesis::Stream",
            "Properties": {
                "Name": "stream",
                "ShardCount": {"Ref": "Shards"},
                "StreamEncryption": {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"},
            },
        },
        "Topic": {
            "Type": "AWS::SNS::Topic",
            "Properties": {"TopicName": "topic", "KmsMasterKeyId": {"Fn::GetAtt": ["Key", "Arn"]}},
        },
        "Security": {
            "Type": "AWS::Glue::SecurityConfiguration",
            "Properties": {
                "Name": "security",
                "EncryptionConfiguration": {
                    "S3Encryptions": [{"S3EncryptionMode": "SSE-KMS", "KmsKeyArn": {"Fn::GetAtt": ["Key", "Arn"]}}]
                },
            },
        },
        "Job": {
            "Type": "AWS::Glue::Job",
            "Properties": {
                "Name": "job",
                "Role": f"arn:aws:iam::{ACCOUNT}:role/r",
                "Command": {"Name": "glueetl", "ScriptLocation": "s3://b/k"},
                "ExecutionProperty": {"MaxConcurrentRuns": "2"},
                "SecurityConfiguration": {"Ref": "Security"},
            },
        },
        "Group": {"Type": "AWS::Athena::WorkGroup", "Properties": {"Name": "group"}},
        "Query": {
            "Type": "AWS::Athena::NamedQuery",
            "Properties": {
                "Name": "query",
                "Database": "db",
                "WorkGroup": {"Ref": "Group"},
                "QueryString": {"Ref": "Text"},
            },
        },
        "Alarm": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "AlarmName": "alarm",
                "Namespace": "N",
                "MetricName": "M",
                "Statistic": "Sum",
                "Period": 60,
                "EvaluationPeriods": 1,
                "Threshold": 1,
                "ComparisonOperator": "GreaterThanThreshold",
            },
        },
        "Composite": {
            "Type": "AWS::CloudWatch::CompositeAlarm",
            "Properties": {"AlarmName": "composite", "AlarmRule": {"Fn::Sub": "ALARM(${Alarm})"}},
        },
        "LogGroup": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/log", "RetentionInDays": "7"}},
        "LogStream": {
            "Type": "AWS::Logs::LogStream",
            "Properties": {"LogGroupName": {"Ref": "LogGroup"}, "LogStreamName": "delivery"},
        },
    },
    "Outputs": {
        "QueryId": {"Value": {"Ref": "Query"}},
        "Security": {"Value": {"Ref": "Security"}},
        "CompositeArn": {"Value": {"Fn::GetAtt": ["Composite", "Arn"]}},
        "KeyArn": {"Value": {"Fn::GetAtt": ["Key", "Arn"]}},
    },
}


@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-athena-namedquery.html"
)
@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-glue-securityconfiguration.html"
)
def test_missing_types_and_dropped_properties_are_created_updated_and_deleted(endpoint: EndpointProcess) -> None:
    # GIVEN
    kinesis, glue, athena = endpoint.client("kinesis"), endpoint.client("glue"), endpoint.client("athena")
    cloudwatch, logs, sns = endpoint.client("cloudwatch"), endpoint.client("logs"), endpoint.client("sns")

    # WHEN
    outputs = deploy(endpoint, "services", SERVICES)

    # THEN
    summary = kinesis.describe_stream_summary(StreamName="stream")["StreamDescriptionSummary"]
    assert (summary["EncryptionType"], summary["KeyId"]) == ("KMS", "alias/aws/kinesis")
    topic = sns.get_topic_attributes(TopicArn=f"arn:aws:sns:{REGION}:{ACCOUNT}:topic")["Attributes"]
    assert topic["KmsMasterKeyId"] == outputs["KeyArn"]
    assert glue.get_job(JobName="job")["Job"]["ExecutionProperty"] == {"MaxConcurrentRuns": 2}
    configuration = glue.get_security_configuration(Name=outputs["Security"])["SecurityConfiguration"]
    assert configuration["EncryptionConfiguration"]["S3Encryption"][0]["S3EncryptionMode"] == "SSE-KMS"
    first_query = outputs["QueryId"]
    assert athena.get_named_query(NamedQueryId=first_query)["NamedQuery"]["QueryString"] == "SELECT 1"
    alarms = cloudwatch.describe_alarms(AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]
    assert [(alarm["AlarmArn"], alarm["AlarmRule"]) for alarm in alarms] == [(outputs["CompositeArn"], "ALARM(alarm)")]
    assert [stream["logStreamName"] for stream in logs.describe_log_streams(logGroupName="/log")["logStreams"]] == [
        "delivery"
    ]

    # WHEN a named query changes, it is another one
    outputs = deploy(endpoint, "services", SERVICES, Text="SELECT 2")

    # THEN
    assert outputs["QueryId"] != first_query
    assert athena.list_named_queries(WorkGroup="group")["NamedQueryIds"] == [outputs["QueryId"]]

    # WHEN the shards change, which is not modelled, the update is rolled back by name
    with pytest.raises(AssertionError, match="does not split or merge shards"):
        deploy(endpoint, "services", SERVICES, Text="SELECT 2", Shards="2")

    # WHEN
    delete(endpoint, "services")

    # THEN
    assert cloudwatch.describe_alarms(AlarmTypes=["CompositeAlarm", "MetricAlarm"])["CompositeAlarms"] == []
    assert glue.get_security_configurations()["SecurityConfigurations"] == []
