"""Who asks is what the token says: whatever else says so is refused, over every protocol, and reaches nothing."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from attacks.claimed_identities import CLAIMS, is_proper, line
from attacks.conftest import POD_PATH, Target
from attacks.h2_client import H2Client
from attacks.wire import Answer, connect_plain, read_answer
from recording_upstream import TOKEN

if TYPE_CHECKING:
    from pathlib import Path

AUTHORIZED = b"Host: h\r\nAuthorization: Bearer <token>\r\n"
GET = b"GET " + POD_PATH.encode() + b" HTTP/1.1\r\n"
EXEC = b"GET " + POD_PATH.encode() + b"/exec?command=ls HTTP/1.1\r\n"
HANDSHAKE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n"
)


@pytest.mark.parametrize("before", [AUTHORIZED, b""], ids=["after the token", "before the token"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_over_http1(target: Target, claim: tuple[bytes, bytes], before: bytes) -> None:
    after = b"" if before else AUTHORIZED
    answer = target.send(GET + before + line(claim) + after + b"\r\n")
    assert answer.code == 400
    if before or not claim[0].startswith((b" ", b"\t")):  # else there is no request yet that a Status could answer
        assert answer.status["reason"] == "BadRequest"
    assert target.upstream.calls() == []


@pytest.mark.parametrize("claim", CLAIMS)
def test_in_the_handshake_of_a_websocket(target: Target, claim: tuple[bytes, bytes]) -> None:
    answer = target.send(EXEC + AUTHORIZED + HANDSHAKE + line(claim) + b"\r\n")
    assert answer.code == 400
    assert answer.status["reason"] == "BadRequest"
    assert target.upstream.calls() == []


@pytest.mark.parametrize("spelling", [bytes, bytes.lower], ids=["as it is", "small"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_over_http2(target: Target, claim: tuple[bytes, bytes], spelling: type[bytes]) -> None:
    name, value = spelling(claim[0]), claim[1]
    with target.connect("h2") as connection:
        client = H2Client(connection, target.gateway.token("agent", "agents"))
        stream = client.open(client.head(POD_PATH, "GET", (name.decode("latin-1"), value.decode("latin-1"))))
        client.wait(stream)
    code = client.codes.get(stream, 0)
    if is_proper((name, value)):
        assert code == 400
        assert json.loads(client.bodies[stream])["reason"] == "BadRequest"
    assert code in {400, 0}
    assert target.upstream.calls() == []


def test_without_a_claim_the_same_calls_reach_the_api_server(target: Target) -> None:
    assert target.send(GET + AUTHORIZED + b"\r\n").code == 200
    target.send(EXEC + AUTHORIZED + HANDSHAKE + b"\r\n")
    with target.connect("h2") as connection:
        client = H2Client(connection, target.gateway.token("agent", "agents"))
        assert client.code(client.head()) == 200
    assert len(target.upstream.calls()) == 3


@pytest.fixture
def certificate(target: Target, tmp_path: Path) -> Path:
    """A client certificate and key of an administrator, by the CA that the API server trusts."""
    pair = target.upstream.authority.issue(
        "system:admin", organizations=("system:masters",), client=True, now=datetime.now(UTC), days=1
    )
    file = tmp_path / "admin.pem"
    file.write_bytes(pair.key_pem + pair.certificate_pem)
    return file


def send_with_certificate(target: Target, certificate: Path, request: bytes) -> Answer:
    context = ssl.create_default_context(cafile=str(target.gateway.ca_file))
    context.load_cert_chain(certificate)
    plain = connect_plain(target.gateway.url)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        connection.sendall(request)
        return read_answer(connection)


def test_a_client_certificate_identifies_nobody(target: Target, certificate: Path) -> None:
    answer = send_with_certificate(target, certificate, GET + b"Host: h\r\n\r\n")
    assert answer.code == 401
    assert answer.status["message"].startswith("no token;")
    assert target.upstream.calls() == []


def test_beside_a_token_a_client_certificate_changes_nothing(target: Target, certificate: Path) -> None:
    assert send_with_certificate(target, certificate, target.fill(GET + AUTHORIZED + b"\r\n")).code == 200
    (request,) = target.upstream.calls()
    assert b"authorization: Bearer " + TOKEN.encode() in request.split(b"\r\n")
    assert set(target.upstream.certificates) == {None}
    denied = b"DELETE /api/v1/namespaces/kube-system/pods/p HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"
    answer = send_with_certificate(target, certificate, target.fill(denied))
    assert answer.code == 403
    assert 'User "agent"' in answer.status["message"]
    assert len(target.upstream.calls()) == 1
