"""A small HTTP service in a process of its own: its socket, uvicorn, the signals it obeys, the parent it dies with.

As the child of another process it watches its standard input: the parent holds the other end of that pipe and
writes nothing, so the end of input means that the parent is gone, killed or not. A Ctrl-C at a terminal reaches
the whole process group; a child ignores it, so that it can still serve while its parent drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol

from holdfast.errors import BadRequest, ConfigurationError, TooLarge

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from starlette.applications import Starlette
    from starlette.requests import Request

STOP_SECONDS = 2
"""How long calls under way get to end."""

ORPHAN_SECONDS = 10
"""How long an orphaned process may take to end by itself."""

LARGEST_CONCURRENCY = 256
"""How many connections there is room for: over that, the one that has waited longest goes, or calls get a 503."""

REQUEST_SECONDS = 20.0
"""How long a call may take to come in, from the beginning of its connection or the answer before it on, and how long
nothing of an answer may be taken."""


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
            http=Protocol,
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
                f"{self.name} cannot use {self.certificate} with {self.private_key}: {error.strerror or error}."
            ) from error
        if config.ssl is not None:
            config.http_protocol_class = partial(Entrance, config.ssl)  # type: ignore[assignment]  # uvicorn calls it
            config.ssl = None
        return config

    def url(self, listener: socket.socket) -> str:
        """`https://HOST:PORT` of a bound socket, or `http://`."""
        host, port = listener.getsockname()[:2]
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, where whoever takes up the room of a connection must also ask, and take the answers."""

    _deadline: asyncio.TimerHandle | None = None
    wire: asyncio.Transport | None = None
    """What is below TLS, where there is that."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for the first call."""
        _make_room(self.connections)
        super().connection_made(transport)
        self._await_caller()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of the call, if there is to be one."""
        super().data_received(data)
        self._await_caller()

    def on_response_complete(self) -> None:
        """Wait for the next call."""
        super().on_response_complete()
        self._await_caller()

    def pause_writing(self) -> None:
        """Wait for what was answered to be taken."""
        super().pause_writing()
        self._await_caller()

    def resume_writing(self) -> None:
        """Wait for that no more: most of it was taken."""
        super().resume_writing()
        self._await_caller()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        self._stop_waiting()

    def _await_caller(self) -> None:
        """End the connection unless a whole call comes in within its time, which parts of one do not prolong.

        One that we have closed is for the caller to close too, which over TLS may be half a minute away.
        """
        is_asked_for = self.conn.their_state in {h11.IDLE, h11.SEND_BODY} or self.transport.is_closing()
        if not is_asked_for and not self.flow.write_paused:
            self._stop_waiting()
        elif self._deadline is None:
            self._end_in_time()

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_in_time(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._end_unless_taking, self._left())

    def _end_unless_taking(self, left: int) -> None:
        """Whoever takes an answer slowly, but does, may go on."""
        if self._left() in {0, left}:
            self.transport.abort()
        else:
            self._end_in_time()

    def _left(self) -> int:
        """How many bytes the caller has yet to take; asyncio keeps those of TLS below it, and tells nobody above."""
        return (self.wire or self.transport).get_write_buffer_size()

    @property
    def ends_at(self) -> float:
        """When it will be ended, by the loop's clock; never, as long as it is for us to do something."""
        return math.inf if self._deadline is None else self._deadline.when()


class Entrance(asyncio.Protocol):
    """TLS before HTTP: whoever does not get on with the handshake takes up room as any other, and no longer.

    uvicorn would count a connection from its handshake on only, for which asyncio gives a minute.
    """

    def __init__(self, context: ssl.SSLContext, **options: Any) -> None:
        """`options` are uvicorn's."""
        self._context = context
        self._protocol = Protocol(**options)
        self._connections: set[Any] = self._protocol.connections
        self._loop = self._protocol.loop
        self._received = b""
        self._handshake: asyncio.Task[None] | None = None
        self.ends_at = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin the handshake."""
        _make_room(self._connections)
        self._connections.add(self)
        self.transport = transport
        self.ends_at = self._loop.time() + REQUEST_SECONDS
        transport.pause_reading()  # until the handshake takes what comes
        self._handshake = self._loop.create_task(self._shake_hands())

    def data_received(self, data: bytes) -> None:
        """Keep what came along with the end of the handshake."""
        self._received += data

    def shutdown(self) -> None:
        """End it: there is no call yet that could be answered."""
        self.transport.abort()

    async def _shake_hands(self) -> None:
        try:
            secured = await self._loop.start_tls(
                self.transport, self, self._context, server_side=True, ssl_handshake_timeout=REQUEST_SECONDS
            )
        except OSError:
            return
        finally:
            self._connections.discard(self)
        if secured is None or secured.is_closing():
            return
        secured.set_protocol(self._protocol)
        self._protocol.wire = self.transport
        self._protocol.connection_made(secured)
        if self._received:
            self._protocol.data_received(self._received)


def _make_room(connections: set[Any]) -> None:
    """Where there is none left, end the connection that is to be ended next in any case, if there is one."""
    others = [each for each in connections if each.ends_at < math.inf]
    if others and len(connections) >= LARGEST_CONCURRENCY - 1:
        first = min(others, key=lambda each: each.ends_at)
        connections.discard(first)
        first.transport.abort()


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
