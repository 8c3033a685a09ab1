"""The command line in the test's own process."""

import io
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from telemetry_lake import cli
from tests.contracts.fakes import client_answered_by


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    stdout: str
    stderr: str


Tlake = Callable[..., Outcome]


@pytest.fixture
def tlake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Tlake]:
    """Runs the command line in this process, as the installed script does."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments: str, input_text: str = "") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["tlake", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input_text.encode())))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Standin:
    """Hands calls on to the fake of the test at work."""

    fake: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fake, name)


@pytest.fixture(scope="session")
def client_of() -> Callable[[str, Any], Any]:
    """Return a service's client that a fake answers, made once: making it takes longer than most tests."""
    made: dict[str, tuple[Standin, Any]] = {}

    def client(service: str, fake: Any) -> Any:
        if service not in made:
            standin = Standin()
            made[service] = (standin, client_answered_by(service, standin))
        standin, client = made[service]
        standin.fake = fake
        return client

    return client
