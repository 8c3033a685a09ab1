"""Ways to run a function once: by ``sam local invoke`` in a container, and without a container engine.

``sam local invoke`` ends well when the function fails, so that its answer has to be read:
https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/using-sam-cli-local-invoke.html
"""

import ipaddress
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from telemetry_lake import toolchain
from telemetry_lake.laptop import free_port
from tests.invoke.root_directory import PYTHON, VARIABLES, Architecture, RuntimeFilesError, root_directory

IMAGE = f"public.ecr.aws/lambda/python:{PYTHON}"
LABEL = "telemetry-lake.root-directory"
START_SECONDS = 120.0
INVOKE_SECONDS = 300.0


class NoEngineError(Exception):
    """Nothing on this machine can run a function; the message says what to do."""


@dataclass(frozen=True)
class Function:
    """A built function of the template.

    ``variables`` are those of the deployed function.
    """

    logical_id: str
    handler: str
    task_root: Path
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What an invocation answered, and what the function wrote meanwhile."""

    payload: Any
    log: str

    @property
    def error_type(self) -> str | None:
        """The error's type if the function failed (https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html)."""
        if isinstance(self.payload, dict) and "errorMessage" in self.payload:
            return str(self.payload.get("errorType", "unknown"))
        return None


class Engine(Protocol):
    """Runs functions."""

    name: str

    def invoke(self, function: Function, event_file: Path) -> Answer:
        """Run the function once, in an environment of its own."""
        ...


# --------------------------------------------------------------------------------------------------- in a container


class Containers:
    """The unmodified SAM CLI on a container engine; AWS's own image if it is there, else one of our root directory."""

    def __init__(
        self, project: Path, architecture: Architecture, built: Path, endpoint_port: int, address: str
    ) -> None:
        self.name = f"sam local invoke, {_image_name(architecture)} ({_image_origin(architecture)})"
        self._project = project
        self._built = built
        self._endpoint_url = f"http://{address}:{endpoint_port}"
        self._architecture = architecture
        self._invoked: set[str] = set()

    def invoke(self, function: Function, event_file: Path) -> Answer:
        """Run the function once by ``sam local invoke``."""
        template = self._template(function)
        sam = [str(toolchain.environment_python(self._project, "sam")), "-m", "samcli"]
        command = [*sam, "local", "invoke", function.logical_id, "--template-file", str(template)]
        command += ["--event", str(event_file), "--skip-pull-image", "--region", function.variables["AWS_REGION"]]
        completed = subprocess.run(
            command,
            env=sam_variables(self._project),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=INVOKE_SECONDS,
        )
        lines = completed.stdout.strip().splitlines()
        if completed.returncode != 0 or not lines:
            raise RuntimeError(f"sam local invoke failed ({completed.returncode}):\n{completed.stderr[-3000:]}")
        return Answer(json.loads(lines[-1]), completed.stderr)

    def _template(self, function: Function) -> Path:
        """Write the built template with what only this machine needs: the processor, and where AWS is.

        The SAM CLI passes no variable that the template does not declare. It takes longer to read the whole template
        than to run a function, so that further events of a function get the function alone.
        """
        template = yaml.safe_load((self._built / "template.yaml").read_text())
        properties = template["Resources"][function.logical_id]["Properties"]
        properties["Architectures"] = [self._architecture.name]
        properties["Handler"] = function.handler
        variables = {name: value for name, value in function.variables.items() if not name.startswith("AWS_")}
        properties["Environment"] = {"Variables": {**variables, "AWS_ENDPOINT_URL": self._endpoint_url}}
        if function.logical_id in self._invoked:
            template["Resources"] = {function.logical_id: template["Resources"][function.logical_id]}
            del template["Outputs"]
        self._invoked.add(function.logical_id)
        path = self._built / f"template-{function.logical_id}.yaml"
        path.write_text(yaml.safe_dump(template))
        return path


def sam_variables(project: Path) -> dict[str, str]:
    """Return the variables for the SAM CLI: this machine's, with dummy credentials and nothing of an account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAM_CLI_"))}
    return toolchain.tool_variables(kept, project) | {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "SAM_CLI_TELEMETRY": "0",
        "SAM_CLI_CHECK_VERSION": "0",
    }


def _docker(*words: str, data: Path | None = None) -> "subprocess.CompletedProcess[str]":
    with (data or Path(os.devnull)).open("rb") as stream:
        return subprocess.run(["docker", *words], stdin=stream, capture_output=True, text=True, check=False)


def _image_name(architecture: Architecture) -> str:
    return f"{IMAGE}-{architecture.name}"


def _image_origin(architecture: Architecture) -> str:
    label = _docker(
        "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', _image_name(architecture)
    )
    return "AWS's own" if label.returncode == 0 and not label.stdout.strip() else "made from packages"


@contextmanager
def container_engine() -> Iterator[bool]:
    """Use the container engine that runs, or start one as root for the time of the block; tell whether there is one."""
    if shutil.which("docker") is None:
        yield False
        return
    if _docker("info").returncode == 0:
        yield True
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        yield False
        return
    with tempfile.TemporaryFile() as log:
        daemon = subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while daemon.poll() is None and time.monotonic() < deadline and _docker("info").returncode != 0:
                time.sleep(0.5)
            yield daemon.poll() is None and _docker("info").returncode == 0
        finally:
            daemon.terminate()
            daemon.wait(30)


def prepare_image(project: Path, architecture: Architecture) -> None:
    """Make the image under the name that the SAM CLI asks for, unless AWS's own is there or ours is up to date."""
    name = _image_name(architecture)
    if _docker("image", "inspect", name).returncode == 0 and _image_origin(architecture) == "AWS's own":
        return
    root = root_directory(project, architecture)
    stamp = (root.parent / "stamp").read_text()
    label = _docker("image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', name)
    if label.returncode == 0 and label.stdout.strip() == stamp:
        return
    with tempfile.NamedTemporaryFile(prefix="lambda-image-", suffix=".tar") as archive:
        subprocess.run(["tar", "-C", str(root), "--numeric-owner", "-cf", archive.name, "."], check=True)
        changes = [f"ENV {key}={value}" for key, value in VARIABLES.items()]
        changes += ["WORKDIR /var/task", 'ENTRYPOINT ["/lambda-entrypoint.sh"]', f'LABEL {LABEL}="{stamp}"']
        words = [word for change in changes for word in ("--change", change)]
        imported = _docker("import", *words, "-", name, data=Path(archive.name))
    if imported.returncode != 0:
        raise RuntimeFilesError(f"docker import failed:\n{imported.stderr}")
    # The SAM CLI derives an image of its own from the base and goes on using it when the base changes.
    _docker("rmi", "--force", f"{IMAGE.removesuffix(PYTHON)}{PYTHON}-rapid-{architecture.name}")


@contextmanager
def forwarded(port: int) -> Iterator[tuple[str, int]]:
    """Let containers reach a port of 127.0.0.1, by one of the bridge that only they and this machine can reach.

    Yields:
        Address and port.
    """
    inspected = _docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}")
    if inspected.returncode != 0:
        raise NoEngineError(f"The container engine has no bridge network: {inspected.stderr.strip()}")
    # The engine's own address in its default network is the first one.
    address = str(next(ipaddress.ip_network(inspected.stdout.strip()).hosts()))
    with socket.create_server((address, 0)) as server:
        threading.Thread(target=_forward_all, args=(server, port), daemon=True).start()
        yield address, server.getsockname()[1]


def _forward_all(server: socket.socket, port: int) -> None:
    while True:
        try:
            incoming, _ = server.accept()
        except OSError:
            return  # closed: nobody needs it any more
        outgoing = socket.create_connection(("127.0.0.1", port))
        for source, target in ((incoming, outgoing), (outgoing, incoming)):
            threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with source, target:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            return  # the other direction has closed both


# ------------------------------------------------------------------------------------------------ on another processor

BINFMT = Path("/proc/sys/fs/binfmt_misc")
QEMU = Path("/usr/bin/qemu-aarch64-static")
# The head of an executable for arm64, and which of its bits count, as the kernel takes it. F keeps the interpreter open
# so that containers need none of their own: https://docs.kernel.org/admin-guide/binfmt-misc.html
ARM64_EXECUTABLE = (
    rb":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:"
    rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F"
)


@contextmanager
def arm64_emulation() -> Iterator[str | None]:
    """Let the kernel run executables for arm64 by qemu-user for the time of the block.

    Yields:
        Why it cannot, else None.
    """
    if (BINFMT / "qemu-aarch64").exists():
        yield None
        return
    if os.geteuid() != 0 or not QEMU.exists():
        yield "it needs root and qemu-user (apt install qemu-user-static)"
        return
    if not (BINFMT / "register").exists():
        mounted = subprocess.run(
            ["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            yield f"the kernel has no binfmt_misc: {mounted.stderr.decode().strip()}"
            return
    (BINFMT / "register").write_bytes(ARM64_EXECUTABLE)
    try:
        yield None
    finally:
        (BINFMT / "qemu-aarch64").write_text("-1")


# ------------------------------------------------------------------------------------------- without a container engine


class RootDirectory:
    """The same files by chroot: no SAM CLI and no container, but the runtime, its Python and the artifact."""

    def __init__(self, project: Path, architecture: Architecture, endpoint_port: int) -> None:
        self.name = "chroot: NO container engine runs here, so that the SAM CLI cannot; the same files run without both"
        self._root = root_directory(project, architecture)
        self._endpoint_url = f"http://127.0.0.1:{endpoint_port}"

    def invoke(self, function: Function, event_file: Path) -> Answer:
        """Run the function once behind the runtime interface emulator."""
        task_root = self._root / "var" / "task"
        shutil.rmtree(task_root, ignore_errors=True)
        shutil.copytree(function.task_root, task_root)
        port, api_port = free_port(), free_port()
        variables = {**VARIABLES, **function.variables, "AWS_ENDPOINT_URL": self._endpoint_url}
        emulator = ["/usr/local/bin/aws-lambda-rie", "--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
        emulator += ["--runtime-api-address", f"127.0.0.1:{api_port}", "/var/runtime/bootstrap", function.handler]
        with tempfile.TemporaryFile() as log, _devices(self._root):
            process = subprocess.Popen(
                [shutil.which("chroot") or "chroot", str(self._root), *emulator],
                env={**variables, "_HANDLER": function.handler},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                payload = _post(f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations", event_file)
            finally:
                os.killpg(process.pid, 9)
                process.wait()
            log.seek(0)
            return Answer(payload, log.read().decode(errors="replace"))


@contextmanager
def _devices(root: Path) -> Iterator[None]:
    """Make the devices that a Python process opens."""
    made = []
    for name, minor in (("null", 3), ("urandom", 9)):
        path = root / "dev" / name
        if not path.exists():
            os.mknod(path, 0o666 | 0o020000, os.makedev(1, minor))
            made.append(path)
    try:
        yield
    finally:
        for path in made:
            path.unlink()


def _post(url: str, event_file: Path) -> Any:
    deadline = time.monotonic() + START_SECONDS
    while True:
        request = urllib.request.Request(url, event_file.read_bytes())  # noqa: S310  loopback
        try:
            with urllib.request.urlopen(request, timeout=INVOKE_SECONDS) as response:  # noqa: S310
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            return json.loads(error.read())  # the function did not start; the answer says why
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
