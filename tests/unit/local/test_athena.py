"""The pure parts of Athena: texts of values, types, parameters, names, and what conditions say about a scan."""

import base64
import json
import struct
from collections.abc import Sequence
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from telemetry_lake.local.athena import dialect, engine, results
from telemetry_lake.local.athena.catalog import (
    Partition,
    Table,
    projected_partitions,
    python_date_format,
    table_from_glue,
    view_text,
)
from telemetry_lake.local.athena.errors import InvalidRequestError, QueryFailedError, position
from telemetry_lake.local.athena.forms import first_word, kind_of
from telemetry_lake.local.athena.hive_types import UnknownTypeError, parse_hive_type
from telemetry_lake.local.athena.predicates import scan_predicates, weaken
from telemetry_lake.local.athena.scan import Pruner
from telemetry_lake.local.athena.storage import is_hidden, split_location
from telemetry_lake.local.athena.values import column_type, double_text, float_text, timestamp_text, value_text

READINGS = table_from_glue(
    "lake",
    {
        "Name": "readings",
        "StorageDescriptor": {
            "Location": "s3://lake/readings/",
            "Columns": [
                {"Name": "device_id", "Type": "string"},
                {"Name": "temperature", "Type": "double"},
                {"Name": "event_time", "Type": "timestamp"},
                {"Name": "detail", "Type": "struct<field:string,value:int>"},
            ],
        },
        "PartitionKeys": [{"Name": name, "Type": "int"} for name in ("year", "month", "day")],
    },
)


def view(name: str, sql: str, *columns: tuple[str, str]) -> Table:
    return table_from_glue(
        "lake",
        {
            "Name": name,
            "TableType": "VIRTUAL_VIEW",
            "ViewOriginalText": view_text(sql, "lake", list(columns)),
            "StorageDescriptor": {},
        },
    )


def analyze(sql: str, *tables: Table) -> dialect.Analysis:
    known = {("lake", table.name): table for table in (READINGS, *tables)}
    return dialect.analyze(
        dialect.parse_query(sql),
        sql,
        "lake",
        lambda database, name: known.get((database, name)),
        lambda database: database == "lake",
    )


def kept_days(sql: str, *tables: Table) -> list[list[int]]:
    """Return which of the days 14 to 17 of October 2025 each scan of the query has to read."""
    partitions = [Partition(("2025", "10", str(day)), "") for day in (14, 15, 16, 17)]
    analysis = analyze(sql, *tables)
    connection = engine.connect()
    pruner = Pruner(connection)
    predicates = scan_predicates(dialect.to_duckdb(analysis.tree), analysis.scans, pruner.evaluate)
    days = []
    for name, scan in analysis.scans.items():
        rows = [(partition, f"s3://lake/{partition.values[2]}.parquet") for partition in partitions]
        indexes = pruner.matching(scan.table, predicates[name].conditions, rows)
        days.append([int(partitions[index].values[2]) for index in indexes])
    connection.close()
    return days


# -- Values ------------------------------------------------------------------------------------------------------------


@pytest.mark.source(
    "https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/lang/Double.html#toString(double)"
)
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (-12.5, "-12.5"),
        (0.30000000000000004, "0.30000000000000004"),
        (0.001, "0.001"),
        (0.00099, "9.9E-4"),
        (9999999.0, "9999999.0"),
        (10000000.0, "1.0E7"),
        (1760486400.123, "1.760486400123E9"),
        (1e20, "1.0E20"),
        (1e-7, "1.0E-7"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
    ],
)
def test_doubles_are_written_as_java_writes_them(value: float, text: str) -> None:
    assert double_text(value) == text


@pytest.mark.source(
    "https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/lang/Double.html#toString(double)"
)
@given(st.floats(allow_nan=False))
def test_no_digit_of_a_double_is_lost(value: float) -> None:
    # GIVEN any double  WHEN it is written  THEN the text gives the same double back, sign of zero included
    assert struct.pack("d", float(double_text(value))) == struct.pack("d", value)


@pytest.mark.source("https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/lang/Float.html#toString(float)")
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_no_digit_of_a_float_is_lost(value: float) -> None:
    assert struct.pack("f", float(float_text(value))) == struct.pack("f", value)


@pytest.mark.source("https://trino.io/docs/current/functions/conversion.html")
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_cast_to_varchar_gives_the_same_text_as_the_result(value: float) -> None:
    # GIVEN a double in a query  WHEN it is cast to varchar  THEN the text is that of an uncast value
    connection = _shared_connection()
    row = connection.execute("SELECT trino_double_text(CAST(? AS DOUBLE))", [value]).fetchall()[0]
    assert row[0] == double_text(value)


_CONNECTIONS: list[duckdb.DuckDBPyConnection] = []


def _shared_connection() -> duckdb.DuckDBPyConnection:
    if not _CONNECTIONS:
        _CONNECTIONS.append(engine.connect())
    return _CONNECTIONS[0]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/data-types.html")
def test_timestamps_show_three_decimals() -> None:
    assert timestamp_text(1_760_486_400_123_456) == "2025-10-15 00:00:00.123"
    assert timestamp_text(-1) == "1969-12-31 23:59:59.999"


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/rows-and-structs.html")
def test_nested_values_have_athenas_notation() -> None:
    assert value_text([1, None, "a, b"]) == "[1, null, a, b]"
    assert value_text({"id": 1, "name": "x", "t": 1e10}) == "{id=1, name=x, t=1.0E10}"
    assert value_text([("k", [1.5]), ("l", None)]) == "{k=[1.5], l=null}"
    assert value_text(b"\x01\xff") == "01 ff"


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_ColumnInfo.html")
@pytest.mark.parametrize(
    ("duckdb_type", "athena", "precision", "scale"),
    [
        ("VARCHAR", "varchar", 2147483647, 0),
        ("HUGEINT", "bigint", 19, 0),
        ("INTEGER", "integer", 10, 0),
        ("DOUBLE", "double", 17, 0),
        ("TIMESTAMP", "timestamp", 3, 0),
        ("TIMESTAMP WITH TIME ZONE", "timestamp with time zone", 3, 0),
        ("DECIMAL(10,2)", "decimal", 10, 2),
        ("STRUCT(a INTEGER)", "row", 0, 0),
        ("INTEGER[]", "array", 0, 0),
    ],
)
def test_result_columns_have_athenas_types(duckdb_type: str, athena: str, precision: int, scale: int) -> None:
    kind = column_type(duckdb_type)
    assert (kind.athena, kind.precision, kind.scale) == (athena, precision, scale)


# -- Types of the catalog ----------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/data-types.html")
def test_hive_types_become_types_of_duckdb_and_trino() -> None:
    # GIVEN
    nested = parse_hive_type("struct<a:int,b:array<map<string,decimal(10,2)>>>")
    # THEN
    assert nested.duckdb() == 'STRUCT("a" INTEGER, "b" MAP(VARCHAR, DECIMAL(10, 2))[])'
    assert nested.trino() == 'row("a" integer, "b" array(map(varchar, decimal(10,2))))'
    assert parse_hive_type("timestamp").trino() == "timestamp(3)"


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/data-types.html")
@pytest.mark.parametrize("text", ["integr", "array<int", "struct<a>", "map<int>", "int int"])
def test_a_type_that_is_not_hives_is_refused(text: str) -> None:
    with pytest.raises(UnknownTypeError):
        parse_hive_type(text)


# -- Pruning -----------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/partitions.html")
@pytest.mark.parametrize(
    ("sql", "days"),
    [
        ("SELECT * FROM readings", [[14, 15, 16, 17]]),
        ("SELECT avg(temperature) FROM readings WHERE year = 2025 AND month = 10 AND day = 15", [[15]]),
        ("SELECT 1 FROM readings WHERE day IN (14, 16) AND temperature > 3", [[14, 16]]),
        ("SELECT 1 FROM readings WHERE (day = 14 AND temperature > 3) OR day = 17", [[14, 17]]),
        ("SELECT 1 FROM readings WHERE day = 14 OR temperature > 3", [[14, 15, 16, 17]]),
        ("SELECT 1 FROM readings WHERE NOT (day = 14 AND temperature > 3)", [[14, 15, 16, 17]]),
        ("SELECT 1 FROM readings WHERE year * 10000 + month * 100 + day >= 20251016", [[16, 17]]),
        ("SELECT 1 FROM readings WHERE year = 2024", [[]]),
        ("SELECT 1 FROM readings WHERE \"$path\" = 's3://lake/16.parquet'", [[16]]),
        ("SELECT 1 FROM readings WHERE strpos(\"$path\", '/17') > 0 AND day > 14", [[17]]),
        ("SELECT * FROM (SELECT * FROM readings WHERE day > 14) WHERE day < 17", [[15, 16]]),
        ("WITH a AS (SELECT day d, temperature FROM readings) SELECT * FROM a WHERE d = 15", [[15]]),
        ("WITH a AS (SELECT * FROM readings) SELECT 1 FROM a x JOIN a y ON x.day = y.day WHERE x.day = 15", None),
        ("SELECT * FROM (SELECT day, avg(temperature) m FROM readings GROUP BY day) WHERE day = 15 AND m > 1", [[15]]),
        ("SELECT * FROM (SELECT max(day) day FROM readings) WHERE day = 15", [[14, 15, 16, 17]]),
        ("SELECT * FROM (SELECT day FROM readings ORDER BY 1 LIMIT 3) WHERE day = 15", [[14, 15, 16, 17]]),
        (
            "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY device_id ORDER BY event_time) n FROM readings) "
            "WHERE day = 15 AND n = 1",
            [[14, 15, 16, 17]],
        ),
        (
            "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY day ORDER BY event_time) n FROM readings) "
            "WHERE day = 15 AND n = 1",
            [[15]],
        ),
        (
            "SELECT * FROM (SELECT day FROM readings UNION ALL SELECT day + 1 FROM readings) AS u(d) WHERE d = 16",
            [[16], [15]],
        ),
        ("SELECT 1 FROM readings WHERE day = (SELECT max(day) FROM readings WHERE day < 16)", [[14, 15, 16, 17], None]),
    ],
)
def test_conditions_decide_which_partitions_are_read(sql: str, days: list[list[int]] | None) -> None:
    # WHEN
    kept = kept_days(sql)
    # THEN
    if days is None:
        assert kept == [[14, 15, 16, 17]]
    else:
        assert sorted(map(str, kept)) == sorted(str([14, 15] if part is None else part) for part in days)


@pytest.mark.source("https://trino.io/docs/current/sql/select.html")
def test_an_outer_join_is_pruned_only_where_null_is_rejected() -> None:
    join = "SELECT 1 FROM readings a LEFT JOIN readings b ON a.device_id = b.device_id"
    # GIVEN a condition that NULL does not fulfil  THEN the right side may be cut
    assert kept_days(f"{join} WHERE b.day = 15") == [[14, 15, 16, 17], [15]]
    # GIVEN one that NULL fulfils  THEN cutting would invent rows without a partner
    assert kept_days(f"{join} WHERE b.day IS NULL OR b.day = 15") == [[14, 15, 16, 17], [14, 15, 16, 17]]
    # GIVEN a condition of the join  THEN it cuts the right side, never the left
    assert kept_days(f"{join} AND a.day = 14 AND b.day = 15") == [[14, 15, 16, 17], [15]]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/views.html")
def test_pruning_goes_through_views() -> None:
    # GIVEN a view that renames its columns, over a view that aggregates
    inner = view(
        "by_day",
        "SELECT device_id, day, avg(temperature) FROM readings GROUP BY device_id, day",
        ("device_id", "varchar"),
        ("d", "integer"),
        ("mean", "double"),
    )
    outer = view("named", 'SELECT d AS "Day", mean FROM by_day', ("day", "integer"), ("mean", "double"))
    # THEN
    assert kept_days("SELECT * FROM named WHERE day = 15 AND mean > 3", inner, outer) == [[15]]
    assert kept_days("SELECT * FROM named v WHERE v.mean > 3", inner, outer) == [[14, 15, 16, 17]]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/partitions.html")
def test_a_partition_value_that_is_not_of_its_keys_type_fails_the_query() -> None:
    connection = engine.connect()
    with pytest.raises(QueryFailedError) as failed:
        Pruner(connection).matching(READINGS, [], [(Partition(("2025", "10", "x"), ""), "")])
    assert failed.value.name == "HIVE_INVALID_PARTITION_VALUE"


@pytest.mark.own_machinery("logic: what a weaker condition implies")
def test_weakening_keeps_only_what_is_implied() -> None:
    def weakened(sql: str) -> str | None:
        parsed = dialect.parse_query(f"SELECT {sql}").selects[0]
        weaker = weaken(parsed, ["day"])
        return None if weaker is None else weaker.sql()

    assert weakened("day = 1 AND x = 2") == "day = 1"
    assert weakened("(day = 1 AND x = 2) OR (day = 3 AND y = 4)") == "day = 1 OR day = 3"
    assert weakened("day = 1 OR x = 2") is None
    assert weakened("day = x") is None


# -- Names and types ---------------------------------------------------------------------------------------------------


@pytest.mark.source("https://trino.io/docs/current/sql/select.html")
@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM nope", "TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.lake.nope' does not exist"),
        ("SELECT *\nFROM other.readings", "SCHEMA_NOT_FOUND: line 2:6: Schema 'other' does not exist"),
        ("SELECT humidity FROM readings", "COLUMN_NOT_FOUND: line 1:8: Column 'humidity' cannot be resolved"),
        ("SELECT temperature AS t FROM readings WHERE t > 1", "COLUMN_NOT_FOUND: line 1:45: Column 't'"),
        ("SELECT day d, count(*) FROM readings GROUP BY d", "Column 'd' cannot be resolved"),
        ("SELECT day, count(*) c FROM readings GROUP BY day HAVING c > 1", "Column 'c' cannot be resolved"),
        ("SELECT 1 FROM readings WHERE device_id = 1", "TYPE_MISMATCH: line 1:40: Cannot apply operator: varchar = "),
        ("SELECT 1 FROM readings WHERE event_time > '2025-10-15'", "timestamp(3) > varchar(10)"),
        ("SELECT 1 FROM readings WHERE day IN ('15')", "TYPE_MISMATCH: line 1:30: IN value and list items"),
        ("SELECT 1 FROM readings WHERE day BETWEEN '1' AND '3'", "Cannot check if integer is BETWEEN varchar(1)"),
    ],
)
def test_a_query_that_trino_refuses_is_refused(sql: str, message: str) -> None:
    with pytest.raises(QueryFailedError) as failed:
        analyze(sql)
    assert message in str(failed.value)


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/performance-tuning-data-optimization-techniques.html")
def test_only_columns_of_the_catalog_are_read_and_only_those_that_are_named() -> None:
    # WHEN
    analysis = analyze("SELECT device_id, detail.value FROM readings r WHERE r.temperature > 1 ORDER BY r.event_time")
    # THEN
    assert analysis.scans["scan_0"].columns == {"device_id", "detail", "temperature", "event_time"}
    # AND a star does not name the pseudo column
    assert analyze("SELECT * FROM readings").output_names == [
        "device_id",
        "temperature",
        "event_time",
        "detail",
        "year",
        "month",
        "day",
    ]


@pytest.mark.source("https://trino.io/docs/current/sql/select.html")
def test_result_columns_are_named_as_trino_names_them() -> None:
    analysis = analyze(
        'SELECT Device_ID, temperature AS "Temp", count(*), CAST(day AS double) FROM readings GROUP BY 1, 2, 4'
    )
    assert analysis.output_names == ["device_id", "Temp", "_col2", "_col3"]


@pytest.mark.source("https://trino.io/docs/current/sql/select.html")
def test_a_cte_hides_a_table_of_the_same_name() -> None:
    assert analyze("WITH readings AS (SELECT 1 AS x) SELECT x FROM readings").scans == {}


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_InvalidRequestException.html")
@pytest.mark.parametrize(
    "sql", ["SELEC 1", "SELECT FROM WHERE", "SELECT 1; SELECT 2", "SELECT 'a", "DROP TABLE readings"]
)
def test_a_statement_that_is_no_query_is_refused_at_the_start(sql: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        dialect.parse_query(sql)
    assert refused.value.athena_error_code == "MALFORMED_QUERY"


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/functions.html")
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 7 / 2, -7 / 2, 7e0 / 2", (3, -3, 3.5)),
        ("SELECT CAST(1e10 AS varchar)", ("1.0E10",)),
        ("SELECT CAST(TIMESTAMP '2025-10-15 00:00:00.5' AS varchar)", ("2025-10-15 00:00:00.5",)),
        ("SELECT CAST(TIMESTAMP '2025-10-15 00:00:01' AS varchar)", ("2025-10-15 00:00:01",)),
        ("SELECT CAST(CAST('2025-10-15 00:00:00.5' AS timestamp(3)) AS varchar)", ("2025-10-15 00:00:00.500",)),
        ("SELECT CAST(date '2025-10-15' + interval '1' day AS varchar)", ("2025-10-16",)),
        ("SELECT hour(TIMESTAMP '2025-10-15 20:00:00' AT TIME ZONE 'Asia/Tokyo')", (5,)),
        ("SELECT format_datetime(TIMESTAMP '2025-10-15 20:00:00', 'yyyy/MM/dd''T''HH')", ("2025/10/15T20",)),
        ("SELECT 'a' || NULL, concat('a', CAST(NULL AS varchar))", (None, None)),
        ("SELECT day_of_week(date '2025-10-19')", (7,)),
    ],
)
def test_expressions_mean_what_they_mean_in_trino(sql: str, expected: Sequence[Any]) -> None:
    # WHEN
    translated = dialect.duckdb_sql(dialect.to_duckdb(analyze(sql).tree))
    # THEN
    assert tuple(_shared_connection().execute(translated).fetchall()[0]) == tuple(expected)


@pytest.mark.source("https://trino.io/docs/current/functions/math.html")
def test_a_division_by_zero_is_an_error() -> None:
    translated = dialect.duckdb_sql(dialect.to_duckdb(analyze("SELECT 1 / 0").tree))
    with pytest.raises(duckdb.Error) as raised:
        _shared_connection().execute(translated).fetchall()
    assert str(engine.failure(raised.value, "SELECT 1 / 0")) == "DIVISION_BY_ZERO: Division by zero"


@pytest.mark.source("https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview")
def test_the_engine_reads_no_file_that_was_not_listed(tmp_path: Any) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(duckdb.PermissionException):
        engine.connect().execute(f"SELECT * FROM read_csv('{tmp_path}/secret.csv')")  # noqa: S608


# -- Parameters --------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/querying-with-prepared-statements.html")
def test_parameters_are_expressions_or_else_strings() -> None:
    sql = "SELECT ? AS a, '?' AS b /* ? */ FROM t WHERE c = ? AND d = ?"
    bound = dialect.bind_parameters(sql, ["1 + 1", "d1", "it's"])
    assert bound == "SELECT (1 + 1) AS a, '?' AS b /* ? */ FROM t WHERE c = 'd1' AND d = 'it''s'"


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/querying-with-prepared-statements.html")
def test_a_wrong_number_of_parameters_fails() -> None:
    with pytest.raises(QueryFailedError) as failed:
        dialect.bind_parameters("SELECT ?", ["1", "2"])
    assert str(failed.value) == "INVALID_PARAMETER_USAGE: Incorrect number of parameters: expected 1 but found 2"


# -- Catalog -----------------------------------------------------------------------------------------------------------


def projected(parameters: dict[str, str], *keys: str) -> list[Partition]:
    table = table_from_glue(
        "lake",
        {
            "Name": "projected",
            "StorageDescriptor": {"Location": "s3://lake/p/", "Columns": []},
            "PartitionKeys": [{"Name": key, "Type": "string"} for key in keys],
            "Parameters": {"projection.enabled": "true", **parameters},
        },
    )
    return list(projected_partitions(table))


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/partition-projection-supported-types.html")
def test_projection_computes_integers_and_enumerations() -> None:
    # WHEN
    partitions = projected(
        {
            "projection.kind.type": "enum",
            "projection.kind.values": "a,b",
            "projection.month.type": "integer",
            "projection.month.range": "9,10",
            "projection.month.digits": "2",
        },
        "kind",
        "month",
    )
    # THEN
    assert [partition.location for partition in partitions] == [
        "s3://lake/p/kind=a/month=09",
        "s3://lake/p/kind=a/month=10",
        "s3://lake/p/kind=b/month=09",
        "s3://lake/p/kind=b/month=10",
    ]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/partition-projection-setting-up.html")
def test_projection_computes_dates_with_a_location_template() -> None:
    # WHEN
    partitions = projected(
        {
            "projection.dt.type": "date",
            "projection.dt.range": "2024/12/31,2025/01/02",
            "projection.dt.format": "yyyy/MM/dd",
            "storage.location.template": "s3://lake/raw/${dt}/",
        },
        "dt",
    )
    # THEN
    assert [(partition.values, partition.location) for partition in partitions] == [
        (("2024/12/31",), "s3://lake/raw/2024/12/31/"),
        (("2025/01/01",), "s3://lake/raw/2025/01/01/"),
        (("2025/01/02",), "s3://lake/raw/2025/01/02/"),
    ]


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/partition-projection-supported-types.html")
def test_a_date_range_may_end_now() -> None:
    partitions = projected(
        {"projection.dt.type": "date", "projection.dt.range": "NOW-2DAYS,NOW", "projection.dt.format": "yyyy-MM-dd"},
        "dt",
    )
    assert len(partitions) == 3


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/partition-projection-supported-types.html")
def test_projection_without_a_range_fails_by_the_propertys_name() -> None:
    with pytest.raises(QueryFailedError) as failed:
        projected({"projection.day.type": "integer"}, "day")
    assert "projection.day.range" in str(failed.value)


@pytest.mark.source(
    "https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/time/format/DateTimeFormatter.html"
)
def test_java_date_formats_are_translated() -> None:
    assert python_date_format("yyyy-MM-dd'T'HH:mm") == "%Y-%m-%dT%H:%M"


@pytest.mark.source(
    "https://github.com/trinodb/trino/blob/master/plugin/trino-hive/src/main/java/io/trino/plugin/hive/ViewReaderUtil.java"
)
def test_a_view_is_kept_as_presto_keeps_it() -> None:
    text = view_text("SELECT 1 AS x", "lake", [("x", "integer")])
    document = json.loads(base64.b64decode(text.removeprefix("/* Presto View: ").removesuffix(" */")))
    assert document == {
        "originalSql": "SELECT 1 AS x",
        "catalog": "awsdatacatalog",
        "schema": "lake",
        "columns": [{"name": "x", "type": "integer"}],
    }


# -- Small things ------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/other-notable-limitations.html")
def test_hidden_objects_are_those_with_a_part_that_starts_with_underscore_or_dot() -> None:
    assert is_hidden("_temporary/0/a.parquet")
    assert is_hidden("year=2025/.a.parquet.crc")
    assert not is_hidden("year=2025/a_b.parquet")


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/tables-location-format.html")
def test_locations_are_split_into_bucket_and_key() -> None:
    assert split_location("s3://lake/a/b.parquet") == ("lake", "a/b.parquet")
    assert split_location("s3://lake") == ("lake", "")
    with pytest.raises(QueryFailedError):
        split_location("file:///etc/passwd")


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/APIReference/API_QueryExecution.html")
@pytest.mark.parametrize(
    ("sql", "word", "kind"),
    [
        ("-- why\nSELECT 1", "select", "DML"),
        ("/* a */ (SELECT 1)", "(", "DML"),
        ("MSCK REPAIR TABLE t", "msck", "DDL"),
        ("create view v as select 1", "create", "DDL"),
        ("SHOW TABLES", "show", "UTILITY"),
        ("DESCRIBE t", "describe", "UTILITY"),
    ],
)
def test_statements_are_told_apart(sql: str, word: str, kind: str) -> None:
    found = kind_of(sql)
    assert found is not None
    assert (first_word(sql), found.statement) == (word, kind)


@pytest.mark.source("https://trino.io/docs/current/develop/client-protocol.html")
def test_positions_count_from_one() -> None:
    assert position("SELECT\n  x", 9) == "line 2:3"


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/querying-finding-output-files.html")
def test_pages_of_a_csv_tell_null_from_the_empty_string(tmp_path: Any) -> None:
    # GIVEN
    path = tmp_path / "result.csv"
    path.write_bytes(b'"a","b"\n"1",\n"","x""y,\nz"\n')
    # WHEN
    first = results.read_csv_page(path, 0, 2)
    assert first.next_offset is not None
    second = results.read_csv_page(path, first.next_offset, 2)
    # THEN
    assert first.rows == [["a", "b"], ["1", None]]
    assert second.rows == [["", 'x"y,\nz']]
    assert second.next_offset is None


@pytest.mark.source("https://docs.aws.amazon.com/athena/latest/ug/partitions.html")
def test_predicates_are_collected_for_each_reference_to_a_table() -> None:
    analysis = analyze(
        "SELECT 1 FROM readings a JOIN readings b ON a.device_id = b.device_id AND b.day = 3 WHERE a.day = 2"
    )
    predicates = scan_predicates(analysis.tree, analysis.scans, lambda _: None)
    texts = {name: [condition.sql() for condition in item.conditions] for name, item in predicates.items()}
    assert texts == {"scan_0": ['"day" = 2'], "scan_1": ['"day" = 3']}
    assert all(isinstance(condition, exp.EQ) for condition in predicates["scan_0"].conditions)
