"""`holdfast serve`: our own entry, where nothing can be left out.

The addons are in place before the listener exists, the chain holds only what the path needs, hooks are called
from a fixed table, nothing is reloaded, and the end is a drain: no new connections, waiting calls refused with
a reason, running calls finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

from mitmproxy import hooks, http, options
from mitmproxy.addons import errorcheck, next_layer, proxyserver, tlsconfig
from mitmproxy.master import Master

from holdfast.errors import ConfigurationError
from holdfast.hooks.connection import DirectConnectionHandler, build_table
from holdfast.hooks.gateway import Gateway
from holdfast.hooks.lifecycle import Lifecycle, install, pinned_options
from holdfast.hooks.request_path import request_path
from holdfast.settings import ENVIRONMENT_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.settings import Approvals, Settings

CONSOLE_RESTART_SECONDS = 1.0

logger = logging.getLogger("holdfast")


class GatewayMaster(Master):
    """mitmproxy's master with a short chain: the listener, TLS, and the request path."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(options.Options(), with_termlog=False)
        self.gateway = gateway
        self.server = proxyserver.Proxyserver()
        self.tls = tlsconfig.TlsConfig()
        self.addons.add(self.server, next_layer.NextLayer(), self.tls, errorcheck.ErrorCheck())
        self.path = request_path(gateway)
        lifecycle = next(addon for addon in self.path if isinstance(addon, Lifecycle))
        lifecycle.pinned = pinned_options(gateway)
        self.addons.add(*self.path)
        # Of mitmproxy's own, the making of TLS contexts only: its addons also answer a path of theirs, to anybody.
        tls_hooks = {name for name in hooks.all_hooks if name.startswith("tls_")}
        DirectConnectionHandler.table = {
            **build_table(hooks.all_hooks.keys() - tls_hooks, self.path),
            **build_table(tls_hooks, [self.tls, *self.path]),
        }
        install(gateway, DirectConnectionHandler)
        _skip_type_checks()
        self.options.update(**lifecycle.pinned)

    async def listen(self) -> str:
        """Open the listener; returns `https://HOST:PORT`. Raises ConfigurationError when the port is taken."""
        listening = await self.server.setup_servers()
        if not listening:
            faults = [str(server.last_exception) for server in self.server.servers if server.last_exception]
            raise ConfigurationError(f"cannot listen: {'; '.join(faults)}. Free the port or set listen.port.")
        host, port, *_ = self.server.listen_addrs()[0]
        await asyncio.to_thread(self.gateway.take_over)
        return f"https://{host}:{port}"

    async def stop(self) -> None:
        """Close the listener, drain, close."""
        await self.server.servers.update([])
        await self.gateway.close()


def run(settings: Settings, *, config_file: Path | None = None, console: bool | None = None) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code. Raises ConfigurationError before anything listens."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logger.setLevel(logging.INFO)
    logging.getLogger("mitmproxy").setLevel(logging.ERROR)
    # What it has to say, that the port is taken, `listen` says.
    logging.getLogger("mitmproxy.addons.proxyserver").setLevel(logging.CRITICAL)
    embedded = settings.approvals.embedded if console is None else console
    return asyncio.run(_serve(settings, config_file.absolute() if config_file else None, embedded))


async def _serve(settings: Settings, config_file: Path | None, console: bool) -> int:
    gateway = Gateway(settings)
    gateway.open()
    if console:
        _require_free_port(settings.approvals)
    await gateway.start()
    master = GatewayMaster(gateway)
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, _stop, stopping)
    try:
        url = await master.listen()
        print(f"ready {url}", flush=True)
        child = asyncio.create_task(_keep_console(config_file)) if console else None
        await stopping.wait()
        if child is not None:
            child.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await child
    finally:
        await master.stop()
    return 0


def _skip_type_checks() -> None:
    """Leave out the run-time type check of every message's fields: parsers and typed code made them, 9 % of a call."""
    setattr(http.MessageData, "__post_init__", lambda message: None)  # noqa: B010  mypy: a method is replaced


def _require_free_port(approvals: Approvals) -> None:
    """The child could only say so again and again while calls wait that nobody can decide."""
    try:
        family = socket.AF_INET6 if ":" in approvals.host else socket.AF_INET
        socket.create_server((approvals.host, approvals.port), family=family).close()
    except OSError as error:
        raise ConfigurationError(
            f"approvals.port: cannot listen on {approvals.host}:{approvals.port}: {error.strerror}; free the port or "
            "choose another."
        ) from error


def _stop(stopping: asyncio.Event) -> None:
    if stopping.is_set():
        # Asked twice: whoever asks does not want to wait for the drain.
        os._exit(130)
    stopping.set()


async def _keep_console(config_file: Path | None) -> None:
    """Run the approvals API beside us, and again when it ends; it ends itself when its standard input does."""
    environment = dict(os.environ)
    if config_file is not None:
        environment[ENVIRONMENT_VARIABLE] = str(config_file)
    while True:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "holdfast.cli", "console", "--exit-with-parent",
            stdin=asyncio.subprocess.PIPE, env=environment,
        )  # fmt: skip
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            child.terminate()
            await child.wait()
            raise
        logger.error("the approvals API ended with code %s; starting it again", code)
        await asyncio.sleep(CONSOLE_RESTART_SECONDS)
