"""The embedded AWS endpoint as seen from outside: one process whose traces are in one state directory.

A state directory holds ``endpoint.json`` (the running process), ``endpoint.log``, ``port`` and ``scheme`` (kept,
because queue URLs in a restored stack name them), ``deployment.json`` (what was deployed), ``deploy.log``, ``data/``
(objects, service state and, for TLS, certificates) and ``build/`` (what ``sam build`` made).
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from telemetry_lake import processes
from telemetry_lake.console import OperatorError, Reporter
from telemetry_lake.local import tls

DEFAULT_PORT = 4566
REGION = "ap-northeast-1"
MARK_VARIABLE = "TLAKE_ENDPOINT_MARK"
START_SECONDS = 90.0
STOP_SECONDS = 45.0
LOG_LINES_SHOWN = 20
OWN_FILES = (
    *("endpoint.json", "endpoint.log", "port", "scheme", "deployment.json", "deploy.log", "lock"),
    # Of the demo.
    *("ledger.jsonl", "report.html"),
)
OWN_DIRECTORIES = ("data", "build", "build-cache", "sam")


@dataclass(frozen=True)
class Instance:
    """A running endpoint: its process, its port, and the mark that all its child processes carry.

    ``authority`` is the file for ``AWS_CA_BUNDLE`` of one that serves over TLS.
    """

    pid: int
    started: str
    port: int
    mark: str
    region: str = REGION
    authority: str | None = None

    @property
    def endpoint_url(self) -> str:
        """The URL for ``AWS_ENDPOINT_URL``."""
        return f"{'http' if self.authority is None else 'https'}://127.0.0.1:{self.port}"


class Laptop:
    """One state directory and the endpoint that may run on it."""

    def __init__(self, directory: Path) -> None:
        """Name the state directory; nothing is made until the endpoint starts."""
        self.directory = directory.absolute()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def log_file(self) -> Path:
        """Where the endpoint writes what it does."""
        return self.directory / "endpoint.log"

    @property
    def _instance_file(self) -> Path:
        return self.directory / "endpoint.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other ``up`` and ``down`` commands off this state directory.

        Raises:
            OperatorError: another one is at work.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OperatorError(
                    f"Another tlake command is starting or stopping {self.directory}.", "Wait for it and try again."
                ) from None
            yield

    def recorded(self) -> Instance | None:
        """Return the endpoint that the state directory names, whether it runs or not."""
        try:
            return Instance(**json.loads(self._instance_file.read_text()))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, TypeError):
            return None  # half-written by a killed command: it names no process

    def instance(self) -> Instance | None:
        """Return the running endpoint; a record of one that ended without cleaning up (a stale one) counts as none."""
        recorded = self.recorded()
        if recorded is None or not _runs(recorded):
            return None
        return recorded

    def clear_stale(self, reporter: Reporter) -> None:
        """Remove what an endpoint left that ended without ``tlake down``: its record and its child processes."""
        recorded = self.recorded()
        if recorded is None:
            self._instance_file.unlink(missing_ok=True)
            return
        if _runs(recorded):
            return
        reporter.line(
            f"The endpoint of {self.directory} (process {recorded.pid}) ended without tlake down: cleaning up."
        )
        self._end_children(recorded, [])
        self._instance_file.unlink(missing_ok=True)

    def start(
        self,
        tools_directory: Path,
        port: int | None,
        exit_with_parent: bool,
        reporter: Reporter,
        *,
        over_tls: bool | None = None,
    ) -> Instance:
        """Start the endpoint and wait until it answers: `launch` and `wait_until_answering`.

        Raises:
            OperatorError: the port is taken, or the endpoint ended or does not answer; its last lines are shown.
        """
        instance = self.launch(tools_directory, port, exit_with_parent, reporter, over_tls=over_tls)
        self.wait_until_answering(instance, reporter)
        return instance

    def launch(
        self,
        tools_directory: Path,
        port: int | None,
        exit_with_parent: bool,
        reporter: Reporter,
        *,
        over_tls: bool | None = None,
    ) -> Instance:
        """Start the endpoint's process, which answers some seconds later.

        Args:
            tools_directory: where the environments of Spark and of the Lambda runtime are.
            port: the port to use, or None for the last one, else 4566, else any free one.
            exit_with_parent: let the endpoint end with this process, however it ends.
            reporter: shows the progress.
            over_tls: serve over TLS, or None for as the last time, else without.

        Raises:
            OperatorError: the port is taken.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._listener(port, reporter) as listener:
            return self._launch(listener, tools_directory, exit_with_parent, over_tls)

    def _listener(self, port: int | None, reporter: Reporter) -> socket.socket:
        preferred = port if port is not None else self._last_port()
        try:
            return listen(preferred)
        except OSError:
            if port is not None:
                raise OperatorError(
                    f"Port {port} is taken.", "Name another one with --port, or leave it out."
                ) from None
        listener = listen(0)
        reporter.line(f"Port {preferred} is taken: using {listener.getsockname()[1]}.")
        return listener

    def _launch(
        self, listener: socket.socket, tools_directory: Path, exit_with_parent: bool, over_tls: bool | None
    ) -> Instance:
        chosen = listener.getsockname()[1]
        mark = uuid.uuid4().hex
        data = self.directory / "data"
        with_tls = self._last_over_tls() if over_tls is None else over_tls
        authority = str(tls.TlsFiles.of_state(data).authority) if with_tls else None
        command = [
            *(sys.executable, "-P", "-m", "telemetry_lake.local"),
            *("--state-directory", str(data)),
            *("--tools-directory", str(tools_directory)),
            *("--port", str(chosen), "--listener", str(listener.fileno()), "--region", REGION),
            *(("--exit-with-parent",) if exit_with_parent else ()),
            *(("--tls",) if with_tls else ()),
        ]
        with interrupts_deferred(), self.log_file.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE if exit_with_parent else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[listener.fileno()],
                cwd=self.directory,
                env={**os.environ, MARK_VARIABLE: mark, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
            )
            instance = Instance(self._child.pid, _start_time(self._child.pid), chosen, mark, authority=authority)
            _write(self._instance_file, json.dumps(asdict(instance)))
            _write(self.directory / "port", str(chosen))
            _write(self.directory / "scheme", "https" if with_tls else "http")
        return instance

    def wait_until_answering(self, instance: Instance, reporter: Reporter) -> None:
        """Wait for an endpoint that was launched; it is stopped when this fails or is interrupted.

        Raises:
            OperatorError: it ended or does not answer; its last lines are shown.
        """
        try:
            with reporter.step("Starting the embedded AWS endpoint") as step:
                self._wait_until_answering(instance)
                step.update(note=instance.endpoint_url)
        except BaseException:
            self.stop(reporter, quietly=True)
            raise

    def stop(self, reporter: Reporter, quietly: bool = False) -> bool:
        """Stop the endpoint gracefully, by force after 45 s, and make sure that nothing of it is left.

        Returns:
            Whether one was running.

        Raises:
            OperatorError: a process of it would not end.
        """
        with _undisturbed():
            instance = self.recorded()
            if instance is None or not _runs(instance):
                self.clear_stale(reporter)
                return False
            now = processes.running()
            children = [now[pid] for pid in processes.descendants(instance.pid, now)]
            if quietly:
                self._terminate(instance, reporter)
            else:
                with reporter.step("Stopping the embedded AWS endpoint"):
                    self._terminate(instance, reporter)
            self._end_children(instance, children)
            self._instance_file.unlink(missing_ok=True)
            return True

    def delete_data(self) -> None:
        """Delete what the endpoint and the deployment wrote; files of others in the directory stay."""
        for name in OWN_DIRECTORIES:
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for name in OWN_FILES:
            (self.directory / name).unlink(missing_ok=True)
        if self.directory.exists() and not any(self.directory.iterdir()):
            self.directory.rmdir()

    def last_log_lines(self, number: int = LOG_LINES_SHOWN) -> str:
        """Return the end of the endpoint's log."""
        try:
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-number:])
        except FileNotFoundError:
            return "(no log)"

    def _last_port(self) -> int:
        try:
            return int((self.directory / "port").read_text())
        except (FileNotFoundError, ValueError):
            return DEFAULT_PORT

    def _last_over_tls(self) -> bool:
        try:
            return (self.directory / "scheme").read_text() == "https"
        except FileNotFoundError:
            return False

    def _wait_until_answering(self, instance: Instance) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not answers(instance):
            if not _runs(instance):
                raise OperatorError(
                    f"The embedded endpoint ended while it started. Its last lines:\n{self.last_log_lines()}",
                    f"The whole log: {self.log_file}",
                )
            if time.monotonic() > deadline:
                raise OperatorError(
                    f"The embedded endpoint does not answer after {START_SECONDS:.0f} s. Its last lines:\n"
                    f"{self.last_log_lines()}",
                    f"The whole log: {self.log_file}",
                )
            time.sleep(0.1)

    def _terminate(self, instance: Instance, reporter: Reporter) -> None:
        try:
            os.kill(instance.pid, signal.SIGTERM)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + STOP_SECONDS
        while _runs(instance):
            if self._child is not None and self._child.pid == instance.pid:
                self._child.poll()
            if time.monotonic() > deadline:
                reporter.line(
                    f"It did not stop within {STOP_SECONDS:.0f} s and is ended by force: unsaved state is lost.",
                    style="yellow",
                )
                os.kill(instance.pid, signal.SIGKILL)
                deadline = time.monotonic() + STOP_SECONDS
            time.sleep(0.1)

    def _end_children(self, instance: Instance, known: Collection[processes.Process]) -> None:
        now = processes.running()
        own: set[int] = set()
        # A number is not given out again while a group bears it: a stranger of that number means that ours is gone.
        if instance.pid not in now or now[instance.pid].started == instance.started:
            own |= {process.pid for process in now.values() if process.group == instance.pid}
        own |= processes.marked(MARK_VARIABLE, instance.mark, now.values())
        own |= {process.pid for process in processes.still_running(known)}
        left = processes.end([now[pid] for pid in own if pid in now and pid != os.getpid()])
        if left:
            names = "\n".join(f"  {process.pid} {process.command[:100]}" for process in left)
            raise OperatorError(f"Processes of the endpoint are still there:\n{names}", "End them by hand (kill -9).")


def answers(instance: Instance) -> bool:
    """Tell whether an embedded endpoint serves."""
    authority = None if instance.authority is None else Path(instance.authority)
    return tls.answers(f"{instance.endpoint_url}/_ministack/health", authority)


def listen(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1:``port``, 0 for any free one; nobody else can take it meanwhile.

    Raises:
        OSError: the port is taken.
    """
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on 127.0.0.1:``port`` now."""
    try:
        listen(port).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses now."""
    with listen(0) as listener:
        return int(listener.getsockname()[1])


def _runs(instance: Instance) -> bool:
    process = processes.running().get(instance.pid)
    return process is not None and process.started == instance.started


def _start_time(pid: int) -> str:
    process = processes.running().get(pid)
    return "" if process is None else process.started


def _write(file: Path, text: str) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(file)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Finish the block even when Ctrl-C is pressed again: half a clean-up would leave processes behind."""
    with _handled(signal.SIG_IGN):
        yield


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Raise a Ctrl-C after the block: a process that was started is recorded, so that it can be stopped.

    The signals are not ignored but caught, since the new process would inherit being deaf to them.
    """
    received: list[int] = []
    with _handled(lambda number, _frame: received.append(number)):
        yield
    if received:
        raise KeyboardInterrupt


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)
