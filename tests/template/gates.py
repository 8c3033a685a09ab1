"""The schema gates of ``make check``: independent judges of the template and of the state machine.

Each judge that others wrote reads the expanded template or the substituted definition. A judge that cannot run is a
failure, not a skip. Run with ``python -m tests.template.gates``.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.template.expansion import REGION, REPOSITORY, TEMPLATE, expanded_template, substituted_definition

TOOLS = REPOSITORY / ".tools"
HERE = Path(__file__).resolve().parent
# Fields that may be a JSONata expression instead of a number; statelint does not know that.
# https://docs.aws.amazon.com/step-functions/latest/dg/state-wait.html and .../state-task.html
JSONATA_NUMBER_FIELDS = ("Seconds", "TimeoutSeconds", "HeartbeatSeconds")


@dataclass(frozen=True)
class Verdict:
    """What one judge said: how many things it judged, and its findings, a line each."""

    judged: str
    findings: list[str]


class JudgeUnavailableError(RuntimeError):
    """A judge could not run at all."""


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **(environment or {})},
            cwd=REPOSITORY,
        )
    except FileNotFoundError as error:
        raise JudgeUnavailableError(f"{command[0]} is not there: run `make setup`") from error


def _beside_this_python(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def judge_with_cfn_lint(work: Path) -> Verdict:
    """Schema, enumerations and action names of the expanded template."""
    template = expanded_template()
    file = work / "template.json"
    file.write_text(json.dumps(template, indent=1))
    result = _run([_beside_this_python("cfn-lint"), "-t", str(file), "--regions", REGION, "--format", "parseable"])
    findings = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    if result.returncode and not findings:
        findings = [f"cfn-lint ended with {result.returncode} and said nothing"]
    return Verdict(f"{len(template['Resources'])} resources", findings)


def judge_with_sam_validate(work: Path) -> Verdict:
    """What the SAM CLI itself says of the template as written."""
    sam = TOOLS / "sam" / "bin" / "sam"
    result = _run(
        [str(sam), "validate", "--lint", "--template", str(TEMPLATE), "--region", REGION],
        {"SAM_CLI_TELEMETRY": "0", "HOME": str(work)},
    )
    if result.returncode:
        return Verdict("1 template", (result.stdout + result.stderr).splitlines())
    return Verdict("1 template", [])


def _definition_file(work: Path) -> tuple[Path, int]:
    definition = substituted_definition()
    file = work / "pipeline.asl.json"
    file.write_text(json.dumps(definition, indent=1))
    return file, len(definition["States"])


def judge_with_asl_validator(work: Path) -> Verdict:
    """Transitions, JSONata syntax and structure of the state machine."""
    modules = TOOLS / "node" / "node_modules"
    installed_lock = TOOLS / "node" / "package-lock.json"
    if not installed_lock.exists() or installed_lock.read_bytes() != (HERE / "package-lock.json").read_bytes():
        _install_node_judges()
    file, states = _definition_file(work)
    result = _run(
        [
            _beside_this_python("node"),
            str(modules / "asl-validator" / "dist" / "bin" / "asl-validator.js"),
            "--json-path",
            str(file),
        ]
    )
    return Verdict(f"{states} states", [] if result.returncode == 0 else (result.stdout + result.stderr).splitlines())


def _install_node_judges() -> None:
    target = TOOLS / "node"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, target)
    # npm finds its own node by PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [_beside_this_python("npm"), "ci", "--no-audit", "--no-fund", "--prefix", str(target)]
    result = _run(command, {"PATH": path})
    if result.returncode:
        shutil.rmtree(target, ignore_errors=True)
        raise JudgeUnavailableError(f"npm ci failed:\n{result.stdout}{result.stderr}")


def judge_with_statelint(work: Path) -> Verdict:
    """A second opinion on the state machine, from another implementation of the language."""
    file, states = _definition_file(work)
    result = _run([_beside_this_python("statelint"), str(file)])
    lines = [line.strip() for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    findings = [
        line for line in lines if not re.fullmatch(r"(One|\d+) errors?:", line) and not _is_jsonata_number(line)
    ]
    return Verdict(f"{states} states", findings)


def _is_jsonata_number(finding: str) -> bool:
    fields = "|".join(JSONATA_NUMBER_FIELDS)
    return re.search(rf'\.({fields}) is "{{%.*%}}" but should be an Integer$', finding) is not None


JUDGES: dict[str, Callable[[Path], Verdict]] = {
    "cfn-lint": judge_with_cfn_lint,
    "sam validate --lint": judge_with_sam_validate,
    "asl-validator": judge_with_asl_validator,
    "statelint": judge_with_statelint,
}


def main() -> int:
    """Run every judge, print what each judged and found, and return the exit code."""
    failures = 0
    for name, judge in JUDGES.items():
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as work:
            try:
                verdict = judge(Path(work))
            except JudgeUnavailableError as error:
                verdict = Verdict("nothing", [f"could not run: {error}"])
        failures += len(verdict.findings)
        seconds = time.monotonic() - started
        print(f"{name:<22} judged {verdict.judged:<14} {len(verdict.findings)} findings  {seconds:.1f} s")
        for finding in verdict.findings:
            print(f"    {finding}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
