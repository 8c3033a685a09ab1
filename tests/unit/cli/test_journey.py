"""What the runs say and what a second look sees: every kind of difference has to be noticed."""

import io
import math
import random
from datetime import UTC, datetime
from typing import Any

import pandas
import pytest

from telemetry_lake.journey import (
    DeviceAverage,
    Table,
    average_differences,
    averages_sent,
    changes_between,
    differences,
)
from telemetry_lake.ledger import Entry
from telemetry_lake.pipeline import StoredObject
from telemetry_lake.producer import packed
from telemetry_lake.queries import QueryResult
from telemetry_lake.readings import bad_readings, shuffled
from telemetry_lake.recorded import RECORDINGS, measured, recorded_readings, retimed

NOW = datetime(2025, 10, 15, tzinfo=UTC)


def table(rows: int = 3, etag: str = "x", partitions: int = 1) -> Table:
    return Table(
        [StoredObject("part.parquet", 1, etag, NOW)],
        [("2025", "10", str(day + 1)) for day in range(partitions)],
        QueryResult("q", ("row_count", "distinct_count"), ((str(rows), str(rows)),), 1, 1),
    )


def run(lines: int = 3, new: int = 3, duplicate: int = 0, rejected: int = 0) -> list[dict[str, Any]]:
    return [{"counts": {"lines": lines, "new": new, "duplicate": duplicate, "rejected": rejected}}]


def test_every_good_reading_once_is_no_difference() -> None:
    assert differences(3, run()) == []


def test_a_line_that_firehose_delivered_twice_is_no_difference() -> None:
    assert differences(3, run(lines=4, duplicate=1)) == []


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (run(new=2), "new readings by the run summaries: 2 instead of 3"),
        (run(lines=4, rejected=1), "lines that the job rejected: 1 instead of 0"),
        (run(lines=5), "lines judged by the job: 5 instead of 3"),
    ],
)
def test_each_difference_is_named(found: list[dict[str, Any]], named: str) -> None:
    assert named in differences(3, found)


@pytest.mark.parametrize(
    ("after", "changed"),
    [
        (table(), []),
        (table(etag="y"), ["files: 1, then 1"]),
        (table(rows=4), ["rows: 3, then 4"]),
        (table(partitions=2), ["partitions: 1, then 2"]),
    ],
)
def test_a_second_look_notices_any_change(after: Table, changed: list[str]) -> None:
    assert changes_between(table(), after) == changed


def sent(count: int) -> list[Entry]:
    """The recorded readings as the demo sends them, with a bad one and a ledger's line for each record."""
    good = recorded_readings(retimed(measured(tuple(RECORDINGS))[:count], NOW.timestamp(), 168))
    bad = bad_readings(13, NOW.timestamp, random.Random(1))
    records = [record for record in packed(shuffled(good, bad, count, 13), 100) if record is not None]
    return [Entry(f"{number}", each.data, each.partition_key, each.fault, None) for number, each in enumerate(records)]


def test_the_averages_of_what_was_sent_are_those_of_pandas() -> None:
    # GIVEN all that the demo sends
    entries = sent(30_000)
    assert len(entries) < 400

    # WHEN pandas reads the good ones
    lines = b"\n".join(entry.data for entry in entries if entry.fault is None)
    frame = pandas.read_json(io.BytesIO(lines), lines=True, precise_float=True)
    wanted = frame.groupby("device_id")["temperature"].agg(["count", "mean"])

    # THEN
    found = averages_sent(entries)
    assert {device: average.readings for device, average in found.items()} == wanted["count"].to_dict()
    assert {device: average.celsius for device, average in found.items()} == pytest.approx(
        wanted["mean"].to_dict(), abs=1e-9, rel=0
    )
    assert sum(average.readings for average in found.values()) == 30_000


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ({"a": DeviceAverage(2, 1.5 + 9e-10), "b": DeviceAverage(1, -3.0)}, []),
        (
            {"a": DeviceAverage(2, 1.5 + 2e-9), "b": DeviceAverage(1, -3.0)},
            ["average of a: 1.500000002 instead of 1.5 °C"],
        ),
        ({"a": DeviceAverage(2, math.nan), "b": DeviceAverage(1, -3.0)}, ["average of a: nan instead of 1.5 °C"]),
        ({"a": DeviceAverage(3, 1.5), "b": DeviceAverage(1, -3.0)}, ["readings of a: 3 instead of 2"]),
        ({"a": DeviceAverage(2, 1.5)}, ["readings of b: 0 instead of 1"]),
        (
            {"a": DeviceAverage(2, 1.5), "b": DeviceAverage(1, -3.0), "c": DeviceAverage(1, 0.0)},
            ["readings of c: 1 instead of 0"],
        ),
    ],
)
def test_an_average_that_is_not_the_inputs_is_named(found: dict[str, DeviceAverage], wrong: list[str]) -> None:
    assert average_differences({"a": DeviceAverage(2, 1.5), "b": DeviceAverage(1, -3.0)}, found) == wrong
