"""The operator's command line, ``tlake``: the same commands against a laptop and an account."""

import signal
import sys
from pathlib import Path
from types import FrameType

import click
from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.commands.context import Context
from telemetry_lake.commands.demo import demo
from telemetry_lake.commands.dlq import dlq
from telemetry_lake.commands.down import down
from telemetry_lake.commands.prepare_spark import prepare_spark
from telemetry_lake.commands.produce import produce
from telemetry_lake.commands.quarantine import quarantine
from telemetry_lake.commands.query import query
from telemetry_lake.commands.report import report
from telemetry_lake.commands.reprocess import reprocess
from telemetry_lake.commands.status import status
from telemetry_lake.commands.up import up
from telemetry_lake.commands.verify import verify
from telemetry_lake.console import Reporter
from telemetry_lake.target import state_directory_from

EXIT_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--state-directory",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="TLAKE_STATE_DIRECTORY",
    show_envvar=True,
    help="Where a laptop stack lives (default: .tlake in the current directory).",
)
@click.option("--stack-name", help="The CloudFormation stack (default: the laptop's, or telemetry-lake in an account).")
@click.option("--region", help="The AWS region (default: as the AWS variables say).")
@click.option("--account", is_flag=True, help="Talk to the AWS account even while a laptop stack runs.")
@click.option("--quiet", is_flag=True, help="No progress, only results and errors.")
@click.version_option(package_name="telemetry-lake")
@click.pass_context
def group(
    context: click.Context,
    *,
    state_directory: Path | None,
    stack_name: str | None,
    region: str | None,
    account: bool,
    quiet: bool,
) -> None:
    """Telemetry Lake: from devices to an Athena table, on this machine or in an AWS account."""
    context.obj = Context(state_directory_from(state_directory), stack_name, region, account, Reporter(quiet))


for command in (up, down, demo, produce, status, query, verify, report, dlq, reprocess, quarantine, prepare_spark):
    group.add_command(command)


def main() -> None:
    """Run the command line; expected failures are one message and an exit code, never a traceback."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        outcome = group.main(prog_name="tlake", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except ClientError as error:
        click.echo(f"Error: AWS refused {error.operation_name}: {_reason(error)}", err=True)
        sys.exit(1)
    except BotoCoreError as error:
        click.echo(f"Error: {error}\nCheck the network, the AWS variables, and tlake status.", err=True)
        sys.exit(1)
    sys.exit(outcome if isinstance(outcome, int) else 0)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _reason(error: ClientError) -> str:
    details = error.response.get("Error", {})
    return f"{details.get('Code', 'unknown')}: {details.get('Message', '')}"
