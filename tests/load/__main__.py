"""Run with ``python -m tests.load``: prints what was acknowledged, throttled and stored, and the endpoint's memory.

The exit code is 0 if the endpoint throttles as AWS does, loses nothing that it acknowledged, and its memory is bounded.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.load.memory import MEBIBYTE, Memory, watched
from tests.load.offers import BUCKET, OFFERS, Offer, Outcome, prepare, produce, settle
from tests.unit.local.endpoint_process import REGION, EndpointProcess

OBJECT_BYTES = 32 * MEBIBYTE
# Requests that are being answered, Firehose's buffers, and what Python's allocator keeps.
MOST_GROWTH_BYTES = 400 * MEBIBYTE


def offered(endpoint: EndpointProcess, seconds: float) -> list[str]:
    """Offer ten times what a shard takes, in records and in bytes, and return what is wrong."""
    findings = []
    for offer in OFFERS:
        prepare(endpoint, offer)
        with watched(endpoint.process.pid) as memory:
            outcome = produce(endpoint, offer, seconds)
            settle(endpoint, offer, outcome)
        print(line(offer, outcome, memory), flush=True)
        findings += [*outcome.findings(offer), *growth(offer.name, memory)]
    return findings


def line(offer: Offer, outcome: Outcome, memory: Memory) -> str:
    """Return what is printed of an offer."""
    return (
        f"{offer.name:<9}{outcome.seconds:6.1f} s  offered {outcome.offered:,} "
        f"({outcome.times_the_limit(offer):.1f} times the limit)  acknowledged {len(outcome.acknowledged):,}  "
        f"throttled {outcome.throttled:,}  in the stream {outcome.in_stream.total():,}  "
        f"delivered {len(outcome.delivered):,}  memory {memory.text()}"
    )


def growth(name: str, memory: Memory) -> list[str]:
    """Return what is wrong with the memory."""
    grown = memory.peak - memory.before
    return [f"{name}: the memory grew by {grown / MEBIBYTE:,.0f} MiB"] if grown > MOST_GROWTH_BYTES else []


def through_s3(endpoint: EndpointProcess, mebibytes: int) -> list[str]:
    """Put and get so much, and return what is wrong."""
    s3 = endpoint.client("s3")
    began = time.monotonic()
    count = mebibytes * MEBIBYTE // OBJECT_BYTES
    findings = []
    with watched(endpoint.process.pid) as memory:
        for number in range(count):
            body = b"%08d" % number * (OBJECT_BYTES // 8)
            s3.put_object(Bucket=BUCKET, Key=f"object/{number % 8}", Body=body)
            if s3.get_object(Bucket=BUCKET, Key=f"object/{number % 8}")["Body"].read() != body:
                findings.append(f"objects: {number} is not what was put")
    seconds = time.monotonic() - began
    print(f"{'objects':<9}{seconds:6.1f} s  put and got {count} of 32 MiB  memory {memory.text()}", flush=True)
    return findings + growth("objects", memory)


def run(seconds: float, mebibytes: int, directory: Path) -> list[str]:
    """Carry everything out on an endpoint of its own, and return what is wrong."""
    endpoint = EndpointProcess(directory)
    try:
        endpoint.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        print("memory: before / at most / afterwards", flush=True)
        return offered(endpoint, seconds) + through_s3(endpoint, mebibytes)
    finally:
        endpoint.stop()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description="Ten times what a shard takes.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each offer lasts (default: 60)")
    parser.add_argument("--mebibytes", type=int, default=2048, help="how much goes through S3 (default: 2048)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="load-") as directory:
        findings = run(arguments.seconds, arguments.mebibytes, Path(directory))
    for finding in findings:
        print(f"FAILED {finding}")
    print("failed" if findings else "throttled as on AWS, nothing lost, memory bounded")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
