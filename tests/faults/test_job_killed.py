"""A job that is killed at any step loses nothing and doubles nothing: the next run completes the rest."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from telemetry_lake import journey
from telemetry_lake.commands.produce import Plan, send
from telemetry_lake.pipeline import RUNNING, describe_execution, list_executions
from telemetry_lake.queries import run_query
from tests.stack import Lake

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


@pytest.mark.parametrize("step", ["judge", "stage", "publish", "catalog"])
def test_a_killed_job_loses_and_doubles_nothing(lake: Lake, step: str) -> None:
    # GIVEN new readings, good and bad, and all that earlier passages have stored
    ledger = lake.directory / "ledger.jsonl"
    known_runs = {run.name for run in runs_directory(lake).iterdir()} if runs_directory(lake).exists() else set()
    seed = len(known_runs) + 1
    send(lake.target, Plan(count=GOOD, bad=BAD, spread_hours=36, seed=seed, ledger=ledger), lake.reporter)
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    good = [json.loads(line["data"]) for line in lines if "fault" not in line]
    wanted = {(each["device_id"], each["timestamp"], each["temperature"]) for each in good}
    bad_count = len(lines) - len(good)

    # WHEN the job that the pipe started is killed at the step
    killed = kill_at(lake, step, known_runs)
    landing = journey.wait_for_landing(lake.target, len(good), bad_count, lake.reporter)
    failed = [execution for execution in wait_for_executions(lake) if execution == "FAILED"]

    # THEN its execution fails, as does the run
    assert failed
    run = lake.target.glue.get_job_run(JobName=lake.target.outputs.job_name, RunId=killed)["JobRun"]
    assert run["JobRunState"] == "FAILED"

    # AND the next execution completes the rest: every reading once, every bad record a reject
    assert journey.run_once_more(lake.target, lake.reporter).status == "SUCCEEDED"
    table = lake.target.outputs.table_name
    sql = f'SELECT device_id, "timestamp", temperature FROM {table}'  # noqa: S608
    result = run_query(lake.target, sql, lake.reporter, most_rows=100_000)
    rows = Counter((str(device), float(str(moment)), float(str(value))) for device, moment, value in result.rows)
    assert set(rows) == wanted
    assert max(rows.values()) == 1
    assert len(landing.rejects) == bad_count

    # AND one more changes nothing
    before = journey.read_table(lake.target, lake.reporter)
    assert journey.run_once_more(lake.target, lake.reporter).status == "SUCCEEDED"
    assert journey.changes_between(before, journey.read_table(lake.target, lake.reporter)) == []


def wait_for_executions(lake: Lake, seconds: float = 180.0) -> list[str]:
    """Wait until no execution runs, and return how the latest ones ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        executions = [describe_execution(lake.target, execution.arn) for execution in list_executions(lake.target)]
        if executions and all(execution.status != RUNNING for execution in executions):
            return [execution.status for execution in executions]
        time.sleep(0.5)
    raise AssertionError(f"executions still run after {seconds} s")
