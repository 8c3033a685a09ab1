"""What the commands ask of the services, in an account that holds a stack's resources."""

import gzip
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal

import boto3
import pytest
from moto import mock_aws

from telemetry_lake.deployment import failure_reasons
from telemetry_lake.health import Unanswered, collect, problems
from telemetry_lake.pipeline import current_state, list_executions, start_execution
from telemetry_lake.target import Target
from tests.contracts.fakes import client_answered_by

REGION: Final = "ap-northeast-1"
ROLE = "arn:aws:iam::123456789012:role/role"
DEFINITION = {"StartAt": "Plan", "States": {"Plan": {"Type": "Pass", "End": True}}}

AlarmState = Literal["ALARM", "OK"]
LETTER = {
    "detail": None,
    "device_id": None,
    "stage": "transform",
    "original": "{}",
    "original_base64": None,
    "source": None,
    "arrived_at": None,
}


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Target]:
    monkeypatch.chdir(tmp_path)
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
    trigger = target.sqs.create_queue(QueueName="trigger")["QueueUrl"]
    queue_arn = target.sqs.get_queue_attributes(QueueUrl=trigger, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    boto3.client("pipes", region_name=REGION).create_pipe(
        Name="pipe", RoleArn=ROLE, Source=queue_arn, Target=machine["stateMachineArn"]
    )
    target.glue.create_job(Name="etl", Role=ROLE, Command={"Name": "glueetl"})
    return {
        "pipe_name": "pipe",
        "job_name": "etl",
        "work_group_name": "analytics",
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
        "trigger_queue_url": trigger,
        "trigger_dead_letter_queue_url": target.sqs.create_queue(QueueName="dead")["QueueUrl"],
    }


class StackResources:
    """A stack that has an alarm."""

    def list_stack_resources(self, **_: Any) -> dict[str, Any]:
        alarm = {"LogicalResourceId": "Alarm", "ResourceType": "AWS::CloudWatch::Alarm"}
        facts = {"LastUpdatedTimestamp": datetime.now(UTC), "ResourceStatus": "CREATE_COMPLETE"}
        return {"StackResourceSummaries": [{**alarm, **facts, "PhysicalResourceId": "temperature-delivery-success"}]}


def with_alarm(target: Target, state: AlarmState) -> None:
    """Let the stack have an alarm in this state, beside one in ALARM that is somebody else's."""
    target.__dict__["cloudformation"] = client_answered_by("cloudformation", StackResources())
    cloudwatch = boto3.client("cloudwatch", region_name=REGION)
    alarms: Mapping[str, AlarmState] = {"temperature-delivery-success": state, "another": "ALARM"}
    for name, its_state in alarms.items():
        cloudwatch.put_metric_alarm(
            AlarmName=name,
            Namespace="AWS/Firehose",
            MetricName="DeliveryToS3.Success",
            Period=300,
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="LessThanThreshold",
            Statistic="Average",
        )
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=its_state, StateReason="0 is less than 1")


class Athena:
    """Knows the newest reading of the day that it is asked about."""

    asked: str = ""

    def start_query_execution(self, QueryString: str, **_: Any) -> dict[str, Any]:  # noqa: N803  the API's own name
        self.asked = QueryString
        return {"QueryExecutionId": "q"}

    def get_query_execution(self, **_: Any) -> dict[str, Any]:
        return {"QueryExecution": {"Status": {"State": "SUCCEEDED"}, "Statistics": {"DataScannedInBytes": 9}}}

    def get_query_results(self, **_: Any) -> dict[str, Any]:
        return {"ResultSet": {"Rows": [{"Data": [{"VarCharValue": "1.7596656E9"}, {"VarCharValue": "12"}]}]}}


def test_the_status_is_what_each_service_says(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN a raw object that no execution has read, two rejects of which one is resolved, one parked record
    athena = Athena()
    monkeypatch.setattr(Target, "athena", client_answered_by("athena", athena))
    with_alarm(target, "ALARM")
    partition: Any = {"Values": ["2025", "10", "5"]}
    target.glue.create_partition(DatabaseName="lake", TableName="table", PartitionInput=partition)
    now = datetime.now(UTC)
    target.s3.put_object(Bucket="raw", Key=f"raw_data/{now:%Y/%m/%d}/00/a.gz", Body=b"12345")
    parked = {"attemptsMade": 4, "arrivalTimestamp": 1, "errorCode": "E", "errorMessage": "m", "rawData": ""}
    error_key = f"firehose_errors/processing-failed/{now:%Y/%m/%d}/00/x"
    target.s3.put_object(Bucket="raw", Key=error_key, Body=json.dumps(parked).encode())
    letters = b"".join(
        json.dumps({**LETTER, "reject_id": name, "reason": reason}).encode() + b"\n"
        for name, reason in (("r1", "wrong_type"), ("r2", "not_utf8"))
    )
    day = f"dlq/year={now.year}/month={now.month}/day={now.day}/"
    target.s3.put_object(Bucket="analytics", Key=f"{day}1.json.gz", Body=gzip.compress(letters))
    target.s3.put_object(Bucket="analytics", Key="dlq/resolved/r2", Body=b"{}")
    target.sqs.send_message(QueueUrl=target.outputs.trigger_dead_letter_queue_url or "", MessageBody="{}")
    target.cloudwatch.put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": "ApproximateAgeOfOldestMessage",
                "Value": 90,
                "Timestamp": now - timedelta(minutes=2),
                "Dimensions": [{"Name": "QueueName", "Value": "trigger"}],
            }
        ],
    )
    asked: list[str] = []

    # WHEN
    stops = collect(target, asked.append)

    # THEN
    assert [stop for stop, answer in stops.items() if isinstance(answer, Unanswered)] == []
    assert stops["stream"] == {"name": "stream", "status": "ACTIVE", "mode": "PROVISIONED", "shards": 2}
    assert stops["delivery"] == {"name": "delivery", "status": "ACTIVE", "oldest_seconds": None}
    raw = stops["raw_since_yesterday"]
    assert (raw["objects"], raw["bytes"], raw["waiting"], raw["waits_for_events"]) == (1, 5, 1, True)
    assert stops["parked_by_firehose"] == {"records": 1, "open": 1}
    # What Firehose has parked is a reject too.
    assert stops["rejects_since_yesterday"] == {"distinct": 3, "open": 2, "open_by_reason": {"E": 1, "wrong_type": 1}}
    assert {**stops["trigger"], "dead_letter_queue_url": ""} == {
        "waiting": 0,
        "oldest_seconds": 90.0,
        "dead_letters": 1,
        "dead_letter_queue_url": "",
        "pipe": "pipe",
        "pipe_state": "RUNNING",
        "pipe_reason": "",
    }
    assert (stops["job"], stops["newest_run"], stops["executions"]) == (None, None, [])
    assert (stops["crawler"]["state"], stops["crawler"]["last_crawl"]) == ("READY", None)
    assert stops["partitions"] == ["2025-10-05"]
    assert stops["table"]["newest_reading"] == datetime(2025, 10, 5, 12, tzinfo=UTC)
    assert "WHERE year = 2025 AND month = 10 AND day = 5" in athena.asked
    assert [alarm["name"] for alarm in stops["alarms"]] == ["temperature-delivery-success"]
    assert asked == [name.replace("_", " ") for name in stops]
    assert [problem.what.split(":")[0] for problem in problems(stops)] == [
        "Firehose parked 1 record(s) in its error prefix",
        "1 trigger message(s) are in the dead letters",
        f"Alarm temperature-delivery-success since {stops['alarms'][0]['since']:%Y-%m-%d %H}",
    ]


def test_a_service_that_refuses_is_a_problem_and_the_others_answer_all_the_same(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN a delivery stream and a table that are not there
    monkeypatch.setattr(Target, "athena", client_answered_by("athena", Athena()))
    with_alarm(target, "OK")
    target.outputs.__dict__["delivery_stream_name"] = "gone"

    # WHEN
    stops = collect(target)

    # THEN
    (problem,) = problems(stops)
    assert problem.what.startswith("delivery: no answer: ")
    assert "ResourceNotFoundException" in problem.what
    assert (stops["table"], stops["alarms"], stops["stream"]["status"]) == (None, [], "ACTIVE")


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
