"""An AWS endpoint of its own that writes down each request: MiniStack behind its server's access log.

The log is hypercorn's (https://hypercorn.readthedocs.io/en/latest/how_to_guides/logging.html), so what is counted is
what the server has answered, independently of who asked: Spark's file system as well as boto3.
"""

import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote

REGION = "ap-northeast-1"
ACCOUNT_ID = "123456789012"
START_SECONDS = 60
LOG_SECONDS = 20
LOG_FORMAT = "%(m)s %(U)s?%(q)s %(s)s %(B)s"
LOG_LINE = re.compile(r"(?P<method>[A-Z]+) (?P<path>[^?]*)\?(?P<query>\S*) (?P<status>\d+) (?P<length>\d+|-)$")
HEALTH_PATH = "/_ministack/health"


@dataclass(frozen=True)
class Request:
    """A request that was answered; ``answered_bytes`` is the length of the answer's body as it was announced."""

    method: str
    path: str
    query: str
    status: int
    answered_bytes: int

    def is_on(self, bucket: str, prefix: str) -> bool:
        """Tell whether it is about objects below a prefix, or lists them."""
        listed = parse_qs(self.query).get("prefix")
        if self.path.strip("/") == bucket:
            return listed is not None and (listed[0].startswith(prefix) or listed[0] == prefix.rstrip("/"))
        return self.path.startswith(f"/{bucket}/{prefix.rstrip('/')}")


@dataclass(frozen=True)
class CountedEndpoint:
    """A running endpoint."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @contextmanager
    def counting(self) -> Iterator[list[Request]]:
        """Collect the requests that are made inside of the block; the list is filled at its end."""
        collected: list[Request] = []
        begin = self._mark()
        yield collected
        end = self._mark()
        lines = self.log.read_text().splitlines()
        positions = [next(n for n, line in enumerate(lines) if mark in line) for mark in (begin, end)]
        collected += parse_log(lines[positions[0] + 1 : positions[1]])

    def _mark(self) -> str:
        """Leave a request in the log that can be found again, and wait until it is there: the log is in order."""
        mark = uuid.uuid4().hex
        with urllib.request.urlopen(f"{self.url}{HEALTH_PATH}?{mark}", timeout=LOG_SECONDS):  # noqa: S310  loopback
            pass
        deadline = time.monotonic() + LOG_SECONDS
        while mark not in self.log.read_text():
            if time.monotonic() > deadline:
                raise RuntimeError(f"The endpoint has not logged a request for {LOG_SECONDS} s: {self.log}")
            time.sleep(0.02)
        return mark


def parse_log(lines: Sequence[str]) -> list[Request]:
    """Read the access log.

    Raises:
        ValueError: a line is not in `LOG_FORMAT`.
    """
    requests = []
    for line in lines:
        found = LOG_LINE.search(line)
        if found is None:
            raise ValueError(f"Not a line of the access log: {line!r}")
        # A HEAD announces a length and sends none.
        length = 0 if found["length"] == "-" or found["method"] == "HEAD" else int(found["length"])
        requests.append(Request(found["method"], unquote(found["path"]), found["query"], int(found["status"]), length))
    return requests


@contextmanager
def serve(python: Path, directory: Path) -> Iterator[CountedEndpoint]:
    """Start an endpoint, and stop it at the end.

    Args:
        python: the interpreter that has MiniStack.
        directory: an existing one for its files.

    Raises:
        RuntimeError: it does not start; its log is in the message.
    """
    port = free_port()
    environment = {
        "PATH": os.defpath,
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": "unix:///nonexistent",
        "MINISTACK_ACCOUNT_ID": ACCOUNT_ID,
        "MINISTACK_REGION": REGION,
    }
    access_log, server_log = directory / "access.log", directory / "server.log"
    access_log.touch()
    command = [str(python), "-m", "hypercorn", "ministack.app:app", "--bind", f"127.0.0.1:{port}"]
    command += ["--access-logfile", str(access_log), "--access-logformat", LOG_FORMAT, "--keep-alive", "75"]
    with server_log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    endpoint = CountedEndpoint(f"http://127.0.0.1:{port}", process, access_log)
    try:
        _wait_for(endpoint, server_log)
        yield endpoint
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(endpoint: CountedEndpoint, server_log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{endpoint.url}{HEALTH_PATH}", timeout=2):  # noqa: S310  loopback
                return
        except (urllib.error.URLError, OSError):
            if endpoint.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The AWS endpoint did not start:\n{server_log.read_text()}") from None
            time.sleep(0.1)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def client_environment(url: str) -> dict[str, str]:
    """Return the variables with which boto3 and Spark find the endpoint."""
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_SESSION_TOKEN": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
