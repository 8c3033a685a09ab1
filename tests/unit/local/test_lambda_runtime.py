"""AWS Lambda of the embedded endpoint: what a function sees, what it answers, and what its log becomes."""

import base64
import io
import json
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from telemetry_lake.local import lambda_runtime
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

# --- embedded metrics -------------------------------------------------------------------------------------------------
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html


def metrics_of(document: Any) -> list[lambda_runtime.MetricValue]:
    return list(lambda_runtime.embedded_metrics(document if isinstance(document, str) else json.dumps(document)))


def embedded(dimensions: list[list[str]], **members: Any) -> dict[str, Any]:
    directive = {"Namespace": "N", "Dimensions": dimensions, "Metrics": [{"Name": "m", "Unit": "Count"}]}
    return {"_aws": {"Timestamp": 1, "CloudWatchMetrics": [directive]}, **members}


@pytest.mark.source(
    "https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html"
)
def test_metric_is_put_for_each_set_of_dimensions() -> None:
    # WHEN
    metrics = metrics_of(embedded([["Stage"], ["Stage", "Reason"], []], Stage="prod", Reason="r", m=2))

    # THEN
    assert [(m.namespace, m.name, m.value, m.unit, m.dimensions) for m in metrics] == [
        ("N", "m", 2.0, "Count", {"Stage": "prod"}),
        ("N", "m", 2.0, "Count", {"Stage": "prod", "Reason": "r"}),
        ("N", "m", 2.0, "Count", {}),
    ]


@pytest.mark.source(
    "https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html"
)
def test_metric_with_several_values_is_put_several_times() -> None:
    assert [metric.value for metric in metrics_of(embedded([[]], m=[1, 2.5]))] == [1.0, 2.5]


@pytest.mark.source(
    "https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html"
)
@pytest.mark.parametrize(
    "document",
    [
        "START RequestId: x",
        '{"message": "no metrics"}',
        '{"_aws": broken',
        '{"_aws": 5}',
        embedded([["Missing"]], m=1),
        embedded([["Stage"]], Stage=5, m=1),
        embedded([[]], m="text"),
        embedded([[]], m=True),
        embedded([[]]),
    ],
)
def test_line_without_valid_metrics_gives_none(document: Any) -> None:
    assert metrics_of(document) == []


# --- requirements -----------------------------------------------------------------------------------------------------


def distribution(task_root: Path, name: str, version: str, *tags: str) -> None:
    directory = task_root / f"{name}-{version}.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText\n")
    (directory / "WHEEL").write_text("Wheel-Version: 1.0\n" + "".join(f"Tag: {tag}\n" for tag in tags))


@pytest.mark.source("https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/")
def test_only_compiled_packages_are_resolved_again_in_their_own_version(tmp_path: Path) -> None:
    # GIVEN
    distribution(
        tmp_path, "msgspec", "0.22.0", "cp313-cp313-manylinux_2_17_aarch64", "cp313-cp313-manylinux2014_aarch64"
    )
    distribution(tmp_path, "jmespath", "1.1.0", "py2-none-any", "py3-none-any")

    # WHEN / THEN
    assert lambda_runtime.compiled_requirements(tmp_path) == ["msgspec==0.22.0"]


def fake_uv(directory: Path, body: str) -> Path:
    """Return a program in uv's place that writes its arguments beside itself and then runs ``body``."""
    program = directory / "uv"
    program.write_text(f'#!/bin/sh\necho "$@" >> "{directory}/calls"\n{body}\n')
    program.chmod(0o755)
    return program


MAKE_TARGET = 'while [ "$1" != "--target" ]; do shift; done\nmkdir -p "$2" && touch "$2/installed"'


@pytest.mark.own_machinery("packages for this machine's processor")
def test_packages_are_installed_once_for_the_same_pins(tmp_path: Path) -> None:
    # GIVEN
    uv = fake_uv(tmp_path, MAKE_TARGET)
    packages = lambda_runtime.HostPackages(tmp_path / "packages", Path("/runtime/bin/python"), uv)

    # WHEN
    first = packages.resolve(["msgspec==0.22.0"])
    second = packages.resolve(["msgspec==0.22.0"])
    other = packages.resolve(["msgspec==0.21.0"])

    # THEN
    assert first is not None
    assert (first / "installed").exists()
    assert second == first
    assert other != first
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2
    assert "--no-deps --no-build --python /runtime/bin/python" in calls[0]
    assert calls[0].endswith(" msgspec==0.22.0")
    assert packages.resolve([]) is None


@pytest.mark.own_machinery("packages for this machine's processor")
def test_packages_that_cannot_be_had_are_named_with_the_way_out(tmp_path: Path) -> None:
    # GIVEN
    failing = fake_uv(tmp_path, "echo 'no route to host' >&2; exit 2")

    # WHEN / THEN
    with pytest.raises(lambda_runtime.RuntimeUnavailableError, match=r"msgspec==0\.22\.0.*no route to host"):
        lambda_runtime.HostPackages(tmp_path / "p", Path("python"), failing).resolve(["msgspec==0.22.0"])
    with pytest.raises(lambda_runtime.RuntimeUnavailableError, match="put uv on PATH"):
        lambda_runtime.HostPackages(tmp_path / "p", Path("python"), None).resolve(["msgspec==0.22.0"])
    assert not list((tmp_path / "p").glob("*"))


# --- variables --------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html")
def test_variables_are_those_of_lambda_and_reserved_ones_cannot_be_set(tmp_path: Path) -> None:
    # GIVEN
    config = {
        "FunctionName": "f",
        "FunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f",
        "Handler": "app.handler",
        "Runtime": "python3.13",
        "MemorySize": 512,
        "Environment": {"Variables": {"OWN": "1", "AWS_REGION": "mars", "TZ": "Asia/Tokyo"}},
        "LoggingConfig": {"LogGroup": "/own/group"},
    }

    # WHEN
    variables = lambda_runtime.environment_variables(
        config,
        credentials={"aws_access_key_id": "a", "aws_secret_access_key": "s", "aws_session_token": "t"},
        endpoint_url="http://127.0.0.1:1",
        task_root=tmp_path / "code",
        private_directory=tmp_path / "own",
        log_stream="stream",
    )

    # THEN nothing of this process is among them
    assert variables == {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/own/group",
        "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
        "AWS_REGION": REGION,
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_SESSION_TOKEN": "t",
        "HOME": str(tmp_path / "own"),
        "LAMBDA_TASK_ROOT": str(tmp_path / "code"),
        "LANG": "en_US.UTF-8",
        "OWN": "1",
        "PATH": "/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "TMPDIR": str(tmp_path / "own"),
        "TZ": "Asia/Tokyo",
        "_HANDLER": "app.handler",
    }


# --- functions --------------------------------------------------------------------------------------------------------

CODE = """
import json, logging, os, sys, time

CALLS = 0

class OwnError(Exception):
    pass

def handler(event, context):
    global CALLS
    CALLS += 1
    what = event.get("do") if isinstance(event, dict) else None
    if what == "look":
        modules = {}
        for name in event["modules"]:
            try:
                modules[name] = __import__(name).__file__
            except ImportError:
                modules[name] = None
        return {"calls": CALLS, "environment": dict(os.environ), "modules": modules, "path": sys.path,
                "cwd": os.getcwd(), "id": context.aws_request_id, "arn": context.invoked_function_arn,
                "memory": context.memory_limit_in_mb, "left": context.get_remaining_time_in_millis()}
    if what == "raise":
        raise OwnError("boom")
    if what == "print":
        print("to stdout"); print("to stderr", file=sys.stderr); logging.getLogger().warning("logged")
        print(json.dumps({"_aws": {"Timestamp": 1, "CloudWatchMetrics": [{"Namespace": "N", "Dimensions": [["Stage"]],
              "Metrics": [{"Name": "m", "Unit": "Count"}]}]}, "Stage": "prod", "m": 3}))
        sys.stdout.write("no end of line")
        return None
    if what == "sleep":
        time.sleep(event["seconds"])
    if what == "exit":
        os._exit(3)
    if what == "large":
        return "x" * event["size"]
    if what == "set":
        return {1, 2}
    if what == "aws":
        import boto3
        return boto3.client("sts").get_caller_identity()["Arn"]
    return {"calls": CALLS, "event": event}
"""


def archive(files: Mapping[str, str]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as zipped:
        for name, text in files.items():
            zipped.writestr(name, text)
    return target.getvalue()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    secret = pytest.MonkeyPatch()
    secret.setenv("HOST_SECRET", "of the host")
    secret.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    process = EndpointProcess(tmp_path_factory.mktemp("lambda"))
    secret.undo()
    yield process
    process.stop()


class Functions:
    """Functions of one endpoint."""

    def __init__(self, endpoint: EndpointProcess) -> None:
        self.endpoint = endpoint
        self.client = endpoint.client("lambda")
        log_groups = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/*"
        self.role = endpoint.role(
            "functions",
            "lambda.amazonaws.com",
            ("logs:CreateLogGroup", log_groups),
            ("logs:CreateLogStream", log_groups),
            ("logs:PutLogEvents", log_groups),
        )

    def create(self, name: str, code: bytes | None = None, **others: Any) -> str:
        arguments = {
            "Runtime": "python3.13",
            "Role": self.role,
            "Handler": "package.app.handler",
            "Timeout": 10,
            "Code": {"ZipFile": code or archive({"package/__init__.py": "", "package/app.py": CODE})},
            **others,
        }
        self.client.create_function(FunctionName=name, **arguments)
        self.client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
        return name

    def invoke(self, name: str, event: Any) -> tuple[str | None, Any]:
        answer = self.client.invoke(FunctionName=name, Payload=json.dumps(event))
        return answer.get("FunctionError"), json.loads(answer["Payload"].read())

    def log(self, name: str) -> list[str]:
        logs = self.endpoint.client("logs")
        group = f"/aws/lambda/{name}"
        streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
        return [
            event["message"]
            for stream in streams
            for event in logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
        ]


@pytest.fixture(scope="module")
def functions(endpoint: EndpointProcess) -> Functions:
    return Functions(endpoint)


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html")
@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/python-context.html")
def test_function_sees_its_artifact_and_the_runtime_and_nothing_of_the_host(functions: Functions) -> None:
    # GIVEN
    name = functions.create("look", Environment={"Variables": {"OWN": "1"}}, MemorySize=256)

    # WHEN
    _, first = functions.invoke(name, {"do": "look", "modules": ["boto3", "duckdb", "ministack", "telemetry_lake"]})
    _, second = functions.invoke(name, {"do": "look", "modules": []})

    # THEN
    assert "lambda-runtime" in first["modules"].pop("boto3")
    assert first["modules"] == {"duckdb": None, "ministack": None, "telemetry_lake": None}
    assert "HOST_SECRET" not in first["environment"]
    assert "PYTHONPATH" not in first["environment"]
    assert first["environment"]["OWN"] == "1"
    assert first["environment"]["LAMBDA_TASK_ROOT"] == first["cwd"] == first["path"][0]
    assert first["memory"] == "256"
    assert first["arn"] == f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:look"
    assert 0 < first["left"] <= 10_000
    # the environment stays warm
    assert (first["calls"], second["calls"]) == (1, 2)
    assert first["id"] != second["id"]


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html")
def test_function_acts_with_its_role(functions: Functions) -> None:
    # WHEN
    _, arn = functions.invoke(functions.create("whoami"), {"do": "aws"})

    # THEN
    assert arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/functions/whoami"


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html")
def test_role_that_does_not_trust_lambda_stops_the_function(functions: Functions) -> None:
    # GIVEN
    role = functions.endpoint.role("glue-only", "glue.amazonaws.com")

    # WHEN
    failure, answer = functions.invoke(functions.create("untrusted", Role=role), {})

    # THEN
    assert failure is not None
    assert "lambda.amazonaws.com is not allowed to assume" in answer["errorMessage"]


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html")
def test_exception_is_answered_with_its_type_and_trace_and_the_environment_stays(functions: Functions) -> None:
    # GIVEN
    name = functions.create("raises")

    # WHEN
    failure, answer = functions.invoke(name, {"do": "raise"})
    _, after = functions.invoke(name, {})

    # THEN https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html
    assert failure == "Unhandled"
    assert (answer["errorType"], answer["errorMessage"]) == ("OwnError", "boom")
    assert len(answer["stackTrace"]) == 1
    assert 'package/app.py", line' in answer["stackTrace"][0]
    assert 'raise OwnError("boom")' in answer["stackTrace"][0]
    assert after["calls"] == 2
    assert "[ERROR] OwnError: boom" in functions.log(name)


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/troubleshooting-deployment.html")
@pytest.mark.parametrize(
    ("files", "handler", "error_type", "message"),
    [
        ({"app.py": "import duckdb"}, "app.handler", "Runtime.ImportModuleError", "Unable to import module 'app'"),
        ({"app.py": ""}, "app.handler", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
        ({"app.py": "def"}, "app.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app'"),
        ({"app.py": "raise KeyError('X')"}, "app.handler", "KeyError", "'X'"),
    ],
)
def test_function_that_cannot_be_loaded_says_why(
    functions: Functions, files: dict[str, str], handler: str, error_type: str, message: str
) -> None:
    # WHEN
    name = functions.create(f"unloadable-{error_type.replace('.', '-')}", archive(files), Handler=handler)
    failure, answer = functions.invoke(name, {})

    # THEN
    assert failure == "Unhandled"
    assert answer["errorType"] == error_type
    assert answer["errorMessage"].startswith(message)


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/configuration-timeout.html")
def test_time_limit_ends_the_environment(functions: Functions) -> None:
    # GIVEN
    name = functions.create("slow", Timeout=1)

    # WHEN
    started = time.monotonic()
    failure, answer = functions.invoke(name, {"do": "sleep", "seconds": 30})
    seconds = time.monotonic() - started
    _, after = functions.invoke(name, {})

    # THEN
    assert failure == "Unhandled"
    assert answer["errorType"] == "Sandbox.Timedout"
    assert answer["errorMessage"].endswith("Task timed out after 1.00 seconds")
    assert 1 <= seconds < 15
    assert after["calls"] == 1
    assert any(line.endswith("Task timed out after 1.00 seconds") for line in functions.log(name))


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html")
def test_process_that_exits_is_reported_and_replaced(functions: Functions) -> None:
    # GIVEN
    name = functions.create("exits")

    # WHEN
    failure, answer = functions.invoke(name, {"do": "exit"})
    _, after = functions.invoke(name, {})

    # THEN
    assert failure == "Unhandled"
    assert answer["errorType"] == "Runtime.ExitError"
    assert answer["errorMessage"].endswith("Runtime exited with error: exit status 3")
    assert after["calls"] == 1


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/python-handler.html")
def test_result_that_is_no_json_is_an_error(functions: Functions) -> None:
    # WHEN
    failure, answer = functions.invoke(functions.create("set"), {"do": "set"})

    # THEN
    assert failure == "Unhandled"
    assert answer["errorType"] == "Runtime.MarshalError"


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html")
def test_six_megabytes_are_the_limit_both_ways(functions: Functions) -> None:
    # GIVEN https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
    name = functions.create("large")
    within = {"event": "x" * (lambda_runtime.SYNCHRONOUS_REQUEST_BYTES - len(json.dumps({"event": ""})))}

    # WHEN the request is exactly at the limit, and one byte over it
    failure, answer = functions.invoke(name, within)
    with pytest.raises(ClientError) as refusal:
        functions.invoke(name, {"event": within["event"] + "x"})

    # THEN
    assert failure is None
    assert len(answer["event"]["event"]) == len(within["event"])
    assert refusal.value.response["Error"]["Code"] == "RequestTooLargeException"

    # WHEN the answer is too large
    failure, answer = functions.invoke(name, {"do": "large", "size": lambda_runtime.RESPONSE_BYTES - 1})

    # THEN
    assert failure == "Unhandled"
    assert answer["errorType"] == "Function.ResponseSizeTooLarge"

    # WHEN an asynchronous request is over its own limit
    with pytest.raises(ClientError, match="1048576"):
        functions.client.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps("x" * 1_048_576))


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html")
@pytest.mark.source(
    "https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html"
)
@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html")
def test_what_is_printed_is_logged_and_embedded_metrics_are_extracted(functions: Functions) -> None:
    # GIVEN
    name = functions.create("prints")

    # WHEN
    answer = functions.client.invoke(FunctionName=name, Payload='{"do": "print"}', LogType="Tail")

    # THEN
    lines = functions.log(name)
    assert lines[0].startswith("START RequestId: ")
    assert lines[0].endswith(" Version: $LATEST")
    assert "to stdout" in lines
    assert "to stderr" in lines
    assert any(line.startswith("[WARNING]\t") and line.endswith("\tlogged") for line in lines)
    assert lines[-3] == "no end of line"
    assert lines[-2].startswith("END RequestId: ")
    assert lines[-1].startswith("REPORT RequestId: ")
    assert "\tInit Duration: " in lines[-1]
    assert base64.b64decode(answer["LogResult"]).decode().splitlines() == lines
    assert functions.endpoint.metric_sum("N", "m", {"Stage": "prod"}) == 3.0


@pytest.mark.source(
    "https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html#monitoring-cloudwatchlogs-prereqs"
)
def test_function_whose_role_may_not_log_has_neither_log_nor_metrics(functions: Functions) -> None:
    # GIVEN
    role = functions.endpoint.role("silent", "lambda.amazonaws.com")
    name = functions.create("silent", Role=role)

    # WHEN
    failure, _ = functions.invoke(name, {"do": "print"})

    # THEN
    assert failure is None
    groups = functions.endpoint.client("logs").describe_log_groups(logGroupNamePrefix="/aws/lambda/silent")
    assert groups["logGroups"] == []


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html")
def test_invocations_and_errors_are_counted(functions: Functions) -> None:
    # GIVEN
    name = functions.create("counted")

    # WHEN
    functions.invoke(name, {})
    functions.invoke(name, {"do": "raise"})

    # THEN https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
    dimensions = {"FunctionName": name}
    assert functions.endpoint.metric_sum("AWS/Lambda", "Invocations", dimensions) == 2
    assert functions.endpoint.metric_sum("AWS/Lambda", "Errors", dimensions) == 1


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html")
def test_duration_is_what_the_code_took(functions: Functions) -> None:
    # GIVEN
    name = functions.create("timed")

    # WHEN
    functions.invoke(name, {})
    functions.invoke(name, {"do": "sleep", "seconds": 0.5})

    # THEN the longer one took the pause, and the shorter one took no start of the environment
    points = functions.endpoint.datapoints("AWS/Lambda", "Duration", {"FunctionName": name})
    assert sum(point["SampleCount"] for point in points) == 2
    assert 500 <= max(point["Maximum"] for point in points) < 1500
    assert 0 < min(point["Minimum"] for point in points) < 500
    assert {point["Unit"] for point in points} == {"Milliseconds"}


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionConfiguration.html")
def test_change_of_the_configuration_reaches_the_next_invocation(functions: Functions) -> None:
    # GIVEN a warm environment
    name = functions.create("changed", Environment={"Variables": {"OWN": "1"}})
    functions.invoke(name, {})

    # WHEN
    functions.client.update_function_configuration(FunctionName=name, Environment={"Variables": {"OWN": "2"}})
    functions.client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})

    # THEN
    _, answer = functions.invoke(name, {"do": "look", "modules": []})
    assert answer["environment"]["OWN"] == "2"
    assert answer["calls"] == 1


@pytest.mark.source("https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html")
def test_concurrent_invocations_have_environments_of_their_own(functions: Functions) -> None:
    # GIVEN
    name = functions.create("parallel")
    client = functions.client

    # WHEN two asynchronous invocations overlap
    for _ in range(2):
        client.invoke(FunctionName=name, InvocationType="Event", Payload='{"do": "sleep", "seconds": 2}')

    # THEN each has its own stream
    logs = functions.endpoint.client("logs")

    def both_ended() -> bool:
        try:
            return sum(line.startswith("REPORT") for line in functions.log(name)) == 2
        except logs.exceptions.ResourceNotFoundException:
            return False

    wait_until(both_ended)
    assert len(logs.describe_log_streams(logGroupName=f"/aws/lambda/{name}")["logStreams"]) == 2


@pytest.mark.own_machinery("packages for this machine's processor")
def test_compiled_package_of_the_artifact_is_replaced_by_the_one_for_this_machine(
    functions: Functions, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # GIVEN an artifact with a package for another processor, and what uv would install for this one already there
    pins = ["compiled-for-lambda==1.0"]
    tools = Path(__file__).parents[3] / ".tools"
    packages = lambda_runtime.HostPackages(
        tools / "lambda-packages",
        tools / "lambda-runtime" / "bin" / "python",
        fake_uv(tmp_path_factory.mktemp("uv"), MAKE_TARGET),
    )
    resolved = packages.resolve(pins)
    assert resolved is not None
    (resolved / "compiled_for_lambda.py").write_text("WHICH = 'this machine'")
    code = archive(
        {
            "app.py": "import compiled_for_lambda\ndef handler(event, context): return compiled_for_lambda.WHICH",
            "compiled_for_lambda.py": "WHICH = 'Lambda'",
            "compiled_for_lambda-1.0.dist-info/METADATA": "Name: compiled-for-lambda\nVersion: 1.0\n",
            "compiled_for_lambda-1.0.dist-info/WHEEL": "Tag: cp313-cp313-manylinux_2_17_aarch64\n",
        }
    )

    # WHEN
    try:
        _, answer = functions.invoke(functions.create("compiled", code, Handler="app.handler"), {})
    finally:
        shutil.rmtree(resolved)

    # THEN
    assert answer == "this machine"
