"""Runs of the deployed job that are started by StartJobRun, killed, and looked at afterwards."""

import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from tests.crash_proof import file_events
from tests.crash_proof.aims import Aim, AtCommit, AtRequest, AtTime, step_hit
from tests.crash_proof.stored import list_keys
from tests.stack import Lake

ACTIVE = ("STARTING", "RUNNING", "STOPPING", "WAITING")
RUN_SECONDS = 600.0
CONTROL_PATH = "/_telemetry_lake/job-kill"
STAGED_FILE = re.compile(r"^(?!.*/_temporary/).*/part-[^/]*\.(parquet|txt\.gz)$")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its state as Glue tells it, and what its traces say."""

    run_id: str
    state: str
    message: str
    seconds: float
    step: str
    published: int
    staged: int

    @property
    def was_killed(self) -> bool:
        """Whether it ended by SIGKILL (137 is 128 and the signal's number)."""
        return self.state == "FAILED" and self.message.endswith("exit code 137")


class Runs:
    """The job of a deployed stack."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._glue = lake.target.glue
        self._outputs = lake.target.outputs
        self._directory = lake.laptop.directory / "data" / "glue"
        self._control = f"{lake.target.laptop_url}{CONTROL_PATH}"

    @property
    def bookmark(self) -> Path:
        """The file that the endpoint keeps the job's bookmark in."""
        return self._directory / "bookmarks" / f"{quote(self._outputs.job_name, safe='')}.json"

    def start(self, **arguments: str) -> str:
        """Start a run, ``start(MODE="audit")``, and return its id."""
        given = {f"--{name}": value for name, value in arguments.items()}
        return self._glue.start_job_run(JobName=self._outputs.job_name, Arguments=given)["JobRunId"]

    def succeed(self, **arguments: str) -> Outcome:
        """Carry out a run that nobody disturbs."""
        outcome = self.wait(self.start(**arguments), self._bookmark())
        assert outcome.state == "SUCCEEDED", outcome
        return outcome

    def kill(self, aim: Aim, occurrence: int, whole_seconds: float) -> Outcome:
        """Start a run, kill it where ``aim`` says, and return how it ended; it may have missed what it aimed at.

        Args:
            aim: where.
            occurrence: at which of several requests of the kind.
            whole_seconds: how long an undisturbed run takes.
        """
        before = self._bookmark()
        started: list[str] = []

        def kill_now() -> None:
            self._signal(started[0], signal.SIGKILL)

        with self._armed(aim, occurrence), self._watching_commit(aim, kill_now):
            started.append(self.start())
            if isinstance(aim, AtTime):
                self._wait_for_process(started[0])
                time.sleep(aim.share * whole_seconds)
                kill_now()
            return self.wait(started[0], before)

    def let_time_run_out(self, seconds_before: float) -> Outcome:
        """Start a run that may take a minute, and let its processes stand still after ``seconds_before``."""
        before = self._bookmark()
        run_id = self._glue.start_job_run(JobName=self._outputs.job_name, Timeout=1)["JobRunId"]
        self._wait_for_process(run_id)
        time.sleep(seconds_before)
        self._signal(run_id, signal.SIGSTOP)
        return self.wait(run_id, before)

    def wait(self, run_id: str, bookmark_before: str) -> Outcome:
        """Wait for a run's end."""
        run: Mapping[str, Any] = {"JobRunState": "STARTING"}
        deadline = time.monotonic() + RUN_SECONDS
        while run["JobRunState"] in ACTIVE:
            assert time.monotonic() < deadline, f"{run_id} has not ended after {RUN_SECONDS:.0f} s"
            time.sleep(0.1)
            run = self._glue.get_job_run(JobName=self._outputs.job_name, RunId=run_id)["JobRun"]
        return self._outcome(run_id, run, bookmark_before)

    def _outcome(self, run_id: str, run: Mapping[str, Any], bookmark_before: str) -> Outcome:
        s3, outputs = self._lake.target.s3, self._outputs
        bucket = outputs.analytics_bucket_name
        keys = [*list_keys(s3, bucket, outputs.curated_prefix), *list_keys(s3, bucket, outputs.dlq_prefix)]
        published = sum(f"/{run_id}-" in key for key in keys)
        staged = sum(STAGED_FILE.search(key) is not None for key in list_keys(s3, bucket, f"staging/{run_id}/"))
        return Outcome(
            run_id,
            str(run["JobRunState"]),
            str(run.get("ErrorMessage", "")),
            (run["CompletedOn"] - run["StartedOn"]).total_seconds(),
            step_hit(
                (self._run_directory(run_id) / "stdout.log").read_text(),
                published=published,
                staged=staged,
                has_summary=bool(list_keys(s3, bucket, f"{outputs.summaries_prefix}{run_id}.json")),
                has_committed=self._bookmark() != bookmark_before,
            ),
            published,
            staged,
        )

    def _signal(self, run_id: str, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has ended by itself, and its state says so
            os.killpg(int((self._run_directory(run_id) / "pid").read_text()), number)

    def _run_directory(self, run_id: str) -> Path:
        return self._directory / "runs" / run_id

    def _bookmark(self) -> str:
        return self.bookmark.read_text() if self.bookmark.exists() else ""

    def _wait_for_process(self, run_id: str) -> None:
        deadline = time.monotonic() + RUN_SECONDS
        while not (self._run_directory(run_id) / "pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @contextmanager
    def _armed(self, aim: Aim, occurrence: int) -> Iterator[None]:
        if not isinstance(aim, AtRequest):
            yield
            return
        outputs = self._outputs
        request = aim.request.replace("{raw}", re.escape(outputs.raw_bucket_name))
        request = request.replace("{analytics}", re.escape(outputs.analytics_bucket_name))
        point: dict[str, Any] = {"request": request, "occurrence": occurrence, "moment": aim.moment}
        requests.put(self._control, json=point, timeout=30).raise_for_status()
        try:
            yield
        finally:
            requests.delete(self._control, timeout=30).raise_for_status()

    def _watching_commit(self, aim: Aim, action: Any) -> Any:
        if not isinstance(aim, AtCommit):
            return nullcontext()
        self.bookmark.parent.mkdir(parents=True, exist_ok=True)
        event = file_events.MOVED_TO if aim.has_committed else file_events.CREATED
        return file_events.watching(self.bookmark.parent, event, action)
