"""The books: what was sent, what is stored and what was rejected, and where they do not agree.

They are kept in a temporary database of SQLite, whose file is deleted when it is closed and of which only a cache of
some megabytes is in memory (https://www.sqlite.org/inmemorydb.html#temp_db): however much was sent, memory holds one
object of S3 and that cache. A reading is a key of bytes, its two doubles among them, so that nothing is rounded.
"""

import hashlib
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from telemetry_lake.conservation.elements import WHITESPACE, Reading, elements, reading_of

CACHE_KIBIBYTES = 64 * 1024
LONGEST_PREVIEW = 100
READING_MARK = b"r"
_NUMBERS = struct.Struct(">dd")
_DEVICE_AT = len(READING_MARK) + _NUMBERS.size

# Longer than any sequence number: as texts of one length they compare as the numbers do.
# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsResultEntry.html
_SEQUENCE_DIGITS = 129

TRANSFORM = "transform"
PARKED = "parked"
QUARANTINED = "quarantined"


@dataclass(frozen=True)
class Element:
    """What gets one verdict.

    Attributes:
        key: equal for two elements that are the same reading, or the same bytes where they are none.
        spelling: equal for the same bytes.
        is_reading: whether its three fields can be read.
        preview: the beginning of what is no reading, for a person.
    """

    key: bytes
    spelling: bytes
    is_reading: bool
    preview: str = ""

    @classmethod
    def all_of(cls, record: bytes) -> list["Element"]:
        """Return a record's elements; a record that holds none is one itself."""
        return [cls.of(each) for each in elements(record) or [record]]

    @classmethod
    def of(cls, data: bytes) -> "Element":
        """Return what these bytes are; whitespace around them does not count."""
        data = data.strip(WHITESPACE)
        reading = reading_of(data)
        spelling = hashlib.sha256(data).digest()
        if reading is not None:
            return cls(key_of(reading), spelling, is_reading=True)
        return cls(
            b"b" + spelling, spelling, is_reading=False, preview=data[:LONGEST_PREVIEW].decode("utf-8", "replace")
        )


def key_of(reading: Reading) -> bytes:
    """Return the key of a reading."""
    return READING_MARK + _NUMBERS.pack(reading.timestamp, reading.temperature) + reading.device_id.encode()


def reading_with(key: bytes) -> Reading:
    """Return the reading that has a key."""
    return Reading(key[_DEVICE_AT:].decode(), *_NUMBERS.unpack(key[len(READING_MARK) : _DEVICE_AT]))


@dataclass(frozen=True)
class Reject:
    """An element that is kept outside the table.

    Attributes:
        reject_id: what names it; a tombstone names it too.
        element: what it was.
        origin: ``transform`` or ``etl`` for dead letters by their stage, else ``parked`` or ``quarantined``.
        found_in: the key of its object.
        reason: why, by the contract's name.
        contract_version: the version that the verdict was given under.
        shard: where in the stream its record was, if that is known.
        sequence_number: likewise.
    """

    reject_id: str
    element: Element
    origin: str
    found_in: str
    reason: str = ""
    contract_version: str = ""
    shard: str | None = None
    sequence_number: str | None = None


def _padded(sequence_number: str) -> str:
    return sequence_number.zfill(_SEQUENCE_DIGITS)


class Books:
    """What was sent, stored and rejected; use it as a context manager."""

    def __init__(self) -> None:
        # The empty name stands for a temporary file.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            f"""
            PRAGMA cache_size = -{CACHE_KIBIBYTES};
            PRAGMA journal_mode = OFF;
            CREATE TABLE record (name TEXT PRIMARY KEY, shard TEXT, sequence TEXT) WITHOUT ROWID;
            CREATE TABLE sent (record TEXT, key BLOB, spelling BLOB, is_reading INTEGER, preview TEXT);
            CREATE TABLE stored (key BLOB);
            CREATE TABLE reject (
                id TEXT, key BLOB, spelling BLOB, is_reading INTEGER, preview TEXT, origin TEXT, found_in TEXT,
                reason TEXT, version TEXT, shard TEXT, sequence TEXT, PRIMARY KEY (id, key)
            );
            CREATE TABLE resolved (id TEXT PRIMARY KEY) WITHOUT ROWID;
            CREATE TABLE waiting (key BLOB PRIMARY KEY) WITHOUT ROWID;
            CREATE VIEW acknowledged AS SELECT * FROM sent JOIN record ON name = record WHERE sequence IS NOT NULL;
            CREATE VIEW kept AS SELECT * FROM reject WHERE id NOT IN (SELECT id FROM resolved);
            BEGIN;
            """
        )

    def __enter__(self) -> "Books":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()

    def add_sent(self, record: str, elements: Iterable[Element]) -> None:
        """Enter a record that was sent; one that is entered already, by another copy of its ledger, is left out."""
        added = self._database.execute("INSERT OR IGNORE INTO record VALUES (?, NULL, NULL)", (record,))
        if added.rowcount:
            self._database.executemany(
                "INSERT INTO sent VALUES (?, ?, ?, ?, ?)",
                ((record, each.key, each.spelling, each.is_reading, each.preview) for each in elements),
            )

    def add_acknowledgement(self, record: str, shard: str, sequence_number: str) -> bool:
        """Enter the place in the stream that a record got, and tell whether the record is known."""
        changed = self._database.execute(
            "UPDATE record SET shard = ?, sequence = ? WHERE name = ?", (shard, _padded(sequence_number), record)
        )
        return changed.rowcount == 1

    def add_stored(self, keys: Iterable[bytes]) -> None:
        """Enter rows of the table."""
        self._database.executemany("INSERT INTO stored VALUES (?)", ((key,) for key in keys))

    def add_rejects(self, rejects: Iterable[Reject]) -> None:
        """Enter rejects; the same one may come several times."""
        self._database.executemany(
            "INSERT OR IGNORE INTO reject VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    each.reject_id,
                    each.element.key,
                    each.element.spelling,
                    each.element.is_reading,
                    each.element.preview,
                    each.origin,
                    each.found_in,
                    each.reason,
                    each.contract_version,
                    each.shard,
                    None if each.sequence_number is None else _padded(each.sequence_number),
                )
                for each in rejects
            ),
        )

    def add_resolved(self, reject_ids: Iterable[str]) -> None:
        """Enter tombstones."""
        self._database.executemany("INSERT OR IGNORE INTO resolved VALUES (?)", ((each,) for each in reject_ids))

    def add_waiting(self, keys: Iterable[bytes]) -> None:
        """Enter readings that are in the raw zone and that no run has read yet."""
        self._database.executemany("INSERT OR IGNORE INTO waiting VALUES (?)", ((key,) for key in keys))

    def close_entries(self, *, only_devices_sent: bool = False) -> int:
        """Make the entries ready to be compared; none may follow, but `add_waiting`.

        Args:
            only_devices_sent: take out what belongs to devices that nothing was sent of, and what cannot be told to
                belong to any and was not sent.

        Returns:
            How many entries were taken out because it cannot be told whose they are.
        """
        self._database.executescript(
            """
            CREATE INDEX sent_by_key ON sent (key);
            CREATE INDEX stored_by_key ON stored (key);
            CREATE INDEX reject_by_key ON reject (key);
            """
        )
        if not only_devices_sent:
            return 0
        device = f"substr(key, {_DEVICE_AT + 1})"
        self._database.execute(f"CREATE TABLE device AS SELECT DISTINCT {device} AS name FROM sent WHERE is_reading")
        foreign = f"{device} NOT IN (SELECT name FROM device)"
        self._database.execute(f"DELETE FROM stored WHERE {foreign}")
        self._database.execute(f"DELETE FROM reject WHERE is_reading AND {foreign}")
        unknown = "NOT is_reading AND key NOT IN (SELECT key FROM sent)"
        return self._database.execute(f"DELETE FROM reject WHERE {unknown}").rowcount

    def devices_sent(self, most: int) -> list[str] | None:
        """Return the devices of what was sent, None if they are more than ``most``."""
        rows = self._database.execute(
            f"SELECT DISTINCT substr(key, {_DEVICE_AT + 1}) FROM sent WHERE is_reading LIMIT ?",
            (most + 1,),
        ).fetchall()
        return None if len(rows) > most else sorted(name.decode() for (name,) in rows)

    # ------------------------------------------------------------------------------------------------- reading

    def rows(self, query: str, *values: bytes) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query."""
        yield from self._database.execute(query, values)

    def number(self, query: str, *values: bytes) -> int:
        """Return the one number that a query gives, 0 for none."""
        ((number,),) = self.rows(query, *values)
        return int(number or 0)

    def derive(self, table: str, query: str) -> None:
        """Keep the rows of a query as a table."""
        self._database.execute(f"CREATE TABLE {table} AS {query}")
