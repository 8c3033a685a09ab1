"""Take raw objects that cannot be read out of the job's way, without losing a byte of them.

A quarantined object is ``quarantine/<key>`` in the analytics bucket, and beside it ``quarantine/<key>.json`` says why
and when, and what of it can be read. The object is deleted from the raw zone last, so that whatever interrupts this
leaves it in one place at least, and the same command completes it.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from telemetry_lake.console import OperatorError
from telemetry_lake.pipeline import StoredObject, list_objects
from telemetry_lake.target import Target

RECORD_SUFFIX = ".json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Inspection:
    """What reading an object to its end came to.

    Attributes:
        key: the object's key.
        size_bytes: its size.
        etag: its entity tag.
        version_id: None in a bucket without versioning.
        last_modified: when it was written.
        readable_lines: whole lines, each ended by a line feed, before whatever is wrong.
        fault: what is wrong, None when all of it can be read.
    """

    key: str
    size_bytes: int
    etag: str
    version_id: str | None
    last_modified: datetime
    readable_lines: int
    fault: str | None


@dataclass(frozen=True)
class Record:
    """What ``quarantine/<key>.json`` says; times are ISO 8601 in UTC."""

    bucket: str
    key: str
    quarantined_key: str
    reason: str
    quarantined_at: str
    size_bytes: int
    etag: str
    version_id: str | None
    last_modified: str
    readable_lines: int
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> "Record":
        """Take what a record has, and leave out what a later version may have added."""
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__})


def fault_of(body: bytes, key: str) -> tuple[int, str | None]:
    """Return how many whole lines can be read, and what is wrong with the rest, None if nothing is.

    Spark decompresses by the name, as Hadoop does: ``.gz`` is gzip, anything else is text.
    https://spark.apache.org/docs/latest/sql-data-sources-text.html
    """
    if not key.endswith(".gz"):
        return body.count(b"\n"), None
    lines = 0
    # Nothing at all is no gzip, and is nothing to read either.
    if not body:
        return lines, None
    try:
        for line in gzip.GzipFile(fileobj=io.BytesIO(body)):
            lines += line.endswith(b"\n")
    except (EOFError, OSError, zlib.error) as error:
        return lines, f"{type(error).__name__}: {error}"
    return lines, None


def inspect(target: Target, bucket: str, key: str) -> Inspection | None:
    """Read an object to its end; None if there is none.

    Raises:
        OperatorError: it is archived, so that nobody can read it now.
    """
    try:
        answer = target.s3.get_object(Bucket=bucket, Key=key)
    except target.s3.exceptions.NoSuchKey:
        return None
    except target.s3.exceptions.InvalidObjectState as error:
        raise OperatorError(
            f"s3://{bucket}/{key} is archived: {error}",
            f"Restore it first: aws s3api restore-object --bucket {bucket} --key {key} --restore-request Days=7",
        ) from error
    lines, fault = fault_of(answer["Body"].read(), key)
    return Inspection(
        key,
        answer["ContentLength"],
        answer["ETag"],
        answer.get("VersionId"),
        answer["LastModified"],
        lines,
        fault,
    )


class Quarantine:
    """The quarantine of a stack."""

    def __init__(self, target: Target) -> None:
        """Work on the raw zone and the quarantine of ``target``."""
        self._target = target
        self._s3 = target.s3
        self._raw_bucket = target.outputs.raw_bucket_name
        self._bucket = target.outputs.analytics_bucket_name
        self._prefix = target.outputs.quarantine_prefix

    def place_of(self, key: str) -> str:
        """Return the key that a raw object has here."""
        return f"{self._prefix}{key}"

    def record(self, key: str) -> Record | None:
        """Return what is recorded of a raw object, None if nothing is."""
        body = self._read(self._bucket, self.place_of(key) + RECORD_SUFFIX)
        return None if body is None else Record.from_mapping(json.loads(body))

    def records(self) -> Iterator[Record]:
        """Yield what is in quarantine."""
        for stored in list_objects(self._s3, self._bucket, self._prefix):
            if stored.key.endswith(RECORD_SUFFIX):
                key = stored.key.removeprefix(self._prefix).removesuffix(RECORD_SUFFIX)
                record = self.record(key)
                if record is not None:
                    yield record

    def is_in_raw(self, key: str) -> bool:
        """Whether the raw zone holds the object."""
        return self._exists(self._raw_bucket, key)

    def move(self, key: str, *, force: bool) -> Record:
        """Move a raw object here; what an earlier attempt has done of it is not done again.

        Raises:
            OperatorError: there is no such object, it can be read, or another one of its name is here.
        """
        record = self.record(key)
        found = inspect(self._target, self._raw_bucket, key)
        if found is None:
            if record is None:
                raise OperatorError(f"There is no object s3://{self._raw_bucket}/{key}.", "tlake quarantine --scan")
            return record
        if record is not None:
            if not self._holds_the_same(key):
                raise OperatorError(
                    f"Another object of the name {key} is in quarantine already.",
                    f"Restore or remove s3://{self._bucket}/{self.place_of(key)} and its {RECORD_SUFFIX} first.",
                )
        elif found.fault is None and not force:
            raise OperatorError(
                f"{key} can be read: {found.readable_lines:,} lines.", "To quarantine it all the same: --force"
            )
        else:
            record = self._copy_here(found)
        self._s3.delete_object(Bucket=self._raw_bucket, Key=key)
        return record

    def restore(self, key: str, *, force: bool) -> Record:
        """Put an object back into the raw zone, where it counts as new; an interrupted attempt is completed.

        Raises:
            OperatorError: it is not here, still cannot be read, or the raw zone has another one of its name.
        """
        record = self.record(key)
        place = self.place_of(key)
        found = inspect(self._target, self._bucket, place)
        if record is None:
            raise OperatorError(f"{key} is not in quarantine.", "tlake quarantine --list")
        if found is None:
            if not self.is_in_raw(key):
                raise OperatorError(
                    f"s3://{self._bucket}/{place} is gone, and the raw zone does not have it either.",
                    f"Look for older versions: aws s3api list-object-versions --bucket {self._bucket} --prefix {place}",
                )
        else:
            if found.fault is not None and not force:
                raise OperatorError(
                    f"{key} still cannot be read ({found.fault}): the next run would fail.",
                    f"Put what is mended at s3://{self._bucket}/{place} and restore that; as it is: --force",
                )
            if not self.is_in_raw(key):
                self._copy(self._bucket, place, found, self._raw_bucket, key)
            elif not self._holds_the_same(key):
                raise OperatorError(f"The raw zone has another object of the name {key}.", "Remove one of them.")
            self._s3.delete_object(Bucket=self._bucket, Key=place)
        self._s3.delete_object(Bucket=self._bucket, Key=place + RECORD_SUFFIX)
        return record

    def _copy_here(self, found: Inspection) -> Record:
        place = self.place_of(found.key)
        self._copy(self._raw_bucket, found.key, found, self._bucket, place)
        record = Record(
            bucket=self._raw_bucket,
            key=found.key,
            quarantined_key=place,
            reason=found.fault or "by hand: it can be read",
            quarantined_at=datetime.now(UTC).isoformat(timespec="seconds"),
            size_bytes=found.size_bytes,
            etag=found.etag,
            version_id=found.version_id,
            last_modified=found.last_modified.isoformat(timespec="seconds"),
            readable_lines=found.readable_lines,
        )
        self._s3.put_object(
            Bucket=self._bucket,
            Key=place + RECORD_SUFFIX,
            Body=json.dumps(asdict(record), indent=1).encode(),
            ContentType="application/json",
        )
        return record

    def _copy(self, bucket: str, key: str, found: Inspection, target_bucket: str, target_key: str) -> None:
        """Copy the very object that was looked at; Firehose writes 128 MB at most, and a copy may have 5 GB.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
        """
        self._s3.copy_object(
            Bucket=target_bucket,
            Key=target_key,
            CopySource={"Bucket": bucket, "Key": key},
            CopySourceIfMatch=found.etag,
        )

    def _holds_the_same(self, key: str) -> bool:
        """Whether raw zone and quarantine hold the same bytes; an entity tag would not tell with a customer key.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
        """
        return self._read(self._raw_bucket, key) == self._read(self._bucket, self.place_of(key))

    def _read(self, bucket: str, key: str) -> bytes | None:
        try:
            return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            return None

    def _exists(self, bucket: str, key: str) -> bool:
        try:
            self._s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
            return False
        return True


def suspects(raw: Sequence[StoredObject], error: str, since: datetime | None) -> list[StoredObject]:
    """Return the raw objects in the order in which to look for one that cannot be read: named ones, then the newest.

    Args:
        raw: all objects of the raw zone.
        error: of the last failed run; Glue may name an object by its address, or by the last part of its key alone.
        since: leave out what was written before and is not named; None for nothing.
    """
    named = [each for each in raw if each.key.rpartition("/")[2] in error]
    others = [each for each in raw if each not in named and (since is None or each.last_modified >= since)]
    return [*named, *sorted(others, key=lambda each: each.last_modified, reverse=True)]
