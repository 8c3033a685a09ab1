"""Where runs are killed: at requests of theirs, around the commit of the bookmark, and at any time; all by a seed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AtRequest:
    """A kill at a request as the endpoint sees it; ``{raw}`` and ``{analytics}`` stand for the buckets."""

    name: str
    request: str
    occurrences: int
    moment: Literal["before", "after"]


@dataclass(frozen=True)
class AtCommit:
    """A kill when the commit's new file comes into being, or when it has taken the old one's place."""

    name: str
    has_committed: bool


@dataclass(frozen=True)
class AtTime:
    """A kill at a share (0 to 1) of the time that a whole run takes."""

    share: float

    @property
    def name(self) -> str:
        """What this is, for a person."""
        return f"at {self.share:.0%} of the time"


Aim = AtRequest | AtCommit | AtTime

AIMS: Sequence[Aim] = (
    AtRequest("a raw object is read", r"^GET /{raw}/raw_data/.*\.gz$", 4, "before"),
    AtRequest("the table's days are listed", r"^GET /{analytics}\?.*prefix=curated", 1, "before"),
    AtRequest("a file of the table is read", r"^GET /{analytics}/curated/", 3, "before"),
    AtRequest("a staged file is written", r"^PUT /{analytics}/staging/jr_.*part-", 6, "before"),
    AtRequest("a staged file takes its place", r"^COPY /{analytics}/staging/jr_.*part-", 8, "after"),
    AtRequest("the owner is looked at before the first copy", r"^GET /{analytics}/staging/owner\.json$", 1, "before"),
    AtRequest("a copy to the table begins", r"^COPY /{analytics}/curated/", 5, "before"),
    AtRequest("a copy to the table is done", r"^COPY /{analytics}/curated/", 4, "after"),
    AtRequest("a copy to the DLQ", r"^COPY /{analytics}/dlq/", 1, "after"),
    AtRequest("the catalog's partitions are listed", r"^AWSGlue\.GetPartitions$", 1, "before"),
    AtRequest("the summary is written", r"^PUT /{analytics}/run_summaries/", 1, "before"),
    AtRequest("the summary has been written", r"^PUT /{analytics}/run_summaries/", 1, "after"),
    AtCommit("the commit begins", has_committed=False),
    AtCommit("the commit is done", has_committed=True),
)

AIM_OF_STEP: Mapping[str, Aim] = {
    step: next(aim for aim in AIMS if aim.name == name)
    for step, name in {
        "read": "a raw object is read",
        "judge": "the table's days are listed",
        "stage": "a staged file is written",
        "publish: nothing yet": "the owner is looked at before the first copy",
        "publish: a part": "a copy to the table begins",
        "publish: everything": "the catalog's partitions are listed",
        "before the summary": "the summary is written",
        "after the summary": "the summary has been written",
        "before the commit": "the commit begins",
        "after the commit": "the commit is done",
    }.items()
}
"""What to aim at to hit a step; on a busy machine a kill may come too late for it."""

# What a kill hits is told by the run's traces, not by what it was aimed at.
STEPS = tuple(AIM_OF_STEP)
KILLS_IN_A_ROW_EVERY = 5


def plan(chance: random.Random, kills: int) -> list[list[Aim]]:
    """Return the rounds: in each one the aims at runs that follow one another without a success in between.

    With 30 kills every aim occurs twice, and two kills come at any time.
    """
    timed = max(2, kills // 15)
    aims: list[Aim] = []
    while len(aims) < kills - timed:
        aims += chance.sample(AIMS, min(len(AIMS), kills - timed - len(aims)))
    aims += [AtTime(round(chance.random(), 2)) for _ in range(timed)]
    chance.shuffle(aims)
    rounds: list[list[Aim]] = []
    for number, aim in enumerate(aims):
        if number % KILLS_IN_A_ROW_EVERY == KILLS_IN_A_ROW_EVERY - 1:
            rounds[-1].append(aim)
        else:
            rounds.append([aim])
    return rounds


def step_hit(log: str, *, published: int, staged: int, has_summary: bool, has_committed: bool) -> str:
    """Return which step a killed run was in.

    Args:
        log: the run's own lines, ``judge: begins`` and ``judge: done in 1.0 s``.
        published: how many files of the run are in the table and in the DLQ.
        staged: how many it had staged for them.
        has_summary: whether its summary is there.
        has_committed: whether the bookmark has moved.
    """
    if has_committed:
        return "after the commit"
    if has_summary:
        return "before the commit" if "commit: begins" in log else "after the summary"
    begun = [line.rsplit(" ", 2)[-2].rstrip(":") for line in log.splitlines() if line.endswith(": begins")]
    if not begun:
        return "start"
    if begun[-1] == "publish" or (begun[-1] == "stage" and "stage: done" in log):
        return "publish: " + ("nothing yet" if not published else "everything" if published == staged else "a part")
    return {"catalog": "publish: everything", "summary": "before the summary"}.get(begun[-1], begun[-1])
