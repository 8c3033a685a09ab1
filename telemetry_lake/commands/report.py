"""``tlake report``: what the stack has done, as one HTML page."""

from datetime import UTC, datetime
from pathlib import Path

import click

from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.console import OperatorError, Reporter, size_text
from telemetry_lake.report.evidence import Period, collect
from telemetry_lake.report.page import page
from telemetry_lake.target import Target

DEFAULT_FILE = Path("telemetry-lake-report.html")
DEFAULT_HOURS = 24.0
# CloudWatch keeps metrics for 15 months, at 5 minutes for 63 days:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html
MOST_HOURS = 24.0 * 63


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
    type=click.FloatRange(0, MOST_HOURS, min_open=True),
    default=DEFAULT_HOURS,
    show_default=True,
    help="How far to look back.",
)
@pass_context
def report(context: Context, file: Path, hours: float) -> None:
    """Write a page with charts: throughput, freshness, rejects, the job, the table's files, scanned bytes, dashboard.

    One file that needs no network, for a browser. It reads S3, CloudWatch, Step Functions and Athena's history, and
    asks Athena nothing itself.
    """
    context.reporter.line(f"From the {context.target.description}")
    write_report(context.target, file, hours, context.reporter)
    context.reporter.result(str(file))


def write_report(target: Target, file: Path, hours: float, reporter: Reporter) -> None:
    """Collect the evidence of the last hours and write the page.

    Raises:
        OperatorError: the file cannot be written.
    """
    text = page(collect(target, Period.until(datetime.now(UTC), hours), reporter))
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise OperatorError(f"{file} cannot be written: {error.strerror}.", "Name another file with --out.") from error
    reporter.line(f"A page of {size_text(len(text.encode()))}; open it in a browser.")
