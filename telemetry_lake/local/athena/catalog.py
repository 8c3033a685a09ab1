"""Tables, views and partitions as the Glue catalog has them, read with the caller's permissions.

Only registered partitions exist, or those that partition projection computes:
https://docs.aws.amazon.com/athena/latest/ug/partitions.html
https://docs.aws.amazon.com/athena/latest/ug/partition-projection-supported-types.html
"""

import base64
import datetime
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telemetry_lake.local.athena.access import Caller
from telemetry_lake.local.athena.errors import QueryFailedError
from telemetry_lake.local.athena.hive_types import HiveType, UnknownTypeError, parse_hive_type

CATALOG_NAME = "awsdatacatalog"
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_VIEW_TEXT = re.compile(r"/\*\s*Presto View:\s*(\S+)\s*\*/")
_MAXIMUM_PROJECTED_PARTITIONS = 1_000_000
_BATCH_CREATE_PARTITIONS = 100


@dataclass(frozen=True)
class Column:
    """A column of a table; ``name`` is lower case."""

    name: str
    type: HiveType
    comment: str = ""


@dataclass(frozen=True)
class Partition:
    """A partition: its values as the catalog has them (text) and where its objects are."""

    values: tuple[str, ...]
    location: str
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class View:
    """What a Presto view says: its statement and the catalog and schema that it was made in."""

    sql: str
    database: str
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """A table of the catalog."""

    database: str
    name: str
    columns: tuple[Column, ...]
    partition_keys: tuple[Column, ...]
    location: str
    serde: str
    serde_parameters: Mapping[str, str]
    parameters: Mapping[str, str]
    view: View | None
    raw: Mapping[str, Any]

    @property
    def has_projection(self) -> bool:
        """Whether its partitions are computed from its properties."""
        return self.parameters.get("projection.enabled", "").lower() == "true"


class Catalog:
    """The Glue catalog as one caller may see it."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._glue = caller.endpoint.client("glue")
        settings = caller.endpoint.settings
        self._arn = f"arn:aws:glue:{settings.region}:{settings.account_id}:"

    def require(self, action: str, database: str, table: str = "") -> None:
        """Fail unless the caller may do ``action`` on the catalog, the database and the table, all of them.

        https://docs.aws.amazon.com/athena/latest/ug/fine-grained-access-to-glue-resources.html
        """
        resources = ["catalog", f"database/{database}", *([f"table/{database}/{table}"] if table else [])]
        for resource in resources:
            denial = self._caller.denial(action, self._arn + resource)
            if denial:
                raise QueryFailedError("", f"Insufficient permissions to execute the query. {denial}")

    def database_names(self) -> list[str]:
        """Return the names of all databases."""
        self.require("glue:GetDatabases", "default")
        pages = self._glue.get_paginator("get_databases").paginate()
        return sorted(database["Name"] for page in pages for database in page["DatabaseList"])

    def has_database(self, database: str) -> bool:
        """Return whether the database exists."""
        try:
            self._glue.get_database(Name=database)
        except self._glue.exceptions.EntityNotFoundException:
            return False
        return True

    def table_names(self, database: str) -> list[tuple[str, bool]]:
        """Return the name of every table of the database, and whether it is a view."""
        self.require("glue:GetTables", database)
        pages = self._glue.get_paginator("get_tables").paginate(DatabaseName=database)
        return sorted(
            (table["Name"], table.get("TableType") == "VIRTUAL_VIEW") for page in pages for table in page["TableList"]
        )

    def find_table(self, database: str, name: str) -> Table | None:
        """Return the table, or None when the catalog has none of that name."""
        self.require("glue:GetTable", database, name)
        try:
            raw = self._glue.get_table(DatabaseName=database, Name=name)["Table"]
        except self._glue.exceptions.EntityNotFoundException:
            return None
        return table_from_glue(database, raw)

    def partitions(self, table: Table) -> list[Partition]:
        """Return the registered partitions, or those that projection computes."""
        if table.has_projection:
            return list(itertools.islice(projected_partitions(table), _MAXIMUM_PROJECTED_PARTITIONS))
        self.require("glue:GetPartitions", table.database, table.name)
        pages = self._glue.get_paginator("get_partitions").paginate(DatabaseName=table.database, TableName=table.name)
        return [
            Partition(
                tuple(partition["Values"]),
                partition["StorageDescriptor"].get("Location", ""),
                tuple(
                    (column["Name"].lower(), column.get("Type", "string").lower())
                    for column in partition["StorageDescriptor"].get("Columns", [])
                ),
            )
            for page in pages
            for partition in page["Partitions"]
        ]


def _columns(database: str, table: str, glue_columns: list[dict[str, str]]) -> tuple[Column, ...]:
    columns = []
    for column in glue_columns:
        try:
            hive_type = parse_hive_type(column.get("Type", "string"))
        except UnknownTypeError as error:
            raise QueryFailedError(
                "HIVE_UNSUPPORTED_FORMAT",
                f"Unsupported Hive type {error} of column {column['Name']} in table {database}.{table}",
            ) from error
        columns.append(Column(column["Name"].lower(), hive_type, column.get("Comment", "")))
    return tuple(columns)


def table_from_glue(database: str, raw: Mapping[str, Any]) -> Table:
    """Read a table of Glue's GetTable."""
    storage = raw.get("StorageDescriptor") or {}
    serde = storage.get("SerdeInfo") or {}
    view = _view(database, raw) if raw.get("TableType") == "VIRTUAL_VIEW" else None
    return Table(
        database=database,
        name=raw["Name"],
        columns=() if view else _columns(database, raw["Name"], storage.get("Columns") or []),
        partition_keys=_columns(database, raw["Name"], raw.get("PartitionKeys") or []),
        location=storage.get("Location", ""),
        serde=serde.get("SerializationLibrary", ""),
        serde_parameters=serde.get("Parameters") or {},
        parameters=raw.get("Parameters") or {},
        view=view,
        raw=raw,
    )


def _view(database: str, raw: Mapping[str, Any]) -> View:
    match = _VIEW_TEXT.search(raw.get("ViewOriginalText") or "")
    if match is None:
        raise QueryFailedError("INVALID_VIEW", f"'{database}.{raw['Name']}' is not a Presto view")
    try:
        document = json.loads(base64.b64decode(match[1]))
        return View(
            document["originalSql"],
            document.get("schema", database),
            tuple((column["name"], column["type"]) for column in document["columns"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise QueryFailedError("INVALID_VIEW", f"The text of '{database}.{raw['Name']}' cannot be read") from error


def view_text(sql: str, database: str, columns: list[tuple[str, str]]) -> str:
    """Return the ViewOriginalText of a Presto view."""
    document = {
        "originalSql": sql,
        "catalog": CATALOG_NAME,
        "schema": database,
        "columns": [{"name": name, "type": trino_type} for name, trino_type in columns],
    }
    return f"/* Presto View: {base64.b64encode(json.dumps(document).encode()).decode()} */"


def projected_partitions(table: Table) -> Iterator[Partition]:
    """Compute the partitions of a table with partition projection, in the order of its keys.

    Raises:
        QueryFailedError: a property is missing or cannot be read, with Athena's error INVALID_TABLE_PROPERTY.
    """
    for values in itertools.product(*(_projected_values(table, key.name) for key in table.partition_keys)):
        yield Partition(values, partition_location(table, values))


def partition_location(table: Table, values: Sequence[str]) -> str:
    """Return where a partition is that the catalog does not place elsewhere."""
    names = [key.name for key in table.partition_keys]
    template = table.parameters.get("storage.location.template") if table.has_projection else None
    location = template or table.location.rstrip("/") + "".join(f"/{name}=${{{name}}}" for name in names)
    for name, value in zip(names, values, strict=True):
        location = location.replace(f"${{{name}}}", value)
    return location


def create_partitions(caller: Caller, table: Table, locations: Mapping[tuple[str, ...], str]) -> None:
    """Register partitions of a table, by their values, as the caller.

    Raises:
        QueryFailedError: the catalog refuses one.
    """
    storage = {key: value for key, value in table.raw["StorageDescriptor"].items() if value is not None}
    inputs = [
        {"Values": list(values), "StorageDescriptor": {**storage, "Location": location}}
        for values, location in locations.items()
    ]
    for start in range(0, len(inputs), _BATCH_CREATE_PARTITIONS):
        answer = caller.client("glue").batch_create_partition(
            DatabaseName=table.database,
            TableName=table.name,
            PartitionInputList=inputs[start : start + _BATCH_CREATE_PARTITIONS],
        )
        for error in answer.get("Errors") or []:
            raise QueryFailedError(
                "",
                "FAILED: Execution Error, return code 1 from org.apache.hadoop.hive.ql.exec.DDLTask. "
                f"{error['ErrorDetail']['ErrorCode']}: {error['ErrorDetail'].get('ErrorMessage', '')} "
                f"{error['PartitionValues']}",
            )


def _projected_values(table: Table, name: str) -> list[str]:
    def setting(key: str, default: str | None = None) -> str:
        value = table.parameters.get(f"projection.{name}.{key}", default)
        if value is None:
            raise QueryFailedError(
                "INVALID_TABLE_PROPERTY",
                f"Table {table.database}.{table.name} is configured for partition projection, but the property "
                f"projection.{name}.{key} is missing",
            )
        return value

    kind = setting("type").lower()
    try:
        if kind == "enum":
            return [value.strip() for value in setting("values").split(",")]
        if kind == "integer":
            first, last = (int(bound) for bound in setting("range").split(","))
            digits = int(setting("digits", "0"))
            return [f"{value:0{digits}d}" for value in range(first, last + 1, int(setting("interval", "1")))]
        if kind == "date":
            return _projected_dates(
                setting("range"), setting("format"), int(setting("interval", "1")), setting("interval.unit", "DAYS")
            )
    except (ValueError, KeyError) as error:
        raise QueryFailedError(
            "INVALID_TABLE_PROPERTY", f"The projection of column {name} of {table.name} cannot be read: {error}"
        ) from error
    raise QueryFailedError(
        "NOT_SUPPORTED", f"Projection type {kind!r} of column {name} is not offered by the embedded endpoint"
    )


_JAVA_DATE_PARTS = {
    "yyyy": "%Y",
    "yy": "%y",
    "MM": "%m",
    "dd": "%d",
    "HH": "%H",
    "mm": "%M",
    "ss": "%S",
    "SSS": "%f",
    "MMM": "%b",
    "EEE": "%a",
    "a": "%p",
    "hh": "%I",
}
_UNIT_DAYS = {"YEARS": 365.0, "MONTHS": 30.0, "WEEKS": 7.0, "DAYS": 1.0, "HOURS": 1 / 24, "MINUTES": 1 / 1440}
_JAVA_PATTERN = re.compile(r"'([^']*)'|(([A-Za-z])\3*)|([^A-Za-z']+)")
_NOW = re.compile(r"NOW\s*(?:([+-])\s*(\d+)\s*([A-Z]+))?\s*$", re.IGNORECASE)


def python_date_format(java_format: str) -> str:
    """Translate a Java date pattern such as ``yyyy/MM/dd`` or ``yyyy-MM-dd'T'HH`` to ``strftime``.

    Raises:
        KeyError: a letter of the pattern has no counterpart.
    """
    parts = []
    for match in _JAVA_PATTERN.finditer(java_format):
        quoted_text, letters, _, other = match.groups()
        if letters:
            parts.append(_JAVA_DATE_PARTS[letters])
        else:
            parts.append((quoted_text or other or "'").replace("%", "%%"))
    return "".join(parts)


def _projected_dates(value_range: str, java_format: str, interval: int, unit: str) -> list[str]:
    python_format = python_date_format(java_format)
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    first, last = (_range_bound(bound.strip(), python_format, now) for bound in value_range.split(","))
    unit = unit.upper().rstrip("S") + "S"
    values: list[str] = []
    current = first
    for step in itertools.count(1):
        if current > last:
            return values
        values.append(current.strftime(python_format))
        current = _advance(first, step * interval, unit)
    raise AssertionError("unreachable")


def _advance(moment: datetime.datetime, count: int, unit: str) -> datetime.datetime:
    if unit in ("YEARS", "MONTHS"):
        months = moment.month - 1 + count * (12 if unit == "YEARS" else 1)
        year, month = moment.year + months // 12, months % 12 + 1
        last_day = (datetime.date(year + month // 12, month % 12 + 1, 1) - datetime.timedelta(days=1)).day
        return moment.replace(year=year, month=month, day=min(moment.day, last_day))
    return moment + datetime.timedelta(days=count * _UNIT_DAYS[unit])


def _range_bound(bound: str, python_format: str, now: datetime.datetime) -> datetime.datetime:
    match = _NOW.match(bound)
    if match is None:
        return datetime.datetime.strptime(bound, python_format)
    # The value is cut to the format's resolution, as its text is.
    offset = int(match[2] or 0) * (-1 if match[1] == "-" else 1)
    moment = _advance(now, offset, (match[3] or "DAYS").upper().rstrip("S") + "S")
    return datetime.datetime.strptime(moment.strftime(python_format), python_format)
