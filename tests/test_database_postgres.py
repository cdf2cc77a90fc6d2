"""Postgres as the audit database: durable or refused; whatever happens to it, calls fail in time and it comes back."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from sqlalchemy import text

from audit.crashing import Acknowledged, find_losses
from audit.entries import entry, new_id, open_test_ledger
from audit.readers import make_reader
from holdfast.audit.receipt import Receipt
from holdfast.audit.record import Kind, decode
from holdfast.audit.store import AuditStore, LedgerStore
from holdfast.audit.store.ledger import make_partitions
from holdfast.audit.store.retention import RetentionStore
from holdfast.audit.writer import AuditWriter
from holdfast.database import MIGRATION_LOCK, Database
from holdfast.errors import ConfigurationError, Internal, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast.audit.ledger import Ledger
    from holdfast.exchange import AuditID
    from services.postgres import PostgresServer

DEADLINE = 1.0


@pytest.fixture
def ledger(postgres_url: str, tmp_path: Path) -> Iterator[Ledger]:
    database = Database.open(postgres_url, deadline_seconds=DEADLINE)
    yield open_test_ledger(tmp_path, database)
    database.close()


def end_sessions(postgres: PostgresServer, database: str) -> None:
    """End every session of a database, so that the next ones have its settings; returns when they are gone."""
    postgres.execute(f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = '{database}'")  # noqa: S608


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


def test_a_schema_in_the_way_and_temporary_tables_change_nothing_that_is_read_or_written(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    with closing(Database.open(postgres_url)) as database:
        open_test_ledger(tmp_path, database).write([entry()])
    name = postgres_url.rpartition("/")[2]
    postgres.execute("CREATE SCHEMA fake", name)
    for table in ("calls", "records", "holdfast_version"):
        postgres.execute(f"CREATE TABLE fake.{table} (LIKE public.{table})", name)  # type: ignore[arg-type]
    postgres.execute(f"ALTER ROLE holdfast IN DATABASE {name} SET search_path = fake, public")  # type: ignore[arg-type]
    with closing(Database.open_readonly(postgres_url)) as database:
        assert len(list(AuditStore(database).iter_calls())) == 1
    with closing(Database.open(postgres_url)) as database, database.writing() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE calls (LIKE calls)"))
        assert connection.execute(text("SELECT count(*) FROM calls")).scalar() == 1
        connection.execute(text("UPDATE calls SET verdict = 'denied'"))
        assert connection.execute(text("SELECT count(*) FROM pg_temp.calls")).scalar() == 0
    assert postgres.execute("SELECT verdict FROM public.calls", name) == [("denied",)]


def test_a_record_in_another_schema_is_not_begun_anew_and_the_url_may_name_it(
    postgres: PostgresServer, postgres_url: str
) -> None:
    postgres.execute("CREATE SCHEMA mine", postgres_url.rpartition("/")[2])
    named = f"{postgres_url}?options=-csearch_path%3Dmine,pg_temp"
    Database.open(named).close()
    for open_it in (Database.open, Database.open_readonly):
        with pytest.raises(ConfigurationError, match=r"in the schema mine; add \?options=-csearch_path%3Dmine,pg_temp"):
            open_it(postgres_url)
    Database.open_readonly(named).close()
    postgres.execute("CREATE SCHEMA second", postgres_url.rpartition("/")[2])
    Database.open(f"{postgres_url}?options=-csearch_path%3Dsecond,pg_temp").close()


def test_a_wrong_password_is_one_sentence_without_it(postgres: PostgresServer) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Database.open(postgres.url(password="not-the-password"))
    assert "not-the-password" not in str(refused.value)
    assert str(refused.value).count("\n") == 0


def test_a_password_among_the_parameters_is_not_told(postgres: PostgresServer) -> None:
    bare = f"postgresql://127.0.0.1:{postgres.port}/nowhere?user=holdfast&password={postgres.password}"
    with pytest.raises(ConfigurationError, match="no such role or database") as refused:
        Database.open(bare)
    assert postgres.password not in str(refused.value)


def test_a_server_that_takes_no_writes_is_refused_at_the_start(postgres: PostgresServer, postgres_url: str) -> None:
    Database.open(postgres_url).close()
    name = postgres_url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(ConfigurationError, match="takes no writes"):
        Database.open(postgres_url)


def test_a_database_that_cannot_hold_every_character_is_refused(postgres: PostgresServer) -> None:
    postgres.execute("CREATE DATABASE western ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(ConfigurationError, match="its encoding is LATIN1, expected UTF8"):
        Database.open(postgres.url("western"))


def test_reading_takes_as_long_as_it_takes(postgres: PostgresServer, postgres_url: str) -> None:
    Database.open(postgres_url).close()
    name = postgres_url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET statement_timeout = 50")
    with closing(Database.open_readonly(postgres_url)) as database, database.snapshot() as connection:
        assert connection.execute(text("SELECT pg_sleep(0.2), 1")).one()[1] == 1


def test_with_a_deadline_a_statement_ends_by_then(postgres_url: str) -> None:
    with closing(Database.open(postgres_url, deadline_seconds=0.2)) as database:
        with pytest.raises(Unavailable, match="did not answer in time"), database.reading() as connection:
            connection.execute(text("SELECT pg_sleep(60)"))
        with database.reading() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1


def test_a_deadline_is_not_for_the_migration(postgres_url: str) -> None:
    with closing(direct(postgres_url)) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        ending = threading.Timer(0.5, other.rollback)
        ending.start()
        Database.open(postgres_url, deadline_seconds=0.05).close()
        ending.join()


def test_when_every_connection_is_in_use_the_next_fails_in_time(postgres_url: str) -> None:
    with closing(Database.open(postgres_url, deadline_seconds=0.1)) as database, ExitStack() as stack:
        for _ in range(15):
            stack.enter_context(database.reading())
        with pytest.raises(Unavailable, match="every connection to it is in use"), database.reading():
            pass


def test_what_can_never_be_written_is_not_the_server_s_fault(postgres_url: str) -> None:
    with closing(Database.open(postgres_url)) as database:
        with pytest.raises(Internal, match="NUL"), database.writing() as connection:
            connection.execute(text("INSERT INTO callers VALUES ('x', :caller)"), {"caller": "a\0b"})
        long = "".join(chr(0x4E00 + number) for number in range(6000))
        with pytest.raises(Internal, match="index row"), database.writing() as connection:
            connection.execute(text("INSERT INTO caller_claims VALUES ('x', :value, 'y')"), {"value": long})


def test_lost_connections_are_made_anew_without_a_failure(
    ledger: Ledger, postgres: PostgresServer, postgres_url: str
) -> None:
    end_sessions(postgres, postgres_url.rpartition("/")[2])
    assert isinstance(ledger.write([entry()])[0], Receipt)


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


def write_until_it_fails(ledger: Ledger) -> list[AuditID]:
    """Write one call after another until a commit hangs; return the calls in order, the one that failed at the end."""
    calls: list[AuditID] = []
    while True:
        calls.append(new_id())
        try:
            ledger.write([entry(call=calls[-1])])
        except Unavailable:
            return calls


def test_a_commit_that_hangs_is_given_up_and_taken_over_when_it_ends_after_all(
    make_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    server = make_postgres()
    database = Database.open(server.create_database(), deadline_seconds=0.5)
    ledger = open_test_ledger(tmp_path, database)
    # Commits wait for a standby that never comes, and statement_timeout does not end that.
    server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    server.execute("SELECT pg_reload_conf()")
    calls = write_until_it_fails(ledger)
    # Nobody can say yet what becomes of it.
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"another session keeps it locked|did not answer in time"):
            ledger.write([entry()])
    server.execute("ALTER SYSTEM RESET synchronous_standby_names")
    server.execute("SELECT pg_reload_conf()")
    calls.append(new_id())
    while True:
        try:
            ledger.write([entry(call=calls[-1])])
            break
        except Unavailable:
            continue
    told = [decode(leaf).record for leaf in LedgerStore(database).leaves(ledger.row)]
    assert [record.call for record in told if record.kind is Kind.OUTCOME] == calls
    ledger.close()
    open_test_ledger(tmp_path, database).close()
    database.close()


def partitions(database: Database, table: str) -> set[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:table AS regclass)"
    with database.reading() as connection:
        return set(connection.execute(text(query), {"table": table}).scalars())


def test_a_day_has_partitions_of_its_own_before_it_begins(ledger: Ledger, postgres_url: str) -> None:
    day = date.fromisoformat(ledger.row.day)
    names = {f"records_{day + timedelta(days=more):%Y%m%d}" for more in (0, 1)}
    with closing(Database.open_readonly(postgres_url)) as database:
        assert partitions(database, "records") == names | {"records_other"}


def test_partitions_of_a_day_are_made_once_however_many_begin_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.audit.store.ledger.PARTITION_PATIENCE_MS", 60_000)
    start = threading.Barrier(4)

    def begin(day: str) -> None:
        with database.writing() as connection:
            start.wait()
            make_partitions(connection, day)

    with closing(Database.open(postgres_url)) as database, ThreadPoolExecutor(4) as threads:
        for day in ("2026-03-01", "2026-03-02", "2026-03-03"):
            list(threads.map(begin, [day] * 4))
        assert len(partitions(database, "records")) == 4


@contextmanager
def locks_of_a_reader(server: PostgresServer, url: str) -> Iterator[psycopg.Connection]:
    """Hold whatever a role may lock that only reads: a table against changes of its form, and any number."""
    with closing(direct(make_reader(server, url))) as reader:
        reader.execute("SELECT pg_advisory_lock(number) FROM generate_series(1752132708, 1752132711) AS number")
        reader.execute("LOCK TABLE holdfast_version, logs IN ACCESS SHARE MODE")
        yield reader


def test_who_may_only_read_keeps_no_gateway_from_beginning_a_log_or_a_command_from_erasing(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    Database.open(postgres_url).close()
    with locks_of_a_reader(postgres, postgres_url) as reader, ThreadPoolExecutor(1) as other:
        opening = other.submit(Database.open, postgres_url, deadline_seconds=DEADLINE)
        try:
            database = opening.result(timeout=60)
        except TimeoutError:
            reader.close()
            raise
        ledger = open_test_ledger(tmp_path, database)
        assert f"records_{ledger.row.day.replace('-', '')}" in partitions(database, "records")
        with RetentionStore(database).alone(tmp_path / "unused"):
            ledger.write([entry()])
        database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "LOCK TABLE holdfast_version IN SHARE UPDATE EXCLUSIVE MODE",
        "LOCK TABLE holdfast_version IN ROW SHARE MODE",
        "SELECT 1 FROM holdfast_version FOR UPDATE",
        "SELECT 1 FROM holdfast_version FOR KEY SHARE",
    ],
)
def test_who_may_only_read_takes_no_lock_of_ours(
    postgres: PostgresServer, postgres_url: str, statement: LiteralString
) -> None:
    Database.open(postgres_url).close()
    with closing(direct(make_reader(postgres, postgres_url))) as reader:
        reader.execute("SET TRANSACTION READ WRITE")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(statement)


def test_a_day_that_began_in_the_common_partition_stays_there(postgres_url: str, tmp_path: Path) -> None:
    with closing(Database.open(postgres_url)) as database:
        with database.writing() as connection:
            today = {"day": f"{datetime.now(UTC):%Y-%m-%d}"}
            connection.execute(text("INSERT INTO blobs VALUES (:day, 'k', 1, 'raw', NULL)"), today)
        ledger = open_test_ledger(tmp_path, database)
        assert isinstance(ledger.write([entry()])[0], Receipt)
        assert f"blobs_{ledger.row.day.replace('-', '')}" not in partitions(database, "blobs")


def test_a_log_is_begun_while_somebody_reads_everything(postgres_url: str, tmp_path: Path) -> None:
    with closing(Database.open(postgres_url, deadline_seconds=DEADLINE * 5)) as database:
        with closing(direct(postgres_url)) as dump:
            dump.execute(
                "LOCK TABLE records, checkpoints, bodies, blobs, calls IN ACCESS SHARE MODE"
            )  # as pg_dump does
            ledger = open_test_ledger(tmp_path, database, epoch_records=3)
            ledger.write([entry()])
        assert partitions(database, "records") == {"records_other"}
        for _ in range(5):
            assert isinstance(ledger.write([entry()])[0], Receipt)
        assert ledger.row.epoch > 1
        ledger.close()
        open_test_ledger(tmp_path, database).close()
