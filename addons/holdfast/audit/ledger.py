"""One writer's logs: opened after they were checked, added to batch by batch, followed by the next when they end.

A log is the part of a replica's record that was begun on one day and is signed by one key (see `keys`); its name
is `holdfast/CLUSTER/REPLICA/EPOCH`, with epochs counted from 1. It ends with a `close` record when the day, the key
or the number of records asks for it, and the first record of the next names its root. A gateway that starts again
on the same day goes on with its log, after it has made the log's tree again from the database and found what it
remembers of it (see `head`); a database that lacks anything of that is not gone on with.

Blocking: the writer calls it on its thread.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING

from holdfast.audit.checkpoint import Checkpoint, Origin, open_checkpoint, sign_checkpoint
from holdfast.audit.keys import open_epoch_key
from holdfast.audit.logs import Batch, LogRow
from holdfast.audit.note import BadNote, KeyName, encode_base64
from holdfast.audit.receipt import Receipt
from holdfast.audit.record import Closing, Entry, Kind, Record, Rotation, Seen, Start, timestamp
from holdfast.audit.sequence import NO_HASH, Clock, Head
from holdfast.audit.tree import hash_leaf
from holdfast.errors import ConfigurationError, HoldfastError, Internal, Superseded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.audit.head import HeadFile
    from holdfast.audit.keys import EpochKey, KeyFolder
    from holdfast.audit.payload import Body
    from holdfast.audit.sequence import Placed
    from holdfast.audit.store.ledger import LedgerStore

_EPOCH = re.compile(r"[1-9][0-9]{0,8}")
"""What a log's name may end with (see `keys.Certificate.covers`); a head file can be edited to say anything else."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: the names that its logs carry, and when a log has had enough records.

    `role` is one of `keys.ROLES`; `name` is what the logs are called by.
    """

    cluster: str
    replica: str
    epoch_records: int
    role: str = ""

    @property
    def name(self) -> str:
        """The replica's name in its logs."""
        return self.replica + self.role


def read_clock() -> Clock:
    """Both clocks, now."""
    return Clock(timestamp(datetime.now(UTC)), time.monotonic_ns() // 1000)


class Ledger:
    """The logs of one writer in one database."""

    def __init__(
        self,
        store: LedgerStore,
        keys: KeyFolder,
        writer: Writer,
        head_file: HeadFile | None = None,
        clock: Callable[[], Clock] = read_clock,
    ) -> None:
        self._store = store
        self._keys = keys
        self._writer = writer
        self._head_file = head_file
        self._clock = clock
        self._run = secrets.token_hex(8)
        self._in_doubt: Checkpoint | None = None
        self._opening: list[Entry] = []
        self._ended_note = ""
        self._seen: dict[str, Seen] = {}
        self._row: LogRow
        self._head: Head
        self._key: EpochKey
        self._note = ""

    @property
    def row(self) -> LogRow:
        """The log that is written now."""
        return self._row

    @property
    def latest_notes(self) -> tuple[str, ...]:
        """The notes of the last checkpoints: of the log that this writer ended last, and of the one it writes."""
        return tuple(note for note in (self._ended_note, self._note) if note)

    def open(self) -> None:
        """Go on with the latest log, or begin the next, and say so in the record.

        Raises ConfigurationError when the database is not as this gateway left it, Unavailable.
        """
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        clock = self._clock()
        self._key = self._load_key(clock)
        remembered, gap = self._remember()
        last = self._store.last_log(self._writer.name)
        head = self._check(last, None if gap else remembered)
        if last is not None and head is not None and remembered is not None and not gap and self._goes_on(last, clock):
            self._row, self._head = last, head
            self._commit([_heartbeat(clock, Start(run=self._run, build=version("holdfast")))], clock)
        else:
            forgot = self._head_file is not None and remembered is None and last is not None
            self._begin(
                last, self._key, clock, gap or ("the local head file was missing" if forgot else ""), remembered
            )
        if self._head_file:
            self._head_file.forget_gap()

    def _remember(self) -> tuple[Checkpoint | None, str]:
        """What this writer wrote last, and why it need not go on from there, where somebody said so."""
        if self._head_file is None:
            return None, ""
        self._head_file.lock()
        gap = self._head_file.read_gap()
        try:
            return self._head_file.load(), gap
        except ConfigurationError:
            if not gap:
                raise
            return None, gap

    def write(self, batch: Sequence[Entry]) -> list[Receipt | HoldfastError]:
        """Make a batch durable in one transaction; return a receipt for each entry, or why it is not kept.

        Where the database does not take one of the entries each goes by itself; after an outage in the middle of
        that, Unavailable stands for the one that met it, and may be durable, and for the rest, which is not.
        Raises Unavailable when nothing of the batch is durable, or nobody can say.
        """
        self._settle_doubt()
        clock = self._clock()
        self._roll(clock)
        try:
            return self._commit(batch, clock)
        except Internal as error:
            if len(batch) == 1:
                return [error]
        return self._commit_one_by_one(batch, clock)

    def beat(self) -> None:
        """Say that all is quiet, and what has become of the other logs. Raises Unavailable."""
        self._settle_doubt()
        clock = self._clock()
        self._roll(clock)
        self._commit([_heartbeat(clock), *self._peers(clock)], clock)

    def close(self, reason: str = "") -> None:
        """Let go of the log; with a reason, end it with a `close` record."""
        if reason and self._row.closed_at is None:
            clock = self._clock()
            try:
                self._settle_doubt()
                self._commit([_closing(clock, reason)], clock, closes=True)
            except Unavailable as error:
                log.warning(
                    "the log %s could not be closed, retention keeps its day until another goes on from it: %s",
                    self._row.origin,
                    error,
                )
        if self._head_file:
            self._head_file.close()

    def _load_key(self, clock: Clock) -> EpochKey:
        now = datetime.fromisoformat(clock.time)
        return open_epoch_key(self._keys, self._writer.cluster, self._writer.replica, now)

    def _goes_on(self, last: LogRow, clock: Clock) -> bool:
        """Whether the latest log can take more records today."""
        return (
            last.closed_at is None
            and last.dropped_at is None
            and last.day == clock.day
            and last.certificate == self._key.certificate_note
            and last.size < self._writer.epoch_records
        )

    def _check(self, last: LogRow | None, remembered: Checkpoint | None) -> Head | None:
        """Make the tree of the latest log again, and find in the database what is remembered of it."""
        head = self._rebuild(last, remembered) if last is not None else None
        if remembered is None or (last is not None and last.origin == remembered.origin):
            return head
        row = self._store.find_log(remembered.origin)
        if row is None:
            raise _differs(f"it lacks the log {remembered.origin}, which had {remembered.size} records")
        if row.dropped_at is None:
            self._rebuild(row, remembered)
        return head

    def _rebuild(self, row: LogRow, remembered: Checkpoint | None) -> Head | None:
        if row.dropped_at is not None:
            return None
        head, leaf_hashes = Head(row.origin), map(hash_leaf, self._store.leaves(row))
        known = remembered if remembered is not None and remembered.origin == row.origin else None
        head.extend(islice(leaf_hashes, known.size if known is not None else 0))
        seen = head.checkpoint()
        head.extend(leaf_hashes)
        if known is not None and known.size and seen != known:
            raise _differs(
                f"the log {row.origin} had {known.size} records when this gateway last wrote it and now has "
                f"{head.size}" + ("" if head.size < known.size else ", other ones")
            )
        if head.size != row.size or head.checkpoint().root.hex() != row.root:
            raise _differs(f"the log {row.origin} should have {row.size} records and has {head.size}, or other ones")
        if head.size:
            self._check_note(row, head)
        return head

    def _check_note(self, row: LogRow, head: Head) -> None:
        """The log's own checkpoint must be signed, where we hold the key that signed it."""
        if row.certificate != self._key.certificate_note:
            return
        try:
            signed = open_checkpoint(self._store.latest_note(row), self._key.certificate.verifier_for(row.origin))
        except BadNote as error:
            raise _differs(f"the log {row.origin} has no good checkpoint ({error})") from error
        if signed != head.checkpoint():
            raise _differs(f"the log {row.origin} is not what its checkpoint says")

    def _begin(
        self, last: LogRow | None, key: EpochKey, clock: Clock, gap: str = "", remembered: Checkpoint | None = None
    ) -> None:
        """Begin the log that comes after `last`, and after what is remembered: no name is given to a second log."""
        epoch = self._next_epoch(key, clock, remembered)
        origin = Origin(KeyName(f"{self._name}{epoch}"))
        head = Head(origin, bytes.fromhex(last.root) if last is not None else NO_HASH)
        row = LogRow(
            id=0,
            origin=origin,
            replica=self._writer.name,
            epoch=epoch,
            day=clock.day,
            certificate=key.certificate_note,
            size=0,
            root=head.checkpoint().root.hex(),
            opened_at=clock.time,
            closed_at=None,
            dropped_at=None,
        )
        self._row, self._head, self._key = self._store.begin_log(row), head, key
        self._seen.clear()
        start = Start(
            run=self._run,
            build=version("holdfast"),
            previous_log=last.origin if last else "",
            previous_size=last.size if last else 0,
            gap=gap,
        )
        self._opening = [_heartbeat(clock, start), *self._peers(clock)]
        self._commit([], clock)

    @property
    def _name(self) -> str:
        """What the names of all our logs begin with."""
        return f"holdfast/{self._writer.cluster}/{self._writer.name}/"

    def _next_epoch(self, key: EpochKey, clock: Clock, remembered: Checkpoint | None) -> int:
        """The number of the log to begin: that of an empty one, where a try before this got no further.

        It is not always the one after the last: another process may have begun logs under our name, and a database
        that was put back lacks logs whose checkpoints are known elsewhere. Numbers of logs without a record are only
        passed over: anybody who can write in the database can make up such a row, of the highest number there is.
        """
        last = self._store.last_log(self._writer.name)
        epoch = 1 + max(self._epoch_of(log.origin if log else "") for log in (remembered, last))
        while (found := self._store.find_log(f"{self._name}{epoch}")) is not None:
            if (found.size, found.day, found.certificate) == (0, clock.day, key.certificate_note):
                break
            epoch += 1
        return epoch

    def _epoch_of(self, origin: str) -> int:
        """The number in the name of one of our logs; 0 when it is none."""
        name, _, number = origin.rpartition("/")
        return int(number) if f"{name}/" == self._name and _EPOCH.fullmatch(number) else 0

    def _peers(self, clock: Clock) -> list[Entry]:
        """What has become of the other logs of the database, as a record; none when nothing has.

        What was dropped cannot change any more, and the record of the drop says how large it was.
        """
        rows = (row for row in self._store.all_logs() if row.id != self._row.id and row.dropped_at is None)
        others = (Seen(log=row.origin, size=row.size, root=row.root) for row in rows)
        news = tuple(other for other in others if other.size and self._seen.get(other.log) != other)
        self._seen.update({other.log: other for other in news})
        return [Entry(Record(kind=Kind.PEER, at=clock.time, peers=news))] if news else []

    def _roll(self, clock: Clock) -> None:
        """End the log and begin the next where the day, the key or the number of records asks for it."""
        key = self._current_key(clock)
        reason = self._reason_to_roll(key, clock)
        if not reason:
            self._key = key
            return
        ending = [_rotation(clock, key)] if key.certificate_note != self._key.certificate_note else []
        if self._row.closed_at is None and self._is_certified(clock):
            self._commit([*ending, _closing(clock, reason)], clock, closes=True)
        self._ended_note = self._note
        self._begin(self._row, key, clock)

    def _reason_to_roll(self, key: EpochKey, clock: Clock) -> str:
        if self._row.day != clock.day:
            return "the day is over"
        if self._head.size >= self._writer.epoch_records:
            return "it has enough records"
        if self._row.closed_at is not None or key.certificate_note != self._row.certificate:
            return "another key signs from here on"
        return ""

    def _current_key(self, clock: Clock) -> EpochKey:
        """The key to sign with; read again where its file was changed, or what we have is certified no longer."""
        if self._keys.changed_at() == self._key.changed_at and self._is_certified(clock):
            return self._key
        return self._load_key(clock)

    def _is_certified(self, clock: Clock) -> bool:
        """Whether the key that signs this log may still sign."""
        return self._key.certificate.is_valid_at(datetime.fromisoformat(clock.time))

    def _commit(self, batch: Sequence[Entry], clock: Clock, *, closes: bool = False) -> list[Receipt | HoldfastError]:
        head = self._head.copy()
        placed: list[Placed] = []
        bodies: list[tuple[Body, ...]] = []
        results: list[Placed | HoldfastError] = []
        for entry in (*self._opening, *batch):
            try:
                results.append(head.place(entry.complete(), clock))
            except HoldfastError as error:
                results.append(error)
            else:
                placed.append(results[-1])  # type: ignore[arg-type]  # it was placed just now
                bodies.append(entry.bodies)
        opened = len(self._opening)
        if placed:
            self._make_durable(head, placed, bodies, clock.time if closes else None)
        return [
            Receipt(head.origin, result.seq, result.leaf_hash, self._note)
            if not isinstance(result, HoldfastError)
            else result
            for result in results[opened:]
        ]

    def _commit_one_by_one(self, batch: Sequence[Entry], clock: Clock) -> list[Receipt | HoldfastError]:
        """Commit each by itself: the database does not take one of them, and does not say which."""
        results: list[Receipt | HoldfastError] = []
        for entry in batch:
            try:
                results += self._commit([entry], clock)
            except Internal as error:
                results.append(error)
            except Unavailable as error:
                return results + [error] * (len(batch) - len(results))
        return results

    def _make_durable(
        self, head: Head, placed: list[Placed], bodies: list[tuple[Body, ...]], closed_at: str | None
    ) -> None:
        before, after = self._head.checkpoint(), head.checkpoint()
        note = sign_checkpoint(after, self._key.signer_for(head.origin))
        batch = Batch(self._row.id, self._row.day, before, after, note, placed, bodies, closed_at)
        try:
            self._store.commit(batch)
        except Exception as error:
            if not isinstance(error, Superseded | Internal):
                self._in_doubt = after
            self._seen.clear()  # what the batch was to tell of other logs may not have been told
            raise
        self._adopt(head, note, closed_at)

    def _adopt(self, head: Head, note: str, closed_at: str | None) -> None:
        checkpoint = head.checkpoint()
        self._head, self._note, self._opening = head, note, []
        self._row = replace(self._row, size=head.size, root=checkpoint.root.hex(), closed_at=closed_at)
        if self._head_file:
            self._head_file.save(checkpoint)

    def _settle_doubt(self) -> None:
        """After a commit that failed: find out whether it took place all the same.

        A connection can break between the commit and the news of it, or while the server is still at it.
        """
        if self._in_doubt is None:
            return
        found = self._store.settled_log(self._row.origin)
        if found is not None and (found.size, found.root) == (self._in_doubt.size, self._in_doubt.root.hex()):
            head = self._head.copy()
            head.extend(map(hash_leaf, self._store.leaves(self._row, head.size)))
            self._adopt(head, self._store.latest_note(self._row), found.closed_at)
        self._in_doubt = None


def _heartbeat(clock: Clock, start: Start | None = None) -> Entry:
    return Entry(Record(kind=Kind.HEARTBEAT, at=clock.time, start=start))


def _closing(clock: Clock, reason: str) -> Entry:
    return Entry(Record(kind=Kind.CLOSE, at=clock.time, close=Closing(reason=reason)))


def _rotation(clock: Clock, key: EpochKey) -> Entry:
    certificate = sha256(key.certificate_note.encode()).hexdigest()
    return Entry(
        Record(
            kind=Kind.ROTATE,
            at=clock.time,
            rotate=Rotation(key=encode_base64(key.certificate.key), certificate=certificate),
        )
    )


def _differs(found: str) -> ConfigurationError:
    return ConfigurationError(
        f"the audit database is not as this gateway left it: {found}. Look into it (`holdfast audit verify`); where it "
        "was put back from a backup on purpose, say so with `holdfast audit accept --reason`."
    )
