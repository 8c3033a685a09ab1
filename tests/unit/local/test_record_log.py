"""The files behind shards: what was appended is there, in order, once, whatever was trimmed or cut off between."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.local.record_log import NewRecord, Numbering, RecordLog

KIBIBYTE = 1024


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1_760_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(directory: Path, clock: Clock, segment_bytes: int = KIBIBYTE) -> RecordLog:
    return RecordLog(directory, Numbering(clock), segment_bytes)


def records(count: int, size: int = 10) -> list[NewRecord]:
    return [NewRecord(f"key {number}", bytes([number % 256]) * size) for number in range(count)]


def everything(log: RecordLog, **limits: Any) -> list[NewRecord]:
    """Read page after page, as a consumer does."""
    found, after = [], 0
    while page := log.read(after, **{"most_records": 7, "most_bytes": KIBIBYTE, **limits}):
        found += [NewRecord(record.key, record.data) for record in page]
        assert [record.number for record in page] == sorted({record.number for record in page})
        assert page[0].number > after
        after = page[-1].number
    return found


@pytest.mark.own_machinery("files of our own: nothing of AWS")
@given(sizes=st.lists(st.lists(st.integers(0, 3000), max_size=5), max_size=8), reopen=st.integers(0, 8))
def test_what_is_appended_is_read_in_order_over_files_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[list[int]], reopen: int
) -> None:
    # GIVEN a log that is opened anew once between appends
    directory, clock = tmp_path_factory.mktemp("log"), Clock()
    log = opened(directory, clock)
    expected = []

    # WHEN
    for turn, batch in enumerate(sizes):
        if turn == reopen:
            log = opened(directory, clock)
        new = [NewRecord(f"ключ {turn}", os.urandom(size)) for size in batch]
        log.append(new)
        expected += new

    # THEN
    assert everything(log) == expected
    assert everything(opened(directory, clock)) == expected


@pytest.mark.own_machinery("files of our own: nothing of AWS")
def test_numbers_grow_although_the_clock_is_set_back_and_the_log_opened_anew(tmp_path: Path, clock: Clock) -> None:
    # GIVEN
    before = opened(tmp_path, clock).append(records(3))

    # WHEN
    clock.now -= 3600
    after = opened(tmp_path, clock).append(records(2))

    # THEN
    numbers = [record.number for record in (*before, *after)]
    assert numbers == sorted(set(numbers))


@pytest.mark.own_machinery("files of our own: nothing of AWS")
@pytest.mark.parametrize("cut", range(1, 40))
def test_a_record_that_was_not_written_to_its_end_is_cut_off(tmp_path: Path, clock: Clock, cut: int) -> None:
    # GIVEN a log whose process was killed while it wrote the last of three records
    log = opened(tmp_path, clock)
    log.append(records(3, size=12))
    (file,) = tmp_path.iterdir()
    os.truncate(file, file.stat().st_size - min(cut, 39))

    # WHEN
    mended = opened(tmp_path, clock)

    # THEN the whole ones are there, and what comes next is too
    assert everything(mended) == records(3, size=12)[:2]
    mended.append([NewRecord("next", b"next")])
    assert everything(opened(tmp_path, clock)) == [*records(3, size=12)[:2], NewRecord("next", b"next")]


@pytest.mark.own_machinery("files of our own: nothing of AWS")
def test_a_file_without_a_whole_record_is_forgotten(tmp_path: Path, clock: Clock) -> None:
    # GIVEN a first record that was cut off in its head
    opened(tmp_path, clock).append(records(1))
    (file,) = tmp_path.iterdir()
    os.truncate(file, 5)

    # WHEN
    log = opened(tmp_path, clock)

    # THEN
    assert everything(log) == []
    log.append(records(2))
    assert everything(log) == records(2)


@pytest.mark.own_machinery("files of our own: nothing of AWS")
def test_a_page_has_the_limits_asked_for_and_one_record_at_least(tmp_path: Path, clock: Clock) -> None:
    # GIVEN records of 95 bytes with their keys
    log = opened(tmp_path, clock)
    log.append([NewRecord("12345", b"x" * 90)] * 10)

    # WHEN / THEN
    assert len(log.read(0, most_records=4, most_bytes=10_000)) == 4
    assert len(log.read(0, most_records=100, most_bytes=95 * 3)) == 3
    assert len(log.read(0, most_records=100, most_bytes=1)) == 1


@pytest.mark.own_machinery("files of our own: nothing of AWS")
def test_trimming_deletes_the_files_that_end_before_and_numbers_go_on(tmp_path: Path, clock: Clock) -> None:
    # GIVEN a file for each of three hours
    log = opened(tmp_path, clock)
    for number in range(3):
        log.append([NewRecord(f"hour {number}", b"x" * 2 * KIBIBYTE)])
        clock.now += 3600
    assert len(list(tmp_path.iterdir())) == 3

    # WHEN what came before the second hour was over is not kept
    log.trim(int((clock.now - 1.5 * 3600) * 1000))

    # THEN a file goes as soon as the next one begins before that
    assert [record.key for record in everything(log)] == ["hour 1", "hour 2"]

    # AND numbers go on after everything is gone
    last = log.last_number
    log.trim(int(clock.now * 1000))
    assert everything(log) == []
    assert log.append(records(1))[0].number > last


@pytest.mark.own_machinery("files of our own: nothing of AWS")
def test_nothing_of_the_records_stays_in_memory(tmp_path: Path, clock: Clock) -> None:
    # GIVEN
    import tracemalloc

    log = opened(tmp_path, clock, segment_bytes=8 * KIBIBYTE * KIBIBYTE)
    batch = records(500, size=10 * KIBIBYTE)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    # WHEN 100 MB are written
    for _ in range(20):
        log.append(batch)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # THEN
    assert after - before < 100 * KIBIBYTE
