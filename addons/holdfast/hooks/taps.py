"""What sits on a stream: it masks, counts and records the pieces that go by."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from holdfast.audit.entries import chunk_entry
from holdfast.errors import HoldfastError
from holdfast.hooks.fail_closed import log_fault
from holdfast.kube.channels import WebSocketExecObserver
from holdfast.kube.request_info import is_exec_class
from holdfast.kube.spdy import SpdyExecObserver

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.audit.writer import AuditWriter
    from holdfast.credential.layer import UpgradeTap
    from holdfast.exchange import Exchange

CHUNK_BYTES = 64 << 10
CHUNK_SECONDS = 0.25
"""A piece of a stream is recorded when it is this long or this old."""


class Masker(Protocol):
    """Turns pieces of a stream into the caller's and the stored view of them."""

    def feed(self, chunk: bytes) -> tuple[bytes, bytes]:
        """Take a piece; return what can be released of both views."""

    def finish(self) -> tuple[bytes, bytes]:
        """Return what was held back."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each mask was applied so far."""


class Unmasked:
    """No mask applies."""

    counts: Mapping[str, int] = MappingProxyType({})

    def feed(self, chunk: bytes) -> tuple[bytes, bytes]:
        """Both views are the piece itself."""
        return chunk, chunk

    def finish(self) -> tuple[bytes, bytes]:
        """Nothing is held back."""
        return b"", b""


class StreamTap:
    """mitmproxy's stream callback for one response; it never raises, it cuts (see `Exchange.cut`)."""

    def __init__(self, exchange: Exchange, masker: Masker, writer: AuditWriter) -> None:
        self.exchange = exchange
        self.masker = masker
        self.writer = writer
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, data: bytes) -> list[bytes]:
        """Mask and record one piece (empty at the end); an empty list, because empty bytes would end the response."""
        if self.exchange.cut:
            return []
        try:
            caller, store = self.masker.feed(data) if data else self.masker.finish()
        except HoldfastError as refusal:
            self.exchange.cut = str(refusal)
            return []
        except Exception as fault:  # noqa: BLE001  an exception here would leave the caller hanging
            log_fault("StreamTap", fault)
            self.exchange.cut = "the gateway failed while it masked this stream"
            return []
        self.exchange.response.bytes_down += len(data)
        self.exchange.mask_counts.update(self.masker.counts)
        self._keep(store)
        return [caller] if caller else []

    def flush(self) -> None:
        """Hand what is pending to the writer."""
        if (store := self._take()) and not self.exchange.cut:
            self.writer.submit(chunk_entry(self.exchange, store), self._lost)

    async def drain(self) -> None:
        """Return when the last piece, and so every piece before it, is durable. Raises Unavailable."""
        if (store := self._take()) and not self.exchange.cut:
            await self.writer.append(chunk_entry(self.exchange, store))

    def _take(self) -> bytes:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        store = b"".join(self._pending)
        self._pending, self._pending_bytes = [], 0
        return store

    def _keep(self, store: bytes) -> None:
        if not store:
            return
        self._pending.append(store)
        self._pending_bytes += len(store)
        if self._pending_bytes >= CHUNK_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(CHUNK_SECONDS, self.flush)

    def _lost(self, fault: HoldfastError) -> None:
        self.exchange.cut = f"the record of this stream cannot be kept: {fault}"


class _Unobserved:
    def feed_client(self, data: bytes) -> None:
        """Port-forwarded bytes say nothing about an exit."""

    def feed_server(self, data: bytes) -> None:
        """Port-forwarded bytes say nothing about an exit."""


class ExecTap:
    """Finds the exit status of an exec or attach session."""

    def __init__(self, exchange: Exchange, observer: WebSocketExecObserver | SpdyExecObserver) -> None:
        self.exchange = exchange
        self.observer = observer

    def feed_client(self, data: bytes) -> None:
        """See bytes from the caller."""
        self.observer.feed_client(data)

    def feed_server(self, data: bytes) -> None:
        """See bytes from the API server; the exit status comes on one of its channels."""
        self.observer.feed_server(data)
        self.exchange.response.exit_status = self.observer.result() or self.exchange.response.exit_status


def open_upgrade_tap(exchange: Exchange) -> UpgradeTap:
    """The observer for an upgraded connection, by what was asked for and which protocol was agreed."""
    info = exchange.info
    if info is None or not is_exec_class(info) or info.subresource not in {"exec", "attach"}:
        return _Unobserved()
    if info.upgrade == "websocket":
        return ExecTap(exchange, WebSocketExecObserver(exchange.response.subprotocol))
    return ExecTap(exchange, SpdyExecObserver())
