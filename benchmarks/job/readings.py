"""Readings for the benchmark, the same ones every time: canonical lines, as the transform leaves them."""

import gzip
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

FIRST_SECOND = 1_760_486_400
"""2025-10-15T00:00:00Z."""

DAY_SECONDS = 86_400
DAYS = 3
DEVICES = 1_000
REPEAT_EVERY = 1_000
"""A producer that is not answered sends again: every so many lines are one from shortly before."""


def line(device: int, temperature: float, timestamp: float) -> str:
    """A reading of some 100 bytes, with two fields that the table does not have."""
    return (
        f'{{"device_id":"sensor-{device:05d}","temperature":{temperature},"timestamp":{timestamp},'
        f'"battery":3.{device % 90 + 10},"firmware":"2.4.{device % 7}"}}\n'
    )


def lines(count: int) -> Iterator[str]:
    """Yield so many readings of `DEVICES` devices over `DAYS` days, in the order of their times."""
    chance = random.Random(17)  # noqa: S311  the same readings every time
    levels = [chance.uniform(5, 30) for _ in range(DEVICES)]
    recent = ""
    for number in range(count):
        if number % REPEAT_EVERY == REPEAT_EVERY - 1:
            yield recent
            continue
        device = chance.randrange(DEVICES)
        levels[device] += chance.uniform(-0.2, 0.2)
        timestamp = FIRST_SECOND + number * DAYS * DAY_SECONDS / count
        written = line(device, round(levels[device], 2), round(timestamp, 3))
        if number % REPEAT_EVERY == 0:
            recent = written
        yield written


def packed(written: Iterable[str]) -> bytes:
    """Return lines as a gzip file, the same bytes every time."""
    return gzip.compress("".join(written).encode(), 6, mtime=0)


def write_files(directory: Path, count: int, files: int) -> list[Path]:
    """Write ``count`` readings into gzip files of equal size, and return their paths."""
    directory.mkdir(parents=True)
    source = lines(count)
    paths = []
    for number in range(files):
        size = count // files + (number < count % files)
        path = directory / f"temperature-{number:03d}.gz"
        path.write_bytes(packed(islice(source, size)))
        paths.append(path)
    return paths
