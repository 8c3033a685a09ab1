"""What the tests of the embedded endpoint share: the marks that say where an expectation comes from.

See ``tests/code/fidelity.py``, which asks every test for one of them.
"""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    config.addinivalue_line("markers", "source(address): the page that says what the test expects of AWS")
    config.addinivalue_line("markers", "own_machinery(reason): models nothing of AWS, so there is no page")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note the tests that will run with the pages that they cite."""
    session.config.stash[CITED] = [
        [mark.args[0] for mark in item.iter_markers("source")]
        for item in session.items
        if item.get_closest_marker("source")
    ]


CITED: pytest.StashKey[list[list[str]]] = pytest.StashKey()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Count the tests that cite a page, and the pages."""
    cited = config.stash.get(CITED, [])
    pages = {page for pages in cited for page in pages}
    terminalreporter.write_line(f"embedded endpoint: {len(cited)} tests follow {len(pages)} pages that they cite")
