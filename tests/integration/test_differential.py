"""The transform and the job judge the whole corpus alike: what one accepts or rejects, the other does."""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any, NamedTuple

from telemetry_contract import Identity, Policy, Reading, Reason, Rejection, judge, split_record
from tests.corpus.cases import cases
from tests.integration.conftest import Lake, Run

IDENTITY = Identity._fields
LONG_LINE_BYTES = 200_000
ARRIVED_AT = 1_792_034_100.0
# Policy is the transform's alone, so it admits all here that has a day in the years 1 to 9999, as the job does.
LIMITLESS = Policy(
    temperature_min=-1.7976931348623157e308,
    temperature_max=1.7976931348623157e308,
    max_future_seconds=253_402_214_400 - ARRIVED_AT,
    max_age_days=(ARRIVED_AT + 62_135_510_400) / 86_400,
)


class Elements(NamedTuple):
    """The corpus as the transform sees it: canonical lines with their identities, and rejections by the line."""

    accepted: dict[bytes, Identity]
    rejected: dict[bytes, Rejection]


def judged_corpus() -> Elements:
    """Every element of every record, as a line: what breaks lines in it is a blank there.

    Of the elements that differ in being long alone, the shortest of each verdict: all of them would be 50 MB.
    """
    lines = {re.sub(rb"[\r\n]", b" ", element) for case in cases() for element in split_record(case.record)}
    found = Elements({}, {})
    verdicts_on_long_lines: set[str | None] = set()
    for line in sorted(lines, key=lambda line: (len(line), line)):
        verdict = judge(line, ARRIVED_AT, LIMITLESS)
        if len(line) > LONG_LINE_BYTES:
            reason = None if isinstance(verdict, Reading) else verdict.reason.value
            if reason in verdicts_on_long_lines:
                continue
            verdicts_on_long_lines.add(reason)
        if isinstance(verdict, Reading):
            found.accepted[verdict.line] = verdict.identity
        elif line.strip(b" \t"):
            found.rejected[line] = verdict
    return found


def is_beyond_the_job(line: bytes, rejection: Rejection) -> bool:
    """Whether the rule that was broken is one that the job leaves to the transform.

    They bound what a line may hold (depth, length of numbers, other fields' numbers), or are about a field that is
    there twice. Canonical lines keep all of them, and the job looks at a reading's own three fields.
    """
    return (
        rejection.reason in (Reason.TOO_DEEP, Reason.NUMBER_TOO_LONG)
        or (rejection.reason == Reason.NOT_FINITE and rejection.detail.field not in IDENTITY)
        or re.search(rb"[0-9]{1001}", line) is not None
        or _names_a_field_twice(line)
    )


def _names_a_field_twice(line: bytes) -> bool:
    def is_repeated(pairs: list[tuple[str, Any]]) -> bool:
        names = [name for name, _ in pairs if name in IDENTITY]
        return len(names) > len(set(names))

    try:
        return json.loads(line, object_pairs_hook=is_repeated) is True
    except (ValueError, RecursionError):
        return False


class JsonObject(list[tuple[str, Any]]):
    """Names and values as they come, repeated ones too."""


def readable_identities(lines: Iterable[bytes]) -> Iterator[tuple[str, float, float]]:
    """What a parser without bounds could take for a reading: for a field that is there twice, every pair of values."""
    for line in lines:
        try:
            pairs = json.loads(line, object_pairs_hook=JsonObject)
        except (ValueError, RecursionError):
            continue
        if not isinstance(pairs, JsonObject):
            continue
        values = [[value for name, value in pairs if name == wanted] for wanted in IDENTITY]
        for device_id, timestamp, temperature in product(*values):
            if (
                isinstance(device_id, str)
                and isinstance(timestamp, int | float)
                and isinstance(temperature, int | float)
            ):
                yield device_id, float(timestamp), float(temperature)


def test_what_the_transform_accepts_the_job_stores_and_what_has_another_shape_both_reject_with_one_reason(
    lake: Lake, run: Run, spark: Any
) -> None:
    # GIVEN the canonical lines of all that the transform accepts in the corpus, and all that it rejects
    accepted, rejected = judged_corpus()
    lake.put_lines("accepted.gz", list(accepted))
    lines = list(rejected)
    for number in range(8):
        lake.put_lines(f"rejected-{number}.gz", lines[number::8])

    # WHEN the job reads them
    summary = run("jr_1")

    # THEN the table has the very identities that the transform read, each once
    compared = {line: verdict for line, verdict in rejected.items() if not is_beyond_the_job(line, verdict)}
    assert len(accepted) > 600
    assert len(compared) > 7000
    assert len(rejected) - len(compared) < 300
    stored = Counter(row[:3] for row in lake.rows(spark))
    assert set(accepted.values()) - stored.keys() == set()
    assert stored.keys() - set(accepted.values()) <= set(readable_identities(rejected.keys() - compared.keys()))
    assert set(stored.values()) == {1}
    # THEN what has another shape is rejected for the same reason, byte for byte as it was
    reasons = {
        base64.b64decode(letter["original_base64"]) if letter["original"] is None else letter["original"].encode(): (
            letter["reason"]
        )
        for letter in lake.dead_letters()
    }
    assert {line: (verdict.reason.value, reasons.get(line)) for line, verdict in compared.items()} == {
        line: (verdict.reason.value, verdict.reason.value) for line, verdict in compared.items()
    }
    # THEN every line has one verdict
    assert summary["counts"]["lines"] == len(accepted) + len(rejected)
