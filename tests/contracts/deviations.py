"""Answers of the embedded endpoint that may differ from AWS's API models, each with its argument."""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Deviation:
    """Findings that are none.

    Attributes:
        service: as boto3 names it.
        operations: names of API operations.
        finding: pattern of the finding's text.
        argument: why it may be so.
    """

    service: str
    operations: tuple[str, ...]
    finding: str
    argument: str

    def covers(self, service: str, operation: str, text: str) -> bool:
        """Tell whether a finding is this one."""
        return (
            service == self.service
            and operation in self.operations
            and re.fullmatch(self.finding, text, re.DOTALL) is not None
        )


DEVIATIONS = (
    Deviation(
        "kinesis",
        ("DescribeStream", "DescribeStreamSummary"),
        r".*\.EnhancedMonitoring\[0\]\.ShardLevelMetrics: 0 items, less than .*",
        "Kinesis answers so: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_DescribeStream.html#API_DescribeStream_Examples",
    ),
    Deviation(
        "kinesis",
        ("PutRecords",),
        r"\.FailedRecordCount: 0, less than .*",
        "Kinesis answers so: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html#API_PutRecords_Examples",
    ),
    Deviation(
        "cloudformation",
        ("DescribeStackEvents",),
        r"\.StackEvents\[\d+\]\.ResourceStatus: "
        r"'(REVIEW|UPDATE_COMPLETE_CLEANUP|UPDATE_ROLLBACK_COMPLETE_CLEANUP)_IN_PROGRESS' is none of .*",
        "The stack's own events have the stack's statuses, which the model of ResourceStatus lacks: "
        "https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html",
    ),
)


def covering(service: str, operation: str, text: str, among: Iterable[Deviation] = DEVIATIONS) -> Deviation | None:
    """Return the deviation that a finding is, None if it is a finding indeed."""
    return next((each for each in among if each.covers(service, operation, text)), None)
