"""What somebody does who may write everything in the database, and what the auditor finds: exactly that.

Each attack is carried out, in the database itself and where it says so with the gateway's live key, on a record that
was intact.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.entries import entry, open_test_ledger, record
from audit.tampering import CALLS, Site, codes, is_altered, places, spell
from holdfast.audit.checkpoint import Checkpoint, Origin, cosign, parse_checkpoint
from holdfast.audit.keys import MAINTENANCE, ROLES, KeyFolder
from holdfast.audit.note import COSIGNATURE, KeyName, Note, Signer, write_note
from holdfast.audit.payload import compress, zstd
from holdfast.audit.receipt import Receipt
from holdfast.audit.record import Entry, Kind, Record, Redaction, Seen, decode
from holdfast.audit.sequence import Clock
from holdfast.audit.store.export import export_lines
from holdfast.audit.verify import Anchoring, Class, verify_lines
from holdfast.database import Database
from holdfast.errors import ConfigurationError, Superseded

if TYPE_CHECKING:
    from pathlib import Path

ONLY_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""Postgres keeps no value of another type in a column, and is not copied as a file."""

REPLICAS = ("gw", "gw.console", "gw.maintenance")


def test_the_record_is_intact_before_anything_is_done_to_it(site: Site) -> None:
    report = site.verify()
    assert (codes(report), report.verdict()) == (set(), Class.INTACT)
    assert report.leaves == sum(log.size for log in report.logs)
    assert {log.origin: log.anchored_size for log in report.logs} == {log.origin: log.size for log in report.logs}


# -- leaves ------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_of_a_leaf(site: Site) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    leaf = bytearray(site.leaves(site.log)[seq])
    leaf[leaf.index(b"alice")] ^= 1
    site.put_leaf(site.log, seq, bytes(leaf))
    report = site.verify()
    assert {"leaf-altered", "leaf-place", "log-altered", "call-altered"} <= codes(report)
    assert places(report, "leaf-altered") == [seq]
    assert places(report, "leaf-place") == [seq + 1]


def test_an_edited_record_with_the_chain_and_everything_derived_made_again(site: Site) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    site.edit(site.log, seq, lambda told: msgspec.structs.replace(told, bytes_down=told.bytes_down + 1))
    site.relink(site.log, seq)
    report = site.verify()
    assert codes(report) == {"leaf-altered", "forked"}
    assert places(report, "leaf-altered") == [seq]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET call_id = 'x' WHERE log = :log AND seq = :seq",
        "UPDATE records SET kind = 'chunk' WHERE log = :log AND seq = :seq",
        "UPDATE records SET at = '2020' WHERE log = :log AND seq = :seq",
    ],
)
def test_an_edited_column_beside_a_leaf(site: Site, statement: str) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    assert site.execute(statement, log=site.log.id, seq=seq) == 1
    report = site.verify()
    assert codes(report) - {"call-missing", "rows-foreign"} == {"column-altered"}
    assert places(report, "column-altered") == [seq]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("username", "'mallory'"),
        ("verdict", "'denied'"),
        ("complete", "false"),
        ("uri", "'/'"),
        ("caller", "''"),
        ("code", "200.0 + 1"),
    ],
)
def test_an_edited_column_of_a_list(site: Site, column: str, value: str) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    site.execute(f"UPDATE calls SET {column} = {value} WHERE log = :log AND seq = :seq", log=site.log.id, seq=seq)  # noqa: S608
    report = site.verify()
    assert codes(report) == {"call-altered"}
    assert places(report, "call-altered") == [seq]


def test_a_call_taken_off_the_list(site: Site) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    site.execute("DELETE FROM calls WHERE log = :log AND seq = :seq", log=site.log.id, seq=seq)
    report = site.verify()
    assert codes(report) == {"call-missing"}
    assert seq in places(report, "call-missing")


def test_a_call_listed_as_it_was_before_its_outcome(site: Site) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    site.execute(
        "UPDATE calls SET seq = seq - 1, complete = false WHERE log = :log AND seq = :seq", log=site.log.id, seq=seq
    )
    assert "call-altered" in codes(site.verify())


def test_a_call_that_was_never_made_put_on_the_list(site: Site) -> None:
    site.execute(
        "INSERT INTO calls SELECT day, 'forged', received_at, username, issuer, caller, verb, api_group, resource, "
        "subresource, namespace, name, uri, effect, rule, verdict, code, hold_id, duration_us, user_agent, complete, "
        "log, seq FROM calls LIMIT 1"
    )
    assert codes(site.verify()) == {"rows-foreign"}


def test_an_index_that_hides_a_caller_s_claims(site: Site) -> None:
    site.execute("UPDATE callers SET caller = replace(caller, 'alice', 'bob')")
    assert codes(site.verify()) == {"caller-altered"}
    site.execute("DELETE FROM callers")
    assert codes(site.verify()) == {"caller-altered"}


@ONLY_SQLITE
def test_a_leaf_kept_as_text(site: Site) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    site.execute(
        "UPDATE records SET leaf = CAST(leaf AS TEXT) WHERE log = :log AND seq = :seq", log=site.log.id, seq=seq
    )
    report = site.verify()
    assert codes(report) == {"leaf-type"}
    assert places(report, "leaf-type") == [seq]


def test_a_repeated_json_key(site: Site) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    leaf = site.leaves(site.log)[seq]
    site.put_leaf(site.log, seq, leaf.replace(b'"username":"alice"', b'"username":"mallory","username":"alice"'))
    report = site.verify()
    assert {"leaf-spelling", "leaf-altered"} <= codes(report)
    assert places(report, "leaf-spelling") == [seq]


# -- rows --------------------------------------------------------------------------------------------------------


def test_a_dropped_row(site: Site) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    site.execute("DELETE FROM records WHERE log = :log AND seq = :seq", log=site.log.id, seq=seq)
    report = site.verify()
    assert {"leaf-missing", "leaf-altered", "log-altered"} <= codes(report)
    assert places(report, "leaf-missing")[0] == seq + 1


def test_a_dropped_call_and_everything_after_it_renumbered(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.INTENT)
    for table in ("calls", "bodies", "records"):
        drop = f"DELETE FROM {table} WHERE log = :log AND seq IN (:seq, :next)"  # noqa: S608
        site.execute(drop, log=log.id, seq=seq, next=seq + 1)
        move = f"UPDATE {table} SET seq = :new WHERE log = :log AND seq = :old"  # noqa: S608
        for number in range(seq + 2, log.size):
            site.execute(move, log=log.id, old=number, new=number - 2)
    site.execute("DELETE FROM blobs WHERE NOT EXISTS (SELECT 1 FROM bodies WHERE bodies.sha256 = blobs.sha256)")
    site.relink(log, seq)
    report = site.verify()
    assert codes(report) == {"leaf-altered", "truncated"}


def test_two_rows_in_each_other_s_place(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.INTENT)
    leaves = site.leaves(log)
    site.put_leaf(log, seq, leaves[seq + 1])
    site.put_leaf(log, seq + 1, leaves[seq])
    site.relink(log, seq)
    report = site.verify()
    assert {"leaf-altered", "forked", "column-altered"} <= codes(report)


def test_an_appended_forged_row(site: Site) -> None:
    log = site.log
    leaf = decode(site.leaves(log)[-1])
    forged = spell(leaf.record, leaf)
    site.execute(
        "INSERT INTO records (day, log, seq, call_id, kind, at, leaf) "
        "VALUES (:day, :log, :seq, :call, :kind, :at, :leaf)",
        day=log.day,
        log=log.id,
        seq=log.size,
        call=leaf.record.call,
        kind=leaf.record.kind.value,
        at=leaf.record.at,
        leaf=forged,
    )
    site.relink(log, log.size)
    assert codes(site.verify()) == {"unsigned-tail", "tail-unanchored"}


def test_a_row_moved_to_another_log(site: Site) -> None:
    here, there = site.log, site.named("other")
    site.execute(
        "UPDATE records SET log = :there, seq = :seq WHERE log = :here AND seq = :last",
        there=there.id, seq=there.size, here=here.id, last=here.size - 1,
    )  # fmt: skip
    report = site.verify()
    assert {"leaf-place", "log-altered", "unsigned-tail", "truncated"} <= codes(report)


def test_truncated_rows_with_the_checkpoints_left(site: Site) -> None:
    site.drop_from(site.log, site.find(site.log, Kind.INTENT))
    site.relink(site.log, site.log.size)
    assert codes(site.verify()) == {"truncated"}


def test_rows_and_checkpoints_rolled_back_together(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.INTENT)
    site.drop_from(log, seq)
    site.relink(log, log.size)
    site.execute("DELETE FROM checkpoints WHERE log = :log AND size > :size", log=log.id, size=len(site.leaves(log)))
    report = site.verify()
    assert codes(report) == {"truncated"}
    assert "an anchor" in report.findings[0].what


def test_whoever_knows_that_a_log_was_longer_is_told_once_of_each_sort(site: Site) -> None:
    log, kept = site.log, 3
    for number in range(3):
        site.ledgers["other"].beat()
        (receipt,) = site.ledgers["gw"].write([entry(b"for a receipt")])
        assert isinstance(receipt, Receipt)
        (site.anchors / f"{number}.receipt").write_text(receipt.header())
        site.anchor()
    size, other = site.log.size, site.named("other")
    peer = f"record {other.size - 1} of {other.origin}"
    checkpoints = site.execute(
        "UPDATE checkpoints SET note = note WHERE log = :log AND size > :kept", log=log.id, kept=kept
    )
    site.drop_from(log, kept)
    site.relink(log, kept)
    report = site.verify()
    more = f" (more of this sort that know of more than {kept}: "
    assert sorted(finding.what for finding in report.findings if finding.code.name == "truncated") == [
        f"it has {kept} records; a caller's receipt ({site.anchors / '2.receipt'}) knows of {size}{more}2)",
        f"it has {kept} records; an anchor ({site.anchors / 'file.notes'}) knows of {size}{more}3)",
        f"it has {kept} records; another log ({peer}) knows of {size - 1}{more}2)",
        f"it has {kept} records; its own checkpoint knows of {size}{more}{checkpoints - 1})",
    ]
    assert report.counts == {"truncated": 4, "receipt-broken": 3}
    assert report.verdict() is Class.ALTERED


def test_a_clean_rollback_is_not_seen_without_anchors_and_so_never_intact(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.INTENT)
    site.drop_from(log, seq)
    site.relink(log, log.size)
    site.execute("DELETE FROM checkpoints WHERE log = :log AND size > :size", log=log.id, size=len(site.leaves(log)))
    shutil.rmtree(site.anchors)
    site.anchors.mkdir()
    report = site.verify()
    assert codes(report) == {"no-anchor"}
    assert report.verdict() is Class.UNANCHORED


def test_a_truncated_log_that_the_real_writer_is_to_go_on_with(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.INTENT)
    site.ledgers["gw"].close()
    site.drop_from(log, seq)
    site.relink(log, log.size)
    site.execute("DELETE FROM checkpoints WHERE log = :log AND size > :size", log=log.id, size=len(site.leaves(log)))
    with pytest.raises(ConfigurationError, match="not as this gateway left it"):
        open_test_ledger(site.folder, site.database)
    (site.folder / "gw.head").unlink()
    ledger = open_test_ledger(site.folder, site.database)
    site.record_call(ledger, b"after")
    site.anchor()
    assert codes(site.verify()) == {"truncated", "gap"}


# -- checkpoints and keys ----------------------------------------------------------------------------------------


def test_all_checkpoints_deleted(site: Site) -> None:
    site.execute("DELETE FROM checkpoints")
    assert codes(site.verify()) == {"unsigned-tail"}


def test_a_log_signed_again_with_another_key(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    site.edit(log, seq, lambda told: msgspec.structs.replace(told, bytes_down=1))
    site.relink(log, seq)
    site.sign_again(log, Signer(log.origin, Ed25519PrivateKey.generate()), keep=seq)
    assert codes(site.verify()) == {"checkpoint-bad", "unsigned-tail", "forked"}


def test_checkpoints_before_the_last_one_only_place_what_is_altered(site: Site) -> None:
    """The last one covers all leaves; that others are missing is no finding."""
    for log in (site.log, site.named("other")):
        deleted = site.execute("DELETE FROM checkpoints WHERE log = :log AND size < :size", log=log.id, size=log.size)
        assert deleted > 2
    assert codes(site.verify()) == set()
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    site.edit(log, seq, lambda told: msgspec.structs.replace(told, bytes_down=1))
    site.relink(log, seq)
    report = site.verify()
    assert codes(report) == {"leaf-altered", "forked"}
    assert f"between records 0 and {log.size - 1}" in {finding.what for finding in report.findings}


def test_an_old_checkpoint_as_the_latest(site: Site) -> None:
    log = site.log
    site.execute(
        "UPDATE checkpoints SET note = (SELECT note FROM checkpoints AS old WHERE old.log = :log AND old.size = "
        "(SELECT MIN(size) FROM checkpoints AS least WHERE least.log = :log)) WHERE log = :log AND size = :size",
        log=log.id, size=log.size,
    )  # fmt: skip
    assert codes(site.verify()) == {"checkpoint-bad", "unsigned-tail"}


def test_another_log_s_checkpoint(site: Site) -> None:
    log, other = site.log, site.named("other")
    site.execute(
        "UPDATE checkpoints SET note = (SELECT note FROM checkpoints AS theirs WHERE theirs.log = :other "
        "AND theirs.size = :theirs) WHERE log = :log AND size = :size",
        log=log.id, size=log.size, other=other.id, theirs=other.size,
    )  # fmt: skip
    assert codes(site.verify()) == {"checkpoint-bad", "unsigned-tail"}


def test_a_whole_replica_s_log_deleted(site: Site) -> None:
    other = site.named("other")
    for table in ("records", "checkpoints", "bodies", "calls"):
        site.execute(f"DELETE FROM {table} WHERE log = :log", log=other.id)  # noqa: S608
    site.execute("DELETE FROM logs WHERE id = :log", log=other.id)
    site.execute("DELETE FROM blobs WHERE NOT EXISTS (SELECT 1 FROM bodies WHERE bodies.sha256 = blobs.sha256)")
    report = site.verify()
    assert codes(report) == {"log-missing"}
    assert report.findings[0].log == other.origin
    shutil.rmtree(site.anchors)
    site.anchors.mkdir()
    assert "log-missing" in codes(site.verify())  # the other replica saw it


def test_a_fork_with_the_live_key(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    site.edit(log, seq, lambda told: msgspec.structs.replace(told, bytes_down=1))
    site.relink(log, seq)
    site.sign_again(log, site.live_key(log), keep=seq)
    report = site.verify()
    assert codes(report) == {"forked"}
    assert "an anchor" in report.findings[0].what


def test_a_fork_with_the_live_key_is_seen_by_a_caller_s_receipt_alone(site: Site) -> None:
    log = site.log
    (receipt,) = site.ledgers["gw"].write([entry(b"for a receipt")])
    assert isinstance(receipt, Receipt)
    site.record_call(site.ledgers["gw"], b"later")
    shutil.rmtree(site.anchors)
    site.anchors.mkdir()
    (site.anchors / "caller.receipt").write_text(receipt.header())
    assert codes(site.verify()) == {"tail-unanchored"}
    site.edit(log, receipt.seq, lambda told: msgspec.structs.replace(told, bytes_down=1))
    site.relink(log, receipt.seq)
    site.sign_again(log, site.live_key(log), keep=receipt.seq)
    assert {"forked", "receipt-broken"} <= codes(site.verify())


def test_a_log_in_the_name_of_a_replica_whose_key_nobody_certified(site: Site) -> None:
    forger = KeyFolder(site.folder / "forger")
    forged_root = forger.folder
    forged_root.mkdir()
    root = forger.make_root("test", Ed25519PrivateKey.generate())
    forger.make_epoch_key(root, "test", ("third",), Ed25519PrivateKey.generate(), datetime.now(UTC))
    own = site.keys.load_epoch_key().certificate_note
    for certificate in (forger.load_epoch_key().certificate_note, own):
        site.execute("DELETE FROM logs WHERE replica = 'third'")
        site.execute(
            "INSERT INTO logs (origin, replica, epoch, day, certificate, size, root, opened_at) VALUES "
            "('holdfast/test/third/1', 'third', 1, :day, :certificate, 0, :root, :day)",
            day=site.log.day, certificate=certificate, root=Checkpoint(site.log.origin, 0, b"").root.hex(),
        )  # fmt: skip
        assert {"certificate-bad", "log-altered"} == codes(site.verify())


def forge_root(site: Site) -> tuple[KeyFolder, Signer]:
    """The keys of a root that the attacker made, or that is another cluster's."""
    (forger := KeyFolder(site.folder / "forger")).folder.mkdir()
    root = forger.make_root("test", Ed25519PrivateKey.generate())
    replicas = [replica + role for replica in ("gw", "other") for role in ROLES]
    forger.make_epoch_key(root, "test", replicas, Ed25519PrivateKey.generate(), datetime.now(UTC))
    return forger, root


def test_another_root_than_that_of_all_logs_is_told_once(site: Site) -> None:
    """Without it nothing that a log says is believed, so nothing is told that only follows from that."""
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    site.execute("DELETE FROM bodies WHERE log = :log AND seq = :seq", log=log.id, seq=seq)
    site.execute("DELETE FROM blobs WHERE NOT EXISTS (SELECT 1 FROM bodies WHERE bodies.sha256 = blobs.sha256)")
    own = site.root.key_id.hex()
    _, root = forge_root(site)
    site.root = root.verifier
    report = site.verify()
    assert (is_altered(report), codes(report)) == (True, {"root-foreign"})
    assert report.findings[0].what == (
        f"these logs are certified by another root (ID {own}) than the one given (ID {root.verifier.key_id.hex()}): "
        "is --root the right root.pub?"
    )


def test_all_certificates_replaced_is_as_grave_as_ever(site: Site) -> None:
    """The logs are signed again with the key that the forged root certifies, and a byte of a leaf is another one."""
    forger, root = forge_root(site)
    key = forger.load_epoch_key()
    site.edit(site.log, 3, lambda told: msgspec.structs.replace(told, at=told.at.replace("Z", "")))
    for replica in ("gw", "other"):
        site.execute(
            "UPDATE logs SET certificate = :note WHERE replica = :name", note=key.certificate_note, name=replica
        )
        log = site.named(replica)
        site.sign_again(log, key.signer_for(Origin(KeyName(log.origin))))
    report = site.verify()
    assert (is_altered(report), "root-foreign" in codes(report), "certificate-bad" in codes(report)) == (
        True,
        True,
        False,
    )
    site.execute(
        "UPDATE logs SET certificate = :note WHERE replica = 'gw'", note=site.keys.load_epoch_key().certificate_note
    )
    report = site.verify()
    assert (is_altered(report), "root-foreign" in codes(report)) == (True, False)
    bad = next(finding.what for finding in report.findings if finding.code.name == "certificate-bad")
    assert bad == (
        f"the certificate carries no good signature of the root key {site.root.name} (ID {site.root.key_id.hex()}); it "
        f"is signed by the key with the ID {root.verifier.key_id.hex()}"
    )


@pytest.mark.parametrize("certificate", ["", "no certificate"])
def test_certificates_that_nobody_signed_are_told_of_each_log(site: Site, certificate: str) -> None:
    site.execute("UPDATE logs SET certificate = :certificate", certificate=certificate)
    report = site.verify()
    assert (is_altered(report), len(places(report, "certificate-bad"))) == (True, 2)


def test_a_log_signed_with_a_stolen_key_after_it_expired(site: Site, tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "audit-keys")
    long_ago = datetime.now(UTC) - timedelta(days=500)
    keys.make_epoch_key(keys.load_root(), "test", REPLICAS, Ed25519PrivateKey.generate(), long_ago)
    with pytest.raises(ConfigurationError, match="its certificate is good from"):
        open_test_ledger(tmp_path, site.database, remembers=False)
    expired = keys.load_epoch_key()
    log = site.log
    site.execute("UPDATE logs SET certificate = :note WHERE id = :log", note=expired.certificate_note, log=log.id)
    site.sign_again(log, expired.signer_for(log.origin))
    assert {"certificate-expired"} <= codes(site.verify())
    assert is_altered(site.verify())


# -- bodies ------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_of_a_payload(site: Site) -> None:
    site.execute("UPDATE blobs SET body = :body WHERE size = :size", body=b"answered 9", size=len(b"answered 9"))
    assert codes(site.verify()) == {"blob-altered"}


def test_a_payload_replaced_under_its_name(site: Site) -> None:
    codec, kept = compress(b"something else" * 100)
    site.execute("UPDATE blobs SET body = :body, codec = :codec, size = 1400", body=kept, codec=codec)
    report = site.verify()
    assert codes(report) == {"blob-altered"}


def test_a_body_pointed_at_another_payload(site: Site) -> None:
    seq = site.find(site.log, Kind.OUTCOME)
    site.execute(
        "UPDATE bodies SET sha256 = (SELECT sha256 FROM bodies AS first WHERE first.seq = 1 AND first.log = :log) "
        "WHERE log = :log AND seq = :seq",
        log=site.log.id, seq=seq,
    )  # fmt: skip
    report = site.verify()
    assert codes(report) <= {"body-altered", "rows-foreign"}
    assert places(report, "body-altered") == [seq]


def test_two_bodies_swapped(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.INTENT)
    for old, new in ((seq, 900), (seq + 2, seq), (900, seq + 2)):
        site.execute("UPDATE bodies SET seq = :new WHERE log = :log AND seq = :old", log=log.id, old=old, new=new)
    report = site.verify()
    assert codes(report) == {"body-altered"}
    assert places(report, "body-altered") == [seq, seq + 2]


@pytest.mark.parametrize("table", ["bodies", "blobs"])
def test_a_payload_deleted_without_a_record_of_it(site: Site, table: str) -> None:
    site.execute(f"DELETE FROM {table}")  # noqa: S608
    report = site.verify()
    assert codes(report) - {"rows-foreign"} == {"payload-missing"}


def test_a_forged_record_of_erasure(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    redact = Redaction(
        log=Seen(log=log.origin, size=log.size, root=log.root), reason="a person asked", payloads=(f"{seq}/response",)
    )
    forged = Record(kind=Kind.REDACT, at="2026-03-01T12:00:00.000000Z", redact=redact)
    site.execute("DELETE FROM bodies WHERE log = :log AND seq = :seq", log=log.id, seq=seq)
    last = log.size - 1
    site.edit(log, last, lambda told: forged)
    site.execute(
        "UPDATE records SET kind = 'redact', call_id = '', at = :at WHERE log = :log AND seq = :seq",
        at=forged.at,
        log=log.id,
        seq=last,
    )
    site.relink(log, last)
    report = site.verify()
    assert {"leaf-altered", "forked"} <= codes(report)


def test_a_body_erased_with_a_record_of_it_is_told_and_is_no_alteration(site: Site) -> None:
    log, seq = site.log, site.find(site.log, Kind.OUTCOME)
    redact = Redaction(
        log=Seen(log=log.origin, size=log.size, root=log.root), reason="a person asked", payloads=(f"{seq}/response",)
    )
    ledger = open_test_ledger(site.folder, site.database, role=MAINTENANCE)
    ledger.write([Entry(Record(kind=Kind.REDACT, at="2026-03-01T12:00:00.000000Z", redact=redact))])
    site.execute("DELETE FROM bodies WHERE log = :log AND seq = :seq", log=log.id, seq=seq)
    site.execute("DELETE FROM blobs WHERE NOT EXISTS (SELECT 1 FROM bodies WHERE bodies.sha256 = blobs.sha256)")
    site.anchor()
    report = site.verify()
    assert codes(report) == {"payload-erased"}
    assert report.verdict() is Class.REDACTED


def test_a_payload_that_decompresses_to_gigabytes(site: Site) -> None:
    compressor = zstd.ZstdCompressor(19)
    bomb = b"".join(compressor.compress(bytes(1 << 24)) for _ in range(64)) + compressor.flush()
    assert site.execute("UPDATE blobs SET body = :bomb, codec = 'zstd'", bomb=bomb)
    report = site.verify()
    assert codes(report) == {"blob-altered"}
    assert "longer than a piece" in report.findings[0].what


# -- the database itself -----------------------------------------------------------------------------------------


def test_a_view_in_the_place_of_a_table(site: Site) -> None:
    site.execute("ALTER TABLE records RENAME TO hidden")
    site.execute("CREATE VIEW records AS SELECT * FROM hidden")
    report = site.verify()
    # Of what is no table no row is read.
    assert codes(report) == {"table-replaced", "truncated", "log-altered", "rows-foreign"}
    assert "records: found view" in report.findings[0].what


def test_two_writers_of_one_log(site: Site) -> None:
    shutil.copy(site.folder / "gw.head", site.folder / "copy.head")
    site.ledgers["gw"].close()
    first = open_test_ledger(site.folder, site.database)
    (site.folder / "gw.head").rename(site.folder / "aside")
    shutil.copy(site.folder / "aside", site.folder / "gw.head")
    second = open_test_ledger(site.folder, site.database)
    assert first.row.origin == second.row.origin
    with pytest.raises(Superseded, match="another process writes it"):
        first.write([entry()])
    second.write([entry()])
    with pytest.raises(Superseded):
        first.write([entry()])
    site.anchor()
    assert codes(site.verify()) == set()


def test_two_outcomes_for_one_call(site: Site) -> None:
    call = site.record_call(site.ledgers["gw"], b"once")
    site.ledgers["gw"].write([entry(b"twice", call=call)])
    site.anchor()
    report = site.verify()
    assert codes(report) == {"outcome-repeated"}


def test_an_export_taken_while_records_are_written(site: Site) -> None:
    lines = export_lines(site.database, "test", "2026-01-01T00:00:00.000000Z")
    taken = [next(lines)]
    site.record_call(site.ledgers["gw"], b"meanwhile")
    for line in lines:
        taken.append(line)
        if len(taken) % 5 == 0:
            site.record_call(site.ledgers["other"], b"%d" % len(taken))
    report = verify_lines(taken, site.root, Anchoring())
    assert codes(report) == {"no-anchor"}


@ONLY_SQLITE
def test_a_database_put_back_from_a_backup(site: Site, tmp_path: Path) -> None:
    site.ledgers["gw"].close()
    with (
        closing(sqlite3.connect(tmp_path / "audit.db")) as source,
        closing(sqlite3.connect(tmp_path / "backup.db")) as copy,
    ):
        source.backup(copy)
    ledger = open_test_ledger(site.folder, site.database)
    site.record_call(ledger, b"after the backup")
    site.anchor()
    ledger.close()
    site.database.close()
    restored = Database.open(f"sqlite:///{tmp_path / 'backup.db'}")
    with pytest.raises(ConfigurationError, match="not as this gateway left it"):
        open_test_ledger(site.folder, restored)
    (site.folder / "gw.head.gap").write_text("put back from the backup of last night")
    again = open_test_ledger(site.folder, restored)
    site.database = restored
    site.record_call(again, b"going on")
    site.anchor()
    assert codes(site.verify()) == {"truncated", "gap"}


# -- anchors -----------------------------------------------------------------------------------------------------


def test_an_emptied_anchor_folder(site: Site) -> None:
    shutil.rmtree(site.anchors)
    site.anchors.mkdir()
    report = site.verify()
    assert (codes(report), report.verdict()) == ({"no-anchor"}, Class.UNANCHORED)


def test_records_after_the_last_anchor(site: Site) -> None:
    site.record_call(site.ledgers["gw"], b"later")
    report = site.verify()
    assert (codes(report), report.verdict()) == ({"tail-unanchored"}, Class.UNANCHORED)
    assert codes(site.verify(tolerated_tail=timedelta(minutes=1))) == set()


def test_a_witness_that_stopped(site: Site) -> None:
    witness = Signer(KeyName("witness"), Ed25519PrivateKey.generate(), COSIGNATURE)
    file = site.anchors / "file.notes"
    notes = [msgspec.json.decode(line) for line in file.read_text().splitlines() if line]
    (site.anchors / "cosigned.notes").write_text("")
    for note in notes:
        checkpoint, signed = parse_checkpoint(note)
        stale = cosign(checkpoint, witness, int(datetime.now(UTC).timestamp()) - 3600)
        cosigned = write_note(Note(signed.text, (*signed.signatures, stale)))
        with (site.anchors / "cosigned.notes").open("ab") as stream:
            stream.write(b"\n" + msgspec.json.encode(cosigned))
    assert codes(site.verify()) == set()
    report = site.verify(witnesses=(witness.verifier,))
    assert (codes(report), report.verdict()) == ({"anchor-stale"}, Class.STALE)


# -- what is no attack -------------------------------------------------------------------------------------------


def test_a_call_without_an_outcome(site: Site) -> None:
    site.ledgers["gw"].write([Entry(record(kind=Kind.INTENT))])
    site.anchor()
    report = site.verify()
    assert (codes(report), report.verdict()) == ({"outcome-missing"}, Class.INCOMPLETE)


@pytest.mark.parametrize(("step", "code"), [(3600, "clock-stepped"), (-3600, "clock-back")])
def test_a_clock_that_was_set(tmp_path: Path, database_url: str, step: int, code: str) -> None:
    database = Database.open(database_url)
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    keys = KeyFolder(tmp_path / "audit-keys")
    keys.folder.mkdir()
    root = keys.make_root("test", Ed25519PrivateKey.generate())
    keys.make_epoch_key(root, "test", REPLICAS, Ed25519PrivateKey.generate(), start - timedelta(days=1))
    moments = iter(range(100))
    stepped = [0]

    def clock() -> Clock:
        ticks = next(moments)
        moment = start + timedelta(seconds=ticks + stepped[0])
        return Clock(moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), ticks * 1_000_000)

    ledger = open_test_ledger(tmp_path, database, clock=clock)
    ledger.write([entry()])
    stepped[0] = step
    ledger.write([entry()])
    report = verify_lines(
        export_lines(database, "test", "2026-01-01T00:00:00.000000Z"), keys.root_verifier(), Anchoring()
    )
    assert codes(report) == {code, "no-anchor"}
    database.close()


def test_every_call_of_the_site_has_two_records(site: Site) -> None:
    assert site.log.size >= 2 * CALLS
