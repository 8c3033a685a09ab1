"""The catalog's operations: expressions one by one, and the running service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from telemetry_lake.local.glue_catalog import ExpressionError, PartitionFilter, segment_of
from tests.unit.local.endpoint_process import ACCOUNT, REGION, EndpointProcess

KEYS = [{"Name": "year", "Type": "int"}, {"Name": "city", "Type": "string"}, {"Name": "on", "Type": "date"}]
VALUES = ["2025", "it's Kyoto", "2025-10-15"]


# --- expressions: https://docs.aws.amazon.com/glue/latest/webapi/API_GetPartitions.html -------------------------------


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_GetPartitions.html")
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("year = 2025", True),
        ("year = '2025'", True),
        ("YEAR=2025", True),
        ("2024 < year", True),
        ("year <> 2025", False),
        ("year != 2024", True),
        ("year > 999", True),  # as numbers: as text it would not be
        ("year >= 2026", False),
        ("year <= 2025 AND year < 2026", True),
        ("year = -2025", False),
        ("city = 'it''s Kyoto'", True),
        ("city > 'iz'", False),
        ("city LIKE 'it_s K%'", True),
        ("city LIKE 'Kyoto'", False),
        ("\"city\" = 'x' OR year IN (2024, 2025)", True),
        ("year NOT IN (2024, 2025)", False),
        ("year BETWEEN 2025 AND 2026", True),
        ("NOT (year = 2025)", False),
        ("(year = 2024 OR year = 2025) AND city IS NOT NULL", True),
        ("city IS NULL", False),
        ("\"on\" = DATE '2025-10-15'", True),
        ("\"on\" < '2025-10-16'", True),
        ("((year = 2025) AND (city >= 'a'))", True),
    ],
)
def test_expression(expression: str, expected: bool) -> None:
    assert PartitionFilter(expression, KEYS).matches(VALUES) is expected


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_GetPartitions.html")
@pytest.mark.parametrize("expression", ["year = 2025", "NOT (year = 2025)", "year IN (2025)", "year <> 1", "year > 0"])
def test_null_partition_is_neither_equal_nor_unequal(expression: str) -> None:
    assert PartitionFilter(expression, KEYS).matches(["__HIVE_DEFAULT_PARTITION__", "x", "2025-10-15"]) is False


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_GetPartitions.html")
@pytest.mark.parametrize(
    "expression",
    ["temperature > 3", "year = ", "year = 'soon'", "upper(city) = 'X'", "year + 1 = 2026", "city IN (SELECT 1)"],
)
def test_expression_that_is_not_modelled_is_refused(expression: str) -> None:
    with pytest.raises(ExpressionError):
        PartitionFilter(expression, KEYS)


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_Segment.html")
def test_each_partition_is_in_one_segment() -> None:
    segments = [segment_of([str(day)], 4) for day in range(100)]
    assert set(segments) == {0, 1, 2, 3}


# --- the running service ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    endpoint = EndpointProcess(tmp_path_factory.mktemp("catalog"))
    client = endpoint.client("glue")
    client.create_database(DatabaseInput={"Name": "lake"})
    yield client
    endpoint.stop()


@pytest.fixture
def table(glue: Any, request: pytest.FixtureRequest) -> dict[str, str]:
    name = request.node.name.split("[")[0]
    glue.create_table(
        DatabaseName="lake",
        TableInput={
            "Name": name,
            "StorageDescriptor": {"Location": "s3://lake/t/", "Columns": [{"Name": "a", "Type": "string"}]},
            "PartitionKeys": [{"Name": "year", "Type": "int"}, {"Name": "day", "Type": "int"}],
        },
    )
    return {"DatabaseName": "lake", "TableName": name}


def partition(*values: str) -> dict[str, Any]:
    return {"Values": list(values), "StorageDescriptor": {"Columns": [{"Name": "a", "Type": "string"}]}}


def values_of(answer: dict[str, Any]) -> list[list[str]]:
    return [found["Values"] for found in answer["Partitions"]]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_GetPartitions.html")
def test_partitions_are_found_by_expression_in_pages(glue: Any, table: dict[str, str]) -> None:
    # GIVEN
    inputs = [partition("2025", str(day)) for day in range(1, 31)]
    assert glue.batch_create_partition(**table, PartitionInputList=inputs)["Errors"] == []

    # WHEN
    pages = list(
        glue.get_paginator("get_partitions").paginate(
            **table, Expression="year = 2025 AND day > 9", PaginationConfig={"PageSize": 10}
        )
    )

    # THEN
    assert [len(page["Partitions"]) for page in pages] == [10, 10, 1]
    assert [values for page in pages for values in values_of(page)] == [["2025", str(day)] for day in range(10, 31)]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_Segment.html")
def test_segments_share_the_partitions_out(glue: Any, table: dict[str, str]) -> None:
    # GIVEN
    inputs = [partition("2025", str(day)) for day in range(1, 31)]
    glue.batch_create_partition(**table, PartitionInputList=inputs)

    # WHEN
    segments = [
        values_of(glue.get_partitions(**table, Segment={"SegmentNumber": number, "TotalSegments": 3}))
        for number in range(3)
    ]

    # THEN
    assert sorted(int(day) for segment in segments for _, day in segment) == list(range(1, 31))


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_GetPartitions.html")
def test_columns_are_left_out_on_request(glue: Any, table: dict[str, str]) -> None:
    glue.create_partition(**table, PartitionInput=partition("2025", "1"))
    found = glue.get_partitions(**table, ExcludeColumnSchema=True)["Partitions"][0]
    assert "Columns" not in found["StorageDescriptor"]
    assert "Columns" in glue.get_partitions(**table)["Partitions"][0]["StorageDescriptor"]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_BatchGetPartition.html")
@pytest.mark.source("https://github.com/trinodb/trino/pull/10696")
def test_batch_get_leaves_out_what_does_not_exist(glue: Any, table: dict[str, str]) -> None:
    # https://github.com/getmoto/moto/pull/2320
    # GIVEN
    glue.create_partition(**table, PartitionInput=partition("2025", "1"))

    # WHEN
    answer = glue.batch_get_partition(**table, PartitionsToGet=[{"Values": ["2025", "1"]}, {"Values": ["2025", "2"]}])

    # THEN
    assert values_of(answer) == [["2025", "1"]]
    assert answer["UnprocessedKeys"] == []


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_BatchCreatePartition.html")
def test_batch_create_reports_those_that_exist_and_adds_the_others(glue: Any, table: dict[str, str]) -> None:
    # GIVEN
    glue.create_partition(**table, PartitionInput=partition("2025", "1"))

    # WHEN
    errors = glue.batch_create_partition(
        **table, PartitionInputList=[partition("2025", "1"), partition("2025", "2"), partition("2025", "2")]
    )["Errors"]

    # THEN
    assert [(error["PartitionValues"], error["ErrorDetail"]["ErrorCode"]) for error in errors] == [
        (["2025", "1"], "AlreadyExistsException"),
        (["2025", "2"], "AlreadyExistsException"),
    ]
    assert values_of(glue.get_partitions(**table)) == [["2025", "1"], ["2025", "2"]]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_UpdatePartition.html")
@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_BatchDeletePartition.html")
def test_update_and_delete(glue: Any, table: dict[str, str]) -> None:
    # GIVEN
    glue.batch_create_partition(**table, PartitionInputList=[partition("2025", str(day)) for day in (1, 2, 3)])

    # WHEN
    moved = {"Values": ["2025", "1"], "StorageDescriptor": {"Location": "s3://lake/elsewhere/"}}
    glue.update_partition(**table, PartitionValueList=["2025", "1"], PartitionInput=moved)
    asked = [{"Values": ["2025", "2"]}, {"Values": ["2025", "9"]}]
    errors = glue.batch_delete_partition(**table, PartitionsToDelete=asked)["Errors"]

    # THEN
    assert [error["PartitionValues"] for error in errors] == [["2025", "9"]]
    left = glue.get_partitions(**table)
    assert values_of(left) == [["2025", "1"], ["2025", "3"]]
    assert left["Partitions"][0]["StorageDescriptor"]["Location"] == "s3://lake/elsewhere/"


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_BatchUpdatePartition.html")
def test_batch_update_changes_what_it_can_and_reports_the_rest(glue: Any, table: dict[str, str]) -> None:
    # GIVEN
    glue.batch_create_partition(**table, PartitionInputList=[partition("2025", str(day)) for day in (1, 2, 3)])
    created = glue.get_partition(**table, PartitionValues=["2025", "1"])["Partition"]["CreationTime"]
    changes = [
        (["2025", "1"], ["2025", "4"]),  # moves
        (["2025", "2"], ["2025", "3"]),  # to where another one is
        (["2025", "3"], ["2025"]),  # a value too few
        (["2025", "9"], ["2025", "9"]),  # there is none
    ]

    # WHEN
    entries = [{"PartitionValueList": old, "PartitionInput": {"Values": new}} for old, new in changes]
    errors = glue.batch_update_partition(**table, Entries=entries)["Errors"]

    # THEN
    assert [(error["PartitionValueList"], error["ErrorDetail"]["ErrorCode"]) for error in errors] == [
        (["2025", "2"], "AlreadyExistsException"),
        (["2025", "3"], "InvalidInputException"),
        (["2025", "9"], "EntityNotFoundException"),
    ]
    assert values_of(glue.get_partitions(**table)) == [["2025", "4"], ["2025", "2"], ["2025", "3"]]
    moved = glue.get_partition(**table, PartitionValues=["2025", "4"])["Partition"]
    assert moved["CreationTime"] == created
    assert "StorageDescriptor" not in moved


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_BatchUpdatePartition.html")
def test_batch_update_needs_the_table(glue: Any) -> None:
    entry = {"PartitionValueList": ["1"], "PartitionInput": {"Values": ["1"]}}
    with pytest.raises(glue.exceptions.EntityNotFoundException):
        glue.batch_update_partition(DatabaseName="lake", TableName="nowhere", Entries=[entry])


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-catalog-partitions.html")
@pytest.mark.parametrize(
    ("operation", "arguments", "code"),
    [
        ("create_partition", {"PartitionInput": partition("2025")}, "InvalidInputException"),
        ("get_partitions", {"Expression": "nothing = 1"}, "InvalidInputException"),
        ("delete_partition", {"PartitionValues": ["1", "1"]}, "EntityNotFoundException"),
        pytest.param(
            "batch_create_partition",
            {"PartitionInputList": [partition("1", str(n)) for n in range(101)]},
            "ValidationException",
            marks=pytest.mark.bad_requests,
        ),
        pytest.param(
            "batch_update_partition",
            {
                "Entries": [
                    {"PartitionValueList": ["1", str(n)], "PartitionInput": partition("1", str(n))} for n in range(101)
                ]
            },
            "ValidationException",
            marks=pytest.mark.bad_requests,
        ),
    ],
)
def test_refusals(glue: Any, operation: str, arguments: dict[str, Any], code: str) -> None:
    # GIVEN
    names = {"DatabaseName": "lake", "TableName": "refusing"}
    if not [known for known in glue.get_tables(DatabaseName="lake")["TableList"] if known["Name"] == "refusing"]:
        keys = [{"Name": "year", "Type": "int"}, {"Name": "day", "Type": "int"}]
        glue.create_table(DatabaseName="lake", TableInput={"Name": "refusing", "PartitionKeys": keys})

    # WHEN
    with pytest.raises(ClientError) as refused:
        getattr(glue, operation)(**names, **arguments)

    # THEN
    assert refused.value.response["Error"]["Code"] == code


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_GetPartitions.html")
def test_table_that_does_not_exist_has_no_partitions(glue: Any) -> None:
    with pytest.raises(glue.exceptions.EntityNotFoundException):
        glue.get_partitions(DatabaseName="lake", TableName="nowhere")


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_Table.html")
def test_description_that_nobody_wrote_is_absent(glue: Any, table: dict[str, str]) -> None:
    found = glue.get_table(DatabaseName="lake", Name=table["TableName"])["Table"]
    assert "Description" not in found
    assert "Description" not in glue.get_database(Name="lake")["Database"]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateTable.html")
def test_update_overwrites_the_whole_definition_of_a_table(glue: Any, table: dict[str, str]) -> None:
    # GIVEN a table with everything, and a bare one
    name = table["TableName"]
    glue.update_table(
        DatabaseName="lake",
        TableInput={
            "Name": name,
            "Description": "d",
            "Owner": "o",
            "StorageDescriptor": {"Location": "s3://lake/t/"},
            "PartitionKeys": [{"Name": "year", "Type": "int"}],
            "TableType": "VIRTUAL_VIEW",
            "Parameters": {"a": "1"},
            "ViewOriginalText": "v",
            "ViewExpandedText": "v",
        },
    )
    before = glue.get_table(DatabaseName="lake", Name=name)["Table"]
    glue.create_table(DatabaseName="lake", TableInput={"Name": f"{name}-bare"})

    # WHEN
    glue.update_table(DatabaseName="lake", TableInput={"Name": name})

    # THEN only its name and the time of its creation are left
    after, bare = (glue.get_table(DatabaseName="lake", Name=each)["Table"] for each in (name, f"{name}-bare"))
    own = {"Name", "CreateTime", "UpdateTime", "LastAccessTime", "VersionId"}
    assert {key: after[key] for key in after if key not in own} == {key: bare[key] for key in bare if key not in own}
    assert (after["Name"], after["CreateTime"]) == (name, before["CreateTime"])


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateDatabase.html")
def test_update_overwrites_the_whole_definition_of_a_database(glue: Any) -> None:
    # GIVEN
    definition = {"Name": "told", "Description": "d", "LocationUri": "s3://lake/", "Parameters": {"a": "1"}}
    glue.create_database(DatabaseInput=definition, Tags={"team": "lake"})
    glue.create_table(DatabaseName="told", TableInput={"Name": "t"})
    before = glue.get_database(Name="told")["Database"]

    # WHEN
    glue.update_database(Name="told", DatabaseInput={"Name": "told", "Parameters": {"b": "2"}})

    # THEN
    after = glue.get_database(Name="told")["Database"]
    assert after == {**{key: before[key] for key in ("Name", "CreateTime", "CatalogId")}, "Parameters": {"b": "2"}}
    assert glue.get_table(DatabaseName="told", Name="t")["Table"]["Name"] == "t"
    arn = f"arn:aws:glue:{REGION}:{ACCOUNT}:database/told"
    assert glue.get_tags(ResourceArn=arn)["Tags"] == {"team": "lake"}


# --- searches ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(glue: Any) -> Any:
    glue.create_database(DatabaseInput={"Name": "searched"})
    tables: tuple[dict[str, Any], ...] = (
        {
            "Name": "customer-link",
            "Description": "Who bought what",
            "Owner": "sales",
            "StorageDescriptor": {"Columns": [{"Name": "price", "Type": "double", "Comment": "in Yen"}]},
        },
        {"Name": "xx-link-yy", "Parameters": {"classification": "parquet"}},
        {"Name": "xxlinkyy", "PartitionKeys": [{"Name": "harvest_year", "Type": "int"}], "Owner": "farm"},
    )
    for table_input in tables:
        glue.create_table(DatabaseName="searched", TableInput=table_input)
    return glue


def names_of(answer: dict[str, Any]) -> list[str]:
    return [table["Name"] for table in answer["TableList"] if table["DatabaseName"] == "searched"]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_SearchTables.html")
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("link", ["customer-link", "xx-link-yy", "xxlinkyy"]),
        ("BOUGHT", ["customer-link"]),
        ("pric", ["customer-link"]),
        ("in Yen", ["customer-link"]),
        ("harvest", ["xxlinkyy"]),
        ("parquet", ["xx-link-yy"]),
        ("classification", ["xx-link-yy"]),
        ("searched", ["customer-link", "xx-link-yy", "xxlinkyy"]),
        ('"link"', []),
        ('"xxlinkyy"', ["xxlinkyy"]),
        ("'price'", ["customer-link"]),
        ("nowhere", []),
    ],
)
def test_tables_are_found_by_text(searched: Any, text: str, names: list[str]) -> None:
    assert names_of(searched.search_tables(SearchText=text)) == names


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_SearchTables.html")
@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_PropertyPredicate.html")
@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ([("Name", "link", None)], ["customer-link", "xx-link-yy"]),  # the example of AWS
        ([("Name", "xx-link-yy", None)], ["xx-link-yy"]),
        ([("Name", "link", None), ("Owner", "sales", None)], ["customer-link"]),
        ([("Name", "lin", None)], []),
        ([("DatabaseName", "searched", None), ("Description", "bought", None)], ["customer-link"]),
        ([("CreateTime", "2020-01-01", "GREATER_THAN")], ["customer-link", "xx-link-yy", "xxlinkyy"]),
        ([("CreateTime", "2020-01-01T00:00:00+09:00", "LESS_THAN_EQUALS")], []),
        ([("UpdateTime", "2020-01-01", None)], []),
    ],
)
def test_tables_are_found_by_filters(
    searched: Any, filters: list[tuple[str, str, str | None]], names: list[str]
) -> None:
    given = [
        {"Key": key, "Value": value, **({"Comparator": comparator} if comparator else {})}
        for key, value, comparator in filters
    ]
    assert names_of(searched.search_tables(Filters=given)) == names


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_SearchTables.html")
@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_SortCriterion.html")
def test_found_tables_come_sorted_and_in_pages(searched: Any) -> None:
    # GIVEN
    search = {"SearchText": "searched", "MaxResults": 2, "SortCriteria": [{"FieldName": "Name", "Sort": "DESC"}]}

    # WHEN
    first = searched.search_tables(**search)
    second = searched.search_tables(**search, NextToken=first["NextToken"])

    # THEN
    assert names_of(first) == ["xxlinkyy", "xx-link-yy"]
    assert names_of(second) == ["customer-link"]
    assert "NextToken" not in second
    assert "Description" not in first["TableList"][0]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_SearchTables.html")
def test_no_tables_are_shared_with_the_account(searched: Any) -> None:
    assert searched.search_tables(SearchText="searched", ResourceShareType="FOREIGN")["TableList"] == []
    assert len(searched.search_tables(SearchText="searched", ResourceShareType="ALL")["TableList"]) == 3


@pytest.mark.own_machinery("what this endpoint does not model is refused by name")
@pytest.mark.parametrize(
    "search",
    [
        {"Filters": [{"Key": "classification", "Value": "parquet"}]},
        {"Filters": [{"Key": "CreateTime", "Value": "yesterday"}]},
        {"SortCriteria": [{"FieldName": "Size", "Sort": "ASC"}]},
    ],
)
def test_search_that_is_not_modelled_is_refused(glue: Any, search: dict[str, Any]) -> None:
    with pytest.raises(glue.exceptions.InvalidInputException):
        glue.search_tables(**search)


@pytest.mark.own_machinery("what was acknowledged is there after a restart of the endpoint")
def test_partitions_survive_a_restart(tmp_path: Path) -> None:
    # GIVEN
    endpoint = EndpointProcess(tmp_path)
    glue = endpoint.client("glue")
    glue.create_database(DatabaseInput={"Name": "lake"})
    keys = [{"Name": "day", "Type": "int"}]
    glue.create_table(DatabaseName="lake", TableInput={"Name": "t", "PartitionKeys": keys})
    glue.create_partition(DatabaseName="lake", TableName="t", PartitionInput=partition("1"))

    # WHEN
    endpoint.stop()
    endpoint.start()

    # THEN
    try:
        assert values_of(endpoint.client("glue").get_partitions(DatabaseName="lake", TableName="t")) == [["1"]]
    finally:
        endpoint.stop()
