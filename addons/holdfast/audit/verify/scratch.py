"""What verifying must remember and cannot hold in memory: a folder that is removed at the end.

Leaf hashes go to one flat file a log, the rest into a SQLite file that nobody else sees, so it need not survive
anything. Rows are only appended while the export goes by, and sorted afterwards.
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from holdfast.audit.tree import HASH_BYTES, LeafHash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FLUSH_ROWS = 2000
READ_HASHES = 4096
_TABLES = """
CREATE TABLE evidence (log TEXT, size INTEGER, root BLOB, kind TEXT, path TEXT, note TEXT, reply BLOB, seq INTEGER,
                       leaf BLOB);
CREATE TABLE claim (log TEXT, size INTEGER, root BLOB, kind TEXT, source TEXT, seq INTEGER, time TEXT, leaf BLOB);
CREATE TABLE needed (day TEXT, sha256 TEXT, log TEXT, seq INTEGER);
CREATE TABLE gone (log TEXT, place TEXT);
CREATE TABLE erased (log TEXT, place TEXT, redaction INTEGER);
CREATE TABLE redaction (id INTEGER PRIMARY KEY, why TEXT);
CREATE TABLE caller (id TEXT);
CREATE TABLE unlisted (day TEXT, call TEXT, log TEXT, seq INTEGER);
"""
_COLUMNS = {
    "evidence": 9,
    "claim": 8,
    "needed": 4,
    "gone": 2,
    "erased": 3,
    "redaction": 2,
    "caller": 1,
    "unlisted": 4,
}
_INSERTS = {name: f"INSERT INTO {name} VALUES ({', '.join('?' * columns)})" for name, columns in _COLUMNS.items()}  # noqa: S608  names of ours

type Row = tuple[Any, ...]


class Scratch:
    """The folder, for as long as a `with` block lasts."""

    def __enter__(self) -> Self:
        """Make it."""
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-verify-")
        self._database = sqlite3.connect(Path(self._folder.name) / "scratch.db", isolation_level=None)
        self._database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;{_TABLES}BEGIN;")
        self._waiting: dict[str, list[Row]] = {name: [] for name in _INSERTS}
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self._database.close()
        self._folder.cleanup()

    def add(self, table: str, row: Row) -> None:
        """Remember one row."""
        waiting = self._waiting[table]
        waiting.append(row)
        if len(waiting) >= FLUSH_ROWS:
            self._flush(table)

    def index(self, table: str, columns: str) -> None:
        """Have the rows of a table found by these columns, once there are no more to come."""
        self._flush(table)
        self._database.execute(f"CREATE INDEX {table}_by_{columns.partition(',')[0]} ON {table} ({columns})")

    def select(self, query: str, *values: str | int) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query over what was remembered."""
        for table in self._waiting:
            self._flush(table)
        for row in self._database.execute(query, values):  # noqa: UP028  it would close the cursor, be the file closed
            yield row

    def write_hashes(self, log: int, hashes: Iterable[bytes]) -> None:
        """Append leaf hashes of the log of this number."""
        with self._hash_file(log).open("ab") as file:
            file.writelines(hashes)

    def read_hashes(self, log: int) -> Iterator[LeafHash]:
        """Yield the leaf hashes of a log."""
        if not self._hash_file(log).exists():
            return
        with self._hash_file(log).open("rb") as file:
            while block := file.read(READ_HASHES * HASH_BYTES):
                for start in range(0, len(block), HASH_BYTES):
                    yield LeafHash(block[start : start + HASH_BYTES])

    def read_hash(self, log: int, seq: int) -> LeafHash | None:
        """The leaf hash at this place of a log; None when the log is shorter."""
        if not self._hash_file(log).exists():
            return None
        with self._hash_file(log).open("rb") as file:
            file.seek(seq * HASH_BYTES)
            return LeafHash(file.read(HASH_BYTES)) or None

    def _flush(self, table: str) -> None:
        if self._waiting[table]:
            self._database.executemany(_INSERTS[table], self._waiting[table])
            self._waiting[table].clear()

    def _hash_file(self, log: int) -> Path:
        return Path(self._folder.name) / f"{log}.hashes"


class Wanted:
    """Rows that are wanted, sorted by their first columns, ticked off by what comes by in the same order."""

    def __init__(self, rows: Iterator[Row], key_columns: int, missing: Callable[[Row], None]) -> None:
        self._rows = rows
        self._columns = key_columns
        self._missing = missing
        self._head = next(rows, None)

    def take(self, key: Row) -> Row | None:
        """The wanted row of this key, if there is one; those of lower keys are missing."""
        while self._head is not None and self._head[: self._columns] < key:
            self._missing(self._head)
            self._head = next(self._rows, None)
        if self._head is None or self._head[: self._columns] != key:
            return None
        taken, self._head = self._head, next(self._rows, None)
        return taken

    def finish(self) -> None:
        """Nothing more comes by: what is left is missing."""
        while self._head is not None:
            self._missing(self._head)
            self._head = next(self._rows, None)
