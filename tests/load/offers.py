"""More than one shard takes, offered evenly by producers that repeat nothing, and what became of each record."""

import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from botocore.config import Config

from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

PRODUCERS = 4
DELIVERY_SECONDS = 900.0
LIMIT_RECORDS_PER_SECOND = 1000
LIMIT_BYTES_PER_SECOND = 1024 * 1024
BUCKET = "load"
# What a limit saved up, and what the clocks of two processes may differ by.
SPARE_SECONDS = 2.0


@dataclass(frozen=True)
class Offer:
    """What is offered: so many records of a size in a second, in requests of so many."""

    name: str
    record_bytes: int
    records_per_second: int
    request_records: int

    @property
    def taken_per_second(self) -> float:
        """How many records a shard takes of it in a second."""
        return min(LIMIT_RECORDS_PER_SECOND, LIMIT_BYTES_PER_SECOND / (self.record_bytes + 1))


OFFERS = (
    Offer("records", record_bytes=32, records_per_second=10_000, request_records=500),
    Offer("bytes", record_bytes=50 * 1024, records_per_second=205, request_records=41),
)


@dataclass
class Outcome:
    """What became of an offer: numbers of records."""

    seconds: float = 0.0
    offered: int = 0
    throttled: int = 0
    acknowledged: set[bytes] = field(default_factory=set)
    in_stream: Counter[bytes] = field(default_factory=Counter)
    delivered: Counter[bytes] = field(default_factory=Counter)

    def times_the_limit(self, offer: Offer) -> float:
        """Return how many times what a shard takes was offered; less than was wanted where producers are too slow."""
        return self.offered / (offer.taken_per_second * self.seconds)

    def findings(self, offer: Offer) -> list[str]:
        """Return what is not as on AWS, empty if all is well."""
        allowed = offer.taken_per_second * (self.seconds + SPARE_SECONDS)
        expected = 0.9 * min(self.offered, offer.taken_per_second * self.seconds)
        problems = {
            "acknowledged more than a shard takes": len(self.acknowledged) > allowed,
            "acknowledged less than a shard takes": len(self.acknowledged) < expected,
            "nothing was throttled, although more was offered": self.offered > allowed and not self.throttled,
            "records neither acknowledged nor throttled": len(self.acknowledged) + self.throttled != self.offered,
            "the stream has other records than were acknowledged": self.in_stream != Counter(self.acknowledged),
            "Firehose has not delivered what was acknowledged": self.delivered.keys() != self.acknowledged,
        }
        return [f"{offer.name}: {problem}" for problem, is_so in problems.items() if is_so]


def prepare(endpoint: EndpointProcess, offer: Offer) -> None:
    """Make a stream of one shard, and Firehose that delivers it into a bucket."""
    allowed = [(f"kinesis:{name}", "*") for name in ("DescribeStream", "GetShardIterator", "GetRecords", "ListShards")]
    role = endpoint.role(offer.name, "firehose.amazonaws.com", *allowed, ("s3:PutObject", "*"))
    endpoint.client("kinesis").create_stream(StreamName=offer.name, ShardCount=1)
    firehose = endpoint.client("firehose")
    firehose.create_delivery_stream(
        DeliveryStreamName=offer.name,
        DeliveryStreamType="KinesisStreamAsSource",
        KinesisStreamSourceConfiguration={
            "KinesisStreamARN": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{offer.name}",
            "RoleARN": role,
        },
        ExtendedS3DestinationConfiguration={
            "RoleARN": role,
            "BucketARN": f"arn:aws:s3:::{BUCKET}",
            "Prefix": f"{offer.name}/",
            "BufferingHints": {"SizeInMBs": 5, "IntervalInSeconds": 5},
        },
    )

    def is_active() -> bool:
        description = firehose.describe_delivery_stream(DeliveryStreamName=offer.name)
        return bool(description["DeliveryStreamDescription"]["DeliveryStreamStatus"] == "ACTIVE")

    wait_until(is_active, 60)


def produce(endpoint: EndpointProcess, offer: Offer, seconds: float) -> Outcome:
    """Offer records for so long; each of them has its number at its beginning, and a line end."""
    outcome = Outcome()
    lock = threading.Lock()
    requests = round(offer.records_per_second * seconds / offer.request_records)
    began = time.monotonic()

    def send(producer: int) -> None:
        client = endpoint.client("kinesis", config=Config(retries={"total_max_attempts": 1, "mode": "standard"}))
        for request in range(producer, requests, PRODUCERS):
            due = began + request * offer.request_records / offer.records_per_second
            time.sleep(max(0.0, due - time.monotonic()))
            first = request * offer.request_records
            names = [b"%012d" % number for number in range(first, first + offer.request_records)]
            answer = client.put_records(
                StreamName=offer.name,
                Records=[
                    {"Data": name.ljust(offer.record_bytes - 1, b".") + b"\n", "PartitionKey": "k"} for name in names
                ],
            )
            taken = [name for name, result in zip(names, answer["Records"], strict=True) if "ErrorCode" not in result]
            with lock:
                outcome.offered += len(names)
                outcome.throttled += len(names) - len(taken)
                outcome.acknowledged.update(taken)

    with ThreadPoolExecutor(PRODUCERS) as pool:
        list(pool.map(send, range(PRODUCERS)))
    outcome.seconds = time.monotonic() - began
    return outcome


def names_in(contents: Iterable[bytes]) -> Counter[bytes]:
    """Return the numbers at the beginning of lines."""
    return Counter(line[:12] for content in contents for line in content.split(b"\n") if line)


def read_stream(client: Any, name: str) -> Counter[bytes]:
    """Read the stream's only shard to its end, no faster than it gives."""
    iterator: str | None = client.get_shard_iterator(
        StreamName=name, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    found: Counter[bytes] = Counter()
    while iterator:
        try:
            answer = client.get_records(ShardIterator=iterator)
        except client.exceptions.ProvisionedThroughputExceededException:
            time.sleep(1.0)
            continue
        found += names_in(record["Data"] for record in answer["Records"])
        iterator = answer["NextShardIterator"] if answer["MillisBehindLatest"] else None
    return found


def read_objects(client: Any, prefix: str) -> Counter[bytes]:
    """Read every object below a prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    return names_in(client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys)


def settle(endpoint: EndpointProcess, offer: Offer, outcome: Outcome) -> None:
    """Look for what was acknowledged, in the stream and in the bucket, once Firehose has had its time."""
    outcome.in_stream = read_stream(endpoint.client("kinesis"), offer.name)
    s3 = endpoint.client("s3")
    deadline = time.monotonic() + DELIVERY_SECONDS
    while True:
        outcome.delivered = read_objects(s3, f"{offer.name}/")
        if outcome.delivered.keys() >= outcome.acknowledged or time.monotonic() > deadline:
            return
        time.sleep(2.0)
