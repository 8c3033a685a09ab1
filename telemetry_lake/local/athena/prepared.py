"""Prepared statements: the API and ``PREPARE``, ``EXECUTE`` and ``DEALLOCATE PREPARE`` have one store.

https://docs.aws.amazon.com/athena/latest/ug/querying-with-prepared-statements.html
"""

import re
import time
from collections.abc import Mapping
from typing import Any

from telemetry_lake.local import seams
from telemetry_lake.local.athena.errors import InvalidRequestError, ResourceNotFoundError

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_@:]{1,256}")
_BATCH_GET = 50


class PreparedStatements:
    """The prepared statements of all workgroups.

    https://docs.aws.amazon.com/athena/latest/APIReference/API_PreparedStatement.html
    """

    def __init__(self) -> None:
        from ministack.services import athena

        self._athena = athena

    @property
    def _statements(self) -> Any:
        return seams.require(self._athena, "_prepared_statements")

    def put(self, workgroup: str, name: str, sql: str, description: str = "") -> None:
        """Keep a statement; one of that name is replaced.

        Raises:
            InvalidRequestError: the name is not one.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequestError(f"Invalid prepared statement name: {name}")
        self._statements[_key(workgroup, name)] = {
            "StatementName": name,
            "WorkGroupName": workgroup,
            "QueryStatement": sql,
            **({"Description": description} if description else {}),
            "LastModifiedTime": round(time.time(), 3),
        }

    def sql(self, workgroup: str, name: str) -> str:
        """Return the text of a statement.

        Raises:
            ResourceNotFoundError: the workgroup has none of that name.
        """
        return str(self._get(workgroup, name)["QueryStatement"])

    def drop(self, workgroup: str, name: str) -> None:
        """Forget a statement.

        Raises:
            ResourceNotFoundError: the workgroup has none of that name.
        """
        self._get(workgroup, name)
        del self._statements[_key(workgroup, name)]

    def _get(self, workgroup: str, name: str) -> Mapping[str, Any]:
        known: Mapping[str, Any] | None = self._statements.get(_key(workgroup, name))
        if known is None:
            raise ResourceNotFoundError(f"PreparedStatement {name} was not found in workGroup {workgroup}", name)
        return known

    # -- API ----------------------------------------------------------------------------------------------------------

    def create(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """CreatePreparedStatement."""
        workgroup, name = data["WorkGroup"], data["StatementName"]
        if _key(workgroup, name) in self._statements:
            raise InvalidRequestError(f"Prepared Statement {name} already exists in WorkGroup {workgroup}")
        self.put(workgroup, name, data["QueryStatement"], data.get("Description", ""))
        return {}

    def update(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """UpdatePreparedStatement."""
        self._get(data["WorkGroup"], data["StatementName"])
        self.put(data["WorkGroup"], data["StatementName"], data["QueryStatement"], data.get("Description", ""))
        return {}

    def get(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """GetPreparedStatement."""
        return {"PreparedStatement": dict(self._get(data["WorkGroup"], data["StatementName"]))}

    def delete(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """DeletePreparedStatement."""
        self.drop(data["WorkGroup"], data["StatementName"])
        return {}

    def batch_get(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """BatchGetPreparedStatement."""
        names = data["PreparedStatementNames"]
        if len(names) > _BATCH_GET:
            raise InvalidRequestError(f"At most {_BATCH_GET} names can be asked for at once")
        found, missing = [], []
        for name in names:
            try:
                found.append(dict(self._get(data["WorkGroup"], name)))
            except ResourceNotFoundError as error:
                missing.append(
                    {"StatementName": name, "ErrorCode": "STATEMENT_NOT_FOUND", "ErrorMessage": error.message}
                )
        return {"PreparedStatements": found, "UnprocessedPreparedStatementNames": missing}


def _key(workgroup: str, name: str) -> str:
    return f"{workgroup}/{name}"
