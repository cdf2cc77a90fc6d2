"""The database: how it is opened, what it refuses, and that what it acknowledges is on the disk."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

# The stores put their tables into `metadata`.
import holdfast.approval.store
import holdfast.audit.store
import holdfast.identity.store  # noqa: F401
from holdfast.database import Database, metadata
from holdfast.errors import ConfigurationError, Unavailable
from holdfast.migrations import HEAD, REVISIONS, VERSION_TABLE
from holdfast.sqlite import MAPPED_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN_EACH = """
import sys
from alembic import command, config
from holdfast.database import Database
print("ready", flush=True)
for line in sys.stdin:
    Database.open(line.strip()).close()
    print("opened", flush=True)
"""


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "audit.db"


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder of an ordinary user, as that user: root may write everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def set_revision(file: Path, revision: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = ?", (revision,))  # noqa: S608


def test_a_new_database_gets_every_table_the_stores_use_and_no_other(file: Path) -> None:
    database = Database.open(url_of(file))
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == HEAD


def test_the_listed_revisions_are_those_of_the_scripts() -> None:
    config = Config()
    config.set_main_option("script_location", "holdfast:migrations")
    scripts = ScriptDirectory.from_config(config)
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS


def test_file_and_folder_are_for_their_owner_only(file: Path) -> None:
    Database.open(url_of(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}


def test_every_connection_is_durable_and_checks_foreign_keys(file: Path) -> None:
    database = Database.open(url_of(file))
    with database.writing() as first, database.reading() as second:
        for connection in (first, second):
            pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
            assert found == ["wal", 2, 1, 5000]


def test_a_connection_that_does_not_take_a_setting_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As SQLite stays with `delete` on a file system that cannot do WAL; it has no page size of 77 either.
    monkeypatch.setattr("holdfast.sqlite._PRAGMAS", (("page_size", 77),))
    with pytest.raises(ConfigurationError, match="page_size=4096, expected 77: its file system cannot keep"):
        Database.open(url_of(file))


def test_opening_again_keeps_what_is_there(file: Path) -> None:
    with Database.open(url_of(file)).writing() as connection:
        connection.execute(text("INSERT INTO blobs VALUES ('2026-03-01', 'k', 1, 'raw', x'00')"))
    with Database.open(url_of(file), create=False).reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM blobs")).scalar() == 1


def test_opening_waits_for_another_process_that_is_making_the_same_database(file: Path) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        ending = threading.Timer(0.2, other.execute, ["ROLLBACK"])
        ending.start()
        Database.open(url_of(file)).close()
        ending.join()


def test_many_processes_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN_EACH]
    others = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    streams = [(other.stdin, other.stdout) for other in others if other.stdin and other.stdout]
    assert [output.readline() for _, output in streams] == ["ready\n"] * 4
    for number in range(5):
        for commands, _ in streams:
            commands.write(f"{url_of(tmp_path / str(number) / 'audit.db')}\n")
            commands.flush()
        assert [output.readline() for _, output in streams] == ["opened\n"] * 4
    assert [other.communicate() and other.returncode for other in others] == [0] * 4


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://root:hunter2@db/audit", "'mysql' is not supported; expected sqlite:///PATH or postgresql:"),
        ("postgresql:root:hunter2@db/audit", "'postgresql' is not supported"),
        ("postgresql://root:hunter2@db:port/audit", "the port is no number; expected sqlite:///PATH or postgresql://"),
        ("audit.db", "'audit.db' is not supported"),
        ("sqlite://", "sqlite needs a file"),
        ("sqlite:///:memory:", "sqlite needs a file"),
        ("postgresql+asyncpg://u:hunter2@db/audit", "'postgresql.asyncpg' is not supported"),
        ("sqlite:////proc/nowhere/audit.db", "/proc/nowhere/audit.db: cannot be made: "),
        ("sqlite:////tmp", "/tmp: cannot be made: File exists"),  # noqa: S108
    ],
)
def test_a_url_that_cannot_work_is_refused_in_one_sentence(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refusal:
        Database.open(url)
    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_postgres_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"install Holdfast as `holdfast\[postgres\]`"):
        Database.open("postgresql://holdfast:hunter2@127.0.0.1:1/audit")


def test_a_file_that_is_no_database_is_refused(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("kind: ConfigMap\n" * 100)
    with pytest.raises(ConfigurationError, match="cannot be used: the file is not a SQLite database"):
        Database.open(url_of(file))
    assert file.read_text().startswith("kind: ConfigMap")


def test_another_programs_database_is_left_alone(file: Path) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE cookies (value)")
    for open_it in (Database.open, Database.open_readonly):
        with pytest.raises(ConfigurationError, match="is another program's database"):
            open_it(url_of(file))


def test_a_newer_database_is_refused_and_untouched(file: Path) -> None:
    Database.open(url_of(file)).close()
    set_revision(file, "9999")
    for open_it in (Database.open, Database.open_readonly):
        with pytest.raises(ConfigurationError, match=f"newer Holdfast .schema 9999; this one knows {HEAD}"):
            open_it(url_of(file))


def test_a_missing_database_is_only_made_on_request(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such database"):
        Database.open(url_of(file), create=False)
    with pytest.raises(ConfigurationError, match="there is no such database"):
        Database.open_readonly(url_of(file))
    assert not file.parent.exists()


def test_an_empty_file_is_no_database_but_for_who_makes_one(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.touch()
    for open_it in (partial(Database.open, create=False), Database.open_readonly):
        with pytest.raises(ConfigurationError, match="is empty: not a Holdfast database; put a backup back"):
            open_it(url_of(file))
    assert file.stat().st_size == 0
    Database.open(url_of(file)).close()
    Database.open_readonly(url_of(file)).close()


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with as_nobody() as folder:
        folder.chmod(0o500)
        with pytest.raises(ConfigurationError, match="cannot be made: Permission denied"):
            Database.open(url_of(folder / "audit.db"))
        folder.chmod(0o700)


def test_a_file_that_cannot_be_written_is_named() -> None:
    with as_nobody() as folder:
        file = folder / "audit.db"
        Database.open(url_of(file)).close()
        file.chmod(0o400)
        with pytest.raises(ConfigurationError, match=r"audit.db: cannot be written; its owner"):
            Database.open(url_of(file))
        file.chmod(0o600)


def test_a_read_only_database_reads_and_never_writes(file: Path) -> None:
    Database.open(url_of(file)).close()
    database = Database.open_readonly(url_of(file))
    with database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM records")).scalar() == 0
    with pytest.raises(Unavailable, match="cannot be written: the file cannot be written"), database.writing():
        pass


def test_only_a_file_that_is_only_read_is_read_in_place(file: Path) -> None:
    mapped = text("PRAGMA mmap_size")
    writer = Database.open(url_of(file))
    with writer.writing() as writing, writer.reading() as reading:
        assert [connection.execute(mapped).scalar() for connection in (writing, reading)] == [0, 0]
    with Database.open_readonly(url_of(file)).reading() as connection:
        assert connection.execute(mapped).scalar() == MAPPED_BYTES


def test_reading_sees_one_state_while_others_write(file: Path) -> None:
    database = Database.open(url_of(file))
    with database.reading() as reader:
        count = text("SELECT count(*) FROM blobs")
        before = reader.execute(count).scalar()
        with database.writing() as writer:
            writer.execute(text("INSERT INTO blobs VALUES ('2026-03-01', 'k', 1, 'raw', x'00')"))
        assert reader.execute(count).scalar() == before


def test_a_failed_block_leaves_nothing_behind(file: Path) -> None:
    database = Database.open(url_of(file))

    def write_and_fail() -> None:
        with database.writing() as connection:
            connection.execute(text("INSERT INTO blobs VALUES ('2026-03-01', 'k', 1, 'raw', x'00')"))
            raise KeyError

    with pytest.raises(KeyError):
        write_and_fail()
    with database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM blobs")).scalar() == 0


def test_no_disk_space_at_start_is_one_sentence(file: Path) -> None:
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from holdfast.database import Database; from holdfast.errors import ConfigurationError\n"
        "try: Database.open(sys.argv[1])\n"
        "except ConfigurationError as error: print(error)"
    )
    command = [sys.executable, "-c", limited, url_of(file)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"{file}: the audit database cannot be written: the disk is full.\n"
