"""Reads what an auditor was given to hold a log against: a folder as `layout` describes it.

It parses and trusts nothing. Whether a checkpoint is signed by its log, a cosignature by a known witness, a token by
a known authority, and what follows from that, is for the caller to find out. A torn line at the end of a file of
notes is no fault (see `file`); anything else that cannot be read is, since nobody could say what it had to tell.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.audit.anchors.file import read_notes
from holdfast.audit.anchors.layout import CHECKPOINT, NOTES, RECEIPT, TIMESTAMP_REPLY
from holdfast.audit.anchors.timestamp import BadTimestamp, parse_reply
from holdfast.audit.checkpoint import Checkpoint, parse_checkpoint
from holdfast.audit.note import BadNote
from holdfast.audit.receipt import Receipt, parse_receipt
from holdfast.errors import ConfigurationError
from holdfast.settings.section import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator


class Kind(enum.StrEnum):
    """What a piece of evidence is, which says who has to be believed for it."""

    NOTE = "note"
    CHECKPOINT = "checkpoint"
    TIMESTAMP = "timestamp"
    RECEIPT = "receipt"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One signed note that was kept outside the database, as it was found.

    `checkpoint` is what the note says; `at` is the time in the token, of a TIMESTAMP. `reply` is the whole answer of
    the time-stamping authority, `receipt` the whole receipt. Nothing of it is verified.
    """

    kind: Kind
    note: str
    checkpoint: Checkpoint
    path: Path
    at: datetime | None = None
    reply: bytes = b""
    receipt: Receipt | None = None


def read_evidence(folder: Path) -> Iterator[Evidence]:
    """Yield all that a folder and the folders in it hold, by path. Raises ConfigurationError."""
    if folder.is_file():
        raise ConfigurationError(f"{folder}: is a file; give its folder.")
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: there is no such folder; expected what the anchors kept.")
    for path in sorted(folder.rglob("*")):
        read = _READERS.get(path.suffix)
        if read is None or not path.is_file():
            continue
        try:
            yield from read(path)
        except (BadNote, BadTimestamp) as error:
            raise ConfigurationError(f"{path}: {error}; fetch it again from where it was kept.") from error


def read_some_evidence(folder: Path) -> Iterator[Evidence]:
    """As `read_evidence`, of a folder that somebody named because there is some. Raises ConfigurationError."""
    is_empty = True
    for evidence in read_evidence(folder):
        is_empty = False
        yield evidence
    if is_empty:
        suffixes = ", ".join(f"*{suffix}" for suffix in _READERS)
        raise ConfigurationError(f"{folder}: no {suffixes} with a checkpoint in it; expected what the anchors kept.")


def _read_notes(path: Path) -> Iterator[Evidence]:
    for note in read_notes(path):
        yield Evidence(Kind.NOTE, note, parse_checkpoint(note)[0], path)


def _read_checkpoint(path: Path) -> Iterator[Evidence]:
    note = _read_text(path)
    yield Evidence(Kind.CHECKPOINT, note, parse_checkpoint(note)[0], path)


def _read_timestamp(path: Path) -> Iterator[Evidence]:
    reply = read_file(path)
    _, at = parse_reply(reply)
    note = _read_text(path.with_suffix(CHECKPOINT))
    yield Evidence(Kind.TIMESTAMP, note, parse_checkpoint(note)[0], path, at, reply)


def _read_receipt(path: Path) -> Iterator[Evidence]:
    receipt = parse_receipt(_read_text(path))
    yield Evidence(Kind.RECEIPT, receipt.note, parse_checkpoint(receipt.note)[0], path, receipt=receipt)


def _read_text(path: Path) -> str:
    try:
        return read_file(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadNote("is not UTF-8 text") from error


_READERS = {
    NOTES: _read_notes,
    CHECKPOINT: _read_checkpoint,
    TIMESTAMP_REPLY: _read_timestamp,
    RECEIPT: _read_receipt,
}
