"""A decision: checked, made durable as a record, and only then put into effect.

The order is the promise: when the record cannot be written the hold stays as it was. Should the hold end by
itself between the two (its caller leaves, its time is over), the record shows a decision that came too late; the
call's own later records say how it ended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from holdfast.approval.hold import decide
from holdfast.audit.record import Entry, Kind, Record, describe_caller, describe_hold, timestamp
from holdfast.console.views import may_see
from holdfast.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from holdfast.approval.store import HoldStore
    from holdfast.exchange import Hold, HoldState, Identity

LONGEST_REASON = 1000
LONGEST_LIST = 1000
"""How many of the latest holds are looked through for those that a person may see."""


class Appender(Protocol):
    """What is needed of `AuditWriter`."""

    async def append(self, entry: Entry) -> object:
        """Return when `entry` is durable. Raises Unavailable."""


class Decisions:
    """What people see of holds, and do to them. Lives on one event loop."""

    def __init__(self, holds: HoldStore, writer: Appender, clock: Callable[[], datetime]) -> None:
        """`clock` gives the time, aware."""
        self._holds = holds
        self._writer = writer
        self._clock = clock
        # Two decisions on one hold, both recorded, would tell a story that never was.
        self._deciding = asyncio.Lock()

    async def list(self, viewer: Identity, states: frozenset[HoldState] | None) -> list[Hold]:
        """Return the holds in these states, or in any, that `viewer` may see. Raises Unavailable."""
        found = await asyncio.to_thread(self._holds.list, states, LONGEST_LIST)
        return [hold for hold in found if may_see(hold, viewer)]

    async def get(self, viewer: Identity, hold_id: str) -> Hold:
        """Return one hold. Raises NotFound when there is none that `viewer` may see, Unavailable."""
        hold = await asyncio.to_thread(self._holds.get, hold_id)
        if not may_see(hold, viewer):
            # The same sentence as for a hold that does not exist.
            raise NotFound(f"there is no hold {hold_id!r}")
        return hold

    async def decide(self, by: Identity, hold_id: str, *, approve: bool, reason: str) -> Hold:
        """Approve or deny a hold; return it as decided.

        Raises NotFound, Forbidden for who may not decide it, BadRequest for a reason that is missing, long or
        not printable, Conflict when it is no longer pending, Unavailable when nothing was changed.
        """
        _require_printable(reason)
        async with self._deciding:
            hold, now = await self.get(by, hold_id), self._clock()
            decided = decide(hold, approve, by, reason, now)
            await self._writer.append(_decision_entry(decided, by, now))
            return await asyncio.to_thread(self._holds.decide, hold_id, approve, by, reason, now)


def _require_printable(reason: str) -> None:
    """Keep what a person writes from commanding the terminal of whom kubectl shows it to."""
    if len(reason) > LONGEST_REASON:
        raise BadRequest(f"the reason has {len(reason)} characters; expected {LONGEST_REASON} at most")
    if not reason.isprintable():
        raise BadRequest("the reason must be one line of printable text")


def _decision_entry(decided: Hold, by: Identity, now: datetime) -> Entry:
    record = Record(
        kind=Kind.DECISION,
        call=decided.audit_id,
        at=timestamp(now),
        identity=describe_caller(by),
        hold=describe_hold(decided),
    )
    return Entry(record)
