"""What one line of an export tells by itself, whatever comes before and after it.

Almost all of the work is here, and none of it knows where it is done: a line is examined where it is verified, or in
another process (see `workers`), and `leaves` and `payloads` take in the outcome. What is not a matter of one line,
`examine` hands on as it is.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from holdfast.audit.callers import caller_claims, caller_id
from holdfast.audit.checkpoint import Checkpoint, parse_checkpoint
from holdfast.audit.export import (
    LONGEST_LEAF,
    BlobLine,
    BodyLine,
    CallerLine,
    CheckpointLine,
    Line,
    RecordLine,
    decode_block,
)
from holdfast.audit.note import BadNote, Verifier, is_signed_by
from holdfast.audit.payload import PIECE_BYTES, Slot, commit, decompress, decompressed
from holdfast.audit.record import CallRow, Kind, Leaf, Payload, Record, call_row, decode, encode_caller
from holdfast.audit.tree import hash_leaf, parse_hash
from holdfast.audit.verify import findings as found
from holdfast.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

VERSION = 2
"""Leaves of logs that are signed. Those of version 1 have no place."""

KNOWN_CALLERS = 10_000
SPEAKING = {Kind.HEARTBEAT, Kind.PEER, Kind.REDACT, Kind.ROTATE, Kind.CLOSE}
"""Records in which a log tells of itself and of others."""

REQUEST, RESPONSE = Slot.REQUEST.value, Slot.RESPONSE.value
_row_encoder = msgspec.json.Encoder(order="sorted")
_caller_id = lru_cache(KNOWN_CALLERS)(caller_id)

type Findings = list[tuple[str, str]]
"""The names of their codes, and what was found."""


class _Examined(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class ExaminedRecord(_Examined, frozen=True, tag="record"):
    """A `RecordLine`: what it lacks by itself, and what is to be held against the record's place in its log.

    `version` is 0 when the leaf cannot be read; then only `findings` tells of it. `log`, `place`, `previous`, `time`
    and `mono` are the envelope's; `starts` says that a run begins, `day` is the column. `elsewhere` are call, log
    and seq when the call's row is derived from another record and the order of the two decides; `unlisted` are call
    and day when it has no row. `pieces` are the digests of the pieces that must be there, out of `bodies` rows,
    `gone` the slots of the bodies that have none. `leaf` is set for records that speak or start.
    """

    seq: int
    leaf_hash: bytes
    findings: list[tuple[str, str]]
    version: int = 0
    kind: str = ""
    log: str = ""
    place: int = 0
    previous: str = ""
    time: str = ""
    mono: int = 0
    starts: bool = False
    day: str = ""
    caller: str = ""
    is_listed: bool = False
    elsewhere: tuple[str, int, int] | None = None
    unlisted: tuple[str, str] | None = None
    bodies: int = 0
    pieces: list[str] = []
    gone: list[str] = []
    leaf: bytes = b""


class ExaminedStretch(_Examined, frozen=True, tag="stretch"):
    """Records of a log of which each follows the one before it, and only the first has more to tell than that.

    Of those after the first: `hashes` of the leaves; `clocks`: which of them, from 0, has another time than the one
    before, with `time` and `mono`; `callers`, each once; how many are `listed`; their `bodies`, and `pieces` with seq.
    """

    first: ExaminedRecord
    hashes: list[bytes]
    clocks: list[tuple[int, str, int]]
    callers: list[str]
    listed: int
    bodies: int
    pieces: list[tuple[int, str]]

    def others(self) -> Iterator[ExaminedRecord]:
        """The records after the first, one by one; what is told as a sum is told with any of them."""
        before = self.first
        clocks = {index: (time, mono) for index, time, mono in self.clocks}
        for index, leaf_hash in enumerate(self.hashes):
            time, mono = clocks.get(index, (before.time, before.mono))
            before = ExaminedRecord(
                seq=before.seq + 1,
                leaf_hash=leaf_hash,
                findings=[],
                version=before.version,
                log=before.log,
                place=before.seq + 1,
                previous=before.leaf_hash.hex(),
                time=time,
                mono=mono,
                day=before.day,
                caller=self.callers[index] if index < len(self.callers) else "",
                is_listed=index < self.listed,
                bodies=0 if index else self.bodies,
                pieces=[digest for seq, digest in self.pieces if seq == before.seq + 1],
            )
            yield before


class ExaminedCheckpoint(_Examined, frozen=True, tag="checkpoint"):
    """A `CheckpointLine` that `verifier` verifies as this checkpoint."""

    line: CheckpointLine
    verifier: Verifier
    checkpoint: Checkpoint


class ExaminedCaller(_Examined, frozen=True, tag="caller"):
    """A `CallerLine`: how many claims it has, and what is wrong with it."""

    id: str
    claims: int
    fault: str


class ExaminedBlob(_Examined, frozen=True, tag="blob"):
    """A `BlobLine`: what is wrong with it."""

    day: str
    sha256: str
    fault: str


type Examined = ExaminedRecord | ExaminedStretch | ExaminedCheckpoint | ExaminedCaller | ExaminedBlob

EXAMINED = (ExaminedRecord, ExaminedStretch, ExaminedCheckpoint, ExaminedCaller, ExaminedBlob)


def count_rows(line: Line | Examined) -> int:
    """How many lines of the export it stands for."""
    return 1 + len(line.hashes) if isinstance(line, ExaminedStretch) else 1


def examine_block(block: bytes, verifiers: Mapping[str, Verifier]) -> list[Line | Examined]:
    """Read the lines of a block and examine them; `verifiers` are those of logs that are known, by origin.

    Raises ConfigurationError when they are no lines of an export.
    """
    joined: list[Line | Examined] = []
    stretch: list[ExaminedRecord] = []
    for line in decode_block(block):
        record = examine_record(line) if type(line) is RecordLine else None
        if stretch and (record is None or not follows(record, stretch[-1])):
            joined.append(_join(stretch))
            stretch = []
        if record is not None:
            stretch.append(record)
        else:
            joined.append(examine(line, verifiers))
    if stretch:
        joined.append(_join(stretch))
    return joined


def examine(line: Line | Examined, verifiers: Mapping[str, Verifier]) -> Line | Examined:
    """Examine a line, or hand it on when that is not for one line alone or was done before."""
    match line:
        case RecordLine():
            return examine_record(line)
        case CheckpointLine():
            return _examine_checkpoint(line, verifiers)
        case CallerLine():
            return examine_caller(line)
        case BlobLine() if line.size <= PIECE_BYTES:  # only what refers to it says that a longer one may be so long
            return examine_blob(line)
        case _:
            return line


def follows(record: ExaminedRecord, before: ExaminedRecord) -> bool:
    """Whether a record follows another one as it should, and has nothing to tell but that."""
    return (
        record.seq == record.place == before.seq + 1
        and record.previous == before.leaf_hash.hex()
        and record.log == before.log
        and record.day == before.day
        and record.version == before.version == VERSION
        and not (record.findings or record.gone or record.leaf)
        and record.elsewhere is None
        and record.unlisted is None
    )


def _join(records: list[ExaminedRecord]) -> ExaminedRecord | ExaminedStretch:
    first, *others = records
    if not others:
        return first
    return ExaminedStretch(
        first,
        [record.leaf_hash for record in others],
        [
            (index, record.time, record.mono)
            for index, (before, record) in enumerate(pairwise(records))
            if record.mono != before.mono or record.time != before.time
        ],
        list({record.caller for record in others} - {""}),
        sum([record.is_listed for record in others]),
        sum([record.bodies for record in others]),
        [(record.seq, digest) for record in others for digest in record.pieces],
    )


def examine_record(line: RecordLine) -> ExaminedRecord:
    """Examine a leaf and what hangs on it."""
    told: Findings = []
    if line.leaf_type:
        told.append((found.LEAF_TYPE.name, f"the leaf is kept as {line.leaf_type}"))
    try:
        leaf = _decode(line.leaf)
    except (Internal, RecursionError) as error:
        told.append((found.LEAF_SPELLING.name, str(error)))
        return ExaminedRecord(line.seq, hash_leaf(line.leaf), told)
    record = leaf.record
    _, call, kind, at = line.columns
    if call != record.call or kind != record.kind or at != record.at:
        expected = (record.call, record.kind.value, record.at)
        told.append((found.COLUMN_ALTERED.name, f"found {line.columns[1:]}, expected {expected}"))
    caller = _caller_id(encode_caller(record.identity)) if record.identity is not None else ""
    elsewhere, unlisted = _examine_call(line, record, caller, told)
    pieces, gone = _examine_bodies(line, leaf, told)
    return ExaminedRecord(
        line.seq,
        hash_leaf(line.leaf),
        told,
        leaf.version,
        record.kind,
        leaf.log,
        leaf.seq,
        leaf.previous,
        leaf.time,
        leaf.mono,
        record.start is not None,
        line.columns[0],
        caller,
        line.call_place is not None,
        elsewhere,
        unlisted,
        len(line.bodies),
        pieces,
        gone,
        line.leaf if record.start is not None or record.kind in SPEAKING else b"",
    )


def _decode(leaf: bytes) -> Leaf:
    if len(leaf) > LONGEST_LEAF:
        raise Internal(f"it is longer than {LONGEST_LEAF} bytes, which no record is")
    return decode(leaf)


def examine_caller(line: CallerLine) -> ExaminedCaller:
    """Examine a caller and its claims."""
    expected = _claims_of(line.caller)
    if expected is None:
        fault = "cannot be read"
    elif caller_id(line.caller) != line.id or sorted(line.claims) != expected:
        fault = "is not what it is indexed as"
    else:
        fault = ""
    return ExaminedCaller(line.id, len(line.claims), fault)


def examine_blob(line: BlobLine, longest: int = PIECE_BYTES) -> ExaminedBlob:
    """Examine a piece of a body, which may be as long as `longest`."""
    return ExaminedBlob(line.day, line.sha256, _find_fault(line, longest))


def _examine_checkpoint(line: CheckpointLine, verifiers: Mapping[str, Verifier]) -> CheckpointLine | ExaminedCheckpoint:
    """Verify a checkpoint by the log that it names, where that is known; one that is not good is handed on."""
    try:
        checkpoint, note = parse_checkpoint(line.note)
    except BadNote:
        return line
    verifier = verifiers.get(checkpoint.origin)
    if verifier is None or not is_signed_by(note, verifier):
        return line
    return ExaminedCheckpoint(line, verifier, checkpoint)


def _examine_call(
    line: RecordLine, record: Record, caller: str, told: Findings
) -> tuple[tuple[str, int, int] | None, tuple[str, str] | None]:
    row = call_row(record)
    if line.call_place is None:
        if row is None:
            return None, None
        if line.call_elsewhere is None:
            return None, (record.call, row.received_at[:10])
        return _examine_elsewhere(record, *line.call_elsewhere, told), None
    if row is None:
        what = f"call {record.call} is listed after a record that does not tell it"
        told.append((found.CALL_ALTERED.name, what))
    elif wrong := _find_wrong(line, row, caller):
        told.append((found.CALL_ALTERED.name, f"call {record.call} is listed with another {', '.join(wrong)}"))
    elif not row.complete:
        told.append((found.OUTCOME_MISSING.name, f"call {record.call} ({record.kind.value})"))
    return None, None


def _examine_elsewhere(
    record: Record, log: int, seq: int, complete: bool, told: Findings
) -> tuple[str, int, int] | None:
    """The call's row is derived from another record: from its outcome, or from one that came after this one."""
    if record.kind is not Kind.OUTCOME:
        return None if complete else (record.call, log, seq)
    if complete:
        told.append((found.OUTCOME_REPEATED.name, f"call {record.call} ended at record {seq} of log {log} too"))
    else:
        told.append((found.CALL_ALTERED.name, f"call {record.call} is listed as it was at record {seq}"))
    return None


def _examine_bodies(line: RecordLine, leaf: Leaf, told: Findings) -> tuple[list[str], list[str]]:
    """The digests of the pieces that must be there, and the slots of the bodies that are gone."""
    needed: list[str] = []
    gone: list[str] = []
    record, left = leaf.record, len(line.bodies)
    is_body = _is_body if leaf.version == VERSION else _is_whole_body
    for slot, payload in ((REQUEST, record.request_body), (RESPONSE, record.response_body)):
        if payload is None and not left:
            continue
        pieces = [piece for piece in line.bodies if piece.slot == slot]
        left -= len(pieces)
        if payload is None or not (payload.commitment or payload.sha256):
            if pieces:
                told.append((found.BODY_ALTERED.name, f"there is a {slot} body that the leaf does not know"))
        elif pieces:
            if not is_body(payload, pieces):
                what = f"the {slot} body is not the one that the leaf commits to"
                told.append((found.BODY_ALTERED.name, what))
            needed += [piece.sha256 for piece in pieces]
        elif payload.size:
            gone.append(slot)
    if left:
        what = "there is a body that is neither the request's nor the response's"
        told.append((found.BODY_ALTERED.name, what))
    return needed, gone


def _is_body(payload: Payload, pieces: list[BodyLine]) -> bool:
    """Whether these are the pieces that the leaf commits to, in order, as many as the body's size asks for."""
    salt = pieces[0].salt
    digests = []
    for place, piece in enumerate(pieces):
        digest = parse_hash(piece.sha256)
        if piece.part != place or piece.salt != salt or not digest:
            return False
        digests.append(digest)
    return len(digests) == -(-payload.size // PIECE_BYTES) and commit(salt, digests) == payload.commitment


def _is_whole_body(payload: Payload, pieces: list[BodyLine]) -> bool:
    """The same of a leaf of version 1: its bodies were not cut."""
    return [(piece.part, piece.sha256) for piece in pieces] == [(0, payload.sha256)]


def _find_wrong(line: RecordLine, row: CallRow, caller: str) -> list[str]:
    """The columns of a call's row that differ from what the record says."""
    if line.call_place == (row.received_at[:10], caller) and bytes(line.call) == _row_encoder.encode(row):
        return []  # spelt as exports spell it, as all but a few are
    expected = msgspec.to_builtins(row) | {"day": row.received_at[:10], "caller": caller}
    try:
        told = msgspec.json.decode(line.call, type=dict)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        told = {}
    told["day"], told["caller"] = line.call_place or ("", "")
    names = expected.keys() | told.keys()
    return sorted(name for name in names if not _is_same(told.get(name, ...), expected.get(name, ...)))


def _is_same(found: object, expected: object) -> bool:
    """Whether two columns have the same value of the same type: 1 is not true."""
    return type(found) is type(expected) and found == expected


def _claims_of(caller: str) -> list[tuple[str, str]] | None:
    try:
        return sorted(caller_claims(msgspec.json.decode(caller).get("claims", {})))
    except (msgspec.MsgspecError, AttributeError, TypeError, RecursionError):
        return None


def _find_fault(line: BlobLine, longest: int) -> str:
    if line.body is None:
        return "is not in the object store"
    digest, size = sha256(), 0
    try:
        for content in _inflate(line.codec, line.body, longest):
            digest.update(content)
            size += len(content)
    except Internal as error:
        return f"cannot be read: {error}"
    return "" if (digest.hexdigest(), size) == (line.sha256, line.size) else "has other bytes"


def _inflate(codec: str, kept: bytes, longest: int) -> Iterable[bytes]:
    """A piece at once, which is faster; a longer body bit by bit. Raises Internal."""
    return [decompress(codec, kept)] if longest == PIECE_BYTES else decompressed(codec, kept, longest)
