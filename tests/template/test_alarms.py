"""Each alarm is driven to ALARM and back to OK over a series of periods.

The evaluator is the embedded endpoint's, which knows nothing of this system and is itself held to the tables that AWS
publishes: tests/unit/local/test_cloudwatch.py.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from telemetry_lake.local.cloudwatch import COMPARISONS, EXTRA_PERIODS, Expression, alarm_queries, alarm_state
from tests.template import variants
from tests.template.expansion import resources_of_type

TEMPLATE = variants.resolved({})
ALARMS = resources_of_type(TEMPLATE, "AWS::CloudWatch::Alarm")
COMPOSITES = resources_of_type(TEMPLATE, "AWS::CloudWatch::CompositeAlarm")

Period = float | Mapping[str, float] | None
"""One period: the metric's statistic, or those of several metrics by id; None without data."""

SILENCE: tuple[Period, ...] = (None,) * 12


@dataclass(frozen=True)
class Story:
    """What an alarm lives through.

    Attributes:
        quiet: how the periods look while nothing is wrong.
        rings: periods of which the last one, and none before it, makes it ring.
        lasts: periods through which it goes on ringing.
        over: periods after which it is over.
    """

    rings: Sequence[Period]
    over: Sequence[Period]
    quiet: Period = None
    lasts: Sequence[Period] = field(default=())


HAPPENS_AND_PASSES = Story(rings=[1], over=[None, None, None])
COUNTED_AT_EACH_END = Story(quiet=0, rings=[1], lasts=SILENCE, over=[0])

STORIES: dict[str, Story] = {
    "StreamWriteThrottledAlarm": Story(quiet=0, rings=[3, 1], lasts=[7], over=[0]),
    "StreamReadThrottledAlarm": Story(quiet=0, rings=[3, 1, 1], over=[0]),
    "StreamIteratorAgeAlarm": Story(quiet=900, rings=[1_800_001, 2_100_000], over=[20_000]),
    "DeliverySuccessAlarm": Story(quiet=1, rings=[0.9, 0], lasts=[0.5], over=[1]),
    "DeliveryFreshnessAlarm": Story(quiet=70, rings=[1801, 2101], over=[60]),
    "TransformErrorsAlarm": Story(quiet=0, rings=[1], over=[0]),
    "TransformDurationAlarm": Story(quiet=800, rings=[45_001, 50_000, 59_000], over=[900]),
    "RejectionRateAlarm": Story(
        quiet={"accepted": 100, "rejected": 5},
        rings=[{"accepted": 94, "rejected": 6}, {"accepted": 0, "rejected": 1}],
        over=[{"accepted": 0, "rejected": 0}],
    ),
    "DlqPutFailuresAlarm": Story(quiet=0, rings=[1], over=[0]),
    "DlqGrowthAlarm": Story(
        quiet={"transform": 900, "job": 100}, rings=[{"transform": 900, "job": 101}], over=[{"transform": 900}]
    ),
    "RawObjectRuleFailedAlarm": HAPPENS_AND_PASSES,
    "TriggerQueueAgeAlarm": Story(quiet=200, rings=[1801], lasts=[2101], over=[0]),
    "TriggerDeadLettersAlarm": Story(quiet=0, rings=[1], lasts=[1], over=[0]),
    "PipeFailingAlarm": Story(quiet=0, rings=[1, 2, 2], over=[0]),
    "PipelineFailedAlarm": Story(
        quiet={"succeeded": 1},
        rings=[{"failed": 1}],
        lasts=[*SILENCE, {"failed": 1, "succeeded": 1}],
        over=[{"succeeded": 1}],
    ),
    "NoSuccessfulRunAlarm": Story(quiet=1, rings=[None, None, None], lasts=SILENCE, over=[1]),
    "JobFailedAlarm": COUNTED_AT_EACH_END,
    "JobDurationAlarm": Story(quiet=300, rings=[2881], over=[200]),
    "CrawlerFailedAlarm": COUNTED_AT_EACH_END,
    "AthenaCheckFailuresAlarm": COUNTED_AT_EACH_END,
    "AthenaCheckWarningsAlarm": COUNTED_AT_EACH_END,
    "DayCheckFailuresAlarm": COUNTED_AT_EACH_END,
    "DayCheckWarningsAlarm": COUNTED_AT_EACH_END,
    "TableFreshnessAlarm": COUNTED_AT_EACH_END,
    "AuditFoundRowsAlarm": Story(rings=[4], over=[None, None, None]),
    "AthenaQueryFailuresAlarm": Story(
        quiet={"failed": 2}, rings=[{"failed": 3, "succeeded": 11}], over=[{"failed": 3, "succeeded": 12}]
    ),
    "AthenaScannedBytesAlarm": Story(
        quiet={"succeeded": 9e10}, rings=[{"succeeded": 9e10, "failed": 9e9, "canceled": 2e9}], over=[None]
    ),
    "NotificationRulesFailedAlarm": Story(rings=[{"crawls": 1}], over=[None]),
    "NotifierErrorsAlarm": Story(quiet=0, rings=[1], over=[0]),
}


class Alarm:
    """One alarm and the periods that it has seen."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._alarm = properties
        self._queries = [{"ReturnData": True, **query} for query in alarm_queries(properties)]
        self._seen: list[Period] = []
        self.state = "INSUFFICIENT_DATA"

    def see(self, period: Period) -> str:
        """Take in a period and return the state after it."""
        self._seen.append(period)
        length = self._alarm["EvaluationPeriods"]
        breaching = [self._is_breaching(each) for each in self._seen[-length - EXTRA_PERIODS :]]
        needed = self._alarm.get("DatapointsToAlarm", length)
        self.state = alarm_state(breaching, length, needed, self._alarm["TreatMissingData"]) or self.state
        return self.state

    def _is_breaching(self, period: Period) -> bool | None:
        by_id = {query["Id"]: query for query in self._queries}
        metrics = [name for name, query in by_id.items() if "MetricStat" in query]
        given = period if isinstance(period, Mapping) else dict.fromkeys(metrics, period)
        assert set(given) <= set(metrics), "a story tells of a metric that the alarm does not name"
        (returned,) = (query for query in self._queries if query["ReturnData"])
        values: dict[str, float | None] = {name: given.get(name) for name in metrics}
        value = Expression(returned["Expression"]).value(values) if "Expression" in returned else values[returned["Id"]]
        compare, _ = COMPARISONS[self._alarm["ComparisonOperator"]]
        return None if value is None else compare(value, self._alarm["Threshold"])


def test_every_alarm_has_its_story() -> None:
    assert STORIES.keys() == ALARMS.keys()


@pytest.mark.parametrize("logical_id", sorted(STORIES))
def test_an_alarm_rings_and_is_over(logical_id: str) -> None:
    # GIVEN an alarm that has been quiet for a while
    story = STORIES[logical_id]
    alarm = Alarm(ALARMS[logical_id]["Properties"])
    for _ in range(12):
        state = alarm.see(story.quiet)
        assert state != "ALARM"

    # WHEN it goes wrong
    *before, last = story.rings

    # THEN it rings in time, and not before
    assert "ALARM" not in [alarm.see(period) for period in before]
    assert alarm.see(last) == "ALARM"

    # AND for as long as it is not over
    assert {alarm.see(period) for period in story.lasts} <= {"ALARM"}
    for period in story.over:
        alarm.see(period)
    assert alarm.state == "OK"


def rings(composite: str, *children: str) -> bool:
    """Whether a composite alarm rings while just these alarms do."""
    rule = COMPOSITES[composite]["Properties"]["AlarmRule"]
    if "Fn::Join" in rule:
        separator, terms = rule["Fn::Join"]
        rule = {"Fn::Sub": separator.join(term["Fn::Sub"] for term in terms)}
    names = re.findall(r'ALARM\("\$\{(\w+)\}"\)', rule["Fn::Sub"])
    text = re.sub(r'ALARM\("\$\{(\w+)\}"\)', r"\1", rule["Fn::Sub"]).replace("NOT ", "1 - ")
    return bool(Expression(text).value({name: float(name in children) for name in names}))


SPOKEN_FOR = {
    "DataIsLateAlarm": {"DeliveryFreshnessAlarm", "TriggerQueueAgeAlarm", "NoSuccessfulRunAlarm"},
    "RunsFailAlarm": {
        "PipelineFailedAlarm",
        "JobFailedAlarm",
        "CrawlerFailedAlarm",
        "AthenaCheckFailuresAlarm",
        "DayCheckFailuresAlarm",
    },
}


@pytest.mark.parametrize("composite", sorted(SPOKEN_FOR))
def test_a_composite_alarm_rings_for_each_of_its_own_and_is_over_with_the_last(composite: str) -> None:
    children = SPOKEN_FOR[composite]
    assert set(re.findall(r"\$\{(\w+)\}", json.dumps(COMPOSITES[composite]["Properties"]["AlarmRule"]))) == children
    assert not rings(composite)
    for child in children:
        assert rings(composite, child), child
    assert rings(composite, *children)


def test_producers_are_silent_only_if_nothing_is_late_on_the_way() -> None:
    assert rings("ProducersSilentAlarm", "TableFreshnessAlarm")
    assert not rings("ProducersSilentAlarm", "TableFreshnessAlarm", "DataIsLateAlarm")
    assert not rings("ProducersSilentAlarm", "DataIsLateAlarm")
    assert not rings("ProducersSilentAlarm")


def test_every_composite_alarm_is_driven() -> None:
    assert COMPOSITES.keys() == SPOKEN_FOR.keys() | {"ProducersSilentAlarm"}
