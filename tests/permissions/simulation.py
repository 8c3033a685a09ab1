"""The judge of permissions: what the template's policies allow, against the contract, by an IAM simulator.

Judged for both values of the parameter Encryption:

* Every ``must`` is allowed, every ``never`` denied, and every ``may`` is granted at all.
* Whatever else is allowed is excess: every action that any statement grants is tried for every principal, on every
  resource of the template and on foreign ones, in every circumstance.
* Nothing is granted for nothing: without any one action on any one resource, a ``must`` fails (or a ``may``).
* Nothing forbids for nothing: without any one condition or denial, something becomes possible that must not be.

What this cannot see: whether the contract lists all that the services call. AWS's documents are its source.
"""

import fnmatch
import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from tests.judging import Verdict, beside_this_python, node_modules
from tests.permissions.contract import ANY_CONTEXT, ENCRYPTIONS, USUAL, Contract, Row
from tests.permissions.policies import Document, Policies, extract, granted_actions, grants, guards, service_principals
from tests.permissions.resolution import Stack
from tests.template.expansion import ACCOUNT_ID, expanded_template

SIMULATOR = Path(__file__).resolve().with_name("simulate.mjs")
STRANGERS_ACCOUNT_ID = "999999999999"
ALLOWED = "Allowed"

_ADMINISTRATOR = "administrator's policy"
_STRANGERS_OFFER = "policy of a stranger's resource"
_EVERYTHING: Document = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["*"], "Resource": ["*"]}],
}
# A stranger may open his own things to everybody, to get at ours.
_OFFER: Document = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": ["*"], "Resource": ["*"]}],
}
_FIXED = {_ADMINISTRATOR: _EVERYTHING, _STRANGERS_OFFER: _OFFER}
# Strangers hold an administrator's policy of their own, or an open resource policy would go unnoticed.
_OUTSIDERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "stranger": (f"arn:aws:iam::{STRANGERS_ACCOUNT_ID}:role/stranger", (_ADMINISTRATOR,)),
    "bystander": (f"arn:aws:iam::{ACCOUNT_ID}:role/bystander", ()),
    "anonymous": ("anonymous", ()),
}
_ADMINISTRATORS_ARN = f"arn:aws:iam::{ACCOUNT_ID}:role/administrator"
# The simulator's action data has no encryption context for most actions of KMS, so that it would drop the key and a
# condition on it would never hold. Under another name, in policies and requests alike, the same operators compare it.
_ENCRYPTION_CONTEXT = "kms:EncryptionContext:"
_STAND_IN = "aws:PrincipalTag/encryption-context-"
# What the simulator says when an action has nothing to do with a resource or with a condition key. A row that gets such
# an answer is wrong; among the many questions that no row asks, it is the expected answer to the pointless ones.
_POINTLESS = ('error: {"message":"no.resource.types"}', "error: context keys not used")


@dataclass(frozen=True)
class Question:
    """May a principal do something?"""

    who: str
    action: str
    resource: str
    context: str

    def __str__(self) -> str:
        return f"{self.who}: {self.action} on {self.resource} ({self.context})"


@dataclass
class Batch:
    """Questions for one process of the simulator."""

    contract: Contract
    documents: dict[str, Document] = field(default_factory=_FIXED.copy)
    questions: list[dict[str, Any]] = field(default_factory=list)

    def add(self, policies: Policies, variant: str, question: Question) -> int:
        """Add a question under some policies; return where its answer will stand."""
        principal, identity, variables = _principal(policies, question.who)
        owner = _owner(self.contract, question.resource)
        self.questions.append(
            {
                "principal": principal,
                "action": question.action,
                "resource": question.resource,
                "account": owner,
                "context": _with_stand_in(
                    {
                        "aws:SecureTransport": "true",
                        "aws:ResourceAccount": owner,
                        **variables,
                        **self.contract.contexts[question.context].variables,
                    }
                ),
                "identity": [self._keep(policies, variant, document_id) for document_id in identity],
                "resourcePolicy": self._keep(
                    policies,
                    variant,
                    _attached(policies, question.resource) if owner == ACCOUNT_ID else _STRANGERS_OFFER,
                ),
            }
        )
        return len(self.questions) - 1

    def _keep(self, policies: Policies, variant: str, document_id: str | None) -> str | None:
        if document_id is None or document_id in _FIXED:
            return document_id
        key = f"{variant}: {document_id}"
        if key not in self.documents:
            self.documents[key] = cast("Document", _with_stand_in(policies.documents[document_id]))
        return key

    def answers(self) -> list[str]:
        """Ask them all.

        Raises:
            RuntimeError: the simulator ended without answers.
        """
        return cast("list[str]", _node({"policies": self.documents, "questions": self.questions}))


def _node(job: dict[str, Any]) -> list[Any]:
    result = subprocess.run(
        [beside_this_python("node"), str(SIMULATOR), str(node_modules())],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"the IAM simulator ended with {result.returncode}:\n{result.stderr}")
    return cast("list[Any]", json.loads(result.stdout))


def _with_stand_in(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.replace(_ENCRYPTION_CONTEXT, _STAND_IN): _with_stand_in(item) for key, item in value.items()}
    return [_with_stand_in(item) for item in value] if isinstance(value, list) else value


def _principal(policies: Policies, who: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """Return the principal as the simulator names it, its identity policies, and what its requests say of it."""
    if who == "anonymous":
        return who, (), {}
    if who.endswith(".amazonaws.com"):
        return who, (), {"aws:PrincipalIsAWSService": "true", "aws:PrincipalServiceName": who}
    # For a role or managed policy: somebody to whom nothing but its documents are attached.
    ours = (f"arn:aws:iam::{ACCOUNT_ID}:role/{who}", policies.identity.get(who, ()))
    arn, identity = {**_OUTSIDERS, "administrator": (_ADMINISTRATORS_ARN, (_ADMINISTRATOR,))}.get(who, ours)
    return arn, identity, {"aws:PrincipalArn": arn, "aws:PrincipalAccount": arn.split(":")[4]}


def _owner(contract: Contract, resource: str) -> str:
    """The account that owns a resource; the ARN of a bucket does not say."""
    strangers = {contract.arns[name] for name in contract.tables["foreign_account"]}
    return STRANGERS_ACCOUNT_ID if resource in strangers else ACCOUNT_ID


def _attached(policies: Policies, resource: str) -> str | None:
    """The document that is attached to a resource, or to the bucket or function that it is in."""
    service = _service_of(resource)
    if service == "s3":
        resource = resource.split("/", 1)[0]
    elif service == "lambda":
        resource = ":".join(resource.split(":")[:7])
    return policies.on_resource.get(resource)


def _service_of(resource: str) -> str:
    return resource.split(":")[2] if resource != "*" else "*"


@dataclass
class Simulation:
    """Everything that is asked for one value of the parameter Encryption.

    Attributes:
        contract: the contract.
        encryption: the parameter's value.
        template: the expanded template.
        expansions: the actions behind each granted pattern, and whether they take no resource.
        batch: where the questions go.
    """

    contract: Contract
    encryption: str
    policies: Policies
    stack: Stack
    expansions: dict[str, list[tuple[str, bool]]]
    batch: Batch
    numbers: dict[Question, int] = field(default_factory=dict)
    removals: list[tuple[str, list[tuple[Row, int]]]] = field(default_factory=list)
    loosenings: list[tuple[str, list[tuple[Question, int]]]] = field(default_factory=list)

    @cached_property
    def rows(self) -> list[Row]:
        """The contract's rows, without the one that means everything."""
        return [row for row in self.contract.rows(self.encryption) if row.action != "*"]

    @cached_property
    def expected(self) -> set[Question]:
        """What may be allowed."""
        return {question for row in self.rows if row.demand != "never" for question in self._questions(row)}

    def _questions(self, row: Row) -> list[Question]:
        contexts = self._contexts(row.who, row.action) if row.context == ANY_CONTEXT else [row.context]
        return [Question(row.who, row.action, row.resource, context) for context in contexts]

    def _contexts(self, who: str, action: str) -> list[str]:
        """The circumstances in which an action of a principal is tried."""
        group = "service" if who.endswith(".amazonaws.com") else action.split(":", maxsplit=1)[0]
        named = [
            name
            for name, context in self.contract.contexts.items()
            if context.group == group and context.caller in {None, who}
        ]
        return named if group == "service" else [USUAL, *named]

    @cached_property
    def universe(self) -> list[str]:
        """Every resource: the contract's, whatever its rows ask about, and all that the template deploys."""
        arns = {*self.contract.universe, *(row.resource for row in self.rows), *self.policies.on_resource}
        for logical_id in self.stack.resources:
            arn = self.stack.arn_or_none(logical_id)
            if arn is not None:
                arns.add(arn.removesuffix("*") + "log-stream:one" if arn.endswith(":*") else arn)
        if self.encryption != "CustomerKey":
            arns.discard(self.contract.arns["key"])
        return sorted(arns - {"*"})

    def everything(self) -> Iterator[Question]:
        """Every action that any policy grants, for everybody, on everything, in every circumstance."""
        principals = [*self.policies.identity, *_OUTSIDERS, *service_principals(self.policies), "s3.amazonaws.com"]
        actions = sorted({expanded for pattern in self.expansions.values() for expanded in pattern})
        # An action that only a pattern like kms:* names is tried in one of the circumstances.
        named = {name for pattern, found in self.expansions.items() if pattern[-2:] != ":*" for name, _ in found}
        on_no_resource = {row.action for row in self.rows if row.resource == "*"}
        for action, takes_no_resource in actions:
            service = action.split(":")[0]
            resources = (
                ["*"]
                if takes_no_resource or action in on_no_resource
                else [arn for arn in self.universe if _service_of(arn) == ("iam" if service == "sts" else service)]
            )
            for who in principals:
                contexts = self._contexts(who, action)
                for resource in resources:
                    if self._could_reach(who, resource):
                        telling = action in named and self._may_depend_on_context(who, resource)
                        for context in contexts if telling else contexts[:1]:
                            yield Question(who, action, resource, context)

    def _may_depend_on_context(self, who: str, resource: str) -> bool:
        """Whether circumstances can matter: not to a service that the resource's policy does not name."""
        if not who.endswith(".amazonaws.com"):
            return True
        attached = self.policies.documents.get(_attached(self.policies, resource) or "", {"Statement": []})
        return any("Service" in statement["Principal"] for statement in attached["Statement"])

    def _could_reach(self, who: str, resource: str) -> bool:
        """Whether to ask: a stranger's things concern our identities only, a resource without a policy no service."""
        if who in self.policies.identity:
            return True
        if _owner(self.contract, resource) != ACCOUNT_ID:
            return False
        return not who.endswith(".amazonaws.com") or _attached(self.policies, resource) is not None

    def ask(self) -> None:
        """Put all questions into the batch."""
        asked = [question for row in self.rows for question in self._questions(row)]
        for question in dict.fromkeys([*asked, *self.everything()]):
            self.numbers[question] = self._add(self.policies, "", question)
        for number, grant in enumerate(grants(self.policies)):
            without = self.policies.with_document(grant.document_id, grant.document)
            matching = [
                (row, question)
                for row in self.rows
                if row.demand != "never" and _matches(grant.action, row.action)
                for question in self._questions(row)
                if self._concerns(grant.document_id, question)
            ]
            answers = [(row, self._add(without, f"without grant {number}", question)) for row, question in matching]
            self.removals.append((str(grant), answers))
        for number, guard in enumerate(guards(self.policies)):
            without = self.policies.with_document(guard.document_id, guard.document)
            concerned = [
                (question, self._add(without, f"without guard {number}", question))
                for question in self.numbers
                if question not in self.expected
                and any(_matches(pattern, question.action) for pattern in guard.actions)
                and self._concerns(guard.document_id, question)
            ]
            self.loosenings.append((f"{guard.document_id}, {guard.name}", concerned))

    def _add(self, policies: Policies, variant: str, question: Question) -> int:
        return self.batch.add(policies, f"{self.encryption} {variant}", question)

    def _concerns(self, document_id: str, question: Question) -> bool:
        return (
            document_id in self.policies.identity.get(question.who, ())
            or _attached(self.policies, question.resource) == document_id
        )

    def findings_of_the_contract(self, answers: Sequence[str]) -> Iterator[str]:
        """Compare what is allowed with what must, may and may never be."""
        for row in self.rows:
            given = [answers[self.numbers[question]] for question in self._questions(row)]
            if row.demand == "must" and given != [ALLOWED]:
                yield f"missing: {row} is {given[0]}; {row.because}"
            if row.demand == "may" and ALLOWED not in given:
                yield f"not granted, so not to be argued: {row} is {given[0]}"
            if row.demand == "never" and (given == [ALLOWED] or given[0].startswith("error")):
                yield f"open: {row} is {given[0]}; {row.because}"
        for question, number in self.numbers.items():
            answer = answers[number]
            if answer == ALLOWED and question not in self.expected:
                yield f"excess: {question} is allowed, and neither in must nor in may"
            if answer.startswith("error") and not answer.startswith(_POINTLESS):
                yield f"cannot be judged: {question}: {answer}"

    def findings_of_the_removals(self, answers: Sequence[str]) -> Iterator[str]:
        """A grant that can go without anything failing was granted for nothing."""
        for grant, questions in self.removals:
            if all(answers[number] == ALLOWED for _, number in questions):
                yield f"granted for nothing, or twice: {grant}"

    def proven_by_removal(self, answers: Sequence[str]) -> dict[str, list[str]]:
        """Return, for each grant, the ``must`` rows that fail without it."""
        return {
            grant: [str(row) for row, number in questions if row.demand == "must" and answers[number] != ALLOWED]
            for grant, questions in self.removals
        }

    def findings_of_the_loosenings(self, answers: Sequence[str]) -> Iterator[str]:
        """A condition or denial that can go without anything becoming possible is not tested by any row."""
        for guard, questions in self.loosenings:
            if all(answers[number] != ALLOWED for _, number in questions):
                yield f"forbids nothing that the contract asks about: {guard}"


def _matches(pattern: str, action: str) -> bool:
    return fnmatch.fnmatchcase(action.lower(), pattern.lower())


@dataclass(frozen=True)
class Judgement:
    """All simulations and their answers."""

    simulations: tuple[Simulation, ...]
    answers: tuple[str, ...]

    @property
    def findings(self) -> list[str]:
        """Everything that is wrong, a line each."""
        return [
            f"{simulation.encryption}: {finding}"
            for simulation in self.simulations
            for findings in (
                simulation.findings_of_the_contract,
                simulation.findings_of_the_removals,
                simulation.findings_of_the_loosenings,
            )
            for finding in findings(self.answers)
        ]


def simulate(template: dict[str, Any], contract: Contract, encryptions: Iterable[str] = ENCRYPTIONS) -> Judgement:
    """Judge a template's policies against a contract."""
    stacks = {encryption: Stack(template, {"Encryption": encryption}) for encryption in encryptions}
    policies = {encryption: extract(stack) for encryption, stack in stacks.items()}
    patterns = sorted({pattern for extracted in policies.values() for pattern in granted_actions(extracted)})
    expanded = dict(zip(patterns, _node({"expand": patterns}), strict=True))
    batch = Batch(contract)
    simulations = []
    for encryption, stack in stacks.items():
        granted = granted_actions(policies[encryption])
        expansions = {
            pattern: [(name, takes_no_resource) for name, takes_no_resource in expanded[pattern]] for pattern in granted
        }
        simulation = Simulation(contract, encryption, policies[encryption], stack, expansions, batch)
        simulation.ask()
        simulations.append(simulation)
    return Judgement(tuple(simulations), tuple(batch.answers()))


def judge(_work: Path) -> Verdict:
    """The template's policies of all kinds, against the contract.

    What is wrong with one encryption is told alone: nearly always the other would say it once more.
    """
    contract, template = Contract.load(), expanded_template()
    asked = 0
    findings: list[str] = []
    # The customer's key first: only then are there grants on it.
    for encryption in sorted(ENCRYPTIONS):
        judgement = simulate(template, contract, [encryption])
        asked += len(judgement.answers)
        findings = judgement.findings
        if findings:
            break
    return Verdict(f"{len(contract.all_rows)} rows by {asked} simulations", findings)
