"""The report in a real browser: light and dark, on a phone and on a desk. ``make report-check``.

Looked at is a page of invented evidence, or the file that ``REPORT`` names. The pictures are kept below
``build/report`` for a person's eyes.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from telemetry_lake.report.page import page
from tests.judging import REPOSITORY, beside_this_python, node_modules, run
from tests.unit.report.samples import evidence

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURES = REPOSITORY / "build" / "report"
WIDTHS: Final = {"phone": (390, 844), "desk": (1366, 900)}
SCHEMES = ("light", "dark")
VIEWS = [f"{width}-{scheme}" for width in WIDTHS for scheme in SCHEMES]

Seen = Mapping[str, Any]


def browser() -> str:
    """The browser that this machine has; there has to be one."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found is not None, f"there is none of {', '.join(BROWSERS)}: apt install chromium (Debian)"
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("REPORT")
    if named:
        return Path(named).resolve(strict=True)
    written = tmp_path_factory.mktemp("report") / "report.html"
    written.write_text(page(evidence()), "utf-8")
    return written


@pytest.fixture(scope="module")
def seen(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Seen]:
    PICTURES.mkdir(parents=True, exist_ok=True)
    views = [
        {
            "name": f"{width}-{scheme}",
            "scheme": scheme,
            "width": pixels[0],
            "height": pixels[1],
            "screenshot": str(PICTURES / f"{width}-{scheme}.png"),
        }
        for width, pixels in WIDTHS.items()
        for scheme in SCHEMES
    ]
    job = tmp_path_factory.mktemp("job") / "job.json"
    job.write_text(json.dumps({"browser": browser(), "file": str(file), "views": views}))
    script = str(Path(__file__).with_name("open_page.mjs"))
    command = f'exec "$0" "$1" "$2" < "{job}"'
    result = run(["sh", "-c", command, beside_this_python("node"), script, str(node_modules())])
    assert result.returncode == 0, result.stdout + result.stderr
    return {each["name"]: each for each in json.loads(result.stdout)}


@pytest.fixture(scope="module")
def charts(file: Path) -> list[dict[str, Any]]:
    """The data of the charts that are to be drawn."""
    from tests.unit.report.reading import read

    return [chart for chart in read(file.read_text("utf-8")).charts if any(each["values"] for each in chart["series"])]


@pytest.mark.parametrize("view", VIEWS)
def test_the_console_stays_empty_and_nothing_is_fetched(seen: Mapping[str, Seen], view: str) -> None:
    found = seen[view]
    assert (found["console"], found["failures"], found["requests"]) == ([], [], [])


@pytest.mark.parametrize("view", VIEWS)
def test_each_chart_is_drawn_in_the_room_that_it_has_with_a_title_for_those_who_do_not_see_it(
    seen: Mapping[str, Seen], charts: list[dict[str, Any]], view: str
) -> None:
    # GIVEN
    found = seen[view]["charts"]
    assert len(found) == len(charts) > 0

    for drawn, chart in zip(found, charts, strict=True):
        # WHEN / THEN
        assert drawn["label"].startswith(f"{chart['title']}. ")
        assert drawn["shapes"] > 0
        assert drawn["width"] == pytest.approx(drawn["room"], abs=1)


@pytest.mark.parametrize("view", VIEWS)
def test_no_page_is_wider_than_its_window(seen: Mapping[str, Seen], view: str) -> None:
    assert seen[view]["pageWidth"] <= WIDTHS[view.split("-", maxsplit=1)[0]][0]


@pytest.mark.parametrize("view", VIEWS)
def test_the_names_of_the_categories_can_be_read_on_the_axis(
    seen: Mapping[str, Seen], charts: list[dict[str, Any]], view: str
) -> None:
    for drawn, chart in zip(seen[view]["charts"], charts, strict=True):
        if chart["kind"] == "bars":
            shown = [category for category in chart["categories"] if category in drawn["texts"]]
            assert len(shown) == len(chart["categories"]) if chart["horizontal"] else shown


def luminance(colour: str) -> float:
    """How light a colour like ``rgb(18, 22, 28)`` is: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("view", VIEWS)
def test_the_words_of_charts_stand_out_from_the_page(seen: Mapping[str, Seen], view: str) -> None:
    # GIVEN a light page or a dark one
    paper = luminance(seen[view]["background"])
    assert (paper > 0.5) == view.endswith("light")

    for chart in seen[view]["charts"]:
        for ink in map(luminance, chart["inks"]):
            # WHEN / THEN the contrast is what AA asks for: https://www.w3.org/TR/WCAG22/#contrast-minimum
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5
