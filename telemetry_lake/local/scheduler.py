"""Amazon EventBridge Scheduler: schedules whose rhythm outlives the endpoint.

MiniStack fires schedules, but forgets when it did once it ends, so that with every start a rate fires at once and a
one-time schedule fires again. Here the last firings are part of what is kept, and a rate goes on in whole intervals
(https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html).

Known deviations from AWS:

* A rate counts from the creation of its schedule, and first fires one interval after it. AWS fires it at its start date
  first, and at once if it has none
  (https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#rate-based).
* A rate or a one-time schedule that came due while the endpoint was down fires once, after its start; what a cron
  expression had due meanwhile is left out.
* A kill in the moment between a firing and the invocation of its target loses the firing.
* Times are in UTC, whatever time zone a schedule has, and ``FlexibleTimeWindow`` has no effect.
* The schedules of EventBridge's rules are MiniStack's: a rate that is older than its interval fires with every start.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

# Account, region, and group and name of a schedule.
Key = tuple[str, str, str]


def latest_due(now: float, anchor: float, interval_seconds: float) -> float:
    """Return the last moment until now at which a rate is due that counts from an anchor.

    >>> latest_due(now=7_509.0, anchor=300.0, interval_seconds=3_600)
    7500.0
    """
    return anchor + (now - anchor) // interval_seconds * interval_seconds


class LastFirings(dict[Key, float]):
    """When each schedule last fired, as MiniStack's sweep asks for it and notes it before it invokes the target."""

    def __init__(self, endpoint: Endpoint, schedules: Any, rate_seconds: Callable[[str], int | None]) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._schedules = schedules
        self._rate_seconds = rate_seconds

    def _schedule(self, key: Key) -> Mapping[str, Any]:
        return self._schedules.get_scoped(*key) or {}

    def __contains__(self, key: Any) -> bool:
        """Tell whether a schedule has fired; an earlier one of its name does not count."""
        created: float = self._schedule(key).get("CreationDate", math.inf)
        return self.get(key, -math.inf) >= created

    def __setitem__(self, key: Key, moment: float) -> None:
        """Note a firing; that of a rate counts as of when it was due, so that a late sweep delays no other one."""
        schedule = self._schedule(key)
        interval_seconds = self._rate_seconds(schedule.get("ScheduleExpression", ""))
        if interval_seconds is not None:
            moment = latest_due(moment, schedule["CreationDate"], interval_seconds)
        super().__setitem__(key, moment)
        self._endpoint.changed("scheduler")

    def pop(self, key: Key, default: Any = None) -> Any:
        """Forget a schedule that deletes itself after its completion."""
        self._endpoint.changed("scheduler")
        return super().pop(key, default)

    def as_state(self) -> list[list[Any]]:
        """Return what has to be kept: of schedules that are still there, and have no cron expression."""
        return [
            [*key, moment]
            for key, moment in list(self.items())
            if key in self and not self._schedule(key).get("ScheduleExpression", "").startswith("cron(")
        ]

    def restore(self, state: list[list[Any]]) -> None:
        """Take back what was kept."""
        self.update({(account, region, name): moment for account, region, name, moment in state})


def install(endpoint: Endpoint) -> None:
    """Let MiniStack's sweep keep what it notes."""
    from ministack.services import eventbridge, scheduler

    schedules = seams.require(scheduler, "_schedules")
    firings = LastFirings(endpoint, schedules, seams.require(eventbridge, "_parse_rate_seconds"))
    get_state = seams.require(scheduler, "get_state")
    load_state = seams.require(scheduler, "load_persisted_state")

    def get_state_with_firings() -> dict[str, Any]:
        return {**get_state(), "last_firings": firings.as_state()}

    def load_state_with_firings(state: dict[str, Any]) -> None:
        load_state(state)
        firings.restore(state.get("last_firings", []))

    seams.replace(scheduler, "_schedule_last_fired", firings)
    seams.replace(scheduler, "get_state", get_state_with_firings)
    seams.replace(scheduler, "load_persisted_state", load_state_with_firings)
