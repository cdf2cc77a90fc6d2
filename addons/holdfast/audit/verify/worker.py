"""A process that examines blocks of an export's lines for another one (see `workers`), and how the two talk.

`python -m` runs it, with the numbers of two open files: a connection, and a file in memory. Messages lie in that file,
and only their lengths go through the connection, so neither side ever waits for the other to read. A worker says that
it is up with an empty message, answers tasks in their order, and ends when the connection does.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

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
    examine_block,
)
from holdfast.errors import ConfigurationError

PLACES = 2
"""Messages under way in each direction: blocks that a worker has, one that it examines and one that waits for it."""

PLACE_BYTES = 1 << 30
"""More than any message has. What is not written takes no memory."""


class Gone(Exception):
    """The other side has ended, or what it says cannot be."""


class Channel:
    """Messages of any length between two processes, up to `PLACES` under way; `side` is 0 at one end, 1 at the other.

    Every method raises Gone.
    """

    def __init__(self, connection: Connection, file: int, side: int) -> None:
        self._connection = connection
        self._file = file
        self._side = side
        self._sent = self._received = 0

    def send(self, message: bytes) -> None:
        """Send the next message."""
        place = self._side * PLACES + self._sent % PLACES
        self._sent += 1
        if os.pwrite(self._file, message, place * PLACE_BYTES) != len(message):
            raise Gone
        try:
            self._connection.send_bytes(len(message).to_bytes(8))
        except OSError as error:
            raise Gone from error

    def receive(self) -> bytes:
        """Wait for the next message."""
        place = (1 - self._side) * PLACES + self._received % PLACES
        self._received += 1
        length = int.from_bytes(self._answer())
        message = os.pread(self._file, length, place * PLACE_BYTES)
        if len(message) != length:
            raise Gone
        return message

    def has_message(self) -> bool:
        """Whether `receive` has something to return or to raise."""
        return self._connection.poll()

    def _answer(self) -> bytes:
        try:
            return self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise Gone from error


class Task(msgspec.Struct, frozen=True, array_like=True):
    """A block to examine, and verifiers of logs to know besides those of earlier tasks."""

    block: bytes
    verifiers: list[Verifier]


class _Other(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="line"):
    """A line that `examine` hands on, as its JSON."""

    line: bytes


class _Outcome(msgspec.Struct, frozen=True, array_like=True):
    """A block's lines, examined, or why they are none of an export."""

    lines: list[ExaminedRecord | ExaminedCheckpoint | ExaminedCaller | ExaminedBlob | _Other] = []
    refusal: str = ""


_encoder = msgspec.msgpack.Encoder()
_task_decoder = msgspec.msgpack.Decoder(Task)
_outcome_decoder = msgspec.msgpack.Decoder(_Outcome)


def encode_task(task: Task) -> bytes:
    """What a worker is sent."""
    return _encoder.encode(task)


def decode_outcome(message: bytes) -> list[Line | Examined]:
    """A worker's answer. Raises ConfigurationError when the block's lines are none of an export."""
    outcome = _outcome_decoder.decode(message)
    if outcome.refusal:
        raise ConfigurationError(outcome.refusal)
    return [decode_line(line.line) if isinstance(line, _Other) else line for line in outcome.lines]


def answer(message: bytes, verifiers: dict[str, Verifier]) -> bytes:
    """Do a task; `verifiers` are those of earlier tasks, and this one's are added."""
    task = _task_decoder.decode(message)
    verifiers.update({verifier.name: verifier for verifier in task.verifiers})
    try:
        lines = examine_block(task.block, verifiers)
    except ConfigurationError as error:
        return _encoder.encode(_Outcome(refusal=str(error)))
    return _encoder.encode(
        _Outcome([line if isinstance(line, EXAMINED) else _Other(encode_line(line)) for line in lines])
    )


def _work(channel: Channel) -> None:
    channel.send(b"")
    verifiers: dict[str, Verifier] = {}
    while True:
        channel.send(answer(channel.receive(), verifiers))


if __name__ == "__main__":
    with suppress(Gone):
        _work(Channel(Connection(int(sys.argv[1])), int(sys.argv[2]), side=1))
