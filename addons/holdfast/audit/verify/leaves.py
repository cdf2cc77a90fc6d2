"""One log's lines: its leaves one after another, what is derived from them, its bodies, checkpoints and clocks.

What its records and checkpoints claim of any log at some size is only remembered here; `roots` holds it against the
trees, when all of them are known. Only logs whose key the root has certified are believed in what they claim.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from holdfast.audit.callers import caller_id
from holdfast.audit.checkpoint import Origin, open_checkpoint
from holdfast.audit.keys import parse_certificate
from holdfast.audit.note import BadNote, KeyName, Verifier
from holdfast.audit.payload import PIECE_BYTES, Slot, commit
from holdfast.audit.record import Kind, Leaf, Record, Seen, call_row, decode, encode_caller, timestamp
from holdfast.audit.sequence import NO_HASH
from holdfast.audit.tree import HASH_BYTES, LeafHash, hash_leaf
from holdfast.audit.verify import findings as found
from holdfast.audit.verify.findings import Report
from holdfast.audit.verify.scratch import Scratch
from holdfast.errors import Internal

if TYPE_CHECKING:
    from holdfast.audit.export import BodyLine, CheckpointLine, LeafHashesLine, LogLine, RecordLine
    from holdfast.audit.keys import Certificate
    from holdfast.audit.record import Caller, CallRow, Payload
    from holdfast.audit.verify.findings import Code

LEGACY = "legacy/"
"""Logs from before logs were signed are called so, and only those hold leaves of version 1."""

TOLERATED_STEP_SECONDS = 2.0
LATEST_START = timedelta(hours=1)
"""A log is named and given its day before its first record is durable."""

HASHES_A_WRITE = 1000
KNOWN_CALLERS = 10_000
SPEAKING = {Kind.HEARTBEAT, Kind.PEER, Kind.REDACT, Kind.ROTATE, Kind.CLOSE}
"""Records in which a log tells of itself and of others."""

_DIGEST = re.compile("[0-9a-f]{64}")
_row_encoder = msgspec.json.Encoder(order="sorted")


@dataclass(slots=True)
class Shared:
    """What the logs of one export have in common."""

    report: Report
    scratch: Scratch
    root: Verifier
    logs: dict[int, LogCheck] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    dropped_days: set[str] = field(default_factory=set)
    callers: dict[str, str] = field(default_factory=dict)
    """IDs of callers seen before, by their JSON."""

    origins: set[str] = field(default_factory=set)


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
        self.first_time = ""
        self.last_time = ""
        self.closed_at = ""
        self.goes_on_from: Seen | None = None
        self.anchored = Reach()
        self.witnessed = Reach()
        self.last_seen = 0.0
        self._shared = shared
        self._records = self._bodies = self._calls = 0
        self._previous: bytes = NO_HASH
        self._hashes: list[LeafHash] = []
        self._signed_size = 0
        self._clock = ("", 0)
        self._wall = 0.0
        self.certificate = None if self.is_legacy else self._open_certificate()
        self._validity = _validity(self.certificate) if self.certificate else None

    @property
    def anchored_size(self) -> int:
        """How many records are anchored."""
        return self.anchored.size

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
        self._records += 1
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
        self._shared.scratch.write_hashes(self.line.id, self._hashes)
        self._hashes.clear()
        self._shared.rows.update(records=self._records, bodies=self._bodies, calls=self._calls)
        self._shared.report.leaves += self._records
        if self.is_dropped:
            self._shared.report.add(found.LOG_DROPPED, f"{self.size} records, on {self.line.dropped_at}", self.origin)
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
            self.tell(found.CERTIFICATE_BAD, str(error))
            return None
        return certificate

    def _check_description(self) -> None:
        """The log's row, against the log. Its root is claimed, as others claim one."""
        line = self.line
        if line.size != self.size:
            self.tell(found.LOG_ALTERED, f"it is said to have {line.size} records, and has {self.size}")
        else:
            self._claim(self.origin, line.size, _from_hex(line.root), "row", self.size)
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
        if self.is_dropped or not self.first_time:
            return
        if line.closed_at != self.closed_at:
            self.tell(found.LOG_ALTERED, f"it is said to be closed at {line.closed_at!r}, found {self.closed_at!r}")
        if line.opened_at[:10] != line.day or not _begins(line.day, line.opened_at, self.first_time):
            self.tell(
                found.LOG_ALTERED,
                f"it is said to be of {line.day}, opened at {line.opened_at}; its first record is of {self.first_time}",
            )

    def _append(self, leaf_hash: LeafHash) -> None:
        self.size += 1
        self._previous = leaf_hash
        self._hashes.append(leaf_hash)
        if len(self._hashes) >= HASHES_A_WRITE:
            self._shared.scratch.write_hashes(self.line.id, self._hashes)
            self._hashes.clear()

    def _claim(self, log: str, size: int, root: bytes, kind: str, seq: int) -> None:
        self._shared.scratch.add("claim", (log, size, root, kind, self.origin, seq, self.last_time, None))

    def _check_leaf(self, line: RecordLine, leaf: Leaf) -> None:
        record = leaf.record
        if (leaf.version == 1) != self.is_legacy or (self.is_legacy and record.kind in SPEAKING):
            self.tell(
                found.LEAF_PLACE, f"a {record.kind} record of version {leaf.version} is not of this log", line.seq
            )
        elif not self.is_legacy:
            self._check_place(line, leaf)
            self._check_time(leaf)
        if line.columns != (self.line.day, record.call, record.kind, record.at):
            expected = (self.line.day, record.call, record.kind.value, record.at)
            self.tell(found.COLUMN_ALTERED, f"found {line.columns}, expected {expected}", line.seq)
        self._check_call(line, record)
        if line.bodies or record.request_body or record.response_body:
            self._check_bodies(line, record)
        if self.closed_at:
            self.tell(found.CHAIN_BROKEN, "it goes on after it was closed", line.seq)
        if record.kind in SPEAKING and self.certificate is not None:
            self._check_own(leaf)

    def _check_place(self, line: RecordLine, leaf: Leaf) -> None:
        if leaf.log != self.origin or leaf.seq != line.seq:
            self.tell(found.LEAF_PLACE, f"the leaf is record {leaf.seq} of {leaf.log}", line.seq)
        if not self.size:
            self._check_beginning(leaf)
        elif leaf.previous != self._previous.hex():
            self.tell(found.LEAF_PLACE, "the leaf names another one before it", line.seq)

    def _check_beginning(self, leaf: Leaf) -> None:
        """The first leaf names the root of the log before it, which its `start` part describes."""
        self.first_time = leaf.time
        start = leaf.record.start
        if start is None:
            self.tell(found.CHAIN_BROKEN, "its first record does not say what it goes on from", leaf.seq)
        elif start.previous_log:
            self.goes_on_from = Seen(start.previous_log, start.previous_size, leaf.previous)
        elif leaf.previous != NO_HASH.hex():
            self.tell(found.CHAIN_BROKEN, "it goes on from a log that it does not name", leaf.seq)

    def _check_time(self, leaf: Leaf) -> None:
        if (leaf.time, leaf.mono) == self._clock:
            return
        earlier, self._clock = self._clock, (leaf.time, leaf.mono)
        self.last_time = leaf.time
        if leaf.seq < self.anchored.size:
            self.anchored.time = leaf.time
        if self._validity is not None and not self._validity[0] <= leaf.time <= self._validity[1]:
            self.tell(found.CERTIFICATE_EXPIRED, f"the record is of {leaf.time}", leaf.seq)
        wall = seconds(leaf.time)
        if wall is None:
            self.tell(found.LEAF_SPELLING, f"{leaf.time!r} is no time", leaf.seq)
            return
        before, self._wall = self._wall, wall
        if before:
            self._check_step(leaf, wall - before, (leaf.mono - earlier[1]) / 1_000_000)

    def _check_step(self, leaf: Leaf, passed: float, ticked: float) -> None:
        """The wall clock may not go back, nor, within one run, say that another time passed than the other clock."""
        if passed < -TOLERATED_STEP_SECONDS:
            self.tell(found.CLOCK_BACK, f"the record is {-passed:.1f} s older than the one before", leaf.seq)
        elif leaf.record.start is None and abs(passed - ticked) > TOLERATED_STEP_SECONDS:
            self.tell(found.CLOCK_STEPPED, f"{ticked:.1f} s passed, the clock says {passed:.1f} s", leaf.seq)

    def _check_call(self, line: RecordLine, record: Record) -> None:
        row = call_row(record)
        caller = self._name_caller(record.identity) if record.identity is not None else ""
        if line.call_place is not None:
            self._calls += 1
            self._check_row(line, record, row, caller)
        elif row is None:
            return
        elif line.call_elsewhere is not None:
            self._check_elsewhere(line, record, *line.call_elsewhere)
        elif row.received_at[:10] not in self._shared.dropped_days:
            self.tell(found.CALL_MISSING, f"call {record.call} is not listed", line.seq)

    def _name_caller(self, identity: Caller) -> str:
        """The ID of a record's caller, which the database must hold."""
        encoded = encode_caller(identity)
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
        elif bytes(line.call) != _row_encoder.encode(row) or line.call_place != (row.received_at[:10], caller):
            wrong = ", ".join(_find_wrong(line, row, caller))
            self.tell(found.CALL_ALTERED, f"call {record.call} is listed with another {wrong}", line.seq)
        elif not row.complete:
            self.tell(found.OUTCOME_MISSING, f"call {record.call} ({record.kind.value})", line.seq)

    def _check_elsewhere(self, line: RecordLine, record: Record, log: int, seq: int, complete: bool) -> None:
        """The call's row is derived from another record: from its outcome, or from one that came after this one."""
        if record.kind is Kind.OUTCOME and complete:
            self.tell(found.OUTCOME_REPEATED, f"call {record.call} ended at record {seq} of log {log} too", line.seq)
        elif not complete and (record.kind is Kind.OUTCOME or not self._is_after(log, seq, line.seq)):
            self.tell(found.CALL_ALTERED, f"call {record.call} is listed as it was at record {seq}", line.seq)

    def _is_after(self, log: int, seq: int, than: int) -> bool:
        """Whether that record came after record `than` of this log, in the same replica."""
        if log == self.line.id:
            return seq > than
        other = self._shared.logs.get(log)
        return other is not None and other.line.replica == self.line.replica and other.line.epoch > self.line.epoch

    def _check_bodies(self, line: RecordLine, record: Record) -> None:
        known = 0
        for slot, payload in ((Slot.REQUEST, record.request_body), (Slot.RESPONSE, record.response_body)):
            pieces = [piece for piece in line.bodies if piece.slot == slot]
            known += len(pieces)
            if payload is None or not (payload.commitment or payload.sha256):
                if pieces:
                    self.tell(found.BODY_ALTERED, f"there is a {slot} body that the leaf does not know", line.seq)
            elif pieces:
                self._check_body(line, slot, payload, pieces)
            elif payload.size:
                self._shared.scratch.add("gone", (self.origin, f"{line.seq}/{slot}"))
        if known != len(line.bodies):
            self.tell(found.BODY_ALTERED, "there is a body that is neither the request's nor the response's", line.seq)
        self._bodies += len(line.bodies)

    def _check_body(self, line: RecordLine, slot: Slot, payload: Payload, pieces: list[BodyLine]) -> None:
        if not (_is_whole_body if self.is_legacy else _is_body)(payload, pieces):
            self.tell(found.BODY_ALTERED, f"the {slot} body is not the one that the leaf commits to", line.seq)
        for piece in pieces:
            self._shared.scratch.add("needed", (self.line.day, piece.sha256, self.origin, line.seq))

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
            self.tell(found.GAP, record.start.gap, leaf.seq)
        if record.redact is not None:
            erased = record.redact.log
            self._claim_seen(erased, "redact" if record.redact.payloads else "drop", leaf.seq)
            for place in record.redact.payloads:
                self._shared.scratch.add("erased", (erased.log, place))

    def _claim_seen(self, seen: Seen, kind: str, seq: int) -> None:
        self._claim(seen.log, seen.size, _from_hex(seen.root), kind, seq)


def _validity(certificate: Certificate) -> tuple[str, str]:
    """From when to when the key may sign, as leaves write times: text order is time order."""
    return timestamp(certificate.not_before), timestamp(certificate.not_after)


def _begins(day: str, opened_at: str, first_time: str) -> bool:
    """Whether a log of this day, opened then, may have its first record at this time."""
    if seconds(first_time) is None:
        return True  # told already
    if seconds(opened_at) is None:
        return False
    earliest_day = timestamp(datetime.fromisoformat(first_time) - LATEST_START)[:10]
    return opened_at <= first_time and earliest_day <= day


def _is_body(payload: Payload, pieces: list[BodyLine]) -> bool:
    """Whether these are the pieces that the leaf commits to, in order, as many as the body's size asks for."""
    salt = pieces[0].salt
    for place, piece in enumerate(pieces):
        if piece.part != place or piece.salt != salt or _DIGEST.fullmatch(piece.sha256) is None:
            return False
    is_as_long = len(pieces) == -(-payload.size // PIECE_BYTES)
    return is_as_long and commit(salt, [piece.sha256 for piece in pieces]) == payload.commitment


def _is_whole_body(payload: Payload, pieces: list[BodyLine]) -> bool:
    """The same of a leaf of version 1: its bodies were not cut."""
    return [(piece.part, piece.sha256) for piece in pieces] == [(0, payload.sha256)]


def _find_wrong(line: RecordLine, row: CallRow, caller: str) -> list[str]:
    """The columns of a call's row that differ from what the record says."""
    expected = msgspec.to_builtins(row) | {"day": row.received_at[:10], "caller": caller}
    try:
        told = msgspec.json.decode(line.call, type=dict)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        told = {}
    told["day"], told["caller"] = line.call_place or ("", "")
    return sorted(name for name in expected.keys() | told.keys() if told.get(name) != expected.get(name))


def seconds(time: str) -> float | None:
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
