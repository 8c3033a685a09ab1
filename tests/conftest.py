"""What all tests share: each request of boto3 and each answer of the endpoint is judged; Ctrl-C ends them."""

from tests.contracts.plugin import (
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_runtest_call,
    pytest_runtest_protocol,
    pytest_sessionfinish,
)
from tests.interrupts import pytest_sessionstart

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_runtest_call",
    "pytest_runtest_protocol",
    "pytest_sessionfinish",
    "pytest_sessionstart",
]
