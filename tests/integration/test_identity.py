"""A reading's identity from its JSON through Spark and Parquet to another reader: bit for bit the same."""

import json
import math
import random
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb

from telemetry_contract import Identity, Policy, Reading, judge
from tests.integration.conftest import Lake, Run

DAY = 1_760_486_400  # 2025-10-15T00:00:00Z
ARRIVED_AT = DAY + 2 * 86_400.0
COUNT = 8_000
LEAST_TEMPERATURE, MOST_TEMPERATURE = -100.0, 200.0
AWKWARD_TEMPERATURES = (
    *(0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 2.225073858507201e-308, 1e-300, 0.1, 0.1 + 0.2, 1 / 3),
    *(math.nextafter(MOST_TEMPERATURE, 0), math.nextafter(LEAST_TEMPERATURE, 0), 199.99999999999997, 1e-5, 1e16 / 1e15),
)
LETTERS = "aZ0 -_/\\\"'{}[],:%é\u00a0ß\u2028日本\ufeff😀\U0010ffff"


def any_double(chance: random.Random, least: float, most: float) -> float:
    """A double of the range, each bit pattern of which is as likely as any other."""
    while True:
        (number,) = struct.unpack("<d", chance.randbytes(8))
        if least <= number <= most:
            return float(number)


def spellings(chance: random.Random, number: float) -> str:
    """One of the ways to write a double."""
    return chance.choice([repr(number), f"{number:.17g}", f"{number:.25e}", f"{number:.16e}".replace("e", "E")])


def elements(chance: random.Random) -> Iterator[bytes]:
    for number in range(COUNT):
        device_id = "".join(chance.choices(LETTERS, k=chance.randrange(1, 12)))
        if number < len(AWKWARD_TEMPERATURES):
            temperature = AWKWARD_TEMPERATURES[number]
        else:
            temperature = any_double(chance, LEAST_TEMPERATURE, MOST_TEMPERATURE)
        timestamp = DAY + chance.randrange(172_800) + chance.choice([0.0, 0.5, chance.random()])
        spelt = spellings(chance, temperature), spellings(chance, timestamp)
        quoted = json.dumps(device_id, ensure_ascii=chance.random() < 0.5)
        yield f'{{"device_id":{quoted},"temperature":{spelt[0]},"timestamp":{spelt[1]}}}'.encode()


def bits(device_id: str, timestamp: float, temperature: float) -> tuple[str, bytes, bytes]:
    return device_id, struct.pack("<d", timestamp), struct.pack("<d", temperature)


def test_identity_is_the_same_bits_in_json_in_parquet_and_for_another_reader(
    lake: Lake, run: Run, tmp_path: Path
) -> None:
    # GIVEN readings of every kind of number and of letter, as the transform accepts them
    sent = list(elements(random.Random(20_251_015)))
    verdicts = [judge(element, ARRIVED_AT, Policy()) for element in sent]
    accepted = [verdict for verdict in verdicts if isinstance(verdict, Reading)]
    assert len(accepted) == COUNT
    lake.put_lines("1.gz", [verdict.line for verdict in accepted])
    wanted = {bits(*verdict.identity) for verdict in accepted}

    # WHEN the job stores them and DuckDB reads its files
    summary = run("jr_1")
    for number, key in enumerate(lake.keys("curated/device_telemetry/")):
        (tmp_path / f"{number}.parquet").write_bytes(lake.get(key))
    rows = duckdb.execute(
        f"SELECT device_id, \"timestamp\", temperature FROM read_parquet('{tmp_path}/*.parquet')"  # noqa: S608
    ).fetchall()

    # THEN they are the very same doubles and texts, each once; and so they are by JSON alone
    assert summary["counts"]["rejected"] == 0
    assert Counter(bits(*row) for row in rows) == Counter(wanted)
    by_json = [json.loads(element) for element in sent]
    identities = [Identity(each["device_id"], each["timestamp"], each["temperature"]) for each in by_json]
    assert {bits(each.device_id, float(each.timestamp), each.temperature + 0.0) for each in identities} == wanted
