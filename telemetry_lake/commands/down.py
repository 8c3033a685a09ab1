"""``tlake down``: stop the embedded endpoint."""

import click

from telemetry_lake.commands.context import Context, pass_context


@click.command()
@click.option("--delete-data", is_flag=True, help="Delete the state directory's objects, service state and builds too.")
@pass_context
def down(context: Context, delete_data: bool) -> None:
    """Stop the embedded AWS endpoint; its data is kept for the next tlake up."""
    laptop, reporter = context.laptop, context.reporter
    if not laptop.directory.exists():
        reporter.line(f"Nothing runs and nothing is kept on {laptop.directory}.")
        return
    with laptop.locked():
        stopped = laptop.stop(reporter)
        reporter.line(
            "Stopped: none of its processes is left." if stopped else f"No endpoint runs on {laptop.directory}."
        )
        if delete_data:
            laptop.delete_data()
            reporter.line(f"Deleted the data in {laptop.directory}.")
        else:
            reporter.line(f"The data is kept in {laptop.directory} (tlake down --delete-data deletes it).")
