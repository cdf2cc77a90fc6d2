"""The PostgreSQL server of the tests: durable, each test alone in its database, and it survives what is done to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from services.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable

START_AND_SAY_WHERE = """
from services.postgres import PostgresServer
server = PostgresServer().start()
print(server._process.child.pid, server.folder, flush=True)
input()
"""


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


def test_what_is_acknowledged_is_on_the_disk(postgres: PostgresServer) -> None:
    weakened = postgres.execute(
        "SELECT name FROM pg_settings WHERE setting <> 'on'"
        " AND name IN ('fsync', 'full_page_writes', 'synchronous_commit')"
    )
    assert weakened == []


def test_settings_are_taken(make_postgres: Callable[..., PostgresServer]) -> None:
    assert make_postgres(fsync="off").execute("SHOW fsync") == [("off",)]


def test_only_the_password_opens_it(postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url(password="wrong"))


def test_every_database_is_new(postgres: PostgresServer) -> None:
    first, second = postgres.create_database(), postgres.create_database()
    postgres.execute("CREATE TABLE here (x int)", name_of(first))
    assert postgres.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'here'", name_of(second)) == [(0,)]


@pytest.mark.parametrize("end", [PostgresServer.kill, PostgresServer.stop])
def test_a_server_comes_back_with_what_was_committed(
    make_postgres: Callable[..., PostgresServer], end: Callable[[PostgresServer], None]
) -> None:
    server = make_postgres()
    server.execute("CREATE TABLE kept (x int)")
    server.execute("INSERT INTO kept VALUES (1)")
    end(server)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        server.execute("SELECT 1")
    server.start()
    assert server.execute("SELECT x FROM kept") == [(1,)]


def test_a_replica_follows(make_postgres: Callable[..., PostgresServer]) -> None:
    server = make_postgres()
    replica = server.start_replica()
    server.execute("CREATE TABLE copied (x int)")
    server.execute("INSERT INTO copied VALUES (1)")
    replica.catch_up(server)
    assert replica.execute("SELECT x FROM copied") == [(1,)]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        replica.execute("INSERT INTO copied VALUES (2)")


@pytest.mark.usefixtures("postgres")  # so that it is skipped where there is none
def test_it_ends_with_whoever_started_it() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_SAY_WHERE], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout is not None
        pid, folder = starter.stdout.readline().decode().split()
        server = psutil.Process(int(pid))
        starter.kill()
    server.wait(30)
    shutil.rmtree(folder)
