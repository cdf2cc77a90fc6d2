"""Postgres as the audit database: durable or refused; whatever happens to it, calls fail in time and it comes back."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import text

from audit.crashing import Acknowledged, find_losses
from audit.entries import entry, open_test_ledger
from holdfast.audit.receipt import Receipt
from holdfast.audit.writer import AuditWriter
from holdfast.database import Database
from holdfast.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast.audit.ledger import Ledger
    from services.postgres import PostgresServer

DEADLINE = 1.0


@pytest.fixture
def ledger(postgres_url: str, tmp_path: Path) -> Iterator[Ledger]:
    database = Database.open(postgres_url, deadline_seconds=DEADLINE)
    yield open_test_ledger(tmp_path, database)
    database.close()


def end_sessions(postgres: PostgresServer, database: str) -> None:
    """End every session of a database, so that the next ones have its settings."""
    postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")  # noqa: S608


def direct(url: str) -> psycopg.Connection:
    return psycopg.connect(url)


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_loses_what_it_acknowledged_is_refused(
    make_postgres: Callable[..., PostgresServer], setting: str
) -> None:
    server = make_postgres(**{setting: "off"})
    with pytest.raises(ConfigurationError, match=f"runs with {setting}=off, expected on"):
        Database.open(server.create_database())


def test_commits_wait_for_the_disk_whatever_the_server_s_default(postgres: PostgresServer, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    database = Database.open(postgres_url)
    with database.writing() as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"
    database.close()


def test_a_wrong_password_is_one_sentence_without_it(postgres: PostgresServer) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Database.open(postgres.url(password="not-the-password"))
    assert "not-the-password" not in str(refused.value)
    assert str(refused.value).count("\n") == 0


def test_a_table_that_another_session_locks_fails_the_commit_in_time(ledger: Ledger, postgres_url: str) -> None:
    with closing(direct(postgres_url)) as other:
        other.execute("LOCK TABLE checkpoints")
        with pytest.raises(Unavailable, match=r"another session keeps it locked|did not answer in time"):
            ledger.write([entry()])
    assert isinstance(ledger.write([entry()])[0], Receipt)


def test_a_server_that_takes_no_writes_fails_the_commit(
    ledger: Ledger, postgres: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    end_sessions(postgres, name)
    with pytest.raises(Unavailable, match="takes no writes"):
        ledger.write([entry()])
    postgres.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    end_sessions(postgres, name)
    assert isinstance(ledger.write([entry()])[0], Receipt)


@pytest.mark.parametrize("end", ["fast", "immediate", "kill"])
async def test_a_server_that_stops_in_mid_load_loses_nothing_that_was_acknowledged(
    make_postgres: Callable[..., PostgresServer], tmp_path: Path, end: str
) -> None:
    server = make_postgres()
    url = server.create_database()
    database = Database.open(url, deadline_seconds=DEADLINE)
    writer = AuditWriter(
        open_test_ledger(tmp_path, database), capacity=1000, deadline_seconds=DEADLINE, lag_limit_bytes=1
    )
    writer.start()
    told: list[Receipt] = []
    refused: list[Unavailable] = []
    stopped = asyncio.Event()

    async def produce() -> None:
        while not (stopped.is_set() and len(told) > before + 20):
            try:
                told.append(await writer.append(entry()))
            except Unavailable as error:
                refused.append(error)
                await asyncio.sleep(0.02)

    before = 0
    producers = [asyncio.create_task(produce()) for _ in range(4)]
    while len(told) < 50:  # noqa: ASYNC110  the producers tell nobody
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server.kill if end == "kill" else lambda: server.stop(end))
    while not refused:  # noqa: ASYNC110  as above
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server.start)
    before = len(told)
    stopped.set()
    await asyncio.gather(*producers)
    await writer.close()
    database.close()
    acknowledged = [
        Acknowledged(receipt.origin, receipt.seq, receipt.leaf_hash.hex(), "outcome", "") for receipt in told
    ]
    assert find_losses(url, acknowledged) == []
