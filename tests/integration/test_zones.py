"""Days in every time zone that there is, as Python's ``zoneinfo`` has them, and tables whose days are not UTC's."""

import json
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import groupby, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.integration.conftest import Lake, Run, reading

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)

# Around these dates clocks were changed somewhere, or days skipped or lived twice.
DATES = {
    "1972-01-07": "Monrovia gives up an offset of 44 minutes and 30 seconds",
    "1986-01-01": "Kathmandu goes from 5:30 to 5:45",
    "1993-08-21": "Kwajalein skips the day",
    "1994-12-31": "Kiritimati and Enderbury skip the day",
    "2005-10-30": "Moncton goes back at one minute past midnight: the day begins twice",
    "2006-10-29": "so does St. John's",
    "2007-03-11": "the USA begin earlier than ever",
    "2007-12-09": "Caracas goes to a half hour",
    "2011-12-30": "Apia and Fakaofo skip the day",
    "2012-11-04": "Havana goes back at one o'clock",
    "2015-08-15": "Pyongyang goes back half an hour at midnight",
    "2016-10-30": "summer time ends in Europe",
    "2018-02-18": "Sao Paulo goes back at midnight: the last hour of a day is lived twice",
    "2018-05-05": "Pyongyang goes forward half an hour before midnight",
    "2018-11-04": "Sao Paulo goes forward at midnight: the day begins at one",
    "2019-05-05": "Casablanca goes back for Ramadan",
    "2019-10-06": "Lord Howe goes forward half an hour, Norfolk for the first time",
    "2020-12-27": "Volgograd goes back",
    "2022-03-27": "summer time begins in Europe",
    "2022-10-28": "Amman and Damascus stay in summer time for good",
    "2025-03-09": "summer time begins in the USA",
    "2025-04-06": "summer time ends in Chile, Australia and New Zealand",
    "2025-10-26": "summer time ends in Europe",
    "2025-11-02": "summer time ends in the USA",
}

# Names of the IANA data that java.time has no rules for; ROC and the three-letter ones are links that it leaves out.
UNKNOWN_TO_JAVA = {"EST", "MST", "HST", "ROC", "GMT+0", "GMT-0", "Factory", "localtime", "America/Coyhaique"}

# Zones whose rules for these dates were corrected by a release of the IANA data, which an older Java does not know:
# https://data.iana.org/time-zones/tzdb/NEWS
CORRECTED_IN_RELEASE = {
    "America/Scoresbysund": "2023d",
    "Antarctica/Casey": "2023d",
    "Antarctica/Vostok": "2023d",
    "Asia/Almaty": "2024a",
    "Asia/Gaza": "2024a",
    "Asia/Hebron": "2024a",
    "Asia/Qostanay": "2024a",
    "America/Cancun": "2024b",
    "America/Merida": "2024b",
    "Asia/Choibalsan": "2024b",
    "Atlantic/Azores": "2024b",
    "Atlantic/Madeira": "2024b",
    "Europe/Lisbon": "2024b",
    "Portugal": "2024b",
    "America/Asuncion": "2024b",
    "Asia/Manila": "2025a",
}


def offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    found = moment.astimezone(zone).utcoffset()
    assert found is not None
    return found


def change_between(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first second with the offset of ``after``."""
    new = offset(zone, after)
    while after - before > SECOND:
        middle = before + (after - before) // 2
        middle -= timedelta(microseconds=middle.microsecond)
        before, after = (before, middle) if offset(zone, middle) == new else (middle, after)
    return after


def moments_around(zone: ZoneInfo, day: date) -> Iterator[datetime]:
    """Where a day may begin or end around a date: midnights by each offset of these days, and changes of the clock."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    samples = [midnight + timedelta(hours=hours) for hours in range(-36, 49, 12)]
    for before, after in pairwise(samples):
        if offset(zone, before) != offset(zone, after):
            yield change_between(zone, before, after)
    offsets = {offset(zone, moment) for moment in samples}
    days = (-1, 0, 1, 2) if len(offsets) > 1 else (0, 1)
    for one in offsets:
        yield from (midnight + n * DAY - one for n in days)


def expectations(names: set[str]) -> Iterator[str]:
    """Lines of zone, microseconds since 1970, and the day there by ``zoneinfo``: at each moment, and just before."""
    for name in sorted(names):
        zone = ZoneInfo(name)
        moments = {moment for text in DATES for moment in moments_around(zone, date.fromisoformat(text))}
        for moment in sorted(moments | {moment - MICROSECOND for moment in moments}):
            local = moment.astimezone(zone)
            yield f"{name}\t{(moment - EPOCH) // MICROSECOND}\t{local.year}\t{local.month}\t{local.day}"


def test_days_are_those_of_zoneinfo_in_every_zone_around_changes_of_the_clock(
    spark: Any, etl: ModuleType, tmp_path: Path
) -> None:
    # GIVEN all zones that both know, and the moments around changes of the clock at which a day may begin
    from pyspark.sql import functions as F  # noqa: N812  the name that Spark's documentation gives it

    etl.configure(spark)
    java = spark._jvm.java.time
    release = java.zone.ZoneRulesProvider.getVersions("UTC").lastKey()
    known_to_java = set(java.ZoneId.getAvailableZoneIds())
    names = zoneinfo.available_timezones() & known_to_java
    lines = list(expectations(names))
    (tmp_path / "expected.tsv").write_text("\n".join(lines))
    schema = "zone string, micros bigint, local_year int, local_month int, local_day int"
    moments = spark.read.csv(str(tmp_path / "expected.tsv"), sep="\t", schema=schema)

    # WHEN Spark finds the days, with the functions and the settings of the job
    days = etl.add_date(moments.withColumn("event_time", F.expr("timestamp_micros(micros)")), F.col("zone"))
    is_equal = "`staged-date` <=> make_date(local_year, local_month, local_day)"
    wrong = days.where(f"NOT ({is_equal})").collect()

    # THEN they are zoneinfo's, but where Java's data is older than a correction
    older = {name for name, corrected in CORRECTED_IN_RELEASE.items() if release < corrected}
    assert [row for row in wrong if row["zone"] not in older] == []
    # THEN no zone is left out in silence
    assert zoneinfo.available_timezones() - known_to_java <= UNKNOWN_TO_JAVA
    assert days.count() == len(lines)
    assert len(names) > 580


def test_the_moments_of_that_test_hold_skipped_and_doubled_days() -> None:
    # GIVEN the days, in the order of time, that these moments and those just before them belong to
    def days(name: str, text: str) -> list[str]:
        zone = ZoneInfo(name)
        moments = set(moments_around(zone, date.fromisoformat(text)))
        both = sorted(moments | {moment - MICROSECOND for moment in moments})
        return [day for day, _ in groupby(moment.astimezone(zone).strftime("%m-%d") for moment in both)]

    # WHEN / THEN in Apia a day is left out, and in Moncton one begins twice
    assert days("Pacific/Apia", "2011-12-30") == ["12-27", "12-28", "12-29", "12-31", "01-01", "01-02"]
    assert days("America/Moncton", "2005-10-30") == [
        *("10-28", "10-29", "10-30", "10-29", "10-30", "10-31", "11-01"),
    ]


@pytest.mark.parametrize(("zone", "days"), [("UTC", [14, 14]), ("Asia/Tokyo", [14, 15])])
def test_midnight_in_tokyo_divides_days_there_alone(
    lake: Lake, run: Run, spark: Any, zone: str, days: list[int]
) -> None:
    # GIVEN readings at 2025-10-14T15:00:00Z and one microsecond earlier
    midnight = 1_760_454_000
    assert datetime.fromtimestamp(midnight, UTC).isoformat() == "2025-10-14T15:00:00+00:00"
    lake.put_lines("1.gz", [reading("a-before", 1, midnight - 1e-6), reading("b-at", 1, midnight)])

    # WHEN the job runs with days in a zone
    run("jr_1", PARTITION_TIME_ZONE=zone)

    # THEN they are in the folders of these days
    assert [row[3:] for row in lake.rows(spark)] == [(2025, 10, day) for day in days]
    folders = {f"curated/device_telemetry/year=2025/month=10/day={day}" for day in days}
    assert {key.rpartition("/")[0] for key in lake.keys("curated/")} == folders


def test_a_reading_is_found_again_after_the_rules_of_the_zone_have_changed(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN a table with readings of every hour of some days, in a zone that is six hours ahead
    lines = [reading("a", 1, 1_760_486_400 + hour * 3600) for hour in range(72)]
    lake.put_lines("1.gz", lines)
    run("jr_1", PARTITION_TIME_ZONE="Etc/GMT-6")

    # WHEN the zone turns out to be five hours ahead, as Almaty's, and everything is read again, in parts
    record = {"partition_time_zone": "Etc/GMT-5"}
    lake.s3.put_object(Bucket=lake.analytics, Key="settings/partition_time_zone.json", Body=json.dumps(record).encode())
    lake.bookmark.unlink()
    lake.put_lines("1.gz", lines[18:19])
    lake.put_lines("2.gz", lines)
    summary = run("jr_2", PARTITION_TIME_ZONE="Etc/GMT-5")

    # THEN no reading is stored a second time in the folder next to its own
    assert summary["counts"] == {"lines": 73, "new": 0, "duplicate": 73, "rejected": 0}
    assert len(lake.rows(spark)) == 72


def test_folders_to_look_in_are_the_day_in_utc_and_its_neighbours_elsewhere(etl: ModuleType) -> None:
    # GIVEN the days that a table has
    first, last = etl.Day(1, 1, 1), etl.Day(9999, 12, 31)
    stored = {first, etl.Day(2024, 2, 28), etl.Day(2024, 3, 1), etl.Day(2024, 3, 2), last}

    # WHEN / THEN
    assert etl.find_folders(etl.Day(2024, 3, 1), stored, "UTC") == {etl.Day(2024, 3, 1)}
    assert etl.find_folders(etl.Day(2024, 2, 29), stored, "UTC") == set()
    assert etl.find_folders(etl.Day(2024, 2, 29), stored, "Asia/Almaty") == {etl.Day(2024, 2, 28), etl.Day(2024, 3, 1)}
    assert etl.find_folders(first, stored, "Asia/Tokyo") == {first}
    assert etl.find_folders(last, stored, "Asia/Tokyo") == {last}


def test_a_zone_that_nobody_knows_fails_the_run_and_can_be_corrected(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN a job whose zone is misspelt
    lake.put_lines("1.gz", [reading("a", 1, 1_760_486_400)])

    # WHEN it runs
    # THEN it fails, and names the zone
    with pytest.raises(Exception, match="Asia/Tokio"):
        run("jr_1", PARTITION_TIME_ZONE="Asia/Tokio")
    assert lake.keys("curated/") == []

    # WHEN the zone is corrected, with no row in the table yet
    run("jr_2", PARTITION_TIME_ZONE="Asia/Tokyo")

    # THEN that is the zone of the table
    assert json.loads(lake.get("settings/partition_time_zone.json"))["partition_time_zone"] == "Asia/Tokyo"
    assert len(lake.rows(spark)) == 1
