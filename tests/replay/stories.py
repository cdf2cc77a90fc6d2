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
AGENT = Caller(issuer="https://issuer.test", username="agent", groups=("agents",))
BOB = Caller(issuer="https://issuer.test", username="bob", groups=("platform",))
PENDING = Held(id="h-aaaaaaaaaa", state="pending")
APPROVED = Held(id="h-aaaaaaaaaa", state="approved", decided_by="bob", decision_reason="asked in the channel")
RELEASED = Held(id="h-aaaaaaaaaa", state="released", decided_by="bob", decision_reason="asked in the channel")


def audit_id(number: int) -> AuditID:
    return AuditID(f"{number}0000000-0000-4000-8000-000000000000")


def record(number: int, kind: Kind, **fields: Any) -> Record:
    arrived = timestamp(START + timedelta(seconds=number))
    total = 8300 if kind is Kind.OUTCOME else None
    common = {"identity": AGENT, "timing": Timing(received_at=arrived, total=total)}
    return Record(kind=kind, call=audit_id(number), at=arrived, **(common | fields))


def allowed_call(
    number: int, *, user_agent: str = "kubectl/v1.33", answer: bytes = b'{"kind": "PodList"}'
) -> list[Entry]:
    uri = "/api/v1/namespaces/web/pods?limit=500"
    outcome = record(
        number,
        Kind.OUTCOME,
        what=Call(
            method="GET",
            uri=uri,
            verb="list",
            api_group="",
            api_version="v1",
            resource="pods",
            subresource="",
            namespace="web",
            name="",
            is_resource=True,
        ),
        client=Client(
            peer="10.0.0.7", user_agent=user_agent, kubectl_command="kubectl get", kubectl_session="session-1"
        ),
        decision=Ruling(effect="allow", rule="read-pods", masks={"log-secrets": 2}),
        response=Answer(code=200, content_type="application/json", bytes=len(answer)),
    )
    return [Entry(outcome, response(answer))]


def held_call(number: int, decision: Held = APPROVED) -> list[Entry]:
    body, answer = b'{"propagationPolicy": "Background"}', b'{"status": "Success"}'
    call = Call(
        method="DELETE",
        uri="/api/v1/namespaces/shop",
        verb="delete",
        api_group="",
        api_version="v1",
        resource="namespaces",
        subresource="",
        namespace="shop",
        name="shop",
        is_resource=True,
    )
    parts = {
        "what": call,
        "decision": Ruling(effect="hold", rule="delete-namespace", reason="it takes everything along"),
    }
    approved = record(number, Kind.DECISION, identity=BOB, timing=None, hold=decision)
    outcome = record(
        number, Kind.OUTCOME, **parts, hold=RELEASED, response=Answer(code=200, content_type="application/json")
    )
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
        what=Call(method="GET", uri="/api/v1/secrets"),
        refusal=Refusal(code=401, reason="Unauthorized", message="no token", why="no_token"),
    )
    return [Entry(outcome)]


def streamed_call(number: int) -> list[Entry]:
    call = Call(
        method="GET",
        uri="/api/v1/namespaces/web/pods/a/log",
        verb="get",
        api_group="",
        api_version="v1",
        resource="pods",
        subresource="log",
        namespace="web",
        name="a",
        is_resource=True,
    )
    parts = {
        "what": call,
        "decision": Ruling(effect="allow", rule="read-pods"),
        "response": Answer(code=200, content_type="text/plain"),
    }
    lines = (b"line one\n", b"line two\n")
    pieces = [
        Entry(record(number, Kind.CHUNK, identity=None, bytes_down=9), response(line, "text/plain")) for line in lines
    ]
    opened = Entry(record(number, Kind.OPEN, **parts, streamed=True))
    return [opened, *pieces, Entry(record(number, Kind.OUTCOME, **parts, streamed=True, bytes_down=18))]
