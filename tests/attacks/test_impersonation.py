"""With impersonation on: who asks is what the token says, whatever the caller sends and whatever the token holds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from attacks.claimed_identities import CLAIMS, line
from attacks.conftest import POD_PATH, Target, pending_holds, running_target
from recording_upstream import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

IMPERSONATE = {"upstream": {"impersonate": True}}
OURS = [
    b"impersonate-user: agent",
    b"impersonate-group: agents",
    b"impersonate-group: system:authenticated",
    b"impersonate-extra-holdfast.dev%2fissuer: https://issuer.test",
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with running_target(tmp_path_factory.mktemp("impersonation"), settings=IMPERSONATE) as target:
        yield target


@pytest.fixture
def impersonating(running: Target) -> Target:
    """The gateway with impersonation; its upstream has seen nothing."""
    running.upstream.forget()
    return running


def told(request: bytes) -> list[bytes]:
    """The lines of a request that say who asks, except the token's own ID."""
    lines = [line for line in request.split(b"\r\n") if line.lower().startswith((b"impersonate", b"x-remote"))]
    return [line for line in lines if b"credential-id" not in line]


def test_the_api_server_is_told_who_asks_beside_the_credential(impersonating: Target) -> None:
    assert impersonating.call("GET", POD_PATH).status_code == 200
    (request,) = impersonating.upstream.calls()
    assert told(request) == OURS
    assert b"authorization: Bearer " + TOKEN.encode() in request.split(b"\r\n")


def test_without_the_setting_it_is_told_nothing(target: Target) -> None:
    assert target.call("GET", POD_PATH).status_code == 200
    (request,) = target.upstream.calls()
    assert b"impersonate" not in request.lower()


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_a_caller_says_of_themselves_is_refused_and_never_beside_ours(
    impersonating: Target, claim: tuple[bytes, bytes]
) -> None:
    head = b"GET " + POD_PATH.encode() + b" HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer <token>\r\n"
    answer = impersonating.send(head + line(claim) + b"\r\n")
    assert answer.code == 400
    assert answer.status["reason"] == "BadRequest"
    assert impersonating.upstream.calls() == []


@pytest.mark.parametrize(
    "groups",
    [
        ["agents", " system:masters"],
        ["agents", "platform "],
        ["agents", *(f"group-{number}" for number in range(1000))],
    ],
    ids=["leading space", "trailing space", "1000 groups"],
)
def test_a_token_whose_names_would_arrive_changed_or_not_at_all_is_refused_with_a_status(
    impersonating: Target, groups: list[str]
) -> None:
    answer = impersonating.call("GET", POD_PATH, token=impersonating.gateway.token("agent", *groups))
    assert answer.status_code == 403
    assert answer.json()["kind"] == "Status"
    assert "the API server cannot be told who you are" in answer.json()["message"]
    assert impersonating.upstream.calls() == []


@pytest.mark.parametrize("group", ["system:masters", "a\r\nImpersonate-Group: system:masters", "a\x00", ""])
def test_names_that_the_identity_stage_refuses_never_get_so_far(impersonating: Target, group: str) -> None:
    answer = impersonating.call("GET", POD_PATH, token=impersonating.gateway.token("agent", "agents", group))
    assert answer.status_code == 401
    assert impersonating.upstream.calls() == []


def test_a_comma_in_a_group_makes_no_second_group(impersonating: Target) -> None:
    token = impersonating.gateway.token("agent", "agents", "a,system:masters")
    assert impersonating.call("GET", POD_PATH, token=token).status_code == 200
    (request,) = impersonating.upstream.calls()
    assert told(request)[1:4] == [OURS[1], b"impersonate-group: a,system:masters", OURS[2]]


def test_a_name_beyond_ascii_goes_as_utf8_and_a_run_is_told(impersonating: Target) -> None:
    token = impersonating.gateway.token("zoë", "agents", run_id="99")
    assert impersonating.call("GET", POD_PATH, token=token).status_code == 200
    (request,) = impersonating.upstream.calls()
    assert told(request)[0] == "impersonate-user: zoë".encode()
    assert told(request)[-1] == b"impersonate-extra-holdfast.dev%2frun-id: 99"


def test_nobody_is_asked_to_sign_for_a_call_that_could_not_be_made(impersonating: Target) -> None:
    token = impersonating.gateway.token("agent", "agents", "spaced ")
    answer = impersonating.call("DELETE", "/api/v1/namespaces/demo", token=token)
    assert answer.status_code == 403
    assert pending_holds(impersonating.gateway.database) == []
    with closing(sqlite3.connect(f"file:{impersonating.gateway.database}?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT count(*) FROM holds").fetchone() == (0,)


def test_a_session_is_asked_for_in_the_callers_name_too(impersonating: Target) -> None:
    head = (
        f"GET {POD_PATH}/exec?command=ls HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\nAuthorization: Bearer <token>\r\n\r\n"
    )
    impersonating.send(head.encode())
    requests: list[Any] = impersonating.upstream.calls()
    assert [told(request) for request in requests] == [OURS]
