"""What was claimed of each log at some size, held against the tree that its leaves make.

Claims come from the log's own checkpoints and its row, from records of other logs (which go on from it, saw it,
dropped it), and from outside. One pass over a log's leaf hashes, in order of size, answers all of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from holdfast.audit.logs import names_in_gap
from holdfast.audit.tree import EMPTY_ROOT, Frontier, RootHash
from holdfast.audit.verify import findings as found

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from holdfast.audit.tree import LeafHash
    from holdfast.audit.verify.findings import Report
    from holdfast.audit.verify.leaves import LogCheck
    from holdfast.audit.verify.scratch import Scratch

_SOURCES = {
    "row": "its row",
    "checkpoint": "its own checkpoint",
    "start": "the log that goes on from it",
    "peer": "another log",
    "redact": "a record of erasure",
    "drop": "a record of retention",
    "anchor": "an anchor",
    "receipt": "a caller's receipt",
}
_OWN = {"row", "checkpoint"}
_OUTSIDE = {"anchor", "receipt"}


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody says that a log had this root at this size.

    `seq` is the record of the log `source` that says so, or, of a receipt in the file `source`, the record that was
    receipted, and `leaf` its leaf hash.
    """

    size: int
    root: bytes
    kind: str
    source: str
    seq: int
    leaf: bytes | None

    @property
    def teller(self) -> str:
        """Who says so, as one of a few: the log, other logs, anchors or receipts."""
        if self.kind in _OWN:
            return "own"
        return self.kind if self.kind in _OUTSIDE else "log"

    def told(self) -> str:
        """Who says so."""
        if self.kind in _OWN:
            return _SOURCES[self.kind]
        where = self.source if self.kind in _OUTSIDE else f"record {self.seq} of {self.source}"
        return f"{_SOURCES[self.kind]} ({where})"


def check_roots(logs: Mapping[str, LogCheck], scratch: Scratch, report: Report) -> None:
    """Hold every claim against the trees; tell of logs that are claimed and not there."""
    scratch.index("claim", "log, size")
    after_gap = [log for log in logs.values() if log.gap]
    for log in logs.values():
        _check_log(log, scratch, _describe_gap(log.origin, log.size, after_gap))
    for (name,) in scratch.select("SELECT DISTINCT log FROM claim"):
        if name not in logs:
            first = next(_claims(scratch, name))
            what = f"{first.told()} had seen {first.size} records of it{_describe_gap(name, 0, after_gap)}"
            report.add(found.LOG_MISSING, what, name)


def _describe_gap(name: str, size: int, after_gap: Sequence[LogCheck]) -> str:
    """Name the log whose first record says that a database was gone on with which had no more of this log."""
    for log in after_gap:
        before = log.goes_on_from
        goes_on = before is not None and (before.log, before.size) == (name, size)
        if goes_on or (not size and names_in_gap(log.gap, name)):
            return f"; see the gap that {log.origin} begins with"
    return ""


def _claims(scratch: Scratch, log: str) -> Iterator[Claim]:
    query = "SELECT size, root, kind, source, seq, leaf FROM claim WHERE log = ? ORDER BY size"
    for row in scratch.select(query, log):
        yield Claim(*row)


class _Tree:
    """A log's tree while it grows again."""

    def __init__(self, hashes: Iterator[LeafHash]) -> None:
        self._hashes = hashes
        self._frontier = Frontier()
        self._root: RootHash = EMPTY_ROOT

    def root_at(self, size: int) -> RootHash:
        """The root at this size, which is not below the one asked for before."""
        if size != self._frontier.size:
            self._frontier.extend(islice(self._hashes, size - self._frontier.size))
            self._root = self._frontier.root()
        return self._root


def _check_log(log: LogCheck, scratch: Scratch, gap: str) -> None:
    tree = _Tree(scratch.read_hashes(log.line.id))
    good, is_broken = 0, False
    beyond: dict[str, Claim] = {}
    tellers: Counter[str] = Counter()
    for claim in _claims(scratch, log.origin):
        if claim.size > log.size:
            beyond[claim.teller] = claim  # the largest comes last
            tellers[claim.teller] += 1
            holds = False
        else:
            holds = tree.root_at(claim.size) == claim.root
        if holds and claim.kind == "checkpoint":
            good = claim.size
        elif claim.kind == "checkpoint" and claim.size <= log.size and not is_broken:
            is_broken = True
            log.tell(found.LEAF_ALTERED, f"between records {good} and {claim.size - 1}", good)
        elif not holds and claim.size <= log.size:
            _tell_mismatch(log, claim)
        if claim.leaf is not None:
            _check_receipt(log, claim, holds, scratch)
    for teller, claim in beyond.items():
        _tell_truncated(log, claim, tellers[teller] - 1, gap)


def _tell_truncated(log: LogCheck, largest: Claim, others: int, gap: str) -> None:
    """Every checkpoint, anchor or peer since then knows that the log was longer; one of each sort says how long."""
    more = f" (more of this sort that know of more than {log.size}: {others})" if others else ""
    log.tell(found.TRUNCATED, f"it has {log.size} records; {largest.told()} knows of {largest.size}{more}{gap}")


def _tell_mismatch(log: LogCheck, claim: Claim) -> None:
    if claim.kind == "row":
        log.tell(found.LOG_ALTERED, f"its row has the root of other records than the {log.size} that it has")
    elif claim.kind != "checkpoint":
        log.tell(found.FORKED, f"at size {claim.size} it is not what {claim.told()} knows")


def _check_receipt(log: LogCheck, claim: Claim, holds: bool, scratch: Scratch) -> None:
    """The checkpoint of a receipt is signed by the log; the leaf hash beside it is the caller's word."""
    is_there = scratch.read_hash(log.line.id, claim.seq) == claim.leaf
    if not holds and not is_there:
        log.tell(found.RECEIPT_BROKEN, claim.source, claim.seq)
    elif not is_there:
        log.tell(found.ANCHOR_UNUSABLE, f"{claim.source}: its checkpoint is not of the record that it names", claim.seq)
