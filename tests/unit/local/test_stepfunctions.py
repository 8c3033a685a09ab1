"""Step Functions of the embedded endpoint: its pure parts one by one, and the running service through boto3."""

import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from telemetry_lake.local import stepfunctions
from telemetry_lake.local.state_machine_definition import diagnostics
from telemetry_lake.local.stepfunctions import Integration, StatesError, TaskCall
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

MACHINE_ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/machine"
START_JOB_RUN = Integration.parse("arn:aws:states:::glue:startJobRun.sync")
RUN = {
    "Id": "jr_1",
    "Attempt": 0,
    "JobName": "etl",
    "StartedOn": datetime(2025, 10, 15, 1, 2, 3, 456000, tzinfo=UTC),
    "Arguments": {"--MODE": "load", "lower": "kept"},
    "PredecessorRuns": [],
}


def output_shape(service: str, operation: str) -> Any:
    return botocore.session.get_session().get_service_model(service).operation_model(operation).output_shape


def input_shape(service: str, operation: str) -> Any:
    return botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape


def stubbed(service: str, *answers: tuple[str, dict[str, Any], dict[str, Any]]) -> Any:
    """A client that answers as told, once each, and refuses any other call."""
    client = boto3.client(  # type: ignore[call-overload]
        service, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x"
    )
    stubber = Stubber(client)
    for method, expected, answer in answers:
        stubber.add_response(method, answer, expected)
    stubber.activate()
    client.stubber = stubber
    return client


# ---------------------------------------------------------------------------------------------- pure parts


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html")
@pytest.mark.parametrize(
    ("resource", "code", "name"),
    [
        ("arn:aws:states:::aws-sdk:glue:startCrawler", "CrawlerRunningException", "Glue.CrawlerRunningException"),
        ("arn:aws:states:::aws-sdk:s3:getObject", "NoSuchKey", "S3.NoSuchKeyException"),
        ("arn:aws:states:::aws-sdk:s3:getObject", "AccessDenied", "S3.S3Exception"),
        (
            "arn:aws:states:::glue:startJobRun.sync",
            "ConcurrentRunsExceededException",
            "Glue.ConcurrentRunsExceededException",
        ),
        ("arn:aws:states:::glue:startJobRun", "Unheard", "Glue.AWSGlueException"),
        ("arn:aws:states:::lambda:invoke", "AccessDeniedException", "Lambda.AWSLambdaException"),
        ("arn:aws:states:::lambda:invoke", "TooManyRequestsException", "Lambda.TooManyRequestsException"),
        ("arn:aws:states:::aws-sdk:rds:describeDBInstances", "DBInstanceNotFound", "Rds.DBInstanceNotFoundException"),
    ],
)
def test_an_error_has_the_name_that_step_functions_gives_it(resource: str, code: str, name: str) -> None:
    # https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html
    integration = Integration.parse(resource)
    model = botocore.session.get_session().get_service_model(integration.service)
    client = stubbed(integration.service)
    call = TaskCall(integration, {}, client, print)

    problem = call._service_error(ClientError({"Error": {"Code": code, "Message": "text"}}, "Any"))

    assert model.error_shapes
    assert problem.error == name
    assert problem.cause.startswith("text (Service: ")


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html")
@pytest.mark.parametrize(
    ("error_equals", "error", "matches"),
    [
        (["Glue.CrawlerRunningException"], "Glue.CrawlerRunningException", True),
        (["States.ALL"], "ValueError", True),
        (["States.TaskFailed"], "S3.S3Exception", True),
        (["States.TaskFailed"], "States.Timeout", False),
        (["States.Timeout"], "States.Timeout", True),
        (["States.ALL"], "States.DataLimitExceeded", False),
        (["States.ALL"], "States.Runtime", False),
        (["ValueError"], "KeyError", False),
    ],
)
def test_wildcards_take_what_aws_documents(error_equals: list[str], error: str, matches: bool) -> None:
    # https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
    assert stepfunctions.error_matches(error_equals, error) is matches


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html")
def test_pauses_between_attempts_grow_up_to_the_maximum_delay() -> None:
    retrier = {"IntervalSeconds": 3, "BackoffRate": 2, "MaxDelaySeconds": 10}
    assert [stepfunctions.retry_seconds(retrier, n) for n in range(4)] == [3, 6, 10, 10]
    assert stepfunctions.retry_seconds({}, 1) == 2
    assert stepfunctions.retry_seconds({"IntervalSeconds": 60, "BackoffRate": 1.0}, 20) == 60
    assert stepfunctions.retry_seconds({"IntervalSeconds": 8, "JitterStrategy": "FULL"}, 0, fraction=0.25) == 2


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html")
def test_sdk_results_have_iso_times_and_keep_the_keys_of_maps() -> None:
    shape = output_shape("glue", "GetJobRuns")
    answer = {"JobRuns": [RUN], "ResponseMetadata": {"RequestId": "r"}}
    result = stepfunctions.result_value(answer, shape, times_as_milliseconds=False)
    assert result["JobRuns"][0]["StartedOn"] == "2025-10-15T01:02:03.456Z"
    assert result["JobRuns"][0]["Arguments"] == {"--MODE": "load", "lower": "kept"}
    assert "ResponseMetadata" not in result


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html")
def test_names_are_pascal_case_in_states_whatever_the_api_has() -> None:
    # GIVEN an API with camelCase names
    # WHEN its request and its answer are turned
    request = stepfunctions.request_value(
        {"StateMachineArn": "arn", "Input": "{}"}, input_shape("stepfunctions", "StartExecution"), "", False
    )
    result = stepfunctions.result_value(
        {"executionArn": "arn", "startDate": datetime(2025, 1, 1, tzinfo=UTC)},
        output_shape("stepfunctions", "StartExecution"),
        times_as_milliseconds=False,
    )

    # THEN each side has the names it knows
    assert request == {"stateMachineArn": "arn", "input": "{}"}
    assert result == {"ExecutionArn": "arn", "StartDate": "2025-01-01T00:00:00Z"}


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html")
def test_a_field_that_the_api_does_not_have_fails_the_execution() -> None:
    with pytest.raises(StatesError, match="Jobname") as problem:
        stepfunctions.request_value({"Jobname": "etl"}, input_shape("glue", "StartJobRun"), "", False)
    assert problem.value.error == "States.Runtime"


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/integrate-optimized.html")
@pytest.mark.parametrize(
    "resource",
    [
        "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "arn:aws:states:::states:startExecution.sync:2",
        "arn:aws:states:::ecs:runTask.sync",
        "arn:aws:states:ap-northeast-1:123456789012:activity:a",
        "arn:aws:states:::http:invoke",
    ],
)
def test_an_integration_that_does_not_exist_here_is_refused_by_name(resource: str) -> None:
    with pytest.raises(StatesError, match=resource):
        Integration.parse(resource)


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/connect-glue.html")
def test_a_finished_job_run_is_the_result_with_times_in_milliseconds() -> None:
    # GIVEN a job run that is at work once and then done
    asked = {"JobName": "etl", "RunId": "jr_1"}
    client = stubbed(
        "glue",
        ("start_job_run", {"JobName": "etl", "Arguments": {"--MODE": "load"}}, {"JobRunId": "jr_1"}),
        ("get_job_run", asked, {"JobRun": {**RUN, "JobRunState": "RUNNING"}}),
        ("get_job_run", asked, {"JobRun": {**RUN, "JobRunState": "SUCCEEDED"}}),
    )
    submitted: list[Any] = []

    # WHEN the task runs
    arguments = {"JobName": "etl", "Arguments": {"--MODE": "load"}}
    result = TaskCall(START_JOB_RUN, arguments, client, submitted.append).run()

    # THEN its result is the JobRun
    assert submitted == [{"JobRunId": "jr_1"}]
    assert (result["Id"], result["JobName"], result["JobRunState"]) == ("jr_1", "etl", "SUCCEEDED")
    assert result["StartedOn"] == 1760490123456


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/connect-glue.html")
@pytest.mark.parametrize("state", ["FAILED", "TIMEOUT", "ERROR", "STOPPED"])
def test_a_job_run_that_did_not_succeed_fails_the_task_with_the_run_as_cause(state: str) -> None:
    client = stubbed(
        "glue",
        ("start_job_run", {"JobName": "etl"}, {"JobRunId": "jr_1"}),
        (
            "get_job_run",
            {"JobName": "etl", "RunId": "jr_1"},
            {"JobRun": {**RUN, "JobRunState": state, "ErrorMessage": "ValueError: broken"}},
        ),
    )

    with pytest.raises(StatesError) as problem:
        TaskCall(START_JOB_RUN, {"JobName": "etl"}, client, lambda _output: None).run()

    assert problem.value.error == "States.TaskFailed"
    cause = json.loads(problem.value.cause)
    assert (cause["JobRunState"], cause["ErrorMessage"], cause["Id"]) == (state, "ValueError: broken", "jr_1")


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/connect-to-resource.html")
@pytest.mark.parametrize("stops_job", [True, False])
def test_a_job_run_is_stopped_if_its_execution_was_aborted(stops_job: bool) -> None:
    # GIVEN a job run at work, and a task that is given up
    stop: tuple[str, dict[str, Any], dict[str, Any]] = (
        "batch_stop_job_run",
        {"JobName": "etl", "JobRunIds": ["jr_1"]},
        {},
    )
    client = stubbed(
        "glue",
        ("start_job_run", {"JobName": "etl"}, {"JobRunId": "jr_1"}),
        ("get_job_run", {"JobName": "etl", "RunId": "jr_1"}, {"JobRun": {**RUN, "JobRunState": "RUNNING"}}),
        *([stop] if stops_job else []),
    )
    call = TaskCall(START_JOB_RUN, {"JobName": "etl"}, client, lambda _output: None)
    call.give_up(stops_job)

    # WHEN it goes on
    call.run()

    # THEN the run was stopped, or left alone
    client.stubber.assert_no_pending_responses()


def lambda_answer(payload: str, **more: Any) -> dict[str, Any]:
    body = StreamingBody(io.BytesIO(payload.encode()), len(payload))
    return {"StatusCode": 200, "Payload": body, "ResponseMetadata": {"HTTPStatusCode": 200}, **more}


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html")
def test_a_functions_own_error_is_the_tasks_error() -> None:
    # https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
    failure = '{"errorMessage": "2 checks failed", "errorType": "AthenaCheckFailed", "stackTrace": []}'
    request = {"FunctionName": "check", "Payload": b'{"a":1}'}
    client = stubbed("lambda", ("invoke", request, lambda_answer(failure, FunctionError="Unhandled")))
    integration = Integration.parse("arn:aws:states:::lambda:invoke")

    with pytest.raises(StatesError) as problem:
        TaskCall(integration, {"FunctionName": "check", "Payload": {"a": 1}}, client, print).run()

    assert problem.value.error == "AthenaCheckFailed"
    assert problem.value.cause == failure


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/connect-lambda.html")
def test_a_functions_result_is_parsed_and_wrapped_unless_the_function_is_the_resource() -> None:
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:check"
    for resource, arguments, expected in [
        ("arn:aws:states:::lambda:invoke", {"FunctionName": arn, "Payload": {"a": 1}}, {"passed": True}),
        (arn, {"a": 1}, None),
    ]:
        request = {"FunctionName": arn, "Payload": b'{"a":1}'}
        client = stubbed("lambda", ("invoke", request, lambda_answer('{"passed": true}')))
        result = TaskCall(Integration.parse(resource), arguments, client, print).run()
        assert (result.get("Payload") if expected else result) == {"passed": True}


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html")
def test_results_beyond_the_limit_are_measured_in_bytes() -> None:
    assert stepfunctions.within_limit("a" * (262_144 - 2), "it")
    with pytest.raises(StatesError) as problem:
        stepfunctions.within_limit("ü" * 131_072, "it")
    assert problem.value.error == "States.DataLimitExceeded"


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html")
@pytest.mark.parametrize(
    ("status", "days", "events", "is_express", "reason"),
    [
        ("FAILED", 1, 24_998, False, None),
        ("ABORTED", 1, 2, False, None),
        ("TIMED_OUT", 15, 2, False, "Execution redrivable period exceeded"),
        ("RUNNING", 0, 2, False, "Execution is RUNNING and cannot be redriven"),
        ("FAILED", 1, 24_999, False, "Execution history event limit exceeded"),
        ("FAILED", 1, 2, True, "Execution is of type EXPRESS and cannot be redriven"),
    ],
)
def test_what_cannot_be_redriven_says_why(
    status: str, days: int, events: int, *, is_express: bool, reason: str | None
) -> None:
    said = stepfunctions.not_redrivable_reason(status, days * 86_400, events, is_express=is_express)
    assert said == reason


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html")
def test_the_level_decides_what_is_logged() -> None:
    # https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html
    events = ["TaskStateEntered", "TaskFailed", "FailStateEntered", "ExecutionTimedOut", "ExecutionSucceeded"]
    logged = {level: [e for e in events if stepfunctions.is_logged(e, level)] for level in ("ALL", "ERROR", "FATAL")}
    assert logged == {
        "ALL": events,
        "ERROR": ["TaskFailed", "FailStateEntered", "ExecutionTimedOut"],
        "FATAL": ["ExecutionTimedOut"],
    }
    assert not any(stepfunctions.is_logged(event, "OFF") for event in events)


DIAGNOSTIC = (
    "https://docs.aws.amazon.com/step-functions/latest/apireference/API_ValidateStateMachineDefinitionDiagnostic.html"
)
STRUCTURE = "https://docs.aws.amazon.com/step-functions/latest/dg/statemachine-structure.html"
PASS = {"Type": "Pass", "End": True}


def definition(language: str = "JSONPath", /, **states: Any) -> str:
    return json.dumps({"QueryLanguage": language, "StartAt": "a", "States": states})


@pytest.mark.source(DIAGNOSTIC)
@pytest.mark.source(STRUCTURE)
@pytest.mark.parametrize(
    ("text", "code", "location"),
    [
        ("", "MISSING_DESCRIPTION", None),
        ("{", "INVALID_JSON_DESCRIPTION", None),
        ("[]", "SCHEMA_VALIDATION_FAILED", "/"),
        (json.dumps({"States": {"a": PASS}}), "SCHEMA_VALIDATION_FAILED", "/"),
        (json.dumps({"StartAt": "b", "States": {"a": PASS}}), "MISSING_TRANSITION_TARGET", "/StartAt"),
        (json.dumps({"StartAt": "a", "States": {"a": "Pass"}}), "SCHEMA_VALIDATION_FAILED", "/"),
        (definition(a={"End": True}), "SCHEMA_VALIDATION_FAILED", "/States/a"),
        (definition(a={"Type": "Foo", "End": True}), "SCHEMA_VALIDATION_FAILED", "/States/a/Type"),
        (definition(a={"Type": "Pass"}), "SCHEMA_VALIDATION_FAILED", "/States/a"),
        (definition(a={**PASS, "Next": "b"}, b=PASS), "SCHEMA_VALIDATION_FAILED", "/States/a"),
        (definition(a={"Type": "Pass", "Next": "c"}), "MISSING_TRANSITION_TARGET", "/States/a/Next"),
        (definition(a=PASS, b=PASS), "MISSING_TRANSITION_TARGET", "/States/b"),
        (definition(a={"Type": "Pass", "Next": "a"}), "MISSING_END_STATE", None),
        (definition(a={"Type": "Task", "End": True}), "SCHEMA_VALIDATION_FAILED", "/States/a"),
        (
            definition(a={"Type": "Task", "Resource": "${F}", "End": True}),
            "SCHEMA_VALIDATION_FAILED",
            "/States/a/Resource",
        ),
        (
            definition(a={"Type": "Task", "Resource": "arn:x", "Catch": [{"Next": "c"}], "End": True}),
            "MISSING_TRANSITION_TARGET",
            "/States/a/Catch[0]/Next",
        ),
        (definition(a={"Type": "Choice"}), "SCHEMA_VALIDATION_FAILED", "/States/a"),
        (definition(a={"Type": "Choice", "Choices": [{}]}), "SCHEMA_VALIDATION_FAILED", "/States/a/Choices[0]"),
        (
            definition(a={"Type": "Choice", "Choices": [{"Next": "c"}]}),
            "MISSING_TRANSITION_TARGET",
            "/States/a/Choices[0]/Next",
        ),
        (
            definition(a={"Type": "Choice", "Choices": [{"Next": "b"}], "Default": "c"}, b=PASS),
            "MISSING_TRANSITION_TARGET",
            "/States/a/Default",
        ),
        (definition(a={"Type": "Map", "End": True}), "SCHEMA_VALIDATION_FAILED", "/States/a"),
        (
            definition(a={"Type": "Map", "Iterator": {"StartAt": "b", "States": {}}, "End": True}),
            "MISSING_TRANSITION_TARGET",
            "/States/a/Iterator/StartAt",
        ),
        (
            definition(a={"Type": "Parallel", "Branches": [{"StartAt": "b"}], "End": True}),
            "SCHEMA_VALIDATION_FAILED",
            "/States/a/Branches[0]",
        ),
        (
            definition(a={"Type": "Pass", "Next": "x" * 81}, **{"x" * 81: PASS}),
            "INVALID_STATE_NAME",
            f"/States/{'x' * 81}",
        ),
        (
            definition("JSONata", a={**PASS, "Output": {"sums": [1, "{% 1 + %}"]}}),
            "INVALID_JSONATA_EXPRESSION",
            "/States/a/Output/sums[1]",
        ),
    ],
)
@pytest.mark.source(
    "https://docs.aws.amazon.com/step-functions/latest/apireference/API_ValidateStateMachineDefinitionDiagnostic.html"
)
def test_a_definition_that_cannot_be_run_is_diagnosed(text: str, code: str, location: str | None) -> None:
    assert (code, location) in [(found.code, found.location) for found in diagnostics(text)]


@pytest.mark.source(STRUCTURE)
@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/workflow-states.html")
def test_a_definition_of_all_types_of_states_is_sound() -> None:
    # GIVEN a state of each type, and an expression of JSONata that is a mere text in JSONPath
    inner = {"StartAt": "inner", "States": {"inner": {"Type": "Pass", "Result": "{% 1 + %}", "End": True}}}
    other = {"StartAt": "other", "States": {"other": {"Type": "Wait", "Seconds": 1, "End": True}}}
    text = definition(
        a={"Type": "Task", "Resource": "arn:aws:lambda:r:1:function:f", "Catch": [{"Next": "failed"}], "Next": "each"},
        each={"Type": "Map", "ItemProcessor": inner, "Next": "both"},
        both={"Type": "Parallel", "Branches": [other], "Next": "which"},
        which={"Type": "Choice", "Choices": [{"Variable": "$.x", "IsPresent": True, "Next": "a"}], "Default": "done"},
        done={"Type": "Succeed"},
        failed={"Type": "Fail"},
    )

    # WHEN / THEN
    assert diagnostics(text) == []


# ------------------------------------------------------------------------------------- the running service


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    endpoint = EndpointProcess(tmp_path_factory.mktemp("stepfunctions"))
    configuration = {"LocationConstraint": REGION}
    endpoint.client("s3").create_bucket(Bucket="summaries", CreateBucketConfiguration=configuration)
    endpoint.role(
        "machine",
        "states.amazonaws.com",
        ("s3:GetObject", "arn:aws:s3:::summaries/*"),
        ("s3:ListBucket", "arn:aws:s3:::summaries"),
        ("glue:*", "*"),
        ("lambda:InvokeFunction", "*"),
        ("sns:Publish", "*"),
    )
    yield endpoint
    endpoint.stop()


class Machine:
    """A state machine with one role, and its executions."""

    def __init__(self, running: EndpointProcess, name: str, definition: dict[str, Any], **settings: Any) -> None:
        self.states = running.client("stepfunctions")
        self.arn = self.states.create_state_machine(
            name=name,
            definition=json.dumps({"QueryLanguage": "JSONata", **definition}),
            **{"roleArn": MACHINE_ROLE_ARN, **settings},
        )["stateMachineArn"]

    def start(self, value: Any = None) -> str:
        arn: str = self.states.start_execution(stateMachineArn=self.arn, input=json.dumps(value or {}))["executionArn"]
        return arn

    def describe(self, execution_arn: str) -> dict[str, Any]:
        description: dict[str, Any] = self.states.describe_execution(executionArn=execution_arn)
        return description

    def end(self, execution_arn: str) -> dict[str, Any]:
        wait_until(lambda: self.describe(execution_arn)["status"] != "RUNNING")
        return self.describe(execution_arn)

    def run(self, value: Any = None) -> dict[str, Any]:
        return self.end(self.start(value))

    def output(self, value: Any = None) -> Any:
        description = self.run(value)
        assert description["status"] == "SUCCEEDED", description
        return json.loads(description["output"])

    def history(self, execution_arn: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = self.states.get_execution_history(executionArn=execution_arn)["events"]
        return events

    def event_types(self, execution_arn: str) -> list[str]:
        return [event["type"] for event in self.history(execution_arn)]


def task(resource: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "Arguments": arguments, "End": True, **more}


def read_summary(key: str, **more: Any) -> dict[str, Any]:
    return task("aws-sdk:s3:getObject", {"Bucket": "summaries", "Key": key}, **more)


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html")
def test_an_object_is_read_as_text_by_the_role(running: EndpointProcess) -> None:
    # GIVEN a run summary and a machine that reads and parses it
    running.client("s3").put_object(Bucket="summaries", Key="jr_1.json", Body=b'{"catalog": {"gaps": []}, "n": 3}')
    machine = Machine(
        running,
        "read",
        {
            "StartAt": "Read",
            "States": {
                "Read": read_summary(
                    "{% $states.input.id & '.json' %}",
                    Assign={"summary": "{% $parse($states.result.Body) %}", "at": "{% $states.result.LastModified %}"},
                    Output="{% {'n': $parse($states.result.Body).n, 'size': $states.result.ContentLength} %}",
                    TimeoutSeconds="{% 5 * 2 %}",
                    Next="Done",
                )
                | {"End": False},
                "Done": {
                    "Type": "Succeed",
                    "Output": {
                        "gaps": "{% $summary.catalog.gaps %}",
                        "ms": "{% $toMillis($at) > 1700000000000 %}",
                        "in": "{% $states.input %}",
                    },
                },
            },
        },
    )

    # WHEN it runs
    execution = machine.start({"id": "jr_1"})
    output = json.loads(machine.end(execution)["output"])

    # THEN the text came back, and the history tells what was called
    assert output == {"gaps": [], "ms": True, "in": {"n": 3, "size": 33}}
    scheduled = next(event for event in machine.history(execution) if event["type"] == "TaskScheduled")
    details = scheduled["taskScheduledEventDetails"]
    assert (details["resourceType"], details["resource"], details["timeoutInSeconds"]) == (
        "aws-sdk:s3",
        "getObject",
        10,
    )
    assert json.loads(details["parameters"]) == {"Bucket": "summaries", "Key": "jr_1.json"}


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/procedure-create-iam-role.html")
def test_a_role_without_the_permission_is_refused(running: EndpointProcess) -> None:
    # GIVEN a role that may do nothing
    role = running.role("powerless", "states.amazonaws.com")
    definition = {"StartAt": "Read", "States": {"Read": read_summary("jr_1.json")}}

    # WHEN its machine reads the object, THEN S3 denies it
    description = Machine(running, "denied", definition, roleArn=role).run()
    assert (description["status"], description["error"]) == ("FAILED", "S3.S3Exception")
    assert "Status Code: 403" in description["cause"]


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/procedure-create-iam-role.html")
def test_a_role_that_does_not_trust_step_functions_is_not_assumed(running: EndpointProcess) -> None:
    role = running.role("others", "lambda.amazonaws.com", ("s3:*", "*"))
    definition = {"StartAt": "Read", "States": {"Read": read_summary("jr_1.json")}}
    assert Machine(running, "untrusted", definition, roleArn=role).run()["error"] == "States.Permissions"


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html")
def test_a_named_error_is_retried_and_then_fails_the_execution(running: EndpointProcess) -> None:
    # GIVEN a task that retries an error once, and another error never
    retry = [{"ErrorEquals": ["Glue.EntityNotFoundException"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    arguments = {"Name": "{% $states.input.name %}"}
    crawler = task("aws-sdk:glue:getCrawler", arguments, Retry=retry)
    machine = Machine(running, "retried", {"StartAt": "Look", "States": {"Look": crawler}})

    # WHEN it asks for a crawler that does not exist
    execution = machine.start({"name": "nobody"})
    description = machine.end(execution)

    # THEN it was asked for twice
    assert description["error"] == "Glue.EntityNotFoundException"
    assert machine.event_types(execution).count("TaskFailed") == 2
    last = machine.history(execution)[-1]
    assert last["type"] == "ExecutionFailed"
    assert last["executionFailedEventDetails"]["error"] == "Glue.EntityNotFoundException"


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/workflow-variables.html")
def test_variables_are_assigned_all_at_once(running: EndpointProcess) -> None:
    # https://docs.aws.amazon.com/step-functions/latest/dg/workflow-variables.html
    # GIVEN a state that swaps two variables
    states = {
        "First": {"Type": "Pass", "Assign": {"a": 1, "b": 2}, "Next": "Swap"},
        "Swap": {"Type": "Pass", "Assign": {"a": "{% $b %}", "b": "{% $a %}"}, "Next": "Show"},
        "Show": {"Type": "Pass", "Output": {"a": "{% $a %}", "b": "{% $b %}"}, "End": True},
    }
    machine = Machine(running, "swap", {"StartAt": "First", "States": states})

    # WHEN it runs, THEN each got the other's old value
    assert machine.output() == {"a": 2, "b": 1}


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html")
@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("$type($states.input.days) = 'array' ? $states.input.days : []", ["2025-10-15"]),
        ("$exists($states.result)", False),
        ("$exists($states.input.mode)", False),
        ("$count($states.input.days)", 1),
        ("$length($uuid())", 36),
        ("$toMillis($now()) > 1700000000000", True),
        ("$keys($states.context) ~> $sort", ["Execution", "State", "StateMachine"]),
        ("$string($states.input.days)", '["2025-10-15"]'),
    ],
)
def test_expressions_see_what_aws_documents(running: EndpointProcess, expression: str, value: Any) -> None:
    # https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html
    name = f"expression-{abs(hash(expression))}"
    show = {"Type": "Pass", "Output": f"{{% {expression} %}}", "End": True}
    machine = Machine(running, name, {"StartAt": "Show", "States": {"Show": show}})
    assert machine.output({"days": ["2025-10-15"]}) == value


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html")
@pytest.mark.parametrize(
    "state",
    [
        {"Type": "Pass", "Output": "{% $states.input.missing %}", "Next": "Done"},
        {"Type": "Pass", "Output": "{% $eval('1') %}", "Next": "Done"},
        {"Type": "Pass", "Assign": {"x": "{% $parse('no json') %}"}, "Next": "Done"},
        {"Type": "Choice", "Choices": [{"Condition": "{% 'a text' %}", "Next": "Done"}], "Default": "Done"},
    ],
)
def test_an_expression_without_a_proper_result_fails_the_execution(
    running: EndpointProcess, state: dict[str, Any]
) -> None:
    states = {"Bad": state, "Done": {"Type": "Succeed"}}
    machine = Machine(running, f"bad-{abs(hash(json.dumps(state)))}", {"StartAt": "Bad", "States": states})
    assert machine.run()["error"] == "States.QueryEvaluationError"


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/statemachine-structure.html")
def test_the_machines_time_limit_ends_the_execution(running: EndpointProcess) -> None:
    states = {"Wait": {"Type": "Wait", "Seconds": 30, "End": True}}
    machine = Machine(running, "limited", {"StartAt": "Wait", "TimeoutSeconds": 1, "States": states})
    execution = machine.start()
    description = machine.end(execution)
    assert description["status"] == "TIMED_OUT"
    assert (description["stopDate"] - description["startDate"]).total_seconds() < 3
    assert machine.event_types(execution)[-1] == "ExecutionTimedOut"


@pytest.fixture(scope="module")
def slow_function(running: EndpointProcess) -> str:
    role = running.role("function", "lambda.amazonaws.com", ("logs:*", "*"))
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr(
            "slow.py", "import time\ndef handler(event, context):\n    time.sleep(event['s'])\n    return event\n"
        )
    function = running.client("lambda")
    function.create_function(
        FunctionName="slow",
        Runtime="python3.13",
        Architectures=["arm64"],
        Handler="slow.handler",
        Role=role,
        Timeout=10,
        Code={"ZipFile": code.getvalue()},
    )
    function.get_waiter("function_active_v2").wait(FunctionName="slow", WaiterConfig={"Delay": 1})
    return "slow"


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/connect-lambda.html")
def test_a_functions_answer_is_the_payload(running: EndpointProcess, slow_function: str) -> None:
    invoke = task(
        "lambda:invoke",
        {"FunctionName": slow_function, "Payload": {"s": 0, "who": "{% $states.context.Execution.Name %}"}},
        Output="{% $states.result.Payload %}",
    )
    machine = Machine(running, "invoke", {"StartAt": "Invoke", "States": {"Invoke": invoke}})
    execution = machine.start()
    assert json.loads(machine.end(execution)["output"]) == {"s": 0, "who": execution.rsplit(":", 1)[-1]}


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html")
def test_a_tasks_time_limit_is_an_error_that_can_be_caught(running: EndpointProcess, slow_function: str) -> None:
    # GIVEN a task of 4 seconds with a limit of one
    catch = [{"ErrorEquals": ["States.Timeout"], "Next": "Late", "Output": "{% $states.errorOutput.Error %}"}]
    arguments = {"FunctionName": slow_function, "Payload": {"s": 4}}
    states = {
        "Invoke": task("lambda:invoke", arguments, TimeoutSeconds=1, Catch=catch),
        "Late": {"Type": "Succeed"},
    }
    machine = Machine(running, "late", {"StartAt": "Invoke", "States": states})

    # WHEN it runs
    execution = machine.start()
    description = machine.end(execution)

    # THEN it was caught, in time
    assert description["output"] == '"States.Timeout"'
    assert (description["stopDate"] - description["startDate"]).total_seconds() < 3
    assert "TaskTimedOut" in machine.event_types(execution)


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_StopExecution.html")
def test_a_stop_ends_the_wait_at_once(running: EndpointProcess) -> None:
    states = {"Wait": {"Type": "Wait", "Seconds": 30, "Next": "Done"}, "Done": {"Type": "Succeed"}}
    machine = Machine(running, "stopped", {"StartAt": "Wait", "States": states})
    execution = machine.start()
    machine.states.stop_execution(executionArn=execution, error="Operator", cause="enough")
    description = machine.describe(execution)
    assert (description["status"], description["error"], description["redriveStatus"]) == (
        "ABORTED",
        "Operator",
        "REDRIVABLE",
    )
    assert machine.event_types(execution)[-1] == "ExecutionAborted"


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_ListExecutions.html")
@pytest.mark.source("https://github.com/floci-io/floci/issues/2734")
def test_an_execution_whose_history_is_full_fails_with_the_last_event(running: EndpointProcess) -> None:
    # GIVEN a state machine that never ends by itself
    choice = {"Variable": "$.over", "IsPresent": True, "Next": "Over"}
    states = {"Loop": {"Type": "Choice", "Choices": [choice], "Default": "Loop"}, "Over": {"Type": "Succeed"}}
    machine = Machine(running, "endless", {"QueryLanguage": "JSONPath", "StartAt": "Loop", "States": states})

    # WHEN
    execution = machine.start()
    wait_until(lambda: machine.describe(execution)["status"] != "RUNNING", 120)
    description = machine.describe(execution)

    # THEN
    assert (description["status"], description["error"], description["cause"]) == (
        "FAILED",
        "States.Runtime",
        "The execution reached the maximum number of history events (25000).",
    )
    newest = machine.states.get_execution_history(executionArn=execution, reverseOrder=True, maxResults=2)["events"]
    assert [(event["id"], event["type"]) for event in newest] == [
        (25_000, "ExecutionFailed"),
        (24_999, "ChoiceStateExited"),
    ]

    # AND there is no room for a redrive
    assert description["redriveStatusReason"] == "Execution history event limit exceeded"


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/redrive-executions.html")
def test_a_redrive_goes_on_at_the_failed_state_with_input_variables_and_definition_of_old(
    running: EndpointProcess,
) -> None:
    # GIVEN an execution that failed because a summary was missing, and a machine that was updated since
    states = {
        "Count": {"Type": "Pass", "Assign": {"id": "{% $uuid() %}"}, "Output": {"from": "Count"}, "Next": "Read"},
        "Read": read_summary(
            "{% 'late/' & $states.context.Execution.Name %}",
            Output={
                "id": "{% $id %}",
                "input": "{% $states.input %}",
                "n": "{% $states.context.Execution.RedriveCount %}",
            },
        ),
    }
    machine = Machine(running, "redriven", {"StartAt": "Count", "States": states})
    execution = machine.start()
    failed = machine.end(execution)
    assert (failed["error"], failed["redriveStatus"], failed["redriveCount"]) == (
        "S3.NoSuchKeyException",
        "REDRIVABLE",
        0,
    )
    machine.states.update_state_machine(
        stateMachineArn=machine.arn,
        definition=json.dumps({"StartAt": "Other", "States": {"Other": {"Type": "Fail", "Error": "Other"}}}),
    )

    # WHEN the summary is there and the execution is redriven
    running.client("s3").put_object(Bucket="summaries", Key=f"late/{execution.rsplit(':', 1)[-1]}", Body=b"{}")
    machine.states.redrive_execution(executionArn=execution)
    description = machine.end(execution)

    # THEN it succeeds from the failed state on, as the same execution
    assert description["status"] == "SUCCEEDED", description
    output = json.loads(description["output"])
    assert (output["input"], output["n"], len(output["id"])) == ({"from": "Count"}, 1, 36)
    assert description["redriveCount"] == 1
    assert description["redriveDate"] > description["startDate"]
    types = machine.event_types(execution)
    assert types.count("PassStateEntered") == 1
    assert "ExecutionRedriven" in types
    assert [event["id"] for event in machine.history(execution)] == list(range(1, len(types) + 1))

    # AND it is listed among those that were
    def listed(which: str) -> dict[str, int]:
        found = machine.states.list_executions(stateMachineArn=machine.arn, redriveFilter=which)["executions"]
        return {each["executionArn"]: each["redriveCount"] for each in found}

    assert listed("REDRIVEN") == {execution: 1}
    assert execution not in listed("NOT_REDRIVEN")

    # AND it cannot be redriven again
    assert description["redriveStatus"] == "NOT_REDRIVABLE"
    with pytest.raises(ClientError, match="Execution is SUCCEEDED and cannot be redriven") as problem:
        machine.states.redrive_execution(executionArn=execution)
    assert problem.value.response["Error"]["Code"] == "ExecutionNotRedrivable"


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html")
def test_a_result_beyond_the_limit_fails_the_execution_past_every_wildcard(running: EndpointProcess) -> None:
    running.client("s3").put_object(Bucket="summaries", Key="large", Body=b"x" * 300_000)
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
    states = {"Read": read_summary("large", Catch=catch, Output={}), "Caught": {"Type": "Succeed"}}
    machine = Machine(running, "large", {"StartAt": "Read", "States": states})
    assert machine.run()["error"] == "States.DataLimitExceeded"


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_UpdateStateMachine.html")
@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html")
def test_a_definition_that_cannot_be_run_is_neither_created_nor_put_in_place(running: EndpointProcess) -> None:
    # GIVEN
    machine = Machine(running, "sound", {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}})
    before = machine.states.describe_state_machine(stateMachineArn=machine.arn)
    broken = definition(a={"Type": "Pass", "Next": "b"}, c={"Type": "Succeed"})

    # WHEN
    with pytest.raises(ClientError) as created:
        machine.states.create_state_machine(name="broken", roleArn=MACHINE_ROLE_ARN, definition=broken)
    with pytest.raises(ClientError) as updated:
        machine.states.update_state_machine(stateMachineArn=machine.arn, definition=broken)

    # THEN AWS's words: https://github.com/localstack/localstack/issues/11978
    for refused in (created.value.response["Error"], updated.value.response["Error"]):
        assert refused["Code"] == "InvalidDefinition"
        assert refused["Message"] == (
            "Invalid State Machine Definition: 'MISSING_TRANSITION_TARGET: Missing 'Next' target: b at /States/a/Next, "
            'MISSING_TRANSITION_TARGET: State "c" is not reachable. at /States/c\''
        )
    assert "broken" not in [each["name"] for each in machine.states.list_state_machines()["stateMachines"]]
    after = machine.states.describe_state_machine(stateMachineArn=machine.arn)
    assert after["definition"] == before["definition"]


@pytest.mark.source(
    "https://docs.aws.amazon.com/step-functions/latest/apireference/API_ValidateStateMachineDefinition.html"
)
def test_a_definition_can_be_validated_without_a_state_machine(running: EndpointProcess) -> None:
    # GIVEN
    states = running.client("stepfunctions")
    broken = definition(a={"Type": "Pass", "Next": "b"}, c={"Type": "Succeed"})

    # WHEN
    good = states.validate_state_machine_definition(definition=definition(a=PASS))
    bad = states.validate_state_machine_definition(definition=broken, maxResults=1)

    # THEN
    assert (good["result"], good["diagnostics"], good["truncated"]) == ("OK", [], False)
    assert (bad["result"], bad["truncated"]) == ("FAIL", True)
    [diagnostic] = bad["diagnostics"]
    assert diagnostic["severity"] == "ERROR"
    assert (diagnostic["code"], diagnostic["location"]) == ("MISSING_TRANSITION_TARGET", "/States/a/Next")


def refusals_of_name(running: EndpointProcess, name: str) -> list[str]:
    """The error codes with which an execution and a state machine of this name are refused."""
    machine = Machine(running, "of-names", {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}})
    with pytest.raises(ClientError) as started:
        machine.states.start_execution(stateMachineArn=machine.arn, name=name)
    with pytest.raises(ClientError) as created:
        machine.states.create_state_machine(name=name, roleArn=MACHINE_ROLE_ARN, definition=definition(a=PASS))
    return [refused.value.response["Error"]["Code"] for refused in (started, created)]


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html")
@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html")
@pytest.mark.parametrize(
    "name", ["a b", "a\tb", "a<b", "a[b", "a?b", 'a"b', "a\\b", "a:b", "a/b", "a\x00b", "a\x7fb", "a\ufffeb"]
)
def test_a_name_with_a_character_that_aws_does_not_take_is_refused(running: EndpointProcess, name: str) -> None:
    assert refusals_of_name(running, name) == ["InvalidName", "InvalidName"]


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html")
@pytest.mark.bad_requests
def test_a_name_has_80_characters_at_most(running: EndpointProcess) -> None:
    # GIVEN the longest name, with characters that are taken
    longest = "x-_.é" * 16
    machine = Machine(running, longest, {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}})

    # WHEN / THEN the error is that of AWS: https://github.com/getmoto/moto/issues/6438
    assert machine.states.start_execution(stateMachineArn=machine.arn, name=longest)
    assert refusals_of_name(running, longest + "x") == ["ValidationException", "ValidationException"]


@pytest.mark.source("https://github.com/aws-samples/masking-sensitive-express-step-functions")
@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html")
@pytest.mark.source(
    "https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEventExecutionDataDetails.html"
)
def test_the_ends_of_a_history_say_that_nothing_is_left_out(running: EndpointProcess) -> None:
    # WHEN
    machine = Machine(running, "ends", {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}})
    execution = machine.start({"x": 1})
    machine.end(execution)
    first, entered, *_, last = machine.history(execution)

    # THEN neither the first event nor the entry into the first state follows another one
    assert [(event["id"], event["previousEventId"]) for event in (first, entered, last)] == [(1, 0), (2, 0), (4, 3)]
    assert first["executionStartedEventDetails"] == {
        "input": '{"x": 1}',
        "inputDetails": {"truncated": False},
        "roleArn": MACHINE_ROLE_ARN,
    }
    assert last["executionSucceededEventDetails"] == {"output": '{"x":1}', "outputDetails": {"truncated": False}}


@pytest.mark.source(
    "https://docs.aws.amazon.com/step-functions/latest/apireference/API_EvaluationFailedEventDetails.html"
)
@pytest.mark.source(
    "https://docs.aws.amazon.com/step-functions/latest/apireference/API_ExecutionFailedEventDetails.html"
)
def test_a_failed_evaluation_has_its_place_and_a_cause_its_limit(running: EndpointProcess) -> None:
    # GIVEN an expression deep in a state of a branch, whose message is longer than a cause
    expression = "{% $error($pad('', 40000, 'x')) %}"
    inner = {"Type": "Pass", "Output": {"a": [1, {"b": expression}]}, "End": True}
    branch = {"StartAt": "Inner", "States": {"Inner": inner}}
    states = {"Outer": {"Type": "Parallel", "Branches": [branch], "End": True}}
    machine = Machine(running, "placed", {"StartAt": "Outer", "States": states})

    # WHEN
    execution = machine.start()
    description = machine.end(execution)

    # THEN the place is written as AWS writes it in causes: https://github.com/floci-io/floci/issues/2665
    events = {event["type"]: event for event in machine.history(execution)}
    details = events["EvaluationFailed"]["evaluationFailedEventDetails"]
    assert (details["state"], details["location"]) == ("Inner", "Output/a[1]/b")
    failed = events["ExecutionFailed"]["executionFailedEventDetails"]
    assert len(details["cause"]) == len(failed["cause"]) == len(description["cause"]) == 32_768


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html")
@pytest.mark.bad_requests
def test_an_input_beyond_the_limit_or_without_json_is_refused(running: EndpointProcess) -> None:
    machine = Machine(running, "refusing", {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}})
    for text, code in [(json.dumps("x" * 262_144), "ValidationException"), ("{", "InvalidExecutionInput")]:
        with pytest.raises(ClientError) as problem:
            machine.states.start_execution(stateMachineArn=machine.arn, input=text)
        assert problem.value.response["Error"]["Code"] == code


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html")
def test_a_repeated_start_with_the_same_name_and_input_is_one_execution(running: EndpointProcess) -> None:
    # https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
    states = {"Wait": {"Type": "Wait", "Seconds": 2, "End": True}}
    machine = Machine(running, "named", {"StartAt": "Wait", "States": states})
    start = {"stateMachineArn": machine.arn, "name": "one", "input": "{}"}
    first = machine.states.start_execution(**start)
    assert machine.states.start_execution(**start)["executionArn"] == first["executionArn"]
    with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
        machine.states.start_execution(**{**start, "input": '{"other": 1}'})


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/connect-glue.html")
def test_a_glue_job_is_followed_to_its_end(running: EndpointProcess) -> None:
    # GIVEN a job
    glue, s3 = running.client("glue"), running.client("s3")
    s3.put_object(Bucket="summaries", Key="job.py", Body=b"print('done')\n")
    role = running.role("job", "glue.amazonaws.com", ("s3:*", "*"), ("logs:*", "*"))
    command = {"Name": "glueetl", "ScriptLocation": "s3://summaries/job.py", "PythonVersion": "3"}
    glue.create_job(Name="job", Role=role, Command=command, GlueVersion="5.1", Timeout=5)
    run = task("glue:startJobRun.sync", {"JobName": "job", "Arguments": {"--MODE": "load"}})
    machine = Machine(running, "glue", {"StartAt": "Run", "States": {"Run": run}})

    # WHEN the task runs
    execution = machine.start()
    wait_until(lambda: machine.describe(execution)["status"] != "RUNNING", 60)
    result = json.loads(machine.describe(execution)["output"])

    # THEN its result is the run that Glue knows
    job_run = glue.get_job_runs(JobName="job")["JobRuns"][0]
    assert (result["Id"], result["JobRunState"]) == (job_run["Id"], "SUCCEEDED")
    assert isinstance(result["StartedOn"], int)
    assert result["Arguments"] == {"--MODE": "load"}
    assert "TaskSubmitted" in machine.event_types(execution)


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html")
def test_executions_beyond_their_time_and_stopped_ones_are_counted(running: EndpointProcess) -> None:
    # GIVEN a machine that waits for longer than it may
    states = {"Wait": {"Type": "Wait", "Seconds": 30, "End": True}}
    machine = Machine(running, "counted", {"StartAt": "Wait", "TimeoutSeconds": 2, "States": states})

    # WHEN one execution is stopped, and two are left alone
    machine.states.stop_execution(executionArn=machine.start())
    for execution in [machine.start(), machine.start()]:
        machine.end(execution)

    # THEN
    def total(name: str) -> float:
        points = running.datapoints("AWS/States", name, {"StateMachineArn": machine.arn})
        assert {point["Unit"] for point in points} <= {"Count"}
        return float(sum(point["Sum"] for point in points))

    wait_until(lambda: total("ExecutionsTimedOut") == 2)
    assert total("ExecutionsAborted") == 1
    assert total("ExecutionsFailed") == total("ExecutionsSucceeded") == 0


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html")
def test_a_failure_is_told_by_event_metric_and_log(running: EndpointProcess) -> None:
    # GIVEN a rule on failed executions, and a machine with a log of errors
    sqs, events, logs = running.client("sqs"), running.client("events"), running.client("logs")
    queue_url = sqs.create_queue(QueueName="failures")["QueueUrl"]
    queue_arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:failures"
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue_arn,
            }
        ],
    }
    sqs.set_queue_attributes(QueueUrl=queue_url, Attributes={"Policy": json.dumps(policy)})
    pattern = {"source": ["aws.states"], "detail": {"status": ["FAILED"], "error": ["Told"]}}
    events.put_rule(Name="failures", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="failures", Targets=[{"Id": "q", "Arn": queue_arn}])
    logs.create_log_group(logGroupName="/aws/vendedlogs/states/told")
    machine = Machine(
        running,
        "told",
        {"StartAt": "Bad", "States": {"Bad": {"Type": "Fail", "Error": "Told", "Cause": "on purpose"}}},
        loggingConfiguration={
            "level": "ERROR",
            "includeExecutionData": False,
            "destinations": [
                {
                    "cloudWatchLogsLogGroup": {
                        "logGroupArn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/vendedlogs/states/told:*"
                    }
                }
            ],
        },
    )

    # WHEN an execution fails
    execution = machine.start({"trigger": "schedule"})
    machine.end(execution)

    # THEN an event has the documented detail
    # https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html
    messages = wait_until(lambda: sqs.receive_message(QueueUrl=queue_url).get("Messages"))
    event = json.loads(messages[0]["Body"])
    assert event["detail-type"] == "Step Functions Execution Status Change"
    assert event["resources"] == [execution]
    detail = event["detail"]
    assert detail["executionArn"] == execution
    assert detail["stateMachineArn"] == machine.arn
    assert (detail["status"], detail["error"], detail["cause"]) == ("FAILED", "Told", "on purpose")
    assert (detail["redriveCount"], detail["redriveStatus"], detail["output"]) == (0, "REDRIVABLE", None)
    assert detail["stopDate"] >= detail["startDate"] > 1_700_000_000_000
    assert json.loads(detail["input"]) == {"trigger": "schedule"}

    # AND the metrics count it
    def total(name: str) -> float:
        return running.metric_sum("AWS/States", name, {"StateMachineArn": machine.arn})

    assert total("ExecutionsStarted") == total("ExecutionsFailed") == 1
    assert total("ExecutionsSucceeded") == 0
    assert total("ExecutionTime") >= 0

    # AND the log has the errors alone, without data
    def lines() -> list[dict[str, Any]]:
        found = logs.filter_log_events(logGroupName="/aws/vendedlogs/states/told")["events"]
        return [json.loads(line["message"]) for line in found]

    wait_until(lambda: len(lines()) == 2)
    assert [line["type"] for line in lines()] == ["FailStateEntered", "ExecutionFailed"]
    assert {line["execution_arn"] for line in lines()} == {execution}
    assert lines()[0]["details"]["name"] == "Bad"
    assert "input" not in lines()[0]["details"]
    assert lines()[1]["details"] == {"error": "Told", "cause": "on purpose"}


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html")
def test_executions_do_not_wait_for_each_other(running: EndpointProcess) -> None:
    states = {"Wait": {"Type": "Wait", "Seconds": 1, "End": True}}
    machine = Machine(running, "many", {"StartAt": "Wait", "States": states})
    began = time.monotonic()
    executions = [machine.start() for _ in range(10)]
    assert {machine.end(execution)["status"] for execution in executions} == {"SUCCEEDED"}
    assert time.monotonic() - began < 5


@pytest.mark.source("https://docs.aws.amazon.com/step-functions/latest/dg/redrive-executions.html")
def test_what_a_stop_of_the_endpoint_interrupted_can_be_redriven(running: EndpointProcess) -> None:
    # GIVEN an execution that waits
    states = {
        "First": {"Type": "Pass", "Assign": {"kept": 7}, "Next": "Wait"},
        "Wait": {"Type": "Wait", "Seconds": 2, "Output": {"kept": "{% $kept %}"}, "End": True},
    }
    machine = Machine(running, "interrupted", {"StartAt": "First", "States": states})
    execution = machine.start()
    wait_until(lambda: "WaitStateEntered" in machine.event_types(execution))

    # WHEN the endpoint stops and starts again
    running.stop()
    running.start()

    # THEN the execution has failed, says so, and goes on when it is redriven
    wait_until(lambda: machine.event_types(execution)[-1] == "ExecutionFailed")
    assert machine.describe(execution)["error"] == "States.ServiceRestart"
    machine.states.redrive_execution(executionArn=execution)
    assert json.loads(machine.end(execution)["output"]) == {"kept": 7}


@pytest.mark.own_machinery("threads of the endpoint's process")
def test_a_pause_ends_when_the_execution_is_over() -> None:
    run = stepfunctions.Run({}, {}, MACHINE_ROLE_ARN, deadline=None)
    threading.Timer(0.1, lambda: run.over.set_result("ABORTED")).start()
    began = time.monotonic()
    with pytest.raises(stepfunctions.ExecutionOverError):
        run.pause(20)
    assert time.monotonic() - began < 5
