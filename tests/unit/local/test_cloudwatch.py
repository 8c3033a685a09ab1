"""CloudWatch of the embedded endpoint: the evaluation of alarms with tables, and the running service through boto3."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from telemetry_lake.local import cloudwatch
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess, wait_until

RETAIN = None
POINT = {"X": True, "0": False, "-": None}
SETTINGS = ("missing", "ignore", "breaching", "notBreaching")


# ---------------------------------------------------------------------------------------------- pure parts


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html")
@pytest.mark.parametrize(
    ("points", "needed", "states"),
    [
        # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html, both tables;
        # three evaluation periods, five data points retrieved, the newest on the right
        ("0 - X - X", 3, ("OK", "OK", "OK", "OK")),
        ("- - - - 0", 3, ("OK", "OK", "OK", "OK")),
        ("- - - - -", 3, ("INSUFFICIENT_DATA", RETAIN, "ALARM", "OK")),
        ("0 X X - X", 3, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("- - X - -", 3, ("ALARM", RETAIN, "ALARM", "OK")),
        ("0 - X - X", 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("0 0 X 0 X", 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("0 - X - -", 2, ("OK", "OK", "ALARM", "OK")),
        ("- - - - 0", 2, ("OK", "OK", "ALARM", "OK")),
        ("- - - X -", 2, ("ALARM", RETAIN, "ALARM", "OK")),
    ],
)
def test_states_with_missing_data_are_those_of_the_documentation(
    points: str, needed: int, states: tuple[str | None, ...]
) -> None:
    breaching = [POINT[point] for point in points.split()]
    assert tuple(cloudwatch.alarm_state(breaching, 3, needed, setting) for setting in SETTINGS) == states


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html")
def test_the_newest_period_holds_the_present() -> None:
    assert cloudwatch.range_end(1_760_498_443, 300) == 1_760_498_460
    assert cloudwatch.range_end(1_760_498_443, 10) == 1_760_498_450
    assert cloudwatch.range_end(1_760_498_460, 60) == 1_760_498_520


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html")
@pytest.mark.parametrize(
    ("expression", "values", "result"),
    [
        ("IF(accepted + rejected > 0, rejected / (accepted + rejected), 0)", {"accepted": 15.0, "rejected": 5.0}, 0.25),
        ("IF(accepted + rejected > 0, rejected / (accepted + rejected), 0)", {"accepted": 0.0, "rejected": 0.0}, 0.0),
        ("IF(accepted + rejected > 0, rejected / (accepted + rejected), 0)", {"accepted": 1.0, "rejected": None}, None),
        ("a / b", {"a": 1.0, "b": 0.0}, None),
        ("FILL(a, 0) + b", {"a": None, "b": 2.0}, 2.0),
        ("a >= 1 AND b < 3", {"a": 1.0, "b": 2.0}, 1.0),
        ("a > 1 || b > 3", {"a": 1.0, "b": 2.0}, 0.0),
        ("-a * 2 ", {"a": 3.0}, -6.0),
    ],
)
def test_metric_math(expression: str, values: dict[str, float | None], result: float | None) -> None:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
    assert cloudwatch.Expression(expression).value(values) == result


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html")
@pytest.mark.parametrize("expression", ["METRICS('m')", "SUM([a, b])", "a; b", "'text'", "a[0]", "FILL(a, REPEAT)"])
def test_an_expression_that_is_not_known_is_refused(expression: str) -> None:
    with pytest.raises(cloudwatch.ExpressionError):
        cloudwatch.Expression(expression)


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html")
def test_an_expression_over_an_unknown_metric_is_refused() -> None:
    stat = {"Metric": {"Namespace": "N", "MetricName": "M"}, "Period": "300", "Stat": "Sum"}
    queries: list[dict[str, Any]] = [
        {"Id": "m", "MetricStat": stat, "ReturnData": "false"},
        {"Id": "e", "Expression": "m / n"},
    ]
    with pytest.raises(cloudwatch.ExpressionError, match="names n"):
        cloudwatch.checked_metrics(queries)
    queries[1]["Expression"] = "m * 2"
    assert cloudwatch.checked_metrics(queries)[0]["MetricStat"]["Period"] == 300


def of_metrics(*periods_seconds: int) -> list[dict[str, Any]]:
    return [{"MetricStat": {"Period": period_seconds}} for period_seconds in periods_seconds]


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html")
@pytest.mark.parametrize(
    ("alarm", "problem"),
    [
        ({"Period": 45, "EvaluationPeriods": 1}, "multiple of 60"),
        ({"Period": 90, "EvaluationPeriods": 1}, "multiple of 60"),
        ({"Period": 0, "EvaluationPeriods": 1}, "multiple of 60"),
        ({"Period": "-60", "EvaluationPeriods": "1"}, "multiple of 60"),
        ({"Metrics": of_metrics(15, 15), "EvaluationPeriods": 1}, "multiple of 60"),
        ({"Period": 60, "EvaluationPeriods": 2, "DatapointsToAlarm": 3}, "DatapointsToAlarm"),
        ({"Period": 300, "EvaluationPeriods": 289}, "<= 86400"),
        ({"Period": "3600", "EvaluationPeriods": "169"}, "<= 604800"),
        ({"Metrics": of_metrics(3600), "EvaluationPeriods": 169}, "<= 604800"),
    ],
)
def test_periods_that_cloudwatch_does_not_evaluate_are_refused(alarm: dict[str, Any], problem: str) -> None:
    with pytest.raises(cloudwatch.AlarmError, match=problem):
        cloudwatch.assert_periods_allowed(alarm)


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html")
@pytest.mark.parametrize(
    "alarm",
    [
        *({"Period": period_seconds, "EvaluationPeriods": 1} for period_seconds in (10, 20, 30, 60, 180, 604_800)),
        {"Period": 10, "EvaluationPeriods": 8640},
        {"Period": 300, "EvaluationPeriods": 288, "DatapointsToAlarm": 288},
        {"Period": 3600, "EvaluationPeriods": 168},
        {"Metrics": of_metrics(3600), "EvaluationPeriods": "168", "DatapointsToAlarm": "1"},
    ],
)
def test_periods_within_the_limits_are_taken(alarm: dict[str, Any]) -> None:
    cloudwatch.assert_periods_allowed(alarm)


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html")
def test_a_reason_reads_like_cloudwatchs() -> None:
    settings: dict[str, Any] = {
        "comparison": "GreaterThanThreshold",
        "threshold": 0.0,
        "needed": 1,
        "treat_missing_data": "notBreaching",
    }
    at = 1_760_498_100.0
    assert cloudwatch.state_reason("ALARM", [(at, 3.0)], missing=0, **settings) == (
        "Threshold Crossed: 1 out of the last 1 datapoints [3.0 (15/10/25 03:15:00)] was greater than the threshold "
        "(0.0) (minimum 1 datapoint for OK -> ALARM transition)."
    )
    assert cloudwatch.state_reason("OK", [], missing=1, **settings) == (
        "Threshold Crossed: no datapoints were received for 1 period and 1 missing datapoint was treated as "
        "[NonBreaching]."
    )


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html")
def test_a_message_about_one_metric_has_cloudwatchs_fields() -> None:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html
    alarm = {
        "AlarmName": "errors",
        "AlarmArn": f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:errors",
        "Namespace": "AWS/Lambda",
        "MetricName": "Errors",
        "Dimensions": [{"Name": "FunctionName", "Value": "transform"}],
        "Statistic": "Sum",
        "Period": 300,
        "EvaluationPeriods": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 0.0,
    }
    message = cloudwatch.alarm_message(alarm, "OK", "ALARM", reason="r", moment=1_760_498_443.123, region_name="Tokyo")
    assert (message["NewStateValue"], message["OldStateValue"], message["Region"]) == ("ALARM", "OK", "Tokyo")
    assert message["AWSAccountId"] == ACCOUNT
    assert message["StateChangeTime"] == "2025-10-15T03:20:43.123+0000"
    assert message["Trigger"]["Statistic"] == "SUM"
    assert message["Trigger"]["Dimensions"] == [{"value": "transform", "name": "FunctionName"}]


@pytest.mark.source("https://github.com/localstack/localstack/pull/11828")
def test_a_message_about_a_composite_alarm_names_those_that_decided() -> None:
    # GIVEN
    child = {
        "arn": f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:errors",
        "state": {"value": "ALARM", "timestamp": "t"},
    }
    alarm = {
        "AlarmName": "all",
        "AlarmArn": f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:all",
        "AlarmRule": 'ALARM("errors")',
        "StateReasonData": json.dumps({"triggeringAlarms": [child]}),
    }

    # WHEN
    message = cloudwatch.alarm_message(alarm, "OK", "ALARM", reason="r", moment=1_760_498_443.123, region_name="Tokyo")

    # THEN
    assert message["AlarmRule"] == 'ALARM("errors")'
    assert message["TriggeringChildren"] == [{"Arn": child["arn"], "State": {"Value": "ALARM", "Timestamp": "t"}}]
    assert "Trigger" not in message


# ------------------------------------------------------------------------------------- the running service


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    endpoint = EndpointProcess(tmp_path_factory.mktemp("cloudwatch"))
    yield endpoint
    endpoint.stop()


def put(running: EndpointProcess, name: str, value: float, **more: Any) -> None:
    running.client("cloudwatch").put_metric_data(
        Namespace="TelemetryLake", MetricData=[{"MetricName": name, "Value": value, **more}]
    )


def put_alarm(running: EndpointProcess, name: str, **settings: Any) -> None:
    running.client("cloudwatch").put_metric_alarm(
        AlarmName=name,
        **{
            "Namespace": "TelemetryLake",
            "MetricName": name,
            "Statistic": "Sum",
            "Period": 10,
            "EvaluationPeriods": 1,
            "Threshold": 0,
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
            **settings,
        },
    )


def state(running: EndpointProcess, name: str) -> str:
    alarms = running.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return str(alarms[0]["StateValue"])


def queue(running: EndpointProcess, name: str, source: str) -> tuple[str, str]:
    sqs = running.client("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
    statement = {"Effect": "Allow", "Principal": {"Service": source}, "Action": "sqs:SendMessage", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    return url, arn


def received(running: EndpointProcess, url: str, count: int) -> list[dict[str, Any]]:
    bodies: list[dict[str, Any]] = []

    def enough() -> bool:
        answer = running.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            bodies.append(json.loads(message["Body"]))
            running.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return len(bodies) >= count

    wait_until(enough, 60)
    return bodies


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html")
@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html")
def test_an_alarm_rings_and_ends_without_a_new_value_and_tells_both_times(running: EndpointProcess) -> None:
    # GIVEN an alarm on one dimension, a topic that lets CloudWatch publish, another that does not, and a rule
    sns, events = running.client("sns"), running.client("events")
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    closed = sns.create_topic(Name="closed")["TopicArn"]
    for arn, service in ((topic, "cloudwatch.amazonaws.com"), (closed, "events.amazonaws.com")):
        statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sns:Publish", "Resource": arn}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        sns.set_topic_attributes(TopicArn=arn, AttributeName="Policy", AttributeValue=policy)
    messages_url, messages_arn = queue(running, "messages", "sns.amazonaws.com")
    for arn in (topic, closed):
        sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=messages_arn)
    events_url, events_arn = queue(running, "events", "events.amazonaws.com")
    pattern = {"source": ["aws.cloudwatch"], "detail": {"alarmName": ["Rejected"]}}
    events.put_rule(Name="alarms", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="alarms", Targets=[{"Id": "q", "Arn": events_arn}])
    put(running, "Rejected", 5, Dimensions=[{"Name": "Stage", "Value": "other"}])
    put(running, "Rejected", 5)
    put_alarm(
        running,
        "Rejected",
        Dimensions=[{"Name": "Stage", "Value": "dev"}],
        AlarmActions=[topic, closed],
        OKActions=[topic],
    )
    wait_until(lambda: state(running, "Rejected") == "OK")

    # WHEN a value of this dimension, from nearly the end of the range, comes, and then nothing
    dimensions = [{"Name": "Stage", "Value": "dev"}]
    put(running, "Rejected", 3, Dimensions=dimensions, Timestamp=time.time() - 12)
    wait_until(lambda: state(running, "Rejected") == "ALARM")
    wait_until(lambda: state(running, "Rejected") == "OK", 60)

    # THEN the open topic has heard of each change, in CloudWatch's words, and the closed one of none
    envelopes = received(running, messages_url, 3)
    messages = [json.loads(envelope["Message"]) for envelope in envelopes]
    changes = [(message["OldStateValue"], message["NewStateValue"]) for message in messages]
    assert changes == [("INSUFFICIENT_DATA", "OK"), ("OK", "ALARM"), ("ALARM", "OK")]
    assert {envelope["TopicArn"] for envelope in envelopes} == {topic}
    assert envelopes[1]["Subject"] == 'ALARM: "Rejected" in Asia Pacific (Tokyo)'
    assert messages[1]["NewStateReason"].startswith("Threshold Crossed: 1 out of the last 1 datapoints [3.0 (")
    history = running.client("cloudwatch").describe_alarm_history(AlarmName="Rejected", HistoryItemType="Action")
    assert any(
        item["HistorySummary"].startswith(f"Failed to execute action {closed}")
        for item in (history["AlarmHistoryItems"])
    )

    # AND so has EventBridge
    details = [event["detail"] for event in received(running, events_url, 3)]
    assert [detail["state"]["value"] for detail in details] == ["OK", "ALARM", "OK"]
    assert details[1]["previousState"]["value"] == "OK"
    metric = details[1]["configuration"]["metrics"][0]["metricStat"]["metric"]
    assert metric == {"namespace": "TelemetryLake", "name": "Rejected", "dimensions": {"Stage": "dev"}}


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/percentiles-with-low-samples.html")
def test_an_alarm_on_a_share_and_one_on_a_percentile(running: EndpointProcess) -> None:
    # GIVEN an alarm on metric math, and one on the slowest percent
    def metric(name: str, query_id: str) -> dict[str, Any]:
        stat = {"Metric": {"Namespace": "TelemetryLake", "MetricName": name}, "Period": 60, "Stat": "Sum"}
        return {"Id": query_id, "ReturnData": False, "MetricStat": stat}

    share = {"Id": "rate", "Expression": "IF(a + r > 0, r / (a + r), 0)", "Label": "share", "ReturnData": True}
    running.client("cloudwatch").put_metric_alarm(
        AlarmName="share",
        Metrics=[share, metric("ShareAccepted", "a"), metric("ShareRejected", "r")],
        EvaluationPeriods=1,
        Threshold=0.05,
        ComparisonOperator="GreaterThanThreshold",
    )
    running.client("cloudwatch").put_metric_alarm(
        AlarmName="slow",
        Namespace="TelemetryLake",
        MetricName="Seconds",
        ExtendedStatistic="p99",
        Period=60,
        EvaluationPeriods=1,
        Threshold=90,
        ComparisonOperator="GreaterThanThreshold",
    )

    # WHEN a tenth is rejected, and every value up to 100 was seen
    put(running, "ShareAccepted", 90)
    put(running, "ShareRejected", 10)
    running.client("cloudwatch").put_metric_data(
        Namespace="TelemetryLake", MetricData=[{"MetricName": "Seconds", "Values": [float(n) for n in range(1, 101)]}]
    )

    # THEN both ring, and the expression is described as it was put
    wait_until(lambda: (state(running, "share"), state(running, "slow")) == ("ALARM", "ALARM"))
    described = running.client("cloudwatch").describe_alarms(AlarmNames=["share"])["MetricAlarms"][0]
    assert described["Metrics"][0]["Expression"] == share["Expression"]
    assert "MetricName" not in described


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html")
def test_an_alarm_with_an_unknown_expression_is_refused(running: EndpointProcess) -> None:
    with pytest.raises(ClientError, match="does not know") as problem:
        running.client("cloudwatch").put_metric_alarm(
            AlarmName="refused",
            Metrics=[{"Id": "e", "Expression": "ANOMALY_DETECTION_BAND(m)", "ReturnData": True}],
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="GreaterThanThreshold",
        )
    assert problem.value.response["Error"]["Code"] == "ValidationError"


@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-cloudwatch-alarm.html"
)
def test_an_alarm_with_metric_math_comes_from_a_template(running: EndpointProcess) -> None:
    # GIVEN a template with numbers and booleans as text, as parameters give them
    template = {
        "Resources": {
            "Share": {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {
                    "AlarmName": "from-template",
                    "Metrics": [
                        {"Id": "rate", "Expression": "bad / 2"},
                        {
                            "Id": "bad",
                            "ReturnData": "false",
                            "MetricStat": {
                                "Metric": {"Namespace": "TelemetryLake", "MetricName": "TemplateBad"},
                                "Period": "60",
                                "Stat": "Sum",
                            },
                        },
                    ],
                    "EvaluationPeriods": 1,
                    "Threshold": 1,
                    "ComparisonOperator": "GreaterThanThreshold",
                    "TreatMissingData": "notBreaching",
                },
            }
        }
    }
    formation = running.client("cloudformation")

    # WHEN it is deployed
    formation.create_stack(StackName="alarm", TemplateBody=json.dumps(template))
    formation.get_waiter("stack_create_complete").wait(StackName="alarm", WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    put(running, "TemplateBad", 4)

    # THEN the alarm rings
    wait_until(lambda: state(running, "from-template") == "ALARM")


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html")
def test_an_alarm_whose_periods_are_refused_comes_in_neither_way(running: EndpointProcess) -> None:
    # WHEN it is put
    with pytest.raises(ClientError, match="DatapointsToAlarm must be less than or equal to") as problem:
        put_alarm(running, "too-many", EvaluationPeriods=2, DatapointsToAlarm=3)

    # THEN it is refused
    assert problem.value.response["Error"]["Code"] == "ValidationError"

    # WHEN it is in a template
    properties = {
        "AlarmName": "too-many",
        "Namespace": "TelemetryLake",
        "MetricName": "M",
        "Statistic": "Sum",
        "Period": 45,
        "EvaluationPeriods": 1,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanThreshold",
    }
    template = {"Resources": {"TooMany": {"Type": "AWS::CloudWatch::Alarm", "Properties": properties}}}
    formation = running.client("cloudformation")
    formation.create_stack(StackName="refused", TemplateBody=json.dumps(template), OnFailure="DO_NOTHING")

    # THEN the stack fails for it
    def reasons() -> list[str]:
        events = formation.describe_stack_events(StackName="refused")["StackEvents"]
        return [event["ResourceStatusReason"] for event in events if event["ResourceStatus"] == "CREATE_FAILED"]

    assert any("multiple of 60" in reason for reason in wait_until(reasons))
    assert not running.client("cloudwatch").describe_alarms(AlarmNames=["too-many"])["MetricAlarms"]


@pytest.mark.source("https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html")
@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html"
)
def test_streams_and_queues_have_their_metrics(running: EndpointProcess) -> None:
    # GIVEN records put and read, and a message that waits
    kinesis = running.client("kinesis")
    kinesis.create_stream(StreamName="readings", ShardCount=1)
    wait_until(lambda: kinesis.describe_stream_summary(StreamName="readings")["StreamDescriptionSummary"])
    wait_until(
        lambda: (
            kinesis.describe_stream_summary(StreamName="readings")["StreamDescriptionSummary"]["StreamStatus"]
            == "ACTIVE"
        )
    )
    kinesis.put_records(StreamName="readings", Records=[{"Data": b"x" * 30, "PartitionKey": "p"}] * 4)
    kinesis.put_record(StreamName="readings", Data=b"y" * 30, PartitionKey="p")
    shard = kinesis.list_shards(StreamName="readings")["Shards"][0]["ShardId"]
    iterator = kinesis.get_shard_iterator(StreamName="readings", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    time.sleep(0.2)
    assert len(kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]) == 5

    # WHEN the metrics are asked for
    def statistics(name: str, statistic: str, namespace: str, dimension: str, value: str) -> float | None:
        now = time.time()
        points = running.client("cloudwatch").get_metric_statistics(
            Namespace=namespace,
            MetricName=name,
            Dimensions=[{"Name": dimension, "Value": value}],
            StartTime=now - 600,
            EndTime=now + 60,
            Period=3600,
            Statistics=[statistic],
        )["Datapoints"]
        return float(points[0][statistic]) if points else None

    def of_stream(name: str, statistic: str = "Sum") -> float | None:
        return statistics(name, statistic, "AWS/Kinesis", "StreamName", "readings")

    # THEN they tell what happened
    wait_until(lambda: of_stream("GetRecords.Records") == 5)
    assert of_stream("IncomingRecords") == 5
    assert of_stream("IncomingBytes") == 150
    assert of_stream("PutRecords.SuccessfulRecords") == 4
    assert of_stream("WriteProvisionedThroughputExceeded") == 0
    age = of_stream("GetRecords.IteratorAgeMilliseconds", "Maximum")
    assert age is not None
    assert 200 <= age < 20_000


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html")
def test_old_points_become_one_a_minute_with_the_same_statistics() -> None:
    # GIVEN values of two minutes, some of them already sets
    points: list[dict[str, Any]] = [
        {"Timestamp": 60.0, "Value": 1.0, "Unit": "Count", "Dimensions": {}},
        {"Timestamp": 70.0, "Value": 3.0, "Unit": "Count", "Count": 2.0, "Dimensions": {}},
        {
            "Timestamp": 80.0,
            "Value": 5.0,
            "Unit": "Count",
            "Dimensions": {},
            "_stat": {"SampleCount": 2.0, "Sum": 10.0, "Minimum": 0.0, "Maximum": 10.0},
        },
        {"Timestamp": 80.0, "Value": 7.0, "Unit": "Bytes", "Dimensions": {}},
        {"Timestamp": 130.0, "Value": 9.0, "Unit": "Count", "Dimensions": {}},
    ]

    # WHEN
    first, other_unit, next_minute = cloudwatch.thinned(points)

    # THEN
    assert first["_stat"] == {"SampleCount": 5.0, "Sum": 17.0, "Minimum": 0.0, "Maximum": 10.0}
    assert first["Value"] == 17.0 / 5
    assert (other_unit["Unit"], other_unit["_stat"]["Sum"]) == ("Bytes", 7.0)
    assert (next_minute["Timestamp"], next_minute["_stat"]["Sum"]) == (130.0, 9.0)

    # AND doing it again changes nothing
    assert cloudwatch.thinned([first, other_unit, next_minute]) == [first, other_unit, next_minute]


@pytest.mark.source(
    "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html"
)
def test_a_queues_oldest_message_grows_older() -> None:
    # GIVEN a service over a queue with two messages, one of them being worked on
    stored = {
        "name": "trigger",
        "messages": [{"sent_at": 100.0, "visible_at": 500.0}, {"sent_at": 150.0, "visible_at": 150.0}],
    }
    told: dict[str, float] = {}

    class FakeEndpoint:
        def put_metric(self, namespace: str, name: str, value: float, _unit: str, dimensions: dict[str, str]) -> None:
            assert (namespace, dimensions) == ("AWS/SQS", {"QueueName": "trigger"})
            told[name] = value

    # WHEN it is sampled
    cloudwatch.sample_queue(FakeEndpoint(), stored, now=400.0)  # type: ignore[arg-type]

    # THEN the age is that of the oldest that was not deleted
    assert told == {
        "ApproximateNumberOfMessagesVisible": 1,
        "ApproximateNumberOfMessagesNotVisible": 1,
        "ApproximateAgeOfOldestMessage": 300.0,
    }


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html")
def test_metric_data_are_statistics_of_whole_periods_of_just_these_dimensions(running: EndpointProcess) -> None:
    # GIVEN values in two minutes, and one of another dimension
    minute = int(time.time()) // 60 * 60 - 300
    for value, second, stage in ((1.0, 0, "a"), (4.0, 59, "a"), (7.0, 60, "a"), (100.0, 0, "b")):
        dimensions = [{"Name": "Stage", "Value": stage}]
        put(running, "Counted", value, Timestamp=minute + second, Dimensions=dimensions)
    metric = {
        "Namespace": "TelemetryLake",
        "MetricName": "Counted",
        "Dimensions": [{"Name": "Stage", "Value": "a"}],
    }

    # WHEN several statistics are asked for at once, and a metric that nobody put
    stats: dict[str, dict[str, Any]] = {
        stat.lower(): {"Metric": metric, "Period": 60, "Stat": stat} for stat in ("Sum", "Maximum", "SampleCount")
    }
    stats["nothing"] = {"Metric": {**metric, "MetricName": "Never"}, "Period": 60, "Stat": "Sum"}
    answer = running.client("cloudwatch").get_metric_data(
        MetricDataQueries=[{"Id": name, "MetricStat": stat} for name, stat in stats.items()],
        StartTime=minute - 60,
        EndTime=minute + 120,
        ScanBy="TimestampAscending",
    )

    # THEN
    results = {each["Id"]: each for each in answer["MetricDataResults"]}
    assert {name: each["Values"] for name, each in results.items()} == {
        "sum": [5.0, 7.0],
        "maximum": [4.0, 7.0],
        "samplecount": [2.0, 1.0],
        "nothing": [],
    }
    assert [moment.timestamp() for moment in results["sum"]["Timestamps"]] == [minute, minute + 60]


@pytest.mark.source("https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetDashboard.html")
def test_a_dashboard_is_given_back_as_it_was_put(running: EndpointProcess) -> None:
    # GIVEN
    cloudwatch_client = running.client("cloudwatch")
    body = json.dumps({"widgets": [{"type": "text", "properties": {"markdown": "# Ünicode"}}]})
    cloudwatch_client.put_dashboard(DashboardName="temperature", DashboardBody=body)

    # WHEN
    found = cloudwatch_client.get_dashboard(DashboardName="temperature")
    with pytest.raises(ClientError) as refused:
        cloudwatch_client.get_dashboard(DashboardName="another")

    # THEN
    assert json.loads(found["DashboardBody"]) == json.loads(body)
    assert found["DashboardName"] == "temperature"
    assert refused.value.response["Error"]["Code"] == "ResourceNotFound"
