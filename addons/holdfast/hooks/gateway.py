"""The stages, opened from the settings and handed to the hooks.

`open` reads files and the database (before there is traffic), `start` needs the event loop and the network.
Both raise ConfigurationError with one sentence; nothing is listening yet then.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from holdfast.approval.store import HoldStore
from holdfast.approval.waiting import HoldDesk
from holdfast.audit.anchors.opening import open_publisher
from holdfast.audit.objects import open_pieces
from holdfast.audit.opening import make_writer, open_ledger
from holdfast.audit.store.ledger import LedgerStore
from holdfast.audit.trees import LedgerTrees
from holdfast.certificates import write_private
from holdfast.credential.layer import Wire
from holdfast.credential.probe import probe_upstream
from holdfast.credential.sources import CredentialSource, open_source
from holdfast.database import Database
from holdfast.errors import ConfigurationError
from holdfast.hooks.connection import end_connections, look_at_streams
from holdfast.hooks.listener import ListenerCertificates, listener_certificates, make_private_folder
from holdfast.hooks.taps import open_upgrade_tap
from holdfast.identity.denylist import REVOKED, Denylist
from holdfast.identity.opening import open_authenticator
from holdfast.identity.revoking import BLIND, RevocationWatch
from holdfast.identity.store import RevocationStore
from holdfast.masking.fingerprint import Fingerprinter
from holdfast.masking.plan import compile_plan
from holdfast.metrics import Metrics, MetricsServer, serve_metrics
from holdfast.policy.authorizer import Policy, load_policies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast.audit.ledger import Ledger
    from holdfast.audit.writer import AuditWriter
    from holdfast.exchange import Exchange
    from holdfast.identity.authenticator import Authenticator
    from holdfast.settings import Settings

END_SECONDS = 2.0
"""How long the calls that shutdown cuts get to write their last records."""

logger = logging.getLogger(__name__)


class Gateway:
    """Every stage of one gateway process."""

    source: CredentialSource
    wire: Wire
    policy: Policy
    database: Database
    holds: HoldStore
    desk: HoldDesk
    ledger: Ledger
    writer: AuditWriter
    fingerprints: Fingerprinter
    certificates: ListenerCertificates
    authenticator: Authenticator

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.replica = settings.replica_name
        self.metrics_server: MetricsServer | None = None
        self.is_started = False
        self._closing: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Read policies, credential, certificates and the database."""
        settings = self.settings
        make_private_folder(settings.state_dir)
        self.authenticator = open_authenticator(settings)
        self.policy = load_policies(settings.policies)
        for mask in self.policy.masks:
            compile_plan((mask.mask,))
        self.source = open_source(settings.upstream)
        self.certificates = listener_certificates(settings)
        self.fingerprints = Fingerprinter(_mask_key(settings.mask_key_file))
        self.database = Database.open(settings.database_url, deadline_seconds=settings.audit.deadline_seconds)
        self.holds = HoldStore(self.database)
        self.desk = HoldDesk(self.holds)
        self.revocations = RevocationWatch(
            RevocationStore(self.database).all, self._shut_out, lose_sight=self._end_streams
        )
        self.pieces = open_pieces(settings.audit.payloads, settings.audit.deadline_seconds)
        if self.pieces is not None:
            self.pieces.check()
        self.ledger = open_ledger(settings, self.database, pieces=self.pieces)
        self.publisher = open_publisher(settings, LedgerTrees(self.ledger, LedgerStore(self.database)))
        self.metrics = Metrics()
        self.metrics.watch_anchors(self.publisher.states)
        self.writer = make_writer(settings, self.ledger, self.metrics)
        self.wire = Wire(
            target=self.source.target,
            credential=self.source.current,
            request_body_bytes=settings.limits.request_body_bytes,
            response_buffer_bytes=settings.limits.response_buffer_bytes,
            open_tap=open_upgrade_tap,
            impersonate=settings.upstream.impersonate,
        )

    def take_over(self) -> None:
        """Cancel what a gateway that died in our place still held; call it once the port is ours."""
        self.holds.abandon(self.replica, datetime.now(UTC))

    async def start(self) -> None:
        """Fetch the issuers' keys, try the credential, start the writer."""
        await self.authenticator.start()
        await self.revocations.start()
        version = await probe_upstream(self.source)
        if self.settings.metrics.port is not None:
            self.metrics_server = serve_metrics(self.metrics, self.settings.metrics.host, self.settings.metrics.port)
        self.source.start()
        self.writer.start()
        self.publisher.start()
        self.is_started = True
        logger.info("holdfast: in front of %s (%s)", self.source.target.url, version)

    def close(self) -> asyncio.Task[None]:
        """Drain and close; the same task however often it is asked for."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        return self._closing

    async def _close(self) -> None:
        if not self.is_started:
            return
        await self.desk.close("the gateway is shutting down; run the command again")
        await self._drain(monotonic() + self.settings.limits.drain_seconds, _may_be_cut)
        end_connections()
        await self._drain(monotonic() + END_SECONDS, lambda exchange: exchange.over)
        await self.writer.close()
        await self.publisher.close()
        if self.pieces is not None:
            self.pieces.close()
        if self.metrics_server is not None:
            await asyncio.to_thread(self.metrics_server.close)
        await self.source.close()
        await self.revocations.close()
        await self.authenticator.close()
        self.database.close()

    def _shut_out(self, denylist: Denylist) -> None:
        """Let nobody in who is on it, and end what those still have under way."""
        self.authenticator.denylist = denylist
        revoked = [exchange for exchange in list(self.wire.exchanges.values()) if self._is_shut_out(exchange)]
        for exchange in revoked:
            exchange.cut = exchange.cut or REVOKED
            if exchange.hold is not None:
                self.desk.give_up(exchange.hold.id, REVOKED)
        if revoked:
            look_at_streams()

    def _end_streams(self) -> None:
        """End watches and sessions, since nobody can tell any more who is let in; other calls need the database."""
        for exchange in self.wire.exchanges.values():
            if exchange.response.streamed:
                exchange.cut = exchange.cut or BLIND
        look_at_streams()

    def _is_shut_out(self, exchange: Exchange) -> bool:
        return exchange.identity is not None and not exchange.over and self.authenticator.is_revoked(exchange.identity)

    async def _drain(self, deadline: float, is_over: Callable[[Exchange], bool]) -> None:
        while monotonic() < deadline:
            if all(is_over(exchange) for exchange in list(self.wire.exchanges.values())):
                return
            await asyncio.sleep(0.05)


def _may_be_cut(exchange: Exchange) -> bool:
    """Calls that are under way get time to end; watches and sessions have no end of their own."""
    return exchange.over or exchange.response.streamed or exchange.left.is_set()


def _mask_key(file: Path) -> bytes:
    if not file.exists():
        write_private(file, secrets.token_bytes(32))
    key = file.read_bytes()
    if len(key) != 32:
        raise ConfigurationError(f"{file}: expected 32 bytes, found {len(key)}; restore it or remove it.")
    return key
