"""Gives new checkpoints to every anchor, in the background, and says how far each of them lags.

One thread looks at the logs every few seconds and tells the anchors what is new; each anchor publishes on a thread
of its own, so one that fails or hangs holds up neither the others nor the event loop. What could not be published
is tried again at the next look: by then a later checkpoint of the log may have taken its place, which covers it. A
log that has ended is kept in mind until its last checkpoint is anchored. An anchor that wants to be asked less often
says so (`Anchor.interval_seconds`); it is left alone in between, and may lag by so much more before the alarm.

The lag of an anchor is the age of the oldest record that it has not seen, reckoned from the look before the one that
found the record: too much by at most one interval, never too little. The functions up to `find_pause` decide; they
take the time as a value.

A failure is told when it begins and when it becomes another one. An anchor that contradicts a log is the alarm that
all this is for: it is an error in the log at once, whatever failed before, and once until the anchor takes a
checkpoint of that log again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from holdfast.audit.checkpoint import Origin, parse_checkpoint
from holdfast.errors import Unavailable

CLOSE_SECONDS = 15.0
"""How long the anchors get to take the last checkpoints when the process ends."""

RETRY_SECONDS = 60.0
"""After a failure an anchor with an interval of its own is left alone for so long, or for its interval."""

log = logging.getLogger(__name__)


class Contradicted(Unavailable):
    """The anchor says that a log did not only grow: it was cut or changed, or the anchor is not to be trusted."""


class Anchor(Protocol):
    """A place outside the database that remembers checkpoints.

    `interval_seconds` is how long it is left alone after it got checkpoints; 0 when every look may bring it some.
    """

    name: str
    interval_seconds: float

    def publish(self, note: str) -> None:
        """Return when the anchor has the signed checkpoint for good; blocking. Raises HoldfastError, Contradicted."""


@dataclass(frozen=True, slots=True)
class AnchorState:
    """How one anchor is doing.

    `last_error` is empty when the last try succeeded for every log, `failures` counts the tries that did not, and
    `contradictions` how often the anchor began to contradict a log.
    """

    name: str
    lag_seconds: float
    last_success: datetime | None
    last_error: str
    failures: int
    contradictions: int


@dataclass(frozen=True, slots=True)
class LogProgress:
    """The latest checkpoint of one log, and since when the anchor lacks it; None when it has it."""

    size: int
    note: str
    behind_since: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one anchor is with all logs, as of the look at `observed_at`."""

    logs: Mapping[Origin, LogProgress] = field(default_factory=dict)
    observed_at: float = 0.0


def observe(progress: Progress, notes: Iterable[str], now: float) -> Progress:
    """Take in the latest checkpoints of the logs. One that is smaller than the one before changes nothing."""
    kept = {origin: known for origin, known in progress.logs.items() if known.behind_since is not None}
    for note in notes:
        checkpoint, _ = parse_checkpoint(note)
        known = progress.logs.get(checkpoint.origin)
        if known is None:
            known = LogProgress(checkpoint.size, note, behind_since=now)
        elif note != known.note and checkpoint.size >= known.size:
            since = progress.observed_at if known.behind_since is None else known.behind_since
            known = LogProgress(checkpoint.size, note, since)
        kept[checkpoint.origin] = known
    return Progress(kept, now)


def list_due(progress: Progress) -> list[tuple[Origin, str]]:
    """What the anchor lacks, the one it has lacked for longest first."""
    behind = [(origin, known) for origin, known in progress.logs.items() if known.behind_since is not None]
    return [(origin, known.note) for origin, known in sorted(behind, key=lambda entry: entry[1].behind_since or 0.0)]


def settle(progress: Progress, origin: Origin, note: str, observed_at: float) -> Progress:
    """Note that the anchor has a checkpoint, which was the latest of its log in the look at `observed_at`."""
    known = progress.logs[origin]
    since = None if known.note == note else observed_at
    return replace(progress, logs={**progress.logs, origin: replace(known, behind_since=since)})


def find_lag(progress: Progress, now: float) -> float:
    """The age in seconds of the oldest record that the anchor lacks; 0 when it lacks none."""
    since = [known.behind_since for known in progress.logs.values() if known.behind_since is not None]
    return now - min(since, default=now)


def is_overdue(progress: Progress, now: float, alarm_seconds: float) -> bool:
    """Whether the anchor lags by more than it may."""
    return find_lag(progress, now) > alarm_seconds


def find_pause(interval_seconds: float, *, has_failed: bool) -> float:
    """How many seconds an anchor with this interval is left alone after it was asked."""
    return min(interval_seconds, RETRY_SECONDS) if has_failed else interval_seconds


class Publisher:
    """Publishes from threads until it is closed. `latest` returns the latest signed checkpoint of each log.

    `latest` is called from a thread. It must return a log that has ended until the look after its end.
    """

    def __init__(
        self,
        latest: Callable[[], Sequence[str]],
        anchors: Sequence[Anchor],
        *,
        interval_seconds: float,
        alarm_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._latest = latest
        self._tracks = [_Track(anchor, alarm_seconds, clock) for anchor in anchors]
        self._interval = interval_seconds
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="holdfast-anchors", daemon=True)

    def start(self) -> None:
        """Start the threads; none where there is no anchor."""
        if self._tracks:
            self._thread.start()
            for track in self._tracks:
                track.thread.start()

    def states(self) -> tuple[AnchorState, ...]:
        """How the anchors are doing."""
        return tuple(track.state() for track in self._tracks)

    def stop(self) -> None:
        """Publish what there is now and end; blocks for `CLOSE_SECONDS` at most."""
        self._stopping.set()
        give_up = time.monotonic() + CLOSE_SECONDS
        threads = [self._thread, *(track.thread for track in self._tracks)] if self._tracks else []
        for thread in threads:
            thread.join(max(0.0, give_up - time.monotonic()))
        for state in self.states():
            if state.lag_seconds:
                log.error("the anchor %s has not got the last checkpoints: %s", state.name, state.last_error)

    async def close(self) -> None:
        """`stop`, without keeping the event loop."""
        await asyncio.to_thread(self.stop)

    def _run(self) -> None:
        self._look()
        while not self._stopping.wait(self._interval):
            self._look()
        self._look()
        for track in self._tracks:
            track.end()

    def _look(self) -> None:
        notes: Sequence[str] | None = None
        try:
            notes = self._latest()
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live, and the alarms with it
            if not self._failing:
                log.warning("the latest checkpoints cannot be read, none is anchored: %s", error)
        self._failing = notes is None
        for track in self._tracks:
            track.look(notes)


class _Track:
    """One anchor with its thread. `look` and `state` may be called from any thread."""

    def __init__(self, anchor: Anchor, alarm_seconds: float, clock: Callable[[], float]) -> None:
        self.thread = threading.Thread(target=self._run, name=f"holdfast-anchor-{anchor.name}", daemon=True)
        self._anchor = anchor
        self._alarm_seconds = alarm_seconds + anchor.interval_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._awake = threading.Event()
        self._ending = False
        self._rests_until = 0.0
        self._progress = Progress()
        self._alarmed = False
        self._last_success: datetime | None = None
        self._errors: dict[Origin, str] = {}
        self._contradicted: set[Origin] = set()
        self._failures = 0
        self._contradictions = 0

    def look(self, notes: Sequence[str] | None) -> None:
        """Take in the latest checkpoints, where they could be read, and see whether the anchor lags too far."""
        with self._lock:
            now = self._clock()
            if notes is not None:
                self._progress = observe(self._progress, notes, now)
            self._sound_alarm(now)
        self._awake.set()

    def end(self) -> None:
        """Let the thread end when it has tried everything once more."""
        self._ending = True
        self._awake.set()

    def state(self) -> AnchorState:
        """A snapshot."""
        with self._lock:
            lag = find_lag(self._progress, self._clock())
            return AnchorState(
                self._anchor.name,
                lag,
                self._last_success,
                self._last_error,
                self._failures,
                self._contradictions,
            )

    @property
    def _last_error(self) -> str:
        """What failed last and still does."""
        return next(reversed(self._errors.values()), "")

    def _sound_alarm(self, now: float) -> None:
        overdue = is_overdue(self._progress, now, self._alarm_seconds)
        if overdue and not self._alarmed:
            lag = find_lag(self._progress, now)
            log.error(
                "the anchor %s lags by %.0f s: %s", self._anchor.name, lag, self._last_error or "it does not answer"
            )
        elif self._alarmed and not overdue:
            log.error("the anchor %s has caught up", self._anchor.name)
        self._alarmed = overdue

    def _run(self) -> None:
        ending = False
        while not ending:
            self._awake.wait()
            self._awake.clear()
            ending = self._ending
            now = self._clock()
            if ending or now >= self._rests_until:
                self._publish_due(now)

    def _publish_due(self, now: float) -> None:
        with self._lock:
            due, observed_at = list_due(self._progress), self._progress.observed_at
        if due:
            done = [self._publish(origin, note, observed_at) for origin, note in due]
            self._rests_until = now + find_pause(self._anchor.interval_seconds, has_failed=not all(done))

    def _publish(self, origin: Origin, note: str, observed_at: float) -> bool:
        try:
            self._anchor.publish(note)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live and try again
            self._note_failure(origin, error)
            return False
        with self._lock:
            self._progress = settle(self._progress, origin, note, observed_at)
            self._last_success = datetime.now(UTC)
            self._errors.pop(origin, None)
            self._contradicted.discard(origin)
            self._sound_alarm(self._clock())
        return True

    def _note_failure(self, origin: Origin, error: Exception) -> None:
        with self._lock:
            message = str(error) or type(error).__name__
            if isinstance(error, Contradicted):
                self._note_contradiction(origin, message)
            elif message not in self._errors.values():
                log.warning("the anchor %s failed, it is tried again: %s", self._anchor.name, message)
            self._errors.pop(origin, None)
            self._errors[origin] = message
            self._failures += 1

    def _note_contradiction(self, origin: Origin, message: str) -> None:
        if origin in self._contradicted:
            return
        self._contradicted.add(origin)
        self._contradictions += 1
        log.error(
            "the anchor %s contradicts the record, which may have been tampered with: %s", self._anchor.name, message
        )
