"""What the documents say in figures is what the data files say."""

import ast
import re
import tomllib
from datetime import date
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PRICES = tomllib.loads((PROJECT / "telemetry_lake" / "prices.toml").read_text())


def value(name: str) -> float:
    return float(PRICES[name]["value"])


def test_every_price_has_a_source_and_a_date() -> None:
    for name, price in PRICES.items():
        assert price["source"].startswith("https://"), name
        assert isinstance(price["read"], date), name
        assert price["unit"], name


def test_the_costs_of_the_first_deployment_follow_from_the_prices() -> None:
    # GIVEN the prices
    dpu_second = value("glue_dpu_hour") / 3600
    run = dpu_second * value("glue_job_minimum_dpu") * value("glue_job_minimum_seconds")
    crawl = dpu_second * value("glue_job_minimum_dpu") * value("glue_crawl_minimum_seconds")
    query = value("athena_terabyte") * value("athena_query_minimum_megabytes") / 1_000_000

    # THEN the document's figures are these
    text = " ".join((PROJECT / "docs" / "fidelity.md").read_text().split())
    for figure in (
        f"${run:.4f}",
        f"${24 * run:.2f} a day",
        f"with its load ${2 * run:.2f}",
        f"${crawl:.2f} with two DPUs",
        f"${query:.5f}",
    ):
        assert figure in text, figure
    assert 12 * run + 2 * crawl < 1


# ------------------------------------------------------------------------------------------------------ the runbook

RUNBOOK = (PROJECT / "docs" / "runbook.md").read_text()
STUCK_TITLE = "# Where people get stuck"


def stuck_entries() -> dict[str, str]:
    """The entries of the runbook's last chapter, by their headings."""
    _, _, chapter = RUNBOOK.partition(f"\n{STUCK_TITLE}\n")
    _, *entries = re.split(r"^## ", chapter, flags=re.MULTILINE)
    return {entry.partition("\n")[0]: entry for entry in entries}


def named_tests(text: str) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)


def test_every_test_that_the_runbook_names_exists() -> None:
    # GIVEN
    named = named_tests(RUNBOOK)
    assert len(named) >= len(stuck_entries())

    # WHEN / THEN
    for file, name in named:
        functions = [each.name for each in ast.parse((PROJECT / file).read_text()).body if hasattr(each, "name")]
        assert name in functions, f"{file}::{name}"


def test_the_runbook_has_the_usual_places_to_get_stuck() -> None:
    assert {"no-rows", "duplicates", "small-files", "key-denied"} <= set(stuck_entries())


@pytest.mark.parametrize("heading", stuck_entries())
def test_each_says_how_it_looks_what_to_run_when_it_is_over_and_what_reproduces_it(heading: str) -> None:
    entry = stuck_entries()[heading]
    for part in ("**Looks like:**", "**Run", "**Over when**", "Reproduced by"):
        assert part in entry, part
    assert named_tests(entry), heading


def test_every_entry_that_a_command_names_is_in_the_runbook() -> None:
    # GIVEN what the commands say: "entry X of docs/runbook.md", "entries X and Y of docs/runbook.md"
    headings = set(re.findall(r"^## (\S+)$", RUNBOOK, flags=re.MULTILINE))
    said = [
        (file.name, words)
        for file in sorted((PROJECT / "telemetry_lake").rglob("*.py"))
        for words in re.findall(r"entr(?:y|ies) ([a-z-]+(?: and [a-z-]+)?) of docs/runbook\.md", file.read_text())
    ]
    assert len(said) >= 5

    # WHEN / THEN
    for file, words in said:
        for name in words.split(" and "):
            assert name in headings, (file, name)
