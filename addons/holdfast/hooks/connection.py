"""One client's connection: how hooks are called, and what slows a stream down.

mitmproxy awaits `drain_writers` after every read from either side, which makes it the one place where a fast
reader can be made to wait: for the other side's socket (mitmproxy's own), for the record (a stream is never far
ahead of what is durable), and for an HTTP/2 client that does not open its window (mitmproxy buffers for it
without bound).
"""

from __future__ import annotations

import asyncio
import collections
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mitmproxy.proxy import events, mode_servers
from mitmproxy.proxy.commands import Command, StartHook
from mitmproxy.proxy.layers.http import HttpLayer
from mitmproxy.proxy.layers.http._http2 import Http2Server

from holdfast.credential.layer import Look
from holdfast.hooks.fail_closed import log_fault

if TYPE_CHECKING:
    from mitmproxy.connection import Address
    from mitmproxy.proxy.layer import Layer

UPSTREAM_CONNECTIONS = 100
"""Upstream connections for one client; mitmproxy's 5 lets five HTTP/1.1 watches block the sixth request."""

WINDOW_BACKLOG_BYTES = 8 << 20
"""What may wait for a client's HTTP/2 window before the API server is no longer read."""

logger = logging.getLogger(__name__)

type HookTable = Mapping[str, Sequence[Callable[[Any], Any]]]


class GatewayConnectionHandler(mode_servers.ProxyConnectionHandler):
    """mitmproxy's handler with back pressure from the record and from HTTP/2 windows."""

    wait_for_record: Callable[[], Awaitable[None]]
    connected: ClassVar[weakref.WeakSet[GatewayConnectionHandler]] = weakref.WeakSet()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)  # type: ignore[no-untyped-call]
        self.connected.add(self)
        self._looks: set[asyncio.Task[None]] = set()
        self.max_conns: collections.defaultdict[Address, asyncio.Semaphore] = collections.defaultdict(
            lambda: asyncio.Semaphore(UPSTREAM_CONNECTIONS)
        )

    def end(self) -> None:
        """End the client's connection as if the client had left, so that its calls end and are recorded."""
        client = self.transports.get(self.client)
        if client is not None and client.handler is not None:
            client.handler.cancel("the gateway is shutting down")

    def look(self) -> None:
        """Have its streams look whether they are to end (`Exchange.cut`), though nothing arrives."""
        if self.client not in self.transports:
            return
        look = asyncio.create_task(self.server_event(Look()))
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    async def drain_writers(self) -> None:
        """Wait for sockets, for the record, and, on the API server's side, for the client's window."""
        await super().drain_writers()  # type: ignore[no-untyped-call]
        await self.wait_for_record()
        if asyncio.current_task() is not self.transports[self.client].handler:
            while self._window_backlog() > WINDOW_BACKLOG_BYTES:  # noqa: ASYNC110  h2 has no event for it
                await asyncio.sleep(0.05)

    def _window_backlog(self) -> int:
        """Bytes that wait for the client to open its HTTP/2 window."""
        http = next((layer for layer in self.layer.context.layers if isinstance(layer, HttpLayer)), None)
        server = http.connections.get(self.client) if http is not None else None
        if not isinstance(server, Http2Server) or self.client not in self.transports:
            return 0
        return sum(len(chunk.data) for chunks in server.h2_conn.stream_buffers.values() for chunk in chunks)


class DirectConnectionHandler(GatewayConnectionHandler):
    """Calls hooks from a table made at start, for `holdfast serve`, where the addons never change.

    mitmproxy asks every addon for every hook, follows each with an `update`, and starts a task for each; that is
    most of what a request costs there. Here a hook that nobody listens to is complete at once, one that does not
    wait runs where it is met, and only one that waits becomes a task.
    """

    table: HookTable

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._waiting_hooks: set[asyncio.Task[None]] = set()

    @property  # type: ignore[override]
    def layer(self) -> _Hookless:
        """The top layer, with the hooks taken out of what it answers."""
        return self._layer

    @layer.setter
    def layer(self, layer: Layer) -> None:
        self._layer = _Hookless(layer, self.begin_hook)

    def begin_hook(self, hook: StartHook) -> bool:
        """Run a hook until it first waits; true when it is over. If it is not, its completion comes as an event."""
        methods = self.table.get(hook.name)
        if not methods:
            return True
        task = asyncio.Task(self._call(methods, hook), loop=asyncio.get_running_loop(), eager_start=True)
        if task.done():
            return True
        self._waiting_hooks.add(task)
        self._keep_alive(task, hook)
        return False

    def _keep_alive(self, task: asyncio.Task[None], hook: StartHook) -> None:
        """A call that waits, for a person or for the disk, is not idle."""
        watchdog = self.timeout_watchdog.disarm()
        watchdog.__enter__()

        def finish(_: asyncio.Task[None]) -> None:
            watchdog.__exit__(None, None, None)
            self._waiting_hooks.discard(task)
            if hook.blocking:
                completion = asyncio.create_task(self.server_event(events.HookCompleted(hook)))
                self._waiting_hooks.add(completion)
                completion.add_done_callback(self._waiting_hooks.discard)

        task.add_done_callback(finish)

    async def _call(self, methods: Sequence[Callable[[Any], Any]], hook: StartHook) -> None:
        """Call each in turn; our own hooks catch their faults, the rest is caught here."""
        # Not hook.args(), which goes through the dataclass machinery for the one value that every hook has.
        data = next(iter(vars(hook).values()))
        for method in methods:
            try:
                result = method(data)
                if result is not None:
                    await result
            except Exception as fault:  # noqa: BLE001  as mitmproxy's own safecall; flow hooks are fail_closed
                log_fault(hook.name, fault)


class _Hookless:
    """A layer whose hooks are run on the spot; what must wait for one of them comes out when it is over."""

    def __init__(self, layer: Layer, begin_hook: Callable[[StartHook], bool]) -> None:
        self.layer = layer
        self.context = layer.context
        self.begin_hook = begin_hook

    def handle_event(self, event: events.Event) -> Iterator[Command]:
        """Every command but the hooks."""
        waiting: collections.deque[events.Event] = collections.deque([event])
        while waiting:
            for command in self.layer.handle_event(waiting.popleft()):
                if not isinstance(command, StartHook):
                    yield command
                elif self.begin_hook(command) and command.blocking:
                    waiting.append(events.HookCompleted(command))


def end_connections() -> None:
    """End every client's connection."""
    for handler in list(GatewayConnectionHandler.connected):
        handler.end()


def look_at_streams() -> None:
    """Have every stream of every client look whether it is to end."""
    for handler in list(GatewayConnectionHandler.connected):
        handler.look()


def build_table(names: Iterable[str], addons: Iterable[object]) -> HookTable:
    """The bound methods of `addons`, in order, for each of the hooks in `names` that any of them has."""
    chain = list(addons)
    table = {name: [getattr(addon, name) for addon in chain if callable(getattr(addon, name, None))] for name in names}
    return {name: methods for name, methods in table.items() if methods}
