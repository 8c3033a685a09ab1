"""Who may use a customer managed key behind S3, Kinesis, SQS and SNS, by the AWS documents that are named below."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from telemetry_lake.local.encryption import KeyUse, has_bucket_key
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess

S3_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
Statement = dict[str, Any]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    process = EndpointProcess(tmp_path_factory.mktemp("encryption"))
    yield process
    process.stop()


def key(endpoint: EndpointProcess, principal: str = f"arn:aws:iam::{ACCOUNT}:root") -> str:
    """A key whose policy lets IAM decide for ``principal``: by default for the whole account."""
    statement = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "kms:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    return str(endpoint.client("kms").create_key(Policy=policy)["KeyMetadata"]["Arn"])


def bucket(endpoint: EndpointProcess, name: str, key_arn: str | None, bucket_key: bool = True) -> str:
    s3 = endpoint.client("s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    if key_arn is not None:
        default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key_arn}
        rule = {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": bucket_key}
        s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})
    return name


def user(endpoint: EndpointProcess, name: str, *statements: Statement) -> boto3.Session:
    """A user who may do everything but with keys, and with keys what the statements say."""
    iam = endpoint.client("iam")
    iam.create_user(UserName=name)
    everything = {"Effect": "Allow", "NotAction": "kms:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [everything, *statements]})
    iam.put_user_policy(UserName=name, PolicyName="access", PolicyDocument=policy)
    access_key = iam.create_access_key(UserName=name)["AccessKey"]
    return boto3.Session(access_key["AccessKeyId"], access_key["SecretAccessKey"], region_name=REGION)


def client(endpoint: EndpointProcess, session: boto3.Session, service: str) -> Any:
    return session.client(service, endpoint_url=endpoint.url)  # type: ignore[call-overload]


def allow(action: str, key_arn: str, **condition: Any) -> Statement:
    statement = {"Effect": "Allow", "Action": action, "Resource": key_arn}
    return statement | ({"Condition": condition} if condition else {})


def refusal(call: Any, **arguments: Any) -> str:
    """Return the code and the message of the denial, nothing when the call is allowed."""
    try:
        call(**arguments)
    except ClientError as error:
        return f"{error.response['Error']['Code']}: {error.response['Error'].get('Message', '')}"
    return ""


# --- S3: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html --------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html")
def test_writing_needs_a_data_key_and_reading_needs_to_decrypt(endpoint: EndpointProcess) -> None:
    # GIVEN
    key_arn = key(endpoint)
    name = bucket(endpoint, "encrypted", key_arn)
    nobody = client(endpoint, user(endpoint, "s3-nobody"), "s3")
    writer = client(endpoint, user(endpoint, "s3-writer", allow("kms:GenerateDataKey", key_arn)), "s3")
    reader = client(endpoint, user(endpoint, "s3-reader", allow("kms:Decrypt", key_arn)), "s3")

    # WHEN / THEN
    put = {"Bucket": name, "Key": "a", "Body": b"1"}
    refused = refusal(nobody.put_object, **put)
    assert refused.startswith("AccessDenied: ")
    assert f"kms:GenerateDataKey on resource: {key_arn}" in refused
    assert "kms:GenerateDataKey" in refusal(reader.put_object, **put)
    assert refusal(writer.put_object, **put) == ""
    assert "kms:Decrypt" in refusal(writer.get_object, Bucket=name, Key="a")
    assert reader.get_object(Bucket=name, Key="a")["Body"].read() == b"1"

    # AND what HEAD tells needs no key, and the root user's permissions come from the key policy
    assert nobody.head_object(Bucket=name, Key="a")["SSEKMSKeyId"] == key_arn
    assert endpoint.client("s3").get_object(Bucket=name, Key="a")["Body"].read() == b"1"


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html")
def test_a_copy_decrypts_its_source_and_takes_a_data_key_for_its_target(endpoint: EndpointProcess) -> None:
    # GIVEN two keys, one for the source and one for the target
    source_key, target_key = key(endpoint), key(endpoint)
    source, target = bucket(endpoint, "copied-from", source_key), bucket(endpoint, "copied-to", target_key)
    endpoint.client("s3").put_object(Bucket=source, Key="a", Body=b"1")
    arguments = {"Bucket": target, "Key": "b", "CopySource": {"Bucket": source, "Key": "a"}}
    of_source, of_target = allow("kms:Decrypt", source_key), allow("kms:GenerateDataKey", target_key)

    # WHEN / THEN
    copies = {
        "no-source": ([of_target], f"kms:Decrypt on resource: {source_key}"),
        "no-target": ([of_source], f"kms:GenerateDataKey on resource: {target_key}"),
        "both": ([of_source, of_target], ""),
    }
    for name, (statements, said) in copies.items():
        refused = refusal(client(endpoint, user(endpoint, f"copy-{name}", *statements), "s3").copy_object, **arguments)
        assert said in refused
        assert bool(refused) == bool(said)


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html")
def test_parts_need_to_decrypt_too(endpoint: EndpointProcess) -> None:
    # GIVEN https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html (API and permissions)
    key_arn = key(endpoint)
    upload = {"Bucket": bucket(endpoint, "parts", key_arn), "Key": "big"}
    generate, decrypt = allow("kms:GenerateDataKey", key_arn), allow("kms:Decrypt", key_arn)
    writer = client(endpoint, user(endpoint, "parts-writer", generate), "s3")
    both = client(endpoint, user(endpoint, "parts-both", generate, decrypt), "s3")

    # WHEN
    upload_id = writer.create_multipart_upload(**upload)["UploadId"]

    # THEN
    part = {**upload, "UploadId": upload_id, "PartNumber": 1, "Body": b"1"}
    assert "kms:Decrypt" in refusal(writer.upload_part, **part)
    parts = [{"PartNumber": 1, "ETag": both.upload_part(**part)["ETag"]}]
    complete = {**upload, "UploadId": upload_id, "MultipartUpload": {"Parts": parts}}
    assert "kms:Decrypt" in refusal(writer.complete_multipart_upload, **complete)
    assert refusal(both.complete_multipart_upload, **complete) == ""


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-key.html")
@pytest.mark.parametrize(("bucket_key", "context"), [(True, ""), (False, "/a")])
def test_the_context_is_the_object_or_with_a_bucket_key_the_bucket(
    endpoint: EndpointProcess, bucket_key: bool, context: str
) -> None:
    # GIVEN https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-key.html: "Changes to note"
    key_arn = key(endpoint)
    name = bucket(endpoint, f"context-{bucket_key}".lower(), key_arn, bucket_key)
    via = {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}
    arn = f"arn:aws:s3:::{name}"

    # WHEN / THEN
    for suffix in ("", "/a"):
        condition = {**via, "kms:EncryptionContext:aws:s3:arn": arn + suffix}
        statements = [allow("kms:*", key_arn, StringEquals=condition)]
        who = f"{name}-{len(suffix)}"
        s3 = client(endpoint, user(endpoint, who, *statements), "s3")
        refused = [refusal(s3.put_object, Bucket=name, Key="a", Body=b"1")]
        endpoint.client("s3").put_object(Bucket=name, Key="a", Body=b"1")
        refused.append(refusal(s3.get_object, Bucket=name, Key="a"))
        assert [bool(each) for each in refused] == [suffix != context] * 2


@pytest.mark.source("https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html")
def test_a_grant_for_another_service_is_none_for_s3(endpoint: EndpointProcess) -> None:
    # GIVEN
    key_arn = key(endpoint)
    name = bucket(endpoint, "via", key_arn)
    via = {"kms:ViaService": f"kinesis.{REGION}.amazonaws.com"}
    s3 = client(endpoint, user(endpoint, "via-kinesis", allow("kms:*", key_arn, StringEquals=via)), "s3")

    # WHEN / THEN
    assert "kms:GenerateDataKey" in refusal(s3.put_object, Bucket=name, Key="a", Body=b"1")


@pytest.mark.source("https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html")
def test_the_key_policy_has_to_let_the_account_in(endpoint: EndpointProcess) -> None:
    # GIVEN a key for one user only: https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html
    friend = user(endpoint, "friend")
    key_arn = key(endpoint, f"arn:aws:iam::{ACCOUNT}:user/friend")
    name = bucket(endpoint, "private", key_arn)
    other = user(endpoint, "stranger", allow("kms:*", "*"))

    # WHEN / THEN
    put = {"Bucket": name, "Key": "a", "Body": b"1"}
    assert refusal(client(endpoint, friend, "s3").put_object, **put) == ""
    assert "kms:GenerateDataKey" in refusal(client(endpoint, other, "s3").put_object, **put)


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/specifying-kms-encryption.html")
def test_a_key_that_the_request_names_counts_instead_of_the_bucket_s(endpoint: EndpointProcess) -> None:
    # GIVEN
    default, named = key(endpoint), key(endpoint)
    name = bucket(endpoint, "named", default)
    s3 = client(endpoint, user(endpoint, "names-key", allow("kms:GenerateDataKey", named)), "s3")

    # WHEN / THEN
    put = {"Bucket": name, "Key": "a", "Body": b"1"}
    assert default in refusal(s3.put_object, **put)
    assert refusal(s3.put_object, **put, ServerSideEncryption="aws:kms", SSEKMSKeyId=named) == ""
    assert refusal(s3.put_object, **put, ServerSideEncryption="AES256") == ""


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingServerSideEncryption.html")
def test_without_a_customer_key_nothing_is_asked(endpoint: EndpointProcess) -> None:
    # GIVEN
    name = bucket(endpoint, "plain", None)
    s3 = client(endpoint, user(endpoint, "plain"), "s3")

    # WHEN / THEN
    assert refusal(s3.put_object, Bucket=name, Key="a", Body=b"1") == ""
    assert refusal(s3.get_object, Bucket=name, Key="a") == ""


# --- Kinesis: https://docs.aws.amazon.com/streams/latest/dev/permissions-user-key-KMS.html ----------------------------


@pytest.mark.source("https://docs.aws.amazon.com/streams/latest/dev/permissions-user-key-KMS.html")
def test_producers_need_a_data_key_and_consumers_need_to_decrypt(endpoint: EndpointProcess) -> None:
    # GIVEN
    key_arn = key(endpoint)
    kinesis = endpoint.client("kinesis")
    kinesis.create_stream(StreamName="s", ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName="s")
    kinesis.start_stream_encryption(StreamName="s", EncryptionType="KMS", KeyId=key_arn)
    arn = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/s"
    condition = {
        "kms:ViaService": f"kinesis.{REGION}.amazonaws.com",
        "kms:EncryptionContext:aws:kinesis:arn": arn,
    }
    producer = user(endpoint, "producer", allow("kms:GenerateDataKey", key_arn, StringEquals=condition))
    consumer = user(endpoint, "consumer", allow("kms:Decrypt", key_arn, StringEquals=condition))
    shard = {"StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
    iterator = kinesis.get_shard_iterator(**shard)["ShardIterator"]
    records = [{"Data": b"1", "PartitionKey": "p"}]

    # WHEN / THEN
    for session, may_produce, may_consume in ((producer, True, False), (consumer, False, True)):
        own = client(endpoint, session, "kinesis")
        refused = [
            refusal(own.put_records, StreamName="s", Records=records),
            refusal(own.put_record, StreamARN=arn, Data=b"1", PartitionKey="p"),
            refusal(own.get_records, ShardIterator=iterator, StreamARN=arn),
        ]
        assert [not each for each in refused] == [may_produce, may_produce, may_consume]
        assert all(each.startswith("KMSAccessDeniedException: ") for each in refused if each)


# --- queues and topics ------------------------------------------------------------------------------------------------


@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html"
)
def test_senders_need_a_data_key_and_to_decrypt_and_receivers_to_decrypt(endpoint: EndpointProcess) -> None:
    # GIVEN https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html
    key_arn = key(endpoint)
    url = endpoint.client("sqs").create_queue(QueueName="q", Attributes={"KmsMasterKeyId": key_arn})["QueueUrl"]
    generate, decrypt = allow("kms:GenerateDataKey", key_arn), allow("kms:Decrypt", key_arn)

    # WHEN / THEN
    for name, statements, sends, receives in (
        ("q-nobody", [], False, False),
        ("q-decrypts", [decrypt], False, True),
        ("q-generates", [generate], False, False),
        ("q-both", [generate, decrypt], True, True),
    ):
        sqs = client(endpoint, user(endpoint, name, *statements), "sqs")
        assert (refusal(sqs.send_message, QueueUrl=url, MessageBody="m") == "") is sends
        assert (refusal(sqs.receive_message, QueueUrl=url) == "") is receives


@pytest.mark.source("https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html")
def test_publishers_need_a_data_key_and_to_decrypt(endpoint: EndpointProcess) -> None:
    # GIVEN https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
    key_arn = key(endpoint)
    arn = endpoint.client("sns").create_topic(Name="t", Attributes={"KmsMasterKeyId": key_arn})["TopicArn"]
    generate, decrypt = allow("kms:GenerateDataKey", key_arn), allow("kms:Decrypt", key_arn)
    half = client(endpoint, user(endpoint, "t-generates", generate), "sns")
    both = client(endpoint, user(endpoint, "t-both", generate, decrypt), "sns")

    # WHEN / THEN
    assert refusal(half.publish, TopicArn=arn, Message="m").startswith("KMSAccessDenied: ")
    assert refusal(both.publish, TopicArn=arn, Message="m") == ""


# --- pure parts -------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/AmazonS3/latest/API/API_ServerSideEncryptionRule.html")
@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (None, False),
        (f'<C xmlns="{S3_NAMESPACE}"><Rule><BucketKeyEnabled>true</BucketKeyEnabled></Rule></C>', True),
        ("<C><Rule><BucketKeyEnabled>false</BucketKeyEnabled></Rule></C>", False),
        ("<C><Rule/></C>", False),
    ],
)
def test_bucket_keys_are_found_in_a_bucket_s_encryption(document: str | None, expected: bool) -> None:
    assert has_bucket_key(document) is expected


@pytest.mark.source("https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html")
def test_a_use_brings_the_service_and_the_context() -> None:
    # GIVEN https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html
    use = KeyUse("kms:Decrypt", "arn:aws:kms:::key/k", "sns", "arn:aws:sns:::t")

    # WHEN / THEN
    assert use.condition_keys(REGION, ACCOUNT) == {
        "kms:CallerAccount": ACCOUNT,
        "kms:EncryptionContextKeys": ["aws:sns:topicArn"],
        "kms:EncryptionContext:aws:sns:topicArn": "arn:aws:sns:::t",
        "kms:ViaService": f"sns.{REGION}.amazonaws.com",
    }
