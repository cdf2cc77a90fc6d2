"""What the ledger costs: writing in a crowd, the millionth record, bytes, the verifier. No cluster is needed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import uuid_utils
from sqlalchemy import text

from holdfast.audit.head import HeadFile
from holdfast.audit.keys import KeyFolder
from holdfast.audit.ledger import Ledger, Writer
from holdfast.audit.payload import SALT_BYTES, Body, Slot
from holdfast.audit.record import (
    Answer,
    Call,
    Caller,
    Client,
    Entry,
    Kind,
    Record,
    Ruling,
    Timing,
    timestamp,
)
from holdfast.audit.store import LedgerStore
from holdfast.audit.writer import BATCH_RECORDS, AuditWriter
from holdfast.database import Database
from holdfast.exchange import AuditID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from holdfast.audit.receipt import Receipt
    from holdfast.errors import HoldfastError

    Report = Callable[[str], None]

PRODUCERS = 32
WINDOW = 5_000
BODY_BYTES = 3_000
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete")
RESOURCES = ("pods", "secrets", "configmaps", "deployments", "services", "namespaces")


def calls(count: int, seed: int = 1) -> Iterator[Entry]:
    """Yield the outcomes of `count` calls: 200 users, half of them CI jobs, bodies of 3 kB, a third of them seen."""
    chance = random.Random(seed)  # noqa: S311  no secret hangs on it
    seen = [_body(chance) for _ in range(200)]
    for number in range(count):
        now = datetime.now(UTC)
        content = chance.choice(seen) if chance.random() < 1 / 3 else _body(chance)
        record = _record(chance, AuditID(str(uuid_utils.uuid7())), timestamp(now), number)
        yield Entry(record, (Body(Slot.RESPONSE, content, "application/json", os.urandom(SALT_BYTES)),))


def _body(chance: random.Random) -> bytes:
    fields = {f"field-{number}": f"{chance.getrandbits(64):x}" for number in range(BODY_BYTES // 34)}
    return json.dumps({"kind": "ConfigMap", "data": fields}).encode()


def _record(chance: random.Random, call: AuditID, now: str, number: int) -> Record:
    user, verb, resource = chance.randrange(200), chance.choice(VERBS), chance.choice(RESOURCES)
    namespace, name = f"team-{chance.randrange(50)}", f"object-{chance.randrange(5000)}"
    claims = {"run_id": str(number // 20_000), "repository": f"org/repo-{user % 20}"} if user < 100 else {}
    return Record(
        kind=Kind.OUTCOME,
        call=call,
        at=now,
        identity=Caller("https://issuer.example", f"user-{user}", ("agents",), claims),
        what=Call(
            "GET",
            f"/api/v1/namespaces/{namespace}/{resource}/{name}",
            verb,
            "",
            "v1",
            resource,
            "",
            namespace,
            name,
            True,
        ),
        client=Client("10.0.0.7", "kubectl/v1.33.0 (linux/amd64) kubernetes/abcdef0"),
        decision=Ruling("allow", "agents-read", policy_hash="a" * 64),
        response=Answer(200, "application/json", BODY_BYTES),
        timing=Timing(now, total=9000, upstream=6000),
    )


@dataclass
class Timed:
    """A ledger whose commits are timed."""

    ledger: Ledger
    seconds: list[float]

    def write(self, batch: Sequence[Entry]) -> list[Receipt | HoldfastError]:
        """Write and time a batch."""
        began = time.perf_counter()
        written = self.ledger.write(batch)
        self.seconds.append(time.perf_counter() - began)
        return written

    def beat(self) -> None:
        """As the ledger."""
        self.ledger.beat()

    def close(self) -> None:
        """As the ledger."""
        self.ledger.close()


def open_ledger(url: str, folder: Path) -> tuple[Database, Ledger]:
    """A new ledger with keys of its own."""
    database = Database.open(url)
    writer = Writer("bench", "gw", 10_000_000)
    ledger = Ledger(LedgerStore(database), KeyFolder(folder / "keys"), writer, HeadFile(folder / "audit.head"))
    ledger.open()
    return database, ledger


def measure_writing(url: str, folder: Path, report: Report, records: int = 60_000) -> dict[str, Any]:
    """Records a second with 32 producers through the writer's thread; an append and a commit under that load, ms."""
    database, ledger = open_ledger(url, folder)
    timed = Timed(ledger, [])
    entries = list(calls(records))
    report(f"writing {records} records with {PRODUCERS} producers")
    with closing(database):
        cpu, began = _cpu(), time.perf_counter()
        latencies = asyncio.run(_produce(timed, entries))
        seconds = time.perf_counter() - began
    return {
        "records_per_s": records / seconds,
        "append_p50_ms": 1000 * median(latencies),
        "append_p99_ms": 1000 * quantiles(latencies, n=100)[98],
        "commit_p50_ms": 1000 * median(timed.seconds),
        "commit_p99_ms": 1000 * quantiles(timed.seconds, n=100)[98],
        "records_per_commit": records / len(timed.seconds),
        "cpu_us_per_record": 1e6 * (_cpu() - cpu) / records,
    }


async def _produce(ledger: Timed, entries: list[Entry]) -> list[float]:
    writer = AuditWriter(ledger, capacity=5000, deadline_seconds=60, lag_limit_bytes=1 << 20)
    writer.start()
    latencies: list[float] = []

    async def produce(share: Sequence[Entry]) -> None:
        for entry in share:
            began = time.perf_counter()
            await writer.append(entry)
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(produce(entries[number::PRODUCERS]) for number in range(PRODUCERS)))
    await writer.close()
    return latencies


def measure_growth(url: str, folder: Path, report: Report, records: int = 1_000_000) -> dict[str, Any]:
    """What a record costs from the 1,000th on and up to the last one, in full batches, and what it leaves behind."""
    database, ledger = open_ledger(url, folder)
    timed = Timed(ledger, [])
    with closing(database):
        cpu = _cpu()
        for number, batch in enumerate(batched(calls(records), BATCH_RECORDS)):
            timed.write(batch)
            if number % 200 == 0:
                report(f"growing: {number * BATCH_RECORDS} of {records} records")
        spent = _cpu() - cpu
        ledger.close()
        skipped = 1000 // BATCH_RECORDS
        first = timed.seconds[skipped : skipped + WINDOW // BATCH_RECORDS]
        last = timed.seconds[-WINDOW // BATCH_RECORDS :]
        return {
            "first_us_per_record": 1e6 * median(first) / BATCH_RECORDS,
            "last_us_per_record": 1e6 * median(last) / BATCH_RECORDS,
            "last_to_first": median(last) / median(first),
            "records_per_s": records / sum(timed.seconds),
            "cpu_us_per_record": 1e6 * spent / records,
            "commits": len(timed.seconds),
            "raw_bytes_per_record": _raw_bytes(),
            "stored_bytes_per_record": _stored_bytes(database) / records,
        }


def _raw_bytes() -> float:
    """Bytes of a record's own JSON and body, before anything is added or compressed."""
    sample = list(calls(200))
    return sum(len(entry.bodies[0].content) + 700 for entry in sample) / len(sample)


def _stored_bytes(database: Database) -> int:
    if database.dialect == "postgresql":
        size = "SELECT pg_database_size(current_database())"
    else:
        size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    with database.reading() as connection:
        return int(connection.execute(text(size)).scalar_one())


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
