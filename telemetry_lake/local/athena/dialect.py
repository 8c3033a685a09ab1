"""A statement in Athena's dialect becomes one for DuckDB: names resolved, views expanded, types checked.

Athena engine version 3 is Trino (https://docs.aws.amazon.com/athena/latest/ug/engine-versions-reference-0003.html).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.errors import ErrorLevel, OptimizeError, ParseError, TokenError, UnsupportedError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import traverse_scope
from sqlglot.schema import MappingSchema

from telemetry_lake.local.athena.catalog import CATALOG_NAME, Table
from telemetry_lake.local.athena.errors import InvalidRequestError, QueryFailedError, position
from telemetry_lake.local.athena.forms import DIALECT, parsed

PATH_COLUMN = "$path"
_MAXIMUM_VIEW_DEPTH = 20
_GENERATED_NAME = re.compile(r"_col_?\d+")

# Finds a table of the catalog: database, name -> Table, or None.
FindTable = Callable[[str, str], Table | None]
HasDatabase = Callable[[str], bool]


@dataclass
class TableScan:
    """One reference to a table: what it reads of it, under a name that is unique in the statement."""

    name: str
    table: Table
    columns: set[str] = field(default_factory=set)


@dataclass
class Analysis:
    """A query that is ready for planning.

    Attributes:
        tree: the qualified query over scans.
        scans: by name.
        output_names: the names of the result's columns.
    """

    tree: exp.Query
    scans: dict[str, TableScan]
    output_names: list[str]


def parse_query(sql: str) -> exp.Query:
    """Parse a SELECT, WITH or VALUES statement.

    Raises:
        InvalidRequestError: it is no SQL; Athena refuses it when it is started.
    """
    return as_query(parsed(sql))


def as_query(tree: exp.Expr) -> exp.Query:
    """Return a parsed statement as a query that has columns.

    Raises:
        InvalidRequestError: it is none.
    """
    if isinstance(tree, exp.Values):
        tree = exp.select("*").from_(tree)
    if isinstance(tree, exp.Subquery):
        return as_query(tree.unnest())
    if not isinstance(tree, exp.Query):
        raise InvalidRequestError("Queries of this type are not supported", "MALFORMED_QUERY")
    return tree


def bind_parameters(sql: str, parameters: Sequence[str]) -> str:
    """Put the values of ExecutionParameters in the place of the ``?`` of a statement.

    A value that is an expression without column names is that expression, any other is a string.
    https://docs.aws.amazon.com/athena/latest/ug/querying-with-prepared-statements.html

    Raises:
        QueryFailedError: INVALID_PARAMETER_USAGE, there are more or fewer values than places.
    """
    tokens = sqlglot.tokenize(sql, read="trino")
    places = [token for token in tokens if token.token_type is TokenType.PLACEHOLDER]
    if not places:
        return sql
    if len(places) != len(parameters):
        raise QueryFailedError(
            "INVALID_PARAMETER_USAGE",
            f"Incorrect number of parameters: expected {len(places)} but found {len(parameters)}",
        )
    pieces: list[str] = []
    end = 0
    for token, parameter in zip(places, parameters, strict=True):
        pieces += [sql[end : token.start], _parameter_sql(parameter)]
        end = token.end + 1
    return "".join([*pieces, sql[end:]])


def _parameter_sql(parameter: str) -> str:
    as_string = "'" + parameter.replace("'", "''") + "'"
    try:
        parsed = sqlglot.parse(f"SELECT ({parameter})", read=DIALECT)
    except (ParseError, TokenError):
        return as_string
    if len(parsed) != 1 or not isinstance(parsed[0], exp.Select) or parsed[0].find(exp.Column):
        return as_string
    return f"({parameter})"


def analyze(tree: exp.Query, sql: str, database: str, find_table: FindTable, has_database: HasDatabase) -> Analysis:
    """Resolve the names of a query.

    Args:
        tree: the parsed statement; it is changed.
        sql: its text, for the positions in errors.
        database: the database of names without one.
        find_table: finds a table of the catalog.
        has_database: whether the catalog has a database.

    Raises:
        QueryFailedError: a table or column does not exist, or types do not fit.
    """
    written_names = _written_output_names(tree)
    scans: dict[str, TableScan] = {}
    _resolve_tables(tree, sql, database, find_table, has_database, scans, 0)
    _name_expressions(tree)
    schema = MappingSchema(
        {
            name: {
                **{column.name: column.type.trino() for column in (*scan.table.columns, *scan.table.partition_keys)},
                PATH_COLUMN: "varchar",
            }
            for name, scan in scans.items()
        },
        visible={
            name: [column.name for column in (*scan.table.columns, *scan.table.partition_keys)]
            for name, scan in scans.items()
        },
        dialect=DIALECT,
        normalize=False,
    )
    try:
        qualified = qualify(tree, schema=schema, dialect=DIALECT, expand_alias_refs=False)
    except OptimizeError as error:
        raise _name_error(tree, sql, str(error)) from error
    _refuse_aliases_in_having(qualified, sql)
    annotated = annotate_types(qualified, schema=schema, dialect=DIALECT)
    assert isinstance(annotated, exp.Query)  # noqa: S101  qualify keeps the kind of statement
    check_types(annotated, sql)
    _collect_columns(annotated, scans)
    return Analysis(annotated, scans, _output_names(annotated, written_names))


def _written_output_names(tree: exp.Query) -> dict[str, str]:
    """Return the aliases of the result as they are written, by their lower-case form, and fold all names.

    Trino compares all names without regard to case, quoted ones too, but shows an alias as it is written.
    """
    written = {
        projection.alias.lower(): projection.alias for projection in tree.selects if isinstance(projection, exp.Alias)
    }
    for identifier in tree.find_all(exp.Identifier):
        identifier.set("this", identifier.name.lower())
    return written


def _output_names(tree: exp.Query, written: dict[str, str]) -> list[str]:
    names = [written.get(name, name) for name in tree.named_selects]
    return [f"_col{index}" if _GENERATED_NAME.fullmatch(name) else name for index, name in enumerate(names)]


def _name_expressions(tree: exp.Expr) -> None:
    for select in tree.find_all(exp.Select):
        for index, projection in enumerate(select.expressions):
            named = isinstance(projection, exp.Alias | exp.Column | exp.Star | exp.Dot | exp.Aliases)
            if not named and not projection.is_star:
                select.expressions[index].replace(exp.alias_(projection.copy(), f"_col{index}", quoted=True))


def _resolve_tables(  # noqa: PLR0917
    tree: exp.Query,
    sql: str,
    database: str,
    find_table: FindTable,
    has_database: HasDatabase,
    scans: dict[str, TableScan],
    depth: int,
) -> None:
    if depth > _MAXIMUM_VIEW_DEPTH:
        raise QueryFailedError("VIEW_IS_RECURSIVE", "Views are nested too deeply")
    qualified_names: dict[tuple[str, str], str] = {}
    for node in list(_catalog_tables(tree, sql)):
        table_database = node.db or database
        place = position(sql, _start(node)) if depth == 0 else "line 1:1"
        if node.catalog not in ("", CATALOG_NAME):
            raise QueryFailedError("CATALOG_NOT_FOUND", f"{place}: Catalog '{node.catalog}' does not exist")
        table = find_table(table_database, node.name)
        if table is None:
            if not has_database(table_database):
                raise QueryFailedError("SCHEMA_NOT_FOUND", f"{place}: Schema '{table_database}' does not exist")
            raise QueryFailedError(
                "TABLE_NOT_FOUND", f"{place}: Table '{CATALOG_NAME}.{table_database}.{node.name}' does not exist"
            )
        if not node.alias:
            qualified_names[table_database, node.name] = node.name
        if table.view is not None:
            node.replace(_view_subquery(node, table, find_table, has_database, scans, depth))
        else:
            scan = TableScan(f"scan_{len(scans)}", table)
            scans[scan.name] = scan
            alias = node.args.get("alias") or exp.TableAlias(this=exp.to_identifier(node.name, quoted=True))
            replacement = exp.Table(this=exp.to_identifier(scan.name), alias=alias.copy())
            for part in ("joins", "pivots", "sample", "when"):
                if node.args.get(part):
                    replacement.set(part, node.args[part])
            node.replace(replacement)
    for column in tree.find_all(exp.Column):
        if column.db and (column.db, column.table) in qualified_names:
            column.set("db", None)
            column.set("catalog", None)


def _catalog_tables(tree: exp.Query, sql: str) -> Iterator[exp.Table]:
    """Return the references to tables of the catalog: those that no CTE hides."""
    try:
        for scope in traverse_scope(tree):
            for _, source in scope.selected_sources.values():
                if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
                    yield source
    except OptimizeError as error:
        raise _name_error(tree, sql, str(error)) from error


def _view_subquery(  # noqa: PLR0917
    node: exp.Table,
    table: Table,
    find_table: FindTable,
    has_database: HasDatabase,
    scans: dict[str, TableScan],
    depth: int,
) -> exp.Subquery:
    view = table.view
    assert view is not None  # noqa: S101  the caller looked
    try:
        inner = parse_query(view.sql)
    except InvalidRequestError as error:
        raise QueryFailedError(
            "INVALID_VIEW", f"Failed parsing stored view '{CATALOG_NAME}.{table.database}.{table.name}': {error}"
        ) from error
    _written_output_names(inner)
    try:
        _resolve_tables(inner, view.sql, view.database, find_table, has_database, scans, depth + 1)
    except QueryFailedError as error:
        if error.name in ("TABLE_NOT_FOUND", "SCHEMA_NOT_FOUND"):
            raise QueryFailedError(
                "INVALID_VIEW",
                f"Failed analyzing stored view '{CATALOG_NAME}.{table.database}.{table.name}': {error.text}",
            ) from error
        raise
    alias = node.args.get("alias")
    names = alias.columns if alias is not None else []
    table_alias = exp.TableAlias(
        this=exp.to_identifier(node.alias or table.name, quoted=True),
        columns=[name.copy() for name in names]
        or [exp.to_identifier(name.lower(), quoted=True) for name, _ in view.columns],
    )
    subquery = exp.Subquery(this=inner, alias=table_alias)
    for part in ("joins",):
        if node.args.get(part):
            subquery.set(part, node.args[part])
    return subquery


def _start(node: exp.Expr) -> int:
    starts = [int(part.meta["start"]) for part in node.find_all(exp.Identifier) if "start" in part.meta]
    return min(starts, default=0)


def _refuse_aliases_in_having(tree: exp.Expr, sql: str) -> None:
    """Trino does not know the aliases of a SELECT in its HAVING; DuckDB does."""
    for having in tree.find_all(exp.Having):
        for column in having.find_all(exp.Column):
            if not column.table and column.find_ancestor(exp.Lambda) is None:
                raise _name_error(tree, sql, f"Column '{column.name}' could not be resolved")


def _name_error(tree: exp.Expr, sql: str, message: str) -> QueryFailedError:
    match = re.search(r"Column '\"?(.*?)\"?' could not be resolved", message) or re.search(
        r"Unknown column: (\S+)", message
    )
    if match:
        name = match[1].split(".")[-1].strip('"')
        return QueryFailedError(
            "COLUMN_NOT_FOUND",
            f"{position(sql, _column_offset(tree, name))}: Column '{name}' cannot be resolved or requester is not "
            "authorized to access requested resources",
        )
    ambiguous = re.search(r"Column '?\"?(\w+)\"?'? (?:.*)ambiguous|Ambiguous column:? '?(\w+)", message, re.IGNORECASE)
    if ambiguous:
        name = ambiguous[1] or ambiguous[2]
        return QueryFailedError(
            "AMBIGUOUS_NAME", f"{position(sql, _column_offset(tree, name))}: Column '{name}' is ambiguous"
        )
    return QueryFailedError("SYNTAX_ERROR", message)


def _column_offset(tree: exp.Expr, name: str) -> int:
    offsets = [_start(column) for column in tree.find_all(exp.Column) if column.name == name]
    return min(offsets, default=0)


def _collect_columns(tree: exp.Query, scans: dict[str, TableScan]) -> None:
    for scope in traverse_scope(tree):
        for alias, (node, source) in scope.selected_sources.items():
            if isinstance(source, exp.Table) and isinstance(node, exp.Table) and source.name in scans:
                scans[source.name].columns.update(column.name for column in scope.source_columns(alias))


# ---------------------------------------------------------------------------------------------------------------------
# Types: Trino compares nothing across type families, DuckDB casts silently.

_FAMILIES = {
    **dict.fromkeys(exp.DataType.TEXT_TYPES, "text"),
    **dict.fromkeys(exp.DataType.NUMERIC_TYPES, "number"),
    **dict.fromkeys(exp.DataType.TEMPORAL_TYPES, "time"),
    exp.DType.BOOLEAN: "boolean",
}
_OPERATORS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
}


def check_types(tree: exp.Expr, sql: str) -> None:
    """Refuse comparisons and arithmetic that Trino refuses, such as ``varchar = integer``.

    Only columns, literals and casts are judged: their types are certain.

    Raises:
        QueryFailedError: TYPE_MISMATCH.
    """
    for node in tree.find_all(*_OPERATORS, exp.In, exp.Between):
        if isinstance(node, exp.In):
            for item in node.expressions:
                if _mismatch(node.this, item):
                    raise QueryFailedError(
                        "TYPE_MISMATCH",
                        f"{_place(node, sql)}: IN value and list items must be of the same type or coercible to a "
                        f"common type. Found (value type: {_trino_type(node.this)}, list type: {_trino_type(item)})",
                    )
        elif isinstance(node, exp.Between):
            low, high = node.args["low"], node.args["high"]
            if _mismatch(node.this, low) or _mismatch(node.this, high):
                raise QueryFailedError(
                    "TYPE_MISMATCH",
                    f"{_place(node, sql)}: Cannot check if {_trino_type(node.this)} is BETWEEN {_trino_type(low)} and "
                    f"{_trino_type(high)}",
                )
        elif isinstance(node, exp.Binary) and (
            _mismatch(node.left, node.right)
            or (isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div) and _family(node.left) == "text")
        ):
            raise QueryFailedError(
                "TYPE_MISMATCH",
                f"{_operator_place(node, sql)}: Cannot apply operator: {_trino_type(node.left)} "
                f"{_OPERATORS[type(node)]} {_trino_type(node.right)}",
            )


def _place(node: exp.Expr, sql: str) -> str:
    return position(sql, _start(node))


def _operator_place(node: exp.Binary, sql: str) -> str:
    """Return where the operator stands: Trino names that place, not where the left side begins."""
    symbol = _OPERATORS[type(node)]
    ends = [int(part.meta["end"]) for part in node.left.find_all(exp.Identifier) if "end" in part.meta]
    offset = sql.find(symbol, max(ends) + 1) if ends else sql.rfind(symbol, 0, _start(node.right))
    return position(sql, offset) if offset >= 0 else _place(node, sql)


def _family(node: exp.Expr) -> str | None:
    node = node.unnest()
    if not isinstance(node, exp.Column | exp.Literal | exp.Cast | exp.Boolean | exp.Neg) or node.type is None:
        return None
    return _FAMILIES.get(node.type.this)


def _mismatch(left: exp.Expr, right: exp.Expr) -> bool:
    families = {_family(left), _family(right)}
    return None not in families and len(families) > 1


def _trino_type(node: exp.Expr) -> str:
    node = node.unnest()
    if isinstance(node, exp.Literal) and node.is_string:
        return f"varchar({len(node.name)})"
    if _is_fraction(node):
        return "double"
    if node.type is None:
        return "unknown"
    if node.type.this == exp.DType.INT:
        return "integer"
    return node.type.sql(DIALECT).lower()


# ---------------------------------------------------------------------------------------------------------------------
# Trino's semantics in DuckDB's words.

_JODA_FORMATS = {
    "yyyy": "%Y",
    "yy": "%y",
    "MM": "%m",
    "MMM": "%b",
    "MMMM": "%B",
    "dd": "%d",
    "HH": "%H",
    "hh": "%I",
    "mm": "%M",
    "ss": "%S",
    "SSS": "%g",
    "EEE": "%a",
    "EEEE": "%A",
    "a": "%p",
    "D": "%j",
    "Z": "%z",
}
_JODA_PATTERN = re.compile(r"'([^']*)'|(([A-Za-z])\3*)|([^A-Za-z']+)")


def joda_to_strftime(pattern: str) -> str:
    """Translate a pattern of ``format_datetime`` (Joda) to DuckDB's ``strftime``.

    Raises:
        QueryFailedError: NOT_SUPPORTED, a letter has no counterpart.
    """
    parts = []
    for match in _JODA_PATTERN.finditer(pattern):
        quoted_text, letters, _, other = match.groups()
        if letters is None:
            parts.append((quoted_text or other or "'").replace("%", "%%"))
        elif letters in _JODA_FORMATS:
            parts.append(_JODA_FORMATS[letters])
        else:
            raise QueryFailedError("NOT_SUPPORTED", f"Pattern {letters!r} is not offered by the embedded endpoint")
    return "".join(parts)


# Functions that DuckDB lacks, or has with another meaning.
MACROS = (
    "CREATE MACRO nan() AS CAST('nan' AS DOUBLE)",
    "CREATE MACRO infinity() AS CAST('inf' AS DOUBLE)",
    "CREATE MACRO is_finite(x) AS isfinite(x)",
    "CREATE MACRO is_infinite(x) AS isinf(x)",
    "CREATE MACRO is_nan(x) AS isnan(x)",
    "CREATE MACRO codepoint(x) AS unicode(x)",
    "CREATE MACRO map_agg(k, v) AS map(list(k), list(v))",
    "CREATE MACRO with_timezone(t, zone) AS timezone(zone, t)",
    "CREATE MACRO at_timezone(t, zone) AS timezone(zone, CAST(t AS TIMESTAMPTZ))",
    "CREATE MACRO trino_from_unixtime(x) AS to_timestamp(round(CAST(x AS DOUBLE) * 1000) / 1000)",
    "CREATE MACRO from_unixtime_nanos(x) AS to_timestamp(CAST(x AS DOUBLE) / 1000000000)",
    "CREATE MACRO to_iso8601(t) AS CASE WHEN typeof(t) = 'DATE' THEN CAST(t AS VARCHAR) "
    "WHEN typeof(t) = 'TIMESTAMP WITH TIME ZONE' THEN strftime(CAST(t AS TIMESTAMP), '%Y-%m-%dT%H:%M:%S.%gZ') "
    "ELSE strftime(CAST(t AS TIMESTAMP), '%Y-%m-%dT%H:%M:%S.%g') END",
    "CREATE MACRO width_bucket(x, low, high, n) AS CASE WHEN x < low THEN 0 WHEN x >= high THEN n + 1 "
    "ELSE CAST(floor((x - low) * n / (high - low)) AS BIGINT) + 1 END",
    # Java's text of a double from DuckDB's: the digits are the same, the notation is not.
    "CREATE MACRO trino_double_exponent(t) AS CASE WHEN contains(t, 'e') THEN CAST(split_part(t, 'e', 2) AS INTEGER) "
    "WHEN starts_with(t, '0.') THEN -(length(regexp_extract(t, '^0[.](0*)', 1)) + 1) "
    "ELSE length(split_part(t, '.', 1)) - 1 END",
    "CREATE MACRO trino_double_digits(t) AS trim(replace(split_part(t, 'e', 1), '.', ''), '0')",
    "CREATE MACRO trino_double_text(x) AS CASE WHEN isnan(x) THEN 'NaN' "
    "WHEN isinf(x) THEN CASE WHEN x > 0 THEN 'Infinity' ELSE '-Infinity' END "
    "WHEN x = 0 OR (abs(x) >= 0.001 AND abs(x) < 10000000) THEN CAST(x AS VARCHAR) "
    "ELSE (CASE WHEN x < 0 THEN '-' ELSE '' END) "
    "|| substr(trino_double_digits(CAST(abs(x) AS VARCHAR)), 1, 1) || '.' "
    "|| coalesce(nullif(substr(trino_double_digits(CAST(abs(x) AS VARCHAR)), 2), ''), '0') || 'E' "
    "|| CAST(trino_double_exponent(CAST(abs(x) AS VARCHAR)) AS VARCHAR) END",
)
_INTEGER_TYPES = exp.DataType.INTEGER_TYPES
_TIMESTAMP_FORMAT = "%Y-%m-%d %H:%M:%S.%f"
_SECONDS_LENGTH = len("2025-10-15 00:00:00")
_MILLISECOND_DIGITS, _MICROSECOND_DIGITS = 3, 6


def to_duckdb(tree: exp.Expr) -> exp.Expr:
    """Return the (annotated) tree with the constructs replaced whose meaning differs in DuckDB."""
    root = tree
    for node in reversed(list(tree.walk(bfs=False))):
        replacement = _duckdb_node(node)
        if replacement is node:
            continue
        if node is root:
            root = replacement
        else:
            node.replace(replacement)
    return root


def _is_fraction(node: exp.Expr) -> bool:
    return isinstance(node, exp.Literal) and not node.is_string and "." in node.name


def _duckdb_node(node: exp.Expr) -> exp.Expr:  # noqa: PLR0911  one construct after the other
    if _is_fraction(node) and "e" not in node.name.lower():
        # 1.5 is a double in Athena, where Trino and DuckDB have a decimal:
        # https://github.com/aoyagikouhei/athena-local/blob/main/docs/caveats.md#sql-dialect
        return exp.Literal.number(f"{node.name}e0")
    if isinstance(node, exp.Div) and _is_integer(node.left) and _is_integer(node.right):
        return exp.IntDiv(this=node.this, expression=node.expression)
    if isinstance(node, exp.UnixToTime):
        return exp.func("trino_from_unixtime", node.this)
    if isinstance(node, exp.ApproxQuantile):
        # The translation would cast the result to a double, whatever the argument's type is.
        return exp.Anonymous(this="approx_quantile", expressions=[node.this, node.args["quantile"]])
    if isinstance(node, exp.AtTimeZone):
        return exp.func("at_timezone", node.this, node.args["zone"])
    if isinstance(node, exp.Cast) and node.is_type(*exp.DataType.TEXT_TYPES):
        return _cast_to_text(node)
    if isinstance(node, exp.Add | exp.Sub | exp.DateAdd) and node.is_type("date"):
        # DuckDB makes a timestamp of date + interval.
        return exp.Cast(this=node.copy(), to=exp.DataType.build("date"))
    if isinstance(node, exp.Anonymous) and node.name.lower() == "format_datetime":
        moment, pattern = node.expressions
        return exp.func("strftime", moment, exp.Literal.string(joda_to_strftime(pattern.name)), dialect="duckdb")
    if isinstance(node, exp.Anonymous) and node.name.lower() == "parse_datetime":
        text, pattern = node.expressions
        return exp.cast(
            exp.Anonymous(this="strptime", expressions=[text, exp.Literal.string(joda_to_strftime(pattern.name))]),
            "timestamptz",
        )
    if isinstance(node, exp.Format):
        return exp.Anonymous(this="printf", expressions=[node.this, *node.expressions])
    return node


def _is_integer(node: exp.Expr) -> bool:
    return node.type is not None and node.type.this in _INTEGER_TYPES


def _cast_to_text(node: exp.Cast) -> exp.Expr:
    inner = node.this
    if inner.type is None:
        return node
    if inner.type.this == exp.DType.DOUBLE:
        return exp.func("trino_double_text", inner)
    if inner.type.this in (exp.DType.TIMESTAMP, exp.DType.TIMESTAMPNTZ):
        digits = _fraction_digits(inner)
        text = exp.Anonymous(this="strftime", expressions=[inner, exp.Literal.string(_TIMESTAMP_FORMAT)])
        length = _SECONDS_LENGTH + (digits + 1 if digits else 0)
        return exp.Anonymous(this="left", expressions=[text, exp.Literal.number(length)])
    return node


def _fraction_digits(moment: exp.Expr) -> int:
    """Return how many digits of a second a timestamp has: a literal those that are written, a type those it names.

    https://trino.io/docs/current/language/types.html#timestamp-p
    """
    if isinstance(moment, exp.Cast) and isinstance(moment.this, exp.Literal) and not moment.to.expressions:
        return min(len(moment.this.name.partition(".")[2]), _MICROSECOND_DIGITS)
    sizes = [str(size) for size in moment.type.expressions] if moment.type is not None else []
    return int(sizes[0]) if sizes and sizes[0].isdigit() else _MILLISECOND_DIGITS


def duckdb_sql(tree: exp.Expr) -> str:
    """Return the text of a tree for DuckDB.

    Raises:
        QueryFailedError: NOT_SUPPORTED, a part of it would be lost in translation.
    """
    try:
        return tree.sql("duckdb", unsupported_level=ErrorLevel.RAISE)
    except UnsupportedError as error:
        raise QueryFailedError("NOT_SUPPORTED", f"{error} (embedded endpoint)") from error
