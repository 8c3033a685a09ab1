"""Batches as they come: late, long, repeated, empty, and objects with odd or broken bytes in them."""

import base64
import gzip
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from tests.integration.conftest import Lake, Run, reading

DAY = 1_760_486_400  # 2025-10-15T00:00:00Z
DAY_SECONDS = 86_400
FOLDER = "raw_data/2025/10/15/00/"
MEBIBYTE = 1024 * 1024


def table_folders(keys: list[str]) -> list[str]:
    return sorted({key.rpartition("/")[0].removeprefix("curated/device_telemetry/") for key in keys})


def test_late_data_lands_in_its_day_and_touches_that_folder_alone(
    lake: Lake, run: Run, spark: Any, etl: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN a table with readings of a day in May and of three days in October
    may = DAY - 150 * DAY_SECONDS
    lake.put_lines("1.gz", [reading("a", 1, moment) for moment in (may, *(DAY + n * DAY_SECONDS for n in range(3)))])
    run("jr_1")
    before = lake.state()["files"]
    looked_at: list[str] = []

    def listen(session: Any, paths: list[str], *others: Any) -> Any:
        looked_at.extend(paths)
        return read_stored(session, paths, *others)

    read_stored = etl.read_stored
    monkeypatch.setattr(etl, "read_stored", listen)

    # WHEN a reading of that day in May arrives in October, beside one that is stored already
    lake.put_lines("2.gz", [reading("late", 1, may + 60), reading("a", 1, may)], prefix="raw_data/2025/10/16/07/")
    summary = run("jr_2")

    # THEN it is in the folder of its day, and no other folder was read or written
    folder = "year=2025/month=5/day=18"
    after = lake.state()["files"]
    assert before.items() <= after.items()
    assert table_folders(list(after.keys() - before.keys())) == [folder]
    assert looked_at == [f"s3://{lake.analytics}/curated/device_telemetry/{folder}/"]
    assert [(day["month"], day["day"], day["new"], day["duplicate"]) for day in summary["partitions"]] == [
        (5, 18, 1, 1)
    ]
    assert ("late", may + 60.0, 1.0, 2025, 5, 18) in lake.rows(spark)


def test_a_batch_over_hundreds_of_days_becomes_one_file_a_day(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN two readings on each of 200 days in a row, in no order
    days = 200
    numbers = [n * 7 % days for n in range(days)]
    lines = [reading("a", n, DAY - n * DAY_SECONDS + hour * 3600) for n in numbers for hour in (0, 13)]
    lake.put_lines("1.gz", lines)

    # WHEN the job runs
    summary = run("jr_1")

    # THEN each day is one file in its folder, and nothing is missing
    keys = lake.keys("curated/device_telemetry/")
    assert len(keys) == len(table_folders(keys)) == summary["partition_count"] == summary["files"]["count"] == days
    assert summary["counts"] == {"lines": 2 * days, "new": 2 * days, "duplicate": 0, "rejected": 0}
    assert len(lake.rows(spark)) == 2 * days
    assert len(json.dumps(summary)) < 100_000


def test_repeats_within_an_object_between_objects_and_between_batches_are_stored_once(
    lake: Lake, run: Run, spark: Any
) -> None:
    # GIVEN a reading twice in an object and in another spelling in a second one
    lake.put_lines("1.gz", [reading("a", 1, DAY), reading("a", 1, DAY), reading("b", 1, DAY)])
    lake.put_lines("2.gz", [f'{{"timestamp":{DAY}.0,"temperature":10e-1,"device_id":"\\u0061"}}'])

    # WHEN it comes again in two more batches, once by an object that replaces one that was read
    first = run("jr_1")
    lake.put_lines("3.gz", [reading("a", 1, DAY), reading("c", 1, DAY)])
    second = run("jr_2")
    lake.put_lines("1.gz", [reading("a", 1, DAY), reading("c", 1, DAY), reading("d", 1, DAY)])
    third = run("jr_3")

    # THEN it is stored once, and each repeat is counted as one
    assert first["counts"] == {"lines": 4, "new": 2, "duplicate": 2, "rejected": 0}
    assert second["counts"] == {"lines": 2, "new": 1, "duplicate": 1, "rejected": 0}
    assert third["counts"] == {"lines": 3, "new": 1, "duplicate": 2, "rejected": 0}
    assert [row[0] for row in lake.rows(spark)] == ["a", "b", "c", "d"]


def test_minus_zero_and_zero_are_one_reading_also_between_batches(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN readings of minus zero, as temperature and as timestamp
    lake.put_lines("1.gz", [reading("a", -0.0, DAY), reading("b", 0.0, DAY), reading("c", 1, -0.0)])
    run("jr_1")

    # WHEN the same arrive with the other sign
    lake.put_lines("2.gz", [reading("a", 0.0, DAY), reading("b", -0.0, DAY), reading("c", 1, 0)])
    second = run("jr_2")

    # THEN they are repeats, and what is stored is plus zero
    assert second["counts"] == {"lines": 3, "new": 0, "duplicate": 3, "rejected": 0}
    rows = lake.rows(spark)
    assert [row[0] for row in rows] == ["a", "b", "c"]
    assert {math.copysign(1, number) for row in rows for number in row[1:3]} == {1.0}


EMPTY_OBJECTS = {
    "no bytes": b"",
    "an empty gzip": gzip.compress(b""),
    "blank lines": gzip.compress(b"\n \t\r\n\n"),
    "spaces": gzip.compress(b" " * 100),
}


def test_an_empty_batch_publishes_nothing_and_is_done_with(lake: Lake, run: Run) -> None:
    # GIVEN a source without objects, and then with objects that hold no line
    for number, body in enumerate([None, *EMPTY_OBJECTS.values()]):
        if body is not None:
            lake.put(f"{FOLDER}{number}.gz", body)

        # WHEN the job runs
        summary = run(f"jr_{number}")

        # THEN it ends well, with a summary and a bookmark and without any file
        assert summary["counts"] == {"lines": 0, "new": 0, "duplicate": 0, "rejected": 0}
        assert summary == lake.summary(f"jr_{number}")
        assert lake.bookmark.exists()
        assert lake.state() == {"files": {}, "dead letters": set()}

    # WHEN a reading arrives
    lake.put_lines("1.gz", [reading("a", 1, DAY)])

    # THEN it is stored as ever
    assert run("jr_reading")["counts"]["new"] == 1


def damaged(whole: bytes) -> dict[str, bytes]:
    """A gzip object, broken in several ways."""
    middle = len(whole) // 2
    return {
        "cut in the middle": whole[:middle],
        "without its last byte": whole[:-1],
        "with another checksum": whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:],
        "with a flipped bit": whole[:middle] + bytes([whole[middle] ^ 0x10]) + whole[middle + 1 :],
        "not compressed": gzip.decompress(whole),
    }


def test_a_damaged_object_fails_the_run_by_its_name_and_nothing_is_published_or_committed(
    lake: Lake, run: Run, spark: Any
) -> None:
    # GIVEN a good object that was read before, a new good one, and one that is damaged behind many good lines
    lake.put_lines("1.gz", [reading("a", 1, DAY)])
    run("jr_1")
    before, bookmark = lake.state(), lake.bookmark.read_text()
    lake.put_lines("2.gz", [reading("b", 1, DAY), "bad"])
    whole = gzip.compress(b"".join(f"{reading(f'c{n}', n / 7, DAY + n)}\n".encode() for n in range(2000)))
    for number, body in enumerate(damaged(whole).values()):
        key = lake.put(f"{FOLDER}damaged.gz", body)

        # WHEN the job runs
        # THEN it fails and names the object
        with pytest.raises(RuntimeError, match=key):
            run(f"jr_damaged_{number}")

        # THEN nothing was published, and the next run will read it all again
        assert lake.state() == before
        assert lake.bookmark.read_text() == bookmark
        assert lake.keys("run_summaries/") == ["run_summaries/jr_1.json"]

    # WHEN the object has been replaced by a whole one
    lake.put(key, whole)

    # THEN all of it is stored
    assert run("jr_2")["counts"] == {"lines": 2002, "new": 2001, "duplicate": 0, "rejected": 1}


@dataclass(frozen=True)
class OddObject:
    """Uncompressed bytes of an object, the devices whose readings it holds, and its rejects: original and reason."""

    body: bytes
    devices: tuple[str, ...]
    rejects: tuple[tuple[bytes, str], ...]


def _line(device_id: str, **more: Any) -> bytes:
    return reading(device_id, 1, DAY, **more).encode()


TWO_OBJECTS = _line("two-first") + _line("two-second")
RAW_SEPARATOR = _line("separator", note="SIGN").replace(b"SIGN", b"\x01")
NOT_UTF8 = _line("broken", note="SIGN").replace(b"SIGN", b"\xff\xfe\x80")
SURROGATE_BYTES = _line("surrogate", note="SIGN").replace(b"SIGN", b"\xed\xa0\x80")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONG_READING = _line("long", note="x" * MEBIBYTE)
LONG_REJECT = _line("long-reject", note="x" * MEBIBYTE)[:-1]

ODD_OBJECTS = {
    "lines ended by CRLF": OddObject(
        _line("crlf-1") + b"\r\n" + b"crlf bad\r\n\r\n" + _line("crlf-2") + b"\r\n",
        ("crlf-1", "crlf-2"),
        ((b"crlf bad", "malformed_json"),),
    ),
    "no line feed at the end": OddObject(_line("end-1") + b"\n" + _line("end-2"), ("end-1", "end-2"), ()),
    "a raw U+0001": OddObject(
        _line("before") + b"\n" + RAW_SEPARATOR + b"\n\x01\n" + _line("after") + b"\n",
        ("before", "after"),
        ((RAW_SEPARATOR, "malformed_json"), (b"\x01", "malformed_json")),
    ),
    "an escaped U+0001": OddObject(_line("escaped", note="\u0001") + b"\n", ("escaped",), ()),
    "two objects on a line": OddObject(
        TWO_OBJECTS + b"\n" + _line("two-third"), ("two-third",), ((TWO_OBJECTS, "malformed_json"),)
    ),
    # Hadoop's reader of lines takes the mark away where an object begins with it.
    "a byte order mark at the beginning": OddObject(BYTE_ORDER_MARK + _line("mark-1") + b"\n", ("mark-1",), ()),
    "a byte order mark on a later line": OddObject(
        _line("mark-2") + b"\n" + BYTE_ORDER_MARK + _line("mark-3") + b"\n",
        ("mark-2",),
        ((BYTE_ORDER_MARK + _line("mark-3"), "malformed_json"),),
    ),
    "bytes that are not UTF-8": OddObject(
        NOT_UTF8 + b"\n" + _line("utf8") + b"\n" + SURROGATE_BYTES + b"\n",
        ("utf8",),
        ((NOT_UTF8, "not_utf8"), (SURROGATE_BYTES, "not_utf8")),
    ),
    "a reading of a mebibyte": OddObject(_line("short") + b"\n" + LONG_READING + b"\n", ("short", "long"), ()),
    "a reject of a mebibyte": OddObject(LONG_REJECT + b"\n", (), ((LONG_REJECT, "malformed_json"),)),
    "two streams of gzip": OddObject(b"", ("stream-1", "stream-2"), ()),
}


@dataclass(frozen=True)
class OddRun:
    """What became of all odd objects in one run."""

    summary: dict[str, Any]
    devices: list[str]
    rejects: list[tuple[bytes, str]]


@pytest.fixture(scope="module")
def odd_run(new_run: Callable[[], Run]) -> Iterator[OddRun]:
    run = new_run()
    lake = run.lake
    for number, odd in enumerate(ODD_OBJECTS.values()):
        lake.put(f"{FOLDER}{number}.gz", gzip.compress(odd.body))
    two_streams = gzip.compress(_line("stream-1") + b"\n") + gzip.compress(_line("stream-2") + b"\n")
    lake.put(f"{FOLDER}{len(ODD_OBJECTS) - 1}.gz", two_streams)
    summary = run("jr_1")
    rejects = [
        (
            base64.b64decode(letter["original_base64"]) if letter["original"] is None else letter["original"].encode(),
            letter["reason"],
        )
        for letter in lake.dead_letters()
    ]
    yield OddRun(summary, [row[0] for row in lake.rows(run.spark)], rejects)
    run.assert_settled()


@pytest.mark.parametrize("name", ODD_OBJECTS)
def test_of_an_odd_object_every_line_is_stored_or_kept_byte_for_byte(odd_run: OddRun, name: str) -> None:
    # GIVEN an object, beside the others
    odd = ODD_OBJECTS[name]

    # WHEN the job has read them all in one run
    # THEN its readings are stored once, and its rejects have their bytes and their reason
    for device in odd.devices:
        assert odd_run.devices.count(device) == 1
    for reject in odd.rejects:
        assert odd_run.rejects.count(reject) == 1


def test_of_all_odd_objects_nothing_else_was_stored_or_rejected(odd_run: OddRun) -> None:
    # GIVEN the readings and rejects of all odd objects
    devices = [device for odd in ODD_OBJECTS.values() for device in odd.devices]
    rejects = [reject for odd in ODD_OBJECTS.values() for reject in odd.rejects]

    # WHEN / THEN
    assert sorted(odd_run.devices) == sorted(devices)
    assert sorted(odd_run.rejects) == sorted(rejects)
    lines = len(devices) + len(rejects)
    assert odd_run.summary["counts"] == {
        "lines": lines,
        "new": len(devices),
        "duplicate": 0,
        "rejected": len(rejects),
    }
