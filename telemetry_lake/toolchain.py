"""Prepare the tools of a checkout on a bare machine, from one lock file, into ``.venv`` and ``.tools``.

The module needs nothing but the standard library, because it runs before anything is installed::

    python3 -I telemetry_lake/toolchain.py prepare

Environments (all from ``uv.lock``): ``main`` (``.venv``: the command line, the embedded endpoint, the development
tools), ``sam`` (the SAM CLI, which pins libraries of its own), ``lambda-runtime`` (what the managed Lambda runtime
offers to a function) and ``glue-5.1`` (the Spark and the Java of AWS Glue 5.1); and, only when they are named, those of
the other Glue versions, ``glue-4.0`` and so on (half a gigabyte each), ``clients`` (libraries and tools of others that
talk to the endpoint in tests), ``benchmarks`` (what the Glue job is compared with) and ``trino`` (the Java of a real
Trino). ``spark-4.0`` stands for the Java libraries of such a Spark. A stamp file beside each environment says what it
was made from, so that a ready one costs one hash.

AWS Glue 5.1 runs Spark 3.5.6 with Python 3.11 and Java 17
(https://docs.aws.amazon.com/glue/latest/dg/release-notes.html), hence the one Python version of the project. The Sparks
of the other versions run with it, too, as long as no Python function is sent to Spark.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PYTHON_VERSION = (3, 11)
UV_PINNED_VERSION = "0.13.9"
UV_MINIMUM_VERSION = (0, 9, 0)
GLUE_VERSION = "5.1"
"""What jobs run on unless the template is told otherwise."""

GLUE_VERSIONS = ("4.0", "5.0", "5.1", "6.0")


class ToolchainError(Exception):
    """A tool cannot be prepared; the message says what to do next."""


@dataclass(frozen=True)
class Environment:
    """One Python environment: where it goes below the checkout and which part of the lock it holds.

    One that is ``on_demand`` is made when it is named, and not by a set-up of everything.
    """

    name: str
    directory: str
    selection: tuple[str, ...]
    on_demand: bool = False


def glue_environment(glue_version: str) -> Environment:
    """Return the environment with the Spark and the Java of a Glue version."""
    group = f"glue-{glue_version.replace('.', '-')}"
    selection = ("--only-group", group)
    return Environment(
        f"glue-{glue_version}", f".tools/glue-{glue_version}", selection, on_demand=glue_version != GLUE_VERSION
    )


ENVIRONMENTS = (
    Environment("main", ".venv", ("--extra", "local", "--extra", "recorded")),
    Environment("sam", ".tools/sam", ("--only-group", "sam")),
    Environment("lambda-runtime", ".tools/lambda-runtime", ("--only-group", "lambda-runtime")),
    *(glue_environment(glue_version) for glue_version in GLUE_VERSIONS),
    Environment("clients", ".tools/clients", ("--only-group", "clients"), on_demand=True),
    Environment("benchmarks", ".tools/benchmarks", ("--only-group", "benchmarks"), on_demand=True),
    Environment("trino", ".tools/trino-java", ("--only-group", "trino"), on_demand=True),
)
SPARK_PARTS = {f"spark-{glue_version}": glue_version for glue_version in GLUE_VERSIONS}
PARTS = (*(environment.name for environment in ENVIRONMENTS), *SPARK_PARTS)
SETUP_ENVIRONMENTS = tuple(environment for environment in ENVIRONMENTS if not environment.on_demand)
SETUP_PARTS = (*(environment.name for environment in SETUP_ENVIRONMENTS), f"spark-{GLUE_VERSION}")


def stack_environments(glue_version: str) -> tuple[Environment, ...]:
    """Return the environments that a stack on this machine needs, ``main`` first, if its job runs on a Glue version."""
    others = [each for each in SETUP_ENVIRONMENTS if each != glue_environment(GLUE_VERSION)]
    return (*others, glue_environment(glue_version))


def project_directory() -> Path:
    """Return the checkout that this file belongs to."""
    return Path(__file__).resolve().parents[1]


def environment_named(name: str) -> Environment:
    """Return the environment called ``name``, for example ``sam``."""
    return next(environment for environment in ENVIRONMENTS if environment.name == name)


def environment_python(project: Path, name: str) -> Path:
    """Return the path of the interpreter of the environment ``name``, whether it is there yet or not."""
    return project / environment_named(name).directory / "bin" / "python"


def stamp(project: Path, environment: Environment) -> str:
    """Return what the environment is made from: the lock, the selection, the interpreter and its own place.

    The place counts because the scripts of an environment hold its absolute path.
    """
    digest = hashlib.sha256()
    for name in ("uv.lock", "pyproject.toml"):
        digest.update((project / name).read_bytes())
    digest.update(repr((environment, str(project), sys.version_info[:3])).encode())
    return digest.hexdigest()


def is_ready(project: Path, environment: Environment) -> bool:
    """Tell whether the environment is there and was made from the lock as it is now."""
    stamp_file = _stamp_file(project, environment)
    return (
        environment_python(project, environment.name).exists()
        and stamp_file.exists()
        and stamp_file.read_text() == stamp(project, environment)
    )


def prepare_environment(project: Path, environment: Environment, quiet: bool = False) -> bool:
    """Make the environment as the lock says; with nothing to do it returns at once.

    Args:
        project: the checkout.
        environment: what to make.
        quiet: keep uv's own progress off the terminal; its last lines are then part of the error.

    Returns:
        Whether anything had to be done.

    Raises:
        ToolchainError: this Python does not fit, uv is not to be had, or the packages are not.
    """
    if is_ready(project, environment):
        return False
    assert_python_fits(sys.version_info[:2])
    uv = find_or_install_uv(project)
    _say(f"Preparing {environment.directory} ({environment.name}) ...", quiet)
    command = [str(uv), "sync", "--frozen", *environment.selection]
    completed = subprocess.run(  # noqa: S603  uv with arguments from this file
        command,
        cwd=project,
        env=uv_environment(os.environ, project, environment),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        said = f"\n{completed.stderr.strip()}\n" if quiet else " (its message is above)"
        raise ToolchainError(
            f"uv could not prepare {environment.directory}{said}.\n"
            "The first preparation downloads packages from the Python package index. Without a network, or behind a "
            "proxy, set the usual variables (HTTPS_PROXY, SSL_CERT_FILE, UV_DEFAULT_INDEX) and repeat the command."
        )
    stamp_file = _stamp_file(project, environment)
    stamp_file.parent.mkdir(parents=True, exist_ok=True)
    stamp_file.write_text(stamp(project, environment))
    return True


def assert_python_fits(version: tuple[int, int]) -> None:
    """Refuse an interpreter other than the one that the Spark of AWS Glue 5.1 runs with.

    Raises:
        ToolchainError: it is older or newer.
    """
    if version != PYTHON_VERSION:
        wanted = ".".join(map(str, PYTHON_VERSION))
        raise ToolchainError(
            f"This is Python {'.'.join(map(str, version))}, and Python {wanted} is needed: the Spark of AWS Glue "
            f"{GLUE_VERSION} does not run on a later one, and the code needs this one at least. Install it (Debian 12: "
            f"apt install python{wanted} python{wanted}-venv) or name it: make PYTHON=/path/to/python{wanted} setup"
        )


def uv_environment(inherited: Mapping[str, str], project: Path, environment: Environment) -> dict[str, str]:
    """Return the variables for uv: this interpreter and no other, this environment, the user's index settings."""
    variables = {name: value for name, value in inherited.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    return variables | {
        "UV_PROJECT_ENVIRONMENT": str(project / environment.directory),
        "UV_PYTHON": base_python(),
        "UV_PYTHON_DOWNLOADS": "never",
    }


def base_python() -> str:
    """Return the interpreter outside of any virtual environment; environments are made from it."""
    return getattr(sys, "_base_executable", None) or sys.executable


def find_or_install_uv(project: Path) -> Path:
    """Return uv: from PATH if it is recent enough, else an exactly pinned one of the checkout's own.

    Raises:
        ToolchainError: there is none, and it cannot be installed.
    """
    found = shutil.which("uv")
    if found is not None and uv_version(Path(found)) >= UV_MINIMUM_VERSION:
        return Path(found)
    own = project / ".tools" / "uv" / "bin" / "uv"
    if uv_version(own) != parse_version(UV_PINNED_VERSION):
        install_uv(own.parents[1])
    return own


def uv_version(executable: Path) -> tuple[int, ...]:
    """Return the version that ``uv --version`` prints, ``()`` if it does not run."""
    try:
        completed = subprocess.run(  # noqa: S603
            [str(executable), "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    words = completed.stdout.split()
    return parse_version(words[1]) if completed.returncode == 0 and len(words) > 1 else ()


def parse_version(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, ``(0, 13, 9)`` for ``0.13.9``; ``()`` if there are none."""
    numbers: list[int] = []
    for part in text.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def install_uv(directory: Path) -> None:
    """Install the pinned uv into a virtual environment of its own.

    Raises:
        ToolchainError: this Python cannot make environments, or the package cannot be downloaded.
    """
    assert_python_fits(sys.version_info[:2])
    if importlib.util.find_spec("ensurepip") is None:
        version = ".".join(map(str, sys.version_info[:2]))
        raise ToolchainError(
            f"{sys.executable} cannot make virtual environments (no ensurepip). On Debian and Ubuntu: "
            f"apt install python{version}-venv. Or put uv {'.'.join(map(str, UV_MINIMUM_VERSION))} or later on PATH."
        )
    _say(f"Installing uv {UV_PINNED_VERSION} into {directory} ...")
    steps = (
        [base_python(), "-m", "venv", "--clear", str(directory)],
        [
            str(directory / "bin" / "python"),
            *("-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--only-binary", ":all:"),
            f"uv=={UV_PINNED_VERSION}",
        ],
    )
    for command in steps:
        if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode != 0:  # noqa: S603
            raise ToolchainError(
                f"uv {UV_PINNED_VERSION} could not be installed (the message is above). It comes from the Python "
                "package index: check the network or pip's proxy settings, or put a uv on PATH, and repeat the command."
            )


def tool_variables(inherited: Mapping[str, str], project: Path) -> dict[str, str]:
    """Return the variables for tools that call uv themselves, as ``sam build`` does through make: uv is on PATH.

    Raises:
        ToolchainError: uv is not to be had.
    """
    uv_directory = str(find_or_install_uv(project).parent)
    path = inherited.get("PATH", os.defpath)
    variables = dict(inherited) | {"UV_PYTHON_DOWNLOADS": "never"}
    if uv_directory not in path.split(os.pathsep):
        variables["PATH"] = os.pathsep.join((uv_directory, path))
    return variables


def prepare(project: Path, parts: Sequence[str]) -> None:
    """Prepare the named parts of ``PARTS`` in order, with uv's and Spark's own progress on the terminal.

    Raises:
        ToolchainError: one of them cannot be prepared.
    """
    for part in parts:
        if part in SPARK_PARTS:
            _prepare_spark(project, SPARK_PARTS[part])
        else:
            prepare_environment(project, environment_named(part))


def _prepare_spark(project: Path, glue_version: str) -> None:
    command = [str(environment_python(project, "main")), "-m", "telemetry_lake", "prepare-spark"]
    command += ["--glue-version", glue_version]
    if subprocess.run(command, cwd=project, stdin=subprocess.DEVNULL, check=False).returncode != 0:  # noqa: S603
        raise ToolchainError("The Java and Spark libraries could not be prepared (the message is above).")


def _stamp_file(project: Path, environment: Environment) -> Path:
    return project / ".tools" / "stamps" / environment.name


def _say(text: str, quiet: bool = False) -> None:
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prepare the tools of this checkout.")
    commands = parser.add_subparsers(dest="command", required=True)
    prepare_parser = commands.add_parser("prepare", help="make what is missing; nothing is named: what a set-up needs")
    prepare_parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
    uv_parser = commands.add_parser("uv", help="run uv on the main environment, for example: uv lock --check")
    uv_parser.add_argument("arguments", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    unknown = sorted(set(getattr(arguments, "parts", ())) - set(PARTS))
    if unknown:
        parser.error(f"unknown part: {', '.join(unknown)} (known: {', '.join(PARTS)})")
    return arguments


def main() -> int:
    """Run the module's own command line and return its exit code."""
    arguments = _arguments()
    project = project_directory()
    try:
        if arguments.command == "prepare":
            prepare(project, arguments.parts or SETUP_PARTS)
            return 0
        return subprocess.run(  # noqa: S603
            [str(find_or_install_uv(project)), *arguments.arguments],
            cwd=project,
            env=uv_environment(os.environ, project, environment_named("main")),
            check=False,
        ).returncode
    except ToolchainError as error:
        _say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
