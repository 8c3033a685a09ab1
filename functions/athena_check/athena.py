"""Asking Athena: several queries at once, one number each, within one time limit.

https://docs.aws.amazon.com/athena/latest/APIReference/API_StartQueryExecution.html and its neighbours.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from athena_check.checks import Check, CheckResult, judge_failure, judge_value
from athena_check.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_athena import AthenaClient
    from mypy_boto3_athena.type_defs import QueryExecutionTypeDef

_CLIENT_SETTINGS = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 5})
_POLL_SECONDS = 0.5
_UNFINISHED = ("QUEUED", "RUNNING")


@dataclass(frozen=True, slots=True)
class AthenaQueries:
    """Runs checks in a workgroup.

    Attributes:
        client: Athena client of the function's role.
        workgroup: workgroup; its configuration is enforced.
        database: database the queries' tables are in.
        timeout_seconds: how long all queries of one call may take together.
        sleep: waits for a number of seconds.
        clock: a clock that only goes forward, seconds.
    """

    client: "AthenaClient"
    workgroup: str
    database: str
    timeout_seconds: float
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def connect(cls, settings: Settings) -> "AthenaQueries":
        """Queries with a client of their own."""
        client = boto3.client("athena", config=_CLIENT_SETTINGS)
        return cls(client, settings.workgroup, settings.database, settings.query_timeout_seconds)

    def run(self, checks: Sequence[Check]) -> tuple[CheckResult, ...]:
        """Start all queries, wait for all, and judge their numbers; a query without a number is a failed check."""
        deadline = self.clock() + self.timeout_seconds
        started = [(check, self._start(check)) for check in checks]
        return tuple(self._finish(check, query_id, deadline) for check, query_id in started)

    def _start(self, check: Check) -> str:
        return self.client.start_query_execution(
            QueryString=check.query,
            QueryExecutionContext={"Database": self.database},
            WorkGroup=self.workgroup,
        )["QueryExecutionId"]

    def _finish(self, check: Check, query_id: str, deadline: float) -> CheckResult:
        execution = self._wait(query_id, deadline)
        status = execution.get("Status", {})
        state = status.get("State", "QUEUED")
        scanned_bytes = execution.get("Statistics", {}).get("DataScannedInBytes", 0)
        if state in _UNFINISHED:
            self.client.stop_query_execution(QueryExecutionId=query_id)
            return judge_failure(
                check, f"no answer within {self.timeout_seconds:g} s (query {query_id})", scanned_bytes
            )
        if state != "SUCCEEDED":
            reason = status.get("StateChangeReason", "no reason given")
            return judge_failure(check, f"{state}: {reason} (query {query_id})", scanned_bytes)
        number = self._read_number(query_id)
        if number is None:
            return judge_failure(check, f"the answer is no number (query {query_id})", scanned_bytes)
        return judge_value(check, number, scanned_bytes)

    def _wait(self, query_id: str, deadline: float) -> "QueryExecutionTypeDef":
        while True:
            execution = self.client.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
            if execution.get("Status", {}).get("State") not in _UNFINISHED or self.clock() >= deadline:
                return execution
            self.sleep(_POLL_SECONDS)

    def _read_number(self, query_id: str) -> float | None:
        # The first row of a SELECT's result is its header:
        # https://docs.aws.amazon.com/athena/latest/APIReference/API_GetQueryResults.html
        rows = self.client.get_query_results(QueryExecutionId=query_id, MaxResults=2)["ResultSet"]["Rows"]
        text = rows[1]["Data"][0].get("VarCharValue", "")  # none for NULL
        try:
            number = float(text)
        except ValueError:
            return None
        return int(number) if number.is_integer() else number if math.isfinite(number) else None
