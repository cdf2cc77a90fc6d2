"""A writer that is killed at a random moment, and what must be found of its record afterwards.

Run as a program, it is the writer: producers record intents and outcomes through the group-commit thread and print
what was acknowledged. Imported, it kills such a program and looks.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from audit.entries import entry, new_id, record
from holdfast.audit.head import HeadFile
from holdfast.audit.keys import KeyFolder
from holdfast.audit.ledger import Ledger, Writer
from holdfast.audit.record import Entry, Kind, decode
from holdfast.audit.store import LedgerStore
from holdfast.audit.store.export import export_lines
from holdfast.audit.tree import hash_leaf, root_of
from holdfast.audit.verify import Anchoring, Report, verify_lines
from holdfast.audit.writer import AuditWriter
from holdfast.database import Database

TESTS = Path(__file__).parents[1]
PRODUCERS = 8


@dataclass(frozen=True)
class Acknowledged:
    """What the writer was told to be durable before it died."""

    origin: str
    seq: int
    leaf_hash: str
    kind: str
    call: str


def open_writer(url: str, folder: Path) -> AuditWriter:
    """The gateway's own writer on a database and a state folder."""
    ledger = Ledger(
        LedgerStore(Database.open(url)),
        KeyFolder(folder / "keys"),
        Writer("test", "gw", 1_000_000),
        HeadFile(folder / "audit.head"),
    )
    ledger.open()
    return AuditWriter(ledger, capacity=1000, deadline_seconds=60, lag_limit_bytes=1 << 20)


async def produce(writer: AuditWriter, name: int) -> None:
    """Record calls for ever, an intent and an outcome each."""
    for number in range(1_000_000):
        call = new_id()
        for item in (Entry(record(call, Kind.INTENT)), entry(b"%d %d" % (name, number), call=call)):
            receipt = await writer.append(item)
            kind = item.record.kind.value
            print(receipt.origin, receipt.seq, receipt.leaf_hash.hex(), kind, call, flush=True)


async def run(url: str, folder: Path) -> None:
    """Produce until killed."""
    writer = open_writer(url, folder)
    writer.start()
    print("ready", flush=True)
    await asyncio.gather(*(produce(writer, name) for name in range(PRODUCERS)))


def run_and_kill(url: str, folder: Path, seconds: float) -> list[Acknowledged]:
    """Start the writer, kill it that long after it is ready; return what it had been told."""
    command = [sys.executable, "-m", "audit.crashing", url, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(TESTS)})
    assert process.stdout is not None
    ready = process.stdout.readline()
    assert ready == "ready\n", ready
    killer = threading.Timer(seconds, process.send_signal, (signal.SIGKILL,))
    killer.start()
    lines = [line for line in process.stdout if line.endswith("\n")]
    killer.join()
    process.wait()
    told = (line.split() for line in lines)
    return [Acknowledged(origin, int(seq), leaf, kind, call) for origin, seq, leaf, kind, call in told]


def find_losses(url: str, acknowledged: list[Acknowledged]) -> list[Acknowledged]:
    """Those records that were acknowledged and are not in the database, in their place and unchanged."""
    database = Database.open(url)
    try:
        kept = _kept(LedgerStore(database))
    finally:
        database.close()
    return [told for told in acknowledged if kept.get((told.origin, told.seq)) != told.leaf_hash]


def find_incomplete(url: str) -> set[str]:
    """The calls whose intent is in the database and whose outcome is not."""
    database = Database.open(url)
    try:
        store = LedgerStore(database)
        told = [decode(leaf).record for log in store.all_logs() for leaf in store.leaves(log)]
    finally:
        database.close()
    ended = {item.call for item in told if item.kind is Kind.OUTCOME}
    return {item.call for item in told if item.kind is Kind.INTENT} - ended


def verify_after(url: str, folder: Path) -> Report:
    """The auditor's verdict on what is left, without anchors."""
    database = Database.open_readonly(url)
    try:
        lines = export_lines(database, "test", "2026-01-01T00:00:00.000000Z")
        return verify_lines(lines, KeyFolder(folder / "keys").root_verifier(), Anchoring())
    finally:
        database.close()


def _kept(store: LedgerStore) -> dict[tuple[str, int], str]:
    kept = {}
    for log in store.all_logs():
        hashes = [hash_leaf(leaf) for leaf in store.leaves(log)]
        assert root_of(hashes).hex() == log.root
        kept |= {(str(log.origin), seq): leaf_hash.hex() for seq, leaf_hash in enumerate(hashes)}
    return kept


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], Path(sys.argv[2])))
