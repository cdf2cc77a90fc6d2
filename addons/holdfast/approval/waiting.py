"""Where held calls wait on the event loop.

One task looks after all of them. Five times a second, and only while something waits, it asks the database in
one query, on a thread, which holds are no longer pending; in the same turn it cancels the holds whose callers
have left and expires those whose time is over. A waiting call costs one future.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from holdfast.approval.hold import transition
from holdfast.errors import Unavailable
from holdfast.exchange import Hold, HoldID, HoldState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

TICK_SECONDS = 0.2
CALLER_LEFT = "the caller left"

log = logging.getLogger(__name__)


class Holds(Protocol):
    """What a desk needs of `HoldStore`."""

    def settled(self, hold_ids: Collection[HoldID]) -> dict[HoldID, Hold]:
        """Return those that are no longer pending."""

    def cancel(self, hold_id: str, reason: str, now: datetime) -> bool:
        """End a hold that nobody waits for."""

    def expire(self, hold_id: str, now: datetime) -> bool:
        """End a hold that nobody decided in time."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """One waiting call."""

    hold: Hold
    left: asyncio.Event
    answer: asyncio.Future[Hold]
    reason: str = ""

    def leaves(self) -> str:
        """Why nobody waits any more, or an empty string."""
        return CALLER_LEFT if self.left.is_set() or self.answer.cancelled() else self.reason


class HoldDesk:
    """Holds wait here until a person, the clock, the caller or a shutdown ends them. Belongs to one event loop."""

    def __init__(self, store: Holds, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._clock = clock
        self._waiters: dict[HoldID, _Waiter] = {}
        self._closing = ""
        self._failing = False
        self._turns: asyncio.Task[None] | None = None

    async def wait(self, hold: Hold, left: asyncio.Event) -> Hold:
        """Return `hold`, which is in the store, in its final state: approved, denied, expired or cancelled.

        It is cancelled in the store when `left` is set or this task is cancelled. Raises Unavailable when its
        time is over and the store cannot be asked what became of it.
        """
        answer: asyncio.Future[Hold] = asyncio.get_running_loop().create_future()
        self._waiters[hold.id] = _Waiter(hold, left, answer, self._closing)
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns(), name="holdfast-holds")
        return await answer

    def give_up(self, hold_id: HoldID, reason: str) -> None:
        """Cancel one hold, if it waits here."""
        waiter = self._waiters.get(hold_id)
        if waiter is not None:
            waiter.reason = reason

    async def close(self, reason: str) -> None:
        """Cancel every waiting hold, now and from now on; return when all waiters have their answer."""
        self._closing = reason
        for waiter in self._waiters.values():
            waiter.reason = reason
        if self._turns is not None:
            await self._turns

    async def _take_turns(self) -> None:
        while self._waiters:
            await asyncio.sleep(TICK_SECONDS)
            now = self._clock()
            leaving = {key: why for key, waiter in self._waiters.items() if (why := waiter.leaves())}
            late = [key for key, waiter in self._waiters.items() if waiter.hold.expires_at <= now]
            try:
                ended = await asyncio.to_thread(_end_holds, self._store, tuple(self._waiters), leaving, late, now)
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must have an answer
                self._note_failure(error)
                self._fail({*leaving, *late})
                continue
            self._failing = False
            self._answer(ended)
            self._answer({key: self._vanished(key, now) for key in {*leaving, *late} & self._waiters.keys()})

    def _note_failure(self, error: Exception) -> None:
        """Say so once, until they can be looked up again; an outage is no fault of the program."""
        if not self._failing:
            fault = None if isinstance(error, Unavailable) else error
            log.error("holds cannot be looked up: %s", error, exc_info=fault)
        self._failing = True

    def _answer(self, ended: dict[HoldID, Hold]) -> None:
        for key, hold in ended.items():
            waiter = self._waiters.pop(key)
            if not waiter.answer.done():
                waiter.answer.set_result(hold)

    def _fail(self, keys: Collection[HoldID]) -> None:
        """Give up on holds that should have ended; their rows are cancelled when a gateway starts."""
        error = Unavailable("Holdfast cannot find out whether this call was approved; try again")
        for key in keys:
            waiter = self._waiters.pop(key)
            if not waiter.answer.done():
                waiter.answer.set_exception(error)

    def _vanished(self, key: HoldID, now: datetime) -> Hold:
        """What to answer when the store no longer knows a hold that should have ended: not an approval."""
        return transition(self._waiters[key].hold, HoldState.EXPIRED, at=now)


def _end_holds(
    store: Holds, waiting: Collection[HoldID], leaving: dict[HoldID, str], late: Collection[HoldID], now: datetime
) -> dict[HoldID, Hold]:
    """End what has to end, then return every hold that is no longer pending. Runs on a thread."""
    for key, reason in leaving.items():
        store.cancel(key, reason, now)
    for key in late:
        store.expire(key, now)
    return store.settled(waiting)
