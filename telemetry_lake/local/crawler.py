"""Glue crawlers on catalog targets: partitions for the folders of a table that exists.

https://docs.aws.amazon.com/glue/latest/dg/define-crawler.html,
https://docs.aws.amazon.com/glue/latest/dg/crawler-configuration.html

Known deviations from AWS:

* Only the recipe in which the schema never changes is modelled: ``CatalogTargets``, ``UpdateBehavior`` and
  ``DeleteBehavior`` ``LOG``, partitions ``InheritFromTable``. A crawl of any other crawler fails and says so.
* It takes milliseconds and reads four bytes of one file in each new folder (on AWS the role needs to read them too),
  whatever ``RecrawlPolicy`` says; classifiers do nothing, and what the files hold is not compared with the table.
* A crawl never shows the state ``STOPPING`` while it tidies up, only after ``StopCrawler``.
* UpdateCrawler refuses a crawler that runs with CrawlerRunningException, as its page says; AWS was seen to answer
  InvalidInputException (https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/817).
* CloudFormation does not wait for a crawl: an update or a deletion of its crawler fails with the refusal, and can be
  asked for again. AWS's documents do not say for how long it tries.
* Schedules of crawlers do not fire. Crawls cost no DPU hours, how long a running one will take is not estimated, and in
  the history one that has ended has a summary whose form AWS does not document.
"""

import json
import logging
import math
import operator
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint, TrustError
from telemetry_lake.local.glue_catalog import MAXIMUM_BATCH_CREATE, add_operations

Response = tuple[int, dict[str, str], bytes]
Crawler = dict[str, Any]

SERVICE_PRINCIPAL = "glue.amazonaws.com"
SESSION_NAME = "AWS-Crawler"
LOG_GROUP = "/aws-glue/crawlers"
ERROR_MESSAGE_CHARACTERS = 2048
HIDDEN = ("_", ".")
CRAWLS_PER_PAGE = 20
CRAWLERS_PER_PAGE = 100
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "GT": operator.gt,
    "GE": operator.ge,
    "LT": operator.lt,
    "LE": operator.le,
    "EQ": operator.eq,
    "NE": operator.ne,
}

logger = logging.getLogger(__name__)


class CrawlError(RuntimeError):
    """A crawl cannot be done, for a reason that its ``ErrorMessage`` tells."""


class CrawlStoppedError(Exception):
    """Somebody called StopCrawler."""


# --- pure parts -------------------------------------------------------------------------------------------------------


@dataclass
class Folder:
    """A partition's folder: its first object and how many lie in it directly."""

    first_key: str
    location: str
    objects: int = 0
    size_bytes: int = 0


@dataclass
class CrawlSummary:
    """What a crawl did."""

    partitions_created: int = 0
    log_lines: list[str] = field(default_factory=list)

    @property
    def changes(self) -> dict[str, dict[str, int]]:
        """What was added, updated and deleted in the catalog."""
        partitions = {"ADD": self.partitions_created, "UPDATE": 0, "DELETE": 0}
        return {"TABLE": dict.fromkeys(partitions, 0), "PARTITION": partitions}


def partition_values(relative_key: str, key_names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the partition values in the path of an object below its table, as they are written there.

    None for an object that belongs to no partition: hidden (a name that begins with ``_`` or ``.``), a folder marker,
    or in folders other than ``key=value/`` for each partition key in order.
    """
    *folders, name = relative_key.split("/")
    if not name or name.startswith(HIDDEN) or any(folder.startswith(HIDDEN) for folder in folders):
        return None
    if len(folders) != len(key_names):
        return None
    pairs = [folder.partition("=") for folder in folders]
    if any(
        key.lower() != wanted.lower() or not value for (key, _, value), wanted in zip(pairs, key_names, strict=True)
    ):
        return None
    return tuple(value for _, _, value in pairs)


def partition_input(table: Mapping[str, Any], values: Sequence[str], folder: Folder) -> dict[str, Any]:
    """Return a new partition that inherits everything but its place from the table (``InheritFromTable``)."""
    inherited = {
        name: value
        for name, value in table.get("Parameters", {}).items()
        if name in ("classification", "compressionType", "typeOfData")
    }
    return {
        "Values": list(values),
        "StorageDescriptor": {**table["StorageDescriptor"], "Location": folder.location},
        "Parameters": {**inherited, "objectCount": str(folder.objects), "sizeKey": str(folder.size_bytes)},
    }


def unmodelled_setting(crawler: Mapping[str, Any]) -> str | None:
    """Return a sentence on the first setting of a crawler that is not modelled here, None if there is none."""
    targets = {name for name, value in crawler.get("Targets", {}).items() if value}
    if targets != {"CatalogTargets"}:
        return f"targets other than CatalogTargets ({', '.join(sorted(targets)) or 'none'})"
    policy = crawler.get("SchemaChangePolicy") or {}
    for name in ("UpdateBehavior", "DeleteBehavior"):
        if policy.get(name) != "LOG":
            return f"SchemaChangePolicy {name} {policy.get(name)}"
    configuration = json.loads(crawler.get("Configuration") or "{}")
    behavior = configuration.get("CrawlerOutput", {}).get("Partitions", {}).get("AddOrUpdateBehavior")
    return None if behavior == "InheritFromTable" else "partitions with a schema of their own"


def fits(crawl: Mapping[str, Any], filters: Sequence[Mapping[str, str]]) -> bool:
    """Tell whether a crawl passes every filter of ListCrawls; times are in milliseconds there.

    https://docs.aws.amazon.com/glue/latest/webapi/API_CrawlsFilter.html
    """
    values = {
        "CRAWL_ID": crawl["CrawlId"],
        "STATE": crawl["State"],
        "START_TIME": crawl["StartTime"] * 1000,
        "END_TIME": crawl["EndTime"] * 1000 if "EndTime" in crawl else math.nan,
        "DPU_HOUR": crawl["DPUHour"],
    }
    for each in filters:
        value = values[each["FieldName"]]
        wanted = each["FieldValue"] if isinstance(value, str) else float(each["FieldValue"])
        if not COMPARISONS[each.get("FilterOperator", "EQ")](value, wanted):
            return False
    return True


def refusal(request: Mapping[str, Any]) -> str | None:
    """Return why AWS would not create such a crawler.

    A crawler with catalog targets must only log what was deleted:
    https://docs.aws.amazon.com/glue/latest/dg/define-crawler.html
    """
    delete_behavior = (request.get("SchemaChangePolicy") or {}).get("DeleteBehavior")
    if (request.get("Targets") or {}).get("CatalogTargets") and delete_behavior != "LOG":
        return "The SchemaChangePolicy's DeleteBehavior has to be LOG for a crawler with catalog targets"
    return None


# --- the crawl --------------------------------------------------------------------------------------------------------


class Crawl:
    """One crawl, with the permissions of the crawler's role."""

    def __init__(self, glue: Any, s3: Any, stop_requested: threading.Event) -> None:
        self._glue = glue
        self._s3 = s3
        self._stop_requested = stop_requested
        self.summary = CrawlSummary()

    def run(self, targets: Sequence[Mapping[str, Any]]) -> None:
        """Add the partitions that the tables of the targets lack.

        Raises:
            CrawlError: a target cannot be crawled.
            CrawlStoppedError: somebody stopped it.
            ClientError: the role lacks a permission, or a target does not exist.
        """
        for target in targets:
            for table_name in target["Tables"]:
                self._crawl_table(target["DatabaseName"], table_name)

    def _crawl_table(self, database: str, table_name: str) -> None:
        table = self._glue.get_table(DatabaseName=database, Name=table_name)["Table"]
        location = table.get("StorageDescriptor", {}).get("Location", "")
        scheme, _, path = location.partition("://")
        bucket, _, prefix = path.partition("/")
        if scheme not in ("s3", "s3a", "s3n") or not bucket:
            raise CrawlError(f"The table {database}.{table_name} has no S3 location: {location!r}")
        prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        names = [key["Name"] for key in table.get("PartitionKeys", [])]
        if not names:
            self._say(f"Table {table_name} in database {database} has no partition keys: nothing to add")
            return
        folders = self._folders(bucket, prefix, names)
        known = self._known(database, table_name)
        new = [(values, folder) for values, folder in sorted(folders.items()) if values not in known]
        for start in range(0, len(new), MAXIMUM_BATCH_CREATE):
            self._stop_if_asked()
            batch = new[start : start + MAXIMUM_BATCH_CREATE]
            for _, folder in batch:
                self._s3.get_object(Bucket=bucket, Key=folder.first_key, Range="bytes=0-3")["Body"].read()
            answer = self._glue.batch_create_partition(
                DatabaseName=database,
                TableName=table_name,
                PartitionInputList=[partition_input(table, values, folder) for values, folder in batch],
            )
            # One that somebody else has just added is as good as ours.
            exist = [error["ErrorDetail"]["ErrorCode"] == "AlreadyExistsException" for error in answer["Errors"]]
            if not all(exist):
                raise CrawlError(f"Partitions of {database}.{table_name} could not be created: {answer['Errors']}")
            self.summary.partitions_created += len(batch) - len(exist)
        missing = sorted(known - folders.keys())
        if missing:
            self._say(f"{len(missing)} partitions of {table_name} have no files; DeleteBehavior is LOG: {missing[:10]}")
        self._say(f"Table {table_name} in database {database}: {len(folders)} folders, {len(new)} new partitions")

    def _folders(self, bucket: str, prefix: str, names: Sequence[str]) -> dict[tuple[str, ...], Folder]:
        folders: dict[tuple[str, ...], Folder] = {}
        elsewhere = 0
        for entry in self._objects(bucket, prefix):
            values = partition_values(entry["Key"][len(prefix) :], names)
            if values is None:
                elsewhere += 1
                continue
            path = entry["Key"].rpartition("/")[0]
            folder = folders.setdefault(values, Folder(entry["Key"], f"s3://{bucket}/{path}/"))
            folder.objects += 1
            folder.size_bytes += entry["Size"]
        if elsewhere:
            self._say(f"{elsewhere} objects below s3://{bucket}/{prefix} are hidden or in no partition folder")
        return folders

    def _objects(self, bucket: str, prefix: str) -> Iterator[Mapping[str, Any]]:
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            self._stop_if_asked()
            yield from page.get("Contents", [])

    def _known(self, database: str, table_name: str) -> set[tuple[str, ...]]:
        pages = self._glue.get_paginator("get_partitions").paginate(
            DatabaseName=database, TableName=table_name, ExcludeColumnSchema=True
        )
        return {tuple(partition["Values"]) for page in pages for partition in page["Partitions"]}

    def _stop_if_asked(self) -> None:
        if self._stop_requested.is_set():
            raise CrawlStoppedError

    def _say(self, line: str) -> None:
        self.summary.log_lines.append(line)


class Crawlers:
    """The API operations that start and stop crawls."""

    def __init__(self, endpoint: Endpoint, service: Any) -> None:
        self._endpoint = endpoint
        self._service = service
        self._crawlers = seams.require(service, "_crawlers")
        self._history_directory = endpoint.settings.state_directory / "crawls"
        self._lock = threading.Lock()
        self._stop_requests: dict[str, threading.Event] = {}
        self._running: dict[str, dict[str, Any]] = {}

    def install(self) -> None:
        """Take over StartCrawler and StopCrawler, refuse what AWS refuses, and tell what was crawled."""
        seams.replace(self._service, "_start_crawler", self.start_crawler)
        seams.replace(self._service, "_stop_crawler", self.stop_crawler)
        create, update, delete = (
            seams.require(self._service, name) for name in ("_create_crawler", "_update_crawler", "_delete_crawler")
        )
        seams.replace(self._service, "_create_crawler", self._checked(create))
        seams.replace(self._service, "_update_crawler", self._while_ready("update", self._checked(update)))
        seams.replace(self._service, "_delete_crawler", self._while_ready("delete", self._forgetting(delete)))
        add_operations(self._service, {"ListCrawls": self.list_crawls, "GetCrawlerMetrics": self.get_crawler_metrics})
        self._endpoint.on_ready(self._end_interrupted)

    def _checked(self, original: Any) -> Any:
        def operation(request: dict[str, Any]) -> Response:
            reason = refusal({**self._crawlers.get(request.get("Name"), {}), **request})
            response: Response = original(request) if reason is None else self._error("InvalidInputException", reason)
            return response

        return operation

    def _while_ready(self, verb: str, original: Any) -> Any:
        """Return an operation that AWS refuses while the crawler runs, or stops.

        https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateCrawler.html,
        https://docs.aws.amazon.com/glue/latest/webapi/API_DeleteCrawler.html; that of one that stops, and the sentence:
        https://github.com/aws/aws-sdk-java/issues/1549
        """

        def operation(request: dict[str, Any]) -> Response:
            name = request.get("Name", "")
            with self._lock:
                crawler = self._crawlers.get(name)
                if crawler is not None and crawler["State"] != "READY":
                    return self._error("CrawlerRunningException", f"Cannot {verb} crawler {name} while it's running")
                response: Response = original(request)
                return response

        return operation

    def _end_interrupted(self) -> None:
        """Tell of crawls that were running when the endpoint was stopped."""
        with self._endpoint.scope():
            interrupted = [crawler for crawler in self._crawlers.values() if crawler["State"] != "READY"]
        for crawler in interrupted:
            if crawler["Name"] not in self._stop_requests:
                self._finish(crawler, time.time(), "FAILED", "The endpoint ended during the crawl", CrawlSummary())

    def start_crawler(self, request: dict[str, Any]) -> Response:
        """StartCrawler (https://docs.aws.amazon.com/glue/latest/webapi/API_StartCrawler.html)."""
        name = request.get("Name", "")
        with self._lock:
            crawler = self._crawlers.get(name)
            if crawler is None:
                return self._error("EntityNotFoundException", f"Crawler with name {name} does not exist")
            if crawler["State"] != "READY":
                return self._error("CrawlerRunningException", f"Crawler with name {name} has already started")
            crawler |= {"State": "RUNNING", "CrawlElapsedTime": 0}
            stop_requested = self._stop_requests[name] = threading.Event()
            self._running[name] = {
                "CrawlId": (crawl_id := str(uuid.uuid4())),
                "State": "RUNNING",
                "StartTime": time.time(),
                "DPUHour": 0.0,
                "LogGroup": LOG_GROUP,
                "LogStream": name,
                "MessagePrefix": crawl_id,
            }
        self._endpoint.start_worker(f"crawler-{name}", lambda stopping: self._crawl(crawler, stop_requested, stopping))
        return self._answer()

    def stop_crawler(self, request: dict[str, Any]) -> Response:
        """StopCrawler (https://docs.aws.amazon.com/glue/latest/webapi/API_StopCrawler.html)."""
        name = request.get("Name", "")
        with self._lock:
            crawler = self._crawlers.get(name)
            if crawler is None:
                return self._error("EntityNotFoundException", f"Crawler with name {name} does not exist")
            if crawler["State"] == "STOPPING":
                return self._error("CrawlerStoppingException", f"Crawler with name {name} is stopping")
            if crawler["State"] != "RUNNING":
                return self._error("CrawlerNotRunningException", f"Crawler with name {name} isn't running")
            crawler["State"] = "STOPPING"
            self._stop_requests[name].set()
        return self._answer()

    # What was crawled

    def list_crawls(self, request: dict[str, Any]) -> Response:
        """ListCrawls, the latest first (https://docs.aws.amazon.com/glue/latest/webapi/API_ListCrawls.html)."""
        name = request.get("CrawlerName", "")
        if name not in self._crawlers:
            return self._error("EntityNotFoundException", f"Crawler with name {name} does not exist")
        with self._lock:
            known = [*self._history(name), *([self._running[name]] if name in self._running else [])]
        crawls = [crawl for crawl in reversed(known) if fits(crawl, request.get("Filters", []))]
        start = int(request.get("NextToken") or 0)
        end = start + request.get("MaxResults", CRAWLS_PER_PAGE)
        return self._answer({"Crawls": crawls[start:end], **({"NextToken": str(end)} if end < len(crawls) else {})})

    def get_crawler_metrics(self, request: dict[str, Any]) -> Response:
        """GetCrawlerMetrics (https://docs.aws.amazon.com/glue/latest/webapi/API_GetCrawlerMetrics.html)."""
        names = sorted(request.get("CrawlerNameList") or self._crawlers)
        metrics = [self._metrics(name) for name in names if name in self._crawlers]
        start = int(request.get("NextToken") or 0)
        end = start + request.get("MaxResults", CRAWLERS_PER_PAGE)
        return self._answer(
            {"CrawlerMetricsList": metrics[start:end], **({"NextToken": str(end)} if end < len(metrics) else {})}
        )

    def _metrics(self, name: str) -> dict[str, Any]:
        seconds = [crawl["EndTime"] - crawl["StartTime"] for crawl in self._history(name)]
        return {
            "CrawlerName": name,
            "TimeLeftSeconds": 0.0,
            "StillEstimating": False,
            "LastRuntimeSeconds": seconds[-1] if seconds else 0.0,
            "MedianRuntimeSeconds": statistics.median(seconds) if seconds else 0.0,
            # Catalog targets and LOG policies: tables stay as they are.
            **dict.fromkeys(("TablesCreated", "TablesUpdated", "TablesDeleted"), 0),
        }

    def _history_file(self, name: str) -> Path:
        return self._history_directory / f"{quote(name, safe='')}.jsonl"

    def _history(self, name: str) -> list[dict[str, Any]]:
        file = self._history_file(name)
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def _remember(self, crawler: Crawler, ended_at: float, summary: CrawlSummary) -> None:
        last = crawler["LastCrawl"]
        crawl = {
            "CrawlId": last["MessagePrefix"],
            "State": {"SUCCEEDED": "COMPLETED", "CANCELLED": "STOPPED"}.get(last["Status"], last["Status"]),
            "EndTime": ended_at,
            "Summary": json.dumps(summary.changes),
            "DPUHour": 0.0,
            **{
                name: last[name]
                for name in ("StartTime", "ErrorMessage", "LogGroup", "LogStream", "MessagePrefix")
                if name in last
            },
        }
        self._history_directory.mkdir(parents=True, exist_ok=True)
        with self._history_file(crawler["Name"]).open("a") as file:
            file.write(json.dumps(crawl) + "\n")

    def _forgetting(self, original: Any) -> Any:
        def delete_crawler(request: dict[str, Any]) -> Response:
            response: Response = original(request)
            if response[0] < 400:  # noqa: PLR2004
                self._history_file(request["Name"]).unlink(missing_ok=True)
            return response

        return delete_crawler

    # The crawl

    def _crawl(self, crawler: Crawler, stop_requested: threading.Event, stopping: threading.Event) -> None:
        started_at = self._running[crawler["Name"]]["StartTime"]
        self._publish(crawler, {"startTime": _iso(started_at), "state": "Started", "message": "Crawler Started"})
        status, message = "SUCCEEDED", ""
        crawl: Crawl | None = None
        try:
            unmodelled = unmodelled_setting(crawler)
            if unmodelled is not None:
                raise CrawlError(f"Not modelled by this endpoint: {unmodelled}")
            crawl = Crawl(self._client("glue", crawler), self._client("s3", crawler), stop_requested)
            crawl.run(crawler["Targets"]["CatalogTargets"])
        except CrawlStoppedError:
            status = "CANCELLED"
        except (CrawlError, TrustError, ClientError, BotoCoreError) as error:
            status, message = "FAILED", str(error)
        except Exception as error:
            # A mistake of this module must not leave a crawler that runs for ever; it is logged and shown.
            status, message = "FAILED", f"The endpoint could not crawl: {error!r}"
            raise
        finally:
            summary = crawl.summary if crawl is not None else CrawlSummary()
            if not stopping.is_set():
                self._write_log(crawler, [*summary.log_lines, f"Crawl {status} {message}".strip()])
            self._finish(crawler, started_at, status, message, summary)

    def _finish(self, crawler: Crawler, started_at: float, status: str, message: str, summary: CrawlSummary) -> None:
        """End a crawl: its result and the state READY appear together."""
        ended_at = time.time()
        with self._lock:
            running = self._running.pop(crawler["Name"], {})
            crawler |= {
                "CrawlElapsedTime": int((ended_at - started_at) * 1000),
                "LastCrawl": {
                    "Status": status,
                    **({"ErrorMessage": message[:ERROR_MESSAGE_CHARACTERS]} if message else {}),
                    "LogGroup": LOG_GROUP,
                    "LogStream": crawler["Name"],
                    "MessagePrefix": running.get("CrawlId") or str(uuid.uuid4()),
                    "StartTime": started_at,
                },
                "State": "READY",
            }
            self._remember(crawler, ended_at, summary)
            self._stop_requests.pop(crawler["Name"], None)
        logger.info("Crawler %s %s, %d partitions %s", crawler["Name"], status, summary.partitions_created, message)
        if status == "SUCCEEDED":
            self._publish(
                crawler,
                {
                    "tablesCreated": "0",
                    "tablesUpdated": "0",
                    "tablesDeleted": "0",
                    "partitionsCreated": str(summary.partitions_created),
                    "partitionsUpdated": "0",
                    "partitionsDeleted": "0",
                    "warningMessage": "N/A",
                    "runningTime (sec)": str(int(ended_at - started_at)),
                    "completionDate": _iso(ended_at),
                    "state": "Succeeded",
                    "message": "Crawler Succeeded",
                },
            )
        elif status == "FAILED":
            self._publish(crawler, {"errorMessage": message, "state": "Failed", "message": "Crawler Failed"})

    def _publish(self, crawler: Crawler, detail: Mapping[str, str]) -> None:
        """Publish a "Glue Crawler State Change" event.

        Samples: https://docs.aws.amazon.com/eventbridge/latest/ref/events-ref-glue.html and the EventBridge guide's
        event types.
        """
        settings = self._endpoint.settings
        link = (
            f"https://console.aws.amazon.com/cloudwatch/home?region={settings.region}"
            f"#logEventViewer:group={LOG_GROUP};stream={crawler['Name']}"
        )
        common = {"accountId": settings.account_id, "crawlerName": crawler["Name"]}
        logs = {} if detail["state"] == "Started" else {"cloudWatchLogLink": link}
        self._endpoint.publish_event("aws.glue", "Glue Crawler State Change", {**common, **logs, **detail})

    def _write_log(self, crawler: Crawler, lines: Sequence[str]) -> None:
        names = {"logGroupName": LOG_GROUP, "logStreamName": crawler["Name"]}
        now_milliseconds = int(time.time() * 1000)
        try:
            logs = self._client("logs", crawler)
            for create, keys in ((logs.create_log_group, ("logGroupName",)), (logs.create_log_stream, names)):
                try:
                    create(**{key: names[key] for key in keys})
                except logs.exceptions.ResourceAlreadyExistsException:
                    continue
            events = [{"timestamp": now_milliseconds, "message": line} for line in lines]
            logs.put_log_events(**names, logEvents=events)
        except (ClientError, BotoCoreError, TrustError) as error:
            # A crawl does not fail because its role may not write logs; its result is in LastCrawl.
            logger.warning("No logs of the crawler %s: %s", crawler["Name"], error)

    def _client(self, service: str, crawler: Crawler) -> Any:
        settings = self._endpoint.settings
        role = crawler.get("Role", "")
        return self._endpoint.client(
            service,
            role_arn=role if role.startswith("arn:") else f"arn:aws:iam::{settings.account_id}:role/{role}",
            session_name=SESSION_NAME,
            service_principal=SERVICE_PRINCIPAL,
            source_arn=f"arn:aws:glue:{settings.region}:{settings.account_id}:crawler/{crawler['Name']}",
        )

    @staticmethod
    def _answer(document: Mapping[str, Any] | None = None) -> Response:
        return 200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(document or {}).encode()

    def _error(self, code: str, message: str) -> Response:
        response: Response = seams.require(self._service, "error_response_json")(code, message, 400)
        return response


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def install(endpoint: Endpoint) -> None:
    """Put crawls behind MiniStack's crawlers."""
    from ministack.services import glue

    Crawlers(endpoint, glue).install()
