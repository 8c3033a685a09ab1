"""The versions of the Glue Data Catalog's tables, which MiniStack does not keep.

https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-catalog-tables.html

Known deviations from AWS:

* A table's number of versions is not limited.
"""

import copy
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.endpoint import Endpoint
from telemetry_lake.local.glue_catalog import CatalogError, Response, add_operations, guarded, without_absent

FIRST_VERSION = "0"
"""As seen on AWS: https://github.com/floci-io/floci/issues/1205"""

MAXIMUM_PAGE_SIZE = 100
MAXIMUM_BATCH_DELETE = 100
_STORE = "telemetry_lake_table_versions"


class TableVersions:
    """What a table was before each of its changes, over MiniStack's own store of tables."""

    def __init__(self, service: ModuleType) -> None:
        self._service = service
        self._tables = seams.require(service, "_tables")
        # A store of MiniStack's own kind, so that it is kept with the others when the endpoint stops.
        self._versions: Any = seams.require(service, "AccountRegionScopedDict")()
        seams.require(service, "_ALL_STATE")[_STORE] = self._versions

    def install(self) -> None:
        """Keep versions from now on, and answer the operations on them."""
        for name in ("_create_table", "_update_table", "_delete_table", "_batch_delete_table"):
            self._watch(name)
        add_operations(
            self._service,
            {
                "GetTableVersions": guarded(self.get_table_versions),
                "GetTableVersion": guarded(self.get_table_version),
                "DeleteTableVersion": guarded(self.delete_table_version),
                "BatchDeleteTableVersion": guarded(self.batch_delete_table_version),
            },
        )

    def _watch(self, name: str) -> None:
        """Number a new table, keep the version that an update replaces, and forget those of a table that is gone."""
        original: Callable[[dict[str, Any]], Response] = seams.require(self._service, name)

        def changed(request: dict[str, Any]) -> Response:
            key = f"{request.get('DatabaseName')}/{request.get('TableInput', {}).get('Name')}"
            before = copy.deepcopy(self._tables.get(key))
            answer = original(request)
            after = self._tables.get(key)
            if after and not before:
                after["VersionId"] = FIRST_VERSION
            if before and after and before["VersionId"] != after["VersionId"] and not request.get("SkipArchive"):
                self._versions[key] = [*self._versions.get(key, []), before]
            for gone in [known for known in self._versions if known not in self._tables]:
                del self._versions[gone]
            return answer

        seams.replace(self._service, name, changed)

    def _all(self, request: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
        """Return the table's key and its versions, the newest, which is the table itself, first."""
        key = f"{request.get('DatabaseName')}/{request.get('TableName')}"
        table = self._tables.get(key)
        if table is None:
            raise CatalogError("EntityNotFoundException", f"Table {request.get('TableName')} not found.")
        return key, [table, *reversed(self._versions.get(key, []))]

    def get_table_versions(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetTableVersions, the newest first."""
        _, versions = self._all(request)
        start = int(request.get("NextToken") or 0)
        end = start + min(int(request.get("MaxResults") or MAXIMUM_PAGE_SIZE), MAXIMUM_PAGE_SIZE)
        page = [_version(table) for table in versions[start:end]]
        return {"TableVersions": page, **({"NextToken": str(end)} if end < len(versions) else {})}

    def get_table_version(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetTableVersion; without a number it is the current one."""
        _, versions = self._all(request)
        wanted = request.get("VersionId", versions[0]["VersionId"])
        for table in versions:
            if table["VersionId"] == wanted:
                return {"TableVersion": _version(table)}
        raise CatalogError("EntityNotFoundException", f"Version {wanted} of the table is not found.")

    def delete_table_version(self, request: dict[str, Any]) -> dict[str, Any]:
        """DeleteTableVersion, of an old one."""
        self._delete(request, request["VersionId"])
        return {}

    def batch_delete_table_version(self, request: dict[str, Any]) -> dict[str, Any]:
        """BatchDeleteTableVersion: what cannot be deleted is in ``Errors``."""
        errors = []
        for version in request["VersionIds"][:MAXIMUM_BATCH_DELETE]:
            try:
                self._delete(request, version)
            except CatalogError as error:
                detail = {"ErrorCode": error.code, "ErrorMessage": str(error)}
                errors.append({"TableName": request["TableName"], "VersionId": version, "ErrorDetail": detail})
        return {"Errors": errors}

    def _delete(self, request: Mapping[str, Any], version: str) -> None:
        key, versions = self._all(request)
        if version == versions[0]["VersionId"]:
            raise CatalogError("InvalidInputException", "The current version of a table cannot be deleted.")
        known = self._versions.get(key, [])
        kept = [table for table in known if table["VersionId"] != version]
        if len(kept) == len(known):
            raise CatalogError("EntityNotFoundException", f"Version {version} of the table is not found.")
        self._versions[key] = kept


def _version(table: Mapping[str, Any]) -> dict[str, Any]:
    return {"Table": without_absent(table), "VersionId": table["VersionId"]}


def install(_endpoint: Endpoint) -> None:
    """Let MiniStack's catalog keep versions."""
    from ministack.services import glue

    TableVersions(glue).install()
