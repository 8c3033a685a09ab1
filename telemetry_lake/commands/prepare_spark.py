"""``tlake prepare-spark``: what ``make setup`` calls for Java and Spark's libraries."""

import click

from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.commands.up import prepare_spark as make_ready


@click.command(name="prepare-spark", hidden=True)
@pass_context
def prepare_spark(context: Context) -> None:
    """Make the Java runtime and the libraries of the local Spark ready."""
    make_ready(context.project, context.reporter)
