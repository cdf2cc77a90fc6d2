"""Fifth stage: must somebody sign. The call waits here, on the wire, and nothing else waits with it."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from holdfast.approval.hold import new_hold, recent_refusal
from holdfast.audit.entries import hold_entry, shown_uri
from holdfast.errors import Forbidden, HoldfastError, Internal
from holdfast.exchange import Effect, HoldState, binding_digest
from holdfast.hooks.fail_closed import fail_closed
from holdfast.identity.denylist import REVOKED
from holdfast.kube.status import forbidden_message

if TYPE_CHECKING:
    from mitmproxy import http

    from holdfast.exchange import Exchange, Hold
    from holdfast.hooks.gateway import Gateway

SHOWN_BODY_BYTES = 64 << 10


class Held:
    """Opens a hold, waits for its end, and lets the call on only as the one release of an approval."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @fail_closed
    async def request(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Wait for a person where policy says so."""
        if exchange.decision is None or exchange.decision.effect is not Effect.HOLD:
            return
        exchange.hold = await self._open(exchange)
        if exchange.hold.state is HoldState.PENDING:
            begun = monotonic()
            exchange.hold = await self.gateway.desk.wait(exchange.hold, exchange.left)
            exchange.held_seconds = monotonic() - begun
        if exchange.hold.state is HoldState.APPROVED:
            exchange.hold = await self._release(exchange)
        if exchange.hold.state is not HoldState.RELEASED:
            raise Forbidden(_refusal(exchange, exchange.hold))

    @fail_closed
    def responseheaders(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Tell the caller, on whose word the call went through; kubectl prints it."""
        if flow.response is not None and exchange.hold is not None:
            who = exchange.hold.decided_by.encode("ascii", "replace").decode().replace('"', "'").replace("\\", "/")
            flow.response.headers.add("warning", f'299 - "holdfast: {exchange.hold.id} was approved by {who}"')

    async def _open(self, exchange: Exchange) -> Hold:
        hold = _describe(self.gateway.settings.cluster, exchange, datetime.now(UTC))
        if exchange.info is not None and exchange.info.upgrade:
            latest = await asyncio.to_thread(self.gateway.holds.latest_with_digest, hold.digest)
            refused = recent_refusal(latest, hold.digest, upgraded=True, now=hold.created_at)
            if refused is not None:
                return refused
        await asyncio.to_thread(self.gateway.holds.insert, hold, self.gateway.replica)
        exchange.hold = hold
        try:
            await self.gateway.writer.append(hold_entry(exchange))
        except HoldfastError:
            await self._cancel(hold, "the gateway could not record it")
            raise
        return hold

    async def _cancel(self, hold: Hold, reason: str) -> Hold:
        await asyncio.to_thread(self.gateway.holds.cancel, hold.id, reason, datetime.now(UTC))
        return replace(hold, state=HoldState.CANCELLED, decision_reason=reason)

    async def _release(self, exchange: Exchange) -> Hold:
        hold, identity = exchange.hold, exchange.identity
        if hold is None or identity is None:
            raise Internal("the call reached its release without a hold; nothing was let through.")
        if exchange.left.is_set():
            return await self._cancel(hold, "the caller left")
        await self.gateway.revocations.read()  # not two seconds old: what follows cannot be undone
        if self.gateway.authenticator.is_revoked(identity):
            return await self._cancel(hold, REVOKED)
        released = await asyncio.to_thread(self.gateway.holds.release, hold.id, hold.digest, datetime.now(UTC))
        return replace(hold, state=HoldState.RELEASED if released else HoldState.CANCELLED)


def _describe(cluster: str, exchange: Exchange, now: datetime) -> Hold:
    info, identity, decision = exchange.info, exchange.identity, exchange.decision
    if info is None or identity is None or decision is None:
        raise Internal("the call reached its hold without a decision; nothing was let through.")
    return new_hold(
        audit_id=exchange.audit_id,
        digest=binding_digest(cluster, identity, info, exchange.request_body),
        identity=identity,
        info=info,
        decision=decision,
        uri=shown_uri(exchange),
        body=exchange.request_view[:SHOWN_BODY_BYTES].decode("utf-8", "replace"),
        kubectl=exchange.client.kubectl_command,
        now=now,
        random=secrets.token_bytes(8),
    )


def _refusal(exchange: Exchange, hold: Hold) -> str:
    reason = f": {hold.decision_reason}" if hold.decision_reason else ""
    why = {
        HoldState.DENIED: f"{hold.decided_by} denied hold {hold.id}{reason}",
        HoldState.EXPIRED: f"hold {hold.id} expired: nobody approved it in time; run the command again and ask "
        f"{_approvers(hold)}",
        HoldState.CANCELLED: f"hold {hold.id} was cancelled{reason}",
    }.get(hold.state, f"hold {hold.id} is {hold.state}")
    if exchange.info is None or exchange.identity is None:
        return why
    return forbidden_message(exchange.info, exchange.identity.username, f'rule "{hold.rule}": {why}')


def _approvers(hold: Hold) -> str:
    names = [*hold.approvers.users, *(f"group {group}" for group in hold.approvers.groups)]
    return " or ".join(names)
