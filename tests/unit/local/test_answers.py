"""Details in which the endpoint's answers are as the services' API models say."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from telemetry_lake.local.answers import mended_function, mended_functions, without_members
from tests.unit.local.endpoint_process import REGION, EndpointProcess, wait_until


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    process = EndpointProcess(tmp_path_factory.mktemp("answers"))
    yield process
    process.stop()


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html")
@pytest.mark.parametrize(
    ("given", "mended"),
    [
        ({"FunctionArn": "a", "State": "Active", "StateReason": "", "StateReasonCode": ""}, {"State": "Active"}),
        ({"FunctionArn": "a", "RuntimeVersionConfig": {"RuntimeVersionArn": ""}}, {}),
        (
            {"FunctionArn": "a", "RuntimeVersionConfig": {"RuntimeVersionArn": "arn"}},
            {"RuntimeVersionConfig": {"RuntimeVersionArn": "arn"}},
        ),
        (
            {"FunctionArn": "a", "State": "Pending", "StateReason": "new", "StateReasonCode": "Creating"},
            {"State": "Pending", "StateReason": "new", "StateReasonCode": "Creating"},
        ),
        (
            {
                "FunctionArn": "a",
                "State": "Pending",
                "StateReason": "The function is being updated.",
                "StateReasonCode": "Updating",
                "LastUpdateStatus": "InProgress",
            },
            {"State": "Active", "LastUpdateStatus": "InProgress"},
        ),
        ({"FunctionArn": "a", "Description": ""}, {"Description": ""}),
    ],
)
def test_a_function_has_reasons_only_when_there_are_any(given: dict[str, Any], mended: dict[str, Any]) -> None:
    # GIVEN / WHEN / THEN also where the answer holds it among other things
    mended = {"FunctionArn": "a", **mended}
    assert mended_function(given) == mended
    assert mended_functions(given) == mended
    assert mended_functions({"Configuration": given, "Code": {}}) == {"Configuration": mended, "Code": {}}
    assert mended_functions({"Functions": [given]}) == {"Functions": [mended]}


@pytest.mark.own_machinery("what is not mended stays as it is")
def test_answers_about_something_else_than_functions_stay_as_they_are() -> None:
    assert mended_functions({"Statement": ""}) == {"Statement": ""}
    assert mended_functions(["x"]) == ["x"]


@pytest.mark.source("https://github.com/boto/botocore/tree/develop/botocore/data")
@pytest.mark.parametrize(
    ("service", "operation", "given", "left"),
    [
        (
            "firehose",
            "PutRecordBatch",
            {"RequestResponses": [{"RecordId": "r", "Encrypted": False}]},
            {"RequestResponses": [{"RecordId": "r"}]},
        ),
        ("glue", "GetJob", {"Job": {"Name": "j", "Tags": {"a": "b"}}}, {"Job": {"Name": "j"}}),
        ("athena", "GetNamedQuery", {"NamedQuery": {"Description": ""}}, {"NamedQuery": {}}),
        ("athena", "GetNamedQuery", {"NamedQuery": {"Description": "d"}}, {"NamedQuery": {"Description": "d"}}),
        ("firehose", "PutRecordBatch", {"FailedPutCount": 1}, {"FailedPutCount": 1}),
    ],
)
def test_members_that_an_answer_does_not_have_are_taken_out(
    service: str, operation: str, given: dict[str, Any], left: dict[str, Any]
) -> None:
    assert without_members(service, operation, given) == left


@pytest.mark.source(
    "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecord.html#API_PutRecord_ResponseSyntax"
)
def test_sequence_numbers_have_no_leading_zeros_and_grow(endpoint: EndpointProcess) -> None:
    # GIVEN
    kinesis = endpoint.client("kinesis")
    kinesis.create_stream(StreamName="numbers", ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName="numbers", WaiterConfig={"Delay": 1})

    # WHEN
    put = [kinesis.put_record(StreamName="numbers", Data=b"x", PartitionKey="k")["SequenceNumber"] for _ in range(3)]
    shard = kinesis.list_shards(StreamName="numbers")["Shards"][0]
    start = kinesis.get_shard_iterator(
        StreamName="numbers",
        ShardId=shard["ShardId"],
        ShardIteratorType="AFTER_SEQUENCE_NUMBER",
        StartingSequenceNumber=put[0],
    )
    read = kinesis.get_records(ShardIterator=start["ShardIterator"])["Records"]

    # THEN they are in order as numbers and as texts, and a reader goes on after one
    assert put == sorted(put) == sorted(put, key=int)
    assert int(shard["SequenceNumberRange"]["StartingSequenceNumber"]) < int(put[0])
    assert [record["SequenceNumber"] for record in read] == put[1:]
    assert not put[0].startswith("0")


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeChangeSet.html")
def test_a_stack_is_created_by_change_set_as_the_sam_cli_does_it(endpoint: EndpointProcess) -> None:
    # GIVEN
    cloudformation = endpoint.client("cloudformation")
    template = {"Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "by-change-set"}}}}
    named = {"StackName": "by-change-set", "ChangeSetName": "first"}

    # WHEN
    cloudformation.create_change_set(**named, ChangeSetType="CREATE", TemplateBody=json.dumps(template))
    change_set = wait_until(lambda: _complete(cloudformation.describe_change_set(**named)))
    cloudformation.execute_change_set(**named)
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName="by-change-set", WaiterConfig={"Delay": 1, "MaxAttempts": 20}
    )

    # THEN
    assert [each["ResourceChange"]["LogicalResourceId"] for each in change_set["Changes"]] == ["Bucket"]
    location = endpoint.client("s3").get_bucket_location(Bucket="by-change-set")["LocationConstraint"]
    assert location == REGION


def _complete(change_set: dict[str, Any]) -> dict[str, Any] | None:
    return change_set if change_set["Status"] == "CREATE_COMPLETE" else None
