"""How the embedded endpoint differs from AWS, and where its tests know AWS from.

Every test below ``tests/unit/local`` says where its expectation comes from: ``@pytest.mark.source`` with the address of
a page, or an address in its docstring. What models nothing of AWS says so, with a reason:
``@pytest.mark.own_machinery``. The lists of known deviations at the top of the endpoint's modules are collected into
``docs/fidelity.md`` by ``make fidelity``; a list that changed and was not collected is a finding.
"""

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.judging import REPOSITORY, Verdict

TESTS = REPOSITORY / "tests" / "unit" / "local"
MODULES = REPOSITORY / "telemetry_lake" / "local"
DOCUMENT = REPOSITORY / "docs" / "fidelity.md"

HEADING = "Known deviations from AWS:"
BEGIN = "<!-- Written by `make fidelity` from the modules' docstrings: change them there. -->\n"
END = "<!-- End of what `make fidelity` writes. -->\n"

# Modules that cite AWS's pages and have no list: the first models nothing, the second is part of ``lambda_runtime``.
WITHOUT_LIST = ("disturbances", "lambda_bootstrap")

PAGE = re.compile(r"https://[\w.-]+/\S+")
AWS_PAGE = re.compile(r"https://(docs\.aws\.amazon\.com|repost\.aws)/")


@dataclass(frozen=True)
class FidelityTest:
    """A test of the endpoint.

    Attributes:
        place: file and line.
        name: the function's name.
        sources: addresses of the pages that it cites.
        reason: why it cites none, None if it has to.
    """

    place: str
    name: str
    sources: tuple[str, ...]
    reason: str | None


def fidelity_tests(directory: Path = TESTS) -> list[FidelityTest]:
    """Return the tests below a directory, in the order of files and lines."""
    return [
        _read(file, node)
        for file in sorted(directory.rglob("test_*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def _read(file: Path, node: ast.FunctionDef) -> FidelityTest:
    arguments: dict[str, list[str]] = {"source": [], "own_machinery": []}
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call):
            name = ast.unparse(decorator.func).removeprefix("pytest.mark.")
            texts = [each.value for each in decorator.args if isinstance(each, ast.Constant)]
            arguments.setdefault(name, []).extend(str(text) for text in texts)
    cited = [*arguments["source"], *(page.rstrip(".,:;)") for page in PAGE.findall(ast.get_docstring(node) or ""))]
    return FidelityTest(
        f"{file.name}:{node.lineno}", node.name, tuple(cited), next(iter(arguments["own_machinery"]), None)
    )


def findings_in_tests(tests: list[FidelityTest]) -> Iterator[str]:
    """Yield a finding for each test that does not say where its expectation comes from, or says it amiss."""
    for test in tests:
        where = f"{test.place}: {test.name}"
        if test.reason is not None and test.sources:
            yield f"{where}: is of own machinery and cites a page: one of them is wrong"
        elif test.reason is None and not test.sources:
            yield f"{where}: cites nothing; add @pytest.mark.source with the page, or @pytest.mark.own_machinery"
        elif test.reason is not None and len(test.reason.split()) <= 1:
            yield f"{where}: own_machinery needs a reason"
        for source in test.sources:
            if not PAGE.fullmatch(source):
                yield f"{where}: {source!r} is no address of a page"


def deviations(directory: Path = MODULES) -> dict[str, str]:
    """Return each module's list of known deviations, as Markdown, by the module's name."""
    return {
        _module(file, directory): _as_markdown(docstring.partition(HEADING)[2])
        for file in sorted(directory.rglob("*.py"))
        if HEADING in (docstring := ast.get_docstring(ast.parse(file.read_text())) or "")
    }


def _module(file: Path, directory: Path) -> str:
    parts = file.relative_to(directory).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _as_markdown(items: str) -> str:
    return textwrap.dedent(items).replace("``", "`").strip()


def findings_in_modules(directory: Path = MODULES) -> Iterator[str]:
    """Yield a finding for each module that cites AWS's pages and has no list, neither has its package."""
    listed = deviations(directory)
    for file in sorted(directory.rglob("*.py")):
        name = _module(file, directory)
        listed_somewhere = {name, name.rpartition(".")[0]} & listed.keys() or name in WITHOUT_LIST
        if AWS_PAGE.search(file.read_text()) and not listed_somewhere:
            yield f"{name}: models AWS, and its docstring has no list under {HEADING!r}"


def collected() -> str:
    """Return the deviations of all modules as they stand in the document."""
    lists = deviations()
    count = sum(1 for text in lists.values() for line in text.splitlines() if line.startswith("* "))
    sections = "\n\n".join(f"### `{name}`\n\n{text}" for name, text in lists.items())
    return f"{BEGIN}\n{count} deviations in {len(lists)} modules of `telemetry_lake/local/`.\n\n{sections}\n\n{END}"


def with_deviations(document: str) -> str:
    """Return a document with the deviations of today between its two marks.

    Raises:
        ValueError: it has not both marks, once each.
    """
    if document.count(BEGIN) != 1 or document.count(END) != 1:
        raise ValueError(f"docs/fidelity.md has to have {BEGIN.strip()} and {END.strip()}, once each")
    before, _, rest = document.partition(BEGIN)
    return before + collected() + rest.partition(END)[2]


def judge(_work: Path) -> Verdict:
    """Sources of the endpoint's tests, and the list of its deviations."""
    tests = fidelity_tests()
    cited = [test for test in tests if test.sources]
    pages = {source for test in cited for source in test.sources}
    findings = [*findings_in_tests(tests), *findings_in_modules()]
    if DOCUMENT.read_text() != with_deviations(DOCUMENT.read_text()):
        findings.append("docs/fidelity.md is behind the modules' lists of deviations: run `make fidelity`")
    return Verdict(f"{len(tests)} tests, {len(cited)} citing {len(pages)} pages, {len(deviations())} lists", findings)


def main() -> int:
    """Write the deviations of today into the document."""
    DOCUMENT.write_text(with_deviations(DOCUMENT.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
