"""The notifier's environment, validated once at start."""

from collections.abc import Mapping
from dataclasses import dataclass

from function_support.environment import EnvironmentReader


@dataclass(frozen=True, slots=True)
class Settings:
    """What the template tells the notifier.

    Attributes:
        stage: the stage, as the dimension of every custom metric.
        metrics_namespace: CloudWatch namespace of the custom metrics.
        notifications_topic_arn: topic that people subscribe to.
        stack_name: name of the stack, so that a reader of several knows which one speaks.
        runbook_url: address of the runbook, without a section.
        executions_alarm: name of the alarm that rings while executions fail.
        job_runs_alarm: the same, of the job's runs.
        crawls_alarm: the same, of the crawler's runs.
    """

    stage: str
    metrics_namespace: str
    notifications_topic_arn: str
    stack_name: str
    runbook_url: str
    executions_alarm: str
    job_runs_alarm: str
    crawls_alarm: str

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> "Settings":
        """Read and validate the environment.

        Raises:
            InvalidEnvironmentError: a variable is missing; all of them are named.
        """
        reader = EnvironmentReader(variables)
        settings = cls(
            stage=reader.text("STAGE"),
            metrics_namespace=reader.text("POWERTOOLS_METRICS_NAMESPACE"),
            notifications_topic_arn=reader.text("NOTIFICATIONS_TOPIC_ARN"),
            stack_name=reader.text("STACK_NAME"),
            runbook_url=reader.text("RUNBOOK_URL"),
            executions_alarm=reader.text("EXECUTIONS_ALARM"),
            job_runs_alarm=reader.text("JOB_RUNS_ALARM"),
            crawls_alarm=reader.text("CRAWLS_ALARM"),
        )
        reader.finish()
        return settings
