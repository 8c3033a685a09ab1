"""``awsglue.dynamicframe``: S3 objects as a frame of text columns.

https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-etl-format-csv-home.html
https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-etl-connect-s3-home.html
"""

import gzip
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from py4j.protocol import Py4JJavaError  # type: ignore[import-not-found]
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  the name that Spark's documentation gives it
from pyspark.sql.utils import AnalysisException

from .bookmark import DEFAULT_MAX_BAND_MILLISECONDS, SourceObject

if TYPE_CHECKING:
    from .context import GlueContext

CONNECTION_OPTIONS = {"paths", "recurse", "maxBand", "maxFilesInBand"}
FORMAT_OPTIONS = {"separator", "quoteChar", "withHeader"}
GLOB_CHARACTERS = frozenset("\\{}[]*?")
READ_BYTES = 1 << 20
OTHER_CODECS = (".bz2", ".deflate", ".lz4", ".snappy", ".zst")
"""Endings of what Hadoop decompresses, gzip apart."""
UNREADABLE = (BotoCoreError, ClientError, EOFError, OSError, zlib.error)


class DynamicFrame:
    """The text columns ``col0``, ``col1``, … of the lines of some objects; a frame of no objects has no columns."""

    def __init__(self, session: SparkSession, objects: Sequence[SourceObject], separator: str) -> None:
        self._session = session
        self._objects = objects
        self._separator = separator

    def toDF(self, options: Any = None) -> DataFrame:  # noqa: N802  AWS's name
        """Return the frame as a Spark DataFrame of strings, as wide as its widest line.

        Raises:
            RuntimeError: an object cannot be read; its name is in the message.
        """
        if options is not None:
            raise NotImplementedError("toDF(options)")
        if not self._objects:
            # Not createDataFrame: PySpark 3.3 cannot send Python's objects to Java with Python 3.11.
            return self._session.range(0).select()
        value = F.col("value")
        lines = self._session.read.text([_hadoop_path(o) for o in self._objects])
        # Splitting alters bytes that are not UTF-8, so lines without a separator are left alone.
        cells = F.when(value.contains(self._separator), F.split(value, f"\\Q{self._separator}\\E", -1)).otherwise(
            F.array(value)
        )
        if not _may_contain(self._objects, self._separator.encode()):
            return lines.select(value.alias("col0"))
        try:
            width = lines.agg(F.max(F.size(cells))).first()[0] or 1
        except (Py4JJavaError, AnalysisException) as error:
            unreadable = _first_unreadable(self._objects)
            if unreadable is None:
                raise
            raise RuntimeError(f"Unable to parse file: {unreadable}") from error
        if width == 1:
            return lines.select(value.alias("col0"))
        rows = lines.select(cells.alias("cells"))
        return rows.select(*(F.when(F.size("cells") > n, F.col("cells")[n]).alias(f"col{n}") for n in range(width)))


class DynamicFrameReader:
    """What ``GlueContext.create_dynamic_frame`` is."""

    def __init__(self, glue_context: "GlueContext") -> None:
        self._glue_context = glue_context

    def from_options(  # noqa: PLR0917  AWS's signature
        self,
        connection_type: str,
        connection_options: Mapping[str, Any] = {},
        format: str | None = None,
        format_options: Mapping[str, Any] = {},
        transformation_ctx: str = "",
        push_down_predicate: str = "",
        **kwargs: Any,
    ) -> DynamicFrame:
        """Return the frame of the objects below ``paths`` that the bookmark leaves to read.

        Raises:
            NotImplementedError: an option is not modelled.
        """
        unknown = {*connection_options} - CONNECTION_OPTIONS | {*format_options} - FORMAT_OPTIONS | {*kwargs}
        if connection_type != "s3" or format != "csv" or push_down_predicate or unknown:
            raise NotImplementedError(f"Only CSV in S3 is modelled, without {sorted(unknown) or push_down_predicate}")
        if format_options.get("quoteChar") != -1 or format_options.get("withHeader", False):
            raise NotImplementedError('Only lines without quotes and without a header: {"quoteChar": -1}')
        listed_at = time.time_ns() // 1_000_000
        listed = [
            found
            for path in connection_options["paths"]
            for found in _list_objects(path, bool(connection_options.get("recurse", False)))
        ]
        bookmark = self._glue_context.bookmark
        if bookmark is not None:
            max_files = connection_options.get("maxFilesInBand")
            listed = bookmark.select(
                transformation_ctx,
                listed,
                listed_at,
                int(connection_options.get("maxBand", DEFAULT_MAX_BAND_MILLISECONDS)),
                None if max_files is None else int(max_files),
            )
        return DynamicFrame(self._glue_context.spark_session, listed, format_options.get("separator", ","))


def _list_objects(path: str, recurse: bool) -> Iterator[SourceObject]:
    bucket, _, prefix = path.removeprefix("s3://").partition("/")
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for entry in page.get("Contents", ()):
            below = entry["Key"][len(prefix) :].lstrip("/")
            if entry["Size"] == 0 or _is_hidden(below) or (not recurse and "/" in below):
                continue
            modified = int(entry["LastModified"].timestamp() * 1000)
            yield SourceObject(bucket, entry["Key"], modified, entry["Size"])


def _is_hidden(key_below_path: str) -> bool:
    return any(segment.startswith(("_", ".")) for segment in key_below_path.split("/"))


def _hadoop_path(source: SourceObject) -> str:
    """Return the object's address with the characters escaped that Spark would take for a pattern.

    Raises:
        ValueError: Hadoop would understand the address as another one.
    """
    if any(segment in ("", ".", "..") for segment in source.key.split("/")):
        raise ValueError(f"Hadoop's file systems cannot name this key: {source.uri}")
    return "".join(f"\\{character}" if character in GLOB_CHARACTERS else character for character in source.uri)


def _may_contain(objects: Sequence[SourceObject], separator: bytes) -> bool:
    """Whether a separator may be in one of the objects; where it is not, Spark is spared a pass over all of them."""
    client = boto3.client("s3")

    def is_found(source: SourceObject) -> bool:
        if len(separator) > 1 or source.key.endswith(OTHER_CODECS):
            return True
        try:
            return any(separator in chunk for chunk in _read(client, source))
        except UNREADABLE:
            return True  # Spark's pass says what is the matter

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return any(threads.map(is_found, objects))


def _first_unreadable(objects: Sequence[SourceObject]) -> str | None:
    """Return the first object that cannot be fetched or decompressed to its end, None if all of them can."""
    client = boto3.client("s3")
    for source in objects:
        try:
            for _chunk in _read(client, source):
                pass
        except UNREADABLE as error:
            return f"{source.uri} ({type(error).__name__}: {error})"
    return None


def _read(client: Any, source: SourceObject) -> Iterator[bytes]:
    """Yield an object's content, decompressed."""
    body = client.get_object(Bucket=source.bucket, Key=source.key)["Body"]
    stream = gzip.GzipFile(fileobj=body) if source.key.endswith(".gz") else body
    while chunk := stream.read(READ_BYTES):
        yield chunk
