"""The permissions to use a customer managed key that S3, Kinesis, SQS and SNS ask of their callers.

MiniStack lets whoever may read or write an encrypted object, stream, queue or topic do so. On AWS the service calls KMS
with the caller's permissions, so that a missing grant on the key is a denial although the service itself would allow
the request. Here the key policy and the caller's policies are evaluated for the actions that AWS documents, with the
key ``kms:ViaService`` and the encryption context that the service brings:

* S3 (https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html): ``kms:GenerateDataKey`` to write,
  ``kms:Decrypt`` to read, to copy from, and to upload or complete parts
  (https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html). The context is the object's ARN, or with a
  bucket key the bucket's (https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-key.html).
* Kinesis (https://docs.aws.amazon.com/streams/latest/dev/permissions-user-key-KMS.html): producers need
  ``kms:GenerateDataKey``, consumers ``kms:Decrypt``; the context is the stream's ARN.
* SQS (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html): producers
  need ``kms:GenerateDataKey`` and ``kms:Decrypt``, consumers ``kms:Decrypt``; the context is the queue's ARN.
* SNS (https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html): publishers need ``kms:GenerateDataKey`` and
  ``kms:Decrypt``; the context is the topic's ARN.

Athena's reads are asked about where Athena reads; what a service delivers in its own name is asked about in ``access``.

Known deviations from AWS:

* Nothing is encrypted and KMS is not called: there are no data keys, no grants (``CreateGrant``), and no quotas, and a
  key that is disabled or deleted still serves. AWS managed keys (``alias/aws/…``) ask nothing of a caller.
* Every use is asked about: AWS remembers data keys for a while (five minutes for SQS unless the queue says otherwise,
  bucket keys for S3), so that a grant that was taken away works on there.
* Whether an object has a bucket key is read from its bucket's configuration of now; a request cannot choose for itself.
  The context that a caller adds (``x-amz-server-side-encryption-context``) is not evaluated.
* ``kms:EncryptionContextKeys`` and ``kms:CallerAccount`` are the only further keys of KMS.
* ``GetRecords`` with an iterator alone, without ``StreamARN``, names no stream and is not asked about.
* Log groups, Glue security configurations (logs, bookmarks), functions' variables and Athena's results in a
  managed place ask for no key; nor does the deletion or tagging of anything.
"""

import contextvars
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

ENCRYPTION_HEADER = "x-amz-server-side-encryption"
KEY_HEADER = "x-amz-server-side-encryption-aws-kms-key-id"
KMS_ENCRYPTION = "aws:kms"

DECRYPT = "kms:Decrypt"
GENERATE = "kms:GenerateDataKey"

# What the caller of an action needs of the key of the resource that the action is about.
USES: Mapping[str, tuple[str, ...]] = {
    "kinesis:PutRecord": (GENERATE,),
    "kinesis:PutRecords": (GENERATE,),
    "kinesis:GetRecords": (DECRYPT,),
    "kinesis:SubscribeToShard": (DECRYPT,),
    "sqs:SendMessage": (GENERATE, DECRYPT),
    "sqs:ReceiveMessage": (DECRYPT,),
    "sns:Publish": (GENERATE, DECRYPT),
}
CONTEXT_KEYS = {"kinesis": "aws:kinesis:arn", "s3": "aws:s3:arn", "sns": "aws:sns:topicArn", "sqs": "aws:sqs:arn"}
# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html#API_PutRecords_Errors,
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html#API_SendMessage_Errors,
# https://docs.aws.amazon.com/sns/latest/api/API_Publish.html#API_Publish_Errors
ERROR_CODES = {"kinesis": "KMSAccessDeniedException", "sns": "KMSAccessDenied", "sqs": "KmsAccessDenied"}


@dataclass(frozen=True)
class KeyUse:
    """One use of a key by a service in the name of a caller."""

    action: str
    key_arn: str
    service: str
    resource_arn: str

    def condition_keys(self, region: str, account_id: str) -> dict[str, Any]:
        """Return what policies can ask of the use: https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html."""
        context_key = CONTEXT_KEYS[self.service]
        return {
            "kms:CallerAccount": account_id,
            "kms:EncryptionContextKeys": [context_key],
            "kms:ViaService": f"{self.service}.{region}.amazonaws.com",
            f"kms:EncryptionContext:{context_key}": self.resource_arn,
        }


@dataclass(frozen=True)
class Request:
    """The request that is being served, as far as the use of keys depends on it."""

    method: str
    access_key_id: str | None = None
    read_arn: str = ""
    written_arn: str = ""


_request: contextvars.ContextVar[Request | None] = contextvars.ContextVar("request_for_keys", default=None)


def has_bucket_key(encryption_document: str | None) -> bool:
    """Return whether a bucket's encryption, as PutBucketEncryption takes it, has bucket keys switched on."""
    if not encryption_document:
        return False
    root = ET.fromstring(encryption_document)  # noqa: S314  MiniStack has parsed the document when it was put
    texts = [element.text or "" for element in root.iter() if element.tag.rpartition("}")[2] == "BucketKeyEnabled"]
    return any(text.strip().lower() == "true" for text in texts)


class CustomerKeys:
    """Finds the customer managed keys of resources."""

    def __init__(self) -> None:
        from ministack.services import kinesis, kms, s3, sns, sqs

        self._resolve = seams.require(kms, "_resolve_key")
        self._streams = seams.require(kinesis, "_streams")
        self._topics = seams.require(sns, "_topics")
        self._queue = seams.require(sqs, "_queue_by_arn")
        self._encryption = seams.require(s3, "_bucket_encryption")
        self._buckets = seams.require(s3, "_buckets")

    def arn(self, key: str | None) -> str | None:
        """Return the ARN of a key that is named by ARN, id or alias; None for an AWS managed or an unknown one."""
        found = self._resolve(key) if key else None
        return None if found is None else str(found["Arn"])

    def of_resource(self, resource_arn: str) -> str | None:
        """Return the ARN of the customer managed key of a stream, queue or topic, None if it has none."""
        service, name = resource_arn.split(":")[2], resource_arn.rsplit(":", 1)[-1]
        key = None
        if service == "kinesis":
            stream = self._streams.get(name.removeprefix("stream/"))
            if stream is not None and stream.get("EncryptionType") == "KMS":
                key = stream.get("KeyId")
        elif service == "sqs":
            queue = self._queue(resource_arn)
            key = None if queue is None else queue["attributes"].get("KmsMasterKeyId")
        elif service == "sns":
            topic = self._topics.get(resource_arn)
            key = None if topic is None else topic["attributes"].get("KmsMasterKeyId")
        return self.arn(key)

    def use_in_bucket(
        self, action: str, stored_headers: Mapping[str, str], bucket: str, key: str | None
    ) -> KeyUse | None:
        """Return the use of a key for an object with these headers, None if it has no customer managed key.

        Args:
            action: ``DECRYPT`` or ``GENERATE``.
            stored_headers: the object's encryption, as S3's own headers say it.
            bucket: the name of its bucket.
            key: the object's key, None if it is not known: then the use counts as one of the bucket.
        """
        if stored_headers.get(ENCRYPTION_HEADER) != KMS_ENCRYPTION:
            return None
        key_arn = self.arn(stored_headers.get(KEY_HEADER))
        if key_arn is None:
            return None
        arn = f"arn:aws:s3:::{bucket}"
        if key is not None and not has_bucket_key(self._encryption.get(bucket)):
            arn = f"{arn}/{key}"
        return KeyUse(action, key_arn, "s3", arn)

    def read_of_object(self, bucket: str, key: str) -> KeyUse | None:
        """Return the use of a key that reading an object takes, None if there is none."""
        stored = (self._buckets.get(bucket) or {}).get("objects", {}).get(key)
        return None if stored is None else self.use_in_bucket(DECRYPT, _encryption_headers(stored), bucket, key)


def _encryption_headers(stored: Mapping[str, Any]) -> Mapping[str, str]:
    headers: Mapping[str, str] = stored.get("preserved_headers") or {}
    return headers


def _object_key(object_arn: str) -> str | None:
    return object_arn.partition("/")[2] or None


class KeyAccess:
    """Asks IAM about the keys of what a request reads or writes, after it was asked about the request itself."""

    def __init__(self, endpoint: Endpoint) -> None:
        from ministack.core import iam_actions, iam_evaluator
        from ministack.services import s3

        self._endpoint = endpoint
        self._keys = CustomerKeys()
        self._auth_error = iam_evaluator.AuthError
        self._enforce = seams.require(iam_evaluator, "enforce")
        self._message = seams.require(iam_actions, "identity_denial_message")
        self._find_resource = seams.require(iam_actions, "extract_resource_arn")
        self._s3_error = seams.require(s3, "_error")
        self._resolve_write = seams.require(s3, "_resolve_sse_write_headers")
        self._check_read = seams.require(s3, "_check_sse_read_headers")
        self._check_source = seams.require(s3, "_check_sse_c_copy_source")
        self._check_part = seams.require(s3, "_check_sse_c_part")

    def install(self) -> None:
        """Replace MiniStack's checks by ones that go on to the keys."""
        from ministack.core import iam_actions, iam_evaluator
        from ministack.services import s3

        seams.replace(iam_actions, "extract_resource_arn", self.extract_resource_arn)
        seams.replace(iam_evaluator, "enforce", self.enforce)
        seams.replace(s3, "_resolve_sse_write_headers", self.resolve_sse_write_headers)
        seams.replace(s3, "_check_sse_read_headers", self.check_sse_read_headers)
        seams.replace(s3, "_check_sse_c_copy_source", self.check_sse_c_copy_source)
        seams.replace(s3, "_check_sse_c_part", self.check_sse_c_part)

    def extract_resource_arn(self, service: str, method: str, *others: Any) -> str:
        """Remember the request that IAM is about to be asked about."""
        _request.set(Request(method))
        arn: str = self._find_resource(service, method, *others)
        return arn

    def enforce(  # noqa: PLR0917  MiniStack's signature
        self,
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Ask IAM about an action and, for a stream, queue or topic, about its key; S3 asks when it is at work."""
        denied = self._enforce(
            access_key_id, iam_action, service, region, resource_arn=resource_arn, service_context=service_context
        )
        if denied:
            return denied
        request = _request.get()
        if service == "s3" and request is not None:
            request = replace(request, access_key_id=access_key_id or "")
            if iam_action.startswith("s3:GetObject"):
                request = replace(request, read_arn=resource_arn)
            elif iam_action == "s3:PutObject":
                request = replace(request, written_arn=resource_arn)
            _request.set(request)
        needed = USES.get(iam_action, ()) if resource_arn.startswith("arn:") else ()
        key_arn = self._keys.of_resource(resource_arn) if needed else None
        for action in needed if key_arn is not None else ():
            reason = self._denial(access_key_id, KeyUse(action, str(key_arn), service, resource_arn))
            if reason:
                return self._auth_error(ERROR_CODES[service], reason)
        return None

    def _denial(self, access_key_id: str, use: KeyUse) -> str | None:
        """Return why a caller may not use a key, in IAM's words, or None when it may."""
        settings = self._endpoint.settings
        context = use.condition_keys(settings.region, settings.account_id)
        denied = self._enforce(
            access_key_id, use.action, "kms", settings.region, resource_arn=use.key_arn, service_context=context
        )
        if denied is None:
            return None
        if isinstance(denied, self._auth_error):
            return str(denied.message)
        return str(self._message(use.action, denied.principal_arn, use.key_arn, denied.decision == "Deny"))

    def _refusal(self, use: KeyUse | None) -> Any:
        """Return S3's answer to who may not use a key, None when nothing stands against it."""
        request = _request.get()
        # What MiniStack's services do on their own carries no caller.
        if use is None or request is None or request.access_key_id is None:
            return None
        reason = self._denial(request.access_key_id, use)
        return self._s3_error("AccessDenied", reason, 403) if reason else None

    def _read(self, stored: Mapping[str, Any]) -> KeyUse | None:
        request = _request.get()
        arn = request.read_arn if request is not None else ""
        bucket = arn.removeprefix("arn:aws:s3:::").partition("/")[0]
        return self._keys.use_in_bucket(DECRYPT, _encryption_headers(stored), bucket, _object_key(arn))

    def resolve_sse_write_headers(self, headers: Mapping[str, str], bucket_name: str) -> Any:
        """Return how an object will be encrypted and None, or None and the answer that refuses the request."""
        stored_headers, refused = self._resolve_write(headers, bucket_name)
        if refused is None:
            request = _request.get()
            key = _object_key(request.written_arn if request is not None else "")
            refused = self._refusal(self._keys.use_in_bucket(GENERATE, stored_headers, bucket_name, key))
        return (None, refused) if refused else (stored_headers, None)

    def check_sse_read_headers(self, headers: Mapping[str, str], stored: Mapping[str, Any]) -> Any:
        """Return the answer that refuses to read an object, or None."""
        request = _request.get()
        # What HEAD tells is not encrypted: https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
        is_head = request is not None and request.method == "HEAD"
        return self._check_read(headers, stored) or (None if is_head else self._refusal(self._read(stored)))

    def check_sse_c_copy_source(self, headers: Mapping[str, str], stored: Mapping[str, Any]) -> Any:
        """Return the answer that refuses to copy from an object, or None."""
        return self._check_source(headers, stored) or self._refusal(self._read(stored))

    def check_sse_c_part(self, headers: Mapping[str, str], upload: Mapping[str, Any]) -> Any:
        """Return the answer that refuses to go on with a multipart upload, or None."""
        use = self._keys.use_in_bucket(DECRYPT, _encryption_headers(upload), upload["bucket"], upload["key"])
        return self._check_part(headers, upload) or self._refusal(use)


def install(endpoint: Endpoint) -> None:
    """Ask about the keys of what a request reads or writes."""
    KeyAccess(endpoint).install()
