"""A load for the ledger, and what writing costs in a crowd. No cluster is needed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import TYPE_CHECKING

import uuid_utils

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
from holdfast.audit.writer import AuditWriter
from holdfast.database import Database
from holdfast.exchange import AuditID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.databases import Databases, Place
    from holdfast.audit.receipt import Receipt
    from holdfast.errors import HoldfastError

    Report = Callable[[str], None]

PRODUCERS = 32
WARM_UP = 1_000
"""So many records of a new database, or after a pause, are not measured."""

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
        identity=Caller(issuer="https://issuer.example", username=f"user-{user}", groups=("agents",), claims=claims),
        what=Call(
            method="GET",
            uri=f"/api/v1/namespaces/{namespace}/{resource}/{name}",
            verb=verb,
            api_group="",
            api_version="v1",
            resource=resource,
            subresource="",
            namespace=namespace,
            name=name,
            is_resource=True,
        ),
        client=Client(peer="10.0.0.7", user_agent="kubectl/v1.33.0 (linux/amd64) kubernetes/abcdef0"),
        decision=Ruling(effect="allow", rule="agents-read", policy_hash="a" * 64),
        response=Answer(code=200, content_type="application/json", bytes=BODY_BYTES),
        timing=Timing(received_at=now, total=9000, upstream=6000),
    )


@dataclass
class _Timed:
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
        """Nothing: who opened the ledger writes more, perhaps, and closes it."""


@dataclass(frozen=True)
class Burst:
    """What it took to write some records: seconds in all, of each append and of each commit; CPU seconds here."""

    records: int
    seconds: float
    cpu: float
    appends: list[float]
    commits: list[float]


@contextmanager
def open_ledger(place: Place) -> Iterator[tuple[Database, Ledger]]:
    """A new ledger with keys of its own, closed when the block ends."""
    with closing(Database.open(place.url)) as database:
        keys, head_file = KeyFolder(place.folder / "keys"), HeadFile(place.folder / "audit.head")
        ledger = Ledger(LedgerStore(database), keys, Writer("bench", "gw", 10_000_000), head_file)
        ledger.open()
        with closing(ledger):
            yield database, ledger


def write(ledger: Ledger, entries: Sequence[Entry]) -> Burst:
    """Write `entries` through a writer's thread, with PRODUCERS that each wait for one record at a time."""
    timed = _Timed(ledger, [])
    cpu, began = _cpu(), time.perf_counter()
    appends = asyncio.run(_produce(timed, entries))
    return Burst(len(entries), time.perf_counter() - began, _cpu() - cpu, appends, timed.seconds)


async def _produce(ledger: _Timed, entries: Sequence[Entry]) -> list[float]:
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


def measure_writing(databases: Databases, report: Report, records: int) -> dict[str, float]:
    """Records a second with PRODUCERS; an append and a commit under that load, in ms; CPU a record, in us."""
    entries = list(calls(WARM_UP + records))
    report(f"writing {records} records with {PRODUCERS} producers")
    with databases.make() as place, open_ledger(place) as (_, ledger):
        write(ledger, entries[:WARM_UP])
        server_cpu = databases.server_cpu()
        burst = write(ledger, entries[WARM_UP:])
        server_cpu = databases.server_cpu() - server_cpu
    return {
        "records_per_s": records / burst.seconds,
        "append_p50_ms": 1000 * median(burst.appends),
        "append_p99_ms": 1000 * quantiles(burst.appends, n=100)[98],
        "commit_p50_ms": 1000 * median(burst.commits),
        "commit_p99_ms": 1000 * quantiles(burst.commits, n=100)[98],
        "records_per_commit": records / len(burst.commits),
        "cpu_us_per_record": 1e6 * burst.cpu / records,
        **({"server_cpu_us_per_record": 1e6 * server_cpu / records} if databases.server else {}),
    }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
