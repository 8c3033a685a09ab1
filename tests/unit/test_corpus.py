"""The corpus: thousands of odd records, each judged as the oracle and every other way of judging say."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telemetry_contract import Reading, judge, judge_record
from telemetry_lake.conservation.elements import elements
from tests.corpus import fuzz
from tests.corpus.cases import FAMILIES, READING, cases
from tests.corpus.checking import check
from tests.corpus.oracle import Limits, Number, opinion
from tests.corpus.verdicts import print_counts

LEAST_CASES = 10_000
ARRIVED_AT = 1_792_034_100.0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_element_of_every_record_gets_the_one_verdict_that_the_contract_gives(family: str) -> None:
    # WHEN
    wrong = [
        f"{case.name}: {problem}"
        for case in cases()
        if case.family == family
        if (problem := fuzz.complaint(case.record))
    ]

    # THEN
    assert wrong == []


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    # WHEN
    names = [case.name for case in cases()]

    # THEN
    assert len(names) >= LEAST_CASES
    assert len(set(names)) == len(names)


# ---------------------------------------------------------------- the oracle by itself


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"", []),
        (b"[]", []),
        (b' [1 , {"a":[2]}] ', [b"1", b'{"a":[2]}']),
        (b"[1,2", [b"[1,2"]),
        (b"1\n\n 2 \r\n", [b"1", b"2"]),
        (b"{}{}", [b"{}{}"]),
        (b"[" * 3000 + b"1" + b"]" * 3000, [b"[" * 2999 + b"1" + b"]" * 2999]),
    ],
)
def test_the_oracle_finds_elements(record: bytes, expected: list[bytes]) -> None:
    assert elements(record) == expected


def test_the_oracle_reads_a_reading_and_says_what_is_wrong_with_another() -> None:
    # WHEN
    good = opinion(b'{"x":1.50,"timestamp":1792034000,"temperature":-0,"device_id":"a"}', ARRIVED_AT, Limits())

    # THEN
    assert good.reason is None
    assert good.fields == {"device_id": "a", "temperature": 0.0, "timestamp": 1792034000.0, "x": Number("1.50")}
    assert opinion(READING, ARRIVED_AT, Limits(temperature_max=21)).reason == "temperature_out_of_range"
    assert opinion(READING, 0, Limits()).reason == "timestamp_in_future"


# ---------------------------------------------------------------- planted faults


def _no_reading_below_zero(element: bytes, *arguments: Any) -> Any:
    return None if b"-" in element else judge(element, *arguments)


def _last_element_lost(record: bytes, *arguments: Any) -> Any:
    verdicts = judge_record(record, *arguments)
    return verdicts[:-1] if len(verdicts) > 1 else verdicts


def _line_with_a_space(record: bytes, *arguments: Any) -> Any:
    return tuple(
        Reading(verdict.identity, verdict.line.replace(b":", b": ", 1)) if isinstance(verdict, Reading) else verdict
        for verdict in judge_record(record, *arguments)
    )


def _original_cut(record: bytes, *arguments: Any) -> Any:
    return tuple(
        verdict if isinstance(verdict, Reading) else type(verdict)(verdict.reason, verdict.detail, verdict.original[:5])
        for verdict in judge_record(record, *arguments)
    )


def _too_generous(element: bytes, *_: Any) -> Any:
    return element if element.startswith(b"{") else None


@pytest.mark.parametrize(
    ("name", "fault", "complaint"),
    [
        ("judge_record", _last_element_lost, "not one verdict for each element"),
        ("judge_record", _line_with_a_space, "another line|no fixed point"),
        ("judge_record", _original_cut, "not what was sent"),
        ("judge", _no_reading_below_zero, "no fixed point"),
        ("short_line", _too_generous, "the short way"),
        ("split_record", lambda record: (record,), "elements instead of"),
    ],
)
def test_a_planted_fault_is_found(
    name: str, fault: Callable[..., Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN a record with good and bad elements
    record = READING.replace(b"21.5", b"-1.5") + b"\nno reading\n" + READING + b"\n" + READING.replace(b"21.5", b"999")
    check(record)

    # WHEN
    monkeypatch.setattr(f"tests.corpus.checking.{name}", fault)

    # THEN
    with pytest.raises(AssertionError, match=complaint):
        check(record)


def test_the_fuzzer_keeps_what_it_finds_as_small_as_it_gets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # GIVEN a contract that loses the last element
    monkeypatch.setattr("tests.corpus.checking.judge_record", _last_element_lost)
    monkeypatch.chdir(tmp_path)

    # WHEN
    code = fuzz.fuzz(minutes=1, seed=7)

    # THEN
    assert code == 1
    assert "again with --seed 7" in capsys.readouterr().out
    (kept,) = (tmp_path / fuzz.FOUND).iterdir()
    assert len(kept.read_bytes()) <= len(b"0\n0")
    assert fuzz.complaint(kept.read_bytes())


def test_the_fuzzer_does_the_same_again_with_the_same_seed() -> None:
    # WHEN
    first, again = ([fuzz.mutated(random.Random(number), [READING]) for number in range(50)] for _ in range(2))

    # THEN
    assert first == again
    assert len(set(first)) > 40


def test_the_fuzzer_ends_well_when_nothing_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    # WHEN
    code = fuzz.fuzz(minutes=0.01, seed=1)

    # THEN
    assert code == 0
    assert "nothing found" in capsys.readouterr().out


def test_the_counts_are_a_table_by_family(capsys: pytest.CaptureFixture[str]) -> None:
    # WHEN
    print_counts({"a": (2, check(READING + b"\nx")), "b": (1, check(b""))})

    # THEN
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["records", "2", "1", "3"] in rows
    assert ["accepted", "1", "0", "1"] in rows
    assert ["empty_record", "0", "1", "1"] in rows
    assert ["verdicts", "2", "1", "3"] in rows
