"""New calls as they end, in the order in which their ends were recorded.

A call's row changes when its outcome comes, and several gateways write one database at their own pace: whoever asks
for calls that arrived after the last one seen misses those that arrived before it and ended after. So it is the logs
that are followed. Their sizes say how far each of them is, in the same transaction in which a record appears; the
outcomes between two sizes are what is new.
"""

from __future__ import annotations

from datetime import date, timedelta
from itertools import batched
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from holdfast.audit.record import Kind, call_row, decode
from holdfast.audit.store.search import CallSearch
from holdfast.audit.store.tables import logs, records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

    from holdfast.audit.record import CallRow
    from holdfast.audit.store.search import Filters
    from holdfast.database import Database

PAGE = 500


class CallFollower:
    """Follows all logs of a database from where they are now. Its methods raise Unavailable."""

    def __init__(self, database: Database, filters: Filters) -> None:
        self._database = database
        self._filters = filters
        with database.reading() as connection:
            latest = connection.execute(select(func.max(logs.c.day))).scalar()
            # A log is not written any more on the day after its own, by any gateway's clock.
            self._first_day = (date.fromisoformat(latest) - timedelta(days=1)).isoformat() if latest else ""
            self._sizes = {log: size for log, _, size in self._logs(connection)}

    def poll(self) -> list[CallRow]:
        """Return the calls that ended since the last time."""
        with self._database.reading() as connection:
            found = self._logs(connection)
            ended = sorted(end for log, day, size in found for end in self._ended(connection, log, day, size))
            rows = {row.audit_id: row for row in self._meant(connection, ended)}
        self._sizes = {log: size for log, _, size in found}
        return [rows.pop(audit_id) for _, _, audit_id in ended if audit_id in rows]

    def _logs(self, connection: Connection) -> list[tuple[int, str, int]]:
        """ID, day and size of every log that may still grow."""
        query = select(logs.c.id, logs.c.day, logs.c.size).where(logs.c.day >= self._first_day)
        return [(log, day, size) for log, day, size in connection.execute(query)]

    def _ended(self, connection: Connection, log: int, day: str, size: int) -> Iterator[tuple[str, str, str]]:
        """Yield when a call's end was recorded, the day on which the call arrived, and its ID."""
        new = (records.c.seq >= self._sizes.get(log, 0), records.c.seq < size)
        query = select(records.c.leaf).where(
            records.c.day == day, records.c.log == log, *new, records.c.kind == Kind.OUTCOME.value
        )
        for leaf in connection.execute(query).scalars():
            record = decode(bytes(leaf)).record
            row = call_row(record)
            if row is not None:
                yield record.at, row.received_at[:10], row.audit_id

    def _meant(self, connection: Connection, ended: Iterable[tuple[str, str, str]]) -> Iterator[CallRow]:
        search = CallSearch(connection, self._filters)
        by_day: dict[str, list[str]] = {}
        for _, day, audit_id in ended:
            by_day.setdefault(day, []).append(audit_id)
        for day, audit_ids in by_day.items():
            for page in batched(audit_ids, PAGE):
                yield from search.among(day, page)
