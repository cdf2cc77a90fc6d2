"""Reading the record: calls listed by what is derived from their records, and told from the records themselves.

Bodies come from the database or an object store, which others may be able to write, so one is only given out when it
is what its record commits to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import merge
from itertools import groupby
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Row, and_, select

from holdfast.audit.keys import MAINTENANCE
from holdfast.audit.payload import PIECE_BYTES, Slot, commit, decompress
from holdfast.audit.record import CallRow, Kind, Payload, Record, decode
from holdfast.audit.store.following import CallFollower
from holdfast.audit.store.naming import is_call, require_one
from holdfast.audit.store.search import ANY_CALL, CallSearch, Filters, Position
from holdfast.audit.store.tables import CALL_ROW, blobs, bodies, calls, logs, records
from holdfast.audit.tree import parse_hash
from holdfast.errors import ConfigurationError, Internal, NotFound

if TYPE_CHECKING:
    from holdfast.audit.logs import PieceStore
    from holdfast.database import Database

type Piece = Row[str, bytes, str, bytes | None]
"""SHA-256, salt, codec and bytes: the last of them None in an object store, the last two where it is missing."""

PAGE = 500
ERASED = "erased"
MISSING = "missing"
ALTERED = "not what the record commits to"


@dataclass(frozen=True, slots=True)
class CallStory:
    """All that is kept of one call: its records in order, and the bodies they refer to, by commitment.

    In records of version 1 a body goes by its SHA-256 instead. `faults` says of bodies that should be there why they
    are not in `payloads`: a piece is MISSING, or what is kept is not what the record commits to (ALTERED); of one that
    was ERASED, by whom, when and why, where `load_call` found the record of it.
    """

    call: CallRow
    records: tuple[Record, ...]
    payloads: Mapping[str, bytes]
    faults: Mapping[str, str] = field(default_factory=dict)

    def body(self, payload: Payload | None) -> bytes:
        """The stored bytes that `payload` refers to; none when there is no payload, or none of it is to be shown."""
        return self.payloads.get(_reference(payload), b"") if payload else b""

    def why_absent(self, payload: Payload) -> str:
        """Why the body that a record refers to is not here, as `faults` tells, else ERASED; empty when it is."""
        reference = _reference(payload)
        return "" if not reference or reference in self.payloads else self.faults.get(reference, ERASED)


class AuditStore:
    """Reads the record in one database; `pieces` is where large payloads are kept beside it."""

    def __init__(self, database: Database, pieces: PieceStore | None = None) -> None:
        self._database = database
        self._pieces = pieces

    def list_calls(
        self, filters: Filters = ANY_CALL, *, limit: int = 100, before: Position | None = None
    ) -> list[CallRow]:
        """Return the latest `limit` calls, newest first; `before` continues after a page. Raises Unavailable."""
        with self._database.reading() as connection:
            return CallSearch(connection, filters).page(limit, before)

    def resources(self) -> list[str]:
        """The names of the resources that calls have, read from an index. Raises Unavailable."""
        with self._database.reading() as connection:
            return list(connection.execute(select(calls.c.resource).distinct().where(calls.c.resource != "")).scalars())

    def load_call(self, named: str) -> CallStory:
        """Return the story of the one call whose audit ID, or the ID of whose hold, starts so.

        Raises NotFound when there is none, Conflict when there are several, Unavailable.
        """
        query = select(*CALL_ROW).where(is_call(named)).limit(2)
        with self._database.reading() as connection:
            row = require_one(connection.execute(query).mappings().all(), named)
            return self._load_story(connection, CallRow(**row), tells_erasures=True)

    def follow_calls(self, filters: Filters = ANY_CALL) -> CallFollower:
        """Begin to follow the calls that match and end from now on. Raises Unavailable."""
        return CallFollower(self._database, filters)

    def iter_rows(self, filters: Filters = ANY_CALL) -> Iterator[CallRow]:
        """Yield all calls that match, oldest first, a page of them in memory at a time. Raises Unavailable."""
        after: Position | None = None
        while page := self._page_after(filters, after):
            yield from page
            after = (page[-1].received_at, page[-1].audit_id)

    def iter_calls(self, filters: Filters = ANY_CALL) -> Iterator[CallStory]:
        """As `iter_rows`, with all that is kept of each call."""
        for row in self.iter_rows(filters):
            with self._database.reading() as connection:
                story = self._load_story(connection, row)
            yield story

    def _load_story(self, connection: Connection, row: CallRow, *, tells_erasures: bool = False) -> CallStory:
        told: list[Record] = []
        places: dict[tuple[int, str], str] = {}
        found: dict[str, bytes] = {}
        faults: dict[str, str] = {}
        for day, log, seq, leaf in _in_order(connection, row.audit_id):
            record = decode(leaf).record
            told.append(record)
            for slot, payload in _payloads(record):
                places[log, f"{seq}/{slot}"] = _reference(payload)
                pieces = _find_pieces(connection, day, log, seq, slot)
                try:
                    if pieces:
                        found[_reference(payload)] = self._load_body(day, payload, pieces)
                except NotFound:
                    faults[_reference(payload)] = MISSING
                except Internal:
                    faults[_reference(payload)] = ALTERED
        gone = {place: body for place, body in places.items() if body not in found and body not in faults}
        if tells_erasures and gone:
            faults.update(_find_erasures(connection, gone))
        return CallStory(row, tuple(told), found, faults)

    def _load_body(self, day: str, payload: Payload, pieces: Sequence[Piece]) -> bytes:
        """Put a body together from its pieces.

        Raises NotFound when one is not there, Internal when they are not what the record commits to.
        """
        contents = [self._load_piece(day, payload, piece) for piece in pieces]
        digests = [piece.sha256 for piece in pieces]
        if payload.commitment and commit(bytes(pieces[0].salt), map(parse_hash, digests)) != payload.commitment:
            raise Internal("the pieces of a stored payload are not those that its record commits to")
        if not payload.commitment and digests != [payload.sha256]:
            raise Internal("a stored payload is not the one that its record names")
        return b"".join(contents)

    def _load_piece(self, day: str, payload: Payload, piece: Piece) -> bytes:
        if piece.codec is None:
            raise NotFound(f"payload {day}/{piece.sha256} is not in the database")
        # Only bodies of version 1 were kept whole.
        longest = PIECE_BYTES if payload.commitment else payload.size
        content = decompress(piece.codec, self._kept(day, piece.sha256, piece.body), longest)
        if sha256(content).hexdigest() != piece.sha256:
            raise Internal(f"payload {day}/{piece.sha256} has other bytes")
        return content

    def _kept(self, day: str, digest: str, kept: bytes | None) -> bytes:
        if kept is not None:
            return bytes(kept)
        if self._pieces is None:
            raise ConfigurationError(
                f"payload {digest} is in an object store; set audit.payloads as the gateway has it."
            )
        return self._pieces.get(day, digest)

    def _page_after(self, filters: Filters, after: Position | None) -> list[CallRow]:
        with self._database.reading() as connection:
            return CallSearch(connection, filters).page(PAGE, after, newest_first=False)


def _find_pieces(connection: Connection, day: str, log: int, seq: int, slot: str) -> Sequence[Piece]:
    """The pieces of a body in order, those that are not there included; none when it was erased."""
    piece = and_(blobs.c.day == bodies.c.day, blobs.c.sha256 == bodies.c.sha256)
    query = (
        select(bodies.c.sha256, bodies.c.salt, blobs.c.codec, blobs.c.body)
        .select_from(bodies.outerjoin(blobs, piece))
        .where(bodies.c.day == day, bodies.c.log == log, bodies.c.seq == seq, bodies.c.slot == slot)
        .order_by(bodies.c.part)
    )
    return connection.execute(query).all()


def _find_erasures(connection: Connection, gone: Mapping[tuple[int, str], str]) -> Iterator[tuple[str, str]]:
    """Yield bodies that are gone, known by log and `SEQ/SLOT`, with who had them erased, when and why."""
    ids = {log for log, _ in gone}
    origins = dict(connection.execute(select(logs.c.origin, logs.c.id).where(logs.c.id.in_(ids))).all())
    query = (
        select(records.c.leaf)
        .select_from(records.join(logs, and_(logs.c.day == records.c.day, logs.c.id == records.c.log)))
        .where(logs.c.replica.endswith(MAINTENANCE, autoescape=True), records.c.kind == Kind.REDACT.value)
    )
    for leaf in connection.execute(query).scalars():
        record = decode(bytes(leaf)).record
        if record.redact is None or record.redact.log.log not in origins:
            continue
        told = f"{ERASED} by {record.redact.requested_by} at {record.at[:19]}Z: {record.redact.reason}"
        bodies_gone = (gone.get((origins[record.redact.log.log], place)) for place in record.redact.payloads)
        yield from ((body, told) for body in bodies_gone if body is not None)


def _in_order(connection: Connection, audit_id: str) -> Iterator[tuple[str, int, int, bytes]]:
    """Yield day, log, seq and leaf of a call's records: by seq within a log, by time between logs."""
    query = select(records.c.day, records.c.log, records.c.seq, records.c.leaf, records.c.at)
    query = query.where(records.c.call_id == audit_id).order_by(records.c.log, records.c.seq)
    by_log = groupby(connection.execute(query).all(), key=lambda found: found.log)
    for day, log, seq, leaf, _ in merge(*(list(found) for _, found in by_log), key=lambda found: found.at):
        yield day, log, seq, bytes(leaf)


def _reference(payload: Payload) -> str:
    return payload.commitment or payload.sha256


def _payloads(record: Record) -> Iterator[tuple[str, Payload]]:
    """The stored bodies that a record refers to, and the slot that each is kept under."""
    for slot, payload in ((Slot.REQUEST, record.request_body), (Slot.RESPONSE, record.response_body)):
        if payload is not None and _reference(payload):
            yield slot.value, payload
