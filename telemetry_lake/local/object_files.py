"""Objects of S3 on disk: an object and what is told about it change together, also when the endpoint is killed.

MiniStack keeps an object in two files, its body and a sidecar (entity tag, checksums, user metadata), and replaces one
after the other. Here both are written beside the old ones first and only then put into their places, the body first.
What a kill left in between is completed or taken away before S3 starts: a new sidecar whose body has gone to its place
belongs there too; anything else that is left was told to nobody.

AWS promises that "a process might [...] get the old data or the new data, but never partial or corrupt data"
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel).

Known deviations from AWS:

* An object that cannot be written (a full disk) is acknowledged: it lasts until the endpoint ends; the log tells.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

SIDECAR = ".meta.json"
UNFINISHED = ".tmp"

Write = Callable[..., None]


def recover(directory: Path) -> None:
    """Complete or undo the writings that a kill interrupted, below ``directory``.

    Raises:
        OSError: a file cannot be replaced or removed.
    """
    for sidecar in directory.rglob(f"*{SIDECAR}{UNFINISHED}"):
        finished = sidecar.with_name(sidecar.name.removesuffix(UNFINISHED))
        body = finished.with_name(finished.name.removesuffix(SIDECAR) + UNFINISHED)
        if not body.exists() and _is_whole(sidecar):
            sidecar.replace(finished)
    for unfinished in directory.rglob(f"*{UNFINISHED}"):
        if unfinished.is_file():
            unfinished.unlink()


def _is_whole(sidecar: Path) -> bool:
    try:
        json.loads(sidecar.read_bytes())
    except ValueError:
        return False
    return True


class ObjectFiles:
    """Writes a body and its sidecar as one."""

    def __init__(self, write: Write) -> None:
        """``write`` puts content into a file of its own and the file into its place."""
        self._write = write
        self._pair = threading.local()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let the body that is written in here wait for the sidecar that follows it."""
        self._pair.open, self._pair.body = True, None
        try:
            yield
        finally:
            self._pair.open, self._pair.body = False, None

    def write(self, path: str, data: str | bytes, *, text: bool = False) -> None:
        """Stand in for MiniStack's ``_atomic_write``: a sidecar is written as text, a body as bytes."""
        body = getattr(self._pair, "body", None)
        content = data.encode() if isinstance(data, str) else data
        if getattr(self._pair, "open", False) and not text:
            self._write_beside(path, content)
            self._pair.body = path
        elif body is not None and path == body + SIDECAR:
            self._pair.body = None
            self._write_beside(path, content)
            for finished in (body, path):
                Path(finished + UNFINISHED).replace(finished)
        else:
            self._write(path, data, text=text)

    def _write_beside(self, path: str, data: bytes) -> None:
        descriptor = os.open(path + UNFINISHED, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)


def install(endpoint: Endpoint) -> None:
    """Recover what a kill left, then let S3 start, which reads its files when it is imported."""
    recover(endpoint.settings.state_directory / "s3")
    from ministack.services import s3

    files = ObjectFiles(seams.require(s3, "_atomic_write"))
    persist = seams.require(s3, "_persist_object")

    def persist_object(bucket: str, key: str, record: Any) -> None:
        with files.together():
            persist(bucket, key, record)

    seams.replace(s3, "_atomic_write", files.write)
    seams.replace(s3, "_persist_object", persist_object)
