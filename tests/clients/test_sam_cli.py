"""``sam logs`` and ``sam remote invoke`` of the unmodified SAM CLI (https://github.com/aws/aws-sam-cli)."""

import base64
import json
import subprocess
import threading
from collections.abc import Mapping
from queue import Empty, Queue
from typing import IO, Any

import boto3
import pytest

from tests.judging import REPOSITORY, TOOLS

SAM = TOOLS / "sam" / "bin" / "sam"
EVENT = REPOSITORY / "events" / "transform" / "kinesis_source.json"
MOST_INVOCATIONS = 60


@pytest.fixture(scope="module")
def stack(outputs: Mapping[str, str]) -> str:
    """The name of the stack."""
    stacks = boto3.client("cloudformation").describe_stacks()["Stacks"]
    (found,) = [each for each in stacks if any(o["OutputValue"] == outputs["JobName"] for o in each["Outputs"])]
    return str(found["StackName"])


@pytest.fixture(autouse=True)
def _quiet_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_CLI_TELEMETRY", "0")
    monkeypatch.setenv("SAM_CLI_CHECK_VERSION", "0")


def sam(*arguments: str) -> str:
    ended = subprocess.run([SAM, *arguments], capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, f"sam {' '.join(arguments)}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def remote_invoke(stack: str, resource: str, *arguments: str) -> Any:
    said = sam("remote", "invoke", "--stack-name", stack, resource, "--output", "json", *arguments)
    return json.loads(said)


def test_a_function_is_invoked(stack: str) -> None:
    answer = remote_invoke(stack, "TransformFunction", "--event-file", str(EVENT))
    assert answer["StatusCode"] == 200
    assert json.loads(answer["Payload"])["records"]


def test_the_log_of_an_invocation_has_the_platforms_lines(stack: str) -> None:
    # What `sam remote invoke` shows of it is LogResult, the last 4 KB of the invocation's log.
    ended = subprocess.run(
        [SAM, "remote", "invoke", "--stack-name", stack, "TransformFunction", "--event-file", str(EVENT)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert "REPORT RequestId: " in ended.stderr
    assert "Billed Duration: " in ended.stderr


def test_a_record_is_put_on_a_stream(stack: str) -> None:
    put = remote_invoke(stack, "TemperatureStream", "--event", '{"device_id":"sam","temperature":1,"timestamp":1}')
    assert put["ShardId"].startswith("shardId-")


def test_a_message_is_sent_to_a_queue(stack: str, outputs: Mapping[str, str]) -> None:
    sent = remote_invoke(stack, "TriggerDeadLetterQueue", "--event", "hello of sam")
    queue = boto3.client("sqs")
    url = outputs["TriggerDeadLetterQueueUrl"]
    messages = queue.receive_message(QueueUrl=url, WaitTimeSeconds=5, MaxNumberOfMessages=10)["Messages"]
    for message in messages:
        queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert (sent["MessageId"], "hello of sam") in {(message["MessageId"], message["Body"]) for message in messages}


def test_an_execution_is_started_and_followed(stack: str) -> None:
    ended = remote_invoke(stack, "PipelineStateMachine", "--event", "{}")
    assert ended["status"] == "SUCCEEDED"
    assert ended["executionArn"]


def test_logs_are_shown_for_one_function_and_for_the_whole_stack(stack: str) -> None:
    # GIVEN
    remote_invoke(stack, "TransformFunction", "--event-file", str(EVENT))

    # WHEN / THEN
    assert "START RequestId: " in sam("logs", "--stack-name", stack, "--name", "TransformFunction")
    assert "START RequestId: " in sam("logs", "--stack-name", stack)


def test_logs_are_followed(stack: str, outputs: Mapping[str, str]) -> None:
    # GIVEN a terminal that follows the log
    with subprocess.Popen(
        [SAM, "logs", "--stack-name", stack, "--name", "TransformFunction", "--tail"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as tail:
        assert tail.stdout is not None
        lines: Queue[str] = Queue()
        threading.Thread(target=_pass_on, args=(tail.stdout, lines), daemon=True).start()
        try:
            # WHEN the function is invoked, again and again until the terminal has it: it may just be starting
            functions = boto3.client("lambda")
            invoked: set[str] = set()
            seen: list[str] = []
            while not _shows(seen, invoked) and len(invoked) < MOST_INVOCATIONS:
                answer = functions.invoke(
                    FunctionName=outputs["TransformFunctionName"], Payload=EVENT.read_bytes(), LogType="Tail"
                )
                # The last line of the log, which is at most 4 KB here, names the invocation.
                report = base64.b64decode(answer["LogResult"]).decode().splitlines()[-1]
                invoked.add(report.removeprefix("REPORT RequestId: ").split()[0])
                seen += _taken(lines)

            # THEN
            assert _shows(seen, invoked), seen
        finally:
            tail.kill()


def _shows(lines: list[str], request_ids: set[str]) -> bool:
    return any(f"START RequestId: {request_id}" in line for line in lines for request_id in request_ids)


def _pass_on(output: IO[str], lines: "Queue[str]") -> None:
    for line in output:
        lines.put(line)


def _taken(lines: "Queue[str]", seconds: float = 2.0) -> list[str]:
    taken = []
    try:
        while True:
            taken.append(lines.get(timeout=seconds))
    except Empty:
        return taken
