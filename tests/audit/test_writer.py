"""The writer: what is acknowledged is durable, what is not is refused, and neither stops the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from audit.entries import entry, open_test_ledger
from console.world import make_world
from holdfast.audit.checkpoint import Origin
from holdfast.audit.note import KeyName
from holdfast.audit.opening import make_writer
from holdfast.audit.receipt import Receipt
from holdfast.audit.record import encode
from holdfast.audit.store import AuditStore
from holdfast.audit.tree import hash_leaf
from holdfast.audit.writer import BATCH_RECORDS, AuditWriter, Store
from holdfast.database import Database
from holdfast.errors import HoldfastError, Internal, Unavailable
from holdfast.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from holdfast.audit.record import Entry
    from services.postgres import PostgresServer

TESTS = Path(__file__).parents[1]


class GatedStore:
    """Keeps batches in memory; `gate` makes it slow, `broken` makes it fail."""

    def __init__(self) -> None:
        self.batches: list[list[Entry]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.broken: Exception | None = None
        self.beats = 0
        self.closed = False

    def write(self, batch: Sequence[Entry]) -> list[Receipt | HoldfastError]:
        self.entered.set()
        self.gate.wait()
        if self.broken is not None:
            raise self.broken
        results = [_settle(item, number) for number, item in enumerate(batch, start=len(self.written))]
        self.batches.append([item for item, result in zip(batch, results, strict=True) if isinstance(result, Receipt)])
        return results

    def beat(self) -> None:
        self.beats += 1

    def close(self) -> None:
        self.closed = True

    @property
    def written(self) -> list[Entry]:
        return [item for batch in self.batches for item in batch]

    async def wait_entered(self) -> None:
        await asyncio.to_thread(self.entered.wait)


def _settle(item: Entry, number: int) -> Receipt | HoldfastError:
    try:
        leaf = encode(item.record)
    except HoldfastError as error:
        return error
    return Receipt(Origin(KeyName("log")), number, hash_leaf(leaf), "")


@asynccontextmanager
async def running(
    store: Store,
    *,
    capacity: int = 1000,
    capacity_bytes: int = 256 << 20,
    deadline: float = 60.0,
    lag_limit: int = 1 << 20,
    committed: Callable[[int, float], None] = lambda records, seconds: None,
) -> AsyncIterator[AuditWriter]:
    writer = AuditWriter(
        store,
        capacity=capacity,
        capacity_bytes=capacity_bytes,
        deadline_seconds=deadline,
        lag_limit_bytes=lag_limit,
        committed=committed,
    )
    writer.start()
    try:
        yield writer
    finally:
        if isinstance(store, GatedStore):
            store.gate.set()
        await writer.close()


@pytest.fixture
def store() -> GatedStore:
    return GatedStore()


async def test_append_returns_only_when_the_record_is_durable(store: GatedStore) -> None:
    async with running(store) as writer:
        store.gate.clear()
        appending = asyncio.create_task(writer.append(entry()))
        await store.wait_entered()
        assert not appending.done()
        store.gate.set()
        await appending
        assert len(store.written) == 1


async def test_what_waits_during_a_commit_goes_into_the_next_one_together(store: GatedStore) -> None:
    async with running(store) as writer:
        store.gate.clear()
        first = asyncio.create_task(writer.append(entry(b"first")))
        await store.wait_entered()
        entries = [entry(b"%d" % number) for number in range(BATCH_RECORDS + 20)]
        others = [asyncio.create_task(writer.append(item)) for item in entries]
        await asyncio.sleep(0)
        store.gate.set()
        await asyncio.gather(first, *others)
    assert [len(batch) for batch in store.batches] == [1, BATCH_RECORDS, 20]
    assert store.written[1:] == entries


async def test_a_batch_ends_at_four_mebibytes(store: GatedStore) -> None:
    async with running(store) as writer:
        store.gate.clear()
        first = asyncio.create_task(writer.append(entry()))
        await store.wait_entered()
        others = [asyncio.create_task(writer.append(entry(bytes(1 << 20)))) for _ in range(6)]
        await asyncio.sleep(0)
        store.gate.set()
        await asyncio.gather(first, *others)
    assert [len(batch) for batch in store.batches] == [1, 4, 2]


@pytest.mark.parametrize("fault", [Unavailable("the disk is full"), KeyError("a bug")])
async def test_a_failed_commit_refuses_its_calls_and_only_them(store: GatedStore, fault: Exception) -> None:
    async with running(store) as writer:
        store.broken = fault
        with pytest.raises(Unavailable, match="nothing passes unrecorded; try again"):
            await writer.append(entry())
        store.broken = None
        await writer.append(entry())
    assert len(store.written) == 1


async def test_an_outage_in_the_middle_of_a_batch_refuses_the_rest_and_is_told(
    store: GatedStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(batch: Sequence[Entry]) -> list[Receipt | HoldfastError]:
        down = Unavailable("the disk is full")
        return [_settle(batch[0], 0), Internal("it holds NUL"), *[down for _ in batch[2:]]]

    counted: list[int] = []
    async with running(store, committed=lambda records, seconds: counted.append(records)) as writer:
        store.gate.clear()
        tasks = [asyncio.create_task(writer.append(entry()))]
        await store.wait_entered()
        with monkeypatch.context() as patched:
            patched.setattr(store, "write", write)
            tasks += [asyncio.create_task(writer.append(entry())) for _ in range(4)]
            await asyncio.sleep(0)
            store.gate.set()
            _, kept, refused, *rest = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(kept, Receipt)
        assert isinstance(refused, Internal)
        assert [str(error) for error in rest] == [
            "Holdfast cannot write its audit record, and nothing passes unrecorded; try again"
        ] * 2
        await writer.append(entry())
    assert counted == [1, 1, 1]
    assert [record.getMessage() for record in caplog.records if record.name == "holdfast.audit.writer"] == [
        "the audit record cannot be written, calls get 503 until it can: the disk is full",
        "the audit record can be written again",
    ]


async def test_a_record_that_cannot_be_encoded_spoils_no_other(store: GatedStore) -> None:
    async with running(store) as writer:
        spoilt, good = await asyncio.gather(
            writer.append(entry(error="\udcff")), writer.append(entry()), return_exceptions=True
        )
    assert isinstance(spoilt, Internal)
    assert isinstance(good, Receipt)
    assert len(store.written) == 1


async def test_a_full_queue_refuses_at_once_and_takes_again_later(store: GatedStore) -> None:
    async with running(store, capacity=3) as writer:
        store.gate.clear()
        first = asyncio.create_task(writer.append(entry()))
        await store.wait_entered()
        waiting = [asyncio.create_task(writer.append(entry())) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too many calls wait"):
            await writer.append(entry())
        store.gate.set()
        await asyncio.gather(first, *waiting)
        await writer.append(entry())
    assert len(store.written) == 5


async def test_a_queue_with_too_many_bytes_refuses_at_once_and_takes_again_later(store: GatedStore) -> None:
    large = 64 << 20
    async with running(store, capacity_bytes=4 * large) as writer:
        store.gate.clear()
        first = asyncio.create_task(writer.append(entry()))
        await store.wait_entered()
        waiting = [asyncio.create_task(writer.append(entry(bytes(large)))) for _ in range(3)]
        await asyncio.sleep(0)
        assert 3 * large < writer.queue_bytes() < 4 * large
        failures: list[HoldfastError] = []
        writer.submit(entry(bytes(large)), failures.append)
        with pytest.raises(Unavailable, match="too much waits for Holdfast's audit record; try again"):
            await writer.append(entry(bytes(large)))
        assert isinstance(failures[0], Unavailable)
        waiting.append(asyncio.create_task(writer.append(entry())))
        store.gate.set()
        await asyncio.gather(first, *waiting)
        assert writer.queue_bytes() == 0
        await writer.append(entry(bytes(large)))
    assert len(store.written) == 6


async def test_what_is_larger_than_the_queue_may_be_is_taken_alone(store: GatedStore) -> None:
    async with running(store, capacity_bytes=1000) as writer:
        store.gate.clear()
        first = asyncio.create_task(writer.append(entry(bytes(9000))))
        await asyncio.sleep(0)
        assert not first.done()
        await store.wait_entered()
        second = asyncio.create_task(writer.append(entry(bytes(9000))))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too much waits"):
            await writer.append(entry())
        store.gate.set()
        await asyncio.gather(first, second)


async def test_what_nobody_waits_for_any_more_takes_no_room(store: GatedStore) -> None:
    async with running(store, capacity_bytes=50_000, deadline=0.05) as writer:
        store.gate.clear()
        caught = asyncio.create_task(writer.append(entry()))
        await store.wait_entered()
        late = [asyncio.create_task(writer.append(entry(bytes(20_000)))) for _ in range(2)]
        results = await asyncio.gather(caught, *late, return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)
        assert writer.queue_bytes() == 0
        again = asyncio.create_task(writer.append(entry(bytes(40_000))))
        await asyncio.sleep(0)
        assert writer.queue_bytes() > 40_000
        store.gate.set()
        await asyncio.gather(again, return_exceptions=True)


async def test_a_missed_deadline_refuses_the_call_and_drops_what_nobody_waits_for(store: GatedStore) -> None:
    async with running(store, deadline=0.05) as writer:
        store.gate.clear()
        caught = asyncio.create_task(writer.append(entry(b"in the commit")))
        await store.wait_entered()
        dropped = [asyncio.create_task(writer.append(entry(b"in the queue"))) for _ in range(3)]
        for task in (caught, *dropped):
            with pytest.raises(Unavailable, match=r"not written within 0.05 s"):
                await task
        store.gate.set()
        with contextlib.suppress(Unavailable):  # on a busy machine this one may be late too
            await writer.append(entry(b"later"))
    bodies = [item.bodies[0].content for item in store.written]
    assert b"in the queue" not in bodies
    assert bodies[0] == b"in the commit"


async def test_a_caller_that_stops_waiting_does_not_disturb_the_others(store: GatedStore) -> None:
    async with running(store) as writer:
        store.gate.clear()
        leaving, staying = (asyncio.create_task(writer.append(entry())) for _ in range(2))
        await store.wait_entered()
        leaving.cancel()
        store.gate.set()
        await staying
    assert len(store.written) == 2
    assert leaving.cancelled()


async def test_closing_writes_what_waits_and_refuses_what_comes(store: GatedStore) -> None:
    async with running(store) as writer:
        waiting = [asyncio.create_task(writer.append(entry())) for _ in range(120)]
        await asyncio.sleep(0)
        await writer.close()
        assert all(task.done() for task in waiting)
        with pytest.raises(Unavailable, match="shutting down"):
            await writer.append(entry())
    assert len(store.written) == 120


async def test_an_idle_writer_beats_and_a_closed_one_lets_go_of_its_store(
    store: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.audit.writer.HEARTBEAT_SECONDS", 0.01)
    async with running(store) as writer:
        while store.beats < 3:  # noqa: ASYNC110  the thread tells nobody
            await asyncio.sleep(0.01)
        assert not store.closed
        await writer.append(entry())
    assert store.closed


async def test_what_is_committed_is_counted(store: GatedStore) -> None:
    counted: list[int] = []
    writer = AuditWriter(
        store,
        capacity=10,
        capacity_bytes=1 << 20,
        deadline_seconds=60,
        lag_limit_bytes=1,
        committed=lambda records, seconds: counted.append(records),
    )
    writer.start()
    await writer.append(entry())
    store.broken = Unavailable("the disk is full")
    with pytest.raises(Unavailable):
        await writer.append(entry())
    store.broken = None
    await asyncio.gather(writer.append(entry()), writer.append(entry()))
    await asyncio.gather(writer.append(entry(error="\udcff")), writer.append(entry()), return_exceptions=True)
    with pytest.raises(Internal):
        await writer.append(entry(error="\udcff"))
    await writer.close()
    assert sum(counted) == len(store.written) == 4
    assert 0 not in counted


async def test_a_heartbeat_that_cannot_be_recorded_refuses_no_call(
    store: GatedStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr("holdfast.audit.writer.HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(store, "beat", fail)
    async with running(store) as writer:
        while not caplog.records:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.01)
        await writer.append(entry())
    assert len(store.written) == 1


async def test_the_event_loop_runs_on_while_the_store_hangs(store: GatedStore) -> None:
    async with running(store) as writer:
        store.gate.clear()
        appending = asyncio.create_task(writer.append(entry()))
        await store.wait_entered()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not appending.done()
        store.gate.set()
        await appending


async def test_pieces_of_a_stream_slow_it_down_while_too_much_is_on_its_way(store: GatedStore) -> None:
    failures: list[HoldfastError] = []
    async with running(store, lag_limit=10_000) as writer:
        store.gate.clear()
        for _ in range(3):
            writer.submit(entry(bytes(4000)), failures.append)
        assert writer.lag_bytes > 12_000
        pausing = asyncio.create_task(writer.wait_below_limit())
        await asyncio.sleep(0)
        assert not pausing.done()
        store.gate.set()
        await pausing
    assert writer.lag_bytes == 0
    assert len(store.written) == 3
    assert not failures


async def test_a_piece_that_cannot_be_written_tells_its_stream(store: GatedStore) -> None:
    failures: list[HoldfastError] = []
    async with running(store, capacity=2, lag_limit=1) as writer:
        store.broken = Unavailable("the disk is full")
        writer.submit(entry(), failures.append)
        await writer.wait_below_limit()
        assert [str(error) for error in failures] == [
            "Holdfast cannot write its audit record, and nothing passes unrecorded; try again"
        ]
        store.broken = None
        writer.submit(entry(error="\udcff"), failures.append)
        await writer.wait_below_limit()
        assert isinstance(failures[1], Internal)
        assert writer.lag_bytes == 0
    writer.submit(entry(), failures.append)
    assert isinstance(failures[2], Unavailable)
    assert writer.lag_bytes == 0


@pytest.fixture
def page_limit() -> Iterator[list[int]]:
    """How many pages each SQLite database may have from now on: a disk whose size the test chooses."""
    limit = [1 << 30]

    def set_limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count={limit[0]}")

    event.listen(Pool, "checkout", set_limit)
    yield limit
    event.remove(Pool, "checkout", set_limit)


async def test_a_full_disk_refuses_calls_until_there_is_room_again(
    tmp_path: Path, page_limit: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'audit.db'}")
    async with running(open_test_ledger(tmp_path, database)) as writer:
        await writer.append(entry(b"before"))
        page_limit[0] = 1
        for number in range(3):
            with pytest.raises(Unavailable):
                await writer.append(entry(os.urandom(100_000) + b"%d" % number))
        page_limit[0] = 1 << 30
        await writer.append(entry(b"after"))
    bodies = [body for story in AuditStore(database).iter_calls() for body in story.payloads.values()]
    assert sorted(bodies) == [b"after", b"before"]
    assert [record.message for record in caplog.records if record.name == "holdfast.audit.writer"] == [
        "the audit record cannot be written, calls get 503 until it can: "
        "the audit database cannot be written: the disk is full",
        "the audit record can be written again",
    ]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_database_that_was_stopped_is_told_in_a_sentence(
    tmp_path: Path, make_postgres: Callable[[], PostgresServer], caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    server = make_postgres()
    database = Database.open(server.create_database(), deadline_seconds=5)
    async with running(open_test_ledger(tmp_path, database)) as writer:
        await writer.append(entry(b"before"))
        server.stop(mode)
        for number in range(3):
            with pytest.raises(Unavailable):
                await writer.append(entry(b"meanwhile %d" % number))
        server.start()
        await writer.append(entry(b"after"))
    database.close()
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.exc_info for record in told] == [None, None]
    failed, recovered = (record.getMessage() for record in told)
    assert failed.startswith("the audit record cannot be written, calls get 503 until it can: the audit database ")
    assert recovered == "the audit record can be written again"


async def test_a_fault_of_our_own_is_told_with_its_place(store: GatedStore, caplog: pytest.LogCaptureFixture) -> None:
    async with running(store) as writer:
        store.broken = KeyError("never foreseen")
        with pytest.raises(Unavailable):
            await writer.append(entry())
        store.broken = None
    assert [record.exc_info is not None for record in caplog.records if record.levelno == logging.ERROR] == [True]


ACKNOWLEDGING = """
import asyncio, sys
from pathlib import Path
from audit.entries import entry, open_test_ledger
from holdfast.audit.writer import AuditWriter
from holdfast.database import Database

async def produce(writer, name):
    for number in range(100_000):
        item = entry(f"{name} {number}".encode())
        await writer.append(item)
        print(item.record.call, flush=True)

async def main():
    ledger = open_test_ledger(Path(sys.argv[2]), Database.open(sys.argv[1]))
    writer = AuditWriter(ledger, capacity=1000, deadline_seconds=60, lag_limit_bytes=1)
    writer.start()
    await asyncio.gather(*(produce(writer, name) for name in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 40, 150, 400, 900])
def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path: Path, acknowledged: int) -> None:
    file = tmp_path / "audit.db"
    process = subprocess.Popen(
        [sys.executable, "-c", ACKNOWLEDGING, f"sqlite:///{file}", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )
    assert process.stdout is not None
    heard = [process.stdout.readline() for _ in range(acknowledged)]
    process.send_signal(signal.SIGKILL)
    heard += [line for line in process.stdout if line.endswith("\n")]
    process.wait()
    with closing(sqlite3.connect(file)) as connection:
        kept = {row[0] for row in connection.execute("SELECT call_id FROM records WHERE call_id <> ''")}
        told = {row[0] for row in connection.execute("SELECT audit_id FROM calls")}
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {line.strip() for line in heard} <= kept
    assert kept == told


async def test_the_settings_say_how_much_may_wait_and_how_long(store: GatedStore, tmp_path: Path) -> None:
    store.gate.clear()
    limits = {"queueRecords": 2, "queueBytes": 9000, "deadlineSeconds": 0.05, "streamLagBytes": 1}
    settings = make_world(tmp_path, {"audit": limits}).settings
    metrics = Metrics()
    writer = make_writer(settings, store, metrics)  # type: ignore[arg-type]
    writer.start()
    try:
        overdue = asyncio.create_task(writer.append(entry(b"1")))
        await store.wait_entered()
        writer.submit(entry(b"2"), lambda error: None)
        with pytest.raises(Unavailable, match="too much waits"):
            await writer.append(entry(bytes(9000)))
        writer.submit(entry(b"3"), lambda error: None)
        shown = metrics.registry.get_sample_value
        assert shown("holdfast_audit_queue_length") == 2
        assert shown("holdfast_audit_queue_bytes") == writer.queue_bytes() > 0
        assert writer.lag_bytes > 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.wait_below_limit(), 0)
        with pytest.raises(Unavailable, match="too many calls"):
            await writer.append(entry(b"4"))
        with pytest.raises(Unavailable, match=r"within 0\.05 s"):
            await overdue
    finally:
        store.gate.set()
        await writer.close()
