"""Who may do what: the transport of a request, and the permissions of AWS services that act on their own.

MiniStack evaluates IAM for every request over HTTP: identity policies, boundaries, session policies, the policies of
queues, topics, buckets, functions and keys. It does not do so when one of its services calls another one directly.
Here the deliveries of EventBridge rules, of EventBridge Scheduler and of SNS to functions go through its evaluator:

* a rule's target that is a queue, a topic or a function needs a statement in the target's policy for
  ``events.amazonaws.com`` (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html), and
  in the key policy when a queue or topic is encrypted with a customer managed key;
* a rule's target that is a state machine, and every target of a schedule, is called with a session of the target's role
  (https://docs.aws.amazon.com/scheduler/latest/UserGuide/setting-up.html), whose trust policy has to name the service;
* an SNS subscription of a function needs a statement in the function's policy for ``sns.amazonaws.com``
  (https://docs.aws.amazon.com/sns/latest/dg/sns-lambda-as-subscriber.html).

A delivery that is not permitted is logged and counted, and goes to the dead-letter queue of a rule's target
(https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html).

Known deviations from AWS:

* Loopback HTTP counts as secure transport: ``aws:SecureTransport`` is true for a caller at a loopback address. Nothing
  else is loosened, and over any other address the condition says what the transport was. An endpoint that was started
  with ``--tls`` serves nothing but TLS, and there the condition is what it is on AWS.
* The account's root user is whoever signs with the access key ``test`` and the secret ``test``, or with the account's
  number as access key. A ``Deny`` in the policy of a bucket, queue, topic or key does not reach it; on AWS it does.
* CloudFormation acts with all rights in the account instead of those of its caller; ``iam:PassRole`` is therefore not
  evaluated for the roles that a stack gives to services.
* EventBridge and Scheduler try a delivery once; AWS retries what is not a matter of permissions for up to 24 hours.
  ``DeadLetterConfig`` and ``RetryPolicy`` of a schedule's target have no effect.
* A function's dead-letter queue and its destinations are served without looking at the function's role.
* Direct S3 notifications to functions, which the template does not use, are delivered without looking at the policy.
* Of what a service needs of a key to deliver in its own name, only the grants named above are looked at; what a
  caller needs is in ``encryption``.
"""

import contextvars
import ipaddress
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint, EndpointSettings, TrustError

EVENTS_PRINCIPAL = "events.amazonaws.com"
SCHEDULER_PRINCIPAL = "scheduler.amazonaws.com"
SNS_PRINCIPAL = "sns.amazonaws.com"

logger = logging.getLogger("telemetry_lake.local.access")


def is_secure(source_ip: str, secure_transport: bool, loopback_counts: bool = True) -> bool:
    """Return the value of ``aws:SecureTransport``: TLS or, with ``loopback_counts``, a caller on this very machine.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
    """
    if secure_transport or not loopback_counts:
        return secure_transport
    try:
        return ipaddress.ip_address(source_ip).is_loopback
    except ValueError:
        return False


def role_allows(settings: EndpointSettings, role_arn: str, action: str, resource_arn: str) -> bool:
    """Return whether the identity policies of a role allow an action, for what a service does in the role's name.

    Only for actions that MiniStack's services do in this process; everything over HTTP is evaluated on its way.
    """
    from ministack.core import iam_evaluator

    name = role_arn.rsplit("/", 1)[-1]
    context = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:sts::{settings.account_id}:assumed-role/{name}/service",
        principal_type="AssumedRole",
        principal_account=settings.account_id,
        action=action,
        resource_arn=resource_arn,
        region=settings.region,
    )
    policies = seams.require(iam_evaluator, "_gather_role_policies")(name, settings.account_id)
    decision: str = iam_evaluator.evaluate(context, policies).decision
    return decision == "Allow"


# --- services that call services ------------------------------------------------------------------------------------

# What a service needs of the customer managed key of a queue or topic to which it delivers
# (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html).
KEY_ACTIONS = ("kms:GenerateDataKey", "kms:Decrypt")
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-monitoring.html
EVENTS_NAMESPACE = "AWS/Events"


class NotPermittedError(PermissionError):
    """A policy does not let a service deliver; ``code`` is what the dead-letter queue is told."""

    code = "NO_PERMISSIONS"


class NoTargetError(LookupError):
    """What a rule or a subscription points to does not exist."""

    code = "NO_RESOURCE"


@dataclass(frozen=True)
class Origin:
    """Which rule or schedule a delivery is for."""

    principal: str
    arn: str
    rule_name: str
    target: Mapping[str, Any]


_origin: contextvars.ContextVar[Origin | None] = contextvars.ContextVar("delivery_origin", default=None)


class ServiceAccess:
    """The permissions of EventBridge, Scheduler and SNS, each as a service principal of this account."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def policy_allows(self, policy: Any, action: str, resource_arn: str, principal: str, source_arn: str) -> bool:
        """Return whether a resource's policy lets a service principal do something for ``source_arn``.

        The service brings ``aws:SourceArn`` and ``aws:SourceAccount``
        (https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html).
        """
        from ministack.core import iam_evaluator

        settings = self._endpoint.settings
        context = iam_evaluator.EvalContext(
            # A service is nobody in the account: only its own principal and "*" match.
            principal_arn="*",
            principal_type="Service",
            principal_account="",
            action=action,
            resource_arn=resource_arn,
            region=settings.region,
            secure_transport=True,
            service_context={
                "aws:principalservicename": principal,
                "aws:sourceaccount": settings.account_id,
                "aws:sourcearn": source_arn,
                "aws:sourceowner": settings.account_id,
            },
        )
        evaluate = seams.require(iam_evaluator, "evaluate_resource_policy")
        decision: str = evaluate(policy, context, service=principal).decision
        return decision == "Allow"

    def assert_key(self, key_id: str | None, principal: str, source_arn: str) -> None:
        """Check that a service may use the customer managed key of a queue or topic.

        Raises:
            NotPermittedError: the key policy does not name it, or the key is an AWS managed one, whose policy cannot.
        """
        from ministack.services import kms

        if not key_id:
            return
        found = seams.require(kms, "key_policy_for_arn")(key_id)
        if found is None:
            raise NotPermittedError(f"{principal} cannot use the key {key_id}: its policy does not name services")
        for action in KEY_ACTIONS:
            if not self.policy_allows(found[0], action, key_id, principal, source_arn):
                raise NotPermittedError(f"the policy of the key {key_id} does not allow {principal} {action}")

    def assert_queue(self, queue_arn: str, principal: str, source_arn: str) -> None:
        """Check that a service may send to a queue.

        Raises:
            NotPermittedError: the queue's policy or its key's does not allow it.
            NoTargetError: there is no such queue.
        """
        from ministack.services import sqs

        queue = seams.require(sqs, "_queue_by_arn")(queue_arn)
        if queue is None:
            raise NoTargetError(f"the queue {queue_arn} does not exist")
        attributes = queue["attributes"]
        if not self.policy_allows(attributes.get("Policy"), "sqs:SendMessage", queue_arn, principal, source_arn):
            raise NotPermittedError(f"the policy of the queue {queue_arn} does not allow {principal} sqs:SendMessage")
        self.assert_key(attributes.get("KmsMasterKeyId"), principal, source_arn)

    def assert_topic(self, topic_arn: str, principal: str, source_arn: str) -> None:
        """Check that a service may publish to a topic.

        Raises:
            NotPermittedError: the topic's policy or its key's does not allow it.
            NoTargetError: there is no such topic.
        """
        from ministack.services import sns

        topic = seams.require(sns, "_topics").get(topic_arn)
        if topic is None:
            raise NoTargetError(f"the topic {topic_arn} does not exist")
        attributes = topic["attributes"]
        if not self.policy_allows(attributes.get("Policy"), "sns:Publish", topic_arn, principal, source_arn):
            raise NotPermittedError(f"the policy of the topic {topic_arn} does not allow {principal} sns:Publish")
        self.assert_key(attributes.get("KmsMasterKeyId"), principal, source_arn)

    def invoke_function(self, function_arn: str, event: Any, principal: str, source_arn: str) -> None:
        """Invoke a function asynchronously, with retries, if its policy lets the service do so.

        Raises:
            NotPermittedError: the function's policy does not allow it.
            NoTargetError: there is no such function.
        """
        from ministack.services import lambda_svc

        function, config, _ = seams.require(lambda_svc, "_get_func_record_for_ref")(function_arn)
        if not function or not config:
            raise NoTargetError(f"the function {function_arn} does not exist")
        policy = function.get("policy")
        if not self.policy_allows(policy, "lambda:InvokeFunction", function_arn, principal, source_arn):
            raise NotPermittedError(
                f"the policy of the function {function_arn} does not allow {principal} lambda:InvokeFunction"
            )
        record = seams.require(lambda_svc, "_execution_record_for_config")(function, config)
        seams.require(lambda_svc, "invoke_async_with_retry")(record, event)


class Deliveries:
    """What stands in the place of MiniStack's deliveries of rules, schedules and subscriptions."""

    def __init__(self, endpoint: Endpoint, events: ModuleType, sns: ModuleType) -> None:
        self._endpoint = endpoint
        self._access = ServiceAccess(endpoint)
        self._invoke_target = seams.require(events, "_invoke_target")
        self._to_queue = seams.require(events, "_dispatch_to_sqs")
        self._to_topic = seams.require(events, "_dispatch_to_sns")
        self._sns = sns

    def invoke_target(self, target: Mapping[str, Any], event: Any, rule: Mapping[str, Any], view: Any = None) -> None:
        """Remember for whom the delivery is, then let MiniStack make its input."""
        arn = str(rule.get("Arn", ""))
        principal = SCHEDULER_PRINCIPAL if arn.startswith("arn:aws:scheduler:") else EVENTS_PRINCIPAL
        origin = Origin(principal, arn, str(rule.get("Name", "")), target)
        token = _origin.set(origin)
        try:
            self._invoke_target(target, event, rule, view)
        finally:
            _origin.reset(token)

    def _deliver(self, payload: str, deliver: Callable[[Origin], None]) -> None:
        origin = _origin.get()
        if origin is None:
            raise RuntimeError("a delivery without a rule")
        if origin.principal == EVENTS_PRINCIPAL:
            self._count("Invocations", origin)
        try:
            deliver(origin)
        except (NotPermittedError, NoTargetError) as problem:
            self._failed(origin, payload, problem.code, str(problem))

    def _count(self, metric: str, origin: Origin) -> None:
        self._endpoint.put_metric(EVENTS_NAMESPACE, metric, 1, "Count", {"RuleName": origin.rule_name})

    def _failed(self, origin: Origin, payload: str, code: str, message: str) -> None:
        """Count a failed delivery and put the event into the target's dead-letter queue.

        https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
        """
        logger.warning("%s -> %s: %s", origin.arn, origin.target.get("Arn"), message)
        if origin.principal != EVENTS_PRINCIPAL:
            return
        self._count("FailedInvocations", origin)
        queue_arn = (origin.target.get("DeadLetterConfig") or {}).get("Arn")
        if not queue_arn:
            return
        try:
            self._access.assert_queue(queue_arn, EVENTS_PRINCIPAL, origin.arn)
        except (NotPermittedError, NoTargetError) as problem:
            logger.warning("%s: its dead-letter queue cannot be used: %s", origin.arn, problem)
            self._count("InvocationsFailedToBeSentToDlq", origin)
            return
        self._put_dead_letter(queue_arn, origin, payload, code, message)
        self._count("InvocationsSentToDlq", origin)

    def _put_dead_letter(self, queue_arn: str, origin: Origin, payload: str, code: str, message: str) -> None:
        attributes = {
            "RULE_ARN": origin.arn,
            "TARGET_ARN": str(origin.target.get("Arn")),
            "ERROR_CODE": code,
            "ERROR_MESSAGE": message,
        }

        def send() -> None:
            client = self._endpoint.client("sqs")
            queue_url = client.get_queue_url(QueueName=queue_arn.rsplit(":", 1)[-1])["QueueUrl"]
            client.send_message(
                QueueUrl=queue_url,
                MessageBody=payload,
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
                },
            )

        self._in_background("dead-letter", send)

    @staticmethod
    def _in_background(name: str, work: Callable[[], None]) -> None:
        """Do work that calls the endpoint over HTTP: a delivery may stand on the server's event loop."""
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work,), name=name, daemon=True).start()

    def to_function(self, function_arn: str, payload: str) -> None:
        """Deliver a rule's or schedule's input to a function."""

        def deliver(origin: Origin) -> None:
            if origin.principal == SCHEDULER_PRINCIPAL:
                self._as_role(origin, payload, "lambda")
            else:
                self._access.invoke_function(function_arn, json.loads(payload), origin.principal, origin.arn)

        self._deliver(payload, deliver)

    def to_queue(self, target_arn: Any, payload: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Deliver a rule's or schedule's input to a queue."""

        def deliver(origin: Origin) -> None:
            if origin.principal == SCHEDULER_PRINCIPAL:
                self._as_role(origin, payload, "sqs")
            else:
                self._access.assert_queue(str(target_arn), origin.principal, origin.arn)
                self._to_queue(target_arn, payload, parameters)

        self._deliver(payload, deliver)

    def to_topic(self, topic_arn: str, payload: str) -> None:
        """Deliver a rule's or schedule's input to a topic."""

        def deliver(origin: Origin) -> None:
            if origin.principal == SCHEDULER_PRINCIPAL:
                self._as_role(origin, payload, "sns")
            else:
                self._access.assert_topic(topic_arn, origin.principal, origin.arn)
                self._to_topic(topic_arn, payload)

        self._deliver(payload, deliver)

    def to_state_machine(self, _state_machine_arn: str, payload: str) -> None:
        """Start an execution with the target's role."""
        self._deliver(payload, lambda origin: self._as_role(origin, payload, "stepfunctions"))

    def _as_role(self, origin: Origin, payload: str, service: str) -> None:
        role_arn = origin.target.get("RoleArn")
        if not role_arn:
            raise NotPermittedError("the target has no RoleArn")
        target_arn = str(origin.target["Arn"])

        def call() -> None:
            session = "EventBridgeScheduler" if origin.principal == SCHEDULER_PRINCIPAL else "EventBridgeRule"
            try:
                client = self._endpoint.client(service, role_arn, session, origin.principal, origin.arn)
                _call_target(client, service, target_arn, payload)
            except (TrustError, ClientError, BotoCoreError) as problem:
                self._failed(origin, payload, NotPermittedError.code, str(problem))

        if origin.principal == SCHEDULER_PRINCIPAL:
            call()  # on the sweep's thread, which notes afterwards that the schedule has fired
        else:
            self._in_background(f"deliver-{origin.rule_name}", call)

    def sns_to_function(
        self,
        function_arn: str,
        envelope: str,
        topic_arn: str,
        subscription_arn: str,
        _message_id: str,
        _message: str,
        _attributes: Mapping[str, Any],
    ) -> None:
        """Deliver a notification to a function: https://docs.aws.amazon.com/lambda/latest/dg/with-sns.html."""
        record = {
            "EventVersion": "1.0",
            "EventSubscriptionArn": subscription_arn,
            "EventSource": "aws:sns",
            "Sns": json.loads(envelope),
        }
        dimensions = {"TopicName": topic_arn.rsplit(":", 1)[-1]}
        try:
            self._access.invoke_function(function_arn, {"Records": [record]}, SNS_PRINCIPAL, topic_arn)
            self._endpoint.put_metric("AWS/SNS", "NumberOfNotificationsDelivered", 1, "Count", dimensions)
        except (NotPermittedError, NoTargetError) as problem:
            # https://docs.aws.amazon.com/sns/latest/dg/sns-monitoring-using-cloudwatch.html
            logger.warning("%s: %s", topic_arn, problem)
            self._endpoint.put_metric("AWS/SNS", "NumberOfNotificationsFailed", 1, "Count", dimensions)

    def install(self, events: ModuleType) -> None:
        """Replace MiniStack's deliveries."""
        seams.replace(events, "_invoke_target", self.invoke_target)
        seams.replace(events, "_dispatch_to_lambda", self.to_function)
        seams.replace(events, "_dispatch_to_sqs", self.to_queue)
        seams.replace(events, "_dispatch_to_sns", self.to_topic)
        seams.replace(events, "_dispatch_to_stepfunctions", self.to_state_machine)
        seams.replace(self._sns, "_deliver_to_lambda", self.sns_to_function)


def _call_target(client: Any, service: str, target_arn: str, payload: str) -> None:
    match service:
        case "stepfunctions":
            client.start_execution(stateMachineArn=target_arn, input=payload)
        case "lambda":
            client.invoke(FunctionName=target_arn, InvocationType="Event", Payload=payload.encode())
        case "sqs":
            # Not asked for: the role need not allow more than sqs:SendMessage.
            account_id, queue_name = target_arn.split(":")[-2:]
            queue_url = f"{client.meta.endpoint_url}/{account_id}/{queue_name}"
            client.send_message(QueueUrl=queue_url, MessageBody=payload)
        case "sns":
            client.publish(TopicArn=target_arn, Message=payload)


def install(endpoint: Endpoint) -> None:
    """Count loopback as secure transport and check the permissions of services that call one another."""
    from ministack.core import iam_evaluator

    resolve = seams.require(iam_evaluator, "_resolve_condition_key")

    def resolve_condition_key(key: str, context: Any) -> Any:
        if key.lower() == "aws:securetransport":
            loopback_counts = endpoint.settings.tls_files is None
            return str(is_secure(context.source_ip, context.secure_transport, loopback_counts)).lower()
        return resolve(key, context)

    seams.replace(iam_evaluator, "_resolve_condition_key", resolve_condition_key)

    from ministack.services import eventbridge, sns

    Deliveries(endpoint, eventbridge, sns).install(eventbridge)
