"""Runs one command and takes it along when the endpoint dies; started as a script by ``glue_jobs``.

The endpoint holds the other end of this process's standard input and never writes to it. When the endpoint ends in
whatever way, a ``kill -9`` included, the system closes that end, and everything in the process group is killed: the
job's Python, and the Java process that it started, which a signal to the Python alone would leave running.
"""

import os
import signal
import subprocess
import sys
import threading


def _kill_group_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> int:
    """Run the command given as arguments; return its exit code, or 128 and the signal's number as a shell does."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)  # noqa: S603
    threading.Thread(target=_kill_group_at_end_of_input, daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
