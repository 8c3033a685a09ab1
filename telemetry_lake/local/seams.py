"""The one way in which a module of the embedded endpoint replaces a part of MiniStack.

MiniStack has no plug-in interface, so private functions are replaced by name. Its version is pinned exactly,
and every name is asserted at start, so that a new version that moved one fails there and not in the middle of a run.
"""

from types import ModuleType
from typing import Any


class SeamError(RuntimeError):
    """MiniStack no longer has a name that the embedded endpoint relies on."""


def require(module: ModuleType, name: str) -> Any:
    """Return ``module.name``.

    Raises:
        SeamError: MiniStack has no such name; the pinned version was changed.
    """
    try:
        return getattr(module, name)
    except AttributeError:
        raise SeamError(
            f"{module.__name__} has no {name!r}: the embedded endpoint is written for the MiniStack version "
            "pinned in pyproject.toml; install that version, or adapt the module that asked for the name"
        ) from None


def replace(module: ModuleType, name: str, replacement: Any) -> Any:
    """Put ``replacement`` in the place of ``module.name`` and return what stood there.

    Raises:
        SeamError: MiniStack has no such name; the pinned version was changed.
    """
    original = require(module, name)
    setattr(module, name, replacement)
    return original
