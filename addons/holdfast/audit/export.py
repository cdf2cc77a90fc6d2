"""The export: all that proves the record, in one file that is verified without the database.

One Zstandard frame (RFC 8878) around lines that end with a new line character, each a JSON object in UTF-8. Members
stand in the order of their names, members that have the value named below as "else" are left out, bytes are base64
(RFC 4648 section 4, padded). The member `line` says what a line is. The lines come in this order:

    header       once. `format`: "holdfast/export/1"; `cluster`; `exportedAt`: RFC 3339; `tables`: the kind of each
                 table by name, "table" where all is well, else what was found in its place; `payloads`: whether
                 blobs follow
    log          one a row of `logs`, by number: `id`, `origin`, `replica`, `epoch`, `day`, `certificate`, `size`,
                 `root`, `openedAt`, `closedAt` (else ""), `droppedAt` (else "")
    content      one a log, in the same order: `log`, its number. What follows belongs to it, up to the next one:
      checkpoint   a row of `checkpoints`, by size: `size`, `note`
      leafHashes   a row of `leaf_hashes`, of a log that was dropped: `first`, and `hashes`, 32 bytes a leaf
      record       a row of `records`, by seq: `seq`; `columns`: day, call_id, kind and at; `leaf`: its bytes;
                   `leafType` (else ""): what the leaf is kept as, if not as bytes. Of a leaf longer than
                   `LONGEST_LEAF`, which no record is, that many bytes and one more. What hangs on it: `bodies` (else
                   []): [slot, part, salt, sha256] for each row of `bodies`, by slot and part. Of the row of `calls`
                   for its call_id, when log and seq of that row are this record's: `call`: an object of the columns
                   of `CallRow`, and `callPlace`: its day and caller. When they are not: `callElsewhere`: its log,
                   seq and complete
    caller       a row of `callers`, by ID: `id`, `caller`, and `claims` (else []): [name, value] for each row of
                 `caller_claims` for it, sorted
    blob         a row of `blobs`, by day and SHA-256: `day`, `sha256`, `size`, `codec`, and `body`: the bytes as they
                 are kept, in the database or the object store; else null, when neither has them
    end          once. `rows`: how many rows each table has. A file without this line was cut; rows that hang on
                 nothing above show only here

Everything is told as the database has it, right or wrong: nothing is checked, corrected or left out. A value of
another type than its column's is told as one that no right value looks like: text as "(TYPE) VALUE", an integer as
-1, bytes with "(TYPE) " before them. All lines are of one moment: one read transaction.

What a leaf is: `record`; its hash and the trees: `tree`; notes and checkpoints: `note`, `checkpoint`; certificates:
`keys`; commitments to bodies, and codecs: `payload`; IDs and claims of callers: `callers`.
"""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Annotated

import msgspec

from holdfast.errors import ConfigurationError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FORMAT = "holdfast/export/1"
TABLES = (
    "logs",
    "leaf_hashes",
    "records",
    "checkpoints",
    "bodies",
    "blobs",
    "calls",
    "callers",
    "caller_claims",
)
"""What the header and the last line speak of, each of them."""

LONGEST_LEAF = 16 << 20
"""Records hold no bodies; the longest names all other logs of a database."""

LONGEST_LINE = 256 << 20
"""A body from before bodies were cut into pieces is one blob."""

LEVEL = 3
BLOCK = 1 << 18
NOTHING = msgspec.Raw()
Integer = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""What a database can hold."""


class _Line(
    msgspec.Struct,
    frozen=True,
    gc=False,
    tag_field="line",
    rename="camel",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    pass


class Header(_Line, frozen=True, tag="header"):
    """The first line. `tables` has the kind of each table: `table`, or what stands in its place."""

    format: str
    cluster: str
    exported_at: str
    tables: dict[str, str]
    payloads: bool


class LogLine(_Line, frozen=True, tag="log"):
    """A row of `logs`."""

    id: Integer
    origin: str
    replica: str
    epoch: Integer
    day: str
    certificate: str
    size: Integer
    root: str
    opened_at: str
    closed_at: str = ""
    dropped_at: str = ""


class ContentLine(_Line, frozen=True, tag="content"):
    """What follows belongs to this log."""

    log: Integer


class CheckpointLine(_Line, frozen=True, tag="checkpoint"):
    """A row of `checkpoints`."""

    size: Integer
    note: str


class LeafHashesLine(_Line, frozen=True, tag="leafHashes"):
    """A row of `leaf_hashes`."""

    first: Integer
    hashes: bytes


class BodyLine(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A row of `bodies`."""

    slot: str
    part: Integer
    salt: bytes
    sha256: str


class RecordLine(_Line, frozen=True, tag="record"):
    """A row of `records`, with the rows that hang on it; `call` is kept as JSON, since most are only compared."""

    seq: Integer
    columns: tuple[str, str, str, str]
    leaf: bytes = b""
    leaf_type: str = ""
    bodies: tuple[BodyLine, ...] = ()
    call: msgspec.Raw = NOTHING
    call_place: tuple[str, str] | None = None
    call_elsewhere: tuple[Integer, Integer, bool] | None = None


class CallerLine(_Line, frozen=True, tag="caller"):
    """A row of `callers`, and those of `caller_claims`, sorted."""

    id: str
    caller: str
    claims: tuple[tuple[str, str], ...] = ()


class BlobLine(_Line, frozen=True, tag="blob"):
    """A row of `blobs`."""

    day: str
    sha256: str
    size: Integer
    codec: str
    body: bytes | None = None


class EndLine(_Line, frozen=True, tag="end"):
    """The last line."""

    rows: dict[str, Integer]


type Line = (
    Header | LogLine | ContentLine | CheckpointLine | LeafHashesLine | RecordLine | CallerLine | BlobLine | EndLine
)

_encoder = msgspec.json.Encoder(order="sorted")
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line.__value__)


def write_export(lines: Iterable[Line], stream: IO[bytes]) -> None:
    """Write an export; the stream is left open."""
    compressor = zstd.ZstdCompressor(LEVEL)
    block = bytearray()
    for line in lines:
        block += encode_line(line)
        block += b"\n"
        if len(block) >= BLOCK:
            stream.write(compressor.compress(block))
            block.clear()
    stream.write(compressor.compress(block) + compressor.flush())


def read_export(stream: IO[bytes]) -> Iterator[Line]:
    """Yield the lines of an export. Raises ConfigurationError where it is none, is cut, or a line is too long."""
    for block in read_blocks(stream):
        yield from decode_block(block)


def read_blocks(stream: IO[bytes], size: int = BLOCK) -> Iterator[bytes]:
    """Yield an export as blocks of whole lines, undecoded, of about `size` bytes or as many more as a line has.

    Raises ConfigurationError where it is no export, is cut, or a line is too long.
    """
    rest: list[memoryview] = []
    try:
        for content in _decompress(stream, size):
            view = memoryview(content)
            end = content.rfind(b"\n") + 1
            if end:
                yield b"".join((*rest, view[:end]))
                rest.clear()
            rest.append(view[end:])
            if sum(map(len, rest)) > LONGEST_LINE:
                raise ConfigurationError("the export has a line that is too long; it is no export, or was damaged.")
    except zstd.ZstdError as error:
        raise _damaged(error) from error
    if any(rest):
        raise ConfigurationError("the last line of the export was cut; export it again.")


def decode_block(block: bytes) -> list[Line]:
    """Read the lines of a block. Raises ConfigurationError when they are none of an export."""
    try:
        lines = _decoder.decode_lines(block)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(error) from error
    if len(lines) != block.count(b"\n"):  # white space between lines, too, compresses to next to nothing
        raise ConfigurationError("this is not an export, or it was damaged: it has lines that are empty.")
    return lines


def encode_line(line: Line) -> bytes:
    """Return a line's JSON."""
    return _encoder.encode(line)


def decode_line(line: bytes) -> Line:
    """Read one line that `encode_line` wrote."""
    return _decoder.decode(line)


def _damaged(error: Exception) -> ConfigurationError:
    return ConfigurationError(f"this is not an export, or it was damaged: {error}.")


def _decompress(stream: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield what is in the one frame, a block at a time, whatever is compressed into it."""
    decompressor = zstd.ZstdDecompressor()
    while not decompressor.eof:
        kept = stream.read(BLOCK) if decompressor.needs_input else b""
        if not kept and decompressor.needs_input:
            raise ConfigurationError("the export was cut; export it again.")
        yield decompressor.decompress(kept, max_length=size)
    if decompressor.unused_data or stream.read(1):
        raise ConfigurationError("something follows the end of the export; it was damaged.")
