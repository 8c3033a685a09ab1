"""The embedded endpoint as a process of its own, for tests that use it through boto3 alone."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3

from telemetry_lake.local.tls import TlsFiles, answers

ACCOUNT = "123456789012"
REGION = "ap-northeast-1"


class EndpointProcess:
    """``python -m telemetry_lake.local`` on a free port, with its state in a directory of the test's."""

    def __init__(self, state_directory: Path, *, over_tls: bool = False) -> None:
        self.state_directory = state_directory
        self.files = TlsFiles.of_state(state_directory) if over_tls else None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    @property
    def log(self) -> str:
        return (self.state_directory / "log").read_text()

    @property
    def url(self) -> str:
        return f"{'http' if self.files is None else 'https'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "telemetry_lake.local", "--port", str(self.port), "--exit-with-parent"]
        command += ["--tls"] if self.files is not None else []
        with (self.state_directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--state-directory", str(self.state_directory)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers, 180)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log
        return answers(f"{self.url}/_ministack/health", None if self.files is None else self.files.authority)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(40)
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> None:
        """End it as a machine that loses its power does."""
        self.process.kill()
        self.process.wait(40)
        assert self.process.stdin is not None
        self.process.stdin.close()

    def client(self, service: str, **how: Any) -> Any:
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.url,
            verify=None if self.files is None else str(self.files.authority),
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            **how,
        )

    def datapoints(self, namespace: str, name: str, dimensions: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the statistics of a metric's last hour: one entry, or two if a full hour has struck."""
        now = time.time()
        points: list[dict[str, Any]] = self.client("cloudwatch").get_metric_statistics(
            Namespace=namespace,
            MetricName=name,
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
            StartTime=now - 3600,
            EndTime=now + 60,
            Period=3600,
            Statistics=["SampleCount", "Sum", "Minimum", "Maximum"],
        )["Datapoints"]
        return points

    def metric_sum(self, namespace: str, name: str, dimensions: Mapping[str, str]) -> float:
        """Return the sum of a metric's last hour."""
        return float(sum(point["Sum"] for point in self.datapoints(namespace, name, dimensions)))

    def role(self, name: str, principal: str, *statements: tuple[str, str]) -> str:
        """Create a role that a service may assume; each statement allows one action on one resource."""
        trust = {"Effect": "Allow", "Principal": {"Service": principal}, "Action": "sts:AssumeRole"}
        iam = self.client("iam")
        iam.create_role(
            RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        )
        allowed = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in statements]
        if allowed:
            document = json.dumps({"Version": "2012-10-17", "Statement": allowed})
            iam.put_role_policy(RoleName=name, PolicyName="access", PolicyDocument=document)
        return f"arn:aws:iam::{ACCOUNT}:role/{name}"


def wait_until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Return the condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.1)
    return met
