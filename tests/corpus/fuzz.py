"""Look for records on which the contract, the transform and the oracle differ: the corpus, mutated, for some minutes.

``python -m tests.corpus.fuzz --minutes 5``; ``make fuzz MINUTES=5``. What is found is written to a file, made as small
as it gets, and the command ends with 1. ``--record FILE`` looks at one such file again.
"""

import argparse
import hashlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.corpus.cases import NUMBERS, READING, SPOILING_BYTES, STRING_PIECES, VALUES, cases
from tests.corpus.checking import check
from tests.corpus.verdicts import print_counts

FOUND = Path("build/fuzz")
LONGEST_SEED_BYTES = 4096
LONGEST_RECORD_BYTES = 16_384
REPORT_SECONDS = 10.0

Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]

_TOKENS = [text.encode() for text in (*NUMBERS, *VALUES, *STRING_PIECES)]


def _place(chance: random.Random, record: bytes) -> int:
    return chance.randrange(len(record) + 1)


def _insert_byte(chance: random.Random, record: bytes, _seeds: Sequence[bytes]) -> bytes:
    place = _place(chance, record)
    return record[:place] + bytes([chance.choice(SPOILING_BYTES)]) + record[place:]


def _replace_byte(chance: random.Random, record: bytes, _seeds: Sequence[bytes]) -> bytes:
    place = _place(chance, record)
    return record[:place] + bytes([chance.randrange(256)]) + record[place + 1 :]


def _flip_bit(chance: random.Random, record: bytes, _seeds: Sequence[bytes]) -> bytes:
    place = _place(chance, record)
    return (
        record[:place]
        + bytes(byte ^ (1 << chance.randrange(8)) for byte in record[place : place + 1])
        + record[place + 1 :]
    )


def _delete_range(chance: random.Random, record: bytes, _seeds: Sequence[bytes]) -> bytes:
    place = _place(chance, record)
    return record[:place] + record[place + chance.randrange(1, 12) :]


def _repeat_range(chance: random.Random, record: bytes, _seeds: Sequence[bytes]) -> bytes:
    place, length = _place(chance, record), chance.randrange(1, 40)
    return record[:place] + record[place : place + length] * chance.randrange(2, 40) + record[place + length :]


def _insert_token(chance: random.Random, record: bytes, _seeds: Sequence[bytes]) -> bytes:
    place = _place(chance, record)
    return record[:place] + chance.choice(_TOKENS) + record[place:]


def _insert_seed(chance: random.Random, record: bytes, seeds: Sequence[bytes]) -> bytes:
    place = _place(chance, record)
    return record[:place] + chance.choice(seeds) + record[place:]


def _join_with_seed(chance: random.Random, record: bytes, seeds: Sequence[bytes]) -> bytes:
    other = chance.choice(seeds)
    return chance.choice([record + b"\n" + other, b"[" + record + b"," + other + b"]", record + other])


def _cross_with_seed(chance: random.Random, record: bytes, seeds: Sequence[bytes]) -> bytes:
    other = chance.choice(seeds)
    return record[: _place(chance, record)] + other[_place(chance, other) :]


def _replace_number(chance: random.Random, record: bytes, _seeds: Sequence[bytes]) -> bytes:
    number = chance.choice(
        [
            repr(chance.uniform(-300, 300)),
            repr(chance.gauss(0, 1) * 10.0 ** chance.randrange(-320, 308)),
            str(chance.getrandbits(chance.randrange(1, 200))),
        ]
    )
    return record.replace(chance.choice([b"21.5", b"1792034000.25"]), number.encode(), 1)


MUTATIONS: Sequence[Mutation] = (
    _insert_byte,
    _replace_byte,
    _flip_bit,
    _delete_range,
    _repeat_range,
    _insert_token,
    _insert_seed,
    _join_with_seed,
    _cross_with_seed,
    _replace_number,
)


def mutated(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return a seed after one to six mutations."""
    record = chance.choice(seeds)
    for _ in range(chance.randrange(1, 7)):
        record = chance.choice(MUTATIONS)(chance, record, seeds)[:LONGEST_RECORD_BYTES]
    return record


def complaint(record: bytes) -> str | None:
    """Return what is wrong about how a record is judged, None if nothing is."""
    try:
        check(record)
    except Exception as error:  # noqa: BLE001  whatever is raised is what is looked for
        return f"{type(error).__name__}: {error}"
    return None


def smallest(record: bytes) -> bytes:
    """Take away from a record what can go without its complaint going."""
    step = len(record) // 2
    while step:
        place = 0
        while place < len(record):
            shorter = record[:place] + record[place + step :]
            if complaint(shorter):
                record = shorter
            else:
                place += step
        step //= 2
    return record


def keep(record: bytes) -> Path:
    """Write a record that was found to a file named by its content."""
    FOUND.mkdir(parents=True, exist_ok=True)
    path = FOUND / hashlib.sha256(record).hexdigest()[:16]
    path.write_bytes(record)
    return path


def fuzz(minutes: float, seed: int) -> int:
    """Judge mutated records until the time is over or one is found; return the exit code."""
    chance = random.Random(seed)
    seeds = [READING] * 50 + [case.record for case in cases() if 0 < len(case.record) <= LONGEST_SEED_BYTES]
    print(f"fuzzing {len(seeds):,} seeds for {minutes:g} min; again with --seed {seed}", flush=True)
    verdicts: Counter[str] = Counter()
    started = reported = time.monotonic()
    records = 0
    while time.monotonic() - started < minutes * 60:
        record = mutated(chance, seeds)
        records += 1
        try:
            verdicts += check(record)
        except Exception as error:  # noqa: BLE001  whatever is raised is what is looked for
            found = smallest(record)
            print(f"after {records:,} records: {type(error).__name__}: {error}", file=sys.stderr)
            print(f"{found!r}: {complaint(found)}", file=sys.stderr)
            print(f"look again: python -m tests.corpus.fuzz --record {keep(found)}", file=sys.stderr)
            return 1
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            print(
                f"  {(reported - started) / 60:.1f} min: {records:,} records, {verdicts.total():,} verdicts", flush=True
            )
    print_counts({"fuzz": (records, verdicts)})
    print(f"{records:,} records, nothing found")
    return 0


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="to do the same again")
    parser.add_argument("--record", type=Path, help="look at one record, from a file")
    arguments = parser.parse_args()
    if arguments.record is None:
        return fuzz(arguments.minutes, arguments.seed)
    wrong = complaint(arguments.record.read_bytes())
    print(wrong or "nothing is wrong about it")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
