"""Each planted fault is caught by the judge that is there for it: ``make mutation``."""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.check import JUDGES
from tests.mutation.planting import Fault, copy_project, faults, judged, plant

PLANTED = faults()
AT_LEAST = 25


@pytest.fixture(scope="module")
def verdicts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """What the judges say of the faults that were selected, as many at work as there are cores."""
    parametrized = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    selected = [params["fault"] for params in parametrized if "fault" in params]
    root = tmp_path_factory.mktemp("copies")

    def verdict(number: int, fault: Fault) -> subprocess.CompletedProcess[str]:
        directory = root / str(number)
        copy_project(directory)
        plant(fault, directory)
        return judged(directory, fault.judge)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        yield {fault.name: pool.submit(verdict, number, fault) for number, fault in enumerate(selected)}


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: f"{fault.judge}: {fault.name}")
def test_a_planted_fault_is_caught_by_name(
    verdicts: dict[str, Future[subprocess.CompletedProcess[str]]], fault: Fault
) -> None:
    # GIVEN a copy with the fault, WHEN its judge looks at it
    result = verdicts[fault.name].result()

    # THEN it does not pass, and says why
    assert result.returncode == 1, result.stdout + result.stderr
    assert "could not run" not in result.stdout, result.stdout
    assert any(re.search(fault.finding, line) for line in result.stdout.splitlines()[1:]), result.stdout


def test_the_faults_are_many_each_its_own_and_every_judge_has_one() -> None:
    names = Counter(fault.name for fault in PLANTED)
    assert len(PLANTED) >= AT_LEAST
    assert set(names.values()) == {1}
    assert {fault.judge for fault in PLANTED} == JUDGES.keys()


def test_a_copy_without_a_fault_passes(tmp_path: Path) -> None:
    # GIVEN a copy as it is, and the fast judges, which would fail first if a copy lacked something
    copy_project(tmp_path / "copy")

    # THEN they find nothing
    for judge in ("ruff-check", "template-rules", "asl-validator", "lock-file"):
        result = judged(tmp_path / "copy", judge)
        assert result.returncode == 0, result.stdout + result.stderr
