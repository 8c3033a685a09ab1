"""The project's own rules over the template, which are tests, as a judge."""

import re
import sys
from pathlib import Path

from tests.judging import JudgeUnavailableError, Verdict, lines_said, run

HERE = Path(__file__).resolve().parent
RULES = (
    HERE / "test_template.py",
    HERE / "test_metrics.py",
    HERE / "test_job_arguments.py",
    HERE.parent / "unit" / "test_emitted_metrics.py",
)


def judge(_work: Path) -> Verdict:
    """Names, wiring, tags, metrics and job arguments; a rule that is skipped counts as not judged."""
    result = run([sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *map(str, RULES)])
    passed = re.search(r"(\d+) passed", result.stdout)
    if result.returncode == 0 and (passed is None or "skipped" in result.stdout):
        raise JudgeUnavailableError(f"pytest did not judge everything: {result.stdout}")
    failed = [line for line in lines_said(result) if line.startswith(("FAILED", "ERROR", "E "))]
    return Verdict(
        f"{passed[1] if passed else 'no'} rules held", [] if result.returncode == 0 else failed or lines_said(result)
    )
