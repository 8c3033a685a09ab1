"""The whole way with a customer managed key, over TLS: Hadoop's S3A copies no object with a KMS key over plain HTTP."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from telemetry_lake import journey
from telemetry_lake.commands.produce import Plan, send
from telemetry_lake.commands.verify import check
from telemetry_lake.console import OperatorError
from telemetry_lake.journey import Landing, Table
from telemetry_lake.local import tls
from telemetry_lake.pipeline import Execution, read_summaries
from telemetry_lake.toolchain import project_directory
from tests.stack import Lake, client, deployed_lake, ledgers, physical_id, without_grant

GOOD = 300
BAD = 13


@pytest.fixture(scope="module")
def key_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    directory = tmp_path_factory.mktemp("customer key")
    with deployed_lake(directory, "key", parameters=["Encryption=CustomerKey"], tls=True) as lake:
        yield lake


@dataclass(frozen=True)
class Passage:
    """What was sent and what was found."""

    landing: Landing
    executions: Sequence[Execution]
    summaries: Sequence[dict[str, Any]]
    table: Table


@pytest.fixture(scope="module")
def passage(key_lake: Lake) -> Passage:
    ledger = key_lake.directory / "ledger.jsonl"
    send(key_lake.target, Plan(count=GOOD, bad=BAD, spread_hours=36, seed=3, ledger=ledger), key_lake.reporter)
    landing = journey.wait_for_landing(key_lake.target, GOOD, BAD, key_lake.reporter)
    executions, summaries = journey.wait_for_pipeline(key_lake.target, landing, key_lake.reporter)
    table = journey.read_table(key_lake.target, key_lake.reporter)
    return Passage(landing, executions, summaries, table)


def resources(lake: Lake, resource_type: str) -> list[str]:
    """The physical ids of the stack's resources of a type."""
    pages = (
        client(lake, "cloudformation").get_paginator("list_stack_resources").paginate(StackName=lake.target.stack_name)
    )
    found = [each for page in pages for each in page["StackResourceSummaries"]]
    return [each["PhysicalResourceId"] for each in found if each["ResourceType"] == resource_type]


@pytest.fixture(scope="module")
def key_arn(key_lake: Lake) -> str:
    (key_id,) = resources(key_lake, "AWS::KMS::Key")
    return str(client(key_lake, "kms").describe_key(KeyId=key_id)["KeyMetadata"]["Arn"])


def test_the_endpoint_serves_tls_alone(key_lake: Lake) -> None:
    url = key_lake.target.laptop_url or ""
    assert url.startswith("https://")
    assert not tls.answers(url.replace("https:", "http:") + "/_ministack/health", None)


def test_every_good_reading_is_one_row_and_every_bad_one_a_reject(key_lake: Lake, passage: Passage) -> None:
    verification = check(key_lake.target, ledgers(key_lake), key_lake.reporter)
    assert verification.verdict == "conserved", verification
    assert (passage.table.rows, len(passage.landing.rejects)) == (GOOD, BAD)
    assert journey.differences(GOOD, passage.summaries) == []
    assert {execution.status for execution in passage.executions} == {"SUCCEEDED"}


def test_every_object_of_both_buckets_names_the_key(key_lake: Lake, passage: Passage, key_arn: str) -> None:
    # GIVEN
    outputs = key_lake.target.outputs
    s3 = key_lake.target.s3
    assert passage.table.rows == GOOD

    # WHEN
    keys_of_objects = {}
    for bucket in (outputs.raw_bucket_name, outputs.analytics_bucket_name):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for stored in page.get("Contents", []):
                head = s3.head_object(Bucket=bucket, Key=stored["Key"])
                keys_of_objects[stored["Key"]] = (head.get("ServerSideEncryption"), head.get("SSEKMSKeyId"))

    # THEN
    for prefix in (outputs.raw_prefix, outputs.curated_prefix, outputs.dlq_prefix, outputs.summaries_prefix):
        assert any(key.startswith(prefix) for key in keys_of_objects), prefix
    assert {key: found for key, found in keys_of_objects.items() if found != ("aws:kms", key_arn)} == {}


def test_the_stream_names_the_key(key_lake: Lake, key_arn: str) -> None:
    (stream,) = resources(key_lake, "AWS::Kinesis::Stream")
    summary = client(key_lake, "kinesis").describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    assert (summary["EncryptionType"], summary["KeyId"]) == ("KMS", key_arn)


def test_the_queues_and_topics_name_the_key(key_lake: Lake, key_arn: str) -> None:
    # GIVEN
    sqs, sns = client(key_lake, "sqs"), client(key_lake, "sns")
    queues, topics = resources(key_lake, "AWS::SQS::Queue"), resources(key_lake, "AWS::SNS::Topic")

    # WHEN
    found = {url: sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"] for url in queues}
    found |= {arn: sns.get_topic_attributes(TopicArn=arn)["Attributes"] for arn in topics}

    # THEN
    assert len(queues) >= 2
    assert len(topics) >= 2
    assert {name: attributes.get("KmsMasterKeyId") for name, attributes in found.items()} == dict.fromkeys(
        [*queues, *topics], key_arn
    )


def test_the_log_groups_name_the_key(key_lake: Lake, key_arn: str) -> None:
    # GIVEN
    declared = resources(key_lake, "AWS::Logs::LogGroup")

    # WHEN
    pages = client(key_lake, "logs").get_paginator("describe_log_groups").paginate()
    groups = {group["logGroupName"]: group.get("kmsKeyId") for page in pages for group in page["logGroups"]}

    # THEN
    assert declared
    assert {name: groups[name] for name in declared} == dict.fromkeys(declared, key_arn)


def test_a_second_execution_changes_nothing(key_lake: Lake, passage: Passage) -> None:
    # GIVEN
    before = {summary["job_run_id"] for summary in read_summaries(key_lake.target)}

    # WHEN
    execution = journey.run_once_more(key_lake.target, key_lake.reporter)

    # THEN
    new = [summary for summary in read_summaries(key_lake.target) if summary["job_run_id"] not in before]
    assert execution.status == "SUCCEEDED"
    assert {summary["counts"]["lines"] for summary in new} == {0}
    assert journey.changes_between(passage.table, journey.read_table(key_lake.target, key_lake.reporter)) == []


def test_without_the_grant_on_the_key_a_function_and_the_job_are_denied(key_lake: Lake, passage: Passage) -> None:
    # GIVEN a stack in which everything has worked
    assert passage.table.rows == GOOD
    event = json.loads((project_directory() / "events" / "transform" / "kinesis_source.json").read_text())
    bad = {**event["records"][0], "data": base64.b64encode(b"no reading").decode()}
    function = physical_id(key_lake, "TransformFunction")

    # WHEN a role may write to the bucket, but not use its key
    with without_grant(key_lake, "TransformRole", "kms:GenerateDataKey"):
        payload = json.dumps({**event, "records": [bad]}).encode()
        answer = client(key_lake, "lambda").invoke(FunctionName=function, Payload=payload)
    with without_grant(key_lake, "EtlRole", "kms:GenerateDataKey"), pytest.raises(OperatorError) as refused:
        journey.run_once_more(key_lake.target, key_lake.reporter)

    # THEN it cannot write
    (record,) = json.loads(answer["Payload"].read())["records"]
    assert record["result"] == "ProcessingFailed"
    assert "AccessDenied" in str(refused.value)

    # AND with the grant back all is well
    assert journey.run_once_more(key_lake.target, key_lake.reporter).status == "SUCCEEDED"
