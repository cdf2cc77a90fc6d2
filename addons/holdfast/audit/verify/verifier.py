"""The order of verifying: the export's lines, then the trees, then what reached outside the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from cryptography import x509

from holdfast.audit.anchors.evidence import Evidence, Kind
from holdfast.audit.anchors.timestamp import verify_reply
from holdfast.audit.callers import caller_claims, caller_id
from holdfast.audit.checkpoint import Checkpoint, cosigned_at, parse_checkpoint
from holdfast.audit.export import (
    FORMAT,
    BlobLine,
    CallerLine,
    CheckpointLine,
    ContentLine,
    EndLine,
    Header,
    LeafHashesLine,
    LogLine,
    RecordLine,
)
from holdfast.audit.note import Verifier, is_signed_by
from holdfast.audit.payload import PIECE_BYTES, decompress
from holdfast.audit.verify import findings as found
from holdfast.audit.verify.findings import LogSummary, Report
from holdfast.audit.verify.leaves import LogCheck, Shared
from holdfast.audit.verify.roots import check_roots
from holdfast.audit.verify.scratch import Scratch
from holdfast.errors import ConfigurationError, HoldfastError, Internal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.audit.export import Line
    from holdfast.audit.keys import Certificate

LEGACY_PIECE_BYTES = 1 << 30
"""Bodies from before they were cut were kept whole."""


@dataclass(frozen=True, slots=True)
class Anchoring:
    """What the auditor holds the record against.

    `evidence` was kept outside the database. The newest cosignature of one of the `witnesses`, or timestamp of the
    time-stamping `authority` (its certificates), tells when a log was seen last. The newest anchored record may be
    older than the newest record by `stale_after`, and what is not anchored may span `tolerated_tail`.
    """

    evidence: Sequence[Evidence] = ()
    witnesses: Sequence[Verifier] = ()
    authority: Sequence[x509.Certificate] = ()
    stale_after: timedelta = timedelta(minutes=10)
    tolerated_tail: timedelta = timedelta(0)


@dataclass(slots=True)
class _State:
    shared: Shared
    anchoring: Anchoring
    logs: dict[int, LogCheck] = field(default_factory=dict)
    current: LogCheck | None = None
    with_payloads: bool = True
    ended: bool = False

    def by_origin(self) -> dict[str, LogCheck]:
        """The logs by their names."""
        return {log.origin: log for log in self.logs.values()}


def verify_lines(lines: Iterable[Line], root: Verifier, anchoring: Anchoring) -> Report:
    """Verify an export, line by line, in memory that does not grow with it.

    Raises ConfigurationError when the lines are no whole export of this format.
    """
    report = Report()
    with Scratch() as scratch:
        state = _State(Shared(report, scratch, root), anchoring)
        for line in _after_header(lines, state):
            _check_line(line, state)
        if not state.ended:
            raise ConfigurationError("the export was cut: it has no end; export it again.")
        _claim_anchors(state)
        check_roots(state.by_origin(), scratch, report)
        _check_drops(state)
        _check_payloads(state)
        _check_callers(state)
        _check_repeated(state)
        _check_anchoring(state)
    report.logs = [LogSummary(log.origin, log.size, log.anchored_size, log.is_closed) for log in state.logs.values()]
    return report


def _after_header(lines: Iterable[Line], state: _State) -> Iterator[Line]:
    iterator = iter(lines)
    header = next(iterator, None)
    if not isinstance(header, Header) or header.format != FORMAT:
        raise ConfigurationError(f"this is not an export of the format {FORMAT}.")
    for table, kind in header.tables.items():
        if kind != "table":
            state.shared.report.add(found.TABLE_REPLACED, f"{table}: found {kind}, expected a table of its own")
    state.with_payloads = header.payloads
    return iterator


def _check_line(line: Line, state: _State) -> None:
    if state.ended:
        raise ConfigurationError("the export goes on after its end.")
    match line:
        case RecordLine():
            _current(state).check_record(line)
        case BlobLine():
            _check_blob(line, state)
        case CheckpointLine():
            _current(state).check_checkpoint(line)
        case LeafHashesLine():
            _current(state).check_leaf_hashes(line)
        case CallerLine():
            _end_content(state)
            _check_caller(line, state.shared)
        case LogLine():
            _add_log(line, state)
        case ContentLine():
            _end_content(state)
            if line.log not in state.logs:
                raise ConfigurationError(f"the export has content of a log {line.log} that it does not describe.")
            state.current = state.logs[line.log]
        case EndLine():
            _end_content(state)
            _check_counts(line, state.shared)
            state.ended = True
        case _:
            raise ConfigurationError("the export has two headers.")


def _current(state: _State) -> LogCheck:
    if state.current is None:
        raise ConfigurationError("the export has content that belongs to no log.")
    return state.current


def _end_content(state: _State) -> None:
    if state.current is not None:
        state.current.finish()
        state.current = None


def _add_log(line: LogLine, state: _State) -> None:
    shared = state.shared
    shared.rows["logs"] += 1
    if any(log.origin == line.origin for log in state.logs.values()):
        shared.report.add(found.LOG_REPEATED, f"logs {line.id} and others", line.origin)
    log = state.logs[line.id] = LogCheck(line, shared)
    if log.is_dropped:
        shared.dropped_days.add(line.day)
    for checkpoint, evidence in _anchored(log, state.anchoring):
        log.anchored_size = max(log.anchored_size, checkpoint.size)
        log.last_seen = max(log.last_seen, *_times_seen(log, evidence, state.anchoring), 0.0)


def _times_seen(log: LogCheck, evidence: Evidence, anchoring: Anchoring) -> Iterator[float]:
    """Yield when somebody whom the auditor trusts for it saw this checkpoint, in Unix seconds."""
    note = parse_checkpoint(evidence.note)[1]
    yield from (cosigned_at(note, witness) or 0.0 for witness in anchoring.witnesses)
    if evidence.kind is Kind.TIMESTAMP and anchoring.authority:
        try:
            yield verify_reply(evidence.reply, evidence.note, anchoring.authority).timestamp()
        except HoldfastError as error:
            log.tell(found.ANCHOR_UNUSABLE, f"{evidence.path}: {error}")


def _anchored(log: LogCheck, anchoring: Anchoring) -> Iterator[tuple[Checkpoint, Evidence]]:
    """Yield the evidence of this log that its key has signed."""
    verifier = log.verifier()
    for evidence in anchoring.evidence:
        if verifier is not None and evidence.checkpoint.origin == log.origin:
            if is_signed_by(parse_checkpoint(evidence.note)[1], verifier):
                yield evidence.checkpoint, evidence
            else:
                log.tell(found.ANCHOR_UNUSABLE, f"{evidence.path}: size {evidence.checkpoint.size}")


def _claim_anchors(state: _State) -> None:
    """What was anchored is claimed; of logs that are not there, whatever key signed it."""
    shared, logs = state.shared, state.by_origin()
    certificates = [log.certificate for log in logs.values() if log.certificate is not None]
    for evidence in state.anchoring.evidence:
        shared.report.anchors += 1
        checkpoint = evidence.checkpoint
        log = logs.get(checkpoint.origin)
        if log is None and not _may_be_ours(checkpoint, certificates):
            shared.report.add(found.ANCHOR_UNUSABLE, f"{evidence.path}: another cluster's", checkpoint.origin)
        elif log is None or ((own := log.verifier()) and is_signed_by(parse_checkpoint(evidence.note)[1], own)):
            row = (checkpoint.origin, checkpoint.size, checkpoint.root, "anchor", str(evidence.path), -1)
            shared.scratch.add("claim", row)
        if log is not None and evidence.receipt is not None:
            kept = shared.scratch.read_hash(log.line.id, evidence.receipt.seq)
            if kept != evidence.receipt.leaf_hash:
                log.tell(found.RECEIPT_BROKEN, f"{evidence.path}", evidence.receipt.seq)


def _may_be_ours(checkpoint: Checkpoint, certificates: Sequence[Certificate]) -> bool:
    clusters = {f"holdfast/{certificate.cluster}/" for certificate in certificates}
    return not clusters or any(checkpoint.origin.startswith(cluster) for cluster in clusters)


def _check_blob(line: BlobLine, state: _State) -> None:
    shared = state.shared
    _end_content(state)
    shared.rows["blobs"] += 1
    shared.report.payloads += 1
    if not shared.scratch.take_needed(line.day, line.sha256):
        shared.report.add(found.ROWS_FOREIGN, f"no record refers to payload {line.day}/{line.sha256}")
    if line.body is None:
        shared.report.add(found.BLOB_ALTERED, f"payload {line.day}/{line.sha256} is not in the object store")
        return
    try:
        content = decompress(line.codec, line.body, max(PIECE_BYTES, min(line.size, LEGACY_PIECE_BYTES)))
    except Internal as error:
        shared.report.add(found.BLOB_ALTERED, f"payload {line.day}/{line.sha256}: {error}")
        return
    if (sha256(content).hexdigest(), len(content)) != (line.sha256, line.size):
        shared.report.add(found.BLOB_ALTERED, f"payload {line.day}/{line.sha256} has other bytes")


def _check_caller(line: CallerLine, shared: Shared) -> None:
    shared.rows["callers"] += 1
    shared.rows["caller_claims"] += len(line.claims)
    shared.scratch.take_caller(line.id)
    try:
        claims = msgspec.json.decode(line.caller).get("claims", {})
        expected = sorted(caller_claims(claims))
    except (msgspec.MsgspecError, AttributeError, TypeError):
        shared.report.add(found.CALLER_ALTERED, f"caller {line.id} cannot be read")
        return
    if caller_id(line.caller) != line.id or sorted(line.claims) != expected:
        shared.report.add(found.CALLER_ALTERED, f"caller {line.id} is not what it is indexed as")


def _check_counts(line: EndLine, shared: Shared) -> None:
    """Rows that belong to nothing were not exported with anything, and show here."""
    for table, rows in line.rows.items():
        if table != "blobs" and rows != shared.rows[table]:
            shared.report.add(found.ROWS_FOREIGN, f"{table} has {rows} rows, {shared.rows[table]} belong to the record")


def _check_drops(state: _State) -> None:
    """A log may only be dropped when a record says so, with its size and root."""
    logs = state.by_origin()
    query = "SELECT log, MAX(size) FROM claim WHERE kind = 'drop' GROUP BY log"
    recorded = {log: size for log, size in state.shared.scratch.select(query)}  # noqa: C416  typed so
    for log in logs.values():
        if log.is_dropped and recorded.get(log.origin) != log.size:
            log.tell(found.DROPPED_UNRECORDED, f"on {log.line.dropped_at}")


def _check_payloads(state: _State) -> None:
    report, scratch = state.shared.report, state.shared.scratch
    if not state.with_payloads:
        report.add(found.PAYLOADS_LEFT_OUT, "export them to verify them")
    else:
        for day, digest, log, seq in scratch.select("SELECT day, sha256, log, seq FROM needed ORDER BY log, seq"):
            report.add(found.PAYLOAD_MISSING, f"payload {day}/{digest} is not there", log, seq)
    missing = "SELECT log, place FROM gone EXCEPT SELECT log, place FROM erased"
    for log, place in scratch.select(missing):
        report.add(found.PAYLOAD_MISSING, f"the body {place} is not there", log, int(place.split("/")[0]))
    erased = "SELECT log, place FROM gone INTERSECT SELECT log, place FROM erased"
    for log, place in scratch.select(erased):
        report.add(found.PAYLOAD_ERASED, f"the body {place}", log, int(place.split("/")[0]))


def _check_callers(state: _State) -> None:
    for (caller,) in state.shared.scratch.select("SELECT id FROM caller"):
        state.shared.report.add(found.CALLER_ALTERED, f"caller {caller} is not there")


def _check_repeated(state: _State) -> None:
    for call, log, seq in state.shared.repeated.values():
        state.shared.report.add(found.CALL_ALTERED, f"call {call} is listed as another record tells it", log, seq)


def _check_anchoring(state: _State) -> None:
    """What reached outside, by itself or through a later log that names it."""
    logs = state.by_origin()
    _anchor_through_others(logs, state.shared.scratch)
    for log in logs.values():
        if not log.size:
            continue
        if log.is_legacy:
            if log.anchored_size < log.size:
                log.tell(found.UNSIGNED_LEGACY, f"{log.size} records")
        elif not log.anchored_size:
            log.tell(found.NO_ANCHOR, f"{log.size} records")
        elif log.anchored_size < log.size:
            _check_tail(log, state.anchoring)
        _check_last_seen(log, state.anchoring)


def _anchor_through_others(logs: dict[str, LogCheck], scratch: Scratch) -> None:
    """A record that is anchored itself anchors what it says of other logs."""
    query = "SELECT log, size, source, seq FROM claim WHERE kind IN ('start', 'peer', 'redact', 'drop')"
    claims = list(scratch.select(query))
    moved = True
    while moved:
        moved = False
        for name, size, source, seq in claims:
            log, teller = logs.get(name), logs[source]
            reaches = teller.anchored_size > seq or (log is not None and log.is_legacy)
            if log is not None and reaches and log.anchored_size < size <= log.size:
                log.anchored_size, moved = size, True


def _check_tail(log: LogCheck, anchoring: Anchoring) -> None:
    behind = _span(log.anchored_time, log.last_time)
    if behind > anchoring.stale_after:
        log.tell(found.ANCHOR_STALE, f"the newest anchored record is {behind} older than the newest")
    if behind > anchoring.tolerated_tail or not anchoring.tolerated_tail or not log.anchored_time:
        log.tell(found.TAIL_UNANCHORED, f"{log.size - log.anchored_size} records", log.anchored_size)


def _check_last_seen(log: LogCheck, anchoring: Anchoring) -> None:
    if not log.last_seen or not log.last_time:
        return
    behind = datetime.fromisoformat(log.last_time).timestamp() - log.last_seen
    if behind > anchoring.stale_after.total_seconds():
        log.tell(found.ANCHOR_STALE, f"it was last seen {behind:.0f} s before its newest record")


def _span(earlier: str, later: str) -> timedelta:
    if not earlier or not later:
        return timedelta(0)
    return datetime.fromisoformat(later) - datetime.fromisoformat(earlier)
