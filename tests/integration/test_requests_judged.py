"""No request of the job escapes the judge: each that the script can make has been made."""

import pytest

from tests.contracts.calls import calls_of
from tests.contracts.plugin import recorder


@pytest.mark.after_all_of_its_layer
def test_every_call_that_the_script_can_make_was_judged() -> None:
    # GIVEN the calls in the script
    calls = calls_of("glue")
    assert len(calls) >= 7

    # WHEN / THEN
    assert sorted(calls - recorder.requests) == []
