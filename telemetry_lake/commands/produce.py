"""``tlake produce``: send readings to the stream."""

import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click

from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.console import OperatorError, Reporter, counts_text
from telemetry_lake.deployment import wait_until_delivering
from telemetry_lake.producer import Delivery, Producer, batch_records_for, batches, paced
from telemetry_lake.readings import (
    Record,
    bad_readings,
    random_readings,
    records_from_csv,
    records_from_lines,
    shuffled,
)
from telemetry_lake.target import Target

DEFAULT_COUNT = 1000


@dataclass(frozen=True)
class Plan:
    """What to send: random readings, or a file; how fast; and where to write down what was acknowledged."""

    count: int = DEFAULT_COUNT
    bad: int = 0
    spread_hours: float = 0
    seed: int | None = None
    file: Path | None = None
    file_format: str = "jsonl"
    records_per_second: float | None = None
    ledger: Path | None = None


@click.command()
@click.option("--count", type=click.IntRange(min=0), default=DEFAULT_COUNT, show_default=True, help="Good readings.")
@click.option("--bad", type=click.IntRange(min=0), default=0, show_default=True, help="Bad records, of every kind.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Records a second (default: as fast as it goes)."
)
@click.option(
    "--spread-hours",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Spread the timestamps over the last hours.",
)
@click.option("--seed", type=int, help="Make the same random readings each time (timestamps aside).")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Send these records instead, one a line; - for standard input.",
)
@click.option("--format", "file_format", type=click.Choice(["jsonl", "csv"]), help="Of --file (default: by its name).")
@click.option(
    "--ledger", type=click.Path(dir_okay=False, path_type=Path), help="Append every acknowledged record here."
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@pass_context
def produce(
    context: Context,
    *,
    count: int,
    bad: int,
    rate: float | None,
    spread_hours: float,
    seed: int | None,
    file: Path | None,
    file_format: str | None,
    ledger: Path | None,
    as_json: bool,
) -> None:
    """Send readings to the stream, and repeat what it did not take."""
    if file is not None and bad:
        raise OperatorError("--bad makes random bad records, and --file sends what it holds.", "Use one of them.")
    by_name = "csv" if file is not None and file.suffix.lower() == ".csv" else "jsonl"
    plan = Plan(count, bad, spread_hours, seed, file, file_format or by_name, rate, ledger)
    context.reporter.line(f"To {context.target.description}")
    delivery = send(context.target, plan, context.reporter)
    if as_json:
        context.reporter.json(summary(delivery))
        return
    context.reporter.result(f"{delivery.acknowledged:,} records acknowledged ({counts_text(delivery.by_shard)})")
    if delivery.bad:
        context.reporter.result(f"{delivery.bad:,} of them bad ({counts_text(delivery.by_fault)})")
    if delivery.resent:
        context.reporter.result(f"{delivery.resent:,} sent again after Kinesis had refused them")


def send(target: Target, plan: Plan, reporter: Reporter) -> Delivery:
    """Wait until Firehose delivers, then send what the plan says, with progress.

    Raises:
        OperatorError: Firehose is not ACTIVE, or Kinesis went on refusing records.
    """
    wait_until_delivering(target, reporter)
    with ExitStack() as files:
        ledger = files.enter_context(plan.ledger.open("a", encoding="utf-8")) if plan.ledger is not None else None
        producer = Producer(target.kinesis, target.outputs.stream_name, ledger)
        total = plan.count + plan.bad if plan.file is None else None
        records = planned_records(plan, files)
        if plan.records_per_second is not None:
            records = paced(records, plan.records_per_second)
        with reporter.step(f"Sending to Kinesis {target.outputs.stream_name}", total) as step:
            for batch in batches(records, batch_records_for(plan.records_per_second)):
                producer.send(batch)
                step.update(
                    completed=producer.delivery.acknowledged, note=f"{producer.delivery.acknowledged:,} acknowledged"
                )
        return producer.delivery


def planned_records(plan: Plan, files: ExitStack) -> Iterator[Record]:
    """Yield the records of the plan; a file is opened in ``files``."""
    if plan.file is None:
        randomness = random.Random(plan.seed)  # noqa: S311  invented temperatures, no secret
        good = random_readings(plan.count, time.time, plan.spread_hours, randomness)
        return shuffled(good, bad_readings(plan.bad, time.time, randomness), plan.count, plan.bad)
    from_standard_input = str(plan.file) == "-"
    if plan.file_format == "csv":
        text = sys.stdin if from_standard_input else files.enter_context(plan.file.open(encoding="utf-8", newline=""))
        return records_from_csv(text)
    return records_from_lines(sys.stdin.buffer if from_standard_input else files.enter_context(plan.file.open("rb")))


def summary(delivery: Delivery) -> dict[str, object]:
    """Return a delivery's counts for scripts."""
    return {
        "acknowledged": delivery.acknowledged,
        "bad": delivery.bad,
        "resent": delivery.resent,
        "by_fault": dict(delivery.by_fault),
        "shards": {
            shard: {
                "records": records,
                "first_sequence_number": delivery.first_sequence_number[shard],
                "last_sequence_number": delivery.last_sequence_number[shard],
            }
            for shard, records in sorted(delivery.by_shard.items())
        },
    }
