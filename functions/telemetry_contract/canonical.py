"""Canonical JSON: one compact, strict UTF-8 spelling that no two parsers can read differently.

Whitespace goes, strings are written with the fewest escapes, the last of duplicate keys stays (at every level) and
numbers keep the digits they were sent with, so that a large integer or a long decimal loses nothing on the way.
"""

import math

import msgspec

MAX_NUMBER_LENGTH = 128
"""Longest number accepted, characters: parsers differ in how much longer ones they take."""

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])
_string = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode

_NUMBER_START = b"-0123456789"


class NumberTooLongError(ValueError):
    """A number has more than `MAX_NUMBER_LENGTH` characters."""


class NumberNotFiniteError(ValueError):
    """A number lies beyond the range of a double."""


def decode_object(text: bytes) -> dict[str, bytes]:
    """Fields of a JSON object, each value still as the text that was sent; the last of duplicate keys wins.

    Raises:
        msgspec.DecodeError: not one JSON object.
        UnicodeDecodeError: a key is not UTF-8.
        RecursionError: nested beyond what the parser takes; the caller bounds the depth first.
    """
    return {name: bytes(raw) for name, raw in _object.decode(text).items()}


def decode_string(text: bytes) -> str | None:
    """The string that a JSON text stands for, or None when it is of another type."""
    return _string.decode(text) if text.startswith(b'"') else None


def decode_number(text: bytes) -> float | None:
    """The double nearest to a JSON number (minus zero is zero), or None when the text is of another type.

    Raises:
        NumberTooLongError: too many characters.
        NumberNotFiniteError: beyond the range of a double.
    """
    if text[:1] not in _NUMBER_START:
        return None
    if len(text) > MAX_NUMBER_LENGTH:
        raise NumberTooLongError(f"at most {MAX_NUMBER_LENGTH} characters")
    number = float(text)
    if not math.isfinite(number):
        raise NumberNotFiniteError("within the range of a double")
    return number + 0.0


def encode_string(text: str) -> bytes:
    """A string as JSON text."""
    return _encode(text)


def encode_number(number: float) -> bytes:
    """A double in the fewest digits that read back as the same double."""
    return _encode(number)


def canonical_value(text: bytes) -> bytes:
    """The canonical spelling of a grammatical JSON value of bounded depth.

    Raises:
        NumberTooLongError: a number in it has too many characters.
        NumberNotFiniteError: a number in it is beyond the range of a double.
    """
    first = text[:1]
    if first == b'"':
        # Without an escape a string is written as it is: control characters are not grammatical.
        return _encode(_string.decode(text)) if b"\\" in text else text
    if first == b"{":
        return b"{" + b",".join(_encode(k) + b":" + canonical_value(v) for k, v in decode_object(text).items()) + b"}"
    if first == b"[":
        return b"[" + b",".join(canonical_value(bytes(raw)) for raw in _array.decode(text)) + b"]"
    if len(text) > MAX_NUMBER_LENGTH or b"e" in text or b"E" in text:  # others are within the range of a double
        decode_number(text)
    return text
