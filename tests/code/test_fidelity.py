"""The judge of what the embedded endpoint's tests follow, and of the list of its deviations."""

from pathlib import Path

import pytest

from tests.code import fidelity

TESTS = '''
import pytest

def test_nothing():
    pass

@pytest.mark.source("https://docs.aws.amazon.com/a.html#b(c)")
def test_marked():
    pass

def test_in_words():
    """As https://docs.aws.amazon.com/a.html, where it says so."""

@pytest.mark.source("somewhere")
def test_no_page():
    pass

@pytest.mark.own_machinery("processes of this machine")
def test_own():
    pass

@pytest.mark.own_machinery("")
def test_without_reason():
    pass

@pytest.mark.own_machinery("processes of this machine")
@pytest.mark.source("https://docs.aws.amazon.com/a.html")
def test_both():
    pass
'''


def test_a_test_says_where_it_knows_it_from_or_why_there_is_nothing_to_know(tmp_path: Path) -> None:
    # GIVEN
    (tmp_path / "test_x.py").write_text(TESTS)

    # WHEN
    tests = fidelity.fidelity_tests(tmp_path)
    findings = [finding.partition(": ")[2] for finding in fidelity.findings_in_tests(tests)]

    # THEN
    assert {test.name: test.sources for test in tests if len(test.sources) == 1} == {
        "test_marked": ("https://docs.aws.amazon.com/a.html#b(c)",),
        "test_in_words": ("https://docs.aws.amazon.com/a.html",),
        "test_no_page": ("somewhere",),
        "test_both": ("https://docs.aws.amazon.com/a.html",),
    }
    assert [finding.partition(":")[0] for finding in findings] == [
        "test_nothing",
        "test_no_page",
        "test_without_reason",
        "test_both",
    ]


def test_a_module_that_models_aws_has_a_list(tmp_path: Path) -> None:
    # GIVEN
    page = "https://docs.aws.amazon.com/a.html"
    (tmp_path / "with_list.py").write_text(f'"""{page}\n\nKnown deviations from AWS:\n\n* ``a`` is\n  b.\n"""\n')
    (tmp_path / "without.py").write_text(f'"""{page}."""\n')
    (tmp_path / "of_our_own.py").write_text('"""A seam."""\n')
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text('"""P.\n\nKnown deviations from AWS:\n\n* c\n"""\n')
    (tmp_path / "package" / "part.py").write_text(f'"""{page}."""\n')

    # WHEN / THEN
    assert fidelity.deviations(tmp_path) == {"package": "* c", "with_list": "* `a` is\n  b."}
    assert [finding.partition(":")[0] for finding in fidelity.findings_in_modules(tmp_path)] == ["without"]


def test_what_is_written_stands_between_the_marks() -> None:
    # GIVEN
    document = f"before\n{fidelity.BEGIN}old\n{fidelity.END}after\n"

    # WHEN
    written = fidelity.with_deviations(document)

    # THEN
    assert written == f"before\n{fidelity.collected()}after\n"
    assert fidelity.with_deviations(written) == written
    with pytest.raises(ValueError, match="once each"):
        fidelity.with_deviations("before\n")
