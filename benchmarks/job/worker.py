"""Contestants as processes that stay warm: a request is a line of JSON on standard input, the answer one on output."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def serve(operations: Mapping[str, Callable[..., Any]]) -> None:
    """Carry out requests ``{"operation": …, "arguments": {…}}`` until standard input ends.

    The answer is ``{"seconds": …, "result": …}``. What libraries print goes to standard error.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for request in map(json.loads, sys.stdin):
        started = time.perf_counter()
        result = operations[request["operation"]](**request["arguments"])
        seconds = time.perf_counter() - started
        answers.write(json.dumps({"seconds": seconds, "result": result}) + "\n")
        answers.flush()
