"""From the bytes of one stream record to its elements, each of which will get one verdict.

A record is read whole first: an object is one element, an array as many as it has members. Only when it is not one
JSON text is it cut at line feeds, one element a line, blank lines ignored. `split_record` looks at structure alone;
whether an element is a reading is decided elsewhere, so that a bad element never takes its neighbours down.
"""

import re

import msgspec

JSON_WHITESPACE = b" \t\r\n"

_OPENING = b"[{"
_CLOSING = b"]}"
_QUOTE = b'"'[0]
_COMMA = b","[0]

_any_value = msgspec.json.Decoder(msgspec.Raw)
_array = msgspec.json.Decoder(list[msgspec.Raw])

# A string that is never closed matches without its last quote instead of failing: a failing attempt at every quote
# would make the scan quadratic.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?P<closed>"?)|[\[\]{},]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(rb"(?P<backslash>\\\\)|\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def split_record(record: bytes) -> tuple[bytes, ...]:
    """Cut a record into its elements, in order.

    Args:
        record: the record's data, already decoded from base64.

    Returns:
        The elements' bytes as sent. Empty when the record holds none (blank, or an empty array).
    """
    text = record.strip(JSON_WHITESPACE)
    if not text:
        return ()
    try:
        if text.startswith(b"["):
            return tuple(bytes(member) for member in _array.decode(text))
        _any_value.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if _is_one_text_beyond_the_parser(text, error):
            members = _members_by_brackets(text)
            if members is not None:
                return members
        return tuple(line for line in record.split(b"\n") if line.strip(JSON_WHITESPACE))
    return (record,)


def nesting_depth(text: bytes) -> int:
    """Deepest nesting of brackets outside strings; 0 for a scalar. Never recurses."""
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        character = text[token.start()]
        if character in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        elif character in _CLOSING:
            depth -= 1
    return deepest


def has_unpaired_surrogate(text: bytes) -> bool:
    """Whether all that is wrong with a JSON text is half of an escaped surrogate pair (it stands for no character).

    Raises:
        RecursionError: the text is nested too deep for the parser to tell.
    """
    masked = _mask_surrogates(text)
    if masked == text:
        return False
    try:
        _any_value.decode(masked)
    except msgspec.DecodeError:
        return False
    return True


def _is_one_text_beyond_the_parser(text: bytes, error: Exception) -> bool:
    """Whether the grammar may be in order and only the parser refused: nested too deep, half a surrogate pair, both."""
    try:
        return isinstance(error, RecursionError) or has_unpaired_surrogate(text)
    except RecursionError:
        return True


def _mask_surrogates(text: bytes) -> bytes:
    return _SURROGATE_ESCAPE.sub(lambda match: match[0] if match["backslash"] else rb"\u0041", text)


def _members_by_brackets(text: bytes) -> tuple[bytes, ...] | None:
    """Elements of one bracketed text by counting brackets; None when it is not one (or not closed).

    Only for texts that the parser refuses as a whole: it finds where the members end without understanding them.
    """
    if not text.startswith((b"[", b"{")):
        return None
    depth = 0
    start = 1
    members: list[bytes] = []
    for token in _TOKEN.finditer(text):
        character = text[token.start()]
        if character == _QUOTE:
            if not token["closed"]:
                return None
        elif character in _OPENING:
            depth += 1
        elif character == _COMMA:
            if depth == 1:
                members.append(text[start : token.start()])
                start = token.end()
        else:
            depth -= 1
        if depth == 0:
            if token.end() != len(text):
                return None
            break
    else:
        return None
    if text.startswith(b"{"):
        return (text,)
    members.append(text[start:-1])
    return tuple(stripped for member in members if (stripped := member.strip(JSON_WHITESPACE)))
