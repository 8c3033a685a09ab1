"""Result files, and pages of them.

https://docs.aws.amazon.com/athena/latest/ug/querying-finding-output-files.html
https://docs.aws.amazon.com/athena/latest/APIReference/API_GetQueryResults.html
"""

import mmap
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from telemetry_lake.local.athena.values import ColumnType, column_type, formatter

_BATCH_ROWS = 10_000
_FIELD = re.compile(rb'(?:"((?:[^"]|"")*)"|)([,\n])')
_NULLABLE_UNKNOWN = 3
_WITHOUT_CASE = frozenset({"array", "map", "row", "json", "string", "unknown"})
_WITHOUT_PRECISION = _WITHOUT_CASE | {"boolean", "interval day to second", "interval year to month"}
_WITH_SCALE_ALONE = frozenset({"date"})


@dataclass(frozen=True)
class ResultColumn:
    """A column of a result: its name and type."""

    name: str
    type: ColumnType


# What statements that write answer instead of rows
# (https://github.com/pyathena-dev/PyAthena/blob/master/tests/pyathena/test_cursor.py).
UPDATED_ROWS = [ResultColumn("rows", ColumnType("bigint", "BIGINT", 19))]


def write_csv(relation: duckdb.DuckDBPyRelation, names: Sequence[str], file: BinaryIO) -> list[ResultColumn]:
    """Write the rows of a relation as Athena's CSV: every value quoted, NULL an empty field, a header line."""
    types = [column_type(str(kind)) for kind in relation.types]
    columns = [ResultColumn(name, kind) for name, kind in zip(names, types, strict=True)]
    file.write((",".join(_quoted(column.name) for column in columns) + "\n").encode())
    formatters = [formatter(column.type.duckdb) for column in columns]
    for batch in relation.to_arrow_reader(_BATCH_ROWS):
        texts = [_texts(batch.column(index), column.type, formatters[index]) for index, column in enumerate(columns)]
        file.write("".join(",".join(row) + "\n" for row in zip(*texts, strict=True)).encode())
    return columns


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _texts(column: pa.Array, kind: ColumnType, text: Callable[[Any], str]) -> list[str]:
    if kind.duckdb.startswith("TIMESTAMP"):
        zone = column.type.tz
        column = column.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    return ["" if value is None else _quoted(text(value)) for value in column.to_pylist()]


@dataclass(frozen=True)
class Page:
    """Rows of a result file, NULL as None, and the offset in bytes where the next page starts."""

    rows: list[list[str | None]]
    next_offset: int | None


def read_csv_page(path: Path, offset: int, maximum_rows: int) -> Page:
    """Read a page of a CSV result; the header line is its first row, as it is in GetQueryResults."""
    rows: list[list[str | None]] = []
    row: list[str | None] = []
    position = offset
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while len(rows) < maximum_rows and position < len(data):
            match = _FIELD.match(data, position)
            if match is None:
                raise ValueError(f"The result file is damaged at byte {position}")
            quoted_text, delimiter = match.groups()
            row.append(None if quoted_text is None else quoted_text.replace(b'""', b'"').decode())
            position = match.end()
            if delimiter == b"\n":
                rows.append(row)
                row = []
    # A full page always names a next one, even when nothing is left (as observed).
    return Page(rows, position if len(rows) == maximum_rows else None)


def read_text_page(path: Path, offset: int, maximum_rows: int) -> Page:
    """Read a page of a text result: one value a line; ``offset`` counts lines."""
    text = path.read_text()
    lines = text.split("\n") if text else []
    rows: list[list[str | None]] = [[line] for line in lines[offset : offset + maximum_rows]]
    return Page(rows, offset + maximum_rows if len(rows) == maximum_rows else None)


def metadata_file(
    query_execution_id: str,
    columns: Iterable[ResultColumn],
    update_type: str | None = None,
    update_count: int | None = None,
) -> bytes:
    """Return the ``.metadata`` companion: protobuf fields as drivers read them, one message per column.

    Which fields a type has was published from files of Athena:
    https://github.com/aoyagikouhei/athena-local/blob/main/docs/result-files.md#companion-metadata-files

    Args:
        query_execution_id: of the statement.
        columns: of the result.
        update_type: of a statement that writes, for example ``INSERT``.
        update_count: how many rows it has written.
    """
    parts = [_protobuf_bytes(1, query_execution_id.encode())]
    if update_type is not None and update_count is not None:
        parts += [_protobuf_bytes(2, update_type.encode()), _protobuf_number(3, update_count)]
    for column in columns:
        kind = column.type
        message = [
            _protobuf_bytes(1, b"hive"),
            _protobuf_bytes(4, column.name.encode()),
            _protobuf_bytes(5, column.name.encode()),
            _protobuf_bytes(6, kind.athena.encode()),
        ]
        if kind.athena not in _WITHOUT_PRECISION | _WITH_SCALE_ALONE:
            message.append(_protobuf_number(7, kind.precision))
        if kind.athena not in _WITHOUT_PRECISION:
            message.append(_protobuf_number(8, kind.scale))
        message.append(_protobuf_number(9, _NULLABLE_UNKNOWN))
        if kind.athena not in _WITHOUT_CASE:
            message.append(_protobuf_number(10, int(kind.athena in ("varchar", "char"))))
        parts.append(_protobuf_bytes(4, b"".join(message)))
    return b"".join(parts)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004  seven bits a byte
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _protobuf_bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _protobuf_number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)
