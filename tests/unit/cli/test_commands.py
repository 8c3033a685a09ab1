"""The commands as a person or a script meets them: exit codes, what goes where, errors without a traceback."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from telemetry_contract import Policy
from telemetry_lake.commands.up import export_lines
from telemetry_lake.ledger import read_ledger
from telemetry_lake.target import Target
from tests.unit.cli.conftest import Tlake

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """An account with a stream and an ACTIVE delivery stream, and a stack that names them."""
    monkeypatch.chdir(tmp_path)
    with mock_aws():
        kinesis = boto3.client("kinesis", region_name="ap-northeast-1")
        kinesis.create_stream(StreamName="stream", ShardCount=2)
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="raw")
        boto3.client("firehose", region_name="ap-northeast-1").create_delivery_stream(
            DeliveryStreamName="delivery",
            ExtendedS3DestinationConfiguration={
                "RoleARN": "arn:aws:iam::123456789012:role/r",
                "BucketARN": "arn:aws:s3:::raw",
            },
        )
        outputs = SimpleNamespace(stream_name="stream", delivery_stream_name="delivery")
        monkeypatch.setattr(Target, "outputs", outputs)
        monkeypatch.setattr(Target, "policy", Policy())
        yield kinesis


def test_produce_sends_good_and_bad_readings_and_prints_counts_as_json_alone(
    account: Any, tlake: Tlake, tmp_path: Path
) -> None:
    # GIVEN / WHEN
    result = tlake("--account", "produce", "--count", "700", "--bad", "26", "--ledger", "ledger", "--json")

    # THEN standard output is one JSON document
    assert result.exit_code == 0, result.stderr
    counts = json.loads(result.stdout)
    assert counts["acknowledged"] == 726
    assert (counts["readings"], counts["bad"]) == (700, 26)
    assert set(counts["by_fault"].values()) == {2}
    assert sum(shard["records"] for shard in counts["shards"].values()) == 726
    assert [entry.place is not None for entry in read_ledger(tmp_path / "ledger")] == [True] * 726


def sent_to(kinesis: Any) -> list[bytes]:
    """Everything that is in the stream."""
    found = []
    for shard in kinesis.list_shards(StreamName="stream")["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName="stream", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        found += [record["Data"] for record in kinesis.get_records(ShardIterator=iterator)["Records"]]
    return found


def reading_line(device_id: str = "a", temperature: float = 1.5) -> str:
    return json.dumps({"device_id": device_id, "temperature": temperature, "timestamp": int(time.time())})


def test_produce_sends_a_file_and_standard_input_as_they_are(account: Any, tlake: Tlake, tmp_path: Path) -> None:
    # GIVEN
    now = int(time.time())
    (tmp_path / "r.csv").write_text(f"device_id,temperature,timestamp\na,1.50,{now}\nb,2.5,{now}\n")
    lines = "\n".join(reading_line(device) for device in "cde")

    # WHEN
    from_csv = tlake("--account", "produce", "--file", "r.csv")
    from_input = tlake("--account", "produce", "--file", "-", input_text=lines)

    # THEN
    assert "2 readings in 2 records acknowledged" in from_csv.stdout
    assert "3 readings in 3 records acknowledged" in from_input.stdout
    row = f'{{"device_id": "a", "temperature": 1.50, "timestamp": {now}}}'
    assert {row.encode(), *lines.encode().split(b"\n")} <= set(sent_to(account))


def test_produce_stops_at_a_bad_line_and_says_which_why_and_what_was_sent(
    account: Any, tlake: Tlake, tmp_path: Path
) -> None:
    # GIVEN
    good = reading_line()
    (tmp_path / "r.jsonl").write_text(f"{good}\n\n{reading_line(temperature=999)}\n{good}\n")

    # WHEN
    result = tlake("--account", "produce", "--file", "r.jsonl", "--ledger", "l")

    # THEN
    assert result.exit_code == 1
    for part in ("r.jsonl, line 3", "temperature_out_of_range", "999", "-100 to 200", "--send-invalid"):
        assert part in result.stderr
    assert "Sent so far: 1 reading in 1 record acknowledged; the ledger l has them." in result.stderr
    assert sent_to(account) == [good.encode()]


def test_produce_sends_bad_lines_when_it_is_told_to(account: Any, tlake: Tlake, tmp_path: Path) -> None:
    # GIVEN
    (tmp_path / "r.jsonl").write_text(f"{reading_line()}\noops\n")

    # WHEN
    result = tlake("--account", "produce", "--file", "r.jsonl", "--send-invalid", "--pack", "10")

    # THEN
    assert result.exit_code == 0, result.stderr
    assert "malformed_json 1" in result.stdout
    assert b"oops" in sent_to(account)


def test_produce_packs_recorded_readings_and_sends_bad_ones_beside_them(account: Any, tlake: Tlake) -> None:
    # GIVEN / WHEN
    options = ("--recorded", "buoy", "--count", "250", "--pack", "100", "--bad", "2", "--json")
    result = tlake("--account", "produce", *options)

    # THEN
    assert result.exit_code == 0, result.stderr
    counts = json.loads(result.stdout)
    assert (counts["readings"], counts["bad"], counts["acknowledged"]) == (250, 2, 5)
    packs = sorted(record.count(b"buoy-b01") for record in sent_to(account))
    assert packs == [0, 0, 50, 100, 100]


@pytest.mark.parametrize(
    "options",
    [
        ("--file", "r.jsonl", "--bad", "1"),
        ("--file", "r.jsonl", "--recorded", "buoy"),
        ("--as-recorded",),
        ("--recorded", "all", "--as-recorded", "--spread-hours", "1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    account: Any, tlake: Tlake, tmp_path: Path, options: Sequence[str]
) -> None:
    # GIVEN
    (tmp_path / "r.jsonl").write_text("{}\n")

    # WHEN
    result = tlake("--account", "produce", *options)

    # THEN
    assert result.exit_code == 1
    assert "Use one of them" in result.stderr


def test_a_ledger_that_cannot_be_written_stops_before_anything_is_sent(account: Any, tlake: Tlake) -> None:
    # GIVEN / WHEN
    result = tlake("--account", "produce", "--ledger", "no-such-folder/ledger")

    # THEN
    assert result.exit_code == 1
    assert "no-such-folder/ledger cannot be written: No such file or directory" in result.stderr
    assert sent_to(account) == []


def test_expected_failures_are_one_message_and_an_exit_code(tmp_path: Path) -> None:
    # GIVEN a shell without credentials, in a folder without a laptop stack
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}

    # WHEN
    completed = subprocess.run(
        [sys.executable, "-m", "telemetry_lake", "status"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    # THEN
    assert completed.returncode == 1
    assert completed.stdout == ""
    assert completed.stderr.startswith("Error: Nothing to talk to")
    assert "Traceback" not in completed.stderr


def test_down_without_anything_running_is_no_failure(tlake: Tlake, tmp_path: Path) -> None:
    result = tlake("--state-directory", str(tmp_path / "none"), "down")
    assert result.exit_code == 0
    assert not (tmp_path / "none").exists()


def test_a_request_to_end_is_an_interruption_with_its_own_exit_code(tmp_path: Path) -> None:
    # GIVEN a command that is at work
    code = (
        "import time\nfrom telemetry_lake import cli\n"
        "@cli.group.command()\ndef wait():\n  print('waiting', flush=True)\n  time.sleep(60)\n"
        "cli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "wait"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()

    # WHEN
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _output, errors = process.communicate(timeout=20)

    # THEN
    assert process.returncode == 130
    assert errors.strip() == "Interrupted."
    assert time.monotonic() - started < 15


def test_the_state_directory_may_come_from_the_environment(
    tlake: Tlake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN
    monkeypatch.setenv("TLAKE_STATE_DIRECTORY", str(tmp_path))

    # WHEN
    result = tlake("down")

    # THEN
    assert str(tmp_path) in result.stderr


def test_the_lines_for_other_tools_are_valid_shell() -> None:
    # GIVEN
    target = Target(None, "http://127.0.0.1:4566", "lake")

    # WHEN
    script = "\n".join([*export_lines(target), 'echo "$AWS_ENDPOINT_URL $AWS_DEFAULT_REGION"'])

    # THEN
    assert subprocess.check_output(["sh", "-c", script], text=True) == "http://127.0.0.1:4566 ap-northeast-1\n"


@pytest.mark.parametrize("target", ["help", "no-such-target"])
def test_make_runs_from_a_folder_with_a_space(target: str, tmp_path: Path) -> None:
    # GIVEN
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "Makefile").write_text((PROJECT / "Makefile").read_text())

    # WHEN
    completed = subprocess.run(["make", target], cwd=folder, capture_output=True, text=True, check=False)

    # THEN
    assert (completed.returncode == 0) == (target == "help")
    if target == "help":
        assert "make demo" in completed.stdout


def test_make_refuses_another_python_with_one_message(tmp_path: Path) -> None:
    # GIVEN a Python that is not 3.11
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)

    # WHEN
    completed = subprocess.run(
        ["make", f"PYTHON={other}", "setup"], cwd=PROJECT, capture_output=True, text=True, check=False
    )

    # THEN
    assert completed.returncode != 0
    assert "Python 3.11 is needed" in completed.stderr
