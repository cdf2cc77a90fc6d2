"""What a witness checks before it cosigns, and the order in which it makes that durable.

The latest checkpoint of the log is on the disk before the cosignature exists anywhere else, then the note is among
all that were cosigned, then the cosignature is answered. Whoever is killed in between has cosigned less than the
folder says, never more. One submission is decided at a time.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.audit.anchors.submission import Submission, parse_submission
from holdfast.audit.checkpoint import Checkpoint, Origin, cosign, parse_checkpoint
from holdfast.audit.note import (
    BadNote,
    Note,
    Signature,
    Signer,
    Verifier,
    find_signature,
    is_signed_by,
    write_note,
    write_signature,
)
from holdfast.audit.tree import EMPTY_ROOT, proves_consistency
from holdfast.errors import BadRequest, Conflict, Forbidden, Invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from holdfast.witness.state import WitnessFolder
    from holdfast.witness.trust import Trust

REPEAT_SECONDS = 10
"""A checkpoint that was cosigned so lately gets the same cosignature: what is sent again fills no disk."""

log = logging.getLogger(__name__)


class OldSizeDiffers(Conflict):
    """The proof does not begin where this witness is with the log."""

    def __init__(self, size: int) -> None:
        super().__init__(f"this witness has cosigned the log at size {size}")
        self.size = size


class Fork(Conflict):
    """The log has signed two roots for one size."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A cosignature that was answered."""

    checkpoint: Checkpoint
    unix_seconds: int
    line: str


class Witness:
    """Decides about submissions. Blocking; safe to use from several threads. `clock` tells the time."""

    def __init__(self, signer: Signer, trust: Trust, folder: WitnessFolder, clock: Callable[[], datetime]) -> None:
        self._signer = signer
        self._trust = trust
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._answered: dict[Origin, Answered] = {}

    def add_certificate(self, text: str) -> None:
        """Learn a certificate, and keep it. Raises BadRequest, Forbidden; Unavailable when it cannot be kept."""
        with self._lock:
            self._folder.keep_certificate(self._trust.learn(text, self._clock()))

    def add_checkpoint(self, text: str) -> str:
        """Return the signature line for a submission.

        Raises BadRequest, Forbidden, NotFound, OldSizeDiffers, Fork, Invalid; Unavailable when the folder cannot be
        written, Internal when it is damaged.
        """
        submission, checkpoint, note = _read(text)
        signed = keep_trusted(note, self._trust.find_verifiers(checkpoint.origin, self._clock()))
        with self._lock:
            try:
                check_growth(submission, checkpoint, self._folder.latest(checkpoint.origin, self._signer))
            except Fork:
                log.error("the log %s has signed two roots for size %d", checkpoint.origin, checkpoint.size)
                self._folder.keep_fork(checkpoint.origin, write_note(signed))
                raise
            return self._cosign(checkpoint, signed)

    def _cosign(self, checkpoint: Checkpoint, signed: Note) -> str:
        at = self._clock()
        now = int(at.timestamp())
        before = self._answered.get(checkpoint.origin)
        if before and before.checkpoint == checkpoint and 0 <= now - before.unix_seconds < REPEAT_SECONDS:
            return before.line
        cosignature = cosign(checkpoint, self._signer, now)
        self._folder.keep(checkpoint.origin, write_note(Note(signed.text, (*signed.signatures, cosignature))), at)
        answer = Answered(checkpoint, now, write_signature(cosignature))
        self._answered[checkpoint.origin] = answer
        return answer.line


def keep_trusted(note: Note, verifiers: Sequence[Verifier]) -> Note:
    """The note with nothing but the good signatures of these keys under it.

    Raises Forbidden when there is none, or when one of them is not good: such a note is malformed.
    """
    trusted: list[Signature] = []
    for verifier in verifiers:
        signature = find_signature(note, verifier)
        if signature is not None and not is_signed_by(note, verifier):
            raise Forbidden(f"the signature of {verifier.name} is not good")
        if signature is not None and signature not in trusted:
            trusted.append(signature)
    if not trusted:
        raise Forbidden("the checkpoint carries no signature of a key that this witness trusts for the log")
    return Note(note.text, tuple(trusted))


def check_growth(submission: Submission, checkpoint: Checkpoint, latest: Checkpoint | None) -> None:
    """See that the log only grew since `latest`. Raises BadRequest, OldSizeDiffers, Fork, Invalid."""
    old = latest or Checkpoint(checkpoint.origin, 0, EMPTY_ROOT)
    if submission.old_size > checkpoint.size:
        raise BadRequest("the old size is larger than the checkpoint's")
    if submission.old_size != old.size:
        raise OldSizeDiffers(old.size)
    if latest is not None and checkpoint.size == latest.size and checkpoint.root != latest.root:
        raise Fork("this witness has cosigned another root hash at this size")
    if not proves_consistency(old.size, old.root, checkpoint.size, checkpoint.root, submission.path):
        raise Invalid("proof", "does not show that the log only grew")


def _read(text: str) -> tuple[Submission, Checkpoint, Note]:
    try:
        submission = parse_submission(text)
        checkpoint, note = parse_checkpoint(submission.note)
    except BadNote as error:
        raise BadRequest(str(error)) from error
    return submission, checkpoint, note
