"""First stage: what is asked. One reading of the path and the headers, or a refusal."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from holdfast.errors import BadRequest
from holdfast.exchange import ClientHints
from holdfast.hooks.fail_closed import fail_closed
from holdfast.kube.canonical import canonicalize
from holdfast.kube.headers import check_request_headers, forwarded_fields
from holdfast.kube.request_info import is_exec_class, parse_request_info

if TYPE_CHECKING:
    from mitmproxy import http

    from holdfast.exchange import Exchange, RequestInfo
    from holdfast.hooks.gateway import Gateway

KEPT_TARGET_BYTES = 512


class Asked:
    """Fills in `exchange.info` and what may be forwarded of the headers."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @fail_closed
    def requestheaders(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Classify the request from the bytes that arrived."""
        wire = exchange.wire
        if not wire.tls:
            raise BadRequest("this port speaks HTTPS only; use https:// in the kubeconfig's server.")
        headers = check_request_headers(wire)
        exchange.client = ClientHints(headers.user_agent, headers.kubectl_command, headers.kubectl_session)
        exchange.content_type = headers.content_type
        # Only short targets are kept: strangers choose them, and 4096 long ones would fill the memory.
        understand = _understand if len(wire.target) <= KEPT_TARGET_BYTES else _understand.__wrapped__
        info = understand(wire.method, wire.target, headers.upgrade)
        if info.upgrade and not is_exec_class(info):
            # The API server sends watches and logs over WebSocket too, where no mask and no record would see them.
            raise BadRequest(
                f"{info.verb} of {info.path} cannot be upgraded; leave out the headers Upgrade and Connection."
            )
        exchange.forward_headers = forwarded_fields(headers, info)
        exchange.info = info


@functools.lru_cache(maxsize=4096)
def _understand(method: str, target: bytes, upgrade: str) -> RequestInfo:
    """A function of three values, and callers ask the same again and again."""
    return parse_request_info(method, canonicalize(target), upgrade)
