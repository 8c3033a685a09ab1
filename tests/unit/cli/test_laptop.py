"""The laptop's endpoint from outside: ports, stale records, and that nothing is left of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from telemetry_lake import processes
from telemetry_lake.console import OperatorError, Reporter
from telemetry_lake.laptop import MARK_VARIABLE, Instance, Laptop, free_port, port_is_free

# A process that answers as a healthy endpoint does, at the socket that it is given.
ENDPOINT = """
import http.server, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *arguments): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=int(sys.argv[sys.argv.index('--listener') + 1]))
server.serve_forever()
"""
QUIET = Reporter(quiet=True)


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path / "state with space")


@contextmanager
def listening() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def record(laptop: Laptop, instance: Instance) -> None:
    laptop.directory.mkdir(parents=True, exist_ok=True)
    (laptop.directory / "endpoint.json").write_text(json.dumps(asdict(instance)))


def sleeper(mark: str = "", new_session: bool = False) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        env={**os.environ, MARK_VARIABLE: mark},
        start_new_session=new_session,
    )


def started_at(pid: int) -> str:
    return processes.running()[pid].started


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with listening() as port:
        assert not port_is_free(port)
    assert port_is_free(free_port())


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(laptop: Laptop, tmp_path: Path) -> None:
    # GIVEN
    with listening() as port, pytest.raises(OperatorError, match=f"Port {port} is taken"):
        # WHEN / THEN
        laptop.start(tmp_path, port, False, QUIET)
    assert laptop.recorded() is None


def test_another_port_is_used_when_the_last_one_is_taken(
    laptop: Laptop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN a state directory whose port somebody else uses now
    monkeypatch.setattr(sys, "executable", _script(tmp_path, ENDPOINT))
    laptop.directory.mkdir(parents=True)
    with listening() as port:
        (laptop.directory / "port").write_text(str(port))

        # WHEN
        instance = laptop.start(tmp_path, None, False, QUIET)

    # THEN it runs, on another one, and is found again by its state directory
    try:
        assert instance.port != port
        assert Laptop(laptop.directory).instance() == instance
    finally:
        assert laptop.stop(QUIET)
    assert processes.still_running([processes.Process(instance.pid, 0, 0, instance.started, "")]) == []
    assert laptop.instance() is None


def test_two_that_start_in_the_same_moment_have_a_port_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN two state directories with the same last port
    monkeypatch.setattr(sys, "executable", _script(tmp_path, "import time; time.sleep(1)\n" + ENDPOINT))
    laptops = [Laptop(tmp_path / name) for name in ("one", "two")]
    for laptop, port in zip(laptops, [free_port()] * 2, strict=True):
        laptop.directory.mkdir()
        (laptop.directory / "port").write_text(str(port))

    # WHEN both are launched before either serves
    instances = [laptop.launch(tmp_path, None, False, QUIET) for laptop in laptops]

    # THEN both serve, on ports of their own
    try:
        for laptop, instance in zip(laptops, instances, strict=True):
            laptop.wait_until_answering(instance, QUIET)
        assert instances[0].port != instances[1].port
    finally:
        stopped = [laptop.stop(QUIET) for laptop in laptops]
    assert stopped == [True, True]


def test_an_endpoint_that_ends_while_it_starts_shows_its_last_lines_and_leaves_nothing(
    laptop: Laptop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN an endpoint that leaves a child behind and fails
    pid_file = tmp_path / "child"
    code = (
        "import subprocess, time\n"
        f"print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid, file=open({str(pid_file)!r}, 'w'))\n"
        "time.sleep(0.3)\n"
        "sys.exit('the seam glue.x is gone')\n"
    )
    monkeypatch.setattr(sys, "executable", _script(tmp_path, code))

    # WHEN / THEN
    with pytest.raises(OperatorError, match=r"(?s)the seam glue\.x is gone.*endpoint\.log"):
        laptop.start(tmp_path, None, False, QUIET)
    assert laptop.recorded() is None
    assert int(pid_file.read_text()) not in processes.running()


def test_ctrl_c_while_the_endpoint_starts_leaves_nothing(
    laptop: Laptop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN an endpoint that never answers
    monkeypatch.setattr(sys, "executable", _script(tmp_path, "import time; time.sleep(60)"))
    pids: list[int] = []

    def interrupted(_url: str) -> bool:
        recorded = laptop.recorded()
        assert recorded is not None
        pids.append(recorded.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr("telemetry_lake.laptop.answers", interrupted)

    # WHEN
    with pytest.raises(KeyboardInterrupt):
        laptop.start(tmp_path, None, False, QUIET)

    # THEN
    assert len(pids) == 1
    assert pids[0] not in processes.running()
    assert laptop.recorded() is None


def test_a_record_of_a_process_that_has_ended_is_stale(laptop: Laptop) -> None:
    # GIVEN
    ended = sleeper()
    instance = Instance(ended.pid, started_at(ended.pid), 4566, "mark")
    record(laptop, instance)
    assert laptop.instance() == instance

    # WHEN
    ended.kill()
    ended.wait()

    # THEN
    assert laptop.instance() is None
    laptop.clear_stale(QUIET)
    assert laptop.recorded() is None


def test_a_stale_record_never_names_another_process_with_the_same_number(laptop: Laptop) -> None:
    # GIVEN a record whose number now belongs to somebody else, who leads a group
    stranger = sleeper(new_session=True)
    try:
        record(laptop, Instance(stranger.pid, "0", 4566, "mark"))

        # WHEN
        assert laptop.stop(QUIET) is False

        # THEN
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_children_of_an_endpoint_that_was_killed_are_ended_and_strangers_are_not(laptop: Laptop) -> None:
    # GIVEN an endpoint that was killed while a child of it, in a session of its own, goes on
    ended, child, stranger = sleeper("mine"), sleeper("mine", new_session=True), sleeper("other")
    record(laptop, Instance(ended.pid, started_at(ended.pid), 4566, "mine"))
    ended.kill()
    ended.wait()
    try:
        # WHEN
        laptop.clear_stale(QUIET)

        # THEN
        assert child.wait(5) == -signal.SIGKILL
        assert stranger.poll() is None
    finally:
        for process in (child, stranger):
            process.kill()
            process.wait()


def test_an_endpoint_that_ignores_the_request_to_stop_is_ended_by_force(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN
    monkeypatch.setattr("telemetry_lake.laptop.STOP_SECONDS", 0.3)
    deaf = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert deaf.stdout is not None
    deaf.stdout.readline()
    record(laptop, Instance(deaf.pid, started_at(deaf.pid), 4566, "mark"))

    # WHEN
    stopped = laptop.stop(QUIET)

    # THEN
    assert stopped
    assert deaf.wait(5) == -signal.SIGKILL
    deaf.stdout.close()


def test_deleting_data_spares_what_others_put_into_the_directory(laptop: Laptop) -> None:
    # GIVEN
    (laptop.directory / "data" / "s3").mkdir(parents=True)
    (laptop.directory / "port").write_text("4566")
    (laptop.directory / "notes.txt").write_text("mine")

    # WHEN
    laptop.delete_data()

    # THEN
    assert [entry.name for entry in laptop.directory.iterdir()] == ["notes.txt"]


def test_two_commands_cannot_start_and_stop_the_same_endpoint_at_once(laptop: Laptop) -> None:
    with (
        laptop.locked(),
        pytest.raises(OperatorError, match="Another tlake command"),
        Laptop(laptop.directory).locked(),
    ):
        pass


def test_a_half_written_record_names_no_process(laptop: Laptop) -> None:
    # GIVEN
    laptop.directory.mkdir(parents=True)
    (laptop.directory / "endpoint.json").write_text('{"pid": 1')

    # WHEN / THEN
    assert laptop.instance() is None
    laptop.clear_stale(QUIET)
    assert not (laptop.directory / "endpoint.json").exists()


def test_descendants_are_found_over_generations() -> None:
    # GIVEN
    def process(pid: int, parent_pid: int) -> processes.Process:
        return processes.Process(pid, parent_pid, pid, "0", "")

    tree = {
        each.pid: each for each in (process(1, 0), process(10, 1), process(11, 10), process(12, 11), process(20, 1))
    }

    # WHEN / THEN
    assert processes.descendants(10, tree) == {11, 12}


def test_a_zombie_does_not_count_as_running() -> None:
    # GIVEN a process that has ended and that nobody has collected
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    deadline = time.monotonic() + 10
    while child.pid in processes.running() and time.monotonic() < deadline:
        time.sleep(0.05)

    # WHEN / THEN
    assert child.pid not in processes.running()
    child.wait()


def _script(directory: Path, code: str) -> str:
    """An executable that stands in for the Python that would run the endpoint."""
    script = directory / "stand in"
    script.write_text(f"#!/bin/sh\nexec '{sys.executable}' - \"$@\" <<'CODE'\nimport sys\n{code}\nCODE\n")
    script.chmod(0o755)
    return str(script)
