"""Log events are kept as long as their group retains them, and never without end."""

from typing import Any

import pytest

from telemetry_lake.local.log_retention import MILLISECONDS_PER_DAY, forget_events, forget_first


def group(retention_days: int | None, **timestamps: list[float]) -> dict[str, Any]:
    streams = {name: {"events": [{"timestamp": each} for each in times]} for name, times in timestamps.items()}
    return {"retentionInDays": retention_days, "streams": streams}


def left(group: dict[str, Any]) -> dict[str, list[float]]:
    return {name: [each["timestamp"] for each in stream["events"]] for name, stream in group["streams"].items()}


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html")
@pytest.mark.parametrize(("retention_days", "kept"), [(1, [2.0, 3.0]), (2, [1.0, 2.0, 3.0]), (None, [1.0, 2.0, 3.0])])
def test_events_older_than_the_retention_are_deleted(retention_days: int | None, kept: list[float]) -> None:
    # GIVEN events of the days 1, 2 and 3
    events = group(retention_days, a=[day * MILLISECONDS_PER_DAY for day in (1.0, 2.0, 3.0)])

    # WHEN
    forget_events(events, now_milliseconds=3.0 * MILLISECONDS_PER_DAY)

    # THEN
    assert left(events) == {"a": [day * MILLISECONDS_PER_DAY for day in kept]}


@pytest.mark.own_machinery("a bound that AWS does not have")
def test_a_group_keeps_its_last_events() -> None:
    # GIVEN
    events = group(None, a=[1, 4, 5], b=[2, 3, 6])

    # WHEN
    forget_events(events, now_milliseconds=10, most_events=4)

    # THEN
    assert left(events) == {"a": [4, 5], "b": [3, 6]}


@pytest.mark.own_machinery("a bound that AWS does not have")
def test_records_that_came_first_are_forgotten() -> None:
    records = dict.fromkeys(range(10), "")
    forget_first(records, 3)
    assert list(records) == [7, 8, 9]
