"""What others' validators of the Amazon States Language say of the state machine."""

import json
import re
from pathlib import Path

from tests.judging import Verdict, beside_this_python, lines_said, node_modules, run
from tests.template.expansion import substituted_definition

# Fields that may be a JSONata expression instead of a number; statelint does not know that.
# https://docs.aws.amazon.com/step-functions/latest/dg/state-wait.html and .../state-task.html
JSONATA_NUMBER_FIELDS = ("Seconds", "TimeoutSeconds", "HeartbeatSeconds")


def judge_with_asl_validator(work: Path) -> Verdict:
    """Transitions, JSONata syntax and structure of the state machine."""
    script = node_modules() / "asl-validator" / "dist" / "bin" / "asl-validator.js"
    file, states = _definition_file(work)
    result = run([beside_this_python("node"), str(script), "--json-path", str(file)])
    return Verdict(f"{states} states", [] if result.returncode == 0 else lines_said(result))


def judge_with_statelint(work: Path) -> Verdict:
    """A second opinion on the state machine, from another implementation of the language."""
    file, states = _definition_file(work)
    result = run([beside_this_python("statelint"), str(file)])
    said = lines_said(result) if result.returncode else []
    findings = [line for line in said if not re.fullmatch(r"(One|\d+) errors?:", line) and not _is_jsonata_number(line)]
    return Verdict(f"{states} states", findings)


def _is_jsonata_number(finding: str) -> bool:
    fields = "|".join(JSONATA_NUMBER_FIELDS)
    return re.search(rf'\.({fields}) is "{{%.*%}}" but should be an Integer$', finding) is not None


def _definition_file(work: Path) -> tuple[Path, int]:
    definition = substituted_definition()
    file = work / "pipeline.asl.json"
    file.write_text(json.dumps(definition, indent=1))
    return file, len(definition["States"])
