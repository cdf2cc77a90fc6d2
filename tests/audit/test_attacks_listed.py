"""The attacks of the list that need every finding named: code, log and record, and nothing beside them.

What `test_tampering` asserts of them is that they are found, and where it begins. Here a wrong alarm, a finding about
another record, or one that went missing fails. The attacker may write everything in the database, and where it says
so has the gateway's live key.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg import sql
from sqlalchemy import text

from audit.entries import entry, open_test_ledger
from audit.tampering import Site
from holdfast.audit.keys import EPOCH_KEY_DAYS, ROLES, KeyFolder
from holdfast.audit.note import Signer
from holdfast.audit.payload import compress, zstd
from holdfast.audit.receipt import Receipt
from holdfast.audit.record import Kind, Leaf, Record, Redaction, Seen, decode, encode, encode_leaf, timestamp
from holdfast.audit.sequence import Clock
from holdfast.audit.store.export import export_lines
from holdfast.audit.tree import hash_leaf
from holdfast.audit.verify import Anchoring, verify_lines
from holdfast.database import Database
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast.audit.logs import LogRow
    from holdfast.audit.verify import Report
    from services.postgres import PostgresServer


type Found = tuple[str, str, int | None]
"""What was found: its code, the replica of the log, the record."""


def findings(report: Report) -> list[Found]:
    """All that was found."""
    found = [(each.code.name, each.log and each.log.split("/")[2], each.seq) for each in report.findings]
    assert len(found) == sum(report.counts.values())
    return sorted(found, key=str)


def assert_found(site: Site, *expected: Found) -> Report:
    """This and nothing else is found."""
    report = site.verify()
    assert findings(report) == sorted(expected, key=str)
    return report


# -- leaves ------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_of_a_leaf(site: Site) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    leaf = bytearray(site.leaves(site.log)[seq])
    leaf[leaf.index(b"alice")] ^= 1
    site.put_leaf(site.log, seq, bytes(leaf))
    assert_found(
        site,
        ("leaf-altered", "gw", seq),
        ("leaf-place", "gw", seq + 1),
        ("forked", "gw", None),
        ("log-altered", "gw", None),
        ("call-altered", "gw", seq),
        ("caller-altered", "", None),
    )


@pytest.mark.parametrize("change", ["kind = 'chunk'", "at = '2020'"])
def test_an_edited_column_beside_a_leaf(site: Site, change: str) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    site.execute(f"UPDATE records SET {change} WHERE log = :log AND seq = :seq", log=site.log.id, seq=seq)  # noqa: S608
    assert_found(site, ("column-altered", "gw", seq))


def test_an_edited_call_id_beside_a_leaf(site: Site) -> None:
    """The call's row in the list is found by it, and so belongs to nothing."""
    seq = site.find(site.log, Kind.OUTCOME)
    site.execute("UPDATE records SET call_id = 'x' WHERE log = :log AND seq = :seq", log=site.log.id, seq=seq)
    assert_found(site, ("column-altered", "gw", seq), ("call-missing", "gw", seq), ("rows-foreign", "", None))


def test_a_repeated_json_key(site: Site) -> None:
    """Nothing of such a leaf is believed, so what hangs on it belongs to nothing."""
    seq = site.find(site.log, Kind.OUTCOME)
    leaf = site.leaves(site.log)[seq]
    site.put_leaf(site.log, seq, leaf.replace(b'"username":"alice"', b'"username":"mallory","username":"alice"'))
    assert_found(
        site,
        ("leaf-spelling", "gw", seq),
        ("leaf-altered", "gw", seq),
        ("leaf-place", "gw", seq + 1),
        ("forked", "gw", None),
        ("log-altered", "gw", None),
        *[("rows-foreign", "", None)] * 2,
    )


# -- rows --------------------------------------------------------------------------------------------------------


def test_a_dropped_row(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    site.execute("DELETE FROM records WHERE log = :log AND seq = :seq", log=log.id, seq=seq)
    assert_found(
        site,
        *[("leaf-missing", "gw", later) for later in range(seq + 1, log.size)],
        ("leaf-place", "gw", seq + 1),
        ("leaf-altered", "gw", seq),
        ("log-altered", "gw", None),
        *[("truncated", "gw", None)] * 2,
        *[("rows-foreign", "", None)] * 2,
    )


def test_two_rows_in_each_other_s_place(site: Site) -> None:
    """An intent and its outcome, with their columns and bodies left where they were."""
    log, seq = site.log, site.find(site.log, Kind.INTENT)
    leaves = site.leaves(log)
    site.put_leaf(log, seq, leaves[seq + 1])
    site.put_leaf(log, seq + 1, leaves[seq])
    site.relink(log, seq)
    assert_found(
        site,
        ("leaf-altered", "gw", seq),
        ("forked", "gw", None),
        *[(code, "gw", place) for code in ("column-altered", "body-altered", "payload-missing")
          for place in (seq, seq + 1)],
        ("call-altered", "gw", seq + 1),
        ("outcome-repeated", "gw", seq),
    )  # fmt: skip


def test_two_rows_in_each_other_s_place_with_all_that_hangs_on_them(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    for table in ("records", "bodies", "calls"):
        for old, new in ((seq, 900), (seq + 1, seq), (900, seq + 1)):
            moved = f"UPDATE {table} SET seq = :new WHERE log = :log AND seq = :old"  # noqa: S608
            site.execute(moved, log=log.id, old=old, new=new)
    site.relink(log, seq)
    assert_found(site, ("leaf-altered", "gw", seq), ("forked", "gw", None))


def test_a_row_moved_to_another_log(site: Site) -> None:
    here, there = site.log, site.named("other")
    site.execute(
        "UPDATE records SET log = :there, seq = :seq WHERE log = :here AND seq = :last",
        there=there.id, seq=there.size, here=here.id, last=here.size - 1,
    )  # fmt: skip
    assert_found(
        site,
        *[("leaf-place", "other", there.size)] * 2,
        ("unsigned-tail", "other", None),
        ("tail-unanchored", "other", there.size),
        ("log-altered", "other", None),
        ("log-altered", "gw", None),
        *[("truncated", "gw", None)] * 2,
    )


def test_a_whole_replica_s_log_deleted_and_nothing_was_anchored(site: Site) -> None:
    """The other replica saw it."""
    other = site.named("other")
    for table in ("records", "checkpoints", "bodies", "calls"):
        site.execute(f"DELETE FROM {table} WHERE log = :log", log=other.id)  # noqa: S608
    site.execute("DELETE FROM logs WHERE id = :log", log=other.id)
    site.execute("DELETE FROM blobs WHERE NOT EXISTS (SELECT 1 FROM bodies WHERE bodies.sha256 = blobs.sha256)")
    lines = export_lines(site.database, "test", "2026-01-01T00:00:00.000000Z")
    report = verify_lines(lines, site.root, Anchoring())
    assert findings(report) == [("log-missing", "other", None), ("no-anchor", "gw", None)]


# -- keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replica", ["third", "other"])
@pytest.mark.parametrize("key", ["forged", "live"])
def test_a_log_in_the_name_of_another_replica(site: Site, replica: str, key: str) -> None:
    """With a key of the attacker's own making; with that which the gateway signs with, and is certified for."""
    (forger := site.folder / "forger").mkdir()
    ledger = open_test_ledger(forger, site.database, replica=replica, remembers=False)
    site.record_call(ledger, b"never made")
    log = site.named(replica)
    if key == "live":
        live = site.keys.load_epoch_key()
        site.execute("UPDATE logs SET certificate = :note WHERE id = :log", note=live.certificate_note, log=log.id)
        site.sign_again(log, Signer(log.origin, live.signer.private_key))
    report = assert_found(site, *[(code, replica, None) for code in ("certificate-bad", "unsigned-tail", "no-anchor")])
    assert {finding.log for finding in report.findings} == {log.origin}


def test_a_log_gone_on_with_by_a_stolen_key_after_it_expired(tmp_path: Path, database_url: str) -> None:
    """The clock that the thief writes into the leaf is a good one."""
    site = site_whose_key_expires_tomorrow(tmp_path, database_url)
    log, days = site.log, timedelta(days=2)
    last = decode(site.leaves(log)[-1])
    later = timestamp(datetime.fromisoformat(last.time) + days)
    told = Record(kind=Kind.HEARTBEAT, at=later)
    append(site, log, told, Clock(later, last.mono + days // timedelta(microseconds=1)))
    site.sign_again(log, site.live_key(log), keep=log.size)
    assert_found(
        site,
        ("certificate-expired", "gw", log.size),
        ("tail-unanchored", "gw", log.size),
        ("anchor-stale", "gw", None),
    )
    site.database.close()


def site_whose_key_expires_tomorrow(folder: Path, url: str) -> Site:
    """A record by a gateway whose key has been certified for long."""
    keys = KeyFolder(folder / "audit-keys")
    keys.folder.mkdir()
    root = keys.make_root("test", Ed25519PrivateKey.generate())
    certified_at = datetime.now(UTC) - timedelta(days=EPOCH_KEY_DAYS - 1)
    keys.make_epoch_key(root, "test", tuple("gw" + role for role in ROLES), Ed25519PrivateKey.generate(), certified_at)
    return Site(folder, Database.open(url))


def append(site: Site, log: LogRow, told: Record, clock: Clock) -> None:
    """Add a record to a log, with all but a signature."""
    leaves = site.leaves(log)
    leaf = encode_leaf(
        Leaf(told, log.origin, log.size, hash_leaf(leaves[-1]).hex(), clock.time, clock.mono), encode(told)
    )
    site.execute(
        "INSERT INTO records (day, log, seq, call_id, kind, at, leaf) "
        "VALUES (:day, :log, :seq, :call, :kind, :at, :leaf)",
        day=log.day, log=log.id, seq=log.size, call=told.call, kind=told.kind.value, at=told.at, leaf=leaf,
    )  # fmt: skip
    site.describe(log, [*leaves, leaf])


def test_a_fork_with_the_live_key_is_seen_by_a_caller_s_receipt_alone(site: Site) -> None:
    (receipt,) = site.ledgers["gw"].write([entry(b"for a receipt")])
    assert isinstance(receipt, Receipt)
    site.record_call(site.ledgers["gw"], b"later")
    shutil.rmtree(site.anchors)
    site.anchors.mkdir()
    (site.anchors / "caller.receipt").write_text(receipt.header())
    log = site.log
    assert_found(site, ("tail-unanchored", "gw", receipt.seq + 1))
    site.edit(log, receipt.seq, lambda told: msgspec.structs.replace(told, bytes_down=1))
    site.relink(log, receipt.seq)
    site.sign_again(log, site.live_key(log), keep=receipt.seq)
    assert_found(
        site,
        ("receipt-broken", "gw", receipt.seq),
        ("forked", "gw", None),
        ("tail-unanchored", "gw", receipt.seq + 1),
    )


# -- bodies ------------------------------------------------------------------------------------------------------


def body_of(site: Site, seq: int) -> str:
    """The SHA-256 of the one piece that a record of replica gw has."""
    with site.database.reading() as connection:
        query = text("SELECT sha256 FROM bodies WHERE log = :log AND seq = :seq")
        return str(connection.execute(query, {"log": site.log.id, "seq": seq}).scalar_one())


def flip(kept: bytes) -> bytes:
    """One bit of it is another."""
    return bytes([kept[0] ^ 1]) + kept[1:]


def replace(kept: bytes) -> bytes:
    """Something else, kept as such a thing is."""
    return compress(b"something else" * 100)[1]


def inflate(kept: bytes) -> bytes:
    """A few kilobytes that decompress to a gigabyte."""
    compressor = zstd.ZstdCompressor(19)
    return b"".join(compressor.compress(bytes(1 << 24)) for _ in range(64)) + compressor.flush()


@pytest.mark.parametrize(
    ("change", "codec", "what"),
    [
        (flip, "raw", "has other bytes"),
        (replace, "zstd", "has other bytes"),
        (inflate, "zstd", "cannot be read: a stored payload is longer than a piece may be, or not whole"),
    ],
)
def test_one_payload_replaced_under_its_name(
    site: Site, change: Callable[[bytes], bytes], codec: str, what: str
) -> None:
    digest = body_of(site, site.find(site.log, Kind.OUTCOME))
    query = text("SELECT body FROM blobs WHERE sha256 = :sha256")
    with site.database.reading() as connection:
        kept = bytes(connection.execute(query, {"sha256": digest}).scalar_one())
    changed = change(kept)
    statement = "UPDATE blobs SET body = :body, codec = :codec, size = :size WHERE sha256 = :sha256"
    assert site.execute(statement, body=changed, codec=codec, size=len(changed), sha256=digest) == 1
    report = assert_found(site, ("blob-altered", "", None))
    assert report.findings[0].what == f"payload {site.log.day}/{digest} {what}"


def test_a_body_pointed_at_another_payload(site: Site) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    site.execute(
        "UPDATE bodies SET sha256 = :sha256 WHERE log = :log AND seq = :seq",
        sha256=body_of(site, 1), log=site.log.id, seq=seq,
    )  # fmt: skip
    assert_found(site, ("body-altered", "gw", seq))


@pytest.mark.parametrize("tables", [("bodies",), ("blobs",), ("bodies", "blobs")])
def test_a_payload_deleted_without_a_record_of_it(site: Site, tables: tuple[str, ...]) -> None:
    site.record_call(site.ledgers["gw"], b"of this call alone")
    site.anchor()
    seq = site.log.size - 1
    digest = body_of(site, seq)
    for table in tables:
        site.execute(f"DELETE FROM {table} WHERE sha256 = :sha256", sha256=digest)  # noqa: S608
    foreign = [("rows-foreign", "", None)] if tables == ("bodies",) else []
    assert_found(site, ("payload-missing", "gw", seq), *foreign)


@pytest.mark.parametrize("has_key", [False, True])
def test_a_forged_record_of_erasure(site: Site, has_key: bool) -> None:
    """In the place of the last record; with the gateway's live key it is signed, and the log a fork all the same.

    The log of a gateway has no erasure to tell.
    """
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    last = log.size - 1
    forged = erasure(log, seq)
    site.execute("DELETE FROM bodies WHERE log = :log AND seq = :seq", log=log.id, seq=seq)
    site.edit(log, last, lambda told: forged)
    site.execute(
        "UPDATE records SET kind = 'redact', call_id = '', at = :at WHERE log = :log AND seq = :seq",
        at=forged.at, log=log.id, seq=last,
    )  # fmt: skip
    site.relink(log, last)
    if has_key:
        site.sign_again(log, site.live_key(log), keep=last)
    assert_found(
        site,
        ("payload-missing", "gw", seq),
        ("leaf-place", "gw", last),
        ("forked", "gw", None),
        *([] if has_key else [("leaf-altered", "gw", last - 1)]),
    )


def test_a_forged_record_of_erasure_at_the_end_that_nobody_signed(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    site.execute("DELETE FROM bodies WHERE log = :log AND seq = :seq", log=log.id, seq=seq)
    last = decode(site.leaves(log)[-1])
    append(site, log, erasure(log, seq), Clock(last.time, last.mono))
    assert_found(
        site,
        ("payload-missing", "gw", seq),
        ("leaf-place", "gw", log.size),
        ("unsigned-tail", "gw", None),
        ("tail-unanchored", "gw", log.size),
    )


def erasure(log: LogRow, seq: int) -> Record:
    """What says that the response body of a record was erased."""
    redact = Redaction(
        log=Seen(log=log.origin, size=log.size, root=log.root), reason="a person asked", payloads=(f"{seq}/response",)
    )
    return Record(kind=Kind.REDACT, at="2026-03-01T12:00:00.000000Z", redact=redact)


# -- calls and databases -----------------------------------------------------------------------------------------


def test_two_outcomes_for_one_call(site: Site) -> None:
    call = site.record_call(site.ledgers["gw"], b"once")
    site.ledgers["gw"].write([entry(b"twice", call=call)])
    site.anchor()
    assert_found(site, ("outcome-repeated", "gw", site.log.size - 2))


def test_a_postgres_database_put_back_from_a_backup(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    site = Site(tmp_path, Database.open(postgres_url))
    site.ledgers["gw"].close()
    site.database.close()
    backup = copy_database(postgres, postgres_url)
    ledger = open_test_ledger(tmp_path, site.database)
    site.record_call(ledger, b"after the backup")
    site.anchor()
    ledger.close()
    site.database.close()
    site.database = Database.open(backup)
    with pytest.raises(ConfigurationError, match="not as this gateway left it"):
        open_test_ledger(tmp_path, site.database)
    (tmp_path / "gw.head.gap").write_text("put back from the backup of last night")
    site.record_call(open_test_ledger(tmp_path, site.database), b"going on")
    site.anchor()
    assert_found(site, ("truncated", "gw", None), ("gap", "gw", 0))
    site.database.close()


def copy_database(server: PostgresServer, url: str) -> str:
    """Copy a database that nobody is connected to; return the copy's URL."""
    name = url.rpartition("/")[2]
    copy = f"{name}_copy"
    server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(copy), sql.Identifier(name)))
    return server.url(copy)
