"""Details of MiniStack's answers that are not as the services' API models say.

Mostly members that AWS leaves out when they have no value, and that MiniStack sends empty: an empty text is none of an
enumeration's values. The models: https://github.com/boto/botocore/tree/develop/botocore/data

Known deviations from AWS:

* Only what the tables below name is mended, in the operations that the project, its tests and the SAM CLI use.
* Nothing is added: a member that AWS would give and MiniStack does not have stays absent.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint

Mend = Callable[[str, bytes], bytes]
SUCCESS = range(200, 300)

# Members that the answers of an operation do not have, or, in the second table, do not have without a value.
# ``[]`` stands for every item of a list.
UNKNOWN_MEMBERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "firehose": {"PutRecordBatch": ("RequestResponses[].Encrypted",)},
    "glue": {"GetJob": ("Job.Tags",), "GetJobs": ("Jobs[].Tags",)},
}
EMPTY_MEMBERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "athena": {
        "GetNamedQuery": ("NamedQuery.Description",),
        "BatchGetNamedQuery": ("NamedQueries[].Description",),
    },
}
FUNCTION_STATE_MEMBERS = ("StateReason", "StateReasonCode", "LastUpdateStatusReason", "LastUpdateStatusReasonCode")
# In XML: a description that nobody gave, and a member that only the request has, see
# https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeChangeSet.html
NO_ELEMENTS = re.compile(rb"<Description>\s*</Description>|<ChangeSetType>\w*</ChangeSetType>")


def holders(document: Any, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every object that holds the last member of a path such as ``Records[].EncryptionType``, and its name."""
    head, dot, rest = path.partition(".")
    name = head.removesuffix("[]")
    if not isinstance(document, dict) or name not in document:
        return
    if not dot:
        yield document, name
    elif head.endswith("[]"):
        for item in document[name]:
            yield from holders(item, rest)
    else:
        yield from holders(document[name], rest)


def without_members(service: str, operation: str, document: Any) -> Any:
    """Return the answer of an operation without the members that the tables name."""
    for path in UNKNOWN_MEMBERS.get(service, {}).get(operation, ()):
        for holder, name in holders(document, path):
            del holder[name]
    for path in EMPTY_MEMBERS.get(service, {}).get(operation, ()):
        for holder, name in holders(document, path):
            if not holder[name]:
                del holder[name]
    return document


def mended_function(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return a function's configuration as Lambda gives it.

    A function that is being updated stays active, and its update has the state
    (https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html); reasons are there when there is something to
    give reasons for.
    """
    mended = dict(configuration)
    if mended.get("StateReasonCode") == "Updating":
        mended |= {"State": "Active", "StateReason": "", "StateReasonCode": ""}
    if not mended.get("RuntimeVersionConfig", {}).get("RuntimeVersionArn"):
        mended.pop("RuntimeVersionConfig", None)
    return {name: value for name, value in mended.items() if value or name not in FUNCTION_STATE_MEMBERS}


def mended_functions(document: Any) -> Any:
    """Return an answer of Lambda with every function's configuration mended."""
    if not isinstance(document, dict):
        return document
    if "FunctionArn" in document:
        return mended_function(document)
    if isinstance(document.get("Configuration"), dict):
        return document | {"Configuration": mended_function(document["Configuration"])}
    lists = {name: document[name] for name in ("Functions", "Versions") if isinstance(document.get(name), list)}
    return document | {name: [mended_function(each) for each in items] for name, items in lists.items()}


def _json_mend(service: str) -> Mend:
    operations = UNKNOWN_MEMBERS.get(service, {}).keys() | EMPTY_MEMBERS.get(service, {}).keys()

    def mend(operation: str, body: bytes) -> bytes:
        if operation not in operations:
            return body
        return json.dumps(without_members(service, operation, json.loads(body))).encode()

    return mend


def _mend_functions(path: str, body: bytes) -> bytes:
    # Of what is below /functions, invocations answer with bytes of the function's own.
    if "/functions" not in path or "/invocations" in path or not body.startswith(b"{"):
        return body
    return json.dumps(mended_functions(json.loads(body))).encode()


def _mend_stacks(_path: str, body: bytes) -> bytes:
    return NO_ELEMENTS.sub(b"", body)


def _by_target(_path: str, headers: Mapping[str, str]) -> str:
    return headers.get("x-amz-target", "").rpartition(".")[2]


def _by_path(path: str, _headers: Mapping[str, str]) -> str:
    return path


def _wrap(name: str, key: Callable[[str, Mapping[str, str]], str], mend: Mend) -> None:
    module = importlib.import_module(f"ministack.services.{name}")
    original = seams.require(module, "handle_request")

    async def handle_request(method: str, path: str, headers: Mapping[str, str], body: bytes, query: Any) -> Any:
        answer = await original(method, path, headers, body, query)
        if answer[0] not in SUCCESS or not isinstance(answer[2], bytes | str):
            return answer
        raw = answer[2].encode() if isinstance(answer[2], str) else answer[2]
        return (*answer[:2], mend(key(path, headers), raw), *answer[3:])

    seams.replace(module, "handle_request", handle_request)


def install(_endpoint: Endpoint) -> None:
    """Mend the answers on their way out."""
    for service in sorted(UNKNOWN_MEMBERS.keys() | EMPTY_MEMBERS.keys()):
        _wrap(service, _by_target, _json_mend(service))
    _wrap("lambda_svc", _by_path, _mend_functions)
    _wrap("cloudformation", _by_path, _mend_stacks)
