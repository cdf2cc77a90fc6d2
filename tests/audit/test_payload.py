"""Bodies in pieces: where they are cut, what is committed to, and what is no piece."""

from __future__ import annotations

import os
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.payload import (
    PIECE_BYTES,
    SMALLEST_COMPRESSED,
    Body,
    Codec,
    Slot,
    commit,
    compress,
    cut,
    decompress,
    zstd,
)
from holdfast.errors import Internal

MIB = 1 << 20
SALT = bytes(range(16))
CONTENT = bytes(range(251)) * 1000
FRAME = zstd.compress(CONTENT)
SKIPPED = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
"""A frame whose content nobody reads (RFC 8878 section 3.1.2)."""


def content_of(size: int) -> bytes:
    """No two pieces of it are the same."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (0, []),
        (1, [1]),
        (MIB - 1, [MIB - 1]),
        (MIB, [MIB]),
        (MIB + 1, [MIB, 1]),
        (2 * MIB - 1, [MIB, MIB - 1]),
        (3 * MIB, [MIB, MIB, MIB]),
    ],
)
def test_a_body_is_cut_at_every_mebibyte(size: int, sizes: list[int]) -> None:
    content = content_of(size)
    pieces = list(cut(content))
    assert [len(piece.content) for piece in pieces] == sizes
    assert b"".join(piece.content for piece in pieces) == content
    assert [piece.sha256 for piece in pieces] == [sha256(piece.content).hexdigest() for piece in pieces]
    assert len({piece.sha256 for piece in pieces}) == len(sizes)


@pytest.mark.parametrize(
    ("salt", "content", "commitment"),
    [  # made with xxd and sha256sum
        (SALT, b"", "44048eac255a7a8aaf9d972711f088c4c41ff3afea81b2d8dcd3292dd4e9b6d2"),
        (SALT, b"{}", "6de4fcbd18d17e3505b07440b50cc50eba87fe0098d7ab4d4f02b8e54ed2a1ef"),
        (SALT, b"a" * MIB + b"b", "1a5edc344b4ca2fe4ebaeb29cfd661f3e81825763cb7dab7216f9928576db374"),
        (b"\xff" * 16, b"{}", "5fa9c9fd8f4594355c1dad1ac5ff3684cea2da6132338df5b19d7bad449ea87c"),
    ],
)
def test_commitments_that_were_computed_by_other_means(salt: bytes, content: bytes, commitment: str) -> None:
    assert Body(Slot.REQUEST, content, "application/json", salt).commitment == commitment


def test_a_commitment_is_over_the_tree_of_the_pieces() -> None:
    digests = [sha256(content).digest() for content in (b"first", b"second", b"third")]
    first, second, third = (sha256(b"\x00" + digest).digest() for digest in digests)
    root = sha256(b"\x01" + sha256(b"\x01" + first + second).digest() + third).digest()
    expected = {
        0: sha256(b"").digest(),
        1: first,
        2: sha256(b"\x01" + first + second).digest(),
        3: root,
    }
    for number, body_hash in expected.items():
        told = sha256(b"holdfast/payload/v1\n" + SALT + body_hash).hexdigest()
        assert commit(SALT, digests[:number]) == told
    assert commit(SALT, digests[::-1]) != commit(SALT, digests)


@pytest.mark.parametrize(
    ("content", "codec"),
    [
        (b"", Codec.RAW),
        (b"x" * (SMALLEST_COMPRESSED - 1), Codec.RAW),
        (b"x" * SMALLEST_COMPRESSED, Codec.ZSTD),
        (os.urandom(SMALLEST_COMPRESSED), Codec.RAW),
        (os.urandom(PIECE_BYTES), Codec.RAW),
        (bytes(PIECE_BYTES), Codec.ZSTD),
    ],
    ids=["empty", "short", "longer", "random", "a random piece", "a piece of zeros"],
)
def test_a_piece_is_compressed_where_that_makes_it_shorter(content: bytes, codec: Codec) -> None:
    chosen, kept = compress(content)
    assert chosen is codec
    assert kept == content if codec is Codec.RAW else len(kept) < len(content)
    assert decompress(codec, kept) == content


@given(st.binary(max_size=400))
def test_what_is_kept_is_what_was_given(content: bytes) -> None:
    assert decompress(*compress(content)) == content


@pytest.mark.parametrize("longest", [1, 1000, PIECE_BYTES])
@pytest.mark.parametrize("codec", Codec)
def test_a_piece_may_be_as_long_as_the_longest_and_no_longer(codec: Codec, longest: int) -> None:
    def keep(content: bytes) -> bytes:
        return content if codec is Codec.RAW else zstd.compress(content)

    assert decompress(codec, keep(bytes(longest)), longest) == bytes(longest)
    with pytest.raises(Internal, match=r"too long|longer than a piece may be"):
        decompress(codec, keep(bytes(longest + 1)), longest)


@pytest.mark.parametrize(
    ("codec", "kept"),
    [
        ("", CONTENT),
        ("RAW", CONTENT),
        ("raw ", CONTENT),
        ("gzip", CONTENT),
        ("ZSTD", FRAME),
        ("zstd", b""),
        ("zstd", CONTENT),
        ("zstd", FRAME + b"\x00"),
        ("zstd", FRAME + FRAME),
        ("zstd", FRAME + SKIPPED),
        ("zstd", SKIPPED + FRAME),
        ("zstd", b"\x00" + FRAME),
        ("zstd", FRAME[:4] + b"\xff" + FRAME[5:]),
        ("zstd", zstd.compress(bytes(64 * MIB))),
    ],
    ids=range(14),
)
def test_what_is_no_piece_is_refused(codec: str, kept: bytes) -> None:
    with pytest.raises(Internal, match="a stored payload"):
        decompress(codec, kept)


def test_a_piece_that_was_cut_is_refused() -> None:
    for end in range(len(FRAME)):
        with pytest.raises(Internal, match=r"not whole|cannot be decompressed"):
            decompress("zstd", FRAME[:end])


def test_a_frame_that_wants_more_memory_than_a_piece_is_worth_is_refused() -> None:
    window: dict[int, int] = {zstd.CompressionParameter.window_log: 30, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=window)
    kept = compressor.compress(b"short") + compressor.flush()
    with pytest.raises(Internal, match="cannot be decompressed"):
        decompress("zstd", kept)
