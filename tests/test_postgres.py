"""Connections to PostgreSQL: as durable as they must be, bounded, explained without telling where the server is."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from holdfast.postgres import SEARCH_PATH, BoundedConnection, explain, is_disturbed
from holdfast.postgres import connect as connect_to
from testcluster.processes import free_ports

if TYPE_CHECKING:
    from services.postgres import PostgresServer

DEADLINE = 1.0


def connect(url: str, *, deadline: float | None = None, is_durable: bool = False, **more: object) -> BoundedConnection:
    parameters = conninfo_to_dict(url) | more
    return connect_to(parameters, deadline_seconds=deadline, is_durable=is_durable)


def setting(connection: BoundedConnection, name: str) -> str:
    (found,) = connection.execute(f"SHOW {name}").fetchone() or ("",)  # type: ignore[call-overload]
    connection.rollback()
    return str(found)


@pytest.mark.parametrize(
    ("server_s", "ours"),
    [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")],
)
def test_commits_wait_for_the_disk_and_no_shorter_than_the_server_s_own(
    postgres: PostgresServer, postgres_url: str, server_s: str, ours: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET synchronous_commit = {server_s}")  # type: ignore[arg-type]
    with closing(connect(postgres_url, is_durable=True)) as connection:
        assert setting(connection, "synchronous_commit") == ours


@pytest.mark.parametrize(("deadline", "limit"), [(None, "0"), (2.5, "2500ms")])
def test_limits_are_ours_whatever_the_server_s(
    postgres: PostgresServer, postgres_url: str, deadline: float | None, limit: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    for timeout in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        postgres.execute(f"ALTER DATABASE {name} SET {timeout} = 77")  # type: ignore[arg-type]
    with closing(connect(postgres_url, deadline=deadline)) as connection:
        for timeout in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            assert setting(connection, timeout) == limit


def test_what_the_url_says_of_the_connection_stays(postgres_url: str) -> None:
    with closing(connect(postgres_url, options="-c work_mem=3MB", application_name="mine")) as connection:
        assert setting(connection, "work_mem") == "3MB"
        assert setting(connection, "statement_timeout") == "0"
        assert setting(connection, "application_name") == "mine"


def test_tables_are_looked_for_in_one_schema_whatever_the_role_s_own_path(
    postgres: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET search_path = fake, public")  # type: ignore[arg-type]
    postgres.execute(f"ALTER ROLE holdfast IN DATABASE {name} SET search_path = faker, public")  # type: ignore[arg-type]
    with closing(connect(postgres_url)) as connection:
        assert setting(connection, "search_path") == SEARCH_PATH == "public,pg_temp"


def test_the_url_may_choose_the_schema_and_not_the_limits(postgres_url: str) -> None:
    options = "-c search_path=mine,pg_temp -c statement_timeout=77"
    with closing(connect(postgres_url, options=options)) as connection:
        assert setting(connection, "search_path") == "mine,pg_temp"
        assert setting(connection, "statement_timeout") == "0"


def test_a_server_that_stands_still_is_given_up(postgres_url: str) -> None:
    connection = connect(postgres_url, deadline=0.1)
    server_side = psutil.Process(connection.info.backend_pid)
    server_side.suspend()
    try:
        with pytest.raises(psycopg.OperationalError, match="timeout expired") as late:
            connection.execute("SELECT 1")
        assert explain(late.value) == "the server did not answer in time"
        assert connection.closed
    finally:
        server_side.resume()


def test_an_answer_of_many_parts_is_read_to_its_end(postgres_url: str) -> None:
    with closing(connect(postgres_url, deadline=60.0)) as connection:
        rows = connection.execute("SELECT repeat('x', 100000) FROM generate_series(1, 200)").fetchall()
    assert len(rows) == 200


def test_the_end_of_a_connection_is_seen_without_asking(postgres_url: str) -> None:
    with closing(connect(postgres_url)) as connection, closing(psycopg.connect(postgres_url)) as other:
        assert not is_disturbed(connection)
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.info.backend_pid])
        arrived = threading.Event()
        while not is_disturbed(connection):
            arrived.wait(0.01)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (errors.DiskFull("x"), "the server's disk is full"),
        (errors.ReadOnlySqlTransaction("x"), "the server takes no writes (it is read-only, or a replica)"),
        (errors.TooManyConnections("x"), "the server has too many connections"),
        (errors.ConfigurationLimitExceeded("x"), "the server lacks memory or connections"),
        (errors.LockNotAvailable("x"), "another session keeps it locked"),
        (errors.QueryCanceled("x"), "the server did not answer in time"),
        (errors.AdminShutdown("x"), "the server is shutting down"),
        (errors.CrashShutdown("x"), "the server is shutting down"),
        (errors.CannotConnectNow("x"), "the server is starting, or shutting down"),
        (errors.DeadlockDetected("x"), "other transactions were in the way"),
        (errors.IoError("x"), "the server's disk reports an error"),
        (errors.ConnectionFailure("x"), "the connection to the server was lost"),
        (errors.DataCorrupted("x"), "the server's files are damaged"),
        (errors.UndefinedTable("x"), "a table is missing"),
        (errors.UniqueViolation("duplicate key\nDETAIL: Key (id)=(7)"), "duplicate key"),
        (psycopg.OperationalError("the connection is lost"), "the connection to the server was lost"),
        (psycopg.OperationalError("FATAL:  the database system is starting up"), "the server is starting"),
        (psycopg.OperationalError("FATAL:  sorry, too many clients already"), "the server has too many connections"),
        (psycopg.OperationalError("server does not support SSL, but SSL was required"), "the connection cannot be enc"),
        (psycopg.OperationalError('no pg_hba.conf entry for host "10.0.0.7"'), "the server does not let this role in"),
        (psycopg.OperationalError("something else on db.internal:5432"), "the server cannot be reached"),
        (psycopg.ProgrammingError('invalid connection option "colour"'), 'invalid connection option "colour"'),
    ],
)
def test_causes_are_told_in_a_few_words(raised: psycopg.Error, told: str) -> None:
    assert explain(raised).startswith(told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"port": free_ports(1)[0]}, "the server takes no connections"),
        ({"password": "not-the-password"}, "the server does not accept the password"),
        ({"dbname": "nowhere"}, "the server has no such role or database; make them first (createuser, createdb)"),
        ({"host": "no-such-host.invalid"}, "the server's name cannot be resolved"),
        ({"sslmode": "require"}, "the connection cannot be encrypted as sslmode asks for"),
        ({"user": "limited"}, "the server has too many connections"),
    ],
)
def test_a_connection_that_cannot_be_made_is_explained_without_saying_where(
    postgres: PostgresServer, postgres_url: str, change: dict[str, object], told: str
) -> None:
    if "user" in change:
        postgres.execute("DROP ROLE IF EXISTS limited")
        postgres.execute("CREATE ROLE limited LOGIN CONNECTION LIMIT 0")
        postgres.execute(f"ALTER ROLE limited PASSWORD '{postgres.password}'")  # type: ignore[arg-type]
    with pytest.raises(psycopg.Error) as failed:
        connect(postgres_url, **change)
    assert explain(failed.value) == told
