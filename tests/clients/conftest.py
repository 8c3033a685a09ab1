"""Libraries and tools that nobody here wrote, against a stack that ``tlake up`` has brought up.

Runs in an environment of its own: ``make test-clients``. The clients get what their users would set, the lines that
``tlake up`` prints for the shell (``AWS_ENDPOINT_URL``, dummy credentials, the region), and nothing else.
"""

import importlib.util
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest

from tests.judging import REPOSITORY

TLAKE = REPOSITORY / ".venv" / "bin" / "tlake"

# Only the environment of the clients has them; elsewhere there is nothing here to collect.
collect_ignore_glob = [] if importlib.util.find_spec("awswrangler") else ["test_*.py"]


@pytest.fixture(scope="session")
def shell_variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Bring a stack up, in a folder with a space in its name, and return what it prints for other tools' shells."""
    state = tmp_path_factory.mktemp("telemetry lake") / "state"
    tlake = [str(TLAKE), "--quiet", "--state-directory", str(state)]
    try:
        said = subprocess.run([*tlake, "up"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True).stdout
        exports = [line.removeprefix("export ") for line in said.splitlines() if line.startswith("export ")]
        yield dict(word.split("=", 1) for line in exports for word in shlex.split(line))
    finally:
        subprocess.run([*tlake, "down"], cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True)


@pytest.fixture(scope="session", autouse=True)
def _as_in_that_shell(shell_variables: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let this process, and what it starts, have these AWS variables and no others, nor files of the user's."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        for name, value in shell_variables.items():
            patch.setenv(name, value)
        boto3.DEFAULT_SESSION = None
        yield
    boto3.DEFAULT_SESSION = None


@pytest.fixture(scope="session")
def outputs(_as_in_that_shell: None) -> Mapping[str, str]:
    """Outputs of the stack that is no tool's own, by name."""
    stacks = boto3.client("cloudformation").describe_stacks()["Stacks"]
    (stack,) = [each for each in stacks if not each["StackName"].startswith("aws-sam-cli-managed-")]
    return {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}


@pytest.fixture(scope="session")
def bucket(_as_in_that_shell: None) -> str:
    """A bucket for what the clients write, beside those of the stack."""
    name = "written-by-clients"
    client: Any = boto3.client("s3")
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": client.meta.region_name})
    return name


@pytest.fixture(scope="session")
def database(bucket: str) -> str:
    """A database of the clients' own with a table ``readings``, two partitions by day, as awswrangler writes it."""
    import awswrangler
    import pandas

    name = "clients"
    awswrangler.catalog.create_database(name)
    frame = pandas.DataFrame(
        {
            "device_id": ["a", "b", "c"],
            "temperature": [20.5, -1.0, None],
            "event_time": pandas.to_datetime(
                ["2025-10-14 00:00:00.123", "2025-10-15 00:00:00.000", "2025-10-15 23:59:59.999"]
            ),
            "day": [14, 15, 15],
        }
    )
    awswrangler.s3.to_parquet(
        frame, path=f"s3://{bucket}/readings/", dataset=True, database=name, table="readings", partition_cols=["day"]
    )
    return name
