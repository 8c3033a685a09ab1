"""What the documents say in figures is what the data files say, and the commands that they name are there."""

import ast
import json
import re
import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from telemetry_lake.cli import group
from telemetry_lake.costs import (
    ALARM_METRICS,
    CHECKS_OF_A_LOAD,
    STATES_OF_A_LOAD,
    Traffic,
    costs,
    crawl_cost,
    query_cost,
    run_cost,
)
from telemetry_lake.prices import price
from tests.template import variants
from tests.template.expansion import resources_of_type
from tests.template.metrics import uses

PROJECT = Path(__file__).parents[2]
PRICES = tomllib.loads((PROJECT / "telemetry_lake" / "prices.toml").read_text())
READMES = ("README.md", "README.ja.md")
OUTSIDE = ("https://", "#")


def test_every_price_has_a_source_and_a_date() -> None:
    for name, entry in PRICES.items():
        assert entry["source"].startswith("https://"), name
        assert isinstance(entry["read"], date), name
        assert entry["unit"], name


def test_the_costs_of_the_first_deployment_follow_from_the_prices() -> None:
    # GIVEN the prices
    run, crawl, query = run_cost(), crawl_cost(), query_cost()

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


# ------------------------------------------------------------------------------------------------------ the readmes


def read(name: str) -> str:
    return (PROJECT / name).read_text("utf-8")


def code_of(name: str) -> str:
    """What a document shows as code: its indented blocks and its spans, without comments."""
    blocks = re.findall(r"^ {4}(.*)$", read(name), re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", read(name))
    return "\n".join(re.sub(r" +#.*$", "", line) for line in [*blocks, *spans])


@pytest.mark.parametrize("name", READMES)
def test_the_costs_in_the_readmes_follow_from_the_prices(name: str) -> None:
    # GIVEN the prices
    run, crawl, query = run_cost(), crawl_cost(), query_cost()

    # THEN an hourly run, one every five minutes, and a crawl a day cost as much in 30 days
    for figure in (
        f"${run:.4f}",
        f"${24 * 30 * run:.2f}",
        f"${288 * 30 * run:.2f}",
        f"${crawl:.2f}",
        f"${30 * crawl:.2f}",
        f"${query:.5f}",
        f"${price('kms_key_month').value:.2f}",
    ):
        assert figure in read(name), figure


EXAMPLE = Traffic(devices=1000, seconds_between_readings=10, readings_in_a_record=100, reading_bytes=80, days=30)


@pytest.mark.parametrize("name", READMES)
def test_the_worked_example_of_the_readmes_follows_from_the_prices(name: str) -> None:
    # GIVEN the rows of its table, without those whose cells are code
    rows = re.findall(r"^\| ([^|`]+) \| (\$[\d.]+) \| (\$[\d.]+) \| (\$[\d.]+) \|$", read(name), re.MULTILINE)

    # WHEN its runs are five minutes or an hour apart, or each reading has a record of its own
    columns = [costs(EXAMPLE, 288), costs(EXAMPLE, 24), costs(replace(EXAMPLE, readings_in_a_record=1), 24)]

    # THEN
    *services, sums = rows
    assert services == [(service, *(f"${column[service]:.2f}" for column in columns)) for service in columns[0]]
    assert list(sums[1:]) == [f"${sum(column.values()):.2f}" for column in columns]


def test_the_worked_example_counts_what_the_stack_has() -> None:
    # GIVEN
    template = variants.resolved({})
    alarms = resources_of_type(template, "AWS::CloudWatch::Alarm")
    machine = json.loads((PROJECT / "statemachine" / "pipeline.asl.json").read_text())
    checks = [file.read_text() for file in (PROJECT / "functions" / "athena_check" / "checks").glob("*.sql")]

    # WHEN a load finds nothing unusual
    entered = [machine["StartAt"]]
    while machine["States"][entered[-1]]["Type"] != "Succeed":
        state = machine["States"][entered[-1]]
        entered.append(state.get("Next") or state["Default"])

    # THEN
    assert "CheckWithAthena" in entered
    assert len(entered) == STATES_OF_A_LOAD
    assert sum(use.user in alarms for use in uses(template)) == ALARM_METRICS
    assert sum(bool(re.search(r"^-- when:.*\bload\b", check, re.MULTILINE)) for check in checks) == CHECKS_OF_A_LOAD


@pytest.mark.parametrize("name", [*READMES, "docs/runbook.md", "docs/fidelity.md", "docs/benchmarks.md"])
def test_every_make_target_and_command_that_a_document_names_is_there(name: str) -> None:
    # GIVEN
    targets = set(re.findall(r"^([a-z0-9-]+):", read("Makefile"), re.MULTILINE))
    code = code_of(name)

    # WHEN / THEN
    assert set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", code)) <= targets
    for words in re.findall(r"\btlake((?: [a-z][a-z-]*)+)", code):
        command: click.Command = group
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            assert word in command.commands, f"tlake{words}"
            command = command.commands[word]


@pytest.mark.parametrize("name", READMES)
def test_every_option_that_a_line_of_the_readme_gives_to_a_command_is_one_of_its_own(name: str) -> None:
    for line in code_of(name).splitlines():
        found = re.search(r"\btlake ([a-z]+)\b(.*)", line)
        if found is not None:
            command = group.commands[found.group(1)]
            known = {
                option for each in (command, *getattr(command, "commands", {}).values()) for option in options(each)
            }
            assert set(re.findall(r"(?<= )--[a-z-]+", found.group(2))) <= known, line


def test_the_readme_lists_the_permissions_of_every_command_that_works_on_an_account() -> None:
    # THEN what is listed is what a command needs: tests/e2e/test_upkeep_permitted.py
    listed = {
        command.split()[0] for command in re.findall(r"^\| `tlake ([^`]+)` \| `", read("README.md"), re.MULTILINE)
    }
    assert listed == group.commands.keys() - {"up", "down", "demo", "prepare-spark"}


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("name", READMES)
def test_every_link_of_a_readme_leads_to_a_file_or_a_heading(name: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", read(name)):
        if not link.startswith(OUTSIDE):
            assert (PROJECT / link).is_file(), link
        if link.startswith("#"):
            headings = re.findall(r"^#+ (.+)$", read(name), re.MULTILINE)
            # As GitHub makes an anchor of a heading: lower case, no punctuation, hyphens for spaces.
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert link.removeprefix("#") in anchors, link


def test_the_readme_says_the_same_in_both_languages() -> None:
    # GIVEN the lines of code without their comments, the levels of headings, links and tables' first cells in code
    def skeleton(name: str) -> tuple[object, ...]:
        lines = [line for line in code_blocks(name) if line]
        return (
            lines,
            [len(level) for level in re.findall(r"^(#+) ", read(name), re.MULTILINE)],
            re.findall(r"^\| (`[^|]+`) \|", read(name), re.MULTILINE),
            re.findall(r"^\| `tlake [^|`]+` \| `.*$", read(name), re.MULTILINE),
            sorted({each for each in re.findall(r"\]\(([^)#]+)\)", read(name)) if not each.startswith("README")}),
            set(re.findall(r"\$\d[\d.]*\d", read(name))),
        )

    # WHEN / THEN
    for english, japanese in zip(*map(skeleton, READMES), strict=True):
        assert english == japanese


def code_blocks(name: str) -> list[str]:
    blocks = re.findall(r"^ {4}(.*)$", read(name), re.MULTILINE)
    return [re.sub(r" +#.*$", "", line).strip() for line in blocks]


def test_the_picture_is_described_for_those_who_do_not_see_it() -> None:
    # GIVEN
    picture = ElementTree.fromstring(read("docs/way-of-a-reading.svg"))  # noqa: S314  our own file
    namespace = {"svg": "http://www.w3.org/2000/svg"}

    # WHEN / THEN
    assert picture.get("role") == "img"
    described = [picture.find(f"svg:{name}", namespace) for name in ("title", "desc")]
    assert all(element is not None and element.text for element in described)
    assert "prefers-color-scheme: dark" in read("docs/way-of-a-reading.svg")
