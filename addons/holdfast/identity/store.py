"""Revocations and used assertions in the database, where every replica and the approvals API see them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Index, Named, Table, TypedColumns, UniqueConstraint, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from holdfast.database import Code, Moment, metadata
from holdfast.errors import Conflict, NotFound
from holdfast.identity.denylist import ID_PREFIX, Revocation, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import ColumnElement, Connection

    from holdfast.database import Database


REMEMBER_LONGER = timedelta(hours=1)
"""Past an assertion's end: who verified it just before may ask just after, and the clocks of replicas differ."""


class RevocationColumns(TypedColumns):
    """`Revocation`, column for field."""

    id: Named[str] = Column(Code, primary_key=True)
    issuer: Named[str] = Column(Code)
    scope: Named[str] = Column(Code)
    value: Named[str] = Column(Code)
    reason: Named[str]
    revoked_by: Named[str]
    revoked_at: Named[datetime] = Column(Moment)
    until: Named[datetime | None] = Column(Moment)


class UsedAssertionColumns(TypedColumns):
    """A SAML assertion that was exchanged; it is good until `until`."""

    issuer: Named[str] = Column(Code, primary_key=True)
    id: Named[str] = Column(Code, primary_key=True)
    until: Named[datetime] = Column(Moment)


revocations = Table("revocations", metadata, RevocationColumns, UniqueConstraint("issuer", "scope", "value"))
used_assertions = Table("used_assertions", metadata, UsedAssertionColumns)
Index("used_assertions_by_end", used_assertions.c.until)


class RevocationStore:
    """Blocking; every method raises Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Revocation]:
        """Every revocation, the oldest first."""
        return self._read()

    def find_shorter(self, revocation: Revocation) -> Revocation | None:
        """What revokes the same already at that time, and would end sooner; None where nothing does.

        Raises Conflict when what is there ends no sooner.
        """
        for other in self._read(*_same_name(revocation)):
            if not other.holds_at(revocation.revoked_at.timestamp()):
                continue
            if revocation.outlasts(other):
                return other
            until = f", until {other.until:%Y-%m-%dT%H:%M:%SZ}" if other.until else ""
            longer = ", and a longer --for, or none, extends it" if other.until else ""
            lifts = f"`holdfast identity restore {other.id}` lifts that{longer}"
            raise Conflict(f"{other.id} revokes it already{until}; {lifts}")
        return None

    def add(self, revocation: Revocation) -> None:
        """Keep one, in the place of one whose time is over or that would end sooner: at no moment there is neither.

        Raises Conflict when the same token, subject or user is revoked already for as long.
        """
        values = {column.name: getattr(revocation, column.name) for column in revocations.c}
        until = revocations.c.until
        ends_sooner = until.is_not(None) if revocation.until is None else until < revocation.until
        is_over = until <= revocation.revoked_at
        with self._database.writing() as connection:
            connection.execute(delete(revocations).where(*_same_name(revocation), is_over | ends_sooner))
            if not _insert_new(connection, revocations, {**values, "scope": revocation.scope.value}):
                raise Conflict("it is revoked already; `holdfast identity revocations` lists what is")

    def get(self, beginning: str, now: float) -> Revocation:
        """The one whose ID this is, or begins so (with or without `r-`), of those whose time is not over.

        `now` is in seconds since the epoch. Raises NotFound, and Conflict when there are several.
        """
        wanted = beginning if beginning.startswith(ID_PREFIX) else ID_PREFIX + beginning
        found = [each for each in self._read() if each.id.startswith(wanted) and each.holds_at(now)]
        found = [each for each in found if each.id == wanted] or found
        if not found:
            raise NotFound(f"there is no revocation {beginning}; `holdfast identity revocations` lists them")
        if len(found) > 1:
            named = ", ".join(each.id for each in found)
            raise Conflict(f"{beginning!r} is the beginning of {named}; give more")
        return found[0]

    def remove(self, revocation_id: str) -> None:
        """Lift one, if it is there."""
        with self._database.writing() as connection:
            connection.execute(delete(revocations).where(revocations.c.id == revocation_id))

    def _read(self, *conditions: ColumnElement[bool]) -> list[Revocation]:
        query = select(revocations).where(*conditions).order_by(revocations.c.revoked_at, revocations.c.id)
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings()
            return [Revocation(**{**row, "scope": Scope(row["scope"])}) for row in rows]


def _same_name(revocation: Revocation) -> tuple[ColumnElement[bool], ...]:
    """Of whatever names what this one names."""
    named = revocations.c
    return (
        named.issuer == revocation.issuer,
        named.scope == revocation.scope.value,
        named.value == revocation.value,
    )


class UsedAssertions:
    """Which SAML assertions were used. Blocking; every method raises Unavailable."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since the epoch."""
        self._database = database
        self._clock = clock

    def remember(self, assertion_id: str, issuer: str, until: float) -> bool:
        """Use an assertion, which is good until then (seconds since the epoch); true exactly once, whoever asks.

        What nobody could use any more is forgotten, `REMEMBER_LONGER` after its end.
        """
        over = datetime.fromtimestamp(self._clock(), UTC) - REMEMBER_LONGER
        values = {"issuer": issuer, "id": assertion_id, "until": datetime.fromtimestamp(until, UTC)}
        with self._database.writing() as connection:
            connection.execute(delete(used_assertions).where(used_assertions.c.until < over))
            return _insert_new(connection, used_assertions, values)


def _insert_new(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless one of its keys is taken; whether it is in now because of that."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(values).on_conflict_do_nothing().returning(table.c.id)
    return connection.execute(statement).first() is not None
