"""Logs as they were signed: made again from their leaves before anything is erased because of what they tell.

Who can write in the database can change every column, and every leaf. So what goes, and how old it is, is read from
leaves that hash to a checkpoint, signed by a key that the root certified; a row that says otherwise is a Conflict.
Logs from before logs were signed have only their name, which tells their day, and the root in their row.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import batched, groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING

from sqlalchemy import select

from holdfast.audit.checkpoint import Checkpoint, open_checkpoint
from holdfast.audit.keys import parse_certificate
from holdfast.audit.logs import LogRow
from holdfast.audit.note import BadNote
from holdfast.audit.payload import Slot
from holdfast.audit.record import Kind, Redaction, call_row, decode
from holdfast.audit.store.ledger import LedgerStore
from holdfast.audit.store.tables import checkpoints, logs, records
from holdfast.audit.tree import HASH_BYTES, Frontier, hash_leaf
from holdfast.errors import Conflict, Internal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.audit.note import Verifier
    from holdfast.audit.record import Leaf
    from holdfast.audit.retention import StoredBody
    from holdfast.database import Database

LEGACY = "legacy/"
"""What the names of logs from before logs were signed begin with; the day follows."""

_REDACT = b'"kind":"redact"'
"""In every leaf that tells of an erasure, and in few others."""


PAGE = 500
LOGS_KEPT = 4
"""Of so many logs the leaf hashes are kept in memory: a call spans two, and a log of a million records takes 32 MB."""


@dataclass(frozen=True, slots=True)
class SignedLog:
    """What the leaves of a log say: which run began it, the time of the last one, and what it records as erased.

    Run and time are empty without any; `leaf_hashes` are those of all leaves, joined.
    """

    row: LogRow
    run: str
    until: str
    redactions: tuple[Redaction, ...]
    leaf_hashes: bytes


class SignedLogs:
    """Reads logs of one database, each held against what was signed. Every method raises Unavailable."""

    def __init__(self, database: Database, root: Verifier) -> None:
        self._database = database
        self._store = LedgerStore(database)
        self._root = root
        self._kept: dict[int, SignedLog] = {}

    def read(self, log: LogRow) -> SignedLog:
        """Make a log again from its leaves. Raises Conflict when it is not as it was signed, or its row is not."""
        try:
            return self._read(log)
        except (Internal, BadNote, TypeError, ValueError) as error:  # the last two: a leaf is kept as another type
            raise not_as_signed(log, str(error)) from error

    def _read(self, log: LogRow) -> SignedLog:
        reading = _Reading(log)
        for leaf in islice(self._store.leaves(log), log.size):
            reading.add(leaf)
        reading.require_row()
        if not is_legacy(log) and log.size:
            certificate = parse_certificate(log.certificate, self._root)
            signed = open_checkpoint(self._read_note(log), certificate.verifier_for(log.origin))
            if signed != Checkpoint(log.origin, reading.tree.size, reading.tree.root()):
                raise not_as_signed(log, "its last checkpoint is of other records")
        return SignedLog(log, reading.run, reading.until, tuple(reading.redactions), bytes(reading.leaf_hashes))

    def hold(self, bodies: Iterable[StoredBody]) -> Iterator[StoredBody]:
        """Yield the same bodies, each once the record that it hangs on and the one that tells of its call were found.

        Raises Conflict when a log is not as it was signed, or a row is not as its record says.
        """
        for some in batched(bodies, PAGE):
            told_by = {body.told_by for body in some if body.told_by is not None}
            found = self._find({(body.log.id, body.place.seq) for body in some} | told_by)
            for body in some:
                own = found[body.log.id, body.place.seq]
                told = found[body.told_by] if body.told_by is not None else own
                if not _is_told(body, own, told):
                    raise not_as_signed(body.log, f"a row tells of call {body.audit_id} what its records do not")
                yield body

    def _find(self, places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Leaf]:
        """The records at these places, by log and seq, each as it was signed."""
        found: dict[tuple[int, int], Leaf] = {}
        for number, of_log in groupby(sorted(places), key=itemgetter(0)):
            seqs = [seq for _, seq in of_log]
            log = self._keep(number, seqs[-1])
            here = (records.c.day == log.row.day, records.c.log == number, records.c.seq.in_(seqs))
            with self._database.reading() as connection:
                rows = connection.execute(select(records.c.seq, records.c.leaf).where(*here)).all()
            for seq, leaf in rows:
                if hash_leaf(leaf) != log.leaf_hashes[seq * HASH_BYTES : (seq + 1) * HASH_BYTES]:
                    raise not_as_signed(log.row, f"record {seq} is another one")
                found[number, seq] = decode(leaf)
            if len(rows) < len(seqs):
                raise not_as_signed(log.row, "it lacks records")
        return found

    def _keep(self, number: int, seq: int) -> SignedLog:
        """The log of this number, read once it had a record at this place."""
        log = self._kept.pop(number, None)
        if log is None or seq >= log.row.size:
            with self._database.reading() as connection:
                row = connection.execute(select(logs).where(logs.c.id == number)).mappings().first()
            if row is None or row["dropped_at"] is not None or not 0 <= seq < row["size"]:
                raise Conflict(
                    f"a row tells of record {seq} of log number {number}, which is not there, so nothing is erased; "
                    "run `holdfast audit verify`"
                )
            log = self.read(LogRow(**row))
        self._kept[number] = log
        while len(self._kept) > LOGS_KEPT:
            del self._kept[next(iter(self._kept))]
        return log

    def _read_note(self, log: LogRow) -> str:
        """The checkpoint of all of a log."""
        here = (checkpoints.c.day == log.day, checkpoints.c.log == log.id, checkpoints.c.size == log.size)
        with self._database.reading() as connection:
            return connection.execute(select(checkpoints.c.note).where(*here)).scalar() or ""


class _Reading:
    """One log while its leaves go by."""

    def __init__(self, log: LogRow) -> None:
        self._log = log
        self._last = b""
        self.leaf_hashes = bytearray()
        self.tree = Frontier()
        self.run = self.until = ""
        self.redactions: list[Redaction] = []

    def add(self, leaf: bytes) -> None:
        """Take in the next leaf."""
        if not self.tree.size or is_legacy(self._log):
            self._require_day(decode(leaf))
        if not self.tree.size and (start := decode(leaf).record.start) is not None:
            self.run = start.run
        if _REDACT in leaf and (redact := decode(leaf).record.redact) is not None:
            self.redactions.append(redact)
        leaf_hash = hash_leaf(leaf)
        self.tree.add(leaf_hash)
        self.leaf_hashes += leaf_hash
        self._last = leaf

    def require_row(self) -> None:
        """There are no more leaves: raise Conflict unless the log's row is as they say."""
        log = self._log
        if (self.tree.size, self.tree.root().hex()) != (log.size, log.root):
            raise not_as_signed(log, f"its row tells of {log.size} records, or of other ones")
        if not log.size:
            return
        last = decode(self._last)
        self.until = time_of(last)
        if log.closed_at != _closed_at(log, last):
            raise not_as_signed(log, f"its row says that it was closed at {log.closed_at}")

    def _require_day(self, leaf: Leaf) -> None:
        """A gateway names a log, gives it its day and makes its first record in one moment.

        When that record got its place says nothing: the database may have been away for days between the two.
        """
        log = self._log
        day = log.origin.removeprefix(LEGACY) if is_legacy(log) else log.day
        if (day, leaf.record.at[:10], leaf.version == 1) != (log.day, log.day, is_legacy(log)):
            raise not_as_signed(log, f"its row says that it is of {log.day}, its records say {leaf.record.at[:10]}")


def _is_told(body: StoredBody, own: Leaf, told: Leaf) -> bool:
    """Whether rows tell of a body what the record that it hangs on and the one that tells of its call do."""
    payload = own.record.request_body if body.place.slot is Slot.REQUEST else own.record.response_body
    return (
        payload is not None
        and own.record.call == told.record.call == body.audit_id
        and call_row(told.record) == body.call
        and body.log.origin == (f"{LEGACY}{body.log.day}" if is_legacy(body.log) else own.log)
    )


def is_legacy(log: LogRow) -> bool:
    """Whether a log is from before logs were signed."""
    return log.origin.startswith(LEGACY)


def time_of(leaf: Leaf) -> str:
    """When a leaf got its place; leaves from before there was a log tell only when their record was made."""
    return leaf.time or leaf.record.at


def not_as_signed(log: LogRow, why: str) -> Conflict:
    """What is told of a log that does not go, and of which nothing goes, before an auditor has seen it."""
    return Conflict(
        f"the log {log.origin} is not as it was signed ({why}), so nothing of it is erased; run `holdfast audit verify`"
    )


def _closed_at(log: LogRow, last: Leaf) -> str | None:
    if is_legacy(log):
        return f"{log.day}T23:59:59.999999Z"
    return last.time if last.record.kind is Kind.CLOSE else None
