"""Readings from a file or from standard input, JSON Lines or CSV: each line is judged by the contract before it goes.

A line that is no acceptable reading stops the sending, with its number and the reason, unless it is to be sent as it
is, for the pipeline to keep it with that reason.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from telemetry_contract import Policy, Reading, Rejection, judge_record
from telemetry_lake.console import OperatorError
from telemetry_lake.readings import Record, partition_key_for

CONTRACT_COLUMNS = ("device_id", "temperature", "timestamp")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Examination:
    """Judges what a file holds.

    Attributes:
        name: the file, for messages.
        policy: the limits of the stack that the readings go to.
        now: gives the UNIX time in seconds, which will be about the time of arrival.
        send_invalid: let pass what the contract rejects.
    """

    name: str
    policy: Policy
    now: Callable[[], float]
    send_invalid: bool = False

    def record(self, data: bytes, line_number: int) -> Record:
        """Return the record that a line makes.

        Raises:
            OperatorError: it is not acceptable, and is not to be sent all the same.
        """
        verdicts = judge_record(data, self.now(), self.policy)
        rejections = [verdict for verdict in verdicts if isinstance(verdict, Rejection)]
        where = f"{self.name}, line {line_number:,}"
        if rejections and not self.send_invalid:
            raise OperatorError(
                f"{where}: {_explanation(rejections[0])}",
                "Mend the line and send the file again: what is stored already is not stored twice. "
                "Or send such lines too, for the pipeline to keep them with the reason: --send-invalid",
            )
        devices = {verdict.identity.device_id for verdict in verdicts if isinstance(verdict, Reading)}
        return Record(
            data,
            partition_key_for(next(iter(devices)) if len(devices) == 1 else None, data),
            fault=rejections[0].reason.value if rejections else None,
            readings=len(verdicts) - len(rejections),
            alone=bool(rejections) or not data.lstrip().startswith(b"{"),
            where=where,
        )

    def refuse(self, line_number: int, problem: str) -> OperatorError:
        """Return the error for a line that is not even a row."""
        return OperatorError(f"{self.name}, line {line_number:,}: {problem}", "Mend the file and send it again.")


def _explanation(rejection: Rejection) -> str:
    detail = rejection.detail
    value = "" if detail.value is None else f" {detail.value}"
    what = "" if detail.field is None else f" ({detail.field}{value})"
    return f"{rejection.reason.value}{what}: {detail.rule}"


def json_lines_records(lines: Iterable[bytes], examination: Examination) -> Iterator[Record]:
    """Yield each line that is not blank as it is.

    Raises:
        OperatorError: a line is not acceptable; it is raised where the line is, after everything before it.
    """
    for number, line in enumerate(lines, start=1):
        data = (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).rstrip(b"\r\n")
        if data.strip():
            yield examination.record(data, number)


def csv_records(lines: Iterable[bytes], examination: Examination) -> Iterator[Record]:
    """Yield the rows of a CSV file with a header line as JSON objects; an empty value is none.

    Values that are JSON numbers become numbers with the same digits, those of ``device_id`` never do.

    Raises:
        OperatorError: the header lacks a column, or a row is broken or not acceptable.
    """
    rows = csv.reader(_decoded(lines, examination), strict=True)
    try:
        header = next(rows, None)
        if header is None:
            return
        _assert_header(header, examination)
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise examination.refuse(rows.line_num, f"{len(row)} values for {len(header)} columns")
            yield examination.record(_json_object(header, row), rows.line_num)
    except csv.Error as error:
        raise examination.refuse(rows.line_num, f"no CSV: {error}") from error


def _decoded(lines: Iterable[bytes], examination: Examination) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            yield (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise examination.refuse(number, f"not UTF-8: {error.reason} at byte {error.start}") from error


def _assert_header(header: list[str], examination: Examination) -> None:
    missing = [name for name in CONTRACT_COLUMNS if name not in header]
    if missing:
        raise examination.refuse(1, f"no column {', '.join(missing)} in the header ({', '.join(header)})")
    if len(set(header)) < len(header):
        raise examination.refuse(1, f"a column twice in the header ({', '.join(header)})")


def _json_object(header: list[str], row: list[str]) -> bytes:
    fields = (
        f"{json.dumps(name, ensure_ascii=False)}: {_json_value(name, value)}"
        for name, value in zip(header, row, strict=True)
        if value
    )
    return f"{{{', '.join(fields)}}}".encode()


def _json_value(name: str, value: str) -> str:
    is_number = name != "device_id" and _JSON_NUMBER.fullmatch(value)
    return value if is_number else json.dumps(value, ensure_ascii=False)
