"""The connections of a service: there is room for so many, and whoever takes it up must ask, and take the answers.

uvicorn bounds how many there are and waits for each as long as its caller likes, so that strangers who say nothing
would keep everybody out.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import ssl

    import uvicorn

LARGEST_CONCURRENCY = 256
"""How many connections there is room for: over that, the one that has waited longest goes, or calls get a 503."""

REQUEST_SECONDS = 20.0
"""How long a call may take to come in, from the beginning of its connection or the answer before it on, and how long
nothing of an answer may be taken."""


def take_tls(config: uvicorn.Config, context: ssl.SSLContext) -> None:
    """Have connections begin with the handshake that `Entrance` watches, and not with uvicorn's."""
    config.http_protocol_class = partial(Entrance, context)  # type: ignore[assignment]  # uvicorn calls it
    config.ssl = None


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
