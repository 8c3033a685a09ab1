"""The contract, read: every row as one question with the answer that it must have."""

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

from tests.template.variants import FACTORS

CONTRACT = Path(__file__).with_name("contract.toml")
ENCRYPTIONS = FACTORS["Encryption"]
USUAL = "as usual"
ANY_CONTEXT = "*"

Demand = Literal["must", "may", "never"]


class ContractError(ValueError):
    """The contract is not well-formed."""


@dataclass(frozen=True)
class Row:
    """One thing that one principal must, may or must never be able to do.

    Attributes:
        demand: what the contract says of it.
        who: logical id of a role or managed policy, a service principal, or one of the simulation's strangers.
        action: such as ``s3:GetObject``.
        resource: ARN, or ``*`` for actions without resource types.
        context: name of the circumstances; ``*`` in a ``may`` row for any.
        encryption: the one value of the parameter Encryption that the row is about, or None.
        because: the page that says so, or the argument.
    """

    demand: Demand
    who: str
    action: str
    resource: str
    context: str
    encryption: str | None
    because: str

    def __str__(self) -> str:
        return f"{self.who}: {self.action} on {self.resource} ({self.context})"


@dataclass(frozen=True)
class Context:
    """Circumstances of a request.

    Attributes:
        group: the service with whose actions they are tried; ``service`` for service principals, ``asked`` for rows.
        caller: the only service principal that comes in them, or None.
        variables: the condition keys of the request.
    """

    group: str
    caller: str | None
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Contract:
    """The whole contract."""

    tables: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path = CONTRACT) -> "Contract":
        """Read the contract from its file."""
        return cls(tomllib.loads(path.read_text()))

    @cached_property
    def arns(self) -> dict[str, str]:
        """The ARN behind every name."""
        arns: dict[str, str] = {}
        for section in ("resources", "foreign", "foreign_account"):
            for name, pattern in self.tables[section].items():
                arns[name] = pattern.format_map(arns)
        return arns

    @cached_property
    def contexts(self) -> dict[str, Context]:
        """All circumstances by name."""
        contexts = {USUAL: Context("", None, {})}
        for group, named in self.tables["contexts"].items():
            for name, entries in named.items():
                variables = {key: text.format_map(self.arns) for key, text in entries.items() if key != "caller"}
                contexts[name] = Context(group, entries.get("caller"), variables)
        return contexts

    @property
    def universe(self) -> list[str]:
        """Every ARN that the contract knows, the foreign ones included; no patterns."""
        return [arn for name, arn in self.arns.items() if name not in {"log_groups", "roles"}]

    def rows(self, encryption: str) -> list[Row]:
        """Return the rows that hold for one value of the parameter Encryption."""
        return [row for row in self.all_rows if row.encryption in {None, encryption}]

    @cached_property
    def all_rows(self) -> list[Row]:
        """Every row.

        Raises:
            ContractError: a table lacks its page or argument, or names unknown things.
        """
        rows: list[Row] = []
        for demand in ("must", "may", "never"):
            for table in self.tables[demand]:
                rows += self._rows_of(demand, table)
        granted = Counter(str(row) for row in rows if row.demand == "must")
        twice = [row for row, times in granted.items() if times > 1]
        denied = {str(row) for row in rows if row.demand == "never"}
        if twice or denied & granted.keys():
            raise ContractError(
                f"rows that are there twice, or contradict others: {[*twice, *denied & granted.keys()]}"
            )
        return rows

    def _rows_of(self, demand: Demand, table: Mapping[str, Any]) -> Iterator[Row]:
        needed = {"must": {"source"}, "may": {"why", "source"}, "never": {"why"}}[demand]
        allowed = needed | {"who", "actions", "on", "context", "encryption"}
        if not needed <= table.keys() or not table.keys() <= allowed:
            raise ContractError(f"{demand} {table['who']} {table['actions']}: has {sorted(table)}")
        if "source" in table and not table["source"].startswith(
            ("https://docs.aws.amazon.com/", "https://repost.aws/")
        ):
            raise ContractError(f"not a page of AWS: {table['source']}")
        encryption = table.get("encryption")
        if encryption not in {None, *ENCRYPTIONS}:
            raise ContractError(f"no such encryption: {encryption}")
        for who, action, on, context in product(
            table["who"], table["actions"], table["on"], table.get("context", [USUAL])
        ):
            if context not in self.contexts and not (context == ANY_CONTEXT and demand == "may"):
                raise ContractError(f"no such context: {context}")
            because = table.get("why") or table["source"]
            yield Row(demand, who, action, on.format_map(self.arns), context, encryption, because)
