"""Amazon CloudWatch: alarms that are evaluated as time passes, and metrics that AWS services emit by themselves.

MiniStack keeps metrics and alarms and evaluates an alarm when a value is put. Here a worker evaluates every metric
alarm every few seconds, over the right dimensions, with missing data, and tells SNS and EventBridge about each change
of state. The metrics of Step Functions, Firehose and others come from their modules, those of Lambda from MiniStack.

Known deviations from AWS:

* Alarms are evaluated every five seconds and see what was put at once, also in the minute that is not over yet; AWS
  evaluates every minute and sees metrics minutes late. How many periods more than ``EvaluationPeriods`` AWS looks back
  is not documented: two, as in the examples of its documentation.
* Metric math knows numbers, metrics by id, arithmetic, comparisons, ``AND``, ``OR``, ``IF``, ``FILL`` with a number;
  another expression is refused when the alarm is put. GetMetricData has no expressions, and there are no anomaly
  detection bands.
* ``EvaluateLowSampleCountPercentile`` is not looked at. Actions other than SNS topics are recorded as failed.
* A kill in the moment between a change of state and its message loses the message.
* The key policy of an encrypted topic is not looked at when an alarm publishes.
* An SQS queue has ``ApproximateAgeOfOldestMessage`` and the approximate numbers of messages, every minute; a Kinesis
  stream's metrics come from its module, and shards have none.
* Services' own metrics have one point a minute, without percentiles (AWS has those of Lambda's duration).
* What was put is kept as it was put for three hours, and then, until it is fourteen days old, as one point a minute.
"""

import ast
import copy
import itertools
import json
import logging
import math
import operator
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

SERVICE_PRINCIPAL = "cloudwatch.amazonaws.com"
EVALUATION_SECONDS = 5.0
FLUSH_SECONDS = 2.0
SAMPLE_SECONDS = 60.0
EVICTION_SECONDS = 600.0
# "Data points with a period of less than 60 seconds are available for 3 hours", those of a minute for 15 days
# (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html).
FINE_SECONDS = 3 * 3600.0
# "CloudWatch attempts to retrieve a higher number of data points than specified by Evaluation Periods"
# (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html).
EXTRA_PERIODS = 2
SUBJECT_CHARACTERS = 100
HOUR_SECONDS = 3600
DAY_SECONDS = 24 * HOUR_SECONDS
DEFAULT_PERIOD_SECONDS = 60
HIGH_RESOLUTION_PERIODS = (10, 20, 30)

# A value against the threshold, and what StateReason says about it.
COMPARISONS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}
ACTIONS_BY_STATE = {
    "ALARM": "AlarmActions",
    "OK": "OKActions",
    "INSUFFICIENT_DATA": "InsufficientDataActions",
}

logger = logging.getLogger("telemetry_lake.local.cloudwatch")


# -------------------------------------------------------------------------------------- pure: evaluation


def alarm_state(
    breaching: Sequence[bool | None], evaluation_periods: int, datapoints_to_alarm: int, treat_missing_data: str
) -> str | None:
    """Decide an alarm's state from the data points of its evaluation range.

    See https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html.

    Args:
        breaching: One entry a period, the oldest first; None where there is no data.
        evaluation_periods: N, how many data points count.
        datapoints_to_alarm: M, how many of them have to breach.
        treat_missing_data: ``missing``, ``ignore``, ``breaching`` or ``notBreaching``.

    Returns:
        ``ALARM``, ``OK``, ``INSUFFICIENT_DATA``, or None to keep the current state.

    >>> alarm_state([False, None, True, None, True], 3, 2, "missing")
    'ALARM'
    """
    real = [point for point in breaching if point is not None]
    counted = real[-evaluation_periods:]
    if len(counted) == evaluation_periods or sum(counted) >= datapoints_to_alarm:
        return "ALARM" if sum(counted) >= datapoints_to_alarm else "OK"
    missing = evaluation_periods - len(counted)
    if treat_missing_data == "breaching":
        return "ALARM" if sum(counted) + missing >= datapoints_to_alarm else "OK"
    if treat_missing_data == "notBreaching":
        return "OK"
    if not counted:
        return None if treat_missing_data == "ignore" else "INSUFFICIENT_DATA"
    if not all(counted):
        return "OK"
    # Only breaching data, less than M: an alarm if the oldest is M periods old, so that a metric that falls
    # silent after it is noticed, and no alarm yet if the other periods may still come.
    is_old_enough = len(breaching) - list(breaching).index(True) >= datapoints_to_alarm
    return "ALARM" if treat_missing_data == "missing" and is_old_enough else None


def range_end(now: float, period_seconds: int) -> float:
    """Return the end of the newest period: the next whole minute, or period if that is shorter."""
    step = min(period_seconds, 60)
    return math.floor(now / step) * step + step


class AlarmError(ValueError):
    """An alarm is one that CloudWatch refuses."""


class ExpressionError(AlarmError):
    """A metric math expression uses what is not supported."""


_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.BitXor: operator.pow,
}
_RELATIONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


class Expression:
    """A metric math expression over metrics of the same period.

    See https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html: a result has a value
    where all metrics that it uses have one, comparisons give 1 or 0, and a division by zero gives no value.

    Raises:
        ExpressionError: it uses more than this module knows.
    """

    def __init__(self, text: str) -> None:
        python = text.replace("&&", " and ").replace("||", " or ").replace(" AND ", " and ").replace(" OR ", " or ")
        try:
            self._tree = ast.parse(python.strip(), mode="eval").body
        except SyntaxError as problem:
            raise ExpressionError(f"The expression {text!r} cannot be read: {problem}") from problem
        self._text = text
        self.names: set[str] = set()
        self._check(self._tree)

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.Constant(value=int() | float()):
                parts: list[ast.expr] = []
            case ast.Name(id=name):
                self.names.add(name)
                parts = []
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                parts = [left, right]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                parts = [operand]
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _RELATIONS:
                parts = [left, right]
            case ast.BoolOp(values=values):
                parts = values
            case ast.Call(func=ast.Name(id="IF"), args=[_, _, _] as args, keywords=[]):
                parts = args
            case ast.Call(func=ast.Name(id="FILL"), args=[ast.Name(), ast.Constant(value=int() | float())] as args):
                parts = args
            case _:
                raise ExpressionError(
                    f"The embedded endpoint does not know {ast.unparse(node)!r} in the expression {self._text!r}"
                )
        for part in parts:
            self._check(part)

    def value(self, metrics: Mapping[str, float | None]) -> float | None:
        """Return the result of one period, None without one."""
        try:
            return self._value(self._tree, metrics)
        except (ZeroDivisionError, OverflowError):
            return None

    def _value(self, node: ast.expr, metrics: Mapping[str, float | None]) -> float | None:  # noqa: PLR0911
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name):
                return metrics[name]
            case ast.Call(func=ast.Name(id="FILL"), args=[inner, fill]):
                found = self._value(inner, metrics)
                return self._value(fill, metrics) if found is None else found
            case ast.Call(args=[condition, yes, no]):
                chosen = self._value(condition, metrics)
                return None if chosen is None else self._value(yes if chosen else no, metrics)
            case ast.UnaryOp(operand=operand):
                inner_value = self._value(operand, metrics)
                return None if inner_value is None else -inner_value
            case ast.BoolOp(op=op, values=nodes):
                results = [self._value(part, metrics) for part in nodes]
                if None in results:
                    return None
                return float((all if isinstance(op, ast.And) else any)(results))
            case ast.BinOp(left=left, right=right) | ast.Compare(left=left, comparators=[right]):
                first, second = self._value(left, metrics), self._value(right, metrics)
                if first is None or second is None:
                    return None
                if isinstance(node, ast.BinOp):
                    return float(_ARITHMETIC[type(node.op)](first, second))
                assert isinstance(node, ast.Compare)  # noqa: S101  the pattern has seen it; mypy has not
                return float(_RELATIONS[type(node.ops[0])](first, second))
        raise ExpressionError(f"The expression {self._text!r} was not checked")  # pragma: no cover


def checked_metrics(metrics: Any) -> list[dict[str, Any]]:
    """Return an alarm's ``Metrics`` with numbers as numbers.

    Raises:
        ExpressionError: they are not what an alarm can be evaluated with.
    """
    checked = copy.deepcopy(list(metrics))
    ids = {query["Id"] for query in checked}
    for query in checked:
        query["ReturnData"] = str(query.get("ReturnData", True)).lower() == "true"
        if "Expression" in query:
            unknown = Expression(query["Expression"]).names - ids
            if unknown:
                raise ExpressionError(f"The expression {query['Expression']!r} names {', '.join(sorted(unknown))}")
        else:
            query["MetricStat"]["Period"] = int(query["MetricStat"]["Period"])
    if sum(query["ReturnData"] for query in checked) != 1:
        raise ExpressionError("Exactly one element of the metrics list should return data.")
    if len({query["MetricStat"]["Period"] for query in checked if "MetricStat" in query}) != 1:
        raise ExpressionError("All metrics of an alarm have to have the same period")
    return checked


def assert_periods_allowed(alarm: Mapping[str, Any]) -> None:
    """Refuse the periods of an alarm that CloudWatch refuses.

    See https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html.

    Args:
        alarm: The alarm as a request or a template has it; numbers may be text.

    Raises:
        AlarmError: CloudWatch does not evaluate such periods.
    """
    stats = [query["MetricStat"] for query in alarm.get("Metrics") or [] if "MetricStat" in query] or [alarm]
    period_seconds = max(int(stat.get("Period", DEFAULT_PERIOD_SECONDS)) for stat in stats)
    evaluation_periods = int(alarm.get("EvaluationPeriods", 1))
    if period_seconds not in HIGH_RESOLUTION_PERIODS and (period_seconds <= 0 or period_seconds % 60):
        raise AlarmError("Period must be 10, 20, 30 or a multiple of 60")
    if int(alarm.get("DatapointsToAlarm", evaluation_periods)) > evaluation_periods:
        raise AlarmError("DatapointsToAlarm must be less than or equal to EvaluationPeriods")
    longest_seconds = DAY_SECONDS if period_seconds < HOUR_SECONDS else 7 * DAY_SECONDS
    if evaluation_periods * period_seconds > longest_seconds:
        raise AlarmError(f"EvaluationPeriods * Period must be <= {longest_seconds} for a Period of {period_seconds}")


# ---------------------------------------------------------------------------------------- pure: messages


def alarm_time(moment: float) -> str:
    """Return a time as alarms write it.

    >>> alarm_time(1760498443.123)
    '2025-10-15T03:20:43.123+0000'
    """
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000")


def state_reason(
    state: str,
    points: Sequence[tuple[float, float]],
    *,
    comparison: str,
    threshold: float,
    needed: int,
    missing: int,
    treat_missing_data: str,
) -> str:
    """Say why an alarm changed, in CloudWatch's words.

    Args:
        state: The new state.
        points: Time and value of the data points that decided, the newest first.
        comparison: The alarm's ``ComparisonOperator``.
        threshold: The alarm's threshold.
        needed: M, its ``DatapointsToAlarm``.
        missing: How many data points were not there.
        treat_missing_data: The alarm's ``TreatMissingData``.
    """
    plural = "" if missing == 1 else "s"
    treated = f"{missing} missing datapoint{plural} {'was' if missing == 1 else 'were'} treated as"
    if state == "INSUFFICIENT_DATA":
        return f"Insufficient Data: {missing} datapoint{plural} {'was' if missing == 1 else 'were'} unknown."
    if not points:
        kind = "Breaching" if treat_missing_data == "breaching" else "NonBreaching"
        return f"Threshold Crossed: no datapoints were received for {missing} period{plural} and {treated} [{kind}]."
    compare, words = COMPARISONS[comparison]
    wanted = [point for point in points if compare(point[1], threshold) == (state == "ALARM")]
    listed = ", ".join(
        f"{value} ({datetime.fromtimestamp(at, UTC):%d/%m/%y %H:%M:%S})" for at, value in (wanted or points)
    )
    was = "was" if state == "ALARM" else "was not"
    if len(wanted) > 1:
        was = was.replace("was", "were")
    direction = "OK -> ALARM" if state == "ALARM" else "ALARM -> OK"
    minimum = max(needed if state == "ALARM" else len(points) - needed + 1, 1)
    return (
        f"Threshold Crossed: {len(wanted)} out of the last {len(points)} datapoints [{listed}] {was} {words} the "
        f"threshold ({threshold}) (minimum {minimum} datapoint{'s' if minimum > 1 else ''} for {direction} transition)."
    )


def _lower_names(dimensions: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    return [{"value": dimension["Value"], "name": dimension["Name"]} for dimension in dimensions]


def alarm_message(
    alarm: Mapping[str, Any], old_state: str, new_state: str, *, reason: str, moment: float, region_name: str
) -> dict[str, Any]:
    """Build what CloudWatch publishes to an alarm's topics.

    See https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html. A composite
    alarm has its rule and the alarms that decided in place of a trigger, as in the assertions that LocalStack validates
    on AWS: https://github.com/localstack/localstack/pull/11828.
    """
    if "AlarmRule" in alarm:
        decided = json.loads(alarm.get("StateReasonData") or "{}").get("triggeringAlarms", [])
        children = [
            {"Arn": child["arn"], "State": {"Value": child["state"]["value"], "Timestamp": child["state"]["timestamp"]}}
            for child in decided
        ]
        cause: dict[str, Any] = {"AlarmRule": alarm["AlarmRule"], "TriggeringChildren": children}
    else:
        trigger: dict[str, Any] = {
            "Period": alarm.get("Period"),
            "EvaluationPeriods": alarm["EvaluationPeriods"],
            "ComparisonOperator": alarm["ComparisonOperator"],
            "Threshold": alarm["Threshold"],
            "TreatMissingData": alarm.get("TreatMissingData", "missing"),
            "EvaluateLowSampleCountPercentile": "",
        }
        if "DatapointsToAlarm" in alarm:
            trigger["DatapointsToAlarm"] = alarm["DatapointsToAlarm"]
        if "Metrics" in alarm:
            trigger["Period"] = next(q["MetricStat"]["Period"] for q in alarm["Metrics"] if "MetricStat" in q)
            trigger["Metrics"] = [_message_query(query) for query in alarm["Metrics"]]
        else:
            is_extended = bool(alarm.get("ExtendedStatistic"))
            trigger |= {
                "MetricName": alarm["MetricName"],
                "Namespace": alarm["Namespace"],
                "StatisticType": "ExtendedStatistic" if is_extended else "Statistic",
                "ExtendedStatistic" if is_extended else "Statistic": (
                    alarm["ExtendedStatistic"] if is_extended else alarm["Statistic"].upper()
                ),
                "Unit": alarm.get("Unit"),
                "Dimensions": _lower_names(alarm.get("Dimensions") or []),
            }
        cause = {"Trigger": trigger}
    return {
        "AlarmName": alarm["AlarmName"],
        "AlarmDescription": alarm.get("AlarmDescription") or None,
        "AWSAccountId": alarm["AlarmArn"].split(":")[4],
        "AlarmConfigurationUpdatedTimestamp": alarm_time(alarm.get("AlarmConfigurationUpdatedTimestamp", moment)),
        "NewStateValue": new_state,
        "NewStateReason": reason,
        "StateChangeTime": alarm_time(moment),
        "Region": region_name,
        "AlarmArn": alarm["AlarmArn"],
        "OldStateValue": old_state,
        "OKActions": alarm.get("OKActions") or [],
        "AlarmActions": alarm.get("AlarmActions") or [],
        "InsufficientDataActions": alarm.get("InsufficientDataActions") or [],
        **cause,
    }


def _message_query(query: Mapping[str, Any]) -> dict[str, Any]:
    message = {key: query[key] for key in ("Expression", "Id", "Label", "ReturnData") if key in query}
    if "MetricStat" in query:
        metric = query["MetricStat"]["Metric"]
        message["MetricStat"] = {
            "Metric": {
                "Dimensions": _lower_names(metric.get("Dimensions") or []),
                "MetricName": metric["MetricName"],
                "Namespace": metric["Namespace"],
            },
            "Period": query["MetricStat"]["Period"],
            "Stat": query["MetricStat"]["Stat"],
        }
    return message


def alarm_event_detail(alarm: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Build the detail of a "CloudWatch Alarm State Change" event.

    See https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html.

    Args:
        alarm: The alarm.
        old: value, reason and timestamp of the state before.
        new: value, reason and timestamp of the state now.
    """
    if "AlarmRule" in alarm:
        configuration: dict[str, Any] = {"alarmRule": alarm["AlarmRule"]}
    else:
        configuration = {"metrics": [_event_query(query) for query in alarm_queries(alarm)]}
    return {
        "alarmName": alarm["AlarmName"],
        "state": dict(new),
        "previousState": dict(old),
        "configuration": {"description": alarm.get("AlarmDescription") or "", **configuration},
    }


def _event_query(query: Mapping[str, Any]) -> dict[str, Any]:
    detail = {"id": query["Id"], "returnData": query["ReturnData"]}
    if "Expression" in query:
        return {**detail, "expression": query["Expression"], "label": query.get("Label", "")}
    stat = query["MetricStat"]
    dimensions = {item["Name"]: item["Value"] for item in stat["Metric"].get("Dimensions") or []}
    metric = {"namespace": stat["Metric"]["Namespace"], "name": stat["Metric"]["MetricName"], "dimensions": dimensions}
    return {**detail, "metricStat": {"metric": metric, "period": stat["Period"], "stat": stat["Stat"]}}


def alarm_queries(alarm: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return an alarm's ``Metrics``; an alarm on one metric has one entry."""
    if "Metrics" in alarm:
        queries: list[dict[str, Any]] = alarm["Metrics"]
        return queries
    metric = {key: alarm.get(key) for key in ("Namespace", "MetricName", "Dimensions")}
    stat = alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average"
    return [
        {
            "Id": "m1",
            "MetricStat": {"Metric": metric, "Period": alarm["Period"], "Stat": stat, "Unit": alarm.get("Unit")},
            "ReturnData": True,
        }
    ]


# ---------------------------------------------------------------------------------------------- the service


@dataclass
class StatisticSet:
    """What many values of a metric are kept as."""

    count: float = 0.0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def include(self, count: float, total: float, low: float, high: float) -> None:
        """Take in another set; one value is a set as well."""
        self.count += count
        self.total += total
        self.low, self.high = min(self.low, low), max(self.high, high)

    def as_statistic_values(self) -> dict[str, float]:
        """Return the ``StatisticValues`` of PutMetricData."""
        return {"SampleCount": self.count, "Sum": self.total, "Minimum": self.low, "Maximum": self.high}


MetricKey = tuple[str, str, str, tuple[tuple[str, str], ...]]


@dataclass
class Collector:
    """Collects frequent values of services' own metrics, so that a busy stream does not fill the memory."""

    _sets: dict[MetricKey, StatisticSet] = field(default_factory=lambda: defaultdict(StatisticSet))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, namespace: str, name: str, value: float, unit: str, dimensions: Mapping[str, str]) -> None:
        """Take in one value of a metric."""
        with self._lock:
            self._sets[(namespace, name, unit, tuple(sorted(dimensions.items())))].include(1, value, value, value)

    def take(self) -> dict[MetricKey, StatisticSet]:
        """Return what was collected since the last call."""
        with self._lock:
            taken, self._sets = self._sets, defaultdict(StatisticSet)
        return taken


def thinned(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge a metric's points of each minute and unit into one."""
    merged: dict[tuple[int, str], dict[str, Any]] = {}
    for point in points:
        count, value = point.get("Count", 1.0), point["Value"]
        known = point.get("_stat") or {"SampleCount": count, "Sum": value * count, "Minimum": value, "Maximum": value}
        place = (int(point["Timestamp"] // 60), point["Unit"])
        first = merged.setdefault(place, {**point, "_stat": StatisticSet().as_statistic_values()})
        values = StatisticSet()
        for each in (first["_stat"], known):
            values.include(*(each[name] for name in ("SampleCount", "Sum", "Minimum", "Maximum")))
        first["_stat"] = values.as_statistic_values()
    return [
        {name: value for name, value in point.items() if name != "Count"}
        | {"Value": point["_stat"]["Sum"] / (point["_stat"]["SampleCount"] or 1.0)}
        for point in merged.values()
    ]


@dataclass(frozen=True)
class StateChange:
    """One change of an alarm's state that SNS and EventBridge have to hear of."""

    alarm: dict[str, Any]
    old_state: str
    new_state: str
    reason: str
    moment: float


class CloudWatch:
    """Evaluates alarms as time passes and samples services' metrics."""

    def __init__(self, endpoint: Endpoint, module: Any) -> None:
        self._endpoint = endpoint
        self._module = module
        self._changes: queue.Queue[StateChange] = queue.Queue()
        self.collector = Collector()
        self._open_points: dict[MetricKey, dict[str, Any]] = {}
        self._flushing = threading.Lock()
        partitions = botocore.session.get_session().get_data("partitions")["partitions"]
        regions = {name: region for partition in partitions for name, region in partition["regions"].items()}
        region = endpoint.settings.region
        self._region_name = regions.get(region, {}).get("description", region)

    # -- Evaluation

    def evaluate(self, alarm: dict[str, Any], now: float) -> None:
        """Evaluate one metric alarm and change its state if it has to."""
        queries = alarm_queries(alarm)
        period = next(query["MetricStat"]["Period"] for query in queries if "MetricStat" in query)
        periods = alarm["EvaluationPeriods"]
        needed = alarm.get("DatapointsToAlarm") or periods
        treat = alarm.get("TreatMissingData") or "missing"
        end = range_end(now, period)
        starts = [end - period * (periods + EXTRA_PERIODS - n) for n in range(periods + EXTRA_PERIODS)]
        values = self._values(queries, starts, period)
        compare, _ = COMPARISONS[alarm["ComparisonOperator"]]
        breaching = [None if value is None else compare(value, alarm["Threshold"]) for value in values]
        state = alarm_state(breaching, periods, needed, treat)
        if state is None or state == alarm["StateValue"]:
            return
        known = [(at, value) for at, value in zip(starts, values, strict=True) if value is not None][-periods:]
        reason = state_reason(
            state,
            known[::-1],
            comparison=alarm["ComparisonOperator"],
            threshold=alarm["Threshold"],
            needed=needed,
            missing=periods - len(known),
            treat_missing_data=treat,
        )
        data = {
            "version": "1.0",
            "queryDate": alarm_time(now),
            "statistic": queries[0]["MetricStat"]["Stat"] if len(queries) == 1 else None,
            "period": period,
            "recentDatapoints": [value for _, value in known],
            "threshold": alarm["Threshold"],
        }
        self._change(alarm, state, reason, {key: value for key, value in data.items() if value is not None}, now)

    def _values(self, queries: Sequence[Mapping[str, Any]], starts: Sequence[float], period: int) -> list[float | None]:
        series = {
            query["Id"]: self._series(query["MetricStat"], starts, period) for query in queries if "MetricStat" in query
        }
        expressions = {query["Id"]: Expression(query["Expression"]) for query in queries if "Expression" in query}
        returned = next(query["Id"] for query in queries if query["ReturnData"])

        def value(name: str, index: int) -> float | None:
            if name in series:
                return series[name][index]
            expression = expressions[name]
            return expression.value({used: value(used, index) for used in expression.names})

        return [value(returned, index) for index in range(len(starts))]

    def _series(self, stat: Mapping[str, Any], starts: Sequence[float], period: int) -> list[float | None]:
        metric = stat["Metric"]
        dimensions = self._module._dims_key({d["Name"]: d["Value"] for d in metric.get("Dimensions") or []})
        points = list(self._module._metrics.get((metric["Namespace"], metric["MetricName"], dimensions)) or ())
        by_period: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for point in points:
            index = math.floor((point["Timestamp"] - starts[0]) / period)
            if index >= 0 and stat.get("Unit") in (None, "", point.get("Unit")):
                by_period[index].append(point)
        return [
            self._module._stat_value(self._module._calc_stats(by_period[n]), stat["Stat"], by_period[n])
            if by_period.get(n)
            else None
            for n in range(len(starts))
        ]

    def _change(self, alarm: dict[str, Any], state: str, reason: str, data: dict[str, Any], now: float) -> None:
        old_state = alarm["StateValue"]
        alarm.update(
            StateValue=state,
            StateReason=reason,
            StateReasonData=json.dumps(data),
            StateUpdatedTimestamp=now,
            StateTransitionedTimestamp=now,
        )
        logger.info("alarm %s: %s -> %s: %s", alarm["AlarmName"], old_state, state, reason)
        self._module._record_history(alarm["AlarmName"], old_state, state, reason, "MetricAlarm", json.dumps(data))
        self.tell(alarm, old_state, state, reason)
        self._module._evaluate_parent_alarms(alarm)

    def tell(self, alarm: dict[str, Any], old_state: str, new_state: str, reason: str) -> None:
        """Queue a change of state; SNS and EventBridge hear of it from the worker, not from the server's event loop.

        It is marked to be written first: an alarm whose ringing was told must not have forgotten it after a kill.
        """
        self._endpoint.changed("cloudwatch")
        self._changes.put(StateChange(copy.deepcopy(alarm), old_state, new_state, reason, time.time()))

    # -- Actions

    def act(self, change: StateChange) -> None:
        """Publish a change of state as an event and to the alarm's topics."""
        alarm = change.alarm
        moment = alarm_time(change.moment)
        new = {"value": change.new_state, "reason": change.reason, "timestamp": moment}
        if alarm.get("StateReasonData"):
            new["reasonData"] = alarm["StateReasonData"]
        detail = alarm_event_detail(alarm, {"value": change.old_state, "timestamp": moment}, new)
        self._endpoint.publish_event("aws.cloudwatch", "CloudWatch Alarm State Change", detail, [alarm["AlarmArn"]])
        if not alarm.get("ActionsEnabled", True):
            return
        message = alarm_message(
            alarm,
            change.old_state,
            change.new_state,
            reason=change.reason,
            moment=change.moment,
            region_name=self._region_name,
        )
        subject = f'{change.new_state}: "{alarm["AlarmName"]}" in {self._region_name}'[:SUBJECT_CHARACTERS]
        for action in alarm.get(ACTIONS_BY_STATE[change.new_state]) or []:
            problem = self._publish(action, alarm["AlarmArn"], subject, json.dumps(message))
            summary = f"Successfully executed action {action}"
            if problem is not None:
                summary = f"Failed to execute action {action}. {problem}"
                logger.warning("alarm %s: %s", alarm["AlarmName"], summary)
            self._record_action(alarm, action, summary, problem)

    def _publish(self, topic_arn: str, alarm_arn: str, subject: str, message: str) -> str | None:
        from ministack.services import sns

        if not topic_arn.startswith("arn:aws:sns:"):
            return "The embedded endpoint publishes to SNS topics only"
        account_id = self._endpoint.settings.account_id
        # https://docs.aws.amazon.com/sns/latest/dg/sns-access-policy-use-cases.html
        if not seams.require(sns, "topic_policy_allows")(topic_arn, SERVICE_PRINCIPAL, alarm_arn, account_id):
            return f"CloudWatch Alarms is not authorized to perform: SNS:Publish on resource: {topic_arn}"
        try:
            self._endpoint.client("sns").publish(TopicArn=topic_arn, Subject=subject, Message=message)
        except (ClientError, BotoCoreError) as problem:
            return str(problem)
        return None

    def _record_action(self, alarm: Mapping[str, Any], action: str, summary: str, problem: str | None) -> None:
        data = {"actionState": "Succeeded" if problem is None else "Failed", "notificationResource": action}
        if problem is not None:
            data["error"] = problem
        self._module._history_entries().append(
            {
                "AlarmName": alarm["AlarmName"],
                "AlarmType": "CompositeAlarm" if "AlarmRule" in alarm else "MetricAlarm",
                "Timestamp": self._module._ts_iso(time.time()),
                "HistoryItemType": "Action",
                "HistorySummary": summary,
                "HistoryData": json.dumps(data),
            }
        )

    # -- Alarms that CloudWatch refuses, and those with metric math, which MiniStack does not store

    def put_metric_alarm(
        self, original: Callable[..., Any], params: Any, data: dict[str, Any], is_cbor: bool, is_json: bool
    ) -> Any:
        """PutMetricAlarm, with ``Metrics``."""
        alarm = data if is_cbor or is_json else {name: self._module._p(params, name) for name in params}
        try:
            metrics = checked_metrics(alarm["Metrics"]) if alarm.get("Metrics") else None
            assert_periods_allowed(alarm)
        except AlarmError as problem:
            return self._module._error("ValidationError", str(problem), 400, use_json=is_json, use_cbor=is_cbor)
        answer = original(params, data, is_cbor, is_json)
        if metrics and data["AlarmName"] in self._module._alarms and answer[0] == 200:  # noqa: PLR2004
            _set_metrics(self._module._alarms[data["AlarmName"]], metrics)
        return answer

    # -- Service metrics

    def sample_queues(self, now: float) -> None:
        """Store the metrics of every queue."""
        from ministack.services import sqs

        for stored in list(seams.require(sqs, "_queues").values()):
            sample_queue(self._endpoint, stored, now)

    def record(
        self, namespace: str, name: str, value: float, unit: str = "None", dimensions: Mapping[str, str] | None = None
    ) -> None:
        """Take one value of a service's own metric, which is stored with the others of its minute."""
        self.collector.add(namespace, name, float(value), unit, dimensions or {})

    def flush(self, now: float) -> None:
        """Store what was collected, in one point a minute."""
        with self._flushing:
            self._store_collected(now)

    def _store_collected(self, now: float) -> None:
        for key, values in self.collector.take().items():
            namespace, name, unit, dimensions = key
            point = self._open_points.get(key)
            if point is None or point["Timestamp"] // 60 != now // 60:
                self._module._store_datum(
                    namespace, name, dict(dimensions), now, unit, None, None, None, values.as_statistic_values()
                )
                stored = (namespace, name, self._module._dims_key(dict(dimensions)))
                self._open_points[key] = self._module._metrics[stored][-1]
                continue
            known = point["_stat"]
            values.include(known["SampleCount"], known["Sum"], known["Minimum"], known["Maximum"])
            point["_stat"] = values.as_statistic_values()

    def after_flush(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return an operation that sees everything that was collected."""

        def operation(*arguments: Any, **others: Any) -> Any:
            self.flush(time.time())
            return original(*arguments, **others)

        return operation

    # -- The worker

    def work(self, stopping: threading.Event) -> None:
        """Evaluate, tell, sample and forget, until the endpoint stops."""
        next_flush = next_sample = next_eviction = 0.0
        next_evaluation = time.time()
        while not stopping.is_set():
            now = time.time()
            with self._endpoint.scope():
                if now >= next_flush:
                    self.flush(now)
                    next_flush = now + FLUSH_SECONDS
                if now >= next_sample:
                    self.sample_queues(now)
                    next_sample = now + SAMPLE_SECONDS
                if now >= next_eviction:
                    self.evict(now)
                    next_eviction = now + EVICTION_SECONDS
                if now >= next_evaluation:
                    self.evaluate_all(now)
                    next_evaluation = now + EVALUATION_SECONDS
                self._tell_queued()
            stopping.wait(0.5)
        with self._endpoint.scope():
            self.flush(time.time())

    def evaluate_all(self, now: float) -> None:
        """Evaluate every metric alarm."""
        for alarm in list(self._module._alarms.values()):
            try:
                self.evaluate(alarm, now)
            except (KeyError, ValueError, TypeError) as problem:
                # An alarm that cannot be evaluated must not keep the others from it; it stays in its state.
                logger.warning("alarm %s cannot be evaluated: %r", alarm.get("AlarmName"), problem)

    def _tell_queued(self) -> None:
        while True:
            try:
                change = self._changes.get_nowait()
            except queue.Empty:
                return
            self.act(change)

    def evict(self, now: float) -> None:
        """Forget points of metrics that are older than fourteen days, and merge those older than three hours."""
        oldest = now - self._module.TWO_WEEKS_SECONDS
        for points in list(self._module._metrics.values()):
            old = list(itertools.takewhile(lambda point: point["Timestamp"] < now - FINE_SECONDS, points))
            # Others append meanwhile: only what was looked at is replaced.
            points[: len(old)] = thinned([point for point in old if point["Timestamp"] >= oldest])


def sample_queue(endpoint: Endpoint, stored: Mapping[str, Any], now: float) -> None:
    """Store the metrics of one queue, as MiniStack keeps it.

    See https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html.
    """
    messages = list(stored["messages"])
    visible = sum(message.get("visible_at", now) <= now for message in messages)
    oldest = min((message.get("sent_at", now) for message in messages), default=now)
    dimensions = {"QueueName": stored["name"]}
    endpoint.put_metric("AWS/SQS", "ApproximateNumberOfMessagesVisible", visible, "Count", dimensions)
    endpoint.put_metric(
        "AWS/SQS", "ApproximateNumberOfMessagesNotVisible", len(messages) - visible, "Count", dimensions
    )
    endpoint.put_metric("AWS/SQS", "ApproximateAgeOfOldestMessage", now - oldest, "Seconds", dimensions)


def _set_metrics(alarm: dict[str, Any], metrics: list[dict[str, Any]]) -> None:
    for name in ("MetricName", "Namespace", "Statistic", "ExtendedStatistic", "Period", "Dimensions", "Unit"):
        alarm.pop(name, None)
    alarm["Metrics"] = metrics


def _nothing(*_arguments: Any) -> None:
    """Stand in for what the worker does in its own time."""


def install(endpoint: Endpoint) -> None:
    """Take over MiniStack's alarms and count what its streams and queues do."""
    from ministack.services import cloudwatch as module
    from ministack.services.cloudformation import provisioners

    for name in (
        "TWO_WEEKS_SECONDS",
        "_alarms",
        "_calc_stats",
        "_dims_key",
        "_error",
        "_evaluate_parent_alarms",
        "_history_entries",
        "_metrics",
        "_p",
        "_record_history",
        "_stat_value",
        "_store_datum",
        "_ts_iso",
    ):
        seams.require(module, name)
    service = CloudWatch(endpoint, module)
    seams.replace(module, "_evaluate_all_alarms", _nothing)
    seams.replace(module, "_evaluate_alarm", _nothing)
    seams.replace(module, "_evict_old_metrics", _nothing)
    seams.replace(module, "_dispatch_alarm_actions", service.tell)

    original_put = seams.require(module, "_put_metric_alarm")

    def put_metric_alarm(params: Any, data: dict[str, Any], is_cbor: bool, is_json: bool = False) -> Any:
        return service.put_metric_alarm(original_put, params, data, is_cbor, is_json)

    seams.replace(module, "_put_metric_alarm", put_metric_alarm)

    original_record = seams.require(provisioners, "_cw_metric_alarm_record")

    def alarm_record(name: str, properties: dict[str, Any]) -> dict[str, Any]:
        if not properties.get("Metrics"):
            assert_periods_allowed(properties)
            record: dict[str, Any] = original_record(name, properties)
            return record
        metrics = checked_metrics(properties["Metrics"])
        assert_periods_allowed(properties)
        others = {key: value for key, value in properties.items() if key != "Metrics"}
        record = original_record(name, {**others, "MetricName": "of Metrics", "Namespace": "of Metrics"})
        _set_metrics(record, metrics)
        return record

    seams.replace(provisioners, "_cw_metric_alarm_record", alarm_record)
    seams.replace(module, "record_metric", service.record)
    for name in ("_get_metric_statistics", "_get_metric_data", "_list_metrics"):
        seams.replace(module, name, service.after_flush(seams.require(module, name)))
    endpoint.start_worker("cloudwatch", service.work)
