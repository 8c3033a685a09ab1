"""Amazon EventBridge Scheduler: schedules whose rhythm outlives the endpoint.

MiniStack fires schedules, but forgets when it did once it ends, and begins a rate one interval late. Here a sweep of
this project's own stands in the place of MiniStack's: a rate fires at its start date first, at once if it has none, and
then goes on in whole intervals (https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#rate-based).
When a schedule last fired is part of what is kept, and noted when its target has been invoked: a schedule fires at
least once (https://docs.aws.amazon.com/scheduler/latest/UserGuide/what-is-scheduler.html).

Known deviations from AWS:

* A rate or a one-time schedule that came due while the endpoint was down fires once, after its start; what a cron
  expression, or the rate of a rule of EventBridge, had due meanwhile is left out.
* ``FlexibleTimeWindow`` has no effect. A time that daylight saving time leaves out is taken for the one after it.
"""

import logging
import math
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

# Account, region, and group and name of a schedule.
Key = tuple[str, str, str]
Schedule = Mapping[str, Any]

logger = logging.getLogger("telemetry_lake.local.scheduler")


def latest_due(now: float, anchor: float, interval_seconds: float) -> float:
    """Return the last moment until now at which a rate is due that counts from an anchor.

    >>> latest_due(now=7_509.0, anchor=300.0, interval_seconds=3_600)
    7500.0
    """
    return anchor + (now - anchor) // interval_seconds * interval_seconds


class Sweep:
    """Fires what is due; MiniStack asks for it every ten seconds."""

    def __init__(self, endpoint: Endpoint, scheduler: Any, eventbridge: Any, began: float) -> None:
        """``began``: what a cron expression had due before is left out."""
        self._endpoint = endpoint
        self._schedules = seams.require(scheduler, "_schedules")
        self._one_time = seams.require(scheduler, "_at_time_epoch")
        self._epoch = seams.require(scheduler, "_to_epoch")
        self._rate_seconds = seams.require(eventbridge, "_parse_rate_seconds")
        self._cron_fields = seams.require(eventbridge, "_parse_cron_fields")
        self._next_of_cron = seams.require(eventbridge, "_cron_next_fire")
        self._invoke = seams.require(eventbridge, "_invoke_target")
        self._fired: dict[Key, float] = {}
        self._began = began

    def sweep(self, now: float | None = None) -> None:
        """Fire the schedules that are due, and complete those that are over."""
        now = time.time() if now is None else now
        for key, schedule in list(self._schedules._data.items()):
            if schedule["State"] != "ENABLED":
                continue
            is_over = now > (self._epoch(schedule.get("EndDate")) or math.inf)
            if not is_over and self.is_due(key, schedule, now):
                self._fire(schedule, now)
                self._fired[key] = now
                self._endpoint.changed("scheduler")
                is_over = self._one_time(schedule["ScheduleExpression"]) is not None
            if is_over and schedule.get("ActionAfterCompletion") == "DELETE":
                self._schedules._data.pop(key, None)
                self._endpoint.changed("scheduler")

    def is_due(self, key: Key, schedule: Schedule, now: float) -> bool:
        """Tell whether a schedule has to fire now; an earlier one of its name does not count."""
        created = schedule["CreationDate"]
        fired = self._fired.get(key, -math.inf)
        fired = fired if fired >= created else -math.inf
        expression = schedule["ScheduleExpression"]
        start = self._epoch(schedule.get("StartDate"))
        zone = ZoneInfo(schedule.get("ScheduleExpressionTimezone") or "UTC")
        if (due_in_utc := self._one_time(expression)) is not None:
            due = datetime.fromtimestamp(due_in_utc, UTC).replace(tzinfo=zone).timestamp()
            return fired < due <= now  # a start date is ignored
        if start is not None and now < start:
            return False
        if (interval_seconds := self._rate_seconds(expression)) is not None:
            return fired < latest_due(now, created if start is None else start, interval_seconds)
        if (fields := self._cron_fields(expression)) is None:
            return False
        known_since = datetime.fromtimestamp(max(fired, created, self._began), zone)
        due_at = self._next_of_cron(fields, known_since)
        return due_at is not None and due_at.timestamp() <= now

    def _fire(self, schedule: Schedule, now: float) -> None:
        event = {
            "EventId": str(uuid.uuid4()),
            "Source": "aws.scheduler",
            "DetailType": "Scheduled Event",
            "Detail": "{}",
            "Time": now,
            "Resources": [schedule["Arn"]],
            "Account": self._endpoint.settings.account_id,
            "Region": self._endpoint.settings.region,
        }
        with self._endpoint.scope():
            try:
                self._invoke(schedule["Target"], event, schedule)
            except Exception:
                logger.exception("%s could not be delivered", schedule["Arn"])

    def as_state(self) -> list[list[Any]]:
        """Return what has to be kept: of schedules that are still there, and have no cron expression."""
        schedules = self._schedules._data
        return [
            [*key, fired]
            for key, fired in list(self._fired.items())
            if key in schedules
            and fired >= schedules[key]["CreationDate"]
            and not schedules[key]["ScheduleExpression"].startswith("cron(")
        ]

    def restore(self, state: list[list[Any]]) -> None:
        """Take back what was kept."""
        self._fired.update({(account, region, name): fired for account, region, name, fired in state})


def resume_rules(eventbridge: Any, now: float) -> None:
    """Let the rates of EventBridge's rules go on: MiniStack would fire them, having forgotten that it did.

    They count from the creation of the rule.
    """
    rate_seconds = seams.require(eventbridge, "_parse_rate_seconds")
    fired = seams.require(eventbridge, "_rule_last_fired")
    for key, rule in seams.require(eventbridge, "_rules")._data.items():
        interval_seconds = rate_seconds(rule.get("ScheduleExpression", ""))
        if interval_seconds is not None:
            fired[key] = latest_due(now, rule["CreationTime"], interval_seconds)


def install(endpoint: Endpoint) -> None:
    """Put the sweep into the place of MiniStack's, and let what it notes be kept."""
    from ministack.services import eventbridge, scheduler

    sweep = Sweep(endpoint, scheduler, eventbridge, time.time())
    get_state = seams.require(scheduler, "get_state")
    load_state = seams.require(scheduler, "load_persisted_state")

    def get_state_with_firings() -> dict[str, Any]:
        return {**get_state(), "last_firings": sweep.as_state()}

    def load_state_with_firings(state: dict[str, Any]) -> None:
        load_state(state)
        sweep.restore(state.get("last_firings", []))

    seams.replace(scheduler, "_tick_schedules", sweep.sweep)
    seams.replace(scheduler, "get_state", get_state_with_firings)
    seams.replace(scheduler, "load_persisted_state", load_state_with_firings)
    endpoint.on_ready(lambda: resume_rules(eventbridge, time.time()))
