"""What is sent to a witness: a checkpoint, and the proof that the log only grew (C2SP tlog-witness, add-checkpoint).

old SIZE                    the size of the log that the proof begins with
BASE64(HASH)                the proof, one hash a line, no more than 63
                            an empty line
the signed note of the checkpoint
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.audit.checkpoint import decode_hash, parse_size
from holdfast.audit.note import LARGEST_NOTE, BadNote, encode_base64

MOST_HASHES = 63
LARGEST_SUBMISSION = 4 * LARGEST_NOTE + 4096
"""In bytes: a character of the note takes up to four."""

SIZE_TYPE = "text/x.tlog.size"
"""The media type in which a witness answers how large a log it has cosigned."""

_OLD = "old "


@dataclass(frozen=True, slots=True)
class Submission:
    """A checkpoint's note, unread, and the proof from the tree of `old_size`."""

    old_size: int
    path: tuple[bytes, ...]
    note: str


def write_submission(submission: Submission) -> str:
    """Return a submission as text."""
    lines = (f"{encode_base64(node)}\n" for node in submission.path)
    return f"{_OLD}{submission.old_size}\n{''.join(lines)}\n{submission.note}"


def parse_submission(text: str) -> Submission:
    """Read a submission; the note in it stays unread. Raises BadNote."""
    head, mark, note = text.partition("\n\n")
    first, *lines = head.split("\n")
    if not mark or not first.startswith(_OLD):
        raise BadNote("this is no submission: expected `old SIZE`, lines of a proof, an empty line, a checkpoint")
    if len(lines) > MOST_HASHES:
        raise BadNote(f"a proof has more than {MOST_HASHES} lines")
    return Submission(parse_size(first.removeprefix(_OLD)), tuple(decode_hash(line) for line in lines), note)
