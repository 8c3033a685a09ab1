"""The endpoint is killed, with everything in it: what was acknowledged arrives, and nothing is stuck or doubled.

A lake of its own, since every kill takes it down.
"""

import os
import signal
from collections.abc import Iterator

import pytest

from telemetry_lake import journey
from telemetry_lake.commands.produce import Plan, send
from telemetry_lake.commands.verify import check
from telemetry_lake.laptop import port_is_free
from telemetry_lake.pipeline import describe_execution, newest_summary, start_execution, ticks
from telemetry_lake.toolchain import project_directory
from tests.stack import Lake, deployed_lake, ledgers

WAIT_SECONDS = 180.0
GOOD = 400
BAD = 17


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with deployed_lake(tmp_path_factory.mktemp("killed"), "killed", parameters=["Trigger=Schedule"]) as lake:
        yield lake


def kill_and_start(lake: Lake) -> None:
    """End the endpoint as a machine that loses its power does, and start it again where it was."""
    instance = lake.laptop.instance()
    assert instance is not None
    os.kill(instance.pid, signal.SIGKILL)
    for _ in ticks(WAIT_SECONDS, 0.05):
        # The kernel closes a process's sockets some time after its memory is gone.
        if lake.laptop.instance() is None and port_is_free(instance.port):
            break
    lake.laptop.clear_stale(lake.reporter)
    lake.laptop.start(project_directory() / ".tools", instance.port, exit_with_parent=True, reporter=lake.reporter)


def is_there(process_group: int) -> bool:
    try:
        os.killpg(process_group, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_was_acknowledged_right_before_the_kill_arrives(lake: Lake) -> None:
    # GIVEN readings, of which the last was acknowledged a moment ago: Firehose has read few of them, and delivered none
    plan = Plan(count=GOOD, bad=BAD, spread_hours=30, seed=1, ledger=lake.directory / "ledger.jsonl")
    send(lake.target, plan, lake.reporter)

    # WHEN
    kill_and_start(lake)

    # THEN all of them are in the raw zone or the DLQ
    landing = journey.wait_for_landing(lake.target, GOOD, BAD, lake.reporter)
    assert len(landing.rejects) == BAD


def test_an_execution_that_ran_has_failed_and_the_next_one_completes_its_work(lake: Lake) -> None:
    # GIVEN an execution whose job runs
    outputs = lake.target.outputs
    arn = start_execution(lake.target, {})
    for _ in ticks(WAIT_SECONDS, 0.1):
        runs = lake.target.glue.get_job_runs(JobName=outputs.job_name)["JobRuns"]
        if runs and runs[0]["JobRunState"] == "RUNNING":
            break

    # WHEN
    kill_and_start(lake)

    # THEN neither the execution nor the run is stuck, and nothing of the run is left
    assert describe_execution(lake.target, arn).status == "FAILED"
    run = lake.target.glue.get_job_run(JobName=outputs.job_name, RunId=runs[0]["Id"])["JobRun"]
    assert run["JobRunState"] == "FAILED"
    pid = int((lake.laptop.directory / "data" / "glue" / "runs" / run["Id"] / "pid").read_text())
    # The kernel has them until somebody takes note of their end.
    assert any(not is_there(pid) for _ in ticks(WAIT_SECONDS, 0.1))

    # AND the next execution does its work: each reading once
    assert journey.run_once_more(lake.target, lake.reporter).status == "SUCCEEDED"
    verification = check(lake.target, ledgers(lake), lake.reporter)
    assert verification.verdict == "conserved", verification


def test_a_committed_bookmark_survives(lake: Lake) -> None:
    # GIVEN that the last run has committed, and that what it did is to be seen
    before = journey.read_table(lake.target, lake.reporter)
    summary = newest_summary(lake.target)
    assert summary is not None
    assert summary["counts"]["lines"] > 0

    # WHEN
    kill_and_start(lake)

    # THEN the next run reads nothing anew, and changes nothing
    assert journey.run_once_more(lake.target, lake.reporter).status == "SUCCEEDED"
    summary = newest_summary(lake.target)
    assert summary is not None
    assert summary["counts"]["lines"] == 0
    assert journey.changes_between(before, journey.read_table(lake.target, lake.reporter)) == []
