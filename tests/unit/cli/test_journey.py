"""What the runs say and what a second look sees: every kind of difference has to be noticed."""

from datetime import UTC, datetime
from typing import Any

import pytest

from telemetry_lake.journey import Table, changes_between, differences
from telemetry_lake.pipeline import StoredObject
from telemetry_lake.queries import QueryResult

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
