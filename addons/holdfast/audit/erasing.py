"""Erasing, each time after the record says so.

A `redact` record says what, why and who asked, in a log of its own (`keys.MAINTENANCE`), and is durable before
anything goes. So whatever breaks, and wherever, leaves at worst a record of something that is still there, and the
next command goes on with it. The order, for a day:

    its logs are made again from their leaves: what is not as it was signed is for the auditor, and stays
    redact records of each of its logs, and of what those logs had recorded as erased, are durable
    its leaf hashes are written, its rows go (see `store.dropping`)
    its pieces in the object store go

For bodies, of which records in logs that are as they were signed say whose they are (`signed`): redact records, 500
bodies each; then, in one transaction, the rows with their salts, and the pieces that nothing else of the day refers
to; then their pieces in the object store (see `store.retention`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import batched, groupby
from typing import TYPE_CHECKING

from holdfast.audit.record import Entry, Kind, Record, Redaction, timestamp
from holdfast.audit.retention import PLACES_A_RECORD, Place, Why, carry_over, describe_drop, describe_erasure
from holdfast.audit.store.signed import not_as_signed
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from holdfast.audit.ledger import Ledger
    from holdfast.audit.logs import LogRow
    from holdfast.audit.retention import DayPlan, StoredBody
    from holdfast.audit.store.dropping import DayDropper
    from holdfast.audit.store.retention import References, RetentionStore

RECORDS_A_COMMIT = 100


@dataclass(frozen=True, slots=True)
class Erased:
    """Some bodies were erased, for this reason, and so many bytes freed."""

    bodies: int
    bytes: int
    why: Why


class Eraser:
    """Erases and records it. Blocking; every method raises Unavailable.

    `open_log` opens the log that it is recorded in, at the first thing to record; closing it is the caller's.
    """

    def __init__(
        self,
        store: RetentionStore,
        dropper: DayDropper,
        open_log: Callable[[], Ledger],
        requested_by: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._dropper = dropper
        self._open_log = open_log
        self._requested_by = requested_by
        self._clock = clock
        self._log: Ledger | None = None

    def finish_earlier(self) -> Iterator[int]:
        """Go on with what an earlier command recorded and did not get to; yield how many records it was, bit by bit.

        A day that was recorded and not begun is for whoever plans days: it may stay by now. Raises Conflict when a log
        that tells what to erase, or of which something is to be erased, is not as it was signed.
        """
        yield from self._dropper.finish()
        self._finish_erasures()
        self._store.finish_pieces(self._clock())

    def _finish_erasures(self) -> None:
        """Erase what the last command that recorded any had recorded, and what is still there of it.

        It did the same before it recorded anything, so what earlier ones had recorded is gone.
        """
        has_erased = False
        for redact in self._last_recorded():
            places = [Place.parse(place) for place in redact.payloads]
            log = self._store.find_with_bodies(redact.log.log, places) if places else None
            if log is not None:
                self._dropper.signed.read(log)
                self._store.erase(log, places, self._store.references(log.day))
                has_erased = True
        if has_erased:
            self._store.settle()

    def _last_recorded(self) -> list[Redaction]:
        """What the last command recorded that recorded any, in however many logs."""
        run, recorded = "", list[Redaction]()
        for log in self._store.command_logs():
            signed = self._dropper.signed.read(log)
            if run and signed.run != run:
                break
            if signed.redactions:
                run = signed.run
                recorded += signed.redactions
        return recorded

    def drop_day(self, plan: DayPlan) -> Iterator[int]:
        """Drop one day but for its logs' leaf hashes and last checkpoints; yield how many records it was, bit by bit.

        Raises Conflict when a log of it is not as it was signed, or still written.
        """
        logs = plan.day.logs
        signed = [(log, self._dropper.check(log)) for log in logs]
        for log, found in signed:
            if found.until > plan.day.until:
                raise not_as_signed(log, f"its last record is of {found.until}, not of {plan.day.until} or before")
        dropped = self._store.dropped_origins() | {log.origin for log in logs}
        self._record(carry_over((told for _, found in signed for told in found.redactions), dropped))
        self._record([describe_drop(log, found.until, plan.why, self._requested_by) for log, found in signed])
        yield from self._dropper.drop(plan.day.day, logs, timestamp(self._clock()))
        self._store.settle()
        self._store.remove_day_pieces(plan.day.day)

    def hold(self, bodies: Iterable[StoredBody]) -> Iterator[StoredBody]:
        """Yield the same bodies, each once what is told of it was found to be signed; see `SignedLogs.hold`."""
        return self._dropper.signed.hold(bodies)

    def erase(self, chosen: Iterable[tuple[StoredBody, Why]]) -> Iterator[Erased]:
        """Erase bodies, which come day by day and log by log; yield what is done, step by step."""
        for day, of_day in groupby(chosen, key=lambda found: found[0].log.day):
            references = self._store.references(day)
            for _, of_log in groupby(of_day, key=lambda found: found[0].log.id):
                yield from self._erase_in_log(of_log, references)
        self._store.settle()
        self._store.finish_pieces(self._clock())

    def _erase_in_log(self, chosen: Iterable[tuple[StoredBody, Why]], references: References) -> Iterator[Erased]:
        waiting: defaultdict[Why, list[Place]] = defaultdict(list)
        for body, why in chosen:
            waiting[why].append(body.place)
            if len(waiting[why]) == PLACES_A_RECORD:
                yield self._erase_places(body.log, waiting.pop(why), why, references)
        for why, places in waiting.items():
            yield self._erase_places(body.log, places, why, references)

    def _erase_places(self, log: LogRow, places: Sequence[Place], why: Why, references: References) -> Erased:
        self._record(describe_erasure(log, places, why, self._requested_by))
        return Erased(len(places), self._store.erase(log, places, references), why)

    def _record(self, redactions: Sequence[Redaction]) -> None:
        """Return when all of it is durable."""
        if not redactions:
            return
        self._log = self._log or self._open_log()
        at = timestamp(self._clock())
        for some in batched(redactions, RECORDS_A_COMMIT):
            for told in self._log.write([Entry(Record(kind=Kind.REDACT, at=at, redact=redact)) for redact in some]):
                if isinstance(told, HoldfastError):
                    raise told
