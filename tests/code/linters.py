"""What others' tools say of the Python code, of its types and of the lock file."""

import re
import sys
from pathlib import Path

from tests.judging import JudgeUnavailableError, Verdict, beside_this_python, lines_said, run

JOB_PYTHON_VERSION = "3.10"


def judge_with_ruff_format(_work: Path) -> Verdict:
    """The layout of the code."""
    return _judged_by_ruff(["format", "--check", "."])


def judge_with_ruff_check(_work: Path) -> Verdict:
    """Lint, the security rules (S) among them."""
    return _judged_by_ruff(["check", "--output-format", "concise", "."])


def _judged_by_ruff(arguments: list[str]) -> Verdict:
    ruff = beside_this_python("ruff")
    files = run([ruff, "check", "--show-files", "."]).stdout.splitlines()
    if not files:
        raise JudgeUnavailableError("ruff sees no file")
    result = run([ruff, *arguments])
    return Verdict(f"{len(files)} files", lines_said(result) if result.returncode else [])


def judge_with_mypy(_work: Path) -> Verdict:
    """Types, strictly; those of every AWS call come from boto3-stubs.

    The job is judged once more for Python 3.10, which Glue 4.0 runs
    (https://docs.aws.amazon.com/glue/latest/dg/release-notes.html): what that one lacks is an error there.
    """
    counts, findings = [], []
    for arguments in ([], ["--python-version", JOB_PYTHON_VERSION, "glue"]):
        result = run([sys.executable, "-m", "mypy", *arguments])
        judged = re.search(r"no issues found in (\d+) source files?", result.stdout)
        if result.returncode == 0 and judged is None:
            raise JudgeUnavailableError(f"mypy did not say what it judged: {result.stdout}")
        counts.append(judged[1] if judged else "some")
        findings += [] if judged else lines_said(result)
    return Verdict(f"{counts[0]} files; {counts[1]} of the job for Python {JOB_PYTHON_VERSION}", findings)


def judge_lock_file(_work: Path) -> Verdict:
    """Whether uv.lock is what pyproject.toml asks for."""
    result = run([sys.executable, "-I", "telemetry_lake/toolchain.py", "uv", "lock", "--check", "--offline"])
    judged = re.search(r"Resolved (\d+) packages", result.stdout + result.stderr)
    if result.returncode == 0 and judged is None:
        raise JudgeUnavailableError(f"uv did not say what it judged: {result.stderr}")
    return Verdict(f"{judged[1] if judged else 'no'} packages", [] if result.returncode == 0 else lines_said(result))
