"""What a command talks to: the laptop's embedded endpoint or an AWS account, and the stack's resources there."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from telemetry_contract import Policy
from telemetry_lake.console import OperatorError
from telemetry_lake.laptop import REGION, Laptop

if TYPE_CHECKING:
    from mypy_boto3_athena import AthenaClient
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackTypeDef
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_firehose import FirehoseClient
    from mypy_boto3_glue import GlueClient
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_pipes import EventBridgePipesClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

ACCOUNT_STACK_NAME = "telemetry-lake"
# What every AWS emulator takes; it is no secret.
LAPTOP_ACCESS_KEY = "test"
OPTIONAL_OUTPUTS = ("TriggerQueueUrl", "TriggerDeadLetterQueueUrl", "PipeName")


@dataclass(frozen=True)
class StackOutputs:
    """The outputs of ``template.yaml`` that the commands use; those of a stack without event trigger are None."""

    stage: str
    stream_name: str
    delivery_stream_name: str
    raw_bucket_name: str
    raw_prefix: str
    error_prefix: str
    analytics_bucket_name: str
    curated_prefix: str
    dlq_prefix: str
    summaries_prefix: str
    quarantine_prefix: str
    state_machine_arn: str
    job_name: str
    crawler_name: str
    database_name: str
    table_name: str
    rejected_table_name: str
    work_group_name: str
    dashboard_name: str
    partition_time_zone: str
    trigger_queue_url: str | None = None
    trigger_dead_letter_queue_url: str | None = None
    pipe_name: str | None = None

    @classmethod
    def from_mapping(cls, outputs: Mapping[str, str], stack_name: str) -> "StackOutputs":
        """Build it from output keys and values as CloudFormation gives them.

        Raises:
            OperatorError: the stack lacks one, so it is not one of this version of the template.
        """
        wanted = {_output_key(field.name): field.name for field in fields(cls)}
        missing = sorted(set(wanted) - set(outputs) - set(OPTIONAL_OUTPUTS))
        if missing:
            raise OperatorError(
                f"The stack {stack_name} has no output {', '.join(missing)}: another template, or an older one.",
                "Name the stack with --stack-name, or deploy this version of the template.",
            )
        return cls(**{name: outputs[key] for key, name in wanted.items() if key in outputs})


def _output_key(field_name: str) -> str:
    """Return the output's name for a field: ``StreamName`` for ``stream_name``."""
    return "".join(word.capitalize() for word in field_name.split("_"))


class Target:
    """A region of an account, or the embedded endpoint, with one client for each service."""

    def __init__(
        self, region: str | None, laptop_url: str | None, stack_name: str, laptop_authority: str | None = None
    ) -> None:
        """Talk to ``laptop_url``, or to AWS (or what the AWS variables name) if it is None.

        ``laptop_authority`` is the bundle of certificates for a laptop that serves over TLS.
        """
        self.laptop_url = laptop_url
        self.laptop_authority = laptop_authority
        self.stack_name = stack_name
        if laptop_url is None:
            named = region or os.environ.get("AWS_REGION") or boto3.Session().region_name
            self._session = boto3.Session(region_name=named or REGION)
        else:
            # A profile named in the environment belongs to an account, and must not even have to exist here.
            core = botocore.session.Session(session_vars={"profile": (None, None, None, None)})
            self._session = boto3.Session(
                aws_access_key_id=LAPTOP_ACCESS_KEY,
                aws_secret_access_key=LAPTOP_ACCESS_KEY,
                region_name=REGION,
                botocore_session=core,
            )
        self.region: str = self._session.region_name

    @property
    def description(self) -> str:
        """Where this is, for a person."""
        endpoint = self.laptop_url or os.environ.get("AWS_ENDPOINT_URL")
        place = f"the embedded endpoint {endpoint}" if endpoint else f"AWS in {self.region}"
        return f"stack {self.stack_name} at {place}"

    def has_credentials(self) -> bool:
        """Tell whether requests could be signed."""
        return self._session.get_credentials() is not None

    def _client(self, service: str) -> Any:
        # The laptop's address never goes through a proxy; an account's may (None: as the variables say).
        proxies: dict[str, str] | None = {} if self.laptop_url else None
        config = Config(retries={"mode": "standard", "max_attempts": 5}, proxies=proxies)
        return self._session.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.laptop_url,
            verify=self.laptop_authority,
            config=config,
        )

    @cached_property
    def athena(self) -> "AthenaClient":
        """Amazon Athena."""
        return self._client("athena")  # type: ignore[no-any-return]

    @cached_property
    def cloudformation(self) -> "CloudFormationClient":
        """AWS CloudFormation."""
        return self._client("cloudformation")  # type: ignore[no-any-return]

    @cached_property
    def cloudwatch(self) -> "CloudWatchClient":
        """Amazon CloudWatch."""
        return self._client("cloudwatch")  # type: ignore[no-any-return]

    @cached_property
    def firehose(self) -> "FirehoseClient":
        """Amazon Data Firehose."""
        return self._client("firehose")  # type: ignore[no-any-return]

    @cached_property
    def glue(self) -> "GlueClient":
        """AWS Glue."""
        return self._client("glue")  # type: ignore[no-any-return]

    @cached_property
    def kinesis(self) -> "KinesisClient":
        """Amazon Kinesis Data Streams."""
        return self._client("kinesis")  # type: ignore[no-any-return]

    @cached_property
    def pipes(self) -> "EventBridgePipesClient":
        """Amazon EventBridge Pipes."""
        return self._client("pipes")  # type: ignore[no-any-return]

    @cached_property
    def s3(self) -> "S3Client":
        """Amazon S3."""
        return self._client("s3")  # type: ignore[no-any-return]

    @cached_property
    def sqs(self) -> "SQSClient":
        """Amazon SQS."""
        return self._client("sqs")  # type: ignore[no-any-return]

    @cached_property
    def stepfunctions(self) -> "SFNClient":
        """AWS Step Functions."""
        return self._client("stepfunctions")  # type: ignore[no-any-return]

    @cached_property
    def _stack(self) -> "StackTypeDef":
        try:
            stacks = self.cloudformation.describe_stacks(StackName=self.stack_name)["Stacks"]
        except ClientError as error:
            # A missing stack is a ValidationError:
            # https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStacks.html
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            stacks = []
        if not stacks:
            raise OperatorError(
                f"There is no {self.description}.",
                "On a laptop: tlake up. In an account: sam build && sam deploy --config-env prod, "
                "then name the stack with --stack-name and --region.",
            )
        return stacks[0]

    @cached_property
    def outputs(self) -> StackOutputs:
        """The stack's outputs.

        Raises:
            OperatorError: there is no such stack, or it is not one of this template.
        """
        outputs = {output["OutputKey"]: output["OutputValue"] for output in self._stack.get("Outputs", [])}
        return StackOutputs.from_mapping(outputs, self.stack_name)

    @cached_property
    def policy(self) -> Policy:
        """The limits by which the stack's transform judges readings: the stack's parameters.

        Raises:
            OperatorError: there is no such stack, or it is not one of this template.
        """
        given = {each["ParameterKey"]: each["ParameterValue"] for each in self._stack.get("Parameters", [])}
        try:
            return Policy(
                temperature_min=float(given["TemperatureMin"]),
                temperature_max=float(given["TemperatureMax"]),
                max_future_seconds=float(given["MaxFutureSeconds"]),
                max_age_days=float(given["MaxAgeDays"]),
            )
        except KeyError as error:
            raise OperatorError(
                f"The stack {self.stack_name} has no parameter {error}: another template, or an older one.",
                "Name the stack with --stack-name, or deploy this version of the template.",
            ) from error


def choose_target(
    laptop: Laptop, deployed: str | None, stack_name: str | None, region: str | None, account: bool
) -> Target:
    """Return what to talk to: the laptop's endpoint when it runs, else the account of the AWS variables.

    ``AWS_ENDPOINT_URL`` set by hand, ``account`` or a region that the laptop does not have mean the latter.

    Args:
        laptop: the state directory.
        deployed: the stack that was deployed from it, if one was.
        stack_name: the stack that was asked for.
        region: the region that was asked for.
        account: leave the laptop out.

    Raises:
        OperatorError: neither is there.
    """
    by_hand = os.environ.get("AWS_ENDPOINT_URL")
    if not account and not by_hand and region in (None, REGION):
        instance = laptop.instance()
        if instance is not None:
            name = stack_name or deployed
            if name is None:
                raise OperatorError("Nothing has been deployed to the endpoint that runs.", "Run tlake up.")
            return Target(REGION, instance.endpoint_url, name, instance.authority)
    target = Target(region, None, stack_name or (deployed if by_hand else None) or ACCOUNT_STACK_NAME)
    if not target.has_credentials():
        raise OperatorError(
            f"Nothing to talk to: no endpoint runs on {laptop.directory}, and there are no AWS credentials.",
            "Start one with tlake up, or set the usual AWS variables (AWS_PROFILE, AWS_REGION).",
        )
    return target


def state_directory_from(option: Path | None) -> Path:
    """Return the state directory: as given, or ``.tlake`` in the current directory."""
    return option if option is not None else Path.cwd() / ".tlake"
