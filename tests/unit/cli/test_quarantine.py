"""Quarantine: what can be read of an object, and that no interruption loses a byte of it."""

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final

import pytest
from click.testing import CliRunner
from moto import mock_aws

from telemetry_lake.cli import group
from telemetry_lake.commands.context import Context
from telemetry_lake.commands.quarantine import find_unreadable, raw_key
from telemetry_lake.console import OperatorError, Reporter
from telemetry_lake.health import problems
from telemetry_lake.pipeline import StoredObject
from telemetry_lake.quarantine import Quarantine, fault_of, suspects
from telemetry_lake.target import Target
from tests.contracts.fakes import client_answered_by

REGION: Final = "ap-northeast-1"
KEY = "raw_data/2026/11/20/05/temperature-to-s3-1-uuid.gz"
PLACE = f"quarantine/{KEY}"
LINES = [f'{{"device_id":"d{n}","temperature":{n},"timestamp":{1_760_000_000 + n}}}\n' for n in range(2000)]
WHOLE = gzip.compress("".join(LINES).encode(), mtime=0)
TRUNCATED = WHOLE[: len(WHOLE) // 2]


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    outputs = SimpleNamespace(
        raw_bucket_name="raw",
        raw_prefix="raw_data/",
        analytics_bucket_name="analytics",
        quarantine_prefix="quarantine/",
        job_name="etl",
        state_machine_arn="arn:pipeline",
    )
    with mock_aws():
        target = Target(REGION, None, "lake")
        monkeypatch.setattr(Target, "outputs", outputs)
        for bucket in ("raw", "analytics"):
            target.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
            target.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        yield target


def contents(target: Target) -> dict[str, bytes]:
    """Everything in both buckets, but for records: ``{"raw/<key>": bytes}``."""
    found = {}
    for bucket in ("raw", "analytics"):
        for entry in target.s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            if not entry["Key"].endswith(".json"):
                body = target.s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
                found[f"{bucket}/{entry['Key']}"] = body
    return found


# ---------------------------------------------------------------- what can be read


@pytest.mark.parametrize(
    ("body", "key", "lines", "fault"),
    [
        (WHOLE, "a.gz", 2000, None),
        (WHOLE + gzip.compress(b"one more\n"), "a.gz", 2001, None),
        (gzip.compress(b"no line feed at the end"), "a.gz", 0, None),
        (b"", "a.gz", 0, None),
        (gzip.compress(b""), "a.gz", 0, None),
        (b"plain\ntext\n", "a", 2, None),
        (b"plain\ntext\n", "a.gz", 0, "BadGzipFile"),
        (WHOLE[:5], "a.gz", 0, "EOFError"),
        (WHOLE[:-8] + bytes(8), "a.gz", 2000, "BadGzipFile: CRC"),
        (WHOLE + b"garbage", "a.gz", 2000, "BadGzipFile"),
        (WHOLE[:400] + b"\xff" * 400 + WHOLE[800:], "a.gz", None, "rror"),
    ],
)
def test_what_can_be_read_of_an_object(body: bytes, key: str, lines: int | None, fault: str | None) -> None:
    # GIVEN / WHEN
    found_lines, found_fault = fault_of(body, key)

    # THEN
    assert lines in (None, found_lines)
    assert (found_fault is None) == (fault is None)
    assert fault is None or fault in str(found_fault)


def test_of_a_truncated_object_the_whole_lines_of_its_prefix_can_be_read() -> None:
    # GIVEN / WHEN
    lines, fault = fault_of(TRUNCATED, KEY)

    # THEN there are some, not all, and they are those at the beginning
    assert fault is not None
    assert 0 < lines < len(LINES)


# ---------------------------------------------------------------- there


def test_a_truncated_object_is_moved_with_a_record_of_what_is_wrong(target: Target) -> None:
    # GIVEN
    put = target.s3.put_object(Bucket="raw", Key=KEY, Body=TRUNCATED)

    # WHEN
    Quarantine(target).move(KEY, force=False)

    # THEN
    assert contents(target) == {f"analytics/{PLACE}": TRUNCATED}
    record = json.loads(target.s3.get_object(Bucket="analytics", Key=f"{PLACE}.json")["Body"].read())
    assert record["key"] == KEY
    assert record["quarantined_key"] == PLACE
    assert record["reason"].startswith("EOFError")
    assert record["readable_lines"] == fault_of(TRUNCATED, KEY)[0]
    assert (record["size_bytes"], record["etag"], record["version_id"]) == (
        len(TRUNCATED),
        put["ETag"],
        put["VersionId"],
    )
    assert datetime.now(UTC) - datetime.fromisoformat(record["quarantined_at"]) < timedelta(minutes=1)


class EndedHereError(Exception):
    """The process ended here."""


def interrupt(target: Target, number: int, moment: str) -> None:
    """Let the ``number``-th change that the client asks for be the last, before or after it takes effect."""
    changes = 0

    def count(model: Any, **_: Any) -> None:
        nonlocal changes
        changes += model.name in ("CopyObject", "PutObject", "DeleteObject")
        if changes == number and model.name in ("CopyObject", "PutObject", "DeleteObject"):
            raise EndedHereError

    target.s3.meta.events.register(f"{moment}-call.s3", count, unique_id="interrupt")


def go_on(target: Target) -> None:
    for moment in ("before", "after"):
        target.s3.meta.events.unregister(f"{moment}-call.s3", unique_id="interrupt")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_move_that_is_interrupted_anywhere_is_completed_by_the_next(target: Target, number: int, moment: str) -> None:
    # GIVEN
    target.s3.put_object(Bucket="raw", Key=KEY, Body=TRUNCATED)

    # WHEN
    interrupt(target, number, moment)
    with pytest.raises(EndedHereError):
        Quarantine(target).move(KEY, force=False)
    go_on(target)

    # THEN no byte is lost, and what is no longer in the raw zone has its record
    assert set(contents(target).values()) == {TRUNCATED}
    if f"raw/{KEY}" not in contents(target):
        assert Quarantine(target).record(KEY) is not None

    # AND the next one completes it, as does one more
    for _ in range(2):
        Quarantine(target).move(KEY, force=False)
        assert contents(target) == {f"analytics/{PLACE}": TRUNCATED}
        assert [record.key for record in Quarantine(target).records()] == [KEY]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_restore_that_is_interrupted_anywhere_is_completed_by_the_next(
    target: Target, number: int, moment: str
) -> None:
    # GIVEN a quarantined object
    target.s3.put_object(Bucket="raw", Key=KEY, Body=WHOLE)
    Quarantine(target).move(KEY, force=True)

    # WHEN
    interrupt(target, number, moment)
    with pytest.raises(EndedHereError):
        Quarantine(target).restore(KEY, force=False)
    go_on(target)

    # THEN no byte is lost, and unless all was done the record is still there
    assert set(contents(target).values()) == {WHOLE}
    is_done = (number, moment) == (3, "after")
    assert (Quarantine(target).record(KEY) is None) == is_done

    # AND the next one completes it
    if not is_done:
        Quarantine(target).restore(KEY, force=False)
    assert contents(target) == {f"raw/{KEY}": WHOLE}
    assert list(Quarantine(target).records()) == []


def test_a_readable_object_is_refused_unless_forced(target: Target) -> None:
    # GIVEN
    target.s3.put_object(Bucket="raw", Key=KEY, Body=WHOLE)

    # WHEN / THEN
    with pytest.raises(OperatorError, match=r"can be read: 2,000 lines.\n.*--force"):
        Quarantine(target).move(KEY, force=False)
    assert contents(target) == {f"raw/{KEY}": WHOLE}
    assert Quarantine(target).move(KEY, force=True).reason == "by hand: it can be read"


def test_another_object_of_the_same_name_is_not_put_over_the_first(target: Target) -> None:
    # GIVEN a quarantined object, and a new one of its name
    target.s3.put_object(Bucket="raw", Key=KEY, Body=TRUNCATED)
    Quarantine(target).move(KEY, force=False)
    other = TRUNCATED[:-1]
    target.s3.put_object(Bucket="raw", Key=KEY, Body=other)

    # WHEN / THEN neither direction writes over the other
    with pytest.raises(OperatorError, match="is in quarantine already"):
        Quarantine(target).move(KEY, force=False)
    with pytest.raises(OperatorError, match="has another object"):
        Quarantine(target).restore(KEY, force=True)
    assert contents(target) == {f"raw/{KEY}": other, f"analytics/{PLACE}": TRUNCATED}


def test_an_unreadable_object_is_not_put_back_until_it_is_mended(target: Target) -> None:
    # GIVEN
    target.s3.put_object(Bucket="raw", Key=KEY, Body=TRUNCATED)
    Quarantine(target).move(KEY, force=False)

    # WHEN it is restored as it is
    # THEN it is refused
    with pytest.raises(OperatorError, match="still cannot be read"):
        Quarantine(target).restore(KEY, force=False)

    # WHEN what is mended is put in its place
    target.s3.put_object(Bucket="analytics", Key=PLACE, Body=WHOLE)
    Quarantine(target).restore(KEY, force=False)

    # THEN that is in the raw zone
    assert contents(target) == {f"raw/{KEY}": WHOLE}


def test_what_is_nowhere_is_said_to_be_nowhere(target: Target) -> None:
    with pytest.raises(OperatorError, match=r"no object s3://raw/"):
        Quarantine(target).move(KEY, force=False)
    with pytest.raises(OperatorError, match="not in quarantine"):
        Quarantine(target).restore(KEY, force=False)


# ---------------------------------------------------------------- finding them


NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def stored(name: str, hours: float) -> StoredObject:
    return StoredObject(f"raw_data/{name}.gz", 1, "e", NOON + timedelta(hours=hours))


def test_objects_that_the_last_failed_run_named_are_suspected_first_then_the_newest() -> None:
    # GIVEN
    raw = [stored("old", -2), stored("bad", -1), stored("new", 1), stored("newer", 2)]

    # WHEN / THEN by the address, or by the last part of the key
    for error in ("Unable to parse file: s3://raw/raw_data/bad.gz (EOFError: x)", "Unable to parse file: bad.gz"):
        assert suspects(raw, error, NOON) == [raw[1], raw[3], raw[2]]
    assert suspects(raw, "out of memory", NOON) == [raw[3], raw[2]]
    assert suspects(raw, "", None) == [raw[3], raw[2], raw[1], raw[0]]


class FakeGlue:
    """A job whose last run failed on an object, and whose last load was long ago."""

    def get_job_runs(self, **_: Any) -> dict[str, Any]:
        failed = {"Id": "jr_2", "JobRunState": "FAILED", "ErrorMessage": f"Unable to parse file: {KEY}"}
        loaded = {"Id": "jr_1", "JobRunState": "SUCCEEDED", "CompletedOn": NOON, "Arguments": {"--MODE": "load"}}
        return {"JobRuns": [{**failed, "StartedOn": NOON}, {**loaded, "StartedOn": NOON}]}


@pytest.fixture
def zone(target: Target) -> Target:
    """A raw zone with an object that is cut off, one that is no gzip and one that is well."""
    target.__dict__["glue"] = client_answered_by("glue", FakeGlue())
    for key, body in ((KEY, TRUNCATED), ("raw_data/no.gz", b"text"), ("raw_data/well.gz", WHOLE)):
        target.s3.put_object(Bucket="raw", Key=key, Body=body)
    return target


def test_a_scan_finds_what_cannot_be_read(zone: Target) -> None:
    # GIVEN / WHEN
    found = find_unreadable(zone, False, Reporter(quiet=True))

    # THEN the named one first
    assert [each.key for each in found] == [KEY, "raw_data/no.gz"]


def run_command(target: Target, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(Context, "target", target)
    result = CliRunner().invoke(group, ["--quiet", "quarantine", *words])
    return result.exit_code, result.stdout, result.stderr


def test_a_scan_moves_nothing_unasked_and_everything_with_yes(zone: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN / WHEN
    asked = run_command(zone, monkeypatch, "--scan")
    untouched = contents(zone)
    moved = run_command(zone, monkeypatch, "--scan", "--yes", "--json")
    again = run_command(zone, monkeypatch, "--scan", "--yes", "--json")
    listed = run_command(zone, monkeypatch, "--list", "--json")

    # THEN
    assert asked[0] == 1
    assert "2 raw object(s) cannot be read" in asked[2]
    assert set(untouched) == {f"raw/{KEY}", "raw/raw_data/no.gz", "raw/raw_data/well.gz"}
    assert moved[0] == 0
    assert [record["key"] for record in json.loads(moved[1])] == [KEY, "raw_data/no.gz"]
    assert set(contents(zone)) == {f"analytics/{PLACE}", "analytics/quarantine/raw_data/no.gz", "raw/raw_data/well.gz"}
    assert (again[0], json.loads(again[1])) == (0, [])
    assert {record["key"] for record in json.loads(listed[1])} == {KEY, "raw_data/no.gz"}


def test_one_refused_object_does_not_keep_the_others(zone: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN / WHEN an address, a readable object and one that is in no raw zone
    words = (f"s3://raw/{KEY}", "raw_data/well.gz", "s3://elsewhere/raw_data/a.gz")
    exit_code, output, errors = run_command(zone, monkeypatch, *words, "--json")

    # THEN
    assert exit_code == 1
    assert [record["key"] for record in json.loads(output)] == [KEY]
    assert "raw_data/well.gz can be read" in errors
    assert "s3://elsewhere/raw_data/a.gz is not below s3://raw/raw_data/" in errors


@pytest.mark.parametrize("words", [(), ("--scan", "--list"), ("--scan", "a"), ("--restore",), ("--restore", "--list")])
def test_words_that_make_no_sense_together_are_refused(
    zone: Target, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    assert run_command(zone, monkeypatch, *words)[0] == 1


def test_a_key_is_a_key_or_an_address(zone: Target) -> None:
    assert raw_key(zone, KEY) == raw_key(zone, f"s3://raw/{KEY}") == KEY


def test_the_status_names_the_command_when_a_run_could_not_read_an_object() -> None:
    # GIVEN
    execution = {"name": "e", "arn": "arn:e", "status": "FAILED", "error": "States.TaskFailed"}
    cause = json.dumps({"ErrorMessage": f"RuntimeError: Unable to parse file: s3://raw/{KEY}"})

    # WHEN
    (problem,) = problems({"executions": [{**execution, "cause": cause}]})

    # THEN
    assert problem.next_step.startswith("tlake quarantine --scan, then: aws stepfunctions redrive-execution")
