"""Rules over the expanded template that no general linter knows."""

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
import sqlglot

from tests.judging import REPOSITORY
from tests.template import variants
from tests.template.expansion import expanded_template, resources_of_type, sam_template

NAMED = {
    "AWS::Kinesis::Stream": "Name",
    "AWS::KinesisFirehose::DeliveryStream": "DeliveryStreamName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::SNS::Topic": "TopicName",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Pipes::Pipe": "Name",
    "AWS::StepFunctions::StateMachine": "StateMachineName",
    "AWS::Glue::Job": "Name",
    "AWS::Glue::Crawler": "Name",
    "AWS::Athena::WorkGroup": "Name",
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::CloudWatch::CompositeAlarm": "AlarmName",
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::Scheduler::Schedule": "Name",
}


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return expanded_template()


def test_stage_prod_has_plain_names_and_any_other_stage_appends_its_own(template: dict[str, Any]) -> None:
    # GIVEN every resource whose name is unique in an account and region
    named = [
        (logical_id, resource["Properties"][NAMED[resource["Type"]]])
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] in NAMED
    ]
    assert len(named) > 30

    for logical_id, name in named:
        # WHEN its name is looked at
        condition, plain, staged = name["Fn::If"]

        # THEN prod has the plain name, and another stage's name contains the stage, so that two stacks do not collide
        assert condition == "IsProd", logical_id
        assert "${Stage}" not in plain, logical_id
        assert "${Stage}" in staged["Fn::Sub"], logical_id


@pytest.mark.parametrize(
    ("logical_id", "plain_name"),
    [
        ("TemperatureStream", "temperature-stream"),
        ("DeliveryStream", "temperature-to-s3"),
        ("PipelineStateMachine", "temperature-pipeline"),
    ],
)
def test_prod_has_the_runbooks_names(template: dict[str, Any], logical_id: str, plain_name: str) -> None:
    resource = template["Resources"][logical_id]
    assert resource["Properties"][NAMED[resource["Type"]]]["Fn::If"][1] == plain_name


def test_what_holds_data_survives_the_stack(template: dict[str, Any]) -> None:
    # GIVEN buckets, stream and key
    holders = {
        **resources_of_type(template, "AWS::S3::Bucket"),
        **resources_of_type(template, "AWS::Kinesis::Stream"),
        **resources_of_type(template, "AWS::KMS::Key"),
    }

    # THEN neither a delete nor a replacement removes them
    assert len(holders) == 4
    for logical_id, resource in holders.items():
        assert resource.get("DeletionPolicy") == "Retain", logical_id
        assert resource.get("UpdateReplacePolicy") == "Retain", logical_id


def test_every_bucket_is_private_encrypted_versioned_and_tls_only(template: dict[str, Any]) -> None:
    buckets = resources_of_type(template, "AWS::S3::Bucket")
    policies = resources_of_type(template, "AWS::S3::BucketPolicy")
    tls_only = {
        policy["Properties"]["Bucket"]["Ref"]
        for policy in policies.values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Deny"
        and statement["Principal"] == "*"
        and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    }
    for logical_id, bucket in buckets.items():
        properties = bucket["Properties"]
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}, logical_id
        assert properties["BucketEncryption"], logical_id
        assert properties["VersioningConfiguration"]["Status"] == "Enabled", logical_id
        assert logical_id in tls_only


def test_archived_objects_stay_readable_for_athena_and_spark(template: dict[str, Any]) -> None:
    # GIVEN all storage classes that a lifecycle rule names
    text = json.dumps(resources_of_type(template, "AWS::S3::Bucket"))
    classes = set(re.findall(r'"StorageClass": "(\w+)"', text))

    # THEN it is Glacier Instant Retrieval alone: Athena ignores objects of the other Glacier classes
    # https://docs.aws.amazon.com/athena/latest/ug/other-notable-limitations.html
    assert classes == {"GLACIER_IR"}


def test_no_statement_allows_every_resource_unless_its_actions_have_no_resource_types(template: dict[str, Any]) -> None:
    # GIVEN every Allow statement of a role
    allowed_stars = {"DeliverLogs", "PutJobMetrics"}
    seen = set()
    for logical_id, role in resources_of_type(template, "AWS::IAM::Role").items():
        for policy in role["Properties"]["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                conditional = statement.get("Fn::If")
                document = conditional[1] if conditional else statement
                # WHEN it names its resources and actions
                resources = document["Resource"] if isinstance(document["Resource"], list) else [document["Resource"]]
                actions = document["Action"] if isinstance(document["Action"], list) else [document["Action"]]

                # THEN neither is a wildcard, but for the two that AWS defines without resource types
                if "*" in resources:
                    seen.add(document["Sid"])
                    assert document["Sid"] in allowed_stars, logical_id
                assert not any(action.endswith(":*") or action == "*" for action in actions), logical_id
    assert seen == allowed_stars


def test_service_roles_trust_their_service_for_this_account_only(template: dict[str, Any]) -> None:
    for logical_id, role in resources_of_type(template, "AWS::IAM::Role").items():
        for statement in role["Properties"]["AssumeRolePolicyDocument"]["Statement"]:
            service = statement["Principal"]["Service"]
            assert service.endswith(".amazonaws.com"), logical_id
            # Lambda does not set aws:SourceAccount when it assumes an execution role.
            if service != "lambda.amazonaws.com":
                ((operator, keys),) = statement["Condition"].items()
                assert operator == "StringEquals", logical_id
                assert keys in (
                    {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
                    {"sts:ExternalId": {"Ref": "AWS::AccountId"}},
                ), logical_id


def test_the_queue_hides_a_message_for_longer_than_the_pipes_longest_window(template: dict[str, Any]) -> None:
    queue = template["Resources"]["TriggerQueue"]["Properties"]
    longest_window = template["Parameters"]["TriggerWindowSeconds"]["MaxValue"]
    assert queue["VisibilityTimeout"] >= 2 * longest_window


@pytest.mark.parametrize("trigger", ["Both", "S3Events", "Schedule"])
@pytest.mark.parametrize(
    ("timer", "parameter", "mode", "expression"),
    [
        ("AuditTimer", "AuditSchedule", "audit", "cron(40 17 * * ? *)"),
        ("CheckTimer", "CheckSchedule", "check", "cron(10 18 * * ? *)"),
    ],
)
def test_audit_and_check_start_the_pipeline_whatever_triggers_the_loads(
    timer: str, parameter: str, mode: str, expression: str, trigger: str
) -> None:
    # GIVEN the one timer alone, and neither
    neither = {"Trigger": trigger, "AuditSchedule": "", "CheckSchedule": ""}

    # WHEN
    resources = variants.resolved({**neither, parameter: expression})["Resources"]
    without = variants.resolved(neither)["Resources"]

    # THEN it has a role to start with, and its input is what the state machine takes for the default days
    schedule = resources[timer]["Properties"]
    assert json.loads(schedule["Target"]["Input"]) == {"mode": mode}
    assert schedule["ScheduleExpression"] == expression == variants.template()["Parameters"][parameter]["Default"]
    assert "PipelineScheduleRole" in json.dumps(schedule["Target"]["RoleArn"])
    assert "PipelineScheduleRole" in resources

    # AND without a schedule there is none, and no role that nothing uses
    assert timer not in without
    assert ("PipelineScheduleRole" in without) == ("PipelineSchedule" in without) == (trigger != "S3Events")


def test_the_delivery_stream_keeps_gz_names_and_the_transform_as_its_processor(template: dict[str, Any]) -> None:
    destination = template["Resources"]["DeliveryStream"]["Properties"]["ExtendedS3DestinationConfiguration"]
    assert "FileExtension" not in destination
    assert destination["CompressionFormat"] == "GZIP"
    assert destination["Prefix"] == "raw_data/"
    parameters = {
        parameter["ParameterName"]: parameter["ParameterValue"]
        for parameter in destination["ProcessingConfiguration"]["Processors"][0]["Parameters"]
    }
    assert parameters["LambdaArn"] == {"Fn::GetAtt": ["TransformFunction", "Arn"]}


def test_partition_keys_are_ints_so_that_the_representative_query_type_checks(template: dict[str, Any]) -> None:
    tables = [table["Properties"]["TableInput"] for table in resources_of_type(template, "AWS::Glue::Table").values()]
    partitioned = {table["Name"]: table["PartitionKeys"] for table in tables if table["PartitionKeys"]}
    assert partitioned.keys() == {"device_telemetry", "rejected_readings"}
    for keys in partitioned.values():
        assert [(key["Name"], key["Type"]) for key in keys] == [("year", "int"), ("month", "int"), ("day", "int")]


def trino_type(hive_type: str) -> str:
    """Return what Trino calls a type of Hive, of those that the rejects have."""
    names = {"string": "varchar", "int": "integer"}
    fields = re.fullmatch(r"struct<(.+)>", hive_type)
    if fields is None:
        return names.get(hive_type, hive_type)
    pairs = (field.split(":") for field in fields[1].split(","))
    return f"row({', '.join(f'{name} {trino_type(kind)}' for name, kind in pairs)})"


def test_the_view_of_the_rejects_has_the_columns_of_their_table_and_when_they_were_resolved(
    template: dict[str, Any],
) -> None:
    # GIVEN
    tables = resources_of_type(template, "AWS::Glue::Table")
    names = ("RejectedTable", "ResolvedRejectsTable", "DistinctRejectsView")
    rejects, resolved, view = (tables[name]["Properties"]["TableInput"] for name in names)
    columns = [
        (column["Name"], column["Type"])
        for column in [*rejects["StorageDescriptor"]["Columns"], *rejects["PartitionKeys"]]
    ]
    columns += [
        (column["Name"], column["Type"])
        for column in resolved["StorageDescriptor"]["Columns"]
        if column["Name"] == "resolved_at"
    ]

    # WHEN
    text = view["ViewOriginalText"]["Fn::Sub"][1]["View"]["Fn::Base64"]["Fn::Sub"]
    document = json.loads(
        text.replace("${RejectedTable}", rejects["Name"]).replace("${ResolvedRejectsTable}", resolved["Name"])
    )
    statement = sqlglot.parse_one(document["originalSql"], dialect="trino")
    assert isinstance(statement, sqlglot.exp.Query)

    # THEN the catalog, the view's own list and its statement agree
    assert [(column["Name"], column["Type"]) for column in view["StorageDescriptor"]["Columns"]] == columns
    listed = [(column["name"], column["type"]) for column in document["columns"]]
    assert listed == [(name, trino_type(kind)) for name, kind in columns]
    assert statement.named_selects == [name for name, _ in columns]


def test_the_crawler_owns_no_column(template: dict[str, Any]) -> None:
    crawler = template["Resources"]["PartitionCrawler"]["Properties"]
    assert crawler["SchemaChangePolicy"] == {"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"}
    assert "S3Targets" not in crawler["Targets"]
    configuration = json.loads(crawler["Configuration"])
    assert configuration["CrawlerOutput"]["Partitions"]["AddOrUpdateBehavior"] == "InheritFromTable"


def test_the_job_is_the_tables_only_writer(template: dict[str, Any]) -> None:
    job = template["Resources"]["EtlJob"]["Properties"]
    assert job["ExecutionProperty"]["MaxConcurrentRuns"] == 1
    assert job["MaxRetries"] == 0
    assert job["DefaultArguments"]["--job-bookmark-option"] == "job-bookmark-enable"


def alarms_of(template: Mapping[str, Any]) -> dict[str, Any]:
    return resources_of_type(template, "AWS::CloudWatch::Alarm") | resources_of_type(
        template, "AWS::CloudWatch::CompositeAlarm"
    )


def test_every_alarm_is_heard_in_both_directions_or_a_composite_alarm_speaks_for_it(template: dict[str, Any]) -> None:
    alarms = alarms_of(template)
    assert len(alarms) >= 30
    composites = resources_of_type(template, "AWS::CloudWatch::CompositeAlarm").values()
    rules = json.dumps([composite["Properties"]["AlarmRule"] for composite in composites]).replace("\\", "")
    spoken_for = set(re.findall(r'(?<!NOT )ALARM\("\$\{(\w+)\}"\)', rules))
    silent = {logical_id for logical_id, alarm in alarms.items() if "AlarmActions" not in alarm["Properties"]}
    assert silent
    assert silent == spoken_for
    for logical_id in alarms.keys() - silent:
        properties = alarms[logical_id]["Properties"]
        # An alarm on the notifier goes past it, to people.
        topic = "NotificationsTopic" if logical_id == "NotifierErrorsAlarm" else "AlarmsTopic"
        assert properties["AlarmActions"] == properties["OKActions"] == [{"Ref": topic}], logical_id
    assert all("OKActions" not in alarms[logical_id]["Properties"] for logical_id in silent)


def test_every_alarm_says_what_is_wrong_what_is_likely_and_what_is_next_and_has_its_entry_in_the_runbook(
    template: dict[str, Any],
) -> None:
    runbook = (REPOSITORY / "docs" / "runbook.md").read_text()
    entries = set(re.findall(r"^## ([a-z0-9-]+)$", runbook, flags=re.MULTILINE))
    for logical_id, alarm in alarms_of(template).items():
        properties = alarm["Properties"]
        # THEN the description has the parts that the notifier takes apart, and links the entry named as the alarm is
        parts = re.fullmatch(
            r".+\. Likely: .+ Next: (?:aws|tlake) .+ Runbook: \$\{RunbookUrl\}#([a-z0-9-]+)",
            properties["AlarmDescription"]["Fn::Sub"],
        )
        assert parts is not None, logical_id
        assert parts[1] in entries, logical_id
        assert properties["AlarmName"]["Fn::If"][1] == f"temperature-{parts[1]}", logical_id


def test_every_alarm_argues_its_periods_and_what_missing_data_means(template: dict[str, Any]) -> None:
    # GIVEN the comment above each metric alarm
    text = (REPOSITORY / "template.yaml").read_text()
    argued = {
        match["alarm"]: re.sub(r"\s*\n  # ", " ", match["comment"])
        for match in re.finditer(r"(?P<comment>(?:^  # .+\n)+)  (?P<alarm>\w+Alarm):\n", text, flags=re.MULTILINE)
    }
    for logical_id, alarm in resources_of_type(template, "AWS::CloudWatch::Alarm").items():
        properties = alarm["Properties"]
        periods = [metric["MetricStat"]["Period"] for metric in properties.get("Metrics", []) if "MetricStat" in metric]
        (period,) = set(periods) or {properties["Period"]}
        times = properties["EvaluationPeriods"]
        if isinstance(times, dict):
            times = times["Ref"]

        # THEN it names the numbers and the treatment as they are, and gives a reason for both
        assert re.fullmatch(
            rf"  # {times} x {period} s: .{{20,}} Missing data {properties['TreatMissingData']}: .{{10,}}",
            argued[logical_id].strip("\n"),
        ), argued[logical_id]


def test_everything_that_takes_tags_carries_the_cost_tags(template: dict[str, Any]) -> None:
    tagged = {
        "AWS::S3::Bucket",
        "AWS::Kinesis::Stream",
        "AWS::KinesisFirehose::DeliveryStream",
        "AWS::Lambda::Function",
        "AWS::SQS::Queue",
        "AWS::SNS::Topic",
        "AWS::Pipes::Pipe",
        "AWS::StepFunctions::StateMachine",
        "AWS::Glue::Job",
        "AWS::Glue::Crawler",
        "AWS::Athena::WorkGroup",
    }
    for logical_id, resource in template["Resources"].items():
        if resource["Type"] in tagged:
            tags = resource["Properties"]["Tags"]
            names = set(tags) if isinstance(tags, dict) else {tag["Key"] for tag in tags}
            assert {"application", "stage"} <= names, logical_id


def test_the_samconfig_overrides_only_parameters_that_exist() -> None:
    # GIVEN the overrides of every environment
    parameters = sam_template()["Parameters"]
    configuration = tomllib.loads((REPOSITORY / "samconfig.toml").read_text())
    overrides = {
        name: environment["deploy"]["parameters"].get("parameter_overrides", "")
        for name, environment in configuration.items()
        if isinstance(environment, dict)
    }

    # THEN each names a parameter of the template, with a value that it admits
    assert set(overrides) == {"default", "prod", "laptop"}
    for text in overrides.values():
        for assignment in text.split():
            name, _, value = assignment.partition("=")
            parameter = parameters[name]
            if parameter["Type"] == "Number":
                assert float(value) >= parameter.get("MinValue", float("-inf"))
                assert float(value) <= parameter.get("MaxValue", float("inf"))
            elif "AllowedValues" in parameter:
                assert value in parameter["AllowedValues"]


def test_nothing_that_runs_on_aws_knows_the_laptop() -> None:
    # GIVEN everything that is deployed
    deployed = [
        REPOSITORY / "template.yaml",
        REPOSITORY / "statemachine" / "pipeline.asl.json",
        *(REPOSITORY / "glue").rglob("*.py"),
        *(REPOSITORY / "functions").rglob("*.py"),
        *(REPOSITORY / "functions").rglob("*.sql"),
    ]
    assert len(deployed) > 8

    # THEN none of it has a word, a branch or an import for the embedded endpoint
    for file in deployed:
        text = file.read_text().lower()
        for word in (
            "ministack",
            "localhost",
            "127.0.0.1",
            "endpoint_url",
            "laptop",
            "emulator",
            "telemetry_lake.",
            "import telemetry_lake",
        ):
            assert word not in text, f"{file.relative_to(REPOSITORY)} says {word!r}"
