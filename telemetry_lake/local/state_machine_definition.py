"""What is wrong with a state machine's definition in the Amazon States Language.

AWS looks at the syntax of a definition when a state machine is created or updated, and when it is asked to
(https://docs.aws.amazon.com/step-functions/latest/apireference/API_ValidateStateMachineDefinition.html).

Known deviations from AWS:

* Of AWS's checks there are those of JSON, the fields that a workflow, state or choice has to have, types of states, the
  targets of transitions, states that nothing leads to, a state that ends the workflow, the length of states' names, and
  the syntax of JSONata. Fields that a type of state does not have, fields of another query language, comparisons of
  choices, JSONPath, retriers and doubled names of states are not looked at, and there are no warnings.
* Of a Task's ``Resource`` it is checked that it is an ARN; what is not integrated here fails the execution.
* The codes are AWS's; the texts are partly this project's. AWS asks not to rely on order, count or wording.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# https://docs.aws.amazon.com/step-functions/latest/dg/workflow-states.html
REQUIRED_FIELDS: Mapping[str, tuple[str, ...]] = {
    "Choice": ("Choices",),
    "Fail": (),
    "Map": ("ItemProcessor",),
    "Parallel": ("Branches",),
    "Pass": (),
    "Succeed": (),
    "Task": ("Resource",),
    "Wait": (),
}
WITHOUT_END = ("Choice", "Fail", "Succeed")
TERMINAL = ("Fail", "Succeed")
NESTING = ("Branches", "ItemProcessor", "Iterator")
# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
STATE_NAME_CHARACTERS = 80


@dataclass(frozen=True)
class Diagnostic:
    """One finding, by the codes of https://docs.aws.amazon.com/goto/WebAPI/states-2016-11-23/ValidateStateMachineDefinitionDiagnostic."""

    code: str
    message: str
    location: str | None = None

    def __str__(self) -> str:
        """Return it as the message of InvalidDefinition has it."""
        return f"{self.code}: {self.message}" + ("" if self.location is None else f" at {self.location}")

    def document(self) -> dict[str, str]:
        """Return it as ValidateStateMachineDefinition has it."""
        place = {} if self.location is None else {"location": self.location}
        return {"severity": "ERROR", "code": self.code, "message": self.message, **place}


def diagnostics(text: str) -> list[Diagnostic]:
    """Return what is wrong with a definition: nothing, if a state machine can be made of it.

    See https://docs.aws.amazon.com/step-functions/latest/apireference/API_ValidateStateMachineDefinitionDiagnostic.html.
    """
    if not text.strip():
        return [Diagnostic("MISSING_DESCRIPTION", "There is no definition")]
    try:
        definition = json.loads(text)
    except ValueError as problem:
        return [Diagnostic("INVALID_JSON_DESCRIPTION", str(problem))]
    found = list(_of_workflow(definition, "", "JSONPath"))
    if _is_workflow(definition) and not any(map(_is_terminal, definition["States"].values())):
        found.append(Diagnostic("MISSING_END_STATE", "Workflow has no terminal state"))
    return found


def refusal(text: str) -> str | None:
    """Return what InvalidDefinition says of a definition, None if a state machine can be made of it."""
    found = ", ".join(str(diagnostic) for diagnostic in diagnostics(text))
    return f"Invalid State Machine Definition: '{found}'" if found else None


def expressions(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of every JSONata expression of a state, for example ``Choices[0]/Condition``.

    The states of workflows that a state has in it are left out.
    """
    yield from _expressions_in({name: value for name, value in state.items() if name not in NESTING}, "")


def location(workflow: Mapping[str, Any], state_name: str, expression: str) -> str | None:
    """Return the place of an expression in a state of a sound workflow, None if it is not in one place alone."""
    states = [state for name, state in _all_states(workflow) if name == state_name]
    places = [place for state in states for place, text in expressions(state) if text == expression]
    return places[0] if len(places) == 1 else None


def _all_states(workflow: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, state in workflow["States"].items():
        yield name, state
        for _, nested in _nested_workflows(state):
            yield from _all_states(nested)


def _expressions_in(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _expressions_in(item, f"{path}/{name}".lstrip("/"))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _expressions_in(item, f"{path}[{index}]")
    elif isinstance(value, str) and value.startswith("{%") and value.endswith("%}"):
        yield path, value[2:-2].strip()


def _nested_workflows(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in NESTING:
        if isinstance(state.get(name), list):
            yield from ((f"{name}[{index}]", branch) for index, branch in enumerate(state[name]))
        elif name in state:
            yield name, state[name]


def _of_workflow(workflow: Any, path: str, language: Any) -> Iterator[Diagnostic]:
    if not _is_workflow(workflow):
        missing = [name for name in ("StartAt", "States") if not isinstance(workflow, dict) or name not in workflow]
        yield _missing(missing, path) if missing else _malformed("StartAt has to be a name, States to be objects", path)
        return
    states = workflow["States"]
    language = workflow.get("QueryLanguage", language)
    transitions = [(f"{path}/StartAt", workflow["StartAt"])]
    for name, state in states.items():
        transitions += [(f"{path}/States/{name}/{place}", target) for place, target in _transitions(state)]
    for place, target in transitions:
        if target not in states:
            yield Diagnostic("MISSING_TRANSITION_TARGET", f"Missing 'Next' target: {target}", place)
    targets = {target for _, target in transitions}
    for name, state in states.items():
        place = f"{path}/States/{name}"
        if name not in targets:
            yield Diagnostic("MISSING_TRANSITION_TARGET", f'State "{name}" is not reachable.', place)
        if len(name) > STATE_NAME_CHARACTERS:
            text = f"State '{name}' exceeds the {STATE_NAME_CHARACTERS}-character limit allowed by the service"
            yield Diagnostic("INVALID_STATE_NAME", f"Invalid State name: {text}", place)
        yield from _of_state(state, place, language)


def _of_state(state: Mapping[str, Any], path: str, language: Any) -> Iterator[Diagnostic]:
    kind = state.get("Type")
    if kind not in tuple(REQUIRED_FIELDS):
        yield _malformed(f"Unknown type of state: {kind}", f"{path}/Type") if kind else _missing(["Type"], path)
        return
    if kind not in WITHOUT_END and isinstance(state.get("Next"), str) == (state.get("End") is True):
        yield _malformed("This object should have only one of the following fields: [Next, End]", path)
    known = {*state, *(("ItemProcessor",) if "Iterator" in state else ())}  # its name of old
    missing = [name for name in REQUIRED_FIELDS[kind] if name not in known]
    if missing:
        yield _missing(missing, path)
    if kind == "Task" and not str(state.get("Resource", "arn:")).startswith("arn:"):
        yield _malformed("Value is not a valid resource ARN", f"{path}/Resource")
    if kind == "Choice":
        for index, rule in enumerate(_objects(state.get("Choices"))):
            if "Next" not in rule:
                yield _missing(["Next"], f"{path}/Choices[{index}]")
    if state.get("QueryLanguage", language) == "JSONata":
        yield from _of_expressions(state, path)
    for place, workflow in _nested_workflows(state):
        yield from _of_workflow(workflow, f"{path}/{place}", language)


def _of_expressions(state: Mapping[str, Any], path: str) -> Iterator[Diagnostic]:
    import jsonata

    for place, expression in expressions(state):
        try:
            jsonata.Jsonata.jsonata(expression)
        except jsonata.JException as problem:
            yield Diagnostic("INVALID_JSONATA_EXPRESSION", str(problem), f"{path}/{place}")


def _transitions(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    candidates = [("Next", state.get("Next")), ("Default", state.get("Default"))]
    for name in ("Choices", "Catch"):
        for index, rule in enumerate(_objects(state.get(name))):
            candidates.append((f"{name}[{index}]/Next", rule.get("Next")))
    return ((place, target) for place, target in candidates if isinstance(target, str))


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _is_workflow(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("StartAt"), str):
        return False
    states = value.get("States")
    return isinstance(states, dict) and all(isinstance(state, dict) for state in states.values())


def _is_terminal(state: Mapping[str, Any]) -> bool:
    return state.get("End") is True or state.get("Type") in TERMINAL


def _missing(names: list[str], path: str) -> Diagnostic:
    return _malformed(f"These fields are required: [{', '.join(names)}]", path)


def _malformed(message: str, path: str) -> Diagnostic:
    return Diagnostic("SCHEMA_VALIDATION_FAILED", message, path or "/")
