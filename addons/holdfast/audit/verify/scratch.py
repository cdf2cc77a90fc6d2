"""What verifying must remember and cannot hold in memory: a folder that is removed at the end.

Leaf hashes go to one flat file a log, the rest into a SQLite file that nobody else sees, so it need not survive
anything.
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from holdfast.audit.tree import HASH_BYTES, LeafHash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FLUSH_ROWS = 2000
READ_HASHES = 4096
_TABLES = """
CREATE TABLE claim (log TEXT, size INTEGER, root BLOB, kind TEXT, source TEXT, seq INTEGER);
CREATE TABLE needed (day TEXT, sha256 TEXT, log TEXT, seq INTEGER, PRIMARY KEY (day, sha256)) WITHOUT ROWID;
CREATE TABLE gone (log TEXT, place TEXT, PRIMARY KEY (log, place)) WITHOUT ROWID;
CREATE TABLE erased (log TEXT, place TEXT, PRIMARY KEY (log, place)) WITHOUT ROWID;
CREATE TABLE caller (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_INSERTS = {
    "claim": "INSERT INTO claim VALUES (?, ?, ?, ?, ?, ?)",
    "needed": "INSERT OR IGNORE INTO needed VALUES (?, ?, ?, ?)",
    "gone": "INSERT OR IGNORE INTO gone VALUES (?, ?)",
    "erased": "INSERT OR IGNORE INTO erased VALUES (?, ?)",
    "caller": "INSERT OR IGNORE INTO caller VALUES (?)",
}

type Row = tuple[str | int | bytes, ...]


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

    def select(self, query: str, *values: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query over what was remembered."""
        for table in self._waiting:
            self._flush(table)
        yield from self._database.execute(query, values)

    def take_needed(self, day: str, sha256: str) -> bool:
        """Tick off a piece that is needed; false when it is not, or no longer."""
        self._flush("needed")
        found = self._database.execute("DELETE FROM needed WHERE day = ? AND sha256 = ?", (day, sha256))
        return found.rowcount == 1

    def take_caller(self, caller: str) -> bool:
        """Tick off a caller that records name; false when none does."""
        self._flush("caller")
        return self._database.execute("DELETE FROM caller WHERE id = ?", (caller,)).rowcount == 1

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
