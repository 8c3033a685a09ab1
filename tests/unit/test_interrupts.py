"""Ctrl-C while the tests run."""

import subprocess
import sys
from pathlib import Path

from tests.judging import REPOSITORY

TESTS = """
import os, pathlib, signal

def test_that_takes_the_interrupt_for_its_own():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass

def test_behind_it():
    pathlib.Path("went-on").touch()
"""


def test_the_tests_end_although_one_has_swallowed_the_interrupt(tmp_path: Path) -> None:
    # GIVEN a test that is interrupted and does not fail
    (tmp_path / "test_two.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.interrupts", "--rootdir", str(tmp_path), "test_two.py"]

    # WHEN
    ended = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False
    )

    # THEN the one behind it is not run, and pytest says so by its exit code
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "interrupted" in ended.stdout
    assert not (tmp_path / "went-on").exists()
