"""Kill the job again and again, and prove after each recovery that nothing is lost, doubled or invented.

``python -m tests.crash_proof --seed 1 --seed 2 --seed 3 --kills 30``; ``make crash-proof``. A lake of its own is
deployed to an embedded endpoint. For each seed, a run that stands still first hits its time limit. Then, in every
round, a batch arrives, a run of the job is killed by SIGKILL to its process group (sometimes the next one too), and the
run after that has to complete what is missing. In the end the job runs once more, with its bookmark reset, with its
bookmark lost and as an audit, which may change nothing; and what is stored has to equal what one undisturbed run over
all of the raw objects stores.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash_proof.aims import AIM_OF_STEP, STEPS, Aim, AtRequest, plan
from tests.crash_proof.batches import Batches
from tests.crash_proof.runs import Outcome, Runs
from tests.crash_proof.stored import Stored, list_keys, read_stored, violations
from tests.stack import Lake, deployed_lake

FULL_KILLS = 30
LEAST_HITS = 2
ATTEMPTS = 4
ARRIVAL_DAY = "2025-11-01"


class ProofError(Exception):
    """Something was lost, doubled or invented, or the proof itself did not do what it claims."""


@dataclass
class Round:
    """Where the proof is, for the lines that it prints."""

    seed: int
    kills: int
    killed: int = 0
    started: float = 0.0

    def say(self, text: str) -> None:
        """Print a line with the time since the seed's beginning."""
        print(f"seed {self.seed}  {time.monotonic() - self.started:6.0f} s  {text}", flush=True)


class Proof:
    """One seed's worth of kills on a lake that is empty in the beginning."""

    def __init__(self, lake: Lake, seed: int, kills: int) -> None:
        self._lake = lake
        self._runs = Runs(lake)
        self._chance = random.Random(seed)
        self._batches = Batches(self._chance)
        self._at = Round(seed, kills, started=time.monotonic())
        self._hits: Counter[str] = Counter()
        self._objects = 0
        self._whole_seconds = 0.0

    def carry_out(self) -> Counter[str]:
        """Do it all, and return how often each step was hit.

        Raises:
            ProofError: it does not hold.
        """
        self._arrive()
        self._whole_seconds = self._runs.succeed().seconds
        self._assert_well("the first run, undisturbed", is_caught_up=True)
        self._run_out_of_time()
        for aims in plan(self._chance, self._at.kills):
            self._disturb(aims)
        if self._at.kills >= FULL_KILLS:
            self._hit_every_step()
        self._assert_nothing_changes()
        self._assert_as_undisturbed()
        return self._hits

    def _disturb(self, aims: Sequence[Aim]) -> None:
        """Let a batch arrive, kill one run after the other, and let the last one complete what is missing."""
        self._arrive()
        for aim in aims:
            self._kill(aim)
        self._whole_seconds = min(self._whole_seconds, self._runs.succeed().seconds)
        self._assert_well("the run after it", is_caught_up=True)

    def _hit_every_step(self) -> None:
        """Aim again at steps that were hit too seldom, since a kill may come a moment too late.

        Raises:
            ProofError: one of them cannot be hit.
        """
        for step, aim in AIM_OF_STEP.items():
            for _ in range(ATTEMPTS):
                if self._hits[step] < LEAST_HITS:
                    self._disturb([aim])
            if self._hits[step] < LEAST_HITS:
                raise ProofError(f"not hit at least {LEAST_HITS} times: {step}")

    def _arrive(self) -> None:
        outputs = self._lake.target.outputs
        for body in self._batches.next():
            self._objects += 1
            key = f"{outputs.raw_prefix}{ARRIVAL_DAY.replace('-', '/')}/00/{self._objects:05d}.gz"
            self._lake.target.s3.put_object(Bucket=outputs.raw_bucket_name, Key=key, Body=body)

    def _kill(self, aim: Aim) -> None:
        """Kill a run; one that ended before it came to where it was to be killed does not count.

        Raises:
            ProofError: several runs in a row could not be killed there.
        """
        for attempt in range(ATTEMPTS):
            occurrences = aim.occurrences if isinstance(aim, AtRequest) and not attempt else 1
            # The first run of a stack is the slowest, and others may have ended by then.
            seconds = self._whole_seconds / (attempt + 1)
            outcome = self._runs.kill(aim, self._chance.randint(1, occurrences), seconds)
            if outcome.was_killed:
                self._at.killed += 1
                self._hits[outcome.step] += 1
                self._at.say(f"kill {self._at.killed:2d} of at least {self._at.kills}  {_told(aim, outcome)}")
                self._assert_well(f"the kill {outcome.step!r}", is_caught_up=False)
                return
            if outcome.state != "SUCCEEDED":
                raise ProofError(f"a run failed by itself: {outcome}")
            self._at.say(f"missed: {aim.name}; the run ended by itself")
            self._arrive()
        raise ProofError(f"no run could be killed where this was aimed at: {aim.name}")

    def _run_out_of_time(self) -> None:
        self._arrive()
        for _ in range(ATTEMPTS):
            outcome = self._runs.let_time_run_out(self._chance.uniform(0.1, 0.5) * self._whole_seconds)
            if outcome.state == "TIMEOUT":
                break
            self._at.say("missed: the run ended before it was to stand still")
            self._arrive()
        else:
            raise ProofError(f"no run stood still until its time limit: {outcome}")
        self._assert_well("a run whose time ran out", is_caught_up=False)
        self._runs.succeed()
        self._assert_well("the run after the one whose time ran out", is_caught_up=True)
        self._at.say(f"time limit hit in {outcome.step!r}: the next run completes the rest")

    def _stored(self) -> Stored:
        outputs = self._lake.target.outputs
        return read_stored(
            self._lake.target.s3, outputs.analytics_bucket_name, outputs.curated_prefix, outputs.dlq_prefix
        )

    def _assert_well(self, when: str, *, is_caught_up: bool) -> None:
        found = violations(self._stored(), self._batches.rows, self._batches.rejects, is_caught_up=is_caught_up)
        if found:
            raise ProofError(f"after {when}: {'; '.join(found)}")

    def _assert_nothing_changes(self) -> None:
        before = self._stored()
        job_name = self._lake.target.outputs.job_name
        for what in ("run once more", "bookmark reset", "bookmark lost", "audit"):
            if what == "bookmark reset":
                self._lake.target.glue.reset_job_bookmark(JobName=job_name)
            if what == "bookmark lost":
                self._runs.bookmark.unlink()
            self._runs.succeed(**({"MODE": "audit", "DAYS": f'["{ARRIVAL_DAY}"]'} if what == "audit" else {}))
            after = self._stored()
            if (after.rows, after.rejects) != (before.rows, before.rejects):
                raise ProofError(f"{what}: the table or the distinct rejects have changed")
            self._at.say(f"{what}: nothing has changed ({sum(after.rows.values()):,} rows)")

    def _assert_as_undisturbed(self) -> None:
        disturbed = self._stored()
        empty(self._lake, raw_too=False)
        self._runs.succeed()
        undisturbed = self._stored()
        if (disturbed.rows, disturbed.rejects) != (undisturbed.rows, undisturbed.rejects):
            raise ProofError("an undisturbed run over the same raw objects stores something else")
        self._at.say(
            f"as an undisturbed run: {sum(undisturbed.rows.values()):,} rows, {len(undisturbed.rejects):,} rejects"
        )


def _told(aim: Aim, outcome: Outcome) -> str:
    return f"aim: {aim.name:45s} hit: {outcome.step:20s} published: {outcome.published} of {outcome.staged}"


def empty(lake: Lake, *, raw_too: bool) -> None:
    """Delete what the job has made, and the raw objects if asked, and reset the bookmark."""
    outputs, s3 = lake.target.outputs, lake.target.s3
    places = [
        (outputs.analytics_bucket_name, prefix)
        for prefix in (outputs.curated_prefix, outputs.dlq_prefix, outputs.summaries_prefix, "staging/")
    ] + ([(outputs.raw_bucket_name, outputs.raw_prefix)] if raw_too else [])
    for bucket, prefix in places:
        for key in list_keys(s3, bucket, prefix):
            s3.delete_object(Bucket=bucket, Key=key)
    lake.target.glue.reset_job_bookmark(JobName=outputs.job_name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash_proof", description=__doc__)
    parser.add_argument("--seed", dest="seeds", type=int, action="append", help="repeatable (default: 1, 2 and 3)")
    parser.add_argument("--kills", type=int, default=FULL_KILLS, help="kills of each seed (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.kills < 1:
        parser.error("--kills is at least 1")
    return arguments


def prove(seeds: Sequence[int], kills: int, directory: Path) -> None:
    """Carry out the proof for each seed, and print what was hit."""
    hits: Counter[str] = Counter()
    # A rate would fire at once; these fire when all of this is long forgotten.
    never = "cron(0 0 1 1 ? 2199)"
    parameters = ["Trigger=Schedule", f"ScheduleExpression={never}", f"AuditSchedule={never}", f"CheckSchedule={never}"]
    with deployed_lake(directory, "crash", parameters=parameters) as lake:
        for seed in seeds:
            hits += Proof(lake, seed, kills).carry_out()
            empty(lake, raw_too=True)
    print("\nstep that was hit      kills")
    for step in sorted(hits, key=lambda each: STEPS.index(each) if each in STEPS else -1):
        print(f"{step:22s} {hits[step]:5d}")
    print(f"{'all':22s} {hits.total():5d}   seeds: {', '.join(map(str, seeds))}. Nothing lost, doubled or invented.")


def main() -> int:
    """Run the command and return its exit code."""
    arguments = _arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="crash-proof-") as directory:
            prove(arguments.seeds or (1, 2, 3), arguments.kills, Path(directory))
    except ProofError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
