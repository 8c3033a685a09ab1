"""What the commands ask of the services, in an account that holds a stack's resources."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import boto3
import pytest
from moto import mock_aws

from telemetry_lake.commands.status import collect, problems
from telemetry_lake.deployment import failure_reasons
from telemetry_lake.pipeline import current_state, list_executions, start_execution
from telemetry_lake.target import Target

REGION: Final = "ap-northeast-1"
ROLE = "arn:aws:iam::123456789012:role/role"
DEFINITION = {"StartAt": "Plan", "States": {"Plan": {"Type": "Pass", "End": True}}}


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Target]:
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        target = Target(REGION, None, "lake")
        monkeypatch.setattr(Target, "outputs", SimpleNamespace(**resources(target)))
        yield target


def resources(target: Target) -> dict[str, Any]:
    """Create what the stack would have, and return it as its outputs would name it."""
    for bucket in ("raw", "analytics"):
        target.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    target.kinesis.create_stream(StreamName="stream", ShardCount=2)
    target.firehose.create_delivery_stream(
        DeliveryStreamName="delivery",
        ExtendedS3DestinationConfiguration={"RoleARN": ROLE, "BucketARN": "arn:aws:s3:::raw"},
    )
    target.glue.create_database(DatabaseInput={"Name": "lake"})
    keys: Any = [{"Name": name, "Type": "int"} for name in ("year", "month", "day")]
    target.glue.create_table(DatabaseName="lake", TableInput={"Name": "table", "PartitionKeys": keys})
    target.glue.create_crawler(
        Name="crawler", Role=ROLE, DatabaseName="lake", Targets={"S3Targets": [{"Path": "s3://a/"}]}
    )
    machine = boto3.client("stepfunctions", region_name=REGION).create_state_machine(
        name="pipeline", definition=json.dumps(DEFINITION), roleArn=ROLE
    )
    return {
        "stream_name": "stream",
        "delivery_stream_name": "delivery",
        "raw_bucket_name": "raw",
        "raw_prefix": "raw_data/",
        "error_prefix": "firehose_errors/",
        "analytics_bucket_name": "analytics",
        "dlq_prefix": "dlq/",
        "summaries_prefix": "run_summaries/",
        "database_name": "lake",
        "table_name": "table",
        "crawler_name": "crawler",
        "state_machine_arn": machine["stateMachineArn"],
        "trigger_queue_url": target.sqs.create_queue(QueueName="trigger")["QueueUrl"],
        "trigger_dead_letter_queue_url": target.sqs.create_queue(QueueName="dead")["QueueUrl"],
    }


def test_the_status_is_what_each_service_says(target: Target) -> None:
    # GIVEN
    partition: Any = {"Values": ["2025", "10", "5"]}
    target.glue.create_partition(DatabaseName="lake", TableName="table", PartitionInput=partition)
    target.s3.put_object(Bucket="raw", Key=f"raw_data/{datetime.now(UTC):%Y/%m/%d}/00/a.gz", Body=b"12345")
    target.sqs.send_message(QueueUrl=target.outputs.trigger_dead_letter_queue_url or "", MessageBody="{}")
    asked: list[str] = []

    # WHEN
    stops = collect(target, asked.append)

    # THEN
    assert stops["stream"] == {"name": "stream", "status": "ACTIVE", "mode": "PROVISIONED", "shards": 2}
    assert stops["delivery"]["status"] == "ACTIVE"
    assert (stops["raw_since_yesterday"]["objects"], stops["raw_since_yesterday"]["bytes"]) == (1, 5)
    assert stops["trigger"] == {"waiting": 0, "dead_letters": 1}
    assert stops["partitions"] == ["2025-10-05"]
    assert (stops["crawler"]["state"], stops["newest_run"]) == ("READY", None)
    assert asked == ["Kinesis", "Firehose", "S3", "Step Functions", "Glue"]
    assert len(problems(stops)) == 1


def test_an_execution_that_was_started_by_hand_is_found_with_its_input(target: Target) -> None:
    # GIVEN / WHEN
    arn = start_execution(target, {"mode": "audit", "days": ["2025-10-15"]})
    (execution,) = list_executions(target, 5)

    # THEN
    assert (execution.arn, execution.status, execution.trigger) == (arn, "RUNNING", "audit")
    assert isinstance(current_state(target, arn), str)


def test_the_reasons_of_a_stack_without_failures_are_none(target: Target) -> None:
    # GIVEN
    template = {"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}
    target.cloudformation.create_stack(StackName="lake", TemplateBody=json.dumps(template))

    # WHEN / THEN
    assert failure_reasons(target) == []
    assert failure_reasons(Target(REGION, None, "missing")) == []
