"""The verdict: what the books say of every reading and record that was acknowledged, and of all that was found."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from telemetry_lake.conservation.books import PARKED, QUARANTINED, READING_MARK, TRANSFORM, Books, reading_with

EXAMPLES_SHOWN = 3

READINGS_ACKNOWLEDGED = "readings acknowledged"
UNREADABLE_ACKNOWLEDGED = "unreadable elements acknowledged"

LOST_READING = "lost reading"
LOST_RECORD = "lost unreadable record"
STORED_TWICE = "stored twice"
ROW_NEVER_SENT = "row that was never sent"
REJECT_NEVER_SENT = "reject that was never sent"
IN_BOTH_PLACES = "stored and rejected without a cause"
IN_RAW_ZONE = "reading that waits in the raw zone"
NOT_DELIVERED = "reading not delivered yet"
RECORD_NOT_DELIVERED = "unreadable record not judged yet"
IN_FLIGHT = (IN_RAW_ZONE, NOT_DELIVERED, RECORD_NOT_DELIVERED)

CLOCK = "clock: another arrival was on time"
REPLAY = "replay: its reject is resolved"
CONTRACT_CHANGE = "contract change: judged by other rules"
PARKED_WHOLE = "its record was parked whole by Firehose, and delivered again"
QUARANTINED_WHOLE = "its object was quarantined whole, and it was delivered again"
OTHER_FIELDS = "sent again with other fields, which the contract judges too"

CLOCK_REASONS = ("timestamp_in_future", "timestamp_too_old")
# These judge nothing but the three fields that make a reading, and its arrival.
IDENTITY_REASONS = (*CLOCK_REASONS, "temperature_out_of_range", "device_id_invalid")


@dataclass(frozen=True)
class Finding:
    """What must not be, or not be for long: its kind, how often it was found, and the first few as texts."""

    kind: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What the comparison came to.

    Attributes:
        counts: what was compared, by name.
        findings: what must not be, the kinds that were found.
        causes: rejects of readings that are stored too, by the cause that makes it legal (the finding's kind).
    """

    counts: Mapping[str, int]
    findings: tuple[Finding, ...]
    causes: tuple[Finding, ...]

    @property
    def is_conserved(self) -> bool:
        """Whether nothing was found that must not be."""
        return not self.findings

    @property
    def is_in_flight(self) -> bool:
        """Whether all that is missing may be on its way still."""
        return bool(self.findings) and all(finding.kind in IN_FLIGHT for finding in self.findings)


def find_missing(books: Books) -> int:
    """Find the acknowledged readings that are neither stored nor kept as rejects, and return how many they are."""
    books.derive(
        "missing",
        "SELECT key FROM acknowledged WHERE is_reading EXCEPT SELECT key FROM stored EXCEPT SELECT key FROM kept",
    )
    return books.number("SELECT count(*) FROM missing")


def compare(books: Books, contract_version: str) -> Report:
    """Compare what was sent with what was found; after `find_missing`.

    Args:
        books: closed entries.
        contract_version: what the stack's rejects carry at present.
    """
    _derive_what_is_overtaken(books)
    _derive_unkept_records(books)
    causes = _causes(books, contract_version)
    return Report(
        _counts(books),
        tuple(
            finding
            for finding in (
                _of_keys(books, LOST_READING, "SELECT key FROM overtaken"),
                _of_records(books, LOST_RECORD, "count - late"),
                _of_keys(books, STORED_TWICE, "SELECT key FROM stored GROUP BY key HAVING count(*) > 1"),
                _of_keys(books, ROW_NEVER_SENT, "SELECT key FROM stored EXCEPT SELECT key FROM sent"),
                _of_rejects(books, REJECT_NEVER_SENT, "key NOT IN (SELECT key FROM sent)"),
                causes.pop(IN_BOTH_PLACES, None),
                _of_keys(books, IN_RAW_ZONE, "SELECT key FROM missing WHERE key IN (SELECT key FROM waiting)"),
                _of_keys(
                    books,
                    NOT_DELIVERED,
                    "SELECT key FROM missing EXCEPT SELECT key FROM waiting EXCEPT SELECT key FROM overtaken",
                ),
                _of_records(books, RECORD_NOT_DELIVERED, "late"),
            )
            if finding is not None and finding.count
        ),
        tuple(causes.values()),
    )


def _derive_what_is_overtaken(books: Books) -> None:
    """Tell what is lost from what may be on its way: Firehose reads each shard in its order.

    ``delivered`` and ``judged`` say how far the shards' readings have come into the raw zone, and their records through
    the transform. A missing reading is overtaken when a later one of its shard has been delivered; one that was sent
    twice says nothing of the second time.
    """
    books.derive(
        "delivered",
        """
        SELECT shard, max(sequence) AS sequence FROM acknowledged
        WHERE (key IN (SELECT key FROM stored) OR key IN (SELECT key FROM waiting))
            AND (SELECT count(*) FROM sent WHERE sent.key = acknowledged.key) = 1
        GROUP BY shard
        """,
    )
    books.derive(
        "judged",
        """
        SELECT shard, max(sequence) AS sequence
        FROM (SELECT shard, sequence FROM reject WHERE sequence IS NOT NULL UNION ALL SELECT * FROM delivered)
        GROUP BY shard
        """,
    )
    books.derive(
        "overtaken",
        """
        SELECT DISTINCT key FROM missing JOIN acknowledged USING (key) JOIN delivered USING (shard)
        WHERE acknowledged.sequence < delivered.sequence AND key NOT IN (SELECT key FROM waiting)
        """,
    )


def _derive_unkept_records(books: Books) -> None:
    """Count the elements that are no readings and that no reject keeps; ``late`` of them may be on their way still.

    Each time that one was sent it needs a reject of its own: the one at its place in the stream, or else one of the
    same bytes whose place is not known or is that of no other sending (Firehose's error prefix, a replay).
    """
    books.derive(
        "unkept",
        """
        WITH sent_at AS (
            SELECT key, shard, sequence, count(*) AS count FROM acknowledged WHERE NOT is_reading
            GROUP BY key, shard, sequence
        ), kept_at AS (
            SELECT key, shard, sequence, count(*) AS count FROM kept WHERE NOT is_reading GROUP BY key, shard, sequence
        ), spare AS (
            SELECT kept_at.key, sum(kept_at.count) AS count FROM kept_at LEFT JOIN sent_at
                ON sent_at.key = kept_at.key AND sent_at.shard = kept_at.shard AND sent_at.sequence = kept_at.sequence
            WHERE sent_at.key IS NULL GROUP BY kept_at.key
        ), open AS (
            SELECT key, shard, sequence, sent_at.count - coalesce(kept_at.count, 0) AS count
            FROM sent_at LEFT JOIN kept_at USING (key, shard, sequence)
            WHERE sent_at.count > coalesce(kept_at.count, 0)
        ), need AS (
            SELECT key, sum(open.count) AS count,
                sum(iif(open.sequence < judged.sequence, 0, open.count)) AS late
            FROM open LEFT JOIN judged USING (shard) GROUP BY key
        )
        SELECT key, need.count - coalesce(spare.count, 0) AS count,
            min(late, need.count - coalesce(spare.count, 0)) AS late
        FROM need LEFT JOIN spare USING (key) WHERE need.count > coalesce(spare.count, 0)
        """,
    )


def _causes(books: Books, contract_version: str) -> dict[str, Finding]:
    """Return the rejects of readings that are stored too, by the cause; `IN_BOTH_PLACES` for those without one."""
    counts: dict[str, int] = defaultdict(int)
    examples: dict[str, list[str]] = defaultdict(list)
    for key, reject_id, origin, reason, version, is_resolved, arrivals, other_spellings in books.rows(
        """
        SELECT key, id, origin, reason, version, id IN (SELECT id FROM resolved),
            (SELECT count(*) FROM sent WHERE sent.key = reject.key),
            (SELECT count(*) FROM sent WHERE sent.key = reject.key AND sent.spelling <> reject.spelling)
        FROM reject WHERE is_reading AND key IN (SELECT key FROM stored) ORDER BY id
        """
    ):
        cause = IN_BOTH_PLACES
        if is_resolved:
            cause = REPLAY
        elif origin == PARKED:
            cause = PARKED_WHOLE
        elif origin == QUARANTINED:
            cause = QUARANTINED_WHOLE
        elif arrivals > 1 and reason in CLOCK_REASONS:
            cause = CLOCK
        elif arrivals > 1 and origin == TRANSFORM and version != contract_version:
            cause = CONTRACT_CHANGE
        elif other_spellings and reason not in IDENTITY_REASONS:
            cause = OTHER_FIELDS
        counts[cause] += 1
        if len(examples[cause]) < EXAMPLES_SHOWN:
            examples[cause].append(f"{_text(key)} and reject {reject_id} ({origin}: {reason or 'no reason'})")
    return {cause: Finding(cause, counts[cause], tuple(examples[cause])) for cause in counts}


def _counts(books: Books) -> dict[str, int]:
    queries = {
        "records acknowledged": "SELECT count(*) FROM record WHERE sequence IS NOT NULL",
        "records of which it is not known": "SELECT count(*) FROM record WHERE sequence IS NULL",
        READINGS_ACKNOWLEDGED: "SELECT count(DISTINCT key) FROM acknowledged WHERE is_reading",
        UNREADABLE_ACKNOWLEDGED: "SELECT count(*) FROM acknowledged WHERE NOT is_reading",
        "rows": "SELECT count(*) FROM stored",
        "dead letters": f"SELECT count(*) FROM reject WHERE origin NOT IN ('{PARKED}', '{QUARANTINED}')",
        "elements parked by Firehose": f"SELECT count(*) FROM reject WHERE origin = '{PARKED}'",
        "readings in quarantine": f"SELECT count(*) FROM reject WHERE origin = '{QUARANTINED}'",
        "resolved by tombstones": "SELECT count(*) FROM reject WHERE id IN (SELECT id FROM resolved)",
    }
    return {name: books.number(query) for name, query in queries.items()}


def _of_keys(books: Books, kind: str, query: str) -> Finding:
    count = books.number(f"SELECT count(*) FROM ({query})")
    examples = books.rows(f"{query} LIMIT {EXAMPLES_SHOWN}") if count else ()
    return Finding(kind, count, tuple(_text(key) + _whereabouts(books, key) for (key,) in examples))


def _of_records(books: Books, kind: str, number: str) -> Finding:
    count = books.number(f"SELECT sum({number}) FROM unkept")
    examples = books.rows(f"SELECT key FROM unkept WHERE {number} > 0 LIMIT {EXAMPLES_SHOWN}") if count else ()
    return Finding(kind, count, tuple(_preview(books, key) + _whereabouts(books, key) for (key,) in examples))


def _of_rejects(books: Books, kind: str, condition: str) -> Finding:
    count = books.number(f"SELECT count(*) FROM reject WHERE {condition}")
    columns = "key, preview, id, origin, found_in"
    examples = books.rows(f"SELECT {columns} FROM reject WHERE {condition} LIMIT {EXAMPLES_SHOWN}") if count else ()
    return Finding(
        kind,
        count,
        tuple(
            f"{_text(key, preview)}, reject {each} ({origin}) in {at}" for key, preview, each, origin, at in examples
        ),
    )


def _text(key: bytes, preview: str = "") -> str:
    if key.startswith(READING_MARK):
        return json.dumps(reading_with(key)._asdict(), ensure_ascii=False)
    return repr(preview) if preview else "no reading"


def _preview(books: Books, key: bytes) -> str:
    ((preview,),) = books.rows("SELECT preview FROM sent WHERE key = ? LIMIT 1", key)
    return _text(key, preview)


def _whereabouts(books: Books, key: bytes) -> str:
    """Say of an example where in the stream it was first, and how many rows it is."""
    places = [
        f"{shard} {sequence.lstrip('0')}"
        for shard, sequence in books.rows("SELECT shard, sequence FROM acknowledged WHERE key = ? LIMIT 1", key)
    ]
    rows = books.number("SELECT count(*) FROM stored WHERE key = ?", key)
    return "".join((f", sent to {places[0]}" if places else "", f", {rows} rows" if rows > 1 else ""))
