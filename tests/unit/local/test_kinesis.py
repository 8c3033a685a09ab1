"""Kinesis of the embedded endpoint: a shard's limits one by one, and the running service through plain boto3."""

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from telemetry_lake.local import kinesis
from telemetry_lake.local.record_log import NewRecord
from tests.unit.local.endpoint_process import ACCOUNT, EndpointProcess, wait_until

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE


# --- limits -----------------------------------------------------------------------------------------------------------
# https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html: a shard takes 1 MB and 1,000 records a
# second, and gives 2 MB in five calls of GetRecords


@pytest.mark.source("https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html")
def test_a_shard_takes_a_thousand_records_a_second() -> None:
    # GIVEN a producer that offers ten times as many, evenly, for ten seconds
    limits = kinesis.ShardLimits(now=0.0)

    # WHEN
    taken = sum(limits.admits_write(100, now=number / 10_000) for number in range(100_000))

    # THEN it takes what it has saved up for a second, and a thousand in each second
    assert 10_900 <= taken <= 11_000


@pytest.mark.source("https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html")
def test_a_shard_takes_a_mebibyte_a_second() -> None:
    # GIVEN ten times as many bytes, in records of 100 KiB
    limits = kinesis.ShardLimits(now=0.0)

    # WHEN
    taken = sum(limits.admits_write(100 * KIBIBYTE, now=number / 102.4) for number in range(1024))

    # THEN
    assert 10.5 * MEBIBYTE <= taken * 100 * KIBIBYTE <= 11 * MEBIBYTE


@pytest.mark.source("https://docs.aws.amazon.com/streams/latest/dev/large-records.html")
def test_a_record_of_more_than_a_second_is_taken_when_nothing_else_was_and_paid_back() -> None:
    # GIVEN https://docs.aws.amazon.com/streams/latest/dev/large-records.html: the throughput stays 1 MB/s
    limits = kinesis.ShardLimits(now=0.0)

    # WHEN / THEN
    assert limits.admits_write(10 * MEBIBYTE, now=0.0)
    assert not limits.admits_write(1, now=8.9)
    assert limits.admits_write(1, now=9.1)


@pytest.mark.source("https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html")
def test_a_shard_is_read_five_times_a_second() -> None:
    limits = kinesis.ShardLimits(now=0.0)
    assert sum(limits.admits_read(now=number / 100) for number in range(1000)) in range(54, 56)


@pytest.mark.source("https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html")
def test_after_ten_mebibytes_reads_are_refused() -> None:
    # https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html: "subsequent calls made within the
    # next 5 seconds throw ProvisionedThroughputExceededException" (here four: see the module's deviations)
    limits = kinesis.ShardLimits(now=0.0)
    assert limits.admits_read(now=0.0)
    limits.count_read(10 * MEBIBYTE)
    assert not limits.admits_read(now=3.9)
    assert limits.admits_read(now=4.1)


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html")
@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"Data": "eA=="}, "ValidationException"),
        ({"Data": "eA==", "PartitionKey": "k" * 257}, "ValidationException"),
        ({"Data": "no base64!", "PartitionKey": "k"}, "SerializationException"),
        ({"Data": "eA==", "PartitionKey": "k", "ExplicitHashKey": str(2**128)}, "InvalidArgumentException"),
    ],
)
def test_a_record_that_breaks_the_rules_is_refused(given: dict[str, Any], code: str) -> None:
    # https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html
    with pytest.raises(kinesis.RefusedError) as refused:
        kinesis.read_entry(given)
    assert refused.value.code == code


@pytest.mark.source("https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html")
@pytest.mark.parametrize(
    ("sizes", "most_kibibytes", "code"),
    [
        # https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html; the key is one byte
        ([1] * 500, 1024, None),
        ([1] * 501, 1024, "ValidationException"),
        ([], 1024, "ValidationException"),
        ([MEBIBYTE - 1], 1024, None),
        ([MEBIBYTE], 1024, "InvalidArgumentException"),
        ([MEBIBYTE], 2048, None),
        ([MEBIBYTE - 1] * 10, 1024, None),
        ([MEBIBYTE - 1] * 10 + [0], 1024, "InvalidArgumentException"),
    ],
)
def test_sizes(sizes: list[int], most_kibibytes: int, code: str | None) -> None:
    entries = [kinesis.Entry(NewRecord("k", b"x" * size), 0) for size in sizes]
    if code is None:
        kinesis.check_sizes(entries, most_kibibytes)
        return
    with pytest.raises(kinesis.RefusedError) as refused:
        kinesis.check_sizes(entries, most_kibibytes)
    assert refused.value.code == code


@pytest.mark.source("https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetShardIterator.html")
def test_an_iterator_is_valid_for_five_minutes() -> None:
    # https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetShardIterator.html
    text = kinesis.encode_iterator({"issued": 1000.0, "after": 7})
    assert kinesis.decode_iterator(text, now=1300.0)["after"] == 7
    with pytest.raises(kinesis.RefusedError) as refused:
        kinesis.decode_iterator(text, now=1300.1)
    assert refused.value.code == "ExpiredIteratorException"


@pytest.mark.source("https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html")
@pytest.mark.parametrize("text", [None, "", "no iterator", base64.b64encode(b"[]").decode()])
def test_what_is_no_iterator_is_refused(text: str | None) -> None:
    with pytest.raises(kinesis.RefusedError) as refused:
        kinesis.decode_iterator(text, now=0.0)
    assert refused.value.code == "InvalidArgumentException"


# --- the running service ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    endpoint = EndpointProcess(tmp_path_factory.mktemp("kinesis"))
    yield endpoint
    endpoint.stop()


def client(running: EndpointProcess) -> Any:
    """A client that repeats nothing by itself."""
    return running.client("kinesis", config=Config(retries={"total_max_attempts": 1, "mode": "standard"}))


def stream(running: EndpointProcess, name: str, shards: int = 1) -> Any:
    """Create a stream and return a client."""
    streams = client(running)
    streams.create_stream(StreamName=name, ShardCount=shards)
    streams.get_waiter("stream_exists").wait(StreamName=name)
    return streams


def read(streams: Any, name: str, shard_id: str = "shardId-000000000000", **position: Any) -> list[dict[str, Any]]:
    """Read a shard to its end."""
    iterator = streams.get_shard_iterator(
        StreamName=name, ShardId=shard_id, **(position or {"ShardIteratorType": "TRIM_HORIZON"})
    )["ShardIterator"]
    found: list[dict[str, Any]] = []
    while iterator:
        try:
            answer = streams.get_records(ShardIterator=iterator)
        except streams.exceptions.ProvisionedThroughputExceededException:
            time.sleep(0.5)
            continue
        found += answer["Records"]
        iterator = answer.get("NextShardIterator") if answer["MillisBehindLatest"] else None
    return found


def entries(count: int, size: int = 10) -> list[dict[str, Any]]:
    return [{"Data": f"{number:010}".encode().ljust(size), "PartitionKey": str(number)} for number in range(count)]


def metric(running: EndpointProcess, name: str, stream_name: str) -> float:
    return running.metric_sum("AWS/Kinesis", name, {"StreamName": stream_name})


@pytest.mark.source("https://docs.aws.amazon.com/streams/latest/dev/developing-producers-with-sdk.html")
def test_put_records_takes_what_the_shard_can_and_says_which_it_did_not(running: EndpointProcess) -> None:
    # GIVEN
    streams = stream(running, "many")

    # WHEN three thousand records come at once
    answers = [streams.put_records(StreamName="many", Records=entries(500)) for _ in range(6)]

    # THEN some are not taken; their entries say so as in the example of
    # https://docs.aws.amazon.com/streams/latest/dev/developing-producers-with-sdk.html
    results = [result for answer in answers for result in answer["Records"]]
    failed = [result for result in results if "ErrorCode" in result]
    taken = [result for result in results if "ErrorCode" not in result]
    assert failed
    assert sum(answer["FailedRecordCount"] for answer in answers) == len(failed)
    assert len(taken) >= 1000
    assert failed[0] == {
        "ErrorCode": "ProvisionedThroughputExceededException",
        "ErrorMessage": f"Rate exceeded for shard shardId-000000000000 in stream many under account {ACCOUNT}.",
    }

    # AND exactly the others are in the stream, in their order
    assert [record["SequenceNumber"] for record in read(streams, "many")] == [each["SequenceNumber"] for each in taken]

    # AND https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html counts both
    wait_until(lambda: metric(running, "WriteProvisionedThroughputExceeded", "many") == len(failed))
    assert metric(running, "PutRecords.ThrottledRecords", "many") == len(failed)
    assert metric(running, "IncomingRecords", "many") == metric(running, "PutRecords.SuccessfulRecords", "many")
    assert metric(running, "IncomingRecords", "many") == len(taken)


@pytest.mark.source("https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecord.html")
def test_put_record_throws(running: EndpointProcess) -> None:
    # GIVEN a shard of which everything is used up: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecord.html
    streams = stream(running, "one")
    streams.put_record(StreamName="one", Data=b"x" * (MEBIBYTE - 1), PartitionKey="k")

    # WHEN / THEN
    with pytest.raises(streams.exceptions.ProvisionedThroughputExceededException, match="Rate exceeded for shard"):
        streams.put_record(StreamName="one", Data=b"x" * (MEBIBYTE - 1), PartitionKey="k")


@pytest.mark.source("https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html")
def test_reads_beyond_the_limit_are_counted(running: EndpointProcess) -> None:
    # GIVEN a consumer that reads more often than five times a second
    streams = stream(running, "eager")
    iterator = streams.get_shard_iterator(
        StreamName="eager", ShardId="shardId-000000000000", ShardIteratorType="LATEST"
    )["ShardIterator"]

    # WHEN
    refused = 0
    for _ in range(20):
        try:
            streams.get_records(ShardIterator=iterator)
        except streams.exceptions.ProvisionedThroughputExceededException:
            refused += 1

    # THEN
    assert refused
    points = running.datapoints("AWS/Kinesis", "ReadProvisionedThroughputExceeded", {"StreamName": "eager"})
    assert sum(point["Sum"] for point in points) == refused
    assert sum(point["SampleCount"] for point in points) == 20
    assert {point["Unit"] for point in points} == {"Count"}


@pytest.mark.source("https://docs.aws.amazon.com/streams/latest/dev/large-records.html")
def test_larger_records_are_opted_into(running: EndpointProcess) -> None:
    # GIVEN https://docs.aws.amazon.com/streams/latest/dev/large-records.html
    streams = stream(running, "large")
    arn = streams.describe_stream_summary(StreamName="large")["StreamDescriptionSummary"]["StreamARN"]
    large = b"x" * 3 * MEBIBYTE
    with pytest.raises(streams.exceptions.InvalidArgumentException, match="1024 KiB"):
        streams.put_record(StreamName="large", Data=large, PartitionKey="k")

    # WHEN
    streams.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=4096)

    # THEN
    streams.put_record(StreamName="large", Data=large, PartitionKey="k")
    assert [record["Data"] for record in read(streams, "large")] == [large]
    summary = streams.describe_stream_summary(StreamName="large")["StreamDescriptionSummary"]
    assert summary["MaxRecordSizeInKiB"] == 4096


@pytest.mark.source("https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetShardIterator.html")
def test_iterators_begin_where_they_say(running: EndpointProcess) -> None:
    # GIVEN three records with moments between them
    streams = stream(running, "places")
    puts, moments = [], []
    for data in (b"a", b"b", b"c"):
        moments.append(time.time())
        puts.append(streams.put_record(StreamName="places", Data=data, PartitionKey="k")["SequenceNumber"])
        time.sleep(0.02)

    def found(**position: Any) -> list[bytes]:
        return [record["Data"] for record in read(streams, "places", **position)]

    # WHEN / THEN https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetShardIterator.html
    assert found(ShardIteratorType="TRIM_HORIZON") == [b"a", b"b", b"c"]
    assert found(ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber=puts[1]) == [b"b", b"c"]
    assert found(ShardIteratorType="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=puts[1]) == [b"c"]
    assert found(ShardIteratorType="AT_TIMESTAMP", Timestamp=moments[2]) == [b"c"]
    assert found(ShardIteratorType="LATEST") == []


@pytest.mark.source("https://docs.aws.amazon.com/streams/latest/dev/kinesis-using-sdk-java-after-resharding.html")
def test_a_split_shard_keeps_its_records_and_names_its_children(running: EndpointProcess) -> None:
    # GIVEN https://docs.aws.amazon.com/streams/latest/dev/kinesis-using-sdk-java-after-resharding.html
    streams = stream(running, "split")
    streams.put_record(StreamName="split", Data=b"before", PartitionKey="k")

    # WHEN it is split, and the halves are merged
    streams.split_shard(StreamName="split", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127))
    put = streams.put_record(StreamName="split", Data=b"between", PartitionKey="k")
    streams.merge_shards(
        StreamName="split", ShardToMerge="shardId-000000000001", AdjacentShardToMerge="shardId-000000000002"
    )
    streams.put_record(StreamName="split", Data=b"after", PartitionKey="k")

    # THEN each shard has what came while it was open
    assert [record["Data"] for record in read(streams, "split")] == [b"before"]
    assert [record["Data"] for record in read(streams, "split", put["ShardId"])] == [b"between"]
    assert [record["Data"] for record in read(streams, "split", "shardId-000000000003")] == [b"after"]

    # AND a closed one has an end, and no iterator behind it
    closed, *_, last = streams.list_shards(StreamName="split")["Shards"]
    assert "EndingSequenceNumber" in closed["SequenceNumberRange"]
    assert "EndingSequenceNumber" not in last["SequenceNumberRange"]
    assert (last["ParentShardId"], last["AdjacentParentShardId"]) == ("shardId-000000000001", "shardId-000000000002")
    iterator = streams.get_shard_iterator(
        StreamName="split", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    answer = streams.get_records(ShardIterator=iterator)
    assert "NextShardIterator" not in answer
    assert [child["ShardId"] for child in answer["ChildShards"]] == ["shardId-000000000001", "shardId-000000000002"]
    assert streams.describe_stream_summary(StreamName="split")["StreamDescriptionSummary"]["OpenShardCount"] == 1


@pytest.mark.own_machinery("refuses what it does not model")
@pytest.mark.parametrize("operation", ["update_shard_count", "subscribe_to_shard"])
def test_what_is_not_modelled_says_so(running: EndpointProcess, operation: str) -> None:
    arguments: dict[str, dict[str, Any]] = {
        "update_shard_count": {"StreamName": "x", "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"},
        "subscribe_to_shard": {
            "ConsumerARN": f"arn:aws:kinesis:ap-northeast-1:{ACCOUNT}:stream/x/consumer/c:1",
            "ShardId": "shardId-000000000000",
            "StartingPosition": {"Type": "LATEST"},
        },
    }
    with pytest.raises(ClientError, match="does not model"):
        getattr(client(running), operation)(**arguments[operation])


@pytest.mark.source("https://docs.aws.amazon.com/streams/latest/dev/key-concepts.html")
def test_records_are_there_after_a_restart_and_gone_with_their_stream(running: EndpointProcess) -> None:
    # GIVEN
    streams = stream(running, "restarted")
    streams.put_records(StreamName="restarted", Records=entries(100))
    before = read(streams, "restarted")
    assert len(before) == 100

    # WHEN
    running.stop()
    running.start()

    # THEN
    assert read(streams, "restarted") == before
    assert (
        streams.put_record(StreamName="restarted", Data=b"next", PartitionKey="k")["SequenceNumber"]
        > (before[-1]["SequenceNumber"])
    )

    # AND a stream of the same name begins empty
    streams.delete_stream(StreamName="restarted")
    stream(running, "restarted")
    assert read(streams, "restarted") == []
