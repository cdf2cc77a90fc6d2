"""Empty databases, and what writes and reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audit.entries import open_test_ledger
from audit.tampering import Site
from holdfast.audit.store import AuditStore
from holdfast.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.audit.ledger import Ledger


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an empty SQLite database; a module that needs no other has `database_url` return it."""
    return f"sqlite:///{tmp_path / 'audit.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty database of each kind."""
    database = Database.open(database_url)
    yield database
    database.close()


@pytest.fixture
def site(tmp_path: Path, database: Database) -> Site:
    """Two replicas with a log each, anchored, intact."""
    return Site(tmp_path, database)


@pytest.fixture
def ledger(tmp_path: Path, database: Database) -> Ledger:
    """An open ledger of one replica."""
    return open_test_ledger(tmp_path, database)


@pytest.fixture
def store(database: Database) -> AuditStore:
    """What lists and tells calls."""
    return AuditStore(database)
