"""Logs that retention dropped: what records of that say, held against their rows.

Of such a log nothing is left to hold its row against but its leaf hashes, so the record of its drop tells the rest:
the day under which it was kept, and when it ended. Days that are proven so, and no others, excuse what is missing
from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.audit.verify import findings as found

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from holdfast.audit.verify.leaves import LogCheck


@dataclass(frozen=True, slots=True)
class Drop:
    """What record `seq` of the log `source`, of the time `told_at`, says of a log that is dropped, and why it is."""

    size: int
    day: str
    until: str
    told_at: str
    source: str
    seq: int
    why: str

    def is_sound(self) -> bool:
        """Whether the log was over when it was dropped, and its day too."""
        return self.until < self.told_at and self.day < self.told_at[:10]


def check_dropped(logs: Iterable[LogCheck], told: Mapping[str, Sequence[Drop]]) -> None:
    """Check that of each dropped log a record says so, with the size and the day that it has."""
    for log in logs:
        if log.is_dropped:
            drops = [drop for drop in told.get(log.origin, ()) if drop.size == log.size]
            by = f", {drops[0].why}" if drops else ""
            log.tell(found.LOG_DROPPED, f"{log.size} records, on {log.line.dropped_at}{by}")
            if not drops:
                log.tell(found.DROPPED_UNRECORDED, f"on {log.line.dropped_at}")
            for drop in drops:
                _check_drop(log, drop)


def _check_drop(log: LogCheck, drop: Drop) -> None:
    line = log.line
    says = f"record {drop.seq} of {drop.source}"
    if not drop.is_sound():
        what = f"{says}, of {drop.told_at}, tells of its day {drop.day} and its last record at {drop.until}"
        log.tell(found.DROPPED_EARLY, what)
    elif drop.day and line.day != drop.day:
        log.tell(found.LOG_ALTERED, f"it is said to be of {line.day}; {says} says that it was of {drop.day}")
    elif drop.until and not log.is_legacy and line.closed_at not in {"", drop.until}:
        log.tell(found.LOG_ALTERED, f"it is said to be closed at {line.closed_at}; {says} says {drop.until}")
    elif drop.day:
        log.dropped_day, log.dropped_until = drop.day, drop.until
