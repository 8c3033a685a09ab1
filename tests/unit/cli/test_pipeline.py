"""What the pipeline has done: objects, what started an execution, waiting."""

import gzip
from datetime import UTC, datetime

import boto3
import pytest
from moto import mock_aws

from telemetry_lake.console import OperatorError
from telemetry_lake.pipeline import (
    Execution,
    LineCounter,
    assert_none_failed,
    cause_text,
    partition_text,
    recent_raw_prefixes,
    ticks,
    trigger_of,
)


def execution(status: str) -> Execution:
    now = datetime(2025, 10, 15, tzinfo=UTC)
    return Execution("arn:e", "e", status, "pipe", (), now, now, "Glue.JobFailed", "out of memory", "")


@pytest.mark.parametrize(
    ("execution_input", "trigger", "keys"),
    [
        ('[{"key": "raw_data/a", "size": 1}, {"key": "raw_data/b", "size": 2}]', "pipe", ("raw_data/a", "raw_data/b")),
        ('{"trigger": "schedule"}', "schedule", ()),
        ('{"mode": "audit", "days": ["2025-10-15"]}', "audit", ()),
        ('{"mode": "check"}', "check", ()),
        ("{}", "hand", ()),
        ("", "hand", ()),
    ],
)  # fmt: skip
def test_the_input_tells_what_started_an_execution(execution_input: str, trigger: str, keys: tuple[str, ...]) -> None:
    assert trigger_of(execution_input) == (trigger, keys)


def test_lines_are_counted_once_and_only_the_line_feed_ends_one() -> None:
    # GIVEN an object with two lines, one of which holds what other tools take for a line end
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="raw")
        counter = LineCounter(s3, "raw", "raw_data/")
        assert counter.refresh() == 0
        s3.put_object(Bucket="raw", Key="raw_data/1", Body=gzip.compress(b"a\rb\nc\n"))
        s3.put_object(Bucket="raw", Key="other/1", Body=gzip.compress(b"x\n"))

        # WHEN
        first = counter.refresh()
        s3.put_object(Bucket="raw", Key="raw_data/2", Body=gzip.compress(b"d\n\ne"))
        second = counter.refresh()

    # THEN
    assert (first, second) == (2, 4)
    assert [stored.key for stored in counter.objects] == ["raw_data/1", "raw_data/2"]
    assert counter.content_bytes == len(b"a\rb\nc\nd\ne\n")


def test_rejects_are_a_set_by_their_id() -> None:
    # GIVEN the same reject in two objects, as after a batch that was cut anew
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="lake")
        s3.put_object(Bucket="lake", Key="dlq/1", Body=gzip.compress(b'{"reject_id": "a", "reason": "too_deep"}\n'))
        s3.put_object(
            Bucket="lake",
            Key="dlq/2",
            Body=gzip.compress(b'{"reject_id": "a", "reason": "too_deep"}\n{"reject_id": "b", "reason": "not_utf8"}\n'),
        )
        counter = LineCounter(s3, "lake", "dlq/")

        # WHEN
        lines = counter.refresh()

    # THEN
    assert lines == 3
    assert {key: reject["reason"] for key, reject in counter.rejects().items()} == {"a": "too_deep", "b": "not_utf8"}


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "ABORTED"])
def test_an_execution_that_did_not_succeed_is_named_with_its_cause(status: str) -> None:
    with pytest.raises(OperatorError, match=r"(?s)Glue\.JobFailed out of memory.*get-execution-history"):
        assert_none_failed([execution("SUCCEEDED"), execution(status)])


def test_executions_at_work_or_done_are_well() -> None:
    assert_none_failed([execution("RUNNING"), execution("SUCCEEDED")])


def test_arrival_days_are_utc_days_also_over_the_turn_of_a_month() -> None:
    assert recent_raw_prefixes("raw_data/", datetime(2025, 3, 1, 0, 30, tzinfo=UTC)) == [
        "raw_data/2025/03/01/",
        "raw_data/2025/02/28/",
    ]


def test_a_partition_reads_as_a_date() -> None:
    assert partition_text(("2025", "1", "5")) == "2025-01-05"


def test_asking_goes_on_until_the_time_is_over_and_at_least_once() -> None:
    assert len(list(ticks(0))) == 1
    assert len(list(ticks(0.2, 0.05))) >= 3


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        ('{"errorMessage": "denied", "errorType": "ClientError", "stackTrace": ["..."]}', "denied"),
        ('{"Id": "jr_1", "JobRunState": "FAILED", "ErrorMessage": "out of memory"}', "out of memory"),
        ("States.Timeout", "States.Timeout"),
        ('["a"]', '["a"]'),
        ('{"other": 1}', '{"other": 1}'),
    ],
)
def test_a_cause_is_shown_as_its_message(cause: str, text: str) -> None:
    assert cause_text(cause) == text
