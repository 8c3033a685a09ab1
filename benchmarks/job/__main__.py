"""What the Glue job costs, beside others, in one run: ``make benchmark-job``.

First the conversion of 3,000,000 readings in 60 gzip files, each contestant in a warm process of its own, in turn with
the others: seconds, processor seconds and ratios are medians over the rounds. The two on Spark read from S3 and write
to it, at an endpoint on this machine that shares its processors; the others have local files. The job does all that it
does in production: it judges each line, removes repeats, sorts, stages, counts, publishes, and moves the bookmark.
Processor seconds are those of the contestant's own processes; unlike seconds, they hardly hang on who else is busy.

Then a batch of 100,000 readings, half of which are stored already, into tables of 30 and of 300 days with the same last
days: requests and bytes as the endpoint's access log has them, times as pairs in turn.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from benchmarks.job import readings
from benchmarks.job.contestants import Contestant, Measurement
from telemetry_lake import toolchain
from telemetry_lake.local import spark_runtime
from tests import counted_endpoint
from tests.counted_endpoint import CountedEndpoint, Request

PROJECT = toolchain.project_directory()
RAW_PREFIX = "raw_data/2025/10/15/00/"
TABLE_PREFIX = "curated/device_telemetry/"
MEGABYTE = 1_000_000

JOB = "this job"
PLAIN = "plain Spark job"
PLAIN_FILE_A_DAY = "plain Spark job, a file a day"
DUCKDB = "DuckDB"
DUCKDB_LIKE_THE_JOB = "DuckDB, distinct and sorted"
GUNZIP = "gunzip alone"

TABLE_DAYS = (30, 300)
ROWS_A_DAY = 14_400
TABLE_DEVICES = 1_000
LAST_DAY = readings.FIRST_SECOND
"""The first second of the last day of every table."""

BATCH_DAYS = 8
BATCH_READINGS = 100_000


@dataclass(frozen=True)
class Bench:
    """Everything that runs during the benchmark."""

    directory: Path
    endpoint: CountedEndpoint
    s3: Any
    job: Contestant
    plain: Contestant
    frames: Contestant

    def make_bucket(self, name: str) -> None:
        """Make a bucket at the endpoint."""
        location = {"LocationConstraint": counted_endpoint.REGION}
        self.s3.create_bucket(Bucket=name, CreateBucketConfiguration=location)

    def upload(self, bucket: str, paths: Sequence[Path]) -> None:
        """Put files where Firehose would."""
        self.make_bucket(bucket)
        for path in paths:
            self.s3.put_object(Bucket=bucket, Key=f"{RAW_PREFIX}{path.name}", Body=path.read_bytes())


@contextlib.contextmanager
def bench(directory: Path) -> Iterator[Bench]:
    """Start the endpoint and the contestants, and stop them at the end."""
    with contextlib.ExitStack() as stack:
        (directory / "endpoint").mkdir()
        endpoint = stack.enter_context(counted_endpoint.serve(Path(sys.executable), directory / "endpoint"))
        os.environ.update(counted_endpoint.client_environment(endpoint.url))
        runtime = spark_runtime.prepare(PROJECT / ".tools", toolchain.GLUE_VERSION, print)

        def start(name: str, python: Path, environment: Mapping[str, str]) -> Contestant:
            module = "benchmarks.job.frames_worker" if name == "frames" else "benchmarks.job.spark_worker"
            contestant = Contestant(python, module, directory / f"{name}.log", environment)
            stack.callback(contestant.close)
            return contestant

        def start_spark(name: str) -> Contestant:
            home = directory / name
            home.mkdir()
            properties = home / "spark.conf"
            text = spark_runtime.spark_defaults(runtime, endpoint.url, counted_endpoint.REGION, home, lives_long=True)
            properties.write_text(text)
            environment = {
                **runtime.environment(home),
                **counted_endpoint.client_environment(endpoint.url),
                "PYSPARK_SUBMIT_ARGS": spark_runtime.submit_arguments(properties),
                "GLUE_BOOKMARK_FILE": str(home / "bookmark.json"),
            }
            return start(name, runtime.python, environment)

        frames_python = toolchain.environment_python(PROJECT, "benchmarks")
        yield Bench(
            directory,
            endpoint,
            boto3.client("s3"),
            start_spark("job"),
            start_spark("plain"),
            start("frames", frames_python, {"PATH": os.defpath, "HOME": str(directory)}),
        )


# ------------------------------------------------------------------------------------------------- the conversion


def convert(place: Bench, raw: Path, count: int, rounds: int) -> None:
    """Measure the conversion of ``count`` readings in ``raw``, and print a table."""
    place.upload("raw", sorted(raw.iterdir()))
    for lake in ("job", "plain"):
        place.make_bucket(lake)
    place.job.ask("create_table", lake="job")
    repeats = sum(number % readings.REPEAT_EVERY == readings.REPEAT_EVERY - 1 for number in range(count))
    out = str(place.directory / "out")

    def local(operation: str) -> Callable[[int], Measurement]:
        return lambda _number: place.frames.ask(operation, raw=str(raw), out=out)

    runs: Mapping[str, Callable[[int], Measurement]] = {
        JOB: lambda number: place.job.ask("job", raw="raw", lake="job", run_id=f"jr_{number}"),
        PLAIN: lambda _number: place.plain.ask("plain", raw="raw", lake="plain"),
        PLAIN_FILE_A_DAY: lambda _number: place.plain.ask("plain_file_a_day", raw="raw", lake="plain"),
        DUCKDB: local("duckdb"),
        DUCKDB_LIKE_THE_JOB: local("duckdb_like_the_job"),
        "Polars": local("polars"),
        GUNZIP: lambda _number: place.frames.ask("gunzip", raw=str(raw)),
    }
    stored = {JOB: count - repeats, DUCKDB_LIKE_THE_JOB: count - repeats, GUNZIP: 0}
    taken: dict[str, list[Measurement]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            measured = run(number)
            worker, arguments = {
                JOB: (place.job, {"lake": "job"}),
                PLAIN: (place.plain, {"lake": "plain"}),
                PLAIN_FILE_A_DAY: (place.plain, {"lake": "plain"}),
            }.get(name, (place.frames, {"out": out}))
            if name != GUNZIP:
                rows = worker.ask("count", **arguments).result
                assert rows == stored.get(name, count), f"{name} has stored {rows} rows"
                worker.ask("clean", **arguments)
            _tell(f"round {number}{' (to warm up)' if number == 0 else ''}: {name}", measured)
            if number:
                taken[name].append(measured)
    print_conversion(taken, count)


def print_conversion(taken: Mapping[str, Sequence[Measurement]], count: int) -> None:
    """Print a row for each contestant; the ratios are medians of those of each round."""
    rounds = len(taken[JOB])
    print(f"\n{count:,} readings in gzip files to Parquet by day, the median of {rounds} rounds in turn\n")
    print("| contestant | s | x DuckDB | x plain Spark | processor s | x DuckDB | x plain Spark | peak MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, measured in taken.items():
        cells = []
        for attribute in ("seconds", "processor_seconds"):
            values = [getattr(each, attribute) for each in measured]
            cells.append(f"{statistics.median(values):.1f}")
            for other in (DUCKDB, PLAIN):
                others = [getattr(each, attribute) for each in taken[other]]
                cells.append(f"{median_ratio(values, others):.2f}")
        peak = max(each.peak_bytes for each in measured) / MEGABYTE
        print(f"| {name} | {' | '.join(cells)} | {peak:,.0f} |")


def median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios, pair by pair."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


# ---------------------------------------------------------------------------------------------------- the batches


def batch_lines() -> Iterator[str]:
    """Yield the batch: as many stored readings as new ones, of the last days of the tables."""
    spacing = readings.DAY_SECONDS / ROWS_A_DAY
    each = BATCH_READINGS // BATCH_DAYS // 2
    for day in range(BATCH_DAYS):
        begin = LAST_DAY - day * readings.DAY_SECONDS
        for number in range(each):
            # As `spark_worker.Contestants.fill_table` has it, which fills each day alike.
            row = number * 2
            timestamp = begin + row * spacing
            yield readings.line(row % TABLE_DEVICES, (500 + row % 2_400) / 100, timestamp)
            yield readings.line(row % TABLE_DEVICES, (500 + row % 2_400) / 100, timestamp + 0.5)


def requests_on_table(requests: Sequence[Request], lake: str) -> list[Request]:
    """Return those on a lake's table."""
    return [request for request in requests if request.is_on(lake, TABLE_PREFIX)]


def load_batches(place: Bench, pairs: int) -> None:
    """Measure the same batch into tables of different age, and print a table."""
    path = place.directory / "batch.gz"
    path.write_bytes(readings.packed(batch_lines()))
    place.upload("batch", [path])
    for days in TABLE_DAYS:
        place.make_bucket(f"days{days}")
        place.job.ask("create_table", lake=f"days{days}")
        first = LAST_DAY - (days - 1) * readings.DAY_SECONDS
        place.job.ask(
            "fill_table",
            lake=f"days{days}",
            first_second=first,
            days=days,
            rows_a_day=ROWS_A_DAY,
            devices=TABLE_DEVICES,
        )
    taken: dict[int, list[Measurement]] = {days: [] for days in TABLE_DAYS}
    counted: dict[int, list[Request]] = {}
    for number in range(pairs + 1):
        # Whoever comes first in a pair may have it easier: they take turns.
        for days in TABLE_DAYS if number % 2 else reversed(TABLE_DAYS):
            lake = f"days{days}"
            with place.endpoint.counting() as requests:
                measured = place.job.ask("job", raw="batch", lake=lake, run_id=f"jr_batch{number}")
            counts = measured.result["counts"]
            assert counts["new"] == counts["duplicate"] == BATCH_READINGS // 2, counts
            counted[days] = requests_on_table(requests, lake)
            place.job.ask("clean", lake=lake)
            _tell(f"pair {number}{' (to warm up)' if number == 0 else ''}: {days} days", measured)
            if number:
                taken[days].append(measured)
    print_batches(taken, counted)


def print_batches(taken: Mapping[int, Sequence[Measurement]], counted: Mapping[int, Sequence[Request]]) -> None:
    """Print a row for each quantity."""
    few, many = TABLE_DAYS
    print(f"\nA batch of {BATCH_READINGS:,} readings, half of them stored already, {len(taken[few])} pairs in turn\n")
    print(f"| | {few} days | {many} days | {many} / {few} |")
    print("| --- | ---: | ---: | ---: |")
    rows: dict[str, Callable[[int], Sequence[float]]] = {
        "S3 requests on the table": lambda days: [len(counted[days])],
        "bytes read from the table": lambda days: [sum(request.answered_bytes for request in counted[days])],
        "s": lambda days: [each.seconds for each in taken[days]],
        "processor s": lambda days: [each.processor_seconds for each in taken[days]],
        "peak MB": lambda days: [max(each.peak_bytes for each in taken[days]) / MEGABYTE],
    }
    for name, values_of in rows.items():
        values = {days: values_of(days) for days in TABLE_DAYS}
        shown = [f"{statistics.median(values[days]):,.{0 if len(values[days]) == 1 else 2}f}" for days in TABLE_DAYS]
        print(f"| {name} | {shown[0]} | {shown[1]} | {median_ratio(values[many], values[few]):.2f} |")


# ---------------------------------------------------------------------------------------------------- the profile


def show_profile(place: Bench) -> None:
    """Print where the job's time goes."""
    print("\nWhere the job's processor time goes: each row adds one thing to the rows above it\n")
    print("| | processor s | added | share |")
    print("| --- | ---: | ---: | ---: |")
    rungs = place.job.ask("profile_rungs").result
    seconds = []
    for rung in rungs:
        measured = []
        for _ in range(3):
            place.job.ask("clean", lake="job")
            measured.append(place.job.ask("climb", rung=rung, raw="raw", lake="job"))
        # The first one warms up.
        seconds.append(min(each.processor_seconds for each in measured[1:]))
    for rung, total, before in zip(rungs, seconds, [0.0, *seconds], strict=False):
        print(f"| {rung} | {total:.1f} | {total - before:.1f} | {(total - before) / seconds[-1]:.0%} |")
    print(f"\nThe plan of the judged lines\n\n{place.job.ask('plan', raw='raw').result}")


def _tell(what: str, measured: Measurement) -> None:
    steps = measured.result.get("seconds_by_step", "") if isinstance(measured.result, dict) else ""
    print(
        f"{time.strftime('%H:%M:%S')} {what}: {measured.seconds:.1f} s, {measured.processor_seconds:.1f} processor s, "
        f"{measured.peak_bytes / MEGABYTE:,.0f} MB {steps}",
        file=sys.stderr,
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=3_000_000, help="(default: 3000000)")
    parser.add_argument("--files", type=int, default=60, help="(default: 60)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the conversion, 0 for none (default: 5)")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of batches, 0 for none (default: 7)")
    parser.add_argument("--profile", action="store_true", help="also show where the job's time goes")
    given = parser.parse_args(arguments)
    if given.profile and not given.rounds:
        parser.error("--profile needs a round: it looks at the warm contestant of the conversion")
    with tempfile.TemporaryDirectory(prefix="telemetry-lake-benchmark-") as temporary:
        directory = Path(temporary)
        print(f"Writing {given.readings:,} readings into {given.files} files ...", file=sys.stderr, flush=True)
        readings.write_files(directory / "raw", given.readings, given.files)
        with bench(directory) as place:
            load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
            print(f"{os.cpu_count()} processors; load of the machine at the beginning: {load}")
            if given.rounds:
                convert(place, directory / "raw", given.readings, given.rounds)
            if given.pairs:
                load_batches(place, given.pairs)
            if given.profile:
                show_profile(place)
            print(f"Load of the machine at the end: {', '.join(f'{each:.1f}' for each in os.getloadavg())}")


if __name__ == "__main__":
    main()
