"""What the unit tests share: the environment a function is deployed with, and its handler, imported under it."""

import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from moto import mock_aws

EVENTS_DIRECTORY = Path(__file__).parents[2] / "events"

# A verdict must not depend on how busy the machine is.
hypothesis_settings.register_profile("unit", deadline=None, max_examples=100)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))

FUNCTION_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
    "AWS_DEFAULT_REGION": "ap-northeast-1",
    "STAGE": "prod",
    "POWERTOOLS_SERVICE_NAME": "a-name-that-must-not-become-a-dimension",
    "POWERTOOLS_METRICS_NAMESPACE": "TelemetryLake",
    "POWERTOOLS_LOG_LEVEL": "INFO",
    "TEMPERATURE_MIN": "-100",
    "TEMPERATURE_MAX": "200",
    "DLQ_BUCKET": "analytics",
    "DLQ_PREFIX": "dlq/raw_json/",
    "MAX_FUTURE_SECONDS": "300",
    "MAX_AGE_DAYS": "3650",
    "ATHENA_WORKGROUP": "temperature-analytics",
    "GLUE_DATABASE": "temperature_lake",
    "TABLE_NAME": "device_telemetry",
    "REJECTS_TABLE_NAME": "rejected_readings",
    "PARTITION_TIME_ZONE": "UTC",
    "CHECK_MAX_READING_AGE_SECONDS": "7200",
    "CHECK_LATE_AFTER_HOURS": "24",
    "CHECK_MAX_LATE_PERCENT": "10",
    "CHECK_MAX_OPEN_REJECTS_PERCENT": "5",
    "QUERY_TIMEOUT_SECONDS": "5",
    "SCANNED_BYTES_BUDGET": "1000000",
    "NOTIFICATIONS_TOPIC_ARN": "arn:aws:sns:ap-northeast-1:123456789012:temperature-notifications",
    "STACK_NAME": "telemetry-lake",
    "RUNBOOK_URL": "docs/runbook.md",
    "EXECUTIONS_ALARM": "temperature-pipeline-failed",
    "JOB_RUNS_ALARM": "temperature-job-failed",
    "CRAWLS_ALARM": "temperature-crawler-failed",
}


@dataclass(frozen=True)
class FakeLambdaContext:
    function_name: str = "function"
    memory_limit_in_mb: int = 128
    invoked_function_arn: str = "arn:aws:lambda:ap-northeast-1:123456789012:function:function"
    aws_request_id: str = "52fdfc07-2182-154f-163f-5f0f9a621d72"


@pytest.fixture(scope="session", autouse=True)
def nothing_of_an_account() -> Iterator[None]:
    """Whatever account the user works with, no test looks at it."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
            environment.delenv(name, raising=False)
        yield


@pytest.fixture
def lambda_context() -> FakeLambdaContext:
    return FakeLambdaContext()


@pytest.fixture
def load_handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a function's handler module anew, under its environment and with AWS mocked."""
    for name, value in FUNCTION_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    def load(function: str) -> ModuleType:
        # Both hold clients, and a mock ends with its test.
        for module in ("handler", "store"):
            monkeypatch.delitem(sys.modules, f"{function}.{module}", raising=False)
        # Powertools keeps the logger of a service, and that one writes to where standard output was in an earlier test.
        logging.Logger.manager.loggerDict.pop(FUNCTION_ENVIRONMENT["POWERTOOLS_SERVICE_NAME"], None)
        return importlib.import_module(f"{function}.handler")

    with mock_aws():
        yield load


@pytest.fixture
def load_event() -> Callable[[str], dict[str, Any]]:
    """Read a sample event by its path below ``events/``."""

    def load(path: str) -> dict[str, Any]:
        event: dict[str, Any] = json.loads((EVENTS_DIRECTORY / path).read_text("utf-8"))
        return event

    return load


@pytest.fixture
def emitted_metrics(capsys: pytest.CaptureFixture[str]) -> Callable[[], dict[tuple[str, ...], dict[str, float]]]:
    """Metrics written since the last call: {(namespace, dimension=value, ...): {name: value}}."""

    def read() -> dict[tuple[str, ...], dict[str, float]]:
        found: dict[tuple[str, ...], dict[str, float]] = {}
        for line in capsys.readouterr().out.splitlines():
            document = json.loads(line)
            for directive in document.get("_aws", {}).get("CloudWatchMetrics", ()):
                for names in directive["Dimensions"]:
                    key = (directive["Namespace"], *(f"{name}={document[name]}" for name in names))
                    values = {metric["Name"]: sum(document[metric["Name"]]) for metric in directive["Metrics"]}
                    found.setdefault(key, {}).update(values)
        return found

    return read
