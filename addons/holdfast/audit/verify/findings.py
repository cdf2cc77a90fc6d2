"""What verifying can find, how grave it is, and the report.

A finding has a class, which decides the exit code, and a code of its own, which says what was found and is stable.
The report keeps the first `KEPT` of each code and counts the rest.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

KEPT = 100


class Class(enum.IntEnum):
    """The classes, the gravest first; the values are the exit codes of `holdfast audit verify`."""

    INTACT = 0
    ALTERED = 10
    UNANCHORED = 11
    STALE = 12
    CLOCK = 13
    INCOMPLETE = 14
    REDACTED = 15


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of finding: its class, its stable name, and what it means."""

    grade: Class
    name: str
    meaning: str


def _altered(name: str, meaning: str) -> Code:
    return Code(Class.ALTERED, name, meaning)


TABLE_REPLACED = _altered("table-replaced", "a table is missing, or something else stands in its place")
ROWS_FOREIGN = _altered("rows-foreign", "a table holds rows that belong to nothing in the record")
LEAF_TYPE = _altered("leaf-type", "a leaf is not kept as bytes")
LEAF_SPELLING = _altered("leaf-spelling", "a leaf's bytes are not those of any record")
LEAF_PLACE = _altered("leaf-place", "a leaf names another log, place or predecessor than it has")
LEAF_ALTERED = _altered("leaf-altered", "the records are not those that a checkpoint was signed for")
LEAF_MISSING = _altered("leaf-missing", "a record is not there")
COLUMN_ALTERED = _altered("column-altered", "a column differs from what the leaf says")
CALL_ALTERED = _altered("call-altered", "a call is listed otherwise than its records say")
CALL_MISSING = _altered("call-missing", "a call is not listed")
OUTCOME_REPEATED = _altered("outcome-repeated", "a call has more than one outcome")
CALLER_ALTERED = _altered("caller-altered", "a caller is missing, or indexed otherwise than the records say")
BODY_ALTERED = _altered("body-altered", "the pieces of a body are not those that its leaf commits to")
BLOB_ALTERED = _altered("blob-altered", "a payload is not what its name says")
PAYLOAD_MISSING = _altered("payload-missing", "a body is gone, and no record says that it was erased")
CERTIFICATE_BAD = _altered("certificate-bad", "a log's key is not certified for it by the root")
ROOT_FOREIGN = _altered("root-foreign", "no log is certified by the root that was given")
CERTIFICATE_EXPIRED = _altered("certificate-expired", "a log was signed at a time for which its key is not certified")
CHECKPOINT_BAD = _altered("checkpoint-bad", "a checkpoint carries no good signature of its log, or is another log's")
UNSIGNED_TAIL = _altered("unsigned-tail", "a log goes on beyond its last checkpoint")
LOG_ALTERED = _altered("log-altered", "a log is described otherwise than it is")
LOG_MISSING = _altered("log-missing", "a log that was seen is not there")
LOG_REPEATED = _altered("log-repeated", "two logs have one name")
TRUNCATED = _altered("truncated", "a log is shorter than it was")
FORKED = _altered("forked", "a log has, or had, other records than were seen")
CHAIN_BROKEN = _altered("chain-broken", "a log does not go on from the one before it as it says")
DROPPED_UNRECORDED = _altered("dropped-unrecorded", "a log was dropped, and no record says so")
DROPPED_EARLY = _altered("dropped-early", "a log was dropped before it, or its day, was over")
KEY_REPLACED = _altered("key-replaced", "a log's anchored checkpoint is signed by another key than the log now has")
LEGACY_FOREIGN = _altered("legacy-foreign", "a log that nobody signed was not there, or not so, when logs began to be")
RECEIPT_BROKEN = _altered("receipt-broken", "a caller's receipt is for a record that is not there")

NO_ANCHOR = Code(Class.UNANCHORED, "no-anchor", "no checkpoint of a log is known from outside the database")
ANCHOR_UNUSABLE = Code(Class.UNANCHORED, "anchor-unusable", "what was kept outside proves nothing of the record")
UNSEEN = Code(Class.UNANCHORED, "unseen", "no witness or authority that the auditor trusts has seen a log")
TAIL_UNANCHORED = Code(Class.UNANCHORED, "tail-unanchored", "records were added after a log's last anchored checkpoint")
UNSIGNED_LEGACY = Code(
    Class.UNANCHORED, "unsigned-legacy", "a log from before logs were signed, pinned by no signed one"
)
ANCHOR_STALE = Code(Class.STALE, "anchor-stale", "the newest anchored checkpoint is older than it should be")
CLOCK_STEPPED = Code(Class.CLOCK, "clock-stepped", "the wall clock was set while a gateway ran")
CLOCK_BACK = Code(Class.CLOCK, "clock-back", "a record is older than the one before it")
OUTCOME_MISSING = Code(Class.INCOMPLETE, "outcome-missing", "a call was begun, and how it ended is not known")
GAP = Code(Class.INCOMPLETE, "gap", "a gateway went on although the database was not as it had left it")
ERASURE_UNFINISHED = Code(
    Class.INCOMPLETE, "erasure-unfinished", "a body is still there, and a record says that it was to be erased"
)
PAYLOAD_ERASED = Code(Class.REDACTED, "payload-erased", "a body was erased, and a record says by whom and why")
LOG_DROPPED = Code(Class.REDACTED, "log-dropped", "a log was dropped by retention; its leaf hashes are kept")
PAYLOADS_LEFT_OUT = Code(Class.REDACTED, "payloads-left-out", "the export holds no payloads, so none was looked at")

CODES = {code.name: code for code in list(globals().values()) if isinstance(code, Code)}
"""Every kind of finding, by its name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: of which kind, in which log and at which record, where that can be said."""

    code: Code
    what: str
    log: str = ""
    seq: int | None = None


@dataclass(slots=True)
class LogSummary:
    """One log as verified."""

    origin: str
    size: int
    anchored_size: int = 0
    closed: bool = False


@dataclass(slots=True)
class Report:
    """What was looked at, and what was found.

    Of the `anchors`, `cosigned` are cosigned by a witness that the auditor named; where none was named, that is None,
    and `unchecked` is how many cosignatures they carry all the same.
    """

    logs: list[LogSummary] = field(default_factory=list)
    leaves: int = 0
    checkpoints: int = 0
    payloads: int = 0
    anchors: int = 0
    cosigned: int | None = None
    unchecked: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    classes: set[Class] = field(default_factory=set)

    def add(self, code: Code, what: str, log: str = "", seq: int | None = None) -> None:
        """Take in a finding."""
        self.counts[code.name] += 1
        self.classes.add(code.grade)
        if self.counts[code.name] <= KEPT:
            self.findings.append(Finding(code, what, log, seq))

    def leave_out(self, codes: Collection[Code]) -> None:
        """Take back all findings of these kinds."""
        names = {code.name for code in codes}
        self.findings = [finding for finding in self.findings if finding.code.name not in names]
        self.counts = Counter({name: number for name, number in self.counts.items() if name not in names})
        self.classes = {CODES[name].grade for name in self.counts}

    def verdict(self, accepted: frozenset[Class] = frozenset()) -> Class:
        """The gravest class that was found, those that are accepted aside."""
        return min(self.classes - accepted, default=Class.INTACT)
