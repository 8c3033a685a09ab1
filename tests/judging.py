"""What every judge of ``make check`` uses: its verdict, subprocesses, and the judges that come from npm."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TOOLS = REPOSITORY / ".tools"
NODE_PACKAGES = REPOSITORY / "tests" / "template"
PACKAGE_FILES = ("package.json", "package-lock.json")


@dataclass(frozen=True)
class Verdict:
    """What one judge said: how many things it judged, and its findings, a line each."""

    judged: str
    findings: list[str]


class JudgeUnavailableError(RuntimeError):
    """A judge could not run at all."""


def run(
    command: list[str], environment: Mapping[str, str] | None = None, *, directory: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Run a judge's command, in the checkout by default, and return what it said, whatever its exit code.

    Raises:
        JudgeUnavailableError: the command is not there.
    """
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **(environment or {})},
            cwd=directory,
        )
    except FileNotFoundError as error:
        raise JudgeUnavailableError(f"{command[0]} is not there: run `make setup`") from error


def lines_said(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a judge said as findings, a line each; one that failed without a word says so here."""
    said = [line.strip() for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    return said or [f"{Path(result.args[0]).name} ended with {result.returncode} and said nothing"]


def project_files() -> list[str]:
    """Return the files that git has or would take, relative to the checkout: what a clone with its changes would hold.

    Raises:
        JudgeUnavailableError: this is no git checkout.
    """
    listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"])
    names = [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]
    if listed.returncode or not names:
        raise JudgeUnavailableError(f"git lists no files: {listed.stderr.strip()}")
    return names


def beside_this_python(name: str) -> str:
    """Return the path of a command of the environment that this Python belongs to."""
    return str(Path(sys.executable).parent / name)


def node_modules() -> Path:
    """Return the directory of the judges from npm, after installing them as package-lock.json says if need be.

    Raises:
        JudgeUnavailableError: npm cannot install them.
    """
    target = TOOLS / "node"
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all(_same_bytes(NODE_PACKAGES / name, target / name) for name in PACKAGE_FILES):
            _install(target)
    return target / "node_modules"


def _same_bytes(left: Path, right: Path) -> bool:
    return right.exists() and left.read_bytes() == right.read_bytes()


def _install(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in PACKAGE_FILES:
        shutil.copy(NODE_PACKAGES / name, target)
    # npm finds its own node by PATH. The validator of cfn-guard names the whole CDK as its peer, and only its binary
    # and its rules are wanted here.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    npm_ci = [beside_this_python("npm"), "ci", "--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund"]
    result = run([*npm_ci, "--prefix", str(target)], {"PATH": path})
    if result.returncode:
        shutil.rmtree(target, ignore_errors=True)
        raise JudgeUnavailableError(f"npm ci failed:\n{result.stdout}{result.stderr}")
