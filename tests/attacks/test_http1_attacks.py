"""HTTP/1.1 as an attacker writes it: what the caller gets, and that nothing reached the API server."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import psutil
import pytest

from attacks.wire import connect_plain, read_answer, read_answers
from recording_upstream import TOKEN
from running import read_stored

if TYPE_CHECKING:
    import ssl

    from attacks.conftest import Target

POD = b"/api/v1/namespaces/demo/pods/p"
AUTHORIZED = b"Host: h\r\nAuthorization: Bearer <token>\r\n"
JSON_BODY = b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"}}'

AMBIGUOUS_TARGETS = [
    b"/api/v1/namespaces/default/%73ecrets/x",
    b"/api/v1/namespaces/default%2Fsecrets%2Fx",
    b"/api/v1%2Fnamespaces/default/pods",
    b"/api/v1/namespaces/demo/pods/",
    b"/api/v1/namespaces/demo/pods;x",
    b"/api/v1/namespaces/demo//pods",
    b"//api/v1/namespaces/demo/pods",
    b"/api/v1/namespaces/demo/../kube-system/secrets",
    b"/api/v1/namespaces/demo/./pods",
    b"/api/v1/namespaces/demo/%2e%2e/pods",
    b"/api/v1/namespaces/demo/pods%00",
    b"/api/v1/namespaces/demo/pods\\x",
    b"/api/v1/namespaces/demo/pods#x",
    b"/api/v1/namespaces/demo/pods%zz",
    b"/api/v1/namespaces/demo/p\xc3\xb6ds",
    b"/api/v1/namespaces/demo/pods?limit=1&limit=2",
    b"/api/v1/namespaces/demo/pods?watch=1;limit=2",
    b"https://other.test/api/v1/namespaces/demo/pods",
    b"http://127.0.0.1/api/v1/namespaces/demo/pods",
]

FORBIDDEN_HEADERS = [
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Connection: Upgrade\r\nUpgrade: h2c",
    b"TE: gzip",
    b"Content-Encoding: gzip",
]

SMUGGLING = [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /secret HTTP/1.1\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"Content-Length: 1\r\nContent-Length: 5\r\n\r\nhello",
    b"Content-Length: +5\r\n\r\nhello",
    b"Content-Length: -1\r\n\r\n",
    b"Content-Length: 5, 5\r\n\r\nhello",
    b"Content-Length: 0x5\r\n\r\nhello",
]


@pytest.mark.parametrize("path", AMBIGUOUS_TARGETS)
def test_a_target_that_can_be_read_in_two_ways_is_refused_before_the_api_server(target: Target, path: bytes) -> None:
    answer = target.send(b"GET " + path + b" HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")
    assert answer.code == 400
    assert answer.status["reason"] == "BadRequest"
    assert target.upstream.calls() == []


@pytest.mark.parametrize("line", FORBIDDEN_HEADERS)
def test_a_header_that_could_mean_something_upstream_is_refused(target: Target, line: bytes) -> None:
    answer = target.send(b"GET " + POD + b" HTTP/1.1\r\n" + AUTHORIZED + line + b"\r\n\r\n")
    assert answer.code == 400
    assert answer.status["reason"] == "BadRequest"
    assert target.upstream.calls() == []


@pytest.mark.parametrize("tail", SMUGGLING)
def test_a_body_whose_length_can_be_read_in_two_ways_is_refused(target: Target, tail: bytes) -> None:
    head = b"POST /api/v1/namespaces/demo/pods HTTP/1.1\r\nContent-Type: application/json\r\n" + AUTHORIZED
    with target.connect() as connection:
        connection.sendall(target.fill(head + b"Connection: close\r\n" + tail))
        answers = read_answers(connection)
    assert [answer.code for answer in answers] == [400]
    assert target.upstream.calls() == []


def test_connect_opens_no_tunnel(target: Target) -> None:
    answer = target.send(
        b"CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\nAuthorization: Bearer <token>\r\n\r\n"
    )
    assert answer.code == 400
    assert answer.status["reason"] == "BadRequest"
    assert target.upstream.calls() == []


def test_plain_http_on_the_tls_port_is_told_to_use_https(target: Target) -> None:
    with connect_plain(target.gateway.url) as connection:
        connection.sendall(target.fill(b"GET " + POD + b" HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"))
        answer = read_answer(connection)
    assert answer.code == 400
    assert "HTTPS only" in answer.status["message"]
    assert target.upstream.calls() == []


def test_a_request_line_of_another_protocol_reaches_nothing(target: Target) -> None:
    for request in (
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        answer = target.send(request)
        assert answer.code in {0, 400, 401, 403}
    assert target.upstream.calls() == []


def test_what_is_forwarded_is_what_was_classified_and_nothing_of_the_caller(target: Target) -> None:
    extra = b"Cookie: c=1\r\nAudit-ID: mine\r\nX-Custom: y\r\nAccept-Encoding: gzip\r\nOrigin: https://o\r\nVia: v\r\n"
    assert target.send(b"GET " + POD + b"?pretty=1 HTTP/1.1\r\n" + AUTHORIZED + extra + b"\r\n").code == 200
    (request,) = target.upstream.calls()
    head = request.split(b"\r\n")
    names = [line.split(b":")[0].lower() for line in head[1:] if line]
    assert head[0] == b"GET " + POD + b"?pretty=1 HTTP/1.1"
    assert sorted(names) == [b"accept", b"accept-encoding", b"audit-id", b"authorization", b"host"]
    assert b"authorization: Bearer " + TOKEN.encode() in head
    assert b"audit-id: mine" not in head


def test_expect_100_continue_is_answered_only_after_the_call_is_decided(target: Target) -> None:
    head = b"POST /api/v1/namespaces/kube-system/pods HTTP/1.1\r\n" + AUTHORIZED + b"Expect: 100-continue\r\n"
    with target.connect() as connection:
        connection.sendall(target.fill(head + b"Content-Length: 5\r\n\r\n"))
        connection.settimeout(2)
        try:
            interim = connection.recv(4096)
        except TimeoutError:
            interim = b""
        assert not interim.startswith(b"HTTP/1.1 2")
        connection.settimeout(20)
        connection.sendall(b"hello")
        assert read_answer(connection).code == 403
    assert target.upstream.calls() == []


def test_expect_100_continue_works_for_an_allowed_call(target: Target) -> None:
    head = b"POST /api/v1/namespaces/demo/pods HTTP/1.1\r\nContent-Type: application/json\r\n" + AUTHORIZED
    with target.connect() as connection:
        connection.sendall(target.fill(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(JSON_BODY)))
        assert connection.recv(4096).startswith(b"HTTP/1.1 100")
        connection.sendall(JSON_BODY)
        assert read_answer(connection).code == 200
    (request,) = target.upstream.calls()
    assert request.endswith(b"\r\n\r\n" + JSON_BODY)
    assert b"expect" not in request.lower()


@pytest.mark.parametrize("name", [b"access_token", b"token", b"ACCESS_TOKEN", b"access%5Ftoken", b"access_t%6fken"])
def test_a_token_in_the_query_is_refused_and_kept_nowhere(target: Target, name: bytes) -> None:
    secret = b"query-token-" + name.hex().encode()
    answer = target.send(b"GET " + POD + b"?" + name + b"=" + secret + b" HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")
    assert answer.code == 400
    assert secret not in answer.body
    assert target.upstream.calls() == []
    kept = b"".join(read_stored(target.gateway.database).values())
    assert secret not in kept
    assert secret.decode() not in "".join(target.gateway.output)


def test_a_header_section_past_the_limit_is_refused_with_a_status(target: Target) -> None:
    answer = target.send(b"GET " + POD + b" HTTP/1.1\r\n" + AUTHORIZED + b"X-A: " + b"a" * (100 << 10) + b"\r\n\r\n")
    assert answer.code == 431
    assert answer.status["reason"] == "RequestHeaderFieldsTooLarge"
    assert target.upstream.calls() == []


def test_headers_that_never_end_end_the_connection(target: Target) -> None:
    with target.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert not _accepts(connection, b"X-A: " + b"a" * 1000 + b"\r\n", 4 << 20)
    assert target.upstream.calls() == []


def test_a_request_body_over_the_limit_is_refused_with_a_status(target: Target) -> None:
    head = b"POST /api/v1/namespaces/demo/pods HTTP/1.1\r\nContent-Type: application/json\r\n" + AUTHORIZED
    with target.connect() as connection:
        connection.sendall(target.fill(head + b"Content-Length: %d\r\n\r\n" % (4 << 20)))
        connection.sendall(b"a" * (4 << 20))
        answer = read_answer(connection)
    assert answer.code == 413
    assert answer.status["reason"] == "RequestEntityTooLarge"
    assert target.upstream.calls() == []
    target.settle(
        lambda: any(r["refusal"]["code"] == 413 for r in target.outcomes("/api/v1/namespaces/demo/pods")[-1:])
    )


def test_a_chunk_extension_that_never_ends_ends_the_connection(target: Target) -> None:
    head = b"POST /api/v1/namespaces/demo/pods HTTP/1.1\r\nContent-Type: application/json\r\n" + AUTHORIZED
    with target.connect() as connection:
        connection.sendall(target.fill(head + b"Transfer-Encoding: chunked\r\n\r\n5;"))
        assert not _accepts(connection, b"a" * 4096, 4 << 20)
    assert target.upstream.calls() == []


def test_chunk_extensions_are_not_forwarded(target: Target) -> None:
    head = b"POST /api/v1/namespaces/demo/pods HTTP/1.1\r\nContent-Type: application/json\r\n" + AUTHORIZED
    chunk = b"%x;ext=1\r\n%s\r\n0\r\n\r\n" % (len(JSON_BODY), JSON_BODY)
    assert target.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk).code == 200
    (request,) = target.upstream.calls()
    assert request.endswith(b"\r\n\r\n" + JSON_BODY)
    assert b"ext=1" not in request
    assert b"content-length: %d\r\n" % len(JSON_BODY) in request


def test_trailers_end_the_connection_and_reach_nothing(target: Target) -> None:
    head = b"POST /api/v1/namespaces/demo/pods HTTP/1.1\r\nContent-Type: application/json\r\n" + AUTHORIZED
    body = b"%x\r\n%s\r\n0\r\nImpersonate-User: admin\r\n\r\n" % (len(JSON_BODY), JSON_BODY)
    before = len(target.outcomes("/api/v1/namespaces/demo/pods"))
    answer = target.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert answer.code in {0, 400}
    assert target.upstream.calls() == []
    assert "crashed" not in "".join(target.gateway.output)
    target.settle(lambda: len(target.outcomes("/api/v1/namespaces/demo/pods")) == before + 1)


def test_broken_chunks_reach_nothing(target: Target) -> None:
    head = b"POST /api/v1/namespaces/demo/pods HTTP/1.1\r\nContent-Type: application/json\r\n" + AUTHORIZED
    for body in (b"zz\r\nhello\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n"):
        answer = target.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert answer.code in {0, 400}
    assert target.upstream.calls() == []


def test_a_pipelined_request_after_a_refused_one_is_decided_on_its_own(target: Target) -> None:
    refused = b"GET /api/v1/namespaces/demo/secrets;x HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"
    denied = b"DELETE /api/v1/namespaces/kube-system/pods/p HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"
    allowed = b"GET " + POD + b" HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"
    with target.connect() as connection:
        connection.sendall(target.fill(refused + denied + allowed))
        answers = read_answers(connection, at_most=3)
    assert [answer.code for answer in answers] == [400, 403, 200]
    assert [request.split(b"\r\n")[0] for request in target.upstream.calls()] == [b"GET " + POD + b" HTTP/1.1"]


def test_the_body_of_a_refused_request_is_not_read_as_a_request(target: Target) -> None:
    inner = target.fill(b"GET " + POD + b" HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")
    outer = b"POST /api/v1/namespaces/kube-system/pods HTTP/1.1\r\n" + AUTHORIZED
    with target.connect() as connection:
        connection.sendall(target.fill(outer + b"Content-Length: %d\r\n\r\n" % len(inner)) + inner)
        connection.shutdown(socket.SHUT_WR)
        answers = read_answers(connection)
    assert [answer.code for answer in answers] in ([403], [])
    assert target.upstream.calls() == []


@pytest.mark.parametrize(
    "path",
    [
        POD,
        b"/api/v1/namespaces/demo/secrets?watch=1",
        b"/api/v1/watch/namespaces/demo/secrets",
        b"/api/v1/namespaces/demo/pods/p/log?follow=1",
        b"/version",
    ],
)
def test_an_upgrade_that_would_pass_a_watch_or_a_log_unmasked_is_refused(target: Target, path: bytes) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    answer = target.send(b"GET " + path + b" HTTP/1.1\r\n" + AUTHORIZED + upgrade + b"\r\n")
    assert answer.code in {400, 403}
    assert answer.status
    assert target.upstream.calls() == []


def test_a_token_in_the_websocket_subprotocol_is_refused(target: Target) -> None:
    path = b"/api/v1/namespaces/demo/pods/p/exec?command=id&stdout=1"
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
        b"Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.<token>, v5.channel.k8s.io\r\n"
    )
    answer = target.send(b"GET " + path + b" HTTP/1.1\r\nHost: h\r\n" + upgrade + b"\r\n")
    assert answer.code in {400, 401}
    assert answer.status
    assert target.upstream.calls() == []


def test_a_caller_who_leaves_before_the_body_is_whole_sends_nothing_upstream(target: Target) -> None:
    head = b"POST /api/v1/namespaces/demo/pods HTTP/1.1\r\nContent-Type: application/json\r\n" + AUTHORIZED
    before = len(target.outcomes("/api/v1/namespaces/demo/pods"))
    with target.connect() as connection:
        connection.sendall(target.fill(head + b"Content-Length: 100\r\n\r\n" + JSON_BODY))
    target.settle(lambda: len(target.outcomes("/api/v1/namespaces/demo/pods")) == before + 1)
    assert target.upstream.calls() == []


def test_what_a_caller_sends_while_its_call_is_held_is_bounded(target: Target) -> None:
    assert target.gateway.process is not None
    process = psutil.Process(target.gateway.process.pid)
    before = process.memory_info().rss
    with target.connect() as connection:
        connection.sendall(target.fill(b"DELETE /api/v1/namespaces/demo HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"))
        _accepts(connection, b"a" * 65536, 64 << 20)
        grown = process.memory_info().rss - before
    assert grown < 32 << 20
    assert target.upstream.calls() == []


@pytest.mark.parametrize("method", [b"get", b"TRACE", b"FOO", b"OPTIONS", b"PROPFIND"])
def test_methods_that_kubernetes_does_not_know_are_refused(target: Target, method: bytes) -> None:
    answer = target.send(method + b" " + POD + b" HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")
    assert answer.code in {400, 403, 405}
    assert target.upstream.calls() == []


def _accepts(connection: ssl.SSLSocket, piece: bytes, limit: int) -> bool:
    """Whether the other side took `limit` bytes, in pieces, without ending the connection."""
    connection.settimeout(3)
    try:
        for _ in range(limit // len(piece)):
            connection.sendall(piece)
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False
