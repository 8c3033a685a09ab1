"""Athena of the embedded endpoint through plain boto3: prepared statements, EXPLAIN, ALTER TABLE, workgroups, lists."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

from tests.unit.local.athena_queries import Outcome, parquet, run
from tests.unit.local.endpoint_process import REGION, EndpointProcess

BUCKET = "lake"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    process = EndpointProcess(tmp_path_factory.mktemp("athena-statements"))
    s3, athena = process.client("s3"), process.client("athena")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    process.client("glue").create_database(DatabaseInput={"Name": "lake"})
    athena.create_work_group(
        Name="analysts", Configuration={"ResultConfiguration": {"OutputLocation": f"s3://{BUCKET}/results/"}}
    )
    for day in (14, 15):
        rows = pa.table({"device_id": ["a", "b"], "temperature": [float(day), 0.5]})
        s3.put_object(Bucket=BUCKET, Key=f"readings/day={day}/a.parquet", Body=parquet(rows))
    succeeded(
        athena,
        "CREATE EXTERNAL TABLE readings (device_id string, temperature double) PARTITIONED BY (day int) "
        "STORED AS PARQUET LOCATION 's3://lake/readings/'",
    )
    succeeded(athena, "MSCK REPAIR TABLE readings")
    yield process
    process.stop()


@pytest.fixture(scope="module")
def athena(endpoint: EndpointProcess) -> Any:
    return endpoint.client("athena")


def succeeded(athena: Any, sql: str, **arguments: Any) -> Outcome:
    outcome = run(athena, sql, **arguments)
    assert outcome.state == "SUCCEEDED", outcome.reason
    return outcome


# -- Prepared statements -----------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/querying-with-prepared-statements.html")
def test_a_statement_is_prepared_run_and_dropped_by_sql(athena: Any) -> None:
    # WHEN
    succeeded(athena, "PREPARE by_day FROM SELECT device_id FROM readings WHERE day = ? AND temperature > ?")
    outcome = succeeded(athena, "EXECUTE by_day USING 15, 1 + 1")
    # THEN
    assert outcome.rows == [["device_id"], ["a"]]
    execution = outcome.execution
    assert (execution["Query"], execution["StatementType"]) == ("EXECUTE by_day USING 15, 1 + 1", "DML")
    # AND the values may come with the request instead
    assert succeeded(athena, "EXECUTE by_day", ExecutionParameters=["14", "20"]).rows == [["device_id"]]
    succeeded(athena, "DEALLOCATE PREPARE by_day")
    with pytest.raises(ClientError, match="PreparedStatement by_day was not found in workGroup analysts"):
        run(athena, "EXECUTE by_day USING 15, 2")


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_CreatePreparedStatement.html")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_BatchGetPreparedStatement.html")
def test_sql_and_api_know_the_same_prepared_statements(athena: Any) -> None:
    # GIVEN
    named = {"StatementName": "hottest", "WorkGroup": "analysts"}
    athena.create_prepared_statement(**named, QueryStatement="SELECT max(temperature) FROM readings WHERE day = ?")
    # WHEN / THEN
    assert succeeded(athena, "EXECUTE hottest USING 14").rows[1:] == [["14.0"]]
    with pytest.raises(ClientError, match="already exists") as refused:
        athena.create_prepared_statement(**named, QueryStatement="SELECT 1")
    assert refused.value.response["Error"]["Code"] == "InvalidRequestException"
    athena.update_prepared_statement(**named, QueryStatement="SELECT min(day) FROM readings")
    assert succeeded(athena, "EXECUTE hottest").rows[1:] == [["14"]]
    assert athena.get_prepared_statement(**named)["PreparedStatement"]["QueryStatement"].startswith("SELECT min(day)")
    found = athena.batch_get_prepared_statement(PreparedStatementNames=["hottest", "coldest"], WorkGroup="analysts")
    assert [each["StatementName"] for each in found["PreparedStatements"]] == ["hottest"]
    assert [each["StatementName"] for each in found["UnprocessedPreparedStatementNames"]] == ["coldest"]
    listed = athena.list_prepared_statements(WorkGroup="analysts")["PreparedStatements"]
    assert [each["StatementName"] for each in listed] == ["hottest"]
    athena.delete_prepared_statement(**named)
    with pytest.raises(athena.exceptions.ResourceNotFoundException):
        athena.get_prepared_statement(**named)


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/querying-with-prepared-statements.html")
def test_statements_that_write_are_prepared_too(athena: Any) -> None:
    succeeded(athena, "PREPARE copy FROM CREATE TABLE copied AS SELECT * FROM readings WHERE day = ?")
    outcome = succeeded(athena, "EXECUTE copy USING 15")
    assert outcome.execution["SubstatementType"] == "CREATE_TABLE_AS_SELECT"
    assert succeeded(athena, "SELECT count(*) FROM copied").rows[1:] == [["2"]]


# -- EXPLAIN -----------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/athena-explain-statement.html")
@pytest.mark.source("https://github.com/aoyagikouhei/athena-local/blob/main/docs/api.md")
def test_a_query_is_explained_without_being_billed(athena: Any) -> None:
    # WHEN
    outcome = succeeded(athena, "EXPLAIN SELECT device_id FROM readings WHERE day = 15")
    # THEN the plan is a text of many rows behind one with the column's name
    assert (outcome.rows[0], outcome.rows[-3:]) == (["Query Plan"], [[""], [""], [""]])
    lines = [row[0] or "" for row in outcome.rows]
    assert "    └─ TableScan[table = awsdatacatalog:lake:readings]" in lines
    assert "           Partitions: 1 by [day]" in lines
    assert outcome.columns == [("Query Plan", "varchar")]
    execution = outcome.execution
    assert (execution["StatementType"], execution["SubstatementType"], outcome.scanned_bytes) == ("DML", "EXPLAIN", 0)
    assert execution["ResultConfiguration"]["OutputLocation"].endswith(".txt")
    assert "UpdateCount" not in athena.get_query_results(QueryExecutionId=execution["QueryExecutionId"])


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/athena-explain-statement.html")
def test_explain_analyze_runs_the_query_and_is_billed(athena: Any) -> None:
    query = "SELECT device_id FROM readings WHERE day = 15"
    outcome = succeeded(athena, f"EXPLAIN ANALYZE {query}")
    assert outcome.scanned_bytes == succeeded(athena, query).scanned_bytes > 0
    assert ["    Output: 2 rows"] in outcome.rows


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/athena-explain-statement.html")
@pytest.mark.source("https://github.com/aoyagikouhei/athena-local/blob/main/docs/api.md")
def test_explain_validates_and_lists_what_is_read(athena: Any) -> None:
    validated = succeeded(athena, "EXPLAIN (TYPE VALIDATE) SELECT device_id FROM readings")
    assert (validated.rows, validated.columns) == ([["Valid"], ["true"], [""]], [("Valid", "boolean")])
    listed = succeeded(athena, "EXPLAIN (TYPE IO) SELECT device_id FROM readings")
    (read,) = json.loads("".join(row[0] or "" for row in listed.rows[1:]))["inputTableColumnInfos"]
    assert (read["table"]["schemaTable"], read["columns"]) == ({"schema": "lake", "table": "readings"}, ["device_id"])
    assert run(athena, "EXPLAIN SELECT nothing FROM readings").reason.startswith("COLUMN_NOT_FOUND")


# -- ALTER TABLE -------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/alter-table-set-tblproperties.html")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/alter-table-add-columns.html")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/alter-table-set-location.html")
def test_properties_columns_and_location_of_a_table_are_changed(endpoint: EndpointProcess, athena: Any) -> None:
    # GIVEN
    succeeded(
        athena,
        "CREATE EXTERNAL TABLE changing (device_id string) STORED AS PARQUET LOCATION 's3://lake/empty/' "
        "TBLPROPERTIES ('kept' = 'yes')",
    )
    # WHEN
    succeeded(athena, "ALTER TABLE changing SET TBLPROPERTIES ('classification' = 'parquet')")
    succeeded(athena, "ALTER TABLE changing ADD COLUMNS (temperature double, humidity double COMMENT 'in %')")
    succeeded(athena, "ALTER TABLE changing SET LOCATION 's3://lake/readings/day=15/'")
    # THEN
    table = endpoint.client("glue").get_table(DatabaseName="lake", Name="changing")["Table"]
    assert {name: table["Parameters"][name] for name in ("kept", "classification")} == {
        "kept": "yes",
        "classification": "parquet",
    }
    rows = succeeded(athena, "SELECT device_id, temperature, humidity FROM changing ORDER BY 1").rows
    assert rows[1:] == [["a", "15.0", None], ["b", "0.5", None]]
    assert "Duplicate column name" in run(athena, "ALTER TABLE changing ADD COLUMNS (temperature int)").reason
    assert run(athena, "ALTER TABLE changing RENAME TO other").reason.startswith("NOT_SUPPORTED")


# -- Workgroups and lists ----------------------------------------------------------------------------------------------


@pytest.mark.source("https://github.com/aoyagikouhei/athena-local/blob/main/docs/dev/measurements/work-groups.md")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_WorkGroupConfiguration.html")
def test_a_workgroup_is_shown_with_a_whole_configuration(athena: Any) -> None:
    primary = athena.get_work_group(WorkGroup="primary")["WorkGroup"]
    assert primary["Configuration"] == {
        "EnableMinimumEncryptionConfiguration": False,
        "EnforceWorkGroupConfiguration": False,
        "EngineVersion": {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"},
        "PublishCloudWatchMetricsEnabled": False,
        "RequesterPaysEnabled": False,
        "ResultConfiguration": {},
    }
    with pytest.raises(ClientError, match="WorkGroup is not found"):
        athena.get_work_group(WorkGroup="nobody")


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_UpdateWorkGroup.html")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_DeleteWorkGroup.html")
def test_a_workgroup_is_changed_disabled_and_deleted(athena: Any) -> None:
    # GIVEN
    results = {"OutputLocation": f"s3://{BUCKET}/results/"}
    athena.create_work_group(
        Name="passing",
        Description="for a while",
        Configuration={"BytesScannedCutoffPerQuery": 10_000_000, "ResultConfiguration": results},
    )
    with pytest.raises(ClientError, match="already created"):
        athena.create_work_group(Name="passing")
    assert run(athena, "SELECT 1", workgroup="passing").state == "SUCCEEDED"
    # WHEN
    athena.update_work_group(
        WorkGroup="passing",
        State="DISABLED",
        ConfigurationUpdates={
            "RemoveBytesScannedCutoffPerQuery": True,
            "ResultConfigurationUpdates": {"EncryptionConfiguration": {"EncryptionOption": "SSE_S3"}},
        },
    )
    # THEN
    configuration = athena.get_work_group(WorkGroup="passing")["WorkGroup"]["Configuration"]
    assert "BytesScannedCutoffPerQuery" not in configuration
    assert configuration["ResultConfiguration"] == {
        **results,
        "EncryptionConfiguration": {"EncryptionOption": "SSE_S3"},
    }
    with pytest.raises(ClientError, match="disabled"):
        run(athena, "SELECT 1", workgroup="passing")
    with pytest.raises(ClientError, match="is not empty"):
        athena.delete_work_group(WorkGroup="passing")
    athena.delete_work_group(WorkGroup="passing", RecursiveDeleteOption=True)
    assert "passing" not in [each["Name"] for each in athena.list_work_groups()["WorkGroups"]]


@pytest.mark.source("https://github.com/aoyagikouhei/athena-local/blob/main/docs/dev/measurements/work-groups.md")
def test_workgroups_are_listed_by_name_and_in_pages(athena: Any) -> None:
    # WHEN
    first = athena.list_work_groups(MaxResults=1)
    rest = athena.list_work_groups(NextToken=first["NextToken"])
    # THEN
    names = [each["Name"] for page in (first, rest) for each in page["WorkGroups"]]
    assert (len(first["WorkGroups"]), names) == (1, sorted(names))
    with pytest.raises(ClientError, match="The nextPageToken is malformed: nonsense"):
        athena.list_work_groups(NextToken="nonsense")


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_ListQueryExecutions.html")
@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_GetQueryRuntimeStatistics.html")
def test_executions_are_listed_newest_first_with_their_statistics(athena: Any) -> None:
    # GIVEN
    ids = [succeeded(athena, f"SELECT {n}").execution["QueryExecutionId"] for n in range(2)]
    # WHEN / THEN
    assert athena.list_query_executions(WorkGroup="analysts", MaxResults=2)["QueryExecutionIds"] == ids[::-1]
    statistics = athena.get_query_runtime_statistics(QueryExecutionId=ids[0])["QueryRuntimeStatistics"]
    assert statistics["Timeline"]["TotalExecutionTimeInMillis"] > 0


@pytest.mark.source("https://github.com/aoyagikouhei/athena-local/blob/main/docs/caveats.md#sql-dialect")
def test_a_number_with_a_fraction_is_a_double(athena: Any) -> None:
    outcome = succeeded(athena, "SELECT 0.1 + 0.2 AS sum, CAST(1.5 AS varchar) AS text")
    assert (outcome.rows[1], outcome.columns[0]) == (["0.30000000000000004", "1.5"], ("sum", "double"))
