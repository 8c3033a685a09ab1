"""The regular expressions of AWS's API models, which are Java's, as Python's ``re`` reads them.

https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/util/regex/Pattern.html
"""

import functools
import re
import sys
import unicodedata

# Java reads a surrogate pair in a pattern as the character that it encodes.
_SURROGATES = (
    ("\\uD800\\uDC00-\\uDBFF\\uDFFF", "\\U00010000-\\U0010FFFF"),
    ("\\ud800\\udc00-\\udbff\\udfff", "\\U00010000-\\U0010FFFF"),
)
_UNICODE_CLASS = re.compile(r"\\p\{(\w+)\}")
_CLASS = re.compile(r"\[(?:\\.|[^\]\\])*\]")
# Python reads the hyphen after a class as the start of a range that it cannot be, Java as a hyphen.
_HYPHEN_AFTER_CLASS = re.compile(r"(\\[wdsWDS])-(?!\])")


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Return the pattern of an API model for ``fullmatch``: the services match the whole text.

    Raises:
        re.error: it uses something of Java's that is not translated here.
    """
    for java, python in _SURROGATES:
        pattern = pattern.replace(java, python)
    pattern = _CLASS.sub(lambda match: _HYPHEN_AFTER_CLASS.sub(r"\1\\-", match[0]), pattern)
    outside = {match.start() for match in _UNICODE_CLASS.finditer(_CLASS.sub(_blank, pattern))}
    return re.compile(
        _UNICODE_CLASS.sub(
            lambda match: f"[{ranges(match[1])}]" if match.start() in outside else ranges(match[1]), pattern
        )
    )


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


@functools.cache
def ranges(name: str) -> str:
    r"""Return what stands inside of a character class for ``\p{name}``.

    Raises:
        re.error: the class is neither ASCII nor a Unicode category.
    """
    if name == "ASCII":
        return r"\x00-\x7f"
    by_category = _ranges_by_category()
    found = [text for category, text in by_category.items() if category.startswith(name)]
    if not found:
        raise re.error(f"no such class: \\p{{{name}}}")
    return "".join(found)


@functools.cache
def _ranges_by_category() -> dict[str, str]:
    found: dict[str, list[tuple[int, int]]] = {}
    for point in range(sys.maxunicode + 1):
        runs = found.setdefault(unicodedata.category(chr(point)), [])
        if runs and runs[-1][1] == point - 1:
            runs[-1] = (runs[-1][0], point)
        else:
            runs.append((point, point))
    return {
        category: "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs) for category, runs in found.items()
    }
