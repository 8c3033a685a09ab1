"""The process in which a Lambda function runs: standard library only, it knows neither this project nor MiniStack.

Started by ``lambda_runtime`` with the interpreter of the Lambda runtime's environment. Requests arrive on standard
input and answers leave by a file descriptor of their own, one JSON document a line; what the function prints is its
log. The shapes of errors and log lines are those of AWS's runtime
(https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html,
https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html).
"""

import decimal
import importlib
import io
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from types import SimpleNamespace, TracebackType
from typing import Any, TextIO

# Written after everything that an invocation printed, so that the reader knows where its log ends.
END_OF_LOG = "\x1e"

Handler = Callable[[Any, Any], Any]


class InitError(Exception):
    """The function cannot be loaded; the type is what AWS calls it."""

    def __init__(self, error_type: str, message: str, stack_trace: list[str]) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.stack_trace = stack_trace


class LambdaContext:
    """The second argument of a handler: https://docs.aws.amazon.com/lambda/latest/dg/python-context.html."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.aws_request_id: str = request["request_id"]
        self.invoked_function_arn: str = request["function_arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.identity = SimpleNamespace(cognito_identity_id=None, cognito_identity_pool_id=None)
        self.client_context = None
        self._deadline_seconds: float = request["deadline_seconds"]

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the function is stopped."""
        return max(0, int((self._deadline_seconds - time.time()) * 1000))


def own_frames(trace: TracebackType | None) -> list[str]:
    """Return the formatted frames of a traceback without those of this file and of the import system."""
    frames = traceback.extract_tb(trace)
    foreign = [frame for frame in frames if frame.filename != __file__ and not frame.filename.startswith("<frozen ")]
    return traceback.format_list(foreign)


def load_handler(name: str) -> Handler:
    """Import the handler that the function's configuration names, ``package.module.function``.

    Raises:
        InitError: it cannot be imported.
    """
    module_name, _, function_name = name.replace("/", ".").rpartition(".")
    if not module_name:
        raise InitError("Runtime.MalformedHandlerName", f"Bad handler '{name}': not enough values to unpack", [])
    try:
        module = importlib.import_module(module_name)
    except ImportError as problem:
        message = f"Unable to import module '{module_name}': {problem}"
        raise InitError("Runtime.ImportModuleError", message, own_frames(problem.__traceback__)) from problem
    except SyntaxError as problem:
        message = f"Syntax error in module '{module_name}': {problem}"
        raise InitError("Runtime.UserCodeSyntaxError", message, own_frames(problem.__traceback__)) from problem
    except Exception as problem:
        raise InitError(type(problem).__name__, str(problem), own_frames(problem.__traceback__)) from problem
    handler: Handler | None = getattr(module, function_name, None)
    if handler is None:
        raise InitError("Runtime.HandlerNotFound", f"Handler '{function_name}' missing on module '{module_name}'", [])
    return handler


def _number(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def invoke(handler: Handler, request: dict[str, Any]) -> dict[str, Any]:
    """Run one invocation and return the answer to send: ``payload``, or ``error``."""
    request_id = request["request_id"]
    try:
        result = handler(request["event"], LambdaContext(request))
    except Exception as problem:  # noqa: BLE001  whatever a function raises is its answer
        return failed(request_id, type(problem).__name__, str(problem), own_frames(problem.__traceback__))
    try:
        return {"payload": json.dumps(result, default=_number, ensure_ascii=False)}
    except (TypeError, ValueError) as problem:
        return failed(request_id, "Runtime.MarshalError", f"Unable to marshal response: {problem}", [])


def failed(request_id: str, error_type: str, message: str, stack_trace: list[str]) -> dict[str, Any]:
    """Log an error as AWS's runtime does and return the answer that tells of it."""
    lines = [f"[ERROR] {error_type}: {message}"]
    if stack_trace:
        lines += ["Traceback (most recent call last):", "".join(stack_trace).rstrip("\n")]
    sys.stdout.write("\n".join(lines) + "\n")
    error = {
        "errorMessage": message,
        "errorType": error_type,
        "requestId": request_id,
        "stackTrace": stack_trace,
    }
    return {"error": error}


class _RequestIdFilter(logging.Filter):
    request_id = ""

    def filter(self, record: logging.LogRecord) -> bool:
        record.aws_request_id = self.request_id
        return True


def _configure_logging() -> _RequestIdFilter:
    handler = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter(
        "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    request_ids = _RequestIdFilter()
    handler.setFormatter(formatter)
    handler.addFilter(request_ids)
    logging.getLogger().addHandler(handler)
    return request_ids


def max_memory_mb() -> int:
    """Return the most memory that this process had, in MB, or 0 where the system does not say.

    ``getrusage`` would also count what the endpoint's process had when it started this one.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123  pathlib is not loaded for it
            peak = next(line for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return 0
    return int(peak.split()[1]) // 1024


def main(answers: TextIO, import_paths: list[str]) -> None:
    """Load the function, then answer one request after the other until standard input ends."""
    requests = sys.stdin
    # A function that reads its standard input must not eat the requests.
    sys.stdin = io.StringIO()
    sys.path[:0] = import_paths
    request_ids = _configure_logging()

    def answer(message: dict[str, Any]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(1, f"{END_OF_LOG}\n".encode())
        message["max_memory_mb"] = max_memory_mb()
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    started = time.monotonic()
    try:
        handler = load_handler(os.environ["_HANDLER"])
    except InitError as problem:
        answer(failed("", problem.error_type, str(problem), problem.stack_trace))
        return
    answer({"init_milliseconds": (time.monotonic() - started) * 1000})
    for line in requests:
        request = json.loads(line)
        request_ids.request_id = request["request_id"]
        answer(invoke(handler, request))


if __name__ == "__main__":
    main(os.fdopen(int(sys.argv[1]), "w", encoding="utf-8"), sys.argv[2:])
