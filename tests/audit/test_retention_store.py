"""Days dropped and bodies erased: on record first, every proof holds, and whatever breaks off can be gone on with."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from audit.entries import entry, new_id, open_test_ledger, record, request, response
from holdfast.audit.anchors.evidence import read_evidence
from holdfast.audit.anchors.file import append_note
from holdfast.audit.checkpoint import open_checkpoint
from holdfast.audit.erasing import Eraser
from holdfast.audit.keys import MAINTENANCE, KeyFolder, parse_certificate
from holdfast.audit.maintenance import plan_retention, run_erasure, run_retention
from holdfast.audit.objects import ObjectPieces, open_pieces
from holdfast.audit.payload import Body, Slot
from holdfast.audit.record import (
    Caller,
    Entry,
    Kind,
    Leaf,
    Record,
    Redaction,
    Seen,
    Timing,
    decode,
    encode,
    encode_leaf,
    timestamp,
)
from holdfast.audit.retention import (
    PayloadRule,
    Place,
    StoredBody,
    Wanted,
    Why,
    choose_bodies,
    choose_wanted,
    plan_days,
)
from holdfast.audit.sequence import Clock
from holdfast.audit.store import AuditStore, LedgerStore, dropping
from holdfast.audit.store.dropping import DayDropper
from holdfast.audit.store.export import export_lines
from holdfast.audit.store.retention import ERASING, RetentionStore
from holdfast.audit.store.signed import SignedLogs
from holdfast.audit.tree import HASH_BYTES, LeafHash, hash_leaf, root_of
from holdfast.audit.verify import Anchoring, Class, verify_lines
from holdfast.audit.verify.findings import ERASURE_UNFINISHED
from holdfast.errors import ConfigurationError, Conflict, HoldfastError, NotFound, Unavailable
from holdfast.settings.audit import Payloads, Retention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from holdfast.audit.ledger import Ledger
    from holdfast.audit.logs import LogRow
    from holdfast.audit.verify import Report
    from holdfast.database import Database

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
REPLICAS = ("gw", "gw.console", f"gw{MAINTENANCE}")
OLD, YESTERDAY, TODAY = "2026-03-08", "2026-03-09", "2026-03-10"
BECAUSE = Why("she asked")
SHARED = b"the same for both"
LARGE = b"".join(bytes([number % 251]) * 3 for number in range(500))
"""Too long for the database, where there is an object store."""


class Killed(Exception):
    """Somebody pulled the plug."""


class Site:
    """Three days of a gateway and what is erased from them, by commands that come one after another."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder, self.database = folder, database
        self.anchors = folder / "anchors"
        self.anchors.mkdir()
        self.pieces: ObjectPieces | None = None
        self.keys = KeyFolder(folder / "audit-keys")
        self.keys.folder.mkdir()
        root = self.keys.make_root("test", Ed25519PrivateKey.generate())
        start = NOW - timedelta(days=20)
        self.keys.make_epoch_key(root, "test", REPLICAS, Ed25519PrivateKey.generate(), start)
        self.now = NOW
        self.command: Ledger | None = None
        self.epoch_records = 1_000_000

    def clock(self) -> Clock:
        """A clock that the site sets, a microsecond later each time."""
        self.now += timedelta(microseconds=1)
        return Clock(timestamp(self.now), int(self.now.timestamp() * 1_000_000))

    def open(self, role: str = "") -> Ledger:
        """The log of the gateway, or of a command."""
        return open_test_ledger(
            self.folder,
            self.database,
            role=role,
            clock=self.clock,
            pieces=self.pieces,
            remembers=not role,
            epoch_records=self.epoch_records,
        )

    def write_days(self, *days: int) -> None:
        """On days that many before now: calls of alice and bob, some of their bodies the same."""
        self.now = NOW - timedelta(days=days[0])
        ledger = self.open()
        for number in days:
            self.now = NOW - timedelta(days=number)
            for name in ("alice", "bob"):
                self.call(ledger, name, b"%s %d" % (name.encode(), number))
                self.call(ledger, name, SHARED)
                self.call(ledger, name, LARGE)
        ledger.close("the test is over" if days[-1] else "")

    def call(self, ledger: Ledger, user: str, body: bytes, received: datetime | None = None) -> str:
        """One call of a user, with a body each way."""
        at = timestamp(received or self.now)
        told = record(
            new_id(), identity=Caller(issuer="https://issuer", username=user), timing=Timing(received_at=at, total=1500)
        )
        slots = ((Slot.REQUEST, b"asked: " + body), (Slot.RESPONSE, body))
        salted = tuple(Body(slot, content, "text/plain", f"{user:<16}".encode()) for slot, content in slots)
        ledger.write([Entry(msgspec.structs.replace(told, at=at), salted)])
        return told.call

    @property
    def store(self) -> RetentionStore:
        return RetentionStore(self.database, self.pieces)

    @property
    def dropper(self) -> DayDropper:
        signed = SignedLogs(self.database, self.keys.root_verifier())
        return DayDropper(self.database, signed, has_pieces=self.pieces is not None)

    def eraser(self) -> Eraser:
        """What a new command erases with."""
        return Eraser(
            self.store,
            self.dropper,
            self.begin_command,
            "carol",
            lambda: self.now,
        )

    def begin_command(self) -> Ledger:
        """The log of the command that erases now."""
        self.command = self.open(MAINTENANCE)
        return self.command

    def end_command(self) -> None:
        """Close that log, if the command had anything to record."""
        if self.command is not None:
            self.command.close("the command is over")
            self.command = None

    def drop(self, max_age_days: int = 1) -> list[str]:
        """Drop what is too old, by a command of its own."""
        eraser, dropped = self.eraser(), []
        for plan in plan_days(self.store.days(), Retention(max_age_days=max_age_days), 0, self.store.size_of, self.now):
            if not plan.day.unended:
                for _ in eraser.drop_day(plan):
                    pass
                dropped.append(plan.day.day)
        self.end_command()
        return dropped

    def erase(self, reason: str = "she asked", **wanted: str) -> int:
        """Erase bodies, by a command of its own; return how many."""
        meant = Wanted(**wanted)  # type: ignore[arg-type]
        erased = run_erasure(self.store, self.eraser(), meant, reason, lambda _: None)
        self.end_command()
        return erased.bodies.total()

    def finish(self) -> None:
        """What the next command does first."""
        for _ in self.eraser().finish_earlier():
            pass

    def execute(self, statement: str, **values: object) -> list[tuple[object, ...]]:
        with self.database.writing() as connection:
            result = connection.execute(text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def count(self, table: str, day: str = "") -> int:
        """Rows of a table, of one day or of all."""
        where = "WHERE day = :day" if day else ""
        ((number,),) = self.execute(f"SELECT count(*) FROM {table} {where}", **({"day": day} if day else {}))  # noqa: S608
        return int(str(number))

    def logs(self, day: str = "") -> list[LogRow]:
        return [log for log in LedgerStore(self.database).all_logs() if not day or log.day == day]

    def redactions(self) -> list[Redaction]:
        """All that is on record as erased."""
        store = LedgerStore(self.database)
        logs = (log for log in self.logs() if log.replica.endswith(MAINTENANCE))
        told = (decode(leaf).record.redact for log in logs for leaf in store.leaves(log))
        return [redact for redact in told if redact is not None]

    def bodies(self) -> dict[str, set[bytes]]:
        """What is told of each user's calls."""
        told: dict[str, set[bytes]] = {}
        for story in AuditStore(self.database, self.pieces).iter_calls():
            told.setdefault(story.call.username, set()).update(story.payloads.values())
        return told

    def anchor(self) -> None:
        """Keep the last checkpoint of every log outside the database."""
        for log in self.logs():
            append_note(self.anchors / "file.notes", LedgerStore(self.database).latest_note(log))

    def verify(self) -> Report:
        """The auditor's verdict."""
        lines = export_lines(self.database, "test", timestamp(self.now), pieces=self.pieces)
        evidence = tuple(read_evidence(self.anchors)) if any(self.anchors.iterdir()) else ()
        return verify_lines(lines, self.keys.root_verifier(), Anchoring(evidence))

    def verdict(self) -> Class:
        """The same in one word, as if everything were anchored; what is worse than an erasure fails, with its name."""
        report = self.verify()
        worse = {found.code.name: found.what for found in report.findings if found.code.grade is Class.ALTERED}
        assert not worse
        return report.verdict(frozenset({Class.UNANCHORED}))


@pytest.fixture
def site(tmp_path: Path, database: Database) -> Site:
    site = Site(tmp_path, database)
    site.write_days(2, 1, 0)
    return site


@pytest.fixture
def outside(tmp_path: Path, database: Database) -> Iterator[Site]:
    """The same with an object store beside the database."""
    site = Site(tmp_path, database)
    site.pieces = open_pieces(Payloads(folder=tmp_path / "pieces", inline_bytes=10), 5)
    assert site.pieces is not None
    site.write_days(2, 1, 0)
    yield site
    site.pieces.close()


@pytest.fixture(params=[1, 3, 4, 5])
def small_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropping, "RECORDS_A_STEP", request.param)
    monkeypatch.setattr(dropping, "HASHES_A_ROW", 4)


def pieces_of(site: Site, day: str) -> set[str]:
    assert site.pieces is not None
    return {digest for page in site.pieces.digests(day) for digest in page}


# -- days --------------------------------------------------------------------------------------------------------


def test_the_site_is_whole_before_anything_goes(site: Site) -> None:
    assert site.verdict() is Class.INTACT
    assert [(day.day, len(day.unended)) for day in site.store.days()] == [(OLD, 0), (YESTERDAY, 0), (TODAY, 1)]


def test_a_day_is_dropped_but_for_its_leaf_hashes_and_last_checkpoint(site: Site) -> None:
    (log,) = site.logs(OLD)
    kept = {table: site.count(table, YESTERDAY) for table in ("records", "bodies", "blobs", "calls", "checkpoints")}
    assert site.drop() == [OLD]
    for table in ("records", "bodies", "blobs", "calls"):
        assert site.count(table, OLD) == 0
    assert {table: site.count(table, YESTERDAY) for table in kept} == kept
    ((size, note),) = site.execute("SELECT size, note FROM checkpoints WHERE day = :day", day=OLD)
    certificate = parse_certificate(log.certificate, site.keys.root_verifier())
    signed = open_checkpoint(str(note), certificate.verifier_for(log.origin))
    assert (size, signed.size, signed.root.hex()) == (log.size, log.size, log.root)
    assert root_of(leaf_hashes(site, log)) == signed.root
    (dropped,) = site.logs(OLD)
    assert (dropped.size, dropped.root, bool(dropped.dropped_at)) == (log.size, log.root, True)
    (told,) = site.redactions()
    assert (told.log.log, told.rule, told.requested_by, told.payloads) == (log.origin, "maxAgeDays", "carol", ())
    assert (told.day, told.until) == (OLD, log.closed_at)
    assert site.verdict() is Class.REDACTED


def leaf_hashes(site: Site, log: LogRow) -> list[LeafHash]:
    rows = site.execute("SELECT first, hashes FROM leaf_hashes WHERE log = :log ORDER BY first", log=log.id)
    hashes: list[LeafHash] = []
    for first, kept in rows:
        assert first == len(hashes)
        raw = bytes(kept)  # type: ignore[call-overload]
        hashes += [LeafHash(raw[at : at + HASH_BYTES]) for at in range(0, len(raw), HASH_BYTES)]
    return hashes


def test_an_anchored_record_is_redacted_and_nothing_worse(site: Site) -> None:
    site.anchor()
    site.drop()
    site.erase(user="alice")
    site.anchor()
    report = site.verify()
    assert report.verdict() is Class.REDACTED
    assert report.counts == {"log-dropped": 1, "payload-erased": 12}
    dropped, *erased = (finding.what for finding in report.findings)
    assert dropped.endswith(f", by carol at {timestamp(NOW)[:19]}Z: older than 1 days (rule maxAgeDays)")
    assert set(erased) == {
        f"the body {seq}/{slot}, by carol at {timestamp(NOW)[:19]}Z: she asked"
        for seq in (2, 3, 4)
        for slot in ("request", "response")
    }


@pytest.mark.usefixtures("small_steps")
def test_a_day_is_dropped_step_by_step_and_every_step_is_sound(site: Site) -> None:
    (log,) = site.logs(OLD)
    (plan,) = plan_days(site.store.days(), Retention(max_age_days=1), 0, site.store.size_of, site.now)
    records = 0
    for number in site.eraser().drop_day(plan):
        records += number
        assert site.verdict() is Class.REDACTED
    assert records == log.size
    assert root_of(leaf_hashes(site, log)).hex() == log.root
    assert site.count("records", OLD) == site.count("blobs", OLD) == 0


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("steps", range(4))
def test_a_day_that_was_left_half_way_is_gone_on_with(site: Site, steps: int) -> None:
    (log,) = site.logs(OLD)
    (plan,) = plan_days(site.store.days(), Retention(max_age_days=1), 0, site.store.size_of, site.now)
    removing = site.eraser().drop_day(plan)
    for _ in range(steps):
        next(removing, None)
    removing.close()  # type: ignore[attr-defined]
    assert site.verdict() is (Class.REDACTED if steps else Class.INTACT)
    site.finish()
    site.drop()
    assert site.count("records", OLD) == site.count("bodies", OLD) == site.count("blobs", OLD) == 0
    assert site.count("checkpoints", OLD) == 1
    assert root_of(leaf_hashes(site, log)).hex() == log.root
    assert site.verdict() is Class.REDACTED


STEPS: list[tuple[type, str]] = [
    (DayDropper, "check"),
    (Eraser, "_record"),
    (DayDropper, "drop"),
    (DayDropper, "_remove_rows"),
    (RetentionStore, "remove_day_pieces"),
]


@pytest.mark.parametrize(("place", "step"), STEPS, ids=lambda step: getattr(step, "__name__", step))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_drop_that_breaks_off_at_any_step_is_honest_and_ends_well(
    outside: Site, monkeypatch: pytest.MonkeyPatch, place: type, step: str, when: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(place, step, breaking(getattr(place, step), when))
        with suppress(Killed):
            outside.drop()
    assert outside.verdict() in {Class.INTACT, Class.REDACTED}
    gone = outside.count("records", OLD) == 0
    assert not gone or outside.redactions()
    outside.finish()
    outside.drop()
    outside.finish()
    for table in ("records", "bodies", "blobs", "calls"):
        assert outside.count(table, OLD) == 0
    assert not pieces_of(outside, OLD)
    assert outside.pieces is not None
    assert outside.pieces.days() == [YESTERDAY, TODAY]
    assert outside.verdict() is Class.REDACTED


def breaking(step: Callable[..., object], when: str) -> Callable[..., object]:
    """A step that is broken off before it began, or when it was done."""

    def run(*arguments: object, **options: object) -> object:
        if when == "after":
            result = step(*arguments, **options)
            list(result) if hasattr(result, "__next__") else None  # type: ignore[call-overload]
        raise Killed

    return run


def test_a_day_with_a_call_that_spans_midnight_goes_on_both_sides(site: Site) -> None:
    site.now = NOW + timedelta(days=1)
    ledger = site.open()
    call = new_id()
    late = datetime(2026, 3, 11, 23, 59, 59, tzinfo=UTC)
    timing = Timing(received_at=timestamp(late), total=1500)
    site.now = late
    ledger.write([Entry(record(call, Kind.INTENT, timing=timing), request(b"asked before midnight"))])
    site.now = late + timedelta(seconds=2)
    ledger.write([entry(b"answered after it", call=call, timing=timing)])
    site.now = datetime(2026, 3, 13, 12, tzinfo=UTC)
    ledger.beat()
    ledger.close("the test is over")
    assert site.drop(max_age_days=1) == [OLD, YESTERDAY, TODAY, "2026-03-11"]
    assert site.verdict() is Class.REDACTED
    assert site.erase(user="alice") == 1  # although its call is not listed any more
    assert site.verdict() is Class.REDACTED
    site.now += timedelta(days=1)
    assert "2026-03-12" in site.drop(max_age_days=1)
    assert site.count("calls") == 0
    assert site.verdict() is Class.REDACTED


def test_a_call_that_ends_after_its_day_was_dropped_goes_with_the_day_on_which_it_ended(site: Site) -> None:
    site.drop()
    ledger = site.open()
    site.call(ledger, "alice", b"after a long time", received=NOW - timedelta(days=2))
    ledger.close("the test is over")
    assert site.verdict() is Class.REDACTED
    site.now = NOW + timedelta(days=2)
    assert site.drop() == [YESTERDAY, TODAY]
    assert site.count("calls") == 0
    assert site.verdict() is Class.REDACTED


def test_what_was_dropped_stays_on_record_when_the_record_of_it_is_dropped(site: Site) -> None:
    ledger = site.open()
    for days in range(6):
        site.now = NOW + timedelta(days=days)
        site.call(ledger, "alice", b"%d" % days)
        site.erase(user="alice")
        site.drop()
        assert site.verdict() is Class.REDACTED
    ledger.close()
    assert len([log for log in site.logs() if log.dropped_at and log.replica.endswith(MAINTENANCE)]) >= 4


def test_a_log_that_was_tampered_with_is_not_dropped(site: Site) -> None:
    site.execute("DELETE FROM records WHERE day = :day AND seq = 2", day=OLD)
    with nothing_erased(site, "its row tells of 8 records, or of other ones"):
        site.drop()


def test_a_log_without_its_last_checkpoint_is_not_dropped(site: Site) -> None:
    site.execute("DELETE FROM checkpoints WHERE day = :day AND size > 3", day=OLD)
    with nothing_erased(site, "not a signed note"):
        site.drop()


@contextmanager
def nothing_erased(site: Site, why: str, recorded: int = 0) -> Iterator[None]:
    """What happens here is refused, and everything is still there; the auditor is named."""
    tables = ("records", "bodies", "blobs", "calls", "checkpoints", "leaf_hashes")
    before = {table: site.count(table) for table in tables}
    with pytest.raises(Conflict, match=rf"is not as it was signed \(.*{why}.*run `holdfast audit verify`"):
        yield
    site.end_command()
    kept = {table: site.count(table) for table in tables}
    for table in ("records", "checkpoints"):  # what was refused may have begun a log of its own
        assert kept.pop(table) >= before.pop(table)
    assert kept == before
    assert len(site.redactions()) == recorded


def move_day(site: Site, log: LogRow, day: str) -> None:
    """Put a log and all that it has on another day."""
    for table in ("records", "checkpoints", "bodies"):
        site.execute(f"UPDATE {table} SET day = :day WHERE log = :log", day=day, log=log.id)  # noqa: S608
    for table in ("blobs", "calls"):
        site.execute(f"UPDATE {table} SET day = :day WHERE day = :old", day=day, old=log.day)  # noqa: S608
    site.execute("UPDATE logs SET day = :day WHERE id = :log", day=day, log=log.id)


@pytest.mark.parametrize("day", [YESTERDAY, TODAY])
def test_a_log_that_somebody_put_on_an_old_day_is_not_dropped(site: Site, day: str) -> None:
    (log,) = site.logs(day)
    move_day(site, log, "2020-01-01")
    site.execute("UPDATE logs SET closed_at = coalesce(closed_at, opened_at) WHERE id = :log", log=log.id)
    store = RetentionStore(site.database, gone=["gw"])
    (plan, *_) = plan_days(store.days(), Retention(max_bytes=1), 2, lambda _: 0, NOW)
    assert (plan.day.day, plan.day.unended) == ("2020-01-01", ())
    with nothing_erased(site, f"of 2020-01-01, its records say {day}"):
        list(site.eraser().drop_day(plan))
    assert [plan.day.day for plan in plan_days(store.days(), Retention(max_age_days=365), 0, lambda _: 0, NOW)] == []


def forge(site: Site, log: LogRow, change: Callable[[Leaf], bytes]) -> None:
    """Write a log's leaves anew, its row to fit them; nobody signs that."""
    leaves = [change(decode(leaf)) for leaf in LedgerStore(site.database).leaves(log)]
    for seq, leaf in enumerate(leaves):
        site.execute("UPDATE records SET leaf = :leaf WHERE log = :log AND seq = :seq", leaf=leaf, log=log.id, seq=seq)
    root = root_of(map(hash_leaf, leaves)).hex()
    site.execute("UPDATE logs SET root = :root WHERE id = :log", root=root, log=log.id)


def aged(leaf: Leaf) -> bytes:
    """The same leaf, as if it were of 2020."""
    told = msgspec.structs.replace(leaf.record, at=leaf.record.at.replace("2026", "2020"))
    return encode_leaf(msgspec.structs.replace(leaf, time=leaf.time.replace("2026", "2020")), encode(told))


def test_a_log_whose_leaves_were_made_old_too_is_not_dropped(site: Site) -> None:
    (log,) = site.logs(YESTERDAY)
    move_day(site, log, "2020-03-09")
    forge(site, next(found for found in site.logs() if found.id == log.id), aged)
    site.execute("UPDATE logs SET closed_at = replace(closed_at, '2026', '2020') WHERE id = :log", log=log.id)
    with nothing_erased(site, "its last checkpoint is of other records"):
        site.drop(max_age_days=365)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE logs SET closed_at = '2026-03-08T12:00:01.000000Z'", "closed at 2026-03-08T12:00:01"),
        ("UPDATE logs SET closed_at = NULL", "closed at None"),
        ("UPDATE logs SET certificate = ''", "not a signed note"),
        ("UPDATE logs SET origin = 'legacy/' || day, replica = 'legacy', certificate = ''", "its records say"),
        ("UPDATE logs SET origin = 'holdfast/test/gw/9'", "carries no good signature of holdfast/test/gw/9"),
        ("UPDATE logs SET size = size - 1", "its row tells of 7 records"),
        ("UPDATE logs SET size = 1, root = :root", "closed at 2026-03-09"),
        ("UPDATE logs SET size = 1, root = :root, closed_at = NULL", "it has more than 1 records"),
    ],
)
def test_a_log_whose_row_is_not_as_its_leaves_say_is_not_dropped(site: Site, change: str, why: str) -> None:
    (log,) = site.logs(OLD)
    first = next(LedgerStore(site.database).leaves(log))
    values = {"root": root_of([hash_leaf(first)]).hex()} if ":root" in change else {}
    site.execute(f"{change} WHERE id = :log", log=log.id, **values)
    store = RetentionStore(site.database, gone=["gw"])
    plan = next(plan_days(store.days(), Retention(max_age_days=1), 0, lambda _: 0, site.now))
    with nothing_erased(site, why):
        list(site.eraser().drop_day(plan))


def test_records_of_another_log_do_not_go_along_with_a_day(site: Site) -> None:
    (log,) = site.logs(YESTERDAY)
    site.execute("UPDATE records SET day = :day WHERE log = :log", day=OLD, log=log.id)
    if site.database.dialect == "postgresql":
        with pytest.raises(Conflict, match="are kept under 2026-03-08, which is not its day"):
            site.drop()
    else:
        site.drop()
    assert site.execute("SELECT count(*) FROM records WHERE log = :log", log=log.id) == [(log.size,)]


def test_a_leaf_that_is_kept_as_text_is_for_the_auditor(site: Site) -> None:
    if site.database.dialect != "sqlite":
        return
    site.execute("UPDATE records SET leaf = CAST(leaf AS TEXT) WHERE day = :day AND seq = 2", day=OLD)
    with nothing_erased(site, ""):
        site.drop()


def test_what_was_erased_stays_on_record_whatever_its_row_says(site: Site) -> None:
    site.drop()
    site.open().close("the test is over")
    site.execute("UPDATE records SET kind = 'heartbeat' WHERE kind = 'redact'")
    site.now = NOW + timedelta(days=4)
    assert TODAY in site.drop()
    assert "holdfast/test/gw/1" in [told.log.log for told in site.redactions()]


def test_a_log_without_a_record_holds_nothing_up(site: Site) -> None:
    site.execute(
        "INSERT INTO logs (origin, replica, epoch, day, certificate, size, root, opened_at) "
        "VALUES ('holdfast/test/gw.console/7', 'gw.console', 7, '2020-02-02', 'x', 0, '', '')"
    )
    assert site.drop() == [OLD]


def test_a_gateway_that_stood_still_keeps_its_last_day_until_its_end_is_as_old(site: Site) -> None:
    ledger = site.open()
    site.now = NOW + timedelta(days=9)
    site.call(ledger, "alice", b"after the machine was asleep")
    ledger.close()
    assert site.drop(max_age_days=5) == [OLD, YESTERDAY]
    site.now = NOW + timedelta(days=14, minutes=1)
    assert site.drop(max_age_days=5) == [TODAY]
    assert site.redactions()[-1].until == timestamp(NOW + timedelta(days=9, microseconds=1))


def test_a_log_that_is_still_written_is_not_dropped(site: Site) -> None:
    later = NOW + timedelta(days=3)
    believed_gone = RetentionStore(site.database, gone=["gw"])
    *_, plan = plan_days(believed_gone.days(), Retention(max_age_days=1), 0, believed_gone.size_of, later)
    ledger = site.open()
    site.call(ledger, "alice", b"still here")
    ledger.close()
    dropping_it = site.dropper.drop(TODAY, plan.day.logs, timestamp(later))
    with pytest.raises(Conflict, match="has changed meanwhile"):
        list(dropping_it)
    assert site.count("records", TODAY) > 0
    assert site.verdict() is Class.INTACT
    site.now = later
    assert site.drop() == [OLD, YESTERDAY]


def test_a_log_that_was_never_closed_blocks_until_another_goes_on_or_its_gateway_is_gone(site: Site) -> None:
    later = NOW + timedelta(days=3)
    plans = partial(plan_days, settings=Retention(max_age_days=1), used=0, size_of=lambda _: 0, now=later)
    assert [bool(plan.day.unended) for plan in plans(site.store.days())] == [False, False, True]
    gone = RetentionStore(site.database, gone=["gw"])
    assert [bool(plan.day.unended) for plan in plans(gone.days())] == [False, False, False]
    site.now = later
    site.open().close()
    assert [bool(plan.day.unended) for plan in plans(site.store.days())] == [False, False, False]


def test_a_gateway_that_starts_after_its_last_log_was_dropped_goes_on(site: Site) -> None:
    site.now = NOW + timedelta(days=1)
    site.open().close("the test is over")
    site.now = NOW + timedelta(days=3)
    site.drop()
    ledger = site.open()
    assert ledger.row.epoch == 5
    first = decode(next(LedgerStore(site.database).leaves(ledger.row))).record
    assert first.start is not None
    assert first.start.previous_log == "holdfast/test/gw/4"
    ledger.close()
    assert site.verdict() is Class.REDACTED


def test_in_postgres_the_partitions_of_a_day_are_gone(site: Site) -> None:
    if site.database.dialect != "postgresql":
        return
    site.drop()
    query = "SELECT to_regclass(:name) IS NULL"
    for table in ("records", "checkpoints", "bodies", "blobs", "calls"):
        assert site.execute(query, name=f"{table}_20260308") == [(True,)]
        assert site.execute(query, name=f"{table}_20260309") == [(False,)]


def test_in_postgres_a_drop_does_not_wait_for_readers_that_stay(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    if site.database.dialect != "postgresql":
        return
    monkeypatch.setattr(dropping, "LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(dropping, "LOCK_TRIES", 2)
    monkeypatch.setattr(dropping, "LOCK_PAUSE_SECONDS", 0.0)
    with site.database.reading() as reader:
        reader.execute(text("SELECT * FROM records LIMIT 1")).all()
        with pytest.raises(Unavailable, match="somebody reads the record all the time"):
            site.drop()
        ledger = site.open()
        ledger.write([entry(b"and no gateway waits for it")])
        ledger.close()
    assert site.verdict() is Class.INTACT
    assert site.drop() == [OLD]


# -- bodies ------------------------------------------------------------------------------------------------------


def test_one_persons_bodies_and_salts_go_and_what_others_share_stays(site: Site) -> None:
    before = [story.call for story in AuditStore(site.database).iter_calls()]
    bobs = site.bodies()["bob"]
    assert site.erase(user="alice") == 18
    assert [story.call for story in AuditStore(site.database).iter_calls()] == before
    assert site.bodies() == {"alice": set(), "bob": bobs}
    assert {bytes(salt).strip() for (salt,) in site.execute("SELECT salt FROM bodies")} == {b"bob"}  # type: ignore[call-overload]
    assert site.count("blobs") == site.count("bodies") == 18
    told = site.redactions()
    assert [(redact.log.log, len(redact.payloads), redact.reason) for redact in told] == [
        (log.origin, 6, "she asked") for log in site.logs() if log.replica == "gw"
    ]
    report = site.verify()
    assert report.counts["payload-erased"] == 18
    assert site.verdict() is Class.REDACTED


def test_what_was_erased_is_not_erased_again(site: Site) -> None:
    assert site.erase(user="alice") == 18
    assert site.erase(user="alice") == 0
    assert len(site.redactions()) == 3


def test_one_call_is_erased_by_the_beginning_of_its_id(site: Site) -> None:
    ledger = site.open()
    call = site.call(ledger, "alice", b"this one")
    ledger.close()
    assert site.store.resolve_call(call[:13]) == call
    with pytest.raises(NotFound, match="no call in the record has an audit ID that starts with 'none'"):
        site.store.resolve_call("none")
    with pytest.raises(Conflict, match="several calls"):
        site.store.resolve_call("")
    assert site.erase(call=call[:13]) == 2
    assert b"this one" not in site.bodies()["alice"]
    assert site.verdict() is Class.REDACTED


@pytest.mark.parametrize("page", [1, 2, 500])
def test_bodies_are_found_page_by_page(site: Site, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr("holdfast.audit.store.retention.PAGE", page)
    places = [(body.log.id, str(body.place), body.audit_id) for body in site.store.bodies()]
    assert len(places) == len(set(places)) == 36
    assert places == sorted(places, key=lambda place: (place[0], int(place[1].partition("/")[0]), place[1]))


def test_bodies_of_calls_that_nothing_else_tells_of_are_told_of_and_stay(site: Site) -> None:
    call = stream_past_midnight(site)
    streamed, bobs = site.store.bodies(first_day="2026-03-12"), Wanted(user="bob")
    assert [body.call and body.call.username for body in streamed] == ["alice", "bob", "bob"]
    assert site.drop() == [OLD, YESTERDAY, TODAY, "2026-03-11"]
    alone, *others = site.store.bodies()
    assert (alone.audit_id, alone.call, alone.place.slot) == (call, None, Slot.RESPONSE)
    assert list(choose_wanted([alone, *others], bobs, BECAUSE)) == [
        (alone, None),
        *((body, BECAUSE) for body in others),
    ]
    assert site.erase(user="bob") == 2
    assert list(site.store.bodies()) == [alone]


def test_bodies_of_calls_that_nothing_else_tells_of_are_erased_by_id_and_by_rules_for_all_calls(site: Site) -> None:
    call = stream_past_midnight(site)
    site.drop()
    gets = PayloadRule("2026-03-13", lambda call: call.verb == "get", BECAUSE)
    everything = PayloadRule("2026-03-13", None, Why("all"))
    alone, *_ = site.store.bodies()
    assert list(choose_bodies([alone], [gets])) == [(alone, None)]
    assert list(choose_bodies([alone], [gets, everything])) == [(alone, Why("all"))]
    assert site.erase(call=call[:13]) == 1
    assert list(site.store.bodies(call)) == []
    assert site.verdict() is Class.REDACTED


def stream_past_midnight(site: Site) -> str:
    """Alice's call whose gateway died after its first piece on the next day, on which bob had one too."""
    call = new_id()
    site.now = datetime(2026, 3, 11, 23, 59, 59, tzinfo=UTC)
    ledger = site.open()
    ledger.write([Entry(record(call, Kind.OPEN, timing=Timing(received_at=timestamp(site.now))))])
    site.now += timedelta(seconds=2)
    ledger.write([Entry(Record(kind=Kind.CHUNK, at=timestamp(site.now), call=call), response(b"a line of a log"))])
    site.call(ledger, "bob", b"on the next day")
    site.now = datetime(2026, 3, 13, 12, tzinfo=UTC)
    ledger.beat()
    ledger.close("the test is over")
    return call


def bodies_of_alice(site: Site, day: str) -> list[StoredBody]:
    """Her stored bodies of one day."""
    return [
        body for body in site.store.bodies(first_day=day) if body.log.day == day and Wanted(user="alice").means(body)
    ]


OTHER_S_ROW = {
    "the row of another's call": "UPDATE calls SET username = 'alice' WHERE username = 'bob'",
    "and of her own": "UPDATE calls SET username = 'bob' WHERE username = 'alice'",
    "a row derived from her record": "UPDATE calls SET username = 'alice', (log, seq) = (SELECT log, seq FROM calls "
    "WHERE username = 'alice' LIMIT 1) WHERE username = 'bob'",
    "the call of another's record": "UPDATE records SET call_id = (SELECT audit_id FROM calls WHERE username = 'alice' "
    "LIMIT 1) WHERE call_id IN (SELECT audit_id FROM calls WHERE username = 'bob')",
    "a body of no call": "UPDATE bodies SET seq = 0 WHERE salt = :salt AND seq = (SELECT min(seq) FROM bodies WHERE "
    "salt = :salt)",
}


@pytest.mark.parametrize("change", OTHER_S_ROW.values(), ids=OTHER_S_ROW)
def test_bodies_that_only_a_row_says_are_hers_are_not_erased(site: Site, change: str) -> None:
    site.execute(change, **({"salt": b"bob             "} if ":salt" in change else {}))
    with nothing_erased(site, "a row tells of call"):
        site.erase(user="alice")


def test_a_row_that_is_derived_from_no_record_is_for_the_auditor(site: Site) -> None:
    site.execute("UPDATE calls SET seq = 1000 WHERE username = 'bob'")
    told = r"record 1000 of log number 1, which is not there, .*run `holdfast audit verify`"
    with pytest.raises(Conflict, match=told):
        site.erase(user="alice")
    assert site.count("bodies") == 36


def test_one_call_s_bodies_are_not_those_of_a_record_that_was_put_to_it(site: Site) -> None:
    ((call,), (other,)) = (
        site.execute("SELECT min(audit_id) FROM calls WHERE username = :name", name=name)[0]
        for name in ("alice", "bob")
    )
    site.execute("UPDATE records SET call_id = :call WHERE call_id = :other", call=call, other=other)
    with nothing_erased(site, "a row tells of call"):
        site.erase(call=str(call))


def test_bodies_are_found_by_their_records_where_no_row_tells_of_them(site: Site) -> None:
    bobs = site.bodies()["bob"]
    site.execute("DELETE FROM calls WHERE username = 'alice'")
    assert site.erase(user="alice") == 18
    assert site.count("bodies") == 18
    assert site.bodies() == {"bob": bobs}


def test_bodies_of_a_log_that_was_forged_are_not_erased(site: Site) -> None:
    (log,) = site.logs(YESTERDAY)
    forge(site, log, lambda leaf: encode_leaf(leaf, encode(leaf.record).replace(b'"bob"', b'"alice"')))
    site.execute("UPDATE calls SET username = 'alice' WHERE username = 'bob' AND log = :log", log=log.id)
    with nothing_erased(site, "its last checkpoint is of other records"):
        site.erase(user="alice")


def of_alice(kept_from: str = "2026-03-12") -> PayloadRule:
    return PayloadRule(kept_from, lambda call: call.username == "alice", Why("rule", "hers"))


def test_a_rule_erases_what_records_say_and_reads_no_log_of_which_nothing_is_to_go(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(site, [of_alice()]) == []
    assert site.bodies()["alice"] == set()
    assert len(site.redactions()) == 3
    monkeypatch.setattr(SignedLogs, "hold", None)
    assert run(site, [of_alice()]) == []


def test_a_rule_does_not_erase_what_only_a_row_says(site: Site) -> None:
    site.execute("UPDATE calls SET username = 'alice' WHERE username = 'bob'")
    with nothing_erased(site, "a row tells of call"):
        run(site, [of_alice()])


def test_a_rule_does_not_erase_what_was_put_on_an_old_day(site: Site) -> None:
    (log,) = site.logs(TODAY)
    move_day(site, log, "2020-01-01")
    with nothing_erased(site, "of 2020-01-01, its records say 2026-03-10"):
        run(site, [of_alice("2020-01-02")])


def test_whose_a_stream_is_may_stand_in_the_log_before(site: Site) -> None:
    call = new_id()
    site.now = datetime(2026, 3, 11, 23, 59, 59, tzinfo=UTC)
    ledger = site.open()
    ledger.write([Entry(record(call, Kind.OPEN, timing=Timing(received_at=timestamp(site.now))))])
    site.now += timedelta(seconds=2)
    for number in range(3):
        chunk = Record(kind=Kind.CHUNK, at=timestamp(site.now), call=call)
        ledger.write([Entry(chunk, response(b"line %d" % number))])
    ledger.close()
    site.execute("UPDATE calls SET username = 'bob' WHERE audit_id = :call", call=call)
    with pytest.raises(Conflict, match=f"call {call}"):
        site.erase(call=call)
    site.execute("UPDATE calls SET username = 'alice' WHERE audit_id = :call", call=call)
    assert site.erase(user="alice") == 21


def test_bodies_of_many_records_are_recorded_some_at_a_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.audit.erasing.PLACES_A_RECORD", 4)
    assert site.erase(user="alice") == 18
    assert [len(redact.payloads) for redact in site.redactions()] == [4, 2] * 3
    assert site.verdict() is Class.REDACTED


def test_a_piece_that_a_writer_refers_to_meanwhile_stays(site: Site) -> None:
    store = site.store
    found = bodies_of_alice(site, TODAY)
    references = store.references(TODAY)
    ledger = site.open()
    site.call(ledger, "carol", b"alice 0")
    ledger.close()
    store.erase(found[0].log, [body.place for body in found], references)
    assert b"alice 0" in site.bodies()["carol"]
    assert site.verify().counts["blob-altered"] == 0


def test_a_writer_is_kept_out_while_pieces_are_removed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer comes when it was decided that nobody needs the piece; it must wait, and keep its own."""
    ledger = site.open()
    writer = threading.Thread(target=lambda: site.call(ledger, "carol", b"alice 0"))
    original = RetentionStore.erase.__globals__["delete_blobs"]

    def with_a_writer(*arguments: object) -> None:
        writer.start()
        writer.join(0.3)
        original(*arguments)

    monkeypatch.setitem(RetentionStore.erase.__globals__, "delete_blobs", with_a_writer)
    store = site.store
    found = bodies_of_alice(site, TODAY)
    store.erase(found[0].log, [body.place for body in found], store.references(TODAY))
    writer.join()
    ledger.close()
    assert b"alice 0" in site.bodies()["carol"]


@pytest.mark.parametrize("step", ["_record", "_erase_places"])
def test_nothing_is_erased_before_it_is_on_record(site: Site, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Eraser, step, breaking(getattr(Eraser, step), "before"))
        with pytest.raises(Killed):
            site.erase(user="alice")
    assert site.verdict() is Class.INTACT
    with monkeypatch.context() as patched:
        patched.setattr(RetentionStore, "erase", breaking(RetentionStore.erase, "before"))
        with pytest.raises(Killed):
            site.erase(user="alice")
    recorded = recorded_places(site)
    assert unfinished_places(site) == recorded
    assert site.verdict() is Class.INCOMPLETE
    assert site.erase(user="alice") == 18 - len(recorded) == 12  # the rest was gone on with
    assert site.count("bodies") == 18
    assert site.verdict() is Class.REDACTED


def recorded_places(site: Site) -> set[tuple[str, str]]:
    """The bodies, by log and place, that are on record as erased."""
    return {(told.log.log, place) for told in site.redactions() for place in told.payloads}


def unfinished_places(site: Site) -> set[tuple[str, str]]:
    """Those of which verify says that they are still there."""
    told = [finding for finding in site.verify().findings if finding.code is ERASURE_UNFINISHED]
    places = {(finding.log, finding.what.removeprefix("the body ").partition(",")[0]) for finding in told}
    assert len(places) == len(told)
    assert all(finding.what.startswith(f"the body {finding.seq}/") for finding in told)
    return places


@pytest.mark.parametrize("logs_a_command", [1, 3])
@pytest.mark.parametrize("next_command", ["retention", "erase"])
def test_what_was_recorded_and_not_erased_is_erased_by_the_next_command(
    site: Site, monkeypatch: pytest.MonkeyPatch, next_command: str, logs_a_command: int
) -> None:
    monkeypatch.setattr("holdfast.audit.erasing.PLACES_A_RECORD", 3)
    site.epoch_records = 1_000_000 if logs_a_command == 1 else 3
    with monkeypatch.context() as patched:
        # What is left is the plug pulled at the second record, or at all of them.
        patched.setattr(RetentionStore, "erase", breaking(RetentionStore.erase, "before"))
        if logs_a_command > 1:
            patched.setattr(RetentionStore, "erase", lambda *_: 0)
        with suppress(Killed):
            site.erase(user="alice")
    recorded = sum(len(told.payloads) for told in site.redactions())
    assert (recorded, site.count("bodies")) == (3 if logs_a_command == 1 else 18, 36)
    assert len([log for log in site.logs() if log.replica.endswith(MAINTENANCE)]) >= logs_a_command
    assert unfinished_places(site) == recorded_places(site)
    assert site.verdict() is Class.INCOMPLETE
    run(site) if next_command == "retention" else site.erase(user="nobody")
    assert site.count("bodies") == 36 - recorded
    assert sum(len(told.payloads) for told in site.redactions()) == recorded
    assert site.verdict() is Class.REDACTED


def test_a_forged_record_of_an_erasure_erases_nothing(site: Site) -> None:
    site.erase(user="carol")
    command = site.open(MAINTENANCE)
    command.close("the command is over")
    (log,) = (log for log in site.logs() if log.replica.endswith(MAINTENANCE))
    (victim, *_) = (body for body in site.store.bodies() if body.call and body.call.username == "bob")

    def say_it(leaf: Leaf) -> bytes:
        whole = Seen(log=victim.log.origin, size=victim.log.size, root=victim.log.root)
        redact = Redaction(log=whole, reason="she asked", payloads=(str(victim.place),))
        is_last = leaf.seq == log.size - 2
        told = Record(kind=Kind.REDACT, at=leaf.record.at, redact=redact) if is_last else leaf.record
        return encode_leaf(leaf, encode(told))

    forge(site, log, say_it)
    with nothing_erased(site, "its last checkpoint is of other records", recorded=1):
        run(site)


def test_what_was_recorded_is_not_erased_of_another_log(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(RetentionStore, "erase", breaking(RetentionStore.erase, "before"))
        with suppress(Killed):
            site.erase(user="alice")
    site.end_command()
    (first,), (second,) = site.logs(OLD), site.logs(YESTERDAY)
    for name, log in (("x", first), (first.origin, second), (second.origin, first)):
        site.execute("UPDATE logs SET origin = :name WHERE id = :log", name=name, log=log.id)
    with nothing_erased(site, "carries no good signature", recorded=1):
        run(site)


def test_what_cannot_be_recorded_is_not_erased(site: Site) -> None:
    with pytest.raises(HoldfastError, match="cannot be encoded"):
        site.erase(reason="\udc80", user="alice")
    assert site.verdict() is Class.INTACT


def test_what_is_erased_or_dropped_without_a_record_is_an_alteration(site: Site) -> None:
    (log,) = site.logs(YESTERDAY)
    first = next(body for body in site.store.bodies() if body.log == log)
    site.store.erase(log, [first.place], site.store.references(YESTERDAY))
    report = site.verify()
    assert (set(report.counts) - {"no-anchor"}, report.verdict()) == ({"payload-missing"}, Class.ALTERED)
    for _ in site.dropper.drop(OLD, site.logs(OLD), timestamp(NOW)):
        pass
    assert site.verify().counts["dropped-unrecorded"] == 1


def test_what_is_measured_is_what_is_freed(site: Site) -> None:
    store = site.store
    found = bodies_of_alice(site, OLD)
    places = [body.place for body in found]
    measured = store.measure(found[0].log, places, store.references(OLD))
    assert measured == len(b"alice 2") + len(b"asked: alice 2")
    assert store.erase(found[0].log, places, store.references(OLD)) == measured
    (old, *_) = store.days()
    assert store.size_of(old) > 5000
    used = store.used_bytes()
    site.drop()
    assert store.used_bytes() < used or site.database.dialect == "sqlite"


def run(site: Site, rules: Sequence[PayloadRule] = (), **settings: int) -> list[str]:
    """What `holdfast audit retention run` does; the days that it dropped."""
    retention = Retention(**settings)  # type: ignore[arg-type]
    try:
        outcome = run_retention(site.store, site.eraser(), retention, rules, site.now, lambda _: None)
    finally:
        site.end_command()
    return [plan.day.day for plan in outcome.days]


@pytest.mark.parametrize("size", [1 << 40, (1 << 20) + 1, -1])
def test_a_made_up_size_drops_nothing(site: Site, size: int) -> None:
    if site.database.dialect == "postgresql" and size > 1 << 31:
        size = (1 << 31) - 1
    before, settings = site.store.used_bytes(), {"max_bytes": 1 << 30}
    site.execute(
        "INSERT INTO blobs (day, sha256, size, codec) VALUES (:day, 'x', :size, 'raw')", day="1970-01-01", size=size
    )
    assert site.store.used_bytes() < before + 100_000
    for act in (lambda: run(site, **settings), lambda: plan_retention(site.store, Retention(**settings), [], NOW)):  # type: ignore[arg-type]
        with pytest.raises(Conflict, match=rf"1970-01-01/x tells of {size} bytes.*run `holdfast audit verify`"):
            act()
    assert not site.redactions()
    site.execute("UPDATE blobs SET size = 1048576 WHERE sha256 = 'x'")
    assert run(site, **settings) == []


def test_bodies_from_before_they_were_cut_may_be_long(site: Site) -> None:
    site.execute("INSERT INTO blobs (day, sha256, size, codec) VALUES ('2025-01-01', 'x', 1048577, 'raw')")
    site.execute(
        "INSERT INTO logs (origin, replica, epoch, day, certificate, size, root, opened_at, dropped_at) "
        "VALUES ('legacy/2025-01-01', 'legacy', 1, '2025-01-01', '', 0, '', '', '')"
    )
    site.store.check_sizes()


# -- the object store --------------------------------------------------------------------------------------------


def test_pieces_in_the_object_store_go_with_the_day(outside: Site) -> None:
    assert outside.pieces is not None
    outside.pieces.put(OLD, {"ab" * 32: b"left by a transaction that failed"})
    assert len(pieces_of(outside, OLD)) > 2
    outside.drop()
    assert outside.pieces.days() == [YESTERDAY, TODAY]
    assert outside.verdict() is Class.REDACTED


def test_what_the_object_store_takes_is_what_it_lists(outside: Site) -> None:
    store, (old, *_) = outside.store, outside.store.days()
    used, of_day = store.used_bytes(), store.size_of(old)
    outside.execute("UPDATE blobs SET size = 1048576")
    assert outside.store.used_bytes() < used + 1_000_000
    assert outside.store.size_of(old) < of_day + 1_000_000
    assert outside.pieces is not None
    outside.pieces.put(OLD, {"ab" * 32: bytes(5_000_000)})
    assert outside.store.used_bytes() >= used + 5_000_000
    assert outside.store.size_of(old) >= of_day + 5_000_000
    assert run(outside, max_bytes=used + 1_000_000) == [OLD]


def test_erased_pieces_leave_the_object_store_once_their_day_is_over(outside: Site) -> None:
    before = {day: pieces_of(outside, day) for day in (YESTERDAY, TODAY)}
    assert outside.erase(user="alice") == 18
    assert outside.pieces is not None
    assert outside.pieces.days() == [OLD, YESTERDAY, TODAY, f"{ERASING}{TODAY}"]
    assert pieces_of(outside, YESTERDAY) < before[YESTERDAY]
    assert pieces_of(outside, TODAY) == before[TODAY]
    assert outside.verdict() is Class.REDACTED
    ledger = outside.open()
    outside.call(ledger, "carol", b"alice 0")  # which is kept again
    ledger.close("the test is over")
    outside.now = NOW + timedelta(days=2)
    outside.finish()
    assert outside.pieces.days() == [OLD, YESTERDAY, TODAY]
    assert (
        len(before[TODAY]) - len(pieces_of(outside, TODAY))
        == len(before[YESTERDAY]) - len(pieces_of(outside, YESTERDAY)) - 1
    )
    assert outside.bodies()["carol"] == {b"alice 0", b"asked: alice 0"}
    assert outside.verdict() is Class.REDACTED


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["finish_pieces", "_finish_erasing", "erase"])
def test_an_erasure_that_breaks_off_is_gone_on_with(
    outside: Site, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(RetentionStore, step, breaking(getattr(RetentionStore, step), when))
        with pytest.raises(Killed):
            outside.erase(user="alice")
    recorded = recorded_places(outside)
    is_recorded_only = (step, when) == ("erase", "before")
    assert unfinished_places(outside) == (recorded if is_recorded_only else set())
    assert bool(recorded) == (step != "finish_pieces")
    expected = (Class.REDACTED if recorded else Class.INTACT) if not is_recorded_only else Class.INCOMPLETE
    assert outside.verdict() is expected
    outside.finish()
    assert not unfinished_places(outside)
    outside.erase(user="alice")
    assert outside.pieces is not None
    assert outside.pieces.days() == [OLD, YESTERDAY, TODAY, f"{ERASING}{TODAY}"]
    for day in (OLD, YESTERDAY):
        rows = outside.execute("SELECT sha256 FROM blobs WHERE day = :day AND body IS NULL", day=day)
        assert pieces_of(outside, day) == {str(digest) for (digest,) in rows}
    assert outside.verdict() is Class.REDACTED


def test_pieces_in_an_object_store_that_is_not_there_are_not_erased(outside: Site) -> None:
    pieces, outside.pieces = outside.pieces, None
    with pytest.raises(ConfigurationError, match=r"set audit\.payloads"):
        outside.erase(user="alice")
    with pytest.raises(ConfigurationError, match=r"set audit\.payloads"):
        outside.drop()
    outside.pieces = pieces
    assert not [told for told in outside.redactions() if not told.payloads]
    assert unfinished_places(outside) == recorded_places(outside)
    assert outside.verdict() is Class.INCOMPLETE
    outside.finish()
    assert outside.verdict() is Class.REDACTED


# -- the rest ----------------------------------------------------------------------------------------------------


def test_one_command_erases_at_a_time(site: Site) -> None:
    lock = site.folder / "lock"
    with site.store.alone(lock), pytest.raises(Conflict, match="another command"), site.store.alone(lock):
        pass
    with site.store.alone(lock):
        pass


def test_in_sqlite_what_was_erased_is_not_in_the_file(site: Site) -> None:
    if site.database.dialect != "sqlite":
        return
    secret, gone_with_its_day = b"asked: alice 1", b"asked: bob 2"
    assert {secret, gone_with_its_day} <= found_in_files(site, secret, gone_with_its_day)
    site.erase(user="alice")
    site.drop()
    assert not found_in_files(site, secret, gone_with_its_day)


def found_in_files(site: Site, *contents: bytes) -> set[bytes]:
    """Which of them the database's files hold anywhere."""
    files = b"".join((site.folder / f"audit.db{name}").read_bytes() for name in ("", "-wal"))
    return {content for content in contents if content in files}


def test_places_are_written_as_records_name_them() -> None:
    assert str(Place(7, Slot.REQUEST)) == "7/request"
