"""Glue jobs: their parts one by one, and real runs through the API of a running endpoint."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from telemetry_lake.local import glue_jobs, spark_runtime
from telemetry_lake.local.endpoint import Endpoint, EndpointSettings
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

RUN_SECONDS = 300  # the first run of a fresh checkout prepares Spark

# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-job.html")
def test_arguments_of_the_run_go_before_defaults_and_after_what_may_not_be_overridden() -> None:
    job = {"DefaultArguments": {"--a": "1", "--b": "1"}, "NonOverridableArguments": {"--c": "3"}}
    assert glue_jobs.merged_arguments(job, {"--b": "2", "--c": "2"}) == {"--a": "1", "--b": "2", "--c": "3"}


@pytest.mark.source(
    "https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-crawler-pyspark-extensions-get-resolved-options.html"
)
def test_script_gets_name_and_run_id_first_and_once() -> None:
    words = glue_jobs.script_arguments("etl", "jr_1", {"--JOB_NAME": "other", "--DAYS": "[]"})
    assert words == ["--JOB_NAME", "etl", "--JOB_RUN_ID", "jr_1", "--DAYS", "[]"]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-etl-glue-arguments.html")
@pytest.mark.parametrize(
    ("value", "properties"),
    [
        (None, {}),
        ("spark.a=1", {"spark.a": "1"}),
        ("spark.a=1 --conf spark.b=x=y z", {"spark.a": "1", "spark.b": "x=y z"}),
    ],
)
def test_spark_properties_of_the_conf_argument(value: str | None, properties: dict[str, str]) -> None:
    assert glue_jobs.spark_overrides({} if value is None else {"--conf": value}) == properties


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/monitor-continuous-logging.html")
def test_log_groups_have_the_prefix_of_the_job() -> None:
    # https://docs.aws.amazon.com/glue/latest/dg/monitor-continuous-logging.html
    assert glue_jobs.log_groups({}) == {"stdout": "/aws-glue/jobs/output", "stderr": "/aws-glue/jobs/error"}
    assert glue_jobs.log_groups({"--custom-logGroup-prefix": "/etl"})["stderr"] == "/etl/error"


TRACEBACK = 'Traceback (most recent call last):\n  File "script.py", line 1, in <module>\n    run()\n'


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-runs.html")
@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", None),
        ("26/11/24 03:57:47 WARN Something\n", None),
        (f"{TRACEBACK}ValueError: bad\nsecond line\n", "ValueError: bad\nsecond line"),
        (f"{TRACEBACK}KeyboardInterrupt\n", "KeyboardInterrupt"),
        (
            f"{TRACEBACK}pyspark.errors.exceptions.captured.AnalysisException: [PATH_NOT_FOUND] s3://x\n"
            "26/11/24 03:57:47 WARN ShutdownHookManager\n",
            "AnalysisException: [PATH_NOT_FOUND] s3://x",
        ),
        (
            f"{TRACEBACK}KeyError: 'a'\n\nDuring handling of the above exception, another exception occurred:\n\n"
            f"{TRACEBACK}botocore.exceptions.ClientError: An error occurred (AccessDenied)\n",
            "ClientError: An error occurred (AccessDenied)",
        ),
    ],
)
def test_error_message_is_the_last_exception(output: str, message: str | None) -> None:
    assert glue_jobs.last_exception(output) == message


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/automating-awsglue-with-cloudwatch-events.html")
@pytest.mark.parametrize(
    ("state", "severity", "message"),
    [
        ("SUCCEEDED", "INFO", "Job run succeeded"),
        ("FAILED", "ERROR", "ValueError: bad"),
        ("TIMEOUT", "WARN", "Job run timed out"),
        ("STOPPED", "INFO", "Job run stopped"),
    ],
)
def test_event_of_a_run(state: str, severity: str, message: str) -> None:
    # https://docs.aws.amazon.com/glue/latest/dg/automating-awsglue-with-cloudwatch-events.html
    run = {"JobName": "etl", "Id": "jr_1", "JobRunState": state, "ErrorMessage": "ValueError: bad"}
    assert glue_jobs.state_change_event(run) == {
        "jobName": "etl",
        "severity": severity,
        "state": state,
        "jobRunId": "jr_1",
        "message": message,
    }


class FakeLogs:
    """CloudWatch Logs as the shipper sees it."""

    class exceptions:  # noqa: N801  named as boto3 does
        class ResourceAlreadyExistsException(Exception):  # noqa: N818
            pass

    def __init__(self) -> None:
        self.messages: list[str] = []

    def create_log_group(self, **_: str) -> None:
        raise self.exceptions.ResourceAlreadyExistsException

    def create_log_stream(self, **_: str) -> None:
        pass

    def put_log_events(self, logEvents: list[dict[str, Any]], **_: str) -> None:  # noqa: N803
        self.messages += [event["message"] for event in logEvents]


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html")
def test_logs_are_shipped_by_whole_lines(tmp_path: Path) -> None:
    # GIVEN
    file, logs = tmp_path / "stdout.log", FakeLogs()
    shipper = glue_jobs.LogShipper(logs, file, "group", "stream")
    file.write_bytes("first\n\nsecond ü".encode())

    # WHEN
    shipper.ship()
    while_running = list(logs.messages)
    with file.open("ab") as more:
        more.write(b" goes on\nlast")
    shipper.ship(everything=True)

    # THEN
    assert while_running == ["first"]
    assert logs.messages == ["first", "second ü goes on", "last"]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/job-run-statuses.html")
@pytest.mark.parametrize(
    ("minutes", "script", "outcome"),
    [
        (1, "pass", ("SUCCEEDED", None)),
        (1, "raise SystemExit(3)", ("FAILED", None)),
        (0.01, "import time; time.sleep(60)", ("TIMEOUT", "Job run timed out")),
        (
            0.01,
            "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)",
            ("TIMEOUT", "Job run timed out"),
        ),
    ],
)
def test_end_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, script: str, outcome: tuple[str, str | None]
) -> None:
    # GIVEN
    monkeypatch.setattr(glue_jobs, "STOP_SECONDS", 0.5)
    runs = glue_jobs.JobRuns(Endpoint(EndpointSettings(1, tmp_path, tmp_path)), None)
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)

    # WHEN
    watched = runs._watch({"Id": "jr_1", "Timeout": minutes}, process, [], threading.Event())

    # THEN
    assert watched == outcome
    assert process.returncode is not None


# --- real runs --------------------------------------------------------------------------------------------------------

SPARK_SCRIPT = """
import os, sys
import boto3
from pyspark.sql import SparkSession

print("argv", sys.argv[1:])
print("environment", sorted(os.environ))
print("caller", boto3.client("sts").get_caller_identity()["Arn"])
spark = SparkSession.builder.getOrCreate()
print("flag", spark.conf.get("spark.app.flag"))
spark.read.text("s3://lake/in/").selectExpr("value", "length(value) AS size").write.parquet("s3://lake/out/")
print("sizes", sorted(row.size for row in spark.read.parquet("s3://lake/out/").collect()))
print("on the error stream", file=sys.stderr)
"""
SPARK_SLEEP_SCRIPT = """
import time
from pyspark.sql import SparkSession
SparkSession.builder.getOrCreate()
print("spark is up")
time.sleep(600)
"""
SLEEP_SCRIPT = "import time\nprint('up')\ntime.sleep(600)\n"


class Glue:
    """An endpoint with a bucket and a role; jobs and runs by one call each."""

    def __init__(self, state_directory: Path) -> None:
        self.endpoint = EndpointProcess(state_directory)
        self.s3 = self.endpoint.client("s3")
        self.s3.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": REGION})
        self.role = self.endpoint.role(
            "job",
            "glue.amazonaws.com",
            ("s3:ListBucket", "arn:aws:s3:::lake"),
            ("s3:GetObject", "arn:aws:s3:::lake/*"),
            ("s3:PutObject", "arn:aws:s3:::lake/*"),
            ("s3:DeleteObject", "arn:aws:s3:::lake/*"),
            ("logs:*", "*"),
            ("cloudwatch:PutMetricData", "*"),
        )

    @property
    def client(self) -> Any:
        return self.endpoint.client("glue")

    def job(self, name: str, script: str, **settings: Any) -> None:
        self.s3.put_object(Bucket="lake", Key=f"scripts/{name}", Body=script.encode())
        command = {"Name": "glueetl", "ScriptLocation": f"s3://lake/scripts/{name}"}
        self.client.create_job(
            **{"Name": name, "Role": self.role, "GlueVersion": "5.1", "Command": command, **settings}
        )

    def start(self, name: str, **settings: Any) -> str:
        run_id: str = self.client.start_job_run(JobName=name, **settings)["JobRunId"]
        return run_id

    def run(self, name: str, run_id: str) -> dict[str, Any]:
        run: dict[str, Any] = self.client.get_job_run(JobName=name, RunId=run_id)["JobRun"]
        return run

    def ended(self, name: str, run_id: str) -> dict[str, Any]:
        def end() -> dict[str, Any] | None:
            run = self.run(name, run_id)
            return None if run["JobRunState"] in glue_jobs.ACTIVE_STATES else run

        run: dict[str, Any] = wait_until(end, RUN_SECONDS)
        return run

    def bookmark(self, name: str) -> str | None:
        try:
            return str(self.client.get_job_bookmark(JobName=name)["JobBookmarkEntry"]["JobBookmark"])
        except self.client.exceptions.EntityNotFoundException:
            return None

    def directory(self, run_id: str) -> Path:
        return self.endpoint.state_directory / "glue" / "runs" / run_id

    def until_it_prints(self, run_id: str, words: str) -> None:
        file = self.directory(run_id) / "stdout.log"
        wait_until(lambda: file.exists() and words in file.read_text(), RUN_SECONDS)

    def group(self, run_id: str) -> int:
        return int((self.directory(run_id) / "pid").read_text())


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glue]:
    service = Glue(tmp_path_factory.mktemp("glue jobs"))
    yield service
    service.endpoint.stop()


def programs_of(run_id: str) -> set[str]:
    """Return the programs of a run that are alive: all of them have its id on their command lines."""
    programs = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it ended meanwhile
            continue
        if any(run_id in argument for argument in command):
            programs.add(Path(command[0]).name)
    return programs


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_StartJobRun.html")
@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_GetJobRun.html")
def test_run_is_spark_with_the_role_of_the_job(glue: Glue) -> None:
    # GIVEN
    sqs, events = glue.endpoint.client("sqs"), glue.endpoint.client("events")
    queue = sqs.create_queue(QueueName="runs")["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:runs"
    statement = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    pattern = {"source": ["aws.glue"], "detail-type": ["Glue Job State Change"], "detail": {"jobName": ["real"]}}
    events.put_rule(Name="runs", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="runs", Targets=[{"Id": "queue", "Arn": arn}])
    glue.s3.put_object(Bucket="lake", Key="in/a.txt", Body=b"a\nbb\nccc\n")
    defaults = {"--DAYS": "[]", "--MODE": "load", "--enable-metrics": "true", "--conf": "spark.app.flag=x y"}
    glue.job("real", SPARK_SCRIPT, DefaultArguments=defaults)

    # WHEN
    run_id = glue.start("real", Arguments={"--MODE": "audit"}, Timeout=7)
    run = glue.ended("real", run_id)

    # THEN
    assert run["JobRunState"] == "SUCCEEDED", run.get("ErrorMessage")
    assert run["Arguments"] == {"--MODE": "audit"}
    assert run["Timeout"] == 7
    assert run["StartedOn"] < run["CompletedOn"]
    assert "ErrorMessage" not in run
    printed = dict(line.split(" ", 1) for line in (glue.directory(run_id) / "stdout.log").read_text().splitlines())
    assert f"'--JOB_NAME', 'real', '--JOB_RUN_ID', '{run_id}', '--DAYS', '[]', '--MODE', 'audit'" in printed["argv"]
    assert printed["sizes"] == "[1, 2, 3]"
    assert printed["flag"] == "x y"
    assert printed["caller"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/job/GlueJobRunnerSession"
    assert "PYTEST_CURRENT_TEST" not in printed["environment"]
    logs = glue.endpoint.client("logs")
    for group, line in (("output", "sizes [1, 2, 3]"), ("error", "on the error stream")):
        found = logs.get_log_events(logGroupName=f"/aws-glue/jobs/{group}", logStreamName=run_id)["events"]
        assert line in [event["message"] for event in found]
    metrics = glue.endpoint.client("cloudwatch").list_metrics(Namespace="Glue")["Metrics"]
    assert {"Name": "JobRunId", "Value": "ALL"} in [
        dimension for metric in metrics for dimension in metric["Dimensions"]
    ]
    message = wait_until(lambda: sqs.receive_message(QueueUrl=queue).get("Messages"))[0]
    detail = json.loads(message["Body"])["detail"]
    assert (detail["state"], detail["jobRunId"], detail["severity"]) == ("SUCCEEDED", run_id, "INFO")
    assert not (glue.directory(run_id) / "work").exists()
    assert programs_of(run_id) == set()


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-runs.html")
def test_script_that_raises_fails_the_run_with_its_words(glue: Glue) -> None:
    glue.job("raising", "raise ValueError('bad\\nthing')")
    run = glue.ended("raising", glue.start("raising"))
    assert (run["JobRunState"], run["ErrorMessage"]) == ("FAILED", "ValueError: bad\nthing")


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/create-an-iam-role.html")
def test_script_that_the_role_may_not_read_fails_the_run(glue: Glue) -> None:
    role = glue.endpoint.role("blind", "glue.amazonaws.com", ("s3:ListBucket", "*"))
    glue.job("blind", "pass", Role=role)
    run = glue.ended("blind", glue.start("blind"))
    assert run["JobRunState"] == "FAILED"
    assert "s3:GetObject" in run["ErrorMessage"]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/create-an-iam-role.html")
def test_role_that_does_not_trust_glue_fails_the_run(glue: Glue) -> None:
    glue.job("untrusted", "pass", Role=glue.endpoint.role("untrusting", "lambda.amazonaws.com", ("*", "*")))
    run = glue.ended("untrusted", glue.start("untrusted"))
    assert "is not allowed to assume" in run["ErrorMessage"]


@pytest.mark.own_machinery("a Spark that is not installed on this machine")
def test_glue_version_without_a_spark_here_fails_the_run(glue: Glue) -> None:
    glue.job("old", "pass", GlueVersion="3.0")
    assert "Glue version 3.0 cannot run" in glue.ended("old", glue.start("old"))["ErrorMessage"]


@pytest.mark.source("https://github.com/aws-samples/cql-replicator/issues/160")
def test_glue_version_that_aws_does_not_have_fails_the_run_in_its_words(glue: Glue) -> None:
    # GIVEN
    glue.job("unknown", "pass", GlueVersion="9.9")

    # WHEN
    run_id = glue.start("unknown")

    # THEN
    refusal = "failed to execute with exception Given GlueVersion [9.9] is not valid."
    assert glue.ended("unknown", run_id)["ErrorMessage"].endswith(f"JobName:unknown and JobRunId:{run_id} {refusal}")


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/release-notes.html")
def test_job_without_a_glue_version_has_the_default_of_aws(glue: Glue) -> None:
    # WHEN
    command = {"Name": "glueetl", "ScriptLocation": "s3://lake/scripts/x"}
    glue.client.create_job(Name="plain", Role=glue.role, Command=command)

    # THEN
    assert glue.client.get_job(JobName="plain")["Job"]["GlueVersion"] == "6.0"


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-job.html")
@pytest.mark.parametrize(
    ("settings", "minutes"),
    [
        ({"GlueVersion": "3.0"}, 2880),
        ({"GlueVersion": "4.0"}, 2880),
        ({"GlueVersion": "5.0"}, 480),
        ({}, 480),  # the default version is a later one
        ({"GlueVersion": "4.0", "Timeout": 7}, 7),
    ],
)
def test_time_limit_of_a_job_that_names_none_is_that_of_its_glue_version(
    glue: Glue, settings: dict[str, Any], minutes: int
) -> None:
    # GIVEN
    command = {"Name": "glueetl", "ScriptLocation": "s3://lake/scripts/x"}
    name = f"limited-{len(glue.client.get_jobs()['Jobs'])}"

    # WHEN
    glue.client.create_job(Name=name, Role=glue.role, Command=command, **settings)

    # THEN
    assert glue.client.get_job(JobName=name)["Job"]["Timeout"] == minutes


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-job.html")
@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_StartJobRun.html")
def test_time_limit_of_more_than_seven_days_is_refused(glue: Glue) -> None:
    # GIVEN
    command = {"Name": "glueetl", "ScriptLocation": "s3://lake/scripts/x"}
    definition: dict[str, Any] = {"Role": glue.role, "Command": command}
    glue.client.create_job(Name="week", **definition, Timeout=10080)

    # WHEN / THEN
    with pytest.raises(glue.client.exceptions.InvalidInputException):
        glue.client.create_job(Name="longer", **definition, Timeout=10081)
    with pytest.raises(glue.client.exceptions.InvalidInputException):
        glue.client.update_job(JobName="week", JobUpdate={**definition, "Timeout": 10081})
    with pytest.raises(glue.client.exceptions.InvalidInputException):
        glue.start("week", Timeout=10081)

    # THEN nothing of that came to be
    assert glue.client.get_job(JobName="week")["Job"]["Timeout"] == 10080
    assert glue.client.get_job_runs(JobName="week")["JobRuns"] == []
    with pytest.raises(glue.client.exceptions.EntityNotFoundException):
        glue.client.get_job(JobName="longer")


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateJob.html")
def test_update_overwrites_the_whole_definition_of_a_job(glue: Glue) -> None:
    # GIVEN a job with everything, and a plain one
    client = glue.client
    command = {"Name": "glueetl", "ScriptLocation": "s3://lake/scripts/x"}
    definition: dict[str, Any] = {"Role": glue.role, "Command": command}
    client.create_job(
        Name="full",
        **definition,
        Description="d",
        GlueVersion="4.0",
        Timeout=7,
        MaxRetries=2,
        NumberOfWorkers=5,
        WorkerType="G.2X",
        DefaultArguments={"--a": "1"},
        NonOverridableArguments={"--b": "2"},
        Connections={"Connections": ["c"]},
        SecurityConfiguration="s",
        ExecutionProperty={"MaxConcurrentRuns": 3},
        ExecutionClass="FLEX",
        NotificationProperty={"NotifyDelayAfter": 1},
        JobRunQueuingEnabled=True,
        Tags={"team": "lake"},
    )
    client.create_job(Name="bare", **definition)
    created = client.get_job(JobName="full")["Job"]["CreatedOn"]

    # WHEN
    client.update_job(JobName="full", JobUpdate=definition)

    # THEN only the name and the time of its creation are left
    bare, updated = (client.get_job(JobName=name)["Job"] for name in ("bare", "full"))
    own = ("Name", "CreatedOn", "LastModifiedOn")
    assert {name: updated[name] for name in updated if name not in own} == {
        name: bare[name] for name in bare if name not in own
    }
    assert (updated["Name"], updated["CreatedOn"]) == ("full", created)


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_JobUpdate.html")
@pytest.mark.source("https://github.com/cloud-custodian/cloud-custodian/pull/5691")
@pytest.mark.parametrize("missing", ["Role", "Command"])
def test_update_has_to_name_the_role_and_the_command(glue: Glue, missing: str) -> None:
    # GIVEN
    command = {"Name": "glueetl", "ScriptLocation": "s3://lake/scripts/x"}
    definition: dict[str, Any] = {"Role": glue.role, "Command": command}
    glue.client.create_job(Name=f"whole-{missing}", **definition)
    del definition[missing]

    # WHEN / THEN
    with pytest.raises(glue.client.exceptions.InvalidInputException):
        glue.client.update_job(JobName=f"whole-{missing}", JobUpdate=definition)


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-job.html")
@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-glue-job.html")
def test_what_a_template_drops_has_its_default_again(glue: Glue) -> None:
    # GIVEN a stack's job with a version, a limit and a number of runs of its own
    cloudformation = glue.endpoint.client("cloudformation")
    command = {"Name": "glueetl", "ScriptLocation": "s3://lake/scripts/x"}
    kept = {"Name": "templated", "Role": glue.role, "Command": command}
    dropped = {"GlueVersion": "4.0", "Timeout": 7, "ExecutionProperty": {"MaxConcurrentRuns": 3}}

    def template(properties: dict[str, Any]) -> dict[str, str]:
        resources = {"Job": {"Type": "AWS::Glue::Job", "Properties": properties}}
        return {"StackName": "jobs", "TemplateBody": json.dumps({"Resources": resources})}

    cloudformation.create_stack(**template(kept | dropped))
    cloudformation.get_waiter("stack_create_complete").wait(StackName="jobs", WaiterConfig={"Delay": 0.2})

    # WHEN
    cloudformation.update_stack(**template(kept))
    cloudformation.get_waiter("stack_update_complete").wait(StackName="jobs", WaiterConfig={"Delay": 0.2})

    # THEN
    job = glue.client.get_job(JobName="templated")["Job"]
    assert (job["GlueVersion"], job["Timeout"]) == ("6.0", 480)
    assert job["ExecutionProperty"] == {"MaxConcurrentRuns": 1}


@pytest.mark.own_machinery("a Spark that is fetched when a job first asks for it")
def test_run_says_what_it_waits_for_while_its_spark_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN a Spark that is not there yet
    settings = EndpointSettings(port=1, state_directory=tmp_path, tools_directory=tmp_path / "tools")
    runs = glue_jobs.JobRuns(SimpleNamespace(settings=settings), None)  # type: ignore[arg-type]
    run = {"Id": "jr_1", "JobName": "etl", "GlueVersion": "4.0", "JobRunState": "STARTING"}
    seen: list[Any] = []

    def prepare(tools_directory: Path, glue_version: str, progress: Callable[[str], None]) -> str:
        progress("fetching Spark")
        seen.extend((tools_directory, json.loads((tmp_path / "glue/runs/jr_1/run.json").read_text())["StateDetail"]))
        return f"the Spark of {glue_version}"

    monkeypatch.setattr(spark_runtime, "prepare", prepare)

    # WHEN two runs need it
    found: list[Any] = [runs._runtime(run), runs._runtime(run)]

    # THEN it was fetched once, from the version's own environment, and the run said so as long as that lasted
    assert found == ["the Spark of 4.0"] * 2
    assert seen == [tmp_path / "tools", "Preparing Glue 4.0: fetching Spark"]
    assert "StateDetail" not in run


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_StartJobRun.html")
def test_runs_are_limited_by_max_concurrent_runs(glue: Glue) -> None:
    # GIVEN
    glue.job("single", SLEEP_SCRIPT)
    glue.job("double", SLEEP_SCRIPT, ExecutionProperty={"MaxConcurrentRuns": 2})
    single, doubles = glue.start("single"), [glue.start("double"), glue.start("double")]

    # WHEN
    for name in ("single", "double"):
        with pytest.raises(glue.client.exceptions.ConcurrentRunsExceededException):
            glue.start(name)

    # THEN
    glue.client.batch_stop_job_run(JobName="single", JobRunIds=[single])
    glue.client.batch_stop_job_run(JobName="double", JobRunIds=doubles)
    assert glue.ended("single", single)["JobRunState"] == "STOPPED"
    assert {glue.ended("double", run_id)["JobRunState"] for run_id in doubles} == {"STOPPED"}
    latest_first = [run["Id"] for run in glue.client.get_job_runs(JobName="double")["JobRuns"]]
    assert latest_first == doubles[::-1]
    page = glue.client.get_job_runs(JobName="double", MaxResults=1)
    assert [run["Id"] for run in page["JobRuns"]] == doubles[1:]
    rest = glue.client.get_job_runs(JobName="double", MaxResults=1, NextToken=page["NextToken"])
    assert [run["Id"] for run in rest["JobRuns"]] == doubles[:1]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_BatchStopJobRun.html")
def test_run_that_is_stopped_ends_its_processes(glue: Glue) -> None:
    # GIVEN
    glue.job("stopped", SLEEP_SCRIPT)
    run_id = glue.start("stopped")
    glue.until_it_prints(run_id, "up")
    assert glue.run("stopped", run_id)["JobRunState"] == "RUNNING"

    # WHEN
    answer = glue.client.batch_stop_job_run(JobName="stopped", JobRunIds=[run_id, "jr_unknown"])

    # THEN
    assert [found["JobRunId"] for found in answer["SuccessfulSubmissions"]] == [run_id]
    assert [found["JobRunId"] for found in answer["Errors"]] == ["jr_unknown"]
    assert glue.ended("stopped", run_id)["JobRunState"] == "STOPPED"
    assert programs_of(run_id) == set()
    again = glue.client.batch_stop_job_run(JobName="stopped", JobRunIds=[run_id])
    assert again["Errors"][0]["ErrorDetail"]["ErrorCode"] == "InvalidInputException"


@pytest.mark.own_machinery("processes of a run on this machine")
def test_killed_process_group_is_a_failed_run(glue: Glue) -> None:
    # GIVEN
    glue.job("killed", SLEEP_SCRIPT)
    run_id = glue.start("killed")
    glue.until_it_prints(run_id, "up")

    # WHEN
    os.killpg(glue.group(run_id), signal.SIGKILL)

    # THEN
    run = glue.ended("killed", run_id)
    assert (run["JobRunState"], run["ErrorMessage"]) == ("FAILED", "Command failed with exit code 137")


@pytest.mark.own_machinery("what this endpoint does not model is refused by name")
def test_argument_that_is_not_modelled_is_refused(glue: Glue) -> None:
    glue.job("modules", "pass", DefaultArguments={"--additional-python-modules": "numpy"})
    with pytest.raises(glue.client.exceptions.InvalidInputException, match="--additional-python-modules"):
        glue.start("modules")


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/monitor-continuations.html")
def test_bookmark_is_shown_reset_and_deleted_with_its_job(glue: Glue) -> None:
    # GIVEN a job that leaves a bookmark
    script = "import os\nopen(os.environ['GLUE_BOOKMARK_FILE'], 'w').write('{\"seen\": 1}')\n"
    glue.job("marked", script)
    with pytest.raises(glue.client.exceptions.EntityNotFoundException):
        glue.client.get_job_bookmark(JobName="marked")
    run_id = glue.start("marked")
    assert glue.ended("marked", run_id)["JobRunState"] == "SUCCEEDED"
    file = glue.endpoint.state_directory / "glue" / "bookmarks" / "marked.json"

    # WHEN / THEN
    assert json.loads(glue.client.get_job_bookmark(JobName="marked")["JobBookmarkEntry"]["JobBookmark"]) == {"seen": 1}
    glue.client.reset_job_bookmark(JobName="marked")
    assert not file.exists()
    assert glue.ended("marked", glue.start("marked"))["JobRunState"] == "SUCCEEDED"
    glue.client.delete_job(JobName="marked")
    assert not file.exists()
    with pytest.raises(glue.client.exceptions.EntityNotFoundException):
        glue.run("marked", run_id)


@pytest.mark.source(
    "https://aws.amazon.com/blogs/big-data/load-data-incrementally-and-optimized-parquet-writer-with-aws-glue/"
)
def test_bookmark_goes_back_to_the_end_of_a_run(glue: Glue) -> None:
    # GIVEN a job of which each run commits what it was told, and the third one fails without a commit
    script = (
        "import os, sys\n"
        "seen = sys.argv[sys.argv.index('--SEEN') + 1]\n"
        "if seen == 'none':\n    sys.exit(1)\n"
        "open(os.environ['GLUE_BOOKMARK_FILE'], 'w').write(f'{{\"seen\": {seen}}}')\n"
    )
    glue.job("rewound", script)
    with pytest.raises(glue.client.exceptions.EntityNotFoundException):
        glue.client.reset_job_bookmark(JobName="rewound", RunId="jr_none")
    runs = []
    for seen in ("none", "1", "2", "none", "3"):
        runs.append(glue.start("rewound", Arguments={"--SEEN": seen}))
        glue.ended("rewound", runs[-1])

    # WHEN it is reset to the end of each run, the newest first
    entries = [glue.client.reset_job_bookmark(JobName="rewound", RunId=run)["JobBookmarkEntry"] for run in runs[::-1]]

    # THEN a failed run stands for the last successful one before it, and before the first there is nothing
    assert [entry["RunId"] for entry in entries] == runs[::-1]
    assert [json.loads(entry["JobBookmark"]).get("seen") for entry in entries] == [3, 2, 2, 1, None]
    with pytest.raises(glue.client.exceptions.EntityNotFoundException):
        glue.client.get_job_bookmark(JobName="rewound")

    # AND also an earlier state may be followed by a later one again
    glue.client.reset_job_bookmark(JobName="rewound", RunId=runs[2])
    assert json.loads(glue.client.get_job_bookmark(JobName="rewound")["JobBookmarkEntry"]["JobBookmark"]) == {"seen": 2}


COMMITTING_SCRIPT = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from awsglue.job import Job

job = Job(SimpleNamespace())
job.init("job", {"job_bookmark_option": "job-bookmark-enable"})
Job._bookmark.select("source", [], time.time_ns() // 1_000_000, 0, None)
print("up", flush=True)
gate = Path(sys.argv[sys.argv.index("--GATE") + 1])
while not gate.exists():
    time.sleep(0.05)
job.commit()
"""


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/glue-troubleshooting-errors.html")
@pytest.mark.parametrize("rival", ["a run", "a reset"])
def test_a_run_does_not_commit_over_what_it_did_not_start_from(glue: Glue, tmp_path: Path, rival: str) -> None:
    # GIVEN a bookmark, and a run that has begun with it
    name = f"overtaken by {rival}"
    glue.job(name, COMMITTING_SCRIPT, ExecutionProperty={"MaxConcurrentRuns": 2})
    open_gate, closed_gate = tmp_path / "open", tmp_path / "closed"
    open_gate.touch()
    assert glue.ended(name, glue.start(name, Arguments={"--GATE": str(open_gate)}))["JobRunState"] == "SUCCEEDED"
    run_id = glue.start(name, Arguments={"--GATE": str(closed_gate)})
    glue.until_it_prints(run_id, "up")

    # WHEN another one commits meanwhile, or the bookmark is reset
    if rival == "a run":
        assert glue.ended(name, glue.start(name, Arguments={"--GATE": str(open_gate)}))["JobRunState"] == "SUCCEEDED"
    else:
        glue.client.reset_job_bookmark(JobName=name)
    left = glue.bookmark(name)
    closed_gate.touch()

    # THEN its commit fails, and so does it
    run = glue.ended(name, run_id)
    assert run["JobRunState"] == "FAILED"
    assert "Continuation update failed due to version mismatch" in run["ErrorMessage"]
    assert glue.bookmark(name) == left


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/monitor-continuations.html")
def test_a_run_with_a_paused_bookmark_gets_those_of_two_earlier_runs(glue: Glue) -> None:
    # GIVEN a job of which the second run has failed
    script = (
        "import os, sys\n"
        "seen = sys.argv[sys.argv.index('--SEEN') + 1]\n"
        "if seen == 'none':\n    sys.exit(1)\n"
        "if seen == 'window':\n"
        "    for name in ('GLUE_BOOKMARK_FROM_FILE', 'GLUE_BOOKMARK_TO_FILE'):\n"
        "        print(open(os.environ[name]).read(), flush=True)\n"
        "else:\n    open(os.environ['GLUE_BOOKMARK_FILE'], 'w').write(f'{{\"seen\": {seen}}}')\n"
    )
    glue.job("between", script)
    runs = []
    for seen in ("1", "none", "2"):
        runs.append(glue.start("between", Arguments={"--SEEN": seen}))
        glue.ended("between", runs[-1])
    paused = {"--SEEN": "window", "--job-bookmark-option": "job-bookmark-pause"}

    # WHEN it shall read what lies between the failed one and the last
    window = {"--job-bookmark-from": runs[1], "--job-bookmark-to": runs[2]}
    run = glue.start("between", Arguments={**paused, **window})
    assert glue.ended("between", run)["JobRunState"] == "SUCCEEDED"

    # THEN the failed one stands for the successful one before it
    assert (glue.directory(run) / "stdout.log").read_text().splitlines() == ['{"seen": 1}', '{"seen": 2}']

    # AND half of a window, or one of a run that never was, is refused
    for bad in ({"--job-bookmark-from": runs[0]}, {**window, "--job-bookmark-to": "jr_none"}):
        with pytest.raises(glue.client.exceptions.InvalidInputException):
            glue.start("between", Arguments={**paused, **bad})


@pytest.mark.own_machinery("processes of a run on this machine")
def test_nothing_outlives_an_endpoint_that_is_killed(tmp_path: Path) -> None:
    # GIVEN a job whose definition is saved, as it is on a graceful stop, and that runs
    glue = Glue(tmp_path)
    glue.job("orphan", SPARK_SLEEP_SCRIPT)
    glue.endpoint.stop()
    glue.endpoint.start()
    run_id = glue.start("orphan")
    glue.until_it_prints(run_id, "spark is up")
    assert "java" in programs_of(run_id)

    # WHEN
    glue.endpoint.process.kill()
    glue.endpoint.process.wait()

    # THEN neither Python nor Java is left, and the next endpoint knows
    wait_until(lambda: not programs_of(run_id))
    glue.endpoint.start()
    try:
        run = glue.run("orphan", run_id)
        assert (run["JobRunState"], run["ErrorMessage"]) == ("FAILED", "The endpoint ended while the job was running")
        assert not (glue.directory(run_id) / "work").exists()
        stopped = glue.start("orphan")
        glue.until_it_prints(stopped, "spark is up")
    finally:
        glue.endpoint.stop()
    # A graceful stop takes its runs along too.
    assert programs_of(stopped) == set()
    assert json.loads((glue.directory(stopped) / "run.json").read_text())["JobRunState"] == "FAILED"
