"""``tlake report``: what the stack has done, as one HTML page."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from telemetry_lake.checklist import Step, walk
from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.commands.verify import MOST_HOURS
from telemetry_lake.console import OperatorError, Reporter, size_text
from telemetry_lake.report.evidence import Period, collect
from telemetry_lake.report.page import page
from telemetry_lake.target import Target

DEFAULT_FILE = Path("telemetry-lake-report.html")


@click.command()
@click.option(
    "--out",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_FILE,
    show_default=True,
    help="Where to write it.",
)
@click.option(
    "--hours",
    type=click.IntRange(min=1, max=MOST_HOURS),
    default=24,
    show_default=True,
    help="How far to look back.",
)
@pass_context
def report(context: Context, file: Path, hours: int) -> None:
    """Write a page with charts: what the stack did, how fresh it is, what was rejected, and the dashboard.

    One file that needs no network, for a browser. It asks what tlake verify asks (Athena twice), and reads Athena's
    history and the dashboard's metrics. A red step is on the page and does not change the exit code.
    """
    context.reporter.line(f"From the {context.target.description}")
    steps = walk(context.target, hours, context.reporter)
    write_report(context.target, file, hours, steps, context.reporter)
    context.reporter.result(str(file))


def write_report(target: Target, file: Path, hours: int, checklist: Sequence[Step], reporter: Reporter) -> None:
    """Collect the evidence of the last hours, beside a checklist that was walked, and write the page.

    Raises:
        OperatorError: the file cannot be written.
    """
    text = page(collect(target, Period.until(datetime.now(UTC), hours), checklist, reporter))
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise OperatorError(f"{file} cannot be written: {error.strerror}.", "Name another file with --out.") from error
    reporter.line(f"A page of {size_text(len(text.encode()))}; open it in a browser.")
