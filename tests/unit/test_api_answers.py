"""What an endpoint sends is judged in every protocol, before an SDK drops what it does not know."""

import json
from typing import Any

import botocore.session
import pytest

from tests.contracts.deviations import Deviation, covering
from tests.contracts.recording import Recorder
from tests.contracts.wire import answer_findings


def operation(service: str, name: str) -> Any:
    return botocore.session.get_session().get_service_model(service).operation_model(name)


def found_in(service: str, name: str, body: Any, headers: dict[str, str] | None = None) -> list[str]:
    raw = body if not isinstance(body, str) else body.encode()
    return answer_findings(operation(service, name), 200, headers or {}, raw)


def topics(content: str) -> str:
    return f'<R xmlns="http://sns"><ListTopicsResult>{content}</ListTopicsResult><ResponseMetadata/></R>'


LISTED = "<Contents><Key>k</Key><LastModified>2025-10-15T00:00:00.000Z</LastModified><Size>1</Size></Contents>"


@pytest.mark.parametrize(
    ("service", "name", "body"),
    [
        ("glue", "GetJobRun", '{"JobRun": {"JobRunState": "RUNNING", "StartedOn": 1760500000.5}}'),
        ("sns", "ListTopics", topics("<Topics><member><TopicArn>arn</TopicArn></member></Topics>")),
        ("sns", "ListTopics", topics("<Topics/>")),
        ("s3", "ListObjectsV2", f"<ListBucketResult>{LISTED}{LISTED}<KeyCount>2</KeyCount></ListBucketResult>"),
        ("s3", "GetBucketLocation", '<LocationConstraint xmlns="s3">ap-northeast-1</LocationConstraint>'),
        ("lambda", "GetFunction", '{"Configuration": {"State": "Active", "VpcConfig": null}, "Tags": {"a": "b"}}'),
        ("sqs", "SendMessage", "{}"),
        ("sqs", "DeleteMessage", ""),
    ],
)
def test_an_answer_as_the_model_has_it_is_no_finding(service: str, name: str, body: str) -> None:
    assert found_in(service, name, body) == []


@pytest.mark.parametrize(
    ("service", "name", "body", "finding"),
    [
        ("glue", "GetJobRun", '{"JobRuns": []}', ".JobRuns: GetJobRunResponse has no such member"),
        ("glue", "GetJobRun", '{"JobRun": {"JobRunState": ""}}', ".JobRun.JobRunState: '' is none of"),
        ("glue", "GetJobRun", "<x/>", "the body cannot be read"),
        ("kinesis", "PutRecord", '{"ShardId": "s"}', ".SequenceNumber: required"),
        ("kinesis", "GetRecords", '{"Records": [{"Data": "%"}]}', ".Records[0].Data: '%' is not a blob"),
        ("sns", "ListTopics", topics("<Topics><item/></Topics>"), ".Topics.item: a list of member"),
        ("sns", "ListTopics", topics("<Topic/>"), ".Topic: ListTopicsResponse has no such member"),
        ("sns", "ListTopics", topics("<NextToken/><NextToken/>"), ".NextToken: there are two"),
        ("sns", "ListTopics", "<R><Topics/></R>", ".Topics: the answer has no such part"),
        (
            "cloudformation",
            "DescribeStacks",
            "<R><DescribeStacksResult><Stacks><member><StackName>s</StackName><StackStatus>CREATE_COMPLETE</StackStatus>"
            "<CreationTime>today</CreationTime></member></Stacks></DescribeStacksResult></R>",
            ".Stacks[0].CreationTime: ['today'] is not a time",
        ),
        (
            "cloudformation",
            "DescribeStacks",
            "<R><DescribeStacksResult><Stacks><member><StackName>s</StackName><StackStatus>CREATE_COMPLETE</StackStatus>"
            "<CreationTime>2025-10-15T00:00:00Z</CreationTime><DisableRollback>no</DisableRollback></member></Stacks>"
            "</DescribeStacksResult></R>",
            ".Stacks[0].DisableRollback: ['no'] is not true or false",
        ),
        ("s3", "ListObjectsV2", "<L><Contents><Size>1 B</Size></Contents></L>", ".Contents[0].Size: ['1 B'] is not an"),
        ("s3", "ListObjectsV2", "<L><Content/></L>", ".Content: ListObjectsV2Output has no such member"),
        (
            "s3",
            "GetBucketLocation",
            "<LocationConstraint>mars</LocationConstraint>",
            ".LocationConstraint: 'mars' is none",
        ),
        ("lambda", "GetFunction", '{"Config": {}}', ".Config: GetFunctionResponse has no such member"),
        ("lambda", "GetFunction", '{"Configuration": {"StateReasonCode": ""}}', ".Configuration.StateReasonCode: ''"),
        ("lambda", "Invoke", '{"StatusCode": 200}', None),
    ],
)
def test_each_fault_of_an_answer_is_found(service: str, name: str, body: str, finding: str | None) -> None:
    found = found_in(service, name, body)
    if finding is None:
        assert found == []
    else:
        assert [line for line in found if finding in line], found


def test_headers_are_judged_as_members() -> None:
    # GIVEN
    good = {"ETag": '"x"', "Last-Modified": "Wed, 15 Oct 2025 00:00:00 GMT", "x-amz-meta-a": "b", "Content-Length": "1"}
    bad = good | {"Last-Modified": "2025", "x-amz-server-side-encryption": "AES"}

    # WHEN / THEN
    assert found_in("s3", "HeadObject", b"", good) == []
    assert {line.split(":")[0] for line in found_in("s3", "HeadObject", b"", bad)} == {
        ".LastModified",
        ".ServerSideEncryption",
    }


def test_a_protocol_that_is_not_known_here_is_a_finding() -> None:
    (finding,) = found_in("ec2", "DescribeVpcs", "<x/>")
    assert "the protocol ec2 is not known here" in finding


def test_only_successful_answers_are_judged_and_each_finding_is_taken_once() -> None:
    # GIVEN
    recorder = Recorder()
    model = operation("glue", "GetJobRun")
    for status, body in ((400, {"x": 1}), (200, {"JobRun": {"x": 1}}), (200, {"JobRun": {"x": 1}})):
        recorder.answer(model, {"status_code": status, "headers": {}, "body": json.dumps(body).encode()})

    # WHEN / THEN
    assert [str(each) for each in recorder.take()] == ["answer glue.GetJobRun.JobRun.x: JobRun has no such member"]
    assert recorder.take() == []


def test_what_another_process_found_is_taken_over() -> None:
    # GIVEN
    there, here = Recorder(), Recorder()
    model = operation("glue", "GetJobRun")
    there.answer(model, {"status_code": 200, "headers": {}, "body": b'{"x": 1}'})
    there.request(model, {"JobName": "j", "RunId": "r"}, "glue/script.py")

    # WHEN
    here.load(there.dump())

    # THEN
    assert (here.requests, here.answers) == (there.requests, there.answers)
    assert len(here.take()) == 1


def test_an_admitted_deviation_is_of_one_operation_and_one_finding() -> None:
    # GIVEN
    deviation = Deviation("glue", ("GetJob",), r"\.Job\.x: .*", "because")

    # WHEN / THEN
    assert covering("glue", "GetJob", ".Job.x: wrong", [deviation]) is deviation
    assert covering("glue", "GetJobs", ".Job.x: wrong", [deviation]) is None
    assert covering("glue", "GetJob", ".Job.y: wrong", [deviation]) is None
