"""Build and deploy the template to the laptop's endpoint with the SAM CLI, as one would to an account."""

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from telemetry_lake import toolchain
from telemetry_lake.console import OperatorError, Reporter, Step
from telemetry_lake.laptop import REGION, Instance, Laptop, interrupts_deferred
from telemetry_lake.target import LAPTOP_ACCESS_KEY, Target

CONFIGURATION = "laptop"
SOURCES = ("template.yaml", "samconfig.toml", "functions", "glue", "statemachine")
DELIVERY_ACTIVE_SECONDS = 120.0
OUTPUT_LINES_SHOWN = 25
_CHANGE = re.compile(r"^[+*-] (Add|Modify|Delete)\s")
_FINISHED = re.compile(r"^(CREATE|UPDATE|DELETE)_COMPLETE\s+AWS::(?!CloudFormation::Stack\s)")


@dataclass(frozen=True)
class Settings:
    """The ``laptop`` part of ``samconfig.toml``: the stack's name and the template's parameters."""

    stack_name: str
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """What was deployed last: to which stack, and from which sources and parameters."""

    stack_name: str
    fingerprint: str


def assert_served_as_needed(settings: Settings, instance: Instance) -> None:
    """Refuse a customer key without TLS now, instead of letting the job fail on it later.

    Raises:
        OperatorError: the parameters ask for a customer key and the endpoint serves plain HTTP.
    """
    if settings.parameters.get("Encryption") == "CustomerKey" and instance.authority is None:
        raise OperatorError(
            "Encryption=CustomerKey needs TLS: Spark's S3 client copies no object with a customer key over plain HTTP.",
            "Run tlake down, then tlake up --tls --parameter Encryption=CustomerKey.",
        )


@dataclass(frozen=True)
class DemoSettings:
    """How ``tlake demo`` sends readings: how many in a record, and into how many hours their times are brought."""

    readings_per_record: int
    spread_hours: float


def read_settings(project: Path) -> Settings:
    """Read the settings for the laptop from ``samconfig.toml``.

    Raises:
        OperatorError: the file is not there, so this is no checkout.
    """
    section = _configuration(project)
    overrides = section["deploy"]["parameters"].get("parameter_overrides", "")
    words = shlex.split(overrides) if isinstance(overrides, str) else overrides
    return Settings(section["global"]["parameters"]["stack_name"], parse_parameters(words))


def read_demo_settings(project: Path) -> DemoSettings:
    """Read what ``samconfig.toml`` says about the demo; the SAM CLI leaves commands that are not its own alone.

    Raises:
        OperatorError: the file is not there, so this is no checkout.
    """
    return DemoSettings(**_configuration(project)["demo"]["parameters"])


def _configuration(project: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads((project / "samconfig.toml").read_text())
    except FileNotFoundError:
        raise OperatorError(
            f"{project} holds no samconfig.toml and template.yaml.",
            "Run tlake from a checkout of the project (make setup; .venv/bin/tlake ...).",
        ) from None
    configuration: dict[str, Any] = content[CONFIGURATION]
    return configuration


def parse_parameters(words: Iterable[str]) -> dict[str, str]:
    """Return template parameters by name from words like ``Stage=test``.

    Raises:
        OperatorError: a word has no equals sign.
    """
    parameters = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise OperatorError(f"{word!r} is no template parameter.", "Write Name=value, for example Stage=test.")
        parameters[name] = value
    return parameters


def fingerprint(project: Path, settings: Settings) -> str:
    """Return a hash of everything that a deployment is made from."""
    digest = hashlib.sha256(repr((settings.stack_name, sorted(settings.parameters.items()))).encode())
    for source in SOURCES:
        path = project / source
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(project)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def read_record(laptop: Laptop) -> Record | None:
    """Return what was deployed last from this state directory, None if nothing was."""
    try:
        return Record(**json.loads(_record_file(laptop).read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def _log_file(laptop: Laptop) -> Path:
    return laptop.directory / "deploy.log"


def _artifacts(laptop: Laptop) -> Path:
    # The SAM CLI writes a build.toml beside the folder that it is given.
    return laptop.directory / "build" / "artifacts"


def _sam(project: Path, operation: str) -> list[str]:
    return [
        *(str(toolchain.environment_python(project, "sam")), "-m", "samcli", operation),
        *("--config-file", str(project / "samconfig.toml"), "--config-env", CONFIGURATION),
    ]


def build(project: Path, laptop: Laptop, instance: Instance, reporter: Reporter) -> None:
    """Build the artifacts, with progress; the endpoint need not answer yet.

    Raises:
        OperatorError: ``sam`` failed; the end of its output is shown.
    """
    log_file = _log_file(laptop)
    log_file.unlink(missing_ok=True)
    with reporter.step("Building the functions (sam build)") as step:
        command = [
            *_sam(project, "build"),
            *("--template-file", str(project / "template.yaml")),
            *("--build-dir", str(_artifacts(laptop)), "--cached", "--cache-dir", str(laptop.directory / "build-cache")),
        ]
        output = _run(command, project, sam_environment(os.environ, project, laptop, instance), log_file, step)
        if output is not None:
            raise OperatorError(f"sam build failed:\n{_end_of(output)}", f"The whole output: {log_file}")
        step.update(note="")


def deploy(project: Path, laptop: Laptop, instance: Instance, settings: Settings, reporter: Reporter) -> None:
    """Deploy what was built, with progress.

    Raises:
        OperatorError: ``sam`` failed; the reasons that CloudFormation gives and the end of its output are shown.
    """
    log_file = _log_file(laptop)
    with reporter.step(f"Deploying {settings.stack_name} (sam deploy)") as step:
        overrides = [f"{name}={value}" for name, value in settings.parameters.items()]
        command = [
            *_sam(project, "deploy"),
            *("--template-file", str(_artifacts(laptop) / "template.yaml"), "--stack-name", settings.stack_name),
            *("--resolve-s3", "--no-confirm-changeset", "--no-fail-on-empty-changeset", "--no-progressbar"),
            *("--capabilities", "CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"),
            *(("--parameter-overrides", *overrides) if overrides else ()),
        ]
        output = _run(command, project, sam_environment(os.environ, project, laptop, instance), log_file, step)
        if output is not None:
            target = Target(REGION, instance.endpoint_url, settings.stack_name, instance.authority)
            raise _deployment_error(target, output, log_file)
        step.update(note="")
    record = Record(settings.stack_name, fingerprint(project, settings))
    _record_file(laptop).write_text(json.dumps(asdict(record)))


def wait_until_delivering(target: Target, reporter: Reporter, seconds: float = DELIVERY_ACTIVE_SECONDS) -> None:
    """Wait until the delivery stream is ACTIVE: it reads from LATEST, so that earlier readings would be lost.

    https://docs.aws.amazon.com/firehose/latest/dev/writing-with-kinesis-streams.html

    Raises:
        OperatorError: it failed, or is not ACTIVE within ``seconds``.
    """
    name = target.outputs.delivery_stream_name
    deadline = time.monotonic() + seconds
    status = ""
    with reporter.step(f"Waiting for Firehose {name}") as step:
        while status != "ACTIVE":
            description = target.firehose.describe_delivery_stream(DeliveryStreamName=name)
            status = description["DeliveryStreamDescription"]["DeliveryStreamStatus"]
            step.update(note=status)
            if status.endswith("_FAILED") or status == "DELETING" or time.monotonic() > deadline:
                raise OperatorError(
                    f"The delivery stream {name} is {status}, not ACTIVE: what is sent now would be lost.",
                    "Look at the stack's events in CloudFormation, and deploy it again.",
                )
            if status != "ACTIVE":
                time.sleep(0.5)


def sam_environment(inherited: Mapping[str, str], project: Path, laptop: Laptop, instance: Instance) -> dict[str, str]:
    """Return the variables for the SAM CLI: this endpoint with dummy credentials, and nothing of the user's account."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(("AWS_", "SAM_CLI_"))}
    return toolchain.tool_variables(kept, project) | {
        **({} if instance.authority is None else {"AWS_CA_BUNDLE": instance.authority}),
        "AWS_ENDPOINT_URL": instance.endpoint_url,
        "AWS_ACCESS_KEY_ID": LAPTOP_ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": LAPTOP_ACCESS_KEY,
        "AWS_REGION": instance.region,
        "AWS_DEFAULT_REGION": instance.region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "SAM_CLI_TELEMETRY": "0",
        "SAM_CLI_CHECK_VERSION": "0",
        "SAM_CLI_POLL_DELAY": "1",
        # Where the SAM CLI keeps notes of its own; the default is the home directory.
        "__SAM_CLI_APP_DIR": str(laptop.directory / "sam"),
        # Its tables wrap at the terminal's width, and their lines are read here.
        "COLUMNS": "200",
    }


def _record_file(laptop: Laptop) -> Path:
    return laptop.directory / "deployment.json"


def _run(
    command: Sequence[str], project: Path, environment: Mapping[str, str], log_file: Path, step: Step
) -> list[str] | None:
    """Run ``sam``, show how far it is, and return None, or all its lines if it failed."""
    with log_file.open("a") as log, _ended_with_us(command, project, environment) as process:
        assert process.stdout is not None  # noqa: S101  it was asked for
        lines = list(_followed(process.stdout, log, step))
        return lines if process.wait() != 0 else None


def _followed(output: IO[str], log: IO[str], step: Step) -> Iterator[str]:
    changes = finished = 0
    for line in output:
        log.write(line)
        log.flush()
        text = line.strip()
        changes += _CHANGE.match(text) is not None
        finished += _FINISHED.match(text) is not None
        if changes:
            step.update(completed=min(finished, changes), total=changes)
        if text and not set(text) <= set("-=\t "):
            step.update(note=re.sub(r"\s+", " ", text)[:40])
        yield line.rstrip("\n")


@contextmanager
def _ended_with_us(
    command: Sequence[str], project: Path, environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[str]"]:
    """Start a process, and end it and its children when the block is left early, for example by Ctrl-C."""
    process: subprocess.Popen[str] | None = None
    try:
        # A Ctrl-C between the start and its being known would leave the process to nobody.
        with interrupts_deferred():
            process = subprocess.Popen(  # noqa: S603
                command,
                cwd=project,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        yield process
    finally:
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _deployment_error(target: Target, output: Sequence[str], log_file: Path) -> OperatorError:
    invalid = any("EarlyValidation" in line for line in output)
    reasons = validation_failures(target) if invalid else failure_reasons(target)
    shown = "\n".join(f"  {reason}" for reason in reasons) if reasons else _end_of(output)
    return OperatorError(
        f"sam deploy failed:\n{shown}",
        f"The whole output: {log_file}. When the first deployment failed: tlake down --delete-data, then tlake up.",
    )


def failure_reasons(target: Target) -> list[str]:
    """Return why resources of the stack failed, oldest first, without those that were only cancelled."""
    try:
        events = target.cloudformation.describe_stack_events(StackName=target.stack_name)["StackEvents"]
    except target.cloudformation.exceptions.ClientError:
        return []  # the stack was never made: the output of sam says why
    return [
        f"{event.get('LogicalResourceId', '')} ({event.get('ResourceType', '')}): {event['ResourceStatusReason']}"
        for event in reversed(events)
        if event.get("ResourceStatus", "").endswith("_FAILED")
        and event.get("ResourceStatusReason")
        and "cancelled" not in event["ResourceStatusReason"]
    ]


def validation_failures(target: Target) -> list[str]:
    """Return what CloudFormation's latest validation before a deployment found, of which the SAM CLI says nothing.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/validate-stack-deployments.html
    """
    events = target.cloudformation.describe_events(StackName=target.stack_name, Filters={"FailedEvents": True})
    found = [event for event in events["OperationEvents"] if event.get("EventType") == "VALIDATION_ERROR"]
    latest = max(found, key=lambda event: event["Timestamp"])["OperationId"] if found else None
    return [
        f"{event.get('LogicalResourceId', '')} ({event.get('ResourceType', '')}): {event['ValidationStatusReason']}"
        for event in found
        if event["OperationId"] == latest
    ]


def _end_of(output: Sequence[str]) -> str:
    """Return the SAM CLI's error, or, when it names none, the end of what it said."""
    errors = [index for index, line in enumerate(output) if line.startswith("Error:")]
    if errors:
        return "\n".join(output[errors[0] :])
    return "\n".join([line for line in output if line.strip()][-OUTPUT_LINES_SHOWN:])
