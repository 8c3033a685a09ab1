"""The life of a stack by the SAM CLI: beside another one, changed, refused, deleted, imported, deployed anew.

The tests of this file come in order: each begins where the one before it ended.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from telemetry_lake import deployment, journey, toolchain
from telemetry_lake.commands.produce import Plan, send
from telemetry_lake.console import OperatorError
from telemetry_lake.target import Target
from tests.contracts.plugin import recorder
from tests.contracts.sam import answers_to_sam
from tests.stack import Lake, client, deployed_lake

STAGE = "one"
OTHER_STAGE = "two"
GOOD = {STAGE: 60, OTHER_STAGE: 40}
RETAINED = ("AnalyticsBucket", "DataBucket", "TemperatureStream")


@dataclass(frozen=True)
class Account:
    """An endpoint with a stack for each stage, and the SAM CLI."""

    lake: Lake

    def stack_name(self, stage: str) -> str:
        return f"telemetry-lake-{stage}"

    def target(self, stage: str) -> Target:
        target = self.lake.target
        return Target(target.region, target.laptop_url, self.stack_name(stage), target.laptop_authority)

    def settings(self, stage: str, parameters: Mapping[str, str]) -> deployment.Settings:
        configured = deployment.read_settings(toolchain.project_directory())
        return deployment.Settings(self.stack_name(stage), {**configured.parameters, "Stage": stage, **parameters})

    def deploy(self, stage: str, **parameters: str) -> Target:
        self.deploy_as(self.settings(stage, parameters))
        target = self.target(stage)
        deployment.wait_until_delivering(target, self.lake.reporter)
        return target

    def deploy_as(self, settings: deployment.Settings) -> None:
        instance = self.lake.laptop.instance()
        assert instance is not None
        with answers_to_sam(recorder):
            deployment.deploy(toolchain.project_directory(), self.lake.laptop, instance, settings, self.lake.reporter)

    def sam(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        project = toolchain.project_directory()
        instance = self.lake.laptop.instance()
        assert instance is not None
        command = [str(toolchain.environment_python(project, "sam")), "-m", "samcli", *arguments]
        with answers_to_sam(recorder):
            environment = deployment.sam_environment(os.environ, project, self.lake.laptop, instance)
            return subprocess.run(
                command, cwd=self.lake.directory, env=environment, capture_output=True, text=True, check=False
            )

    def delete(self, stage: str) -> None:
        region = self.lake.target.region
        ended = self.sam("delete", "--stack-name", self.stack_name(stage), "--region", region, "--no-prompts")
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def client(self, service: str) -> Any:
        return client(self.lake, service)

    def resources(self, stage: str) -> dict[str, str]:
        pages = self.client("cloudformation").get_paginator("list_stack_resources")
        return {
            each["LogicalResourceId"]: each["PhysicalResourceId"]
            for page in pages.paginate(StackName=self.stack_name(stage))
            for each in page["StackResourceSummaries"]
        }

    def status(self, stage: str) -> str:
        try:
            stacks = self.client("cloudformation").describe_stacks(StackName=self.stack_name(stage))["Stacks"]
        except ClientError:
            return "none"
        return str(stacks[0]["StackStatus"])


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with deployed_lake(tmp_path_factory.mktemp("life of a stack"), STAGE) as lake:
        yield Account(lake)


@pytest.fixture(scope="module")
def tables(account: Account) -> dict[str, journey.Table]:
    """Two stages side by side, each with the readings that were sent to it, through its whole pipeline."""
    account.deploy(OTHER_STAGE)
    found = {}
    for stage, good in GOOD.items():
        send(account.target(stage), Plan(count=good, spread_hours=1, seed=len(stage)), account.lake.reporter)
    for stage, good in GOOD.items():
        target = account.target(stage)
        landing = journey.wait_for_landing(target, good, 0, account.lake.reporter)
        journey.wait_for_pipeline(target, landing, account.lake.reporter)
        found[stage] = journey.read_table(target, account.lake.reporter)
    return found


@pytest.fixture(scope="module")
def names(account: Account, tables: dict[str, journey.Table]) -> dict[str, str]:
    """The physical ids of the first stage's resources, before anything changes."""
    assert tables
    return account.resources(STAGE)


def test_two_stages_share_no_name_and_no_reading(account: Account, tables: dict[str, journey.Table]) -> None:
    # GIVEN two stacks of one template
    one, two = account.resources(STAGE), account.resources(OTHER_STAGE)

    # THEN what both have is not the same thing; tables and views have the same names in databases of their own
    assert one.keys() == two.keys()
    same = {logical for logical, physical in one.items() if two[logical] == physical}
    assert {logical for logical in same if not logical.endswith(("Table", "View"))} <= {"DeliveryLogStream"}
    assert one["LakeDatabase"] != two["LakeDatabase"]

    # AND each has its own readings
    assert {stage: (table.rows, table.distinct_readings) for stage, table in tables.items()} == {
        stage: (good, good) for stage, good in GOOD.items()
    }


def test_a_changed_parameter_changes_what_it_is_about_and_nothing_else(account: Account, names: dict[str, str]) -> None:
    # GIVEN
    logs, firehose = account.client("logs"), account.client("firehose")

    def figures() -> tuple[int, int]:
        groups = logs.describe_log_groups(logGroupNamePrefix=names["TransformLogGroup"])["logGroups"]
        description = firehose.describe_delivery_stream(DeliveryStreamName=names["DeliveryStream"])
        destination = description["DeliveryStreamDescription"]["Destinations"][0]["ExtendedS3DestinationDescription"]
        return groups[0]["retentionInDays"], destination["BufferingHints"]["IntervalInSeconds"]

    before = figures()

    # WHEN
    target = account.deploy(STAGE, LogRetentionDays="7", RawBufferIntervalSeconds="2")

    # THEN the same resources go on, with the new values
    assert account.status(STAGE) == "UPDATE_COMPLETE"
    assert before != (7, 2)
    assert figures() == (7, 2)
    assert account.resources(STAGE) == names

    # AND readings pass as before
    send(target, Plan(count=5, spread_hours=1, seed=9), account.lake.reporter)
    journey.wait_for_landing(target, GOOD[STAGE] + 5, 0, account.lake.reporter)


def test_a_value_outside_of_a_parameters_range_is_refused_before_anything_changes(
    account: Account, names: dict[str, str]
) -> None:
    with pytest.raises(OperatorError, match="TriggerWindowSeconds"):
        account.deploy(STAGE, TriggerWindowSeconds="301")
    assert account.status(STAGE) == "UPDATE_COMPLETE"
    assert account.resources(STAGE) == names


def test_a_stream_that_cannot_be_replaced_under_firehose_stays_and_the_update_is_rolled_back(
    account: Account, names: dict[str, str], tmp_path: Path
) -> None:
    # GIVEN the template with another name for the stream, so that Firehose, whose name is fixed, would have to be
    # replaced: what it has not delivered would be lost
    packaged = account.client("cloudformation").get_template(StackName=account.stack_name(STAGE))["TemplateBody"]
    template = packaged if isinstance(packaged, dict) else yaml.safe_load(packaged)
    template["Resources"]["TemperatureStream"]["Properties"]["Name"] = "renamed-stream"
    changed = tmp_path / "renamed.json"
    changed.write_text(json.dumps(template))

    # WHEN
    ended = account.sam(
        *("deploy", "--template-file", str(changed), "--stack-name", account.stack_name(STAGE)),
        *("--region", account.lake.target.region, "--resolve-s3", "--no-confirm-changeset"),
        *("--capabilities", "CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"),
    )

    # THEN
    assert ended.returncode != 0
    assert account.status(STAGE) == "UPDATE_ROLLBACK_COMPLETE", ended.stdout + ended.stderr
    events = account.client("cloudformation").describe_stack_events(StackName=account.stack_name(STAGE))
    reasons = [each.get("ResourceStatusReason", "") for each in events["StackEvents"]]
    assert (
        "CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename "
        f"{names['DeliveryStream']} and update the stack again." in reasons
    )
    assert account.resources(STAGE) == names

    # AND the stream that the update had made is retained like any other, as DeletionPolicy: Retain says: unlike
    # RetainExceptOnCreate (https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-deletionpolicy.html)
    account.client("kinesis").delete_stream(StreamName="renamed-stream")


def test_another_stack_of_the_same_stage_is_refused_with_the_names_that_are_taken(
    account: Account, names: dict[str, str]
) -> None:
    # WHEN
    settings = account.settings(STAGE, {})
    with pytest.raises(OperatorError) as refused:
        account.deploy_as(deployment.Settings("telemetry-lake-thief", settings.parameters))

    # THEN it is told what is there, and nothing has been made
    for logical in (*RETAINED, "DeliveryStream", "EtlJob", "TransformFunction"):
        assert f"with identifier '{names[logical]}' already exists." in str(refused.value), logical
    assert (
        account.client("cloudformation").list_stack_resources(StackName="telemetry-lake-thief")[
            "StackResourceSummaries"
        ]
        == []
    )


def test_a_deleted_stack_leaves_what_is_retained_and_nothing_else(
    account: Account, names: dict[str, str], tables: dict[str, journey.Table]
) -> None:
    # WHEN
    account.delete(STAGE)

    # THEN
    assert account.status(STAGE) == "none"
    buckets = {each["Name"] for each in account.client("s3").list_buckets()["Buckets"]}
    assert {names["DataBucket"], names["AnalyticsBucket"]} <= buckets
    assert names["TemperatureStream"] in account.client("kinesis").list_streams()["StreamNames"]
    alarms = account.client("cloudwatch").describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    left = {
        "functions": [each["FunctionName"] for each in account.client("lambda").list_functions()["Functions"]],
        "jobs": [each["Name"] for each in account.client("glue").get_jobs()["Jobs"]],
        "databases": [each["Name"] for each in account.client("glue").get_databases()["DatabaseList"]],
        "roles": [each["RoleName"] for each in account.client("iam").list_roles()["Roles"]],
        "groups": [each["logGroupName"] for each in account.client("logs").describe_log_groups()["logGroups"]],
        "delivery": account.client("firehose").list_delivery_streams()["DeliveryStreamNames"],
        "queues": account.client("sqs").list_queues().get("QueueUrls", []),
        "topics": [each["TopicArn"] for each in account.client("sns").list_topics()["Topics"]],
        "alarms": [each["AlarmName"] for each in alarms["MetricAlarms"] + alarms["CompositeAlarms"]],
        "machines": [each["name"] for each in account.client("stepfunctions").list_state_machines()["stateMachines"]],
        "pipes": [each["Name"] for each in account.client("pipes").list_pipes()["Pipes"]],
        "schedules": [each["Name"] for each in account.client("scheduler").list_schedules()["Schedules"]],
    }
    gone = {physical for logical, physical in names.items() if logical not in RETAINED}
    assert {kind: sorted(gone.intersection(each)) for kind, each in left.items()} == {kind: [] for kind in left}

    # AND the other stage does not notice
    assert account.status(OTHER_STAGE) == "CREATE_COMPLETE"
    other = journey.read_table(account.target(OTHER_STAGE), account.lake.reporter)
    assert other.rows == tables[OTHER_STAGE].rows


def test_a_redeploy_is_refused_while_what_was_retained_is_there(account: Account, names: dict[str, str]) -> None:
    # WHEN
    with pytest.raises(OperatorError) as refused:
        account.deploy(STAGE)

    # THEN it names the three things, and no others
    text = str(refused.value)
    assert text.count("already exists.") == len(RETAINED)
    for logical in RETAINED:
        assert f"with identifier '{names[logical]}' already exists." in text
    assert account.status(STAGE) == "REVIEW_IN_PROGRESS"


def test_what_was_retained_is_imported_and_the_redeployed_stack_has_every_reading_again(
    account: Account, names: dict[str, str]
) -> None:
    # GIVEN the stack of the deployment that was refused is deleted; it has nothing
    cloudformation = account.client("cloudformation")
    cloudformation.delete_stack(StackName=account.stack_name(STAGE))
    identifiers = {"AnalyticsBucket": "BucketName", "DataBucket": "BucketName", "TemperatureStream": "Name"}
    template = toolchain.project_directory() / "stacks" / "retained.yaml"
    types = {name: each["Type"] for name, each in _resources_of(template).items()}
    assert types.keys() == identifiers.keys() == set(RETAINED)

    # WHEN
    named = {"StackName": account.stack_name(STAGE), "ChangeSetName": "import"}
    values = {
        "DataBucketName": "DataBucket",
        "AnalyticsBucketName": "AnalyticsBucket",
        "StreamName": "TemperatureStream",
    }
    cloudformation.create_change_set(
        **named,
        ChangeSetType="IMPORT",
        TemplateBody=template.read_text(),
        Parameters=[{"ParameterKey": key, "ParameterValue": names[logical]} for key, logical in values.items()],
        ResourcesToImport=[
            {
                "LogicalResourceId": logical,
                "ResourceType": types[logical],
                "ResourceIdentifier": {identifier: names[logical]},
            }
            for logical, identifier in identifiers.items()
        ],
    )
    cloudformation.get_waiter("change_set_create_complete").wait(**named, WaiterConfig={"Delay": 1})
    cloudformation.execute_change_set(**named)
    cloudformation.get_waiter("stack_import_complete").wait(
        StackName=account.stack_name(STAGE), WaiterConfig={"Delay": 1}
    )
    target = account.deploy(STAGE)

    # THEN it is the stack that it was
    assert account.status(STAGE) == "UPDATE_COMPLETE"
    redeployed = account.resources(STAGE)
    assert redeployed.keys() == names.keys()
    assert {logical: redeployed[logical] for logical in RETAINED} == {logical: names[logical] for logical in RETAINED}

    # AND a run finds every reading in the raw zone already stored; its crawl brings the partitions back
    execution = journey.run_once_more(target, account.lake.reporter)
    assert execution.status == "SUCCEEDED"
    table = journey.read_table(target, account.lake.reporter)
    assert (table.rows, table.distinct_readings) == (GOOD[STAGE] + 5, GOOD[STAGE] + 5)


def test_what_was_retained_is_removed_and_the_redeployed_stack_is_empty(
    account: Account, names: dict[str, str]
) -> None:
    # GIVEN
    account.delete(STAGE)

    # WHEN
    s3 = account.client("s3")
    for bucket in (names["DataBucket"], names["AnalyticsBucket"]):
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for each in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                s3.delete_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])
        s3.delete_bucket(Bucket=bucket)
    account.client("kinesis").delete_stream(StreamName=names["TemperatureStream"])
    target = account.deploy(STAGE)

    # THEN
    assert account.status(STAGE) == "CREATE_COMPLETE"
    assert account.resources(STAGE).keys() == names.keys()
    assert journey.read_table(target, account.lake.reporter).rows == 0


def _resources_of(template: Path) -> dict[str, Any]:
    class Loader(yaml.SafeLoader):
        """Takes CloudFormation's short forms as they are."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: f"{suffix} {node.value}")
    resources: dict[str, Any] = yaml.load(template.read_text(), Loader)["Resources"]  # noqa: S506
    return resources
