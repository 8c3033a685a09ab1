"""Where a record of Firehose's event comes from, and when it arrived."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

MAX_EPOCH_MILLISECONDS = 253_402_300_800_000
"""Start of the year 10000: what a date can no longer hold."""

Record = Mapping[str, Any]
"""A record of Firehose's event: https://docs.aws.amazon.com/lambda/latest/dg/services-kinesisfirehose.html."""


class UnusableRecordError(ValueError):
    """A record of the event lacks something that every record from Firehose has."""


def arrival_seconds(record: Record) -> float:
    """UNIX seconds at which a record arrived, from a Kinesis stream or put to Firehose directly.

    A stream's ``approximateArrivalTimestamp`` is when the stream took the record, Firehose's own is when Firehose did:
    https://docs.aws.amazon.com/firehose/latest/APIReference/API_Record.html and
    https://docs.aws.amazon.com/kinesis/latest/APIReference/API_Record.html.

    Raises:
        UnusableRecordError: the record does not say when it arrived.
    """
    arrived_at = stream_metadata(record).get("approximateArrivalTimestamp", record.get("approximateArrivalTimestamp"))
    return _epoch_seconds(arrived_at)


def stream_metadata(record: Record) -> Mapping[str, Any]:
    """What a record from a Kinesis stream says of its place there; empty for other sources."""
    metadata = record.get("kinesisRecordMetadata")
    return metadata if isinstance(metadata, dict) else {}


def _epoch_seconds(value: object) -> float:
    """UNIX seconds of a time in milliseconds, or of one in ISO 8601, as some sample events have it."""
    if isinstance(value, (int, float)) and 0 <= value < MAX_EPOCH_MILLISECONDS:
        return value / 1000
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    raise UnusableRecordError(f"the record does not say when it arrived: {value!r}")
