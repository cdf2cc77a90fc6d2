"""Records to write in the tests of this folder, and outside it."""

from __future__ import annotations

import shutil
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast.audit.head import HeadFile
from holdfast.audit.keys import KeyFolder
from holdfast.audit.ledger import Ledger, Writer, read_clock
from holdfast.audit.payload import SALT_BYTES, Body, Slot
from holdfast.audit.record import (
    Answer,
    Call,
    Caller,
    Client,
    Entry,
    Kind,
    Record,
    Ruling,
    Timing,
    timestamp,
)
from holdfast.audit.store import LedgerStore
from holdfast.exchange import AuditID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast.audit.logs import PieceStore
    from holdfast.audit.sequence import Clock
    from holdfast.database import Database

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def new_id() -> AuditID:
    return AuditID(str(uuid.uuid4()))


def record(call: AuditID | None = None, kind: Kind = Kind.OUTCOME, after: float = 0.0, **parts: object) -> Record:
    """A get of a pod by alice, `after` seconds past noon; `parts` replace or add parts."""
    at = timestamp(NOON + timedelta(seconds=after))
    usual = Record(
        kind=kind,
        call=call or new_id(),
        at=at,
        identity=Caller(issuer="https://issuer", username="alice", groups=("agents",)),
        what=Call(
            method="GET",
            uri="/api/v1/namespaces/shop/pods/web",
            verb="get",
            api_version="v1",
            resource="pods",
            namespace="shop",
            name="web",
            is_resource=True,
        ),
        client=Client(peer="10.0.0.7", user_agent="kubectl/v1.30.0"),
        decision=Ruling(effect="allow", rule="readers"),
        response=Answer(code=200, content_type="application/json") if kind is Kind.OUTCOME else None,
        timing=Timing(received_at=at, total=1500 if kind is Kind.OUTCOME else None),
    )
    return msgspec.structs.replace(usual, **parts)


def response(content: bytes, media_type: str = "application/json") -> tuple[Body, ...]:
    """A response body to store, as an Entry takes it; the salt is chosen for reading, not for secrecy."""
    return (Body(Slot.RESPONSE, content, media_type, b"s" * SALT_BYTES),)


def request(content: bytes, media_type: str = "application/json") -> tuple[Body, ...]:
    """A request body to store, as an Entry takes it."""
    return (Body(Slot.REQUEST, content, media_type, b"q" * SALT_BYTES),)


def entry(body: bytes = b"{}", **parts: object) -> Entry:
    """An outcome with a response body."""
    return Entry(record(**parts), response(body))  # type: ignore[arg-type]


def open_test_ledger(
    folder: Path,
    database: Database,
    *,
    replica: str = "gw",
    role: str = "",
    epoch_records: int = 1_000_000,
    remembers: bool = True,
    pieces: PieceStore | None = None,
    clock: Callable[[], Clock] = read_clock,
) -> Ledger:
    """An open ledger of one replica, its keys and its head file under `folder`; all replicas have one root."""
    keys = KeyFolder(folder / "audit-keys")
    if replica != "gw":
        keys = _share_root(keys, KeyFolder(folder / f"audit-keys-{replica}"))
    head_file = HeadFile(folder / f"{replica}{role}.head") if remembers else None
    writer = Writer("test", replica, epoch_records, role)
    ledger = Ledger(LedgerStore(database, pieces), keys, writer, head_file, clock)
    ledger.open()
    return ledger


def _share_root(first: KeyFolder, other: KeyFolder) -> KeyFolder:
    with first.locked():
        if not first.root_pub.exists():
            first.make_root("test", Ed25519PrivateKey.generate())
    if not other.root_pub.exists():
        other.folder.mkdir(mode=0o700)
        shutil.copy(first.root_key, other.root_key)
        shutil.copy(first.root_pub, other.root_pub)
    return other
