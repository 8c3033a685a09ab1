"""The checker of conservation: whatever was sent and is found, its findings are those of a simple model."""

import ast
import json
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from telemetry_lake.conservation import comparison
from telemetry_lake.conservation.books import (
    PARKED,
    QUARANTINED,
    TRANSFORM,
    Books,
    Element,
    Reject,
    key_of,
    reading_with,
)
from telemetry_lake.conservation.elements import Reading, reading_of
from telemetry_lake.conservation.ledgers import enter_ledger
from telemetry_lake.console import OperatorError, Step
from telemetry_lake.ledger import Ledger, Place
from telemetry_lake.readings import Record

PROJECT = Path(__file__).resolve().parents[3]
OURS = ("telemetry_lake", "telemetry_contract", "functions", "glue", "transform", "function_support")
ALLOWED = ("telemetry_lake.conservation", "telemetry_lake.console")
VERSION = "1;now"

# ---------------------------------------------------------------- what it is made of


def module_file(name: str) -> Path | None:
    path = PROJECT.joinpath(*name.split("."))
    found = (path.with_suffix(".py"), path / "__init__.py")
    return next((each for each in found if each.exists()), None)


def imports_of(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, file
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_checker_shares_no_code_with_what_it_judges() -> None:
    # GIVEN / WHEN every module of ours that its modules import, and what those import in turn
    seen: set[Path] = set()
    waiting = list((PROJECT / "telemetry_lake" / "conservation").glob("*.py"))
    names: set[str] = set()
    while waiting:
        file = waiting.pop()
        seen.add(file)
        found = {name for name in imports_of(file) if name.split(".")[0] in OURS}
        names |= found
        waiting += [each for name in found if (each := module_file(name)) is not None and each not in seen]

    # THEN
    assert len(seen) >= 7
    modules = {name for name in names if module_file(name) is not None}
    assert {name for name in modules if not name.startswith(ALLOWED)} <= {"telemetry_lake"}


# ---------------------------------------------------------------- elements


def element_text(
    device_id: str = "a", temperature: str = "21.5", timestamp: str = "1792034000", more: str = ""
) -> bytes:
    return f'{{"device_id":{json.dumps(device_id)},"temperature":{temperature},"timestamp":{timestamp}{more}}}'.encode()


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        (element_text(), Reading("a", 1792034000.0, 21.5)),
        (element_text(temperature="-0", timestamp="-0.0"), Reading("a", 0.0, 0.0)),
        (element_text(temperature="9" * 300), Reading("a", 1792034000.0, float("9" * 300))),
        (element_text(more=',"note":' + "[" * 64 + "]" * 64), Reading("a", 1792034000.0, 21.5)),
        (element_text(more=',"timestamp":1'), Reading("a", 1.0, 21.5)),
        (element_text(more=',"note":' + "[" * 501 + "]" * 501), None),
        (element_text(temperature="1e400"), None),
        (element_text(temperature="NaN"), None),
        (element_text(temperature="true"), None),
        (element_text(temperature='"21.5"'), None),
        (element_text(device_id="\ud800"), None),
        (element_text() + element_text(), None),
        (element_text(device_id="é").replace("é".encode(), b"\xe9").replace(b"\\u00e9", b"\xe9"), None),
        (b"21.5", None),
        (b"", None),
    ],
)
def test_an_element_is_the_reading_that_its_three_fields_say(element: bytes, expected: Reading | None) -> None:
    found = reading_of(element)
    assert found == expected
    if found is not None:
        assert [str(number) for number in found[1:]].count("-0.0") == 0


@given(st.text(max_size=20).filter(lambda text: text.isprintable()), st.floats(allow_nan=False), st.floats())
@example("sensor", 5e-324, 0.1 + 0.2)
def test_a_key_keeps_every_bit_of_a_reading(device_id: str, timestamp: float, temperature: float) -> None:
    # GIVEN / WHEN
    found = reading_with(key_of(Reading(device_id, timestamp, temperature)))

    # THEN
    assert found.device_id == device_id
    assert struct.pack(">dd", *found[1:]) == struct.pack(">dd", timestamp, temperature)


# ---------------------------------------------------------------- ledgers


def test_a_ledger_of_the_producer_is_read_by_the_checker_s_own_reader(tmp_path: Path) -> None:
    # GIVEN records of which one was never acknowledged, and half a line that a crash has left
    path = tmp_path / "ledger"
    records = [Record(element_text() + b"\n" + element_text("b"), "a"), Record(b"\xff", "a"), Record(b" \n", "a")]
    with Ledger(path) as ledger:
        names = ledger.sending(records)
        ledger.acknowledged({names[0]: Place("s-0", "7"), names[1]: Place("s-1", "8")})
    path.write_bytes(path.read_bytes() + b'{"record": "half')

    # WHEN it is read, and a copy of it too
    with Books() as books:
        for _ in range(2):
            enter_ledger(path, books, Step(""))
        sent = sorted(books.rows("SELECT key, shard, ltrim(sequence, '0') FROM sent JOIN record ON name = record"))

    # THEN
    assert sent == sorted(
        [
            (Element.of(element_text()).key, "s-0", "7"),
            (Element.of(element_text("b")).key, "s-0", "7"),
            (Element.of(b"\xff").key, "s-1", "8"),
            (Element.of(b"").key, None, None),
        ],
        key=lambda row: row[0],
    )


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (b"no ledger\n", r"ledger, line 1, is no line of a ledger"),
        (b"[]\n", r"line 1, is no line"),
        (b'{"record": "a-1", "data_base64": "?"}\n', r"line 1, is no line"),
        (
            b'{"record": "a-1", "data": "{}"}\n{"record": "a-2", "shard": "s", "sequence_number": "1"}\n',
            "(?s)line 2.*order",
        ),
    ],
)
def test_what_is_no_ledger_is_refused_with_its_line(tmp_path: Path, lines: bytes, problem: str) -> None:
    # GIVEN
    path = tmp_path / "ledger"
    path.write_bytes(lines)

    # WHEN / THEN
    with Books() as books, pytest.raises(OperatorError, match=problem):
        enter_ledger(path, books, Step(""))


# ---------------------------------------------------------------- the model


@dataclass(frozen=True)
class Sending:
    """An element that was sent; ``spelling`` tells apart two texts of the same reading."""

    what: str
    spelling: int
    record: str
    place: tuple[str, int] | None

    @property
    def data(self) -> bytes:
        return data_of(self.what, self.spelling)


@dataclass(frozen=True)
class Kept:
    """A reject."""

    name: str
    what: str
    spelling: int
    origin: str
    reason: str
    version: str
    place: tuple[str, int] | None


@dataclass
class History:
    """Anything that may have been sent and found."""

    sent: list[Sending] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    rejects: list[Kept] = field(default_factory=list)
    resolved: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)


def data_of(what: str, spelling: int) -> bytes:
    """A reading for a small letter, no reading for a capital one."""
    return element_text(what, more=f',"n":{spelling}' * bool(spelling)) if what.islower() else what.encode()


def found_by_the_checker(history: History) -> dict[str, int]:
    with Books() as books:
        for record in dict.fromkeys(each.record for each in history.sent):
            books.add_sent(record, [Element.of(each.data) for each in history.sent if each.record == record])
        for each in history.sent:
            if each.place is not None:
                assert books.add_acknowledgement(each.record, each.place[0], str(each.place[1]))
        books.add_stored(Element.of(data_of(what, 0)).key for what in history.stored)
        books.add_rejects(
            Reject(
                each.name,
                Element.of(data_of(each.what, each.spelling)),
                each.origin,
                "key",
                each.reason,
                each.version,
                None if each.place is None else each.place[0],
                None if each.place is None else str(each.place[1]),
            )
            for each in history.rejects
        )
        books.add_resolved(history.resolved)
        books.close_entries()
        comparison.find_missing(books)
        books.add_waiting(Element.of(data_of(what, 0)).key for what in history.waiting)
        report = comparison.compare(books, VERSION)
        assert all(1 <= len(finding.examples) <= 3 for finding in (*report.findings, *report.causes))
        return {finding.kind: finding.count for finding in (*report.findings, *report.causes)}


def found_by_the_model(history: History) -> dict[str, int]:
    """The invariants of the design, in sets and counts."""
    acknowledged = [each for each in history.sent if each.place is not None]
    kept = [each for each in history.rejects if each.name not in history.resolved]
    sent_times = Counter(each.what for each in history.sent)
    stored, sent = set(history.stored), set(sent_times)
    kept_readings = {each.what for each in kept if each.what.islower()}
    missing = {each.what for each in acknowledged if each.what.islower()} - stored - kept_readings

    def furthest(places: Sequence[tuple[str, int] | None]) -> dict[str, int]:
        return dict(sorted(place for place in places if place is not None))

    delivered = furthest(
        [each.place for each in acknowledged if each.what in stored | history.waiting and sent_times[each.what] == 1]
    )
    judged = furthest([*delivered.items(), *(each.place for each in history.rejects)])
    overtaken = {
        each.what
        for each in acknowledged
        if each.place is not None and each.place[1] < delivered.get(each.place[0], -1)
    } & missing - history.waiting

    lost_records = late_records = 0
    for what in {each.what for each in acknowledged if each.what.isupper()}:
        sendings = Counter(each.place for each in acknowledged if each.what == what)
        rejects = Counter(each.place for each in kept if each.what == what)
        unkept = sendings - rejects
        spare = sum(times for place, times in rejects.items() if place not in sendings)
        late = sum(
            times for place, times in unkept.items() if place is not None and place[1] >= judged.get(place[0], -1)
        )
        short = max(0, unkept.total() - spare)
        late_records += min(late, short)
        lost_records += short - min(late, short)

    causes: Counter[str] = Counter()
    for each in history.rejects:
        if each.what in stored and each.what.islower():
            causes[cause_by_the_model(each, history, sent_times[each.what])] += 1
    counts = {
        comparison.LOST_READING: len(overtaken),
        comparison.LOST_RECORD: lost_records,
        comparison.STORED_TWICE: sum(times > 1 for times in Counter(history.stored).values()),
        comparison.ROW_NEVER_SENT: len(stored - sent),
        comparison.REJECT_NEVER_SENT: sum(each.what not in sent for each in history.rejects),
        comparison.IN_RAW_ZONE: len(missing & history.waiting),
        comparison.NOT_DELIVERED: len(missing - history.waiting - overtaken),
        comparison.RECORD_NOT_DELIVERED: late_records,
        **causes,
    }
    return {kind: count for kind, count in counts.items() if count}


def cause_by_the_model(reject: Kept, history: History, sent_times: int) -> str:
    others = [each for each in history.sent if each.what == reject.what and each.spelling != reject.spelling]
    possible = {
        comparison.REPLAY: reject.name in history.resolved,
        comparison.PARKED_WHOLE: reject.origin == PARKED,
        comparison.QUARANTINED_WHOLE: reject.origin == QUARANTINED,
        comparison.CLOCK: sent_times > 1 and reject.reason.startswith("timestamp_"),
        comparison.CONTRACT_CHANGE: sent_times > 1 and reject.origin == TRANSFORM and reject.version != VERSION,
        comparison.OTHER_FIELDS: bool(others) and reject.reason in ("number_too_long", "not_finite"),
    }
    return next((cause for cause, holds in possible.items() if holds), comparison.IN_BOTH_PLACES)


WHATS = st.sampled_from("abcdABC")
SPELLINGS = st.sampled_from((0, 0, 1))
PLACES = st.tuples(st.sampled_from(("s-1", "s-2")), st.integers(1, 30))


@st.composite
def histories(draw: st.DrawFn) -> History:
    records = draw(st.lists(st.tuples(st.lists(st.tuples(WHATS, SPELLINGS), min_size=1, max_size=3), st.booleans())))
    places = draw(st.lists(PLACES, min_size=len(records), max_size=len(records), unique=True))
    sent = [
        Sending(what, spelling, f"r-{number}", place if is_acknowledged else None)
        for number, ((elements, is_acknowledged), place) in enumerate(zip(records, places, strict=True))
        for what, spelling in elements
    ]
    known = st.sampled_from([each.place for each in sent]) if sent else st.none()
    reject = st.tuples(
        WHATS,
        SPELLINGS,
        st.sampled_from((TRANSFORM, TRANSFORM, "etl", PARKED, QUARANTINED)),
        st.sampled_from(("timestamp_in_future", "timestamp_too_old", "temperature_out_of_range", "not_finite")),
        st.sampled_from((VERSION, VERSION, "1;before")),
        st.one_of(known, known, PLACES, st.none()),
    )
    rejects = [Kept(f"j-{number}", *fields) for number, fields in enumerate(draw(st.lists(reject, max_size=8)))]
    names = [each.name for each in rejects]
    return History(
        sent,
        draw(st.lists(st.sampled_from("abcd"), max_size=6)),
        rejects,
        set(draw(st.lists(st.sampled_from(names), max_size=2))) if names else set(),
        set(draw(st.lists(st.sampled_from("abcd"), max_size=2))),
    )


def sent(*whats: str) -> list[Sending]:
    return [Sending(what, 0, f"r-{number}", ("s-1", number)) for number, what in enumerate(whats, start=8)]


@settings(max_examples=200)
@given(histories())
@example(History(sent("a", "b", "c"), ["b", "c"]))
@example(History(sent("A", "a", "b"), ["a", "b"]))
@example(History(sent("a"), ["a"], [Kept("j", "a", 0, TRANSFORM, "timestamp_in_future", VERSION, ("s-1", 8))]))
@example(History(sent("a", "a"), ["a"], [Kept("j", "a", 0, TRANSFORM, "timestamp_in_future", VERSION, ("s-1", 8))]))
def test_whatever_was_sent_and_found_the_findings_are_those_of_the_model(history: History) -> None:
    assert found_by_the_checker(history) == found_by_the_model(history)
