"""Temperatures that were really measured, from packages that carry them; nothing of them is in this project.

* ``buoy``: 19,226 readings of the sea's surface, half-hourly in 2016 and 2017, of the NERACOOS station B01 on the
  Western Maine Shelf, in degrees Celsius: PyPI's ``bokeh_sampledata``
  (https://docs.bokeh.org/en/latest/docs/reference/sampledata.html).
* ``seattle`` and ``san-francisco``: 8,759 hourly readings each of 2010, of the NOAA, in degrees Fahrenheit, which are
  converted: PyPI's ``vega_datasets`` (https://github.com/vega/vega-datasets). Their clocks are taken for UTC.
"""

import csv
import gzip
import heapq
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from telemetry_lake.console import OperatorError
from telemetry_lake.readings import Record


@dataclass(frozen=True)
class Recording:
    """Where the readings of one device are, and how they are written there."""

    device_id: str
    package: str
    file: str
    time_column: str
    time_format: str
    temperature_column: str
    celsius: Callable[[float], float]


def _from_fahrenheit(temperature: float) -> float:
    return round((temperature - 32) / 1.8, 2)


RECORDINGS = {
    "buoy": Recording(
        "buoy-b01",
        "bokeh_sampledata",
        "sea_surface_temperature.csv.gz",
        "time (UTC)",
        "%Y-%m-%dT%H:%M:%SZ",
        "temperature (celsius)",
        float,
    ),
    "seattle": Recording(
        "seattle", "vega_datasets", "seattle-temps.csv", "date", "%Y/%m/%d %H:%M", "temp", _from_fahrenheit
    ),
    "san-francisco": Recording(
        "san-francisco", "vega_datasets", "sf-temps.csv", "date", "%Y/%m/%d %H:%M:%S", "temp", _from_fahrenheit
    ),
}

Measured = tuple[int, str, float]
"""UNIX seconds, device, degrees Celsius."""


def measured(names: Sequence[str]) -> list[Measured]:
    """Return the readings of the recordings, in the order of time, as they were recorded.

    Raises:
        OperatorError: a package is not installed.
    """
    return list(heapq.merge(*(sorted(_read(RECORDINGS[name])) for name in names)))


def _read(recording: Recording) -> Iterator[Measured]:
    package = importlib.util.find_spec(recording.package)
    if package is None or not package.submodule_search_locations:
        raise OperatorError(
            f"The package {recording.package}, which has the readings of {recording.device_id}, is not installed.",
            "Install it: pip install 'telemetry-lake[recorded]'",
        )
    path = Path(package.submodule_search_locations[0]) / "_data" / recording.file
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    for row in csv.DictReader(text.splitlines()):
        moment = datetime.strptime(row[recording.time_column], recording.time_format).replace(tzinfo=UTC)
        celsius = recording.celsius(float(row[recording.temperature_column]))
        yield int(moment.timestamp()), recording.device_id, celsius


def retimed(readings: Sequence[Measured], now: float, spread_hours: float = 0) -> list[Measured]:
    """Return readings with the last one of each device measured now, the others as long before as they were.

    Args:
        readings: in the order of time.
        now: UNIX seconds; fractions are left out.
        spread_hours: shorten the time that each device measured to so many hours; 0 leaves it as it was.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for moment, device_id, _ in readings:
        first.setdefault(device_id, moment)
        last[device_id] = moment

    def age_seconds(moment: int, device_id: str) -> float:
        scale = spread_hours * 3600 / max(last[device_id] - first[device_id], 1) if spread_hours else 1
        return (last[device_id] - moment) * scale

    return sorted((int(now - age_seconds(moment, device)), device, value) for moment, device, value in readings)


def recorded_readings(readings: Sequence[Measured]) -> Iterator[Record]:
    """Yield a record for each reading."""
    for moment, device_id, celsius in readings:
        reading = {"device_id": device_id, "temperature": celsius, "timestamp": moment}
        yield Record(json.dumps(reading).encode(), device_id)
