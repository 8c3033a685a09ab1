"""What a stack costs with a given traffic, from the prices in ``prices.toml``: the worked example of the README.

It counts what grows with the traffic or is paid by the hour, and no free tier. Left out, because they are small or not
known beforehand: requests of the job and of Athena on S3, the pipe's requests on its queue, logs, messages, a key.
"""

from dataclasses import dataclass
from math import ceil

from telemetry_lake.prices import price

BYTES_OF_A_GIGABYTE = 2**30
SECONDS_OF_A_DAY = 86_400
SECONDS_OF_AN_HOUR = 3600

STATES_OF_A_LOAD = 10
"""States of the pipeline's machine that a load without a crawl enters."""

CHECKS_OF_A_LOAD = 6
"""Queries that Athena is asked after a load of readings."""

ALARM_METRICS = 39
"""Metrics of the template's alarms; one with a formula is billed for each metric in it (AWS's answer, quoted in
https://github.com/oscmcompany/fund/pull/1158). The three composite alarms are left out."""

CUSTOM_METRICS = 50
"""Metrics of our own, each with its dimensions, once every check has run and most reasons have been seen."""

TRANSFORM_SECONDS = 60
"""Firehose hands the transform a batch as often as this: ``TransformBufferIntervalSeconds``."""

TRANSFORM_GIGABYTES = 1.0
"""Its memory."""

RAW_OBJECT_SECONDS = 60
"""And writes a raw object as often as this: ``RawBufferIntervalSeconds``."""


@dataclass(frozen=True)
class Traffic:
    """Readings that arrive evenly.

    Attributes:
        devices: how many send.
        seconds_between_readings: of one device.
        readings_in_a_record: how many go in one record on the stream (``tlake produce --pack``).
        reading_bytes: of one reading in JSON, with the comma after it.
        days: how long.
    """

    devices: int
    seconds_between_readings: float
    readings_in_a_record: int
    reading_bytes: int
    days: int

    @property
    def readings(self) -> float:
        """All of them."""
        return self.devices * self.days * SECONDS_OF_A_DAY / self.seconds_between_readings

    @property
    def records(self) -> float:
        """Records on the stream."""
        return self.readings / self.readings_in_a_record

    def gigabytes(self, rounded_up_to_bytes: int) -> float:
        """Return what is billed if each record counts in whole units of some bytes."""
        units = ceil(self.readings_in_a_record * self.reading_bytes / rounded_up_to_bytes)
        return self.records * units * rounded_up_to_bytes / BYTES_OF_A_GIGABYTE


def run_cost() -> float:
    """Return what a run of the job costs at least, in US dollars."""
    return _dpu_seconds(price("glue_job_minimum_seconds").value)


def crawl_cost() -> float:
    """Return what a crawl costs at least, in US dollars, with as many DPUs as a job."""
    return _dpu_seconds(price("glue_crawl_minimum_seconds").value)


def query_cost() -> float:
    """Return what a query costs at least, in US dollars."""
    return price("athena_terabyte").value * price("athena_query_minimum_megabytes").value / 1_000_000


def _dpu_seconds(seconds: float) -> float:
    return price("glue_dpu_hour").value * price("glue_job_minimum_dpu").value * seconds / SECONDS_OF_AN_HOUR


def costs(traffic: Traffic, runs_a_day: int) -> dict[str, float]:
    """Return what each service costs, in US dollars.

    Args:
        traffic: what is sent.
        runs_a_day: loads, each billed as the least that a run can be; the catalog is behind once a day.
    """
    days, seconds = traffic.days, traffic.days * SECONDS_OF_A_DAY
    runs, batches = runs_a_day * days, seconds / TRANSFORM_SECONDS
    stream_gigabytes = traffic.gigabytes(int(price("kinesis_record_unit_bytes").value))
    firehose_gigabytes = traffic.gigabytes(int(price("firehose_record_unit_bytes").value))
    return {
        "Kinesis": price("kinesis_stream_hour").value * seconds / SECONDS_OF_AN_HOUR
        + (price("kinesis_gigabyte_in").value + price("kinesis_gigabyte_out").value) * stream_gigabytes,
        "Firehose": price("firehose_gigabyte").value * firehose_gigabytes,
        # A second for each batch, which is more than it takes.
        "Lambda": price("lambda_million_requests").value * batches / 1_000_000
        + price("lambda_gigabyte_second").value * TRANSFORM_GIGABYTES * batches,
        # The readings as they were sent, for a whole month: Parquet and the raw objects, both compressed, are less.
        "S3": price("s3_thousand_puts").value * seconds / RAW_OBJECT_SECONDS / 1000
        + price("s3_gigabyte_month").value * traffic.gigabytes(1),
        "Glue": run_cost() * runs + crawl_cost() * days,
        "Step Functions": price("states_thousand_transitions").value * STATES_OF_A_LOAD * runs / 1000,
        "Athena": query_cost() * CHECKS_OF_A_LOAD * runs,
        "CloudWatch": price("cloudwatch_metric_month").value * CUSTOM_METRICS
        + price("cloudwatch_alarm_metric_month").value * ALARM_METRICS
        + price("cloudwatch_dashboard_month").value,
    }
