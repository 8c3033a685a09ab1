"""Recorded readings: what was measured, moved to now and otherwise left alone."""

import csv
import importlib.util
import json
from pathlib import Path

import pandas
import pytest

from telemetry_contract import Policy, Reading, judge_record
from telemetry_lake.console import OperatorError
from telemetry_lake.recorded import RECORDINGS, measured, recorded_readings, retimed

NOW = 1_795_699_254.75


def package_file(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "_data" / name


def test_the_buoy_is_read_as_pandas_reads_it() -> None:
    # GIVEN
    path = package_file("bokeh_sampledata", "sea_surface_temperature.csv.gz")
    frame = pandas.read_csv(path, parse_dates=["time (UTC)"])

    # WHEN
    readings = measured(["buoy"])

    # THEN
    assert len(readings) == 19_226
    moments = (frame["time (UTC)"] - pandas.Timestamp(0, tz="UTC")) // pandas.Timedelta("1s")
    assert sorted(zip(moments.tolist(), frame["temperature (celsius)"].tolist(), strict=True)) == [
        (moment, celsius) for moment, _, celsius in readings
    ]


@pytest.mark.parametrize(("name", "file"), [("seattle", "seattle-temps.csv"), ("san-francisco", "sf-temps.csv")])
def test_fahrenheit_is_converted(name: str, file: str) -> None:
    # GIVEN
    with package_file("vega_datasets", file).open() as opened:
        fahrenheit = [float(row["temp"]) for row in csv.DictReader(opened)]

    # WHEN
    readings = measured([name])

    # THEN
    assert len(readings) == len(fahrenheit) == 8_759
    for (_, device, celsius), original in zip(readings, fahrenheit, strict=True):
        assert device == name
        assert celsius * 9 / 5 + 32 == pytest.approx(original, abs=0.01)


def test_all_of_them_are_distinct_in_order_and_good_once_they_are_moved_to_now() -> None:
    # GIVEN
    readings = measured(list(RECORDINGS))
    assert readings == sorted(readings)

    # WHEN
    moved = retimed(readings, NOW)
    records = list(recorded_readings(moved))

    # THEN
    assert len(set(moved)) == len(records) == 36_744
    assert all(
        isinstance(verdict, Reading) for record in records for verdict in judge_record(record.data, NOW, Policy())
    )
    assert {record.partition_key for record in records} == {"buoy-b01", "seattle", "san-francisco"}


def test_the_last_reading_of_each_device_is_now_and_the_others_as_long_before_as_they_were() -> None:
    # GIVEN
    readings = [(100, "a", 1.0), (160, "a", 2.0), (5000, "b", 3.0), (5030, "b", 4.0)]

    # WHEN
    moved = retimed(readings, NOW)

    # THEN
    now = int(NOW)
    assert moved == [(now - 60, "a", 1.0), (now - 30, "b", 3.0), (now, "a", 2.0), (now, "b", 4.0)]


def test_their_time_can_be_shortened_to_some_hours() -> None:
    # GIVEN a year
    readings = [(0, "a", 1.0), (15_768_000, "a", 2.0), (31_536_000, "a", 3.0)]

    # WHEN
    moved = retimed(readings, 1_000_000, spread_hours=2)

    # THEN
    assert [moment for moment, _, _ in moved] == [1_000_000 - 7200, 1_000_000 - 3600, 1_000_000]


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    # WHEN / THEN
    with pytest.raises(OperatorError, match=r"bokeh_sampledata[\s\S]*telemetry-lake\[recorded\]"):
        measured(["buoy"])


def test_a_record_is_one_reading() -> None:
    (record,) = recorded_readings([(17, "a", 1.5)])
    assert json.loads(record.data) == {"device_id": "a", "temperature": 1.5, "timestamp": 17}
