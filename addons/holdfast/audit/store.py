"""Records, payloads and the calls they tell of, in the database.

`records.leaf` is the truth; every other column, and the whole of `calls`, is derived from it so that lists are
answered by an index. Payloads are stored once under their hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Index,
    Named,
    Select,
    Table,
    TypedColumns,
    and_,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from holdfast.audit.record import (
    CallRow,
    Entry,
    Payload,
    Record,
    call_row,
    decode,
    payload_key,
    timestamp,
)
from holdfast.database import Code, Database, metadata
from holdfast.errors import Conflict, NotFound

PAGE = 500


class RecordColumns(TypedColumns):
    """One record; `seq` is the order in which records became durable."""

    seq: Named[int] = Column(primary_key=True)
    call_id: Named[str] = Column(Code)
    kind: Named[str] = Column(Code)
    at: Named[str] = Column(Code)
    leaf: Named[bytes]


class PayloadColumns(TypedColumns):
    """One body, under the SHA-256 of its bytes."""

    sha256: Named[str] = Column(Code, primary_key=True)
    size: Named[int]
    body: Named[bytes]


class CallColumns(TypedColumns):
    """`CallRow`, column for field."""

    audit_id: Named[str] = Column(Code, primary_key=True)
    received_at: Named[str] = Column(Code)
    username: Named[str]
    issuer: Named[str]
    verb: Named[str]
    api_group: Named[str]
    resource: Named[str]
    subresource: Named[str]
    namespace: Named[str]
    name: Named[str]
    uri: Named[str]
    effect: Named[str]
    rule: Named[str]
    verdict: Named[str]
    code: Named[int | None]
    hold_id: Named[str]
    duration_us: Named[int | None] = Column(BigInteger)
    user_agent: Named[str]
    complete: Named[bool]


records = Table("records", metadata, RecordColumns, sqlite_autoincrement=True)
payloads = Table("payloads", metadata, PayloadColumns)
calls = Table("calls", metadata, CallColumns)
Index("records_by_call", records.c.call_id)
Index("calls_by_time", calls.c.received_at, calls.c.audit_id)
Index("calls_by_user", calls.c.username, calls.c.received_at, calls.c.audit_id)

Position = tuple[str, str]
"""Where a page of calls ended: `received_at` and `audit_id` of its last call."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which calls are meant; an empty field means any. `resource` is RBAC's spelling: `pods`, `pods/exec`."""

    user: str = ""
    verb: str = ""
    resource: str = ""
    namespace: str = ""
    verdict: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class CallStory:
    """All that is kept of one call: its records in order, and the payloads they refer to, by hash."""

    call: CallRow
    records: tuple[Record, ...]
    payloads: Mapping[str, bytes]

    def body(self, payload: Payload | None) -> bytes:
        """The stored bytes that `payload` refers to; none when there is no payload or it was withheld."""
        return self.payloads.get(payload.sha256, b"") if payload else b""


ANY_CALL = Filters()


class AuditStore:
    """Reads and writes the record in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        insert = postgresql.insert if database.dialect == "postgresql" else sqlite.insert
        add_payloads = insert(payloads).on_conflict_do_nothing(index_elements=["sha256"])
        put_calls = insert(calls)
        put_calls = put_calls.on_conflict_do_update(
            index_elements=["audit_id"],
            set_={column.name: put_calls.excluded[column.name] for column in calls.c if not column.primary_key},
        )
        self._add_records = database.compile(records.insert(), ("call_id", "kind", "at", "leaf"))
        self._add_payloads = database.compile(add_payloads, ("sha256", "size", "body"))
        self._put_calls = database.compile(put_calls, CallRow.__struct_fields__)

    def write(self, batch: Sequence[Entry]) -> None:
        """Make a batch durable in one transaction: all of it or nothing. Raises Unavailable.

        The statements are ready-made text: building them anew for every batch took a third of the time.
        """
        record_rows = [_record_row(entry) for entry in batch]
        payload_rows = [_payload_row(body) for entry in batch for body in entry.payloads]
        call_rows = [msgspec.structs.asdict(row) for entry in batch if (row := call_row(entry.record))]
        with self._database.writing() as connection:
            connection.exec_driver_sql(self._add_records, record_rows)
            if payload_rows:
                connection.exec_driver_sql(self._add_payloads, payload_rows)
            if call_rows:
                connection.exec_driver_sql(self._put_calls, call_rows)

    def list_calls(
        self, filters: Filters = ANY_CALL, *, limit: int = 100, before: Position | None = None
    ) -> list[CallRow]:
        """Return the latest `limit` calls, newest first; `before` continues after a page. Raises Unavailable."""
        query = select(calls).where(*_conditions(filters)).limit(limit)
        if before is not None:
            query = query.where(_comes_before(before))
        with self._database.reading() as connection:
            return _call_rows(connection, query.order_by(calls.c.received_at.desc(), calls.c.audit_id.desc()))

    def load_call(self, audit_id: str) -> CallStory:
        """Return the story of the one call whose audit ID starts so.

        Raises NotFound when there is none, Conflict when there are several, Unavailable.
        """
        # No character of an audit ID sorts after this one.
        range_end = audit_id + "\x7f"
        query = select(calls).where(calls.c.audit_id >= audit_id, calls.c.audit_id < range_end).limit(2)
        with self._database.reading() as connection:
            found = _call_rows(connection, query)
            if not found:
                raise NotFound(f"no call in the record has an audit ID that starts with {audit_id!r}")
            if len(found) > 1:
                raise Conflict(f"several calls have an audit ID that starts with {audit_id!r}; give more of it")
            return _load_story(connection, found[0])

    def iter_calls(self, filters: Filters = ANY_CALL) -> Iterator[CallStory]:
        """Yield the stories of all calls that match, oldest first, with little of them in memory at a time."""
        after: Position | None = None
        while page := self._page_after(filters, after):
            for row in page:
                with self._database.reading() as connection:
                    story = _load_story(connection, row)
                yield story
            after = (page[-1].received_at, page[-1].audit_id)

    def _page_after(self, filters: Filters, after: Position | None) -> list[CallRow]:
        query = select(calls).where(*_conditions(filters)).limit(PAGE)
        if after is not None:
            query = query.where(_comes_after(after))
        with self._database.reading() as connection:
            return _call_rows(connection, query.order_by(calls.c.received_at, calls.c.audit_id))


def _record_row(entry: Entry) -> dict[str, Any]:
    record = entry.record
    return {"call_id": record.call, "kind": record.kind.value, "at": record.at, "leaf": entry.leaf}


def _payload_row(body: bytes) -> dict[str, Any]:
    return {"sha256": payload_key(body), "size": len(body), "body": body}


def _conditions(filters: Filters) -> Iterable[ColumnElement[bool]]:
    resource, _, subresource = filters.resource.partition("/")
    wanted = (
        (calls.c.username, filters.user),
        (calls.c.verb, filters.verb),
        (calls.c.resource, resource),
        (calls.c.namespace, filters.namespace),
        (calls.c.verdict, filters.verdict),
    )
    yield from (column == value for column, value in wanted if value)
    if resource:
        yield calls.c.subresource == subresource
    if filters.since is not None:
        yield calls.c.received_at >= timestamp(filters.since)


def _comes_before(position: Position) -> ColumnElement[bool]:
    moment, audit_id = position
    tie = and_(calls.c.received_at == moment, calls.c.audit_id < audit_id)
    return and_(calls.c.received_at <= moment, or_(calls.c.received_at < moment, tie))


def _comes_after(position: Position) -> ColumnElement[bool]:
    moment, audit_id = position
    tie = and_(calls.c.received_at == moment, calls.c.audit_id > audit_id)
    return and_(calls.c.received_at >= moment, or_(calls.c.received_at > moment, tie))


def _call_rows(connection: Connection, query: Select[Any]) -> list[CallRow]:
    return [CallRow(**row) for row in connection.execute(query).mappings()]


def _load_story(connection: Connection, row: CallRow) -> CallStory:
    query = select(records.c.leaf).where(records.c.call_id == row.audit_id).order_by(records.c.seq)
    told = tuple(decode(leaf) for leaf in connection.execute(query).scalars())
    return CallStory(row, told, _load_payloads(connection, told))


def _load_payloads(connection: Connection, told: Iterable[Record]) -> dict[str, bytes]:
    references = (payload for record in told for payload in (record.request_body, record.response_body))
    keys = {payload.sha256 for payload in references if payload is not None and payload.sha256}
    query = select(payloads.c.body)
    return {key: connection.execute(query.where(payloads.c.sha256 == key)).scalar_one() for key in sorted(keys)}
