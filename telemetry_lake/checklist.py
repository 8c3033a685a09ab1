"""The seven steps of the way of a reading, each with what was measured and a verdict: the runbook's checklist.

Nothing is written. A step without evidence is red, also where nothing is wrong: it says what to do for some.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.console import OperatorError, Reporter, counts_text, size_text
from telemetry_lake.job_runs import ACTIVE_STATES, job_runs
from telemetry_lake.metrics import Metric, values_of
from telemetry_lake.pipeline import (
    StoredObject,
    list_objects,
    partition_text,
    partition_values,
    read_lines,
    recent_raw_prefixes,
    summary_of_run,
)
from telemetry_lake.queries import representative_query, run_query
from telemetry_lake.rejects import FIREHOSE_STAGE, counts_by, read_rejects
from telemetry_lake.target import Target

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
"""https://parquet.apache.org/docs/file-format/"""

BOOKMARK_OPTION = "--job-bookmark-option"
BOOKMARK_ENABLED = "job-bookmark-enable"
CRAWLS_LOOKED_AT = 100
DAYS_SHOWN = 6
LOADS_COMPARED = 2


@dataclass(frozen=True)
class Finding:
    """What one step came to.

    Attributes:
        evidence: sentences with the measured numbers.
        measured: the numbers by name, for scripts.
        faults: why the step is red; none of them makes it green.
    """

    evidence: tuple[str, ...]
    measured: Mapping[str, Any]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """A step of the checklist, what it came to, and what to do if it is red."""

    number: int
    name: str
    finding: Finding
    next_step: str

    @property
    def is_green(self) -> bool:
        """Whether there is evidence, and nothing against it."""
        return not self.finding.faults

    @property
    def verdict(self) -> str:
        """``green`` or ``red``."""
        return "green" if self.is_green else "red"

    def as_mapping(self) -> dict[str, Any]:
        """Return the step for scripts."""
        return {
            "step": self.number,
            "name": self.name,
            "verdict": self.verdict,
            **asdict(self.finding),
            "next": "" if self.is_green else self.next_step,
        }


def walk(target: Target, hours: int, reporter: Reporter) -> list[Step]:
    """Take the seven steps over what happened in the last ``hours``.

    What a service refuses makes its step red; the others are taken all the same.
    """
    checklist = Checklist(target, hours, reporter)
    found = []
    with reporter.step("Walking the way of a reading", len(checklist.steps)) as step:
        for number, (name, measure, next_step) in enumerate(checklist.steps, start=1):
            step.update(note=name)
            found.append(Step(number, name, _measured(measure), next_step))
            step.advance()
        step.update(note=f"{sum(each.is_green for each in found)} of {len(found)} green")
    return found


def _measured(measure: Callable[[], Finding]) -> Finding:
    try:
        return measure()
    except OperatorError as error:
        return Finding((), {}, (f"{error.happened} {error.next_step}".strip(),))
    except (ClientError, BotoCoreError) as error:
        return Finding((), {}, (str(error),))


class Checklist:
    """The steps on one stack; what several of them look at is asked for once."""

    def __init__(self, target: Target, hours: int, reporter: Reporter) -> None:
        self._target = target
        self._outputs = target.outputs
        self._hours = hours
        self._until = datetime.now(UTC)
        self._since = self._until - timedelta(hours=hours)
        self._reporter = reporter

    @property
    def steps(self) -> Sequence[tuple[str, Callable[[], Finding], str]]:
        """Name, measurement and advice of each step, in the order of the data."""
        outputs = self._outputs
        once_more = f"aws stepfunctions start-execution --state-machine-arn {outputs.state_machine_arn} --input '{{}}'"
        return (
            (
                "stream takes records",
                self.stream,
                "tlake produce --count 100; CloudWatch shows them a minute or two later.",
            ),
            (
                "Firehose delivers gzip objects",
                self.delivery,
                "tlake status; then the entries delivery-success and transform-errors of docs/runbook.md.",
            ),
            (
                "job writes Parquet by day",
                self.job,
                f"aws glue get-job-runs --job-name {outputs.job_name} --max-results 5; "
                "then the entry job-failed of docs/runbook.md.",
            ),
            (
                "crawler registers partitions",
                self.crawler,
                f"{once_more}  (it crawls if the catalog is behind); then the entry crawler-failed of docs/runbook.md.",
            ),
            (
                "Athena answers from one partition",
                self.athena,
                "tlake query --day YYYY-MM-DD; the entry no-rows of docs/runbook.md.",
            ),
            (
                "a rerun reads new objects alone",
                self.rerun,
                "tlake verify --rerun  (runs the pipeline once more first, which is always safe).",
            ),
            (
                "bad records are kept with a reason",
                self.dead_letters,
                "tlake produce --count 0 --bad 13, and this again a few minutes later.",
            ),
        )

    # ---------------------------------------------------------------------------------------- what several look at

    @cached_property
    def _files(self) -> dict[tuple[str, ...], list[StoredObject]]:
        """The table's Parquet files by their partition's values."""
        outputs = self._outputs
        found: dict[tuple[str, ...], list[StoredObject]] = {}
        for stored in list_objects(self._target.s3, outputs.analytics_bucket_name, outputs.curated_prefix):
            *folders, name = stored.key.removeprefix(outputs.curated_prefix).split("/")
            if name.endswith(".parquet"):
                values = tuple(folder.partition("=")[2] for folder in folders)
                found.setdefault(values, []).append(stored)
        return found

    @cached_property
    def _partitions(self) -> list[tuple[str, ...]]:
        return partition_values(self._target)

    def _first_bytes(self, bucket: str, stored: StoredObject, count: int) -> bytes:
        answer = self._target.s3.get_object(Bucket=bucket, Key=stored.key, Range=f"bytes=0-{count - 1}")
        return answer["Body"].read()

    # ---------------------------------------------------------------------------------------- the steps

    def stream(self) -> Finding:
        """Take step 1: CloudWatch counts what the stream takes."""
        dimensions = {"StreamName": self._outputs.stream_name}
        metrics = {
            "incoming_records": Metric("AWS/Kinesis", "IncomingRecords", dimensions, "Sum"),
            "throttled_records": Metric("AWS/Kinesis", "WriteProvisionedThroughputExceeded", dimensions, "Sum"),
        }
        found = values_of(self._target, metrics, self._since, self._until)
        measured = {name: int(sum(values)) for name, values in found.items()}
        return Finding(
            (
                f"{measured['incoming_records']:,} records by IncomingRecords in {self._hours} h",
                f"{measured['throttled_records']:,} throttled",
            ),
            measured,
            () if measured["incoming_records"] else (f"no record in {self._hours} h",),
        )

    def delivery(self) -> Finding:
        """Take step 2: every delivery of Firehose succeeded, and what it wrote is gzip."""
        outputs = self._outputs
        dimensions = {"DeliveryStreamName": outputs.delivery_stream_name}
        metrics = {
            name: Metric("AWS/Firehose", "DeliveryToS3.Success", dimensions, name) for name in ("Sum", "SampleCount")
        }
        found = {name: sum(each) for name, each in values_of(self._target, metrics, self._since, self._until).items()}
        days = (self._until.date() - self._since.date()).days + 1
        raw = [
            stored
            for prefix in recent_raw_prefixes(outputs.raw_prefix, self._until, days)
            for stored in list_objects(self._target.s3, outputs.raw_bucket_name, prefix)
            if stored.last_modified >= self._since
        ]
        share = found["Sum"] / found["SampleCount"] if found["SampleCount"] else None
        size_bytes = sum(stored.size_bytes for stored in raw)
        measured = {
            "deliveries": int(found["SampleCount"]),
            "success": share,
            "objects": len(raw),
            "bytes": size_bytes,
        }
        faults = []
        if share is None:
            faults.append(f"no delivery in {self._hours} h")
        elif share < 1:
            faults.append(f"{found['SampleCount'] - found['Sum']:,.0f} deliveries failed")
        if not raw:
            faults.append(f"no object written in {self._hours} h")
        else:
            newest = max(raw, key=lambda stored: stored.last_modified)
            if self._first_bytes(outputs.raw_bucket_name, newest, len(GZIP_MAGIC)) != GZIP_MAGIC:
                faults.append(f"{newest.key} is no gzip")
        return Finding(
            (
                f"DeliveryToS3.Success {'-' if share is None else f'{share:.3f}'} over {measured['deliveries']:,} "
                "deliveries",
                f"{len(raw):,} objects, {size_text(size_bytes)} in {outputs.raw_prefix}",
            ),
            measured,
            tuple(faults),
        )

    def job(self) -> Finding:
        """Take step 3: the newest run succeeded, and the table's folder holds Parquet by day."""
        outputs = self._outputs
        run = next((run for run in job_runs(self._target) if run.state not in ACTIVE_STATES), None)
        files = [stored for day in self._files.values() for stored in day]
        measured: dict[str, Any] = {
            "run": None if run is None else run.id,
            "state": None if run is None else run.state,
            "counts": {},
            "files": len(files),
            "bytes": sum(stored.size_bytes for stored in files),
            "days": len(self._files),
        }
        evidence = []
        faults = []
        if run is None:
            faults.append("the job has no finished run")
        elif run.state != "SUCCEEDED":
            faults.append(f"the run {run.id} ended {run.state}: {run.error}")
        else:
            measured["counts"] = summary_of_run(self._target, run.id)["counts"]
            evidence.append(_run_text(run.id, measured["counts"]))
            if not measured["counts"]["lines"]:
                # A schedule runs the job whether or not anything has come.
                evidence += self._last_that_read()
        evidence.append(f"{len(files):,} files, {size_text(measured['bytes'])} in {len(self._files):,} days")
        if not files:
            faults.append("no Parquet file")
        else:
            newest = max(files, key=lambda stored: stored.last_modified)
            if self._first_bytes(outputs.analytics_bucket_name, newest, len(PARQUET_MAGIC)) != PARQUET_MAGIC:
                faults.append(f"{newest.key} is no Parquet")
        return Finding(tuple(evidence), measured, tuple(faults))

    def _last_that_read(self) -> list[str]:
        outputs = self._outputs
        summaries = list_objects(self._target.s3, outputs.analytics_bucket_name, outputs.summaries_prefix)
        recent = [stored for stored in summaries if stored.last_modified >= self._since]
        for stored in sorted(recent, key=lambda stored: stored.last_modified, reverse=True):
            run_id = PurePosixPath(stored.key).stem
            counts = summary_of_run(self._target, run_id)["counts"]
            if counts["lines"]:
                return [f"the last that read anything: {_run_text(run_id, counts)}"]
        return []

    def crawler(self) -> Finding:
        """Take step 4: the table is in the catalog, a crawl registered partitions, and no folder lacks its own.

        Which ones a crawl registered is told by when the catalog says that they were made; the form of a crawl's
        ``Summary`` is not documented (https://docs.aws.amazon.com/glue/latest/webapi/API_CrawlerHistory.html).
        """
        outputs, glue = self._outputs, self._target.glue
        table = glue.get_table(DatabaseName=outputs.database_name, Name=outputs.table_name)["Table"]
        keys = ", ".join(f"{key['Name']} {key.get('Type', '')}" for key in table.get("PartitionKeys", []))
        crawls = [
            crawl
            for crawl in glue.list_crawls(CrawlerName=outputs.crawler_name, MaxResults=CRAWLS_LOOKED_AT)["Crawls"]
            if crawl["State"] != "RUNNING"
        ]
        pages = glue.get_paginator("get_partitions").paginate(
            DatabaseName=outputs.database_name, TableName=outputs.table_name, ExcludeColumnSchema=True
        )
        made = {
            tuple(partition["Values"]): partition["CreationTime"] for page in pages for partition in page["Partitions"]
        }
        registered, crawled_at = _registered_by_a_crawl(crawls, made)
        gaps = sorted(set(self._files) - set(made))
        measured = {
            "table": f"{outputs.database_name}.{outputs.table_name}",
            "crawl_started": crawled_at,
            "registered_by_this_crawl": [partition_text(values) for values in registered],
            "partitions": len(made),
            "folders_without_partition": [partition_text(values) for values in gaps],
        }
        faults = []
        if crawls and crawls[0]["State"] != "COMPLETED":
            faults.append(f"the newest crawl {crawls[0]['State'].lower()}: {crawls[0].get('ErrorMessage', '')}")
        if not registered:
            faults.append("no crawl has registered a partition")
        if gaps:
            faults.append(f"{len(gaps):,} folders with files have no partition: {_days_text(gaps)}")
        evidence = [f"{measured['table']} ({keys}), {len(made):,} partitions"]
        if crawled_at is not None:
            evidence.append(f"the crawl of {crawled_at:%Y-%m-%d %H:%M:%S} UTC registered {_days_text(registered)}")
        return Finding(tuple(evidence), measured, tuple(faults))

    def athena(self) -> Finding:
        """Take step 5: the everyday question of the newest day gives rows and reads no more than that day's files."""
        days = [values for values in self._partitions if values in self._files]
        if not days:
            return Finding((), {}, ("no registered partition with files to ask for",))
        day = days[-1]
        sql = representative_query(self._outputs.table_name, date(*(int(value) for value in day)))
        result = run_query(self._target, sql, self._reporter)
        day_bytes = sum(stored.size_bytes for stored in self._files[day])
        table_bytes = sum(stored.size_bytes for files in self._files.values() for stored in files)
        measured = {
            "day": partition_text(day),
            "rows": len(result.rows),
            "scanned_bytes": result.scanned_bytes,
            "partition_bytes": day_bytes,
            "table_bytes": table_bytes,
            "query_execution_id": result.execution_id,
        }
        faults = []
        if not result.rows:
            faults.append(f"no row for {partition_text(day)}")
        if result.scanned_bytes > day_bytes:
            faults.append("more than the partition was scanned")
        return Finding(
            (
                f"{len(result.rows):,} devices on {partition_text(day)}",
                f"{size_text(result.scanned_bytes)} scanned, of {size_text(day_bytes)} in the partition and "
                f"{size_text(table_bytes)} in the table",
            ),
            measured,
            tuple(faults),
        )

    def rerun(self) -> Finding:
        """Take step 6: the newest load read no more than what was written since the load before it had started."""
        job = self._target.glue.get_job(JobName=self._outputs.job_name)["Job"]
        option = job.get("DefaultArguments", {}).get(BOOKMARK_OPTION, "not set")
        faults = [] if option == BOOKMARK_ENABLED else [f"{BOOKMARK_OPTION} is {option}"]
        loads = list(islice((run for run in job_runs(self._target) if run.has_loaded), LOADS_COMPARED))
        if len(loads) < LOADS_COMPARED:
            return Finding((), {"bookmark": option}, (*faults, "fewer than two loads have succeeded"))
        newest, before = loads
        raw = list_objects(self._target.s3, self._outputs.raw_bucket_name, self._outputs.raw_prefix)
        # S3 tells the time of writing in whole seconds.
        started = before.started.replace(microsecond=0)
        older = [stored for stored in raw if stored.last_modified < started]
        since = [stored for stored in raw if started <= stored.last_modified <= (newest.completed or self._until)]
        lines_read = summary_of_run(self._target, newest.id)["counts"]["lines"]
        lines_since = (
            sum(map(len, read_lines(self._target.s3, self._outputs.raw_bucket_name, since))) if lines_read else 0
        )
        if not older:
            faults.append("no raw object is older than the load before the newest: there is nothing to leave alone")
        if lines_read > lines_since:
            faults.append(f"{lines_read - lines_since:,} lines were read that are in older objects")
        measured = {
            "bookmark": option,
            "run": newest.id,
            "run_before": before.id,
            "lines_read": lines_read,
            "objects_since": len(since),
            "objects_left_alone": len(older),
        }
        return Finding(
            (
                f"run {newest.id[:11]}… read {lines_read:,} lines; {len(since):,} objects are as new as the run before",
                f"{len(older):,} older objects were left alone",
            ),
            measured,
            tuple(faults),
        )

    def dead_letters(self) -> Finding:
        """Take step 7: rejects are kept with their reasons, and Athena sees as many."""
        outputs = self._outputs
        first, last = self._since.date(), self._until.date()
        found = read_rejects(self._target, first, last, self._reporter)
        letters = [reject for reject in found if reject.stage != FIREHOSE_STAGE]
        reasons = {reason: counts.total() for reason, counts in counts_by(letters, "reason").items()}
        # After the objects, which only become more.
        days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
        where = " OR ".join(f"(year = {day.year} AND month = {day.month} AND day = {day.day})" for day in days)
        seen = run_query(
            self._target,
            f"SELECT count(DISTINCT reject_id) FROM {outputs.rejected_table_name} WHERE {where}",  # noqa: S608
            self._reporter,
        ).single_number()
        faults = []
        if not letters:
            faults.append(f"no reject is kept under {first} to {last} (UTC): nothing shows that bad records are")
        if seen < len(letters):
            faults.append(f"Athena sees {seen:,} of them")
        return Finding(
            (
                f"{len(letters):,} distinct rejects by {len(reasons)} reasons: {counts_text(reasons) or 'none'}",
                f"{seen:,} in {outputs.rejected_table_name}; {len(found) - len(letters):,} parked by Firehose",
            ),
            {
                "rejects": len(letters),
                "by_reason": reasons,
                "seen_by_athena": seen,
                "parked_by_firehose": len(found) - len(letters),
            },
            tuple(faults),
        )


def _registered_by_a_crawl(
    crawls: Sequence[Mapping[str, Any]], made: Mapping[tuple[str, ...], datetime]
) -> tuple[list[tuple[str, ...]], datetime | None]:
    """Return the partitions that were made during the newest crawl that made any, and when that crawl began."""
    for crawl in crawls:
        # The catalog tells the time in whole seconds.
        begin, end = crawl["StartTime"].replace(microsecond=0), crawl["EndTime"]
        registered = sorted(values for values, at in made.items() if begin <= at <= end)
        if registered:
            return registered, crawl["StartTime"].astimezone(UTC)
    return [], None


def _run_text(run_id: str, counts: Mapping[str, int]) -> str:
    return f"run {run_id[:11]}…: {counts_text(counts)}"


def _days_text(days: Sequence[tuple[str, ...]]) -> str:
    shown = ", ".join(map(partition_text, days[:DAYS_SHOWN]))
    return shown if len(days) <= DAYS_SHOWN else f"{shown} and {len(days) - DAYS_SHOWN:,} more"
