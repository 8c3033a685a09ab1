"""Kills on request, with processes that are really killed and an application that only notes what reaches it."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from telemetry_lake.local.disturbances import (
    JOB_KILL_PATH,
    REDELIVERY_PATH,
    JobKills,
    KillPoint,
    Redeliveries,
    Redelivery,
    disturbed,
    request_name,
)

KEY = "ASIAEXAMPLE"
SIGNED = (b"authorization", f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/region/s3/aws4_request, …".encode())


class World:
    """A run, and an endpoint that notes which requests were carried out while the run was alive, and which were not."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.kills = JobKills()
        self.kills.watch(KEY, process.pid)
        self.served: list[str] = []
        self._application = disturbed(self._serve, self.kills, Redeliveries())

    async def _serve(self, scope: Mapping[str, Any], _receive: Any, send: Any) -> None:
        self.served.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    def request(self, path: str, method: str = "PUT", headers: Any = (SIGNED,), body: bytes = b"") -> list[Any]:
        sent: list[Any] = []
        scope = {"type": "http", "path": path, "method": method, "query_string": b"", "headers": list(headers)}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: dict[str, Any]) -> None:
            sent.append((message, self.process.poll()))

        asyncio.run(self._application(scope, receive, send))
        return sent

    def was_killed(self) -> bool:
        return self.process.wait(10) == -signal.SIGKILL


@pytest.fixture
def world() -> Iterator[World]:
    process = subprocess.Popen(["sleep", "100"], start_new_session=True)
    yield World(process)
    process.kill()
    process.wait()


@pytest.mark.own_machinery("kills on request: nothing of AWS")
@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "name"),
    [
        ("GET", "/b/a%3Db", "list-type=2", {}, "GET /b/a=b?list-type=2"),
        ("PUT", "/b/k", "", {"x-amz-copy-source": "b/x"}, "COPY /b/k"),
        ("POST", "/", "", {"x-amz-target": "AWSGlue.GetTable"}, "AWSGlue.GetTable"),
    ],
)
def test_a_request_is_named_by_what_it_does(
    method: str, path: str, query: str, headers: dict[str, str], name: str
) -> None:
    assert request_name(method, path, query, headers) == name


@pytest.mark.own_machinery("kills on request: nothing of AWS")
def test_a_run_is_killed_before_its_request_is_carried_out(world: World) -> None:
    # GIVEN
    world.kills.arm(KillPoint("PUT /b/2", moment="before"))

    # WHEN
    world.request("/b/1")
    world.request("/b/2")

    # THEN
    assert world.was_killed()
    assert world.served == ["/b/1"]


@pytest.mark.own_machinery("kills on request: nothing of AWS")
def test_a_run_is_killed_after_its_request_was_carried_out_and_before_it_learns_of_it(world: World) -> None:
    # GIVEN
    world.kills.arm(KillPoint("PUT /b/", occurrence=2, moment="after"))

    # WHEN
    world.request("/b/1")
    assert world.process.poll() is None
    world.request("/b/2")

    # THEN
    assert world.was_killed()
    assert world.served == ["/b/1", "/b/2"]
    assert world.kills.state() == {"armed": None, "requests": ["PUT /b/1", "PUT /b/2"]}


@pytest.mark.own_machinery("kills on request: nothing of AWS")
def test_requests_of_others_do_not_count(world: World) -> None:
    # GIVEN
    world.kills.arm(KillPoint("PUT /b/1"))

    # WHEN somebody else asks, and when the run has ended
    world.request("/b/1", headers=())
    world.kills.forget(world.process.pid)
    world.request("/b/1")

    # THEN
    assert world.process.poll() is None
    assert world.served == ["/b/1", "/b/1"]
    assert world.kills.state()["requests"] == []


@pytest.mark.own_machinery("kills on request: nothing of AWS")
def test_a_kill_is_armed_and_disarmed_over_http(world: World) -> None:
    point = {"request": "x", "occurrence": 3, "moment": "after"}
    for method, body, armed in (("PUT", json.dumps(point).encode(), point), ("DELETE", b"", None)):
        (started, _), (answer, _) = world.request(JOB_KILL_PATH, method, (), body)
        assert started["status"] == 200
        assert json.loads(answer["body"])["armed"] == armed


@pytest.mark.own_machinery("kills on request: nothing of AWS")
@pytest.mark.parametrize("body", [b"", b"[]", b'{"request":"("}', b'{"request":"a","occurrence":0}', b'{"when":1}'])
def test_a_kill_that_makes_no_sense_is_refused(world: World, body: bytes) -> None:
    (started, _), (answer, _) = world.request(JOB_KILL_PATH, "PUT", (), body)
    assert started["status"] == 400
    assert "error" in json.loads(answer["body"])
    assert world.kills.state()["armed"] is None


@pytest.mark.own_machinery("redelivery on request: nothing of AWS")
def test_a_redelivery_is_done_as_often_as_asked_for_by_its_delivery_stream_alone() -> None:
    # GIVEN
    redeliveries = Redeliveries()
    armed = Redelivery("mine", "invocation", times=2)
    redeliveries.arm(armed)

    # WHEN / THEN
    assert redeliveries.take("other", "invocation") is None
    assert redeliveries.take("mine", "object") is None
    assert [redeliveries.take("mine", "invocation") for _ in range(3)] == [armed, armed, None]
    assert redeliveries.state() == {"armed": None, "done": 2}


@pytest.mark.own_machinery("redelivery on request: nothing of AWS")
def test_a_redelivery_is_armed_and_disarmed_over_http(world: World) -> None:
    for method, body, again in (
        ("PUT", b'{"delivery_stream": "d", "again": "reading", "since_milliseconds": 5}', "reading"),
        ("DELETE", b"", None),
    ):
        (started, _), (answer, _) = world.request(REDELIVERY_PATH, method, (), body)
        assert started["status"] == 200
        armed = json.loads(answer["body"])["armed"]
        assert (armed and armed["again"]) == again


@pytest.mark.own_machinery("redelivery on request: nothing of AWS")
@pytest.mark.parametrize("body", [b"{}", b'{"delivery_stream": "d", "again": "never"}'])
def test_a_redelivery_that_makes_no_sense_is_refused(world: World, body: bytes) -> None:
    (started, _), _ = world.request(REDELIVERY_PATH, "PUT", (), body)
    assert started["status"] == 400
