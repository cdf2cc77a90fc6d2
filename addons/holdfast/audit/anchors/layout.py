"""How what an anchor keeps is called, in a bucket and in the folder that an auditor is given.

    FOLDER/
      NAME.notes                                  checkpoints, one a line (see `file`)
      ORIGIN/SIZE-ROOT.checkpoint                 one checkpoint, the signed note as it is
      ORIGIN/SIZE-ROOT.tsr                        the time-stamping authority's reply over the note beside it, DER
      NAME.receipt                                the value of an Audit-Receipt header (see `holdfast.audit.receipt`)

ORIGIN is the log's name, its slashes making folders, what a path would read otherwise in percent-encoding. SIZE has
sixteen decimal digits, so that names sort as the log grew. ROOT is the first sixteen hex digits of the root hash:
two histories of one log never share a name, so the later does not take the place of the earlier. Where files stand
below FOLDER, and what they are called before the suffix, does not matter to who reads them.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from holdfast.audit.checkpoint import Checkpoint

NOTES = ".notes"
CHECKPOINT = ".checkpoint"
TIMESTAMP_REPLY = ".tsr"
RECEIPT = ".receipt"
ROOT_DIGITS = 16


def checkpoint_path(checkpoint: Checkpoint) -> PurePosixPath:
    """The relative path of a checkpoint, never out of the folder that it is put under."""
    folders = (_escape(part) for part in checkpoint.origin.split("/"))
    return PurePosixPath(*folders, f"{checkpoint.size:016d}-{checkpoint.root.hex()[:ROOT_DIGITS]}{CHECKPOINT}")


def _escape(part: str) -> str:
    escaped = quote(part, safe=":")
    return f"%2E{escaped[1:]}" if escaped.startswith(".") else escaped
