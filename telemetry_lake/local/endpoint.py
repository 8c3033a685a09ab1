"""The embedded AWS endpoint as one process: MiniStack, the service modules around it, and their shared services.

Known deviations from AWS:

* One account and one region are served; service roles get sessions that do not expire while the endpoint runs.
* Everything is bound to 127.0.0.1.
"""

import asyncio
import contextvars
import importlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from telemetry_lake.local import seams, tls

ACCOUNT_ID = "123456789012"
ROOT_ACCESS_KEY_ID = "test"
ROOT_SECRET_ACCESS_KEY = "test"  # noqa: S105  the laptop's dummy credentials, as every AWS emulator takes them

# The order is the order of installation: the files that S3 starts from, layers under the services, the services, and
# last what goes over all answers.
SERVICE_MODULES = (
    "object_files",
    "access",
    "authorization",
    "encryption",
    "cloudformation",
    "lambda_runtime",
    "object_events",
    "kinesis",
    "cloudwatch",
    "log_retention",
    "glue_catalog",
    "glue_table_versions",
    "glue_jobs",
    "crawler",
    "athena",
    "firehose",
    "pipes",
    "scheduler",
    "stepfunctions",
    "stack_changes",
    "execution_archive",
    "answers",
    "durability",
    "disturbances",
)

# Whose state has changed when a service publishes an event of its own.
MODULES_BY_EVENT_SOURCE = {"aws.athena": "athena", "aws.glue": "glue", "aws.states": "stepfunctions"}

Worker = Callable[[threading.Event], None]

logger = logging.getLogger("telemetry_lake.local")


@dataclass(frozen=True)
class EndpointSettings:
    """Where the endpoint listens and where it keeps its state.

    ``listener`` is the descriptor of a socket that listens on the port already, None to make one.
    """

    port: int
    state_directory: Path
    tools_directory: Path
    region: str = "ap-northeast-1"
    account_id: str = ACCOUNT_ID
    tls_files: tls.TlsFiles | None = None
    listener: int | None = None

    @property
    def base_url(self) -> str:
        """The URL that goes into ``AWS_ENDPOINT_URL``."""
        return f"{'http' if self.tls_files is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def authority(self) -> str | None:
        """The file that goes into ``AWS_CA_BUNDLE`` and boto3's ``verify``, None without TLS."""
        return None if self.tls_files is None else str(self.tls_files.authority)

    @property
    def trust_variables(self) -> dict[str, str]:
        """The environment variables with which AWS SDKs trust the endpoint, none without TLS."""
        return {} if self.authority is None else {"AWS_CA_BUNDLE": self.authority}


class StoppingError(RuntimeError):
    """The endpoint is being stopped: what waits for something of it waits in vain."""


class TrustError(PermissionError):
    """A service principal may not assume a role: its trust policy does not name it."""


class Endpoint:
    """What the service modules share: clients that act for a role, workers, events and metrics."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._workers: list[threading.Thread] = []
        self._ready_callbacks: list[Callable[[], None]] = []
        self._stop_callbacks: list[Callable[[], None]] = []
        self._change_callbacks: list[Callable[[str], None]] = []
        self._written_callbacks: list[Callable[[], None]] = []
        self._clients: dict[tuple[str, str | None, str, float, int], Any] = {}
        self._clients_lock = threading.Lock()

    def client(
        self,
        service: str,
        role_arn: str | None = None,
        session_name: str = "service",
        service_principal: str | None = None,
        source_arn: str | None = None,
        *,
        read_timeout_seconds: float = 60.0,
        attempts: int = 3,
    ) -> Any:
        """Return a boto3 client of this endpoint, as the account's root or with a session of ``role_arn``.

        A service that acts for a role names itself in ``service_principal``, for example
        ``firehose.amazonaws.com``: then the role's trust policy has to allow it, with ``aws:SourceAccount`` and
        ``aws:SourceArn`` as AWS sets them
        (https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html). A call that must not happen twice,
        or that takes long, such as the invocation of a function, sets ``attempts`` and ``read_timeout_seconds``.
        Never call it, nor the client, on the server's event loop: the answer would come from that very loop.

        Raises:
            TrustError: the role does not exist or does not trust ``service_principal``.
        """
        if role_arn is not None and service_principal is not None:
            self._assert_trusted(role_arn, service_principal, source_arn)
        key = (service, role_arn, session_name, read_timeout_seconds, attempts)
        with self._clients_lock:
            if key not in self._clients:
                self._clients[key] = boto3.client(
                    service,  # type: ignore[call-overload]
                    endpoint_url=self.settings.base_url,
                    verify=self.settings.authority,
                    region_name=self.settings.region,
                    config=Config(
                        max_pool_connections=32,
                        read_timeout=read_timeout_seconds,
                        retries={"mode": "standard", "total_max_attempts": attempts},
                    ),
                    **self.credentials(role_arn, session_name),
                )
            return self._clients[key]

    def credentials(self, role_arn: str | None = None, session_name: str = "service") -> dict[str, str]:
        """Return boto3's credential arguments for the account's root or for a session of ``role_arn``."""
        if role_arn is None:
            return {"aws_access_key_id": ROOT_ACCESS_KEY_ID, "aws_secret_access_key": ROOT_SECRET_ACCESS_KEY}
        from ministack.core import lambda_runtime  # MiniStack reads the environment when it is imported

        scope = f"{self.settings.region}:{self.settings.account_id}"
        session = seams.require(lambda_runtime, "execution_credentials")(
            {
                "FunctionArn": f"arn:aws:lambda:{scope}:function:{session_name}",
                "Role": role_arn,
                "FunctionName": session_name,
            }
        )
        return {
            "aws_access_key_id": session["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": session["AWS_SECRET_ACCESS_KEY"],
            "aws_session_token": session["AWS_SESSION_TOKEN"],
        }

    def _assert_trusted(self, role_arn: str, service_principal: str, source_arn: str | None) -> None:
        from ministack.core import iam_evaluator
        from ministack.services import iam

        account_id = self.settings.account_id
        role = seams.require(iam, "_roles").get_scoped(account_id, None, role_arn.rsplit("/", 1)[-1])
        if role is None:
            raise TrustError(f"The role {role_arn} does not exist")
        document = role["AssumeRolePolicyDocument"]
        statements = (json.loads(document) if isinstance(document, str) else document)["Statement"]
        context = iam_evaluator.EvalContext(
            principal_arn=service_principal,
            principal_type="AWSService",
            principal_account=account_id,
            action="sts:AssumeRole",
            resource_arn=role_arn,
            region=self.settings.region,
            service_context={
                "aws:sourceaccount": account_id,
                **({"aws:sourcearn": source_arn} if source_arn is not None else {}),
            },
        )
        names_service = seams.require(iam_evaluator, "_service_principal_matches")
        conditions_met = seams.require(iam_evaluator, "_conditions_met")
        if not any(
            statement["Effect"] == "Allow"
            and names_service(statement.get("Principal"), service_principal)
            and conditions_met(statement.get("Condition", {}), context)
            for statement in ([statements] if isinstance(statements, dict) else statements)
        ):
            raise TrustError(f"{service_principal} is not allowed to assume {role_arn}: see its trust policy")

    def start_worker(self, name: str, target: Worker) -> threading.Thread:
        """Run ``target(stopping)`` in a thread once the endpoint answers; it has to return soon after ``stopping``."""

        def run() -> None:
            self._ready.wait()
            if self._stopping.is_set():
                return
            try:
                target(self._stopping)
            except Exception:
                logger.exception("The worker %s ended with an error", name)
                raise

        with self.scope():
            context = contextvars.copy_context()
        worker = threading.Thread(target=context.run, args=(run,), name=name, daemon=True)
        self._workers = [known for known in self._workers if known.is_alive() or known.ident is None] + [worker]
        worker.start()
        return worker

    def pause(self, seconds: float) -> None:
        """Wait on a thread that is no worker, for instance for a state that a worker brings about.

        Raises:
            StoppingError: the endpoint is being stopped.
        """
        if self._stopping.wait(seconds):
            raise StoppingError("the endpoint is being stopped")

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` in a thread of its own once the endpoint answers, with restored state in place."""
        self._ready_callbacks.append(callback)

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` on a graceful stop, while the endpoint still answers."""
        self._stop_callbacks.append(callback)

    def on_change(self, callback: Callable[[str], None], wait_until_written: Callable[[], None]) -> None:
        """Call ``callback`` with the name of the MiniStack module whose state has changed without a request.

        ``wait_until_written`` returns when everything that was noted before is on disk.
        """
        self._change_callbacks.append(callback)
        self._written_callbacks.append(wait_until_written)

    def changed(self, service: str) -> None:
        """Note that the state of MiniStack's module ``service`` has changed, beside what a request to it does."""
        for callback in self._change_callbacks:
            callback(service)

    def wait_until_written(self) -> None:
        """Wait until what was noted as changed is on disk, before a step that cannot be taken back.

        Never call it on the server's event loop.
        """
        for callback in self._written_callbacks:
            callback()

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Set MiniStack's account and region for code that touches its stores outside of a request."""
        from ministack.core import responses

        account = responses._request_account_id.set(self.settings.account_id)
        region = responses._request_region.set(self.settings.region)
        try:
            yield
        finally:
            responses._request_region.reset(region)
            responses._request_account_id.reset(account)

    def publish_event(
        self, source: str, detail_type: str, detail: Mapping[str, Any], resources: Sequence[str] = ()
    ) -> None:
        """Publish an event of an AWS service (``source`` such as ``aws.glue``) on the default event bus."""
        from ministack.services import eventbridge

        entry = {
            "Source": source,
            "DetailType": detail_type,
            "Detail": json.dumps(detail),
            "Resources": list(resources),
        }
        with self.scope():
            seams.require(eventbridge, "_put_events")({"Entries": [entry]}, allow_aws_source=True)
        if source in MODULES_BY_EVENT_SOURCE:
            self.changed(MODULES_BY_EVENT_SOURCE[source])

    def put_metric(self, namespace: str, name: str, value: float, unit: str, dimensions: Mapping[str, str]) -> None:
        """Store one value of a service's own metric, stamped now; callers outside may not write ``AWS/…``."""
        from ministack.services import cloudwatch

        with self.scope():
            seams.require(cloudwatch, "record_metric")(namespace, name, value, unit, dict(dimensions))

    def mark_ready(self) -> None:
        """Let the workers and the ready callbacks start."""
        self._ready.set()
        for callback in self._ready_callbacks:
            self.start_worker("on-ready", _without_stopping(callback))

    def stop(self, worker_seconds: float = 20.0) -> None:
        """Tell the workers to end, run the stop callbacks, and wait for all of them."""
        self._stopping.set()
        self._ready.set()
        for callback in self._stop_callbacks:
            try:
                callback()
            except Exception:
                logger.exception("A stop callback failed; the others still run")
        for worker in self._workers:
            worker.join(worker_seconds)


def _without_stopping(callback: Callable[[], None]) -> Worker:
    def worker(_stopping: threading.Event) -> None:
        callback()

    return worker


def _environment(settings: EndpointSettings) -> dict[str, str]:
    """MiniStack's settings: all of them are read from the environment when it is imported."""
    return {
        "GATEWAY_PORT": str(settings.port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_REGION": settings.region,
        "MINISTACK_ACCOUNT_ID": settings.account_id,
        "AUTH": "true",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(settings.state_directory / "services"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(settings.state_directory / "s3"),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": "unix:///nonexistent",
        # MiniStack puts it into the URLs that it gives out.
        "USE_SSL": "0" if settings.tls_files is None else "1",
        "AWS_ACCESS_KEY_ID": ROOT_ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": ROOT_SECRET_ACCESS_KEY,
    }


def _clear_foreign_environment() -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "MINISTACK_", "LOCALSTACK_"))]:
        del os.environ[name]


async def _serve(endpoint: Endpoint, stop_requested: asyncio.Event) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config as ServerConfig
    from ministack import app

    config = ServerConfig()
    listener = endpoint.settings.listener
    config.bind = [f"127.0.0.1:{endpoint.settings.port}" if listener is None else f"fd://{listener}"]
    config.loglevel = "WARNING"
    config.keep_alive_timeout = 75
    config.graceful_timeout = 2
    if endpoint.settings.tls_files is not None:
        config.certfile = str(endpoint.settings.tls_files.certificate)
        config.keyfile = str(endpoint.settings.tls_files.key)
        config.alpn_protocols = ["http/1.1"]  # the one that is spoken without TLS too

    server_may_stop = asyncio.Event()
    server = asyncio.create_task(serve(app.app, config, shutdown_trigger=server_may_stop.wait))
    await asyncio.to_thread(_wait_until_answering, endpoint.settings)
    endpoint.mark_ready()
    logger.info("ready at %s", endpoint.settings.base_url)
    stop_waiter = asyncio.create_task(stop_requested.wait())
    await asyncio.wait({stop_waiter, server}, return_when=asyncio.FIRST_COMPLETED)
    logger.info("stopping")
    await asyncio.to_thread(endpoint.stop)
    server_may_stop.set()
    await server


def _wait_until_answering(settings: EndpointSettings, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    authority = None if settings.tls_files is None else settings.tls_files.authority
    while not tls.answers(f"{settings.base_url}/_ministack/health", authority):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{settings.base_url} does not answer after {seconds:.0f} s")
        time.sleep(0.05)


def run(settings: EndpointSettings, exit_with_parent: bool) -> None:
    """Serve until SIGTERM, SIGINT or, with ``exit_with_parent``, the end of standard input."""
    settings.state_directory.mkdir(parents=True, exist_ok=True)
    _clear_foreign_environment()
    os.environ.update(_environment(settings))
    endpoint = Endpoint(settings)
    for name in SERVICE_MODULES:
        importlib.import_module(f"telemetry_lake.local.{name}").install(endpoint)

    async def main() -> None:
        stop_requested = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop_requested.set)
        if exit_with_parent:

            def wait_for_end_of_input() -> None:
                # Not sys.stdin: its buffer's lock, held by this thread, would end the interpreter with an error.
                while os.read(0, 4096):
                    pass
                loop.call_soon_threadsafe(stop_requested.set)

            threading.Thread(target=wait_for_end_of_input, name="parent-watch", daemon=True).start()
        await _serve(endpoint, stop_requested)

    with asyncio.Runner(loop_factory=tls.EventLoop) as runner:
        runner.run(main())
