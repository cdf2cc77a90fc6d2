"""An export examined with all of the machine's cores.

Lines are verified in their order, in one process, but most of the work is to examine each of them (see `examine`),
and that can be done anywhere. So blocks of lines are handed out to workers, outcomes are taken back in the order of
the blocks, and this process examines blocks itself while all workers have enough to do.

A worker that ends before its work, for whatever reason, is an error. None is left behind: a worker ends when this
process does, be it killed. Workers have a process group of their own, so that Ctrl-C reaches this process alone, and
import nothing of the program that this is, nor anything from the current directory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import IO, TYPE_CHECKING

from holdfast.audit.checkpoint import Origin
from holdfast.audit.export import BLOCK, LogLine, read_blocks
from holdfast.audit.keys import parse_certificate
from holdfast.audit.note import BadNote, KeyName
from holdfast.audit.verify.examine import examine_block
from holdfast.audit.verify.worker import PLACES, Channel, Gone, decode_outcome, encode_verifiers
from holdfast.errors import ConfigurationError, HoldfastError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from holdfast.audit.export import Line
    from holdfast.audit.note import Verifier
    from holdfast.audit.verify.examine import Examined

MOST_WORKERS = 4
"""What has to be done in order keeps no more of them busy."""

LARGEST_SENT = 8 << 20
"""Longer blocks, with bodies from before bodies were cut, are examined here, one at a time."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """How the work is shared: among how many workers, in blocks of how many bytes, and after how many lines.

    This process examines blocks of `own_bytes` in all ahead of what it waits for: there are blocks that take a
    worker a hundred times longer than others, since they are full of signatures.
    """

    workers: int
    block_bytes: int = BLOCK
    alone_lines: int = 500
    own_bytes: int = 32 << 20


def default_sharing() -> Sharing:
    """A process for each core that this one may use."""
    return Sharing(min(_cores() - 1, MOST_WORKERS))


def examined_lines(stream: IO[bytes], root: Verifier, sharing: Sharing | None = None) -> Generator[Line | Examined]:
    """Yield the lines of an export, examined; to close the iterator ends the workers.

    Raises ConfigurationError as `read_export` does, and HoldfastError when a worker ends before its work.
    """
    sharing = sharing or default_sharing()
    crew = _Crew(root, sharing)
    try:
        yield from crew.examine(read_blocks(stream, sharing.block_bytes))
    finally:
        crew.close()


class _Crew:
    """Those who examine an export. What they have begun and not finished is in the order of the blocks."""

    def __init__(self, root: Verifier, sharing: Sharing) -> None:
        self._root = root
        self._sharing = sharing
        self._workers: list[_Worker] = []
        self._begun: deque[_Worker | _Own] = deque()
        self._alone_lines = self._own_bytes = 0
        self._verifiers: dict[str, Verifier] = {}
        self._seen: list[Verifier] = []

    def examine(self, blocks: Iterator[bytes]) -> Iterator[Line | Examined]:
        """Yield the lines of the blocks."""
        failure: ConfigurationError | None = None
        while True:
            try:
                block = next(blocks, None)
            except ConfigurationError as error:
                failure = error  # it is told after all that comes before it
                break
            if block is None:
                break
            while not self._begin(block):
                yield from self._finish()
        while self._begun:
            yield from self._finish()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()

    def _begin(self, block: bytes) -> bool:
        """Have a block examined; false when something that was begun before has to be finished first."""
        if not self._sharing.workers or self._alone_lines < self._sharing.alone_lines:
            return not self._begun and self._begin_here(block)
        while len(self._workers) < self._sharing.workers:
            self._workers.append(_Worker())
        if len(block) > LARGEST_SENT:
            return not self._begun and self._begin_here(block)
        free = [worker for worker in self._workers if worker.is_free()]
        if free:
            least_busy = min(free, key=lambda worker: worker.tasks)
            least_busy.begin(block, self._seen)
            self._begun.append(least_busy)
            return True
        if self._begun and self._begun[0].is_done():
            return False
        return self._own_bytes + len(block) <= self._sharing.own_bytes and self._begin_here(block)

    def _begin_here(self, block: bytes) -> bool:
        if not self._workers:
            self._alone_lines += block.count(b"\n")
        own = _Own(block, self._verifiers)
        self._begun.append(own)
        self._own_bytes += own.size
        return True

    def _finish(self) -> list[Line | Examined]:
        """The lines of the first block that was begun."""
        if not self._begun:
            self._workers[0].wait()
            return []
        first = self._begun.popleft()
        if isinstance(first, _Own):
            self._own_bytes -= first.size
        lines = first.finish()
        for line in lines:
            if type(line) is LogLine:
                self._learn(line)
        return lines

    def _learn(self, line: LogLine) -> None:
        """Take in what verifies a log, for the blocks to come; what is wrong with it is told by `leaves`."""
        try:
            verifier = parse_certificate(line.certificate, self._root).verifier_for(Origin(KeyName(line.origin)))
        except BadNote:
            return
        self._verifiers[verifier.name] = verifier
        self._seen.append(verifier)


class _Own:
    """A block that is examined here; `size` is that of the block, in bytes."""

    def __init__(self, block: bytes, verifiers: Mapping[str, Verifier]) -> None:
        self.size = len(block)
        self._lines: list[Line | Examined] = []
        self._failure: ConfigurationError | None = None
        try:
            self._lines = examine_block(block, verifiers)
        except ConfigurationError as error:
            self._failure = error

    def is_done(self) -> bool:
        """It is, as soon as it is begun."""
        return True

    def finish(self) -> list[Line | Examined]:
        """The block's lines. Raises ConfigurationError."""
        if self._failure is not None:
            raise self._failure
        return self._lines


class _Worker:
    """A process that examines blocks; `tasks` is how many it has. Raises HoldfastError once it has ended."""

    def __init__(self) -> None:
        self.tasks = 0
        self._is_up = False
        self._known = 0
        self._file = _memory_file()
        self._connection, there = Pipe()
        descriptors = (there.fileno(), self._file)
        self._process = subprocess.Popen(  # noqa: S603  this very program
            [sys.executable, "-P", "-m", Channel.__module__, *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,
        )
        there.close()
        self._channel = Channel(self._connection, self._file, side=0)

    def is_free(self) -> bool:
        """Whether it can take a block."""
        if not self._is_up and self._channel.has_message():
            self.wait()
        return self._is_up and self.tasks < PLACES

    def wait(self) -> None:
        """Wait until it is up."""
        if not self._is_up:
            self._receive()
            self._is_up = True

    def begin(self, block: bytes, verifiers: Sequence[Verifier]) -> None:
        """Hand out a block, with those of these verifiers that it does not know yet."""
        news = verifiers[self._known :]
        self._known = len(verifiers)
        self.tasks += 1
        try:
            self._channel.send(block, encode_verifiers(news))
        except Gone as error:
            raise self._ended() from error

    def is_done(self) -> bool:
        """Whether its first block is examined, or never will be."""
        return self._channel.has_message()

    def finish(self) -> list[Line | Examined]:
        """The lines of its first block. Raises ConfigurationError."""
        self.tasks -= 1
        return decode_outcome(self._receive())

    def close(self) -> None:
        """End it."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        os.close(self._file)

    def _receive(self) -> bytes:
        try:
            return self._channel.receive()[0]
        except Gone as error:
            raise self._ended() from error

    def _ended(self) -> HoldfastError:
        return HoldfastError(
            "a process that examined a part of the export has ended before its work, so nothing is verified; was it "
            "killed, or is memory short? Run the command again"
        )


def _memory_file() -> int:
    """A file without a name, open: in memory, where the system has such."""
    if sys.platform == "linux":
        return os.memfd_create("holdfast-verify")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _cores() -> int:
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # macOS has none
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
