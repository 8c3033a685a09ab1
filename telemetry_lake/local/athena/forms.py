"""What kind of statement a text is, and the parts of those that write, prepare or explain.

https://docs.aws.amazon.com/athena/latest/ug/ddl-sql-reference.html
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import ParseError, TokenError

from telemetry_lake.local.athena.errors import InvalidRequestError

DIALECT = "athena"
_COMMENTS_AND_BLANKS = r"(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)"
_LEADING = re.compile(rf"\A{_COMMENTS_AND_BLANKS}+", re.DOTALL)
_CREATE_TABLE = re.compile(rf"create{_COMMENTS_AND_BLANKS}+table\b", re.IGNORECASE | re.DOTALL)
_NAME = r'(?:"(?P<quoted>[^"]+)"|(?P<plain>\w+))'
_PREPARE = re.compile(rf"prepare\s+{_NAME}\s+from\s+(?P<sql>.+)", re.IGNORECASE | re.DOTALL)
_EXECUTE = re.compile(rf"execute\s+{_NAME}(?:\s+using\s+(?P<values>.+))?", re.IGNORECASE | re.DOTALL)
_DEALLOCATE = re.compile(rf"deallocate\s+prepare\s+{_NAME}", re.IGNORECASE)
_EXPLAIN = re.compile(
    r"explain\s+(?P<analyze>analyze\s+(?:verbose\s+)?)?(?P<options>\(\s*(?:format|type)\b[^)]*\)\s*)?(?P<sql>.+)",
    re.IGNORECASE | re.DOTALL,
)
_EXPLAIN_OPTION = re.compile(r"(format|type)\s+(\w+)", re.IGNORECASE)

Value = str | bool | int | tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """How the API names a statement, and where its result goes.

    The names and the endings are as published from measurements of Athena:
    https://github.com/aoyagikouhei/athena-local/blob/main/docs/result-files.md and docs/api.md beside it.

    Attributes:
        statement: StatementType, that is DML, DDL or UTILITY.
        substatement: SubstatementType, None where nobody has published one.
        folder: what is between the result location and the query's id.
        ending: of the result file; the empty one belongs to statements that write no rows there.
        is_about_prepared: whether it makes, runs or drops a prepared statement.
    """

    statement: str
    substatement: str | None = None
    folder: str = ""
    ending: str = ".txt"
    is_about_prepared: bool = False


QUERY = Kind("DML", "SELECT", ending=".csv")
INSERT = Kind("DML", "INSERT", ending="")
UNLOAD = Kind("DML", "UNLOAD", ending="")
EXPLAIN = Kind("DML", "EXPLAIN")
CREATE_TABLE_AS = Kind("DDL", "CREATE_TABLE_AS_SELECT", folder="tables/", ending="")
PREPARED = Kind("UTILITY", is_about_prepared=True)
_QUERY_WORDS = frozenset({"select", "with", "values", "table", "("})
_BY_FIRST_WORD: Mapping[str, Kind] = {
    **dict.fromkeys(_QUERY_WORDS, QUERY),
    "insert": INSERT,
    "unload": UNLOAD,
    "explain": EXPLAIN,
    **dict.fromkeys(("prepare", "execute", "deallocate"), PREPARED),
    **dict.fromkeys(("update", "delete", "merge"), Kind("DML", ending=".csv")),
    **dict.fromkeys(("create", "drop", "alter"), Kind("DDL")),
    "msck": Kind("DDL", "MSCK_REPAIR"),
    **dict.fromkeys(("describe", "desc"), Kind("UTILITY", "DESCRIBE_TABLE")),
    "show": Kind("UTILITY"),
}
_BY_TWO_WORDS: Mapping[str, Kind] = {
    "create database": Kind("DDL", "CREATE_DATABASE"),
    "create schema": Kind("DDL", "CREATE_DATABASE"),
    "drop database": Kind("DDL", "DROP_DATABASE"),
    "drop schema": Kind("DDL", "DROP_DATABASE"),
    "show tables": Kind("UTILITY", "SHOW_TABLES"),
    "show columns": Kind("UTILITY", "SHOW_COLUMNS"),
    "show databases": Kind("UTILITY", "SHOW_DATABASES"),
    "show schemas": Kind("UTILITY", "SHOW_DATABASES"),
}


def without_leading_comments(sql: str) -> str:
    """Return a statement from its first word on."""
    return _LEADING.sub("", sql)


def first_word(sql: str) -> str:
    """Return the first word of a statement, lower case; ``(`` for a query in parentheses."""
    match = re.match(r"[A-Za-z_]+|\(", without_leading_comments(sql))
    return match[0].lower() if match else ""


def kind_of(sql: str) -> Kind | None:
    """Return the kind of a statement, None when it is none of Athena's.

    https://docs.aws.amazon.com/athena/latest/APIReference/API_QueryExecution.html
    """
    words = re.findall(r"[a-z_]+|\(", re.sub(_COMMENTS_AND_BLANKS, " ", without_leading_comments(sql).lower()[:400]))
    if words[:2] == ["create", "table"] and create_table_as(sql) is not None:
        return CREATE_TABLE_AS
    return _BY_TWO_WORDS.get(" ".join(words[:2])) or _BY_FIRST_WORD.get(first_word(sql))


def is_query(sql: str) -> bool:
    """Tell whether a statement is a query that returns rows."""
    return first_word(sql) in _QUERY_WORDS


# ---------------------------------------------------------------------------------------------------------------------
# Statements that write


@dataclass(frozen=True)
class CreateTableAs:
    """``CREATE TABLE name WITH (properties) AS query``; names may be empty, as written."""

    catalog: str
    database: str
    name: str
    if_not_exists: bool
    properties: Mapping[str, Value]
    query: exp.Expr
    with_data: bool


@dataclass(frozen=True)
class InsertInto:
    """``INSERT INTO name (columns) query``; no columns are all of them."""

    catalog: str
    database: str
    name: str
    columns: tuple[str, ...]
    query: exp.Expr
    offset: int


@dataclass(frozen=True)
class Unload:
    """``UNLOAD (query) TO location WITH (properties)``."""

    query_sql: str
    location: str
    properties: Mapping[str, Value]


def parsed(sql: str) -> exp.Expr:
    """Parse one statement of Trino's grammar.

    Raises:
        InvalidRequestError: it is none, or there are several; Athena refuses that when it is started.
    """
    try:
        statements = sqlglot.parse(sql, read=DIALECT)
    except (ParseError, TokenError) as error:
        raise syntax_error(sql, error) from error
    if len(statements) != 1 or statements[0] is None:
        raise InvalidRequestError("Only one sql statement is allowed.", "MALFORMED_QUERY")
    return statements[0]


def syntax_error(sql: str, error: Exception) -> InvalidRequestError:
    """Return Athena's refusal for what the parser says."""
    details = error.errors[0] if isinstance(error, ParseError) and error.errors else {}
    text = str(details.get("highlight") or "<EOF>")
    offset = len(str(details.get("start_context") or "")) if details else len(sql)
    line = details.get("line") or 1
    column = max(1, int(details.get("col") or offset + 1) - len(text) + 1)
    return InvalidRequestError(f"line {line}:{column}: mismatched input '{text}'", "MALFORMED_QUERY")


def create_table_as(sql: str) -> CreateTableAs | None:
    """Return the parts of a CTAS statement, None when it is another one.

    https://docs.aws.amazon.com/athena/latest/ug/create-table-as.html

    Raises:
        InvalidRequestError: it is one, and cannot be parsed.
    """
    text = without_leading_comments(sql)
    if not _CREATE_TABLE.match(text) or not re.search(r"\bas\b", text, re.IGNORECASE):
        return None
    try:
        tree = parsed(text)
    except InvalidRequestError:
        # Hive's CREATE TABLE is not of this grammar.
        if re.search(r"\bas\s*\(?\s*(select|with|values|table)\b", text, re.IGNORECASE):
            raise
        return None
    if not isinstance(tree, exp.Create) or tree.expression is None or not isinstance(tree.this, exp.Table):
        return None
    properties = dict(map(_property, (tree.args.get("properties") or exp.Properties()).expressions))
    return CreateTableAs(
        tree.this.catalog,
        tree.this.db,
        tree.this.name,
        bool(tree.args.get("exists")),
        {name: value for name, value in properties.items() if name != _WITH_DATA},
        tree.expression,
        properties.get(_WITH_DATA, True) is True,
    )


_WITH_DATA = "with data"


def _property(node: exp.Expr) -> tuple[str, Value]:
    if isinstance(node, exp.FileFormatProperty):
        return "format", node.name
    if isinstance(node, exp.PartitionedByProperty):
        return "partitioned_by", _value(node.this)
    if isinstance(node, exp.WithDataProperty):
        return _WITH_DATA, not node.args.get("no")
    if isinstance(node, exp.LocationProperty):
        return "location", node.name
    return node.name.lower(), _value(node.args["value"])


def _value(node: exp.Expr) -> Value:
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    if isinstance(node, exp.Literal) and not node.is_string:
        return int(node.name)
    if isinstance(node, exp.Array | exp.Tuple | exp.Schema):
        return tuple(item.name for item in node.expressions)
    return node.name


def insert_into(sql: str) -> InsertInto:
    """Return the parts of an INSERT statement.

    https://docs.aws.amazon.com/athena/latest/ug/insert-into.html

    Raises:
        InvalidRequestError: it cannot be parsed.
    """
    tree = parsed(sql)
    if not isinstance(tree, exp.Insert) or tree.expression is None or tree.args.get("overwrite"):
        raise InvalidRequestError("Queries of this type are not supported", "MALFORMED_QUERY")
    target = tree.this
    columns = tuple(item.name.lower() for item in target.expressions) if isinstance(target, exp.Schema) else ()
    table = target.this if isinstance(target, exp.Schema) else target
    match = re.search(r"\binto\s+", sql, re.IGNORECASE)
    return InsertInto(table.catalog, table.db, table.name, columns, tree.expression, match.end() if match else 0)


def unload(sql: str) -> Unload:
    """Return the parts of an UNLOAD statement.

    https://docs.aws.amazon.com/athena/latest/ug/unload.html

    Raises:
        InvalidRequestError: it cannot be parsed.
    """
    try:
        tokens = sqlglot.tokenize(sql, read="trino")
    except TokenError as error:
        raise syntax_error(sql, error) from error
    closing = _closing_parenthesis(tokens, 1)
    rest = tokens[closing + 1 :] if closing is not None else []
    expected: Sequence[Callable[[Token], bool]] = (
        lambda token: token.text.lower() == "to",
        lambda token: token.token_type is TokenType.STRING,
        lambda token: token.token_type is TokenType.WITH,
    )
    if closing is None or len(rest) < len(expected):
        raise InvalidRequestError("line 1:1: mismatched input 'UNLOAD'", "MALFORMED_QUERY")
    for matches, token in zip(expected, rest, strict=False):
        if not matches(token):
            raise InvalidRequestError(
                f"line {token.line}:{token.col - len(token.text) + 1}: mismatched input '{token.text}'",
                "MALFORMED_QUERY",
            )
    # The properties have the grammar of a CTAS.
    table = create_table_as(f"CREATE TABLE t {sql[rest[2].start :]} AS SELECT 1")
    if table is None:
        raise InvalidRequestError("line 1:1: mismatched input 'UNLOAD'", "MALFORMED_QUERY")
    query_sql = sql[tokens[1].end + 1 : tokens[closing].start].strip()
    parsed(query_sql)
    return Unload(query_sql, rest[1].text, table.properties)


def _closing_parenthesis(tokens: Sequence[Token], opening: int) -> int | None:
    depth = 0
    for index, token in enumerate(tokens[opening:], opening):
        depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
        if depth == 0:
            return index if index > opening else None
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Statements about statements


@dataclass(frozen=True)
class Explain:
    """``EXPLAIN``: the statement that is explained, and how."""

    sql: str
    analyze: bool
    format: str
    type: str


@dataclass(frozen=True)
class Prepare:
    """``PREPARE name FROM statement``."""

    name: str
    sql: str


@dataclass(frozen=True)
class Execute:
    """``EXECUTE name USING values``; each value is the text of an expression."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Deallocate:
    """``DEALLOCATE PREPARE name``."""

    name: str


def explain(sql: str) -> Explain:
    """Return the parts of an EXPLAIN statement.

    https://docs.aws.amazon.com/athena/latest/ug/athena-explain-statement.html
    """
    match = _EXPLAIN.fullmatch(without_leading_comments(sql))
    if match is None:
        raise InvalidRequestError("line 1:8: mismatched input '<EOF>'", "MALFORMED_QUERY")
    options = {name.lower(): value.upper() for name, value in _EXPLAIN_OPTION.findall(match["options"] or "")}
    return Explain(
        match["sql"], bool(match["analyze"]), options.get("format", "TEXT"), options.get("type", "DISTRIBUTED")
    )


def about_prepared(sql: str) -> Prepare | Execute | Deallocate:
    """Return the parts of a statement about a prepared one.

    https://docs.aws.amazon.com/athena/latest/ug/querying-with-prepared-statements-querying.html

    Raises:
        InvalidRequestError: it cannot be parsed.
    """
    text = without_leading_comments(sql)
    for pattern, make in (
        (_PREPARE, lambda name, match: Prepare(name, match["sql"].strip())),
        (_EXECUTE, lambda name, match: Execute(name, _values(match["values"]))),
        (_DEALLOCATE, lambda name, _match: Deallocate(name)),
    ):
        match = pattern.fullmatch(text)
        if match:
            form: Prepare | Execute | Deallocate = make(match["quoted"] or match["plain"], match)
            return form
    raise InvalidRequestError(f"line 1:1: mismatched input '{first_word(sql)}'", "MALFORMED_QUERY")


def _values(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    tree = parsed(f"SELECT {text}")
    return tuple(item.sql(DIALECT) for item in tree.expressions)
