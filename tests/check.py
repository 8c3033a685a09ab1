"""``make check``: independent judges of the template, the state machine, the permissions and the code.

Run with ``python -m tests.check``, or with the names of some judges. Each judge says how many things it judged; one
that could not run is a failure, never a skip. Once the tools are installed, nothing asks the network.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.code import fidelity, linters, secrets, supply_chain
from tests.judging import JudgeUnavailableError, Verdict
from tests.permissions import simulation
from tests.template import guard, own_rules, schema, statemachine, states_language

Judge = Callable[[Path], Verdict]

# The slowest come first, so that they do not start last.
JUDGES: dict[str, Judge] = {
    "sam-validate": schema.judge_with_sam_validate,
    "iam-simulate": simulation.judge,
    "mypy": linters.judge_with_mypy,
    "sam-translator": schema.judge_with_sam_translator,
    "cfn-lint": schema.judge_with_cfn_lint,
    "cfn-guard-own": guard.judge_with_own_rules,
    "cfn-guard-control-tower": guard.judge_with_control_tower,
    "template-rules": own_rules.judge,
    "asl-validator": states_language.judge_with_asl_validator,
    "statelint": states_language.judge_with_statelint,
    "state-machine-rules": statemachine.judge_own_rules,
    "ruff-format": linters.judge_with_ruff_format,
    "ruff-check": linters.judge_with_ruff_check,
    "lock-file": linters.judge_lock_file,
    "secrets": secrets.judge,
    "fidelity": fidelity.judge,
    "licences": supply_chain.judge_licences,
    "copied-files": supply_chain.judge_copied_files,
    "vulnerabilities": supply_chain.judge_vulnerabilities,
}


@dataclass(frozen=True)
class Outcome:
    """One judge's verdict and the seconds that it took."""

    verdict: Verdict
    seconds: float


def judged_by(judge: Judge) -> Outcome:
    """Ask one judge; that it could not run is its finding."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        try:
            verdict = judge(Path(work))
        except JudgeUnavailableError as error:
            verdict = Verdict("nothing", [f"could not run: {error}"])
        except Exception as error:  # noqa: BLE001  whatever goes wrong in one judge, the others are heard, and it fails
            verdict = Verdict("nothing", [f"could not run: {type(error).__name__}: {error}"])
    return Outcome(verdict, time.monotonic() - started)


def line_of(name: str, outcome: Outcome) -> str:
    """Return what is printed of one judge."""
    verdict = outcome.verdict
    count = len(verdict.findings)
    lines = [f"{'ok' if not count else 'FAILED':<7}{name:<25}{verdict.judged:<60}{outcome.seconds:6.1f} s"]
    if count:
        lines.append(f"       {count} finding{'' if count == 1 else 's'}:")
    return "\n".join([*lines, *(f"         {finding}" for finding in verdict.findings)])


def check(names: Sequence[str]) -> int:
    """Ask the judges, print what each judged and found as soon as it says so, and return the exit code."""
    started = time.monotonic()
    failed: list[str] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        asked: dict[Future[Outcome], str] = {pool.submit(judged_by, JUDGES[name]): name for name in names}
        for future in as_completed(asked):
            print(line_of(asked[future], future.result()), flush=True)
            if future.result().verdict.findings:
                failed.append(asked[future])
    said = f"failed: {', '.join(sorted(failed))}" if failed else "no findings"
    print(f"{len(names)} judges, {said}, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.check", description="Judge the template and the code.")
    parser.add_argument("judges", nargs="*", metavar="JUDGE", help=f"some of: {', '.join(JUDGES)} (default: all)")
    names = parser.parse_args().judges
    # SAM's translator warns on standard error of its own metrics, which nobody publishes here.
    logging.getLogger("samtranslator").addHandler(logging.NullHandler())
    if unknown := sorted(set(names) - JUDGES.keys()):
        parser.error(f"no such judge: {', '.join(unknown)}; there are {', '.join(JUDGES)}")
    return check(names or list(JUDGES))


if __name__ == "__main__":
    sys.exit(main())
