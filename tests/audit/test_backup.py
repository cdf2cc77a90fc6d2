"""A record that is backed up and put back with the README's own commands: what the gateway and `verify` then say."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from audit.entries import entry, open_test_ledger
from holdfast.audit.anchors.evidence import read_evidence
from holdfast.audit.anchors.file import append_note
from holdfast.audit.erasing import Eraser
from holdfast.audit.head import HeadFile
from holdfast.audit.keys import MAINTENANCE, KeyFolder
from holdfast.audit.logs import describe_gap
from holdfast.audit.maintenance import run_retention
from holdfast.audit.record import timestamp
from holdfast.audit.sequence import Clock
from holdfast.audit.store import LedgerStore
from holdfast.audit.store.dropping import DayDropper
from holdfast.audit.store.export import export_lines
from holdfast.audit.store.retention import RetentionStore
from holdfast.audit.store.signed import SignedLogs
from holdfast.audit.verify import Anchoring, verify_lines
from holdfast.database import Database
from holdfast.errors import ConfigurationError
from holdfast.settings.audit import Retention

if TYPE_CHECKING:
    from holdfast.audit.ledger import Ledger
    from holdfast.audit.verify import Report
    from services.postgres import PostgresServer

README = (Path(__file__).parents[2] / "README.md").read_text()
SQLITE = (
    '(umask 077; sqlite3 state/audit.db ".backup audit-backup.db")',
    "rm -f state/audit.db-wal state/audit.db-shm && cp audit-backup.db state/audit.db",
)
POSTGRES = (
    '(umask 077; pg_dump --format=custom --file=audit.dump "$AUDIT_DATABASE")',
    'pg_restore --exit-on-error --dbname="$NEW_DATABASE" audit.dump',
)


@dataclass(frozen=True)
class Place:
    """The URLs of a database and of what is put back, the commands that do both, and the environment they need."""

    url: str
    restored_url: str
    back_up: str
    put_back: str
    environment: dict[str, str]


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A database to back up."""
    (tmp_path / "state").mkdir()
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'state' / 'audit.db'}"
        return Place(url, url, *SQLITE, {})
    server: PostgresServer = request.getfixturevalue("postgres")
    url, new = server.create_database(), server.create_database()
    path = f"{server.binaries}:{os.environ['PATH']}"
    return Place(url, new, *POSTGRES, {"AUDIT_DATABASE": url, "NEW_DATABASE": new, "PATH": path})


def test_a_restored_backup_is_gone_on_with_once_somebody_says_so(place: Place, tmp_path: Path) -> None:
    def run(command: str) -> None:
        assert f"\n{command}" in README
        subprocess.run(command, shell=True, cwd=tmp_path, env=os.environ | place.environment, check=True, timeout=60)  # noqa: S602  the README's

    anchors, later = tmp_path / "anchors", tmp_path / "later"
    anchors.mkdir()
    later.mkdir()
    with closing(Database.open(place.url)) as database:
        ledger = open_test_ledger(tmp_path, database)
        ledger.write([entry(b"before the backup")])
        run(place.back_up)
        (backup,) = (file for name in ("audit-backup.db", "audit.dump") if (file := tmp_path / name).exists())
        assert backup.stat().st_mode & 0o777 == 0o600
        ledger.write([entry(b"after the backup")])
        anchor(database, ledger, anchors)
        ledger.close()
    run(place.put_back)
    with closing(Database.open(place.restored_url)) as database:
        with pytest.raises(ConfigurationError, match="holdfast audit accept"):
            open_test_ledger(tmp_path, database)
        head_file = HeadFile(tmp_path / "gw.head")
        head_file.write_gap(describe_gap("restored last night's backup", head_file.read()))
        ledger = open_test_ledger(tmp_path, database)
        ledger.write([entry(b"going on")])
        for folder in (anchors, later):
            anchor(database, ledger, folder)
        found = {finding.code.name: finding for finding in verify(database, anchors).findings}
        assert set(found) == {"gap", "truncated"}
        assert (found["gap"].log, found["truncated"].log) == ("holdfast/test/gw/2", "holdfast/test/gw/1")
        assert found["truncated"].what.endswith("; see the gap that holdfast/test/gw/2 begins with")
        assert found["gap"].what == (
            "restored last night's backup (before: holdfast/test/gw/1, 3 records); it goes on from the first 2 records "
            "of holdfast/test/gw/1"
        )
        assert set(verify(database, later).counts) == {"gap"}
        ledger.close("the day is over")
        assert drop_all(database, tmp_path) == {"holdfast/test/gw/1", "holdfast/test/gw/2"}


def test_a_log_that_a_restored_backup_lacks_altogether_is_named_by_the_gap(tmp_path: Path) -> None:
    (anchors := tmp_path / "anchors").mkdir()
    file, backup = tmp_path / "audit.db", tmp_path / "backup.db"
    with closing(Database.open(f"sqlite:///{file}")) as database:
        ledger = open_test_ledger(tmp_path, database)
        ledger.write([entry(b"before the backup")])
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as copy:
            source.backup(copy)
        ledger.close("another key signs from here on")
        ledger = open_test_ledger(tmp_path, database)
        anchor(database, ledger, anchors)
        ledger.close()
    head_file = HeadFile(tmp_path / "gw.head")
    head_file.write_gap(describe_gap("restored", head_file.read()))
    with closing(Database.open(f"sqlite:///{backup}")) as database:
        ledger = open_test_ledger(tmp_path, database)
        anchor(database, ledger, anchors)
        found = {finding.code.name: finding for finding in verify(database, anchors).findings}
        ledger.close()
    assert set(found) == {"gap", "log-missing"}
    assert (found["gap"].log, found["log-missing"].log) == ("holdfast/test/gw/3", "holdfast/test/gw/2")
    assert found["log-missing"].what.endswith("; see the gap that holdfast/test/gw/3 begins with")


def verify(database: Database, anchors: Path) -> Report:
    """The auditor's verdict."""
    root = KeyFolder(anchors.parent / "audit-keys").root_verifier()
    lines = export_lines(database, "test", timestamp(datetime.now(UTC)))
    return verify_lines(lines, root, Anchoring(read_evidence(anchors)))


def drop_all(database: Database, folder: Path) -> set[str]:
    """What retention drops three days later: a log that was cut and never closed holds nothing up."""

    def clock() -> Clock:
        return Clock(timestamp(now), int(now.timestamp() * 1_000_000))

    now = datetime.now(UTC) + timedelta(days=3)
    store = RetentionStore(database)
    dropper = DayDropper(database, SignedLogs(database, KeyFolder(folder / "audit-keys").root_verifier()))
    eraser = Eraser(
        store, dropper, lambda: open_test_ledger(folder, database, role=MAINTENANCE, remembers=False, clock=clock),
        "carol", lambda: now,
    )  # fmt: skip
    outcome = run_retention(store, eraser, Retention(max_age_days=1), [], now, lambda _: None)
    assert outcome.blocked is None
    return store.dropped_origins()


def anchor(database: Database, ledger: Ledger, folder: Path) -> None:
    """Keep the log's latest checkpoint where an auditor finds it."""
    append_note(folder / "file.notes", LedgerStore(database).latest_note(ledger.row))
