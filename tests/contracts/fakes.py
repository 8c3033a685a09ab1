"""Real clients of boto3 that a test's own object answers, so that neither side can leave AWS's API models."""

import io
from typing import Any

import boto3
from botocore import xform_name
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.model import OperationModel

from tests.contracts.deviations import covering
from tests.contracts.shapes import CALL, findings


def client_answered_by(service: str, fake: Any) -> Any:
    """Return a client whose requests become calls of the methods that ``fake`` has of the same names.

    The request is judged like that of every client; an answer of ``fake`` that is none of the API's is an
    AssertionError.
    """
    client = boto3.client(  # type: ignore[call-overload]
        service, region_name="ap-northeast-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )

    def keep_arguments(params: Any, context: dict[str, Any], **_: Any) -> None:
        context["arguments"] = params

    def answer(model: OperationModel, context: dict[str, Any], **_: Any) -> tuple[AWSResponse, Any]:
        given = getattr(fake, xform_name(model.name))(**context["arguments"])
        shape: Any = model.output_shape
        lines = findings(given, shape, CALL) if shape is not None else []
        found = [line for line in lines if covering(service, model.name, line) is None]
        assert found == [], f"the fake's answer to {model.name}: {found}"
        return AWSResponse("", 200, HTTPHeaders(), io.BytesIO()), given

    client.meta.events.register("provide-client-params", keep_arguments)
    client.meta.events.register("before-call", answer)
    return client
