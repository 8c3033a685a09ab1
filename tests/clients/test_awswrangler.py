"""awswrangler, the AWS SDK for pandas (https://github.com/aws/aws-sdk-pandas): S3, the catalog and Athena."""

from collections.abc import Callable, Mapping
from typing import Any

import awswrangler
import pandas
import pytest

COLUMNS = ["device_id", "temperature", "event_time", "day"]


@pytest.fixture
def query(database: str, bucket: str) -> Callable[..., pandas.DataFrame]:
    def run(sql: str, **arguments: Any) -> pandas.DataFrame:
        given = {"s3_output": f"s3://{bucket}/results/", "ctas_approach": False, **arguments}
        frame: pandas.DataFrame = awswrangler.athena.read_sql_query(sql, database=database, **given)
        return frame

    return run


def test_all_three_ways_to_read_give_the_same(query: Callable[..., pandas.DataFrame], bucket: str) -> None:
    # GIVEN
    sql = "SELECT device_id, temperature, event_time, day FROM readings ORDER BY device_id"
    # WHEN
    frames = [
        query(sql),
        query(sql, ctas_approach=True),
        query(sql, unload_approach=True, s3_output=f"s3://{bucket}/unloaded/"),
        awswrangler.s3.read_parquet_table(database="clients", table="readings")
        .sort_values("device_id")
        .reset_index(drop=True),
    ]
    # THEN
    for frame in frames:
        assert frame.columns.tolist() == COLUMNS
        assert frame["device_id"].tolist() == ["a", "b", "c"]
        assert frame["temperature"].fillna(0).tolist() == [20.5, -1.0, 0]
        assert frame["event_time"].dt.strftime("%d %H:%M:%S.%f").tolist()[2] == "15 23:59:59.999000"
        assert frame["day"].astype("int64").tolist() == [14, 15, 15]
    # AND nothing of the temporary table is left
    assert awswrangler.catalog.tables(database="clients", name_prefix="temp_table").empty


@pytest.mark.parametrize("ctas_approach", [False, True])
def test_chunks_are_read(query: Callable[..., Any], ctas_approach: bool) -> None:
    chunks = query("SELECT device_id FROM readings", ctas_approach=ctas_approach, chunksize=2)
    assert sorted(device for chunk in chunks for device in chunk["device_id"]) == ["a", "b", "c"]


def test_parameters_are_passed(query: Callable[..., pandas.DataFrame]) -> None:
    named = query("SELECT device_id FROM readings WHERE day = :day", params={"day": 14})
    placed = query("SELECT device_id FROM readings WHERE device_id = ?", params=["b"], paramstyle="qmark")
    assert (named["device_id"].tolist(), placed["device_id"].tolist()) == (["a"], ["b"])


def test_a_dataset_is_appended_to_and_its_partitions_are_replaced(
    query: Callable[..., pandas.DataFrame], bucket: str, database: str
) -> None:
    # GIVEN
    where = {"path": f"s3://{bucket}/written/", "dataset": True, "database": database, "table": "written"}
    first = pandas.DataFrame({"value": [1, 2], "day": [1, 2]})
    awswrangler.s3.to_parquet(first, **where, partition_cols=["day"])
    # WHEN
    awswrangler.s3.to_parquet(
        pandas.DataFrame({"value": [3], "day": [3], "humidity": [0.5]}),
        **where,
        partition_cols=["day"],
        mode="append",
        schema_evolution=True,
    )
    awswrangler.s3.to_parquet(
        pandas.DataFrame({"value": [20], "day": [2], "humidity": [0.25]}),
        **where,
        partition_cols=["day"],
        mode="overwrite_partitions",
    )
    # THEN
    frame = query("SELECT value, humidity FROM written ORDER BY value")
    assert frame["value"].tolist() == [1, 3, 20]
    assert frame["humidity"].fillna(0).tolist() == [0, 0.5, 0.25]
    assert awswrangler.catalog.get_partitions(database, "written", expression="day > 1") == {
        f"s3://{bucket}/written/day={day}/": [str(day)] for day in (2, 3)
    }


def test_the_catalog_is_read_and_changed(bucket: str, database: str) -> None:
    catalog = awswrangler.catalog
    # GIVEN
    catalog.create_parquet_table(
        database=database,
        table="declared",
        path=f"s3://{bucket}/declared/",
        columns_types={"device_id": "string"},
        partitions_types={"day": "int"},
        description="by hand",
        parameters={"owner": "clients"},
    )
    # WHEN
    locations = {f"s3://{bucket}/declared/day={day}/": [str(day)] for day in range(1, 31)}
    catalog.add_parquet_partitions(database, "declared", locations)
    catalog.delete_partitions("declared", database, [[str(day)] for day in range(1, 29)])
    catalog.add_column(database, "declared", "temperature", "double", "in °C")
    catalog.upsert_table_parameters({"seen": "yes"}, database, "declared")
    # THEN
    assert sorted(values[0] for values in catalog.get_partitions(database, "declared").values()) == ["29", "30"]
    assert catalog.get_table_types(database, "declared") == {
        "device_id": "string",
        "temperature": "double",
        "day": "int",
    }
    assert catalog.get_columns_comments(database, "declared")["temperature"] == "in °C"
    assert {"owner": "clients", "seen": "yes"}.items() <= catalog.get_table_parameters(database, "declared").items()
    assert catalog.get_table_description(database, "declared") == "by hand"
    assert catalog.tables(database=database, name_contains="clare")["Table"].tolist() == ["declared"]
    assert [table["Name"] for table in catalog.search_tables("by hand")] == ["declared"]
    assert catalog.tables(database=database, search_text="by hand")["Table"].tolist() == ["declared"]
    assert database in catalog.databases()["Database"].tolist()
    assert catalog.delete_table_if_exists(database, "declared")
    assert not catalog.does_table_exist(database, "declared")


def test_tables_are_described_repaired_and_made(bucket: str, database: str) -> None:
    results = {"database": database, "s3_output": f"s3://{bucket}/results/"}
    described = awswrangler.athena.describe_table("readings", **results)
    assert described["Column Name"].tolist()[:2] == ["device_id", "temperature"]
    assert "LOCATION" in awswrangler.athena.show_create_table("readings", **results)
    assert awswrangler.athena.repair_table("readings", **results) == "SUCCEEDED"
    made = awswrangler.athena.create_ctas_table(
        "SELECT device_id, day FROM readings",
        database=database,
        ctas_table="made",
        s3_output=f"s3://{bucket}/made/",
        partitioning_info=["day"],
        wait=True,
    )
    assert made["ctas_table"] == "made"
    assert len(awswrangler.catalog.get_partitions(database, "made")) == 2


def test_prepared_statements_are_made_and_run(query: Callable[..., pandas.DataFrame]) -> None:
    awswrangler.athena.create_prepared_statement("SELECT device_id FROM readings WHERE day = ?", "by_day")
    assert query("EXECUTE by_day USING 14")["device_id"].tolist() == ["a"]
    awswrangler.athena.delete_prepared_statement("by_day")
    assert awswrangler.athena.list_prepared_statements() == []


def test_the_stacks_own_workgroup_decides_where_results_go(database: str, outputs: Mapping[str, str]) -> None:
    frame = awswrangler.athena.read_sql_query(
        "SELECT device_id FROM readings", database=database, workgroup=outputs["WorkGroupName"], ctas_approach=False
    )
    assert len(frame) == 3
    location = frame.query_metadata["ResultConfiguration"]["OutputLocation"]
    assert location.startswith(f"s3://{outputs['AnalyticsBucketName']}/athena-results/")
