"""What reading again means, which run the bookmark goes back to, and what counts as lost or doubled."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from click.testing import CliRunner
from moto import mock_aws

from telemetry_lake.cli import group
from telemetry_lake.commands.context import Context
from telemetry_lake.commands.reprocess import parse_moment
from telemetry_lake.console import OperatorError, Reporter
from telemetry_lake.job_runs import JobRun, assert_none_active, job_runs, last_load_before
from telemetry_lake.pipeline import StoredObject
from telemetry_lake.reprocess import DayRows, Look, Plan, losses, make_plan, move_bookmark_back, plan_lines
from telemetry_lake.target import Target
from tests.contracts.fakes import client_answered_by

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class FakeGlue:
    """A job with a history, the newest run first; remembers how its bookmark was reset."""

    def __init__(self, *runs: Mapping[str, Any]) -> None:
        self.runs = list(runs)
        self.resets: list[dict[str, Any]] = []

    def get_job_runs(self, JobName: str, **_: Any) -> dict[str, Any]:  # noqa: N803  the API's own name
        return {"JobRuns": self.runs}

    def get_partitions(self, **_: Any) -> dict[str, Any]:
        return {"Partitions": [{"Values": ["2026", "11", "20"]}]}

    def reset_job_bookmark(self, **request: Any) -> dict[str, Any]:
        self.resets.append(request)
        return {"JobBookmarkEntry": {"JobName": request["JobName"]}}


def run(number: int, state: str = "SUCCEEDED", **changes: Any) -> dict[str, Any]:
    """A run that started at ``number`` hours after noon and took half an hour."""
    started = NOON + number * HOUR
    ended = {} if state == "RUNNING" else {"CompletedOn": started + HOUR / 2}
    arguments = {"--MODE": "load", "--DAYS": "[]"}
    settings = {"WorkerType": "G.1X", "NumberOfWorkers": 2, "Arguments": arguments}
    return {"Id": f"jr_{number}", "JobRunState": state, "StartedOn": started, **ended, **settings, **changes}


HISTORY = (
    run(6),
    run(5, "FAILED"),
    run(4, Arguments={"--MODE": "audit"}),
    run(3),
    run(2, Arguments={}),
    run(1),
)


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    with mock_aws():
        target = Target("ap-northeast-1", None, "lake")
        outputs = SimpleNamespace(
            job_name="etl",
            raw_bucket_name="raw",
            raw_prefix="raw_data/",
            analytics_bucket_name="raw",
            curated_prefix="curated/",
            summaries_prefix="run_summaries/",
            database_name="lake",
            table_name="device_telemetry",
            rejected_table_name="rejected_readings",
            work_group_name="analytics",
            state_machine_arn="arn:m",
        )
        monkeypatch.setattr(Target, "outputs", outputs)
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="raw")
        yield target


def with_history(target: Target, *runs: Mapping[str, Any]) -> FakeGlue:
    glue = FakeGlue(*runs)
    target.__dict__["glue"] = client_answered_by("glue", glue)
    return glue


@pytest.mark.parametrize(
    ("hours", "chosen"),
    [
        (7, "jr_6"),
        (6.5, "jr_6"),
        # A run that was at work then may have read what was written since, so the one before it.
        (6.4, "jr_3"),
        (5, "jr_3"),
        (3.4, "jr_2"),
        (1.5, "jr_1"),
        (1.4, None),
    ],
)
def test_the_bookmark_goes_back_to_the_last_load_that_had_ended_by_then(
    target: Target, hours: float, chosen: str | None
) -> None:
    # GIVEN loads among a failed run and an audit
    with_history(target, *HISTORY)

    # WHEN
    found = last_load_before(job_runs(target), NOON + hours * HOUR)

    # THEN
    assert (found.id if found else None) == chosen


@pytest.mark.parametrize("state", ["STARTING", "RUNNING", "STOPPING", "WAITING"])
def test_nothing_is_touched_while_a_run_is_active(target: Target, state: str) -> None:
    # GIVEN
    with_history(target, run(1, state), run(0))

    # WHEN / THEN
    with pytest.raises(OperatorError, match=rf"jr_1 .*\({state}\).*\n.*batch-stop-job-run --job-name etl"):
        assert_none_active(target)


def test_a_history_without_an_active_run_is_free(target: Target) -> None:
    with_history(target, *HISTORY)
    assert_none_active(target)


def test_everything_is_counted_or_only_what_the_chosen_run_may_not_have_read(target: Target) -> None:
    # GIVEN two raw objects that are newer than every run of the history
    with_history(target, *HISTORY)
    for name, body in (("a", b"123"), ("b", b"45")):
        target.s3.put_object(Bucket="raw", Key=f"raw_data/{name}.gz", Body=body)
    target.s3.put_object(Bucket="raw", Key="firehose_errors/c", Body=b"not raw")
    written = target.s3.head_object(Bucket="raw", Key="raw_data/a.gz")["LastModified"]
    later = replace(next(job_runs(target)), started=written + HOUR, completed=written + 2 * HOUR)
    with_history(
        target,
        run(0, Id=later.id, StartedOn=later.started, CompletedOn=later.completed),
        *HISTORY,
    )
    quiet = Reporter(quiet=True)

    # WHEN
    everything = make_plan(target, None, quiet)
    nothing = make_plan(target, written + 3 * HOUR, quiet)
    some = make_plan(target, NOON + 7 * HOUR, quiet)

    # THEN
    assert (everything.after, everything.objects, everything.size_bytes) == (None, 2, 5)
    assert everything.earliest == written
    assert (nothing.after, nothing.objects) == (later, 0)
    assert (some.after.id if some.after else None, some.objects) == ("jr_6", 2)
    assert everything.dpus == 2


@pytest.mark.parametrize(
    ("after", "request_sent"), [(None, {"JobName": "etl"}), ("jr_3", {"JobName": "etl", "RunId": "jr_3"})]
)
def test_the_bookmark_is_reset_as_planned(target: Target, after: str | None, request_sent: dict[str, str]) -> None:
    # GIVEN
    glue = with_history(target, *HISTORY)
    chosen = next((each for each in job_runs(target) if each.id == after), None)

    # WHEN
    move_bookmark_back(target, Plan(chosen, 1, 1, NOON, 2))

    # THEN
    assert glue.resets == [request_sent]


def test_the_plan_says_what_is_read_since_when_and_what_it_costs_at_least() -> None:
    # GIVEN
    load = JobRun("jr_3", "SUCCEEDED", "load", NOON, NOON + HOUR, "", 2)

    # WHEN
    some = dict(plan_lines(Plan(load, 1234, 5_600_000, NOON, 2), NOON, "etl"))
    everything = dict(plan_lines(Plan(None, 1, 1, NOON, None), None, "etl"))
    unknown = dict(plan_lines(Plan(None, 1, 1, NOON, 10), NOON, "etl"))

    # THEN two DPUs for a minute at $0.44 an hour are 1.5 cents
    assert some["bookmark"] == "of the job etl goes back to the end of the run jr_3 (2026-11-20 13:00:00 UTC)"
    assert some["read again"] == "1,234 raw objects, 5.6 MB, the first written 2026-11-20 12:00:00 UTC"
    assert some["cost"].startswith("$0.015 at least: 2 DPUs")
    assert everything["bookmark"].endswith("goes back to the beginning")
    assert "cost" not in everything
    assert "no load that ended by 2026-11-20 12:00:00 UTC is on record" in unknown["bookmark"]
    assert unknown["cost"].startswith("$0.073 at least")


class FakeAthena:
    """Counts of one day and of the rejects, as the table has them at the time."""

    def __init__(self, day: tuple[int, int]) -> None:
        self.day = day
        self.queries: list[str] = []

    def start_query_execution(self, QueryString: str, **_: Any) -> dict[str, Any]:  # noqa: N803  the API's own name
        self.queries.append(QueryString)
        return {"QueryExecutionId": str(len(self.queries) - 1)}

    def get_query_execution(self, **_: Any) -> dict[str, Any]:
        return {"QueryExecution": {"Status": {"State": "SUCCEEDED"}}}

    def get_query_results(self, QueryExecutionId: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        is_reject_count = "reject_id" in self.queries[int(QueryExecutionId)]
        values = ["3"] if is_reject_count else ["2026", "11", "20", *map(str, self.day)]
        return {"ResultSet": {"Rows": [{"Data": [{"VarCharValue": value} for value in values]}]}}


class FakeStates:
    """An execution that ends as it is told, after it has done what a run does."""

    def __init__(self, status: str, effect: Callable[[], None]) -> None:
        self.status = status
        self.effect = effect

    def start_execution(self, **_: Any) -> dict[str, Any]:
        self.effect()
        return {"executionArn": "arn:e", "startDate": NOON}

    def describe_execution(self, **_: Any) -> dict[str, Any]:
        failed = {"error": "States.TaskFailed", "cause": "out of memory"} if self.status == "FAILED" else {}
        names = {"executionArn": "arn:e", "stateMachineArn": "arn:m", "name": "e"}
        return {**names, "status": self.status, "startDate": NOON, "stopDate": NOON, **failed}


@pytest.mark.parametrize(
    ("status", "after", "exit_code", "said"),
    [
        ("SUCCEEDED", (5, 5), 0, "Nothing was missing, and nothing was stored twice."),
        ("SUCCEEDED", (4, 4), 1, "2026-11-20 has lost 1 readings"),
        ("SUCCEEDED", (6, 5), 1, "2026-11-20 holds 1 readings twice"),
        ("FAILED", (5, 5), 1, "out of memory\nThe bookmark stays moved back"),
    ],
)
def test_the_command_compares_what_is_stored_before_and_after(  # noqa: PLR0917 - most are fixtures
    target: Target,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    after: tuple[int, int],
    exit_code: int,
    said: str,
) -> None:
    # GIVEN a table of five rows, and a run that leaves it as `after` says, with its summary
    glue = with_history(target, *HISTORY)
    athena = FakeAthena((5, 5))
    summary = {
        "mode": "load",
        "started_at": "2026",
        "job_run_id": "jr_7",
        "counts": {"lines": 5, "duplicate": 5, "new": 0},
    }

    def load() -> None:
        athena.day = after
        target.s3.put_object(Bucket="raw", Key="run_summaries/jr_7.json", Body=json.dumps(summary).encode())

    target.s3.put_object(Bucket="raw", Key="run_summaries/jr_6.json", Body=b"an older one is not read")
    target.__dict__["athena"] = client_answered_by("athena", athena)
    target.__dict__["stepfunctions"] = client_answered_by("stepfunctions", FakeStates(status, load))
    monkeypatch.setattr(Context, "target", target)

    # WHEN
    result = CliRunner().invoke(group, ["reprocess", "--yes"])

    # THEN
    assert result.exit_code == exit_code
    assert said in result.stderr
    assert glue.resets == [{"JobName": "etl"}]
    if status == "SUCCEEDED":
        assert f"rows\t5\t{after[0]}\t{after[0] - 5:+d}" in result.stdout
        assert "Read by 1 run(s): duplicate 5, lines 5, new 0." in result.stderr


@pytest.mark.parametrize(
    ("runs", "words", "said"),
    [
        ((run(1, "RUNNING"), run(0)), ("--yes",), "jr_1 of the job etl is at work"),
        (HISTORY, (), "Nothing was done"),
        (HISTORY, ("--from", "yesterday"), "is no time such as"),
    ],
)
def test_the_command_touches_nothing_when_it_may_not(
    target: Target,
    monkeypatch: pytest.MonkeyPatch,
    runs: tuple[Mapping[str, Any], ...],
    words: tuple[str, ...],
    said: str,
) -> None:
    # GIVEN
    glue = with_history(target, *runs)
    monkeypatch.setattr(Context, "target", target)

    # WHEN nobody is there to be asked
    result = CliRunner().invoke(group, ["--quiet", "reprocess", *words])

    # THEN
    assert result.exit_code != 0
    assert said in result.stderr
    assert glue.resets == []


def stored(*names: str) -> list[StoredObject]:
    return [StoredObject(name, 1, f"etag of {name}", NOON) for name in names]


DAY, OTHER_DAY = ("2026", "11", "20"), ("2026", "11", "21")
BEFORE = Look({DAY: DayRows(5, 5), OTHER_DAY: DayRows(2, 2)}, stored("a", "b"), 3, frozenset({"s1"}))

Change = Callable[[Look], Look]


@pytest.mark.parametrize(
    "change",
    [
        lambda look: look,
        lambda look: replace(look, days={**look.days, DAY: DayRows(6, 6)}, files=stored("a", "b", "c"), rejects=4),
        lambda look: replace(look, days={**look.days, ("2026", "12", "1"): DayRows(1, 1)}),
    ],
)
def test_what_is_as_it_was_or_more_is_no_loss(change: Change) -> None:
    assert losses(BEFORE, change(BEFORE)) == []


@pytest.mark.parametrize(
    ("change", "loss"),
    [
        (lambda look: replace(look, days={DAY: DayRows(5, 5)}), "the partition 2026-11-21 is gone"),
        (lambda look: replace(look, days={**look.days, DAY: DayRows(4, 4)}), "2026-11-20 has lost 1 readings"),
        (lambda look: replace(look, days={**look.days, DAY: DayRows(6, 5)}), "2026-11-20 holds 1 readings twice"),
        (lambda look: replace(look, files=stored("a")), "1 Parquet file(s) are gone or changed, such as b"),
        (
            lambda look: replace(look, files=[replace(each, etag="other") for each in stored("a", "b")]),
            "2 Parquet file(s) are gone or changed, such as a",
        ),
        (lambda look: replace(look, rejects=1), "2 rejects are gone"),
        # As many rows as before, one of them in the place of another.
        (
            lambda look: replace(look, days={DAY: DayRows(5, 4), OTHER_DAY: DayRows(2, 2)}),
            "2026-11-20 has lost 1 readings",
        ),
    ],
)
def test_each_loss_and_each_double_is_named(change: Change, loss: str) -> None:
    assert loss in losses(BEFORE, change(BEFORE))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T05:00", datetime(2026, 11, 20, 5, tzinfo=UTC)),
        ("2026-11-20T05:00:00+09:00", datetime(2026, 11, 19, 20, tzinfo=UTC)),
        ("2026-11-20T05:00:00Z", datetime(2026, 11, 20, 5, tzinfo=UTC)),
    ],
)
def test_a_moment_is_utc_unless_it_says_otherwise(text: str, moment: datetime) -> None:
    assert parse_moment(text) == moment
