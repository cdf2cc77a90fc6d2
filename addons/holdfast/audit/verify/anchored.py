"""How far each log is known outside the database: by itself, or through a record of another log that names it.

What the auditor collected was outside of the database, so the log's own signature is enough for it to count as
anchored: whoever changes the database later cannot take it back. That a witness has checked it, and when, says its
cosignature, and only where the auditor names the witness's key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509

from holdfast.audit.anchors.evidence import Evidence, Kind
from holdfast.audit.anchors.timestamp import verify_reply
from holdfast.audit.checkpoint import cosigned_at, is_cosignature
from holdfast.audit.note import Verifier, is_signed_by, parse_note
from holdfast.audit.verify import findings as found
from holdfast.audit.verify.leaves import LEGACY, LogCheck, Reach
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from holdfast.audit.note import Note
    from holdfast.audit.verify.findings import Report
    from holdfast.audit.verify.scratch import Scratch

OPENING = 1
"""In its opening, a log's first records but the very first say what the other logs of the database are like."""

FIRST_EPOCH = "/1"


@dataclass(frozen=True, slots=True)
class Anchoring:
    """What the auditor holds the record against.

    `evidence` was kept outside the database. The newest cosignature of one of the `witnesses`, or timestamp of the
    time-stamping `authority` (its certificates), tells when a log was seen last. The newest anchored record may be
    older than the newest record by `stale_after`, and what is not anchored may span `tolerated_tail`.
    """

    evidence: Iterable[Evidence] = ()
    witnesses: Sequence[Verifier] = ()
    authority: Sequence[x509.Certificate] = ()
    stale_after: timedelta = timedelta(minutes=10)
    tolerated_tail: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A piece of evidence as it stands in the scratch file."""

    size: int
    root: bytes
    kind: str
    path: str
    note: str
    reply: bytes
    seq: int
    leaf: bytes | None


def keep_evidence(anchoring: Anchoring, scratch: Scratch, report: Report) -> None:
    """Put all of the evidence where it is found by log; there may be more of it than of the record."""
    report.cosigned = 0 if anchoring.witnesses else None
    for evidence in anchoring.evidence:
        report.anchors += 1
        checkpoint, receipt = evidence.checkpoint, evidence.receipt
        about = (checkpoint.origin, checkpoint.size, checkpoint.root, evidence.kind.value, str(evidence.path))
        leaf = (receipt.seq, receipt.leaf_hash) if receipt is not None else (-1, None)
        scratch.add("evidence", (*about, evidence.note, evidence.reply, *leaf))
    scratch.index("evidence", "log")


def take_evidence(log: LogCheck, anchoring: Anchoring, scratch: Scratch, report: Report) -> None:
    """What is known of a log outside, as far as its own key has signed it, before its records go by."""
    verifier = log.verifier()
    for kept in list(_evidence(scratch, log.origin)):
        note = parse_note(kept.note)
        if verifier is not None and is_signed_by(note, verifier):
            log.anchored.size = max(log.anchored.size, kept.size)
            _claim(scratch, log.origin, kept)
            cosigned = [at for witness in anchoring.witnesses if (at := cosigned_at(note, witness)) is not None]
            _count_cosignatures(note, cosigned, report)
            _take_sightings(log, kept, cosigned, anchoring)
        elif verifier is not None and kept.kind != Kind.RECEIPT:
            log.tell(found.KEY_REPLACED, f"{kept.path}: of size {kept.size}")
        elif verifier is not None or log.is_legacy:
            log.tell(found.ANCHOR_UNUSABLE, f"{kept.path}: of size {kept.size}, not signed by the log")


def claim_missing(logs: Mapping[str, LogCheck], scratch: Scratch, report: Report) -> None:
    """Logs that are known outside were in the database, whatever it says now."""
    certificates = [log.certificate for log in logs.values() if log.certificate is not None]
    clusters = {f"holdfast/{certificate.cluster}/" for certificate in certificates}
    for (name,) in list(scratch.select("SELECT DISTINCT log FROM evidence")):
        if name in logs:
            continue
        is_ours = not clusters or any(name.startswith(cluster) for cluster in clusters)
        keys = [certificate.verifier_for(name) for certificate in certificates if certificate.covers(name)]
        for kept in list(_evidence(scratch, name)):
            if not is_ours:
                report.add(found.ANCHOR_UNUSABLE, f"{kept.path}: another cluster's", name)
            elif kept.kind != Kind.RECEIPT or any(is_signed_by(parse_note(kept.note), key) for key in keys):
                _claim(scratch, name, kept)
            else:
                report.add(found.ANCHOR_UNUSABLE, f"{kept.path}: of a log that is not there, by an unknown key", name)


def check_anchoring(logs: Mapping[str, LogCheck], anchoring: Anchoring, scratch: Scratch) -> None:
    """Tell of what is not known outside, or not any more; call it when all claims are there."""
    scratch.index("claim", "source, seq")
    _spread(logs, scratch, lambda log: log.anchored)
    _spread(logs, scratch, lambda log: log.witnessed)
    _pin_legacy(logs, scratch)
    is_signed_for = any(log.certificate is not None and log.size for log in logs.values())
    for log in logs.values():
        if not log.size:
            continue
        if log.is_legacy:
            _check_legacy(log, is_signed_for=is_signed_for)
        elif not log.anchored.size:
            log.tell(found.NO_ANCHOR, f"{log.size} records")
        else:
            _check_tail(log, anchoring)
            _check_sightings(log, anchoring)


def _evidence(scratch: Scratch, log: str) -> Iterator[_Kept]:
    query = "SELECT size, root, kind, path, note, reply, seq, leaf FROM evidence WHERE log = ? ORDER BY size"
    for row in scratch.select(query, log):
        yield _Kept(*row)


def _claim(scratch: Scratch, log: str, kept: _Kept) -> None:
    kind = "receipt" if kept.kind == Kind.RECEIPT else "anchor"
    scratch.add("claim", (log, kept.size, kept.root, kind, kept.path, kept.seq, "", kept.leaf))


def _take_sightings(log: LogCheck, kept: _Kept, cosigned: Sequence[int], anchoring: Anchoring) -> None:
    for seen in _times_seen(log, kept, cosigned, anchoring):
        log.witnessed.size = max(log.witnessed.size, kept.size)
        log.last_seen = max(log.last_seen, seen)


def _count_cosignatures(note: Note, cosigned: Sequence[int], report: Report) -> None:
    if report.cosigned is not None:
        report.cosigned += bool(cosigned)
    else:
        report.unchecked += sum(is_cosignature(signature) for signature in note.signatures)


def _times_seen(log: LogCheck, kept: _Kept, cosigned: Sequence[int], anchoring: Anchoring) -> Iterator[float]:
    """Yield when somebody whom the auditor trusts for it saw this checkpoint, in Unix seconds."""
    yield from map(float, cosigned)
    if kept.kind == Kind.TIMESTAMP and anchoring.authority:
        try:
            yield verify_reply(kept.reply, kept.note, anchoring.authority).timestamp()
        except HoldfastError as error:
            log.tell(found.ANCHOR_UNUSABLE, f"{kept.path}: {error}")


def _spread(logs: Mapping[str, LogCheck], scratch: Scratch, reach_of: Callable[[LogCheck], Reach]) -> None:
    """A record that is known outside makes known what it says of other logs."""
    query = (
        "SELECT log, MAX(size), time FROM claim WHERE source = ? AND seq < ? "
        "AND kind IN ('start', 'peer', 'redact', 'drop') GROUP BY log"
    )
    waiting = [log for log in logs.values() if reach_of(log).size]
    while waiting:
        teller = waiting.pop()
        for name, size, time in list(scratch.select(query, teller.origin, reach_of(teller).size)):
            log = logs.get(name)
            if log is not None and reach_of(log).size < size <= log.size:
                _extend(reach_of(log), size, time)
                waiting.append(log)


def _extend(reach: Reach, size: int, time: str) -> None:
    reach.size, reach.time = size, max(reach.time, time)


def _pin_legacy(logs: Mapping[str, LogCheck], scratch: Scratch) -> None:
    """Of logs that nobody signed, the first signed one has told what they were like when it began.

    What a later record tells of them proves nothing: by then they may have been changed, or made up. Of one that was
    dropped, the record of that says all that is left to say.
    """
    sizes = _sizes_at_first(logs, scratch)
    for log in logs.values():
        if log.is_legacy:
            size = max(sizes.get(log.origin, 0), _size_dropped(log, logs, scratch) if log.is_dropped else 0)
            log.anchored = Reach(size if size <= log.size else 0)


def _sizes_at_first(logs: Mapping[str, LogCheck], scratch: Scratch) -> dict[str, int]:
    """The sizes of legacy logs that the very first signed log tells in its opening; none once that may be dropped.

    Days are dropped in their order, so of the logs that go on from nothing the first is dropped before any other.
    """
    beginners = [log for log in logs.values() if log.certificate is not None and log.origin.endswith(FIRST_EPOCH)]
    if any(log.is_dropped for log in beginners):
        return {}
    begun = [log for log in beginners if log.first_time and log.goes_on_from is None]
    if not begun:
        return {}
    first = min(begun, key=lambda log: log.first_time)
    query = "SELECT log, MAX(size) FROM claim WHERE source = ? AND seq <= ? AND kind = 'peer' GROUP BY log"
    return {name: size for name, size in scratch.select(query, first.origin, OPENING) if name.startswith(LEGACY)}


def _size_dropped(log: LogCheck, logs: Mapping[str, LogCheck], scratch: Scratch) -> int:
    """The size with which a log was dropped, as far as a record that is known outside says so."""
    query = "SELECT size, source, seq FROM claim WHERE log = ? AND kind = 'drop'"
    drops = scratch.select(query, log.origin)
    return max((size for size, source, seq in drops if seq < logs[source].anchored.size), default=0)


def _check_legacy(log: LogCheck, *, is_signed_for: bool) -> None:
    if log.anchored.size >= log.size:
        return
    if log.is_dropped or not is_signed_for:
        log.tell(found.UNSIGNED_LEGACY, f"{log.size} records")
    else:
        what = f"{log.size} records; the first signed log knows of {log.anchored.size}"
        log.tell(found.LEGACY_FOREIGN, what, log.anchored.size)


def _check_tail(log: LogCheck, anchoring: Anchoring) -> None:
    if log.anchored.size >= log.size:
        return
    behind = _span(log.anchored.time, log.last_time)
    if behind > anchoring.stale_after:
        log.tell(found.ANCHOR_STALE, f"the newest anchored record is {behind} older than the newest")
    if behind > anchoring.tolerated_tail or not anchoring.tolerated_tail or not log.anchored.time:
        log.tell(found.TAIL_UNANCHORED, f"{log.size - log.anchored.size} records", log.anchored.size)


def _check_sightings(log: LogCheck, anchoring: Anchoring) -> None:
    """Where the auditor trusts somebody to have seen the logs, somebody must have, and lately."""
    if not (anchoring.witnesses or anchoring.authority):
        return
    if log.witnessed.time and log.witnessed.size >= log.size:
        return  # a record of another log, seen itself, tells all of it
    if not log.witnessed.size:
        log.tell(found.UNSEEN, f"{log.size} records")
    elif log.last_seen and log.last_time:
        behind = datetime.fromisoformat(log.last_time).timestamp() - log.last_seen
        if behind > anchoring.stale_after.total_seconds():
            log.tell(found.ANCHOR_STALE, f"it was last seen {behind:.0f} s before its newest record")


def _span(earlier: str, later: str) -> timedelta:
    if not earlier or not later:
        return timedelta(0)
    return datetime.fromisoformat(later) - datetime.fromisoformat(earlier)
