"""Values as text, as Athena writes them into results: Java's doubles, milliseconds, Trino's arrays, maps and rows.

https://docs.aws.amazon.com/athena/latest/ug/querying-finding-output-files.html describes the file; the notation of
nested values and of binary ones is an observation of Athena engine version 3.
"""

import datetime
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_PLAIN_MINIMUM, _PLAIN_LIMIT = 1e-3, 1e7
_MICROSECONDS_PER_DAY = 86_400_000_000
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
_VARCHAR_LENGTH = 2_147_483_647
_VARBINARY_LENGTH = 1_073_741_824


def double_text(value: float) -> str:
    """Return a double as Java's ``Double.toString`` does: 1.0, 1.760486400123E9, 1.0E-5, NaN, Infinity."""
    return _java_text(value, repr)


def float_text(value: float) -> str:
    """Return a 4-byte float in Java's notation with the fewest digits that give the same float back."""
    return _java_text(value, _shortest_float)


def _shortest_float(value: float) -> str:
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if struct.unpack("f", struct.pack("f", float(text)))[0] == value:
            return repr(float(text))
    return repr(value)


def _java_text(value: float, shortest: Callable[[float], str]) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0.0"
    _, digit_tuple, exponent = Decimal(shortest(abs(value))).normalize().as_tuple()
    digits = "".join(map(str, digit_tuple))
    scientific_exponent = len(digits) - 1 + int(exponent)
    sign = "-" if value < 0 else ""
    if _PLAIN_MINIMUM <= abs(value) < _PLAIN_LIMIT:
        if scientific_exponent < 0:
            return f"{sign}0.{'0' * (-scientific_exponent - 1)}{digits}"
        whole = digits[: scientific_exponent + 1].ljust(scientific_exponent + 1, "0")
        return f"{sign}{whole}.{digits[scientific_exponent + 1 :] or '0'}"
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{scientific_exponent}"


def timestamp_text(microseconds: int) -> str:
    """Return a timestamp (microseconds since 1970) with the three decimals of Athena's ``timestamp(3)``."""
    days, in_day = divmod(microseconds, _MICROSECONDS_PER_DAY)
    day = datetime.date.fromordinal(_EPOCH_DAY + days)
    seconds, fraction = divmod(in_day, 1_000_000)
    return f"{day.isoformat()} {seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction // 1000:03d}"


@dataclass(frozen=True)
class ColumnType:
    """A column of a result.

    Attributes:
        athena: the type in ResultSetMetadata, for example ``bigint``.
        duckdb: the type in DuckDB, for example ``HUGEINT``.
    """

    athena: str
    duckdb: str
    precision: int = 0
    scale: int = 0

    def column_info(self, name: str) -> dict[str, object]:
        """Return the ColumnInfo structure.

        https://docs.aws.amazon.com/athena/latest/APIReference/API_ColumnInfo.html
        """
        return {
            "CatalogName": "hive",
            "SchemaName": "",
            "TableName": "",
            "Name": name,
            "Label": name,
            "Type": self.athena,
            "Precision": self.precision,
            "Scale": self.scale,
            "Nullable": "UNKNOWN",
            "CaseSensitive": self.athena in ("varchar", "char"),
        }


_ATHENA_TYPES = {
    "BOOLEAN": ("boolean", 0),
    "TINYINT": ("tinyint", 3),
    "UTINYINT": ("smallint", 5),
    "SMALLINT": ("smallint", 5),
    "USMALLINT": ("integer", 10),
    "INTEGER": ("integer", 10),
    "UINTEGER": ("bigint", 19),
    "BIGINT": ("bigint", 19),
    # DuckDB's sums and counts of conditions are wider than Trino's bigint.
    "UBIGINT": ("bigint", 19),
    "HUGEINT": ("bigint", 19),
    "UHUGEINT": ("bigint", 19),
    "FLOAT": ("float", 17),
    "DOUBLE": ("double", 17),
    "VARCHAR": ("varchar", _VARCHAR_LENGTH),
    "DATE": ("date", 0),
    "TIME": ("time", 3),
    "TIMESTAMP": ("timestamp", 3),
    "TIMESTAMP_S": ("timestamp", 3),
    "TIMESTAMP_MS": ("timestamp", 3),
    "TIMESTAMP_NS": ("timestamp", 3),
    "TIMESTAMP WITH TIME ZONE": ("timestamp with time zone", 3),
    "BLOB": ("varbinary", _VARBINARY_LENGTH),
    "JSON": ("json", 0),
    "INTERVAL": ("interval day to second", 0),
    '"NULL"': ("unknown", 0),
}


def column_type(duckdb_type: str) -> ColumnType:
    """Return what Athena calls a type of DuckDB."""
    decimal = re.fullmatch(r"DECIMAL\((\d+),\s*(\d+)\)", duckdb_type)
    if decimal:
        return ColumnType("decimal", duckdb_type, int(decimal[1]), int(decimal[2]))
    if duckdb_type.endswith("]"):
        return ColumnType("array", duckdb_type)
    if duckdb_type.startswith("STRUCT"):
        return ColumnType("row", duckdb_type)
    if duckdb_type.startswith("MAP"):
        return ColumnType("map", duckdb_type)
    if duckdb_type.startswith("TIMESTAMP") and duckdb_type.endswith("TIME ZONE"):
        duckdb_type = "TIMESTAMP WITH TIME ZONE"
    athena, precision = _ATHENA_TYPES.get(duckdb_type, ("varchar", _VARCHAR_LENGTH))
    return ColumnType(athena, duckdb_type, precision)


def formatter(duckdb_type: str) -> Callable[[Any], str]:  # noqa: PLR0911  one line a type
    """Return the function that writes a (non-null) Python value of an Arrow column of that type.

    Timestamps are expected as microseconds since 1970 at the top level, as ``datetime`` inside of nested values.
    """
    if duckdb_type == "DOUBLE":
        return double_text
    if duckdb_type == "FLOAT":
        return float_text
    if duckdb_type == "TIMESTAMP_S":
        return lambda value: timestamp_text(value).removesuffix(".000")
    if duckdb_type.startswith("TIMESTAMP") and duckdb_type.endswith("TIME ZONE"):
        return lambda value: f"{timestamp_text(value)} UTC"
    if duckdb_type.startswith("TIMESTAMP"):
        return timestamp_text
    if duckdb_type in ("VARCHAR", "JSON"):
        return str
    if duckdb_type.startswith("DECIMAL"):
        return lambda value: format(value, "f")
    if duckdb_type.startswith("STRUCT"):
        return _row_text
    if duckdb_type.startswith("MAP"):
        return _map_text
    return value_text


def value_text(value: Any) -> str:  # noqa: PLR0911  one line a type
    """Return a value in Athena's notation; ``null`` inside of arrays, maps and rows."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return double_text(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        zone = " UTC" if value.tzinfo is not None else ""
        since_epoch = value.replace(tzinfo=None) - datetime.datetime(1970, 1, 1)
        return timestamp_text(since_epoch // datetime.timedelta(microseconds=1)) + zone
    if isinstance(value, datetime.time):
        return value.isoformat("milliseconds")
    if isinstance(value, bytes):
        return value.hex(" ")
    if isinstance(value, dict):
        return _row_text(value)
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) for item in value):
            return _map_text(value)
        return "[" + ", ".join(map(value_text, value)) + "]"
    if hasattr(value, "nanoseconds"):
        return _interval_text(value)
    return str(value)


def _row_text(value: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{name}={value_text(item)}" for name, item in value.items()) + "}"


def _map_text(value: list[tuple[Any, Any]]) -> str:
    return "{" + ", ".join(f"{value_text(key)}={value_text(item)}" for key, item in value) + "}"


def _interval_text(value: Any) -> str:
    milliseconds = (value.days + 30 * value.months) * 86_400_000 + value.nanoseconds // 1_000_000
    sign = "-" if milliseconds < 0 else ""
    days, rest = divmod(abs(milliseconds), 86_400_000)
    seconds, fraction = divmod(rest, 1000)
    return f"{sign}{days} {seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction:03d}"
