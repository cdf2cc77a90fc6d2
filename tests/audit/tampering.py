"""A record to tamper with, the tools of somebody who may write everything in its database, and the verdict."""

from __future__ import annotations

import io
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from audit.entries import entry, new_id, open_test_ledger, record, request
from holdfast.audit.anchors.evidence import read_evidence
from holdfast.audit.anchors.file import append_note
from holdfast.audit.checkpoint import Checkpoint, Origin, sign_checkpoint
from holdfast.audit.export import write_export
from holdfast.audit.keys import KeyFolder
from holdfast.audit.note import KeyName
from holdfast.audit.record import Entry, Kind, Leaf, decode, encode, encode_leaf
from holdfast.audit.store import LedgerStore
from holdfast.audit.store.export import export_lines
from holdfast.audit.tree import hash_leaf, root_of
from holdfast.audit.verify import Anchoring, Class, Report, examined_lines, verify_lines
from holdfast.audit.verify.workers import Sharing
from holdfast.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.audit.ledger import Ledger
    from holdfast.audit.logs import LogRow
    from holdfast.audit.note import Signer, Verifier
    from holdfast.audit.record import Record

CALLS = 6
ALL_BY_A_WORKER = Sharing(workers=1, block_bytes=16_384, alone_lines=0, own_bytes=0)


@dataclass
class Site:
    """A database with the logs of two replicas, anchored, and everything that an attacker or an auditor has."""

    folder: Path
    database: Database

    def __post_init__(self) -> None:
        self.anchors = self.folder / "anchors"
        self.anchors.mkdir()
        self.ledgers = {name: open_test_ledger(self.folder, self.database, replica=name) for name in ("gw", "other")}
        for ledger in self.ledgers.values():
            for number in range(CALLS):
                self.record_call(ledger, b"%d" % number)
        self.ledgers["gw"].beat()
        self.anchor()

    @cached_property
    def keys(self) -> KeyFolder:
        """The keys of replica gw, for attacks that have them."""
        return KeyFolder(self.folder / "audit-keys")

    @cached_property
    def root(self) -> Verifier:
        """What the auditor pins."""
        return self.keys.root_verifier()

    @property
    def log(self) -> LogRow:
        """The log of replica gw."""
        return self.named("gw")

    def named(self, replica: str) -> LogRow:
        """The latest log of a replica."""
        row = LedgerStore(self.database).last_log(replica)
        assert row is not None
        return row

    def record_call(self, ledger: Ledger, body: bytes) -> str:
        """Record a call in two commits, an intent with a body and its outcome with another."""
        call = new_id()
        ledger.write([Entry(record(call, Kind.INTENT), request(b"asked " + body))])
        ledger.write([entry(b"answered " + body, call=call)])
        return call

    def anchor(self) -> None:
        """Keep the latest checkpoint of every log outside the database."""
        store = LedgerStore(self.database)
        for row in store.all_logs():
            if row.size and row.certificate:
                append_note(self.anchors / "file.notes", store.latest_note(row))

    def execute(self, statement: str, **values: Any) -> int:
        """Change the database as its owner; return how many rows were changed."""
        with self.database.writing() as connection:
            return connection.execute(text(statement), values).rowcount

    def leaves(self, row: LogRow) -> list[bytes]:
        """The leaves of a log."""
        return list(LedgerStore(self.database).leaves(row))

    def put_leaf(self, row: LogRow, seq: int, leaf: bytes) -> None:
        """Replace one leaf."""
        self.execute("UPDATE records SET leaf = :leaf WHERE log = :log AND seq = :seq", leaf=leaf, log=row.id, seq=seq)

    def find(self, row: LogRow, kind: Kind) -> int:
        """The place of the first record of this kind, past the middle of the log."""
        leaves = self.leaves(row)
        return next(seq for seq in range(len(leaves) // 2, len(leaves)) if decode(leaves[seq]).record.kind is kind)

    def edit(self, row: LogRow, seq: int, change: Callable[[Record], Record]) -> None:
        """Replace one record by another, its leaf spelt as it must be."""
        leaf = decode(self.leaves(row)[seq])
        self.put_leaf(row, seq, spell(change(leaf.record), leaf))

    def relink(self, row: LogRow, first: int = 0) -> None:
        """Make every leaf name its place and the one before again, and the log's row its size and root."""
        leaves = self.leaves(row)
        for seq in range(max(first, 1), len(leaves)):
            leaf = decode(leaves[seq])
            placed = Leaf(leaf.record, leaf.log, seq, hash_leaf(leaves[seq - 1]).hex(), leaf.time, leaf.mono)
            leaves[seq] = encode_leaf(placed, encode(leaf.record))
            self.put_leaf(row, seq, leaves[seq])
        self.describe(row, leaves)

    def describe(self, row: LogRow, leaves: list[bytes]) -> Checkpoint:
        """Make the log's row fit these leaves; return the checkpoint that they would have."""
        checkpoint = Checkpoint(row.origin, len(leaves), root_of(map(hash_leaf, leaves)))
        self.execute(
            "UPDATE logs SET size = :size, root = :root WHERE id = :log",
            size=checkpoint.size,
            root=checkpoint.root.hex(),
            log=row.id,
        )
        return checkpoint

    def sign_again(self, row: LogRow, signer: Signer, keep: int = 0) -> None:
        """Replace the checkpoints above size `keep` by one over the log as it stands."""
        leaves = self.leaves(row)
        checkpoint = self.describe(row, leaves)
        self.execute("DELETE FROM checkpoints WHERE log = :log AND size > :keep", log=row.id, keep=keep)
        self.execute(
            "INSERT INTO checkpoints (day, log, size, note) VALUES (:day, :log, :size, :note)",
            day=row.day,
            log=row.id,
            size=checkpoint.size,
            note=sign_checkpoint(checkpoint, signer),
        )

    def live_key(self, row: LogRow) -> Signer:
        """The key that replica gw signs with."""
        return self.keys.load_epoch_key().signer_for(Origin(KeyName(row.origin)))

    def drop_from(self, row: LogRow, seq: int) -> None:
        """Remove the records of a log from this one on, with all that hangs on them."""
        gone = [decode(leaf).record.call for leaf in self.leaves(row)[seq:]]
        for table in ("records", "bodies", "calls"):
            self.execute(f"DELETE FROM {table} WHERE log = :log AND seq >= :seq", log=row.id, seq=seq)  # noqa: S608
        self.execute(
            "DELETE FROM blobs WHERE NOT EXISTS "
            "(SELECT 1 FROM bodies WHERE bodies.day = blobs.day AND bodies.sha256 = blobs.sha256)"
        )
        self.restore_calls(row, set(gone))

    def restore_calls(self, row: LogRow, calls: set[str]) -> None:
        """Cut calls whose latest record is gone out of the record too, so that nothing points nowhere."""
        for call in calls - {""}:
            left = [leaf for leaf in self.leaves(row) if decode(leaf).record.call == call]
            if left:
                seq = decode(left[0]).seq
                self.drop_from(row, seq)

    def verify(self, **options: Any) -> Report:
        """The auditor's verdict, which is the same from a file that other processes examine."""
        anchoring = Anchoring(tuple(read_evidence(self.anchors)), **options)
        lines = list(export_lines(self.database, "test", "2026-01-01T00:00:00.000000Z"))
        report = verify_lines(lines, self.root, anchoring)
        file = io.BytesIO()
        write_export(lines, file)
        file.seek(0)
        with closing(examined_lines(file, self.root, ALL_BY_A_WORKER)) as examined:
            assert verify_lines(examined, self.root, anchoring) == report
        return report


def spell(told: Record, leaf: Leaf) -> bytes:
    """A leaf's bytes around another record."""
    return encode_leaf(Leaf(told, leaf.log, leaf.seq, leaf.previous, leaf.time, leaf.mono), encode(told))


def codes(report: Report) -> set[str]:
    """The names of what was found."""
    return set(report.counts)


def places(report: Report, code: str) -> list[int | None]:
    """The records about which it was found."""
    return [finding.seq for finding in report.findings if finding.code.name == code]


def is_altered(report: Report) -> bool:
    """Whether the verdict is the gravest."""
    return report.verdict() is Class.ALTERED
