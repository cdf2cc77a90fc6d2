"""What somebody did who may write everything in the database, and what an earlier verifier did not see.

Each is carried out on a record that was intact, and ends in exactly what is to be found.
"""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from audit.dropping import Aged
from audit.tampering import Site, codes, places
from holdfast.audit.export import TABLES, encode_line
from holdfast.audit.keys import CONSOLE, MAINTENANCE
from holdfast.audit.payload import zstd
from holdfast.audit.record import Entry, Kind, Record, Redaction, Seen, decode, timestamp
from holdfast.audit.store import LedgerStore
from holdfast.audit.store.export import export_lines
from holdfast.audit.verify import Class, examined_lines
from holdfast.database import Database
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.audit.logs import LogRow
    from holdfast.audit.verify import Report


@pytest.fixture
def aged(tmp_path: Path, database: Database) -> Aged:
    """A call of 20 days ago, and one of today."""
    aged = Aged(tmp_path, database)
    aged.write(aged.call())
    aged.days_ago = 0
    aged.write(aged.call())
    return aged


def log_of(site: Aged, name: str) -> LogRow:
    """The log of this replica and epoch."""
    row = LedgerStore(site.database).find_log(f"holdfast/test/{name}")
    assert row is not None
    return row


def end_of(log: LogRow) -> str:
    """The last moment of a log's day."""
    return f"{log.day}T23:59:59.999999Z"


# -- what was dropped --------------------------------------------------------------------------------------------


@pytest.fixture
def dropped(aged: Aged) -> Aged:
    """The log of 20 days ago was dropped."""
    log = log_of(aged, "gw/1")
    aged.record_drop(log)
    aged.remove(log)
    aged.anchor()
    return aged


def test_a_log_that_was_dropped_is_told_and_is_no_alteration(dropped: Aged) -> None:
    report = dropped.verify()
    assert (codes(report), report.verdict()) == ({"log-dropped"}, Class.REDACTED)


def move(site: Aged, log: LogRow, day: str) -> None:
    """Give a log another day, with all that is kept of it."""
    for table in ("records", "checkpoints", "bodies", "blobs"):
        site.execute(f"UPDATE {table} SET day = :day WHERE day = :old", day=day, old=log.day)  # noqa: S608  ours
    site.execute("UPDATE logs SET day = :day WHERE id = :log", day=day, log=log.id)


def test_the_day_of_a_dropped_log_changed_to_hide_the_calls_of_another_day(dropped: Aged) -> None:
    today = log_of(dropped, "gw/2").day
    move(dropped, log_of(dropped, "gw/1"), today)
    assert codes(dropped.verify()) == {"log-dropped", "log-altered"}
    assert dropped.execute("DELETE FROM calls WHERE day = :day", day=today)
    report = dropped.verify()
    assert codes(report) == {"log-dropped", "log-altered", "call-missing"}
    assert "it is said to be of" in next(each.what for each in report.findings if each.code.name == "log-altered")


def test_a_log_marked_as_dropped_hides_no_calls_of_its_day(aged: Aged) -> None:
    log = log_of(aged, "gw/1")
    aged.write(late := aged.call(end_of(log)))
    aged.remove(log)
    aged.anchor()
    report = aged.verify()
    assert codes(report) == {"log-dropped", "dropped-unrecorded", "call-missing"}
    assert late.call in next(each.what for each in report.findings if each.code.name == "call-missing")


def test_a_call_of_a_day_that_was_dropped_need_not_be_listed(aged: Aged) -> None:
    log = log_of(aged, "gw/1")
    aged.write(aged.call(end_of(log)))
    aged.record_drop(log)
    aged.remove(log)
    aged.anchor()
    assert codes(aged.verify()) == {"log-dropped"}


def test_a_drop_stays_on_record_when_the_log_that_recorded_it_is_dropped_too(
    tmp_path: Path, database: Database
) -> None:
    site = Aged(tmp_path, database)
    site.write(site.call())
    site.days_ago = 15
    site.write(site.call())
    first = log_of(site, "gw/1")
    site.record_drop(first)
    until = decode(site.leaves(first)[-1]).time
    site.remove(first)
    site.days_ago = 0
    site.write(site.call())
    site.write(site.call(end_of(first)))
    again = Redaction(
        log=Seen(log=first.origin, size=first.size, root=first.root),
        reason="older than 10 days",
        day=first.day,
        until=until,
    )
    site.write(Record(kind=Kind.REDACT, at=timestamp(site.now()), redact=again), MAINTENANCE)
    for name in ("gw/2", "gw.maintenance/1"):
        log = log_of(site, name)
        site.record_drop(log)
        site.remove(log)
    site.anchor()
    assert codes(site.verify()) == {"log-dropped"}


@pytest.mark.parametrize("hours", [0, 24])
def test_a_log_dropped_before_its_day_was_over(aged: Aged, hours: int) -> None:
    """What dropped it believed the row, which somebody had given an old day; its record tells the truth of one."""
    log = log_of(aged, "gw/2")
    day = timestamp(aged.now() + timedelta(hours=hours))[:10]
    aged.record_drop(log, day=day)
    aged.remove(log)
    aged.anchor()
    assert codes(aged.verify()) >= {"log-dropped", "dropped-early"}


def test_a_log_dropped_before_it_was_over(aged: Aged) -> None:
    log = log_of(aged, "gw/2")
    old = log_of(aged, "gw/1").day
    move(aged, log, old)
    log = log_of(aged, "gw/2")
    aged.record_drop(log, day=old, until=timestamp(aged.now() + timedelta(seconds=30)))
    aged.remove(log)
    aged.anchor()
    report = aged.verify()
    assert codes(report) >= {"log-dropped", "dropped-early"}
    assert report.verdict() is Class.ALTERED


def test_the_time_at_which_a_dropped_log_was_closed(dropped: Aged) -> None:
    log = log_of(dropped, "gw/1")
    assert dropped.execute("UPDATE logs SET closed_at = opened_at WHERE id = :log", log=log.id)
    assert codes(dropped.verify()) == {"log-dropped", "log-altered"}


@pytest.mark.parametrize("role", ["", CONSOLE])
def test_a_drop_that_a_gateway_or_a_console_records_is_believed_by_nobody(aged: Aged, role: str) -> None:
    log = log_of(aged, "gw/1")
    aged.record_drop(log, role=role)
    aged.remove(log)
    aged.anchor()
    assert codes(aged.verify()) == {"leaf-place", "log-dropped", "dropped-unrecorded"}


def test_an_erasure_that_a_gateway_records_excuses_nothing(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    redact = Redaction(
        log=Seen(log=log.origin, size=log.size, root=log.root), reason="a person asked", payloads=(f"{seq}/response",)
    )
    site.ledgers["other"].write([Entry(Record(kind=Kind.REDACT, at="2026-03-01T12:00:00.000000Z", redact=redact))])
    site.execute("DELETE FROM bodies WHERE log = :log AND seq = :seq", log=log.id, seq=seq)
    site.execute("DELETE FROM blobs WHERE NOT EXISTS (SELECT 1 FROM bodies WHERE bodies.sha256 = blobs.sha256)")
    site.anchor()
    report = site.verify()
    assert codes(report) == {"leaf-place", "payload-missing"}
    assert places(report, "payload-missing") == [seq]


def test_an_erasure_that_is_recorded_and_was_never_done(aged: Aged) -> None:
    log = log_of(aged, "gw/1")
    (seq,) = (seq for seq, leaf in enumerate(aged.leaves(log)) if decode(leaf).record.kind is Kind.OUTCOME)
    whole = Seen(log=log.origin, size=log.size, root=log.root)
    redact = Redaction(log=whole, reason="a person asked", payloads=(f"{seq}/response", "no place"))
    aged.write(Record(kind=Kind.REDACT, at=timestamp(aged.now()), redact=redact), MAINTENANCE)
    aged.anchor()
    report = aged.verify()
    assert (codes(report), report.verdict()) == ({"erasure-unfinished"}, Class.INCOMPLETE)
    assert places(report, "erasure-unfinished") == [seq, None]
    by = f"by nobody who is named at {timestamp(aged.now())[:10]}T"
    for told, place in zip(report.findings, redact.payloads, strict=True):
        assert told.what.startswith(f"the body {place}, {by}")
        assert told.what.endswith("Z: a person asked")


def test_a_reason_without_end(aged: Aged) -> None:
    log = log_of(aged, "gw/1")
    whole = Seen(log=log.origin, size=log.size, root=log.root)
    redact = Redaction(
        log=whole, reason="a" * 100_000, requested_by="b" * 10, payloads=tuple(f"{seq}/request" for seq in range(500))
    )
    aged.write(Record(kind=Kind.REDACT, at=timestamp(aged.now()), redact=redact), MAINTENANCE)
    aged.anchor()
    report = aged.verify()
    assert report.counts == {"erasure-unfinished": 500}
    assert all(f", by {redact.requested_by} at 2" in finding.what for finding in report.findings)
    assert max(len(finding.what) for finding in report.findings) < 1100


def test_a_drop_that_another_cluster_s_command_records(aged: Aged) -> None:
    log = log_of(aged, "gw/1")
    elsewhere = Seen(log=log.origin.replace("/test/", "/else/"), size=log.size, root=log.root)
    told = Redaction(log=elsewhere, reason="older than 10 days", day=log.day)
    aged.write(Record(kind=Kind.REDACT, at=timestamp(aged.now()), redact=told), MAINTENANCE)
    aged.anchor()
    assert codes(aged.verify()) == {"leaf-place"}


# -- values that no gateway writes -------------------------------------------------------------------------------


def test_a_log_opened_in_a_year_that_is_none(site: Site) -> None:
    site.execute("UPDATE logs SET opened_at = '0001-01-01T00:00:00+23:59' WHERE id = :log", log=site.log.id)
    assert codes(site.verify()) == {"log-altered"}


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00.000000+23:59", "never", "2026-01-01"])
@pytest.mark.parametrize("is_last", [False, True])
def test_a_leaf_of_a_time_that_is_none(site: Site, time: str, is_last: bool) -> None:
    """Be it the last one, of which it is asked how old the end of the record is."""
    site.record_call(site.ledgers["gw"], b"not anchored")
    seq = site.log.size - 1 if is_last else 5
    leaf = site.leaves(site.log)[seq]
    site.put_leaf(site.log, seq, leaf.replace(decode(leaf).time.encode(), time.encode(), 1))
    changed = decode(site.leaves(site.log)[seq])
    assert changed.time == time
    report = site.verify()
    assert codes(report) >= {"leaf-spelling", "leaf-altered", "tail-unanchored"}
    assert places(report, "leaf-spelling") == [seq]


@pytest.mark.parametrize("epoch", ["1" * 5000, "0", "01", "-1", "\u0661", ""])  # the last but one is a digit
def test_a_log_that_goes_on_from_one_whose_epoch_is_none(site: Site, epoch: str) -> None:
    leaf = decode(site.leaves(site.log)[0])
    assert leaf.record.start is not None
    start = msgspec.structs.replace(leaf.record.start, previous_log=f"holdfast/test/gw/{epoch}")
    site.edit(site.log, 0, lambda told: msgspec.structs.replace(told, start=start))
    report = site.verify()
    assert "chain-broken" in codes(report)
    assert any("which is none of the logs before it" in each.what for each in report.findings)


# -- the schema --------------------------------------------------------------------------------------------------

NOW = "2026-01-01T00:00:00.000000Z"
ENDLESS = (
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT 'a' AS {}, 'b' AS {}, 'c' AS {} FROM t"
)


def replaced(report: Report) -> set[str]:
    """What is told to stand in the place of which table."""
    return {each.what for each in report.findings if each.code.name == "table-replaced"}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_gone(site: Site, table: str) -> None:
    site.execute(f"DROP TABLE {table}")
    assert replaced(site.verify()) == {f"{table}: found missing, expected a table of its own"}


def test_a_view_that_never_ends_in_the_place_of_a_table(site: Site) -> None:
    site.execute("DROP TABLE caller_claims")
    site.execute(f"CREATE VIEW caller_claims AS {ENDLESS.format('name', 'value', 'caller')}")
    report = site.verify()
    assert codes(report) == {"table-replaced"}
    assert replaced(report) == {"caller_claims: found view, expected a table of its own"}


def test_a_table_that_lacks_a_column(site: Site) -> None:
    site.execute("ALTER TABLE caller_claims RENAME COLUMN value TO other")
    assert replaced(site.verify()) == {"caller_claims: found table without value, expected a table of its own"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_virtual_table_in_the_place_of_a_table(site: Site) -> None:
    site.execute("DROP TABLE caller_claims")
    site.execute("CREATE VIRTUAL TABLE caller_claims USING fts5 (name, value, caller)")
    assert "caller_claims: found virtual table, expected a table of its own" in replaced(site.verify())


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_trigger_on_a_view_does_not_make_it_a_table(site: Site) -> None:
    site.execute("DROP TABLE caller_claims")
    site.execute(f"CREATE VIEW caller_claims AS {ENDLESS.format('name', 'value', 'caller')}")
    site.execute("CREATE TRIGGER quiet INSTEAD OF INSERT ON caller_claims BEGIN SELECT 1; END")
    assert replaced(site.verify()) == {"caller_claims: found view, expected a table of its own"}


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_materialized_view_in_the_place_of_a_table(site: Site) -> None:
    site.execute("ALTER TABLE caller_claims RENAME TO hidden")
    site.execute("CREATE MATERIALIZED VIEW caller_claims AS SELECT * FROM hidden")
    assert "caller_claims: found materialized view, expected a table of its own" in replaced(site.verify())


# -- exports that are large for what is in them ------------------------------------------------------------------


def test_a_leaf_of_hundreds_of_megabytes_is_told_alike_by_database_and_file(site: Site) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    site.put_leaf(site.log, seq, bytes(210_000_000))
    report = site.verify()
    assert codes(report) >= {"leaf-spelling", "leaf-altered"}
    assert "longer than" in next(each.what for each in report.findings if each.code.name == "leaf-spelling")


@pytest.mark.parametrize("space", [b"\n", b" \n", b"\t\r\n"])
def test_an_export_with_empty_lines(site: Site, space: bytes) -> None:
    lines = [encode_line(line) + b"\n" for line in export_lines(site.database, "test", NOW)]
    for place in (0, 1, len(lines)):
        file = io.BytesIO(zstd.compress(b"".join([*lines[:place], space, *lines[place:]])))
        with pytest.raises(ConfigurationError, match="lines that are empty"):
            list(examined_lines(file, site.root))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_index_that_has_other_rows_than_its_table(site: Site, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "audit.db", isolation_level=None)) as file:
        index = file.execute("SELECT * FROM sqlite_master WHERE name = 'calls_by_time'").fetchone()
        before = file.execute("SELECT audit_id, resource FROM calls").fetchall()
        file.execute("UPDATE calls SET resource = 'hidden'")
        file.execute("PRAGMA writable_schema=ON")
        file.execute("DELETE FROM sqlite_master WHERE name = 'calls_by_time'")
        file.execute("PRAGMA writable_schema=RESET")
        file.executemany("UPDATE calls SET resource = ?2 WHERE audit_id = ?1", before)
        file.execute("PRAGMA writable_schema=ON")
        file.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", index)
        file.execute("PRAGMA writable_schema=RESET")
    site.database.close()
    site.database = Database.open(f"sqlite:///{tmp_path / 'audit.db'}")
    report = site.verify()
    assert codes(report) == {"table-replaced"}
    assert replaced(report) == {"calls: found table whose indexes say otherwise, expected a table of its own"}
