"""Somebody who was revoked gets nothing more: no call, no event of a watch, no byte of a session, no approval."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from attacks.conftest import POD_PATH, ScriptedGateway, pending_holds
from attacks.h2_client import H2Client
from attacks.scripted_upstream import answer, send
from attacks.wire import read_answer
from holdfast.approval.store import HoldStore
from holdfast.database import Database
from holdfast.errors import Conflict
from holdfast.exchange import Identity
from holdfast.identity.denylist import Revocation, Scope
from holdfast.identity.store import RevocationStore
from running import ISSUER

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from attacks.conftest import Target

WATCH_PATH = "/api/v1/namespaces/demo/pods"
HELD_PATH = "/api/v1/namespaces/demo"
EVENT = b'{"type":"ADDED","object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}}}\n'
POD = b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}}'


@pytest.fixture
def target(make_target: Callable[..., Target]) -> Target:
    target = make_target()
    target.upstream.acts[POD_PATH.encode()] = send(answer(POD))
    return target


def revoke(target: Target, *arguments: str) -> dict[str, Any]:
    done = target.gateway.holdfast("identity", "revoke", "--reason", "taken over", "-o", "json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def endless(seen: threading.Event) -> Callable[[ssl.SSLSocket], None]:
    """A watch with one event, which then says nothing; `seen` is set when the gateway ends it."""

    def act(connection: ssl.SSLSocket) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
        connection.settimeout(60)
        if connection.recv(1) == b"":
            seen.set()
        raise EOFError

    return act


def session(seen: threading.Event) -> Callable[[ssl.SSLSocket], None]:
    """An exec session in which nobody says anything."""

    def act(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
        connection.settimeout(60)
        if connection.recv(1) == b"":
            seen.set()
        raise EOFError

    return act


def watch(target: Target, token: str, *, http2: bool) -> tuple[bytes, bool]:
    """What was received, and whether it ended as an error."""
    received = b""
    headers = {"Authorization": f"Bearer {token}"}
    try:
        with (
            target.client(http2=http2) as client,
            client.stream("GET", WATCH_PATH + "?watch=1", headers=headers, timeout=60) as response,
        ):
            for data in response.iter_raw():
                received += data
    except httpx.HTTPError:
        return received, True
    return received, False


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_a_silent_watch_is_cut_and_others_go_on(target: Target, *, http2: bool) -> None:
    ended = threading.Event()
    target.upstream.acts[WATCH_PATH.encode()] = endless(ended)
    agent, other = target.gateway.token("agent", "agents"), target.gateway.token("other", "agents")
    with ThreadPoolExecutor() as pool:
        watching = pool.submit(watch, target, agent, http2=http2)
        going_on = pool.submit(watch, target, other, http2=http2)
        target.settle(lambda: len(target.upstream.calls()) == 2)
        revoke(target, "--subject", "agent")
        assert watching.result(30) == (EVENT, True)
        assert ended.wait(30)
        assert target.call("GET", POD_PATH, token=other).status_code == 200
        assert not going_on.done()
        revoke(target, "--user", "other")
        assert going_on.result(30) == (EVENT, True)
    target.settle(lambda: len(target.outcomes(WATCH_PATH + "?watch=1")) == 2)
    assert all("revoked" in outcome["error"] for outcome in target.outcomes(WATCH_PATH + "?watch=1"))


def test_a_silent_session_is_cut(target: Target) -> None:
    ended = threading.Event()
    path = f"{POD_PATH}/exec?command=sh&stdin=true&stdout=true"
    target.upstream.acts[f"{POD_PATH}/exec".encode()] = session(ended)
    upgrade = b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer <token>\r\nContent-Length: 0\r\n".encode()
    with target.connect() as connection:
        connection.sendall(target.fill(head + upgrade + b"\r\n"))
        assert connection.recv(12) == b"HTTP/1.1 101"
        revoke(target, "--subject", "agent")
        connection.settimeout(30)
        while connection.recv(1000):
            pass
    assert ended.wait(30)
    target.settle(lambda: target.outcomes(f"{POD_PATH}/exec"))
    assert "revoked" in target.outcomes(f"{POD_PATH}/exec")[0]["error"]


def test_a_silent_session_ends_when_nobody_can_tell_who_is_revoked(make_target: Callable[..., Target]) -> None:
    """A partition from the database: what is open would go on, since it needs no record before it ends."""
    ended = threading.Event()
    target = make_target(ScriptedGateway, script=Path(__file__).with_name("blind_gateway.py"))
    target.upstream.acts[f"{POD_PATH}/exec".encode()] = session(ended)
    upgrade = b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
    head = f"POST {POD_PATH}/exec?command=sh&stdin=true&stdout=true HTTP/1.1\r\nHost: h\r\n".encode()
    with target.connect() as connection:
        connection.sendall(
            target.fill(head + b"Authorization: Bearer <token>\r\nContent-Length: 0\r\n" + upgrade + b"\r\n")
        )
        assert connection.recv(12) == b"HTTP/1.1 101"
        with closing(sqlite3.connect(target.gateway.database, timeout=30)) as database:
            database.execute("ALTER TABLE revocations RENAME TO away")
        connection.settimeout(30)
        while connection.recv(1000):
            pass
    assert ended.wait(30)
    target.settle(lambda: target.outcomes(f"{POD_PATH}/exec"))
    assert "whether the caller was revoked cannot be told" in target.outcomes(f"{POD_PATH}/exec")[0]["error"]


BODY_PATH = "/apis/apps/v1/namespaces/demo/deployments"
BODY = b'{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"}}'


def begin_without_end(target: Target, token: str, connection: ssl.SSLSocket) -> Callable[[], tuple[int, bytes]]:
    """Send a call but for the last byte of its body; what comes of it once that is sent too."""
    if connection.selected_alpn_protocol() == "h2":
        client = H2Client(connection, token)
        stream = client.open(client.head(BODY_PATH, "POST", ("content-type", "application/json")), end=False)
        client.h2.send_data(stream, BODY[:-1])
        client.flush()

        def end() -> tuple[int, bytes]:
            client.h2.send_data(stream, BODY[-1:], end_stream=True)
            client.flush()
            client.wait(stream)
            return client.codes[stream], client.bodies[stream]

        return end
    head = f"POST {BODY_PATH} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer <token>\r\n".encode()
    framing = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    connection.sendall(target.fill(head + framing, token) + BODY[:-1])

    def end() -> tuple[int, bytes]:
        connection.sendall(BODY[-1:])
        found = read_answer(connection)
        return found.code, found.body

    return end


def changes(target: Target) -> int:
    """How many calls that change something came through."""
    return sum(call.startswith(b"POST ") for call in target.upstream.calls())


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_call_that_begins_before_and_ends_after_does_not_pass(target: Target, protocol: str) -> None:
    target.upstream.acts[BODY_PATH.encode()] = send(answer(BODY, code=201))
    token = target.gateway.token("agent", "agents")
    with target.connect(protocol) as first, target.connect(protocol) as second:
        assert begin_without_end(target, token, first)()[0] == 201
        end = begin_without_end(target, token, second)
        revoke(target, "--subject", "agent")
        target.settle(lambda: target.call("GET", POD_PATH, token=token).status_code == 401)
        code, body = end()
    assert (code, b"the token was revoked" in body) == (401, True)
    assert changes(target) == 1
    assert target.outcomes(BODY_PATH)[-1]["refusal"]["why"] == "revoked"


def test_a_call_does_not_outlive_its_token_before_it_is_whole(target: Target) -> None:
    target.upstream.acts[BODY_PATH.encode()] = send(answer(BODY, code=201))
    token = target.gateway.token("agent", "agents", exp=int(time.time()) + 5)
    with target.connect("h2") as connection:
        end = begin_without_end(target, token, connection)
        target.settle(lambda: target.call("GET", POD_PATH, token=token).status_code == 401)
        code, body = end()
    assert (code, b"the token has expired" in body) == (401, True)
    assert changes(target) == 0
    assert target.outcomes(BODY_PATH)[-1]["refusal"]["why"] == "expired"


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_an_answer_that_the_api_server_takes_its_time_for_is_kept_back(target: Target, *, http2: bool) -> None:
    asked, revoked = threading.Event(), threading.Event()
    path = "/api/v1/namespaces/demo/pods/slow"

    def act(connection: ssl.SSLSocket) -> None:
        asked.set()
        assert revoked.wait(60)
        send(answer(POD))(connection)

    target.upstream.acts[path.encode()] = act
    token = target.gateway.token("agent", "agents")
    with ThreadPoolExecutor() as pool, target.client(http2=http2) as client:
        waiting = pool.submit(client.get, path, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        assert asked.wait(30)
        revoke(target, "--subject", "agent")
        target.settle(lambda: target.call("GET", POD_PATH, token=token).status_code == 401)
        revoked.set()
        refused = waiting.result(60)
    assert refused.status_code == 401
    assert refused.json()["message"].startswith("the token was revoked")
    (outcome,) = target.outcomes(path)
    assert (outcome["refusal"]["why"], outcome["response"]["code"]) == ("revoked", 200)


def test_a_held_call_is_given_up_and_an_approval_comes_too_late(target: Target) -> None:
    with ThreadPoolExecutor() as pool:
        held = pool.submit(target.call, "DELETE", HELD_PATH)
        target.settle(lambda: pending_holds(target.gateway.database))
        revoke(target, "--subject", "agent")
        refused = held.result(30)
    assert refused.status_code == 403
    assert "revoked" in refused.json()["message"]
    assert pending_holds(target.gateway.database) == []
    assert target.upstream.calls() == []


def test_no_call_passes_until_it_is_lifted(target: Target) -> None:
    token = target.gateway.token("agent", "agents", jti="t-1")
    newer = target.gateway.token("agent", "agents", jti="t-2")
    assert target.call("GET", POD_PATH, token=token).status_code == 200
    revocation = revoke(target, "--token-id", "t-1")
    target.settle(lambda: target.call("GET", POD_PATH, token=token).status_code == 401)
    refused = target.call("GET", POD_PATH, token=token)
    assert refused.json()["message"].startswith("the token was revoked")
    assert "taken over" not in refused.text
    assert target.outcomes(POD_PATH)[-1]["refusal"]["why"] == "revoked"
    assert target.call("GET", POD_PATH, token=newer).status_code == 200
    before = len(target.upstream.calls())
    assert target.call("GET", POD_PATH, token=token).status_code == 401
    assert len(target.upstream.calls()) == before
    done = target.gateway.holdfast("identity", "restore", revocation["id"], "--reason", "a mistake")
    assert done.returncode == 0, done.stderr
    target.settle(lambda: target.call("GET", POD_PATH, token=token).status_code == 200)


def test_a_revocation_is_on_record_and_listed(target: Target) -> None:
    first = revoke(target, "--subject", "agent", "--for", "8h", "--requested-by", "carol")
    twice = target.gateway.holdfast("identity", "revoke", "--subject", "agent", "--reason", "x", "--for", "7h")
    assert (twice.returncode, f"{first['id']} revokes it already" in twice.stderr) == (1, True)
    listed = json.loads(target.gateway.holdfast("identity", "revocations", "-o", "json").stdout)
    assert listed["revocations"] == [first]
    longer = revoke(target, "--subject", "agent", "--requested-by", "dora")
    assert (longer["id"], longer["until"], longer["revokedBy"]) == (first["id"], None, "dora")
    listed = json.loads(target.gateway.holdfast("identity", "revocations", "-o", "json").stdout)
    assert listed["revocations"] == [longer]
    lifted = target.gateway.holdfast("identity", "restore", "r-", "--reason", "over", "--requested-by", "erin")
    assert (lifted.returncode, first["id"] in lifted.stdout) == (0, True)
    told = json.loads(target.gateway.holdfast("identity", "log", "-o", "json").stdout)["log"]
    assert [(each["kind"], each["revocationID"], each["by"], bool(each["until"])) for each in told] == [
        ("lifted", first["id"], "erin", False),
        ("revoked", first["id"], "dora", False),
        ("revoked", first["id"], "carol", True),
    ]
    verdict = target.gateway.holdfast("audit", "verify", "-o", "json")
    assert json.loads(verdict.stdout)["verdict"] == "UNANCHORED"


def test_an_approved_call_of_somebody_revoked_is_not_released(target: Target) -> None:
    """Revoked and approved in one moment, so that the gateway meets the approval first: it looks again."""
    now, boss = datetime.now(UTC), Identity(ISSUER, "boss", ("platform",))
    revocation = Revocation("r-1", ISSUER, Scope.SUBJECT, "agent", "taken over", "carol", now)
    with ThreadPoolExecutor() as pool, closing(Database.open(f"sqlite:///{target.gateway.database}")) as database:
        held = pool.submit(target.call, "DELETE", HELD_PATH)
        target.settle(lambda: pending_holds(target.gateway.database))
        (hold_id,) = pending_holds(target.gateway.database)
        RevocationStore(database).add(revocation)
        with suppress(Conflict):  # the gateway happened to read the denylist between the two
            HoldStore(database).decide(hold_id, True, boss, "", now)
        refused = held.result(30)
    assert refused.status_code == 403
    assert "revoked" in refused.json()["message"]
    assert target.upstream.calls() == []


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ((), "expected one of --token-id, --subject and --user"),
        (("--subject", "a", "--user", "b"), "expected one of --token-id, --subject and --user"),
        (("--subject", "a\nb"), "expected printable text"),
        (("--subject", "a", "--issuer", "https://other.test"), "--issuer: found 'https://other.test'"),
        (("--subject", "a", "--for", "soon"), "--for: found 'soon'"),
    ],
)
def test_what_cannot_be_revoked_is_told(target: Target, arguments: tuple[str, ...], fault: str) -> None:
    done = target.gateway.holdfast("identity", "revoke", "--reason", "x", *arguments)
    assert done.returncode == 2
    assert fault in done.stderr
