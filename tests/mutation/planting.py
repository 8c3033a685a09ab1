"""Faults planted in copies of the project, and what a judge of ``make check`` says of each copy."""

import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.judging import REPOSITORY, TOOLS, project_files

FAULTS = Path(__file__).with_name("faults.toml")


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: what is wrong, in a few words.
        file: the file that it is planted in, relative to the checkout.
        old: what stands there, exactly once.
        new: what the fault puts in its place.
        judge: the judge that has to find it.
        finding: a regular expression for the line in which it says so.
    """

    name: str
    file: str
    old: str
    new: str
    judge: str
    finding: str


def faults() -> list[Fault]:
    """Return the faults of ``faults.toml``."""
    return [Fault(**entry) for entry in tomllib.loads(FAULTS.read_text())["fault"]]


def copy_project(directory: Path) -> None:
    """Copy everything that a clone with the changes of this checkout would have; the tools are shared."""
    for name in project_files():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, target)
    (directory / ".tools").symlink_to(TOOLS)
    (directory / ".venv").symlink_to(REPOSITORY / ".venv")
    # detect-secrets looks at what git lists.
    subprocess.run(["git", "init", "--quiet"], cwd=directory, check=True)


def plant(fault: Fault, directory: Path) -> None:
    """Put a fault into a copy.

    Raises:
        ValueError: what it replaces does not stand there exactly once.
    """
    file = directory / fault.file
    text = file.read_text()
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: what it replaces stands {text.count(fault.old)} times in {fault.file}")
    file.write_text(text.replace(fault.old, fault.new))


def judged(directory: Path, judge: str) -> subprocess.CompletedProcess[str]:
    """Let one judge look at a copy, as ``make check`` does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, "-m", "tests.check", judge],
        cwd=directory,
        # What mypy knows of the libraries is the same in all copies, and takes a minute to find out.
        env=environment | {"MYPY_CACHE_DIR": str(REPOSITORY / ".mypy_cache")},
        capture_output=True,
        text=True,
        check=False,
    )
