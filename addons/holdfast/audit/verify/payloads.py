"""What records refer to by its hash and what lists find calls by: pieces of bodies, and callers.

Both come in order after all logs, and what the logs referred to is sorted then: one pass ticks it off.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from holdfast.audit.callers import caller_claims, caller_id
from holdfast.audit.payload import PIECE_BYTES, decompress
from holdfast.audit.verify import findings as found
from holdfast.audit.verify.leaves import LEGACY
from holdfast.audit.verify.scratch import Wanted
from holdfast.errors import Internal

if TYPE_CHECKING:
    from holdfast.audit.export import BlobLine, CallerLine
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

    def check(self, line: BlobLine) -> None:
        """Take in a piece."""
        self._report.payloads += 1
        key = (line.day, line.sha256)
        wanted = self._wanted.take(key) if key > self._last else None
        self._last = max(self._last, key)
        if wanted is None:
            self._report.add(found.ROWS_FOREIGN, f"no record refers to payload {line.day}/{line.sha256}")
        what = self._find_fault(line, may_be_long=wanted is not None and wanted[2].startswith(LEGACY))
        if what:
            self._report.add(found.BLOB_ALTERED, f"payload {line.day}/{line.sha256} {what}")

    def finish(self) -> None:
        """There are no more pieces."""
        self._wanted.finish()

    def _find_fault(self, line: BlobLine, *, may_be_long: bool) -> str:
        if line.body is None:
            return "is not in the object store"
        longest = min(max(line.size, PIECE_BYTES), LEGACY_PIECE_BYTES) if may_be_long else PIECE_BYTES
        try:
            content = decompress(line.codec, line.body, longest)
        except Internal as error:
            return f"cannot be read: {error}"
        is_right = (sha256(content).hexdigest(), len(content)) == (line.sha256, line.size)
        return "" if is_right else "has other bytes"

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

    def check(self, line: CallerLine) -> None:
        """Take in a caller."""
        is_wanted = line.id > self._last and self._wanted.take((line.id,)) is not None
        self._last = max(self._last, line.id)
        if not is_wanted and self._all_are_named:
            self._report.add(found.ROWS_FOREIGN, f"no record names caller {line.id}")
        expected = _claims_of(line.caller)
        if expected is None:
            self._report.add(found.CALLER_ALTERED, f"caller {line.id} cannot be read")
        elif caller_id(line.caller) != line.id or sorted(line.claims) != expected:
            self._report.add(found.CALLER_ALTERED, f"caller {line.id} is not what it is indexed as")

    def finish(self) -> None:
        """There are no more callers."""
        self._wanted.finish()

    def _tell_missing(self, row: Row) -> None:
        self._report.add(found.CALLER_ALTERED, f"caller {row[0]} is not there")


def _claims_of(caller: str) -> list[tuple[str, str]] | None:
    try:
        return sorted(caller_claims(msgspec.json.decode(caller).get("claims", {})))
    except (msgspec.MsgspecError, AttributeError, TypeError, RecursionError):
        return None
