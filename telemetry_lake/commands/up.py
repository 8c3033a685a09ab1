"""``tlake up``: the whole stack on this machine."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from telemetry_lake import deployment, toolchain
from telemetry_lake.commands.context import Context, pass_context
from telemetry_lake.console import OperatorError, Reporter
from telemetry_lake.laptop import REGION, Instance, Laptop
from telemetry_lake.target import Target


@click.command()
@click.option("--port", type=click.IntRange(1024, 65535), help="Port on 127.0.0.1 (default: 4566, or a free one).")
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="A template parameter, beside those of samconfig.toml's laptop part; repeatable.",
)
@click.option(
    "--tls/--no-tls",
    "over_tls",
    default=None,
    help="Serve over TLS; Encryption=CustomerKey needs it (default: as the last time, else without).",
)
@click.option("--redeploy", is_flag=True, help="Build and deploy again even when nothing has changed.")
@pass_context
def up(
    context: Context, *, port: int | None, parameters: tuple[str, ...], over_tls: bool | None, redeploy: bool
) -> None:
    """Start the embedded AWS endpoint and deploy the stack to it."""
    reporter = context.reporter
    with context.laptop.locked():
        target = bring_up(
            context.project,
            context.laptop,
            reporter,
            port=port,
            stack_name=context.stack_name,
            parameters=parameters,
            redeploy=redeploy,
            over_tls=over_tls,
        )
    reporter.line()
    reporter.line("For other tools (aws, sam, boto3) in this shell:")
    for line in export_lines(target):
        reporter.result(line)
    reporter.line()
    reporter.line("Next: tlake produce --count 1000    send readings")
    reporter.line("      tlake status                  see how far they are")
    reporter.line("      tlake query                   ask Athena")
    reporter.line("      tlake down                    stop, data is kept")


def bring_up(
    project: Path,
    laptop: Laptop,
    reporter: Reporter,
    *,
    port: int | None = None,
    stack_name: str | None = None,
    parameters: Sequence[str] = (),
    redeploy: bool = False,
    exit_with_parent: bool = False,
    over_tls: bool | None = None,
) -> Target:
    """Prepare the tools, start the endpoint unless it runs, deploy what has changed, and wait until Firehose delivers.

    An endpoint that was started here is stopped again when this fails or is interrupted.

    Args:
        project: the checkout to deploy.
        laptop: where the endpoint keeps its state.
        reporter: shows the progress.
        port: the port to use; None for 4566, or a free one when that is taken.
        stack_name: another name than samconfig.toml's.
        parameters: words like ``Stage=test``, beside samconfig.toml's.
        redeploy: deploy even what has not changed.
        exit_with_parent: let the endpoint end with this process, however it ends.
        over_tls: serve over TLS; None for as the last time, else without.

    Raises:
        OperatorError: a tool cannot be prepared, the endpoint does not start, or the deployment fails.
    """
    configured = deployment.read_settings(project)
    settings = deployment.Settings(
        stack_name or configured.stack_name, {**configured.parameters, **deployment.parse_parameters(parameters)}
    )
    prepare_tools(project, reporter, settings.parameters.get("GlueVersion", toolchain.GLUE_VERSION))
    laptop.clear_stale(reporter)
    instance = laptop.instance()
    if instance is not None:
        reporter.line(f"The endpoint runs already at {instance.endpoint_url} (process {instance.pid}).")
        if port not in (None, instance.port):
            raise OperatorError(f"It uses port {instance.port}, not {port}.", "Run tlake down first to change it.")
        if over_tls not in (None, instance.authority is not None):
            served = "without TLS" if over_tls else "over TLS"
            raise OperatorError(f"It serves {served}.", "Run tlake down first to change it.")
        return _deploy_if_changed(project, laptop, instance, settings, reporter, redeploy=redeploy)
    instance = laptop.launch(project / ".tools", port, exit_with_parent, reporter, over_tls=over_tls)
    try:
        deployment.assert_served_as_needed(settings, instance)
        # While the endpoint starts, which takes as long.
        deployment.build(project, laptop, instance, reporter)
        laptop.wait_until_answering(instance, reporter)
        # What a new process has was restored from disk, perhaps after a crash: deploying compares it with the template.
        deployment.deploy(project, laptop, instance, settings, reporter)
        return _delivering(instance, settings, reporter)
    except BaseException:
        laptop.stop(reporter)
        raise


def _deploy_if_changed(
    project: Path,
    laptop: Laptop,
    instance: Instance,
    settings: deployment.Settings,
    reporter: Reporter,
    *,
    redeploy: bool,
) -> Target:
    deployment.assert_served_as_needed(settings, instance)
    wanted = deployment.Record(settings.stack_name, deployment.fingerprint(project, settings))
    if not redeploy and deployment.read_record(laptop) == wanted:
        reporter.line(f"{settings.stack_name} is deployed and nothing has changed (--redeploy deploys it again).")
    else:
        deployment.build(project, laptop, instance, reporter)
        deployment.deploy(project, laptop, instance, settings, reporter)
    return _delivering(instance, settings, reporter)


def _delivering(instance: Instance, settings: deployment.Settings, reporter: Reporter) -> Target:
    target = Target(REGION, instance.endpoint_url, settings.stack_name, instance.authority)
    deployment.wait_until_delivering(target, reporter)
    return target


def prepare_tools(project: Path, reporter: Reporter, glue_version: str = toolchain.GLUE_VERSION) -> None:
    """Make the tools that a local stack needs, as far as they are missing.

    Args:
        project: the checkout.
        reporter: shows the progress.
        glue_version: what the stack's job runs on.

    Raises:
        OperatorError: one cannot be prepared; the message says what to do.
    """
    if glue_version not in toolchain.GLUE_VERSIONS:
        known = ", ".join(toolchain.GLUE_VERSIONS)
        raise OperatorError(f"GlueVersion={glue_version} cannot run on this machine.", f"Choose one of {known}.")
    _, *environments = toolchain.stack_environments(glue_version)
    try:
        for environment in environments:
            if not toolchain.is_ready(project, environment):
                with reporter.step(f"Preparing {environment.directory}"):
                    toolchain.prepare_environment(project, environment, quiet=True)
    except toolchain.ToolchainError as error:
        raise OperatorError(str(error)) from error
    prepare_spark(project, reporter, glue_version)


def prepare_spark(project: Path, reporter: Reporter, glue_version: str) -> None:
    """Make the Java runtime and the libraries of the Spark of a Glue version ready.

    Raises:
        OperatorError: they cannot be had; the message says what to do.
    """
    from telemetry_lake.local import spark_runtime  # noqa: PLC0415  needs the extra "local"

    with reporter.step(f"Preparing the Spark of Glue {glue_version}") as step:
        try:
            spark_runtime.prepare(project / ".tools", glue_version, lambda words: step.update(note=words))
        except spark_runtime.SparkRuntimeError as error:
            raise OperatorError(str(error), "Check the network and repeat the command.") from error
        step.update(note="")


def export_lines(target: Target) -> list[str]:
    """Return shell lines after which other tools talk to the endpoint too."""
    variables = {
        "AWS_ENDPOINT_URL": target.laptop_url or "",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": target.region,
        **({} if target.laptop_authority is None else {"AWS_CA_BUNDLE": target.laptop_authority}),
    }
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
