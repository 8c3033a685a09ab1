"""Each service acts with its role alone: without one grant it fails, says so, and nothing is lost meanwhile.

It is also the proof that the other end-to-end tests are not green because nobody looks at policies.
"""

import base64
import json
from pathlib import Path
from typing import Any

from telemetry_lake import journey
from telemetry_lake.commands.produce import Plan, send
from telemetry_lake.ledger import read_ledger
from telemetry_lake.pipeline import describe_execution, list_executions, list_objects, start_execution, ticks
from tests.stack import Lake, client, physical_id, without_grant

GOOD = 40
WAIT_SECONDS = 120.0


def send_good(lake: Lake, seed: int) -> int:
    """Send good readings; return how many records the ledger has now, good and bad."""
    ledger = lake.directory / "ledger.jsonl"
    send(lake.target, Plan(count=GOOD, bad=0, spread_hours=1, seed=seed, ledger=ledger), lake.reporter)
    return len(list(read_ledger(ledger)))


def counts(ledger: Path) -> tuple[int, int]:
    entries = list(read_ledger(ledger))
    bad = sum(entry.fault is not None for entry in entries)
    return len(entries) - bad, bad


def raw_keys(lake: Lake) -> set[str]:
    outputs = lake.target.outputs
    return {stored.key for stored in list_objects(lake.target.s3, outputs.raw_bucket_name, outputs.raw_prefix)}


def end_of_execution(lake: Lake) -> Any:
    """Start an execution and wait until it has ended."""
    arn = start_execution(lake.target, {})
    for _ in ticks(WAIT_SECONDS):
        execution = describe_execution(lake.target, arn)
        if execution.stopped is not None:
            return execution
    raise AssertionError("the execution did not end")


def test_a_transform_that_may_not_store_rejects_answers_processing_failed_for_them(lake: Lake) -> None:
    # GIVEN a bad record
    event = json.loads((Path(__file__).parents[2] / "events" / "transform" / "kinesis_source.json").read_text())
    bad = {**event["records"][0], "data": base64.b64encode(b"no reading").decode()}
    function = physical_id(lake, "TransformFunction")

    # WHEN the function may not write to the DLQ
    with without_grant(lake, "TransformRole", "s3:PutObject"):
        answer = client(lake, "lambda").invoke(
            FunctionName=function, Payload=json.dumps({**event, "records": [bad]}).encode()
        )

    # THEN Firehose is told to keep the record
    (record,) = json.loads(answer["Payload"].read())["records"]
    assert record["result"] == "ProcessingFailed"


def test_firehose_that_may_not_write_delivers_once_it_may_again(lake: Lake) -> None:
    # GIVEN readings that arrive while the grant is missing
    before = raw_keys(lake)
    groups = client(lake, "logs")
    group = physical_id(lake, "DeliveryLogGroup")
    with without_grant(lake, "DeliveryRole", "s3:PutObject"):
        send_good(lake, seed=901)

        # WHEN Firehose tries to deliver, THEN its log says why it cannot
        for _ in ticks(WAIT_SECONDS):
            events = groups.filter_log_events(logGroupName=group)["events"]
            if any("AccessDenied" in each["message"] for each in events):
                break
        else:
            raise AssertionError(f"no error in {group}")
        assert raw_keys(lake) == before

    # AND all of them are there afterwards
    good, bad = counts(lake.directory / "ledger.jsonl")
    landing = journey.wait_for_landing(lake.target, good, bad, lake.reporter)
    assert landing.raw_lines == good


def test_a_pipe_that_may_not_start_the_machine_keeps_the_message(lake: Lake) -> None:
    # GIVEN a pipe that may read its queue and start nothing
    with without_grant(lake, "TriggerPipeRole", "states:StartExecution"):
        known = {execution.arn for execution in list_executions(lake.target)}
        keys = raw_keys(lake)
        send_good(lake, seed=902)
        good, bad = counts(lake.directory / "ledger.jsonl")
        journey.wait_for_landing(lake.target, good, bad, lake.reporter)
        new_keys = raw_keys(lake) - keys

        # WHEN it has received the message, THEN no execution is started
        queue = lake.target.outputs.trigger_queue_url or ""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        for _ in ticks(WAIT_SECONDS):
            found = lake.target.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]  # type: ignore[arg-type]
            if int(found["ApproximateNumberOfMessagesNotVisible"]) > 0:
                break
        else:
            raise AssertionError("the pipe did not receive the message")
        started = [each for each in list_executions(lake.target) if each.arn not in known]
        assert not [each for each in started if set(each.object_keys) & new_keys]

    # AND the message is still there: it is either in the queue or has started an execution by now
    found = lake.target.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]  # type: ignore[arg-type]
    started = [each for each in list_executions(lake.target) if set(each.object_keys) & new_keys]
    assert started or sum(map(int, found.values())) > 0

    # AND the schedule's kind of run reads the objects all the same
    assert journey.run_once_more(lake.target, lake.reporter).status == "SUCCEEDED"
    assert journey.read_table(lake.target, lake.reporter).rows == good


def test_a_machine_that_may_not_look_at_job_runs_fails_there(lake: Lake) -> None:
    with without_grant(lake, "PipelineRole", "glue:GetJobRuns"):
        execution = end_of_execution(lake)
    assert execution.status == "FAILED"
    assert "AccessDenied" in execution.error + execution.cause


def test_a_job_that_may_not_stage_fails_and_the_next_run_completes(lake: Lake) -> None:
    # GIVEN new readings and a job that may not write
    send_good(lake, seed=903)
    good, bad = counts(lake.directory / "ledger.jsonl")
    with without_grant(lake, "EtlRole", "s3:PutObject"):
        journey.wait_for_landing(lake.target, good, bad, lake.reporter)
        execution = end_of_execution(lake)
    assert execution.status == "FAILED"

    # WHEN the grant is back, THEN the next execution stores them
    assert journey.run_once_more(lake.target, lake.reporter).status == "SUCCEEDED"
    table = journey.read_table(lake.target, lake.reporter)
    assert (table.rows, table.distinct_readings) == (good, good)
