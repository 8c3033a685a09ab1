"""The page for device makers says what the contract does today."""

from telemetry_contract import Reason
from telemetry_lake.contract_document import EXAMPLES, document
from tests.judging import REPOSITORY


def test_the_page_is_as_it_would_be_written_now() -> None:
    assert (REPOSITORY / "docs" / "contract.md").read_text("utf-8") == document(), "write it anew: make contract"


def test_each_reason_has_an_example_apart_from_the_one_that_no_record_has() -> None:
    assert {example.reason for example in EXAMPLES} == set(Reason) - {Reason.INTERNAL_ERROR}
