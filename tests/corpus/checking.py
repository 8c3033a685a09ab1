"""What has to hold for any record whatever: the corpus and the fuzzer both ask here."""

import base64
import gzip
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from telemetry_contract import Policy, Reading, Rejection, judge, judge_record, short_line, split_record
from telemetry_lake.conservation.elements import WHITESPACE, elements
from tests.corpus import oracle
from transform.logic import plan_batch

ARRIVED_AT_MILLISECONDS = 1_792_034_100_123
ARRIVED_AT = ARRIVED_AT_MILLISECONDS / 1000
POLICY = Policy()
LIMITS = oracle.Limits()
ACCEPTED = "accepted"
# A number of the contract is written as the shortest text of its double: 1e15 becomes 1000000000000000.0, for instance.
MOST_GROWTH_BYTES = 2 * 16
NEIGHBOUR = b'{"device_id":"neighbour","temperature":1,"timestamp":1792034000}'
NEIGHBOUR_LINE = b'{"device_id":"neighbour","temperature":1.0,"timestamp":1792034000.0}\n'
_NOW = datetime(2026, 11, 1, tzinfo=UTC)


def check(record: bytes) -> Counter[str]:
    """Judge a record in every way there is, and return its verdicts.

    Raises:
        AssertionError: two ways differ, a neighbour was harmed, or something was lost.
    """
    verdicts = judge_record(record, ARRIVED_AT, POLICY)
    pieces = split_record(record)
    _assert_same_elements(record, pieces)
    assert len(verdicts) == max(1, len(pieces)), "not one verdict for each element"
    if pieces:
        for piece, verdict in zip(pieces, verdicts, strict=True):
            _assert_by_the_contract(piece, verdict)
    else:
        assert [verdict.reason for verdict in verdicts if isinstance(verdict, Rejection)] == ["empty_record"]
    _assert_conserved_by_the_transform(record, verdicts)
    return Counter(ACCEPTED if isinstance(verdict, Reading) else verdict.reason.value for verdict in verdicts)


def _assert_same_elements(record: bytes, pieces: Sequence[bytes]) -> None:
    expected = elements(record)
    found = [piece.strip(WHITESPACE) for piece in pieces]
    assert found == expected, f"{len(found)} elements instead of {len(expected)}"


def _assert_by_the_contract(piece: bytes, verdict: Reading | Rejection) -> None:
    expected = oracle.opinion(piece, ARRIVED_AT, LIMITS)
    short = short_line(piece, ARRIVED_AT, POLICY)
    if isinstance(verdict, Rejection):
        assert verdict.reason == expected.reason, f"{verdict.reason} instead of {expected.reason}: {piece[:200]!r}"
        assert verdict.original == piece, "the original is not what was sent"
        assert short is None, "the short way accepts what is rejected"
        return
    assert expected.reason is None, f"accepted instead of {expected.reason}: {piece[:200]!r}"
    assert oracle.read_line(verdict.line) == expected.fields, f"another value: {verdict.line!r}"
    assert short in (None, verdict.line), f"the short way has another line: {short!r}"
    assert len(verdict.line) <= len(piece) + MOST_GROWTH_BYTES, "it grew"
    assert min(verdict.line) >= ord(" "), "a control character in the line"
    again = judge(verdict.line, ARRIVED_AT, POLICY)
    assert again == verdict, "the canonical line is no fixed point"


def _assert_conserved_by_the_transform(record: bytes, verdicts: Sequence[Reading | Rejection]) -> None:
    """Between two neighbours, in one batch: what is answered and what is a dead letter is what was judged."""
    plan = plan_batch(
        {"records": [_sent(number, data) for number, data in enumerate((NEIGHBOUR, record, NEIGHBOUR))]},
        policy=POLICY,
        dead_letter_prefix="dlq/",
        now=_NOW,
    )
    before, answer, after = plan.answer(dead_letters_stored=True)["records"]
    assert base64.b64decode(before["data"]) == base64.b64decode(after["data"]) == NEIGHBOUR_LINE
    if answer["result"] == "ProcessingFailed":
        assert 1 in plan.overflowing
        return
    lines = [verdict.line for verdict in verdicts if isinstance(verdict, Reading)]
    assert base64.b64decode(answer["data"]) == b"".join(line + b"\n" for line in lines)
    assert answer["result"] == ("Ok" if lines else "Dropped")
    body = gzip.decompress(plan.dead_letter_body) if plan.dead_letter_body else b""
    letters = [json.loads(line) for line in body.split(b"\n") if line]
    rejections = [verdict for verdict in verdicts if isinstance(verdict, Rejection)]
    assert [letter["reason"] for letter in letters] == [rejection.reason for rejection in rejections]
    assert [_original(letter) for letter in letters] == [rejection.original for rejection in rejections]
    assert len({letter["reject_id"] for letter in letters}) == len(letters), "two rejects have one id"


def _sent(number: int, data: bytes) -> dict[str, Any]:
    return {
        "recordId": f"record-{number}",
        "approximateArrivalTimestamp": ARRIVED_AT_MILLISECONDS,
        "data": base64.b64encode(data).decode(),
    }


def _original(letter: dict[str, Any]) -> bytes:
    if letter["original"] is not None:
        return str(letter["original"]).encode()
    return base64.b64decode(letter["original_base64"])
