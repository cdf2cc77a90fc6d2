"""Who was given a token or refused one, shut out or let in again: found among calls, on both databases."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text

from audit.entries import NOON, entry, open_test_ledger, record
from holdfast.audit.record import Entry, Issued, Kind, Record, Refusal, Revoked, timestamp
from holdfast.audit.store.admissions import list_admissions
from holdfast.audit.store.ledger import make_partitions
from holdfast.database import Database
from holdfast.migrations import VERSION_TABLE

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.audit.ledger import Ledger
    from holdfast.audit.store.admissions import Place

ISSUED = Issued(id="j-1", grant="token-exchange", expires_at=1)
REFUSED = Refusal(code=401, reason="Unauthorized", message="no", why="expired")
REVOKED = Revoked(id="r-1", issuer="https://issuer", reason="why", requested_by="carol", scope="user", value="eve")
PARTS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'records'::regclass ORDER BY 1"
INDEXED = (
    "SELECT tablename FROM pg_indexes WHERE indexdef LIKE '%(at, log, seq) WHERE%' AND tablename LIKE 'records_%' "
    "ORDER BY 1"
)


def told(after: float, **parts: Any) -> Record:
    kind = Kind.REVOKE if "revoke" in parts else Kind.ISSUE
    return Record(kind=kind, at=timestamp(NOON + timedelta(seconds=after)), **parts)


@pytest.fixture
def mixed(database: Database, ledger: Ledger, tmp_path: Path) -> list[Record]:
    """Admissions in two logs, some at one moment, calls around them; oldest first."""
    with database.writing() as connection:
        make_partitions(connection, f"{NOON:%Y-%m-%d}")
    other = open_test_ledger(tmp_path, database, replica="other")
    written = [
        told(1, issue=ISSUED, identity=record().identity),
        told(2, refusal=REFUSED),
        told(2, revoke=REVOKED),
        told(3, issue=ISSUED),
        told(86_400, refusal=REFUSED),
    ]
    for number, admission in enumerate(written):
        (ledger, other)[number == 3].write([entry(), Entry(admission), Entry(record(kind=Kind.INTENT))])
    return written


def test_they_are_listed_newest_first_and_calls_are_not(database: Database, mixed: list[Record]) -> None:
    assert [found.record for found in list_admissions(database, limit=100)] == mixed[::-1]
    since, until = NOON + timedelta(seconds=2), NOON + timedelta(seconds=3)
    assert [found.record for found in list_admissions(database, limit=100, since=since)] == mixed[:0:-1]
    assert [found.record for found in list_admissions(database, limit=100, until=until)] == mixed[2::-1]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_join_while_more_come(database: Database, ledger: Ledger, mixed: list[Record], size: int) -> None:
    listed: list[Record] = []
    before: Place | None = None
    while page := list_admissions(database, limit=size, before=before):
        listed += [found.record for found in page]
        before = page[-1].place
        ledger.write([Entry(told(90_000 + len(listed), refusal=REFUSED))])
    assert listed == mixed[::-1]


@pytest.mark.parametrize("asked", [{}, {"since": NOON}, {"before": ("2026-03-02T00:00:00.000000Z", 1, 1)}])
def test_only_their_own_index_is_read(database: Database, mixed: list[Record], asked: dict[str, Any]) -> None:
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM records" in statement:
            before = "EXPLAIN QUERY PLAN " if database.dialect == "sqlite" else "EXPLAIN "
            with closing(cursor.connection.cursor()) as explaining:
                explaining.execute(before + statement, parameters)
                plans.extend(str(row[-1]) for row in explaining.fetchall())

    event.listen(database._engine, "before_cursor_execute", explain)
    list_admissions(database, limit=2, **asked)
    scans = [line for line in plans if "records" in line and ("Scan" in line or "SCAN" in line or "SEARCH" in line)]
    assert scans
    for line in scans:
        assert "USING INDEX records_of_admissions" in line or "_at_log_seq_idx" in line, plans
    assert not any("TEMP B-TREE" in line or "Sort  (" in line for line in plans)


def test_those_from_before_the_index_are_found_and_partitions_to_come_have_it(
    database_url: str, tmp_path: Path
) -> None:
    with closing(Database.open(database_url)) as database:
        with database.writing() as connection:
            make_partitions(connection, f"{NOON:%Y-%m-%d}")
        open_test_ledger(tmp_path, database).write([entry(), Entry(told(1, revoke=REVOKED))])
        with database.writing() as connection:
            connection.execute(text("DROP INDEX records_of_admissions"))
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0003'"))  # noqa: S608
    with closing(Database.open(database_url)) as database:
        with database.writing() as connection:
            make_partitions(connection, f"{NOON + timedelta(days=1):%Y-%m-%d}")
        assert len(list_admissions(database, limit=10)) == 1
        with database.reading() as connection:
            if database.dialect == "postgresql":
                parts = connection.execute(text(PARTS)).scalars().all()
                assert len(parts) >= 3
                assert connection.execute(text(INDEXED)).scalars().all() == parts
