"""The simplest anchor: a file that only grows, best on another machine's disk.

One checkpoint a line: the text of the signed note as a JSON string. A writer puts the new line character before the
string, and appends both at once, so a line that a crash tore ends there: it is no whole JSON string, readers pass
over it, and the next checkpoint begins a line of its own. Several processes may append to one file.

The file is opened anew for every checkpoint, so it may be rotated, or its disk mounted elsewhere, at any time.
Nothing here keeps the file from being cut: where it stands must (`chattr +a`, a server that is only sent to).
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from holdfast.audit.note import LARGEST_NOTE
from holdfast.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_LINE = 6 * LARGEST_NOTE + 3
"""A character takes up to six bytes in a JSON string."""


class FileAnchor:
    """Appends checkpoints to a file. Blocking."""

    def __init__(self, file: Path) -> None:
        self.name = "file"
        self.interval_seconds = 0.0
        self.file = file

    def publish(self, note: str) -> None:
        """Return when the checkpoint is on the disk. Raises Unavailable."""
        append_note(self.file, note)


def append_note(file: Path, note: str) -> None:
    """Append one note and wait for the disk; the file is made where it is missing (0600). Raises Unavailable."""
    line = b"\n" + msgspec.json.encode(note)
    try:
        is_new = not file.exists()
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            written = os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            make_name_durable(file)
    except OSError as error:
        raise Unavailable(f"{file}: cannot be appended to: {error.strerror}") from error
    if written != len(line):
        raise Unavailable(f"{file}: cannot be appended to: its disk is full")


def read_notes(file: Path) -> Iterator[str]:
    """Yield the notes in a file, first to last, unverified; lines that are torn are passed over.

    Raises ConfigurationError when the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            for line in iter(partial(stream.readline, LARGEST_LINE), b""):
                try:
                    yield msgspec.json.decode(line, type=str)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}.") from error


def make_name_durable(file: Path) -> None:
    """Wait until the disk has the file's name in its folder. Raises OSError."""
    descriptor = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
