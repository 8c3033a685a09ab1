"""CREATE TABLE AS, INSERT INTO and UNLOAD: the rows of a query become files, and the catalog learns of them.

https://docs.aws.amazon.com/athena/latest/ug/ctas.html
https://docs.aws.amazon.com/athena/latest/ug/insert-into.html
https://docs.aws.amazon.com/athena/latest/ug/unload.html

Nothing that was written is taken back when a statement fails later, as in Athena.
"""

import base64
import datetime
import gzip
import json
import math
import re
import secrets
import string
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import ClientError
from sqlglot import exp

from telemetry_lake.local.athena.access import Caller
from telemetry_lake.local.athena.catalog import (
    CATALOG_NAME,
    NULL_PARTITION,
    Catalog,
    Column,
    Table,
    create_partitions,
    partition_location,
)
from telemetry_lake.local.athena.errors import QueryFailedError, position
from telemetry_lake.local.athena.forms import CreateTableAs, InsertInto, Unload, Value
from telemetry_lake.local.athena.hive_types import HiveType, UnknownTypeError, hive_type_of, quoted
from telemetry_lake.local.athena.storage import ObjectStore, split_location
from telemetry_lake.local.athena.values import timestamp_text

# https://docs.aws.amazon.com/athena/latest/ug/ctas-considerations-limitations.html
MAXIMUM_OPEN_PARTITIONS = 100
_BATCH_ROWS = 10_000
_WIDER = ("tinyint", "smallint", "int", "bigint", "decimal", "float", "double")
_NULL_TYPE = '"NULL"'
_TEXTS = frozenset({"string", "varchar", "char"})
# Hive writes these in the names of partition folders as %XX.
_ESCAPED_IN_FOLDERS = re.compile(r"[\x00-\x1f\x7f\"#%'*/:=?\\{\[\]^]")
_WITHOUT_CATALOG_NAMES = ("", CATALOG_NAME)

# Runs a query and hands its rows, with the names of their columns, to what consumes them.
Consume = Callable[[duckdb.DuckDBPyRelation, Sequence[str]], None]


class RunQuery(Protocol):
    """Runs the query of a statement."""

    def __call__(self, tree: exp.Expr, consume: Consume, *, reads_rows: bool = True) -> None:
        """Plan the query, account for what it reads, and hand over its rows."""


@dataclass(frozen=True)
class Format:
    """A file format that statements write: what the catalog says of it."""

    name: str
    serde: str
    input_format: str
    output_format: str
    compressions: tuple[str, ...]


# The first compression is the default
# (https://docs.aws.amazon.com/athena/latest/ug/compression-support-gzip.html, .../compression-formats.html).
FORMATS: Mapping[str, Format] = {
    "PARQUET": Format(
        "PARQUET",
        "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
        ("GZIP", "SNAPPY", "ZSTD", "NONE"),
    ),
    "JSON": Format(
        "JSON",
        "org.apache.hive.hcatalog.data.JsonSerDe",
        "org.apache.hadoop.mapred.TextInputFormat",
        "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
        ("GZIP",),
    ),
}
_JSON_SERDES = frozenset({FORMATS["JSON"].serde, "org.openx.data.jsonserde.JsonSerDe"})


@dataclass(frozen=True)
class Destination:
    """What a statement that writes needs of its surroundings.

    Attributes:
        caller: whose permissions it has.
        catalog: where tables are found.
        store: lists what is there already.
        database: of names without one.
        scratch_directory: for files before they are uploaded.
        table_location: where a new table goes that names no location of its own.
        location_is_enforced: whether it may name one.
        upload_arguments: of boto3, for encryption.
    """

    caller: Caller
    catalog: Catalog
    store: ObjectStore
    database: str
    scratch_directory: Path
    table_location: str
    location_is_enforced: bool
    upload_arguments: Mapping[str, str]


@dataclass
class Written:
    """What a statement has written: how many rows, the objects' URLs, and the partitions' locations by their values."""

    row_count: int = 0
    urls: list[str] = field(default_factory=list)
    partitions: dict[tuple[str, ...], str] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------------------------
# The statements


def create_table_as(form: CreateTableAs, destination: Destination, run_query: RunQuery) -> Written:
    """Run ``CREATE TABLE AS``.

    Raises:
        QueryFailedError: the table or its location exists, or the properties are not to be had.
    """
    database, name = _resolved(form.catalog, form.database, form.name, destination)
    if destination.catalog.find_table(database, name) is not None:
        if form.if_not_exists:
            return Written()
        raise QueryFailedError(
            "TABLE_ALREADY_EXISTS", f"line 1:1: Destination table '{CATALOG_NAME}.{database}.{name}' already exists"
        )
    if not destination.catalog.has_database(database):
        raise QueryFailedError("SCHEMA_NOT_FOUND", f"line 1:1: Schema '{database}' does not exist")
    options = _Options.of_table(form.properties)
    location = _new_location(form.properties.get("external_location"), destination, f"{database}.{name}")
    written = Written()
    columns: list[Column] = []

    def consume(relation: duckdb.DuckDBPyRelation, names: Sequence[str]) -> None:
        columns.extend(_result_columns(relation, names))
        _check_partition_columns(columns, options.partitioned_by)
        if form.with_data:
            writer = _Writer(columns, len(options.partitioned_by), options, destination.scratch_directory)
            writer.write(relation)
            _upload(writer, written, destination, lambda values: _folder(location, options.partitioned_by, values))

    run_query(form.query, consume, reads_rows=form.with_data)
    data_columns, keys = _split(columns, len(options.partitioned_by))
    storage = {
        "Columns": [{"Name": column.name, "Type": column.type.hive()} for column in data_columns],
        "Location": location,
        "InputFormat": options.format.input_format,
        "OutputFormat": options.format.output_format,
        "SerdeInfo": {
            "SerializationLibrary": options.format.serde,
            "Parameters": {"serialization.format": "1"},
        },
    }
    glue = destination.caller.client("glue")
    glue.create_table(
        DatabaseName=database,
        TableInput={
            "Name": name,
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {
                "EXTERNAL": "TRUE",
                "has_encrypted_data": str(bool(destination.upload_arguments)).lower(),
                **({"parquet.compression": options.compression} if options.format.name == "PARQUET" else {}),
            },
            "StorageDescriptor": storage,
            "PartitionKeys": [{"Name": key.name, "Type": key.type.hive()} for key in keys],
        },
    )
    if keys:
        table = destination.catalog.find_table(database, name)
        assert table is not None  # noqa: S101  it was created above
        _register(table, written, destination)
    return written


def insert_into(form: InsertInto, sql: str, destination: Destination, run_query: RunQuery) -> Written:
    """Run ``INSERT INTO``; a partition that is new is registered.

    Raises:
        QueryFailedError: there is no such table or column, or the types do not fit.
    """
    database, name = _resolved(form.catalog, form.database, form.name, destination)
    table = destination.catalog.find_table(database, name)
    place = position(sql, form.offset)
    if table is None:
        raise QueryFailedError("TABLE_NOT_FOUND", f"line 1:1: Table '{CATALOG_NAME}.{database}.{name}' does not exist")
    if table.view is not None:
        raise QueryFailedError("NOT_SUPPORTED", f"{place}: Inserting into views is not supported")
    options = _Options.of_existing(table)
    all_columns = (*table.columns, *table.partition_keys)
    by_name = {column.name: column for column in all_columns}
    names = form.columns or tuple(by_name)
    for column_name in names:
        if column_name not in by_name:
            raise QueryFailedError(
                "COLUMN_NOT_FOUND", f"{place}: Insert column name does not exist in target table: {column_name}"
            )
    written = Written()

    def consume(relation: duckdb.DuckDBPyRelation, _names: Sequence[str]) -> None:
        _check_insert_types(relation, [by_name[column_name] for column_name in names])
        writer = _Writer(all_columns, len(table.partition_keys), options, destination.scratch_directory)
        writer.write(relation, [names.index(column.name) if column.name in names else None for column in all_columns])
        _upload(writer, written, destination, lambda values: locations.get(values) or partition_location(table, values))

    locations = (
        {partition.values: partition.location for partition in destination.catalog.partitions(table)}
        if table.partition_keys and not table.has_projection
        else {}
    )
    run_query(form.query, consume)
    if table.partition_keys and not table.has_projection:
        _register(table, written, destination)
    return written


def unload(form: Unload, tree: exp.Expr, destination: Destination, run_query: RunQuery) -> Written:
    """Run ``UNLOAD``: files without a table.

    Raises:
        QueryFailedError: something is at the location already, or the properties are not to be had.
    """
    options = _Options.of_unload(form.properties)
    location = _empty_location(form.location, destination, "unload")
    written = Written()

    def consume(relation: duckdb.DuckDBPyRelation, names: Sequence[str]) -> None:
        columns = _result_columns(relation, names)
        _check_partition_columns(columns, options.partitioned_by)
        writer = _Writer(columns, len(options.partitioned_by), options, destination.scratch_directory)
        writer.write(relation)
        _upload(writer, written, destination, lambda values: _folder(location, options.partitioned_by, values))

    run_query(tree, consume)
    return written


# ---------------------------------------------------------------------------------------------------------------------
# Names, places and types


def _resolved(catalog: str, database: str, name: str, destination: Destination) -> tuple[str, str]:
    if catalog.lower() not in _WITHOUT_CATALOG_NAMES:
        raise QueryFailedError("CATALOG_NOT_FOUND", f"line 1:1: Catalog '{catalog}' does not exist")
    return (database or destination.database).lower(), name.lower()


@dataclass(frozen=True)
class _Options:
    format: Format
    compression: str
    partitioned_by: tuple[str, ...] = ()

    @classmethod
    def of_table(cls, properties: Mapping[str, Value]) -> "_Options":
        """https://docs.aws.amazon.com/athena/latest/ug/create-table-as.html#ctas-table-properties ."""
        known = {
            *("format", "external_location", "partitioned_by", "write_compression", "parquet_compression"),
            *("table_type", "is_external"),
        }
        _refuse_unknown(properties, known)
        if str(properties.get("table_type", "HIVE")).upper() != "HIVE":
            raise QueryFailedError("NOT_SUPPORTED", "Iceberg tables are not offered by the embedded endpoint")
        compression = properties.get("write_compression", properties.get("parquet_compression"))
        return cls._of(properties.get("format", "PARQUET"), compression, properties)

    @classmethod
    def of_unload(cls, properties: Mapping[str, Value]) -> "_Options":
        """https://docs.aws.amazon.com/athena/latest/ug/unload.html#unload-parameters ."""
        _refuse_unknown(properties, {"format", "compression", "compression_level", "partitioned_by"})
        if "format" not in properties:
            raise QueryFailedError("INVALID_TABLE_PROPERTY", "UNLOAD needs the property format")
        return cls._of(properties["format"], properties.get("compression"), properties)

    @classmethod
    def of_existing(cls, table: Table) -> "_Options":
        if table.serde == FORMATS["PARQUET"].serde:
            return cls._of("PARQUET", table.parameters.get("parquet.compression", "GZIP"), {})
        if table.serde in _JSON_SERDES:
            return cls._of("JSON", None, {})
        raise QueryFailedError("NOT_SUPPORTED", f"SerDe {table.serde!r} is not written by the embedded endpoint")

    @classmethod
    def _of(cls, name: object, compression: object, properties: Mapping[str, Value]) -> "_Options":
        form = FORMATS.get(str(name).upper())
        if form is None:
            raise QueryFailedError("NOT_SUPPORTED", f"Format {name} is not written by the embedded endpoint")
        chosen = str(compression or form.compressions[0]).upper()
        if chosen not in form.compressions:
            raise QueryFailedError(
                "INVALID_TABLE_PROPERTY", f"Compression {chosen} is not supported for format {form.name}"
            )
        partitioned_by = properties.get("partitioned_by", ())
        names = partitioned_by if isinstance(partitioned_by, tuple) else (str(partitioned_by),)
        return cls(form, chosen, tuple(key.lower() for key in names))


def _refuse_unknown(properties: Mapping[str, Value], known: set[str]) -> None:
    for name in properties:
        if name not in known:
            raise QueryFailedError("NOT_SUPPORTED", f"Property {name} is not offered by the embedded endpoint")


def _new_location(wanted: object, destination: Destination, table: str) -> str:
    """Return where a new table goes; the texts are those that users of Athena report.

    https://docs.aws.amazon.com/athena/latest/ug/create-table-as.html#ctas-table-properties
    """
    if wanted is not None and destination.location_is_enforced:
        raise QueryFailedError(
            "",
            "The Create Table As Select query failed because it was submitted with an 'external_location' property to "
            "an Athena Workgroup that enforces a centralized output location for all queries. Please remove the "
            "'external_location' property and resubmit the query.",
        )
    return _empty_location(str(wanted or destination.table_location), destination, table)


def _empty_location(location: str, destination: Destination, table: str) -> str:
    location = location.rstrip("/") + "/"
    if destination.store.objects_under(location):
        raise QueryFailedError(
            "HIVE_PATH_ALREADY_EXISTS",
            f"Target directory for table '{table}' already exists: {location}. You may need to manually clean the "
            f"data at location '{location}' before retrying. Athena will not delete data in your account.",
        )
    return location


def _result_columns(relation: duckdb.DuckDBPyRelation, names: Sequence[str]) -> list[Column]:
    columns = []
    for index, (name, kind) in enumerate(zip(names, relation.types, strict=True)):
        if re.fullmatch(r"_col\d+", name):
            raise QueryFailedError(
                "MISSING_COLUMN_NAME", f"line 1:1: Column name not specified at position {index + 1}"
            )
        if str(kind) == _NULL_TYPE:
            raise QueryFailedError("COLUMN_TYPE_UNKNOWN", f"line 1:1: Column type is unknown at position {index + 1}")
        try:
            columns.append(Column(name.lower(), hive_type_of(kind)))
        except UnknownTypeError as error:
            raise QueryFailedError("NOT_SUPPORTED", f"Unsupported Hive type: {error}") from error
    for name in (column.name for column in columns):
        if sum(column.name == name for column in columns) > 1:
            raise QueryFailedError("DUPLICATE_COLUMN_NAME", f"line 1:1: Column name '{name}' specified more than once")
    return columns


def _check_partition_columns(columns: Sequence[Column], partitioned_by: Sequence[str]) -> None:
    """https://docs.aws.amazon.com/athena/latest/ug/ctas-examples.html#ctas-example-partitioned ."""
    _, keys = _split(columns, len(partitioned_by))
    if tuple(key.name for key in keys) != tuple(partitioned_by):
        raise QueryFailedError(
            "HIVE_COLUMN_ORDER_MISMATCH",
            "Partition keys must be the last columns in the table and in the same order as the table properties: "
            f"[{', '.join(partitioned_by)}]",
        )


def _split(columns: Sequence[Column], key_count: int) -> tuple[Sequence[Column], Sequence[Column]]:
    boundary = len(columns) - key_count
    return columns[:boundary], columns[boundary:]


def _check_insert_types(relation: duckdb.DuckDBPyRelation, columns: Sequence[Column]) -> None:
    """https://trino.io/docs/current/sql/insert.html: as many columns as are named, and types that can be coerced."""
    fits = len(relation.types) == len(columns)
    given: list[str] = []
    for index, kind in enumerate(relation.types):
        is_null = str(kind) == _NULL_TYPE
        try:
            source = None if is_null else hive_type_of(kind)
        except UnknownTypeError as error:
            given.append(str(error))
            fits = False
            continue
        given.append("unknown" if source is None else source.trino())
        if fits and source is not None:
            fits = _coercible(source, columns[index].type)
    if not fits:
        wanted = ", ".join(column.type.trino() for column in columns)
        raise QueryFailedError(
            "TYPE_MISMATCH",
            f"line 1:1: Insert query has mismatched column types: Table: [{wanted}], Query: [{', '.join(given)}]",
        )


def _coercible(source: HiveType, target: HiveType) -> bool:
    if source.name == target.name:
        return len(source.children) == len(target.children) and all(
            _coercible(left, right) for (_, left), (_, right) in zip(source.children, target.children, strict=True)
        )
    if {source.name, target.name} <= _TEXTS or (source.name, target.name) == ("date", "timestamp"):
        return True
    return source.name in _WIDER and target.name in _WIDER and _WIDER.index(source.name) < _WIDER.index(target.name)


def _folder(location: str, keys: Sequence[str], values: Sequence[str]) -> str:
    return location + "".join(f"{key}={folder_name(value)}/" for key, value in zip(keys, values, strict=True))


def folder_name(value: str) -> str:
    """Return a partition's value as it stands in the name of a folder."""
    return _ESCAPED_IN_FOLDERS.sub(lambda match: f"%{ord(match[0]):02X}", value)


def _register(table: Table, written: Written, destination: Destination) -> None:
    known = {partition.values for partition in destination.catalog.partitions(table)}
    missing = {values: location for values, location in written.partitions.items() if values not in known}
    create_partitions(destination.caller, table, missing)


# ---------------------------------------------------------------------------------------------------------------------
# Files


class _Writer:
    """Writes rows into one file a partition; the partition's columns, which are the last, are not in the files."""

    def __init__(self, columns: Sequence[Column], key_count: int, options: _Options, scratch_directory: Path) -> None:
        self._columns = columns
        self._data_columns, self._keys = _split(columns, key_count)
        self._options = options
        self._directory = scratch_directory
        self._open: dict[tuple[str, ...], _File] = {}
        self.format_name = options.format.name
        self.row_count = 0
        self.files: list[tuple[tuple[str, ...], Path]] = []

    def write(self, relation: duckdb.DuckDBPyRelation, indexes: Sequence[int | None] | None = None) -> None:
        """Write all rows.

        Args:
            relation: the rows.
            indexes: for each column its place in the rows, None for a column of NULLs; without, in their order.
        """
        chosen = range(len(self._columns)) if indexes is None else indexes
        projection = ", ".join(
            f"CAST({'NULL' if index is None else f'#{index + 1}'} AS {column.type.duckdb()}) AS {quoted(column.name)}"
            for index, column in zip(chosen, self._columns, strict=True)
        )
        for batch in relation.project(projection).to_arrow_reader(_BATCH_ROWS):
            self.row_count += batch.num_rows
            for values, rows in self._by_partition(pa.Table.from_batches([batch])):
                self._file(values).write(rows)
        for values, file in self._open.items():
            file.close()
            self.files.append((values, file.path))

    def _by_partition(self, batch: pa.Table) -> Iterable[tuple[tuple[str, ...], pa.Table]]:
        data = batch.select([column.name for column in self._data_columns])
        if not self._keys:
            return [((), data)] if batch.num_rows else []
        places: dict[tuple[str, ...], list[int]] = {}
        key_columns = [batch.column(key.name).to_pylist() for key in self._keys]
        for place, row in enumerate(zip(*key_columns, strict=True)):
            places.setdefault(tuple(map(_partition_text, row)), []).append(place)
        return [(values, data.take(rows)) for values, rows in places.items()]

    def _file(self, values: tuple[str, ...]) -> "_File":
        if values not in self._open:
            if len(self._open) == MAXIMUM_OPEN_PARTITIONS:
                raise QueryFailedError(
                    "HIVE_TOO_MANY_OPEN_PARTITIONS",
                    f"Exceeded limit of {MAXIMUM_OPEN_PARTITIONS} open writers for partitions/buckets",
                )
            path = self._directory / f"write-{len(self._open)}"
            kind = _ParquetFile if self.format_name == "PARQUET" else _JsonFile
            self._open[values] = kind(path, self._data_columns, self._options.compression)
        return self._open[values]


def _partition_text(value: object) -> str:
    if value is None:
        return NULL_PARTITION
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime):
        return _timestamp(value)
    return str(value)


class _File(Protocol):
    """A file that takes rows."""

    path: Path

    def write(self, rows: pa.Table) -> None:
        """Append rows."""

    def close(self) -> None:
        """End the file."""


class _ParquetFile:
    def __init__(self, path: Path, _columns: Sequence[Column], compression: str) -> None:
        self.path = path
        self._compression = compression
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self.path,
                rows.schema,
                compression=self._compression,
                coerce_timestamps="ms",
                allow_truncated_timestamps=True,
            )
        self._writer.write_table(rows)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _JsonFile:
    def __init__(self, path: Path, columns: Sequence[Column], _compression: str) -> None:
        self.path = path
        self._columns = columns
        self._file = gzip.open(path, "wt", encoding="utf-8")  # noqa: SIM115  closed below

    def write(self, rows: pa.Table) -> None:
        for row in rows.to_pylist():
            document = {column.name: _json_value(row[column.name], column.type) for column in self._columns}
            self._file.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")

    def close(self) -> None:
        self._file.close()


def _json_value(value: Any, kind: HiveType) -> Any:  # noqa: PLR0911  one line a type
    if value is None:
        return None
    if kind.name == "array":
        return [_json_value(item, kind.children[0][1]) for item in value]
    if kind.name == "map":
        return {str(key): _json_value(item, kind.children[1][1]) for key, item in value}
    if kind.name == "struct":
        return {name: _json_value(value[name], child) for name, child in kind.children}
    if isinstance(value, datetime.datetime):
        return _timestamp(value)
    if isinstance(value, datetime.date | Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    return value


def _timestamp(value: datetime.datetime) -> str:
    return timestamp_text((value - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1))


def _upload(
    writer: _Writer, written: Written, destination: Destination, folder: Callable[[tuple[str, ...]], str]
) -> None:
    """Put the files into their folders, under names such as Athena gives them."""
    written.row_count = writer.row_count
    client = destination.caller.client("s3")
    letters = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(5))
    query = f"{time.strftime('%Y%m%d_%H%M%S', time.gmtime())}_{secrets.randbelow(100_000):05d}_{letters}"
    suffix = ".gz" if writer.format_name == "JSON" else ""
    for values, path in writer.files:
        location = folder(values).rstrip("/") + "/"
        bucket, prefix = split_location(location)
        key = f"{prefix}{query}_{uuid.uuid4()}{suffix}"
        try:
            with path.open("rb") as body:
                client.put_object(Bucket=bucket, Key=key, Body=body, **destination.upload_arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDenied":
                raise QueryFailedError("HIVE_WRITER_CLOSE_ERROR", f"Error closing writer: {error}") from error
            raise QueryFailedError("PERMISSION_DENIED", f"Permission denied on S3 path: s3://{bucket}/{key}") from error
        written.urls.append(f"s3://{bucket}/{key}")
        written.partitions[values] = location
