"""Every request that boto3 sends in this process, and every answer that it gets, judged by AWS's API models.

``install`` makes every new client tell a ``Recorder`` of its calls, by botocore's own events:
https://boto3.amazonaws.com/v1/documentation/api/latest/guide/events.html
"""

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import botocore.client
from botocore.model import OperationModel

from tests.contracts.deviations import DEVIATIONS, Deviation, covering
from tests.contracts.shapes import CALL, findings
from tests.contracts.wire import answer_findings
from tests.judging import REPOSITORY

# The code whose requests count as the project's own; the emulator's requests to itself do not.
OWN_CODE = ("functions/", "glue/", "telemetry_lake/")
EMULATOR = "telemetry_lake/local/"
# boto3's managed transfers call from threads of their own.
TRANSFERS = "s3transfer"
SUCCESS = range(200, 300)


@dataclass(frozen=True, order=True)
class Call:
    """One API operation, and the file of the project that called it (``s3transfer`` for boto3's transfers)."""

    service: str
    operation: str
    caller: str = ""

    @property
    def pair(self) -> tuple[str, str]:
        """Service and operation."""
        return self.service, self.operation


@dataclass(frozen=True, order=True)
class Finding:
    """What does not fit the model; ``side`` is ``request`` or ``answer``."""

    side: str
    service: str
    operation: str
    text: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.side} {self.service}.{self.operation}{self.text}"


@dataclass
class Recorder:
    """What has been judged so far, and what was found since the last ``take``."""

    judges_requests: bool = True
    judges_answers: bool = False
    requests: set[Call] = field(default_factory=set)
    answers: set[tuple[str, str]] = field(default_factory=set)
    deviations: set[Deviation] = field(default_factory=set)
    _found: list[Finding] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)

    def take(self) -> list[Finding]:
        """Return the findings since the last call, each once."""
        with self._lock:
            found, self._found = sorted(set(self._found)), []
        return found

    def request(self, model: OperationModel, arguments: Any, caller: str) -> None:
        """Judge the arguments of a client's method."""
        service, operation = model.service_model.service_name, model.name
        shape: Any = model.input_shape
        if not self.judges_requests:
            return
        lines = findings(as_the_api_has_it(service, arguments), shape, CALL) if shape is not None else []
        with self._lock:
            self.requests.add(Call(service, operation, caller))
            self._found += [Finding("request", service, operation, line) for line in lines]

    def answer(self, model: OperationModel, response: dict[str, Any]) -> None:
        """Judge a successful answer as it came over the wire."""
        if response["status_code"] not in SUCCESS:
            return
        service, operation = model.service_model.service_name, model.name
        lines = answer_findings(model, response["status_code"], response["headers"], response["body"])
        admitted = {line: covering(service, operation, line) for line in lines}
        with self._lock:
            self.answers.add((service, operation))
            self.deviations |= {deviation for deviation in admitted.values() if deviation is not None}
            self._found += [Finding("answer", service, operation, line) for line in lines if admitted[line] is None]

    def dump(self) -> str:
        """Return everything as one line of JSON, for ``load`` in another process."""
        return json.dumps(
            {
                "requests": [[call.service, call.operation, call.caller] for call in sorted(self.requests)],
                "answers": sorted(self.answers),
                "deviations": [DEVIATIONS.index(deviation) for deviation in self.deviations],
                "found": [[each.side, each.service, each.operation, each.text] for each in self.take()],
            }
        )

    def load(self, line: str) -> None:
        """Add what another process has recorded."""
        content = json.loads(line)
        with self._lock:
            self.requests |= {Call(*words) for words in content["requests"]}
            self.answers |= {(service, operation) for service, operation in content["answers"]}
            self.deviations |= {DEVIATIONS[index] for index in content["deviations"]}
            self._found += [Finding(*words) for words in content["found"]]


def as_the_api_has_it(service: str, arguments: Any) -> Any:
    """Return a call's arguments without what boto3 takes in a form of its own: S3's sources of copies.

    https://boto3.amazonaws.com/v1/documentation/api/latest/reference/services/s3/client/copy_object.html
    """
    if service != "s3" or not isinstance(arguments, dict) or not isinstance(arguments.get("CopySource"), dict):
        return arguments
    source = arguments["CopySource"]
    unknown = {name: value for name, value in source.items() if name not in ("Bucket", "Key", "VersionId")}
    return {**arguments, "CopySource": f"{source['Bucket']}/{source['Key']}", **unknown}


def calling_file() -> str:
    """Return the project's file that the current call comes from, as a path in the checkout, or an empty string."""
    for path in _files_of_the_stack():
        if f"/{TRANSFERS}/" in path:
            return TRANSFERS
        if path.startswith(f"{REPOSITORY}/"):
            relative = path[len(str(REPOSITORY)) + 1 :]
            if relative.startswith(OWN_CODE) and not relative.startswith(EMULATOR):
                return relative
    return ""


def _files_of_the_stack() -> Iterator[str]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_code.co_filename
        frame = cast("Any", frame.f_back)


def is_on_this_machine(url: str) -> bool:
    """Tell whether a client talks to the embedded endpoint."""
    return urlsplit(url).hostname == "127.0.0.1"


def install(recorder: Recorder) -> None:
    """Let every client that is made from now on tell ``recorder`` of its calls."""
    create_client = botocore.client.ClientCreator.create_client

    def create_recorded_client(creator: Any, *arguments: Any, **named: Any) -> Any:
        client = create_client(creator, *arguments, **named)

        def on_request(params: Any, model: OperationModel, **_: Any) -> None:
            recorder.request(model, params, calling_file())

        def on_answer(operation_model: OperationModel, response_dict: dict[str, Any], **_: Any) -> None:
            if recorder.judges_answers and is_on_this_machine(client.meta.endpoint_url):
                recorder.answer(operation_model, response_dict)

        client.meta.events.register_first("provide-client-params", on_request)
        client.meta.events.register_first("before-parse", on_answer)
        return client

    setattr(botocore.client.ClientCreator, "create_client", create_recorded_client)  # noqa: B010  its types are another
