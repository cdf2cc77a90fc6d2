"""Proofs of single records: accepted by other implementations, by nobody when anything of them is changed."""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import aics_tlog
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.entries import entry, new_id, open_test_ledger, record
from holdfast.audit.checkpoint import Origin, parse_checkpoint, sign_checkpoint
from holdfast.audit.keys import Certificate, KeyFolder, parse_certificate
from holdfast.audit.note import BadNote, KeyName, Signer, sign_note
from holdfast.audit.prove import Proof, check_proof, parse_proof, write_proof
from holdfast.audit.record import Entry, Kind
from holdfast.audit.sequence import Clock, Head
from holdfast.audit.store import LedgerStore
from holdfast.audit.store.proving import find_call, prove_record
from holdfast.audit.tree import hash_leaf
from holdfast.errors import Conflict, NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.audit.ledger import Ledger
    from holdfast.audit.note import Verifier
    from holdfast.database import Database

ORIGIN = Origin(KeyName("holdfast/test/gw/1"))
ROOT = Signer(KeyName("holdfast-root/test"), Ed25519PrivateKey.from_private_bytes(b"r" * 32))
LOG = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"l" * 32))
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def ledger(tmp_path: Path, database: Database) -> Ledger:
    """A log of 11 records, written in commits of 1, 3 and 7."""
    ledger = open_test_ledger(tmp_path, database)
    ledger.write([entry() for _ in range(3)])
    ledger.write([entry() for _ in range(7)])
    return ledger


def root_of(folder: Path) -> Verifier:
    return KeyFolder(folder / "audit-keys").root_verifier()


def certified(until: datetime = NOON + timedelta(days=1)) -> str:
    certificate = Certificate("test", ("gw",), LOG.verifier.public_key, NOON - timedelta(days=1), until)
    return sign_note(certificate.text(), ROOT)


def small_proof(certificate: str = certified()) -> Proof:
    """Of the second of three records, made without a database."""
    head = Head(ORIGIN)
    placed = [head.place(record(), Clock("2026-03-01T12:00:00.000000Z", 5)) for _ in range(3)]
    path = (placed[0].leaf_hash, placed[2].leaf_hash)
    return Proof(placed[1].leaf, 1, path, sign_checkpoint(head.checkpoint(), LOG), certificate)


def test_every_record_of_a_log_is_proven(tmp_path: Path, database: Database, ledger: Ledger) -> None:
    leaves = list(LedgerStore(database).leaves(ledger.row))
    for seq, leaf in enumerate(leaves):
        proof = parse_proof(write_proof(prove_record(database, ledger.row.origin, seq)))
        proven = check_proof(proof, root_of(tmp_path))
        assert (proof.leaf, proven.leaf.seq, proven.checkpoint.size) == (leaf, seq, len(leaves))


def test_another_implementation_accepts_what_is_written(tmp_path: Path, database: Database, ledger: Ledger) -> None:
    for seq in range(ledger.row.size):
        text = write_proof(prove_record(database, ledger.row.origin, seq))
        header, _, index, *rest = text.split("\n")
        empty = rest.index("")
        assert (header, index) == ("c2sp.org/tlog-proof@v1", f"index {seq}")
        certificate = parse_certificate(parse_proof(text).certificate, root_of(tmp_path))
        key = aics_tlog.parse_vkey(str(certificate.verifier_for(ledger.row.origin)))
        signed = aics_tlog.verify_checkpoint(aics_tlog.parse_note("\n".join(rest[empty + 1 :])), key)
        assert signed.ok
        path = [base64.b64decode(line, validate=True) for line in rest[:empty]]
        leaf = list(LedgerStore(database).leaves(ledger.row))[seq]
        assert aics_tlog.verify_leaf_inclusion(leaf, seq, signed.size, path, signed.root)
        assert not aics_tlog.verify_leaf_inclusion(leaf + b" ", seq, signed.size, path, signed.root)


def test_a_small_proof_is_accepted() -> None:
    proven = check_proof(parse_proof(write_proof(small_proof())), ROOT.verifier)
    assert (proven.leaf.log, proven.leaf.seq, proven.checkpoint.size) == (ORIGIN, 1, 3)


def test_every_changed_character_of_a_proof_is_refused_or_changes_nothing_that_is_proven() -> None:
    text = write_proof(small_proof())
    proof = parse_proof(text)
    for place in range(len(text)):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        with suppress(BadNote):
            check_proof(parse_proof(changed), ROOT.verifier)
            assert parse_proof(changed) == proof


OTHER = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"o" * 32))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"index": 0}, "does not lead from the record"),
        ({"index": 3}, "does not lead from the record"),
        ({"path": ()}, "does not lead from the record"),
        ({"leaf": b"{}"}, "does not lead from the record"),
        ({"certificate": sign_note("holdfast/certificate/v1\n", ROOT)}, "not written as it must be"),
        ({"certificate": sign_note("holdfast/certificate/v1\n", OTHER)}, "no good signature of the root key"),
        ({"certificate": certified(NOON - timedelta(hours=1))}, "was not certified"),
        ({"note": sign_checkpoint(parse_checkpoint(small_proof().note)[0], OTHER)}, "carries no good signature"),
    ],
)
def test_what_does_not_hold_is_said(change: dict[str, object], sentence: str) -> None:
    proof = replace(small_proof(), **change)  # type: ignore[arg-type]
    with pytest.raises(BadNote, match=sentence):
        check_proof(proof, ROOT.verifier)


def test_a_leaf_that_stands_in_another_place_is_not_proven() -> None:
    head = Head(ORIGIN)
    clock = Clock("2026-03-01T12:00:00.000000Z", 5)
    elsewhere = Head(Origin(KeyName("holdfast/test/gw/2"))).place(record(), clock)
    no_record = hash_leaf(b"no record")
    deep = elsewhere.leaf.replace(b'"groups":', b'"claims":{"a":%s},"groups":' % (b"[" * 20_000 + b"]" * 20_000))
    for leaf, leaf_hash in (
        (elsewhere.leaf, elsewhere.leaf_hash),
        (b"no record", no_record),
        (deep, hash_leaf(deep)),
    ):
        head = Head(ORIGIN)
        head.extend([leaf_hash])
        proof = Proof(leaf, 0, (), sign_checkpoint(head.checkpoint(), LOG), certified())
        with pytest.raises(BadNote, match=r"stands in another place|is no record"):
            check_proof(proof, ROOT.verifier)


GOOD = write_proof(small_proof())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        GOOD.replace("@v1", "@v2"),
        GOOD.replace("index 1", "index 01"),
        GOOD.replace("index 1", "index -1"),
        GOOD.replace("index 1", "Index 1"),
        GOOD.replace("index 1\n", ""),
        GOOD.replace("extra ", "extra  "),
        "\n".join(line for line in GOOD.split("\n") if not line.startswith("extra ")),
        GOOD.replace("\n\n", "\nAAAA\n\n", 1),
        GOOD.replace("\n\n", "\n" + "A" * 43 + "=\n" * 65 + "\n\n", 1),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("extra ", "extra eyJsZWFmIjoiXHVkODAwIiwiY2VydGlmaWNhdGUiOiIifQ==\nextra ", 1),
    ],
)
def test_other_text_is_no_proof(text: str) -> None:
    with pytest.raises(BadNote):
        check_proof(parse_proof(text), ROOT.verifier)


def test_a_call_is_found_by_the_beginning_of_its_id(database: Database, ledger: Ledger) -> None:
    call = new_id()
    ledger.write([Entry(record(call, Kind.INTENT))])
    ledger.write([entry(call=call)])
    place = (ledger.row.origin, ledger.row.size - 1)
    assert find_call(database, call[:13]) == place
    with pytest.raises(NotFound, match="no call in the record"):
        find_call(database, "x")
    with pytest.raises(Conflict, match="several calls"):
        find_call(database, "")


def test_what_cannot_be_proven_is_said(database: Database, ledger: Ledger) -> None:
    origin, size = ledger.row.origin, ledger.row.size
    with pytest.raises(NotFound, match="there is no log 'holdfast/test/gw/9'"):
        prove_record(database, "holdfast/test/gw/9", 0)
    for seq in (-1, size):
        with pytest.raises(NotFound, match=f"has no record {seq}; its last checkpoint is of {size}"):
            prove_record(database, origin, seq)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE records SET leaf = x'7b7d' WHERE seq = 4")
    with pytest.raises(BadNote, match="not what its checkpoint says"):
        prove_record(database, origin, 0)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE logs SET dropped_at = '2026-04-01'")
    with pytest.raises(NotFound, match="was dropped on 2026-04-01"):
        prove_record(database, origin, 0)
