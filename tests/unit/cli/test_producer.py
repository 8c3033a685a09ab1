"""Sending: batches within Kinesis's limits, packing, repeats of failed entries only, a ledger of what was sent."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from telemetry_lake.console import OperatorError
from telemetry_lake.ledger import Ledger, Place, read_ledger
from telemetry_lake.producer import RECORD_BYTES, Producer, batches, paced, packed, pause_seconds, with_pauses
from telemetry_lake.readings import Record, bad_record
from tests.contracts.fakes import client_answered_by


class FlakyKinesis:
    """Answers PutRecords as Kinesis does and refuses the records that it is told to, as often as it is told to."""

    def __init__(self, refusals: dict[bytes, int], errors: list[Exception] | None = None) -> None:
        self.refusals = dict(refusals)
        self.errors = errors or []
        self.requests: list[list[bytes]] = []

    def put_records(self, *, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803  boto3's names
        assert StreamName == "stream"
        self.requests.append([record["Data"] for record in Records])
        if self.errors:
            raise self.errors.pop(0)
        answers = []
        for index, record in enumerate(Records):
            if self.refusals.get(record["Data"], 0) > 0:
                self.refusals[record["Data"]] -= 1
                answers.append({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"})
            else:
                answers.append({"ShardId": "shardId-0", "SequenceNumber": f"{len(self.requests)}{index:03}"})
        return {"FailedRecordCount": sum("ErrorCode" in answer for answer in answers), "Records": answers}


def producer_for(client: FlakyKinesis, ledger: Ledger | None = None, attempts: int = 5) -> tuple[Producer, list[float]]:
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


def test_giving_up_names_what_is_not_acknowledged_and_the_ledger_knows_no_place_for_it(tmp_path: Path) -> None:
    # GIVEN a record that is always refused
    client = FlakyKinesis({b"bad": 99})
    with Ledger(tmp_path / "ledger") as ledger:
        producer, _pauses = producer_for(client, ledger, attempts=3)

        # WHEN / THEN it is given up with the reason
        with pytest.raises(OperatorError, match=r"refused 1 of 2 records 3 times \(ProvisionedThroughputExceeded"):
            producer.send(records(b"good", b"bad"))
    assert len(client.requests) == 3
    places = {entry.data: entry.place for entry in read_ledger(tmp_path / "ledger")}
    assert places == {b"good": Place("shardId-0", "1000"), b"bad": None}


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "PutRecords")


def test_a_refusal_of_the_whole_request_that_passes_is_waited_for() -> None:
    # GIVEN
    client = FlakyKinesis({}, [refusal("ProvisionedThroughputExceededException"), refusal("InternalFailure")])
    producer, pauses = producer_for(client)

    # WHEN
    producer.send(records(b"a", b"b"))

    # THEN
    assert client.requests == [[b"a", b"b"]] * 3
    assert (producer.delivery.acknowledged, producer.delivery.resent, len(pauses)) == (2, 4, 2)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refusal("AccessDeniedException"), "AccessDenied[\\s\\S]*kinesis:PutRecords"),
        (refusal("ResourceNotFoundException"), "ResourceNotFound[\\s\\S]*tlake status"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), "did not answer[\\s\\S]*network"),
    ],
)
def test_a_refusal_that_does_not_pass_says_what_to_do(error: Exception, message: str) -> None:
    # GIVEN
    producer, pauses = producer_for(FlakyKinesis({}, [error]))

    # WHEN / THEN
    with pytest.raises(OperatorError, match=message):
        producer.send(records(b"a"))
    assert pauses == []


def test_the_ledger_has_shard_sequence_number_and_data_of_each_acknowledged_record(tmp_path: Path) -> None:
    # GIVEN a stream of two shards
    with mock_aws(), Ledger(tmp_path / "ledger") as ledger:
        client = boto3.client("kinesis", region_name="ap-northeast-1")
        client.create_stream(StreamName="stream", ShardCount=2)
        producer = Producer(client, "stream", ledger)

        # WHEN text and bytes that are no text are sent
        sent = [Record(f"reading {index}".encode(), f"sensor-{index}") for index in range(20)]
        producer.send([*sent, bad_record(b"caf\xe9", "sensor-x", "not_utf8")])

        # THEN each entry names the place where the record is found again
        entries = list(read_ledger(tmp_path / "ledger"))
        shards = {entry.place.shard_id for entry in entries if entry.place}
        found = {}
        for shard in shards:
            iterator = client.get_shard_iterator(StreamName="stream", ShardId=shard, ShardIteratorType="TRIM_HORIZON")[
                "ShardIterator"
            ]
            for stored in client.get_records(ShardIterator=iterator)["Records"]:
                found[Place(shard, stored["SequenceNumber"])] = stored["Data"]
    assert len(shards) == 2
    assert {entry.place: entry.data for entry in entries} == found
    assert [entry.fault for entry in entries] == [None] * 20 + ["not_utf8"]
    assert (producer.delivery.readings, producer.delivery.bad) == (20, 1)
    assert sum(producer.delivery.by_shard.values()) == 21
    assert producer.delivery.text() == "20 readings in 21 records, 1 of them bad"


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


def test_a_record_that_kinesis_does_not_take_is_named_after_everything_before_it_was_sent() -> None:
    # GIVEN
    large = Record(b"x" * RECORD_BYTES, "key", where="readings.jsonl, line 2")
    cut = batches([*records(b"a"), large, *records(b"b")])

    # WHEN / THEN
    assert next(cut) == records(b"a")
    with pytest.raises(OperatorError, match=r"readings.jsonl, line 2: 1,048,579 bytes"):
        next(cut)


def test_the_largest_record_is_sent() -> None:
    assert len(list(batches([Record(b"x" * (RECORD_BYTES - 3), "key")]))) == 1


def test_a_pause_ends_a_batch() -> None:
    # GIVEN / WHEN
    cut = list(batches([None, *records(b"a", b"b"), None, None, *records(b"c")]))

    # THEN
    assert [[record.data for record in batch] for batch in cut] == [[b"a", b"b"], [b"c"]]


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


def test_the_rate_counts_readings() -> None:
    # GIVEN records of ten readings and a clock that moves only when somebody sleeps
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    # WHEN
    times = [now[0] for _ in paced([Record(b"x", "k", readings=10)] * 3, 5.0, lambda: now[0], sleep)]

    # THEN
    assert times == pytest.approx([0, 2, 4])


# ---------------------------------------------------------------- packing


def test_readings_of_a_device_are_packed_a_line_each_and_stay_in_order() -> None:
    # GIVEN two devices in turn, and something bad
    made = [Record(f"{device}{number}".encode(), device) for number in range(3) for device in "ab"]
    bad = bad_record(b"bad", "a", "malformed_json")

    # WHEN
    sent = [record for record in packed([*made[:2], bad, *made[2:]], 2) if record]

    # THEN the bad record goes alone, and what is left over at the end goes too
    assert [(record.data, record.partition_key, record.readings) for record in sent] == [
        (b"bad", "a", 0),
        (b"a0\na1", "a", 2),
        (b"b0\nb1", "b", 2),
        (b"a2", "a", 1),
        (b"b2", "b", 1),
    ]


def test_a_pause_sends_on_what_is_gathered() -> None:
    # GIVEN / WHEN
    sent = list(packed([*records(b"a", b"b"), None, *records(b"c")], 10))

    # THEN
    assert [record and record.data for record in sent] == [b"a\nb", None, b"c"]


def test_a_packed_record_stays_within_what_kinesis_takes() -> None:
    # GIVEN readings of 4 bytes, and a key of 3
    made = records(*[b"1234"] * 7)

    # WHEN there is room for 3 with their line feeds
    sent = [record for record in packed(made, 100, most_bytes=18) if record]

    # THEN
    assert [record.readings for record in sent] == [3, 3, 1]
    assert all(len(record.data) + 3 <= 18 for record in sent)


# ---------------------------------------------------------------- pauses


def test_what_has_come_is_sent_although_nothing_more_comes() -> None:
    # GIVEN a source that waits after its first record
    more = threading.Event()

    def source() -> Iterator[Record]:
        yield from records(b"a")
        more.wait(30)
        yield from records(b"b")

    # WHEN
    seen = with_pauses(source(), linger_seconds=0.01)
    first = [next(seen), next(seen)]
    more.set()

    # THEN
    assert first == [*records(b"a"), None]
    assert [record for record in seen if record] == records(b"b")


def test_what_comes_slowly_and_steadily_is_sent_on_all_the_same() -> None:
    # GIVEN a source that never pauses for as long as the others may wait
    def source() -> Iterator[Record]:
        for _ in range(40):
            time.sleep(0.005)
            yield Record(b"x", "key")

    # WHEN
    seen = list(with_pauses(source(), linger_seconds=0.03))

    # THEN
    assert seen.count(None) >= 2
    assert len(seen) - seen.count(None) == 40


def test_what_goes_wrong_while_records_are_made_is_raised_after_a_pause() -> None:
    # GIVEN
    def source() -> Iterator[Record]:
        yield from records(b"a")
        raise OperatorError("line 2 is bad")

    # WHEN
    seen = with_pauses(source(), linger_seconds=30)

    # THEN
    assert [next(seen), next(seen)] == [*records(b"a"), None]
    with pytest.raises(OperatorError, match="line 2"):
        next(seen)


def test_pauses_grow_and_are_bounded() -> None:
    # GIVEN / WHEN no chance and full chance
    longest = [pause_seconds(attempt, lambda: 1.0) for attempt in range(1, 10)]
    shortest = [pause_seconds(attempt, lambda: 0.0) for attempt in range(1, 10)]

    # THEN
    assert longest == sorted(longest)
    assert longest[-1] == 5.0
    assert shortest == [pause / 2 for pause in longest]
