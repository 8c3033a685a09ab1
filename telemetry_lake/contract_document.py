"""Writes ``docs/contract.md``: what a reading has to be, with examples that are judged while it is written.

``make contract`` writes the file anew; a test compares it with what the contract says today.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from telemetry_contract import Policy, Reading, Reason, Rejection, judge_record
from telemetry_contract.canonical import MAX_NUMBER_LENGTH
from telemetry_contract.verdict import MAX_DEPTH, MAX_DEVICE_ID_LENGTH

ARRIVED_AT = 1_792_034_100.0
LONGEST_SHOWN = 90


@dataclass(frozen=True)
class Example:
    """A record that is rejected, and the rule that it breaks, in words."""

    reason: Reason
    rule: str
    record: bytes


def _reading(device_id: str = '"sensor-1"', temperature: str = "21.5", timestamp: str = "1792034000") -> bytes:
    return f'{{"device_id":{device_id},"temperature":{temperature},"timestamp":{timestamp}}}'.encode()


EXAMPLES = (
    Example(Reason.EMPTY_RECORD, "A record holds at least one reading.", b" \n"),
    Example(Reason.NOT_UTF8, "The text is strict UTF-8.", _reading('"caf"').replace(b"caf", b"caf\xe9")),
    Example(
        Reason.TOO_DEEP,
        f"At most {MAX_DEPTH} levels of brackets; the reading's own are the first.",
        _reading()[:-1] + b',"note":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
    ),
    Example(
        Reason.MALFORMED_JSON,
        "JSON by RFC 8259 to the letter: no NaN, no comments, no comma at the end, no half of a surrogate pair.",
        _reading(temperature="NaN"),
    ),
    Example(Reason.NOT_AN_OBJECT, "A reading is a JSON object.", b"21.5"),
    Example(
        Reason.MISSING_FIELD,
        "`device_id`, `temperature` and `timestamp` are all there.",
        b'{"device_id":"sensor-1","timestamp":1792034000}',
    ),
    Example(
        Reason.WRONG_TYPE,
        "`device_id` is a string, `temperature` and `timestamp` are numbers; `null` is neither.",
        _reading(temperature='"21.5"'),
    ),
    Example(
        Reason.DEVICE_ID_INVALID,
        f"`device_id` has 1 to {MAX_DEVICE_ID_LENGTH} code points and none of U+0000 to U+001F and U+007F to U+009F.",
        _reading(r'"sensor-1\n"'),
    ),
    Example(
        Reason.NUMBER_TOO_LONG,
        f"A number, of whatever field, has at most {MAX_NUMBER_LENGTH} characters.",
        _reading(temperature="21." + "5" * MAX_NUMBER_LENGTH),
    ),
    Example(
        Reason.NOT_FINITE,
        "A number, of whatever field, lies within the range of a double.",
        _reading(timestamp="1e400"),
    ),
    Example(
        Reason.TEMPERATURE_OUT_OF_RANGE,
        "`temperature` is in degrees Celsius, from `TemperatureMin` to `TemperatureMax`.",
        _reading(temperature="294.65"),
    ),
    Example(
        Reason.TIMESTAMP_IN_FUTURE,
        "`timestamp` is in UNIX seconds, at most `MaxFutureSeconds` after the record's arrival.",
        _reading(timestamp="1792034000000"),
    ),
    Example(Reason.TIMESTAMP_TOO_OLD, "... and at most `MaxAgeDays` before it.", _reading(timestamp="0")),
)
"""In the order in which the rules are asked."""

RECORDS = (
    (
        "One reading, as people write it",
        b'{ "timestamp": 1792034000, "device_id": "s\\u002d1",\n  "temperature": 21.50 }',
    ),
    (
        "Several, a line each, with other fields",
        _reading() + b"\n" + _reading(temperature="-0.0")[:-1] + b',"rssi":-71}\n',
    ),
    ("Several in an array", b"[" + _reading() + b", " + _reading('"センサー"') + b"]"),
    ("Good neighbours of a bad one", _reading() + b"\n21.5\n" + _reading(temperature="22")),
)


def _shown(text: bytes) -> str:
    """Bytes as a person reads them in a table's code: what is no text is escaped, what is long is cut."""
    shown = text.decode("utf-8", "backslashreplace").replace("\n", "⏎").replace("|", "\\|")
    return f"`{shown if len(shown) <= LONGEST_SHOWN else shown[:LONGEST_SHOWN] + '…'}`"


def _rejection(record: bytes, reason: Reason, policy: Policy) -> Rejection:
    """The one verdict on a record that breaks a rule.

    Raises:
        ValueError: under this policy it is another verdict.
    """
    for verdict in judge_record(record, ARRIVED_AT, policy):
        if isinstance(verdict, Rejection) and verdict.reason == reason:
            return verdict
    raise ValueError(f"{record!r} is no example for {reason}")


def _reasons(policy: Policy) -> Iterator[str]:
    yield "| reason | rule | for instance | what its `detail` says |"
    yield "| --- | --- | --- | --- |"
    for example in EXAMPLES:
        detail = _rejection(example.record, example.reason, policy).detail
        where = "" if detail.field is None else f"{detail.field}: "
        yield f"| `{example.reason}` | {example.rule} | {_shown(example.record)} | {where}{detail.rule} |"


def _verdicts(policy: Policy) -> Iterator[str]:
    for title, record in RECORDS:
        yield f"{title}:\n"
        yield f"```\n{record.decode().rstrip()}\n```\n"
        for verdict in judge_record(record, ARRIVED_AT, policy):
            if isinstance(verdict, Reading):
                yield f"* stored: `{verdict.line.decode()}`"
            else:
                yield f"* rejected, `{verdict.reason}`: {_shown(verdict.original)}"
        yield ""


def _reject(policy: Policy) -> str:
    verdict = _rejection(_reading(timestamp="1792034000000"), Reason.TIMESTAMP_IN_FUTURE, policy)
    detail = verdict.detail
    fields = {
        "reason": verdict.reason.value,
        "detail": {"field": detail.field, "value": detail.value, "rule": detail.rule},
        "device_id": verdict.device_id,
        "timestamp": verdict.timestamp,
        "temperature": verdict.temperature,
        "original": verdict.original.decode(),
    }
    return json.dumps(fields, indent=2, ensure_ascii=False)


def document(policy: Policy | None = None) -> str:
    """Return the document, with the verdicts of a policy (the template's own limits by default)."""
    policy = policy or Policy()
    arrival = datetime.fromtimestamp(ARRIVED_AT, UTC).isoformat().replace("+00:00", "Z")
    sections: Sequence[str] = (
        f"""# The data contract

What a device has to send, and what becomes of it. Written by `make contract` from the contract itself: every verdict
on this page was given while it was written, for an arrival at {arrival} (UNIX {ARRIVED_AT:.0f}).
Contract version: `{policy.contract_version}`.

## A reading

    {_reading().decode()}

A JSON object with `device_id` (a string), `temperature` (degrees Celsius) and `timestamp` (UNIX seconds; fractions are
welcome). Other fields are allowed and kept in the raw zone with the digits that they were sent with; of duplicate keys
the last one counts. Names are as they are written here: `Device_ID` is another field.

A reading *is* its device, timestamp and temperature, both numbers as doubles (minus zero is zero). The same three again
are the same reading, and stored once: when in doubt whether a reading has arrived, send it again.

## A record

A record on the stream holds one reading, or several: an array, or a reading a line (`\\n`; a `\\r` before it does no
harm, blank lines neither). Firehose bills every record as 5 KB, so that packing readings saves money. Use the device
as partition key. A record has at most 1 MiB. What is no JSON as a whole is taken line by line, and a bad reading never
takes its neighbours down: every element gets a verdict of its own.
""",
        "\n".join(_verdicts(policy)).rstrip(),
        """
## Why a reading is rejected

The rules are asked in this order, and the first that is broken gives the reason; those on values field by field:
`device_id`, `timestamp`, `temperature`, and the numbers in other fields last of all. The limits of the last three are
parameters of the stack; they are compared with the time at which the stream took the record, never with the clock, so
that the same bytes get the same verdict whenever they are judged.
""",
        "\n".join(_reasons(policy)),
        """
`internal_error` is the reason of what none of these rules foresees; no record is known that has it.

A rejected reading is kept in the dead letters (`dlq/raw_json/`, table `rejected_readings`), with what it was and why:
""",
        f"```json\n{_reject(policy)}\n```",
        """
Beside these each dead letter has a `reject_id`, its `source` (shard, sequence number, place in the record),
`arrived_at` and `contract_version`; bytes that are no UTF-8 are in `original_base64`. A record of so many elements that
their dead letters would be more than the function can hold is kept whole in `firehose_errors/`.
""",
    )
    return "\n".join(sections)


if __name__ == "__main__":
    sys.stdout.write(document())
