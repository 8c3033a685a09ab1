"""Exactly which microsecond and which day a reading belongs to."""

import json
import math
import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.integration.test_judge import columns, lines_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def exact_micros(seconds: float) -> int:
    """Half-even rounding of the double itself, in rational numbers."""
    return round(Fraction(seconds) * 1_000_000)


def interesting_timestamps() -> list[float]:
    generator = random.Random(7)
    now = [generator.uniform(1.7e9, 1.8e9) for _ in range(4000)]
    small = [generator.uniform(-10_000, 10_000) for _ in range(3000)]
    tiny = [generator.uniform(-1, 1) * 10.0 ** -generator.randint(1, 320) for _ in range(1000)]
    old = [generator.uniform(-6.2e10, 2.5e11) for _ in range(1000)]
    # Halves of a microsecond that a double can hold are multiples of 1/128 second.
    ties = [generator.choice((-1, 1)) * (generator.randint(0, 2 * 10**9) + k / 128) for k in range(128)]
    near = [(n + 0.5) / 1e6 for n in (generator.randint(0, 10**7) for _ in range(3000))]
    neighbours = [math.nextafter(t, side) for t in (*ties, *near) for side in (-math.inf, math.inf)]
    decimals = [float(f"17605{n:05d}.{generator.randint(0, 10**7):07d}") for n in range(2000)]
    ends = [-62_135_510_400.0, 253_402_214_400.0, 0.0, 5e-324, -5e-324]
    return sorted({*now, *small, *tiny, *old, *ties, *near, *neighbours, *decimals, *ends})


def micros_by_spark(spark: Any, etl: ModuleType, directory: Path, timestamps: list[float]) -> dict[float, int]:
    lines = [json.dumps({"device_id": "a", "temperature": 1, "timestamp": t}) for t in timestamps]
    rows = etl.judge_lines(lines_of(spark, etl, directory, lines), columns(etl), "UTC")
    found = rows.selectExpr("timestamp", "unix_micros(event_time) AS micros").collect()
    return {row["timestamp"]: row["micros"] for row in found}


def test_event_time_is_the_double_rounded_half_even_to_microseconds(
    configured_spark: Any, etl: ModuleType, tmp_path: Path
) -> None:
    # GIVEN timestamps of every magnitude, among them halves of a microsecond and their neighbours
    timestamps = interesting_timestamps()

    # WHEN Spark makes times of them
    found = micros_by_spark(configured_spark, etl, tmp_path, timestamps)

    # THEN each is what exact arithmetic says
    assert {t: micros for t, micros in found.items() if micros != exact_micros(t)} == {}
    assert len(found) == len(timestamps)


def test_the_rounding_error_of_the_product_decides_some_of_these_halves() -> None:
    # GIVEN the timestamps of the test above
    # WHEN the product is rounded as a double first
    naive = [t for t in interesting_timestamps() if round(math.modf(t)[0] * 1e6) + int(t) * 10**6 != exact_micros(t)]

    # THEN that goes wrong for some: the test above can tell
    assert naive


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York", "Pacific/Apia"])
def test_the_day_is_the_calendar_day_in_the_zone(
    configured_spark: Any, etl: ModuleType, tmp_path: Path, zone: str
) -> None:
    # GIVEN times around midnights and changes of the clock
    generator = random.Random(3)
    moments = [EPOCH + timedelta(seconds=generator.randint(0, 2 * 10**9)) for _ in range(500)]
    boundaries = [datetime(2025, 10, 14, 15, tzinfo=UTC), datetime(2025, 11, 2, 4, tzinfo=UTC)]
    boundaries += [datetime(2025, 11, 2, 5, 59, 59, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC)]
    moments += [boundary + timedelta(microseconds=step) for boundary in boundaries for step in (-1, 0, 1)]
    lines = [
        json.dumps({"device_id": str(n), "temperature": 1, "timestamp": moment.timestamp()})
        for n, moment in enumerate(moments)
    ]

    # WHEN they are judged
    rows = etl.judge_lines(lines_of(configured_spark, etl, tmp_path, lines), columns(etl), zone).collect()

    # THEN their day is that of a wall clock there
    expected = {str(n): moment.astimezone(ZoneInfo(zone)).date() for n, moment in enumerate(moments)}
    assert {row["device_id"]: row["staged-date"] for row in rows} == expected


def test_one_microsecond_divides_two_days_in_tokyo(spark: Any, etl: ModuleType, tmp_path: Path) -> None:
    # GIVEN midnight in Tokyo, 2025-10-14T15:00:00Z, and one microsecond earlier
    etl.configure(spark)
    midnight = 1_760_454_000
    lines = [
        f'{{"device_id":"{name}","temperature":1,"timestamp":{text}}}'
        for name, text in (("before", f"{midnight - 1}.999999"), ("at", str(midnight)))
    ]

    # WHEN they are judged for Tokyo and for UTC
    days = {
        (zone, row["device_id"]): (row["staged-date"].month, row["staged-date"].day)
        for zone in ("Asia/Tokyo", "UTC")
        for row in etl.judge_lines(lines_of(spark, etl, tmp_path, lines), columns(etl), zone).collect()
    }

    # THEN they lie on two days in Tokyo, and on one in UTC
    assert days == {
        ("Asia/Tokyo", "before"): (10, 14),
        ("Asia/Tokyo", "at"): (10, 15),
        ("UTC", "before"): (10, 14),
        ("UTC", "at"): (10, 14),
    }
