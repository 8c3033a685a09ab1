"""EventBridge Scheduler of the embedded endpoint: when schedules fire, over ends of the endpoint."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from telemetry_lake.local.scheduler import LastFirings, latest_due
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


class FakeEndpoint:
    def __init__(self) -> None:
        self.marked: list[str] = []

    def changed(self, service: str) -> None:
        self.marked.append(service)


class FakeSchedules(dict[tuple[str, str, str], dict[str, Any]]):
    def get_scoped(self, *key: str) -> dict[str, Any] | None:
        account, region, name = key
        return self.get((account, region, name))


def firings_of(expression: str, creation: float) -> tuple[LastFirings, FakeEndpoint]:
    schedules = FakeSchedules({KEY: {"ScheduleExpression": expression, "CreationDate": creation}})
    rates = {"rate(1 minute)": 60}
    endpoint = FakeEndpoint()
    return LastFirings(endpoint, schedules, rates.get), endpoint  # type: ignore[arg-type]


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html")
def test_a_late_sweep_delays_no_other_firing_of_a_rate() -> None:
    # GIVEN
    firings, endpoint = firings_of("rate(1 minute)", creation=100.0)

    # WHEN
    firings[KEY] = 169.0

    # THEN
    assert firings[KEY] == 160.0
    assert endpoint.marked == ["scheduler"]
    assert firings.as_state() == [[*KEY, 160.0]]


@pytest.mark.source("https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-delete.html")
def test_a_schedule_has_not_fired_when_an_earlier_one_of_its_name_did() -> None:
    # GIVEN
    firings, _ = firings_of("at(2026-11-24T04:05:06)", creation=100.0)

    # WHEN
    firings.restore([[*KEY, 90.0]])

    # THEN
    assert KEY not in firings
    assert firings.as_state() == []


@pytest.mark.own_machinery("a deviation that is listed: on AWS nothing is down")
def test_what_a_cron_expression_had_due_is_not_made_up_for() -> None:
    # GIVEN
    firings, _ = firings_of("cron(40 17 * * ? *)", creation=100.0)

    # WHEN
    firings[KEY] = 169.0

    # THEN
    assert firings[KEY] == 169.0
    assert firings.as_state() == []


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

    assert wait_until(fired) == "once"

    # WHEN the rate comes due while the endpoint is down
    let_time_pass(running, 1.5 * HOUR_SECONDS)

    # THEN it fires, and nothing else does
    assert wait_until(fired) == "hourly"

    # WHEN the endpoint is killed right then
    running.kill()
    running.start()

    # THEN nothing fires
    assert fired() is None
