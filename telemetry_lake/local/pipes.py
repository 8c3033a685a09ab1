"""EventBridge Pipes from an SQS queue to a Step Functions state machine, with a batching window.

MiniStack keeps the pipes and their API (and serves DynamoDB streams by itself); what is added here is the complete
request of a pipe, and a poller that acts for the pipe's role: receive, hold the window, apply the input template,
start an execution, delete the messages.

Known deviations from AWS:

* One batch of a pipe is gathered at a time, and up to five are on their way to the target meanwhile. AWS reads up to
  five at once and more under load, so that a burst may be cut into more, smaller executions there; how its readers
  share a window is not documented.
* Of a FIFO queue one batch at a time is on its way, whatever groups its messages are of; AWS says so of each group.
* Long polls take two seconds instead of 20, so that a stop is quick; "might wait for up to 20 seconds" when the traffic
  is low does not happen.
* The only source that is polled here is SQS, its only target Step Functions with ``InvocationType: FIRE_AND_FORGET``.
  Enrichment, filters and other targets of an SQS source are refused when the pipe is created, with a message that says
  so. ``LogConfiguration`` and ``KmsKeyIdentifier`` are kept and described, without effect.
* A pipe whose target keeps answering 4xx backs off, up to a minute between batches; AWS may disable it in the end.
* A path of the input template that leads nowhere becomes an empty string inside quotes and ``null`` outside of them;
  AWS does not document it.
* Metrics are given per batch instead of per minute.
* On a graceful stop the messages of an open window become visible in the queue again at once, instead of after their
  visibility timeout.
"""

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint, TrustError

SERVICE_PRINCIPAL = "pipes.amazonaws.com"
RESOURCE_TYPE = "AWS::Pipes::Pipe"
SESSION_NAME = "EventBridgePipes"
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-monitoring.html
METRIC_NAMESPACE = "AWS/EventBridge/Pipes"

# What a state machine takes as the payload of a batch
# (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-batching-concurrency.html).
PAYLOAD_CHARACTERS = 262_144
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
MESSAGES_PER_CALL = 10
LONG_POLL_SECONDS = 2
TARGET_ATTEMPTS = 3
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-sqs.html#pipes-sqs-scaling
PARALLEL_BATCHES = 5
LONGEST_PAUSE_SECONDS = 60.0
ACTIVATION_SECONDS = 60.0

# What a pipe is made of beside what MiniStack keeps
# (https://docs.aws.amazon.com/eventbridge/latest/pipes-reference/API_CreatePipe.html).
KEPT_TOO = (
    "SourceParameters",
    "TargetParameters",
    "Enrichment",
    "EnrichmentParameters",
    "LogConfiguration",
    "KmsKeyIdentifier",
)

logger = logging.getLogger("telemetry_lake.local.pipes")

Response = tuple[int, dict[str, str], bytes]


class PipeError(ValueError):
    """A pipe asks for something that AWS refuses, or that this endpoint does not model."""


class TemplateError(ValueError):
    """An input template does not make valid JSON of a message."""


# --- settings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PipeSettings:
    """What the poller needs to know of a pipe from SQS to Step Functions."""

    name: str
    arn: str
    role_arn: str
    source_arn: str
    target_arn: str
    batch_size: int
    window_seconds: float
    input_template: str | None

    @property
    def queue_url_parts(self) -> tuple[str, str]:
        """The account and the name of the queue."""
        *_, account, name = self.source_arn.split(":")
        return account, name

    @property
    def parallel_batches(self) -> int:
        """How many batches may be under way at once."""
        return 1 if self.source_arn.endswith(".fifo") else PARALLEL_BATCHES


def _service(arn: str) -> str:
    parts = arn.split(":")
    return parts[2] if len(parts) > 2 else ""  # noqa: PLR2004


def _whole_number(value: Any, name: str, low: int, high: int) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise PipeError(f"{name} has to be a whole number, not {value!r}") from None
    if not low <= number <= high:
        raise PipeError(f"{name} has to be between {low} and {high}, not {number}")
    return number


def pipe_settings(pipe: Mapping[str, Any]) -> PipeSettings:
    """Read a pipe from SQS to Step Functions, with AWS's defaults and limits.

    BatchSize 1-10000, by default 10; MaximumBatchingWindowInSeconds 0-300, by default 0
    (https://docs.aws.amazon.com/eventbridge/latest/pipes-reference/API_PipeSourceSqsQueueParameters.html,
    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-sqs.html).

    Raises:
        PipeError: a value is out of its limits, or something is not modelled.
    """
    source = (pipe.get("SourceParameters") or {}).get("SqsQueueParameters") or {}
    target = pipe.get("TargetParameters") or {}
    if pipe.get("Enrichment"):
        raise PipeError("The embedded endpoint does not model Enrichment of a pipe")
    if ((pipe.get("SourceParameters") or {}).get("FilterCriteria") or {}).get("Filters"):
        raise PipeError("The embedded endpoint does not model FilterCriteria of a pipe")
    if _service(pipe["Target"]) != "states":
        raise PipeError(f"The embedded endpoint models Step Functions as target of an SQS queue, not {pipe['Target']}")
    invocation = (target.get("StepFunctionStateMachineParameters") or {}).get("InvocationType", "REQUEST_RESPONSE")
    if invocation != "FIRE_AND_FORGET":
        # A standard workflow cannot be invoked synchronously, the default: AWS stops such a pipe
        # (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-error-troubleshooting.html).
        raise PipeError("InvocationType of the state machine has to be FIRE_AND_FORGET")
    return PipeSettings(
        name=pipe["Name"],
        arn=pipe["Arn"],
        role_arn=pipe["RoleArn"],
        source_arn=pipe["Source"],
        target_arn=pipe["Target"],
        batch_size=_whole_number(source.get("BatchSize", 10), "BatchSize", 1, 10_000),
        window_seconds=_whole_number(
            source.get("MaximumBatchingWindowInSeconds", 0), "MaximumBatchingWindowInSeconds", 0, 300
        ),
        input_template=target.get("InputTemplate"),
    )


def merged_parameters(old: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the parameters of an update into those of the pipe: what is not named stays.

    Each service's object, for example ``SqsQueueParameters``, is replaced as a whole
    (https://docs.aws.amazon.com/eventbridge/latest/pipes-reference/API_UpdatePipe.html).
    """
    return {**old, **update}


# --- the input template ---------------------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r"<(\$[^<>]*|aws\.pipes\.[a-z.-]+)>")
_STEP = re.compile(r"\.([A-Za-z0-9_/-]+|\*)|\[(\d+|\*)\]|\['([^']*)'\]")
_MISSING = object()


def _look_up(path: str, document: Any) -> Any:
    """Follow a JSON path of the supported syntax: dots, dashes, underscores, indices, wildcards.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-input-transformation.html
    """
    position = len("$")
    values, wildcard = [document], False
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            raise TemplateError(f"The path {path!r} is not of a syntax that Pipes supports")
        position = step.end()
        name, index, quoted = step.groups()
        found: list[Any] = []
        for value in values:
            if "*" in (name, index):
                wildcard = True
                found += list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
            elif index is not None:
                found += value[int(index) : int(index) + 1] if isinstance(value, list) else []
            else:
                key = name if name is not None else quoted
                found += [value[key]] if isinstance(value, dict) and key in value else []
        values = found
    if wildcard:
        return values
    return values[0] if values else _MISSING


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _inside_quotes(value: Any) -> str:
    """Make the text of ``value`` for a place inside a JSON string.

    The quotes of an object's own JSON are removed, as AWS documents it
    (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-input-transformation.html#input-transform-implicit).
    """
    if value is _MISSING:
        return ""
    if isinstance(value, str):
        return _compact(value)[1:-1]
    return _compact(value).replace('"', "").replace("\\", "\\\\")


def _with_parsed_body(event: Mapping[str, Any]) -> dict[str, Any]:
    """Replace ``body`` by what its JSON says, if it is JSON (implicit body data parsing)."""
    try:
        return {**event, "body": json.loads(event["body"])}
    except ValueError:
        return dict(event)


def render_input(template: str, event: Mapping[str, Any], variables: Mapping[str, Any]) -> str:
    """Apply an input template to one message and return the JSON text for the target.

    Placeholders are JSON paths into the event, whose ``body`` is parsed when it is JSON, and reserved variables
    (``aws.pipes.pipe-name``…). Outside of quotes a placeholder becomes JSON of its value, inside of them its text
    (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-input-transformation.html).

    Raises:
        TemplateError: a path is not supported, or a template that is not free text makes no valid JSON.
    """
    document = _with_parsed_body(event)
    template = template.strip()
    free_text = not template.startswith(("{", "[", '"')) and _PLACEHOLDER.fullmatch(template) is None
    parts = []
    position = 0
    quoted = free_text
    for placeholder in _PLACEHOLDER.finditer(template):
        literal = template[position : placeholder.start()]
        if free_text:
            literal = _compact(literal)[1:-1]
        else:
            quoted ^= len(re.findall(r'(?<!\\)(?:\\\\)*"', literal)) % 2 == 1
        value = _value(placeholder.group(1), event, document, variables)
        parts += [literal, _inside_quotes(value) if quoted else _compact(None if value is _MISSING else value)]
        position = placeholder.end()
    if free_text:
        return f'"{"".join(parts)}{_compact(template[position:])[1:-1]}"'
    rendered = "".join((*parts, template[position:]))
    try:
        json.loads(rendered)
    except ValueError:
        raise TemplateError(f"The input template makes no valid JSON: {rendered[:200]}") from None
    return rendered


def _value(name: str, event: Mapping[str, Any], document: Mapping[str, Any], variables: Mapping[str, Any]) -> Any:
    if name.startswith("$"):
        return _look_up(name, document)
    if name == "aws.pipes.event":
        return dict(event)
    if name == "aws.pipes.event.json":
        return document
    return variables.get(name, _MISSING)


def sqs_event(message: Mapping[str, Any], queue_arn: str, region: str) -> dict[str, Any]:
    """Make the event of one message (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-sqs.html)."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes") or {}),
        "messageAttributes": {
            name: {
                "stringValue": value.get("StringValue"),
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": value["DataType"],
            }
            for name, value in (message.get("MessageAttributes") or {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": region,
    }


@dataclass
class Batch:
    """Messages of one window. The payload is always an array, even for one message.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-batching-concurrency.html
    """

    size_limit: int
    opened_at: float
    window_seconds: float
    receipts: list[tuple[str, str]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    characters: int = len("[]")

    @property
    def payload(self) -> str:
        """The target's input."""
        return f"[{','.join(self.inputs)}]"

    def has_room_for(self, rendered: str) -> bool:
        """Say whether one more input keeps the payload within what Step Functions takes."""
        return not self.inputs or self.characters + len(rendered) + len(",") <= PAYLOAD_CHARACTERS

    def add(self, message_id: str, receipt_handle: str, rendered: str) -> None:
        """Put a message in."""
        self.receipts.append((message_id, receipt_handle))
        self.inputs.append(rendered)
        self.characters += len(rendered) + len(",")

    def wants_more(self, now: float) -> bool:
        """Say whether the window is open still: neither full nor expired (``now`` in seconds)."""
        return len(self.inputs) < self.size_limit and now < self.opened_at + self.window_seconds


# --- a pipe at work -------------------------------------------------------------------------------------------------


class Poller:
    """Moves messages for one pipe for as long as it wants to run: one thread gathers batches, others deliver them."""

    def __init__(self, endpoint: Endpoint, pipes: Mapping[str, Any], pipe: dict[str, Any]) -> None:
        self._endpoint = endpoint
        self._pipes = pipes
        self._pipe = pipe
        # Received already, but the batch before them was full; they are hidden in the queue meanwhile.
        self._left_over: list[tuple[Mapping[str, Any], str]] = []
        self._failures = 0
        self._failures_lock = threading.Lock()
        self._superseded = threading.Event()
        self._changed = threading.Event()

    def read_anew(self) -> None:
        """Hand the open batch over and go on with the pipe as it is then."""
        self._changed.set()

    def supersede(self) -> None:
        """End: another poller works for the pipe from now on."""
        self._superseded.set()

    def run(self, stopping: threading.Event) -> None:
        """Bring the pipe into the state it should have, and poll while that is RUNNING."""
        while not stopping.is_set() and self._wanted():
            self._changed.clear()
            try:
                settings = pipe_settings(self._pipe)
                client = self._client("sqs", settings)
                url = self._queue_url(settings)
                client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
            except (ClientError, BotoCoreError, TrustError, PipeError) as problem:
                self._fail_to_start(problem)
                return
            self._set_state("RUNNING", "")
            self._poll(settings, url, stopping)

    def _wanted(self) -> bool:
        return (
            not self._superseded.is_set()
            and self._pipes.get(self._pipe["Name"]) is self._pipe
            and self._pipe["DesiredState"] == "RUNNING"
        )

    def _set_state(self, state: str, reason: str) -> None:
        if self._wanted():
            self._pipe["CurrentState"] = state
            self._pipe["StateReason"] = reason

    def _fail_to_start(self, problem: Exception) -> None:
        failed = {"CREATING": "CREATE_FAILED", "UPDATING": "UPDATE_FAILED"}.get(
            self._pipe["CurrentState"], "START_FAILED"
        )
        logger.warning("%s: %s: %s", self._pipe["Name"], failed, problem)
        # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-error-troubleshooting.html
        self._set_state(
            failed,
            "Pipes does not have required permissions to perform Queue operations (sqs:ReceiveMessage, "
            f"sqs:DeleteMessage and sqs:GetQueueAttributes): {problem}",
        )

    def _client(self, service: str, settings: PipeSettings) -> Any:
        return self._endpoint.client(
            service, settings.role_arn, SESSION_NAME, service_principal=SERVICE_PRINCIPAL, source_arn=settings.arn
        )

    def _queue_url(self, settings: PipeSettings) -> str:
        account, name = settings.queue_url_parts
        return f"{self._endpoint.settings.base_url}/{account}/{name}"

    def _metric(self, name: str, value: float, unit: str) -> None:
        self._endpoint.put_metric(METRIC_NAMESPACE, name, value, unit, {"PipeName": self._pipe["Name"]})

    def _poll(self, settings: PipeSettings, url: str, stopping: threading.Event) -> None:
        """Move batches until the pipe stops or changes; updated pipes start over with new settings.

        A batch is delivered while the next one is gathered. Once as many are under way as may be, no more is received.
        """
        places = threading.Semaphore(settings.parallel_batches)
        with ThreadPoolExecutor(settings.parallel_batches, f"pipe-{settings.name}") as deliveries:
            while not stopping.is_set() and self._wanted() and not self._changed.is_set():
                places.acquire()
                batch = None
                try:
                    batch = self._gather(settings, url, stopping)
                except (ClientError, BotoCoreError, TrustError) as problem:
                    if not stopping.is_set():
                        logger.warning("%s: the queue could not be polled: %s", settings.name, problem)
                    self._back_off(stopping)
                if batch is None:
                    places.release()
                else:
                    delivery = deliveries.submit(self._deliver, settings, url, batch, stopping)
                    delivery.add_done_callback(lambda _delivery: places.release())
        if stopping.is_set():
            self._release(url, [(message["MessageId"], message["ReceiptHandle"]) for message, _ in self._left_over])

    def _deliver(self, settings: PipeSettings, url: str, batch: Batch, stopping: threading.Event) -> None:
        """Hand a batch over. One that fails keeps its place for a while, so that less is received."""
        try:
            handed_over = self._hand_over(settings, url, batch)
        except Exception:
            logger.exception("%s: %d messages not handed over", settings.name, len(batch.inputs))
            handed_over = False
        if handed_over:
            self._failures = 0
        else:
            self._back_off(stopping)

    def _back_off(self, stopping: threading.Event) -> None:
        """Pause for a time that grows with failures in a row: polling throughput gradually backs off.

        https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-error-troubleshooting.html
        """
        with self._failures_lock:
            pause_seconds = min(LONGEST_PAUSE_SECONDS, 2.0 ** min(self._failures, 10))
            self._failures += 1
        stopping.wait(pause_seconds)

    def _receive(self, settings: PipeSettings, url: str, wait_seconds: float, at_most: int) -> None:
        answer = self._client("sqs", settings).receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=max(1, min(MESSAGES_PER_CALL, at_most)),
            WaitTimeSeconds=max(0, min(LONG_POLL_SECONDS, int(wait_seconds))),
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        for message in answer.get("Messages", []):
            event = sqs_event(message, settings.source_arn, self._endpoint.settings.region)
            try:
                self._left_over.append((message, self._render(settings, event)))
            except TemplateError as problem:
                # The message stays in the queue and goes to its dead letters in the end.
                logger.warning("%s: message %s: %s", settings.name, message["MessageId"], problem)
                self._metric("ExecutionFailed", 1, "None")

    def _render(self, settings: PipeSettings, event: Mapping[str, Any]) -> str:
        if not settings.input_template:
            return _compact(event)
        variables = {
            "aws.pipes.pipe-arn": settings.arn,
            "aws.pipes.pipe-name": settings.name,
            "aws.pipes.source-arn": settings.source_arn,
            "aws.pipes.target-arn": settings.target_arn,
            "aws.pipes.event.ingestion-time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        return render_input(settings.input_template, event, variables)

    def _gather(self, settings: PipeSettings, url: str, stopping: threading.Event) -> Batch | None:
        """Wait for a first message; from then on fill a batch until it is full or its window has expired.

        https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-sqs.html
        """
        if not self._left_over:
            self._receive(settings, url, LONG_POLL_SECONDS, settings.batch_size)
        if not self._left_over:
            return None
        batch = Batch(settings.batch_size, time.monotonic(), settings.window_seconds)
        while True:
            while self._left_over and len(batch.inputs) < settings.batch_size:
                message, rendered = self._left_over[0]
                if not batch.has_room_for(rendered):
                    return batch
                del self._left_over[0]
                batch.add(message["MessageId"], message["ReceiptHandle"], rendered)
            now = time.monotonic()
            if self._wanted() and (self._changed.is_set() or not batch.wants_more(now)):
                return batch
            if stopping.is_set():
                self._release(url, batch.receipts)
                return None
            if not self._wanted():
                # Not handed over: the messages come back when their visibility timeout has passed.
                return None
            before = len(batch.inputs)
            left = batch.opened_at + batch.window_seconds - now
            self._receive(settings, url, left, settings.batch_size - before)
            if not self._left_over and left < 1:
                stopping.wait(min(0.2, left))

    def _release(self, url: str, receipts: Sequence[tuple[str, str]]) -> None:
        """Make messages visible again, as the account itself: the pipe's role needs no permission for it on AWS."""
        for message_id, receipt_handle in receipts:
            try:
                self._endpoint.client("sqs").change_message_visibility(
                    QueueUrl=url, ReceiptHandle=receipt_handle, VisibilityTimeout=0
                )
            except (ClientError, BotoCoreError) as problem:
                logger.warning("%s: message %s stays hidden: %s", self._pipe["Name"], message_id, problem)

    def _hand_over(self, settings: PipeSettings, url: str, batch: Batch) -> bool:
        """Start an execution with the batch and, only when that worked, delete its messages."""
        began = time.monotonic()
        self._metric("Invocations", 1, "None")
        self._metric("EventCount", len(batch.inputs), "None")
        self._metric("EventSize", len(batch.payload.encode()), "Bytes")
        started = self._start_execution(settings, batch)
        failed = 0 if started else 1
        for name in ("ExecutionFailed", "TargetStageFailed"):
            self._metric(name, failed, "None")
        if started:
            self._delete(settings, url, batch.receipts)
        self._metric("Duration", (time.monotonic() - began) * 1000, "Milliseconds")
        return started

    def _start_execution(self, settings: PipeSettings, batch: Batch) -> bool:
        """Start it, trying again what may be tried again: throttles and the target's own errors.

        https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-error-troubleshooting.html
        """
        for attempt in range(1, TARGET_ATTEMPTS + 1):
            try:
                execution = self._client("stepfunctions", settings).start_execution(
                    stateMachineArn=settings.target_arn, input=batch.payload
                )
            except (ClientError, BotoCoreError, TrustError) as problem:
                logger.warning("%s: %d messages not handed over: %s", settings.name, len(batch.inputs), problem)
                throttled = "Throttling" in str(problem) or "LimitExceeded" in str(problem)
                if throttled:
                    self._metric("ExecutionThrottled", 1, "None")
                client_error = isinstance(problem, ClientError) and (
                    problem.response["ResponseMetadata"]["HTTPStatusCode"] < 500  # noqa: PLR2004
                )
                if isinstance(problem, TrustError) or (client_error and not throttled) or attempt == TARGET_ATTEMPTS:
                    return False
                time.sleep(attempt)
            else:
                logger.info("%s: %d messages to %s", settings.name, len(batch.inputs), execution["executionArn"])
                return True
        return False

    def _delete(self, settings: PipeSettings, url: str, receipts: Sequence[tuple[str, str]]) -> None:
        client = self._client("sqs", settings)
        for message_id, receipt_handle in receipts:
            try:
                client.delete_message(QueueUrl=url, ReceiptHandle=receipt_handle)
            except ClientError as problem:
                # It comes back after its visibility timeout and is handed over again: at least once.
                logger.warning("%s: message %s was not deleted: %s", settings.name, message_id, problem)


# --- the API around it ----------------------------------------------------------------------------------------------


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Pipes:
    """The pipes, and the API operations that start, change and end their pollers."""

    def __init__(self, endpoint: Endpoint, service: Any) -> None:
        self._endpoint = endpoint
        self._service = service
        self._pipes = seams.require(service, "_pipes")
        self._original: dict[str, Callable[..., Any]] = {}
        self._pollers: dict[str, tuple[dict[str, Any], Poller, threading.Thread]] = {}
        self._lock = threading.Lock()

    def install(self) -> None:
        """Take over the operations; pipes of the last run start once the endpoint answers."""
        for name, replacement in (
            ("_create_pipe", self.create),
            ("_update_pipe", self.update),
            ("_set_state", self.set_state),
            ("_describe_response", self.describe),
        ):
            self._original[name] = seams.replace(self._service, name, replacement)
        self._endpoint.on_ready(self._resume)

    def _resume(self) -> None:
        with self._endpoint.scope():
            restored = list(self._pipes.values())
        for pipe in restored:
            if _service(pipe["Source"]) == "sqs" and pipe["DesiredState"] == "RUNNING":
                self._start(pipe, "STARTING", keep_poller=True)

    def _start(self, pipe: dict[str, Any], state: str, *, keep_poller: bool = False) -> None:
        """Let a poller work for the pipe, which is in ``state`` until the poller runs.

        With ``keep_poller`` one that works for the pipe already stays and reads the pipe anew: another one would not
        know the messages it has received.
        """
        with self._lock:
            known = self._pollers.get(pipe["Arn"])
            pipe["CurrentState"] = state
            if known is not None:
                known_pipe, known_poller, thread = known
                if keep_poller and known_pipe is pipe and thread.is_alive():
                    known_poller.read_anew()
                    return
                known_poller.supersede()
            poller = Poller(self._endpoint, self._pipes, pipe)
            thread = self._endpoint.start_worker(f"pipe-{pipe['Name']}", poller.run)
            self._pollers[pipe["Arn"]] = (pipe, poller, thread)

    def _answer(self, response: Response, pipe: Mapping[str, Any]) -> Response:
        """Give an operation's answer with the state that the pipe has now."""
        status, headers, body = response
        document = json.loads(body)
        document["CurrentState"] = pipe["CurrentState"]
        return status, headers, json.dumps(document).encode()

    def _refuse(self, message: str) -> Response:
        response: Response = seams.require(self._service, "_error")(400, "ValidationException", message)
        return response

    def create(self, name: str, request: dict[str, Any]) -> Response:
        """CreatePipe (https://docs.aws.amazon.com/eventbridge/latest/pipes-reference/API_CreatePipe.html)."""
        if _service(request.get("Source", "")) != "sqs":
            response: Response = self._original["_create_pipe"](name, request)
            return response
        try:
            pipe_settings({"Arn": "", "RoleArn": "", **request, "Name": name})
        except PipeError as problem:
            return self._refuse(str(problem))
        response = self._original["_create_pipe"](name, request)
        if response[0] < 400:  # noqa: PLR2004
            pipe = self._pipes[name]
            pipe |= {key: request[key] for key in KEPT_TOO if key in request}
            self._begin(pipe)
            return self._answer(response, pipe)
        return response

    def _begin(self, pipe: dict[str, Any]) -> None:
        if pipe["DesiredState"] == "RUNNING":
            self._start(pipe, "CREATING")

    def update(self, name: str, request: dict[str, Any]) -> Response:
        """UpdatePipe: what is not named stays as it is."""
        pipe = self._pipes.get(name)
        if pipe is None or _service(pipe["Source"]) != "sqs":
            response: Response = self._original["_update_pipe"](name, request)
            return response
        changed = {key: request[key] for key in KEPT_TOO if key in request}
        for key in ("SourceParameters", "TargetParameters"):
            if key in changed:
                changed[key] = merged_parameters(pipe.get(key) or {}, changed[key])
        try:
            pipe_settings({**pipe, **{key: value for key, value in request.items() if value}, **changed, "Name": name})
        except PipeError as problem:
            return self._refuse(str(problem))
        response = self._original["_update_pipe"](name, request)
        if response[0] >= 400:  # noqa: PLR2004
            return response
        pipe |= changed
        if pipe["DesiredState"] == "RUNNING":
            self._start(pipe, "UPDATING", keep_poller=True)
        return self._answer(response, pipe)

    def set_state(self, name: str, desired: str) -> Response:
        """StartPipe and StopPipe."""
        response: Response = self._original["_set_state"](name, desired)
        pipe = self._pipes.get(name)
        if pipe is None or _service(pipe["Source"]) != "sqs" or desired != "RUNNING":
            return response
        self._start(pipe, "STARTING")
        return self._answer(response, pipe)

    def describe(self, pipe: Mapping[str, Any]) -> dict[str, Any]:
        """Describe a pipe with the fields that MiniStack leaves out."""
        description: dict[str, Any] = self._original["_describe_response"](pipe)
        if not description["Tags"]:
            del description["Tags"]
        return {**description, **{key: pipe[key] for key in KEPT_TOO if key in pipe}}

    # CloudFormation

    def create_from_cloudformation(
        self, logical_id: str, properties: dict[str, Any], stack_name: str
    ) -> tuple[str, dict[str, Any]]:
        """Create the resource and wait until the pipe runs, as CloudFormation does.

        Raises:
            PipeError: the pipe is not modelled, or could not start.
        """
        if _service(properties.get("Source", "")) == "sqs":
            pipe_settings({"Name": "", "Arn": "", "RoleArn": "", **properties})
        created: tuple[str, dict[str, Any]] = self._original["cloudformation_create"](
            logical_id, properties, stack_name
        )
        pipe = self._pipes[created[0]]
        if _service(pipe["Source"]) == "sqs":
            pipe |= {key: properties[key] for key in KEPT_TOO if key in properties}
            self._begin(pipe)
            self._await_start(pipe)
        return created

    def update_from_cloudformation(
        self,
        physical_id: str,
        old: dict[str, Any],
        new: dict[str, Any],
        stack_name: str,
        logical_id: str | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """Update the resource; another name or source makes another pipe.

        Raises:
            PipeError: the pipe is not modelled, or could not start.
        """
        if _service(new.get("Source", "")) == "sqs":
            pipe_settings({"Name": "", "Arn": "", "RoleArn": "", **new})
        updated: tuple[str, dict[str, Any]] = self._original["cloudformation_update"](
            physical_id, old, new, stack_name, logical_id
        )
        pipe = self._pipes[updated[0]]
        if _service(pipe["Source"]) == "sqs":
            for key in KEPT_TOO:
                # A template is the whole truth: what it no longer names is gone.
                pipe.pop(key, None)
            pipe |= {key: new[key] for key in KEPT_TOO if key in new}
            if pipe["DesiredState"] == "RUNNING":
                self._start(pipe, "UPDATING" if updated[0] == physical_id else "CREATING", keep_poller=True)
                self._await_start(pipe)
        return updated

    def delete_from_cloudformation(self, physical_id: str, properties: dict[str, Any]) -> None:
        """Delete the resource; its poller notices and ends."""
        self._original["cloudformation_delete"](physical_id, properties)

    def _await_start(self, pipe: Mapping[str, Any]) -> None:
        deadline = time.monotonic() + ACTIVATION_SECONDS
        while pipe["CurrentState"] in ("CREATING", "UPDATING", "STARTING") and not _on_event_loop():
            if time.monotonic() > deadline:
                raise PipeError(f"The pipe {pipe['Name']} did not run within {ACTIVATION_SECONDS:g} s")
            self._endpoint.pause(0.05)
        if pipe["CurrentState"].endswith("_FAILED"):
            raise PipeError(f"{pipe['CurrentState']}: {pipe['StateReason']}")

    def install_cloudformation(self, provisioners: Any, stacks: Any) -> None:
        """Let CloudFormation keep the whole pipe and wait for it, off the server's event loop."""
        handlers = seams.require(provisioners, "_RESOURCE_HANDLERS")[RESOURCE_TYPE]
        for operation, replacement in (
            ("create", self.create_from_cloudformation),
            ("update", self.update_from_cloudformation),
            ("delete", self.delete_from_cloudformation),
        ):
            self._original[f"cloudformation_{operation}"] = handlers[operation]
            handlers[operation] = replacement
        # MiniStack's own create goes through here, once: the pipe it registers is completed above.
        runs_on_thread = seams.require(stacks, "_runs_on_worker_thread")
        seams.replace(
            stacks, "_runs_on_worker_thread", lambda kind: kind == RESOURCE_TYPE or bool(runs_on_thread(kind))
        )


def install(endpoint: Endpoint) -> None:
    """Put pollers behind MiniStack's pipes."""
    from ministack.services import pipes as service
    from ministack.services.cloudformation import provisioners, stacks

    pipes = Pipes(endpoint, service)
    pipes.install()
    pipes.install_cloudformation(provisioners, stacks)
