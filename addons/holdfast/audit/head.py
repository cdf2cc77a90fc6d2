"""What a gateway remembers of its log outside the database: how far it got.

One small file, written after every commit, without waiting for the disk: it may lag behind the database, never
lead it. A database that is behind it, or that differs from it, was put back or edited, and the gateway does not go
on with it. Its text is that of an unsigned checkpoint (see `checkpoint`), in ASCII, filled up with spaces.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from holdfast.audit.checkpoint import Checkpoint, parse_checkpoint_text
from holdfast.audit.keys import CONSOLE
from holdfast.audit.note import BadNote
from holdfast.audit.tree import Frontier, hash_leaf
from holdfast.certificates import write_private
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.audit.store.ledger import LedgerStore

FILE_BYTES = 512
"""One sector: written in one piece."""

ONE_AT_A_TIME = "is the gateway running already? Stop it, or give this one a stateDir of its own"
STOP_FIRST = "stop the gateway (`holdfast serve`) and its approvals API first"
"""What a command is told that needs the log at rest."""


class HeadFile:
    """The file. `gap_file`, where it exists, holds the reason why the next log need not go on from the head."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.gap_file = file.with_name(f"{file.name}.gap")
        self._descriptor: int | None = None

    def load(self) -> Checkpoint | None:
        """Return what was remembered, or None when there is nothing, and keep every other process out from now on.

        Raises ConfigurationError.
        """
        self.lock()
        return self.read()

    def read(self) -> Checkpoint | None:
        """Return what was remembered, or None when there is nothing; a process that writes may get ahead of it.

        Raises ConfigurationError.
        """
        try:
            text = self.file.read_text("ascii").rstrip(" ")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{self.file}: cannot be read: {error}.") from error
        if not text:
            return None
        try:
            return parse_checkpoint_text(text)
        except BadNote as error:
            raise ConfigurationError(
                f"{self.file}: is damaged, so nobody can say whether the audit database is whole; see `holdfast audit "
                "accept --help`."
            ) from error

    def save(self, checkpoint: Checkpoint) -> None:
        """Remember a checkpoint that is durable in the database."""
        os.pwrite(self.lock(), checkpoint.text().encode("ascii").ljust(FILE_BYTES), 0)

    def close(self) -> None:
        """Let go of the file, its content on the disk."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def lock(self, advice: str = ONE_AT_A_TIME) -> int:
        """Keep every other process out until `close`; the file is made where it is missing.

        Raises ConfigurationError when another process has it, with `advice` on how to go on.
        """
        if self._descriptor is None:
            descriptor = os.open(self.file, os.O_CREAT | os.O_WRONLY, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(descriptor)
                raise ConfigurationError(
                    f"{self.file}: another Holdfast process writes the log that this file belongs to; {advice}."
                ) from error
            self._descriptor = descriptor
        return self._descriptor

    def read_gap(self) -> str:
        """Why the next log need not go on from the head; empty when it must. Raises ConfigurationError."""
        try:
            return self.gap_file.read_text("utf-8").strip()
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                f"{self.gap_file}: is not UTF-8 text (byte {error.start}); remove it, or see `holdfast audit accept "
                "--help`."
            ) from error

    def write_gap(self, reason: str) -> None:
        """Let the next log begin anew, for this reason."""
        write_private(self.gap_file, f"{reason.strip()}\n".encode())

    def forget_gap(self) -> None:
        """The gap is in the record now."""
        with suppress(FileNotFoundError):
            self.gap_file.unlink()


def find_heads(state_dir: Path) -> list[HeadFile]:
    """What the gateway of this `stateDir` and its approvals API remember, as far as they were ever started."""
    files = (state_dir / f"audit{role}.head" for role in ("", CONSOLE))
    return [HeadFile(file) for file in files if file.exists()]


def find_lack(store: LedgerStore, remembered: Checkpoint) -> str:
    """Say what a database lacks of what is remembered of a log; empty when it has all. What was added since is no lack.

    Raises Unavailable.
    """
    row = store.find_log(remembered.origin)
    written = f"the gateway wrote {remembered.size} records of {remembered.origin}"
    if row is None:
        return f"{written}, the database lacks that log"
    if row.dropped_at is not None:
        return ""
    tree = Frontier()
    for leaf in islice(store.leaves(row), remembered.size):
        tree.add(hash_leaf(leaf))
    if Checkpoint(row.origin, tree.size, tree.root()) == remembered:
        return ""
    now = f"{tree.size}" if tree.size < remembered.size else f"{tree.size}, other ones"
    return f"{written}, the database has {now}"
