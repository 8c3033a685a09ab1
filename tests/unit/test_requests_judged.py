"""No request of the functions or of the commands escapes the judge: each that the code can make has been made."""

import pytest

from tests.contracts.calls import calls_of
from tests.contracts.plugin import recorder


@pytest.mark.after_all_of_its_layer
def test_every_call_that_the_code_can_make_was_judged_in_the_unit_tests() -> None:
    # GIVEN the calls in the source, each with its file
    calls = calls_of("functions", "telemetry_lake")
    assert len(calls) >= 20

    # WHEN / THEN
    assert sorted(calls - recorder.requests) == []
