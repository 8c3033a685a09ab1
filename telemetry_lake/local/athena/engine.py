"""One DuckDB connection per query: limits, no access outside of the query's files, Trino's names for its errors.

https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
"""

import re
from collections.abc import Sequence
from pathlib import Path

import duckdb

from telemetry_lake.local.athena.dialect import MACROS
from telemetry_lake.local.athena.errors import QueryCancelledError, QueryFailedError, position

_SETTINGS = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET TimeZone = 'UTC'",
    "SET threads = 2",
    "SET memory_limit = '1GB'",
)
_NAMED_ERROR = re.compile(r"(?:Invalid Input Error: )?([A-Z][A-Z_]+): (.*)", re.DOTALL)


def connect(readable_files: Sequence[str] = (), scratch_directory: Path | None = None) -> duckdb.DuckDBPyConnection:
    """Return a connection that can read the given files and no others."""
    connection = duckdb.connect(":memory:")
    for setting in _SETTINGS:
        connection.execute(setting)
    if scratch_directory is not None:
        connection.execute(f"SET temp_directory = '{scratch_directory}'")
    for macro in MACROS:
        connection.execute(macro)
    if readable_files:
        paths = ", ".join("'" + path.replace("'", "''") + "'" for path in readable_files)
        connection.execute(f"SET allowed_paths = [{paths}]")
    connection.execute("SET enable_external_access = false")
    return connection


def failure(error: duckdb.Error, sql: str) -> QueryFailedError | QueryCancelledError:  # noqa: PLR0911  one line a kind
    """Return what Athena would say to an error of DuckDB; a message without counterpart is shown as it is.

    Args:
        error: the error.
        sql: the statement, for the position in the message.
    """
    text = str(error).split("\n", maxsplit=1)[0]
    named = _NAMED_ERROR.fullmatch(text)
    if named:
        return QueryFailedError(named[1], named[2])
    text = re.sub(r"^[\w ]+ Error: ", "", text)
    if isinstance(error, duckdb.InterruptException):
        return QueryCancelledError("Query cancelled by user")
    if "ivision by zero" in text:
        return QueryFailedError("DIVISION_BY_ZERO", "Division by zero")
    if "Malformed JSON" in text:
        return QueryFailedError("HIVE_CURSOR_ERROR", f"Row is not a valid JSON Object - {text}")
    missing_function = re.search(r"Function with name \"?(\w+)\"? does not exist", text)
    if missing_function:
        return QueryFailedError(
            "FUNCTION_NOT_FOUND", f"{_place(sql, missing_function[1])}: Function '{missing_function[1]}' not registered"
        )
    wrong_arguments = re.search(r"No function matches the given name and argument types '(\w+)\((.*)\)'", text)
    if wrong_arguments:
        return QueryFailedError(
            "FUNCTION_NOT_FOUND",
            f"{_place(sql, wrong_arguments[1])}: Unexpected parameters ({wrong_arguments[2].lower()}) "
            f"for function {wrong_arguments[1].lower()}",
        )
    not_grouped = re.search(r'column "(\w+)" must appear in the GROUP BY', text)
    if not_grouped:
        return QueryFailedError(
            "EXPRESSION_NOT_AGGREGATE",
            f"{_place(sql, not_grouped[1])}: '{not_grouped[1]}' must be an aggregate expression "
            "or appear in GROUP BY clause",
        )
    return QueryFailedError(_name(error), text)


def _place(sql: str, word: str) -> str:
    match = re.search(rf"\b{re.escape(word)}\b", sql, re.IGNORECASE)
    return position(sql, match.start() if match else 0)


def _name(error: duckdb.Error) -> str:
    for kind, name in (
        (duckdb.ConversionException, "INVALID_CAST_ARGUMENT"),
        (duckdb.OutOfRangeException, "NUMERIC_VALUE_OUT_OF_RANGE"),
        (duckdb.OutOfMemoryException, "EXCEEDED_LOCAL_MEMORY_LIMIT"),
        (duckdb.BinderException, "SYNTAX_ERROR"),
        (duckdb.CatalogException, "SYNTAX_ERROR"),
        (duckdb.ParserException, "SYNTAX_ERROR"),
        (duckdb.PermissionException, "PERMISSION_DENIED"),
        (duckdb.InvalidInputException, "INVALID_FUNCTION_ARGUMENT"),
        (duckdb.IOException, "HIVE_CURSOR_ERROR"),
    ):
        if isinstance(error, kind):
            return name
    return "GENERIC_INTERNAL_ERROR"
