"""The logs of one replica, one after another, and what the database says of each of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from sqlalchemy import text

from audit.entries import entry, open_test_ledger, record
from audit.tampering import Site, codes, places
from holdfast.audit.anchors.file import append_note
from holdfast.audit.checkpoint import Checkpoint, Origin, sign_checkpoint
from holdfast.audit.ledger import read_clock
from holdfast.audit.note import KeyName
from holdfast.audit.record import Closing, Entry, Kind, Leaf, Record, decode, encode, encode_leaf, timestamp
from holdfast.audit.sequence import Clock
from holdfast.audit.store import LedgerStore
from holdfast.audit.tree import hash_leaf, root_of
from holdfast.audit.verify import Class
from holdfast.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.audit.logs import Batch, LogRow
    from holdfast.audit.record import Start

EPOCHS = 3


@pytest.fixture
def chain(site: Site) -> Site:
    """Replica gw has three logs: the first was not closed, since it had too many records to go on with."""
    site.ledgers["gw"].close()
    ledger = open_test_ledger(site.folder, site.database, epoch_records=10)
    for number in range(12):
        site.record_call(ledger, b"%d" % number)
    site.ledgers["gw"] = ledger
    site.anchor()
    return site


def named(site: Site, epoch: int) -> LogRow:
    """One of the logs of replica gw."""
    (row,) = [log for log in LedgerStore(site.database).all_logs() if log.origin == f"holdfast/test/gw/{epoch}"]
    return row


def forge_start(site: Site, log: LogRow, change: Callable[[Start], Start], previous: str) -> None:
    """Let a log begin otherwise, and sign it anew with the gateway's own key."""
    leaf = decode(site.leaves(log)[0])
    assert leaf.record.start is not None
    told = msgspec.structs.replace(leaf.record, start=change(leaf.record.start))
    site.put_leaf(log, 0, encode_leaf(Leaf(told, leaf.log, 0, previous, leaf.time, leaf.mono), encode(told)))
    site.relink(log)
    site.sign_again(log, site.live_key(log))


def test_a_chain_of_logs_is_intact(chain: Site) -> None:
    report = chain.verify()
    assert (codes(report), report.verdict()) == (set(), Class.INTACT)
    closed = [log.closed for log in report.logs if "/gw/" in log.origin]
    assert len(closed) >= EPOCHS
    assert closed[:2] == [False, True]


def test_the_last_log_anchors_those_before_it(chain: Site) -> None:
    for file in chain.anchors.iterdir():
        file.unlink()
    append_note(chain.anchors / "last.notes", LedgerStore(chain.database).latest_note(chain.log))
    report = chain.verify()
    assert codes(report) == set()
    assert {log.origin: log.anchored_size for log in report.logs} == {log.origin: log.size for log in report.logs}


@pytest.mark.parametrize("epoch", [1, 2])
def test_the_end_cut_off_a_log_that_another_goes_on_from(chain: Site, epoch: int) -> None:
    log = named(chain, epoch)
    chain.drop_from(log, log.size - 2)
    chain.relink(log, log.size)
    chain.execute("DELETE FROM checkpoints WHERE log = :log AND size > :size", log=log.id, size=log.size - 2)
    for file in chain.anchors.iterdir():
        file.unlink()
    assert "truncated" in codes(chain.verify())


def test_a_log_that_begins_anew(chain: Site) -> None:
    def begin_anew(start: Start) -> Start:
        return msgspec.structs.replace(start, previous_log="", previous_size=0)

    forge_start(chain, chain.log, begin_anew, "00" * 32)
    report = chain.verify()
    assert codes(report) == {"chain-broken", "forked"}
    assert "does not name the log before it" in report.findings[-1].what


def test_a_log_that_goes_on_from_another_replica_s(chain: Site) -> None:
    other = chain.named("other")

    def go_on(start: Start) -> Start:
        return msgspec.structs.replace(start, previous_log=other.origin, previous_size=other.size)

    forge_start(chain, chain.log, go_on, other.root)
    report = chain.verify()
    assert codes(report) == {"chain-broken", "forked"}
    assert any("none of the logs before it" in finding.what for finding in report.findings)


def test_a_log_that_was_added_to_after_the_next_one_began(chain: Site) -> None:
    log = named(chain, 2)
    leaves = chain.leaves(log)
    last = decode(leaves[-1])
    told = Record(kind=Kind.HEARTBEAT, at=last.record.at)
    added = Leaf(told, log.origin, log.size, hash_leaf(leaves[-1]).hex(), last.time, last.mono)
    chain.execute(
        "INSERT INTO records (day, log, seq, call_id, kind, at, leaf) VALUES (:day, :log, :seq, '', :kind, :at, :leaf)",
        day=log.day, log=log.id, seq=log.size, kind="heartbeat", at=told.at, leaf=encode_leaf(added, encode(told)),
    )  # fmt: skip
    chain.sign_again(log, chain.live_key(log), keep=log.size)
    report = chain.verify()
    assert codes(report) == {"chain-broken", "tail-unanchored"}
    assert {finding.what for finding in report.findings if finding.code.name == "chain-broken"} == {
        "it goes on after it was closed",
        f"it has {log.size + 1} records; the log after it goes on from {log.size}",
    }


def test_a_log_that_nobody_goes_on_from_and_that_was_not_closed(site: Site) -> None:
    """Its end may be missing; nothing but its own last checkpoint says that it is all."""
    gw = site.log
    for epoch in (2, 3):
        origin = Origin(KeyName(f"holdfast/test/gw/{epoch}"))
        first = decode(site.leaves(gw)[0])
        assert first.record.start is not None
        start = msgspec.structs.replace(first.record.start, previous_log=gw.origin, previous_size=gw.size)
        told = msgspec.structs.replace(first.record, start=start)
        leaf = encode_leaf(Leaf(told, origin, 0, gw.root, first.time, first.mono), encode(told))
        checkpoint = Checkpoint(origin, 1, root_of([hash_leaf(leaf)]))
        add_log(site, gw, epoch, leaf, checkpoint)
    site.anchor()
    report = site.verify()
    assert codes(report) == {"chain-broken"}
    assert [finding.log for finding in report.findings] == ["holdfast/test/gw/2"]


def add_log(site: Site, like: LogRow, epoch: int, leaf: bytes, checkpoint: Checkpoint) -> None:
    """A log of one record by the gateway's live key."""
    note = sign_checkpoint(checkpoint, site.keys.load_epoch_key().signer_for(checkpoint.origin))
    values = {
        "id": 100 + epoch, "origin": checkpoint.origin, "epoch": epoch, "day": like.day, "size": 1,
        "certificate": like.certificate, "root": checkpoint.root.hex(), "opened": decode(leaf).time, "leaf": leaf,
        "at": decode(leaf).record.at, "note": note,
    }  # fmt: skip
    with site.database.writing() as connection:
        for statement in (
            "INSERT INTO logs (id, origin, replica, epoch, day, certificate, size, root, opened_at) "
            "VALUES (:id, :origin, 'gw', :epoch, :day, :certificate, :size, :root, :opened)",
            "INSERT INTO records (day, log, seq, call_id, kind, at, leaf) "
            "VALUES (:day, :id, 0, '', 'heartbeat', :at, :leaf)",
            "INSERT INTO checkpoints (day, log, size, note) VALUES (:day, :id, 1, :note)",
        ):
            connection.execute(text(statement), values)


def test_a_call_listed_as_it_was_in_an_earlier_log(chain: Site) -> None:
    """Held in one log, begun in the next; the list is put back to what it was while the call was held."""
    ledger = open_test_ledger(chain.folder, chain.database, replica="third")
    told = record(kind=Kind.HOLD)
    ledger.write([Entry(told)])
    with chain.database.reading() as connection:
        held = connection.execute(text("SELECT * FROM calls WHERE audit_id = :id"), {"id": told.call}).mappings().one()
    ledger.close("it has enough records")
    later = open_test_ledger(chain.folder, chain.database, replica="third")
    later.write([Entry(record(told.call, Kind.INTENT))])
    chain.anchor()
    assert codes(chain.verify()) == {"outcome-missing"}
    columns = ", ".join(f"{name} = :{name}" for name in held)
    chain.execute(f"UPDATE calls SET {columns} WHERE audit_id = :audit_id", **held)  # noqa: S608
    report = chain.verify()
    assert codes(report) == {"outcome-missing", "call-altered"}
    assert [finding.log for finding in report.findings if finding.code.name == "call-altered"] == [later.row.origin]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE logs SET replica = 'else' WHERE id = :log",
        "UPDATE logs SET epoch = epoch + 1 WHERE id = :log",
        "UPDATE logs SET opened_at = '2020-01-01T00:00:00.000000Z' WHERE id = :log",
        "UPDATE logs SET opened_at = '2999-01-01T00:00:00.000000Z' WHERE id = :log",
        "UPDATE logs SET opened_at = day || 'T23:59:59.999999Z' WHERE id = :log",
        "UPDATE logs SET opened_at = day || 'T00:00' WHERE id = :log",
        "UPDATE logs SET closed_at = opened_at WHERE id = :log",
        "UPDATE logs SET size = size - 1 WHERE id = :log",
        "UPDATE logs SET size = size + 1 WHERE id = :log",
        "UPDATE logs SET root = 'x' WHERE id = :log",
    ],
)
def test_an_edited_column_of_a_log(site: Site, change: str) -> None:
    assert site.execute(change, log=site.log.id) == 1
    assert codes(site.verify()) == {"log-altered"}


@pytest.mark.parametrize("day", ["2020-01-01", "2999-01-01"])
def test_a_log_put_on_another_day_with_all_that_it_has(site: Site, day: str) -> None:
    log = site.log
    for table in ("records", "bodies", "checkpoints"):
        site.execute(f"UPDATE {table} SET day = :day WHERE log = :log", day=day, log=log.id)  # noqa: S608
    site.execute(
        "INSERT INTO blobs SELECT DISTINCT :day, b.sha256, b.size, b.codec, b.body FROM blobs b "
        "JOIN bodies p ON p.sha256 = b.sha256 WHERE p.log = :log",
        day=day, log=log.id,
    )  # fmt: skip
    site.execute(
        "DELETE FROM blobs WHERE NOT EXISTS "
        "(SELECT 1 FROM bodies WHERE bodies.day = blobs.day AND bodies.sha256 = blobs.sha256)"
    )
    site.execute("UPDATE logs SET day = :day, opened_at = :at WHERE id = :log", day=day, at=f"{day}T00:00:00.000000Z",
                 log=log.id)  # fmt: skip
    report = site.verify()
    assert codes(report) == {"log-altered"}
    assert places(report, "log-altered") == [None]


# -- the day of a log whose first record came late ---------------------------------------------------------------


@dataclass
class Hands:
    """Both clocks, and whether the database takes the first records of a log."""

    now: datetime
    is_away: bool = False

    def __call__(self) -> Clock:
        return Clock(timestamp(self.now), int(self.now.timestamp() * 1_000_000))

    def go(self, to: datetime) -> None:
        self.now = to


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands(datetime(2026, 3, 1, 12, tzinfo=UTC))
    commit = LedgerStore.commit

    def commit_or_fail(store: LedgerStore, batch: Batch) -> None:
        if hands.is_away and not batch.before.size:
            raise Unavailable("the database is away")
        commit(store, batch)

    monkeypatch.setattr(LedgerStore, "commit", commit_or_fail)
    return hands


def begin_late(site: Site, hands: Hands, *, until: datetime) -> LogRow:
    """A log that is opened ten minutes before midnight, and gets its first record when the database is back."""
    ledger = open_test_ledger(site.folder, site.database, replica="third", epoch_records=3, clock=hands)
    ledger.write([entry(), entry()])
    hands.go(datetime(2026, 3, 1, 23, 50, tzinfo=UTC))
    hands.is_away = True
    with pytest.raises(Unavailable):
        ledger.write([entry()])
    hands.go(until)
    hands.is_away = False
    ledger.write([entry()])
    site.anchor()
    (row,) = [log for log in LedgerStore(site.database).all_logs() if log.origin == "holdfast/test/third/2"]
    return row


@pytest.mark.parametrize("hours", [0.05, 2, 26, 50])
def test_a_log_whose_first_record_came_when_the_database_was_back(site: Site, hands: Hands, hours: float) -> None:
    row = begin_late(site, hands, until=datetime(2026, 3, 1, 23, 50, tzinfo=UTC) + timedelta(hours=hours))
    first = decode(site.leaves(row)[0])
    assert (row.day, row.opened_at) == ("2026-03-01", first.record.at)
    assert datetime.fromisoformat(first.time) - datetime.fromisoformat(row.opened_at) == timedelta(hours=hours)
    assert (codes(site.verify()), site.verify().verdict()) == (set(), Class.INTACT)


@pytest.mark.parametrize(
    ("day", "opened_at"),
    [
        ("2026-03-02", "2026-03-02T00:00:00.000000Z"),
        ("2026-03-02", "2026-03-02T01:50:00.000000Z"),
        ("2026-03-01", "2026-03-02T01:50:00.000000Z"),
        ("2026-03-01", "2026-03-01T23:50:00.000001Z"),
        ("2026-02-28", "2026-02-28T23:50:00.000000Z"),
    ],
)
def test_such_a_log_is_not_put_on_another_day(site: Site, hands: Hands, day: str, opened_at: str) -> None:
    row = begin_late(site, hands, until=datetime(2026, 3, 2, 2, tzinfo=UTC))
    for table in ("records", "bodies", "checkpoints"):
        site.execute(f"UPDATE {table} SET day = :day WHERE log = :log", day=day, log=row.id)  # noqa: S608
    site.execute("UPDATE logs SET day = :day, opened_at = :at WHERE id = :log", day=day, at=opened_at, log=row.id)
    report = site.verify()
    assert codes(report) == {"log-altered"}
    assert [finding.log for finding in report.findings] == [row.origin]


def test_a_log_that_was_opened_before_the_clock_was_set_back(site: Site, hands: Hands) -> None:
    """It is found again, and begun: by what the clock says then."""
    ledger = open_test_ledger(site.folder, site.database, replica="third", epoch_records=3, clock=hands)
    ledger.write([entry(), entry()])
    hands.go(datetime(2026, 3, 1, 15, tzinfo=UTC))
    hands.is_away = True
    with pytest.raises(Unavailable):
        ledger.write([entry()])
    ledger.close()
    hands.go(datetime(2026, 3, 1, 14, tzinfo=UTC))
    hands.is_away = False
    again = open_test_ledger(site.folder, site.database, replica="third", epoch_records=3, clock=hands)
    assert again.row.origin == "holdfast/test/third/2"
    site.anchor()
    assert codes(site.verify()) == {"clock-back"}


def test_a_closed_log_that_is_said_to_be_open(site: Site) -> None:
    site.ledgers["gw"].close("the day is over")
    site.anchor()
    assert codes(site.verify()) == set()
    assert site.execute("UPDATE logs SET closed_at = NULL WHERE id = :log", log=site.log.id) == 1
    assert codes(site.verify()) == {"log-altered"}


def test_a_record_after_the_last_one(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    closing = Record(kind=Kind.CLOSE, at="2026-03-01T12:00:00.000000Z", close=Closing(reason="forged"))
    site.edit(log, seq, lambda told: closing)
    assert "chain-broken" in codes(site.verify())


def test_a_clock_that_was_set_back_between_two_logs(site: Site) -> None:
    site.ledgers["gw"].close("shut down")

    def late() -> Clock:
        now = read_clock()
        return Clock(timestamp(datetime.fromisoformat(now.time) + timedelta(seconds=30)), now.mono)

    ahead = open_test_ledger(site.folder, site.database, clock=late)
    ahead.close("the clock is set")
    open_test_ledger(site.folder, site.database)
    site.anchor()
    report = site.verify()
    assert (codes(report), report.verdict()) == ({"clock-back"}, Class.CLOCK)
    assert report.findings[0].log == "holdfast/test/gw/3"


def test_a_site_writes_bodies(site: Site) -> None:
    """What the attacks on bodies above attack is there."""
    site.ledgers["gw"].write([entry(b"more")])
    assert site.execute("DELETE FROM bodies") > 2 * EPOCHS


def add_empty(site: Site, epoch: int, *, replica: str = "gw", **changed: str) -> None:
    """Put a log without a record into the database, as one is whose first records could not be written."""
    told = {"day": "2026-03-01", "opened_at": "2026-03-01T12:00:00.000000Z"} | changed
    certificate = site.log.certificate
    origin = f"holdfast/test/{replica}/{epoch}"
    site.execute(
        "INSERT INTO logs (origin, replica, epoch, day, certificate, size, root, opened_at) "
        "VALUES (:origin, :replica, :epoch, :day, :certificate, 0, :root, :opened_at)",
        origin=origin, replica=replica, epoch=epoch, certificate=certificate, root=root_of([]).hex(), **told,
    )  # fmt: skip


def test_a_log_whose_first_records_could_not_be_written(chain: Site) -> None:
    """Nor does it say that the end of the one before, which was not closed, may be cut off."""
    last = int(chain.log.origin.rpartition("/")[2])
    add_empty(chain, last + 1)
    add_empty(chain, last + 2)
    add_empty(chain, 1, replica="gw.console")
    assert codes(chain.verify()) == set()


@pytest.mark.parametrize(
    ("epoch", "changed"),
    [
        (1, {"opened_at": "whenever"}),
        (1, {"opened_at": "2026-03-02T12:00:00.000000Z"}),
        (1, {"day": "2026-03-02"}),
        (2, {}),
        (999_999_999, {}),
    ],
)
def test_a_made_up_log_without_a_record(site: Site, epoch: int, changed: dict[str, str]) -> None:
    add_empty(site, epoch, replica="gw.maintenance", **changed)
    report = site.verify()
    assert codes(report) == {"log-altered"}
    assert report.findings[0].log == f"holdfast/test/gw.maintenance/{epoch}"


def test_an_empty_log_that_is_said_to_be_closed(site: Site) -> None:
    add_empty(site, 1, replica="gw.maintenance")
    site.execute("UPDATE logs SET closed_at = opened_at WHERE replica = 'gw.maintenance'")
    assert codes(site.verify()) == {"log-altered"}
