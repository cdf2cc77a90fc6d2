"""Bodies: cut into pieces, named by their hashes, committed to without being told.

A body is cut into pieces of 1 MiB, the last one shorter. A piece is kept once a day under the SHA-256 of its
bytes, compressed with Zstandard (RFC 8878). The body's hash is the RFC 6962 root over the pieces' SHA-256 digests
(the 32 bytes of a digest are a leaf); an empty body has no piece. What the log's leaf holds is only

    commitment = SHA-256("holdfast/payload/v1\\n" || salt || body hash)

with 16 random bytes of salt for each place that refers to a body. Once salt and pieces are erased, the commitment
says nothing any more, not even to somebody who can guess the body, and every proof still holds.
"""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING

from holdfast.audit.tree import hash_leaf, root_of
from holdfast.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 1 << 20
SALT_BYTES = 16
DOMAIN = b"holdfast/payload/v1\n"
COMPRESSION_LEVEL = 3
SMALLEST_COMPRESSED = 128
"""Below this many bytes compression gains nothing."""

_UNREADABLE = "a stored payload cannot be decompressed"
_NOT_WHOLE = "a stored payload is longer than a piece may be, or not whole"


class Codec(enum.StrEnum):
    """How a piece is kept."""

    RAW = "raw"
    ZSTD = "zstd"


class Slot(enum.StrEnum):
    """Which body of its record a payload is."""

    REQUEST = "request"
    RESPONSE = "response"


@dataclass(frozen=True, slots=True)
class Piece:
    """Up to 1 MiB of a body, under its SHA-256 in hexadecimal."""

    sha256: str
    content: bytes


@dataclass(frozen=True)
class Body:
    """A body that is to be stored with its record, and the salt of the commitment to it."""

    slot: Slot
    content: bytes
    media_type: str
    salt: bytes

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The body, cut and named; this hashes all of it, so never on an event loop."""
        return tuple(cut(self.content))

    @property
    def commitment(self) -> str:
        """What the leaf holds, in hexadecimal."""
        return commit(self.salt, (bytes.fromhex(piece.sha256) for piece in self.pieces))


def cut(content: bytes) -> Iterable[Piece]:
    """Yield the pieces of a body in order."""
    view = memoryview(content)
    for start in range(0, len(content), PIECE_BYTES):
        part = content if len(content) <= PIECE_BYTES else bytes(view[start : start + PIECE_BYTES])
        yield Piece(sha256(part).hexdigest(), part)


def commit(salt: bytes, piece_digests: Iterable[bytes]) -> str:
    """The commitment to a body whose pieces have these SHA-256 digests, in hexadecimal."""
    hashes = [hash_leaf(digest) for digest in piece_digests]
    body_hash = hashes[0] if len(hashes) == 1 else root_of(hashes)
    return sha256(DOMAIN + salt + body_hash).hexdigest()


def compress(content: bytes) -> tuple[Codec, bytes]:
    """Return a piece as it is kept: compressed, unless that makes it no shorter."""
    if len(content) >= SMALLEST_COMPRESSED:
        shorter = zstd.compress(content, COMPRESSION_LEVEL)
        if len(shorter) < len(content):
            return Codec.ZSTD, shorter
    return Codec.RAW, content


def decompress(codec: str, kept: bytes, longest: int = PIECE_BYTES) -> bytes:
    """Return a piece's bytes, at most `longest` of them whatever is kept.

    Raises Internal when what is kept is no such piece.
    """
    if codec == Codec.RAW and len(kept) <= longest:
        return kept
    if codec != Codec.ZSTD:
        raise Internal(f"a stored payload is kept in an unknown way ({codec!r}), or is too long")
    decompressor = zstd.ZstdDecompressor()
    try:
        content = decompressor.decompress(kept, max_length=longest + 1)
    except zstd.ZstdError as error:
        raise Internal(_UNREADABLE) from error
    if len(content) > longest or not decompressor.eof or decompressor.unused_data:
        raise Internal(_NOT_WHOLE)
    return content


def decompressed(codec: str, kept: bytes, longest: int) -> Iterator[bytes]:
    """Yield what `decompress` returns, never more than a piece of it in memory; what is kept uncompressed is there.

    Zstandard's window comes on top: 2 MiB as bodies are compressed, and never more than 128 MiB (2^27 bytes). Raises
    Internal, after some of the bytes perhaps, when what is kept is no such body.
    """
    if codec != Codec.ZSTD:
        yield decompress(codec, kept, longest)
        return
    decompressor = zstd.ZstdDecompressor()
    taken, left = 0, longest
    try:
        while left >= 0 and not decompressor.eof and (taken < len(kept) or not decompressor.needs_input):
            some = kept[taken : taken + PIECE_BYTES] if decompressor.needs_input else b""
            taken += len(some)
            content = decompressor.decompress(some, max_length=PIECE_BYTES)
            left -= len(content)
            if left >= 0:
                yield content
    except zstd.ZstdError as error:
        raise Internal(_UNREADABLE) from error
    if left < 0 or not decompressor.eof or decompressor.unused_data or taken < len(kept):
        raise Internal(_NOT_WHOLE)
