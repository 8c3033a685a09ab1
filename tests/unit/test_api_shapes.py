"""The validator of requests and answers: every kind of fault is one finding, and what AWS's models admit is none."""

import io
from datetime import UTC, datetime
from typing import Any

import botocore.session
import pytest

from tests.contracts.patterns import compiled
from tests.contracts.shapes import CALL, STATES, WIRE_JSON, Notation, findings


def shape(service: str, operation: str, side: str = "input") -> Any:
    model = botocore.session.get_session().get_service_model(service).operation_model(operation)
    return getattr(model, f"{side}_shape")


RECORD = {"Data": b"x", "PartitionKey": "k"}


@pytest.mark.parametrize(
    ("service", "operation", "request_", "found"),
    [
        ("glue", "GetJobRun", {"JobName": "j"}, ".RunId: required by GetJobRunRequest, and missing"),
        ("glue", "GetJobRun", {"JobNam": "j", "JobName": "j", "RunId": "r"}, ".JobNam: GetJobRunRequest has no such"),
        ("glue", "GetJobRuns", {"JobName": "j", "MaxResults": 2000}, ".MaxResults: 2000, more than"),
        ("glue", "GetJobRuns", {"JobName": "j", "MaxResults": "20"}, ".MaxResults: '20' is not an integer"),
        ("glue", "GetJobRuns", {"JobName": "j", "MaxResults": True}, ".MaxResults: True is not an integer"),
        ("glue", "GetJobRuns", {"JobName": ""}, ".JobName: 0 characters, less than"),
        ("glue", "GetJobRuns", {"JobName": "a\x00b"}, ".JobName: 'a\\x00b' does not match"),
        ("glue", "StartJobRun", {"JobName": "j", "WorkerType": "G.3X"}, ".WorkerType: 'G.3X' is none of"),
        ("glue", "StartJobRun", {"JobName": "j", "Arguments": {"--A": 1}}, ".Arguments.--A: 1 is not a string"),
        ("kinesis", "PutRecords", {"StreamName": "s", "Records": []}, ".Records: 0 items, less than"),
        ("kinesis", "PutRecords", {"StreamName": "s", "Records": [RECORD] * 501}, ".Records: 501 items, more than"),
        ("kinesis", "PutRecords", {"StreamName": "a stream", "Records": [RECORD]}, ".StreamName: 'a stream' does not"),
        (
            "kinesis",
            "PutRecords",
            {"StreamName": "s", "Records": [RECORD | {"PartitionKey": "k" * 257}]},
            ".Records[0].PartitionKey: 257 characters, more than",
        ),
        ("kinesis", "PutRecords", {"StreamName": "s", "Records": [RECORD | {"Data": 1}]}, ".Data: 1 is not a blob"),
        (
            "kinesis",
            "GetShardIterator",
            {"StreamName": "s", "ShardId": "0", "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": []},
            ".Timestamp: [] is not a time",
        ),
        ("athena", "GetQueryResults", [], ": [] is not an object"),
        ("sns", "Publish", {"Message": "m", "MessageAttributes": []}, ".MessageAttributes: [] is not a map"),
    ],
)
def test_each_fault_of_a_request_is_one_finding(service: str, operation: str, request_: Any, found: str) -> None:
    (finding,) = findings(request_, shape(service, operation), CALL)
    assert found in finding


@pytest.mark.parametrize(
    ("service", "operation", "request_"),
    [
        ("glue", "StartJobRun", {"JobName": "日本語 😀", "WorkerType": "G.1X", "Arguments": {"--A": "1"}}),
        ("kinesis", "PutRecords", {"StreamName": "s-1.a", "Records": [RECORD, RECORD | {"Data": bytearray(2)}]}),
        ("s3", "PutObject", {"Bucket": "b", "Key": "k", "Body": io.BytesIO(b"x")}),
        ("athena", "CreateDataCatalog", {"Name": "n", "Type": "GLUE", "Tags": [{"Key": "k", "Value": "v"}]}),
        # The client fills in the token that the API requires.
        ("athena", "CreateNamedQuery", {"Name": "n", "Database": "d", "QueryString": "SELECT 1"}),
        ("glue", "UpdateCrawler", {"Name": "c", "Schedule": "cron(0 1 * * ? *)"}),
        ("kinesis", "GetRecords", {"ShardIterator": "i", "Limit": 10}),
        ("logs", "FilterLogEvents", {"logGroupName": "/aws/x", "startTime": 1}),
    ],
)
def test_what_the_api_admits_is_no_finding(service: str, operation: str, request_: Any) -> None:
    assert findings(request_, shape(service, operation), CALL) == []


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"JobRun": {"JobRunState": "NOPE"}}, ".JobRun.JobRunState: 'NOPE' is none of"),
        ({"JobRun": {"JobRunID": "jr"}}, ".JobRun.JobRunID: JobRun has no such member"),
        ({"JobRun": {"StartedOn": "2025-10-15T00:00:00Z"}}, ".JobRun.StartedOn: '2025-10-15T00:00:00Z' is not a time"),
        ({"JobRun": {"ExecutionTime": 1.5}}, ".JobRun.ExecutionTime: 1.5 is not an integer"),
        ({"JobRun": {"PredecessorRuns": [None]}}, ".JobRun.PredecessorRuns[0]: None is not an object"),
    ],
)
def test_each_fault_of_an_answer_is_one_finding(answer: Any, found: str) -> None:
    (finding,) = findings(answer, shape("glue", "GetJobRun", "output"), WIRE_JSON)
    assert found in finding


def test_a_member_that_is_null_is_not_there() -> None:
    assert findings({"JobRun": None}, shape("glue", "GetJobRun", "output"), WIRE_JSON) == []


@pytest.mark.parametrize(
    ("moment", "notation", "fits"),
    [
        (datetime(2025, 10, 15, tzinfo=UTC), CALL, True),
        (1_760_500_000.5, WIRE_JSON, True),
        ("2025-10-15T00:00:00Z", STATES, True),
        (1_760_500_000, STATES, False),
        ("yesterday", STATES, False),
    ],
)
def test_a_time_is_written_as_its_document_writes_times(moment: Any, notation: Notation, fits: bool) -> None:
    request = {"StreamName": "s", "ShardId": "0", "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": moment}
    assert (findings(request, shape("kinesis", "GetShardIterator"), notation) == []) is fits


def test_an_expression_fits_everything_and_hides_nothing_beside_it() -> None:
    # GIVEN
    arguments = {"JobName": "{% $name %}", "Arguments": {"--A": "{% $a %}", "--B": 2}, "Timeout": "{% 60 %}"}

    # WHEN / THEN
    assert findings(arguments, shape("glue", "StartJobRun"), STATES) == [".Arguments.--B: 2 is not a string"]


def test_a_union_takes_one_member() -> None:
    # GIVEN a shape that is either a text or a number
    union = botocore.session.get_session().get_service_model("glue").shape_for("SearchFilterValue")

    # WHEN / THEN
    assert findings({"StringValue": "a"}, union, CALL) == []
    for wrong in ({}, {"StringValue": "a", "LongValue": 1}):
        (finding,) = findings(wrong, union, CALL)
        assert "takes exactly one of LongValue, StringValue" in finding


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*", "a😀\t", "a\n"),
        (r"^[\p{L}\p{Z}\p{N}_.:/=+\-@]+$", "Ärger 7", "a#b"),
        (r"\p{L}\p{N}", "é9", "99"),
        (r"[\w-_]*", "a-_b", "a b"),
        (r"\p{ASCII}*", "abc", "ä"),
        ("[a-z]+", "abc", "abc1"),
    ],
)
def test_javas_patterns_mean_the_same_here(pattern: str, matching: str, other: str) -> None:
    assert compiled(pattern).fullmatch(matching)
    assert not compiled(pattern).fullmatch(other)
