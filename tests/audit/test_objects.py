"""Large payloads in a folder beside the database: durable before they are referred to, read back, removed."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from audit.entries import entry, open_test_ledger
from holdfast.audit.objects import ObjectPieces, open_pieces
from holdfast.audit.store import AuditStore
from holdfast.database import Database
from holdfast.errors import ConfigurationError, NotFound, Unavailable
from holdfast.settings import Payloads

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = "2026-03-01"
LARGE = os.urandom(3 << 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "payloads"


@pytest.fixture
def pieces(folder: Path) -> Iterator[ObjectPieces]:
    opened = open_pieces(Payloads(folder=folder, inline_bytes=1000), 5)
    assert opened is not None
    yield opened
    opened.close()


def test_without_a_place_payloads_stay_in_the_database() -> None:
    assert open_pieces(Payloads(), 5) is None


def test_a_folder_and_a_bucket_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        Payloads(folder=Path("x"), bucket="y")


def test_a_piece_is_read_back_and_removed(pieces: ObjectPieces) -> None:
    names = {sha256(content).hexdigest(): content for content in (b"one", b"two")}
    pieces.put(DAY, names)
    assert {name: pieces.get(DAY, name) for name in names} == names
    pieces.delete(DAY, list(names))
    pieces.delete(DAY, list(names))
    for name in names:
        with pytest.raises(NotFound, match="not in the object store"):
            pieces.get(DAY, name)


def test_only_large_pieces_leave_the_database(pieces: ObjectPieces, folder: Path, tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'audit.db'}")
    ledger = open_test_ledger(tmp_path, database, pieces=pieces)
    small, large = entry(b"small"), entry(LARGE)
    ledger.write([small, large])
    with database.reading() as connection:
        kept = connection.execute(text("SELECT size, body IS NULL FROM blobs ORDER BY size")).all()
    assert [tuple(row) for row in kept] == [(5, 0), (1 << 20, 1), (1 << 20, 1), (1 << 20, 1)]
    assert len([file for file in folder.rglob("*") if file.is_file()]) == 3
    store = AuditStore(database, pieces)
    for written, content in ((small, b"small"), (large, LARGE)):
        story = store.load_call(written.record.call)
        assert story.body(story.records[0].response_body) == content
    with pytest.raises(ConfigurationError, match=r"set audit\.payloads"):
        AuditStore(database).load_call(large.record.call)


def test_a_store_that_fails_fails_the_commit_and_comes_back(pieces: ObjectPieces, folder: Path, tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'audit.db'}")
    ledger = open_test_ledger(tmp_path, database, pieces=pieces)
    before = ledger.row.size
    folder.rmdir()
    folder.write_text("a file in the place of the folder")
    with pytest.raises(Unavailable, match="payloads cannot be kept"):
        ledger.write([entry(LARGE)])
    assert ledger.row.size == before
    folder.unlink()
    folder.mkdir()
    ledger.write([entry(LARGE)])
    assert ledger.row.size == before + 1


def test_a_store_is_tried_before_it_is_relied_on(pieces: ObjectPieces, folder: Path) -> None:
    pieces.check()
    folder.rename(folder.with_name("gone"))
    folder.write_text("a file in the place of the folder")
    with pytest.raises(ConfigurationError, match=r"audit\.payloads: payloads cannot be kept"):
        pieces.check()
