"""What happens when a hook fails: nothing is forwarded, and the caller hears it as a Status.

mitmproxy logs an exception in a hook and carries on with the flow (`addonmanager.safecall`): it fails open.
Every flow hook of ours is therefore wrapped here. A `HoldfastError` is an answer, raised on purpose; any other
exception is a fault of ours, logged without its message (which may quote a body) and answered with a 500.
"""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from holdfast.credential.layer import status_response
from holdfast.errors import HoldfastError, Internal
from holdfast.exchange import AuditID

if TYPE_CHECKING:
    from mitmproxy import http

    from holdfast.exchange import Exchange
    from holdfast.hooks.gateway import Gateway

logger = logging.getLogger(__name__)


class _Stage(Protocol):
    gateway: Gateway


type StageHook[S] = Callable[[S, http.HTTPFlow, Exchange], Awaitable[None] | None]
type FlowHook[S] = Callable[[S, http.HTTPFlow], Awaitable[None]]


def fail_closed[S: _Stage](hook: StageHook[S]) -> FlowHook[S]:
    """Give a hook the exchange of its flow, pass it over once the call is refused, turn what it raises into a no."""
    return _guard(hook, even_refused=False)


def fail_closed_even_refused[S: _Stage](hook: StageHook[S]) -> FlowHook[S]:
    """As `fail_closed`, for what has to be done for refused calls too: their masks and their record."""
    return _guard(hook, even_refused=True)


def _guard[S: _Stage](hook: StageHook[S], *, even_refused: bool) -> FlowHook[S]:
    @functools.wraps(hook)
    async def guarded(self: S, flow: http.HTTPFlow) -> None:
        # A replayed flow keeps its ID, and the exchange under it would be the story of the first time.
        exchange = None if flow.is_replay else self.gateway.wire.exchanges.get(flow.id)
        if exchange is None:
            _refuse_stranger(flow)
            return
        if exchange.is_refused and not even_refused:
            return
        try:
            result = hook(self, flow, exchange)
            if result is not None:
                await result
        except HoldfastError as refusal:
            refuse(flow, exchange, refusal)
        except Exception as fault:  # noqa: BLE001  this is the boundary: whatever it is, nothing may be forwarded
            log_fault(f"{type(self).__name__}.{getattr(hook, '__name__', 'hook')}", fault)
            refuse(flow, exchange, Internal("the gateway failed while it handled this call; nothing was let through."))

    return guarded


def refuse(flow: http.HTTPFlow, exchange: Exchange, refusal: HoldfastError) -> None:
    """End the call with `refusal`: no verdict; what the API server began to answer gives way to the Status.

    A stream is on its way already, so it is cut instead.
    """
    exchange.refusal = refusal
    exchange.verdict = None
    flow.request.headers.pop("expect", None)
    if exchange.response.streamed:
        exchange.cut = exchange.cut or str(refusal)
    elif flow.response is not None:
        replacement = status_response(refusal, exchange.info, exchange.audit_id)
        exchange.response.caller_view = replacement.content or b""
        replacement.http_version = flow.response.http_version
        flow.response = replacement


def log_fault(where: str, fault: BaseException) -> None:
    """Log an unexpected exception: its type and its frames, never its message."""
    frames = "".join(traceback.format_tb(fault.__traceback__))
    logger.error("%s failed with %s; it failed closed.\n%s", where, type(fault).__name__, frames)


def _refuse_stranger(flow: http.HTTPFlow) -> None:
    # A flow that never came through our layer: replayed or made in mitmweb. It carries no credential; end it here.
    if flow.live or flow.is_replay:
        flow.response = status_response(
            Internal("only calls that arrive at the gateway are forwarded."), None, AuditID("none")
        )
