"""IAM of the embedded endpoint: transport, and the services that deliver to one another."""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from telemetry_lake.local.access import is_secure
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

STATES = f"arn:aws:states:{REGION}:{ACCOUNT}"
QUEUES = f"arn:aws:sqs:{REGION}:{ACCOUNT}"


@pytest.mark.source("https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html")
@pytest.mark.parametrize(
    ("source_ip", "tls", "secure"),
    [
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("192.0.2.1", False, False),
        ("192.0.2.1", True, True),
        ("somewhere", False, False),
    ],
)
def test_only_loopback_without_tls_counts_as_secure(source_ip: str, tls: bool, secure: bool) -> None:
    assert is_secure(source_ip, tls) is secure


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    process = EndpointProcess(tmp_path_factory.mktemp("access"))
    yield process
    process.stop()


def policy(principal: Any, action: str, resource: Any, **condition: Any) -> str:
    statement = {"Effect": "Allow", "Principal": principal, "Action": action, "Resource": resource}
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [statement | ({"Condition": condition} if condition else {})]}
    )


def client_of_user(endpoint: EndpointProcess, service: str, name: str, *statements: tuple[str, str]) -> Any:
    """Return a client that signs with the keys of an IAM user who is allowed this much."""
    iam = endpoint.client("iam")
    iam.create_user(UserName=name)
    allowed = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in statements]
    document = json.dumps({"Version": "2012-10-17", "Statement": allowed})
    iam.put_user_policy(UserName=name, PolicyName="access", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=f"http://127.0.0.1:{endpoint.port}",
        region_name=REGION,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )


# --- transport --------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html")
def test_bucket_that_demands_tls_serves_this_machine_and_still_denies_what_else_it_denies(
    endpoint: EndpointProcess,
) -> None:
    # GIVEN
    s3 = endpoint.client("s3")
    s3.create_bucket(Bucket="tls", CreateBucketConfiguration={"LocationConstraint": REGION})
    resources = ["arn:aws:s3:::tls", "arn:aws:s3:::tls/*"]
    tls_only = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": resources,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    closed = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::tls/closed/*"}
    user = client_of_user(endpoint, "s3", "reader", ("s3:PutObject", "arn:aws:s3:::tls/*"))
    s3.put_bucket_policy(Bucket="tls", Policy=json.dumps({"Version": "2012-10-17", "Statement": [tls_only, closed]}))

    # WHEN / THEN
    user.put_object(Bucket="tls", Key="open/k", Body=b"x")
    with pytest.raises(ClientError, match="AccessDenied"):
        user.put_object(Bucket="tls", Key="closed/k", Body=b"x")


# --- EventBridge ------------------------------------------------------------------------------------------------------


class Rules:
    """Rules on events of source ``test``, each with one target."""

    def __init__(self, endpoint: EndpointProcess) -> None:
        self.endpoint = endpoint
        self.events = endpoint.client("events")
        self.sqs = endpoint.client("sqs")

    def queue(self, name: str) -> str:
        self.sqs.create_queue(QueueName=name)
        return f"{QUEUES}:{name}"

    def set_policy(self, queue_arn: str, document: str) -> None:
        self.sqs.set_queue_attributes(QueueUrl=self.url(queue_arn), Attributes={"Policy": document})

    def url(self, queue_arn: str) -> str:
        url: str = self.sqs.get_queue_url(QueueName=queue_arn.rsplit(":", 1)[-1])["QueueUrl"]
        return url

    def messages(self, queue_arn: str, wait_seconds: int = 1) -> list[dict[str, Any]]:
        """Take what is in a queue."""
        answer = self.sqs.receive_message(
            QueueUrl=self.url(queue_arn), WaitTimeSeconds=wait_seconds, MessageAttributeNames=["All"]
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        for message in messages:
            self.sqs.delete_message(QueueUrl=self.url(queue_arn), ReceiptHandle=message["ReceiptHandle"])
        return messages

    def rule(self, name: str, target_arn: str, **target: Any) -> str:
        pattern = json.dumps({"source": ["test"], "detail-type": [name]})
        arn: str = self.events.put_rule(Name=name, EventPattern=pattern)["RuleArn"]
        self.events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": target_arn, **target}])
        return arn

    def fire(self, name: str) -> None:
        entry = {"Source": "test", "DetailType": name, "Detail": '{"a": 1}'}
        assert self.events.put_events(Entries=[entry])["FailedEntryCount"] == 0


@pytest.fixture(scope="module")
def rules(endpoint: EndpointProcess) -> Rules:
    return Rules(endpoint)


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html")
@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html")
def test_rule_sends_to_a_queue_only_with_a_statement_for_itself_and_uses_its_dead_letter_queue(rules: Rules) -> None:
    # GIVEN https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html
    queue, dead = rules.queue("target"), rules.queue("dead")
    rule = rules.rule("to-queue", queue, DeadLetterConfig={"Arn": dead})
    allow = {"Service": "events.amazonaws.com"}
    rules.set_policy(dead, policy(allow, "sqs:SendMessage", dead, ArnEquals={"aws:SourceArn": rule}))

    # WHEN the queue has no policy
    rules.fire("to-queue")

    # THEN https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
    [letter] = rules.messages(dead, wait_seconds=10)
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert json.loads(letter["Body"])["detail"] == {"a": 1}
    assert attributes["RULE_ARN"] == rule
    assert attributes["TARGET_ARN"] == queue
    assert attributes["ERROR_CODE"] == "NO_PERMISSIONS"
    assert rules.messages(queue) == []

    # WHEN the policy is for another rule, or for the account's users
    for principal, source in ((allow, f"{rule}-other"), ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, rule)):
        rules.set_policy(queue, policy(principal, "sqs:SendMessage", queue, ArnEquals={"aws:SourceArn": source}))
        rules.fire("to-queue")
        assert rules.messages(queue) == []
        assert len(rules.messages(dead, wait_seconds=10)) == 1

    # WHEN it is for this rule
    rules.set_policy(queue, policy(allow, "sqs:SendMessage", queue, ArnEquals={"aws:SourceArn": rule}))
    rules.fire("to-queue")

    # THEN
    [message] = rules.messages(queue, wait_seconds=10)
    assert json.loads(message["Body"])["detail-type"] == "to-queue"


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-troubleshooting.html")
def test_rule_needs_the_key_of_an_encrypted_queue(rules: Rules) -> None:
    # GIVEN https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-troubleshooting.html
    kms = rules.endpoint.client("kms")
    service = {"Service": "events.amazonaws.com"}
    key = kms.create_key(Policy=policy({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "kms:*", "*"))["KeyMetadata"]["Arn"]
    queue = rules.queue("encrypted")
    rules.set_policy(queue, policy(service, "sqs:SendMessage", queue))
    rules.sqs.set_queue_attributes(QueueUrl=rules.url(queue), Attributes={"KmsMasterKeyId": key})
    rules.rule("to-encrypted", queue)

    # WHEN the key policy does not name EventBridge
    rules.fire("to-encrypted")

    # THEN
    assert rules.messages(queue) == []

    # WHEN it does
    statements = [
        json.loads(policy({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "kms:*", "*"))["Statement"][0],
        json.loads(policy(service, "kms:Decrypt", "*"))["Statement"][0],
        json.loads(policy(service, "kms:GenerateDataKey", "*"))["Statement"][0],
    ]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=document)
    rules.fire("to-encrypted")

    # THEN
    assert len(rules.messages(queue, wait_seconds=10)) == 1

    # WHEN the queue has the AWS managed key, whose policy nobody can change
    rules.sqs.set_queue_attributes(QueueUrl=rules.url(queue), Attributes={"KmsMasterKeyId": "alias/aws/sqs"})
    rules.fire("to-encrypted")

    # THEN
    assert rules.messages(queue) == []


def state_machine(endpoint: EndpointProcess, name: str) -> str:
    role = endpoint.role(f"{name}-role", "states.amazonaws.com")
    definition = json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}})
    arn: str = endpoint.client("stepfunctions").create_state_machine(name=name, definition=definition, roleArn=role)[
        "stateMachineArn"
    ]
    return arn


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-identity-based.html")
def test_rule_starts_an_execution_with_its_role_and_not_without_its_permission(rules: Rules) -> None:
    # GIVEN https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-identity-based.html
    machine = state_machine(rules.endpoint, "by-rule")
    states = rules.endpoint.client("stepfunctions")
    dead = rules.queue("by-rule-dead")
    rules.set_policy(dead, policy({"Service": "events.amazonaws.com"}, "sqs:SendMessage", dead))
    powerless = rules.endpoint.role("powerless", "events.amazonaws.com")
    untrusting = rules.endpoint.role("untrusting", "glue.amazonaws.com", ("states:StartExecution", machine))
    good = rules.endpoint.role("starter", "events.amazonaws.com", ("states:StartExecution", machine))

    # WHEN the role may not start it, or does not trust EventBridge
    for role in (powerless, untrusting):
        rules.rule("by-rule", machine, RoleArn=role, DeadLetterConfig={"Arn": dead})
        rules.fire("by-rule")

        # THEN
        assert len(rules.messages(dead, wait_seconds=10)) == 1
    assert states.list_executions(stateMachineArn=machine)["executions"] == []

    # WHEN it may
    rules.rule("by-rule", machine, RoleArn=good, DeadLetterConfig={"Arn": dead})
    rules.fire("by-rule")

    # THEN
    wait_until(lambda: states.list_executions(stateMachineArn=machine)["executions"])
    assert rules.messages(dead) == []


# --- functions --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def function(endpoint: EndpointProcess) -> str:
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("app.py", "import json\ndef handler(event, context): print('GOT ' + json.dumps(event))")
    groups = f"arn:aws:logs:{REGION}:{ACCOUNT}:*"
    role = endpoint.role("receiver", "lambda.amazonaws.com", ("logs:*", groups))
    arn: str = endpoint.client("lambda").create_function(
        FunctionName="receiver",
        Runtime="python3.13",
        Role=role,
        Handler="app.handler",
        Code={"ZipFile": code.getvalue()},
    )["FunctionArn"]
    endpoint.client("lambda").get_waiter("function_active_v2").wait(FunctionName="receiver")
    return arn


def received(endpoint: EndpointProcess) -> list[dict[str, Any]]:
    events = endpoint.client("logs").filter_log_events(logGroupName="/aws/lambda/receiver", filterPattern="GOT")
    return [json.loads(event["message"].removeprefix("GOT ")) for event in events["events"]]


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html")
@pytest.mark.source("https://docs.aws.amazon.com/sns/latest/dg/sns-lambda-as-subscriber.html")
def test_rule_and_topic_invoke_a_function_only_with_its_permission(rules: Rules, function: str) -> None:
    # GIVEN
    endpoint = rules.endpoint
    client, sns = endpoint.client("lambda"), endpoint.client("sns")
    rule = rules.rule("to-function", function)
    topic = sns.create_topic(Name="to-function")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=function)

    # WHEN nobody is permitted
    rules.fire("to-function")
    sns.publish(TopicArn=topic, Message="denied")

    # THEN both deliveries fail, and are counted
    cloudwatch = endpoint.client("cloudwatch")

    def counted(namespace: str, metric: str) -> bool:
        return bool(cloudwatch.list_metrics(Namespace=namespace, MetricName=metric)["Metrics"])

    wait_until(lambda: counted("AWS/Events", "FailedInvocations"))
    wait_until(lambda: counted("AWS/SNS", "NumberOfNotificationsFailed"))

    # WHEN the topic is permitted, and the rule for another source
    client.add_permission(
        FunctionName="receiver",
        StatementId="sns",
        Action="lambda:InvokeFunction",
        Principal="sns.amazonaws.com",
        SourceArn=topic,
    )
    client.add_permission(
        FunctionName="receiver",
        StatementId="events",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=f"{rule}-other",
    )
    rules.fire("to-function")
    sns.publish(TopicArn=topic, Message="permitted")

    # THEN
    wait_until(lambda: endpoint.client("logs").describe_log_groups(logGroupNamePrefix="/aws/lambda/r")["logGroups"])
    [event] = wait_until(lambda: received(endpoint))
    assert event["Records"][0]["Sns"]["Message"] == "permitted"

    # WHEN the rule itself is permitted
    client.add_permission(
        FunctionName="receiver",
        StatementId="rule",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=rule,
    )
    rules.fire("to-function")

    # THEN
    wait_until(lambda: len(received(endpoint)) == 2)
    assert received(endpoint)[1]["detail-type"] == "to-function"


# --- Scheduler --------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/UserGuide/setting-up.html")
def test_schedule_starts_an_execution_with_its_role(endpoint: EndpointProcess) -> None:
    # GIVEN one schedule with a role that may, and one with a role that may not; both were due in the past
    machine = state_machine(endpoint, "by-schedule")
    states, scheduler = endpoint.client("stepfunctions"), endpoint.client("scheduler")
    good = endpoint.role("scheduler-good", "scheduler.amazonaws.com", ("states:StartExecution", machine))
    bad = endpoint.role("scheduler-bad", "scheduler.amazonaws.com")

    # WHEN
    for name, role in (("bad", bad), ("good", good)):
        scheduler.create_schedule(
            Name=name,
            ScheduleExpression="at(2020-01-01T00:00:00)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": machine, "RoleArn": role, "Input": json.dumps({"by": name})},
        )

    # THEN
    executions = wait_until(lambda: states.list_executions(stateMachineArn=machine)["executions"], 60)
    wait_until(lambda: "not authorized to perform: states:StartExecution" in endpoint.log)
    inputs = [states.describe_execution(executionArn=item["executionArn"])["input"] for item in executions]
    assert [json.loads(text) for text in inputs] == [{"by": "good"}]
