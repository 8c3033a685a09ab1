"""What the producers' ledgers say: what was sent, and what Kinesis acknowledged.

A ledger has a line of JSON for each record before it is sent, and one for its place in the stream afterwards:

    {"record": "5f0c9a1e-1", "partition_key": "sensor-1", "data": "{...}"}    or "data_base64"
    {"record": "5f0c9a1e-1", "shard": "shardId-000000000000", "sequence_number": "4966..."}
"""

import base64
import json
from pathlib import Path

from telemetry_lake.conservation.books import Books, Element
from telemetry_lake.console import OperatorError, Step


def enter_ledger(path: Path, books: Books, step: Step) -> None:
    """Enter a ledger's records into the books.

    Raises:
        OperatorError: it is no ledger. Half a line at its end is none of its lines: a crash has left it.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                is_known = _enter_line(line, books)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise OperatorError(
                    f"{path}, line {number:,}, is no line of a ledger.", "tlake produce --ledger writes one."
                ) from error
            if not is_known:
                raise OperatorError(
                    f"{path}, line {number:,}, acknowledges a record that is on no earlier line.",
                    "Name the whole ledger, or its parts in their order.",
                )
            step.completed += len(line)
            if number % 1000 == 0:
                step.update(note=f"{number:,} lines")


def _enter_line(line: bytes, books: Books) -> bool:
    entry = json.loads(line)
    if "sequence_number" in entry:
        return books.add_acknowledgement(entry["record"], entry["shard"], entry["sequence_number"])
    data = entry["data"].encode() if "data" in entry else base64.b64decode(entry["data_base64"], validate=True)
    books.add_sent(entry["record"], Element.all_of(data))
    return True
