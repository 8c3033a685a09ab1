"""One row a reading: within a batch, and against what the table holds."""

import math
from pathlib import Path
from types import ModuleType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.conftest import reading
from tests.integration.test_judge import columns, lines_of

Identity = tuple[str, float, float]


def batch_of(spark: Any, etl: ModuleType, directory: Path, lines: list[str], *more: tuple[str, str]) -> Any:
    judged = etl.judge_lines(lines_of(spark, etl, directory, lines), columns(etl, *more), "UTC").where("is_reading")
    return etl.divide(judged.drop("is_reading", "line", "is_cut"), {})


def stored_of(spark: Any, identities: list[Identity]) -> Any:
    rows = ", ".join(f"('{d}', double('{t!r}'), double('{c!r}'))" for d, t, c in identities)
    day = "DATE'1970-01-01' AS `staged-date`, 0L AS `staged-chunk`"
    return spark.sql(f"SELECT *, {day} FROM VALUES {rows} AS t(device_id, timestamp, temperature)")  # noqa: S608  the test's own values


def verdicts(rows: Any) -> list[tuple[Identity, str]]:
    return sorted(((row["device_id"], row["timestamp"], row["temperature"]), row["verdict"]) for row in rows.collect())


def test_a_reading_that_comes_twice_in_a_batch_is_new_once(
    configured_spark: Any, etl: ModuleType, tmp_path: Path
) -> None:
    # GIVEN one reading three times, in three spellings, and its neighbours
    above = math.nextafter(1.0, 2.0)
    lines = [
        '{"device_id":"a","temperature":1,"timestamp":2}',
        '{"timestamp":2.0,"temperature":1.0,"device_id":"a"}',
        '{"device_id":"a","temperature":10e-1,"timestamp":2,"more":true}',
        reading("a", above, 2),
        reading("a", 1, math.nextafter(2.0, 3.0)),
        reading("A", 1, 2),
    ]

    # WHEN duplicates are looked for
    found = verdicts(etl.find_new(batch_of(configured_spark, etl, tmp_path, lines), None, True, 2))

    # THEN one of the three is new, and what differs in the last bit is another reading
    assert found == [
        (("A", 2.0, 1.0), "new"),
        (("a", 2.0, 1.0), "duplicate"),
        (("a", 2.0, 1.0), "duplicate"),
        (("a", 2.0, 1.0), "new"),
        (("a", 2.0, above), "new"),
        (("a", math.nextafter(2.0, 3.0), 1.0), "new"),
    ]


def test_minus_zero_is_zero(configured_spark: Any, etl: ModuleType, tmp_path: Path) -> None:
    # GIVEN zeros of both signs, one of them stored already
    lines = [reading("a", -0.0, 5), reading("a", 0.0, 5), reading("b", -0.0, -0.0), reading("b", 0.0, 0.0)]
    batch = batch_of(configured_spark, etl, tmp_path, lines)

    # WHEN duplicates are looked for
    found = etl.find_new(batch, stored_of(configured_spark, [("a", 5.0, 0.0)]), True, 2)

    # THEN the signs make no difference, and only plus zero is kept
    assert verdicts(found) == [
        (("a", 5.0, 0.0), "duplicate"),
        (("a", 5.0, 0.0), "duplicate"),
        (("b", 0.0, 0.0), "duplicate"),
        (("b", 0.0, 0.0), "new"),
    ]
    assert {math.copysign(1, row["temperature"]) for row in found.collect()} == {1.0}


def test_a_reading_that_is_stored_is_a_duplicate(configured_spark: Any, etl: ModuleType, tmp_path: Path) -> None:
    # GIVEN a batch of which one reading is stored, even twice, beside others of the table
    batch = batch_of(configured_spark, etl, tmp_path, [reading("a", 1, 2), reading("a", 1, 2), reading("b", 1, 2)])
    stored = stored_of(configured_spark, [("a", 2.0, 1.0), ("a", 2.0, 1.0), ("c", 2.0, 1.0), ("b", 2.0, 1.5)])

    for is_small in (True, False):
        # WHEN duplicates are looked for, in a small batch and in a large one
        found = verdicts(etl.find_new(batch, stored, is_small, 2))

        # THEN the stored one is never new, and rows of the table are no part of the answer
        assert found == [
            (("a", 2.0, 1.0), "duplicate"),
            (("a", 2.0, 1.0), "duplicate"),
            (("b", 2.0, 1.0), "new"),
        ]


def test_which_of_several_is_kept_does_not_hang_on_their_order(spark: Any, etl: ModuleType, tmp_path: Path) -> None:
    # GIVEN one reading with different further fields
    etl.configure(spark)
    lines = [reading("a", 1, 2, humidity=humidity) for humidity in (3, 1, 2)]

    # WHEN duplicates are looked for, in one order and in the other
    kept = []
    for ordered in (lines, lines[::-1]):
        batch = batch_of(spark, etl, tmp_path, ordered, ("humidity", "double"))
        new = etl.find_new(batch, None, True, 2).where("verdict = 'new'").collect()
        kept += [row["further"]["humidity"] for row in new]

    # THEN the same one is kept
    assert len(kept) == 2
    assert len(set(kept)) == 1


def test_of_a_device_with_more_readings_than_spark_holds_in_one_window_each_is_new_once(
    spark: Any, etl: ModuleType, tmp_path: Path
) -> None:
    # GIVEN more readings of one device than the rows (4,096) after which a window of Spark is moved to a sorter
    etl.configure(spark)
    lines = [reading("a", n % 7, n) for n in range(5000)]
    batch = batch_of(spark, etl, tmp_path, [*lines, *reversed(lines)])

    # WHEN duplicates are looked for
    found = verdicts(etl.find_new(batch, None, False, 2))

    # THEN each is new once, and a duplicate once
    assert found == [(("a", float(n), float(n % 7)), verdict) for n in range(5000) for verdict in ("duplicate", "new")]


def test_readings_come_out_in_the_order_in_which_they_are_written(spark: Any, etl: ModuleType, tmp_path: Path) -> None:
    # GIVEN readings that were compared with one another and with stored ones
    etl.configure(spark)
    batch = batch_of(spark, etl, tmp_path, [reading("a", 1, 2), reading("b", 1, 2)])
    found = etl.find_new(batch, stored_of(spark, [("a", 2.0, 1.0)]), False, 2)

    # WHEN they are put in the order of the files
    ordered = found.sortWithinPartitions(*etl.STAGED_FOLDERS, *etl.IDENTITY)

    # THEN Spark knows that they are in it, and sorts them once
    plan = ordered._jdf.queryExecution().executedPlan().toString()
    assert plan.count("Sort [") == 1, plan


def test_stored_readings_are_looked_for_within_the_time_range_of_each_day(
    spark: Any, etl: ModuleType, tmp_path: Path
) -> None:
    # GIVEN day folders with readings at both ends of a range, one microsecond outside of it, and another folder
    etl.configure(spark)
    lines = [reading("a", n, timestamp) for n, timestamp in enumerate((10, 20, 9.999999, 20.000001, 86_400 + 15))]
    batch = etl.find_new(batch_of(spark, etl, tmp_path, lines), None, True, 2)
    etl.write_new(batch, columns(etl), 10, f"{tmp_path}/t")

    # WHEN one day's range is read
    folder = f"{tmp_path}/t/staged-date=1970-01-01/"
    stored = etl.read_stored(spark, [folder], [etl.TimeRange(10_000_000, 20_000_000)], "UTC")

    # THEN its ends are in it, and nothing else
    assert sorted(row["timestamp"] for row in stored.collect()) == [10.0, 20.0]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1000, 1000), st.integers(0, 50)), max_size=30),
    st.integers(min_value=1, max_value=8),
)
def test_merged_ranges_cover_the_given_ones_and_are_few(
    etl: ModuleType, pairs: list[tuple[int, int]], limit: int
) -> None:
    # GIVEN any ranges
    ranges = [etl.TimeRange(first, first + length) for first, length in pairs]

    # WHEN they are merged
    merged = etl.merge_ranges(ranges, limit)

    # THEN each is inside of a merged one, the ends are those of given ones, and no more than allowed are left
    assert all(any(m.first <= r.first and r.last <= m.last for m in merged) for r in ranges)
    assert {m.first for m in merged} <= {r.first for r in ranges}
    assert {m.last for m in merged} <= {r.last for r in ranges}
    assert len(merged) <= limit
    assert merged == sorted(merged)


def test_ranges_that_are_few_enough_stay_as_they_are(etl: ModuleType) -> None:
    # GIVEN three ranges with gaps
    ranges = [etl.TimeRange(0, 1), etl.TimeRange(10, 11), etl.TimeRange(13, 14)]

    # WHEN all three, or two, may be left
    # THEN nothing is merged, or the smallest gap is filled
    assert etl.merge_ranges(ranges, 3) == ranges
    assert etl.merge_ranges(ranges, 2) == [etl.TimeRange(0, 1), etl.TimeRange(10, 14)]
