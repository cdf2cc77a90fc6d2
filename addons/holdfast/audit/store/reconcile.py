"""What reconciling reads of the record: which calls it has, and the calls of a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, tuple_

from holdfast.audit.record import CallRow
from holdfast.audit.store.tables import CALL_ROW, calls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.database import Database

PAGE = 1000


class RecordedCalls:
    """The calls in one database. Every method raises Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, audit_ids: Sequence[str]) -> set[str]:
        """Those of these Audit-IDs that the record has."""
        query = select(calls.c.audit_id).where(calls.c.audit_id.in_(audit_ids))
        with self._database.reading() as connection:
            return set(connection.execute(query).scalars())

    def between(self, first: str, last: str) -> Iterator[CallRow]:
        """Yield the calls received in this time, in order, a page at a time."""
        position = (first, "")
        while True:
            query = (
                select(*CALL_ROW)
                .where(
                    tuple_(calls.c.received_at, calls.c.audit_id) > position,
                    calls.c.received_at <= last,
                )
                .order_by(calls.c.received_at, calls.c.audit_id)
                .limit(PAGE)
            )
            with self._database.reading() as connection:
                page = [CallRow(**row) for row in connection.execute(query).mappings()]
            yield from page
            if len(page) < PAGE:
                return
            position = (page[-1].received_at, page[-1].audit_id)
