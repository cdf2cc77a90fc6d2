"""A record to verify, and what may be done to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audit.tampering import Site
from holdfast.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(f"sqlite:///{tmp_path / 'audit.db'}")
    yield database
    database.close()


@pytest.fixture
def site(tmp_path: Path, database: Database) -> Site:
    """Two replicas with a log each, anchored, intact."""
    return Site(tmp_path, database)
