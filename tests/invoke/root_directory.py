"""The files of the Lambda runtime, put together from packages where no image can be pulled.

A stand-in for ``public.ecr.aws/lambda/python:3.13``: a Debian with Python 3.13, the runtime interface client and boto3
as pinned in ``uv.lock``, and the runtime interface emulator that the SAM CLI ships.

Known deviations from the managed runtime (https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html):

* Debian 13 with glibc 2.41; the managed runtime is Amazon Linux 2023 with glibc 2.34. What the functions need compiled
  is resolved for 2.34 by ``functions/Makefile``.
* Debian's patch level of Python 3.13, and the boto3 of ``uv.lock``.
* Functions run as root, without the service's limits of memory, processes and disk.
"""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from telemetry_lake import toolchain

PYTHON = "3.13"
SUITE = "trixie"
PACKAGES = (
    f"python{PYTHON}-minimal",
    f"libpython{PYTHON}-stdlib",
    *("base-files", "bash", "coreutils", "dash", "findutils", "grep", "libc-bin", "libstdc++6", "netbase", "sed"),
    "tzdata",
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/i18n/*")
DIRECTORIES = ("dev", "etc/ssl/certs", "opt", "proc", "tmp", "usr/local/bin", "var/lang/bin", "var/runtime", "var/task")
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
VARIABLES: Mapping[str, str] = {
    "LANG": "C.UTF-8",
    "LAMBDA_RUNTIME_DIR": "/var/runtime",
    "LAMBDA_TASK_ROOT": "/var/task",
    "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
    "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin",
    "TZ": ":UTC",
}
# The function comes first, then layers, then the runtime's own packages:
# https://docs.aws.amazon.com/lambda/latest/dg/python-package.html#python-package-searchpath
BOOTSTRAP = f"""#!/bin/bash
export AWS_EXECUTION_ENV=AWS_Lambda_python{PYTHON}
export PYTHONPATH="/var/task:/opt/python/lib/python{PYTHON}/site-packages:/opt/python:/var/runtime"
exec /var/lang/bin/python{PYTHON} -m awslambdaric "${{_HANDLER:-$1}}"
"""
# As AWS's images do: without the Runtime API of a Lambda around it, the emulator offers one.
ENTRYPOINT = """#!/bin/sh
export _HANDLER="$1"
if [ -z "$AWS_LAMBDA_RUNTIME_API" ]; then exec /usr/local/bin/aws-lambda-rie /var/runtime/bootstrap "$1"; fi
exec /var/runtime/bootstrap "$1"
"""


class RuntimeFilesError(Exception):
    """The files cannot be put together; the message says what to do."""


@dataclass(frozen=True)
class Architecture:
    """One processor, in the words of Lambda, Debian and uv."""

    name: str
    debian: str
    platform: str


X86_64 = Architecture("x86_64", "amd64", "x86_64-manylinux_2_34")
ARM64 = Architecture("arm64", "arm64", "aarch64-manylinux_2_34")


def root_directory(project: Path, architecture: Architecture) -> Path:
    """Return the root directory of the runtime, made the first time.

    Raises:
        RuntimeFilesError: it cannot be made.
    """
    directory = project / ".tools" / "lambda-image" / architecture.name
    root, stamp_file = directory / "root", directory / "stamp"
    stamp = _stamp(project, architecture)
    if stamp_file.exists() and stamp_file.read_text() == stamp:
        return root
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        raise RuntimeFilesError(
            "The files of the Lambda runtime are put together from Debian's packages, which needs root and mmdebstrap "
            "(apt install mmdebstrap). With a container engine and a network, pull the runtime's image instead: "
            f"docker pull public.ecr.aws/lambda/python:{PYTHON}-{architecture.name}"
        )
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    _unpack_debian(root, architecture)
    _lay_out(root, emulator(project, architecture))
    _install_runtime(project, root, architecture)
    stamp_file.write_text(stamp)
    return root


def emulator(project: Path, architecture: Architecture) -> Path:
    """Return the runtime interface emulator that the SAM CLI ships."""
    name = f"aws-lambda-rie-{architecture.name}"
    (found,) = (project / ".tools" / "sam" / "lib").glob(f"python3*/site-packages/samcli/local/rapid/{name}")
    return found


def _stamp(project: Path, architecture: Architecture) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update((project / "uv.lock").read_bytes())
    digest.update(repr((architecture, str(project))).encode())
    return digest.hexdigest()


def _unpack_debian(root: Path, architecture: Architecture) -> None:
    """Unpack the packages without running their scripts, so that the processor may be another one."""
    with tempfile.TemporaryDirectory(prefix="lambda-runtime-") as scratch:
        archive = Path(scratch) / "root.tar"
        exclusions = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
        command = ["mmdebstrap", "--quiet", "--variant=extract", f"--arch={architecture.debian}"]
        command += [f"--include={','.join(PACKAGES)}", *exclusions, SUITE, str(archive), *_mirror()]
        _run(command, f"Debian's packages for {architecture.name} could not be unpacked")
        root.mkdir()
        unpack = ["tar", "--extract", "--numeric-owner", "--file", str(archive), "--directory", str(root)]
        _run([*unpack, "--exclude=./dev/*"], f"Debian's packages for {architecture.name} could not be unpacked")


def _mirror() -> list[str]:
    """Return the mirror that this machine's own apt uses, none if it is not to be told."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))]
    for source in sources:
        text = source.read_text() if source.exists() else ""
        found = re.search(r"^(?:URIs:|deb(?:\s+\[[^\]]*\])?)\s+(\S+)", text, re.MULTILINE)
        if found:
            return [found[1]]
    return []


def _lay_out(root: Path, emulator_file: Path) -> None:
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(stat.S_ISVTX | 0o777)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    for link in (f"var/lang/bin/python{PYTHON}", "var/lang/bin/python3", "usr/bin/python3"):
        (root / link).unlink(missing_ok=True)
        (root / link).symlink_to(f"/usr/bin/python{PYTHON}")
    _executable(root / "usr" / "local" / "bin" / "aws-lambda-rie", emulator_file.read_bytes())
    _executable(root / "var" / "runtime" / "bootstrap", BOOTSTRAP.encode())
    _executable(root / "lambda-entrypoint.sh", ENTRYPOINT.encode())


def _executable(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o755)


def _install_runtime(project: Path, root: Path, architecture: Architecture) -> None:
    uv = str(toolchain.find_or_install_uv(project))
    with tempfile.TemporaryDirectory(prefix="lambda-runtime-") as scratch:
        requirements = Path(scratch) / "requirements.txt"
        export = [uv, "export", "--quiet", "--frozen", "--only-group", "lambda-image", "--no-emit-project"]
        _run([*export, "--output-file", str(requirements)], "uv could not export the runtime's packages", project)
        install = [uv, "pip", "install", "--quiet", "--no-build", "--require-hashes", "--python", sys.executable]
        install += ["--python-version", PYTHON, "--python-platform", architecture.platform]
        install += ["--target", str(root / "var" / "runtime"), "--requirements", str(requirements)]
        _run(install, "The runtime's packages could not be installed", project)


def _run(command: list[str], what: str, directory: Path | None = None) -> None:
    completed = subprocess.run(
        command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if completed.returncode != 0:
        raise RuntimeFilesError(f"{what}:\n{completed.stderr.strip()}")
