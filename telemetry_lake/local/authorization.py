"""What IAM is asked about a request: its action, the resources it names, and its condition keys.

MiniStack asks about one resource a request. Here the services whose requests name several, or name them otherwise than
MiniStack has it, follow the Service Authorization Reference:

* Glue (https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsglue.html): a job or a crawler by its
  name; what concerns a table or its partitions needs the catalog, the database **and** the table.
* CloudWatch Logs (https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/iam-access-control-overview-cwl.html): a log
  stream is a resource of its own, and a policy names a log group with ``:*`` behind it.
* CloudWatch: ``PutMetricData`` brings ``cloudwatch:namespace``
  (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/iam-cw-condition-keys-namespace.html).
* Athena (https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonathena.html): what names a query
  execution is about the workgroup in which it ran, ``primary`` if it names none.
* SQS (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html): a
  batch call is allowed by the action of the single one.

Known deviations from AWS:

* Actions on several jobs, crawlers or databases at once (``BatchGetJobs``, ``GetDatabases``, ``GetJobs``) ask about
  the catalog alone. ``SearchTables`` asks about the catalog and then, for each table that it finds, about the database
  and the table; AWS says of Lake Formation alone that others are left out.
* User-defined functions, connections, workflows and triggers of Glue are asked about as MiniStack has it.
"""

import contextvars
import json
from collections.abc import Iterable, Mapping
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

BATCH_ACTIONS = {
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
}

_further_resources: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("further_resources", default=())
_request_keys: contextvars.ContextVar[Mapping[str, str] | None] = contextvars.ContextVar("request_keys", default=None)


def glue_resources(action: str, request: Mapping[str, Any], region: str, account_id: str) -> tuple[str, ...] | None:
    """Return the ARNs that a Glue request is about, None for what is left to MiniStack.

    Args:
        action: the operation, for example ``GetTable``.
        request: its parameters.
        region: the region of the endpoint.
        account_id: the account of the endpoint.
    """
    scope = f"arn:aws:glue:{region}:{account_id}"
    name = request.get("Name")
    if "Crawler" in action and isinstance(name or request.get("CrawlerName"), str):
        return (f"{scope}:crawler/{name or request['CrawlerName']}",)
    if "Job" in action:
        job = request.get("JobName") or name
        return (f"{scope}:job/{job}",) if isinstance(job, str) else (f"{scope}:catalog",)
    database = request.get("DatabaseName")
    if isinstance(database, str):
        table = request.get("TableName") or name or (request.get("TableInput") or {}).get("Name") or "*"
        return (f"{scope}:catalog", f"{scope}:database/{database}", f"{scope}:table/{database}/{table}")
    if "Database" in action:
        named = name or (request.get("DatabaseInput") or {}).get("Name")
        return (f"{scope}:catalog", f"{scope}:database/{named}") if named else (f"{scope}:catalog",)
    return None


def caller_may(action: str, resource_arns: Iterable[str], region: str) -> bool:
    """Return whether the caller of the request that is being served may do something with all of these resources."""
    from ministack.core import iam_evaluator

    access_key_id = seams.require(iam_evaluator, "_verified_key").get()
    enforce = seams.require(iam_evaluator, "enforce")
    service = action.partition(":")[0]
    return all(enforce(access_key_id, action, service, region, resource_arn=arn) is None for arn in resource_arns)


def logs_resource(action: str, request: Mapping[str, Any], region: str, account_id: str) -> str | None:
    """Return the ARN that a CloudWatch Logs request is about, None for what is left to MiniStack."""
    group = request.get("logGroupName")
    if not isinstance(group, str) or "Tag" in action:
        return None
    return f"arn:aws:logs:{region}:{account_id}:log-group:{group}:log-stream:{request.get('logStreamName') or ''}"


def _workgroup(request: Mapping[str, Any]) -> str | None:
    from ministack.services import athena

    if isinstance(request.get("WorkGroup"), str):
        return str(request["WorkGroup"])
    if "QueryExecutionId" not in request:
        return "primary"
    execution = seams.require(athena, "_executions").get(request["QueryExecutionId"])
    return None if execution is None else str(execution.get("WorkGroup") or "primary")


def metric_namespace(headers: Mapping[str, str], body: bytes, query_parameters: Mapping[str, Any]) -> str | None:
    """Return the namespace that a ``PutMetricData`` request names, in the JSON or the query protocol."""
    found: Any
    if "json" in headers.get("content-type", ""):
        found = _json_object(body).get("Namespace")
    else:
        found = query_parameters.get("Namespace")
        found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, str) else None


def _json_object(body: bytes) -> Mapping[str, Any]:
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}  # the service itself refuses the request
    return parsed if isinstance(parsed, dict) else {}


def install(_endpoint: Endpoint) -> None:
    """Ask IAM about what a request is about."""
    from ministack.core import iam_actions, iam_evaluator

    find_action = seams.require(iam_actions, "extract_iam_action")
    find_resource = seams.require(iam_actions, "extract_resource_arn")
    enforce = seams.require(iam_evaluator, "enforce")

    def extract_iam_action(*request: Any) -> str | None:
        action: str | None = find_action(*request)
        return BATCH_ACTIONS.get(action, action) if action is not None else None

    def extract_resource_arn(  # noqa: PLR0917  MiniStack's signature
        service: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        query_params: Mapping[str, Any],
        region: str,
        account_id: str,
    ) -> str:
        _further_resources.set(())
        _request_keys.set(None)
        operation = headers.get("x-amz-target", "").rsplit(".", 1)[-1]
        if service == "glue":
            resources = glue_resources(operation, _json_object(body), region, account_id)
            if resources is not None:
                _further_resources.set(resources[1:])
                return resources[0]
        if service == "logs":
            stream = logs_resource(operation, _json_object(body), region, account_id)
            if stream is not None:
                return stream
        if service == "athena" and operation.endswith(("QueryExecution", "QueryResults", "QueryRuntimeStatistics")):
            workgroup = _workgroup(_json_object(body))
            return f"arn:aws:athena:{region}:{account_id}:workgroup/{workgroup}" if workgroup else "*"
        if service == "monitoring" and (namespace := metric_namespace(headers, body, query_params)) is not None:
            _request_keys.set({"cloudwatch:namespace": namespace})
        arn: str = find_resource(service, method, path, headers, body, query_params, region, account_id)
        return arn

    def enforce_all(  # noqa: PLR0917  MiniStack's signature
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Mapping[str, Any] | None = None,
    ) -> Any:
        context = {**(service_context or {}), **(_request_keys.get() or {})}
        further = _further_resources.get() if service == "glue" else ()
        for arn in (resource_arn, *further):
            denied = enforce(access_key_id, iam_action, service, region, resource_arn=arn, service_context=context)
            if denied:
                return denied
        return None

    seams.replace(iam_actions, "extract_iam_action", extract_iam_action)
    seams.replace(iam_actions, "extract_resource_arn", extract_resource_arn)
    seams.replace(iam_evaluator, "enforce", enforce_all)
