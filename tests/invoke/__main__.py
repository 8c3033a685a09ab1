"""Run every sample event of every function in the Lambda runtime's files, against a stack on the embedded endpoint.

``python -m tests.invoke``; ``make invoke``. The functions are built for x86_64 and run by the unmodified ``sam local
invoke``; where no container engine can start, the same files run without one, and a line says so. One event is run by
what is deployed, which is for arm64, where qemu-user can. An answer other than the expected one fails the command, and
so do planted faults that are not noticed.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from telemetry_lake import toolchain
from telemetry_lake.toolchain import project_directory
from tests.invoke.engines import (
    Containers,
    Engine,
    Function,
    NoEngineError,
    RootDirectory,
    arm64_emulation,
    container_engine,
    forwarded,
    prepare_image,
    sam_variables,
)
from tests.invoke.root_directory import ARM64, X86_64, Architecture, RuntimeFilesError
from tests.invoke.sample_events import (
    EXPECTED,
    FUNCTIONS,
    REJECTS_OBJECTS,
    event_files,
    name_of,
    outcome,
    store_rows_of,
)
from tests.stack import Lake, client, deployed_lake, physical_id

LOG_LINES_SHOWN = 15
GOOD_EVENT = "transform/good.json"


def build(project: Path, architecture: Architecture, directory: Path) -> Path:
    """Build the functions for a processor by ``sam build``, and return the folder of the artifacts."""
    sam = [str(toolchain.environment_python(project, "sam")), "-m", "samcli"]
    command = [*sam, "build", "--template-file", str(project / "template.yaml"), "--build-dir", str(directory)]
    variables = sam_variables(project) | {"ARCH": architecture.name}
    completed = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        raise RuntimeError(f"sam build failed:\n{completed.stderr[-3000:]}")
    return directory


def function_of(lake: Lake, logical_id: str, built: Path) -> Function:
    """Return a function as it is deployed, with the artifact that was built for this processor."""
    name = physical_id(lake, logical_id)
    configuration = client(lake, "lambda").get_function_configuration(FunctionName=name)
    variables = {
        **configuration["Environment"]["Variables"],
        "AWS_REGION": lake.target.region,
        "AWS_DEFAULT_REGION": lake.target.region,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration["MemorySize"]),
    }
    return Function(logical_id, configuration["Handler"], built / logical_id, variables)


@contextmanager
def chosen_engine(name: str, project: Path, architecture: Architecture, built: Path, port: int) -> Iterator[Engine]:
    """Choose how functions are run: ``containers``, ``chroot``, or for ``auto`` the first that this machine has.

    Raises:
        NoEngineError: there is none, or not the one that was asked for.
    """
    with ExitStack() as stack:
        if name != "chroot" and stack.enter_context(container_engine()):
            prepare_image(project, architecture)
            address, forwarded_port = stack.enter_context(forwarded(port))
            yield Containers(project, architecture, built, forwarded_port, address)
        elif name == "containers":
            raise NoEngineError(
                "No container engine runs, and none can be started here (as root: apt install docker.io)."
            )
        else:
            yield RootDirectory(project, architecture, port)


@dataclass
class Verdicts:
    """How many events were answered as expected, and what was not."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)

    def check(self, engine: Engine, name: str, function: Function, event_file: Path, expected: object) -> None:
        """Run one event and compare."""
        started = time.monotonic()
        answer = engine.invoke(function, event_file)
        seconds = time.monotonic() - started
        found = outcome(answer)
        is_expected = found == expected
        print(f"{'ok  ' if is_expected else 'FAIL'}  {name:55s} {seconds:5.1f} s  {_short(found)}", flush=True)
        if is_expected:
            self.passed += 1
            return
        self.failed.append(name)
        print(f"      expected: {_short(expected)}; answer: {answer.payload}", *_end_of(answer.log), sep="\n      ")


def _short(found: object) -> str:
    return ", ".join(found) if isinstance(found, list) else str(found)


def _end_of(log: str) -> list[str]:
    return log.strip().splitlines()[-LOG_LINES_SHOWN:]


def invoke_all(lake: Lake, engine: Engine, built: Path, project: Path, verdicts: Verdicts) -> None:
    """Run all events, then look at the stored rejects, then plant faults."""
    functions = {folder: function_of(lake, logical_id, built) for folder, logical_id in FUNCTIONS.items()}
    store_rows_of(project / "events" / "athena_check" / "load_with_new_rows.json", lake.target)
    for file in event_files(project):
        verdicts.check(engine, name_of(file), functions[file.parent.name], file, EXPECTED[name_of(file)])
    outputs = lake.target.outputs
    listed = lake.target.s3.list_objects_v2(Bucket=outputs.analytics_bucket_name, Prefix=outputs.dlq_prefix)
    if listed["KeyCount"] != REJECTS_OBJECTS:
        verdicts.failed.append(f"{listed['KeyCount']} objects with rejects instead of {REJECTS_OBJECTS}")
    _plant_faults(engine, functions["transform"], project / "events" / GOOD_EVENT, verdicts)


def _plant_faults(engine: Engine, function: Function, event_file: Path, verdicts: Verdicts) -> None:
    """Break the artifact: a fault that is answered like the whole function would be one that nobody notices."""
    kept = function.task_root / "msgspec"
    away = function.task_root / "msgspec-taken-away"
    kept.rename(away)
    missing = {"error": "Runtime.ImportModuleError"}
    verdicts.check(engine, "planted: a dependency is missing", function, event_file, missing)
    away.rename(kept)
    renamed = replace(function, handler="transform.handler.no_such_handler")
    missing = {"error": "Runtime.HandlerNotFound"}
    verdicts.check(engine, "planted: the handler is not there", renamed, event_file, missing)


def invoke_on_arm64(lake: Lake, project: Path, port: int, verdicts: Verdicts) -> str | None:
    """Run one event by the artifact that is deployed, which is for arm64, and return why not if that cannot be.

    It shows that the compiled packages load there; everything else is the same on both processors. The SAM CLI gives up
    on a container that an emulated processor is slow to start, so that this one runs without it.
    """
    with arm64_emulation() as obstacle:
        if obstacle is not None:
            return obstacle
        function = function_of(lake, FUNCTIONS["transform"], lake.laptop.directory / "build" / "artifacts")
        engine = RootDirectory(project, ARM64, port)
        event_file = project / "events" / GOOD_EVENT
        verdicts.check(engine, f"{GOOD_EVENT} on arm64 (chroot)", function, event_file, EXPECTED[GOOD_EVENT])
        return None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.invoke", description=__doc__)
    parser.add_argument("--engine", choices=("auto", "containers", "chroot"), default="auto")
    parser.add_argument(
        "--require-arm64",
        action="store_true",
        help="fail where qemu-user cannot run the functions as they are deployed",
    )
    return parser.parse_args()


def main() -> int:
    """Run the command and return its exit code."""
    arguments = _arguments()
    project = project_directory()
    verdicts = Verdicts()
    try:
        with tempfile.TemporaryDirectory(prefix="invoke-") as scratch:
            built = build(project, X86_64, Path(scratch) / "built")
            with deployed_lake(Path(scratch), "invoke", parameters=["Trigger=Schedule"]) as lake:
                port = int(urlsplit(lake.target.laptop_url or "").port or 0)
                with chosen_engine(arguments.engine, project, X86_64, built, port) as engine:
                    print(f"\nFunctions run by {engine.name}\n", flush=True)
                    invoke_all(lake, engine, built, project, verdicts)
                obstacle = invoke_on_arm64(lake, project, port, verdicts)
    except (NoEngineError, RuntimeFilesError, LookupError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if obstacle is not None:
        print(f"NOT RUN on arm64, for which the functions are deployed: {obstacle}")
        verdicts.failed += ["arm64"] if arguments.require_arm64 else []
    for failure in verdicts.failed:
        print(f"FAIL  {failure}")
    print(f"{verdicts.passed} passed, {len(verdicts.failed)} failed")
    return 1 if verdicts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
