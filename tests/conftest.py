"""What all tests share."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from services.identity_provider import IdentityProvider
from services.node_server import PROJECT
from services.npm import NodeFailed, install_packages
from services.postgres import PostgresMissing, PostgresServer
from services.s3 import S3Server
from services.versitygw import BuildFailed, find_versitygw
from testcluster import GoMissing, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A busy machine is no fault of the code under test.
settings.register_profile("holdfast", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("holdfast")

# Where SIGINT is ignored, as in a shell's background job, so it is in every program that a test wants to interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build and install here, not in the fixtures: the first time on a busy machine takes longer than a test may."""
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    progress = Progress(lambda text: reporter.write(text, flush=True), reporter.isatty)
    with suppress(BuildFailed, GoMissing, NodeFailed):  # the fixtures tell
        if {"s3", "make_s3"} & wanted:
            find_versitygw(progress)
        if {"identity_provider", "saml_provider"} & wanted:
            install_packages(PROJECT, progress)
    progress.done()


@pytest.fixture(scope="session")
def identity_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityProvider]:
    """An OpenID provider for all tests; it keeps what a test turned, so turn it back."""
    provider = IdentityProvider(tmp_path_factory.mktemp("identity-provider"))
    try:
        yield provider.start()
    except NodeFailed as failed:
        pytest.fail(str(failed), pytrace=False)
    finally:
        provider.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests: use a database of your own, and leave it running."""
    server = _postgres_server({})
    yield server.start()
    server.close()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of an empty PostgreSQL database."""
    return postgres.create_database()


@pytest.fixture
def make_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """Starts PostgreSQL servers that the test may stop and kill: make_postgres(fsync="off"), with data in `disk`."""
    started: list[PostgresServer] = []

    def make(disk: Path | None = None, **settings: str) -> PostgresServer:
        started.append(_postgres_server(settings, disk))
        return started[-1].start()

    yield make
    for server in started:
        server.close()


def _postgres_server(settings: dict[str, str], disk: Path | None = None) -> PostgresServer:
    try:
        return PostgresServer(settings, disk)
    except PostgresMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def s3_program() -> Path:
    """The program of the S3 server."""
    try:
        return find_versitygw(lambda _: None)
    except GoMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    except BuildFailed as failed:
        pytest.fail(str(failed), pytrace=False)


@pytest.fixture(scope="session")
def s3(s3_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server for all tests: use a bucket of your own, and leave it running."""
    server = S3Server(s3_program, tmp_path_factory.mktemp("s3"))
    yield server.start()
    server.stop()


@pytest.fixture
def s3_bucket(s3: S3Server) -> str:
    """The name of an empty bucket."""
    return s3.create_bucket()


@pytest.fixture
def s3_locked_bucket(s3: S3Server) -> str:
    """The name of an empty bucket that was made with object lock."""
    return s3.create_bucket(object_lock=True)


@pytest.fixture
def make_s3(s3_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], S3Server]]:
    """Starts S3 servers that the test may stop."""
    started: list[S3Server] = []

    def make() -> S3Server:
        started.append(S3Server(s3_program, tmp_path_factory.mktemp("s3")))
        return started[-1].start()

    yield make
    for server in started:
        server.stop()
