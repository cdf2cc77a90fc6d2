"""What records refer to by its hash and what lists find calls by: pieces of bodies, and callers.

Both come in order after all logs, and what the logs referred to is sorted then: one pass ticks it off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.audit.export import BlobLine
from holdfast.audit.payload import PIECE_BYTES
from holdfast.audit.verify import findings as found
from holdfast.audit.verify.examine import examine_blob
from holdfast.audit.verify.leaves import LEGACY
from holdfast.audit.verify.scratch import Wanted

if TYPE_CHECKING:
    from holdfast.audit.verify.examine import ExaminedBlob, ExaminedCaller
    from holdfast.audit.verify.findings import Report
    from holdfast.audit.verify.scratch import Row, Scratch

LEGACY_PIECE_BYTES = 1 << 30
"""Bodies from before they were cut were kept whole."""


class Payloads:
    """The pieces that bodies are made of, while they go by."""

    def __init__(self, scratch: Scratch, report: Report) -> None:
        self._report = report
        self._last = ("", "")
        query = "SELECT day, sha256, MIN(log), MIN(seq) FROM needed GROUP BY day, sha256 ORDER BY day, sha256"
        self._wanted = Wanted(scratch.select(query), 2, self._tell_missing)

    def check(self, told: BlobLine | ExaminedBlob) -> None:
        """Take in a piece."""
        self._report.payloads += 1
        key = (told.day, told.sha256)
        wanted = self._wanted.take(key) if key > self._last else None
        self._last = max(self._last, key)
        if wanted is None:
            self._report.add(found.ROWS_FOREIGN, f"no record refers to payload {told.day}/{told.sha256}")
        if isinstance(told, BlobLine):
            is_legacy = wanted is not None and wanted[2].startswith(LEGACY)
            longest = min(max(told.size, PIECE_BYTES), LEGACY_PIECE_BYTES) if is_legacy else PIECE_BYTES
            told = examine_blob(told, longest)
        if told.fault:
            self._report.add(found.BLOB_ALTERED, f"payload {told.day}/{told.sha256} {told.fault}")

    def finish(self) -> None:
        """There are no more pieces."""
        self._wanted.finish()

    def _tell_missing(self, row: Row) -> None:
        day, digest, log, seq = row
        self._report.add(found.PAYLOAD_MISSING, f"payload {day}/{digest} is not there", log, seq)


class Callers:
    """The callers that records name, while they go by."""

    def __init__(self, scratch: Scratch, report: Report, *, all_are_named: bool) -> None:
        self._report = report
        self._last = ""
        self._all_are_named = all_are_named
        self._wanted = Wanted(scratch.select("SELECT DISTINCT id FROM caller ORDER BY id"), 1, self._tell_missing)

    def check(self, told: ExaminedCaller) -> None:
        """Take in a caller."""
        is_wanted = told.id > self._last and self._wanted.take((told.id,)) is not None
        self._last = max(self._last, told.id)
        if not is_wanted and self._all_are_named:
            self._report.add(found.ROWS_FOREIGN, f"no record names caller {told.id}")
        if told.fault:
            self._report.add(found.CALLER_ALTERED, f"caller {told.id} {told.fault}")

    def finish(self) -> None:
        """There are no more callers."""
        self._wanted.finish()

    def _tell_missing(self, row: Row) -> None:
        self._report.add(found.CALLER_ALTERED, f"caller {row[0]} is not there")
