"""The page: evidence in, HTML out, with everything it needs inside.

Its content security policy lets it ask the network for nothing and run its own two scripts only.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files
from typing import Any

from telemetry_lake.report.charts import Chart, Fact, Section, Table, facts, moment_text, sections
from telemetry_lake.report.evidence import Evidence

CHART_LIBRARY = "echarts.common.min.js"
"""Of npm's echarts; ``make check`` compares it with what npm has."""

LONG_CHARACTERS = 60
"""What is longer is wrapped in its cell."""

MARKS = {
    "green": "good",
    "red": "bad",
    "SUCCEEDED": "good",
    "FAILED": "bad",
    "TIMED_OUT": "bad",
    "ABORTED": "bad",
    "CANCELLED": "bad",
}


def page(evidence: Evidence) -> str:
    """Return the report as one HTML document."""
    parts = sections(evidence)
    charts = [chart for part in parts for chart in part.charts]
    library, script = _asset(CHART_LIBRARY), _asset("report.js")
    numbers = iter(range(len(charts)))
    period = evidence.period
    body = [
        "<header><h1>Telemetry Lake</h1>",
        f"<p>The {escape(evidence.place)}</p><p>{moment_text(period.start)} to {moment_text(period.end)} UTC</p>",
        "</header>",
        "<main>",
        _facts(facts(evidence)),
        *(_section(part, numbers) for part in parts),
        "</main>",
        f'<script type="application/json" id="charts">{_json([chart.drawing() for chart in charts])}</script>',
        f"<script>{library}</script>",
        f"<script>{script}</script>",
    ]
    return "\n".join([*_head(_policy([library, script])), "<body>", *body, "</body></html>"]) + "\n"


def _head(policy: str) -> list[str]:
    return [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        "<title>Telemetry Lake: report</title>",
        f"<style>{_asset('report.css')}</style></head>",
    ]


def _policy(scripts: Iterable[str]) -> str:
    """Return the policy that admits these scripts and nothing from elsewhere.

    https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Content-Security-Policy
    """
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'"


def _asset(name: str) -> str:
    return (files("telemetry_lake.report") / "assets" / name).read_text("utf-8")


def _json(value: Any) -> str:
    # A less-than sign could end the element; it stands in strings alone.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _facts(found: Iterable[Fact]) -> str:
    items = (
        f"<div><dt>{escape(fact.label)}</dt><dd><strong>{escape(fact.value)}</strong> {escape(fact.note)}</dd></div>"
        for fact in found
    )
    return f'<dl class="facts">{"".join(items)}</dl>'


def _section(section: Section, numbers: Iterator[int]) -> str:
    charts = "\n".join(_figure(chart, next(numbers)) for chart in section.charts)
    table = _table(section.table, section.title) if section.table is not None else ""
    return (
        f"<section><h2>{escape(section.title)}</h2><p>{escape(section.lead)}</p>\n"
        f'<div class="charts">{charts}</div>{table}</section>'
    )


def _figure(chart: Chart, number: int) -> str:
    title = f"<figcaption><h3>{escape(chart.title)}</h3></figcaption>"
    if chart.is_empty:
        return f'<figure>{title}<p class="none">Nothing in this period.</p></figure>'
    drawn = f'<div class="chart" data-chart="{number}" role="img" aria-label="{escape(chart.description)}"></div>'
    table = _table(chart.table(), chart.title)
    return f"<figure>{title}{drawn}<details><summary>The numbers</summary>{table}</details></figure>"


def _table(table: Table, name: str) -> str:
    if not table.rows:
        return '<p class="none">None in this period.</p>'
    head = "".join(_cell("th", text, place >= table.numeric) for place, text in enumerate(table.columns))
    rows = "\n".join(
        f"<tr>{''.join(_cell('td', text, place >= table.numeric) for place, text in enumerate(row))}</tr>"
        for row in table.rows
    )
    return (
        f'<div class="table" role="region" aria-label="{escape(name)}, as a table" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(element: str, text: str, is_number: bool) -> str:
    kind = "number" if is_number else "long" if len(text) > LONG_CHARACTERS else MARKS.get(text, "")
    scope = ' scope="col"' if element == "th" else ""
    return f'<{element}{scope} class="{kind}">{escape(text)}</{element}>'
