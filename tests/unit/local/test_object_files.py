"""An object's body and what is told about it change together, wherever a kill hits their writing."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from telemetry_lake.local.object_files import ObjectFiles, recover


class Killed(BaseException):
    """Ends the writing without any of its clean-up, as SIGKILL does."""


def written_alone(path: str, data: Any, *, text: bool = False) -> None:
    Path(path).write_bytes(data.encode() if text else data)


def put(files: ObjectFiles, directory: Path, content: str) -> None:
    body = str(directory / "a" / "key")
    with files.together():
        files.write(body, content.encode())
        files.write(body + ".meta.json", json.dumps({"size": len(content), "etag": content}), text=True)


def told(directory: Path) -> tuple[str, dict[str, Any]]:
    return (directory / "a" / "key").read_text(), json.loads((directory / "a" / "key.meta.json").read_bytes())


# Two files are opened, written and put into their places.
STEPS = range(1, 7)


class KilledAt:
    """Lets the n-th call of the operating system that changes a file be the last; a write gets half of its bytes."""

    def __init__(self, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = step
        monkeypatch.setattr(os, "open", self.counted(os.open))
        monkeypatch.setattr(os, "replace", self.counted(os.replace))
        monkeypatch.setattr(os, "fdopen", self.in_halves)

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **others: Any) -> Any:
            self.count()
            return function(*arguments, **others)

        return call

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    @contextmanager
    def in_halves(self, descriptor: int, _mode: str) -> Iterator[SimpleNamespace]:
        def write(data: bytes) -> None:
            os.write(descriptor, data[: len(data) // 2])
            self.count()
            os.write(descriptor, data[len(data) // 2 :])

        yield SimpleNamespace(write=write)
        os.close(descriptor)


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel")
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_leaves_the_old_object_or_the_new_one(step: int, tmp_path: Path) -> None:
    # GIVEN an object, and an upload that replaces it
    (tmp_path / "a").mkdir()
    files = ObjectFiles(written_alone)
    put(files, tmp_path, "old")

    # WHEN it is killed at one of its steps, and S3 starts again
    with pytest.MonkeyPatch.context() as monkeypatch:
        KilledAt(step, monkeypatch)
        with pytest.raises(Killed):
            put(files, tmp_path, "a newer one")
    recover(tmp_path)

    # THEN body and sidecar are of one upload, the new one once its body was in its place, and nothing else is left
    expected = "a newer one" if step == max(STEPS) else "old"
    assert told(tmp_path) == (expected, {"size": len(expected), "etag": expected})
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"key", "key.meta.json"}


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel")
def test_without_a_kill_the_new_object_is_there_at_once(tmp_path: Path) -> None:
    # GIVEN
    (tmp_path / "a").mkdir()
    files = ObjectFiles(written_alone)

    # WHEN
    put(files, tmp_path, "old")
    put(files, tmp_path, "new")

    # THEN
    assert told(tmp_path) == ("new", {"size": 3, "etag": "new"})
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"key", "key.meta.json"}


@pytest.mark.own_machinery("the file of a former version, which has no sidecar, is written by the same function")
def test_a_body_without_a_sidecar_is_written_at_once(tmp_path: Path) -> None:
    ObjectFiles(written_alone).write(str(tmp_path / "version"), b"content")
    assert (tmp_path / "version").read_bytes() == b"content"
