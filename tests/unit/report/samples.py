"""The evidence of an invented day, with every kind of thing in it; also what the browser is shown."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from telemetry_lake.checklist import Finding, Step
from telemetry_lake.metrics import Metric
from telemetry_lake.pipeline import Execution
from telemetry_lake.report.dashboard import Plot
from telemetry_lake.report.evidence import AlarmState, DrawnWidget, Evidence, PartitionFiles, Period, Query, Series

END = datetime(2026, 10, 15, 12, 0, tzinfo=UTC)
STEPS = ("plan", "read", "judge", "stage", "publish", "summary")
HOSTILE = "</script><script>alert('x')</script>"
RUNS = 12


def plot(name: str, label: str | None = None, *, right: bool = False) -> Plot:
    return Plot(Metric("TelemetryLake", name, {"Stage": "prod"}, "Sum", 60), label or name, right)


def series(name: str, height: float, label: str | None = None, *, right: bool = False, minutes: int = 240) -> Series:
    points = tuple(
        (END - timedelta(minutes=minutes - minute), round(height * (1 + math.sin(minute / 25) / 3), 1))
        for minute in range(minutes)
    )
    return Series(plot(name, label, right=right), points)


def run(number: int, new: int = 5000) -> dict[str, Any]:
    started = END - timedelta(minutes=20 * (RUNS - number))
    finished = started + timedelta(seconds=41)
    return {
        "job_run_id": f"jr_{number}",
        "mode": "audit" if number == RUNS - 1 else "load",
        "started_at": started.isoformat().replace("+00:00", "Z"),
        "finished_at": finished.isoformat().replace("+00:00", "Z"),
        "counts": {"lines": new + 7, "new": new, "duplicate": 5, "rejected": 2},
        "event_time": {"min": None, "max": (finished - timedelta(seconds=130 + number)).isoformat() if new else None},
        "seconds_by_step": {step: 1.5 + number / 4 + place for place, step in enumerate(STEPS)},
    }


def execution(number: int, status: str = "SUCCEEDED") -> Execution:
    started = END - timedelta(minutes=20 * number + 1)
    return Execution(
        arn=f"arn:{number}",
        name=f"7c1e{number:04}-a6f4-41b5-b3a2-3c47b2f1b7ad",
        status=status,
        trigger="pipe",
        object_keys=("a.gz", "b.gz"),
        started=started,
        stopped=started + timedelta(seconds=55.25),
        error="",
        cause="",
        output="",
    )


def step(number: int, *faults: str) -> Step:
    evidence = (f"{number * 1000:,} records by IncomingRecords in 24 h", "0 throttled")
    return Step(number, f"step number {number} works", Finding(evidence, {}, faults), "tlake status")


def query(number: int, scanned_bytes: int) -> Query:
    return Query(
        execution_id=f"{number:08}-1111-2222-3333-444455556666",
        sql="SELECT device_id, AVG(temperature) AS avg_temp\nFROM device_telemetry\nWHERE year=2026 AND month=10",
        state="SUCCEEDED",
        submitted=END - timedelta(minutes=90 - number),
        scanned_bytes=scanned_bytes,
    )


def evidence(**changes: Any) -> Evidence:
    """A day on which everything happened; ``changes`` replace attributes."""
    whole = Evidence(
        place="stack telemetry-lake at AWS in ap-northeast-1",
        period=Period.until(END, 24),
        checklist=[step(number, *(["no reject is kept"] if number == 7 else [])) for number in range(1, 8)],
        throughput=(series("ReadingsAccepted", 250, "accepted"), series("ReadingsRejected", 4, "rejected")),
        delivery_ages=series("DeliveryToS3.DataFreshness", 61, "delivered (oldest)"),
        rejects_by_reason={
            "wrong_type": 120,
            "missing_field": 33,
            "temperature_out_of_range": 1045,
            "timestamp_in_future": 7,
            HOSTILE: 1,
        },
        runs=[run(number) for number in range(RUNS)],
        executions=[execution(number, "FAILED" if number == 3 else "SUCCEEDED") for number in range(14)],
        raw_bytes=3_412_007,
        partitions=[PartitionFiles(f"2026-10-{day:02}", 1 + day % 4, 217_003 + day) for day in range(1, 16)],
        queries=[query(number, 29_912 * (1 + number % 5)) for number in range(9)],
        widgets=[
            DrawnWidget(
                "1 Stream: readings arrive, nothing is throttled",
                (series("IncomingRecords", 250), series("WriteProvisionedThroughputExceeded", 0.0)),
            ),
            DrawnWidget(
                "2 Transform: no errors, far from its time limit",
                (series("Errors", 0), series("Duration", 41.5, right=True)),
            ),
            DrawnWidget("3 Firehose: every delivery succeeds (1)", (Series(plot("DeliveryToS3.Success"), ()),)),
            DrawnWidget(
                "6 Checks: scanned bytes follow the batch", (series("CheckScannedBytes", 213_000_000, minutes=1),)
            ),
        ],
        alarms=[
            AlarmState("temperature-runs-fail", "OK", END - timedelta(hours=3), "Threshold Crossed: 0 < 1"),
            AlarmState("temperature-data-is-late", "ALARM", END - timedelta(minutes=7), HOSTILE),
        ],
    )
    return replace(whole, **changes)


def evidence_of_nothing() -> Evidence:
    """A stack that has just been deployed."""
    empty = Series(plot("x"), ())
    return evidence(
        throughput=(empty, empty),
        delivery_ages=empty,
        rejects_by_reason={},
        checklist=[],
        runs=[],
        executions=[],
        raw_bytes=0,
        partitions=[],
        queries=[],
        widgets=[DrawnWidget("1 Stream", (empty,))],
        alarms=[],
    )
