"""Which processes run on this machine and which of them belong together, from ``/proc`` or, without it, from ``ps``."""

import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A running process; ``pid`` and ``started`` together name it even after the number is used again."""

    pid: int
    parent_pid: int
    group: int
    started: str
    command: str


def running() -> dict[int, Process]:
    """Return all processes of this machine by number, zombies (ended, not yet collected) left out."""
    if (PROC / "self" / "stat").exists():
        return {process.pid: process for process in map(_from_proc, _numbers(PROC)) if process is not None}
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,pgid=,state=,lstart=,command="],  # noqa: S607  where ps is differs between systems
        capture_output=True,
        text=True,
        check=True,
    )
    return {process.pid: process for process in map(_from_ps, listing.stdout.splitlines()) if process is not None}


def _numbers(proc: Path) -> Iterable[int]:
    return (int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal())


def _from_proc(pid: int) -> Process | None:
    # The fields: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html (the name may hold spaces and brackets).
    try:
        status = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent_pid, group, started = status[0], int(status[1]), int(status[2]), status[19]
    return None if state in "ZX" else Process(pid, parent_pid, group, started, command)


def _from_ps(line: str) -> Process | None:
    pid, parent_pid, group, state, *rest = line.split(None, 9)
    if state.startswith("Z"):
        return None
    return Process(int(pid), int(parent_pid), int(group), " ".join(rest[:5]), rest[5] if len(rest) > 5 else "")  # noqa: PLR2004


def descendants(pid: int, processes: Mapping[int, Process]) -> set[int]:
    """Return the numbers of all children of ``pid``, of their children, and so on."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        parent_pid = waiting.pop()
        for child in processes.values():
            if child.parent_pid == parent_pid and child.pid not in found:
                found.add(child.pid)
                waiting.append(child.pid)
    return found


def marked(variable: str, value: str, processes: Iterable[Process]) -> set[int]:
    """Return the processes that were started with ``variable=value`` in their environment; none without ``/proc``."""
    wanted = f"{variable}={value}".encode()
    found: set[int] = set()
    for process in processes:
        try:
            environment = (PROC / str(process.pid) / "environ").read_bytes()
        except OSError:
            continue  # another user's process, or one that has just ended: not ours to look after
        if wanted in environment.split(b"\0"):
            found.add(process.pid)
    return found


def end(known: Collection[Process], seconds: float = 5.0) -> list[Process]:
    """Kill the processes that are still the same ones, and return those that would not go within ``seconds``."""
    for process in still_running(known):
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + seconds
    while (left := still_running(known)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def still_running(known: Collection[Process]) -> list[Process]:
    """Return those of ``known`` that run now, told apart from later processes with the same number."""
    now = running()
    return [process for process in known if process.pid in now and now[process.pid].started == process.started]
