"""Statements other than queries: SHOW, DESCRIBE, MSCK REPAIR TABLE, views, partitions, tables and databases.

https://docs.aws.amazon.com/athena/latest/ug/ddl-reference.html
They change the catalog through the Glue API with the caller's own credentials.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from telemetry_lake.local import seams
from telemetry_lake.local.athena.access import Caller
from telemetry_lake.local.athena.catalog import NULL_PARTITION, Catalog, Table, create_partitions, view_text
from telemetry_lake.local.athena.errors import InvalidRequestError, QueryFailedError
from telemetry_lake.local.athena.results import ResultColumn
from telemetry_lake.local.athena.storage import ObjectStore, split_location
from telemetry_lake.local.athena.values import ColumnType

_PADDED_WIDTH = 20
# What of a table's description goes back into TableInput
# (https://docs.aws.amazon.com/glue/latest/webapi/API_TableInput.html).
_TABLE_INPUT = (
    *("Name", "Description", "Owner", "Retention", "StorageDescriptor", "PartitionKeys", "TableType", "Parameters"),
    *("ViewOriginalText", "ViewExpandedText"),
)
_STRING = ColumnType("string", "VARCHAR")

# Plans a query without reading anything: its result's columns as (name, Trino type).
DescribeQuery = Callable[[str, str], list[tuple[str, str]]]


@dataclass
class Output:
    """The lines of a statement's text result and the columns it names."""

    lines: list[str] = field(default_factory=list)
    columns: list[ResultColumn] = field(default_factory=list)


@dataclass(frozen=True)
class Statement:
    """What a statement needs to run."""

    sql: str
    database: str
    caller: Caller
    catalog: Catalog
    store: ObjectStore
    describe_query: DescribeQuery


def run(statement: Statement) -> Output:
    """Run a statement that is no query.

    Raises:
        QueryFailedError: it failed, or the embedded endpoint does not offer it.
    """
    cursor = _cursor(statement.sql)
    for words, handler in _HANDLERS:
        if cursor.keywords(*words):
            try:
                return handler(statement, cursor)
            except ClientError as error:
                raise _catalog_failure(error) from error
    raise QueryFailedError("NOT_SUPPORTED", "This statement is not offered by the embedded endpoint")


def _catalog_failure(error: ClientError) -> QueryFailedError:
    code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
    if code in ("AccessDeniedException", "AccessDenied"):
        return QueryFailedError("", f"Insufficient permissions to execute the query. {message}")
    return QueryFailedError(
        "",
        f"FAILED: Execution Error, return code 1 from org.apache.hadoop.hive.ql.exec.DDLTask. {code}({message})",
    )


def _cursor(sql: str) -> Any:
    from ministack.services import athena

    cursor = seams.require(athena, "_Cursor")(sql)
    while cursor.tokens and cursor.tokens[-1][:2] == ("punct", ";"):
        cursor.tokens.pop()
    return cursor


def _table_name(statement: Statement, cursor: Any) -> tuple[str, str]:
    name = cursor.dotted_name(3)
    if name is None:
        raise QueryFailedError("", "FAILED: ParseException cannot recognize input: a table name is expected")
    return (name[1] or statement.database).lower(), name[2].lower()


def _table(statement: Statement, cursor: Any) -> Table:
    database, name = _table_name(statement, cursor)
    table = statement.catalog.find_table(database, name)
    if table is None:
        raise QueryFailedError("", f"FAILED: SemanticException [Error 10001]: Table not found {database}.{name}")
    return table


def _raw_columns(table: Table) -> list[tuple[str, str, str]]:
    storage = table.raw.get("StorageDescriptor") or {}
    return [
        (column["Name"], column.get("Type", ""), column.get("Comment", ""))
        for column in [*(storage.get("Columns") or []), *(table.raw.get("PartitionKeys") or [])]
    ]


def _padded(*parts: str) -> str:
    return "\t".join(part.ljust(_PADDED_WIDTH) for part in parts)


# ---------------------------------------------------------------------------------------------------------------------
# SHOW and DESCRIBE


def _show_partitions(statement: Statement, cursor: Any) -> Output:
    table = _table(statement, cursor)
    if not table.partition_keys:
        raise QueryFailedError(
            "", f"FAILED: SemanticException [Error 10001]: Table {table.name} is not a partitioned table"
        )
    lines = sorted(partition_name(table, partition.values) for partition in statement.catalog.partitions(table))
    return Output(lines, [ResultColumn("partition", _STRING)])


def partition_name(table: Table, values: Sequence[str]) -> str:
    """Return a partition as Hive writes it: ``year=2025/month=10/day=15``."""
    return "/".join(f"{key.name}={value}" for key, value in zip(table.partition_keys, values, strict=True))


def _show_names(kind: str) -> Callable[[Statement, Any], Output]:
    def show(statement: Statement, cursor: Any) -> Output:
        database = statement.database
        if cursor.keywords("in") or cursor.keywords("from"):
            database = (cursor.identifier() or database).lower()
        cursor.keywords("like")
        pattern = cursor.string()
        if kind == "database_name":
            names = statement.catalog.database_names()
        else:
            if not statement.catalog.has_database(database):
                raise QueryFailedError(
                    "", f"FAILED: SemanticException [Error 10072]: Database does not exist: {database}"
                )
            tables = statement.catalog.table_names(database)
            names = [name for name, is_view in tables if is_view or kind == "tab_name"]
        if pattern is not None:
            expression = "|".join(part.replace("*", ".*") for part in pattern.split("|"))
            names = [name for name in names if re.fullmatch(expression, name)]
        return Output(names, [ResultColumn(kind, _STRING)])

    return show


def _show_columns(statement: Statement, cursor: Any) -> Output:
    if not (cursor.keywords("from") or cursor.keywords("in")):
        raise QueryFailedError("", "FAILED: ParseException: FROM or IN is expected")
    name = cursor.dotted_name(2)
    database = statement.database
    if cursor.keywords("from") or cursor.keywords("in"):
        database = (cursor.identifier() or database).lower()
    table = statement.catalog.find_table(name[0] or database, name[1]) if name else None
    if table is None:
        raise QueryFailedError("", "FAILED: SemanticException [Error 10001]: Table not found")
    return Output([_padded(column) for column, _, _ in _raw_columns(table)], [ResultColumn("field", _STRING)])


def _describe(statement: Statement, cursor: Any) -> Output:
    _ = cursor.keywords("extended") or cursor.keywords("formatted")
    table = _table(statement, cursor)
    columns = [ResultColumn(name, _STRING) for name in ("col_name", "data_type", "comment")]
    if table.view is not None:
        varchar = ColumnType("varchar", "VARCHAR")
        lines = [f"{name}\t{kind}" for name, kind in table.view.columns]
        return Output(lines, [ResultColumn("column", varchar), ResultColumn("type", varchar)])
    lines = [_padded(*column) for column in _raw_columns(table)]
    if table.partition_keys:
        keys = [_padded(key["Name"], key.get("Type", ""), key.get("Comment", "")) for key in table.raw["PartitionKeys"]]
        lines += ["\t \t ", "# Partition Information\t \t ", "# " + _padded("col_name", "data_type", "comment")]
        lines[-1] = "\t".join(["# col_name".ljust(22), "data_type".ljust(20), "comment".ljust(20)])
        lines += ["\t \t ", *keys]
    return Output(lines, columns)


def _show_create_table(statement: Statement, cursor: Any) -> Output:
    table = _table(statement, cursor)
    storage = table.raw.get("StorageDescriptor") or {}

    def column_lines(columns: Sequence[dict[str, str]]) -> str:
        return ", \n".join(
            f"  `{column['Name']}` {column.get('Type', '')}"
            + (f" COMMENT '{column['Comment']}'" if column.get("Comment") else "")
            for column in columns
        )

    def property_lines(properties: Any) -> str:
        return ", \n".join(f"  '{key}'='{value}'" for key, value in sorted(properties.items()))

    text = f"CREATE EXTERNAL TABLE `{table.database}.{table.name}`(\n{column_lines(storage.get('Columns') or [])})\n"
    if table.raw.get("PartitionKeys"):
        text += f"PARTITIONED BY ( \n{column_lines(table.raw['PartitionKeys'])})\n"
    text += f"ROW FORMAT SERDE \n  '{table.serde}' \n"
    if table.serde_parameters:
        text += f"WITH SERDEPROPERTIES ( \n{property_lines(table.serde_parameters)}) \n"
    text += f"STORED AS INPUTFORMAT \n  '{storage.get('InputFormat', '')}' \n"
    text += f"OUTPUTFORMAT \n  '{storage.get('OutputFormat', '')}'\nLOCATION\n  '{table.location}'\n"
    text += f"TBLPROPERTIES (\n{property_lines(table.parameters)})"
    return Output(text.split("\n"), [ResultColumn("createtab_stmt", _STRING)])


def _show_create_view(statement: Statement, cursor: Any) -> Output:
    table = _table(statement, cursor)
    if table.view is None:
        raise QueryFailedError("", f"FAILED: SemanticException {table.database}.{table.name} is not a view")
    text = f"CREATE VIEW {table.database}.{table.name} AS\n{table.view.sql}"
    return Output(text.split("\n"), [ResultColumn("create view", ColumnType("varchar", "VARCHAR"))])


# ---------------------------------------------------------------------------------------------------------------------
# Partitions


def _repair_table(statement: Statement, cursor: Any) -> Output:
    """Add the partitions whose folders are named ``key=value``; none is removed.

    https://docs.aws.amazon.com/athena/latest/ug/msck-repair-table.html
    """
    table = _table(statement, cursor)
    if not table.partition_keys:
        return Output()
    _, prefix = split_location(table.location)
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    found: dict[tuple[str, ...], str] = {}
    for stored in statement.store.objects_under(table.location):
        folders = stored.key[len(prefix) :].split("/")[:-1]
        values = _folder_values(table, folders)
        if values is not None:
            depth = "/".join(folders[: len(values)])
            found.setdefault(values, f"s3://{stored.bucket}/{prefix}{depth}")
    known = {partition.values for partition in statement.catalog.partitions(table)}
    missing = {values: location for values, location in found.items() if values not in known}
    create_partitions(statement.caller, table, missing)
    names = [partition_name(table, values) for values in missing]
    lines = ["Partitions not in metastore:\t" + "\t".join(f"{table.name}:{name}" for name in names)] if names else []
    return Output([*lines, *(f"Repair: Added partition to metastore {table.name}:{name}" for name in names)])


def _folder_values(table: Table, folders: Sequence[str]) -> tuple[str, ...] | None:
    values = []
    if len(folders) < len(table.partition_keys):
        return None
    for key, folder in zip(table.partition_keys, folders, strict=False):
        name, separator, value = folder.partition("=")
        if name != key.name or not separator or value == NULL_PARTITION:
            return None
        values.append(value)
    return tuple(values)


def _alter_table(statement: Statement, cursor: Any) -> Output:
    """Change a table's partitions, properties, columns or location."""
    table = _table(statement, cursor)
    for words, change in (
        (("add", "columns"), _add_columns),
        (("set", "tblproperties"), _set_properties),
        (("set", "location"), _set_location),
        (("add",), _add_partitions),
        (("drop",), _drop_partitions),
    ):
        if cursor.keywords(*words):
            if change(statement, table, cursor) and cursor.at_end():
                return Output()
            break
    raise QueryFailedError("NOT_SUPPORTED", "This ALTER TABLE is not offered by the embedded endpoint")


def _add_partitions(statement: Statement, table: Table, cursor: Any) -> bool:
    """https://docs.aws.amazon.com/athena/latest/ug/alter-table-add-partition.html ."""
    tolerant = cursor.keywords("if", "not", "exists")
    wanted: dict[tuple[str, ...], str] = {}
    while cursor.keywords("partition"):
        values = _partition_values(table, cursor)
        location = cursor.string() if cursor.keywords("location") else None
        wanted[values] = location or f"{table.location.rstrip('/')}/{partition_name(table, values)}"
    if not (wanted and cursor.at_end()):
        return False
    known = {partition.values for partition in statement.catalog.partitions(table)} if tolerant else set()
    missing = {values: location for values, location in wanted.items() if values not in known}
    create_partitions(statement.caller, table, missing)
    return True


def _drop_partitions(statement: Statement, table: Table, cursor: Any) -> bool:
    """https://docs.aws.amazon.com/athena/latest/ug/alter-table-drop-partition.html ."""
    tolerant = cursor.keywords("if", "exists")
    glue = statement.caller.client("glue")
    dropped = False
    while cursor.keywords("partition"):
        values = _partition_values(table, cursor)
        try:
            glue.delete_partition(DatabaseName=table.database, TableName=table.name, PartitionValues=list(values))
        except glue.exceptions.EntityNotFoundException:
            if not tolerant:
                raise
        dropped = True
        cursor.punct(",")
    return dropped


def _add_columns(statement: Statement, table: Table, cursor: Any) -> bool:
    """Add columns behind the others; partitions keep those that they had.

    https://docs.aws.amazon.com/athena/latest/ug/alter-table-add-columns.html
    """
    from ministack.services import athena

    columns = seams.require(athena, "_column_list")(cursor)
    for column in columns:
        if column["Name"] in {name for name, _, _ in _raw_columns(table)}:
            raise QueryFailedError(
                "",
                "FAILED: Execution Error, return code 1 from org.apache.hadoop.hive.ql.exec.DDLTask. "
                f"Duplicate column name: {column['Name']}",
            )
    storage = dict(table.raw["StorageDescriptor"])
    _update_table(statement, table, StorageDescriptor={**storage, "Columns": [*storage["Columns"], *columns]})
    return bool(columns)


def _set_properties(statement: Statement, table: Table, cursor: Any) -> bool:
    """https://docs.aws.amazon.com/athena/latest/ug/alter-table-set-tblproperties.html ."""
    from ministack.services import athena

    properties = seams.require(athena, "_property_list")(cursor)
    if not properties:
        return False
    _update_table(statement, table, Parameters={**table.parameters, **properties})
    return True


def _set_location(statement: Statement, table: Table, cursor: Any) -> bool:
    """https://docs.aws.amazon.com/athena/latest/ug/alter-table-set-location.html ."""
    location = cursor.string()
    if location is None:
        return False
    split_location(location)
    _update_table(statement, table, StorageDescriptor={**table.raw["StorageDescriptor"], "Location": location})
    return True


def _update_table(statement: Statement, table: Table, **changes: Any) -> None:
    known = {name: table.raw[name] for name in _TABLE_INPUT if table.raw.get(name) is not None}
    statement.caller.client("glue").update_table(DatabaseName=table.database, TableInput={**known, **changes})


def _partition_values(table: Table, cursor: Any) -> tuple[str, ...]:
    given: dict[str, str] = {}
    if cursor.punct("("):
        while True:
            name = cursor.identifier()
            cursor.punct("=")
            value = cursor.string()
            if value is None and (number := cursor.number()) is not None:
                value = str(number)
            if name is None or value is None:
                break
            given[name.lower()] = value
            if not cursor.punct(","):
                break
        cursor.punct(")")
    if set(given) != {key.name for key in table.partition_keys}:
        raise QueryFailedError(
            "",
            f"FAILED: SemanticException partition spec {given} doesn't contain all {len(table.partition_keys)} "
            "partition columns",
        )
    return tuple(given[key.name] for key in table.partition_keys)


# ---------------------------------------------------------------------------------------------------------------------
# Views, tables, databases


def _create_view(*, replace: bool) -> Callable[[Statement, Any], Output]:
    def create(statement: Statement, cursor: Any) -> Output:
        database, name = _table_name(statement, cursor)
        as_end = cursor.peek()[3]
        if not cursor.keywords("as"):
            raise QueryFailedError("NOT_SUPPORTED", "CREATE VIEW name AS query is what the embedded endpoint offers")
        sql = statement.sql[as_end:].strip().rstrip(";").strip()
        columns = statement.describe_query(sql, database)
        glue = statement.caller.client("glue")
        table_input = {
            "Name": name,
            "TableType": "VIRTUAL_VIEW",
            "Parameters": {"presto_view": "true", "comment": "Presto View"},
            "ViewOriginalText": view_text(sql, database, columns),
            "ViewExpandedText": "/* Presto View */",
            "StorageDescriptor": {
                "Columns": [{"Name": column, "Type": _hive_name(kind)} for column, kind in columns],
                "Location": "",
                "SerdeInfo": {},
            },
            "PartitionKeys": [],
        }
        known = statement.catalog.find_table(database, name)
        if known is None:
            glue.create_table(DatabaseName=database, TableInput=table_input)
        elif replace and known.view is not None:
            glue.update_table(DatabaseName=database, TableInput=table_input)
        else:
            raise QueryFailedError("ALREADY_EXISTS", f"line 1:1: View already exists: '{database}.{name}'")
        return Output()

    return create


def _hive_name(trino_type: str) -> str:
    base = trino_type.partition("(")[0]
    simple = {"varchar": "string", "integer": "int", "real": "float", "varbinary": "binary"}
    if base == "timestamp":
        return "timestamp"
    return simple.get(base, trino_type if base in ("decimal", "bigint", "double", "boolean", "date") else "string")


def _drop_view(statement: Statement, cursor: Any) -> Output:
    tolerant = cursor.keywords("if", "exists")
    database, name = _table_name(statement, cursor)
    table = statement.catalog.find_table(database, name)
    if table is None or table.view is None:
        if tolerant:
            return Output()
        raise QueryFailedError("", f"FAILED: SemanticException [Error 10001]: View not found {database}.{name}")
    statement.caller.client("glue").delete_table(DatabaseName=database, Name=name)
    return Output()


def _create_database(statement: Statement, cursor: Any) -> Output:
    tolerant = cursor.keywords("if", "not", "exists")
    database_input: dict[str, Any] = {"Name": (cursor.identifier() or "").lower()}
    while not cursor.at_end():
        if cursor.keywords("comment"):
            database_input["Description"] = cursor.string()
        elif cursor.keywords("location"):
            database_input["LocationUri"] = cursor.string()
        else:
            raise QueryFailedError("NOT_SUPPORTED", "This CREATE DATABASE is not offered by the embedded endpoint")
    if not (tolerant and statement.catalog.has_database(database_input["Name"])):
        statement.caller.client("glue").create_database(DatabaseInput=database_input)
    return Output()


def _drop_database(statement: Statement, cursor: Any) -> Output:
    tolerant = cursor.keywords("if", "exists")
    name = (cursor.identifier() or "").lower()
    cascade = cursor.keywords("cascade")
    if not statement.catalog.has_database(name):
        if tolerant:
            return Output()
        raise QueryFailedError("", f"FAILED: SemanticException [Error 10072]: Database does not exist: {name}")
    if not cascade and statement.catalog.table_names(name):
        raise QueryFailedError(
            "",
            "FAILED: Execution Error, return code 1 from org.apache.hadoop.hive.ql.exec.DDLTask. "
            f"InvalidOperationException(message:Database {name} is not empty. One or more tables exist.)",
        )
    statement.caller.client("glue").delete_database(Name=name)
    return Output()


def _table_ddl(statement: Statement, _cursor: Any) -> Output:
    """CREATE EXTERNAL TABLE and DROP TABLE, parsed by MiniStack, carried out through Glue as the caller."""
    from ministack.services import athena

    parsed = seams.require(athena, "_parse_ddl")(statement.sql)
    if isinstance(parsed, seams.require(athena, "_DropTable")):
        database = (parsed.database or statement.database).lower()
        if statement.catalog.find_table(database, parsed.table) is None:
            if parsed.if_exists:
                return Output()
            raise QueryFailedError(
                "", f"FAILED: SemanticException [Error 10001]: Table not found {database}.{parsed.table}"
            )
        statement.caller.client("glue").delete_table(DatabaseName=database, Name=parsed.table)
        return Output()
    if not isinstance(parsed, seams.require(athena, "_CreateTable")) or parsed.iceberg:
        raise QueryFailedError("NOT_SUPPORTED", "This CREATE TABLE is not offered by the embedded endpoint")
    database = (parsed.database or statement.database).lower()
    if statement.catalog.find_table(database, parsed.table) is not None and parsed.if_not_exists:
        return Output()
    table_input = seams.require(athena, "_create_table_input")(parsed)
    statement.caller.client("glue").create_table(DatabaseName=database, TableInput=table_input)
    return Output()


def check_at_start(sql: str) -> None:
    """Refuse what Athena refuses already when a statement is started.

    Raises:
        InvalidRequestError: with Athena's words.
    """
    from ministack.services import athena

    parsed = seams.require(athena, "_parse_ddl")(sql)
    if isinstance(parsed, seams.require(athena, "_CreateTable")) and not parsed.external and not parsed.iceberg:
        raise InvalidRequestError("External keyword required for table type HIVE", "MALFORMED_QUERY")


_HANDLERS: tuple[tuple[tuple[str, ...], Callable[[Statement, Any], Output]], ...] = (
    (("show", "partitions"), _show_partitions),
    (("show", "tables"), _show_names("tab_name")),
    (("show", "views"), _show_names("views")),
    (("show", "databases"), _show_names("database_name")),
    (("show", "schemas"), _show_names("database_name")),
    (("show", "columns"), _show_columns),
    (("show", "create", "table"), _show_create_table),
    (("show", "create", "view"), _show_create_view),
    (("describe",), _describe),
    (("desc",), _describe),
    (("msck", "repair", "table"), _repair_table),
    (("alter", "table"), _alter_table),
    (("create", "or", "replace", "view"), _create_view(replace=True)),
    (("create", "view"), _create_view(replace=False)),
    (("drop", "view"), _drop_view),
    (("create", "database"), _create_database),
    (("create", "schema"), _create_database),
    (("drop", "database"), _drop_database),
    (("drop", "schema"), _drop_database),
    (("create", "external", "table"), _table_ddl),
    (("drop", "table"), _table_ddl),
)
