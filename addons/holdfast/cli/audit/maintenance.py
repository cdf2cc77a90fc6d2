"""What the commands that erase open, and how they tell of bodies that nobody can attribute."""

from __future__ import annotations

import getpass
import os
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.audit.reading import open_payloads, own_root

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack

    from holdfast.audit.erasing import Eraser
    from holdfast.audit.ledger import Ledger
    from holdfast.audit.objects import ObjectPieces
    from holdfast.audit.store.retention import RetentionStore
    from holdfast.database import Database
    from holdfast.settings import Settings

LOCK_FILE = "audit.maintenance.lock"
"""In `stateDir`: whoever holds it is the one command that writes to the record."""

RequestedBy = Annotated[str, typer.Option(help="Who wants it; the name of the user who runs this when absent.")]


def open_store(
    database: Database, pieces: ObjectPieces | None = None, gone: Sequence[str] | None = None
) -> RetentionStore:
    """The store that tells what there is to erase; replicas that are `gone` never write again."""
    from holdfast.audit.keys import ROLES
    from holdfast.audit.store.retention import RetentionStore

    return RetentionStore(database, pieces, [replica + role for replica in gone or () for role in ROLES])


def open_eraser(
    settings: Settings, requested_by: str, stack: ExitStack, gone: Sequence[str] | None = None
) -> tuple[RetentionStore, Eraser]:
    """Open what erases, with every other command that writes to the record kept out.

    Raises Conflict when there is one, ConfigurationError, Unavailable.
    """
    from holdfast.audit.erasing import Eraser
    from holdfast.audit.store.dropping import DayDropper
    from holdfast.audit.store.signed import SignedLogs
    from holdfast.database import Database

    root = own_root(settings)
    database = stack.enter_context(closing(Database.open(settings.database_url, create=False)))
    pieces = stack.enter_context(open_payloads(settings))
    store = open_store(database, pieces, gone)
    stack.enter_context(store.alone(settings.state_dir / LOCK_FILE))
    eraser = Eraser(
        store,
        DayDropper(database, SignedLogs(database, root), has_pieces=pieces is not None),
        lambda: open_log(settings, database, stack),
        requested_by or who_runs_this(),
        lambda: datetime.now(UTC),
    )
    return store, eraser


def print_unattributed(unattributed: Mapping[str, int]) -> None:
    """Say on standard error how many bodies stay because nobody can tell whose they are, and in which log."""
    for log, number in unattributed.items():
        typer.echo(
            f"{number} bodies in {log} stay: of their calls nothing else is left, so nobody can tell whether they are "
            "meant. They go with their day, by a payload rule for all calls, or with `holdfast audit erase --call ID`.",
            err=True,
        )


def describe_unattributed(unattributed: Mapping[str, int]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [{"log": log, "bodies": number} for log, number in unattributed.items()]


def open_log(settings: Settings, database: Database, stack: ExitStack) -> Ledger:
    """Open the log that says what commands did; it is closed and anchored at the end of the command."""
    from holdfast.audit.anchors.opening import open_publisher
    from holdfast.audit.keys import MAINTENANCE
    from holdfast.audit.opening import open_ledger
    from holdfast.audit.store.ledger import LedgerStore
    from holdfast.audit.trees import LedgerTrees

    ledger = open_ledger(settings, database, MAINTENANCE)
    publisher = open_publisher(settings, LedgerTrees(ledger, LedgerStore(database)))
    publisher.start()
    stack.callback(publisher.stop)
    stack.callback(ledger.close, "the command is over")
    return ledger


def who_runs_this() -> str:
    """The name of the user whose command this is."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
