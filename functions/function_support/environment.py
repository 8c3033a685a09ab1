"""Reading environment variables so that a wrong deployment fails at start, naming all that is wrong at once."""

import math
from collections.abc import Mapping


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

    def finish(self) -> None:
        """Raise `InvalidEnvironmentError` if any variable was missing or unusable."""
        if self._complaints:
            raise InvalidEnvironmentError("; ".join(self._complaints))
