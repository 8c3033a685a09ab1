"""Processes that are measured: what a request takes in time, in processor time and in memory."""

import json
import os
import subprocess
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from telemetry_lake import processes

SAMPLE_SECONDS = 0.25
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Measurement:
    """What one request took; ``peak_bytes`` is the resident memory of the process and all below it."""

    seconds: float
    processor_seconds: float
    peak_bytes: int
    result: Any


def tree(pid: int) -> set[int]:
    """Return a process and all below it."""
    return {pid, *processes.descendants(pid, processes.running())}


def processor_seconds(pids: set[int]) -> float:
    """Return the processor time of processes and of the children that they have waited for.

    Fields 14 to 17: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    """
    ticks = 0
    for pid in pids:
        fields = _read(pid, "stat").rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS_A_SECOND


def resident_bytes(pids: set[int]) -> int:
    """Return the resident memory of processes; https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html."""
    return PAGE_BYTES * sum(int(fields[1]) for pid in pids for fields in [_read(pid, "statm").split()] if fields)


def _read(pid: int, name: str) -> str:
    try:
        return (processes.PROC / str(pid) / name).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has just ended


class MemoryWatch(AbstractContextManager["MemoryWatch"]):
    """Looks at the memory of a process tree now and then, from another thread."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, resident_bytes(tree(self._pid)))
            if self._is_over.wait(SAMPLE_SECONDS):
                return


class Contestant:
    """A process of `benchmarks.job.worker`."""

    def __init__(self, python: Path, module: str, log: Path, environment: Mapping[str, str]) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(python), "-m", module],
                env=environment,
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )

    def ask(self, operation: str, **arguments: Any) -> Measurement:
        """Have an operation carried out, and measure it.

        Raises:
            RuntimeError: it failed; the message has the end of the process's log.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        before = processor_seconds(tree(self._process.pid))
        with MemoryWatch(self._process.pid) as memory:
            stdin.write(json.dumps({"operation": operation, "arguments": arguments}) + "\n")
            stdin.flush()
            answer = stdout.readline()
        if not answer:
            raise RuntimeError(f"{operation} failed:\n{self._log.read_text()[-5000:]}")
        after = processor_seconds(tree(self._process.pid))
        given = json.loads(answer)
        return Measurement(given["seconds"], after - before, memory.peak_bytes, given["result"])

    def close(self) -> None:
        """End the process and what it has started."""
        running = processes.running()
        known = [running[pid] for pid in processes.descendants(self._process.pid, running)]
        self._process.terminate()
        self._process.wait(20)
        processes.end(known)
