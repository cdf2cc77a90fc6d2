"""What the auditor waits for: the export of a record, and its verification with and without payloads."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime
from itertools import batched
from typing import TYPE_CHECKING

from benchmarks.ledger import calls, open_ledger, write
from holdfast.audit.export import write_export
from holdfast.audit.keys import KeyFolder
from holdfast.audit.record import timestamp
from holdfast.audit.store.export import export_lines
from holdfast.audit.verify import Anchoring, examined_lines, verify_lines
from holdfast.audit.verify.workers import default_sharing
from holdfast.database import Database

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.databases import Databases, Place
    from benchmarks.ledger import Report
    from holdfast.audit.note import Verifier
    from holdfast.audit.verify import Report as Verdict

FILLED_AT_ONCE = 5_000


def measure_verify(databases: Databases, report: Report, records: int) -> dict[str, float | str]:
    """Seconds of an export and of its verification from the file, with payloads and without; without anchors."""
    with databases.make() as place:
        with open_ledger(place) as (_, ledger):
            for number, batch in enumerate(batched(calls(records), FILLED_AT_ONCE)):
                write(ledger, batch)
                report(f"filling: {(number + 1) * FILLED_AT_ONCE} of {records} records")
        root = KeyFolder(place.folder / "keys").root_verifier()
        figures: dict[str, float | str] = {"processes": 1 + default_sharing().workers}
        for name, payloads in (("", True), ("bare_", False)):
            report(f"exporting and verifying, {'with' if payloads else 'without'} payloads")
            file = place.folder / f"{name}export"
            seconds = _export(place, file, payloads=payloads)
            figures |= {f"{name}export_s": seconds, f"{name}export_mb": file.stat().st_size / 1e6}
            figures |= _verify(name, file, root)
        return figures


def _export(place: Place, file: Path, *, payloads: bool) -> float:
    began = time.perf_counter()
    with closing(Database.open_readonly(place.url)) as database, file.open("wb") as stream:
        write_export(export_lines(database, "bench", timestamp(datetime.now(UTC)), payloads=payloads), stream)
    return time.perf_counter() - began


def _verify(name: str, file: Path, root: Verifier) -> dict[str, float | str]:
    began = time.perf_counter()
    with file.open("rb") as stream:
        verdict: Verdict = verify_lines(examined_lines(stream, root), root, Anchoring())
    seconds = time.perf_counter() - began
    return {
        f"{name}verify_s": seconds,
        f"{name}leaves_per_s": verdict.leaves / seconds,
        f"{name}verdict": verdict.verdict().name,
    }
