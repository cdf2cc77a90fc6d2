"""A browser's token among the subprotocols: taken as any other, and afterwards nowhere."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from attacks.conftest import POD_PATH, Target, running_target
from attacks.mitmweb import MitmwebGateway, everything
from holdfast.kube.subprotocols import BEARER
from recording_upstream import TOKEN
from running import read_stored

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

EXEC = f"{POD_PATH}/exec?command=ls&stdout=true"
UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
HANDSHAKE = UPGRADE + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
)


def encode(token: str) -> str:
    return base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


def offer(token: str) -> str:
    """The header that a browser sends."""
    return f"Sec-WebSocket-Protocol: v5.channel.k8s.io, {BEARER}{encode(token)}\r\n"


def ask(fields: str, method: str = "GET", path: str = EXEC) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode()


def switch(connection: ssl.SSLSocket) -> None:
    """Take the handshake, and end the session when the caller does."""
    connection.sendall(SWITCHED)
    while connection.recv(65536):
        pass
    raise EOFError


@pytest.fixture(scope="module")
def at_mitmweb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with running_target(tmp_path_factory.mktemp("bearer"), MitmwebGateway) as target:
        yield target


def test_the_call_is_the_callers_and_the_token_goes_nowhere(at_mitmweb: Target) -> None:
    target, web = at_mitmweb, at_mitmweb.gateway
    assert isinstance(web, MitmwebGateway)
    token = web.token("browser-user", "agents")
    target.upstream.acts[EXEC.partition("?")[0].encode()] = switch
    with target.connect() as connection:
        connection.sendall(ask(HANDSHAKE + offer(token)))
        answer = read_answer_of_upgrade(connection)
        assert b"HTTP/1.1 101" in answer
        assert b"Sec-WebSocket-Protocol: v5.channel.k8s.io" in answer
        places = dict(everything(web))
    target.settle(lambda: target.outcomes(POD_PATH + "/exec"))
    (record,) = target.outcomes(POD_PATH + "/exec")
    assert record["identity"]["username"] == "browser-user"
    (request,) = target.upstream.calls()
    assert b"sec-websocket-protocol: v5.channel.k8s.io" in request.split(b"\r\n")
    assert b"authorization: Bearer " + TOKEN.encode() in request.split(b"\r\n")
    places |= {f"after {path}": content for path, content in everything(web)}
    places |= {"answer": answer, "upstream": request, "output": "".join(web.output).encode()}
    places |= read_stored(web.database)
    assert any(b"/exec" in content for place, content in places.items() if place.startswith("/flows"))
    assert web.flow_file.exists()
    places |= {str(file): file.read_bytes() for file in web.folder.rglob("*") if file.is_file()}
    for place, content in places.items():
        for secret in (token, encode(token), token.split(".")[2], "bearer.authorization"):
            assert secret.encode() not in content, place


def read_answer_of_upgrade(connection: ssl.SSLSocket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        received = connection.recv(65536)
        assert received, data
        data += received
    return data


def other(token: str) -> str:
    """The same token with a signature that is not its issuer's."""
    head, body, signature = token.split(".")
    return f"{head}.{body}.{signature[:-8]}{signature[:8]}"


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        (401, HANDSHAKE + "Sec-WebSocket-Protocol: {bearer}\r\n"),
        (401, HANDSHAKE + "Sec-WebSocket-Protocol: {bearer}, \r\n"),
        (401, HANDSHAKE + "Sec-WebSocket-Protocol: v5.channel.k8s.io, {bearer}, {bearer}\r\n"),
        (
            401,
            HANDSHAKE + "Sec-WebSocket-Protocol: v5.channel.k8s.io, {bearer}\r\nSec-WebSocket-Protocol: {bearer}\r\n",
        ),
        (401, HANDSHAKE + "Sec-WebSocket-Protocol: v5.channel.k8s.io, {bearer}A\r\n"),
        (401, HANDSHAKE + "Sec-WebSocket-Protocol: v5.channel.k8s.io, {bearer}.\r\n"),
        (401, HANDSHAKE + "Sec-WebSocket-Protocol: v5.channel.k8s.io, {prefix}\r\n"),
        (401, HANDSHAKE + "Sec-WebSocket-Protocol: v5.channel.k8s.io, {forged}\r\n"),
        (401, HANDSHAKE + "Sec-WebSocket-Protocol: v5.channel.k8s.io, {prefix}Zm9vIGJhcg\r\n"),
        (400, HANDSHAKE + "Sec-WebSocket-Protocol: v5.channel.k8s.io, {bearer}=\r\n"),
        (400, HANDSHAKE + "Sec-WebSocket-Protocol: v5.channel.k8s.io, {upper}\r\n"),
        (400, HANDSHAKE + "Sec-WebSocket-Protocol: v5.channel.k8s.io, x{bearer}\r\n"),
        (400, HANDSHAKE + "Sec-WebSocket-Protocol: v5.channel.k8s.io,\r\n {bearer}\r\n"),
        (400, HANDSHAKE + "Sec_WebSocket_Protocol: v5.channel.k8s.io, {bearer}\r\n"),
        (400, HANDSHAKE + "Authorization: Bearer {token}\r\nSec-WebSocket-Protocol: v5.channel.k8s.io, {bearer}\r\n"),
        (400, "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nSec-WebSocket-Protocol: v5.channel.k8s.io, {bearer}\r\n"),
        (400, "Sec-WebSocket-Protocol: v5.channel.k8s.io, {bearer}\r\n"),
        (400, "Upgrade: websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io, {bearer}\r\n"),
    ],
)
def test_every_other_spelling_is_refused_with_a_status_and_kept_nowhere(target: Target, code: int, fields: str) -> None:
    token = target.gateway.token("browser-user", "agents")
    bearer = BEARER + encode(token)
    sent = fields.format(
        bearer=bearer,
        prefix=BEARER,
        forged=BEARER + encode(other(token)),
        upper=BEARER.upper() + encode(token),
        token=token,
    )
    answer = target.send(ask(sent))
    assert answer.code == code
    assert answer.status["reason"] == {400: "BadRequest", 401: "Unauthorized"}[code]
    assert target.upstream.calls() == []
    kept = b"".join(
        [answer.body, *read_stored(target.gateway.database).values(), "".join(target.gateway.output).encode()]
    )
    for secret in (token, encode(token), encode(other(token))):
        assert secret.encode() not in kept


def test_it_is_for_websockets_only_and_no_other_call_takes_it(target: Target) -> None:
    token = target.gateway.token("browser-user", "agents")
    answer = target.send(ask(HANDSHAKE + offer(token), path=POD_PATH))
    assert answer.code == 400
    assert "cannot be upgraded" in answer.status["message"]
    assert target.upstream.calls() == []
