"""Amazon S3's events on EventBridge, against https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from telemetry_lake.local.object_events import Change, completed
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

EVENT = {
    "Source": "aws.s3",
    "Time": "2026-11-24T04:05:06.789Z",
    "Detail": json.dumps({"object": {"key": "k", "size": 1}, "reason": "PutObject"}),
}


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html")
def test_version_and_caller_are_added_and_the_time_has_whole_seconds() -> None:
    # WHEN
    event = completed(EVENT, Change(version_id="v1", source_ip="192.0.2.1"))

    # THEN
    detail = json.loads(event["Detail"])
    assert event["Time"] == "2026-11-24T04:05:06Z"
    assert detail["object"] == {"key": "k", "size": 1, "version-id": "v1"}
    assert detail["source-ip-address"] == "192.0.2.1"
    assert re.fullmatch("[0-9A-Z]{16}", detail["request-id"])


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html")
@pytest.mark.parametrize("version_id", [None, "", "null"])
def test_object_without_versioning_has_no_version(version_id: str | None) -> None:
    # WHEN
    event = completed(EVENT, Change(version_id=version_id, source_ip="192.0.2.1"))

    # THEN
    assert "version-id" not in json.loads(event["Detail"])["object"]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    process = EndpointProcess(tmp_path_factory.mktemp("object-events"))
    yield process
    process.stop()


def watch(endpoint: EndpointProcess, bucket: str, versioned: bool) -> str:
    """Create a bucket whose events go to a queue, and return the URL of the queue."""
    s3, sqs, events = endpoint.client("s3"), endpoint.client("sqs"), endpoint.client("events")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    if versioned:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}})
    url: str = sqs.create_queue(QueueName=bucket)["QueueUrl"]
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{bucket}"
    pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}}
    rule = events.put_rule(Name=bucket, EventPattern=json.dumps(pattern))["RuleArn"]
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": {"ArnEquals": {"aws:SourceArn": rule}},
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": document})
    events.put_targets(Rule=bucket, Targets=[{"Id": "1", "Arn": queue}])
    return url


def next_event(endpoint: EndpointProcess, url: str) -> dict[str, Any]:
    sqs = endpoint.client("sqs")
    message = wait_until(lambda: sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2).get("Messages"))[0]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    event: dict[str, Any] = json.loads(message["Body"])
    return event


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html")
def test_every_way_to_create_an_object_has_its_reason_and_version(endpoint: EndpointProcess) -> None:
    # GIVEN
    url = watch(endpoint, "versioned", versioned=True)
    s3 = endpoint.client("s3")

    # WHEN an object is put
    put = s3.put_object(Bucket="versioned", Key="raw data/a+b.gz", Body=b"hello")

    # THEN the event has the documented fields
    event = next_event(endpoint, url)
    assert event["version"] == "0"
    assert event["detail-type"] == "Object Created"
    assert event["source"] == "aws.s3"
    assert event["account"] == ACCOUNT
    assert event["region"] == REGION
    assert event["resources"] == ["arn:aws:s3:::versioned"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", event["time"])
    detail = event["detail"]
    assert detail["bucket"] == {"name": "versioned"}
    assert detail["object"].pop("sequencer")
    assert detail["object"] == {
        "key": "raw data/a+b.gz",
        "size": 5,
        "etag": put["ETag"].strip('"'),
        "version-id": put["VersionId"],
    }
    assert (detail["reason"], detail["requester"]) == ("PutObject", ACCOUNT)
    assert detail["source-ip-address"] == "127.0.0.1"

    # WHEN it is copied
    copied = s3.copy_object(
        Bucket="versioned", Key="copy", CopySource={"Bucket": "versioned", "Key": "raw data/a+b.gz"}
    )

    # THEN
    detail = next_event(endpoint, url)["detail"]
    assert (detail["reason"], detail["object"]["version-id"]) == ("CopyObject", copied["VersionId"])

    # WHEN it is uploaded in parts
    upload = s3.create_multipart_upload(Bucket="versioned", Key="parts")["UploadId"]
    part = s3.upload_part(Bucket="versioned", Key="parts", UploadId=upload, PartNumber=1, Body=b"x" * 10)
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    completed_upload = s3.complete_multipart_upload(
        Bucket="versioned", Key="parts", UploadId=upload, MultipartUpload=parts
    )

    # THEN there is one event, for the whole object
    detail = next_event(endpoint, url)["detail"]
    assert (detail["reason"], detail["object"]["size"]) == ("CompleteMultipartUpload", 10)
    assert detail["object"]["version-id"] == completed_upload["VersionId"]


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html")
def test_event_of_a_bucket_without_versioning_has_no_version(endpoint: EndpointProcess) -> None:
    # GIVEN
    url = watch(endpoint, "unversioned", versioned=False)

    # WHEN
    endpoint.client("s3").put_object(Bucket="unversioned", Key="k", Body=b"")

    # THEN
    detail = next_event(endpoint, url)["detail"]
    assert "version-id" not in detail["object"]
    assert detail["object"]["size"] == 0


def test_objects_deleted_in_one_request_are_gone_and_each_has_its_event(endpoint: EndpointProcess) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html: a key that is not there is no error."""
    # GIVEN
    url = watch(endpoint, "deleted", versioned=False)
    s3 = endpoint.client("s3")
    for key in ("a", "b", "kept"):
        s3.put_object(Bucket="deleted", Key=key, Body=b"x")
        assert next_event(endpoint, url)["detail"]["object"]["key"] == key

    # WHEN
    named = [{"Key": "a"}, {"Key": "never there"}, {"Key": "b"}]
    quiet = s3.delete_objects(Bucket="deleted", Delete={"Objects": named, "Quiet": True})

    # THEN a quiet answer names errors only
    assert "Deleted" not in quiet
    assert "Errors" not in quiet
    assert [each["Key"] for each in s3.list_objects_v2(Bucket="deleted")["Contents"]] == ["kept"]
    deletions = [next_event(endpoint, url) for _ in range(2)]
    assert {each["detail-type"] for each in deletions} == {"Object Deleted"}
    assert {(each["detail"]["object"]["key"], each["detail"]["reason"]) for each in deletions} == {
        ("a", "DeleteObject"),
        ("b", "DeleteObject"),
    }


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html")
def test_event_of_a_deletion_has_no_size_and_that_of_a_delete_marker_the_etag_of_nothing(
    endpoint: EndpointProcess,
) -> None:
    # GIVEN
    url = watch(endpoint, "marked", versioned=True)
    s3 = endpoint.client("s3")
    put = s3.put_object(Bucket="marked", Key="k", Body=b"hello")
    next_event(endpoint, url)

    # WHEN it is hidden behind a delete marker
    marker = s3.delete_object(Bucket="marked", Key="k")

    # THEN the event has the fields of AWS's example
    detail = next_event(endpoint, url)["detail"]
    assert (detail["reason"], detail["deletion-type"]) == ("DeleteObject", "Delete Marker Created")
    assert detail["object"].pop("sequencer")
    assert detail["object"] == {
        "key": "k",
        "etag": hashlib.md5(b"", usedforsecurity=False).hexdigest(),
        "version-id": marker["VersionId"],
    }

    # WHEN its only version is deleted
    s3.delete_object(Bucket="marked", Key="k", VersionId=put["VersionId"])

    # THEN
    detail = next_event(endpoint, url)["detail"]
    assert detail["deletion-type"] == "Permanently Deleted"
    assert detail["object"].keys() == {"key", "version-id", "sequencer"}
