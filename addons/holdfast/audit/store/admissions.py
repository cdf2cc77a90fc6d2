"""Who was given a token of ours, or refused one; who was shut out, or let in again: records that belong to no call.

There are few of them among many, so they have an index of their own, which has no other, in the order of time: what is
asked for is read along it, in Postgres along those of all partitions at once, however many calls are on record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select, tuple_

from holdfast.audit.record import Record, decode, timestamp
from holdfast.audit.store.search import tune
from holdfast.audit.store.tables import OF_ADMISSIONS, records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import ColumnElement

    from holdfast.database import Database

Place = tuple[str, int, int]
"""Where a page of admissions ended: `at`, log and seq of its last record."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A record of the kind `issue` or `revoke`, and where it stands among them."""

    record: Record
    place: Place


def list_admissions(
    database: Database,
    *,
    limit: int,
    since: datetime | None = None,
    until: datetime | None = None,
    before: Place | None = None,
) -> list[Admission]:
    """Return the latest `limit` of them, the newest first; `until` is the first moment that is not meant any more.

    `before` continues after a page. Raises Unavailable.
    """
    place = (records.c.at, records.c.log, records.c.seq)
    query = (
        select(*place, records.c.leaf)
        .where(OF_ADMISSIONS, *_between(since, until))
        .order_by(*(column.desc() for column in place))
        .limit(limit)
    )
    if before is not None:
        query = query.where(tuple_(*place) < tuple_(*before))
    with database.reading() as connection:
        tune(connection, gathers=False)
        found = connection.execute(query).all()
    return [Admission(decode(bytes(leaf)).record, (at, log, seq)) for at, log, seq, leaf in found]


def _between(since: datetime | None, until: datetime | None) -> Iterator[ColumnElement[bool]]:
    if since is not None:
        yield records.c.at >= timestamp(since)
    if until is not None:
        yield records.c.at < timestamp(until)
