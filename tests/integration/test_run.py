"""Runs of the job in the test's own process: what is published, when, and when not."""

import pytest

from tests.integration.conftest import Lake, Run, reading


def test_it_runs(lake: Lake, run: Run, spark):
    lake.put_lines("a.gz", [reading("a", timestamp=1_760_500_000), reading("a", timestamp=1_760_500_000), "{", reading("b", timestamp=1_760_600_000.25)])
    import time
    t=time.time()
    s = run("jr_1")
    print(s, time.time()-t)
    t=time.time()
    lake.put_lines("b.gz", [reading("a", timestamp=1_760_500_000), reading("c", timestamp=1_760_500_000)])
    s = run("jr_2")
    print(s, time.time()-t)
    t=time.time()
    s = run("jr_3")
    print(s["counts"], time.time()-t)
    print(lake.rows(spark)); print(lake.keys("")); print(lake.dead_letters())
    assert 0
