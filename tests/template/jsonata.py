"""Just enough of JSONata to know which variables, functions and members an expression of the state machine names.

https://docs.jsonata.org/overview
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.model import Shape

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|/\*.*?\*/)
    | (?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    | (?P<quoted>`[^`]*`)
    | (?P<variable>\$\$?\w*)
    | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<name>[A-Za-z_]\w*)
    | (?P<mark>:=|!=|<=|>=|~>|\*\*|\.\.|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = frozenset({"and", "or", "in", "true", "false", "null", "function"})
_PAIRS = {"[": "]", "(": ")", "{": "}"}


@dataclass(frozen=True)
class Token:
    """One word or mark of an expression; a name in backquotes has the kind ``name`` too."""

    kind: str
    text: str


def expressions(node: Any) -> Iterator[str]:
    """Yield every JSONata expression in a part of a definition."""
    if isinstance(node, dict):
        for item in node.values():
            yield from expressions(item)
    elif isinstance(node, list):
        for item in node:
            yield from expressions(item)
    elif is_expression(node):
        yield node[2:-2].strip()


def is_expression(value: Any) -> bool:
    """Tell whether Step Functions evaluates the value.

    https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html
    """
    return isinstance(value, str) and value.startswith("{%") and value.endswith("%}")


def tokens(expression: str) -> list[Token]:
    """Return the words and marks of an expression, without spaces and comments."""
    found = []
    for match in _TOKEN.finditer(expression):
        kind = match.lastgroup or ""
        if kind != "space":
            found.append(Token("name", match[0][1:-1]) if kind == "quoted" else Token(kind, match[0]))
    return found


def variables(expression: str) -> set[str]:
    """Return the variables that an expression reads and does not bind itself, without ``$``."""
    words = tokens(expression)
    bound = {word.text for word, following in itertools.pairwise(words) if following.text == ":="}
    for index, word in enumerate(words):
        if word.text == "function":
            closing = _closing(words, index + 1)
            bound |= {each.text for each in words[index:closing] if each.kind == "variable"}
    read = {
        word.text
        for index, word in enumerate(words)
        if word.kind == "variable" and not _is_call(words, index) and word.text not in ("$", "$$")
    }
    return {name[1:] for name in read - bound}


def functions(expression: str) -> set[str]:
    """Return the functions that an expression calls, without ``$``."""
    words = tokens(expression)
    return {word.text[1:] for index, word in enumerate(words) if word.kind == "variable" and _is_call(words, index)}


def _is_call(words: Sequence[Token], index: int) -> bool:
    return index + 1 < len(words) and words[index + 1].text == "("


def _closing(words: Sequence[Token], opening: int) -> int:
    """Return the index of the mark that closes the one at ``opening``, or the end."""
    depth = 0
    for index in range(opening, len(words)):
        if words[index].kind == "mark":
            depth += (words[index].text in _PAIRS) - (words[index].text in _PAIRS.values())
        if depth == 0:
            return index
    return len(words)


def states_fields(expression: str) -> set[str]:
    """Return what an expression reads of ``$states``, for example ``result``."""
    words = tokens(expression)
    return {
        words[index + 2].text if words[index + 1].text == "." else ""
        for index in range(len(words) - 2)
        if words[index].text == "$states"
    }


def unknown_members(expression: str, result: Shape | None) -> Iterator[str]:
    """Yield each path below ``$states.result`` that names no member of the shape; None is a result of any form."""
    words = tokens(expression)
    for index in range(len(words) - 2):
        if [word.text for word in words[index : index + 3]] == ["$states", ".", "result"]:
            yield from _walk(words, index + 3, result, "$states.result")[1]


def _walk(words: Sequence[Token], index: int, shape: Any, path: str) -> tuple[int, list[str]]:
    """Follow a path from ``index`` on; return where it ends, and what is wrong with it."""
    wrong: list[str] = []
    while index < len(words) and shape is not None:
        if words[index].text in ("[", "^", "{") or _is_block(words, index):
            opening = index + (words[index].text in ("^", "."))
            closing = _closing(words, opening)
            wrong += _relative(words[opening + 1 : closing], shape, path)
            index = closing + 1
        elif words[index].text == "." and index + 1 < len(words) and words[index + 1].kind == "name":
            shape, known = _step(shape, words[index + 1].text)
            path += f".{words[index + 1].text}"
            index += 2
            if not known:
                return index, [*wrong, path]
        else:
            break
    return index, wrong


def _is_block(words: Sequence[Token], index: int) -> bool:
    return words[index].text == "." and index + 1 < len(words) and words[index + 1].text == "("


def _relative(words: Sequence[Token], shape: Any, path: str) -> list[str]:
    """Check the paths in a filter or block, which start at the element that it is about."""
    wrong: list[str] = []
    index = 0
    while index < len(words):
        starts = words[index].kind == "name" and words[index].text not in _KEYWORDS
        if starts and (index == 0 or words[index - 1].text != "."):
            member, known = _step(shape, words[index].text)
            inner = f"{path}[{words[index].text}]"
            index, found = _walk(words, index + 1, member, inner)
            wrong += found if known else [inner]
        else:
            index += 1
    return wrong


def _step(shape: Any, name: str) -> tuple[Any, bool]:
    while shape is not None and shape.type_name == "list":
        shape = shape.member
    if shape is None:
        return None, True
    if shape.type_name == "map":
        return shape.value, True
    if shape.type_name != "structure":
        return None, False
    # Step Functions writes the API's names with a capital:
    # https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html
    members = {member[:1].upper() + member[1:]: inner for member, inner in shape.members.items()}
    return members.get(name), name in members
