"""Deploying to the laptop: settings, what counts as a change, the SAM CLI's surroundings, and its failures."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from telemetry_lake import deployment, processes, toolchain
from telemetry_lake.console import OperatorError, Reporter
from telemetry_lake.deployment import Settings, fingerprint, parse_parameters, read_settings, sam_environment
from telemetry_lake.laptop import Instance, Laptop
from telemetry_lake.target import Target

PROJECT = Path(__file__).resolve().parents[3]
INSTANCE = Instance(1, "0", 4999, "mark")
QUIET = Reporter(quiet=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "a checkout"
    for name in ("functions/transform", "glue", "statemachine"):
        (project / name).mkdir(parents=True)
    (project / "template.yaml").write_text("Resources: {}")
    (project / "functions/transform/handler.py").write_text("x = 1")
    (project / "samconfig.toml").write_text(
        '[laptop.global.parameters]\nstack_name = "lake"\n'
        "[laptop.deploy.parameters]\nparameter_overrides = \"Stage=laptop Note='two words'\"\n"
    )
    return project


def test_the_laptop_s_settings_come_from_samconfig(project: Path) -> None:
    assert read_settings(project) == Settings("lake", {"Stage": "laptop", "Note": "two words"})


def test_the_real_samconfig_has_a_laptop_part() -> None:
    assert read_settings(PROJECT).parameters["Stage"] == "laptop"


def test_a_folder_that_is_no_checkout_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"holds no samconfig\.toml"):
        read_settings(tmp_path)


@pytest.mark.parametrize("word", ["Stage", "=test"])
def test_a_parameter_without_a_name_or_a_value_is_an_error(word: str) -> None:
    with pytest.raises(OperatorError, match="is no template parameter"):
        parse_parameters([word])


def test_a_parameter_s_value_may_hold_an_equals_sign() -> None:
    assert parse_parameters(["Url=https://x/?a=b", "Empty="]) == {"Url": "https://x/?a=b", "Empty": ""}


def test_a_customer_key_without_tls_is_refused_before_anything_is_deployed() -> None:
    # GIVEN a stack with a customer key, and an endpoint with and without TLS
    settings = Settings("lake", {"Encryption": "CustomerKey"})
    with_tls = replace(INSTANCE, authority="/state/tls/authority.pem")

    # THEN the one without is refused, and neither the other nor a stack without the key is
    with pytest.raises(OperatorError, match="--tls"):
        deployment.assert_served_as_needed(settings, INSTANCE)
    deployment.assert_served_as_needed(settings, with_tls)
    deployment.assert_served_as_needed(Settings("lake", {"Encryption": "SSE-S3"}), INSTANCE)


def test_every_source_and_parameter_counts_as_a_change_and_byte_code_does_not(project: Path) -> None:
    # GIVEN
    settings = read_settings(project)
    before = fingerprint(project, settings)

    # WHEN nothing but byte code appears
    (project / "functions/transform/__pycache__").mkdir()
    (project / "functions/transform/__pycache__/handler.pyc").write_text("")

    # THEN it is the same deployment
    assert fingerprint(project, settings) == before

    # WHEN / THEN code, a new file or a parameter changes, it is another
    assert fingerprint(project, Settings("lake", {**settings.parameters, "Stage": "e2e"})) != before
    (project / "glue/telemetry_etl.py").write_text("")
    with_script = fingerprint(project, settings)
    assert with_script != before
    (project / "functions/transform/handler.py").write_text("x = 2")
    assert fingerprint(project, settings) not in (before, with_script)


def test_the_sam_cli_sees_the_endpoint_and_nothing_of_the_user_s_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN a shell set up for an account behind a proxy
    monkeypatch.setattr(toolchain, "find_or_install_uv", lambda _project: Path("/opt/uv/uv"))
    inherited = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "AWS_PROFILE": "work",
        "AWS_SESSION_TOKEN": "secret",
        "SAM_CLI_BETA_FEATURES": "1",
        "HTTPS_PROXY": "http://proxy:3128",
    }

    # WHEN
    variables = sam_environment(inherited, tmp_path, Laptop(tmp_path), INSTANCE)

    # THEN
    assert variables["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4999"
    assert variables["AWS_ACCESS_KEY_ID"] == "test"
    assert variables["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull
    assert variables["SAM_CLI_TELEMETRY"] == "0"
    assert variables["NO_PROXY"] == "127.0.0.1"
    assert variables["PATH"] == "/opt/uv:/bin"
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN", "SAM_CLI_BETA_FEATURES"} & set(variables)


class Sam:
    """A stand-in for the SAM CLI: notes its arguments, prints, and ends as it is told to."""

    def __init__(self, directory: Path) -> None:
        self.calls = directory / "calls"
        self.script = directory / "sam"

    def behaves(self, deploy: str) -> None:
        self.script.write_text(
            f"#!/bin/sh\nshift 2\nprintf '%s\\n' \"$*\" >> '{self.calls}'\n"
            f'if [ "$1" = deploy ]; then\n{deploy}\nelse echo Build Succeeded; fi\n'
        )
        self.script.chmod(0o755)


@pytest.fixture
def sam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sam:
    stand_in = Sam(tmp_path)
    monkeypatch.setattr(toolchain, "environment_python", lambda _project, _name: stand_in.script)
    monkeypatch.setattr(toolchain, "find_or_install_uv", lambda _project: Path("/opt/uv/uv"))
    return stand_in


def test_a_deployment_builds_deploys_without_questions_and_is_recorded(project: Path, sam: Sam, tmp_path: Path) -> None:
    # GIVEN
    sam.behaves(deploy="echo '+ Add  Queue'; echo 'CREATE_COMPLETE  AWS::SQS::Queue  Queue'")
    laptop = Laptop(tmp_path / "state")
    laptop.directory.mkdir()
    settings = read_settings(project)

    # WHEN
    deployment.build(project, laptop, INSTANCE, QUIET)
    deployment.deploy(project, laptop, INSTANCE, settings, QUIET)

    # THEN
    build, deploy = sam.calls.read_text().splitlines()
    assert f"build --config-file {project}/samconfig.toml --config-env laptop" in build
    for words in (
        "--stack-name lake",
        "--resolve-s3",
        "--no-confirm-changeset",
        "--no-fail-on-empty-changeset",
        "--parameter-overrides Stage=laptop Note=two words",
    ):
        assert words in deploy
    recorded = deployment.read_record(laptop)
    assert recorded == deployment.Record("lake", fingerprint(project, settings))


def event(logical_id: str, status: str, reason: str) -> dict[str, str]:
    return {
        "LogicalResourceId": logical_id,
        "ResourceType": "AWS::Glue::Job",
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
    }


def test_a_failed_deployment_shows_cloudformation_s_reasons_and_is_not_recorded(
    project: Path, sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN
    sam.behaves(deploy="echo Error: Failed to create; exit 1")
    events: list[dict[str, str]] = [
        event("B", "CREATE_FAILED", "Resource creation cancelled"),
        event("A", "CREATE_FAILED", "no such role"),
        event("Q", "CREATE_COMPLETE", ""),
    ]

    class Formation:
        exceptions = type("Exceptions", (), {"ClientError": ValueError})

        def describe_stack_events(self, **_arguments: str) -> dict[str, Any]:
            return {"StackEvents": events}

    monkeypatch.setattr(Target, "cloudformation", Formation())
    laptop = Laptop(tmp_path / "state")
    laptop.directory.mkdir()

    # WHEN / THEN
    with pytest.raises(OperatorError, match=r"(?s)A \(AWS::Glue::Job\): no such role\n.*deploy\.log") as raised:
        deployment.deploy(project, laptop, INSTANCE, read_settings(project), QUIET)
    assert "cancelled" not in str(raised.value)
    assert deployment.read_record(laptop) is None
    assert "Failed to create" in (laptop.directory / "deploy.log").read_text()


def test_a_deployment_that_fails_before_it_begins_shows_the_names_that_are_taken(
    project: Path, sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN what the SAM CLI says, and the events of this change set and of one before it
    sam.behaves(deploy="echo 'Reason: failed: [AWS::EarlyValidation::ResourceExistenceCheck].'; exit 1")

    def found(operation: str, second: int, name: str) -> dict[str, Any]:
        return {
            "OperationId": operation,
            "EventType": "VALIDATION_ERROR",
            "Timestamp": datetime(2026, 11, 27, 12, 0, second, tzinfo=UTC),
            "LogicalResourceId": "S",
            "ResourceType": "AWS::Kinesis::Stream",
            "ValidationStatusReason": f"identifier '{name}' already exists.",
        }

    client = boto3.client("cloudformation", region_name="ap-northeast-1")
    stubber = Stubber(client)
    events = [found("new", 2, "a"), found("new", 1, "b"), found("old", 0, "c")]
    asked = {"StackName": read_settings(project).stack_name, "Filters": {"FailedEvents": True}}
    stubber.add_response("describe_events", {"OperationEvents": events}, asked)
    stubber.activate()
    monkeypatch.setattr(Target, "cloudformation", client)
    laptop = Laptop(tmp_path / "state")
    laptop.directory.mkdir()

    # WHEN / THEN
    with pytest.raises(OperatorError) as raised:
        deployment.deploy(project, laptop, INSTANCE, read_settings(project), QUIET)
    assert "S (AWS::Kinesis::Stream): identifier 'a' already exists." in str(raised.value)
    assert "identifier 'b'" in str(raised.value)
    assert "identifier 'c'" not in str(raised.value)


TOOL_WITH_A_CHILD = [
    sys.executable,
    "-c",
    "import subprocess; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); c.wait()",
]


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while pid in processes.running() and time.monotonic() < deadline:
        time.sleep(0.05)
    return pid not in processes.running()


def test_an_interrupted_command_ends_the_sam_cli_and_its_children(tmp_path: Path) -> None:
    # GIVEN a tool with a child
    found: list[int] = []
    tools: list[subprocess.Popen[str]] = []

    def work_and_be_interrupted() -> None:
        with deployment._ended_with_us(TOOL_WITH_A_CHILD, tmp_path, os.environ) as tool:
            assert tool.stdout is not None
            tools.append(tool)
            found.append(int(tool.stdout.readline()))
            raise KeyboardInterrupt

    # WHEN Ctrl-C comes while it works
    with pytest.raises(KeyboardInterrupt):
        work_and_be_interrupted()

    # THEN
    assert tools[0].returncode is not None
    assert ends(found[0])
    assert tools[0].stdout is not None
    tools[0].stdout.close()


def test_a_ctrl_c_while_the_sam_cli_is_being_started_leaves_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN a Ctrl-C that comes when the process is there and nobody knows it yet
    started: list[subprocess.Popen[str]] = []
    start = subprocess.Popen

    def start_and_interrupt(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        started.append(start(*arguments, **options))
        os.kill(os.getpid(), signal.SIGINT)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", start_and_interrupt)

    # WHEN
    with (
        pytest.raises(KeyboardInterrupt),
        deployment._ended_with_us([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, os.environ),
    ):
        pytest.fail("the command must not go on")

    # THEN
    (process,) = started
    assert process.returncode is not None
    assert ends(process.pid)
    assert process.stdout is not None
    process.stdout.close()


def test_a_record_that_cannot_be_read_counts_as_no_deployment(tmp_path: Path) -> None:
    # GIVEN
    (tmp_path / "deployment.json").write_text(json.dumps({"older": "format"}))

    # WHEN / THEN
    assert deployment.read_record(Laptop(tmp_path)) is None


def test_what_the_demo_sends_stands_beside_the_stage_that_it_deploys() -> None:
    # GIVEN / WHEN
    settings = deployment.read_demo_settings(PROJECT)

    # THEN readings are packed, and come from more than the two days that a partition's worth needs
    assert settings.readings_per_record > 1
    assert settings.spread_hours >= 48
