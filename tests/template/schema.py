"""What others' linters say of the template, for pairs of the parameters that change resources."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.judging import TOOLS, Verdict, beside_this_python, lines_said, run
from tests.template import variants
from tests.template.expansion import REGION, TEMPLATE, expanded_template, sam_template


def judge_with_sam_translator(_work: Path) -> Verdict:
    """Whether SAM's own translator, the one that runs in CloudFormation, can expand the template as written.

    Once with the parameters' own defaults, and once with the values of each variant in their place.
    """
    from samtranslator.model.exceptions import InvalidDocumentException

    rows = [{}, *variants.overrides()]
    declared = len(sam_template()["Resources"])
    try:
        expanded = [len(expanded_template(row)["Resources"]) for row in rows]
    except InvalidDocumentException as error:
        return Verdict(f"{declared} resources", [cause.message for cause in error.causes])
    return Verdict(f"{declared} resources, {expanded[0]} expanded, in {len(rows)} variants", [])


def judge_with_cfn_lint(work: Path) -> Verdict:
    """Schema, enumerations, names and action names: the whole expanded template, and what is left of it per variant.

    What is wrong with the whole is told alone: every variant would say it once more.
    """
    rows = variants.overrides()
    documents = {f"variant-{n:02}": variants.resolved(row) for n, row in enumerate(rows)}
    whole = variants.template()
    findings = _cfn_lint(work, {"template": whole}) or _cfn_lint(work, documents)
    findings += variants.undecided_conditions(rows)
    resources = sum(len(document["Resources"]) for document in (whole, *documents.values()))
    return Verdict(f"{resources} resources in {len(rows)} variants", findings)


def _cfn_lint(work: Path, documents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    files = [_written(work / f"{name}.json", document) for name, document in documents.items()]
    command = [beside_this_python("cfn-lint"), "--regions", REGION, "--format", "parseable", "-t"]
    result = run([*command, *map(str, files)])
    return lines_said(result) if result.returncode else []


def judge_with_sam_validate(work: Path) -> Verdict:
    """What the SAM CLI itself says of the template as written."""
    sam = TOOLS / "sam" / "bin" / "sam"
    result = run(
        [str(sam), "validate", "--lint", "--template", str(TEMPLATE), "--region", REGION],
        {"SAM_CLI_TELEMETRY": "0", "HOME": str(work)},
    )
    if result.returncode == 0 and "is a valid SAM Template" in result.stdout:
        return Verdict(f"{len(sam_template()['Resources'])} resources", [])
    return Verdict("the template", lines_said(result))


def _written(file: Path, document: Mapping[str, Any]) -> Path:
    file.write_text(json.dumps(document, indent=1))
    return file
