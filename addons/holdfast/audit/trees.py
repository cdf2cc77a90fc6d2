"""The trees of a replica's logs, for the anchors: made again from the database, remembered as far as they were proven.

An anchor asks for one proof after another, each from where the last one ended, so a tree is kept at the size that was
proven last and only grows by what came since.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from holdfast.audit.tree import Frontier, LeafHash, hash_leaf
from holdfast.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.audit.checkpoint import Origin
    from holdfast.audit.ledger import Ledger
    from holdfast.audit.logs import LogRow
    from holdfast.audit.store.ledger import LedgerStore

REMEMBERED = 16


class LedgerTrees:
    """What `anchors.source.TreeSource` asks for, of the logs of one ledger."""

    def __init__(self, ledger: Ledger, store: LedgerStore) -> None:
        self._ledger = ledger
        self._store = store
        self._lock = threading.Lock()
        self._proven: dict[Origin, Frontier] = {}

    def latest_checkpoints(self) -> Sequence[str]:
        """The latest signed notes of the log that is written, and of the one that ended before it."""
        return self._ledger.latest_notes

    def consistency(self, origin: Origin, old_size: int, new_size: int) -> list[bytes]:
        """The proof that the log of `new_size` begins with the log of `old_size`. Raises NotFound, Unavailable."""
        row = self._store.find_log(origin)
        if row is None or not 0 <= old_size <= new_size <= row.size or row.dropped_at is not None:
            raise NotFound(f"there is no log {origin} of {new_size} records any more")
        with self._lock:
            old = self._grow(row, old_size)
            added = self._hashes(row, old_size, new_size)
            path = old.consistency_path(added)
            old.extend(added)
            self._remember(origin, old)
        return path

    def certificate(self, origin: Origin) -> str:
        """The note that certifies the log's key; empty for a log that nobody signed. Raises NotFound, Unavailable."""
        row = self._store.find_log(origin)
        if row is None:
            raise NotFound(f"there is no log {origin}")
        return row.certificate

    def _grow(self, row: LogRow, size: int) -> Frontier:
        known = self._proven.get(row.origin)
        tree = known.copy() if known is not None and known.size <= size else Frontier()
        tree.extend(self._hashes(row, tree.size, size))
        return tree

    def _hashes(self, row: LogRow, first: int, end: int) -> list[LeafHash]:
        leaves = self._store.leaves(row, first)
        hashes = [hash_leaf(leaf) for _, leaf in zip(range(first, end), leaves, strict=False)]
        if len(hashes) != end - first:
            raise NotFound(f"the log {row.origin} has lost records")
        return hashes

    def _remember(self, origin: Origin, tree: Frontier) -> None:
        self._proven.pop(origin, None)
        self._proven[origin] = tree
        while len(self._proven) > REMEMBERED:
            del self._proven[next(iter(self._proven))]
