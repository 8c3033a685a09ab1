"""Reruns from the console's point of view: whatever is started or redriven, the table is the same in the end.

The tests share their stack with those of other modules, so each looks at what is its own, by its devices.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from telemetry_lake import journey
from telemetry_lake.checklist import Step, walk
from telemetry_lake.pipeline import (
    RUNNING,
    Execution,
    describe_execution,
    list_executions,
    list_objects,
    partition_text,
    partition_values,
    read_summaries,
    start_execution,
    ticks,
)
from telemetry_lake.queries import run_query
from tests.e2e.test_upkeep import put_raw, put_readings, rows_by_device, run, settle
from tests.stack import Lake, tlake, without_grant

WAIT_SECONDS = 300.0
DAY_SECONDS = 86_400
# Days that no other test has readings of.
REDRIVEN_DAY = 1_788_264_000  # 2026-09-01T12:00:00Z
UNREGISTERED_DAY = REDRIVEN_DAY + DAY_SECONDS


def ended(lake: Lake, arn: str) -> Execution:
    for _ in ticks(WAIT_SECONDS):
        execution = describe_execution(lake.target, arn)
        if execution.status != RUNNING:
            return execution
    raise AssertionError(f"{arn} has not ended")


def put_day(lake: Lake, device: str, noon: int, count: int = 5) -> str:
    """Put readings of one day into the raw zone and return their object's key."""
    lines = (json.dumps({"device_id": device, "temperature": n / 4, "timestamp": noon + n}) for n in range(count))
    return put_raw(lake, device, gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def execution_for(lake: Lake, key: str) -> Execution:
    """The newest execution that the pipe started for a raw object, once everything has ended."""
    settle(lake, key)
    return next(each for each in list_executions(lake.target, 20) if key in each.object_keys)


# ---------------------------------------------------------------- old input, {}, and while another runs


@pytest.fixture(scope="module")
def loaded(lake: Lake) -> Execution:
    """An execution that has loaded 20 readings."""
    return execution_for(lake, put_readings(lake, "rerun-a", 20))


def test_an_execution_can_be_read(lake: Lake, loaded: Execution) -> None:
    # GIVEN / WHEN
    description = lake.target.stepfunctions.describe_execution(executionArn=loaded.arn)
    asked, said = json.loads(description["input"]), json.loads(description["output"])

    # THEN its input names the objects, and its output says in a few lines what came of it
    assert asked[0].keys() == {"key", "size"}
    assert (said["outcome"], said["rejected_by_reason"], said["partition_count"]) == ("loaded", {}, 2)
    assert said["counts"] == {"lines": 20, "new": 20, "duplicate": 0, "rejected": 0}
    assert said["job_run_id"].startswith("jr_")
    assert all(check.keys() >= {"name", "value"} for check in said["checks"])
    assert len(description["output"]) < 10_000


def test_old_input_and_other_input_at_the_same_time_leave_the_table_as_it_is(lake: Lake, loaded: Execution) -> None:
    # GIVEN
    old_input = json.loads(lake.target.stepfunctions.describe_execution(executionArn=loaded.arn)["input"])
    before = journey.read_table(lake.target, lake.reporter)

    # WHEN it is started again as it was, and others while it runs
    inputs: tuple[Any, ...] = (old_input, {}, {"trigger": "schedule"}, old_input)
    first = start_execution(lake.target, inputs[0])
    for _ in ticks(WAIT_SECONDS):
        # Several that start the job at the same moment wait a minute: tests/faults/test_job_killed.py.
        if (
            lake.target.glue.get_job_runs(JobName=lake.target.outputs.job_name)["JobRuns"][0]["JobRunState"]
            == "RUNNING"
        ):
            break
    arns = [first, *(start_execution(lake.target, each) for each in inputs[1:])]
    executions = [ended(lake, arn) for arn in arns]

    # THEN each ends well, by its own load or by that of another
    assert [execution.status for execution in executions] == ["SUCCEEDED"] * len(inputs)
    outcomes = [json.loads(execution.output)["outcome"] for execution in executions]
    assert set(outcomes) == {"loaded", "coalesced"}

    # AND the table is as it was
    assert journey.changes_between(before, journey.read_table(lake.target, lake.reporter)) == []
    assert rows_by_device(lake, "rerun-a") == {"rerun-a": 20}


# ---------------------------------------------------------------- redrive from every state that can fail


@dataclass
class Breakages:
    """What makes a state fail, by its name; each is mended by itself, the first state's first."""

    mends: dict[str, ExitStack] = field(default_factory=dict)

    def add(self, state: str, breakage: AbstractContextManager[None]) -> None:
        self.mends[state] = ExitStack()
        self.mends[state].enter_context(breakage)

    def mend(self, state: str) -> None:
        self.mends.pop(state).close()

    def mend_all(self) -> None:
        for state in reversed(list(self.mends)):
            self.mend(state)


@contextmanager
def summaries_elsewhere(lake: Lake) -> Iterator[None]:
    """Let the job write its summaries where the state machine does not look; afterwards put them there."""
    glue, s3, outputs = lake.target.glue, lake.target.s3, lake.target.outputs
    job = glue.get_job(JobName=outputs.job_name)["Job"]
    fixed = ("Name", "CreatedOn", "LastModifiedOn", "AllocatedCapacity", "MaxCapacity", "ProfileName")
    usual: Any = {name: value for name, value in job.items() if name not in fixed}
    elsewhere = f"settings/{outputs.summaries_prefix}"
    argument = {"--SUMMARIES_S3": f"s3://{outputs.analytics_bucket_name}/{elsewhere}"}
    changed = usual | {"DefaultArguments": usual["DefaultArguments"] | argument}
    glue.update_job(JobName=outputs.job_name, JobUpdate=changed)
    try:
        yield
    finally:
        glue.update_job(JobName=outputs.job_name, JobUpdate=usual)
        bucket = outputs.analytics_bucket_name
        for entry in s3.list_objects_v2(Bucket=bucket, Prefix=elsewhere).get("Contents", []):
            place = entry["Key"].removeprefix("settings/")
            s3.copy_object(Bucket=bucket, Key=place, CopySource={"Bucket": bucket, "Key": entry["Key"]})


def failed_state(lake: Lake, arn: str) -> str:
    """The state at which an execution has failed: the last one that it entered."""
    events = lake.target.stepfunctions.get_execution_history(executionArn=arn, reverseOrder=True)["events"]
    return next(each["stateEnteredEventDetails"]["name"] for each in events if "stateEnteredEventDetails" in each)


WAYS_TO_FAIL: dict[str, Callable[[Lake], AbstractContextManager[None]]] = {
    "LookForRunningJob": lambda lake: without_grant(lake, "PipelineRole", "glue:GetJobRuns"),
    "RunJob": lambda lake: without_grant(lake, "EtlRole", "s3:PutObject"),
    "ReadRunSummary": summaries_elsewhere,
    "LookAtCrawler": lambda lake: without_grant(lake, "PipelineRole", "glue:GetCrawler"),
    "LookAtPartitions": lambda lake: without_grant(lake, "PipelineRole", "glue:BatchGetPartition"),
    "StartCrawler": lambda lake: without_grant(lake, "PipelineRole", "glue:StartCrawler"),
    "CheckWithAthena": lambda lake: without_grant(lake, "AthenaCheckRole", "athena:StartQueryExecution"),
}


def test_every_task_has_a_way_to_fail() -> None:
    definition = json.loads((Path(__file__).parents[2] / "statemachine" / "pipeline.asl.json").read_text())
    tasks = [name for name, state in definition["States"].items() if state["Type"] == "Task"]
    # A load does not come to the check of whole days, which has a test of its own.
    assert tasks == [*WAYS_TO_FAIL, "CheckDays"]


@pytest.fixture
def breakages(lake: Lake) -> Iterator[Breakages]:
    """Every state that can fail is broken, the last one first."""
    broken = Breakages()
    try:
        for state in reversed(WAYS_TO_FAIL):
            broken.add(state, WAYS_TO_FAIL[state](lake))
        yield broken
    finally:
        broken.mend_all()


def test_an_execution_is_redriven_from_every_state_that_can_fail(lake: Lake, breakages: Breakages) -> None:
    # GIVEN readings of a new day, whose execution fails at the first of its states, all of which are broken
    execution = execution_for(lake, put_day(lake, "rerun-b", REDRIVEN_DAY))

    # WHEN each cause is mended and the execution is redriven
    for state in WAYS_TO_FAIL:
        assert (execution.status, failed_state(lake, execution.arn)) == ("FAILED", state), execution
        breakages.mend(state)
        lake.target.stepfunctions.redrive_execution(executionArn=execution.arn)
        execution = ended(lake, execution.arn)

    # THEN it succeeds in the end, with the readings in the table once, and visible
    assert (execution.status, execution.error) == ("SUCCEEDED", "")
    description = lake.target.stepfunctions.describe_execution(executionArn=execution.arn)
    assert description["redriveCount"] == len(WAYS_TO_FAIL)
    assert json.loads(execution.output)["counts"]["new"] == 5
    assert rows_by_device(lake, "rerun-b") == {"rerun-b": 5}


def test_a_check_of_days_is_redriven(lake: Lake) -> None:
    # GIVEN a day whose rows something else has doubled
    settle(lake)
    s3, bucket = lake.target.s3, lake.target.outputs.analytics_bucket_name
    key, day = next(
        (stored.key, day)
        for stored in list_objects(s3, bucket, lake.target.outputs.curated_prefix)
        if (day := date(*map(int, re.findall(r"=([0-9]+)/", stored.key)))) < datetime.now(UTC).date()
    )
    copy = key.replace(".snappy.parquet", "-doubled.snappy.parquet")
    s3.copy_object(Bucket=bucket, Key=copy, CopySource={"Bucket": bucket, "Key": key})
    given = {"mode": "check", "days": [day.isoformat()]}
    execution = ended(lake, start_execution(lake.target, given))
    assert (execution.status, failed_state(lake, execution.arn)) == ("FAILED", "CheckDays"), execution

    # WHEN that is mended
    s3.delete_object(Bucket=bucket, Key=copy)
    lake.target.stepfunctions.redrive_execution(executionArn=execution.arn)
    execution = ended(lake, execution.arn)

    # THEN
    assert execution.status == "SUCCEEDED"
    assert json.loads(execution.output)["outcome"] == "checked"


def test_a_check_of_a_day_that_goes_on_is_refused_for_what_it_is(lake: Lake) -> None:
    # WHEN
    given = {"mode": "check", "days": [datetime.now(UTC).date().isoformat()]}
    execution = ended(lake, start_execution(lake.target, given))

    # THEN the load before it has done its work
    assert (execution.status, execution.error) == ("FAILED", "UnusableDaysError")
    assert failed_state(lake, execution.arn) == "CheckDays"
    assert "a check judges days of the table, in UTC, that are over" in execution.cause


def test_after_a_crawl_that_failed_for_good_a_new_execution_does_the_rest(lake: Lake) -> None:
    # GIVEN a crawler that may not add partitions, and readings of a new day
    with without_grant(lake, "CrawlerRole", "glue:BatchCreatePartition"):
        execution = execution_for(lake, put_day(lake, "rerun-c", REDRIVEN_DAY + 2 * DAY_SECONDS))

        # WHEN / THEN three crawls have failed, and status says what to do
        assert (execution.status, execution.error) == ("FAILED", "CrawlFailed")
        exit_code, status, _ = tlake(lake, "status", "--json")
        assert exit_code == 1
        assert any("start-execution" in problem["next_step"] for problem in status["problems"])
    assert rows_by_device(lake, "rerun-c") == {}

    # WHEN the crawler may, and the pipeline is started anew
    assert run(lake, {}).status == "SUCCEEDED"

    # THEN, and what was redriven before is as it was
    assert rows_by_device(lake, "rerun-b", "rerun-c") == {"rerun-b": 5, "rerun-c": 5}


# ---------------------------------------------------------------- the table is there, and has no rows


def step_of_the_crawler(lake: Lake) -> Step:
    return walk(lake.target, 1, lake.reporter)[3]


def test_a_day_without_its_partition_has_no_rows_until_it_is_registered(lake: Lake) -> None:
    # GIVEN a day that is loaded
    settle(lake, put_day(lake, "rerun-d", UNREGISTERED_DAY))
    assert rows_by_device(lake, "rerun-d") == {"rerun-d": 5}
    outputs = lake.target.outputs
    (values,) = (each for each in partition_values(lake.target) if partition_text(each) == "2026-09-02")

    def mend_by_statement() -> None:
        run_query(lake.target, f"MSCK REPAIR TABLE {outputs.table_name}", lake.reporter)

    def mend_by_execution() -> None:
        run(lake, {})

    for mend in (mend_by_statement, mend_by_execution):
        # WHEN its partition is gone from the catalog, THEN Athena has no rows of it, and the checklist says why
        lake.target.glue.delete_partition(
            DatabaseName=outputs.database_name, TableName=outputs.table_name, PartitionValues=list(values)
        )
        assert rows_by_device(lake, "rerun-d") == {}
        assert "1 folders with files have no partition: 2026-09-02" in step_of_the_crawler(lake).finding.faults

        # WHEN it is registered again, THEN they are there
        mend()
        assert rows_by_device(lake, "rerun-d") == {"rerun-d": 5}
    crawler = step_of_the_crawler(lake).finding
    assert (crawler.faults, crawler.measured["registered_by_this_crawl"]) == ((), ["2026-09-02"])


def test_every_run_adds_a_file_to_its_day_however_many_objects_it_reads(lake: Lake) -> None:
    # GIVEN two more objects of the day that the last test has loaded
    settle(lake, *(put_day(lake, f"rerun-{name}", UNREGISTERED_DAY + 100) for name in "ef"))

    # WHEN
    sql = (
        f'SELECT count(DISTINCT "$path"), count(*) FROM {lake.target.outputs.table_name} '  # noqa: S608
        "WHERE year = 2026 AND month = 9 AND day = 2"
    )
    ((files, rows),) = run_query(lake.target, sql, lake.reporter).rows

    # THEN
    runs = [
        summary["job_run_id"]
        for summary in read_summaries(lake.target)
        if any((day["month"], day["day"]) == (9, 2) and day["new"] for day in summary["partitions"])
    ]
    assert (int(rows or 0), int(files or 0)) == (15, len(runs))
    assert len(runs) >= 2


def test_in_the_end_every_reading_is_there_once(lake: Lake) -> None:
    table = journey.read_table(lake.target, lake.reporter)
    assert table.rows == table.distinct_readings
