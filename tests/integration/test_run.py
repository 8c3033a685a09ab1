"""Runs of the job in the test's own process: what is published, when, and when not."""

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError

from telemetry_contract.rejection import Reason
from tests.integration.conftest import REGION, TABLE_COLUMNS, Lake, Run, reading

DAY = 1_760_486_400  # 2025-10-15T00:00:00Z


def test_every_line_is_stored_once_found_a_duplicate_or_kept_with_a_reason(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN two objects with readings of two days, one of them in both, a bad line and a blank one
    a, b, c = reading("a", 1, DAY), reading("b", 2, DAY + 86_400), reading("c", 3, DAY + 0.25)
    lake.put_lines("1.gz", [a, b, "{", ""])
    lake.put_lines("2.gz", [b, c], prefix="raw_data/2025/10/16/23/")

    # WHEN the job runs
    summary = run("jr_1")

    # THEN the table holds each reading once, in the folder of its day
    assert lake.rows(spark) == [
        ("a", float(DAY), 1.0, 2025, 10, 15),
        ("b", DAY + 86_400.0, 2.0, 2025, 10, 16),
        ("c", DAY + 0.25, 3.0, 2025, 10, 15),
    ]
    # THEN the bad line is a dead letter in the folder of today
    today = datetime.now(UTC)
    assert lake.keys("dlq/") == [
        f"dlq/raw_json/year={today.year}/month={today.month}/day={today.day}/jr_1-00000.json.gz"
    ]
    assert [(letter["reason"], letter["original"]) for letter in lake.dead_letters()] == [("malformed_json", "{")]
    # THEN the summary says all of that, and is what the bucket has
    keys = lake.keys("curated/device_telemetry/")
    assert keys == [
        "curated/device_telemetry/year=2025/month=10/day=15/jr_1-00000.snappy.parquet",
        "curated/device_telemetry/year=2025/month=10/day=16/jr_1-00001.snappy.parquet",
    ]
    assert summary == lake.summary("jr_1")
    assert summary["counts"] == {"lines": 5, "new": 3, "duplicate": 1, "rejected": 1}
    assert summary["rejected_by_reason"] == {"malformed_json": 1}
    assert summary["files"]["keys"] == keys
    sizes = [lake.s3.head_object(Bucket=lake.analytics, Key=key)["ContentLength"] for key in keys]
    assert [entry["bytes"] for entry in summary["partitions"]] == sizes
    days = [{**entry, "bytes": None} for entry in summary["partitions"]]
    assert days == [
        {"year": 2025, "month": 10, "day": 15, "new": 2, "duplicate": 0, "files": 1, "bytes": None},
        {"year": 2025, "month": 10, "day": 16, "new": 1, "duplicate": 1, "files": 1, "bytes": None},
    ]
    assert summary["partition_count"] == 2
    assert summary["event_time"] == {"min": "2025-10-15T00:00:00Z", "max": "2025-10-16T00:00:00Z"}
    assert summary["mode"] == "load"
    assert set(summary["seconds_by_step"]) == {"prepare", "read", "judge", "stage", "publish", "catalog"}
    # THEN a person can read it
    assert summary["in_words"][:4] == [
        "Load: 5 lines, 3 readings stored, 1 stored before.",
        "Rejects: 1 (malformed_json 1).",
        f"Partitions touched: 2, of 2025-10-15T00:00:00Z to 2025-10-16T00:00:00Z; files: 2, {sum(sizes):,} bytes.",
        "Partitions that the catalog lacks: 2.",
    ]
    assert summary["in_words"][4].startswith("Seconds: prepare ")


def test_a_second_run_reads_only_what_is_new_and_stores_nothing_twice(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN a table with one reading
    lake.put_lines("1.gz", [reading("a", 1, DAY)])
    run("jr_1")

    # WHEN the same reading arrives again, with another one
    lake.put_lines("2.gz", [reading("a", 1, DAY), reading("b", 1, DAY)])
    second = run("jr_2")
    third = run("jr_3")

    # THEN the first is a duplicate, its day is touched, and a run without anything new does nothing
    assert second["counts"] == {"lines": 2, "new": 1, "duplicate": 1, "rejected": 0}
    assert third["counts"] == {"lines": 0, "new": 0, "duplicate": 0, "rejected": 0}
    assert third["partitions"] == []
    assert third["event_time"] == {"min": None, "max": None}
    assert third["in_words"][1:3] == ["Rejects: 0.", "Partitions touched: 0; files: 0, 0 bytes."]
    assert [row[0] for row in lake.rows(spark)] == ["a", "b"]


def test_a_reset_bookmark_changes_nothing_in_the_table(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN a table, and a job whose bookmark is gone
    lake.put_lines("1.gz", [reading("a", n, DAY + n) for n in range(50)])
    run("jr_1")
    before = lake.rows(spark), lake.keys("curated/")
    lake.bookmark.unlink()

    # WHEN the job runs again
    summary = run("jr_2")

    # THEN it finds duplicates alone
    assert summary["counts"] == {"lines": 50, "new": 0, "duplicate": 50, "rejected": 0}
    assert summary["partitions"][0]["duplicate"] == 50
    assert (lake.rows(spark), lake.keys("curated/")) == before


def test_days_are_those_of_the_zone(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN readings one microsecond before and at midnight in Tokyo
    lake.put_lines("1.gz", [reading("a", 1, 1_760_453_999.999999), reading("b", 1, 1_760_454_000)])

    # WHEN the job runs twice for Tokyo, the second time without its bookmark
    run("jr_1", PARTITION_TIME_ZONE="Asia/Tokyo")
    lake.bookmark.unlink()
    second = run("jr_2", PARTITION_TIME_ZONE="Asia/Tokyo")

    # THEN they lie in two folders, where they are found again
    assert [(row[0], row[5]) for row in lake.rows(spark)] == [("a", 14), ("b", 15)]
    assert second["counts"]["duplicate"] == 2


class Interfering:
    """An S3 client that does something else just before an operation."""

    def __init__(self, s3: Any, operation: str, action: Callable[[dict[str, Any]], None]) -> None:
        self._s3, self._operation, self._action = s3, operation, action

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._s3, name)
        if name != self._operation:
            return method

        def interfere(*arguments: Any, **parameters: Any) -> Any:
            self._action(parameters)
            return method(*arguments, **parameters)

        return interfere


def test_a_run_that_has_a_successor_publishes_nothing_more(
    lake: Lake, run: Run, spark: Any, etl: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN a batch of twelve days, and another run that begins when three files have been copied, one at a time
    monkeypatch.setattr(etl, "PUBLISH_THREADS", 1)
    lake.put_lines("1.gz", [reading("a", 1, DAY + 86_400 * n) for n in range(12)])
    copies = 0

    def take_over(_parameters: dict[str, Any]) -> None:
        nonlocal copies
        copies += 1
        if copies == 3:
            body = json.dumps({"job_run_id": "jr_successor"}).encode()
            lake.s3.put_object(Bucket=lake.analytics, Key="staging/owner.json", Body=body)

    # WHEN the job publishes
    with pytest.raises(etl.OwnershipLostError, match="jr_successor"):
        run("jr_1", s3=Interfering(lake.s3, "copy", take_over))

    # THEN it has stopped there, without a summary and without moving the bookmark
    assert len(lake.keys("curated/")) == 3
    assert lake.keys("run_summaries/") == []
    assert not lake.bookmark.exists()

    # WHEN the successor runs
    summary = run("jr_2")

    # THEN it completes the batch, each reading once
    assert summary["counts"] == {"lines": 12, "new": 9, "duplicate": 3, "rejected": 0}
    assert len(lake.rows(spark)) == 12


def test_a_run_that_sleeps_through_its_successor_cannot_finish_the_copy_it_was_about_to_make(
    lake: Lake, run: Run, spark: Any, etl: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN a run that has made sure that it is the owner, and falls asleep before the copy until its successor is done
    monkeypatch.setattr(etl, "PUBLISH_THREADS", 1)
    lake.put_lines("1.gz", ["bad", *(reading("a", 1, DAY + 86_400 * n) for n in range(3))])
    successors: list[dict[str, Any]] = []

    def sleep(_parameters: dict[str, Any]) -> None:
        if not successors:
            successors.append({})
            successors[0] = run("jr_successor")

    # WHEN it wakes up and goes on
    with pytest.raises(ClientError, match="404"):
        run("jr_1", s3=Interfering(lake.s3, "copy", sleep))

    # THEN its copy fails, because there is nothing left to copy, and every reading and reject is there once
    assert successors[0]["counts"] == {"lines": 4, "new": 3, "duplicate": 0, "rejected": 1}
    assert len(lake.rows(spark)) == 3
    assert len(lake.dead_letters()) == 1
    assert not any("jr_1" in key for key in lake.keys(""))


def test_a_failure_while_publishing_leaves_whole_files_and_the_next_run_completes_them(
    lake: Lake, run: Run, spark: Any
) -> None:
    # GIVEN a batch whose fifth copy fails
    lake.put_lines("1.gz", ["bad", *(reading("a", 1, DAY + 86_400 * n) for n in range(12))])
    copies = 0

    def fail(_parameters: dict[str, Any]) -> None:
        nonlocal copies
        copies += 1
        if copies >= 5:
            raise OSError("the network is down")

    with pytest.raises(OSError, match="network"):
        run("jr_1", s3=Interfering(lake.s3, "copy", fail))
    assert len(lake.keys("curated/")) == 4
    assert not lake.bookmark.exists()

    # WHEN the job runs again, undisturbed
    run("jr_2")

    # THEN nothing is missing and nothing is there twice
    rows = lake.rows(spark)
    assert len(rows) == len(set(rows)) == 12
    assert {letter["original"] for letter in lake.dead_letters()} == {"bad"}


def test_an_audit_finds_what_the_bookmark_passed_over_and_leaves_the_bookmark_alone(
    lake: Lake, run: Run, spark: Any
) -> None:
    # GIVEN a loaded table, and an object of the audited day that the bookmark takes for read
    lake.put_lines("1.gz", [reading("a", 1, DAY)])
    lake.put_lines("2.gz", [reading("b", 1, DAY)])
    run("jr_1")
    lake.s3.delete_object(Bucket=lake.analytics, Key=lake.keys("curated/")[0])
    lake.put_lines("other.gz", [reading("c", 1, DAY)], prefix="raw_data/2025/10/16/00/")
    before = lake.bookmark.read_text()

    # WHEN that day is audited twice
    first = run("jr_2", MODE="audit", DAYS='["2025-10-15"]')
    second = run("jr_3", MODE="audit", DAYS='["2025-10-15"]')

    # THEN the first audit adds what was missing, the second nothing, and other days are not read
    assert first["counts"] == {"lines": 2, "new": 2, "duplicate": 0, "rejected": 0}
    assert (first["mode"], first["audited_days"]) == ("audit", ["2025-10-15"])
    assert second["counts"] == {"lines": 2, "new": 0, "duplicate": 2, "rejected": 0}
    assert [row[0] for row in lake.rows(spark)] == ["a", "b"]
    # THEN the bookmark is as it was: the other day is still to be read
    assert lake.bookmark.read_text() == before
    assert run("jr_4")["counts"]["new"] == 1


def test_a_load_reads_by_the_bookmark_and_an_audit_does_not(
    lake: Lake, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN Glue's reader, which tells what it is asked for
    from awsglue.dynamicframe import DynamicFrameReader

    asked = []
    read = DynamicFrameReader.from_options

    def listen(self: Any, **options: Any) -> Any:
        asked.append((options["connection_options"]["paths"], options["transformation_ctx"]))
        return read(self, **options)

    monkeypatch.setattr(DynamicFrameReader, "from_options", listen)
    lake.put_lines("1.gz", [reading("a", 1, DAY)])

    # WHEN the job loads and audits
    run("jr_1")
    run("jr_2", MODE="audit", DAYS='["2025-10-15", "2025-10-14"]')

    # THEN the load's source has a name for the bookmark, and the audit's has none and is only days that hold anything
    assert asked == [
        ([f"s3://{lake.raw}/raw_data/"], "raw_lines"),
        ([f"s3://{lake.raw}/raw_data/2025/10/15/"], ""),
    ]


def test_an_audit_without_days_takes_the_last_two_closed_ones(lake: Lake, run: Run) -> None:
    # GIVEN objects that arrived today, yesterday and on the two days before, UTC
    today = datetime.now(UTC)
    for age in range(4):
        folder = f"raw_data/{today - timedelta(days=age):%Y/%m/%d}/12/"
        lake.put_lines("1.gz", [reading(f"age-{age}", 1, DAY)], prefix=folder)

    # WHEN the job audits
    summary = run("jr_1", MODE="audit")

    # THEN it reads those of yesterday and of the day before
    assert summary["audited_days"] == [f"{today - timedelta(days=age):%Y-%m-%d}" for age in (2, 1)]
    assert summary["counts"]["new"] == 2


def test_a_year_later_everything_gets_the_same_verdict(
    lake: Lake, run: Run, etl: ModuleType, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN readings, one of them of tomorrow, and bad lines
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).timestamp()
    lake.put_lines("1.gz", [reading("a", 1, DAY), reading("b", 1, tomorrow), "bad", reading("", 1, DAY)])
    first = run("jr_1")
    rows, letters = lake.rows(spark), lake.dead_letters()

    # WHEN the bookmark is lost and the job runs by a clock that is a year ahead
    class NextYear(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=365)

    monkeypatch.setattr(etl, "datetime", NextYear)
    lake.bookmark.unlink()
    second = run("jr_2")

    # THEN the verdicts are the same, and the DLQ repeats what it has said
    assert second["started_at"][:4] == str((datetime.now(UTC) + timedelta(days=365)).year)
    assert second["counts"] == {"lines": 4, "new": 0, "duplicate": 2, "rejected": 2}
    assert second["rejected_by_reason"] == first["rejected_by_reason"]
    assert lake.rows(spark) == rows

    def verdicts(all_letters: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
        return {(letter["reject_id"], letter["reason"], letter["original"]) for letter in all_letters}

    assert len(lake.dead_letters()) == 2 * len(letters) == 4
    assert verdicts(lake.dead_letters()) == verdicts(letters)


def test_another_time_zone_is_refused(lake: Lake, run: Run, etl: ModuleType) -> None:
    # GIVEN a table whose days are those of UTC
    lake.put_lines("1.gz", [reading("a", 1, DAY)])
    run("jr_1")
    before = lake.keys("curated/")

    # WHEN a run is told another zone
    # THEN it is refused, with the way to migrate
    with pytest.raises(etl.EtlError, match=r"days in UTC .* told Asia/Tokyo.*reset-job-bookmark"):
        run("jr_2", PARTITION_TIME_ZONE="Asia/Tokyo")
    assert lake.keys("curated/") == before


def test_rows_without_a_recorded_time_zone_are_refused(lake: Lake, run: Run, etl: ModuleType) -> None:
    # GIVEN a table with rows whose zone is recorded nowhere any more
    lake.put_lines("1.gz", [reading("a", 1, DAY)])
    run("jr_1")
    record = "settings/partition_time_zone.json"
    lake.s3.delete_object(Bucket=lake.analytics, Key=record)

    # WHEN the job runs
    # THEN it does not guess
    with pytest.raises(etl.EtlError, match="does not say in which zone") as refused:
        run("jr_2")

    # WHEN the record is written as the message says
    (body,) = re.findall(r"write (\{.*?\}) there", str(refused.value))
    lake.s3.put_object(Bucket=lake.analytics, Key=record, Body=body.encode())

    # THEN all goes on
    assert run("jr_3")["counts"]["rejected"] == 0


def test_an_object_that_cannot_be_read_fails_the_run_by_name(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN an object that was cut off, beside a good one
    lake.put_lines("good.gz", [reading("a", 1, DAY)])
    cut = lake.put("raw_data/2025/10/15/00/cut.gz", b"\x1f\x8b\x08\x00cut")

    # WHEN the job runs
    with pytest.raises(RuntimeError, match=cut):
        run("jr_1")

    # THEN nothing was published, and without that object all goes well
    assert lake.keys("curated/") == []
    lake.s3.delete_object(Bucket=lake.raw, Key=cut)
    assert run("jr_2")["counts"]["new"] == 1


def test_the_catalog_is_behind_while_a_folder_with_files_has_no_partition(lake: Lake, run: Run) -> None:
    # GIVEN readings of two days, of which the catalog knows one
    lake.put_lines("1.gz", [reading("a", 1, DAY), reading("a", 1, DAY + 86_400)])
    partition = {"Values": ["2025", "10", "15"], "StorageDescriptor": {"Columns": [], "Location": "s3://x/"}}
    lake.glue.create_partition(DatabaseName=lake.database, TableName="device_telemetry", PartitionInput=partition)

    # WHEN the job runs, and again with nothing new
    first, second = run("jr_1"), run("jr_2")

    # THEN both times the other one is missing: it follows from the state, not from what a run wrote
    expected = {"behind": True, "gap_count": 1, "gaps": [{"Values": ["2025", "10", "16"]}]}
    assert first["catalog"] == second["catalog"] == expected

    # WHEN it has been added
    partition["Values"] = ["2025", "10", "16"]
    lake.glue.create_partition(DatabaseName=lake.database, TableName="device_telemetry", PartitionInput=partition)

    # THEN the catalog is complete
    assert run("jr_3")["catalog"] == {"behind": False, "gap_count": 0, "gaps": []}


def test_a_column_of_the_catalog_becomes_a_column_of_the_files(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN a table with one more column than a reading has
    lake.glue.update_table(
        DatabaseName=lake.database,
        TableInput={
            "Name": "device_telemetry",
            "PartitionKeys": [{"Name": key, "Type": "int"} for key in ("year", "month", "day")],
            "StorageDescriptor": {
                "Columns": [{"Name": n, "Type": t} for n, t in (*TABLE_COLUMNS, ("humidity", "double"))]
            },
        },
    )
    lake.put_lines("1.gz", [reading("a", 1, DAY, humidity=40), reading("b", 1, DAY)])

    # WHEN the job runs
    run("jr_1")

    # THEN the files have it, in the catalog's order, null where the field is absent
    stored = spark.read.parquet(f"s3://{lake.analytics}/{lake.keys('curated/')[0]}")
    assert stored.columns == ["device_id", "temperature", "timestamp", "event_time", "humidity"]
    assert [row["humidity"] for row in stored.orderBy("device_id").collect()] == [40.0, None]


@pytest.mark.parametrize(
    ("key_type", "further", "reason"),
    [("string", [], "partition keys"), ("int", [("staged-date", "date")], "Give the column another name")],
)
def test_a_table_that_the_job_cannot_fill_is_refused(
    lake: Lake, run: Run, etl: ModuleType, *, key_type: str, further: list[tuple[str, str]], reason: str
) -> None:
    # GIVEN a table whose partition keys are strings, as a crawler left alone makes them; or a name that is taken
    lake.glue.update_table(
        DatabaseName=lake.database,
        TableInput={
            "Name": "device_telemetry",
            "PartitionKeys": [{"Name": key, "Type": key_type} for key in ("year", "month", "day")],
            "StorageDescriptor": {"Columns": [{"Name": n, "Type": t} for n, t in (*TABLE_COLUMNS, *further)]},
        },
    )

    # WHEN the job runs
    # THEN it says why, and does not write beside the template
    with pytest.raises(etl.EtlError, match=reason):
        run("jr_1")


def test_a_summary_of_a_large_run_stays_below_100_kilobytes(etl: ModuleType, lake: Lake) -> None:
    # GIVEN an audit of ten years of days, with rejects for every reason
    first = datetime(2016, 1, 1, tzinfo=UTC)
    days = [etl.Day(m.year, m.month, m.day) for n in range(3650) for m in [first + timedelta(days=n)]]
    counts = {day: etl.DayCount(123_456_789 * (n % 2), 987_654_321) for n, day in enumerate(days)}
    ranges = {day: etl.TimeRange(n, n) for n, day in enumerate(days)}
    run_id = "jr_" + "f" * 64
    files = [
        etl.StagedFile("b", "k", 2**40, "b", f"curated/device_telemetry/{d.folder}{run_id}-{n:05d}.snappy.parquet", d)
        for n, d in enumerate(days)
    ]
    audited = json.dumps([f"{first - timedelta(days=n + 1):%Y-%m-%d}" for n in range(3650)])
    argv = lake.arguments(run_id, MODE="audit", DAYS=audited)
    arguments = etl.read_arguments(argv, etl.resolve_options(argv), first.date())
    reasons = {reason.value: 10**12 for reason in Reason}
    judgement = etl.Judgement(10**12, etl.Shape(0, {}, ranges), counts, reasons)

    # WHEN it is summed up
    summary = etl.summarise(
        etl.Setting(arguments, [], first),
        judgement,
        files,
        catalog=etl.catalog_state(set(days), set()),
        seconds_by_step=dict.fromkeys(("prepare", "read", "judge", "stage", "publish", "catalog"), 12345.678),
        finished_at=first,
    )

    # THEN the lists are cut and the counts are whole; days with new rows come first
    assert len(json.dumps(summary, separators=(",", ":"))) < 100_000
    assert summary["rejected_by_reason"] == reasons
    assert summary["audited_day_count"] == 3650
    assert summary["in_words"][0].startswith("Audit of 3,650 days: 1,000,000,000,000 lines")
    assert summary["event_time"] == {"min": "1970-01-01T00:00:00Z", "max": "1970-01-01T00:00:00.003649Z"}
    assert summary["partition_count"] == summary["files"]["count"] == 3650
    assert summary["catalog"]["gap_count"] == 3650
    assert len(summary["catalog"]["gaps"]) <= 100
    assert all(entry["new"] for entry in summary["partitions"])


def test_parameters_that_make_no_sense_are_refused(etl: ModuleType, lake: Lake) -> None:
    # GIVEN parameters with one mistake each
    mistakes = [
        {"MODE": "compact"},
        {"DAYS": "yesterday"},
        {"DAYS": '["2025-13-01"]'},
        {"DAYS": '["2025-10-15T00:00"]', "MODE": "audit"},
        {"DAYS": f'["{datetime.now(UTC):%Y-%m-%d}"]', "MODE": "audit"},
        {"TARGET_FILE_MB": "0"},
        {"TARGET_FILE_MB": "many"},
        {"TARGET_S3": "s3://bucket"},
        {"TARGET_S3": "bucket/folder/"},
    ]

    for mistake in mistakes:
        # WHEN they are read
        # THEN the run ends before it begins
        argv = lake.arguments("jr_1", **mistake)
        with pytest.raises(etl.EtlError):
            etl.read_arguments(argv, etl.resolve_options(argv), datetime.now(UTC).date())


@pytest.mark.parametrize("sign", ["=", " "])
def test_parameters_come_in_both_spellings_and_only_given_ones_count(etl: Any, lake: Lake, sign: str) -> None:
    # GIVEN a command line with and without the optional parameters
    argv = [word for pair in zip(*[iter(lake.arguments("jr_1")[1:])] * 2, strict=True) for word in _spelled(pair, sign)]
    today = date(2026, 1, 10)

    # WHEN it is read
    plain = etl.read_arguments(["x", *argv], etl.resolve_options(["x", *argv]), today)
    given = ["x", *argv, *_spelled(("--MODE", "audit"), sign), *_spelled(("--DAYS", '["2025-10-15"]'), sign)]
    audit = etl.read_arguments(given, etl.resolve_options(given), today)

    # THEN the defaults are those of a load, and an audit has its days
    assert (plain.mode, plain.days, plain.job_run_id, plain.target_file_bytes) == ("load", (), "jr_1", 256 * 2**20)
    assert (audit.mode, [day.isoformat() for day in audit.days]) == ("audit", ["2025-10-15"])


def _spelled(pair: tuple[str, str], sign: str) -> list[str]:
    return [f"{pair[0]}={pair[1]}"] if sign == "=" else list(pair)


def test_the_region_is_that_of_the_bucket(etl: Any, lake: Lake) -> None:
    assert etl._region(lake.analytics) == REGION
