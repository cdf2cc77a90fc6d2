"""What all tests share."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from services.postgres import PostgresMissing, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A busy machine is no fault of the code under test.
settings.register_profile("holdfast", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("holdfast")

# Where SIGINT is ignored, as in a shell's background job, so it is in every program that a test wants to interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests: use a database of your own, and leave it running."""
    server = _postgres_server(tmp_path_factory)
    yield server.start()
    server.stop()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of an empty PostgreSQL database."""
    return postgres.create_database()


@pytest.fixture
def make_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], PostgresServer]]:
    """Starts PostgreSQL servers that the test may stop and kill."""
    started: list[PostgresServer] = []

    def make() -> PostgresServer:
        started.append(_postgres_server(tmp_path_factory))
        return started[-1].start()

    yield make
    for server in started:
        server.stop("immediate")


def _postgres_server(tmp_path_factory: pytest.TempPathFactory) -> PostgresServer:
    try:
        return PostgresServer(tmp_path_factory.mktemp("postgres"))
    except PostgresMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
