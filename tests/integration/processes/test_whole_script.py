"""The script as Glue starts it: a process of its own, and what is left when it is killed.

What such a process asks of AWS is not seen here, so this folder says nothing of what the script can ask.
"""

import os
import re
import signal
import subprocess
import time
from typing import Any

from tests.integration.conftest import Lake, Run, reading

DAY = 1_760_486_400  # 2025-10-15T00:00:00Z
SECONDS = 300


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    output, _ = process.communicate(timeout=SECONDS)
    return process.returncode, output


def last_words(output: str) -> str:
    """The end of what a run has said, in one line, which is all that a summary of failed tests shows."""
    return " | ".join(output.splitlines()[-5:])


def kill(process: "subprocess.Popen[str]") -> str:
    """Kill the run and all of its processes, as a machine that disappears."""
    os.killpg(process.pid, signal.SIGKILL)
    return finish(process)[1]


def test_two_runs_store_each_reading_once(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN readings, one of them twice, and a bad line
    lake.put_lines("1.gz", [reading("a", 1, DAY), reading("b", 1, DAY), reading("a", 1, DAY), "bad"])

    # WHEN the script runs, and again when some of it has arrived once more
    first = finish(lake.start("jr_1"))
    lake.put_lines("2.gz", [reading("b", 1, DAY), reading("c", 1, DAY)])
    second = finish(lake.start("jr_2"))

    # THEN both end well, and say what each step took
    assert first[0] == second[0] == 0, first[1] + second[1]
    for step in ("prepare", "read", "judge", "stage", "publish", "catalog"):
        assert re.search(rf"{step}: done in \d+\.\d s", first[1]), first[1]
    assert lake.summary("jr_1")["counts"] == {"lines": 4, "new": 2, "duplicate": 1, "rejected": 1}
    assert lake.summary("jr_2")["counts"] == {"lines": 2, "new": 1, "duplicate": 1, "rejected": 0}
    assert [row[0] for row in lake.rows(spark)] == ["a", "b", "c"]
    assert [letter["original"] for letter in lake.dead_letters()] == ["bad"]
    run.assert_settled()


def test_a_run_that_is_killed_while_it_publishes_loses_and_doubles_nothing(lake: Lake, run: Run, spark: Any) -> None:
    # GIVEN a batch of many days
    days = 40
    lake.put_lines("1.gz", ["bad", *(reading("a", 1, DAY + 86_400 * n) for n in range(days))])

    # WHEN the run is killed as soon as its first file is there, and the script runs again
    process = lake.start("jr_1")
    deadline = time.monotonic() + SECONDS
    while not lake.s3.list_objects_v2(Bucket=lake.analytics, Prefix="curated/", MaxKeys=1).get("KeyCount"):
        assert process.poll() is None, finish(process)[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed = kill(process)
    published = len(lake.keys("curated/"))
    assert published > 0, killed
    assert not lake.bookmark.exists(), "the run was over before it was killed: give it more days"
    code, output = finish(lake.start("jr_2"))

    # THEN the table has every reading once, and the next run completes what the first one had left
    assert code == 0, output
    rows = lake.rows(spark)
    assert len(rows) == len(set(rows)) == days
    counts = lake.summary("jr_2")["counts"]
    assert counts == {"lines": days + 1, "new": days - published, "duplicate": published, "rejected": 1}
    assert {letter["original"] for letter in lake.dead_letters()} == {"bad"}
    run.assert_settled()


def test_a_run_that_wakes_up_after_its_time_publishes_nothing(lake: Lake, spark: Any) -> None:
    # GIVEN a run at work whose machine stands still, and which Glue has given up
    lake.put_lines("1.gz", ["bad", reading("a", 1, DAY), reading("b", 1, DAY)])
    late = lake.start("jr_late")
    deadline = time.monotonic() + SECONDS
    while "staging/owner.json" not in lake.keys("staging/owner.json"):
        assert late.poll() is None, last_words(finish(late)[1])
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(late.pid, signal.SIGSTOP)
    assert lake.keys("curated/") == []

    # WHEN its successor does all of the work, and the machine goes on then
    code, output = finish(lake.start("jr_successor"))
    assert code == 0, last_words(output)
    rows, letters, bookmark = lake.rows(spark), lake.keys("dlq/"), lake.bookmark.read_bytes()
    os.killpg(late.pid, signal.SIGCONT)
    code, output = finish(late)

    # THEN it fails, and table, DLQ and bookmark are as the successor has left them. Where it stood decides what it
    # notices first: the owner (test_run), or that what it has staged is gone
    assert code != 0, output
    assert [row[0] for row in rows] == ["a", "b"]
    assert (lake.rows(spark), lake.keys("dlq/"), lake.bookmark.read_bytes()) == (rows, letters, bookmark)
    assert lake.keys("run_summaries/") == ["run_summaries/jr_successor.json"]
