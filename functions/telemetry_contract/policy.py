"""The rules that may change over time, and the version that names them.

Shape rules (types, lengths, finite numbers) never change their mind. The rules here do: they compare a reading with
limits that an operator sets and with the time of its arrival. They are applied once, so every verdict carries the
`Policy.contract_version` it was given under.
"""

import math

import msgspec

CONTRACT_VERSION = 1
"""Number of the shape rules; raised when what counts as a well-formed reading changes."""

SECONDS_PER_DAY = 86_400


class Policy(msgspec.Struct, frozen=True):
    """Limits that a well-formed reading is judged by.

    Attributes:
        temperature_min: lowest temperature accepted, degrees Celsius, inclusive.
        temperature_max: highest temperature accepted, degrees Celsius, inclusive.
        max_future_seconds: how far a timestamp may lie after the record's arrival, seconds.
        max_age_days: how far a timestamp may lie before the record's arrival, days of 86,400 seconds.

    Raises:
        ValueError: a limit is not finite or negative, or the temperature range is empty.
    """

    temperature_min: float = -100.0
    temperature_max: float = 200.0
    max_future_seconds: float = 300.0
    max_age_days: float = 3650.0

    def __post_init__(self) -> None:
        limits = (self.temperature_min, self.temperature_max, self.max_future_seconds, self.max_age_days)
        if not all(math.isfinite(limit) for limit in limits):
            raise ValueError(f"every limit of the policy must be a finite number: {limits}")
        if self.temperature_min > self.temperature_max:
            raise ValueError(f"the temperature range {self.temperature_min}..{self.temperature_max} is empty")
        if self.max_future_seconds < 0 or self.max_age_days < 0:
            raise ValueError("max_future_seconds and max_age_days must not be negative")

    @property
    def contract_version(self) -> str:
        """Version of the shape rules and every limit, in words: equal policies have equal versions, others never."""
        return (
            f"{CONTRACT_VERSION};temperature={_shortest(self.temperature_min)}..{_shortest(self.temperature_max)}"
            f";future={_shortest(self.max_future_seconds)}s;age={_shortest(self.max_age_days)}d"
        )


def _shortest(number: float) -> str:
    """Shortest decimal that reads back as the same double, without a trailing ``.0`` (and without a negative zero)."""
    return repr(float(number) + 0.0).removesuffix(".0")
