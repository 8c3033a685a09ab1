"""What AWS acknowledges, it keeps: state that is on disk before the answer to a request leaves the endpoint.

MiniStack writes objects of S3 at once (``object_files`` says how) and the state of its services on a graceful stop.
Here a service's state is written after every request that changes it, before its answer, and what the services do by
themselves (an execution that goes on, a message that an event puts into a queue) is written before anybody is told of
it: every answer waits for what is not yet written. So a killed endpoint comes back with all that it has ever told.

A state is written whole, into a new file that then replaces the old one. Requests that come while one is being written
share the next writing.

Known deviations from AWS:

* What was acknowledged survives the end of the process, not of the machine: nothing is forced onto the disk.
* Metrics and log events are written every thirty seconds: a kill loses those of the last ones. Metrics are also
  written with every change of an alarm, with which they share a file.
* That a message was received is not written at once: after a kill it may be visible again too early.
* Parts of an upload to S3 that was not completed are lost when the endpoint ends, also gracefully.
* A stack whose operation the endpoint did not survive has failed; nothing is rolled back.
"""

import asyncio
import copy
import hashlib
import importlib
import json
import logging
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from telemetry_lake.local import object_events, seams
from telemetry_lake.local.endpoint import Endpoint

Answer = tuple[Any, ...]
Handler = Callable[[str, str, Mapping[str, str], bytes, Any], Awaitable[Answer]]

# Writing what nobody waits for.
PAUSE_SECONDS = 0.5
BULK_SECONDS = 30.0
STACK_OPERATION_SECONDS = 2.0
EVENT_SECONDS = 10.0
INTERNAL_ERROR = 500
ATTEMPTS = 50

_READS = re.compile(
    r"(BatchGet|Describe|Detect|Estimate|Get|Head|List|Lookup|Poll|Preview|Search|Simulate|Test|Validate)"
)
# Their records are in files of their own, or are written every half a minute.
_DATA_OPERATIONS = frozenset(
    {"PutLogEvents", "PutMetricData", "PutRecord", "PutRecordBatch", "PutRecords", "ReceiveMessage"}
)
# Their get_state makes nothing but copies.
ONLY_COPY = ("cloudformation", "cloudwatch", "cloudwatch_logs", "eventbridge", "glue", "iam", "kinesis", "sns", "sqs")
_ACTION = re.compile(rb"(?:^|&)Action=(\w+)")
_INTERRUPTED = "The endpoint ended during the operation"

logger = logging.getLogger("telemetry_lake.local.durability")


def operation_name(method: str, headers: Mapping[str, str], body: bytes) -> str:
    """Return the operation that a request asks for, or the HTTP method where the path is what names it.

    >>> operation_name("POST", {"x-amz-target": "AmazonSQS.SendMessage"}, b"")
    'SendMessage'
    """
    target = headers.get("x-amz-target", "")
    if target:
        return target.rpartition(".")[2]
    form = _ACTION.search(body) if method == "POST" else None
    return form[1].decode() if form else method


def changes_state(service: str, operation: str, path: str) -> bool:
    """Tell whether a request may change what MiniStack keeps in memory of its service.

    Objects of S3 are in files, buckets are not: ``path`` is ``/bucket`` or ``/bucket/key``.
    """
    if operation in ("GET", "HEAD", "OPTIONS") or operation in _DATA_OPERATIONS or _READS.match(operation):
        return False
    return not (service == "s3" and "/" in path.strip("/"))


class Copies:
    """Stands in for the module ``copy`` in modules that only copy their state to have it written.

    Copying takes ten times as long as writing. The encoder needs no copy: it does not let other threads in between.
    """

    def __init__(self) -> None:
        self._unneeded = threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(copy, name)

    def deepcopy(self, value: Any, memo: dict[int, Any] | None = None) -> Any:
        """Return a copy, or the value itself where that does."""
        return value if getattr(self._unneeded, "here", False) else copy.deepcopy(value, memo)

    @contextmanager
    def unneeded(self) -> Iterator[None]:
        """Let this thread do without copies."""
        self._unneeded.here = True
        try:
            yield
        finally:
            self._unneeded.here = False


_copies = Copies()


class Durability:
    """Writes the states of services: at once where an answer waits for it."""

    def __init__(self, endpoint: Endpoint, app: Any, persistence: Any) -> None:
        self._endpoint = endpoint
        self._save_functions = seams.require(app, "_build_persistence_save_dict")
        self._state_file_keys = {module: key for key, module in seams.require(app, "_state_map").items()}
        self._format_version = seams.require(persistence, "_state_format_version")
        self._encode = seams.require(persistence, "_json_default")
        self._directory = endpoint.settings.state_directory / "services"
        self._digests: dict[str, bytes] = {}
        self._condition = threading.Condition()
        self._changed: set[str] = set()
        self._waiting: list[Future[None]] = []
        self._at_work = False
        self._writing = False
        self._stack_operations = False
        self._stack_operations_begun = 0

    # marks

    def changed(self, service: str) -> None:
        """Note that a service, by the name of its MiniStack module, has changed its state by itself."""
        with self._condition:
            self._changed.add(self._state_file_keys[service])
            self._condition.notify_all()

    def everything_changed(self) -> None:
        """Note that any service may have changed: a stack's resources belong to all of them."""
        with self._condition:
            self._changed.update(self._save_functions())
            self._condition.notify_all()

    async def settled(self) -> None:
        """Wait until everything that was noted so far is written.

        Raises:
            OSError: it could not be written.
        """
        written = self._written()
        if not written.done():
            await asyncio.wrap_future(written)

    def wait_until_settled(self) -> None:
        """Wait as ``settled`` does, on a thread of its own."""
        self._written().result()

    def _written(self) -> Future[None]:
        waiter: Future[None] = Future()
        with self._condition:
            if self._at_work and (self._changed or self._writing):
                self._waiting.append(waiter)
                self._condition.notify_all()
            else:
                waiter.set_result(None)
        return waiter

    def handler(self, service: str, module: str, original: Handler) -> Handler:
        """Return a service's handler that answers when the state is written."""

        async def handle(method: str, path: str, headers: Mapping[str, str], body: bytes, query: Any) -> Answer:
            events = object_events.collected()
            answer = await original(method, path, headers, body, query)
            if answer[0] < INTERNAL_ERROR:
                await _publish(events)
            writes = changes_state(service, operation_name(method, headers, body), path)
            if service == "cloudformation" and (writes or self._stack_operations):
                self._stack_operations_begun += writes
                self._stack_operations = True
                self.everything_changed()
            elif writes:
                self.changed(module)
            await self.settled()
            return answer

        return handle

    # writing

    def work(self, stopping: threading.Event) -> None:
        """Write until the endpoint stops; MiniStack then writes everything once more."""
        self._at_work = True
        next_bulk = time.monotonic() + BULK_SECONDS
        while not stopping.is_set():
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or stopping.is_set(), PAUSE_SECONDS)
                keys, self._changed = self._changed, set()
                waiting, self._waiting = self._waiting, []
                self._writing = True
            if time.monotonic() >= next_bulk:
                keys = set(self._save_functions())
            self._write_for(keys, waiting)
            if time.monotonic() >= next_bulk:
                next_bulk = time.monotonic() + (STACK_OPERATION_SECONDS if self._stack_operations else BULK_SECONDS)
        with self._condition:
            self._at_work = False
            waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.set_result(None)

    def _write_for(self, keys: set[str], waiting: list[Future[None]]) -> None:
        problem: OSError | None = None
        try:
            with self._endpoint.scope():
                # Looked at before: what ends while this is written is written the next time. An operation that begins
                # meanwhile must not be taken for over.
                begun, are_over = self._stack_operations_begun, not self._stacks_in_progress()
                if are_over and self._stack_operations:
                    keys = set(self._save_functions())
                for key in sorted(keys):
                    self.write(key)
                if are_over and begun == self._stack_operations_begun:
                    self._stack_operations = False
        except OSError as caught:
            problem = caught
            logger.exception("The state of the services could not be written")
            with self._condition:
                self._changed |= keys
        with self._condition:
            self._writing = False
        for waiter in waiting:
            if problem is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(problem)

    def _stacks_in_progress(self) -> bool:
        from ministack.services import cloudformation

        stacks = seams.require(cloudformation, "_stacks")
        return any(stack["StackStatus"].endswith("_IN_PROGRESS") for stack in list(stacks.values()))

    def write(self, key: str) -> None:
        """Write one service's state, if it is another one than the last that was written."""
        save_function = self._save_functions().get(key)
        if save_function is None:
            return
        content = self._encoded(key, save_function)
        digest = hashlib.sha256(content).digest()
        if self._digests.get(key) == digest:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        written = self._directory / f"{key}.json.new"
        written.write_bytes(content)
        written.replace(self._directory / f"{key}.json")
        self._digests[key] = digest

    def _encoded(self, key: str, save_function: Callable[[], Any]) -> bytes:
        with _copies.unneeded():
            for _ in range(ATTEMPTS):
                try:
                    return self._encoded_once(key, save_function)
                except RuntimeError as problem:  # a dictionary changed its size while it was read
                    logger.debug("reading %s again: %s", key, problem)
            return self._encoded_once(key, save_function)

    def _encoded_once(self, key: str, save_function: Callable[[], Any]) -> bytes:
        state = {"__ministack_format__": self._format_version(key), "payload": save_function()}
        return json.dumps(state, default=self._encode).encode()

    # after a kill

    def fail_interrupted_stacks(self) -> None:
        """Let the operations of stacks fail that nobody continues."""
        from ministack.services import cloudformation

        with self._endpoint.scope():
            for stack in seams.require(cloudformation, "_stacks").values():
                operation, _, rest = stack["StackStatus"].partition("_")
                if rest.endswith("IN_PROGRESS"):
                    stack["StackStatus"] = f"{operation}_{rest.removesuffix('IN_PROGRESS')}FAILED"
                    stack["StackStatusReason"] = _INTERRUPTED
                    logger.warning("stack %s: %s: %s", stack["StackName"], stack["StackStatus"], _INTERRUPTED)
        self.changed("cloudformation")


async def _publish(events: Sequence[threading.Thread]) -> None:
    for event in events:
        event.start()
    for event in events:
        await asyncio.to_thread(event.join, EVENT_SECONDS)


def _followed_by(deliver: Callable[..., Any], changed: Callable[[str], None]) -> Callable[..., Any]:
    """Return a function of another service that puts a message into a queue, and notes that."""

    def deliver_and_note(*arguments: Any, **others: Any) -> Any:
        delivered = deliver(*arguments, **others)
        changed("sqs")
        return delivered

    return deliver_and_note


def install(endpoint: Endpoint) -> None:
    """Let every answer wait until what it tells is on disk."""
    from ministack import app
    from ministack.core import persistence
    from ministack.services import eventbridge, sns

    durability = Durability(endpoint, app, persistence)
    registry = seams.require(app, "SERVICE_REGISTRY")
    handlers = seams.require(app, "SERVICE_HANDLERS")
    for service, original in list(handlers.items()):
        handlers[service] = durability.handler(service, registry[service]["module"], original)
    for module_name in ONLY_COPY:
        seams.replace(importlib.import_module(f"ministack.services.{module_name}"), "copy", _copies)
    for module, name in ((eventbridge, "_dispatch_to_sqs"), (sns, "_deliver_to_sqs")):
        seams.replace(module, name, _followed_by(seams.require(module, name), durability.changed))
    endpoint.on_change(durability.changed, durability.wait_until_settled)
    endpoint.on_ready(durability.fail_interrupted_stacks)
    endpoint.start_worker("durability", durability.work)
