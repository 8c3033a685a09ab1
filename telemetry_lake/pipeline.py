"""What the pipeline has done so far, read from the services that did it: objects, executions, run summaries."""

import gzip
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from telemetry_lake.console import OperatorError, Step
from telemetry_lake.target import Target

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

POLL_SECONDS = 0.5
READERS = 8
RUNNING: Final = "RUNNING"
SUCCEEDED: Final = "SUCCEEDED"
EXECUTION_SECONDS = 86_400.0
"""The state machine's own time limit."""


@dataclass(frozen=True)
class StoredObject:
    """An object of S3: its size in bytes, its entity tag, and when it was written."""

    key: str
    size_bytes: int
    etag: str
    last_modified: datetime


@dataclass(frozen=True)
class Execution:
    """One run of the state machine, and what started it."""

    arn: str
    name: str
    status: str
    trigger: str
    object_keys: tuple[str, ...]
    started: datetime
    stopped: datetime | None
    error: str
    cause: str
    output: str

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return ((self.stopped or datetime.now(UTC)) - self.started).total_seconds()


def list_objects(s3: "S3Client", bucket: str, prefix: str) -> list[StoredObject]:
    """Return the objects under ``prefix``, in the order of their keys."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [
        StoredObject(entry["Key"], entry["Size"], entry["ETag"], entry["LastModified"])
        for page in pages
        for entry in page.get("Contents", [])
    ]


def read_lines(s3: "S3Client", bucket: str, objects: Sequence[StoredObject]) -> list[list[bytes]]:
    """Return the lines of each gzipped object, in the order of the objects."""

    def read(stored: StoredObject) -> list[bytes]:
        body = s3.get_object(Bucket=bucket, Key=stored.key)["Body"].read()
        # The line feed alone ends a line: splitlines would also cut at a carriage return inside one.
        return [line for line in gzip.decompress(body).split(b"\n") if line]

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(read, objects))


class LineCounter:
    """Counts the lines of objects that become more, reading each object once."""

    def __init__(self, s3: "S3Client", bucket: str, prefix: str) -> None:
        """Count the lines of the gzipped objects under ``prefix``."""
        self._s3 = s3
        self._bucket = bucket
        self._prefix = prefix
        self.lines_by_key: dict[str, list[bytes]] = {}
        self.objects: list[StoredObject] = []

    def refresh(self) -> int:
        """Look for new objects and return the number of lines in all of them."""
        self.objects = list_objects(self._s3, self._bucket, self._prefix)
        new = [stored for stored in self.objects if stored.key not in self.lines_by_key]
        for stored, lines in zip(new, read_lines(self._s3, self._bucket, new), strict=True):
            self.lines_by_key[stored.key] = lines
        return sum(map(len, self.lines_by_key.values()))

    @property
    def content_bytes(self) -> int:
        """The bytes of all lines, each with its line feed."""
        return sum(len(line) + 1 for lines in self.lines_by_key.values() for line in lines)

    def rejects(self) -> dict[str, dict[str, Any]]:
        """Return the lines as rejects by ``reject_id``: the same one may be on several lines."""
        lines = (json.loads(line) for lines in self.lines_by_key.values() for line in lines)
        return {line["reject_id"]: line for line in lines}


def list_executions(target: Target, newest: int | None = None) -> list[Execution]:
    """Return the state machine's executions, the newest first."""
    found: list[Execution] = []
    pages = target.stepfunctions.get_paginator("list_executions").paginate(
        stateMachineArn=target.outputs.state_machine_arn, PaginationConfig={"MaxItems": newest} if newest else {}
    )
    for page in pages:
        found.extend(describe_execution(target, entry["executionArn"]) for entry in page["executions"])
    return sorted(found, key=lambda execution: execution.started, reverse=True)


def describe_execution(target: Target, arn: str) -> Execution:
    """Return one execution."""
    description = target.stepfunctions.describe_execution(executionArn=arn)
    trigger, keys = trigger_of(description.get("input", "{}"))
    return Execution(
        arn=arn,
        name=description["name"],
        status=description["status"],
        trigger=trigger,
        object_keys=keys,
        started=description["startDate"],
        stopped=description.get("stopDate"),
        error=description.get("error", ""),
        cause=description.get("cause", ""),
        output=description.get("output", ""),
    )


def trigger_of(execution_input: str) -> tuple[str, tuple[str, ...]]:
    """Return what started an execution, from its input, and the object keys that the pipe named."""
    value = json.loads(execution_input or "{}")
    if isinstance(value, list):
        return "pipe", tuple(str(entry.get("key", "")) for entry in value if isinstance(entry, dict))
    if isinstance(value, dict) and value.get("trigger") == "schedule":
        return "schedule", ()
    if isinstance(value, dict) and value.get("mode") in {"audit", "check"}:
        return str(value["mode"]), ()
    return "hand", ()


def current_state(target: Target, execution_arn: str) -> str:
    """Return the name of the state that an execution is in."""
    history = target.stepfunctions.get_execution_history(executionArn=execution_arn, reverseOrder=True, maxResults=20)
    for event in history["events"]:
        details = event.get("stateEnteredEventDetails")
        if details is not None:
            return details["name"]
    return ""


def start_execution(target: Target, execution_input: Any) -> str:
    """Start the state machine by hand and return the execution's ARN."""
    return target.stepfunctions.start_execution(
        stateMachineArn=target.outputs.state_machine_arn, input=json.dumps(execution_input)
    )["executionArn"]


def follow_execution(target: Target, arn: str, step: Step, seconds: float) -> Execution:
    """Wait for the end of an execution and show the states that it is in.

    Raises:
        OperatorError: it failed, or is not done within ``seconds``.
    """
    for _ in ticks(seconds, 1.0):
        execution = describe_execution(target, arn)
        if execution.status != RUNNING:
            assert_none_failed([execution])
            step.update(note=execution.status.lower())
            return execution
        step.update(note=current_state(target, arn))
    raise OperatorError(f"The execution {arn} is still running after {seconds:.0f} s.", "tlake status shows its state.")


def assert_none_failed(executions: Iterable[Execution]) -> None:
    """Stop at the first execution that did not succeed.

    Raises:
        OperatorError: with its error and its cause.
    """
    for execution in executions:
        if execution.status not in (RUNNING, SUCCEEDED):
            outcome = f"{execution.status.lower()}: {execution.error} {cause_text(execution.cause)}"
            raise OperatorError(
                f"The execution {execution.name} {outcome.strip()}",
                f"Its history: aws stepfunctions get-execution-history --execution-arn {execution.arn}",
            )


def cause_text(cause: str) -> str:
    """Return an execution's cause for a person: of a failed function or job the message, without its stack trace.

    A failed function's cause is its error as JSON
    (https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html), a failed job's the job run as JSON.
    """
    try:
        details = json.loads(cause)
    except ValueError:
        return cause
    if not isinstance(details, dict):
        return cause
    return str(details.get("errorMessage") or details.get("ErrorMessage") or cause)


def read_summaries(
    target: Target, known_keys: Collection[str] = (), since: datetime | None = None
) -> list[dict[str, Any]]:
    """Return the run summaries that are there, the earliest run first.

    Args:
        target: where the stack is.
        known_keys: summaries to leave out.
        since: leave out those that were written earlier; None for none.
    """
    outputs = target.outputs
    objects = list_objects(target.s3, outputs.analytics_bucket_name, outputs.summaries_prefix)
    summaries = [
        _read_summary(target, stored.key)
        for stored in objects
        if stored.key not in known_keys and (since is None or stored.last_modified >= since)
    ]
    return sorted(summaries, key=lambda summary: summary["started_at"])


def newest_summary(target: Target) -> dict[str, Any] | None:
    """Return the summary that was written last, None before the first run; the others are not read."""
    outputs = target.outputs
    objects = list_objects(target.s3, outputs.analytics_bucket_name, outputs.summaries_prefix)
    if not objects:
        return None
    return _read_summary(target, max(objects, key=lambda stored: stored.last_modified).key)


def summary_of_run(target: Target, job_run_id: str) -> dict[str, Any]:
    """Return what one run of the job says of itself."""
    return _read_summary(target, f"{target.outputs.summaries_prefix}{job_run_id}.json")


def _read_summary(target: Target, key: str) -> dict[str, Any]:
    body = target.s3.get_object(Bucket=target.outputs.analytics_bucket_name, Key=key)["Body"].read()
    summary: dict[str, Any] = json.loads(body)
    return summary


def partition_values(target: Target) -> list[tuple[str, ...]]:
    """Return the partitions of the table that the catalog has, in order."""
    pages = target.glue.get_paginator("get_partitions").paginate(
        DatabaseName=target.outputs.database_name, TableName=target.outputs.table_name
    )
    values = [tuple(partition["Values"]) for page in pages for partition in page["Partitions"]]
    return sorted(values, key=lambda value: tuple(int(part) if part.isdecimal() else 0 for part in value))


def partition_text(values: Sequence[str]) -> str:
    """Return a partition as a date, ``2025-10-05`` for ``("2025", "10", "5")``."""
    return "-".join(value.zfill(2) for value in values)


def queue_depth(target: Target, queue_url: str) -> int:
    """Return how many messages a queue holds, those at work with somebody included."""
    attributes = target.sqs.get_queue_attributes(
        QueueUrl=queue_url, AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    )["Attributes"]
    return sum(int(value) for value in attributes.values())


def recent_raw_prefixes(raw_prefix: str, now: datetime, days: int = 2) -> list[str]:
    """Return the prefixes of the last arrival days, UTC as Firehose writes them, newest first.

    https://docs.aws.amazon.com/firehose/latest/dev/s3-object-name.html
    """
    return [f"{raw_prefix}{now - timedelta(days=age):%Y/%m/%d}/" for age in range(days)]


def until(condition: Callable[[], bool], seconds: float, what: str, next_step: str = "") -> None:
    """Ask until ``condition`` holds.

    Raises:
        OperatorError: it does not hold within ``seconds``.
    """
    for _ in ticks(seconds):
        if condition():
            return
    raise OperatorError(f"Still waiting after {seconds:.0f} s: {what}.", next_step)


def ticks(seconds: float, interval_seconds: float = POLL_SECONDS) -> Iterator[None]:
    """Yield at once and then every ``interval_seconds`` until ``seconds`` are over."""
    deadline = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() >= deadline:
            return
        time.sleep(interval_seconds)
