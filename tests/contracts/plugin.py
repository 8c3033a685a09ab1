"""The hooks of pytest that judge each test's requests and answers, see ``tests/conftest.py``."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.recording import Recorder, install

TESTS = Path(__file__).resolve().parents[1]
# Here the embedded endpoint answers; elsewhere it is moto, or MiniStack without the endpoint's modules.
ANSWERS_ARE_JUDGED = ("unit/local", "e2e", "faults", "clients")
LOOKS_BACK = "after_all_of_its_layer"
ELSEWHERE = "processes"
"""A folder whose tests let other processes make the requests, which are not seen here."""

recorder = Recorder()
install(recorder)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", "bad_requests: sends requests on purpose that AWS's API models do not admit")
    config.addinivalue_line("markers", f"{LOOKS_BACK}: needs what every other test below its folder has done")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests that look at their whole layer last; they say nothing in a run of less than the layer."""
    looking_back = [item for item in items if item.get_closest_marker(LOOKS_BACK)]
    others = [item for item in items if not item.get_closest_marker(LOOKS_BACK)]
    files = {item.path for item in others}
    chosen = any("::" in argument for argument in config.args) or any(
        getattr(config.option, name, None) for name in ("keyword", "markexpr", "deselect", "lf")
    )

    def sees_all(item: pytest.Item) -> bool:
        layer = {file for file in item.path.parent.rglob("test_*.py") if file.parent.name != ELSEWHERE} - {item.path}
        return not chosen and layer <= files | {each.path for each in looking_back}

    partial = [item for item in looking_back if not sees_all(item)]
    config.hook.pytest_deselected(items=partial)
    items[:] = [*others, *(item for item in looking_back if item not in partial)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """Judge answers where the embedded endpoint gives them."""
    recorder.judges_answers = any(item.path.is_relative_to(TESTS / folder) for folder in ANSWERS_ARE_JUDGED)
    result = yield
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test whose requests, or whose answers by the endpoint, do not fit AWS's models."""
    result = yield
    found = [str(each) for each in recorder.take()]
    if item.get_closest_marker("bad_requests"):
        bad = [line for line in found if line.startswith("request")]
        found = [line for line in found if line not in bad] if bad else ["bad_requests: and every request was good"]
    if found:
        pytest.fail("not as AWS's API models say:\n" + "\n".join(found), pytrace=False)
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run for what was found after the last test's own call, in tearing down."""
    found = [str(each) for each in recorder.take()]
    if found:
        print("\nnot as AWS's API models say, after the last test:", *found, sep="\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
