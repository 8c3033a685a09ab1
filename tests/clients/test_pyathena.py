"""PyAthena (https://github.com/pyathena-dev/PyAthena) with each of its cursors."""

import datetime
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.fs
import pytest
from pyathena import connect
from pyathena.arrow.async_cursor import AsyncArrowCursor
from pyathena.arrow.cursor import ArrowCursor
from pyathena.async_cursor import AsyncCursor, AsyncDictCursor
from pyathena.cursor import DictCursor
from pyathena.error import OperationalError
from pyathena.pandas.async_cursor import AsyncPandasCursor
from pyathena.pandas.cursor import PandasCursor

READINGS = "SELECT device_id, temperature, event_time, day FROM readings ORDER BY device_id"
NAMES = ["device_id", "temperature", "event_time", "day"]
ROWS = [
    ("a", 20.5, datetime.datetime(2025, 10, 14, 0, 0, 0, 123_000), 14),
    ("b", -1.0, datetime.datetime(2025, 10, 15), 15),
    ("c", None, datetime.datetime(2025, 10, 15, 23, 59, 59, 999_000), 15),
]


@pytest.fixture(scope="session")
def connection(database: str, outputs: Mapping[str, str]) -> Iterator[Any]:
    """A connection in the stack's own workgroup, which enforces where results go."""
    with connect(work_group=outputs["WorkGroupName"], schema_name=database) as connection:
        yield connection


@pytest.fixture(scope="session")
def unloading(database: str, bucket: str) -> Iterator[Any]:
    """A connection that says where to unload to, as PyAthena wants it."""
    with connect(s3_staging_dir=f"s3://{bucket}/unloads/", schema_name=database) as connection:
        yield connection


@pytest.fixture
def _arrow_finds_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell Arrow's own S3 client, which PyAthena gives no endpoint and which does not read AWS_ENDPOINT_URL."""
    found = functools.partial(pyarrow.fs.S3FileSystem, endpoint_override=os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setattr(pyarrow.fs, "S3FileSystem", found)


def test_a_cursor_reads_the_columns_of_the_stacks_table(connection: Any, outputs: Mapping[str, str]) -> None:
    # GIVEN
    table = f"{outputs['DatabaseName']}.{outputs['TableName']}"
    sql = f"SELECT * FROM {table} WHERE year = 2025 AND month = 10 AND day = 15"  # noqa: S608
    # WHEN
    with connection.cursor() as cursor:
        cursor.execute(sql)
        rows = cursor.fetchall()
        names = [column[0] for column in cursor.description]
    # THEN
    assert rows == []
    assert names == ["device_id", "temperature", "timestamp", "event_time", "year", "month", "day"]


def test_a_cursor_reads_rows_of_pythons_types(connection: Any) -> None:
    with connection.cursor() as cursor:
        assert cursor.execute(READINGS).fetchall() == ROWS
        assert [column[:2] for column in cursor.description] == [
            ("device_id", "varchar"),
            ("temperature", "double"),
            ("event_time", "timestamp"),
            ("day", "bigint"),
        ]
        assert cursor.data_scanned_in_bytes > 0
        assert cursor.substatement_type == "SELECT"


def test_a_cursor_passes_parameters(connection: Any) -> None:
    with connection.cursor() as cursor:
        sql = "SELECT device_id FROM readings WHERE day = %(day)d AND device_id <> %(device)s"
        assert cursor.execute(sql, {"day": 15, "device": "it's"}).fetchall() == [("b",), ("c",)]
        sql = "SELECT device_id FROM readings WHERE day = ? AND device_id = ?"
        assert cursor.execute(sql, ["15", "'b'"], paramstyle="qmark").fetchall() == [("b",)]


def test_a_dictionary_cursor_reads_rows_by_name(connection: Any) -> None:
    with connection.cursor(DictCursor) as cursor:
        assert cursor.execute(READINGS).fetchall() == [dict(zip(NAMES, row, strict=True)) for row in ROWS]


def test_a_pandas_cursor_reads_a_frame(connection: Any) -> None:
    assert_is_readings(connection)


@pytest.mark.usefixtures("_arrow_finds_the_endpoint")
def test_a_pandas_cursor_reads_what_it_unloads(unloading: Any) -> None:
    assert_is_readings(unloading, unload=True)


def assert_is_readings(connection: Any, **arguments: Any) -> None:
    with connection.cursor(PandasCursor, **arguments) as cursor:
        frame = cursor.execute(READINGS).as_pandas()
    assert list(frame.columns) == NAMES
    assert frame["device_id"].tolist() == ["a", "b", "c"]
    assert frame["temperature"].isna().tolist() == [False, False, True]
    assert frame["event_time"].dt.strftime("%d %H:%M:%S.%f").tolist()[2] == "15 23:59:59.999000"


@pytest.mark.usefixtures("_arrow_finds_the_endpoint")
def test_an_arrow_cursor_reads_a_table_and_what_it_unloads(connection: Any, unloading: Any) -> None:
    for given, arguments in ((connection, {}), (unloading, {"unload": True})):
        with given.cursor(ArrowCursor, **arguments) as cursor:
            table = cursor.execute(READINGS).as_arrow()
        assert table.column_names == NAMES
        assert table.column("day").to_pylist() == [14, 15, 15]
        assert table.column("event_time").to_pylist() == [row[2] for row in ROWS]


@pytest.mark.usefixtures("_arrow_finds_the_endpoint")
def test_asynchronous_cursors_read_the_same(connection: Any) -> None:
    with connection.cursor(AsyncCursor) as cursor:
        _, future = cursor.execute(READINGS)
        assert future.result().fetchall() == ROWS
    with connection.cursor(AsyncDictCursor) as cursor:
        _, future = cursor.execute(READINGS)
        assert future.result().fetchone()["device_id"] == "a"
    with connection.cursor(AsyncPandasCursor) as cursor:
        _, future = cursor.execute(READINGS)
        assert len(future.result().as_pandas()) == len(ROWS)
    with connection.cursor(AsyncArrowCursor) as cursor:
        _, future = cursor.execute(READINGS)
        assert future.result().as_arrow().num_rows == len(ROWS)


def test_an_asynchronous_cursor_cancels_a_query(connection: Any) -> None:
    sql = (
        "WITH n AS (SELECT x FROM UNNEST(sequence(1, 5000)) AS t(x)) "
        "SELECT count(*) FROM n a, n b, n c WHERE a.x * b.x > c.x"
    )
    with connection.cursor(AsyncCursor) as cursor:
        query_id, future = cursor.execute(sql)
        cursor.cancel(query_id).result()
        assert future.result().state == "CANCELLED"


def test_a_cursor_says_what_is_wrong_in_athenas_words(connection: Any) -> None:
    with connection.cursor() as cursor, pytest.raises(OperationalError, match="TABLE_NOT_FOUND: line 1:15"):
        cursor.execute("SELECT * FROM nothing_like_it")


def test_statements_that_write_have_a_count(connection: Any, bucket: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE copied AS SELECT device_id, day FROM readings")
        # What PyAthena's own tests expect of AWS: tests/pyathena/test_cursor.py
        assert cursor.description == [("rows", "bigint", None, None, 19, 0, "UNKNOWN")]
        assert (cursor.rowcount, cursor.fetchone()) == (3, None)
        cursor.execute("INSERT INTO copied VALUES ('d', 16)")
        assert cursor.rowcount == 1
        assert cursor.execute("SELECT count(*) FROM copied").fetchone() == (4,)


def test_metadata_of_tables_and_databases_are_listed(connection: Any, database: str) -> None:
    with connection.cursor() as cursor:
        assert database in [each.name for each in cursor.list_databases("AwsDataCatalog")]
        table = cursor.get_table_metadata("readings")
        assert [(column.name, column.type) for column in table.columns][:2] == [
            ("device_id", "string"),
            ("temperature", "double"),
        ]
        assert [key.name for key in table.partition_keys] == ["day"]
        assert "readings" in [each.name for each in cursor.list_table_metadata()]
