"""Thousands of malformed and odd records, built by rule, so that each family says what it is about.

The same list every time, and nothing is random: a case is found again by its name.
"""

import base64
import gzip
import json
import tomllib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

ARRIVED_AT = 1_792_034_100
READING = b'{"device_id":"sensor-1","temperature":21.5,"timestamp":1792034000.25}'
MEBIBYTE = 1024 * 1024

_PIECES = tomllib.loads(Path(__file__).with_name("pieces.toml").read_text("utf-8"))

NUMBERS: list[str] = [
    *_PIECES["numbers"],
    *("1" * length for length in (128, 129)),
    *(f"0.{digit * length}" for digit in "01" for length in (126, 127)),
    "1" + "0" * 127,
    *("1e" + "0" * length + "1" for length in (125, 130)),
    "9" * 5000,
]
"""Numbers, and what is none."""

VALUES: list[str] = _PIECES["values"]
"""Other values, and what is none."""

STRING_PIECES = [
    *(f"\\{letter}" for letter in "\"\\/bfnrtuUxv0aeN'`"),
    *(f"\\u{code}" for code in ("0041", "00", "004", "004g", "00e9", "0000", "001f", "007f", "0085", "009f", "00a0")),
    *(
        f"\\u{code}"
        for code in ("2028", "2029", "d7ff", "d800", "dbff", "dc00", "dfff", "e000", "feff", "fffd", "ffff")
    ),
    *(f"\\ud83d{second}" for second in ("\\ude00", "\\ud83d", "x", "\\n", "\\u0041", "", "ude00", "\\\\ude00")),
    *(f"\\\\{rest}" for rest in ("ud800", "\\ud800", "u0041", "\\", "n")),
    *(chr(code) for code in range(0x20)),
    *(
        chr(code)
        for code in (0x7F, 0x80, 0x85, 0x9F, 0xA0, 0xAD, 0x2028, 0x2029, 0x200B, 0x202E, 0xFEFF, 0xFFFD, 0xFFFE)
    ),
    *("é", "e\u0301", "センサー", "датчик", "😀", "👩\u200d👩\u200d👧", "\U0010ffff", "ﷺ", "İ", "ß"),
]
"""Escapes, control characters and letters to stand inside a string."""

BROKEN_UTF8 = [
    b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xc3\x28", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xe2\x82",
    b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xef\xbf", b"\xf0\x80\x80\x80", b"\xf0\x9f\x98",
    b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xfe", b"\xff",
    b"\xff\xfe",
]  # fmt: skip
"""Bytes that are no UTF-8: overlong, cut off, surrogates, beyond U+10FFFF."""

SPOILING_BYTES = b"\x00\x01\n\r\t\x1e \"'\\[]{}:,-+.eE0/#\x7f\x80\xc3\xe2\xff"
"""Bytes that are put into good records, one at a time."""


@dataclass(frozen=True)
class Case:
    """A record and what it is called."""

    family: str
    name: str
    record: bytes


def cases() -> Iterator[Case]:
    """Yield the corpus."""
    for family, build in FAMILIES.items():
        for number, (name, record) in enumerate(build()):
            yield Case(family, f"{family}-{number}: {name}", record)


Named = Iterator[tuple[str, bytes]]


def _field(name: str, value: bytes) -> bytes:
    """A good reading with one field's value replaced, or with another field."""
    fields = {b"device_id": b'"sensor-1"', b"temperature": b"21.5", b"timestamp": b"1792034000.25"}
    fields[name.encode()] = value
    return b"{" + b",".join(b'"%b":%b' % item for item in fields.items()) + b"}"


def _in_every_place(name: str, value: bytes) -> Named:
    yield f"{name} alone", value
    for field in ("device_id", "temperature", "timestamp", "other"):
        yield f"{name} as {field}", _field(field, value)
    yield f"{name} deep inside", _field("other", b'{"list":[1,%b]}' % value)
    yield f"{name} in an array", b"[" + READING + b"," + value + b"," + READING + b"]"
    yield f"{name} on a line", READING + b"\n" + value + b"\n" + READING
    yield f"{name} after a reading", READING + value


def _numbers() -> Named:
    for number in NUMBERS:
        yield from _in_every_place(number[:30], number.encode())


def _values() -> Named:
    for value in VALUES:
        yield from _in_every_place(repr(value), value.encode())


def _strings() -> Named:
    for piece in STRING_PIECES:
        text = f'"a{piece}b"'.encode()
        yield from _in_every_place(ascii(piece), text)
        yield f"{piece!a} in a key", READING[:-1] + b"," + text + b":1}"


def _encodings() -> Named:
    for broken in BROKEN_UTF8:
        yield from _in_every_place(broken.hex(), b'"a' + broken + b'b"')
        yield f"{broken.hex()} in a key", READING[:-1] + b',"' + broken + b'":1}'
        yield f"{broken.hex()} outside strings", READING + broken
    japanese = READING.decode().replace("sensor-1", "センサー")
    for encoding in (
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "utf-32",
        "utf-8-sig",
        "shift_jis",
        "euc_jp",
        "iso2022_jp",
        "utf-7",
    ):
        yield encoding, japanese.encode(encoding)
        yield f"two lines of {encoding}", f"{japanese}\n{japanese}".encode(encoding)
    for encoding in ("latin-1", "cp1252", "cp037"):
        yield encoding, READING.decode().replace("sensor-1", "café").encode(encoding)


def _other_formats() -> Named:
    packed = b"\n".join([READING] * 3)
    yield "gzip", gzip.compress(packed, mtime=0)
    yield "gzip between readings", READING + b"\n" + gzip.compress(packed, mtime=0) + b"\n" + READING
    yield "zlib", zlib.compress(packed)
    yield "base64", base64.b64encode(READING)
    yield "base64 in a string", json.dumps(base64.b64encode(READING).decode()).encode()
    yield "JSON in a string", json.dumps(READING.decode()).encode()
    yield "Zstandard", b"\x28\xb5\x2f\xfd" + READING
    yield "KPL aggregate", b"\xf3\x89\x9a\xc2" + READING + b"\x00" * 16
    yield "Avro", b"Obj\x01\x04\x14avro.codec\x08null"
    yield "Protocol Buffers", b"\x0a\x08sensor-1\x11\x00\x00\x00\x00\x00\x80\x35\x40"
    yield "MessagePack", b"\x83\xa9device_id\xa8sensor-1"
    yield "CBOR", b"\xa1\x69device_id\x68sensor-1"
    yield "JSON text sequence", b"\x1e" + READING + b"\n\x1e" + READING + b"\n"
    yield "CSV", b"device_id,temperature,timestamp\nsensor-1,21.5,1792034000\n"
    yield "XML", b'<reading device_id="sensor-1">21.5</reading>'
    yield "YAML", b"device_id: sensor-1\ntemperature: 21.5\n"
    yield "a form", b"device_id=sensor-1&temperature=21.5"
    yield "an HTTP request", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n" + READING
    yield "JSONP", b"callback(" + READING + b")"
    yield "a guarded answer", b")]}',\n" + READING
    yield "a syslog line", b"<34>1 2026-10-15T03:15:00Z host app - - " + READING
    for byte in range(256):
        yield f"the byte {byte:02x}", bytes([byte])
        yield f"the byte {byte:02x} on a line", READING + b"\n" + bytes([byte]) + b"\n" + READING


def _separators() -> Named:
    signs = (b"\n", b"\r\n", b"\r", b"\n\r", b"\x1e", b"\x00", b"\x0b", b"\x0c", b" ", b"", b",", b";", b"\xc2\x85",
             b"\xe2\x80\xa8", b"\n\n\n", b"\n \t\r\n", b",\n", b"\\n", b"\n,\n")  # fmt: skip
    for sign, count in product(signs, (2, 3)):
        yield f"{count} readings with {sign!r}", sign.join([READING] * count)
        yield f"{count} readings ended by {sign!r}", (READING + sign) * count
        yield f"{sign!r} first", sign + sign.join([READING] * count)
        yield f"{count} in an array with {sign!r}", b"[" + sign.join([READING] * count) + b"]"
    pretty = json.dumps(json.loads(READING), indent=2).encode()
    yield "pretty", pretty
    yield "pretty with CRLF", pretty.replace(b"\n", b"\r\n")
    yield "two pretty ones", pretty + b"\n" + pretty
    yield "a pretty array", json.dumps([json.loads(READING)] * 3, indent=2).encode()
    yield "an array, then a line", b"[" + READING + b"]\n" + READING
    yield "a line, then an array", READING + b"\n[" + READING + b"," + READING + b"]"


def _structure() -> Named:
    for text in _PIECES["structures"]:
        yield text, text.replace("R", READING.decode()).encode()
    for keys in permutations(("device_id", "temperature", "timestamp")):
        values = {"device_id": '"a"', "temperature": "1", "timestamp": "1792034000"}
        yield f"order {keys}", ("{" + ",".join(f'"{key}":{values[key]}' for key in keys) + "}").encode()
        for count in range(3):
            yield (
                f"only {keys[:count]}",
                ("{" + ",".join(f'"{key}":{values[key]}' for key in keys[:count]) + "}").encode(),
            )
    for key in (
        "Device_id",
        "DEVICE_ID",
        "device_id ",
        " device_id",
        "deviceId",
        "device-id",
        "id",
        "",
        "device\\u005fid",
        "\\u0064evice_id",
    ):
        yield f"key {key!r}", READING.replace(b"device_id", key.encode())
    for name, first, last in product(
        ("device_id", "temperature", "timestamp", "other"), ('"a"', "1", "null", "1e999"), ('"b"', "2", "[]")
    ):
        yield (
            f"{name} twice: {first}, {last}",
            f'{{"{name}":{first},{READING.decode()[1:-1]},"{name}":{last}}}'.encode(),
        )
        escaped = f"\\u{ord(name[0]):04x}{name[1:]}"
        yield (
            f"{name} twice, once escaped: {first}, {last}",
            f'{{"{name}":{first},{READING.decode()[1:-1]},"{escaped}":{last}}}'.encode(),
        )


def _nesting() -> Named:
    depths = (1, 2, 5, 29, 30, 31, 32, 33, 34, 64, 100, 500, 1000, 1024, 2000, 10_000, 100_000)
    for depth, (opening, closing) in product(depths, ((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]"))):
        deep = opening * depth + b"1" + closing * depth
        name = f"{depth} of {opening!r}"
        yield name, deep
        yield f"{name} in a field", _field("other", deep)
        yield f"{name} in an array", b"[" + READING + b"," + deep + b"," + READING + b"]"
        yield f"{name} behind half a surrogate pair", b'["\\ud800",' + deep + b"," + READING + b"]"
        yield f"{name} on a line", READING + b"\n" + deep + b"\n" + READING
        yield f"{name}, not closed", opening * depth
        yield f"{name}, not closed, on a line", READING + b"\n" + opening * depth + b"\n" + READING
        yield f"{name}, closed too often", deep + closing
        yield f"{name} in a string", _field("other", json.dumps(deep.decode()).encode())
        yield f"{name}, in a string not closed", b'["' + opening.replace(b'"', b"") * depth


def _boundaries() -> Named:
    hair = 1e-6
    for temperature in (
        -100,
        200,
        -100 - hair,
        200 + hair,
        -100 + hair,
        -273.15,
        1e3,
        -1e3,
        199.99999999999997,
        200.00000000000003,
    ):
        yield f"temperature {temperature!r}", _field("temperature", repr(temperature).encode())
    arrival = 1_792_034_100.123
    for shift in (
        300,
        300 + hair,
        300 - hair,
        301,
        -3650 * 86400,
        -3650 * 86400 - hair,
        -3650 * 86400 + hair,
        0,
        1e9,
        -1e9,
        -arrival,
    ):
        yield f"timestamp {shift} s from arrival", _field("timestamp", repr(arrival + shift).encode())
    for factor in (1e3, 1e6, 1e9, -1, 1e-3):
        yield f"timestamp times {factor}", _field("timestamp", repr(arrival * factor).encode())
    yield "timestamp in ISO 8601", _field("timestamp", b'"2026-10-15T03:15:00Z"')
    for length in (0, 1, 127, 128, 129, 255, 256, 257, 1000):
        for character in ("x", "é", "😀", "\\u0041", '\\"'):
            yield f"device_id of {length} times {character}", _field("device_id", f'"{character * length}"'.encode())
    for length in range(165, 185):
        padding = length - len(READING)
        yield f"{length} bytes by spaces", READING[:-1] + b" " * padding + b"}"
        yield f"{length} bytes by zeros", READING.replace(b"21.5", b"21.5" + b"0" * padding)
        yield f"{length} bytes by the device", READING.replace(b"sensor-1", b"s" * (padding + 8))


def _sizes() -> Named:
    yield "empty", b""
    for piece in (
        b" ",
        b"\n",
        b"\r\n",
        b"\x00",
        b'"',
        b"\\",
        b'\\"',
        b"[",
        b"]",
        b"{",
        b",",
        b"0",
        b"a",
        b"-",
        b"\xff",
        b"0,",
        b"0\n",
        b"[],",
        b"\xe3\x81\x82",
    ):
        # What makes an element each is enough ten thousand times.
        size = MEBIBYTE if len(piece) == 1 else MEBIBYTE // 32
        yield f"{piece!r} often", piece * (size // len(piece))
        often = piece * (size // 8 // len(piece))
        yield f"{piece!r} often in an array", b"[" + often + b"]"
        yield f"{piece!r} often in a string", b'["' + often + b'"]'
        yield f"{piece!r} often after a reading", READING + b"\n" + often
    yield "a mebibyte of readings", (READING + b"\n") * (MEBIBYTE // (len(READING) + 1))
    yield (
        "a mebibyte of readings in an array",
        b"[" + b",".join([READING] * (MEBIBYTE // (len(READING) + 1) - 1)) + b"]",
    )
    yield "a mebibyte of readings and junk", (READING + b"\nx\n") * (MEBIBYTE // (len(READING) + 3))
    yield "a reading of a mebibyte", _field("other", b'"' + b"x" * (MEBIBYTE - 100) + b'"')
    yield "a reading with a long list", _field("other", b"[" + b",".join([b"1.5"] * 200_000) + b"]")
    yield "a reading with many fields", READING[:-1] + b"".join(b',"f%d":%d' % (n, n) for n in range(50_000)) + b"}"
    yield "a reading with one field often", READING[:-1] + b',"f":1' * 100_000 + b"}"
    yield "spaces around", b" " * 500_000 + READING + b" " * 500_000


def _spoilt() -> Named:
    """Good records of every kind with one byte taken away, doubled, put in, or everything after it cut off."""
    packed = (
        b'[{"device_id":"a\\u00e9\\n","temperature":-1.5e1,"timestamp":1792034000,"o":[true,null,{"k":"v"}]},{"a":"b"}]'
    )
    for name, good in (("reading", READING), ("packed", packed), ("lines", READING + b"\n" + READING)):
        for place in range(len(good)):
            yield f"{name} cut at {place}", good[:place]
            yield f"{name} from {place}", good[place:]
            yield f"{name} without {place}", good[:place] + good[place + 1 :]
            yield f"{name} with {place} twice", good[: place + 1] + good[place:]
        for place, byte in product(range(0, len(good) + 1, 3), SPOILING_BYTES):
            yield f"{name} with {byte:02x} at {place}", good[:place] + bytes([byte]) + good[place:]
        for place, byte in product(range(1, len(good), 3), SPOILING_BYTES):
            yield f"{name} with {byte:02x} for {place}", good[:place] + bytes([byte]) + good[place + 1 :]


FAMILIES = {
    "numbers": _numbers,
    "values": _values,
    "strings": _strings,
    "encodings": _encodings,
    "other_formats": _other_formats,
    "separators": _separators,
    "structure": _structure,
    "nesting": _nesting,
    "boundaries": _boundaries,
    "sizes": _sizes,
    "spoilt": _spoilt,
}
"""The families of the corpus, in order."""
