"""The record in the database: what is written is found again, in order, once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from audit.entries import NOON, entry, new_id, open_test_ledger, record, request, response
from audit.verify.legacy import add_legacy_log
from audit.verify.legacy import payload as legacy_payload
from holdfast.audit.payload import PIECE_BYTES, decompress
from holdfast.audit.receipt import Receipt
from holdfast.audit.record import (
    Call,
    Caller,
    Entry,
    Held,
    Kind,
    Payload,
    Refusal,
    call_row,
    decode,
)
from holdfast.audit.store import AuditStore, Filters, LedgerStore
from holdfast.audit.store.calls import ALTERED
from holdfast.audit.tree import hash_leaf, root_of
from holdfast.database import Database
from holdfast.errors import Conflict, NotFound, Unavailable
from holdfast.exchange import AuditID

if TYPE_CHECKING:
    from holdfast.audit.ledger import Ledger


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def count(file: Path, table: str) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def test_a_story_is_told_in_the_order_it_was_written(store: AuditStore, ledger: Ledger) -> None:
    call = new_id()
    asked, piece, answer = b'{"kind":"Pod"}', b"log line\n", b"done"
    told = [
        Entry(record(call, Kind.HOLD, hold=Held(id="h-1", state="pending"))),
        Entry(record(call, Kind.INTENT, 1), request(asked)),
        Entry(record(call, Kind.CHUNK, 2), response(piece, "text/plain")),
        Entry(record(call, Kind.OUTCOME, 3), response(answer, "text/plain")),
    ]
    ledger.write(told[:2])
    ledger.write([entry(), *told[2:]])
    story = store.load_call(call)
    assert story.records == tuple(item.complete() for item in told)
    bodies = [story.body(item.request_body or item.response_body) for item in story.records]
    assert bodies == [b"", asked, piece, answer]
    assert story.call == call_row(told[-1].complete())


def test_the_stored_leaf_is_the_record_in_its_place(ledger: Ledger, file: Path) -> None:
    written = entry()
    (receipt,) = ledger.write([written])
    with closing(sqlite3.connect(file)) as connection:
        query = "SELECT day, seq, call_id, kind, at, leaf FROM records WHERE call_id <> ''"
        (found,) = connection.execute(query).fetchall()
    day, seq, *columns, leaf = found
    assert isinstance(receipt, Receipt)
    assert (day, seq) == (ledger.row.day, receipt.seq)
    assert columns == [written.record.call, "outcome", written.record.at]
    assert hash_leaf(leaf) == receipt.leaf_hash
    told = decode(leaf)
    assert (told.record, told.log, told.seq) == (written.complete(), ledger.row.origin, seq)


def test_a_piece_is_stored_once_a_day_under_the_hash_of_its_bytes(ledger: Ledger, file: Path) -> None:
    ledger.write([entry(b"same"), entry(b"same")])
    ledger.write([entry(b"same"), entry(b"other"), entry(b"")])
    assert count(file, "blobs") == 2
    with closing(sqlite3.connect(file)) as connection:
        for key, size, codec, body in connection.execute("SELECT sha256, size, codec, body FROM blobs"):
            content = decompress(codec, body)
            assert (key, size) == (sha256(content).hexdigest(), len(content))


def test_a_body_of_several_pieces_is_put_together_again(ledger: Ledger, store: AuditStore, file: Path) -> None:
    content = bytes(range(256)) * 10_000
    written = entry(content)
    ledger.write([written])
    story = store.load_call(written.record.call)
    assert story.body(story.records[0].response_body) == content
    assert count(file, "bodies") == 3


TWO_PIECES = b"a" * PIECE_BYTES + b"b" * PIECE_BYTES


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE blobs SET codec = 'raw', body = x'7b7d' WHERE size > 1", "not what the record commits to"),
        ("UPDATE blobs SET codec = 'new' WHERE size > 1", "not what the record commits to"),
        ("UPDATE blobs SET body = x'28b52ffd' WHERE size > 1", "not what the record commits to"),
        (
            "UPDATE bodies SET sha256 = (SELECT sha256 FROM blobs WHERE size = 5) WHERE part = 1",
            "not what the record commits to",
        ),
        ("UPDATE bodies SET salt = x'00' WHERE part = 0", "not what the record commits to"),
        ("UPDATE bodies SET part = 3 - part", "not what the record commits to"),
        ("DELETE FROM bodies WHERE part = 1", "not what the record commits to"),
        ("DELETE FROM blobs WHERE size > 1 AND rowid IN (SELECT max(rowid) FROM blobs WHERE size > 5)", "missing"),
        ("DELETE FROM bodies", "erased"),
    ],
)
def test_a_body_that_is_not_what_was_recorded_is_not_told(
    store: AuditStore, ledger: Ledger, file: Path, change: str, why: str
) -> None:
    written = entry(TWO_PIECES)
    ledger.write([written, entry(b"other")])
    with closing(sqlite3.connect(file)) as connection, connection:
        assert connection.execute(change).rowcount
    story = store.load_call(written.record.call)
    (told,) = story.records
    assert told.response_body is not None
    assert (story.body(told.response_body), story.why_absent(told.response_body)) == (b"", why)


@pytest.mark.parametrize(
    ("kept", "digest", "why"), [(b"asked", b"asked", ""), (b"other", b"asked", ALTERED), (b"other", b"other", ALTERED)]
)
def test_a_body_of_version_1_is_held_against_its_hash(
    store: AuditStore, database: Database, file: Path, kept: bytes, digest: bytes, why: str
) -> None:
    told = record(response_body=legacy_payload(b"asked"))
    add_legacy_log(database, "2026-03-01", [told], 1, kept)
    with closing(sqlite3.connect(file)) as connection, connection:
        for table in ("bodies", "blobs"):
            connection.execute(f"UPDATE {table} SET sha256 = ?", [sha256(digest).hexdigest()])  # noqa: S608
    assert told.response_body is not None
    assert store.load_call(told.call).why_absent(told.response_body) == why


def test_a_withheld_body_reads_as_none(store: AuditStore, ledger: Ledger) -> None:
    withheld = record(response_body=Payload(size=7, withheld="too large"))
    ledger.write([Entry(withheld)])
    assert store.load_call(withheld.call).body(withheld.response_body) == b""


def test_a_call_has_one_row_which_its_latest_record_wrote(store: AuditStore, ledger: Ledger) -> None:
    call = new_id()
    ledger.write([Entry(record(call, Kind.INTENT))])
    (row,) = store.list_calls()
    assert (row.complete, row.code, row.duration_us) == (False, None, None)
    ledger.write([Entry(record(call)), Entry(record(call, Kind.DECISION)), Entry(record(call, Kind.CHUNK))])
    (row,) = store.list_calls()
    assert (row.complete, row.code, row.duration_us) == (True, 200, 1500)


def test_a_batch_is_written_whole_or_not_at_all(ledger: Ledger, file: Path) -> None:
    tables = ("records", "checkpoints", "bodies", "blobs", "calls", "callers")
    before = [count(file, table) for table in tables]
    refuse = "CREATE TRIGGER t BEFORE INSERT ON calls WHEN NEW.uri = '/x' BEGIN SELECT RAISE(ABORT, 'no'); END"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(refuse)
    with pytest.raises(Unavailable):
        ledger.write([entry(), entry(what=Call(method="GET", uri="/x")), entry()])
    assert [count(file, table) for table in tables] == before


@pytest.fixture
def mixed(store: AuditStore, ledger: Ledger) -> AuditStore:
    exec_call = Call(method="GET", uri="/exec", verb="create", resource="pods", subresource="exec", namespace="shop")
    ledger.write(
        [
            Entry(record(AuditID("aa-1"), after=1)),
            Entry(record(AuditID("aa-2"), after=2, identity=Caller(issuer="https://issuer", username="bob"))),
            Entry(record(AuditID("ab-3"), after=3, what=exec_call)),
            Entry(record(AuditID("ab-4"), after=3, refusal=Refusal(code=403, reason="Forbidden", message="no"))),
            Entry(record(AuditID("ac-5"), after=5, identity=None, what=Call(method="GET", uri="/healthz"))),
        ]
    )
    return store


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(), "ac-5 ab-4 ab-3 aa-2 aa-1"),
        (Filters(user="bob"), "aa-2"),
        (Filters(verb="create"), "ab-3"),
        (Filters(resource="pods"), "ab-4 aa-2 aa-1"),
        (Filters(resource="pods/exec"), "ab-3"),
        (Filters(namespace="shop", verdict="denied"), "ab-4"),
        (Filters(since=NOON + timedelta(seconds=3)), "ac-5 ab-4 ab-3"),
        (Filters(user="nobody"), ""),
    ],
)
def test_calls_are_listed_newest_first_and_filtered(mixed: AuditStore, filters: Filters, found: str) -> None:
    assert " ".join(row.audit_id for row in mixed.list_calls(filters)) == found
    assert " ".join(story.call.audit_id for story in mixed.iter_calls(filters)) == " ".join(found.split()[::-1])


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_pages_join_without_gap_or_overlap(mixed: AuditStore, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, before = [], None
    while page := mixed.list_calls(limit=size, before=before):
        listed += [row.audit_id for row in page]
        before = (page[-1].received_at, page[-1].audit_id)
    assert listed == ["ac-5", "ab-4", "ab-3", "aa-2", "aa-1"]
    monkeypatch.setattr("holdfast.audit.store.calls.PAGE", size)
    assert [story.call.audit_id for story in mixed.iter_calls()] == listed[::-1]


def test_a_call_is_found_by_the_start_of_its_id(mixed: AuditStore) -> None:
    assert mixed.load_call("ac").call.audit_id == "ac-5"
    assert mixed.load_call("aa-2").call.username == "bob"
    with pytest.raises(Conflict, match="several calls"):
        mixed.load_call("aa")
    with pytest.raises(NotFound, match="no call"):
        mixed.load_call("zz")


@pytest.mark.parametrize("where", ["", "WHERE username = 'alice'"])
def test_lists_are_answered_by_an_index_without_sorting(mixed: AuditStore, file: Path, where: str) -> None:
    query = f"SELECT * FROM calls {where} ORDER BY received_at DESC, audit_id DESC LIMIT 10"  # noqa: S608
    with closing(sqlite3.connect(file)) as connection:
        (step,) = (row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + query))
    assert "USING INDEX calls_by" in step


def test_two_processes_write_one_database(database: Database, ledger: Ledger, file: Path, tmp_path: Path) -> None:
    writing = (
        "import sys; from pathlib import Path; from audit.entries import entry, open_test_ledger\n"
        "from holdfast.database import Database\n"
        "ledger = open_test_ledger(Path(sys.argv[2]), Database.open(sys.argv[1]), replica=sys.argv[3])\n"
        "for number in range(40): ledger.write([entry(sys.argv[3].encode() + b'%d' % number)])"
    )
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", writing, f"sqlite:///{file}", str(tmp_path)]
    others = [subprocess.Popen([*command, name], env={"PYTHONPATH": tests}) for name in ("first", "second")]
    for number in range(40):
        ledger.write([entry(b"here%d" % number)])
    assert [other.wait() for other in others] == [0, 0]
    assert [count(file, table) for table in ("blobs", "calls")] == [120, 120]
    store = LedgerStore(database)
    for log in store.all_logs():
        assert root_of(hash_leaf(leaf) for leaf in store.leaves(log)).hex() == log.root


def test_another_process_that_keeps_the_lock_is_named(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.sqlite._PRAGMAS", (("busy_timeout", 10),))
    ledger = open_test_ledger(tmp_path, Database.open(f"sqlite:///{file}"))
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="another process keeps it locked"):
            ledger.write([entry()])
        other.execute("ROLLBACK")
    ledger.write([entry()])
    assert count(file, "calls") == 1
