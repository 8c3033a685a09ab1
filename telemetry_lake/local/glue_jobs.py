"""AWS Glue jobs that really run: each run is a PySpark process with a session of the job's role.

https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-runs.html

Known deviations from AWS:

* A run is one process group on this machine (one Java process, two task slots, 1 GB), whatever worker type and number
  are asked for; it starts in seconds, and nothing is billed.
* Of the special job parameters, those on bookmarks, metrics, logs and Spark's ``--conf`` are heeded.
  ``--extra-py-files``, ``--extra-files``, ``--extra-jars`` and ``--additional-python-modules`` are refused; others do
  nothing.
* Of the Glue versions that AWS runs, those with a Spark here run (``spark_runtime.RELEASES``); with 3.0 the run fails
  and says so. The first run of a version may have to fetch its Spark: it is STARTING for a minute or more, and
  ``StateDetail`` says what is being fetched.
* A time limit of exactly 10,080 minutes is accepted: AWS's sentence on it can be read both ways. A job that names
  neither a worker type nor a number of workers has two of G.1X, whatever its ``MaxCapacity``.
* No queuing of runs, no retries by ``MaxRetries``, no triggers, no VPC connections, no security configurations.
* ``ErrorMessage`` is the last exception's text; AWS may put a category and a line number in front of it.
* ``sys.exit(0)`` succeeds, and so does a script that never calls ``job.commit()``.
* A bookmark has no numbers of runs, attempts and versions.
* Of the job metrics only ``glue.driver.aggregate.elapsedTime`` is written.
* A new run may start the moment the one before it has ended; on AWS the clean-up takes a while longer.
"""

import copy
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.local import glue_catalog, seams, spark_runtime
from telemetry_lake.local.disturbances import JOB_KILLS
from telemetry_lake.local.endpoint import Endpoint, TrustError

Response = tuple[int, dict[str, str], bytes]
Run = dict[str, Any]

ACTIVE_STATES = ("STARTING", "RUNNING", "STOPPING", "WAITING")
SERVICE_PRINCIPAL = "glue.amazonaws.com"
SESSION_NAME = "GlueJobRunnerSession"
SUPERVISOR_SCRIPT = Path(__file__).with_name("glue_supervisor.py")
RUNTIME_DIRECTORY = Path(__file__).with_name("glue_runtime")

MAXIMUM_TIMEOUT_MINUTES = 7 * 24 * 60
"""https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-job.html"""

JOB_DEFAULTS: Mapping[str, Any] = {
    "Description": "",
    "DefaultArguments": {},
    "NonOverridableArguments": {},
    "Connections": {},
    "MaxRetries": 0,
    "NumberOfWorkers": 2,
    "WorkerType": "G.1X",
    "MaxCapacity": None,
    "SecurityConfiguration": "",
}
"""What a job has that its definition leaves out; those of the capacity are MiniStack's."""

DEFAULT_GLUE_VERSION = "6.0"
"""Of a job that names none: https://docs.aws.amazon.com/glue/latest/dg/release-notes.html"""

GLUE_VERSIONS = ("3.0", "4.0", "5.0", "5.1", "6.0")
"""What AWS runs; 2.0 and earlier ended in April 2026.

https://docs.aws.amazon.com/glue/latest/dg/glue-version-support-policy.html
"""

DEFAULT_LOG_GROUP = "/aws-glue/jobs"
"""https://docs.aws.amazon.com/glue/latest/dg/monitor-continuous-logging.html"""

STOP_SECONDS = 5.0
POLL_SECONDS = 0.1
LOG_SECONDS = 1.0
LOG_PART_BYTES = 900_000
LOG_EVENTS = 1000
LOG_EVENT_CHARACTERS = 60_000
WINDOW_ARGUMENTS = {
    "GLUE_BOOKMARK_FROM_FILE": "--job-bookmark-from",
    "GLUE_BOOKMARK_TO_FILE": "--job-bookmark-to",
}
ERROR_MESSAGE_CHARACTERS = 8000
ERROR_TAIL_BYTES = 200_000
MAXIMUM_PAGE_SIZE = 200

REFUSED_ARGUMENTS = ("--extra-py-files", "--extra-files", "--extra-jars", "--additional-python-modules")
KEPT_NUMBERS = ("Timeout", "MaxRetries", "NumberOfWorkers")
KEPT_TOO = ("ExecutionProperty", "JobRunQueuingEnabled", "ExecutionClass", "NotificationProperty", "JobMode")
RUN_SETTINGS = ("WorkerType", "NumberOfWorkers", "MaxCapacity", "SecurityConfiguration", "NotificationProperty")

logger = logging.getLogger(__name__)


class LaunchError(RuntimeError):
    """A run cannot start, for a reason that its ``ErrorMessage`` tells."""


# --- pure parts -------------------------------------------------------------------------------------------------------


def merged_arguments(job: Mapping[str, Any], run_arguments: Mapping[str, str]) -> dict[str, str]:
    """Return a run's arguments: the job's defaults, the run's own over them, and those that no run may override.

    https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-job.html
    """
    return {
        **(job.get("DefaultArguments") or {}),
        **run_arguments,
        **(job.get("NonOverridableArguments") or {}),
    }


def script_arguments(job_name: str, run_id: str, arguments: Mapping[str, str]) -> list[str]:
    """Return ``sys.argv[1:]`` of the script: the job's name and the run's id, then the arguments as pairs."""
    words = ["--JOB_NAME", job_name, "--JOB_RUN_ID", run_id]
    for name, value in arguments.items():
        if name not in ("--JOB_NAME", "--JOB_RUN_ID"):
            words += [name, str(value)]
    return words


def spark_overrides(arguments: Mapping[str, str]) -> dict[str, str]:
    """Return Spark properties of the job parameter ``--conf``, whose value may hold several, ``a=b --conf c=d``.

    https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-etl-glue-arguments.html
    """
    overrides = {}
    for setting in re.split(r"\s+--conf\s+", arguments.get("--conf", "").strip()):
        name, separator, value = setting.partition("=")
        if separator:
            overrides[name.strip()] = value.strip()
    return overrides


def log_groups(arguments: Mapping[str, str]) -> dict[str, str]:
    """Return the log groups of the two streams of a run's output, ``stdout`` and ``stderr``."""
    prefix = arguments.get("--custom-logGroup-prefix") or DEFAULT_LOG_GROUP
    return {"stdout": f"{prefix}/output", "stderr": f"{prefix}/error"}


def last_exception(error_output: str) -> str | None:
    """Return the text of the last Python exception, ``ValueError: reason``, all of its lines; None if there is none.

    The class comes without its module, as Glue shows it.
    """
    _, found, report = error_output.rpartition("Traceback (most recent call last):\n")
    if not found:
        return None
    lines = report.splitlines()
    start = next((number for number, line in enumerate(lines) if line and not line[0].isspace()), None)
    if start is None:
        return None
    message = [lines[start]]
    for line in lines[start + 1 :]:
        # Spark's log lines open with a date; what Java writes while it ends is no part of the exception.
        if re.match(r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d ", line):
            break
        message.append(line)
    text = re.sub(r"^(?:\w+\.)+(?=\w+(?::|$))", "", "\n".join(message).strip(), flags=re.MULTILINE, count=1)
    return text[:ERROR_MESSAGE_CHARACTERS]


def state_change_event(run: Mapping[str, Any]) -> dict[str, str]:
    """Return the detail of a "Glue Job State Change" event.

    https://docs.aws.amazon.com/glue/latest/dg/automating-awsglue-with-cloudwatch-events.html,
    samples in https://docs.aws.amazon.com/eventbridge/latest/ref/events-ref-glue.html
    """
    state = run["JobRunState"]
    severity = {"FAILED": "ERROR", "ERROR": "ERROR", "TIMEOUT": "WARN"}.get(state, "INFO")
    message = {"SUCCEEDED": "Job run succeeded", "STOPPED": "Job run stopped", "TIMEOUT": "Job run timed out"}
    return {
        "jobName": run["JobName"],
        "severity": severity,
        "state": state,
        "jobRunId": run["Id"],
        "message": message.get(state) or run.get("ErrorMessage", ""),
    }


def split_s3_location(location: str) -> tuple[str, str]:
    """Return bucket and key of an ``s3://`` location.

    Raises:
        LaunchError: it is none.
    """
    found = re.fullmatch(r"s3[an]?://([^/]+)/(.+)", location)
    if found is None:
        raise LaunchError(f"The script location {location!r} is no s3:// location")
    return found[1], found[2]


def default_timeout_minutes(glue_version: str) -> int:
    """Return the time limit of a job that names none.

    https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-job.html
    """
    major = glue_version.partition(".")[0]
    return 480 if major.isdecimal() and int(major) >= 5 else 2880  # noqa: PLR2004


def whole_definition(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's definition, the defaults for what the request leaves out included."""
    stated = {name: value for name, value in given.items() if value is not None}
    glue_version = stated.get("GlueVersion", DEFAULT_GLUE_VERSION)
    return {
        **copy.deepcopy(dict(JOB_DEFAULTS)),
        "GlueVersion": glue_version,
        "Timeout": default_timeout_minutes(glue_version),
        **stated,
    }


def timeout_refusal(request: Mapping[str, Any]) -> str | None:
    """Return why AWS refuses the time limit that a job or a run asks for, None if it does not.

    https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-job.html
    """
    if int(request.get("Timeout") or 0) <= MAXIMUM_TIMEOUT_MINUTES:
        return None
    return f"Timeout has to be at most {MAXIMUM_TIMEOUT_MINUTES} minutes (7 days)"


def update_refusal(update: Mapping[str, Any]) -> str | None:
    """Return why AWS refuses a new definition of a job, None if it does not.

    Role and command are required (https://docs.aws.amazon.com/glue/latest/webapi/API_JobUpdate.html); the sentence on
    the command: https://github.com/cloud-custodian/cloud-custodian/pull/5691.
    """
    if not (update.get("Command") or {}).get("Name"):
        return "Command name should not be null or empty."
    if not update.get("Role"):
        return "Role should not be null or empty."
    return timeout_refusal(update)


def completed_job(job: dict[str, Any], request: Mapping[str, Any]) -> None:
    """Put into a job's definition what MiniStack leaves out of it, and numbers as numbers."""
    for name in KEPT_TOO:
        job.pop(name, None)
        if request.get(name) is not None:
            job[name] = request[name]
    limit = (job.get("ExecutionProperty") or {}).get("MaxConcurrentRuns", 1)
    job["ExecutionProperty"] = {"MaxConcurrentRuns": int(limit)}
    for name in KEPT_NUMBERS:
        if job.get(name) is not None:
            job[name] = int(job[name])


# --- runs -------------------------------------------------------------------------------------------------------------


class LogShipper:
    """Carries a growing file to a CloudWatch log stream, whole lines only, with the permissions of the job's role."""

    def __init__(self, client: Any, file: Path, group: str, stream: str) -> None:
        self._client = client
        self._file = file
        self._group = group
        self._stream = stream
        self._offset = 0
        self._created = False
        self._refused = False

    def ship(self, everything: bool = False) -> None:
        """Send what was written since the last time; with ``everything`` an unfinished last line too."""
        if self._refused or not self._file.exists():
            return
        try:
            while part := self._next_part(everything):
                self._send(part.decode(errors="replace").split("\n"))
        except (ClientError, BotoCoreError) as error:
            # As on AWS, a run does not fail because its role may not write logs; the file keeps every line.
            self._refused = True
            logger.warning("No logs of %s in %s: %s", self._stream, self._group, error)

    def _next_part(self, everything: bool) -> bytes:
        with self._file.open("rb") as file:
            file.seek(self._offset)
            data = file.read(LOG_PART_BYTES)
        part = data if everything else data[: data.rfind(b"\n") + 1]
        self._offset += len(part)
        return part

    def _send(self, lines: Sequence[str]) -> None:
        """Send lines as events; empty ones cannot be.

        Limits: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
        """
        now_milliseconds = int(time.time() * 1000)
        events = [{"timestamp": now_milliseconds, "message": line[:LOG_EVENT_CHARACTERS]} for line in lines if line]
        self._create()
        for start in range(0, len(events), LOG_EVENTS):
            self._client.put_log_events(
                logGroupName=self._group, logStreamName=self._stream, logEvents=events[start : start + LOG_EVENTS]
            )

    def _create(self) -> None:
        if self._created:
            return
        for create, names in (
            (self._client.create_log_group, {"logGroupName": self._group}),
            (self._client.create_log_stream, {"logGroupName": self._group, "logStreamName": self._stream}),
        ):
            try:
                create(**names)
            except self._client.exceptions.ResourceAlreadyExistsException:
                continue
            except ClientError as error:
                # The group is often the template's, and the role may not create any; writing tells whether it is there.
                logger.debug("%s: %s", names, error)
        self._created = True


class JobRuns:
    """All runs of all jobs: what the API shows, kept in one file a run, and the processes behind the active ones."""

    def __init__(self, endpoint: Endpoint, service: Any) -> None:
        self._endpoint = endpoint
        self._service = service
        self._lock = threading.RLock()
        self._runs: dict[str, Run] = {}
        self._stop_requests: set[str] = set()
        self._runtimes: dict[str, spark_runtime.SparkRuntime] = {}
        self._glue_directory = endpoint.settings.state_directory / "glue"
        self._original: dict[str, Any] = {}

    # Installation

    def install(self) -> None:
        """Take over the operations on runs and bookmarks, and complete those on jobs."""
        service = self._service
        for name, replacement in (
            ("_start_job_run", self.start_job_run),
            ("_get_job_run", self.get_job_run),
            ("_get_job_runs", self.get_job_runs),
            ("_batch_stop_job_run", self.batch_stop_job_run),
            ("_create_job", self.create_job),
            ("_update_job", self.update_job),
            ("_delete_job", self.delete_job),
        ):
            self._original[name] = seams.replace(service, name, replacement)
        glue_catalog.add_operations(
            service, {"GetJobBookmark": self.get_job_bookmark, "ResetJobBookmark": self.reset_job_bookmark}
        )
        self._load()

    def _load(self) -> None:
        """Read the runs of earlier endpoints; what was running then has died with its endpoint."""
        for file in sorted(self._glue_directory.glob("runs/*/run.json")):
            run = json.loads(file.read_text())
            self._runs[run["Id"]] = run
            if run["JobRunState"] in ACTIVE_STATES:
                self._kill_leftover(file.with_name("pid"))
                self._record_end(run, "FAILED", "The endpoint ended while the job was running")
                shutil.rmtree(file.with_name("work"), ignore_errors=True)
                self._endpoint.on_ready(partial(self._publish, run))

    @staticmethod
    def _kill_leftover(pid_file: Path) -> None:
        """End a process group that outlived its endpoint, if its number still belongs to a supervisor of ours."""
        if not pid_file.exists():
            return
        process_id = int(pid_file.read_text())
        command_line = Path(f"/proc/{process_id}/cmdline")
        if command_line.exists() and str(SUPERVISOR_SCRIPT).encode() in command_line.read_bytes():
            os.killpg(process_id, signal.SIGKILL)

    # Jobs

    def create_job(self, request: dict[str, Any]) -> Response:
        """CreateJob, with the fields that MiniStack leaves out."""
        if (reason := timeout_refusal(request)) is not None:
            return self._error("InvalidInputException", reason)
        response: Response = self._original["_create_job"](whole_definition(request))
        if response[0] == 200:  # noqa: PLR2004
            completed_job(self._service._jobs[request["Name"]], request)
        return response

    def update_job(self, request: dict[str, Any]) -> Response:
        """UpdateJob: "the previous job definition is completely overwritten".

        https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateJob.html
        """
        update = request.get("JobUpdate") or {}
        if (reason := update_refusal(update)) is not None:
            return self._error("InvalidInputException", reason)
        response: Response = self._original["_update_job"]({**request, "JobUpdate": whole_definition(update)})
        if response[0] == 200:  # noqa: PLR2004
            completed_job(self._service._jobs[request["JobName"]], update)
        return response

    def delete_job(self, request: dict[str, Any]) -> Response:
        """DeleteJob: its finished runs and its bookmark go with it."""
        job_name = request.get("JobName", "")
        with self._lock:
            for run in [run for run in self._runs.values() if run["JobName"] == job_name]:
                if run["JobRunState"] not in ACTIVE_STATES:
                    del self._runs[run["Id"]]
                    shutil.rmtree(self._run_directory(run["Id"]), ignore_errors=True)
        self._bookmark_file(job_name).unlink(missing_ok=True)
        response: Response = self._original["_delete_job"](request)
        return response

    # Runs: the API

    def start_job_run(self, request: dict[str, Any]) -> Response:
        """StartJobRun (https://docs.aws.amazon.com/glue/latest/webapi/API_StartJobRun.html)."""
        name = request.get("JobName", "")
        job = self._service._jobs.get(name)
        if job is None:
            return self._error(
                "EntityNotFoundException", f"Failed to start job run due to missing metadata: no job named {name}"
            )
        run_arguments = request.get("Arguments") or {}
        arguments = merged_arguments(job, run_arguments)
        if (reason := self._run_refusal(request, arguments)) is not None:
            return self._error("InvalidInputException", reason)
        limit = int((job.get("ExecutionProperty") or {}).get("MaxConcurrentRuns", 1))
        now = time.time()
        with self._lock:
            active = [run for run in self._of_job(name) if run["JobRunState"] in ACTIVE_STATES]
            if len(active) >= limit:
                return self._error("ConcurrentRunsExceededException", f"Concurrent runs exceeded for {name}")
            run: Run = {
                "Id": f"jr_{uuid.uuid4().hex}{uuid.uuid4().hex}",
                "Attempt": 0,
                "JobName": name,
                "JobMode": "SCRIPT",
                "StartedOn": now,
                "LastModifiedOn": now,
                "JobRunState": "STARTING",
                "Arguments": dict(run_arguments),
                "PredecessorRuns": [],
                "ExecutionTime": 0,
                "Timeout": int(request.get("Timeout") or job["Timeout"]),
                "LogGroupName": arguments.get("--custom-logGroup-prefix") or DEFAULT_LOG_GROUP,
                "GlueVersion": str(job.get("GlueVersion", "")),
                "ExecutionClass": request.get("ExecutionClass") or job.get("ExecutionClass") or "STANDARD",
                **{
                    setting: value
                    for setting in RUN_SETTINGS
                    if (value := request.get(setting) or job.get(setting)) is not None and value != ""
                },
            }
            self._runs[run["Id"]] = run
            self._save(run)
        definition = json.loads(json.dumps(job))
        self._endpoint.start_worker(
            f"glue-{run['Id'][:11]}", lambda stopping: self._run(run, definition, arguments, stopping)
        )
        return self._answer({"JobRunId": run["Id"]})

    def _run_refusal(self, request: Mapping[str, Any], arguments: Mapping[str, str]) -> str | None:
        """Return why a run with these arguments cannot start, None if it can."""
        if request.get("JobRunId"):
            return "Retrying an earlier run is not modelled: start a new run"
        refused = [argument for argument in REFUSED_ARGUMENTS if argument in arguments]
        if refused:
            return f"Not modelled by this endpoint: {', '.join(refused)}"
        try:
            self._bookmark_window(request["JobName"], arguments)
        except ValueError as problem:
            return str(problem)
        return timeout_refusal(request)

    def get_job_run(self, request: dict[str, Any]) -> Response:
        """GetJobRun (https://docs.aws.amazon.com/glue/latest/webapi/API_GetJobRun.html)."""
        with self._lock:
            run = self._runs.get(request.get("RunId", ""))
            if run is None or run["JobName"] != request.get("JobName"):
                return self._error("EntityNotFoundException", f"Job run {request.get('RunId')} not found")
            return self._answer({"JobRun": self._shown(run)})

    def get_job_runs(self, request: dict[str, Any]) -> Response:
        """GetJobRuns, the latest first (https://docs.aws.amazon.com/glue/latest/webapi/API_GetJobRuns.html)."""
        name = request.get("JobName", "")
        with self._lock:
            runs = [self._shown(run) for run in sorted(self._of_job(name), key=lambda run: -run["StartedOn"])]
        if not runs and name not in self._service._jobs:
            return self._error("EntityNotFoundException", f"Job {name} not found")
        start = int(request.get("NextToken") or 0)
        end = start + int(request.get("MaxResults") or MAXIMUM_PAGE_SIZE)
        return self._answer({"JobRuns": runs[start:end], **({"NextToken": str(end)} if end < len(runs) else {})})

    def batch_stop_job_run(self, request: dict[str, Any]) -> Response:
        """BatchStopJobRun (https://docs.aws.amazon.com/glue/latest/webapi/API_BatchStopJobRun.html)."""
        name = request.get("JobName", "")
        stopped, errors = [], []
        for run_id in request.get("JobRunIds", []):
            named = {"JobName": name, "JobRunId": run_id}
            with self._lock:
                run = self._runs.get(run_id)
                if run is not None and run["JobName"] == name and run["JobRunState"] in ("STARTING", "RUNNING"):
                    self._stop_requests.add(run_id)
                    self._change(run, JobRunState="STOPPING")
                    stopped.append(named)
                    continue
            code, message = (
                ("EntityNotFoundException", f"Job run {run_id} not found")
                if run is None or run["JobName"] != name
                else ("InvalidInputException", f"Job run is not in running state: {run['JobRunState']}")
            )
            errors.append({**named, "ErrorDetail": {"ErrorCode": code, "ErrorMessage": message}})
        return self._answer({"SuccessfulSubmissions": stopped, "Errors": errors})

    # Bookmarks

    def get_job_bookmark(self, request: dict[str, Any]) -> Response:
        """GetJobBookmark: the state as the last ``job.commit()`` left it."""
        name = request.get("JobName", "")
        file = self._bookmark_file(name)
        if not file.exists():
            return self._error("EntityNotFoundException", f"No bookmark of the job {name}")
        return self._answer({"JobBookmarkEntry": self._bookmark_entry(name, file.read_text())})

    def reset_job_bookmark(self, request: dict[str, Any]) -> Response:
        """ResetJobBookmark: the next run reads everything again, or with a ``RunId`` whatever came after that run.

        The bookmark goes back to the end of the run, and of a run that failed to the end of the last successful one
        before it: https://docs.aws.amazon.com/glue/latest/dg/monitor-continuations.html and
        https://aws.amazon.com/blogs/big-data/load-data-incrementally-and-optimized-parquet-writer-with-aws-glue/
        """
        name, run_id = request.get("JobName", ""), request.get("RunId")
        if name not in self._service._jobs:
            return self._error("EntityNotFoundException", f"Job {name} not found")
        try:
            bookmark = self._bookmark_after(name, run_id) if run_id else None
        except KeyError:
            return self._error("EntityNotFoundException", f"Job run {run_id} not found")
        file = self._bookmark_file(name)
        if bookmark is not None and bookmark.exists():
            _replace(file, bookmark.read_bytes())
        else:
            file.unlink(missing_ok=True)
        shown = file.read_text() if file.exists() else "{}"
        entry = self._bookmark_entry(name, shown) | ({"RunId": run_id} if run_id else {})
        return self._answer({"JobBookmarkEntry": entry})

    def _bookmark_after(self, job_name: str, run_id: str) -> Path | None:
        """Return the bookmark as the last successful run up to this one left it, None if there was none.

        Raises:
            KeyError: the job has no such run.
        """
        with self._lock:
            runs = sorted(self._of_job(job_name), key=lambda run: run["StartedOn"])
        ids = [run["Id"] for run in runs]
        if run_id not in ids:
            raise KeyError(run_id)
        successful = [run["Id"] for run in runs[: ids.index(run_id) + 1] if run["JobRunState"] == "SUCCEEDED"]
        return self._kept_bookmark(successful[-1]) if successful else None

    def _bookmark_window(self, job_name: str, arguments: Mapping[str, str]) -> dict[str, str]:
        """Return the variables for a run that reads between two earlier ones, none for another run.

        "job-bookmark-from" and "job-bookmark-to" of
        https://docs.aws.amazon.com/glue/latest/dg/monitor-continuations.html

        Raises:
            ValueError: only one of the two is given, or the job has no such run.
        """
        given = {name: arguments[argument] for name, argument in WINDOW_ARGUMENTS.items() if argument in arguments}
        if not given or arguments.get("--job-bookmark-option") != "job-bookmark-pause":
            return {}
        if len(given) != len(WINDOW_ARGUMENTS):
            raise ValueError(f"{' and '.join(WINDOW_ARGUMENTS.values())} have to be given together")
        try:
            return {name: str(self._bookmark_after(job_name, run_id) or os.devnull) for name, run_id in given.items()}
        except KeyError as unknown:
            raise ValueError(f"Job run {unknown.args[0]} not found") from None

    @staticmethod
    def _bookmark_entry(name: str, bookmark: str) -> dict[str, Any]:
        return {"JobName": name, "Version": 0, "Run": 0, "Attempt": 0, "JobBookmark": bookmark}

    def _bookmark_file(self, job_name: str) -> Path:
        return self._glue_directory / "bookmarks" / f"{quote(job_name, safe='')}.json"

    def _kept_bookmark(self, run_id: str) -> Path:
        """The job's bookmark as it was when the run had succeeded; no file where there was no bookmark yet."""
        return self._run_directory(run_id) / "bookmark.json"

    # Runs: the work

    def _run(self, run: Run, job: Mapping[str, Any], arguments: Mapping[str, str], stopping: threading.Event) -> None:
        """Carry out one run from STARTING to its end, whatever happens."""
        directory = self._run_directory(run["Id"])
        try:
            self._launch_and_watch(run, job, arguments, directory, stopping)
        except (LaunchError, spark_runtime.SparkRuntimeError, TrustError, ClientError, BotoCoreError) as error:
            self._finish(run, "FAILED", f"LAUNCH ERROR | {error}")
        except Exception as error:
            # A mistake of this module must not leave a run that never ends; it is logged and shown.
            self._finish(run, "ERROR", f"The endpoint could not run the job: {error!r}")
            raise
        finally:
            shutil.rmtree(directory / "work", ignore_errors=True)

    def _launch_and_watch(
        self,
        run: Run,
        job: Mapping[str, Any],
        arguments: Mapping[str, str],
        directory: Path,
        stopping: threading.Event,
    ) -> None:
        role_arn = self._role_arn(job.get("Role", ""))
        # Asserts that the role trusts Glue, once for all of the run's clients.
        self._client("sts", role_arn, run["JobName"])
        runtime = self._runtime(run)
        self._download_script(job, role_arn, directory)
        process = self._spawn(run, arguments, runtime, role_arn, directory)
        running_since = time.time()
        with self._lock:
            if run["JobRunState"] == "STARTING":
                self._change(run, JobRunState="RUNNING")
        logs = self._client("logs", role_arn, run["JobName"])
        shippers = [
            LogShipper(logs, directory / f"{stream}.log", group, run["Id"])
            for stream, group in log_groups(arguments).items()
        ]
        state, message = self._watch(run, process, shippers, stopping)
        for shipper in shippers:
            shipper.ship(everything=True)
        if state == "FAILED" and message is None:
            message = self._failure(directory, process.returncode)
        bookmark = self._bookmark_file(run["JobName"])
        if state == "SUCCEEDED" and bookmark.exists():
            _replace(self._kept_bookmark(run["Id"]), bookmark.read_bytes())
        seconds = time.time() - running_since
        self._put_metrics(run, arguments, role_arn, seconds)
        self._finish(run, state, message, execution_seconds=int(seconds))

    def _watch(
        self,
        run: Run,
        process: subprocess.Popen[bytes],
        shippers: Sequence[LogShipper],
        stopping: threading.Event,
    ) -> tuple[str, str | None]:
        """Wait for the end of the process, or bring it about; return the run's last state and its message."""
        deadline = time.monotonic() + run["Timeout"] * 60
        ship_at = time.monotonic() + LOG_SECONDS
        end: tuple[str, str | None] | None = None
        while process.poll() is None and end is None:
            if run["Id"] in self._stop_requests:
                end = ("STOPPED", None)
            elif time.monotonic() >= deadline:
                end = ("TIMEOUT", "Job run timed out")
            elif stopping.is_set():
                end = ("FAILED", "The endpoint was stopped while the job was running")
            elif time.monotonic() >= ship_at:
                for shipper in shippers:
                    shipper.ship()
                ship_at = time.monotonic() + LOG_SECONDS
            else:
                time.sleep(POLL_SECONDS)
        if end is not None:
            _end_group(process)
        _kill_group(process)
        process.wait()
        JOB_KILLS.forget(process.pid)
        if end is None:
            end = ("SUCCEEDED", None) if process.returncode == 0 else ("FAILED", None)
        return end

    def _spawn(
        self,
        run: Run,
        arguments: Mapping[str, str],
        runtime: spark_runtime.SparkRuntime,
        role_arn: str,
        directory: Path,
    ) -> subprocess.Popen[bytes]:
        """Start the job's process group; the environment is the job's own, with nothing of the host's."""
        settings = self._endpoint.settings
        work = directory / "work"
        work.mkdir(exist_ok=True)
        properties_file = directory / "spark.conf"
        properties_file.write_text(
            spark_runtime.spark_defaults(
                runtime,
                settings.base_url,
                settings.region,
                work,
                spark_overrides(arguments),
                trust_store=None if settings.tls_files is None else settings.tls_files.trust_store,
            )
        )
        session = self._endpoint.credentials(role_arn, SESSION_NAME)
        environment = {
            **runtime.environment(work),
            "AWS_ACCESS_KEY_ID": session["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": session["aws_secret_access_key"],
            "AWS_SESSION_TOKEN": session["aws_session_token"],
            "AWS_DEFAULT_REGION": settings.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            **settings.trust_variables,
            "AWS_ENDPOINT_URL": settings.base_url,
            "AWS_REGION": settings.region,
            "GLUE_BOOKMARK_FILE": str(self._bookmark_file(run["JobName"])),
            **self._bookmark_window(run["JobName"], arguments),
            "PYSPARK_SUBMIT_ARGS": spark_runtime.submit_arguments(properties_file),
            "PYTHONPATH": str(RUNTIME_DIRECTORY),
        }
        self._bookmark_file(run["JobName"]).parent.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-I", "-S", str(SUPERVISOR_SCRIPT)),
            *(str(runtime.python), "-s", str(directory / "script.py")),
            *script_arguments(run["JobName"], run["Id"], arguments),
        ]
        with (directory / "stdout.log").open("wb") as output, (directory / "stderr.log").open("wb") as errors:
            process = subprocess.Popen(  # noqa: S603
                command,
                cwd=work,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        (directory / "pid").write_text(str(process.pid))
        JOB_KILLS.watch(session["aws_access_key_id"], process.pid)
        return process

    def _download_script(self, job: Mapping[str, Any], role_arn: str, directory: Path) -> None:
        bucket, key = split_s3_location((job.get("Command") or {}).get("ScriptLocation", ""))
        answer = self._client("s3", role_arn, job["Name"]).get_object(Bucket=bucket, Key=key)
        (directory / "script.py").write_bytes(answer["Body"].read())

    def _runtime(self, run: Run) -> spark_runtime.SparkRuntime:
        """Return the Spark of the run's Glue version; what it lacks is fetched first, and the run says so meanwhile.

        How AWS refuses a version that it does not run: https://github.com/aws-samples/cql-replicator/issues/160

        Raises:
            LaunchError: there is no such version.
            SparkRuntimeError: its Spark cannot be had here.
        """
        glue_version = run["GlueVersion"]
        if glue_version not in GLUE_VERSIONS:
            raise LaunchError(
                f"JobName:{run['JobName']} and JobRunId:{run['Id']} failed to execute with exception "
                f"Given GlueVersion [{glue_version}] is not valid."
            )

        def progress(words: str) -> None:
            logger.info("Job run %s, Glue %s: %s", run["Id"], glue_version, words)
            self._change(run, StateDetail=f"Preparing Glue {glue_version}: {words}")

        if glue_version not in self._runtimes:
            try:
                self._runtimes[glue_version] = spark_runtime.prepare(
                    self._endpoint.settings.tools_directory, glue_version, progress
                )
            finally:
                run.pop("StateDetail", None)
        return self._runtimes[glue_version]

    @staticmethod
    def _failure(directory: Path, exit_code: int) -> str:
        with (directory / "stderr.log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - ERROR_TAIL_BYTES))
            tail = file.read().decode(errors="replace")
        code = exit_code if exit_code >= 0 else 128 - exit_code
        killed = code > 128  # noqa: PLR2004
        message = None if killed else last_exception(tail)
        return message or f"Command failed with exit code {code}"

    def _put_metrics(self, run: Run, arguments: Mapping[str, str], role_arn: str, seconds: float) -> None:
        """Write the job's metrics with its role, if the job has them switched on.

        https://docs.aws.amazon.com/glue/latest/dg/monitoring-awsglue-with-cloudwatch-metrics.html
        """
        if arguments.get("--enable-metrics", "false").lower() == "false":
            return
        value = {"MetricName": "glue.driver.aggregate.elapsedTime", "Value": seconds * 1000, "Unit": "None"}
        data = [
            {
                **value,
                "Dimensions": [
                    {"Name": "JobName", "Value": run["JobName"]},
                    {"Name": "JobRunId", "Value": run_id},
                    {"Name": "Type", "Value": "count"},
                ],
            }
            for run_id in (run["Id"], "ALL")
        ]
        try:
            self._client("cloudwatch", role_arn, run["JobName"]).put_metric_data(Namespace="Glue", MetricData=data)
        except (ClientError, BotoCoreError) as error:
            # As on AWS, a run does not fail because its role may not write metrics.
            logger.warning("No metrics of %s: %s", run["Id"], error)

    def _client(self, service: str, role_arn: str, job_name: str) -> Any:
        settings = self._endpoint.settings
        return self._endpoint.client(
            service,
            role_arn=role_arn,
            session_name=SESSION_NAME,
            service_principal=SERVICE_PRINCIPAL,
            source_arn=f"arn:aws:glue:{settings.region}:{settings.account_id}:job/{job_name}",
        )

    def _role_arn(self, role: str) -> str:
        """Return the ARN of a role that a job may give by its name or by its ARN."""
        return role if role.startswith("arn:") else f"arn:aws:iam::{self._endpoint.settings.account_id}:role/{role}"

    # Records

    def _of_job(self, name: str) -> list[Run]:
        return [run for run in self._runs.values() if run["JobName"] == name]

    def _run_directory(self, run_id: str) -> Path:
        return self._glue_directory / "runs" / run_id

    def _change(self, run: Run, **changes: Any) -> None:
        with self._lock:
            run |= {**changes, "LastModifiedOn": time.time()}
            self._save(run)

    def _save(self, run: Run) -> None:
        directory = self._run_directory(run["Id"])
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / "run.json", json.dumps(run, indent=1).encode())

    def _finish(self, run: Run, state: str, message: str | None = None, execution_seconds: int = 0) -> None:
        """Record a run's end and tell EventBridge."""
        self._record_end(run, state, message, execution_seconds)
        self._publish(run)

    def _record_end(self, run: Run, state: str, message: str | None = None, execution_seconds: int = 0) -> None:
        with self._lock:
            stopped = run["Id"] in self._stop_requests
            self._stop_requests.discard(run["Id"])
            self._change(
                run,
                JobRunState="STOPPED" if stopped else state,
                CompletedOn=time.time(),
                ExecutionTime=execution_seconds,
                **({"ErrorMessage": message} if message and not stopped else {}),
            )
        logger.info("Job run %s of %s: %s %s", run["Id"], run["JobName"], run["JobRunState"], message or "")

    def _publish(self, run: Run) -> None:
        self._endpoint.publish_event("aws.glue", "Glue Job State Change", state_change_event(run))

    @staticmethod
    def _shown(run: Run) -> Run:
        live = {"ExecutionTime": int(time.time() - run["StartedOn"])} if run["JobRunState"] == "RUNNING" else {}
        return {**run, **live}

    @staticmethod
    def _answer(document: Mapping[str, Any]) -> Response:
        return 200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(document).encode()

    def _error(self, code: str, message: str) -> Response:
        response: Response = seams.require(self._service, "error_response_json")(code, message, 400)
        return response


def _replace(file: Path, content: bytes) -> None:
    """Give a file new content, whole or not at all."""
    unfinished = file.with_name(f"{file.name}.new")
    unfinished.write_bytes(content)
    unfinished.replace(file)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the process group to end and give it some seconds."""
    _signal_group(process, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        logger.info("Process group %d does not end by itself and is killed", process.pid)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Leave no process of the group behind, above all no Java."""
    _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        logger.debug("Process group %d is gone", process.pid)


def install(endpoint: Endpoint) -> None:
    """Put processes behind MiniStack's Glue jobs."""
    from ministack.services import glue
    from ministack.services.cloudformation import provisioners

    # CloudFormation hands on only what is named here; what a template drops, UpdateJob resets by itself.
    handed_on = seams.require(provisioners, "_GLUE_JOB_DEFAULTS")
    handed_on.update(dict.fromkeys((*handed_on, *KEPT_TOO)))
    JobRuns(endpoint, glue).install()
