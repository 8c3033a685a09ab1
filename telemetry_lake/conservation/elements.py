"""From the bytes of a record to its elements, and from an element to the reading that it is, if it is one.

By the standard library's JSON parser, as ``docs/contract.md`` describes a record. It takes records of any size.
"""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

WHITESPACE = b" \t\r\n"
# Whether Python's parser takes a text that is nested deeper hangs on who calls it: an element has to be the same
# reading wherever it is found.
DEEPEST_READ = 500


class Reading(NamedTuple):
    """What makes a reading the same one: device, UNIX seconds and degrees Celsius, both as exact doubles."""

    device_id: str
    timestamp: float
    temperature: float


def refuse_constant(name: str) -> Any:
    """Refuse NaN and the infinities, which Python's parser would take."""
    raise ValueError(f"{name} is no JSON")


# An integer of any length is read as a double: Python's own integers end at some thousand digits.
_json = json.JSONDecoder(parse_int=float, parse_constant=refuse_constant)


def reading_of(element: bytes) -> Reading | None:
    """Return the reading that an element is by its three fields, whatever else is wrong with it; None for none."""
    try:
        text = element.decode()
        fields = None if is_deeper(text, DEEPEST_READ) else _json.decode(text)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    return _reading(fields.get("device_id"), fields.get("timestamp"), fields.get("temperature"))


def _reading(device_id: Any, timestamp: Any, temperature: Any) -> Reading | None:
    if not (isinstance(device_id, str) and isinstance(timestamp, float) and isinstance(temperature, float)):
        return None
    if not (math.isfinite(timestamp) and math.isfinite(temperature)):
        return None
    # Half of a surrogate pair stands for no character.
    if any("\ud800" <= character <= "\udfff" for character in device_id):
        return None
    return Reading(device_id, timestamp + 0.0, temperature + 0.0)  # minus zero is zero


def elements(record: bytes) -> list[bytes]:
    """Return the record's elements, their bytes as sent, apart from whitespace around them."""
    # Latin-1 has a character for every byte: the structure is found whether or not the strings are UTF-8.
    text = record.strip(WHITESPACE).decode("latin-1")
    if not text:
        return []
    try:
        spans = list(_members(text)) if text.startswith("[") else [_whole(text)]
    except RecursionError:
        spans_by_hand = _members_by_hand(text)
        if spans_by_hand is not None:
            return spans_by_hand
    except ValueError:
        pass
    else:
        return [text[start:end].encode("latin-1") for start, end in spans]
    return [line.strip(WHITESPACE) for line in record.split(b"\n") if line.strip(WHITESPACE)]


def _whole(text: str) -> tuple[int, int]:
    _, end = _json.raw_decode(text)
    if end != len(text):
        raise ValueError("more than one text")
    return 0, end


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _members(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each member of an array starts and ends."""
    position = _skip(text, 1)
    if text[position : position + 1] == "]":
        position += 1
    else:
        while True:
            _, end = _json.raw_decode(text, position)
            yield position, end
            position = _skip(text, end)
            sign = text[position : position + 1]
            position += 1
            if sign == "]":
                break
            if sign != ",":
                raise ValueError("no comma")
            position = _skip(text, position)
    if position != len(text):
        raise ValueError("text after the array")


def _members_by_hand(text: str) -> list[bytes] | None:
    """The members of an array that is nested too deep for the parser, by its brackets; None where they do not fit."""
    cuts = [0]
    level = 0
    for position, character in outside_strings(text):
        if character in "[{":
            level += 1
        elif character in "]}":
            level -= 1
            if level == 0 and position != len(text) - 1:
                return None
        elif character == "," and level == 1:
            cuts.append(position)
        elif character == "unclosed":
            return None
    if level != 0:
        return None
    if text.startswith("{"):
        return [text.encode("latin-1")]
    ends = [*cuts[1:], len(text) - 1]
    members = [text[start + 1 : end].encode("latin-1").strip(WHITESPACE) for start, end in zip(cuts, ends, strict=True)]
    return [member for member in members if member]


def outside_strings(text: str) -> Iterator[tuple[int, str]]:
    """Yield what is outside strings; the word ``unclosed`` at the end where a string is not closed."""
    in_string = escaped = False
    for position, character in enumerate(text):
        if not in_string:
            if character == '"':
                in_string = True
            else:
                yield position, character
        elif escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            in_string = False
    if in_string:
        yield len(text), "unclosed"


def is_deeper(text: str, limit: int) -> bool:
    """Whether brackets outside strings are nested deeper than ``limit``."""
    if text.count("[") + text.count("{") <= limit:
        return False
    level = 0
    for _, character in outside_strings(text):
        if character in "[{":
            level += 1
            if level > limit:
                return True
        elif character in "]}":
            level -= 1
    return False
