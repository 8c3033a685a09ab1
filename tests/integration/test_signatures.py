"""The job calls nothing of Glue's library that the library does not have.

The signatures are those of the public library, release of 2026-08 (https://github.com/awslabs/aws-glue-libs).
"""

import ast
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.conftest import SCRIPT


def get_resolved_options(args: Any, options: Any, allow_abbrev: Any = False) -> None: ...
def glue_context(sparkContext: Any = None, **options: Any) -> None: ...  # noqa: N803
def from_options(  # noqa: PLR0917
    connection_type: Any,
    connection_options: Any = {},  # noqa: B006
    format: Any = None,
    format_options: Any = {},  # noqa: B006
    transformation_ctx: Any = "",
    push_down_predicate: Any = "",
    **kwargs: Any,
) -> None: ...
def to_df(options: Any = None) -> None: ...
def job(glue_context: Any) -> None: ...
def init(job_name: Any, args: Any = {}) -> None: ...  # noqa: B006
def no_arguments() -> None: ...


SIGNATURES: dict[str, Callable[..., Any]] = {
    "getResolvedOptions": get_resolved_options,
    "GlueContext": glue_context,
    "glue_context.create_dynamic_frame.from_options": from_options,
    "frame.toDF": to_df,
    "Job": job,
    "job.init": init,
    "job.commit": no_arguments,
}
IMPORTS = {("awsglue.context", "GlueContext"), ("awsglue.job", "Job"), ("awsglue.utils", "getResolvedOptions")}


def calls() -> list[tuple[str, ast.Call]]:
    """Calls of names that hold something of Glue's: what is imported, and what such a call has returned."""
    tree = ast.parse(SCRIPT.read_text())
    owners = ("glue_context.", "frame.", "job.")
    found = [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(name, node) for name, node in found if name in SIGNATURES or name.startswith(owners)]


def test_only_known_names_of_the_library_are_imported() -> None:
    # GIVEN the script
    tree = ast.parse(SCRIPT.read_text())

    # WHEN its imports are looked at
    modules = {(n.module, a.name) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    plain = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}

    # THEN of Glue's library there are only these
    assert {pair for pair in modules if str(pair[0]).startswith("awsglue")} == IMPORTS
    assert not {name for name in plain if name.startswith("awsglue")}


def test_every_call_of_the_library_binds_to_its_signature() -> None:
    # GIVEN all calls, and that there is one of each at least
    found = calls()
    assert {name for name, _ in found} == set(SIGNATURES)

    for name, node in found:
        # WHEN a call is bound to the library's signature
        # THEN it fits, and passes nothing that has no name there
        signature = inspect.signature(SIGNATURES[name])
        keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg is not None}
        signature.bind(*node.args, **keywords)
        assert keywords.keys() <= signature.parameters.keys(), ast.unparse(node)


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_stand_in_has_the_signatures_of_the_library(name: str) -> None:
    # GIVEN the stand-in
    from awsglue.context import GlueContext
    from awsglue.dynamicframe import DynamicFrame, DynamicFrameReader
    from awsglue.job import Job
    from awsglue.utils import getResolvedOptions

    stand_ins: dict[str, Any] = {
        "getResolvedOptions": getResolvedOptions,
        "GlueContext": GlueContext,
        "glue_context.create_dynamic_frame.from_options": DynamicFrameReader.from_options,
        "frame.toDF": DynamicFrame.toDF,
        "Job": Job,
        "job.init": Job.init,
        "job.commit": Job.commit,
    }

    # WHEN names, order and defaults of its parameters are compared
    def shape(function: Any) -> list[tuple[str, Any, Any]]:
        parameters = inspect.signature(function).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters if p.name != "self"]

    # THEN they are the library's
    assert shape(stand_ins[name]) == shape(SIGNATURES[name])
