"""What was rejected, as the operator sees it; the dead letters are those that the transform itself writes."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from telemetry_contract import Policy
from telemetry_lake.target import Target
from tests.unit.cli.conftest import Tlake
from transform.logic import plan_batch

EVENTS = Path(__file__).resolve().parents[3] / "events" / "transform"
DAY = date(2026, 10, 15)
DAYS = ("--from", "2026-10-15", "--to", "2026-10-16")
PARKED = b"\xff kept as it came\n"


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The rejects of two sample batches, one of them stored twice, and a record that Firehose has parked."""
    monkeypatch.chdir(tmp_path)
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        for bucket in ("raw", "analytics"):
            s3.create_bucket(Bucket=bucket)
        for sample in ("bad", "packed"):
            event = json.loads((EVENTS / f"{sample}.json").read_text())
            plan = plan_batch(event, policy=Policy(), dead_letter_prefix="dlq/raw_json/", now=datetime.now(UTC))
            assert plan.dead_letter_key is not None
            for key in (plan.dead_letter_key, plan.dead_letter_key.replace("/day=15/", "/day=16/")):
                s3.put_object(Bucket="analytics", Key=key, Body=plan.dead_letter_body)
        # As https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html shows it.
        parked = {
            "attemptsMade": 4,
            "arrivalTimestamp": 1792034100004,
            "errorCode": "Lambda.FunctionError",
            "errorMessage": "The Lambda function was successfully invoked but it returned an error result.",
            "attemptEndingTimestamp": 1792034160004,
            "rawData": base64.b64encode(PARKED).decode(),
            "lambdaArn": "arn:aws:lambda:ap-northeast-1:123456789012:function:temperature-transform:$LATEST",
        }
        key = "firehose_errors/processing-failed/2026/10/15/03/temperature-to-s3-1-2026-10-15-03-15-00-0e8b"
        s3.put_object(Bucket="raw", Key=key, Body=json.dumps(parked).encode() + b"\n")
        outputs = SimpleNamespace(
            raw_bucket_name="raw",
            error_prefix="firehose_errors/",
            analytics_bucket_name="analytics",
            dlq_prefix="dlq/raw_json/",
        )
        monkeypatch.setattr(Target, "outputs", outputs)
        yield s3


def test_rejects_are_counted_once_by_reason_with_those_of_firehose(lake: Any, tlake: Tlake) -> None:
    # WHEN
    result = tlake("--account", "dlq", "list", *DAYS, "--json")

    # THEN each is counted once, though four of the five are stored on two days
    assert result.exit_code == 0, result.stderr
    counts = json.loads(result.stdout)
    assert counts["rejects"] == 6
    assert {reason: sum(part.values()) for reason, part in counts["reason"].items()} == {
        "malformed_json": 1,
        "temperature_out_of_range": 1,
        "device_id_invalid": 1,
        "not_utf8": 1,
        "wrong_type": 1,
        "Lambda.FunctionError": 1,
    }


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("day", {"2026-10-15": 6}),
        ("device", {"sensor-2": 2, "(not readable)": 4}),
    ],
)
def test_rejects_are_counted_by_day_and_by_device(lake: Any, tlake: Tlake, by: str, expected: dict[str, int]) -> None:
    # WHEN
    result = tlake("--account", "dlq", "list", *DAYS, "--by", by, "--json")

    # THEN
    counts = json.loads(result.stdout)[by]
    assert {name: sum(part.values()) for name, part in counts.items()} == expected


def test_a_reject_is_shown_whole_by_the_beginning_of_its_id(lake: Any, tlake: Tlake) -> None:
    # GIVEN the id that the list names
    listed = tlake("--account", "dlq", "list", *DAYS, "--reason", "temperature_out_of_range")
    reject_id = listed.stdout.split("tlake dlq show ")[1].split()[0]

    # WHEN
    result = tlake("--account", "dlq", "show", reject_id, *DAYS)

    # THEN
    assert result.exit_code == 0, result.stderr
    assert "temperature_out_of_range (transform)" in result.stdout
    assert '"temperature": 999' in result.stdout
    assert "temperature 999" in result.stdout
    assert "shard shardId-000000000000, sequence number 4966657930" in result.stdout
    assert "s3://analytics/dlq/raw_json/year=2026/month=10/day=15/" in result.stdout


def test_bytes_that_are_no_text_reach_no_terminal_and_are_whole_in_json(lake: Any, tlake: Tlake) -> None:
    # WHEN
    shown = tlake("--account", "dlq", "show", "--reason", "Lambda.FunctionError", *DAYS)
    as_json = tlake("--account", "dlq", "show", "--reason", "Lambda.FunctionError", *DAYS, "--json")

    # THEN
    assert r"\xff kept as it came\n" in shown.stdout
    (reject,) = json.loads(as_json.stdout)
    assert (reject["original"], base64.b64decode(reject["original_base64"])) == (None, PARKED)
    assert (reject["stage"], reject["arrived_at"]) == ("firehose", "2026-10-15T03:15:00.004Z")


def test_what_is_not_there_and_what_is_no_reject_is_said(lake: Any, tlake: Tlake) -> None:
    # WHEN / THEN an unknown id names the days that were looked at
    unknown = tlake("--account", "dlq", "show", "abcdef", *DAYS)
    assert unknown.exit_code == 1
    assert "No reject abcdef is kept under the days from 2026-10-15 to 2026-10-16" in unknown.stderr

    # WHEN / THEN days in the wrong order are refused
    assert "is after" in tlake("--account", "dlq", "list", "--from", "2026-10-16", "--to", "2026-10-15").stderr

    # WHEN / THEN an object that holds something else is named
    lake.put_object(Bucket="analytics", Key=f"dlq/raw_json/year={DAY.year}/month=10/day=15/x.json.gz", Body=b"junk")
    strange = tlake("--account", "dlq", "list", *DAYS)
    assert strange.exit_code == 1
    assert "day=15/x.json.gz does not hold rejects" in strange.stderr
