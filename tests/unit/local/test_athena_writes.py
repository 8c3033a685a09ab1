"""Athena of the embedded endpoint through plain boto3: what CTAS, INSERT and UNLOAD write, and what they refuse."""

import gzip
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.local.athena_queries import Outcome, parquet, run
from tests.unit.local.endpoint_process import REGION, EndpointProcess

BUCKET = "lake"
DAYS = (14, 15, 16)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    process = EndpointProcess(tmp_path_factory.mktemp("athena-writes"))
    s3, glue, athena = process.client("s3"), process.client("glue"), process.client("athena")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    glue.create_database(DatabaseInput={"Name": "lake"})
    rows = pa.table(
        {
            "device_id": [f"device-{day}" for day in DAYS],
            "temperature": [20.5, None, 22.5],
            "event_time": pa.array([1_760_000_000_123_456 + day for day in DAYS], pa.timestamp("us")),
            "day": pa.array(DAYS, pa.int32()),
        }
    )
    s3.put_object(Bucket=BUCKET, Key="readings/a.parquet", Body=parquet(rows))
    for workgroup, enforces in (("free", False), ("enforcing", True)):
        athena.create_work_group(
            Name=workgroup,
            Configuration={
                "EnforceWorkGroupConfiguration": enforces,
                "ResultConfiguration": {
                    "OutputLocation": f"s3://{BUCKET}/results/",
                    "EncryptionConfiguration": {"EncryptionOption": "SSE_S3"},
                },
            },
        )
    created = run(
        athena,
        "CREATE EXTERNAL TABLE readings (device_id string, temperature double, event_time timestamp, day int) "
        f"STORED AS PARQUET LOCATION 's3://{BUCKET}/readings/'",
        workgroup="free",
    )
    assert created.state == "SUCCEEDED"
    yield process
    process.stop()


@pytest.fixture(scope="module")
def athena(endpoint: EndpointProcess) -> Any:
    return endpoint.client("athena")


def succeeded(athena: Any, sql: str, **arguments: Any) -> Outcome:
    outcome = run(athena, sql, workgroup="free", **arguments)
    assert outcome.state == "SUCCEEDED", outcome.reason
    return outcome


def manifest_of(endpoint: EndpointProcess, outcome: Outcome) -> list[str]:
    return body_of(endpoint, outcome.execution["Statistics"]["DataManifestLocation"]).decode().splitlines()


def body_of(endpoint: EndpointProcess, url: str) -> bytes:
    bucket, key = url.removeprefix("s3://").split("/", 1)
    body: bytes = endpoint.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


# -- CREATE TABLE AS ---------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/create-table-as.html")
def test_a_table_is_made_of_a_query_as_gzip_parquet(endpoint: EndpointProcess, athena: Any) -> None:
    # WHEN
    outcome = succeeded(athena, "CREATE TABLE warm AS SELECT device_id, temperature, event_time FROM readings")
    # THEN the files are below tables/ of the result location, where the manifest names them
    output = outcome.execution["ResultConfiguration"]["OutputLocation"]
    assert output == f"s3://{BUCKET}/results/tables/{outcome.execution['QueryExecutionId']}"
    (url,) = manifest_of(endpoint, outcome)
    assert url.startswith(f"{output}/")
    # AND are Parquet with GZIP, with milliseconds
    metadata = pq.read_metadata(io.BytesIO(body_of(endpoint, url)))
    assert metadata.row_group(0).column(0).compression == "GZIP"
    assert pq.read_schema(io.BytesIO(body_of(endpoint, url))).field("event_time").type == pa.timestamp("ms")
    # AND the table is one of the catalog
    table = endpoint.client("glue").get_table(DatabaseName="lake", Name="warm")["Table"]
    assert [(column["Name"], column["Type"]) for column in table["StorageDescriptor"]["Columns"]] == [
        ("device_id", "string"),
        ("temperature", "double"),
        ("event_time", "timestamp"),
    ]
    assert (table["TableType"], table["StorageDescriptor"]["Location"]) == ("EXTERNAL_TABLE", f"{output}/")
    assert succeeded(athena, "SELECT count(*), max(event_time) FROM warm").rows[1] == ["3", "2025-10-09 08:53:20.123"]


@pytest.mark.source("https://github.com/aoyagikouhei/athena-local/blob/main/docs/result-files.md")
@pytest.mark.source("https://github.com/pyathena-dev/PyAthena/blob/master/tests/pyathena/test_cursor.py")
def test_statements_that_write_answer_a_count_instead_of_rows(endpoint: EndpointProcess, athena: Any) -> None:
    # WHEN
    made = succeeded(athena, "CREATE TABLE counted AS SELECT device_id FROM readings")
    inserted = succeeded(athena, "INSERT INTO counted VALUES ('a'), ('b')")
    # THEN
    for outcome, kind, ending, count, update in (
        (made, ("DDL", "CREATE_TABLE_AS_SELECT"), "results/tables/{}", 3, b"CREATE TABLE"),
        (inserted, ("DML", "INSERT"), "results/{}", 2, b"INSERT"),
    ):
        execution = outcome.execution
        query_id = execution["QueryExecutionId"]
        answer = athena.get_query_results(QueryExecutionId=query_id)
        assert (answer["ResultSet"]["Rows"], answer["UpdateCount"]) == ([], count)
        assert outcome.columns == [("rows", "bigint")]
        assert (execution["StatementType"], execution["SubstatementType"]) == kind
        output = execution["ResultConfiguration"]["OutputLocation"]
        assert output == f"s3://{BUCKET}/" + ending.format(query_id)
        # AND drivers find the same in the companion, byte for byte behind the query's id
        companion = body_of(endpoint, f"{output}.metadata")
        column = bytes.fromhex("22220a04686976652204726f77732a04726f77733206626967696e743813400048035000")
        assert (
            companion[2 + companion[1] :] == b"\x12" + bytes([len(update)]) + update + b"\x18" + bytes([count]) + column
        )


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/ctas-examples.html")
def test_a_partitioned_table_is_made_with_its_partitions(endpoint: EndpointProcess, athena: Any) -> None:
    # WHEN
    succeeded(
        athena,
        "CREATE TABLE by_day WITH (external_location = 's3://lake/by_day/', write_compression = 'SNAPPY', "
        "partitioned_by = ARRAY['day']) AS SELECT device_id, temperature, day FROM readings WHERE day < 16",
    )
    # THEN
    partitions = endpoint.client("glue").get_partitions(DatabaseName="lake", TableName="by_day")["Partitions"]
    found = {each["Values"][0]: each["StorageDescriptor"]["Location"] for each in partitions}
    assert found == {day: f"s3://{BUCKET}/by_day/day={day}/" for day in ("14", "15")}
    outcome = succeeded(athena, "SELECT device_id, day FROM by_day WHERE day = 15")
    assert outcome.rows[1:] == [["device-15", "15"]]
    assert outcome.scanned_bytes < succeeded(athena, "SELECT device_id, day FROM by_day").scanned_bytes


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/create-table-as.html")
def test_a_table_of_json_lines_is_made(endpoint: EndpointProcess, athena: Any) -> None:
    # WHEN
    outcome = succeeded(
        athena,
        "CREATE TABLE lines WITH (format = 'JSON') AS SELECT device_id, temperature, event_time, ARRAY[1, 2] AS list, "
        "MAP(ARRAY['k'], ARRAY[1.5]) AS pairs FROM readings WHERE day = 14",
    )
    # THEN
    (url,) = manifest_of(endpoint, outcome)
    assert json.loads(gzip.decompress(body_of(endpoint, url))) == {
        "device_id": "device-14",
        "temperature": 20.5,
        "event_time": "2025-10-09 08:53:20.123",
        "list": [1, 2],
        "pairs": {"k": 1.5},
    }
    assert succeeded(athena, "SELECT * FROM lines").rows[1] == [
        "device-14",
        "20.5",
        "2025-10-09 08:53:20.123",
        "[1, 2]",
        "{k=1.5}",
    ]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/create-table-as.html")
def test_a_table_with_no_data_has_columns_and_reads_nothing(endpoint: EndpointProcess, athena: Any) -> None:
    outcome = succeeded(athena, "CREATE TABLE hollow AS SELECT * FROM readings WITH NO DATA")
    assert (manifest_of(endpoint, outcome), outcome.scanned_bytes) == ([], 0)
    assert succeeded(athena, "SELECT count(*) FROM hollow").rows[1] == ["0"]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/create-table-as.html")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/ctas-considerations-limitations.html")
@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("CREATE TABLE readings AS SELECT 1 AS x", "TABLE_ALREADY_EXISTS: line 1:1: Destination table"),
        (
            f"CREATE TABLE t WITH (external_location = 's3://{BUCKET}/readings/') AS SELECT 1 AS x",
            f"HIVE_PATH_ALREADY_EXISTS: Target directory for table 'lake.t' already exists: s3://{BUCKET}/readings/",
        ),
        ("CREATE TABLE t AS SELECT 1", "MISSING_COLUMN_NAME: line 1:1: Column name not specified at position 1"),
        ("CREATE TABLE t AS SELECT 1 AS x, NULL AS y", "COLUMN_TYPE_UNKNOWN: line 1:1: Column type is unknown at pos"),
        ("CREATE TABLE t AS SELECT now() AS x", "NOT_SUPPORTED: Unsupported Hive type: timestamp with time zone"),
        (
            "CREATE TABLE t WITH (partitioned_by = ARRAY['day']) AS SELECT day, device_id FROM readings",
            "HIVE_COLUMN_ORDER_MISMATCH: Partition keys must be the last columns",
        ),
        (
            "CREATE TABLE t WITH (partitioned_by = ARRAY['p']) AS SELECT 1 AS x, p FROM UNNEST(sequence(1, 101)) u(p)",
            "HIVE_TOO_MANY_OPEN_PARTITIONS: Exceeded limit of 100 open writers for partitions/buckets",
        ),
        ("CREATE TABLE t WITH (format = 'PARQUET', bucket_count = 3) AS SELECT 1 AS x", "NOT_SUPPORTED: Property"),
        ("CREATE TABLE nowhere.t AS SELECT 1 AS x", "SCHEMA_NOT_FOUND: line 1:1: Schema 'nowhere' does not exist"),
    ],
)
def test_a_table_that_cannot_be_made_says_why(endpoint: EndpointProcess, athena: Any, sql: str, reason: str) -> None:
    outcome = run(athena, sql, workgroup="free")
    assert (outcome.state, outcome.reason[: len(reason)]) == ("FAILED", reason)
    tables = endpoint.client("glue").get_tables(DatabaseName="lake")["TableList"]
    assert "t" not in [table["Name"] for table in tables]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/create-table-as.html")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/workgroups-settings-override.html")
def test_a_workgroup_that_enforces_its_location_admits_no_other(athena: Any) -> None:
    # WHEN
    elsewhere = f"CREATE TABLE elsewhere WITH (external_location = 's3://{BUCKET}/elsewhere/') AS SELECT 1 AS x"
    outcome = run(athena, elsewhere, workgroup="enforcing")
    # THEN
    assert outcome.state == "FAILED"
    assert "enforces a centralized output location for all queries" in outcome.reason
    assert run(athena, "CREATE TABLE here AS SELECT 1 AS x", workgroup="enforcing").state == "SUCCEEDED"


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/create-table-as.html")
def test_if_not_exists_leaves_the_table_that_is_there(athena: Any) -> None:
    outcome = succeeded(athena, "CREATE TABLE IF NOT EXISTS readings AS SELECT 1 AS x")
    assert athena.get_query_results(QueryExecutionId=outcome.execution["QueryExecutionId"])["UpdateCount"] == 0
    assert succeeded(athena, "SELECT count(device_id) FROM readings").rows[1] == ["3"]


# -- INSERT ------------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/insert-into.html")
def test_rows_are_inserted_and_new_partitions_registered(endpoint: EndpointProcess, athena: Any) -> None:
    # GIVEN a table whose one partition is elsewhere
    glue = endpoint.client("glue")
    succeeded(
        athena,
        "CREATE EXTERNAL TABLE days (device_id string, temperature double) PARTITIONED BY (day int) STORED AS PARQUET "
        f"LOCATION 's3://{BUCKET}/days/'",
    )
    succeeded(athena, f"ALTER TABLE days ADD PARTITION (day = 14) LOCATION 's3://{BUCKET}/moved/'")
    # WHEN
    outcome = succeeded(athena, "INSERT INTO days (device_id, day) SELECT device_id, day FROM readings WHERE day < 16")
    # THEN
    folders = sorted(url.rpartition("/")[0] for url in manifest_of(endpoint, outcome))
    assert folders == [f"s3://{BUCKET}/days/day=15", f"s3://{BUCKET}/moved"]
    partitions = glue.get_partitions(DatabaseName="lake", TableName="days")["Partitions"]
    assert sorted(each["Values"][0] for each in partitions) == ["14", "15"]
    rows = succeeded(athena, "SELECT device_id, temperature, day FROM days ORDER BY day").rows[1:]
    assert rows == [["device-14", None, "14"], ["device-15", None, "15"]]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/partition-projection.html")
def test_rows_are_inserted_where_projection_looks_for_them(endpoint: EndpointProcess, athena: Any) -> None:
    # GIVEN
    succeeded(
        athena,
        "CREATE EXTERNAL TABLE projected (device_id string) PARTITIONED BY (day string) STORED AS PARQUET "
        f"LOCATION 's3://{BUCKET}/projected/' TBLPROPERTIES ('projection.enabled' = 'true', "
        "'projection.day.type' = 'integer', 'projection.day.range' = '1,31', "
        f"'storage.location.template' = 's3://{BUCKET}/projected/${{day}}/')",
    )
    # WHEN
    outcome = succeeded(athena, "INSERT INTO projected SELECT device_id, CAST(day AS varchar) FROM readings")
    # THEN
    folders = sorted(url.rpartition("/")[0] for url in manifest_of(endpoint, outcome))
    assert folders == [f"s3://{BUCKET}/projected/{day}" for day in DAYS]
    assert endpoint.client("glue").get_partitions(DatabaseName="lake", TableName="projected")["Partitions"] == []
    assert succeeded(athena, "SELECT device_id FROM projected WHERE day = '15'").rows[1:] == [["device-15"]]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/insert-into.html")
@pytest.mark.source("https://trino.io/docs/current/sql/insert.html")
@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("INSERT INTO nothing SELECT 1", "TABLE_NOT_FOUND: line 1:1: Table 'awsdatacatalog.lake.nothing' does not"),
        ("INSERT INTO readings (humidity) SELECT 1", "COLUMN_NOT_FOUND: line 1:13: Insert column name does not exist"),
        (
            "INSERT INTO readings (device_id, day) SELECT 1, 'a'",
            "TYPE_MISMATCH: line 1:1: Insert query has mismatched column types: Table: [varchar, integer], "
            "Query: [integer, varchar]",
        ),
    ],
)
def test_an_insert_that_does_not_fit_says_why(athena: Any, sql: str, reason: str) -> None:
    outcome = run(athena, sql, workgroup="free")
    assert (outcome.state, outcome.reason[: len(reason)]) == ("FAILED", reason)
    assert succeeded(athena, "SELECT count(*) FROM readings").rows[1] == ["3"]


# -- UNLOAD ------------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/unload.html")
def test_a_query_is_unloaded_into_an_empty_place(endpoint: EndpointProcess, athena: Any) -> None:
    sql = (
        "UNLOAD (SELECT device_id, day FROM readings WHERE day > ?) TO 's3://lake/unloaded/' "
        "WITH (format = 'PARQUET', compression = 'snappy', partitioned_by = ARRAY['day'])"
    )
    # WHEN
    outcome = succeeded(athena, sql, ExecutionParameters=["14"])
    # THEN
    urls = sorted(manifest_of(endpoint, outcome))
    assert [url.rpartition("/")[0] for url in urls] == [f"s3://{BUCKET}/unloaded/day={day}" for day in (15, 16)]
    assert pq.read_table(io.BytesIO(body_of(endpoint, urls[0]))).to_pylist() == [{"device_id": "device-15"}]
    # AND a second time something is there
    again = run(athena, sql, workgroup="free", ExecutionParameters=["14"])
    assert again.reason.startswith("HIVE_PATH_ALREADY_EXISTS")


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/unload.html")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_EncryptionConfiguration.html")
def test_json_is_unloaded_as_gzip_and_encrypted_like_results(endpoint: EndpointProcess, athena: Any) -> None:
    # WHEN
    outcome = succeeded(
        athena,
        f"UNLOAD (SELECT 1 AS x, CAST(NULL AS date) AS y) TO 's3://{BUCKET}/unloaded_json' WITH (format = 'JSON')",
    )
    # THEN
    (url,) = manifest_of(endpoint, outcome)
    assert re.fullmatch(rf"s3://{BUCKET}/unloaded_json/\d{{8}}_\d{{6}}_\d{{5}}_\w{{5}}_[0-9a-f-]{{36}}\.gz", url)
    assert gzip.decompress(body_of(endpoint, url)) == b'{"x":1,"y":null}\n'
    head = endpoint.client("s3").head_object(Bucket=BUCKET, Key=url.removeprefix(f"s3://{BUCKET}/"))
    assert head["ServerSideEncryption"] == "AES256"


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/workgroups-setting-control-limits-cloudwatch.html")
def test_the_scan_limit_holds_for_statements_that_write(endpoint: EndpointProcess, athena: Any) -> None:
    # GIVEN 12 MB of one column
    table = pa.table({"x": pa.array([str(n).zfill(60) for n in range(200_000)])})
    body = parquet(table, use_dictionary=False, compression="none", write_statistics=False)
    endpoint.client("s3").put_object(Bucket=BUCKET, Key="large/a.parquet", Body=body)
    succeeded(athena, f"CREATE EXTERNAL TABLE large (x string) STORED AS PARQUET LOCATION 's3://{BUCKET}/large/'")
    athena.create_work_group(
        Name="frugal",
        Configuration={
            "BytesScannedCutoffPerQuery": 10_000_000,
            "ResultConfiguration": {"OutputLocation": f"s3://{BUCKET}/results/"},
        },
    )
    # WHEN
    outcome = run(athena, "CREATE TABLE copied AS SELECT x FROM large", workgroup="frugal")
    # THEN
    assert (outcome.state, outcome.reason) == ("CANCELLED", "Bytes scanned limit was exceeded")
    assert run(athena, "SELECT * FROM copied", workgroup="free").reason.startswith("TABLE_NOT_FOUND")
