"""Readings from files: each line judged before it goes, each problem with its line."""

import gzip
import random
from collections.abc import Callable, Iterable, Iterator

import pytest

from telemetry_contract import Policy
from telemetry_lake.console import OperatorError
from telemetry_lake.files import Examination, csv_records, json_lines_records
from telemetry_lake.readings import Record, random_readings

NOW = 1_760_486_400.25
EXAMINATION = Examination("readings", Policy(), lambda: NOW)
LENIENT = Examination("readings", Policy(), lambda: NOW, send_invalid=True)
GOOD = b'{"device_id": "a", "temperature": 1.50, "timestamp": 1760486400}'

Reader = Callable[[Iterable[bytes], Examination], Iterator[Record]]


def lines_of(text: bytes) -> list[bytes]:
    return text.splitlines(keepends=True)


def test_lines_are_sent_as_they_are_and_keyed_by_their_device() -> None:
    # GIVEN a file from Windows with a blank line, an array and a last line without an end
    text = b"\xef\xbb\xbf" + GOOD + b"\r\n \r\n[" + GOOD + b"," + GOOD.replace(b'"a"', b'"b"') + b"]\n" + GOOD

    # WHEN
    records = list(json_lines_records(lines_of(text), EXAMINATION))

    # THEN
    assert [record.data for record in records][::2] == [GOOD, GOOD]
    assert [record.readings for record in records] == [1, 2, 1]
    assert [record.alone for record in records] == [False, True, False]
    assert [record.partition_key for record in records][::2] == ["a", "a"]
    assert records[1].partition_key not in "ab"
    assert [record.where for record in records] == ["readings, line 1", "readings, line 3", "readings, line 4"]


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (json_lines_records, GOOD + b"\n{oops\n", "line 2: malformed_json: strict JSON"),
        (json_lines_records, GOOD + b"\n\n" + GOOD.replace(b"1.50", b"999"), "line 3: temperature_out.*999.*:"),
        (json_lines_records, GOOD.replace(b'"a"', b"7"), r"line 1: wrong_type \(device_id 7\): a string"),
        (json_lines_records, GOOD.replace(b"400", b"400000"), "looks like milliseconds"),
        (json_lines_records, GOOD.decode().encode("utf-16"), "line 1: not_utf8"),
        (json_lines_records, gzip.compress(GOOD), "line 1: not_utf8"),
        (json_lines_records, b"[" + GOOD + b", 7]", "line 1: not_an_object"),
        (csv_records, b"device_id,temperature\n", r"line 1: no column timestamp .*\(device_id, temp"),
        (csv_records, b"device_id,temperature,timestamp,temperature\n", "line 1: a column twice"),
        (csv_records, b"device_id,temperature,timestamp\na,1,1760486400\nb,1\n", "line 3: 2 values for 3 columns"),
        (csv_records, b"device_id,temperature,timestamp\na,1,1760486400,x\n", "line 2: 4 values for 3 columns"),
        (csv_records, b"device_id,temperature,timestamp\na,warm,1760486400\n", "line 2: wrong_type .temperature .warm"),
        (csv_records, b"device_id,temperature,timestamp\na,,1760486400\n", "line 2: missing_field"),
        (csv_records, b"device_id,temperature,timestamp\ncaf\xe9,1,1760486400\n", "line 2: not UTF-8: .* at byte 3"),
        (csv_records, b'device_id,temperature,timestamp\n"a"b,1,1760486400\n', "line 2: no CSV"),
        (csv_records, b'device_id,temperature,timestamp\n"a,1,1760486400\n', "line 2: no CSV"),
        (csv_records, b"device_id,temperature,timestamp\n" + b"a" * 200_000 + b",1,1\n", "line 2: no CSV: field"),
    ],
)  # fmt: skip
def test_a_line_that_is_not_in_order_is_named_with_its_reason(reader: Reader, text: bytes, message: str) -> None:
    # WHEN / THEN
    with pytest.raises(OperatorError, match=message) as raised:
        list(reader(lines_of(text), EXAMINATION))
    assert raised.value.next_step


def test_what_comes_before_a_bad_line_is_sent() -> None:
    # GIVEN
    records = json_lines_records([GOOD + b"\n", b"oops\n", GOOD], EXAMINATION)

    # WHEN / THEN
    assert next(records).data == GOOD
    with pytest.raises(OperatorError, match="line 2"):
        next(records)


def test_bad_lines_are_sent_alone_with_their_reason_when_they_are_to_be() -> None:
    # GIVEN
    lines = [GOOD + b"\n", b"oops\n", b"[" + GOOD + b", 7]\n"]

    # WHEN
    records = list(json_lines_records(lines, LENIENT))

    # THEN
    assert [(record.fault, record.readings, record.alone) for record in records] == [
        (None, 1, False),
        ("malformed_json", 0, True),
        ("not_an_object", 1, True),
    ]


def test_rows_become_readings_with_the_digits_of_their_numbers() -> None:
    # GIVEN a device whose name is a number, a blank row, text over two lines, and words that JSON knows
    text = (
        b"device_id,temperature,timestamp,serial,note\n17,21.50,1760486400,9007199254740993,ok\n\n"
        b'b,-0.5e1,1760486399.5,,"two\nlines"\nc,1,1760486400,007,true\n'
    )

    # WHEN
    records = list(csv_records(lines_of(text), EXAMINATION))

    # THEN
    assert [record.data for record in records] == [
        b'{"device_id": "17", "temperature": 21.50, "timestamp": 1760486400, "serial": 9007199254740993, "note": "ok"}',
        b'{"device_id": "b", "temperature": -0.5e1, "timestamp": 1760486399.5, "note": "two\\nlines"}',
        b'{"device_id": "c", "temperature": 1, "timestamp": 1760486400, "serial": "007", "note": "true"}',
    ]
    assert [record.where for record in records] == ["readings, line 2", "readings, line 5", "readings, line 6"]


def test_an_empty_file_has_no_records() -> None:
    assert list(csv_records([], EXAMINATION)) == []
    assert list(json_lines_records([], EXAMINATION)) == []


def test_the_policy_of_the_stack_is_what_counts() -> None:
    # GIVEN a stack that takes less
    strict = Examination("readings", Policy(temperature_max=1.0), lambda: NOW)

    # WHEN / THEN
    with pytest.raises(OperatorError, match="temperature_out_of_range"):
        list(json_lines_records([GOOD], strict))


def test_random_readings_pass_the_examination() -> None:
    # GIVEN
    lines = [record.data for record in random_readings(50, lambda: NOW, 36, random.Random(1))]

    # WHEN / THEN
    assert [record.data for record in json_lines_records(lines, EXAMINATION)] == lines
