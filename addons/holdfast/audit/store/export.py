"""Reads the whole record in one snapshot, as the lines of an export.

What is read is not trusted to be what this program wrote: columns are told as they are found, and rows that belong
to nothing show in the counts of the last line.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import batched, groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, inspect, select, text, tuple_, type_coerce
from sqlalchemy.types import NULLTYPE

from holdfast.audit.export import (
    FORMAT,
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
from holdfast.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Select

    from holdfast.audit.export import Line
    from holdfast.audit.store.ledger import PieceStore
    from holdfast.database import Database

TABLES = (logs, leaf_hashes, records, checkpoints, bodies, blobs, calls, callers, caller_claims)
RECORD = (
    *(column for column in records.c if column.name != "leaf"),
    type_coerce(records.c.leaf, NULLTYPE).label("leaf"),
)
"""A leaf is told as whatever the database holds in its place."""

PAGE = 500


def export_lines(
    database: Database, cluster: str, now: str, *, pieces: PieceStore | None = None, payloads: bool = True
) -> Iterator[Line]:
    """Yield the lines of an export of all there is. Raises Unavailable."""
    with database.snapshot() as connection:
        yield Header(FORMAT, cluster, now, _table_kinds(connection), payloads)
        found = connection.execute(select(logs).order_by(logs.c.id)).mappings().all()
        for row in found:
            yield LogLine(**{name: value for name, value in row.items() if value is not None})
        for row in found:
            yield ContentLine(row["id"])
            yield from _content(connection, row["id"], row["day"])
        yield from _callers(connection)
        if payloads:
            yield from _blobs(connection, pieces)
        yield EndLine({table.name: _count(connection, table) for table in TABLES})


def _table_kinds(connection: Connection) -> dict[str, str]:
    """`table` for each of our tables, `view` or `missing` for what is none; a trigger on one shows as `trigger`."""
    inspector = inspect(connection)
    tables, views = set(inspector.get_table_names()), set(inspector.get_view_names())
    kinds = {
        table.name: "table" if table.name in tables else "view" if table.name in views else "missing"
        for table in TABLES
    }
    return kinds | dict.fromkeys(_triggers(connection) & kinds.keys(), "trigger")


def _triggers(connection: Connection) -> set[str]:
    if connection.dialect.name == "sqlite":
        query = "SELECT tbl_name FROM sqlite_master WHERE type = 'trigger'"
    else:
        query = "SELECT DISTINCT event_object_table FROM information_schema.triggers"
    return set(connection.execute(text(query)).scalars())


def _content(connection: Connection, log: int, day: str) -> Iterator[Line]:
    here = (checkpoints.c.day == day, checkpoints.c.log == log)
    for size, note in _stream(
        connection, select(checkpoints.c.size, checkpoints.c.note).where(*here).order_by(checkpoints.c.size)
    ):
        yield CheckpointLine(size, note)
    kept = (
        select(leaf_hashes.c.first, leaf_hashes.c.hashes).where(leaf_hashes.c.log == log).order_by(leaf_hashes.c.first)
    )
    for first, hashes in _stream(connection, kept):
        yield LeafHashesLine(first, bytes(hashes))
    found = select(*RECORD).where(records.c.day == day, records.c.log == log).order_by(records.c.seq)
    for page in batched(_stream(connection, found), PAGE):
        yield from _records(connection, page, log, day)


def _records(connection: Connection, page: Sequence[Any], log: int, day: str) -> Iterator[Line]:
    pieces = _bodies_of(connection, page, log, day)
    rows = _calls_of(connection, {row.call_id for row in page if row.call_id})
    for row in page:
        call = rows.get(row.call_id)
        is_derived = call is not None and (call["log"], call["seq"]) == (log, row.seq)
        leaf_is_bytes = isinstance(row.leaf, (bytes, memoryview))
        yield RecordLine(
            seq=row.seq,
            columns=(row.day, row.call_id, row.kind, row.at),
            leaf=bytes(row.leaf) if leaf_is_bytes else str(row.leaf).encode("utf-8", "surrogateescape"),
            leaf_type="" if leaf_is_bytes else type(row.leaf).__name__,
            bodies=tuple(pieces.get(row.seq, ())),
            call=call if is_derived else None,
            call_elsewhere=f"{call['log']}/{call['seq']}" if call is not None and not is_derived else "",
        )


def _bodies_of(connection: Connection, page: Sequence[Any], log: int, day: str) -> dict[int, list[BodyLine]]:
    query = (
        select(bodies)
        .where(bodies.c.day == day, bodies.c.log == log, bodies.c.seq.between(page[0].seq, page[-1].seq))
        .order_by(bodies.c.seq, bodies.c.slot, bodies.c.part)
    )
    found: dict[int, list[BodyLine]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.seq].append(BodyLine(row.slot, row.part, bytes(row.salt), row.sha256))
    return found


def _calls_of(connection: Connection, audit_ids: set[str]) -> dict[str, dict[str, Any]]:
    query = select(calls).where(calls.c.audit_id.in_(audit_ids))
    return {row["audit_id"]: dict(row) for row in connection.execute(query).mappings()} if audit_ids else {}


def _callers(connection: Connection) -> Iterator[Line]:
    claims = select(caller_claims).order_by(caller_claims.c.caller, caller_claims.c.name, caller_claims.c.value)
    by_caller = groupby(_stream(connection, claims), key=lambda row: row.caller)
    following = next(by_caller, None)
    for row in _stream(connection, select(callers).order_by(callers.c.id)):
        while following is not None and following[0] < row.id:
            following = next(by_caller, None)  # claims of nobody: the counts tell
        found: tuple[tuple[str, str], ...] = ()
        if following is not None and following[0] == row.id:
            found = tuple((claim.name, claim.value) for claim in following[1])
            following = next(by_caller, None)
        yield CallerLine(row.id, row.caller, found)


def _blobs(connection: Connection, pieces: PieceStore | None) -> Iterator[Line]:
    position: tuple[str, str] = ("", "")
    while True:
        query = (
            select(blobs)
            .where(tuple_(blobs.c.day, blobs.c.sha256) > position)
            .order_by(blobs.c.day, blobs.c.sha256)
            .limit(PAGE)
        )
        page = connection.execute(query).all()
        for row in page:
            body = bytes(row.body) if row.body is not None else _outside(pieces, row.day, row.sha256)
            yield BlobLine(row.day, row.sha256, row.size, row.codec, body)
        if len(page) < PAGE:
            return
        position = (page[-1].day, page[-1].sha256)


def _outside(pieces: PieceStore | None, day: str, sha256: str) -> bytes | None:
    try:
        return pieces.get(day, sha256) if pieces is not None else None
    except NotFound:
        return None


def _stream(connection: Connection, query: Select[*tuple[Any, ...]]) -> Iterator[Any]:
    """Yield rows without holding them all, in a cursor of their own: others are read on the connection meanwhile."""
    with connection.execute(query, execution_options={"yield_per": PAGE}) as rows:
        yield from rows


def _count(connection: Connection, table: Any) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
