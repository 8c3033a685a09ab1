"""Amazon CloudWatch Logs: events are deleted when they are older than their group retains them.

MiniStack keeps every event for good, and once more for GetLogRecord.

Known deviations from AWS:

* A group keeps its last 20,000 events, also if it retains them for longer, and GetLogRecord knows the last 20,000 of
  all groups. AWS sets no such bound.
* Events are deleted within a minute; AWS marks them within it and deletes them within 72 hours
  (https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html).
"""

import threading
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

MOST_EVENTS = 20_000
CHECK_SECONDS = 60.0
MILLISECONDS_PER_DAY = 24 * 3600 * 1000


def forget_events(group: Mapping[str, Any], now_milliseconds: float, most_events: int = MOST_EVENTS) -> None:
    """Delete what a group no longer keeps: its streams' events are in the order of their timestamps."""
    streams = [stream["events"] for stream in group["streams"].values()]
    timestamps = sorted((event["timestamp"] for events in streams for event in events), reverse=True)
    oldest = timestamps[most_events - 1] if len(timestamps) > most_events else 0
    if group.get("retentionInDays") is not None:
        oldest = max(oldest, now_milliseconds - group["retentionInDays"] * MILLISECONDS_PER_DAY)
    for events in streams:
        # Others append to the list meanwhile.
        del events[: sum(event["timestamp"] < oldest for event in list(events))]


def forget_first(records: MutableMapping[Any, Any], most_records: int = MOST_EVENTS) -> None:
    """Delete the entries that are there for the longest time, beyond so many."""
    for key in list(records)[: max(0, len(records) - most_records)]:
        records.pop(key, None)


def install(endpoint: Endpoint) -> None:
    """Delete old events once a minute."""
    from ministack.services import cloudwatch_logs

    groups = seams.require(cloudwatch_logs, "_log_groups")
    records = seams.require(cloudwatch_logs, "_log_records")

    def work(stopping: threading.Event) -> None:
        while not stopping.wait(CHECK_SECONDS):
            with endpoint.scope():
                for group in list(groups.values()):
                    forget_events(group, time.time() * 1000)
                forget_first(records._data)

    endpoint.start_worker("log-retention", work)
