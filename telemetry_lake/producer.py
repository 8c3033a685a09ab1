"""Put records on the stream so that each is acknowledged, and keep a ledger of what was.

PutRecords may fail in part: the answer has an entry for each record, in the same order, with an ``ErrorCode`` where it
failed. Only those are sent again, after a pause
(https://docs.aws.amazon.com/streams/latest/dev/developing-producers-with-sdk.html).
"""

import base64
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from telemetry_lake.console import OperatorError, counts_text
from telemetry_lake.readings import Record

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import PutRecordsRequestEntryTypeDef

# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html: 500 records; keys count as bytes. The
# whole request may have 5 MiB in older Regions' limits and more in newer ones: the smaller figure is right everywhere.
BATCH_RECORDS = 500
BATCH_BYTES = 5 * 1024 * 1024
ATTEMPTS = 10
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class Acknowledged:
    """A record that Kinesis has taken, and where it is."""

    record: Record
    shard_id: str
    sequence_number: str

    def ledger_line(self) -> str:
        """Return its line in the ledger: shard, sequence number, partition key, data (base64 if it is not UTF-8)."""
        entry: dict[str, Any] = {
            "shard": self.shard_id,
            "sequence_number": self.sequence_number,
            "partition_key": self.record.partition_key,
        }
        try:
            entry["data"] = self.record.data.decode()
        except UnicodeDecodeError:
            entry["data_base64"] = base64.b64encode(self.record.data).decode()
        if self.record.fault is not None:
            entry["fault"] = self.record.fault
        return json.dumps(entry, ensure_ascii=False)


@dataclass
class Delivery:
    """What a producer has sent: counts of acknowledged records, for each shard and each fault, and of repeats."""

    acknowledged: int = 0
    bad: int = 0
    resent: int = 0
    by_shard: Counter[str] = field(default_factory=Counter)
    by_fault: Counter[str] = field(default_factory=Counter)
    first_sequence_number: dict[str, str] = field(default_factory=dict)
    last_sequence_number: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> int:
        """Acknowledged records that were sent as good ones."""
        return self.acknowledged - self.bad

    def add(self, taken: Acknowledged) -> None:
        """Count one acknowledged record."""
        self.acknowledged += 1
        self.by_shard[taken.shard_id] += 1
        self.first_sequence_number.setdefault(taken.shard_id, taken.sequence_number)
        self.last_sequence_number[taken.shard_id] = taken.sequence_number
        if taken.record.fault is not None:
            self.bad += 1
            self.by_fault[taken.record.fault] += 1


class Producer:
    """Sends records to one stream in batches, and repeats what was not taken."""

    def __init__(
        self,
        client: "KinesisClient",
        stream_name: str,
        ledger: IO[str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        attempts: int = ATTEMPTS,
    ) -> None:
        """Send to ``stream_name``; every acknowledged record is written to ``ledger`` at once."""
        self.delivery = Delivery()
        self._client = client
        self._stream_name = stream_name
        self._ledger = ledger
        self._sleep = sleep
        self._attempts = attempts

    def send(self, batch: Sequence[Record]) -> None:
        """Send one batch, and what failed of it again, until all of it is acknowledged.

        Raises:
            OperatorError: some records were still refused after the last attempt; none of them is in the ledger.
        """
        waiting = list(batch)
        for attempt in range(self._attempts):
            if attempt > 0:
                self.delivery.resent += len(waiting)
                self._sleep(pause_seconds(attempt))
            entries: list[PutRecordsRequestEntryTypeDef] = [
                {"Data": record.data, "PartitionKey": record.partition_key} for record in waiting
            ]
            response = self._client.put_records(StreamName=self._stream_name, Records=entries)
            failed: list[Record] = []
            errors: Counter[str] = Counter()
            for record, answer in zip(waiting, response["Records"], strict=True):
                if answer.get("ErrorCode"):
                    failed.append(record)
                    errors[answer["ErrorCode"]] += 1
                else:
                    self._take(Acknowledged(record, answer["ShardId"], answer["SequenceNumber"]))
            if self._ledger is not None:
                self._ledger.flush()
            if not failed:
                return
            waiting = failed
        raise OperatorError(
            f"Kinesis refused {len(waiting):,} of {len(batch):,} records {self._attempts} times "
            f"({counts_text(errors)}). {self.delivery.acknowledged:,} records were acknowledged.",
            "Send more slowly (--rate), or give the stream more shards.",
        )

    def _take(self, taken: Acknowledged) -> None:
        self.delivery.add(taken)
        if self._ledger is not None:
            self._ledger.write(taken.ledger_line() + "\n")


def pause_seconds(attempt: int, chance: Callable[[], float] = random.random) -> float:
    """Return how long to wait before attempt number ``attempt``: longer each time, and by chance, so that many
    producers do not come back together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """  # noqa: D205
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**attempt) * (0.5 + 0.5 * chance())


def batches(
    records: Iterable[Record], most_records: int = BATCH_RECORDS, most_bytes: int = BATCH_BYTES
) -> Iterator[list[Record]]:
    """Cut records into batches that one PutRecords request may have; data and partition keys count as bytes.

    A record that is too large alone makes a batch of its own: Kinesis says what is wrong with it.
    """
    batch: list[Record] = []
    batch_bytes = 0
    for record in records:
        record_bytes = len(record.data) + len(record.partition_key.encode())
        if batch and (len(batch) == most_records or batch_bytes + record_bytes > most_bytes):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(record)
        batch_bytes += record_bytes
    if batch:
        yield batch


def paced(
    records: Iterable[Record],
    records_per_second: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Record]:
    """Yield records no faster than ``records_per_second``, evenly from the start."""
    started = clock()
    for index, record in enumerate(records):
        early_seconds = started + index / records_per_second - clock()
        if early_seconds > 0:
            sleep(early_seconds)
        yield record


def batch_records_for(records_per_second: float | None) -> int:
    """Return how many records to gather for one request: what comes in half a second, so that none is sent late."""
    if records_per_second is None:
        return BATCH_RECORDS
    return max(1, min(BATCH_RECORDS, int(records_per_second / 2)))
