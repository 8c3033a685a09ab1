"""What the endpoint has acknowledged is there after it was killed, as AWS keeps it.

Every kill is a real SIGKILL, right after the answer. That AWS keeps what it acknowledges is what its services promise,
e.g. https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel,
https://docs.aws.amazon.com/streams/latest/dev/key-concepts.html and
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-basic-architecture.html.
"""

import hashlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.local.durability import changes_state, operation_name
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

MEBIBYTE = 1024 * 1024
LOCATION = {"LocationConstraint": REGION}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    endpoint = EndpointProcess(tmp_path_factory.mktemp("durability"))
    yield endpoint
    endpoint.stop()


def killed_and_started(running: EndpointProcess) -> None:
    running.kill()
    running.start()


# --- which requests change something ----------------------------------------------------------------------------------


@pytest.mark.own_machinery("names of requests, to tell what changes state")
@pytest.mark.parametrize(
    ("method", "headers", "body", "operation"),
    [
        ("POST", {"x-amz-target": "AmazonSQS.SendMessage"}, b"{}", "SendMessage"),
        ("POST", {}, b"Action=CreateRole&RoleName=r", "CreateRole"),
        ("POST", {}, b"RoleName=r&Action=GetRole", "GetRole"),
        ("PUT", {}, b"content with Action=GetRole in it", "PUT"),
    ],
)
def test_operation(method: str, headers: dict[str, str], body: bytes, operation: str) -> None:
    assert operation_name(method, headers, body) == operation


@pytest.mark.own_machinery("names of requests, to tell what changes state")
@pytest.mark.parametrize(
    ("service", "operation", "path", "changes"),
    [
        ("sqs", "SendMessage", "/", True),
        ("sqs", "DeleteMessage", "/", True),
        ("sqs", "GetQueueUrl", "/", False),
        ("glue", "BatchCreatePartition", "/", True),
        ("glue", "BatchGetPartition", "/", False),
        ("states", "StartExecution", "/", True),
        ("s3", "PUT", "/bucket", True),
        ("s3", "PUT", "/bucket/", True),
        ("s3", "PUT", "/bucket/key", False),
        ("s3", "GET", "/bucket", False),
        ("lambda", "POST", "/2015-03-31/functions", True),
        ("kinesis", "PutRecords", "/", False),
    ],
)
def test_what_changes_state(service: str, operation: str, path: str, changes: bool) -> None:
    assert changes_state(service, operation, path) == changes


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel")
def test_everything_that_was_made_is_there(running: EndpointProcess) -> None:
    # GIVEN one thing of each service, and a kill right after the last answer
    sqs, s3, glue, kinesis = (running.client(name) for name in ("sqs", "s3", "glue", "kinesis"))
    role = running.role("kept", "states.amazonaws.com", ("s3:GetObject", "*"))
    s3.create_bucket(Bucket="kept", CreateBucketConfiguration=LOCATION)
    s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket="kept", Key="a/b", Body=b"first")["VersionId"]
    s3.put_object(Bucket="kept", Key="a/b", Body=b"second")
    glue.create_database(DatabaseInput={"Name": "kept"})
    glue.create_table(DatabaseName="kept", TableInput={"Name": "readings", "PartitionKeys": [{"Name": "day"}]})
    glue.create_partition(DatabaseName="kept", TableName="readings", PartitionInput={"Values": ["15"]})
    kinesis.create_stream(StreamName="kept", ShardCount=1)
    put = kinesis.put_record(StreamName="kept", Data=b"record", PartitionKey="k")
    running.client("logs").create_log_group(logGroupName="/kept")
    machine = running.client("stepfunctions").create_state_machine(
        name="kept", roleArn=role, definition=json.dumps({"StartAt": "a", "States": {"a": {"Type": "Succeed"}}})
    )["stateMachineArn"]
    url = sqs.create_queue(QueueName="kept")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="message")

    # WHEN
    killed_and_started(running)

    # THEN
    assert running.client("iam").get_role(RoleName="kept")["Role"]["Arn"] == role
    assert s3.get_object(Bucket="kept", Key="a/b")["Body"].read() == b"second"
    assert s3.get_object(Bucket="kept", Key="a/b", VersionId=first)["Body"].read() == b"first"
    assert s3.get_bucket_versioning(Bucket="kept")["Status"] == "Enabled"
    partitions = glue.get_partitions(DatabaseName="kept", TableName="readings")["Partitions"]
    assert [partition["Values"] for partition in partitions] == [["15"]]
    iterator = kinesis.get_shard_iterator(
        StreamName="kept",
        ShardId=put["ShardId"],
        ShardIteratorType="AT_SEQUENCE_NUMBER",
        StartingSequenceNumber=put["SequenceNumber"],
    )["ShardIterator"]
    assert [record["Data"] for record in kinesis.get_records(ShardIterator=iterator)["Records"]] == [b"record"]
    assert running.client("logs").describe_log_groups(logGroupNamePrefix="/kept")["logGroups"]
    assert running.client("stepfunctions").describe_state_machine(stateMachineArn=machine)["status"] == "ACTIVE"
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "message"


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel")
def test_what_was_deleted_stays_deleted(running: EndpointProcess) -> None:
    # GIVEN
    sqs, s3 = running.client("sqs"), running.client("s3")
    url = sqs.create_queue(QueueName="deleted")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="done")
    s3.create_bucket(Bucket="deleted", CreateBucketConfiguration=LOCATION)
    s3.put_object(Bucket="deleted", Key="k", Body=b"x")
    [message] = sqs.receive_message(QueueUrl=url)["Messages"]

    # WHEN
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    s3.delete_object(Bucket="deleted", Key="k")
    killed_and_started(running)

    # THEN
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessages"] == attributes["ApproximateNumberOfMessagesNotVisible"] == "0"
    assert "Contents" not in s3.list_objects_v2(Bucket="deleted")


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html")
def test_an_object_is_whole_or_absent(running: EndpointProcess) -> None:
    # GIVEN writers of large objects, of keys that are new and of one that is overwritten
    s3 = running.client("s3", config=Config(retries={"total_max_attempts": 1, "mode": "standard"}))
    s3.create_bucket(Bucket="whole", CreateBucketConfiguration=LOCATION)
    acknowledged: dict[str, bytes] = {}
    sent: dict[str, list[bytes]] = {}
    lock = threading.Lock()

    def write(number: int) -> None:
        for turn in range(1000):
            for key in (f"new-{number}-{turn}", f"same-{number}"):
                body = f"{number} {turn} ".encode() * MEBIBYTE
                with lock:
                    sent.setdefault(key, []).append(hashlib.sha256(body).digest())
                try:
                    s3.put_object(Bucket="whole", Key=key, Body=body)
                except (BotoCoreError, ClientError):
                    return
                with lock:
                    acknowledged[key] = sent[key][-1]

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()

    # WHEN the endpoint is killed while they write
    wait_until(lambda: len(acknowledged) > 6, 60)
    running.kill()
    for writer in writers:
        writer.join()
    running.start()

    # THEN every acknowledged object is there, and each is one of those that were sent, as it was sent
    stored = {}
    for entry in s3.list_objects_v2(Bucket="whole")["Contents"]:
        answer = s3.get_object(Bucket="whole", Key=entry["Key"])
        body = answer["Body"].read()
        assert len(body) == entry["Size"] == answer["ContentLength"]
        assert answer["ETag"] == f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        stored[entry["Key"]] = hashlib.sha256(body).digest()
    assert all(digest in sent[key] for key, digest in stored.items())
    assert all(sent[key].index(stored[key]) >= sent[key].index(digest) for key, digest in acknowledged.items())


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/EventNotifications.html")
def test_the_event_of_an_acknowledged_object_arrives(running: EndpointProcess) -> None:
    # GIVEN a bucket whose events go to a queue
    # (https://docs.aws.amazon.com/AmazonS3/latest/userguide/EventNotifications.html: "at least once")
    s3, sqs, events = (running.client(name) for name in ("s3", "sqs", "events"))
    s3.create_bucket(Bucket="told", CreateBucketConfiguration=LOCATION)
    s3.put_bucket_notification_configuration(Bucket="told", NotificationConfiguration={"EventBridgeConfiguration": {}})
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:told"
    allow = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:*", "Resource": arn}
    url = sqs.create_queue(
        QueueName="told", Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [allow]})}
    )["QueueUrl"]
    events.put_rule(Name="told", EventPattern=json.dumps({"source": ["aws.s3"], "detail-type": ["Object Created"]}))
    events.put_targets(Rule="told", Targets=[{"Id": "queue", "Arn": arn}])

    # WHEN
    for number in range(5):
        s3.put_object(Bucket="told", Key=f"k{number}", Body=b"x")
    killed_and_started(running)

    # THEN
    told = set()
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        told |= {json.loads(message["Body"])["detail"]["object"]["key"] for message in messages}
    assert told == {f"k{number}" for number in range(5)}


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-actions.html")
def test_an_alarm_that_has_told_of_its_ringing_also_tells_of_its_end(running: EndpointProcess) -> None:
    # GIVEN a topic whose messages go to a queue, and an alarm that rings, over a value that soon leaves its range
    cloudwatch, sns, sqs = (running.client(name) for name in ("cloudwatch", "sns", "sqs"))
    allow = {"Effect": "Allow", "Principal": {"Service": ["cloudwatch.amazonaws.com", "sns.amazonaws.com"]}}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{**allow, "Action": "*", "Resource": "*"}]})
    topic = sns.create_topic(Name="rings", Attributes={"Policy": policy})["TopicArn"]
    url = sqs.create_queue(QueueName="rings", Attributes={"Policy": policy})["QueueUrl"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:{REGION}:{ACCOUNT}:rings")
    cloudwatch.put_metric_data(
        Namespace="Kept", MetricData=[{"MetricName": "Rejected", "Value": 1, "Timestamp": time.time() - 12}]
    )
    cloudwatch.put_metric_alarm(
        AlarmName="rings",
        Namespace="Kept",
        MetricName="Rejected",
        Statistic="Sum",
        Period=10,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
        AlarmActions=[topic],
        OKActions=[topic],
    )

    def next_change() -> tuple[str, str]:
        received = wait_until(lambda: sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1).get("Messages"), 60)[0]
        sqs.delete_message(QueueUrl=url, ReceiptHandle=received["ReceiptHandle"])
        message = json.loads(json.loads(received["Body"])["Message"])
        return message["OldStateValue"], message["NewStateValue"]

    assert next_change()[1] == "ALARM"

    # WHEN
    killed_and_started(running)

    # THEN
    assert next_change() == ("ALARM", "OK")


WAITING = {"StartAt": "wait", "States": {"wait": {"Type": "Wait", "Seconds": 3600, "End": True}}}
PASSING = {"StartAt": "pass", "States": {"pass": {"Type": "Pass", "Result": {"n": 1}, "End": True}}}


def state_machine(running: EndpointProcess, name: str, definition: dict[str, Any]) -> str:
    role = running.role(f"machine-{name}", "states.amazonaws.com")
    arn: str = running.client("stepfunctions").create_state_machine(
        name=name, roleArn=role, definition=json.dumps(definition)
    )["stateMachineArn"]
    return arn


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/redrive-executions.html")
def test_an_execution_that_ran_at_the_kill_is_not_stuck(running: EndpointProcess) -> None:
    # GIVEN one that waits and one that has ended
    states = running.client("stepfunctions")
    waiting = states.start_execution(stateMachineArn=state_machine(running, "waiting", WAITING))["executionArn"]
    passed = states.start_execution(stateMachineArn=state_machine(running, "passing", PASSING))["executionArn"]
    wait_until(lambda: states.describe_execution(executionArn=passed)["status"] == "SUCCEEDED")

    # WHEN
    killed_and_started(running)

    # THEN the one has failed, its history says so, and it can be redriven; the other is as it was
    after = states.describe_execution(executionArn=waiting)
    assert (after["status"], after["error"]) == ("FAILED", "States.ServiceRestart")
    wait_until(lambda: states.get_execution_history(executionArn=waiting)["events"][-1]["type"] == "ExecutionFailed")
    assert after["redriveStatus"] == "REDRIVABLE"
    ended = states.describe_execution(executionArn=passed)
    assert (ended["status"], json.loads(ended["output"])) == ("SUCCEEDED", {"n": 1})
    assert states.get_execution_history(executionArn=passed)["events"][-1]["type"] == "ExecutionSucceeded"

    # AND a redrive outlives a kill as well
    states.redrive_execution(executionArn=waiting)
    killed_and_started(running)
    again = states.describe_execution(executionArn=waiting)
    assert (again["status"], again["redriveCount"]) == ("FAILED", 1)


def sending(queue_url: str, body: str, **more: Any) -> dict[str, Any]:
    arguments = {"QueueUrl": queue_url, "MessageBody": body}
    return {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "Arguments": arguments, **more}


@pytest.mark.source("https://docs.aws.amazon.com/goto/WebAPI/states-2016-11-23/RedriveExecution")
def test_a_redrive_after_a_kill_does_not_run_what_has_succeeded(running: EndpointProcess) -> None:
    # GIVEN an execution that has sent a message, with a history that tells so, and waits
    states, sqs = running.client("stepfunctions"), running.client("sqs")
    url = sqs.create_queue(QueueName="sent-once")["QueueUrl"]
    definition = {
        "QueryLanguage": "JSONata",
        "StartAt": "put",
        "States": {
            "put": sending(url, "done", Assign={"kept": 7}, Next="wait"),
            "wait": {"Type": "Wait", "Seconds": 5, "Output": {"kept": "{% $kept %}"}, "End": True},
        },
    }
    role = running.role("sent-once", "states.amazonaws.com", ("sqs:SendMessage", "*"))
    machine = states.create_state_machine(name="sent-once", roleArn=role, definition=json.dumps(definition))
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"])["executionArn"]

    def told() -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = states.get_execution_history(executionArn=execution)["events"]
        return events

    before = wait_until(lambda: events if (events := told())[-1]["type"] == "WaitStateEntered" else None)

    # WHEN the endpoint is killed right after it has told so, and the execution redriven
    killed_and_started(running)
    assert told()[: len(before)] == before
    states.redrive_execution(executionArn=execution)

    # THEN it goes on at the wait, with its variables, and sends nothing again
    wait_until(lambda: states.describe_execution(executionArn=execution)["status"] == "SUCCEEDED")
    assert json.loads(states.describe_execution(executionArn=execution)["output"]) == {"kept": 7}
    entered = [event["stateEnteredEventDetails"]["name"] for event in told() if "stateEnteredEventDetails" in event]
    assert entered == ["put", "wait", "wait"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    assert attributes["ApproximateNumberOfMessages"] == "1"


@pytest.mark.source("https://docs.aws.amazon.com/goto/WebAPI/states-2016-11-23/RedriveExecution")
def test_a_call_begins_when_it_is_written_that_the_states_before_it_are_done(running: EndpointProcess) -> None:
    # GIVEN a function that tells what is on disk while it runs, and that has run once: its next start is quick
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("read.py", "def handler(event, context):\n    return open(event['file']).read()\n")
    function = running.client("lambda")
    function.create_function(
        FunctionName="read",
        Runtime="python3.13",
        Architectures=["arm64"],
        Handler="read.handler",
        Role=running.role("read", "lambda.amazonaws.com", ("logs:*", "*")),
        Code={"ZipFile": code.getvalue()},
    )
    function.get_waiter("function_active_v2").wait(FunctionName="read", WaiterConfig={"Delay": 1})
    payload = {"file": str(running.state_directory / "services" / "stepfunctions.json")}
    function.invoke(FunctionName="read", Payload=json.dumps(payload))
    call = {"FunctionName": "read", "Payload": payload}
    definition = {
        "QueryLanguage": "JSONata",
        "StartAt": "first",
        "States": {
            "first": {"Type": "Pass", "Output": "output of the first", "Next": "call"},
            "call": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Arguments": call, "End": True},
        },
    }
    role = running.role("calling", "states.amazonaws.com", ("lambda:InvokeFunction", "*"))
    states = running.client("stepfunctions")
    machine = states.create_state_machine(name="calling", roleArn=role, definition=json.dumps(definition))

    # WHEN
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"])["executionArn"]
    wait_until(lambda: states.describe_execution(executionArn=execution)["status"] != "RUNNING")

    # THEN a kill during the call would have found the call begun, and what is before it done
    written = json.loads(states.describe_execution(executionArn=execution)["output"])["Payload"]
    assert "TaskStarted" in written
    assert '"state": "call", "input": "output of the first"' in written


TEMPLATE = {
    "Resources": {
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "of-stack"}},
        "Stream": {"Type": "AWS::Kinesis::Stream", "Properties": {"Name": "of-stack", "ShardCount": 1}},
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "of-stack"}},
    }
}


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html")
def test_a_complete_stack_is_there_with_its_resources(running: EndpointProcess) -> None:
    # GIVEN
    cloudformation = running.client("cloudformation")
    cloudformation.create_stack(StackName="kept", TemplateBody=json.dumps(TEMPLATE))

    def status() -> str:
        return str(cloudformation.describe_stacks(StackName="kept")["Stacks"][0]["StackStatus"])

    wait_until(lambda: status() == "CREATE_COMPLETE")

    # WHEN
    killed_and_started(running)

    # THEN
    assert status() == "CREATE_COMPLETE"
    assert running.client("sqs").get_queue_url(QueueName="of-stack")
    assert running.client("kinesis").describe_stream_summary(StreamName="of-stack")
    assert running.client("sns").get_topic_attributes(TopicArn=f"arn:aws:sns:{REGION}:{ACCOUNT}:of-stack")


@pytest.mark.own_machinery("AWS survives; the deviation is listed")
def test_an_operation_of_a_stack_that_was_killed_has_failed(running: EndpointProcess) -> None:
    # GIVEN a stack that waits for a delivery stream which may not read its source
    role = running.role("slow", "firehose.amazonaws.com", ("kinesis:DescribeStream", "*"))
    running.client("kinesis").create_stream(StreamName="slow", ShardCount=1)
    delivery = {
        "Type": "AWS::KinesisFirehose::DeliveryStream",
        "Properties": {
            "DeliveryStreamName": "slow",
            "DeliveryStreamType": "KinesisStreamAsSource",
            "KinesisStreamSourceConfiguration": {
                "KinesisStreamARN": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/slow",
                "RoleARN": role,
            },
            "ExtendedS3DestinationConfiguration": {"RoleARN": role, "BucketARN": "arn:aws:s3:::kept"},
        },
    }
    cloudformation = running.client("cloudformation")
    cloudformation.create_stack(StackName="slow", TemplateBody=json.dumps({"Resources": {"Slow": delivery}}))
    time.sleep(0.5)
    status = cloudformation.describe_stacks(StackName="slow")["Stacks"][0]["StackStatus"]
    assert status == "CREATE_IN_PROGRESS"

    # WHEN
    killed_and_started(running)

    # THEN it can be deleted
    wait_until(lambda: cloudformation.describe_stacks(StackName="slow")["Stacks"][0]["StackStatus"] == "CREATE_FAILED")
    cloudformation.delete_stack(StackName="slow")
    wait_until(lambda: all(stack["StackName"] != "slow" for stack in cloudformation.describe_stacks()["Stacks"]))
