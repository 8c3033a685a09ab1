"""Ask the services what the stack has done in a period."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from telemetry_lake.checklist import Step
from telemetry_lake.console import Reporter
from telemetry_lake.metrics import Metric, Point, points_of
from telemetry_lake.pipeline import Execution, StoredObject, list_executions, list_objects, read_summaries
from telemetry_lake.rejects import read_rejects
from telemetry_lake.report.dashboard import Plot, Search, Widget, alarms_shown, metric_widgets
from telemetry_lake.target import Target

NEWEST_EXECUTIONS = 50
NEWEST_QUERIES = 50
POINTS_A_SERIES = 1440
ALARMS_A_REQUEST = 100
MINUTE_SECONDS = 60
OWN_NAMESPACE = "TelemetryLake"


@dataclass(frozen=True)
class Period:
    """A stretch of time, both ends in UTC."""

    start: datetime
    end: datetime

    @classmethod
    def until(cls, end: datetime, hours: float) -> "Period":
        """Return the hours that end at ``end``."""
        return cls(end - timedelta(hours=hours), end)

    def holds(self, moment: datetime) -> bool:
        """Tell whether a moment belongs to it."""
        return self.start <= moment <= self.end

    def seconds_per_point(self, wanted: int) -> int:
        """Return the seconds that a data point covers: those wanted, or more minutes where the period is long."""
        most = (self.end - self.start).total_seconds() / POINTS_A_SERIES
        return max(wanted, MINUTE_SECONDS * -int(-most // MINUTE_SECONDS))


@dataclass(frozen=True)
class Series:
    """The values of a metric over time, and how they are drawn."""

    plot: Plot
    points: tuple[Point, ...]


@dataclass(frozen=True)
class DrawnWidget:
    """A widget of the dashboard with what its metrics said."""

    title: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class AlarmState:
    """An alarm: its state (``OK``, ``ALARM`` or ``INSUFFICIENT_DATA``), since when, and why in CloudWatch's words."""

    name: str
    state: str
    since: datetime
    reason: str


@dataclass(frozen=True)
class PartitionFiles:
    """The files of a partition, by its day as a date."""

    day: str
    files: int
    size_bytes: int


@dataclass(frozen=True)
class Query:
    """A query of the stack's workgroup."""

    execution_id: str
    sql: str
    state: str
    submitted: datetime
    scanned_bytes: int


@dataclass(frozen=True)
class Evidence:
    """What a stack did in a period.

    Attributes:
        place: which stack, and where, for a person.
        period: when.
        checklist: the seven steps of the way of a reading.
        throughput: readings accepted and rejected by the transform, a minute.
        delivery_ages: how old the oldest reading was that Firehose delivered, in seconds.
        rejects_by_reason: the distinct rejects of the period's days, UTC.
        runs: the summaries of the job's runs that ended in the period, the earliest first.
        executions: the newest that started in it, the newest first.
        raw_bytes: what Firehose wrote to the raw zone in the period, compressed.
        partitions: all of the table's, the earliest day first.
        queries: the newest of the workgroup in the period, the earliest first.
        widgets: the dashboard's that draw metrics.
        alarms: those that the dashboard shows.
    """

    place: str
    period: Period
    checklist: Sequence[Step]
    throughput: tuple[Series, ...]
    delivery_ages: Series
    rejects_by_reason: Mapping[str, int]
    runs: Sequence[Mapping[str, Any]]
    executions: Sequence[Execution]
    raw_bytes: int
    partitions: Sequence[PartitionFiles]
    queries: Sequence[Query]
    widgets: Sequence[DrawnWidget]
    alarms: Sequence[AlarmState]


def collect(target: Target, period: Period, checklist: Sequence[Step], reporter: Reporter) -> Evidence:
    """Ask the services, with progress; the checklist was walked before."""
    outputs = target.outputs
    with reporter.step("Reading CloudWatch's metrics") as step:
        body = target.cloudwatch.get_dashboard(DashboardName=outputs.dashboard_name)["DashboardBody"]
        widgets = metric_widgets(body, lambda search: find_metrics(target, search))
        throughput, age = own_plots(outputs.stage, outputs.delivery_stream_name)
        wanted = [*throughput, age, *(plot for widget in widgets for plot in widget.plots)]
        series = iter(read_series(target, wanted, period))
        throughput_series = tuple(islice(series, len(throughput)))
        (age_series,) = islice(series, 1)
        alarms = read_alarms(target, alarms_shown(body))
        step.update(note=f"{len(wanted):,} metrics")
    rejects = read_rejects(target, period.start.date(), period.end.date(), reporter)
    with reporter.step("Reading run summaries and executions"):
        runs = read_summaries(target, since=period.start)
        executions = [each for each in list_executions(target, NEWEST_EXECUTIONS) if period.holds(each.started)]
    with reporter.step("Listing the table and the raw zone"):
        table = list_objects(target.s3, outputs.analytics_bucket_name, outputs.curated_prefix)
        raw_bytes = sum(stored.size_bytes for stored in _raw_objects(target, period))
    with reporter.step("Reading Athena's history"):
        queries = sorted(_queries(target, period), key=lambda query: query.submitted)
    return Evidence(
        place=target.description,
        period=period,
        checklist=checklist,
        throughput=throughput_series,
        delivery_ages=age_series,
        rejects_by_reason=Counter(reject.reason for reject in rejects),
        runs=runs,
        executions=executions,
        raw_bytes=raw_bytes,
        partitions=partition_files(table, outputs.curated_prefix),
        queries=queries,
        widgets=[_drawn(widget, series) for widget in widgets],
        alarms=alarms,
    )


def _drawn(widget: Widget, series: Iterator[Series]) -> DrawnWidget:
    return DrawnWidget(widget.title, tuple(islice(series, len(widget.plots))))


def own_plots(stage: str, delivery_stream_name: str) -> tuple[list[Plot], Plot]:
    """Return what is drawn beside the dashboard: readings by verdict, and Firehose's age of the oldest reading.

    https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-metrics.html
    """
    verdicts = {"ReadingsAccepted": "accepted", "ReadingsRejected": "rejected"}
    throughput = [
        Plot(Metric(OWN_NAMESPACE, name, {"Stage": stage}, "Sum", MINUTE_SECONDS), label)
        for name, label in verdicts.items()
    ]
    stream = {"DeliveryStreamName": delivery_stream_name}
    age = Metric("AWS/Firehose", "DeliveryToS3.DataFreshness", stream, "Maximum", MINUTE_SECONDS)
    return throughput, Plot(age, "delivered (oldest)")


def read_series(target: Target, plots: Sequence[Plot], period: Period) -> list[Series]:
    """Return what each plot draws, in the order of the plots."""
    metrics = [
        replace(plot.metric, period_seconds=period.seconds_per_point(plot.metric.period_seconds)) for plot in plots
    ]
    points = points_of(target, metrics, period.start, period.end)
    return [Series(plot, tuple(each)) for plot, each in zip(plots, points, strict=True)]


def find_metrics(target: Target, search: Search) -> list[Metric]:
    """Return the metrics that a search stands for, by the values of their dimensions.

    CloudWatch lists those with values in the past two weeks:
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_ListMetrics.html
    """
    pages = target.cloudwatch.get_paginator("list_metrics").paginate(
        Namespace=search.namespace,
        MetricName=search.name,
        Dimensions=[{"Name": name, "Value": value} for name, value in search.values.items()],
    )
    listed = [
        {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
        for page in pages
        for metric in page["Metrics"]
    ]
    found = [dimensions for dimensions in listed if dimensions.keys() == set(search.dimension_names)]
    return [
        Metric(search.namespace, search.name, dimensions, search.statistic, search.period_seconds)
        for dimensions in sorted(found, key=lambda dimensions: sorted(dimensions.items()))
    ]


def read_alarms(target: Target, names: Sequence[str]) -> list[AlarmState]:
    """Return the states of alarms, metric and composite ones, in the order of their names here.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html: 100 names at most.
    """
    found: dict[str, AlarmState] = {}
    for start in range(0, len(names), ALARMS_A_REQUEST):
        answer = target.cloudwatch.describe_alarms(
            AlarmNames=names[start : start + ALARMS_A_REQUEST], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
        )
        for alarm in (*answer["MetricAlarms"], *answer["CompositeAlarms"]):
            since = alarm["StateUpdatedTimestamp"].astimezone(UTC)
            state = AlarmState(alarm["AlarmName"], alarm["StateValue"], since, alarm.get("StateReason", ""))
            found[state.name] = state
    return [found[name] for name in names if name in found]


def _raw_objects(target: Target, period: Period) -> Iterator[StoredObject]:
    """Yield the raw objects of the period; Firehose names their folders by the UTC hour of arrival.

    https://docs.aws.amazon.com/firehose/latest/dev/s3-object-name.html
    """
    outputs = target.outputs
    day = period.start.date()
    while day <= period.end.date():
        for stored in list_objects(target.s3, outputs.raw_bucket_name, f"{outputs.raw_prefix}{day:%Y/%m/%d}/"):
            if period.holds(stored.last_modified):
                yield stored
        day += timedelta(days=1)


def partition_files(objects: Iterable[StoredObject], table_prefix: str) -> list[PartitionFiles]:
    """Return how many files each partition has, from keys like ``<table>/year=2025/month=10/day=5/<file>.parquet``."""
    files: Counter[tuple[int, ...]] = Counter()
    sizes: Counter[tuple[int, ...]] = Counter()
    for stored in objects:
        *folders, name = stored.key.removeprefix(table_prefix).split("/")
        if not name.endswith(".parquet"):
            continue
        day = tuple(int(folder.partition("=")[2]) for folder in folders)
        files[day] += 1
        sizes[day] += stored.size_bytes
    return [PartitionFiles("-".join(f"{part:02}" for part in day), files[day], sizes[day]) for day in sorted(files)]


def _queries(target: Target, period: Period) -> Iterator[Query]:
    """Yield the newest queries of the workgroup, the newest first.

    https://docs.aws.amazon.com/athena/latest/APIReference/API_ListQueryExecutions.html
    """
    pages = target.athena.get_paginator("list_query_executions").paginate(
        WorkGroup=target.outputs.work_group_name, PaginationConfig={"MaxItems": NEWEST_QUERIES}
    )
    for execution_id in (each for page in pages for each in page.get("QueryExecutionIds", ())):
        execution = target.athena.get_query_execution(QueryExecutionId=execution_id)["QueryExecution"]
        submitted = execution["Status"]["SubmissionDateTime"]
        if not period.holds(submitted.astimezone(UTC)):
            return
        yield Query(
            execution_id=execution_id,
            sql=execution["Query"],
            state=execution["Status"]["State"],
            submitted=submitted.astimezone(UTC),
            scanned_bytes=execution.get("Statistics", {}).get("DataScannedInBytes", 0),
        )
