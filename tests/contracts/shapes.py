"""Does a document fit a shape of AWS's API models? Stricter than botocore on both ways.

botocore's own validator checks neither enumerations nor patterns, and its parser drops members that it does not know;
here both are findings, as are wrong types, lengths, ranges and missing required members.
"""

import base64
import binascii
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from botocore.model import Shape

from tests.contracts.patterns import compiled
from tests.template.jsonata import is_expression

_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)")
_HTTP_TIME = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")
_SHOWN = 120


@dataclass(frozen=True)
class Notation:
    """How a kind of document writes a shape.

    Attributes:
        name_of: the name of a structure's member.
        is_timestamp: tells whether a value is a time, written as the shape wants it.
        blob_length: the length of a blob, None for a stream of unknown length.
        is_opaque: tells whether a value is only known later, and so fits everything.
        null_is_absent: a member that is null counts as not there, as in AWS's SDKs.
        fills_tokens: idempotency tokens are filled in by the client.
    """

    name_of: Callable[[str, Shape], str]
    is_timestamp: Callable[[Any, Shape], bool]
    blob_length: Callable[[Any], int | None]
    is_opaque: Callable[[Any], bool] = lambda _value: False
    null_is_absent: bool = False
    fills_tokens: bool = False


def findings(value: Any, shape: Shape, notation: Notation, path: str = "") -> list[str]:
    """Return what does not fit, a line each."""
    return [] if notation.is_opaque(value) else list(_CHECKS[shape.type_name](value, shape, notation, path))


def _structure(value: Any, shape: Any, notation: Notation, path: str) -> Iterator[str]:
    if shape.is_document_type:
        return
    if shape.serialization.get("eventstream"):
        return
    if not isinstance(value, Mapping):
        yield _wrong(path, value, "an object")
        return
    members = {notation.name_of(name, member): (name, member) for name, member in shape.members.items()}
    given = {name: item for name, item in value.items() if not (item is None and notation.null_is_absent)}
    for name, item in given.items():
        if name in members:
            yield from findings(item, members[name][1], notation, f"{path}.{name}")
        else:
            yield f"{path}.{name}: {shape.name} has no such member"
    for name, (model_name, member) in members.items():
        is_filled = notation.fills_tokens and member.metadata.get("idempotencyToken", False)
        if model_name in shape.required_members and name not in given and not is_filled:
            yield f"{path}.{name}: required by {shape.name}, and missing"
    if shape.is_tagged_union and len(given) != 1:
        yield f"{path}: {shape.name} takes exactly one of {', '.join(sorted(members))}"


def _list(value: Any, shape: Any, notation: Notation, path: str) -> Iterator[str]:
    if not isinstance(value, list | tuple):
        yield _wrong(path, value, "a list")
        return
    yield from _size(len(value), shape, path, "items")
    for index, item in enumerate(value):
        yield from findings(item, shape.member, notation, f"{path}[{index}]")


def _map(value: Any, shape: Any, notation: Notation, path: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield _wrong(path, value, "a map")
        return
    yield from _size(len(value), shape, path, "entries")
    for key, item in value.items():
        yield from findings(key, shape.key, notation, f"{path}.(key)")
        yield from findings(item, shape.value, notation, f"{path}.{key}")


def _string(value: Any, shape: Any, _notation: Notation, path: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield _wrong(path, value, "a string")
        return
    yield from _size(len(value), shape, path, "characters")
    if shape.enum and value not in shape.enum:
        yield f"{path}: {_shown(value)} is none of {shape.name}'s values {', '.join(shape.enum)[:_SHOWN]}"
    pattern = shape.metadata.get("pattern")
    if pattern and not compiled(pattern).fullmatch(value):
        yield f"{path}: {_shown(value)} does not match {shape.name}'s {pattern}"


def _integer(value: Any, shape: Shape, _notation: Notation, path: str) -> Iterator[str]:
    if not isinstance(value, int) or isinstance(value, bool):
        yield _wrong(path, value, "an integer")
    else:
        yield from _size(value, shape, path, "")


def _float(value: Any, shape: Shape, _notation: Notation, path: str) -> Iterator[str]:
    if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
        yield _wrong(path, value, "a number")
    elif math.isfinite(value):
        yield from _size(value, shape, path, "")


def _boolean(value: Any, _shape: Shape, _notation: Notation, path: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield _wrong(path, value, "true or false")


def _blob(value: Any, shape: Shape, notation: Notation, path: str) -> Iterator[str]:
    try:
        length = notation.blob_length(value)
    except (TypeError, ValueError):
        yield _wrong(path, value, "a blob")
        return
    if length is not None:
        yield from _size(length, shape, path, "bytes")


def _timestamp(value: Any, shape: Shape, notation: Notation, path: str) -> Iterator[str]:
    if not notation.is_timestamp(value, shape):
        yield _wrong(path, value, "a time")


_CHECKS: dict[str, Callable[[Any, Any, Notation, str], Iterator[str]]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "character": _string,
    "integer": _integer,
    "long": _integer,
    "float": _float,
    "double": _float,
    "boolean": _boolean,
    "blob": _blob,
    "timestamp": _timestamp,
}


def _size(size: float | Decimal, shape: Shape, path: str, unit: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    said = f"{size} {unit}".strip()
    if least is not None and size < least:
        yield f"{path}: {said}, less than {shape.name}'s least, {least}"
    if most is not None and size > most:
        yield f"{path}: {said}, more than {shape.name}'s most, {most}"


def _wrong(path: str, value: Any, wanted: str) -> str:
    return f"{path}: {_shown(value)} is not {wanted}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _own_name(name: str, _member: Shape) -> str:
    return name


def _wire_name(name: str, member: Shape) -> str:
    return str(member.serialization.get("name", name))


def _states_name(name: str, _member: Shape) -> str:
    return name[:1].upper() + name[1:]


def _call_time(value: Any, _shape: Shape) -> bool:
    return isinstance(value, datetime | int | float | str) and not isinstance(value, bool)


def _iso_time(value: Any, _shape: Shape) -> bool:
    return isinstance(value, str) and _ISO_TIME.fullmatch(value) is not None


def _wire_time(value: Any, shape: Shape) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    in_header = shape.serialization.get("location") == "header"
    match shape.serialization.get("timestampFormat", "rfc822" if in_header else "unixTimestamp"):
        case "iso8601":
            return _iso_time(value, shape)
        case "rfc822":
            return isinstance(value, str) and _HTTP_TIME.fullmatch(value) is not None
    return is_number


def _call_blob_length(value: Any) -> int | None:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bytes | bytearray | memoryview):
        return len(value)
    if isinstance(value, io.IOBase) or hasattr(value, "read"):
        return None
    raise TypeError(value)


def _base64_length(value: Any) -> int:
    if not isinstance(value, str):
        raise TypeError(value)
    try:
        return len(base64.b64decode(value, validate=True))
    except binascii.Error as error:
        raise ValueError(value) from error


# Arguments of a boto3 client's method, and what it returns.
CALL = Notation(_own_name, _call_time, _call_blob_length, fills_tokens=True)
# A JSON body, and the headers beside it.
WIRE_JSON = Notation(_wire_name, _wire_time, _base64_length, null_is_absent=True)
# A document that was read from XML by the shape, see ``wire``.
WIRE_READ = Notation(_own_name, _call_time, _call_blob_length)
# Arguments of an AWS SDK integration in a state machine: names in PascalCase, JSONata is known only later.
# https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html
STATES = Notation(
    _states_name,
    _iso_time,
    _call_blob_length,
    is_expression,
    fills_tokens=True,
)
