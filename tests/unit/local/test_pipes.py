"""EventBridge Pipes of the embedded endpoint: templates and batches one by one, and the running service."""

import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.local import pipes
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

S3_EVENT = {"detail": {"bucket": {"name": "raw"}, "object": {"key": 'a "b"/ü.gz', "size": 7, "tags": ["x", "y"]}}}
TEMPLATE = '{"key": "<$.body.detail.object.key>", "size": <$.body.detail.object.size>}'


def event(body: str) -> dict[str, Any]:
    message = {"MessageId": "m", "ReceiptHandle": "r", "Body": body, "MD5OfBody": "5"}
    return pipes.sqs_event(message, f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue", REGION)


# --- the input template -----------------------------------------------------------------------------------------------
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-input-transformation.html


@pytest.mark.source(
    "https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-input-transformation.html#input-transform-implicit"
)
def test_body_that_is_json_is_parsed_and_its_values_are_referenced() -> None:
    # WHEN a quoted string and a raw number are taken from it
    rendered = pipes.render_input(TEMPLATE, event(json.dumps(S3_EVENT)), {})

    # THEN
    assert json.loads(rendered) == {"key": 'a "b"/ü.gz', "size": 7}


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-input-transformation.html")
@pytest.mark.parametrize(
    ("template", "outcome"),
    [
        # the samples of the page
        ('"Hello, sender"', "Hello, sender"),
        ("<$.messageId>", "m"),
        ('"Hello, <$.messageId>"', "Hello, m"),
        ('{"key1": "value1", "key2": "value2"}', {"key1": "value1", "key2": "value2"}),
        # a variable outside of quotes becomes JSON of its value, also when that is a string, an object or an array
        ('{"state": <$.messageId>}', {"state": "m"}),
        ('{"object": <$.body.detail.bucket>}', {"object": {"name": "raw"}}),
        ('{"second": <$.body.detail.object.tags[1]>}', {"second": "y"}),
        ('{"all": <$.body.detail.object.tags[*]>}', {"all": ["x", "y"]}),
        # reserved variables
        ('{"name": "<aws.pipes.pipe-name>"}', {"name": "the-pipe"}),
        ('{"event": <aws.pipes.event.json>}', {"event": {**event(json.dumps(S3_EVENT)), "body": S3_EVENT}}),
        ('{"event": <aws.pipes.event>}', {"event": event(json.dumps(S3_EVENT))}),
        # "{"key": "value"} will become "{key: value}"": quotes of an object inside quotes are removed
        ('{"text": "<$.body.detail.bucket>"}', {"text": "{name:raw}"}),
        # free text
        ("object <$.messageId>", "object m"),
        # a path that leads nowhere
        ('{"a": "<$.nowhere>", "b": <$.body.detail.nowhere>}', {"a": "", "b": None}),
    ],
)
def test_template(template: str, outcome: Any) -> None:
    rendered = pipes.render_input(template, event(json.dumps(S3_EVENT)), {"aws.pipes.pipe-name": "the-pipe"})
    assert json.loads(rendered) == outcome


@pytest.mark.source(
    "https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-input-transformation.html#input-transform-implicit"
)
def test_body_that_is_no_json_stays_text() -> None:
    assert json.loads(pipes.render_input('{"body": <$.body>}', event("Test message."), {})) == {"body": "Test message."}


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-input-transformation.html")
@given(st.text())
def test_any_string_survives_inside_and_outside_of_quotes(text: str) -> None:
    rendered = pipes.render_input('{"a": "<$.body.t>", "b": <$.body.t>}', event(json.dumps({"t": text})), {})
    assert json.loads(rendered) == {"a": text, "b": text}


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-input-transformation.html")
def test_template_that_makes_no_json_of_an_object_is_an_error() -> None:
    with pytest.raises(pipes.TemplateError):
        pipes.render_input('{"a": <$.messageId> oops}', event("x"), {})


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-input-transformation.html")
def test_path_of_unsupported_syntax_is_an_error() -> None:
    with pytest.raises(pipes.TemplateError):
        pipes.render_input('{"a": <$.body[?(@.x)]>}', event("{}"), {})


# --- settings and batches ---------------------------------------------------------------------------------------------

PIPE = {
    "Name": "p",
    "Arn": f"arn:aws:pipes:{REGION}:{ACCOUNT}:pipe/p",
    "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/p",
    "Source": f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue",
    "Target": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:m",
    "TargetParameters": {"StepFunctionStateMachineParameters": {"InvocationType": "FIRE_AND_FORGET"}},
}


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-sqs.html")
def test_defaults_are_those_of_aws() -> None:
    # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-sqs.html: "By default, EventBridge polls up to
    # 10 messages"; no window
    settings = pipes.pipe_settings(PIPE)
    assert (settings.batch_size, settings.window_seconds, settings.input_template) == (10, 0, None)
    assert settings.queue_url_parts == (ACCOUNT, "queue")


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/pipes-reference/API_CreatePipe.html")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SourceParameters": {"SqsQueueParameters": {"BatchSize": 10_001}}}, "BatchSize"),
        ({"SourceParameters": {"SqsQueueParameters": {"MaximumBatchingWindowInSeconds": 301}}}, "Window"),
        ({"SourceParameters": {"FilterCriteria": {"Filters": [{"Pattern": "{}"}]}}}, "FilterCriteria"),
        ({"Enrichment": "arn:aws:lambda:::function:f"}, "Enrichment"),
        ({"Target": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f"}, "Step Functions"),
        ({"TargetParameters": {}}, "FIRE_AND_FORGET"),
    ],
)
def test_what_aws_refuses_or_the_endpoint_does_not_model_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(pipes.PipeError, match=message):
        pipes.pipe_settings({**PIPE, **change})


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/pipes-reference/API_UpdatePipe.html")
def test_update_replaces_each_services_parameters_as_a_whole() -> None:
    # https://docs.aws.amazon.com/eventbridge/latest/pipes-reference/API_UpdatePipe.html
    old = {"SqsQueueParameters": {"BatchSize": 5, "MaximumBatchingWindowInSeconds": 9}, "FilterCriteria": {}}
    merged = pipes.merged_parameters(old, {"SqsQueueParameters": {"BatchSize": 6}})
    assert merged == {"SqsQueueParameters": {"BatchSize": 6}, "FilterCriteria": {}}


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-batching-concurrency.html")
def test_window_ends_at_its_time_or_at_the_batch_size() -> None:
    # GIVEN a window of 10 s for two messages, opened at 100 s
    batch = pipes.Batch(size_limit=2, opened_at=100.0, window_seconds=10)
    batch.add("1", "r1", "{}")

    # WHEN / THEN
    assert batch.wants_more(109.9)
    assert not batch.wants_more(110.0)
    batch.add("2", "r2", "{}")
    assert not batch.wants_more(100.0)


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-batching-concurrency.html")
@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=12))
def test_payload_is_an_array_within_the_targets_limit(lengths: list[int]) -> None:
    # GIVEN inputs of any length
    # (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-batching-concurrency.html: 262144 characters)
    batch = pipes.Batch(size_limit=100, opened_at=0, window_seconds=0)

    # WHEN those for which there is room are added
    inputs = [json.dumps("x" * length) for length in lengths]
    added = []
    for number, text in enumerate(inputs):
        if not batch.has_room_for(text):
            break
        batch.add(str(number), "r", text)
        added.append(json.loads(text))

    # THEN
    assert json.loads(batch.payload) == added
    assert len(batch.payload) <= 262_144


# --- batches under way ------------------------------------------------------------------------------------------------


class FullQueue:
    """A queue with a message for whoever asks, and a target that lets it wait for its answer."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(base_url="http://localhost", region=REGION)
        self.received = 0
        self.waiting = threading.Semaphore(0)
        self.answer = threading.Event()

    def client(self, *_service: str, **_how: str) -> Any:
        return self

    def put_metric(self, *_metric: Any) -> None:
        pass

    def get_queue_attributes(self, **_request: Any) -> None:
        pass

    def receive_message(self, **_request: Any) -> dict[str, Any]:
        self.received += 1
        return {"Messages": [{"MessageId": str(self.received), "ReceiptHandle": "r", "Body": "b", "MD5OfBody": "5"}]}

    def start_execution(self, **_request: Any) -> dict[str, str]:
        self.waiting.release()
        self.answer.wait()
        return {"executionArn": "e"}

    def delete_message(self, **_request: Any) -> None:
        pass


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-sqs.html#pipes-sqs-scaling")
@pytest.mark.parametrize(("queue", "parallel"), [("queue", 5), ("queue.fifo", 1)])
def test_up_to_five_batches_are_under_way_at_once_and_one_of_a_fifo_queue(queue: str, parallel: int) -> None:
    # GIVEN a queue that is never empty, and a target that does not answer
    endpoint = FullQueue()
    pipe = {
        **PIPE,
        "Source": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}",
        "SourceParameters": {"SqsQueueParameters": {"BatchSize": 1}},
        "DesiredState": "RUNNING",
    }
    poller = pipes.Poller(endpoint, {"p": pipe}, pipe)  # type: ignore[arg-type]
    stopping = threading.Event()
    thread = threading.Thread(target=poller.run, args=(stopping,))

    # WHEN
    thread.start()

    # THEN as many batches as may be are brought to it, and no further message is received
    try:
        for _ in range(parallel):
            assert endpoint.waiting.acquire(timeout=10)
        time.sleep(0.2)
        assert endpoint.received == parallel

        # AND WHEN it answers, THEN it is brought others
        endpoint.answer.set()
        assert endpoint.waiting.acquire(timeout=10)
    finally:
        stopping.set()
        endpoint.answer.set()
        thread.join()


# --- the running service ----------------------------------------------------------------------------------------------


class RunningEndpoint(EndpointProcess):
    """The endpoint as a process of its own, whose roles' permissions can change."""

    def allow(self, role_name: str, *statements: tuple[str, str]) -> None:
        document = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in statements]
        self.client("iam").put_role_policy(
            RoleName=role_name,
            PolicyName="access",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": document}),
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEndpoint]:
    endpoint = RunningEndpoint(tmp_path_factory.mktemp("pipes"))
    endpoint.role("machine", "states.amazonaws.com", ("logs:*", "*"))
    yield endpoint
    endpoint.stop()


class Way:
    """A queue with dead letters, a state machine, and a pipe's role between them; all of the same name."""

    def __init__(self, running: RunningEndpoint, name: str, visibility_seconds: int = 30) -> None:
        self.running, self.name = running, name
        sqs = running.client("sqs")
        self.dead_letters_url = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        redrive = {"deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}-dead", "maxReceiveCount": "2"}
        self.url = sqs.create_queue(
            QueueName=name,
            Attributes={"VisibilityTimeout": str(visibility_seconds), "RedrivePolicy": json.dumps(redrive)},
        )["QueueUrl"]
        self.queue_arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
        machine = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}
        self.machine_arn = running.client("stepfunctions").create_state_machine(
            name=name, definition=json.dumps(machine), roleArn=f"arn:aws:iam::{ACCOUNT}:role/machine"
        )["stateMachineArn"]
        self.role_arn = running.role(name, "pipes.amazonaws.com", *self.permissions())

    def permissions(self, *, may_start: bool = True) -> list[tuple[str, str]]:
        actions = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
        return [
            *((action, self.queue_arn) for action in actions),
            *([("states:StartExecution", self.machine_arn)] if may_start else []),
        ]

    def request(self, window_seconds: int = 1, batch_size: int = 100) -> dict[str, Any]:
        return {
            "Name": self.name,
            "RoleArn": self.role_arn,
            "Source": self.queue_arn,
            "SourceParameters": {
                "SqsQueueParameters": {"BatchSize": batch_size, "MaximumBatchingWindowInSeconds": window_seconds}
            },
            "Target": self.machine_arn,
            "TargetParameters": {
                "InputTemplate": TEMPLATE,
                "StepFunctionStateMachineParameters": {"InvocationType": "FIRE_AND_FORGET"},
            },
        }

    def send(self, *keys: str) -> None:
        for key in keys:
            body = {"detail": {"object": {"key": key, "size": len(key)}}}
            self.running.client("sqs").send_message(QueueUrl=self.url, MessageBody=json.dumps(body))

    def inputs(self) -> list[list[dict[str, Any]]]:
        client = self.running.client("stepfunctions")
        executions = client.list_executions(stateMachineArn=self.machine_arn)["executions"]
        return [
            json.loads(client.describe_execution(executionArn=execution["executionArn"])["input"])
            for execution in sorted(executions, key=lambda execution: execution["startDate"])
        ]

    def waiting(self, url: str | None = None) -> int:
        """Return how many messages the queue holds, visible or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.running.client("sqs").get_queue_attributes(QueueUrl=url or self.url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def description(self) -> Any:
        return self.running.client("pipes").describe_pipe(Name=self.name)

    def await_state(self, state: str) -> None:
        wait_until(lambda: self.description()["CurrentState"] == state)


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-sqs.html")
def test_messages_of_one_window_start_one_execution_and_are_deleted(running: RunningEndpoint) -> None:
    # GIVEN a running pipe with a window
    way = Way(running, "window")
    running.client("pipes").create_pipe(**way.request(window_seconds=2))
    way.await_state("RUNNING")

    # WHEN more messages than one ReceiveMessage gives arrive within it
    way.send(*(f"k{number}" for number in range(12)))

    # THEN the one execution's input is the array of them, and the queue is empty
    # (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-sqs.html)
    [payload] = wait_until(way.inputs)
    assert sorted(payload, key=lambda entry: int(entry["key"][1:])) == [
        {"key": f"k{number}", "size": len(f"k{number}")} for number in range(12)
    ]
    wait_until(lambda: way.waiting() == 0)
    time.sleep(1)
    assert len(way.inputs()) == 1


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-batching-concurrency.html")
def test_batch_size_ends_a_window_early_and_one_message_is_an_array_too(running: RunningEndpoint) -> None:
    # GIVEN batches of two, in a window that is longer than this test
    way = Way(running, "size")
    running.client("pipes").create_pipe(**way.request(window_seconds=300, batch_size=1))
    way.await_state("RUNNING")

    # WHEN
    way.send("k")

    # THEN https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-batching-concurrency.html
    assert wait_until(way.inputs) == [[{"key": "k", "size": 1}]]


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/pipes-reference/API_UpdatePipe.html")
def test_describe_gives_the_whole_request_and_update_changes_it(running: RunningEndpoint) -> None:
    # GIVEN
    way = Way(running, "describe")
    request = way.request(window_seconds=1)
    running.client("pipes").create_pipe(**request)
    way.await_state("RUNNING")

    # THEN
    description = way.description()
    assert {key: description[key] for key in request} == request

    # WHEN the batch size is changed (https://docs.aws.amazon.com/eventbridge/latest/pipes-reference/API_UpdatePipe.html)
    running.client("pipes").update_pipe(
        Name=way.name, RoleArn=way.role_arn, SourceParameters={"SqsQueueParameters": {"BatchSize": 7}}
    )
    way.await_state("RUNNING")

    # THEN the service's object is replaced, everything else stays, and messages still move
    description = way.description()
    assert description["SourceParameters"] == {"SqsQueueParameters": {"BatchSize": 7}}
    assert description["TargetParameters"] == request["TargetParameters"]
    way.send("k")
    assert wait_until(way.inputs) == [[{"key": "k", "size": 1}]]


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/pipes-reference/API_StopPipe.html")
def test_stopped_pipe_leaves_messages_until_it_starts_again(running: RunningEndpoint) -> None:
    # GIVEN a stopped pipe
    way = Way(running, "stopped")
    running.client("pipes").create_pipe(**way.request(), DesiredState="STOPPED")
    way.send("k")
    time.sleep(1)
    assert (way.inputs(), way.waiting(), way.description()["CurrentState"]) == ([], 1, "STOPPED")

    # WHEN
    running.client("pipes").start_pipe(Name=way.name)

    # THEN
    assert wait_until(way.inputs) == [[{"key": "k", "size": 1}]]
    assert way.description()["CurrentState"] == "RUNNING"


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-error-troubleshooting.html")
def test_batch_that_cannot_be_handed_over_goes_to_the_queues_dead_letters(running: RunningEndpoint) -> None:
    # GIVEN a role that may not start the state machine, and a queue that redrives after two receives
    way = Way(running, "refused", visibility_seconds=1)
    running.allow(way.name, *way.permissions(may_start=False))
    running.client("pipes").create_pipe(**way.request())
    way.await_state("RUNNING")

    # WHEN
    way.send("k")

    # THEN "A pipe inherits dead-letter queue behavior from the source"
    # (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-error-troubleshooting.html)
    wait_until(lambda: way.waiting(way.dead_letters_url) == 1, 30)
    assert way.inputs() == []


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-sqs.html#pipes-sqs-scaling")
def test_batches_that_are_not_taken_hold_up_no_others(running: RunningEndpoint) -> None:
    # GIVEN a pipe of batches of one message, whose role may not start the state machine
    way = Way(running, "parallel", visibility_seconds=60)
    running.allow(way.name, *way.permissions(may_start=False))
    running.client("pipes").create_pipe(**way.request(window_seconds=0, batch_size=1))
    way.await_state("RUNNING")

    # WHEN five messages arrive
    way.send(*(f"k{number}" for number in range(5)))

    # THEN all are received before the pauses after failures in a row (1 s, 2 s, 4 s and 8 s) could be over
    names = ["ApproximateNumberOfMessagesNotVisible"]

    def hidden() -> int:
        answer = running.client("sqs").get_queue_attributes(QueueUrl=way.url, AttributeNames=names)
        return int(answer["Attributes"][names[0]])

    wait_until(lambda: hidden() == 5, 7)


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-monitoring.html")
def test_executions_that_fail_are_counted_and_zero_if_none_does(running: RunningEndpoint) -> None:
    # GIVEN a pipe that may start the state machine, and one that may not, over queues that redrive after two receives
    good, bad = Way(running, "counted"), Way(running, "counted-bad", visibility_seconds=1)
    running.allow(bad.name, *bad.permissions(may_start=False))
    for way in (good, bad):
        running.client("pipes").create_pipe(**way.request())
        way.await_state("RUNNING")

    # WHEN
    good.send("k")
    bad.send("k")
    wait_until(good.inputs)
    wait_until(lambda: bad.waiting(bad.dead_letters_url) == 1, 30)

    # THEN
    def executions(way: Way) -> tuple[float, float]:
        points = running.datapoints("AWS/EventBridge/Pipes", "ExecutionFailed", {"PipeName": way.name})
        assert {point["Unit"] for point in points} <= {"None"}
        return sum(point["SampleCount"] for point in points), sum(point["Sum"] for point in points)

    wait_until(lambda: executions(good) == (1, 0))
    assert executions(bad) == (2, 2)


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-error-troubleshooting.html")
def test_pipe_without_permission_on_its_queue_fails_to_be_created(running: RunningEndpoint) -> None:
    # GIVEN
    way = Way(running, "denied")
    running.allow(way.name, ("states:StartExecution", way.machine_arn))

    # WHEN
    running.client("pipes").create_pipe(**way.request())

    # THEN https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-error-troubleshooting.html
    way.await_state("CREATE_FAILED")
    assert "does not have required permissions" in way.description()["StateReason"]


@pytest.mark.own_machinery("what this endpoint does not model is refused by name")
def test_parts_that_are_not_modelled_are_refused(running: RunningEndpoint) -> None:
    way = Way(running, "filter")
    request = way.request()
    request["SourceParameters"]["FilterCriteria"] = {"Filters": [{"Pattern": "{}"}]}
    with pytest.raises(ClientError, match="FilterCriteria"):
        running.client("pipes").create_pipe(**request)


@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-pipes-pipe.html"
)
def test_cloudformation_creates_updates_and_deletes_a_whole_pipe(running: RunningEndpoint) -> None:
    # GIVEN a template
    way = Way(running, "stack")

    def template(batch_size: int) -> str:
        properties = way.request(batch_size=batch_size)
        # CloudFormation gives numbers of parameters as text
        properties["SourceParameters"]["SqsQueueParameters"]["MaximumBatchingWindowInSeconds"] = "1"
        return json.dumps({"Resources": {"Pipe": {"Type": "AWS::Pipes::Pipe", "Properties": properties}}})

    cloudformation = running.client("cloudformation")

    # WHEN it is created
    cloudformation.create_stack(StackName="s", TemplateBody=template(50))
    cloudformation.get_waiter("stack_create_complete").wait(StackName="s", WaiterConfig={"Delay": 1})

    # THEN the pipe runs with its parameters
    description = way.description()
    assert description["CurrentState"] == "RUNNING"
    assert description["SourceParameters"]["SqsQueueParameters"]["BatchSize"] == 50
    way.send("k")
    assert wait_until(way.inputs) == [[{"key": "k", "size": 1}]]

    # AND WHEN it is updated
    cloudformation.update_stack(StackName="s", TemplateBody=template(60))
    cloudformation.get_waiter("stack_update_complete").wait(StackName="s", WaiterConfig={"Delay": 1})
    assert way.description()["SourceParameters"]["SqsQueueParameters"]["BatchSize"] == 60

    # AND WHEN it is deleted
    cloudformation.delete_stack(StackName="s")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="s", WaiterConfig={"Delay": 1})
    with pytest.raises(ClientError, match="does not exist"):
        way.description()
    way.send("after")
    time.sleep(1)
    assert len(way.inputs()) == 1


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-sqs.html")
def test_pipe_goes_on_after_a_restart_and_open_windows_are_not_lost(running: RunningEndpoint) -> None:
    # GIVEN a pipe with a message in a window that is open for long, in a queue that hides messages for long
    way = Way(running, "restart", visibility_seconds=900)
    running.client("pipes").create_pipe(**way.request(window_seconds=300))
    way.await_state("RUNNING")
    way.send("k")
    time.sleep(1)

    # WHEN the endpoint restarts, and an update ends the window
    running.stop()
    running.start()
    way.await_state("RUNNING")
    way.send("l")
    running.client("pipes").update_pipe(
        Name=way.name, RoleArn=way.role_arn, SourceParameters=way.request(batch_size=2)["SourceParameters"]
    )

    # THEN both messages arrive
    wait_until(lambda: sum(len(payload) for payload in way.inputs()) == 2)
