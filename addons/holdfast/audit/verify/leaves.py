"""One log's lines: its leaves one after another, what is derived from them, its bodies, checkpoints and clocks.

What its records and checkpoints claim of any log at some size is only remembered here; `roots` holds it against the
trees, when all of them are known.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from holdfast.audit.callers import caller_id
from holdfast.audit.checkpoint import Origin, open_checkpoint
from holdfast.audit.keys import parse_certificate
from holdfast.audit.note import BadNote, KeyName, Verifier
from holdfast.audit.payload import Slot, commit
from holdfast.audit.record import Kind, Leaf, Record, call_row, decode, encode_caller, timestamp
from holdfast.audit.sequence import NO_HASH
from holdfast.audit.tree import HASH_BYTES, Frontier, LeafHash, hash_leaf
from holdfast.audit.verify import findings as found
from holdfast.audit.verify.findings import Report
from holdfast.audit.verify.scratch import Scratch
from holdfast.errors import Internal

if TYPE_CHECKING:
    from holdfast.audit.export import BodyLine, CheckpointLine, LeafHashesLine, LogLine, RecordLine
    from holdfast.audit.keys import Certificate
    from holdfast.audit.record import CallRow, Payload
    from holdfast.audit.verify.findings import Code

LEGACY = "legacy/"
"""Logs from before logs were signed are called so, and only those hold leaves of version 1."""

TOLERATED_STEP_SECONDS = 2.0
HASHES_A_WRITE = 1000
KNOWN_CALLERS = 10_000


@dataclass(slots=True)
class Shared:
    """What the logs of one export have in common."""

    report: Report
    scratch: Scratch
    root: Verifier
    rows: Counter[str] = field(default_factory=Counter)
    dropped_days: set[str] = field(default_factory=set)
    callers: dict[str, str] = field(default_factory=dict)
    """IDs of callers seen before, by their JSON."""

    repeated: dict[tuple[int, int], tuple[str, str, int]] = field(default_factory=dict)
    """Outcomes whose call's row names another record: that record, and the call, log and seq of the outcome."""


class LogCheck:
    """One log while its lines go by."""

    def __init__(self, line: LogLine, shared: Shared) -> None:
        self.line = line
        self.origin = line.origin
        self.size = 0
        self.is_legacy = line.origin.startswith(LEGACY)
        self.is_dropped = bool(line.dropped_at)
        self.is_closed = False
        self.last_time = ""
        self.anchored_size = 0
        self.anchored_time = ""
        self.last_seen = 0.0
        self._shared = shared
        self._tree = Frontier()
        self._previous: bytes = NO_HASH
        self._hashes: list[LeafHash] = []
        self._signed_size = 0
        self._clock = ("", 0)
        self.certificate = None if self.is_legacy else self._open_certificate()
        self._validity = (
            (timestamp(self.certificate.not_before), timestamp(self.certificate.not_after))
            if self.certificate
            else None
        )

    def tell(self, code: Code, what: str, seq: int | None = None) -> None:
        """Report a finding about this log."""
        self._shared.report.add(code, what, self.origin, seq)

    def verifier(self) -> Verifier | None:
        """What verifies the log's checkpoints; None when its certificate is no good."""
        return self.certificate.verifier_for(Origin(KeyName(self.origin))) if self.certificate else None

    def check_checkpoint(self, line: CheckpointLine) -> None:
        """Take in a signed note of this log."""
        self._shared.rows["checkpoints"] += 1
        self._shared.report.checkpoints += 1
        verifier = self.verifier()
        if verifier is None:
            return
        try:
            checkpoint = open_checkpoint(line.note, verifier)
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
            self._append(LeafHash(line.hashes[start : start + HASH_BYTES]))

    def check_record(self, line: RecordLine) -> None:
        """Take in a leaf and what hangs on it."""
        self._shared.rows["records"] += 1
        self._shared.rows["bodies"] += len(line.bodies)
        self._shared.rows["calls"] += line.call is not None
        self._shared.report.leaves += 1
        if line.seq != self.size:
            self.tell(found.LEAF_MISSING, f"after record {self.size - 1} comes {line.seq}", line.seq)
        if line.leaf_type:
            self.tell(found.LEAF_TYPE, f"the leaf is kept as {line.leaf_type}", line.seq)
        try:
            leaf = decode(line.leaf)
        except Internal as error:
            self.tell(found.LEAF_SPELLING, str(error), line.seq)
        else:
            self._check_leaf(line, leaf)
        self._append(hash_leaf(line.leaf))

    def finish(self) -> None:
        """The log's lines are over."""
        self._write_hashes()
        if self.is_dropped:
            self._shared.report.add(found.LOG_DROPPED, f"{self.size} records, on {self.line.dropped_at}", self.origin)
        if (self.line.size, self.line.root) != (self.size, self._tree.root().hex()):
            self.tell(found.LOG_ALTERED, f"it is said to have {self.line.size} records, and has {self.size}, or others")
        if not self.is_legacy and self._signed_size < self.size:
            self.tell(
                found.UNSIGNED_TAIL, f"its last checkpoint is of size {self._signed_size}, it has {self.size} records"
            )

    def _open_certificate(self) -> Certificate | None:
        try:
            certificate = parse_certificate(self.line.certificate, self._shared.root)
            certificate.verifier_for(Origin(KeyName(self.origin)))
        except BadNote as error:
            self.tell(found.CERTIFICATE_BAD, str(error))
            return None
        return certificate

    def _append(self, leaf_hash: LeafHash) -> None:
        self._tree.add(leaf_hash)
        self.size += 1
        self._previous = leaf_hash
        self._hashes.append(leaf_hash)
        if len(self._hashes) >= HASHES_A_WRITE:
            self._write_hashes()

    def _write_hashes(self) -> None:
        self._shared.scratch.write_hashes(self.line.id, self._hashes)
        self._hashes.clear()

    def _claim(self, log: str, size: int, root: bytes, kind: str, seq: int) -> None:
        self._shared.scratch.add("claim", (log, size, root, kind, self.origin, seq))

    def _check_leaf(self, line: RecordLine, leaf: Leaf) -> None:
        record = leaf.record
        if (leaf.version == 1) != self.is_legacy:
            self.tell(found.LEAF_PLACE, f"a leaf of version {leaf.version} does not belong in this log", line.seq)
        if not self.is_legacy:
            self._check_place(line, leaf)
            self._check_time(leaf)
        expected = (self.line.day, record.call, record.kind.value, record.at)
        if line.columns != expected:
            self.tell(found.COLUMN_ALTERED, f"found {line.columns}, expected {expected}", line.seq)
        self._check_call(line, record)
        self._check_bodies(line, record)
        self._check_own(leaf)
        if self.is_closed and record.kind is not Kind.CLOSE:
            self.tell(found.CHAIN_BROKEN, "it goes on after it was closed", line.seq)
        self.is_closed = self.is_closed or record.kind is Kind.CLOSE

    def _check_place(self, line: RecordLine, leaf: Leaf) -> None:
        if leaf.log != self.origin or leaf.seq != line.seq:
            self.tell(found.LEAF_PLACE, f"the leaf is record {leaf.seq} of {leaf.log}", line.seq)
        if self.size and leaf.previous != self._previous.hex():
            self.tell(found.LEAF_PLACE, "the leaf names another one before it", line.seq)
        if not self.size:
            self._check_beginning(leaf)

    def _check_beginning(self, leaf: Leaf) -> None:
        """The first leaf names the root of the log before it, which its `start` part describes."""
        start = leaf.record.start
        if start is None:
            self.tell(found.CHAIN_BROKEN, "its first record does not say what it goes on from", leaf.seq)
        elif start.previous_log:
            self._claim(start.previous_log, start.previous_size, _from_hex(leaf.previous), "start", leaf.seq)
        elif leaf.previous != NO_HASH.hex():
            self.tell(found.CHAIN_BROKEN, "it goes on from a log that it does not name", leaf.seq)

    def _check_time(self, leaf: Leaf) -> None:
        self.last_time = leaf.time
        if leaf.seq == self.anchored_size - 1:
            self.anchored_time = leaf.time
        if self._validity is not None and not self._validity[0] <= leaf.time <= self._validity[1]:
            self.tell(found.CERTIFICATE_EXPIRED, f"the record is of {leaf.time}", leaf.seq)
        if (leaf.time, leaf.mono) == self._clock:
            return
        earlier, self._clock = self._clock, (leaf.time, leaf.mono)
        wall = _seconds(leaf.time)
        if wall is None:
            self.tell(found.LEAF_SPELLING, f"{leaf.time!r} is no time", leaf.seq)
            return
        passed = wall - (_seconds(earlier[0]) or wall)
        if passed < -TOLERATED_STEP_SECONDS:
            self.tell(found.CLOCK_BACK, f"the record is of {leaf.time}, the one before of {earlier[0]}", leaf.seq)
        elif earlier[0] and leaf.record.start is None:
            ticked = (leaf.mono - earlier[1]) / 1_000_000
            if abs(passed - ticked) > TOLERATED_STEP_SECONDS:
                self.tell(found.CLOCK_STEPPED, f"{ticked:.1f} s passed, the clock says {passed:.1f} s", leaf.seq)

    def _check_call(self, line: RecordLine, record: Record) -> None:
        row = call_row(record)
        caller = self._name_caller(record)
        if line.call is not None:
            self._check_row(line, record, row, caller)
        elif row is not None and line.call_elsewhere:
            self._check_elsewhere(line, record)
        elif row is not None and row.received_at[:10] not in self._shared.dropped_days:
            self.tell(found.CALL_MISSING, f"call {record.call} is not listed", line.seq)

    def _name_caller(self, record: Record) -> str:
        """The ID of a record's caller, which the database must hold; empty when it has none."""
        if record.identity is None:
            return ""
        encoded = encode_caller(record.identity)
        caller = self._shared.callers.get(encoded)
        if caller is None:
            if len(self._shared.callers) > KNOWN_CALLERS:
                self._shared.callers.clear()
            caller = self._shared.callers[encoded] = caller_id(encoded)
            self._shared.scratch.add("caller", (caller,))
        return caller

    def _check_row(self, line: RecordLine, record: Record, row: CallRow | None, caller: str) -> None:
        if row is None:
            self.tell(
                found.CALL_ALTERED, f"call {record.call} is listed after a record that does not tell it", line.seq
            )
            return
        place = {"day": row.received_at[:10], "log": self.line.id, "seq": line.seq, "caller": caller}
        expected = msgspec.structs.asdict(row) | place
        if line.call != expected:
            wrong = sorted(name for name in expected if (line.call or {}).get(name) != expected[name])
            self.tell(found.CALL_ALTERED, f"call {record.call} is listed with another {', '.join(wrong)}", line.seq)
        elif record.kind is not Kind.OUTCOME:
            self.tell(found.OUTCOME_MISSING, f"call {record.call} ({record.kind.value})", line.seq)
        earlier = self._shared.repeated.pop((self.line.id, line.seq), None)
        if earlier is not None and record.kind is Kind.OUTCOME and earlier[0] == record.call:
            self.tell(
                found.OUTCOME_REPEATED, f"call {record.call} ended at record {earlier[2]} of {earlier[1]} too", line.seq
            )
        elif earlier is not None:
            self._shared.repeated[self.line.id, line.seq] = earlier

    def _check_elsewhere(self, line: RecordLine, record: Record) -> None:
        """The call's row is derived from another record: a later one, unless this one is the outcome."""
        log, _, seq = line.call_elsewhere.partition("/")
        there = (int(log), int(seq))
        if record.kind is Kind.OUTCOME:
            self._shared.repeated[there] = (record.call, self.origin, line.seq)
        elif there[0] == self.line.id and there[1] < line.seq:
            self.tell(found.CALL_ALTERED, f"call {record.call} is listed as it was at record {seq}", line.seq)

    def _check_bodies(self, line: RecordLine, record: Record) -> None:
        rows: dict[str, list[BodyLine]] = defaultdict(list)
        for row in line.bodies:
            rows[row.slot].append(row)
        for slot, payload in ((Slot.REQUEST, record.request_body), (Slot.RESPONSE, record.response_body)):
            pieces = rows.pop(slot.value, [])
            if payload is None or not (payload.commitment or payload.sha256):
                if pieces:
                    self.tell(found.BODY_ALTERED, f"there is a {slot} body that the leaf does not know", line.seq)
            elif pieces:
                self._check_body(line, slot, payload, pieces)
            elif payload.size:
                self._shared.scratch.add("gone", (self.origin, f"{line.seq}/{slot}"))
        if rows:
            self.tell(found.BODY_ALTERED, f"there are bodies called {', '.join(map(repr, rows))}", line.seq)

    def _check_body(self, line: RecordLine, slot: Slot, payload: Payload, pieces: list[BodyLine]) -> None:
        digests = [piece.sha256 for piece in pieces]
        in_order = [piece.part for piece in pieces] == list(range(len(pieces)))
        one_salt = len({piece.salt for piece in pieces}) == 1
        if self.is_legacy:
            fits = digests == [payload.sha256]
        else:
            fits = (
                all(_from_hex(digest) for digest in digests) and commit(pieces[0].salt, digests) == payload.commitment
            )
        if not (in_order and one_salt and fits):
            self.tell(found.BODY_ALTERED, f"the {slot} body is not the one that the leaf commits to", line.seq)
        for digest in digests:
            self._shared.scratch.add("needed", (self.line.day, digest, self.origin, line.seq))

    def _check_own(self, leaf: Leaf) -> None:
        """What a record says of this log and of others."""
        record = leaf.record
        for peer in record.peers:
            self._claim(peer.log, peer.size, _from_hex(peer.root), "peer", leaf.seq)
        if record.start is not None and record.start.gap:
            self.tell(found.GAP, record.start.gap, leaf.seq)
        if record.redact is not None:
            erased = record.redact.log
            kind = "redact" if record.redact.payloads else "drop"
            self._claim(erased.log, erased.size, _from_hex(erased.root), kind, leaf.seq)
            for place in record.redact.payloads:
                self._shared.scratch.add("erased", (erased.log, place))


def _validity(certificate: Certificate) -> tuple[str, str]:
    """From when to when the key may sign, as leaves write times: text order is time order."""
    return timestamp(certificate.not_before), timestamp(certificate.not_after)


def _seconds(time: str) -> float | None:
    """A leaf's time in Unix seconds; None when it is not spelt as `record.timestamp` spells it."""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None and timestamp(moment) == time else None


def _from_hex(text: str) -> bytes:
    """32 bytes; none when the text is anything else."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        return b""
    return raw if len(raw) == HASH_BYTES and raw.hex() == text else b""
