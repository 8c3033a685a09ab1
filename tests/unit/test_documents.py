"""What the documents say in figures is what the data files say."""

import tomllib
from datetime import date
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PRICES = tomllib.loads((PROJECT / "telemetry_lake" / "prices.toml").read_text())


def value(name: str) -> float:
    return float(PRICES[name]["value"])


def test_every_price_has_a_source_and_a_date() -> None:
    for name, price in PRICES.items():
        assert price["source"].startswith("https://"), name
        assert isinstance(price["read"], date), name
        assert price["unit"], name


def test_the_costs_of_the_first_deployment_follow_from_the_prices() -> None:
    # GIVEN the prices
    dpu_second = value("glue_dpu_hour") / 3600
    run = dpu_second * value("glue_job_minimum_dpu") * value("glue_job_minimum_seconds")
    crawl = dpu_second * value("glue_job_minimum_dpu") * value("glue_crawl_minimum_seconds")
    query = value("athena_terabyte") * value("athena_query_minimum_megabytes") / 1_000_000

    # THEN the document's figures are these
    text = " ".join((PROJECT / "docs" / "fidelity.md").read_text().split())
    for figure in (
        f"${run:.4f}",
        f"${24 * run:.2f} a day",
        f"with its load ${2 * run:.2f}",
        f"${crawl:.2f} with two DPUs",
        f"${query:.5f}",
    ):
        assert figure in text, figure
    assert 12 * run + 2 * crawl < 1
