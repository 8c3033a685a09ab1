"""Objects of S3 on disk: an object and what is told about it change together, also when the endpoint is killed.

MiniStack keeps an object in two files, its body and a sidecar (entity tag, checksums, user metadata), and replaces one
after the other. Here both are written beside the old ones first and only then put into their places, the body first.
What a kill left in between is completed or taken away before S3 starts: a new sidecar whose body has gone to its place
belongs there too; anything else that is left was told to nobody.

A request whose files cannot be written, for instance because the disk is full, is answered with InternalError, is
undone and publishes no event. On AWS it may have been carried out nevertheless
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/ErrorBestPractices.html).

AWS promises that "a process might [...] get the old data or the new data, but never partial or corrupt data"
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel).

Known deviations from AWS:

* Of requests whose files cannot be written, forms (POST Object), deletions of several objects and changes of tags and
  ACLs are not undone: they are answered with InternalError too, and last until the endpoint ends.
"""

import json
import logging
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
Answer = tuple[int, dict[str, str], bytes]

logger = logging.getLogger("telemetry_lake.local.object_files")


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

    @contextmanager
    def failures(self) -> Iterator[list[OSError]]:
        """Give a list of what could not be written in here: MiniStack logs that and goes on."""
        self._pair.failures = []
        try:
            yield self._pair.failures
        finally:
            self._pair.failures = []

    def note(self, failure: OSError) -> None:
        """Add to the list of what could not be written."""
        getattr(self._pair, "failures", []).append(failure)

    def write(self, path: str, data: str | bytes, *, text: bool = False) -> None:
        """Stand in for MiniStack's ``_atomic_write``: a sidecar is written as text, a body as bytes.

        Raises:
            OSError: it could not be written; what is in place is as it was.
        """
        try:
            self._write_one(path, data, text=text)
        except OSError as failure:
            self.note(failure)
            raise

    def _write_one(self, path: str, data: str | bytes, *, text: bool) -> None:
        body = getattr(self._pair, "body", None)
        content = data.encode() if isinstance(data, str) else data
        if getattr(self._pair, "open", False) and not text:
            _write_beside(path, content)
            self._pair.body = path
        elif body is not None and path == body + SIDECAR:
            self._pair.body = None
            try:
                _write_beside(path, content)
            except OSError:
                Path(body + UNFINISHED).unlink(missing_ok=True)
                raise
            for finished in (body, path):
                Path(finished + UNFINISHED).replace(finished)
        else:
            self._write(path, data, text=text)


def _write_beside(path: str, data: bytes) -> None:
    unfinished = path + UNFINISHED
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError:
        Path(unfinished).unlink(missing_ok=True)
        raise


class Requests:
    """Carries out requests to S3, and undoes those whose files could not be written."""

    def __init__(self, files: ObjectFiles, s3: Any) -> None:
        self._files = files
        self._dispatch: Callable[..., Answer] = seams.require(s3, "_dispatch")
        self._error: Callable[..., Answer] = seams.require(s3, "_error")
        self._parameter: Callable[[dict[str, Any], str], str] = seams.require(s3, "_qp")
        self._buckets = seams.require(s3, "_buckets")
        self._versions = seams.require(s3, "_object_versions")
        self._uploads = seams.require(s3, "_multipart_uploads")
        self._completed_uploads = seams.require(s3, "_completed_multipart_uploads")

    def dispatch(self, method: str, bucket: str, key: str, *rest: Any) -> Answer:
        """Stand in for MiniStack's ``_dispatch``; the rest are headers, body and query."""
        if method in ("GET", "HEAD", "OPTIONS"):
            return self._dispatch(method, bucket, key, *rest)
        undo = self._undoing(bucket, key, self._parameter(rest[-1], "uploadId"))
        with self._files.failures() as failures:
            answer = self._dispatch(method, bucket, key, *rest)
        if not failures:
            return answer
        logger.error("%s /%s/%s is undone: %s", method, bucket, key, failures[0])
        undo()
        return self._error("InternalError", "We encountered an internal error. Please try again.", 500)

    def _undoing(self, bucket_name: str, key: str, upload_id: str) -> Callable[[], None]:
        """Return a function that brings an object, and the upload it is made of, back to what they are now."""
        objects = (self._buckets.get(bucket_name) or {}).get("objects", {})
        before = [(objects, key, objects.get(key)), (self._uploads, upload_id, self._uploads.get(upload_id))]
        versions = self._versions.get((bucket_name, key))
        kept_versions = None if versions is None else [dict(version) for version in versions]

        def undo() -> None:
            self._completed_uploads.pop(upload_id, None)
            for store, name, value in (*before, (self._versions, (bucket_name, key), kept_versions)):
                if value is None:
                    store.pop(name, None)
                else:
                    store[name] = value

        return undo


def install(endpoint: Endpoint) -> None:
    """Recover what a kill left, then let S3 start, which reads its files when it is imported."""
    recover(endpoint.settings.state_directory / "s3")
    from ministack.services import s3

    files = ObjectFiles(seams.require(s3, "_atomic_write"))
    persist = seams.require(s3, "_persist_object")

    def persist_object(bucket: str, key: str, record: Any) -> None:
        with files.together():
            persist(bucket, key, record)
        if record.get("body") is not None:  # MiniStack keeps a body for as long as it is in no file
            files.note(OSError(f"The body of {bucket}/{key} is not in its file"))

    seams.replace(s3, "_atomic_write", files.write)
    seams.replace(s3, "_persist_object", persist_object)
    seams.replace(s3, "_dispatch", Requests(files, s3).dispatch)
