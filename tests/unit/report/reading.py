"""Reads a page as a browser would: its data, its tables and what it refers to."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

REFERRING = ("src", "href", "srcset", "action", "data", "poster")


@dataclass
class Page(HTMLParser):
    """A page that was read.

    Attributes:
        charts: the data that its script draws.
        tables: rows of texts by the table's name, the header first.
        facts: value by label.
        references: attributes that would make a browser fetch something.
        scripts: the texts of the elements that run.
        titles: the texts of headings.
    """

    charts: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    references: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    _open: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _rows: list[list[str]] = field(default_factory=list)
    _table: str = ""
    _label: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.references += [f"{tag} {name}={attributes[name]}" for name in REFERRING if name in attributes]
        self._texts = []
        if tag == "tr":
            self._rows.append([])
        if (attributes.get("class"), attributes.get("role")) == ("table", "region"):
            self._table, self._rows = str(attributes["aria-label"]).removesuffix(", as a table"), []
        self._open.append((tag, attributes))

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        text = "".join(self._texts)
        _, attributes = next(each for each in reversed(self._open) if each[0] == tag)
        if tag == "script" and attributes.get("type") == "application/json":
            self.charts = json.loads(text)
        elif tag == "script":
            self.scripts.append(text)
        elif tag in ("td", "th"):
            self._rows[-1].append(text)
        elif tag == "table":
            self.tables[self._table] = self._rows
        elif tag in ("h1", "h2", "h3"):
            self.titles.append(text)
        elif tag == "dt":
            self._label = text
        elif tag == "strong":
            self.facts[self._label] = text

    def chart(self, title: str) -> dict[str, Any]:
        """Return the data of the chart with a title."""
        (found,) = (chart for chart in self.charts if chart["title"] == title)
        return found


def read(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    return page
