"""Exactly once, as a property: whatever arrives in whatever batches, and wherever runs fail, the table is the same."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import boto3
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.integration.conftest import Lake, Run, reading

DAY = 1_760_486_400  # 2025-10-15T00:00:00Z
LATE = DAY - 200 * 86_400
MOST_REQUESTS = 40
"""The largest of these batches takes about as many requests of boto3, from the first to the summary."""

Identity = tuple[str, float, float]

# Several lines are one reading, and some differ from their neighbours in the last bit only.
READINGS: dict[str, Identity] = {
    reading("a", 1, DAY): ("a", DAY, 1.0),
    f'{{"timestamp":{DAY}.0,"device_id":"\\u0061","temperature":1e0}}': ("a", DAY, 1.0),
    reading("a", 1, DAY, note="with another field"): ("a", DAY, 1.0),
    reading("a", 1.0000000000000002, DAY): ("a", DAY, 1.0000000000000002),
    reading("a", 1, DAY + 0.000001): ("a", DAY + 0.000001, 1.0),
    reading("zero", 0.0, DAY + 5): ("zero", DAY + 5, 0.0),
    reading("zero", -0.0, DAY + 5): ("zero", DAY + 5, 0.0),
    reading("b", 2, DAY + 86_399.999999): ("b", DAY + 86_399.999999, 2.0),
    reading("b", 2, DAY + 86_400): ("b", DAY + 86_400, 2.0),
    reading("late", 3, LATE): ("late", LATE, 3.0),
    reading("late", 3, LATE + 1): ("late", LATE + 1, 3.0),
}
REJECTS = {
    "bad": "malformed_json",
    reading("a", 1, DAY) * 2: "malformed_json",
    reading("", 1, DAY): "device_id_invalid",
    reading("a", "1", DAY): "wrong_type",
}


class NetworkDownError(OSError):
    """What the S3 client raises where a history says so."""


@dataclass(frozen=True)
class Failure:
    """A run's request to S3, counted from 1, that is never sent; or that is carried out, and its answer lost."""

    at_request: int
    is_answer_lost: bool


@dataclass(frozen=True)
class Round:
    """New objects, and a run: to its end, to a failure, or to the moment before its commit."""

    objects: Sequence[Sequence[str]]
    mode: str
    failure: Failure | None
    is_commit_lost: bool


failures = st.builds(Failure, st.integers(1, MOST_REQUESTS), st.booleans())
rounds = st.builds(
    Round,
    st.lists(st.lists(st.sampled_from([*READINGS, *REJECTS]), max_size=8), max_size=3),
    st.sampled_from(["load", "load", "load", "audit"]),
    st.one_of(failures, st.none()),
    st.booleans(),
)


def failing_client(failure: Failure | None) -> Any:
    """An S3 client that fails once."""
    client = boto3.client("s3")
    if failure is not None:
        requests = itertools.count(1)

        def fail(**_: Any) -> None:
            if next(requests) == failure.at_request:
                raise NetworkDownError(f"request {failure.at_request}")

        client.meta.events.register("after-call.s3" if failure.is_answer_lost else "before-call.s3", fail)
    return client


def do(run: Run, number: int, step: Round) -> None:
    lake = run.lake
    for position, lines in enumerate(step.objects):
        lake.put_lines(f"{number}-{position}.gz", lines)
    bookmark = lake.bookmark.read_bytes() if lake.bookmark.exists() else None
    changes = {"DAYS": '["2025-10-15"]'} if step.mode == "audit" else {}
    try:
        run(f"jr_{number}", s3=failing_client(step.failure), MODE=step.mode, **changes)
    except NetworkDownError:
        assert (lake.bookmark.read_bytes() if lake.bookmark.exists() else None) == bookmark
    if step.is_commit_lost and bookmark is not None:
        lake.bookmark.write_bytes(bookmark)
    elif step.is_commit_lost:
        lake.bookmark.unlink(missing_ok=True)


def stored(run: Run) -> set[Identity]:
    rows = [row[:3] for row in run.lake.rows(run.spark)]
    assert len(rows) == len(set(rows)), "a reading is stored twice"
    return set(rows)


def kept(lake: Lake) -> set[tuple[str, str]]:
    letters = lake.dead_letters()
    distinct = {letter["reject_id"]: (letter["original"], letter["reason"]) for letter in letters}
    assert len(distinct) == len(set(distinct.values())), "a reject has two ids"
    return set(distinct.values())


@settings(max_examples=5, deadline=None, database=None, phases=(Phase.explicit, Phase.generate), print_blob=True)
@given(history=st.lists(rounds, min_size=2, max_size=3))
def test_any_history_of_batches_and_failed_runs_ends_in_each_reading_once_and_each_reject_kept(
    new_run: Callable[[], Run], history: list[Round]
) -> None:
    # GIVEN an empty lake
    run = new_run()

    # WHEN batches arrive, and runs end well or fail anywhere
    sent: set[str] = set()
    for number, step in enumerate(history):
        sent.update(*step.objects)
        do(run, number, step)
        # THEN nothing is stored twice at any time, and nothing that was not sent
        assert stored(run) <= {READINGS[line] for line in sent if line in READINGS}

    # WHEN a run is left in peace
    run("jr_undisturbed")

    # THEN the table has exactly the readings that were sent, the dead letters exactly the rejects
    assert stored(run) == {READINGS[line] for line in sent if line in READINGS}
    assert kept(run.lake) == {(line, REJECTS[line]) for line in sent if line in REJECTS}
    # THEN no further run changes that, from wherever it reads
    run.assert_settled()
