"""What can go wrong between the stream and the raw zone: each reading is in the raw zone, the DLQ or the error prefix.

A lake of its own, because readings in the error prefix stay there.
"""

import base64
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

from telemetry_lake import journey
from telemetry_lake.ledger import Place, read_ledger
from telemetry_lake.pipeline import list_objects, read_lines, ticks
from telemetry_lake.producer import Producer
from telemetry_lake.queries import run_query
from telemetry_lake.readings import Record, bad_record
from tests.judging import REPOSITORY
from tests.stack import Lake, client, deployed_lake, physical_id, tlake, without_grant

WAIT_SECONDS = 120.0
LONGEST_ANSWER_BYTES = 6_291_556


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with deployed_lake(tmp_path_factory.mktemp("delivery"), "delivery") as lake:
        yield lake


# ---------------------------------------------------------------- what is sent, and where it is found


def reading(device_id: str, number: int) -> bytes:
    fields = {"device_id": device_id, "temperature": number % 50 + 0.5, "timestamp": int(time.time()) - number}
    return json.dumps(fields).encode()


def mixture(device_id: str, count: int = 30) -> list[Record]:
    """Good readings, bad ones, and records that hold both."""
    records = []
    for number in range(count):
        bad = f"{device_id} bad {number}".encode()
        both = (reading(device_id, 1000 + number), bad + b"!", reading(device_id, 2000 + number))
        records += [
            Record(reading(device_id, number), device_id),
            bad_record(bad, device_id, "malformed_json"),
            Record(b"\n".join(both), device_id),
        ]
    return records


def elements(records: Sequence[Record]) -> Counter[bytes]:
    return Counter(line for record in records for line in record.data.split(b"\n"))


def triple(line: bytes) -> bytes:
    """A reading by its three fields, whatever its spelling; anything else as it is."""
    try:
        fields = json.loads(line)
        return repr((fields["device_id"], float(fields["timestamp"]), float(fields["temperature"]))).encode()
    except (ValueError, TypeError, KeyError):
        return line


@dataclass
class Whereabouts:
    """The elements that were found, by place, each as often as it is there."""

    raw: Counter[bytes] = field(default_factory=Counter)
    dead_letters: Counter[bytes] = field(default_factory=Counter)
    parked: Counter[bytes] = field(default_factory=Counter)

    @property
    def all(self) -> Counter[bytes]:
        return self.raw + self.dead_letters + self.parked


def whereabouts(lake: Lake, device_id: str) -> Whereabouts:
    """Look for what was sent under a device's name; dead letters count once for each `reject_id`."""
    outputs, s3 = lake.target.outputs, lake.target.s3

    def lines(bucket: str, prefix: str) -> list[bytes]:
        return [line for some in read_lines(s3, bucket, list_objects(s3, bucket, prefix)) for line in some]

    letters = [json.loads(line) for line in lines(outputs.analytics_bucket_name, outputs.dlq_prefix)]
    distinct = {letter["reject_id"]: letter for letter in letters}.values()
    parked = [
        base64.b64decode(json.loads(line)["rawData"]) for line in lines(outputs.raw_bucket_name, outputs.error_prefix)
    ]
    name = device_id.encode()

    def of_device(found: Sequence[bytes]) -> Counter[bytes]:
        return Counter(triple(line) for line in found if name in line)

    return Whereabouts(
        raw=of_device(lines(outputs.raw_bucket_name, outputs.raw_prefix)),
        dead_letters=of_device([letter["original"].encode() for letter in distinct if letter["original"]]),
        parked=of_device([line for record in parked for line in record.split(b"\n")]),
    )


def found_in_the_end(lake: Lake, device_id: str, records: Sequence[Record]) -> Whereabouts:
    """Wait until as much is found as was sent, and say where."""
    wanted = Counter({triple(line): times for line, times in elements(records).items()})
    for _ in ticks(WAIT_SECONDS, 1.0):
        found = whereabouts(lake, device_id)
        if not wanted - found.all:
            return found
    raise AssertionError(f"lost: {list((wanted - found.all).elements())[:5]}, found {found.all.total()}")


def send(lake: Lake, records: Sequence[Record]) -> None:
    Producer(lake.target.kinesis, lake.target.outputs.stream_name).send(records)


def invoke(lake: Lake, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Invoke the deployed transform as Firehose does, and return its answers."""
    event = {"invocationId": "1", "deliveryStreamArn": "arn", "region": lake.target.region, "records": list(records)}
    answer = client(lake, "lambda").invoke(
        FunctionName=physical_id(lake, "TransformFunction"), Payload=json.dumps(event).encode()
    )
    body = answer["Payload"].read()
    assert "FunctionError" not in answer, body[:500]
    assert len(body) <= LONGEST_ANSWER_BYTES
    found: list[dict[str, Any]] = json.loads(body)["records"]
    assert [each["recordId"] for each in found] == [each["recordId"] for each in records]
    return found


def event_records(device_id: str, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Records as Firehose hands them over."""
    return [
        {
            "recordId": f"{device_id}-{number}",
            "approximateArrivalTimestamp": int(time.time() * 1000),
            "data": base64.b64encode(record.data).decode(),
            "kinesisRecordMetadata": {
                "shardId": "shardId-000000000000",
                "partitionKey": record.partition_key,
                "sequenceNumber": f"{device_id}-{number:08}",
                "subsequenceNumber": 0,
                "approximateArrivalTimestamp": int(time.time() * 1000),
            },
        }
        for number, record in enumerate(records)
    ]


def delivered(answers: Sequence[dict[str, Any]]) -> list[bytes]:
    return [triple(line) for each in answers for line in base64.b64decode(each["data"]).split(b"\n") if line]


# ---------------------------------------------------------------- the faults


def test_rejects_that_may_not_be_stored_are_in_the_error_prefix_with_their_neighbours(lake: Lake) -> None:
    # GIVEN
    records = mixture("denied")

    # WHEN the transform may not write to the DLQ while they arrive
    with without_grant(lake, "TransformRole", "s3:PutObject"):
        send(lake, records)
        found = found_in_the_end(lake, "denied", records)

    # THEN what has no reject is in the raw zone, every record that has one is whole in the error prefix, once
    spoilt = [record for record in records if b"bad" in record.data]
    sound = [record for record in records if b"bad" not in record.data]
    assert found.raw == Counter(map(triple, elements(sound)))
    assert found.parked == Counter(map(triple, elements(spoilt)))
    assert not found.dead_letters


def test_what_firehose_has_parked_comes_back_by_a_replay(lake: Lake) -> None:
    # GIVEN the records of the test before, in the error prefix, while the transform may store rejects again
    records = mixture("replayed")
    with without_grant(lake, "TransformRole", "s3:PutObject"):
        send(lake, records)
        assert found_in_the_end(lake, "replayed", records).parked
    exit_code, status, _ = tlake(lake, "status", "--json")
    parked = status["parked_by_firehose"]["open"]
    assert (exit_code, parked > 0) == (1, True)

    # WHEN
    exit_code, outcome, said = tlake(lake, "dlq", "replay", "--parked", "--yes", "--json")

    # THEN every one of them is resolved, its good readings in the table, its bad ones rejects of the transform
    assert exit_code == 0, said
    assert (outcome["put"], outcome["open"], len(outcome["resolved"])) == (parked, {}, parked)
    found = whereabouts(lake, "replayed")
    good = {line for line in elements(records) if b"bad" not in line}
    assert found.raw.keys() == set(map(triple, good))
    assert found.dead_letters == Counter(line for line in elements(records).elements() if b"bad" in line)
    sql = f"SELECT count(*) FROM {lake.target.outputs.table_name} WHERE device_id = 'replayed'"  # noqa: S608
    assert run_query(lake.target, sql, lake.reporter).single_number() == len(good)

    # AND nothing is parked any more, as far as anybody has to act
    assert tlake(lake, "status", "--json")[1]["parked_by_firehose"] == {"records": parked, "open": 0}


@dataclass
class SlowStore:
    """Passes requests for S3 on, and does not let the answer to the first put through."""

    endpoint_url: str
    puts: list[tuple[str, bytes]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def serving(self) -> Iterator[str]:
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = requests.put(store.endpoint_url + self.path, data=body, headers=dict(self.headers), timeout=30)
                assert answer.ok, answer.text
                store.puts.append((self.path, body))
                if len(store.puts) == 1:
                    store.ended.wait(60)
                    return
                self.send_response(answer.status_code)
                self.send_header("ETag", answer.headers["ETag"])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                """Keep the test's output free of requests."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            self.ended.set()
            server.shutdown()
            thread.join()


@contextmanager
def changed_function(lake: Lake, timeout_seconds: int, **variables: str) -> Iterator[None]:
    """Give the transform another time limit and further variables, and take them back afterwards."""
    functions, name = client(lake, "lambda"), physical_id(lake, "TransformFunction")
    before = functions.get_function_configuration(FunctionName=name)
    usual = before["Environment"]["Variables"]
    functions.update_function_configuration(
        FunctionName=name, Timeout=timeout_seconds, Environment={"Variables": {**usual, **variables}}
    )
    try:
        yield
    finally:
        functions.update_function_configuration(
            FunctionName=name, Timeout=before["Timeout"], Environment={"Variables": usual}
        )


def test_a_transform_that_times_out_after_its_put_is_asked_again_and_overwrites_its_rejects(lake: Lake) -> None:
    # GIVEN a store that keeps the first object and never says so
    records = mixture("slow")
    store = SlowStore(lake.target.laptop_url or "")
    with store.serving() as url, changed_function(lake, 4, AWS_ENDPOINT_URL_S3=url):
        # WHEN
        send(lake, records)
        found = found_in_the_end(lake, "slow", records)

    # THEN the second invocation has put the same object again
    assert len(store.puts) >= 2
    assert store.puts[0] == store.puts[1]
    letters = [json.loads(line) for line in gzip.decompress(store.puts[0][1]).split(b"\n") if line]
    assert letters

    # AND everything is there once, and nothing was parked
    assert found.all == Counter({triple(line): times for line, times in elements(records).items()})
    assert not found.parked


def test_an_answer_that_would_be_over_6_mb_hands_back_what_does_not_fit(lake: Lake) -> None:
    # GIVEN the largest request there is, of readings that grow by being written canonically, and a few bad ones.
    # Firehose's buffer for the function ends at 3 MB, so it never sends that much at today's limits.
    lines = [
        b'{"device_id":"big%d","temperature":1,"timestamp":%d}' % (number, int(time.time()) - number % 1000)
        for number in range(72_000)
    ]
    chunks = [lines[start : start + 1000] for start in range(0, len(lines), 1000)]
    records = [Record(b"\n".join([*chunk, b"big bad %d" % number]), "big") for number, chunk in enumerate(chunks)]
    sent = event_records("big", records)
    assert 5_800_000 < len(json.dumps(sent)) < LONGEST_ANSWER_BYTES

    # WHEN
    answers = invoke(lake, sent)

    # THEN every element is in the answer, in the DLQ, or in a record that is handed back whole
    kept = [record for record, answer in zip(records, answers, strict=True) if answer["result"] == "ProcessingFailed"]
    assert 0 < len(kept) < len(records)
    found = Counter(delivered(answers)) + whereabouts(lake, "big bad").dead_letters
    assert found + Counter(map(triple, elements(kept).elements())) == Counter(map(triple, elements(records).elements()))


def test_the_same_batch_twice_changes_nothing(lake: Lake) -> None:
    # GIVEN
    sent = event_records("twice", mixture("twice"))
    outputs = lake.target.outputs

    def stored() -> dict[str, str]:
        objects = list_objects(lake.target.s3, outputs.analytics_bucket_name, outputs.dlq_prefix)
        return {each.key: each.etag for each in objects}

    # WHEN
    first = invoke(lake, sent)
    after_first = stored()
    second = invoke(lake, sent)

    # THEN
    assert second == first
    assert stored() == after_first
    assert whereabouts(lake, "twice").dead_letters.total() == 60


def test_batches_that_are_cut_again_lose_no_reject_and_add_none(lake: Lake) -> None:
    # GIVEN
    records = mixture("again")
    sent = event_records("again", records)
    everything = Counter(map(triple, elements(records).elements()))

    # WHEN Firehose reads the shard several times and cuts it otherwise each time
    for size in (len(sent), 7, 13, 50):
        answers = [answer for start in range(0, len(sent), size) for answer in invoke(lake, sent[start : start + size])]

        # THEN each time all good readings are answered and all rejects in the DLQ, one for each element
        assert Counter(delivered(answers)) + whereabouts(lake, "again").dead_letters == everything


@contextmanager
def delivering_again(lake: Lake, again: str, **how: int) -> Iterator[None]:
    """Have Firehose do something again, and wait until it has (telemetry_lake/local/disturbances.py)."""
    url = f"{lake.target.laptop_url}/_telemetry_lake/firehose-redelivery"
    document: dict[str, Any] = {"delivery_stream": lake.target.outputs.delivery_stream_name, "again": again, **how}
    requests.put(url, json=document, timeout=30).raise_for_status()
    yield
    for _ in ticks(WAIT_SECONDS, 0.5):
        if requests.get(url, timeout=30).json()["armed"] is None:
            return


def test_whatever_firehose_delivers_again_the_table_has_each_reading_once(lake: Lake) -> None:
    # GIVEN
    records = mixture("firehose")
    sent = Counter({triple(line): times for line, times in elements(records).items()})
    began = int(time.time() * 1000) - 1

    # WHEN Firehose gives a batch to the transform twice, puts an object twice, and reads all again and cuts it anew
    with delivering_again(lake, "invocation"):
        send(lake, records[:45])
    with delivering_again(lake, "object"):
        send(lake, records[45:])
    found_in_the_end(lake, "firehose", records)
    with delivering_again(lake, "reading", since_milliseconds=began, batch_bytes=700):
        pass
    for _ in ticks(WAIT_SECONDS, 1.0):
        found = whereabouts(lake, "firehose")
        if min(found.raw.values()) > 1 and max(found.raw.values()) > 2:
            break

    # THEN every good reading is in the raw zone twice, those of the object more often; every bad one has one reject
    assert min(found.raw.values()) > 1
    assert max(found.raw.values()) > 2
    assert found.raw.keys() | found.dead_letters.keys() == sent.keys()
    assert max(found.dead_letters.values()) == 1
    assert not found.parked

    # AND after the pipeline has run, the table has each reading once
    assert journey.run_once_more(lake.target, lake.reporter).status == "SUCCEEDED"
    sql = (
        f'SELECT device_id, "timestamp", temperature FROM {lake.target.outputs.table_name} '  # noqa: S608
        "WHERE device_id = 'firehose'"
    )
    result = run_query(lake.target, sql, lake.reporter, most_rows=1000)
    rows = Counter(
        repr((device, float(str(moment)), float(str(value)))).encode() for device, moment, value in result.rows
    )
    assert rows == Counter(found.raw.keys())


# ---------------------------------------------------------------- before the stream


def in_the_stream(lake: Lake) -> dict[Place, bytes]:
    """Everything that the stream holds, by its place."""
    kinesis, stream = lake.target.kinesis, lake.target.outputs.stream_name
    found = {}
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator: str | None = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            answer = kinesis.get_records(ShardIterator=iterator)
            for record in answer["Records"]:
                found[Place(shard["ShardId"], record["SequenceNumber"])] = record["Data"]
            iterator = answer["NextShardIterator"] if answer["MillisBehindLatest"] else None
    return found


def test_a_producer_that_is_killed_has_written_down_whatever_is_in_the_stream(lake: Lake) -> None:
    # GIVEN a ledger, and what is in the stream already
    ledger = lake.directory / "killed.jsonl"
    earlier = in_the_stream(lake).keys()
    command = [sys.executable, "-m", "telemetry_lake", "--state-directory", str(lake.laptop.directory), "produce"]

    # WHEN producers are killed at work, one after the other
    for least_lines in (1, 700, 2500):
        producer = subprocess.Popen(
            [*command, "--count", "20000", "--pack", "5", "--ledger", str(ledger)],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=REPOSITORY,
            start_new_session=True,
        )
        for _ in ticks(WAIT_SECONDS, 0.001):
            if ledger.exists() and ledger.read_bytes().count(b"\n") >= least_lines:
                break
        os.killpg(producer.pid, signal.SIGKILL)
        assert producer.wait() == -signal.SIGKILL, "it was done before it was killed"

    # THEN what was acknowledged by the ledger is where it says, and nothing is in the stream that it does not know
    entries = list(read_ledger(ledger))
    stream = {place: data for place, data in in_the_stream(lake).items() if place not in earlier}
    known = {entry.place: entry.data for entry in entries if entry.place is not None}
    assert len(known) >= 500
    assert {place: stream.get(place) for place in known} == known
    assert set(stream.values()) <= {entry.data for entry in entries}
