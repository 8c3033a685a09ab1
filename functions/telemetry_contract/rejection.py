"""Why something was rejected: a closed set of reasons with stable names, and what a rejection carries."""

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Every reason a rejection can have. The values are stored and queried: add to them, never rename one."""

    NOT_UTF8 = "not_utf8"
    MALFORMED_JSON = "malformed_json"
    NOT_AN_OBJECT = "not_an_object"
    EMPTY_RECORD = "empty_record"
    TOO_DEEP = "too_deep"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    NUMBER_TOO_LONG = "number_too_long"
    DEVICE_ID_INVALID = "device_id_invalid"
    TEMPERATURE_OUT_OF_RANGE = "temperature_out_of_range"
    TIMESTAMP_IN_FUTURE = "timestamp_in_future"
    TIMESTAMP_TOO_OLD = "timestamp_too_old"
    INTERNAL_ERROR = "internal_error"


class Detail(msgspec.Struct, frozen=True):
    """What exactly broke which rule.

    Attributes:
        field: name of the field, or None when no single field is at fault.
        value: the field's value as JSON text, as it was sent, cut at 200 characters; or None.
        rule: the rule that it broke, in words.
    """

    field: str | None
    value: str | None
    rule: str


class Rejection(msgspec.Struct, frozen=True):
    """The verdict on an element that is no acceptable reading.

    Attributes:
        reason: why, from the closed set.
        detail: which field, which value, which rule.
        original: the element's bytes as they were sent; nothing is lost by a rejection.
        device_id: the device, where it was readable (a JSON string), else None.
        timestamp: UNIX seconds, where readable (a finite JSON number), else None.
        temperature: degrees Celsius, where readable (a finite JSON number), else None.
    """

    reason: Reason
    detail: Detail
    original: bytes
    device_id: str | None = None
    timestamp: float | None = None
    temperature: float | None = None
