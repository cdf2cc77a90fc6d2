"""The approvals API as approvers meet it: a real uvicorn on loopback, TLS, tokens of a development issuer."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from console.world import World, make_world
from holdfast.audit.ledger import Ledger
from holdfast.audit.record import Kind, decode
from holdfast.console.server import open_application
from holdfast.errors import Unavailable
from holdfast.exchange import Hold, HoldState
from holdfast.serving import Server, Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from holdfast.audit.receipt import Receipt
    from holdfast.audit.record import Entry
    from holdfast.errors import HoldfastError


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@asynccontextmanager
async def serving(world: World, host: str = "127.0.0.1") -> AsyncIterator[httpx.AsyncClient]:
    async with AsyncExitStack() as stack:
        service = Service("the approvals API", "", world.folder / "listener.crt", world.folder / "listener.key")
        listener = stack.enter_context(service.bind(host, 0))
        application = await open_application(world.settings, stack)
        server = Server(service.configure(application), ignore_interrupt=True)
        listener.listen()
        running = asyncio.create_task(server.serve(sockets=[listener]))
        trust = ssl.create_default_context(cafile=world.folder / "ca.crt")
        async with httpx.AsyncClient(base_url=service.url(listener), verify=trust) as client:
            yield client
        server.stop()
        await running


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(world) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def recorded_decisions(world: World, hold: Hold) -> list[tuple[str, str, str, str]]:
    with world.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT leaf FROM records WHERE call_id = ?", (hold.audit_id,)).scalars()
        told = [decode(leaf).record for leaf in rows]
    return [
        (record.identity.username, record.hold.state, record.hold.decided_by, record.hold.decision_reason)
        for record in told
        if record.kind is Kind.DECISION and record.identity and record.hold
    ]


async def test_health_needs_no_token_and_everything_else_does(client: httpx.AsyncClient) -> None:
    health = await client.get("/healthz")
    assert (health.status_code, health.text) == (200, "ok\n")
    for method, path in [("GET", "/v1/holds"), ("GET", "/v1/holds/h-x"), ("POST", "/v1/holds/h-x/approve")]:
        refused = await client.request(method, path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["kind"] == "Status"
        assert refused.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("user", "groups"), [("bob", ("platform",)), ("carol", ())])
async def test_another_person_named_by_group_or_by_name_approves(
    client: httpx.AsyncClient, world: World, user: str, groups: tuple[str, ...]
) -> None:
    hold = world.add_hold()
    answer = await client.post(
        f"/v1/holds/{hold.id}/approve", json={"reason": "asked for"}, headers=bearer(world.token(user, *groups))
    )
    assert answer.status_code == 200
    assert answer.json()["state"] == "approved"
    assert answer.json()["mayDecide"] is False
    stored = world.holds.get(hold.id)
    assert (stored.state, stored.decided_by, stored.decision_reason) == (HoldState.APPROVED, user, "asked for")
    assert recorded_decisions(world, hold) == [(user, "approved", user, "asked for")]


async def test_an_approval_needs_no_body(client: httpx.AsyncClient, world: World) -> None:
    hold = world.add_hold()
    answer = await client.post(f"/v1/holds/{hold.id}/approve", headers=bearer(world.token("carol")))
    assert answer.status_code == 200


async def test_a_denial_keeps_its_reason(client: httpx.AsyncClient, world: World) -> None:
    hold = world.add_hold()
    answer = await client.post(
        f"/v1/holds/{hold.id}/deny", json={"reason": "not on a Friday"}, headers=bearer(world.token("carol"))
    )
    assert answer.json()["decisionReason"] == "not on a Friday"
    assert world.holds.get(hold.id).state is HoldState.DENIED


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "  "}])
async def test_a_denial_without_a_reason_is_refused(
    client: httpx.AsyncClient, world: World, body: dict[str, str]
) -> None:
    hold = world.add_hold()
    answer = await client.post(f"/v1/holds/{hold.id}/deny", json=body, headers=bearer(world.token("carol")))
    assert answer.status_code == 400
    assert world.holds.get(hold.id).state is HoldState.PENDING


@pytest.mark.parametrize("spelling", ["agent", "Agent", "AGENT"])
async def test_nobody_decides_their_own_call_however_their_name_is_spelled(
    client: httpx.AsyncClient, world: World, spelling: str
) -> None:
    hold = world.add_hold(user="agent")
    token = world.token(spelling, "platform", "agents")
    for action in ("approve", "deny"):
        answer = await client.post(
            f"/v1/holds/{hold.id}/{action}", json={"reason": "it is fine"}, headers=bearer(token)
        )
        assert answer.status_code in {403, 404}
    assert world.holds.get(hold.id).state is HoldState.PENDING
    assert recorded_decisions(world, hold) == []


async def test_an_outsider_neither_sees_nor_decides(client: httpx.AsyncClient, world: World) -> None:
    hold = world.add_hold()
    outsider = bearer(world.token("mallory", "agents", "Platform"))
    unknown = await client.get("/v1/holds/h-aaaaaaaaab", headers=outsider)
    seen = await client.get(f"/v1/holds/{hold.id}", headers=outsider)
    decided = await client.post(f"/v1/holds/{hold.id}/approve", headers=outsider)
    assert [unknown.status_code, seen.status_code, decided.status_code] == [404, 404, 404]
    assert seen.json()["message"] == unknown.json()["message"].replace("h-aaaaaaaaab", hold.id)
    assert (await client.get("/v1/holds", headers=outsider)).json() == {"items": []}
    assert world.holds.get(hold.id).state is HoldState.PENDING


async def test_the_requester_sees_their_hold_and_cannot_decide_it(client: httpx.AsyncClient, world: World) -> None:
    hold = world.add_hold(user="agent")
    answer = await client.get(f"/v1/holds/{hold.id}", headers=bearer(world.token("agent")))
    assert answer.status_code == 200
    assert answer.json()["mayDecide"] is False
    approver = await client.get(f"/v1/holds/{hold.id}", headers=bearer(world.token("carol")))
    assert approver.json() == answer.json() | {"mayDecide": True}


async def test_a_list_is_filtered_by_state(client: httpx.AsyncClient, world: World) -> None:
    first, second = world.add_hold(1), world.add_hold(2)
    carol = bearer(world.token("carol"))
    await client.post(f"/v1/holds/{first.id}/deny", json={"reason": "no"}, headers=carol)

    async def listed(query: str) -> set[str]:
        answer = await client.get(f"/v1/holds{query}", headers=carol)
        return {hold["id"] for hold in answer.json()["items"]}

    assert await listed("") == {first.id, second.id}
    assert await listed("?state=pending") == {second.id}
    assert await listed("?state=pending&state=denied") == {first.id, second.id}
    assert (await client.get("/v1/holds?state=maybe", headers=carol)).status_code == 400


async def test_of_many_decisions_on_one_hold_exactly_one_counts(client: httpx.AsyncClient, world: World) -> None:
    hold = world.add_hold()
    tokens = [world.token(f"admin-{number}", "platform") for number in range(8)]
    answers = await asyncio.gather(
        *(client.post(f"/v1/holds/{hold.id}/approve", headers=bearer(token)) for token in tokens)
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert len(recorded_decisions(world, hold)) == 1


async def test_an_expired_hold_cannot_be_approved(client: httpx.AsyncClient, world: World) -> None:
    hold = world.add_hold(wait=timedelta(seconds=-1))
    answer = await client.post(f"/v1/holds/{hold.id}/approve", headers=bearer(world.token("carol")))
    assert answer.status_code == 409
    assert recorded_decisions(world, hold) == []


async def test_an_unknown_hold_or_path_is_not_found(client: httpx.AsyncClient, world: World) -> None:
    carol = bearer(world.token("carol"))
    for method, path in [("GET", "/v1/holds/h-x"), ("POST", "/v1/holds/h-x/deny"), ("GET", "/v2"), ("GET", "/")]:
        answer = await client.request(method, path, json={"reason": "x"}, headers=carol)
        assert (answer.status_code, answer.json()["kind"]) == (404, "Status")
    refused = await client.delete("/v1/holds", headers=carol)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert refused.json()["message"] == "DELETE /v1/holds: it takes GET, HEAD"


async def test_when_the_record_cannot_be_written_nothing_is_decided(
    client: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = world.add_hold()

    def fail(self: Ledger, batch: object) -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(Ledger, "write", fail)
    answer = await client.post(f"/v1/holds/{hold.id}/approve", headers=bearer(world.token("carol")))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert world.holds.get(hold.id).state is HoldState.PENDING
    monkeypatch.undo()
    again = await client.post(f"/v1/holds/{hold.id}/approve", headers=bearer(world.token("carol")))
    assert again.status_code == 200


async def test_the_record_is_durable_before_the_hold_moves(
    client: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = world.add_hold()
    states: list[HoldState] = []
    write = Ledger.write

    def watch(self: Ledger, batch: list[Entry]) -> list[Receipt | HoldfastError]:
        written = write(self, batch)
        states.append(world.holds.get(hold.id).state)
        return written

    monkeypatch.setattr(Ledger, "write", watch)
    await client.post(f"/v1/holds/{hold.id}/approve", headers=bearer(world.token("carol")))
    assert states == [HoldState.PENDING]
    assert world.holds.get(hold.id).state is HoldState.APPROVED


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"reason", 400),
        (b'{"reason": 1}', 400),
        (b'{"reason": "x", "approve": true}', 400),
        (b'{"reason": "two\\nlines"}', 400),
        (b'{"reason": "\\u001b[2J"}', 400),
        (b'{"reason": "' + b"x" * 1001 + b'"}', 400),
        (b'{"reason": "' + b"x" * 20_000 + b'"}', 413),
    ],
)
async def test_a_body_that_is_not_one_plain_reason_is_refused(
    client: httpx.AsyncClient, world: World, body: bytes, code: int
) -> None:
    hold = world.add_hold()
    answer = await client.post(f"/v1/holds/{hold.id}/deny", content=body, headers=bearer(world.token("carol")))
    assert answer.status_code == code
    assert world.holds.get(hold.id).state is HoldState.PENDING


async def test_a_fault_is_a_status_that_says_nothing_of_its_cause(
    client: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.console.application.render_hold", lambda hold, viewer: 1 / 0)
    hold = world.add_hold()
    answer = await client.get(f"/v1/holds/{hold.id}", headers=bearer(world.token("carol")))
    assert answer.status_code == 500
    assert answer.json()["reason"] == "InternalError"
    assert "ZeroDivision" not in answer.text


async def test_two_authorization_headers_are_one_too_many(client: httpx.AsyncClient, world: World) -> None:
    headers = [("Authorization", f"Bearer {world.token(user)}") for user in ("carol", "agent")]
    assert (await client.get("/v1/holds", headers=headers)).status_code == 400
