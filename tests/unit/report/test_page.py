"""The page holds the run's numbers, twice: as data for its charts and as tables; and nothing from elsewhere."""

import base64
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from telemetry_lake.report.charts import seconds_text
from telemetry_lake.report.evidence import Evidence
from telemetry_lake.report.page import page
from tests.unit.report.reading import Page, read
from tests.unit.report.samples import END, HOSTILE, evidence, evidence_of_nothing, execution, query, run


@pytest.fixture(scope="module")
def whole() -> Evidence:
    return evidence()


@pytest.fixture(scope="module")
def parsed(whole: Evidence) -> Page:
    return read(page(whole))


def number(text: str) -> float:
    return float(text.replace(",", ""))


def milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def test_the_facts_are_sums_over_the_runs_the_rejects_and_the_files() -> None:
    # GIVEN two runs of the period, one of which stored nothing
    found = read(
        page(
            evidence(
                runs=[run(0, new=5000), run(1, new=0)],
                rejects_by_reason={"wrong_type": 3, "too_deep": 2},
                executions=[execution(0), execution(1, "TIMED_OUT")],
                queries=[query(0, 1_500), query(1, 2_500_000)],
            )
        )
    ).facts

    # THEN the age is that of the one that stored something
    assert found == {
        "checklist": "6 of 7",
        "readings stored": "5,000",
        "rejects": "5",
        "executions": "2",
        "newest reading": "2 min",
        "the table": "3.3 MB",
        "largest scan": "2.5 MB",
    }


def test_lines_over_time_are_drawn_and_written_with_the_metrics_own_values(whole: Evidence, parsed: Page) -> None:
    # GIVEN
    title = "Readings by the transform, a minute"

    # WHEN / THEN
    lines = {line["name"]: line["values"] for line in parsed.chart(title)["series"]}
    assert lines == {
        each.plot.label: [[milliseconds(moment), value] for moment, value in each.points] for each in whole.throughput
    }
    header, *rows = parsed.tables[title]
    assert header == ["UTC", "accepted", "rejected"]
    assert [(row[0], number(row[1]), number(row[2])) for row in rows] == [
        (f"{moment:%Y-%m-%d %H:%M:%S}", accepted, rejected)
        for (moment, accepted), (_, rejected) in zip(*(each.points for each in whole.throughput), strict=True)
    ]


def test_a_moment_that_one_line_alone_has_a_value_for_is_empty_for_the_other(parsed: Page) -> None:
    # GIVEN / WHEN the ends of runs lie between the minutes of the metric
    _, *rows = parsed.tables["Age of readings"]

    # THEN
    assert {(bool(delivered), bool(stored)) for _, delivered, stored in rows} == {(True, False), (False, True)}


def test_a_reading_is_in_the_table_as_old_as_it_was_at_the_end_of_its_run() -> None:
    # GIVEN a run that ended 130 s after its newest reading was taken, and one that stored nothing
    parsed = read(page(evidence(runs=[run(0), run(1, new=0)])))

    # WHEN / THEN
    _, stored = parsed.chart("Age of readings")["series"]
    assert [value for _, value in stored["values"]] == [130.0]


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("Rejects by reason", lambda whole: whole.rejects_by_reason.values()),
        ("Files of each partition", lambda whole: [each.files for each in whole.partitions]),
        ("Bytes scanned by each query", lambda whole: [each.scanned_bytes for each in whole.queries]),
    ],
)
def test_bars_have_the_numbers_of_the_evidence(whole: Evidence, parsed: Page, title: str, wanted: object) -> None:
    # GIVEN
    assert callable(wanted)
    values = sorted(wanted(whole))

    # WHEN / THEN
    (series,) = parsed.chart(title)["series"]
    assert sorted(series["values"]) == values
    assert sorted(number(row[-1]) for row in parsed.tables[title][1:]) == values


def test_the_seconds_of_a_run_stand_on_each_other_by_step(whole: Evidence, parsed: Page) -> None:
    # GIVEN / WHEN
    chart = parsed.chart("Seconds of each run, by step")

    # THEN
    drawn = {series["name"]: series["values"] for series in chart["series"]}
    for step, seconds in drawn.items():
        assert seconds == [each["seconds_by_step"][step] for each in whole.runs]
    assert list(drawn) == list(whole.runs[0]["seconds_by_step"])
    written = [[number(cell) for cell in row[1:]] for row in parsed.tables["Seconds of each run, by step"][1:]]
    assert written == [list(each["seconds_by_step"].values()) for each in whole.runs]


def test_a_step_that_a_run_does_not_have_took_it_no_time() -> None:
    # GIVEN a run of an older script beside one of today's
    old, new = run(0), run(1)
    del old["seconds_by_step"]["plan"]

    # WHEN
    chart = read(page(evidence(runs=[old, new]))).chart("Seconds of each run, by step")

    # THEN
    assert {each["name"]: each["values"] for each in chart["series"]}["plan"] == [0.0, new["seconds_by_step"]["plan"]]


def test_each_widget_of_the_dashboard_is_a_chart_with_its_axes(whole: Evidence, parsed: Page) -> None:
    for widget in whole.widgets:
        chart = parsed.chart(widget.title)
        assert [(line["name"], line["right"], [value for _, value in line["values"]]) for line in chart["series"]] == [
            (each.plot.label, each.plot.on_right_axis, [value for _, value in each.points]) for each in widget.series
        ]


def test_the_alarms_of_the_dashboard_are_listed_with_state_time_and_reason(whole: Evidence, parsed: Page) -> None:
    rows = parsed.tables["Dashboard"][1:]
    assert [[row[0], row[1], row[3]] for row in rows] == [[a.name, a.state, a.reason] for a in whole.alarms]
    assert [row[2] for row in rows] == ["2026-10-15 09:00:00", "2026-10-15 11:53:00"]


def test_the_axes_of_all_charts_begin_where_something_happened_first(whole: Evidence, parsed: Page) -> None:
    # GIVEN
    first = min(moment for each in whole.throughput for moment, _ in each.points)

    # WHEN / THEN
    axes = {(chart["start"], chart["end"]) for chart in parsed.charts if chart["kind"] == "time"}
    assert axes == {(milliseconds(first), milliseconds(END))}


def test_the_checklist_has_a_row_for_each_step_and_what_makes_one_red(parsed: Page) -> None:
    # GIVEN / WHEN
    rows = parsed.tables["Checklist"][1:]

    # THEN
    assert [row[2] for row in rows] == ["green"] * 6 + ["red"]
    assert rows[0][3] == "1,000 records by IncomingRecords in 24 h; 0 throttled"
    assert rows[6][3].startswith("no reject is kept; 7,000 records")


def test_the_executions_are_listed_with_what_started_them_and_how_they_ended(whole: Evidence, parsed: Page) -> None:
    rows = parsed.tables["Executions"][1:]
    assert [row[1:4] for row in rows] == [[each.name, each.trigger, each.status] for each in whole.executions]
    assert [number(row[5]) for row in rows] == pytest.approx([each.seconds for each in whole.executions], abs=0.05)


def test_a_period_in_which_nothing_happened_says_so_in_each_place() -> None:
    # GIVEN / WHEN
    nothing = evidence_of_nothing()
    text = page(nothing)
    parsed = read(text)

    # THEN no chart is drawn, and none is forgotten
    assert "data-chart=" not in text
    assert text.count("Nothing in this period.") == len(parsed.charts)
    assert parsed.tables == {}
    assert {chart["start"] for chart in parsed.charts if chart["kind"] == "time"} == {
        milliseconds(END - timedelta(hours=24))
    }


def test_what_devices_and_queries_say_is_text_and_never_markup(parsed: Page) -> None:
    # GIVEN a reason that ends the element which it stands in
    assert HOSTILE in parsed.chart("Rejects by reason")["categories"]

    # THEN the page has its library and its script, and no third one
    assert len(parsed.scripts) == 2
    assert HOSTILE in [row[0] for row in parsed.tables["Rejects by reason"]]


def test_nothing_in_the_page_refers_to_anything_outside_of_it(parsed: Page) -> None:
    assert parsed.references == []


def test_a_browser_is_told_to_fetch_nothing_and_to_run_these_two_scripts_only(whole: Evidence, parsed: Page) -> None:
    # GIVEN
    found = re.search(r'Content-Security-Policy" content="([^"]+)"', page(whole))
    assert found is not None

    # WHEN / THEN
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in parsed.scripts]
    assert found.group(1).split("; ") == [
        "default-src 'none'",
        f"script-src 'sha256-{digests[0]}' 'sha256-{digests[1]}'",
        "style-src 'unsafe-inline'",
    ]


def test_the_data_are_json_that_any_reader_takes(whole: Evidence) -> None:
    # GIVEN a number that JSON does not have would be written as NaN
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page(whole), re.DOTALL)
    assert found is not None

    # WHEN / THEN
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(found.group(1), parse_constant=refuse)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119.4, "119 s"), (120, "2 min"), (7199, "120 min"), (9000, "2.5 h"), (200_000, "2 days")],
)
def test_a_length_of_time_is_said_in_one_unit(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_times_of_the_page_are_utc() -> None:
    # GIVEN
    parsed = read(page(evidence(executions=[execution(0)])))

    # THEN
    assert parsed.tables["Executions"][1][0] == f"{(END - timedelta(minutes=1)).astimezone(UTC):%Y-%m-%d %H:%M:%S}"
