"""Athena of the embedded endpoint through plain boto3: catalog, permissions, scanned bytes, result files, states."""

import datetime
import gzip
import io
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from tests.unit.local.athena_queries import finished, parquet, run
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

BUCKET = "lake"
LOCATION = f"s3://{BUCKET}/readings"
ROWS_PER_DAY = 1000
COLUMNS = [
    {"Name": "device_id", "Type": "string"},
    {"Name": "temperature", "Type": "double"},
    {"Name": "event_time", "Type": "timestamp"},
]
KEYS = [{"Name": name, "Type": "int"} for name in ("year", "month", "day")]
PARQUET = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"},
    "Columns": COLUMNS,
}
JSON_LINES = {
    "InputFormat": "org.apache.hadoop.mapred.TextInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
    "SerdeInfo": {"SerializationLibrary": "org.openx.data.jsonserde.JsonSerDe"},
}
CATALOG = f"arn:aws:glue:{REGION}:{ACCOUNT}:"


def day_of_readings(day: int) -> bytes:
    start = datetime.datetime(2025, 10, day)
    table = pa.table(
        {
            "device_id": [f"device-{row % 10}" for row in range(ROWS_PER_DAY)],
            "temperature": [20 + row / 7 for row in range(ROWS_PER_DAY)],
            "event_time": pa.array(
                [start + datetime.timedelta(seconds=row, microseconds=123_456) for row in range(ROWS_PER_DAY)],
                pa.timestamp("us"),
            ),
            "not_in_the_catalog": list(range(ROWS_PER_DAY)),
        }
    )
    return parquet(table)


def partition_input(day: int) -> dict[str, Any]:
    return {
        "Values": ["2025", "10", str(day)],
        "StorageDescriptor": {**PARQUET, "Location": f"{LOCATION}/year=2025/month=10/day={day}/"},
    }


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    process = EndpointProcess(tmp_path_factory.mktemp("athena"))
    s3, glue, athena = process.client("s3"), process.client("glue"), process.client("athena")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    glue.create_database(DatabaseInput={"Name": "lake"})
    glue.create_table(
        DatabaseName="lake",
        TableInput={
            "Name": "readings",
            "TableType": "EXTERNAL_TABLE",
            "StorageDescriptor": {**PARQUET, "Location": f"{LOCATION}/"},
            "PartitionKeys": KEYS,
        },
    )
    for day in (14, 15, 16):
        key = f"readings/year=2025/month=10/day={day}/part-0.parquet"
        s3.put_object(Bucket=BUCKET, Key=key, Body=day_of_readings(day))
    for day in (14, 15):  # day 16 has files and no partition
        glue.create_partition(DatabaseName="lake", TableName="readings", PartitionInput=partition_input(day))
    athena.create_work_group(
        Name="analysts",
        Configuration={
            "EnforceWorkGroupConfiguration": True,
            "PublishCloudWatchMetricsEnabled": True,
            "BytesScannedCutoffPerQuery": 10_000_000,
            "ResultConfiguration": {
                "OutputLocation": f"s3://{BUCKET}/results/",
                "EncryptionConfiguration": {"EncryptionOption": "SSE_S3"},
            },
        },
    )
    yield process
    process.stop()


@pytest.fixture(scope="module")
def athena(endpoint: EndpointProcess) -> Any:
    return endpoint.client("athena")


# -- What is read ------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/partitions.html")
def test_the_representative_query_reads_one_partition(athena: Any) -> None:
    # WHEN
    outcome = run(
        athena,
        "SELECT device_id, avg(temperature) AS avg_temp FROM readings WHERE year=2025 AND month=10 AND day=15 "
        "GROUP BY device_id ORDER BY device_id",
    )
    # THEN
    assert outcome.rows[0] == ["device_id", "avg_temp"]
    assert len(outcome.rows) == 11
    assert float(outcome.rows[1][1] or "nan") == pytest.approx(20 + 495 / 7, rel=1e-12)
    assert outcome.columns == [("device_id", "varchar"), ("avg_temp", "double")]
    # AND a third of the days is billed, and two of the columns
    everything = run(athena, "SELECT * FROM readings")
    assert 0 < outcome.scanned_bytes < everything.scanned_bytes / 2


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/partitions.html")
def test_only_registered_partitions_and_catalog_columns_exist(athena: Any) -> None:
    assert run(athena, "SELECT count(*) FROM readings").rows[1] == [str(2 * ROWS_PER_DAY)]
    assert run(athena, "SELECT count(*) FROM readings WHERE day = 16").rows[1] == ["0"]
    assert run(athena, "SELECT not_in_the_catalog FROM readings").reason.startswith("COLUMN_NOT_FOUND: line 1:8")
    names = [name for name, _ in run(athena, "SELECT * FROM readings LIMIT 1").columns]
    assert names == ["device_id", "temperature", "event_time", "year", "month", "day"]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/performance-tuning-data-optimization-techniques.html")
def test_scanned_bytes_are_the_footers_and_the_chunks_that_are_needed(athena: Any) -> None:
    # GIVEN what one file's footer says
    metadata = pq.read_metadata(io.BytesIO(day_of_readings(15)))
    footer = metadata.serialized_size + 8
    chunks = {
        metadata.row_group(0).column(index).path_in_schema: metadata.row_group(0).column(index).total_compressed_size
        for index in range(metadata.num_columns)
    }
    # THEN
    where = "FROM readings WHERE day = 15"
    assert run(athena, f"SELECT count(*) {where}").scanned_bytes == footer
    assert run(athena, f"SELECT max(temperature) {where}").scanned_bytes == footer + chunks["temperature"]
    assert run(athena, f"SELECT 1 {where} AND device_id = 'x' AND temperature > 1e6").scanned_bytes == footer
    assert run(athena, "SELECT count(*) FROM readings WHERE year = 2024").scanned_bytes == 0


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/querying-getting-the-file-locations.html")
def test_the_path_of_each_row_is_known_and_restricts_what_is_read(athena: Any) -> None:
    # WHEN
    outcome = run(athena, 'SELECT "$path", count(*) FROM readings GROUP BY 1 ORDER BY 1')
    # THEN
    paths = [f"{LOCATION}/year=2025/month=10/day={day}/part-0.parquet" for day in (14, 15)]
    assert outcome.rows[1:] == [[path, str(ROWS_PER_DAY)] for path in paths]
    one = run(athena, 'SELECT count(*) FROM readings WHERE "$path" IN (?)', ExecutionParameters=[f"'{paths[0]}'"])
    assert (one.rows[1], one.scanned_bytes) == ([str(ROWS_PER_DAY)], outcome.scanned_bytes // 2)


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/data-types.html")
def test_times_are_compared_and_shown_in_milliseconds(athena: Any) -> None:
    outcome = run(
        athena, "SELECT event_time FROM readings WHERE event_time = TIMESTAMP '2025-10-15 00:00:01.123' AND day = 15"
    )
    assert outcome.rows[1:] == [["2025-10-15 00:00:01.123"]]
    assert outcome.columns == [("event_time", "timestamp")]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/handling-schema-updates-chapter.html")
def test_a_new_column_is_null_in_older_files(endpoint: EndpointProcess, athena: Any) -> None:
    # GIVEN a table with a column that no file has
    endpoint.client("glue").create_table(
        DatabaseName="lake",
        TableInput={
            "Name": "readings_with_humidity",
            "StorageDescriptor": {
                **PARQUET,
                "Columns": [*COLUMNS, {"Name": "humidity", "Type": "double"}],
                "Location": f"{LOCATION}/year=2025/month=10/day=15/",
            },
        },
    )
    # WHEN
    outcome = run(athena, "SELECT count(*), count(humidity) FROM readings_with_humidity")
    # THEN
    assert outcome.rows[1] == [str(ROWS_PER_DAY), "0"]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/handling-schema-updates-chapter.html")
def test_a_file_of_another_type_is_bad_data(endpoint: EndpointProcess, athena: Any) -> None:
    # GIVEN a file whose temperature is text
    body = parquet(pa.table({"device_id": ["a"], "temperature": ["warm"]}))
    endpoint.client("s3").put_object(Bucket=BUCKET, Key="bad/part-0.parquet", Body=body)
    endpoint.client("glue").create_table(
        DatabaseName="lake",
        TableInput={"Name": "bad", "StorageDescriptor": {**PARQUET, "Location": f"s3://{BUCKET}/bad/"}},
    )
    # WHEN
    outcome = run(athena, "SELECT temperature FROM bad")
    # THEN
    assert outcome.reason.startswith("HIVE_BAD_DATA: Field temperature's type STRING in parquet file s3://lake/bad/")
    assert run(athena, "SELECT device_id FROM bad").rows[1:] == [["a"]]


# -- JSON lines and projection -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _rejects(endpoint: EndpointProcess) -> None:
    endpoint.client("glue").create_table(
        DatabaseName="lake",
        TableInput={
            "Name": "rejects",
            "TableType": "EXTERNAL_TABLE",
            "StorageDescriptor": {
                **JSON_LINES,
                "Columns": [
                    {"Name": "reason", "Type": "string"},
                    {"Name": "attempts", "Type": "int"},
                    {"Name": "detail", "Type": "struct<field:string,value:string>"},
                ],
                "Location": f"s3://{BUCKET}/rejects/",
            },
            "PartitionKeys": KEYS,
            "Parameters": {
                "projection.enabled": "true",
                **{f"projection.{name}.type": "integer" for name in ("year", "month", "day")},
                "projection.year.range": "2025,2026",
                "projection.month.range": "1,12",
                "projection.day.range": "1,31",
                "storage.location.template": f"s3://{BUCKET}/rejects/year=${{year}}/month=${{month}}/day=${{day}}/",
            },
        },
    )
    lines = b'{"reason":"too_hot","attempts":1,"detail":{"field":"t","value":3}}\n\n{"reason":"late","extra":[1]}\n'
    s3 = endpoint.client("s3")
    s3.put_object(Bucket=BUCKET, Key="rejects/year=2025/month=10/day=5/a.gz", Body=gzip.compress(lines))
    s3.put_object(Bucket=BUCKET, Key="rejects/year=2025/month=11/day=1/bad.json", Body=b'{"reason":"x"}\nnot json\n')
    s3.put_object(Bucket=BUCKET, Key="rejects/year=2027/month=1/day=1/outside.json", Body=b'{"reason":"x"}\n')


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/partition-projection.html")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/openx-json-serde.html")
@pytest.mark.usefixtures("_rejects")
def test_compressed_json_lines_are_read_through_projection(athena: Any) -> None:
    # WHEN
    outcome = run(athena, "SELECT reason, attempts, detail, detail.field, day FROM rejects WHERE month = 10")
    # THEN
    assert outcome.rows[1:] == [
        ["too_hot", "1", "{field=t, value=3}", "t", "5"],
        ["late", None, None, None, "5"],
    ]
    # AND what lies outside of the projected ranges does not exist
    assert run(athena, "SELECT count(*) FROM rejects WHERE year = 2027").rows[1] == ["0"]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/performance-tuning-data-optimization-techniques.html")
@pytest.mark.usefixtures("_rejects")
def test_json_is_billed_whole(endpoint: EndpointProcess, athena: Any) -> None:
    size = endpoint.client("s3").head_object(Bucket=BUCKET, Key="rejects/year=2025/month=10/day=5/a.gz")[
        "ContentLength"
    ]
    assert run(athena, "SELECT count(*) FROM rejects WHERE month = 10 AND year = 2025").scanned_bytes == size


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/openx-json-serde.html")
@pytest.mark.usefixtures("_rejects")
def test_a_malformed_line_fails_the_query(athena: Any) -> None:
    outcome = run(athena, "SELECT count(*) FROM rejects WHERE month = 11")
    assert outcome.state == "FAILED"
    assert "Row is not a valid JSON Object" in outcome.reason
    assert "s3://lake/rejects/year=2025/month=11/day=1/bad.json" in outcome.reason


# -- Results -----------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/querying-finding-output-files.html")
def test_the_result_file_is_athenas_csv(endpoint: EndpointProcess, athena: Any) -> None:
    # WHEN
    outcome = run(athena, "SELECT 1 AS i, 'a\"b' AS q, NULL AS n, '' AS empty, 1.760486400123E9 AS d, ARRAY[1, 2] AS a")
    # THEN
    location = outcome.execution["ResultConfiguration"]["OutputLocation"]
    assert location == f"s3://{BUCKET}/results/{outcome.execution['QueryExecutionId']}.csv"
    stored = endpoint.client("s3").get_object(Bucket=BUCKET, Key=location.split("/", 3)[3])
    assert stored["Body"].read() == (b'"i","q","n","empty","d","a"\n"1","a""b",,"","1.760486400123E9","[1, 2]"\n')
    assert stored["ServerSideEncryption"] == "AES256"
    metadata = endpoint.client("s3").get_object(Bucket=BUCKET, Key=location.split("/", 3)[3] + ".metadata")
    assert b"varchar" in metadata["Body"].read()


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_GetQueryResults.html")
def test_results_come_in_pages_of_at_most_a_thousand_rows(athena: Any) -> None:
    # GIVEN
    query_id = athena.start_query_execution(
        QueryString="SELECT x FROM UNNEST(sequence(1, 2500)) AS t(x) ORDER BY x", WorkGroup="analysts"
    )["QueryExecutionId"]
    wait_until(lambda: finished(athena, query_id))
    # WHEN
    pages = list(athena.get_paginator("get_query_results").paginate(QueryExecutionId=query_id))
    # THEN the header is the first row of the first page only
    values = [row["Data"][0]["VarCharValue"] for page in pages for row in page["ResultSet"]["Rows"]]
    assert [len(page["ResultSet"]["Rows"]) for page in pages] == [1000, 1000, 501]
    assert values == ["x", *map(str, range(1, 2501))]
    assert pages[0]["UpdateCount"] == 0


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/workgroups-settings-override.html")
def test_the_workgroup_wins_over_the_request_and_an_unknown_one_is_refused(athena: Any) -> None:
    elsewhere = {"OutputLocation": f"s3://{BUCKET}/elsewhere/"}
    outcome = run(athena, "SELECT 1", ResultConfiguration=elsewhere)
    assert outcome.execution["ResultConfiguration"]["OutputLocation"].startswith(f"s3://{BUCKET}/results/")
    with pytest.raises(ClientError, match="WorkGroup is not found"):
        run(athena, "SELECT 1", workgroup="nobody")
    with pytest.raises(ClientError, match="Unable to verify/create output bucket"):
        run(athena, "SELECT 1", workgroup="primary", ResultConfiguration={"OutputLocation": "s3://nowhere/"})


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/querying-with-prepared-statements.html")
def test_parameters_take_the_places_of_question_marks(athena: Any) -> None:
    sql = "SELECT count(*) FROM readings WHERE day = ? AND device_id = ?"
    assert run(athena, sql, ExecutionParameters=["15", "'device-1'"]).rows[1] == [str(ROWS_PER_DAY // 10)]
    assert run(athena, sql, ExecutionParameters=["15"]).reason.startswith("INVALID_PARAMETER_USAGE")


# -- Ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/error-reference.html")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_AthenaError.html")
@pytest.mark.parametrize(
    ("sql", "reason", "error_type"),
    [
        ("SELECT * FROM nope", "TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.lake.nope' does not exist", 1301),
        ("SELECT 1 / 0", "DIVISION_BY_ZERO: Division by zero", 1001),
        (
            "SELECT 1 FROM readings WHERE day = '15'",
            "TYPE_MISMATCH: line 1:34: Cannot apply operator: integer = ",
            1002,
        ),
        ("SELECT nothing_like_it(1)", "FUNCTION_NOT_FOUND: line 1:8: Function 'nothing_like_it' not registered", 1303),
        ("INSERT INTO readings SELECT 1", "TYPE_MISMATCH: line 1:1: Insert query has mismatched column types", 1002),
        ("DELETE FROM readings", "NOT_SUPPORTED", 1200),
    ],
)
def test_a_failed_query_says_why_in_athenas_words(athena: Any, sql: str, reason: str, error_type: int) -> None:
    # WHEN
    outcome = run(athena, sql)
    # THEN
    assert outcome.state == "FAILED"
    assert outcome.reason.startswith(reason)
    error = outcome.execution["Status"]["AthenaError"]
    assert (error["ErrorCategory"], error["ErrorType"], error["Retryable"]) == (2, error_type, False)
    with pytest.raises(ClientError, match="Final query state: FAILED"):
        athena.get_query_results(QueryExecutionId=outcome.execution["QueryExecutionId"])


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_InvalidRequestException.html")
def test_a_syntax_error_is_refused_at_the_start(athena: Any) -> None:
    with pytest.raises(ClientError, match="line 1:1: mismatched input 'selec'") as refused:
        run(athena, "selec 1")
    assert refused.value.response["AthenaErrorCode"] == "MALFORMED_QUERY"  # type: ignore[typeddict-item]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/workgroups-setting-control-limits-cloudwatch.html")
def test_a_query_over_the_scan_limit_is_cancelled(endpoint: EndpointProcess, athena: Any) -> None:
    # GIVEN a file with 12 MB of one column
    count = 1_500_000
    random_doubles = pa.Array.from_buffers(pa.float64(), count, [None, pa.py_buffer(os.urandom(8 * count))])
    table = pa.table({"device_id": pa.nulls(count, pa.string()), "temperature": random_doubles})
    body = parquet(table, use_dictionary=False, write_statistics=False)
    endpoint.client("s3").put_object(Bucket=BUCKET, Key="big/part-0.parquet", Body=body)
    endpoint.client("glue").create_table(
        DatabaseName="lake",
        TableInput={"Name": "big", "StorageDescriptor": {**PARQUET, "Location": f"s3://{BUCKET}/big/"}},
    )
    # WHEN
    outcome = run(athena, "SELECT max(temperature) FROM big")
    # THEN
    assert (outcome.state, outcome.reason) == ("CANCELLED", "Bytes scanned limit was exceeded")
    assert outcome.scanned_bytes == 10_000_000
    assert run(athena, "SELECT count(*) FROM big").rows[1] == [str(count)]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_StopQueryExecution.html")
def test_a_running_query_can_be_stopped(athena: Any) -> None:
    # GIVEN a query that runs for minutes
    query_id = athena.start_query_execution(
        QueryString="WITH n AS (SELECT x FROM UNNEST(sequence(1, 5000)) AS t(x)) "
        "SELECT count(*) FROM n a, n b, n c WHERE a.x * b.x > c.x",
        WorkGroup="analysts",
    )["QueryExecutionId"]
    wait_until(
        lambda: athena.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]["Status"]["State"] == "RUNNING"
    )
    with pytest.raises(ClientError, match=r"Query has not yet finished\. Current state: RUNNING"):
        athena.get_query_results(QueryExecutionId=query_id)
    # WHEN
    athena.stop_query_execution(QueryExecutionId=query_id)
    # THEN
    status = wait_until(lambda: finished(athena, query_id))["Status"]
    assert (status["State"], status["StateChangeReason"]) == ("CANCELLED", "Query cancelled by user")
    # AND a worker is free again at once
    started = time.monotonic()
    assert run(athena, "SELECT 1").state == "SUCCEEDED"
    assert time.monotonic() - started < 10


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_StartQueryExecution.html")
def test_the_same_token_starts_one_query(athena: Any) -> None:
    arguments = {"WorkGroup": "analysts", "ClientRequestToken": "t" * 32}
    first = athena.start_query_execution(QueryString="SELECT 1", **arguments)
    again = athena.start_query_execution(QueryString="SELECT 1", **arguments)
    assert first["QueryExecutionId"] == again["QueryExecutionId"]
    with pytest.raises(ClientError, match="Idempotent parameters do not match"):
        athena.start_query_execution(QueryString="SELECT 2", **arguments)


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/query-metrics-viewing.html")
def test_metrics_are_published_for_each_end(endpoint: EndpointProcess, athena: Any) -> None:
    # GIVEN one that succeeded; earlier tests have cancelled others
    run(athena, "SELECT max(temperature) FROM readings")
    # WHEN
    metrics = endpoint.client("cloudwatch").list_metrics(Namespace="AWS/Athena", MetricName="ProcessedBytes")["Metrics"]
    # THEN
    dimensions = [{item["Name"]: item["Value"] for item in metric["Dimensions"]} for metric in metrics]
    assert {"WorkGroup": "analysts", "QueryState": "SUCCEEDED", "QueryType": "DML"} in dimensions
    assert {each["QueryState"] for each in dimensions} == {"SUCCEEDED", "FAILED", "CANCELED"}


# -- Permissions -------------------------------------------------------------------------------------------------------

START = ("athena:*", "*")
BUCKET_OF_RESULTS = ("s3:GetBucketLocation", f"arn:aws:s3:::{BUCKET}")
RESULTS = ("s3:PutObject", f"arn:aws:s3:::{BUCKET}/results/*")
READ_RESULTS = ("s3:GetObject", f"arn:aws:s3:::{BUCKET}/results/*")
LIST = ("s3:ListBucket", f"arn:aws:s3:::{BUCKET}")
OBJECTS = ("s3:GetObject", f"arn:aws:s3:::{BUCKET}/readings/*")
TABLE = tuple(
    (action, CATALOG + resource)
    for action in ("glue:GetTable", "glue:GetPartitions")
    for resource in ("catalog", "database/lake", "table/lake/readings")
)
EVERYTHING = (START, BUCKET_OF_RESULTS, RESULTS, READ_RESULTS, LIST, OBJECTS, *TABLE)


def as_role(endpoint: EndpointProcess, name: str, *statements: tuple[str, str]) -> Any:
    iam, sts = endpoint.client("iam"), endpoint.client("sts")
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}))
    allowed = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in statements]
    document = json.dumps({"Version": "2012-10-17", "Statement": allowed})
    iam.put_role_policy(RoleName=name, PolicyName="access", PolicyDocument=document)
    session = sts.assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{name}", RoleSessionName="test")["Credentials"]
    return boto3.client(
        "athena",
        endpoint_url=f"http://127.0.0.1:{endpoint.port}",
        region_name=REGION,
        aws_access_key_id=session["AccessKeyId"],
        aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
    )


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/s3-permissions.html")
def test_a_caller_with_every_permission_reads_the_table(endpoint: EndpointProcess) -> None:
    caller = as_role(endpoint, "reader", *EVERYTHING)
    assert run(caller, "SELECT count(*) FROM readings WHERE day = 15").rows[1] == [str(ROWS_PER_DAY)]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/s3-permissions.html")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/fine-grained-access-to-glue-resources.html")
@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        (LIST, "PERMISSION_DENIED: Permission denied on S3 path: s3://lake/readings/year=2025/month=10/day=15/"),
        (
            OBJECTS,
            "PERMISSION_DENIED: Permission denied on S3 path: s3://lake/readings/year=2025/month=10/day=15/part-0",
        ),
        (TABLE[0], "Insufficient permissions to execute the query. User: arn:aws:sts::123456789012:assumed-role/"),
        (TABLE[2], "is not authorized to perform: glue:GetTable on resource: " + CATALOG + "table/lake/readings"),
        (TABLE[5], "is not authorized to perform: glue:GetPartitions on resource: " + CATALOG + "table/lake/readings"),
        (RESULTS, "QUERY_RESULT_WRITE_ERROR: Failed to write query results to s3://lake/results/"),
    ],
)
def test_data_and_catalog_are_read_with_the_callers_permissions(
    endpoint: EndpointProcess, missing: tuple[str, str], reason: str
) -> None:
    # GIVEN a caller that lacks one permission
    name = "without-" + missing[0].replace(":", "-") + str(EVERYTHING.index(missing))
    caller = as_role(endpoint, name, *(statement for statement in EVERYTHING if statement != missing))
    # WHEN
    outcome = run(caller, "SELECT count(*) FROM readings WHERE day = 15")
    # THEN
    assert outcome.state == "FAILED"
    assert reason in outcome.reason


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_GetQueryResults.html")
def test_results_are_read_with_the_permissions_of_the_caller_of_get_query_results(endpoint: EndpointProcess) -> None:
    caller = as_role(endpoint, "no-results", *(item for item in EVERYTHING if item != READ_RESULTS))
    with pytest.raises(ClientError, match="s3:GetObject"):
        run(caller, "SELECT 1")


# -- Views and DDL -----------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/views.html")
def test_a_view_is_created_queried_through_and_dropped(endpoint: EndpointProcess, athena: Any) -> None:
    # GIVEN
    assert run(
        athena,
        "CREATE OR REPLACE VIEW daily AS SELECT device_id, day, avg(temperature) AS mean, count(*) AS n "
        "FROM readings GROUP BY device_id, day",
    ).state == "SUCCEEDED"  # fmt: skip
    # WHEN
    outcome = run(athena, "SELECT device_id, n FROM daily WHERE day = 15 ORDER BY mean LIMIT 1")
    # THEN
    assert outcome.rows[1:] == [["device-0", str(ROWS_PER_DAY // 10)]]
    whole = run(athena, "SELECT device_id, n FROM daily ORDER BY mean LIMIT 1")
    assert outcome.scanned_bytes == whole.scanned_bytes // 2
    # AND it is what Presto keeps in the catalog
    table = endpoint.client("glue").get_table(DatabaseName="lake", Name="daily")["Table"]
    assert table["TableType"] == "VIRTUAL_VIEW"
    assert table["ViewOriginalText"].startswith("/* Presto View: ")
    assert run(athena, "DESCRIBE daily").rows == [
        ["device_id\tvarchar"],
        ["day\tinteger"],
        ["mean\tdouble"],
        ["n\tbigint"],
    ]
    assert run(athena, "DROP VIEW daily").state == "SUCCEEDED"
    assert run(athena, "SELECT * FROM daily").reason.startswith("TABLE_NOT_FOUND")


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/msck-repair-table.html")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/alter-table-add-partition.html")
def test_partitions_are_found_added_and_shown(endpoint: EndpointProcess, athena: Any) -> None:
    # GIVEN a table of its own over folders, one of them in a place that MSCK does not look for
    s3 = endpoint.client("s3")
    for day in (1, 2):
        s3.put_object(Bucket=BUCKET, Key=f"own/year=2025/month=11/day={day}/a.parquet", Body=day_of_readings(day))
    s3.put_object(Bucket=BUCKET, Key="moved/a.parquet", Body=day_of_readings(3))
    ddl = (
        "CREATE EXTERNAL TABLE own (device_id string, temperature double) "
        f"PARTITIONED BY (year int, month int, day int) STORED AS PARQUET LOCATION 's3://{BUCKET}/own/'"
    )
    assert run(athena, ddl).state == "SUCCEEDED"
    assert run(athena, "SELECT count(*) FROM own").rows[1] == ["0"]
    # WHEN
    repaired = run(athena, "MSCK REPAIR TABLE own")
    assert "Repair: Added partition to metastore own:year=2025/month=11/day=1" in [row[0] for row in repaired.rows]
    added = f"ALTER TABLE own ADD IF NOT EXISTS PARTITION (year=2025, month=11, day=3) LOCATION 's3://{BUCKET}/moved/'"
    assert run(athena, added).state == "SUCCEEDED"
    # THEN
    shown = run(athena, "SHOW PARTITIONS own")
    assert shown.rows == [[f"year=2025/month=11/day={day}"] for day in (1, 2, 3)]
    assert (shown.execution["StatementType"], shown.scanned_bytes) == ("UTILITY", 0)
    assert shown.execution["ResultConfiguration"]["OutputLocation"].endswith(".txt")
    assert run(athena, "SELECT day, count(*) FROM own GROUP BY day ORDER BY day").rows[1:] == [
        [str(day), str(ROWS_PER_DAY)] for day in (1, 2, 3)
    ]
    assert run(athena, "ALTER TABLE own DROP PARTITION (year=2025, month=11, day=3)").state == "SUCCEEDED"
    assert run(athena, "SELECT count(*) FROM own WHERE day = 3").rows[1] == ["0"]
    assert run(athena, "DROP TABLE own").state == "SUCCEEDED"


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/ddl-reference.html")
def test_the_catalog_is_shown(athena: Any) -> None:
    assert ["lake"] in run(athena, "SHOW DATABASES").rows
    assert ["readings"] in run(athena, "SHOW TABLES IN lake 'read*'").rows
    assert run(athena, "SHOW COLUMNS IN readings").rows[0] == ["device_id".ljust(20)]
    described = [row[0] for row in run(athena, "DESCRIBE readings").rows]
    assert described[1] == "temperature".ljust(20) + "\t" + "double".ljust(20) + "\t" + " " * 20
    assert "# Partition Information\t \t " in described
    created = [row[0] for row in run(athena, "SHOW CREATE TABLE readings").rows]
    assert created[0] == "CREATE EXTERNAL TABLE `lake.readings`("
