"""EventBridge Scheduler of the embedded endpoint: when schedules fire, over ends of the endpoint."""

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from telemetry_lake.local.scheduler import Sweep, latest_due, resume_rules
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

# The sweep is made every ten seconds.
SWEEP_SECONDS = 12
HOUR_SECONDS = 3600


# ---------------------------------------------------------------------------------------------- pure parts


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html")
@pytest.mark.parametrize(("now", "due"), [(100.0, 100.0), (159.0, 100.0), (160.0, 160.0), (1009.0, 1000.0)])
def test_a_rate_is_due_at_whole_intervals(now: float, due: float) -> None:
    assert latest_due(now, anchor=100.0, interval_seconds=60) == due


KEY = (ACCOUNT, REGION, "default/s")
HOURLY = "rate(1 hour)"


class Killed(BaseException):
    """Ends a sweep without any of its clean-up, as SIGKILL does."""


class World:
    """A sweep over one schedule, created at 1000 s, and the moments at which its target was invoked."""

    def __init__(self, **schedule: Any) -> None:
        self.schedules = SimpleNamespace(_data={KEY: {**SCHEDULE, **schedule}})
        self.endpoint = SimpleNamespace(
            changed=lambda _service: None,
            settings=SimpleNamespace(account_id=ACCOUNT, region=REGION),
            scope=nullcontext,
        )
        self.fired_at: list[float] = []
        self.dies = False
        self.sweep = self.started()

    def started(self, began: float = 1_000.0) -> Sweep:
        """Start the endpoint."""
        from ministack.services import eventbridge as rules
        from ministack.services import scheduler as service

        scheduler = SimpleNamespace(
            _schedules=self.schedules, _at_time_epoch=service._at_time_epoch, _to_epoch=service._to_epoch
        )
        eventbridge = SimpleNamespace(
            _parse_rate_seconds=rules._parse_rate_seconds,
            _parse_cron_fields=rules._parse_cron_fields,
            _cron_next_fire=rules._cron_next_fire,
            _invoke_target=self.invoke,
        )
        return Sweep(self.endpoint, scheduler, eventbridge, began)  # type: ignore[arg-type]

    def invoke(self, _target: Any, event: dict[str, Any], _schedule: Any) -> None:
        self.fired_at.append(event["Time"])
        if self.dies:
            raise Killed

    def sweep_at(self, *moments: float) -> list[float]:
        for moment in moments:
            self.sweep.sweep(moment)
        return self.fired_at

    def restart(self, began: float) -> None:
        kept = self.sweep.as_state()
        self.sweep = self.started(began)
        self.sweep.restore(kept)


SCHEDULE = {
    "Arn": "schedule",
    "State": "ENABLED",
    "CreationDate": 1_000.0,
    "ScheduleExpression": HOURLY,
    "Target": {"Arn": "target"},
}


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#rate-based")
def test_a_rate_without_a_start_date_fires_at_once_and_then_in_whole_intervals() -> None:
    # WHEN the sweep comes late
    fired = World().sweep_at(1_009, 2_000, 4_599, 4_609, 8_199, 8_200)

    # THEN that delays no other firing
    assert fired == [1_009, 4_609, 8_200]


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#rate-based")
def test_a_rate_with_a_start_date_fires_then_first() -> None:
    assert World(StartDate=2_000).sweep_at(1_009, 1_999, 2_001, 5_599, 5_600) == [2_001, 5_600]


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/APIReference/API_CreateSchedule.html")
def test_a_one_time_schedule_fires_once_whatever_its_start_date() -> None:
    one_time = World(ScheduleExpression="at(1970-01-01T01:00:00)", StartDate=9_000)
    assert one_time.sweep_at(3_599, 3_600, 3_610, 9_999) == [3_600]


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#time-zones")
@pytest.mark.parametrize("expression", ["at(1970-01-01T10:00:00)", "cron(0 10 * * ? *)"])
def test_an_expression_is_of_the_schedules_time_zone(expression: str) -> None:
    # GIVEN ten o'clock in Tokyo, where it is nine hours later
    tokyo = World(ScheduleExpression=expression, ScheduleExpressionTimezone="Asia/Tokyo")
    assert tokyo.sweep_at(3_599, 3_600, 3_700) == [3_600]


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#time-zones")
def test_a_time_of_a_zone_keeps_its_hour_when_summer_begins() -> None:
    # GIVEN nine o'clock in New York, on 13 and 14 March 2021: in between its clocks went from UTC-5 to UTC-4
    saturday, sunday = 1_615_644_000, 1_615_726_800
    world = World(ScheduleExpression="cron(0 9 * * ? *)", ScheduleExpressionTimezone="America/New_York")
    world.restart(saturday - 600)

    # WHEN / THEN
    assert world.sweep_at(saturday - 1, saturday, sunday - 1, sunday) == [saturday, sunday]


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-state.html")
def test_a_disabled_schedule_fires_once_it_is_enabled() -> None:
    # GIVEN
    world = World(State="DISABLED")
    assert world.sweep_at(1_009) == []

    # WHEN
    world.schedules._data[KEY]["State"] = "ENABLED"

    # THEN
    assert world.sweep_at(1_500) == [1_500]


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/APIReference/API_CreateSchedule.html")
@pytest.mark.parametrize(
    "schedule", [{"ScheduleExpression": "at(1970-01-01T01:00:00)"}, {"ScheduleExpression": HOURLY, "EndDate": 3_599}]
)
def test_a_schedule_that_is_over_deletes_itself_if_asked_to(schedule: dict[str, Any]) -> None:
    # GIVEN
    world = World(**schedule, ActionAfterCompletion="DELETE")

    # WHEN
    world.sweep_at(3_599)
    assert world.schedules._data
    world.sweep_at(3_600)

    # THEN
    assert not world.schedules._data
    assert len(world.fired_at) == 1


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/UserGuide/what-is-scheduler.html")
@pytest.mark.parametrize("expression", [HOURLY, "at(1970-01-01T00:00:00)"])
def test_a_kill_while_a_target_is_invoked_does_not_lose_the_firing(expression: str) -> None:
    # GIVEN
    world = World(ScheduleExpression=expression)

    # WHEN the endpoint is killed before it knows whether the invocation succeeded
    world.dies = True
    with pytest.raises(Killed):
        world.sweep_at(1_009)
    world.dies = False
    world.restart(1_015)

    # THEN the target is invoked at least once
    assert world.sweep_at(1_019, 1_029) == [1_009, 1_019]


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-delete.html")
def test_a_schedule_has_not_fired_when_an_earlier_one_of_its_name_did() -> None:
    # GIVEN
    world = World()
    world.sweep_at(1_009)

    # WHEN
    world.schedules._data[KEY] = {**SCHEDULE, "CreationDate": 1_015.0}

    # THEN
    assert world.sweep.as_state() == []
    assert world.sweep_at(1_019) == [1_009, 1_019]


@pytest.mark.own_machinery("a deviation that is listed: on AWS nothing is down")
def test_what_a_cron_expression_had_due_is_not_made_up_for() -> None:
    # GIVEN a schedule for twenty to six
    hour, day = 3_600, 86_400
    due = 17 * hour + 40 * 60
    world = World(ScheduleExpression="cron(40 17 * * ? *)")
    assert world.sweep_at(due - 1, due, due + 10) == [due]

    # WHEN the endpoint starts again after the next one
    world.restart(due + day + hour)

    # THEN
    assert world.sweep_at(due + day + hour, due + 2 * day) == [due, due + 2 * day]


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html")
def test_a_start_of_the_endpoint_is_no_reason_for_a_rule_to_fire() -> None:
    # GIVEN a rule that is older than the interval of its rate, of which nobody knows when it fired
    stored = {KEY: {"ScheduleExpression": HOURLY, "CreationTime": 1_000.0}}
    from ministack.services import eventbridge as rules

    fired: dict[Any, float] = {}
    eventbridge = SimpleNamespace(
        _rules=SimpleNamespace(_data=stored),
        _rule_last_fired=fired,
        _parse_rate_seconds=rules._parse_rate_seconds,
    )

    # WHEN
    resume_rules(eventbridge, 10_000.0)

    # THEN it goes on counting from its creation
    assert fired == {KEY: 8_200.0}


# ------------------------------------------------------------------------------------- the running service


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    endpoint = EndpointProcess(tmp_path_factory.mktemp("scheduler"))
    yield endpoint
    endpoint.stop()


def let_time_pass(running: EndpointProcess, seconds: float) -> None:
    """Start the endpoint again as if it had been down for a while."""
    running.stop()
    file = running.state_directory / "services" / "scheduler.json"
    state = json.loads(file.read_text())
    for schedule in state["payload"]["schedules"]["data"].values():
        schedule["CreationDate"] -= seconds
    for firing in state["payload"]["last_firings"]:
        firing[-1] -= seconds
    file.write_text(json.dumps(state))
    running.start()


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html")
def test_a_start_of_the_endpoint_is_no_reason_to_fire(running: EndpointProcess) -> None:
    # GIVEN a rate and a one-time schedule, whose messages go to a queue
    sqs = running.client("sqs")
    url = sqs.create_queue(QueueName="fired")["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:fired"
    role = running.role("schedules", "scheduler.amazonaws.com", ("sqs:SendMessage", arn))
    for name, expression in (("hourly", "rate(1 hour)"), ("once", "at(2020-01-01T00:00:00)")):
        running.client("scheduler").create_schedule(
            Name=name,
            ScheduleExpression=expression,
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": arn, "RoleArn": role, "Input": json.dumps(name)},
        )

    def fired() -> str | None:
        messages = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=SWEEP_SECONDS).get("Messages", [])
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return json.loads(messages[0]["Body"]) if messages else None

    # THEN both fire
    assert {wait_until(fired), wait_until(fired)} == {"once", "hourly"}

    # WHEN the rate comes due again while the endpoint is down
    let_time_pass(running, 1.5 * HOUR_SECONDS)

    # THEN it fires, and nothing else does
    assert wait_until(fired) == "hourly"

    # WHEN the endpoint is killed once it has noted that
    time.sleep(2)
    running.kill()
    running.start()

    # THEN nothing fires
    assert fired() is None
