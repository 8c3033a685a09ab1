"""An object's body and what is told about it change together, wherever a kill or a full disk hits their writing."""

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from telemetry_lake.local.object_files import ObjectFiles, recover
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until


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


# ------------------------------------------------------------------------------- files that cannot be written

BUCKET = "bucket"
# More than a file of an endpoint without space may have, and a part is at least as large.
LARGE = 6 * 1024 * 1024
SMALL_FILES = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    endpoint = EndpointProcess(tmp_path_factory.mktemp("objects"))
    s3, sqs = endpoint.client("s3"), endpoint.client("sqs")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={"EventBridgeConfiguration": {}})
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:events"
    sent = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{**sent, "Resource": queue}]})
    sqs.create_queue(QueueName="events", Attributes={"Policy": policy})
    endpoint.client("events").put_rule(Name="all", EventPattern=json.dumps({"source": ["aws.s3"]}))
    endpoint.client("events").put_targets(Rule="all", Targets=[{"Id": "queue", "Arn": queue}])
    yield endpoint
    endpoint.stop()


@contextmanager
def without_space(running: EndpointProcess) -> Iterator[None]:
    """Let the endpoint's writes fail beyond a size, as the operating system does when the disk is full."""
    soft, hard = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (SMALL_FILES, hard))
    try:
        yield
    finally:
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (soft, hard))


def put_large(s3: Any, key: str) -> Callable[[], Any]:
    return lambda: s3.put_object(Bucket=BUCKET, Key=key, Body=bytes(LARGE))


def copy_large(s3: Any, key: str) -> Callable[[], Any]:
    s3.put_object(Bucket=BUCKET, Key="source", Body=bytes(LARGE))
    return lambda: s3.copy_object(Bucket=BUCKET, Key=key, CopySource={"Bucket": BUCKET, "Key": "source"})


def complete_large(s3: Any, key: str) -> Callable[[], Any]:
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    part = {"Bucket": BUCKET, "Key": key, "UploadId": upload, "PartNumber": 1}
    parts = [{"PartNumber": 1, "ETag": s3.upload_part(**part, Body=bytes(LARGE))["ETag"]}]
    return lambda: s3.complete_multipart_upload(
        Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
    )


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/ErrorBestPractices.html")
@pytest.mark.parametrize("versioning", ["Suspended", "Enabled"])
@pytest.mark.parametrize("prepare", [put_large, copy_large, complete_large])
def test_an_object_that_cannot_be_written_is_refused_and_not_there(
    running: EndpointProcess, prepare: Callable[[Any, str], Callable[[], Any]], versioning: str
) -> None:
    # GIVEN an object, and an endpoint that has no space for another one in its place
    s3 = running.client("s3", config=Config(retries={"total_max_attempts": 1}))
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": versioning})
    key, new = f"{prepare.__name__}-{versioning}", f"{prepare.__name__}-{versioning}-new"
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"old")
    changes = [prepare(s3, key), prepare(s3, new)]
    event_keys(running)

    # WHEN it is replaced, and another one is put
    with without_space(running):
        for change in changes:
            with pytest.raises(ClientError) as refusal:
                change()

            # THEN that is refused, with an error after which it is to be tried again
            assert refusal.value.response["Error"]["Code"] == "InternalError"
            assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500

    # AND the objects are what they were, nothing half-written takes up space, and nobody was told
    assert_old(s3, key)
    assert not list((running.state_directory / "s3").rglob("*.tmp"))
    assert event_keys(running) == []


def assert_old(s3: Any, key: str) -> None:
    """Assert that of all objects whose keys begin so there is the old one alone, in one version."""
    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"old"
    versions = s3.list_object_versions(Bucket=BUCKET, Prefix=key)["Versions"]
    assert [(version["Key"], version["IsLatest"]) for version in versions] == [(key, True)]


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/ErrorBestPractices.html")
def test_an_object_for_which_no_folder_can_be_made_is_refused_too(running: EndpointProcess) -> None:
    # GIVEN a bucket in whose folder's place there is a file
    s3 = running.client("s3", config=Config(retries={"total_max_attempts": 1}))
    s3.create_bucket(Bucket="folderless", CreateBucketConfiguration={"LocationConstraint": REGION})
    folder = running.state_directory / "s3" / ACCOUNT / "folderless"
    folder.rmdir()
    folder.touch()

    # WHEN / THEN
    with pytest.raises(ClientError, match="InternalError"):
        s3.put_object(Bucket="folderless", Key="a/b", Body=b"new")
    assert "Contents" not in s3.list_objects_v2(Bucket="folderless")
    folder.unlink()


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/ErrorBestPractices.html")
def test_what_was_refused_is_not_there_after_a_kill_either(running: EndpointProcess) -> None:
    # GIVEN
    s3 = running.client("s3", config=Config(retries={"total_max_attempts": 1}))
    s3.put_object(Bucket=BUCKET, Key="killed", Body=b"old")
    with without_space(running), pytest.raises(ClientError):
        s3.put_object(Bucket=BUCKET, Key="killed", Body=bytes(LARGE))

    # WHEN
    running.kill()
    running.start()

    # THEN
    assert_old(running.client("s3"), "killed")


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/ErrorBestPractices.html")
def test_what_was_refused_can_be_done_once_there_is_space(running: EndpointProcess) -> None:
    # GIVEN an upload whose completion was refused
    s3 = running.client("s3", config=Config(retries={"total_max_attempts": 1}))
    complete = complete_large(s3, "again")
    with without_space(running), pytest.raises(ClientError):
        complete()
    event_keys(running)

    # WHEN the completion is asked for again, as AWS advises
    complete()

    # THEN
    assert s3.head_object(Bucket=BUCKET, Key="again")["ContentLength"] == LARGE
    assert wait_until(lambda: event_keys(running)) == ["again"]


def event_keys(running: EndpointProcess) -> list[str]:
    """Return the keys of the events that have come since the last look; an event comes before the answer."""
    sqs, keys = running.client("sqs"), []
    url = sqs.get_queue_url(QueueName="events")["QueueUrl"]
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
        for message in messages:
            keys.append(json.loads(message["Body"])["detail"]["object"]["key"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return keys
