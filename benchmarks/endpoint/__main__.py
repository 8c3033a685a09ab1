"""How long a laptop takes until the first job has run: ``make benchmark-endpoint``.

Each round begins with an empty state directory. What Java's archive of classes is worth is measured in pairs, with it
and without it in turn, by a job that starts a session, writes Parquet and reads it.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from telemetry_lake import deployment, toolchain
from telemetry_lake.commands.up import prepare_tools
from telemetry_lake.console import Reporter
from telemetry_lake.laptop import REGION, Laptop
from telemetry_lake.local import spark_runtime
from telemetry_lake.target import Target

JOB = """
import sys
from pyspark.sql import SparkSession

session = SparkSession.builder.getOrCreate()
session.range(1000).selectExpr("id", "id % 7 AS day").write.partitionBy("day").parquet(sys.argv[1])
assert session.read.parquet(sys.argv[1]).where("day = 3").count() == 143
session.stop()
"""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR")
JOB_SECONDS = 900.0


@dataclass
class Times:
    """Seconds of each thing that was measured, one a round."""

    rounds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Measure the block."""
        began = time.monotonic()
        yield
        self.rounds[name].append(time.monotonic() - began)

    def table(self) -> list[str]:
        """Return the lines of a table in Markdown: the fastest round and the median."""
        lines = ["| | fastest, s | median, s |", "| --- | ---: | ---: |"]
        return lines + [
            f"| {name} | {min(seconds):.1f} | {statistics.median(seconds):.1f} |"
            for name, seconds in self.rounds.items()
        ]


def measure_stack(project: Path, directory: Path, reporter: Reporter, times: Times) -> None:
    """Start an endpoint, deploy the stack, run its job on nothing, and start the endpoint again with all that."""
    laptop = Laptop(directory)
    configured = deployment.read_settings(project)
    settings = replace(configured, parameters={**configured.parameters, "Stage": "benchmark", "Trigger": "Schedule"})
    with times.of("start of the endpoint and `sam build`, side by side"):
        with times.of("`sam build`, nothing cached"):
            instance = laptop.launch(project / ".tools", None, True, reporter)
            deployment.build(project, laptop, instance, reporter)
        laptop.wait_until_answering(instance, reporter)
    try:
        with times.of("`sam deploy`"):
            deployment.deploy(project, laptop, instance, settings, reporter)
        target = Target(REGION, instance.endpoint_url, settings.stack_name)
        with times.of("the stack's job on no readings"):
            run_job(target)
        laptop.stop(reporter)
        with times.of("start of the endpoint with a stack"):
            laptop.start(project / ".tools", None, True, reporter)
    finally:
        laptop.stop(reporter)


def run_job(target: Target) -> None:
    """Run the stack's job to its end.

    Raises:
        RuntimeError: it did not succeed in time.
    """
    name = target.outputs.job_name
    run_id = target.glue.start_job_run(JobName=name)["JobRunId"]
    deadline = time.monotonic() + JOB_SECONDS
    state = ""
    while state not in ENDED and time.monotonic() < deadline:
        time.sleep(0.2)
        state = target.glue.get_job_run(JobName=name, RunId=run_id)["JobRun"]["JobRunState"]
    if state != "SUCCEEDED":
        raise RuntimeError(f"The job run {run_id} is {state}")


def measure_classes(runtime: spark_runtime.SparkRuntime, times: Times) -> None:
    """Run a small job with the archive of classes and without it."""
    for name, used in (
        ("a small Spark job, with the class archive", runtime),
        ("a small Spark job, without it", replace(runtime, class_archives=())),
    ):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as work:
            properties = Path(work) / "spark.conf"
            properties.write_text(spark_runtime.spark_defaults(used, "http://127.0.0.1:9", REGION, Path(work)))
            script = Path(work) / "job.py"
            script.write_text(JOB)
            environment = {
                **used.environment(Path(work)),
                "PYSPARK_SUBMIT_ARGS": spark_runtime.submit_arguments(properties),
            }
            with times.of(name):
                _run([str(used.python), str(script), f"file://{work}/table"], environment)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{completed.stderr[-2000:]}")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endpoint", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: %(default)s)")
    rounds = parser.parse_args().rounds
    project = toolchain.project_directory()
    reporter = Reporter(quiet=True)
    prepare_tools(project, Reporter())
    runtime = spark_runtime.prepare(project / ".tools", toolchain.GLUE_VERSION, print)
    times = Times()
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        measure_classes(runtime, times)
        with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
            measure_stack(project, Path(directory), reporter, times)
    print("\n".join(times.table()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
