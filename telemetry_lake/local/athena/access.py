"""The calling principal: Athena reads the catalog and S3 with the caller's permissions, not with any of its own.

https://docs.aws.amazon.com/athena/latest/ug/s3-permissions.html
https://docs.aws.amazon.com/athena/latest/ug/fine-grained-access-to-glue-resources.html
"""

from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

# Requests that Athena makes for its caller carry these keys, so that policies can name Athena
# (https://docs.aws.amazon.com/athena/latest/ug/security-iam-athena-calledvia.html).
_FORWARDED = {
    "aws:calledvia": ["athena.amazonaws.com"],
    "aws:calledviafirst": "athena.amazonaws.com",
    "aws:calledvialast": "athena.amazonaws.com",
    "aws:viaawsservice": "true",
}


@dataclass(frozen=True)
class Caller:
    """The principal whose request this is; its methods have to run in (a copy of) the request's context."""

    endpoint: Endpoint
    access_key_id: str

    @classmethod
    def of_request(cls, endpoint: Endpoint) -> "Caller":
        """Return the principal that signed the request being served; requests of the root user name no key."""
        from ministack.core import iam_evaluator

        return cls(endpoint, seams.require(iam_evaluator, "_verified_key").get())

    def denial(self, action: str, resource_arn: str, **condition_keys: str) -> str | None:
        """Return why the caller may not do that, in IAM's words, or None when it may."""
        from ministack.core import iam_actions, iam_evaluator

        denied = seams.require(iam_evaluator, "enforce")(
            self.access_key_id,
            action,
            action.partition(":")[0],
            self.endpoint.settings.region,
            resource_arn=resource_arn,
            service_context={**_FORWARDED, **condition_keys},
        )
        if denied is None:
            return None
        if isinstance(denied, iam_evaluator.AuthError):
            return str(denied.message)
        message = seams.require(iam_actions, "identity_denial_message")
        return str(message(action, denied.principal_arn, resource_arn, denied.decision == "Deny"))

    def client(self, service: str) -> Any:
        """Return a boto3 client with the caller's own credentials, for calls that change something."""
        from ministack.core import iam_evaluator

        settings = self.endpoint.settings
        if not self.access_key_id or iam_evaluator.is_root_access_key(self.access_key_id):
            return self.endpoint.client(service)
        credential = seams.require(iam_evaluator, "resolve_credential")(self.access_key_id, settings.account_id)
        if isinstance(credential, iam_evaluator.CredentialResolutionError):
            raise PermissionError(credential.message)
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=settings.base_url,
            verify=settings.authority,
            region_name=settings.region,
            aws_access_key_id=credential.access_key_id,
            aws_secret_access_key=credential.secret_access_key,
            aws_session_token=credential.session_token,
            config=Config(retries={"mode": "standard", "max_attempts": 3}),
        )
