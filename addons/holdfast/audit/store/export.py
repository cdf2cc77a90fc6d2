"""Reads the whole record in one snapshot, as the lines of an export.

What is read is not trusted to be what this program wrote: columns are told as they are found, whatever their type,
and rows that belong to nothing show in the counts of the last line.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import batched, groupby
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, Table, func, select, type_coerce
from sqlalchemy.types import NULLTYPE

from holdfast.audit.export import (
    FORMAT,
    LONGEST_LEAF,
    TABLES,
    BlobLine,
    BodyLine,
    CallerLine,
    CheckpointLine,
    ContentLine,
    EndLine,
    Header,
    LeafHashesLine,
    LogLine,
    RecordLine,
)
from holdfast.audit.record import CallRow
from holdfast.audit.store.schema import READ, table_kinds
from holdfast.audit.store.tables import (
    blobs,
    bodies,
    caller_claims,
    callers,
    calls,
    checkpoints,
    leaf_hashes,
    logs,
    records,
)
from holdfast.database import metadata
from holdfast.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Select

    from holdfast.audit.export import Line
    from holdfast.audit.logs import PieceStore
    from holdfast.database import Database

CALL_COLUMNS = CallRow.__struct_fields__
PAGE = 500
BLOB_PAGE = 16
"""A blob may have more than a megabyte."""

_encoder = msgspec.json.Encoder(order="sorted")


def export_lines(
    database: Database, cluster: str, now: str, *, pieces: PieceStore | None = None, payloads: bool = True
) -> Iterator[Line]:
    """Yield the lines of an export of all there is. Raises Unavailable."""
    with database.snapshot() as connection, _any_text(connection):
        kinds = table_kinds(connection, (metadata.tables[name] for name in TABLES))
        source = _Source(connection, frozenset(name for name, kind in kinds.items() if kind in READ))
        yield Header(FORMAT, cluster, now, kinds, payloads)
        found = [_log(row) for row in source.all(select(*_raw(logs)).order_by(logs.c.id))]
        yield from found
        for log in found:
            yield ContentLine(log.id)
            yield from _content(source, log.id, log.day)
        yield from _callers(source)
        if payloads:
            yield from _blobs(source, pieces)
        yield EndLine({name: source.count(metadata.tables[name]) for name in TABLES})


@dataclass(frozen=True, slots=True)
class _Source:
    """One moment of the database, and the tables that it has; what stands in the place of one has no rows here."""

    connection: Connection
    tables: frozenset[str]

    def all(self, query: Select[*tuple[Any, ...]]) -> Sequence[Any]:
        """The rows of a query."""
        return self.connection.execute(query).all() if self._has(query) else ()

    def stream(self, query: Select[*tuple[Any, ...]], page: int = PAGE) -> Iterator[Any]:
        """Yield rows without holding them all, in a cursor of their own: others are read meanwhile."""
        if self._has(query):
            with self.connection.execute(query, execution_options={"yield_per": page}) as rows:
                yield from rows

    def count(self, table: Table) -> int:
        """How many rows a table has."""
        found = self.all(select(func.count()).select_from(table))
        return int(found[0][0]) if found else 0

    def _has(self, query: Select[*tuple[Any, ...]]) -> bool:
        return all(isinstance(table, Table) and table.name in self.tables for table in query.get_final_froms())


@contextmanager
def _any_text(connection: Connection) -> Iterator[None]:
    """Read text that is no UTF-8 too, which SQLite keeps and Python's sqlite3 refuses."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        yield
        return
    driver.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
    try:
        yield
    finally:
        driver.text_factory = str


def _content(source: _Source, log: int, day: str) -> Iterator[Line]:
    notes = (
        select(*_raw(checkpoints, "size", "note"))
        .where(checkpoints.c.day == day, checkpoints.c.log == log)
        .order_by(checkpoints.c.size)
    )
    for size, note in source.stream(notes):
        yield CheckpointLine(_integer(size), _text(note))
    kept = select(*_raw(leaf_hashes, "first", "hashes")).where(leaf_hashes.c.log == log).order_by(leaf_hashes.c.first)
    for first, hashes in source.stream(kept):
        yield LeafHashesLine(_integer(first), _bytes(hashes))
    found = select(*_raw(records)).where(records.c.day == day, records.c.log == log).order_by(records.c.seq)
    for page in batched(source.stream(found), PAGE):
        yield from _records(source, page, log, day)


def _records(source: _Source, page: Sequence[Any], log: int, day: str) -> Iterator[Line]:
    pieces = _bodies_of(source, page, log, day)
    rows = _calls_of(source, [row.call_id for row in page if row.call_id and type(row.call_id) is str])
    for row in page:
        leaf_is_bytes = isinstance(row.leaf, (bytes, memoryview))
        line = RecordLine(
            seq=_integer(row.seq),
            columns=(_text(row.day), _text(row.call_id), _text(row.kind), _text(row.at)),
            leaf=(bytes(row.leaf) if leaf_is_bytes else str(row.leaf).encode())[: LONGEST_LEAF + 1],
            leaf_type="" if leaf_is_bytes else type(row.leaf).__name__,
            bodies=tuple(pieces.get(row.seq, ())),
        )
        call = rows.get(row.call_id)
        yield line if call is None else _with_call(line, call, log)


def _with_call(line: RecordLine, row: Any, log: int) -> RecordLine:
    """The record's line with the row of its call, or with what that row is derived from instead."""
    if (row.log, row.seq) != (log, line.seq):
        elsewhere = (_integer(row.log), _integer(row.seq), bool(row.complete))
        return msgspec.structs.replace(line, call_elsewhere=elsewhere)
    told = {name: _cell(value) for name, value in zip(CALL_COLUMNS, row, strict=False)}
    told["complete"] = _flag(row.complete)
    place = (_text(row.day), _text(row.caller))
    return msgspec.structs.replace(line, call=msgspec.Raw(_encoder.encode(told)), call_place=place)


def _bodies_of(source: _Source, page: Sequence[Any], log: int, day: str) -> dict[int, list[BodyLine]]:
    query = (
        select(*_raw(bodies, "seq", "slot", "part", "salt", "sha256"))
        .where(bodies.c.day == day, bodies.c.log == log, bodies.c.seq.between(page[0].seq, page[-1].seq))
        .order_by(bodies.c.seq, bodies.c.slot, bodies.c.part)
    )
    found: dict[int, list[BodyLine]] = defaultdict(list)
    for seq, slot, part, salt, sha256 in source.all(query):
        found[seq].append(BodyLine(_text(slot), _integer(part), _bytes(salt), _text(sha256)))
    return found


def _calls_of(source: _Source, audit_ids: Sequence[str]) -> dict[str, Any]:
    if not audit_ids:
        return {}
    columns = _raw(calls, *CALL_COLUMNS, "day", "caller", "log", "seq")
    query = select(*columns).where(calls.c.audit_id.in_(dict.fromkeys(audit_ids)))
    return {row.audit_id: row for row in source.all(query)}


def _callers(source: _Source) -> Iterator[Line]:
    claims = select(*_raw(caller_claims, "caller", "name", "value"))
    claims = claims.order_by(caller_claims.c.caller, caller_claims.c.name, caller_claims.c.value)
    by_caller = groupby(source.stream(claims), key=lambda row: _text(row.caller))
    following = next(by_caller, None)
    for row in source.stream(select(*_raw(callers, "id", "caller")).order_by(callers.c.id)):
        caller = _text(row.id)
        while following is not None and following[0] < caller:
            following = next(by_caller, None)  # claims of nobody: the counts tell
        found: tuple[tuple[str, str], ...] = ()
        if following is not None and following[0] == caller:
            found = tuple((_text(claim.name), _text(claim.value)) for claim in following[1])
            following = next(by_caller, None)
        yield CallerLine(caller, _text(row.caller), found)


def _blobs(source: _Source, pieces: PieceStore | None) -> Iterator[Line]:
    query = select(*_raw(blobs, "day", "sha256", "size", "codec", "body")).order_by(blobs.c.day, blobs.c.sha256)
    for row in source.stream(query, BLOB_PAGE):
        body = _bytes(row.body) if row.body is not None else _outside(pieces, _text(row.day), _text(row.sha256))
        yield BlobLine(_text(row.day), _text(row.sha256), _integer(row.size), _text(row.codec), body)


def _outside(pieces: PieceStore | None, day: str, sha256: str) -> bytes | None:
    try:
        return pieces.get(day, sha256) if pieces is not None else None
    except NotFound:
        return None


def _raw(table: Table, *names: str) -> list[ColumnElement[Any]]:
    """Columns of a table as the driver returns them."""
    return [type_coerce(table.c[name], NULLTYPE).label(name) for name in names or table.c.keys()]


def _log(row: Any) -> LogLine:
    return LogLine(
        id=_integer(row.id),
        origin=_text(row.origin),
        replica=_text(row.replica),
        epoch=_integer(row.epoch),
        day=_text(row.day),
        certificate=_text(row.certificate),
        size=_integer(row.size),
        root=_text(row.root),
        opened_at=_text(row.opened_at),
        closed_at="" if row.closed_at is None else _text(row.closed_at),
        dropped_at="" if row.dropped_at is None else _text(row.dropped_at),
    )


def _text(value: Any) -> str:
    return value if type(value) is str else _odd(value)


def _integer(value: Any) -> int:
    return value if type(value) is int else -1


def _bytes(value: Any) -> bytes:
    return bytes(value) if isinstance(value, (bytes, memoryview)) else _odd(value).encode()


def _cell(value: Any) -> str | int | None:
    return value if type(value) in {str, int, type(None)} else _odd(value)


def _flag(value: Any) -> bool | str:
    return bool(value) if value in (0, 1) else _odd(value)


def _odd(value: Any) -> str:
    return f"({type(value).__name__}) {value}"
