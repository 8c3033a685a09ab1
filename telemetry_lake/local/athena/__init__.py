"""Athena: queries in Trino's dialect over the Glue catalog, run by DuckDB.

Known deviations from AWS:

* The engine is DuckDB behind a translation of the SQL. Trino functions that DuckDB lacks fail with
  FUNCTION_NOT_FOUND; functions that only DuckDB has are accepted. Approximate functions give other approximations,
  decimal arithmetic has DuckDB's scales (division gives a double), and texts of errors inside of expressions are
  DuckDB's.
* Times with a time zone are shown in UTC; ``AT TIME ZONE`` gives the local time without the zone's name.
* SELECT, SHOW, DESCRIBE, MSCK REPAIR TABLE, ALTER TABLE ADD and DROP PARTITION, CREATE EXTERNAL TABLE, DROP TABLE,
  views and databases are offered; CTAS, INSERT, UNLOAD, EXPLAIN, PREPARE, EXECUTE, Iceberg are not.
* Tables of Parquet and of JSON lines (plain, gzip) are read; JSON keys are matched with regard to case. Types are
  compared only between columns, literals and casts.
* Scanned bytes are footers plus the chunks of the columns that a query names, in the row groups that statistics do not
  rule out: whole chunks, even under a LIMIT; no dynamic filters, no page indexes, no conditions inferred from
  equalities between tables, no minimum of 10 MB. A query over the limit of its workgroup is cancelled before it
  starts to read.
* Objects are read from MiniStack's store after the caller's s3:ListBucket, s3:GetObject and, for a customer's key,
  kms:Decrypt and, on catalog, database and table, glue:GetTable, GetPartitions, GetTables, GetDatabases were checked
  (with ``aws:CalledVia``); DDL and result files go through the API with the caller's credentials (without
  ``aws:CalledVia``). The other permissions that Athena uses on the result bucket are not checked (s3:GetBucketLocation
  and s3:PutObject are).
  A caller inside of the process that signs nothing counts as the principal of the request it serves.
* Partition projection knows integer, enum and date, not injected; a partition's own SerDe is ignored.
* A workgroup that does not say whether it enforces its settings does, except the primary one.
* Query history ends with the state directory; timeouts of queries and quotas are not modelled; results are not reused.
"""

from telemetry_lake.local import seams
from telemetry_lake.local.athena.service import QueryService
from telemetry_lake.local.endpoint import Endpoint


def install(endpoint: Endpoint) -> None:
    """Put the query service in the place of MiniStack's."""
    from ministack.services import athena

    service = QueryService(endpoint)
    seams.replace(athena, "_start_query_execution", service.start_query_execution)
    seams.replace(athena, "_get_query_execution", service.get_query_execution)
    seams.replace(athena, "_get_query_results", service.get_query_results)
    seams.replace(athena, "_stop_query_execution", service.stop_query_execution)
    endpoint.on_ready(service.fail_interrupted)
    endpoint.on_stop(service.close)
