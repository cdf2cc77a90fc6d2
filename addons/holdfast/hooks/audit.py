"""Sixth stage: no record, no effect.

The intent of a mutating call is durable before the call is forwarded; how a call ended is durable before the
caller hears of it. A store that fails turns the call into a 503.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.audit.entries import intent_entry, outcome_entry
from holdfast.errors import Internal, Unavailable
from holdfast.hooks.fail_closed import fail_closed, fail_closed_even_refused
from holdfast.hooks.taps import StreamTap

if TYPE_CHECKING:
    from mitmproxy import http

    from holdfast.audit.receipt import Receipt
    from holdfast.exchange import Exchange
    from holdfast.hooks.gateway import Gateway


class Recorded:
    """Writes what happens, when it must be written."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @fail_closed
    async def request(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Before the API server can hear of it."""
        if exchange.info is not None and exchange.info.is_mutating:
            await self.gateway.writer.append(intent_entry(exchange))
            exchange.intent_recorded = True

    @fail_closed_even_refused
    async def response_body(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Before the first byte of a buffered response is released."""
        if not _begins_session(exchange):
            await self._finish(exchange)

    @fail_closed_even_refused
    async def response(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """At the end of a stream, and before a refusal is answered."""
        if not _begins_session(exchange):
            await _flush(flow)
            await self._finish(exchange)

    @fail_closed_even_refused
    async def error(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """The caller left, the API server broke off, or a stream was cut."""
        exchange.error = exchange.cut or (flow.error.msg if flow.error else "the call broke off")
        await _flush(flow)
        await self._finish(exchange)

    @fail_closed_even_refused
    async def upgrade_end(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """An exec, attach or port-forward session is over."""
        exchange.error = exchange.cut
        await self._finish(exchange)

    async def _finish(self, exchange: Exchange) -> None:
        if exchange.outcome_begun:
            return
        exchange.outcome_begun = True
        try:
            receipt = await self.gateway.writer.append(outcome_entry(exchange))
        except Unavailable as fault:
            if exchange.info is not None and exchange.info.is_mutating and exchange.response.started_mono:
                # Not a 503: client-go would repeat the call, which may have taken effect.
                raise Internal(
                    "the API server was called, but how that ended cannot be recorded, so the answer was withheld; "
                    "look before you repeat the call."
                ) from fault
            raise
        finally:
            exchange.over = True
        exchange.finished = True
        give_receipt(self.gateway, exchange, receipt)


def give_receipt(gateway: Gateway, exchange: Exchange, receipt: Receipt) -> None:
    """Let the answer that waited for this record carry its receipt; the credential layer puts it on."""
    if gateway.settings.audit.receipts:
        exchange.receipt = receipt.header()


async def _flush(flow: http.HTTPFlow) -> None:
    if flow.response is not None and isinstance(flow.response.stream, StreamTap):
        await flow.response.stream.drain()


def _begins_session(exchange: Exchange) -> bool:
    """Whether this is the 101 of an upgraded connection, whose outcome comes when the session ends."""
    return exchange.response.upgraded and not exchange.is_refused
