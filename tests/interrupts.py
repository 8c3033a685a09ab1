"""Ctrl-C ends the tests, also where a test has taken the interrupt for one of its own command's."""

import signal
from types import FrameType

import pytest


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember an interrupt for the end of the test that it comes in."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        session.shouldstop = "interrupted"
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
