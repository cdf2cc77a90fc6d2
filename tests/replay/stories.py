"""Calls as the gateway records them, ready for the ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from audit.entries import request, response
from holdfast.audit.record import (
    Answer,
    Call,
    Caller,
    Client,
    Entry,
    Held,
    Kind,
    Record,
    Refusal,
    Ruling,
    Timing,
    timestamp,
)
from holdfast.exchange import AuditID

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
AGENT = Caller("https://issuer.test", "agent", ("agents",))
BOB = Caller("https://issuer.test", "bob", ("platform",))
PENDING = Held("h-aaaaaaaaaa", "pending")
APPROVED = Held("h-aaaaaaaaaa", "approved", "bob", "asked in the channel")
RELEASED = Held("h-aaaaaaaaaa", "released", "bob", "asked in the channel")


def audit_id(number: int) -> AuditID:
    return AuditID(f"{number}0000000-0000-4000-8000-000000000000")


def record(number: int, kind: Kind, **fields: Any) -> Record:
    arrived = timestamp(START + timedelta(seconds=number))
    total = 8300 if kind is Kind.OUTCOME else None
    common = {"identity": AGENT, "timing": Timing(arrived, total=total)}
    return Record(kind=kind, call=audit_id(number), at=arrived, **(common | fields))


def allowed_call(
    number: int, *, user_agent: str = "kubectl/v1.33", answer: bytes = b'{"kind": "PodList"}'
) -> list[Entry]:
    uri = "/api/v1/namespaces/web/pods?limit=500"
    outcome = record(
        number,
        Kind.OUTCOME,
        what=Call("GET", uri, "list", "", "v1", "pods", "", "web", "", True),
        client=Client("10.0.0.7", user_agent, "kubectl get", "session-1"),
        decision=Ruling("allow", "read-pods", masks={"log-secrets": 2}),
        response=Answer(200, "application/json", len(answer)),
    )
    return [Entry(outcome, response(answer))]


def held_call(number: int, decision: Held = APPROVED) -> list[Entry]:
    body, answer = b'{"propagationPolicy": "Background"}', b'{"status": "Success"}'
    call = Call("DELETE", "/api/v1/namespaces/shop", "delete", "", "v1", "namespaces", "", "shop", "shop", True)
    parts = {"what": call, "decision": Ruling("hold", "delete-namespace", "it takes everything along")}
    approved = record(number, Kind.DECISION, identity=BOB, timing=None, hold=decision)
    outcome = record(number, Kind.OUTCOME, **parts, hold=RELEASED, response=Answer(200, "application/json"))
    return [
        Entry(record(number, Kind.HOLD, **parts, hold=PENDING)),
        Entry(approved),
        Entry(record(number, Kind.INTENT, **parts, hold=RELEASED), request(body)),
        Entry(outcome, response(answer)),
    ]


def refused_call(number: int) -> list[Entry]:
    outcome = record(
        number,
        Kind.OUTCOME,
        identity=None,
        what=Call("GET", "/api/v1/secrets"),
        refusal=Refusal(401, "Unauthorized", "no token", "no_token"),
    )
    return [Entry(outcome)]


def streamed_call(number: int) -> list[Entry]:
    call = Call("GET", "/api/v1/namespaces/web/pods/a/log", "get", "", "v1", "pods", "log", "web", "a", True)
    parts = {"what": call, "decision": Ruling("allow", "read-pods"), "response": Answer(200, "text/plain")}
    lines = (b"line one\n", b"line two\n")
    pieces = [
        Entry(record(number, Kind.CHUNK, identity=None, bytes_down=9), response(line, "text/plain")) for line in lines
    ]
    opened = Entry(record(number, Kind.OPEN, **parts, streamed=True))
    return [opened, *pieces, Entry(record(number, Kind.OUTCOME, **parts, streamed=True, bytes_down=18))]
