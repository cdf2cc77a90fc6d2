"""Third stage: may it. Nothing matches means no."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import Forbidden, Internal
from holdfast.exchange import Effect
from holdfast.hooks.fail_closed import fail_closed
from holdfast.kube.status import forbidden_message

if TYPE_CHECKING:
    from mitmproxy import http

    from holdfast.exchange import Exchange
    from holdfast.hooks.gateway import Gateway


class Decided:
    """Fills in `exchange.decision`."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @fail_closed
    def requestheaders(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Ask the policy."""
        if exchange.info is None or exchange.identity is None:
            raise Internal("the call reached policy without a path or an identity; nothing was let through.")
        decision = self.gateway.policy.authorize(exchange.identity, exchange.info)
        exchange.decision = decision
        if decision.effect is Effect.DENY:
            rule = f'rule "{decision.rule}"' if decision.rule else "policy"
            why = f"{rule}: {decision.reason}" if decision.reason else f"{rule} denies it"
            raise Forbidden(forbidden_message(exchange.info, exchange.identity.username, why))
