"""The one thread that writes the record, with group commit.

Many calls wait for the disk at once. One thread takes whatever waits, up to 50 records or 4 MiB, and makes it
durable in one transaction; while that commit runs the next batch gathers. A record that comes alone is written
at once; in a crowd the thread waits `GATHER_SECONDS` for company, since a transaction costs three times what a
record in it does (the idea is PostgreSQL's `commit_delay` with `commit_siblings`). The event loop never touches
the database, and hears of a whole batch by one callback.

It fails closed. `append` returns only when its record is durable; it raises Unavailable when the store fails,
when too much waits already, or when the deadline passes. A record whose deadline passes while it waits is
dropped. One whose batch is being committed at that moment may become durable all the same: the record then
holds an intent whose call was refused, or an outcome whose caller got a 503. Both overstate what happened to
the caller and neither hides anything that happened to the cluster. After a failure later records are tried as
ever, so the gateway comes back when the store does.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from holdfast.audit.receipt import Receipt
from holdfast.audit.record import Entry
from holdfast.errors import HoldfastError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence


BATCH_RECORDS = 50
BATCH_BYTES = 4 << 20
GATHER_SECONDS = 0.004
"""How long a batch gathers when the one before held more than one record."""

HEARTBEAT_SECONDS = 60.0
"""How often the log says that all is quiet, and what has become of the other logs."""

NOT_WRITTEN = "Holdfast cannot write its audit record, and nothing passes unrecorded; try again"

log = logging.getLogger(__name__)


class Store(Protocol):
    """Where batches go: a `Ledger`."""

    def write(self, batch: Sequence[Entry]) -> Sequence[Receipt | HoldfastError]:
        """Make `batch` durable, in order; raise when nothing of it can be said to be.

        Return a receipt for each entry, or what is wrong with that entry alone, or Unavailable from the one on that
        could not be written.
        """

    def beat(self) -> None:
        """Record that all is quiet; called from time to time."""

    def close(self) -> None:
        """Let go of what `write` uses."""


type Settled = Receipt | HoldfastError
"""How an entry ended: durable, or not."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """An entry on its way. `entry` is None once nobody waits for it any more."""

    entry: Entry | None
    size: int
    due: float
    settle: Callable[[Settled], None]
    settled: bool = False


class AuditWriter:
    """Takes entries on the event loop, writes them on a thread of its own.

    `capacity` bounds how many entries may wait, `capacity_bytes` how much they may hold, though one is taken whatever
    its size when none waits, `deadline_seconds` how long one may, and `lag_limit_bytes` how
    much of the running streams may be on its way before `wait_below_limit` makes their owners pause. `committed`
    hears, on the writer's thread, of every batch that was made durable: how many records, in how many seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        capacity: int,
        capacity_bytes: int = 256 << 20,
        deadline_seconds: float,
        lag_limit_bytes: int,
        committed: Callable[[int, float], None] = lambda records, seconds: None,
    ) -> None:
        self._store = store
        self._committed = committed
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._unsettled_bytes = 0
        self._deadline = deadline_seconds
        self._lag_limit = lag_limit_bytes
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._waiting: deque[_Waiting] = deque()
        self._below_limit = asyncio.Event()
        self._below_limit.set()
        self._timer: asyncio.TimerHandle | None = None
        self._failing = False
        self._crowded = False
        self._open = False
        self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
        self._thread = threading.Thread(target=self._run, name="holdfast-audit-writer", daemon=True)
        self.lag_bytes = 0
        """Bytes handed to `submit` that are not durable yet."""

    def queue_length(self) -> int:
        """How many records wait for the writer."""
        return self._queue.qsize()

    def queue_bytes(self) -> int:
        """How many bytes the records hold that wait for the writer, or are being written for somebody who waits."""
        return self._unsettled_bytes

    def start(self) -> None:
        """Start the thread; call it on the event loop that `append` will be called on."""
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._thread.start()

    async def append(self, entry: Entry) -> Receipt:
        """Return when `entry` is durable. Raises Unavailable, or Internal when it cannot be encoded.

        A cancelled `append` no longer waits; its entry is written nevertheless.
        """
        durable: asyncio.Future[Receipt] = self._loop.create_future()
        self._enqueue(entry, lambda settled: _resolve(durable, settled))
        return await durable

    def submit(self, entry: Entry, failed: Callable[[HoldfastError], None]) -> None:
        """Write a piece of a stream without waiting for it.

        `failed` is called on the event loop, perhaps before this returns, when the piece cannot be written: the
        stream must then be cut.
        """
        try:
            size = entry.size
            self._enqueue(entry, lambda settled: self._settle_piece(size, settled, failed))
        except HoldfastError as error:
            failed(error)
            return
        self._add_lag(size)

    async def wait_below_limit(self) -> None:
        """Return when less than the limit is on its way; what failed is no longer on its way."""
        await self._below_limit.wait()

    async def close(self) -> None:
        """Take no more entries, write what waits, end the thread."""
        self._open = False
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        if self._timer is not None:
            self._timer.cancel()

    def _enqueue(self, entry: Entry, settle: Callable[[Settled], None]) -> None:
        if not self._open:
            raise Unavailable("Holdfast is shutting down and takes no more calls; try again")
        waiting = _Waiting(entry, entry.size, self._loop.time() + self._deadline, settle)
        queued = self._queue.qsize()
        if queued >= self._capacity:
            raise Unavailable("too many calls wait for Holdfast's audit record; try again")
        if queued and self._unsettled_bytes + waiting.size > self._capacity_bytes:
            raise Unavailable("too much waits for Holdfast's audit record; try again")
        self._unsettled_bytes += waiting.size
        self._waiting.append(waiting)
        self._queue.put(waiting)
        if self._timer is None:
            self._timer = self._loop.call_at(waiting.due, self._give_up)

    def _give_up(self) -> None:
        """Fail what is overdue; one timer, for the oldest entry, serves them all."""
        self._timer = None
        now = self._loop.time()
        late = Unavailable(f"Holdfast's audit record was not written within {self._deadline:g} s; try again")
        while self._waiting and (self._waiting[0].settled or self._waiting[0].due <= now):
            self._settle(self._waiting.popleft(), late)
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0].due, self._give_up)

    def _finish(self, batch: list[_Waiting], results: Sequence[Settled]) -> None:
        for waiting, settled in zip(batch, results, strict=True):
            self._settle(waiting, settled)
        while self._waiting and self._waiting[0].settled:
            self._waiting.popleft()

    def _settle(self, waiting: _Waiting, settled: Settled) -> None:
        if waiting.settled:
            return
        waiting.settled = True
        waiting.entry = None
        self._unsettled_bytes -= waiting.size
        waiting.settle(settled)

    def _add_lag(self, size: int) -> None:
        self.lag_bytes += size
        if self.lag_bytes < self._lag_limit:
            self._below_limit.set()
        else:
            self._below_limit.clear()

    def _settle_piece(self, size: int, settled: Settled, failed: Callable[[HoldfastError], None]) -> None:
        self._add_lag(-size)
        if isinstance(settled, HoldfastError):
            failed(settled)

    def _run(self) -> None:
        """The thread: everything below runs there, everything above on the event loop."""
        running = True
        while running:
            batch, running = self._next_batch()
            wanted = [(waiting, entry) for waiting in batch if (entry := waiting.entry) is not None]
            if wanted:
                results = self._write([entry for _, entry in wanted])
                self._loop.call_soon_threadsafe(self._finish, [waiting for waiting, _ in wanted], results)
            if not running or time.monotonic() >= self._next_beat:
                self._beat()
        self._store.close()

    def _next_batch(self) -> tuple[list[_Waiting], bool]:
        """Wait for one entry, or for the next heartbeat, then take what else is there; false at the end."""
        batch: list[_Waiting] = []
        size = 0
        if self._crowded:
            time.sleep(GATHER_SECONDS)
        while len(batch) < BATCH_RECORDS and size < BATCH_BYTES:
            try:
                waiting = self._queue.get(block=not batch, timeout=max(0.0, self._next_beat - time.monotonic()))
            except queue.Empty:
                break
            if waiting is None:
                return batch, False
            batch.append(waiting)
            size += waiting.size
        self._crowded = len(batch) > 1
        return batch, True

    def _write(self, entries: list[Entry]) -> Sequence[Settled]:
        began = time.monotonic()
        try:
            results = self._store.write(entries)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live and the calls must fail
            self._note_failure(error)
            return [Unavailable(NOT_WRITTEN)] * len(entries)
        if durable := sum(isinstance(result, Receipt) for result in results):
            self._committed(durable, time.monotonic() - began)
        outage = next((result for result in results if isinstance(result, Unavailable)), None)
        if outage is not None:
            self._note_failure(outage)
            return [Unavailable(NOT_WRITTEN) if isinstance(result, Unavailable) else result for result in results]
        if self._failing:
            log.warning("the audit record can be written again")
        self._failing = False
        return results

    def _beat(self) -> None:
        self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
        try:
            self._store.beat()
        except Exception as error:  # noqa: BLE001 - as above
            self._note_failure(error)

    def _note_failure(self, error: Exception) -> None:
        if not self._failing:
            # An outage is no fault of the program, and its sentence says all.
            fault = None if isinstance(error, Unavailable) else error
            log.error("the audit record cannot be written, calls get 503 until it can: %s", error, exc_info=fault)
        self._failing = True


def _resolve(durable: asyncio.Future[Receipt], settled: Settled) -> None:
    if durable.done():
        return
    if isinstance(settled, HoldfastError):
        durable.set_exception(settled)
    else:
        durable.set_result(settled)
