"""What retention looks at, and bodies erased: rows, salts, and the pieces that nothing else of their day refers to.

Whether a piece is still referred to is not asked piece by piece: no index leads from a piece to its bodies, for the
writer would pay for it with every record. `References` counts a day once and follows what is added meanwhile. In
Postgres writers are kept out for the moment of an erasure (`LOCK TABLE`), so that none of them refers to a piece that
is just being removed because nobody did; in SQLite every writing transaction does that.

A writer puts a piece into the object store before the transaction that refers to it, out of sight of any lock. So
there a piece that is not needed any more is only marked, under `erasing-DAY`, before its row goes, and removed once
no log of its day is written any more: mark and all, by the same command or by a later one.
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager, suppress
from itertools import batched, groupby
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import bindparam, delete, func, literal, select, text, tuple_

from holdfast.audit.keys import MAINTENANCE
from holdfast.audit.logs import LogRow, PieceStore
from holdfast.audit.payload import PIECE_BYTES, Slot
from holdfast.audit.record import CallRow, Kind, call_row, decode
from holdfast.audit.retention import Day, Place, StoredBody, first_written_day, is_pinned_by
from holdfast.audit.store.ledger import partition_name
from holdfast.audit.store.naming import require_one, starts_with
from holdfast.audit.store.signed import LEGACY, is_legacy, time_of
from holdfast.audit.store.tables import CALL_ROW, DAILY, blobs, bodies, calls, logs, records
from holdfast.database import metadata
from holdfast.errors import ConfigurationError, Conflict, Internal
from holdfast.migrations import VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import ColumnElement, Connection

    from holdfast.audit.record import Leaf
    from holdfast.database import Database

    type Told = tuple[CallRow, tuple[int, int]]
    """A call, and the log and the place of the record that its row is derived from."""

PAGE = 500
ERASING = "erasing-"
ROW_BYTES = {"records": 213, "checkpoints": 246, "bodies": 128, "blobs": 192, "calls": 636}
"""What a row takes with its indexes, its leaf and content aside: measured in SQLite, over 20,000 calls."""


class Pieces(PieceStore, Protocol):
    """An object store that can tell what it has."""

    def days(self) -> list[str]:
        """The days that have pieces."""

    def digests(self, day: str) -> Iterator[list[str]]:
        """Yield the pieces of a day by their SHA-256, a page at a time."""

    def size_of(self, day: str) -> int:
        """What the pieces of a day take."""


class References:
    """How many bodies of a day refer to a piece, as far as it is more than one; told of each that goes."""

    def __init__(self, database: Database, day: str) -> None:
        self._day = day
        counted = (
            select(bodies.c.sha256, func.count())
            .where(bodies.c.day == day)
            .group_by(bodies.c.sha256)
            .having(func.count() > 1)
        )
        with database.snapshot() as connection:
            self._sizes = self._read_sizes(connection)
            self._shared: dict[str, int] = {digest: n for digest, n in connection.execute(counted)}  # noqa: C416  typed so

    def follow(self, connection: Connection) -> None:
        """Take in what was added to the day's logs since the last time."""
        sizes = self._read_sizes(connection)
        for log, size in sizes.items():
            known = self._sizes.get(log, 0)
            if size > known:
                added = (bodies.c.day == self._day, bodies.c.log == log, bodies.c.seq >= known)
                for digest in connection.execute(select(bodies.c.sha256).where(*added)).scalars():
                    # One that is new altogether counts too much here, but no body from before refers to it.
                    self._shared[digest] = self._shared.get(digest, 1) + 1
        self._sizes = sizes

    def release(self, digest: str) -> bool:
        """A body that referred to a piece goes: whether it was the last."""
        left = self._shared.pop(digest, 1) - 1
        if left > 1:
            self._shared[digest] = left
        return not left

    def _read_sizes(self, connection: Connection) -> dict[int, int]:
        query = select(logs.c.id, logs.c.size).where(logs.c.day == self._day)
        return {log: size for log, size in connection.execute(query)}  # noqa: C416  typed so


class RetentionStore:
    """Reads and erases in one database, and in the object store beside it. Every method raises Unavailable.

    Replicas that are `gone` never write again: their logs have ended, whether or not they were closed.
    """

    def __init__(self, database: Database, pieces: Pieces | None = None, gone: Sequence[str] = ()) -> None:
        self._database = database
        self._pieces = pieces
        self._gone = frozenset(gone)
        self._outside: dict[str, int] = {}
        """What the object store takes, by day, as far as it was asked."""

    @contextmanager
    def alone(self, lock_file: Path) -> Iterator[None]:
        """Keep every other command that writes here out. Raises Conflict when there is one; SQLite needs the file."""
        if self._database.dialect == "postgresql":
            with self._database.writing() as connection:
                # Who may only read cannot lock a row, as they could take an advisory lock.
                query = text(f"SELECT version_num FROM {VERSION_TABLE} FOR UPDATE SKIP LOCKED")  # noqa: S608
                if connection.execute(query).scalar() is None:
                    raise _busy()
                yield
            return
        with lock_file.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise _busy() from error
            yield

    def days(self) -> Iterator[Day]:
        """Yield the days that have logs, the oldest first. A log without a record has nothing that could go."""
        kept = [log for log in self._logs() if log.dropped_at is None and log.size]
        for day, of_day in groupby(kept, key=lambda log: log.day):
            its_logs = {log: self._last_leaf(log) for log in of_day}
            unended = tuple(log for log, last in its_logs.items() if not self._has_ended(log, last))
            yield Day(day, tuple(its_logs), unended, max(time_of(last) if last else "" for last in its_logs.values()))

    def dropped_origins(self) -> set[str]:
        """The logs that were dropped."""
        return {log.origin for log in self._logs() if log.dropped_at is not None}

    def used_bytes(self) -> int:
        """What the database takes, pages that are free to be used again aside, and the object store beside it.

        Both are measured: what rows say of sizes is what anybody who can write in the database says.
        """
        outside = sum(map(self._outside_bytes, self._pieces.days())) if self._pieces is not None else 0
        with self._database.reading() as connection:
            if connection.dialect.name == "postgresql":
                inside = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
            else:
                pages, free, size = (
                    connection.execute(text(f"PRAGMA {name}")).scalar_one()
                    for name in ("page_count", "freelist_count", "page_size")
                )
                inside = (pages - free) * size
            return int(inside) + outside

    def size_of(self, day: Day) -> int:
        """What a day takes, in bytes, about."""
        with self._database.reading() as connection:
            inside = _partition_bytes(connection, day.day) or _row_bytes(connection, day.day)
        return inside + self._outside_bytes(day.day)

    def check_sizes(self) -> None:
        """Raise Conflict when a row tells of a piece of a size that no gateway writes."""
        uncut = select(logs.c.day).where(logs.c.origin.startswith(LEGACY))
        query = select(blobs.c.day, blobs.c.sha256, blobs.c.size).where(
            ~blobs.c.size.between(0, PIECE_BYTES), blobs.c.day.not_in(uncut)
        )
        with self._database.reading() as connection:
            found = connection.execute(query.limit(1)).first()
        if found is not None:
            raise Conflict(
                f"the row of payload {found.day}/{found.sha256} tells of {found.size} bytes, which no gateway has "
                "written, so nothing is erased; run `holdfast audit verify`"
            )

    def resolve_call(self, beginning: str) -> str:
        """The audit ID of the one call that has records here and whose ID starts so; it need not be listed any more.

        Raises NotFound when there is none, Conflict when there are several.
        """
        query = select(records.c.call_id).where(starts_with(records.c.call_id, beginning)).distinct().limit(2)
        with self._database.reading() as connection:
            return require_one(connection.execute(query).scalars().all(), beginning)

    def bodies(self, call: str = "", *, first_day: str = "", before_day: str = "") -> Iterator[StoredBody]:
        """Yield the stored bodies of calls whose audit ID starts so, in logs of these days, log by log, day by day."""
        for log in self.kept_logs(first_day=first_day, before_day=before_day):
            yield from self.bodies_of(log, call)

    def kept_logs(self, *, first_day: str = "", before_day: str = "") -> list[LogRow]:
        """The logs of these days that were not dropped, day by day."""
        return [
            log
            for log in self._logs()
            if log.dropped_at is None and log.day >= first_day and (not before_day or log.day < before_day)
        ]

    def command_logs(self) -> list[LogRow]:
        """The logs of commands that erase, the latest first, as far as they have records and were not dropped."""
        of_commands = (logs.c.replica.endswith(MAINTENANCE), logs.c.size > 0, logs.c.dropped_at.is_(None))
        with self._database.reading() as connection:
            query = select(logs).where(*of_commands).order_by(logs.c.id.desc())
            return [LogRow(**row) for row in connection.execute(query).mappings()]

    def find_with_bodies(self, origin: str, places: Sequence[Place]) -> LogRow | None:
        """The log of this name, if it still has bodies at any of these places."""
        with self._database.reading() as connection:
            query = select(logs).where(logs.c.origin == origin, logs.c.dropped_at.is_(None))
            row = connection.execute(query).mappings().first()
            log = LogRow(**row) if row is not None else None
            return log if log is not None and _pieces_of(connection, log, places) else None

    def references(self, day: str) -> References:
        """Count the references to a day's pieces."""
        return References(self._database, day)

    def measure(self, log: LogRow, places: Sequence[Place], references: References) -> int:
        """What `erase` would free, in bytes."""
        with self._database.reading() as connection:
            found = _pieces_of(connection, log, places)
            free = [digest for _, digest in found if references.release(digest)]
            return _kept_bytes(connection, log.day, free)

    def erase(self, log: LogRow, places: Sequence[Place], references: References) -> int:
        """Erase bodies of one log; return how many bytes that freed."""
        with self._database.reading() as connection:
            found = _pieces_of(connection, log, places)
            outside = _outside(connection, log.day, [digest for _, digest in found])
        if outside:
            self._require_pieces().put(f"{ERASING}{log.day}", dict.fromkeys(outside, b""))
        with self._database.writing() as connection:
            keep_writers_out(connection)
            overwrite_what_goes(connection)
            references.follow(connection)
            _delete_bodies(connection, log, [place for place, _ in found])
            free = [digest for _, digest in found if references.release(digest)]
            freed = _kept_bytes(connection, log.day, free)
            delete_blobs(connection, log.day, free)
        return freed

    def settle(self) -> None:
        """In SQLite, see that what was erased is not in the write-ahead log any more, unless readers keep it there."""
        if self._database.dialect == "sqlite":
            with self._database.reading() as connection:
                connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

    def remove_day_pieces(self, day: str) -> None:
        """Remove what the object store has of a day that was dropped."""
        if self._pieces is not None:
            for digests in self._pieces.digests(day):
                self._pieces.delete(day, digests)
            self._outside.pop(day, None)

    def finish_pieces(self, now: datetime) -> None:
        """Remove from the object store what rows were removed for, earlier or just now, as far as its day is over."""
        if self._pieces is None:
            return
        stored = self._pieces.days()
        begun = (log for log in self._logs() if log.size)
        by_day = {day: list(of_day) for day, of_day in groupby(begun, key=lambda log: log.day)}
        for name in stored:
            its_logs = by_day.get(name.removeprefix(ERASING), [])
            if not name.startswith(ERASING):
                if its_logs and all(log.dropped_at for log in its_logs):
                    self.remove_day_pieces(name)
            elif name.removeprefix(ERASING) < first_written_day(now) and all(
                self._has_ended(log, self._last_leaf(log)) for log in its_logs
            ):
                self._finish_erasing(name)

    def _finish_erasing(self, marks: str) -> None:
        """Remove the marked pieces that nothing refers to, then the marks."""
        pieces, day = self._require_pieces(), marks.removeprefix(ERASING)
        for digests in pieces.digests(marks):
            with self._database.reading() as connection:
                needed = set(_outside(connection, day, digests))
            pieces.delete(day, [digest for digest in digests if digest not in needed])
            pieces.delete(marks, digests)
        self._outside.pop(day, None)

    def _logs(self) -> list[LogRow]:
        """Every log, day by day."""
        with self._database.reading() as connection:
            query = select(logs).order_by(logs.c.day, logs.c.id)
            return [LogRow(**row) for row in connection.execute(query).mappings()]

    def _last_leaf(self, log: LogRow) -> Leaf | None:
        """The last record of a log as it stands here, signed or not; None when there is none that can be read."""
        here = (records.c.day == log.day, records.c.log == log.id, records.c.seq == log.size - 1)
        with self._database.reading() as connection:
            leaf = connection.execute(select(records.c.leaf).where(*here)).scalar()
        with suppress(Internal):
            return decode(bytes(leaf)) if leaf is not None else None
        return None

    def _has_ended(self, log: LogRow, last: Leaf | None) -> bool:
        """Whether nobody writes it any more: it was closed or dropped, its replica is gone, or another log goes on."""
        is_closed = is_legacy(log) or (last is not None and last.record.kind is Kind.CLOSE)
        if is_closed or log.dropped_at is not None or log.replica in self._gone:
            return True
        query = (
            select(records.c.leaf)
            .join(logs, (logs.c.day == records.c.day) & (logs.c.id == records.c.log))
            .where(logs.c.replica == log.replica, logs.c.epoch > log.epoch, records.c.seq == 0)
        )
        with self._database.reading() as connection:
            return any(is_pinned_by(log, decode(bytes(leaf))) for leaf in connection.execute(query).scalars())

    def bodies_of(self, log: LogRow, call: str = "") -> Iterator[StoredBody]:
        """Yield the stored bodies of one log, and what rows tell of their calls."""
        of_record = (records.c.day == bodies.c.day) & (records.c.log == bodies.c.log) & (records.c.seq == bodies.c.seq)
        of_log: list[ColumnElement[bool]] = [bodies.c.day == log.day, bodies.c.log == log.id, bodies.c.seq < log.size]
        if call:
            of_log.append(starts_with(records.c.call_id, call))
        last: tuple[int, str] | None = (-1, "")
        while last is not None:
            query = (
                select(bodies.c.seq, bodies.c.slot, records.c.call_id)
                .distinct()
                .join(records, of_record)
                .where(*of_log, tuple_(bodies.c.seq, bodies.c.slot) > last)
                .order_by(bodies.c.seq, bodies.c.slot)
                .limit(PAGE)
            )
            with self._database.reading() as connection:
                page = connection.execute(query).all()
                rows = _find_calls(connection, log.day, {row.call_id for row in page})
            for row in page:
                call_row, told_by = rows.get(row.call_id, (None, None))
                yield StoredBody(log, Place(row.seq, Slot(row.slot)), row.call_id, call_row, told_by)
            last = (page[-1].seq, page[-1].slot) if len(page) == PAGE else None

    def _outside_bytes(self, day: str) -> int:
        """What the object store has of a day: one request for a thousand pieces, so it is asked once."""
        if self._pieces is not None and day not in self._outside:
            self._outside[day] = self._pieces.size_of(day)
        return self._outside.get(day, 0)

    def _require_pieces(self) -> Pieces:
        if self._pieces is None:
            raise ConfigurationError("payloads are in an object store; set audit.payloads as the gateway has it.")
        return self._pieces


def keep_writers_out(connection: Connection) -> None:
    """Let nobody add bodies and pieces until the transaction ends; in SQLite it does so by itself."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE ONLY bodies, ONLY blobs IN SHARE ROW EXCLUSIVE MODE"))


def overwrite_what_goes(connection: Connection) -> None:
    """In SQLite, have what is deleted overwritten: it would be read out of the file for long.

    Postgres overwrites it when it vacuums the table.
    """
    if connection.dialect.name == "sqlite":
        connection.execute(text("PRAGMA secure_delete=ON"))


def delete_blobs(connection: Connection, day: str, digests: Iterable[str]) -> None:
    """Delete rows of pieces."""
    for some in batched(digests, PAGE):
        connection.execute(delete(blobs).where(blobs.c.day == day, blobs.c.sha256.in_(some)))


def _busy() -> Conflict:
    return Conflict("another command that writes to this record is under way; wait for its end")


def _partition_bytes(connection: Connection, day: str) -> int:
    """What the day's partitions take; 0 where it has none."""
    if connection.dialect.name != "postgresql":
        return 0
    sizes = "SELECT coalesce(sum(pg_total_relation_size(to_regclass(name))), 0)"
    query = text(f"{sizes} FROM unnest(CAST(:names AS text[])) AS name")
    return int(connection.execute(query, {"names": [partition_name(table, day) for table in DAILY]}).scalar_one())


def _row_bytes(connection: Connection, day: str) -> int:
    content: dict[str, Any] = {"records": records.c.leaf, "blobs": blobs.c.body}
    total = 0
    for table in (metadata.tables[name] for name in DAILY):
        length = func.coalesce(func.sum(func.length(content.get(table.name, literal("")))), 0)
        query = select(func.count(), length).select_from(table).where(table.c.day == day)
        number, stored = connection.execute(query).one()
        total += number * ROW_BYTES[table.name] + stored
    return int(total)


def _pieces_of(connection: Connection, log: LogRow, places: Sequence[Place]) -> list[tuple[Place, str]]:
    """The pieces of bodies, each with the body that refers to it."""
    meant = set(places)
    found: list[tuple[Place, str]] = []
    for some in batched(sorted({place.seq for place in places}), PAGE):
        here = (bodies.c.day == log.day, bodies.c.log == log.id, bodies.c.seq.in_(some))
        for seq, slot, digest in connection.execute(select(bodies.c.seq, bodies.c.slot, bodies.c.sha256).where(*here)):
            if (place := Place(seq, Slot(slot))) in meant:
                found.append((place, digest))
    return found


def _delete_bodies(connection: Connection, log: LogRow, places: Iterable[Place]) -> None:
    one = delete(bodies).where(
        bodies.c.day == log.day,
        bodies.c.log == log.id,
        bodies.c.seq == bindparam("at_seq"),
        bodies.c.slot == bindparam("at_slot"),
    )
    rows = [{"at_seq": place.seq, "at_slot": place.slot.value} for place in dict.fromkeys(places)]
    if rows:
        connection.execute(one, rows)


def _outside(connection: Connection, day: str, digests: Iterable[str]) -> list[str]:
    """Those of these pieces that the object store has for a row."""
    return [
        digest
        for some in batched(digests, PAGE)
        for digest in connection.execute(
            select(blobs.c.sha256).where(blobs.c.day == day, blobs.c.sha256.in_(some), blobs.c.body.is_(None))
        ).scalars()
    ]


def _kept_bytes(connection: Connection, day: str, digests: Iterable[str]) -> int:
    """What these pieces take; of those in the object store, what they take uncompressed."""
    size = func.coalesce(func.sum(func.coalesce(func.length(blobs.c.body), blobs.c.size)), 0)
    return sum(
        int(connection.execute(select(size).where(blobs.c.day == day, blobs.c.sha256.in_(some))).scalar_one())
        for some in batched(digests, PAGE)
    )


def _find_calls(connection: Connection, day: str, audit_ids: set[str]) -> Mapping[str, Told]:
    """The rows of calls that have records on a day, as far as anything tells of them.

    Most arrived on it; in Postgres other days are other tables.
    """
    query = select(*CALL_ROW, calls.c.log, calls.c.seq)
    found: dict[str, Told] = {}
    for here in ([calls.c.day == day], []):
        missing = audit_ids - found.keys()
        if missing:
            for *row, log, seq in connection.execute(query.where(calls.c.audit_id.in_(missing), *here)):
                call = CallRow(*row)
                found[call.audit_id] = call, (log, seq)
    for audit_id in audit_ids - found.keys():
        told = _derive_call(connection, audit_id)
        if told is not None:
            found[audit_id] = told
    return found


def _derive_call(connection: Connection, audit_id: str) -> Told | None:
    """The row of a call that has none any more, since the day on which it arrived was dropped."""
    query: Any = (
        select(records.c.leaf, records.c.log, records.c.seq)
        .where(records.c.call_id == audit_id, records.c.kind != Kind.CHUNK.value)
        .order_by(records.c.log.desc(), records.c.seq.desc())
    )
    for leaf, log, seq in connection.execute(query):
        row = call_row(decode(bytes(leaf)).record)
        if row is not None:
            return row, (log, seq)
    return None
