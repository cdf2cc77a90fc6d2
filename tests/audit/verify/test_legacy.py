"""Logs that nobody signed: pinned by the first signed log, and never believed in anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from audit.dropping import Aged
from audit.entries import open_test_ledger, record
from audit.tampering import Site, codes, places
from audit.verify.legacy import add_legacy_log, payload, spell
from holdfast.audit.anchors.file import append_note
from holdfast.audit.keys import MAINTENANCE
from holdfast.audit.record import Kind, Record, Redaction, Seen, decode, timestamp
from holdfast.audit.store import LedgerStore
from holdfast.audit.store.export import export_lines
from holdfast.audit.verify import Anchoring, Class, verify_lines

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.audit.logs import LogRow
    from holdfast.database import Database

DAY = "2026-03-01"


def told_calls() -> list[Record]:
    """Two calls, the second with a body."""
    return [record(), record(after=1, response_body=payload())]


@pytest.fixture
def migrated(tmp_path: Path, database: Database) -> Site:
    """A record that began before logs were signed."""
    add_legacy_log(database, DAY, told_calls(), 1)
    return Site(tmp_path, database)


def test_the_first_signed_log_pins_what_was_there(migrated: Site) -> None:
    report = migrated.verify()
    assert (codes(report), report.verdict()) == (set(), Class.INTACT)
    assert {log.origin: log.anchored_size for log in report.logs}[f"legacy/{DAY}"] == 2


def test_an_edited_record_of_a_pinned_log(migrated: Site) -> None:
    (first, _) = told_calls()
    leaves = [spell(first), migrated.leaves(migrated.named("legacy"))[1]]
    migrated.put_leaf(migrated.named("legacy"), 0, leaves[0])
    migrated.describe(migrated.named("legacy"), leaves)
    assert {"forked"} <= codes(migrated.verify())


def test_records_cut_off_a_pinned_log(migrated: Site) -> None:
    log = migrated.named("legacy")
    for table in ("records", "bodies", "calls"):
        migrated.execute(f"DELETE FROM {table} WHERE log = :log AND seq = 1", log=log.id)  # noqa: S608
    migrated.describe(log, migrated.leaves(log))
    assert "truncated" in codes(migrated.verify())


@pytest.mark.parametrize("change", ["replica = 'gw'", "certificate = 'x'", "opened_at = day", "closed_at = NULL"])
def test_an_edited_column_of_an_unsigned_log(migrated: Site, change: str) -> None:
    assert migrated.execute(f"UPDATE logs SET {change} WHERE replica = 'legacy'") == 1  # noqa: S608
    assert codes(migrated.verify()) == {"log-altered"}


def test_a_log_made_up_later_is_not_pinned_by_those_who_saw_it_then(site: Site) -> None:
    add_legacy_log(site.database, "2026-02-01", told_calls(), 9)
    site.ledgers["gw"].beat()
    site.ledgers["other"].beat()
    open_test_ledger(site.folder, site.database, replica="third")
    site.anchor()
    report = site.verify()
    assert (codes(report), report.verdict()) == ({"legacy-foreign"}, Class.ALTERED)


def test_records_added_to_a_pinned_log(migrated: Site) -> None:
    log = migrated.named("legacy")
    known = [decode(leaf).record for leaf in migrated.leaves(log)]
    for table in ("records", "bodies", "calls"):
        migrated.execute(f"DELETE FROM {table} WHERE log = :log", log=log.id)  # noqa: S608  ours
    migrated.execute("DELETE FROM logs WHERE id = :log", log=log.id)
    add_legacy_log(migrated.database, DAY, [*known, record(after=2)], log.id)
    report = migrated.verify()
    assert codes(report) == {"legacy-foreign"}
    assert places(report, "legacy-foreign") == [2]


def test_a_record_that_no_signed_log_was_begun_in(tmp_path: Path, database: Database) -> None:
    add_legacy_log(database, DAY, told_calls(), 1)
    root = Aged(tmp_path, database).root
    report = verify_lines(export_lines(database, "test", f"{DAY}T00:00:00.000000Z"), root, Anchoring())
    assert (codes(report), report.verdict()) == ({"unsigned-legacy"}, Class.UNANCHORED)


@pytest.fixture
def aged(tmp_path: Path, database: Database) -> Aged:
    """Begun 20 days ago with a record from before, which was dropped 10 days later with the first signed log."""
    aged = Aged(tmp_path, database)
    day = timestamp(aged.now())[:10]
    add_legacy_log(database, day, [record(after=0, at=f"{day}T00:00:00.000000Z")], 1)
    aged.write(aged.call())
    aged.days_ago = 10
    aged.write(aged.call())
    aged.anchor()
    return aged


def drop_first_day(site: Aged) -> None:
    """Drop the log from before logs were signed and the first signed one."""
    first = find(site, "holdfast/test/gw/1")
    for log in (find(site, f"legacy/{first.day}"), first):
        drop(site, log)
    site.anchor()


def drop(site: Aged, log: LogRow) -> None:
    site.record_drop(log)
    site.remove(log)


def find(site: Aged, origin: str) -> LogRow:
    row = LedgerStore(site.database).find_log(origin)
    assert row is not None
    return row


def test_a_log_that_was_dropped_needs_no_first_signed_log(aged: Aged) -> None:
    assert codes(aged.verify()) == set()
    drop_first_day(aged)
    assert codes(aged.verify()) == {"log-dropped"}
    aged.days_ago = 0
    aged.write(aged.call())
    told = [decode(leaf).record for leaf in aged.leaves(find(aged, "holdfast/test/gw.maintenance/1"))]
    for again in told:
        if again.redact is not None:
            aged.write(again, MAINTENANCE)
    for name in ("gw/2", "gw.maintenance/1"):
        drop(aged, find(aged, f"holdfast/test/{name}"))
    aged.anchor()
    assert codes(aged.verify()) == {"log-dropped"}


def test_a_log_made_up_before_the_first_signed_one_was_dropped(aged: Aged) -> None:
    """What comes to be the oldest log that is left names it in its opening, and pins nothing by that."""
    add_legacy_log(aged.database, timestamp(aged.now())[:10], [aged.call()], 77)
    drop_first_day(aged)
    aged.days_ago = 0
    aged.write(aged.call())
    aged.anchor()
    report = aged.verify()
    assert (codes(report), report.verdict()) == ({"log-dropped", "legacy-foreign"}, Class.ALTERED)


def test_a_log_dropped_without_a_record_that_anchors_know_of(aged: Aged) -> None:
    drop_first_day(aged)
    (aged.anchors / "file.notes").unlink()
    append_note(aged.anchors / "file.notes", LedgerStore(aged.database).latest_note(find(aged, "holdfast/test/gw/1")))
    assert "unsigned-legacy" in codes(aged.verify())


def test_unsigned_logs_do_not_pin_each_other(site: Site) -> None:
    add_legacy_log(site.database, "2026-02-01", told_calls(), 8)
    pinned = site.named("legacy")
    peers = Record(
        kind=Kind.PEER, at="2026-02-02T00:00:00.000000Z", peers=(Seen(log=pinned.origin, size=2, root=pinned.root),)
    )
    add_legacy_log(site.database, "2026-02-02", [peers], 9)
    assert codes(site.verify()) == {"legacy-foreign", "leaf-place"}


def test_an_unsigned_record_of_erasure_excuses_nothing(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    redact = Redaction(
        log=Seen(log=log.origin, size=log.size, root=log.root), reason="a person asked", payloads=(f"{seq}/response",)
    )
    add_legacy_log(site.database, DAY, [Record(kind=Kind.REDACT, at=f"{DAY}T12:00:00.000000Z", redact=redact)], 9)
    site.execute("DELETE FROM bodies WHERE log = :log AND seq = :seq", log=log.id, seq=seq)
    site.execute("DELETE FROM blobs WHERE NOT EXISTS (SELECT 1 FROM bodies WHERE bodies.sha256 = blobs.sha256)")
    report = site.verify()
    assert {"payload-missing", "leaf-place"} <= codes(report)
    assert "payload-erased" not in codes(report)
    assert places(report, "payload-missing") == [seq]


def test_a_log_by_a_key_that_nobody_certified_is_not_believed_either(site: Site) -> None:
    """Its record of erasure excuses nothing, its peers say nothing."""
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    redact = Redaction(
        log=Seen(log=log.origin, size=log.size, root=log.root), reason="a person asked", payloads=(f"{seq}/response",)
    )
    other = site.named("other")
    last = other.size - 1
    site.edit(other, last, lambda told: Record(kind=Kind.REDACT, at=told.at, redact=redact))
    site.execute("UPDATE logs SET certificate = '' WHERE id = :log", log=other.id)
    site.execute("DELETE FROM bodies WHERE log = :log AND seq = :seq", log=log.id, seq=seq)
    report = site.verify()
    assert {"payload-missing", "certificate-bad"} <= codes(report)
    assert "payload-erased" not in codes(report)


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 5 << 20])
def test_bodies_from_before_they_were_cut_may_be_long(tmp_path: Path, database: Database, size: int) -> None:
    body = bytes(size)
    add_legacy_log(database, DAY, [record(response_body=payload(body))], 1, body)
    assert codes(Site(tmp_path, database).verify()) == set()


def test_other_bodies_may_not(site: Site) -> None:
    body = bytes((1 << 20) + 1)
    changed = site.execute("UPDATE blobs SET body = :body, size = :size, codec = 'raw'", body=body, size=len(body))
    report = site.verify()
    assert report.counts == {"blob-altered": changed}
    assert all("too long" in finding.what for finding in report.findings)


def test_leaves_of_version_1_belong_in_unsigned_logs_only(site: Site) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    leaf = site.leaves(site.log)[seq]
    inner = msgspec.json.decode(leaf)["record"]
    site.put_leaf(site.log, seq, msgspec.json.encode(inner | {"version": 1}, order="sorted"))
    assert places(site.verify(), "leaf-place") == [seq, seq + 1]
