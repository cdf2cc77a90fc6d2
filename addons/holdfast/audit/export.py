"""The export: all that proves the record, in one file that is verified without the database.

A Zstandard stream (RFC 8878) of JSON objects, one a line, keys sorted, bytes in base64, what is empty left out. The
member `line` says what a line is. In this order:

    header       `format` is "holdfast/export/1"; cluster, time, the kind of each table as found in the database, and
                 whether payloads follow
    log          every log: what table `logs` holds of it
    content      `log` (a number) begins the content of one log; each log has one, in the order of its numbers
      checkpoint   a signed note of that log, by size
      leafHashes   of a log that was dropped: 32 bytes each, from leaf `first` on
      record       a leaf of that log, by seq; `columns` are the columns beside it in the order of `RECORD_COLUMNS`,
                   `leafType` is there only when the leaf is not bytes; `bodies` are the rows of its bodies (slot,
                   part, salt, sha256); `call` is the row of its call when that row was derived from this record,
                   `callElsewhere` (LOG/SEQ) says which other record it names
    caller       a caller, and the claims that it is found by
    blob         a piece of a payload, by day and SHA-256, as it is kept (`codec`); without `body` where the object
                 store lacks it
    end          how many rows each table has: a file without this line was cut

Everything is told as the database has it, be it right or wrong; nothing is checked, corrected or left out here. All
lines are of one moment: one read transaction.
"""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

import msgspec

from holdfast.errors import ConfigurationError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FORMAT = "holdfast/export/1"
RECORD_COLUMNS = ("day", "call_id", "kind", "at")
LONGEST_LINE = 64 << 20
LEVEL = 3


class _Line(
    msgspec.Struct, frozen=True, tag_field="line", rename="camel", omit_defaults=True, forbid_unknown_fields=True
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

    id: int
    origin: str
    replica: str
    epoch: int
    day: str
    certificate: str
    size: int
    root: str
    opened_at: str
    closed_at: str = ""
    dropped_at: str = ""


class ContentLine(_Line, frozen=True, tag="content"):
    """What follows belongs to this log."""

    log: int


class CheckpointLine(_Line, frozen=True, tag="checkpoint"):
    """A row of `checkpoints`."""

    size: int
    note: str


class LeafHashesLine(_Line, frozen=True, tag="leafHashes"):
    """A row of `leaf_hashes`."""

    first: int
    hashes: bytes


class BodyLine(msgspec.Struct, frozen=True, array_like=True):
    """A row of `bodies`."""

    slot: str
    part: int
    salt: bytes
    sha256: str


class RecordLine(_Line, frozen=True, tag="record"):
    """A row of `records`, with the rows that hang on it."""

    seq: int
    columns: tuple[str, ...]
    leaf: bytes = b""
    leaf_type: str = ""
    bodies: tuple[BodyLine, ...] = ()
    call: dict[str, str | int | bool | None] | None = None
    call_elsewhere: str = ""


class CallerLine(_Line, frozen=True, tag="caller"):
    """A row of `callers`, and those of `caller_claims`, sorted."""

    id: str
    caller: str
    claims: tuple[tuple[str, str], ...] = ()


class BlobLine(_Line, frozen=True, tag="blob"):
    """A row of `blobs`."""

    day: str
    sha256: str
    size: int
    codec: str
    body: bytes | None = None


class EndLine(_Line, frozen=True, tag="end"):
    """The last line."""

    rows: dict[str, int]


type Line = (
    Header | LogLine | ContentLine | CheckpointLine | LeafHashesLine | RecordLine | CallerLine | BlobLine | EndLine
)

_encoder = msgspec.json.Encoder(order="sorted")
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line.__value__)


def write_export(lines: Iterable[Line], stream: IO[bytes]) -> None:
    """Write an export; the stream is left open."""
    compressor = zstd.ZstdCompressor(LEVEL)
    for line in lines:
        stream.write(compressor.compress(_encoder.encode(line) + b"\n"))
    stream.write(compressor.flush())


def read_export(stream: IO[bytes]) -> Iterator[Line]:
    """Yield the lines of an export. Raises ConfigurationError where it is none, is cut, or a line is too long."""
    try:
        with zstd.ZstdFile(stream, "rb") as lines:
            while encoded := lines.readline(LONGEST_LINE + 1):
                if len(encoded) > LONGEST_LINE or not encoded.endswith(b"\n"):
                    raise ConfigurationError("the export has a line that is too long or cut; export it again.")
                yield _decoder.decode(encoded)
    except (zstd.ZstdError, EOFError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"this is not an export, or it was damaged: {error}.") from error
