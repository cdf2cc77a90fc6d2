"""A process that examines blocks of an export's lines for another one (see `workers`), and how the two talk.

`python -m` runs it, with the numbers of two open files: a connection, and a file in memory. Blocks and their outcomes
lie in that file, and what little goes through the connection says how long they are, so neither side ever waits for
the other to read. A worker says that it is up with an empty message, answers blocks in their order, and ends when the
connection does.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import msgspec

from holdfast.audit.export import Line, decode_line, encode_line
from holdfast.audit.note import Verifier
from holdfast.audit.verify.examine import (
    EXAMINED,
    Examined,
    ExaminedBlob,
    ExaminedCaller,
    ExaminedCheckpoint,
    ExaminedRecord,
    ExaminedStretch,
    examine_block,
)
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLACES = 3
"""Messages under way in each direction: blocks that a worker has, one that it examines and two that wait for it."""

PLACE_BYTES = 1 << 30
"""More than any message has. What is not written takes no memory."""

LENGTH_BYTES = 8


class Gone(Exception):
    """The other side has ended, or what it says cannot be."""


class Channel:
    """Messages of any length between two processes, up to `PLACES` under way; `side` is 0 at one end, 1 at the other.

    A message is its content and, `beside` that, a few words. Every method raises Gone.
    """

    def __init__(self, connection: Connection, file: int, side: int) -> None:
        self._connection = connection
        self._file = file
        self._side = side
        self._sent = self._received = 0

    def send(self, content: bytes, beside: bytes = b"") -> None:
        """Send the next message."""
        place = self._side * PLACES + self._sent % PLACES
        self._sent += 1
        if os.pwrite(self._file, content, place * PLACE_BYTES) != len(content):
            raise Gone
        try:
            self._connection.send_bytes(len(content).to_bytes(LENGTH_BYTES) + beside)
        except OSError as error:
            raise Gone from error

    def receive(self) -> tuple[bytes, bytes]:
        """Wait for the next message; return its content and what stood beside."""
        place = (1 - self._side) * PLACES + self._received % PLACES
        self._received += 1
        try:
            head = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise Gone from error
        length = int.from_bytes(head[:LENGTH_BYTES])
        content = os.pread(self._file, length, place * PLACE_BYTES)
        if len(content) != length:
            raise Gone
        return content, head[LENGTH_BYTES:]

    def has_message(self) -> bool:
        """Whether `receive` has something to return or to raise."""
        return self._connection.poll()


class _Other(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="line"):
    """A line that `examine` hands on, as its JSON."""

    line: bytes


class _Outcome(msgspec.Struct, frozen=True, array_like=True):
    """A block's lines, examined, or why they are none of an export."""

    lines: list[ExaminedRecord | ExaminedStretch | ExaminedCheckpoint | ExaminedCaller | ExaminedBlob | _Other] = []
    refusal: str = ""


_encoder = msgspec.msgpack.Encoder()
_verifiers_decoder = msgspec.msgpack.Decoder(list[Verifier])
_outcome_decoder = msgspec.msgpack.Decoder(_Outcome)


def encode_verifiers(verifiers: Sequence[Verifier]) -> bytes:
    """What stands beside a block: verifiers of logs to know from then on."""
    return _encoder.encode(verifiers)


def decode_outcome(content: bytes) -> list[Line | Examined]:
    """A worker's answer. Raises ConfigurationError when the block's lines are none of an export."""
    outcome = _outcome_decoder.decode(content)
    if outcome.refusal:
        raise ConfigurationError(outcome.refusal)
    return [decode_line(line.line) if isinstance(line, _Other) else line for line in outcome.lines]


def _answer(block: bytes, verifiers: Mapping[str, Verifier]) -> bytes:
    try:
        lines = examine_block(block, verifiers)
    except ConfigurationError as error:
        return _encoder.encode(_Outcome(refusal=str(error)))
    return _encoder.encode(
        _Outcome([line if isinstance(line, EXAMINED) else _Other(encode_line(line)) for line in lines])
    )


def _work(channel: Channel) -> None:
    channel.send(b"")
    verifiers: dict[str, Verifier] = {}
    while True:
        block, news = channel.receive()
        verifiers.update({verifier.name: verifier for verifier in _verifiers_decoder.decode(news)})
        channel.send(_answer(block, verifiers))


if __name__ == "__main__":
    with suppress(Gone):
        _work(Channel(Connection(int(sys.argv[1])), int(sys.argv[2]), side=1))
