"""Holds and people for the tests of this folder."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast.approval.hold import new_hold
from holdfast.exchange import Approvers, AuditID, Decision, Effect, Hold, Identity, RequestInfo

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
AGENT = Identity("https://ci", "agent", ("agents",))
CAROL = Identity("https://people", "carol", ("oncall", "staff"))
DAVE = Identity("https://people", "dave", ("staff",))
DIGEST = "d" * 64

DELETE = RequestInfo(
    True, "DELETE", b"/api/v1/namespaces/shop", "/api/v1/namespaces/shop", "delete", resource="namespaces", name="shop"
)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def hold(**changes: Any) -> Hold:
    """A deletion that `agent` asked for at noon; the on-call group has a minute to decide."""
    decision = Decision(
        Effect.HOLD, "namespaces-need-a-person", "it is gone for good", "sha256:0", (), Approvers((), ("oncall",)), 60.0
    )
    made = new_hold(
        random=os.urandom(7),
        audit_id=AuditID("1f0e"),
        digest=DIGEST,
        identity=AGENT,
        info=DELETE,
        decision=decision,
        uri="/api/v1/namespaces/shop",
        body='{"propagationPolicy":"Background"}',
        kubectl="kubectl delete",
        now=NOON,
    )
    return replace(made, **changes)
