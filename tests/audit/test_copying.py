"""The record moved to another database: whole, the same to the last byte, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from audit.entries import entry, open_test_ledger, record
from holdfast.audit.record import Entry, Kind
from holdfast.audit.store import AuditStore, LedgerStore
from holdfast.audit.store.copying import copy_record, count_rows, find_difference
from holdfast.database import Database
from holdfast.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Database]:
    """Two replicas' logs, calls with bodies, and one without an outcome."""
    database = Database.open(f"sqlite:///{tmp_path / 'source.db'}")
    for replica in ("gw", "other"):
        ledger = open_test_ledger(tmp_path, database, replica=replica, epoch_records=40)
        for number in range(30):
            ledger.write([entry(b"%d" % number), entry(bytes(3 << 20)), Entry(record(kind=Kind.INTENT))])
        ledger.close()
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgres"])
def target_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'target.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def target(target_url: str) -> Iterator[Database]:
    database = Database.open(target_url)
    yield database
    database.close()


def test_the_copy_tells_every_story_the_same(source: Database, target: Database) -> None:
    pages: list[tuple[str, int]] = []
    copy_record(source, target, lambda table, rows: pages.append((table, rows)))
    assert sum(rows for _, rows in pages) == sum(count_rows(source).values())
    assert find_difference(source, target) == ""
    assert list(AuditStore(target).iter_calls()) == list(AuditStore(source).iter_calls())


def test_a_gateway_goes_on_with_the_copy(source: Database, target: Database, tmp_path: Path) -> None:
    copy_record(source, target, lambda table, rows: None)
    before = LedgerStore(source).last_log("gw")
    ledger = open_test_ledger(tmp_path, target, epoch_records=40)
    ledger.write([entry()])
    assert before is not None
    assert ledger.row.origin == before.origin
    ledger.write([entry() for _ in range(40)])
    ledger.write([entry()])
    assert ledger.row.epoch == before.epoch + 1


def test_what_differs_in_a_copy_is_found(source: Database, target: Database) -> None:
    copy_record(source, target, lambda table, rows: None)
    with target.writing() as connection:
        connection.execute(
            text("UPDATE records SET leaf = (SELECT leaf FROM records WHERE seq = 1 LIMIT 1) WHERE seq = 2")
        )
    assert find_difference(source, target).endswith("has other records")
    with target.writing() as connection:
        connection.execute(text("DELETE FROM records WHERE seq = 2"))
    assert find_difference(source, target).startswith("records has ")


def test_only_an_empty_database_is_copied_to(source: Database, target: Database) -> None:
    copy_record(source, target, lambda table, rows: None)
    with pytest.raises(ConfigurationError, match="holds records already"):
        copy_record(source, target, lambda table, rows: None)


def test_a_copy_that_fails_leaves_nothing(source: Database, target: Database) -> None:
    def fail(table: str, rows: int) -> None:
        if table == "records":
            raise Unavailable("the disk is full")

    with pytest.raises(Unavailable):
        copy_record(source, target, fail)
    assert sum(count_rows(target).values()) == 0
