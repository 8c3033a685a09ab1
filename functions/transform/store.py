"""Storing a batch's dead letters: one object, one put, and a plain answer to whether it was stored.

It is imported by the first batch that has any: boto3 takes several times as long to start as everything else together.
"""

from functools import cache
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CLIENT_SETTINGS = Config(
    # The batch is answered even when S3 does not: three short attempts (at worst some 25 s) stay inside the time limit
    # of the function, and what cannot be stored is handed back to Firehose.
    connect_timeout=2,
    read_timeout=5,
    retries={"mode": "standard", "total_max_attempts": 3},
)


class DeadLettersNotStoredError(Exception):
    """The put failed; nothing of the batch's dead letters is known to be stored."""


@cache
def s3_client() -> "S3Client":
    """The S3 client of the function's role, with short time limits; made once."""
    return boto3.client("s3", config=_CLIENT_SETTINGS)


def put_dead_letters(bucket: str, key: str, body: bytes) -> None:
    """Store one object; an object of the same key is overwritten, which is what makes a retried batch harmless.

    Needs ``s3:PutObject`` on the key (https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html).

    Raises:
        DeadLettersNotStoredError: S3 refused, or did not answer in time, or there are no credentials.
    """
    try:
        s3_client().put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/gzip")
    except (ClientError, BotoCoreError) as error:
        raise DeadLettersNotStoredError(f"s3://{bucket}/{key}: {error}") from error
