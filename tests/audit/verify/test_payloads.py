"""Pieces of bodies, and bodies from before they were cut: as long as their rows say, and never all in memory."""

from __future__ import annotations

import tracemalloc
from hashlib import sha256, shake_128

import msgspec
import pytest

from holdfast.audit.export import BlobLine
from holdfast.audit.payload import PIECE_BYTES, zstd
from holdfast.audit.verify.examine import examine_blob
from holdfast.audit.verify.payloads import LEGACY_PIECE_BYTES

MIB = 1 << 20
DAY = "2026-03-01"
RANDOM = shake_128(b"a body").digest(3 * MIB + 5)
NOT_WHOLE = "cannot be read: a stored payload is longer than a piece may be, or not whole"
UNREADABLE = "cannot be read: a stored payload cannot be decompressed"
UNKNOWN = "cannot be read: a stored payload is kept in an unknown way ({!r}), or is too long"
OTHER = "has other bytes"


def kept(content: bytes, codec: str = "zstd") -> BlobLine:
    """The row of a body."""
    body = zstd.compress(content) if codec == "zstd" else content
    return BlobLine(DAY, sha256(content).hexdigest(), len(content), codec, body)


def fault(line: BlobLine, longest: int = LEGACY_PIECE_BYTES, **changes: object) -> str:
    """What is wrong with a row once that was changed."""
    return examine_blob(msgspec.structs.replace(line, **changes), longest).fault


CONTENTS = {
    "nothing": b"",
    "a word": b"word",
    "a piece": RANDOM[:PIECE_BYTES],
    "a byte more": RANDOM[: PIECE_BYTES + 1],
    "pieces": RANDOM,
    "zeros": bytes(5 * MIB),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("codec", ["zstd", "raw"])
def test_a_body_of_any_length_is_hashed_as_it_is_kept(content: bytes, codec: str) -> None:
    line = kept(content, codec)
    assert not fault(line)
    assert not fault(line, longest=len(content))
    assert fault(line, sha256="00" * 32) == OTHER
    assert fault(line, size=len(content) + 1) == OTHER
    if content:
        assert fault(line, longest=len(content) - 1) == (NOT_WHOLE if codec == "zstd" else UNKNOWN.format("raw"))
    assert fault(line, codec="gzip") == UNKNOWN.format("gzip")
    assert fault(line, body=None) == "is not in the object store"


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_frame_that_is_not_the_body_s_alone(content: bytes) -> None:
    line = kept(content)
    assert line.body is not None
    for cut in {0, 1, len(line.body) // 2, len(line.body) - 1}:
        assert fault(line, body=line.body[:cut]) == NOT_WHOLE
    for trailing in (b"\0", line.body, bytes(2 * MIB)):
        assert fault(line, body=line.body + trailing) == NOT_WHOLE
    assert fault(line, body=b"\0" + line.body) == UNREADABLE


@pytest.fixture(scope="module")
def long() -> BlobLine:
    """The row of a body of 300 MiB that is almost nothing as it is kept."""
    compressor, digest, body = zstd.ZstdCompressor(), sha256(), b""
    for _ in range(300):
        digest.update(bytes(MIB))
        body += compressor.compress(bytes(MIB))
    return BlobLine(DAY, digest.hexdigest(), 300 * MIB, "zstd", body + compressor.flush())


@pytest.mark.parametrize(
    ("changes", "longest", "expected"),
    [
        ({}, 300 * MIB, ""),
        ({"sha256": "00" * 32}, 300 * MIB, OTHER),
        ({"size": 299 * MIB}, 299 * MIB, NOT_WHOLE),
        ({"size": LEGACY_PIECE_BYTES}, LEGACY_PIECE_BYTES, OTHER),
        ({}, PIECE_BYTES, NOT_WHOLE),
    ],
    ids=["right", "another hash", "a smaller size", "a larger size", "no body from before"],
)
def test_a_long_body_is_never_all_in_memory(
    long: BlobLine, changes: dict[str, object], longest: int, expected: str
) -> None:
    tracemalloc.start()
    try:
        assert fault(long, longest, **changes) == expected
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


def test_a_long_body_that_is_cut_or_goes_on_is_never_all_in_memory_either(long: BlobLine) -> None:
    assert long.body is not None
    tracemalloc.start()
    try:
        assert fault(long, body=long.body[:-1]) == NOT_WHOLE
        assert fault(long, body=long.body + b"\0") == NOT_WHOLE
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
