"""What the embedded endpoint answers to the SAM CLI, which is a process of an environment of its own."""

import atexit
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.contracts.recording import Recorder, install
from tests.judging import REPOSITORY

DIRECTORY_VARIABLE = "API_ANSWERS_DIRECTORY"


def record_in_this_process() -> None:
    """Judge every answer until the process ends, and leave what was found in the directory that a variable names."""
    # What the SAM CLI asks is its own affair.
    recorder = Recorder(judges_requests=False, judges_answers=True)
    install(recorder)
    file = Path(os.environ[DIRECTORY_VARIABLE]) / f"{os.getpid()}.json"
    atexit.register(lambda: file.write_text(recorder.dump()))


@contextmanager
def answers_to_sam(recorder: Recorder) -> Iterator[None]:
    """Tell ``recorder`` what the SAM CLI was answered that was started inside of the block."""
    before = {name: os.environ.get(name) for name in (DIRECTORY_VARIABLE, "PYTHONPATH")}
    with tempfile.TemporaryDirectory() as directory:
        os.environ[DIRECTORY_VARIABLE] = directory
        os.environ["PYTHONPATH"] = os.pathsep.join((str(Path(__file__).parent / "in_sam"), str(REPOSITORY)))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            for file in sorted(Path(directory).glob("*.json")):
                recorder.load(file.read_text())
