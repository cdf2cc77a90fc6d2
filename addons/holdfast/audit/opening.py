"""The ledger, opened as the settings say: for the gateway, for its approvals API, for a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.audit.head import HeadFile
from holdfast.audit.keys import MAINTENANCE, KeyFolder
from holdfast.audit.ledger import Ledger, Writer
from holdfast.audit.store.ledger import LedgerStore
from holdfast.audit.writer import AuditWriter
from holdfast.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from holdfast.audit.logs import PieceStore
    from holdfast.database import Database
    from holdfast.metrics import Metrics
    from holdfast.settings import Settings


def open_ledger(settings: Settings, database: Database, role: str = "", pieces: PieceStore | None = None) -> Ledger:
    """Open the log of one role (see `keys.ROLES`). Raises ConfigurationError.

    A command's log is a new one each time, so it remembers nothing between two runs.
    """
    writer = Writer(settings.cluster, settings.replica_name, settings.audit.epoch_records, role)
    head_file = None if role == MAINTENANCE else HeadFile(settings.state_dir / f"audit{role}.head")
    ledger = Ledger(LedgerStore(database, pieces), KeyFolder(settings.key_folder), writer, head_file)
    try:
        ledger.open()
    except Unavailable as error:
        raise ConfigurationError(f"{error}.") from error
    return ledger


def make_writer(settings: Settings, ledger: Ledger, metrics: Metrics) -> AuditWriter:
    """Make the thread that writes an open ledger, watched by `metrics`; its `start` is still to be called."""
    writer = AuditWriter(
        ledger,
        capacity=settings.audit.queue_records,
        capacity_bytes=settings.audit.queue_bytes,
        deadline_seconds=settings.audit.deadline_seconds,
        lag_limit_bytes=settings.audit.stream_lag_bytes,
        committed=metrics.count_commit,
    )
    metrics.watch_queue(writer.queue_length, writer.queue_bytes)
    return writer
