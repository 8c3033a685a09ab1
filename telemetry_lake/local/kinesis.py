"""Amazon Kinesis Data Streams: records in files, for as long as the stream retains them, and the limits of a shard.

MiniStack keeps the streams and their settings; records, iterators, splits and merges are kept here. A record is in a
file before it is acknowledged, so that it is there after the endpoint was killed; what it still holds when it grows
older than the retention is deleted once a minute.

Known deviations from AWS:

* A shard's write limits are saved up for one second: AWS does not document over which time it measures. The same
  holds for reads: after a call that returned 10 MiB the next ones are refused for four seconds, on AWS for five.
* GetShardIterator and the operations on streams have no limits.
* A stream in on-demand mode has four shards, as a new one has on AWS, and never gets more.
* UpdateShardCount, SubscribeToShard, and event source mappings of Lambda functions on a stream are not modelled: the
  first two are refused, and a mapping sees no records. SplitShard and MergeShards are done when they answer.
* Records survive the end of the process, not of the machine: nothing is forced onto the disk.
* The texts of refusals are ours unless their source is cited.
"""

import base64
import binascii
import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint
from telemetry_lake.local.record_log import MEBIBYTE, NewRecord, Numbering, RecordLog, first_number_at

METRIC_NAMESPACE = "AWS/Kinesis"
# https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html: a shard's throughput
WRITE_BYTES_PER_SECOND = MEBIBYTE
WRITE_RECORDS_PER_SECOND = 1000
READ_BYTES_PER_SECOND = 2 * MEBIBYTE
READ_CALLS_PER_SECOND = 5
# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html: "up to 500 records", "up to a limit of
# 10 MiB for the entire request, including partition keys"
REQUEST_RECORDS = 500
REQUEST_BYTES = 10 * MEBIBYTE
KEY_CHARACTERS = 256
# "The default maximum record size for existing, and newly created streams is set to 1 MiB"
# (https://docs.aws.amazon.com/streams/latest/dev/large-records.html), with the key:
# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
DEFAULT_RECORD_KIBIBYTES = 1024
LARGEST_RECORD_KIBIBYTES = 10 * 1024
# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html
PAGE_RECORDS = 10_000
PAGE_BYTES = 10 * MEBIBYTE
# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetShardIterator.html
ITERATOR_SECONDS = 300
RETENTION_CHECK_SECONDS = 60.0

THROTTLED = "ProvisionedThroughputExceededException"

Response = tuple[int, dict[str, str], bytes]
Stream = dict[str, Any]
Shard = dict[str, Any]

logger = logging.getLogger("telemetry_lake.local.kinesis")


class RefusedError(ValueError):
    """A request that Kinesis answers with an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# --- limits -----------------------------------------------------------------------------------------------------------


class Allowance:
    """So much a second, saved up for one second at most; what exceeds it once is paid back before the next."""

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second = per_second
        self._level = per_second
        self._at = now

    def covers(self, amount: float, now: float) -> bool:
        """Tell whether ``amount`` may be taken; more than a second's worth when nothing of it is used."""
        self._level = min(self._per_second, self._level + max(0.0, now - self._at) * self._per_second)
        self._at = max(self._at, now)
        return self._level >= min(amount, self._per_second)

    def take(self, amount: float) -> None:
        """Take ``amount``, also more than there is."""
        self._level -= amount


class ShardLimits:
    """What a shard takes and gives in a second (times are those of a monotonic clock, in seconds)."""

    def __init__(self, now: float) -> None:
        self._write_bytes = Allowance(WRITE_BYTES_PER_SECOND, now)
        self._write_records = Allowance(WRITE_RECORDS_PER_SECOND, now)
        self._read_bytes = Allowance(READ_BYTES_PER_SECOND, now)
        self._read_calls = Allowance(READ_CALLS_PER_SECOND, now)

    def admits_write(self, size_bytes: int, now: float) -> bool:
        """Tell whether a record of this size, key included, is taken now, and count it if so."""
        if not (self._write_records.covers(1, now) and self._write_bytes.covers(size_bytes, now)):
            return False
        self._write_records.take(1)
        self._write_bytes.take(size_bytes)
        return True

    def admits_read(self, now: float) -> bool:
        """Tell whether GetRecords may read now, and count the call if so."""
        if not (self._read_calls.covers(1, now) and self._read_bytes.covers(1, now)):
            return False
        self._read_calls.take(1)
        return True

    def count_read(self, size_bytes: int) -> None:
        """Count what a call has returned."""
        self._read_bytes.take(size_bytes)


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One record of a put: its key and data, and the hash that decides the shard."""

    record: NewRecord
    hash_key: int

    @property
    def size_bytes(self) -> int:
        """What counts against the limits."""
        return len(self.record.data) + len(self.record.key.encode())


def read_entry(given: Mapping[str, Any]) -> Entry:
    """Read one record of PutRecord or PutRecords.

    Raises:
        RefusedError: the key is missing or too long, or something is not what it has to be.
    """
    key = given.get("PartitionKey")
    if not isinstance(key, str) or not 1 <= len(key) <= KEY_CHARACTERS:
        raise RefusedError("ValidationException", f"PartitionKey has to have 1 to {KEY_CHARACTERS} characters")
    try:
        data = base64.b64decode(given.get("Data") or "", validate=True)
    except binascii.Error:
        raise RefusedError("SerializationException", "Data is not base64") from None
    explicit = given.get("ExplicitHashKey")
    if explicit is not None and not (str(explicit).isdecimal() and int(explicit) < 2**128):
        raise RefusedError("InvalidArgumentException", f"ExplicitHashKey {explicit} is not a 128-bit integer")
    # "An MD5 hash function is used to map partition keys to 128-bit integer values"
    # (https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html).
    digest = hashlib.md5(key.encode(), usedforsecurity=False).digest()
    return Entry(NewRecord(key, data), int(explicit) if explicit is not None else int.from_bytes(digest))


def check_sizes(entries: Sequence[Entry], most_record_kibibytes: int) -> None:
    """Apply the limits of a request.

    Raises:
        RefusedError: a record, or all of them together, are too many bytes, or there are too many or none.
    """
    if not 1 <= len(entries) <= REQUEST_RECORDS:
        bound = f"less than or equal to {REQUEST_RECORDS}" if entries else "greater than or equal to 1"
        raise RefusedError(
            "ValidationException",
            "1 validation error detected: Value at 'records' failed to satisfy constraint: "
            f"Member must have length {bound}",
        )
    for entry in entries:
        if entry.size_bytes > most_record_kibibytes * 1024:
            raise RefusedError(
                "InvalidArgumentException",
                f"A record of {entry.size_bytes} bytes, its partition key included, exceeds the stream's maximum "
                f"record size of {most_record_kibibytes} KiB",
            )
    if sum(entry.size_bytes for entry in entries) > REQUEST_BYTES:
        raise RefusedError("InvalidArgumentException", f"Records size exceeds {REQUEST_BYTES // MEBIBYTE} MiB limit")


def encode_iterator(position: Mapping[str, Any]) -> str:
    """Make the text of an iterator; nothing is kept of it."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def decode_iterator(text: Any, now: float) -> dict[str, Any]:
    """Read an iterator.

    Raises:
        RefusedError: it is none, or older than five minutes.
    """
    try:
        position: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text))
        age = now - position["issued"]
    except (TypeError, ValueError, KeyError):
        raise RefusedError("InvalidArgumentException", "Invalid ShardIterator.") from None
    if age > ITERATOR_SECONDS:
        raise RefusedError(
            "ExpiredIteratorException", f"Iterator expired: it is {age:.0f} s old, {ITERATOR_SECONDS} s at most"
        )
    return position


# --- the service ------------------------------------------------------------------------------------------------------


def _directory_name(shard_id: str, shard: Shard) -> str:
    # The number tells a shard from that of an earlier stream of the same name.
    return f"{shard_id}-{shard['starting_sequence_number']}"


def _oldest_milliseconds(stream: Stream) -> int:
    """Return the time before which nothing is retained, in milliseconds since 1970."""
    return int((time.time() - float(stream["RetentionPeriodHours"]) * 3600) * 1000)


def _is_open(shard: Shard) -> bool:
    return "ending_sequence_number" not in shard


def _children(stream: Stream, shard_id: str) -> list[str]:
    return [
        name
        for name, shard in sorted(stream["shards"].items())
        if shard_id in (shard["parent_shard_id"], shard["adjacent_parent_shard_id"])
    ]


class Kinesis:
    """The operations that deal with records and shards, in place of MiniStack's."""

    def __init__(self, endpoint: Endpoint, service: Any) -> None:
        self._endpoint = endpoint
        self._service = service
        self._root: Path = endpoint.settings.state_directory / "kinesis"
        self._numbering = Numbering()
        self._logs: dict[Path, RecordLog] = {}
        self._limits: dict[Path, ShardLimits] = {}
        self._lock = threading.Lock()
        self._streams = seams.require(service, "_streams")
        self._resolve = seams.require(service, "_resolve_stream")
        self._shard_description = seams.require(service, "_shard_out")
        self._summary = seams.require(service, "_describe_stream_summary")

    def install(self) -> None:
        """Take the operations over, and delete what is no longer retained once a minute."""
        for name, operation in (
            ("_put_record", self.put_record),
            ("_put_records", self.put_records),
            ("_get_shard_iterator", self.get_shard_iterator),
            ("_get_records", self.get_records),
            ("_split_shard", self.split_shard),
            ("_merge_shards", self.merge_shards),
            ("_update_shard_count", self.not_modelled),
            ("_describe_stream_summary", self.describe_stream_summary),
        ):
            seams.replace(self._service, name, self._answering(operation))
        seams.replace(
            self._service, "_subscribe_to_shard", lambda _data, _is_cbor: self._answering(self.not_modelled)({})
        )
        seams.replace(self._service, "_shard_out", self.describe_shard)
        seams.replace(self._service, "_next_sequence_number", lambda: str(self._numbering.next()))
        seams.replace(self._service, "put_record_internal", self.put_internally)
        seams.replace(self._service, "_expire_records", lambda _stream: None)
        original = seams.require(self._service, "handle_request")

        async def handle_request(method: str, path: str, headers: Mapping[str, str], body: bytes, query: Any) -> Any:
            if headers.get("x-amz-target", "").endswith(".UpdateMaxRecordSize"):
                return self._answering(self.update_max_record_size)(json.loads(body))
            return await original(method, path, headers, body, query)

        seams.replace(self._service, "handle_request", handle_request)
        self._endpoint.start_worker("kinesis-retention", self._retain)

    def _answering(self, operation: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], Response]:
        def answer(request: dict[str, Any]) -> Response:
            try:
                response: Response = self._service.json_response(operation(request))
            except RefusedError as problem:
                response = self._service.error_response_json(problem.code, str(problem), 400)
            return response

        return answer

    def not_modelled(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Refuse an operation; see the deviations.

        Raises:
            RefusedError: always.
        """
        raise RefusedError("ValidationException", "The embedded endpoint does not model this operation")

    # streams and shards

    def _stream(self, request: Mapping[str, Any]) -> Stream:
        name, stream = self._resolve(request)
        if stream is None:
            account_id = self._endpoint.settings.account_id
            raise RefusedError("ResourceNotFoundException", f"Stream {name} under account {account_id} not found.")
        found: Stream = stream
        return found

    def _path(self, stream: Stream, shard_id: str) -> Path:
        return self._root / str(stream["StreamName"]) / _directory_name(shard_id, stream["shards"][shard_id])

    def _log(self, stream: Stream, shard_id: str) -> RecordLog:
        path = self._path(stream, shard_id)
        with self._lock:
            if path not in self._logs:
                self._logs[path] = RecordLog(path, self._numbering)
            return self._logs[path]

    def _limit(self, stream: Stream, shard_id: str) -> ShardLimits:
        path = self._path(stream, shard_id)
        if path not in self._limits:
            self._limits[path] = ShardLimits(time.monotonic())
        return self._limits[path]

    def _shard(self, stream: Stream, shard_id: Any) -> Shard:
        shard: Shard | None = stream["shards"].get(shard_id)
        if shard is None:
            raise RefusedError(
                "ResourceNotFoundException",
                f"Shard {shard_id} in stream {stream['StreamName']} under account "
                f"{self._endpoint.settings.account_id} does not exist",
            )
        return shard

    def describe_shard(self, shard_id: str, shard: Shard) -> dict[str, Any]:
        """Describe a shard; one that was split or merged has an end.

        https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SequenceNumberRange.html
        """
        description: dict[str, Any] = self._shard_description(shard_id, shard)
        if not _is_open(shard):
            description["SequenceNumberRange"]["EndingSequenceNumber"] = shard["ending_sequence_number"]
        return description

    def describe_stream_summary(self, request: dict[str, Any]) -> dict[str, Any]:
        """DescribeStreamSummary, which counts open shards and tells the largest record.

        https://docs.aws.amazon.com/kinesis/latest/APIReference/API_StreamDescriptionSummary.html
        """
        stream = self._stream(request)
        document: dict[str, Any] = json.loads(self._summary(request)[2])
        document["StreamDescriptionSummary"] |= {
            "OpenShardCount": sum(map(_is_open, stream["shards"].values())),
            "MaxRecordSizeInKiB": stream.get("MaxRecordSizeInKiB", DEFAULT_RECORD_KIBIBYTES),
        }
        return document

    def update_max_record_size(self, request: dict[str, Any]) -> dict[str, Any]:
        """UpdateMaxRecordSize: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_UpdateMaxRecordSize.html."""
        stream = self._stream(request)
        size = request.get("MaxRecordSizeInKiB")
        if not isinstance(size, int) or not DEFAULT_RECORD_KIBIBYTES <= size <= LARGEST_RECORD_KIBIBYTES:
            raise RefusedError("ValidationException", "MaxRecordSizeInKiB has to be between 1024 and 10240")
        stream["MaxRecordSizeInKiB"] = size
        return {}

    def _new_shard(self, stream: Stream, first: int, last: int, parents: Sequence[str]) -> None:
        number = 1 + max(int(shard_id.split("-")[1]) for shard_id in stream["shards"])
        stream["shards"][f"shardId-{number:012d}"] = {
            "records": [],
            "starting_hash_key": str(first),
            "ending_hash_key": str(last),
            "starting_sequence_number": str(self._numbering.next()),
            "parent_shard_id": parents[0],
            "adjacent_parent_shard_id": parents[1] if len(parents) > 1 else None,
        }

    def _close(self, shard: Shard) -> None:
        shard["ending_sequence_number"] = str(self._numbering.next())
        shard["closed_at"] = time.time()

    def split_shard(self, request: dict[str, Any]) -> dict[str, Any]:
        """SplitShard: the parent keeps its records, and takes no more.

        https://docs.aws.amazon.com/streams/latest/dev/kinesis-using-sdk-java-after-resharding.html
        """
        stream = self._stream(request)
        shard_id = request.get("ShardToSplit")
        shard = self._shard(stream, shard_id)
        first, last = int(shard["starting_hash_key"]), int(shard["ending_hash_key"])
        middle = int(request.get("NewStartingHashKey") or 0)
        if not _is_open(shard) or not first < middle <= last:
            raise RefusedError("InvalidArgumentException", f"{shard_id} cannot be split at {middle}")
        self._close(shard)
        self._new_shard(stream, first, middle - 1, [str(shard_id)])
        self._new_shard(stream, middle, last, [str(shard_id)])
        return {}

    def merge_shards(self, request: dict[str, Any]) -> dict[str, Any]:
        """MergeShards: the parents keep their records, and take no more."""
        stream = self._stream(request)
        shard_ids = [request.get("ShardToMerge"), request.get("AdjacentShardToMerge")]
        shards = [self._shard(stream, shard_id) for shard_id in shard_ids]
        (_, first_end), (second_start, _) = sorted(
            (int(shard["starting_hash_key"]), int(shard["ending_hash_key"])) for shard in shards
        )
        if not all(map(_is_open, shards)) or first_end + 1 != second_start:
            raise RefusedError("InvalidArgumentException", f"{shard_ids} are not adjacent open shards")
        for shard in shards:
            self._close(shard)
        edges = [int(shard[edge]) for shard in shards for edge in ("starting_hash_key", "ending_hash_key")]
        self._new_shard(stream, min(edges), max(edges), [str(shard_id) for shard_id in shard_ids])
        return {}

    # puts

    def _route(self, stream: Stream, hash_key: int) -> str:
        for shard_id, shard in stream["shards"].items():
            if _is_open(shard) and int(shard["starting_hash_key"]) <= hash_key <= int(shard["ending_hash_key"]):
                return str(shard_id)
        raise LookupError(f"no shard of {stream['StreamName']} has the hash key {hash_key}")

    def _admitted(self, stream: Stream, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        """Store what the shards' limits let through; return each record's place, or why it has none."""
        now = time.monotonic()
        results: list[dict[str, Any]] = []
        taken: dict[str, list[tuple[dict[str, Any], NewRecord]]] = {}
        for entry in entries:
            shard_id = self._route(stream, entry.hash_key)
            if self._limit(stream, shard_id).admits_write(entry.size_bytes, now):
                results.append({"ShardId": shard_id})
                taken.setdefault(shard_id, []).append((results[-1], entry.record))
                continue
            # The wording: https://docs.aws.amazon.com/streams/latest/dev/developing-producers-with-sdk.html
            results.append(
                {
                    "ErrorCode": THROTTLED,
                    "ErrorMessage": f"Rate exceeded for shard {shard_id} in stream {stream['StreamName']} under "
                    f"account {self._endpoint.settings.account_id}.",
                }
            )
        for shard_id, of_shard in taken.items():
            stored = self._log(stream, shard_id).append([record for _, record in of_shard])
            for (result, _), record in zip(of_shard, stored, strict=True):
                result["SequenceNumber"] = str(record.number)
        return results

    def _count_put(
        self, operation: str, stream: Stream, entries: Sequence[Entry], results: Sequence[Mapping[str, Any]]
    ) -> None:
        """Count what was taken and what was not.

        See https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html.
        """
        taken = [len(entry.record.data) for entry, result in zip(entries, results, strict=True) if "ShardId" in result]
        throttled = len(entries) - len(taken)
        counts: dict[str, float] = {
            "IncomingRecords": len(taken),
            f"{operation}.Success": 1 if taken else 0,
            "WriteProvisionedThroughputExceeded": throttled,
        }
        if operation == "PutRecords":
            counts |= {
                "PutRecords.TotalRecords": len(entries),
                "PutRecords.SuccessfulRecords": len(taken),
                "PutRecords.FailedRecords": 0,
                "PutRecords.ThrottledRecords": throttled,
            }
        sizes = {"IncomingBytes": sum(taken), f"{operation}.Bytes": sum(taken)}
        self._measure(
            stream,
            [
                *((name, value, "Count") for name, value in counts.items()),
                *((name, value, "Bytes") for name, value in sizes.items()),
            ],
        )

    def _measure(self, stream: Stream, values: Sequence[tuple[str, float, str]]) -> None:
        for name, value, unit in values:
            self._endpoint.put_metric(METRIC_NAMESPACE, name, value, unit, {"StreamName": stream["StreamName"]})

    def put_record(self, request: dict[str, Any]) -> dict[str, Any]:
        """PutRecord: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecord.html."""
        stream = self._stream(request)
        entries = [read_entry(request)]
        check_sizes(entries, stream.get("MaxRecordSizeInKiB", DEFAULT_RECORD_KIBIBYTES))
        [result] = results = self._admitted(stream, entries)
        self._count_put("PutRecord", stream, entries, results)
        if "ErrorCode" in result:
            raise RefusedError(result["ErrorCode"], result["ErrorMessage"])
        return {**result, "EncryptionType": stream["EncryptionType"]}

    def put_records(self, request: dict[str, Any]) -> dict[str, Any]:
        """PutRecords: a record that is not taken does not keep the others from being taken.

        https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
        """
        stream = self._stream(request)
        entries = [read_entry(given) for given in request.get("Records") or []]
        check_sizes(entries, stream.get("MaxRecordSizeInKiB", DEFAULT_RECORD_KIBIBYTES))
        results = self._admitted(stream, entries)
        self._count_put("PutRecords", stream, entries, results)
        return {
            "FailedRecordCount": sum("ErrorCode" in result for result in results),
            "Records": results,
            "EncryptionType": stream["EncryptionType"],
        }

    def put_internally(self, stream_arn: str, partition_key: str, data: bytes) -> bool:
        """Put a record of another service of MiniStack; tell whether it was taken."""
        request = {"StreamARN": stream_arn, "PartitionKey": partition_key, "Data": base64.b64encode(data).decode()}
        return bool(self._answering(self.put_record)(request)[0] == 200)  # noqa: PLR2004

    # reads

    def _oldest_number(self, stream: Stream) -> int:
        """Return the number before which everything is older than the retention."""
        return first_number_at(_oldest_milliseconds(stream))

    def _iterator(self, stream: Stream, shard_id: str, after: int) -> str:
        position = {"stream": stream["StreamARN"], "shard": shard_id, "after": after, "issued": time.time()}
        return encode_iterator(position)

    def get_shard_iterator(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetShardIterator: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetShardIterator.html."""
        stream = self._stream(request)
        shard_id = str(request.get("ShardId"))
        self._shard(stream, shard_id)
        kind = request.get("ShardIteratorType")
        try:
            starts: dict[str, Callable[[], int]] = {
                "TRIM_HORIZON": lambda: 0,
                "LATEST": lambda: self._log(stream, shard_id).last_number,
                "AT_SEQUENCE_NUMBER": lambda: int(request["StartingSequenceNumber"]) - 1,
                "AFTER_SEQUENCE_NUMBER": lambda: int(request["StartingSequenceNumber"]),
                "AT_TIMESTAMP": lambda: first_number_at(round(float(request["Timestamp"]) * 1000)) - 1,
            }
            after = starts[str(kind)]()
        except (KeyError, TypeError, ValueError):
            raise RefusedError("InvalidArgumentException", f"ShardIteratorType {kind} lacks what it needs") from None
        return {"ShardIterator": self._iterator(stream, shard_id, after)}

    def get_records(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetRecords: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html."""
        position = decode_iterator(request.get("ShardIterator"), time.time())
        stream = self._stream({"StreamARN": position["stream"]})
        shard_id = position["shard"]
        shard = self._shard(stream, shard_id)
        limits = self._limit(stream, shard_id)
        if not limits.admits_read(time.monotonic()):
            self._measure(
                stream, [("ReadProvisionedThroughputExceeded", 1, "Count"), ("GetRecords.Success", 0, "Count")]
            )
            raise RefusedError(
                THROTTLED,
                f"Rate exceeded for shard {shard_id} in stream {stream['StreamName']} under account "
                f"{self._endpoint.settings.account_id}.",
            )
        log = self._log(stream, shard_id)
        most = min(int(request.get("Limit") or PAGE_RECORDS), PAGE_RECORDS)
        after = max(position["after"], self._oldest_number(stream) - 1)
        records = log.read(after, most, PAGE_BYTES)
        after = records[-1].number if records else position["after"]
        size = sum(len(record.data) for record in records)
        limits.count_read(size)
        now = time.time()
        behind = 0
        if records and log.last_number > after:
            behind = max(1, int(now * 1000) - records[-1].arrival_milliseconds)
        age = int(now * 1000) - records[-1].arrival_milliseconds if records else 0
        self._measure(
            stream,
            [
                ("GetRecords.IteratorAgeMilliseconds", max(age, 0), "Milliseconds"),
                ("GetRecords.Records", len(records), "Count"),
                ("GetRecords.Bytes", size, "Bytes"),
                ("GetRecords.Success", 1, "Count"),
                ("ReadProvisionedThroughputExceeded", 0, "Count"),
            ],
        )
        answer: dict[str, Any] = {
            "Records": [
                {
                    "SequenceNumber": str(record.number),
                    "ApproximateArrivalTimestamp": record.arrival_milliseconds / 1000,
                    "Data": base64.b64encode(record.data).decode(),
                    "PartitionKey": record.key,
                    "EncryptionType": stream["EncryptionType"],
                }
                for record in records
            ],
            "MillisBehindLatest": behind,
        }
        if _is_open(shard) or behind:
            answer["NextShardIterator"] = self._iterator(stream, shard_id, after)
        else:
            answer["ChildShards"] = [self._child(stream, child) for child in _children(stream, shard_id)]
        return answer

    def _child(self, stream: Stream, shard_id: str) -> dict[str, Any]:
        description = self.describe_shard(shard_id, stream["shards"][shard_id])
        parents = [description[name] for name in ("ParentShardId", "AdjacentParentShardId") if name in description]
        return {"ShardId": shard_id, "ParentShards": parents, "HashKeyRange": description["HashKeyRange"]}

    # retention

    def _retain(self, stopping: threading.Event) -> None:
        while True:
            with self._endpoint.scope():
                self.delete_what_is_too_old()
            if stopping.wait(RETENTION_CHECK_SECONDS):
                return

    def delete_what_is_too_old(self) -> None:
        """Delete records beyond the retention, closed shards that hold none, and what deleted streams have left."""
        # The directories first: what is made from here on is not looked at.
        left = {path for path in self._root.glob("*/*") if path.is_dir()}
        for stream in list(self._streams.values()):
            oldest = _oldest_milliseconds(stream)
            for shard_id, shard in list(stream["shards"].items()):
                path = self._path(stream, shard_id)
                left.discard(path)
                self._log(stream, shard_id).trim(oldest)
                if not _is_open(shard) and shard["closed_at"] * 1000 < oldest:
                    del stream["shards"][shard_id]
                    left.add(path)
        for path in left:
            logger.info("deleting %s: no shard has it any more", path)
            with self._lock:
                self._logs.pop(path, None)
                self._limits.pop(path, None)
            shutil.rmtree(path)


def install(endpoint: Endpoint) -> None:
    """Put the records of streams into files."""
    from ministack.services import kinesis as service

    Kinesis(endpoint, service).install()
