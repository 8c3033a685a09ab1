"""What changes, what is replaced, what is refused when a stack changes, and how what was retained comes back."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from telemetry_lake.local import cloudformation, stack_changes
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

STREAM = {"Type": "AWS::Kinesis::Stream", "Properties": {"Name": "readings", "ShardCount": 1}}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    process = EndpointProcess(tmp_path_factory.mktemp("stack-changes"))
    yield process
    process.stop()


@pytest.fixture
def stacks(endpoint: EndpointProcess) -> Iterator["Stacks"]:
    stacks = Stacks(endpoint)
    yield stacks
    stacks.clear()


class Stacks:
    """Stacks of one test, and the streams that they leave behind."""

    def __init__(self, endpoint: EndpointProcess) -> None:
        self.client = endpoint.client("cloudformation")
        self.kinesis = endpoint.client("kinesis")
        self._names: set[str] = set()

    def clear(self) -> None:
        for name in self._names:
            self.client.delete_stack(StackName=name)
            wait_until(lambda name=name: self.status(name) in ("", "DELETE_COMPLETE"))  # type: ignore[misc]
        for name in self.kinesis.list_streams()["StreamNames"]:
            self.kinesis.delete_stream(StreamName=name)
            self.kinesis.get_waiter("stream_not_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})

    def status(self, name: str) -> str:
        try:
            return str(self.client.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
        except ClientError:
            return ""

    def settled(self, name: str) -> str:
        def status() -> str:
            now = self.status(name)
            return "" if now.endswith("_IN_PROGRESS") else now

        return str(wait_until(status))

    def create(self, name: str, resources: dict[str, Any], **arguments: Any) -> str:
        self._names.add(name)
        body = json.dumps({"Resources": resources})
        self.client.create_stack(StackName=name, TemplateBody=body, **arguments)
        return self.settled(name)

    def update(self, name: str, resources: dict[str, Any]) -> str:
        self.client.update_stack(StackName=name, TemplateBody=json.dumps({"Resources": resources}))
        return self.settled(name)

    def change_set(self, name: str, kind: str, resources: dict[str, Any], **arguments: Any) -> dict[str, Any]:
        self._names.add(name)
        named = {"StackName": name, "ChangeSetName": f"change-{kind.lower()}"}
        body = json.dumps({"Resources": resources})
        self.client.create_change_set(**named, ChangeSetType=kind, TemplateBody=body, **arguments)
        described: dict[str, Any] = self.client.describe_change_set(**named)
        return described

    def execute(self, change_set: dict[str, Any]) -> str:
        self.client.execute_change_set(ChangeSetName=change_set["ChangeSetId"])
        return self.settled(change_set["StackName"])

    def reasons(self, name: str) -> list[str]:
        events = self.client.describe_stack_events(StackName=name)["StackEvents"]
        return [event["ResourceStatusReason"] for event in events if event.get("ResourceStatusReason")]


# --- what cannot change in place --------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html")
# A table is its database's, so that another database has another one of the same name: its own handler knows.
@pytest.mark.parametrize("kind", sorted(cloudformation.PROPERTIES.keys() - {"AWS::Glue::Table"}))
def test_properties_that_replace_are_those_of_the_schema_that_aws_publishes(kind: str) -> None:
    # GIVEN the schema, as cfn-lint brings it along
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
    from ministack.services.cloudformation import provisioners

    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema
    published = {path.removeprefix("/properties/") for path in schema.get("createOnlyProperties", [])}
    # Parts of a property are the business of the type's own handler.
    published = {name for name in published if "/" not in name}
    if kind == "AWS::Glue::SecurityConfiguration":
        # https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-glue-securityconfiguration.html
        published.add("EncryptionConfiguration")

    # THEN
    ours = stack_changes.CREATE_ONLY.get(kind, provisioners._REPLACING_PROPERTIES.get(kind))
    assert ours is not None
    assert set(ours) == published


def delivery_stream(source: str, role: str) -> dict[str, Any]:
    return {
        "Type": "AWS::KinesisFirehose::DeliveryStream",
        "Properties": {
            "DeliveryStreamName": "to-s3",
            "DeliveryStreamType": "KinesisStreamAsSource",
            "KinesisStreamSourceConfiguration": {
                "KinesisStreamARN": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{source}",
                "RoleARN": role,
            },
            "ExtendedS3DestinationConfiguration": {"BucketARN": "arn:aws:s3:::delivered", "RoleARN": role},
        },
    }


@pytest.mark.source("https://repost.aws/knowledge-center/cloudformation-custom-name")
@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-name.html")
def test_a_delivery_stream_with_a_name_of_its_own_is_not_replaced(endpoint: EndpointProcess, stacks: Stacks) -> None:
    # GIVEN a delivery stream, and another stream
    role = endpoint.role("delivery", "firehose.amazonaws.com", ("kinesis:*", "*"), ("s3:*", "*"))
    for stream in ("first", "second"):
        stacks.kinesis.create_stream(StreamName=stream, ShardCount=1)
        stacks.kinesis.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1})
    assert stacks.create("delivery", {"D": delivery_stream("first", role)}) == "CREATE_COMPLETE"
    firehose = endpoint.client("firehose")
    before = firehose.describe_delivery_stream(DeliveryStreamName="to-s3")["DeliveryStreamDescription"]

    # WHEN it shall read that one
    changed = stacks.change_set("delivery", "UPDATE", {"D": delivery_stream("second", role)})
    status = stacks.execute(changed)

    # THEN the change set says that it would be replaced, and the update is rolled back
    assert [each["ResourceChange"]["Replacement"] for each in changed["Changes"]] == ["True"]
    assert status == "UPDATE_ROLLBACK_COMPLETE"
    assert (
        "CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename to-s3 and update "
        "the stack again." in stacks.reasons("delivery")
    )
    after = firehose.describe_delivery_stream(DeliveryStreamName="to-s3")["DeliveryStreamDescription"]
    assert (after["CreateTimestamp"], after["Source"]) == (before["CreateTimestamp"], before["Source"])


@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-updatereplacepolicy.html"
)
def test_a_stream_with_another_name_is_another_one_and_the_first_is_retained(stacks: Stacks) -> None:
    # GIVEN
    stream = {**STREAM, "UpdateReplacePolicy": "Retain"}
    assert stacks.create("renamed", {"S": stream}) == "CREATE_COMPLETE"
    stacks.kinesis.put_record(StreamName="readings", Data=b"x", PartitionKey="k")

    # WHEN
    status = stacks.update("renamed", {"S": {**stream, "Properties": {"Name": "others", "ShardCount": 1}}})

    # THEN
    assert status == "UPDATE_COMPLETE"
    assert sorted(stacks.kinesis.list_streams()["StreamNames"]) == ["others", "readings"]


# --- names that are taken ---------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/validate-stack-deployments.html")
@pytest.mark.source("https://github.com/aws/aws-cdk-cli/issues/1000")
def test_a_change_set_that_would_create_what_exists_fails_and_says_where(
    endpoint: EndpointProcess, stacks: Stacks
) -> None:
    # GIVEN a stream and a bucket that another stack left behind
    stacks.kinesis.create_stream(StreamName="readings", ShardCount=1)
    s3 = endpoint.client("s3")
    s3.create_bucket(Bucket="left-behind", CreateBucketConfiguration={"LocationConstraint": REGION})
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "left-behind"}}
    other = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "not-there-yet"}}

    # WHEN
    resources = {"Stream": STREAM, "Bucket": bucket, "Other": other}
    failed = stacks.change_set("redeployed", "CREATE", resources)
    events = stacks.client.describe_events(ChangeSetName=failed["ChangeSetId"])["OperationEvents"]

    # THEN nothing can be executed, and nothing was created
    assert (failed["Status"], failed["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert failed["StatusReason"] == (
        "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]. To troubleshoot "
        "Early Validation errors, use the DescribeEvents API for detailed failure information."
    )
    with pytest.raises(ClientError, match="InvalidChangeSetStatus"):
        stacks.client.execute_change_set(ChangeSetName=failed["ChangeSetId"])
    assert "not-there-yet" not in [each["Name"] for each in s3.list_buckets()["Buckets"]]

    # AND each of the names is an event
    assert {(each["LogicalResourceId"], each["ValidationStatusReason"]) for each in events} == {
        ("Stream", "Resource of type 'AWS::Kinesis::Stream' with identifier 'readings' already exists."),
        ("Bucket", "Resource of type 'AWS::S3::Bucket' with identifier 'left-behind' already exists."),
    }
    assert {(each["EventType"], each["ValidationName"], each["OperationType"]) for each in events} == {
        ("VALIDATION_ERROR", "NAME_CONFLICT_VALIDATION", "CREATE_CHANGESET")
    }
    s3.delete_bucket(Bucket="left-behind")


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ListStackResources.html")
def test_a_stack_lists_its_resources_with_their_names(stacks: Stacks) -> None:
    # GIVEN
    stacks.create("listed", {"Stream": STREAM})

    # WHEN
    pages = stacks.client.get_paginator("list_stack_resources").paginate(StackName="listed")
    [resource] = [summary for page in pages for summary in page["StackResourceSummaries"]]

    # THEN
    assert resource["LogicalResourceId"] == "Stream"
    assert resource["PhysicalResourceId"] == "readings"
    assert resource["ResourceType"] == "AWS::Kinesis::Stream"
    assert resource["ResourceStatus"] == "CREATE_COMPLETE"
    assert resource["LastUpdatedTimestamp"].year > 2000


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/validate-stack-deployments.html")
def test_what_a_stack_has_itself_is_not_taken(stacks: Stacks) -> None:
    # GIVEN
    assert stacks.create("owner", {"S": STREAM}) == "CREATE_COMPLETE"

    # WHEN something else is added, THEN the stream's name is no conflict
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/added"}}
    added = stacks.change_set("owner", "UPDATE", {"S": STREAM, "G": group})
    assert added["Status"] == "CREATE_COMPLETE"
    assert stacks.execute(added) == "UPDATE_COMPLETE"

    # WHEN another stack names the stream, THEN it is
    assert stacks.change_set("thief", "CREATE", {"S": STREAM})["Status"] == "FAILED"


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/validate-stack-deployments.html")
def test_a_stack_that_would_create_what_exists_is_rolled_back_before_anything_is_made(stacks: Stacks) -> None:
    # GIVEN a stream with a record
    stacks.kinesis.create_stream(StreamName="readings", ShardCount=1)
    stacks.kinesis.get_waiter("stream_exists").wait(StreamName="readings", WaiterConfig={"Delay": 1})
    sequence = stacks.kinesis.put_record(StreamName="readings", Data=b"x", PartitionKey="k")["SequenceNumber"]

    # WHEN
    status = stacks.create("thief", {"S": STREAM})

    # THEN
    assert status == "ROLLBACK_COMPLETE"
    assert any(reason.startswith("Validation failed with 1 error(s)") for reason in stacks.reasons("thief"))
    events = stacks.client.describe_events(StackName="thief", Filters={"FailedEvents": True})["OperationEvents"]
    assert "Resource of type 'AWS::Kinesis::Stream' with identifier 'readings' already exists." in [
        each.get("ValidationStatusReason") for each in events
    ]
    iterator = stacks.kinesis.get_shard_iterator(
        StreamName="readings", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    assert [each["SequenceNumber"] for each in stacks.kinesis.get_records(ShardIterator=iterator)["Records"]] == [
        sequence
    ]


@pytest.mark.source("https://github.com/aws-samples/bedrock-chat/issues/794")
def test_a_name_that_only_the_service_knows_of_fails_the_creation_which_is_rolled_back(
    endpoint: EndpointProcess, stacks: Stacks
) -> None:
    # GIVEN a queue, which its URL identifies, not its name
    sqs = endpoint.client("sqs")
    url = sqs.create_queue(QueueName="taken")["QueueUrl"]
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "taken"}, "DependsOn": "G"}
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/before-the-queue"}}

    # WHEN
    status = stacks.create("thief", {"G": group, "Q": queue})

    # THEN what had been made is gone again
    assert status == "ROLLBACK_COMPLETE"
    assert any(
        reason.startswith(
            "Resource handler returned message: \"Resource of type 'AWS::SQS::Queue' with identifier 'taken' already "
            'exists." (RequestToken: '
        )
        and reason.endswith("HandlerErrorCode: AlreadyExists)")
        for reason in stacks.reasons("thief")
    )
    groups = endpoint.client("logs").describe_log_groups(logGroupNamePrefix="/before-the-queue")["logGroups"]
    assert groups == []
    assert sqs.get_queue_url(QueueName="taken")["QueueUrl"] == url


# --- what was retained comes back -------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources-manually.html")
@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-deletionpolicy.html"
)
def test_a_stream_that_was_retained_is_imported_with_its_records_and_changed_again(stacks: Stacks) -> None:
    # GIVEN a stack that was deleted and left its stream, with a record
    retained = {**STREAM, "DeletionPolicy": "Retain"}
    assert stacks.create("first", {"S": retained}) == "CREATE_COMPLETE"
    sequence = stacks.kinesis.put_record(StreamName="readings", Data=b"x", PartitionKey="k")["SequenceNumber"]
    stacks.client.delete_stack(StackName="first")
    wait_until(lambda: stacks.status("first") in ("", "DELETE_COMPLETE"))

    # WHEN a new stack imports it
    what = [
        {
            "ResourceType": "AWS::Kinesis::Stream",
            "LogicalResourceId": "S",
            "ResourceIdentifier": {"Name": "readings"},
        }
    ]
    change_set = stacks.change_set("second", "IMPORT", {"S": retained}, ResourcesToImport=what)
    status = stacks.execute(change_set)

    # THEN it belongs to that one
    assert [each["ResourceChange"]["Action"] for each in change_set["Changes"]] == ["Import"]
    assert status == "IMPORT_COMPLETE"
    properties = {"Name": "readings", "ShardCount": 1, "RetentionPeriodHours": 48}
    assert stacks.update("second", {"S": {**retained, "Properties": properties}}) == "UPDATE_COMPLETE"
    summary = stacks.kinesis.describe_stream_summary(StreamName="readings")["StreamDescriptionSummary"]
    assert summary["RetentionPeriodHours"] == 48
    iterator = stacks.kinesis.get_shard_iterator(
        StreamName="readings", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    assert [each["SequenceNumber"] for each in stacks.kinesis.get_records(ShardIterator=iterator)["Records"]] == [
        sequence
    ]


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources-manually.html")
def test_a_stream_that_is_not_there_cannot_be_imported_nor_one_that_a_stack_has(stacks: Stacks) -> None:
    # GIVEN
    retained = {**STREAM, "DeletionPolicy": "Retain"}
    what = [
        {
            "ResourceType": "AWS::Kinesis::Stream",
            "LogicalResourceId": "S",
            "ResourceIdentifier": {"Name": "readings"},
        }
    ]

    # WHEN / THEN
    missing = stacks.change_set("importer", "IMPORT", {"S": retained}, ResourcesToImport=what)
    assert missing["Status"] == "FAILED"
    assert "'readings' was not found" in missing["StatusReason"]

    # WHEN / THEN
    assert stacks.create("owner", {"S": STREAM}) == "CREATE_COMPLETE"
    owned = stacks.change_set("second-importer", "IMPORT", {"S": retained}, ResourcesToImport=what)
    assert owned["Status"] == "FAILED"
    assert "readings already exists in stack" in owned["StatusReason"]
