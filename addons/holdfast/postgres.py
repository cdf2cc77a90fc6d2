"""PostgreSQL connections for a record: durable, given up in time, and explained when they fail.

A commit waits for the disk (`synchronous_commit`), and a server that runs without `fsync` or `full_page_writes` is
refused: it loses what it acknowledged and still looks intact
(https://www.postgresql.org/docs/current/wal-reliability.html).

Three things end a wait. The server's own limits do while it can keep them; the kernel's (keepalives,
`tcp_user_timeout`) when its machine is gone; ours when it stands still, or hangs in COMMIT, which no limit of the
server covers (https://www.postgresql.org/docs/current/runtime-config-client.html).

Only loaded for a PostgreSQL database: psycopg is an optional dependency.
"""

from __future__ import annotations

import select
from time import monotonic
from typing import TYPE_CHECKING, Any

import psycopg

from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from psycopg.abc import RV, PQGen

CONNECT_SECONDS = 3
GRACE_SECONDS = 1.0
"""How much longer we wait than the server may take, so that it can say itself why it did not."""

SEARCH_PATH = "public,pg_temp"
"""Where tables are looked for unless the URL's `options` say so: in one schema, and temporary ones last.

As a parameter of the connection it goes before what was set for the role or the database, whose `search_path` could
show other tables of the same names (https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATTERNS).
"""

_LASTING: dict[str, Any] = {
    "application_name": "holdfast",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}
_LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
_DURABLE = {"on", "remote_apply"}
_STATES = {
    "08": "the connection to the server was lost",
    "25006": "the server takes no writes (it is read-only, or a replica)",
    "25P03": "the server ended a transaction that stood still",
    "28": "the server does not let this role in",
    "28P01": "the server does not accept the password",
    "3D000": "the server has no such database",
    "3F000": "the database has no such schema",
    "40": "other transactions were in the way",
    "42501": "the role may not do that",
    "42P01": "a table is missing",
    "53": "the server lacks memory or connections",
    "53100": "the server's disk is full",
    "53200": "the server is out of memory",
    "53300": "the server has too many connections",
    "55P03": "another session keeps it locked",
    "57014": "the server did not answer in time",
    "57P": "the server is shutting down",
    "57P03": "the server is starting, or shutting down",
    "58": "the server's disk reports an error",
    "XX001": "the server's files are damaged",
    "XX002": "the server's files are damaged",
}
"""SQLSTATE codes and their classes (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""

_SAID = {
    "Connection refused": "the server takes no connections",
    "timeout expired": "the server did not answer in time",
    "timed out": "the server did not answer in time",
    "resolve host": "the server's name cannot be resolved",
    "translate host name": "the server's name cannot be resolved",
    "password": "the server does not accept the password",
    "pg_hba.conf": "the server does not let this role in from here",
    "database system is": "the server is starting, or shutting down",
    "connection slots": "the server has too many connections",
    "too many": "the server has too many connections",
    "SSL": "the connection cannot be encrypted as sslmode asks for",
    "certificate": "the connection cannot be encrypted as sslmode asks for",
    "does not exist": "the server has no such role or database; make them first (createuser, createdb)",
    "connection to server at": "the server cannot be reached",
    "connection": "the connection to the server was lost",
}
"""What libpq says where it passes on no SQLSTATE, the first that fits; it names host, port and user, we do not."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server has not answered within `patience_seconds`."""

    patience_seconds: float | None = None

    def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        """As its parent does, but not for ever."""
        if self.patience_seconds is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(_until(monotonic() + self.patience_seconds, gen), *args, **kwargs)
        except TimeoutError as error:
            self.pgconn.finish()  # what the server makes of the statement is unknown from here on
            raise psycopg.OperationalError("timeout expired") from error


def _until(end: float, waiting: PQGen[RV]) -> Generator[Any, Any, RV]:
    """Wait as psycopg does, which looks up several times a second, but only until `end`. Raises TimeoutError."""
    try:
        ready = yield next(waiting)
        while monotonic() < end:
            ready = yield waiting.send(ready)
    except StopIteration as done:
        value: RV = done.value
        return value
    raise TimeoutError


def connect(parameters: Mapping[str, Any], *, deadline_seconds: float | None, is_durable: bool) -> BoundedConnection:
    """Connect as libpq's `parameters` say; what they leave open is chosen here.

    With a deadline every statement fails that takes longer; without one none does, whatever the server's limits.
    Raises ConfigurationError when the connection is to be durable and the server is not.
    """
    limit = 0 if deadline_seconds is None else max(1, int(deadline_seconds * 1000))
    limits = " ".join(f"-c {name}={limit}" for name in _LIMITS)
    # The last of several wins: the URL may choose the schema, not the limits.
    options = f"-c search_path={SEARCH_PATH} {parameters.get('options', '')} {limits}"
    lasting = _LASTING | ({"tcp_user_timeout": limit} if limit else {})
    connection = BoundedConnection.connect(**(lasting | dict(parameters) | {"options": options}))
    if deadline_seconds is not None:
        connection.patience_seconds = deadline_seconds + GRACE_SECONDS
    try:
        if is_durable:
            _make_durable(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_durable(connection: BoundedConnection) -> None:
    names = ("synchronous_commit", "fsync", "full_page_writes")
    query = ", ".join(f"current_setting('{name}')" for name in names)
    found = dict(zip(names, connection.execute(f"SELECT {query}").fetchone() or (), strict=True))
    for name in names[1:]:
        if found[name] != "on":
            raise ConfigurationError(
                f"the audit database runs with {name}={found[name]}, expected on: it would lose what is acknowledged; "
                f"set {name} = on in postgresql.conf."
            )
    if found["synchronous_commit"] not in _DURABLE:
        connection.execute("SET synchronous_commit = on")
    connection.commit()


def is_disturbed(connection: BoundedConnection) -> bool:
    """Whether anything came in while nobody asked: the end of the connection, mostly. This costs no round trip."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


def explain(error: BaseException) -> str:
    """Say in a few words, without a full stop, host or user, why the server or libpq failed."""
    state = getattr(error, "sqlstate", None) or ""
    for length in (5, 3, 2):
        if state[:length] in _STATES:
            return _STATES[state[:length]]
    text = str(error)
    if isinstance(error, psycopg.OperationalError) and not state:
        return next((told for said, told in _SAID.items() if said in text), "the server cannot be reached")
    return text.strip().partition("\n")[0].rstrip(".")


def is_refusal(error: BaseException) -> bool:
    """Whether the server is well, and what it was to write can never be written."""
    return isinstance(error, psycopg.DataError | psycopg.errors.ProgramLimitExceeded)
