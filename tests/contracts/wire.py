"""What an endpoint sends, judged as it is on the wire: the raw body and headers, before an SDK drops what it ignores.

The protocols: https://smithy.io/2.0/aws/protocols/index.html
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from xml.etree import ElementTree

from botocore.model import OperationModel, Shape
from botocore.utils import parse_timestamp

from tests.contracts.shapes import WIRE_JSON, WIRE_READ, findings

# Where a member of a REST protocol is, if not in the body.
_ELSEWHERE = ("header", "headers", "statusCode", "uri", "querystring")


def answer_findings(operation: OperationModel, status: int, headers: Mapping[str, str], body: Any) -> list[str]:
    """Return what in a successful answer does not fit the operation's output, a line each.

    Args:
        operation: what was asked.
        status: the HTTP status.
        headers: the HTTP headers.
        body: bytes; anything else is a stream, which is not looked into.
    """
    shape: Any = operation.output_shape
    if shape is None:
        return []
    try:
        document, found = _read(operation.service_model.resolved_protocol, shape, status, headers, body)
    except (ValueError, ElementTree.ParseError) as error:
        return [f": the body cannot be read: {error}"]
    return [*found, *document]


def _read(protocol: str, shape: Any, status: int, headers: Mapping[str, str], body: Any) -> tuple[list[str], list[str]]:
    match protocol:
        case "json":
            return [], findings(_json(body), shape, WIRE_JSON)
        case "query":
            return _query(shape, body)
        case "rest-json" | "rest-xml":
            return _rest(protocol, shape, status, headers, body)
    raise ValueError(f"the protocol {protocol} is not known here")


def _json(body: bytes) -> Any:
    return json.loads(body) if body else {}


def _query(shape: Any, body: bytes) -> tuple[list[str], list[str]]:
    root = ElementTree.fromstring(body)  # noqa: S314  the test's own endpoint
    wrapper = shape.serialization.get("resultWrapper")
    found = [
        f".{_tag(child)}: the answer has no such part"
        for child in root
        if _tag(child) not in (wrapper, "ResponseMetadata")
    ]
    result = next((child for child in root if _tag(child) == wrapper), None)
    if result is None:
        return [], [*found, f".{wrapper}: missing"]
    document, unread = _structure(result, shape, "")
    return [*found, *unread], findings(document, shape, WIRE_READ)


def _rest(protocol: str, shape: Any, status: int, headers: Mapping[str, str], body: Any) -> tuple[list[str], list[str]]:
    given = dict(_outside_of_the_body(shape, status, headers))
    payload = shape.serialization.get("payload")
    body_shape = shape.members[payload] if payload is not None else shape
    unread: list[str] = []
    if body_shape.type_name in ("blob", "string") or body_shape.serialization.get("eventstream"):
        # Required or not: an empty payload is one.
        given[payload] = body if body_shape.type_name == "blob" else _text_of(body)
    elif body:
        path = f".{payload}" if payload is not None else ""
        if protocol == "rest-json":
            document, found = _members_of_json(_json(body), body_shape, path)
        else:
            root = ElementTree.fromstring(body)  # noqa: S314  the test's own endpoint
            if _tag(root) in body_shape.members:  # S3's GetBucketLocation: its only member is the root
                root = ElementTree.fromstring(b"<root>" + ElementTree.tostring(root) + b"</root>")  # noqa: S314
            document, found = _value(root, body_shape, path)
        unread += found
        given |= {payload: document} if payload is not None else document
    return unread, findings(given, shape, WIRE_READ)


def _text_of(body: Any) -> Any:
    return body.decode() if isinstance(body, bytes) else body


def _outside_of_the_body(shape: Any, status: int, headers: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    lower = {name.lower(): value for name, value in headers.items()}
    for name, member in shape.members.items():
        written = member.serialization.get("name", name).lower()
        match member.serialization.get("location"):
            case "statusCode":
                yield name, status
            case "header" if written in lower:
                yield name, _scalar(lower[written], member)
            case "headers":
                prefix = member.serialization.get("name", "").lower()
                yield name, {key[len(prefix) :]: value for key, value in lower.items() if key.startswith(prefix)}


def _members_of_json(value: Any, shape: Any, path: str) -> tuple[Any, list[str]]:
    """Return a JSON body with the members' own names and values, and what is unknown in it."""
    if value is None:
        return None, []
    match shape.type_name:
        case "structure" if isinstance(value, dict) and not shape.is_document_type:
            names = {member.serialization.get("name", name): (name, member) for name, member in shape.members.items()}
            unread, document = [], {}
            for key, item in value.items():
                if key not in names or names[key][1].serialization.get("location") in _ELSEWHERE:
                    unread.append(f"{path}.{key}: {shape.name} has no such member")
                elif item is not None:
                    document[names[key][0]], found = _members_of_json(item, names[key][1], f"{path}.{key}")
                    unread += found
            return document, unread
        case "list" if isinstance(value, list):
            pairs = [_members_of_json(item, shape.member, f"{path}[{index}]") for index, item in enumerate(value)]
            return [item for item, _ in pairs], [line for _, found in pairs for line in found]
        case "map" if isinstance(value, dict):
            items = {key: _members_of_json(item, shape.value, f"{path}.{key}") for key, item in value.items()}
            return {key: item for key, (item, _) in items.items()}, [
                line for _, found in items.values() for line in found
            ]
        case "timestamp" | "blob":
            # As in every JSON; only the members' names are special here.
            return (0 if shape.type_name == "timestamp" else b""), findings(value, shape, WIRE_JSON, path)
    return value, []


# --- XML --------------------------------------------------------------------------------------------------------------


def _tag(element: ElementTree.Element) -> str:
    return re.sub(r"^\{.*\}", "", element.tag)


def _element_name(name: str, member: Any) -> str:
    """Return the name of a member's element; a flattened list's elements have the name of its items."""
    if member.type_name == "list" and member.serialization.get("flattened"):
        return str(member.member.serialization.get("name", member.serialization.get("name", name)))
    return str(member.serialization.get("name", name))


def _structure(element: ElementTree.Element, shape: Any, path: str) -> tuple[dict[str, Any], list[str]]:
    members = {
        _element_name(name, member): (name, member)
        for name, member in shape.members.items()
        if member.serialization.get("location") not in _ELSEWHERE and not member.serialization.get("xmlAttribute")
    }
    document: dict[str, Any] = {}
    unread: list[str] = []
    for child in element:
        tag = _tag(child)
        if tag not in members:
            unread.append(f"{path}.{tag}: {shape.name} has no such member")
            continue
        name, member = members[tag]
        if member.type_name == "list" and member.serialization.get("flattened"):
            items = document.setdefault(name, [])
            item, found = _value(child, member.member, f"{path}.{tag}[{len(items)}]")
            items.append(item)
        else:
            if name in document:
                unread.append(f"{path}.{tag}: there are two")
            document[name], found = _value(child, member, f"{path}.{tag}")
        unread += found
    for name, member in shape.members.items():
        if member.serialization.get("xmlAttribute"):
            wanted = member.serialization["name"].rsplit(":", 1)[-1]
            for key, value in element.attrib.items():
                if re.sub(r"^\{.*\}", "", key) == wanted:
                    document[name] = value
    return document, unread


def _value(element: ElementTree.Element, shape: Any, path: str) -> tuple[Any, list[str]]:
    match shape.type_name:
        case "structure":
            return _structure(element, shape, path)
        case "list":
            wanted = shape.member.serialization.get("name", "member")
            pairs = [_value(child, shape.member, f"{path}[{index}]") for index, child in enumerate(element)]
            others = [f"{path}.{_tag(child)}: a list of {wanted}" for child in element if _tag(child) != wanted]
            return [item for item, _ in pairs], others + [line for _, found in pairs for line in found]
        case "map":
            entries = [element] if shape.serialization.get("flattened") else list(element)
            return _map(entries, shape, path)
    return _scalar(element.text or "", shape), [] if not len(element) else [f"{path}: holds elements"]


def _map(entries: list[ElementTree.Element], shape: Any, path: str) -> tuple[dict[str, Any], list[str]]:
    document: dict[str, Any] = {}
    unread: list[str] = []
    key_name = shape.key.serialization.get("name", "key")
    value_name = shape.value.serialization.get("name", "value")
    for entry in entries:
        parts = {_tag(part): part for part in entry}
        unread += [
            f"{path}.{tag}: neither {key_name} nor {value_name}" for tag in parts if tag not in (key_name, value_name)
        ]
        if key_name in parts and value_name in parts:
            key = parts[key_name].text or ""
            document[key], found = _value(parts[value_name], shape.value, f"{path}.{key}")
            unread += found
    return document, unread


def _scalar(text: str, shape: Shape) -> Any:
    """Return a text as the shape's type; a text that is no such value becomes a list, which no such shape takes."""
    read = _READERS.get(shape.type_name)
    try:
        return read(text, shape) if read is not None else text
    except (ValueError, KeyError):
        return [text]


def _moment(text: str, shape: Shape) -> Any:
    in_header = shape.serialization.get("location") == "header"
    match shape.serialization.get("timestampFormat", "rfc822" if in_header else "iso8601"):
        case "rfc822":
            return parsedate_to_datetime(text)
        case "unixTimestamp":
            return float(text)
    if not re.match(r"\d{4}-\d\d-\d\dT", text):
        raise ValueError(text)
    return parse_timestamp(text)


_READERS: Mapping[str, Callable[[str, Shape], Any]] = {
    "integer": lambda text, _shape: int(text),
    "long": lambda text, _shape: int(text),
    "float": lambda text, _shape: float(text),
    "double": lambda text, _shape: float(text),
    "boolean": lambda text, _shape: {"true": True, "false": False}[text],
    "timestamp": _moment,
    "blob": lambda text, _shape: text.encode(),
    "list": lambda text, _shape: [part.strip() for part in text.split(",")],
}
