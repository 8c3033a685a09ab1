"""The moment in which a file of a directory comes into being or into its place, by Linux's inotify.

The bookmark's commit takes a millisecond or two; asking every now and then whether it has begun would miss it.
https://man7.org/linux/man-pages/man7/inotify.7.html
"""

import ctypes
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MOVED_TO = 0x080
CREATED = 0x100
# struct inotify_event and the longest name that a file can have
LARGEST_EVENT_BYTES = 16 + 256


@contextmanager
def watching(directory: Path, event: int, action: Callable[[], None]) -> Iterator[None]:
    """Call ``action`` at the first ``event`` (`CREATED` or `MOVED_TO`) in the directory, in a thread, once."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0 or library.inotify_add_watch(descriptor, os.fsencode(directory), event) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(directory))
    wake, done = os.pipe()

    def wait() -> None:
        ready, _, _ = select.select([descriptor, wake], [], [])
        if descriptor in ready:
            os.read(descriptor, LARGEST_EVENT_BYTES)
            action()

    watcher = threading.Thread(target=wait, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        os.close(done)
        watcher.join()
        os.close(wake)
        os.close(descriptor)
