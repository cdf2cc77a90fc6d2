"""Refusals on the wire, and what the record has of them: endless answers, bodies that never come, failed records."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from attacks.conftest import POD_PATH, Target, free_port, pending_holds, running_target
from attacks.scripted_upstream import ScriptedUpstream, answer, send
from attacks.test_http2_attacks import H2Client
from attacks.test_store_failures import full_disk
from attacks.wire import read_answer
from recording_upstream import POD, TOKEN
from running import RunningGateway, Upstream, read_stored

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

    from attacks.scripted_upstream import Act

PODS_PATH = "/api/v1/namespaces/demo/pods"
SECRETS_PATH = "/api/v1/namespaces/demo/secrets"
LOG_PATH = f"{POD_PATH}/log"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'{"type":"ADDED","object":{"kind":"Secret","metadata":{"name":"s"},"data":{"a":"c2VjcmV0"}}}\n'
AUTHORIZED = b"Host: h\r\nAuthorization: Bearer <token>\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def last_outcome(target: Target, path: str, before: int = 0) -> dict[str, Any]:
    """The record of how the last call of this path ended, once there are more than `before`."""
    target.settle(lambda: len(target.outcomes(path)) > before)
    return target.outcomes(path)[-1]


class Endless:
    """Begins an answer that has no end, and notes when the gateway hangs up."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.begin = threading.Event()
        self.begin.set()
        self.stopped = threading.Event()

    def __call__(self, connection: ssl.SSLSocket) -> None:
        self.begin.wait(20)
        connection.sendall(self.head)
        connection.settimeout(20)
        try:
            is_over = connection.recv(1) == b""
        except TimeoutError:
            is_over = False
        except OSError:
            is_over = True
        if is_over:
            self.stopped.set()
        raise EOFError


REFUSED_ANSWERS = {
    "a watch that is not JSON, under a mask": (
        b"GET " + SECRETS_PATH.encode() + b"?watch=1",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/yaml\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(EVENT),
    ),
    "an upgrade that nobody asked for": (
        b"GET " + POD_PATH.encode(),
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nc2VjcmV0",
    ),
    "Secrets that do not fit": (
        b"GET " + SECRETS_PATH.encode(),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999999999\r\n\r\n" + EVENT,
    ),
}


@pytest.mark.parametrize("case", REFUSED_ANSWERS)
def test_a_refused_answer_without_end_is_a_status_at_once_and_the_api_server_is_told_to_stop(
    target: Target, case: str
) -> None:
    line, head = REFUSED_ANSWERS[case]
    endless = Endless(head)
    path = line.split(b" ")[1]
    target.upstream.acts[path.split(b"?")[0]] = endless
    before = len(target.outcomes(path.decode()))
    refused = target.send(line + b" HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")
    assert refused.code == 502
    assert refused.status["reason"] == "BadGateway"
    assert b"c2VjcmV0" not in refused.body
    assert endless.stopped.wait(10)
    assert last_outcome(target, path.decode(), before)["refusal"]["code"] == 502


@pytest.mark.parametrize(
    "target_bytes",
    [
        PODS_PATH.encode() + b"?labelSelector=app.kubernetes.io%2Ftoken%3Dabc",
        PODS_PATH.encode() + b"?labelSelector=token=abc",
        PODS_PATH.encode() + b"?fieldSelector=metadata.name%3Daccess_token",
    ],
)
def test_a_selector_that_speaks_of_tokens_passes_and_is_shown_in_the_record(
    target: Target, target_bytes: bytes
) -> None:
    before = len(target.outcomes(PODS_PATH))
    assert target.send(b"GET " + target_bytes + b" HTTP/1.1\r\n" + AUTHORIZED + b"\r\n").code == 200
    assert target.upstream.calls()[0].startswith(b"GET " + target_bytes + b" ")
    assert last_outcome(target, PODS_PATH, before)["what"]["uri"] == target_bytes.decode()


def test_a_command_with_a_token_among_its_arguments_passes(target: Target) -> None:
    path = POD_PATH.encode() + b"/exec?command=env&command=TOKEN%3Dx&command=token%3Dy&stdout=true"
    target.upstream.acts[POD_PATH.encode() + b"/exec"] = send(answer(b"{}", code=400))
    target.send(b"GET " + path + b" HTTP/1.1\r\n" + AUTHORIZED + UPGRADE + b"\r\n")
    assert target.upstream.calls()[0].startswith(b"GET " + path + b" ")


@pytest.mark.parametrize("query", [b"access_token=<s>", b"token=<s>", b"watch=1&token=<s>", b"a=1;token=<s>"])
def test_a_token_in_the_query_is_refused_and_stored_nowhere(target: Target, query: bytes) -> None:
    secret = b"reviewed-secret-" + query.hex().encode()
    before = len(target.outcomes(PODS_PATH))
    line = b"GET " + PODS_PATH.encode() + b"?" + query.replace(b"<s>", secret)
    refused = target.send(line + b" HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")
    assert refused.code == 400
    assert target.upstream.calls() == []
    last = last_outcome(target, PODS_PATH, before)
    assert last["what"]["uri"] == PODS_PATH + "?withheld"
    assert secret not in b"".join(read_stored(target.gateway.database).values())


@pytest.mark.parametrize(
    ("path", "token", "code"),
    [
        ("/api/v1/nodes/n/proxy", "<token>", 403),
        ("/api/v1/namespaces/demo//pods", "<token>", 400),
        (POD_PATH, "nobody", 401),
    ],
)
def test_a_refusal_of_head_has_no_body_and_the_next_call_is_answered_properly(
    target: Target, path: str, token: str, code: int
) -> None:
    refused = f"HEAD {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    with target.connect() as connection:
        connection.sendall(target.fill(refused))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        assert head.startswith(b"HTTP/1.1 %d " % code)
        connection.sendall(target.fill(b"GET " + POD_PATH.encode() + b" HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"))
        answered = read_answer(connection)
    assert (answered.code, answered.body) == (200, POD)


def test_a_refusal_of_head_has_no_body_on_http2(target: Target) -> None:
    with target.connect("h2") as connection:
        client = H2Client(connection, target.gateway.token("agent", "agents"))
        refused = client.open(client.head("/api/v1/nodes/n/proxy", "HEAD"))
        client.wait(refused)
        allowed = client.open(client.head(POD_PATH))
        client.wait(allowed)
    assert (client.codes[refused], client.bodies[refused]) == (403, b"")
    assert client.bodies[allowed] == POD


@pytest.mark.parametrize("line", [b"", b"Authorization: Bearer nobody\r\n"])
@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
@pytest.mark.parametrize("length", [b"Content-Length: 1000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_stranger_is_told_so_without_its_body(target: Target, line: bytes, expect: bytes, length: bytes) -> None:
    before = len(target.outcomes(PODS_PATH))
    with target.connect() as connection:
        connection.sendall(
            b"POST " + PODS_PATH.encode() + b" HTTP/1.1\r\nHost: h\r\n" + line + expect + length + b"\r\n"
        )
        first = connection.recv(65536)
    assert first.startswith(b"HTTP/1.1 401 ")
    assert last_outcome(target, PODS_PATH, before)["refusal"]["code"] == 401
    assert target.upstream.calls() == []


def test_a_stranger_is_told_so_without_its_body_on_http2(target: Target) -> None:
    with target.connect("h2") as connection:
        client = H2Client(connection, "nobody")
        refused = client.open(client.head(PODS_PATH, "POST"), end=False)
        client.wait(refused)
    assert (client.codes[refused], refused in client.ended) == (401, True)
    assert target.upstream.calls() == []


def test_the_body_of_a_caller_who_is_known_but_denied_is_recorded_masked(target: Target) -> None:
    body = b'{"kind":"Secret","apiVersion":"v1","metadata":{"name":"s"},"data":{"a":"ZGVuaWVkLXNlY3JldA=="}}'
    before = len(target.outcomes(SECRETS_PATH))
    refused = target.call("POST", SECRETS_PATH, content=body, headers={"content-type": "application/json"})
    assert refused.status_code == 403
    kept = last_outcome(target, SECRETS_PATH, before)["requestBody"]
    assert kept["commitment"]
    assert kept["size"] > 0
    stored = b"".join(read_stored(target.gateway.database).values())
    assert b'"name":"s"},"data":{"a":' in stored
    assert b"ZGVuaWVkLXNlY3JldA==" not in stored


@pytest.mark.parametrize(("token", "username"), [("<token>", "agent"), ("nobody", None)])
@pytest.mark.parametrize(
    ("path", "line"),
    [("/api/v1/namespaces/spelled//pods", ""), ("/api/v1/namespaces/acting/pods", "Impersonate-User: admin\r\n")],
)
def test_a_call_refused_for_its_spelling_is_recorded_with_its_caller_where_known(
    target: Target, path: str, line: str, token: str, username: str | None
) -> None:
    before = len(target.outcomes(path))
    request = f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n{line}\r\n"
    assert target.send(request.encode()).code == 400
    last = last_outcome(target, path, before)
    assert last["refusal"]["code"] == 400
    assert (last.get("identity") or {}).get("username") == username
    assert target.upstream.calls() == []


def test_an_api_server_that_fails_after_100_continue_is_told_as_a_status(target: Target) -> None:
    target.upstream.acts[PODS_PATH.encode()] = send(b"", close=True)
    body = b'{"kind":"Pod"}'
    head = b"POST " + PODS_PATH.encode() + b" HTTP/1.1\r\nContent-Type: application/json\r\n" + AUTHORIZED
    with target.connect() as connection:
        connection.sendall(target.fill(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)))
        assert connection.recv(4096).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        answered = read_answer(connection)
    assert answered.code == 502
    assert "whether the call took effect is not known" in answered.status["message"]


def test_a_response_that_outgrew_the_buffer_is_counted_as_the_wire_has_it(target: Target) -> None:
    piece = b"x" * 65536
    target.upstream.acts[POD_PATH.encode()] = send(CHUNKED + chunk(piece) * 80 + b"0\r\n\r\n")
    before = len(target.outcomes(POD_PATH))
    assert len(target.call("GET", POD_PATH).content) == 80 * len(piece)
    last = last_outcome(target, POD_PATH, before)
    assert last["streamed"]
    assert last["bytesDown"] == 80 * len(piece)


STREAMS: dict[str, tuple[str, Act, str, int]] = {
    "a watch": (f"{SECRETS_PATH}?watch=1", send(CHUNKED + chunk(EVENT) * 3 + b"0\r\n\r\n"), "secret-values", 3),
    "a followed log": (
        f"{LOG_PATH}?follow=true",
        send(
            CHUNKED.replace(b"application/json", b"text/plain")
            + chunk(b"password=one\nplain\n")
            + chunk(b"password=two")
            + b"0\r\n\r\n"
        ),
        "secrets-in-logs",
        2,
    ),
}


@pytest.mark.parametrize("case", STREAMS)
def test_what_was_masked_in_a_stream_is_counted_in_its_outcome(target: Target, case: str) -> None:
    path, act, mask, count = STREAMS[case]
    target.upstream.acts[path.partition("?")[0].encode()] = act
    before = len(target.outcomes(path))
    response = target.call("GET", path)
    assert response.status_code == 200
    assert "c2VjcmV0" not in response.text
    assert "password=one" not in response.text
    assert last_outcome(target, path, before)["decision"]["masks"] == {mask: count}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A gateway that does not wait long for its store."""
    with running_target(tmp_path_factory.mktemp("reviewed"), settings={"audit": {"deadlineSeconds": 1.0}}) as target:
        yield target


@pytest.fixture
def fragile(running: Target) -> Target:
    """That gateway, able to record again, its upstream forgetful."""
    running.settle(lambda: running.call("GET", POD_PATH).status_code == 200)
    running.upstream.forget()
    return running


@pytest.mark.parametrize(("method", "code", "retry_after"), [("POST", 500, None), ("GET", 503, "1")])
def test_a_write_whose_outcome_cannot_be_recorded_is_not_answered_as_if_it_could_be_repeated(
    fragile: Target, method: str, code: int, retry_after: str | None
) -> None:
    def act(connection: ssl.SSLSocket) -> None:
        fragile.upstream.release.wait(20)
        send(answer(POD))(connection)

    fragile.upstream.acts[PODS_PATH.encode()] = act
    with ThreadPoolExecutor() as pool:
        calling = pool.submit(fragile.call, method, PODS_PATH, json={"kind": "Pod"} if method == "POST" else None)
        fragile.settle(fragile.upstream.calls)
        with full_disk(fragile):
            fragile.upstream.release.set()
            response = calling.result(20)
    assert (response.status_code, response.headers.get("retry-after")) == (code, retry_after)
    assert response.json()["kind"] == "Status"
    assert POD not in response.content


def test_a_watch_whose_opening_cannot_be_recorded_is_a_status_at_once_and_the_api_server_is_told_to_stop(
    fragile: Target,
) -> None:
    endless = Endless(CHUNKED + chunk(EVENT))
    endless.begin.clear()
    fragile.upstream.acts[SECRETS_PATH.encode()] = endless
    with ThreadPoolExecutor() as pool:
        calling = pool.submit(fragile.call, "GET", f"{SECRETS_PATH}?watch=1")
        fragile.settle(fragile.upstream.calls)
        with full_disk(fragile):
            endless.begin.set()
            response = calling.result(20)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["kind"] == "Status"
    assert endless.stopped.wait(10)


def test_a_watch_whose_end_cannot_be_recorded_ends_loudly(fragile: Target) -> None:
    def act(connection: ssl.SSLSocket) -> None:
        connection.sendall(CHUNKED + chunk(EVENT))
        fragile.upstream.release.wait(20)
        connection.sendall(b"0\r\n\r\n")

    fragile.upstream.acts[SECRETS_PATH.encode()] = act
    request = b"GET " + SECRETS_PATH.encode() + b"?watch=1 HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"
    before = len(_chunks(fragile))
    with fragile.connect() as connection:
        connection.sendall(fragile.fill(request))
        received = b""
        while b"ADDED" not in received:
            received += connection.recv(65536)
        fragile.settle(lambda: len(_chunks(fragile)) > before)
        with full_disk(fragile):
            fragile.upstream.release.set()
            received += _read_to_end(connection)
    assert b"Transfer-Encoding: chunked".lower() in received.lower()
    assert b"\r\n0\r\n\r\n" not in received


def _chunks(target: Target) -> list[dict[str, Any]]:
    return [record for record in target.records() if record["kind"] == "chunk"]


def _read_to_end(connection: ssl.SSLSocket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            received += data
    return received


def test_the_second_gateway_on_a_port_leaves_the_holds_of_the_first_alone(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    gateway = RunningGateway(tmp_path / "gateway", Upstream(upstream.server, upstream.ca_file, TOKEN))
    port = free_port()
    gateway.write_config(listen_port=port)
    target = Target(gateway, upstream)
    gateway.start()
    try:
        with ThreadPoolExecutor() as pool:
            held = pool.submit(_call_until_it_ends, target, "/api/v1/namespaces/demo")
            target.settle(lambda: pending_holds(gateway.database))
            waiting = pending_holds(gateway.database)
            second = gateway.holdfast("serve")
            assert (second.returncode, "another Holdfast process writes the log" in second.stderr) == (2, True)
            assert "is the gateway running already? Stop it, or give this one a stateDir of its own." in second.stderr
            assert pending_holds(gateway.database) == waiting
            gateway.settings = {"stateDir": "elsewhere", "audit": {"database": f"sqlite:///{gateway.database}"}}
            gateway.write_config(listen_port=port)
            third = gateway.holdfast("serve")
            assert (third.returncode, "cannot listen" in third.stderr) == (2, True)
            assert pending_holds(gateway.database) == waiting
            assert not held.done()
            gateway.stop()
    finally:
        gateway.stop()


def _call_until_it_ends(target: Target, path: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        target.call("DELETE", path)
