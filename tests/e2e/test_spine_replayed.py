"""Rejects come back by a replay, also by one that was interrupted, and everything stays conserved.

It comes right after the checker's tests, whose readings it judges too.
"""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from telemetry_lake.commands.verify import Verification, check
from telemetry_lake.conservation import comparison
from telemetry_lake.ledger import Ledger
from telemetry_lake.pipeline import ticks
from telemetry_lake.producer import Producer
from telemetry_lake.queries import run_query
from telemetry_lake.readings import Record
from telemetry_lake.rejects import Reject, read_rejects, resolved_ids
from tests.stack import Lake, ledgers, tlake, tlake_command

WAIT_SECONDS = 180.0
DEVICE = "replayed"
# The stack takes what is at most 300 seconds ahead of its arrival: this is too early for so many seconds.
TOO_EARLY_SECONDS = 10


def send(lake: Lake, data: bytes) -> None:
    with Ledger(lake.directory / "replayed.jsonl") as ledger:
        Producer(lake.target.kinesis, lake.target.outputs.stream_name, ledger).send([Record(data, DEVICE)])


def reject_of(lake: Lake, original: bytes) -> Reject:
    """Wait for the reject of what was sent."""
    for _ in ticks(WAIT_SECONDS, 1.0):
        today = datetime.now(UTC).date()
        for reject in read_rejects(lake.target, today, today, lake.reporter):
            if reject.original == original and reject.reject_id not in resolved_ids(lake.target):
                return reject
    raise AssertionError(f"no reject of {original!r}")


def until(lake: Lake, is_so: Callable[[Verification], bool]) -> Verification:
    for _ in ticks(WAIT_SECONDS, 2.0):
        verification = check(lake.target, ledgers(lake), lake.reporter)
        if is_so(verification):
            return verification
    raise AssertionError(verification)


@pytest.fixture(scope="module")
def early(lake: Lake) -> tuple[Reject, float]:
    """A reading that came before its time, and when its time has come."""
    timestamp = int(time.time()) + 300 + TOO_EARLY_SECONDS
    reading = json.dumps({"device_id": DEVICE, "temperature": 21.25, "timestamp": timestamp}).encode()
    send(lake, reading)
    reject = reject_of(lake, reading)
    assert (reject.reason, reject.device_id) == ("timestamp_in_future", DEVICE)
    return reject, float(timestamp - 300)


def state(lake: Lake, reject: Reject) -> str:
    exit_code, (shown,), said = tlake(lake, "dlq", "show", reject.reject_id, "--json")
    assert exit_code == 0, said
    return str(shown["state"])


def test_a_replay_that_is_interrupted_is_run_again_and_the_reading_is_stored_once(
    lake: Lake, early: tuple[Reject, float]
) -> None:
    # GIVEN a reject that the rules accept by now
    reject, acceptable_at = early
    time.sleep(max(0.0, acceptable_at + 1 - time.time()))
    assert state(lake, reject) == "open"

    # WHEN a replay is interrupted after it has put the record
    words = ("dlq", "replay", "--device", DEVICE, "--yes")
    with subprocess.Popen(tlake_command(lake, *words), stderr=subprocess.PIPE, text=True) as replay:
        assert replay.stderr is not None
        for line in replay.stderr:
            if line.startswith("Waiting until they are seen"):
                replay.send_signal(signal.SIGINT)
        assert replay.wait(WAIT_SECONDS) == 130

    # THEN the reject is open still; when the reading has arrived, the checker says that something is unfinished
    assert state(lake, reject) == "open"
    found = until(lake, lambda each: any(f.kind == comparison.IN_BOTH_PLACES for f in each.report.findings))
    assert [finding.count for finding in found.report.findings] == [1]

    # WHEN it is run again
    exit_code, outcome, said = tlake(lake, *words, "--json")

    # THEN nothing is put, and the reject is resolved
    assert exit_code == 0, said
    assert (outcome["put"], outcome["stored_already"]) == (0, 1)
    assert outcome["resolved"] == {reject.reject_id: "stored"}
    assert state(lake, reject) == "resolved"
    sql = f"SELECT count(*) FROM {lake.target.outputs.table_name} WHERE device_id = '{DEVICE}'"  # noqa: S608
    assert run_query(lake.target, sql, lake.reporter).single_number() == 1

    # AND all is conserved, and the checker names the replay
    causes = until(lake, lambda each: each.verdict == "conserved").report.causes
    assert {cause.kind: cause.count for cause in causes}[comparison.REPLAY] == 1


def test_what_is_rejected_again_is_resolved_by_its_new_reject(lake: Lake) -> None:
    # GIVEN
    send(lake, b"replayed, and no JSON")
    reject = reject_of(lake, b"replayed, and no JSON")

    # WHEN
    words = ("dlq", "replay", reject.reject_id, "--yes", "--json")
    left_out: Any = tlake(lake, *words)[1]
    exit_code, outcome, said = tlake(lake, *words, "--send-invalid")

    # THEN
    assert (left_out["put"], left_out["left_out"]) == (0, {"malformed_json": 1})
    assert exit_code == 0, said
    assert outcome["resolved"] == {reject.reject_id: "rejected"}
    new = reject_of(lake, b"replayed, and no JSON")
    assert outcome["new_reject_ids"] == [new.reject_id]
    assert state(lake, reject) == "resolved"

    # AND Athena tells what is open from what is resolved
    sql = "SELECT reject_id, resolved_at IS NULL FROM distinct_rejects WHERE original = 'replayed, and no JSON'"
    assert set(run_query(lake.target, sql, lake.reporter).rows) == {
        (reject.reject_id, "false"),
        (new.reject_id, "true"),
    }
    sql = f"SELECT outcome, new_reject_ids[1] FROM resolved_rejects WHERE reject_id = '{reject.reject_id}'"  # noqa: S608
    assert run_query(lake.target, sql, lake.reporter).rows == (("rejected", new.reject_id),)
    until(lake, lambda each: each.verdict == "conserved")
