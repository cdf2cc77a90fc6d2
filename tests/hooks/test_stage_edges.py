"""Single stages at their edges: which calls can change something, and what becomes of a hold that nobody waits for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from mitmproxy.test import tflow

from holdfast.approval.store import HoldStore
from holdfast.database import Database
from holdfast.errors import HoldfastError, Unauthorized, Unavailable
from holdfast.exchange import (
    Approvers,
    AuditID,
    Decision,
    Effect,
    Exchange,
    Hold,
    HoldState,
    Identity,
    WireRequest,
)
from holdfast.hooks.approval import Held
from holdfast.hooks.audit import Recorded
from holdfast.hooks.identity import Identified
from holdfast.hooks.kube import Asked
from holdfast.kube.canonical import canonicalize
from holdfast.kube.request_info import parse_request_info

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from pathlib import Path

    from mitmproxy import http

    from holdfast.hooks.gateway import Gateway

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AGENT = Identity("https://ci", "agent", ("agents",))
BOSS = Identity("https://people", "boss", ("platform",))
PODS = "/api/v1/namespaces/demo/pods"


@pytest.mark.parametrize(
    ("method", "target", "upgrade", "expected"),
    [
        ("GET", f"{PODS}/p", "", False),
        ("GET", f"{PODS}?watch=1", "", False),
        ("HEAD", f"{PODS}/p", "", False),
        ("GET", "/version", "", False),
        ("GET", f"{PODS}/p/log?follow=1", "", False),
        ("GET", f"{PODS}/p/exec?command=id", "websocket", True),
        ("POST", f"{PODS}/p/exec?command=id", "spdy/3.1", True),
        ("GET", f"{PODS}/p/attach", "websocket", True),
        ("GET", f"{PODS}/p/portforward", "websocket", True),
        ("GET", f"{PODS}/p", "websocket", True),
        ("GET", "/api/v1/nodes/x/proxy/run/demo/p/c", "", True),
        ("GET", "/api/v1/nodes/x/proxy", "", True),
        ("GET", f"{PODS}/p/proxy/admin", "", True),
        ("GET", "/api/v1/namespaces/demo/services/https:web:443/proxy/", "", True),
        ("POST", PODS, "", True),
        ("DELETE", f"{PODS}/p", "", True),
        ("OPTIONS", "/version", "", False),
    ],
)
def test_what_can_change_the_cluster_is_mutating(method: str, target: str, upgrade: str, expected: bool) -> None:
    info = parse_request_info(method, canonicalize(target.rstrip("/").encode()), upgrade)
    assert info.is_mutating is expected


@dataclass
class Writer:
    """Keeps what is appended, or is a store that fails."""

    fault: HoldfastError | None = None
    entries: list[Any] = field(default_factory=list)

    async def append(self, entry: Any) -> None:
        """As `AuditWriter.append`."""
        if self.fault is not None:
            raise self.fault
        self.entries.append(entry)


@dataclass
class LeavingDesk:
    """Its caller leaves at the very moment at which a person approves."""

    holds: HoldStore

    async def wait(self, hold: Hold, left: asyncio.Event) -> Hold:
        """As `HoldDesk.wait`."""
        left.set()
        return self.holds.decide(hold.id, True, BOSS, "", datetime.now(UTC))


@pytest.fixture
def holds(tmp_path: Path) -> Iterator[HoldStore]:
    """A store of holds of its own."""
    database = Database.open(f"sqlite:///{tmp_path / 'holds.db'}")
    yield HoldStore(database)
    database.close()


def make_call(method: str = "DELETE", target: bytes = b"/api/v1/namespaces/demo") -> tuple[http.HTTPFlow, Exchange]:
    """A call that policy holds."""
    exchange = Exchange(AuditID("1f0e"), WireRequest(method, target, (), True, "127.0.0.1"), NOON, 1.0)
    exchange.info = parse_request_info(method, canonicalize(target), "")
    exchange.identity = AGENT
    exchange.decision = Decision(Effect.HOLD, "hold-it", approvers=Approvers((), ("platform",)), wait_seconds=60)
    return tflow.tflow(), exchange


def make_gateway(flow: http.HTTPFlow, exchange: Exchange, **stages: object) -> Gateway:
    """As much of a gateway as the stage under test looks at."""
    wire = SimpleNamespace(exchanges={flow.id: exchange})
    settings = SimpleNamespace(cluster="test")
    return cast("Gateway", SimpleNamespace(wire=wire, settings=settings, replica="r", **stages))


async def test_an_approval_that_comes_as_the_caller_leaves_ends_as_cancelled(holds: HoldStore) -> None:
    flow, exchange = make_call()
    gateway = make_gateway(flow, exchange, holds=holds, desk=LeavingDesk(holds), writer=Writer())
    await Held(gateway).request(flow)
    assert exchange.hold is not None
    kept = holds.get(exchange.hold.id)
    assert (kept.state, kept.decision_reason) == (HoldState.CANCELLED, "the caller left")
    assert exchange.hold.state is HoldState.CANCELLED
    assert exchange.is_refused
    assert not holds.release(kept.id, kept.digest, datetime.now(UTC))


async def test_a_hold_that_cannot_be_recorded_is_cancelled_where_approvers_see_it(holds: HoldStore) -> None:
    flow, exchange = make_call()
    writer = Writer(Unavailable("the store fails"))
    gateway = make_gateway(flow, exchange, holds=holds, desk=LeavingDesk(holds), writer=writer)
    await Held(gateway).request(flow)
    (kept,) = holds.list()
    assert (kept.state, kept.decision_reason) == (HoldState.CANCELLED, "the gateway could not record it")
    assert isinstance(exchange.refusal, Unavailable)


@pytest.mark.parametrize(
    ("method", "was_forwarded", "code", "retry_after"),
    [("DELETE", True, 500, None), ("DELETE", False, 503, 1), ("GET", True, 503, 1), ("GET", False, 503, 1)],
)
async def test_an_outcome_that_cannot_be_recorded_is_retryable_only_where_repeating_is_harmless(
    method: str, was_forwarded: bool, code: int, retry_after: int | None
) -> None:
    flow, exchange = make_call(method)
    exchange.response.started_mono = 2.0 if was_forwarded else 0.0
    await Recorded(make_gateway(flow, exchange, writer=Writer(Unavailable("the store fails")))).response_body(flow)
    assert exchange.refusal is not None
    assert (exchange.refusal.code, exchange.refusal.retry_after) == (code, retry_after)
    assert not exchange.finished


@dataclass
class Tokens:
    """Knows one token."""

    def cached(self, authorization: str | None) -> Identity | None:
        """As `Authenticator.cached`."""
        return None

    async def authenticate(self, authorization: str | None) -> Identity:
        """As `Authenticator.authenticate`."""
        if authorization == "Bearer good":
            return AGENT
        raise Unauthorized("who are you?", "no_token")


@pytest.mark.parametrize(("token", "caller"), [(b"Bearer good", AGENT), (b"Bearer bad", None), (b"", None)])
@pytest.mark.parametrize(
    ("target", "more"),
    [
        (b"/api/v1/namespaces/demo//pods", ()),
        (b"/api/v1/namespaces/demo/pods", ((b"Impersonate-User", b"admin"),)),
    ],
)
async def test_a_call_refused_for_its_spelling_keeps_its_caller_and_its_first_refusal(
    target: bytes, more: tuple[tuple[bytes, bytes], ...], token: bytes, caller: Identity | None
) -> None:
    flow = tflow.tflow()
    headers = ((b"host", b"h"), *(((b"authorization", token),) if token else ()), *more)
    exchange = Exchange(AuditID("1f0e"), WireRequest("GET", target, headers, True, "127.0.0.1"), NOON, 1.0)
    gateway = make_gateway(flow, exchange, authenticator=Tokens())
    await Asked(gateway).requestheaders(flow)
    first = exchange.refusal
    assert first is not None
    await Identified(gateway).requestheaders(flow)
    assert exchange.refusal is first
    assert first.code == 400
    assert exchange.identity == caller
