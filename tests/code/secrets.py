"""Secrets in what would be committed, by detect-secrets (https://github.com/Yelp/detect-secrets), without the network.

What looks like a secret and is none stands in ``secrets.toml`` with its argument; an entry that nothing needs any more
is a finding.
"""

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.code import supply_chain
from tests.judging import REPOSITORY, JudgeUnavailableError, Verdict, beside_this_python, lines_said, project_files, run

ALLOWED = Path(__file__).with_name("secrets.toml")


def scan(directory: Path, files: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return what looks like a secret, by file; the files' names are relative to the directory.

    Raises:
        JudgeUnavailableError: detect-secrets failed.
    """
    # Of files outside of the directory that it runs in it says nothing at all.
    command = [beside_this_python("detect-secrets"), "scan", "--no-verify", "--all-files", *files]
    result = run(command, directory=directory)
    if result.returncode:
        raise JudgeUnavailableError("; ".join(lines_said(result)))
    found: dict[str, list[dict[str, Any]]] = json.loads(result.stdout)["results"]
    return found


def findings(found: Mapping[str, Sequence[Mapping[str, Any]]], allowed: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a finding for each secret that is not allowed, and for each entry that allows more than there is."""
    left = Counter({(entry["file"], entry["type"]): entry["count"] for entry in allowed})
    for file, secrets in sorted(found.items()):
        for secret in secrets:
            if left[file, secret["type"]] > 0:
                left[file, secret["type"]] -= 1
            else:
                yield f"{file}:{secret['line_number']}: {secret['type']}"
    for (file, kind), count in sorted(left.items()):
        if count > 0:
            yield f"secrets.toml: {file} has {count} less of {kind} than is allowed"


def judge(_work: Path) -> Verdict:
    """Everything that git has or would take, but for what others have published, byte for byte."""
    copied = supply_chain.copied_files()
    files = [name for name in project_files() if name not in copied]
    allowed = tomllib.loads(ALLOWED.read_text())["allowed"]
    return Verdict(f"{len(files)} files", list(findings(scan(REPOSITORY, files), allowed)))
