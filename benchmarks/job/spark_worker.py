"""The two contestants on Spark: this job, and the one that the runbook suggests. Runs in the environment of Glue 5.1.

Both read their gzip JSON lines from S3 and write to it, at the endpoint that the environment names.
"""

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  the name that Spark's documentation gives it

from benchmarks.job import worker

PROJECT = Path(__file__).resolve().parents[2]
GLUE_RUNTIME = PROJECT / "telemetry_lake" / "local" / "glue_runtime"
SCRIPT = PROJECT / "glue" / "telemetry_etl.py"
DATABASE, TABLE, TABLE_PREFIX = "lake", "device_telemetry", "curated/device_telemetry/"
COLUMNS = {"device_id": "string", "temperature": "double", "timestamp": "double", "event_time": "timestamp"}
PARTITION_KEYS = ("year", "month", "day")
SETTINGS_PREFIX = "settings/"
FILLED_BY = "jr_0"
"""The run that the files of a filled table say they are from."""

FILE_ROWS = 16_777_216


def load_script() -> ModuleType:
    """Import the job's script, with the stand-in for Glue's own library."""
    sys.path.insert(0, str(GLUE_RUNTIME))
    specification = importlib.util.spec_from_file_location("telemetry_etl", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["telemetry_etl"] = module
    specification.loader.exec_module(module)
    return module


def _carry_out(frame: DataFrame) -> None:
    """Work a frame out and throw it away."""
    frame.write.format("noop").mode("overwrite").save()


def _add_partition_keys(rows: DataFrame) -> DataFrame:
    """Add the day of ``event_time`` in UTC."""
    return (
        rows.withColumn("year", F.year("event_time"))
        .withColumn("month", F.month("event_time"))
        .withColumn("day", F.dayofmonth("event_time"))
    )


class Contestants:
    """What the process does on request, in one Spark session."""

    def __init__(self, spark: SparkSession, etl: ModuleType) -> None:
        self._spark = spark
        self._etl = etl
        self._s3: Any = boto3.client("s3")
        self._glue: Any = boto3.client("glue")

    def create_table(self, lake: str) -> None:
        """Make a lake's database and its empty table."""
        self._glue.create_database(DatabaseInput={"Name": f"{DATABASE}_{lake}"})
        self._glue.create_table(
            DatabaseName=f"{DATABASE}_{lake}",
            TableInput={
                "Name": TABLE,
                "PartitionKeys": [{"Name": key, "Type": "int"} for key in PARTITION_KEYS],
                "StorageDescriptor": {
                    "Columns": [{"Name": name, "Type": kind} for name, kind in COLUMNS.items()],
                    "Location": f"s3://{lake}/{TABLE_PREFIX}",
                },
            },
        )

    def fill_table(self, lake: str, first_second: int, days: int, rows_a_day: int, devices: int) -> int:
        """Write ``days`` day folders of stored readings, as the job would have, and register them.

        Returns:
            The number of rows.
        """
        number = F.col("id")
        rows = self._spark.range(days * rows_a_day).select(
            F.format_string("sensor-%05d", number % rows_a_day % devices).alias("device_id"),
            ((F.lit(500) + number % rows_a_day % 2_400) / 100).alias("temperature"),
            (F.lit(first_second) + number * (86_400 / rows_a_day)).alias("timestamp"),
        )
        self._etl.configure(self._spark)
        dated = _add_partition_keys(self._etl.add_event_time(rows))
        with tempfile.TemporaryDirectory() as directory:
            (
                dated.repartition(max(2, days // 8), *PARTITION_KEYS)
                .sortWithinPartitions(*PARTITION_KEYS, "device_id", "event_time")
                .write.mode("overwrite")
                .partitionBy(*PARTITION_KEYS)
                .parquet(Path(directory).as_uri())
            )
            for number, file in enumerate(sorted(Path(directory).rglob("*.parquet"))):
                folder = file.parent.relative_to(directory).as_posix()
                key = f"{TABLE_PREFIX}{folder}/{FILLED_BY}-{number:05d}.snappy.parquet"
                self._s3.put_object(Bucket=lake, Key=key, Body=file.read_bytes())
        zone = json.dumps({"partition_time_zone": "UTC"}).encode()
        self._s3.put_object(Bucket=lake, Key=f"{SETTINGS_PREFIX}partition_time_zone.json", Body=zone)
        begin = datetime.fromtimestamp(first_second, UTC)
        self._register(lake, [begin + timedelta(days=day) for day in range(days)])
        return days * rows_a_day

    def _register(self, lake: str, days: list[datetime]) -> None:
        partitions = [
            {
                "Values": [str(day.year), str(day.month), str(day.day)],
                "StorageDescriptor": {
                    "Location": f"s3://{lake}/{TABLE_PREFIX}year={day.year}/month={day.month}/day={day.day}/"
                },
            }
            for day in days
        ]
        for start in range(0, len(partitions), 100):
            self._glue.batch_create_partition(
                DatabaseName=f"{DATABASE}_{lake}", TableName=TABLE, PartitionInputList=partitions[start : start + 100]
            )

    def job(self, raw: str, lake: str, run_id: str) -> dict[str, Any]:
        """Carry out the job, bookmark included, and return its summary."""
        from awsglue.context import GlueContext  # noqa: PLC0415  it is there once the script has been imported
        from awsglue.job import Job  # noqa: PLC0415

        argv = ["telemetry_etl.py", *self._job_arguments(raw, lake, run_id)]
        options = self._etl.resolve_options(argv)
        arguments = self._etl.read_arguments(argv, options, datetime.now(UTC).date())
        glue_context = GlueContext(self._spark.sparkContext)
        job = Job(glue_context)
        job.init(arguments.job_name, options)
        summary: dict[str, Any] = self._etl.run(arguments, glue_context, self._s3, self._glue)
        job.commit()
        return summary

    @staticmethod
    def _job_arguments(raw: str, lake: str, run_id: str) -> list[str]:
        values = {
            "JOB_NAME": "temperature-etl",
            "JOB_RUN_ID": run_id,
            "job-bookmark-option": "job-bookmark-enable",
            "SOURCE_S3": f"s3://{raw}/raw_data/",
            "TARGET_S3": f"s3://{lake}/{TABLE_PREFIX}",
            "DLQ_S3": f"s3://{lake}/dlq/raw_json/",
            "STAGING_S3": f"s3://{lake}/staging/",
            "SUMMARIES_S3": f"s3://{lake}/run_summaries/",
            "SETTINGS_S3": f"s3://{lake}/{SETTINGS_PREFIX}",
            "DATABASE_NAME": f"{DATABASE}_{lake}",
            "TABLE_NAME": TABLE,
            "PARTITION_TIME_ZONE": "UTC",
        }
        return [word for name, value in values.items() for word in (f"--{name}", value)]

    def plain(self, raw: str, lake: str) -> None:
        """Read JSON with the types that it seems to have, add the day, and append to the table's folder.

        No line is judged, no repeat is noticed, and Spark commits into the table itself: a file for each day of each
        object.
        """
        self._append(self._read_json(raw), lake)

    def plain_file_a_day(self, raw: str, lake: str) -> None:
        """Do the same with the readings of a day brought together first, so that files have a size to be read by."""
        self._append(self._read_json(raw).repartition(*PARTITION_KEYS), lake)

    def _read_json(self, raw: str) -> DataFrame:
        readings = self._spark.read.option("recursiveFileLookup", "true").json(f"s3://{raw}/raw_data/")
        event_time = F.timestamp_micros(F.round(F.col("timestamp") * 1e6).cast("bigint"))
        rows = _add_partition_keys(readings.withColumn("event_time", event_time))
        return rows.select(*COLUMNS, *PARTITION_KEYS)

    @staticmethod
    def _append(rows: DataFrame, lake: str) -> None:
        target = f"s3://{lake}/{TABLE_PREFIX}"
        rows.write.mode("append").partitionBy(*PARTITION_KEYS).option("compression", "snappy").parquet(target)

    def profile_rungs(self) -> list[str]:
        """Return what `climb` can do: each rung does what the ones before it do, and one thing more."""
        return list(self._rungs)

    @property
    def _rungs(self) -> dict[str, Callable[[DataFrame, str, str], None]]:
        columns = [self._etl.TableColumn(name, kind) for name, kind in COLUMNS.items()]

        def read(lines: DataFrame, _raw: str, _lake: str) -> None:
            _carry_out(lines)

        def judge(lines: DataFrame, _raw: str, _lake: str) -> None:
            _carry_out(self._etl.take_plain_readings(lines, columns))

        def measured(lines: DataFrame) -> DataFrame:
            judged = self._etl.judge_lines(lines, columns, "UTC")
            chunks = self._etl.chunks_by_day(self._etl.measure(judged).rows_by_day, FILE_ROWS)
            readings = self._etl.divide(judged.where("is_reading").drop("is_reading", "line", "is_cut"), chunks)
            return self._etl.find_new(readings, None, False, self._etl.write_tasks(sum(chunks.values())))

        def write_down(lines: DataFrame, _raw: str, _lake: str) -> None:
            measured(lines)

        def find_repeats(lines: DataFrame, _raw: str, _lake: str) -> None:
            _carry_out(measured(lines))

        def write_files(lines: DataFrame, _raw: str, lake: str) -> None:
            self._etl.write_new(measured(lines), columns, FILE_ROWS, f"s3://{lake}/staging/profile/")

        def do_everything(_lines: DataFrame, raw: str, lake: str) -> None:
            self.job(raw, lake, "jr_profile")

        return {
            "gunzip, lines of text": read,
            "lines as the transform writes them recognised, their values taken": judge,
            "days found, written down once, measured by day": write_down,
            "brought together by day, sorted, repeats marked": find_repeats,
            "Parquet written into staging": write_files,
            "the rest: Glue's reader, counts, publish, summary, commit": do_everything,
        }

    def climb(self, rung: str, raw: str, lake: str) -> None:
        """Do what a rung of the profile does."""
        self._etl.configure(self._spark)
        self._rungs[rung](self._lines(raw), raw, lake)

    def plan(self, raw: str) -> str:
        """Return Spark's plan for the judged lines."""
        self._etl.configure(self._spark)
        columns = [self._etl.TableColumn(name, kind) for name, kind in COLUMNS.items()]
        judged = self._etl.take_plain_readings(self._lines(raw), columns)
        return str(judged._jdf.queryExecution().simpleString())

    def _lines(self, raw: str) -> DataFrame:
        lines: DataFrame = self._etl.lines_of(
            self._spark.read.option("recursiveFileLookup", "true").text(f"s3://{raw}/raw_data/")
        )
        return lines

    def count(self, lake: str) -> int:
        """Count the table's rows."""
        return int(self._spark.read.parquet(f"s3://{lake}/{TABLE_PREFIX}").count())

    def clean(self, lake: str) -> None:
        """Make a lake as it was before a run: what `fill_table` has made stays, all else and the bookmark go."""
        listed = [key for key, _size in self._etl.list_objects(self._s3, lake, "")]
        keys = [key for key in listed if not key.startswith(SETTINGS_PREFIX) and f"/{FILLED_BY}-" not in key]
        for start in range(0, len(keys), 1000):
            objects = [{"Key": key} for key in keys[start : start + 1000]]
            self._s3.delete_objects(Bucket=lake, Delete={"Objects": objects, "Quiet": True})
        Path(os.environ["GLUE_BOOKMARK_FILE"]).unlink(missing_ok=True)
        self._spark.sparkContext._jvm.System.gc()


def main() -> None:
    """Start Spark and serve."""
    etl = load_script()
    spark = SparkSession.builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    contestants = Contestants(spark, etl)
    operations = (
        "create_table",
        "fill_table",
        "job",
        "plain",
        "plain_file_a_day",
        "count",
        "clean",
        "profile_rungs",
        "climb",
        "plan",
    )
    worker.serve({name: getattr(contestants, name) for name in operations})


if __name__ == "__main__":
    main()
