"""What a command talks to: the laptop while it runs, else the account; and the stack's outputs."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from telemetry_lake.console import OperatorError
from telemetry_lake.laptop import Instance, Laptop
from telemetry_lake.target import StackOutputs, Target, choose_target

OUTPUTS = {
    "".join(word.capitalize() for word in field.name.split("_")): f"the {field.name}" for field in fields(StackOutputs)
}


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "account")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "account")


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Laptop:
    laptop = Laptop(tmp_path)
    monkeypatch.setattr(laptop, "instance", lambda: Instance(1, "0", 4999, "mark"))
    return laptop


@pytest.fixture
def stack() -> Iterator[str]:
    with mock_aws():
        template = {
            "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
            "Outputs": {key: {"Value": value} for key, value in OUTPUTS.items()},
        }
        boto3.client("cloudformation", region_name="eu-west-1").create_stack(
            StackName="lake", TemplateBody=json.dumps(template)
        )
        yield "lake"


def test_the_running_laptop_is_talked_to_even_with_credentials_of_an_account(running: Laptop) -> None:
    # GIVEN / WHEN
    target = choose_target(running, "telemetry-lake-laptop", None, None, False)

    # THEN
    assert target.laptop_url == "http://127.0.0.1:4999"
    assert target.stack_name == "telemetry-lake-laptop"
    assert target.kinesis.meta.endpoint_url == "http://127.0.0.1:4999"


def test_a_profile_that_does_not_exist_does_not_disturb_the_laptop(
    running: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN
    monkeypatch.setenv("AWS_PROFILE", "work")

    # WHEN / THEN
    assert choose_target(running, "laptop", None, None, False).s3.meta.region_name == "ap-northeast-1"


def test_the_account_is_talked_to_when_asked_for_or_in_another_region(running: Laptop) -> None:
    # GIVEN / WHEN
    asked = choose_target(running, "laptop", None, None, True)
    elsewhere = choose_target(running, "laptop", None, "eu-west-1", False)

    # THEN
    assert (asked.laptop_url, asked.region, asked.stack_name) == (None, "ap-northeast-1", "telemetry-lake")
    assert (elsewhere.laptop_url, elsewhere.region) == (None, "eu-west-1")


def test_an_endpoint_set_by_hand_wins_over_the_state_directory(
    running: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:5000")

    # WHEN
    target = choose_target(running, "laptop", None, None, False)

    # THEN
    assert target.laptop_url is None
    assert target.kinesis.meta.endpoint_url == "http://127.0.0.1:5000"
    assert "http://127.0.0.1:5000" in target.description


def test_without_a_laptop_and_without_credentials_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    # WHEN / THEN
    with pytest.raises(OperatorError, match=r"(?s)Nothing to talk to.*tlake up"):
        choose_target(Laptop(tmp_path), None, None, None, False)


def test_a_laptop_that_runs_without_a_deployment_asks_for_one(running: Laptop) -> None:
    with pytest.raises(OperatorError, match=r"(?s)Nothing has been deployed.*tlake up"):
        choose_target(running, None, None, None, False)


def test_the_stack_s_outputs_are_read_from_cloudformation(stack: str) -> None:
    # GIVEN / WHEN
    outputs = Target("eu-west-1", None, stack).outputs

    # THEN
    assert outputs.stream_name == "the stream_name"
    assert outputs.trigger_queue_url == "the trigger_queue_url"


def test_a_stack_that_does_not_exist_is_named_with_what_to_do(stack: str) -> None:
    with pytest.raises(OperatorError, match=r"(?s)no stack other at AWS in eu-west-1.*--stack-name"):
        _ = Target("eu-west-1", None, "other").outputs


def test_a_stack_of_something_else_is_refused_by_what_it_lacks() -> None:
    with pytest.raises(OperatorError, match="no output DeliveryStreamName, StreamName"):
        StackOutputs.from_mapping(
            {key: value for key, value in OUTPUTS.items() if key not in ("StreamName", "DeliveryStreamName")}, "lake"
        )


def test_a_stack_without_event_trigger_has_no_queue() -> None:
    # GIVEN the outputs of Trigger=Schedule
    outputs = {key: value for key, value in OUTPUTS.items() if not key.startswith(("Trigger", "Pipe"))}

    # WHEN / THEN
    assert StackOutputs.from_mapping(outputs, "lake").trigger_queue_url is None


def test_the_template_has_every_output_that_the_commands_read() -> None:
    # GIVEN
    template = (Path(__file__).resolve().parents[3] / "template.yaml").read_text()
    declared = template.split("\nOutputs:\n")[1]

    # WHEN / THEN
    assert [key for key in OUTPUTS if f"\n  {key}:" not in f"\n{declared}"] == []
