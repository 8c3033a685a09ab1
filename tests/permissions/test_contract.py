"""A contract that is not well formed is refused, whatever it says."""

from typing import Any

import pytest

from tests.permissions.contract import Contract, ContractError

PAGE = "https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html"


def contract(**rows: dict[str, Any]) -> Contract:
    """A contract with one row at most of each demand."""
    return Contract(
        {
            "resources": {"bucket": "arn:aws:s3:::bucket", "object": "{bucket}/object"},
            "foreign": {},
            "foreign_account": {},
            "contexts": {},
            **{demand: [rows[demand]] if demand in rows else [] for demand in ("must", "may", "never")},
        }
    )


def row(**changes: Any) -> dict[str, Any]:
    table = {"who": ["Role"], "actions": ["s3:PutObject"], "on": ["{object}"], "source": PAGE, **changes}
    return {key: value for key, value in table.items() if value is not None}


def test_a_table_of_names_becomes_one_row_for_each_combination() -> None:
    # GIVEN a table with two of each
    table = row(who=["A", "B"], actions=["s3:PutObject", "s3:GetObject"], on=["{bucket}", "{object}"])

    # WHEN it is read
    rows = contract(must=table).all_rows

    # THEN there are eight rows, with ARNs
    assert len({str(each) for each in rows}) == 8
    assert {each.resource for each in rows} == {"arn:aws:s3:::bucket", "arn:aws:s3:::bucket/object"}


@pytest.mark.parametrize(
    "changes",
    [
        {"source": None},
        {"source": "https://example.com/iam"},
        {"context": ["by moonlight"]},
        {"encryption": "Rot13"},
        {"becuase": "a typing error"},
        {"who": ["Role", "Role"]},
        {"context": ["*"]},
    ],
    ids=["no page", "a page of somebody else's", "no such context", "no such encryption", "unknown", "twice", "any"],
)
def test_a_must_row_that_is_not_well_formed_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        _ = contract(must=row(**changes)).all_rows


def test_a_may_row_needs_an_argument_and_a_page() -> None:
    with pytest.raises(ContractError):
        _ = contract(may=row()).all_rows
    with pytest.raises(ContractError):
        _ = contract(may=row(why="because", source=None)).all_rows
    assert len(contract(may=row(why="because")).all_rows) == 1


def test_what_must_be_allowed_cannot_be_denied_too() -> None:
    with pytest.raises(ContractError, match="contradict"):
        _ = contract(must=row(), never=row(source=None, why="because")).all_rows


def test_every_row_of_the_projects_contract_is_well_formed_and_of_every_kind() -> None:
    rows = Contract.load().all_rows
    assert {row.demand for row in rows} == {"must", "may", "never"}
    assert {row.encryption for row in rows} == {None, "CustomerKey"}
