"""Versions of the catalog's tables through plain boto3."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.unit.local.endpoint_process import EndpointProcess


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    process = EndpointProcess(tmp_path_factory.mktemp("table-versions"))
    process.client("glue").create_database(DatabaseInput={"Name": "lake"})
    yield process
    process.stop()


@pytest.fixture
def glue(endpoint: EndpointProcess) -> Any:
    return endpoint.client("glue")


def versions(glue: Any, table: str) -> list[tuple[str, str]]:
    """Return each version's number and description, as they come."""
    pages = glue.get_paginator("get_table_versions").paginate(
        DatabaseName="lake", TableName=table, PaginationConfig={"PageSize": 2}
    )
    found = [each for page in pages for each in page["TableVersions"]]
    return [(each["VersionId"], each["Table"]["Description"]) for each in found]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_GetTableVersions.html")
@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateTable.html")
@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_DeleteTableVersion.html")
@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_BatchDeleteTableVersion.html")
def test_each_update_keeps_what_was_before_unless_told_not_to(endpoint: EndpointProcess, glue: Any) -> None:
    # GIVEN
    named = {"DatabaseName": "lake", "TableName": "t"}
    glue.create_table(DatabaseName="lake", TableInput={"Name": "t", "Description": "first"})
    for text in ("second", "third", "fourth"):
        glue.update_table(
            DatabaseName="lake", TableInput={"Name": "t", "Description": text}, SkipArchive=text == "third"
        )
    # WHEN / THEN the second was not kept when the third replaced it
    assert versions(glue, "t") == [("3", "fourth"), ("2", "third"), ("0", "first")]
    old = glue.get_table_version(**named, VersionId="0")["TableVersion"]["Table"]
    assert old["Description"] == "first"
    # AND old ones can be deleted, the current one cannot, and what is left survives a restart
    glue.delete_table_version(**named, VersionId="2")
    errors = glue.batch_delete_table_version(**named, VersionIds=["3", "9"])["Errors"]
    assert [each["VersionId"] for each in errors] == ["3", "9"]
    endpoint.stop()
    endpoint.start()
    assert versions(glue, "t") == [("3", "fourth"), ("0", "first")]


@pytest.mark.source("https://docs.aws.amazon.com/glue/latest/webapi/API_GetTableVersions.html")
def test_the_versions_go_with_their_table(glue: Any) -> None:
    # GIVEN
    glue.create_table(DatabaseName="lake", TableInput={"Name": "gone", "Description": "first"})
    glue.update_table(DatabaseName="lake", TableInput={"Name": "gone", "Description": "second"})
    # WHEN
    glue.delete_table(DatabaseName="lake", Name="gone")
    # THEN
    with pytest.raises(ClientError, match="not found"):
        versions(glue, "gone")
    glue.create_table(DatabaseName="lake", TableInput={"Name": "gone", "Description": "anew"})
    assert versions(glue, "gone") == [("0", "anew")]


@pytest.mark.source("https://github.com/floci-io/floci/issues/1205")
def test_an_update_of_a_version_that_is_not_the_newest_is_refused(glue: Any) -> None:
    # GIVEN a table that somebody else has updated meanwhile
    glue.create_table(DatabaseName="lake", TableInput={"Name": "shared", "Description": "first"})
    seen = glue.get_table(DatabaseName="lake", Name="shared")["Table"]["VersionId"]
    glue.update_table(DatabaseName="lake", TableInput={"Name": "shared", "Description": "theirs"}, VersionId=seen)

    # WHEN / THEN
    with pytest.raises(ClientError, match="ConcurrentModificationException"):
        glue.update_table(DatabaseName="lake", TableInput={"Name": "shared", "Description": "ours"}, VersionId=seen)
    assert versions(glue, "shared") == [("1", "theirs"), ("0", "first")]
