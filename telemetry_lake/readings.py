"""Readings to send: random ones as sensors would send them, bad ones of every kind, and recorded ones from a file."""

import csv
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

SENSOR_COUNT = 5
TEMPERATURE_RANGE_CELSIUS = (15.0, 30.0)
NESTING_TOO_DEEP = 64
DIGITS_TOO_MANY = 5000
LONGEST_DEVICE_ID = 256
FAR_FUTURE_SECONDS = 86_400.0
FAR_PAST_SECONDS = 20 * 365 * 86_400.0


@dataclass(frozen=True)
class Record:
    """One record for the stream: its data, its partition key, and what is wrong with it (``None``: nothing)."""

    data: bytes
    partition_key: str
    fault: str | None = None


def random_readings(
    count: int, now: Callable[[], float], spread_hours: float, randomness: random.Random
) -> Iterator[Record]:
    """Yield readings of the sensors 1 to 5 between 15 and 30 °C, each taken when it is asked for.

    Args:
        count: how many.
        now: gives the UNIX time in seconds.
        spread_hours: spread the timestamps evenly over the hours before now; 0 for now.
        randomness: the source of chance.
    """
    for index in range(count):
        device_id = f"sensor-{randomness.randint(1, SENSOR_COUNT)}"
        age_seconds = spread_hours * 3600 * (count - 1 - index) / max(count - 1, 1)
        reading = {
            "device_id": device_id,
            "temperature": round(randomness.uniform(*TEMPERATURE_RANGE_CELSIUS), 2),
            "timestamp": now() - age_seconds,
        }
        yield Record(json.dumps(reading).encode(), device_id)


def _bad_data(now: float, randomness: random.Random) -> dict[str, bytes]:
    """Return one bad record of each kind, by the reason that a validator has to give."""
    device_id = f"sensor-{randomness.randint(1, SENSOR_COUNT)}"
    temperature = round(randomness.uniform(*TEMPERATURE_RANGE_CELSIUS), 2)
    good = {"device_id": device_id, "temperature": temperature, "timestamp": now}

    def changed(**fields: object) -> bytes:
        return json.dumps(good | fields).encode()

    return {
        "not_utf8": changed(note="caf").replace(b"caf", b"caf\xe9"),
        "malformed_json": json.dumps(good).encode()[:-1],
        "not_an_object": json.dumps(temperature).encode(),
        "empty_record": b" \n",
        "missing_field": json.dumps({name: value for name, value in good.items() if name != "temperature"}).encode(),
        "not_finite": changed(temperature=0).replace(b": 0,", b": 1e400,"),
        "number_too_long": json.dumps(good).encode()[:-1] + b', "note": ' + b"9" * DIGITS_TOO_MANY + b"}",
        "wrong_type": changed(temperature=str(temperature)),
        "device_id_invalid": changed(device_id="x" * (LONGEST_DEVICE_ID + 1)),
        "temperature_out_of_range": changed(temperature=1000 + temperature),
        "timestamp_in_future": changed(timestamp=now + FAR_FUTURE_SECONDS),
        "timestamp_too_old": changed(timestamp=now - FAR_PAST_SECONDS),
        "too_deep": json.dumps(good).encode()[:-1]
        + b', "note": '
        + b"[" * NESTING_TOO_DEEP
        + b"]" * NESTING_TOO_DEEP
        + b"}",
    }


def bad_readings(count: int, now: Callable[[], float], randomness: random.Random) -> Iterator[Record]:
    """Yield ``count`` bad records, the kinds in turn; ``fault`` says which."""
    for index in range(count):
        kinds = _bad_data(now(), randomness)
        fault = list(kinds)[index % len(kinds)]
        yield Record(kinds[fault], f"bad-{index % SENSOR_COUNT}", fault)


def shuffled(good: Iterable[Record], bad: Iterable[Record], good_count: int, bad_count: int) -> Iterator[Record]:
    """Yield the good records with the bad ones spread evenly among them."""
    bad_left = iter(bad)
    sent_bad = 0
    for index, record in enumerate(good, start=1):
        yield record
        while sent_bad * good_count < bad_count * index and sent_bad < bad_count:
            sent_bad += 1
            yield next(bad_left)
    yield from bad_left


def records_from_lines(lines: Iterable[bytes]) -> Iterator[Record]:
    """Yield each non-blank line of a JSON Lines file as it is, keyed by its ``device_id`` if it has a readable one."""
    for line in lines:
        data = line.rstrip(b"\r\n")
        if data.strip():
            yield Record(data, _partition_key(data))


def records_from_csv(file: IO[str]) -> Iterator[Record]:
    """Yield the rows of a CSV file with a header line; values that are JSON numbers become numbers."""
    for row in csv.DictReader(file):
        reading = {name: _number_or_text(name, value) for name, value in row.items() if name and value}
        data = json.dumps(reading, ensure_ascii=False).encode()
        yield Record(data, _partition_key(data))


def _number_or_text(name: str, value: str) -> object:
    if name == "device_id":
        return value
    try:
        number = json.loads(value)
    except ValueError:
        return value
    return number if isinstance(number, int | float) and not isinstance(number, bool) else value


def _partition_key(data: bytes) -> str:
    try:
        reading = json.loads(data)
    except (ValueError, RecursionError):
        reading = None
    device_id = reading.get("device_id") if isinstance(reading, dict) else None
    # A partition key has 1 to 256 characters:
    # https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html
    if isinstance(device_id, str) and 0 < len(device_id) <= LONGEST_DEVICE_ID and device_id.isprintable():
        return device_id
    return hashlib.sha256(data).hexdigest()
