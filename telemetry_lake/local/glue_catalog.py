"""The Glue Data Catalog's operations on partitions, tables and databases, where MiniStack's differ from AWS.

https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-catalog.html

Known deviations from AWS:

* ``Expression`` of GetPartitions knows comparisons, ``AND``, ``OR``, ``NOT``, ``IN``, ``BETWEEN``, ``LIKE`` and
  ``IS NULL`` between a partition key and literals; anything else is an InvalidInputException.
* A literal is read as the key's type (``year = '2025'`` matches an int key); AWS is stricter with some types.
* Names are not folded to lower case; transactions and ``QueryAsOfTime`` are ignored.
* ``Segment`` deals partitions out by a hash of their values; which segment AWS puts one into is not documented.
* A table that names no type is an ``EXTERNAL_TABLE``, after UpdateTable too. UpdateDatabase does not rename.
* SearchTables looks for its text, whatever the case, anywhere in a table's name, description and parameters, in names
  and comments of its columns, and in its database's name. AWS does not say where it looks, nor how.
* ``Filters``, all of which have to fit, and ``SortCriteria`` know members of a table that are texts or times, not its
  parameters; any other is an InvalidInputException. A text is split at all punctuation but the underscore, and compared
  as a whole too; AWS gives examples. A time is compared with one of ISO 8601; AWS documents no form.
"""

import copy
import json
import operator
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from types import ModuleType
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from telemetry_lake.local import authorization, seams
from telemetry_lake.local.endpoint import Endpoint

Response = tuple[int, dict[str, str], bytes]
Operation = Callable[[dict[str, Any]], Response]
Table = Mapping[str, Any]
Truth = bool | None
"""SQL's three truth values; None is unknown, what a comparison with NULL gives."""

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
MAXIMUM_PAGE_SIZE = 1000
MAXIMUM_BATCH_GET = 1000
MAXIMUM_BATCH_CREATE = 100
MAXIMUM_BATCH_DELETE = 25
MAXIMUM_BATCH_UPDATE = 100
OPERATIONS_WITH_ABSENT_MEMBERS = ("GetTable", "GetDatabase", "GetCrawler", "GetJob")
TABLE_DEFAULTS: Mapping[str, Any] = {
    "Description": "",
    "Owner": "",
    "StorageDescriptor": {},
    "PartitionKeys": [],
    "TableType": "EXTERNAL_TABLE",
    "Parameters": {},
    "ViewOriginalText": None,
    "ViewExpandedText": None,
    "ViewDefinition": None,
}
DATABASE_DEFAULTS: Mapping[str, Any] = {"Description": "", "LocationUri": None, "Parameters": {}}
TEXTS_OF_TABLES = ("Name", "DatabaseName", "Description", "Owner", "TableType")
TIMES_OF_TABLES = ("CreateTime", "UpdateTime", "LastAccessTime")
COMPARATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "EQUALS": operator.eq,
    "GREATER_THAN": operator.gt,
    "LESS_THAN": operator.lt,
    "GREATER_THAN_EQUALS": operator.ge,
    "LESS_THAN_EQUALS": operator.le,
}
OPTIONAL_TEXTS = ("Description", "Owner", "SecurityConfiguration", "CrawlerSecurityConfiguration", "TablePrefix")


class ExpressionError(ValueError):
    """A partition expression cannot be read, or uses what is not modelled."""


class CatalogError(Exception):
    """A request that AWS refuses, with the code of the refusal."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def add_operations(service: ModuleType, operations: Mapping[str, Operation]) -> None:
    """Let a MiniStack service answer operations that it does not know, or answers wrongly."""
    dispatch = seams.require(service, "_handle_request_sync")

    def handle_request(
        method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
    ) -> Response:
        operation = operations.get(headers.get("x-amz-target", "").rpartition(".")[2])
        if operation is None:
            response: Response = dispatch(method, path, headers, body, query)
            return response
        return operation(json.loads(body or b"{}"))

    seams.replace(service, "_handle_request_sync", handle_request)


# --- partition expressions --------------------------------------------------------------------------------------------

_READERS: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("tinyint", "smallint", "int", "integer", "bigint", "long"), int),
    "decimal": Decimal,
    "string": str,
    "char": str,
    "varchar": str,
    "date": date.fromisoformat,
    "timestamp": datetime.fromisoformat,
}

_COMPARISONS: Mapping[type[exp.Expr], Callable[[Any, Any], bool]] = {
    exp.EQ: lambda left, right: bool(left == right),
    exp.NEQ: lambda left, right: bool(left != right),
    exp.LT: lambda left, right: bool(left < right),
    exp.LTE: lambda left, right: bool(left <= right),
    exp.GT: lambda left, right: bool(left > right),
    exp.GTE: lambda left, right: bool(left >= right),
}


class PartitionFilter:
    """A GetPartitions expression, for partitions with the given keys.

    https://docs.aws.amazon.com/glue/latest/webapi/API_GetPartitions.html
    """

    def __init__(self, expression: str, keys: Sequence[Mapping[str, str]]) -> None:
        """Read the expression.

        Raises:
            ExpressionError: it is no expression, or has a part that is not modelled.
        """
        self._positions = {key["Name"].lower(): position for position, key in enumerate(keys)}
        self._types = [key.get("Type", "string").lower().partition("(")[0] for key in keys]
        try:
            self._tree: exp.Expr = sqlglot.parse_one(expression, into=exp.Condition)
        except SqlglotError as error:
            raise ExpressionError(f"Unsupported expression '{expression}': {error}") from error
        # Mistakes come out with the request, whether there is a partition to try them on or not.
        self._truth(self._tree, [NULL_PARTITION] * len(self._types))

    def matches(self, values: Sequence[str]) -> bool:
        """Tell whether a partition with these values is wanted; unknown counts as no.

        Raises:
            ExpressionError: a value is not of its key's type.
        """
        return self._truth(self._tree, values) is True

    def _truth(self, node: exp.Expr, values: Sequence[str]) -> Truth:  # noqa: PLR0911  one per operator
        match node:
            case exp.Paren():
                return self._truth(node.this, values)
            case exp.Not():
                inner = self._truth(node.this, values)
                return None if inner is None else not inner
            case exp.And():
                sides = (self._truth(node.this, values), self._truth(node.expression, values))
                return False if False in sides else (None if None in sides else True)
            case exp.Or():
                sides = (self._truth(node.this, values), self._truth(node.expression, values))
                return True if True in sides else (None if None in sides else False)
            case exp.Boolean():
                return bool(node.this)
            case exp.Is():
                if not isinstance(node.expression, exp.Null):
                    raise ExpressionError(f"Unsupported expression '{node.sql()}'")
                return self._value(node.this, values) is None
            case exp.In():
                return self._is_in(node, values)
            case exp.Between():
                lower, upper = node.args["low"], node.args["high"]
                sides = (
                    self._compare(exp.GTE, node.this, lower, values),
                    self._compare(exp.LTE, node.this, upper, values),
                )
                return False if False in sides else (None if None in sides else True)
            case exp.Like():
                return self._is_like(node, values)
            case _ if type(node) in _COMPARISONS:
                return self._compare(type(node), node.this, node.expression, values)
        raise ExpressionError(f"Unsupported expression '{node.sql()}'")

    def _is_in(self, node: exp.In, values: Sequence[str]) -> Truth:
        if not node.expressions:
            raise ExpressionError(f"Unsupported expression '{node.sql()}'")
        results = [self._compare(exp.EQ, node.this, item, values) for item in node.expressions]
        return True if True in results else (None if None in results else False)

    def _is_like(self, node: exp.Like, values: Sequence[str]) -> Truth:
        text, pattern = self._value(node.this, values), self._value(node.expression, values)
        if text is None or pattern is None:
            return None
        parts = (
            ".*" if character == "%" else "." if character == "_" else re.escape(character) for character in pattern
        )
        return re.fullmatch("".join(parts), str(text), re.DOTALL) is not None

    def _compare(self, operator: type[exp.Expr], left: exp.Expr, right: exp.Expr, values: Sequence[str]) -> Truth:
        kind = self._kind(left) or self._kind(right) or "string"
        sides = [self._value(side, values, kind) for side in (left, right)]
        return None if None in sides else _COMPARISONS[operator](*sides)

    def _kind(self, node: exp.Expr) -> str | None:
        return self._types[self._position(node)] if isinstance(node, exp.Column) else None

    def _position(self, column: exp.Column) -> int:
        position = self._positions.get(column.name.lower())
        if position is None:
            raise ExpressionError(f"'{column.sql()}' is no partition key")
        return position

    def _value(self, node: exp.Expr, values: Sequence[str], kind: str = "string") -> Any:
        match node:
            case exp.Paren():
                return self._value(node.this, values, kind)
            case exp.Column():
                position = self._position(node)
                text = values[position]
                return None if text == NULL_PARTITION else _read(text, self._types[position])
            case exp.Literal():
                return _read(node.this, kind)
            case exp.Neg() if isinstance(node.this, exp.Literal):
                return _read(f"-{node.this.this}", kind)
            case exp.Cast() if isinstance(node.this, exp.Literal):  # DATE '2025-10-15'
                return _read(node.this.this, kind)
            case exp.Null():
                return None
        raise ExpressionError(f"Unsupported expression '{node.sql()}'")


def _read(text: str, kind: str) -> Any:
    reader = _READERS.get(kind)
    if reader is None:
        raise ExpressionError(f"Partition keys of the type {kind} cannot be in an expression")
    try:
        return reader(text)
    except (ValueError, InvalidOperation) as error:
        raise ExpressionError(f"'{text}' is not of the type {kind}") from error


# --- searches ---------------------------------------------------------------------------------------------------------


def has_text(table: Table, search_text: str) -> bool:
    """Tell whether a table has the text of a search somewhere, or one that is just it if it stands in quotes.

    https://docs.aws.amazon.com/glue/latest/webapi/API_SearchTables.html
    """
    quoted = re.fullmatch(r"""(["'])(.+)\1""", search_text)
    if quoted is not None:
        return quoted[2] in _searched_texts(table)
    return any(search_text.lower() in text.lower() for text in _searched_texts(table))


def _searched_texts(table: Table) -> Iterator[str]:
    columns = [*(table.get("StorageDescriptor") or {}).get("Columns", []), *(table.get("PartitionKeys") or [])]
    yield from (table["Name"], table["DatabaseName"], table.get("Description") or "")
    for column in columns:
        yield from (column["Name"], column.get("Comment") or "")
    for name, value in (table.get("Parameters") or {}).items():
        yield from (name, value)


def table_filter(predicate: Mapping[str, str]) -> Callable[[Table], bool]:
    """Return what tells whether a table passes a filter of a search.

    A text is split at punctuation, and one of its parts has to be the value:
    https://docs.aws.amazon.com/glue/latest/webapi/API_SearchTables.html

    Raises:
        CatalogError: the filter is not modelled.
    """
    key, value = predicate.get("Key", ""), predicate.get("Value", "")
    if key in TEXTS_OF_TABLES:
        return lambda table: value in (table.get(key), *re.split(r"\W+", table.get(key) or ""))
    if key not in TIMES_OF_TABLES:
        raise CatalogError("InvalidInputException", f"Not modelled by this endpoint: a filter on {key!r}")
    try:
        wanted = datetime.fromisoformat(value)
        compare = COMPARATORS[predicate.get("Comparator", "EQUALS")]
    except (ValueError, KeyError) as error:
        raise CatalogError("InvalidInputException", f"The filter on {key} cannot be read: {error}") from error
    seconds = (wanted if wanted.tzinfo else wanted.replace(tzinfo=UTC)).timestamp()
    return lambda table: table.get(key) is not None and compare(table[key], seconds)


def sorted_tables(tables: Sequence[Table], criteria: Sequence[Mapping[str, str]]) -> list[Table]:
    """Return tables in the order of the criteria of a search, of which there is one at most.

    Raises:
        CatalogError: there are more, or tables are not sorted by that here.
    """
    ordered = list(tables)
    for criterion in _limited(list(criteria), 1, "sortCriteria"):
        field = criterion.get("FieldName", "")
        if field not in (*TEXTS_OF_TABLES, *TIMES_OF_TABLES):
            raise CatalogError("InvalidInputException", f"Not modelled by this endpoint: sorting by {field!r}")
        ordered.sort(
            key=lambda table: (table.get(field) is not None, table.get(field)), reverse=criterion.get("Sort") == "DESC"
        )
    return ordered


# --- the operations ---------------------------------------------------------------------------------------------------


def segment_of(values: Sequence[str], total_segments: int) -> int:
    """Return the segment, from 0, that a partition belongs to."""
    return zlib.crc32("\0".join(values).encode()) % total_segments


def without_absent(value: Any) -> Any:
    """Return a response without the members that nobody set; AWS leaves them out."""
    if isinstance(value, list):
        return [without_absent(item) for item in value]
    if isinstance(value, dict):
        return {
            name: without_absent(item)
            for name, item in value.items()
            if item is not None and not (item == "" and name in OPTIONAL_TEXTS)
        }
    return value


def guarded(operation: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Operation:
    """Return the operation of the API that answers with what ``operation`` returns, or with its refusal."""
    from ministack.core.responses import error_response_json

    def answer(request: dict[str, Any]) -> Response:
        try:
            document = operation(request)
        except (CatalogError, ExpressionError) as error:
            code = error.code if isinstance(error, CatalogError) else "InvalidInputException"
            refusal: Response = error_response_json(code, str(error), 400)
            return refusal
        return 200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(document).encode()

    return answer


class PartitionCatalog:
    """The operations on partitions, over MiniStack's own store of them."""

    def __init__(self, service: ModuleType) -> None:
        self._service = service
        self._tables = seams.require(service, "_tables")
        self._partitions = seams.require(service, "_partitions")
        self._statistics = seams.require(service, "_partition_column_statistics")
        self._account_id = seams.require(service, "get_account_id")

    def install(self) -> None:
        """Take over the partition operations, for the API and for CloudFormation, which calls them by name."""
        for name, operation in (
            ("_create_partition", self.create_partition),
            ("_batch_create_partition", self.batch_create_partition),
            ("_get_partitions", self.get_partitions),
            ("_batch_get_partition", self.batch_get_partition),
            ("_batch_update_partition", self.batch_update_partition),
            ("_delete_partition", self.delete_partition),
        ):
            seams.replace(self._service, name, guarded(operation))
        add_operations(
            self._service,
            {
                "BatchDeletePartition": guarded(self.batch_delete_partition),
                "UpdatePartition": guarded(self.update_partition),
            },
        )

    def _table(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        key = f"{request.get('DatabaseName')}/{request.get('TableName')}"
        table = self._tables.get(key)
        if table is None:
            raise CatalogError("EntityNotFoundException", f"Table {request.get('TableName')} not found")
        return key, table

    def _stored(self, key: str) -> list[dict[str, Any]]:
        stored: list[dict[str, Any]] = self._partitions.get(key, [])
        return stored

    def _new_partition(
        self, request: Mapping[str, Any], table: Mapping[str, Any], partition_input: Mapping[str, Any]
    ) -> dict[str, Any]:
        values = partition_input.get("Values", [])
        if len(values) != len(table.get("PartitionKeys", [])):
            raise CatalogError(
                "InvalidInputException", "The number of partition keys do not match the number of partition values"
            )
        return {
            **partition_input,
            "Values": list(values),
            "DatabaseName": request["DatabaseName"],
            "TableName": request["TableName"],
            "CreationTime": int(time.time()),
            "CatalogId": self._account_id(),
        }

    def create_partition(self, request: dict[str, Any]) -> dict[str, Any]:
        """CreatePartition, of a table that exists and with a value for each key."""
        key, table = self._table(request)
        partition = self._new_partition(request, table, request.get("PartitionInput", {}))
        if any(known["Values"] == partition["Values"] for known in self._stored(key)):
            raise CatalogError("AlreadyExistsException", "Partition already exists.")
        self._partitions[key] = [*self._stored(key), partition]
        return {}

    def batch_create_partition(self, request: dict[str, Any]) -> dict[str, Any]:
        """BatchCreatePartition, of 100 at most; those that exist are errors of their own."""
        key, table = self._table(request)
        inputs = _limited(request.get("PartitionInputList", []), MAXIMUM_BATCH_CREATE, "partitionInputList")
        known = {tuple(partition["Values"]) for partition in self._stored(key)}
        added, errors = [], []
        for partition_input in inputs:
            partition = self._new_partition(request, table, partition_input)
            if tuple(partition["Values"]) in known:
                errors.append(
                    _partition_error(partition["Values"], "AlreadyExistsException", "Partition already exists.")
                )
                continue
            known.add(tuple(partition["Values"]))
            added.append(partition)
        self._partitions[key] = [*self._stored(key), *added]
        return {"Errors": errors}

    def get_partitions(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetPartitions with its expression, segment, pages and ``ExcludeColumnSchema``."""
        key, table = self._table(request)
        wanted = self._stored(key)
        expression = (request.get("Expression") or "").strip()
        if expression:
            partition_filter = PartitionFilter(expression, table.get("PartitionKeys", []))
            wanted = [partition for partition in wanted if partition_filter.matches(partition["Values"])]
        segment = request.get("Segment")
        if segment:
            total = segment["TotalSegments"]
            wanted = [part for part in wanted if segment_of(part["Values"], total) == segment["SegmentNumber"]]
        page, next_token = _page(wanted, request)
        if request.get("ExcludeColumnSchema"):
            page = [_without_columns(partition) for partition in page]
        return {"Partitions": page, **next_token}

    def batch_get_partition(self, request: dict[str, Any]) -> dict[str, Any]:
        """BatchGetPartition: those that do not exist are left out.

        ``UnprocessedKeys`` are keys to ask for again, not missing ones: https://github.com/getmoto/moto/pull/2320
        (observed on AWS), https://github.com/trinodb/trino/pull/10696.
        """
        key, _ = self._table(request)
        asked = _limited(request.get("PartitionsToGet", []), MAXIMUM_BATCH_GET, "partitionsToGet")
        known = {tuple(partition["Values"]): partition for partition in self._stored(key)}
        found = (known.get(tuple(entry.get("Values", []))) for entry in asked)
        return {"Partitions": [partition for partition in found if partition is not None], "UnprocessedKeys": []}

    def delete_partition(self, request: dict[str, Any]) -> dict[str, Any]:
        """DeletePartition; one that does not exist is an error."""
        key, _ = self._table(request)
        if not self._delete(key, request.get("PartitionValues", [])):
            raise CatalogError("EntityNotFoundException", "Partition not found")
        return {}

    def batch_delete_partition(self, request: dict[str, Any]) -> dict[str, Any]:
        """BatchDeletePartition, of 25 at most."""
        key, _ = self._table(request)
        asked = _limited(request.get("PartitionsToDelete", []), MAXIMUM_BATCH_DELETE, "partitionsToDelete")
        missing = [entry["Values"] for entry in asked if not self._delete(key, entry["Values"])]
        return {
            "Errors": [_partition_error(values, "EntityNotFoundException", "Partition not found") for values in missing]
        }

    def _delete(self, key: str, values: Sequence[str]) -> bool:
        stored = self._stored(key)
        kept = [partition for partition in stored if partition["Values"] != list(values)]
        self._partitions[key] = kept
        if key in self._statistics:
            self._statistics[key] = [entry for entry in self._statistics[key] if entry.get("Values") != list(values)]
        return len(kept) < len(stored)

    def update_partition(self, request: dict[str, Any]) -> dict[str, Any]:
        """UpdatePartition: everything but the time of its creation is new."""
        key, table = self._table(request)
        old_values = list(request.get("PartitionValueList", []))
        stored = self._stored(key)
        old = next((partition for partition in stored if partition["Values"] == old_values), None)
        if old is None:
            raise CatalogError("EntityNotFoundException", "Partition not found")
        partition_input = {"Values": old_values, **request.get("PartitionInput", {})}
        new = {**self._new_partition(request, table, partition_input), "CreationTime": old["CreationTime"]}
        if new["Values"] != old_values and any(known["Values"] == new["Values"] for known in stored):
            raise CatalogError("AlreadyExistsException", "Partition already exists.")
        self._partitions[key] = [new if partition is old else partition for partition in stored]
        return {}

    def batch_update_partition(self, request: dict[str, Any]) -> dict[str, Any]:
        """BatchUpdatePartition, of 100 at most: each entry succeeds or fails by itself.

        https://docs.aws.amazon.com/glue/latest/webapi/API_BatchUpdatePartition.html
        """
        self._table(request)
        errors = []
        for entry in _limited(request.get("Entries", []), MAXIMUM_BATCH_UPDATE, "entries"):
            try:
                self.update_partition({**request, **entry})
            except CatalogError as error:
                detail = {"ErrorCode": error.code, "ErrorMessage": str(error)}
                errors.append({"PartitionValueList": entry["PartitionValueList"], "ErrorDetail": detail})
        return {"Errors": errors}


class TableCatalog:
    """The operations on tables and databases, over MiniStack's own store of them."""

    def __init__(self, endpoint: Endpoint, service: ModuleType) -> None:
        self._settings = endpoint.settings
        self._service = service
        self._tables = seams.require(service, "_tables")

    def install(self) -> None:
        """Let updates overwrite, for the API and for CloudFormation, and answer searches."""
        for name, member, defaults in (
            ("_update_table", "TableInput", TABLE_DEFAULTS),
            ("_update_database", "DatabaseInput", DATABASE_DEFAULTS),
        ):
            update = seams.require(self._service, name)
            seams.replace(self._service, name, overwriting(update, member, defaults))
        add_operations(self._service, {"SearchTables": guarded(self.search_tables)})

    def search_tables(self, request: dict[str, Any]) -> dict[str, Any]:
        """SearchTables, of those that the caller may search.

        https://docs.aws.amazon.com/glue/latest/webapi/API_SearchTables.html
        """
        filters = [table_filter(predicate) for predicate in request.get("Filters", [])]
        search_text = request.get("SearchText", "")
        # Nobody shares tables with this account.
        own = self._tables.values() if request.get("ResourceShareType", "ALL") == "ALL" else ()
        found = [
            table
            for table in own
            if has_text(table, search_text) and all(fits(table) for fits in filters) and self._is_allowed(table)
        ]
        page, next_token = _page(sorted_tables(found, request.get("SortCriteria", [])), request)
        return {"TableList": without_absent(page), **next_token}

    def _is_allowed(self, table: Table) -> bool:
        names = {"DatabaseName": table["DatabaseName"], "TableName": table["Name"]}
        region, account_id = self._settings.region, self._settings.account_id
        resources = authorization.glue_resources("SearchTables", names, region, account_id) or ()
        return authorization.caller_may("glue:SearchTables", resources, region)


def overwriting(update: Operation, member: str, defaults: Mapping[str, Any]) -> Operation:
    """Return an update after which what the new definition leaves out has its default.

    "An updated TableInput object to define the metadata table in the catalog":
    https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateTable.html; "the new definition of the metadata database":
    https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateDatabase.html

    Args:
        update: MiniStack's, which keeps it.
        member: of the request, with the definition.
        defaults: of the definition's own members.
    """

    def overwrite(request: dict[str, Any]) -> Response:
        stated = {name: value for name, value in request.get(member, {}).items() if value is not None}
        return update({**request, member: {**copy.deepcopy(dict(defaults)), **stated}})

    return overwrite


def _page(items: list[Any], request: Mapping[str, Any]) -> tuple[list[Any], dict[str, str]]:
    """Return the items of the page that a request asks for, and the token of the next one if there is one."""
    start = int(request.get("NextToken") or 0)
    end = start + min(int(request.get("MaxResults") or MAXIMUM_PAGE_SIZE), MAXIMUM_PAGE_SIZE)
    return items[start:end], {"NextToken": str(end)} if end < len(items) else {}


def _limited(items: list[Any], maximum: int, name: str) -> list[Any]:
    if len(items) > maximum:
        raise CatalogError(
            "ValidationException",
            f"1 validation error detected: Value at '{name}' failed to satisfy constraint: "
            f"Member must have length less than or equal to {maximum}",
        )
    return items


def _partition_error(values: Sequence[str], code: str, message: str) -> dict[str, Any]:
    return {"PartitionValues": list(values), "ErrorDetail": {"ErrorCode": code, "ErrorMessage": message}}


def _without_columns(partition: Mapping[str, Any]) -> dict[str, Any]:
    descriptor = {name: value for name, value in partition.get("StorageDescriptor", {}).items() if name != "Columns"}
    return {**partition, "StorageDescriptor": descriptor}


def _leave_out_absent_members(service: ModuleType) -> None:
    dispatch = seams.require(service, "_handle_request_sync")

    def handle_request(
        method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
    ) -> Response:
        status, answer_headers, answer = dispatch(method, path, headers, body, query)
        operation = headers.get("x-amz-target", "").rpartition(".")[2].removesuffix("s")
        if status == 200 and operation in OPERATIONS_WITH_ABSENT_MEMBERS:  # noqa: PLR2004
            answer = json.dumps(without_absent(json.loads(answer))).encode()
        return status, answer_headers, answer

    seams.replace(service, "_handle_request_sync", handle_request)


def install(endpoint: Endpoint) -> None:
    """Mend MiniStack's catalog."""
    from ministack.services import glue

    _leave_out_absent_members(glue)
    PartitionCatalog(glue).install()
    TableCatalog(endpoint, glue).install()
