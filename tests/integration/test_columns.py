"""One definition of each column: the contract's fields, the job's, the tables' in the template, the dead letters'."""

import base64
import gzip
import json
import subprocess
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest

from telemetry_contract import Identity, Policy
from tests.integration.conftest import PROJECT, SERVER_PYTHON, TABLE_COLUMNS, Lake, Run, reading
from transform.logic import plan_batch

DAY = 1_760_486_400  # 2025-10-15T00:00:00Z
ARRIVED_AT_MILLISECONDS = (DAY + 3600) * 1000

TABLES = """
import json
from tests.template.expansion import expanded_template, resources_of_type
resources = resources_of_type(expanded_template(), "AWS::Glue::Table").values()
tables = [table["Properties"]["TableInput"] for table in resources]
print(json.dumps({table["Name"]: [[column["Name"], column["Type"]] for column in table["StorageDescriptor"]["Columns"]]
                  for table in tables if table["TableType"] == "EXTERNAL_TABLE"}))
"""


@pytest.fixture(scope="module")
def template_tables() -> dict[str, list[tuple[str, str]]]:
    """The columns of the template's tables, by the table's name; the environment of the operator reads the template."""
    said = subprocess.run(
        [str(SERVER_PYTHON), "-c", TABLES], capture_output=True, text=True, cwd=PROJECT, check=True
    ).stdout
    return {name: [(column, kind) for column, kind in columns] for name, columns in json.loads(said).items()}


def test_contract_job_and_table_have_the_same_fields(
    lake: Lake, run: Run, spark: Any, etl: ModuleType, template_tables: dict[str, list[tuple[str, str]]]
) -> None:
    # GIVEN the contract's fields, and the table of the template
    contract = Identity("a", float(DAY), 21.5)
    table = template_tables["device_telemetry"]

    # WHEN the job stores a reading in a table with these columns
    lake.put_lines("1.gz", [json.dumps(contract._asdict())])
    run("jr_1")
    files = spark.read.parquet(f"s3://{lake.analytics}/{lake.keys('curated/')[0]}")

    # THEN contract, job and table agree: the contract's fields with the types of their values, and the instant
    kinds = {str: "string", float: "double"}
    fields = {name: kinds[type(value)] for name, value in contract._asdict().items()}
    assert Identity._fields == etl.IDENTITY
    assert {**fields, "event_time": "timestamp"} == etl.REQUIRED_COLUMNS
    assert dict(table) == etl.REQUIRED_COLUMNS
    assert table == TABLE_COLUMNS == files.dtypes


def test_a_column_added_to_the_catalog_is_filled_from_then_on_and_null_before(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN a table with a reading that has a humidity, which no column takes yet
    lake.put_lines("1.gz", [reading("before", 1, DAY, humidity=40.5)])
    run("jr_1")

    # WHEN the catalog gets the column, and readings arrive that have it well, badly, or not; and the old one again
    own = ("line", "texts", "further", "first", "chunk_count", "verdict")
    columns = [*TABLE_COLUMNS, ("humidity", "double"), *((name, "string") for name in own)]
    lake.glue.update_table(
        DatabaseName=lake.database,
        TableInput={
            "Name": "device_telemetry",
            "PartitionKeys": [{"Name": key, "Type": "int"} for key in ("year", "month", "day")],
            "StorageDescriptor": {"Columns": [{"Name": name, "Type": kind} for name, kind in columns]},
        },
    )
    values = {"exact": 0.1, "whole": 40, "text": "wet", "list": [1], "null": None, "before": 40.5}
    lines = [reading(device_id, 1, DAY, humidity=value) for device_id, value in values.items()]
    lake.put_lines("2.gz", [*lines, reading("absent", 1, DAY, **dict(zip(own, own, strict=True)))])
    summary = run("jr_2")

    # THEN all are readings: a column without rules rejects nothing, and what is no number is null; the raw zone has it
    assert summary["counts"] == {"lines": 7, "new": 6, "duplicate": 1, "rejected": 0}
    # THEN old files read as null, and what was stored is not revised
    schema = ", ".join(f"`{name}` {kind}" for name, kind in columns)
    rows = spark.read.schema(schema).parquet(f"s3://{lake.analytics}/curated/device_telemetry/").collect()
    assert {row["device_id"]: row["humidity"] for row in rows} == {
        "before": None,
        "exact": 0.1,
        "whole": 40.0,
        "text": None,
        "list": None,
        "null": None,
        "absent": None,
    }
    # THEN a column may have a name that the job itself uses on the way
    assert [{name: row[name] for name in own} for row in rows if row["device_id"] == "absent"] == [
        dict(zip(own, own, strict=True))
    ]


REJECTED = [
    b'{"device_id":"\xff","temperature":1,"timestamp":2}',
    b"{",
    b"17",
    b'{"device_id":"a","temperature":1}',
    b'{"device_id":"a","temperature":"1","timestamp":2}',
    b'{"device_id":"","temperature":1,"timestamp":2.5}',
    b'{"device_id":"a","temperature":1e400,"timestamp":-0.0}',
]


def letters_of_the_transform() -> list[dict[str, Any]]:
    """The dead letters of a batch of one record a rejected element, as Firehose hands it over from a stream."""
    records = [
        {
            "recordId": f"record-{number}",
            "approximateArrivalTimestamp": ARRIVED_AT_MILLISECONDS,
            "data": base64.b64encode(element).decode(),
            "kinesisRecordMetadata": {
                "shardId": "shardId-000000000000",
                "partitionKey": "a",
                "approximateArrivalTimestamp": ARRIVED_AT_MILLISECONDS,
                "sequenceNumber": str(number),
                "subsequenceNumber": 0,
            },
        }
        for number, element in enumerate(REJECTED)
    ]
    now = datetime(2025, 10, 15, tzinfo=UTC)
    plan = plan_batch({"records": records}, policy=Policy(), dead_letter_prefix="dlq/", now=now)
    assert plan.dead_letter_body is not None
    return [json.loads(line) for line in gzip.decompress(plan.dead_letter_body).splitlines()]


def test_dead_letters_of_the_transform_and_of_the_job_have_the_fields_and_types_of_the_table(
    lake: Lake, run: Run, spark: Any, template_tables: dict[str, list[tuple[str, str]]]
) -> None:
    # GIVEN the same rejected lines, of which the transform and the job make dead letters
    lake.put_lines("1.gz", REJECTED)
    run("jr_1")
    by_stage = {"transform": letters_of_the_transform(), "etl": lake.dead_letters()}

    # WHEN they are read with the columns of the table for rejects
    columns = template_tables["rejected_readings"]
    schema = ", ".join(f"`{name}` {kind}" for name, kind in columns)
    for stage, letters in by_stage.items():
        key = f"check/{stage}.json"
        body = "".join(json.dumps(letter) + "\n" for letter in letters)
        lake.s3.put_object(Bucket=lake.analytics, Key=key, Body=body.encode())
        rows = spark.read.schema(schema).json(f"s3://{lake.analytics}/{key}").collect()

        # THEN the columns hold all that the letters say, in the same types
        read = {row["reject_id"]: row.asDict(recursive=True) for row in rows}
        assert read == {letter["reject_id"]: letter for letter in letters}
        assert {letter["stage"] for letter in letters} == {stage}
        assert len(read) == len(REJECTED)

    # THEN both say the same of a line, but for who says it and where it came from
    own = {"reject_id", "stage", "source", "arrived_at", "contract_version", "detail"}

    def said(letters: list[dict[str, Any]]) -> set[str]:
        return {json.dumps({name: value for name, value in letter.items() if name not in own}) for letter in letters}

    assert said(by_stage["transform"]) == said(by_stage["etl"])
    assert {tuple(letter) for letters in by_stage.values() for letter in letters} == {tuple(by_stage["etl"][0])}


def test_a_reject_has_one_id_whoever_runs_again(lake: Lake, run: Run) -> None:
    # GIVEN a bad line twice in a batch, and in the next one
    lake.put_lines("1.gz", ["bad", "bad"])
    lake.put_lines("2.gz", ["worse"])
    run("jr_1")

    # WHEN it arrives again, and all is read again
    lake.put_lines("3.gz", ["bad"])
    run("jr_2")
    lake.bookmark.unlink()
    run("jr_3")

    # THEN it has been kept with the same id each time, which is not that of another line
    ids = [(letter["original"], letter["reject_id"]) for letter in lake.dead_letters()]
    assert len(ids) > 4
    assert len(set(ids)) == len({original for original, _ in ids}) == 2
    # THEN so do the transform's
    assert letters_of_the_transform() == letters_of_the_transform()
