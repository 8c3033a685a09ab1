"""A Trino server of its own for tests, over an endpoint's Glue catalog and S3, and queries to it.

https://trino.io/docs/476/connector/hive.html
https://trino.io/docs/476/develop/client-protocol.html
"""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.trino import installation
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess

CATALOG = "awsdatacatalog"
START_SECONDS = 600


@dataclass(frozen=True)
class Answer:
    """What a query gave: rows, and the bytes that it read."""

    rows: list[list[Any]]
    processed_bytes: int


class TrinoError(Exception):
    """A query failed; the text is Trino's."""


class TrinoServer:
    """Trino on a free port of 127.0.0.1, with one catalog."""

    def __init__(self, directory: Path, endpoint: EndpointProcess, first_query: str) -> None:
        """Start the server and wait until it answers ``first_query``, which should need a worker."""
        self._log = directory / "trino.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        catalogs = directory / "catalogs"
        catalogs.mkdir()
        _write(catalogs / f"{CATALOG}.properties", _catalog(endpoint.url))
        _write(directory / "config.properties", self._configuration(catalogs))
        command = [
            str(installation.java()),
            *("-Xmx1G", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djdk.attach.allowAttachSelf=true"),
            *("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"),
            f"-Dconfig={directory / 'config.properties'}",
            *("-cp", str(installation.home() / "lib" / "*"), "io.trino.server.TrinoServer"),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._wait_until_ready(first_query)
        except BaseException:
            self.stop()
            raise

    def _configuration(self, catalogs: Path) -> dict[str, str]:
        return {
            "coordinator": "true",
            "node-scheduler.include-coordinator": "true",
            "node.environment": "laptop",
            "node.id": "laptop",
            "node.bind-ip": "127.0.0.1",
            "node.internal-address": "127.0.0.1",
            "http-server.http.port": self.url.rpartition(":")[2],
            "discovery.uri": self.url,
            "catalog.config-dir": str(catalogs),
            "plugin.dir": str(installation.home() / "plugin"),
            "query.max-memory": "300MB",
            "query.max-memory-per-node": "300MB",
            "memory.heap-headroom-per-node": "200MB",
        }

    def _wait_until_ready(self, first_query: str) -> None:
        """Wait until the server has started and has found itself as a worker."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._process.poll() is not None:
                raise TrinoError(f"Trino ended while it started:\n{self._log.read_text()[-3000:]}")
            try:
                self.query(first_query)
            except (TrinoError, urllib.error.URLError) as error:
                if time.monotonic() > deadline:
                    raise TrinoError(f"Trino did not start within {START_SECONDS} s: {error}") from error
                time.sleep(1)
            else:
                return

    def query(self, sql: str, schema: str = "default") -> Answer:
        """Run a statement to its end.

        Raises:
            TrinoError: it failed.
        """
        headers = {"X-Trino-User": "test", "X-Trino-Catalog": CATALOG, "X-Trino-Schema": schema}
        request = urllib.request.Request(  # noqa: S310  the server's own address
            f"{self.url}/v1/statement", data=sql.encode(), headers=headers
        )
        rows: list[list[Any]] = []
        answer = _opened(request)
        while True:
            rows += answer.get("data", [])
            if "error" in answer:
                raise TrinoError(answer["error"]["message"])
            if "nextUri" not in answer:
                return Answer(rows, int(answer["stats"]["processedBytes"]))
            answer = _opened(answer["nextUri"])

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _opened(request: urllib.request.Request | str) -> dict[str, Any]:
    with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310  the server's own addresses
        answer: dict[str, Any] = json.load(response)
    return answer


def _catalog(endpoint_url: str) -> dict[str, str]:
    return {
        "connector.name": "hive",
        "hive.metastore": "glue",
        "hive.metastore.glue.region": REGION,
        "hive.metastore.glue.endpoint-url": endpoint_url,
        "hive.metastore.glue.aws-access-key": "test",
        "hive.metastore.glue.aws-secret-key": "test",
        "hive.metastore.glue.catalogid": ACCOUNT,
        "fs.native-s3.enabled": "true",
        "s3.endpoint": endpoint_url,
        "s3.region": REGION,
        "s3.aws-access-key": "test",
        "s3.aws-secret-key": "test",
        "s3.path-style-access": "true",
        "hive.partition-projection-enabled": "true",
        "hive.non-managed-table-writes-enabled": "true",
        "hive.security": "allow-all",
        # Small files would be read whole, with all of their columns.
        "parquet.small-file-threshold": "0B",
    }


def _write(file: Path, properties: dict[str, str]) -> None:
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
