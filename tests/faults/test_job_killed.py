"""A job that is killed at any step loses nothing and doubles nothing: the next run completes the rest."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from telemetry_lake import journey
from telemetry_lake.commands.produce import Plan, send
from telemetry_lake.commands.verify import check
from telemetry_lake.ledger import read_ledger
from telemetry_lake.pipeline import RUNNING, describe_execution, list_executions
from tests.stack import Lake, ledgers

GOOD = 300
BAD = 13


def runs_directory(lake: Lake) -> Path:
    return lake.laptop.directory / "data" / "glue" / "runs"


def kill_at(lake: Lake, step: str, known_runs: set[str], seconds: float = 120.0) -> str:
    """Wait for a run that is not among ``known_runs`` to begin ``step``, and kill its process group."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for run in runs_directory(lake).iterdir() if runs_directory(lake).exists() else ():
            log = run / "stdout.log"
            if run.name not in known_runs and log.exists() and f"{step}: begins" in log.read_text():
                os.killpg(int((run / "pid").read_text()), signal.SIGKILL)
                return run.name
        time.sleep(0.002)
    raise AssertionError(f"no run reached {step!r} within {seconds} s")


def test_a_killed_job_fails_its_execution_and_loses_and_doubles_nothing(lake: Lake) -> None:
    """One step stands for all: ``make crash-proof`` kills at every one of them."""
    # GIVEN new readings, good and bad, and all that earlier passages have stored
    ledger = lake.directory / "ledger.jsonl"
    known_runs = {run.name for run in runs_directory(lake).iterdir()} if runs_directory(lake).exists() else set()
    seed = len(known_runs) + 1
    send(lake.target, Plan(count=GOOD, bad=BAD, spread_hours=36, seed=seed, ledger=ledger), lake.reporter)
    entries = list(read_ledger(ledger))
    bad_count = sum(entry.fault is not None for entry in entries)

    # WHEN the job that the pipe started is killed while it publishes
    killed = kill_at(lake, "publish", known_runs)
    journey.wait_for_landing(lake.target, len(entries) - bad_count, bad_count, lake.reporter)
    failed = [execution for execution in wait_for_executions(lake) if execution == "FAILED"]

    # THEN its execution fails, as does the run
    assert failed
    run = lake.target.glue.get_job_run(JobName=lake.target.outputs.job_name, RunId=killed)["JobRun"]
    assert run["JobRunState"] == "FAILED"

    # AND the next execution completes the rest: every reading once, every bad record a reject
    assert journey.run_once_more(lake.target, lake.reporter).status == "SUCCEEDED"
    verification = check(lake.target, ledgers(lake), lake.reporter)
    assert verification.verdict == "conserved", verification

    # AND one more changes nothing
    before = journey.read_table(lake.target, lake.reporter)
    assert journey.run_once_more(lake.target, lake.reporter).status == "SUCCEEDED"
    assert journey.changes_between(before, journey.read_table(lake.target, lake.reporter)) == []


def test_runs_that_are_started_at_once_are_one_run(lake: Lake) -> None:
    # GIVEN a job of which one run at a time is allowed
    glue, job_name = lake.target.glue, lake.target.outputs.job_name

    # WHEN several are started at once
    def start(_number: int) -> str:
        try:
            return str(glue.start_job_run(JobName=job_name)["JobRunId"])
        except glue.exceptions.ConcurrentRunsExceededException:
            return ""

    with ThreadPoolExecutor(max_workers=4) as pool:
        started = [run_id for run_id in pool.map(start, range(4)) if run_id]

    # THEN one is, the others are told so, and it ends well
    assert len(started) == 1
    deadline = time.monotonic() + 120
    while (state := glue.get_job_run(JobName=job_name, RunId=started[0])["JobRun"]["JobRunState"]) != "SUCCEEDED":
        assert state in ("STARTING", "RUNNING")
        assert time.monotonic() < deadline
        time.sleep(0.2)


def wait_for_executions(lake: Lake, seconds: float = 180.0) -> list[str]:
    """Wait until no execution runs, and return how the latest ones ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        executions = [describe_execution(lake.target, execution.arn) for execution in list_executions(lake.target)]
        if executions and all(execution.status != RUNNING for execution in executions):
            return [execution.status for execution in executions]
        time.sleep(0.5)
    raise AssertionError(f"executions still run after {seconds} s")
