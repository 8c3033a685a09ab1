"""What was not stored, and why: the dead letters of the transform and the job, and what Firehose itself has parked.

A dead letter is a line of JSON in a gzip object under ``dlq/raw_json/year=/month=/day=/``; the same one may be on
several lines, and ``reject_id`` says so. A tombstone ``dlq/resolved/<reject_id>`` says that a reject is resolved, else
it is open. Firehose keeps the records that its transform could not process under its error prefix, as lines of JSON
that hold the record in base64:
https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html
"""

import base64
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from telemetry_lake.console import OperatorError, Reporter
from telemetry_lake.ledger import Place
from telemetry_lake.pipeline import READERS, StoredObject, list_objects
from telemetry_lake.target import Target

FIREHOSE_STAGE = "firehose"
RESOLVED_PREFIX = "dlq/resolved/"
"""In the analytics bucket, beside the dead letters and not below them."""

GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Reject:
    """Something that was not stored.

    Attributes:
        reject_id: what identifies it; for what Firehose parked the hash of its object's key and line.
        reason: the contract's reason, or Firehose's error code.
        detail: what exactly was wrong, for a person.
        device_id: the device, where it could be read.
        day: the UTC day that it is kept under: of its arrival, or of the run that rejected it.
        stage: ``transform``, ``etl`` or ``firehose``.
        original: the bytes as they came.
        source: where it came from, for a person; empty if that is not known.
        arrived_at: ISO 8601 in UTC, None if that is not known.
        address: the object that keeps it.
        place: where in the stream its record was, None if that is not known.
    """

    reject_id: str
    reason: str
    detail: str
    device_id: str | None
    day: date
    stage: str
    original: bytes
    source: str
    arrived_at: str | None
    address: str
    place: Place | None


@dataclass(frozen=True)
class KeptObject:
    """An object that keeps rejects, and the UTC day that it is kept under."""

    bucket: str
    day: date
    stored: StoredObject


def read_rejects(target: Target, first: date, last: date, reporter: Reporter) -> list[Reject]:
    """Return the distinct rejects that are kept under the days from ``first`` to ``last``, the oldest arrival first.

    Raises:
        OperatorError: an object or a line is none of the pipeline's.
    """
    places = find_objects(target, first, last, reporter)
    with reporter.step("Reading rejects", len(places)) as step, ThreadPoolExecutor(READERS) as readers:
        found: dict[str, Reject] = {}
        for number, rejects in enumerate(readers.map(lambda place: read_object(target, place), places)):
            for reject in rejects:
                found.setdefault(reject.reject_id, reject)
            step.update(completed=number + 1, note=f"{len(found):,} distinct")
    return sorted(found.values(), key=lambda reject: (reject.arrived_at or f"{reject.day}", reject.reject_id))


def find_objects(target: Target, first: date, last: date, reporter: Reporter) -> list[KeptObject]:
    """Return the objects that keep rejects under the days from ``first`` to ``last``."""
    outputs = target.outputs
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    found = []
    with reporter.step("Looking for rejects", len(days)) as step:
        error_types = _folders(target, outputs.raw_bucket_name, outputs.error_prefix)
        for number, day in enumerate(days):
            dead = f"{outputs.dlq_prefix}year={day.year}/month={day.month}/day={day.day}/"
            prefixes = [(outputs.analytics_bucket_name, dead)]
            prefixes += [(outputs.raw_bucket_name, f"{error_type}{day:%Y/%m/%d}/") for error_type in error_types]
            for bucket, prefix in prefixes:
                found += [KeptObject(bucket, day, stored) for stored in list_objects(target.s3, bucket, prefix)]
            step.update(completed=number + 1)
    return found


def resolved_ids(target: Target) -> set[str]:
    """Return the ids of the rejects that have a tombstone."""
    tombstones = list_objects(target.s3, target.outputs.analytics_bucket_name, RESOLVED_PREFIX)
    return {stored.key.removeprefix(RESOLVED_PREFIX) for stored in tombstones}


def read_parked(target: Target, reporter: Reporter) -> list[Reject]:
    """Return everything that Firehose has parked, of all days.

    Raises:
        OperatorError: an object or a line is none of Firehose's.
    """
    bucket, prefix = target.outputs.raw_bucket_name, target.outputs.error_prefix
    objects = list_objects(target.s3, bucket, prefix)
    found: list[Reject] = []
    with reporter.step("Reading what Firehose has parked", len(objects)) as step:
        for stored in objects:
            found += read_object(target, KeptObject(bucket, _day_of_parked(stored, prefix), stored))
            step.advance()
    return found


def _day_of_parked(stored: StoredObject, prefix: str) -> date:
    """Return the UTC day in the object's key, ``<error prefix><type>/yyyy/MM/dd/HH/``.

    Raises:
        OperatorError: there is none.
    """
    try:
        _type, year, month, day, *_ = stored.key.removeprefix(prefix).split("/")
        return date(int(year), int(month), int(day))
    except ValueError as error:
        raise OperatorError(
            f"{stored.key} is not where Firehose parks records.",
            "Look at the object; nothing but Firehose should write there.",
        ) from error


def counts_by(rejects: Iterable[Reject], what: str) -> dict[str, Counter[str]]:
    """Return how many rejects there are of each reason, by ``reason``, ``device`` or ``day``; most of them first."""
    parts: dict[str, Counter[str]] = {}
    for reject in rejects:
        name = {"reason": reject.reason, "device": reject.device_id or "(not readable)", "day": f"{reject.day}"}[what]
        parts.setdefault(name, Counter())[reject.reason] += 1
    if what == "day":
        return dict(sorted(parts.items()))
    return dict(sorted(parts.items(), key=lambda part: (-part[1].total(), part[0])))


def _folders(target: Target, bucket: str, prefix: str) -> list[str]:
    pages = target.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    return [folder["Prefix"] for page in pages for folder in page.get("CommonPrefixes", ())]


def read_object(target: Target, kept: KeptObject) -> list[Reject]:
    """Return the rejects of an object, line by line.

    Raises:
        OperatorError: it holds something else.
    """
    address = f"s3://{kept.bucket}/{kept.stored.key}"
    body = target.s3.get_object(Bucket=kept.bucket, Key=kept.stored.key)["Body"].read()
    try:
        # What Firehose parks may be compressed or not: AWS's pages do not say.
        lines = (gzip.decompress(body) if body.startswith(GZIP_MAGIC) else body).split(b"\n")
        return [_reject(json.loads(line), address, kept.day, number) for number, line in enumerate(lines) if line]
    except (ValueError, EOFError, OSError, KeyError, TypeError) as error:
        raise OperatorError(
            f"{address} does not hold rejects as the pipeline writes them: {type(error).__name__}: {error}",
            "Look at the object; nothing but the pipeline should write there.",
        ) from error


def _reject(line: dict[str, Any], address: str, day: date, number: int) -> Reject:
    if "rawData" in line:
        return _parked_reject(line, address, day, number)
    original = line["original"]
    return Reject(
        reject_id=line["reject_id"],
        reason=line["reason"],
        detail=_detail_text(line["detail"] or {}),
        device_id=line["device_id"],
        day=day,
        stage=line["stage"],
        original=base64.b64decode(line["original_base64"]) if original is None else original.encode("utf-8"),
        source=_source_text(line["source"] or {}),
        arrived_at=line["arrived_at"],
        address=address,
        place=_place(line["source"] or {}),
    )


def _place(source: dict[str, Any]) -> Place | None:
    shard_id, sequence_number = source.get("shard_id"), source.get("sequence_number")
    return Place(shard_id, sequence_number) if shard_id and sequence_number else None


def _parked_reject(line: dict[str, Any], address: str, day: date, number: int) -> Reject:
    arrived = datetime.fromtimestamp(line["arrivalTimestamp"] / 1000, UTC)
    return Reject(
        reject_id=hashlib.sha256(f"{address}\n{number}".encode()).hexdigest(),
        reason=line["errorCode"],
        detail=line["errorMessage"],
        device_id=None,
        day=day,
        stage=FIREHOSE_STAGE,
        original=base64.b64decode(line["rawData"]),
        source=f"given up after {line['attemptsMade']} attempt(s)",
        arrived_at=arrived.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        address=address,
        place=None,
    )


def _detail_text(detail: dict[str, Any]) -> str:
    what = " ".join(str(detail[part]) for part in ("field", "value") if detail.get(part) is not None)
    return ": ".join(part for part in (what, detail.get("rule")) if part)


def _source_text(source: dict[str, Any]) -> str:
    names: Sequence[tuple[str, str]] = (
        ("shard_id", "shard"),
        ("sequence_number", "sequence number"),
        ("record_id", "record"),
        ("partition_key", "partition key"),
        ("index", "element"),
    )
    known = [(label, source[name]) for name, label in names if source.get(name) is not None]
    if any(label == "sequence number" for label, _ in known):
        known = [(label, value) for label, value in known if label != "record"]
    return ", ".join(f"{label} {value}" for label, value in known)
