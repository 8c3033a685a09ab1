"""What IAM is asked about a request, by the Service Authorization Reference."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from telemetry_lake.local.authorization import glue_resources, logs_resource, metric_namespace
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess

GLUE = f"arn:aws:glue:{REGION}:{ACCOUNT}"
LOGS = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group"


@pytest.mark.source("https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsglue.html")
@pytest.mark.parametrize(
    ("action", "request_body", "resources"),
    [
        # https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsglue.html
        ("StartJobRun", {"JobName": "etl"}, ("job/etl",)),
        ("GetJob", {"JobName": "etl"}, ("job/etl",)),
        ("GetCrawler", {"Name": "partitions"}, ("crawler/partitions",)),
        ("GetTable", {"DatabaseName": "lake", "Name": "t"}, ("catalog", "database/lake", "table/lake/t")),
        ("GetPartitions", {"DatabaseName": "lake", "TableName": "t"}, ("catalog", "database/lake", "table/lake/t")),
        (
            "CreateTable",
            {"DatabaseName": "lake", "TableInput": {"Name": "t"}},
            ("catalog", "database/lake", "table/lake/t"),
        ),
        ("GetDatabase", {"Name": "lake"}, ("catalog", "database/lake")),
        ("GetDatabases", {}, ("catalog",)),
    ],
)
def test_a_glue_request_names_every_resource_that_aws_asks_about(
    action: str, request_body: dict[str, Any], resources: tuple[str, ...]
) -> None:
    assert glue_resources(action, request_body, REGION, ACCOUNT) == tuple(f"{GLUE}:{part}" for part in resources)


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/iam-access-control-overview-cwl.html")
@pytest.mark.parametrize(
    ("action", "request_body", "resource"),
    [
        # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/iam-access-control-overview-cwl.html
        ("PutLogEvents", {"logGroupName": "/a", "logStreamName": "s"}, f"{LOGS}:/a:log-stream:s"),
        ("CreateLogStream", {"logGroupName": "/a", "logStreamName": "s"}, f"{LOGS}:/a:log-stream:s"),
        ("CreateLogGroup", {"logGroupName": "/a"}, f"{LOGS}:/a:log-stream:"),
        ("DescribeLogGroups", {}, None),
        ("TagLogGroup", {"logGroupName": "/a"}, None),
    ],
)
def test_a_logs_request_names_its_stream(action: str, request_body: dict[str, Any], resource: str | None) -> None:
    assert logs_resource(action, request_body, REGION, ACCOUNT) == resource


@pytest.mark.source(
    "https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/iam-cw-condition-keys-namespace.html"
)
def test_the_namespace_of_metrics_is_found_in_both_protocols() -> None:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/iam-cw-condition-keys-namespace.html
    request = {"Namespace": "Glue"}
    assert metric_namespace({"content-type": "application/x-amz-json-1.0"}, json.dumps(request).encode(), {}) == "Glue"
    assert (
        metric_namespace({"content-type": "application/x-www-form-urlencoded"}, b"", {"Namespace": ["Glue"]}) == "Glue"
    )
    assert metric_namespace({"content-type": "application/x-amz-json-1.0"}, b"no json", {}) is None


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    process = EndpointProcess(tmp_path_factory.mktemp("authorization"))
    yield process
    process.stop()


def session_with(endpoint: EndpointProcess, name: str, statements: list[dict[str, Any]]) -> boto3.Session:
    """A session of a fresh role that may do what ``statements`` say."""
    iam = endpoint.client("iam")
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    document = {"Version": "2012-10-17", "Statement": [trust]}
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(document))["Role"]
    policy = {"Version": "2012-10-17", "Statement": statements}
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
    credentials = endpoint.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="session")["Credentials"]
    return boto3.Session(
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
        region_name=REGION,
    )


def is_denied(call: Any, **arguments: Any) -> bool:
    try:
        call(**arguments)
    except ClientError as error:
        return "AccessDenied" in error.response["Error"]["Code"]
    return False


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/glue-specifying-resource-arns.html")
def test_reading_a_table_needs_the_catalog_the_database_and_the_table(endpoint: EndpointProcess) -> None:
    # GIVEN a table, and roles that may read all three of its resources, or two
    glue = endpoint.client("glue")
    glue.create_database(DatabaseInput={"Name": "lake"})
    glue.create_table(DatabaseName="lake", TableInput={"Name": "t"})
    needed = [f"{GLUE}:catalog", f"{GLUE}:database/lake", f"{GLUE}:table/lake/t"]
    url = f"http://127.0.0.1:{endpoint.port}"

    for number, resources in enumerate([needed, needed[1:], [needed[0], needed[2]], needed[:2]]):
        statement = {"Effect": "Allow", "Action": "glue:GetTable", "Resource": resources}
        client = session_with(endpoint, f"reader{number}", [statement]).client("glue", endpoint_url=url)

        # WHEN each reads the table
        denied = is_denied(client.get_table, DatabaseName="lake", Name="t")

        # THEN only the one with all three may
        assert denied == (resources != needed)


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_SearchTables.html")
@pytest.mark.source("https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsglue.html")
def test_a_search_finds_the_tables_that_its_caller_may_search(endpoint: EndpointProcess) -> None:
    # GIVEN two tables, a role that may search one of them, and one that may search nothing
    glue = endpoint.client("glue")
    glue.create_database(DatabaseInput={"Name": "searched"})
    for name in ("open", "closed"):
        glue.create_table(DatabaseName="searched", TableInput={"Name": name})
    resources = [f"{GLUE}:catalog", f"{GLUE}:database/searched", f"{GLUE}:table/searched/open"]
    url = f"http://127.0.0.1:{endpoint.port}"
    searcher, reader = (
        session_with(endpoint, action, [{"Effect": "Allow", "Action": f"glue:{action}", "Resource": resources}])
        for action in ("SearchTables", "GetTables")
    )

    # WHEN
    found = searcher.client("glue", endpoint_url=url).search_tables(SearchText="searched")["TableList"]

    # THEN
    assert [table["Name"] for table in found] == ["open"]
    assert is_denied(reader.client("glue", endpoint_url=url).search_tables, SearchText="searched")
    assert len(glue.search_tables(SearchText="searched")["TableList"]) == 2


@pytest.mark.source(
    "https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/iam-cw-condition-keys-namespace.html"
)
def test_metrics_may_be_put_into_the_namespace_of_the_condition_only(endpoint: EndpointProcess) -> None:
    # GIVEN a role that may put metrics into one namespace
    statement = {
        "Effect": "Allow",
        "Action": "cloudwatch:PutMetricData",
        "Resource": "*",
        "Condition": {"StringEquals": {"cloudwatch:namespace": "Glue"}},
    }
    session = session_with(endpoint, "metrics", [statement])
    client = session.client("cloudwatch", endpoint_url=f"http://127.0.0.1:{endpoint.port}")
    data = [{"MetricName": "m", "Value": 1.0}]

    # WHEN / THEN
    assert not is_denied(client.put_metric_data, Namespace="Glue", MetricData=data)
    assert is_denied(client.put_metric_data, Namespace="Other", MetricData=data)


@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html"
)
def test_a_batch_of_messages_is_allowed_by_the_action_of_one(endpoint: EndpointProcess) -> None:
    # GIVEN a queue, and a role that may send one message
    url = endpoint.client("sqs").create_queue(QueueName="q")["QueueUrl"]
    statement = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": f"arn:aws:sqs:{REGION}:{ACCOUNT}:q"}
    session = session_with(endpoint, "sender", [statement])
    client = session.client("sqs", endpoint_url=f"http://127.0.0.1:{endpoint.port}")

    # WHEN / THEN
    assert not is_denied(client.send_message_batch, QueueUrl=url, Entries=[{"Id": "1", "MessageBody": "x"}])
    assert is_denied(client.receive_message, QueueUrl=url)
