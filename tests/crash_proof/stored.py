"""What the table and the DLQ hold, read from their files, and what is wrong with it."""

import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet

from tests.crash_proof.batches import Reject, Row

EXAMPLES = 3


@dataclass(frozen=True)
class Stored:
    """Rows, each as often as it is there; rejects by ``reject_id``, each with everything that is said of it."""

    rows: Counter[Row]
    rejects: Mapping[str, Set[Reject]]
    keys: tuple[str, ...]


def read_stored(s3: Any, bucket: str, table_prefix: str, dlq_prefix: str) -> Stored:
    """Read every file of the table and of the DLQ, to its end."""
    table_keys, dlq_keys = list_keys(s3, bucket, table_prefix), list_keys(s3, bucket, dlq_prefix)
    rows = Counter(row for key in table_keys for row in _rows(key, _get(s3, bucket, key)))
    rejects: dict[str, set[Reject]] = {}
    for key in dlq_keys:
        for line in gzip.decompress(_get(s3, bucket, key)).split(b"\n"):
            if line:
                letter = json.loads(line)
                said = Reject(letter["reason"], letter["original"], letter["original_base64"])
                rejects.setdefault(letter["reject_id"], set()).add(said)
    return Stored(rows, rejects, (*table_keys, *dlq_keys))


def list_keys(s3: Any, bucket: str, prefix: str) -> list[str]:
    """Return the keys below a prefix."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


def _get(s3: Any, bucket: str, key: str) -> bytes:
    body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def _rows(key: str, file: bytes) -> list[Row]:
    found = re.search(r"/year=(\d+)/month=(\d+)/day=(\d+)/[^/]+\.parquet$", key)
    assert found is not None, f"a file that is none of the table's: {key}"
    table = pyarrow.parquet.ParquetFile(io.BytesIO(file)).read()
    assert table.column_names == ["device_id", "temperature", "timestamp", "event_time"], table.column_names
    columns = [table[name].to_pylist() for name in ("device_id", "temperature", "timestamp")]
    times = table["event_time"].cast("int64").to_pylist()
    day = [int(part) for part in found.groups()]
    return [Row(*values, *day) for values in zip(*columns, times, strict=True)]


def violations(stored: Stored, rows: Set[Row], rejects: Mapping[str, Reject], *, is_caught_up: bool) -> list[str]:
    """Return what must not be, empty if all is well.

    Args:
        stored: what is there.
        rows: what is to be in the table in the end.
        rejects: what is to be in the DLQ in the end.
        is_caught_up: whether this is the end; before it, things may be missing.
    """
    found: dict[str, list[Any]] = {
        "rows more than once": [row for row, times in stored.rows.items() if times > 1],
        "rows that nobody sent": [row for row in stored.rows if row not in rows],
        "rejects that are none": [key for key in stored.rejects if key not in rejects],
        "rejects with another reason or original": [
            (key, said) for key, said in stored.rejects.items() if key in rejects and said != {rejects[key]}
        ],
    }
    if is_caught_up:
        found["rows that are missing"] = [row for row in rows if row not in stored.rows]
        found["rejects that are missing"] = [key for key in rejects if key not in stored.rejects]
    return [f"{len(each)} {what}, such as {each[:EXAMPLES]}" for what, each in found.items() if each]
