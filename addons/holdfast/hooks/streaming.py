"""What passes unbuffered: watches, followed logs, long answers, upgraded connections.

A stream's opening is durable before its first byte is released. Then every piece is masked, sent on and put in
the writer's queue; the connection handler waits when the record falls behind, and a piece that cannot be kept
ends the stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.audit.entries import open_entry
from holdfast.errors import BadGateway, HoldfastError
from holdfast.hooks.audit import give_receipt
from holdfast.hooks.fail_closed import fail_closed
from holdfast.hooks.masking import is_log, plan_of, views_of
from holdfast.hooks.taps import Masker, StreamTap, Unmasked
from holdfast.kube.negotiation import is_json
from holdfast.kube.request_info import is_long_running
from holdfast.masking.stream import WatchMasker
from holdfast.masking.text import LineMasker

if TYPE_CHECKING:
    from mitmproxy import http

    from holdfast.exchange import Exchange
    from holdfast.hooks.gateway import Gateway


class Streamed:
    """Decides how a response passes."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @fail_closed
    async def responseheaders(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Take note of the answer; open a stream where it is known to be one."""
        if flow.response is None:
            return
        response = exchange.response
        response.code = flow.response.status_code
        response.media_type = flow.response.headers.get("content-type", "")
        if response.code == 401:
            raise BadGateway(
                "the API server did not accept the gateway's own credential; your token is fine. Ask the gateway's "
                "operators to run `holdfast doctor`."
            )
        if flow.response.headers.get("content-encoding", "identity") != "identity" and plan_of(exchange) is not None:
            raise BadGateway("the API server compressed an answer in which something must be masked; it was withheld.")
        response.upgraded = response.code == 101
        if response.upgraded and (exchange.info is None or not exchange.info.upgrade):
            raise BadGateway("the API server switched protocols although nobody asked; its answer was withheld.")
        response.subprotocol = flow.response.headers.get("sec-websocket-protocol", "")
        if response.upgraded or self._is_stream(flow.response, exchange):
            await self._open(flow.response, exchange)

    @fail_closed
    async def response_overflow(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """A response has outgrown the buffer: stream it, unless a mask must see it whole."""
        if flow.response is None or exchange.response.upgraded:
            return
        if self._needs_whole(exchange):
            self._check_whole(exchange.response.bytes_down)
        else:
            await self._open(flow.response, exchange)

    def _is_stream(self, response: http.Response, exchange: Exchange) -> bool:
        if response.status_code >= 300 or exchange.info is None:
            return False
        if is_long_running(exchange.info):
            return True
        length = int(response.headers.get("content-length", "0"))
        if length <= self.gateway.settings.limits.response_buffer_bytes:
            return False
        if self._needs_whole(exchange):
            self._check_whole(length)
            return False
        return True

    def _needs_whole(self, exchange: Exchange) -> bool:
        plan = plan_of(exchange)
        return plan is not None and plan.fields is not None and not is_log(exchange)

    def _check_whole(self, length: int) -> None:
        limit = self.gateway.settings.limits.masked_buffer_bytes
        if length > limit:
            raise BadGateway(
                f"the answer is longer than {limit} bytes and something in it must be masked; ask for less at a time "
                "(kubectl get --chunk-size=100)."
            )

    async def _open(self, response: http.Response, exchange: Exchange) -> None:
        masker = self._masker(exchange)
        exchange.response.streamed = True
        try:
            receipt = await self.gateway.writer.append(open_entry(exchange))
        except HoldfastError:
            exchange.response.streamed = False  # nothing was released: a Status can still take its place
            raise
        give_receipt(self.gateway, exchange, receipt)
        if not exchange.response.upgraded:
            response.stream = StreamTap(exchange, masker, self.gateway.writer)
            if not isinstance(masker, Unmasked):
                _forget_length(response)

    def _masker(self, exchange: Exchange) -> Masker:
        plan = plan_of(exchange)
        if plan is None or exchange.response.upgraded:
            return Unmasked()
        views = views_of(self.gateway, exchange)
        if exchange.info is not None and exchange.info.verb == "watch" and is_json(exchange.response.media_type):
            return WatchMasker(plan, views)
        if plan.fields is None or is_log(exchange):
            return LineMasker(plan, views)
        raise BadGateway(
            f"the API server answered with a stream of {exchange.response.media_type!r}, in which what must be masked "
            "cannot be found; it was withheld."
        )


def _forget_length(response: http.Response) -> None:
    """A mask changes lengths, so HTTP/1.1 must delimit the body by chunks (RFC 9112 section 7.1)."""
    if response.headers.pop("content-length", None) is not None and response.http_version.startswith("HTTP/1"):
        response.headers["transfer-encoding"] = "chunked"
