"""exec and attach over SPDY/3.1: streams in frames, observed for the exit status.

The client opens one stream for each channel and says which in the header `streamType`; the server writes the
Status to the one called `error`. All header blocks of one direction share one zlib context, primed with the
SPDY/3 dictionary, so each of them must be inflated in order, whatever is in it; all other payloads are passed
over. Sources: SPDY Protocol Draft 3.1, sections 2.2 and 2.6.10; moby/spdystream `spdy`; client-go
`tools/remotecommand/v4.go`.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

from holdfast.kube.exit_status import StatusCollector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.exchange import ExitStatus

MAX_HEADER_BLOCK_BYTES = 64 << 10
"""For one header block, deflated and inflated; client-go's are below 100 bytes."""


def _prefix_lengths(words: str) -> bytes:
    return b"".join(struct.pack(">I", len(word)) + word.encode() for word in words.split("|"))


_WORDS = (
    "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|allow|"
    "authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|"
    "content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|"
    "if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|"
    "proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|"
    "user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|"
    "keep-alive|origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
HEADER_DICTIONARY = _prefix_lengths(_WORDS) + _TEXT.encode()
"""The dictionary of section 2.6.10.1; zlib streams name it by its Adler-32, e3c6a7c2."""

_VERSION = 3
_DATA, _SYN_STREAM, _SYN_REPLY, _HEADERS = 0, 1, 2, 8
_BEFORE_BLOCK = {_SYN_STREAM: 10, _SYN_REPLY: 4, _HEADERS: 4}
"""Bytes between the frame's header and its header block, by frame type."""

_STREAM_ID_MASK = 0x7FFFFFFF


class SpdyExecObserver:
    """Follows a SPDY/3.1 connection, from the first byte after the 101 in either direction."""

    def __init__(self) -> None:
        self._client = _FrameReader()
        self._server = _FrameReader()
        self._inflater = zlib.decompressobj(zdict=HEADER_DICTIONARY)
        self._block = bytearray()
        self._error_stream: int | None = None
        self._status = StatusCollector()
        self._failed = False

    def feed_client(self, data: bytes) -> None:
        """See bytes from the client: they say which stream is the error channel."""
        if self._failed:
            return
        try:
            for frame in self._client.read(data):
                self._follow_client(frame)
        except (ValueError, struct.error, zlib.error):
            self._failed = True

    def feed_server(self, data: bytes) -> None:
        """See bytes from the server: those on the error channel are kept."""
        if self._failed:
            return
        try:
            for frame in self._server.read(data):
                if frame.kind == _DATA and frame.stream_id == self._error_stream:
                    self._status.add(frame.piece)
        except ValueError:
            self._failed = True

    def result(self) -> ExitStatus | None:
        """How the command ended, or None."""
        return None if self._failed else self._status.exit_status()

    def _follow_client(self, frame: _FramePiece) -> None:
        if frame.kind not in _BEFORE_BLOCK:
            return
        self._block += frame.piece
        if len(self._block) > MAX_HEADER_BLOCK_BYTES:
            raise ValueError("a header block is shorter than this")
        if frame.is_last:
            payload = bytes(self._block)
            self._block.clear()
            self._read_block(frame.kind, payload)

    def _read_block(self, kind: int, payload: bytes) -> None:
        headers = _parse_header_block(self._inflate(payload[_BEFORE_BLOCK[kind] :]))
        if kind != _SYN_STREAM or headers.get(b"streamtype") != b"error":
            return
        if self._error_stream is not None:
            raise ValueError("a connection has one error stream")
        self._error_stream = struct.unpack_from(">I", payload)[0] & _STREAM_ID_MASK

    def _inflate(self, block: bytes) -> bytes:
        inflated = self._inflater.decompress(block, MAX_HEADER_BLOCK_BYTES)
        if self._inflater.unconsumed_tail:
            raise ValueError("a header block is shorter than this")
        return inflated


class _FramePiece(NamedTuple):
    """A part of one frame's payload: `kind` is 0 for data, else the control frame's type."""

    kind: int
    stream_id: int
    piece: bytes
    is_last: bool


class _FrameReader:
    """Cuts one direction into frames, passing payloads on in pieces as they come."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._kind = _DATA
        self._stream_id = 0
        self._left: int | None = None

    def read(self, data: bytes) -> Iterator[_FramePiece]:
        """Yield what `data` holds; raise ValueError when it is not SPDY/3."""
        rest = memoryview(data)
        while rest:
            if self._left is None:
                rest = self._take_head(rest)
            if self._left is not None:
                piece, rest = rest[: self._left], rest[self._left :]
                yield self._take_piece(bytes(piece))

    def _take_head(self, rest: memoryview) -> memoryview:
        missing = 8 - len(self._head)
        self._head += rest[:missing]
        if len(self._head) == 8:
            self._start_frame(*struct.unpack(">II", self._head))
            self._head.clear()
        return rest[missing:]

    def _start_frame(self, first: int, second: int) -> None:
        is_control = bool(first >> 31)
        if is_control and first >> 16 & 0x7FFF != _VERSION:
            raise ValueError("the frame is not SPDY/3")
        self._kind = first & 0xFFFF if is_control else _DATA
        self._stream_id = 0 if is_control else first & _STREAM_ID_MASK
        self._left = second & 0xFFFFFF

    def _take_piece(self, piece: bytes) -> _FramePiece:
        left = (self._left or 0) - len(piece)
        self._left = left or None
        return _FramePiece(self._kind, self._stream_id, piece, is_last=left == 0)


def _parse_header_block(block: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", block)
    headers, position = {}, 4
    for _ in range(count):
        name, position = _take_string(block, position)
        value, position = _take_string(block, position)
        headers[name.lower()] = value
    return headers


def _take_string(block: bytes, position: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">I", block, position)
    end = position + 4 + length
    if end > len(block):
        raise ValueError("the header block is cut short")
    return block[position + 4 : end], end
