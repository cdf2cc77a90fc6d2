"""Opens the gateway before there is a listener, pins the options it relies on, and ends the process with itself.

mitmproxy unloads a script that was deleted or no longer parses, and goes on forwarding without it. Our `done`
therefore shuts the whole program down, and the connection layers that `install` puts in place stay: without the
hooks they refuse everything.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

from mitmproxy import addonmanager, ctx, exceptions
from mitmproxy.proxy import mode_servers

from holdfast.credential.layer import GatewayProxy
from holdfast.errors import ConfigurationError
from holdfast.hooks.connection import GatewayConnectionHandler
from holdfast.hooks.listener import listener_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mitmproxy.proxy.context import Context
    from mitmproxy.proxy.layer import Layer

    from holdfast.hooks.gateway import Gateway

IDLE_SECONDS = 4 * 3600 + 300
"""A session may be silent for the kubelet's own limit (streaming-connection-idle-timeout, 4 h) before we end it."""

logger = logging.getLogger(__name__)


class Lifecycle:
    """Opens and closes the gateway with the program that it runs in."""

    def __init__(self, gateway: Gateway, stages: Sequence[object]) -> None:
        self.gateway = gateway
        self.stages = stages
        self.pinned: dict[str, Any] = {}

    def load(self, loader: object) -> None:
        """Open what needs no network, and take the place of mitmproxy's reverse proxy."""
        if not self.gateway.is_started:
            _exit_on_fault(self.gateway.open)
            install(self.gateway, GatewayConnectionHandler)

    def running(self) -> None:
        """Under mitmdump or mitmweb: reach out, then open the listener."""
        if not self.gateway.is_started:
            self._starting = asyncio.create_task(self._start())

    def configure(self, updated: set[str]) -> None:
        """Refuse a change of what the gateway relies on (mitmweb lets its user edit options)."""
        changed = [name for name in updated if name in self.pinned and getattr(ctx.options, name) != self.pinned[name]]
        if changed:
            raise exceptions.OptionsError(f"{', '.join(changed)}: set by Holdfast, cannot be changed while it runs.")

    def done(self) -> asyncio.Task[None]:
        """End the program: the gateway does not leave a proxy behind."""
        ctx.master.shutdown()
        return self.gateway.close()

    async def _start(self) -> None:
        try:
            self._require_path()
            await self.gateway.start()
        except ConfigurationError as fault:
            print(f"holdfast: {fault}", file=sys.stderr)
            raise SystemExit(2) from fault
        options = pinned_options(self.gateway)
        ctx.options.update(**options)
        self.pinned = options

    def _require_path(self) -> None:
        """A path with a stage left out, or out of order, would let calls pass unmasked or unrecorded."""
        found = [addon for addon in addonmanager.traverse(ctx.master.addons.chain) if addon in self.stages]
        if found != list(self.stages):
            raise ConfigurationError("the request path is not whole or out of order; load addons/gateway.py as it is.")


def pinned_options(gateway: Gateway) -> dict[str, Any]:
    """Every mitmproxy option that the gateway's safety rests on."""
    listen, state = gateway.settings.listen, gateway.settings.state_dir
    authority = state / "upstream-ca.pem"
    authority.write_bytes(gateway.source.target.ca_pem)
    return {
        "mode": [f"reverse:{gateway.source.target.url}@{listen.host}:{listen.port}"],
        "server": True,
        "certs": [f"*={listener_bundle(gateway.settings, gateway.certificates)}"],
        "confdir": str(state / "mitmproxy"),
        "ssl_verify_upstream_trusted_ca": str(authority),
        "ssl_verify_upstream_trusted_confdir": None,
        "ssl_insecure": False,
        "client_certs": None,
        "request_client_cert": False,
        "connection_strategy": "lazy",
        "keep_host_header": False,
        "validate_inbound_headers": True,
        "store_streamed_bodies": False,
        "stream_large_bodies": None,
        "body_size_limit": None,
        "proxy_debug": False,
        "rawtcp": True,
        "tcp_timeout": IDLE_SECONDS,
    }


def install(gateway: Gateway, handler: type[GatewayConnectionHandler]) -> None:
    """Make every reverse-proxy connection of this process a gateway connection, on TCP only."""

    def make_top_layer(instance: mode_servers.ReverseInstance, context: Context) -> Layer:
        return GatewayProxy(context, gateway.wire)

    async def listen(instance: mode_servers.ReverseInstance, host: str, port: int) -> list[asyncio.Server]:
        return [await asyncio.start_server(instance.handle_stream, host, port)]

    handler.wait_for_record = staticmethod(gateway.writer.wait_below_limit)
    setattr(mode_servers.ReverseInstance, "make_top_layer", make_top_layer)  # noqa: B010  mypy: a method is replaced
    setattr(mode_servers.ReverseInstance, "listen", listen)  # noqa: B010
    setattr(mode_servers, "ProxyConnectionHandler", handler)  # noqa: B010


def _exit_on_fault(step: Any) -> None:
    try:
        step()
    except ConfigurationError as fault:
        print(f"holdfast: {fault}", file=sys.stderr)
        raise SystemExit(2) from fault
