"""The command line in the test's own process."""

import io
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from telemetry_lake import cli


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
