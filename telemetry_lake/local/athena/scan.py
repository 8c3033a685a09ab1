"""Which files a table scan reads, how many bytes of them, and the files as a relation of DuckDB.

Partitions are chosen before anything is listed, files before anything is opened, row groups by their statistics:
https://docs.aws.amazon.com/athena/latest/ug/performance-tuning-data-optimization-techniques.html
"""

import datetime
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from sqlglot import exp

from telemetry_lake.local.athena.catalog import NULL_PARTITION, Catalog, Column, Partition, Table
from telemetry_lake.local.athena.dialect import PATH_COLUMN, TableScan
from telemetry_lake.local.athena.errors import QueryFailedError
from telemetry_lake.local.athena.hive_types import HiveType, literal, quoted
from telemetry_lake.local.athena.predicates import conjuncts, weaken
from telemetry_lake.local.athena.storage import ObjectStore, StoredObject

_PARQUET_SERDE = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
_JSON_SERDES = frozenset({"org.openx.data.jsonserde.JsonSerDe", "org.apache.hive.hcatalog.data.JsonSerDe"})
_PARQUET_TRAILER_BYTES = 8
# A row has at most 32 MB: https://docs.aws.amazon.com/athena/latest/ug/other-notable-limitations.html. DuckDB takes
# buffers of twice as much for every file that it reads.
_MAXIMUM_JSON_OBJECT_BYTES = 32 * 1024 * 1024
# Athena reads timestamps rounded to milliseconds: statistics are compared with that much room.
_ROUNDING = datetime.timedelta(milliseconds=1)
_COERCIBLE = {
    ("tinyint", "smallint"),
    ("tinyint", "int"),
    ("tinyint", "bigint"),
    ("smallint", "int"),
    ("smallint", "bigint"),
    ("int", "bigint"),
    ("float", "double"),
}
_COMPRESSIONS = {".gz": "gzip"}


@dataclass(frozen=True)
class ScannedFile:
    """A file of a scan.

    Attributes:
        stored: the object.
        local_path: where its bytes are on disk.
        partition: the partition it belongs to.
    """

    stored: StoredObject
    local_path: str
    partition: Partition


@dataclass(frozen=True)
class PlannedScan:
    """A scan that is ready to run.

    Attributes:
        relation_sql: a SELECT of DuckDB with the scan's columns.
        files: what it reads.
        scanned_bytes: what Athena would bill for it.
        partition_count: how many partitions were left after pruning.
    """

    relation_sql: str
    files: tuple[ScannedFile, ...]
    scanned_bytes: int
    partition_count: int


class Pruner:
    """Evaluates conditions on partition values, paths and statistics in a DuckDB that sees no files."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def evaluate(self, condition: exp.Expr) -> Any:
        """Return the value of an expression without columns; an expression that fails counts as True."""
        try:
            rows = self._connection.execute(f"SELECT {condition.sql('duckdb')}").fetchall()
        except duckdb.Error:
            return True
        return rows[0][0]

    def value(self, expression: exp.Expr) -> Any:
        """Return the value of a constant, or None when it has none that can be compared."""
        try:
            rows = self._connection.execute(f"SELECT {expression.sql('duckdb')}").fetchall()
        except duckdb.Error:
            return None
        return rows[0][0]

    def matching(
        self, table: Table, conditions: Sequence[exp.Expr], rows: Sequence[tuple[Partition, str]]
    ) -> list[int]:
        """Return the indexes of the (partition, path) pairs for which the conditions may hold.

        Raises:
            QueryFailedError: HIVE_INVALID_PARTITION_VALUE, a value is not of its key's type.
        """
        keys = table.partition_keys
        raw = {"row_index": pa.array(range(len(rows)), pa.int64()), PATH_COLUMN: [path for _, path in rows]}
        for index in range(len(keys)):
            values = [partition.values[index] for partition, _ in rows]
            raw[f"v{index}"] = pa.array([None if value == NULL_PARTITION else value for value in values], pa.string())
        self._connection.register("raw_partitions", pa.table(raw))
        try:
            self._check_values(table)
            columns = ", ".join(
                [
                    "row_index",
                    quoted(PATH_COLUMN),
                    *(f"CAST(v{index} AS {key.type.duckdb()}) AS {quoted(key.name)}" for index, key in enumerate(keys)),
                ]
            )
            names = [*(key.name for key in keys), PATH_COLUMN]
            restrictions = [weaker for item in conditions if (weaker := weaken(item, names)) is not None]
            where = " AND ".join(f"({restriction.sql('duckdb')})" for restriction in restrictions) or "TRUE"
            select = f"SELECT {columns} FROM raw_partitions"  # noqa: S608
            try:
                found = self._connection.execute(
                    f"SELECT row_index FROM ({select}) AS partitions WHERE {where} ORDER BY row_index"  # noqa: S608
                ).fetchall()
            except duckdb.Error:
                # The query itself will say what is wrong with the condition.
                return list(range(len(rows)))
            return [index for (index,) in found]
        finally:
            self._connection.unregister("raw_partitions")

    def _check_values(self, table: Table) -> None:
        for index, key in enumerate(table.partition_keys):
            wrong = self._connection.execute(
                f"SELECT v{index} FROM raw_partitions "  # noqa: S608
                f"WHERE v{index} IS NOT NULL AND TRY_CAST(v{index} AS {key.type.duckdb()}) IS NULL LIMIT 1"
            ).fetchall()
            if wrong:
                raise QueryFailedError(
                    "HIVE_INVALID_PARTITION_VALUE",
                    f"Invalid partition value '{wrong[0][0]}' for {key.type.trino().upper()} partition key: {key.name}",
                )


def plan_scan(
    scan: TableScan, conditions: Sequence[exp.Expr], catalog: Catalog, store: ObjectStore, pruner: Pruner
) -> PlannedScan:
    """Choose the files of a scan and write the relation that reads them.

    Args:
        scan: the table and the columns that the query names.
        conditions: what every useful row fulfils, over plain column names.
        catalog: where the partitions are.
        store: where the objects are.
        pruner: evaluates the conditions.

    Raises:
        QueryFailedError: a partition or file does not fit the table, or the caller may not read it.
    """
    table = scan.table
    if table.partition_keys:
        partitions = [
            partition for partition in catalog.partitions(table) if len(partition.values) == len(table.partition_keys)
        ]
        by_value = [weaker for item in conditions if (weaker := _on_partition_keys(item, table)) is not None]
        chosen = pruner.matching(table, by_value, [(partition, "") for partition in partitions])
        partitions = [partitions[index] for index in chosen]
    else:
        partitions = [Partition((), table.location)]
    for partition in partitions:
        _check_partition_schema(table, partition)
    pairs = [(partition, stored) for partition in partitions for stored in store.objects_under(partition.location)]
    kept = pruner.matching(table, conditions, [(partition, stored.path) for partition, stored in pairs])
    files = tuple(ScannedFile(pairs[index][1], store.open(pairs[index][1]), pairs[index][0]) for index in kept)
    needed = [column for column in table.columns if column.name in scan.columns]
    if table.serde == _PARQUET_SERDE:
        reader, scanned_bytes = _parquet(files, needed, conditions, pruner)
    elif table.serde in _JSON_SERDES:
        reader, scanned_bytes = _json(table, files, needed)
    else:
        raise QueryFailedError(
            "NOT_SUPPORTED",
            f"Table {table.database}.{table.name}: SerDe {table.serde!r} is not offered by the embedded endpoint",
        )
    return PlannedScan(_with_partition_columns(scan, files, needed, reader), files, scanned_bytes, len(partitions))


def _on_partition_keys(condition: exp.Expr, table: Table) -> exp.Expr | None:
    return weaken(condition, [key.name for key in table.partition_keys])


def _check_partition_schema(table: Table, partition: Partition) -> None:
    declared = {column.name: column.type for column in table.columns}
    for name, partition_type in partition.columns:
        table_type = declared.get(name)
        if table_type is None or table.raw is None:
            continue
        text = next(
            column["Type"].lower()
            for column in table.raw["StorageDescriptor"]["Columns"]
            if column["Name"].lower() == name
        )
        if partition_type != text and (partition_type, text) not in _COERCIBLE:
            values = "/".join(
                f"{key.name}={value}" for key, value in zip(table.partition_keys, partition.values, strict=True)
            )
            raise QueryFailedError(
                "HIVE_PARTITION_SCHEMA_MISMATCH",
                "There is a mismatch between the table and partition schemas. The types are incompatible and cannot "
                f"be coerced. The column '{name}' in table '{table.database}.{table.name}' is declared as type "
                f"'{text}', but partition '{values}' declared column '{name}' as type '{partition_type}'.",
            )


def _with_partition_columns(
    scan: TableScan, files: Sequence[ScannedFile], needed: Sequence[Column], reader: str
) -> str:
    table = scan.table
    keys = [(index, key) for index, key in enumerate(table.partition_keys) if key.name in scan.columns]
    wants_path = PATH_COLUMN in scan.columns
    columns = [f"data.{quoted(column.name)}" for column in needed]
    if not files:
        empty = [f"CAST(NULL AS {column.type.duckdb()}) AS {quoted(column.name)}" for column in needed]
        empty += [f"CAST(NULL AS {key.type.duckdb()}) AS {quoted(key.name)}" for _, key in keys]
        empty += [f"CAST(NULL AS VARCHAR) AS {quoted(PATH_COLUMN)}"] if wants_path else []
        return f"SELECT {', '.join(empty) or 'NULL AS nothing'} WHERE FALSE"
    distinct = {file.partition.values for file in files}
    if len(distinct) == 1 or not keys:
        columns += [f"{_key_value(key, files[0].partition.values[index])} AS {quoted(key.name)}" for index, key in keys]
        keys = []
    if not keys and not wants_path:
        return f"SELECT {', '.join(columns) or 'NULL AS nothing'} FROM ({reader}) AS data"  # noqa: S608
    columns += [f"file.{quoted(key.name)}" for _, key in keys]
    columns += [f"file.{quoted(PATH_COLUMN)}"] if wants_path else []
    rows = ", ".join(
        "("
        + ", ".join(
            [
                literal(file.local_path),
                literal(file.stored.path),
                *(_key_value(key, file.partition.values[index]) for index, key in keys),
            ]
        )
        + ")"
        for file in files
    )
    names = ", ".join(["local_path", quoted(PATH_COLUMN), *(quoted(key.name) for _, key in keys)])
    return (
        f"SELECT {', '.join(columns)} FROM ({reader}) AS data "  # noqa: S608
        f"JOIN (VALUES {rows}) AS file({names}) ON data.local_path = file.local_path"
    )


def _key_value(key: Column, value: str) -> str:
    text = "NULL" if value == NULL_PARTITION else literal(value)
    return f"CAST({text} AS {key.type.duckdb()})"


# ---------------------------------------------------------------------------------------------------------------------
# Parquet

_SAME_KIND: tuple[tuple[frozenset[str], Callable[[pa.DataType], bool]], ...] = (
    (frozenset({"tinyint", "smallint", "int", "integer", "bigint"}), pa.types.is_integer),
    (frozenset({"float", "double"}), pa.types.is_floating),
    (
        frozenset({"string", "varchar", "char"}),
        lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind),
    ),
    (frozenset({"binary"}), lambda kind: pa.types.is_binary(kind) or pa.types.is_string(kind)),
    (frozenset({"boolean"}), pa.types.is_boolean),
    (frozenset({"timestamp"}), pa.types.is_timestamp),
    (frozenset({"date"}), pa.types.is_date),
    (frozenset({"decimal"}), lambda kind: pa.types.is_decimal(kind) or pa.types.is_integer(kind)),
    (frozenset({"array"}), lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind)),
    (frozenset({"map"}), pa.types.is_map),
    (frozenset({"struct"}), pa.types.is_struct),
)


def _parquet(
    files: Sequence[ScannedFile], needed: Sequence[Column], conditions: Sequence[exp.Expr], pruner: Pruner
) -> tuple[str, int]:
    present: set[str] = set()
    scanned_bytes = 0
    bounds = list(_bounds(conditions, pruner))
    for file in files:
        try:
            metadata = pq.read_metadata(file.local_path)
        except (pa.ArrowInvalid, OSError) as error:
            raise QueryFailedError("HIVE_BAD_DATA", f"Malformed Parquet file. {error} [{file.stored.path}]") from error
        schema = metadata.schema.to_arrow_schema()
        kinds = {field.name.lower(): field.type for field in schema}
        for column in needed:
            if column.name in kinds:
                present.add(column.name)
                _check_kind(column, kinds[column.name], file)
        scanned_bytes += _scanned_parquet_bytes(metadata, {column.name for column in needed}, bounds)
    paths = ", ".join(literal(file.local_path) for file in files)
    columns = [
        f"{_from_parquet(column)} AS {quoted(column.name)}"
        if column.name in present
        else f"CAST(NULL AS {column.type.duckdb()}) AS {quoted(column.name)}"
        for column in needed
    ]
    selected = ", ".join([*columns, "local_path"])
    return (
        f"SELECT {selected} FROM read_parquet([{paths}], union_by_name = true, filename = 'local_path', "  # noqa: S608
        "hive_partitioning = false)",
        scanned_bytes,
    )


def _check_kind(column: Column, kind: pa.DataType, file: ScannedFile) -> None:
    for names, fits in _SAME_KIND:
        if column.type.name in names and not fits(kind):
            raise QueryFailedError(
                "HIVE_BAD_DATA",
                f"Field {column.name}'s type {str(kind).upper()} in parquet file {file.stored.path} is incompatible "
                f"with type {column.type.trino()} defined in table schema",
            )


def _from_parquet(column: Column) -> str:
    if column.type.name == "timestamp":
        microseconds = f"epoch_us(CAST({quoted(column.name)} AS TIMESTAMP))"
        return f"make_timestamp((({microseconds} + 500) // 1000) * 1000)"
    return f"CAST({quoted(column.name)} AS {column.type.duckdb()})"


@dataclass(frozen=True)
class _Bound:
    """A condition ``column operator value`` that a row group's statistics can contradict."""

    column: str
    minimum: Any = None
    maximum: Any = None

    def excludes(self, smallest: Any, largest: Any) -> bool:
        try:
            return bool(
                (self.minimum is not None and largest + _room(largest) < self.minimum)
                or (self.maximum is not None and smallest - _room(smallest) > self.maximum)
            )
        except TypeError:
            return False  # not comparable: the row group is read


def _room(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return _ROUNDING
    if isinstance(value, datetime.date):
        return datetime.timedelta(0)
    return type(value)() if isinstance(value, str | bytes) else 0


def _bounds(conditions: Iterable[exp.Expr], pruner: Pruner) -> Iterable[_Bound]:
    flipped: dict[type[exp.Expr], type[exp.Expr]] = {
        exp.LT: exp.GT,
        exp.LTE: exp.GTE,
        exp.GT: exp.LT,
        exp.GTE: exp.LTE,
        exp.EQ: exp.EQ,
    }
    for condition in (part for item in conditions for part in conjuncts(item)):
        if isinstance(condition, exp.Between) and isinstance(condition.this, exp.Column):
            low, high = (pruner.value(condition.args[side]) for side in ("low", "high"))
            yield _Bound(condition.this.name, low, high)
        elif isinstance(condition, exp.In) and isinstance(condition.this, exp.Column) and condition.expressions:
            values = [pruner.value(item) for item in condition.expressions]
            if all(value is not None for value in values):
                try:
                    yield _Bound(condition.this.name, min(values), max(values))
                except TypeError:
                    continue
        elif isinstance(condition, exp.Binary) and type(condition) in flipped:
            left, right = condition.left, condition.right
            operator: type[exp.Expr] = type(condition)
            if not isinstance(left, exp.Column):
                left, right, operator = right, left, flipped[operator]
            if not isinstance(left, exp.Column) or right.find(exp.Column, exp.Query):
                continue
            value = pruner.value(right)
            yield _Bound(
                left.name,
                value if operator in (exp.GT, exp.GTE, exp.EQ) else None,
                value if operator in (exp.LT, exp.LTE, exp.EQ) else None,
            )


def _scanned_parquet_bytes(metadata: pq.FileMetaData, needed: set[str], bounds: Sequence[_Bound]) -> int:
    """Return the footer's size and that of the needed column chunks in the row groups that cannot be ruled out."""
    scanned_bytes = int(metadata.serialized_size) + _PARQUET_TRAILER_BYTES
    for group_index in range(metadata.num_row_groups):
        group = metadata.row_group(group_index)
        chunks = [group.column(index) for index in range(group.num_columns)]
        if any(_rules_out(chunk, bound) for bound in bounds for chunk in chunks):
            continue
        scanned_bytes += sum(
            chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema.split(".", 1)[0].lower() in needed
        )
    return scanned_bytes


def _rules_out(chunk: Any, bound: _Bound) -> bool:
    if chunk.path_in_schema.lower() != bound.column or not chunk.is_stats_set:
        return False
    statistics = chunk.statistics
    return bool(statistics.has_min_max and bound.excludes(statistics.min, statistics.max))


# ---------------------------------------------------------------------------------------------------------------------
# JSON lines


def _json(table: Table, files: Sequence[ScannedFile], needed: Sequence[Column]) -> tuple[str, int]:
    """Read JSON lines, plain or gzip.

    https://docs.aws.amazon.com/athena/latest/ug/openx-json-serde.html
    https://docs.aws.amazon.com/athena/latest/ug/hive-json-serde.html
    """
    skips_malformed = table.serde_parameters.get("ignore.malformed.json", "").lower() == "true"
    fields = {column.name: _json_field(table, column.name) for column in needed}
    # A row has to be read even when no column is: whether a line is JSON decides whether the query fails.
    read_fields = sorted(set(fields.values())) or ["nothing"]
    read_columns = ", ".join(f"{literal(name)}: 'JSON'" for name in read_fields)
    selected = ", ".join(
        [
            *(
                f"{_from_json(column, fields[column.name], lenient=skips_malformed)} AS {quoted(column.name)}"
                for column in needed
            ),
            "local_path",
        ]
    )
    by_compression: dict[str, list[str]] = {}
    for file in files:
        suffix = next((suffix for suffix in _COMPRESSIONS if file.stored.key.endswith(suffix)), "")
        by_compression.setdefault(_COMPRESSIONS.get(suffix, "none"), []).append(literal(file.local_path))
    readers = [
        f"SELECT {selected} FROM read_json([{', '.join(paths)}], format = 'newline_delimited', "  # noqa: S608
        f"compression = '{compression}', columns = {{{read_columns}}}, filename = 'local_path', "
        f"ignore_errors = {str(skips_malformed).lower()}, maximum_object_size = {_MAXIMUM_JSON_OBJECT_BYTES}, "
        "hive_partitioning = false)"
        for compression, paths in by_compression.items()
    ]
    return " UNION ALL ".join(readers), sum(file.stored.size_bytes for file in files)


def _json_field(table: Table, column: str) -> str:
    return table.serde_parameters.get(f"mapping.{column}", column)


def _from_json(column: Column, field: str, *, lenient: bool) -> str:
    """Convert a JSON value: text of scalars is read as the column's type, strings take any value as its text."""
    source = quoted(field)
    if column.type.is_nested:
        structure = literal(json.dumps(column.type.json_structure()))
        return f"CAST(json_transform({source}, {structure}) AS {column.type.duckdb()})"
    text = f"({source} ->> '$')"
    if column.type.duckdb() == "VARCHAR":
        return text
    converted = f"TRY_CAST({text} AS {column.type.duckdb()})"
    if _is_integer(column.type):
        # 1.5 is no integer; DuckDB would round it.
        converted = f"CASE WHEN regexp_full_match({text}, '[+-]?[0-9]+') THEN {converted} END"
    if lenient:
        return converted
    message = f"'HIVE_BAD_DATA: Error parsing field value for field {column.name}: ' || {text}"
    return f"CASE WHEN {text} IS NOT NULL AND ({converted}) IS NULL THEN error({message}) ELSE {converted} END"


def _is_integer(hive_type: HiveType) -> bool:
    return hive_type.name in ("tinyint", "smallint", "int", "integer", "bigint")
