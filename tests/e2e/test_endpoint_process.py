"""The endpoint's process: nothing of it is left, however the command that started it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from telemetry_lake import processes
from telemetry_lake.console import Reporter
from telemetry_lake.laptop import MARK_VARIABLE, Instance, Laptop, port_is_free
from telemetry_lake.toolchain import project_directory

QUIET = Reporter(quiet=True)
TOOLS = project_directory() / ".tools"


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    laptop = Laptop(tmp_path / "state with space")
    yield laptop
    laptop.stop(QUIET)


def eventually(condition: Callable[[], bool], seconds: float = 40.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def left_of(instance: Instance) -> list[processes.Process]:
    """What still runs of an endpoint: itself, its process group, and whatever carries its mark."""
    now = processes.running()
    marked = processes.marked(MARK_VARIABLE, instance.mark, now.values())
    return [each for each in now.values() if each.pid in marked or instance.pid in (each.pid, each.group)]


def test_an_endpoint_that_belongs_to_a_command_ends_when_that_is_killed(laptop: Laptop) -> None:
    # GIVEN a command that has started an endpoint of its own and is at work
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from telemetry_lake.laptop import Laptop\nfrom telemetry_lake.console import Reporter\n"
        "Laptop(Path(sys.argv[1])).start(Path(sys.argv[2]), None, True, Reporter(quiet=True))\n"
        "print('started', flush=True)\ntime.sleep(600)\n"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code, str(laptop.directory), str(TOOLS)], stdout=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "started\n"
    instance = laptop.instance()
    assert instance is not None

    # WHEN it is killed without a chance to clean up
    command.kill()
    command.wait()
    command.stdout.close()

    # THEN nothing of the endpoint is left, and its record is stale
    assert eventually(lambda: left_of(instance) == [])
    assert port_is_free(instance.port)
    assert laptop.instance() is None


def test_ctrl_c_while_the_stack_is_deployed_leaves_nothing(laptop: Laptop) -> None:
    # GIVEN tlake up, which has started its endpoint and goes on to deploy; as in a terminal, where Ctrl-C is not
    # ignored, while whatever runs these tests in the background may have taught its children to ignore it
    code = (
        "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    up = ["-m", "telemetry_lake", "--state-directory", str(laptop.directory), "up"]
    command = subprocess.Popen(
        [sys.executable, "-c", code, *up],
        cwd=project_directory(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert command.stderr is not None
    for line in command.stderr:
        if line.startswith("Building"):
            break
    instance = laptop.instance()
    assert instance is not None

    # WHEN Ctrl-C reaches every process of the terminal's foreground group
    os.killpg(command.pid, signal.SIGINT)
    errors = command.stderr.read()
    command.wait(60)

    # THEN
    assert command.returncode == 130
    assert "Interrupted." in errors
    assert "Traceback" not in errors
    assert left_of(instance) == []
    assert laptop.recorded() is None
    strangers = [each for each in processes.running().values() if str(laptop.directory) in each.command]
    assert strangers == []


def test_an_endpoint_that_is_stopped_and_started_again_keeps_its_port_and_its_objects(laptop: Laptop) -> None:
    # GIVEN an endpoint with an object
    from telemetry_lake.target import Target

    first = laptop.start(TOOLS, None, False, QUIET)
    s3 = Target(first.region, first.endpoint_url, "none").s3
    s3.create_bucket(Bucket="kept", CreateBucketConfiguration={"LocationConstraint": "ap-northeast-1"})
    s3.put_object(Bucket="kept", Key="key", Body=b"body")

    # WHEN
    assert laptop.stop(QUIET)
    assert left_of(first) == []
    second = laptop.start(TOOLS, None, False, QUIET)

    # THEN
    assert second.port == first.port
    assert s3.get_object(Bucket="kept", Key="key")["Body"].read() == b"body"
