"""The head of a log: gives records their place, one after another, and knows the tree that they make.

Pure. A head is copied before a batch is placed on it, and the copy becomes the head once the batch is durable, so
that a failed commit leaves no trace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.audit.checkpoint import Checkpoint, Origin
from holdfast.audit.record import Leaf, Record, encode, encode_leaf
from holdfast.audit.tree import Frontier, LeafHash, hash_leaf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NO_HASH = bytes(32)
"""What the first leaf of a replica's first log names as the one before it."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The wall clock (as `record.timestamp` writes it) and the monotonic clock (microseconds), read together."""

    time: str
    mono: int

    @property
    def day(self) -> str:
        """The UTC day, as 2026-01-31."""
        return self.time[:10]


@dataclass(frozen=True, slots=True)
class Placed:
    """A record in its place: its leaf, the leaf's hash, and what it tells."""

    record: Record
    seq: int
    leaf: bytes
    leaf_hash: LeafHash


class Head:
    """One log as it stands: how many leaves it has, their tree, and the hash that the next leaf names."""

    __slots__ = ("_tree", "origin", "previous")

    def __init__(self, origin: Origin, previous: bytes = NO_HASH) -> None:
        self.origin = origin
        self.previous = previous
        self._tree = Frontier()

    @property
    def size(self) -> int:
        """How many leaves the log has."""
        return self._tree.size

    def place(self, record: Record, clock: Clock) -> Placed:
        """Append a record. Raises Internal, and changes nothing, when it cannot be encoded."""
        leaf = Leaf(record, self.origin, self.size, self.previous.hex(), clock.time, clock.mono)
        placed_bytes = encode_leaf(leaf, encode(record))
        placed = Placed(record, self.size, placed_bytes, hash_leaf(placed_bytes))
        self.extend((placed.leaf_hash,))
        return placed

    def extend(self, leaf_hashes: Iterable[LeafHash]) -> None:
        """Append leaves in order, when the head is made again from a log that has them already."""
        self._tree.extend(self._follow(leaf_hashes))

    def _follow(self, leaf_hashes: Iterable[LeafHash]) -> Iterator[LeafHash]:
        for leaf_hash in leaf_hashes:
            self.previous = leaf_hash
            yield leaf_hash

    def checkpoint(self) -> Checkpoint:
        """What is signed of the log as it stands."""
        return Checkpoint(self.origin, self.size, self._tree.root())

    def copy(self) -> Head:
        """A head that goes on by itself from here."""
        twin = Head(self.origin, self.previous)
        twin._tree = self._tree.copy()
        return twin
