"""The approvals API as a process: TLS only, opened from the settings (see `holdfast.serving`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from holdfast.approval.store import HoldStore
from holdfast.audit.anchors.opening import open_publisher
from holdfast.audit.keys import CONSOLE
from holdfast.audit.opening import make_writer, open_ledger
from holdfast.audit.store.ledger import LedgerStore
from holdfast.audit.trees import LedgerTrees
from holdfast.console.application import ApprovalsAPI
from holdfast.console.decisions import Decisions
from holdfast.console.refusals import Refusals
from holdfast.console.saml import SAMLService
from holdfast.console.tokens import TokenService
from holdfast.database import Database
from holdfast.identity.opening import open_authenticator
from holdfast.identity.revoking import RevocationWatch
from holdfast.identity.store import RevocationStore, UsedAssertions
from holdfast.identity.token_keys import TokenKeys
from holdfast.metrics import Metrics
from holdfast.serving import Service, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.applications import Starlette

    from holdfast.audit.writer import AuditWriter
    from holdfast.identity.authenticator import Authenticator
    from holdfast.settings import Settings


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
    service = Service("the approvals API", "set approvals.port", certificate, private_key)
    asyncio.run(_serve(settings, service, ready, exit_with_parent))


async def _serve(settings: Settings, service: Service, ready: Callable[[str], None], exit_with_parent: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(service.bind(settings.approvals.host, settings.approvals.port))
        application = await open_application(settings, stack)
        await serve(service, application, listener, ready, exit_with_parent=exit_with_parent)


async def open_application(settings: Settings, stack: contextlib.AsyncExitStack) -> Starlette:
    """Open the database and the issuers' keys, to be closed with `stack`. Raises ConfigurationError."""
    authenticator = await asyncio.to_thread(open_authenticator, settings)
    await authenticator.start()
    stack.push_async_callback(authenticator.close)
    database = Database.open(settings.database_url, deadline_seconds=settings.audit.deadline_seconds)
    stack.callback(database.close)
    watch = RevocationWatch(RevocationStore(database).all, partial(setattr, authenticator, "denylist"))
    await watch.start()
    stack.push_async_callback(watch.close)
    ledger = open_ledger(settings, database, CONSOLE)
    publisher = open_publisher(settings, LedgerTrees(ledger, LedgerStore(database)))
    publisher.start()
    stack.push_async_callback(publisher.close)
    writer = make_writer(settings, ledger, Metrics())
    writer.start()
    stack.push_async_callback(writer.close)
    decisions = Decisions(HoldStore(database), writer, _now)
    tokens = _open_tokens(settings, authenticator, writer, database)
    return ApprovalsAPI(authenticator, decisions, tokens).application()


def _open_tokens(
    settings: Settings, authenticator: Authenticator, writer: AuditWriter, database: Database
) -> TokenService | None:
    own, providers = settings.identity.tokens, settings.identity.saml
    if own is None:
        return None
    keys = TokenKeys(settings.token_key_folder)
    refusals = Refusals(writer)
    saml = SAMLService(own.url, providers, UsedAssertions(database), keys, refusals) if providers else None
    return TokenService(own, keys, authenticator, writer, refusals, _now, saml)


def _now() -> datetime:
    return datetime.now(UTC)
