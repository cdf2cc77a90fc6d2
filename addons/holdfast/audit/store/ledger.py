"""Writing the record: a batch of leaves, their bodies, what is derived from them and a signed checkpoint, at once."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import bindparam, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from holdfast.audit.callers import caller_claims as claims_of
from holdfast.audit.callers import caller_id
from holdfast.audit.logs import Batch, LogRow, PieceStore
from holdfast.audit.payload import compress
from holdfast.audit.record import call_row, encode_caller
from holdfast.audit.store.tables import (
    DAILY,
    blobs,
    bodies,
    caller_claims,
    callers,
    calls,
    checkpoints,
    logs,
    records,
)
from holdfast.errors import ConfigurationError, Superseded, Unavailable
from holdfast.migrations import VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from holdfast.audit.record import Caller, Record
    from holdfast.audit.sequence import Placed
    from holdfast.database import Database

KNOWN_CALLERS = 10_000
PARTITION_PATIENCE_MS = 1000
"""A partition needs its table for itself alone, and whoever comes meanwhile waits, the other gateways too."""

log = logging.getLogger(__name__)


class LedgerStore:
    """Writes logs into one database. Blocking; every method raises Unavailable.

    The statements of a commit are ready-made text: building them anew for every batch took a third of the time.
    """

    def __init__(self, database: Database, pieces: PieceStore | None = None) -> None:
        self._database = database
        self._pieces = pieces
        self._known_callers: set[str] = set()
        self._unpartitioned = ""
        dialect = postgresql if database.dialect == "postgresql" else sqlite
        put_calls = dialect.insert(calls)
        derived = {column.name: put_calls.excluded[column.name] for column in calls.c if not column.primary_key}
        put_calls = put_calls.on_conflict_do_update(index_elements=["day", "audit_id"], set_=derived)
        as_it_was = (
            logs.c.id == bindparam("log"),
            logs.c.size == bindparam("old_size"),
            logs.c.root == bindparam("old_root"),
            logs.c.closed_at.is_(None),
            logs.c.dropped_at.is_(None),
        )
        self._advance = database.compile(update(logs).where(*as_it_was), ("size", "root", "closed_at"))
        self._add_records = database.compile(insert(records), records.c.keys())
        self._add_checkpoint = database.compile(insert(checkpoints), checkpoints.c.keys())
        self._add_bodies = database.compile(insert(bodies), bodies.c.keys())
        self._add_blobs = database.compile(dialect.insert(blobs).on_conflict_do_nothing(), blobs.c.keys())
        self._put_calls = database.compile(put_calls, calls.c.keys())
        self._add_callers = database.compile(dialect.insert(callers).on_conflict_do_nothing(), callers.c.keys())
        self._add_claims = database.compile(
            dialect.insert(caller_claims).on_conflict_do_nothing(), caller_claims.c.keys()
        )

    def last_log(self, replica: str) -> LogRow | None:
        """The latest log of a replica that has records."""
        of_replica = (logs.c.replica == replica, logs.c.size > 0)
        query = select(logs).where(*of_replica).order_by(logs.c.epoch.desc()).limit(1)
        with self._database.reading() as connection:
            return _log_row(connection.execute(query).mappings().first())

    def find_log(self, origin: str) -> LogRow | None:
        """The log of this name."""
        with self._database.reading() as connection:
            return _log_row(connection.execute(select(logs).where(logs.c.origin == origin)).mappings().first())

    def all_logs(self) -> list[LogRow]:
        """Every log, in the order in which they were begun."""
        with self._database.reading() as connection:
            found = (_log_row(row) for row in connection.execute(select(logs).order_by(logs.c.id)).mappings())
            return [row for row in found if row is not None]

    def settled_log(self, origin: str) -> LogRow | None:
        """The log of this name, once no transaction is left that may change it: not even one of a lost connection."""
        query = select(logs).where(logs.c.origin == origin).with_for_update()
        with self._database.writing() as connection:
            return _log_row(connection.execute(query).mappings().first())

    def begin_log(self, row: LogRow) -> LogRow:
        """Add an empty log (its `id` is chosen here), or find it as this gateway left it when the answer was lost.

        Raises Superseded when another has begun a log of this name.
        """
        begun = self._add_log(row)
        for day in (row.day, _day_after(row.day)):
            self._partition(day)
        return begun

    def _partition(self, day: str) -> None:
        """Make a day's partitions, or say why not, once for each cause: then its rows go to the common ones.

        So it is while somebody reads all of a table, and where the role may not make them.
        """
        try:
            with self._database.writing() as connection:
                make_partitions(connection, day)
        except Unavailable as error:
            if str(error) != self._unpartitioned:
                log.warning(
                    "the partitions of %s cannot be made, its rows go to the common ones, which retention empties row "
                    "by row: %s",
                    day,
                    error,
                )
            self._unpartitioned = str(error)
        else:
            self._unpartitioned = ""

    def _add_log(self, row: LogRow) -> LogRow:
        values = asdict(row)
        del values["id"]
        try:
            with self._database.writing() as connection:
                number = connection.execute(insert(logs).values(values)).inserted_primary_key
        except Unavailable as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            found = self.find_log(row.origin)
            if found is None or found.size or found.certificate != row.certificate:
                raise Superseded(f"another gateway has begun the log {row.origin}") from error
            return self._open_again(found, row.opened_at)
        return LogRow(**(asdict(row) | {"id": int(number[0]) if number else 0}))

    def _open_again(self, found: LogRow, opened_at: str) -> LogRow:
        """Say of an empty log that it was opened now: its first record says so too, whatever the clock was before."""
        with self._database.writing() as connection:
            connection.execute(update(logs).where(logs.c.id == found.id, logs.c.size == 0).values(opened_at=opened_at))
        return replace(found, opened_at=opened_at)

    def leaves(self, log: LogRow, first: int = 0) -> Iterator[bytes]:
        """Yield a log's leaves in order from `first` on, a page at a time."""
        page = 2000
        while True:
            query = (
                select(records.c.leaf)
                .where(records.c.day == log.day, records.c.log == log.id, records.c.seq >= first)
                .order_by(records.c.seq)
                .limit(page)
            )
            with self._database.reading() as connection:
                found = [bytes(leaf) for leaf in connection.execute(query).scalars()]
            yield from found
            first += len(found)
            if len(found) < page:
                return

    def latest_note(self, log: LogRow) -> str:
        """The signed note of a log's latest checkpoint; empty when there is none."""
        query = (
            select(checkpoints.c.note)
            .where(checkpoints.c.day == log.day, checkpoints.c.log == log.id)
            .order_by(checkpoints.c.size.desc())
            .limit(1)
        )
        with self._database.reading() as connection:
            return connection.execute(query).scalar() or ""

    def commit(self, batch: Batch) -> None:
        """Make a batch durable in one transaction: all of it or nothing.

        Pieces go to the object store before the transaction ends, while it keeps those who erase away from the rows
        that refer to them (see `retention`).
        Raises Superseded when the log is not as the batch expects it, Unavailable.
        """
        piece_rows, outside = self._split_pieces(batch)
        record_rows = [_record_row(batch, placed) for placed in batch.placed]
        body_rows = list(_body_rows(batch))
        call_rows = list(_call_rows(batch))
        new = self._new_callers(batch)
        with self._database.writing() as connection:
            self._advance_log(connection, batch)
            connection.exec_driver_sql(self._add_records, record_rows)
            connection.exec_driver_sql(self._add_checkpoint, [_checkpoint_row(batch)])
            for statement, rows in (
                (self._add_bodies, body_rows),
                (self._add_blobs, piece_rows),
                (self._put_calls, call_rows),
                (self._add_callers, [{"id": key, "caller": encode_caller(who)} for key, who in new.items()]),
                (self._add_claims, _claim_rows(new)),
            ):
                if rows:
                    connection.exec_driver_sql(statement, rows)
            if self._pieces is not None and outside:
                self._pieces.put(batch.day, outside)
        self._remember(new)

    def _advance_log(self, connection: Connection, batch: Batch) -> None:
        values = {
            "log": batch.log,
            "old_size": batch.before.size,
            "old_root": batch.before.root.hex(),
            "size": batch.after.size,
            "root": batch.after.root.hex(),
            "closed_at": batch.closed_at,
        }
        if connection.exec_driver_sql(self._advance, values).rowcount != 1:
            raise Superseded(
                f"the log {batch.after.origin} is not as this gateway left it: another process writes it, "
                "retention dropped it, or the database was restored; restart the gateway"
            )

    def _split_pieces(self, batch: Batch) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
        """Compress the batch's pieces: their rows, and, by SHA-256, those that the object store takes."""
        distinct = {piece.sha256: piece for group in batch.bodies for body in group for piece in body.pieces}
        rows: list[dict[str, Any]] = []
        outside: dict[str, bytes] = {}
        for digest, piece in distinct.items():
            codec, kept = compress(piece.content)
            goes_outside = self._pieces is not None and self._pieces.takes(kept)
            if goes_outside:
                outside[digest] = kept
            row = {"day": batch.day, "sha256": digest, "size": len(piece.content), "codec": str(codec)}
            rows.append({**row, "body": None if goes_outside else kept})
        return rows, outside

    def _new_callers(self, batch: Batch) -> dict[str, Caller]:
        found = ((_caller_of(placed.record), placed.record.identity) for placed in batch.placed)
        return {key: who for key, who in found if who is not None and key not in self._known_callers}

    def _remember(self, new: Mapping[str, Caller]) -> None:
        if len(self._known_callers) > KNOWN_CALLERS:
            self._known_callers.clear()
        self._known_callers.update(new)


def make_partitions(connection: Connection, day: str) -> None:
    """In Postgres, give a day a partition of every table that grows; elsewhere there is nothing to do.

    A table whose common partition has rows of the day goes on with that one. Raises Unavailable when others do not
    let go of a table soon.
    """
    if connection.dialect.name != "postgresql":
        return
    connection.execute(text(f"SET LOCAL lock_timeout = {PARTITION_PATIENCE_MS}"))
    # One at a time. Who may only read cannot take this lock as they could an advisory one, and no commit wants it.
    connection.execute(text(f"LOCK TABLE {VERSION_TABLE} IN SHARE UPDATE EXCLUSIVE MODE"))
    for table in DAILY:
        began = text(f"SELECT EXISTS (SELECT FROM {table}_other WHERE day = :day)")  # noqa: S608
        if not connection.execute(began, {"day": day}).scalar():
            part = f"{partition_name(table, day)} PARTITION OF {table} FOR VALUES IN ('{day}')"
            connection.execute(text(f"CREATE TABLE IF NOT EXISTS {part}"))


def partition_name(table: str, day: str) -> str:
    """The name of a day's partition in Postgres. Raises ConfigurationError when `day` is no day."""
    digits = day.replace("-", "")
    if len(digits) != 8 or not digits.isdecimal():
        raise ConfigurationError(f"{day!r} is no day; expected one as 2026-01-31.")
    return f"{table}_{digits}"


def _day_after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


def _log_row(row: Mapping[Any, Any] | None) -> LogRow | None:
    return LogRow(**row) if row is not None else None


def _record_row(batch: Batch, placed: Placed) -> dict[str, Any]:
    record = placed.record
    return {
        "day": batch.day,
        "log": batch.log,
        "seq": placed.seq,
        "call_id": record.call,
        "kind": record.kind.value,
        "at": record.at,
        "leaf": placed.leaf,
    }


def _checkpoint_row(batch: Batch) -> dict[str, Any]:
    return {"day": batch.day, "log": batch.log, "size": batch.after.size, "note": batch.note}


def _body_rows(batch: Batch) -> Iterator[dict[str, Any]]:
    for placed, group in zip(batch.placed, batch.bodies, strict=True):
        for body in group:
            place = {"day": batch.day, "log": batch.log, "seq": placed.seq, "slot": body.slot.value, "salt": body.salt}
            for part, piece in enumerate(body.pieces):
                yield {**place, "part": part, "sha256": piece.sha256}


def _call_rows(batch: Batch) -> Iterator[dict[str, Any]]:
    for placed in batch.placed:
        row = call_row(placed.record)
        if row is not None:
            place = {"day": row.received_at[:10], "log": batch.log, "seq": placed.seq}
            yield msgspec.structs.asdict(row) | place | {"caller": _caller_of(placed.record)}


def _caller_of(record: Record) -> str:
    return caller_id(encode_caller(record.identity)) if record.identity is not None else ""


def _claim_rows(new: Mapping[str, Caller]) -> list[dict[str, str]]:
    return [
        {"name": name, "value": value, "caller": key}
        for key, who in new.items()
        for name, value in claims_of(who.claims)
    ]
