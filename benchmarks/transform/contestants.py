"""Handlers for Firehose to compare with: from doing nothing to what people usually write.

All of them take Firehose's event and answer for each record
(https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html). Apart from ours they take one reading a
record, keep no rejects anywhere and check types alone.
"""

import base64
import json
from typing import Annotated, Any

from aws_lambda_powertools.utilities.data_classes import KinesisFirehoseEvent
from aws_lambda_powertools.utilities.data_classes.kinesis_firehose_event import (
    KinesisFirehoseDataTransformationResponse,
)
from aws_lambda_powertools.utilities.serialization import base64_from_str
from pydantic import BaseModel, Field, ValidationError

Event = dict[str, Any]


def floor(event: Event) -> Event:
    """Decode base64, encode it again, and build the answer: what no handler gets below."""
    records = []
    for record in event["records"]:
        data = base64.b64decode(record["data"])
        records.append({"recordId": record["recordId"], "result": "Ok", "data": base64.b64encode(data).decode("ascii")})
    return {"records": records}


def blueprint_like(event: Event) -> Event:
    """The standard library, a record after the other, as introductions to Firehose have it."""
    records = []
    for record in event["records"]:
        try:
            reading = json.loads(base64.b64decode(record["data"]).decode("utf-8"))
            if not (
                isinstance(reading["device_id"], str)
                and isinstance(reading["temperature"], int | float)
                and isinstance(reading["timestamp"], int | float)
            ):
                raise TypeError("a field of another type")
        except (ValueError, KeyError, TypeError):
            records.append({"recordId": record["recordId"], "result": "ProcessingFailed", "data": record["data"]})
            continue
        line = json.dumps(reading) + "\n"
        data = base64.b64encode(line.encode("utf-8")).decode("utf-8")
        records.append({"recordId": record["recordId"], "result": "Ok", "data": data})
    return {"records": records}


def powertools_data_classes(event: Event) -> Event:
    """The event and the answer by Powertools' data classes."""
    response = KinesisFirehoseDataTransformationResponse()
    for record in KinesisFirehoseEvent(event).records:
        try:
            reading = record.data_as_json
            if not {"device_id", "temperature", "timestamp"} <= reading.keys():
                raise TypeError("a field is missing")
        except (ValueError, TypeError, AttributeError):
            response.add_record(record.build_data_transformation_response(result="ProcessingFailed"))
            continue
        line = json.dumps(reading) + "\n"
        response.add_record(record.build_data_transformation_response(result="Ok", data=base64_from_str(line)))
    return response.asdict()


class _Reading(BaseModel):
    device_id: Annotated[str, Field(min_length=1, max_length=256)]
    temperature: Annotated[float, Field(ge=-100, le=200, strict=True)]
    timestamp: Annotated[float, Field(strict=True)]


def pydantic_model(event: Event) -> Event:
    """A pydantic model for the reading, which validates and writes."""
    records = []
    for record in event["records"]:
        try:
            reading = _Reading.model_validate_json(base64.b64decode(record["data"]))
        except ValidationError:
            records.append({"recordId": record["recordId"], "result": "ProcessingFailed", "data": record["data"]})
            continue
        data = base64.b64encode(reading.model_dump_json().encode() + b"\n").decode("ascii")
        records.append({"recordId": record["recordId"], "result": "Ok", "data": data})
    return {"records": records}
