"""New checkpoints reach every anchor; one that fails or hangs is told of and holds up nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from audit.anchors.notes import ORIGIN, note
from holdfast.audit.anchors.file import FileAnchor, read_notes
from holdfast.audit.anchors.publisher import (
    Contradicted,
    Progress,
    Publisher,
    find_lag,
    find_pause,
    is_overdue,
    list_due,
    observe,
    settle,
)
from holdfast.audit.checkpoint import Origin
from holdfast.audit.note import key_name
from holdfast.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from holdfast.audit.anchors.publisher import Anchor

OTHER = Origin(key_name("holdfast/test/gw-1:8443/2"))


class Looks:
    """What has been decided so far, for tests of the functions that decide."""

    def __init__(self) -> None:
        self.progress = Progress()

    def look(self, now: float, *notes: str) -> None:
        self.progress = observe(self.progress, notes, now)

    def anchored(self, text: str, origin: Origin = ORIGIN, *, observed_at: float | None = None) -> None:
        at = self.progress.observed_at if observed_at is None else observed_at
        self.progress = settle(self.progress, origin, text, at)

    def due(self) -> list[str]:
        return [text for _, text in list_due(self.progress)]

    def lag(self, now: float) -> float:
        return find_lag(self.progress, now)


@pytest.fixture
def looks() -> Looks:
    return Looks()


def test_nothing_is_due_of_no_log(looks: Looks) -> None:
    looks.look(10.0)
    assert looks.due() == []
    assert looks.lag(99.0) == 0


def test_a_log_is_due_until_its_checkpoint_is_anchored(looks: Looks) -> None:
    looks.look(10.0, note(1))
    assert looks.due() == [note(1)]
    assert looks.lag(12.0) == 2
    looks.anchored(note(1))
    assert looks.due() == []
    assert looks.lag(99.0) == 0


def test_a_log_that_rests_is_not_due_again(looks: Looks) -> None:
    looks.look(10.0, note(1))
    looks.anchored(note(1))
    looks.look(15.0, note(1))
    assert looks.due() == []
    assert looks.lag(15.0) == 0


def test_the_lag_counts_from_the_look_that_saw_the_log_whole(looks: Looks) -> None:
    looks.look(10.0, note(1))
    looks.anchored(note(1))
    looks.look(15.0, note(1))
    looks.look(20.0, note(2))
    assert looks.lag(21.0) == 6
    looks.look(25.0, note(3))
    assert looks.due() == [note(3)]
    assert looks.lag(26.0) == 11


def test_what_came_while_a_checkpoint_was_on_its_way_is_still_due(looks: Looks) -> None:
    looks.look(10.0, note(1))
    looks.look(15.0, note(2))
    looks.anchored(note(1), observed_at=10.0)
    assert looks.due() == [note(2)]
    assert looks.lag(16.0) == 6


def test_a_log_that_has_ended_stays_due(looks: Looks) -> None:
    looks.look(10.0, note(9))
    looks.look(15.0, note(1, OTHER))
    assert looks.due() == [note(9), note(1, OTHER)]
    looks.anchored(note(9))
    looks.look(20.0, note(1, OTHER))
    assert set(looks.progress.logs) == {OTHER}


def test_the_log_that_waited_longest_comes_first(looks: Looks) -> None:
    looks.look(10.0, note(1, OTHER))
    looks.look(15.0, note(1), note(2, OTHER))
    assert looks.due() == [note(2, OTHER), note(1)]


def test_a_log_that_went_back_changes_nothing(looks: Looks) -> None:
    looks.look(10.0, note(5))
    looks.anchored(note(5))
    looks.look(15.0, note(4))
    assert looks.due() == []


def test_another_history_of_the_same_size_is_anchored_too(looks: Looks) -> None:
    looks.look(10.0, note(5))
    looks.anchored(note(5))
    looks.look(15.0, note(5, history="forked"))
    assert looks.due() == [note(5, history="forked")]


def test_a_lag_may_be_as_long_as_the_alarm_says(looks: Looks) -> None:
    looks.look(10.0, note(1))
    assert not is_overdue(looks.progress, 70.0, alarm_seconds=60.0)
    assert is_overdue(looks.progress, 70.5, alarm_seconds=60.0)


@pytest.mark.parametrize(
    ("interval", "has_failed", "pause"),
    [(0.0, False, 0.0), (0.0, True, 0.0), (3600.0, False, 3600.0), (3600.0, True, 60.0), (10.0, True, 10.0)],
)
def test_an_anchor_is_left_alone_for_its_interval_or_shortly_after_a_failure(
    interval: float, has_failed: bool, pause: float
) -> None:
    assert find_pause(interval, has_failed=has_failed) == pause


class Logs:
    """The latest checkpoints, as a test sets them."""

    def __init__(self, *notes: str) -> None:
        self.notes = notes
        self.broken = False
        self.looked = threading.Semaphore(0)

    def latest(self) -> Sequence[str]:
        self.looked.release()
        if self.broken:
            raise Unavailable("the audit database cannot be read")
        return self.notes

    def wait_for_looks(self, count: int) -> None:
        """Wait until so many looks have begun from now on."""
        while self.looked.acquire(blocking=False):
            pass
        for _ in range(count):
            self.looked.acquire()


class GatedAnchor:
    """Keeps checkpoints in memory; `gate` makes it hang, `broken` makes it fail, with `failure`."""

    def __init__(self, name: str = "gated", interval_seconds: float = 0.0) -> None:
        self.name = name
        self.interval_seconds = interval_seconds
        self.notes: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False
        self.failure: Exception = Unavailable("the place is down")
        self.tried = threading.Semaphore(0)

    def publish(self, note: str) -> None:
        self.tried.release()
        self.gate.wait()
        if self.broken:
            raise self.failure
        self.notes.append(note)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def running(
    logs: Logs, *anchors: Anchor, interval: float = 0.005, clock: Callable[[], float] | None = None
) -> AsyncIterator[Publisher]:
    given = {} if clock is None else {"clock": clock}
    publisher = Publisher(logs.latest, anchors, interval_seconds=interval, alarm_seconds=60.0, **given)
    publisher.start()
    try:
        yield publisher
    finally:
        for anchor in anchors:
            if isinstance(anchor, GatedAnchor):
                anchor.gate.set()
        await publisher.close()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for another thread; the test's own limit ends a wait in vain."""
    pause = threading.Event()
    while not holds():
        pause.wait(0.005)


async def test_each_anchor_gets_what_is_new_once(tmp_path: Path) -> None:
    logs = Logs(note(1), note(7, OTHER))
    files = [FileAnchor(tmp_path / f"{name}.notes") for name in "ab"]
    async with running(logs, *files) as publisher:
        wait_until(lambda: all(state.last_success and not state.lag_seconds for state in publisher.states()))
        logs.notes = (note(2), note(7, OTHER))
        wait_until(lambda: all(len(list(read_notes(anchor.file))) == 3 for anchor in files))
    for anchor in files:
        assert list(read_notes(anchor.file)) == [note(1), note(7, OTHER), note(2)]


async def test_closing_publishes_the_last_checkpoint(tmp_path: Path) -> None:
    logs = Logs(note(1))
    anchor = FileAnchor(tmp_path / "a.notes")
    async with running(logs, anchor, interval=3600.0):
        wait_until(anchor.file.exists)
        logs.notes = (note(2),)
    assert list(read_notes(anchor.file))[-1] == note(2)


async def test_closing_publishes_what_came_while_an_anchor_was_busy() -> None:
    logs, anchor = Logs(note(1)), GatedAnchor()
    anchor.gate.clear()
    async with running(logs, anchor, interval=3600.0):
        anchor.tried.acquire()
        logs.notes = (note(2),)
    assert anchor.notes == [note(1), note(2)]


async def test_the_event_loop_goes_on_while_the_last_checkpoint_is_on_its_way() -> None:
    logs, anchor = Logs(note(1)), GatedAnchor()
    anchor.gate.clear()
    async with running(logs, anchor, interval=3600.0) as publisher:
        closing = asyncio.create_task(publisher.close())
        await asyncio.sleep(0)
        assert not closing.done()
        anchor.gate.set()
        await closing
        assert anchor.notes == [note(1)]


async def test_an_anchor_that_fails_or_hangs_holds_up_no_other() -> None:
    logs = Logs(note(1))
    failing, hanging, well = GatedAnchor("failing"), GatedAnchor("hanging"), GatedAnchor("well")
    failing.broken = True
    hanging.gate.clear()
    async with running(logs, failing, hanging, well):
        hanging.tried.acquire()
        wait_until(lambda: well.notes == [note(1)])
        logs.notes = (note(2),)
        wait_until(lambda: well.notes == [note(1), note(2)])
        assert hanging.notes == failing.notes == []


async def test_a_log_that_an_anchor_refuses_holds_up_no_other() -> None:
    class Particular(GatedAnchor):
        def publish(self, note: str) -> None:
            if ORIGIN in note:
                raise Unavailable("not this one")
            super().publish(note)

    anchor = Particular()
    async with running(Logs(note(1), note(1, OTHER)), anchor):
        wait_until(lambda: anchor.notes == [note(1, OTHER)])


async def test_a_failure_is_told_and_tried_again() -> None:
    logs, anchor = Logs(note(1)), GatedAnchor()
    anchor.broken = True
    async with running(logs, anchor) as publisher:
        wait_until(lambda: publisher.states()[0].failures > 2)
        (state,) = publisher.states()
        assert (state.name, state.last_success, state.last_error) == ("gated", None, "the place is down")
        anchor.broken = False
        wait_until(lambda: publisher.states()[0].last_success is not None)
        (state,) = publisher.states()
        assert (state.last_error, state.lag_seconds) == ("", 0)
    assert anchor.notes == [note(1)]


def told(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_the_alarm_sounds_once_and_its_end_once(how: str, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    logs, anchor = Logs(note(1)), GatedAnchor()
    anchor.broken = how == "fails"
    if how == "hangs":
        anchor.gate.clear()
    async with running(logs, anchor, clock=clock) as publisher:
        anchor.tried.acquire()
        clock.now += 61
        wait_until(lambda: bool(told(caplog, logging.ERROR)))
        assert publisher.states()[0].lag_seconds == 61
        logs.wait_for_looks(5)
        anchor.broken = False
        anchor.gate.set()
        wait_until(lambda: len(told(caplog, logging.ERROR)) > 1)
    why = "the place is down" if how == "fails" else "it does not answer"
    assert told(caplog, logging.ERROR) == [f"the anchor gated lags by 61 s: {why}", "the anchor gated has caught up"]


async def test_an_anchor_with_an_interval_of_its_own_is_left_alone_in_between_but_not_at_the_end(clock: Clock) -> None:
    logs, rare, usual = Logs(note(1)), GatedAnchor("rare", 3600.0), GatedAnchor("usual")
    async with running(logs, rare, usual, clock=clock):
        wait_until(lambda: rare.notes == usual.notes == [note(1)])
        for size, later in ((2, 1), (3, 3598)):
            clock.now += later
            logs.notes = (note(size),)
            wait_until(lambda size=size: note(size) in usual.notes)
            logs.wait_for_looks(3)
        assert rare.notes == [note(1)]
        clock.now += 1
        wait_until(lambda: rare.notes == [note(1), note(3)])
        logs.notes = (note(4),)
        wait_until(lambda: note(4) in usual.notes)
    assert rare.notes == [note(1), note(3), note(4)]


async def test_after_a_failure_it_is_asked_again_before_its_interval_is_over(clock: Clock) -> None:
    logs, rare = Logs(note(1)), GatedAnchor("rare", 3600.0)
    rare.broken = True
    async with running(logs, rare, clock=clock) as publisher:
        wait_until(lambda: publisher.states()[0].failures == 1)
        logs.wait_for_looks(5)
        assert publisher.states()[0].failures == 1
        rare.broken = False
        clock.now += 60
        wait_until(lambda: rare.notes == [note(1)])


async def test_the_lag_of_an_interval_is_no_alarm(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    logs, rare = Logs(note(1)), GatedAnchor("rare", 3600.0)
    async with running(logs, rare, clock=clock) as publisher:
        wait_until(lambda: rare.notes == [note(1)])
        logs.notes, rare.broken = (note(2),), True
        logs.wait_for_looks(3)
        clock.now += 3600
        wait_until(lambda: publisher.states()[0].failures == 1)
        logs.wait_for_looks(3)
        assert told(caplog, logging.ERROR) == []
        clock.now += 61
        wait_until(lambda: bool(told(caplog, logging.ERROR)))
        rare.broken = False
        clock.now += 60
        wait_until(lambda: rare.notes == [note(1), note(2)])
    assert told(caplog, logging.ERROR)[0] == "the anchor rare lags by 3661 s: the place is down"


async def test_a_row_of_failures_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    logs, anchor = Logs(note(1)), GatedAnchor()
    anchor.broken = True
    async with running(logs, anchor) as publisher:
        wait_until(lambda: publisher.states()[0].failures > 3)
        anchor.broken = False
    assert told(caplog, logging.WARNING) == ["the anchor gated failed, it is tried again: the place is down"]


async def test_another_failure_than_the_one_before_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    logs, anchor = Logs(note(1)), GatedAnchor()
    anchor.broken = True
    async with running(logs, anchor) as publisher:
        wait_until(lambda: publisher.states()[0].failures > 1)
        anchor.failure = Unavailable("the place has no room")
        wait_until(lambda: publisher.states()[0].last_error == "the place has no room")
        logs.wait_for_looks(3)
        anchor.broken = False
    assert told(caplog, logging.WARNING) == [
        "the anchor gated failed, it is tried again: the place is down",
        "the anchor gated failed, it is tried again: the place has no room",
    ]


async def test_what_fails_for_every_log_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    anchor = GatedAnchor()
    anchor.broken = True
    async with running(Logs(note(1), note(1, OTHER)), anchor) as publisher:
        wait_until(lambda: publisher.states()[0].failures > 5)
        anchor.broken = False
    assert told(caplog, logging.WARNING) == ["the anchor gated failed, it is tried again: the place is down"]


class Contradicting(GatedAnchor):
    """Says of one log, while `broken`, that it did not only grow, in other words each time."""

    def publish(self, note: str) -> None:
        if ORIGIN in note and self.broken:
            raise Contradicted(f"the log is shorter by {len(self.notes)}")
        self.notes.append(note)


async def test_a_contradiction_is_an_error_at_once_whatever_failed_before(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    logs, anchor = Logs(note(1)), GatedAnchor()
    anchor.broken = True
    async with running(logs, anchor, clock=clock) as publisher:
        wait_until(lambda: publisher.states()[0].failures > 1)
        anchor.failure = Contradicted("it has seen another root")
        wait_until(lambda: publisher.states()[0].last_error == "it has seen another root")
        logs.wait_for_looks(5)
        for interruption in ("the place is down", "the place has no room"):
            anchor.failure = Unavailable(interruption)
            logs.wait_for_looks(3)
            anchor.failure = Contradicted("it has seen a larger tree")
            logs.wait_for_looks(3)
        assert publisher.states()[0].contradictions == 1
        anchor.broken = False
        wait_until(lambda: not publisher.states()[0].last_error)
        anchor.broken = True
        logs.notes = (note(2),)
        wait_until(lambda: bool(publisher.states()[0].last_error))
        assert publisher.states()[0].contradictions == 2
        anchor.broken = False
    assert told(caplog, logging.ERROR) == [
        "the anchor gated contradicts the record, which may have been tampered with: it has seen another root",
        "the anchor gated contradicts the record, which may have been tampered with: it has seen a larger tree",
    ]


async def test_a_contradiction_is_told_once_while_other_logs_are_anchored(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    logs, anchor = Logs(note(1), note(1, OTHER)), Contradicting()
    anchor.broken = True
    async with running(logs, anchor, clock=clock) as publisher:
        for size in range(2, 6):
            logs.notes = (note(size), note(size, OTHER))
            wait_until(lambda size=size: note(size, OTHER) in anchor.notes)
        (state,) = publisher.states()
        assert (state.contradictions, state.last_error[:18]) == (1, "the log is shorter")
        anchor.broken = False
    assert len(told(caplog, logging.ERROR)) == 1
    assert told(caplog, logging.WARNING) == []


async def test_checkpoints_that_cannot_be_read_are_told_and_read_again(caplog: pytest.LogCaptureFixture) -> None:
    logs, anchor = Logs(note(1)), GatedAnchor()
    logs.broken = True
    async with running(logs, anchor):
        logs.wait_for_looks(3)
        logs.broken = False
        wait_until(lambda: anchor.notes == [note(1)])
    assert told(caplog, logging.WARNING) == [
        "the latest checkpoints cannot be read, none is anchored: the audit database cannot be read"
    ]


async def test_what_an_anchor_did_not_take_before_the_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    anchor = GatedAnchor()
    anchor.broken = True
    async with running(Logs(note(1)), anchor, interval=3600.0):
        anchor.tried.acquire()
    assert told(caplog, logging.ERROR) == ["the anchor gated has not got the last checkpoints: the place is down"]


async def test_without_anchors_no_thread_runs() -> None:
    before = threading.active_count()
    async with running(Logs(note(1))) as publisher:
        assert threading.active_count() == before
        assert publisher.states() == ()
