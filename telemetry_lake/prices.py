"""Prices, from the one file that has them with their sources."""

import tomllib
from dataclasses import dataclass
from datetime import date
from importlib.resources import files


@dataclass(frozen=True)
class Price:
    """A price, or what is billed at least; ``read`` is the day on which its source was read."""

    value: float
    read: date


def price(name: str) -> Price:
    """Return an entry of ``prices.toml``."""
    entry = tomllib.loads((files("telemetry_lake") / "prices.toml").read_text())[name]
    return Price(float(entry["value"]), entry["read"])
