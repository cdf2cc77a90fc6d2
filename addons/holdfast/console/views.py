"""Who may see a hold, and how it looks in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.approval.hold import may_decide
from holdfast.errors import Forbidden
from holdfast.exchange import HoldState

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.exchange import Hold, Identity


def is_requester(hold: Hold, identity: Identity) -> bool:
    """Whether this very identity made the held call. Deciding asks a stricter question: `may_decide`."""
    return (hold.issuer, hold.username) == (identity.issuer, identity.username)


def is_decider(hold: Hold, identity: Identity) -> bool:
    """Whether this identity may decide the hold."""
    try:
        may_decide(hold, identity)
    except Forbidden:
        return False
    return True


def may_see(hold: Hold, identity: Identity) -> bool:
    """Whether this identity may know of the hold: its requester, and who may decide it."""
    return is_requester(hold, identity) or is_decider(hold, identity)


def render_hold(hold: Hold, viewer: Identity) -> dict[str, Any]:
    """Return the hold as JSON for `viewer`; times are RFC 3339 in UTC, `uri` and `body` are masked as stored."""
    return {
        "id": hold.id,
        "auditID": hold.audit_id,
        "state": hold.state.value,
        "rule": hold.rule,
        "reason": hold.reason,
        "issuer": hold.issuer,
        "user": hold.username,
        "groups": list(hold.groups),
        "verb": hold.verb,
        "apiGroup": hold.api_group,
        "resource": hold.resource,
        "namespace": hold.namespace,
        "name": hold.name,
        "uri": hold.uri,
        "body": hold.body,
        "kubectl": hold.kubectl,
        "approvers": {"users": list(hold.approvers.users), "groups": list(hold.approvers.groups)},
        "createdAt": _render_time(hold.created_at),
        "expiresAt": _render_time(hold.expires_at),
        "decidedBy": hold.decided_by,
        "decidedAt": _render_time(hold.decided_at),
        "decisionReason": hold.decision_reason,
        "mayDecide": hold.state is HoldState.PENDING and is_decider(hold, viewer),
    }


def _render_time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds").replace("+00:00", "Z")
