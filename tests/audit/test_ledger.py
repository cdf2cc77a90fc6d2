"""One writer's logs: opened, added to, ended, followed, and gone on with only when nothing is missing."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import event, text

from audit.entries import entry, new_id, open_test_ledger, record
from holdfast.audit.checkpoint import Origin, open_checkpoint, parse_checkpoint
from holdfast.audit.head import HeadFile
from holdfast.audit.keys import EPOCH_KEY_DAYS, ROLES, KeyFolder, parse_certificate
from holdfast.audit.ledger import Ledger, Writer
from holdfast.audit.note import KeyName, decode_base64
from holdfast.audit.receipt import Receipt
from holdfast.audit.record import Entry, Kind, decode, timestamp
from holdfast.audit.sequence import NO_HASH, Clock
from holdfast.audit.store import LedgerStore
from holdfast.audit.store.export import export_lines
from holdfast.audit.tree import hash_leaf, root_of
from holdfast.audit.verify import Anchoring, Class, Report, verify_lines
from holdfast.database import Database
from holdfast.errors import ConfigurationError, Internal, Superseded, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from holdfast.audit.checkpoint import Checkpoint
    from holdfast.audit.keys import EpochKey
    from holdfast.audit.logs import LogRow
    from holdfast.audit.record import Leaf
    from services.postgres import PostgresServer


@pytest.fixture
def store(database: Database) -> LedgerStore:
    return LedgerStore(database)


class Hands:
    """A clock that only goes when it is told to."""

    def __init__(self) -> None:
        self.moment = datetime.now(UTC).replace(hour=12)

    def __call__(self) -> Clock:
        return Clock(timestamp(self.moment), int(self.moment.timestamp() * 1_000_000))

    def forward(self, **by: float) -> None:
        self.moment += timedelta(**by)


def told(store: LedgerStore, row: LogRow) -> list[Leaf]:
    return [decode(leaf) for leaf in store.leaves(row)]


def kinds(store: LedgerStore, row: LogRow) -> list[str]:
    return [leaf.record.kind.value for leaf in told(store, row)]


def audit(database: Database, folder: Path) -> Report:
    root = KeyFolder(folder / "audit-keys").root_verifier()
    return verify_lines(export_lines(database, "test", timestamp(datetime.now(UTC))), root, Anchoring())


def counts(database: Database, folder: Path) -> set[str]:
    """What an auditor finds, missing anchors aside."""
    return set(audit(database, folder).counts) - {"no-anchor"}


def verdict(database: Database, folder: Path) -> set[str]:
    """The same, when nothing may be altered."""
    report = audit(database, folder)
    assert Class.ALTERED not in report.classes, report.findings
    return set(report.counts) - {"no-anchor"}


def test_leaves_follow_each_other_and_every_commit_is_signed(
    database: Database, store: LedgerStore, tmp_path: Path
) -> None:
    ledger = open_test_ledger(tmp_path, database)
    receipts = [receipt for _ in range(3) for receipt in ledger.write([entry(), entry()])]
    leaves = list(store.leaves(ledger.row))
    previous = NO_HASH
    for seq, leaf in enumerate(map(decode, leaves)):
        assert (leaf.log, leaf.seq, leaf.previous) == (ledger.row.origin, seq, previous.hex())
        previous = hash_leaf(leaves[seq])
    root = KeyFolder(tmp_path / "audit-keys").root_verifier()
    verifier = parse_certificate(ledger.row.certificate, root).verifier_for(ledger.row.origin)
    for receipt in receipts:
        assert isinstance(receipt, Receipt)
        assert receipt.leaf_hash == hash_leaf(leaves[receipt.seq])
        checkpoint = open_checkpoint(receipt.note, verifier)
        assert receipt.seq < checkpoint.size
        assert checkpoint.root == root_of(map(hash_leaf, leaves[: checkpoint.size]))
    with database.reading() as connection:
        sizes = list(connection.execute(text("SELECT size FROM checkpoints ORDER BY size")).scalars())
    assert sizes == [1, 3, 5, 7]
    assert verdict(database, tmp_path) == set()


def test_leaves_and_their_checkpoint_become_visible_at_once(
    database: Database, store: LedgerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_test_ledger(tmp_path, database)
    before, after = ledger.row, []
    advance = LedgerStore._advance_log

    def look_first(self: LedgerStore, connection: Connection, batch: Any) -> None:
        event.listen(connection, "commit", lambda _: after.append(seen()))
        advance(self, connection, batch)

    def seen() -> tuple[int, int, int]:
        """As another connection sees it: the log's size, its leaves, and the size that is signed."""
        found = store.last_log("gw")
        assert found is not None
        signed = open_checkpoint(store.latest_note(found), verifier)
        return found.size, len(list(store.leaves(found))), signed.size

    root = KeyFolder(tmp_path / "audit-keys").root_verifier()
    verifier = parse_certificate(before.certificate, root).verifier_for(before.origin)
    monkeypatch.setattr(LedgerStore, "_advance_log", look_first)
    ledger.write([entry(), entry()])
    assert after == [(1, 1, 1)]
    assert seen() == (3, 3, 3)


def test_a_record_that_the_database_does_not_take_is_the_only_one_left_out(
    database: Database, store: LedgerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_test_ledger(tmp_path, database)
    spoilt, commit = new_id(), LedgerStore.commit

    def refuse(self: LedgerStore, batch: Any) -> None:
        if any(placed.record.call == spoilt for placed in batch.placed):
            raise Internal("the audit database cannot be written: it holds NUL")
        commit(self, batch)

    monkeypatch.setattr(LedgerStore, "commit", refuse)
    first, left_out, last = ledger.write([entry(), entry(call=spoilt), entry()])
    assert isinstance(left_out, Internal)
    assert isinstance(first, Receipt)
    assert isinstance(last, Receipt)
    assert last.seq == first.seq + 1
    assert store.last_log("gw") == ledger.row
    assert verdict(database, tmp_path) == set()


def test_an_outage_while_a_refused_batch_is_split_fails_only_what_was_not_kept(
    database: Database, store: LedgerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = Hands()
    ledger = open_test_ledger(tmp_path, database, clock=hands, epoch_records=3)
    entries = [entry() for _ in range(6)]
    spoilt, stopping, commit = entries[1].record.call, entries[4].record.call, LedgerStore.commit
    tried: list[list[str]] = []

    def refuse(self: LedgerStore, batch: Any) -> None:
        calls = [placed.record.call for placed in batch.placed]
        tried.append(calls)
        if spoilt in calls:
            raise Internal("the audit database cannot be written: it holds NUL")
        if stopping in calls:
            raise Unavailable("the database is down")
        commit(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(LedgerStore, "commit", refuse)
        results = ledger.write(entries)
    assert [type(result) for result in results] == [Receipt, Internal, Receipt, Receipt, Unavailable, Unavailable]
    calls = [item.record.call for item in entries]
    assert tried == [calls, *([call] for call in calls[:5])]
    assert [leaf.record.call for leaf in told(store, ledger.row)] == ["", calls[0], calls[2], calls[3]]
    assert isinstance(ledger.write(entries[4:])[0], Receipt)
    assert verdict(database, tmp_path) == set()


def test_a_record_that_cannot_be_encoded_is_the_only_one_left_out(
    database: Database, store: LedgerStore, tmp_path: Path
) -> None:
    ledger = open_test_ledger(tmp_path, database)
    first, spoilt, last = ledger.write([entry(), entry(error="\udcff"), entry()])
    assert isinstance(spoilt, Internal)
    assert isinstance(first, Receipt)
    assert isinstance(last, Receipt)
    assert last.seq == first.seq + 1
    assert store.last_log("gw") == ledger.row


def test_the_next_run_of_the_day_goes_on_with_the_log(database: Database, store: LedgerStore, tmp_path: Path) -> None:
    first = open_test_ledger(tmp_path, database)
    first.write([entry()])
    first.close()
    second = open_test_ledger(tmp_path, database)
    second.write([entry()])
    assert second.row.origin == first.row.origin
    assert kinds(store, second.row) == ["heartbeat", "outcome", "heartbeat", "outcome"]
    runs = [leaf.record.start.run for leaf in told(store, second.row) if leaf.record.start]
    assert len(set(runs)) == 2
    assert verdict(database, tmp_path) == set()


def test_a_new_day_begins_a_new_log_that_names_the_root_of_the_last(
    database: Database, store: LedgerStore, tmp_path: Path
) -> None:
    hands = Hands()
    ledger = open_test_ledger(tmp_path, database, clock=hands)
    ledger.write([entry()])
    first = ledger.row
    hands.forward(days=1)
    ledger.write([entry()])
    assert (ledger.row.epoch, ledger.row.day) == (2, hands().day)
    ended = store.find_log(first.origin)
    assert ended is not None
    assert ended.closed_at == hands().time
    assert kinds(store, ended)[-1] == "close"
    beginning = told(store, ledger.row)[0]
    assert beginning.previous == ended.root
    assert beginning.record.start is not None
    assert (beginning.record.start.previous_log, beginning.record.start.previous_size) == (ended.origin, ended.size)
    assert [parse_checkpoint(note)[0].origin for note in ledger.latest_notes] == [first.origin, ledger.row.origin]


def test_a_log_that_has_enough_records_is_followed_by_the_next(
    database: Database, store: LedgerStore, tmp_path: Path
) -> None:
    ledger = open_test_ledger(tmp_path, database, epoch_records=5)
    for _ in range(12):
        ledger.write([entry()])
    logs = store.all_logs()
    assert [log.size for log in logs[:-1]] == [6, 6, 6]
    assert all(log.closed_at for log in logs[:-1])
    assert verdict(database, tmp_path) == set()


def test_without_its_head_file_a_gateway_begins_anew_and_says_so(
    database: Database, store: LedgerStore, tmp_path: Path
) -> None:
    first = open_test_ledger(tmp_path, database)
    first.write([entry()])
    first.close()
    (tmp_path / "gw.head").unlink()
    second = open_test_ledger(tmp_path, database)
    assert second.row.epoch == 2
    start = told(store, second.row)[0].record.start
    assert start is not None
    assert start.gap == "the local head file was missing"
    assert verdict(database, tmp_path) == {"gap"}


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM records WHERE seq = 3", "now has 3"),
        ("UPDATE records SET leaf = (SELECT leaf FROM records WHERE seq = 1) WHERE seq = 2", "other ones"),
        ("DELETE FROM logs", "it lacks the log holdfast/test/gw/1"),
        ("UPDATE logs SET size = 3", "should have 3 records and has 4"),
        ("DELETE FROM checkpoints", "has no good checkpoint"),
        ("DELETE FROM checkpoints WHERE size = 4", "is not what its checkpoint says"),
    ],
)
def test_a_database_that_lacks_anything_is_not_gone_on_with(
    database: Database, tmp_path: Path, statement: str, says: str
) -> None:
    ledger = open_test_ledger(tmp_path, database)
    for _ in range(3):
        ledger.write([entry()])
    ledger.close()
    with database.writing() as connection:
        connection.execute(text(statement))
    with pytest.raises(ConfigurationError, match="not as this gateway left it") as refused:
        open_test_ledger(tmp_path, database)
    assert says in str(refused.value)
    assert "holdfast audit accept" in str(refused.value)


def put_back(database: Database, *, size: int) -> None:
    """The database as it was when its only log had that many records."""
    leaves = list(LedgerStore(database).leaves(LedgerStore(database).all_logs()[0]))[:size]
    root = root_of(map(hash_leaf, leaves)).hex()
    with database.writing() as connection:
        for table, column in (
            ("records", "seq >="),
            ("bodies", "seq >="),
            ("calls", "seq >="),
            ("checkpoints", "size >"),
        ):
            connection.execute(text(f"DELETE FROM {table} WHERE {column} :size"), {"size": size})  # noqa: S608
        if size:
            connection.execute(text("UPDATE logs SET size = :size, root = :root"), {"size": size, "root": root})
        else:
            connection.execute(text("DELETE FROM logs"))


@pytest.mark.parametrize("size", [0, 2])
def test_a_database_that_was_put_back_is_gone_on_with_once_somebody_says_why(
    database: Database, store: LedgerStore, tmp_path: Path, size: int
) -> None:
    ledger = open_test_ledger(tmp_path, database)
    for _ in range(3):
        ledger.write([entry()])
    ledger.close()
    put_back(database, size=size)
    with pytest.raises(ConfigurationError, match="not as this gateway left it"):
        open_test_ledger(tmp_path, database)
    HeadFile(tmp_path / "gw.head").write_gap("the disk failed")
    again = open_test_ledger(tmp_path, database)
    again.write([entry()])
    # Checkpoints of log 1 are known elsewhere: no other log is ever called so.
    assert again.row.epoch == 2
    start = told(store, again.row)[0].record.start
    assert start is not None
    assert (start.gap, start.previous_size) == ("the disk failed", size)
    # Where nothing is left, somebody took log 1 away, whoever says why.
    assert counts(database, tmp_path) == {"gap", *(() if size else ("chain-broken",))}


@pytest.mark.parametrize("epoch", ["9" * 5000, "9" * 30, "٣", "0", "07"])
def test_a_remembered_log_of_no_possible_number_is_nothing_to_count_from(
    database: Database, store: LedgerStore, tmp_path: Path, epoch: str
) -> None:
    ledger = open_test_ledger(tmp_path, database)
    ledger.close()
    checkpoint = parse_checkpoint(store.latest_note(ledger.row))[0]
    text = replace(checkpoint, origin=Origin(KeyName(f"holdfast/test/gw/{epoch}"))).text()
    (tmp_path / "gw.head").write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match=r"not as this gateway left it|is damaged|cannot be read"):
        open_test_ledger(tmp_path, database)
    HeadFile(tmp_path / "gw.head").write_gap("somebody wrote into the head file")
    assert open_test_ledger(tmp_path, database).row.epoch == 2
    assert verdict(database, tmp_path) == {"gap"}


def test_a_gateway_that_is_given_another_name_begins_logs_of_that_name(
    database: Database, store: LedgerStore, tmp_path: Path
) -> None:
    ledger = open_test_ledger(tmp_path, database)
    ledger.write([entry()])
    ledger.close()
    keys = KeyFolder(tmp_path / "audit-keys")
    names = tuple("new" + role for role in ROLES)
    keys.make_epoch_key(keys.load_root(), "test", names, Ed25519PrivateKey.generate(), datetime.now(UTC))

    def open_as_new() -> Ledger:
        head = HeadFile(tmp_path / "gw.head")
        renamed = Ledger(LedgerStore(database), keys, Writer("test", "new", 1000), head)
        renamed.open()
        return renamed

    renamed = open_as_new()
    assert renamed.row.origin == "holdfast/test/new/1"
    assert verdict(database, tmp_path) == set()
    renamed.close()
    with closing(HeadFile(tmp_path / "gw.head")) as head:
        head.save(parse_checkpoint(store.latest_note(ledger.row))[0])
    put_back_one = "UPDATE logs SET size = 1 WHERE replica = 'gw'"
    with database.writing() as connection:
        connection.execute(text(put_back_one))
    with pytest.raises(ConfigurationError, match="should have 1 records and has 2"):
        open_as_new()


def test_of_two_writers_of_one_log_the_second_stops_the_first(
    database: Database, store: LedgerStore, tmp_path: Path
) -> None:
    first = open_test_ledger(tmp_path, database)
    first.write([entry()])
    # The same state folder, on another machine.
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "audit-keys", other / "audit-keys")
    shutil.copy(tmp_path / "gw.head", other)
    second = open_test_ledger(other, database)
    assert second.row.origin == first.row.origin
    for _ in range(2):
        with pytest.raises(Superseded, match="another process writes it"):
            first.write([entry()])
    assert isinstance(second.write([entry()])[0], Receipt)
    assert kinds(store, second.row) == ["heartbeat", "outcome", "heartbeat", "outcome"]
    assert verdict(database, tmp_path) == set()


@pytest.mark.parametrize("end", ["dropped_at", "closed_at"])
def test_a_log_that_has_ended_takes_no_more_records(
    database: Database, store: LedgerStore, tmp_path: Path, end: str
) -> None:
    ledger = open_test_ledger(tmp_path, database)
    ledger.write([entry()])
    with database.writing() as connection:
        connection.execute(text(f"UPDATE logs SET {end} = opened_at"))  # noqa: S608
    before = list(store.leaves(ledger.row))
    for _ in range(2):
        with pytest.raises(Superseded, match="retention dropped it"):
            ledger.write([entry()])
    assert list(store.leaves(ledger.row)) == before
    ended = ledger.row
    ledger.close()
    following = open_test_ledger(tmp_path, database)
    assert (following.row.epoch, isinstance(following.write([entry()])[0], Receipt)) == (ended.epoch + 1, True)


def test_two_processes_do_not_write_one_log(database: Database, tmp_path: Path) -> None:
    ledger = open_test_ledger(tmp_path, database)
    with pytest.raises(ConfigurationError, match="another Holdfast process writes the log"):
        open_test_ledger(tmp_path, database)
    ledger.close()
    open_test_ledger(tmp_path, database).close()


def test_replicas_write_at_once_without_waiting_for_each_other_s_numbers(
    database: Database, store: LedgerStore, tmp_path: Path
) -> None:
    ledgers = [open_test_ledger(tmp_path, database, replica=name) for name in ("gw", "second", "third")]
    threads = [threading.Thread(target=lambda own=own: [own.write([entry()]) for _ in range(20)]) for own in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ledger in ledgers:
        hashes = [hash_leaf(leaf) for leaf in store.leaves(ledger.row)]
        assert (len(hashes), root_of(hashes).hex()) == (ledger.row.size, ledger.row.root)
        ledger.beat()
    assert verdict(database, tmp_path) == set()


def test_what_becomes_of_other_logs_is_told_once(database: Database, store: LedgerStore, tmp_path: Path) -> None:
    other = open_test_ledger(tmp_path, database, replica="other")
    ledger = open_test_ledger(tmp_path, database)
    for written in (0, 0, 1, 0):
        other.write([entry() for _ in range(written)])
        ledger.beat()
    sizes = [[peer.size for peer in leaf.record.peers] for leaf in told(store, ledger.row) if leaf.record.peers]
    assert sizes == [[1], [2]]
    assert kinds(store, ledger.row) == ["heartbeat", "peer", "heartbeat", "heartbeat", "heartbeat", "peer", "heartbeat"]


def test_a_log_that_was_dropped_is_not_told_again(database: Database, store: LedgerStore, tmp_path: Path) -> None:
    open_test_ledger(tmp_path, database, replica="other").close("its day is over")
    open_test_ledger(tmp_path, database, replica="kept").close("its day is over")
    with database.writing() as connection:
        connection.execute(text("UPDATE logs SET dropped_at = closed_at WHERE replica = 'other'"))
    ledger = open_test_ledger(tmp_path, database)
    ledger.beat()
    (tells,) = [leaf.record for leaf in told(store, ledger.row) if leaf.record.peers]
    assert [peer.log for peer in tells.peers] == ["holdfast/test/kept/1"]


def lose_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next commit takes place, and nobody hears of it."""
    commit, left = LedgerStore.commit, [1]

    def commit_and_break(self: LedgerStore, batch: Any) -> None:
        commit(self, batch)
        if left[0]:
            left[0] -= 1
            raise Unavailable("the connection broke")

    monkeypatch.setattr(LedgerStore, "commit", commit_and_break)


def test_a_commit_whose_answer_is_lost_is_taken_over_once(
    database: Database, store: LedgerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_test_ledger(tmp_path, database)
    lose_answer(monkeypatch)
    lost = new_id()
    with pytest.raises(Unavailable, match="the connection broke"):
        ledger.write([entry(call=lost)])
    ledger.write([entry()])
    assert [leaf.record.call for leaf in told(store, ledger.row)].count(lost) == 1
    ledger.close()
    open_test_ledger(tmp_path, database)
    assert verdict(database, tmp_path) == set()


def test_a_commit_that_fails_leaves_no_trace(
    database: Database, store: LedgerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_test_ledger(tmp_path, database)
    before = ledger.row

    def fail(self: LedgerStore, batch: Any) -> None:
        raise Unavailable("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(LedgerStore, "commit", fail)
        with pytest.raises(Unavailable):
            ledger.write([entry()])
    assert (ledger.row, store.last_log("gw")) == (before, before)
    assert isinstance(ledger.write([entry()])[0], Receipt)
    assert verdict(database, tmp_path) == set()


@pytest.mark.parametrize("step", ["close", "begin", "first"])
@pytest.mark.parametrize("happened", [True, False])
def test_a_failure_in_the_middle_of_a_new_day_is_made_good_by_the_next_write(
    database: Database, store: LedgerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, happened: bool
) -> None:
    hands = Hands()
    ledger = open_test_ledger(tmp_path, database, clock=hands)
    ledger.write([entry()])
    hands.forward(days=1)
    name = "begin_log" if step == "begin" else "commit"
    real, calls = getattr(LedgerStore, name), [0]

    def fail_once(self: LedgerStore, argument: Any) -> Any:
        calls[0] += 1
        if calls[0] != (2 if step == "first" else 1):
            return real(self, argument)
        if happened:
            real(self, argument)
        raise Unavailable("the connection broke")

    with monkeypatch.context() as patched:
        patched.setattr(LedgerStore, name, fail_once)
        with pytest.raises(Unavailable):
            ledger.write([entry()])
        ledger.write([entry(), Entry(record(kind=Kind.OUTCOME))])
    assert [log.epoch for log in store.all_logs()] == [1, 2]
    assert [kinds(store, log)[0] for log in store.all_logs()] == ["heartbeat", "heartbeat"]
    assert kinds(store, store.all_logs()[0]).count("close") == 1
    assert verdict(database, tmp_path) <= {"clock-stepped"}


def rotate(folder: Path, now: datetime) -> EpochKey:
    """Certify a new key, as `holdfast audit keys rotate` does."""
    keys = KeyFolder(folder / "audit-keys")
    replicas = ["gw" + role for role in ROLES]
    return keys.make_epoch_key(keys.load_root(), "test", replicas, Ed25519PrivateKey.generate(), now)


@pytest.mark.parametrize("step", ["none", "close", "begin", "first"])
def test_a_new_key_signs_the_next_log_whatever_fails_meanwhile(
    database: Database, store: LedgerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    ledger = open_test_ledger(tmp_path, database)
    ledger.write([entry()])
    first = ledger.row
    key = rotate(tmp_path, datetime.now(UTC))
    steps = {"close": ("commit", 1), "begin": ("begin_log", 1), "first": ("commit", 2)}
    if step in steps:
        name, number = steps[step]
        real, calls = getattr(LedgerStore, name), [0]

        def fail_once(self: LedgerStore, argument: Any) -> Any:
            calls[0] += 1
            if calls[0] == number:
                raise Unavailable("the connection broke")
            return real(self, argument)

        monkeypatch.setattr(LedgerStore, name, fail_once)
        with pytest.raises(Unavailable):
            ledger.write([entry()])
    ledger.write([entry()])
    assert (ledger.row.epoch, ledger.row.certificate) == (2, key.certificate_note)
    assert kinds(store, first) == ["heartbeat", "outcome", "rotate", "close"]
    assert kinds(store, ledger.row) == ["heartbeat", "peer", "outcome"]
    (rotation,) = [leaf.record.rotate for leaf in told(store, first) if leaf.record.rotate]
    assert decode_base64(rotation.key) == key.certificate.key
    assert verdict(database, tmp_path) == set()


def test_a_key_that_was_only_touched_begins_no_log(database: Database, tmp_path: Path) -> None:
    ledger = open_test_ledger(tmp_path, database)
    os.utime(tmp_path / "audit-keys" / "epoch.key", ns=(1, 1))
    ledger.write([entry()])
    assert ledger.row.epoch == 1


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_signed_with_a_key_whose_time_is_over(
    database: Database, store: LedgerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    hands = Hands()
    open_test_ledger(tmp_path, database, clock=hands).close()
    rotate(tmp_path, hands.moment - timedelta(days=EPOCH_KEY_DAYS, hours=-1))
    ledger = open_test_ledger(tmp_path, database, clock=hands)
    ledger.write([entry()])
    ending = ledger.row
    hands.forward(hours=1, seconds=1)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="holdfast audit keys rotate"):
            ledger.write([entry()])
    rotate(tmp_path, hands.moment)
    if fails:
        with monkeypatch.context() as patched:
            patched.setattr(LedgerStore, "begin_log", lambda *_: (_ for _ in ()).throw(Unavailable("broken")))
            with pytest.raises(Unavailable):
                ledger.write([entry()])
    assert isinstance(ledger.write([entry()])[0], Receipt)
    assert ledger.row.epoch == ending.epoch + 1
    assert store.find_log(ending.origin) == ending
    assert verdict(database, tmp_path) == set()


def test_a_log_that_cannot_be_closed_is_told(
    database: Database,
    store: LedgerStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(self: LedgerStore, batch: Any) -> None:
        raise Unavailable("the disk is full")

    ledger = open_test_ledger(tmp_path, database)
    with monkeypatch.context() as patched:
        patched.setattr(LedgerStore, "commit", fail)
        ledger.close("the command is over")
    assert [record.getMessage() for record in caplog.records] == [
        "the log holdfast/test/gw/1 could not be closed, retention keeps its day until another goes on from it: "
        "the disk is full"
    ]
    assert open_test_ledger(tmp_path, database).row.origin == ledger.row.origin
    assert verdict(database, tmp_path) == set()


def test_partitions_that_cannot_be_made_are_told_once(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Database.open(postgres_url).close()
    name = postgres_url.rpartition("/")[2]
    with closing(psycopg.connect(postgres_url, autocommit=True)) as connection:
        for statement in (
            "CREATE ROLE writer LOGIN PASSWORD 'secret'",
            "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO writer",
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO writer",
        ):
            connection.execute(statement)
    with closing(Database.open(postgres.url(name, "writer", "secret"))) as database:
        ledger = open_test_ledger(tmp_path, database, epoch_records=2, clock=Hands())
        for _ in range(6):
            assert isinstance(ledger.write([entry()])[0], Receipt)
        assert ledger.row.epoch > 2
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == (
        f"the partitions of {ledger.row.day} cannot be made, its rows go to the common ones, which retention empties "
        "row by row: the audit database cannot be written: the role may not do that"
    )


def test_a_head_file_that_cannot_be_written_leaves_the_ledger_as_the_database_has_it(
    database: Database, store: LedgerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = Hands()
    ledger = open_test_ledger(tmp_path, database, clock=hands)
    hands.forward(days=1)
    save, calls = HeadFile.save, [0]

    def fail_once(self: HeadFile, checkpoint: Checkpoint) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, checkpoint)

    monkeypatch.setattr(HeadFile, "save", fail_once)
    with pytest.raises(OSError, match="No space"):
        ledger.write([entry()])
    ledger.write([entry()])
    assert kinds(store, ledger.row) == ["heartbeat", "peer", "outcome"]
    ledger.close()
    open_test_ledger(tmp_path, database, clock=hands).close()
    assert verdict(database, tmp_path) == set()


def test_a_gateway_that_died_before_its_first_record_of_the_day_begins_the_same_log(
    database: Database, store: LedgerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = Hands()
    first = open_test_ledger(tmp_path, database, clock=hands)
    first.write([entry()])
    hands.forward(days=1)
    commit, calls = LedgerStore.commit, [0]

    def die_at_the_second(self: LedgerStore, batch: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise Unavailable("killed")
        commit(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(LedgerStore, "commit", die_at_the_second)
        with pytest.raises(Unavailable):
            first.write([entry()])
    first.close()
    second = open_test_ledger(tmp_path, database, clock=hands)
    assert [(log.epoch, log.size) for log in store.all_logs()] == [(1, 3), (2, 2)]
    start = told(store, second.row)[0].record.start
    assert start is not None
    assert (start.previous_log, start.previous_size, start.gap) == (str(store.all_logs()[0].origin), 3, "")
    assert verdict(database, tmp_path) == set()


@pytest.mark.parametrize("epoch", [2, 999_999_999])
@pytest.mark.parametrize("role", ["", ".maintenance"])
def test_made_up_logs_without_a_record_are_nothing_to_count_from(
    database: Database, store: LedgerStore, tmp_path: Path, epoch: int, role: str
) -> None:
    hands = Hands()
    ledger = open_test_ledger(tmp_path, database, role=role, clock=hands)
    ledger.close("the test is over")
    made_up = replace(ledger.row, origin=f"holdfast/test/gw{role}/{epoch}", epoch=epoch, day="2020-02-02", size=0)
    store.begin_log(replace(made_up, closed_at=None))  # type: ignore[arg-type]
    hands.forward(days=1)
    for number in (2, 3):
        ledger = open_test_ledger(tmp_path, database, role=role, clock=hands)
        assert ledger.row.epoch == number + (epoch == 2)
        ledger.close("the test is over")


def test_a_key_that_is_not_certified_for_us_stops_the_start(database: Database, tmp_path: Path) -> None:
    open_test_ledger(tmp_path, database).close()
    keys = KeyFolder(tmp_path / "audit-keys")
    key = keys.epoch_key.read_bytes()
    keys.epoch_key.write_bytes(key.replace(b"gw.console", b"gx.console"))
    with pytest.raises(ConfigurationError, match="no good signature of the root key"):
        open_test_ledger(tmp_path, database)
    keys.epoch_key.write_bytes(key)
    keys.make_epoch_key(keys.load_root(), "test", ("other",), Ed25519PrivateKey.generate(), datetime.now(UTC))
    with pytest.raises(ConfigurationError, match=r"is certified for test/other, not for test/gw; set `replica: other`"):
        open_test_ledger(tmp_path, database)
