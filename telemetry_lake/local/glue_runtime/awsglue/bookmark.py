"""What a job bookmark remembers of an S3 source, and what that leaves to read.

S3 sources are told apart by the time of their last modification; changed objects are read again
(https://docs.aws.amazon.com/glue/latest/dg/monitor-continuations.html). Those modified in the last ``maxBand``
milliseconds before a listing are remembered one by one, since more of that time may still come to light
(https://docs.aws.amazon.com/glue/latest/webapi/API_S3CsvSource.html).
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_MAX_BAND_MILLISECONDS = 900_000


@dataclass(frozen=True)
class SourceObject:
    """One object of a listing; ``modified`` in milliseconds of UNIX time, ``size`` in bytes."""

    bucket: str
    key: str
    modified: int
    size: int

    @property
    def uri(self) -> str:
        """The object's ``s3://`` address."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class SourceState:
    """What is done with: everything modified up to ``covered_until`` (milliseconds), and the objects in ``recent``.

    ``recent`` maps addresses of objects modified later than that to the modification that was read.
    """

    covered_until: int | None = None
    recent: Mapping[str, int] = field(default_factory=dict)

    def covers(self, candidate: SourceObject) -> bool:
        """Tell whether this very modification of the object has been read, or is too old to be looked at."""
        if self.covered_until is not None and candidate.modified <= self.covered_until:
            return True
        return self.recent.get(candidate.uri) == candidate.modified


def advance(
    state: SourceState,
    listed: Sequence[SourceObject],
    listed_at: int,
    max_band: int = DEFAULT_MAX_BAND_MILLISECONDS,
    max_files_in_band: int | None = None,
) -> tuple[list[SourceObject], SourceState]:
    """Return the objects to read now, and the state once they have been read.

    Args:
        state: what earlier runs have read.
        listed: all objects of the source.
        listed_at: when the listing began, milliseconds of UNIX time.
        max_band: milliseconds.
        max_files_in_band: how many objects of the band are read and remembered; the rest waits for the next run.
    """
    covered_until = max(listed_at - max_band, state.covered_until or 0)
    in_band = [candidate for candidate in listed if candidate.modified > covered_until]
    known = [candidate for candidate in in_band if state.covers(candidate)]
    unknown = sorted((c for c in in_band if not state.covers(c)), key=lambda c: (c.modified, c.uri))
    if max_files_in_band is not None:
        unknown = unknown[: max(0, max_files_in_band - len(known))]
    older = [candidate for candidate in listed if candidate.modified <= covered_until and not state.covers(candidate)]
    remembered = {candidate.uri: candidate.modified for candidate in (*known, *unknown)}
    return [*older, *unknown], SourceState(covered_until, remembered)


class VersionMismatchError(RuntimeError):
    """The committed states are no longer those that this run started from.

    AWS's library says so when two runs of a job overlap
    (https://docs.aws.amazon.com/glue/latest/dg/glue-troubleshooting-errors.html).
    """


class Bookmark:
    """The bookmark of one run: the committed states it started from, and those that ``commit`` will write."""

    def __init__(self, option: str, file: Path, window: tuple[Path, Path] | None = None) -> None:
        """Read the committed states.

        Args:
            option: ``job-bookmark-enable``, ``job-bookmark-pause`` or ``job-bookmark-disable``.
            file: what ``commit`` wrote last.
            window: what it had written after two runs; then only what lies between them is read
                (``--job-bookmark-from`` and ``--job-bookmark-to``).
        """
        self._option = option
        self._file = file
        self._committed = _content(file)
        self._states = _read(file) if option != "job-bookmark-disable" else {}
        self._window = None if window is None else (_read(window[0]), _read(window[1]))
        self._advanced: dict[str, SourceState] = {}

    def select(
        self,
        transformation_ctx: str,
        listed: Sequence[SourceObject],
        listed_at: int,
        max_band: int,
        max_files_in_band: int | None,
    ) -> list[SourceObject]:
        """Return what the source called ``transformation_ctx`` has to read; all of it without a name or a bookmark."""
        if not transformation_ctx or self._option == "job-bookmark-disable":
            return list(listed)
        if self._window is not None:
            start, end = (states.get(transformation_ctx, SourceState()) for states in self._window)
            return [candidate for candidate in listed if end.covers(candidate) and not start.covers(candidate)]
        state = self._states.get(transformation_ctx, SourceState())
        selected, self._advanced[transformation_ctx] = advance(state, listed, listed_at, max_band, max_files_in_band)
        return selected

    def commit(self) -> None:
        """Make the states of this run the committed ones, whole or not at all; only with bookmarks enabled.

        Raises:
            VersionMismatchError: another run has committed meanwhile, or the bookmark was reset.
        """
        if self._option != "job-bookmark-enable":
            return
        if _content(self._file) != self._committed:
            raise VersionMismatchError("Continuation update failed due to version mismatch")
        self._states |= self._advanced
        _write(self._file, self._states)
        self._committed = _content(self._file)


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _read(file: Path) -> dict[str, SourceState]:
    if not file.exists():
        return {}
    sources: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))["sources"]
    return {name: SourceState(source["covered_until"], source["recent"]) for name, source in sources.items()}


def _write(file: Path, states: Mapping[str, SourceState]) -> None:
    sources = {
        name: {"covered_until": state.covered_until, "recent": dict(state.recent)} for name, state in states.items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=file.parent, prefix=f".{file.name}.", delete=False
    ) as temporary:
        json.dump({"sources": sources}, temporary)
        temporary.flush()
        os.fsync(temporary.fileno())
    Path(temporary.name).replace(file)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
