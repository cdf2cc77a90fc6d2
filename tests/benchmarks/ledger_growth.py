"""Whether a record costs more the more there are, and what it leaves behind.

A machine that others use is not equally fast at the beginning and at the end of a run. So records are written at the
end of the large database and at the beginning of a new one in turn, `PAIRS` times, each time by the same producers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import batched, islice
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.databases import stored_bytes
from benchmarks.ledger import WARM_UP, Burst, calls, open_ledger, write
from holdfast.audit.record import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.databases import Databases
    from benchmarks.ledger import Report
    from holdfast.audit.ledger import Ledger
    from holdfast.audit.record import Entry

WINDOW = 5_000
PAIRS = 7


@dataclass
class _Sum:
    """What all of the filling took."""

    records: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    commits: int = 0

    def add(self, burst: Burst) -> None:
        self.records += burst.records
        self.seconds += burst.seconds
        self.cpu += burst.cpu
        self.commits += len(burst.commits)


@dataclass
class _Windows:
    """Windows of one place in the record, microseconds a record."""

    wall: list[float] = field(default_factory=list)
    commit: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)


def measure_growth(databases: Databases, report: Report, records: int) -> dict[str, float]:
    """Microseconds a record from the 1,000th on and up to the last, median and paired ratio; bytes, CPU, commits."""
    entries = calls(records + PAIRS * (WARM_UP + WINDOW))
    filling, first, last = _Sum(), _Windows(), _Windows()
    with databases.make() as place, open_ledger(place) as (database, ledger):
        empty, server_cpu = stored_bytes(database), databases.server_cpu()
        for batch in batched(islice(entries, records), WINDOW):
            filling.add(write(ledger, batch))
            report(f"growing: {filling.records} of {records} records, {filling.seconds:.0f} s of writing")
        server_cpu = databases.server_cpu() - server_cpu
        stored = stored_bytes(database) - empty
        for turn in range(PAIRS):
            report(f"comparing the first records with the last: {turn + 1} of {PAIRS}")
            with databases.make() as other, open_ledger(other) as (_, small):
                _measure(first, small, calls(WARM_UP + WINDOW, seed=2 + turn), databases)
            _measure(last, ledger, islice(entries, WARM_UP + WINDOW), databases)
    raw = _raw_bytes()
    return {
        **_compare("", first.wall, last.wall),
        **_compare("commit_", first.commit, last.commit),
        **_compare("cpu_", first.cpu, last.cpu),
        **(_compare("server_cpu_", first.server, last.server) if databases.server else {}),
        "records_per_s": records / filling.seconds,
        "cpu_us_per_record": 1e6 * filling.cpu / records,
        **({"server_cpu_us_per_record": 1e6 * server_cpu / records} if databases.server else {}),
        "commits_per_record": filling.commits / records,
        "raw_bytes_per_record": raw,
        "stored_bytes_per_record": stored / records,
        "stored_to_raw": stored / records / raw,
    }


def _measure(windows: _Windows, ledger: Ledger, entries: Iterator[Entry], databases: Databases) -> None:
    ready = list(entries)
    write(ledger, ready[:WARM_UP])
    server_cpu = databases.server_cpu()
    burst = write(ledger, ready[WARM_UP:])
    windows.server.append(1e6 * (databases.server_cpu() - server_cpu) / burst.records)
    windows.wall.append(1e6 * burst.seconds / burst.records)
    windows.commit.append(1e6 * sum(burst.commits) / burst.records)
    windows.cpu.append(1e6 * burst.cpu / burst.records)


def _compare(name: str, first: list[float], last: list[float]) -> dict[str, float]:
    return {
        f"first_{name}us": median(first),
        f"last_{name}us": median(last),
        f"{name}last_to_first": median(b / a for a, b in zip(first, last, strict=True)),
    }


def _raw_bytes() -> float:
    """Bytes of a record's own JSON and bodies, before anything is added or compressed."""
    sample = list(calls(1000))
    bodies = sum(len(body.content) for entry in sample for body in entry.bodies)
    return (bodies + sum(len(encode(entry.complete())) for entry in sample)) / len(sample)
