"""What was claimed of each log at some size, held against the tree that its leaves make.

Claims come from the log's own checkpoints, from records of other logs (which go on from it, saw it, dropped it), and
from outside. One pass over a log's leaf hashes, in order of size, answers all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.audit.tree import Frontier
from holdfast.audit.verify import findings as found

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdfast.audit.verify.findings import Report
    from holdfast.audit.verify.leaves import LogCheck
    from holdfast.audit.verify.scratch import Scratch

_SOURCES = {
    "checkpoint": "its own checkpoint",
    "start": "the log that goes on from it",
    "peer": "another log",
    "redact": "a record of erasure",
    "drop": "a record of retention",
    "anchor": "an anchor",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody says that a log had this root at this size; `seq` is the record of `source` that says so."""

    log: str
    size: int
    root: bytes
    kind: str
    source: str
    seq: int

    def told(self) -> str:
        """Who says so."""
        where = f" ({self.source})" if self.kind == "anchor" else f" (record {self.seq} of {self.source})"
        return _SOURCES[self.kind] + ("" if self.kind == "checkpoint" else where)


def check_roots(logs: Mapping[str, LogCheck], scratch: Scratch, report: Report) -> None:
    """Hold every claim against the trees; tell of logs that are claimed and not there."""
    for log in logs.values():
        _check_log(log, scratch)
    query = "SELECT DISTINCT log FROM claim ORDER BY log"
    for (name,) in scratch.select(query):
        if name not in logs:
            first = next(_claims(scratch, name))
            report.add(found.LOG_MISSING, f"{first.told()} had seen {first.size} records of it", str(name))


def _claims(scratch: Scratch, log: str) -> Iterator[Claim]:
    query = "SELECT log, size, root, kind, source, seq FROM claim WHERE log = ? ORDER BY size"
    for row in list(scratch.select(query, log)):
        yield Claim(*row)


def _check_log(log: LogCheck, scratch: Scratch) -> None:
    tree, hashes = Frontier(), scratch.read_hashes(log.line.id)
    good, is_broken = 0, False
    for claim in _claims(scratch, log.origin):
        if claim.size > log.size:
            log.tell(found.TRUNCATED, f"it has {log.size} records; {claim.told()} knows of {claim.size}")
            continue
        while tree.size < claim.size:
            tree.add(next(hashes))
        if tree.root() == claim.root:
            good = claim.size
        elif claim.kind != "checkpoint":
            log.tell(found.FORKED, f"at size {claim.size} it is not what {claim.told()} knows")
        elif not is_broken:
            is_broken = True
            log.tell(found.LEAF_ALTERED, f"between records {good} and {claim.size - 1}", good)
