"""Waiting for a person: every way a hold ends reaches its waiter, and waiting costs next to nothing."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from approval.holds import CAROL, NOON, hold, seconds
from holdfast.approval import waiting
from holdfast.approval.store import HoldStore
from holdfast.approval.waiting import HoldDesk
from holdfast.database import Database
from holdfast.errors import Unavailable
from holdfast.exchange import Hold, HoldState

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from pathlib import Path


class CountingStore(HoldStore):
    """The real store; counts the looks and fails on request."""

    looks = 0
    broken: Exception | None = None

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.looked = threading.Semaphore(0)

    def settled(self, hold_ids: Collection[Any]) -> dict[Any, Hold]:
        self.looks += 1
        self.looked.release()
        if self.broken is not None:
            raise self.broken
        return super().settled(hold_ids)


class Clock:
    """A time that the test moves."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(Database.open(f"sqlite:///{tmp_path / 'audit.db'}"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(store: CountingStore, clock: Clock) -> HoldDesk:
    return HoldDesk(store, clock)


@pytest.fixture(autouse=True)
def _quick_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TICK_SECONDS", 0.01)


def begin(desk: HoldDesk, store: HoldStore, left: asyncio.Event | None = None) -> tuple[Hold, asyncio.Task[Hold]]:
    made = hold()
    store.insert(made, "replica-1")
    return made, asyncio.create_task(desk.wait(made, left or asyncio.Event()))


async def after_looks(store: CountingStore, count: int) -> None:
    """Let the desk look `count` times from now on."""
    store.looked = threading.Semaphore(0)
    for _ in range(count):
        assert await asyncio.to_thread(store.looked.acquire, timeout=60)


@pytest.mark.parametrize("approve", [True, False])
async def test_a_decision_reaches_the_waiting_call(desk: HoldDesk, store: CountingStore, approve: bool) -> None:
    made, call = begin(desk, store)
    await after_looks(store, 2)
    assert not call.done()
    decided = store.decide(made.id, approve, CAROL, "because", NOON)
    assert await call == decided


async def test_a_hold_that_nobody_decides_expires(desk: HoldDesk, store: CountingStore, clock: Clock) -> None:
    made, call = begin(desk, store)
    await after_looks(store, 2)
    clock.now = made.expires_at
    ended = await call
    assert ended.state is HoldState.EXPIRED
    assert store.get(made.id) == ended


async def test_an_approval_at_the_last_moment_counts(desk: HoldDesk, store: CountingStore, clock: Clock) -> None:
    made, call = begin(desk, store)
    store.decide(made.id, True, CAROL, "", made.expires_at - seconds(0.001))
    clock.now = made.expires_at
    assert (await call).state is HoldState.APPROVED


async def test_a_hold_whose_caller_leaves_is_cancelled(desk: HoldDesk, store: CountingStore) -> None:
    left = asyncio.Event()
    made, call = begin(desk, store, left)
    await after_looks(store, 1)
    left.set()
    ended = await call
    assert (ended.state, ended.decision_reason) == (HoldState.CANCELLED, "the caller left")
    assert store.get(made.id) == ended


async def test_an_approval_comes_too_late_for_a_caller_that_left(desk: HoldDesk, store: CountingStore) -> None:
    left = asyncio.Event()
    made, call = begin(desk, store, left)
    store.decide(made.id, True, CAROL, "", NOON)
    left.set()
    assert (await call).state is HoldState.CANCELLED
    assert not store.release(made.id, made.digest, NOON)


async def test_a_cancelled_task_leaves_no_pending_hold(desk: HoldDesk, store: CountingStore) -> None:
    made, call = begin(desk, store)
    await after_looks(store, 1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await desk.close("the gateway stops")
    ended = store.get(made.id)
    assert (ended.state, ended.decision_reason) == (HoldState.CANCELLED, "the caller left")


async def test_closing_answers_every_waiter(desk: HoldDesk, store: CountingStore) -> None:
    calls = [begin(desk, store)[1] for _ in range(5)]
    await asyncio.sleep(0)
    await desk.close("the gateway stops")
    ended = await asyncio.gather(*calls)
    assert {(each.state, each.decision_reason) for each in ended} == {(HoldState.CANCELLED, "the gateway stops")}
    _, late = begin(desk, store)
    assert (await late).state is HoldState.CANCELLED


async def test_closing_an_idle_desk_is_nothing(desk: HoldDesk) -> None:
    await desk.close("the gateway stops")


async def test_three_hundred_holds_wait_on_one_query_a_turn(desk: HoldDesk, store: CountingStore) -> None:
    begun = [begin(desk, store) for _ in range(300)]
    await asyncio.sleep(0)
    tasks = len(asyncio.all_tasks())
    await after_looks(store, 2)
    assert len(asyncio.all_tasks()) == tasks == 302
    made, call = begun[150]
    store.decide(made.id, True, CAROL, "", NOON)
    assert (await call).id == made.id
    assert sum(task.done() for _, task in begun) == 1
    await desk.close("enough")
    ended = await asyncio.gather(*(task for _, task in begun))
    assert sum(each.state is HoldState.CANCELLED for each in ended) == 299


async def test_nothing_is_asked_while_nobody_waits(desk: HoldDesk, store: CountingStore) -> None:
    made, call = begin(desk, store)
    store.decide(made.id, True, CAROL, "", NOON)
    await call
    looks = store.looks
    await asyncio.sleep(0.05)
    assert store.looks == looks


@pytest.mark.parametrize("fault", [Unavailable("the disk reports an error"), KeyError("a bug")])
async def test_a_failing_store_is_asked_again(
    desk: HoldDesk, store: CountingStore, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store.broken = fault
    made, call = begin(desk, store)
    await after_looks(store, 3)
    assert not call.done()
    store.broken = None
    store.decide(made.id, True, CAROL, "", NOON)
    assert (await call).state is HoldState.APPROVED
    told = [record for record in caplog.records if record.name == "holdfast.approval.waiting"]
    assert [record.getMessage() for record in told] == [f"holds cannot be looked up: {fault}"]
    assert [record.exc_info is not None for record in told] == [isinstance(fault, KeyError)]


async def test_a_store_that_fails_at_the_end_of_the_wait_is_no_approval(
    desk: HoldDesk, store: CountingStore, clock: Clock
) -> None:
    made, call = begin(desk, store)
    store.broken = Unavailable("the disk reports an error")
    clock.now = made.expires_at
    with pytest.raises(Unavailable, match="cannot find out whether this call was approved"):
        await call


async def test_a_hold_that_vanished_is_no_approval(desk: HoldDesk, store: CountingStore, clock: Clock) -> None:
    made = hold()
    clock.now = made.expires_at
    assert (await desk.wait(made, asyncio.Event())).state is HoldState.EXPIRED
