"""Column types: Hive's names in the Glue catalog, and what they are called by DuckDB, Trino and Athena.

https://docs.aws.amazon.com/athena/latest/ug/data-types.html
"""

import re
from dataclasses import dataclass

from duckdb.sqltypes import DuckDBPyType

_DUCKDB_NAMES = {
    "boolean": "BOOLEAN",
    "tinyint": "TINYINT",
    "smallint": "SMALLINT",
    "int": "INTEGER",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "decimal": "DECIMAL",
    "string": "VARCHAR",
    "varchar": "VARCHAR",
    "char": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "binary": "BLOB",
}
_TRINO_NAMES = {
    **{name: name for name in ("boolean", "tinyint", "smallint", "bigint", "double", "date", "varchar", "char")},
    "int": "integer",
    "integer": "integer",
    "float": "real",
    "string": "varchar",
    "binary": "varbinary",
    "timestamp": "timestamp(3)",
}
# The column types of a query's result; DuckDB's sums and counts are wider than Trino's bigint.
_OF_DUCKDB = {
    **{name: name for name in ("boolean", "tinyint", "smallint", "bigint", "float", "double", "date", "timestamp")},
    "integer": "int",
    "utinyint": "smallint",
    "usmallint": "int",
    **dict.fromkeys(("uinteger", "ubigint", "hugeint", "uhugeint"), "bigint"),
    **dict.fromkeys(("timestamp_s", "timestamp_ms", "timestamp_ns"), "timestamp"),
    "varchar": "string",
    "blob": "binary",
}
_TOKEN = re.compile(r"\s*([A-Za-z_][\w$-]*|\d+|[<>(),:]|`[^`]*`)")


class UnknownTypeError(ValueError):
    """A type of the catalog that is not a Hive type."""


@dataclass(frozen=True)
class HiveType:
    """A Hive type such as ``decimal(10,2)`` or ``struct<a:int,b:array<string>>``.

    Attributes:
        name: lower case, for example ``struct``.
        numbers: length, or precision and scale.
        children: field name (empty in arrays and maps) and type.
    """

    name: str
    numbers: tuple[int, ...] = ()
    children: tuple[tuple[str, "HiveType"], ...] = ()

    @property
    def is_nested(self) -> bool:
        """Whether values of the type have parts."""
        return bool(self.children)

    def duckdb(self) -> str:
        """Return DuckDB's name of the type."""
        if self.name == "array":
            return f"{self.children[0][1].duckdb()}[]"
        if self.name == "map":
            return f"MAP({self.children[0][1].duckdb()}, {self.children[1][1].duckdb()})"
        if self.name == "struct":
            return "STRUCT(" + ", ".join(f"{quoted(name)} {child.duckdb()}" for name, child in self.children) + ")"
        if self.name == "decimal":
            return f"DECIMAL({', '.join(map(str, self.numbers or (10, 0)))})"
        return _DUCKDB_NAMES[self.name]

    def trino(self) -> str:
        """Return Trino's name of the type."""
        if self.name in ("array", "map"):
            return f"{self.name}({', '.join(child.trino() for _, child in self.children)})"
        if self.name == "struct":
            return "row(" + ", ".join(f"{quoted(name)} {child.trino()}" for name, child in self.children) + ")"
        if self.name == "decimal":
            return f"decimal({','.join(map(str, self.numbers or (10, 0)))})"
        arguments = f"({self.numbers[0]})" if self.numbers else ""
        return _TRINO_NAMES[self.name] + arguments

    def hive(self) -> str:
        """Return the type as the Glue catalog has it."""
        if self.name == "struct":
            return "struct<" + ",".join(f"{name}:{child.hive()}" for name, child in self.children) + ">"
        if self.children:
            return f"{self.name}<{','.join(child.hive() for _, child in self.children)}>"
        return self.name + (f"({','.join(map(str, self.numbers))})" if self.numbers else "")

    def json_structure(self) -> object:
        """Return the structure that DuckDB's ``json_transform`` takes for the type."""
        if self.name == "array":
            return [self.children[0][1].json_structure()]
        if self.name == "struct":
            return {name: child.json_structure() for name, child in self.children}
        return self.duckdb()


def parse_hive_type(text: str) -> HiveType:
    """Parse a type of the Glue catalog.

    Raises:
        UnknownTypeError: it is not a Hive type.
    """
    tokens: list[str] = []
    offset = 0
    while offset < len(text.rstrip()):
        match = _TOKEN.match(text, offset)
        if match is None:
            raise UnknownTypeError(text)
        tokens.append(match.group(1).strip("`"))
        offset = match.end()
    try:
        parsed, end = _parse(tokens, 0)
    except (IndexError, ValueError) as error:
        raise UnknownTypeError(text) from error
    if end != len(tokens):
        raise UnknownTypeError(text)
    return parsed


def hive_type_of(kind: DuckDBPyType) -> HiveType:
    """Return the type that a column of a query's result has in a table.

    Raises:
        UnknownTypeError: no table can hold it, for example a time with its zone.
    """
    if kind.id == "decimal":
        return HiveType("decimal", tuple(int(str(number)) for _, number in kind.children))
    if kind.id in ("list", "map", "struct"):
        keeps_names = kind.id == "struct"
        children = tuple(
            (name if keeps_names else "", hive_type_of(child))
            for name, child in kind.children
            if isinstance(child, DuckDBPyType)
        )
        return HiveType("array" if kind.id == "list" else kind.id, (), children)
    if kind.id not in _OF_DUCKDB:
        raise UnknownTypeError(str(kind).lower())
    return HiveType(_OF_DUCKDB[kind.id])


def _expect(tokens: list[str], index: int, token: str) -> int:
    if tokens[index] != token:
        raise ValueError(token)
    return index + 1


def _parse(tokens: list[str], index: int) -> tuple[HiveType, int]:
    name = tokens[index].lower()
    index += 1
    if name in ("array", "map", "struct"):
        index = _expect(tokens, index, "<")
        children: list[tuple[str, HiveType]] = []
        while True:
            field = ""
            if name == "struct":
                field = tokens[index].lower()
                index = _expect(tokens, index + 1, ":")
            child, index = _parse(tokens, index)
            children.append((field, child))
            if tokens[index] == ">":
                break
            index = _expect(tokens, index, ",")
        expected = {"array": 1, "map": 2}.get(name, len(children))
        if len(children) != expected:
            raise ValueError(name)
        return HiveType(name, (), tuple(children)), index + 1
    if name not in _DUCKDB_NAMES:
        raise ValueError(name)
    numbers: list[int] = []
    if index < len(tokens) and tokens[index] == "(":
        while tokens[index] != ")":
            numbers.append(int(tokens[index + 1]))
            index += 2
        index += 1
    return HiveType(name, tuple(numbers)), index


def quoted(name: str) -> str:
    """Return the name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return the text as a quoted SQL string."""
    return "'" + text.replace("'", "''") + "'"
