"""The load test in small, and that it would notice what it looks for."""

from collections import Counter
from pathlib import Path

import pytest

from tests.load.__main__ import run
from tests.load.offers import OFFERS, Outcome

RECORDS = OFFERS[0]


def outcome(*, acknowledged: int = 10_000, throttled: int = 90_000) -> Outcome:
    names = {b"%012d" % number for number in range(acknowledged)}
    return Outcome(
        seconds=10.0,
        offered=100_000,
        throttled=throttled,
        acknowledged=names,
        in_stream=Counter(names),
        delivered=Counter(names),
    )


def test_what_aws_would_do_is_no_finding() -> None:
    assert outcome().findings(RECORDS) == []


@pytest.mark.parametrize(
    ("wrong", "finding"),
    [
        (outcome(acknowledged=13_000, throttled=87_000), "more than a shard takes"),
        (outcome(acknowledged=8_000, throttled=92_000), "less than a shard takes"),
        (outcome(throttled=89_999), "neither acknowledged nor throttled"),
    ],
)
def test_a_wrong_number_is_found(wrong: Outcome, finding: str) -> None:
    assert [finding in found for found in wrong.findings(RECORDS)] == [True]


def test_a_lost_record_is_found() -> None:
    # GIVEN one that is not in the stream any more, another that was not delivered
    lossy = outcome()
    del lossy.in_stream[b"%012d" % 7]
    del lossy.delivered[b"%012d" % 8]

    # WHEN / THEN
    stream, delivery = lossy.findings(RECORDS)
    assert "the stream has other records" in stream
    assert "has not delivered" in delivery


def test_seconds_of_it(tmp_path: Path) -> None:
    # WHEN five seconds of ten times the limits, and 256 MiB through S3
    findings = run(5.0, 256, tmp_path)

    # THEN
    assert findings == []
