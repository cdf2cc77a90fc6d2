"""What retention reads and removes. Each removal is one transaction, so it has happened or it has not.

In Postgres a day is dropped by dropping its partitions. Erasing bodies keeps every writer out for a moment there
(`LOCK TABLE`), so that none refers to a piece that is just being removed because nobody did; in SQLite every writing
transaction does.
"""

from __future__ import annotations

from itertools import batched
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, exists, func, insert, select, text, update

from holdfast.audit.record import timestamp
from holdfast.audit.retention import DayUsage, StoredBody, Wanted, last_kept_day
from holdfast.audit.store.ledger import LogRow, partition_name
from holdfast.audit.store.tables import DAILY, blobs, bodies, calls, checkpoints, leaf_hashes, logs, records
from holdfast.audit.tree import Frontier, hash_leaf
from holdfast.database import metadata
from holdfast.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from holdfast.audit.store.ledger import PieceStore
    from holdfast.database import Database

HASHES_A_ROW = 4096
RETENTION_LOCK = 0x686F6C66
"""Names the Postgres advisory lock that one run of retention holds."""


class RetentionStore:
    """Reads and removes in one database, and in the object store beside it. Every method raises Unavailable."""

    def __init__(self, database: Database, pieces: PieceStore | None = None) -> None:
        self._database = database
        self._pieces = pieces

    def usage(self, now: datetime) -> list[DayUsage]:
        """Every day that has anything to drop, oldest first.

        A log has ended when it was closed, when its replica has a later one, and when it is older than yesterday's: a
        writer begins the next one at the end of the day.
        """
        yesterday = last_kept_day(now, 1)
        with self._database.reading() as connection:
            counted = dict(_pairs(connection, select(records.c.day, func.count()).group_by(records.c.day)))
            leaves = dict(_pairs(connection, _bytes_by_day(records.c.day, func.length(records.c.leaf))))
            kept_bytes = func.coalesce(func.length(blobs.c.body), blobs.c.size)
            inline = dict(_pairs(connection, _bytes_by_day(blobs.c.day, kept_bytes)))
            rows = [_log_row(row) for row in connection.execute(select(logs)).mappings()]
        latest = _latest_of_replicas(rows)
        kept = [row for row in rows if row.dropped_at is None]
        return [
            DayUsage(
                day=day,
                logs=sum(row.day == day for row in kept),
                records=counted.get(day, 0),
                bytes=leaves.get(day, 0) + inline.get(day, 0),
                ended=day < yesterday or all(row.closed_at or row.id not in latest for row in kept if row.day == day),
            )
            for day in sorted({row.day for row in kept})
        ]

    def logs_of(self, day: str) -> list[LogRow]:
        """The logs of a day that are still there."""
        query = select(logs).where(logs.c.day == day, logs.c.dropped_at.is_(None)).order_by(logs.c.id)
        with self._database.reading() as connection:
            return [_log_row(row) for row in connection.execute(query).mappings()]

    def log(self, number: int) -> LogRow:
        """The log of this number. Raises NotFound."""
        with self._database.reading() as connection:
            row = connection.execute(select(logs).where(logs.c.id == number)).mappings().first()
        if row is None:
            raise NotFound(f"there is no log {number}")
        return _log_row(row)

    def bodies(self, wanted: Wanted) -> Iterator[StoredBody]:
        """Yield the stored bodies of the calls that are meant, log by log."""
        of_record = and_(bodies.c.day == records.c.day, bodies.c.log == records.c.log, bodies.c.seq == records.c.seq)
        of_piece = and_(blobs.c.day == bodies.c.day, blobs.c.sha256 == bodies.c.sha256)
        query = (
            select(
                bodies.c.log, bodies.c.seq, bodies.c.slot, bodies.c.day, calls.c.resource, calls.c.subresource,
                calls.c.verb, calls.c.namespace, calls.c.username, calls.c.verdict,
                func.sum(blobs.c.size).label("bytes"),
            )
            .select_from(bodies.join(records, of_record).join(calls, calls.c.audit_id == records.c.call_id))
            .outerjoin(blobs, of_piece)
            .where(*_conditions(wanted))
            .group_by(
                bodies.c.log, bodies.c.seq, bodies.c.slot, bodies.c.day, calls.c.resource, calls.c.subresource,
                calls.c.verb, calls.c.namespace, calls.c.username, calls.c.verdict,
            )
            .order_by(bodies.c.log, bodies.c.seq, bodies.c.slot)
        )  # fmt: skip
        with self._database.reading() as connection:
            found = connection.execute(query).all()
        for row in found:
            yield StoredBody(
                log=row.log,
                place=f"{row.seq}/{row.slot}",
                day=row.day,
                resource=f"{row.resource}/{row.subresource}" if row.subresource else row.resource,
                verb=row.verb,
                namespace=row.namespace,
                username=row.username,
                verdict=row.verdict,
                bytes=int(row.bytes or 0),
            )

    def erase(self, log: LogRow, places: Sequence[str]) -> None:
        """Remove bodies of one log, with their salts, and the pieces that nothing else of the day refers to."""
        split = [place.split("/") for place in places]
        with self._database.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("LOCK TABLE bodies, blobs IN SHARE ROW EXCLUSIVE MODE"))
            digests = _digests(connection, log, split)
            connection.execute(
                delete(bodies).where(
                    bodies.c.day == log.day,
                    bodies.c.log == log.id,
                    bodies.c.seq == bindparam("at_seq"),
                    bodies.c.slot == bindparam("at_slot"),
                ),
                [{"at_seq": int(seq), "at_slot": slot} for seq, slot in split],
            )
            # Before the transaction ends, or a writer could refer again to a piece that then goes.
            self._remove_pieces(log.day, _remove_unused(connection, log.day, digests))

    def drop_day(self, day: str, now: str) -> None:
        """Remove a day, but for its logs' leaf hashes and their last checkpoints.

        Raises Conflict when a log is not what its row says it is: then it is for the auditor to look at first.
        """
        with self._database.writing() as connection:
            rows = [_log_row(row) for row in connection.execute(_kept_logs(day)).mappings()]
            last = {row.id: _last_note(connection, row) for row in rows}
            for row in rows:
                _keep_hashes(connection, row)
            digests = select(blobs.c.sha256).where(blobs.c.day == day, blobs.c.body.is_(None))
            outside = list(connection.execute(digests).scalars())
            _remove_day(connection, day)
            for row in rows:
                if last[row.id]:
                    note = {"day": day, "log": row.id, "size": row.size, "note": last[row.id]}
                    connection.execute(insert(checkpoints).values(note))
                connection.execute(update(logs).where(logs.c.id == row.id).values(dropped_at=now))
        self._remove_pieces(day, outside)

    def _remove_pieces(self, day: str, digests: Sequence[str]) -> None:
        if self._pieces is not None and digests:
            self._pieces.delete(day, digests)


def _conditions(wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    columns = ((calls.c.username, wanted.user), (calls.c.issuer, wanted.issuer), (calls.c.audit_id, wanted.call))
    yield from (column == value for column, value in columns if value)
    if wanted.since is not None:
        yield calls.c.received_at >= timestamp(wanted.since)
    if wanted.until is not None:
        yield calls.c.received_at < timestamp(wanted.until)
    if wanted.before_day:
        yield bodies.c.day < wanted.before_day


def _pairs(connection: Connection, query: Any) -> list[tuple[str, int]]:
    return [(str(day), int(number or 0)) for day, number in connection.execute(query)]


def _bytes_by_day(day: Any, size: Any) -> Any:
    return select(day, func.sum(size)).group_by(day)


def _kept_logs(day: str) -> Any:
    return select(logs).where(logs.c.day == day, logs.c.dropped_at.is_(None)).order_by(logs.c.id)


def _latest_of_replicas(rows: Sequence[LogRow]) -> set[int]:
    """The latest log of each replica: it may still be written, whatever it says."""
    latest: dict[str, LogRow] = {}
    for row in rows:
        if row.replica not in latest or row.epoch > latest[row.replica].epoch:
            latest[row.replica] = row
    return {row.id for row in latest.values() if row.certificate}


def _digests(connection: Connection, log: LogRow, places: Sequence[Sequence[str]]) -> list[str]:
    found: set[str] = set()
    for seq, slot in places:
        query = select(bodies.c.sha256).where(
            bodies.c.day == log.day, bodies.c.log == log.id, bodies.c.seq == int(seq), bodies.c.slot == slot
        )
        found.update(connection.execute(query).scalars())
    return sorted(found)


def _remove_unused(connection: Connection, day: str, digests: Sequence[str]) -> list[str]:
    """Remove those pieces that no body of the day refers to; return the ones that are in the object store."""
    is_used = exists().where(bodies.c.day == blobs.c.day, bodies.c.sha256 == blobs.c.sha256)
    outside: list[str] = []
    for some in batched(digests, 500):
        unused = (blobs.c.day == day, blobs.c.sha256.in_(some), ~is_used)
        outside += connection.execute(select(blobs.c.sha256).where(*unused, blobs.c.body.is_(None))).scalars()
        connection.execute(delete(blobs).where(*unused))
    return outside


def _last_note(connection: Connection, row: LogRow) -> str:
    query = select(checkpoints.c.note).where(
        checkpoints.c.day == row.day, checkpoints.c.log == row.id, checkpoints.c.size == row.size
    )
    return str(connection.execute(query).scalar() or "")


def _keep_hashes(connection: Connection, row: LogRow) -> None:
    query = select(records.c.leaf).where(records.c.day == row.day, records.c.log == row.id).order_by(records.c.seq)
    leaves = connection.execute(query, execution_options={"yield_per": 1000}).scalars()
    tree = Frontier()
    for first, some in enumerate(batched(map(hash_leaf, map(bytes, leaves)), HASHES_A_ROW)):
        for leaf_hash in some:
            tree.add(leaf_hash)
        connection.execute(insert(leaf_hashes).values(log=row.id, first=first * HASHES_A_ROW, hashes=b"".join(some)))
    if (tree.size, tree.root().hex()) != (row.size, row.root):
        raise Conflict(
            f"the log {row.origin} is not what it is said to be, so it is not dropped; run `holdfast audit verify`"
        )


def _remove_day(connection: Connection, day: str) -> None:
    for name in DAILY:
        table = metadata.tables[name]
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"DROP TABLE IF EXISTS {partition_name(name, day)}"))
        connection.execute(delete(table).where(table.c.day == day))


def _log_row(row: Any) -> LogRow:
    return LogRow(**row)
