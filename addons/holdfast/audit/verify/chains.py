"""The logs of one replica, one after another: each goes on from the one before, and says so in its first record.

Nobody can cut off the end of a log, be it without anchors, that another one goes on from: the next log's first record
names its size and its root.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from holdfast.audit.verify import findings as found
from holdfast.audit.verify.times import TOLERATED_STEP_SECONDS, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from holdfast.audit.verify.leaves import LogCheck

_EPOCH = re.compile("[1-9][0-9]{0,8}")


def check_chains(logs: Iterable[LogCheck]) -> None:
    """Check how the signed logs of each replica hang together."""
    logs = list(logs)
    by_origin = {log.origin: log for log in logs}
    replicas: dict[str, list[LogCheck]] = defaultdict(list)
    for log in logs:
        if log.certificate is not None:
            replicas[log.origin.rpartition("/")[0]].append(log)
    for chain in replicas.values():
        _check_chain(sorted(chain, key=_epoch), by_origin)


def _check_chain(chain: Sequence[LogCheck], by_origin: Mapping[str, LogCheck]) -> None:
    named: dict[str, int] = {}
    for log in chain:
        if log.goes_on_from is not None:
            named[log.goes_on_from.log] = max(named.get(log.goes_on_from.log, 0), log.goes_on_from.size)
    last_dropped = max((place for place, log in enumerate(chain) if log.is_dropped), default=-1)
    last_begun = max((place for place, log in enumerate(chain) if log.size), default=-1)
    before = 0
    for place, log in enumerate(chain):
        _check_beginning(log, by_origin)
        if not log.size and _epoch(log) != before + 1:
            log.tell(found.LOG_ALTERED, f"it is empty, and is said to be the one after epoch {before}")
        if place < last_begun:
            _check_end(log, named.get(log.origin), may_be_dropped=last_dropped >= place)
        before = _epoch(log)


def _epoch(log: LogCheck) -> int:
    return int(log.origin.rpartition("/")[2])


def _check_beginning(log: LogCheck, by_origin: Mapping[str, LogCheck]) -> None:
    if not log.first_time:
        return
    before = log.goes_on_from
    if before is None:
        if _epoch(log) > 1:
            log.tell(found.CHAIN_BROKEN, "it does not name the log before it", 0)
        return
    replica, _, epoch = before.log.rpartition("/")
    own = log.origin.rpartition("/")[0]
    if replica != own or _EPOCH.fullmatch(epoch) is None or int(epoch) >= _epoch(log):
        log.tell(found.CHAIN_BROKEN, f"it goes on from {before.log}, which is none of the logs before it", 0)
    elif before.log in by_origin:
        _check_time(log, by_origin[before.log].last_time)


def _check_time(log: LogCheck, ended: str) -> None:
    """The clock may not have gone back between two logs either."""
    began, ended_at = seconds(log.first_time), seconds(ended)
    if began is not None and ended_at is not None and ended_at - began > TOLERATED_STEP_SECONDS:
        log.tell(found.CLOCK_BACK, f"its first record is of {log.first_time}, the log before ended at {ended}", 0)


def _check_end(log: LogCheck, named_size: int | None, *, may_be_dropped: bool) -> None:
    """A log that others come after was closed, or one of them names all of it; nothing was added once one did.

    `may_be_dropped` says that what named it may be gone: it was dropped itself, or one of those after it was.
    """
    if not log.size:
        return
    if named_size is not None and named_size < log.size:
        log.tell(found.CHAIN_BROKEN, f"it has {log.size} records; the log after it goes on from {named_size}")
    elif named_size is None and not log.closed_at and not may_be_dropped:
        log.tell(found.CHAIN_BROKEN, "no log goes on from it and it was not closed: its end may be cut off")
