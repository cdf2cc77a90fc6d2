"""Where the ledger's parts write: SQLite files of their own, or a PostgreSQL server of their own."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from psycopg import sql
from sqlalchemy import text

from services.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.database import Database

KINDS = ("sqlite", "postgres")


@dataclass(frozen=True)
class Place:
    """An empty database, and a folder for what belongs to it."""

    url: str
    folder: Path


@dataclass(frozen=True)
class Databases:
    """Makes databases of one kind, and removes them."""

    folder: Path
    server: PostgresServer | None

    @contextmanager
    def make(self) -> Iterator[Place]:
        """A new database, there until the block ends."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        url = self.server.create_database() if self.server else f"sqlite:///{folder / 'audit.db'}"
        try:
            yield Place(url, folder)
        finally:
            shutil.rmtree(folder)
            if self.server:
                name = sql.Identifier(url.rpartition("/")[2])
                self.server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def server_cpu(self) -> float:
        """CPU seconds of the server so far; 0 where there is none."""
        if self.server is None:
            return 0.0
        first_line, _, _ = (self.server.data / "postmaster.pid").read_text().partition("\n")
        postmaster = psutil.Process(int(first_line))
        ended = postmaster.cpu_times()
        running = (_own_cpu(process) for process in (postmaster, *postmaster.children(recursive=True)))
        return float(ended.children_user + ended.children_system + sum(running))


@contextmanager
def open_databases(kind: str) -> Iterator[Databases]:
    """Databases of a kind of KINDS; a PostgreSQL server runs until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    server = PostgresServer() if kind == "postgres" else None
    try:
        yield Databases(folder, server.start() if server else None)
    finally:
        if server:
            server.close()
        shutil.rmtree(folder)


def stored_bytes(database: Database) -> int:
    """What a database takes on disk, without its log of changes."""
    if database.dialect == "postgresql":
        size = "SELECT pg_database_size(current_database())"
    else:
        size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    with database.reading() as connection:
        return int(connection.execute(text(size)).scalar_one())


def _own_cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
