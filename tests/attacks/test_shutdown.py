"""How the gateway ends: asked to, it lets calls end and says why it refuses; killed, it forgets no hold."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx

from attacks.conftest import POD_PATH, Target, pending_holds
from attacks.scripted_upstream import answer, send
from recording_upstream import POD

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

HELD_PATH = "/api/v1/namespaces/demo"
WATCH_PATH = "/api/v1/namespaces/demo/pods"
EVENT = b'{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"p"}}}\n'


def slow(target: Target) -> Callable[[ssl.SSLSocket], None]:
    """An answer that comes when the test says so."""

    def act(connection: ssl.SSLSocket) -> None:
        target.upstream.release.wait(30)
        send(answer(POD))(connection)

    return act


def endless(connection: ssl.SSLSocket) -> None:
    """A watch with one event."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head + b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
    connection.settimeout(30)
    connection.recv(1)
    raise EOFError


def watch(target: Target) -> bytes:
    """Read a watch until it ends, however it ends."""
    received = b""
    headers = {"Authorization": f"Bearer {target.gateway.token('agent', 'agents')}"}
    try:
        with target.client() as client, client.stream("GET", WATCH_PATH + "?watch=1", headers=headers) as response:
            for data in response.iter_raw():
                received += data
    except httpx.HTTPError:
        pass
    return received


def test_asked_to_end_it_refuses_what_is_held_finishes_what_runs_and_cuts_what_has_no_end(
    make_target: Callable[..., Target],
) -> None:
    target = make_target()
    process = target.gateway.process
    assert process is not None
    target.upstream.acts[POD_PATH.encode()] = slow(target)
    target.upstream.acts[WATCH_PATH.encode()] = endless
    with ThreadPoolExecutor() as pool:
        held = pool.submit(target.call, "DELETE", HELD_PATH)
        running = pool.submit(target.call, "GET", POD_PATH)
        watching = pool.submit(watch, target)
        target.settle(lambda: pending_holds(target.gateway.database) and len(target.upstream.calls()) == 2)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        refused = held.result(10)
        assert process.poll() is None
        assert not running.done()
        target.upstream.release.set()
        assert running.result(10).content == POD
        assert watching.result(20) == EVENT
    assert refused.status_code in {403, 503}
    assert "shutting down" in refused.json()["message"]
    assert process.wait(20) == 0
    assert not any(request.startswith(b"DELETE") for request in target.upstream.calls())
    assert pending_holds(target.gateway.database) == []
    assert len(target.outcomes(HELD_PATH)) == 3
    assert "Traceback" not in "".join(target.gateway.output)


def test_after_it_was_killed_a_held_call_is_cancelled_and_was_never_forwarded(
    make_target: Callable[..., Target],
) -> None:
    target = make_target()
    with ThreadPoolExecutor() as pool:
        held = pool.submit(target.call, "DELETE", HELD_PATH)
        target.settle(lambda: pending_holds(target.gateway.database))
        target.gateway.stop(signal.SIGKILL)
        assert isinstance(held.exception(10), httpx.HTTPError)
    (hold,) = pending_holds(target.gateway.database)
    target.gateway.url = ""
    target.gateway.output.clear()
    target.gateway.start()
    assert pending_holds(target.gateway.database) == []
    assert pending_holds(target.gateway.database, "cancelled") == [hold]
    assert target.upstream.calls() == []
    assert target.call("GET", POD_PATH).status_code == 200
