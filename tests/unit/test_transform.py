"""The transform: Firehose's event in, its answer out, nothing dropped before it is stored."""

import base64
import gzip
import importlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from telemetry_contract import Policy, judge, split_record
from transform.logic import MAX_ELEMENTS, BatchPlan, plan_batch
from transform.settings import Settings

ARRIVED_AT_MILLISECONDS = 1_792_034_100_123
NOW = datetime(2026, 11, 1, tzinfo=UTC)
BUCKET = "analytics"

LoadHandler = Callable[[str], ModuleType]


def line(device_id: str = "sensor-1", temperature: Any = 21.5, **others: Any) -> bytes:
    fields = {"device_id": device_id, "temperature": temperature, "timestamp": 1_792_034_000, **others}
    return json.dumps(fields).encode()


def stream_record(number: int, data: bytes) -> dict[str, Any]:
    return {
        "recordId": f"record-{number}",
        "approximateArrivalTimestamp": ARRIVED_AT_MILLISECONDS + 5_000,
        "data": base64.b64encode(data).decode(),
        "kinesisRecordMetadata": {
            "shardId": "shardId-000000000000",
            "partitionKey": f"key-{number}",
            "sequenceNumber": f"4966{number:04d}",
            "subsequenceNumber": 0,
            "approximateArrivalTimestamp": ARRIVED_AT_MILLISECONDS + number,
        },
    }


def direct_record(record_id: str, data: bytes) -> dict[str, Any]:
    return {
        "recordId": record_id,
        "approximateArrivalTimestamp": ARRIVED_AT_MILLISECONDS,
        "data": base64.b64encode(data).decode(),
    }


def plan(*records: dict[str, Any], **arguments: Any) -> BatchPlan:
    arguments = {"policy": Policy(), "dead_letter_prefix": "dlq/raw_json/", "now": NOW, **arguments}
    return plan_batch({"records": list(records)}, **arguments)


def results(answer: dict[str, Any]) -> list[str]:
    return [record["result"] for record in answer["records"]]


def delivered(answer: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(record["data"]) for record in answer["records"]]


def dead_letters(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(text) for text in gzip.decompress(body).split(b"\n") if text] if body else []


# ---------------------------------------------------------------- the plan


def test_a_good_record_is_ok_and_each_reading_ends_in_a_line_feed() -> None:
    # WHEN
    made = plan(stream_record(1, line("a") + b"\n" + line("b")), stream_record(2, line("c")))
    answer = made.answer(dead_letters_stored=True)

    # THEN
    assert [record["recordId"] for record in answer["records"]] == ["record-1", "record-2"]
    assert results(answer) == ["Ok", "Ok"]
    first = b'{"device_id":"%b","temperature":21.5,"timestamp":1792034000.0}\n'
    assert delivered(answer) == [first % b"a" + first % b"b", first % b"c"]
    assert made.dead_letter_key is None


def test_a_record_with_some_good_readings_is_ok_with_those_and_the_others_are_dead_letters() -> None:
    # WHEN
    made = plan(stream_record(1, b"[" + line("a") + b"," + line("b", 999) + b"]"))

    # THEN
    answer = made.answer(dead_letters_stored=True)
    assert results(answer) == ["Ok"]
    assert delivered(answer)[0].count(b"\n") == 1
    (letter,) = dead_letters(made.dead_letter_body)
    assert letter["reason"] == "temperature_out_of_range"


def test_a_record_with_nothing_good_is_dropped_once_its_rejects_are_stored() -> None:
    # WHEN
    made = plan(stream_record(1, b"nonsense"), stream_record(2, b""))

    # THEN
    assert results(made.answer(dead_letters_stored=True)) == ["Dropped", "Dropped"]
    assert [letter["reason"] for letter in dead_letters(made.dead_letter_body)] == ["malformed_json", "empty_record"]


def test_when_the_rejects_are_not_stored_every_record_that_has_one_is_kept_whole() -> None:
    # GIVEN a bad record, a mixed one and a good one
    made = plan(stream_record(1, b"nonsense"), stream_record(2, line() + b"\n17"), stream_record(3, line()))

    # WHEN
    answer = made.answer(dead_letters_stored=False)

    # THEN
    assert results(answer) == ["ProcessingFailed", "ProcessingFailed", "Ok"]
    assert made.accepted_count(dead_letters_stored=False) == 1


def test_a_dead_letter_has_the_fields_of_the_table() -> None:
    # WHEN
    made = plan(stream_record(7, line("a") + b"\n" + line("b", 999, note="ü")))

    # THEN
    (letter,) = dead_letters(made.dead_letter_body)
    assert len(letter.pop("reject_id")) == 64
    assert letter == {
        "reason": "temperature_out_of_range",
        "detail": {"field": "temperature", "value": "999", "rule": "-100 to 200 degrees Celsius"},
        "device_id": "b",
        "timestamp": 1792034000.0,
        "temperature": 999.0,
        "stage": "transform",
        "original": line("b", 999, note="ü").decode(),
        "original_base64": None,
        "source": {
            "shard_id": "shardId-000000000000",
            "sequence_number": "49660007",
            "subsequence_number": 0,
            "partition_key": "key-7",
            "record_id": "record-7",
            "index": 1,
        },
        "arrived_at": "2026-10-15T03:15:00.130Z",
        "contract_version": Policy().contract_version,
    }


def test_bytes_that_are_no_text_are_kept_in_base64() -> None:
    # WHEN
    made = plan(direct_record("direct", b"\xff\x00"))

    # THEN
    (letter,) = dead_letters(made.dead_letter_body)
    assert (letter["reason"], letter["original"]) == ("not_utf8", None)
    assert base64.b64decode(letter["original_base64"]) == b"\xff\x00"
    assert letter["source"]["shard_id"] is None


def test_the_arrival_on_the_stream_decides_and_not_the_one_at_firehose() -> None:
    # GIVEN a reading that is 300 s ahead of the stream's arrival by a hair, and within Firehose's
    ahead = (ARRIVED_AT_MILLISECONDS + 1) / 1000 + 300.001
    record = stream_record(1, line(timestamp=ahead))

    # WHEN
    on_stream = plan(record)
    direct = plan({key: value for key, value in record.items() if key != "kinesisRecordMetadata"})

    # THEN
    assert on_stream.rejected_by_reason() == {"timestamp_in_future": 1}
    assert not direct.rejected_by_reason()


def test_an_arrival_in_iso_8601_is_understood() -> None:
    # GIVEN the form that sample events have
    record = stream_record(1, b"nonsense")
    record["kinesisRecordMetadata"]["approximateArrivalTimestamp"] = "2026-10-14T22:35:00.130Z"

    # WHEN
    (letter,) = dead_letters(plan(record).dead_letter_body)

    # THEN
    assert letter["arrived_at"] == "2026-10-14T22:35:00.130Z"


def test_the_key_has_the_day_of_the_oldest_arrival_without_padding() -> None:
    # GIVEN arrivals on 5 January and later
    january = int(datetime(2027, 1, 5, 23, 59, 59, 999_000, UTC).timestamp() * 1000)
    records = [direct_record(name, b"nonsense") for name in ("a", "b")]
    records[0]["approximateArrivalTimestamp"] = january + 1
    records[1]["approximateArrivalTimestamp"] = january

    # WHEN
    made = plan(*records)

    # THEN
    assert made.dead_letter_key is not None
    prefix, _, name = made.dead_letter_key.rpartition("/")
    assert prefix == "dlq/raw_json/year=2027/month=1/day=5"
    assert len(name.removesuffix(".json.gz")) == 64


def test_the_same_batch_makes_the_same_object_and_another_cut_another_key() -> None:
    # GIVEN
    bad = [stream_record(number, b"nonsense") for number in range(3)]

    # WHEN
    first, again = plan(*bad), plan(*bad)
    keys = {made.dead_letter_key for made in (first, plan(*bad[:2]), plan(*bad[1:]), plan(bad[0], bad[2]))}

    # THEN
    assert (first.dead_letter_key, first.dead_letter_body) == (again.dead_letter_key, again.dead_letter_body)
    assert first.dead_letter_body[4:8] == bytes(4), "the time in the gzip header"
    assert len(keys) == 4


def test_a_reject_has_the_same_id_in_whatever_batch_it_comes_and_equal_elements_have_different_ones() -> None:
    # GIVEN a record that is delivered again, when Firehose gives it another id of its own
    record = stream_record(1, b"17\n17")
    again = {**record, "recordId": "another"}

    # WHEN
    alone = {letter["reject_id"] for letter in dead_letters(plan(record).dead_letter_body)}
    together = {letter["reject_id"] for letter in dead_letters(plan(stream_record(0, line()), again).dead_letter_body)}

    # THEN
    assert alone == together
    assert len(alone) == 2


@pytest.mark.parametrize(
    "broken",
    [
        {"data": "not base64!"},
        {"data": None},
        {"data": "\ud800"},
        {"approximateArrivalTimestamp": None, "kinesisRecordMetadata": None},
        {"kinesisRecordMetadata": "x", "approximateArrivalTimestamp": 1e20},
    ],
)
def test_a_record_that_cannot_be_taken_apart_is_its_own_reject_and_nobody_elses(broken: dict[str, Any]) -> None:
    # WHEN
    made = plan(stream_record(1, line()), {**stream_record(2, line()), **broken}, stream_record(3, line()))

    # THEN
    assert results(made.answer(dead_letters_stored=True)) == ["Ok", "Dropped", "Ok"]
    (letter,) = dead_letters(made.dead_letter_body)
    assert letter["reason"] == "internal_error"
    assert letter["original_base64"]
    assert made.dead_letter_key is not None


def test_an_unforeseen_error_on_one_element_is_that_elements_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN a judge that fails on one element
    def failing(element: bytes, arrived_at_seconds: float, policy: Policy) -> Any:
        if b"poison" in element:
            raise ZeroDivisionError("surprise")
        return judge(element, arrived_at_seconds, policy)

    monkeypatch.setattr("transform.logic.judge", failing)

    # WHEN
    poison = line("poison\u2028")
    made = plan(stream_record(1, line("a") + b"\n" + poison + b"\n" + line("b")))

    # THEN
    assert made.accepted_count(dead_letters_stored=True) == 2
    (letter,) = dead_letters(made.dead_letter_body)
    assert (letter["reason"], letter["original"]) == ("internal_error", poison.decode())
    assert letter["detail"]["rule"] == "ZeroDivisionError: surprise"


def test_records_that_no_longer_fit_into_the_answer_are_kept_whole_and_their_rejects_not_written() -> None:
    # GIVEN three records of a good and a bad reading each, and room for the data of two of them
    records = [stream_record(number, line("x" * 200) + b"\n17") for number in range(3)]
    size = len(json.dumps(plan(*records).answer(dead_letters_stored=True)))

    # WHEN
    made = plan(*records, max_response_bytes=size - 1)

    # THEN
    answer = made.answer(dead_letters_stored=True)
    assert results(answer) == ["Ok", "Ok", "ProcessingFailed"]
    assert len(json.dumps(answer)) < size
    assert [letter["source"]["record_id"] for letter in dead_letters(made.dead_letter_body)] == ["record-0", "record-1"]
    assert made.rejected_by_reason() == {"not_an_object": 2}


def test_an_answer_that_just_fits_is_not_cut() -> None:
    # GIVEN
    records = [stream_record(number, line("x" * 200)) for number in range(3)]
    size = len(json.dumps(plan(*records).answer(dead_letters_stored=True)))

    # WHEN / THEN the estimate is above the true size by no more than the room left for longer results
    assert not plan(*records, max_response_bytes=size + 100).overflowing


@given(
    st.lists(
        st.lists(st.binary(max_size=30) | st.sampled_from([line(), line("b", 999), b"17"]), max_size=4), max_size=5
    ),
    st.booleans(),
)
def test_every_record_gets_one_answer_and_every_element_is_delivered_stored_or_kept(
    batch: list[list[bytes]], stored: bool
) -> None:
    # GIVEN any batch
    records = [stream_record(number, b"\n".join(lines)) for number, lines in enumerate(batch)]

    # WHEN
    made = plan(*records)
    answer = made.answer(dead_letters_stored=stored)

    # THEN
    assert [record["recordId"] for record in answer["records"]] == [record["recordId"] for record in records]
    written = dead_letters(made.dead_letter_body)
    for record, sent in zip(answer["records"], records, strict=True):
        data = base64.b64decode(sent["data"])
        expected = max(1, len(split_record(data)))
        good = base64.b64decode(record["data"]).count(b"\n")
        bad = sum(letter["source"]["record_id"] == record["recordId"] for letter in written)
        if record["result"] == "ProcessingFailed":
            assert not stored
            assert bad
        else:
            assert good + bad == expected
            assert (record["result"] == "Ok") == (good > 0)
            assert stored or not bad


def test_more_elements_than_a_batch_can_hold_are_kept_whole_by_firehose() -> None:
    # GIVEN a record of junk that would have as many dead letters as elements, between records that are in order
    records = [
        stream_record(1, line("a")),
        stream_record(2, b"[" + b",".join([b"0"] * 10) + b"]"),
        stream_record(3, line("b", other=1) + b"\n17"),
    ]

    # WHEN
    made = plan(*records, max_elements=9)

    # THEN
    assert results(made.answer(dead_letters_stored=True)) == ["Ok", "ProcessingFailed", "Ok"]
    assert made.rejected_by_reason() == {"not_an_object": 1}
    assert made.accepted_count(dead_letters_stored=True) == 2


def test_the_largest_request_has_room_for_no_more_readings_than_are_judged() -> None:
    # GIVEN Lambda's 6 MB in base64, and the fewest bytes that a reading and what parts it from the next can have
    data_bytes = 6_291_556 // 4 * 3
    smallest = len(b'{"device_id":"a","temperature":1,"timestamp":1}\n')

    # THEN
    assert data_bytes // smallest <= MAX_ELEMENTS


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=5), st.floats(-100, 200), st.booleans()), min_size=1, max_size=8)
)
def test_packed_and_single_records_of_the_same_readings_give_the_same_raw_lines(
    readings: list[tuple[str, float, bool]],
) -> None:
    # GIVEN readings, some of them with another field, and some that are none
    lines = [line(device, value, **({"other": [value]} if more else {})) for device, value, more in readings]
    indented = json.dumps([json.loads(text) for text in lines], indent=1).encode()

    # WHEN each goes alone, and all go in one record: a line each, as an array, and as an array for people
    alone = plan(*(stream_record(number, text) for number, text in enumerate(lines)))
    packed = [plan(stream_record(1, data)) for data in (b"\n".join(lines), b"[" + b",".join(lines) + b"]", indented)]

    # THEN
    raw = b"".join(delivered(alone.answer(dead_letters_stored=True)))
    for made in packed:
        assert b"".join(delivered(made.answer(dead_letters_stored=True))) == raw
        assert made.rejected_by_reason() == alone.rejected_by_reason()


@given(
    st.lists(st.sampled_from([line(), line(other=1), b"17", b"", line() + b"\nx\n\xff"]), min_size=1, max_size=12),
    st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=6), min_size=1, max_size=4),
)
def test_however_batches_are_cut_and_cut_again_no_reject_is_lost(sent: list[bytes], histories: list[list[int]]) -> None:
    # GIVEN a stream that Firehose reads several times, in batches of other sizes each time
    records = [stream_record(number, data) for number, data in enumerate(sent)]
    whole = {letter["reject_id"]: letter for letter in dead_letters(plan(*records).dead_letter_body)}

    # WHEN each batch is stored under its key, over what was there
    bucket: dict[str, bytes] = {}
    for sizes in histories:
        start = 0
        for size in [*sizes, len(records)]:
            made = plan(*records[start : start + size])
            start += size
            if made.dead_letter_key is not None:
                bucket[made.dead_letter_key] = made.dead_letter_body

    # THEN every reject is in the bucket, the same in every object that has it
    stored = [letter for body in bucket.values() for letter in dead_letters(body)]
    assert {letter["reject_id"] for letter in stored} == set(whole)
    assert all(letter == whole[letter["reject_id"]] for letter in stored)


@given(
    st.binary(max_size=60) | st.sampled_from([line(), line(other=1), b"17", line() + b"\n\xff", line("a", 999)]),
    st.lists(st.binary(max_size=40), max_size=3),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),
)
def test_a_verdict_depends_on_bytes_arrival_and_contract_alone(
    data: bytes, neighbours: list[bytes], now: datetime
) -> None:
    # GIVEN a record, whatever stands beside it and whatever the clock says
    record = stream_record(1, data)
    others = [stream_record(number + 10, other) for number, other in enumerate(neighbours)]

    # WHEN
    alone = plan(record)
    among = plan(*others, record, now=now.replace(tzinfo=UTC))

    # THEN
    answers = [made.answer(dead_letters_stored=True)["records"] for made in (alone, among)]
    assert answers[0][0] == answers[1][-1]
    own = [each for each in dead_letters(among.dead_letter_body) if each["source"]["record_id"] == "record-1"]
    assert own == dead_letters(alone.dead_letter_body)


@given(st.dictionaries(st.text(max_size=12), st.none() | st.integers() | st.text(max_size=5), max_size=4))
def test_fields_of_an_event_that_nobody_knows_yet_change_nothing(unknown: dict[str, Any]) -> None:
    # GIVEN
    known = stream_record(1, line() + b"\nx")
    metadata = {**unknown, **known["kinesisRecordMetadata"]}

    # WHEN
    made = plan({**unknown, **known, "kinesisRecordMetadata": metadata})

    # THEN
    assert made == plan(known)


# ---------------------------------------------------------------- the handler


@pytest.mark.parametrize("sample", ["kinesis_source", "direct_put"])
def test_the_sample_events_are_answered_and_their_rejects_stored(
    sample: str,
    load_handler: LoadHandler,
    load_event: Callable[[str], dict[str, Any]],
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
) -> None:
    # GIVEN
    handler = load_handler("transform")
    bucket = boto3.resource("s3").create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "ap-northeast-1"}
    )
    event = load_event(f"transform/{sample}.json")

    # WHEN Firehose calls, and calls again with the same batch
    answer = handler.handler(event, lambda_context)
    metrics = emitted_metrics()
    assert handler.handler(event, lambda_context) == answer

    # THEN
    expected = {
        "kinesis_source": ["Ok", "Ok", "Ok", "Dropped", "Dropped", "Dropped"],
        "direct_put": ["Ok", "Dropped"],
    }[sample]
    assert results(answer) == expected
    (stored,) = bucket.objects.all()
    letters = dead_letters(stored.get()["Body"].read())
    assert stored.key.startswith("dlq/raw_json/year=2026/month=10/day=15/")

    counts = metrics["TelemetryLake", "Stage=prod"]
    assert counts == {
        "RecordsReceived": len(expected),
        "RecordsParked": 0,
        "ReadingsAccepted": sum(data.count(b"\n") for data in delivered(answer)),
        "ReadingsRejected": len(letters),
        "DlqPutFailures": 0,
    }
    by_reason = {key[-1]: values for key, values in metrics.items() if len(key) == 3}
    assert by_reason == {
        f"Reason={reason}": {"ReadingsRejectedByReason": [letter["reason"] for letter in letters].count(reason)}
        for reason in {letter["reason"] for letter in letters}
    }
    assert set(metrics) == {("TelemetryLake", "Stage=prod")} | {
        ("TelemetryLake", "Stage=prod", reason) for reason in by_reason
    }


def test_a_put_that_is_denied_hands_the_records_back(
    load_handler: LoadHandler,
    lambda_context: Any,
    emitted_metrics: Callable[[], dict[tuple[str, ...], dict[str, float]]],
) -> None:
    # GIVEN
    handler = load_handler("transform")
    event = {"records": [stream_record(1, line() + b"\nnonsense"), stream_record(2, line())]}
    s3_client = importlib.import_module("transform.store").s3_client()

    # WHEN
    with Stubber(s3_client) as stubber:
        stubber.add_client_error("put_object", "AccessDenied", http_status_code=403)
        answer = handler.handler(event, lambda_context)

    # THEN
    assert results(answer) == ["ProcessingFailed", "Ok"]
    assert emitted_metrics() == {
        ("TelemetryLake", "Stage=prod"): {
            "RecordsReceived": 2,
            "RecordsParked": 1,
            "ReadingsAccepted": 1,
            "ReadingsRejected": 0,
            "DlqPutFailures": 1,
        }
    }


def test_what_was_sent_is_in_no_log_line(
    load_handler: LoadHandler, lambda_context: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # GIVEN readings that tell something of somebody, good, bad, and of a record that cannot be taken apart
    handler = load_handler("transform")
    records = [
        stream_record(1, line("secret")),
        stream_record(2, b"secret"),
        {**stream_record(3, b""), "data": "secret!"},
    ]
    s3_client = importlib.import_module("transform.store").s3_client()

    # WHEN they are judged and not even stored
    with Stubber(s3_client) as stubber:
        stubber.add_client_error("put_object", "AccessDenied", http_status_code=403)
        handler.handler({"records": records}, lambda_context)

    # THEN
    written = capsys.readouterr().out
    logged = [json.loads(text) for text in written.splitlines()]
    assert [entry["level"] for entry in logged if "level" in entry] == ["ERROR", "INFO"]
    assert "secret" not in written


def test_a_batch_without_rejects_needs_no_boto3(load_handler: LoadHandler, lambda_context: Any) -> None:
    # GIVEN
    handler = load_handler("transform")

    # WHEN
    handler.handler({"records": [stream_record(1, line())]}, lambda_context)

    # THEN
    assert "transform.store" not in sys.modules


def test_a_batch_without_rejects_puts_nothing(load_handler: LoadHandler, lambda_context: Any) -> None:
    # GIVEN no bucket at all
    handler = load_handler("transform")

    # WHEN
    answer = handler.handler({"records": [stream_record(1, line())]}, lambda_context)

    # THEN
    assert results(answer) == ["Ok"]


def test_a_wrong_environment_fails_at_start_and_names_everything() -> None:
    # GIVEN
    variables = {"STAGE": "prod", "DLQ_PREFIX": "/dlq", "TEMPERATURE_MIN": "cold", "MAX_AGE_DAYS": "nan"}

    # WHEN
    with pytest.raises(ValueError, match="DLQ_BUCKET is not set") as raised:
        Settings.from_environment(variables)

    # THEN
    for name in ("POWERTOOLS_METRICS_NAMESPACE", "DLQ_PREFIX", "TEMPERATURE_MIN", "TEMPERATURE_MAX", "MAX_AGE_DAYS"):
        assert name in str(raised.value)


def test_the_handler_reads_its_environment_at_import(
    load_handler: LoadHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN
    monkeypatch.delenv("DLQ_BUCKET")

    # WHEN / THEN
    with pytest.raises(ValueError, match="DLQ_BUCKET"):
        load_handler("transform")
    assert "transform.handler" not in sys.modules
