"""SQLite connections for a record: durable, and explained when they fail.

What is acknowledged must survive a power cut, so every connection that writes runs in WAL mode with
`synchronous=FULL` (https://www.sqlite.org/pragma.html) and is asked whether it really does; a file system that cannot
do WAL is refused.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote

from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

BUSY_TIMEOUT_MS = 5000
"""How long a statement waits for another process's lock."""

MAPPED_BYTES = 1 << 30
"""So much of a file that is only read is read in place, not page by page (https://www.sqlite.org/mmap.html).

A disk that fails then ends the process, so this is never done where calls are served.
"""

_PRAGMAS = (
    ("journal_mode", "wal"),
    ("synchronous", 2),
    ("foreign_keys", 1),
    ("busy_timeout", BUSY_TIMEOUT_MS),
    # Pages that indexes touch again and again are written to the file once in 16 MiB of log, not once in 4.
    ("wal_autocheckpoint", 4000),
    # KiB of pages that a connection keeps: with SQLite's 2,000, a large index is read again at every commit.
    ("cache_size", -32_768),
)
_READING_PRAGMAS = (("query_only", 1), ("busy_timeout", BUSY_TIMEOUT_MS))
_MAP = f"PRAGMA mmap_size={MAPPED_BYTES}"
_CAUSES = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_IOERR_SHMSIZE: "the disk is full",
    sqlite3.SQLITE_READONLY: "the file cannot be written",
    sqlite3.SQLITE_CANTOPEN: "the file or its folder cannot be opened or written",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_BUSY: "another process keeps it locked",
}


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Connect to a file that is there; transactions are begun by whoever uses the connection, from any thread.

    Raises ConfigurationError when a connection that writes would not be durable.
    """
    file = f"file:{quote(str(path.absolute()))}?mode={'ro' if read_only else 'rw'}"
    # Without isolation_level=None, Python's sqlite3 opens transactions itself, and only some of them.
    connection = sqlite3.connect(file, uri=True, isolation_level=None, check_same_thread=False)
    try:
        _set_pragmas(connection, _READING_PRAGMAS if read_only else _PRAGMAS)
        if read_only:
            connection.execute(_MAP).close()
    except BaseException:
        connection.close()
        raise
    return connection


def _set_pragmas(connection: sqlite3.Connection, pragmas: tuple[tuple[str, str | int], ...]) -> None:
    for name, wanted in pragmas:
        connection.execute(f"PRAGMA {name}={wanted}").close()
        found = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if found != wanted:
            raise ConfigurationError(
                f"the audit database runs with {name}={found}, expected {wanted}: its file system cannot keep "
                "what is acknowledged; choose a local disk."
            )


def prepare_file(path: Path) -> None:
    """Make file (0600) and folder (0700) where they are missing, and see that they can be written.

    A file that exists is never opened here: closing it would drop the locks that this process's own SQLite
    connections hold on it (https://www.sqlite.org/howtocorrupt.html, section 2.2). Raises ConfigurationError.
    """
    try:
        _create_file(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be made: {error.strerror}.") from error
    for place in (path, path.parent):
        if not os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise ConfigurationError(f"{place}: cannot be written; its owner must be who runs Holdfast.")
    _switch_to_wal(path)


def _create_file(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        if not path.is_file():
            raise


def _switch_to_wal(path: Path) -> None:
    """Turn WAL on, which the file remembers; two processes that do so at once need this patience.

    SQLite answers the second one SQLITE_BUSY at once, whatever its busy_timeout.
    """
    give_up = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.Error as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise ConfigurationError(f"{path}: cannot be used: {explain(error)}.") from error
        time.sleep(0.01)


def explain(error: BaseException) -> str:
    """Say in a few words, without a full stop, why SQLite failed."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return str(error)
    return _CAUSES.get(code) or _CAUSES.get(code & 0xFF, str(error))


def is_refusal(error: BaseException) -> bool:
    """Whether the database is well, and what it was to write can never be written."""
    return isinstance(error, sqlite3.DataError)
