"""The judge of secrets sees a planted one, and an allowance that is too wide."""

from pathlib import Path

from tests.code import secrets
from tests.judging import project_files

# In two pieces, so that this file is not itself one.
KEY_HEADER = "-----BEGIN RSA " + "PRIVATE KEY-----"


def test_a_private_key_is_found(tmp_path: Path) -> None:
    # GIVEN a file with the header of a private key
    (tmp_path / "notes.txt").write_text(f"{KEY_HEADER}\n")

    # WHEN it is scanned, THEN it is a finding
    (finding,) = secrets.findings(secrets.scan(tmp_path, ["notes.txt"]), [])
    assert finding == "notes.txt:1: Private Key"


def test_one_more_than_is_allowed_is_a_finding_and_one_less_too() -> None:
    # GIVEN a file in which one is allowed
    allowed = [{"file": "a", "type": "Secret Keyword", "count": 1, "argument": "because"}]
    one = {"type": "Secret Keyword", "line_number": 7}

    # THEN just one is no finding
    assert list(secrets.findings({"a": [one]}, allowed)) == []
    assert list(secrets.findings({"a": [one, one]}, allowed)) == ["a:7: Secret Keyword"]
    (idle,) = secrets.findings({}, allowed)
    assert "1 less" in idle


def test_what_git_would_take_is_scanned() -> None:
    assert {"template.yaml", "glue/telemetry_etl.py", "tests/code/secrets.toml"} <= set(project_files())
