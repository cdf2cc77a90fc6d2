"""The one database: how it is opened, brought up to date, read and written.

SQLite (the default) or Postgres, through SQLAlchemy Core. What each of them needs, so that what is acknowledged
survives a power cut, is in `sqlite` and in `postgres`.

Writing transactions start with BEGIN IMMEDIATE: one that reads first and writes later would otherwise fail with
SQLITE_BUSY_SNAPSHOT, without waiting, whenever another process wrote in between
(https://www.sqlite.org/isolation.html).
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    Engine,
    Insert,
    MetaData,
    String,
    TypeDecorator,
    Update,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as NoConnectionLeft

from holdfast import sqlite
from holdfast.errors import ConfigurationError, Internal, Unavailable
from holdfast.migrations import HEAD, REVISIONS, VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy.pool import ConnectionPoolEntry

    Transaction = Callable[[], AbstractContextManager[Connection]]

IMMEDIATE = "holdfast_immediate"
EXPECTED = "expected sqlite:///PATH or postgresql://USER@HOST/NAME."
MIGRATION_LOCK = 0x686F6C64
"""Names the Postgres advisory lock under which the first tables are made (the letters `hold`)."""

metadata = MetaData()
"""Every store's tables; a test holds them against what the migrations make."""

Code = String().with_variant(String(collation="C"), "postgresql")
"""Text that is compared byte by byte: identifiers, digests, times."""


class Moment(TypeDecorator[datetime]):
    """An aware datetime, kept as RFC 3339 text in UTC with microseconds, so that text order is time order."""

    impl = Code
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Write a time."""
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """Read a time."""
        return None if value is None else datetime.fromisoformat(value)


class Database:
    """An open database whose schema is the one this Holdfast knows. Safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str, *, create: bool = True, deadline_seconds: float | None = None) -> Database:
        """Open the database at `url` for writing, make it if `create`, and migrate it to this version's schema.

        With a deadline, a statement that Postgres has not answered by then fails (SQLite waits for a lock, as long as
        `sqlite` says, and for nothing else); a migration takes as long as it takes. Several processes may open one
        database at the same moment. Raises ConfigurationError.
        """
        location = _parse(url)
        if location.get_backend_name() == "sqlite":
            if not create:
                _require_file(_path(location))
            sqlite.prepare_file(_path(location))
        database = cls(_engine(location, read_only=False))
        database._check(location, database.writing, _migrate)
        if deadline_seconds is None:
            return database
        database.close()
        return cls(_engine(location, read_only=False, deadline_seconds=deadline_seconds))

    @classmethod
    def open_readonly(cls, url: str) -> Database:
        """Open the database at `url` so that nothing can be written. Raises ConfigurationError."""
        location = _parse(url)
        if location.get_backend_name() == "sqlite":
            _require_file(_path(location))
        database = cls(_engine(location, read_only=True))
        database._check(location, database.reading, _require_head)
        return database

    def _check(self, location: URL, transaction: Transaction, check: Callable[[Connection, str], None]) -> None:
        try:
            with transaction() as connection:
                check(connection, _shown(location))
        except Unavailable as error:
            self.close()
            raise ConfigurationError(f"{_shown(location)}: {error}.") from error
        except ConfigurationError:
            self.close()
            raise

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    def compile(self, statement: Insert | Update, columns: Sequence[str]) -> str:
        """Return a statement that sets `columns` as text for `Connection.exec_driver_sql` with dicts."""
        return str(statement.compile(dialect=self._engine.dialect, column_keys=list(columns)))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction that sees one state of the database. Raises Unavailable when the store fails."""
        with self._unavailable("read"), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One transaction that sees the same state for as long as it lasts. Raises Unavailable when the store fails."""
        with self._unavailable("read"), self._engine.connect() as connection:
            if self.dialect == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, durable when the block has ended. Raises Unavailable when the store fails."""
        with self._unavailable("written"), self._engine.connect() as connection:
            connection.execution_options(**{IMMEDIATE: True})
            with connection.begin():
                yield connection

    @contextmanager
    def _unavailable(self, done: str) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            driver, cause = _driver(self.dialect), error.orig or error
            failure = Internal if driver.is_refusal(cause) else Unavailable
            raise failure(f"the audit database cannot be {done}: {driver.explain(cause)}") from error
        except NoConnectionLeft as error:
            raise Unavailable(f"the audit database cannot be {done}: every connection to it is in use") from error

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._engine.dispose()


class _Driver(Protocol):
    """The module that knows one kind of database."""

    def explain(self, error: BaseException) -> str: ...

    def is_refusal(self, error: BaseException) -> bool: ...


def _driver(dialect: str) -> _Driver:
    if dialect == "sqlite":
        return sqlite
    from holdfast import postgres

    return postgres


def _parse(url: str) -> URL:
    try:
        location = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(f"database: {_not_supported(url.partition(':')[0])}") from error
    except ValueError as error:
        raise ConfigurationError(f"database: the port is no number; {EXPECTED}") from error
    if location.drivername == "postgresql":
        return location.set(drivername="postgresql+psycopg")
    if location.drivername not in {"sqlite", "sqlite+pysqlite", "postgresql+psycopg"}:
        raise ConfigurationError(f"database: {_not_supported(location.drivername)}")
    if location.get_backend_name() == "sqlite" and location.database in {None, "", ":memory:"}:
        raise ConfigurationError("database: sqlite needs a file; expected sqlite:////absolute/path/audit.db.")
    return location


def _not_supported(scheme: str) -> str:
    # The rest of the URL may hold a password.
    return f"{scheme!r} is not supported; {EXPECTED}"


def _path(location: URL) -> Path:
    return Path(str(location.database))


def _shown(location: URL) -> str:
    """The location as messages tell it: without password, be it among the parameters."""
    if location.get_backend_name() == "sqlite":
        return str(location.database)
    return location.set(drivername="postgresql", query={}).render_as_string()


def sqlite_file(url: str) -> Path | None:
    """The file of the SQLite database at `url`, None for another kind. Raises ConfigurationError."""
    location = _parse(url)
    return _path(location) if location.get_backend_name() == "sqlite" else None


def _require_file(path: Path) -> None:
    if not path.exists():
        raise ConfigurationError(f"{path}: there is no such database; `holdfast serve` makes it.")
    if path.is_file() and not path.stat().st_size:
        raise ConfigurationError(f"{path}: is empty: not a Holdfast database; put a backup back.")


def _engine(location: URL, *, read_only: bool, deadline_seconds: float | None = None) -> Engine:
    if location.get_backend_name() == "sqlite":
        return _sqlite_engine(_path(location), read_only)
    try:
        return _postgres_engine(location, read_only, deadline_seconds)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "database: PostgreSQL needs the psycopg package; install Holdfast as `holdfast[postgres]`."
        ) from error


def _postgres_engine(location: URL, read_only: bool, deadline_seconds: float | None) -> Engine:
    from holdfast import postgres

    def connect(dialect: Dialect, record: Any, arguments: list[Any], parameters: dict[str, Any]) -> Any:
        return postgres.connect(parameters, deadline_seconds=deadline_seconds, is_durable=not read_only)

    def check(connection: Any, record: ConnectionPoolEntry, proxy: Any) -> None:
        is_new = not record.info
        record.info["used"] = True
        if not is_new and postgres.is_disturbed(connection):
            raise DisconnectionError

    patience = {} if deadline_seconds is None else {"pool_timeout": deadline_seconds}
    engine = create_engine(location, hide_parameters=True, **patience)
    event.listen(engine, "do_connect", connect)
    event.listen(engine, "checkout", check)
    return engine.execution_options(postgresql_readonly=True) if read_only else engine


def _sqlite_engine(path: Path, read_only: bool) -> Engine:
    def connect(dialect: Dialect, record: Any, arguments: list[Any], parameters: dict[str, Any]) -> Any:
        return sqlite.connect(path, read_only=read_only)

    engine = create_engine(URL.create("sqlite", database=str(path)), hide_parameters=True, paramstyle="named")
    event.listen(engine, "do_connect", connect)
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(IMMEDIATE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _migrate(connection: Connection, shown: str) -> None:
    """Bring the schema to HEAD, inside the transaction that keeps every other process out meanwhile."""
    if connection.dialect.name == "postgresql":
        _check_server(connection, shown)
        _wait_for_migration(connection, shown)
    if _revision(connection, shown) == HEAD:
        return
    # Loading Alembic takes longer than all the rest of opening a database.
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "holdfast:migrations")
    command.upgrade(config, "head")


def _wait_for_migration(connection: Connection, shown: str) -> None:
    """Keep other migrations out until the transaction ends, if there is one to be done.

    Once there are tables, by a lock that takes the right to write; an advisory one is for anyone who may connect.
    """
    revision = _revision(connection, shown)
    if revision is None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    elif revision != HEAD:
        connection.execute(text(f"LOCK TABLE {VERSION_TABLE} IN SHARE UPDATE EXCLUSIVE MODE"))


def _check_server(connection: Connection, shown: str) -> None:
    encoding = connection.execute(text("SHOW server_encoding")).scalar()
    if encoding != "UTF8":
        raise ConfigurationError(f"{shown}: its encoding is {encoding}, expected UTF8; make one with ENCODING 'UTF8'.")
    if connection.execute(text("SHOW transaction_read_only")).scalar() == "on":
        raise ConfigurationError(f"{shown}: takes no writes (it is read-only, or a replica); name the one that does.")


def _require_head(connection: Connection, shown: str) -> None:
    if _revision(connection, shown) != HEAD:
        raise ConfigurationError(f"{shown}: was made by an older Holdfast; `holdfast serve` brings it up to date.")


def _revision(connection: Connection, shown: str) -> str | None:
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE not in tables:
        if connection.dialect.name == "postgresql":
            _require_no_other_schema(connection, shown)
        if tables:
            raise ConfigurationError(f"{shown}: is another program's database; Holdfast needs one of its own.")
        return None
    revision: Any = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    if revision is not None and revision not in REVISIONS:
        raise ConfigurationError(
            f"{shown}: was made by a newer Holdfast (schema {revision}; this one knows {HEAD}); upgrade Holdfast."
        )
    return None if revision is None else str(revision)


def _require_no_other_schema(connection: Connection, shown: str) -> None:
    """See that no schema but ours has a record, unless the URL chose the schema: or it would go on in two places."""
    from holdfast.postgres import SEARCH_PATH

    query = text(
        "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = :table AND relpersistence = 'p' "
        "AND current_setting('search_path') = :ours"
    )
    schema = connection.execute(query, {"table": VERSION_TABLE, "ours": SEARCH_PATH}).scalar()
    if schema is not None:
        raise ConfigurationError(
            f"{shown}: its record is in the schema {schema}; add ?options=-csearch_path%3D{schema},pg_temp to the URL."
        )
