"""Raw objects with new, repeated and bad lines, and what a table and a DLQ hold once all of them are processed.

What is expected is worked out here from the lines by themselves, with exact fractions and Python's calendar; nothing of
the job is used.
"""

import base64
import gzip
import hashlib
import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

FIRST_DAY = datetime(2025, 10, 15, tzinfo=UTC)
DAYS = 6
NEW_LINES = 150
REPEATED_LINES = 60
DEVICES = 7
OBJECTS = 4


class Row(NamedTuple):
    """A row of the table with its partition; ``event_time`` in microseconds of UNIX time."""

    device_id: str
    temperature: float
    timestamp: float
    event_time: int
    year: int
    month: int
    day: int


class Reject(NamedTuple):
    """What the DLQ has to say of a line, whichever run wrote it."""

    reason: str
    original: str | None
    original_base64: str | None


BAD_LINES = (
    ("malformed_json", b"no json %d"),
    ("malformed_json", b'{"device_id":"a","temperature":1,"timestamp":%d}{"device_id":"b"}'),
    ("missing_field", b'{"device_id":"a","temperature":%d}'),
    ("not_an_object", b"[[%d]]"),
    ("wrong_type", b'{"device_id":17,"temperature":1,"timestamp":%d}'),
    ("device_id_invalid", b'{"device_id":"","temperature":1,"timestamp":%d}'),
    ("not_utf8", b'{"device_id":"\xff","temperature":1,"timestamp":%d}'),
)


def row_of(device_id: str, temperature: float, timestamp: float) -> Row:
    """Return the row of a reading in a table whose days are UTC days."""
    event_time = round(Fraction(timestamp) * 1_000_000)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event_time)
    return Row(device_id, temperature, timestamp, event_time, moment.year, moment.month, moment.day)


def reject_of(reason: str, line: bytes) -> Reject:
    """Return what the DLQ has to say of a line."""
    if reason == "not_utf8":
        return Reject(reason, None, base64.b64encode(line).decode())
    return Reject(reason, line.decode(), None)


@dataclass
class Batches:
    """Batch after batch from one seed, and what all of them together come to."""

    chance: random.Random
    rows: set[Row] = field(default_factory=set)
    rejects: dict[str, Reject] = field(default_factory=dict)
    _lines: list[bytes] = field(default_factory=list)
    _count: int = 0

    def next(self) -> list[bytes]:
        """Return the gzipped objects of one more batch: new lines, lines of earlier batches, lines twice, bad ones."""
        repeated = self.chance.choices(self._lines, k=REPEATED_LINES) if self._lines else []
        new = [self._reading() for _ in range(NEW_LINES)] + [self._bad(*each) for each in BAD_LINES]
        lines = new + repeated + self.chance.sample(new, 20)
        self.chance.shuffle(lines)
        self._lines += new
        return [gzip.compress(b"\n".join(lines[part::OBJECTS]) + b"\n") for part in range(OBJECTS)]

    def _reading(self) -> bytes:
        second = self.chance.randrange(DAYS * 86_400 * 1000) / 1000
        device_id = f"device-{self.chance.randrange(DEVICES)}"
        temperature = self.chance.uniform(-40, 60)
        timestamp = FIRST_DAY.timestamp() + self.chance.choice([second, float(int(second)), second + 5e-7])
        self.rows.add(row_of(device_id, temperature, timestamp))
        return json.dumps({"device_id": device_id, "temperature": temperature, "timestamp": timestamp}).encode()

    def _bad(self, reason: str, pattern: bytes) -> bytes:
        self._count += 1
        line = pattern.replace(b"%d", str(self._count).encode())
        self.rejects[hashlib.sha256(line).hexdigest()] = reject_of(reason, line)
        return line
