"""``tlake prepare-spark``: what ``make`` calls for Java and Spark's libraries."""

import click

from telemetry_lake import toolchain
from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.commands.up import prepare_spark as make_ready


@click.command(name="prepare-spark", hidden=True)
@click.option("--glue-version", type=click.Choice(toolchain.GLUE_VERSIONS), default=toolchain.GLUE_VERSION)
@pass_context
def prepare_spark(context: Context, glue_version: str) -> None:
    """Make the Java runtime and the libraries of the Spark of a Glue version ready."""
    make_ready(context.project, context.reporter, glue_version)
