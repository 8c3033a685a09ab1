"""The project's judge of the state machine: clean as it is, and each fault is reported by its rule and no other."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from jsonata import Jsonata

from tests.template import jsonata, statemachine
from tests.template.expansion import DEFINITION, expanded_template

Definition = dict[str, Any]
Fault = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def expanded() -> dict[str, Any]:
    return expanded_template()


@pytest.fixture
def definition() -> Definition:
    definition: Definition = json.loads(DEFINITION.read_text())
    return definition


def rules_that_report(found: list[str]) -> set[str]:
    return {line.split(":")[0] for line in found}


def retry(state: dict[str, Any], *errors: str) -> None:
    state["Retry"].append({"ErrorEquals": list(errors), "IntervalSeconds": 1, "MaxAttempts": 1, "BackoffRate": 1.0})


def test_the_state_machine_breaks_no_rule(tmp_path: Path) -> None:
    verdict = statemachine.judge_own_rules(tmp_path)
    assert verdict.findings == []
    assert int(verdict.judged.split()[0]) > 20


FAULTS: dict[str, tuple[str, Fault]] = {
    "an integration that Step Functions lacks": (
        "integration",
        lambda states: states["RunJob"].update(Resource="arn:aws:states:::glue:startJobsRun.sync"),
    ),
    "an action in PascalCase": (
        "integration",
        lambda states: states["LookAtCrawler"].update(Resource="arn:aws:states:::aws-sdk:glue:GetCrawler"),
    ),
    "boto3's name of a service": (
        "integration",
        lambda states: states["LookAtCrawler"].update(Resource="arn:aws:states:::aws-sdk:logs:getLogEvents"),
    ),
    "an action that the service lacks": (
        "integration",
        lambda states: states["LookAtCrawler"].update(Resource="arn:aws:states:::aws-sdk:glue:getCrawlerState"),
    ),
    "an SDK integration that should wait for the end": (
        "integration",
        lambda states: states["StartCrawler"].update(Resource="arn:aws:states:::aws-sdk:glue:startCrawler.sync"),
    ),
    "a region in the ARN": (
        "integration",
        lambda states: states["LookAtCrawler"].update(Resource="arn:aws:states:eu-west-1::aws-sdk:glue:getCrawler"),
    ),
    "an argument that the action lacks": (
        "arguments",
        lambda states: states["LookAtCrawler"]["Arguments"].update(CrawlerName="x"),
    ),
    "an argument in camelCase": (
        "arguments",
        lambda states: states["LookForRunningJob"]["Arguments"].update(nextToken="x"),
    ),
    "a required argument left out": (
        "arguments",
        lambda states: states["LookAtPartitions"]["Arguments"].pop("TableName"),
    ),
    "a literal beyond its range": (
        "arguments",
        lambda states: states["LookForRunningJob"]["Arguments"].update(MaxResults=2500),
    ),
    "a literal of another type, within an object": (
        "arguments",
        lambda states: states["RunJob"]["Arguments"]["Arguments"].update({"--MODE": 1}),
    ),
    "a literal that is no value of its enumeration": (
        "arguments",
        lambda states: states["RunJob"]["Arguments"].update(WorkerType="G.3X"),
    ),
    "a literal that does not match its pattern": (
        "arguments",
        lambda states: states["CheckWithAthena"]["Arguments"].update(Qualifier="a qualifier"),
    ),
    "an unknown member within a list": (
        "arguments",
        lambda states: states["LookAtPartitions"]["Arguments"].update(PartitionsToGet=[{"Value": ["2025"]}]),
    ),
    "a result's member in camelCase": (
        "results",
        lambda states: states["LookAtCrawler"]["Assign"].update(crawlerState="{% $states.result.Crawler.state %}"),
    ),
    "a member that only a run's list has, of a run": (
        "results",
        lambda states: states["RunJob"]["Assign"].update(jobRunId="{% $states.result.JobRun.Id %}"),
    ),
    "an unknown member in a filter": (
        "results",
        lambda states: states["LookForRunningJob"]["Assign"].update(
            jobIsBusy="{% $count($states.result.JobRuns[State = 'RUNNING']) > 0 %}"
        ),
    ),
    "an unknown member behind a filter": (
        "results",
        lambda states: states["LookForRunningJob"]["Assign"].update(
            jobIsBusy="{% $states.result.JobRuns[JobRunState = 'RUNNING'].JobRunId = 'x' %}"
        ),
    ),
    "a member of a text": (
        "results",
        lambda states: states["ReadRunSummary"]["Assign"].update(summary="{% $states.result.Body.counts %}"),
    ),
    "a member beside the payload": (
        "results",
        lambda states: states["CheckWithAthena"]["Assign"].update(checks="{% $states.result.Result.checks %}"),
    ),
    "an error that nobody reports by that name": (
        "errors",
        lambda states: retry(states["LookAtCrawler"], "Glue.ServiceException"),
    ),
    "an error of another service": (
        "errors",
        lambda states: retry(states["ReadRunSummary"], "Glue.ThrottlingException"),
    ),
    "every failure retried, so that failed jobs run again": (
        "errors",
        lambda states: retry(states["RunJob"], "States.TaskFailed"),
    ),
    "a task without Retry": ("errors", lambda states: states["StartCrawler"].pop("Retry")),
    "a job that is not started again when throttled": (
        "errors",
        lambda states: states["RunJob"]["Retry"][1]["ErrorEquals"].remove("Glue.AWSGlueException"),
    ),
    "a task without time limit": ("time_limits", lambda states: states["LookAtCrawler"].pop("TimeoutSeconds")),
    "a task that is caught": (
        "catches",
        lambda states: states["StartCrawler"].update(Catch=[{"ErrorEquals": ["States.ALL"], "Next": "CrawlFailed"}]),
    ),
    "a function that Step Functions lacks": (
        "functions",
        lambda states: states["ReadRunSummary"]["Assign"].update(summary="{% $eval($states.result.Body) %}"),
    ),
    "a result read before the call": (
        "states_variable",
        lambda states: states["LookAtCrawler"]["Arguments"].update(Name="{% $states.result.Crawler.Name %}"),
    ),
    "a result of a state that calls nothing": (
        "states_variable",
        lambda states: states["PlanAudit"]["Assign"].update(mode="{% $states.result.mode %}"),
    ),
    "a variable that is never assigned": (
        "variables",
        lambda states: states["Done"]["Output"].update(crawls="{% $crawl %}"),
    ),
    "a variable that one way does not assign": (
        "variables",
        lambda states: states["Done"]["Output"].update(last="{% $lastCrawl %}"),
    ),
    "a variable read in the state that assigns it": (
        "variables",
        lambda states: states["RunJob"].update(Output="{% $jobRunId %}"),
    ),
    "a state that no way leads to": (
        "reachable",
        lambda states: states["IsGapClosed"]["Choices"].pop(1),
    ),
    "a state that leads nowhere": (
        "reachable",
        lambda states: states["CheckInput"]["Choices"][0].update(Next="Nowhere") or states.pop("UnknownMode"),
    ),
    "a job that is looked for without a pause": (
        "polling",
        lambda states: states["WaitForJob"].update(Type="Pass", Output=states["WaitForJob"].pop("Seconds")),
    ),
    "a crawler that is looked at without a pause": (
        "polling",
        lambda states: states["WaitForCrawler"].update(Type="Pass", Output=states["WaitForCrawler"].pop("Seconds")),
    ),
    "a time limit below the job's own": (
        "durations",
        lambda states: states["RunJob"].update(TimeoutSeconds="{% ${JobTimeoutMinutes} * 60 %}"),
    ),
    "a fixed time limit, below that of the longest job": (
        "durations",
        lambda states: states["RunJob"].update(TimeoutSeconds=4500, Comment="${JobTimeoutMinutes}"),
    ),
    "a time limit below the function's own": (
        "durations",
        lambda states: states["CheckWithAthena"].update(TimeoutSeconds=300),
    ),
    "a wait that outlives the machine": (
        "durations",
        lambda states: states["IsJobFree"]["Choices"][1].update(
            Condition="{% $jobIsBusy and $waitedSeconds > 86400 %}"
        ),
    ),
    "an action that the role is not granted": (
        "permissions",
        lambda states: (
            states["LookAtCrawler"].update(Resource="arn:aws:states:::aws-sdk:glue:getTable")
            or states["LookAtCrawler"].update(
                Arguments={"DatabaseName": "${DatabaseName}", "Name": "${CrawlerName}"},
                Assign={"crawlerState": "READY", "lastCrawl": "{% $states.result.Table.Name %}"},
            )
        ),
    ),
    "a name that the template does not give": (
        "substitutions",
        lambda states: states["CrawlFailed"].update(Cause="${StackName}"),
    ),
    "a state with states of its own": ("nesting", lambda states: states["PlanAudit"].update(Type="Parallel")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_reported_by_its_rule_alone(name: str, definition: Definition, expanded: dict[str, Any]) -> None:
    # GIVEN
    rule, plant = FAULTS[name]
    plant(definition["States"])

    # WHEN
    found = statemachine.findings(definition, expanded)

    # THEN
    assert rules_that_report(found) == {rule}, found


@pytest.mark.parametrize(
    ("limit", "rule"), [(None, {"machine_limit", "durations"}), (28_800, {"durations"})]
)  # fmt: skip
def test_the_machine_needs_a_limit_that_its_longest_way_fits_in(
    limit: int | None, rule: set[str], definition: Definition, expanded: dict[str, Any]
) -> None:
    # GIVEN
    definition["TimeoutSeconds"] = limit

    # WHEN / THEN
    assert rules_that_report(statemachine.findings(definition, expanded)) == rule


def test_a_value_of_the_template_that_nothing_asks_for_is_reported(
    definition: Definition, expanded: dict[str, Any]
) -> None:
    # GIVEN
    template = copy.deepcopy(expanded)
    template["Resources"][statemachine.STATE_MACHINE]["Properties"]["DefinitionSubstitutions"]["Extra"] = "x"

    # WHEN / THEN
    assert statemachine.findings(definition, template) == ["substitutions: Extra: nothing asks for it"]


@pytest.mark.parametrize(
    ("given", "next_state"),
    [
        ({}, "LookForRunningJob"),
        ({"trigger": "schedule"}, "LookForRunningJob"),
        ([{"key": "raw_data/a.gz", "size": 1}], "LookForRunningJob"),
        ({"mode": "load"}, "LookForRunningJob"),
        ({"mode": "audit"}, "LookForRunningJob"),
        ({"mode": "audit", "days": []}, "LookForRunningJob"),
        ({"mode": "audit", "days": ["2026-11-20"]}, "LookForRunningJob"),
        ({"mode": "audit", "days": ["2026-11-20", "2026-12-31"]}, "LookForRunningJob"),
        ({"mode": "check"}, "LookForRunningJob"),
        ({"mode": "check", "days": ["2026-11-20"]}, "LookForRunningJob"),
        ({"mode": "check", "days": ["yesterday"]}, "UnusableDays"),
        ({"mode": "compact"}, "UnknownMode"),
        ({"days": ["2026-11-20"]}, "UnusableDays"),
        ({"mode": "load", "days": ["2026-11-20"]}, "UnusableDays"),
        ({"mode": "audit", "days": "2026-11-20"}, "UnusableDays"),
        ({"mode": "audit", "days": ["2026-11-20", "20261120"]}, "UnusableDays"),
        ({"mode": "audit", "days": ["2026-13-01"]}, "UnusableDays"),
        ({"mode": "audit", "days": ["2026-11-32"]}, "UnusableDays"),
        ({"mode": "audit", "days": [20261120]}, "UnusableDays"),
        ({"mode": "audit", "days": [["2026-11-20"]]}, "UnusableDays"),
        ({"mode": "audit", "days": {"first": "2026-11-20"}}, "UnusableDays"),
    ],
)
def test_an_input_is_followed_or_refused_for_what_is_wrong_with_it(
    given: Any, next_state: str, definition: Definition
) -> None:
    # GIVEN the state that looks at the input, and JSONata's reference engine in Python
    check = definition["States"]["CheckInput"]

    # WHEN
    outcomes = [
        Jsonata.jsonata(choice["Condition"][2:-2]).evaluate(None, {"states": {"input": given}})
        for choice in check["Choices"]
    ]

    # THEN a condition is true or false, as Step Functions asks of it, and the first true one decides
    assert {type(outcome) for outcome in outcomes} == {bool}
    chosen = [choice["Next"] for choice, outcome in zip(check["Choices"], outcomes, strict=True) if outcome]
    assert [*chosen, check["Default"]][0] == next_state


@pytest.mark.parametrize(
    ("variables", "next_state"),
    [
        ({"mode": "load", "auditFollows": False, "checkFollows": False}, "Done"),
        ({"mode": "load", "auditFollows": True, "checkFollows": False}, "PlanAudit"),
        ({"mode": "audit", "auditFollows": True, "checkFollows": False}, "Done"),
        ({"mode": "load", "auditFollows": False, "checkFollows": True}, "CheckDays"),
    ],
)
def test_a_load_is_followed_by_what_the_input_asked_for(
    variables: dict[str, Any], next_state: str, definition: Definition
) -> None:
    # GIVEN
    choice = definition["States"]["WhatFollows"]

    # WHEN
    outcomes = [Jsonata.jsonata(each["Condition"][2:-2]).evaluate(variables, variables) for each in choice["Choices"]]

    # THEN
    chosen = [each["Next"] for each, outcome in zip(choice["Choices"], outcomes, strict=True) if outcome]
    assert [*chosen, choice["Default"]][0] == next_state


@pytest.mark.parametrize(("mode", "days_of_the_job"), [("audit", '["2026-11-20"]'), ("check", "[]"), ("load", "[]")])
def test_the_job_is_given_the_days_of_an_audit_alone(mode: str, days_of_the_job: str, definition: Definition) -> None:
    # GIVEN an input with days; those of a check are days of the table, of which the job knows nothing
    given = {"mode": mode, "days": ["2026-11-20"]}
    states = {"input": given, "context": {"Execution": {"StartTime": "2026-11-21T03:00:00Z"}}}

    # WHEN
    plan = definition["States"]["Plan"]["Assign"]
    variables = {
        name: Jsonata.jsonata(plan[name][2:-2]).evaluate(None, {"states": states}) for name in ("auditFollows", "days")
    }
    arguments = definition["States"]["RunJob"]["Arguments"]["Arguments"]

    # THEN
    assert Jsonata.jsonata(arguments["--DAYS"][2:-2]).evaluate(None, variables) == days_of_the_job


@pytest.mark.parametrize(
    ("execution", "waited_seconds", "next_state"),
    [
        ({}, 32_400, "JobStillBusy"),
        ({"RedriveTime": "2026-10-15T11:59:00.000Z"}, 60, "WaitForJob"),
        ({"RedriveTime": "2026-10-15T03:59:59.000Z"}, 28_801, "JobStillBusy"),
    ],
)
def test_who_redrives_an_execution_waits_anew_for_a_job_that_is_at_work(
    execution: dict[str, str], waited_seconds: int, next_state: str, definition: Definition
) -> None:
    # GIVEN an execution of nine hours ago, and a run at work
    look, choice = definition["States"]["LookForRunningJob"], definition["States"]["IsJobFree"]
    started = Jsonata.jsonata("$toMillis('2026-10-15T03:00:00.000Z')").evaluate(None)
    variables = {"startedAtMillis": started, "mode": "audit", "auditFollows": True, "checkFollows": False}
    context = {"State": {"EnteredTime": "2026-10-15T12:00:00.000Z"}, "Execution": execution}
    result = {"JobRuns": [{"JobRunState": "RUNNING"}]}

    # WHEN
    for name, expression in look["Assign"].items():
        states = {"context": context, "result": result}
        variables[name] = Jsonata.jsonata(expression[2:-2]).evaluate(None, {**variables, "states": states})
    outcomes = [Jsonata.jsonata(each["Condition"][2:-2]).evaluate(None, variables) for each in choice["Choices"]]

    # THEN
    assert variables["waitedSeconds"] == waited_seconds
    chosen = [each["Next"] for each, outcome in zip(choice["Choices"], outcomes, strict=True) if outcome]
    assert chosen[0] == next_state


def test_refused_days_are_named_with_what_to_do(definition: Definition) -> None:
    # GIVEN / WHEN
    cause = definition["States"]["UnusableDays"]["Cause"]
    text = Jsonata.jsonata(cause[2:-2]).evaluate(None, {"states": {"input": {"mode": "audit", "days": "2026"}}})

    # THEN
    assert "these are not: 2026. Start again with" in text


def test_every_rule_has_a_fault_that_shows_it_at_work() -> None:
    rules = (*statemachine.STATE_RULES, *statemachine.GRAPH_RULES, *statemachine.TEMPLATE_RULES)
    names = {rule.__name__.strip("_") for rule in rules}
    assert names - {rule for rule, _ in FAULTS.values()} == {"machine_limit"}


def test_without_a_template_the_definition_alone_is_judged(definition: Definition) -> None:
    assert statemachine.findings(definition, None) == []


def test_the_list_of_errors_is_of_the_services_or_has_a_source_of_its_own() -> None:
    # GIVEN the names on the list that the API itself has, by the services' models
    for service, errors in statemachine.KNOWN_ERRORS.items():
        model = botocore.session.get_session().get_service_model(service)
        modelled = {f"{model.service_id}.{shape.name}" for shape in model.error_shapes}

        # THEN all others are what the SDKs, not the services, call a failure
        assert {error.split(".")[1] for error in errors if error not in modelled} <= {
            "AWSGlueException",
            "AWSLambdaException",
            "ClientExecutionTimeoutException",
            "S3Exception",
            "SdkClientException",
        }
        assert all(source.startswith("https://") for source in errors.values())


@pytest.mark.parametrize(
    ("expression", "read", "called"),
    [
        ("$a + $count($b.c)", {"a", "b"}, {"count"}),
        ("($x := $a; $x + $y)", {"a", "y"}, set()),
        ("$map($a, function($item, $index) { $item.n + $index + $b })", {"a", "b"}, {"map"}),
        ("'$a' & \"$b\" & $c.`$d` /* $e */", {"c"}, set()),
        ("$states.input[$ > 1].($$.x)", {"states"}, set()),
    ],
)
def test_the_variables_and_functions_of_an_expression(expression: str, read: set[str], called: set[str]) -> None:
    assert jsonata.variables(expression) == read
    assert jsonata.functions(expression) == called
