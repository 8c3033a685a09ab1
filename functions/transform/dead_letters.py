"""The dead letters of a batch: what was rejected, why, from where, with the original; one object an invocation.

It is imported by the first batch that has any: a function that starts has no use for hashes.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from telemetry_contract import Detail, Reason, Rejection
from transform.arrival import Record, arrival_seconds, stream_metadata

STAGE_NAME = "transform"
"""Value of ``stage`` in every dead letter written here."""

_GZIP_WINDOW_BITS = 31
_encode = msgspec.json.Encoder().encode


class DeadLetter(NamedTuple):
    """One line of the dead letters, and its reason."""

    reason: Reason
    line: bytes


def of_rejections(
    record: Record,
    rejections: Iterable[tuple[int, Rejection]],
    arrived_at_seconds: float,
    contract_version: str,
) -> tuple[DeadLetter, ...]:
    """The dead letters of a record.

    Args:
        record: the record as Firehose gave it.
        rejections: its rejected elements, each with its index in the record.
        arrived_at_seconds: UNIX seconds of its arrival.
        contract_version: the version that the verdicts were given under.
    """
    position, source = _position(record), _source(record)
    arrived_at = _iso_milliseconds(arrived_at_seconds)
    return tuple(
        _dead_letter(rejection, position, {**source, "index": index}, arrived_at, contract_version)
        for index, rejection in rejections
    )


def of_unread_record(record: Record, why: str, contract_version: str) -> DeadLetter:
    """The dead letter of a record that could not be taken apart; its data is kept in base64, as Firehose sent it."""
    data = str(record.get("data")).encode("utf-8", "backslashreplace")
    arrived_at = _arrival_if_any(record)
    return _dead_letter(
        Rejection(Reason.INTERNAL_ERROR, Detail(None, None, why), data),
        _position(record),
        {**_source(record), "index": 0},
        None if arrived_at is None else _iso_milliseconds(arrived_at),
        contract_version,
        original=None,
        original_base64=data.decode("utf-8"),
    )


def object_key(prefix: str, records: Sequence[Record], now: datetime) -> str:
    """Key of a batch's dead letters: the day of its oldest arrival (UTC), and the hash of all of its positions.

    All of them: Firehose may cut a stream into other batches when it reads it again, and two batches that share their
    first or last record must not overwrite each other's rejects.

    Args:
        prefix: key prefix of all dead letters.
        records: all records of the batch, with or without rejects.
        now: current time, aware, for a batch in which no record says when it arrived.
    """
    arrivals = [arrival for record in records if (arrival := _arrival_if_any(record)) is not None]
    oldest = datetime.fromtimestamp(min(arrivals), UTC) if arrivals else now.astimezone(UTC)
    digest = hashlib.sha256(_encode([_position(record) for record in records])).hexdigest()
    return f"{prefix}year={oldest.year}/month={oldest.month}/day={oldest.day}/{digest}.json.gz"


def object_body(letters: Iterable[DeadLetter]) -> bytes:
    """The object itself: gzip (without a time in it), one JSON object a line."""
    compressor = zlib.compressobj(wbits=_GZIP_WINDOW_BITS)
    parts = [compressor.compress(letter.line + b"\n") for letter in letters]
    return b"".join((*parts, compressor.flush()))


def _dead_letter(
    rejection: Rejection,
    position: Sequence[str],
    source: dict[str, str | int | None],
    arrived_at: str | None,
    contract_version: str,
    **original: str | None,
) -> DeadLetter:
    fields: dict[str, Any] = {
        "reject_id": _reject_id(position, source["index"], rejection.original),
        "reason": rejection.reason.value,
        "detail": msgspec.structs.asdict(rejection.detail),
        "device_id": rejection.device_id,
        "timestamp": rejection.timestamp,
        "temperature": rejection.temperature,
        "stage": STAGE_NAME,
        **(original or _as_text_or_base64(rejection.original)),
        "source": source,
        "arrived_at": arrived_at,
        "contract_version": contract_version,
    }
    return DeadLetter(rejection.reason, _encode(fields))


def _as_text_or_base64(original: bytes) -> dict[str, str | None]:
    try:
        return {"original": original.decode("utf-8"), "original_base64": None}
    except UnicodeDecodeError:
        return {"original": None, "original_base64": base64.b64encode(original).decode("ascii")}


def _reject_id(position: Sequence[str], index: object, original: bytes) -> str:
    return hashlib.sha256(_encode([*position, index]) + b"\n" + original).hexdigest()


def _position(record: Record) -> tuple[str, ...]:
    """What makes a record unique: its place in its shard, or Firehose's record id where the source is no stream."""
    metadata = stream_metadata(record)
    if not metadata:
        return (str(record["recordId"]),)
    return tuple(str(metadata.get(name) or "") for name in ("shardId", "sequenceNumber", "subsequenceNumber"))


def _source(record: Record) -> dict[str, str | int | None]:
    metadata = stream_metadata(record)
    subsequence = str(metadata.get("subsequenceNumber", ""))
    return {
        "shard_id": _text_or_none(metadata.get("shardId")),
        "sequence_number": _text_or_none(metadata.get("sequenceNumber")),
        "subsequence_number": int(subsequence) if subsequence.isascii() and subsequence.isdigit() else None,
        "partition_key": _text_or_none(metadata.get("partitionKey")),
        "record_id": str(record["recordId"]),
    }


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def _arrival_if_any(record: Record) -> float | None:
    try:
        return arrival_seconds(record)
    except ValueError:  # such a record is a reject, and its line says why
        return None


def _iso_milliseconds(epoch_seconds: float) -> str:
    moment = datetime.fromtimestamp(epoch_seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
