"""The project's own judge of the state machine: what neither asl-validator nor statelint knows.

``findings`` reads the definition as written, that is, with its ``${Name}``, so that it can also judge a changed copy.
Each finding begins with the rule that it breaks.
"""

import ast
import functools
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
from botocore.model import OperationModel, ServiceModel, Shape

from tests.contracts.shapes import STATES
from tests.contracts.shapes import findings as shape_findings
from tests.judging import Verdict
from tests.template import jsonata
from tests.template.expansion import DEFINITION, DEFINITION_SUBSTITUTIONS, expanded_template
from tests.template.resolution import resolve

STATE_MACHINE, ROLE = "PipelineStateMachine", "PipelineRole"
LONGEST_CRAWL_SECONDS = 1800
_API = "https://docs.aws.amazon.com/glue/latest/webapi"
_SUBSTITUTION = re.compile(r"\$\{(\w+)\}")
_SDK_ARN = re.compile(r"arn:aws:states:::aws-sdk:([a-z0-9]+):(\w+?)(\.waitForTaskToken)?")

# What a Task may be retried for, and who says that the integration fails by that name. An error of the API is
# Service.ExceptionName: https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html
KNOWN_ERRORS: dict[str, dict[str, str]] = {
    "glue": {
        "Glue.ConcurrentRunsExceededException": f"{_API}/API_StartJobRun.html",
        "Glue.CrawlerRunningException": f"{_API}/API_StartCrawler.html",
        "Glue.InternalServiceException": f"{_API}/API_StartJobRun.html",
        "Glue.OperationTimeoutException": f"{_API}/API_StartJobRun.html",
        "Glue.ResourceNumberLimitExceededException": f"{_API}/API_StartJobRun.html",
        "Glue.ThrottlingException": f"{_API}/CommonErrors.html",
        # How startJobRun.sync reports being throttled:
        "Glue.AWSGlueException": "https://repost.aws/knowledge-center/glue-throttling-rate-exceeded",
        # No answer at all; documented for Lambda, and of the SDK under every integration:
        "Glue.SdkClientException": "https://docs.aws.amazon.com/step-functions/latest/dg/bp-lambda-serviceexception.html",
    },
    "s3": {
        # Every error of S3 that the SDK's model of the operation does not name:
        "S3.S3Exception": "https://sdk.amazonaws.com/java/api/latest/software/amazon/awssdk/services/s3/model/S3Exception.html",
        "S3.SdkClientException": "https://docs.aws.amazon.com/step-functions/latest/dg/bp-lambda-serviceexception.html",
    },
    "lambda": {
        f"Lambda.{name}": "https://docs.aws.amazon.com/step-functions/latest/dg/bp-lambda-serviceexception.html"
        for name in (
            "AWSLambdaException",
            "ClientExecutionTimeoutException",
            "SdkClientException",
            "ServiceException",
            "TooManyRequestsException",
        )
    },
}

# https://docs.jsonata.org/string-functions and its neighbours, without $eval, and with those that Step Functions adds:
# https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html
JSONATA_FUNCTIONS = frozenset(
    re.findall(
        r"\w+",
        """
    string length substring substringBefore substringAfter uppercase lowercase trim pad contains split join match
    replace base64encode base64decode encodeUrlComponent encodeUrl decodeUrlComponent decodeUrl number abs floor ceil
    round power sqrt random formatNumber formatBase formatInteger parseInteger sum max min average boolean not exists
    count append sort reverse shuffle distinct zip keys lookup spread merge sift each error assert type now millis
    fromMillis toMillis map filter single reduce partition range hash uuid parse
    """,
    )
)
# https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html (the reserved variable)
STATES_FIELDS = frozenset({"input", "result", "errorOutput", "context"})


@dataclass(frozen=True)
class Optimised:
    """An optimised integration: the API call behind it, and what a state gets as its result.

    Attributes:
        service: as boto3 names it.
        action: name of the API operation.
        result: operation, and member of its output, that has the result's form.
        any_json: arguments, and members of the result, that hold JSON of any form.
    """

    service: str
    action: str
    result: tuple[str, str | None]
    any_json: frozenset[str] = frozenset()


OPTIMISED = {
    # "the output of the job run": https://docs.aws.amazon.com/step-functions/latest/dg/connect-glue.html
    "arn:aws:states:::glue:startJobRun.sync": Optimised("glue", "StartJobRun", ("GetJobRun", "JobRun")),
    # https://docs.aws.amazon.com/step-functions/latest/dg/connect-lambda.html
    "arn:aws:states:::lambda:invoke": Optimised("lambda", "Invoke", ("Invoke", None), frozenset({"Payload"})),
}
# What .sync does besides starting the job: https://docs.aws.amazon.com/step-functions/latest/dg/connect-glue.html
SYNC_ACTIONS = {"arn:aws:states:::glue:startJobRun.sync": {"glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun"}}
IAM_ACTIONS = {"arn:aws:states:::lambda:invoke": "lambda:InvokeFunction"}

States = Mapping[str, Mapping[str, Any]]


def judge_own_rules(work: Path) -> Verdict:
    """The project's own rules over the definition as written and the expanded template."""
    definition = json.loads(DEFINITION.read_text())
    return Verdict(f"{len(definition['States'])} states", findings(definition, expanded_template()))


def findings(definition: dict[str, Any], template: dict[str, Any] | None) -> list[str]:
    """Return what breaks a rule, a line each, beginning with the rule's name.

    Args:
        definition: the state machine as written, ``${Name}`` included.
        template: the expanded template; None leaves out the rules that compare the two.
    """
    found = list(_substitutions(definition, template))
    substituted = substitute(definition, DEFINITION_SUBSTITUTIONS)
    states: States = substituted["States"]
    if unjudged := [name for name, state in states.items() if state["Type"] in ("Map", "Parallel")]:
        return [*found, *(f"nesting: {name} holds states of its own, which are not judged here" for name in unjudged)]
    for rule in STATE_RULES:
        found += [f"{rule.__name__.strip('_')}: {line}" for name, state in states.items() for line in rule(name, state)]
    for graph_rule in GRAPH_RULES:
        found += [f"{graph_rule.__name__.strip('_')}: {line}" for line in graph_rule(substituted)]
    if template is not None:
        for template_rule in TEMPLATE_RULES:
            found += [f"{template_rule.__name__.strip('_')}: {line}" for line in template_rule(definition, template)]
    return list(dict.fromkeys(found))


def substitute(node: Any, values: Mapping[str, str]) -> Any:
    """Return the node with every ``${Name}`` replaced that has a value."""
    if isinstance(node, dict):
        return {key: substitute(item, values) for key, item in node.items()}
    if isinstance(node, list):
        return [substitute(item, values) for item in node]
    if isinstance(node, str):
        return _SUBSTITUTION.sub(lambda match: values.get(match[1], match[0]), node)
    return node


def _substitutions(definition: dict[str, Any], template: dict[str, Any] | None) -> Iterator[str]:
    asked = set(_SUBSTITUTION.findall(json.dumps(definition)))
    given = set(DEFINITION_SUBSTITUTIONS)
    if template is not None:
        given = set(template["Resources"][STATE_MACHINE]["Properties"]["DefinitionSubstitutions"])
    for name in sorted(asked ^ given):
        asks = "the definition asks for it, and it is not given" if name in asked else "nothing asks for it"
        yield f"substitutions: {name}: {asks}"


# --- the integrations -------------------------------------------------------------------------------------------------


@functools.cache
def _services() -> dict[str, str]:
    """The services by the name that AWS SDK integrations give them: the SDK's service id in lower case.

    https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html
    """
    # Reading all models would take minutes: only services whose name in the SDK differs need their id looked up.
    session = botocore.session.get_session()
    return {name.replace("-", ""): name for name in session.get_available_services()} | {
        "cloudwatchlogs": "logs",
        "eventbridge": "events",
        "sfn": "stepfunctions",
    }


@functools.cache
def _model(service: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(service)


@functools.cache
def _operation(service: str, name: str) -> OperationModel | None:
    model = _model(service)
    return model.operation_model(name) if name in model.operation_names else None


def operation_of(resource: str) -> OperationModel | None:
    """Return the API operation that an integration calls, None if it is no integration that AWS has."""
    if resource in OPTIMISED:
        return _operation(OPTIMISED[resource].service, OPTIMISED[resource].action)
    match = _SDK_ARN.fullmatch(resource)
    if match is None or match[1] not in _services() or not match[2][0].islower():
        return None
    service = _services()[match[1]]
    if _model(service).service_id.replace(" ", "").lower() != match[1]:
        return None
    return _operation(service, match[2][0].upper() + match[2][1:])


def _is_task(state: Mapping[str, Any]) -> bool:
    return bool(state["Type"] == "Task")


def _integration(name: str, state: Mapping[str, Any]) -> Iterator[str]:
    if _is_task(state) and operation_of(state["Resource"]) is None:
        yield f"{name}: {state['Resource']} is neither an AWS SDK integration nor a known optimised one"


def _arguments(name: str, state: Mapping[str, Any]) -> Iterator[str]:
    operation = operation_of(state["Resource"]) if _is_task(state) else None
    if operation is None:
        return
    arguments = state.get("Arguments", {})
    any_json = OPTIMISED[state["Resource"]].any_json if state["Resource"] in OPTIMISED else frozenset()
    if isinstance(arguments, dict):
        arguments = {key: value for key, value in arguments.items() if key not in any_json}
    shape = operation.input_shape
    for line in shape_findings(arguments, shape, STATES, "Arguments") if shape is not None else ():
        yield f"{name}: {line}"


def _result_shape(state: Mapping[str, Any]) -> Shape | None:
    resource = state["Resource"]
    if resource not in OPTIMISED:
        operation = operation_of(resource)
        return operation.output_shape if operation is not None else None
    optimised = OPTIMISED[resource]
    operation = _operation(optimised.service, optimised.result[0])
    shape: Any = operation.output_shape if operation is not None else None
    result: Shape | None = shape.members[optimised.result[1]] if optimised.result[1] is not None else shape
    return result


def _results(name: str, state: Mapping[str, Any]) -> Iterator[str]:
    if not _is_task(state) or operation_of(state["Resource"]) is None:
        return
    any_json = OPTIMISED[state["Resource"]].any_json if state["Resource"] in OPTIMISED else frozenset()
    for expression in jsonata.expressions([state.get("Assign"), state.get("Output")]):
        for path in jsonata.unknown_members(expression, _result_shape(state)):
            if not any(path.startswith(f"$states.result.{member}.") for member in any_json):
                yield f"{name}: the result has no {path}"


def _errors(name: str, state: Mapping[str, Any]) -> Iterator[str]:
    operation = operation_of(state["Resource"]) if _is_task(state) else None
    if operation is None:
        return
    known = KNOWN_ERRORS.get(operation.service_model.service_name, {})
    for retrier in state.get("Retry", []):
        for error in retrier["ErrorEquals"]:
            if error not in known:
                yield f"{name}: {error} is not on the list of errors that the integration can fail with"
    if not state.get("Retry"):
        yield f"{name}: nothing is retried"
    retried = {error for retrier in state.get("Retry", []) for error in retrier["ErrorEquals"]}
    if state["Resource"] == "arn:aws:states:::glue:startJobRun.sync" and "Glue.AWSGlueException" not in retried:
        yield f"{name}: Glue.AWSGlueException is not retried, the name under which .sync reports being throttled"


def _time_limits(name: str, state: Mapping[str, Any]) -> Iterator[str]:
    # A task without a limit waits for ever: https://docs.aws.amazon.com/step-functions/latest/dg/sfn-stuck-execution.html
    if _is_task(state) and not _seconds(state.get("TimeoutSeconds")):
        yield f"{name}: no TimeoutSeconds"


def _catches(name: str, state: Mapping[str, Any]) -> Iterator[str]:
    # Redrive goes on at the state that failed; a caught failure ends elsewhere:
    # https://docs.aws.amazon.com/step-functions/latest/dg/redrive-executions.html
    if "Catch" in state:
        yield f"{name}: has a Catch, so that redrive would not go on there"


def _functions(name: str, state: Mapping[str, Any]) -> Iterator[str]:
    for expression in jsonata.expressions(state):
        for function in sorted(jsonata.functions(expression) - JSONATA_FUNCTIONS):
            yield f"{name}: Step Functions has no function ${function}"


def _states_variable(name: str, state: Mapping[str, Any]) -> Iterator[str]:
    admitted = STATES_FIELDS - {"errorOutput"} if _is_task(state) else {"input", "context"}
    for field, part in state.items():
        # Only what is evaluated after the call knows its result.
        fields = admitted if field in ("Assign", "Output") else admitted - {"result"}
        for expression in jsonata.expressions(part):
            for unknown in sorted(jsonata.states_fields(expression) - fields):
                yield f"{name}: {field} of a {state['Type']} cannot read $states.{unknown}"


def _seconds(value: Any) -> float:
    """Return a number of seconds that is written as such, or as JSONata that only calculates; 0 for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if jsonata.is_expression(value) and re.fullmatch(r"[\d\s.+*/()-]+", value[2:-2]):
        return _calculated(ast.parse(value[2:-2].strip(), mode="eval").body)
    return 0


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _calculated(node: ast.expr) -> float:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        result: float = _OPERATORS[type(node.op)](_calculated(node.left), _calculated(node.right))
        return result
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    return 0


# --- the graph --------------------------------------------------------------------------------------------------------


def edges(state: Mapping[str, Any]) -> list[tuple[str, frozenset[str]]]:
    """Return where a state leads, with the variables that are assigned on the way."""
    own = frozenset(state.get("Assign", {}))
    ways = [(rule["Next"], frozenset(rule.get("Assign", {}))) for rule in state.get("Choices", [])]
    ways += [(state[field], own) for field in ("Next", "Default") if field in state]
    return ways


def _variables(definition: Mapping[str, Any]) -> Iterator[str]:
    """A variable that is read must have been assigned on every way to the state.

    A state's own Assign counts only from the next state on:
    https://docs.aws.amazon.com/step-functions/latest/dg/workflow-variables.html
    """
    states: States = definition["States"]
    everything = frozenset(name for state in states.values() for _, assigned in edges(state) for name in assigned)
    known = dict.fromkeys(states, everything) | {definition["StartAt"]: frozenset[str]()}
    changed = True
    while changed:
        changed = False
        for name, state in states.items():
            for target, assigned in edges(state):
                reached = known[target] & (known[name] | assigned) if target in known else frozenset()
                if target in known and reached != known[target]:
                    known[target], changed = reached, True
    for name, state in states.items():
        read = {variable for expression in jsonata.expressions(state) for variable in jsonata.variables(expression)}
        for variable in sorted(read - known[name] - {"states"}):
            yield f"{name}: ${variable} is not assigned on every way to it"


def _reachable(definition: Mapping[str, Any]) -> Iterator[str]:
    states: States = definition["States"]
    seen, left = set(), [definition["StartAt"]]
    while left:
        name = left.pop()
        if name in states and name not in seen:
            seen.add(name)
            left += [target for target, _ in edges(states[name])]
    ending = {name for name, state in states.items() if state["Type"] in ("Succeed", "Fail") or state.get("End")}
    while more := {
        name
        for name, state in states.items()
        if name not in ending and any(target in ending for target, _ in edges(state))
    }:
        ending |= more
    for name in states:
        for target, _ in edges(states[name]):
            if target not in states:
                yield f"{name}: leads to {target}, which is not there"
        if name not in seen:
            yield f"{name}: no way leads to it"
        if name not in ending:
            yield f"{name}: no way leads from it to an end"


def _polling(definition: Mapping[str, Any]) -> Iterator[str]:
    """A loop has to wait somewhere: in a Wait state, or in a task that waits for the end of a job.

    Every turn of a loop costs, and counts against the history's 25,000 events:
    https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
    """
    states: States = definition["States"]
    hasty = {
        name: [target for target, _ in edges(state)]
        for name, state in states.items()
        if state["Type"] != "Wait" and not state.get("Resource", "").endswith((".sync", ".waitForTaskToken"))
    }
    while leaves := [name for name, targets in hasty.items() if not any(target in hasty for target in targets)]:
        for name in leaves:
            del hasty[name]
    if looping := _on_a_loop(hasty):
        yield f"{', '.join(sorted(looping))}: a loop without a Wait"


def _on_a_loop(graph: Mapping[str, list[str]]) -> set[str]:
    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = list(graph[start])
        while left:
            name = left.pop()
            if name in graph and name not in seen:
                seen.add(name)
                left += graph[name]
        return seen

    return {name for name in graph if name in reached(name)}


# --- the template beside it -------------------------------------------------------------------------------------------


def _job_minutes(template: dict[str, Any]) -> list[str]:
    parameter = template["Parameters"]["JobTimeoutMinutes"]
    return [str(parameter[field]) for field in ("MinValue", "Default", "MaxValue")]


def _durations(definition: dict[str, Any], template: dict[str, Any]) -> Iterator[str]:
    """A task's limit exceeds that of what it runs, and the machine's that of all its tasks on the longest way."""
    for minutes in _job_minutes(template):
        resources = resolve(template, {"JobTimeoutMinutes": minutes})["Resources"].values()
        substituted = substitute(definition, {**DEFINITION_SUBSTITUTIONS, "JobTimeoutMinutes": minutes})
        # The job's limit is in minutes, the function's in seconds:
        # https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-glue-job.html
        # https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-function.html
        own_limits = {
            each["Properties"][field]: each["Properties"]["Timeout"] * unit
            for kind, field, unit in (("AWS::Glue::Job", "Name", 60), ("AWS::Lambda::Function", "FunctionName", 1))
            for each in resources
            if each["Type"] == kind
        }
        tasks = {name: state for name, state in substituted["States"].items() if state.get("Resource") in OPTIMISED}
        for name, state in tasks.items():
            called = state["Arguments"].get("JobName") or state["Arguments"].get("FunctionName", "")
            own = own_limits.get(called.rsplit(":", 1)[-1])
            if own is None:
                yield f"{name}: the template has no {called}"
            elif _seconds(state.get("TimeoutSeconds")) <= own:
                yield f"{name}: its limit does not exceed the {own} s of {called}"
        if (longest := _longest_way(substituted)) >= _seconds(substituted.get("TimeoutSeconds")):
            yield f"the machine's limit does not exceed its longest way, {longest:.0f} s"


def _longest_way(definition: Mapping[str, Any]) -> float:
    """Return the seconds of a wait for the job, then a load and an audit, each with all its crawls and its check."""
    text = json.dumps(definition)
    wait, crawls = (
        max((int(number) for number in re.findall(pattern, text)), default=0)
        for pattern in (r"\$waitedSeconds > (\d+)", r"\$crawls >= (\d+)")
    )
    tasks = sum(_seconds(state.get("TimeoutSeconds")) for state in definition["States"].values() if _is_task(state))
    return wait + 2 * (tasks + crawls * LONGEST_CRAWL_SECONDS)


def _permissions(definition: dict[str, Any], template: dict[str, Any]) -> Iterator[str]:
    statements = [
        statement["Fn::If"][1] if "Fn::If" in statement else statement
        for policy in template["Resources"][ROLE]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    actions = [statement["Action"] for statement in statements if statement["Effect"] == "Allow"]
    granted = {action for each in actions for action in ([each] if isinstance(each, str) else each)}
    for name, state in definition["States"].items():
        operation = operation_of(state["Resource"]) if _is_task(state) else None
        if operation is None:
            continue
        resource = state["Resource"]
        own = IAM_ACTIONS.get(resource, f"{operation.service_model.signing_name}:{operation.name}")
        for action in sorted(({own} | SYNC_ACTIONS.get(resource, set())) - granted):
            yield f"{name}: the machine's role is not granted {action}"


def _machine_limit(definition: Mapping[str, Any]) -> Iterator[str]:
    if not _seconds(definition.get("TimeoutSeconds")):
        yield "the machine has no TimeoutSeconds"


STATE_RULES: tuple[Callable[[str, Mapping[str, Any]], Iterator[str]], ...] = (
    _integration,
    _arguments,
    _results,
    _errors,
    _time_limits,
    _catches,
    _functions,
    _states_variable,
)
GRAPH_RULES: tuple[Callable[[Mapping[str, Any]], Iterator[str]], ...] = (
    _machine_limit,
    _variables,
    _reachable,
    _polling,
)
TEMPLATE_RULES: tuple[Callable[[dict[str, Any], dict[str, Any]], Iterator[str]], ...] = (_durations, _permissions)
