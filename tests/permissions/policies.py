"""Every policy of the deployed template, of all kinds: identity, trust, bucket, key, queue, topic, function."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tests.permissions.resolution import Stack

Document = dict[str, Any]

# Where each type of resource has its document, and which property names what it is attached to; None for itself.
_POLICIES_OF_RESOURCES: Mapping[str, tuple[str, str | None]] = {
    "AWS::KMS::Key": ("KeyPolicy", None),
    "AWS::S3::BucketPolicy": ("PolicyDocument", "Bucket"),
    "AWS::SNS::TopicPolicy": ("PolicyDocument", "Topics"),
    "AWS::SQS::QueuePolicy": ("PolicyDocument", "Queues"),
}
# Properties that are called policies and grant nothing.
_NO_POLICIES = frozenset({"RecrawlPolicy", "RedrivePolicy", "SchemaChangePolicy"})


@dataclass(frozen=True)
class Policies:
    """What a stack grants.

    Attributes:
        documents: policy documents by an id that says where each stands in the template.
        identity: ids of the documents of each role and each managed policy, by logical id.
        on_resource: id of the document that is attached to a resource, by its ARN; a role's is its trust policy.
    """

    documents: Mapping[str, Document]
    identity: Mapping[str, tuple[str, ...]]
    on_resource: Mapping[str, str]

    def with_document(self, document_id: str, document: Document) -> "Policies":
        """Return the same with one document replaced."""
        return Policies({**self.documents, document_id: document}, self.identity, self.on_resource)


@dataclass(frozen=True)
class Grant:
    """The smallest thing that can be removed: one action on one resource of one statement that allows.

    Attributes:
        document_id: the document.
        statement: index of the statement.
        action: the action or pattern, as written.
        resource: the resource or pattern, as written; None in a trust policy.
        document: the document without the grant.
    """

    document_id: str
    statement: int
    action: str
    resource: str | None
    document: Document

    def __str__(self) -> str:
        return f"{self.document_id}, statement {self.statement}: {self.action} on {self.resource or 'the role'}"


@dataclass(frozen=True)
class Guard:
    """Something that forbids: a condition of a statement that allows, or a statement that denies.

    Attributes:
        document_id: the document.
        name: what was removed.
        actions: the actions and patterns of its statement.
        document: the document without it.
    """

    document_id: str
    name: str
    actions: tuple[str, ...]
    document: Document


def extract(stack: Stack) -> Policies:
    """Return all policies of a stack, resolved.

    Raises:
        ValueError: the template has a policy of a kind that the simulation does not read.
    """
    documents: dict[str, Document] = {}
    identity: dict[str, tuple[str, ...]] = {}
    on_resource: dict[str, str] = {}

    def keep(document_id: str, document: Any) -> str:
        documents[document_id] = _normalised(stack.resolve(document))
        return document_id

    for logical_id, resource in stack.resources.items():
        properties, kind = resource["Properties"], resource["Type"]
        _refuse_unread(logical_id, kind, properties)
        if kind == "AWS::IAM::Role":
            identity[logical_id] = tuple(
                keep(f"{logical_id}/{policy['PolicyName']}", policy["PolicyDocument"])
                for policy in properties["Policies"]
            )
            trust = properties["AssumeRolePolicyDocument"]
            on_resource[stack.arn(logical_id)] = keep(f"trust of {logical_id}", trust)
        elif kind == "AWS::IAM::ManagedPolicy":
            identity[logical_id] = (keep(logical_id, properties["PolicyDocument"]),)
        elif kind in _POLICIES_OF_RESOURCES:
            element, targets = _POLICIES_OF_RESOURCES[kind]
            document_id = keep(logical_id, properties[element])
            for target in [{"Ref": logical_id}] if targets is None else _listed(properties[targets]):
                on_resource[stack.arn(target["Ref"])] = document_id
    for function, statements in _permissions(stack).items():
        document_id = f"permissions of {function}"
        documents[document_id] = {"Version": "2012-10-17", "Statement": statements}
        on_resource[stack.arn(function)] = document_id
    return Policies(documents, identity, on_resource)


def _refuse_unread(logical_id: str, kind: str, properties: Mapping[str, Any]) -> None:
    """Refuse what would grant something behind the simulation's back."""
    elsewhere = properties.keys() & {"ManagedPolicyArns", "PermissionsBoundary", "Roles", "Users", "Groups"}
    known = {"AWS::IAM::Role", "AWS::IAM::ManagedPolicy", *_POLICIES_OF_RESOURCES}
    if elsewhere or (kind not in known and any("Policy" in name for name in properties.keys() - _NO_POLICIES)):
        raise ValueError(f"{logical_id}: the simulation does not read all policies of {kind}")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _permissions(stack: Stack) -> dict[str, list[Document]]:
    """The statements of every function's policy, by the function's logical id."""
    permissions: dict[str, list[Document]] = {}
    for logical_id, resource in stack.resources.items():
        if resource["Type"] == "AWS::Lambda::Permission":
            statement = _statement_of_permission(stack, logical_id, resource["Properties"])
            permissions.setdefault(resource["Properties"]["FunctionName"]["Ref"], []).append(statement)
    return permissions


def _statement_of_permission(stack: Stack, logical_id: str, properties: Mapping[str, Any]) -> Document:
    """The statement that Lambda adds to the function's policy.

    https://docs.aws.amazon.com/lambda/latest/api/API_AddPermission.html
    """
    statement = {
        "Sid": logical_id,
        "Effect": "Allow",
        "Principal": {"Service": properties["Principal"]},
        "Action": [properties["Action"]],
        "Resource": [stack.arn(properties["FunctionName"]["Ref"])],
    }
    conditions = {}
    if "SourceArn" in properties:
        conditions["ArnLike"] = {"aws:SourceArn": stack.resolve(properties["SourceArn"])}
    if "SourceAccount" in properties:
        conditions["StringEquals"] = {"aws:SourceAccount": stack.resolve(properties["SourceAccount"])}
    return {**statement, "Condition": conditions} if conditions else statement


def _normalised(document: Document) -> Document:
    for statement in document["Statement"]:
        for element in ("Action", "Resource"):
            if isinstance(statement.get(element), str):
                statement[element] = [statement[element]]
        if statement.keys() & {"NotAction", "NotResource", "NotPrincipal"}:
            raise ValueError(f"the simulation does not read {sorted(statement)}")
    return document


def granted_actions(policies: Policies) -> list[str]:
    """Return every action or pattern that any statement allows."""
    return sorted(
        {
            action
            for document in policies.documents.values()
            for statement in document["Statement"]
            if statement["Effect"] == "Allow"
            for action in statement["Action"]
        }
    )


def service_principals(policies: Policies) -> list[str]:
    """Return every service that any policy names."""
    services = set()
    for document in policies.documents.values():
        for statement in document["Statement"]:
            principal = statement.get("Principal", {})
            if isinstance(principal, Mapping) and "Service" in principal:
                named = principal["Service"]
                services |= {named} if isinstance(named, str) else set(named)
    return sorted(services)


def grants(policies: Policies) -> Iterator[Grant]:
    """Yield everything that is granted, each with its document as it would be without."""
    for document_id, document in policies.documents.items():
        for index, statement in enumerate(document["Statement"]):
            if statement["Effect"] != "Allow":
                continue
            for action in statement["Action"]:
                for resource in statement.get("Resource", [None]):
                    yield Grant(document_id, index, action, resource, _without(document, index, action, resource))


def _without(document: Document, index: int, action: str, resource: str | None) -> Document:
    statement = document["Statement"][index]
    others = {**statement, "Action": [other for other in statement["Action"] if other != action]}
    rest = {**statement, "Action": [action]}
    rest["Resource"] = [other for other in statement.get("Resource", []) if other != resource]
    left = [part for part in (others, rest) if part["Action"] and (part is others or part["Resource"])]
    for number, part in enumerate(left):
        if "Sid" in part:
            part["Sid"] = f"{part['Sid']}{number}"
    statements = [*document["Statement"][:index], *left, *document["Statement"][index + 1 :]]
    return {**document, "Statement": statements}


def guards(policies: Policies) -> Iterator[Guard]:
    """Yield every condition of a grant and every denial, each with its document as it would be without."""
    for document_id, document in policies.documents.items():
        for index, statement in enumerate(document["Statement"]):
            actions = tuple(statement["Action"])
            if statement["Effect"] == "Deny":
                statements = [other for number, other in enumerate(document["Statement"]) if number != index]
                name = f"statement {index}, which denies"
                yield Guard(document_id, name, actions, {**document, "Statement": statements})
                continue
            for operator, keys in statement.get("Condition", {}).items():
                for key in keys:
                    loosened = deepcopy(document)
                    condition = loosened["Statement"][index]["Condition"]
                    del condition[operator][key]
                    if not condition[operator]:
                        del condition[operator]
                    if not condition:
                        del loosened["Statement"][index]["Condition"]
                    name = f"condition {operator} {key} of statement {index}"
                    yield Guard(document_id, name, actions, loosened)
