"""``awsglue.utils``: the arguments of a job run.

https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-crawler-pyspark-extensions-get-resolved-options.html
"""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

BOOKMARK_OPTIONS = ("job-bookmark-enable", "job-bookmark-pause", "job-bookmark-disable")
RESERVED = (
    "job_bookmark_option",
    "job_bookmark_from",
    "job_bookmark_to",
    "JOB_ID",
    "JOB_RUN_ID",
    "SECURITY_CONFIGURATION",
)


class GlueArgumentError(Exception):
    """A requested argument is missing, or a value is not one of those allowed."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise GlueArgumentError(message)


def getResolvedOptions(  # noqa: N802  AWS's name
    args: Sequence[str], options: Sequence[str], allow_abbrev: bool = False
) -> dict[str, Any]:
    """Return the values of the named arguments; all of them are required, others are ignored.

    Args:
        args: ``sys.argv``, the script's name first.
        options: names without their dashes.
        allow_abbrev: whether an argument may be given by the beginning of its name.

    Returns:
        One value a requested name, and ``job_bookmark_option`` (``job-bookmark-disable`` if it was not given).

    Raises:
        RuntimeError: a reserved name was requested.
        GlueArgumentError: a requested argument is missing.
    """
    reserved = [name for name in options if name.replace("-", "_") in RESERVED]
    if reserved:
        raise RuntimeError(f"Using reserved arguments {', '.join(reserved)}")
    parser = _Parser(allow_abbrev=allow_abbrev, add_help=False)
    parser.add_argument("--job-bookmark-option", choices=BOOKMARK_OPTIONS, default="job-bookmark-disable")
    for name in options:
        parser.add_argument(f"--{name}", required=True)
    known, _ignored = parser.parse_known_args(list(args[1:]))
    return vars(known)
