"""What commands that only read the record open: `audit.readDatabase` where it is set, the payloads beside it, keys."""

from __future__ import annotations

from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.audit.export import Line
    from holdfast.audit.note import Verifier
    from holdfast.audit.objects import ObjectPieces
    from holdfast.audit.store import AuditStore
    from holdfast.database import Database
    from holdfast.settings import Settings


@contextmanager
def open_reading(settings: Settings) -> Iterator[Database]:
    """Open the database that the record is read from. Raises ConfigurationError."""
    from holdfast.database import Database

    with closing(Database.open_readonly(settings.read_database_url)) as database:
        yield database


@contextmanager
def open_payloads(settings: Settings) -> Iterator[ObjectPieces | None]:
    """Open the object store that large payloads are in, if there is one. Raises ConfigurationError."""
    from holdfast.audit.objects import open_pieces

    pieces = open_pieces(settings.audit.payloads, settings.audit.deadline_seconds)
    try:
        yield pieces
    finally:
        if pieces is not None:
            pieces.close()


@contextmanager
def open_store(settings: Settings) -> Iterator[AuditStore]:
    """Open what lists and tells calls. Raises ConfigurationError."""
    from holdfast.audit.store import AuditStore

    with open_reading(settings) as database, open_payloads(settings) as pieces:
        yield AuditStore(database, pieces)


@contextmanager
def open_lines(settings: Settings, *, payloads: bool = True) -> Iterator[Iterator[Line]]:
    """Begin to read the whole record, as the lines of an export. Raises ConfigurationError."""
    from holdfast.audit.record import timestamp
    from holdfast.audit.store.export import export_lines

    with open_reading(settings) as database, open_payloads(settings) as pieces:
        now = timestamp(datetime.now(UTC))
        yield export_lines(database, settings.cluster, now, pieces=pieces, payloads=payloads)


def own_root(settings: Settings) -> Verifier:
    """Read the public key of the gateway's own root. Raises ConfigurationError."""
    from holdfast.audit.keys import KeyFolder
    from holdfast.errors import ConfigurationError

    folder = KeyFolder(settings.key_folder)
    if not folder.root_pub.exists() and not folder.epoch_key.exists():
        raise ConfigurationError(
            f"{folder.root_pub}: there is no such key; `holdfast serve` makes it, or `holdfast audit keys init --root "
            "FILE`, which keeps the private one elsewhere."
        )
    return folder.root_verifier()


def load_root(file: Path) -> Verifier:
    """Read a root's public key. Raises ConfigurationError, also when it is a witness's."""
    from holdfast.audit.keys import load_verifier
    from holdfast.audit.note import ED25519
    from holdfast.errors import ConfigurationError

    root = load_verifier(file)
    if root.key_type != ED25519:
        raise ConfigurationError(f"{file}: is the key of a witness; expected a root's.")
    return root


def load_witness(file: Path) -> Verifier:
    """Read a witness's public key. Raises ConfigurationError, also when it is another's."""
    from holdfast.audit.keys import load_verifier
    from holdfast.audit.note import COSIGNATURE
    from holdfast.errors import ConfigurationError

    witness = load_verifier(file)
    if witness.key_type != COSIGNATURE:
        raise ConfigurationError(f"{file}: is no witness's key; `holdfast witness keys` prints a witness's.")
    return witness
