"""Firehose of the embedded endpoint: the decisions one by one, and the running service through plain boto3.

Nothing here knows the project's own functions: the Lambda functions of these tests are a few lines each.
"""

import base64
import gzip
import io
import json
import re
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.local import firehose
from telemetry_lake.local.disturbances import REDELIVERY_PATH
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

STREAM_ARN = f"arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/readings"
SOURCE_ARN = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/readings"
LAMBDA_ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:transform"

MINIMAL = {"RoleARN": f"arn:aws:iam::{ACCOUNT}:role/firehose", "BucketARN": "arn:aws:s3:::raw"}


def record(number: int, data: bytes = b"reading") -> firehose.SourceRecord:
    arrival = 1_760_486_400_000 + number
    return firehose.SourceRecord(f"id-{number}", data, arrival, "shardId-000000000000", str(number), "")


def answer(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"records": list(entries)}).encode()


def ok(number: int, content: bytes) -> dict[str, Any]:
    return {"recordId": f"id-{number}", "result": "Ok", "data": base64.b64encode(content).decode()}


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/APIReference/API_BufferingHints.html")
@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html")
def test_defaults_are_those_of_aws() -> None:
    # GIVEN a destination that names only what is required, with a Lambda function
    lambda_only = {"Type": "Lambda", "Parameters": [{"ParameterName": "LambdaArn", "ParameterValue": LAMBDA_ARN}]}
    configuration = {**MINIMAL, "ProcessingConfiguration": {"Enabled": True, "Processors": [lambda_only]}}

    # WHEN it is read
    settings = firehose.destination_settings(configuration)

    # THEN https://docs.aws.amazon.com/firehose/latest/APIReference/API_BufferingHints.html: 5 MB, 300 s
    assert (settings.buffer_bytes, settings.buffer_seconds, settings.gzipped) == (5 * 1024 * 1024, 300, False)
    # AND https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html: 1 MB, 60 s; three retries
    assert settings.processor == firehose.ProcessorSettings(LAMBDA_ARN, None, 1024 * 1024, 60, 3)


@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/parameters-section-structure.html")
def test_numbers_and_flags_may_be_text_as_cloudformation_gives_them() -> None:
    # GIVEN what a template makes of parameters
    configuration = {
        **MINIMAL,
        "BufferingHints": {"SizeInMBs": "64", "IntervalInSeconds": "0"},
        "ProcessingConfiguration": {"Enabled": "false", "Processors": []},
    }

    # WHEN / THEN
    settings = firehose.destination_settings(configuration)
    assert (settings.buffer_bytes, settings.buffer_seconds, settings.processor) == (64 * 1024 * 1024, 0, None)


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/APIReference/API_CreateDeliveryStream.html")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"BufferingHints": {"SizeInMBs": 129, "IntervalInSeconds": 60}}, "SizeInMBs"),
        ({"BufferingHints": {"SizeInMBs": 5, "IntervalInSeconds": 901}}, "IntervalInSeconds"),
        ({"BufferingHints": {"SizeInMBs": 5}}, "both"),
        ({"S3BackupMode": "Enabled"}, "S3BackupMode"),
        ({"CompressionFormat": "ZIP"}, "ZIP"),
        ({"DynamicPartitioningConfiguration": {"Enabled": True}}, "DynamicPartitioning"),
        ({"DataFormatConversionConfiguration": {"Enabled": True}}, "DataFormatConversion"),
        ({"CustomTimeZone": "Mars/Olympus"}, "time zone"),
        # the rules of https://docs.aws.amazon.com/firehose/latest/dev/s3-prefixes.html#prefix-rules
        ({"Prefix": "a/!{timestamp:yyyy}/"}, "ErrorOutputPrefix"),
        ({"Prefix": "a/!{firehose:error-output-type}/", "ErrorOutputPrefix": "e/"}, "error-output-type"),
        ({"ErrorOutputPrefix": "e/!{timestamp:yyyy}/"}, "error-output-type"),
        ({"Prefix": "a" * 513}, "512"),
    ],
)
def test_what_aws_refuses_or_the_endpoint_does_not_model_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(firehose.ConfigurationError, match=message):
        firehose.destination_settings({**MINIMAL, **change})


# --- keys -----------------------------------------------------------------------------------------------------------

MOMENT = datetime(2025, 10, 14, 23, 5, 9, tzinfo=UTC)


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/s3-prefixes.html")
@pytest.mark.parametrize(
    ("prefix", "evaluated"),
    [
        # without an expression the hour is appended, with no slash in between
        ("raw_data/", "raw_data/2025/10/14/23/"),
        ("raw", "raw2025/10/14/23/"),
        ("", "2025/10/14/23/"),
        # any expression suppresses that; quoted text is literal
        ("a/!{timestamp:'year='yyyy'/month='M'/day='dd}/", "a/year=2025/month=10/day=14/"),
        ("a/!{timestamp:yy-DDD-HHmmss}", "a/25-287-230509"),
    ],
)
def test_prefix_is_evaluated(prefix: str, evaluated: str) -> None:
    # https://docs.aws.amazon.com/firehose/latest/dev/s3-prefixes.html
    assert firehose.evaluate_prefix(prefix, MOMENT) == evaluated


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/s3-prefixes.html")
def test_random_string_has_eleven_characters_and_differs_each_time() -> None:
    # WHEN
    first, second = firehose.evaluate_prefix("!{firehose:random-string}/!{firehose:random-string}", MOMENT).split("/")

    # THEN https://docs.aws.amazon.com/firehose/latest/dev/s3-prefixes.html
    assert len(first) == len(second) == 11
    assert first != second


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/s3-prefixes.html")
def test_error_prefix_names_the_kind_of_error() -> None:
    prefix = "firehose_errors/!{firehose:error-output-type}/!{timestamp:yyyy/MM/dd/HH}/"
    evaluated = firehose.evaluate_prefix(prefix, MOMENT, "processing-failed")
    assert evaluated == "firehose_errors/processing-failed/2025/10/14/23/"


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/s3-object-name.html")
@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"CompressionFormat": "GZIP"}, r"raw_data/2025/10/14/23/readings-3-2025-10-14-23-05-09-[0-9a-f-]{36}\.gz"),
        ({}, r"raw_data/2025/10/14/23/readings-3-2025-10-14-23-05-09-[0-9a-f-]{36}"),
        # FileExtension replaces .gz
        ({"CompressionFormat": "GZIP", "FileExtension": ".json"}, r"raw_data/.*-[0-9a-f-]{36}\.json"),
        # the time zone shifts prefix and suffix
        ({"CustomTimeZone": "Asia/Tokyo"}, r"raw_data/2025/10/15/08/readings-3-2025-10-15-08-05-09-[0-9a-f-]{36}"),
    ],
)
def test_object_key(change: dict[str, Any], pattern: str) -> None:
    # https://docs.aws.amazon.com/firehose/latest/dev/s3-object-name.html
    settings = firehose.destination_settings({**MINIMAL, "Prefix": "raw_data/", **change})
    assert re.fullmatch(pattern, firehose.object_key(settings, "readings", 3, MOMENT))


# --- buffers and progress ---------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/buffering-hints.html")
def test_buffer_gives_a_chunk_when_its_first_item_is_old_enough() -> None:
    # GIVEN two items, the second one 50 s later (https://docs.aws.amazon.com/firehose/latest/dev/buffering-hints.html)
    buffer: firehose.Buffer[str] = firehose.Buffer()
    buffer.add("a", 1, 0.0, 100)
    buffer.add("b", 1, 50.0, 100)

    # WHEN / THEN the interval counts from the first
    assert buffer.take_due(59.9, 60) == []
    assert buffer.take_due(60.0, 60) == [["a", "b"]]
    assert buffer.take_due(1000.0, 60) == []


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/buffering-hints.html")
def test_buffer_gives_a_chunk_when_its_size_is_reached() -> None:
    # GIVEN
    buffer: firehose.Buffer[str] = firehose.Buffer()

    # WHEN three items come of which two fill a chunk
    for item in "abc":
        buffer.add(item, 50, 0.0, 100)

    # THEN the full one is due at once, the rest waits
    assert buffer.take_due(0.0, 60) == [["a", "b"]]
    assert buffer.take_all() == [["c"]]


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/buffering-hints.html")
@given(sizes=st.lists(st.integers(1, 300)), limit=st.integers(1, 200))
def test_buffer_keeps_every_item_in_order_and_the_limit(sizes: list[int], limit: int) -> None:
    # GIVEN items of any size
    buffer: firehose.Buffer[tuple[int, int]] = firehose.Buffer()
    for number, size in enumerate(sizes):
        buffer.add((number, size), size, 0.0, limit)

    # WHEN
    chunks = buffer.take_all()

    # THEN nothing is lost, and only an item that is too large by itself exceeds the limit
    assert [item for chunk in chunks for item in chunk] == list(enumerate(sizes))
    assert all(len(chunk) == 1 or sum(size for _, size in chunk) <= limit for chunk in chunks)


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/basic-deliver.html")
@given(order=st.permutations(range(6)), stop=st.integers(0, 6))
def test_checkpoint_never_passes_an_undelivered_record(order: list[int], stop: int) -> None:
    # GIVEN six records of a shard
    progress = firehose.ShardProgress(None)
    for number in range(6):
        progress.read(str(number))

    # WHEN some are delivered, in any order
    delivered = order[:stop]
    for number in delivered:
        progress.delivered(str(number))

    # THEN the checkpoint is the last one before the first that is missing
    first_missing = next((number for number in range(6) if number not in delivered), 6)
    assert progress.checkpoint == (str(first_missing - 1) if first_missing else None)


# --- the Lambda contract ------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/services-kinesisfirehose.html")
def test_event_has_the_documented_fields() -> None:
    # WHEN (https://docs.aws.amazon.com/lambda/latest/dg/services-kinesisfirehose.html)
    [(members, body)] = firehose.transform_events([record(1, b"x")], STREAM_ARN, SOURCE_ARN, REGION)
    event = json.loads(firehose.with_invocation_id(body))

    # THEN
    assert members == [record(1, b"x")]
    assert event.keys() == {"invocationId", "deliveryStreamArn", "sourceKinesisStreamArn", "region", "records"}
    assert event["records"] == [
        {
            "recordId": "id-1",
            "approximateArrivalTimestamp": 1_760_486_400_001,
            "data": "eA==",
            "kinesisRecordMetadata": {
                "sequenceNumber": "1",
                "subsequenceNumber": 0,
                "partitionKey": "",
                "shardId": "shardId-000000000000",
                "approximateArrivalTimestamp": 1_760_486_400_001,
            },
        }
    ]


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/services-kinesisfirehose.html")
def test_event_of_direct_puts_has_no_source() -> None:
    direct = firehose.SourceRecord("r", b"x", 1, firehose.DIRECT_PUTS, "1")
    [(_, body)] = firehose.transform_events([direct], STREAM_ARN, None, REGION)
    event = json.loads(body)
    assert "sourceKinesisStreamArn" not in event
    assert "kinesisRecordMetadata" not in event["records"][0]


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/services-kinesisfirehose.html")
def test_every_attempt_has_its_own_invocation_id() -> None:
    [(_, body)] = firehose.transform_events([record(1)], STREAM_ARN, None, REGION)
    ids = {json.loads(firehose.with_invocation_id(body))["invocationId"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html")
@given(sizes=st.lists(st.integers(0, 400), min_size=1, max_size=30))
def test_requests_stay_below_the_limit_and_lose_nothing(sizes: list[int]) -> None:
    # GIVEN records of any size and a limit that none exceeds alone
    records = [record(number, b"x" * size) for number, size in enumerate(sizes)]

    # WHEN
    batches = firehose.transform_events(records, STREAM_ARN, SOURCE_ARN, REGION, limit_bytes=1500)

    # THEN
    assert [member for members, _ in batches for member in members] == records
    for members, body in batches:
        assert len(body) <= 1500
        assert [entry["recordId"] for entry in json.loads(body)["records"]] == [member.record_id for member in members]


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-status-model.html")
def test_every_record_gets_the_verdict_that_the_status_model_gives_it() -> None:
    # GIVEN an answer of every kind (https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-status-model.html)
    records = [record(number) for number in range(5)]
    given_answer = answer(
        ok(0, b"transformed"),
        {"recordId": "id-1", "result": "Dropped"},
        {"recordId": "id-2", "result": "ProcessingFailed"},
        ok(4, b"once"),
        ok(4, b"twice"),
        ok(99, b"never sent"),
    )

    # WHEN
    verdicts = firehose.judge_answer(records, given_answer)

    # THEN
    assert [(output.content, output.source) for output in verdicts.accepted] == [(b"transformed", records[0])]
    assert verdicts.dropped == [records[1]]
    assert [(failed.record_id, why.code) for failed, why in verdicts.failed] == [
        ("id-2", "Lambda.ProcessingFailedStatus"),
        ("id-3", "Lambda.MissingRecordId"),
        ("id-4", "Lambda.DuplicatedRecordId"),
    ]


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-status-model.html")
@pytest.mark.parametrize(
    ("given_answer", "code"),
    [
        (b"not json", "Lambda.JsonProcessingException"),
        (b"null", "Lambda.JsonProcessingException"),
        (b'{"records": {}}', "Lambda.JsonProcessingException"),
        (answer({"recordId": "id-0", "result": "Maybe", "data": ""}), "Lambda.JsonProcessingException"),
        (answer({"recordId": "id-0", "result": "Ok"}), "Lambda.JsonProcessingException"),
        (answer({"recordId": "id-0", "result": "Ok", "data": "no base64!"}), "Lambda.FunctionError"),
        (answer(ok(0, b"x" * 5_000_000)), "Lambda.FunctionError"),
    ],
)
def test_an_answer_outside_of_the_model_fails_the_whole_batch(given_answer: bytes, code: str) -> None:
    verdicts = firehose.judge_answer([record(0), record(1)], given_answer)
    assert [why.code for _, why in verdicts.failed] == [code, code]


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html")
def test_error_line_keeps_the_original_and_says_why() -> None:
    # WHEN (https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html)
    line = firehose.error_line(record(1, b"\xff"), firehose.failure("Lambda.FunctionError"), 4, 99, LAMBDA_ARN)

    # THEN
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "attemptsMade": 4,
        "arrivalTimestamp": 1_760_486_400_001,
        "errorCode": "Lambda.FunctionError",
        "errorMessage": "The Lambda function was successfully invoked but it returned an error result.",
        "attemptEndingTimestamp": 99,
        "rawData": "/w==",
        "lambdaArn": LAMBDA_ARN,
    }


# --- the running service ----------------------------------------------------------------------------------------------

FUNCTION = """
import base64

def handler(event, context):
    answers = []
    for record in event["records"]:
        text = base64.b64decode(record["data"]).decode()
        if text == "explode":
            raise RuntimeError("exploded")
        if text == "drop":
            answers.append({"recordId": record["recordId"], "result": "Dropped"})
        elif text == "fail":
            answers.append({"recordId": record["recordId"], "result": "ProcessingFailed", "data": record["data"]})
        else:
            data = base64.b64encode((text.upper() + ";").encode()).decode()
            answers.append({"recordId": record["recordId"], "result": "Ok", "data": data})
    return {"records": answers}
"""


class RunningEndpoint(EndpointProcess):
    """The endpoint as a process of its own, with what these tests look at."""

    def role(self, name: str, principal: str, *statements: tuple[str, str]) -> str:
        trust = {
            "Effect": "Allow",
            "Principal": {"Service": principal},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}},
        }
        policy = {"Version": "2012-10-17", "Statement": [trust]}
        self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(policy))
        self.allow(name, *statements)
        return f"arn:aws:iam::{ACCOUNT}:role/{name}"

    def allow(self, role_name: str, *statements: tuple[str, str]) -> None:
        document = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in statements]
        self.client("iam").put_role_policy(
            RoleName=role_name,
            PolicyName="access",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": document}),
        )

    def contents(self, bucket: str, prefix: str) -> list[str]:
        s3 = self.client("s3")
        keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]
        bodies = [s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys]
        return [gzip.decompress(body).decode() for body in bodies]

    def delivery_sum(self, name: str, delivery_stream: str) -> float:
        return self.metric_sum("AWS/Firehose", name, {"DeliveryStreamName": delivery_stream})


READ = ["kinesis:DescribeStream", "kinesis:GetShardIterator", "kinesis:GetRecords", "kinesis:ListShards"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEndpoint]:
    endpoint = RunningEndpoint(tmp_path_factory.mktemp("firehose"))
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("function.py", FUNCTION)
    endpoint.client("lambda").create_function(
        FunctionName="transform",
        Runtime="python3.13",
        Handler="function.handler",
        Role=endpoint.role("function", "lambda.amazonaws.com", ("logs:*", "*")),
        Code={"ZipFile": code.getvalue()},
        Timeout=30,
    )
    bucket = {"LocationConstraint": REGION}
    endpoint.client("s3").create_bucket(Bucket="raw", CreateBucketConfiguration=bucket)
    yield endpoint
    endpoint.stop()


def permissions(*, may_put: bool = True) -> list[tuple[str, str]]:
    return [
        *((action, f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/*") for action in READ),
        ("lambda:InvokeFunction", f"{LAMBDA_ARN}*"),
        ("logs:PutLogEvents", "*"),
        *([("s3:PutObject", "arn:aws:s3:::raw/*")] if may_put else []),
    ]


def destination(name: str, role_arn: str) -> dict[str, Any]:
    parameters = {"LambdaArn": LAMBDA_ARN, "BufferIntervalInSeconds": "0", "NumberOfRetries": "1"}
    return {
        "RoleARN": role_arn,
        "BucketARN": "arn:aws:s3:::raw",
        "Prefix": f"{name}/data/",
        "ErrorOutputPrefix": f"{name}/errors/!{{firehose:error-output-type}}/",
        "CompressionFormat": "GZIP",
        "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 1},
        "CloudWatchLoggingOptions": {"Enabled": True, "LogGroupName": f"/{name}", "LogStreamName": "S3Delivery"},
        "ProcessingConfiguration": {
            "Enabled": True,
            "Processors": [
                {
                    "Type": "Lambda",
                    "Parameters": [
                        {"ParameterName": key, "ParameterValue": value} for key, value in parameters.items()
                    ],
                }
            ],
        },
    }


def delivery_stream(running: RunningEndpoint, name: str, *, may_put: bool = True, early: bytes | None = None) -> Any:
    """Create stream and delivery stream ``name`` with a role of that name; return a function that puts records."""
    kinesis = running.client("kinesis")
    kinesis.create_stream(StreamName=name, ShardCount=2)
    kinesis.get_waiter("stream_exists").wait(StreamName=name)
    if early is not None:
        kinesis.put_record(StreamName=name, Data=early, PartitionKey="a")
        time.sleep(0.01)
    logs = running.client("logs")
    logs.create_log_group(logGroupName=f"/{name}")
    logs.create_log_stream(logGroupName=f"/{name}", logStreamName="S3Delivery")
    role_arn = running.role(name, "firehose.amazonaws.com", *permissions(may_put=may_put))
    running.client("firehose").create_delivery_stream(
        DeliveryStreamName=name,
        DeliveryStreamType="KinesisStreamAsSource",
        KinesisStreamSourceConfiguration={
            "KinesisStreamARN": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}",
            "RoleARN": role_arn,
        },
        ExtendedS3DestinationConfiguration=destination(name, role_arn),
    )
    wait_until(lambda: status(running, name) == "ACTIVE")

    def put(*texts: str) -> None:
        for text in texts:
            kinesis.put_record(StreamName=name, Data=text.encode(), PartitionKey=text)

    return put


def status(running: RunningEndpoint, name: str) -> str:
    description = running.client("firehose").describe_delivery_stream(DeliveryStreamName=name)
    return str(description["DeliveryStreamDescription"]["DeliveryStreamStatus"])


def pieces(contents: list[str]) -> list[str]:
    return sorted(piece for content in contents for piece in content.split(";") if piece)


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/writing-with-kinesis-streams.html")
@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-metrics.html")
def test_records_of_the_stream_arrive_transformed_joined_and_compressed(running: RunningEndpoint) -> None:
    # GIVEN a record that is older than the delivery stream: it is never read
    # (https://docs.aws.amazon.com/firehose/latest/dev/writing-with-kinesis-streams.html: reading starts at LATEST)
    put = delivery_stream(running, "whole", early=b"early")

    # WHEN records for every verdict arrive
    put("a", "b", "c", "drop", "fail")

    # THEN the accepted ones are there once, joined with nothing in between
    wait_until(lambda: pieces(running.contents("raw", "whole/data/")) == ["A", "B", "C"])
    # AND the failed one is in the error prefix, as it arrived
    [line] = wait_until(lambda: running.contents("raw", "whole/errors/processing-failed/"))
    assert base64.b64decode(json.loads(line)["rawData"]) == b"fail"
    # AND the metrics of https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-metrics.html say so
    wait_until(lambda: running.delivery_sum("DeliveryToS3.Success", "whole") >= 2)
    assert running.delivery_sum("DataReadFromKinesisStream.Records", "whole") == 5
    assert running.delivery_sum("SucceedProcessing.Records", "whole") == 3


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-metrics.html")
def test_freshness_is_the_age_of_the_oldest_record_of_a_delivery(running: RunningEndpoint) -> None:
    # GIVEN deliveries every second
    put = delivery_stream(running, "fresh")

    # WHEN a record is delivered
    began = time.time()
    put("a")
    points = wait_until(
        lambda: running.datapoints("AWS/Firehose", "DeliveryToS3.DataFreshness", {"DeliveryStreamName": "fresh"})
    )

    # THEN
    assert 1 <= max(point["Maximum"] for point in points) <= time.time() - began
    assert {point["Unit"] for point in points} == {"Seconds"}


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html")
def test_function_error_is_retried_and_then_keeps_the_records(running: RunningEndpoint) -> None:
    # GIVEN NumberOfRetries 1
    put = delivery_stream(running, "explodes")

    # WHEN the function raises
    put("explode")

    # THEN https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html
    [line] = wait_until(lambda: running.contents("raw", "explodes/errors/processing-failed/"))
    error = json.loads(line)
    assert (error["errorCode"], error["attemptsMade"]) == ("Lambda.FunctionError", 2)
    assert base64.b64decode(error["rawData"]) == b"explode"


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-logs.html")
@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/troubleshooting.html")
def test_denied_delivery_is_retried_logged_and_survives_a_restart(running: RunningEndpoint) -> None:
    # GIVEN a role that may not put objects
    put = delivery_stream(running, "denied", may_put=False)

    # WHEN records arrive
    put("a", "b")

    # THEN the failure is counted, and logged under its documented code
    # (https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-logs.html)
    def events() -> Any:
        return running.client("logs").get_log_events(logGroupName="/denied", logStreamName="S3Delivery")["events"]

    [event] = wait_until(events)
    assert json.loads(event["message"])["errorCode"] == "S3.AccessDenied"
    # AND WHEN the endpoint restarts before the role is repaired
    running.stop()
    running.start()
    running.allow("denied", *permissions())
    # THEN nothing is lost: "Firehose keeps retrying until the retention period ends"
    # (https://docs.aws.amazon.com/firehose/latest/dev/troubleshooting.html)
    wait_until(lambda: pieces(running.contents("raw", "denied/data/")) == ["A", "B"])
    # AND what arrives now is delivered once
    put("c")
    wait_until(lambda: "C" in pieces(running.contents("raw", "denied/data/")))
    assert pieces(running.contents("raw", "denied/data/")) == ["A", "B", "C"]


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/basic-deliver.html")
def test_delivered_records_are_not_read_again_after_a_restart(running: RunningEndpoint) -> None:
    # GIVEN a delivered and a buffered record
    put = delivery_stream(running, "restarts")
    put("a")
    wait_until(lambda: running.contents("raw", "restarts/data/"))
    put("b")

    # WHEN the endpoint stops gracefully, which delivers what is buffered, and starts again
    running.stop()
    running.start()
    put("c")

    # THEN every record is there once
    wait_until(lambda: "C" in pieces(running.contents("raw", "restarts/data/")))
    assert pieces(running.contents("raw", "restarts/data/")) == ["A", "B", "C"]


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/troubleshooting.html")
def test_reading_resumes_where_it_was_denied(running: RunningEndpoint) -> None:
    # GIVEN a role that loses its permission to read the stream
    put = delivery_stream(running, "unreadable")
    running.allow("unreadable", ("s3:PutObject", "*"), ("lambda:InvokeFunction", "*"), ("logs:PutLogEvents", "*"))
    put("a")

    # WHEN that was noticed, and the role is repaired
    def events() -> Any:
        return running.client("logs").get_log_events(logGroupName="/unreadable", logStreamName="S3Delivery")["events"]

    [event] = wait_until(events)
    running.allow("unreadable", *permissions())

    # THEN "Firehose retries the following operations indefinitely: DescribeStream, GetRecords, and GetShardIterator"
    # (https://docs.aws.amazon.com/firehose/latest/dev/troubleshooting.html)
    assert json.loads(event["message"])["errorCode"] == "Kinesis.AccessDenied"
    assert wait_until(lambda: running.contents("raw", "unreadable/data/")) == ["A;"]


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/writing-with-kinesis-streams.html")
def test_shards_that_a_split_makes_are_read(running: RunningEndpoint) -> None:
    # GIVEN a delivery stream on two shards
    put = delivery_stream(running, "split")
    kinesis = running.client("kinesis")
    [first, _] = kinesis.list_shards(StreamName="split")["Shards"]

    # WHEN one of them is split
    middle = int(first["HashKeyRange"]["EndingHashKey"]) // 2
    kinesis.split_shard(StreamName="split", ShardToSplit=first["ShardId"], NewStartingHashKey=str(middle))
    put(*"abcdefgh")

    # THEN what arrives in the new ones is delivered too
    wait_until(lambda: pieces(running.contents("raw", "split/data/")) == list("ABCDEFGH"), 30)


def again(running: RunningEndpoint, name: str, what: str, **how: Any) -> None:
    """Have a delivery stream do something again, at its next opportunity."""
    document = {"delivery_stream": name, "again": what, **how}
    requests.put(f"{running.url}{REDELIVERY_PATH}", json=document, timeout=30).raise_for_status()


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/basic-deliver.html")
@pytest.mark.parametrize("what", ["object", "reading"])
def test_delivered_records_come_again(running: RunningEndpoint, what: str) -> None:
    # GIVEN "at-least-once semantics"
    name = f"again-{what}"
    put = delivery_stream(running, name)
    began = int(time.time() * 1000) - 1
    if what == "object":
        again(running, name, what)

    # WHEN
    put("a", "b", "c")

    def delivered() -> Counter[str]:
        return Counter(pieces(running.contents("raw", f"{name}/data/")))

    if what == "reading":
        wait_until(lambda: delivered() == Counter("ABC"))
        again(running, name, what, since_milliseconds=began, batch_bytes=1)

    # THEN each is there, some twice
    wait_until(lambda: delivered().keys() == set("ABC") and max(delivered().values()) == 2)

    # AND what comes next comes once
    put("d")
    wait_until(lambda: delivered()["D"])
    assert delivered()["D"] == 1


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html")
def test_a_batch_whose_answer_got_lost_is_given_to_the_function_again(running: RunningEndpoint) -> None:
    # GIVEN
    put = delivery_stream(running, "lost-answer")
    again(running, "lost-answer", "invocation")

    # WHEN
    put("a")

    # THEN the function is invoked twice, and its second answer is delivered
    wait_until(lambda: pieces(running.contents("raw", "lost-answer/data/")) == ["A"])
    wait_until(lambda: running.delivery_sum("ExecuteProcessing.Success", "lost-answer") == 2)
    assert running.delivery_sum("SucceedProcessing.Records", "lost-answer") == 1


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/troubleshooting.html")
def test_direct_puts_that_were_acknowledged_arrive_after_a_kill(running: RunningEndpoint) -> None:
    # GIVEN a delivery stream whose buffer waits longer than the endpoint lives
    role_arn = running.role("killed", "firehose.amazonaws.com", *permissions())
    firehose_client = running.client("firehose")
    firehose_client.create_delivery_stream(
        DeliveryStreamName="killed",
        ExtendedS3DestinationConfiguration={
            "RoleARN": role_arn,
            "BucketARN": "arn:aws:s3:::raw",
            "Prefix": "killed/",
            "CompressionFormat": "GZIP",
            "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 2},
        },
    )
    wait_until(lambda: status(running, "killed") == "ACTIVE")

    # WHEN
    answer = firehose_client.put_record_batch(
        DeliveryStreamName="killed", Records=[{"Data": f"{number}|".encode()} for number in range(100)]
    )
    assert answer["FailedPutCount"] == 0
    running.kill()
    running.start()

    # THEN
    def delivered() -> list[str]:
        return sorted("".join(running.contents("raw", "killed/")).split("|"))

    wait_until(lambda: set(delivered()) >= {str(number) for number in range(100)})


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/s3-object-name.html")
def test_direct_puts_are_delivered_and_an_update_counts_for_them(running: RunningEndpoint) -> None:
    # GIVEN a delivery stream for direct puts, without a function
    firehose_client = running.client("firehose")
    role_arn = running.role("direct", "firehose.amazonaws.com", ("s3:PutObject", "arn:aws:s3:::raw/*"))
    configuration = {**destination("direct", role_arn), "ProcessingConfiguration": {"Enabled": False}}
    firehose_client.create_delivery_stream(
        DeliveryStreamName="direct", ExtendedS3DestinationConfiguration=configuration
    )
    wait_until(lambda: status(running, "direct") == "ACTIVE")

    # WHEN records are put, and the prefix changes while they are buffered
    firehose_client.put_record_batch(DeliveryStreamName="direct", Records=[{"Data": b"a;"}, {"Data": b"b;"}])
    firehose_client.update_destination(
        DeliveryStreamName="direct",
        CurrentDeliveryStreamVersionId="1",
        DestinationId=firehose_client.describe_delivery_stream(DeliveryStreamName="direct")[
            "DeliveryStreamDescription"
        ]["Destinations"][0]["DestinationId"],
        ExtendedS3DestinationUpdate={"Prefix": "direct/updated/"},
    )

    # THEN they are under the new prefix, by the new version
    # (https://docs.aws.amazon.com/firehose/latest/dev/s3-object-name.html)
    assert wait_until(lambda: running.contents("raw", "direct/updated/")) == ["a;b;"]
    [entry] = running.client("s3").list_objects_v2(Bucket="raw", Prefix="direct/updated/")["Contents"]
    assert "/direct-2-" in entry["Key"]
    assert running.delivery_sum("IncomingRecords", "direct") == 2


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/writing-with-kinesis-streams.html")
def test_puts_into_a_delivery_stream_with_a_source_are_refused(running: RunningEndpoint) -> None:
    # GIVEN
    delivery_stream(running, "sourced")

    # WHEN / THEN https://docs.aws.amazon.com/firehose/latest/dev/writing-with-kinesis-streams.html
    with pytest.raises(ClientError, match="not permitted on KinesisStreamAsSource"):
        running.client("firehose").put_record(DeliveryStreamName="sourced", Record={"Data": b"x"})


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/dev/controlling-access.html")
def test_a_role_that_does_not_trust_firehose_is_refused(running: RunningEndpoint) -> None:
    # GIVEN a role for Lambda
    role_arn = running.role("untrusting", "lambda.amazonaws.com", ("s3:PutObject", "*"))

    # WHEN / THEN https://docs.aws.amazon.com/firehose/latest/dev/controlling-access.html
    with pytest.raises(ClientError, match="unable to assume role"):
        running.client("firehose").create_delivery_stream(
            DeliveryStreamName="untrusting", ExtendedS3DestinationConfiguration=destination("untrusting", role_arn)
        )


@pytest.mark.source("https://docs.aws.amazon.com/firehose/latest/APIReference/API_DeleteDeliveryStream.html")
def test_a_deleted_and_recreated_delivery_stream_starts_anew(running: RunningEndpoint) -> None:
    # GIVEN a delivery stream that delivered something and is deleted
    put = delivery_stream(running, "recreated")
    put("a")
    wait_until(lambda: running.contents("raw", "recreated/data/"))
    firehose_client = running.client("firehose")
    firehose_client.delete_delivery_stream(DeliveryStreamName="recreated")
    put("missed")
    time.sleep(0.01)

    # WHEN it is created again
    role_arn = f"arn:aws:iam::{ACCOUNT}:role/recreated"
    firehose_client.create_delivery_stream(
        DeliveryStreamName="recreated",
        DeliveryStreamType="KinesisStreamAsSource",
        KinesisStreamSourceConfiguration={
            "KinesisStreamARN": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/recreated",
            "RoleARN": role_arn,
        },
        ExtendedS3DestinationConfiguration=destination("recreated", role_arn),
    )
    wait_until(lambda: status(running, "recreated") == "ACTIVE")
    put("b")

    # THEN what came in between is never read
    wait_until(lambda: "B" in pieces(running.contents("raw", "recreated/data/")))
    assert pieces(running.contents("raw", "recreated/data/")) == ["A", "B"]


def template(running: RunningEndpoint, name: str) -> str:
    """A template with a delivery stream, numbers as text, and beside it what it needs."""
    role_arn = running.role(name, "firehose.amazonaws.com", *permissions())
    running.client("kinesis").create_stream(StreamName=name, ShardCount=1)
    configuration = destination(name, role_arn)
    configuration["BufferingHints"] = {"SizeInMBs": "1", "IntervalInSeconds": "1"}
    resource = {
        "Type": "AWS::KinesisFirehose::DeliveryStream",
        "Properties": {
            "DeliveryStreamName": name,
            "DeliveryStreamType": "KinesisStreamAsSource",
            "KinesisStreamSourceConfiguration": {
                "KinesisStreamARN": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}",
                "RoleARN": role_arn,
            },
            "ExtendedS3DestinationConfiguration": configuration,
        },
    }
    return json.dumps({"Resources": {"DeliveryStream": resource}})


@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-kinesisfirehose-deliverystream.html"
)
def test_cloudformation_waits_until_the_delivery_stream_is_active(running: RunningEndpoint) -> None:
    # GIVEN a template
    body = template(running, "stack")
    cloudformation = running.client("cloudformation")

    # WHEN the stack is complete
    cloudformation.create_stack(StackName="s", TemplateBody=body)
    cloudformation.get_waiter("stack_create_complete").wait(StackName="s", WaiterConfig={"Delay": 1})

    # THEN it reads what is put right away
    assert status(running, "stack") == "ACTIVE"
    running.client("kinesis").put_record(StreamName="stack", Data=b"a", PartitionKey="a")
    assert wait_until(lambda: running.contents("raw", "stack/data/")) == ["A;"]


@pytest.mark.own_machinery("a stop of the endpoint's process")
def test_the_endpoint_stops_although_cloudformation_waits_for_a_delivery_stream(running: RunningEndpoint) -> None:
    # GIVEN a stack whose delivery stream is being created
    running.client("cloudformation").create_stack(StackName="waiting", TemplateBody=template(running, "waiting"))

    # WHEN the endpoint is stopped at once, THEN it ends by itself
    running.stop()

    # AND starts again
    running.start()
    assert running.client("kinesis").list_streams()["StreamNames"]
