"""Records in the order in which they came, in files of a directory: what a shard of Kinesis keeps.

A record is in the file before :meth:`RecordLog.append` returns, so that it outlives the process, however that ends
(not the machine: nothing is forced onto the disk). In memory is one number for each file of some MiB, and nothing for
a record. A file is named by the first record in it; what a killed process left half-written at the end is cut off.
"""

import struct
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MEBIBYTE = 1024 * 1024
SEGMENT_BYTES = 8 * MEBIBYTE
SUFFIX = ".records"
# A number is the millisecond of the arrival and a counter.
NUMBERS_PER_MILLISECOND = 10_000_000_000
KNOWN_PLACES = 64

# milliseconds, counter, bytes of the key, bytes of the data
_HEAD = struct.Struct(">QQHI")


@dataclass(frozen=True)
class NewRecord:
    """A record before it has its place: the key (a partition key) and the data."""

    key: str
    data: bytes


@dataclass(frozen=True)
class StoredRecord:
    """A record in its place; ``number`` grows along the log."""

    number: int
    key: str
    data: bytes

    @property
    def arrival_milliseconds(self) -> int:
        """When it came, in milliseconds since 1970."""
        return self.number // NUMBERS_PER_MILLISECOND


def first_number_at(milliseconds: int) -> int:
    """Return the number before which everything came earlier than ``milliseconds``."""
    return milliseconds * NUMBERS_PER_MILLISECOND


class Numbering:
    """Gives out growing numbers, unique among all logs that share it, also when the clock is set back."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last = 0
        self._lock = threading.Lock()

    def next(self) -> int:
        """Return a number greater than all before."""
        with self._lock:
            self._last = max(self._last + 1, first_number_at(int(self._clock() * 1000)))
            return self._last

    def skip_to(self, number: int) -> None:
        """Take note of a number that was given out before the process began."""
        with self._lock:
            self._last = max(self._last, number)


def _encode(record: StoredRecord) -> bytes:
    key = record.key.encode()
    milliseconds, counter = divmod(record.number, NUMBERS_PER_MILLISECOND)
    return _HEAD.pack(milliseconds, counter, len(key), len(record.data)) + key + record.data


def _whole_records(file: BinaryIO, position: int) -> Iterator[tuple[StoredRecord, int]]:
    """Yield the whole records from ``position`` on, each with the position after it."""
    file.seek(position)
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        milliseconds, counter, key_bytes, data_bytes = _HEAD.unpack(head)
        body = file.read(key_bytes + data_bytes)
        if len(body) < key_bytes + data_bytes:
            return
        position += len(head) + len(body)
        number = milliseconds * NUMBERS_PER_MILLISECOND + counter
        yield StoredRecord(number, body[:key_bytes].decode(), body[key_bytes:]), position


class RecordLog:
    """An append-only sequence of records; one process has it open."""

    def __init__(self, directory: Path, numbering: Numbering, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open the log, or make an empty one."""
        self._directory = directory
        self._numbering = numbering
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        self._segments = sorted(int(file.name.removesuffix(SUFFIX)) for file in directory.glob(f"*{SUFFIX}"))
        # Where the record after one that was read lately begins: the file and the position in it.
        self._places: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._end_bytes = 0
        self.last_number = 0
        while self._segments and not self._mend_last_segment():
            self._file(self._segments.pop()).unlink()
        numbering.skip_to(self.last_number)

    def append(self, records: Sequence[NewRecord]) -> list[StoredRecord]:
        """Store records behind all others and return them with their numbers."""
        with self._lock:
            stored = [StoredRecord(self._numbering.next(), record.key, record.data) for record in records]
            if not stored:
                return stored
            if not self._segments or self._end_bytes >= self._segment_bytes:
                self._segments.append(stored[0].number)
                self._end_bytes = 0
            content = b"".join(map(_encode, stored))
            with self._file(self._segments[-1]).open("ab", buffering=0) as file:
                written = 0
                while written < len(content):
                    written += file.write(content[written:]) or 0
            self._end_bytes += len(content)
            self.last_number = stored[-1].number
            return stored

    def read(self, after: int, most_records: int, most_bytes: int) -> list[StoredRecord]:
        """Return records with numbers greater than ``after``, in order; one at least if there is one.

        ``most_bytes`` limits their data and keys, unless the first one has more.
        """
        found: list[StoredRecord] = []
        size = 0
        with self._lock:
            for record, place in self._records_after(after):
                size += len(record.data) + len(record.key.encode())
                if found and (len(found) == most_records or size > most_bytes):
                    break
                found.append(record)
                last_place = place
            if found:
                self._places[found[-1].number] = last_place
                if len(self._places) > KNOWN_PLACES:
                    self._places.popitem(last=False)
        return found

    def trim(self, before_milliseconds: int) -> None:
        """Delete files that hold nothing which came at ``before_milliseconds`` or later; some of them stay longer."""
        with self._lock:
            oldest_kept = first_number_at(before_milliseconds)
            while self._segments and self._end_of_first_segment() < oldest_kept:
                self._file(self._segments.pop(0)).unlink()

    def delete(self) -> None:
        """Delete everything."""
        with self._lock:
            for segment in self._segments:
                self._file(segment).unlink()
            self._segments.clear()
            self._directory.rmdir()

    def _end_of_first_segment(self) -> int:
        """Return a number that none in the first file exceeds."""
        return self._segments[1] if len(self._segments) > 1 else self.last_number

    def _file(self, segment: int) -> Path:
        return self._directory / f"{segment}{SUFFIX}"

    def _mend_last_segment(self) -> bool:
        """Cut off what is not whole; tell whether anything is left."""
        path = self._file(self._segments[-1])
        self._end_bytes = 0
        with path.open("r+b") as file:
            for record, end in _whole_records(file, 0):
                self.last_number, self._end_bytes = record.number, end
            file.truncate(self._end_bytes)
        return self._end_bytes > 0

    def _records_after(self, after: int) -> Iterator[tuple[StoredRecord, tuple[int, int]]]:
        """Yield records greater than ``after``, each with the place where the next one begins."""
        if after >= self.last_number:
            return
        segment, position = self._places.get(after, (0, 0))
        for each in self._segments[max(0, bisect_right(self._segments, after) - 1) :]:
            if each < segment:
                continue
            with self._file(each).open("rb", buffering=MEBIBYTE) as file:
                for record, end in _whole_records(file, position if each == segment else 0):
                    if record.number > after:
                        yield record, (each, end)
