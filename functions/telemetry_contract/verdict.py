"""One verdict for one element: a reading in canonical form, or a rejection with a reason.

The order of the rules is fixed, so that an element that breaks several always gets the same reason: bytes, grammar,
fields, limits of the policy, and last whatever else the object holds.
"""

import re
from typing import NamedTuple

import msgspec

from telemetry_contract.canonical import (
    MAX_NUMBER_LENGTH,
    NumberNotFiniteError,
    NumberTooLongError,
    canonical_value,
    decode_number,
    decode_object,
    decode_string,
    encode_number,
    encode_string,
)
from telemetry_contract.elements import JSON_WHITESPACE, has_unpaired_surrogate, nesting_depth, split_record
from telemetry_contract.policy import SECONDS_PER_DAY, Policy
from telemetry_contract.rejection import Detail, Reason, Rejection

CONTRACT_FIELDS = ("device_id", "temperature", "timestamp")
"""The fields of a reading, in the order in which its canonical line has them."""

MAX_DEPTH = 32
"""Deepest nesting accepted; the reading's own braces are level 1."""

MAX_DEVICE_ID_LENGTH = 256
"""Longest device_id, code points."""

_MAX_DETAIL_LENGTH = 200
_CONTROL_CHARACTER = re.compile("[\u0000-\u001f\u007f-\u009f]")
_UNITS_PER_SECOND = (("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9))

_any_value = msgspec.json.Decoder(msgspec.Raw)


class _ContractFields(msgspec.Struct, gc=False):
    """The fields of a reading by their types, in the order of `CONTRACT_FIELDS`; others are skipped."""

    device_id: str
    temperature: float
    timestamp: float


class _PlainReading(_ContractFields, forbid_unknown_fields=True, gc=False):
    """A reading without other fields."""


_decode_plain_reading = msgspec.json.Decoder(_PlainReading).decode
_decode_contract_fields = msgspec.json.Decoder(_ContractFields).decode
_encode_contract_fields = msgspec.json.Encoder().encode

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_MAX_PLAIN_LENGTH = MAX_NUMBER_LENGTH + len(b'{"device_id":"x","temperature":,"timestamp":1}')
"""Longest element in which no number can be too long, bytes."""


class Identity(NamedTuple):
    """What makes two readings the same one: both numbers are compared as exact doubles."""

    device_id: str
    timestamp: float
    temperature: float


class Reading(msgspec.Struct, frozen=True):
    """The verdict on an element that is accepted.

    Attributes:
        identity: device, UNIX seconds and degrees Celsius.
        line: the canonical line, strict UTF-8 without its line feed; it contains no line break.
    """

    identity: Identity
    line: bytes


class _RefusedError(Exception):
    """Carries a reason and a detail up to `judge`."""

    def __init__(self, reason: Reason, rule: str, *, field: str | None = None, value: bytes | None = None) -> None:
        super().__init__(rule)
        text = None if value is None else value.decode("utf-8", "replace")[:_MAX_DETAIL_LENGTH]
        self.reason = reason
        self.detail = Detail(field=field, value=text, rule=rule)


def judge_record(record: bytes, arrived_at_seconds: float, policy: Policy) -> tuple[Reading | Rejection, ...]:
    """Split a record and judge each element: never empty, one verdict an element, in order."""
    elements = split_record(record)
    if not elements:
        return (reject_empty_record(record),)
    return tuple(judge(element, arrived_at_seconds, policy) for element in elements)


def reject_empty_record(record: bytes) -> Rejection:
    """The one verdict on a record that holds no element."""
    return Rejection(Reason.EMPTY_RECORD, Detail(None, None, "a record holds at least one reading"), record)


def short_line(element: bytes, arrived_at_seconds: float, policy: Policy) -> bytes | None:
    """The short way to a verdict, for what most records consist of: readings that nothing is wrong with.

    Args:
        element: its bytes as sent.
        arrived_at_seconds: as for `judge`.
        policy: the limits.

    Returns:
        The canonical line, the same one that `judge` gives; or None, and then `judge` has to be asked.
    """
    is_plain = len(element) <= _MAX_PLAIN_LENGTH
    try:
        reading: _ContractFields = _decode_plain_reading(element)
    except msgspec.ValidationError:  # another field, or one of another type
        is_plain = False
        try:
            reading = _decode_contract_fields(element)
        except _UNREADABLE:
            return None
    except _UNREADABLE:  # judge finds out what is wrong with it
        return None
    device_id, timestamp = reading.device_id, reading.timestamp
    if not (
        device_id
        and device_id.isprintable()  # then no control character is in it
        and policy.temperature_min <= reading.temperature <= policy.temperature_max
        and timestamp <= arrived_at_seconds + policy.max_future_seconds
        and timestamp >= arrived_at_seconds - policy.max_age_days * SECONDS_PER_DAY
    ):
        return None
    reading.temperature += 0.0  # minus zero is zero
    if not timestamp:
        reading.timestamp = 0.0
    line = _encode_contract_fields(reading)
    if is_plain:
        return line
    return _short_line_with_others(line, element) if len(device_id) <= MAX_DEVICE_ID_LENGTH else None


def _short_line_with_others(line: bytes, element: bytes) -> bytes | None:
    """The line of a reading whose own fields are in order, with its other fields; None: ask `judge`."""
    if element.count(b"[") + element.count(b"{") > MAX_DEPTH:
        return None
    try:
        if not element.isascii():
            element.decode("utf-8")
        fields = decode_object(element)
        if max(len(fields["temperature"]), len(fields["timestamp"])) > MAX_NUMBER_LENGTH:
            return None
        return line[:-1] + _canonical_others(fields) + b"}"
    except (_RefusedError, *_UNREADABLE):
        return None


def judge(element: bytes, arrived_at_seconds: float, policy: Policy) -> Reading | Rejection:
    """Judge one element.

    Args:
        element: its bytes as sent.
        arrived_at_seconds: UNIX seconds at which the stream took the record; the policy is applied to this time and
            never to the clock, so that the verdict is the same whenever it is given.
        policy: the limits.

    Returns:
        The reading in canonical form, or why it is none.
    """
    fields: dict[str, bytes] = {}
    try:
        fields = _read_object(element)
        identity = _read_identity(fields)
        _apply_policy(identity, fields, arrived_at_seconds, policy)
        return Reading(identity, _canonical_line(identity, fields))
    except _RefusedError as refused:
        device_id, timestamp, temperature = _readable_triple(fields)
        return Rejection(refused.reason, refused.detail, element, device_id, timestamp, temperature)


def _read_object(element: bytes) -> dict[str, bytes]:
    try:
        element.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _RefusedError(Reason.NOT_UTF8, f"strict UTF-8: {error.reason} at byte {error.start}") from error
    # Counting brackets is cheap; the scan that knows strings is only for elements that could be too deep.
    if element.count(b"[") + element.count(b"{") > MAX_DEPTH and nesting_depth(element) > MAX_DEPTH:
        raise _RefusedError(Reason.TOO_DEEP, f"at most {MAX_DEPTH} levels of nesting")
    text = element.strip(JSON_WHITESPACE)
    try:
        if text.startswith(b"{"):
            return decode_object(text)
        _any_value.decode(text)
    except msgspec.DecodeError as error:
        rule = f"strict JSON (RFC 8259): {error}"
        if has_unpaired_surrogate(text):
            rule = "strict JSON (RFC 8259): an unpaired surrogate escape stands for no character"
        raise _RefusedError(Reason.MALFORMED_JSON, rule) from error
    raise _RefusedError(Reason.NOT_AN_OBJECT, "a reading is a JSON object", value=text)


def _read_identity(fields: dict[str, bytes]) -> Identity:
    for name in CONTRACT_FIELDS:
        if name not in fields:
            raise _RefusedError(Reason.MISSING_FIELD, f"{name} is required", field=name)
    return Identity(
        device_id=_read_device_id(fields["device_id"]),
        timestamp=_read_number("timestamp", fields["timestamp"]),
        temperature=_read_number("temperature", fields["temperature"]),
    )


def _read_device_id(value: bytes) -> str:
    device_id = decode_string(value)
    if device_id is None:
        raise _RefusedError(Reason.WRONG_TYPE, "a string", field="device_id", value=value)
    if not 1 <= len(device_id) <= MAX_DEVICE_ID_LENGTH:
        rule = f"1 to {MAX_DEVICE_ID_LENGTH} code points, not {len(device_id)}"
        raise _RefusedError(Reason.DEVICE_ID_INVALID, rule, field="device_id", value=value)
    if _CONTROL_CHARACTER.search(device_id):
        rule = "no control characters (U+0000 to U+001F, U+007F to U+009F)"
        raise _RefusedError(Reason.DEVICE_ID_INVALID, rule, field="device_id", value=value)
    return device_id


def _read_number(name: str, value: bytes) -> float:
    try:
        number = decode_number(value)
    except NumberTooLongError as error:
        raise _RefusedError(Reason.NUMBER_TOO_LONG, str(error), field=name, value=value) from error
    except NumberNotFiniteError as error:
        raise _RefusedError(Reason.NOT_FINITE, str(error), field=name, value=value) from error
    if number is None:
        raise _RefusedError(Reason.WRONG_TYPE, "a number", field=name, value=value)
    return number


def _apply_policy(identity: Identity, fields: dict[str, bytes], arrived_at_seconds: float, policy: Policy) -> None:
    if not policy.temperature_min <= identity.temperature <= policy.temperature_max:
        rule = f"{policy.temperature_min:g} to {policy.temperature_max:g} degrees Celsius"
        raise _RefusedError(Reason.TEMPERATURE_OUT_OF_RANGE, rule, field="temperature", value=fields["temperature"])
    latest = arrived_at_seconds + policy.max_future_seconds
    earliest = arrived_at_seconds - policy.max_age_days * SECONDS_PER_DAY
    if identity.timestamp > latest:
        rule = f"UNIX seconds, at most {policy.max_future_seconds:g} s after the arrival"
        for unit, per_second in _UNITS_PER_SECOND:
            if earliest <= identity.timestamp / per_second <= latest:
                rule += f"; this looks like {unit}"
        raise _RefusedError(Reason.TIMESTAMP_IN_FUTURE, rule, field="timestamp", value=fields["timestamp"])
    if identity.timestamp < earliest:
        rule = f"UNIX seconds, at most {policy.max_age_days:g} days before the arrival"
        raise _RefusedError(Reason.TIMESTAMP_TOO_OLD, rule, field="timestamp", value=fields["timestamp"])


def _canonical_line(identity: Identity, fields: dict[str, bytes]) -> bytes:
    return b'{"device_id":%b,"temperature":%b,"timestamp":%b%b}' % (
        encode_string(identity.device_id),
        encode_number(identity.temperature),
        encode_number(identity.timestamp),
        _canonical_others(fields),
    )


def _canonical_others(fields: dict[str, bytes]) -> bytes:
    return b"".join(
        b",%b:%b" % (encode_string(name), _canonical_other_value(name, value))
        for name, value in fields.items()
        if name not in CONTRACT_FIELDS
    )


def _canonical_other_value(name: str, value: bytes) -> bytes:
    try:
        return canonical_value(value)
    except NumberTooLongError as error:
        raise _RefusedError(Reason.NUMBER_TOO_LONG, str(error), field=name, value=value) from error
    except NumberNotFiniteError as error:
        raise _RefusedError(Reason.NOT_FINITE, str(error), field=name, value=value) from error


def _readable_triple(fields: dict[str, bytes]) -> tuple[str | None, float | None, float | None]:
    device_id = decode_string(fields["device_id"]) if "device_id" in fields else None
    return device_id, _readable_number(fields, "timestamp"), _readable_number(fields, "temperature")


def _readable_number(fields: dict[str, bytes], name: str) -> float | None:
    if name not in fields:
        return None
    try:
        return decode_number(fields[name])
    except (NumberTooLongError, NumberNotFiniteError):
        return None
