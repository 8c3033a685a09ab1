"""The Glue job on a real Spark, against an S3 and a Glue catalog that answer over HTTP.

Runs in the environment of a Glue version: ``.tools/glue-5.1/bin/python -m pytest tests/integration``.
"""

import gzip
import importlib.util
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest

from telemetry_lake.local import spark_runtime

PROJECT = Path(__file__).resolve().parents[2]
GLUE_RUNTIME = PROJECT / "telemetry_lake" / "local" / "glue_runtime"
SCRIPT = PROJECT / "glue" / "telemetry_etl.py"
SERVER_PYTHON = PROJECT / ".venv" / "bin" / "python"
REGION = "ap-northeast-1"

# Only a Glue environment has Spark; elsewhere there is nothing here to collect.
collect_ignore_glob = [] if importlib.util.find_spec("pyspark") else ["test_*.py"]

if str(GLUE_RUNTIME) not in sys.path:
    sys.path.insert(0, str(GLUE_RUNTIME))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an AWS endpoint of its own, also in the environment of this process."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    directory = tmp_path_factory.mktemp("endpoint")
    environment = {
        "PATH": os.defpath,
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": "unix:///nonexistent",
        "MINISTACK_ACCOUNT_ID": "123456789012",
        "MINISTACK_REGION": REGION,
    }
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(SERVER_PYTHON), "-m", "ministack"],
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    os.environ.update(
        {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_SESSION_TOKEN": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    )
    try:
        _wait_for(url, server, directory / "log")
        yield url
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/_ministack/health", timeout=2):  # noqa: S310  loopback
                return
        except (urllib.error.URLError, OSError):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The AWS endpoint did not start:\n{log.read_text()}") from None
            time.sleep(0.1)


@pytest.fixture(scope="session")
def spark_properties(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a Spark that reads and writes ``s3://`` at the endpoint."""
    directory = tmp_path_factory.mktemp("spark")
    runtime = spark_runtime.prepare(PROJECT / ".tools", "5.1", print)
    os.environ["JAVA_HOME"] = str(runtime.java_home)
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    properties = directory / "spark.conf"
    properties.write_text(spark_runtime.spark_defaults(runtime, endpoint, REGION, directory))
    return properties


@pytest.fixture(scope="session")
def spark(spark_properties: Path) -> Iterator[Any]:
    """The Spark session that all tests share."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_SUBMIT_ARGS"] = spark_runtime.submit_arguments(spark_properties)
    session = SparkSession.builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def etl() -> ModuleType:
    """The job's script as a module."""
    specification = importlib.util.spec_from_file_location("telemetry_etl", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["telemetry_etl"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(params=["false", "true"], ids=["ansi-off", "ansi-on"])
def configured_spark(request: pytest.FixtureRequest, spark: Any, etl: ModuleType) -> Iterator[Any]:
    """The session as the job sets it, once in each of Spark's two modes for bad casts."""
    etl.configure(spark)
    spark.conf.set("spark.sql.ansi.enabled", request.param)
    yield spark
    spark.conf.set("spark.sql.ansi.enabled", "false")


def reading(device_id: str = "device-1", temperature: Any = 21.5, timestamp: Any = 1_760_500_000, **more: Any) -> str:
    """The line of a reading."""
    return json.dumps({"device_id": device_id, "temperature": temperature, "timestamp": timestamp, **more})


TABLE_COLUMNS = [
    ("device_id", "string"),
    ("temperature", "double"),
    ("timestamp", "double"),
    ("event_time", "timestamp"),
]


@dataclass
class Lake:
    """Two buckets and a table of a test's own, and ways to put data in and to look at what comes out."""

    name: str
    s3: Any
    glue: Any
    directory: Path
    spark_properties: Path

    @property
    def raw(self) -> str:
        return f"raw-{self.name}"

    @property
    def analytics(self) -> str:
        return f"analytics-{self.name}"

    @property
    def database(self) -> str:
        return f"lake_{self.name}"

    @property
    def bookmark(self) -> Path:
        return self.directory / "bookmark.json"

    def create(self, columns: Sequence[tuple[str, str]] = TABLE_COLUMNS) -> None:
        for bucket in (self.raw, self.analytics):
            self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.glue.create_database(DatabaseInput={"Name": self.database})
        self.glue.create_table(
            DatabaseName=self.database,
            TableInput={
                "Name": "device_telemetry",
                "PartitionKeys": [{"Name": key, "Type": "int"} for key in ("year", "month", "day")],
                "StorageDescriptor": {
                    "Columns": [{"Name": name, "Type": kind} for name, kind in columns],
                    "Location": f"s3://{self.analytics}/curated/device_telemetry/",
                },
            },
        )

    def put_lines(self, key: str, lines: Sequence[str | bytes], prefix: str = "raw_data/2025/10/15/00/") -> str:
        data = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
        return self.put(f"{prefix}{key}", gzip.compress(data))

    def put(self, key: str, body: bytes) -> str:
        self.s3.put_object(Bucket=self.raw, Key=key, Body=body)
        return key

    def arguments(self, job_run_id: str, **changes: str) -> list[str]:
        values = {
            "JOB_NAME": "temperature-etl",
            "JOB_RUN_ID": job_run_id,
            "job-bookmark-option": "job-bookmark-enable",
            "SOURCE_S3": f"s3://{self.raw}/raw_data/",
            "TARGET_S3": f"s3://{self.analytics}/curated/device_telemetry/",
            "DLQ_S3": f"s3://{self.analytics}/dlq/raw_json/",
            "STAGING_S3": f"s3://{self.analytics}/staging/",
            "SUMMARIES_S3": f"s3://{self.analytics}/run_summaries/",
            "SETTINGS_S3": f"s3://{self.analytics}/settings/",
            "DATABASE_NAME": self.database,
            "TABLE_NAME": "device_telemetry",
            "PARTITION_TIME_ZONE": "UTC",
            **changes,
        }
        return ["telemetry_etl.py", *(word for name, value in values.items() for word in (f"--{name}", value))]

    def start(self, job_run_id: str, **changes: str) -> "subprocess.Popen[str]":
        """Start the whole script as a process of its own, as Glue does."""
        environment = {
            **{name: value for name, value in os.environ.items() if name.startswith(("AWS_", "JAVA_", "SPARK_"))},
            "PATH": os.defpath,
            "HOME": str(self.directory),
            "PYTHONPATH": str(GLUE_RUNTIME),
            "PYTHONUNBUFFERED": "1",
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_SUBMIT_ARGS": shlex.join(["--properties-file", str(self.spark_properties), "pyspark-shell"]),
            "GLUE_BOOKMARK_FILE": str(self.bookmark),
        }
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *self.arguments(job_run_id, **changes)[1:]],
            env=environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def keys(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.analytics, Prefix=prefix)
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", ()))

    def get(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.analytics, Key=key)["Body"].read()
        return body

    def summary(self, job_run_id: str) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.get(f"run_summaries/{job_run_id}.json"))
        return summary

    def dead_letters(self) -> list[dict[str, Any]]:
        keys = self.keys("dlq/raw_json/")
        return [json.loads(line) for key in keys for line in gzip.decompress(self.get(key)).splitlines()]

    def rows(self, spark: Any) -> list[tuple[Any, ...]]:
        """The table as its files say, sorted: device_id, timestamp, temperature, year, month, day."""
        if not self.keys("curated/device_telemetry/"):
            return []
        names = ("device_id", "timestamp", "temperature", "year", "month", "day")
        stored = spark.read.parquet(f"s3://{self.analytics}/curated/device_telemetry/").select(*names)
        return sorted(tuple(row) for row in stored.collect())


@pytest.fixture
def lake(endpoint: str, spark_properties: Path, tmp_path: Path) -> Lake:
    """An empty lake."""
    made = Lake(
        name=uuid.uuid4().hex[:12],
        s3=boto3.client("s3"),
        glue=boto3.client("glue"),
        directory=tmp_path,
        spark_properties=spark_properties,
    )
    made.create()
    return made


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(lake: Lake, spark: Any, etl: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the job in this process: ``run("jr_1", MODE="audit")`` returns the summary."""
    from awsglue.context import GlueContext
    from awsglue.job import Job

    monkeypatch.setenv("GLUE_BOOKMARK_FILE", str(lake.bookmark))

    def run_once(job_run_id: str, s3: Any = None, **changes: str) -> dict[str, Any]:
        argv = lake.arguments(job_run_id, **changes)
        options = etl.resolve_options(argv)
        arguments = etl.read_arguments(argv, options, datetime.now(UTC).date())
        glue_context = GlueContext(spark.sparkContext)
        job = Job(glue_context)
        if arguments.mode == "load":
            job.init(arguments.job_name, options)
        summary: dict[str, Any] = etl.run(arguments, glue_context, s3 or lake.s3, lake.glue)
        if arguments.mode == "load":
            job.commit()
        return summary

    return run_once
