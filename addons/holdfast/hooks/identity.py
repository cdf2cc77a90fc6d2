"""Second stage: who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import Unauthorized
from holdfast.hooks.fail_closed import fail_closed, fail_closed_even_refused
from holdfast.identity.denylist import REVOKED
from holdfast.kube.headers import presented_authorization

if TYPE_CHECKING:
    from mitmproxy import http

    from holdfast.exchange import Exchange
    from holdfast.hooks.gateway import Gateway


class Identified:
    """Fills in `exchange.identity` from the token that the layer took out of the flow."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @fail_closed_even_refused
    async def requestheaders(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Verify the caller's token; of a call that is refused already, to record whose it was."""
        authorization = presented_authorization(exchange.wire.headers)
        try:
            exchange.identity = self.gateway.authenticator.cached(
                authorization
            ) or await self.gateway.authenticator.authenticate(authorization)
        except Unauthorized:
            if not exchange.is_refused:
                raise

    @fail_closed
    def request(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Look again when the body is there: it may have come long after the headers."""
        if exchange.identity is not None and self.gateway.authenticator.is_revoked(exchange.identity):
            raise Unauthorized(REVOKED, "revoked")
