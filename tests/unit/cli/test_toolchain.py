"""The toolchain: when an environment is made, with what, and what is said when it cannot be."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry_lake import toolchain
from telemetry_lake.toolchain import Environment, ToolchainError

ENVIRONMENT = Environment("tool", ".tools/tool", ("--only-group", "tool"))
PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "a checkout"
    project.mkdir()
    (project / "uv.lock").write_text("version = 1")
    (project / "pyproject.toml").write_text("[project]")
    return project


@pytest.fixture
def uv(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A uv that makes the environment's interpreter and notes how it was called."""
    script = project.parent / "path" / "uv"
    script.parent.mkdir()
    script.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo "uv 0.13.9 (x86_64)"; exit 0; fi\n'
        f"echo \"$UV_PROJECT_ENVIRONMENT|$UV_PYTHON_DOWNLOADS|$*\" >> '{project}/calls'\n"
        'mkdir -p "$UV_PROJECT_ENVIRONMENT/bin" && : > "$UV_PROJECT_ENVIRONMENT/bin/python"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    monkeypatch.setattr(
        toolchain, "environment_python", lambda at, _name: at / ENVIRONMENT.directory / "bin" / "python"
    )
    return script


def test_an_environment_is_made_once_and_again_when_the_lock_changes(project: Path, uv: Path) -> None:
    # GIVEN / WHEN it is prepared twice
    first = toolchain.prepare_environment(project, ENVIRONMENT)
    second = toolchain.prepare_environment(project, ENVIRONMENT)

    # THEN uv ran once, on the lock as it is, without a Python from elsewhere
    assert (first, second) == (True, False)
    wanted = f"{project}/.tools/tool|never|sync --frozen --only-group tool"
    assert (project / "calls").read_text().splitlines() == [wanted]

    # WHEN the lock changes
    (project / "uv.lock").write_text("version = 2")

    # THEN it is made again
    assert toolchain.prepare_environment(project, ENVIRONMENT)


def test_an_environment_of_a_checkout_that_was_moved_is_made_again(project: Path, uv: Path) -> None:
    # GIVEN
    toolchain.prepare_environment(project, ENVIRONMENT)

    # WHEN
    moved = project.rename(project.parent / "elsewhere")

    # THEN its scripts would name the old place
    assert not toolchain.is_ready(moved, ENVIRONMENT)


def test_packages_that_cannot_be_had_are_an_error_that_says_what_to_do(project: Path, uv: Path) -> None:
    # GIVEN a uv that fails
    uv.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "uv 0.13.9" && exit 0\necho no route >&2\nexit 2\n')

    # WHEN / THEN
    with pytest.raises(ToolchainError, match=r"(?s)could not prepare .tools/tool\nno route.*HTTPS_PROXY"):
        toolchain.prepare_environment(project, ENVIRONMENT, quiet=True)
    assert not toolchain.is_ready(project, ENVIRONMENT)


def test_an_old_uv_on_the_path_is_not_used(project: Path, uv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN an old uv
    uv.write_text("#!/bin/sh\necho uv 0.4.1\n")
    installed: list[Path] = []
    monkeypatch.setattr(toolchain, "install_uv", installed.append)

    # WHEN
    found = toolchain.find_or_install_uv(project)

    # THEN the checkout gets its own
    assert installed == [project / ".tools" / "uv"]
    assert found == project / ".tools" / "uv" / "bin" / "uv"


def test_a_python_without_ensurepip_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN Debian's python3 without python3-venv
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    # WHEN / THEN
    with pytest.raises(ToolchainError, match=r"apt install python3\.11-venv"):
        toolchain.install_uv(tmp_path)


@pytest.mark.parametrize("version", [(3, 10), (3, 12), (3, 13)])
def test_a_python_that_spark_does_not_run_with_is_refused(version: tuple[int, int]) -> None:
    with pytest.raises(ToolchainError, match=r"Python 3\.11 is needed"):
        toolchain.assert_python_fits(version)


@pytest.mark.parametrize(("text", "version"), [("0.13.9", (0, 13, 9)), ("0.9.0a1", (0, 9)), ("", ())])
def test_a_version_is_its_leading_numbers(text: str, version: tuple[int, ...]) -> None:
    assert toolchain.parse_version(text) == version


def test_the_module_runs_on_a_bare_python() -> None:
    # GIVEN an interpreter that sees no installed package
    command = [toolchain.base_python(), "-I", "-S", "telemetry_lake/toolchain.py", "--help"]

    # WHEN
    completed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)

    # THEN
    assert completed.returncode == 0, completed.stderr


def test_tools_find_uv_on_their_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN a checkout with a uv of its own
    monkeypatch.setattr(toolchain, "find_or_install_uv", lambda _project: project / ".tools/uv/bin/uv")

    # WHEN
    variables = toolchain.tool_variables({"PATH": "/bin", "HOME": "/home/me"}, project)

    # THEN
    assert variables["PATH"] == f"{project}/.tools/uv/bin:/bin"
    assert variables["HOME"] == "/home/me"


def test_setup_makes_the_spark_of_one_glue_version_only() -> None:
    # WHEN
    default = [environment.name for environment in toolchain.SETUP_ENVIRONMENTS]
    other = [environment.name for environment in toolchain.stack_environments("4.0")]

    # THEN
    assert default == ["main", "sam", "lambda-runtime", "glue-5.1"]
    assert (*default, "spark-5.1") == toolchain.SETUP_PARTS
    assert toolchain.stack_environments("5.1") == toolchain.SETUP_ENVIRONMENTS
    assert other == ["main", "sam", "lambda-runtime", "glue-4.0"]


def test_the_parts_of_a_glue_version_are_prepared_by_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN
    made: list[str] = []
    commands: list[list[str]] = []
    monkeypatch.setattr(toolchain, "prepare_environment", lambda _project, environment: made.append(environment.name))

    def run(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)

    # WHEN
    toolchain.prepare(project, ["glue-6.0", "spark-6.0"])

    # THEN the environment comes first, then its Java libraries
    assert made == ["glue-6.0"]
    assert [command[-3:] for command in commands] == [["prepare-spark", "--glue-version", "6.0"]]


def test_every_part_of_the_environments_is_in_the_lock() -> None:
    # GIVEN the groups and extras of pyproject.toml
    import tomllib

    content = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    known = {*content["dependency-groups"], *content["project"]["optional-dependencies"]}

    # WHEN / THEN
    for environment in toolchain.ENVIRONMENTS:
        assert environment.selection[1] in known, environment.name
    assert sys.version_info[:2] == toolchain.PYTHON_VERSION
