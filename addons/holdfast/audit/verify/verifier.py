"""The order of verifying: what was kept outside, the export's lines, then the trees and what hangs on them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.audit.export import (
    FORMAT,
    TABLES,
    BlobLine,
    CheckpointLine,
    ContentLine,
    EndLine,
    Header,
    LeafHashesLine,
    LogLine,
)
from holdfast.audit.verify import findings as found
from holdfast.audit.verify.anchored import Anchoring, check_anchoring, claim_missing, keep_evidence, take_evidence
from holdfast.audit.verify.chains import check_chains
from holdfast.audit.verify.dropped import check_dropped
from holdfast.audit.verify.examine import (
    ExaminedBlob,
    ExaminedCaller,
    ExaminedCheckpoint,
    ExaminedRecord,
    ExaminedStretch,
    examine,
)
from holdfast.audit.verify.findings import LogSummary, Report
from holdfast.audit.verify.leaves import LogCheck, Shared
from holdfast.audit.verify.payloads import Callers, Payloads
from holdfast.audit.verify.roots import check_roots
from holdfast.audit.verify.scratch import Scratch
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from holdfast.audit.export import Line
    from holdfast.audit.note import Verifier
    from holdfast.audit.verify.examine import Examined

ROOTS_TOLD = 3
_SEQ = re.compile("[0-9]{1,18}")
_ON_RECORD = (
    "SELECT log, place, why FROM (SELECT log, place, MIN(redaction) AS id FROM erased "
    "WHERE (log, place) {} (SELECT log, place FROM gone) GROUP BY log, place) JOIN redaction USING (id) "
    "ORDER BY log, place"
)


@dataclass(slots=True)
class _State:
    shared: Shared
    anchoring: Anchoring
    current: LogCheck | None = None
    callers: Callers | None = None
    payloads: Payloads | None = None
    ended: bool = False

    def by_origin(self) -> dict[str, LogCheck]:
        """The logs by their names."""
        return {log.origin: log for log in self.shared.logs.values()}


def verify_lines(lines: Iterable[Line | Examined], root: Verifier, anchoring: Anchoring) -> Report:
    """Verify an export, line by line, in memory that does not grow with it; lines may have been examined already.

    Raises ConfigurationError when the lines are no whole export of this format.
    """
    report = Report()
    with Scratch() as scratch:
        state = _State(Shared(report, scratch, root), anchoring)
        keep_evidence(anchoring, scratch, report)
        for line in _after_header(lines, state):
            _check_line(examine(line, {}), state)
        if not state.ended:
            raise ConfigurationError("the export was cut: it has no end; export it again.")
        logs = state.by_origin()
        claim_missing(logs, scratch, report)
        check_roots(logs, scratch, report)
        check_chains(logs.values())
        check_dropped(logs.values(), state.shared.drops)
        if roots := _foreign_roots(logs.values()):
            _tell_foreign(roots, root, report)
        else:
            _check_unlisted(state)
            _check_gone(state)
            check_anchoring(logs, anchoring, scratch)
    report.logs = [
        LogSummary(log.origin, log.size, log.anchored.size, bool(log.closed_at)) for log in state.shared.logs.values()
    ]
    return report


def _foreign_roots(logs: Iterable[LogCheck]) -> list[str]:
    """The IDs of the keys that certify the signed logs, when there are some and the given root certifies none."""
    foreign = [log.foreign_root for log in logs if not log.is_legacy]
    return list(dict.fromkeys(foreign)) if all(foreign) else []


def _tell_foreign(roots: Sequence[str], root: Verifier, report: Report) -> None:
    """Tell it once, in the place of all that follows from believing no log: neither its checkpoints nor its records.

    Somebody who has put other certificates into all logs looks the same, so it is as grave.
    """
    report.leave_out((found.CERTIFICATE_BAD, found.UNSIGNED_TAIL, found.DROPPED_UNRECORDED))
    others = f" and {len(roots) - ROOTS_TOLD} more" if len(roots) > ROOTS_TOLD else ""
    what = (
        f"these logs are certified by another root (ID {', '.join(roots[:ROOTS_TOLD])}{others}) than the one given "
        f"(ID {root.key_id.hex()}): is --root the right root.pub?"
    )
    report.add(found.ROOT_FOREIGN, what)


def _after_header(lines: Iterable[Line | Examined], state: _State) -> Iterator[Line | Examined]:
    iterator = iter(lines)
    header = next(iterator, None)
    if not isinstance(header, Header) or header.format != FORMAT or set(header.tables) != set(TABLES):
        raise ConfigurationError(f"this is not an export of the format {FORMAT}.")
    for table, kind in header.tables.items():
        if kind != "table":
            state.shared.report.add(found.TABLE_REPLACED, f"{table}: found {kind}, expected a table of its own")
    state.shared.with_payloads = header.payloads
    return iterator


def _check_line(line: Line | Examined, state: _State) -> None:
    if state.ended:
        raise ConfigurationError("the export goes on after its end.")
    match line:
        case ExaminedStretch():
            _current(state).check_stretch(line)
        case ExaminedRecord():
            _current(state).check_record(line)
        case CheckpointLine() | ExaminedCheckpoint():
            _current(state).check_checkpoint(line)
        case BlobLine() | ExaminedBlob():
            _check_blob(line, state)
        case LeafHashesLine():
            _current(state).check_leaf_hashes(line)
        case ExaminedCaller():
            _check_caller(line, state)
        case LogLine():
            _add_log(line, state)
        case ContentLine():
            _begin_content(line, state)
        case EndLine():
            _end(line, state)
        case _:
            raise ConfigurationError("the export has two headers.")


def _current(state: _State) -> LogCheck:
    if state.current is None:
        raise ConfigurationError("the export has content that belongs to no log.")
    return state.current


def _add_log(line: LogLine, state: _State) -> None:
    shared = state.shared
    shared.rows["logs"] += 1
    if line.id in shared.logs or line.origin in shared.origins:
        shared.report.add(found.LOG_REPEATED, f"logs {line.id} and another", line.origin)
    shared.origins.add(line.origin)
    log = shared.logs[line.id] = LogCheck(line, shared)
    take_evidence(log, state.anchoring, shared.scratch, shared.report)


def _begin_content(line: ContentLine, state: _State) -> None:
    _end_content(state)
    if line.log not in state.shared.logs or state.callers is not None:
        raise ConfigurationError(f"the export has content of a log {line.log} where none was to come.")
    state.current = state.shared.logs[line.log]


def _end_content(state: _State) -> None:
    if state.current is not None:
        state.current.finish()
        state.current = None


def _check_caller(line: ExaminedCaller, state: _State) -> None:
    state.shared.rows["callers"] += 1
    state.shared.rows["caller_claims"] += line.claims
    _begin_callers(state).check(line)


def _begin_callers(state: _State) -> Callers:
    if state.callers is None:
        _end_content(state)
        shared = state.shared
        has_dropped = any(log.is_dropped for log in shared.logs.values())
        state.callers = Callers(shared.scratch, shared.report, all_are_named=not has_dropped)
    return state.callers


def _check_blob(line: BlobLine | ExaminedBlob, state: _State) -> None:
    if not state.shared.with_payloads:
        raise ConfigurationError("the export has payloads, and says at its beginning that it has none.")
    state.shared.rows["blobs"] += 1
    _begin_payloads(state).check(line)


def _begin_payloads(state: _State) -> Payloads:
    if state.payloads is None:
        _begin_callers(state).finish()
        state.payloads = Payloads(state.shared.scratch, state.shared.report)
    return state.payloads


def _end(line: EndLine, state: _State) -> None:
    payloads = _begin_payloads(state)
    if state.shared.with_payloads:
        payloads.finish()
    else:
        state.shared.report.add(found.PAYLOADS_LEFT_OUT, "export them to verify them")
    _check_counts(line, state)
    state.ended = True


def _check_counts(line: EndLine, state: _State) -> None:
    """Rows that belong to nothing were not exported with anything, and show here."""
    if set(line.rows) != set(TABLES):
        raise ConfigurationError("the end of the export does not speak of every table.")
    for table, rows in sorted(line.rows.items()):
        found_rows = state.shared.rows[table]
        if rows != found_rows and (table != "blobs" or state.shared.with_payloads):
            state.shared.report.add(found.ROWS_FOREIGN, f"{table} has {rows} rows, {found_rows} belong to the record")


def _check_unlisted(state: _State) -> None:
    """A call may only be missing from the list when the day on which it arrived was dropped."""
    dropped_days = {log.dropped_day for log in state.shared.logs.values() if log.dropped_day}
    for day, call, log, seq in state.shared.scratch.select("SELECT day, call, log, seq FROM unlisted"):
        if day not in dropped_days:
            state.shared.report.add(found.CALL_MISSING, f"call {call} is not listed", log, seq)


def _check_gone(state: _State) -> None:
    """A body may only be gone when a record says that it was erased, and then it is."""
    whole = {log.origin for log in state.shared.logs.values() if not log.is_dropped}
    for code, query in (
        (found.PAYLOAD_MISSING, "SELECT log, place, '' FROM gone EXCEPT SELECT log, place, '' FROM erased"),
        (found.PAYLOAD_ERASED, _ON_RECORD.format("IN")),
        (found.ERASURE_UNFINISHED, _ON_RECORD.format("NOT IN")),
    ):
        for log, place, why in state.shared.scratch.select(query):
            if code is not found.ERASURE_UNFINISHED or log in whole:
                by = f", {why}" if why else ""
                state.shared.report.add(code, f"the body {place}{by}", log, _seq(place))


def _seq(place: str) -> int | None:
    """The record that a place names; a record of erasure may name anything."""
    seq = place.partition("/")[0]
    return int(seq) if _SEQ.fullmatch(seq) else None
