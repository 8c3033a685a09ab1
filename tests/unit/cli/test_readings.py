"""Readings to send: as the runbook's sensors send them, and bad ones that are bad in the way they say."""

import json
import random

from telemetry_contract import Policy, Rejection, judge_record
from telemetry_lake.readings import bad_readings, partition_key_for, random_readings, shuffled

NOW = 1_760_486_400.25


def chance() -> random.Random:
    return random.Random(1)


def test_random_readings_are_those_of_five_sensors_between_15_and_30_degrees_now() -> None:
    # GIVEN / WHEN
    records = list(random_readings(500, lambda: NOW, 0, chance()))

    # THEN
    readings = [json.loads(record.data) for record in records]
    assert {reading["device_id"] for reading in readings} == {f"sensor-{number}" for number in range(1, 6)}
    assert all(15 <= reading["temperature"] <= 30 for reading in readings)
    assert {reading["timestamp"] for reading in readings} == {NOW}
    assert all(record.partition_key == reading["device_id"] for record, reading in zip(records, readings, strict=True))
    assert all(record.fault is None for record in records)


def test_a_reading_is_taken_when_it_is_asked_for() -> None:
    # GIVEN a clock that runs
    seconds = iter(range(100))

    # WHEN
    readings = [json.loads(record.data) for record in random_readings(3, lambda: next(seconds), 0, chance())]

    # THEN a slow producer's last reading is not as old as its first
    assert [reading["timestamp"] for reading in readings] == [0, 1, 2]


def test_timestamps_spread_evenly_over_the_last_hours() -> None:
    # GIVEN / WHEN
    records = random_readings(3, lambda: NOW, 2, chance())

    # THEN
    assert [json.loads(record.data)["timestamp"] for record in records] == [NOW - 7200, NOW - 3600, NOW]


def test_each_kind_of_bad_reading_is_rejected_for_the_reason_it_names() -> None:
    # GIVEN the policy that the template has by default
    policy = Policy(temperature_min=-100, temperature_max=200, max_future_seconds=300, max_age_days=3650)

    # WHEN two of each kind are judged
    records = list(bad_readings(26, lambda: NOW, chance()))
    verdicts = [judge_record(record.data, NOW, policy) for record in records]

    # THEN
    assert len({record.fault for record in records}) == 13
    for record, (verdict,) in zip(records, verdicts, strict=True):
        assert isinstance(verdict, Rejection), record.fault
        assert verdict.reason == record.fault


def test_bad_readings_are_spread_among_the_good_ones_and_all_are_sent() -> None:
    # GIVEN
    randomness = chance()

    # WHEN
    mixed = list(
        shuffled(random_readings(10, lambda: NOW, 0, randomness), bad_readings(5, lambda: NOW, randomness), 10, 5)
    )

    # THEN
    assert [record.fault is not None for record in mixed] == [False, True, False] * 5


def test_bad_readings_are_sent_without_any_good_one_too() -> None:
    # GIVEN / WHEN
    mixed = list(shuffled([], bad_readings(3, lambda: NOW, chance()), 0, 3))

    # THEN
    assert len(mixed) == 3


def test_the_device_is_the_partition_key_where_kinesis_takes_it() -> None:
    assert partition_key_for("sensor-1", b"x") == "sensor-1"
    others = {partition_key_for(device, b"x") for device in ("", "a" * 257, "a\n", 7, None)}
    assert len(others) == 1
    assert len(others.pop()) == 64
