"""The ledger: what was sent is in it whatever happens, and what was acknowledged has its place."""

import errno
import json
import os
from pathlib import Path

import pytest

from telemetry_lake.console import OperatorError
from telemetry_lake.ledger import Entry, Ledger, Place, read_ledger
from telemetry_lake.readings import Record, bad_record

RECORDS = [Record("é\u2028".encode(), "a"), bad_record(b"\xff\n", "b", "not_utf8")]
PLACE = Place("shardId-0", "49")


def test_a_record_is_on_the_disk_before_it_is_sent_and_its_place_when_it_is_known(tmp_path: Path) -> None:
    # GIVEN
    path = tmp_path / "ledger with space.jsonl"

    # WHEN
    with Ledger(path) as ledger:
        names = ledger.sending(RECORDS)
        before = list(read_ledger(path))
        ledger.acknowledged({names[1]: PLACE})
        after = list(read_ledger(path))

    # THEN
    assert before == [
        Entry(names[0], RECORDS[0].data, "a", None, None),
        Entry(names[1], RECORDS[1].data, "b", "not_utf8", None),
    ]
    assert [entry.place for entry in after] == [None, PLACE]


def test_a_ledger_is_continued_and_names_are_not_used_again(tmp_path: Path) -> None:
    # GIVEN / WHEN
    for _ in range(3):
        with Ledger(tmp_path / "ledger") as ledger:
            ledger.acknowledged(dict.fromkeys(ledger.sending(RECORDS), PLACE))

    # THEN
    entries = list(read_ledger(tmp_path / "ledger"))
    assert len({entry.name for entry in entries}) == len(entries) == 6
    assert all(entry.place == PLACE for entry in entries)


@pytest.mark.parametrize("torn", [b'{"record": "x-1", "da', b"{", b"x" * 200_000])
def test_half_a_line_that_a_crash_left_is_none_and_the_next_producer_cuts_it_away(tmp_path: Path, torn: bytes) -> None:
    # GIVEN
    path = tmp_path / "ledger"
    with Ledger(path) as ledger:
        ledger.sending(RECORDS)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)

    # WHEN / THEN
    assert len(list(read_ledger(path))) == 2
    with Ledger(path) as ledger:
        assert path.read_bytes() == whole
        ledger.sending(RECORDS)
    assert len(list(read_ledger(path))) == 4


def test_nothing_but_half_a_line_leaves_an_empty_ledger(tmp_path: Path) -> None:
    # GIVEN
    path = tmp_path / "ledger"
    path.write_bytes(b'{"rec')

    # WHEN
    Ledger(path).__exit__(None, None, None)

    # THEN
    assert path.read_bytes() == b""


def test_two_producers_do_not_share_a_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger"), pytest.raises(OperatorError, match="Another producer"):
        Ledger(tmp_path / "ledger")


def test_a_full_disk_stops_the_producer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Ledger(tmp_path / "ledger") as ledger:
        monkeypatch.setattr("os.fsync", full)

        # WHEN / THEN
        with pytest.raises(OperatorError, match="No space left on device"):
            ledger.sending(RECORDS)


def test_its_lines_are_what_its_documentation_says(tmp_path: Path) -> None:
    # GIVEN / WHEN
    with Ledger(tmp_path / "ledger") as ledger:
        names = ledger.sending([Record(b"{}", "sensor-1"), RECORDS[1]])
        ledger.acknowledged({names[0]: PLACE})

    # THEN
    assert [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()] == [
        {"record": names[0], "partition_key": "sensor-1", "data": "{}"},
        {"record": names[1], "partition_key": "b", "data_base64": "/wo=", "fault": "not_utf8"},
        {"record": names[0], "shard": "shardId-0", "sequence_number": "49"},
    ]
