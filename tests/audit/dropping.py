"""Logs of days that are long over, and what retention leaves of one: done by hand, as it is or as somebody fakes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.entries import open_test_ledger, record
from audit.tampering import Site
from holdfast.audit.keys import MAINTENANCE, ROLES
from holdfast.audit.record import Entry, Kind, Record, Redaction, Seen, Timing, decode, timestamp
from holdfast.audit.sequence import Clock
from holdfast.audit.tree import hash_leaf
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.audit.ledger import Ledger
    from holdfast.audit.logs import LogRow

CERTIFIED = timedelta(days=60)


@dataclass
class Aged(Site):
    """A site whose only replica has been at work for weeks; `days_ago` is what its clocks say."""

    days_ago: float = 20

    def __post_init__(self) -> None:
        self.anchors = self.folder / "anchors"
        self.anchors.mkdir()
        with self.keys.locked():
            root = self.keys.make_root("test", Ed25519PrivateKey.generate())
            certified = datetime.now(UTC) - CERTIFIED
            self.keys.make_epoch_key(
                root, "test", ["gw" + role for role in ROLES], Ed25519PrivateKey.generate(), certified
            )
        self.ledgers: dict[str, Ledger] = {}

    def now(self) -> datetime:
        """What the clocks say."""
        return datetime.now(UTC) - timedelta(days=self.days_ago)

    def ledger(self, role: str = "") -> Ledger:
        """The open ledger of this role."""
        if role not in self.ledgers:
            self.ledgers[role] = open_test_ledger(self.folder, self.database, role=role, clock=self._clock)
        return self.ledgers[role]

    def write(self, told: Record, role: str = "") -> None:
        """Add a record to the log of this role."""
        (outcome,) = self.ledger(role).write([Entry(told)])
        assert not isinstance(outcome, HoldfastError), outcome

    def call(self, received_at: str = "", **parts: object) -> Record:
        """A call that ends now, and arrives now or arrived then."""
        at = timestamp(self.now())
        return record(at=at, timing=Timing(received_at=received_at or at, total=5), **parts)

    def record_drop(self, log: LogRow, *, role: str = MAINTENANCE, day: str | None = None, until: str = "") -> None:
        """Say that a log is dropped, of its day or another one."""
        last = decode(self.leaves(log)[-1])
        told = Redaction(
            log=Seen(log=log.origin, size=log.size, root=log.root),
            reason="older than 10 days",
            rule="maxAgeDays",
            day=log.day if day is None else day,
            until=until or last.time or last.record.at,
        )
        self.write(Record(kind=Kind.REDACT, at=timestamp(self.now()), redact=told), role)

    def remove(self, log: LogRow) -> None:
        """Leave of a log what retention leaves of it."""
        hashes = b"".join(map(hash_leaf, self.leaves(log)))
        self.execute(
            "INSERT INTO leaf_hashes (log, first, hashes) VALUES (:log, 0, :hashes)", log=log.id, hashes=hashes
        )
        for table in ("records", "bodies", "calls"):
            self.execute(f"DELETE FROM {table} WHERE log = :log", log=log.id)  # noqa: S608  ours
        self.execute("DELETE FROM calls WHERE day = :day", day=log.day)
        self.execute("DELETE FROM checkpoints WHERE log = :log AND size < :size", log=log.id, size=log.size)
        self.execute(
            "DELETE FROM blobs WHERE NOT EXISTS "
            "(SELECT 1 FROM bodies WHERE bodies.day = blobs.day AND bodies.sha256 = blobs.sha256)"
        )
        at = timestamp(self.now())
        self.execute("UPDATE logs SET dropped_at = :at WHERE id = :log", at=at, log=log.id)

    def _clock(self) -> Clock:
        now = self.now()
        return Clock(timestamp(now), int(now.timestamp() * 1_000_000))
