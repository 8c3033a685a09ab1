"""cfn-guard 3.1 over the resolved template: the rules of AWS Control Tower and the project's own.

The binary and Control Tower's rules come from the npm package of the CDK's validator
(https://github.com/cdklabs/cdk-validator-cfnguard). A Control Tower rule that the template breaks on purpose stands in
``guard_suppressions.toml`` with its argument; a suppression that nothing needs any more is a finding.
"""

import json
import platform
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.judging import JudgeUnavailableError, Verdict, node_modules, run
from tests.template import variants

HERE = Path(__file__).resolve().parent
OWN_RULES = HERE / "rules"
SUPPRESSIONS = HERE / "guard_suppressions.toml"
CONTROL_TOWER_RULES_AT_LEAST = 200
FIRST_VARIANTS = 2
ENCRYPTIONS = variants.FACTORS["Encryption"]
# Exit codes of `cfn-guard validate`: all rules hold, some do not; anything else is an error of its own.
# https://docs.aws.amazon.com/cfn-guard/latest/ug/cfn-guard-validate.html
HELD, BROKEN = 0, 19
_SUB_VARIABLE = re.compile(r"(\$\{[^!}][^}]*\})")


@dataclass(frozen=True)
class Outcome:
    """What the rules said of one document."""

    held: frozenset[str]
    broken: Mapping[str, "Broken"]

    @property
    def applied(self) -> frozenset[str]:
        """The rules that had something to judge."""
        return self.held | self.broken.keys()


@dataclass(frozen=True)
class Broken:
    """One rule that does not hold."""

    rule: str
    control: str
    resources: frozenset[str]


@dataclass(frozen=True)
class Suppression:
    """A Control Tower control that the template breaks on purpose."""

    control: str
    encryptions: tuple[str, ...]
    resources: frozenset[str]
    argument: str
    used: set[tuple[str, str]] = field(default_factory=set)


def package_directory() -> Path:
    """Return the installed npm package that holds the binary and Control Tower's rules."""
    return node_modules() / "@cdklabs" / "cdk-validator-cfnguard"


def binary() -> Path:
    """Return cfn-guard for this machine.

    Raises:
        JudgeUnavailableError: the package has none for it.
    """
    system = {"linux": "ubuntu", "darwin": "macos"}.get(sys.platform, sys.platform)
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    found = package_directory() / "bin" / system / machine / "cfn-guard"
    if not found.exists():
        raise JudgeUnavailableError(f"the cfn-guard package has no binary for {system} on {machine}")
    return found


def as_guard_reads(node: Any) -> Any:
    """Return the node with every ``Fn::Sub`` as the ``Fn::Join`` that it stands for: the rules know that form alone."""
    if isinstance(node, list):
        return [as_guard_reads(item) for item in node]
    if not isinstance(node, dict):
        return node
    if set(node) != {"Fn::Sub"}:
        return {key: as_guard_reads(value) for key, value in node.items()}
    text, variables = node["Fn::Sub"] if isinstance(node["Fn::Sub"], list) else (node["Fn::Sub"], {})
    return {"Fn::Join": ["", [_part(part, variables) for part in _SUB_VARIABLE.split(text) if part]]}


def _part(part: str, variables: Mapping[str, Any]) -> Any:
    if not _SUB_VARIABLE.fullmatch(part):
        return part.replace("${!", "${")
    name = part[2:-1]
    if name in variables:
        return as_guard_reads(variables[name])
    return {"Fn::GetAtt": name.split(".", 1)} if "." in name else {"Ref": name}


def document(overrides: Mapping[str, str]) -> dict[str, Any]:
    """Return the resolved template in the form that the rules read, with the pipe's window at its longest."""
    declared = variants.template()["Parameters"]
    longest_window = {"TriggerWindowSeconds": str(declared["TriggerWindowSeconds"]["MaxValue"])}
    resolved: dict[str, Any] = as_guard_reads(variants.resolved({**longest_window, **overrides}))
    return resolved | {"Parameters": declared}


def evaluate(rules: Path, documents: Mapping[str, Mapping[str, Any]], work: Path) -> dict[str, Outcome]:
    """Return each document's outcome under the rules of a file, or of all files in a directory.

    Raises:
        JudgeUnavailableError: cfn-guard failed, or said nothing of a document.
    """
    command = [str(binary()), "validate", "--structured", "--output-format", "json", "--show-summary", "none"]
    command += ["--rules", str(rules)]
    for name, content in documents.items():
        file = work / f"{name}.json"
        file.write_text(json.dumps(content))
        command += ["--data", str(file)]
    result = run(command)
    if result.returncode not in (HELD, BROKEN) or "rror" in result.stderr:
        raise JudgeUnavailableError(f"cfn-guard ended with {result.returncode}: {result.stderr[:2000]}")
    outcomes = {Path(report["name"]).stem: _outcome(report) for report in json.loads(result.stdout)}
    if silent := documents.keys() - outcomes.keys():
        raise JudgeUnavailableError(f"cfn-guard said nothing of {sorted(silent)}")
    return outcomes


def _outcome(report: Mapping[str, Any]) -> Outcome:
    broken = [_broken(entry["Rule"]) for entry in report["not_compliant"]]
    return Outcome(frozenset(report["compliant"]), {each.rule: each for each in broken})


def _broken(rule: Mapping[str, Any]) -> Broken:
    text = json.dumps(rule)
    control = re.search(r"\[(CT\.[A-Z0-9-]+\.PR\.\d+)\]", text)
    resources = re.findall(r'"path": "/Resources/(\w+)', text)
    return Broken(rule["name"], control[1] if control else rule["name"], frozenset(resources))


def rule_names(directory: Path) -> list[str]:
    """Return the names of all rules in the rule files of one directory, in order."""
    return [name for file in sorted(directory.glob("*.guard")) for name in rule_names_in(file)]


def rule_names_in(file: Path) -> list[str]:
    """Return the names of the rules in a file, in order."""
    return re.findall(r"^rule (\w+)", file.read_text(), flags=re.MULTILINE)


def judge_with_own_rules(work: Path) -> Verdict:
    """The project's own rules over every variant; a rule that never applies is a finding.

    What the first variants break is said at once: nearly always the other ones would say no more.
    """
    rows = variants.overrides()
    rules = rule_names(OWN_RULES)
    for count in (FIRST_VARIANTS, len(rows)):
        documents = {f"variant-{number:02}": document(row) for number, row in enumerate(rows[:count])}
        outcomes = evaluate(OWN_RULES, documents, work)
        findings = [
            f"{broken.rule}: {', '.join(sorted(broken.resources)) or 'the template'} with {rows[number]}"
            for number, name in enumerate(documents)
            for broken in outcomes[name].broken.values()
        ]
        if findings:
            break
    else:
        applied = {rule for outcome in outcomes.values() for rule in outcome.applied}
        findings = [f"{rule} applied to no variant" for rule in rules if rule not in applied]
    return Verdict(f"{len(rules)} rules by {len(documents)} variants", findings)


def suppressions() -> list[Suppression]:
    """Return what ``guard_suppressions.toml`` says."""
    return [
        Suppression(entry["control"], tuple(entry["encryptions"]), frozenset(entry["resources"]), entry["argument"])
        for entry in tomllib.loads(SUPPRESSIONS.read_text())["suppression"]
    ]


def judge_with_control_tower(work: Path) -> Verdict:
    """The controls of AWS Control Tower, for both kinds of encryption."""
    rules = package_directory() / "rules" / "control-tower" / "cfn-guard"
    files = sum(1 for _ in rules.rglob("*.guard"))
    if files < CONTROL_TOWER_RULES_AT_LEAST:
        raise JudgeUnavailableError(f"only {files} rule files of Control Tower are there")
    documents = {
        encryption: document({"Encryption": encryption, "NotificationEmail": "somebody@example.com"})
        for encryption in ENCRYPTIONS
    }
    outcomes = evaluate(rules, documents, work)
    findings = list(unsuppressed(outcomes, suppressions()))
    applied = {rule for outcome in outcomes.values() for rule in outcome.applied}
    return Verdict(f"{files} controls ({len(applied)} apply) by {len(documents)} encryptions", findings)


def unsuppressed(outcomes: Mapping[str, Outcome], allowed: list[Suppression]) -> Iterator[str]:
    """Yield a finding for each resource that breaks a control without an argument, and for each idle suppression."""
    for encryption, outcome in outcomes.items():
        for broken in outcome.broken.values():
            for resource in sorted(broken.resources) or [""]:
                matching = [
                    each
                    for each in allowed
                    if each.control == broken.control and encryption in each.encryptions and resource in each.resources
                ]
                for each in matching:
                    each.used.add((encryption, resource))
                if not matching:
                    yield f"{broken.control} ({broken.rule}): {resource or 'the template'} with {encryption}"
    for each in allowed:
        for encryption in each.encryptions:
            for resource in sorted(each.resources):
                if (encryption, resource) not in each.used:
                    yield f"the suppression of {each.control} for {resource} with {encryption} is not needed"
