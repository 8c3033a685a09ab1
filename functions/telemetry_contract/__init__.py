"""What a reading is: the one definition of the data contract, judged once, where a record arrives.

A reading is a JSON object with ``device_id``, ``temperature`` (degrees Celsius) and ``timestamp`` (UNIX seconds).
This package splits the bytes of a stream record into elements, gives each element exactly one verdict (a `Reading` in
canonical form, or a `Rejection` with a reason from a closed set), and says which policy the verdict was given under.

It needs nothing but msgspec: neither boto3 nor Powertools, so that a command line can import it as well.
"""

from telemetry_contract.elements import split_record
from telemetry_contract.policy import CONTRACT_VERSION, Policy
from telemetry_contract.rejection import Detail, Reason, Rejection
from telemetry_contract.verdict import Identity, Reading, judge, judge_record, reject_empty_record, short_line

__all__ = [
    "CONTRACT_VERSION",
    "Detail",
    "Identity",
    "Policy",
    "Reading",
    "Reason",
    "Rejection",
    "judge",
    "judge_record",
    "reject_empty_record",
    "short_line",
    "split_record",
]
