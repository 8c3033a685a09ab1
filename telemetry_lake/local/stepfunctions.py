"""AWS Step Functions: tasks that call services as the state machine's role, time limits, redrive, logs, metrics.

MiniStack keeps the state machines and interprets Pass, Choice, Wait, Parallel, Map, JSONPath and JSONata. The walk from
state to state and everything that a Task does is done here: each task calls boto3 with a session of the state
machine's role over HTTP, so that IAM decides as it does for any other caller.

Known deviations from AWS:

* ``.sync`` tasks look at their job every 0.3 seconds; AWS looks about once a minute. Only ``glue:startJobRun.sync`` and
  ``athena:startQueryExecution.sync`` exist. A job is stopped when the execution is stopped or reaches its own
  ``TimeoutSeconds``; a task that reaches its ``TimeoutSeconds`` leaves its job running (AWS documents the stop for
  tasks that are aborted only).
* ``.waitForTaskToken``, ``.sync:2``, activities and HTTP tasks fail with ``States.Runtime``, and so does a TestState
  call without a mock. Integrations other than Lambda's return no ``SdkHttpMetadata`` and ``SdkResponseMetadata``.
* A role that does not trust ``states.amazonaws.com`` fails the execution with ``States.Permissions`` at its first
  task; AWS refuses the state machine when it is created.
* Redrive starts a Parallel or Map state as a whole and starts ``TimeoutSeconds`` of the state machine anew.
* An execution that was running when the endpoint stopped has FAILED with ``States.ServiceRestart``: redrive it. That
  begins with the state that was under way: a call of a Task that the end of the endpoint cut off happens again.
* Variables that are assigned inside of Parallel and Map leak out; JSONata ``Arguments`` and ``Output`` of those two
  states are not evaluated. A state machine's versions and aliases run its newest definition.
* Lambda tasks by function ARN show ``Task…`` events, not ``LambdaFunction…`` events.
* Too large a variable fails with ``States.DataLimitExceeded``; AWS documents the limit, but not the error.
* Execution logs are written by the service itself, without log delivery; the role's permissions for log delivery are
  not looked at. Express workflows have a history, and their metrics are counted like those of standard workflows.
* ``AWS/States`` has the metrics of executions only, none of integrations or of the API.
* ``EvaluationFailed`` has no ``location`` where the same expression stands in several fields of the state, and there is
  no such event for a result that is not of its field's type. A cause in the history ends after 32,768 characters, while
  catchers get all of it. The names in StartSyncExecution are not checked.
* ``previousEventId`` is the event before in the list; on AWS events of branches follow those of their own branch.
"""

import contextvars
import copy
import json
import logging
import queue
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for_futures
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint, TrustError
from telemetry_lake.local.state_machine_definition import diagnostics, location, refusal

SERVICE_PRINCIPAL = "states.amazonaws.com"
POLL_SECONDS = 0.3

# A payload's limit: https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
PAYLOAD_BYTES = 262_144
# https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html
EVENT_PAYLOAD_BYTES = 248 * 1024
# https://docs.aws.amazon.com/step-functions/latest/apireference/API_RedriveExecution.html
REDRIVABLE_SECONDS = 14 * 24 * 3600
REDRIVE_TOKENS = 10
# https://docs.aws.amazon.com/step-functions/latest/apireference/API_ValidateStateMachineDefinition.html
VALIDATION_RESULTS = 100
# https://docs.aws.amazon.com/step-functions/latest/apireference/API_ExecutionFailedEventDetails.html
CAUSE_CHARACTERS = 32_768
# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
HISTORY_EVENTS = 25_000
# What names of state machines and executions do not have in them
# (https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html).
NAME_CHARACTERS = 80
NOT_IN_NAMES = re.compile(r'[\s<>{}\[\]?*"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\U0010ffff]')
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: a function runs 900 seconds at most
LAMBDA_READ_SECONDS = 910

# https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html
METRICS_BY_STATUS = {
    "SUCCEEDED": "ExecutionsSucceeded",
    "FAILED": "ExecutionsFailed",
    "TIMED_OUT": "ExecutionsTimedOut",
    "ABORTED": "ExecutionsAborted",
}

# Errors that neither a retrier nor a catcher with a wildcard takes
# (https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html).
TERMINAL_ERRORS = ("States.DataLimitExceeded", "States.Runtime")

# https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html#cloudwatch-log-level
FATAL_EVENTS = ("ExecutionAborted", "ExecutionFailed", "ExecutionTimedOut")
ERROR_SUFFIXES = ("Aborted", "Failed", "TimedOut")
EXECUTION_DATA = ("input", "output", "parameters", "assignedVariables")

# Step Functions' names of services, where they differ from boto3's.
BOTO_SERVICES = {
    "cloudwatchlogs": "logs",
    "eventbridge": "events",
    "sfn": "stepfunctions",
    "states": "stepfunctions",
}
# The first part of an error's name, where it is not the capitalised name of the service. AWS SDK integrations
# take it from the second version of the Java SDK, optimised integrations from the first
# (https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html).
SDK_ERROR_PREFIXES = {
    "cloudwatch": "CloudWatch",
    "cloudwatchlogs": "CloudWatchLogs",
    "dynamodb": "DynamoDb",
    "eventbridge": "EventBridge",
}
OPTIMISED_ERROR_PREFIXES = {
    "dynamodb": "DynamoDB",
    "events": "EventBridge",
    "sns": "SNS",
    "sqs": "SQS",
    "states": "StepFunctions",
}
# Newer in boto3's model than in what Step Functions has been seen to answer: S3.S3Exception, "Access Denied".
UNKNOWN_TO_STEP_FUNCTIONS = {("s3", "AccessDenied")}
# https://docs.aws.amazon.com/step-functions/latest/dg/integrate-optimized.html
OPTIMISED_CALLS = {
    "athena:getQueryExecution",
    "athena:getQueryResults",
    "athena:startQueryExecution",
    "athena:stopQueryExecution",
    "dynamodb:deleteItem",
    "dynamodb:getItem",
    "dynamodb:putItem",
    "dynamodb:updateItem",
    "events:putEvents",
    "glue:startJobRun",
    "sns:publish",
    "sqs:sendMessage",
    "states:startExecution",
}

logger = logging.getLogger("telemetry_lake.local.stepfunctions")


class StatesError(Exception):
    """A state failed; ``error`` and ``cause`` are what retriers, catchers and the history see."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


class HistoryFullError(Exception):
    """The one event for which the history has room still is the failure of the execution.

    See https://docs.aws.amazon.com/step-functions/latest/dg/bp-history-limit.html; the error was seen on AWS
    (https://github.com/floci-io/floci/issues/2734).
    """

    def __init__(self) -> None:
        super().__init__(f"The execution reached the maximum number of history events ({HISTORY_EVENTS}).")


class ExecutionOverError(Exception):
    """The execution was stopped from outside, or its time is up: nothing of it may go on."""


# ---------------------------------------------------------------------------------------------- pure parts


@dataclass(frozen=True)
class Integration:
    """What the ``Resource`` of a Task names."""

    service: str
    action: str
    pattern: str = ""
    is_sdk: bool = False
    function_arn: str | None = None

    @classmethod
    def parse(cls, resource: str) -> "Integration":
        """Read an ARN such as ``arn:aws:states:::aws-sdk:glue:getJobRuns`` or that of a Lambda function.

        See https://docs.aws.amazon.com/step-functions/latest/dg/connect-to-resource.html.

        Raises:
            StatesError: ``States.Runtime``; the endpoint has no such integration.
        """
        parts = resource.split(":")
        if resource.startswith("arn:aws:lambda:"):
            return cls("lambda", "invoke", function_arn=resource)
        if resource.startswith("arn:aws:states:::aws-sdk:") and len(parts) == 8:  # noqa: PLR2004
            action, _, pattern = parts[7].partition(".")
            integration = cls(parts[6].lower(), action, pattern, is_sdk=True)
            supported = pattern == ""
        elif resource.startswith("arn:aws:states:::") and len(parts) == 7:  # noqa: PLR2004
            action, _, pattern = parts[6].partition(".")
            integration = cls(parts[5].lower(), action, pattern)
            name = f"{integration.service}:{action}"
            supported = (
                name in SYNC_JOBS
                if pattern == "sync"
                else pattern == "" and (name in OPTIMISED_CALLS or name == "lambda:invoke")
            )
        else:
            supported = False
        if not supported:
            raise StatesError(
                "States.Runtime",
                f"The embedded endpoint has no integration {resource}: use an aws-sdk integration of the same action, "
                "or see the known deviations of its Step Functions module",
            )
        return integration

    @property
    def resource_type(self) -> str:
        """The history's ``resourceType``, for example ``aws-sdk:s3``."""
        return f"aws-sdk:{self.service}" if self.is_sdk else self.service

    @property
    def resource(self) -> str:
        """The history's ``resource``, for example ``startJobRun.sync``."""
        return f"{self.action}.{self.pattern}" if self.pattern else self.action

    @property
    def error_prefix(self) -> str:
        """What the names of this service's errors begin with, for example ``Glue``."""
        known = SDK_ERROR_PREFIXES if self.is_sdk else OPTIMISED_ERROR_PREFIXES
        return known.get(self.service, self.service.capitalize())


def compact(value: Any) -> str:
    """Return JSON without spaces, as Step Functions shows it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def iso_time(moment: datetime) -> str:
    """Return the ISO time of AWS SDK integrations: UTC, milliseconds where there are any.

    >>> iso_time(datetime(2025, 10, 15, 1, 2, 3, 456000, tzinfo=UTC))
    '2025-10-15T01:02:03.456Z'
    """
    moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def epoch_milliseconds(moment: str | None) -> int | None:
    """Return milliseconds since 1970 of MiniStack's ISO times."""
    return None if moment is None else round(datetime.fromisoformat(moment).timestamp() * 1000)


def result_value(value: Any, shape: Any, times_as_milliseconds: bool) -> Any:
    """Turn a part of boto3's response into the JSON that a state gets: PascalCase names, times, bodies as text.

    AWS SDK integrations show times in ISO format; the optimised integrations of Glue and Athena show milliseconds
    since 1970 (seen in the output of ``glue:startJobRun.sync``: ``"CompletedOn":1783349798460``).
    """
    if shape.type_name == "structure":
        return {
            name[:1].upper() + name[1:]: result_value(value[name], member, times_as_milliseconds)
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if shape.type_name == "list":
        return [result_value(item, shape.member, times_as_milliseconds) for item in value]
    if shape.type_name == "map":
        return {key: result_value(item, shape.value, times_as_milliseconds) for key, item in value.items()}
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000) if times_as_milliseconds else iso_time(value)
    if shape.type_name == "blob":
        content = value.read() if hasattr(value, "read") else value
        return content.decode("utf-8", "replace")
    return value


def request_value(value: Any, shape: Any, path: str, json_in_strings: bool) -> Any:
    """Turn a task's arguments into boto3's: names as the API has them, text as bytes where it wants bytes.

    With ``json_in_strings`` an object may stand where the API wants a text, as in ``sqs:sendMessage``
    (https://docs.aws.amazon.com/step-functions/latest/dg/connect-sqs.html).

    Raises:
        StatesError: ``States.Runtime``; the API does not know a field.
    """
    if shape.type_name == "structure" and isinstance(value, Mapping):
        names = {name[:1].upper() + name[1:]: name for name in shape.members}
        unknown = sorted(set(value) - set(names) - set(shape.members))
        if unknown:
            raise StatesError(
                "States.Runtime",
                f"The parameters '{compact(dict(value))}' could not be used to start the Task: "
                f"[The field {compact(path + unknown[0])} is not supported by Step Functions]",
            )
        return {
            names.get(key, key): request_value(
                item, shape.members[names.get(key, key)], f"{path}{key}.", json_in_strings
            )
            for key, item in value.items()
            if item is not None
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [request_value(item, shape.member, path, json_in_strings) for item in value]
    if shape.type_name == "map" and isinstance(value, Mapping):
        return {key: request_value(item, shape.value, path, json_in_strings) for key, item in value.items()}
    if shape.type_name == "blob" and isinstance(value, str):
        return value.encode()
    if shape.type_name == "string" and json_in_strings and isinstance(value, dict | list):
        return compact(value)
    return value


def sdk_error_name(integration: Integration, code: str, modelled: Mapping[str, str]) -> str:
    """Name a service's error as Step Functions does: ``Glue.CrawlerRunningException``, ``S3.NoSuchKeyException``.

    An error that the service's model does not list, such as S3's ``AccessDenied``, has the name of the service's base
    exception: ``S3.S3Exception``, and ``Glue.AWSGlueException`` from an optimised integration
    (https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html,
    https://docs.aws.amazon.com/step-functions/latest/dg/connect-lambda.html).

    Args:
        integration: What the task called.
        code: The error code in the service's answer.
        modelled: Names of the exceptions in the service's model, by error code.
    """
    prefix = integration.error_prefix
    name = modelled.get(code)
    if name is None or (integration.service, code) in UNKNOWN_TO_STEP_FUNCTIONS:
        return f"{prefix}.{prefix}Exception" if integration.is_sdk else f"{prefix}.AWS{prefix}Exception"
    name = name.removesuffix("Fault")
    return f"{prefix}.{name}" if name.endswith("Exception") else f"{prefix}.{name}Exception"


def error_matches(error_equals: Sequence[str], error: str) -> bool:
    """Say whether a retrier or catcher takes an error.

    ``States.ALL`` takes all but the terminal ones, ``States.TaskFailed`` all of those but ``States.Timeout``
    (https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html).
    """
    if error in error_equals:
        return True
    if error in TERMINAL_ERRORS:
        return False
    return "States.ALL" in error_equals or ("States.TaskFailed" in error_equals and error != "States.Timeout")


def retry_seconds(retrier: Mapping[str, Any], retries_before: int, fraction: float = 1.0) -> float:
    """Return the pause before the next attempt.

    See https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html#error-handling-examples.

    Args:
        retrier: The entry of ``Retry``.
        retries_before: How often it has retried already.
        fraction: A random number in [0, 1), used with ``"JitterStrategy": "FULL"``.
    """
    seconds = float(retrier.get("IntervalSeconds", 1)) * float(retrier.get("BackoffRate", 2.0)) ** retries_before
    seconds = min(seconds, float(retrier.get("MaxDelaySeconds", seconds)))
    return seconds * fraction if retrier.get("JitterStrategy") == "FULL" else seconds


def within_limit(value: Any, what: str) -> Any:
    """Return ``value`` if its JSON keeps the payload limit.

    Raises:
        StatesError: ``States.DataLimitExceeded``, which no wildcard catches.
    """
    if len(compact(value).encode()) > PAYLOAD_BYTES:
        raise StatesError(
            "States.DataLimitExceeded",
            f"{what} returned a result with a size exceeding the maximum number of bytes service limit.",
        )
    return value


def not_redrivable_reason(status: str, seconds_since_end: float, events: int, *, is_express: bool) -> str | None:
    """Say why an execution cannot be redriven, or None.

    See https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html.
    """
    if status in ("RUNNING", "SUCCEEDED"):
        return f"Execution is {status} and cannot be redriven"
    if is_express:
        return "Execution is of type EXPRESS and cannot be redriven"
    if events >= HISTORY_EVENTS - 1:
        return "Execution history event limit exceeded"
    if seconds_since_end > REDRIVABLE_SECONDS:
        return "Execution redrivable period exceeded"
    return None


def is_logged(event_type: str, level: str) -> bool:
    """Say whether a history event goes to the log.

    See https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html#cloudwatch-log-level.
    """
    if level == "ALL":
        return True
    if level == "ERROR":
        return event_type.endswith(ERROR_SUFFIXES) or event_type == "FailStateEntered"
    return level == "FATAL" and event_type in FATAL_EVENTS


def log_line(execution_arn: str, redrive_count: int, event: Mapping[str, Any], with_data: bool) -> str:
    """Render a history event as Step Functions' logs have it."""
    details: Mapping[str, Any] = next((value for key, value in event.items() if key.endswith("EventDetails")), {})
    return compact(
        {
            "id": str(event["id"]),
            "type": event["type"],
            "details": {key: value for key, value in details.items() if with_data or key not in EXECUTION_DATA},
            "redrive_count": str(redrive_count),
            "previous_event_id": str(event.get("previousEventId", 0)),
            "event_timestamp": str(epoch_milliseconds(event["timestamp"])),
            "execution_arn": execution_arn,
        }
    )


# ------------------------------------------------------------------------------------- what tasks call


@dataclass(frozen=True)
class SyncJob:
    """How a ``.sync`` integration follows and stops what it started; see the two of them below."""

    poll: Callable[[Any, Mapping[str, Any], Mapping[str, Any]], tuple[str, Any, str]]
    stop: Callable[[Any, Mapping[str, Any], Mapping[str, Any]], Any]
    good: frozenset[str]
    bad: frozenset[str]


def _poll_job_run(
    client: Any, arguments: Mapping[str, Any], started: Mapping[str, Any]
) -> tuple[str, dict[str, Any], str]:
    run = client.get_job_run(JobName=arguments["JobName"], RunId=started["JobRunId"])["JobRun"]
    return run["JobRunState"], run, "JobRun"


def _stop_job_run(client: Any, arguments: Mapping[str, Any], started: Mapping[str, Any]) -> None:
    client.batch_stop_job_run(JobName=arguments["JobName"], JobRunIds=[started["JobRunId"]])


def _poll_query(
    client: Any, _arguments: Mapping[str, Any], started: Mapping[str, Any]
) -> tuple[str, dict[str, Any], str]:
    answer = client.get_query_execution(QueryExecutionId=started["QueryExecutionId"])
    return answer["QueryExecution"]["Status"]["State"], answer, "GetQueryExecutionOutput"


def _stop_query(client: Any, _arguments: Mapping[str, Any], started: Mapping[str, Any]) -> None:
    client.stop_query_execution(QueryExecutionId=started["QueryExecutionId"])


SYNC_JOBS = {
    # The result is a JobRun (https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-runs.html) by
    # https://docs.aws.amazon.com/cdk/api/v2/docs/aws-cdk-lib.aws_stepfunctions_tasks.GlueStartJobRun.html; seen:
    # {"AllocatedCapacity":0,"Arguments":{…},"Attempt":0,"CompletedOn":1783349798460,"Id":"jr_…","JobName":…,
    # "JobRunState":"SUCCEEDED",…}.
    "glue:startJobRun": SyncJob(
        _poll_job_run,
        _stop_job_run,
        frozenset({"SUCCEEDED"}),
        frozenset({"FAILED", "TIMEOUT", "ERROR", "STOPPED", "EXPIRED"}),
    ),
    "athena:startQueryExecution": SyncJob(
        _poll_query, _stop_query, frozenset({"SUCCEEDED"}), frozenset({"FAILED", "CANCELLED"})
    ),
}


@dataclass
class TaskCall:
    """One attempt of a Task, run in a thread of its own, so that its time limit and an abort can end the waiting."""

    integration: Integration
    arguments: Any
    client: Any
    submitted: Callable[[Any], None]
    given_up: threading.Event = field(default_factory=threading.Event)
    stops_job: bool = False

    def give_up(self, stop_job: bool) -> None:
        """Wait for the result no longer; a ``.sync`` job is stopped if ``stop_job`` says so."""
        self.stops_job = stop_job
        self.given_up.set()

    def run(self) -> Any:
        """Call the service and return the task's result.

        Raises:
            StatesError: named as Step Functions names the service's error.
        """
        try:
            if self.integration.service == "lambda" and not self.integration.is_sdk:
                return self._invoke_function()
            if self.integration.pattern == "sync":
                return self._run_job()
            return self._call()[1]
        except ClientError as problem:
            raise self._service_error(problem) from problem
        except ParamValidationError as problem:
            raise StatesError("States.Runtime", f"The parameters could not be used to start the Task: {problem}") from (
                problem
            )
        except BotoCoreError as problem:
            raise StatesError(f"{self.integration.error_prefix}.SdkClientException", str(problem)) from problem

    def _call(self) -> tuple[dict[str, Any], Any]:
        action = self.integration.action
        model = self.client.meta.service_model
        operation_name = action[:1].upper() + action[1:]
        if operation_name not in model.operation_names:
            raise StatesError("States.Runtime", f"{self.integration.service} has no action {action}")
        operation = model.operation_model(operation_name)
        arguments = (
            request_value(self.arguments, operation.input_shape, "", not self.integration.is_sdk)
            if operation.input_shape
            else {}
        )
        if not isinstance(arguments, dict):
            raise StatesError("States.Runtime", f"The arguments of {action} have to be an object, not {arguments!r}")
        answer = getattr(self.client, xform_name(operation_name))(**arguments)
        return arguments, self._result(answer, operation.output_shape)

    def _result(self, answer: Any, shape: Any) -> Any:
        return result_value(answer, shape, not self.integration.is_sdk) if shape else {}

    def _run_job(self) -> Any:
        job = SYNC_JOBS[f"{self.integration.service}:{self.integration.action}"]
        arguments, started = self._call()
        self.submitted(started)
        while True:
            state, answer, shape_name = job.poll(self.client, arguments, started)
            if state in job.good | job.bad:
                result = self._result(answer, self.client.meta.service_model.shape_for(shape_name))
                if state in job.bad:
                    raise StatesError("States.TaskFailed", compact(result))
                return result
            if self.given_up.wait(POLL_SECONDS):
                if self.stops_job:
                    job.stop(self.client, arguments, started)
                return None

    def _invoke_function(self) -> Any:
        arguments = self.arguments
        if self.integration.function_arn is not None:
            arguments = {"FunctionName": self.integration.function_arn, "Payload": self.arguments}
        shape = self.client.meta.service_model.operation_model("Invoke").input_shape
        known = request_value({**arguments, "Payload": ""}, shape, "", json_in_strings=True)
        answer = self.client.invoke(**{**known, "Payload": compact(arguments.get("Payload", {})).encode()})
        text = answer["Payload"].read().decode()
        payload = _parsed(text)
        if "FunctionError" in answer:
            # https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html#error-handling-lambda
            error = payload.get("errorType") if isinstance(payload, dict) else None
            raise StatesError(error or "Lambda.Unknown", text)
        if self.integration.function_arn is not None:
            return payload
        # https://docs.aws.amazon.com/step-functions/latest/dg/connect-lambda.html
        metadata = answer["ResponseMetadata"]
        return {
            "ExecutedVersion": answer.get("ExecutedVersion", "$LATEST"),
            "Payload": payload,
            "SdkHttpMetadata": {"HttpStatusCode": metadata["HTTPStatusCode"]},
            "SdkResponseMetadata": {"RequestId": metadata.get("RequestId", "")},
            "StatusCode": answer["StatusCode"],
        }

    def _service_error(self, problem: ClientError) -> StatesError:
        answer = problem.response
        code = answer["Error"].get("Code", "Unknown").rsplit("#", 1)[-1]
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        request_id = answer.get("ResponseMetadata", {}).get("RequestId", "")
        modelled: dict[str, str] = {}
        for shape in self.client.meta.service_model.error_shapes:
            modelled |= {shape.name: shape.name, shape.error_code: shape.name}
        name = sdk_error_name(self.integration, code, modelled)
        prefix = self.integration.error_prefix
        origin = (
            f"Service: {prefix}, Status Code: {status}, Request ID: {request_id}"
            if self.integration.is_sdk
            else f"Service: AWS{prefix}; Status Code: {status}; Error Code: {code}; Request ID: {request_id}"
        )
        return StatesError(name, f"{answer['Error'].get('Message', '')} ({origin})")


def _parsed(text: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


# ------------------------------------------------------------------------------------------- executions


@dataclass
class Run:
    """One walk of an execution through its states; ``over`` is resolved when it was ended from outside."""

    execution: dict[str, Any]
    definition: dict[str, Any]
    role_arn: str
    deadline: float | None
    over: "Future[str]" = field(default_factory=Future)
    entered_event_id: int = 0
    assigned: dict[str, str] = field(default_factory=dict)

    def remaining_seconds(self) -> float | None:
        """Return the time left of the state machine's ``TimeoutSeconds``, None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def assert_going_on(self) -> None:
        """Raise ExecutionOverError if the execution was stopped or has no time left."""
        remaining = self.remaining_seconds()
        if self.over.done() or (remaining is not None and remaining <= 0):
            raise ExecutionOverError

    def pause(self, seconds: float) -> None:
        """Sleep, unless the execution is over before."""
        remaining = self.remaining_seconds()
        wait_for_futures([self.over], timeout=seconds if remaining is None else max(min(seconds, remaining), 0))
        self.assert_going_on()


_current_run: contextvars.ContextVar[Run | None] = contextvars.ContextVar("current_run", default=None)


class StepFunctions:
    """Takes over MiniStack's walk through the states, its tasks, its events and its clock."""

    def __init__(self, endpoint: Endpoint, module: Any, interpreter_errors: type[Exception]) -> None:
        self._endpoint = endpoint
        self._module = module
        self._interpreter_error = interpreter_errors
        self._runs: dict[str, Run] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._lock = threading.RLock()
        self._log_lines: queue.Queue[tuple[str, str, int, str]] = queue.Queue()
        self._log_stream_id = uuid.uuid4().hex[:8]

    # -- API actions

    def create_state_machine(self, data: dict[str, Any], original: Callable[[dict[str, Any]], Any]) -> Any:
        """CreateStateMachine, with a definition that can be run.

        See https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html.
        """
        refused = self._name_refusal(data.get("name", "")) or self._definition_refusal(data.get("definition", ""))
        return refused or original(data)

    def update_state_machine(self, data: dict[str, Any], original: Callable[[dict[str, Any]], Any]) -> Any:
        """UpdateStateMachine, which keeps the old definition if the new one cannot be run.

        See https://docs.aws.amazon.com/step-functions/latest/apireference/API_UpdateStateMachine.html.
        """
        answer = self._definition_refusal(data["definition"]) if "definition" in data else None
        return answer or original(data)

    def _name_refusal(self, name: str) -> Any:
        if len(name) > NAME_CHARACTERS:
            return self._refusal(
                "ValidationException",
                f"1 validation error detected: Value '{name}' at 'name' failed to satisfy constraint: Member must have "
                f"length less than or equal to {NAME_CHARACTERS}",
            )
        return self._refusal("InvalidName", f"Invalid Name: '{name}'") if NOT_IN_NAMES.search(name) else None

    def _definition_refusal(self, definition: str) -> Any:
        message = refusal(definition)
        return None if message is None else self._refusal("InvalidDefinition", message)

    def validate_definition(self, data: dict[str, Any]) -> Any:
        """ValidateStateMachineDefinition: the same check, without a state machine.

        See https://docs.aws.amazon.com/step-functions/latest/apireference/API_ValidateStateMachineDefinition.html.
        """
        found = diagnostics(data.get("definition", ""))
        most = data.get("maxResults") or VALIDATION_RESULTS
        return self._module.json_response(
            {
                "result": "FAIL" if found else "OK",
                "diagnostics": [diagnostic.document() for diagnostic in found[:most]],
                "truncated": len(found) > most,
            }
        )

    def start_execution(self, data: dict[str, Any], original: Callable[[dict[str, Any]], Any]) -> Any:
        """StartExecution, with what MiniStack does not check.

        A repeated start with the same name and input answers like the first while that execution runs
        (https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html).
        """
        refused = self._name_refusal(data.get("name", ""))
        if refused is not None:
            return refused
        text = data.get("input", "{}")
        if len(text.encode()) > PAYLOAD_BYTES:
            return self._refusal(
                "ValidationException",
                "1 validation error detected: Value at 'input' failed to satisfy constraint: Member must have length "
                f"less than or equal to {PAYLOAD_BYTES}",
            )
        try:
            json.loads(text)
        except ValueError as problem:
            return self._refusal("InvalidExecutionInput", f"Invalid State Machine Execution Input: '{problem}'")
        machine_arn = self._module._resolve_state_machine_arn(data.get("stateMachineArn", ""))
        if machine_arn is not None and data.get("name"):
            machine = self._module._state_machines[machine_arn]
            arn = f"{machine_arn.replace(':stateMachine:', ':execution:', 1)}:{data['name']}"
            known = self._module._executions.get(arn)
            if known and known["status"] == "RUNNING" and known["input"] == text and machine["type"] == "STANDARD":
                return self._module.json_response({"executionArn": arn, "startDate": known["startDate"]})
        return original(data)

    def stop_execution(self, data: dict[str, Any], original: Callable[[dict[str, Any]], Any]) -> Any:
        """StopExecution, which also ends what the execution waits for."""
        with self._lock:
            answer = original(data)
            run = self._runs.get(data.get("executionArn", ""))
            if run is not None and run.execution["status"] == "ABORTED" and not run.over.done():
                run.over.set_result("ABORTED")
        return answer

    def redrive_execution(self, data: dict[str, Any]) -> Any:
        """RedriveExecution: the same execution goes on at the state that did not succeed, with the same input.

        See https://docs.aws.amazon.com/step-functions/latest/dg/redrive-executions.html.
        """
        arn = data.get("executionArn", "")
        execution = self._module._executions.get(arn)
        if execution is None:
            return self._refusal("ExecutionDoesNotExist", f"Execution Does Not Exist: '{arn}'")
        with self._lock:
            tokens = execution.setdefault("redriveTokens", {})
            token = data.get("clientToken")
            if token is not None and token in tokens:
                return self._module.json_response({"redriveDate": tokens[token]})
            reason = self._not_redrivable(execution)
            if reason is not None:
                return self._refusal("ExecutionNotRedrivable", reason)
            moment = self._module.now_iso()
            count = execution.get("redriveCount", 0) + 1
            execution.update(status="RUNNING", stopDate=None, output=None, redriveCount=count, redriveDate=moment)
            execution.pop("error", None)
            execution.pop("cause", None)
            if token is not None:
                tokens[token] = moment
                for old in list(tokens)[:-REDRIVE_TOKENS]:
                    del tokens[old]
            self.add_event(execution, "ExecutionRedriven", {"executionRedrivenEventDetails": {"redriveCount": count}})
        self.publish_status(execution)
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self.run_execution, arn), daemon=True).start()
        return self._module.json_response({"redriveDate": moment})

    def describe_execution(self, data: dict[str, Any], original: Callable[[dict[str, Any]], Any]) -> Any:
        """DescribeExecution with its fields about redrive, and without the output of a failed one."""
        answer = original(data)
        execution = self._module._executions.get(data.get("executionArn", ""))
        if execution is None:
            return answer
        description = json.loads(answer[2]) | self._redrive_fields(execution)
        absent = [name for name in ("stopDate", "output", "redriveDate") if description.get(name) is None]
        if "output" in absent:
            absent.append("outputDetails")
        for name in [*absent, *(["redriveStatusReason"] if description["redriveStatus"] == "REDRIVABLE" else [])]:
            description.pop(name, None)
        return self._module.json_response(description)

    def list_executions(self, data: dict[str, Any], original: Callable[[dict[str, Any]], Any]) -> Any:
        """ListExecutions, with how often each was redriven; the filter by it may leave a page with less.

        See https://docs.aws.amazon.com/step-functions/latest/apireference/API_ListExecutions.html.
        """
        answer = original(data)
        if answer[0] >= 400:  # noqa: PLR2004
            return answer
        document = json.loads(answer[2])
        wanted = data.get("redriveFilter")
        listed = []
        for item in document["executions"]:
            execution = self._module._executions[item["executionArn"]]
            fields = {"redriveCount": execution.get("redriveCount", 0), "redriveDate": execution.get("redriveDate")}
            if wanted is None or (wanted == "REDRIVEN") == (fields["redriveCount"] > 0):
                listed.append({name: value for name, value in (item | fields).items() if value is not None})
        return self._module.json_response({**document, "executions": listed})

    def _redrive_fields(self, execution: Mapping[str, Any]) -> dict[str, Any]:
        reason = self._not_redrivable(execution)
        return {
            "redriveCount": execution.get("redriveCount", 0),
            "redriveDate": execution.get("redriveDate"),
            "redriveStatus": "REDRIVABLE" if reason is None else "NOT_REDRIVABLE",
            "redriveStatusReason": reason,
        }

    def _not_redrivable(self, execution: Mapping[str, Any]) -> str | None:
        stopped = epoch_milliseconds(execution.get("stopDate"))
        seconds = 0.0 if stopped is None else time.time() - stopped / 1000
        if execution["stateMachineArn"] not in self._module._state_machines:
            return "State machine is in DELETING status"
        machine = self._module._state_machines[execution["stateMachineArn"]]
        is_express = machine["type"] == "EXPRESS"
        return not_redrivable_reason(execution["status"], seconds, len(execution["events"]), is_express=is_express)

    def _refusal(self, code: str, message: str) -> Any:
        return self._module.error_response_json(code, message, 400)

    # -- The walk

    def run_execution(self, execution_arn: str) -> None:
        """Walk an execution, new or redriven, to its end; runs in a thread of its own."""
        execution = self._module._executions.get(execution_arn)
        if execution is None:
            return
        is_redriven = "continuation" in execution
        if not is_redriven:
            machine = self._module._state_machines[execution["stateMachineArn"]]
            # An update does not reach executions that run, nor their redrive
            # (https://docs.aws.amazon.com/step-functions/latest/apireference/API_UpdateStateMachine.html).
            execution["continuation"] = {"definition": machine["definition"], "roleArn": machine["roleArn"]}
            # What MiniStack's first event does not have.
            first = execution["events"][0]
            details = {**first["executionStartedEventDetails"], **_not_truncated("input")}
            first = {**first, "previousEventId": 0, "executionStartedEventDetails": details}
            execution["events"][0] = first
            self._log(execution, first)
        continuation = execution["continuation"]
        definition = json.loads(continuation["definition"])
        limit = definition.get("TimeoutSeconds")
        run = Run(
            execution, definition, continuation["roleArn"], None if limit is None else time.monotonic() + float(limit)
        )
        with self._lock:
            if execution["status"] != "RUNNING":
                return
            self._runs[execution_arn] = run
            self._threads[execution_arn] = threading.current_thread()
        _current_run.set(run)
        try:
            output = self._walk(run)
            text = compact(output)
            self._end(
                run,
                "SUCCEEDED",
                "ExecutionSucceeded",
                {"executionSucceededEventDetails": {"output": text, **_not_truncated("output")}},
                output=text,
            )
        except Exception as problem:  # noqa: BLE001  whatever went wrong is the execution's error, kept in its history
            self._end_with(run, problem)
        finally:
            with self._lock:
                self._runs.pop(execution_arn, None)
                self._threads.pop(execution_arn, None)

    def _walk(self, run: Run) -> Any:
        execution, states = run.execution, run.definition["States"]
        if "state" not in execution["continuation"]:
            self._continue_at(execution, run.definition.get("StartAt"), json.loads(execution["input"]), {})
        continuation = execution["continuation"]
        name, value = continuation["state"], copy.deepcopy(continuation["input"])
        context = self._context(run, continuation)
        while name is not None:
            state = states.get(name)
            if state is None:
                raise StatesError("States.Runtime", f"The state '{name}' is not in the definition")
            context["State"] = {"Name": name, "EnteredTime": self._module.now_iso(), "RetryCount": 0}
            entered = self.add_event(
                execution,
                f"{state['Type']}StateEntered",
                {"stateEnteredEventDetails": {"name": name, "input": compact(value), **_not_truncated("input")}},
            )
            run.entered_event_id = entered["id"]
            value, next_name = self._enter(run, state, value, context)
            run.assert_going_on()
            within_limit(value, f"The state/task '{name}'")
            details = {"name": name, "output": compact(value), **_not_truncated("output")}
            if run.assigned:
                details["assignedVariables"] = dict(run.assigned)
                run.assigned.clear()
            # Before it is told: nobody reads that a state is done which a redrive would do again.
            self._continue_at(execution, next_name, value, context["variables"])
            self.add_event(execution, f"{state['Type']}StateExited", {"stateExitedEventDetails": details})
            name = next_name
        return value

    def _continue_at(self, execution: dict[str, Any], name: str | None, value: Any, variables: dict[str, Any]) -> None:
        """Set where a redrive goes on: in one step, as the execution may be being written; at None all is done."""
        execution["continuation"] = {
            **execution["continuation"],
            "state": name,
            "input": copy.deepcopy(value),
            "variables": copy.deepcopy(variables),
        }

    def _enter(self, run: Run, state: dict[str, Any], value: Any, context: dict[str, Any]) -> tuple[Any, str | None]:
        module = self._module
        kind = state["Type"]
        if kind == "Fail":
            raise StatesError(*module._fail_state_error(state, value, context))
        if kind == "Succeed":
            if module._state_query_language(state, context) == "JSONata":
                return module._apply_jsonata_output(state, value, context, default=value), None
            return module._apply_output_path(state, module._apply_input_path(state, value, context), context), None
        if kind == "Task":
            return self.execute_task(state, value, run.execution, context)
        if kind in ("Parallel", "Map"):
            handler = module._execute_parallel if kind == "Parallel" else module._execute_map
            output, next_name = handler(state, value, run.execution, context)
            return output, next_name
        handlers = {"Pass": module._execute_pass, "Choice": module._execute_choice, "Wait": module._execute_wait}
        if kind not in handlers:
            raise StatesError("States.Runtime", f"Unknown state type: {kind}")
        output, next_name = handlers[kind](state, value, context)
        return output, next_name

    def _context(self, run: Run, continuation: Mapping[str, Any]) -> dict[str, Any]:
        execution = run.execution
        # https://docs.aws.amazon.com/step-functions/latest/dg/input-output-contextobject.html
        redriven = {"RedriveTime": execution["redriveDate"]} if execution.get("redriveDate") else {}
        return {
            "QueryLanguage": run.definition.get("QueryLanguage", "JSONPath"),
            "Execution": {
                "Id": execution["executionArn"],
                "Input": json.loads(execution["input"]),
                "Name": execution["name"],
                "RoleArn": run.role_arn,
                "StartTime": execution["startDate"],
                "RedriveCount": execution.get("redriveCount", 0),
                **redriven,
            },
            "StateMachine": {
                "Id": execution["stateMachineArn"],
                "Name": execution["stateMachineArn"].rsplit(":", 1)[-1],
            },
            "variables": copy.deepcopy(continuation["variables"]),
        }

    def _end_with(self, run: Run, problem: Exception) -> None:
        remaining = run.remaining_seconds()
        if run.over.done():
            return
        if remaining is not None and remaining <= 0:
            # https://docs.aws.amazon.com/step-functions/latest/dg/statemachine-structure.html
            self._end(
                run, "TIMED_OUT", "ExecutionTimedOut", {"executionTimedOutEventDetails": {}}, error="States.Timeout"
            )
            return
        if isinstance(problem, StatesError | self._interpreter_error):
            error, cause = _error_and_cause(problem)
        elif isinstance(problem, HistoryFullError):
            error, cause = "States.Runtime", str(problem)
        else:
            logger.exception("%s: the interpreter failed", run.execution["executionArn"], exc_info=problem)
            error, cause = "States.Runtime", f"{type(problem).__name__}: {problem}"
        cause = cause[:CAUSE_CHARACTERS]
        details = {"error": error, "cause": cause}
        self._end(run, "FAILED", "ExecutionFailed", {"executionFailedEventDetails": details}, error=error, cause=cause)

    def _end(self, run: Run, status: str, event_type: str, details: dict[str, Any], **fields: Any) -> None:
        with self._lock:
            if run.execution["status"] != "RUNNING":
                return
            run.execution.update(status=status, stopDate=self._module.now_iso(), **fields)
            self.add_event(run.execution, event_type, details)
        self.publish_status(run.execution)

    # -- Tasks

    def execute_task(
        self, state: dict[str, Any], value: Any, execution: dict[str, Any], context: dict[str, Any]
    ) -> tuple[Any, str | None]:
        """Run a Task with its retriers and catchers and return its output and the next state's name."""
        module = self._module
        run = _current_run.get()
        if run is None:
            raise self._interpreter_error("States.Runtime", "A task needs an execution, or a mock in TestState")
        is_jsonata = module._state_query_language(state, context) == "JSONata"
        retries: dict[int, int] = {}
        while True:
            context["State"]["RetryCount"] = sum(retries.values())
            try:
                return self._attempt(run, state, value, context, is_jsonata), state.get("Next")
            except (StatesError, self._interpreter_error) as problem:
                error, cause = _error_and_cause(problem)
            run.assert_going_on()
            retrier, index = module._find_matching_retrier(state.get("Retry", []), error, retries)
            if retrier is not None:
                fraction = random.random()  # noqa: S311  jitter, not a secret
                run.pause(retry_seconds(retrier, retries.get(index, 0), fraction))
                retries[index] = retries.get(index, 0) + 1
                continue
            catcher = module._find_matching_catcher(state.get("Catch", []), error)
            if catcher is None:
                raise self._interpreter_error(error, cause)
            output = module._apply_catcher(
                catcher, value, context, "JSONata" if is_jsonata else "JSONPath", {"Error": error, "Cause": cause}
            )
            return output, catcher["Next"]

    def _attempt(self, run: Run, state: dict[str, Any], value: Any, context: dict[str, Any], is_jsonata: bool) -> Any:
        module = self._module
        if is_jsonata:
            arguments = module._apply_jsonata_arguments(state, value, context)
        else:
            arguments = module._apply_parameters(state, module._apply_input_path(state, value, context), context)
        result = self._scheduled(run, state, arguments, self._task_seconds(state, value, context), context)
        if is_jsonata:
            output = module._apply_jsonata_output(state, value, context, result=result, default=result)
            module._apply_state_assign(state, value, context, result=result)
            return output
        selected = module._apply_result_selector(state, result)
        return module._apply_output_path(state, module._apply_result_path(state, value, selected), context)

    def _task_seconds(self, state: dict[str, Any], value: Any, context: dict[str, Any]) -> float | None:
        if "TimeoutSecondsPath" in state:
            return float(self._module._resolve_path_or_ctx(state["TimeoutSecondsPath"], value, context))
        if "TimeoutSeconds" not in state:
            return None
        return float(self._module._jsonata_state_field(state, "TimeoutSeconds", "number", value, context))

    def _scheduled(
        self, run: Run, state: dict[str, Any], arguments: Any, seconds: float | None, context: dict[str, Any]
    ) -> Any:
        integration = Integration.parse(state.get("Resource", ""))
        names = {"resourceType": integration.resource_type, "resource": integration.resource}

        def record(kind: str, **details: Any) -> None:
            self.add_event(run.execution, f"Task{kind}", {f"task{kind}EventDetails": {**names, **details}})

        record(
            "Scheduled",
            region=self._endpoint.settings.region,
            parameters=compact(within_limit(arguments, f"The state/task '{context['State']['Name']}'")),
            **({} if seconds is None else {"timeoutInSeconds": int(seconds)}),
        )
        try:
            client = self._client(run, integration)
        except TrustError as problem:
            record("Failed", error="States.Permissions", cause=str(problem))
            raise StatesError("States.Permissions", str(problem)) from problem
        call = TaskCall(
            integration,
            arguments,
            client,
            lambda output: record("Submitted", output=compact(output), **_not_truncated("output")),
        )
        record("Started")
        # A kill during the call then leads to a redrive of this state, not of one that has succeeded before it.
        self._endpoint.wait_until_written()
        try:
            result = within_limit(self._await(run, call, seconds), f"The state/task '{context['State']['Name']}'")
        except StatesError as problem:
            kind = "TimedOut" if problem.error == "States.Timeout" else "Failed"
            record(kind, error=problem.error, cause=problem.cause[:CAUSE_CHARACTERS])
            raise
        record("Succeeded", output=compact(result), **_not_truncated("output"))
        return result

    def _await(self, run: Run, call: TaskCall, seconds: float | None) -> Any:
        outcome: Future[Any] = Future()

        def work() -> None:
            try:
                outcome.set_result(call.run())
            except Exception as problem:  # noqa: BLE001  handed over to the execution's thread
                if call.given_up.is_set():
                    logger.warning("%s: after the end of its task: %s", run.execution["executionArn"], problem)
                outcome.set_exception(problem)

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work,), name="states-task", daemon=True).start()
        limits = [limit for limit in (seconds, run.remaining_seconds()) if limit is not None]
        wait_for_futures([outcome, run.over], min(limits) if limits else None, FIRST_COMPLETED)
        if outcome.done() and not run.over.done():
            return outcome.result()
        try:
            run.assert_going_on()
        except ExecutionOverError:
            is_shutdown = run.over.done() and run.over.result() == "ENDPOINT_STOPS"
            call.give_up(stop_job=not is_shutdown)
            raise
        call.give_up(stop_job=False)
        raise StatesError("States.Timeout", f"The task did not end within its TimeoutSeconds, {seconds}")

    def _client(self, run: Run, integration: Integration) -> Any:
        machine_arn = run.execution["stateMachineArn"]
        session_name = machine_arn.rsplit(":", 1)[-1][:64]
        service = BOTO_SERVICES.get(integration.service, integration.service)
        # A function is invoked once and waited for until its end; other calls are quick and may be repeated.
        how = {"read_timeout_seconds": LAMBDA_READ_SECONDS, "attempts": 1} if service == "lambda" else {}
        try:
            return self._endpoint.client(service, run.role_arn, session_name, SERVICE_PRINCIPAL, machine_arn, **how)
        except BotoCoreError as problem:
            raise StatesError("States.Runtime", f"There is no service {integration.service}: {problem}") from problem

    # -- What MiniStack's interpreter calls

    def sleep(self, seconds: float) -> None:
        """Wait as a Wait state does; StopExecution and the time limit end it."""
        run = _current_run.get()
        if run is None:
            time.sleep(seconds)
        else:
            run.pause(seconds)

    def sleep_until(self, moment: str) -> None:
        """Wait until an ISO time."""
        self.sleep(max(datetime.fromisoformat(moment).timestamp() - time.time(), 0.0))

    def evaluate(
        self,
        expression: str,
        value: Any,
        context: Mapping[str, Any] | None = None,
        result: Any = None,
        error: Any = None,
    ) -> Any:
        """Evaluate a JSONata expression.

        ``$states.result`` and ``$states.errorOutput`` exist only where they apply, ``$eval`` does not exist, and an
        expression without a result is an error
        (https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html).
        """
        import jsonata

        context = context or {}
        shown = {key: item for key, item in context.items() if key not in ("variables", "QueryLanguage")}
        states = {"input": value, "context": shown}
        states |= {} if result is None else {"result": result}
        states |= {} if error is None else {"errorOutput": error}
        null = jsonata.utils.Utils.NULL_VALUE
        bindings = {name: null if item is None else item for name, item in context.get("variables", {}).items()}
        bindings["states"] = states
        try:
            compiled = jsonata.Jsonata.jsonata(expression, timeout=1000)
            self._module._register_sfn_jsonata_functions(compiled)
            compiled.register_lambda("eval", _no_eval)
            answer = compiled.evaluate(None, bindings)
            if answer is None and not self._module._jsonata_result_defined(expression, bindings):
                raise ValueError(f"The JSONata expression '{expression}' returned nothing (undefined).")
            return json.loads(json.dumps(answer))
        except Exception as problem:
            code = getattr(problem, "error", None)
            cause = f"{code}: {problem}" if isinstance(code, str) and code else str(problem)
            state = context.get("State", {}).get("Name")
            run = _current_run.get()
            if run is not None and state is not None:
                where = f"the state '{state}' (entered at the event id #{run.entered_event_id})"
                cause = f"An error occurred while executing {where}. {cause}"
                details = {"error": "States.QueryEvaluationError", "cause": cause[:CAUSE_CHARACTERS], "state": state}
                place = location(run.definition, state, expression)
                details |= {} if place is None else {"location": place}
                self.add_event(run.execution, "EvaluationFailed", {"evaluationFailedEventDetails": details})
            raise self._interpreter_error("States.QueryEvaluationError", cause) from problem

    def choice_matches(self, rule: Mapping[str, Any], value: Any, context: Mapping[str, Any]) -> bool:
        """Evaluate a choice's ``Condition``, which has to be a boolean.

        See https://docs.aws.amazon.com/step-functions/latest/dg/state-choice.html.
        """
        answer = self._module._jsonata_state_field(rule, "Condition", "boolean", value, context)
        return bool(answer)

    def assign(
        self,
        state: Mapping[str, Any],
        value: Any,
        context: dict[str, Any],
        result: Any = None,
        error_output: Any = None,
    ) -> None:
        """Evaluate all of ``Assign`` with the variables as they were, then set them.

        See https://docs.aws.amazon.com/step-functions/latest/dg/workflow-variables.html.
        """
        if self._module._state_query_language(state, context) != "JSONata" or "Assign" not in state:
            return
        values = {
            name: within_limit(
                self._module._apply_jsonata_template(template, value, context, result, error_output),
                f"The variable '{name}'",
            )
            for name, template in state["Assign"].items()
        }
        context["variables"].update(values)
        run = _current_run.get()
        if run is not None:
            run.assigned.update({name: compact(item) for name, item in values.items()})

    def add_event(
        self, execution: dict[str, Any], event_type: str, details: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Append an event to the history, and to the log if the state machine has one.

        Raises:
            HistoryFullError: it would be the last one, which is left to the end of the execution.
        """
        with self._lock:
            previous = len(execution["events"])
            is_last = previous >= HISTORY_EVENTS - 1 and not self._is_express(execution)
            if is_last and not event_type.startswith("Execution"):
                raise HistoryFullError
            event = {
                "id": previous + 1,
                # The first state follows no event, as the start does not: see the log in
                # https://github.com/aws-samples/masking-sensitive-express-step-functions.
                "previousEventId": 0 if previous == 1 and event_type.endswith("StateEntered") else previous,
                "type": event_type,
                "timestamp": self._module.now_iso(),
                **(details or {}),
            }
            execution["events"].append(event)
        self._endpoint.changed("stepfunctions")
        self._log(execution, event)
        return event

    def _is_express(self, execution: Mapping[str, Any]) -> bool:
        machine = self._module._state_machines.get(execution["stateMachineArn"])
        return bool(execution.get("sync")) or (machine is not None and machine["type"] == "EXPRESS")

    # -- Events, metrics and logs

    def publish_status(self, execution: Mapping[str, Any]) -> None:
        """Emit the metrics and the event of a change of status.

        See https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html.
        """
        status = execution["status"]
        dimensions = {"StateMachineArn": execution["stateMachineArn"]}
        started, stopped = epoch_milliseconds(execution["startDate"]), epoch_milliseconds(execution.get("stopDate"))
        if status != "RUNNING":
            self._metric(METRICS_BY_STATUS[status], 1, "Count", dimensions)
            if started is not None and stopped is not None:
                self._metric("ExecutionTime", stopped - started, "Milliseconds", dimensions)
        elif not execution.get("redriveCount"):
            self._metric("ExecutionsStarted", 1, "Count", dimensions)
        if self._is_express(execution):
            # Only standard workflows emit events.
            return
        output = execution.get("output") if status == "SUCCEEDED" else None
        detail = {
            "executionArn": execution["executionArn"],
            "stateMachineArn": execution["stateMachineArn"],
            "name": execution["name"],
            "status": status,
            "startDate": started,
            "stopDate": stopped,
            "input": execution["input"],
            "output": output,
            "inputDetails": {"included": True},
            "outputDetails": None if output is None else {"included": True},
            "stateMachineVersionArn": None,
            "stateMachineAliasArn": None,
            **self._redrive_fields(execution),
            "redriveDate": epoch_milliseconds(execution.get("redriveDate")),
            "error": execution.get("error"),
            "cause": execution.get("cause"),
        }
        if len(compact([detail["input"], output]).encode()) > EVENT_PAYLOAD_BYTES:
            detail |= {"input": None, "inputDetails": {"included": False}}
        if output is not None and len(compact(output).encode()) > EVENT_PAYLOAD_BYTES:
            detail |= {"output": None, "outputDetails": {"included": False}}
        self._endpoint.publish_event(
            "aws.states", "Step Functions Execution Status Change", detail, [execution["executionArn"]]
        )

    def _metric(self, name: str, value: float, unit: str, dimensions: Mapping[str, str]) -> None:
        self._endpoint.put_metric("AWS/States", name, value, unit, dimensions)

    def _log(self, execution: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        machine = self._module._state_machines.get(execution["stateMachineArn"])
        settings = (machine or {}).get("loggingConfiguration") or {}
        destinations = settings.get("destinations") or []
        if not destinations or not is_logged(event["type"], settings.get("level", "OFF")):
            return
        group = destinations[0]["cloudWatchLogsLogGroup"]["logGroupArn"].split(":log-group:")[-1].removesuffix(":*")
        name = execution["stateMachineArn"].rsplit(":", 1)[-1]
        started = datetime.fromisoformat(execution["startDate"])
        stream = f"states/{name}/{started:%Y-%m-%d-%H-%M}/{self._log_stream_id}"
        line = log_line(
            execution["executionArn"],
            execution.get("redriveCount", 0),
            event,
            bool(settings.get("includeExecutionData", False)),
        )
        self._log_lines.put((group, stream, epoch_milliseconds(event["timestamp"]) or 0, line))

    def write_logs(self, stopping: threading.Event) -> None:
        """Write queued log lines until the endpoint stops and none is left."""
        client = self._endpoint.client("logs")
        known: set[tuple[str, str]] = set()
        while True:
            try:
                lines = [self._log_lines.get(timeout=0.5)]
            except queue.Empty:
                if stopping.is_set():
                    return
                continue
            while not self._log_lines.empty():
                lines.append(self._log_lines.get_nowait())
            for group, stream in dict.fromkeys(line[:2] for line in lines):
                events = [{"timestamp": at, "message": text} for g, s, at, text in lines if (g, s) == (group, stream)]
                try:
                    if (group, stream) not in known:
                        _create_log_stream(client, group, stream)
                        known.add((group, stream))
                    client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
                except (ClientError, BotoCoreError) as problem:
                    # Delivery is best effort, on AWS too; the history has every event.
                    logger.warning(
                        "%d lines of the execution log were not written to %s: %s", len(events), group, problem
                    )

    # -- Start and stop of the endpoint

    def report_interrupted(self) -> None:
        """Tell of the executions that the endpoint's last stop ended; MiniStack has marked them as failed."""
        with self._endpoint.scope():
            for execution in list(self._module._executions.values()):
                last = execution["events"][-1]["type"]
                if execution.get("error") == "States.ServiceRestart" and last != "ExecutionFailed":
                    details = {"error": execution["error"], "cause": execution["cause"]}
                    self.add_event(execution, "ExecutionFailed", {"executionFailedEventDetails": details})
                    self.publish_status(execution)

    def stop(self) -> None:
        """End all walks where they are: a redrive goes on from there."""
        with self._lock:
            threads = list(self._threads.values())
            for run in self._runs.values():
                if not run.over.done():
                    run.over.set_result("ENDPOINT_STOPS")
        for thread in threads:
            thread.join(5.0)


def _error_and_cause(problem: Any) -> tuple[str, str]:
    return problem.error, problem.cause


def _not_truncated(name: str) -> dict[str, Any]:
    return {f"{name}Details": {"truncated": False}}


def _no_eval(*_arguments: Any) -> Any:
    raise ValueError("Attempted to invoke a non-function: $eval is not supported; use $parse")


def _create_log_stream(client: Any, group: str, stream: str) -> None:
    try:
        client.create_log_stream(logGroupName=group, logStreamName=stream)
    except client.exceptions.ResourceAlreadyExistsException:
        return


def install(endpoint: Endpoint) -> None:
    """Take over MiniStack's Step Functions."""
    from ministack.services import stepfunctions as module

    for name in (
        "_apply_catcher",
        "_apply_input_path",
        "_apply_jsonata_arguments",
        "_apply_jsonata_output",
        "_apply_jsonata_template",
        "_apply_output_path",
        "_apply_parameters",
        "_apply_result_path",
        "_apply_result_selector",
        "_execute_choice",
        "_execute_map",
        "_execute_parallel",
        "_execute_pass",
        "_execute_wait",
        "_executions",
        "_fail_state_error",
        "_find_matching_catcher",
        "_find_matching_retrier",
        "_jsonata_result_defined",
        "_jsonata_state_field",
        "_register_sfn_jsonata_functions",
        "_resolve_path_or_ctx",
        "_resolve_state_machine_arn",
        "_state_machines",
        "_state_query_language",
        "error_response_json",
        "json_response",
        "now_iso",
    ):
        seams.require(module, name)
    service = StepFunctions(endpoint, module, seams.require(module, "_ExecutionError"))

    original_create = seams.require(module, "_create_state_machine")
    original_update = seams.require(module, "_update_state_machine")
    original_start = seams.require(module, "_start_execution")
    original_stop = seams.require(module, "_stop_execution")
    original_describe = seams.require(module, "_describe_execution")
    original_list = seams.require(module, "_list_executions")
    original_handler = seams.require(module, "handle_request")

    async def handle_request(method: str, path: str, headers: Any, body: Any, query: Any) -> Any:
        if headers.get("x-amz-target", "").endswith(".RedriveExecution"):
            return module._finalize_response(service.redrive_execution(json.loads(body)))
        return await original_handler(method, path, headers, body, query)

    def refuse_direct_call(resource: str, _arguments: Any) -> Any:
        raise module._ExecutionError("States.Runtime", f"TestState needs a mock for {resource}")

    seams.require(module, "_finalize_response")
    seams.replace(module, "handle_request", handle_request)
    seams.replace(module, "_create_state_machine", lambda data: service.create_state_machine(data, original_create))
    seams.replace(module, "_update_state_machine", lambda data: service.update_state_machine(data, original_update))
    seams.replace(module, "_validate_state_machine_definition", service.validate_definition)
    # It is looked at in ``diagnostics``, in the states whose query language it is.
    seams.replace(module, "_validate_definition_jsonata", lambda _definition: None)
    seams.replace(module, "_start_execution", lambda data: service.start_execution(data, original_start))
    seams.replace(module, "_stop_execution", lambda data: service.stop_execution(data, original_stop))
    seams.replace(module, "_describe_execution", lambda data: service.describe_execution(data, original_describe))
    seams.replace(module, "_list_executions", lambda data: service.list_executions(data, original_list))
    seams.replace(module, "_run_execution", service.run_execution)
    seams.replace(module, "_execute_task", service.execute_task)
    seams.replace(module, "_invoke_resource", refuse_direct_call)
    seams.replace(module, "_error_matches", error_matches)
    seams.replace(module, "_scaled_sleep", service.sleep)
    seams.replace(module, "_sleep_until", service.sleep_until)
    seams.replace(module, "_evaluate_jsonata", service.evaluate)
    seams.replace(module, "_evaluate_jsonata_choice_rule", service.choice_matches)
    seams.replace(module, "_apply_state_assign", service.assign)
    seams.replace(module, "_add_event", service.add_event)
    seams.replace(module, "_emit_execution_status_event", service.publish_status)
    endpoint.start_worker("states-logs", service.write_logs)
    endpoint.on_ready(service.report_interrupted)
    endpoint.on_stop(service.stop)
