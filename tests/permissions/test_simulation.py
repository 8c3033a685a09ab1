"""The simulation sees a missing grant, a grant too many and a guard that is gone; and the template has none of them."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.permissions import policies
from tests.permissions.contract import ENCRYPTIONS, Contract
from tests.permissions.policies import Policies, extract
from tests.permissions.resolution import Stack, UnresolvedError
from tests.permissions.simulation import ALLOWED, Judgement, simulate
from tests.template.expansion import expanded_template


@pytest.fixture(scope="module")
def judgement() -> Judgement:
    return simulate(expanded_template(), Contract.load())


def test_the_template_grants_what_the_contract_says_and_nothing_else(judgement: Judgement) -> None:
    assert judgement.findings == []


@pytest.mark.parametrize("encryption", ENCRYPTIONS)
def test_every_must_row_fails_when_some_single_grant_is_removed(judgement: Judgement, encryption: str) -> None:
    # GIVEN the rows that fail without each single grant
    (simulation,) = [each for each in judgement.simulations if each.encryption == encryption]
    proven = simulation.proven_by_removal(judgement.answers)
    rows = {str(row) for row in simulation.rows if row.demand == "must"}
    assert len(rows) > 200

    # THEN no row is granted twice over, and nothing is granted that only habit asks for
    assert {row for failing in proven.values() for row in failing} == rows
    argued = {row.action for row in simulation.rows if row.demand == "may"}
    for grant, failing in proven.items():
        assert failing or any(action in grant for action in argued) or "kms:Describe*" in grant, grant


def test_strangers_were_asked_about_every_resource_of_ours(judgement: Judgement) -> None:
    for simulation in judgement.simulations:
        for who in ("stranger", "anonymous", "bystander"):
            asked = {question.resource for question in simulation.numbers if question.who == who}
            assert len(asked) > 30
            allowed = [q for q, n in simulation.numbers.items() if q.who == who and judgement.answers[n] == ALLOWED]
            assert allowed == []


Edit = Callable[[dict[str, Any]], None]


def statement(template: dict[str, Any], role: str, sid: str) -> dict[str, Any]:
    statements = template["Resources"][role]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    found: list[dict[str, Any]] = [each for each in statements if each.get("Sid") == sid]
    return found[0]


def drop_put(template: dict[str, Any]) -> None:
    statement(template, "EtlRole", "Record")["Resource"].pop(0)


def widen(template: dict[str, Any]) -> None:
    statement(template, "PipelineRole", "Crawl")["Resource"] = "*"


def repeat(template: dict[str, Any]) -> None:
    statements = template["Resources"]["CrawlerRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    statements.append(dict(statements[0]))


def trust_everybody(template: dict[str, Any]) -> None:
    trust = template["Resources"]["CrawlerRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]
    del trust["Condition"]


@pytest.mark.parametrize(
    ("edit", "finding"),
    [
        (drop_put, "missing: EtlRole: s3:PutObject on .*run_summaries"),
        (widen, "excess: PipelineRole: glue:StartCrawler on .*crawler/elsewhere"),
        (repeat, "granted for nothing, or twice: CrawlerRole"),
        (trust_everybody, r"(excess|open): glue\.amazonaws\.com: sts:AssumeRole"),
    ],
    ids=["missing", "excess", "twice", "trust"],
)
def test_a_fault_is_found_by_its_kind(edit: Edit, finding: str) -> None:
    # GIVEN a template with one fault
    template = expanded_template()
    edit(template)

    # WHEN it is judged
    findings = simulate(template, Contract.load(), ["SSE-S3"]).findings

    # THEN one finding says which
    assert any(re.search(finding, each) for each in findings), findings


@pytest.fixture
def extracted() -> Policies:
    return extract(Stack(expanded_template(), {"Encryption": "CustomerKey"}))


def test_policies_of_every_kind_are_extracted(extracted: Policies) -> None:
    # THEN there are identity, trust, bucket, key, queue, topic and function policies
    kinds = {
        document_id.split(" of ")[0] if " of " in document_id else document_id for document_id in extracted.documents
    }
    assert {"trust", "permissions"} <= kinds
    assert {"DataKey", "DataBucketPolicy", "AnalyticsBucketPolicy", "AlarmsTopicPolicy", "TriggerQueuePolicy"} <= kinds
    assert {"ProducerPolicy", "AnalystPolicy"} <= kinds
    assert len(extracted.identity) == 11


def test_a_policy_of_a_kind_that_is_not_read_is_refused() -> None:
    # GIVEN a role with a managed policy of AWS's, which nobody reads here
    template = expanded_template()
    template["Resources"]["EtlRole"]["Properties"]["ManagedPolicyArns"] = [
        "arn:aws:iam::aws:policy/AdministratorAccess"
    ]

    # THEN it does not pass unseen
    with pytest.raises(ValueError, match="EtlRole"):
        extract(Stack(template, {}))


def test_a_reference_to_a_resource_that_is_not_deployed_is_an_error() -> None:
    with pytest.raises(UnresolvedError):
        Stack(expanded_template(), {"Encryption": "SSE-S3"}).arn("DataKey")


def test_each_grant_is_one_action_on_one_resource_and_its_removal_leaves_all_others(extracted: Policies) -> None:
    # GIVEN every single grant of one policy
    before = pairs(extracted.documents["AnalystPolicy"])
    found = [grant for grant in policies.grants(extracted) if grant.document_id == "AnalystPolicy"]
    assert len(found) == len(before)

    for grant in found:
        # WHEN it is removed, THEN all the others are still there
        assert grant.resource is not None
        assert pairs(grant.document) == before - {(grant.action, grant.resource)}


def pairs(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (action, resource)
        for each in document["Statement"]
        for action in each["Action"]
        for resource in each["Resource"]
    }
