"""What a witness checks before it cosigns, and the order in which it makes that durable.

The latest checkpoint of the log is on the disk before the cosignature exists anywhere else, then the note is among
all that were cosigned, then the cosignature is answered. Whoever is killed in between has cosigned less than the
folder says, never more. One submission is decided at a time.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date
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
from holdfast.errors import BadRequest, Conflict, Forbidden, HoldfastError, Invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from holdfast.witness.state import WitnessFolder
    from holdfast.witness.trust import Trust

REPEAT_SECONDS = 10
"""A checkpoint that was cosigned so lately gets the same cosignature: what is sent again fills no disk."""

NEW_LOGS_A_DAY = 1000
LARGEST_SIZE = (1 << 53) - 1
"""No log gets so long; beyond it, JSON numbers are not exact (RFC 8259, section 6)."""

log = logging.getLogger(__name__)


class OldSizeDiffers(Conflict):
    """The proof does not begin where this witness is with the log."""

    def __init__(self, size: int) -> None:
        super().__init__(f"this witness has cosigned the log at size {size}")
        self.size = size


class Fork(Conflict):
    """The log has signed two roots for one size."""


class TooManyLogs(HoldfastError):
    """A key begins log after log: each takes room in the folder for good."""

    code = 429
    reason = "TooManyRequests"


class NewLogs:
    """Counts the logs that each key begins in a day (UTC), as long as the process runs; `most` is how many it may."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._day = date.min
        self._begun: Counter[bytes] = Counter()

    def require_room(self, keys: Sequence[bytes], at: datetime) -> None:
        """See that each of these keys may begin one more. Raises TooManyLogs."""
        day = at.astimezone(UTC).date()
        if day != self._day:
            self._day = day
            self._begun.clear()
        if any(self._begun[key] >= self._most for key in keys):
            raise TooManyLogs(
                f"this witness has cosigned {self._most} new logs of one key today and takes no more before tomorrow "
                "(UTC); the logs that it knows go on"
            )

    def count(self, keys: Sequence[bytes]) -> None:
        """Each of these keys has begun a log."""
        self._begun.update(keys)


@dataclass(frozen=True, slots=True)
class Answered:
    """A cosignature that was answered."""

    checkpoint: Checkpoint
    unix_seconds: int
    line: str

    def is_fresh(self, now: int) -> bool:
        """Whether the same cosignature is still answered."""
        return 0 <= now - self.unix_seconds < REPEAT_SECONDS


class Witness:
    """Decides about submissions. Blocking; safe to use from several threads. `clock` tells the time."""

    def __init__(
        self,
        signer: Signer,
        trust: Trust,
        folder: WitnessFolder,
        clock: Callable[[], datetime],
        new_logs_a_day: int = NEW_LOGS_A_DAY,
    ) -> None:
        self._signer = signer
        self._trust = trust
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._new_logs = NewLogs(new_logs_a_day)
        self._answered: dict[Origin, Answered] = {}

    def add_certificate(self, text: str) -> None:
        """Learn a certificate, and keep it. Raises BadRequest, Forbidden; Unavailable when it cannot be kept."""
        with self._lock:
            self._folder.keep_certificate(self._trust.learn(text, self._clock()))

    def add_checkpoint(self, text: str) -> str:
        """Return the signature line for a submission.

        Raises BadRequest, Forbidden, NotFound, OldSizeDiffers, Fork, Invalid, TooManyLogs; Unavailable when the folder
        cannot be written, Internal when it is damaged.
        """
        submission, checkpoint, note = _read(text)
        verifiers = self._trust.find_verifiers(checkpoint.origin, self._clock())
        signed = keep_trusted(note, verifiers)
        with self._lock:
            latest = self._folder.latest(checkpoint.origin, self._signer)
            try:
                check_growth(submission, checkpoint, latest)
            except Fork:
                log.error("the log %s has signed two roots for size %d", checkpoint.origin, checkpoint.size)
                self._folder.keep_fork(checkpoint.origin, write_note(signed))
                raise
            if latest is not None:
                return self._cosign(checkpoint, signed)
            keys = [verifier.public_key for verifier in verifiers if find_signature(signed, verifier) is not None]
            return self._cosign_first(checkpoint, signed, keys)

    def _cosign_first(self, checkpoint: Checkpoint, signed: Note, keys: Sequence[bytes]) -> str:
        """Cosign a log that is new here; it counts for the keys that signed it once it is kept."""
        self._new_logs.require_room(keys, self._clock())
        line = self._cosign(checkpoint, signed)
        self._new_logs.count(keys)
        return line

    def _cosign(self, checkpoint: Checkpoint, signed: Note) -> str:
        at = self._clock()
        now = int(at.timestamp())
        before = self._answered.get(checkpoint.origin)
        if before and before.checkpoint == checkpoint and before.is_fresh(now):
            return before.line
        cosignature = cosign(checkpoint, self._signer, now)
        self._folder.keep(checkpoint.origin, write_note(Note(signed.text, (*signed.signatures, cosignature))), at)
        answer = Answered(checkpoint, now, write_signature(cosignature))
        self._remember(answer)
        return answer.line

    def _remember(self, answer: Answered) -> None:
        """Keep an answer behind the earlier ones, and no longer those that are not answered again."""
        self._answered.pop(answer.checkpoint.origin, None)
        self._answered[answer.checkpoint.origin] = answer
        while not (first := next(iter(self._answered.values()))).is_fresh(answer.unix_seconds):
            del self._answered[first.checkpoint.origin]


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
    if checkpoint.size > LARGEST_SIZE:
        raise BadRequest(f"the checkpoint's size is {checkpoint.size}; a log has at most {LARGEST_SIZE} entries")
    return submission, checkpoint, note
