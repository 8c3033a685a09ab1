"""The data contract: what is split, what is accepted, what is rejected and why."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from telemetry_contract import Identity, Policy, Reading, Reason, Rejection, judge, judge_record, split_record

ARRIVED_AT = 1_760_497_200.0
POLICY = Policy()


def reading(**changes: Any) -> dict[str, Any]:
    return {"device_id": "sensor-1", "temperature": 21.5, "timestamp": ARRIVED_AT - 10, **changes}


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def accepted(element: bytes, policy: Policy = POLICY) -> Reading:
    verdict = judge(element, ARRIVED_AT, policy)
    assert isinstance(verdict, Reading), verdict
    return verdict


def rejected(element: bytes, policy: Policy = POLICY) -> Rejection:
    verdict = judge(element, ARRIVED_AT, policy)
    assert isinstance(verdict, Rejection), verdict
    return verdict


# ---------------------------------------------------------------- splitting


@pytest.mark.parametrize(
    ("record", "elements"),
    [
        (b'{"a":1}', (b'{"a":1}',)),
        (b'{\n "a": 1\n}\n', (b'{\n "a": 1\n}\n',)),
        (b'[{"a":1}, 2 ,"x"]', (b'{"a":1}', b"2", b'"x"')),
        (b'{"a":1}\n{"b":2}\n', (b'{"a":1}', b'{"b":2}')),
        (b'{"a":1}\r\n\r\n{"b":2}', (b'{"a":1}\r', b'{"b":2}')),
        (b'{"a":1}\nnonsense\n{"b":2}', (b'{"a":1}', b"nonsense", b'{"b":2}')),
        (b'{"a":"x\xe2\x80\xa8y"}\n{"b":2}', (b'{"a":"x\xe2\x80\xa8y"}', b'{"b":2}')),
        (b'{"a":"\xff"}\n{"b":2}', (b'{"a":"\xff"}', b'{"b":2}')),
        (b'["\xff",{"b":2}]', (b'"\xff"', b'{"b":2}')),
        (b'{"a":1}{"b":2}', (b'{"a":1}{"b":2}',)),
        (b"17", (b"17",)),
        (b"", ()),
        (b" \r\n\t\n", ()),
        (b" [ ] ", ()),
        (rb'"\ud800"', (rb'"\ud800"',)),
    ],
)
def test_a_record_is_read_whole_first_and_cut_at_line_feeds_only_if_that_fails(
    record: bytes, elements: tuple[bytes, ...]
) -> None:
    # WHEN
    found = split_record(record)

    # THEN
    assert found == elements


@pytest.mark.parametrize(
    "bad",
    [
        rb'{"device_id":"\ud800","temperature":1,"timestamp":1}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    ],
)
def test_a_member_beyond_the_parser_leaves_its_neighbours_in_an_array_alone(bad: bytes) -> None:
    # GIVEN a record whose grammar is in order and which the parser refuses as a whole
    good = encode(reading(device_id="a,]\"'"))

    # WHEN
    verdicts = judge_record(b"[" + good + b" ,\n" + bad + b"," + good + b"]", ARRIVED_AT, POLICY)

    # THEN
    assert [type(verdict) for verdict in verdicts] == [Reading, Rejection, Reading]


def test_an_unclosed_string_of_escaped_quotes_takes_linear_time() -> None:
    # GIVEN a megabyte that would take hours if every quote were tried anew
    record = b"[" * 500_000 + b'"' + rb"\"" * 500_000

    # WHEN
    verdicts = judge_record(record, ARRIVED_AT, POLICY)

    # THEN
    assert [verdict.reason for verdict in verdicts if isinstance(verdict, Rejection)] == [Reason.TOO_DEEP]


@pytest.mark.parametrize("record", [b"", b"\n", b" \r\n ", b"[]", b"[ ]"])
def test_a_record_without_any_element_is_one_reject(record: bytes) -> None:
    # WHEN
    (verdict,) = judge_record(record, ARRIVED_AT, POLICY)

    # THEN
    assert isinstance(verdict, Rejection)
    assert (verdict.reason, verdict.original) == (Reason.EMPTY_RECORD, record)


# ---------------------------------------------------------------- accepting


def test_the_canonical_line_is_compact_with_the_contract_fields_first() -> None:
    # GIVEN
    element = (
        b'{ "note": "caf\\u00e9\\n",\r\n "timestamp": 1760497190, "temperature": 21.50, "device_id": "s\\u002d1" }'
    )

    # WHEN
    verdict = accepted(element)

    # THEN
    expected = '{"device_id":"s-1","temperature":21.5,"timestamp":1760497190.0,"note":"café\\n"}'
    assert verdict.line == expected.encode()
    assert verdict.identity == Identity("s-1", 1760497190.0, 21.5)


def test_other_fields_keep_the_digits_they_were_sent_with() -> None:
    # GIVEN numbers that a double cannot hold
    others = (
        b'"serial":123456789012345678901234567890,"exact":0.10000000000000000000000000001,"list":[ 1.50 , -0 , 1E5 ]'
    )

    # WHEN
    verdict = accepted(b'{"device_id":"s","temperature":1,"timestamp":1760497190,' + others + b"}")

    # THEN
    assert verdict.line.endswith(b"," + others.replace(b" ", b"") + b"}")


def test_the_last_of_duplicate_keys_wins_at_every_level() -> None:
    # GIVEN
    element = b'{"device_id":"a","device_id":"b","temperature":1,"timestamp":1760497190,"x":{"k":1,"\\u006b":2}}'

    # WHEN
    verdict = accepted(element)

    # THEN
    assert verdict.line == b'{"device_id":"b","temperature":1.0,"timestamp":1760497190.0,"x":{"k":2}}'


def test_minus_zero_is_zero() -> None:
    # WHEN
    verdict = accepted(encode(reading(temperature=-0.0)))

    # THEN
    assert math.copysign(1, verdict.identity.temperature) == 1
    assert b'"temperature":0.0,' in verdict.line


@pytest.mark.parametrize("device_id", ["x", "x" * 256, "😀" * 256, 'quote" and \\', "\u2028\u00a0", " "])
def test_device_ids_within_the_rules_are_accepted(device_id: str) -> None:
    # WHEN
    verdict = accepted(encode(reading(device_id=device_id)))

    # THEN
    assert verdict.identity.device_id == device_id
    assert b"\n" not in verdict.line


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": -100},
        {"temperature": 200},
        {"timestamp": ARRIVED_AT + 300},
        {"timestamp": ARRIVED_AT - 3650 * 86_400},
    ],
)
def test_the_limits_of_the_policy_are_inclusive(changes: dict[str, float]) -> None:
    # WHEN / THEN
    accepted(encode(reading(**changes)))


# ---------------------------------------------------------------- rejecting


@pytest.mark.parametrize(
    ("element", "reason", "field"),
    [
        (b'{"device_id":"\xff","temperature":1,"timestamp":1760497190}', Reason.NOT_UTF8, None),
        (b'{"device_id":"a","temperature":1,"timestamp":1760497190,"x":"\xed\xa0\x80"}', Reason.NOT_UTF8, None),
        (b"nonsense", Reason.MALFORMED_JSON, None),
        (b"0x1", Reason.MALFORMED_JSON, None),
        (b'{"device_id":"a","temperature":NaN,"timestamp":1760497190}', Reason.MALFORMED_JSON, None),
        (b"{'device_id':'a'}", Reason.MALFORMED_JSON, None),
        (b'{"a":1}{"b":2}', Reason.MALFORMED_JSON, None),
        (b'{"a":1,}', Reason.MALFORMED_JSON, None),
        (b'\xef\xbb\xbf{"a":1}', Reason.MALFORMED_JSON, None),
        (rb'{"device_id":"\ud800","temperature":1,"timestamp":1760497190}', Reason.MALFORMED_JSON, None),
        (rb'{"\udc00":1}', Reason.MALFORMED_JSON, None),
        (b"17", Reason.NOT_AN_OBJECT, None),
        (b'"text"', Reason.NOT_AN_OBJECT, None),
        (b"null", Reason.NOT_AN_OBJECT, None),
        (encode([reading()]), Reason.NOT_AN_OBJECT, None),
        (encode({**reading(), "x": json.loads("[" * 32 + "]" * 32)}), Reason.TOO_DEEP, None),
        (b"[" * 100_000, Reason.TOO_DEEP, None),
        (b"{}", Reason.MISSING_FIELD, "device_id"),
        (b'{"device_id":"a","timestamp":1760497190}', Reason.MISSING_FIELD, "temperature"),
        (encode(reading(device_id=17)), Reason.WRONG_TYPE, "device_id"),
        (encode(reading(device_id=None)), Reason.WRONG_TYPE, "device_id"),
        (encode(reading(temperature="21.5")), Reason.WRONG_TYPE, "temperature"),
        (encode(reading(temperature=True)), Reason.WRONG_TYPE, "temperature"),
        (encode(reading(timestamp=None)), Reason.WRONG_TYPE, "timestamp"),
        (encode(reading(timestamp=[1])), Reason.WRONG_TYPE, "timestamp"),
        (b'{"device_id":"a","temperature":1e400,"timestamp":1760497190}', Reason.NOT_FINITE, "temperature"),
        (b'{"device_id":"a","temperature":1,"timestamp":1760497190,"x":[-1e400]}', Reason.NOT_FINITE, "x"),
        (b'{"device_id":"a","temperature":1.' + b"0" * 127 + b',"timestamp":1}', Reason.NUMBER_TOO_LONG, "temperature"),
        (
            b'{"device_id":"a","temperature":1,"timestamp":1760497190,"x":' + b"1" * 129 + b"}",
            Reason.NUMBER_TOO_LONG,
            "x",
        ),
        (encode(reading(device_id="")), Reason.DEVICE_ID_INVALID, "device_id"),
        (encode(reading(device_id="x" * 257)), Reason.DEVICE_ID_INVALID, "device_id"),
        (encode(reading(device_id="a\n")), Reason.DEVICE_ID_INVALID, "device_id"),
        (encode(reading(device_id="a\u007f")), Reason.DEVICE_ID_INVALID, "device_id"),
        (encode(reading(device_id="a\u0085b")), Reason.DEVICE_ID_INVALID, "device_id"),
        (encode(reading(temperature=200.01)), Reason.TEMPERATURE_OUT_OF_RANGE, "temperature"),
        (encode(reading(temperature=-273)), Reason.TEMPERATURE_OUT_OF_RANGE, "temperature"),
        (encode(reading(timestamp=ARRIVED_AT + 300.001)), Reason.TIMESTAMP_IN_FUTURE, "timestamp"),
        (encode(reading(timestamp=0)), Reason.TIMESTAMP_TOO_OLD, "timestamp"),
    ],
)
def test_each_rule_rejects_by_its_name(element: bytes, reason: Reason, field: str | None) -> None:
    # WHEN
    verdict = rejected(element)

    # THEN
    assert (verdict.reason, verdict.detail.field, verdict.original) == (reason, field, element)


def test_the_names_of_the_reasons_are_stable() -> None:
    # THEN what is stored and queried is spelled as it always was
    assert sorted(Reason) == [
        "device_id_invalid",
        "empty_record",
        "internal_error",
        "malformed_json",
        "missing_field",
        "not_an_object",
        "not_finite",
        "not_utf8",
        "number_too_long",
        "temperature_out_of_range",
        "timestamp_in_future",
        "timestamp_too_old",
        "too_deep",
        "wrong_type",
    ]


def test_a_rejection_says_field_value_and_rule_and_keeps_the_readable_triple() -> None:
    # WHEN
    verdict = rejected(b'{"device_id":"a","temperature":1e3,"timestamp":1760497190}')

    # THEN
    assert verdict.detail.field == "temperature"
    assert verdict.detail.value == "1e3"
    assert verdict.detail.rule == "-100 to 200 degrees Celsius"
    assert (verdict.device_id, verdict.timestamp, verdict.temperature) == ("a", 1760497190.0, 1000.0)


@pytest.mark.parametrize(
    ("unit", "per_second"), [("milliseconds", 1_000), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000)]
)
def test_a_timestamp_in_another_unit_is_told_so(unit: str, per_second: int) -> None:
    # WHEN
    verdict = rejected(encode(reading(timestamp=int(ARRIVED_AT) * per_second)))

    # THEN
    assert verdict.reason == Reason.TIMESTAMP_IN_FUTURE
    assert verdict.detail.rule.endswith(f"this looks like {unit}")


# ---------------------------------------------------------------- the policy


def test_the_contract_version_names_every_limit() -> None:
    # GIVEN
    versions = {
        Policy().contract_version,
        Policy(temperature_min=-99).contract_version,
        Policy(temperature_max=199).contract_version,
        Policy(max_future_seconds=1).contract_version,
        Policy(max_age_days=1).contract_version,
    }

    # THEN
    assert len(versions) == 5
    assert Policy().contract_version == "1;temperature=-100..200;future=300s;age=3650d"


@pytest.mark.parametrize(
    "limits",
    [
        {"temperature_min": 1.0, "temperature_max": 0.0},
        {"temperature_min": math.nan},
        {"max_future_seconds": -1.0},
        {"max_age_days": math.inf},
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, float]) -> None:
    # WHEN / THEN
    with pytest.raises(ValueError, match=r"temperature|finite|negative"):
        Policy(**limits)


def test_the_contract_needs_nothing_but_msgspec() -> None:
    # WHEN it is imported alone
    command = "import sys, telemetry_contract; print(sorted({'boto3', 'aws_lambda_powertools'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=Path(__file__).parents[2] / "functions",
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    # THEN
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- properties

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
device_ids = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=256)
good_readings = st.fixed_dictionaries(
    {
        "device_id": device_ids,
        "temperature": st.floats(-100, 200) | st.integers(-100, 200),
        "timestamp": st.floats(ARRIVED_AT - 1e8, ARRIVED_AT + 300),
    },
    optional={"humidity": json_values, "": json_values, "Device_ID": json_values},
)
anything = st.binary(max_size=200) | json_values.map(encode) | good_readings.map(encode)


@given(good_readings, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_the_canonical_form_is_a_fixed_point_and_changes_no_value(
    fields: dict[str, Any], ensure_ascii: bool, indent: int | str | None
) -> None:
    # GIVEN any spelling of a good reading
    element = json.dumps(fields, ensure_ascii=ensure_ascii, indent=indent).encode()

    # WHEN
    first = accepted(element)
    second = accepted(first.line)

    # THEN
    assert second == first
    assert json.loads(first.line) == fields
    assert list(json.loads(first.line))[:3] == ["device_id", "temperature", "timestamp"]
    assert not set(first.line) & set(range(0x20))
    assert first.identity == (fields["device_id"], fields["timestamp"], fields["temperature"])


@given(st.lists(anything, max_size=5), st.sampled_from([b"\n", b""]))
@example([b'{"a":', b"1}"], b"\n")
def test_every_element_gets_exactly_one_verdict_and_always_the_same(parts: list[bytes], separator: bytes) -> None:
    # GIVEN any record
    record = separator.join(parts)

    # WHEN
    verdicts = judge_record(record, ARRIVED_AT, POLICY)

    # THEN
    assert len(verdicts) == max(1, len(split_record(record)))
    assert verdicts == judge_record(record, ARRIVED_AT, POLICY)
    for verdict in verdicts:
        assert isinstance(verdict, Reading) or verdict.original in record


@given(st.lists(good_readings, min_size=1, max_size=4), anything, st.integers(0, 4))
def test_a_bad_line_never_takes_its_neighbours_down(good: list[dict[str, Any]], bad: bytes, place: int) -> None:
    # GIVEN good lines with something else on a line between them, in a record that is not one JSON text
    lines = [encode(fields) for fields in good]
    lines.insert(place, bad.replace(b"\n", b""))
    lines.append(b"nonsense")

    # WHEN
    verdicts = judge_record(b"\n".join(lines), ARRIVED_AT, POLICY)

    # THEN
    identities = [verdict.identity for verdict in verdicts if isinstance(verdict, Reading)]
    for fields in good:
        assert (fields["device_id"], fields["timestamp"], fields["temperature"]) in identities
