"""Raw JSON lines to Parquet, incrementally: every line is stored once, found a duplicate, or kept with a reason.

The script reads from top to bottom as the six steps of a run: read, judge, stage, publish, summary, commit. What
touches AWS is a thin shell (`run`); the rest are functions from data frames to data frames, without user-defined
functions, so that all of the work stays inside Spark (3.3 to 4.1, ANSI mode on or off).

What makes a run safe to repeat:

* The bookmark only says what need not be read again. What is already stored is found by comparing readings with the
  touched day folders of the table, so a lost bookmark costs time and changes nothing.
* Spark writes into a staging folder of the run alone. Whole files are copied from there under names that hold the run's
  id: a killed run leaves some whole files of its batch, or none, and the next run completes the rest.
* The bookmark is committed last, after everything else has succeeded.

Job parameters: ``--SOURCE_S3 --TARGET_S3 --DLQ_S3 --STAGING_S3 --SUMMARIES_S3 --SETTINGS_S3`` (each an address such as
``s3://bucket/prefix/``), ``--DATABASE_NAME --TABLE_NAME --PARTITION_TIME_ZONE``, and optionally ``--TARGET_FILE_MB``
(256), ``--MODE`` (``load``, or ``audit``: read whole arrival days again without the bookmark) and ``--DAYS`` (for an
audit: a JSON list such as ``["2025-10-15"]``, UTC arrival days that are over; an empty list stands for the last two).
"""

import json
import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any, NamedTuple

import boto3
from awsglue.context import GlueContext
from awsglue.job import Job
from awsglue.utils import getResolvedOptions
from botocore.config import Config
from botocore.exceptions import ClientError
from pyspark.context import SparkContext
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F  # noqa: N812  the name that Spark's documentation gives it
from pyspark.sql.window import Window

REQUIRED_ARGUMENTS = (
    "JOB_NAME",
    "SOURCE_S3",
    "TARGET_S3",
    "DLQ_S3",
    "STAGING_S3",
    "SUMMARIES_S3",
    "SETTINGS_S3",
    "DATABASE_NAME",
    "TABLE_NAME",
    "PARTITION_TIME_ZONE",
)
OPTIONAL_ARGUMENTS = {"TARGET_FILE_MB": "256", "MODE": "load", "DAYS": "[]"}

CONTRACT_VERSION = "1"
"""Number of the shape rules; the limits that a transform judges by are not looked at here."""

IDENTITY = ("device_id", "timestamp", "temperature")
NUMBERS = IDENTITY[1:]
FIELDS_AS_JUDGED = ("device_id", "temperature", "timestamp")
"""The order in which a reading's fields are looked for."""
REQUIRED_COLUMNS = {"device_id": "string", "temperature": "double", "timestamp": "double", "event_time": "timestamp"}
PARTITION_KEYS = ("year", "month", "day")
STAGED_FOLDERS = ("staged-date", "staged-chunk")
"""A reading's day, and which of the day's files it belongs in.

The only names on the way that the table's columns cannot have: all others stay clear of these inside a struct.
"""

MAX_DEVICE_ID_LENGTH = 256
MAX_DETAIL_LENGTH = 200
SEPARATOR = "\u0001"

# 0001-01-02 to 9999-12-31, both at 00:00 UTC: a calendar day of these years in every time zone. UNIX seconds.
FIRST_SECOND = -62_135_510_400
LAST_SECOND = 253_402_214_400

SUMMARY_SCHEMA_VERSION = 1
MAX_LISTED_PARTITIONS = 500
MAX_LISTED_DAYS = 400
MAX_LISTED_KEYS = 200
MAX_LISTED_GAPS = 100
"""BatchGetPartition takes 1,000 at most: https://docs.aws.amazon.com/glue/latest/webapi/API_BatchGetPartition.html"""

RUN_ID_DELIMITER = "_"
MAX_DELETED_KEYS = 1000
MAX_TIME_RANGES = 50
MAX_BROADCAST_ROWS = 100_000
MAX_WRITE_TASKS = 512
FEW_WRITE_TASKS = 16

REJECTS_PER_FILE = 100_000
PUBLISH_THREADS = 8
# What a row takes in a file, about: 500,000 readings of 1,000 devices were 7.9 MB.
BYTES_PER_ROW = 16
BYTES_PER_FURTHER_COLUMN = 8

LINE_AND_MARK = 2
"""Elements of the array that a line is parsed as."""

FIRST_SPARK_THAT_CHECKS_UTF8 = 4
SPLITTER = 134_217_729.0
"""2 ** 27 + 1: divides the 53 bits of a double into two halves (T. J. Dekker, 1971)."""

STRICT_JSON = {
    "mode": "PERMISSIVE",
    "allowComments": "false",
    "allowUnquotedFieldNames": "false",
    "allowSingleQuotes": "false",
    "allowNumericLeadingZeros": "false",
    "allowNonNumericNumbers": "false",
    "allowBackslashEscapingAnyCharacter": "false",
    "allowUnquotedControlChars": "false",
}

UTC = timezone.utc  # noqa: UP017  Glue 4.0 runs Python 3.10

logger = logging.getLogger("telemetry_etl")


class EtlError(Exception):
    """The run cannot go on; the message says why and what to do next."""


class OwnershipLostError(EtlError):
    """A later run has taken over: this one must not publish any more."""


# ------------------------------------------------------------------------------------------------- what a run is told


class S3Location(NamedTuple):
    """A folder in S3; the prefix ends with a slash."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, address: str) -> "S3Location":
        """Read ``s3://bucket/prefix/``.

        Raises:
            EtlError: it is no such address.
        """
        match = re.fullmatch(r"s3://([^/]+)/(.+/)", address)
        if match is None:
            raise EtlError(f"Not a folder in S3 (s3://bucket/prefix/): {address!r}")
        return cls(match[1], match[2])

    @property
    def address(self) -> str:
        """The folder as ``s3://bucket/prefix/``."""
        return f"s3://{self.bucket}/{self.prefix}"


@dataclass(frozen=True)
class Arguments:
    """The run's parameters; ``days`` are UTC arrival days and only set for an audit."""

    job_name: str
    job_run_id: str
    source: S3Location
    target: S3Location
    dead_letters: S3Location
    staging: S3Location
    summaries: S3Location
    settings: S3Location
    database_name: str
    table_name: str
    partition_time_zone: str
    target_file_bytes: int
    mode: str
    days: tuple[date, ...]


def read_arguments(argv: Sequence[str], options: Mapping[str, str], today: date) -> Arguments:
    """Check the run's parameters.

    Args:
        argv: ``sys.argv``; Glue passes ``--JOB_RUN_ID`` there, a name that ``getResolvedOptions`` keeps to itself.
        options: what ``getResolvedOptions`` returned.
        today: the current day in UTC.

    Raises:
        EtlError: one of them is not usable.
    """
    mode = options["MODE"]
    if mode not in ("load", "audit"):
        raise EtlError(f"--MODE is load or audit, not {mode!r}")
    try:
        target_file_bytes = int(options["TARGET_FILE_MB"]) * 1024 * 1024
        days = tuple(sorted({date.fromisoformat(day) for day in json.loads(options["DAYS"])}))
    except (TypeError, ValueError) as error:
        raise EtlError(
            f"--TARGET_FILE_MB is a whole number and --DAYS a JSON list of ISO days: {options['TARGET_FILE_MB']!r}, "
            f"{options['DAYS']!r}"
        ) from error
    if target_file_bytes <= 0:
        raise EtlError("--TARGET_FILE_MB must be positive")
    if any(day >= today for day in days):
        # What arrives between the load and the audit would be counted as missed. The load before it is given the days
        # too, so that it is not run in vain.
        raise EtlError(f"An audit reads UTC arrival days that are over, so before {today}: --DAYS {options['DAYS']}")
    return Arguments(
        job_name=options["JOB_NAME"],
        job_run_id=_argument(argv, "JOB_RUN_ID"),
        source=S3Location.parse(options["SOURCE_S3"]),
        target=S3Location.parse(options["TARGET_S3"]),
        dead_letters=S3Location.parse(options["DLQ_S3"]),
        staging=S3Location.parse(options["STAGING_S3"]),
        summaries=S3Location.parse(options["SUMMARIES_S3"]),
        settings=S3Location.parse(options["SETTINGS_S3"]),
        database_name=options["DATABASE_NAME"],
        table_name=options["TABLE_NAME"],
        partition_time_zone=options["PARTITION_TIME_ZONE"],
        target_file_bytes=target_file_bytes,
        mode=mode,
        days=days or (today - timedelta(days=2), today - timedelta(days=1)) if mode == "audit" else (),
    )


def resolve_options(argv: Sequence[str]) -> dict[str, Any]:
    """Let Glue read the parameters; it takes every name that it is asked for as required."""
    given = [name for name in OPTIONAL_ARGUMENTS if _is_given(argv, name)]
    return {**OPTIONAL_ARGUMENTS, **getResolvedOptions(list(argv), [*REQUIRED_ARGUMENTS, *given])}


def _is_given(argv: Sequence[str], name: str) -> bool:
    return any(word == f"--{name}" or word.startswith(f"--{name}=") for word in argv)


def _argument(argv: Sequence[str], name: str) -> str:
    for position, word in enumerate(argv):
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
        if word == f"--{name}" and position + 1 < len(argv):
            return argv[position + 1]
    raise EtlError(f"Glue did not pass --{name}")


class TableColumn(NamedTuple):
    """A column of the catalog table, its type in Hive's words, which Spark understands."""

    name: str
    type: str


def read_columns(glue: Any, database_name: str, table_name: str) -> list[TableColumn]:
    """Return the table's columns from the catalog, which owns them; partition keys are not among them.

    https://docs.aws.amazon.com/glue/latest/webapi/API_GetTable.html

    Raises:
        EtlError: the table lacks what every reading has, is partitioned in another way, or has a name of ours.
    """
    table = glue.get_table(DatabaseName=database_name, Name=table_name)["Table"]
    columns = [TableColumn(column["Name"], column["Type"]) for column in table["StorageDescriptor"]["Columns"]]
    types = dict(columns)
    wrong = {name: kind for name, kind in REQUIRED_COLUMNS.items() if types.get(name) != kind}
    keys = [(key["Name"], key["Type"]) for key in table.get("PartitionKeys", ())]
    if wrong or keys != [(name, "int") for name in PARTITION_KEYS]:
        raise EtlError(
            f"The table {database_name}.{table_name} needs the columns {REQUIRED_COLUMNS} and the partition keys "
            f"{', '.join(PARTITION_KEYS)} of type int; the catalog has {types} and {keys}. Deploy the template again."
        )
    if types.keys() & set(STAGED_FOLDERS):
        raise EtlError(
            f"The table {database_name}.{table_name} has a column with a name that the job writes its staged files by "
            f"({', '.join(STAGED_FOLDERS)}). Give the column another name."
        )
    return columns


def further_columns(columns: Sequence[TableColumn]) -> list[TableColumn]:
    """Return the columns that are filled from the JSON field of the same name without being judged."""
    return [column for column in columns if column.name not in REQUIRED_COLUMNS]


# ------------------------------------------------------------------------------------------------------ 1. read


def read_lines(glue_context: Any, paths: Sequence[str], transformation_ctx: str) -> DataFrame | None:
    r"""Read objects as lines of text, through the bookmark if ``transformation_ctx`` is given.

    The CSV reader with a separator that text does not contain, and without quotes, leaves every line whole; a reader
    for JSON would guess types, hide bad lines and lose what they were. U+0001 ("ctrla") is one of the separators that
    Glue names itself: https://docs.aws.amazon.com/glue/latest/webapi/API_S3CsvSource.html

    Returns:
        The columns of `lines_of`, or None if there is nothing to read.
    """
    frame = glue_context.create_dynamic_frame.from_options(
        connection_type="s3",
        connection_options={"paths": list(paths), "recurse": True},
        format="csv",
        format_options={"separator": SEPARATOR, "quoteChar": -1, "withHeader": False},
        transformation_ctx=transformation_ctx,
    )
    cells = frame.toDF()
    # A frame of no objects has no columns.
    return lines_of(cells) if cells.columns else None


def lines_of(cells: DataFrame) -> DataFrame:
    """Put lines together again that the reader has cut at U+0001, and leave blank ones out.

    Args:
        cells: text columns, one at least.

    Returns:
        ``line``: the text; ``is_cut``: whether the line contains U+0001.
    """
    first, *others = sorted(cells.columns, key=lambda name: (len(name), name))
    is_cut = F.lit(False)
    for other in others:
        is_cut = is_cut | F.col(other).isNotNull()
    # Where nothing was cut the line is taken as it is: putting text together may touch bytes that are not UTF-8.
    whole = F.when(is_cut, F.concat_ws(SEPARATOR, F.coalesce(first, F.lit("")), *others)).otherwise(F.col(first))
    return cells.select(whole.alias("line"), is_cut.alias("is_cut")).where(F.col("line").rlike(r"[^ \t\r\n]"))


# ------------------------------------------------------------------------------------------------------ 2. judge


_NUMBER = r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,17})?"
_SIGN = r"[ !#-\[\]-~]"
_OTHER_FIELD = rf',"(?!(?:device_id|temperature|timestamp)"){_SIGN}*":(?:"{_SIGN}*"|{_NUMBER}|true|false|null)'
PLAIN_READING = (
    rf'\A\{{"device_id":"{_SIGN}{{1,{MAX_DEVICE_ID_LENGTH}}}","temperature":{_NUMBER},"timestamp":{_NUMBER}'
    rf"(?:{_OTHER_FIELD}){{0,16}}\}}\z"
)
"""What nearly all lines are: an object as the transform writes it, in ASCII, without escapes, exponents and nesting.

Such a line is one strict JSON text, and its device and numbers are in order, the year of its timestamp apart. Its
values stand between the same quotes in each, so that it needs no parser.
"""


def _piece(number: int) -> str:
    return f"substring_index(substring_index(line, '\"', {number}), '\"', -1)"


PLAIN_VALUES = {
    "device_id": _piece(4),
    "temperature": f"try_cast(btrim({_piece(7)}, ':,}}') AS double)",
    "timestamp": f"try_cast(btrim({_piece(9)}, ':,}}') AS double)",
}
"""SQL for the values of a line that is like `PLAIN_READING`."""


def judge_lines(lines: DataFrame, columns: Sequence[TableColumn], time_zone: str) -> DataFrame:
    """Tell readings from rejects, by the shape of each line alone.

    Lines are read once, and written down with what nearly all of them come to; whatever is not like these is judged
    from there. What is only cached would be forgotten at the next write, and read again from what may have changed.

    Args:
        lines: ``line`` and ``is_cut``.
        columns: the table's columns.
        time_zone: the IANA zone whose days the table is partitioned by.

    Returns:
        One row a line. If ``is_reading``, it has the required columns, ``further`` (a struct of the other ones, if
        there are any) and ``staged-date``, and no ``line``; if not, it has ``line`` and ``is_cut`` and nothing else.
    """
    told = _judged(take_plain_readings(lines, columns), columns, time_zone).localCheckpoint()
    others = told.where("NOT is_reading").select("line", "is_cut")
    if others.isEmpty():
        return told
    judged = _judged(judge_other_lines(others, columns), columns, time_zone).localCheckpoint()
    return told.where("is_reading").unionByName(judged)


def take_plain_readings(lines: DataFrame, columns: Sequence[TableColumn]) -> DataFrame:
    """Judge lines that are like `PLAIN_READING` without a parser; all others are no readings yet.

    Args:
        lines: ``line`` and ``is_cut``.
        columns: the table's columns.

    Returns:
        ``line``, ``is_cut``, ``is_reading`` and, if there are further columns, ``texts``, a struct of them; and the
        fields of `IDENTITY`, which only count if ``is_reading``.
    """
    rows = lines.withColumn("is_plain", F.col("line").rlike(PLAIN_READING))
    rows = rows.withColumns({name: F.when(F.col("is_plain"), F.expr(value)) for name, value in PLAIN_VALUES.items()})
    if further_columns(columns):
        texts = F.from_json(F.when(F.col("is_plain"), F.col("line")), _struct_of_texts(columns), STRICT_JSON)
        rows = rows.withColumn("texts", texts)
    is_reading = F.col("is_plain") & _is_in_range(F.col("timestamp"))
    return rows.withColumn("is_reading", F.coalesce(is_reading, F.lit(False))).drop("is_plain")


def judge_other_lines(lines: DataFrame, columns: Sequence[TableColumn]) -> DataFrame:
    """Judge lines of any kind; arguments and result are those of `take_plain_readings`."""
    further = further_columns(columns)
    fields = [("device_id", "string"), ("temperature", "double"), ("timestamp", "double")]
    fields += [(column.name, "string") for column in further] + [("$end", "string")]
    schema = f"array<struct<{','.join(f'{_quoted(name)}:{kind}' for name, kind in fields)}>>"
    rows = _wrap(lines).withColumn("parsed", F.from_json("wrapped", schema, STRICT_JSON))
    rows = rows.withColumns({"first": _element(F.col("parsed"), 0), "second": _element(F.col("parsed"), 1)})
    rows = rows.withColumns({name: F.col("first")[name] for name in IDENTITY})
    if further:
        rows = rows.withColumn(
            "texts", F.struct(*(F.col("first")[column.name].alias(column.name) for column in further))
        )
    is_reading = (
        _is_utf8("line")
        & ~F.col("is_cut")
        & ~_has_lone_surrogate("line")
        & (F.col("second.$end") == F.col("end"))
        & _is_text("device_id", F.col("device_id"))
        & _is_device_id(F.col("device_id"))
        & _is_finite(F.col("temperature"))
        & _is_in_range(F.col("timestamp"))
    )
    return rows.withColumn("is_reading", F.coalesce(is_reading, F.lit(False)))


def _judged(rows: DataFrame, columns: Sequence[TableColumn], time_zone: str) -> DataFrame:
    """Give judged lines the form that `judge_lines` returns."""
    is_reading = F.col("is_reading")
    further = [_cast(column).alias(column.name) for column in further_columns(columns)]
    rows = rows.select(
        is_reading,
        F.when(~is_reading, F.col("line")).alias("line"),
        "is_cut",
        F.when(is_reading, F.col("device_id")).alias("device_id"),
        *(F.when(is_reading, _without_minus_zero(F.col(name))).alias(name) for name in NUMBERS),
        *([F.when(is_reading, F.struct(*further)).alias("further")] if further else []),
    )
    return add_date(add_event_time(rows), time_zone)


def _struct_of_texts(columns: Sequence[TableColumn]) -> str:
    return f"struct<{','.join(f'{_quoted(column.name)}:string' for column in further_columns(columns))}>"


def _is_in_range(timestamp: Column) -> Column:
    return timestamp.between(float(FIRST_SECOND), float(LAST_SECOND))


def _wrap(rows: DataFrame) -> DataFrame:
    """Add ``wrapped``, the line as the first of two elements of a JSON array, and ``end``, the mark in the second.

    Spark's parser stops where the JSON text ends, whatever follows. As an element of an array, the line may hold one
    text only; and the element behind it, which no line has by chance, proves that the line has not closed the array.
    """
    end = F.xxhash64("line").cast("string")
    wrapped = F.concat(F.lit("["), "line", F.lit(',{"$end":"'), end, F.lit('"}]'))
    return rows.withColumns({"end": end, "wrapped": wrapped})


def _element(array: Column, position: int) -> Column:
    """Return an element of a parsed line, null unless the line is the only one before the mark at the end."""
    return F.when(F.size(array) == LINE_AND_MARK, array[position])


def explain_rejects(rejects: DataFrame) -> DataFrame:
    """Say what is wrong with lines that are no readings, by the first rule that each breaks: bytes, grammar, fields.

    Args:
        rejects: ``line`` and ``is_cut``.

    Returns:
        ``line``; ``reject`` (reason, field, value, rule); of ``device_id``, ``timestamp`` and ``temperature`` what can
        be read.
    """
    texts = F.from_json("wrapped", "array<string>", STRICT_JSON)
    objects = F.from_json("wrapped", "array<map<string,string>>", STRICT_JSON)
    rows = _wrap(rejects.select("line", "is_cut")).withColumns(
        {"text": _element(texts, 0), "mark": _element(texts, 1), "fields": _element(objects, 0)}
    )
    # A map that is asked for a name that it does not have is an error in ANSI mode.
    rows = rows.withColumns({f"{name}_value": F.when(_has_field(name), F.col("fields")[name]) for name in IDENTITY})
    rows = rows.withColumns(
        {f"{name}_is_text": _is_text(name, F.col(f"{name}_value")) for name in IDENTITY}
        | {f"{name}_number": _typed(name, "double") for name in NUMBERS}
    )
    rows = rows.withColumn("broken", _first_broken_rule())
    is_readable = ~F.col("broken.reason").isin("not_utf8", "malformed_json", "not_an_object")
    finite = {
        name: F.when(is_readable & _is_finite(F.col(f"{name}_number")), F.col(f"{name}_number")) for name in NUMBERS
    }
    return rows.select(
        "line",
        F.struct("broken.reason", "broken.field", _offending_value().alias("value"), "broken.rule").alias("reject"),
        F.when(is_readable & F.col("device_id_is_text"), F.col("device_id_value")).alias("device_id"),
        *(_without_minus_zero(number).alias(name) for name, number in finite.items()),
    )


def _has_field(name: str) -> Column:
    return F.array_contains(F.map_keys("fields"), name)


def _first_broken_rule() -> Column:
    """Return the first rule that a line breaks, as a struct of ``reason``, ``field`` and ``rule``."""
    is_one_text = F.coalesce(F.col("mark") == F.concat(F.lit('{"$end":"'), "end", F.lit('"}')), F.lit(False))
    surrogate_rule = "strict JSON (RFC 8259): an unpaired surrogate escape stands for no character"
    device_id = F.col("device_id_value")
    control_rule = "no control characters (U+0000 to U+001F, U+007F to U+009F)"
    timestamp = F.col("timestamp_number")
    day_rule = "UNIX seconds of a day in the years 1 to 9999"
    rules: list[tuple[Column, str, str | None, str]] = [
        (~_is_utf8("line"), "not_utf8", None, "strict UTF-8"),
        (F.col("is_cut"), "malformed_json", None, "strict JSON (RFC 8259): U+0001 only as an escape"),
        (~is_one_text, "malformed_json", None, "one strict JSON text (RFC 8259) a line"),
        (_has_lone_surrogate("line"), "malformed_json", None, surrogate_rule),
        (F.col("fields").isNull(), "not_an_object", None, "a reading is a JSON object"),
        *((~_has_field(name), "missing_field", name, f"{name} is required") for name in FIELDS_AS_JUDGED),
        (~F.col("device_id_is_text"), "wrong_type", "device_id", "a string"),
        (
            ~F.length(device_id).between(1, MAX_DEVICE_ID_LENGTH),
            "device_id_invalid",
            "device_id",
            f"1 to {MAX_DEVICE_ID_LENGTH} code points",
        ),
        (~_is_device_id(device_id), "device_id_invalid", "device_id", control_rule),
    ]
    for name in NUMBERS:
        number = F.col(f"{name}_number")
        rules += [
            (number.isNull(), "wrong_type", name, "a number"),
            (~_is_finite(number), "not_finite", name, "within the range of a double"),
        ]
    rules += [
        (timestamp > LAST_SECOND, "timestamp_in_future", "timestamp", day_rule),
        (timestamp < FIRST_SECOND, "timestamp_too_old", "timestamp", day_rule),
        (F.lit(True), "malformed_json", None, "strict JSON (RFC 8259), every field once"),
    ]
    return F.coalesce(*(F.when(is_broken, _rule(reason, field, rule)) for is_broken, reason, field, rule in rules))


def _rule(reason: str, field: str | None, rule: str) -> Column:
    field_text = "CAST(NULL AS string)" if field is None else f"'{field}'"
    return F.expr(f"named_struct('reason', '{reason}', 'field', {field_text}, 'rule', '{rule}')")


def _offending_value() -> Column:
    """Return the value that ``broken`` is about, as JSON text, cut to its first characters; null if there is none."""
    field, reason = F.col("broken.field"), F.col("broken.reason")
    value = F.when(reason == "not_an_object", F.coalesce("text", F.lit("null")))
    for name in IDENTITY:
        shown = F.when(F.col(f"{name}_is_text"), _quoted_text(F.col(f"{name}_value")))
        shown = shown.otherwise(F.coalesce(f"{name}_value", F.lit("null")))
        value = value.when((field == name) & (reason != "missing_field"), shown)
    return F.substring(value, 1, MAX_DETAIL_LENGTH)


def _quoted_text(text: Column) -> Column:
    # {"value":"…"} without what is around the string
    return F.regexp_extract(F.to_json(F.struct(text.alias("value"))), r'(?s)^\{"value":(.*)\}$', 1)


def _is_utf8(name: str) -> Column:
    """Whether the bytes behind a text column are UTF-8: Spark passes on what it has read, whatever it was."""
    if _spark_major_version() >= FIRST_SPARK_THAT_CHECKS_UTF8:
        return F.expr(f"is_valid_utf8({name})")
    return F.encode(F.decode(F.col(name).cast("binary"), "UTF-8"), "UTF-8") == F.col(name).cast("binary")


def _spark_major_version() -> int:
    return int(SparkSession.builder.getOrCreate().version.partition(".")[0])


def _has_lone_surrogate(name: str) -> Column:
    r"""Whether a JSON text has half of an escaped surrogate pair, for which Spark would put a question mark.

    Escaped backslashes and whole pairs are taken away first, from left to right, so that ``\\ud83d`` is not mistaken.
    """
    pairs = r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    half = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
    column = F.col(name)
    # Most lines have no escape of this kind at all, and that is seen without a regular expression.
    return column.contains(r"\u") & column.rlike(half) & F.regexp_replace(column, pairs, "").rlike(half)


def _is_text(name: str, value: Column) -> Column:
    """Whether a field, read as text, is a JSON string: Spark reads 17, true and {} as the texts of these, too.

    Args:
        name: the field.
        value: the field as text.
    """
    looks_like_another = value.rlike(r'^(-?[0-9][-+.0-9eE]*|"-?Infinity"|true|false|[\[{](?s:.*))$')
    is_another = (
        _typed(name, "double").isNotNull()
        | _typed(name, "boolean").isNotNull()
        | _typed(name, "map<string,string>").isNotNull()
        | _typed(name, "array<string>").isNotNull()
    )
    return value.isNotNull() & ~F.when(looks_like_another, is_another).otherwise(F.lit(False))


def _typed(name: str, kind: str) -> Column:
    """Return a field of the line's object, null unless it is of the given type; the last one if it is named twice.

    Inside of the array, Spark 3.3 would give up the whole object for the first one of another type.
    """
    options = ", ".join(f"'{option}', '{value}'" for option, value in STRICT_JSON.items())
    return F.expr(f"from_json(line, 'struct<{_quoted(name)}:{kind}>', map({options})).{_quoted(name)}")


def _is_device_id(text: Column) -> Column:
    return F.length(text).between(1, MAX_DEVICE_ID_LENGTH) & ~text.rlike(r"[\x00-\x1f\x7f-\x9f]")


def _is_finite(number: Column) -> Column:
    return number.isNotNull() & ~F.isnan(number) & (F.abs(number) != float("inf"))


def _cast(column: TableColumn) -> Column:
    """Return a text column as the type of the table's column, null where it is not one."""
    name = f"texts.{_quoted(column.name)}"
    if column.type.startswith(("array<", "map<", "struct<")):
        return F.from_json(F.col(name), column.type, STRICT_JSON)
    return F.expr(f"try_cast({name} AS {column.type})")


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _without_minus_zero(number: Column) -> Column:
    return F.when(number == 0.0, F.lit(0.0)).otherwise(number)


def add_event_time(rows: DataFrame) -> DataFrame:
    """Add ``event_time``: ``timestamp`` (seconds) to the microsecond, halves to the even one; null for null.

    The double itself is rounded, not the decimal that it is printed as. Its product with 1,000,000 may not fit into a
    double, so the product's rounding error is worked out too: it decides what looks like a half.
    """
    whole = F.expr("try_cast(timestamp AS bigint)")
    rows = rows.withColumn("whole", whole)
    rows = rows.withColumn("fraction", F.col("timestamp") - F.col("whole").cast("double"))
    fraction = F.col("fraction")
    carry = fraction * SPLITTER
    high = carry - (carry - fraction)
    low = fraction - high
    product = fraction * 1e6
    error = (high * 1e6 - product) + low * 1e6
    nearest = F.rint(product)
    looks_half = F.abs(product - nearest) * 2 == 1.0
    rounded = (
        F.when(looks_half & (error > 0), F.ceil(product).cast("double"))
        .when(looks_half & (error < 0), F.floor(product).cast("double"))
        .otherwise(nearest)
    )
    micros = F.col("whole") * 1_000_000 + rounded.cast("bigint")
    rows = rows.withColumn("micros", micros).withColumn("event_time", F.expr("timestamp_micros(micros)"))
    return rows.drop("whole", "fraction", "micros")


def add_date(rows: DataFrame, time_zone: str | Column) -> DataFrame:
    """Add ``staged-date``, the day of ``event_time`` in a time zone; the session's own zone has to be UTC."""
    is_local = isinstance(time_zone, str) and time_zone == "UTC"
    local = F.col("event_time") if is_local else F.from_utc_timestamp("event_time", time_zone)
    return rows.withColumn("staged-date", F.to_date(local))


class Day(NamedTuple):
    """A partition of the table."""

    year: int
    month: int
    day: int

    @classmethod
    def of(cls, date: date) -> "Day":
        """Return the partition of a date."""
        return cls(date.year, date.month, date.day)

    @property
    def folder(self) -> str:
        """The partition's folder below the table's."""
        return f"year={self.year}/month={self.month}/day={self.day}/"


class TimeRange(NamedTuple):
    """Microseconds of UNIX time, both ends included."""

    first: int
    last: int


@dataclass(frozen=True)
class Shape:
    """What the judged lines come to, before they are compared with the table."""

    rejected: int
    rows_by_day: Mapping[Day, int]
    days: Mapping[Day, TimeRange]

    @property
    def readings(self) -> int:
        """Number of readings, repeats included."""
        return sum(self.rows_by_day.values())


def measure(judged: DataFrame) -> Shape:
    """Count readings and rejects, and find the days with the time range that the batch has in each."""
    first, last = (F.expr(f"unix_micros({end}(event_time))").alias(end) for end in ("min", "max"))
    groups = judged.groupBy("staged-date").agg(F.count(F.lit(1)).alias("lines"), first, last).collect()
    # Only readings have a date.
    dated = sorted((group["staged-date"], group) for group in groups if group["staged-date"] is not None)
    by_day = {Day.of(date): group for date, group in dated}
    return Shape(
        rejected=sum(group["lines"] for group in groups if group["staged-date"] is None),
        rows_by_day={day: group["lines"] for day, group in by_day.items()},
        days={day: TimeRange(group["min"], group["max"]) for day, group in by_day.items()},
    )


def merge_ranges(ranges: Iterable[TimeRange], limit: int) -> list[TimeRange]:
    """Return at most ``limit`` ranges that cover the given ones, with the smallest gaps filled first."""
    merged: list[TimeRange] = []
    for current in sorted(ranges):
        if merged and current.first <= merged[-1].last + 1:
            merged[-1] = TimeRange(merged[-1].first, max(merged[-1].last, current.last))
        else:
            merged.append(current)
    gaps = sorted(range(1, len(merged)), key=lambda n: merged[n].first - merged[n - 1].last, reverse=True)
    if not merged:
        return []
    starts = [0, *sorted(gaps[: limit - 1]), len(merged)]
    return [TimeRange(merged[start].first, merged[end - 1].last) for start, end in pairwise(starts)]


def find_folders(day: Day, stored_days: set[Day], time_zone: str) -> set[Day]:
    """Return the table's folders in which a reading of this day may be stored.

    The rules of time zones change at short notice, and Java learns of it later, by an update or with another version
    of Glue: what was stored by the old rules may lie one day off. UTC has no rules.
    """
    if time_zone == "UTC":
        return {day} & stored_days
    middle = date(*day).toordinal()
    ordinals = range(max(middle - 1, date.min.toordinal()), min(middle + 1, date.max.toordinal()) + 1)
    return {Day.of(date.fromordinal(ordinal)) for ordinal in ordinals} & stored_days


def read_stored(spark: SparkSession, paths: Sequence[str], ranges: Sequence[TimeRange], time_zone: str) -> DataFrame:
    """Return the identities that these day folders hold within the time ranges, with the days of ``time_zone``.

    The ranges are compared with the statistics in the files, so that most of what is stored is never read.
    """
    stored = spark.read.schema("device_id string, timestamp double, temperature double, event_time timestamp")
    in_ranges = F.lit(False)
    for time_range in merge_ranges(ranges, MAX_TIME_RANGES):
        first, last = (F.expr(f"timestamp_micros({bound}L)") for bound in time_range)
        in_ranges = in_ranges | F.col("event_time").between(first, last)
    return add_date(stored.parquet(*paths).where(in_ranges), time_zone).select(*IDENTITY, "staged-date")


def chunks_by_day(rows_by_day: Mapping[Day, int], rows_per_file: int) -> dict[Day, int]:
    """Return into how many files each day of the batch is divided."""
    return {day: -(-rows // rows_per_file) for day, rows in rows_by_day.items()}


def divide(rows: DataFrame, chunks: Mapping[Day, int]) -> DataFrame:
    """Add ``staged-chunk``: always the same one for a device."""
    chunk_count = F.lit(1)
    for day, count in chunks.items():
        if count > 1:
            chunk_count = F.when(F.col("staged-date") == F.lit(date(*day)), F.lit(count)).otherwise(chunk_count)
    chunk = F.expr("pmod(hash(device_id), chunk_count)")
    return rows.withColumn("chunk_count", chunk_count).withColumn("staged-chunk", chunk).drop("chunk_count")


def find_new(readings: DataFrame, stored: DataFrame | None, is_small: bool, tasks: int) -> DataFrame:
    """Add ``verdict``: ``new`` for one reading of each identity that is not stored, ``duplicate`` for all others.

    What is the same reading is of the same day and device, and so comes together where its file is written: the rows
    are moved and sorted once for both.

    Args:
        readings: the batch, divided into the folders of `STAGED_FOLDERS`.
        stored: identities in the table, divided alike, or None if there is nothing that could be stored already.
        is_small: whether the batch fits into the memory of every worker, which spares the stored rows a shuffle.
        tasks: how many tasks the folders are distributed over.
    """
    # Which one of several is kept must not hang on the order of rows: the further columns decide.
    tie = F.to_json("further") if "further" in readings.columns else F.lit("")
    rows = readings.withColumn("is_stored", F.lit(False)).withColumn("tie", tie)
    if stored is not None:
        if is_small:
            stored = stored.join(F.broadcast(readings.select(*IDENTITY)), list(IDENTITY), "left_semi")
        rows = rows.unionByName(stored.withColumn("is_stored", F.lit(True)), allowMissingColumns=True)
    # By the row before it, and not by its place among its like: windows of numbers would be sorted once more to be
    # written, since Spark divides by numbers in another form (of zero and NaN) than it sorts by.
    before = Window.partitionBy(*STAGED_FOLDERS, "device_id").orderBy(*NUMBERS, F.col("is_stored").desc(), "tie")
    is_repeat = F.lit(True)
    for number in NUMBERS:
        is_repeat = is_repeat & (F.lag(number).over(before) == F.col(number))
    verdict = F.when(is_repeat, F.lit("duplicate")).otherwise(F.lit("new"))
    ranked = rows.repartition(tasks, *STAGED_FOLDERS).withColumn("verdict", verdict)
    return ranked.where(~F.col("is_stored")).drop("is_stored", "tie")


@dataclass(frozen=True)
class DayCount:
    """Readings of one day of the batch."""

    new: int
    duplicate: int


def count_reasons(rejects: DataFrame) -> dict[str, int]:
    """Count rejects by reason."""
    rows = rejects.groupBy(F.col("reject.reason").alias("reason")).count().collect()
    return dict(sorted((row["reason"], row["count"]) for row in rows))


# ------------------------------------------------------------------------------------------------------ 3. stage


def rows_per_file(columns: Sequence[TableColumn], file_bytes: int) -> int:
    """Return how many readings make a file of about ``file_bytes``."""
    return max(1, file_bytes // (BYTES_PER_ROW + BYTES_PER_FURTHER_COLUMN * len(further_columns(columns))))


def write_tasks(folders: int) -> int:
    """Return how many tasks write so many folders.

    Folders are dealt to tasks by their hash: a few of them among four times as many tasks seldom wait for one another.
    """
    return min(max(folders, min(4 * folders, FEW_WRITE_TASKS)), MAX_WRITE_TASKS)


def write_new(verdicts: DataFrame, columns: Sequence[TableColumn], file_rows: int, path: str) -> dict[str, int]:
    """Write the new readings as Parquet, sorted by device and time: a file a folder, or several of a very large one.

    Spark's default for timestamps, INT96, has no statistics to skip rows by:
    https://spark.apache.org/docs/latest/sql-data-sources-parquet.html

    Returns:
        How many readings got which verdict, as they went by.
    """
    passed = Observation("verdicts")
    by_verdict = [F.count(F.when(F.col("verdict") == verdict, 1)).alias(verdict) for verdict in ("new", "duplicate")]
    (
        verdicts.observe(passed, *by_verdict)
        .where(F.col("verdict") == "new")
        .select(*map(_column_of_table, columns), *STAGED_FOLDERS)
        # They are in this order already, and Spark knows it.
        .sortWithinPartitions(*STAGED_FOLDERS, *IDENTITY)
        .write.partitionBy(*STAGED_FOLDERS)
        .option("compression", "snappy")
        # One device may be most of a day, and a device is never divided between chunks.
        .option("maxRecordsPerFile", 2 * file_rows)
        .parquet(path)
    )
    return dict(passed.get)


def _column_of_table(column: TableColumn) -> Column:
    name = column.name
    return F.col(name) if name in REQUIRED_COLUMNS else F.col("further")[name].alias(name)


def dead_letters_of(rejects: DataFrame) -> DataFrame:
    """Return one JSON object a reject, with the fields that dead letters have from every stage."""
    # Before 4.0, base64 breaks its lines after 76 characters, as MIME does.
    encoded = F.regexp_replace(F.base64(F.col("line").cast("binary")), "[\r\n]", "")
    is_text = F.col("reject.reason") != "not_utf8"
    source = (
        "shard_id string, sequence_number string, subsequence_number bigint, partition_key string, record_id string"
    )
    fields = F.struct(
        F.sha2(F.col("line").cast("binary"), 256).alias("reject_id"),
        F.col("reject.reason").alias("reason"),
        F.struct("reject.field", "reject.value", "reject.rule").alias("detail"),
        "device_id",
        "timestamp",
        "temperature",
        F.lit("etl").alias("stage"),
        F.when(is_text, F.col("line")).alias("original"),
        F.when(~is_text, encoded).alias("original_base64"),
        # A line does not tell which record of the stream it came from, nor when that arrived.
        F.from_json(F.lit(None).cast("string"), f"{source}, index bigint").alias("source"),
        F.lit(None).cast("string").alias("arrived_at"),
        F.lit(CONTRACT_VERSION).alias("contract_version"),
    )
    return rejects.select(F.to_json(fields, {"ignoreNullFields": "false"}).alias("value"))


def write_dead_letters(rejects: DataFrame, count: int, path: str) -> None:
    """Write rejects as gzip JSON lines."""
    files = min(-(-count // REJECTS_PER_FILE), MAX_WRITE_TASKS)
    dead_letters_of(rejects).repartition(files).write.option("compression", "gzip").text(path)


@dataclass(frozen=True)
class StagedFile:
    """A file of the run, where it is and where it goes; ``day`` is the table's partition, None for dead letters."""

    bucket: str
    key: str
    size_bytes: int
    target_bucket: str
    target_key: str
    day: Day | None


def name_readings(
    staged: Iterable[tuple[str, int]], staging: S3Location, target: S3Location, job_run_id: str
) -> list[StagedFile]:
    """Give staged Parquet files, listed as (key, size in bytes), their final names."""
    pattern = re.compile(r"/staged-date=(\d+)-(\d+)-(\d+)/staged-chunk=\d+/[^/]+\.parquet$")
    found = sorted((key, size, match) for key, size in staged for match in [pattern.search(key)] if match)
    files = []
    for number, (key, size, match) in enumerate(found):
        day = Day(*(int(group) for group in match.groups()))
        name = f"{target.prefix}{day.folder}{job_run_id}-{number:05d}.snappy.parquet"
        files.append(StagedFile(staging.bucket, key, size, target.bucket, name, day))
    return files


def name_dead_letters(
    staged: Iterable[tuple[str, int]], staging: S3Location, target: S3Location, job_run_id: str, today: date
) -> list[StagedFile]:
    """Give staged dead letters, listed as (key, size in bytes), final names; ``today`` is the run's day in UTC."""
    folder = Day.of(today).folder
    found = sorted((key, size) for key, size in staged if key.endswith(".txt.gz"))
    return [
        StagedFile(
            staging.bucket, key, size, target.bucket, f"{target.prefix}{folder}{job_run_id}-{n:05d}.json.gz", None
        )
        for n, (key, size) in enumerate(found)
    ]


def list_objects(s3: Any, bucket: str, prefix: str) -> list[tuple[str, int]]:
    """Return (key, size in bytes) of all objects below a prefix."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [(entry["Key"], entry["Size"]) for page in pages for entry in page.get("Contents", ())]


def delete_objects(s3: Any, bucket: str, prefix: str) -> None:
    """Delete all objects below a prefix, 1,000 at a time: the most that one request takes.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html

    Raises:
        EtlError: S3 has not deleted one of them.
    """
    keys = [key for key, _size in list_objects(s3, bucket, prefix)]
    for start in range(0, len(keys), MAX_DELETED_KEYS):
        objects = [{"Key": key} for key in keys[start : start + MAX_DELETED_KEYS]]
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        if answer.get("Errors"):
            raise EtlError(f"S3 did not delete all of s3://{bucket}/{prefix}: {answer['Errors'][0]}")


# ------------------------------------------------------------------------------------------------------ 4. publish


class Ownership:
    """The object that names the one run that may publish: the last one that began.

    Glue tells the end of a run before it has cleaned up, so a run that was stopped may still be at work beside its
    successor for a while. It finds out here, before each file. If it falls asleep between this look and the copy, the
    copy fails, because its successor has deleted what was to be copied.
    """

    def __init__(self, s3: Any, staging: S3Location, job_run_id: str) -> None:
        self._s3 = s3
        self._staging = staging
        self._object = {"Bucket": staging.bucket, "Key": f"{staging.prefix}owner.json"}
        self._job_run_id = job_run_id

    def take(self, now: datetime) -> None:
        """Become the run that may publish, and delete what earlier runs have staged."""
        body = {"job_run_id": self._job_run_id, "since": _iso(now)}
        self._s3.put_object(**self._object, Body=json.dumps(body).encode(), ContentType="application/json")
        for folder in _subfolders(self._s3, self._staging.bucket, self._staging.prefix):
            if folder != f"{self._staging.prefix}{self._job_run_id}/":
                delete_objects(self._s3, self._staging.bucket, folder)

    def assert_held(self) -> None:
        """Make sure that no later run has begun.

        Raises:
            OwnershipLostError: one has.
        """
        owner = json.loads(self._s3.get_object(**self._object)["Body"].read())["job_run_id"]
        if owner != self._job_run_id:
            raise OwnershipLostError(
                f"The run {owner} has begun since: {self._job_run_id} publishes nothing more, the later run does."
            )


def publish(s3: Any, files: Sequence[StagedFile], ownership: Ownership) -> None:
    """Copy staged files to where they belong, inside S3, each whole or not at all.

    An object of more than 5 GB is copied in parts by boto3's managed copy:
    https://boto3.amazonaws.com/v1/documentation/api/latest/reference/services/s3/client/copy.html

    Raises:
        OwnershipLostError: a later run has begun; files not yet copied stay where they are.
    """

    def copy(file: StagedFile) -> None:
        ownership.assert_held()
        s3.copy({"Bucket": file.bucket, "Key": file.key}, file.target_bucket, file.target_key)

    with ThreadPoolExecutor(PUBLISH_THREADS) as pool:
        copies = [pool.submit(copy, file) for file in files]
        try:
            for finished in copies:
                finished.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# ------------------------------------------------------------------------------------------------------ 5. summary


def list_days(s3: Any, target: S3Location) -> set[Day]:
    """Return the day folders of the table that hold files.

    The names of the table's files begin with a run's id, ``jr_…``, and nothing before that has an underscore. As the
    delimiter it makes S3 sum up all files of a day, so that 1,000 days take one request, however many files they have:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
    """
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=target.bucket, Prefix=target.prefix, Delimiter=RUN_ID_DELIMITER
    )
    found: set[Day] = set()
    for page in pages:
        listed = [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
        listed += [entry["Key"] for entry in page.get("Contents", ())]
        for key in listed:
            match = re.match(r"year=([0-9]+)/month=([0-9]+)/day=([0-9]+)/[^/]", key[len(target.prefix) :])
            if match:
                found.add(Day(*(int(value) for value in match.groups())))
    return found


def _subfolders(s3: Any, bucket: str, prefix: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    return [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ())]


def list_partitions(glue: Any, database_name: str, table_name: str) -> set[tuple[str, ...]]:
    """Return the values of the partitions that the catalog knows.

    https://docs.aws.amazon.com/glue/latest/webapi/API_GetPartitions.html
    """
    pages = glue.get_paginator("get_partitions").paginate(
        DatabaseName=database_name, TableName=table_name, ExcludeColumnSchema=True
    )
    return {tuple(partition["Values"]) for page in pages for partition in page["Partitions"]}


def catalog_state(days: set[Day], partitions: set[tuple[str, ...]]) -> dict[str, Any]:
    """Return which day folders the catalog does not know yet, in the shape that BatchGetPartition asks for."""
    gaps = [day for day in sorted(days) if tuple(str(value) for value in day) not in partitions]
    return {
        "behind": bool(gaps),
        "gap_count": len(gaps),
        "gaps": [{"Values": [str(value) for value in day]} for day in gaps[:MAX_LISTED_GAPS]],
    }


def partition_entries(counts: Mapping[Day, DayCount], files: Sequence[StagedFile]) -> list[dict[str, int]]:
    """Return the touched days for the summary; if there are too many, those with new rows come first."""
    listed = sorted(counts, key=lambda day: (counts[day].new == 0, day))[:MAX_LISTED_PARTITIONS]
    sizes: dict[Day | None, list[int]] = {}
    for file in files:
        sizes.setdefault(file.day, []).append(file.size_bytes)
    return [
        {
            **day._asdict(),
            "new": counts[day].new,
            "duplicate": counts[day].duplicate,
            "files": len(sizes.get(day, ())),
            "bytes": sum(sizes.get(day, ())),
        }
        for day in sorted(listed)
    ]


def in_words(summary: Mapping[str, Any]) -> list[str]:
    """Return a few sentences on a run for whoever reads its log or its summary."""
    counts, files, times, catalog = (summary[name] for name in ("counts", "files", "event_time", "catalog"))
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary["rejected_by_reason"].items())
    seconds = ", ".join(f"{step} {taken:.1f}" for step, taken in summary["seconds_by_step"].items())
    what = f"Audit of {summary['audited_day_count']:,} days" if summary["mode"] == "audit" else "Load"
    span = f", of {times['min']} to {times['max']}" if times["min"] is not None else ""
    return [
        f"{what}: {counts['lines']:,} lines, {counts['new']:,} readings stored, {counts['duplicate']:,} stored before.",
        f"Rejects: {counts['rejected']:,}{f' ({reasons})' if reasons else ''}.",
        f"Partitions touched: {summary['partition_count']:,}{span}; "
        f"files: {files['count']:,}, {files['bytes']:,} bytes.",
        f"Partitions that the catalog lacks: {catalog['gap_count']:,}.",
        f"Seconds: {seconds}.",
    ]


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _iso_micros(micros: int) -> str:
    return _iso(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros))


# ------------------------------------------------------------------------------------------------------ the run


def guard_time_zone(s3: Any, arguments: Arguments, now: datetime) -> None:
    """Record the zone of the table's days at the first run, and refuse any other one once there are rows.

    Raises:
        EtlError: the table's days are those of another zone, or of a zone that nobody has recorded.
    """
    place = {"Bucket": arguments.settings.bucket, "Key": f"{arguments.settings.prefix}partition_time_zone.json"}
    address = f"s3://{place['Bucket']}/{place['Key']}"
    wanted = arguments.partition_time_zone
    migration = (
        "To change the zone: stop the triggers, move the table's files "
        f"({arguments.target.address}) elsewhere, delete {address}, drop the table's partitions, reset the job's "
        f"bookmark (aws glue reset-job-bookmark --job-name {arguments.job_name}) and run the pipeline: it stores all "
        "of the raw data anew."
    )
    try:
        recorded = json.loads(s3.get_object(**place)["Body"].read())["partition_time_zone"]
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
            raise
        recorded = None
    if recorded == wanted:
        return
    has_rows = bool(list_days(s3, arguments.target))
    if has_rows and recorded is not None:
        raise EtlError(
            f"The days of the table are days in {recorded} ({address}), and this run is told {wanted}: readings "
            f"would be looked for in other folders than they are in. Deploy again with PartitionTimeZone={recorded}. "
            f"{migration}"
        )
    if has_rows:
        raise EtlError(
            f"The table has rows, but {address} does not say in which zone its days are. If they are days in {wanted}, "
            f'write {{"partition_time_zone": "{wanted}"}} there and run again. {migration}'
        )
    body = {"partition_time_zone": wanted, "recorded_at": _iso(now), "job_run_id": arguments.job_run_id}
    s3.put_object(**place, Body=json.dumps(body).encode(), ContentType="application/json")
    logger.info("recorded the time zone of the table's days: %s (%s)", wanted, address)


def source_paths(s3: Any, arguments: Arguments) -> list[str]:
    """Return what to read: everything, or for an audit the arrival days that hold anything.

    Firehose's folders are ``yyyy/MM/dd/HH/`` in UTC: https://docs.aws.amazon.com/firehose/latest/dev/s3-prefixes.html
    """
    if arguments.mode == "load":
        return [arguments.source.address]
    prefixes = [f"{arguments.source.prefix}{day:%Y/%m/%d}/" for day in arguments.days]
    bucket = arguments.source.bucket
    return [
        f"s3://{bucket}/{prefix}"
        for prefix in prefixes
        if s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("KeyCount", 0) > 0
    ]


def configure(spark: SparkSession) -> None:
    """Set what the results hang on."""
    for name, value in {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        # Days before 1900 are legal: write them as they are, as Athena reads them.
        "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
        "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
        # An object that is cut off must fail the run; otherwise half of it would be lost without a word.
        "spark.sql.files.ignoreCorruptFiles": "false",
    }.items():
        spark.conf.set(name, value)


class Stopwatch:
    """Logs and keeps how long each step took."""

    def __init__(self) -> None:
        self.seconds_by_step: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure one step."""
        logger.info("%s: begins", name)
        started = time.monotonic()
        yield
        self.seconds_by_step[name] = round(time.monotonic() - started, 3)
        logger.info("%s: done in %.1f s", name, self.seconds_by_step[name])


@dataclass(frozen=True)
class Setting:
    """What a run knows before it reads: its parameters and the table's columns."""

    arguments: Arguments
    columns: Sequence[TableColumn]
    started_at: datetime

    @property
    def staging(self) -> S3Location:
        """The run's own folder."""
        staging = self.arguments.staging
        return S3Location(staging.bucket, f"{staging.prefix}{self.arguments.job_run_id}/")

    @property
    def file_rows(self) -> int:
        """How many readings a file of the wanted size holds, about."""
        return rows_per_file(self.columns, self.arguments.target_file_bytes)


@dataclass(frozen=True)
class Batch:
    """The lines of a run, told apart: ``verdicts`` (readings, each with its verdict) and ``rejects``, None for none.

    ``verdicts`` is worked out as it is written.
    """

    lines: int
    shape: Shape
    rejected_by_reason: Mapping[str, int]
    verdicts: DataFrame | None = None
    rejects: DataFrame | None = None


@dataclass(frozen=True)
class Judgement:
    """The verdicts on all lines of a run."""

    lines: int
    shape: Shape
    counts: Mapping[Day, DayCount]
    rejected_by_reason: Mapping[str, int]

    @property
    def totals(self) -> dict[str, int]:
        """Number of lines, and how many of them got which verdict."""
        return {
            "lines": self.lines,
            "new": sum(count.new for count in self.counts.values()),
            "duplicate": sum(count.duplicate for count in self.counts.values()),
            "rejected": sum(self.rejected_by_reason.values()),
        }


def judge(spark: SparkSession, lines: DataFrame, stored_days: set[Day], setting: Setting) -> Batch:
    """Tell readings from rejects, and prepare the comparison of the readings with the table and with one another."""
    passed = Observation("lines")
    counted = lines.observe(passed, F.count(F.lit(1)).alias("lines"))
    judged = judge_lines(counted, setting.columns, setting.arguments.partition_time_zone)
    shape = measure(judged)
    verdicts, rejects = None, None
    rejected_by_reason: Mapping[str, int] = {}
    if shape.readings:
        time_zone = setting.arguments.partition_time_zone
        chunks = chunks_by_day(shape.rows_by_day, setting.file_rows)
        readings = divide(judged.where("is_reading").drop("is_reading", "line", "is_cut"), chunks)
        found = {day: find_folders(day, stored_days, time_zone) for day in shape.days}
        folders = [f"{setting.arguments.target.address}{day.folder}" for day in sorted(set().union(*found.values()))]
        stored = None
        if folders:
            ranges = [shape.days[day] for day in found if found[day]]
            # By the day that the run itself works out, whatever folder the reading was stored in.
            stored = divide(read_stored(spark, folders, ranges, time_zone), chunks)
        tasks = write_tasks(sum(chunks.values()))
        verdicts = find_new(readings, stored, shape.readings <= MAX_BROADCAST_ROWS, tasks)
    if shape.rejected:
        rejects = explain_rejects(judged.where("NOT is_reading")).localCheckpoint()
        rejected_by_reason = count_reasons(rejects)
    return Batch(passed.get["lines"], shape, rejected_by_reason, verdicts, rejects)


def stage(spark: SparkSession, s3: Any, setting: Setting, batch: Batch) -> tuple[Judgement, list[StagedFile]]:
    """Write everything that is to be published into the run's own folder, and count it there.

    Raises:
        EtlError: a line has no verdict, or more than one, or what was written is not what was judged.
    """
    arguments = setting.arguments
    readings_path, rejects_path = f"{setting.staging.address}readings/", f"{setting.staging.address}rejects/"
    passed = {"new": 0, "duplicate": 0}
    new_by_day: Mapping[Day, int] = {}
    if batch.verdicts is not None:
        passed = write_new(batch.verdicts, setting.columns, setting.file_rows, readings_path)
        new_by_day = count_staged(spark, readings_path) if passed["new"] else {}
    rows_by_day = batch.shape.rows_by_day
    counts = {
        day: DayCount(new_by_day.get(day, 0), rows_by_day.get(day, 0) - new_by_day.get(day, 0))
        for day in sorted({*rows_by_day, *new_by_day})
    }
    judgement = Judgement(batch.lines, batch.shape, counts, batch.rejected_by_reason)
    totals = judgement.totals
    # Three counts have to agree: of the lines as they were read, of the verdicts as they passed, of the staged files.
    if (
        batch.lines != passed["new"] + passed["duplicate"] + totals["rejected"]
        or {**totals, **passed} != totals
        or any(count.duplicate < 0 for count in counts.values())
    ):
        raise EtlError(
            f"Not every line has exactly one verdict, so nothing is published: staged {totals}, passed {passed}"
        )
    if batch.rejects is not None:
        write_dead_letters(batch.rejects, totals["rejected"], rejects_path)
        staged_rejects = spark.read.text(rejects_path).count()
        if staged_rejects != totals["rejected"]:
            raise EtlError(f"{staged_rejects} of {totals['rejected']} rejects were staged: nothing is published")
    if not new_by_day and not totals["rejected"]:
        return judgement, []
    staged = list_objects(s3, setting.staging.bucket, setting.staging.prefix)
    run_id = arguments.job_run_id
    return judgement, [
        *name_readings(staged, setting.staging, arguments.target, run_id),
        *name_dead_letters(staged, setting.staging, arguments.dead_letters, run_id, setting.started_at.date()),
    ]


def count_staged(spark: SparkSession, path: str) -> dict[Day, int]:
    """Count the readings in the staged files by day."""
    rows = spark.read.parquet(path).groupBy("staged-date").count().collect()
    return {Day.of(row["staged-date"]): row["count"] for row in rows}


def summarise(
    setting: Setting,
    judgement: Judgement,
    files: Sequence[StagedFile],
    *,
    catalog: Mapping[str, Any],
    seconds_by_step: Mapping[str, float],
    finished_at: datetime,
) -> dict[str, Any]:
    """Return the run's summary; less than 100 KB of JSON, however much the run has done."""
    arguments = setting.arguments
    table_files = [file for file in files if file.day is not None]
    times = judgement.shape.days.values()
    facts = {
        "schema_version": SUMMARY_SCHEMA_VERSION,
        "job_name": arguments.job_name,
        "job_run_id": arguments.job_run_id,
        "mode": arguments.mode,
        "audited_days": [day.isoformat() for day in arguments.days[:MAX_LISTED_DAYS]],
        "audited_day_count": len(arguments.days),
        "started_at": _iso(setting.started_at),
        "finished_at": _iso(finished_at),
        "partition_time_zone": arguments.partition_time_zone,
        "counts": judgement.totals,
        "rejected_by_reason": dict(judgement.rejected_by_reason),
        "partitions": partition_entries(judgement.counts, table_files),
        "partition_count": len(judgement.counts),
        "files": {
            "count": len(table_files),
            "bytes": sum(file.size_bytes for file in table_files),
            "keys": [file.target_key for file in table_files[:MAX_LISTED_KEYS]],
        },
        "event_time": {
            "min": _iso_micros(min(time_range.first for time_range in times)) if times else None,
            "max": _iso_micros(max(time_range.last for time_range in times)) if times else None,
        },
        "seconds_by_step": dict(seconds_by_step),
        "catalog": dict(catalog),
    }
    return {"in_words": in_words(facts), **facts}


def run(arguments: Arguments, glue_context: Any, s3: Any, glue: Any) -> dict[str, Any]:
    """Do everything but the commit of the bookmark, and return the summary that was written.

    Raises:
        EtlError: the run cannot go on.
    """
    started_at = datetime.now(UTC)
    spark = glue_context.spark_session
    configure(spark)
    stopwatch = Stopwatch()
    ownership = Ownership(s3, arguments.staging, arguments.job_run_id)

    with stopwatch.step("prepare"):
        # Before the table is looked at: from here on, no earlier run adds to it unseen.
        ownership.take(started_at)
        guard_time_zone(s3, arguments, started_at)
        setting = Setting(arguments, read_columns(glue, arguments.database_name, arguments.table_name), started_at)
    with stopwatch.step("read"):
        paths = source_paths(s3, arguments)
        # Without a name, a source is read whole and leaves the bookmark alone.
        context = "raw_lines" if arguments.mode == "load" else ""
        lines = read_lines(glue_context, paths, context) if paths else None
    with stopwatch.step("judge"):
        stored_days = list_days(s3, arguments.target)
        batch = Batch(0, Shape(0, {}, {}), {})
        if lines is not None:
            batch = judge(spark, lines, stored_days, setting)
    with stopwatch.step("stage"):
        judgement, files = stage(spark, s3, setting, batch)
    logger.info("verdicts: %s, rejects: %s", judgement.totals, judgement.rejected_by_reason)
    with stopwatch.step("publish"):
        publish(s3, files, ownership)
    with stopwatch.step("catalog"):
        days = stored_days | {file.day for file in files if file.day is not None}
        catalog = catalog_state(days, list_partitions(glue, arguments.database_name, arguments.table_name))
    logger.info("published: %d files; partitions that the catalog lacks: %d", len(files), catalog["gap_count"])
    with stopwatch.step("summary"):
        summary = summarise(
            setting,
            judgement,
            files,
            catalog=catalog,
            seconds_by_step=stopwatch.seconds_by_step,
            finished_at=datetime.now(UTC),
        )
        ownership.assert_held()
        s3.put_object(
            Bucket=arguments.summaries.bucket,
            Key=f"{arguments.summaries.prefix}{arguments.job_run_id}.json",
            Body=json.dumps(summary, separators=(",", ":")).encode(),
            ContentType="application/json",
        )
    for sentence in summary["in_words"]:
        logger.info("%s", sentence)
    return summary


def _region(bucket: str) -> str:
    """Return the region of the run; Glue does not promise to tell boto3, the bucket does."""
    location = boto3.client("s3").get_bucket_location(Bucket=bucket)["LocationConstraint"]
    return location or "us-east-1"


def main() -> None:
    """Run the job as Glue starts it."""
    logging.basicConfig(stream=sys.stdout, format="%(asctime)sZ %(name)s %(levelname)s %(message)s")
    logging.Formatter.converter = time.gmtime
    logger.setLevel(logging.INFO)
    options = resolve_options(sys.argv)
    arguments = read_arguments(sys.argv, options, datetime.now(UTC).date())
    glue_context = GlueContext(SparkContext.getOrCreate())
    region = boto3.session.Session().region_name or _region(arguments.target.bucket)
    config = Config(region_name=region, retries={"mode": "standard", "max_attempts": 8}, max_pool_connections=32)
    job = Job(glue_context)
    if arguments.mode == "load":
        job.init(arguments.job_name, options)
    run(arguments, glue_context, boto3.client("s3", config=config), boto3.client("glue", config=config))
    # ------------------------------------------------------------------------------------------------ 6. commit
    if arguments.mode == "load":
        with Stopwatch().step("commit"):
            job.commit()
    logger.info("finished")


if __name__ == "__main__":
    main()
