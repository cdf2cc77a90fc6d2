"""The hold: one request that waits for a person, as a state machine over values.

    pending  -> approved | denied | expired | cancelled
    approved -> released | cancelled

An approval is good for one release of the request whose digest it is bound to. `cancelled` means that nobody
waits any more: the caller left, or the gateway stopped, perhaps after the approval and before the release.
Time and randomness are arguments; the store applies the same table in SQL.
"""

from __future__ import annotations

import base64
import unicodedata
from dataclasses import replace
from datetime import datetime, timedelta

from holdfast.errors import BadRequest, Conflict, Forbidden
from holdfast.exchange import AuditID, Decision, Hold, HoldID, HoldState, Identity, RequestInfo

REPEAT_WINDOW = timedelta(seconds=15)
"""How long a refused upgrade is answered for: kubectl's second attempt comes within a moment of the first."""

_MOVES = {
    HoldState.PENDING: {HoldState.APPROVED, HoldState.DENIED, HoldState.EXPIRED, HoldState.CANCELLED},
    HoldState.APPROVED: {HoldState.RELEASED, HoldState.CANCELLED},
}


def new_hold(
    *,
    random: bytes,
    audit_id: AuditID,
    digest: str,
    identity: Identity,
    info: RequestInfo,
    decision: Decision,
    uri: str,
    body: str,
    kubectl: str,
    now: datetime,
) -> Hold:
    """Make a pending hold that expires when the rule's wait is over.

    `random` is seven bytes or more, `digest` is `binding_digest` of the request, `uri` and `body` are what an
    approver may see: masked.
    """
    return Hold(
        id=hold_id(random),
        audit_id=audit_id,
        digest=digest,
        state=HoldState.PENDING,
        rule=decision.rule,
        reason=decision.reason,
        issuer=identity.issuer,
        username=identity.username,
        groups=identity.groups,
        verb=info.verb,
        api_group=info.api_group,
        resource=info.combined_resource,
        namespace=info.namespace,
        name=info.name,
        uri=uri,
        body=body,
        kubectl=kubectl,
        approvers=decision.approvers,
        created_at=now,
        expires_at=now + timedelta(seconds=decision.wait_seconds),
    )


def hold_id(random: bytes) -> HoldID:
    """`h-` and ten characters of lower-case base32: 50 of the random bits, short enough to read aloud."""
    if len(random) < 7:
        raise ValueError(f"a hold ID takes 7 random bytes, got {len(random)}")
    return HoldID("h-" + base64.b32encode(random).decode().lower()[:10])


def states_before(to: HoldState) -> frozenset[HoldState]:
    """The states from which a hold may become `to`."""
    return frozenset(state for state, following in _MOVES.items() if to in following)


def transition(hold: Hold, to: HoldState, *, at: datetime, by: str = "", reason: str = "") -> Hold:
    """Move a hold on; a release keeps who decided, when and why. Raises Conflict when there is no such move."""
    if hold.state not in states_before(to):
        raise Conflict(f"hold {hold.id} is {hold.state}{_by(hold)} and cannot become {to}")
    if to is HoldState.RELEASED:
        return replace(hold, state=to)
    return replace(hold, state=to, decided_by=by, decided_at=at, decision_reason=reason)


def decide(hold: Hold, approve: bool, by: Identity, reason: str, now: datetime) -> Hold:
    """Approve or deny a hold, on behalf of `by`.

    Raises Forbidden for whom the hold may not be decided by, BadRequest for a denial without a reason, Conflict
    when the hold is no longer pending or its time is over.
    """
    may_decide(hold, by)
    reason = reason.strip()
    if not approve and not reason:
        raise BadRequest("a denial needs a reason, which the caller will read")
    if hold.state is not HoldState.PENDING:
        raise Conflict(f"hold {hold.id} {_describe_end(hold)}")
    if now >= hold.expires_at:
        raise Conflict(f"hold {hold.id} {_describe_end(replace(hold, state=HoldState.EXPIRED))}")
    return transition(hold, HoldState.APPROVED if approve else HoldState.DENIED, at=now, by=by.username, reason=reason)


def may_decide(hold: Hold, identity: Identity) -> None:
    """Raise Forbidden unless `identity` is one of the hold's approvers and not its requester.

    The requester is known by name alone: the same name from another issuer, or in another spelling, may well be
    the same person.
    """
    if _caseless(identity.username) == _caseless(hold.username):
        raise Forbidden(f"hold {hold.id} was asked for by {hold.username}; somebody else must decide it")
    named = identity.username in hold.approvers.users
    if not named and not set(identity.groups) & set(hold.approvers.groups):
        raise Forbidden(f"hold {hold.id} can be decided by {_listed(hold)}; {identity.username} is none of them")


def _caseless(name: str) -> str:
    """A name without what tells its spellings apart: case, composed letters, widths (Unicode 3.13, D146), spaces."""
    folded = unicodedata.normalize("NFD", name)
    for _ in range(2):
        folded = unicodedata.normalize("NFKD", folded.casefold())
    return " ".join(folded.split())


def recent_refusal(candidate: Hold | None, digest: str, *, upgraded: bool, now: datetime) -> Hold | None:
    """Return the hold whose refusal answers this call too, or None when the call deserves a hold of its own.

    kubectl follows a refused WebSocket GET with a SPDY POST of the same exec, attach or port-forward (KEP-4006);
    both are one command, and must not ask a person twice. `candidate` is the latest hold with this digest.
    """
    if candidate is None or not upgraded or candidate.digest != digest or candidate.decided_at is None:
        return None
    refused = candidate.state in {HoldState.DENIED, HoldState.EXPIRED}
    return candidate if refused and now - candidate.decided_at <= REPEAT_WINDOW else None


def _by(hold: Hold) -> str:
    return f" (by {hold.decided_by})" if hold.decided_by else ""


def _describe_end(hold: Hold) -> str:
    """What has become of a hold that nobody can decide any more, for a person who wants to."""
    by = f" by {hold.decided_by}" if hold.decided_by else ""
    match hold.state:
        case HoldState.RELEASED:
            return f"was approved{by} already; its call went through"
        case HoldState.APPROVED:
            return f"was approved{by} already; its call goes on"
        case HoldState.DENIED:
            return f"was denied{by} already"
        case HoldState.CANCELLED:
            why = f" ({hold.decision_reason})" if hold.decision_reason else ""
            return f"was given up{why}; the caller must ask again"
        case _:
            return "has expired; the caller must ask again"


def _listed(hold: Hold) -> str:
    groups = [f"group {group}" for group in hold.approvers.groups]
    return ", ".join([*hold.approvers.users, *groups]) or "nobody: its rule names no approvers"
