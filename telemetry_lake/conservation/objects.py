"""What is found in S3: dead letters, what Firehose has parked, quarantined objects, tombstones, unread raw objects."""

import base64
import gzip
import hashlib
import io
import json
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from telemetry_lake.conservation.books import PARKED, QUARANTINED, Element, Reject
from telemetry_lake.console import OperatorError, Step

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READERS = 8
GZIP_MAGIC = b"\x1f\x8b"
WHOLE_RECORD_REASON = "internal_error"
DAMAGED = (EOFError, OSError, zlib.error)


class Folder(NamedTuple):
    """A prefix in a bucket."""

    bucket: str
    prefix: str


@dataclass(frozen=True)
class Line:
    """A line of an object: the key, the line's number from 1, and the line without its line feed."""

    key: str
    number: int
    data: bytes


def keys_in(s3: "S3Client", folder: Folder, since: datetime | None = None) -> Iterator[str]:
    """Yield the keys of a folder, in their order; with ``since``, those written in its second or later."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=folder.bucket, Prefix=folder.prefix):
        for entry in page.get("Contents", []):
            # S3 tells the time of writing in whole seconds.
            if since is None or entry["LastModified"] >= since.replace(microsecond=0):
                yield entry["Key"]


def _bodies(s3: "S3Client", bucket: str, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield objects in the order of their keys; only so many as there are readers are in memory."""

    def read(key: str) -> bytes:
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    with ThreadPoolExecutor(READERS) as readers:
        ahead: deque[tuple[str, Future[bytes]]] = deque()
        for key in keys:
            ahead.append((key, readers.submit(read, key)))
            if len(ahead) == READERS:
                first, body = ahead.popleft()
                yield first, body.result()
        for key, body in ahead:
            yield key, body.result()


def _lines(key: str, body: bytes) -> Iterator[Line]:
    """Yield the lines of an object, gzip or not, that are not blank.

    Raises:
        EOFError, OSError, zlib.error: its gzip is damaged; what comes before the damage has been yielded.
    """
    file = gzip.GzipFile(fileobj=io.BytesIO(body)) if body.startswith(GZIP_MAGIC) else io.BytesIO(body)
    # The line feed alone ends a line.
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield Line(key, number, line.removesuffix(b"\n"))


def _all_lines(s3: "S3Client", bucket: str, keys: Iterable[str], step: Step) -> Iterator[Line]:
    for number, (key, body) in enumerate(_bodies(s3, bucket, keys), start=1):
        try:
            yield from _lines(key, body)
        except DAMAGED as error:
            raise OperatorError(
                f"s3://{bucket}/{key} cannot be read to its end: {error}", "Restore an earlier version of the object."
            ) from error
        step.update(note=f"{number:,} objects")


def dead_letters(s3: "S3Client", folder: Folder, step: Step) -> Iterator[Reject]:
    """Yield the dead letters of the transform and of the job.

    Raises:
        OperatorError: an object cannot be read, or a line is none of a dead letter.
    """
    for line in _all_lines(s3, folder.bucket, keys_in(s3, folder), step):
        try:
            yield from _dead_letter(line)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _not_understood(folder, line, "dead letter") from error


def _dead_letter(line: Line) -> Iterator[Reject]:
    letter = json.loads(line.data)
    source = letter["source"] or {}
    original = _original(letter)
    is_whole_record = letter["reason"] == WHOLE_RECORD_REASON
    for element in Element.all_of(original) if is_whole_record else [Element.of(original)]:
        yield Reject(
            letter["reject_id"],
            element,
            letter["stage"],
            line.key,
            letter["reason"],
            letter["contract_version"],
            source.get("shard_id"),
            source.get("sequence_number"),
        )


def _original(letter: dict[str, Any]) -> bytes:
    if letter["original"] is not None:
        return str(letter["original"]).encode()
    return base64.b64decode(letter["original_base64"], validate=True)


def parked_records(s3: "S3Client", folder: Folder, step: Step) -> Iterator[Reject]:
    r"""Yield the elements of the records that Firehose keeps whole because the function did not take them.

    Each is named as `tlake dlq` names it: ``sha256("s3://<bucket>/<key>\n<line, from 0>")``. The format:
    https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html

    Raises:
        OperatorError: an object cannot be read, or a line holds no record.
    """
    for line in _all_lines(s3, folder.bucket, keys_in(s3, folder), step):
        try:
            parked = json.loads(line.data)
            record = base64.b64decode(parked["rawData"], validate=True)
            reason = str(parked.get("errorCode") or parked.get("ErrorCode") or "")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _not_understood(folder, line, "record that Firehose has parked") from error
        name = hashlib.sha256(f"s3://{folder.bucket}/{line.key}\n{line.number - 1}".encode()).hexdigest()
        for element in Element.all_of(record):
            yield Reject(name, element, PARKED, line.key, reason)


def quarantined_readings(s3: "S3Client", folder: Folder, damaged: list[str]) -> Iterator[Reject]:
    """Yield the readings in quarantined objects, as far as those can be read.

    An object lies under the folder by the key that it had, and beside it the same key with ``.json``, which says why.

    Args:
        s3: the client.
        folder: the quarantine.
        damaged: gets the keys of objects that cannot be read to their end, or hold what is no reading.
    """
    found = sorted(keys_in(s3, folder))
    explanations = {f"{key}.json" for key in found}
    for key, body in _bodies(s3, folder.bucket, [key for key in found if key not in explanations]):
        try:
            for line in _lines(key, body):
                element = Element.of(line.data)
                if element.is_reading:
                    yield Reject(f"{key}\n{line.number}", element, QUARANTINED, key)
                elif key not in damaged:
                    damaged.append(key)
        except DAMAGED:
            damaged.append(key)


def tombstones(s3: "S3Client", folder: Folder) -> Iterator[str]:
    """Yield the ids of rejects that are resolved: each is the last part of a key."""
    for key in keys_in(s3, folder):
        yield key.removeprefix(folder.prefix)


def readings_in(s3: "S3Client", bucket: str, keys: Iterable[str], step: Step) -> Iterator[bytes]:
    """Yield the keys of the elements in raw objects.

    Raises:
        OperatorError: an object cannot be read to its end.
    """
    for line in _all_lines(s3, bucket, keys, step):
        yield Element.of(line.data).key


def _not_understood(folder: Folder, line: Line, what: str) -> OperatorError:
    return OperatorError(
        f"s3://{folder.bucket}/{line.key}, line {line.number:,}, is no {what}.",
        "Restore an earlier version of the object, or move it elsewhere if nobody knows where it comes from.",
    )
