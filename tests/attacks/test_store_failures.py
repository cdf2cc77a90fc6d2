"""A store that fails while the gateway runs: 503, nothing forwarded, and it comes back by itself."""

from __future__ import annotations

import resource
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from attacks.conftest import POD_PATH, Target, pending_holds, running_target
from recording_upstream import POD
from services.small_disk import SmallDisk, small_disk

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

PODS_PATH = "/api/v1/namespaces/demo/pods"
HELD_PATH = "/api/v1/namespaces/demo"
WATCH_PATH = "/api/v1/namespaces/demo/pods"


@pytest.fixture(scope="module")
def disk() -> Iterator[SmallDisk]:
    """Where the gateway keeps everything."""
    with small_disk(16) as disk:
        yield disk


@pytest.fixture(scope="module")
def running(disk: SmallDisk) -> Iterator[Target]:
    """A gateway that does not wait long for its store."""
    with running_target(disk.folder, settings={"audit": {"deadlineSeconds": 1.0}}) as target:
        yield target


@pytest.fixture
def fragile(running: Target) -> Target:
    """The gateway, its upstream forgetful."""
    running.upstream.forget()
    running.settle(lambda: running.call("GET", POD_PATH).status_code == 200)
    running.upstream.forget()
    return running


@contextmanager
def full_disk(target: Target) -> Iterator[None]:
    """No file of the gateway's can grow, or be written at all (RLIMIT_FSIZE)."""
    assert target.gateway.process is not None
    pid = target.gateway.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def filled_disk(target: Target) -> AbstractContextManager[None]:
    """Nothing is left of the file system."""
    return SmallDisk(target.gateway.folder.parent).filled()


@contextmanager
def locked(target: Target) -> Iterator[None]:
    """Another process keeps the database locked."""
    with closing(sqlite3.connect(target.gateway.database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


Failure = Callable[[Target], AbstractContextManager[None]]

FULL: list[Failure] = [full_disk, filled_disk]
FAILURES: list[Failure] = [*FULL, locked]


def assert_unavailable(response: httpx.Response) -> None:
    assert response.status_code == 503
    status = response.json()
    assert (status["kind"], status["reason"]) == ("Status", "ServiceUnavailable")
    assert status["message"].startswith("Holdfast")
    assert status["message"].endswith("; try again")
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("failing", FAILURES)
def test_a_mutating_call_is_not_forwarded_while_its_intent_cannot_be_recorded(
    fragile: Target, failing: Failure
) -> None:
    with failing(fragile):
        assert_unavailable(fragile.call("POST", PODS_PATH, json={"kind": "Pod"}))
        assert fragile.upstream.calls() == []
    fragile.settle(lambda: fragile.call("POST", PODS_PATH, json={"kind": "Pod"}).status_code == 200)
    assert len(fragile.upstream.calls()) == 1


@pytest.mark.parametrize("failing", FAILURES)
def test_an_answer_is_not_let_through_while_it_cannot_be_recorded(fragile: Target, failing: Failure) -> None:
    with failing(fragile):
        response = fragile.call("GET", POD_PATH)
    assert_unavailable(response)
    assert POD not in response.content
    fragile.settle(lambda: fragile.call("GET", POD_PATH).content == POD)


@pytest.mark.parametrize("failing", FULL)
def test_a_refusal_is_not_told_while_it_cannot_be_recorded(fragile: Target, failing: Failure) -> None:
    with failing(fragile):
        assert_unavailable(fragile.call("DELETE", "/api/v1/namespaces/kube-system/pods/p"))
    assert fragile.upstream.calls() == []


@pytest.mark.parametrize("failing", FULL)
def test_a_call_cannot_be_held_while_the_hold_cannot_be_stored(fragile: Target, failing: Failure) -> None:
    with failing(fragile):
        assert_unavailable(fragile.call("DELETE", HELD_PATH))
    assert fragile.upstream.calls() == []
    assert pending_holds(fragile.gateway.database) == []


@pytest.mark.parametrize("failing", FULL)
def test_a_stream_is_cut_when_its_pieces_cannot_be_recorded(fragile: Target, failing: Failure) -> None:
    event = b'{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"p"}}}\n'
    piece = b"%x\r\n%s\r\n" % (len(event), event)
    more = threading.Event()

    def act(connection: ssl.SSLSocket) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + piece)
        more.wait(20)
        for _ in range(40):
            connection.sendall(piece)
            fragile.upstream.release.wait(0.1)

    fragile.upstream.acts[WATCH_PATH.encode()] = act
    headers = {"Authorization": f"Bearer {fragile.gateway.token('agent', 'agents')}"}
    with (
        fragile.client() as client,
        client.stream("GET", WATCH_PATH + "?watch=1", headers=headers) as response,
        failing(fragile),
    ):
        lines = response.iter_lines()
        assert next(lines)
        more.set()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    fragile.settle(lambda: fragile.call("GET", POD_PATH).status_code == 200)


@pytest.mark.parametrize("failing", FULL)
def test_every_call_that_was_answered_is_in_the_record(fragile: Target, failing: Failure) -> None:
    before = len(fragile.outcomes(POD_PATH))
    answered = sum(fragile.call("GET", POD_PATH).status_code == 200 for _ in range(5))
    with failing(fragile):
        assert_unavailable(fragile.call("GET", POD_PATH))
    fragile.settle(lambda: fragile.call("GET", POD_PATH).status_code == 200)
    complete = [record for record in fragile.outcomes(POD_PATH)[before:] if not record.get("refusal")]
    assert len(complete) >= answered + 1
