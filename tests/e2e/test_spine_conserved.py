"""The checker of conservation on a whole stack: everything that was sent is conserved, and each planted fault is found.

It comes right after the test of the spine, whose readings it judges too; later tests write raw objects by hand.
"""

import gzip
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from telemetry_lake import journey
from telemetry_lake.commands.produce import Plan, send
from telemetry_lake.commands.verify import Verification, check
from telemetry_lake.conservation import comparison
from telemetry_lake.pipeline import list_objects, ticks
from tests.stack import Lake, ledgers

CAUGHT_UP_SECONDS = 300.0
EDGES_CELSIUS = ("-0.0", "5e-324", "0.30000000000000004", "1e-7", "123456e-3", "-99.99999999999999", "21.50")
ODD_LINES = (
    '[{"device_id":"one","temperature":1,"timestamp":TIME},{"device_id":"two","temperature":2,"timestamp":TIME}, 3]',
    '{"device_id":"センサー \\"1\\", hot","temperature":21.5,"timestamp":TIME.123456}',
    '{"device_id":"twice","temperature":1,"timestamp":TIME}',
    '{"timestamp":TIME, "temperature":1.0, "device_id":"tw\\u0069ce", "note":[1]}',
    '{"device_id":"twice","temperature":1,"timestamp":TIME,"note":1e999}',
    '{"device_id":"hot","temperature":1000,"timestamp":TIME}',
    "{}{}",
    "{}{}",
    "no JSON at all",
)


@pytest.fixture(scope="module")
def caught_up(lake: Lake) -> Verification:
    """Send what is odd, and look until nothing is on its way; at no time is anything lost, doubled or invented."""
    odd = lake.directory / "odd lines.txt"
    at = str(int(time.time()) - 60)
    edges = [f'{{"device_id":"edge","temperature":{value},"timestamp":TIME}}' for value in EDGES_CELSIUS]
    odd.write_text("".join(f"{line.replace('TIME', at)}\n" for line in (*ODD_LINES, *edges)))
    plan = Plan(ledger=lake.directory / "verify.jsonl", spread_hours=36)
    for each in (
        replace(plan, count=300, bad=26, seed=5),
        replace(plan, count=500, seed=6, readings_per_record=50),
        replace(plan, file=odd, send_invalid=True),
    ):
        send(lake.target, each, lake.reporter)
    for _ in ticks(CAUGHT_UP_SECONDS, 3.0):
        verification = verified(lake)
        assert verification.verdict != "not_conserved", verification
        if verification.verdict == "conserved" and not verification.at_work:
            return verification
    raise AssertionError(f"still on its way: {verification}")


def verified(lake: Lake) -> Verification:
    return check(lake.target, ledgers(lake), lake.reporter)


def found(lake: Lake) -> dict[str, int]:
    return {finding.kind: finding.count for finding in verified(lake).report.findings}


def test_good_packed_odd_and_bad_readings_are_conserved(caught_up: Verification) -> None:
    counts = caught_up.report.counts
    assert caught_up.verdict == "conserved"
    assert counts["rows"] >= 300 + 500 + 4 + len(EDGES_CELSIUS)
    assert counts["unreadable elements acknowledged"] >= 4

    # the same reading with another field that is out of range
    assert {finding.kind: finding.count for finding in caught_up.report.causes} == {comparison.OTHER_FIELDS: 1}


def test_one_more_run_changes_nothing(lake: Lake, caught_up: Verification) -> None:
    journey.run_once_more(lake.target, lake.reporter)
    assert verified(lake).report == caught_up.report


# ---------------------------------------------------------------- planted faults


@contextmanager
def without(lake: Lake, key: str) -> Iterator[None]:
    """Take an object of the analytics bucket away, and put it back afterwards."""
    s3, bucket = lake.target.s3, lake.target.outputs.analytics_bucket_name
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    s3.delete_object(Bucket=bucket, Key=key)
    try:
        yield
    finally:
        s3.put_object(Bucket=bucket, Key=key, Body=body)


@contextmanager
def with_object(lake: Lake, key: str, body: bytes) -> Iterator[None]:
    """Put an object into the analytics bucket, and delete it afterwards."""
    s3, bucket = lake.target.s3, lake.target.outputs.analytics_bucket_name
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    try:
        yield
    finally:
        s3.delete_object(Bucket=bucket, Key=key)


def table_file(lake: Lake) -> tuple[str, pyarrow.Table]:
    """A file of the table and its rows."""
    bucket = lake.target.outputs.analytics_bucket_name
    stored = list_objects(lake.target.s3, bucket, lake.target.outputs.curated_prefix)[0]
    body = lake.target.s3.get_object(Bucket=bucket, Key=stored.key)["Body"].read()
    return stored.key, pyarrow.parquet.ParquetFile(io.BytesIO(body)).read()


def parquet(table: pyarrow.Table) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def dead_letter(**fields: Any) -> bytes:
    letter = {
        "reject_id": "planted",
        "reason": "timestamp_in_future",
        "stage": "transform",
        "original_base64": None,
        "source": None,
        "contract_version": "1;earlier",
        **fields,
    }
    return gzip.compress(json.dumps(letter).encode() + b"\n")


def test_lost_readings_are_found(lake: Lake, caught_up: Verification) -> None:
    # GIVEN
    assert caught_up.report.is_conserved
    key, table = table_file(lake)

    # WHEN a file of the table is gone
    with without(lake, key):
        missing = found(lake)

    # THEN its readings are lost, apart from any that nothing of its shard has come after
    assert set(missing) <= {comparison.LOST_READING, comparison.NOT_DELIVERED}
    assert missing[comparison.LOST_READING] > 0
    assert sum(missing.values()) == table.num_rows


def test_doubled_readings_are_found(lake: Lake, caught_up: Verification) -> None:
    assert caught_up.report.is_conserved
    key, table = table_file(lake)
    with with_object(lake, key.replace(".snappy", "-again.snappy"), parquet(table)):
        assert found(lake) == {comparison.STORED_TWICE: table.num_rows}


def test_an_invented_reading_is_found_even_if_it_differs_by_the_last_bit(lake: Lake, caught_up: Verification) -> None:
    # GIVEN
    assert caught_up.report.is_conserved
    key, table = table_file(lake)
    nearly = table.slice(0, 1)
    (value,) = nearly["temperature"].to_pylist()
    position = nearly.column_names.index("temperature")
    nearly = nearly.set_column(position, "temperature", pyarrow.array([value * (1 + 2**-52)]))

    # WHEN / THEN
    with with_object(lake, key.replace(".snappy", "-more.snappy"), parquet(nearly)):
        assert found(lake) == {comparison.ROW_NEVER_SENT: 1}


def test_a_reading_in_both_places_without_a_cause_and_an_invented_reject_are_found(
    lake: Lake, caught_up: Verification
) -> None:
    # GIVEN a reading that was sent once, under rules that have not changed since
    assert caught_up.report.is_conserved
    _, table = table_file(lake)
    row = {name: table[name].to_pylist()[0] for name in ("device_id", "timestamp", "temperature")}
    prefix = f"{lake.target.outputs.dlq_prefix}year=2026/month=1/day=1/"

    # WHEN / THEN
    with with_object(lake, f"{prefix}planted.json.gz", dead_letter(original=json.dumps(row))):
        assert found(lake) == {comparison.IN_BOTH_PLACES: 1}
    with with_object(lake, f"{prefix}planted.json.gz", dead_letter(original="nobody sent this")):
        assert found(lake) == {comparison.REJECT_NEVER_SENT: 1}


def test_lost_rejects_are_found(lake: Lake, caught_up: Verification) -> None:
    # GIVEN the object with the earliest rejects, so that others have come after
    assert caught_up.report.is_conserved
    outputs = lake.target.outputs
    objects = list_objects(lake.target.s3, outputs.analytics_bucket_name, outputs.dlq_prefix)
    earliest = min(objects, key=lambda stored: stored.last_modified)

    # WHEN
    with without(lake, earliest.key):
        missing = found(lake)

    # THEN
    assert {comparison.LOST_RECORD, comparison.LOST_READING} <= set(missing), missing
    assert set(missing) <= {comparison.LOST_RECORD, comparison.LOST_READING, *comparison.IN_FLIGHT}


def test_after_all_this_everything_is_conserved_as_before(lake: Lake, caught_up: Verification) -> None:
    assert verified(lake).report == caught_up.report
