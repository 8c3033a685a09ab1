"""The template as CloudFormation would see it for given parameter values.

Conditions are decided, what they exclude is removed, and parameters are replaced by their values. References to
resources and pseudo parameters stay. Known limits: ``Fn::Select``, ``Fn::FindInMap`` and ``Fn::ImportValue`` stay as
they are (the template has none over parameters).

The functions and their forms:
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PARAMETER_SECTIONS = ("Parameters", "Conditions", "Metadata", "Rules", "Globals")
_SUB_VARIABLE = re.compile(r"\$\{([^!}][^}]*)\}")
_NOTHING = object()


def parameter_values(template: Mapping[str, Any], overrides: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return each parameter's value: the override, else the default; a ``Number`` becomes an int or a float.

    Raises:
        KeyError: an override names no parameter, or a parameter has neither an override nor a default.
        ValueError: the parameter does not admit the value.
    """
    overrides = overrides or {}
    parameters = template["Parameters"]
    for name in overrides:
        if name not in parameters:
            raise KeyError(f"the template has no parameter {name}")
    return {name: _typed(name, declared, overrides) for name, declared in parameters.items()}


def _typed(name: str, declared: Mapping[str, Any], overrides: Mapping[str, str]) -> Any:
    value = overrides[name] if name in overrides else declared["Default"]
    if "AllowedValues" in declared and str(value) not in {str(allowed) for allowed in declared["AllowedValues"]}:
        raise ValueError(f"{name} does not admit {value!r}")
    if "AllowedPattern" in declared and not re.fullmatch(declared["AllowedPattern"], str(value)):
        raise ValueError(f"{name} does not admit {value!r}")
    if declared["Type"] != "Number":
        return str(value)
    number = float(value)
    if not declared.get("MinValue", number) <= number <= declared.get("MaxValue", number):
        raise ValueError(f"{name} does not admit {value!r}")
    return int(number) if number.is_integer() else number


def conditions(template: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, bool]:
    """Return the outcome of every condition of the template for these parameter values."""
    declared = template.get("Conditions", {})

    def decide(expression: Any) -> bool:
        ((function, argument),) = expression.items()
        match function:
            case "Condition":
                return decide(declared[argument])
            case "Fn::Equals":
                left, right = (_Resolver(values, {}).resolve(side) for side in argument)
                return str(left) == str(right)
            case "Fn::Not":
                return not decide(argument[0])
            case "Fn::And":
                return all(decide(each) for each in argument)
            case "Fn::Or":
                return any(decide(each) for each in argument)
        raise ValueError(f"{function} is no condition function")

    return {name: decide(expression) for name, expression in declared.items()}


def resolve(template: Mapping[str, Any], overrides: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the template for these parameter values, without parameters, conditions and what they exclude."""
    values = parameter_values(template, overrides)
    outcome = conditions(template, values)
    resolver = _Resolver(values, outcome)
    resolved = {name: section for name, section in template.items() if name not in PARAMETER_SECTIONS}
    for section in ("Resources", "Outputs"):
        kept = {
            name: {key: value for key, value in entry.items() if key != "Condition"}
            for name, entry in template.get(section, {}).items()
            if "Condition" not in entry or outcome[entry["Condition"]]
        }
        resolved[section] = resolver.resolve(kept)
    return resolved


class _Resolver:
    def __init__(self, values: Mapping[str, Any], outcome: Mapping[str, bool]) -> None:
        self._values = values
        self._outcome = outcome
        self._functions: Mapping[str, Callable[[Any], Any]] = {
            "Ref": self._ref,
            "Fn::If": self._if,
            "Fn::Join": self._join,
            "Fn::Split": self._split,
            "Fn::Sub": self._sub,
        }

    def resolve(self, node: Any) -> Any:
        if isinstance(node, list):
            items = [self.resolve(item) for item in node]
            return [item for item in items if item is not _NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((function, argument),) = node.items()
            if function in self._functions:
                return self._functions[function](argument)
        members = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in members.items() if value is not _NOTHING}

    def _ref(self, name: str) -> Any:
        return _NOTHING if name == "AWS::NoValue" else self._values.get(name, {"Ref": name})

    def _if(self, argument: Sequence[Any]) -> Any:
        condition, yes, no = argument
        return self.resolve(yes if self._outcome[condition] else no)

    def _split(self, argument: Any) -> Any:
        separator, text = self.resolve(argument)
        return text.split(separator) if isinstance(text, str) else {"Fn::Split": [separator, text]}

    def _join(self, argument: Any) -> Any:
        separator, parts = self.resolve(argument)
        literal = isinstance(parts, list) and all(isinstance(part, str) for part in parts)
        return separator.join(parts) if literal else {"Fn::Join": [separator, parts]}

    def _sub(self, argument: Any) -> Any:
        text, variables = (argument, {}) if isinstance(argument, str) else argument
        variables = self.resolve(variables)
        literals = {**self._values, **{name: value for name, value in variables.items() if not isinstance(value, dict)}}
        left = {name: value for name, value in variables.items() if isinstance(value, dict)}
        text = _SUB_VARIABLE.sub(lambda match: str(literals.get(match[1], match[0])), text)
        if left:
            return {"Fn::Sub": [text, left]}
        if _SUB_VARIABLE.search(text):
            return {"Fn::Sub": text}
        return text.replace("${!", "${")


def all_pairs(factors: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return rows with one value for each factor, such that any two values of two factors meet in some row.

    Greedy and deterministic: each row starts with a pair that has not met yet and takes for every other factor the
    value that brings most new pairs.
    """
    names = list(factors)
    missing: set[frozenset[tuple[str, str]]] = {
        frozenset({(left, left_value), (right, right_value)})
        for left, right in itertools.combinations(names, 2)
        for left_value in factors[left]
        for right_value in factors[right]
    }
    order = {pair: position for position, pair in enumerate(sorted(missing, key=sorted))}
    rows: list[dict[str, str]] = []
    while missing:
        first: frozenset[tuple[str, str]] = min(missing, key=lambda pair: order[pair])
        row = dict(first)
        for name in sorted(names, key=lambda factor: -len(factors[factor])):
            if name not in row:
                row[name] = max(
                    factors[name],
                    key=lambda value: sum(frozenset({(name, value), other}) in missing for other in row.items()),
                )
        missing -= {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}
        rows.append({name: row[name] for name in names})
    return rows
