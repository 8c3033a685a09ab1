"""The API calls about query executions, and what happens to a query between QUEUED and its end.

https://docs.aws.amazon.com/athena/latest/APIReference/API_StartQueryExecution.html
"""

import contextvars
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
from botocore.exceptions import ClientError
from duckdb.sqltypes import DuckDBPyType
from sqlglot import exp

from telemetry_lake.local import seams
from telemetry_lake.local.athena import dialect, engine, explain, forms, results, statements, writes
from telemetry_lake.local.athena.access import Caller
from telemetry_lake.local.athena.catalog import Catalog
from telemetry_lake.local.athena.errors import (
    InvalidRequestError,
    QueryCancelledError,
    QueryFailedError,
    ResourceNotFoundError,
)
from telemetry_lake.local.athena.hive_types import UnknownTypeError, hive_type_of
from telemetry_lake.local.athena.predicates import scan_predicates
from telemetry_lake.local.athena.prepared import PreparedStatements
from telemetry_lake.local.athena.results import UPDATED_ROWS, ResultColumn
from telemetry_lake.local.athena.scan import PlannedScan, Pruner, plan_scan
from telemetry_lake.local.athena.storage import ObjectStore, StoredObject, split_location
from telemetry_lake.local.athena.values import ColumnType, column_type
from telemetry_lake.local.athena.workgroups import ENGINE_VERSION, WorkGroups, paged
from telemetry_lake.local.endpoint import Endpoint

_CONCURRENT_QUERIES = 4
_MAXIMUM_PAGE_ROWS = 1000
_FINAL_STATES = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
# What an execution has beside what the API shows of it.
_COLUMNS_KEY = "_columns"
_UPDATE_COUNT_KEY = "_update_count"
_UPDATE_TYPES = {forms.CREATE_TABLE_AS: "CREATE TABLE", forms.INSERT: "INSERT", forms.UNLOAD: "UNLOAD"}
# https://github.com/aoyagikouhei/athena-local/blob/main/docs/api.md
_WITHOUT_UPDATE_COUNT = ("EXPLAIN", "DESCRIBE_TABLE")
_LISTED_EXECUTIONS = 50
_COUNTED_ROWS = 10_000

logger = logging.getLogger("telemetry_lake.local.athena")


@dataclass
class _Run:
    """A query that is queued or running: how to stop it, and what it has done so far."""

    execution: dict[str, Any]
    kind: forms.Kind
    sql: str
    parameters: Sequence[str]
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


@dataclass(frozen=True)
class _PlannedQuery:
    """A query that is ready to run: its text, its names resolved, DuckDB's tree, and what each scan reads."""

    sql: str
    analysis: dialect.Analysis
    tree: exp.Expr
    scans: Mapping[str, PlannedScan]

    @property
    def scanned_bytes(self) -> int:
        """What Athena would bill for it."""
        return sum(scan.scanned_bytes for scan in self.scans.values())


class QueryService:
    """Replaces MiniStack's handling of query executions; everything else of its Athena stays."""

    def __init__(self, endpoint: Endpoint) -> None:
        from ministack.services import athena

        self._endpoint = endpoint
        self._athena = athena
        self.prepared_statements = PreparedStatements()
        self.workgroups = WorkGroups()
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

    def list_query_executions(self, data: Mapping[str, Any]) -> Any:
        """ListQueryExecutions: the newest first."""

        def listed(request: Mapping[str, Any]) -> dict[str, Any]:
            workgroup = self.workgroups.find(request.get("WorkGroup", "primary"))["Name"]
            found = [each for each in self._executions().values() if each.get("WorkGroup") == workgroup]
            found.sort(key=lambda each: float(each["Status"]["SubmissionDateTime"]), reverse=True)
            page, token = paged([each["QueryExecutionId"] for each in found], request, _LISTED_EXECUTIONS)
            return {"QueryExecutionIds": page, **token}

        return self._answer(listed, data)

    def get_query_runtime_statistics(self, data: Mapping[str, Any]) -> Any:
        """GetQueryRuntimeStatistics.

        https://docs.aws.amazon.com/athena/latest/APIReference/API_GetQueryRuntimeStatistics.html
        """

        def get(request: Mapping[str, Any]) -> dict[str, Any]:
            statistics = self._execution(request)["Statistics"]
            timeline = {name: value for name, value in statistics.items() if name.endswith("InMillis")}
            rows = {"InputBytes": statistics["DataScannedInBytes"]} if "DataScannedInBytes" in statistics else {}
            return {"QueryRuntimeStatistics": {"Timeline": timeline, "Rows": rows}}

        return self._answer(get, data)

    def answering(self, handler: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Callable[[Mapping[str, Any]], Any]:
        """Return an operation of the API that answers with what ``handler`` returns, or with its refusal."""
        return lambda data: self._answer(handler, data)

    def _answer(self, handler: Callable[[Mapping[str, Any]], dict[str, Any]], data: Mapping[str, Any]) -> Any:
        from ministack.core.responses import error_response_json, json_response

        try:
            return json_response(handler(data))
        except ResourceNotFoundError as error:
            return error_response_json(
                "ResourceNotFoundException", error.message, 400, extra={"ResourceName": error.resource_name}
            )
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
        workgroup = self.workgroups.find(data.get("WorkGroup", "primary"))
        if workgroup.get("State") == "DISABLED":
            raise InvalidRequestError(f"WorkGroup {workgroup['Name']} is disabled.")
        result_configuration = _result_configuration(data, workgroup)
        self._check_output_bucket(caller, result_configuration["OutputLocation"])
        parameters = list(data.get("ExecutionParameters") or [])
        run_sql, run_parameters = self._statement_to_run(sql, parameters, workgroup["Name"])
        kind = forms.kind_of(run_sql)
        if kind is None:
            raise InvalidRequestError(
                f"line 1:1: mismatched input '{forms.first_word(run_sql) or run_sql[:1]}'", "MALFORMED_QUERY"
            )
        _check_syntax(run_sql, kind)
        execution_id = str(uuid.uuid4())
        location = result_configuration["OutputLocation"].rstrip("/")
        execution = {
            "QueryExecutionId": execution_id,
            "Query": sql,
            "StatementType": kind.statement,
            **({"SubstatementType": kind.substatement} if kind.substatement else {}),
            "ResultConfiguration": {
                **result_configuration,
                "OutputLocation": f"{location}/{kind.folder}{execution_id}{kind.ending}",
            },
            "ResultReuseConfiguration": {"ResultReuseByAgeConfiguration": {"Enabled": False}},
            "QueryExecutionContext": {
                **({"Database": context["Database"]} if "Database" in context else {}),
                **({"Catalog": context["Catalog"].lower()} if "Catalog" in context else {}),
            },
            "Status": {"State": "QUEUED", "SubmissionDateTime": round(time.time(), 3)},
            "EngineVersion": dict(ENGINE_VERSION),
            **({"ExecutionParameters": parameters} if parameters else {}),
            "Statistics": {"ResultReuseInformation": {"ReusedPreviousResult": False}},
            "WorkGroup": workgroup["Name"],
        }
        self._executions()[execution_id] = execution
        if token:
            self._tokens[token] = (execution_id, fingerprint)
        # awswrangler puts the name into backticks (https://github.com/aws/aws-sdk-pandas, athena/_utils.py).
        database = str(context.get("Database", "default")).strip("`").lower()
        run = _Run(execution, kind, run_sql, run_parameters, database, caller, workgroup)
        self._runs[execution_id] = run
        self._executor.submit(contextvars.copy_context().run, self._run, run)
        return {"QueryExecutionId": execution_id}

    def _statement_to_run(self, sql: str, parameters: Sequence[str], workgroup: str) -> tuple[str, Sequence[str]]:
        """Return a statement and its parameters; of ``EXECUTE`` those that were prepared."""
        if forms.first_word(sql) != "execute":
            return sql, parameters
        form = forms.about_prepared(sql)
        assert isinstance(form, forms.Execute)  # noqa: S101  by its first word
        return self.prepared_statements.sql(workgroup, form.name), form.values or parameters

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

    def _run(self, run: _Run) -> None:
        execution = run.execution
        if execution["Status"]["State"] != "QUEUED":
            self._finish(run, 0.0)
            return
        queue_seconds = time.monotonic() - run.submitted
        execution["Status"]["State"] = "RUNNING"
        self._publish_state(execution, "QUEUED")
        try:
            with tempfile.TemporaryDirectory(prefix="athena-") as scratch:
                self._execute(run, Path(scratch))
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

    def _execute(self, run: _Run, scratch: Path) -> None:
        catalog = Catalog(run.caller)
        store = ObjectStore(run.caller, scratch)
        if run.kind == forms.QUERY:
            self._select(run, catalog, store, scratch)
        elif run.kind in _UPDATE_TYPES:
            self._write(run, catalog, store, scratch)
        elif run.kind == forms.EXPLAIN:
            self._explain(run, catalog, store, scratch)
        else:
            self._run_statement(run, catalog, store, scratch)

    def _run_statement(self, run: _Run, catalog: Catalog, store: ObjectStore, scratch: Path) -> None:
        if run.kind.is_about_prepared:
            output = self._change_prepared(run)
        else:
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

    def _change_prepared(self, run: _Run) -> statements.Output:
        form = forms.about_prepared(run.sql)
        if isinstance(form, forms.Prepare):
            self.prepared_statements.put(run.execution["WorkGroup"], form.name, form.sql)
        else:
            try:
                self.prepared_statements.drop(run.execution["WorkGroup"], form.name)
            except ResourceNotFoundError as error:
                raise QueryFailedError("NOT_FOUND", error.message) from error
        return statements.Output()

    def _select(self, run: _Run, catalog: Catalog, store: ObjectStore, scratch: Path) -> None:
        sql = dialect.bind_parameters(run.sql, run.parameters)
        path = scratch / "result.csv"
        columns: list[ResultColumn] = []

        def consume(relation: duckdb.DuckDBPyRelation, names: Sequence[str]) -> None:
            with path.open("wb") as file:
                columns.extend(results.write_csv(relation, names, file))

        planned = self._plan(run, dialect.parse_query(sql), sql, catalog, store)
        self._account_scan(run, planned.scanned_bytes)
        self._consume(run, planned, scratch, consume)
        run.raise_if_stopped()
        self._store_result(run, path, columns)

    def _write(self, run: _Run, catalog: Catalog, store: ObjectStore, scratch: Path) -> None:
        sql = dialect.bind_parameters(run.sql, run.parameters)
        output = run.execution["ResultConfiguration"]["OutputLocation"]
        destination = writes.Destination(
            run.caller,
            catalog,
            store,
            run.database,
            scratch,
            table_location=output,
            location_is_enforced=run.workgroup["Configuration"]["EnforceWorkGroupConfiguration"],
            upload_arguments=_encryption_arguments(run.execution["ResultConfiguration"]),
        )

        def run_query(tree: exp.Expr, consume: writes.Consume, *, reads_rows: bool = True) -> None:
            planned = self._plan(run, dialect.as_query(tree), sql, catalog, store)
            self._account_scan(run, planned.scanned_bytes if reads_rows else 0)
            self._consume(run, planned, scratch, consume)
            run.raise_if_stopped()

        if run.kind == forms.CREATE_TABLE_AS:
            table = forms.create_table_as(sql)
            assert table is not None  # noqa: S101  by its kind
            written = writes.create_table_as(table, destination, run_query)
        elif run.kind == forms.INSERT:
            written = writes.insert_into(forms.insert_into(sql), sql, destination, run_query)
        else:
            form = forms.unload(sql)
            written = writes.unload(form, dialect.parse_query(form.query_sql), destination, run_query)
        self._store_manifest(run, written)

    def _explain(self, run: _Run, catalog: Catalog, store: ObjectStore, scratch: Path) -> None:
        """Plan the statement's query; with ANALYZE also run it, which is billed as the query itself."""
        form = forms.explain(dialect.bind_parameters(run.sql, run.parameters))
        if form.format != "TEXT":
            raise QueryFailedError("NOT_SUPPORTED", f"EXPLAIN (FORMAT {form.format}) is not offered here")
        planned = self._plan(run, _explained_query(form.sql), form.sql, catalog, store)
        row_count: int | None = None

        def consume(relation: duckdb.DuckDBPyRelation, _names: Sequence[str]) -> None:
            nonlocal row_count
            row_count = sum(batch.num_rows for batch in relation.to_arrow_reader(_COUNTED_ROWS))

        self._account_scan(run, planned.scanned_bytes if form.analyze else 0)
        if form.analyze:
            self._consume(run, planned, scratch, consume)
        if form.type == "VALIDATE":
            text = "true"
        elif form.type == "IO":
            text = explain.io_plan(planned.analysis.scans, planned.scans)
        else:
            names = planned.analysis.output_names
            text = explain.text_plan(names, planned.analysis.scans, planned.scans, row_count)
        # Athena adds a line feed to the plan and makes a row of each line, behind one with the column's name:
        # https://github.com/aoyagikouhei/athena-local/blob/main/docs/api.md
        header = explain.header(form.type)
        path = scratch / "result.txt"
        path.write_text(f"{header}\n{text}\n")
        kind = (
            ColumnType("boolean", "BOOLEAN") if form.type == "VALIDATE" else ColumnType("varchar", "VARCHAR", len(text))
        )
        self._store_result(run, path, [ResultColumn(header, kind)])

    def _plan(self, run: _Run, tree: exp.Query, sql: str, catalog: Catalog, store: ObjectStore) -> _PlannedQuery:
        """Resolve a query's names and choose the files that it reads."""
        started = time.monotonic()
        analysis = dialect.analyze(tree, sql, run.database, catalog.find_table, catalog.has_database)
        translated = dialect.to_duckdb(analysis.tree)
        planner = engine.connect()
        try:
            pruner = Pruner(planner)
            predicates = scan_predicates(translated, analysis.scans, pruner.evaluate)
            scans: dict[str, PlannedScan] = {}
            for name, scan in analysis.scans.items():
                run.raise_if_stopped()
                scans[name] = plan_scan(scan, predicates[name].conditions, catalog, store, pruner)
        finally:
            planner.close()
        run.planning_seconds += time.monotonic() - started
        return _PlannedQuery(sql, analysis, translated, scans)

    def _consume(self, run: _Run, planned: _PlannedQuery, scratch: Path, consume: writes.Consume) -> None:
        """Run a query and hand its rows over while it runs."""
        files = sorted({file.local_path for scan in planned.scans.values() for file in scan.files})
        connection = engine.connect(files, scratch)
        run.connection = connection
        try:
            for name, scan in planned.scans.items():
                connection.execute(f"CREATE TEMP VIEW {name} AS {scan.relation_sql}")
            consume(connection.sql(dialect.duckdb_sql(planned.tree)), planned.analysis.output_names)
        except duckdb.Error as error:
            failure = engine.failure(error, planned.sql)
            raise _with_object_names(failure, planned.scans.values()) from error
        finally:
            run.connection = None
            connection.close()

    def _account_scan(self, run: _Run, scanned_bytes: int) -> None:
        """Note what the query reads; a query over the workgroup's limit is cancelled at the limit.

        https://docs.aws.amazon.com/athena/latest/ug/workgroups-setting-control-limits-cloudwatch.html
        """
        limit = run.workgroup["Configuration"].get("BytesScannedCutoffPerQuery")
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
            types = [_trino_name(kind) for kind in relation.types]
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
        if not run.workgroup["Configuration"]["PublishCloudWatchMetricsEnabled"]:
            return
        dimensions = {
            # With one L, as the page spells it, unlike the API.
            "QueryState": execution["Status"]["State"].replace("CANCELLED", "CANCELED"),
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
        with path.open("rb") as body:
            self._put_result(run, "", body)
        if columns:
            self._put_result(run, ".metadata", results.metadata_file(run.execution["QueryExecutionId"], columns))
        run.execution[_COLUMNS_KEY] = [column.type.column_info(column.name) for column in columns]

    def _store_manifest(self, run: _Run, written: writes.Written) -> None:
        """Store which files a statement has written, a line each, and what drivers ask of its result.

        https://docs.aws.amazon.com/athena/latest/ug/querying-finding-output-files.html#querying-identifying-output-files
        """
        execution = run.execution
        manifest = "".join(f"{url}\n" for url in written.urls)
        self._put_result(run, "-manifest.csv", manifest.encode())
        execution["Statistics"]["DataManifestLocation"] = (
            execution["ResultConfiguration"]["OutputLocation"] + "-manifest.csv"
        )
        metadata = results.metadata_file(
            execution["QueryExecutionId"], UPDATED_ROWS, _UPDATE_TYPES[run.kind], written.row_count
        )
        self._put_result(run, ".metadata", metadata)
        execution[_COLUMNS_KEY] = [column.type.column_info(column.name) for column in UPDATED_ROWS]
        execution[_UPDATE_COUNT_KEY] = written.row_count

    def _put_result(self, run: _Run, ending: str, body: bytes | BinaryIO) -> None:
        configuration = run.execution["ResultConfiguration"]
        bucket, key = split_location(configuration["OutputLocation"])
        try:
            run.caller.client("s3").put_object(
                Bucket=bucket,
                Key=key + ending,
                Body=body,
                ContentType="application/octet-stream",
                **_encryption_arguments(configuration),
            )
        except ClientError as error:
            raise QueryFailedError(
                "QUERY_RESULT_WRITE_ERROR",
                f"Failed to write query results to {configuration['OutputLocation']}: "
                f"{error.response['Error']['Message']} ({error.response['Error']['Code']})",
            ) from error

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
        page = self._page(execution, int(token), maximum_rows)
        answer: dict[str, Any] = {
            "ResultSet": {
                "Rows": [
                    {"Data": [{} if value is None else {"VarCharValue": value} for value in row]} for row in page.rows
                ],
                "ResultSetMetadata": {"ColumnInfo": execution.get(_COLUMNS_KEY) or []},
            },
        }
        if _UPDATE_COUNT_KEY in execution:
            answer["UpdateCount"] = execution[_UPDATE_COUNT_KEY]
        elif execution["StatementType"] != "DDL" and execution.get("SubstatementType") not in _WITHOUT_UPDATE_COUNT:
            answer["UpdateCount"] = 0
        if page.next_offset is not None:
            answer["NextToken"] = str(page.next_offset)
        return answer

    def _page(self, execution: Mapping[str, Any], offset: int, maximum_rows: int) -> results.Page:
        if _UPDATE_COUNT_KEY in execution:
            return results.Page([], None)
        is_csv = execution["ResultConfiguration"]["OutputLocation"].endswith(".csv")
        read_page = results.read_csv_page if is_csv else results.read_text_page
        with tempfile.TemporaryDirectory(prefix="athena-") as scratch:
            return read_page(self._result_file(execution, Path(scratch)), offset, maximum_rows)

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
    configuration = workgroup["Configuration"]
    of_workgroup = configuration["ResultConfiguration"]
    of_request = data.get("ResultConfiguration") or {}
    enforces = configuration["EnforceWorkGroupConfiguration"]
    chosen = dict(of_workgroup) if enforces else {**of_workgroup, **of_request}
    if not chosen.get("OutputLocation"):
        raise InvalidRequestError(
            "No output location provided. An output location is required either through the Workgroup result "
            "configuration setting or as an API input."
        )
    return chosen


def _check_syntax(sql: str, kind: forms.Kind) -> None:
    """Refuse what Athena's grammar does not know when a statement is started.

    Raises:
        InvalidRequestError: it is no SQL.
    """
    if kind == forms.QUERY:
        dialect.parse_query(sql)
    elif kind == forms.INSERT:
        forms.insert_into(sql)
    elif kind == forms.UNLOAD:
        forms.unload(sql)
    elif kind == forms.EXPLAIN:
        _explained_query(forms.explain(sql).sql)
    elif kind.is_about_prepared:
        forms.about_prepared(sql)
    elif kind != forms.CREATE_TABLE_AS:
        statements.check_at_start(sql)


def _explained_query(sql: str) -> exp.Query:
    """Return the query of a statement that is explained."""
    if (table := forms.create_table_as(sql)) is not None:
        return dialect.as_query(table.query)
    if forms.first_word(sql) == "insert":
        return dialect.as_query(forms.insert_into(sql).query)
    return dialect.parse_query(sql)


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


def _trino_name(kind: DuckDBPyType) -> str:
    try:
        return hive_type_of(kind).trino()
    except UnknownTypeError:
        return column_type(str(kind)).athena
