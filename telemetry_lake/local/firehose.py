"""Amazon Data Firehose: from a Kinesis stream or direct puts, through a Lambda function, into S3 objects.

MiniStack keeps the delivery streams and their API; what happens to a record is done here: an own reader of the
source's shards, the buffer in front of the Lambda function, the buffer in front of S3, error objects, retries,
error log and metrics. Every call goes through a session of the role that the delivery stream names.

Known deviations from AWS:

* The Lambda function is invoked for one batch at a time; AWS reads the shards in parallel.
* A batch is cut so that its request stays under Lambda's 6 MB; how AWS cuts many small records is not documented.
* Reading starts with the millisecond of the creation instead of an iterator of type ``LATEST``: the same records,
  and an expiring iterator cannot lose any. Shards are looked up every ten seconds, without parents before children.
* Function errors are retried like timeouts and throttles (AWS documents the latter two; error objects of AWS with
  ``attemptsMade`` 4 and ``Lambda.FunctionError`` show the former). The pauses between attempts, and between
  attempts to put an object, are ours; AWS does not document them.
* A batch whose answer breaks the status model fails as a whole with ``Lambda.JsonProcessingException``; record ids
  that are returned twice, or not at all, fail the records concerned.
* An ``ErrorOutputPrefix`` without expressions gets ``<type>/yyyy/MM/dd/HH/`` appended, as AWS documents it for the
  case that only ``Prefix`` is given.
* Error objects are compressed like data objects; the documentation is silent about it.
* A put that failed is tried again under the same key, so that a put that succeeded unnoticed is no duplicate.
  It is tried for as long as it takes; AWS gives up after 24 hours (direct puts) or the retention (Kinesis).
* On a graceful stop everything that is buffered is delivered early. What was not delivered by then, or when the
  endpoint is killed, is read again after the restart (at least once, as on AWS): from the Kinesis stream, or from the
  files in which direct puts are before they are acknowledged.
* Reading pauses while 64 MiB wait for delivery; AWS raises the buffer size instead.
* KPL aggregates are not taken apart. Dynamic partitioning, format conversion, source backup, processors other than
  Lambda, and compressions other than GZIP are refused when the delivery stream is created, with a message that says so.
* ``sts:ExternalId`` is not presented when a role is assumed.
* Metrics that AWS gives per minute (``KinesisMillisBehindLatest``, ``DeliveryToS3.DataFreshness`` of what waits) are
  given per minute here too, without a value while nothing happens.
"""

import asyncio
import base64
import binascii
import gzip
import json
import logging
import re
import secrets
import shutil
import threading
import time
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

from telemetry_lake.local import seams
from telemetry_lake.local.disturbances import REDELIVERIES, Redelivery
from telemetry_lake.local.endpoint import Endpoint, TrustError
from telemetry_lake.local.record_log import NewRecord, Numbering, RecordLog, StoredRecord

SERVICE_PRINCIPAL = "firehose.amazonaws.com"
RESOURCE_TYPE = "AWS::KinesisFirehose::DeliveryStream"
METRIC_NAMESPACE = "AWS/Firehose"

MEBIBYTE = 1024 * 1024
# Lambda's quota for a synchronous request and for its answer, as its error messages give it in bytes
# (https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: "6 MB each").
LAMBDA_PAYLOAD_BYTES = 6_291_556
# "Amazon Data Firehose supports a Lambda invocation time of up to 5 minutes"
# (https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html).
LAMBDA_INVOCATION_SECONDS = 300
# https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html
PUT_RECORD_BATCH_BYTES = 4 * MEBIBYTE

# "Amazon Data Firehose calls the Kinesis Data Streams GetRecords operation once per second for each shard"
# (https://docs.aws.amazon.com/firehose/latest/dev/writing-with-kinesis-streams.html).
POLL_SECONDS = 1.0
# Records that were put directly lie in one place, which has the part of a shard.
DIRECT_PUTS = "direct-puts"
DIRECT_PUT_PAGE_RECORDS = 10_000
DIRECT_PUT_PAGE_BYTES = 10 * MEBIBYTE
SHARD_LOOKUP_SECONDS = 10.0
TICK_SECONDS = 0.15
METRIC_SECONDS = 60.0
READ_AHEAD_BYTES = 64 * MEBIBYTE
LONGEST_RETRY_PAUSE_SECONDS = 30.0
ACTIVATION_SECONDS = 60.0
STOP_SECONDS = 10.0

PROCESSING_FAILED = "processing-failed"

# The code of a failure and the sentence that goes with it
# (https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-logs.html).
MESSAGES = {
    "Lambda.AssumeRoleAccessDenied": (
        "Access was denied. Ensure that the trust policy for the provided IAM role allows Firehose to assume the role."
    ),
    "Lambda.InvokeAccessDenied": (
        "Access was denied. Ensure that the access policy allows access to the Lambda function."
    ),
    "Lambda.JsonProcessingException": (
        "There was an error parsing returned records from the Lambda function. Ensure that the returned records "
        "follow the status model required by Amazon Data Firehose."
    ),
    "Lambda.InvokeLimitExceeded": (
        "The Lambda concurrent execution limit is exceeded. Increase the concurrent execution limit."
    ),
    "Lambda.DuplicatedRecordId": (
        "Multiple records were returned with the same record ID. Ensure that the Lambda function returns unique "
        "record IDs for each record."
    ),
    "Lambda.MissingRecordId": (
        "One or more record IDs were not returned. Ensure that the Lambda function returns all received record IDs."
    ),
    "Lambda.ResourceNotFound": (
        "The specified Lambda function does not exist. Use a different function that does exist."
    ),
    "Lambda.FunctionTimedOut": "The Lambda invocation did not end within five minutes.",
    "Lambda.FunctionError": "The Lambda function was successfully invoked but it returned an error result.",
    "Lambda.ProcessingFailedStatus": "ProcessingFailed status set for record",
    "S3.AccessDenied": (
        "Access was denied. Ensure that the trust policy for the provided IAM role allows Firehose to assume the "
        "role, and the access policy allows access to the S3 bucket."
    ),
    "S3.NoSuchBucket": (
        "The specified bucket does not exist. Create the bucket or use a different bucket that does exist."
    ),
    "InternalError": "An internal error occurred while attempting to deliver data. Delivery will be retried.",
}

logger = logging.getLogger("telemetry_lake.local.firehose")

Response = tuple[int, dict[str, str], bytes]
Item = TypeVar("Item")


class ConfigurationError(ValueError):
    """A delivery stream asks for something that AWS refuses, or that this endpoint does not model."""


class StatusModelError(ValueError):
    """The Lambda function's answer does not follow the status model."""


# --- settings -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProcessorSettings:
    """How records pass the Lambda function (https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html).

    ``retries`` counts the invocations after the first one.
    """

    lambda_arn: str
    role_arn: str | None
    buffer_bytes: int
    buffer_seconds: float
    retries: int


@dataclass(frozen=True)
class DestinationSettings:
    """An S3 destination (https://docs.aws.amazon.com/firehose/latest/APIReference/API_ExtendedS3DestinationConfiguration.html)."""

    role_arn: str
    bucket: str
    prefix: str
    error_prefix: str
    buffer_bytes: int
    buffer_seconds: float
    gzipped: bool
    file_extension: str
    time_zone: ZoneInfo
    kms_key_arn: str | None
    log_group: str | None
    log_stream: str | None
    processor: ProcessorSettings | None


def _flag(value: Any) -> bool:
    """Read a boolean that may come from CloudFormation as text."""
    return value if isinstance(value, bool) else str(value).lower() == "true"


def _number(value: Any, name: str, low: float, high: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name} has to be a number, not {value!r}") from None
    if not low <= number <= high:
        raise ConfigurationError(f"{name} has to be between {low:g} and {high:g}, not {number:g}")
    return number


def _processor(configuration: Mapping[str, Any]) -> ProcessorSettings | None:
    processing = configuration.get("ProcessingConfiguration") or {}
    if not _flag(processing.get("Enabled", False)):
        return None
    processors = processing.get("Processors") or []
    if len(processors) != 1 or processors[0].get("Type") != "Lambda":
        kinds = ", ".join(str(processor.get("Type")) for processor in processors) or "none"
        raise ConfigurationError(f"The embedded endpoint models exactly one processor of type Lambda, not: {kinds}")
    given = {
        parameter["ParameterName"]: parameter["ParameterValue"] for parameter in processors[0].get("Parameters") or []
    }
    if "LambdaArn" not in given:
        raise ConfigurationError("A processor of type Lambda needs the parameter LambdaArn")
    return ProcessorSettings(
        lambda_arn=str(given["LambdaArn"]),
        role_arn=given.get("RoleArn"),
        buffer_bytes=int(_number(given.get("BufferSizeInMBs", 1), "BufferSizeInMBs", 0.2, 3) * MEBIBYTE),
        buffer_seconds=_number(given.get("BufferIntervalInSeconds", 60), "BufferIntervalInSeconds", 0, 900),
        retries=int(_number(given.get("NumberOfRetries", 3), "NumberOfRetries", 0, 300)),
    )


def _refuse_what_is_not_modelled(configuration: Mapping[str, Any]) -> None:
    if configuration.get("S3BackupMode", "Disabled") != "Disabled":
        raise ConfigurationError("The embedded endpoint does not model S3BackupMode Enabled")
    for name in ("DynamicPartitioningConfiguration", "DataFormatConversionConfiguration"):
        given = configuration.get(name)
        if given and _flag(given.get("Enabled", name == "DataFormatConversionConfiguration")):
            raise ConfigurationError(f"The embedded endpoint does not model {name}")
    if configuration.get("CompressionFormat", "UNCOMPRESSED") not in ("GZIP", "UNCOMPRESSED"):
        raise ConfigurationError(
            f"The embedded endpoint does not model CompressionFormat {configuration['CompressionFormat']}"
        )


def destination_settings(configuration: Mapping[str, Any]) -> DestinationSettings:
    """Read an S3 destination as the API and CloudFormation give it, with AWS's defaults and limits.

    Defaults of the S3 buffer: 5 MiB and 300 s, limits 1-128 and 0-900
    (https://docs.aws.amazon.com/firehose/latest/APIReference/API_BufferingHints.html); of the processor: 1 MiB and
    60 s, limits 0.2-3 and 0-900 (https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html).

    Raises:
        ConfigurationError: a value is out of its limits, a prefix breaks its rules, or something is not modelled.
    """
    _refuse_what_is_not_modelled(configuration)
    hints = configuration.get("BufferingHints") or {}
    if len({"SizeInMBs", "IntervalInSeconds"} & hints.keys()) == 1:
        raise ConfigurationError("BufferingHints needs both SizeInMBs and IntervalInSeconds, or none")
    zone_name = configuration.get("CustomTimeZone") or "UTC"
    try:
        time_zone = ZoneInfo(zone_name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigurationError(f"CustomTimeZone {zone_name} is not a time zone") from None
    logging_options = configuration.get("CloudWatchLoggingOptions") or {}
    logged = _flag(logging_options.get("Enabled", False))
    encryption = (configuration.get("EncryptionConfiguration") or {}).get("KMSEncryptionConfig") or {}
    for name in ("RoleARN", "BucketARN"):
        if not configuration.get(name):
            raise ConfigurationError(f"An S3 destination needs {name}")
    settings = DestinationSettings(
        role_arn=configuration["RoleARN"],
        bucket=str(configuration["BucketARN"]).rsplit(":", 1)[-1],
        prefix=configuration.get("Prefix") or "",
        error_prefix=configuration.get("ErrorOutputPrefix") or "",
        buffer_bytes=int(_number(hints.get("SizeInMBs", 5), "SizeInMBs", 1, 128)) * MEBIBYTE,
        buffer_seconds=_number(hints.get("IntervalInSeconds", 300), "IntervalInSeconds", 0, 900),
        gzipped=configuration.get("CompressionFormat") == "GZIP",
        file_extension=configuration.get("FileExtension") or "",
        time_zone=time_zone,
        kms_key_arn=encryption.get("AWSKMSKeyARN"),
        log_group=logging_options.get("LogGroupName") if logged else None,
        log_stream=logging_options.get("LogStreamName") if logged else None,
        processor=_processor(configuration),
    )
    _check_prefixes(settings)
    return settings


# --- keys -----------------------------------------------------------------------------------------------------------

_OBJECT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=[^/]*$)")
_EXPRESSION = re.compile(r"!\{([A-Za-z]+):([^}]*)\}")
_RUN_OF_LETTERS = re.compile(r"'[^']*'|([A-Za-z])\1*|[^A-Za-z']+")
_FIXED_NUMBERS: Mapping[str, Callable[[datetime], int]] = {
    "M": lambda moment: moment.month,
    "d": lambda moment: moment.day,
    "D": lambda moment: moment.timetuple().tm_yday,
    "H": lambda moment: moment.hour,
    "m": lambda moment: moment.minute,
    "s": lambda moment: moment.second,
}


def java_time(pattern: str, moment: datetime) -> str:
    """Format ``moment`` by the numeric letters of Java's DateTimeFormatter: y, u, M, d, D, H, m, s, S.

    Firehose evaluates ``!{timestamp:…}`` by it; text in single quotes is literal
    (https://docs.aws.amazon.com/firehose/latest/dev/s3-prefixes.html).

    Raises:
        ConfigurationError: the pattern has another letter, or a text form such as ``MMM``.
    """
    parts = []
    position = 0
    while position < len(pattern):
        match = _RUN_OF_LETTERS.match(pattern, position)
        if match is None:
            raise ConfigurationError(f"The time pattern {pattern!r} has a quote that is not closed")
        position = match.end()
        text, letter = match.group(0), match.group(1)
        if letter is None:
            parts.append((text[1:-1] or "'") if text.startswith("'") else text)
        elif letter in "yu":
            parts.append(f"{moment.year % 100:02d}" if len(text) == len("yy") else str(moment.year).zfill(len(text)))
        elif letter == "S":
            parts.append(f"{moment.microsecond:06d}".ljust(9, "0")[: len(text)])
        elif letter in _FIXED_NUMBERS and not (letter == "M" and len(text) > len("MM")):
            parts.append(str(_FIXED_NUMBERS[letter](moment)).zfill(len(text)))
        else:
            raise ConfigurationError(f"The embedded endpoint does not model {text!r} in the time pattern {pattern!r}")
    return "".join(parts)


def evaluate_prefix(prefix: str, moment: datetime, error_output_type: str | None = None) -> str:
    """Evaluate the expressions of ``Prefix`` or ``ErrorOutputPrefix`` for ``moment``.

    ``moment`` is the arrival of the object's oldest record, in the destination's time zone. A prefix without an
    expression gets ``yyyy/MM/dd/HH/`` appended, with no slash in between
    (https://docs.aws.amazon.com/firehose/latest/dev/s3-prefixes.html).

    Raises:
        ConfigurationError: an expression is unknown, or not allowed in this prefix.
    """

    def value(match: re.Match[str]) -> str:
        namespace, name = match.groups()
        if namespace == "timestamp":
            return java_time(name, moment)
        if (namespace, name) == ("firehose", "random-string"):
            return secrets.token_hex(6)[:11]
        if (namespace, name) == ("firehose", "error-output-type") and error_output_type is not None:
            return error_output_type
        raise ConfigurationError(f"The expression {match.group(0)} is not allowed in the prefix {prefix!r}")

    if _EXPRESSION.search(prefix):
        return _EXPRESSION.sub(value, prefix)
    kind = f"{error_output_type}/" if error_output_type is not None else ""
    return f"{prefix}{kind}{java_time('yyyy/MM/dd/HH/', moment)}"


def _check_prefixes(settings: DestinationSettings) -> None:
    """Apply the rules of https://docs.aws.amazon.com/firehose/latest/dev/s3-prefixes.html#prefix-rules."""
    now = datetime.now(UTC)
    if "error-output-type" in settings.prefix:
        raise ConfigurationError("Prefix may not contain !{firehose:error-output-type}")
    if _EXPRESSION.search(settings.prefix) and not settings.error_prefix:
        raise ConfigurationError("ErrorOutputPrefix is needed when Prefix contains expressions")
    if _EXPRESSION.search(settings.error_prefix) and "!{firehose:error-output-type}" not in settings.error_prefix:
        raise ConfigurationError("ErrorOutputPrefix with expressions has to contain !{firehose:error-output-type}")
    longest = 512
    for evaluated in (
        evaluate_prefix(settings.prefix, now),
        evaluate_prefix(settings.error_prefix or settings.prefix, now, PROCESSING_FAILED),
    ):
        if len(evaluated) > longest:
            raise ConfigurationError(f"A prefix may have {longest} characters once it is evaluated")


def object_key(
    settings: DestinationSettings,
    stream_name: str,
    stream_version: int,
    oldest_arrival: datetime,
    error_output_type: str | None = None,
) -> str:
    """Name an object: ``<evaluated prefix><stream>-<version>-<yyyy-MM-dd-HH-mm-ss>-<uuid><extension>``.

    ``FileExtension`` replaces ``.gz``; the time zone shifts prefix and suffix
    (https://docs.aws.amazon.com/firehose/latest/dev/s3-object-name.html).
    """
    moment = oldest_arrival.astimezone(settings.time_zone)
    if error_output_type is None:
        prefix = evaluate_prefix(settings.prefix, moment)
    else:
        prefix = evaluate_prefix(settings.error_prefix or settings.prefix, moment, error_output_type)
    extension = settings.file_extension or (".gz" if settings.gzipped else "")
    suffix = f"{stream_name}-{stream_version}-{java_time('yyyy-MM-dd-HH-mm-ss', moment)}-{uuid.uuid4()}"
    return f"{prefix}{suffix}{extension}"


# --- records, buffers, progress -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceRecord:
    """One record as Firehose took it, and where it lies; a Kinesis source adds the partition key."""

    record_id: str
    data: bytes
    arrival_milliseconds: int
    shard_id: str
    sequence_number: str
    partition_key: str | None = None

    @property
    def arrival(self) -> datetime:
        """The approximate arrival time, in UTC."""
        return datetime.fromtimestamp(self.arrival_milliseconds / 1000, UTC)


@dataclass(frozen=True)
class OutputRecord:
    """The bytes that go into an object, and the record they were made from."""

    content: bytes
    source: SourceRecord


class Buffer(Generic[Item]):
    """Collects items until their size or the age of the first one is reached, whichever comes first.

    https://docs.aws.amazon.com/firehose/latest/dev/buffering-hints.html. Sizes are those of uncompressed data.
    ``now`` is in seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._bytes = 0
        self._first_at = 0.0
        self._sealed: deque[list[Item]] = deque()

    def add(self, item: Item, size_bytes: int, now: float, limit_bytes: int) -> None:
        """Put one item in; a chunk that would exceed ``limit_bytes``, or has reached it, is complete."""
        if self._items and self._bytes + size_bytes > limit_bytes:
            self._seal()
        if not self._items:
            self._first_at = now
        self._items.append(item)
        self._bytes += size_bytes
        if self._bytes >= limit_bytes:
            self._seal()

    def take_due(self, now: float, interval_seconds: float) -> list[list[Item]]:
        """Take the chunks that are complete by size, and the open one if its first item is old enough."""
        if self._items and now - self._first_at >= interval_seconds:
            self._seal()
        return self._take_sealed()

    def take_all(self) -> list[list[Item]]:
        """Take everything, due or not."""
        if self._items:
            self._seal()
        return self._take_sealed()

    def __iter__(self) -> Iterator[Item]:
        for chunk in self._sealed:
            yield from chunk
        yield from self._items

    def _seal(self) -> None:
        self._sealed.append(self._items)
        self._items = []
        self._bytes = 0

    def _take_sealed(self) -> list[list[Item]]:
        taken = list(self._sealed)
        self._sealed.clear()
        return taken


class ShardProgress:
    """How far a shard is delivered: the last sequence number before which nothing is outstanding."""

    def __init__(self, checkpoint: str | None) -> None:
        self.checkpoint = checkpoint
        self.last_read = checkpoint
        self._outstanding: OrderedDict[str, bool] = OrderedDict()

    def read(self, sequence_number: str) -> None:
        """Note a record that was read, in the shard's order."""
        self._outstanding[sequence_number] = False
        self.last_read = sequence_number

    def read_again(self) -> None:
        """Forget what was read, not what was delivered."""
        self.last_read = None

    def delivered(self, sequence_number: str) -> None:
        """Note a record that is in S3, or that the function dropped; one that was read twice is noted once."""
        if sequence_number in self._outstanding:
            self._outstanding[sequence_number] = True
        while self._outstanding and self._outstanding[next(iter(self._outstanding))]:
            done, _ = self._outstanding.popitem(last=False)
            self.checkpoint = max(self.checkpoint or done, done, key=int)


# --- the Lambda contract --------------------------------------------------------------------------------------------


def _event_record(record: SourceRecord) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "recordId": record.record_id,
        "approximateArrivalTimestamp": record.arrival_milliseconds,
        "data": base64.b64encode(record.data).decode(),
    }
    if record.partition_key is not None:
        entry["kinesisRecordMetadata"] = {
            "sequenceNumber": record.sequence_number,
            "subsequenceNumber": 0,
            "partitionKey": record.partition_key,
            "shardId": record.shard_id,
            "approximateArrivalTimestamp": record.arrival_milliseconds,
        }
    return entry


def transform_events(
    records: Sequence[SourceRecord],
    delivery_stream_arn: str,
    source_stream_arn: str | None,
    region: str,
    limit_bytes: int = LAMBDA_PAYLOAD_BYTES,
) -> list[tuple[list[SourceRecord], bytes]]:
    """Build the request bodies for the Lambda function, each below ``limit_bytes`` unless one record exceeds it.

    The fields are those of https://docs.aws.amazon.com/lambda/latest/dg/services-kinesisfirehose.html.
    ``invocationId`` is filled in per attempt by :func:`with_invocation_id`; here it is only accounted for.
    """
    head: dict[str, Any] = {"invocationId": str(uuid.UUID(int=0)), "deliveryStreamArn": delivery_stream_arn}
    if source_stream_arn is not None:
        head["sourceKinesisStreamArn"] = source_stream_arn
    head["region"] = region
    overhead = len(json.dumps(head)) + len(', "records": []')
    batches: list[tuple[list[SourceRecord], list[str], int]] = []
    for record in records:
        encoded = json.dumps(_event_record(record))
        size = len(encoded) + len(", ")
        if not batches or batches[-1][2] + size > limit_bytes:
            batches.append(([], [], overhead))
        members, texts, total = batches[-1]
        members.append(record)
        texts.append(encoded)
        batches[-1] = (members, texts, total + size)
    return [
        (members, f'{json.dumps(head)[:-1]}, "records": [{", ".join(texts)}]}}'.encode())
        for members, texts, _ in batches
    ]


def with_invocation_id(body: bytes) -> bytes:
    """Give a request body an invocation id of its own: every attempt has another one."""
    return body.replace(str(uuid.UUID(int=0)).encode(), str(uuid.uuid4()).encode(), 1)


@dataclass(frozen=True)
class Failure:
    """Why a record, a batch or a put failed, by AWS's code."""

    code: str
    message: str


@dataclass(frozen=True)
class Verdicts:
    """What became of a batch."""

    accepted: list[OutputRecord]
    dropped: list[SourceRecord]
    failed: list[tuple[SourceRecord, Failure]]


def failure(code: str, message: str | None = None) -> Failure:
    """Make a failure with AWS's sentence for ``code``."""
    return Failure(code, message if message is not None else MESSAGES[code])


def _returned_records(answer: bytes) -> list[tuple[str, str, bytes]]:
    """Read ``(recordId, result, data)`` of an answer that follows the status model.

    Raises:
        StatusModelError: it does not follow it.
        binascii.Error: ``data`` is not base64.
        ValueError: it is not JSON.
    """
    document = json.loads(answer)
    if not isinstance(document, dict) or not isinstance(document.get("records"), list):
        raise StatusModelError("no list of records")
    returned = []
    for entry in document["records"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("recordId"), str):
            raise StatusModelError("a record without recordId")
        result = entry.get("result")
        if result not in ("Ok", "Dropped", "ProcessingFailed"):
            raise StatusModelError(f"the result {result!r}")
        data = entry.get("data") if result == "Ok" else ""
        if not isinstance(data, str):
            raise StatusModelError("a record without data")
        returned.append((entry["recordId"], str(result), base64.b64decode(data, validate=True)))
    return returned


def judge_answer(records: Sequence[SourceRecord], answer: bytes) -> Verdicts:
    """Match the function's answer with the batch it was given.

    ``Ok`` and ``Dropped`` count as processed, everything else as failed; a record id that is missing or that was
    never sent is a failure too (https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-status-model.html).
    """
    if len(answer) > LAMBDA_PAYLOAD_BYTES:
        return Verdicts([], [], [(record, failure("Lambda.FunctionError")) for record in records])
    try:
        returned = _returned_records(answer)
    except binascii.Error:
        return Verdicts([], [], [(record, failure("Lambda.FunctionError")) for record in records])
    except ValueError:
        return Verdicts([], [], [(record, failure("Lambda.JsonProcessingException")) for record in records])
    times = Counter(record_id for record_id, _, _ in returned)
    by_id = {record_id: (result, content) for record_id, result, content in returned}
    verdicts = Verdicts([], [], [])
    for record in records:
        if times[record.record_id] == 0:
            verdicts.failed.append((record, failure("Lambda.MissingRecordId")))
            continue
        if times[record.record_id] > 1:
            verdicts.failed.append((record, failure("Lambda.DuplicatedRecordId")))
            continue
        result, content = by_id[record.record_id]
        if result == "Ok":
            verdicts.accepted.append(OutputRecord(content, record))
        elif result == "Dropped":
            verdicts.dropped.append(record)
        else:
            verdicts.failed.append((record, failure("Lambda.ProcessingFailedStatus")))
    return verdicts


def error_line(record: SourceRecord, why: Failure, attempts: int, ended_milliseconds: int, lambda_arn: str) -> bytes:
    """Make the JSON line that keeps a record which could not be processed.

    Field names: https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html. Times are
    milliseconds since 1970, ``rawData`` is the record as it arrived, in base64.
    """
    return (
        json.dumps(
            {
                "attemptsMade": attempts,
                "arrivalTimestamp": record.arrival_milliseconds,
                "errorCode": why.code,
                "errorMessage": why.message,
                "attemptEndingTimestamp": ended_milliseconds,
                "rawData": base64.b64encode(record.data).decode(),
                "lambdaArn": lambda_arn,
            }
        ).encode()
        + b"\n"
    )


def retry_pause_seconds(attempts: int) -> float:
    """Return the pause after so many attempts: 0.5 s, doubled each time, at most half a minute."""
    return min(LONGEST_RETRY_PAUSE_SECONDS, 0.5 * 2.0 ** min(attempts - 1, 10))


# --- one delivery stream at work ------------------------------------------------------------------------------------


@dataclass
class _Shipment:
    """An object on its way to S3."""

    records: list[OutputRecord]
    key: str
    body: bytes
    content_bytes: int
    attempts: int = 0

    @property
    def oldest_milliseconds(self) -> int:
        return min(record.source.arrival_milliseconds for record in self.records)


@dataclass
class _Minute:
    """Values collected for metrics that AWS gives once a minute."""

    since: float = field(default_factory=time.monotonic)
    milliseconds_behind: int | None = None


class DeliveryStream:
    """Reads, transforms and delivers for one delivery stream, in three threads that share its buffers."""

    def __init__(self, endpoint: Endpoint, streams: Mapping[str, Any], stream: dict[str, Any], directory: Path) -> None:
        self._endpoint = endpoint
        self._streams = streams
        self.stream = stream
        self._checkpoint_file = directory / f"{stream['name']}.json"
        self._direct_puts_directory = directory / f"{stream['name']}.{DIRECT_PUTS}"
        self._direct_puts: RecordLog | None = None
        self._lock = threading.Lock()
        self._to_process: Buffer[SourceRecord] = Buffer()
        self._accepted: Buffer[OutputRecord] = Buffer()
        self._failed: Buffer[OutputRecord] = Buffer()
        self._in_flight: list[SourceRecord] = []
        self._outbox: deque[_Shipment] = deque()
        self._waiting_bytes = 0
        self._shards: dict[str, ShardProgress] = {}
        self._readable_shards: list[str] = []
        self._started_milliseconds = 0
        self._deleted = threading.Event()
        self._reading_done = threading.Event()
        self._processing_done = threading.Event()
        self._logged_at: dict[str, float] = {}
        self._minute = _Minute()
        self._batch_bytes: int | None = None

    @property
    def name(self) -> str:
        """The delivery stream's name."""
        return str(self.stream["name"])

    @property
    def arn(self) -> str:
        """The delivery stream's ARN."""
        return str(self.stream["arn"])

    @property
    def source_arn(self) -> str | None:
        """The ARN of the Kinesis stream that it reads, if it reads one."""
        return (self.stream.get("kinesis_source") or {}).get("KinesisStreamARN")

    def start(self) -> None:
        """Start the three threads; the status becomes ACTIVE once reading has a place to start from."""
        if self.source_arn is None:
            self._direct_puts = RecordLog(self._direct_puts_directory, Numbering())
        self._endpoint.start_worker(f"firehose-read-{self.name}", self._read)
        self._endpoint.start_worker(f"firehose-process-{self.name}", self._process)
        self._endpoint.start_worker(f"firehose-deliver-{self.name}", self._deliver)

    def delete(self) -> None:
        """End without delivering what is buffered: AWS guarantees nothing for it.

        https://docs.aws.amazon.com/firehose/latest/APIReference/API_DeleteDeliveryStream.html
        """
        self._deleted.set()
        self.forget_progress()

    def forget_progress(self) -> None:
        """Remove what is saved: a delivery stream made anew starts with what arrives from then on."""
        self._checkpoint_file.unlink(missing_ok=True)
        shutil.rmtree(self._direct_puts_directory, ignore_errors=True)

    def settings(self) -> DestinationSettings:
        """Read the destination as it is configured now; UpdateDestination changes it while records wait."""
        return destination_settings(self.stream["destinations"][0]["config"])

    def put(self, records: Sequence[NewRecord]) -> None:
        """Store records that were put directly, each with its record id as the key, before they are acknowledged."""
        if self._direct_puts is None:
            raise ConfigurationError(f"{self.name} takes its records from a Kinesis stream")
        self._direct_puts.append(records)

    def accept(self, records: Sequence[SourceRecord]) -> None:
        """Take records in: into the processor's buffer, or straight into the one for S3."""
        settings = self.settings()
        now = time.monotonic()
        with self._lock:
            for record in records:
                self._waiting_bytes += len(record.data)
                self._shards[record.shard_id].read(record.sequence_number)
                if settings.processor is not None:
                    limit_bytes = self._batch_bytes or settings.processor.buffer_bytes
                    self._to_process.add(record, len(record.data), now, limit_bytes)
                else:
                    self._accepted.add(OutputRecord(record.data, record), len(record.data), now, settings.buffer_bytes)

    def _gone(self) -> bool:
        return self._deleted.is_set() or self._streams.get(self.name) is not self.stream

    def _metric(self, name: str, value: float, unit: str) -> None:
        self._endpoint.put_metric(METRIC_NAMESPACE, name, value, unit, {"DeliveryStreamName": self.name})

    def _client(self, service: str, role_arn: str, session_name: str, **how: Any) -> Any:
        return self._endpoint.client(
            service, role_arn, session_name, service_principal=SERVICE_PRINCIPAL, source_arn=self.arn, **how
        )

    def _lambda_client(self, role_arn: str) -> Any:
        # Firehose waits five minutes for an answer and counts its attempts itself.
        return self._client(
            "lambda", role_arn, "AWSFirehoseToLambda", read_timeout_seconds=LAMBDA_INVOCATION_SECONDS, attempts=1
        )

    def _log(self, why: Failure, **where: str) -> None:
        """Write to the CloudWatch log stream that the destination names, each code at most once a minute.

        https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-logs.html: group and stream have
        to exist, and AWS samples when errors are many.
        """
        now = time.monotonic()
        if now - self._logged_at.get(why.code, -METRIC_SECONDS) < METRIC_SECONDS:
            return
        self._logged_at[why.code] = now
        logger.warning("%s: %s: %s", self.name, why.code, why.message)
        settings = self.settings()
        if not settings.log_group or not settings.log_stream:
            return
        entry = {
            "deliveryStreamARN": self.arn,
            "deliveryStreamVersionId": str(self.stream["version"]),
            "message": why.message,
            "errorCode": why.code,
            **where,
        }
        try:
            self._client("logs", settings.role_arn, "AWSFirehoseToCloudWatchLogs").put_log_events(
                logGroupName=settings.log_group,
                logStreamName=settings.log_stream,
                logEvents=[{"timestamp": int(time.time() * 1000), "message": json.dumps(entry)}],
            )
        except (ClientError, BotoCoreError, TrustError) as problem:
            logger.warning("%s: its error log could not be written: %s", self.name, problem)

    # reading

    def _read(self, stopping: threading.Event) -> None:
        try:
            self._load_progress()
            if self._direct_puts is not None:
                self._read_direct_puts(self._direct_puts, stopping)
            else:
                self._read_shards(stopping)
        finally:
            self._reading_done.set()

    def _read_direct_puts(self, direct_puts: RecordLog, stopping: threading.Event) -> None:
        progress = self._shards.setdefault(DIRECT_PUTS, ShardProgress(None))
        self.stream["status"] = "ACTIVE"
        while not self._gone():
            last = stopping.is_set()
            if last or self._waiting_bytes < READ_AHEAD_BYTES:
                records = direct_puts.read(int(progress.last_read or 0), DIRECT_PUT_PAGE_RECORDS, DIRECT_PUT_PAGE_BYTES)
                self.accept(
                    [
                        SourceRecord(each.key, each.data, each.arrival_milliseconds, DIRECT_PUTS, str(each.number))
                        for each in records
                    ]
                )
                if records:
                    continue
            if last:
                return
            stopping.wait(TICK_SECONDS)

    def _read_shards(self, stopping: threading.Event) -> None:
        looked_up = -SHARD_LOOKUP_SECONDS
        attempts = 0
        while not stopping.is_set() and not self._gone():
            pause = POLL_SECONDS
            again = REDELIVERIES.take(self.name, "reading")
            if again is not None:
                self._read_again(again)
            try:
                if time.monotonic() - looked_up >= SHARD_LOOKUP_SECONDS:
                    self._look_up_shards()
                    looked_up = time.monotonic()
                for shard_id in self._readable_shards:
                    if self._waiting_bytes < READ_AHEAD_BYTES and not stopping.is_set():
                        self._read_shard(shard_id)
                attempts = 0
                if self.stream["status"] == "CREATING":
                    self.stream["status"] = "ACTIVE"
            except (ClientError, BotoCoreError, TrustError) as problem:
                # "Firehose retries the following operations indefinitely: DescribeStream, GetRecords, and
                # GetShardIterator" (https://docs.aws.amazon.com/firehose/latest/dev/troubleshooting.html).
                attempts += 1
                pause = retry_pause_seconds(attempts)
                looked_up = -SHARD_LOOKUP_SECONDS
                if not stopping.is_set():
                    self._read_failed(problem)
            stopping.wait(pause)

    def _read_again(self, again: Redelivery) -> None:
        with self._lock:
            self._started_milliseconds = again.since_milliseconds
            self._batch_bytes = again.batch_bytes
            for progress in self._shards.values():
                progress.read_again()

    def _read_failed(self, problem: Exception) -> None:
        code = problem.response["Error"]["Code"] if isinstance(problem, ClientError) else type(problem).__name__
        self._log(Failure(f"Kinesis.{code.removesuffix('Exception')}", str(problem)), source=str(self.source_arn))

    def _source_client(self) -> Any:
        # Firehose counts and repeats its attempts itself.
        return self._client("kinesis", self.stream["kinesis_source"]["RoleARN"], "AWSFirehoseFromKinesis", attempts=1)

    def _look_up_shards(self) -> None:
        client = self._source_client()
        client.describe_stream(StreamName=_stream_name(str(self.source_arn)), Limit=1)
        arguments: dict[str, Any] = {"StreamARN": self.source_arn}
        found = []
        while True:
            answer = client.list_shards(**arguments)
            found += [shard["ShardId"] for shard in answer["Shards"]]
            if "NextToken" not in answer:
                break
            arguments = {"NextToken": answer["NextToken"]}
        with self._lock:
            for shard_id in found:
                self._shards.setdefault(shard_id, ShardProgress(None))
        # A shard that is gone may have records on their way: its progress stays.
        self._readable_shards = found

    def _read_shard(self, shard_id: str) -> None:
        """Read a shard once. That it is read too fast concerns this shard alone: the next turn tries again."""
        client = self._source_client()
        last_read = self._shards[shard_id].last_read
        position: dict[str, Any] = (
            {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": self._started_milliseconds / 1000}
            if last_read is None
            else {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": last_read}
        )
        iterator = client.get_shard_iterator(StreamARN=self.source_arn, ShardId=shard_id, **position)["ShardIterator"]
        try:
            answer = client.get_records(ShardIterator=iterator, StreamARN=self.source_arn)
        except client.exceptions.ProvisionedThroughputExceededException as problem:
            self._metric("ThrottledGetRecords", 1, "Count")
            self._read_failed(problem)
            return
        if answer["Records"]:
            self._take_from_shard(shard_id, answer["Records"])
        behind = int(answer.get("MillisBehindLatest", 0))
        self._minute.milliseconds_behind = max(behind, self._minute.milliseconds_behind or 0)

    def _take_from_shard(self, shard_id: str, entries: Sequence[Mapping[str, Any]]) -> None:
        records = [
            SourceRecord(
                # the sequence number, and twelve digits for the position in an aggregated record
                record_id=f"{entry['SequenceNumber']}{0:012d}",
                data=entry["Data"],
                arrival_milliseconds=round(entry["ApproximateArrivalTimestamp"].timestamp() * 1000),
                shard_id=shard_id,
                sequence_number=entry["SequenceNumber"],
                partition_key=entry["PartitionKey"],
            )
            for entry in entries
        ]
        self._metric("DataReadFromKinesisStream.Records", len(records), "Count")
        self._metric("DataReadFromKinesisStream.Bytes", sum(len(record.data) for record in records), "Bytes")
        self.accept(records)

    def _load_progress(self) -> None:
        if self.source_arn is not None:
            self._started_milliseconds = int(self.stream["kinesis_source"]["DeliveryStartTimestamp"] * 1000)
        try:
            saved = json.loads(self._checkpoint_file.read_text())
        except FileNotFoundError:
            return
        with self._lock:
            self._shards = {shard_id: ShardProgress(position) for shard_id, position in saved["shards"].items()}

    def _save_progress(self) -> None:
        if self._gone():
            return
        with self._lock:
            positions = {shard_id: progress.checkpoint for shard_id, progress in self._shards.items()}
        self._checkpoint_file.parent.mkdir(parents=True, exist_ok=True)
        written = self._checkpoint_file.with_suffix(".new")
        written.write_text(json.dumps({"shards": positions}))
        written.replace(self._checkpoint_file)
        delivered = positions.get(DIRECT_PUTS)
        if self._direct_puts is not None and delivered is not None:
            self._direct_puts.trim(StoredRecord(int(delivered), "", b"").arrival_milliseconds)

    # transforming

    def _process(self, stopping: threading.Event) -> None:
        try:
            while not self._gone():
                last = stopping.is_set() and self._reading_done.wait(STOP_SECONDS)
                processor = self.settings().processor
                with self._lock:
                    interval = processor.buffer_seconds if processor is not None else 0.0
                    chunks = (
                        self._to_process.take_all() if last else self._to_process.take_due(time.monotonic(), interval)
                    )
                    self._in_flight = [record for chunk in chunks for record in chunk]
                for chunk in chunks:
                    self._process_chunk(chunk, processor, stopping)
                    with self._lock:
                        del self._in_flight[: len(chunk)]
                if last:
                    return
                stopping.wait(TICK_SECONDS)
        finally:
            self._processing_done.set()

    def _process_chunk(
        self, chunk: Sequence[SourceRecord], processor: ProcessorSettings | None, stopping: threading.Event
    ) -> None:
        if processor is None:
            self._buffer_for_s3(Verdicts([OutputRecord(record.data, record) for record in chunk], [], []), 0, "")
            return
        region = self._endpoint.settings.region
        for records, body in transform_events(chunk, self.arn, self.source_arn, region):
            attempts = 0
            while True:
                attempts += 1
                if REDELIVERIES.take(self.name, "invocation") is not None:
                    self._invoke(processor, with_invocation_id(body))  # whose answer gets lost
                answer = self._invoke(processor, with_invocation_id(body))
                if not isinstance(answer, Failure):
                    verdicts = judge_answer(records, answer)
                    break
                if attempts > processor.retries:
                    verdicts = Verdicts([], [], [(record, answer) for record in records])
                    break
                if stopping.wait(retry_pause_seconds(attempts)):
                    # Not decided: after the restart these records are read again.
                    return
            # What the function itself calls ProcessingFailed is the function's to log
            # (https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html).
            for why in {why for _, why in verdicts.failed} - {failure("Lambda.ProcessingFailedStatus")}:
                self._log(why, processor=processor.lambda_arn)
            self._buffer_for_s3(verdicts, attempts, processor.lambda_arn)

    def _invoke(self, processor: ProcessorSettings, body: bytes) -> bytes | Failure:
        """Invoke the function once, synchronously, and measure it.

        https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html
        """
        began = time.monotonic()
        answer = self._invoke_unmeasured(processor, body)
        self._metric("ExecuteProcessing.Duration", (time.monotonic() - began) * 1000, "Milliseconds")
        self._metric("ExecuteProcessing.Success", 0 if isinstance(answer, Failure) else 1, "Count")
        return answer

    def _invoke_unmeasured(self, processor: ProcessorSettings, body: bytes) -> bytes | Failure:
        try:
            response = self._lambda_client(processor.role_arn or self.settings().role_arn).invoke(
                FunctionName=processor.lambda_arn, InvocationType="RequestResponse", Payload=body
            )
            payload: bytes = response["Payload"].read()
        except TrustError:
            return failure("Lambda.AssumeRoleAccessDenied")
        except (ReadTimeoutError, ConnectTimeoutError):
            return failure("Lambda.FunctionTimedOut")
        except ClientError as problem:
            code = problem.response["Error"]["Code"]
            known = {
                "AccessDeniedException": "Lambda.InvokeAccessDenied",
                "TooManyRequestsException": "Lambda.InvokeLimitExceeded",
                "ResourceNotFoundException": "Lambda.ResourceNotFound",
            }
            return failure(known[code]) if code in known else Failure(f"Lambda.{code}", str(problem))
        except BotoCoreError as problem:
            return Failure(f"Lambda.{type(problem).__name__}", str(problem))
        return failure("Lambda.FunctionError") if "FunctionError" in response else payload

    def _buffer_for_s3(self, verdicts: Verdicts, attempts: int, lambda_arn: str) -> None:
        settings = self.settings()
        ended = int(time.time() * 1000)
        now = time.monotonic()
        with self._lock:
            for output in verdicts.accepted:
                self._accepted.add(output, len(output.content), now, settings.buffer_bytes)
            for record, why in verdicts.failed:
                line = error_line(record, why, attempts, ended, lambda_arn)
                self._failed.add(OutputRecord(line, record), len(line), now, settings.buffer_bytes)
            self._settle(verdicts.dropped)
        if lambda_arn:
            processed = verdicts.accepted
            self._metric("SucceedProcessing.Records", len(processed), "Count")
            self._metric("SucceedProcessing.Bytes", sum(len(output.source.data) for output in processed), "Bytes")
        if verdicts.dropped:
            self._save_progress()

    def _settle(self, records: Sequence[SourceRecord]) -> None:
        """Note, with the lock held, that nothing is left to do for these records."""
        for record in records:
            self._waiting_bytes -= len(record.data)
            self._shards[record.shard_id].delivered(record.sequence_number)

    # delivering

    def _deliver(self, stopping: threading.Event) -> None:
        retry_at = 0.0
        while not self._gone():
            last = stopping.is_set() and self._processing_done.wait(STOP_SECONDS)
            self._seal_objects(last)
            while self._outbox and (last or time.monotonic() >= retry_at) and not self._gone():
                if self._put(self._outbox[0]):
                    if REDELIVERIES.take(self.name, "object") is not None:
                        self._put(self._renamed(self._outbox[0]))
                    delivered = self._outbox.popleft()
                    with self._lock:
                        self._settle([record.source for record in delivered.records])
                    self._save_progress()
                elif last:
                    logger.error("%s: %s was not delivered before the stop", self.name, self._outbox.popleft().key)
                else:
                    retry_at = time.monotonic() + retry_pause_seconds(self._outbox[0].attempts)
            self._minute_metrics()
            if last:
                return
            stopping.wait(TICK_SECONDS)

    def _seal_objects(self, everything: bool) -> None:
        settings = self.settings()
        now = time.monotonic()
        with self._lock:
            sealed = [
                (kind, chunk)
                for kind, buffer in ((None, self._accepted), (PROCESSING_FAILED, self._failed))
                for chunk in (buffer.take_all() if everything else buffer.take_due(now, settings.buffer_seconds))
            ]
        for kind, chunk in sealed:
            content = b"".join(output.content for output in chunk)
            oldest = min(output.source.arrival for output in chunk)
            self._outbox.append(
                _Shipment(
                    records=chunk,
                    key=object_key(settings, self.name, int(self.stream["version"]), oldest, kind),
                    body=gzip.compress(content, compresslevel=6) if settings.gzipped else content,
                    content_bytes=sum(len(output.source.data) for output in chunk),
                )
            )

    @staticmethod
    def _renamed(shipment: _Shipment) -> _Shipment:
        """Return the same object under another key."""
        return replace(shipment, key=_OBJECT_ID.sub(lambda _: str(uuid.uuid4()), shipment.key))

    def _put(self, shipment: _Shipment) -> bool:
        settings = self.settings()
        extra: dict[str, Any] = {"ContentEncoding": "gzip"} if settings.gzipped else {}
        if settings.kms_key_arn is not None:
            extra |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": settings.kms_key_arn}
        shipment.attempts += 1
        try:
            self._client("s3", settings.role_arn, "AWSFirehoseToS3").put_object(
                Bucket=settings.bucket,
                Key=shipment.key,
                Body=shipment.body,
                ContentType="application/octet-stream",
                **extra,
            )
        except (ClientError, BotoCoreError, TrustError) as problem:
            self._metric("DeliveryToS3.Success", 0, "Count")
            code = problem.response["Error"]["Code"] if isinstance(problem, ClientError) else ""
            if isinstance(problem, TrustError):
                code = "AccessDenied"
            known = f"S3.{code}" in MESSAGES
            why = failure(f"S3.{code}") if known else Failure("InternalError", f"{MESSAGES['InternalError']} {problem}")
            self._log(why, destination=f"arn:aws:s3:::{settings.bucket}")
            return False
        self._metric("DeliveryToS3.Success", 1, "Count")
        self._metric("DeliveryToS3.Records", len(shipment.records), "Count")
        self._metric("DeliveryToS3.Bytes", shipment.content_bytes, "Bytes")
        self._metric("DeliveryToS3.DataFreshness", time.time() - shipment.oldest_milliseconds / 1000, "Seconds")
        logger.info("%s: s3://%s/%s (%d records)", self.name, settings.bucket, shipment.key, len(shipment.records))
        return True

    def _minute_metrics(self) -> None:
        if time.monotonic() - self._minute.since < METRIC_SECONDS:
            return
        minute, self._minute = self._minute, _Minute()
        if minute.milliseconds_behind is not None:
            self._metric("KinesisMillisBehindLatest", minute.milliseconds_behind, "Milliseconds")
        with self._lock:
            waiting = [
                *(record.arrival_milliseconds for record in self._to_process),
                *(record.arrival_milliseconds for record in self._in_flight),
                *(output.source.arrival_milliseconds for output in (*self._accepted, *self._failed)),
            ]
        waiting += [shipment.oldest_milliseconds for shipment in self._outbox]
        if waiting:
            self._metric("DeliveryToS3.DataFreshness", time.time() - min(waiting) / 1000, "Seconds")


# --- the API around it ----------------------------------------------------------------------------------------------


def _stream_name(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Firehose:
    """The delivery streams at work, and the API operations that start, change and end them."""

    def __init__(self, endpoint: Endpoint, service: Any) -> None:
        self._endpoint = endpoint
        self._service = service
        self._at_work: dict[str, DeliveryStream] = {}
        self._lock = threading.Lock()
        self._directory = endpoint.settings.state_directory / "firehose"
        self._streams = seams.require(service, "_streams")
        self._original: dict[str, Callable[..., Any]] = {}

    def install(self) -> None:
        """Take over the operations; delivery streams of the last run start once the endpoint answers."""
        operations = seams.require(self._service, "_HANDLERS")
        for operation, name, replacement in (
            ("CreateDeliveryStream", "_create_delivery_stream", self.create),
            ("DeleteDeliveryStream", "_delete_delivery_stream", self.delete),
            ("UpdateDestination", "_update_destination", self.update_destination),
            ("PutRecord", "_put_record", self.put_record),
            ("PutRecordBatch", "_put_record_batch", self.put_record_batch),
        ):
            self._original[name] = seams.replace(self._service, name, replacement)
            operations[operation] = replacement
        self._original["_dest_description"] = seams.replace(self._service, "_dest_description", self.describe)
        seams.replace(self._service, "_deliver_records_to_s3", self.accept_put)
        # MiniStack would push every record that is put into a Kinesis stream into Firehose, at once.
        seams.replace(self._service, "ingest_from_kinesis_source", lambda _stream_arn, _records: None)
        self._endpoint.on_ready(self._resume)

    def _resume(self) -> None:
        with self._endpoint.scope():
            restored = list(self._streams.values())
        for stream in restored:
            self._start(stream)

    def _start(self, stream: dict[str, Any], *, anew: bool = False) -> None:
        if not stream["destinations"] or stream["destinations"][0]["type"] not in ("ExtendedS3", "S3"):
            stream["status"] = "ACTIVE"
            return
        with self._lock:
            known = self._at_work.get(stream["arn"])
            if known is not None and known.stream is stream:
                return
            worker = DeliveryStream(self._endpoint, self._streams, stream, self._directory)
            if anew:
                worker.forget_progress()
            self._at_work[stream["arn"]] = worker
            worker.start()

    def _refuse(self, message: str) -> Response:
        response: Response = seams.require(self._service, "_invalid")(message)
        return response

    def _assert_usable(self, request: Mapping[str, Any], stream_arn: str) -> None:
        """Check what AWS checks before it creates a delivery stream: the roles, and the source.

        https://docs.aws.amazon.com/firehose/latest/dev/controlling-access.html

        Raises:
            ConfigurationError: a role cannot be assumed, or may not describe the source.
        """
        _, configuration = seams.require(self._service, "_resolve_dest_type_and_config")(request)
        source = request.get("KinesisStreamSourceConfiguration") or {}
        for role_arn in (configuration["RoleARN"], source.get("RoleARN")):
            if role_arn is not None:
                self._assert_trusted(role_arn, stream_arn)
        if source:
            client = self._endpoint.client(
                "kinesis", source["RoleARN"], "AWSFirehoseFromKinesis", SERVICE_PRINCIPAL, stream_arn
            )
            try:
                client.describe_stream(StreamName=_stream_name(source["KinesisStreamARN"]), Limit=1)
            except ClientError as problem:
                raise ConfigurationError(
                    f"Role {source['RoleARN']} is not able to perform kinesis:DescribeStream on "
                    f"{source['KinesisStreamARN']}: {problem.response['Error']['Message']}"
                ) from problem

    def _assert_trusted(self, role_arn: str, stream_arn: str) -> None:
        try:
            self._endpoint.client("sts", role_arn, "AWSFirehose", SERVICE_PRINCIPAL, stream_arn)
        except TrustError as problem:
            raise ConfigurationError(
                f"Firehose is unable to assume role {role_arn}. Please check the role provided. ({problem})"
            ) from problem

    def create(self, request: dict[str, Any]) -> Response:
        """CreateDeliveryStream: answers at once with status CREATING.

        https://docs.aws.amazon.com/firehose/latest/APIReference/API_CreateDeliveryStream.html
        """
        name = str(request.get("DeliveryStreamName", ""))
        kind, configuration = seams.require(self._service, "_resolve_dest_type_and_config")(request)
        delivers_to_s3 = kind in ("ExtendedS3", "S3")
        if delivers_to_s3:
            try:
                destination_settings(configuration)
                if name and name not in self._streams and not _on_event_loop():
                    self._assert_usable(request, seams.require(self._service, "_stream_arn")(name))
            except ConfigurationError as problem:
                return self._refuse(str(problem))
        response: Response = self._original["_create_delivery_stream"](request)
        if response[0] < 400 and delivers_to_s3:  # noqa: PLR2004
            stream = self._streams[name]
            stream["status"] = "CREATING"
            if stream["kinesis_source"]:
                stream["kinesis_source"]["DeliveryStartTimestamp"] = int(time.time() * 1000) / 1000
            self._start(stream, anew=True)
        return response

    def delete(self, request: dict[str, Any]) -> Response:
        """DeleteDeliveryStream."""
        stream = self._streams.get(str(request.get("DeliveryStreamName", "")))
        response: Response = self._original["_delete_delivery_stream"](request)
        if response[0] < 400 and stream is not None:  # noqa: PLR2004
            worker = self._at_work.pop(stream["arn"], None)
            if worker is not None:
                worker.delete()
        return response

    def update_destination(self, request: dict[str, Any]) -> Response:
        """UpdateDestination: the new configuration counts for what is buffered already."""
        stream = self._streams.get(str(request.get("DeliveryStreamName", "")))
        kind, update = seams.require(self._service, "_resolve_dest_update_config")(request)
        if stream is not None and kind in ("ExtendedS3", "S3") and stream["destinations"]:
            try:
                destination_settings({**stream["destinations"][0]["config"], **update})
            except ConfigurationError as problem:
                return self._refuse(str(problem))
        response: Response = self._original["_update_destination"](request)
        return response

    def _refused_put(self, request: Mapping[str, Any]) -> Response | None:
        stream = self._streams.get(str(request.get("DeliveryStreamName", "")))
        if stream is not None and stream["type"] == "KinesisStreamAsSource":
            # https://docs.aws.amazon.com/firehose/latest/dev/writing-with-kinesis-streams.html: the API's puts are
            # disabled for a delivery stream that reads a Kinesis stream.
            return self._refuse("This operation is not permitted on KinesisStreamAsSource delivery stream type.")
        return None

    def put_record(self, request: dict[str, Any]) -> Response:
        """PutRecord: for delivery streams of type DirectPut."""
        response: Response = self._refused_put(request) or self._original["_put_record"](request)
        return response

    def put_record_batch(self, request: dict[str, Any]) -> Response:
        """PutRecordBatch: for delivery streams of type DirectPut, at most 4 MiB."""
        refused = self._refused_put(request)
        size = sum(len(str(record.get("Data", ""))) * 3 // 4 for record in request.get("Records") or [])
        if refused is None and size > PUT_RECORD_BATCH_BYTES:
            refused = self._refuse("Records size exceeds 4 MB limit")
        response: Response = refused or self._original["_put_record_batch"](request)
        return response

    def accept_put(
        self, stream: Mapping[str, Any], destination: dict[str, Any], records: Sequence[tuple[str, bytes]]
    ) -> None:
        """Take what PutRecord and PutRecordBatch accepted."""
        # MiniStack keeps every record in memory for good, beside delivering it.
        destination["records"].clear()
        worker = self._at_work[stream["arn"]]
        worker.put([NewRecord(record_id, data) for record_id, data in records])
        dimensions = {"DeliveryStreamName": stream["name"]}
        put_metric = self._endpoint.put_metric
        put_metric(METRIC_NAMESPACE, "IncomingRecords", len(records), "Count", dimensions)
        put_metric(METRIC_NAMESPACE, "IncomingBytes", sum(len(data) for _, data in records), "Bytes", dimensions)

    def describe(self, destination: Mapping[str, Any]) -> dict[str, Any]:
        """Describe a destination with the fields that MiniStack leaves out."""
        description: dict[str, Any] = self._original["_dest_description"](destination)
        extended = description.get("ExtendedS3DestinationDescription")
        if extended is not None:
            configuration = destination["config"]
            extended |= {name: configuration[name] for name in _DESCRIBED_TOO if name in configuration}
        return description

    # CloudFormation

    def create_from_cloudformation(
        self, logical_id: str, properties: dict[str, Any], stack_name: str
    ) -> tuple[str, dict[str, Any]]:
        """Create the resource and wait until it is ACTIVE, as CloudFormation does."""
        physical_id, attributes = self._original["cloudformation_create"](logical_id, properties, stack_name)
        deadline = time.monotonic() + ACTIVATION_SECONDS
        while self._streams[physical_id]["status"] == "CREATING" and not _on_event_loop():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{physical_id} did not become ACTIVE within {ACTIVATION_SECONDS:g} s")
            self._endpoint.pause(TICK_SECONDS)
        return physical_id, attributes

    def update_from_cloudformation(
        self, physical_id: str, old: dict[str, Any], new: dict[str, Any], stack_name: str
    ) -> tuple[str, dict[str, Any]]:
        """Update the resource in place; a change of name, type or source creates another one."""
        kind, configuration = seams.require(self._service, "_resolve_dest_type_and_config")(new)
        if kind in ("ExtendedS3", "S3"):
            destination_settings(configuration)
        updated: tuple[str, dict[str, Any]] = self._original["cloudformation_update"](physical_id, old, new, stack_name)
        return updated

    def install_cloudformation(self, provisioners: Any, stacks: Any) -> None:
        """Let CloudFormation wait for the status, off the server's event loop."""
        handlers = seams.require(provisioners, "_RESOURCE_HANDLERS")[RESOURCE_TYPE]
        self._original["cloudformation_create"] = handlers["create"]
        self._original["cloudformation_update"] = handlers["update"]
        handlers["create"] = self.create_from_cloudformation
        handlers["update"] = self.update_from_cloudformation
        runs_on_thread = seams.require(stacks, "_runs_on_worker_thread")
        seams.replace(
            stacks, "_runs_on_worker_thread", lambda kind: kind == RESOURCE_TYPE or bool(runs_on_thread(kind))
        )


_DESCRIBED_TOO = ("FileExtension", "CustomTimeZone")


def install(endpoint: Endpoint) -> None:
    """Put real delivery behind MiniStack's Firehose."""
    from ministack.services import firehose as service
    from ministack.services.cloudformation import provisioners, stacks

    firehose = Firehose(endpoint, service)
    firehose.install()
    firehose.install_cloudformation(provisioners, stacks)
