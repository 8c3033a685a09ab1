"""What the job takes for a reading, and why it rejects the rest: real Spark on real gzip files."""

import gzip
import hashlib
import json
import random
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.integration.conftest import PROJECT, SERVER_PYTHON, reading

TRIPLE = '"temperature":1,"timestamp":2'

READINGS: dict[str, tuple[str, float, float]] = {
    '{"device_id":"plain","temperature":21.5,"timestamp":1760500000.25}': ("plain", 1760500000.25, 21.5),
    ' {"timestamp":2,"device_id":"blanks around","temperature":1} \t': ("blanks around", 2.0, 1.0),
    f'{{"device_id":"carriage return",{TRIPLE}}}\r': ("carriage return", 2.0, 1.0),
    '{"device_id":"integers","temperature":-3,"timestamp":1760500000}': ("integers", 1760500000.0, -3.0),
    '{"device_id":"exponent","temperature":2.15e1,"timestamp":1.7605e9}': ("exponent", 1760500000.0, 21.5),
    '{"device_id":"minus zero","temperature":-0.0,"timestamp":-0}': ("minus zero", 0.0, 0.0),
    '{"device_id":"shortest","temperature":0.1,"timestamp":1760500000.000001}': ("shortest", 1760500000.000001, 0.1),
    '{"device_id":"long","temperature":0.1000000000000000055511151231257827,"timestamp":2}': ("long", 2.0, 0.1),
    f'{{"device_id":"17",{TRIPLE}}}': ("17", 2.0, 1.0),
    f'{{"device_id":"1e5",{TRIPLE}}}': ("1e5", 2.0, 1.0),
    f'{{"device_id":"true",{TRIPLE}}}': ("true", 2.0, 1.0),
    f'{{"device_id":"{{}}",{TRIPLE}}}': ("{}", 2.0, 1.0),
    f'{{"device_id":"[1",{TRIPLE}}}': ("[1", 2.0, 1.0),
    f'{{"device_id":"null",{TRIPLE}}}': ("null", 2.0, 1.0),
    f'{{"device_id":"\\"Infinity\\"",{TRIPLE}}}': ('"Infinity"', 2.0, 1.0),
    f'{{"device_id":"{"x" * 256}",{TRIPLE}}}': ("x" * 256, 2.0, 1.0),
    f'{{"device_id":"{"😀" * 256}",{TRIPLE}}}': ("😀" * 256, 2.0, 1.0),
    f'{{"device_id":"\\ud83d\\ude00 pair",{TRIPLE}}}': ("😀 pair", 2.0, 1.0),
    f'{{"device_id":"\\\\ud83d no escape",{TRIPLE}}}': ("\\ud83d no escape", 2.0, 1.0),
    f'{{"device_id":"温度計",{TRIPLE}}}': ("温度計", 2.0, 1.0),
    f'{{"device_id":"other fields",{TRIPLE},"x":{{"device_id":7}},"y":[1e400,null]}}': ("other fields", 2.0, 1.0),
}

REJECTS: dict[str | bytes, str] = {
    b'{"device_id":"a\xff","temperature":1,"timestamp":2}': "not_utf8",
    b'{"device_id":"a","temperature":1,"timestamp":2,"x":"\xed\xa0\x80"}': "not_utf8",
    '{"device_id":"cut","temperature":1,"times': "malformed_json",
    f'{{"device_id":"twice",{TRIPLE}}}{{"device_id":"lost",{TRIPLE}}}': "malformed_json",
    f'{{"device_id":"comma",{TRIPLE}}},{{"device_id":"lost",{TRIPLE}}}': "malformed_json",
    f'{{"device_id":"bracket",{TRIPLE}}}],[{{"device_id":"lost",{TRIPLE}}}': "malformed_json",
    f'{{"device_id":"mark",{TRIPLE}}},{{"$end":"1"}}],[{{}}': "malformed_json",
    f'{{"device_id":"closed",{TRIPLE}}}] rest': "malformed_json",
    f'{{"device_id":"rest",{TRIPLE}}} rest': "malformed_json",
    "{'device_id':'quotes','temperature':1,'timestamp':2}": "malformed_json",
    f'{{device_id:"names",{TRIPLE}}}': "malformed_json",
    f'{{"device_id":"comment",{TRIPLE}}}//': "malformed_json",
    '{"device_id":"zeros","temperature":01,"timestamp":2}': "malformed_json",
    '{"device_id":"nan","temperature":NaN,"timestamp":2}': "malformed_json",
    f'{{"device_id":"raw\ttab",{TRIPLE}}}': "malformed_json",
    f'{{"device_id":"half \\ud83d",{TRIPLE}}}': "malformed_json",
    f'{{"device_id":"half \\\\\\ude00",{TRIPLE}}}': "malformed_json",
    "[]": "not_an_object",
    f'[{{"device_id":"array",{TRIPLE}}}]': "not_an_object",
    "1": "not_an_object",
    "null": "not_an_object",
    '"{text"': "not_an_object",
    "{}": "missing_field",
    f"{{{TRIPLE}}}": "missing_field",
    '{"device_id":"a","timestamp":2}': "missing_field",
    '{"device_id":"a","temperature":1}': "missing_field",
    f'{{"Device_Id":"case",{TRIPLE}}}': "missing_field",
    f'{{"device_id":17,{TRIPLE}}}': "wrong_type",
    f'{{"device_id":-1.5e3,{TRIPLE}}}': "wrong_type",
    f'{{"device_id":1e400,{TRIPLE}}}': "wrong_type",
    f'{{"device_id":true,{TRIPLE}}}': "wrong_type",
    f'{{"device_id":null,{TRIPLE}}}': "wrong_type",
    f'{{"device_id":{{"a":1}},{TRIPLE}}}': "wrong_type",
    f'{{"device_id":["a"],{TRIPLE}}}': "wrong_type",
    '{"device_id":"a","temperature":"1","timestamp":2}': "wrong_type",
    '{"device_id":"a","temperature":"NaN","timestamp":2}': "wrong_type",
    '{"device_id":"a","temperature":"","timestamp":2}': "wrong_type",
    '{"device_id":"a","temperature":1,"timestamp":"2"}': "wrong_type",
    '{"device_id":"a","temperature":1,"timestamp":"2025-10-15T00:00:00Z"}': "wrong_type",
    '{"device_id":"a","temperature":false,"timestamp":2}': "wrong_type",
    '{"device_id":"a","temperature":null,"timestamp":2}': "wrong_type",
    '{"device_id":"a","temperature":[1],"timestamp":2}': "wrong_type",
    '{"device_id":"a","temperature":1e400,"timestamp":2}': "not_finite",
    '{"device_id":"a","temperature":1,"timestamp":-1e400}': "not_finite",
    f'{{"device_id":"",{TRIPLE}}}': "device_id_invalid",
    f'{{"device_id":"{"x" * 257}",{TRIPLE}}}': "device_id_invalid",
    f'{{"device_id":"a\\u0000",{TRIPLE}}}': "device_id_invalid",
    f'{{"device_id":"a\\u0085",{TRIPLE}}}': "device_id_invalid",
    '{"device_id":"a","temperature":1,"timestamp":1e300}': "timestamp_in_future",
    '{"device_id":"a","temperature":1,"timestamp":-1e300}': "timestamp_too_old",
}


def lines_of(spark: Any, etl: ModuleType, directory: Path, lines: list[str] | list[bytes] | list[Any]) -> Any:
    data = b"\n".join(line.encode() if isinstance(line, str) else line for line in lines)
    file = directory / "lines.gz"
    file.write_bytes(gzip.compress(data))
    return etl.lines_of(spark.read.text(str(file), lineSep="\n").withColumnRenamed("value", "col0"))


def columns(etl: ModuleType, *more: tuple[str, str]) -> list[Any]:
    return [etl.TableColumn(*column) for column in (*etl.REQUIRED_COLUMNS.items(), *more)]


def test_what_has_the_shape_of_a_reading_is_one(configured_spark: Any, etl: ModuleType, tmp_path: Path) -> None:
    # GIVEN lines that are readings, however they are spelled
    lines = lines_of(configured_spark, etl, tmp_path, list(READINGS))

    # WHEN they are judged
    judged = etl.judge_lines(lines, columns(etl), "UTC").collect()

    # THEN each is one, with exactly the numbers that were sent
    assert [row for row in judged if not row["is_reading"]] == []
    found = [(row["device_id"], row["timestamp"], row["temperature"]) for row in judged]
    assert sorted(map(repr, found)) == sorted(map(repr, READINGS.values()))


def test_what_has_another_shape_is_rejected_with_its_reason(
    configured_spark: Any, etl: ModuleType, tmp_path: Path
) -> None:
    # GIVEN lines that are no readings
    lines = lines_of(configured_spark, etl, tmp_path, list(REJECTS))

    # WHEN they are judged and explained
    judged = etl.judge_lines(lines, columns(etl), "UTC").localCheckpoint()
    letters = [json.loads(row["value"]) for row in etl.dead_letters_of(etl.explain_rejects(judged)).collect()]

    # THEN none is taken for a reading, and each has the reason that it should have
    assert judged.where("is_reading").count() == 0
    originals = {hashlib.sha256(k.encode() if isinstance(k, str) else k).hexdigest(): k for k in REJECTS}
    assert {originals[letter["reject_id"]]: letter["reason"] for letter in letters} == REJECTS
    assert len(letters) == len(REJECTS)


ORDINARY = (
    '{"device_id":"device-1","temperature":21.5,"timestamp":1760500000.25}',
    '{"device_id":"a","temperature":-0,"timestamp":1760500000,"humidity":45.20}',
    '{"device_id":"a b","temperature":0.1,"timestamp":2,"place":"hall 3","on":true,"off":false,"none":null,"n":-1.5}',
    '{"device_id":"17","temperature":1,"timestamp":2,"humidity":"wet","device":"b","temperatures":7}',
)
MUTATIONS = (
    *'"\\{}[]:,-+.eE0179 ntu',
    "\t",
    "\x7f",
    "\u0085",
    "\u2028",
    "é",
    "😀",
    ',"device_id":"b"',
    '"timestamp":',
    "\\u0041",
)

NAMED_TWICE = (',"device_id":5', ',"device_id":"b"', ',"temperature":"1"', ',"timestamp":7', ',"timestamp":null')


def mutated(line: str, generator: random.Random) -> str:
    """Take signs out of a line, or put some in, at a few places."""
    for _ in range(generator.randint(0, 3)):
        start = generator.randint(0, len(line))
        end = start + generator.randint(0, 2)
        line = line[:start] + generator.choice(("", *MUTATIONS)) + line[end:]
    return line


@pytest.mark.parametrize("seed", [1, 2])
def test_a_line_as_the_transform_writes_it_is_judged_as_any_other(
    seed: int, spark: Any, etl: ModuleType, tmp_path: Path
) -> None:
    # GIVEN lines like those of the transform, and nearly like them
    etl.configure(spark)
    generator = random.Random(seed)
    many = "".join(f',"field{number}":{number}' for number in range(50_000))
    lines = [mutated(generator.choice(ORDINARY), generator) for _ in range(4000)]
    lines += [f"{line[:-1]}{more}}}" for line in ORDINARY for more in (many, *NAMED_TWICE)]
    lines += [f'{{"device_id":"{"x" * 257}",{TRIPLE}}}']

    # WHEN they are judged, and judged again with a blank in front, which JSON allows and the transform never writes
    def judged(given: list[str]) -> list[str]:
        rows = etl.judge_lines(lines_of(spark, etl, tmp_path, given), columns(etl, ("humidity", "double")), "UTC")
        return sorted(
            repr([row[name] for name in (*etl.IDENTITY, "further", "event_time")] if row["is_reading"] else "reject")
            for row in rows.collect()
        )

    found = judged(lines)

    # THEN every verdict is the same, and both kinds are many
    assert found == judged([f" {line}" for line in lines])
    assert min(found.count(repr("reject")), len(found) - found.count(repr("reject"))) > 1000


def test_a_dead_letter_keeps_the_line_and_what_can_be_read_of_it(spark: Any, etl: ModuleType, tmp_path: Path) -> None:
    # GIVEN a line with one bad field, and one that is not UTF-8
    etl.configure(spark)
    wrong, broken = '{"device_id":"a","temperature":"21.5","timestamp":2}', b'{"device_id":"\xff"}'
    lines = lines_of(spark, etl, tmp_path, [wrong, broken])

    # WHEN they become dead letters
    letters = {
        letter["reason"]: letter
        for row in etl.dead_letters_of(etl.explain_rejects(etl.judge_lines(lines, columns(etl), "UTC"))).collect()
        for letter in [json.loads(row["value"])]
    }

    # THEN nothing of either is lost, and every field is there in both
    assert letters["wrong_type"] == {
        "reject_id": hashlib.sha256(wrong.encode()).hexdigest(),
        "reason": "wrong_type",
        "detail": {"field": "temperature", "value": '"21.5"', "rule": "a number"},
        "device_id": "a",
        "timestamp": 2.0,
        "temperature": None,
        "stage": "etl",
        "original": wrong,
        "original_base64": None,
        "source": None,
        "arrived_at": None,
        "contract_version": "1",
    }
    assert letters["not_utf8"]["original"] is None
    assert letters["not_utf8"]["original_base64"] == "eyJkZXZpY2VfaWQiOiL/In0="
    assert letters["not_utf8"].keys() == letters["wrong_type"].keys()


def test_a_long_line_that_is_not_utf8_is_kept_in_one_line_of_base64(
    spark: Any, etl: ModuleType, tmp_path: Path
) -> None:
    # GIVEN more bytes than MIME has in a line
    etl.configure(spark)
    broken = b"\xff" * 300
    rejects = etl.explain_rejects(lines_of(spark, etl, tmp_path, [broken]))

    # WHEN they become a dead letter
    letter = json.loads(etl.dead_letters_of(rejects).first()["value"])

    # THEN the base64 has no line breaks in it
    assert letter["original_base64"] == "/" * 400


def test_a_line_that_the_reader_has_cut_is_rejected_as_a_whole(
    configured_spark: Any, etl: ModuleType, tmp_path: Path
) -> None:
    # GIVEN what the CSV reader makes of lines with U+0001: further columns, and null where a line has fewer
    whole = reading("whole")
    rows = [f"('{whole}', NULL, NULL)", f"('{reading('a')}', '', NULL)", "(NULL, 'x', NULL)", "('x', 'y', 'z')"]
    cells = configured_spark.sql(f"SELECT * FROM VALUES {', '.join(rows)} AS t(col0, col1, col2)")  # noqa: S608  the test's own values

    # WHEN the lines are judged
    judged = etl.judge_lines(etl.lines_of(cells), columns(etl), "UTC").localCheckpoint()
    explained = etl.explain_rejects(judged.where("NOT is_reading")).collect()

    # THEN only the one that was not cut is a reading, and the others are whole again
    assert [row["device_id"] for row in judged.where("is_reading").collect()] == ["whole"]
    assert {row["line"] for row in explained} == {f"{reading('a')}\u0001", "\u0001x", "x\u0001y\u0001z"}
    assert {row["reject"]["reason"] for row in explained} == {"malformed_json"}


def test_blank_lines_do_not_count(spark: Any, etl: ModuleType, tmp_path: Path) -> None:
    # GIVEN a file with blank lines
    lines = lines_of(spark, etl, tmp_path, ["", " \t\r", reading(), "", "\u00a0"])

    # WHEN lines are taken
    # THEN those that hold anything but JSON's white space are left
    assert lines.count() == 2


def test_a_column_that_the_catalog_adds_comes_from_the_field_of_its_name(
    configured_spark: Any, etl: ModuleType, tmp_path: Path
) -> None:
    # GIVEN a table with further columns, and lines that have them well, badly or not
    more = [("humidity", "double"), ("count", "int"), ("note", "string"), ("tags", "array<string>")]
    values: list[dict[str, Any]] = [
        {"humidity": 0.1, "count": 7, "note": "n", "tags": ["x", "y"]},
        {"humidity": "wet", "count": 2**40, "note": 5, "tags": "x"},
        {"humidity": None, "count": "8"},
        {},
    ]
    lines = [reading(f"device-{n}", **value) for n, value in enumerate(values)]

    # WHEN they are judged
    rows = etl.judge_lines(lines_of(configured_spark, etl, tmp_path, lines), columns(etl, *more), "UTC")

    # THEN all of them are readings, and what does not fit into a column is null there
    found = {row["device_id"]: tuple(row["further"]) for row in rows.where("is_reading").collect()}
    assert found == {
        "device-0": (0.1, 7, "n", ["x", "y"]),
        "device-1": (None, None, "5", None),
        "device-2": (None, 8, None, None),
        "device-3": (None, None, None, None),
    }


TRANSFORM = """
import base64, json, sys
sys.path.insert(0, "functions")
from telemetry_contract import Policy, Reading, judge
policy = Policy(-1e300, 1e300, 1e15, 1e9)
for line in sys.stdin:
    verdict = judge(base64.b64decode(line), 1_760_500_000.0, policy)
    print(json.dumps(verdict.line.decode() if isinstance(verdict, Reading) else None))
"""


def transform_lines(elements: list[bytes]) -> list[str | None]:
    """The canonical lines of what the transform accepts, None for what it rejects; in the functions' environment."""
    import base64

    completed = subprocess.run(
        [str(SERVER_PYTHON), "-c", TRANSFORM],
        input="\n".join(base64.b64encode(element).decode() for element in elements),
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=True,
    )
    lines: list[str | None] = [json.loads(line) for line in completed.stdout.splitlines()]
    return lines


def random_element(generator: random.Random) -> bytes:
    device_id = "".join(chr(generator.choice((34, 47, 92, 32, 65, 48, 233, 0x3042, 0x1F600))) for _ in range(8))

    def number() -> float:
        return generator.choice(
            [
                generator.uniform(-100, 200),
                generator.randint(-(10**6), 10**10),
                generator.random() * 10.0 ** generator.randint(-300, 9),
                -0.0,
            ]
        )

    fields = {
        "device_id": generator.choice([device_id, str(generator.randint(0, 99)), "true", "[]", '{"a":1}']),
        "temperature": number(),
        "timestamp": number(),
        "more": generator.choice([None, {"timestamp": 3}, [1, "\ud83d\ude00"], 1e308]),
    }
    return json.dumps(fields, ensure_ascii=generator.random() < 0.5).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("seed", [1, 2])
def test_the_job_accepts_all_that_the_transform_lets_through(
    spark: Any, etl: ModuleType, tmp_path: Path, seed: int
) -> None:
    # GIVEN the canonical lines of everything that the transform accepts, of random elements and of those above
    etl.configure(spark)
    generator = random.Random(seed)
    elements = [random_element(generator) for _ in range(1500)]
    elements += [line.encode() if isinstance(line, str) else line for line in (*READINGS, *REJECTS)]
    accepted = [line for line in transform_lines(elements) if line is not None]
    assert len(accepted) > 1000

    # WHEN the job judges them
    judged = etl.judge_lines(lines_of(spark, etl, tmp_path, accepted), columns(etl), "UTC").collect()

    # THEN it takes every one as a reading, of the same identity
    assert [row["line"] for row in judged if not row["is_reading"]] == []
    sent = [json.loads(line) for line in accepted]
    assert sorted(repr((row["device_id"], row["timestamp"], row["temperature"])) for row in judged) == sorted(
        repr((one["device_id"], float(one["timestamp"]) + 0.0, float(one["temperature"]) + 0.0)) for one in sent
    )
