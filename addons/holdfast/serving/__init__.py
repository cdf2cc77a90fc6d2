"""A small HTTP service in a process of its own: its socket, uvicorn, the signals it obeys, the parent it dies with.

As the child of another process it watches its standard input: the parent holds the other end of that pipe and
writes nothing, so the end of input means that the parent is gone, killed or not. A Ctrl-C at a terminal reaches
the whole process group; a child ignores it, so that it can still serve while its parent drains.

    connections  who takes up the room of a connection must also ask, and take the answers
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.requests import ClientDisconnect

from holdfast.errors import BadRequest, ConfigurationError, TooLarge
from holdfast.serving import connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.applications import Starlette
    from starlette.requests import Request

STOP_SECONDS = 2
"""How long calls under way get to end."""

ORPHAN_SECONDS = 10
"""How long an orphaned process may take to end by itself."""


@dataclass(frozen=True, slots=True)
class Service:
    """What is served, in the words of its errors, and the certificate that it is served with.

    Without a certificate it is plain HTTP, on loopback addresses only. `remedy` is what to do when the port is taken.
    """

    name: str
    remedy: str
    certificate: Path | None = None
    private_key: Path | None = None

    def bind(self, host: str, port: int) -> socket.socket:
        """Bind the port, without taking connections yet. Raises ConfigurationError."""
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            if self.certificate is None and not ip_address(address[0]).is_loopback:
                raise ConfigurationError(
                    f"{self.name} has no certificate, so it listens on loopback addresses only, not on {host}."
                )
            listener = socket.socket(family, kind, protocol)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
            except OSError:
                listener.close()
                raise
        except OSError as error:
            raise ConfigurationError(
                f"{self.name} cannot listen on {host}:{port}: {error.strerror}; free the port or {self.remedy}."
            ) from error
        return listener

    def configure(self, application: Starlette) -> uvicorn.Config:
        """Return uvicorn's configuration: no access log, nothing of proxies. Raises ConfigurationError."""
        config = uvicorn.Config(
            application,
            ssl_certfile=self.certificate,
            ssl_keyfile=self.private_key,
            http=connections.Protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            log_level="warning",
            limit_concurrency=connections.LARGEST_CONCURRENCY,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        try:
            config.load()
        except OSError as error:
            raise ConfigurationError(
                f"{self.name} cannot use {self.certificate} with {self.private_key}: {error.strerror or error}."
            ) from error
        if config.ssl is not None:
            connections.take_tls(config, config.ssl)
        return config

    def url(self, listener: socket.socket) -> str:
        """`https://HOST:PORT` of a bound socket, or `http://`."""
        host, port = listener.getsockname()[:2]
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


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


async def serve(
    service: Service,
    application: Starlette,
    listener: socket.socket,
    ready: Callable[[str], None],
    *,
    exit_with_parent: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` gets the URL once requests are taken.

    With `exit_with_parent` SIGINT is ignored, and the end of standard input ends it. Raises ConfigurationError when
    the certificate cannot be used.
    """
    server = Server(service.configure(application), exit_with_parent)
    if exit_with_parent:
        watch_parent(asyncio.get_running_loop(), server.stop)
    server.obey_signals()
    listener.listen()
    ready(service.url(listener))
    await server.serve(sockets=[listener])


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


async def read_body(request: Request, largest: int) -> bytes:
    """Read a request's body. Raises TooLarge when it has more bytes than `largest`, BadRequest when it has no end."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > largest:
                raise TooLarge(f"the body is longer than {largest} bytes")
    except ClientDisconnect as gone:
        raise BadRequest("the caller went away before the end of the body") from gone
    return body


def _do_nothing() -> None:
    pass
