"""Rules over the state machine's definition that neither asl-validator nor statelint knows."""

import re
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest

from tests.template.expansion import DEFINITION, expanded_template, sam_template, substituted_definition

# Error names that Step Functions gives to failures of the integrations used here:
# https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html (Service.ExceptionName),
# https://docs.aws.amazon.com/step-functions/latest/dg/connect-lambda.html for Lambda.
KNOWN_ERRORS = {
    "glue": {
        "Glue.ConcurrentRunsExceededException",
        "Glue.CrawlerRunningException",
        "Glue.InternalServiceException",
        "Glue.OperationTimeoutException",
        "Glue.ResourceNumberLimitExceededException",
        "Glue.SdkClientException",
        "Glue.ThrottlingException",
    },
    "s3": {"S3.S3Exception", "S3.SdkClientException"},
    "lambda": {
        "Lambda.AWSLambdaException",
        "Lambda.ClientExecutionTimeoutException",
        "Lambda.SdkClientException",
        "Lambda.ServiceException",
        "Lambda.TooManyRequestsException",
    },
}
OPTIMISED = {"arn:aws:states:::glue:startJobRun.sync", "arn:aws:states:::lambda:invoke"}


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Any]]:
    states: dict[str, dict[str, Any]] = substituted_definition()["States"]
    return states


def tasks(states: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, state) for name, state in states.items() if state["Type"] == "Task")


def test_no_task_is_caught_so_that_redrive_goes_on_at_the_failed_state(states: dict[str, dict[str, Any]]) -> None:
    assert [name for name, state in states.items() if "Catch" in state] == []


def test_every_task_has_a_time_limit_and_retries_with_known_errors_of_its_own_service(
    states: dict[str, dict[str, Any]],
) -> None:
    for name, task in tasks(states):
        service = re.search(r":::(?:aws-sdk:)?(\w+):", task["Resource"])
        assert service is not None, name
        assert task["TimeoutSeconds"], name
        for retrier in task["Retry"]:
            assert set(retrier["ErrorEquals"]) <= KNOWN_ERRORS[service[1]], name


def test_every_integration_and_every_argument_exists_in_the_services_api(states: dict[str, dict[str, Any]]) -> None:
    for name, task in tasks(states):
        # GIVEN the API operation that a task calls
        match = re.fullmatch(r"arn:aws:states:::(aws-sdk:)?(\w+):(\w+)(\.sync)?", task["Resource"])
        assert match is not None, name
        is_sdk, service, action = match[1], match[2], match[3]
        assert is_sdk or task["Resource"] in OPTIMISED, name

        # WHEN it is looked up in the SDK's own model of the service
        model = botocore.session.get_session().get_service_model(service)
        operation = model.operation_model(f"{action[0].upper()}{action[1:]}")

        # THEN it exists, takes every argument given, and gets all that it requires
        assert operation.input_shape is not None
        assert set(task["Arguments"]) <= set(operation.input_shape.members), name
        assert set(operation.input_shape.required_members) <= set(task["Arguments"]), name


def test_the_machines_time_limit_exceeds_the_longest_wait_jobs_crawls_and_checks() -> None:
    # GIVEN the longest time that each part may take, by the template's largest parameters
    definition = substituted_definition()
    longest_job = sam_template()["Parameters"]["JobTimeoutMinutes"]["MaxValue"] * 60 + 900
    longest_wait = 28800
    longest_crawls = 3 * 1800
    check = definition["States"]["CheckWithAthena"]["TimeoutSeconds"]

    # THEN the machine outlives a wait, a load with its check, and an audit with its check
    assert definition["TimeoutSeconds"] > longest_wait + 2 * (longest_job + longest_crawls + check)


def test_the_template_substitutes_exactly_what_the_definition_asks_for() -> None:
    asked = set(re.findall(r"\$\{(\w+)\}", DEFINITION.read_text()))
    properties = sam_template()["Resources"]["PipelineStateMachine"]["Properties"]
    assert set(properties["DefinitionSubstitutions"]) == asked


def test_every_action_that_a_task_calls_is_granted_to_the_machines_role(states: dict[str, dict[str, Any]]) -> None:
    # GIVEN the actions of the role
    role = expanded_template()["Resources"]["PipelineRole"]["Properties"]
    statements = role["Policies"][0]["PolicyDocument"]["Statement"]
    granted = set()
    for statement in statements:
        document = statement["Fn::If"][1] if "Fn::If" in statement else statement
        granted |= {document["Action"]} if isinstance(document["Action"], str) else set(document["Action"])

    # THEN each task's action is among them, and with .sync also reading and stopping the run
    # https://docs.aws.amazon.com/step-functions/latest/dg/connect-glue.html
    needed = {"glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun", "lambda:InvokeFunction"}
    for _, task in tasks(states):
        match = re.search(r":::(?:aws-sdk:)?(\w+):(\w+)", task["Resource"])
        assert match is not None
        service, action = match.groups()
        if service != "lambda":
            needed.add(f"{service}:{action[0].upper()}{action[1:]}")
    assert needed <= granted
