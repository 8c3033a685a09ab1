"""The Glue job on a real Spark, against an S3 and a Glue catalog that answer over HTTP.

Runs in the environment of any Glue version, ``.tools/glue-5.1/bin/python -m pytest tests/integration``, and
``make test-integration GLUE=all`` in each of them.
"""

import gzip
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest

from telemetry_lake.local import spark_runtime
from tests import counted_endpoint
from tests.counted_endpoint import CountedEndpoint

PROJECT = Path(__file__).resolve().parents[2]
GLUE_RUNTIME = PROJECT / "telemetry_lake" / "local" / "glue_runtime"
SCRIPT = PROJECT / "glue" / "telemetry_etl.py"
SERVER_PYTHON = PROJECT / ".venv" / "bin" / "python"
REGION = counted_endpoint.REGION

# Only a Glue environment has Spark; elsewhere there is nothing here to collect.
collect_ignore_glob = [] if importlib.util.find_spec("pyspark") else ["test_*.py"]

if str(GLUE_RUNTIME) not in sys.path:
    sys.path.insert(0, str(GLUE_RUNTIME))


@pytest.fixture(scope="session")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedEndpoint]:
    """An AWS endpoint of its own, known to the environment of this process too; it writes down its requests."""
    with counted_endpoint.serve(SERVER_PYTHON, tmp_path_factory.mktemp("endpoint")) as served:
        os.environ.update(counted_endpoint.client_environment(served.url))
        yield served


@pytest.fixture(scope="session")
def endpoint(counted: CountedEndpoint) -> str:
    """URL of the endpoint."""
    return counted.url


@pytest.fixture(scope="session")
def spark_properties(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a Spark that reads and writes ``s3://`` at the endpoint."""
    directory = tmp_path_factory.mktemp("spark")
    glue_version = Path(sys.prefix).name.removeprefix("glue-")
    runtime = spark_runtime.prepare(PROJECT / ".tools", glue_version, print)
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

    def arrival_days(self) -> list[str]:
        """The UTC days, in ISO format, whose folders hold raw objects."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.raw, Prefix="raw_data/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return sorted({"-".join(key.split("/")[1:4]) for key in keys})

    def state(self) -> dict[str, Any]:
        """What a run may not change when there is nothing new: the table's files, and the distinct dead letters."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.analytics, Prefix="curated/")
        return {
            "files": {entry["Key"]: entry["ETag"] for page in pages for entry in page.get("Contents", ())},
            "dead letters": {json.dumps(letter, sort_keys=True) for letter in self.dead_letters()},
        }

    def rows(self, spark: Any) -> list[tuple[Any, ...]]:
        """The table as its files say, sorted: device_id, timestamp, temperature, year, month, day."""
        if not self.keys("curated/device_telemetry/"):
            return []
        names = ("device_id", "timestamp", "temperature", "year", "month", "day")
        stored = spark.read.parquet(f"s3://{self.analytics}/curated/device_telemetry/").select(*names)
        return sorted(tuple(row) for row in stored.collect())


def new_lake(directory: Path, spark_properties: Path) -> Lake:
    """An empty lake, whose bookmark is in ``directory``."""
    made = Lake(
        name=uuid.uuid4().hex[:12],
        s3=boto3.client("s3"),
        glue=boto3.client("glue"),
        directory=directory,
        spark_properties=spark_properties,
    )
    made.create()
    return made


@pytest.fixture
def lake(endpoint: str, spark_properties: Path, tmp_path: Path) -> Lake:
    """An empty lake."""
    return new_lake(tmp_path, spark_properties)


@dataclass
class Run:
    """The job in this process: ``run("jr_1", MODE="audit")`` returns the summary."""

    lake: Lake
    spark: Any
    etl: ModuleType
    changes_that_worked: dict[str, str] | None = None

    def __call__(self, job_run_id: str, s3: Any = None, today: Any = None, **changes: str) -> dict[str, Any]:
        from awsglue.context import GlueContext
        from awsglue.job import Job

        os.environ["GLUE_BOOKMARK_FILE"] = str(self.lake.bookmark)
        argv = self.lake.arguments(job_run_id, **changes)
        options = self.etl.resolve_options(argv)
        arguments = self.etl.read_arguments(argv, options, today or datetime.now(UTC).date())
        glue_context = GlueContext(self.spark.sparkContext)
        job = Job(glue_context)
        if arguments.mode == "load":
            job.init(arguments.job_name, options)
        summary: dict[str, Any] = self.etl.run(arguments, glue_context, s3 or self.lake.s3, self.lake.glue)
        if arguments.mode == "load":
            job.commit()
        self.changes_that_worked = {name: changes[name] for name in changes.keys() - {"MODE", "DAYS"}}
        return summary

    def assert_settled(self) -> None:
        """Run once more, from the bookmark, from the beginning and as an audit: nothing may change any more.

        When it has passed there is nothing left to settle, until the next run.
        """
        changes = self.changes_that_worked or {}
        # What a test has left unread is read first.
        self("jr_settled_load", **changes)
        before = self.lake.state()
        self("jr_settled_again", **changes)
        self.lake.bookmark.unlink()
        everything = self("jr_settled_reset", **changes)
        days = self.lake.arrival_days()
        # As on a later day: what has arrived today cannot be audited yet.
        today = datetime.now(UTC).date() + timedelta(days=1)
        audit = self("jr_settled_audit", today=today, MODE="audit", DAYS=json.dumps(days), **changes)

        assert self.lake.state() == before
        assert everything["counts"] == audit["counts"]
        assert everything["counts"]["new"] == 0
        rows = self.lake.rows(self.spark)
        assert len(rows) == len({row[:3] for row in rows}), "a reading is stored twice"
        self.changes_that_worked = None


@pytest.fixture(scope="session")
def new_run(
    endpoint: str, spark_properties: Path, spark: Any, etl: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Run]:
    """A way to get the job of an empty lake, as often as a test wants."""
    return lambda: Run(new_lake(tmp_path_factory.mktemp("lake"), spark_properties), spark, etl)


HAS_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell fixtures whether their test has passed."""
    report = yield
    if report.when == "call":
        item.stash[HAS_PASSED] = report.passed
    return report


@pytest.fixture
def run(request: pytest.FixtureRequest, lake: Lake, spark: Any, etl: ModuleType) -> Iterator[Run]:
    """Run the job in this process; after the test, whatever it was, more runs must not change anything."""
    made = Run(lake, spark, etl)
    yield made
    if request.node.stash.get(HAS_PASSED, False) and made.changes_that_worked is not None:
        made.assert_settled()
