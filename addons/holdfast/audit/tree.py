"""The Merkle tree of a log, as RFC 6962 section 2.1 defines it, and the proofs over it.

    leaf hash      SHA-256(0x00 || leaf)
    node hash      SHA-256(0x01 || left || right)
    empty tree     SHA-256("")

A tree of n leaves splits at the largest power of two below n. `Frontier` grows a tree in O(log n) memory: it
keeps the roots of the complete subtrees that the leaves so far make up, largest first, one for each bit that is
set in the size. Proofs are made from all leaf hashes, and checked without any (RFC 9162 sections 2.1.3.2 and
2.1.4.2 describe the same checks).
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LeafHash = NewType("LeafHash", bytes)
"""32 bytes: the hash of one leaf."""

RootHash = NewType("RootHash", bytes)
"""32 bytes: the hash of a whole tree."""

HASH_BYTES = 32
EMPTY_ROOT = RootHash(sha256(b"").digest())
_LEAF = sha256(b"\x00")


def hash_leaf(leaf: bytes) -> LeafHash:
    """Return the leaf hash of `leaf`."""
    hashed = _LEAF.copy()  # sooner done than to begin one, and to put the leaf behind the zero
    hashed.update(leaf)
    return LeafHash(hashed.digest())


def hash_node(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node over two subtrees."""
    return sha256(b"\x01" + left + right).digest()


def parse_hash(text: str) -> bytes:
    """Read a hash that is written in hexadecimal, in lower case; no bytes when the text is anything else."""
    try:
        read = bytes.fromhex(text)
    except ValueError:
        return b""
    return read if len(read) == HASH_BYTES and read.hex() == text else b""


class Frontier:
    """A tree that only grows: its size, and the roots of its complete subtrees."""

    __slots__ = ("_subtrees", "size")

    def __init__(self) -> None:
        self.size = 0
        self._subtrees: list[bytes] = []

    def add(self, leaf_hash: LeafHash) -> None:
        """Append one leaf."""
        self.extend((leaf_hash,))

    def extend(self, leaf_hashes: Iterable[LeafHash]) -> None:
        """Append leaves in order."""
        size, subtrees = self.size, self._subtrees
        node: bytes
        for node in leaf_hashes:
            complete = size
            while complete & 1:
                node = sha256(b"\x01" + subtrees.pop() + node).digest()  # hash_node, without the call
                complete >>= 1
            subtrees.append(node)
            size += 1
        self.size = size

    def root(self) -> RootHash:
        """The root of the tree as it stands."""
        if not self._subtrees:
            return EMPTY_ROOT
        node = self._subtrees[-1]
        for left in reversed(self._subtrees[:-1]):
            node = hash_node(left, node)
        return RootHash(node)

    def consistency_path(self, added: Sequence[LeafHash]) -> list[bytes]:
        """The proof that the tree over what was added since begins with this one (RFC 6962 section 2.1.2).

        Such a path needs nothing of this tree but its complete subtrees. Empty when this tree is, or nothing was
        added.
        """
        if not self.size or not added:
            return []
        path: list[bytes] = []
        subtrees = iter(self._subtrees)
        low, high = 0, self.size + len(added)
        while high != self.size:
            middle = low + _split(high - low)
            if self.size <= middle:
                path.append(root_of(added[middle - self.size : high - self.size]))
                high = middle
            else:
                path.append(next(subtrees))
                low = middle
        if low:
            path.append(next(subtrees))
        return path[::-1]

    def copy(self) -> Frontier:
        """A tree that grows on its own from here."""
        twin = Frontier()
        twin.size = self.size
        twin._subtrees = list(self._subtrees)
        return twin


def frontier_of(leaf_hashes: Iterable[LeafHash]) -> Frontier:
    """The tree over these leaves, in order, ready to grow."""
    frontier = Frontier()
    frontier.extend(leaf_hashes)
    return frontier


def root_of(leaf_hashes: Iterable[LeafHash]) -> RootHash:
    """The root of the tree over these leaves, in order."""
    return frontier_of(leaf_hashes).root()


def inclusion_path(leaf_hashes: Sequence[LeafHash], index: int) -> list[bytes]:
    """The audit path of leaf `index` in the tree over all of `leaf_hashes` (RFC 6962 section 2.1.1), leaf upwards.

    Raises ValueError when there is no such leaf.
    """
    if not 0 <= index < len(leaf_hashes):
        raise ValueError(f"leaf {index} is not in a tree of {len(leaf_hashes)}")
    path: list[bytes] = []
    low, high = 0, len(leaf_hashes)
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(root_of(leaf_hashes[middle:high]))
            high = middle
        else:
            path.append(root_of(leaf_hashes[low:middle]))
            low = middle
    return path[::-1]


def consistency_path(leaf_hashes: Sequence[LeafHash], old_size: int) -> list[bytes]:
    """The proof that the tree over all of `leaf_hashes` begins with the one of `old_size` (RFC 6962 section 2.1.2).

    Empty when the sizes are equal or `old_size` is 0. Raises ValueError when `old_size` is larger.
    """
    if not 0 <= old_size <= len(leaf_hashes):
        raise ValueError(f"a tree of {len(leaf_hashes)} has no prefix of {old_size}")
    return frontier_of(leaf_hashes[:old_size]).consistency_path(leaf_hashes[old_size:])


def proves_inclusion(leaf_hash: LeafHash, index: int, size: int, path: Sequence[bytes], root: RootHash) -> bool:
    """Whether `path` shows that leaf `index` of the tree of `size` with this root is `leaf_hash`."""
    if not 0 <= index < size or not _are_hashes(path):
        return False
    position, last, node = index, size - 1, bytes(leaf_hash)
    for sibling in path:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = hash_node(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = hash_node(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == root


def proves_consistency(
    old_size: int, old_root: RootHash, new_size: int, new_root: RootHash, path: Sequence[bytes]
) -> bool:
    """Whether `path` shows that the tree of `new_size` begins with the tree of `old_size`."""
    if not 0 <= old_size <= new_size or not _are_hashes(path):
        return False
    if old_size == 0 and old_root != EMPTY_ROOT:
        return False
    if old_size == new_size:
        return not path and old_root == new_root
    if old_size == 0:
        return not path
    if not path:
        return False
    return _reached_roots(old_size, old_root, new_size, list(path)) == (old_root, new_root)


def _reached_roots(old_size: int, old_root: RootHash, new_size: int, path: list[bytes]) -> tuple[bytes, bytes] | None:
    """The two roots that a consistency path leads to; None when its length does not fit the sizes."""
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    steps = path if position else [old_root, *path]
    old = new = steps[0]
    for node in steps[1:]:
        if last == 0:
            return None
        if position & 1 or position == last:
            old, new = hash_node(node, old), hash_node(node, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = hash_node(new, node)
        position, last = position >> 1, last >> 1
    return (old, new) if last == 0 else None


def _are_hashes(path: Sequence[bytes]) -> bool:
    """Whether each is as long as a hash: only then does a node's hash say where its left half ends."""
    return all(len(node) == HASH_BYTES for node in path)


def _split(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1
