"""Last stage before the wire: every part is in place, so the request that the flow shows gets its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitmproxy import ctx

from holdfast.credential.impersonation import impersonation_fields
from holdfast.credential.layer import GatewayLayer, decided_digest
from holdfast.errors import Internal
from holdfast.exchange import Effect, HoldState, Verdict
from holdfast.hooks.fail_closed import fail_closed

if TYPE_CHECKING:
    from mitmproxy import http, tls

    from holdfast.exchange import Exchange
    from holdfast.hooks.gateway import Gateway


class Sealed:
    """Makes the verdict that the credential layer demands, and adds a client certificate to our own upstream TLS."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @fail_closed
    def requestheaders(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Refuse whom the API server cannot be told of, before anybody is asked to sign for the call."""
        if self.gateway.wire.impersonate and exchange.identity is not None:
            impersonation_fields(exchange.identity)

    @fail_closed
    def request(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Bind permission to what was decided, when every stage before this one has spoken."""
        if exchange.info is None or not is_permitted(exchange):
            raise Internal("a stage of the gateway did not speak on this call; nothing was let through.")
        exchange.verdict = Verdict(
            exchange.audit_id, decided_digest(self.gateway.wire.target, exchange.info, exchange.request_view)
        )

    def tls_start_server(self, data: tls.TlsData) -> None:
        """Present the gateway's client certificate, on connections of our own layer only."""
        certificate = self.gateway.wire.credential().certificate
        if certificate is None or not any(isinstance(layer, GatewayLayer) for layer in data.context.layers):
            return
        if data.ssl_conn is None:
            ctx.master.addons.get("tlsconfig").tls_start_server(data)
        if data.ssl_conn is not None:
            data.ssl_conn.use_certificate(certificate.chain[0])
            data.ssl_conn.use_privatekey(certificate.key)


def is_permitted(exchange: Exchange) -> bool:
    """Whether every part of the story says yes: what, who, the decision, the released hold, the recorded intent."""
    if exchange.info is None or exchange.identity is None or exchange.decision is None:
        return False
    if exchange.info.is_mutating and not exchange.intent_recorded:
        return False
    if exchange.decision.effect is Effect.HOLD:
        return exchange.hold is not None and exchange.hold.state is HoldState.RELEASED
    return exchange.decision.effect is Effect.ALLOW
