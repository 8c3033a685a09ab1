"""Put records on the stream so that each is acknowledged, and keep a ledger of what was.

PutRecords may fail in part: the answer has an entry for each record, in the same order, with an ``ErrorCode`` where it
failed. Only those are sent again, after a pause
(https://docs.aws.amazon.com/streams/latest/dev/developing-producers-with-sdk.html).
"""

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.console import OperatorError, counts_text
from telemetry_lake.ledger import Place
from telemetry_lake.readings import Record

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import PutRecordsRequestEntryTypeDef

# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html: 500 records; keys count as bytes. The
# whole request may have 5 MiB in older Regions' limits and more in newer ones: the smaller figure is right everywhere.
# A record may have 1 MiB unless its stream was changed to take more:
# https://docs.aws.amazon.com/streams/latest/dev/large-records.html
BATCH_RECORDS = 500
BATCH_BYTES = 5 * 1024 * 1024
RECORD_BYTES = 1024 * 1024
ATTEMPTS = 10
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
LINGER_SECONDS = 0.5
AHEAD_RECORDS = 1000
# Refusals of a whole request that pass: https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html
PASSING_REFUSALS = frozenset(
    {
        "InternalFailure",
        "KMSThrottlingException",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingException",
    }
)


@dataclass
class Delivery:
    """What a producer has sent: counts of acknowledged records, for each shard and each fault, and of repeats."""

    acknowledged: int = 0
    readings: int = 0
    bad: int = 0
    resent: int = 0
    by_shard: Counter[str] = field(default_factory=Counter)
    by_fault: Counter[str] = field(default_factory=Counter)
    first_sequence_number: dict[str, str] = field(default_factory=dict)
    last_sequence_number: dict[str, str] = field(default_factory=dict)

    def add(self, record: Record, place: Place) -> None:
        """Count one acknowledged record."""
        self.acknowledged += 1
        self.readings += record.readings
        self.by_shard[place.shard_id] += 1
        self.first_sequence_number.setdefault(place.shard_id, place.sequence_number)
        self.last_sequence_number[place.shard_id] = place.sequence_number
        if record.fault is not None:
            self.bad += 1
            self.by_fault[record.fault] += 1

    def text(self) -> str:
        """Return what was acknowledged, for a person: ``1,200 readings in 30 records, 2 of them bad``."""
        bad = f", {self.bad:,} of them bad" if self.bad else ""
        return f"{_counted(self.readings, 'reading')} in {_counted(self.acknowledged, 'record')}{bad}"


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


class Journal(Protocol):
    """Is told of each record before it is sent, and of its place afterwards; a `Ledger` is one."""

    def sending(self, records: Sequence[Record]) -> list[str]:
        """Take note of records that are about to be sent and return their names."""

    def acknowledged(self, places: Mapping[str, Place]) -> None:
        """Take note of where the records of these names are."""


class Producer:
    """Sends records to one stream in batches, and repeats what was not taken."""

    def __init__(
        self,
        client: "KinesisClient",
        stream_name: str,
        ledger: Journal | None = None,
        sleep: Callable[[float], None] = time.sleep,
        attempts: int = ATTEMPTS,
    ) -> None:
        """Send to ``stream_name``; what is sent and what is acknowledged is written to ``ledger`` at once."""
        self.delivery = Delivery()
        self._client = client
        self._stream_name = stream_name
        self._ledger = ledger
        self._sleep = sleep
        self._attempts = attempts

    def send(self, batch: Sequence[Record]) -> None:
        """Send one batch, and what failed of it again, until all of it is acknowledged.

        Raises:
            OperatorError: Kinesis refuses the request for good, or some records still after the last attempt.
        """
        waiting = dict(zip(self._names(batch), batch, strict=True))
        for attempt in range(self._attempts):
            if attempt > 0:
                self.delivery.resent += len(waiting)
                self._sleep(pause_seconds(attempt))
            places, errors = self._put(waiting)
            if self._ledger is not None:
                self._ledger.acknowledged(places)
            for name, place in places.items():
                self.delivery.add(waiting.pop(name), place)
            if not waiting:
                return
        raise OperatorError(
            f"Kinesis refused {len(waiting):,} of {len(batch):,} records {self._attempts} times "
            f"({counts_text(errors)}).",
            "Send more slowly (--rate), or give the stream more shards.",
        )

    def _names(self, batch: Sequence[Record]) -> list[str]:
        return self._ledger.sending(batch) if self._ledger is not None else [str(index) for index in range(len(batch))]

    def _put(self, waiting: Mapping[str, Record]) -> tuple[dict[str, Place], Counter[str]]:
        """Send once; return where the records are that were taken, and how often which error said that one was not."""
        entries: list[PutRecordsRequestEntryTypeDef] = [
            {"Data": record.data, "PartitionKey": record.partition_key} for record in waiting.values()
        ]
        try:
            response = self._client.put_records(StreamName=self._stream_name, Records=entries)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in PASSING_REFUSALS:
                return {}, Counter({code: len(waiting)})
            raise OperatorError(f"Kinesis refused the records: {code}: {error}", _next_step(code)) from error
        except BotoCoreError as error:
            raise OperatorError(f"Kinesis did not answer: {error}", "Check the network and tlake status.") from error
        places: dict[str, Place] = {}
        errors: Counter[str] = Counter()
        for name, answer in zip(waiting, response["Records"], strict=True):
            if answer.get("ErrorCode"):
                errors[answer["ErrorCode"]] += 1
            else:
                places[name] = Place(answer["ShardId"], answer["SequenceNumber"])
        return places, errors


def _next_step(code: str) -> str:
    if code in ("AccessDeniedException", "ExpiredTokenException", "UnrecognizedClientException"):
        return "Check the AWS variables: they have to belong to somebody who may kinesis:PutRecords on the stream."
    return "tlake status shows the stack."


def pause_seconds(attempt: int, chance: Callable[[], float] = random.random) -> float:
    """Return how long to wait before attempt number ``attempt``: longer each time, and by chance, so that many
    producers do not come back together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """  # noqa: D205
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**attempt) * (0.5 + 0.5 * chance())


def with_pauses(records: Iterable[Record], linger_seconds: float = LINGER_SECONDS) -> Iterator[Record | None]:
    """Yield records as they come, and None so long after the first one since the last None: time to send them.

    The records are made in a thread of their own. What goes wrong there is raised here, after None: what came before
    it is sent first.
    """
    made: queue.Queue[Record | BaseException | None] = queue.Queue(AHEAD_RECORDS)

    def make() -> None:
        try:
            for record in records:
                made.put(record)
            made.put(None)
        except BaseException as error:  # noqa: BLE001  raised where the records are used
            made.put(error)

    threading.Thread(target=make, name="records", daemon=True).start()
    due: float | None = None
    while True:
        try:
            if due is not None and due <= time.monotonic():
                raise queue.Empty
            each = made.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
        except queue.Empty:
            due = None
            yield None
            continue
        if each is None:
            return
        if isinstance(each, BaseException):
            yield None
            raise each
        if due is None:
            due = time.monotonic() + linger_seconds
        yield each


def packed(
    records: Iterable[Record | None], most_readings: int, most_bytes: int = RECORD_BYTES
) -> Iterator[Record | None]:
    """Put several readings of a device into one record, a line each; None sends on what was gathered.

    Firehose bills each record as 5 KB at least (https://aws.amazon.com/firehose/pricing/). The device stays the
    partition key, so its readings stay in order.
    """
    gathered: dict[str, list[Record]] = {}
    for record in records:
        if record is None:
            yield from map(_joined, gathered.values())
            gathered.clear()
            yield None
            continue
        if record.alone:
            yield record
            continue
        pack = gathered.setdefault(record.partition_key, [])
        if pack and _packed_bytes([*pack, record]) > most_bytes:
            yield _joined(pack)
            pack.clear()
        pack.append(record)
        if len(pack) == most_readings:
            yield _joined(gathered.pop(record.partition_key))
    yield from map(_joined, gathered.values())


def _packed_bytes(pack: Sequence[Record]) -> int:
    return sum(len(record.data) + 1 for record in pack) + len(pack[0].partition_key.encode())


def _joined(pack: Sequence[Record]) -> Record:
    first = pack[0]
    return Record(
        b"\n".join(record.data for record in pack),
        first.partition_key,
        readings=sum(record.readings for record in pack),
        where=first.where,
    )


def batches(
    records: Iterable[Record | None], most_records: int = BATCH_RECORDS, most_bytes: int = BATCH_BYTES
) -> Iterator[list[Record]]:
    """Cut records into batches that one PutRecords request may have; data and partition keys count as bytes.

    None ends a batch before it is full.

    Raises:
        OperatorError: Kinesis takes no record of this size; it is raised after everything before it.
    """
    batch: list[Record] = []
    batch_bytes = 0
    for record in records:
        if record is None:
            if batch:
                yield batch
            batch, batch_bytes = [], 0
            continue
        record_bytes = len(record.data) + len(record.partition_key.encode())
        too_large = record_bytes > RECORD_BYTES
        if batch and (too_large or len(batch) == most_records or batch_bytes + record_bytes > most_bytes):
            yield batch
            batch, batch_bytes = [], 0
        if too_large:
            raise OperatorError(
                f"{record.where or 'A record'}: {record_bytes:,} bytes with its key; Kinesis takes {RECORD_BYTES:,}.",
                "Cut it into several, a reading each.",
            )
        batch.append(record)
        batch_bytes += record_bytes
    if batch:
        yield batch


def paced(
    records: Iterable[Record],
    readings_per_second: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Record]:
    """Yield records no faster than ``readings_per_second``, evenly from the start."""
    started = clock()
    sent = 0
    for record in records:
        early_seconds = started + sent / readings_per_second - clock()
        if early_seconds > 0:
            sleep(early_seconds)
        yield record
        sent += max(1, record.readings)
