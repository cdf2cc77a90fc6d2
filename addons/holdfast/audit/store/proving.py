"""What proving one record takes from the database: where it stands, and all of its log's leaves."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import select

from holdfast.audit.checkpoint import parse_checkpoint
from holdfast.audit.prove import Proof, make_proof
from holdfast.audit.store.ledger import LedgerStore
from holdfast.audit.store.naming import is_call, require_one
from holdfast.audit.store.tables import calls, logs
from holdfast.audit.tree import hash_leaf
from holdfast.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.audit.tree import LeafHash
    from holdfast.database import Database


def find_call(database: Database, named: str) -> tuple[str, int]:
    """The log, by name, and the place of the record that tells best of the one call that is named so (see `naming`).

    Raises NotFound when there is none, Conflict when there are several, Unavailable.
    """
    query = select(logs.c.origin, calls.c.seq).join(logs, logs.c.id == calls.c.log).where(is_call(named)).limit(2)
    with database.reading() as connection:
        origin, seq = require_one(connection.execute(query).all(), named)
    return origin, seq


def prove_record(database: Database, origin: str, seq: int) -> Proof:
    """Prove one record of a log in its latest checkpoint. Raises NotFound, BadNote, Unavailable."""
    store = LedgerStore(database)
    log = store.find_log(origin)
    if log is None:
        raise NotFound(f"there is no log {origin!r} in the record")
    if log.dropped_at is not None:
        raise NotFound(f"the log {origin} was dropped on {log.dropped_at}: only its leaf hashes are kept")
    note = store.latest_note(log)
    size = parse_checkpoint(note)[0].size
    if not 0 <= seq < size:
        raise NotFound(f"the log {origin} has no record {seq}; its last checkpoint is of {size}")
    leaf, hashes = _read(islice(store.leaves(log), size), seq)
    return make_proof(leaf, seq, hashes, note, log.certificate)


def _read(leaves: Iterable[bytes], seq: int) -> tuple[bytes, list[LeafHash]]:
    """The leaf at this place, and the hashes of all of them."""
    wanted, hashes = b"", []
    for place, leaf in enumerate(leaves):
        hashes.append(hash_leaf(leaf))
        if place == seq:
            wanted = leaf
    return wanted, hashes
