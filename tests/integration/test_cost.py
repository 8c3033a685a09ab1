"""What a batch costs: the endpoint's access log tells the requests and the bytes of a run, by whichever client."""

from collections import Counter
from collections.abc import Callable

from tests.counted_endpoint import CountedEndpoint, Request
from tests.integration.conftest import Run, reading

LAST_DAY = 1_760_486_400  # 2025-10-15T00:00:00Z
DAY_SECONDS = 86_400
TABLE_PREFIX = "curated/device_telemetry/"


def cost_of_batch(counted: CountedEndpoint, run: Run, days: int) -> list[Request]:
    """The requests on a table of so many days that a batch of the last two days makes, half of it stored already."""
    stored = [reading("a", n, LAST_DAY - day * DAY_SECONDS + n) for day in range(days) for n in range(20)]
    lake = run.lake
    lake.put_lines("stored.gz", stored)
    run("jr_1")
    new = [reading("b", n, LAST_DAY - day * DAY_SECONDS + n) for day in range(2) for n in range(20)]
    lake.put_lines("batch.gz", [*stored[:40], *new])
    with counted.counting() as requests:
        summary = run("jr_2")
    assert summary["counts"] == {"lines": 80, "new": 40, "duplicate": 40, "rejected": 0}
    assert len(lake.keys(TABLE_PREFIX)) == days + 2
    return [request for request in requests if request.is_on(lake.analytics, TABLE_PREFIX)]


def object_bytes(requests: list[Request]) -> int:
    return sum(request.answered_bytes for request in requests if "prefix=" not in request.query)


def test_a_batch_makes_the_same_requests_on_a_table_of_many_days_as_on_one_of_few(
    counted: CountedEndpoint, new_run: Callable[[], Run]
) -> None:
    # GIVEN a table of 3 days, and one of 40 days in two months
    few, many = new_run(), new_run()

    # WHEN the same batch is loaded into both
    cost_few, cost_many = cost_of_batch(counted, few, 3), cost_of_batch(counted, many, 40)

    # THEN it makes the same requests on either table, and reads as much from its files
    assert Counter(request.method for request in cost_many) == Counter(request.method for request in cost_few)
    assert {"GET", "PUT"} <= {request.method for request in cost_few}
    assert 0 < object_bytes(cost_many) <= 1.1 * object_bytes(cost_few)
    # THEN no folder was looked into that the batch has no reading of
    untouched = "month=9/"
    assert not [request for request in cost_many if untouched in request.path or untouched in request.query]
