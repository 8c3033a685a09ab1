"""What becomes of a batch: every record's outcome, decided before anything is stored or answered.

Firehose hands over a batch and expects one answer a record
(https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-status-model.html):

* ``Ok`` with the canonical lines of the record's good readings;
* ``Dropped`` when none of its elements is a reading: what it held is in the dead letters;
* ``ProcessingFailed`` when the record must be kept whole: Firehose writes the original to its error prefix
  (https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html).

Everything here is pure: the same event gives the same plan, byte for byte, so a retried invocation overwrites its own
dead letters with themselves.
"""

import base64
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from telemetry_contract import Detail, Policy, Reading, Reason, Rejection, judge, reject_empty_record, split_record

MAX_RESPONSE_BYTES = 6_000_000
"""Room for the answer. Lambda's synchronous response may have 6 MB, and Firehose says the same of request and response
(https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html); the rest up to 6 MiB is left free."""

STAGE_NAME = "transform"
"""Value of ``stage`` in every dead letter written here."""

_EMPTY_ANSWER_BYTES = len(json.dumps({"recordId": "", "result": "ProcessingFailed", "data": ""})) + len(", ")
_ENVELOPE_BYTES = len(json.dumps({"records": []}))

_MAX_EPOCH_SECONDS = 253_402_300_800
"""Start of the year 10000: what a date can no longer hold."""

_encode = msgspec.json.Encoder().encode


class UnusableRecordError(ValueError):
    """A record of the event lacks something that every record from Firehose has."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a record came from and when the stream took it.

    Attributes:
        position: what makes the record unique: shard, sequence and subsequence number, or Firehose's record id where
            the source is no stream.
        source: the ``source`` of its dead letters, without the index.
        at_seconds: UNIX seconds of the arrival.
    """

    position: tuple[str, ...]
    source: Mapping[str, str | int | None]
    at_seconds: float


@dataclass(frozen=True, slots=True)
class Reject:
    """One line of the dead letters."""

    reason: Reason
    line: bytes


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """What a record comes to.

    Attributes:
        record_id: Firehose's id of the record.
        data: its good readings as canonical lines, each ended by a line feed, in base64; empty when there are none.
        accepted: number of its good readings.
        rejects: its rejected elements.
    """

    record_id: str
    data: str
    accepted: int
    rejects: tuple[Reject, ...]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Everything about a batch that is decided before its one side effect.

    Attributes:
        outcomes: one outcome a record, in the order of the event.
        overflowing: ids of records whose data no longer fits into the answer; they are kept whole by Firehose, so
            their rejects are not written either.
        dead_letter_key: key of the batch's dead letters, or None when it has none.
        dead_letter_body: gzip of the dead letters, one JSON object a line.
    """

    outcomes: tuple[RecordOutcome, ...]
    overflowing: frozenset[str]
    dead_letter_key: str | None
    dead_letter_body: bytes

    def answer(self, *, dead_letters_stored: bool) -> dict[str, list[dict[str, str]]]:
        """Firehose's answer.

        Args:
            dead_letters_stored: whether the dead letters are safe. If not, each record that has any is kept whole.
        """
        parked = self.parked(dead_letters_stored=dead_letters_stored)
        return {"records": [_answer(outcome, is_parked=outcome.record_id in parked) for outcome in self.outcomes]}

    def parked(self, *, dead_letters_stored: bool) -> frozenset[str]:
        """Ids of the records that Firehose must keep whole."""
        if dead_letters_stored:
            return self.overflowing
        return self.overflowing | {outcome.record_id for outcome in self.outcomes if outcome.rejects}

    def accepted_count(self, *, dead_letters_stored: bool) -> int:
        """Readings that leave for the raw zone."""
        parked = self.parked(dead_letters_stored=dead_letters_stored)
        return sum(outcome.accepted for outcome in self.outcomes if outcome.record_id not in parked)

    def rejected_by_reason(self) -> Counter[str]:
        """Rejects in the dead letters, by reason."""
        return Counter(
            reject.reason.value
            for outcome in self.outcomes
            if outcome.record_id not in self.overflowing
            for reject in outcome.rejects
        )


def plan_batch(
    event: Mapping[str, Any],
    *,
    policy: Policy,
    dead_letter_prefix: str,
    now: datetime,
    max_response_bytes: int = MAX_RESPONSE_BYTES,
) -> BatchPlan:
    """Decide what becomes of every record of a batch.

    Args:
        event: Firehose's event.
        policy: the limits.
        dead_letter_prefix: key prefix of the dead letters.
        now: current time, aware; only dates the dead letters of a batch in which no record says when it arrived.
        max_response_bytes: room for the answer, bytes.
    """
    contract_version = policy.contract_version
    records: Sequence[Mapping[str, Any]] = event["records"]
    outcomes = tuple(_judge_record(record, policy, contract_version) for record in records)
    overflowing = _overflowing(outcomes, max_response_bytes)
    lines = [reject.line for outcome in outcomes if outcome.record_id not in overflowing for reject in outcome.rejects]
    if not lines:
        return BatchPlan(outcomes, overflowing, None, b"")
    return BatchPlan(
        outcomes,
        overflowing,
        _dead_letter_key(dead_letter_prefix, records, now),
        gzip.compress(b"".join(line + b"\n" for line in lines), mtime=0),
    )


def _answer(outcome: RecordOutcome, *, is_parked: bool) -> dict[str, str]:
    # Firehose's documents ask for `data` in every answer, also where there is none to deliver.
    if is_parked:
        return {"recordId": outcome.record_id, "result": "ProcessingFailed", "data": ""}
    return {"recordId": outcome.record_id, "result": "Ok" if outcome.data else "Dropped", "data": outcome.data}


def _overflowing(outcomes: Sequence[RecordOutcome], max_response_bytes: int) -> frozenset[str]:
    """Ids of the records whose data does not fit, first come first served; every record has room for an answer."""
    used = _ENVELOPE_BYTES + sum(_EMPTY_ANSWER_BYTES + len(outcome.record_id) for outcome in outcomes)
    overflowing = set()
    for outcome in outcomes:
        if used + len(outcome.data) > max_response_bytes:
            overflowing.add(outcome.record_id)
        else:
            used += len(outcome.data)
    return frozenset(overflowing)


def _judge_record(record: Mapping[str, Any], policy: Policy, contract_version: str) -> RecordOutcome:
    record_id: str = record["recordId"]
    try:
        arrival = _read_arrival(record)
        data = base64.b64decode(record["data"], validate=True)
        elements = split_record(data)
        verdicts = (
            [_judge_element(element, arrival.at_seconds, policy) for element in elements]
            if elements
            else [reject_empty_record(data)]
        )
        good = [verdict.line for verdict in verdicts if isinstance(verdict, Reading)]
        rejects = tuple(
            Reject(verdict.reason, _dead_letter(verdict, arrival, index, contract_version))
            for index, verdict in enumerate(verdicts)
            if isinstance(verdict, Rejection)
        )
    except Exception as error:  # noqa: BLE001 - one record's failure is its own reject, with all that it held
        return RecordOutcome(record_id, "", 0, (_reject_unread_record(record, error, contract_version),))
    lines = b"".join(line + b"\n" for line in good)
    return RecordOutcome(record_id, base64.b64encode(lines).decode("ascii"), len(good), rejects)


def _judge_element(element: bytes, arrived_at_seconds: float, policy: Policy) -> Reading | Rejection:
    try:
        return judge(element, arrived_at_seconds, policy)
    except Exception as error:  # noqa: BLE001 - the element is kept as a reject; its neighbours are judged on their own
        return Rejection(Reason.INTERNAL_ERROR, Detail(None, None, _describe(error)), element)


def _read_arrival(record: Mapping[str, Any]) -> Arrival:
    """Position and arrival of a record, from a Kinesis stream or put to Firehose directly.

    A stream's ``approximateArrivalTimestamp`` is when the stream took the record, Firehose's own is when Firehose did:
    https://docs.aws.amazon.com/firehose/latest/APIReference/API_Record.html and
    https://docs.aws.amazon.com/kinesis/latest/APIReference/API_Record.html.

    Raises:
        ValueError: the record does not say when it arrived.
    """
    arrived_at = _metadata(record).get("approximateArrivalTimestamp", record.get("approximateArrivalTimestamp"))
    return Arrival(_position(record), _source(record), _epoch_seconds(arrived_at))


def _read_arrival_if_any(record: Mapping[str, Any]) -> Arrival | None:
    try:
        return _read_arrival(record)
    except ValueError:  # such a record is a reject, and its line says why
        return None


def _epoch_seconds(value: object) -> float:
    """UNIX seconds of a time in milliseconds, or of one in ISO 8601, as some sample events have it."""
    if isinstance(value, int | float) and 0 <= value < _MAX_EPOCH_SECONDS * 1000:
        return value / 1000
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    raise UnusableRecordError(f"the record does not say when it arrived: {value!r}")


def _metadata(record: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = record.get("kinesisRecordMetadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _position(record: Mapping[str, Any]) -> tuple[str, ...]:
    metadata = _metadata(record)
    if not metadata:
        return (str(record["recordId"]),)
    return tuple(str(metadata.get(name) or "") for name in ("shardId", "sequenceNumber", "subsequenceNumber"))


def _source(record: Mapping[str, Any]) -> dict[str, str | int | None]:
    metadata = _metadata(record)
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


def _reject_unread_record(record: Mapping[str, Any], error: Exception, contract_version: str) -> Reject:
    """The reject of a record that could not be taken apart; its data is kept in base64, as Firehose sent it."""
    data = str(record.get("data")).encode("utf-8", "backslashreplace")
    arrival = _read_arrival_if_any(record)
    rejection = Rejection(Reason.INTERNAL_ERROR, Detail(None, None, _describe(error)), data)
    fields = _dead_letter_fields(rejection, _position(record), _source(record), 0, contract_version)
    fields["arrived_at"] = arrival and _iso_milliseconds(arrival.at_seconds)
    fields |= {"original": None, "original_base64": data.decode("utf-8")}
    return Reject(rejection.reason, _encode(fields))


def _dead_letter(rejection: Rejection, arrival: Arrival, index: int, contract_version: str) -> bytes:
    fields = _dead_letter_fields(rejection, arrival.position, arrival.source, index, contract_version)
    fields["arrived_at"] = _iso_milliseconds(arrival.at_seconds)
    return _encode(fields)


def _dead_letter_fields(
    rejection: Rejection,
    position: tuple[str, ...],
    source: Mapping[str, str | int | None],
    index: int,
    contract_version: str,
) -> dict[str, Any]:
    original, original_base64 = _as_text(rejection.original)
    return {
        "reject_id": _reject_id(position, index, rejection.original),
        "reason": rejection.reason.value,
        "detail": {
            "field": rejection.detail.field,
            "value": rejection.detail.value,
            "rule": rejection.detail.rule,
        },
        "device_id": rejection.device_id,
        "timestamp": rejection.timestamp,
        "temperature": rejection.temperature,
        "stage": STAGE_NAME,
        "original": original,
        "original_base64": original_base64,
        "source": {**source, "index": index},
        "arrived_at": None,
        "contract_version": contract_version,
    }


def _as_text(original: bytes) -> tuple[str | None, str | None]:
    try:
        return original.decode("utf-8"), None
    except UnicodeDecodeError:
        return None, base64.b64encode(original).decode("ascii")


def _reject_id(position: tuple[str, ...], index: int, original: bytes) -> str:
    return hashlib.sha256(_encode([*position, index]) + b"\n" + original).hexdigest()


def _iso_milliseconds(epoch_seconds: float) -> str:
    moment = datetime.fromtimestamp(epoch_seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200].encode("utf-8", "backslashreplace").decode("utf-8")


def _dead_letter_key(prefix: str, records: Sequence[Mapping[str, Any]], now: datetime) -> str:
    """Key of the batch's dead letters: the day of its oldest arrival (UTC), and the hash of all of its positions.

    All of them: Firehose may cut a stream into other batches when it reads it again, and two batches that share their
    first or last record must not overwrite each other's rejects.
    """
    arrivals = [arrival.at_seconds for record in records if (arrival := _read_arrival_if_any(record))]
    oldest = datetime.fromtimestamp(min(arrivals), UTC) if arrivals else now.astimezone(UTC)
    digest = hashlib.sha256(_encode([_position(record) for record in records])).hexdigest()
    return f"{prefix}year={oldest.year}/month={oldest.month}/day={oldest.day}/{digest}.json.gz"
