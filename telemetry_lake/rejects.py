"""What was not stored, and why: the dead letters of the transform and the job, and what Firehose itself has parked.

A dead letter is a line of JSON in a gzip object under ``dlq/raw_json/year=/month=/day=/``; the same one may be on
several lines, and ``reject_id`` says so. Firehose keeps the records that its transform could not process under its
error prefix, as lines of JSON that hold the record in base64:
https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html
"""

import base64
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from telemetry_lake.console import OperatorError, Reporter
from telemetry_lake.pipeline import READERS, StoredObject, list_objects
from telemetry_lake.target import Target

FIREHOSE_STAGE = "firehose"
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


def read_rejects(target: Target, first: date, last: date, reporter: Reporter) -> list[Reject]:
    """Return the distinct rejects that are kept under the days from ``first`` to ``last``, the oldest arrival first.

    Raises:
        OperatorError: an object or a line is none of the pipeline's.
    """
    outputs = target.outputs
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    with reporter.step("Looking for rejects", len(days)) as step:
        dead: list[tuple[date, StoredObject]] = []
        parked: list[tuple[date, StoredObject]] = []
        error_types = _folders(target, outputs.raw_bucket_name, outputs.error_prefix)
        for number, day in enumerate(days):
            folder = f"{outputs.dlq_prefix}year={day.year}/month={day.month}/day={day.day}/"
            dead += [(day, stored) for stored in list_objects(target.s3, outputs.analytics_bucket_name, folder)]
            for error_type in error_types:
                prefix = f"{error_type}{day:%Y/%m/%d}/"
                parked += [(day, stored) for stored in list_objects(target.s3, outputs.raw_bucket_name, prefix)]
            step.update(completed=number + 1)
    with reporter.step("Reading rejects", len(dead) + len(parked)) as step, ThreadPoolExecutor(READERS) as readers:
        found: dict[str, Reject] = {}

        def read(place: tuple[str, date, StoredObject]) -> list[Reject]:
            bucket, day, stored = place
            return list(_read_object(target, bucket, day, stored))

        places = [(outputs.analytics_bucket_name, day, stored) for day, stored in dead]
        places += [(outputs.raw_bucket_name, day, stored) for day, stored in parked]
        for number, rejects in enumerate(readers.map(read, places)):
            for reject in rejects:
                found.setdefault(reject.reject_id, reject)
            step.update(completed=number + 1, note=f"{len(found):,} distinct")
    return sorted(found.values(), key=lambda reject: (reject.arrived_at or f"{reject.day}", reject.reject_id))


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


def _read_object(target: Target, bucket: str, day: date, stored: StoredObject) -> Iterator[Reject]:
    address = f"s3://{bucket}/{stored.key}"
    body = target.s3.get_object(Bucket=bucket, Key=stored.key)["Body"].read()
    try:
        # What Firehose parks may be compressed or not: AWS's pages do not say.
        lines = (gzip.decompress(body) if body.startswith(GZIP_MAGIC) else body).split(b"\n")
        for number, line in enumerate(lines):
            if line:
                yield _reject(json.loads(line), address, day, number)
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
    )


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
