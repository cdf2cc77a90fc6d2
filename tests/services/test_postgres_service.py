"""The PostgreSQL server of the tests: durable, each test alone in its database, and it survives what is done to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from services.postgres import PostgresServer


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


def test_what_is_acknowledged_is_on_the_disk(postgres: PostgresServer) -> None:
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        assert postgres.execute(f"SHOW {setting}") == [("on",)]


def test_every_database_is_new(postgres: PostgresServer) -> None:
    first, second = postgres.create_database(), postgres.create_database()
    postgres.execute("CREATE TABLE here (x int)", name_of(first))
    assert postgres.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'here'", name_of(second)) == [(0,)]


def test_a_killed_server_comes_back_with_what_was_committed(make_postgres: Callable[[], PostgresServer]) -> None:
    server = make_postgres()
    server.execute("CREATE TABLE kept (x int)")
    server.execute("INSERT INTO kept VALUES (1)")
    server.kill()
    server.start()
    assert server.execute("SELECT x FROM kept") == [(1,)]


def test_a_replica_follows(
    make_postgres: Callable[[], PostgresServer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = make_postgres()
    replica = server.start_replica(tmp_path_factory.mktemp("replica"))
    try:
        assert replica.execute("SELECT pg_is_in_recovery()") == [(True,)]
    finally:
        replica.stop()
