"""Crawlers: how keys become partitions, and crawls of a running endpoint."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import WaiterError

from telemetry_lake.local import crawler
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

KEYS = ("year", "month", "day")
LOG_ONLY = {"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"}
INHERIT = {"Version": 1.0, "CrawlerOutput": {"Partitions": {"AddOrUpdateBehavior": "InheritFromTable"}}}
COLUMNS = [{"Name": "device_id", "Type": "string"}]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/crawler-s3-folder-table-partition.html")
@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("year=2025/month=10/day=15/a.parquet", ("2025", "10", "15")),
        ("year=2025/month=01/day=5/a.parquet", ("2025", "01", "5")),
        ("Year=2025/month=1/day=5/a.parquet", ("2025", "1", "5")),
        ("year=a=b/month=1/day=5/a", ("a=b", "1", "5")),
        ("year=2025/month=10/day=15/", None),  # a folder's marker
        ("year=2025/month=10/day=15/_SUCCESS", None),
        ("year=2025/month=10/day=15/.crc", None),
        ("_temporary/year=2025/month=10/day=15/a", None),
        ("year=2025/month=10/a", None),
        ("year=2025/month=10/day=15/hour=1/a", None),
        ("month=10/year=2025/day=15/a", None),
        ("year=2025/month=10/day=/a", None),
        ("a.parquet", None),
    ],
)
def test_partition_of_a_key(key: str, values: tuple[str, ...] | None) -> None:
    assert crawler.partition_values(key, KEYS) == values


@pytest.mark.own_machinery("what this endpoint does not model is refused by name")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"Targets": {"S3Targets": [{"Path": "s3://x"}]}}, "targets other than CatalogTargets (S3Targets)"),
        (
            {"SchemaChangePolicy": {**LOG_ONLY, "UpdateBehavior": "UPDATE_IN_DATABASE"}},
            "SchemaChangePolicy UpdateBehavior UPDATE_IN_DATABASE",
        ),
        ({"Configuration": ""}, "partitions with a schema of their own"),
    ],
)
def test_setting_that_is_not_modelled_is_named(changes: dict[str, Any], sentence: str | None) -> None:
    settings = {
        "Targets": {"CatalogTargets": [{"DatabaseName": "lake", "Tables": ["t"]}], "S3Targets": []},
        "SchemaChangePolicy": LOG_ONLY,
        "Configuration": json.dumps(INHERIT),
    }
    assert crawler.unmodelled_setting({**settings, **changes}) == sentence


# --- the running service ----------------------------------------------------------------------------------------------


class Lake:
    """One endpoint with a bucket, a table and a queue that hears of crawlers."""

    def __init__(self, endpoint: EndpointProcess) -> None:
        self.endpoint = endpoint
        self.glue = endpoint.client("glue")
        self.s3 = endpoint.client("s3")
        self.s3.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": REGION})
        self.glue.create_database(DatabaseInput={"Name": "lake"})
        self.role = endpoint.role(
            "crawler",
            "glue.amazonaws.com",
            ("s3:ListBucket", "arn:aws:s3:::lake"),
            ("s3:GetObject", "arn:aws:s3:::lake/*"),
            ("glue:GetTable", "*"),
            ("glue:GetPartitions", "*"),
            ("glue:BatchCreatePartition", "*"),
            ("logs:*", "*"),
        )
        sqs, events = endpoint.client("sqs"), endpoint.client("events")
        self.queue = sqs.create_queue(QueueName="crawls")["QueueUrl"]
        self.sqs = sqs
        pattern = json.dumps({"source": ["aws.glue"], "detail-type": ["Glue Crawler State Change"]})
        events.put_rule(Name="crawls", EventPattern=pattern)
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:crawls"
        statement = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        sqs.set_queue_attributes(QueueUrl=self.queue, Attributes={"Policy": policy})
        events.put_targets(Rule="crawls", Targets=[{"Id": "queue", "Arn": arn}])

    def table(self, name: str) -> None:
        self.glue.create_table(
            DatabaseName="lake",
            TableInput={
                "Name": name,
                "PartitionKeys": [{"Name": key, "Type": "int"} for key in KEYS],
                "Parameters": {"classification": "parquet"},
                "StorageDescriptor": {"Location": f"s3://lake/{name}/", "Columns": COLUMNS},
            },
        )

    def crawler(self, name: str, role: str | None = None, table: str | None = None) -> None:
        self.glue.create_crawler(
            Name=name,
            Role=role or self.role,
            Targets={"CatalogTargets": [{"DatabaseName": "lake", "Tables": [table or name]}]},
            SchemaChangePolicy=LOG_ONLY,
            Configuration=json.dumps(INHERIT),
        )

    def crawling(self, name: str) -> None:
        """Start a crawl that takes a while."""
        self.put(*(f"{name}/year={year}/month={month}/day=1/a" for year in range(20) for month in range(12)))
        self.glue.start_crawler(Name=name)

    def put(self, *keys: str) -> None:
        for key in keys:
            self.s3.put_object(Bucket="lake", Key=key, Body=b"PAR1")

    def crawl(self, name: str) -> dict[str, Any]:
        self.glue.start_crawler(Name=name)
        return self.last_crawl(name)

    def last_crawl(self, name: str) -> dict[str, Any]:
        def ready() -> Any:
            found = self.glue.get_crawler(Name=name)["Crawler"]
            return found if found["State"] == "READY" else None

        crawl: dict[str, Any] = wait_until(ready)["LastCrawl"]
        return crawl

    def partitions(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.glue.get_partitions(DatabaseName="lake", TableName=table)["Partitions"]
        return found

    def events(self, name: str, count: int) -> list[dict[str, Any]]:
        details: list[dict[str, Any]] = []

        def enough() -> bool:
            answer = self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            bodies = [json.loads(message["Body"]) for message in answer.get("Messages", [])]
            details.extend(body["detail"] for body in bodies if body["detail"]["crawlerName"] == name)
            return len(details) >= count

        wait_until(enough)
        return details


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    endpoint = EndpointProcess(tmp_path_factory.mktemp("crawler"))
    yield Lake(endpoint)
    endpoint.stop()


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/define-crawler.html")
def test_crawl_adds_the_folders_that_hold_files(lake: Lake) -> None:
    # GIVEN
    lake.table("added")
    lake.crawler("added")
    assert "LastCrawl" not in lake.glue.get_crawler(Name="added")["Crawler"]
    lake.put(
        "added/year=2025/month=10/day=15/a.parquet",
        "added/year=2025/month=10/day=15/b.parquet",
        "added/year=2025/month=10/day=16/a.parquet",
        "added/year=2025/month=10/day=17/_temporary",
        "added/stray.parquet",
    )

    # WHEN
    crawl = lake.crawl("added")

    # THEN
    assert crawl["Status"] == "SUCCEEDED"
    partitions = {tuple(partition["Values"]): partition for partition in lake.partitions("added")}
    assert set(partitions) == {("2025", "10", "15"), ("2025", "10", "16")}
    descriptor = partitions["2025", "10", "15"]["StorageDescriptor"]
    assert descriptor == {"Location": "s3://lake/added/year=2025/month=10/day=15/", "Columns": COLUMNS}
    table = lake.glue.get_table(DatabaseName="lake", Name="added")["Table"]
    assert table["StorageDescriptor"]["Columns"] == COLUMNS
    assert [key["Type"] for key in table["PartitionKeys"]] == ["int"] * 3


@pytest.mark.source("https://docs.aws.amazon.com/eventbridge/latest/ref/events-ref-glue.html")
def test_crawl_is_told_to_eventbridge(lake: Lake) -> None:
    # GIVEN
    lake.table("told")
    lake.crawler("told")
    lake.put("told/year=2025/month=10/day=15/a.parquet")

    # WHEN
    lake.crawl("told")

    # THEN
    started, succeeded = sorted(lake.events("told", 2), key=lambda detail: detail["state"])
    assert started["state"] == "Started"
    assert succeeded["state"] == "Succeeded"
    assert succeeded["partitionsCreated"] == "1"


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/crawler-configuration.html")
def test_second_crawl_adds_only_what_is_new_and_removes_nothing(lake: Lake) -> None:
    # GIVEN
    lake.table("again")
    lake.crawler("again")
    lake.put("again/year=2025/month=1/day=1/a", "again/year=2025/month=1/day=2/a")
    lake.crawl("again")
    lake.glue.update_partition(
        DatabaseName="lake",
        TableName="again",
        PartitionValueList=["2025", "1", "1"],
        PartitionInput={"StorageDescriptor": {"Location": "s3://lake/moved/"}},
    )

    # WHEN
    lake.s3.delete_object(Bucket="lake", Key="again/year=2025/month=1/day=2/a")
    lake.put("again/year=2025/month=1/day=3/a")
    assert lake.crawl("again")["Status"] == "SUCCEEDED"

    # THEN
    places = {part["Values"][2]: part["StorageDescriptor"]["Location"] for part in lake.partitions("again")}
    assert sorted(places) == ["1", "2", "3"]
    assert places["1"] == "s3://lake/moved/"


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_BatchCreatePartition.html")
def test_hundreds_of_partitions_are_added(lake: Lake) -> None:
    lake.table("many")
    lake.crawler("many")
    lake.put(*(f"many/year={year}/month=1/day={day}/a" for year in range(5) for day in range(50)))
    assert lake.crawl("many")["Status"] == "SUCCEEDED"
    assert len(lake.partitions("many")) == 250


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/crawler-prereqs.html")
@pytest.mark.parametrize(
    ("allowed", "denied"),
    [
        ((), "glue:GetTable"),
        ((("glue:GetTable", "*"),), "s3:ListBucket"),
        ((("glue:GetTable", "*"), ("s3:ListBucket", "*")), "glue:GetPartitions"),
        ((("glue:Get*", "*"), ("s3:ListBucket", "*")), "s3:GetObject"),
        ((("glue:Get*", "*"), ("s3:*", "*")), "glue:BatchCreatePartition"),
    ],
)
def test_role_that_may_not_fails_the_crawl(lake: Lake, allowed: tuple[tuple[str, str], ...], denied: str) -> None:
    # GIVEN
    name = f"denied-{len(lake.glue.get_crawlers()['Crawlers'])}"
    lake.table(name)
    lake.put(f"{name}/year=2025/month=1/day=1/a")
    lake.crawler(name, role=lake.endpoint.role(name, "glue.amazonaws.com", *allowed))

    # WHEN
    crawl = lake.crawl(name)

    # THEN
    assert crawl["Status"] == "FAILED"
    assert denied in crawl["ErrorMessage"]
    failed = next(detail for detail in lake.events(name, 2) if detail["state"] == "Failed")
    assert denied in failed["errorMessage"]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/crawler-prereqs.html")
def test_role_that_does_not_trust_glue_fails_the_crawl(lake: Lake) -> None:
    lake.table("untrusting")
    lake.crawler("untrusting", role=lake.endpoint.role("untrusting", "lambda.amazonaws.com", ("*", "*")))
    assert "is not allowed to assume" in lake.crawl("untrusting")["ErrorMessage"]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_StartCrawler.html")
def test_crawler_is_not_started_twice(lake: Lake) -> None:
    # GIVEN
    lake.table("busy")
    lake.crawler("busy")
    lake.crawling("busy")

    # WHEN
    with pytest.raises(lake.glue.exceptions.CrawlerRunningException):
        lake.glue.start_crawler(Name="busy")

    # THEN
    assert lake.last_crawl("busy")["Status"] == "SUCCEEDED"


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateCrawler.html")
@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_DeleteCrawler.html")
@pytest.mark.source("https://github.com/aws/aws-sdk-java/issues/1549")
def test_crawler_that_runs_or_stops_is_neither_updated_nor_deleted(lake: Lake) -> None:
    # GIVEN
    lake.table("held")
    lake.crawler("held")
    lake.crawling("held")

    # WHEN / THEN
    with pytest.raises(lake.glue.exceptions.CrawlerRunningException):
        lake.glue.update_crawler(Name="held", Description="changed")
    with pytest.raises(lake.glue.exceptions.CrawlerRunningException):
        lake.glue.delete_crawler(Name="held")
    lake.glue.stop_crawler(Name="held")
    with pytest.raises(lake.glue.exceptions.CrawlerRunningException):
        lake.glue.delete_crawler(Name="held")

    # WHEN it has stopped
    assert lake.last_crawl("held")["Status"] == "CANCELLED"
    assert "Description" not in lake.glue.get_crawler(Name="held")["Crawler"]

    # THEN both are possible
    lake.glue.update_crawler(Name="held", Description="changed")
    assert lake.glue.get_crawler(Name="held")["Crawler"]["Description"] == "changed"
    lake.glue.delete_crawler(Name="held")


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_DeleteCrawler.html")
@pytest.mark.source("https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cfn-console-delete-stack.html")
def test_stack_is_deleted_once_its_crawler_has_ended(lake: Lake) -> None:
    # GIVEN
    client = lake.endpoint.client("cloudformation")
    lake.table("stacked")
    properties = {
        "Name": "stacked",
        "Role": lake.role,
        "Targets": {"CatalogTargets": [{"DatabaseName": "lake", "Tables": ["stacked"]}]},
        "SchemaChangePolicy": LOG_ONLY,
        "Configuration": json.dumps(INHERIT),
    }
    resources = {"Crawler": {"Type": "AWS::Glue::Crawler", "Properties": properties}}
    client.create_stack(StackName="crawling", TemplateBody=json.dumps({"Resources": resources}))
    client.get_waiter("stack_create_complete").wait(StackName="crawling", WaiterConfig={"Delay": 0.2})

    # WHEN it is deleted during a crawl
    lake.crawling("stacked")
    client.delete_stack(StackName="crawling")

    # THEN that fails for this reason, and the crawl goes on
    deleted = client.get_waiter("stack_delete_complete")
    with pytest.raises(WaiterError, match="DELETE_FAILED"):
        deleted.wait(StackName="crawling", WaiterConfig={"Delay": 0.2})
    events = client.describe_stack_events(StackName="crawling")["StackEvents"]
    assert any("CrawlerRunningException" in event.get("ResourceStatusReason", "") for event in events)
    assert lake.last_crawl("stacked")["Status"] == "SUCCEEDED"

    # WHEN it is deleted again
    client.delete_stack(StackName="crawling")
    deleted.wait(StackName="crawling", WaiterConfig={"Delay": 0.2})

    # THEN
    with pytest.raises(lake.glue.exceptions.EntityNotFoundException):
        lake.glue.get_crawler(Name="stacked")


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/define-crawler.html")
def test_crawler_with_a_catalog_target_may_not_delete(lake: Lake) -> None:
    # https://docs.aws.amazon.com/glue/latest/dg/define-crawler.html
    with pytest.raises(lake.glue.exceptions.InvalidInputException):
        lake.glue.create_crawler(
            Name="deleting",
            Role=lake.role,
            Targets={"CatalogTargets": [{"DatabaseName": "lake", "Tables": ["t"]}]},
            SchemaChangePolicy={"DeleteBehavior": "DELETE_FROM_DATABASE"},
        )


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_StopCrawler.html")
def test_crawler_that_does_not_run_cannot_be_stopped(lake: Lake) -> None:
    lake.table("idle")
    lake.crawler("idle")
    with pytest.raises(lake.glue.exceptions.CrawlerNotRunningException):
        lake.glue.stop_crawler(Name="idle")


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_CrawlsFilter.html")
@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ([], True),
        ([("STATE", "EQ", "COMPLETED")], True),
        ([("STATE", "NE", "COMPLETED")], False),
        ([("CRAWL_ID", "EQ", "c")], True),
        ([("START_TIME", "GE", "10000")], True),
        ([("START_TIME", "GT", "10000")], False),
        ([("END_TIME", "LT", "12001"), ("END_TIME", "LE", "11999")], False),
    ],
)
def test_crawls_are_filtered_by_state_and_time(filters: list[tuple[str, str, str]], fits: bool) -> None:
    crawl = {"CrawlId": "c", "State": "COMPLETED", "StartTime": 10.0, "EndTime": 12.0, "DPUHour": 0.0}
    named = [dict(zip(("FieldName", "FilterOperator", "FieldValue"), each, strict=True)) for each in filters]
    assert crawler.fits(crawl, named) is fits


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_CrawlerHistory.html")
def test_a_crawl_that_runs_is_listed_and_has_no_end(lake: Lake) -> None:
    # GIVEN a crawler that has crawled before, and crawls
    lake.table("listed")
    lake.crawler("listed")
    lake.crawl("listed")
    lake.crawling("listed")

    # WHEN
    running, before = lake.glue.list_crawls(CrawlerName="listed")["Crawls"]
    ends = [{"FieldName": "END_TIME", "FilterOperator": "GE", "FieldValue": "0"}]
    ended = lake.glue.list_crawls(CrawlerName="listed", Filters=ends)["Crawls"]

    # THEN
    assert (running["State"], before["State"]) == ("RUNNING", "COMPLETED")
    assert "EndTime" not in running
    assert ended == [before]

    # AND it is the same crawl once it has ended
    lake.last_crawl("listed")
    after = lake.glue.list_crawls(CrawlerName="listed")["Crawls"]
    assert [crawl["CrawlId"] for crawl in after] == [running["CrawlId"], before["CrawlId"]]
    assert (after[0]["State"], after[0]["StartTime"]) == ("COMPLETED", running["StartTime"])


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_ListCrawls.html")
@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_GetCrawlerMetrics.html")
def test_crawls_are_remembered_until_their_crawler_is_deleted(lake: Lake) -> None:
    # GIVEN two crawls that succeeded and one that failed
    lake.table("remembered")
    lake.crawler("remembered")
    assert lake.glue.list_crawls(CrawlerName="remembered")["Crawls"] == []
    lake.put("remembered/year=2025/month=1/day=1/a")
    crawls = [lake.crawl("remembered"), lake.crawl("remembered")]
    lake.glue.delete_table(DatabaseName="lake", Name="remembered")
    crawls.append(lake.crawl("remembered"))

    # WHEN
    pages = [lake.glue.list_crawls(CrawlerName="remembered", MaxResults=2)]
    pages.append(lake.glue.list_crawls(CrawlerName="remembered", MaxResults=2, NextToken=pages[0]["NextToken"]))
    listed = [crawl for page in pages for crawl in page["Crawls"]]

    # THEN the latest comes first, each with what LastCrawl said of it
    assert [crawl["State"] for crawl in listed] == ["FAILED", "COMPLETED", "COMPLETED"]
    assert [crawl["MessagePrefix"] for crawl in listed] == [crawl["MessagePrefix"] for crawl in reversed(crawls)]
    assert [json.loads(crawl["Summary"])["PARTITION"]["ADD"] for crawl in listed] == [0, 0, 1]
    assert "remembered" in listed[0]["ErrorMessage"]
    assert all(crawl["StartTime"] <= crawl["EndTime"] for crawl in listed)
    failed = [{"FieldName": "STATE", "FilterOperator": "EQ", "FieldValue": "FAILED"}]
    assert len(lake.glue.list_crawls(CrawlerName="remembered", Filters=failed)["Crawls"]) == 1
    (metrics,) = lake.glue.get_crawler_metrics(CrawlerNameList=["remembered"])["CrawlerMetricsList"]
    assert metrics["LastRuntimeSeconds"] >= 0
    assert (metrics["TimeLeftSeconds"], metrics["StillEstimating"]) == (0, False)

    # WHEN the crawler is deleted
    lake.glue.delete_crawler(Name="remembered")

    # THEN so is its history
    with pytest.raises(lake.glue.exceptions.EntityNotFoundException):
        lake.glue.list_crawls(CrawlerName="remembered")
    lake.crawler("remembered")
    assert lake.glue.list_crawls(CrawlerName="remembered")["Crawls"] == []
