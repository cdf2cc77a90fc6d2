"""HTTP/2 as an attacker writes it: what the caller gets, and that nothing reached the API server."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import h2.exceptions
import psutil
import pytest

from attacks.conftest import pending_holds
from attacks.h2_client import H2Client
from attacks.scripted_upstream import send
from recording_upstream import POD, TOKEN

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from attacks.conftest import Target

POD_PATH = "/api/v1/namespaces/demo/pods/p"
HELD_PATH = "/api/v1/namespaces/demo"


@pytest.fixture
def open_client(target: Target) -> Iterator[Callable[[], H2Client]]:
    """Connects to the shared gateway."""
    opened: list[H2Client] = []

    def connect() -> H2Client:
        opened.append(H2Client(target.connect("h2"), target.gateway.token("agent", "agents")))
        return opened[-1]

    yield connect
    for client in opened:
        client.connection.close()


@pytest.fixture
def client(open_client: Callable[[], H2Client]) -> H2Client:
    """One connection."""
    return open_client()


def test_an_ordinary_call_over_http2_works_and_carries_only_the_gateways_credential(
    target: Target, client: H2Client
) -> None:
    stream = client.open(client.head())
    client.wait(stream)
    assert (client.codes[stream], client.bodies[stream]) == (200, POD)
    (request,) = target.upstream.calls()
    assert request.count(b"uthorization:") == 1
    assert TOKEN.encode() in request
    assert client.token.encode() not in request


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/demo/%73ecrets/x",
        "/api/v1/namespaces/demo//pods",
        "/api/v1/namespaces/demo/../kube-system/secrets",
        "/api/v1/namespaces/demo/pods/",
        "api/v1/pods",
        "https://other.test/api/v1/pods",
        "*",
        "/api/v1/pods;x",
        "/api/v1/pods x HTTP/1.1\r\nImpersonate-User: admin",
    ],
)
def test_an_ambiguous_path_is_refused(target: Target, client: H2Client, path: str) -> None:
    assert client.code(client.head(path)) in {400, 0}
    assert target.upstream.calls() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("content-length", "5"),
        ("x-a\r\nimpersonate-user", "admin"),
        (":path", "/api/v1/secrets"),
        (":authority", "other"),
        ("host", "other"),
    ],
)
def test_a_field_that_could_mean_something_upstream_is_refused_or_not_forwarded(
    target: Target, client: H2Client, name: str, value: str
) -> None:
    code = client.code(client.head(POD_PATH, "GET", (name, value)))
    is_harmless = name in {"host", "content-length"}
    assert code in {400, 0} or is_harmless
    calls = target.upstream.calls()
    assert calls == [] or is_harmless
    assert all(b"other" not in request and b"content-length" not in request for request in calls)


def test_connect_and_extended_connect_open_no_tunnel(target: Target, client: H2Client) -> None:
    assert client.code([(":method", "CONNECT"), (":authority", "other.test:443")]) in {400, 0}
    assert target.upstream.calls() == []


def test_an_extended_connect_opens_no_tunnel(target: Target, client: H2Client) -> None:
    assert client.code(client.head(POD_PATH, "CONNECT", (":protocol", "websocket"))) in {400, 0}
    assert target.upstream.calls() == []


def test_trailers_are_not_forwarded(target: Target, client: H2Client) -> None:
    head = client.head("/api/v1/namespaces/demo/pods", "POST", ("content-type", "application/json"))
    stream = client.open(head, end=False)
    client.h2.send_data(stream, b'{"kind":"Pod"}')
    client.h2.send_headers(stream, [("impersonate-user", "admin")], end_stream=True)
    client.flush()
    client.wait(stream)
    assert client.codes[stream] == 200
    (request,) = target.upstream.calls()
    assert b"mpersonate" not in request
    assert request.endswith(b'\r\n\r\n{"kind":"Pod"}')


def test_a_body_over_the_limit_is_refused(target: Target, client: H2Client) -> None:
    head = client.head("/api/v1/namespaces/demo/pods", "POST", ("content-type", "application/json"))
    stream = client.open(head, end=False)
    with suppress(h2.exceptions.ProtocolError, OSError):
        for _ in range(300):
            while client.h2.local_flow_control_window(stream) < 16000:
                for event in client.h2.receive_data(client.connection.recv(65536)):
                    client._see(event)
            client.h2.send_data(stream, b"a" * 16000)
            client.flush()
        client.h2.end_stream(stream)
        client.flush()
    client.wait(stream)
    assert client.codes[stream] == 413
    assert target.upstream.calls() == []


def test_headers_past_the_limit_end_the_connection_or_are_refused(target: Target, client: H2Client) -> None:
    many = [(f"x-{number}", "a" * 1000) for number in range(4000)]
    code = 0
    with suppress(OSError, h2.exceptions.ProtocolError):
        code = client.code(client.head(POD_PATH, "GET", *many))
    assert code in {431, 0}
    assert target.upstream.calls() == []
    assert target.call("GET", POD_PATH).status_code == 200


def test_a_stream_reset_while_it_is_held_cancels_the_hold_and_disturbs_nobody(target: Target, client: H2Client) -> None:
    held = client.open(client.head(HELD_PATH, "DELETE"))
    target.settle(lambda: pending_holds(target.gateway.database))
    client.h2.reset_stream(held, 8)
    client.flush()
    target.settle(lambda: not pending_holds(target.gateway.database), 5)
    assert target.upstream.calls() == []
    assert client.code(client.head()) == 200


def test_100_streams_at_once_each_get_their_own_answer(target: Target, client: H2Client) -> None:
    streams = [
        client.open(client.head(POD_PATH if number % 2 else "/api/v1/namespaces/kube-system/secrets;x"))
        for number in range(100)
    ]
    client.wait(*streams)
    assert [client.codes.get(stream) for stream in streams] == [400, 200] * 50
    assert len(target.upstream.calls()) == 50


def test_a_client_that_never_opens_its_window_does_not_fill_the_memory(target: Target, client: H2Client) -> None:
    assert target.gateway.process is not None
    process = psutil.Process(target.gateway.process.pid)
    sent: list[int] = []

    def act(connection: ssl.SSLSocket) -> None:
        send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 209715200\r\n\r\n")(connection)
        connection.settimeout(3)
        with suppress(TimeoutError):
            for _ in range(200):
                connection.sendall(b"x" * (1 << 20))
                sent.append(1)
        raise EOFError

    target.upstream.acts[POD_PATH.encode()] = act
    before = process.memory_info().rss
    client.open(client.head())
    target.settle(lambda: sent)
    target.settle(lambda: target.upstream.calls())
    peak = max(_watch_memory(process, 4.0)) - before
    assert peak < 64 << 20
    assert len(sent) < 100


def _watch_memory(process: psutil.Process, seconds: float) -> Iterator[int]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield process.memory_info().rss
        time.sleep(0.1)
