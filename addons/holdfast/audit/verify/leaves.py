"""One log's lines: its leaves one after another, their places and clocks, its checkpoints, and what it says of others.

What a line tells by itself was examined before (see `examine`). What its records and checkpoints claim of any log at
some size is only remembered here; `roots` holds it against the trees, when all of them are known. Only logs whose key
the root has certified are believed in what they claim.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.audit.checkpoint import Origin, open_checkpoint
from holdfast.audit.keys import MAINTENANCE, ROLES, foreign_signer, parse_certificate
from holdfast.audit.note import BadNote, KeyName, Verifier
from holdfast.audit.record import Kind, Seen, decode, timestamp
from holdfast.audit.sequence import NO_HASH
from holdfast.audit.tree import HASH_BYTES, parse_hash
from holdfast.audit.verify import findings as found
from holdfast.audit.verify.dropped import Drop
from holdfast.audit.verify.examine import (
    KNOWN_CALLERS,
    SPEAKING,
    VERSION,
    ExaminedCheckpoint,
    ExaminedRecord,
    ExaminedStretch,
)
from holdfast.audit.verify.findings import Report
from holdfast.audit.verify.scratch import Scratch
from holdfast.audit.verify.times import TOLERATED_STEP_SECONDS, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.audit.checkpoint import Checkpoint
    from holdfast.audit.export import CheckpointLine, LeafHashesLine, LogLine
    from holdfast.audit.keys import Certificate
    from holdfast.audit.record import Leaf, Redaction
    from holdfast.audit.verify.findings import Code

LEGACY = "legacy/"
"""Logs from before logs were signed are called so, and only those hold leaves of version 1."""

HASHES_A_WRITE = 1000
WHY_CHARACTERS = 1000
"""No more is told of why something was erased; the record of that says all of it."""


@dataclass(slots=True)
class Shared:
    """What the logs of one export have in common."""

    report: Report
    scratch: Scratch
    root: Verifier
    logs: dict[int, LogCheck] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    drops: dict[str, list[Drop]] = field(default_factory=dict)
    """What records say of logs that were dropped, by the names of these."""

    callers: set[str] = field(default_factory=set)
    """IDs of callers that were remembered lately."""

    origins: set[str] = field(default_factory=set)
    redactions: int = 0
    with_payloads: bool = True


@dataclass(slots=True)
class Reach:
    """Up to which size, and up to which time of its records, a log is known outside the database."""

    size: int = 0
    time: str = ""


class LogCheck:
    """One log while its lines go by."""

    def __init__(self, line: LogLine, shared: Shared) -> None:
        self.line = line
        self.origin = line.origin
        self.size = 0
        self.is_legacy = line.origin.startswith(LEGACY)
        self.is_dropped = bool(line.dropped_at)
        self.dropped_day = self.dropped_until = ""
        self.first_time = ""
        self._begun_at = ""
        self.last_time = ""
        self.closed_at = ""
        self.goes_on_from: Seen | None = None
        self.gap = ""
        self.anchored = Reach()
        self.witnessed = Reach()
        self.last_seen = 0.0
        self._shared = shared
        self._records = self._bodies = self._calls = 0
        self._previous: bytes = NO_HASH
        self._hashes: list[bytes] = []
        self._signed_size = 0
        self._clock = ("", 0)
        self._wall = 0.0
        self.foreign_root = ""
        self.certificate = None if self.is_legacy else self._open_certificate()
        self._validity = _validity(self.certificate) if self.certificate else None

    @property
    def anchored_size(self) -> int:
        """How many records are anchored."""
        return self.anchored.size

    @property
    def cluster(self) -> str:
        """What the names of all logs of its cluster begin with."""
        return "/".join(self.origin.split("/")[:2]) + "/"

    @property
    def role(self) -> str:
        """What the name of its replica ends with: one of `keys.ROLES`."""
        replica = self.origin.rpartition("/")[0]
        return next((role for role in ROLES if role and replica.endswith(role)), "")

    def tell(self, code: Code, what: str, seq: int | None = None) -> None:
        """Report a finding about this log."""
        self._shared.report.add(code, what, self.origin, seq)

    def verifier(self) -> Verifier | None:
        """What verifies the log's checkpoints; None when its certificate is no good."""
        return self.certificate.verifier_for(Origin(KeyName(self.origin))) if self.certificate else None

    def check_checkpoint(self, told: CheckpointLine | ExaminedCheckpoint) -> None:
        """Take in a signed note of this log."""
        self._shared.rows["checkpoints"] += 1
        self._shared.report.checkpoints += 1
        verifier = self.verifier()
        if verifier is None:
            return
        line = told.line if isinstance(told, ExaminedCheckpoint) else told
        try:
            checkpoint = _open(told, verifier)
        except BadNote as error:
            self.tell(found.CHECKPOINT_BAD, f"the checkpoint kept for size {line.size}: {error}")
            return
        if checkpoint.size != line.size:
            self.tell(found.CHECKPOINT_BAD, f"the checkpoint kept for size {line.size} is of size {checkpoint.size}")
        self._signed_size = max(self._signed_size, checkpoint.size)
        self._claim(self.origin, checkpoint.size, checkpoint.root, "checkpoint", self.size)

    def check_leaf_hashes(self, line: LeafHashesLine) -> None:
        """Take in what is kept of a log that was dropped."""
        self._shared.rows["leaf_hashes"] += 1
        if line.first != self.size or len(line.hashes) % HASH_BYTES or not self.is_dropped:
            self.tell(found.LEAF_MISSING, f"leaf hashes are kept from {line.first} on, expected {self.size}")
        for start in range(0, len(line.hashes) - HASH_BYTES + 1, HASH_BYTES):
            self._append([line.hashes[start : start + HASH_BYTES]])

    def check_record(self, told: ExaminedRecord) -> None:
        """Take in a leaf and what hangs on it."""
        self._records += 1
        if told.seq != self.size:
            self.tell(found.LEAF_MISSING, f"after record {self.size - 1} comes {told.seq}", told.seq)
        for code, what in told.findings:
            self.tell(found.CODES[code], what, told.seq)
        if told.version:
            self._check_leaf(told)
        self._append([told.leaf_hash])

    def check_stretch(self, told: ExaminedStretch) -> None:
        """Take in leaves that follow one another; all at once, where the first of them has its right place."""
        first = told.first
        is_in_place = (first.seq, first.log, first.day) == (self.size, self.origin, self.line.day)
        self.check_record(first)
        if not is_in_place or self.is_legacy or self.closed_at:
            for record in told.others():
                self.check_record(record)
            return
        for index, time, mono in told.clocks:
            self._check_time(time, mono, self.size + index, starts=False)
        for caller in told.callers:
            self._remember_caller(caller)
        self._records += len(told.hashes)
        self._calls += told.listed
        self._bodies += told.bodies
        self._need(told.pieces)
        self._append(told.hashes)

    def finish(self) -> None:
        """The log's lines are over."""
        self._shared.scratch.write_hashes(self.line.id, self._hashes)
        self._hashes.clear()
        self._shared.rows.update(records=self._records, bodies=self._bodies, calls=self._calls)
        self._shared.report.leaves += self._records
        if not self.is_legacy and self._signed_size < self.size:
            self.tell(
                found.UNSIGNED_TAIL, f"its last checkpoint is of size {self._signed_size}, it has {self.size} records"
            )
        self._check_description()

    def _open_certificate(self) -> Certificate | None:
        try:
            certificate = parse_certificate(self.line.certificate, self._shared.root)
            certificate.verifier_for(Origin(KeyName(self.origin)))
        except BadNote as error:
            self.foreign_root = foreign_signer(self.line.certificate, self._shared.root)
            self.tell(found.CERTIFICATE_BAD, str(error))
            return None
        return certificate

    def _check_description(self) -> None:
        """The log's row, against the log. Its root is claimed, as others claim one."""
        line = self.line
        if line.size != self.size:
            self.tell(found.LOG_ALTERED, f"it is said to have {line.size} records, and has {self.size}")
        else:
            self._claim(self.origin, line.size, parse_hash(line.root), "row", self.size)
        if self.is_legacy:
            self._check_legacy_description()
        elif self.certificate is not None:
            self._check_signed_description()

    def _check_legacy_description(self) -> None:
        day = self.origin.removeprefix(LEGACY)
        expected = ("legacy", "", day, f"{day}T00:00:00.000000Z", f"{day}T23:59:59.999999Z")
        line = self.line
        if (line.replica, line.certificate, line.day, line.opened_at, line.closed_at) != expected:
            self.tell(found.LOG_ALTERED, f"it is said to be of {line.day}, and not as such a log is described")

    def _check_signed_description(self) -> None:
        line = self.line
        _, _, replica, epoch = self.origin.split("/")
        if (line.replica, str(line.epoch)) != (replica, epoch):
            self.tell(found.LOG_ALTERED, f"it is said to be epoch {line.epoch} of {line.replica}")
        if not self.size and not self.is_dropped and (line.closed_at or not _is_opened(line.day, line.opened_at)):
            self.tell(found.LOG_ALTERED, f"it is empty, said to be of {line.day} and opened at {line.opened_at}")
        if self.is_dropped or not self.first_time:
            return
        if line.closed_at != self.closed_at:
            self.tell(found.LOG_ALTERED, f"it is said to be closed at {line.closed_at!r}, found {self.closed_at!r}")
        if self._begun_at and not _begins(line.day, line.opened_at, self._begun_at):
            self.tell(
                found.LOG_ALTERED,
                f"it is said to be of {line.day}, opened at {line.opened_at}; it says itself that this was at "
                f"{self._begun_at}",
            )

    def _append(self, leaf_hashes: Sequence[bytes]) -> None:
        self.size += len(leaf_hashes)
        self._previous = leaf_hashes[-1]
        self._hashes += leaf_hashes
        if len(self._hashes) >= HASHES_A_WRITE:
            self._shared.scratch.write_hashes(self.line.id, self._hashes)
            self._hashes.clear()

    def _claim(self, log: str, size: int, root: bytes, kind: str, seq: int) -> None:
        self._shared.scratch.add("claim", (log, size, root, kind, self.origin, seq, self.last_time, None))

    def _check_leaf(self, told: ExaminedRecord) -> None:
        if (told.version == VERSION) == self.is_legacy:
            self.tell(found.LEAF_PLACE, f"a record of version {told.version} is not of this log", told.seq)
        elif self.is_legacy and told.kind in SPEAKING:
            self.tell(found.LEAF_PLACE, f"a {told.kind} record is not of this log", told.seq)
        elif not self.is_legacy:
            self._check_place(told)
            self._check_time(told.time, told.mono, told.place, starts=told.starts)
        if told.day != self.line.day:
            self.tell(found.COLUMN_ALTERED, f"found day {told.day!r}, expected {self.line.day!r}", told.seq)
        self._check_call(told)
        self._remember_bodies(told)
        if self.closed_at:
            self.tell(found.CHAIN_BROKEN, "it goes on after it was closed", told.seq)
        if told.kind in SPEAKING and self.certificate is not None:
            self._check_own(decode(told.leaf))

    def _check_place(self, told: ExaminedRecord) -> None:
        if told.log != self.origin or told.place != told.seq:
            self.tell(found.LEAF_PLACE, f"the leaf is record {told.place} of {told.log}", told.seq)
        if not self.size:
            self._check_beginning(told)
        elif told.previous != self._previous.hex():
            self.tell(found.LEAF_PLACE, "the leaf names another one before it", told.seq)

    def _check_beginning(self, told: ExaminedRecord) -> None:
        """The first leaf names the root of the log before it, which its `start` part describes."""
        self.first_time = told.time
        if not told.starts:
            self.tell(found.CHAIN_BROKEN, "its first record does not say what it goes on from", told.place)
            return
        record = decode(told.leaf).record
        self._begun_at = record.at
        if record.start is not None and record.start.previous_log:
            self.goes_on_from = Seen(log=record.start.previous_log, size=record.start.previous_size, root=told.previous)
        elif told.previous != NO_HASH.hex():
            self.tell(found.CHAIN_BROKEN, "it goes on from a log that it does not name", told.place)

    def _check_time(self, time: str, mono: int, place: int, *, starts: bool) -> None:
        if (time, mono) == self._clock:
            return
        wall = seconds(time)
        if wall is None:
            self.tell(found.LEAF_SPELLING, f"{time!r} is no time", place)
            return
        earlier, self._clock = self._clock, (time, mono)
        self.last_time = time
        if place < self.anchored.size:
            self.anchored.time = time
        if self._validity is not None and not self._validity[0] <= time <= self._validity[1]:
            self.tell(found.CERTIFICATE_EXPIRED, f"the record is of {time}", place)
        before, self._wall = self._wall, wall
        if before:
            ticked = None if starts else (mono - earlier[1]) / 1_000_000
            self._check_step(place, wall - before, ticked)

    def _check_step(self, place: int, passed: float, ticked: float | None) -> None:
        """The wall clock may not go back, nor, within one run, say that another time passed than the other clock."""
        if passed < -TOLERATED_STEP_SECONDS:
            self.tell(found.CLOCK_BACK, f"the record is {-passed:.1f} s older than the one before", place)
        elif ticked is not None and abs(passed - ticked) > TOLERATED_STEP_SECONDS:
            self.tell(found.CLOCK_STEPPED, f"{ticked:.1f} s passed, the clock says {passed:.1f} s", place)

    def _check_call(self, told: ExaminedRecord) -> None:
        """What of a call depends on other records, and its caller, whom the database must hold."""
        if told.caller:
            self._remember_caller(told.caller)
        self._calls += told.is_listed
        if told.elsewhere is not None:
            call, log, seq = told.elsewhere
            if not self._is_after(log, seq, told.seq):
                self.tell(found.CALL_ALTERED, f"call {call} is listed as it was at record {seq}", told.seq)
        elif told.unlisted is not None:
            call, day = told.unlisted
            self._shared.scratch.add("unlisted", (day, call, self.origin, told.seq))

    def _remember_caller(self, caller: str) -> None:
        if caller not in self._shared.callers:
            if len(self._shared.callers) > KNOWN_CALLERS:
                self._shared.callers.clear()
            self._shared.callers.add(caller)
            self._shared.scratch.add("caller", (caller,))

    def _is_after(self, log: int, seq: int, than: int) -> bool:
        """Whether that record came after record `than` of this log, in the same replica."""
        if log == self.line.id:
            return seq > than
        other = self._shared.logs.get(log)
        return other is not None and other.line.replica == self.line.replica and other.line.epoch > self.line.epoch

    def _remember_bodies(self, told: ExaminedRecord) -> None:
        self._bodies += told.bodies
        for slot in told.gone:
            self._shared.scratch.add("gone", (self.origin, f"{told.seq}/{slot}"))
        self._need([(told.seq, digest) for digest in told.pieces])

    def _need(self, pieces: Iterable[tuple[int, str]]) -> None:
        """These must be among the payloads, if there are any."""
        if self._shared.with_payloads:
            for seq, digest in pieces:
                self._shared.scratch.add("needed", (self.line.day, digest, self.origin, seq))

    def _check_own(self, leaf: Leaf) -> None:
        """What a record says of this log and of others."""
        record = leaf.record
        if record.kind is Kind.CLOSE:
            self.closed_at = leaf.time
        if not leaf.seq and self.goes_on_from is not None:
            self._claim_seen(self.goes_on_from, "start", leaf.seq)
        for peer in record.peers:
            self._claim_seen(peer, "peer", leaf.seq)
        if record.start is not None and record.start.gap:
            self.gap, before = record.start.gap, self.goes_on_from
            onward = f"; it goes on from the first {before.size} records of {before.log}" if before is not None else ""
            self.tell(found.GAP, f"{self.gap}{onward}", leaf.seq)
        if record.redact is not None:
            self._check_redaction(record.redact, leaf)

    def _check_redaction(self, told: Redaction, leaf: Leaf) -> None:
        """Only commands that erase record it, in logs of their own, and of the logs of their own cluster."""
        erased = told.log
        if self.role != MAINTENANCE or not erased.log.startswith((LEGACY, self.cluster)):
            self.tell(found.LEAF_PLACE, f"a record of the erasure of {erased.log} is not of this log", leaf.seq)
            return
        self._claim_seen(erased, "redact" if told.payloads else "drop", leaf.seq)
        why = _describe_why(told, leaf.record.at)
        if told.payloads:
            self._remember_erased(told, why)
        else:
            drop = Drop(erased.size, told.day, told.until, leaf.time, self.origin, leaf.seq, why)
            self._shared.drops.setdefault(erased.log, []).append(drop)

    def _remember_erased(self, told: Redaction, why: str) -> None:
        self._shared.redactions += 1
        self._shared.scratch.add("redaction", (self._shared.redactions, why))
        for place in told.payloads:
            self._shared.scratch.add("erased", (told.log.log, place, self._shared.redactions))

    def _claim_seen(self, seen: Seen, kind: str, seq: int) -> None:
        self._claim(seen.log, seen.size, parse_hash(seen.root), kind, seq)


def _open(told: CheckpointLine | ExaminedCheckpoint, verifier: Verifier) -> Checkpoint:
    """The checkpoint as the log has signed it; what another verifier said of it does not count. Raises BadNote."""
    if isinstance(told, ExaminedCheckpoint):
        return told.checkpoint if told.verifier == verifier else open_checkpoint(told.line.note, verifier)
    return open_checkpoint(told.note, verifier)


def _describe_why(told: Redaction, at: str) -> str:
    """By whom, when and why it was asked for."""
    rule = f" (rule {told.rule})" if told.rule else ""
    why = f"by {told.requested_by or 'nobody who is named'} at {at[:19]}Z: {told.reason}{rule}"
    return why if len(why) <= WHY_CHARACTERS else f"{why[:WHY_CHARACTERS]}..."


def _validity(certificate: Certificate) -> tuple[str, str]:
    """From when to when the key may sign, as leaves write times: text order is time order."""
    return timestamp(certificate.not_before), timestamp(certificate.not_after)


def _begins(day: str, opened_at: str, begun_at: str) -> bool:
    """Whether a log whose first record was made at this time may be of this day, and have been opened then.

    A gateway names a log, gives it its day and makes its first record in one moment. When that record got its place
    says nothing: the database may have been away for days between the two.
    """
    return _is_opened(day, opened_at) and begun_at[:10] == day and opened_at <= begun_at


def _is_opened(day: str, opened_at: str) -> bool:
    return seconds(opened_at) is not None and opened_at[:10] == day
