"""Sending: batches within Kinesis's limits, repeats of failed entries only, a ledger of what was acknowledged."""

import io
import json
from typing import Any

import boto3
import pytest
from moto import mock_aws

from telemetry_lake.console import OperatorError
from telemetry_lake.producer import Producer, batch_records_for, batches, paced, pause_seconds
from telemetry_lake.readings import Record
from tests.contracts.fakes import client_answered_by


class FlakyKinesis:
    """Answers PutRecords as Kinesis does and refuses the records that it is told to, as often as it is told to."""

    def __init__(self, refusals: dict[bytes, int]) -> None:
        self.refusals = dict(refusals)
        self.requests: list[list[bytes]] = []

    def put_records(self, *, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803  boto3's names
        assert StreamName == "stream"
        self.requests.append([record["Data"] for record in Records])
        answers = []
        for index, record in enumerate(Records):
            if self.refusals.get(record["Data"], 0) > 0:
                self.refusals[record["Data"]] -= 1
                answers.append({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"})
            else:
                answers.append({"ShardId": "shardId-0", "SequenceNumber": f"{len(self.requests)}{index:03}"})
        return {"FailedRecordCount": sum("ErrorCode" in answer for answer in answers), "Records": answers}


def producer_for(
    client: FlakyKinesis, ledger: io.StringIO | None = None, attempts: int = 5
) -> tuple[Producer, list[float]]:
    pauses: list[float] = []
    return Producer(client_answered_by("kinesis", client), "stream", ledger, pauses.append, attempts), pauses


def records(*data: bytes) -> list[Record]:
    return [Record(each, "key") for each in data]


def test_only_the_refused_entries_are_sent_again_after_a_pause() -> None:
    # GIVEN a stream that refuses b once and d twice
    client = FlakyKinesis({b"b": 1, b"d": 2})
    producer, pauses = producer_for(client)

    # WHEN four records are sent
    producer.send(records(b"a", b"b", b"c", b"d"))

    # THEN each request after the first holds nothing but what was refused
    assert client.requests == [[b"a", b"b", b"c", b"d"], [b"b", b"d"], [b"d"]]
    assert producer.delivery.acknowledged == 4
    assert producer.delivery.resent == 3
    assert len(pauses) == 2
    assert all(pause > 0 for pause in pauses)


def test_giving_up_names_what_is_not_acknowledged_and_keeps_it_out_of_the_ledger() -> None:
    # GIVEN a record that is always refused
    client = FlakyKinesis({b"bad": 99})
    ledger = io.StringIO()
    producer, _pauses = producer_for(client, ledger, attempts=3)

    # WHEN / THEN it is given up with the reason
    with pytest.raises(OperatorError, match=r"refused 1 of 2 records 3 times \(ProvisionedThroughputExceeded"):
        producer.send(records(b"good", b"bad"))
    assert len(client.requests) == 3
    assert [json.loads(line)["data"] for line in ledger.getvalue().splitlines()] == ["good"]


def test_the_ledger_has_shard_sequence_number_and_data_of_each_acknowledged_record() -> None:
    # GIVEN a stream of two shards
    with mock_aws():
        client = boto3.client("kinesis", region_name="ap-northeast-1")
        client.create_stream(StreamName="stream", ShardCount=2)
        ledger = io.StringIO()
        producer = Producer(client, "stream", ledger)

        # WHEN text and bytes that are no text are sent
        sent = [Record(f"reading {index}".encode(), f"sensor-{index}") for index in range(20)]
        producer.send([*sent, Record(b"caf\xe9", "sensor-x", "not_utf8")])

        # THEN each line names the place where the record is found again
        lines = [json.loads(line) for line in ledger.getvalue().splitlines()]
        shards = {line["shard"] for line in lines}
        found = set()
        for shard in shards:
            iterator = client.get_shard_iterator(StreamName="stream", ShardId=shard, ShardIteratorType="TRIM_HORIZON")[
                "ShardIterator"
            ]
            for stored in client.get_records(ShardIterator=iterator)["Records"]:
                found.add((shard, stored["SequenceNumber"], stored["Data"]))
    assert len(shards) == 2
    assert {(line["shard"], line["sequence_number"]) for line in lines} == {each[:2] for each in found}
    assert {line["data"].encode() for line in lines if "data" in line} == {record.data for record in sent}
    assert next(line for line in lines if "data_base64" in line)["fault"] == "not_utf8"
    assert producer.delivery.bad == 1
    assert producer.delivery.good == 20
    assert sum(producer.delivery.by_shard.values()) == 21


def test_a_batch_has_at_most_500_records() -> None:
    # GIVEN / WHEN 1,001 small records are cut
    sizes = [len(batch) for batch in batches(records(*([b"x"] * 1001)))]

    # THEN
    assert sizes == [500, 500, 1]


def test_a_batch_stays_within_the_byte_limit_with_partition_keys_counted() -> None:
    # GIVEN records of 10 bytes each, of which 4 are the key (two characters of two bytes)
    each = Record(b"123456", "éé")

    # WHEN they are cut at 30 bytes
    sizes = [len(batch) for batch in batches([each] * 7, most_bytes=30)]

    # THEN three fit exactly
    assert sizes == [3, 3, 1]


def test_a_record_over_the_limit_goes_alone_so_that_kinesis_can_refuse_it_by_name() -> None:
    # GIVEN / WHEN
    cut = list(batches(records(b"a", b"x" * 50, b"b"), most_bytes=10))

    # THEN
    assert [[record.data for record in batch] for batch in cut] == [[b"a"], [b"x" * 50], [b"b"]]


def test_no_records_make_no_batch() -> None:
    assert list(batches([])) == []


def test_a_rate_spaces_records_evenly_from_the_start() -> None:
    # GIVEN a clock that moves only when somebody sleeps
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    # WHEN five records go at two a second
    times = [now[0] for _record in paced(records(b"a", b"b", b"c", b"d", b"e"), 2.0, lambda: now[0], sleep)]

    # THEN
    assert times == pytest.approx([100.0, 100.5, 101.0, 101.5, 102.0])


@pytest.mark.parametrize(("rate", "size"), [(None, 500), (0.5, 1), (2, 1), (100, 50), (100_000, 500)])
def test_a_slow_producer_sends_small_batches(rate: float | None, size: int) -> None:
    assert batch_records_for(rate) == size


def test_pauses_grow_and_are_bounded() -> None:
    # GIVEN / WHEN no chance and full chance
    longest = [pause_seconds(attempt, lambda: 1.0) for attempt in range(1, 10)]
    shortest = [pause_seconds(attempt, lambda: 0.0) for attempt in range(1, 10)]

    # THEN
    assert longest == sorted(longest)
    assert longest[-1] == 5.0
    assert shortest == [pause / 2 for pause in longest]
