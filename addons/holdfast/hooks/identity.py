"""Second stage: who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import Unauthorized
from holdfast.hooks.fail_closed import fail_closed, fail_closed_even_refused
from holdfast.kube.headers import presented_authorization

if TYPE_CHECKING:
    from mitmproxy import http

    from holdfast.exchange import Exchange, Identity
    from holdfast.hooks.gateway import Gateway


class Identified:
    """Fills in `exchange.identity` from the token that the layer took out of the flow."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @fail_closed_even_refused
    async def requestheaders(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Verify the caller's token; of a call that is refused already, to record whose it was."""
        try:
            exchange.identity = await self._verify(exchange)
        except Unauthorized:
            if not exchange.is_refused:
                raise

    @fail_closed
    async def request(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Verify it again: callers choose how long the rest of a call takes, and may be let in no more by then."""
        await self._verify(exchange)

    @fail_closed
    def response_body(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Keep back the answer of a call whose caller was revoked while it was under way; a stream is cut instead."""
        if exchange.identity is not None:
            self.gateway.authenticator.require_allowed(exchange.identity)

    async def _verify(self, exchange: Exchange) -> Identity:
        authorization = presented_authorization(exchange.wire.headers)
        authenticator = self.gateway.authenticator
        return authenticator.cached(authorization) or await authenticator.authenticate(authorization)
