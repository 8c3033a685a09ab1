"""The API calls about query executions, and what happens to a query between QUEUED and its end.

https://docs.aws.amazon.com/athena/latest/APIReference/API_StartQueryExecution.html
"""

import contextvars
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from botocore.exceptions import ClientError

from telemetry_lake.local import seams
from telemetry_lake.local.athena import dialect, engine, results, statements
from telemetry_lake.local.athena.access import Caller
from telemetry_lake.local.athena.catalog import Catalog
from telemetry_lake.local.athena.errors import InvalidRequestError, QueryCancelledError, QueryFailedError
from telemetry_lake.local.athena.predicates import scan_predicates
from telemetry_lake.local.athena.results import ResultColumn
from telemetry_lake.local.athena.scan import PlannedScan, Pruner, plan_scan
from telemetry_lake.local.athena.storage import ObjectStore, StoredObject, split_location
from telemetry_lake.local.athena.values import column_type
from telemetry_lake.local.endpoint import Endpoint

_CONCURRENT_QUERIES = 4
_MAXIMUM_PAGE_ROWS = 1000
_ENGINE_VERSION = {
    "SelectedEngineVersion": "AUTO",
    "EffectiveEngineVersion": "Athena engine version 3",
}
_FINAL_STATES = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
_COLUMNS_KEY = "_columns"

logger = logging.getLogger("telemetry_lake.local.athena")


@dataclass
class _Run:
    """A query that is queued or running: how to stop it, and what it has done so far."""

    execution: dict[str, Any]
    sql: str
    database: str
    caller: Caller
    workgroup: Mapping[str, Any]
    submitted: float = field(default_factory=time.monotonic)
    stopped: threading.Event = field(default_factory=threading.Event)
    connection: duckdb.DuckDBPyConnection | None = None
    planning_seconds: float = 0.0

    def raise_if_stopped(self) -> None:
        if self.stopped.is_set():
            raise QueryCancelledError("Query cancelled by user")


class QueryService:
    """Replaces MiniStack's handling of query executions; everything else of its Athena stays."""

    def __init__(self, endpoint: Endpoint) -> None:
        from ministack.services import athena

        self._endpoint = endpoint
        self._athena = athena
        self._runs: dict[str, _Run] = {}
        self._tokens: dict[str, tuple[str, tuple[Any, ...]]] = {}
        self._executor = ThreadPoolExecutor(_CONCURRENT_QUERIES, thread_name_prefix="athena-query")

    def close(self) -> None:
        """Stop the queries that run."""
        for run in list(self._runs.values()):
            self._stop(run)
        self._executor.shutdown(wait=True, cancel_futures=True)

    def fail_interrupted(self) -> None:
        """Fail the executions that a restart has interrupted: nothing would ever end them."""
        for execution in list(self._executions().values()):
            if execution["Status"]["State"] not in _FINAL_STATES:
                self._end(execution, "FAILED", "The embedded endpoint was stopped while the query ran")

    # -- API ----------------------------------------------------------------------------------------------------------

    def start_query_execution(self, data: Mapping[str, Any]) -> Any:
        """StartQueryExecution."""
        return self._answer(self._start, data)

    def get_query_results(self, data: Mapping[str, Any]) -> Any:
        """GetQueryResults."""
        return self._answer(self._results, data)

    def get_query_execution(self, data: Mapping[str, Any]) -> Any:
        """GetQueryExecution."""

        def get(request: Mapping[str, Any]) -> dict[str, Any]:
            execution = self._execution(request)
            return {"QueryExecution": seams.require(self._athena, "_execution_out")(execution)}

        return self._answer(get, data)

    def stop_query_execution(self, data: Mapping[str, Any]) -> Any:
        """StopQueryExecution."""

        def stop(request: Mapping[str, Any]) -> dict[str, Any]:
            execution = self._execution(request)
            run = self._runs.get(execution["QueryExecutionId"])
            if run is not None and execution["Status"]["State"] not in _FINAL_STATES:
                self._end(execution, "CANCELLED", "Query cancelled by user")
                self._stop(run)
            return {}

        return self._answer(stop, data)

    def _answer(self, handler: Callable[[Mapping[str, Any]], dict[str, Any]], data: Mapping[str, Any]) -> Any:
        from ministack.core.responses import error_response_json, json_response

        try:
            return json_response(handler(data))
        except InvalidRequestError as error:
            return error_response_json(
                "InvalidRequestException", error.message, 400, extra={"AthenaErrorCode": error.athena_error_code}
            )

    def _executions(self) -> Any:
        return seams.require(self._athena, "_executions")

    def _execution(self, data: Mapping[str, Any]) -> dict[str, Any]:
        execution: dict[str, Any] | None = self._executions().get(data.get("QueryExecutionId"))
        if execution is None:
            raise InvalidRequestError(
                f"QueryExecution {data.get('QueryExecutionId')} was not found", "QUERY_EXECUTION_NOT_FOUND"
            )
        return execution

    # -- Start --------------------------------------------------------------------------------------------------------

    def _start(self, data: Mapping[str, Any]) -> dict[str, Any]:
        sql = str(data.get("QueryString", "")).strip().rstrip(";").rstrip()
        context = data.get("QueryExecutionContext") or {}
        caller = Caller.of_request(self._endpoint)
        token = data.get("ClientRequestToken")
        fingerprint = (sql, context.get("Catalog"), context.get("Database"), str(data.get("ResultConfiguration")))
        if token in self._tokens:
            known_id, known_fingerprint = self._tokens[token]
            if known_fingerprint != fingerprint:
                raise InvalidRequestError("Idempotent parameters do not match", "IDEMPOTENT_PARAMETER_MISMATCH")
            return {"QueryExecutionId": known_id}
        workgroup = self._workgroup(data.get("WorkGroup", "primary"))
        result_configuration = _result_configuration(data, workgroup)
        self._check_output_bucket(caller, result_configuration["OutputLocation"])
        parameters = list(data.get("ExecutionParameters") or [])
        is_query = statements.first_word(sql) in statements.QUERY_WORDS
        if is_query:
            dialect.parse_query(sql)
        else:
            statements.check_at_start(sql)
        execution_id = str(uuid.uuid4())
        execution = {
            "QueryExecutionId": execution_id,
            "Query": sql,
            "StatementType": statements.statement_type(sql),
            **({"SubstatementType": "SELECT"} if is_query else {}),
            "ResultConfiguration": {
                **result_configuration,
                "OutputLocation": f"{result_configuration['OutputLocation'].rstrip('/')}/{execution_id}"
                + (".csv" if is_query else ".txt"),
            },
            "ResultReuseConfiguration": {"ResultReuseByAgeConfiguration": {"Enabled": False}},
            "QueryExecutionContext": {
                **({"Database": context["Database"]} if "Database" in context else {}),
                **({"Catalog": context["Catalog"].lower()} if "Catalog" in context else {}),
            },
            "Status": {"State": "QUEUED", "SubmissionDateTime": round(time.time(), 3)},
            "EngineVersion": dict(_ENGINE_VERSION),
            **({"ExecutionParameters": parameters} if parameters else {}),
            "Statistics": {"ResultReuseInformation": {"ReusedPreviousResult": False}},
            "WorkGroup": workgroup["Name"],
        }
        self._executions()[execution_id] = execution
        if token:
            self._tokens[token] = (execution_id, fingerprint)
        run = _Run(execution, sql, str(context.get("Database", "default")).lower(), caller, workgroup)
        self._runs[execution_id] = run
        self._executor.submit(contextvars.copy_context().run, self._run, run, parameters)
        return {"QueryExecutionId": execution_id}

    def _workgroup(self, name: str) -> dict[str, Any]:
        workgroup: dict[str, Any] | None = seams.require(self._athena, "_workgroups").get(name)
        if workgroup is None:
            raise InvalidRequestError("WorkGroup is not found.")
        if workgroup.get("State") == "DISABLED":
            raise InvalidRequestError(f"WorkGroup {name} is disabled.")
        return workgroup

    def _check_output_bucket(self, caller: Caller, output_location: str) -> None:
        """Athena looks for the bucket of the results before it starts a query (error text as observed)."""
        from ministack.services import s3

        try:
            bucket, _ = split_location(output_location)
        except QueryFailedError as error:
            raise InvalidRequestError("outputLocation is not a valid S3 path.") from error
        exists = seams.require(s3, "_buckets").get(bucket) is not None
        if not exists or caller.denial("s3:GetBucketLocation", f"arn:aws:s3:::{bucket}"):
            raise InvalidRequestError(f"Unable to verify/create output bucket {bucket}")

    # -- Run ----------------------------------------------------------------------------------------------------------

    def _run(self, run: _Run, parameters: list[str]) -> None:
        execution = run.execution
        if execution["Status"]["State"] != "QUEUED":
            self._finish(run, 0.0)
            return
        queue_seconds = time.monotonic() - run.submitted
        execution["Status"]["State"] = "RUNNING"
        self._publish_state(execution, "QUEUED")
        try:
            with tempfile.TemporaryDirectory(prefix="athena-") as scratch:
                self._execute(run, parameters, Path(scratch))
            run.raise_if_stopped()
            self._end(execution, "SUCCEEDED", None)
        except QueryCancelledError as cancelled:
            self._end(execution, "CANCELLED", str(cancelled))
        except QueryFailedError as failure:
            self._fail(run, failure)
        except Exception as error:
            logger.exception("The query %s failed inside of the endpoint", execution["QueryExecutionId"])
            self._fail(run, QueryFailedError("GENERIC_INTERNAL_ERROR", f"{type(error).__name__}: {error}"))
        finally:
            self._finish(run, queue_seconds)

    def _fail(self, run: _Run, failure: QueryFailedError) -> None:
        if run.stopped.is_set():
            return
        self._end(run.execution, "FAILED", str(failure), failure.athena_error())

    def _execute(self, run: _Run, parameters: list[str], scratch: Path) -> None:
        catalog = Catalog(run.caller)
        store = ObjectStore(run.caller, scratch)
        if statements.first_word(run.sql) in statements.QUERY_WORDS:
            self._execute_query(run, dialect.bind_parameters(run.sql, parameters), catalog, store, scratch)
            return
        output = statements.run(
            statements.Statement(
                run.sql,
                run.database,
                run.caller,
                catalog,
                store,
                lambda sql, database: self._describe_query(sql, database, catalog),
            )
        )
        run.execution["Statistics"]["DataScannedInBytes"] = 0
        path = scratch / "result.txt"
        path.write_text("\n".join(output.lines))
        self._store_result(run, path, output.columns)

    def _execute_query(self, run: _Run, sql: str, catalog: Catalog, store: ObjectStore, scratch: Path) -> None:
        started = time.monotonic()
        analysis = dialect.analyze(
            dialect.parse_query(sql), sql, run.database, catalog.find_table, catalog.has_database
        )
        tree = dialect.to_duckdb(analysis.tree)
        planner = engine.connect()
        try:
            pruner = Pruner(planner)
            predicates = scan_predicates(tree, analysis.scans, pruner.evaluate)
            plans: dict[str, PlannedScan] = {}
            for name, scan in analysis.scans.items():
                run.raise_if_stopped()
                plans[name] = plan_scan(scan, predicates[name].conditions, catalog, store, pruner)
        finally:
            planner.close()
        run.planning_seconds = time.monotonic() - started
        self._account_scan(run, sum(plan.scanned_bytes for plan in plans.values()))
        files = sorted({file.local_path for plan in plans.values() for file in plan.files})
        connection = engine.connect(files, scratch)
        run.connection = connection
        path = scratch / "result.csv"
        try:
            for name, plan in plans.items():
                connection.execute(f"CREATE TEMP VIEW {name} AS {plan.relation_sql}")
            relation = connection.sql(dialect.duckdb_sql(tree))
            with path.open("wb") as file:
                columns = results.write_csv(relation, analysis.output_names, file)
        except duckdb.Error as error:
            failure = engine.failure(error, sql)
            raise _with_object_names(failure, plans.values()) from error
        finally:
            run.connection = None
            connection.close()
        run.raise_if_stopped()
        self._store_result(run, path, columns)

    def _account_scan(self, run: _Run, scanned_bytes: int) -> None:
        """Note what the query reads; a query over the workgroup's limit is cancelled at the limit.

        https://docs.aws.amazon.com/athena/latest/ug/workgroups-setting-control-limits-cloudwatch.html
        """
        limit = (run.workgroup.get("Configuration") or {}).get("BytesScannedCutoffPerQuery")
        run.execution["Statistics"]["DataScannedInBytes"] = scanned_bytes
        if limit is not None and scanned_bytes > int(limit):
            run.execution["Statistics"]["DataScannedInBytes"] = int(limit)
            raise QueryCancelledError("Bytes scanned limit was exceeded")

    def _describe_query(self, sql: str, database: str, catalog: Catalog) -> list[tuple[str, str]]:
        """Return the columns of a query's result without reading any object: its scans are empty."""
        try:
            parsed = dialect.parse_query(sql)
        except InvalidRequestError as error:
            raise QueryFailedError("SYNTAX_ERROR", str(error)) from error
        analysis = dialect.analyze(parsed, sql, database, catalog.find_table, catalog.has_database)
        connection = engine.connect()
        try:
            for name, scan in analysis.scans.items():
                columns = [
                    f'CAST(NULL AS {column.type.duckdb()}) AS "{column.name}"'
                    for column in (*scan.table.columns, *scan.table.partition_keys)
                ]
                connection.execute(
                    f"CREATE TEMP VIEW {name} AS SELECT {', '.join(columns)}, CAST(NULL AS VARCHAR) AS "
                    f'"{dialect.PATH_COLUMN}" WHERE FALSE'
                )
            relation = connection.sql(dialect.duckdb_sql(dialect.to_duckdb(analysis.tree)))
            types = [_trino_name(str(kind)) for kind in relation.types]
        except duckdb.Error as error:
            raise engine.failure(error, sql) from error
        finally:
            connection.close()
        return list(zip(analysis.output_names, types, strict=True))

    # -- End ----------------------------------------------------------------------------------------------------------

    def _end(
        self, execution: dict[str, Any], state: str, reason: str | None, error: dict[str, object] | None = None
    ) -> None:
        status = execution["Status"]
        if status["State"] in _FINAL_STATES:
            return
        previous = status["State"]
        if reason is not None:
            status["StateChangeReason"] = reason
        if error is not None:
            status["AthenaError"] = error
        status["CompletionDateTime"] = round(time.time(), 3)
        status["State"] = state
        self._publish_state(execution, previous)

    def _stop(self, run: _Run) -> None:
        run.stopped.set()
        connection = run.connection
        if connection is not None:
            connection.interrupt()

    def _finish(self, run: _Run, queue_seconds: float) -> None:
        execution = run.execution
        statistics = execution["Statistics"]
        total = time.monotonic() - run.submitted
        statistics.setdefault("DataScannedInBytes", 0)
        statistics["QueryQueueTimeInMillis"] = round(queue_seconds * 1000)
        statistics["QueryPlanningTimeInMillis"] = round(run.planning_seconds * 1000)
        statistics["EngineExecutionTimeInMillis"] = max(1, round((total - queue_seconds) * 1000))
        statistics["TotalExecutionTimeInMillis"] = max(1, round(total * 1000))
        statistics["ServicePreProcessingTimeInMillis"] = 0
        statistics["ServiceProcessingTimeInMillis"] = 0
        self._runs.pop(execution["QueryExecutionId"], None)
        self._put_metrics(run)

    def _put_metrics(self, run: _Run) -> None:
        """https://docs.aws.amazon.com/athena/latest/ug/query-metrics-viewing.html ."""
        execution, statistics = run.execution, run.execution["Statistics"]
        configuration = run.workgroup.get("Configuration") or {}
        if not _is_true(configuration.get("PublishCloudWatchMetricsEnabled", False)):
            return
        dimensions = {
            "QueryState": execution["Status"]["State"],
            "QueryType": execution["StatementType"],
            "WorkGroup": execution["WorkGroup"],
        }
        values = {
            "TotalExecutionTime": statistics["TotalExecutionTimeInMillis"],
            "EngineExecutionTime": statistics["EngineExecutionTimeInMillis"],
            "QueryQueueTime": statistics["QueryQueueTimeInMillis"],
            "QueryPlanningTime": statistics["QueryPlanningTimeInMillis"],
            "ServiceProcessingTime": statistics["ServiceProcessingTimeInMillis"],
        }
        for name, value in values.items():
            self._endpoint.put_metric("AWS/Athena", name, float(value), "Milliseconds", dimensions)
        if execution["StatementType"] == "DML":
            scanned_bytes = float(statistics["DataScannedInBytes"])
            self._endpoint.put_metric("AWS/Athena", "ProcessedBytes", scanned_bytes, "Bytes", dimensions)

    def _publish_state(self, execution: Mapping[str, Any], previous: str) -> None:
        """https://docs.aws.amazon.com/athena/latest/ug/athena-events.html ."""
        status = execution["Status"]
        detail = {
            "versionId": "0",
            "currentState": status["State"],
            "previousState": previous,
            "statementType": execution["StatementType"],
            "queryExecutionId": execution["QueryExecutionId"],
            "workgroupName": execution["WorkGroup"],
            "sequenceNumber": {"RUNNING": "2"}.get(status["State"], "3"),
            **({"athenaError": status["AthenaError"]} if "AthenaError" in status else {}),
        }
        self._endpoint.publish_event("aws.athena", "Athena Query State Change", detail)

    def _store_result(self, run: _Run, path: Path, columns: list[ResultColumn]) -> None:
        configuration = run.execution["ResultConfiguration"]
        bucket, key = split_location(configuration["OutputLocation"])
        extra = _encryption_arguments(configuration)
        client = run.caller.client("s3")
        try:
            with path.open("rb") as body:
                client.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/octet-stream", **extra)
            if columns:
                metadata = results.metadata_file(run.execution["QueryExecutionId"], columns)
                client.put_object(
                    Bucket=bucket,
                    Key=f"{key}.metadata",
                    Body=metadata,
                    ContentType="application/octet-stream",
                    **extra,
                )
        except ClientError as error:
            raise QueryFailedError(
                "QUERY_RESULT_WRITE_ERROR",
                f"Failed to write query results to {configuration['OutputLocation']}: "
                f"{error.response['Error']['Message']} ({error.response['Error']['Code']})",
            ) from error
        run.execution[_COLUMNS_KEY] = [column.type.column_info(column.name) for column in columns]

    # -- Results ------------------------------------------------------------------------------------------------------

    def _results(self, data: Mapping[str, Any]) -> dict[str, Any]:
        execution = self._execution(data)
        maximum_rows = int(data.get("MaxResults") or _MAXIMUM_PAGE_ROWS)
        if maximum_rows > _MAXIMUM_PAGE_ROWS:
            raise InvalidRequestError(f"MaxResults is more than maximum allowed length {_MAXIMUM_PAGE_ROWS}")
        state = execution["Status"]["State"]
        if state in ("QUEUED", "RUNNING"):
            raise InvalidRequestError(
                f"Query has not yet finished. Current state: {state}", "INVALID_QUERY_EXECUTION_STATE"
            )
        if state == "FAILED":
            raise InvalidRequestError(
                "Query did not finish successfully. Final query state: FAILED", "INVALID_QUERY_EXECUTION_STATE"
            )
        if state == "CANCELLED":
            raise InvalidRequestError("Could not find results", "RESULT_NOT_FOUND")
        token = data.get("NextToken", "0")
        if not token.isdigit():
            raise InvalidRequestError(f"Malformed nextPageToken {token}")
        is_csv = execution["ResultConfiguration"]["OutputLocation"].endswith(".csv")
        read_page = results.read_csv_page if is_csv else results.read_text_page
        with tempfile.TemporaryDirectory(prefix="athena-") as scratch:
            path = self._result_file(execution, Path(scratch))
            page = read_page(path, int(token), maximum_rows)
        answer: dict[str, Any] = {
            "ResultSet": {
                "Rows": [
                    {"Data": [{} if value is None else {"VarCharValue": value} for value in row]} for row in page.rows
                ],
                "ResultSetMetadata": {"ColumnInfo": execution.get(_COLUMNS_KEY) or []},
            },
        }
        if execution["StatementType"] != "DDL":
            answer["UpdateCount"] = 0
        if page.next_offset is not None:
            answer["NextToken"] = str(page.next_offset)
        return answer

    def _result_file(self, execution: Mapping[str, Any], scratch: Path) -> Path:
        """Open the result as the caller of GetQueryResults, who needs s3:GetObject on it.

        https://docs.aws.amazon.com/athena/latest/APIReference/API_GetQueryResults.html
        """
        bucket, key = split_location(execution["ResultConfiguration"]["OutputLocation"])
        try:
            return Path(ObjectStore(Caller.of_request(self._endpoint), scratch).open(StoredObject(bucket, key, 0)))
        except QueryFailedError as error:
            if error.name == "PERMISSION_DENIED":
                raise InvalidRequestError(
                    f"Access denied when reading the query result s3://{bucket}/{key}: s3:GetObject is needed",
                    "ACCESS_DENIED",
                ) from error
            raise InvalidRequestError("Could not find results", "RESULT_NOT_FOUND") from error


def _result_configuration(data: Mapping[str, Any], workgroup: Mapping[str, Any]) -> dict[str, Any]:
    """Return where results go and how they are encrypted: a workgroup that enforces its settings wins.

    https://docs.aws.amazon.com/athena/latest/ug/workgroups-settings-override.html
    """
    configuration = workgroup.get("Configuration") or {}
    of_workgroup = configuration.get("ResultConfiguration") or {}
    of_request = data.get("ResultConfiguration") or {}
    enforces = _is_true(configuration.get("EnforceWorkGroupConfiguration", workgroup.get("Name") != "primary"))
    chosen = dict(of_workgroup) if enforces else {**of_workgroup, **of_request}
    if not chosen.get("OutputLocation"):
        raise InvalidRequestError(
            "No output location provided. An output location is required either through the Workgroup result "
            "configuration setting or as an API input."
        )
    return chosen


def _is_true(setting: object) -> bool:
    return str(setting).lower() == "true"  # a template's booleans arrive as text


def _encryption_arguments(configuration: Mapping[str, Any]) -> dict[str, str]:
    encryption = configuration.get("EncryptionConfiguration") or {}
    if encryption.get("EncryptionOption") == "SSE_S3":
        return {"ServerSideEncryption": "AES256"}
    if encryption.get("EncryptionOption") == "SSE_KMS":
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": encryption["KmsKey"]}
    return {}


def _with_object_names(
    failure: QueryFailedError | QueryCancelledError, plans: Iterable[PlannedScan]
) -> QueryFailedError | QueryCancelledError:
    """Return the failure with the names of objects where DuckDB says the names of files."""
    if isinstance(failure, QueryFailedError):
        for file in (file for plan in plans for file in plan.files):
            failure.text = failure.text.replace(file.local_path, file.stored.path)
    return failure


def _trino_name(duckdb_type: str) -> str:
    kind = column_type(duckdb_type)
    if kind.athena == "timestamp":
        return "timestamp(3)"
    if kind.athena == "decimal":
        return f"decimal({kind.precision},{kind.scale})"
    if kind.athena == "float":
        return "real"
    return kind.athena
