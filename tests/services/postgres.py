"""A PostgreSQL server of the tests' own: made in a temporary folder, on loopback, durable as the product demands.

The binaries are those on PATH or where Debian puts them. PostgreSQL refuses to run as root, so root runs it as another
user.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "holdfast"
START_SECONDS = 60
OTHER_USERS = ("postgres", "nobody")


class PostgresMissing(Exception):
    """There are no binaries on this machine."""


def find_binaries() -> Path:
    """The folder of initdb, postgres and pg_ctl. Raises PostgresMissing."""
    on_path = shutil.which("pg_config")
    candidates = [Path(done.stdout.strip())] if on_path and (done := _run(on_path, "--bindir")).returncode == 0 else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in candidates:
        if (folder / "initdb").is_file() and (folder / "pg_ctl").is_file():
            return folder
    raise PostgresMissing("there is no PostgreSQL server on this machine; install it (apt-get install postgresql)")


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@dataclass
class PostgresServer:
    """One server with its data in `folder`."""

    folder: Path
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    port: int = 0

    def __post_init__(self) -> None:
        self.binaries = find_binaries()
        self.data = self.folder / "data"
        self.account = next(_other_users(), None) if os.geteuid() == 0 else None

    def start(self) -> PostgresServer:
        """Make the data where there is none, and start; returns when it takes connections."""
        if not self.data.exists():
            self._initialize()
        self.port = self.port or _free_port()
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        done = self._as_owner(
            self.binaries / "pg_ctl", "start", "-w", "-t", str(START_SECONDS), "-D", self.data,
            "-l", self.folder / "log", "-o", options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + self.log()
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop as pg_ctl does: `smart`, `fast` or `immediate`; it may be stopped already."""
        self._as_owner(self.binaries / "pg_ctl", "stop", "-w", "-m", mode, "-D", self.data)

    def kill(self) -> None:
        """Kill all its processes as a crash would."""
        pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        children = _run("ps", "-o", "pid=", "--ppid", str(pid)).stdout.split()
        for process in (pid, *map(int, children)):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _wait_until_gone(pid)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def log(self) -> str:
        """What it said."""
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def url(self, database: str = "postgres", user: str = USER, password: str | None = None) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql://{user}:{self.password if password is None else password}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def execute(self, statement: str | sql.Composed, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as its superuser, outside a transaction."""
        with closing(psycopg.connect(self.url(database), autocommit=True)) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type]  # the tests' own statements
            return cursor.fetchall() if cursor.description else []

    def start_replica(self, folder: Path) -> PostgresServer:
        """Start a server that follows this one and takes reads."""
        replica = PostgresServer(folder, self.password)
        self._give(folder)
        done = self._as_owner(
            self.binaries / "pg_basebackup", "-R", "-X", "stream", "-c", "fast", "-D", replica.data,
            "-h", "127.0.0.1", "-p", str(self.port), "-U", USER,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return replica.start()

    def _initialize(self) -> None:
        self._give(self.folder)
        password = self.folder / "password"
        password.write_text(self.password)
        password.chmod(0o644)
        done = self._as_owner(
            self.binaries / "initdb", "-D", self.data, "-U", USER, "--auth=scram-sha-256", f"--pwfile={password}",
            "--encoding=UTF8", "--locale=C",
        )  # fmt: skip
        password.unlink()
        assert done.returncode == 0, done.stderr

    def _give(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self.account is None:
            return
        os.chown(folder, self.account.pw_uid, self.account.pw_gid)
        for parent in folder.parents:  # pytest keeps its folders from others
            if parent.stat().st_uid == os.geteuid() and parent != parent.parent:
                parent.chmod(parent.stat().st_mode | 0o011)

    def _as_owner(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        account = self.account
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env=os.environ | {"PGPASSWORD": self.password},
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )


def _other_users() -> Iterator[pwd.struct_passwd]:
    for name in OTHER_USERS:
        try:
            yield pwd.getpwnam(name)
        except KeyError:
            continue


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.05)
