"""Days dropped: of each log stay its leaf hashes, 32 bytes a record, its row and its last checkpoint.

So every proof and every anchor holds. In Postgres a day goes in one transaction, by dropping its partitions; the last
checkpoints are put back under their keys and come to lie in the partition of days that have none. Dropping a
partition needs its table for itself alone, and whoever comes meanwhile waits, a gateway too: so it is given up and
tried again when readers do not let go of the tables soon.

In SQLite one transaction over a day would keep the gateway waiting for as long as it takes. There a log goes from its
beginning on, some records in a transaction, with all that hangs on them, while their hashes take their place; so it
is a dropped log at every moment, and one that was left half-way is gone on with.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from itertools import batched
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import OperationalError

from holdfast.audit.logs import LogRow
from holdfast.audit.store.ledger import LedgerStore, partition_name
from holdfast.audit.store.retention import References, delete_blobs, overwrite_what_goes
from holdfast.audit.store.signed import not_as_signed
from holdfast.audit.store.tables import DAILY, blobs, bodies, calls, checkpoints, leaf_hashes, logs, records
from holdfast.audit.tree import HASH_BYTES, Frontier, LeafHash, hash_leaf
from holdfast.errors import ConfigurationError, Conflict, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from holdfast.audit.store.signed import SignedLog, SignedLogs
    from holdfast.database import Database

HASHES_A_ROW = 4096
PAGE = 500
RECORDS_A_STEP = 500
"""How many records go in one transaction of SQLite."""

LOCK_TIMEOUT_MS = 1000
LOCK_TRIES = 60
LOCK_PAUSE_SECONDS = 5.0
_LOCK_NOT_AVAILABLE = {"55P03", "40P01"}
"""SQLSTATE of a lock that did not come in time, and of a deadlock."""


class DayDropper:
    """Drops days in one database. Every method raises Unavailable."""

    def __init__(self, database: Database, signed: SignedLogs, *, has_pieces: bool = False) -> None:
        self._database = database
        self.signed = signed
        self._has_pieces = has_pieces

    def check(self, log: LogRow) -> SignedLog:
        """Make a log again from its leaves; return what they say.

        Raises Conflict when it is not as it was signed: then the auditor must see it first. ConfigurationError when
        its payloads are in an object store that is not there.
        """
        signed = self.signed.read(log)
        more = (records.c.day == log.day, records.c.log == log.id, records.c.seq >= log.size)
        outside = (blobs.c.day == log.day, blobs.c.body.is_(None))
        with self._database.reading() as connection:
            has_more = connection.execute(select(records.c.seq).where(*more).limit(1)).first() is not None
            has_outside = connection.execute(select(blobs.c.sha256).where(*outside).limit(1)).first() is not None
        if has_more:
            raise not_as_signed(log, f"it has more than {log.size} records")
        if has_outside and not self._has_pieces:
            raise ConfigurationError("payloads are in an object store; set audit.payloads as the gateway has it.")
        return signed

    def drop(self, day: str, its_logs: Sequence[LogRow], at: str) -> Iterator[int]:
        """Drop all logs of a day; yield how many records went, step by step.

        Raises Conflict when one of them is not as it was any more.
        """
        if self._database.dialect == "postgresql":
            with self._database.writing() as connection:
                for log in its_logs:
                    self._keep_hashes(connection, log)
                _mark_dropped(connection, its_logs, at)
                _require_no_other(connection, day, its_logs)
                _drop_partitions(connection, day, its_logs)
            yield sum(log.size for log in its_logs)
            return
        with self._database.writing() as connection:
            _mark_dropped(connection, its_logs, at)
        yield from self._remove_rows(day, its_logs)

    def finish(self) -> Iterator[int]:
        """Go on with logs that were left half-way; yield as `drop` does."""
        hashed = func.coalesce(func.sum(func.length(leaf_hashes.c.hashes)), 0)
        query = (
            select(logs)
            .outerjoin(leaf_hashes, leaf_hashes.c.log == logs.c.id)
            .where(logs.c.dropped_at.is_not(None))
            .group_by(logs.c.id)
            .having(hashed < logs.c.size * HASH_BYTES)
            .order_by(logs.c.day, logs.c.id)
        )
        with self._database.reading() as connection:
            found = [LogRow(**row) for row in connection.execute(query).mappings()]
        for day in dict.fromkeys(log.day for log in found):
            yield from self._remove_rows(day, [log for log in found if log.day == day])

    def _keep_hashes(self, connection: Connection, log: LogRow) -> None:
        """Write the leaf hashes of a whole log."""
        tree, first = Frontier(), 0
        hashes = map(hash_leaf, LedgerStore(self._database).leaves(log))
        for some in batched(hashes, HASHES_A_ROW):
            tree.extend(some)
            connection.execute(insert(leaf_hashes).values(log=log.id, first=first, hashes=b"".join(some)))
            first += len(some)
        if (tree.size, tree.root().hex()) != (log.size, log.root):
            raise _changed(log)

    def _remove_rows(self, day: str, its_logs: Sequence[LogRow]) -> Iterator[int]:
        """In SQLite: the day's list of calls first, then log after log from its beginning on."""
        removed = PAGE
        while removed:
            with _yielding():
                removed = self._remove_calls(day)
        references = References(self._database, day)
        for log in its_logs:
            first = self._read_hashed(log)
            while first < log.size:
                with _yielding():
                    removed = self._remove_step(log, first, references)
                first += removed
                yield removed

    def _read_hashed(self, log: LogRow) -> int:
        """How many leaves of a log are hashes already."""
        query = select(func.coalesce(func.sum(func.length(leaf_hashes.c.hashes)), 0)).where(leaf_hashes.c.log == log.id)
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one()) // HASH_BYTES

    def _remove_calls(self, day: str) -> int:
        """Remove some of the calls that arrived on a day; return how many."""
        some = select(calls.c.audit_id).where(calls.c.day == day).order_by(calls.c.audit_id).limit(PAGE)
        with self._database.writing() as connection:
            overwrite_what_goes(connection)
            found = list(connection.execute(some).scalars())
            if found:
                connection.execute(delete(calls).where(calls.c.day == day, calls.c.audit_id <= found[-1]))
        return len(found)

    def _remove_step(self, log: LogRow, first: int, references: References) -> int:
        """Put hashes in the place of some records and of all that hangs on them; return how many records it was."""
        here = (records.c.day == log.day, records.c.log == log.id, records.c.seq >= first)
        query = select(records.c.seq, records.c.call_id, records.c.leaf).where(*here).order_by(records.c.seq)
        with self._database.reading() as connection:
            page = connection.execute(query.limit(RECORDS_A_STEP)).all()
            last = first + len(page) - 1
            if not page or page[-1].seq != last:
                raise _changed(log)
            of_step = (bodies.c.day == log.day, bodies.c.log == log.id, bodies.c.seq.between(first, last))
            digests = list(connection.execute(select(bodies.c.sha256).where(*of_step)).scalars())
        hashes = [hash_leaf(bytes(row.leaf)) for row in page]
        with self._database.writing() as connection:
            overwrite_what_goes(connection)
            _append_hashes(connection, log, first, hashes)
            connection.execute(delete(records).where(*here, records.c.seq <= last))
            connection.execute(delete(bodies).where(*of_step))
            delete_blobs(connection, log.day, [digest for digest in digests if references.release(digest)])
            _delete_calls_of(connection, log, {row.call_id for row in page} - {""}, first, last)
            _delete_notes(connection, log, last + 1)
        return len(page)


@contextmanager
def _yielding() -> Iterator[None]:
    """Leave the database to the gateway for as long as was taken of it."""
    began = time.monotonic()
    yield
    time.sleep(time.monotonic() - began)


def _mark_dropped(connection: Connection, its_logs: Sequence[LogRow], at: str) -> None:
    for log in its_logs:
        as_it_was = (logs.c.id == log.id, logs.c.size == log.size, logs.c.root == log.root, logs.c.dropped_at.is_(None))
        if connection.execute(update(logs).where(*as_it_was).values(dropped_at=at)).rowcount != 1:
            raise _changed(log)


def _append_hashes(connection: Connection, log: LogRow, first: int, hashes: Sequence[LeafHash]) -> None:
    """Add hashes to the last row of a log, as long as it has room."""
    start = first - first % HASHES_A_ROW
    here = (leaf_hashes.c.log == log.id, leaf_hashes.c.first == start)
    kept = connection.execute(select(leaf_hashes.c.hashes).where(*here)).scalar()
    room = HASHES_A_ROW - first % HASHES_A_ROW
    if kept is None:
        connection.execute(insert(leaf_hashes).values(log=log.id, first=first, hashes=b"".join(hashes[:room])))
    else:
        joined = bytes(kept) + b"".join(hashes[:room])
        connection.execute(update(leaf_hashes).where(*here).values(hashes=joined))
    if len(hashes) > room:
        _append_hashes(connection, log, first + room, hashes[room:])


def _delete_calls_of(connection: Connection, log: LogRow, audit_ids: set[str], first: int, last: int) -> None:
    """Of calls that arrived earlier: rows that are derived from these records."""
    for some in batched(audit_ids, PAGE):
        derived = (calls.c.audit_id.in_(some), calls.c.log == log.id, calls.c.seq.between(first, last))
        connection.execute(delete(calls).where(*derived))


def _delete_notes(connection: Connection, log: LogRow, size: int) -> None:
    """Checkpoints up to a size, but for the last one."""
    sizes = (checkpoints.c.size <= size, checkpoints.c.size < log.size)
    connection.execute(delete(checkpoints).where(checkpoints.c.day == log.day, checkpoints.c.log == log.id, *sizes))


def _require_no_other(connection: Connection, day: str, its_logs: Sequence[LogRow]) -> None:
    """Whatever has this day goes with its partitions. Raises Conflict when that is more than these logs."""
    numbers = [log.id for log in its_logs]
    for table in (records, bodies):
        others = select(table.c.log).where(table.c.day == day, table.c.log.not_in(numbers)).limit(1)
        number = connection.execute(others).scalar()
        if number is not None:
            raise Conflict(
                f"{table.name} of log number {number} are kept under {day}, which is not its day, so {day} is not "
                "dropped; run `holdfast audit verify`"
            )


def _drop_partitions(connection: Connection, day: str, its_logs: Sequence[LogRow]) -> None:
    numbers = [log.id for log in its_logs]
    last = (checkpoints.c.log == logs.c.id) & (checkpoints.c.size == logs.c.size)
    query = select(checkpoints).join(logs, last).where(checkpoints.c.day == day, logs.c.id.in_(numbers))
    notes = [dict(row) for row in connection.execute(query).mappings()]
    for table in DAILY:
        connection.execute(text(f"DELETE FROM {table}_other WHERE day = :day"), {"day": day})  # noqa: S608  ours
    # Calls that arrived on a day that is gone by now, and ended on this one.
    connection.execute(text("DELETE FROM calls_other WHERE log = ANY(:logs)"), {"logs": numbers})
    _lock_tables(connection)
    for table in DAILY:
        connection.execute(text(f"DROP TABLE IF EXISTS {partition_name(table, day)}"))
    if notes:
        connection.execute(insert(checkpoints), notes)


def _lock_tables(connection: Connection) -> None:
    """Have the tables for ourselves, in the order in which writers take them; wait for it in short spells only."""
    tables = ", ".join(f"ONLY {table}" for table in DAILY)
    connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
    for _ in range(LOCK_TRIES):
        attempt = connection.begin_nested()
        try:
            connection.execute(text(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"))
        except OperationalError as error:
            attempt.rollback()
            if getattr(error.orig, "sqlstate", None) not in _LOCK_NOT_AVAILABLE:
                raise
        else:
            return
        time.sleep(LOCK_PAUSE_SECONDS)
    raise Unavailable("somebody reads the record all the time (an export, a backup?), so its days cannot be dropped")


def _changed(log: LogRow) -> Conflict:
    return Conflict(f"the log {log.origin} has changed meanwhile, so it is not dropped; is it still written?")
