"""Runs the benchmarks; see scripts/bench."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import parts
from benchmarks.site import Site
from testcluster.progress import Progress

PARTS = ("throughput", "latency", "holds", "calls", "large", "watch", "profile")


def main(
    only: Annotated[
        list[str] | None, typer.Argument(help=f"Parts to run: {', '.join(PARTS)}; all when absent.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long the watch lasts.")] = 10,
    results: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("bench-results"),
) -> None:
    """Measure Holdfast against a real API server, paired with the alternatives in the same run."""
    chosen = only or list(PARTS)
    unknown = set(chosen) - set(PARTS)
    if unknown:
        raise typer.BadParameter(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    results.mkdir(parents=True, exist_ok=True)
    progress = Progress(sys.stderr.write, sys.stderr.isatty())
    site = Site()
    figures: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "cores": os.cpu_count(), "python": sys.version}
    try:
        site.start(progress)
        for part in chosen:
            figures[part] = _measure(part, site, progress, minutes, results)
            progress.done()
            _print(part, figures[part])
    finally:
        site.close()
    file = results / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.write_text(json.dumps(figures, indent=2))
    print(f"kept in {file}")


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
        return f"{value:,.4f}" if abs(value) < 1 else f"{value:,.1f}"
    return "" if value is None else str(value)


typer.run(main)
