"""Trees and proofs: outside vectors, the RFC's own recursive definition, another implementation, and changed bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aics_tlog
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.tree import (
    EMPTY_ROOT,
    Frontier,
    LeafHash,
    RootHash,
    consistency_path,
    frontier_of,
    hash_leaf,
    hash_node,
    inclusion_path,
    proves_consistency,
    proves_inclusion,
    root_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

VECTORS = Path(__file__).parent / "vectors"
REFERENCE = json.loads((VECTORS / "rfc6962.json").read_text())
GO = json.loads((VECTORS / "tree_go.json").read_text())
ARGON = REFERENCE["argon2020"]
LARGEST = 70
LEAVES = [hash_leaf(b"leaf %d" % number) for number in range(LARGEST)]
ROOTS = [root_of(LEAVES[:size]) for size in range(LARGEST + 1)]


def reference_leaves(vectors: dict[str, Any]) -> list[LeafHash]:
    if vectors is GO:
        return LEAVES[: len(GO["roots"])]
    return [hash_leaf(bytes.fromhex(leaf)) for leaf in vectors["leaves"]]


def from_hex(texts: Sequence[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


# RFC 6962 section 2.1, word for word: the naive definitions.


def split(size: int) -> int:
    power = 1
    while power * 2 < size:
        power *= 2
    return power


def mth(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return bytes(EMPTY_ROOT)
    if len(leaves) == 1:
        return leaves[0]
    middle = split(len(leaves))
    return hash_node(mth(leaves[:middle]), mth(leaves[middle:]))


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    middle = split(len(leaves))
    if m < middle:
        return [*path(m, leaves[:middle]), mth(leaves[middle:])]
    return [*path(m - middle, leaves[middle:]), mth(leaves[:middle])]


def proof(m: int, leaves: Sequence[bytes], *, is_whole: bool = True) -> list[bytes]:
    if m == len(leaves):
        return [] if is_whole else [mth(leaves)]
    middle = split(len(leaves))
    if m <= middle:
        return [*proof(m, leaves[:middle], is_whole=is_whole), mth(leaves[middle:])]
    return [*proof(m - middle, leaves[middle:], is_whole=False), mth(leaves[:middle])]


def sides(index: int, size: int) -> str:
    """On which side the path's nodes stand, leaf upwards: what a path tells of index and size, and no more."""
    if size == 1:
        return ""
    middle = split(size)
    if index < middle:
        return sides(index, middle) + "R"
    return sides(index - middle, size - middle) + "L"


def growth(old: int, new: int) -> str:
    """How a consistency path goes: what it tells of the two sizes, and no more."""
    if old == new:
        return "="
    middle = split(new)
    if old <= middle:
        return growth(old, middle) + "R"
    return growth(old - middle, new - middle) + "L"


@st.composite
def sized(draw: st.DrawFn, smallest: int = 1) -> tuple[int, int]:
    """A size, and a number from `smallest` that is not larger."""
    size = draw(st.integers(smallest, LARGEST))
    return draw(st.integers(smallest, size)), size


def flip(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_the_empty_tree() -> None:
    assert Frontier().root() == EMPTY_ROOT == root_of([])
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("vectors", [REFERENCE, GO], ids=["certificate-transparency", "go"])
def test_outside_vectors(vectors: dict[str, Any]) -> None:
    leaves = reference_leaves(vectors)
    roots = [EMPTY_ROOT, *(RootHash(root) for root in from_hex(vectors["roots"]))]
    assert [root_of(leaves[:size]) for size in range(len(roots))] == roots
    for case in vectors["inclusion"]:
        index, size, made = case["index"], case["size"], from_hex(case["path"])
        assert inclusion_path(leaves[:size], index) == made
        assert proves_inclusion(leaves[index], index, size, made, roots[size])
    for case in vectors["consistency"]:
        old, new, made = case["old"], case["new"], from_hex(case["path"])
        assert consistency_path(leaves[:new], old) == made
        assert proves_consistency(old, roots[old], new, roots[new], made)


def test_a_public_log_of_almost_a_thousand_million_leaves() -> None:
    root, size = RootHash(bytes.fromhex(ARGON["root"])), ARGON["size"]
    leaf_hash, made = LeafHash(bytes.fromhex(ARGON["leafHash"])), from_hex(ARGON["path"])
    assert proves_inclusion(leaf_hash, ARGON["index"], size, made, root)
    assert not proves_inclusion(leaf_hash, ARGON["index"] + 1, size, made, root)
    old_root, grown = RootHash(bytes.fromhex(ARGON["oldRoot"])), from_hex(ARGON["consistency"])
    assert proves_consistency(ARGON["oldSize"], old_root, size, root, grown)
    assert not proves_consistency(ARGON["oldSize"] + 1, old_root, size, root, grown)


@pytest.mark.parametrize("size", range(1, LARGEST + 1))
def test_all_paths_are_those_of_the_definition_and_of_another_implementation(size: int) -> None:
    leaves, other = LEAVES[:size], aics_tlog.MerkleTree(b"leaf %d" % number for number in range(size))
    assert ROOTS[size] == mth(leaves) == other.root()
    for index in range(size):
        made = inclusion_path(leaves, index)
        assert made == path(index, leaves) == other.inclusion_proof(index)
        assert proves_inclusion(leaves[index], index, size, made, ROOTS[size])
        assert aics_tlog.verify_inclusion(leaves[index], index, size, made, ROOTS[size])
    for old in range(1, size + 1):
        made = consistency_path(leaves, old)
        assert made == proof(old, leaves) == other.consistency_proof(old, size)
        assert proves_consistency(old, ROOTS[old], size, ROOTS[size], made)
        assert aics_tlog.verify_consistency(old, size, ROOTS[old], ROOTS[size], made)


@pytest.mark.parametrize("size", range(LARGEST + 1))
def test_a_tree_that_grew_proves_it_without_its_old_leaves(size: int) -> None:
    for old in range(size + 1):
        tree = frontier_of(LEAVES[:old])
        assert tree.consistency_path(LEAVES[old:size]) == consistency_path(LEAVES[:size], old)
        assert (tree.size, tree.root()) == (old, ROOTS[old])


def test_a_copy_grows_on_its_own() -> None:
    tree = frontier_of(LEAVES[:5])
    twin = tree.copy()
    twin.add(LEAVES[5])
    assert (tree.size, tree.root()) == (5, ROOTS[5])
    assert (twin.size, twin.root()) == (6, ROOTS[6])


@given(sized(), st.data())
def test_no_changed_bit_proves_inclusion(numbers: tuple[int, int], data: st.DataObject) -> None:
    index, size = numbers[0] - 1, numbers[1]
    hashes = [LEAVES[index], ROOTS[size], *inclusion_path(LEAVES[:size], index)]
    place = data.draw(st.integers(0, len(hashes) - 1))
    hashes[place] = flip(hashes[place], data.draw(st.integers(0, 255)))
    assert not proves_inclusion(LeafHash(hashes[0]), index, size, hashes[2:], RootHash(hashes[1]))


@given(sized(), st.integers(-2, LARGEST + 2), st.integers(-2, 2 * LARGEST))
def test_no_other_index_or_size_proves_inclusion(numbers: tuple[int, int], other_index: int, other_size: int) -> None:
    index, size = numbers[0] - 1, numbers[1]
    made = inclusion_path(LEAVES[:size], index)
    proven = proves_inclusion(LEAVES[index], other_index, other_size, made, ROOTS[size])
    exists = 0 <= other_index < other_size
    assert proven == (exists and sides(other_index, other_size) == sides(index, size))
    assert not (proven and other_size == size and other_index != index)


@given(sized(), st.data())
def test_no_changed_bit_proves_consistency(numbers: tuple[int, int], data: st.DataObject) -> None:
    old, new = numbers
    hashes = [bytes(ROOTS[old]), bytes(ROOTS[new]), *consistency_path(LEAVES[:new], old)]
    place = data.draw(st.integers(0, len(hashes) - 1))
    hashes[place] = flip(hashes[place], data.draw(st.integers(0, 255)))
    assert not proves_consistency(old, RootHash(hashes[0]), new, RootHash(hashes[1]), hashes[2:])


@given(sized(), st.integers(-2, LARGEST + 2), st.integers(-2, 2 * LARGEST))
def test_no_other_sizes_prove_consistency(numbers: tuple[int, int], other_old: int, other_new: int) -> None:
    old, new = numbers
    made = consistency_path(LEAVES[:new], old)
    proven = proves_consistency(other_old, ROOTS[old], other_new, ROOTS[new], made)
    exists = 1 <= other_old <= other_new
    assert not proven or (exists and growth(other_old, other_new) == growth(old, new))
    assert not (proven and other_new == new and other_old != old)


@given(sized(), st.data())
def test_no_missing_added_or_moved_node_proves_anything(numbers: tuple[int, int], data: st.DataObject) -> None:
    old, new = numbers
    for made, proves in (
        (
            inclusion_path(LEAVES[:new], old - 1),
            lambda nodes: proves_inclusion(LEAVES[old - 1], old - 1, new, nodes, ROOTS[new]),
        ),
        (
            consistency_path(LEAVES[:new], old),
            lambda nodes: proves_consistency(old, ROOTS[old], new, ROOTS[new], nodes),
        ),
    ):
        place = data.draw(st.integers(0, len(made)))
        assert not proves([*made[:place], data.draw(st.binary(max_size=40)), *made[place:]])
        assert not proves([*made[:place], *made[place + 1 :]]) or place == len(made)
        assert proves(made)


def test_a_node_of_another_length_proves_nothing() -> None:
    """Two halves that are cut elsewhere hash to the same node; only their lengths give it away."""
    left, right = LEAVES[0], LEAVES[1]
    assert hash_node(left[:31], left[31:] + right) == ROOTS[2]
    assert not proves_inclusion(LeafHash(left[31:] + right), 1, 2, [left[:31]], ROOTS[2])
    forged = RootHash(hash_node(ROOTS[2][:31], hash_node(ROOTS[2][31:] + LEAVES[2], LEAVES[3])))
    path = [ROOTS[2][31:] + LEAVES[2], LEAVES[3], ROOTS[2][:31]]
    assert not proves_consistency(3, ROOTS[3], 4, forged, path)


def test_a_path_that_goes_on_above_the_root_proves_nothing() -> None:
    above = LEAVES[9]
    over = [RootHash(hash_node(above, root)) for root in ROOTS]
    assert not proves_inclusion(LEAVES[0], 0, 1, [above], over[1])
    assert not proves_consistency(3, over[3], 4, over[4], [*consistency_path(LEAVES[:4], 3), above])


def test_there_is_nothing_before_the_first_leaf() -> None:
    assert not proves_inclusion(LEAVES[1], -1, 2, inclusion_path(LEAVES[:2], 1), ROOTS[2])
    assert not proves_consistency(-1, ROOTS[3], 4, ROOTS[4], consistency_path(LEAVES[:4], 3))


@pytest.mark.parametrize(
    ("old", "old_root", "new", "new_root", "made", "expected"),
    [
        (0, EMPTY_ROOT, 0, EMPTY_ROOT, [], True),
        (0, EMPTY_ROOT, 3, ROOTS[3], [], True),
        (0, EMPTY_ROOT, 3, ROOTS[3], [LEAVES[0]], False),
        (0, ROOTS[1], 3, ROOTS[3], [], False),
        (0, ROOTS[1], 0, ROOTS[1], [], False),
        (3, ROOTS[3], 3, ROOTS[3], [], True),
        (3, ROOTS[3], 3, ROOTS[3], [LEAVES[0]], False),
        (3, ROOTS[3], 3, ROOTS[4], [], False),
        (3, ROOTS[3], 4, ROOTS[4], [], False),
        (4, ROOTS[4], 3, ROOTS[3], [], False),
        (-1, EMPTY_ROOT, 3, ROOTS[3], [], False),
    ],
)
def test_consistency_at_the_edges(
    old: int, old_root: RootHash, new: int, new_root: RootHash, made: list[bytes], expected: bool
) -> None:
    assert proves_consistency(old, old_root, new, new_root, made) is expected


def test_what_is_not_in_the_tree_has_no_path() -> None:
    for index in (-1, 3, 4):
        with pytest.raises(ValueError, match="not in a tree of 3"):
            inclusion_path(LEAVES[:3], index)
    for old in (-1, 4):
        with pytest.raises(ValueError, match="has no prefix"):
            consistency_path(LEAVES[:3], old)
    with pytest.raises(ValueError, match="not in a tree of 0"):
        inclusion_path([], 0)
