"""Amazon S3's events on EventBridge, with the fields that AWS documents.

MiniStack publishes an event for every change of an object in a bucket that has EventBridge switched on. Here the event
gets what is missing: the version of the object, the time to the second, and the caller's address
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html). An event of a deletion loses the size.

Known deviations from AWS:

* ``request-id`` has the form of S3's, but is not the one in the answer to the request.
* Events are published once each, before the change is acknowledged, and in the order of the changes of a key: S3
  delivers at least once, in no particular order, usually within seconds.
* ``requester`` is always the account. AWS names a service principal when a service, such as lifecycle expiration,
  made the change by itself; nothing does so here.
* The addresses of requests that come from this machine are loopback addresses.
* The event of a permanent deletion has no ``etag``: AWS's examples are of delete markers only.
* Changes of tags, ACLs and storage classes publish nothing (``Object Tags Added``, ``Object Tags Deleted``,
  ``Object ACL Updated``, ``Object Storage Class Changed``).
"""

import contextvars
import hashlib
import json
import secrets
import string
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

SOURCE = "aws.s3"
_REQUEST_ID_ALPHABET = string.ascii_uppercase + string.digits
# A bucket without versioning gives its objects this version, which events do not have.
_NO_VERSION = "null"
# A delete marker has no content: this is the MD5 of nothing.
_DELETE_MARKER_ETAG = hashlib.md5(b"", usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Change:
    """What is known of a change of an object beside what MiniStack puts into the event."""

    version_id: str | None
    source_ip: str


_change: contextvars.ContextVar[Change | None] = contextvars.ContextVar("object_change", default=None)
_threads: contextvars.ContextVar[list[threading.Thread] | None] = contextvars.ContextVar("event_threads", default=None)


def collected() -> list[threading.Thread]:
    """Return a list that gets the threads which publish the events of the request at hand, once they are started."""
    threads: list[threading.Thread] = []
    _threads.set(threads)
    return threads


def completed(event: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Return an event of MiniStack's with the fields of AWS's.

    Args:
        event: an entry as EventBridge takes it, ``Detail`` being JSON text and ``Time`` ISO 8601 in UTC.
        change: the object's version, None in a bucket without versioning, and the caller's address.
    """
    detail = json.loads(event["Detail"])
    if change.version_id and change.version_id != _NO_VERSION:
        detail["object"]["version-id"] = change.version_id
    if "deletion-type" in detail:
        del detail["object"]["size"], detail["object"]["etag"]
        if detail["deletion-type"] == "Delete Marker Created":
            detail["object"]["etag"] = _DELETE_MARKER_ETAG
    detail["request-id"] = "".join(secrets.choice(_REQUEST_ID_ALPHABET) for _ in range(16))
    detail["source-ip-address"] = change.source_ip
    whole_seconds = str(event["Time"])[:19] + "Z"
    return {**event, "Detail": json.dumps(detail), "Time": whole_seconds}


def install(endpoint: Endpoint) -> None:
    """Complete the events that MiniStack's S3 publishes."""
    from ministack.core import iam_evaluator
    from ministack.services import eventbridge, s3

    origin = seams.require(iam_evaluator, "_request_origin")
    fire = seams.require(s3, "_fire_s3_event")
    dispatch = seams.require(eventbridge, "_dispatch_event")

    def fire_event(*arguments: Any, version_id: str | None = None, **others: Any) -> None:
        # The thread that publishes has a copy of the request's context.
        token = _change.set(Change(version_id, origin.get()[0]))
        try:
            fire(*arguments, version_id=version_id, **others)
        finally:
            _change.reset(token)

    def dispatch_event(event: dict[str, Any], *arguments: Any, **others: Any) -> None:
        change = _change.get()
        if change is not None and event.get("Source") == SOURCE:
            event = completed(event, change)
        dispatch(event, *arguments, **others)

    notifications = seams.require(s3, "_bucket_notifications")
    next_sequencer = seams.require(s3, "_next_event_sequencer")

    def fire_event_on_thread(bucket: str, key: str, event_name: str, *arguments: Any, **others: Any) -> None:
        if bucket not in notifications:
            return
        others["sequencer"] = next_sequencer(event_name)
        run = contextvars.copy_context().run
        thread = threading.Thread(
            target=run, args=(fire_event, bucket, key, event_name, *arguments), kwargs=others, daemon=True
        )
        threads = _threads.get()
        if threads is None:
            thread.start()
        else:
            threads.append(thread)

    seams.replace(s3, "_fire_s3_event", fire_event)
    seams.replace(s3, "_fire_s3_event_async", fire_event_on_thread)
    seams.replace(eventbridge, "_dispatch_event", dispatch_event)
