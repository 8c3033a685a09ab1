"""The aws CLI (https://github.com/aws/aws-cli), version 1 as on PyPI: a real call for every service of the stack."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.judging import REPOSITORY

AWS = Path(sys.executable).with_name("aws")
READING = '{"device_id":"aws-cli","temperature":21.5,"timestamp":%d}'


def aws(*arguments: str) -> Any:
    """What the CLI prints: a document, a text, or nothing."""
    ended = subprocess.run([AWS, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, f"aws {' '.join(arguments)}\n{ended.stderr}"
    try:
        return json.loads(ended.stdout)
    except json.JSONDecodeError:
        return ended.stdout


def eventually(condition: Callable[[], Any], seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(1)
    return met


@pytest.fixture(scope="module")
def execution(outputs: Mapping[str, str]) -> Mapping[str, Any]:
    """One execution of the pipeline, put, started and followed by the CLI."""
    # GIVEN a reading that Firehose has delivered
    put = aws(
        *("kinesis", "put-record", "--stream-name", outputs["StreamName"], "--partition-key", "aws-cli"),
        *("--data", READING % time.time()),
    )
    assert put["ShardId"].startswith("shardId-")
    raw = f"s3://{outputs['RawBucketName']}/{outputs['RawPrefix']}"
    eventually(lambda: ".gz" in _listed(raw))

    # WHEN
    started = aws(
        *("stepfunctions", "start-execution", "--state-machine-arn", outputs["StateMachineArn"]),
        *("--input", "{}", "--name", "by-aws-cli"),
    )

    # THEN
    def ended() -> Any:
        described = aws("stepfunctions", "describe-execution", "--execution-arn", started["executionArn"])
        return described if described["status"] != "RUNNING" else None

    described: Mapping[str, Any] = eventually(ended)
    assert described["status"] == "SUCCEEDED", described
    return described


def _listed(prefix: str) -> str:
    """``aws s3 ls --recursive``, which fails when there is nothing."""
    ended = subprocess.run([AWS, "s3", "ls", "--recursive", prefix], capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    return ended.stdout


def test_the_history_of_an_execution_is_shown(execution: Mapping[str, Any]) -> None:
    arn = execution["executionArn"]
    events = aws("stepfunctions", "get-execution-history", "--execution-arn", arn)["events"]
    assert (events[0]["type"], events[-1]["type"]) == ("ExecutionStarted", "ExecutionSucceeded")
    entered = [event["stateEnteredEventDetails"]["name"] for event in events if "stateEnteredEventDetails" in event]
    assert "RunJob" in entered
    listed = aws("stepfunctions", "list-executions", "--state-machine-arn", execution["stateMachineArn"])["executions"]
    assert arn in {each["executionArn"] for each in listed}


def test_glue_has_the_table_the_job_and_its_runs(execution: Mapping[str, Any], outputs: Mapping[str, str]) -> None:
    # GIVEN
    assert execution["status"] == "SUCCEEDED"

    # WHEN / THEN the table, with its keys, and the partition that the crawl added
    named = ("--database-name", outputs["DatabaseName"])
    table = aws("glue", "get-table", *named, "--name", outputs["TableName"])["Table"]
    assert [(key["Name"], key["Type"]) for key in table["PartitionKeys"]] == [
        ("year", "int"),
        ("month", "int"),
        ("day", "int"),
    ]
    assert aws("glue", "get-partitions", *named, "--table-name", outputs["TableName"])["Partitions"]
    assert aws("glue", "get-crawler", "--name", outputs["CrawlerName"])["Crawler"]["LastCrawl"]["Status"] == "SUCCEEDED"

    # WHEN a run is started beside the pipeline, THEN it is listed
    job = ("--job-name", outputs["JobName"])
    run = aws("glue", "start-job-run", *job, "--arguments", '{"--MODE":"load"}')["JobRunId"]
    state = eventually(lambda: _ended(aws("glue", "get-job-run", *job, "--run-id", run)["JobRun"]["JobRunState"]))
    assert state == "SUCCEEDED"
    assert run in {each["Id"] for each in aws("glue", "get-job-runs", *job)["JobRuns"]}


def _ended(state: str) -> str | None:
    return state if state not in ("STARTING", "RUNNING", "STOPPING", "WAITING") else None


def test_athena_counts_the_reading(execution: Mapping[str, Any], outputs: Mapping[str, str]) -> None:
    # GIVEN
    assert execution["status"] == "SUCCEEDED"
    sql = f"SELECT count(*) AS readings FROM {outputs['DatabaseName']}.{outputs['TableName']} WHERE device_id='aws-cli'"  # noqa: S608

    # WHEN
    group = ("--work-group", outputs["WorkGroupName"])
    query = aws("athena", "start-query-execution", *group, "--query-string", sql)["QueryExecutionId"]

    def ended() -> Any:
        status = aws("athena", "get-query-execution", "--query-execution-id", query)["QueryExecution"]["Status"]
        return status if status["State"] in ("SUCCEEDED", "FAILED", "CANCELLED") else None

    assert eventually(ended)["State"] == "SUCCEEDED"

    # THEN
    rows = aws("athena", "get-query-results", "--query-execution-id", query)["ResultSet"]["Rows"]
    assert [[cell["VarCharValue"] for cell in row["Data"]] for row in rows] == [["readings"], ["1"]]


def test_s3_copies_lists_and_reads(execution: Mapping[str, Any], bucket: str, tmp_path: Path) -> None:
    # GIVEN
    assert execution["status"] == "SUCCEEDED"
    file = tmp_path / "a b.txt"
    file.write_text("hello\n")

    # WHEN / THEN
    aws("s3", "cp", str(file), f"s3://{bucket}/cli/a b.txt")
    assert "cli/a b.txt" in _listed(f"s3://{bucket}/cli/")
    assert aws("s3", "cp", f"s3://{bucket}/cli/a b.txt", "-") == "hello\n"
    aws("s3", "sync", f"s3://{bucket}/cli", str(tmp_path / "synced"))
    assert (tmp_path / "synced" / "a b.txt").read_text() == "hello\n"
    aws("s3", "rm", "--recursive", f"s3://{bucket}/cli")
    assert _listed(f"s3://{bucket}/cli/") == ""


def test_firehose_is_described(outputs: Mapping[str, str]) -> None:
    named = ("--delivery-stream-name", outputs["DeliveryStreamName"])
    description = aws("firehose", "describe-delivery-stream", *named)["DeliveryStreamDescription"]
    assert (description["DeliveryStreamStatus"], description["DeliveryStreamType"]) == (
        "ACTIVE",
        "KinesisStreamAsSource",
    )


def test_a_function_is_invoked_and_its_log_is_found(outputs: Mapping[str, str], tmp_path: Path) -> None:
    # WHEN
    answer = tmp_path / "answer.json"
    event = REPOSITORY / "events" / "transform" / "kinesis_source.json"
    named = ("--function-name", outputs["TransformFunctionName"])
    invoked = aws("lambda", "invoke", *named, "--payload", f"fileb://{event}", str(answer))

    # THEN
    assert invoked["StatusCode"] == 200
    assert "FunctionError" not in invoked
    assert {record["result"] for record in json.loads(answer.read_text())["records"]} <= {"Ok", "Dropped"}
    group = f"/aws/lambda/{outputs['TransformFunctionName']}"
    found = aws("logs", "filter-log-events", "--log-group-name", group, "--filter-pattern", "START")["events"]
    assert found


def test_cloudwatch_has_metrics_alarms_and_the_dashboard(
    execution: Mapping[str, Any], outputs: Mapping[str, str]
) -> None:
    # GIVEN
    assert execution["status"] == "SUCCEEDED"
    now = datetime.now(UTC)
    metric = {
        "Namespace": "AWS/States",
        "MetricName": "ExecutionsSucceeded",
        "Dimensions": [{"Name": "StateMachineArn", "Value": outputs["StateMachineArn"]}],
    }
    query = [{"Id": "m", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}]

    # WHEN / THEN
    results = aws(
        *("cloudwatch", "get-metric-data", "--metric-data-queries", json.dumps(query)),
        *("--start-time", (now - timedelta(hours=1)).isoformat(), "--end-time", (now + timedelta(hours=1)).isoformat()),
    )["MetricDataResults"]
    assert sum(results[0]["Values"]) >= 1
    alarms = aws("cloudwatch", "describe-alarms", "--alarm-name-prefix", "temperature-")["MetricAlarms"]
    assert {alarm["StateValue"] for alarm in alarms} <= {"OK", "INSUFFICIENT_DATA", "ALARM"}
    queries = [query["MetricStat"] for alarm in alarms for query in alarm.get("Metrics", []) if "MetricStat" in query]
    assert "ExecutionsFailed" in {query["Metric"]["MetricName"] for query in queries}
    board = aws("cloudwatch", "get-dashboard", "--dashboard-name", outputs["DashboardName"])
    assert json.loads(board["DashboardBody"])["widgets"]


def test_queues_and_topics_take_messages(outputs: Mapping[str, str]) -> None:
    # GIVEN that, for SQS alone, version 1 asks AWS whatever AWS_ENDPOINT_URL says; only an option helps. See
    # https://github.com/aws/aws-cli/blob/develop/awscli/customizations/overridesslcommonname.py
    sqs = ("sqs", "--endpoint-url", os.environ["AWS_ENDPOINT_URL"])
    queue = ("--queue-url", outputs["TriggerDeadLetterQueueUrl"])

    # WHEN
    sent = aws(*sqs, "send-message", *queue, "--message-body", "hello")
    messages = aws(*sqs, "receive-message", *queue, "--max-number-of-messages", "10")["Messages"]
    for message in messages:
        aws(*sqs, "delete-message", *queue, "--receipt-handle", message["ReceiptHandle"])

    # THEN
    assert (sent["MessageId"], "hello") in {(message["MessageId"], message["Body"]) for message in messages}
    topic = ("--topic-arn", outputs["NotificationsTopicArn"])
    assert aws("sns", "publish", *topic, "--subject", "s", "--message", "hello")["MessageId"]
    alarms = aws("sns", "list-subscriptions-by-topic", "--topic-arn", outputs["AlarmsTopicArn"])["Subscriptions"]
    assert [each["Protocol"] for each in alarms] == ["lambda"]


def test_what_starts_the_pipeline_is_described(outputs: Mapping[str, str]) -> None:
    # WHEN
    rules = aws("events", "list-rules", "--name-prefix", "temperature-raw-objects")["Rules"]
    pipe = aws("pipes", "describe-pipe", "--name", outputs["PipeName"])
    schedules = aws("scheduler", "list-schedules")["Schedules"]

    # THEN
    assert [rule["State"] for rule in rules] == ["ENABLED"]
    targets = aws("events", "list-targets-by-rule", "--rule", rules[0]["Name"])["Targets"]
    assert [target["Arn"] for target in targets] == [pipe["Source"]]
    assert (pipe["CurrentState"], pipe["Target"]) == ("RUNNING", outputs["StateMachineArn"])
    assert outputs["StateMachineArn"] in {schedule["Target"]["Arn"] for schedule in schedules}


def test_identity_keys_and_stack_are_described(outputs: Mapping[str, str]) -> None:
    # GIVEN
    account = aws("sts", "get-caller-identity")["Account"]

    # WHEN / THEN
    policy = aws("iam", "get-policy", "--policy-arn", outputs["ProducerPolicyArn"])["Policy"]
    assert policy["Arn"] == outputs["ProducerPolicyArn"]
    assert account in policy["Arn"]
    key = aws("kms", "create-key", "--description", "of the aws CLI")["KeyMetadata"]
    assert key["KeyId"] in {each["KeyId"] for each in aws("kms", "list-keys")["Keys"]}
    stacks = aws("cloudformation", "describe-stacks")["Stacks"]
    (stack,) = [each for each in stacks if any(o["OutputValue"] == outputs["JobName"] for o in each["Outputs"])]
    resources = aws("cloudformation", "list-stack-resources", "--stack-name", stack["StackName"])
    assert {each["ResourceStatus"] for each in resources["StackResourceSummaries"]} == {"CREATE_COMPLETE"}
