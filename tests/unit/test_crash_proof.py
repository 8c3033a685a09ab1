"""The crash proof's own parts: what it plans, what it calls a step, and that it sees what is wrong."""

import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.crash_proof import file_events
from tests.crash_proof.aims import AIM_OF_STEP, AIMS, STEPS, plan, step_hit
from tests.crash_proof.batches import Batches, Reject, row_of
from tests.crash_proof.stored import Stored, violations


@pytest.mark.parametrize("seed", range(5))
def test_thirty_kills_aim_twice_at_everything(seed: int) -> None:
    rounds = plan(random.Random(seed), 30)
    aims = Counter(aim.name for each in rounds for aim in each)
    assert aims.total() == 30
    assert all(aims[aim.name] >= 2 for aim in AIMS)
    assert sum(len(each) == 2 for each in rounds) == 6


def test_ten_kills_aim_at_different_things() -> None:
    aims = [aim.name for each in plan(random.Random(1), 10) for aim in each]
    assert len(aims) == 10
    assert len({aim.name for aim in AIMS} & set(aims)) == 8


def test_every_step_can_be_aimed_at_again() -> None:
    assert tuple(AIM_OF_STEP) == STEPS
    assert set(AIM_OF_STEP.values()) <= set(AIMS)
    assert len(set(AIM_OF_STEP.values())) == len(STEPS)


NAMES = ("prepare", "read", "judge", "stage", "publish", "catalog", "summary", "commit")


def log_until(name: str, *, done: bool = False) -> str:
    lines = [
        line for each in NAMES[: NAMES.index(name)] for line in (f"INFO {each}: begins", f"INFO {each}: done in 1 s")
    ]
    return "\n".join([*lines, f"INFO {name}: begins", *([f"INFO {name}: done in 1 s"] if done else [])])


@pytest.mark.parametrize(
    ("log", "published", "has_summary", "has_committed", "step"),
    [
        ("", 0, False, False, "start"),
        (log_until("read"), 0, False, False, "read"),
        (log_until("judge"), 0, False, False, "judge"),
        (log_until("stage"), 0, False, False, "stage"),
        (log_until("stage", done=True), 0, False, False, "publish: nothing yet"),
        (log_until("publish"), 3, False, False, "publish: a part"),
        (log_until("publish"), 7, False, False, "publish: everything"),
        (log_until("catalog"), 7, False, False, "publish: everything"),
        (log_until("summary"), 7, False, False, "before the summary"),
        (log_until("summary"), 7, True, False, "after the summary"),
        (log_until("commit"), 7, True, False, "before the commit"),
        (log_until("commit"), 7, True, True, "after the commit"),
    ],
)
def test_a_step_is_told_by_traces(log: str, published: int, has_summary: bool, has_committed: bool, step: str) -> None:
    found = step_hit(log, published=published, staged=7, has_summary=has_summary, has_committed=has_committed)
    assert found == step
    assert step in (*STEPS, "start")


def test_half_a_microsecond_is_rounded_to_the_even_one() -> None:
    assert [row_of("a", 1.0, second).event_time for second in (2.0**-7 * 1e-0, 0.5)] == [7812, 500_000]
    assert (row_of("a", 1.0, 1_760_486_399.9999999).day, row_of("a", 1.0, 1_760_486_399.9999).day) == (15, 14)


def test_whatever_is_wrong_is_found() -> None:
    # GIVEN what one batch comes to
    batches = Batches(random.Random(1))
    batches.next()
    rows, rejects = batches.rows, batches.rejects
    row, reject_id = next(iter(rows)), next(iter(rejects))
    letters = {key: {reject} for key, reject in rejects.items()}
    right = Stored(Counter(rows), letters, ())
    assert violations(right, rows, rejects, is_caught_up=True) == []

    # WHEN something of it is otherwise
    without = {key: said for key, said in letters.items() if key != reject_id}
    wrong = {
        "1 rows more than once": Stored(Counter([*rows, row]), letters, ()),
        "1 rows that nobody sent": Stored(
            Counter([*rows, row._replace(temperature=row.temperature + 1e-9)]), letters, ()
        ),
        "1 rows that are missing": Stored(Counter(rows - {row}), letters, ()),
        "1 rejects that are none": Stored(Counter(rows), letters | {"x": {Reject("a", "b", None)}}, ()),
        "1 rejects that are missing": Stored(Counter(rows), without, ()),
        "1 rejects with another reason": Stored(
            Counter(rows), letters | {reject_id: {*letters[reject_id], Reject("a", "b", None)}}, ()
        ),
    }

    # THEN it is found, and what may be missing before the end is not
    for what, stored in wrong.items():
        (found,) = violations(stored, rows, rejects, is_caught_up=True)
        assert found.startswith(what)
        assert bool(violations(stored, rows, rejects, is_caught_up=False)) == ("missing" not in what)


def test_the_moments_of_a_file_are_seen(tmp_path: Path) -> None:
    for event in (file_events.CREATED, file_events.MOVED_TO):
        seen = threading.Event()
        with file_events.watching(tmp_path, event, seen.set):
            (tmp_path / "new").write_text("x")
            assert event == file_events.CREATED or not seen.wait(0.05)
            (tmp_path / "new").replace(tmp_path / "kept")
            assert seen.wait(5)
        (tmp_path / "kept").unlink()
