"""Runs the benchmarks; see scripts/bench."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import get_token, identity, ledger, ledger_crash, ledger_growth, ledger_queries, ledger_verify, parts
from benchmarks.databases import KINDS, Databases, open_databases
from benchmarks.site import Site
from testcluster.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

CLUSTER_PARTS = ("throughput", "latency", "holds", "calls", "large", "watch", "profile")
LEDGER_PARTS = ("ledger-writing", "ledger-growth", "ledger-verify", "ledger-queries", "ledger-crash")
PARTS = (*CLUSTER_PARTS, *LEDGER_PARTS, "identity", "get-token")
WRITING_RECORDS = 60_000


def main(
    only: Annotated[
        list[str] | None, typer.Argument(help=f"Parts to run: {', '.join(PARTS)}; all when absent.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long the watch lasts.")] = 10,
    records: Annotated[
        int, typer.Option(min=1000, help="Over how many records ledger-growth, -verify and -queries go.")
    ] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often ledger-crash kills the writer.")] = 200,
    database: Annotated[
        list[str] | None, typer.Option(help=f"Where the ledger's parts write: {', '.join(KINDS)}; both when absent.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="How many damaged tokens identity tries.")] = 1_000_000,
    results: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("bench-results"),
) -> None:
    """Measure Holdfast.

    \b
    Against a real API server, paired with the alternatives in the same run:
      throughput      requests/s and CPU a request: direct, stock mitmdump, Holdfast
      latency         p50 and p99 at 50 requests/s, direct and through Holdfast
      holds           other calls with nothing waiting and with 300 calls waiting
      calls           memory over 10,000 calls
      large           memory over one response of 200 MB
      watch           memory over a long watch
      profile         where a request's CPU goes
    The ledger alone, without a cluster, on SQLite and on PostgreSQL:
      ledger-writing  records/s of 32 producers, an append and a commit, CPU a record
      ledger-growth   the last of very many records against the first ones, paired; bytes, CPU, commits
      ledger-verify   export and verification, with payloads and without
      ledger-queries  lists of calls by every filter and pair of filters
      ledger-crash    kills at random moments: what was lost, what the verifier says
    By itself:
      identity        tokens verified a second, the first time and again; a flood of unknown keys; damaged tokens
      get-token       the start of `holdfast get-token` when a token is at hand, paired with that of Python alone
    """
    chosen = only or list(PARTS)
    _refuse_unknown("part", chosen, PARTS)
    kinds = database or list(KINDS)
    _refuse_unknown("database", kinds, KINDS)
    results.mkdir(parents=True, exist_ok=True)
    progress = Progress(sys.stderr.write, sys.stderr.isatty())
    site: Site | None = None
    figures: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "cores": os.cpu_count(), "python": sys.version}
    file = results / f"bench-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json"
    try:
        for part in chosen:
            if part in LEDGER_PARTS:
                figures[part] = {}
                for kind in kinds:  # some take long: keep what there is
                    figures[part][kind] = _measure_ledger(part, kind, progress, records, rounds)
                    file.write_text(json.dumps(figures, indent=2))
            elif part == "identity":
                with tempfile.TemporaryDirectory() as folder:
                    figures[part] = identity.measure_identity(Path(folder), progress, tokens)
            elif part == "get-token":
                figures[part] = get_token.measure_get_token(progress)
            else:
                site = site or Site().start(progress)
                figures[part] = _measure(part, site, progress, minutes, results)
            progress.done()
            _print(part, figures[part])
            file.write_text(json.dumps(figures, indent=2))
    finally:
        if site:
            site.close()
    print(f"kept in {file}")


def _refuse_unknown(what: str, chosen: list[str], known: tuple[str, ...]) -> None:
    unknown = set(chosen) - set(known)
    if unknown:
        raise typer.BadParameter(f"there is no {what} {', '.join(sorted(unknown))}; there are {', '.join(known)}")


def _measure_ledger(part: str, kind: str, progress: Progress, records: int, rounds: int) -> dict[str, Any]:
    def report(text: str) -> None:
        progress(f"{kind}, {text}")

    measures: dict[str, Callable[[Databases], dict[str, Any]]] = {
        "ledger-writing": lambda at: ledger.measure_writing(at, report, min(records, WRITING_RECORDS)),
        "ledger-growth": lambda at: ledger_growth.measure_growth(at, report, records),
        "ledger-verify": lambda at: ledger_verify.measure_verify(at, report, records),
        "ledger-queries": lambda at: _measure_queries(at, report, records),
        "ledger-crash": lambda at: ledger_crash.measure_crash(at, report, rounds),
    }
    with open_databases(kind) as databases:
        return measures[part](databases)


def _measure_queries(databases: Databases, report: Callable[[str], None], records: int) -> dict[str, float]:
    with databases.make() as place:
        return ledger_queries.measure_queries(records, place.url, report)


def _measure(part: str, site: Site, progress: Progress, minutes: float, results: Path) -> dict[str, Any]:
    if part == "watch":
        return parts.measure_watch(site, progress, minutes)
    if part == "profile":
        return parts.profile(site, progress, results)
    measures = {
        "throughput": parts.measure_throughput,
        "latency": parts.measure_latency,
        "holds": parts.measure_holds,
        "calls": parts.measure_calls,
        "large": parts.measure_large_response,
    }
    return measures[part](site, progress)


def _print(part: str, figures: dict[str, Any]) -> None:
    table = Table(title=part)
    if part in LEDGER_PARTS:  # many figures of few databases: a row each
        names = list(dict.fromkeys(name for one in figures.values() for name in one))
        figures = {name: {kind: one.get(name) for kind, one in figures.items()} for name in names}
    rows = figures if all(isinstance(value, dict) for value in figures.values()) else {part: figures}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    if part == "profile":
        rows, columns = {name: {"share": share} for name, share in figures["shares"].items()}, ["share"]
    table.add_column("")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for name, row in rows.items():
        table.add_row(name, *(_shown(row.get(column)) for column in columns))
    Console(width=180).print(table)


def _shown(value: object) -> str:
    if isinstance(value, float):
        digits = 4 if abs(value) < 1 else 2 if abs(value) < 10 else 1
        return f"{value:,.{digits}f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)


typer.run(main)
