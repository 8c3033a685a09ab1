"""The embedded Athena and a real Trino read the same tables of the endpoint, and give the same."""

import datetime
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from telemetry_lake.local.athena.values import value_text
from tests.template import variants
from tests.trino.server import TrinoServer
from tests.unit.local.athena_queries import parquet, run
from tests.unit.local.endpoint_process import REGION, EndpointProcess

ROWS_PER_DAY = 20_000
CATALOG_OF_THE_TEMPLATE = ("LakeDatabase", "RejectedTable", "ResolvedRejectsTable", "DistinctRejectsView")


@dataclass(frozen=True)
class Engines:
    """Both engines over one endpoint."""

    athena: Any
    trino: TrinoServer

    def by_athena(self, sql: str) -> list[list[str | None]]:
        outcome = run(self.athena, sql)
        assert outcome.state == "SUCCEEDED", outcome.reason
        return outcome.rows[1:]

    def by_trino(self, sql: str) -> list[list[str | None]]:
        rows = self.trino.query(sql, "lake").rows
        return [[None if value is None else value_text(value) for value in row] for row in rows]


def day_of_readings(day: int) -> bytes:
    start = datetime.datetime(2025, 10, day)
    times = [start + datetime.timedelta(seconds=4 * row, milliseconds=row % 1000) for row in range(ROWS_PER_DAY)]
    table = pa.table(
        {
            "device_id": [f"device-{row * 7919 % 997}" for row in range(ROWS_PER_DAY)],
            "temperature": [None if row % 100 == 99 else 20 + row / 7 for row in range(ROWS_PER_DAY)],
            "event_time": pa.array(times, pa.timestamp("us")),
        }
    )
    return parquet(table)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    endpoint = EndpointProcess(tmp_path_factory.mktemp("endpoint"))
    try:
        fill(endpoint)
        deploy_catalog(endpoint)
        trino = TrinoServer(tmp_path_factory.mktemp("trino"), endpoint, "SELECT count(*) FROM lake.readings")
        try:
            yield Engines(endpoint.client("athena"), trino)
        finally:
            trino.stop()
    finally:
        endpoint.stop()


def fill(endpoint: EndpointProcess) -> None:
    """Make a partitioned table of Parquet, one day of it not registered, and one of JSON lines with projection."""
    s3, athena = endpoint.client("s3"), endpoint.client("athena")
    s3.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": REGION})
    endpoint.client("glue").create_database(DatabaseInput={"Name": "lake", "LocationUri": "s3://lake/database/"})
    athena.create_work_group(
        Name="analysts", Configuration={"ResultConfiguration": {"OutputLocation": "s3://lake/results/"}}
    )
    for day in (14, 15, 16, 17):
        s3.put_object(Bucket="lake", Key=f"readings/year=2025/month=10/day={day}/a.parquet", Body=day_of_readings(day))
    for day, reason in ((1, "wrong_type"), (2, "too_deep")):
        line = json.dumps({"reason": reason, "attempts": day, "detail": {"field": "temperature", "value": "warm"}})
        s3.put_object(Bucket="lake", Key=f"rejects/day=2025-10-0{day}/a.gz", Body=gzip.compress(f"{line}\n".encode()))
    statements = (
        "CREATE EXTERNAL TABLE readings (device_id string, temperature double, event_time timestamp) "
        "PARTITIONED BY (year int, month int, day int) STORED AS PARQUET LOCATION 's3://lake/readings/'",
        "ALTER TABLE readings ADD "
        + " ".join(
            f"PARTITION (year=2025, month=10, day={day}) LOCATION 's3://lake/readings/year=2025/month=10/day={day}/'"
            for day in (14, 15, 16)
        ),
        "CREATE EXTERNAL TABLE rejects (reason string, attempts int, detail struct<field:string,value:string>) "
        "PARTITIONED BY (day string) ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe' "
        "LOCATION 's3://lake/rejects/' TBLPROPERTIES ('projection.enabled' = 'true', 'projection.day.type' = 'date', "
        "'projection.day.format' = 'yyyy-MM-dd', 'projection.day.range' = '2025-10-01,2025-10-05')",
    )
    for sql in statements:
        outcome = run(athena, sql)
        assert outcome.state == "SUCCEEDED", outcome.reason


def deploy_catalog(endpoint: EndpointProcess) -> None:
    """Make the template's own tables of rejects, with a repeated line, one that is open and one that is resolved."""
    template = variants.template()
    resources = {name: template["Resources"][name] for name in CATALOG_OF_THE_TEMPLATE}
    parameters = template["Parameters"] | {"AnalyticsBucket": {"Type": "String"}}
    cut = {"Parameters": parameters, "Conditions": template["Conditions"], "Resources": resources}
    client = endpoint.client("cloudformation")
    client.create_stack(
        StackName="catalog",
        TemplateBody=json.dumps(cut),
        Parameters=[
            {"ParameterKey": "AnalyticsBucket", "ParameterValue": "lake"},
            {"ParameterKey": "Stage", "ParameterValue": "prod"},
        ],
    )
    client.get_waiter("stack_create_complete").wait(StackName="catalog", WaiterConfig={"Delay": 1})
    give_owner(endpoint.client("glue"), "distinct_rejects")
    s3 = endpoint.client("s3")
    for day, reject_ids in ((15, ("open", "resolved")), (16, ("open", "other"))):
        lines = "".join(f"{json.dumps(reject(each, day))}\n" for each in reject_ids)
        key = f"dlq/raw_json/year=2026/month=10/day={day}/a.json.gz"
        s3.put_object(Bucket="lake", Key=key, Body=gzip.compress(lines.encode()))
    tombstone = {
        "reject_id": "resolved",
        "outcome": "stored",
        "new_reject_ids": [],
        "resolved_at": "2026-10-17T00:00:00Z",
    }
    s3.put_object(Bucket="lake", Key="dlq/resolved/resolved.json", Body=json.dumps(tombstone).encode())


def give_owner(glue: Any, view: str) -> None:
    """Give a view the owner with whose rights Trino runs it; Athena runs views with those of whoever asks."""
    table = glue.get_table(DatabaseName="temperature_lake", Name=view)["Table"]
    kept = {
        "Name",
        "Description",
        "TableType",
        "Parameters",
        "PartitionKeys",
        "ViewOriginalText",
        "ViewExpandedText",
        "StorageDescriptor",
    }
    glue.update_table(
        DatabaseName="temperature_lake",
        TableInput={name: value for name, value in table.items() if name in kept} | {"Owner": "test"},
    )


def reject(reject_id: str, day: int) -> dict[str, Any]:
    return {
        "reject_id": reject_id,
        "reason": "wrong_type",
        "detail": {"field": "temperature", "value": '"warm"', "rule": "a number"},
        "device_id": "device-1",
        "timestamp": 1_790_000_000.25,
        "stage": "transform",
        "original": '{"device_id":"device-1"}',
        "source": {"shard_id": "shardId-000000000000", "subsequence_number": 0, "index": None},
        "arrived_at": f"2026-10-{day}T01:02:03Z",
        "contract_version": "1",
    }


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM readings",
        "SELECT count(*) FROM readings WHERE day = 17",
        "SELECT device_id, avg(temperature) AS mean, count(*) FROM readings WHERE year = 2025 AND month = 10 AND "
        "day = 15 GROUP BY device_id ORDER BY device_id LIMIT 50",
        "SELECT day, count(temperature), min(event_time), max(event_time) FROM readings GROUP BY day ORDER BY day",
        "SELECT device_id, temperature, event_time, year, month, day FROM readings WHERE event_time >= "
        "TIMESTAMP '2025-10-15 10:00:00' AND event_time < TIMESTAMP '2025-10-15 10:01:00' ORDER BY event_time",
        'SELECT "$path", count(*) FROM readings GROUP BY 1 ORDER BY 1',
        "SELECT date_trunc('hour', event_time) AS hour, count(*) FROM readings WHERE day = 14 GROUP BY 1 ORDER BY 1",
        "SELECT device_id, n FROM "
        "(SELECT device_id, row_number() OVER (PARTITION BY device_id ORDER BY event_time) AS n FROM readings "
        "WHERE day = 16) WHERE n = 20 ORDER BY device_id LIMIT 20",
        "SELECT reason, attempts, detail.field, day FROM rejects ORDER BY day",
        "SELECT count(*) FROM rejects WHERE day > '2025-10-01'",
        "SELECT 7 / 2, 7e0 / 2, CAST(1e10 AS varchar), CAST(TIMESTAMP '2025-10-15 00:00:00.5' AS varchar), "
        "ARRAY[1, NULL], 'a' || 'b', date_diff('day', DATE '2025-10-14', DATE '2025-11-01')",
    ],
)
def test_both_give_the_same_rows(engines: Engines, sql: str) -> None:
    rows = engines.by_athena(sql)
    assert rows == engines.by_trino(sql)
    assert rows


@pytest.mark.parametrize(
    ("column", "where"),
    [
        ("temperature", "day = 15"),
        ("event_time", "day IN (14, 15)"),
        ("device_id", "day < 17"),
        ("device_id", "day < 0"),
    ],
)
def test_both_read_the_same_of_partitions_and_columns(engines: Engines, column: str, where: str) -> None:
    # GIVEN a query that reads one column of some partitions, and one that reads no column of them
    one, none = (
        f"SELECT count({counted}) FROM readings WHERE {where}"  # noqa: S608
        for counted in (column, "*")
    )
    # WHEN
    athena = [run(engines.athena, sql).scanned_bytes for sql in (one, none)]
    trino = [engines.trino.query(sql, "lake").processed_bytes for sql in (one, none)]
    # THEN the column's chunks have the same size; of a footer Trino reads 48 KiB, whatever its size
    assert athena[0] - athena[1] == pytest.approx(trino[0] - trino[1], rel=0.01)
    assert (athena[0] > 0) == (trino[0] > 0) == (where != "day < 0")


def test_each_reads_what_the_other_has_written(engines: Engines) -> None:
    # WHEN
    engines.by_athena(
        "CREATE TABLE by_athena WITH (partitioned_by = ARRAY['day']) AS "
        "SELECT device_id, temperature, event_time, day FROM readings WHERE day < 16"
    )
    engines.by_trino(
        "CREATE TABLE by_trino WITH (external_location = 's3://lake/by_trino/', format = 'PARQUET', "
        "partitioned_by = ARRAY['day']) AS "
        "SELECT device_id, temperature, event_time, day FROM readings WHERE day < 16"
    )
    engines.by_athena(
        "INSERT INTO by_trino SELECT device_id, temperature, event_time, day FROM readings WHERE day = 16"
    )
    engines.by_trino(
        "INSERT INTO by_athena SELECT device_id, temperature, event_time, day FROM readings WHERE day = 16"
    )
    # THEN
    for table in ("by_athena", "by_trino"):
        sql = f"SELECT day, count(*), sum(temperature), max(event_time) FROM {table} GROUP BY day ORDER BY day"  # noqa: S608
        rows = engines.by_athena(sql)
        assert [row[0] for row in rows] == ["14", "15", "16"]
        assert [(row[0], row[1], row[3]) for row in rows] == [(row[0], row[1], row[3]) for row in engines.by_trino(sql)]


def test_a_view_that_trino_has_made_is_one_for_athena(engines: Engines) -> None:
    # WHEN
    engines.by_trino("CREATE VIEW daily AS SELECT day, avg(temperature) AS mean FROM readings GROUP BY day")
    # THEN
    sql = "SELECT day, mean FROM daily WHERE day = 15"
    assert engines.by_athena(sql) == engines.by_trino(sql)


def test_the_view_of_the_template_is_one_for_trino(engines: Engines) -> None:
    # GIVEN the view as the template writes it, in the form in which Athena keeps one
    sql = (
        "SELECT reject_id, day, detail.field, source.shard_id, resolved_at FROM temperature_lake.distinct_rejects "
        "ORDER BY reject_id"
    )
    # WHEN
    rows = engines.by_trino(sql)
    # THEN a reject stands there once, as it came first, and without a time of its resolution while it is open
    shard = "shardId-000000000000"
    assert rows == [
        ["open", "15", "temperature", shard, None],
        ["other", "16", "temperature", shard, None],
        ["resolved", "15", "temperature", shard, "2026-10-17T00:00:00Z"],
    ]
    assert rows == engines.by_athena(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT nothing FROM readings",
        "SELECT 1 FROM readings WHERE day = '15'",
        "SELECT * FROM nothing_like_it",
        "SELECT day, count(*) AS n FROM readings GROUP BY day HAVING n > 1",
        "SELECT nothing_like_it(1)",
    ],
)
def test_both_refuse_the_same_at_the_same_place(engines: Engines, sql: str) -> None:
    outcome = run(engines.athena, sql)
    assert outcome.state == "FAILED"
    with pytest.raises(Exception, match="line 1:") as refused:
        engines.by_trino(sql)
    assert outcome.reason.split(": ")[1] == str(refused.value).split(": ")[0]
