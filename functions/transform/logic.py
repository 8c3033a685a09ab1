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

import json
from binascii import a2b_base64, b2a_base64
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from telemetry_contract import (
    Detail,
    Policy,
    Reading,
    Reason,
    Rejection,
    judge,
    reject_empty_record,
    short_line,
    split_record,
)
from transform.arrival import MAX_EPOCH_MILLISECONDS, Record, arrival_seconds

if TYPE_CHECKING:
    from transform.dead_letters import DeadLetter

MAX_RESPONSE_BYTES = 6_000_000
"""Room for the answer. Lambda's synchronous response may have 6 MB, and Firehose says the same of request and response
(https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html); the rest up to 6 MiB is left free."""

MAX_ELEMENTS = 100_000
"""Most elements that are judged one by one in a batch. The largest request (6 MB, in base64) has room for fewer
readings; junk like ``[0,0,0,...]`` for millions, whose dead letters would take more memory than the function has."""

_EMPTY_ANSWER_BYTES = len(json.dumps({"recordId": "", "result": "ProcessingFailed", "data": ""})) + len(", ")
_ENVELOPE_BYTES = len(json.dumps({"records": []}))


class TooManyElementsError(Exception):
    """A record holds more elements than the batch has room for."""


class Outcome(msgspec.Struct, frozen=True):
    """What a record comes to.

    Attributes:
        lines: its good readings as canonical lines, each ended by a line feed.
        dead_letters: its rejected elements.
    """

    lines: bytes
    dead_letters: "tuple[DeadLetter, ...]" = ()


class BatchPlan(msgspec.Struct, frozen=True):
    """Everything about a batch that is decided before its one side effect; records by their index in the event.

    Attributes:
        record_ids: Firehose's ids of the records.
        lines: each record's good readings as canonical lines; empty when it has none.
        dead_letters: the rejected elements of those records that have any.
        overflowing: records that are too much for the answer or for one batch; they are kept whole by Firehose, so
            their rejects are not written either.
        dead_letter_key: key of the batch's dead letters, or None when it has none.
        dead_letter_body: gzip of the dead letters, one JSON object a line.
    """

    record_ids: Sequence[str]
    lines: Sequence[bytes]
    dead_letters: "Mapping[int, tuple[DeadLetter, ...]]"
    overflowing: frozenset[int]
    dead_letter_key: str | None
    dead_letter_body: bytes

    def answer(self, *, dead_letters_stored: bool) -> dict[str, list[dict[str, str]]]:
        """Firehose's answer.

        Args:
            dead_letters_stored: whether the dead letters are safe. If not, each record that has any is kept whole.
        """
        # Firehose's documents ask for `data` in every answer, also where there is none to deliver.
        answers = [
            {
                "recordId": record_id,
                "result": "Ok" if lines else "Dropped",
                "data": b2a_base64(lines, newline=False).decode("ascii"),
            }
            for record_id, lines in zip(self.record_ids, self.lines, strict=True)
        ]
        for index in self.parked(dead_letters_stored=dead_letters_stored):
            answers[index] |= {"result": "ProcessingFailed", "data": ""}
        return {"records": answers}

    def parked(self, *, dead_letters_stored: bool) -> frozenset[int]:
        """Records that Firehose must keep whole."""
        return self.overflowing if dead_letters_stored else self.overflowing | self.dead_letters.keys()

    def accepted_count(self, *, dead_letters_stored: bool) -> int:
        """Readings that leave for the raw zone."""
        parked = self.parked(dead_letters_stored=dead_letters_stored)
        return b"".join(lines for index, lines in enumerate(self.lines) if index not in parked).count(b"\n")

    def rejected_by_reason(self) -> Counter[str]:
        """Rejects in the dead letters, by reason."""
        return Counter(
            letter.reason.value
            for index, letters in self.dead_letters.items()
            if index not in self.overflowing
            for letter in letters
        )


def plan_batch(
    event: Mapping[str, Any],
    *,
    policy: Policy,
    dead_letter_prefix: str,
    now: datetime,
    max_response_bytes: int = MAX_RESPONSE_BYTES,
    max_elements: int = MAX_ELEMENTS,
) -> BatchPlan:
    """Decide what becomes of every record of a batch.

    Args:
        event: Firehose's event.
        policy: the limits.
        dead_letter_prefix: key prefix of the dead letters.
        now: current time, aware; only dates the dead letters of a batch in which no record says when it arrived.
        max_response_bytes: room for the answer, bytes.
        max_elements: most elements that are judged one by one.
    """
    records: Sequence[Record] = event["records"]
    record_ids = [record["recordId"] for record in records]
    contract_version = policy.contract_version
    lines: list[bytes] = []
    dead_letters = {}
    overflowing = set()
    for index, record in enumerate(records):
        line = _short_line(record, policy)
        if line is not None:
            lines.append(line)
            continue
        try:
            outcome, element_count = _judge_record(record, policy, contract_version, max_elements)
        except TooManyElementsError:
            overflowing.add(index)
            lines.append(b"")
            continue
        max_elements -= element_count
        lines.append(outcome.lines)
        if outcome.dead_letters:
            dead_letters[index] = outcome.dead_letters
    overflowing |= _beyond_the_response(record_ids, lines, max_response_bytes)
    letters = [letter for index, some in dead_letters.items() if index not in overflowing for letter in some]
    if not letters:
        return BatchPlan(record_ids, lines, dead_letters, frozenset(overflowing), None, b"")
    from transform.dead_letters import object_body, object_key  # noqa: PLC0415  most batches have no use for it

    return BatchPlan(
        record_ids,
        lines,
        dead_letters,
        frozenset(overflowing),
        object_key(dead_letter_prefix, records, now),
        object_body(letters),
    )


def _beyond_the_response(record_ids: Sequence[str], lines: Sequence[bytes], max_response_bytes: int) -> set[int]:
    """Records whose lines do not fit, first come first served; every record has room for an answer."""
    used = _ENVELOPE_BYTES + _EMPTY_ANSWER_BYTES * len(record_ids) + sum(map(len, record_ids))
    if used + _base64_length(sum(map(len, lines)) + 2 * len(lines)) <= max_response_bytes:
        return set()
    overflowing = set()
    for index, some in enumerate(lines):
        length = _base64_length(len(some))
        if used + length > max_response_bytes:
            overflowing.add(index)
        else:
            used += length
    return overflowing


def _base64_length(byte_count: int) -> int:
    """Length of so many bytes in base64, with padding."""
    return (byte_count + 2) // 3 * 4


def _short_line(record: Record, policy: Policy) -> bytes | None:
    """The line of a record that is one plain reading; None where it takes more to judge it."""
    try:
        milliseconds = record.get("kinesisRecordMetadata", record)["approximateArrivalTimestamp"]
        if not 0 <= milliseconds < MAX_EPOCH_MILLISECONDS:
            return None
        line = short_line(a2b_base64(record["data"], strict_mode=True), milliseconds / 1000, policy)
    except Exception:  # noqa: BLE001  the thorough way says what is wrong with the record
        return None
    return None if line is None else line + b"\n"


def _judge_record(record: Record, policy: Policy, contract_version: str, max_elements: int) -> tuple[Outcome, int]:
    """Judge a record the thorough way, element by element; also says how many there were.

    Raises:
        TooManyElementsError: there are more than ``max_elements``.
    """
    try:
        arrived_at_seconds = arrival_seconds(record)
        data = a2b_base64(record["data"], strict_mode=True)
        elements = split_record(data)
        if len(elements) > max_elements:
            raise TooManyElementsError
        verdicts = [_judge_element(element, arrived_at_seconds, policy) for element in elements]
        lines = b"".join(verdict + b"\n" for verdict in verdicts if isinstance(verdict, bytes))
        rejections = [(index, each) for index, each in enumerate(verdicts) if isinstance(each, Rejection)]
        if not elements:
            rejections = [(0, reject_empty_record(data))]
        if not rejections:
            return Outcome(lines), len(elements)
        from transform.dead_letters import of_rejections  # noqa: PLC0415

        return Outcome(lines, of_rejections(record, rejections, arrived_at_seconds, contract_version)), len(elements)
    except TooManyElementsError:
        raise
    except Exception as error:  # noqa: BLE001  one record's failure is its own reject, with all that it held
        from transform.dead_letters import of_unread_record  # noqa: PLC0415

        return Outcome(b"", (of_unread_record(record, _describe(error), contract_version),)), 1


def _judge_element(element: bytes, arrived_at_seconds: float, policy: Policy) -> bytes | Rejection:
    """The canonical line of an element, or why it has none."""
    try:
        line = short_line(element, arrived_at_seconds, policy)
        if line is not None:
            return line
        verdict = judge(element, arrived_at_seconds, policy)
    except Exception as error:  # noqa: BLE001  the element is kept as a reject; its neighbours are judged on their own
        return Rejection(Reason.INTERNAL_ERROR, Detail(None, None, _describe(error)), element)
    return verdict.line if isinstance(verdict, Reading) else verdict


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200].encode("utf-8", "backslashreplace").decode("utf-8")
