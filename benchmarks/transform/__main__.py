"""How fast the transform is, beside others, in one run: ``make benchmark-transform``.

Every row is measured in turn with the others, over and over, and its fastest round counts: what a busy machine adds is
not the handler's. The transform does all that it does in production (verdicts, dead letters, log and metrics) except
for putting the dead letters into S3.
"""

import argparse
import base64
import contextlib
import cProfile
import io
import json
import os
import pstats
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.transform import contestants

FUNCTIONS = Path(__file__).resolve().parents[2] / "functions"
ARRIVED_AT_MILLISECONDS = 1_792_034_100_123
# What the function's buffer of 1 MiB holds of readings of 75 bytes, about.
RECORDS = 12_000
ENVIRONMENT = {
    "AWS_DEFAULT_REGION": "ap-northeast-1",
    "STAGE": "benchmark",
    "POWERTOOLS_SERVICE_NAME": "transform",
    "POWERTOOLS_METRICS_NAMESPACE": "TelemetryLake",
    "DLQ_BUCKET": "none",
    "DLQ_PREFIX": "dlq/raw_json/",
    "TEMPERATURE_MIN": "-100",
    "TEMPERATURE_MAX": "200",
    "MAX_FUTURE_SECONDS": "300",
    "MAX_AGE_DAYS": "3650",
}
LAMBDA_CONTEXT: Any = SimpleNamespace(
    function_name="transform",
    memory_limit_in_mb=1024,
    invoked_function_arn="arn:aws:lambda:ap-northeast-1:123456789012:function:transform",
    aws_request_id="00000000-0000-0000-0000-000000000000",
)

Handler = Callable[[dict[str, Any]], dict[str, Any]]


def reading(number: int, **others: Any) -> bytes:
    """A reading as a device sends it, some 75 bytes."""
    fields = {
        "device_id": f"sensor-{number % 5}",
        "temperature": round(20 + number % 100 / 7, 2),
        "timestamp": 1_792_034_000 + number / 1000,
        **others,
    }
    return json.dumps(fields).encode()


OTHERS = {"firmware": "2.4.1", "battery": 3.71, "rssi": -71, "location": {"site": "Tokyo", "floor": 3}}
WORKLOADS: Mapping[str, tuple[int, Callable[[int], bytes]]] = {
    "good, single": (1, reading),
    "good, other fields": (1, lambda number: reading(number, **OTHERS)),
    "good, 200 bytes": (1, lambda number: reading(number, note="x" * 110)),
    "1 % bad": (1, lambda number: b"no reading" if number % 100 == 0 else reading(number)),
    "10 % bad": (1, lambda number: reading(number, temperature=999) if number % 10 == 0 else reading(number)),
    "all bad": (1, lambda number: reading(number, temperature=999)),
    "good, 50 packed": (50, lambda number: b"\n".join(reading(number * 50 + place) for place in range(50))),
}
"""What is in a record: how many readings, and how they are made."""


def event_of(make: Callable[[int], bytes], records: int) -> dict[str, Any]:
    """Firehose's event for a Kinesis source."""
    return {
        "invocationId": "00000000-0000-0000-0000-000000000000",
        "deliveryStreamArn": "arn:aws:firehose:ap-northeast-1:123456789012:deliverystream/temperature-to-s3",
        "region": "ap-northeast-1",
        "records": [
            {
                "recordId": f"4966{number:052d}",
                "approximateArrivalTimestamp": ARRIVED_AT_MILLISECONDS,
                "data": base64.b64encode(make(number)).decode(),
                "kinesisRecordMetadata": {
                    "shardId": "shardId-000000000000",
                    "partitionKey": f"sensor-{number % 5}",
                    "sequenceNumber": f"4966{number:052d}",
                    "subsequenceNumber": 0,
                    "approximateArrivalTimestamp": ARRIVED_AT_MILLISECONDS + number,
                },
            }
            for number in range(records)
        ],
    }


def transform() -> Handler:
    """The transform's own handler; the dead letters are made but not put anywhere."""
    os.environ.update(ENVIRONMENT)
    from transform import handler, store  # noqa: PLC0415  it reads its environment when it is imported

    def put_nowhere(bucket: str, key: str, body: bytes) -> None:
        """Take the place of S3."""

    store.put_dead_letters = put_nowhere
    return lambda event: handler.handler(event, LAMBDA_CONTEXT)


def fastest_seconds(handlers: Mapping[str, Handler], event: dict[str, Any], rounds: int) -> dict[str, float]:
    """The fastest of so many rounds in which each handler takes the event once."""
    best = dict.fromkeys(handlers, float("inf"))
    for _ in range(rounds):
        for name, handler in handlers.items():
            started = time.perf_counter()
            handler(event)
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def measure_handlers(rounds: int, records: int) -> None:
    """Print a table: a row for each workload and handler."""
    handlers: dict[str, Handler] = {
        "floor": contestants.floor,
        "blueprint-like": contestants.blueprint_like,
        "Powertools data classes": contestants.powertools_data_classes,
        "pydantic": contestants.pydantic_model,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        handlers["transform"] = transform()
    print(f"\nHandlers, {records:,} records an event, the fastest of {rounds} rounds in turn\n")
    print(f"{'':<22}{'':<26}{'µs a record':>12}{'x floor':>9}{'blueprint-like / it':>21}")
    for workload, (readings, make) in WORKLOADS.items():
        event = event_of(make, max(20, records // readings))
        count = len(event["records"])
        # What is not made for several readings a record takes none of them.
        able = handlers if readings == 1 else {name: handlers[name] for name in ("floor", "transform")}
        with contextlib.redirect_stdout(io.StringIO()):
            seconds = fastest_seconds(able, event, rounds)
        for name, each in seconds.items():
            usual = seconds.get("blueprint-like")
            print(
                f"{workload if name == 'floor' else '':<22}{name:<26}{each / count * 1e6:>12.2f}"
                f"{each / seconds['floor']:>9.2f}{'' if usual is None else f'{usual / each:.2f}':>21}"
            )
            if readings > 1 and name == "transform":
                print(f"{'':<22}{'  a reading':<26}{each / count / readings * 1e6:>12.2f}")


IMPORTS = {
    "Powertools Logger, Metrics": "from aws_lambda_powertools import Logger, Metrics",
    "and msgspec": "from aws_lambda_powertools import Logger, Metrics\nimport msgspec",
    "transform.handler": "import transform.handler",
    "Powertools and boto3": "from aws_lambda_powertools import Logger, Metrics\nimport boto3",
}


def import_seconds(code: str) -> float:
    """How long a new interpreter takes for some imports."""
    timed = f"import time\nstarted = time.perf_counter()\n{code}\nprint(time.perf_counter() - started)"
    return float(_in_new_interpreter("-c", timed).stdout)


def _in_new_interpreter(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(FUNCTIONS), **ENVIRONMENT}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True, timeout=60
    )


def measure_imports(rounds: int) -> None:
    """Print how long imports take, and what the transform's consists of."""
    taken: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name, code in IMPORTS.items():
            taken[name].append(import_seconds(code))
    first = next(iter(IMPORTS))
    print(f"\nImports, the median of {rounds} rounds in turn, and of the ratios round by round\n")
    print(f"{'':<30}{'ms':>8}{'ratio':>8}")
    for name, seconds in taken.items():
        ratio = statistics.median(each / base for each, base in zip(seconds, taken[first], strict=True))
        print(f"{name:<30}{statistics.median(seconds) * 1e3:>8.1f}{ratio:>8.2f}")
    print(
        "\nWhat the transform's import takes after Powertools (-X importtime, which itself makes everything slower)\n"
    )
    code = f"{IMPORTS[first]}\nimport transform.handler"
    lines = _in_new_interpreter("-X", "importtime", "-c", code).stderr.splitlines()
    names = [line.split("|")[-1].strip() for line in lines]
    for line in lines[names.index("aws_lambda_powertools") + 1 :]:
        own, cumulative, name = (part.strip() for part in line.removeprefix("import time:").split("|"))
        if re.match(r"(msgspec|telemetry_contract|transform|function_support)(\.\w+)?$", name):
            print(f"{name:<40}{int(own) / 1e3:>8.2f} ms own{int(cumulative) / 1e3:>9.2f} ms in all")


def show_profile(records: int) -> None:
    """Print where the time of good single records goes."""
    with contextlib.redirect_stdout(io.StringIO()):
        handler = transform()
        event = event_of(reading, records)
        handler(event)
        profile = cProfile.Profile()
        profile.enable()
        handler(event)
        profile.disable()
    print(f"\nWhere the time of {records:,} good single records goes (under the profiler, which slows calls down)\n")
    pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(12)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of the handlers (default: 20)")
    parser.add_argument("--import-rounds", type=int, default=31, help="rounds of the imports (default: 31)")
    parser.add_argument("--records", type=int, default=RECORDS, help=f"records an event (default: {RECORDS})")
    given = parser.parse_args(arguments)
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} processors")
    measure_handlers(given.rounds, given.records)
    measure_imports(given.import_rounds)
    show_profile(given.records)


if __name__ == "__main__":
    main()
