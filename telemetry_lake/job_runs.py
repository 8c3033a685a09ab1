"""The runs of the Glue job, as its history has them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from telemetry_lake.console import OperatorError
from telemetry_lake.target import Target

if TYPE_CHECKING:
    from mypy_boto3_glue.type_defs import JobRunTypeDef

ACTIVE_STATES = ("STARTING", "RUNNING", "STOPPING", "WAITING")
FAILED_STATES = ("FAILED", "ERROR", "TIMEOUT")
"""https://docs.aws.amazon.com/glue/latest/dg/job-run-statuses.html"""

NEWEST_RUNS = 25
"""Among how many runs an active one is looked for: the job allows one at a time."""

DPUS_OF_A_WORKER = {"G.1X": 1, "G.2X": 2}
"""https://docs.aws.amazon.com/glue/latest/webapi/API_JobRun.html"""


@dataclass(frozen=True)
class JobRun:
    """One run of the job; ``dpus`` is None where the history does not tell."""

    id: str
    state: str
    mode: str
    started: datetime
    completed: datetime | None
    error: str
    dpus: int | None

    @property
    def has_loaded(self) -> bool:
        """Whether the run read through the bookmark and moved it on."""
        return self.state == "SUCCEEDED" and self.mode == "load"


def job_runs(target: Target) -> Iterator[JobRun]:
    """Yield the job's runs, the newest first, as far back as Glue keeps them (90 days).

    https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-runs.html
    """
    pages = target.glue.get_paginator("get_job_runs").paginate(JobName=target.outputs.job_name)
    for page in pages:
        yield from map(_job_run, page["JobRuns"])


def _job_run(run: "JobRunTypeDef") -> JobRun:
    dpus_of_a_worker = DPUS_OF_A_WORKER.get(run.get("WorkerType", ""))
    workers = run.get("NumberOfWorkers")
    return JobRun(
        id=run["Id"],
        state=run["JobRunState"],
        # A run that was started without the argument has the job's default.
        mode=run.get("Arguments", {}).get("--MODE", "load"),
        started=run["StartedOn"],
        completed=run.get("CompletedOn"),
        error=run.get("ErrorMessage", ""),
        dpus=dpus_of_a_worker * workers if dpus_of_a_worker and workers else None,
    )


def assert_none_active(target: Target) -> None:
    """Make sure that no run is at work.

    Raises:
        OperatorError: one is.
    """
    active = [run for run in islice(job_runs(target), NEWEST_RUNS) if run.state in ACTIVE_STATES]
    if active:
        job = target.outputs.job_name
        raise OperatorError(
            f"The run {active[0].id} of the job {job} is at work ({active[0].state}).",
            "Wait for its end (tlake status) and try again; or stop it, which loses nothing: "
            f"aws glue batch-stop-job-run --job-name {job} --job-run-ids {active[0].id}",
        )


def last_load_before(runs: Iterable[JobRun], moment: datetime) -> JobRun | None:
    """Return the last successful load that had ended by ``moment``, None if none is known.

    Args:
        runs: the newest first.
        moment: aware of its zone.
    """
    ended = (run for run in runs if run.has_loaded and run.completed is not None and run.completed <= moment)
    return next(ended, None)
