"""The memory of a process while something happens."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 1024 * 1024
SAMPLE_SECONDS = 0.1


def resident_bytes(pid: int) -> int:
    """Return what a process has in memory (VmRSS: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html)."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None, f"the process {pid} has ended"
    return int(found[1]) * 1024


@dataclass
class Memory:
    """Bytes in memory before, at most, and afterwards."""

    before: int
    peak: int
    after: int = 0

    def text(self) -> str:
        """Return the three in MiB."""
        return " / ".join(f"{value / MEBIBYTE:,.0f}" for value in (self.before, self.peak, self.after)) + " MiB"


@contextmanager
def watched(pid: int) -> Iterator[Memory]:
    """Measure a process as long as the block lasts."""
    memory = Memory(resident_bytes(pid), resident_bytes(pid))
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            memory.peak = max(memory.peak, resident_bytes(pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield memory
    finally:
        done.set()
        watcher.join()
    memory.after = resident_bytes(pid)
    memory.peak = max(memory.peak, memory.after)
