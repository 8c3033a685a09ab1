"""Each of the project's own cfn-guard rules can fail, and fails for its reason alone."""

import copy
import functools
from pathlib import Path
from typing import Any

import pytest

from tests.judging import JudgeUnavailableError
from tests.template import guard

KEY = {"Encryption": "CustomerKey"}
RAW = "Resources.DataBucket.Properties"
QUEUE = "Resources.TriggerQueue.Properties"
POLICY = "Resources.TriggerQueuePolicy.Properties.PolicyDocument.Statement.0"
KEY_POLICY = "Resources.DataKey.Properties.KeyPolicy.Statement"
DESTINATION = "Resources.DeliveryStream.Properties.ExtendedS3DestinationConfiguration"
TOPIC_POLICY = "Resources.AlarmsTopicPolicy.Properties.PolicyDocument.Statement.0"
ALARM = "Resources.TransformErrorsAlarm.Properties"
CRAWLER = "Resources.PartitionCrawler.Properties"
JOB = "Resources.EtlJob.Properties"
WORKGROUP = "Resources.AnalyticsWorkGroup.Properties.WorkGroupConfiguration"
GONE = object()

# rule -> faults; each is (where, what stands there instead), planted alone.
FAULTS: dict[str, list[tuple[str, Any]]] = {
    "alarm_publishes_to_a_topic_of_the_stack": [
        (f"{ALARM}.AlarmActions", []),
        (f"{ALARM}.AlarmActions.0", {"Ref": "TriggerQueue"}),
        (f"{ALARM}.OKActions", GONE),
        (f"{ALARM}.ActionsEnabled", False),
    ],
    "composite_alarm_is_heard": [
        ("Resources.RunsFailAlarm.Properties.AlarmActions", []),
        ("Resources.DataIsLateAlarm.Properties.AlarmActions", GONE),
    ],
    "alarm_topic_admits_cloudwatch": [
        (f"{TOPIC_POLICY}.Principal", {"Service": "s3.amazonaws.com"}),
        ("Resources.AlarmsTopicPolicy", GONE),
    ],
    "topic_key_is_not_one_that_cloudwatch_cannot_use": [
        ("Resources.AlarmsTopic.Properties.KmsMasterKeyId", "alias/aws/sns"),
    ],
    "topic_is_on_the_customer_key": [("Resources.AlarmsTopic.Properties.KmsMasterKeyId", GONE)],
    "customer_key_admits_cloudwatch": [
        (f"{KEY_POLICY}.1.Action", ["kms:Decrypt"]),
        (f"{KEY_POLICY}.1.Effect", "Deny"),
    ],
    "every_event_for_a_queue_of_the_stack_has_dead_letters": [
        ("Resources.RawObjectRule.Properties.Targets.0.DeadLetterConfig", GONE),
    ],
    "queue_admits_the_rule": [
        (f"{POLICY}.Principal", {"Service": "sns.amazonaws.com"}),
        (f"{POLICY}.Condition", GONE),
        (f"{POLICY}.Resource.0", GONE),
        ("Resources.TriggerQueuePolicy", GONE),
    ],
    "queue_key_is_not_one_that_event_bridge_cannot_use": [(f"{QUEUE}.KmsMasterKeyId", "alias/aws/sqs")],
    "queue_is_on_the_customer_key": [("Resources.TriggerDeadLetterQueue.Properties.KmsMasterKeyId", GONE)],
    "customer_key_admits_event_bridge": [(f"{KEY_POLICY}.2.Action", ["kms:GenerateDataKey"])],
    "message_is_hidden_for_longer_than_the_pipe_collects": [
        (f"{QUEUE}.VisibilityTimeout", 300),
        (f"{QUEUE}.VisibilityTimeout", GONE),
    ],
    "message_has_several_attempts": [(f"{QUEUE}.RedrivePolicy.maxReceiveCount", 1)],
    "trigger_is_kept_for_14_days": [("Resources.TriggerDeadLetterQueue.Properties.MessageRetentionPeriod", GONE)],
    "bucket_takes_tls_only": [
        ("Resources.AnalyticsBucketPolicy", GONE),
        ("Resources.DataBucketPolicy.Properties.PolicyDocument.Statement.0.Effect", "Allow"),
        ("Resources.DataBucketPolicy.Properties.PolicyDocument.Statement.0.Resource.1", GONE),
    ],
    "bucket_is_private": [
        (f"{RAW}.PublicAccessBlockConfiguration.BlockPublicAcls", False),
        (f"{RAW}.PublicAccessBlockConfiguration", GONE),
        (f"{RAW}.OwnershipControls", GONE),
    ],
    "bucket_is_encrypted": [(f"{RAW}.BucketEncryption", GONE)],
    "bucket_is_on_the_customer_key_with_a_bucket_key": [
        (f"{RAW}.BucketEncryption.ServerSideEncryptionConfiguration.0.BucketKeyEnabled", GONE),
        (
            f"{RAW}.BucketEncryption.ServerSideEncryptionConfiguration.0.ServerSideEncryptionByDefault",
            {"SSEAlgorithm": "AES256"},
        ),
    ],
    "stream_is_encrypted": [("Resources.TemperatureStream.Properties.StreamEncryption", GONE)],
    "stream_is_on_the_customer_key": [
        ("Resources.TemperatureStream.Properties.StreamEncryption.KeyId", "alias/aws/kinesis"),
    ],
    "data_outlives_the_stack": [
        ("Resources.DataBucket.DeletionPolicy", GONE),
        ("Resources.TemperatureStream.UpdateReplacePolicy", "Delete"),
    ],
    "archived_object_stays_readable": [
        (f"{RAW}.LifecycleConfiguration.Rules.2.Transitions.0.StorageClass", "GLACIER"),
        (f"{RAW}.IntelligentTieringConfigurations", [{"Id": "archive", "Status": "Enabled", "Tierings": []}]),
    ],
    "incomplete_upload_ends": [(f"{RAW}.LifecycleConfiguration.Rules.0", GONE)],
    "customer_key_rotates_and_is_not_open": [
        ("Resources.DataKey.Properties.EnableKeyRotation", False),
        (f"{KEY_POLICY}.0.Principal", "*"),
        (f"{KEY_POLICY}.0.Principal", {"AWS": "*"}),
        (f"{KEY_POLICY}.1.Condition", GONE),
    ],
    "log_group_has_a_retention": [("Resources.TransformLogGroup.Properties.RetentionInDays", GONE)],
    "log_group_is_on_the_customer_key": [("Resources.TransformLogGroup.Properties.KmsKeyId", GONE)],
    "customer_key_admits_logs_of_this_account": [(f"{KEY_POLICY}.3", GONE)],
    "function_logs_to_a_group_of_the_stack": [("Resources.TransformFunction.Properties.LoggingConfig", GONE)],
    "delivery_logs_to_a_group_of_the_stack": [
        (f"{DESTINATION}.CloudWatchLoggingOptions.Enabled", False),
        (f"{DESTINATION}.CloudWatchLoggingOptions.LogStreamName", "DestinationDelivery"),
    ],
    "machine_logs_failures_to_a_group_of_the_stack": [
        ("Resources.PipelineStateMachine.Properties.LoggingConfiguration.Level", "OFF"),
    ],
    "delivery_from_a_stream_has_no_encryption_of_its_own": [
        (
            "Resources.DeliveryStream.Properties.DeliveryStreamEncryptionConfigurationInput",
            {"KeyType": "AWS_OWNED_CMK"},
        ),
    ],
    "raw_object_is_gzip_under_its_own_name": [
        (f"{DESTINATION}.FileExtension", ".json"),
        (f"{DESTINATION}.CompressionFormat", "UNCOMPRESSED"),
        (f"{DESTINATION}.Prefix", "raw/"),
    ],
    "error_output_is_outside_of_the_raw_zone": [
        (f"{DESTINATION}.ErrorOutputPrefix", "raw_data/errors/!{firehose:error-output-type}/"),
    ],
    "raw_zone_is_by_arrival": [(f"{DESTINATION}.DynamicPartitioningConfiguration", {"Enabled": True})],
    "delivery_transforms_every_record": [
        (f"{DESTINATION}.ProcessingConfiguration.Enabled", False),
        (f"{DESTINATION}.ProcessingConfiguration.Processors", []),
    ],
    "bucket_of_the_raw_zone_tells_event_bridge": [
        (f"{RAW}.NotificationConfiguration", GONE),
        ("Resources.RawObjectRule.Properties.EventPattern.detail.object.key.0.prefix", "raw-data/"),
        ("Resources.RawObjectRule.Properties.EventPattern.detail.bucket.name.0", {"Ref": "AnalyticsBucket"}),
    ],
    "job_is_the_only_writer": [
        (f"{JOB}.ExecutionProperty.MaxConcurrentRuns", 2),
        (f"{JOB}.ExecutionProperty", GONE),
        (f"{JOB}.MaxRetries", 1),
    ],
    "job_is_bounded_and_its_version_is_chosen": [(f"{JOB}.GlueVersion", GONE), (f"{JOB}.Timeout", GONE)],
    "job_remembers_what_it_read": [(f"{JOB}.DefaultArguments.--job-bookmark-option", "job-bookmark-disable")],
    "job_is_on_the_customer_key": [
        (f"{JOB}.SecurityConfiguration", GONE),
        (
            "Resources.JobSecurity.Properties.EncryptionConfiguration.JobBookmarksEncryption",
            {"JobBookmarksEncryptionMode": "DISABLED"},
        ),
    ],
    "crawler_of_a_catalog_table_only_adds_partitions": [
        (f"{CRAWLER}.RecrawlPolicy.RecrawlBehavior", "CRAWL_NEW_FOLDERS_ONLY"),
        (f"{CRAWLER}.SchemaChangePolicy.DeleteBehavior", "DEPRECATE_IN_DATABASE"),
        (f"{CRAWLER}.Configuration", GONE),
    ],
    "partition_keys_are_ints": [
        ("Resources.TelemetryTable.Properties.TableInput.PartitionKeys.0.Type", "string"),
    ],
    "workgroup_decides_and_limits": [
        (f"{WORKGROUP}.EnforceWorkGroupConfiguration", False),
        (f"{WORKGROUP}.BytesScannedCutoffPerQuery", GONE),
        (f"{WORKGROUP}.ResultConfiguration.EncryptionConfiguration", GONE),
    ],
    "workgroup_is_on_the_customer_key": [
        (f"{WORKGROUP}.ResultConfiguration.EncryptionConfiguration", {"EncryptionOption": "SSE_S3"}),
    ],
    "parameter_with_a_secrets_name_is_not_shown": [
        ("Parameters.ApiToken", {"Type": "String"}),
        ("Parameters.DatabasePassword", {"Type": "String", "NoEcho": True, "Default": "changeme"}),
    ],
    "function_has_no_setting_with_a_secrets_name": [
        ("Resources.TransformFunction.Properties.Environment.Variables.API_KEY", "x"),
    ],
    "job_has_no_argument_with_a_secrets_name": [(f"{JOB}.DefaultArguments.--api-key", "x")],
}


def planted(document: dict[str, Any], where: str, instead: Any) -> dict[str, Any]:
    """Return a copy of the document in which ``instead`` stands at the dotted path."""
    changed = copy.deepcopy(document)
    *parents, last = where.split(".")
    node: Any = changed
    for step in parents:
        node = node[int(step)] if isinstance(node, list) else node[step]
    if isinstance(node, list):
        if instead is GONE:
            del node[int(last)]
        else:
            node[int(last)] = instead
    elif instead is GONE:
        del node[last]
    else:
        node[last] = instead
    return changed


def fault_names() -> list[tuple[str, int]]:
    return [(rule, number) for rule, faults in FAULTS.items() for number in range(len(faults))]


@functools.cache
def sound_document() -> dict[str, Any]:
    return guard.document(KEY)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, guard.Outcome]:
    """What all rules say of the sound template, and the file of a rule of what breaks it."""
    work = tmp_path_factory.mktemp("guard")
    found = guard.evaluate(guard.OWN_RULES, {"sound": sound_document()}, work)
    for file in sorted(guard.OWN_RULES.glob("*.guard")):
        rules = guard.rule_names_in(file)
        documents = {
            f"{rule}-{number}": planted(sound_document(), *FAULTS[rule][number])
            for rule, number in fault_names()
            if rule in rules
        }
        found |= guard.evaluate(file, documents, work)
    return found


def test_every_own_rule_has_a_planted_fault_and_a_name_of_its_own() -> None:
    names = guard.rule_names(guard.OWN_RULES)
    assert sorted(names) == sorted(FAULTS)


def test_the_template_as_it_is_breaks_no_own_rule(outcomes: dict[str, guard.Outcome]) -> None:
    assert outcomes["sound"].broken == {}


@pytest.mark.parametrize(("rule", "number"), fault_names())
def test_a_planted_fault_breaks_its_rule(outcomes: dict[str, guard.Outcome], rule: str, number: int) -> None:
    assert rule in outcomes[f"{rule}-{number}"].broken


@pytest.mark.parametrize("where", ["Resources.TransformFunction.Properties.Nothing", "Resources.Nobody.Properties.X"])
def test_a_fault_that_cannot_be_planted_is_an_error(where: str) -> None:
    with pytest.raises(KeyError):
        planted(sound_document(), where, GONE)


def test_a_control_that_breaks_without_an_argument_is_a_finding_and_an_idle_argument_too() -> None:
    # GIVEN a resource that breaks a control, with an argument for its neighbour alone
    broken = guard.Broken("bucket_check", "CT.S3.PR.1", frozenset({"DataBucket", "AnalyticsBucket"}))
    outcomes = {"SSE-S3": guard.Outcome(frozenset(), {"bucket_check": broken})}
    allowed = [
        guard.Suppression("CT.S3.PR.1", ("SSE-S3",), frozenset({"AnalyticsBucket"}), "because"),
        guard.Suppression("CT.S3.PR.7", ("SSE-S3",), frozenset({"DataBucket"}), "because"),
    ]

    # WHEN they are compared
    findings = list(guard.unsuppressed(outcomes, allowed))

    # THEN both are named
    assert findings == [
        "CT.S3.PR.1 (bucket_check): DataBucket with SSE-S3",
        "the suppression of CT.S3.PR.7 for DataBucket with SSE-S3 is not needed",
    ]


def test_every_suppression_has_an_argument() -> None:
    for suppression in guard.suppressions():
        assert len(suppression.argument) > 40, suppression.control


def test_a_rule_file_that_does_not_parse_makes_the_judge_unavailable(tmp_path: Path) -> None:
    # GIVEN a broken rule file: cfn-guard itself would go on without it
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "broken.guard").write_text("rule no_end when {")

    # THEN that is no silent skip
    with pytest.raises(JudgeUnavailableError):
        guard.evaluate(tmp_path / "rules", {"sound": sound_document()}, tmp_path)
