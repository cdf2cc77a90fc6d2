"""Records to write in the tests of this folder, and outside it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import msgspec

from holdfast.audit.record import (
    Answer,
    Call,
    Caller,
    Client,
    Entry,
    Kind,
    Record,
    Ruling,
    Timing,
    describe_payload,
    timestamp,
)
from holdfast.exchange import AuditID

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def new_id() -> AuditID:
    return AuditID(str(uuid.uuid4()))


def record(call: AuditID | None = None, kind: Kind = Kind.OUTCOME, after: float = 0.0, **parts: object) -> Record:
    """A get of a pod by alice, `after` seconds past noon; `parts` replace or add parts."""
    at = timestamp(NOON + timedelta(seconds=after))
    usual = Record(
        kind=kind,
        call=call or new_id(),
        at=at,
        identity=Caller(issuer="https://issuer", username="alice", groups=("agents",)),
        what=Call(
            method="GET",
            uri="/api/v1/namespaces/shop/pods/web",
            verb="get",
            api_version="v1",
            resource="pods",
            namespace="shop",
            name="web",
            is_resource=True,
        ),
        client=Client(peer="10.0.0.7", user_agent="kubectl/v1.30.0"),
        decision=Ruling(effect="allow", rule="readers"),
        response=Answer(code=200, content_type="application/json") if kind is Kind.OUTCOME else None,
        timing=Timing(received_at=at, total=1500 if kind is Kind.OUTCOME else None),
    )
    return msgspec.structs.replace(usual, **parts)


def entry(body: bytes = b"{}", **parts: object) -> Entry:
    """An outcome with a response body."""
    return Entry(record(**parts, response_body=describe_payload(body, "application/json")), (body,))  # type: ignore[arg-type]
