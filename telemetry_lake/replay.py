"""Put rejects on the stream again, and mark those as resolved that are seen to have arrived somewhere.

The dead letters are never edited. A reject is put again, then each of its elements is seen in the table or in a new
reject, and only then its tombstone ``dlq/resolved/<reject_id>`` is written. Whatever interrupts this leaves the reject
open, and the same command completes it: what the table holds by then is not put again, and a reading that is put twice
is stored once. What had been rejected again right before the interruption is put once more, and leaves one more reject.

An element is told by the independent parser of `telemetry_lake.conservation`; the contract is asked only what it would
say of a reject today.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum

from telemetry_contract import Policy, Reading, judge_record, split_record
from telemetry_lake.conservation.books import READING_MARK, Element, reading_with
from telemetry_lake.conservation.elements import WHITESPACE
from telemetry_lake.conservation.objects import WHOLE_RECORD_REASON
from telemetry_lake.conservation.table import MOST_DEVICES_NAMED, Table, row_keys
from telemetry_lake.console import Reporter, Step
from telemetry_lake.ledger import Place
from telemetry_lake.pipeline import SUCCEEDED, ticks
from telemetry_lake.producer import Producer, batches
from telemetry_lake.queries import zone_named
from telemetry_lake.readings import Record, partition_key_for
from telemetry_lake.rejects import FIREHOSE_STAGE, RESOLVED_PREFIX, Reject, find_objects, read_object
from telemetry_lake.target import Target

POLL_SECONDS = 3.0
ETL_STAGE = "etl"
EMPTY_RECORD_REASON = "empty_record"
MOST_DAYS_NAMED = 1000
EXECUTIONS_LOOKED_AT = 20
QUIET = Reporter(quiet=True)


class Outcome(StrEnum):
    """Where a reject's elements were seen."""

    STORED = "stored"
    REJECTED = "rejected"
    STORED_AND_REJECTED = "stored and rejected"


@dataclass
class Candidate:
    """A reject that is replayed.

    Attributes:
        reject: the reject.
        data: the record that is put.
        pending: how often each of its elements still has to be seen, by key.
        stored: whether some were seen in the table.
        new_rejects: the ids of the rejects that others became.
        stays_open: why it cannot be resolved, for a person.
    """

    reject: Reject
    data: bytes
    pending: Counter[bytes]
    stored: bool = False
    new_rejects: list[str] = field(default_factory=list)
    stays_open: str = ""

    @property
    def is_seen(self) -> bool:
        """Whether every element was seen."""
        return not self.pending

    @property
    def outcome(self) -> Outcome:
        """Where its elements were seen."""
        if self.stored:
            return Outcome.STORED_AND_REJECTED if self.new_rejects else Outcome.STORED
        return Outcome.REJECTED

    def see_stored(self, keys: Collection[bytes]) -> None:
        """Take note of what the table holds."""
        for key in [key for key in self.pending if key in keys]:
            self.stored = True
            del self.pending[key]

    def see_rejected(self, key: bytes, reject_id: str) -> None:
        """Take note of a new reject of one of its elements."""
        if self.pending[key] > 0 and reject_id not in self.new_rejects:
            self.new_rejects.append(reject_id)
            self.pending[key] -= 1
        self.pending = +self.pending

    def see_rejected_whole(self, reject_id: str) -> None:
        """Take note of a new reject that keeps the record as it was put."""
        self.new_rejects.append(reject_id)
        self.pending.clear()


@dataclass(frozen=True)
class Plan:
    """What will be done.

    Attributes:
        to_put: what is put on the stream.
        stored_already: what the table holds.
        left_out: how many are not put since the contract would reject them again, by reason.
        taken_apart: how many are not put since the transform would not take them for the same element.
    """

    to_put: tuple[Candidate, ...]
    stored_already: tuple[Candidate, ...]
    left_out: Mapping[str, int]
    taken_apart: int


def is_whole_record(reject: Reject) -> bool:
    """Whether what is kept is a record as it was on the stream, not one element of it."""
    return reject.stage == FIREHOSE_STAGE or reject.reason == WHOLE_RECORD_REASON


def candidate_of(reject: Reject) -> Candidate | None:
    """Return what to put for a reject, None where the transform would not take it for the same element.

    An element that is JSON of several lines, or an array, is put as the one member of an array: alone it would be taken
    apart.
    """
    if is_whole_record(reject):
        keys = Counter(element.key for element in Element.all_of(reject.original))
        return Candidate(reject, reject.original, keys)
    element = reject.original.strip(WHITESPACE)
    keys = Counter([Element.of(element).key])
    if reject.reason == EMPTY_RECORD_REASON:
        return Candidate(reject, reject.original, keys) if not split_record(reject.original) else None
    for data in (reject.original, b"[" + element + b"]"):
        if [part.strip(WHITESPACE) for part in split_record(data)] == [element]:
            return Candidate(reject, data, keys)
    return None


def make_plan(target: Target, rejects: Iterable[Reject], *, send_invalid: bool, now: float, step: Step) -> Plan:
    """Decide what to put.

    Args:
        target: the stack.
        rejects: open ones.
        send_invalid: put what the contract would reject again, too. What has never been judged is always put.
        now: UNIX seconds, about when they will arrive.
        step: shows the query.
    """
    left_out: Counter[str] = Counter()
    made = [candidate_of(reject) for reject in rejects]
    candidates = [candidate for candidate in made if candidate is not None]
    stored = stored_among(target, (key for each in candidates for key in each.pending), step)
    to_put = []
    stored_already = []
    for candidate in candidates:
        if set(candidate.pending) <= stored:
            candidate.see_stored(stored)
            stored_already.append(candidate)
        elif not send_invalid and (reason := reason_to_reject_again(candidate, now, target.policy)) is not None:
            left_out[reason] += 1
        else:
            to_put.append(candidate)
    return Plan(tuple(to_put), tuple(stored_already), left_out, len(made) - len(candidates))


def reason_to_reject_again(candidate: Candidate, now: float, policy: Policy) -> str | None:
    """Return why the contract would reject a reject again, None if it would not, or if it has never judged it."""
    if is_whole_record(candidate.reject):
        return None
    (verdict,) = judge_record(candidate.data, now, policy)
    return None if isinstance(verdict, Reading) else verdict.reason.value


def stored_among(target: Target, keys: Iterable[bytes], step: Step) -> set[bytes]:
    """Return which of the readings with these keys the table holds; asks for their days and devices alone."""
    zone = zone_named(target.outputs.partition_time_zone)
    wanted: set[bytes] = set()
    devices: set[str] = set()
    days: set[date] = set()
    for key in keys:
        if key.startswith(READING_MARK):
            reading = reading_with(key)
            its_days = _days_of(reading.timestamp, zone)
            if its_days:
                wanted.add(key)
                devices.add(reading.device_id)
                days |= its_days
    if not wanted:
        return set()
    outputs = target.outputs
    table = Table(outputs.database_name, outputs.table_name, outputs.work_group_name)
    named = sorted(devices) if len(devices) <= MOST_DEVICES_NAMED else None
    narrowed = sorted(days) if len(days) <= MOST_DAYS_NAMED else None
    return wanted.intersection(row_keys(target.athena, target.s3, table, named, step, days=narrowed))


def _days_of(timestamp: float, zone: tzinfo) -> set[date]:
    """Return the days that a reading may be stored under: the job rounds to microseconds first."""
    try:
        return {datetime.fromtimestamp(timestamp + second, zone).date() for second in (-1, 1)}
    except (ValueError, OverflowError, OSError):  # no day has it, so no row does
        return set()


class _Places:
    """The places that records got, in the order of the records."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._places: dict[str, Place] = {}

    def sending(self, records: Sequence[Record]) -> list[str]:
        names = [str(len(self._names) + number) for number in range(len(records))]
        self._names += names
        return names

    def acknowledged(self, places: Mapping[str, Place]) -> None:
        self._places.update(places)

    def in_order(self) -> list[Place]:
        return [self._places[name] for name in self._names]


class Replay:
    """Puts candidates, waits until they are seen, and writes their tombstones."""

    def __init__(self, target: Target, plan: Plan) -> None:
        """Replay ``plan`` on ``target``."""
        self._target = target
        self._waiting = list(plan.to_put)
        self._stored_already = plan.stored_already
        self._by_place: dict[Place, Candidate] = {}
        self._began = datetime.now(UTC)
        self._objects_read: set[str] = set()
        self._executions: set[str] = set()
        self.resolved: list[Candidate] = []

    @property
    def waiting(self) -> Sequence[Candidate]:
        """What has not been seen everywhere yet."""
        return self._waiting

    def resolve_what_is_stored(self) -> None:
        """Write the tombstones of what the table holds without being put again."""
        for candidate in self._stored_already:
            self._resolve(candidate)

    def put(self, step: Step) -> None:
        """Put the records on the stream.

        Raises:
            OperatorError: Kinesis refuses them; what was put until then may arrive.
        """
        self._executions = self._succeeded_executions()
        self._began = datetime.now(UTC)
        places = _Places()
        producer = Producer(self._target.kinesis, self._target.outputs.stream_name, places)
        records = [
            Record(
                each.data, partition_key_for(each.reject.device_id, each.data), where=f"reject {each.reject.reject_id}"
            )
            for each in self._waiting
        ]
        for batch in batches(records):
            producer.send(batch)
            step.advance(len(batch))
        self._by_place = dict(zip(places.in_order(), self._waiting, strict=True))

    def wait(self, seconds: float, step: Step) -> None:
        """Look for the elements until all are seen or ``seconds`` are over; what is seen is resolved at once."""
        for _ in ticks(seconds, POLL_SECONDS):
            self._look_for_rejects()
            executions = self._succeeded_executions()
            if not executions <= self._executions:
                self._executions = executions
                keys = (key for candidate in self._waiting for key in candidate.pending)
                stored = stored_among(self._target, keys, Step("Querying Athena"))
                for candidate in self._waiting:
                    candidate.see_stored(stored)
            for candidate in [each for each in self._waiting if each.is_seen]:
                self._resolve(candidate)
            still_possible = [each for each in self._waiting if not each.is_seen and not each.stays_open]
            self._waiting = [each for each in self._waiting if not each.is_seen]
            step.update(
                completed=len(self.resolved) - len(self._stored_already), note=f"{len(self._waiting):,} to be seen"
            )
            if not still_possible:
                return

    def _succeeded_executions(self) -> set[str]:
        executions = self._target.stepfunctions.list_executions(
            stateMachineArn=self._target.outputs.state_machine_arn,
            statusFilter=SUCCEEDED,
            maxResults=EXECUTIONS_LOOKED_AT,
        )["executions"]
        return {execution["executionArn"] for execution in executions}

    def _look_for_rejects(self) -> None:
        """Read the rejects that have been written since the first record was put."""
        # S3 tells the time of writing in whole seconds; a batch's day is that of its oldest arrival.
        began = self._began.replace(microsecond=0)
        days = (began.date() - timedelta(days=1), datetime.now(UTC).date())
        for kept in find_objects(self._target, *days, QUIET):
            name = f"{kept.bucket}/{kept.stored.key}"
            if kept.stored.last_modified >= began and name not in self._objects_read:
                self._objects_read.add(name)
                for reject in read_object(self._target, kept):
                    self._see(reject)

    def _see(self, reject: Reject) -> None:
        if reject.stage == FIREHOSE_STAGE:
            self._see_parked(reject)
        elif reject.stage == ETL_STAGE:
            self._see_rejected_by_job(reject)
        elif reject.place in self._by_place:
            candidate = self._by_place[reject.place]
            if is_whole_record(reject):
                candidate.see_rejected_whole(reject.reject_id)
            else:
                candidate.see_rejected(Element.of(reject.original).key, reject.reject_id)

    def _see_parked(self, reject: Reject) -> None:
        for candidate in self._waiting:
            if (
                candidate.pending
                and candidate.data == reject.original
                and candidate.reject.reject_id != reject.reject_id
            ):
                candidate.see_rejected_whole(reject.reject_id)
                return

    def _see_rejected_by_job(self, reject: Reject) -> None:
        key = Element.of(reject.original).key
        for candidate in self._waiting:
            if key in candidate.pending:
                if candidate.reject.reject_id == reject.reject_id:
                    # The job names a reject by its line, so this one is the old one too.
                    candidate.stays_open = "the job has rejected it again, under the same id"
                else:
                    candidate.see_rejected(key, reject.reject_id)
                return

    def _resolve(self, candidate: Candidate) -> None:
        reject = candidate.reject
        tombstone = {
            "reject_id": reject.reject_id,
            "outcome": candidate.outcome,
            "new_reject_ids": candidate.new_rejects,
            "resolved_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        self._target.s3.put_object(
            Bucket=self._target.outputs.analytics_bucket_name,
            Key=f"{RESOLVED_PREFIX}{reject.reject_id}",
            Body=json.dumps(tombstone).encode() + b"\n",
            ContentType="application/json",
        )
        self.resolved.append(candidate)
