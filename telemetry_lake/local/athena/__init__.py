"""Athena: queries in Trino's dialect over the Glue catalog, run by DuckDB.

Known deviations from AWS:

* The engine is DuckDB behind a translation of the SQL. Trino functions that DuckDB lacks fail with
  FUNCTION_NOT_FOUND; functions that only DuckDB has are accepted. Approximate functions give other approximations,
  decimal arithmetic has DuckDB's scales (division gives a double), and texts of errors inside of expressions are
  DuckDB's.
* Times with a time zone are shown in UTC; ``AT TIME ZONE`` gives the local time without the zone's name.
* No Iceberg: its tables, UPDATE, DELETE, MERGE, OPTIMIZE and VACUUM fail with NOT_SUPPORTED. So do REPLACE COLUMNS,
  RENAME PARTITION, buckets, SHOW TBLPROPERTIES, SHOW FUNCTIONS and EXPLAIN (FORMAT JSON | GRAPHVIZ).
* Tables of Parquet and of JSON lines (plain, gzip) are read and written, no others; JSON keys are matched with regard
  to case. Types are compared only between columns, literals and casts. Literals of text have no length: what Trino
  calls varchar(1) is varchar in the catalog and in results.
* EXPLAIN shows the tables, columns and partitions that are read, not the engine's operators.
* Scanned bytes are footers plus the chunks of the columns that a query names, in the row groups that statistics do not
  rule out: whole chunks, even under a LIMIT; no dynamic filters, no page indexes, no conditions inferred from
  equalities between tables, no minimum of 10 MB. A query over the limit of its workgroup is cancelled before it
  starts to read.
* Objects are read from MiniStack's store after the caller's s3:ListBucket, s3:GetObject and, for a customer's key,
  kms:Decrypt and, on catalog, database and table, glue:GetTable, GetPartitions, GetTables, GetDatabases were checked
  (with ``aws:CalledVia``); DDL, written files and result files go through the API with the caller's credentials
  (without ``aws:CalledVia``). The other permissions that Athena uses on the result bucket are not checked
  (s3:GetBucketLocation and s3:PutObject are).
  A caller inside of the process that signs nothing counts as the principal of the request it serves.
* Partition projection knows integer, enum and date, not injected; a partition's own SerDe is ignored.
* A workgroup that does not say whether it enforces its settings does, except the primary one.
* SubstatementType is given where one has been published, the result of UNLOAD is named like that of INSERT, and the
  ``.metadata`` companion has the execution's id where Athena has the engine's.
* Query history ends with the state directory; timeouts of queries and quotas are not modelled; results are not reused.
"""

import json
from collections.abc import Mapping
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.athena.service import QueryService
from telemetry_lake.local.endpoint import Endpoint


def install(endpoint: Endpoint) -> None:
    """Put the query service in the place of MiniStack's."""
    from ministack.services import athena

    service = QueryService(endpoint)
    workgroups, prepared = service.workgroups, service.prepared_statements
    operations = {
        "StartQueryExecution": service.start_query_execution,
        "GetQueryExecution": service.get_query_execution,
        "GetQueryResults": service.get_query_results,
        "GetQueryRuntimeStatistics": service.get_query_runtime_statistics,
        "StopQueryExecution": service.stop_query_execution,
        "ListQueryExecutions": service.list_query_executions,
        "CreateWorkGroup": service.answering(workgroups.create),
        "GetWorkGroup": service.answering(workgroups.get),
        "ListWorkGroups": service.answering(workgroups.list),
        "UpdateWorkGroup": service.answering(workgroups.update),
        "DeleteWorkGroup": service.answering(workgroups.delete),
        "CreatePreparedStatement": service.answering(prepared.create),
        "GetPreparedStatement": service.answering(prepared.get),
        "UpdatePreparedStatement": service.answering(prepared.update),
        "DeletePreparedStatement": service.answering(prepared.delete),
        "BatchGetPreparedStatement": service.answering(prepared.batch_get),
    }
    answer_otherwise = seams.require(athena, "handle_request")

    async def handle_request(
        method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
    ) -> Any:
        operation = operations.get(headers.get("x-amz-target", "").rpartition(".")[2])
        if operation is None:
            return await answer_otherwise(method, path, headers, body, query)
        seams.require(athena, "_ensure_default_workgroup")()
        seams.require(athena, "_ensure_default_data_catalog")()
        return operation(json.loads(body or b"{}"))

    seams.replace(athena, "handle_request", handle_request)
    endpoint.on_ready(service.fail_interrupted)
    endpoint.on_stop(service.close)
