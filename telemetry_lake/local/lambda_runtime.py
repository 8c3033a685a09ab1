"""AWS Lambda: functions run in processes of their own that see their artifact, the runtime's packages and no host.

MiniStack keeps the functions, their API and the pool of warm environments; the environments themselves are these. A
function's process is started with the interpreter of the Lambda runtime's environment (boto3 and what it needs), from
the unpacked artifact, with the variables that AWS documents and a session of the function's role. Requirements that
were compiled for Lambda's processor and Python are installed again for this machine, in the very versions that the
artifact has.

Known deviations from AWS:

* The interpreter is that of the host (Python 3.11 instead of 3.13), on the host's processor; memory is not limited, and
  neither the root directory nor ``/tmp`` are the function's own (``TMPDIR`` and ``HOME`` are).
* Only Python functions in Zip packages, without layers, versions' SnapStart or response streaming.
* The init phase has ten seconds plus the function's own limit; an environment that failed in it is thrown away.
* Each line that a function prints is one log event; the JSON log format and log levels of ``LoggingConfig`` have no
  effect, only its log group. Log lines reach CloudWatch Logs when an invocation has ended.
* Metrics from the log (embedded metric format) get the time of the extraction instead of ``_aws.Timestamp``.
* Asynchronous invocations that wait for a retry are lost when the endpoint stops. There is no age limit of six hours
  and no queue of events: an invocation starts at once.
* The request id in the header of Invoke's answer is not that of the invocation, which its log and ``LogResult`` have.
* There is no X-Ray, no runtime API (``AWS_LAMBDA_RUNTIME_API``), no extensions.
"""

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path
from types import ModuleType
from typing import Any

from telemetry_lake.local import lambda_bootstrap, seams
from telemetry_lake.local.access import role_allows
from telemetry_lake.local.endpoint import Endpoint, TrustError

SERVICE_PRINCIPAL = "lambda.amazonaws.com"
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: 6 MB for request and response of a
# synchronous invocation, 1 MB for an asynchronous one.
SYNCHRONOUS_REQUEST_BYTES = 6_291_456
ASYNCHRONOUS_REQUEST_BYTES = 1_048_576
RESPONSE_BYTES = 6_291_556
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
INIT_SECONDS = 10.0
# https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html: one minute before the first
# retry, two before the second.
FIRST_RETRY_SECONDS = 60.0
LONGEST_RETRY_SECONDS = 300.0
# How long an environment beyond a function's first one is kept; AWS does not say how long it does. A deployment makes
# every alarm report at once, and a laptop should have that memory back soon.
IDLE_SECONDS = 60.0
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
RESERVED_VARIABLES = frozenset(
    {
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
    }
)
BOOTSTRAP = Path(lambda_bootstrap.__file__).resolve()

logger = logging.getLogger("telemetry_lake.local.lambda_runtime")

Result = dict[str, Any]


class RuntimeUnavailableError(RuntimeError):
    """This machine lacks something that a function needs; the message says what to do."""


# --- requirements ---------------------------------------------------------------------------------------------------


def compiled_requirements(task_root: Path) -> list[str]:
    """Return the pins, ``name==version``, of the packages in an artifact that were compiled for another machine.

    A wheel for every machine is tagged ``...-none-any``
    (https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/).
    """
    pins = []
    for metadata_directory in sorted(task_root.glob("*.dist-info")):
        wheel = HeaderParser().parsestr((metadata_directory / "WHEEL").read_text("utf-8"))
        if all(tag.endswith("-none-any") for tag in wheel.get_all("Tag", [])):
            continue
        metadata = HeaderParser().parsestr((metadata_directory / "METADATA").read_text("utf-8"))
        pins.append(f"{metadata['Name']}=={metadata['Version']}")
    return pins


@dataclass(frozen=True)
class HostPackages:
    """A directory with one directory for each set of pins, installed for the interpreter that runs functions."""

    directory: Path
    python: Path
    uv: Path | None

    def resolve(self, pins: Sequence[str]) -> Path | None:
        """Return the directory that has these packages for this machine, installing it the first time.

        Raises:
            RuntimeUnavailableError: there is no uv, or it could not get the packages.
        """
        if not pins:
            return None
        # Another interpreter or another path to it may be another version of Python.
        key = hashlib.sha256("\n".join([str(self.python), *sorted(pins)]).encode()).hexdigest()[:16]
        target = self.directory / key
        if target.is_dir():
            return target
        if self.uv is None:
            raise RuntimeUnavailableError(
                f"The function needs {', '.join(pins)}, compiled for this machine, and uv is not to be found: put uv "
                "on PATH (make setup installs one), and invoke the function again"
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        attempt = self.directory / f"{key}.{uuid.uuid4().hex}"
        command = [str(self.uv), "pip", "install", "--quiet", "--no-deps", "--no-build", "--python", str(self.python)]
        completed = subprocess.run(  # noqa: S603  uv with arguments from here and pins of the artifact
            [*command, "--target", str(attempt), *pins], capture_output=True, text=True, check=False
        )
        if completed.returncode != 0:
            shutil.rmtree(attempt, ignore_errors=True)
            raise RuntimeUnavailableError(
                f"The function needs {', '.join(pins)}, compiled for this machine, and uv could not install it: "
                f"{completed.stderr.strip()}. When the package index can be reached, invoke the function again"
            )
        try:
            attempt.rename(target)
        except OSError:  # another environment was quicker
            shutil.rmtree(attempt, ignore_errors=True)
        return target


def find_uv(tools_directory: Path) -> Path | None:
    """Return uv, from PATH or of the checkout's tools."""
    found = shutil.which("uv")
    if found is not None:
        return Path(found)
    own = tools_directory / "uv" / "bin" / "uv"
    return own if own.exists() else None


# --- the log ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MetricValue:
    """One value of a metric, for one set of dimensions."""

    namespace: str
    name: str
    value: float
    unit: str
    dimensions: Mapping[str, str]


def embedded_metrics(line: str) -> Iterator[MetricValue]:
    """Yield the metrics in a line of a log, for each of its sets of dimensions; none if the line has no valid ones.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    if not line.startswith("{") or '"_aws"' not in line:
        return
    try:
        document = json.loads(line)
        directives = document["_aws"]["CloudWatchMetrics"]
        for directive in directives:
            for names in directive["Dimensions"]:
                if not all(isinstance(document.get(name), str) for name in names):
                    continue  # CloudWatch extracts nothing for a dimension without a string
                for metric in directive["Metrics"]:
                    given = document.get(metric["Name"])
                    for value in given if isinstance(given, list) else [given]:
                        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                            continue
                        yield MetricValue(
                            namespace=directive["Namespace"],
                            name=metric["Name"],
                            value=float(value),
                            unit=metric.get("Unit", "None"),
                            dimensions={name: document[name] for name in names},
                        )
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        logger.warning("No metrics could be extracted from a log line (%r): %.500s", problem, line)


def log_group_name(config: Mapping[str, Any]) -> str:
    """Return the log group of a function: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html."""
    return (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{config['FunctionName']}"


# --- the environment ------------------------------------------------------------------------------------------------


def environment_variables(
    config: Mapping[str, Any],
    *,
    credentials: Mapping[str, str],
    endpoint_url: str,
    task_root: Path,
    private_directory: Path,
    log_stream: str,
) -> dict[str, str]:
    """Return all variables of a function's process; nothing is inherited.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    """
    region = config["FunctionArn"].split(":")[3]
    own = (config.get("Environment") or {}).get("Variables") or {}
    return {
        "LANG": "en_US.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "TZ": ":UTC",
        "HOME": str(private_directory),
        "TMPDIR": str(private_directory),
        **{name: str(value) for name, value in own.items() if name not in RESERVED_VARIABLES},
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": credentials["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": credentials["aws_secret_access_key"],
        "AWS_SESSION_TOKEN": credentials["aws_session_token"],
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{config['Runtime']}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.get("MemorySize", 128)),
        "AWS_LAMBDA_FUNCTION_NAME": config["FunctionName"],
        "AWS_LAMBDA_FUNCTION_VERSION": config.get("Version", "$LATEST"),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": log_group_name(config),
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "LAMBDA_TASK_ROOT": str(task_root),
        "_HANDLER": config["Handler"],
    }


def configuration_key(config: Mapping[str, Any]) -> str:
    """Return what must stay the same for a warm environment to be used again."""
    names = ("CodeSha256", "Handler", "Runtime", "Role", "MemorySize", "Environment", "LoggingConfig", "Layers")
    return json.dumps([config.get(name) for name in names], sort_keys=True, default=str)


@dataclass(frozen=True)
class Invocation:
    """What came of one invocation."""

    payload: str | None
    error: dict[str, Any] | None
    lines: list[str]
    milliseconds: float
    max_memory_mb: int = 0
    init_milliseconds: float | None = None


@dataclass(frozen=True)
class Machine:
    """What all environments of the endpoint share."""

    endpoint: Endpoint
    python: Path
    packages: HostPackages
    directory: Path

    def task_root(self, code_zip: bytes) -> Path:
        """Return the directory with the unpacked artifact; environments of the same artifact share it."""
        target = self.directory / "code" / hashlib.sha256(code_zip).hexdigest()[:32]
        if not target.is_dir():
            attempt = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
            with zipfile.ZipFile(io.BytesIO(code_zip)) as archive:
                archive.extractall(attempt)
            try:
                attempt.rename(target)
            except OSError:  # another environment was quicker
                shutil.rmtree(attempt, ignore_errors=True)
        return target


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class ExecutionEnvironment:
    """One warm process of a function, leased to one invocation at a time.

    MiniStack's pool reads and sets ``config``, ``in_use``, ``last_used`` and ``_proc`` and calls ``_discard_tmpdir``.
    """

    def __init__(self, machine: Machine, function_name: str, config: dict[str, Any], code_zip: bytes) -> None:
        self.config = config
        self.in_use = False
        self.last_used = time.time()
        now = datetime.now(UTC)
        stream_id = uuid.uuid4().hex
        self.log_stream = f"{now:%Y/%m/%d}/[{config.get('Version', '$LATEST')}]{stream_id}"
        self._machine = machine
        self._code_zip = code_zip
        self._private_directory = machine.directory / "environments" / f"{function_name}-{stream_id}"
        self._proc: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._log: queue.Queue[str | None] = queue.Queue()

    @property
    def is_usable(self) -> bool:
        """Whether the process may serve, or may still be started."""
        return self._proc is None or self._proc.poll() is None

    def _discard_tmpdir(self) -> None:
        shutil.rmtree(self._private_directory, ignore_errors=True)

    def stop(self) -> None:
        """End the process at once and remove what it left."""
        process, self._proc = self._proc, None
        if process is not None:
            _kill(process)
        self._discard_tmpdir()

    def _start(self) -> "subprocess.Popen[bytes]":
        machine, config = self._machine, self.config
        if not machine.python.exists():
            raise RuntimeUnavailableError(
                f"The environment of the Lambda runtime is missing: {machine.python}; make setup"
            )
        task_root = machine.task_root(self._code_zip)
        host_packages = machine.packages.resolve(compiled_requirements(task_root))
        self._private_directory.mkdir(parents=True, exist_ok=True)
        answers_read, answers_write = os.pipe()
        paths = [*([str(host_packages)] if host_packages is not None else []), str(task_root)]
        try:
            self._proc = subprocess.Popen(  # noqa: S603  the function's own code, which is what Lambda runs
                [str(machine.python), "-I", "-X", "utf8", str(BOOTSTRAP), str(answers_write), *paths],
                cwd=task_root,
                env=machine.endpoint.settings.trust_variables
                | environment_variables(
                    config,
                    credentials=machine.endpoint.credentials(config["Role"], config["FunctionName"]),
                    endpoint_url=machine.endpoint.settings.base_url,
                    task_root=task_root,
                    private_directory=self._private_directory,
                    log_stream=self.log_stream,
                ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[answers_write],
                start_new_session=True,
            )
        finally:
            os.close(answers_write)
        name = f"lambda-{config['FunctionName']}"
        threading.Thread(target=self._read_answers, args=(answers_read,), name=name, daemon=True).start()
        threading.Thread(target=self._read_log, args=(self._proc.stdout,), name=name, daemon=True).start()
        return self._proc

    def _read_answers(self, descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8") as answers:
            for line in answers:
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def _read_log(self, stream: Any) -> None:
        end = lambda_bootstrap.END_OF_LOG
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", errors="replace").rstrip("\n")
                if not line.endswith(end):
                    self._log.put(line)
                    continue
                if line != end:  # the last line was not ended
                    self._log.put(line.removesuffix(end))
                self._log.put(None)
        self._log.put(None)

    def _lines(self) -> list[str]:
        lines: list[str] = []
        while True:
            try:
                line = self._log.get(timeout=1.0)
            except queue.Empty:  # a process that the function started keeps the log open
                return lines
            if line is None:
                return lines
            lines.append(line)

    def invoke(self, request_id: str, event: Any, timeout_seconds: float) -> Invocation:
        """Run the function once; the environment is started first if it is new.

        Raises:
            RuntimeUnavailableError: this machine cannot run the function.
            TrustError: Lambda may not assume the function's role.
        """
        lines: list[str] = []
        init_milliseconds: float | None = None
        # MiniStack's pool may take the process away in the middle of an invocation, when the function is changed.
        process = self._proc
        if process is None:
            process = self._start()
            ready = self._wait(INIT_SECONDS + timeout_seconds)
            lines += self._lines()
            if ready is None or "error" in ready:
                return self._ended(process, request_id, ready, lines, timeout_seconds)
            init_milliseconds = ready["init_milliseconds"]
        request = {
            "request_id": request_id,
            "function_arn": self.config["FunctionArn"],
            "deadline_seconds": time.time() + timeout_seconds,
            "event": event,
        }
        started = time.monotonic()
        # A process that ended by itself is seen by the answer that does not come.
        with contextlib.suppress(BrokenPipeError):
            _send(process, json.dumps(request).encode() + b"\n")
        answer = self._wait(timeout_seconds)
        if answer is None:
            ended = self._ended(process, request_id, None, lines, timeout_seconds)
            milliseconds = (time.monotonic() - started) * 1000
            return replace(ended, milliseconds=milliseconds, init_milliseconds=init_milliseconds)
        milliseconds = (time.monotonic() - started) * 1000
        lines += self._lines()
        return Invocation(
            answer.get("payload"),
            answer.get("error"),
            lines,
            milliseconds,
            max_memory_mb=answer["max_memory_mb"],
            init_milliseconds=init_milliseconds,
        )

    def _wait(self, seconds: float) -> dict[str, Any] | None:
        try:
            return self._answers.get(timeout=seconds)
        except queue.Empty:
            return None

    def _ended(
        self,
        process: "subprocess.Popen[bytes]",
        request_id: str,
        answer: Mapping[str, Any] | None,
        lines: list[str],
        timeout_seconds: float,
    ) -> Invocation:
        """Return the outcome of an environment that failed to start, ended by itself or ran out of time."""
        if answer is not None:
            self.stop()
            error = {**answer["error"], "requestId": request_id}
            return Invocation(None, error, lines, 0.0, max_memory_mb=answer["max_memory_mb"])
        try:
            # The answer that never came because the process ended is followed by its exit status.
            status: int | None = process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            status = None
        self.stop()
        _kill(process)
        error = _process_error(request_id, status, timeout_seconds)
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        last = f"{stamp} {request_id} Task timed out after {timeout_seconds:.2f} seconds"
        lines = [*lines, *self._lines(), last if status is None else error["errorMessage"]]
        return Invocation(None, error, lines, 0.0)


def _send(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    assert process.stdin is not None  # noqa: S101
    process.stdin.write(data)
    process.stdin.flush()


def _process_error(request_id: str, status: int | None, timeout_seconds: float) -> dict[str, Any]:
    if status is None:
        message = f"RequestId: {request_id} Error: Task timed out after {timeout_seconds:.2f} seconds"
        return {"errorType": "Sandbox.Timedout", "errorMessage": message}
    reason = f"signal: {-status}" if status < 0 else f"exit status {status}"
    what = "without providing a reason" if status == 0 else f"with error: {reason}"
    message = f"RequestId: {request_id} Error: Runtime exited {what}"
    return {"errorType": "Runtime.ExitError", "errorMessage": message}


# --- the service ----------------------------------------------------------------------------------------------------


def log_lines(config: Mapping[str, Any], request_id: str, invocation: Invocation) -> list[str]:
    """Return the log of an invocation: what the function printed, between the lines of the platform.

    https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html
    """
    fields = {
        "Duration": f"{invocation.milliseconds:.2f} ms",
        "Billed Duration": f"{math.ceil(invocation.milliseconds)} ms",
        "Memory Size": f"{config.get('MemorySize', 128)} MB",
        "Max Memory Used": f"{invocation.max_memory_mb} MB",
    }
    if invocation.init_milliseconds is not None:
        fields["Init Duration"] = f"{invocation.init_milliseconds:.2f} ms"
    report = "\t".join([f"REPORT RequestId: {request_id}", *(f"{name}: {value}" for name, value in fields.items())])
    start = f"START RequestId: {request_id} Version: {config.get('Version', '$LATEST')}"
    return [start, *invocation.lines, f"END RequestId: {request_id}", report]


class LambdaRuntime:
    """Invocations, their limits, logs and metrics, in the place of MiniStack's."""

    def __init__(self, endpoint: Endpoint, service: ModuleType, pool: ModuleType, logs: ModuleType) -> None:
        self._endpoint = endpoint
        self._service = service
        self._pool = pool
        self._logs = logs
        settings = endpoint.settings
        python = settings.tools_directory / "lambda-runtime" / "bin" / "python"
        directory = settings.state_directory / "lambda"
        shutil.rmtree(directory, ignore_errors=True)
        self._machine = Machine(
            endpoint=endpoint,
            python=python,
            packages=HostPackages(
                settings.tools_directory / "lambda-packages", python, find_uv(settings.tools_directory)
            ),
            directory=directory,
        )

    def environment_class(self, config: Mapping[str, Any]) -> Callable[..., ExecutionEnvironment]:
        """Return what makes an execution environment for a function.

        Raises:
            RuntimeUnavailableError: the function is not one that can be run here.
        """
        runtime = str(config.get("Runtime", ""))
        if not runtime.startswith("python"):
            raise RuntimeUnavailableError(
                f"The embedded endpoint runs Python functions only, not {runtime or 'images'}"
            )
        if config.get("Layers"):
            raise RuntimeUnavailableError("The embedded endpoint does not model layers")

        def make(function_name: str, config: dict[str, Any], code_zip: bytes) -> ExecutionEnvironment:
            return ExecutionEnvironment(self._machine, function_name, config, code_zip)

        return make

    def execute(self, function: dict[str, Any], event: Any, request_id: str) -> Result:
        """Run a function in a free environment and return MiniStack's form of the outcome."""
        config: dict[str, Any] = function.get("config") or function
        # At every start, so that a stale environment never answers with the rights of another role.
        try:
            self._endpoint.client(
                "sts", config["Role"], config["FunctionName"], SERVICE_PRINCIPAL, config["FunctionArn"]
            )
            invocation, log_stream = self._in_environment(config, function.get("code_zip") or b"", event, request_id)
        except (RuntimeUnavailableError, TrustError, zipfile.BadZipFile) as problem:
            logger.warning("%s cannot run: %s", config["FunctionName"], problem)
            error = {"errorType": type(problem).__name__, "errorMessage": str(problem)}
            invocation, log_stream = Invocation(None, error, [f"[ERROR] {problem}"], 0.0), request_id
        result = self._outcome(invocation, request_id)
        lines = log_lines(config, request_id, invocation)
        self._write_log(config, log_stream, lines)
        self._count(config["FunctionName"], invocation.milliseconds, failed="error" in result)
        # LogResult is the end of the log (https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html).
        return {**result, "log": "".join(f"{line}\n" for line in lines)}

    def _in_environment(
        self, config: dict[str, Any], code_zip: bytes, event: Any, request_id: str
    ) -> tuple[Invocation, str]:
        seams.require(self._service, "_ensure_reaper_thread")()
        while True:
            environment, _ = seams.require(self._pool, "acquire_worker")(
                config["FunctionName"], config, code_zip, qualifier=config.get("Version", "$LATEST")
            )
            if environment.is_usable and configuration_key(environment.config) == configuration_key(config):
                break
            self._remove(environment)
        environment.config = config
        try:
            invocation: Invocation = environment.invoke(request_id, event, float(config.get("Timeout", 3)))
        except BaseException:
            self._remove(environment)
            raise
        if environment.is_usable and environment._proc is not None:
            seams.require(self._pool, "release_worker")(environment)
        else:
            self._remove(environment)
        return invocation, environment.log_stream

    def _remove(self, environment: ExecutionEnvironment) -> None:
        with seams.require(self._pool, "_lock"):
            for environments in seams.require(self._pool, "_workers").values():
                if environment in environments:
                    environments.remove(environment)
        environment.stop()

    @staticmethod
    def _outcome(invocation: Invocation, request_id: str) -> Result:
        if invocation.error is not None:
            return {"body": invocation.error, "error": True}
        assert invocation.payload is not None  # noqa: S101
        if len(invocation.payload.encode()) > RESPONSE_BYTES:
            message = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_BYTES} bytes)."
            error = {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message, "requestId": request_id}
            return {"body": error, "error": True}
        return {"body": json.loads(invocation.payload)}

    def _write_log(self, config: Mapping[str, Any], stream: str, lines: Sequence[str]) -> None:
        group = log_group_name(config)
        if not self._may_write(config["Role"], group, stream):
            logger.warning("%s: its role may not write to the log group %s", config["FunctionName"], group)
            return
        now = int(time.time() * 1000)
        seams.require(self._logs, "_put_log_events")(
            {
                "logGroupName": group,
                "logStreamName": stream,
                "logEvents": [{"timestamp": now, "message": line} for line in lines],
            }
        )
        for line in lines:
            for metric in embedded_metrics(line):
                self._endpoint.put_metric(metric.namespace, metric.name, metric.value, metric.unit, metric.dimensions)

    def _may_write(self, role_arn: str, group: str, stream: str) -> bool:
        """Make group and stream if they do not exist, as far as the role allows it, and say whether it may write.

        https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html#monitoring-cloudwatchlogs-prereqs
        """
        settings = self._endpoint.settings
        group_arn = f"arn:aws:logs:{settings.region}:{settings.account_id}:log-group:{group}"
        groups = seams.require(self._logs, "_log_groups")
        if group not in groups:
            if not role_allows(settings, role_arn, "logs:CreateLogGroup", f"{group_arn}:*"):
                return False
            seams.require(self._logs, "_create_log_group")({"logGroupName": group})
        stream_arn = f"{group_arn}:log-stream:{stream}"
        if stream not in groups[group]["streams"]:
            if not role_allows(settings, role_arn, "logs:CreateLogStream", f"{group_arn}:*"):
                return False
            seams.require(self._logs, "_create_log_stream")({"logGroupName": group, "logStreamName": stream})
        return role_allows(settings, role_arn, "logs:PutLogEvents", stream_arn)

    def _count(self, function_name: str, milliseconds: float, failed: bool) -> None:
        """Put the metrics of one invocation: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html."""
        dimensions = {"FunctionName": function_name}
        put_metric = self._endpoint.put_metric
        put_metric("AWS/Lambda", "Invocations", 1, "Count", dimensions)
        put_metric("AWS/Lambda", "Errors", int(failed), "Count", dimensions)
        put_metric("AWS/Lambda", "Throttles", 0, "Count", dimensions)
        put_metric("AWS/Lambda", "Duration", milliseconds, "Milliseconds", dimensions)

    def refused_request(self, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes] | None:
        """Return the answer to a request that is too large, None for one that is not.

        https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors
        """
        asynchronous = _header(headers, "x-amz-invocation-type") == "Event"
        limit = ASYNCHRONOUS_REQUEST_BYTES if asynchronous else SYNCHRONOUS_REQUEST_BYTES
        if int(_header(headers, "content-length") or 0) <= limit:
            return None
        message = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
        body = json.dumps({"Type": "User", "message": message}).encode()
        return 413, {"Content-Type": "application/json", "x-amzn-ErrorType": "RequestTooLargeException"}, body

    def install(self) -> None:
        """Take the places of MiniStack's executor, pool members, logs and limits."""
        service = self._service
        seams.replace(self._pool, "_worker_class_for", self.environment_class)
        seams.replace(service, "_execute_function_warm", self.execute)
        seams.replace(service, "_emit_lambda_logs", _nothing)
        original_metrics = seams.require(service, "_emit_lambda_metrics")

        def emit_metrics(function_name: str, duration_ms: float, error: bool, throttle: bool) -> None:
            if throttle:
                original_metrics(function_name, duration_ms=duration_ms, error=error, throttle=True)

        seams.replace(service, "_emit_lambda_metrics", emit_metrics)
        seams.replace(service, "_LAMBDA_ASYNC_RETRY_BASE_SECONDS", FIRST_RETRY_SECONDS)
        seams.replace(service, "_LAMBDA_ASYNC_RETRY_MAX_SECONDS", LONGEST_RETRY_SECONDS)
        seams.replace(self._pool, "_LOCAL_WORKER_TTL", IDLE_SECONDS)
        original_invoke = seams.require(service, "_invoke")

        async def invoke(name: str, event: Any, headers: dict[str, str], *arguments: Any, **others: Any) -> Any:
            return self.refused_request(headers) or await original_invoke(name, event, headers, *arguments, **others)

        seams.replace(service, "_invoke", invoke)


def _nothing(*_arguments: Any, **_others: Any) -> None:
    return None


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name), "")


def install(endpoint: Endpoint) -> None:
    """Run functions in environments like Lambda's."""
    from ministack.core import lambda_runtime as pool
    from ministack.services import cloudwatch_logs, lambda_svc

    LambdaRuntime(endpoint, lambda_svc, pool, cloudwatch_logs).install()
