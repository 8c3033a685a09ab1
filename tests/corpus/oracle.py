"""What the data contract says of a record, by the standard library's JSON parser alone.

Written from `docs/contract.md`, and it shares no code with `telemetry_contract`: where the two differ, one is wrong.
Records are taken apart by the checker of conservation, so that this parser, too, is judged by the whole corpus.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from telemetry_lake.conservation.elements import is_deeper, refuse_constant

DEEPEST = 32
LONGEST_NUMBER = 128
LONGEST_DEVICE_ID = 256
SECONDS_PER_DAY = 86_400
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Limits:
    """The limits of the policy, in degrees Celsius, seconds and days."""

    temperature_min: float = -100.0
    temperature_max: float = 200.0
    max_future_seconds: float = 300.0
    max_age_days: float = 3650.0


@dataclass(frozen=True)
class Number:
    """A JSON number by its text: two of them are equal when they were written alike."""

    text: str

    @property
    def value(self) -> float:
        """The double nearest to it, minus zero being zero."""
        return float(self.text) + 0.0


@dataclass(frozen=True)
class Opinion:
    """The oracle's verdict: a reason, or None and the fields of the reading, the contract's first."""

    reason: str | None
    fields: dict[str, Any] | None = None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The last of duplicate keys wins; what it replaces has to be well-formed all the same."""
    if _has_surrogate([part for pair in pairs for part in pair]):
        raise ValueError("half a surrogate pair")
    return dict(pairs)


_strict = json.JSONDecoder(
    parse_int=Number, parse_float=Number, parse_constant=refuse_constant, object_pairs_hook=_object
)


def opinion(element: bytes, arrived_at_seconds: float, limits: Limits) -> Opinion:
    """Return what the contract says of one element; the rules are asked in the order in which it lists them."""
    try:
        text = element.decode("utf-8")
    except UnicodeDecodeError:
        return Opinion("not_utf8")
    if is_deeper(text, DEEPEST):
        return Opinion("too_deep")
    stripped = text.strip(" \t\r\n")
    try:
        value, end = _strict.raw_decode(stripped)
    except ValueError:
        return Opinion("malformed_json")
    if end != len(stripped) or _has_surrogate(value):
        return Opinion("malformed_json")
    if not isinstance(value, dict):
        return Opinion("not_an_object")
    reason = _reason(value, arrived_at_seconds, limits)
    return Opinion(reason) if reason else Opinion(None, _in_order(value))


def _has_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return _SURROGATE.search(value) is not None
    if isinstance(value, list):
        return any(map(_has_surrogate, value))
    if isinstance(value, dict):
        return any(_has_surrogate(key) or _has_surrogate(member) for key, member in value.items())
    return False


def _reason(fields: dict[str, Any], arrived_at_seconds: float, limits: Limits) -> str | None:
    return next(filter(None, _reasons(fields, arrived_at_seconds, limits)), None)


def _reasons(fields: dict[str, Any], arrived_at_seconds: float, limits: Limits) -> Iterator[str | None]:
    """Yield what each rule says, in their order; a rule may count on those before it."""
    yield None if {"device_id", "temperature", "timestamp"} <= fields.keys() else "missing_field"
    device_id = fields["device_id"]
    yield None if isinstance(device_id, str) else "wrong_type"
    yield "device_id_invalid" if not 0 < len(device_id) <= LONGEST_DEVICE_ID or _CONTROL.search(device_id) else None
    for name in ("timestamp", "temperature"):
        yield None if isinstance(fields[name], Number) else "wrong_type"
        yield _number_reason(fields[name])
    timestamp, temperature = fields["timestamp"].value, fields["temperature"].value
    outside = temperature < limits.temperature_min or temperature > limits.temperature_max
    yield "temperature_out_of_range" if outside else None
    yield "timestamp_in_future" if timestamp > arrived_at_seconds + limits.max_future_seconds else None
    earliest = arrived_at_seconds - limits.max_age_days * SECONDS_PER_DAY
    yield "timestamp_too_old" if timestamp < earliest else None
    yield from map(_number_reason, _numbers(list(fields.values())))


def _number_reason(number: Number) -> str | None:
    if len(number.text) > LONGEST_NUMBER:
        return "number_too_long"
    return None if math.isfinite(float(number.text)) else "not_finite"


def _numbers(values: Sequence[Any]) -> Iterator[Number]:
    for value in values:
        if isinstance(value, Number):
            yield value
        elif isinstance(value, list):
            yield from _numbers(value)
        elif isinstance(value, dict):
            yield from _numbers(list(value.values()))


def _in_order(fields: dict[str, Any]) -> dict[str, Any]:
    contract = {name: fields[name] for name in ("device_id", "temperature", "timestamp")}
    for name in ("temperature", "timestamp"):
        contract[name] = contract[name].value
    return contract | {name: value for name, value in fields.items() if name not in contract}


def read_line(line: bytes) -> dict[str, Any]:
    """Return the fields of a canonical line as `Opinion` has them.

    Raises:
        ValueError: it is not one JSON object in UTF-8.
    """
    value = json.loads(line.decode("utf-8"), parse_int=Number, parse_float=Number, parse_constant=refuse_constant)
    if not isinstance(value, dict) or list(value)[:3] != ["device_id", "temperature", "timestamp"]:
        raise ValueError(f"not in canonical order: {line!r}")
    return _in_order(value)
