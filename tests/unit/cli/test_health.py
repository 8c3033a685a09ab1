"""What needs a person, in one screen: each problem with a next command."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from telemetry_lake.commands.context import Context
from telemetry_lake.commands.status import ROWS, status
from telemetry_lake.console import Reporter, age_text
from telemetry_lake.health import JUDGES, QUESTIONS, Unanswered, problems
from telemetry_lake.target import Target


def ago(**span: float) -> datetime:
    return datetime.now(UTC) - timedelta(**span)


def execution(name: str, status: str = "SUCCEEDED", **changes: Any) -> dict[str, Any]:
    described = {
        "name": name,
        "arn": f"arn:{name}",
        "state_machine_arn": "arn:machine",
        "status": status,
        "trigger": "pipe",
        "objects": 2,
        "started": ago(minutes=10),
        "seconds": 61.2,
        "state": "",
        "error": "",
        "cause": "",
    }
    return described | changes


def stops(**changes: Any) -> dict[str, Any]:
    """The answers of a stack on which all is well; ``changes`` are taken into the answer of their name."""
    healthy: dict[str, Any] = {
        "stream": {"name": "s", "status": "ACTIVE", "mode": "ON_DEMAND", "shards": 4},
        "delivery": {"name": "d", "status": "ACTIVE", "oldest_seconds": 61.0},
        "raw_since_yesterday": {
            "objects": 5,
            "bytes": 1234,
            "newest": ago(minutes=3),
            "waiting": 2,
            "waiting_since": ago(minutes=4),
            "waits_for_events": True,
        },
        "parked_by_firehose": {"records": 3, "open": 0},
        "rejects_since_yesterday": {"distinct": 4, "open": 3, "open_by_reason": {"wrong_type": 3}},
        "trigger": {
            "waiting": 1,
            "oldest_seconds": 130.0,
            "dead_letters": 0,
            "dead_letter_queue_url": "https://sqs/dead",
            "pipe": "p",
            "pipe_state": "RUNNING",
            "pipe_reason": "",
        },
        "executions": [execution("e1")],
        "job": {
            "name": "etl",
            "run": "jr_1",
            "state": "SUCCEEDED",
            "mode": "load",
            "started": ago(minutes=9),
            "completed": ago(minutes=8),
            "error": "",
        },
        "newest_run": {"job_run_id": "jr_1", "in_words": ["Load: 5 lines."], "counts": {"lines": 5}},
        "crawler": {
            "name": "c",
            "state": "READY",
            "last_crawl": "SUCCEEDED",
            "last_crawl_started": ago(days=1),
            "error": "",
        },
        "partitions": ["2026-11-19", "2026-11-20"],
        "table": {
            "newest_reading": ago(minutes=12),
            "newest_day": "2026-11-20",
            "rows_of_newest_day": 5,
            "scanned_bytes": 40,
        },
        "alarms": [],
    }
    for name, made in changes.items():
        change = made() if callable(made) else made
        healthy[name] = healthy[name] | change if isinstance(change, dict) else change
    return healthy


def test_a_healthy_stack_has_no_problems() -> None:
    assert problems(stops()) == []
    assert problems(stops(trigger=None, executions=[], job=None, newest_run=None, table=None)) == []


ALARM = {"name": "temperature-x", "since": ago(hours=1), "reason": "3 > 0", "description": "Runbook: docs/runbook.md#x"}
PLANTED: list[tuple[str, Any, str, str]] = [
    ("stream", {"status": "DELETING"}, "The stream s is DELETING", "describe-stream-summary --stream-name s"),
    ("delivery", {"status": "CREATING_FAILED"}, "Firehose d is CREATING_FAILED", "describe-delivery-stream"),
    (
        "raw_since_yesterday",
        lambda: {"waiting_since": ago(minutes=45)},
        "2 raw object(s) wait for a load, the oldest for 45 min",
        "tlake verify --rerun",
    ),
    ("parked_by_firehose", {"open": 2}, "parked 2 record(s)", "tlake dlq replay --parked"),
    (
        "trigger",
        {"pipe_state": "STOPPED", "pipe_reason": "role denied"},
        "The pipe p is STOPPED (role denied)",
        "aws pipes start-pipe --name p",
    ),
    ("trigger", {"oldest_seconds": 3600.0}, "A trigger message has waited for 60 min", "describe-pipe --name p"),
    ("trigger", {"dead_letters": 1}, "in the dead letters", "receive-message --queue-url https://sqs/dead"),
    (
        "executions",
        [
            execution("e3", "RUNNING"),
            execution("e2", "TIMED_OUT", error="States.Timeout", cause="slow"),
            execution("e1"),
        ],
        "e2 timed_out: States.Timeout slow",
        "start-execution --state-machine-arn arn:machine --input '{}'",
    ),
    (
        "executions",
        [execution("e2", "ABORTED"), execution("e1")],
        "e2 aborted",
        "start-execution --state-machine-arn arn:machine --input '{}'",
    ),
    (
        "executions",
        [execution("e2", "FAILED", error="States.TaskFailed", cause="denied"), execution("e1")],
        "e2 failed: States.TaskFailed denied",
        "redrive-execution --execution-arn arn:e2",
    ),
    (
        "executions",
        [execution("e1", "FAILED", error="CrawlFailed", cause="three crawls")],
        "e1 failed: CrawlFailed three crawls",
        "start-execution --state-machine-arn arn:machine --input '{}'",
    ),
    ("crawler", {"last_crawl": "FAILED", "error": "denied"}, "last crawl of c failed: denied", "crawler-failed"),
    ("alarms", [ALARM], "Alarm temperature-x since", "docs/runbook.md#x"),
    (
        "alarms",
        [ALARM | {"description": "Late. Likely: a queue. Next: tlake status Runbook: docs/runbook.md#x"}],
        "Alarm temperature-x since",
        "See docs/runbook.md#x",
    ),
    ("alarms", [ALARM | {"description": ""}], "3 > 0", "describe-alarms --alarm-names temperature-x"),
    ("partitions", Unanswered("AccessDenied"), "partitions: no answer: AccessDenied", "permissions"),
    ("table", Unanswered("The query failed.", "Try again."), "table: no answer: The query failed.", "Try again."),
]


@pytest.mark.parametrize(("stop", "change", "what", "next_step"), PLANTED)
def test_each_problem_is_named_with_a_next_command(stop: str, change: Any, what: str, next_step: str) -> None:
    (problem,) = problems(stops(**{stop: change}))
    assert what in problem.what
    assert next_step in problem.next_step


def test_of_an_alarm_s_description_only_what_is_to_be_done_is_next() -> None:
    description = "Late. Likely: a queue. Next: tlake query Runbook: docs/runbook.md#x"
    (problem,) = problems(stops(alarms=[ALARM | {"description": description}]))
    assert problem.next_step == "tlake query"
    assert problem.what.endswith(" (docs/runbook.md#x)")


def test_every_judge_has_a_planted_problem() -> None:
    assert set(JUDGES) <= {stop for stop, *_ in PLANTED}


def test_a_failure_that_a_later_execution_made_good_is_no_problem() -> None:
    assert problems(stops(executions=[execution("e2"), execution("e1", "FAILED")])) == []


def test_what_waits_for_a_schedule_alone_is_no_problem() -> None:
    changes = {"waits_for_events": False, "waiting_since": ago(hours=20)}
    assert problems(stops(raw_since_yesterday=changes)) == []


def test_an_age_of_a_queue_that_is_empty_by_now_is_no_problem() -> None:
    assert problems(stops(trigger={"oldest_seconds": 3600.0, "waiting": 0})) == []


def shown(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], *words: str) -> tuple[int, str, str]:
    """Run the command on a stack that answers so."""
    monkeypatch.setattr("telemetry_lake.commands.status.collect", lambda _target, _asking: answers)
    context = Context(Path(), None, None, True, Reporter())
    context.__dict__["target"] = Target("ap-northeast-1", None, "lake")
    outcome = CliRunner().invoke(status, words, obj=context)
    return outcome.exit_code, outcome.stdout, outcome.stderr


def test_one_screen_says_healthy_fresh_and_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN / WHEN
    exit_code, screen, _ = shown(monkeypatch, stops())

    # THEN
    assert exit_code == 0
    lines = screen.splitlines()
    assert lines[0] == "healthy: yes"
    assert lines[1] == (
        "fresh:   newest reading in the table 12 min ago, newest raw object 3 min ago, "
        "last execution that succeeded 10 min ago"
    )
    assert lines[2] == (
        "stuck:   2 raw object(s) wait for a load, the oldest written 4 min ago; "
        "1 trigger message(s) wait, the oldest for 2 min"
    )
    assert len(lines) <= 24
    assert "rejects\t4 since yesterday, 3 open: wrong_type 3" in screen
    assert "trigger\tpipe RUNNING, 1 waiting, 0 dead letter(s)" in screen
    assert "alarms in ALARM\tnone" in screen


def test_what_is_wrong_is_last_with_a_next_command_and_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN
    answers = stops(trigger={"dead_letters": 1}, parked_by_firehose={"open": 2}, table=Unanswered("scan limit"))

    # WHEN
    exit_code, screen, said = shown(monkeypatch, answers)

    # THEN
    assert exit_code == 1
    assert screen.startswith("healthy: no, 3 problem(s)\n")
    assert "1 trigger dead letter(s); 2 record(s) parked by Firehose" in screen
    assert "newest reading" not in screen
    for word in ("! table: no answer: scan limit", "  next: See the entry transform-errors", "purge-queue"):
        assert word in said


def test_a_stack_that_nothing_has_come_through_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {"objects": 0, "newest": None, "waiting": 0, "waiting_since": None}
    empty = stops(raw_since_yesterday=raw, executions=[], table=None, trigger={"waiting": 0}, partitions=[])
    exit_code, screen, _ = shown(monkeypatch, empty)
    assert (exit_code, screen.splitlines()[1:3]) == (0, ["fresh:   nothing has come through yet", "stuck:   nothing"])


def test_scripts_get_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN
    answers = stops(alarms=[ALARM], table=Unanswered("scan limit"))

    # WHEN
    exit_code, document, _ = shown(monkeypatch, answers, "--json")

    # THEN
    said = json.loads(document)
    assert exit_code == 1
    assert (said["stack"], said["healthy"], len(said["problems"])) == ("lake", False, 2)
    assert said["problems"][0].keys() == {"what", "next_step"}
    assert said["table"] == {"unanswered": "scan limit"}
    assert said["trigger"]["pipe_state"] == "RUNNING"


def test_every_stop_is_asked_for_and_shown() -> None:
    assert list(QUESTIONS) == list(ROWS) == list(stops())


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (121, "2 min"), (7300, "2.0 h"), (200_000, "2.3 days")]
)
def test_an_age_is_said_as_people_say_it(seconds: float, text: str) -> None:
    assert age_text(seconds) == text
