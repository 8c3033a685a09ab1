"""Reading environment variables so that a wrong deployment fails at start, naming all that is wrong at once."""

import math
import re
from collections.abc import Mapping
from zoneinfo import ZoneInfo

_DECIMAL = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


class InvalidEnvironmentError(ValueError):
    """One or more environment variables are missing or unusable; the message lists each of them."""


class EnvironmentReader:
    """Collects values and complaints; `finish` raises when there was any complaint.

    Args:
        variables: the environment, normally ``os.environ``.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._complaints: list[str] = []

    def text(self, name: str) -> str:
        """A variable that must not be empty."""
        value = self._variables.get(name, "")
        if not value:
            self._complaints.append(f"{name} is not set")
        return value

    def prefix(self, name: str) -> str:
        """A key prefix: relative and ended by a slash, such as ``dlq/raw_json/``."""
        value = self.text(name)
        if value and (value.startswith("/") or not value.endswith("/")):
            self._complaints.append(f"{name} must not start with a slash and must end with one: {value!r}")
        return value

    def number(self, name: str) -> float:
        """A variable that holds a finite number."""
        value = self.text(name)
        if not value:
            return math.nan
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self._complaints.append(f"{name} must be a finite number: {value!r}")
        return number

    def positive_integer(self, name: str) -> int:
        """A variable that holds a whole number above zero."""
        value = self.text(name)
        if not value:
            return 0
        if not (value.isascii() and value.isdigit() and int(value) > 0):
            self._complaints.append(f"{name} must be a whole number above zero: {value!r}")
            return 0
        return int(value)

    def time_zone(self, name: str) -> ZoneInfo:
        """A variable that holds the name of an IANA time zone."""
        value = self.text(name)
        try:
            return ZoneInfo(value or "UTC")
        except (KeyError, ValueError):
            self._complaints.append(f"{name} must be a time zone such as Asia/Tokyo: {value!r}")
            return ZoneInfo("UTC")

    def numbers_by_name(self, prefix: str) -> dict[str, str]:
        """All variables with a prefix, by the rest of their names in lower case; decimal numbers, kept as text."""
        found = {name: value for name, value in self._variables.items() if name.startswith(prefix)}
        for name, value in found.items():
            if not _DECIMAL.fullmatch(value):
                self._complaints.append(f"{name} must be a decimal number: {value!r}")
        return {name.removeprefix(prefix).lower(): value for name, value in found.items()}

    def finish(self) -> None:
        """Raise `InvalidEnvironmentError` if any variable was missing or unusable."""
        if self._complaints:
            raise InvalidEnvironmentError("; ".join(self._complaints))
