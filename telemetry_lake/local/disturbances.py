"""Failures on request, for tests of what survives them: jobs that are killed, and what Firehose delivers twice.

It models nothing of AWS but the moment. Machines do disappear there, at any moment, and a test cannot wait for the
millisecond between two requests of a job: the endpoint sees every request, so it can let one through, or not, and kill
the run's processes there.

``PUT /_telemetry_lake/job-kill`` with ``{"request": REGEX, "occurrence": 2, "moment": "before"}`` arms it for the next
run that makes such a request, ``GET`` tells whether it is still armed and what the latest run has asked for, and
``DELETE`` disarms it. Requests are named as in `request_name`.

Firehose "uses at-least-once semantics for data delivery"
(https://docs.aws.amazon.com/firehose/latest/dev/basic-deliver.html), and so repeats itself now and then.
``PUT /_telemetry_lake/firehose-redelivery`` with a `Redelivery` makes it do so, ``GET`` tells what is armed and how
often it was done, and ``DELETE`` disarms it.

Like all of the endpoint this is reachable from this machine alone.
"""

import json
import logging
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import unquote

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

JOB_KILL_PATH = "/_telemetry_lake/job-kill"
REDELIVERY_PATH = "/_telemetry_lake/firehose-redelivery"
MOST_REQUESTS = 20_000

Message = dict[str, Any]
Receive = Callable[[], Coroutine[Any, Any, Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]
Application = Callable[[Mapping[str, Any], Receive, Send], Coroutine[Any, Any, None]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KillPoint:
    """The request at which a run is killed: before the service sees it, or after it has carried it out.

    ``request`` is a regular expression that is searched for in the request's name, ``occurrence`` counts its matches
    from 1.
    """

    request: str
    occurrence: int = 1
    moment: Literal["before", "after"] = "before"

    def __post_init__(self) -> None:
        """Check what came over HTTP.

        Raises:
            ValueError: it names no request.
        """
        re.compile(self.request)
        if self.occurrence < 1 or self.moment not in ("before", "after"):
            raise ValueError("occurrence counts from 1, and moment is before or after")


def request_name(method: str, path: str, query: str, headers: Mapping[str, str]) -> str:
    """Return ``AWSGlue.GetTable`` for a service that is told its operation in a header, else ``PUT /bucket/key?query``.

    The method of a copy inside S3 is given as ``COPY``
    (https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html).
    """
    if "x-amz-target" in headers:
        return headers["x-amz-target"]
    verb = "COPY" if "x-amz-copy-source" in headers else method
    return f"{verb} {unquote(path)}{'?' if query else ''}{query}"


class JobKills:
    """What is known of the run at work, and where it is to be killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._access_key_id: str | None = None
        self._process_group: int | None = None
        self._requests: deque[str] = deque(maxlen=MOST_REQUESTS)
        self._point: KillPoint | None = None
        self._matches = 0

    def watch(self, access_key_id: str, process_group: int) -> None:
        """Take note of a run that has begun, by the key that it signs its requests with."""
        with self._lock:
            self._access_key_id, self._process_group = access_key_id, process_group
            self._requests.clear()
            self._matches = 0

    def forget(self, process_group: int) -> None:
        """Take note of the end of a run; its requests stay known until the next one begins."""
        with self._lock:
            if self._process_group == process_group:
                self._process_group = None

    def arm(self, point: KillPoint | None) -> None:
        """Kill the next run that comes to ``point``, or none."""
        with self._lock:
            self._point, self._matches = point, 0

    def state(self) -> dict[str, Any]:
        """Return the point that is armed, if any, and the names of the latest run's requests."""
        with self._lock:
            return {"armed": None if self._point is None else asdict(self._point), "requests": list(self._requests)}

    def moment_of(self, access_key_id: str, name: str) -> str | None:
        """Return when the run that makes this request is to be killed, None for not at all; a kill disarms."""
        with self._lock:
            if self._process_group is None or access_key_id != self._access_key_id:
                return None
            self._requests.append(name)
            if self._point is None or not re.search(self._point.request, name):
                return None
            self._matches += 1
            if self._matches != self._point.occurrence:
                return None
            moment = self._point.moment
            self._point = None
            return moment

    def kill(self, name: str) -> None:
        """Kill the run's processes, as a machine that disappears."""
        with self._lock:
            process_group = self._process_group
        if process_group is None:
            return
        logger.info("killing the job run of process group %d at %s", process_group, name)
        try:
            os.killpg(process_group, signal.SIGKILL)
        except ProcessLookupError:
            logger.info("the job run had ended by then")


@dataclass(frozen=True)
class Redelivery:
    """What a delivery stream does again, at its next opportunities, as often as ``times`` says.

    * ``invocation``: the function gets the same batch twice, and the first answer is lost ("If your Lambda function
      invocation fails because of a network timeout […], Amazon Data Firehose retries the invocation":
      https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html);
    * ``object``: the same object is put twice, under two keys ("delivery retries by Firehose might introduce duplicates
      if the original data-delivery request eventually goes through":
      https://docs.aws.amazon.com/firehose/latest/dev/basic-deliver.html);
    * ``reading``: what came at ``since_milliseconds`` (since 1970) or later is read from the stream again, as by a
      consumer that has lost its position
      (https://docs.aws.amazon.com/streams/latest/dev/kinesis-record-processor-duplicates.html), and batches for the
      function are cut at ``batch_bytes`` from then on.
    """

    delivery_stream: str
    again: Literal["invocation", "object", "reading"]
    times: int = 1
    since_milliseconds: int = 0
    batch_bytes: int | None = None

    def __post_init__(self) -> None:
        """Check what came over HTTP.

        Raises:
            ValueError: it is nothing that could be repeated.
        """
        if self.again not in ("invocation", "object", "reading") or self.times < 1 or (self.batch_bytes or 1) < 1:
            raise ValueError("again is invocation, object or reading; times and batch_bytes count from 1")


class Redeliveries:
    """What a delivery stream is to do again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: Redelivery | None = None
        self._done = 0

    def arm(self, redelivery: Redelivery | None) -> None:
        """Have this done at the next opportunities, or nothing."""
        with self._lock:
            self._armed, self._done = redelivery, 0

    def take(self, delivery_stream: str, again: str) -> Redelivery | None:
        """Return what is armed for this opportunity, and count it as done."""
        with self._lock:
            armed = self._armed
            if armed is None or (armed.delivery_stream, armed.again) != (delivery_stream, again):
                return None
            self._done += 1
            if self._done == armed.times:
                self._armed = None
            return armed

    def state(self) -> dict[str, Any]:
        """Return what is armed, if anything, and how often the latest was done."""
        with self._lock:
            return {"armed": None if self._armed is None else asdict(self._armed), "done": self._done}


JOB_KILLS = JobKills()
REDELIVERIES = Redeliveries()


def _access_key_id(headers: Mapping[str, str]) -> str:
    """Return the key that a request is signed with, by the header of Signature Version 4.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-authentication-methods.html
    """
    found = re.search(r"Credential=([^/,\s]+)/", headers.get("authorization", ""))
    return found[1] if found else ""


@dataclass(frozen=True)
class Control:
    """What a control path arms, from a document, and tells."""

    arm: Callable[[dict[str, Any] | None], None]
    state: Callable[[], dict[str, Any]]


def controls(kills: JobKills, redeliveries: Redeliveries) -> dict[str, Control]:
    """Return the controls by their paths."""
    return {
        JOB_KILL_PATH: Control(
            lambda given: kills.arm(None if given is None else KillPoint(**given)),
            kills.state,
        ),
        REDELIVERY_PATH: Control(
            lambda given: redeliveries.arm(None if given is None else Redelivery(**given)),
            redeliveries.state,
        ),
    }


def disturbed(application: Application, kills: JobKills, redeliveries: Redeliveries) -> Application:
    """Return the application with the kills, and all controls, in front of it."""
    by_path = controls(kills, redeliveries)

    async def serve(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await application(scope, receive, send)
        if scope["path"] in by_path:
            return await _control(by_path[scope["path"]], scope["method"], receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        name = request_name(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers)
        moment = kills.moment_of(_access_key_id(headers), name)
        if moment is None:
            return await application(scope, receive, send)
        if moment == "before":
            # Nobody waits for the answer any more, and the service never learns of the request.
            return kills.kill(name)

        async def kill_and_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                kills.kill(name)
            await send(message)

        return await application(scope, receive, kill_and_send)

    return serve


async def _control(control: Control, method: str, receive: Receive, send: Send) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    status, answer = 200, {}
    try:
        if method == "PUT":
            control.arm(json.loads(body))
        elif method == "DELETE":
            control.arm(None)
        answer = control.state()
    except (ValueError, TypeError, re.error) as error:
        status, answer = 400, {"error": str(error)}
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


def install(_endpoint: Endpoint) -> None:
    """Put the kills in front of everything."""
    from ministack import app

    seams.replace(app, "app", disturbed(seams.require(app, "app"), JOB_KILLS, REDELIVERIES))
