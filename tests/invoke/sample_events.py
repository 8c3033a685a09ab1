"""What each sample event has to be answered with, and what has to be stored for it before."""

import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from telemetry_lake.target import Target
from tests.invoke.engines import Answer

FUNCTIONS: Mapping[str, str] = {
    "alarm_notifier": "AlarmNotifierFunction",
    "athena_check": "AthenaCheckFunction",
    "transform": "TransformFunction",
}
"""The folder of the events, and the function's logical id."""

ERROR = "error"
TOLD = {"published": 1, "repeated": 0}
NO_NEWS = {"published": 0, "repeated": 0}
EXPECTED: Mapping[str, Any] = {
    "alarm_notifier/alarm.json": TOLD,
    "alarm_notifier/alarm_composite.json": TOLD,
    # A new alarm that has found its first data is no news.
    "alarm_notifier/alarm_first_data.json": NO_NEWS,
    "alarm_notifier/alarm_insufficient_data.json": TOLD,
    "alarm_notifier/alarm_over.json": TOLD,
    "alarm_notifier/crawler_failed.json": TOLD,
    "alarm_notifier/crawler_succeeded.json": NO_NEWS,
    "alarm_notifier/execution_failed.json": TOLD,
    "alarm_notifier/execution_timed_out.json": TOLD,
    "alarm_notifier/job_failed.json": TOLD,
    "alarm_notifier/job_failed_on_damaged_object.json": TOLD,
    "alarm_notifier/job_succeeded.json": NO_NEWS,
    "alarm_notifier/unknown_sns_message.json": TOLD,
    "athena_check/audit_without_findings.json": {"passed": True, "warnings": []},
    # No reading of these days is in the table, which is worth a warning and stops nothing.
    "athena_check/day_that_is_over.json": {"passed": True, "warnings": ["day_without_readings"]},
    "athena_check/days_that_are_none.json": {ERROR: "UnusableDaysError"},
    "athena_check/load_whose_rows_are_missing.json": {ERROR: "AthenaCheckFailed"},
    "athena_check/load_with_new_rows.json": {"passed": True, "warnings": []},
    "athena_check/load_without_lines.json": {"passed": True, "warnings": []},
    "athena_check/yesterday.json": {"passed": True, "warnings": ["day_without_readings"]},
    "transform/bad.json": ["Dropped"] * 4,
    "transform/direct_put.json": ["Ok", "Dropped"],
    "transform/empty.json": ["Dropped"] * 2,
    "transform/good.json": ["Ok"] * 3,
    "transform/kinesis_source.json": ["Ok", "Ok", "Ok", "Dropped", "Dropped", "Dropped"],
    "transform/packed.json": ["Ok"] * 2,
    "transform/retried.json": ["Dropped"] * 4,
}
REJECTS_OBJECTS = 5
"""One for each batch that has any; the retried one is stored where the first attempt has stored it."""


def event_files(project: Path) -> list[Path]:
    """Return the sample events of all functions.

    Raises:
        LookupError: an event is not expected here, or an expected one is not there.
    """
    files = sorted((project / "events").glob("*/*.json"))
    names = {name_of(file) for file in files}
    if names != EXPECTED.keys():
        raise LookupError(
            f"tests/invoke/sample_events.py and events/ differ in: {', '.join(sorted(names ^ EXPECTED.keys()))}"
        )
    return files


def name_of(event_file: Path) -> str:
    """Return an event's folder and file."""
    return f"{event_file.parent.name}/{event_file.name}"


def outcome(answer: Answer) -> Any:
    """Return what of an answer is compared: the error, the results of the records, or the answer but its evidence."""
    if answer.error_type is not None:
        return {ERROR: answer.error_type}
    if isinstance(answer.payload, dict) and "records" in answer.payload:
        return [record["result"] for record in answer.payload["records"]]
    if isinstance(answer.payload, dict):
        return {name: value for name, value in answer.payload.items() if name != "checks"}
    return answer.payload


def store_rows_of(event_file: Path, target: Target) -> None:
    """Store the rows that the summary in an event of the check speaks of, and make their partitions known."""
    summary = json.loads(event_file.read_text())["summary"]
    outputs = target.outputs
    table = target.glue.get_table(DatabaseName=outputs.database_name, Name=outputs.table_name)["Table"]
    for partition in summary["partitions"]:
        values = [str(partition[key]) for key in ("year", "month", "day")]
        folder = "{}year={}/month={}/day={}/".format(outputs.curated_prefix, *values)
        descriptor: Any = {
            **table["StorageDescriptor"],
            "Location": f"s3://{outputs.analytics_bucket_name}/{folder}",
        }
        day = datetime(partition["year"], partition["month"], partition["day"], tzinfo=UTC)
        target.glue.create_partition(
            DatabaseName=outputs.database_name,
            TableName=outputs.table_name,
            PartitionInput={"Values": values, "StorageDescriptor": descriptor},
        )
        for key in summary["files"]["keys"]:
            if key.startswith(folder):
                body = _parquet(partition["new"], day)
                target.s3.put_object(Bucket=outputs.analytics_bucket_name, Key=key, Body=body)


def _parquet(row_count: int, day: datetime) -> bytes:
    seconds: Sequence[float] = [day.timestamp() + number for number in range(row_count)]
    rows = pa.table(
        {
            "device_id": [f"sensor-{number}" for number in range(row_count)],
            "temperature": [20.0 + number for number in range(row_count)],
            "timestamp": seconds,
            "event_time": pa.array([int(second * 1e6) for second in seconds], pa.timestamp("us", tz="UTC")),
        }
    )
    stream = io.BytesIO()
    pyarrow.parquet.write_table(rows, stream, compression="snappy")
    return stream.getvalue()
