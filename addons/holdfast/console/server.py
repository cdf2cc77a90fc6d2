"""The approvals API as a process: uvicorn over TLS, opened from the settings.

As the child of `holdfast serve` it watches its standard input: the parent holds the other end of that pipe and
writes nothing, so the end of input means that the parent is gone, killed or not. A Ctrl-C at a terminal reaches
the whole process group; a child ignores it, so that people can still decide while the gateway drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import uvicorn

from holdfast.approval.store import HoldStore
from holdfast.audit.keys import CONSOLE
from holdfast.audit.opening import make_writer, open_ledger
from holdfast.console.application import ApprovalsAPI
from holdfast.console.decisions import Decisions
from holdfast.database import Database
from holdfast.errors import ConfigurationError
from holdfast.identity.authenticator import Authenticator
from holdfast.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from starlette.applications import Starlette

    from holdfast.settings import Settings

STOP_SECONDS = 2
"""How long calls under way get to end."""

ORPHAN_SECONDS = 10
"""How long an orphaned process may take to end by itself."""

LARGEST_CONCURRENCY = 256


def run(
    settings: Settings,
    *,
    certificate: Path,
    private_key: Path,
    ready: Callable[[str], None],
    exit_with_parent: bool = False,
) -> None:
    """Serve the approvals API until SIGTERM or SIGINT; `ready` gets its URL once it takes requests.

    With `exit_with_parent` SIGINT is ignored, and the end of standard input ends it. Raises ConfigurationError
    when the port is taken, or the database, an issuer or the certificate cannot be used.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_serve(settings, certificate, private_key, ready, exit_with_parent))


async def _serve(
    settings: Settings, certificate: Path, private_key: Path, ready: Callable[[str], None], exit_with_parent: bool
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(bind(settings.approvals.host, settings.approvals.port))
        application = await open_application(settings, stack)
        server = Server(configure(application, certificate, private_key), exit_with_parent)
        if exit_with_parent:
            watch_parent(asyncio.get_running_loop(), server.stop)
        server.obey_signals()
        listener.listen()
        ready(shown_url(listener))
        await server.serve(sockets=[listener])


async def open_application(settings: Settings, stack: contextlib.AsyncExitStack) -> Starlette:
    """Open the database and the issuers' keys, to be closed with `stack`. Raises ConfigurationError."""
    authenticator = Authenticator(settings.identity)
    await authenticator.start()
    stack.push_async_callback(authenticator.close)
    database = Database.open(settings.database_url)
    stack.callback(database.close)
    writer = make_writer(settings, open_ledger(settings, database, CONSOLE), Metrics())
    writer.start()
    stack.push_async_callback(writer.close)
    decisions = Decisions(HoldStore(database), writer, lambda: datetime.now(UTC))
    return ApprovalsAPI(authenticator, decisions).application()


class Server(uvicorn.Server):
    """uvicorn, with the signals that this process obeys."""

    def __init__(self, config: uvicorn.Config, ignore_interrupt: bool) -> None:
        super().__init__(config)
        self._ignore_interrupt = ignore_interrupt

    def stop(self) -> None:
        """End calls under way, then return from `serve`."""
        self.should_exit = True

    def obey_signals(self) -> None:
        """Stop on SIGTERM and SIGINT, from before anybody is told that we are ready."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, _do_nothing if self._ignore_interrupt else self.stop)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals as they are: uvicorn's own handling would raise them again afterwards."""
        yield


def configure(application: Starlette, certificate: Path, private_key: Path) -> uvicorn.Config:
    """Return uvicorn's configuration: TLS only, no access log, nothing of proxies. Raises ConfigurationError."""
    config = uvicorn.Config(
        application,
        ssl_certfile=certificate,
        ssl_keyfile=private_key,
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_level="warning",
        limit_concurrency=LARGEST_CONCURRENCY,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    try:
        config.load()
    except OSError as error:
        raise ConfigurationError(
            f"the approvals API cannot use {certificate} with {private_key}: {error.strerror or error}."
        ) from error
    return config


def bind(host: str, port: int) -> socket.socket:
    """Bind the port, without taking connections yet. Raises ConfigurationError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"the approvals API cannot listen on {host}:{port}: {error.strerror}; free the port or set approvals.port."
        ) from error
    return listener


def shown_url(listener: socket.socket) -> str:
    """`https://HOST:PORT` of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"https://{f'[{host}]' if ':' in host else host}:{port}"


def watch_parent(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Call `stop` on `loop` when standard input ends; if that is not enough, end the process hard."""

    def wait_for_end() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        with contextlib.suppress(RuntimeError):  # the loop is closed: already ending
            loop.call_soon_threadsafe(stop)
        time.sleep(ORPHAN_SECONDS)
        os._exit(1)

    threading.Thread(target=wait_for_end, name="holdfast-parent-watch", daemon=True).start()


def _do_nothing() -> None:
    pass
