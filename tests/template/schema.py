"""What others' linters say of the template, for pairs of the parameters that change resources."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.judging import TOOLS, Verdict, beside_this_python, lines_said, run
from tests.template import variants
from tests.template.expansion import REGION, expanded_template, sam_template


def judge_with_sam_translator(_work: Path) -> Verdict:
    """Whether SAM's own translator, the one that runs in CloudFormation, can expand the template as written."""
    from samtranslator.model.exceptions import InvalidDocumentException

    declared = len(sam_template()["Resources"])
    try:
        expanded = len(expanded_template()["Resources"])
    except InvalidDocumentException as error:
        return Verdict(f"{declared} resources", [cause.message for cause in error.causes])
    return Verdict(f"{declared} resources, {expanded} expanded", [])


def judge_with_cfn_lint(work: Path) -> Verdict:
    """Schema, enumerations, names and action names: the whole expanded template, and what is left of it per variant."""
    rows = variants.overrides()
    documents = {
        "template": variants.template(),
        **{f"variant-{n:02}": variants.resolved(r) for n, r in enumerate(rows)},
    }
    files = [_written(work / f"{name}.json", document) for name, document in documents.items()]
    command = [beside_this_python("cfn-lint"), "--regions", REGION, "--format", "parseable", "-t"]
    result = run([*command, *map(str, files)])
    findings = lines_said(result) if result.returncode else []
    findings += variants.undecided_conditions(rows)
    resources = sum(len(document["Resources"]) for document in documents.values())
    return Verdict(f"{resources} resources in {len(rows)} variants", findings)


def judge_with_sam_validate(work: Path) -> Verdict:
    """What the SAM CLI itself says of the template as written, with the values of each variant as its defaults."""
    rows = [{}, *variants.overrides()]
    files = [_written(work / f"variant-{n:02}.json", _with_defaults(row)) for n, row in enumerate(rows)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        findings = [finding for found in pool.map(_sam_validate, files) for finding in found]
    return Verdict(f"{len(files)} variants", findings)


def _with_defaults(row: Mapping[str, str]) -> dict[str, Any]:
    template = sam_template()
    for name, value in row.items():
        template["Parameters"][name]["Default"] = value
    return template


def _sam_validate(file: Path) -> list[str]:
    sam = TOOLS / "sam" / "bin" / "sam"
    result = run(
        [str(sam), "validate", "--lint", "--template", str(file), "--region", REGION],
        {"SAM_CLI_TELEMETRY": "0", "HOME": str(file.parent)},
    )
    if result.returncode == 0 and "is a valid SAM Template" in result.stdout:
        return []
    return [f"{file.name}: {line}" for line in lines_said(result)]


def _written(file: Path, document: Mapping[str, Any]) -> Path:
    file.write_text(json.dumps(document, indent=1))
    return file
