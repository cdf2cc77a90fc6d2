"""An API server that fails, lies, or cannot be trusted: the caller gets a Status each time, and it is recorded."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest

from attacks.conftest import POD_PATH, Target
from attacks.scripted_upstream import ScriptedUpstream, answer, send
from holdfast.certificates import make_authority
from recording_upstream import POD, TOKEN
from running import RunningGateway, Upstream, read_stored

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from attacks.scripted_upstream import Act

SECRET_PATH = "/api/v1/namespaces/demo/secrets/s"
SECRETS_PATH = "/api/v1/namespaces/demo/secrets"


def assert_status(response: httpx.Response, code: int, message: str) -> None:
    assert response.status_code == code
    status = response.json()
    assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", code)
    assert message in status["message"]
    assert TOKEN not in response.text


def assert_recorded(target: Target, path: str, code: int | None) -> None:
    target.settle(lambda: target.outcomes(path))
    last = target.outcomes(path)[-1]
    assert (last.get("refusal") or {}).get("code") == code


ACTS: dict[str, tuple[str, Act, int, str]] = {
    "refuses the gateway's credential": (
        POD_PATH,
        send(answer(b'{"kind":"Status","code":401}', code=401)),
        502,
        "gateway's own credential",
    ),
    "closes without an answer": (POD_PATH, send(b"", close=True), 502, "whether the call took effect is not known"),
    "answers with what is not HTTP": (POD_PATH, send(b"SSH-2.0-x\r\n\r\n\r\n", close=True), 502, "the API server"),
    "answers half a head": (POD_PATH, send(b"HTTP/1.1 200 OK\r\nContent-Ty", close=True), 502, "the API server"),
    "answers with a broken header": (
        POD_PATH,
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nhello", close=True),
        502,
        "the API server",
    ),
    "answers with a forbidden header name": (
        POD_PATH,
        send(b"HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 2\r\n\r\n{}"),
        502,
        "the API server",
    ),
    "closes in the middle of the body": (
        POD_PATH,
        send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", close=True),
        502,
        "the API server",
    ),
    "sends trailers": (
        POD_PATH,
        send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-A: b\r\n\r\n"),
        502,
        "the API server",
    ),
    "compresses what must be masked": (
        SECRET_PATH,
        send(
            answer(gzip.compress(b'{"kind":"Secret","data":{"a":"c2VjcmV0"}}'), headers=b"Content-Encoding: gzip\r\n")
        ),
        502,
        "compressed",
    ),
    "answers a masked call in protobuf": (
        SECRET_PATH,
        send(answer(b"k8s\x00data", media_type=b"application/vnd.kubernetes.protobuf")),
        502,
        "cannot be found",
    ),
    "answers a masked call with what is not JSON": (SECRET_PATH, send(answer(b'{"data": {"a": c2Vj')), 502, ""),
    "repeats a key in a Secret": (
        SECRET_PATH,
        send(answer(b'{"kind":"Secret","data":{"a":"c2VjcmV0"},"data":{"a":"c2VjcmV0"}}')),
        502,
        "",
    ),
    "repeats a key inside the data of a Secret": (
        SECRET_PATH,
        send(answer(b'{"kind":"Secret","data":{"a":"c2VjcmV0","a":"c2VjcmV0"}}')),
        502,
        "",
    ),
    "answers with Secrets too long to mask, and says so": (
        SECRETS_PATH,
        send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 73400320\r\n\r\n{", close=True),
        502,
        "longer than",
    ),
}


@pytest.mark.parametrize("case", ACTS)
def test_an_answer_that_cannot_be_passed_on_becomes_a_status(target: Target, case: str) -> None:
    path, act, code, message = ACTS[case]
    target.upstream.acts[path.encode()] = act
    before = len(target.outcomes(path))
    response = target.call("GET", path)
    assert_status(response, code, message)
    assert "c2VjcmV0" not in response.text
    target.settle(lambda: len(target.outcomes(path)) == before + 1)
    assert b"c2VjcmV0" not in b"".join(read_stored(target.gateway.database).values())


def test_secrets_too_long_to_mask_are_withheld_though_their_length_was_not_told(target: Target) -> None:
    def act(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + b"c2VjcmV0" * (0x100000 // 8) + b"\r\n"
        for _ in range(70):
            connection.sendall(piece)
        connection.sendall(b"0\r\n\r\n")

    target.upstream.acts[SECRETS_PATH.encode()] = act
    response = target.call("GET", SECRETS_PATH)
    assert_status(response, 502, "longer than")
    assert_recorded(target, SECRETS_PATH, 502)


def test_a_long_answer_that_breaks_off_ends_loudly(target: Target) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9000000\r\n\r\n"
    target.upstream.acts[POD_PATH.encode()] = send(head + b"x" * 5_000_000, close=True)
    with pytest.raises(httpx.RemoteProtocolError):
        target.call("GET", POD_PATH)
    target.settle(lambda: target.outcomes(POD_PATH)[-1]["error"])


def test_an_answer_that_is_an_error_of_the_api_servers_own_passes_as_it_is(target: Target) -> None:
    body = json.dumps({"kind": "Status", "code": 404, "reason": "NotFound"}).encode()
    target.upstream.acts[POD_PATH.encode()] = send(answer(body, code=404))
    response = target.call("GET", POD_PATH)
    assert (response.status_code, response.content) == (404, body)


@pytest.fixture(scope="module")
def abandoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A gateway whose API server has gone."""
    folder = tmp_path_factory.mktemp("abandoned")
    upstream = ScriptedUpstream(folder)
    upstream.start()
    gateway = RunningGateway(folder / "gateway", Upstream(upstream.server, upstream.ca_file, TOKEN))
    gateway.start()
    upstream.stop()
    yield Target(gateway, upstream)
    gateway.stop()


def test_an_api_server_that_has_gone_is_a_503(abandoned: Target) -> None:
    response = abandoned.call("GET", POD_PATH)
    assert_status(response, 503, "cannot reach the API server")
    assert response.headers["retry-after"] == "1"
    assert_recorded(abandoned, POD_PATH, 503)


@pytest.mark.parametrize(("signed", "host"), [(False, "127.0.0.1"), (True, "other.test")])
def test_an_impostor_sees_no_request_and_no_credential(abandoned: Target, signed: bool, host: str) -> None:
    impostor = ScriptedUpstream(abandoned.upstream.folder)
    now = datetime.now(UTC)
    authority = abandoned.upstream.authority if signed else make_authority("upstream-ca", now=now, days=2)
    port = int(abandoned.upstream.server.rpartition(":")[2])
    impostor.start_as(authority, host, port)
    try:
        response = abandoned.call("GET", POD_PATH)
    finally:
        impostor.stop()
    assert_status(response, 503, "cannot reach the API server")
    assert impostor.requests == []


def test_the_gateway_finds_its_api_server_again(abandoned: Target) -> None:
    again = ScriptedUpstream(abandoned.upstream.folder)
    again.start_as(abandoned.upstream.authority, "127.0.0.1", int(abandoned.upstream.server.rpartition(":")[2]))
    try:
        response = abandoned.call("GET", POD_PATH)
    finally:
        again.stop()
    assert response.content == POD
