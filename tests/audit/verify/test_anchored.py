"""What was kept outside the database: by whom it is signed, what follows from that, and what does not."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.entries import entry, open_test_ledger
from audit.tampering import Site, codes, places
from holdfast.audit.anchors.file import append_note
from holdfast.audit.checkpoint import Checkpoint, Origin, cosign, parse_checkpoint, sign_checkpoint
from holdfast.audit.keys import ROLES, Certificate, KeyFolder
from holdfast.audit.note import COSIGNATURE, KeyName, Note, Signer, sign_note, write_note
from holdfast.audit.receipt import Receipt
from holdfast.audit.store import LedgerStore
from holdfast.audit.tree import LeafHash, RootHash
from holdfast.audit.verify import Class

if TYPE_CHECKING:
    from holdfast.audit.logs import LogRow

WITNESS = Signer(KeyName("witness"), Ed25519PrivateKey.from_private_bytes(b"w" * 32), COSIGNATURE)
FORGER = Ed25519PrivateKey.from_private_bytes(b"f" * 32)
NOWHERE = Checkpoint(Origin(KeyName("holdfast/test/gw/7")), 5, RootHash(bytes(32)))


@pytest.fixture(autouse=True)
def _no_anchors(site: Site) -> None:
    shutil.rmtree(site.anchors)
    site.anchors.mkdir()


def note_of(site: Site, row: LogRow) -> str:
    return LedgerStore(site.database).latest_note(row)


def keep(site: Site, note: str) -> None:
    append_note(site.anchors / "kept.notes", note)


def receive(site: Site) -> Receipt:
    """A caller's receipt, of a record that others follow."""
    (receipt,) = site.ledgers["gw"].write([entry(b"for a receipt")])
    assert isinstance(receipt, Receipt)
    return receipt


def keep_receipt(site: Site, receipt: Receipt) -> None:
    (site.anchors / "caller.receipt").write_text(receipt.header())


def cosigned(note: str, at: datetime) -> str:
    checkpoint, signed = parse_checkpoint(note)
    return write_note(Note(signed.text, (*signed.signatures, cosign(checkpoint, WITNESS, int(at.timestamp())))))


def test_a_key_exchanged_under_an_anchored_checkpoint(site: Site) -> None:
    """Somebody with the root's key, or an older certified one, signs a log again as if it had always been so."""
    log = site.log
    keep(site, note_of(site, log))
    keep(site, note_of(site, site.named("other")))
    other_key = Ed25519PrivateKey.generate()
    now = datetime.now(UTC)
    replicas = tuple("gw" + role for role in ROLES)
    certificate = Certificate(
        "test", replicas, other_key.public_key().public_bytes_raw(), now - timedelta(days=1), now + timedelta(days=1)
    )
    note = sign_note(certificate.text(), KeyFolder(site.folder / "audit-keys").load_root())
    site.execute("UPDATE logs SET certificate = :note WHERE id = :log", note=note, log=log.id)
    site.sign_again(log, Signer(Origin(KeyName(log.origin)), other_key))
    report = site.verify()
    assert codes(report) == {"key-replaced", "tail-unanchored"}
    assert report.verdict() is Class.ALTERED


def test_an_anchored_checkpoint_that_nobody_of_ours_signed(site: Site) -> None:
    for row in (site.log, site.named("other")):
        keep(site, note_of(site, row))
    keep(site, sign_checkpoint(NOWHERE, Signer(NOWHERE.origin, FORGER)))
    report = site.verify()
    assert codes(report) == {"log-missing"}  # it was anchored, so there was such a log, or the folder was tampered with
    assert "kept.notes" in report.findings[0].what


def test_an_anchor_of_another_cluster(site: Site) -> None:
    for row in (site.log, site.named("other")):
        keep(site, note_of(site, row))
    foreign = Checkpoint(Origin(KeyName("holdfast/else/gw/1")), 5, RootHash(bytes(32)))
    keep(site, sign_checkpoint(foreign, Signer(foreign.origin, FORGER)))
    report = site.verify()
    assert (codes(report), report.verdict()) == ({"anchor-unusable"}, Class.UNANCHORED)


def test_an_emptied_database(site: Site) -> None:
    keep(site, note_of(site, site.log))
    for table in ("records", "checkpoints", "bodies", "blobs", "calls", "callers", "caller_claims", "logs"):
        site.execute(f"DELETE FROM {table}")  # noqa: S608
    report = site.verify()
    assert (codes(report), report.verdict()) == ({"log-missing"}, Class.ALTERED)


def test_a_receipt_anchors(site: Site) -> None:
    receipt = receive(site)
    keep(site, note_of(site, site.named("other")))
    keep_receipt(site, receipt)
    assert codes(site.verify()) == set()
    site.record_call(site.ledgers["gw"], b"later")
    assert codes(site.verify()) == {"tail-unanchored"}


def forged_receipts(receipt: Receipt) -> list[Receipt]:
    """What a caller who wants to raise an alarm can make up."""
    checkpoint = parse_checkpoint(receipt.note)[0]
    forged = sign_checkpoint(Checkpoint(checkpoint.origin, 5, RootHash(bytes(32))), Signer(checkpoint.origin, FORGER))
    nowhere = sign_checkpoint(NOWHERE, Signer(NOWHERE.origin, FORGER))
    return [
        Receipt(receipt.origin, receipt.seq, receipt.leaf_hash, forged),
        Receipt(NOWHERE.origin, 2, receipt.leaf_hash, nowhere),
        Receipt(receipt.origin, receipt.seq, LeafHash(bytes(32)), receipt.note),
        Receipt(receipt.origin, receipt.seq + 100, receipt.leaf_hash, receipt.note),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_caller_cannot_raise_an_alarm_with_a_receipt_it_made_up(site: Site, number: int) -> None:
    forged = forged_receipts(receive(site))[number]
    site.anchor()
    keep_receipt(site, forged)
    report = site.verify()
    assert (codes(report), report.verdict()) == ({"anchor-unusable"}, Class.UNANCHORED)


def test_a_receipt_by_a_key_of_ours_tells_of_a_log_that_is_gone(site: Site) -> None:
    receipt = receive(site)
    keep_receipt(site, receipt)
    keep(site, note_of(site, site.named("other")))
    site.ledgers["gw"].close("shut down")
    again = open_test_ledger(site.folder, site.database)  # the certificate of the next log has the same key
    again.write([entry()])
    log = LedgerStore(site.database).find_log(receipt.origin)
    assert log is not None
    for table in ("records", "checkpoints", "bodies", "calls"):
        site.execute(f"DELETE FROM {table} WHERE log = :log", log=log.id)  # noqa: S608
    site.execute("DELETE FROM logs WHERE id = :log", log=log.id)
    report = site.verify()
    assert "log-missing" in codes(report)
    assert "anchor-unusable" not in codes(report)


def test_a_witness_that_the_auditor_trusts_must_have_seen_every_log(site: Site) -> None:
    for row in (site.log, site.named("other")):
        keep(site, note_of(site, row))
    assert codes(site.verify()) == set()
    report = site.verify(witnesses=(WITNESS.verifier,))
    assert (codes(report), report.verdict()) == ({"unseen"}, Class.UNANCHORED)
    assert {finding.log for finding in report.findings} == {site.log.origin, site.named("other").origin}


def test_a_log_is_seen_through_another_that_tells_of_it(site: Site) -> None:
    """A witness saw the log whose last record names all of the other one."""
    site.ledgers["gw"].beat()
    keep(site, cosigned(note_of(site, site.log), datetime.now(UTC)))
    report = site.verify(witnesses=(WITNESS.verifier,))
    assert codes(report) == set()
    assert report.anchors == 1


def test_a_cosignature_of_another_witness_counts_for_nothing(site: Site) -> None:
    keep(site, cosigned(note_of(site, site.log), datetime.now(UTC)))
    other = Signer(WITNESS.name, FORGER, COSIGNATURE)
    assert "unseen" in codes(site.verify(witnesses=(other.verifier,)))


def test_a_log_on_from_long_after_its_last_anchor(site: Site) -> None:
    """Times are those that the records tell, so the end of the record may be young and its anchor old."""
    for row in (site.log, site.named("other")):
        keep(site, note_of(site, row))
    site.record_call(site.ledgers["gw"], b"later")
    assert codes(site.verify(stale_after=timedelta(0))) == {"tail-unanchored", "anchor-stale"}
    assert codes(site.verify(stale_after=timedelta(minutes=1))) == {"tail-unanchored"}
    report = site.verify(stale_after=timedelta(minutes=1))
    assert places(report, "tail-unanchored") == [site.log.size - 2]


def test_many_anchors_of_one_log_are_all_held_against_it(site: Site) -> None:
    with site.database.reading() as connection:
        notes = connection.exec_driver_sql("SELECT note FROM checkpoints").scalars().all()
    for note in notes:
        keep(site, note)
    report = site.verify()
    assert (codes(report), report.anchors) == (set(), len(notes))
    log = site.log
    site.execute("UPDATE records SET leaf = x'7b7d' WHERE log = :log AND seq = 0", log=log.id)
    forked = site.verify().counts["forked"]
    of_log = [note for note in notes if parse_checkpoint(note)[0].origin == log.origin]
    assert forked >= len(of_log)
