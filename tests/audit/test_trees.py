"""The proofs that anchors ask for, made from the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audit.entries import entry, open_test_ledger
from holdfast.audit.checkpoint import Origin, open_checkpoint, parse_checkpoint
from holdfast.audit.keys import KeyFolder, parse_certificate
from holdfast.audit.note import KeyName
from holdfast.audit.store import LedgerStore
from holdfast.audit.tree import hash_leaf, proves_consistency, root_of
from holdfast.audit.trees import LedgerTrees
from holdfast.database import Database
from holdfast.errors import NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.audit.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_test_ledger(tmp_path, Database.open(f"sqlite:///{tmp_path / 'audit.db'}"), epoch_records=30)


@pytest.fixture
def store(tmp_path: Path, ledger: Ledger) -> LedgerStore:
    return LedgerStore(Database.open(f"sqlite:///{tmp_path / 'audit.db'}"))


def test_every_step_is_proven_in_whatever_order_it_is_asked_for(ledger: Ledger, store: LedgerStore) -> None:
    ledger.write([entry() for _ in range(28)])
    trees, origin = LedgerTrees(ledger, store), ledger.row.origin
    hashes = [hash_leaf(leaf) for leaf in store.leaves(ledger.row)]
    for old, new in ((1, 3), (3, 9), (9, 29), (2, 29), (29, 29), (0, 5), (5, 17)):
        path = trees.consistency(origin, old, new)
        assert proves_consistency(old, root_of(hashes[:old]), new, root_of(hashes[:new]), path)


def test_what_the_log_never_was_is_not_proven(ledger: Ledger, store: LedgerStore) -> None:
    trees, origin = LedgerTrees(ledger, store), ledger.row.origin
    for name, old, new in ((origin, 0, 2), (origin, 1, 0), (Origin(KeyName("holdfast/test/gw/9")), 0, 0)):
        with pytest.raises(NotFound, match="no log"):
            trees.consistency(name, old, new)


def test_the_log_that_ended_is_told_with_the_one_that_goes_on(
    ledger: Ledger, store: LedgerStore, tmp_path: Path
) -> None:
    trees = LedgerTrees(ledger, store)
    first = ledger.row.origin
    ledger.write([entry() for _ in range(30)])
    ledger.write([entry()])
    told = [parse_checkpoint(note)[0] for note in trees.latest_checkpoints()]
    assert [(found.origin, found.size) for found in told] == [(first, 32), (ledger.row.origin, ledger.row.size)]
    root = KeyFolder(tmp_path / "audit-keys").root_verifier()
    for note, found in zip(trees.latest_checkpoints(), told, strict=True):
        certificate = parse_certificate(trees.certificate(found.origin), root)
        assert open_checkpoint(note, certificate.verifier_for(found.origin)) == found
