"""``tlake produce``: send readings to the stream."""

import random
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click

from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.console import OperatorError, Reporter, Step, counts_text
from telemetry_lake.deployment import wait_until_delivering
from telemetry_lake.files import Examination, csv_records, json_lines_records
from telemetry_lake.ledger import Ledger
from telemetry_lake.producer import Delivery, Producer, batches, paced, packed, with_pauses
from telemetry_lake.readings import Record, bad_readings, random_readings, shuffled
from telemetry_lake.recorded import RECORDINGS, measured, recorded_readings, retimed
from telemetry_lake.target import Target

DEFAULT_COUNT = 1000
MOST_PACKED = 10_000


@dataclass(frozen=True)
class Plan:
    """What to send: random readings, recorded ones or a file; how; and where to write down what was acknowledged."""

    count: int | None = None
    bad: int = 0
    spread_hours: float = 0
    seed: int | None = None
    recorded: tuple[str, ...] = ()
    as_recorded: bool = False
    file: Path | None = None
    file_format: str = "jsonl"
    send_invalid: bool = False
    readings_per_second: float | None = None
    readings_per_record: int = 1
    ledger: Path | None = None


@click.command()
@click.option(
    "--count",
    type=click.IntRange(min=0),
    help=f"How many readings (default: {DEFAULT_COUNT} random ones; all of a file, or of recorded ones).",
)
@click.option("--bad", type=click.IntRange(min=0), default=0, show_default=True, help="Bad records, of every kind.")
@click.option(
    "--spread-hours",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Spread the timestamps over the last hours.",
)
@click.option("--seed", type=int, help="Make the same random readings each time (timestamps aside).")
@click.option(
    "--recorded",
    type=click.Choice([*RECORDINGS, "all"]),
    multiple=True,
    help="Send what was really measured: a buoy at sea, two cities. The last reading of each is measured now.",
)
@click.option("--as-recorded", is_flag=True, help="Leave recorded readings the times that they were measured at.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Send these readings, one a line; - for standard input.",
)
@click.option("--format", "file_format", type=click.Choice(["jsonl", "csv"]), help="Of --file (default: by its name).")
@click.option("--send-invalid", is_flag=True, help="Send lines of --file that the contract rejects, too.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Readings a second (default: as fast as it goes)."
)
@click.option(
    "--pack",
    type=click.IntRange(1, MOST_PACKED),
    default=1,
    show_default=True,
    help="Readings of a device in one record.",
)
@click.option(
    "--ledger",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append what is sent, and what was acknowledged, to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@pass_context
def produce(
    context: Context,
    *,
    count: int | None,
    bad: int,
    spread_hours: float,
    seed: int | None,
    recorded: tuple[str, ...],
    as_recorded: bool,
    file: Path | None,
    file_format: str | None,
    send_invalid: bool,
    rate: float | None,
    pack: int,
    ledger: Path | None,
    as_json: bool,
) -> None:
    """Send readings to the stream, and repeat what it did not take.

    A reading that is sent twice is stored once: after an interruption, send the same file again.
    """
    if file is not None and (bad or recorded or spread_hours):
        raise OperatorError("--file sends what it holds: no --bad, --recorded or --spread-hours.", "Use one of them.")
    if as_recorded and (spread_hours or not recorded):
        raise OperatorError("--as-recorded is for --recorded alone, without --spread-hours.", "Use one of them.")
    by_name = "csv" if file is not None and file.suffix.lower() == ".csv" else "jsonl"
    plan = Plan(
        count=count,
        bad=bad,
        spread_hours=spread_hours,
        seed=seed,
        recorded=tuple(RECORDINGS) if "all" in recorded else tuple(dict.fromkeys(recorded)),
        as_recorded=as_recorded,
        file=file,
        file_format=file_format or by_name,
        send_invalid=send_invalid,
        readings_per_second=rate,
        readings_per_record=pack,
        ledger=ledger,
    )
    context.reporter.line(f"To {context.target.description}")
    delivery = send(context.target, plan, context.reporter)
    if as_json:
        context.reporter.json(summary(delivery))
        return
    context.reporter.result(f"{delivery.text()} acknowledged ({counts_text(delivery.by_shard)})")
    if delivery.bad:
        context.reporter.result(f"Bad ones: {counts_text(delivery.by_fault)}")
    if delivery.resent:
        context.reporter.result(f"{delivery.resent:,} records sent again after Kinesis had refused them")


def send(target: Target, plan: Plan, reporter: Reporter) -> Delivery:
    """Wait until Firehose delivers, then send what the plan says, with progress.

    Raises:
        OperatorError: Firehose is not ACTIVE, the input is not in order, or Kinesis went on refusing records.
    """
    wait_until_delivering(target, reporter)
    with ExitStack() as files:
        ledger = files.enter_context(Ledger(plan.ledger)) if plan.ledger is not None else None
        producer = Producer(target.kinesis, target.outputs.stream_name, ledger)
        try:
            with reporter.step(f"Sending to Kinesis {target.outputs.stream_name}") as step:
                _send_all(producer, _records(plan, target, files, step), plan, step)
        except OperatorError as error:
            raise OperatorError(
                f"{error.happened}\n{_sent_so_far(producer.delivery, plan)}", error.next_step
            ) from error
        except KeyboardInterrupt:
            reporter.line(_sent_so_far(producer.delivery, plan))
            raise
        return producer.delivery


def _sent_so_far(delivery: Delivery, plan: Plan) -> str:
    written = f"; the ledger {plan.ledger} has them" if plan.ledger is not None and delivery.acknowledged else ""
    return f"Sent so far: {delivery.text()} acknowledged{written}."


def _send_all(producer: Producer, records: Iterator[Record], plan: Plan, step: Step) -> None:
    if plan.readings_per_second is not None:
        records = paced(records, plan.readings_per_second)
    gathered: Iterable[Record | None] = with_pauses(records)
    if plan.readings_per_record > 1:
        gathered = packed(gathered, plan.readings_per_record)
    for batch in batches(gathered):
        producer.send(batch)
        delivery = producer.delivery
        step.update(
            completed=None if plan.file is not None else delivery.readings + delivery.bad,
            note=f"{delivery.text()} acknowledged",
        )


def _records(plan: Plan, target: Target, files: ExitStack, step: Step) -> Iterator[Record]:
    """Yield the records of the plan; a file is opened in ``files``, and what is known of the whole told to ``step``."""
    if plan.file is not None:
        return islice(_file_records(plan, target, _open(plan.file, files, step)), plan.count)
    if plan.recorded:
        readings = measured(plan.recorded)[: plan.count]
        good_count = len(readings)
        good = recorded_readings(readings if plan.as_recorded else retimed(readings, time.time(), plan.spread_hours))
    randomness = random.Random(plan.seed)  # noqa: S311  invented temperatures, no secret
    if not plan.recorded:
        good_count = DEFAULT_COUNT if plan.count is None else plan.count
        good = random_readings(good_count, time.time, plan.spread_hours, randomness)
    step.update(total=good_count + plan.bad)
    return shuffled(good, bad_readings(plan.bad, time.time, randomness), good_count, plan.bad)


def _file_records(plan: Plan, target: Target, lines: Iterator[bytes]) -> Iterator[Record]:
    examination = Examination(
        "standard input" if str(plan.file) == "-" else str(plan.file), target.policy, time.time, plan.send_invalid
    )
    return (csv_records if plan.file_format == "csv" else json_lines_records)(lines, examination)


def _open(path: Path, files: ExitStack, step: Step) -> Iterator[bytes]:
    """Yield the lines of a file, and tell the step how many of its bytes have been read."""
    if str(path) == "-":
        yield from sys.stdin.buffer
        return
    file: BinaryIO = files.enter_context(path.open("rb"))
    step.update(total=path.stat().st_size)
    for line in file:
        step.completed += len(line)
        yield line


def summary(delivery: Delivery) -> dict[str, object]:
    """Return a delivery's counts for scripts."""
    return {
        "acknowledged": delivery.acknowledged,
        "readings": delivery.readings,
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
