"""``awsglue.context``: where a job gets its Spark session and its sources from.

https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-crawler-pyspark-extensions-glue-context.html
"""

import logging
from typing import Any

from pyspark.context import SparkContext
from pyspark.sql import SparkSession

from .bookmark import Bookmark
from .dynamicframe import DynamicFrameReader


class GlueContext:
    """Spark's session with Glue's readers beside it."""

    def __init__(self, sparkContext: SparkContext | None = None, **options: Any) -> None:  # noqa: N803  AWS's name
        if options:
            raise NotImplementedError(f"GlueContext options: {', '.join(options)}")
        self.spark_session = SparkSession(sparkContext or SparkContext.getOrCreate())
        self.create_dynamic_frame = DynamicFrameReader(self)
        self.bookmark: Bookmark | None = None

    def get_logger(self) -> logging.Logger:
        """Return a logger for the run's messages."""
        return logging.getLogger("GlueLogger")
