"""How a query fails: the error names of Trino and the numbers that Athena gives them."""

from dataclasses import dataclass

_SYSTEM, _USER = 1, 2

# Error types by error name (https://docs.aws.amazon.com/athena/latest/ug/error-reference.html lists the numbers,
# the names they belong to are observations). Names that are not listed are 1000, "user error".
_ERROR_TYPES = {
    "TABLE_NOT_FOUND": 1301,
    "SCHEMA_NOT_FOUND": 1301,
    "COLUMN_NOT_FOUND": 1006,
    "CATALOG_NOT_FOUND": 1006,
    "TYPE_MISMATCH": 1002,
    "FUNCTION_NOT_FOUND": 1303,
    "DIVISION_BY_ZERO": 1001,
    "INVALID_CAST_ARGUMENT": 1100,
    "NOT_SUPPORTED": 1200,
    "HIVE_BAD_DATA": 1001,
    "HIVE_CURSOR_ERROR": 1001,
}
_SYSTEM_ERROR_TYPES = {"GENERIC_INTERNAL_ERROR": 200, "QUERY_RESULT_WRITE_ERROR": 401}


@dataclass
class QueryFailedError(Exception):
    """A query ends as FAILED.

    Attributes:
        name: Trino's name of the error, for example ``COLUMN_NOT_FOUND``; empty when Athena shows the text alone.
        text: what Athena says after the name.
    """

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" if self.name else self.text

    def athena_error(self) -> dict[str, object]:
        """Return the AthenaError structure.

        https://docs.aws.amazon.com/athena/latest/APIReference/API_AthenaError.html
        """
        is_system = self.name in _SYSTEM_ERROR_TYPES
        return {
            "ErrorCategory": _SYSTEM if is_system else _USER,
            "ErrorType": _SYSTEM_ERROR_TYPES.get(self.name, _ERROR_TYPES.get(self.name, 1000)),
            "ErrorMessage": str(self),
            "Retryable": is_system,
        }


class QueryCancelledError(Exception):
    """A query ends as CANCELLED: its text is the reason."""


class InvalidRequestError(Exception):
    """A call is refused with InvalidRequestException.

    https://docs.aws.amazon.com/athena/latest/APIReference/API_InvalidRequestException.html
    """

    def __init__(self, message: str, athena_error_code: str = "INVALID_INPUT") -> None:
        super().__init__(message)
        self.message = message
        self.athena_error_code = athena_error_code


class ResourceNotFoundError(InvalidRequestError):
    """A call names something that does not exist: ResourceNotFoundException.

    https://docs.aws.amazon.com/athena/latest/APIReference/API_ResourceNotFoundException.html
    """

    def __init__(self, message: str, resource_name: str) -> None:
        super().__init__(message)
        self.resource_name = resource_name


def position(sql: str, offset: int) -> str:
    """Return Trino's ``line 1:15`` of an offset into the statement (both counted from 1)."""
    line_start = sql.rfind("\n", 0, offset) + 1
    return f"line {sql.count(chr(10), 0, offset) + 1}:{offset - line_start + 1}"
