"""What was sent and what Kinesis acknowledged, line by line in a file that survives a crash.

A record is written down before it is sent, and again with its place in the stream once Kinesis has taken it; both
times the file is on the disk before anything else happens. So after a crash the ledger holds every record that can be
in the stream, and tells those that are for certain from those of which nobody knows:

    {"record": "5f0c9a1e-1", "partition_key": "sensor-1", "data": "{...}"}
    {"record": "5f0c9a1e-1", "shard": "shardId-000000000000", "sequence_number": "4966..."}

``data_base64`` stands for ``data`` where the record is no text, and ``fault`` says what is wrong with it, if anything.
"""

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from telemetry_lake.console import OperatorError
from telemetry_lake.readings import Record


@dataclass(frozen=True)
class Place:
    """Where in the stream a record is."""

    shard_id: str
    sequence_number: str


@dataclass(frozen=True)
class Entry:
    """A record in the ledger; without a place it is not known whether Kinesis has taken it."""

    name: str
    data: bytes
    partition_key: str
    fault: str | None
    place: Place | None


class Ledger:
    """The open ledger of one producer; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open ``path`` for appending.

        Raises:
            OperatorError: it cannot be written, or another producer writes to it.
        """
        self.path = path
        self._run = secrets.token_hex(4)
        self._count = 0
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise OperatorError(
                f"The ledger {path} cannot be written: {error.strerror}.", "Name another one."
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise OperatorError(f"Another producer writes to the ledger {path}.", "Name another one.") from error
        self._cut_torn_line()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def sending(self, records: Sequence[Record]) -> list[str]:
        """Write down records that are about to be sent and return their names."""
        names = []
        lines = []
        for record in records:
            self._count += 1
            names.append(f"{self._run}-{self._count}")
            lines.append({"record": names[-1], "partition_key": record.partition_key, **_as_text(record.data)})
            if record.fault is not None:
                lines[-1]["fault"] = record.fault
        self._write(lines)
        return names

    def acknowledged(self, places: Mapping[str, Place]) -> None:
        """Write down where the records of these names are."""
        self._write(
            [
                {"record": name, "shard": place.shard_id, "sequence_number": place.sequence_number}
                for name, place in places.items()
            ]
        )

    def _write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if not lines:
            return
        try:
            self._file.write(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OperatorError(
                f"The ledger {self.path} cannot be written: {error.strerror}.",
                "What was acknowledged last may be missing in it. Make room, and send again: nothing is stored twice.",
            ) from error

    def _cut_torn_line(self) -> None:
        """Take away half a line that a crash has left: nothing that it stood for has happened after it."""
        size = self._file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 65_536)
            self._file.seek(start)
            found = self._file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            self._file.truncate(end)


def _as_text(data: bytes) -> dict[str, str]:
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode()}


def read_ledger(path: Path) -> Iterator[Entry]:
    """Yield the records of a ledger in the order in which they were sent.

    Raises:
        ValueError: the file is no ledger. Half a line at its end is none of its lines.
    """
    sent: dict[str, dict[str, Any]] = {}
    places: dict[str, Place] = {}
    for line in path.read_bytes().split(b"\n")[:-1]:
        entry = json.loads(line)
        if "sequence_number" in entry:
            places[entry["record"]] = Place(entry["shard"], entry["sequence_number"])
        else:
            sent[entry["record"]] = entry
    for name, entry in sent.items():
        data = entry["data"].encode() if "data" in entry else base64.b64decode(entry["data_base64"])
        yield Entry(name, data, entry["partition_key"], entry.get("fault"), places.get(name))
