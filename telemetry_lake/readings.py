"""Readings to send: random ones as sensors would send them, and bad ones of every kind."""

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

SENSOR_COUNT = 5
TEMPERATURE_RANGE_CELSIUS = (15.0, 30.0)
NESTING_TOO_DEEP = 64
DIGITS_TOO_MANY = 5000
LONGEST_DEVICE_ID = 256
FAR_FUTURE_SECONDS = 86_400.0
FAR_PAST_SECONDS = 20 * 365 * 86_400.0


@dataclass(frozen=True)
class Record:
    """One record for the stream.

    Attributes:
        data: its bytes.
        partition_key: what decides its shard: the device, so that a device's readings stay in order.
        fault: what is wrong with it, by the reason that the contract gives; None for nothing.
        readings: how many good readings it holds.
        alone: whether other readings must not be packed into the same record.
        where: where it comes from, for messages: ``readings.csv, line 17``.
    """

    data: bytes
    partition_key: str
    fault: str | None = None
    readings: int = 1
    alone: bool = False
    where: str = ""


def bad_record(data: bytes, partition_key: str, fault: str) -> Record:
    """Return a record that holds nothing good."""
    return Record(data, partition_key, fault, readings=0, alone=True)


def partition_key_for(device_id: object, data: bytes) -> str:
    """Return the partition key of a record: its device, or a hash where that is none that Kinesis takes.

    A partition key has 1 to 256 characters:
    https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html
    """
    if isinstance(device_id, str) and 0 < len(device_id) <= LONGEST_DEVICE_ID and device_id.isprintable():
        return device_id
    return hashlib.sha256(data).hexdigest()


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
        yield bad_record(kinds[fault], f"bad-{index % SENSOR_COUNT}", fault)


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
