"""What is kept how long: whole days of the record by age and size, bodies by rule, and one person's bodies on demand.

Whatever is erased is on record first: a `redact` record says what, why and who asked, in a log of its own
(`keys.MAINTENANCE`), and is durable before anything goes. So a crash leaves at worst a record of something that is
still there, and the next run finishes it. Of a day that is dropped stay its logs' leaf hashes, 32 bytes a record, and
their last checkpoints, which keep every proof and every anchor good.

Deciding is pure (`plan_days`, `PayloadRule.applies`); `Eraser` does it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import batched
from typing import TYPE_CHECKING, Protocol

from holdfast.audit.record import Entry, Kind, Record, Redaction, Seen, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from holdfast.audit.receipt import Receipt
    from holdfast.audit.store.ledger import LogRow
    from holdfast.audit.store.retention import RetentionStore
    from holdfast.errors import HoldfastError
    from holdfast.settings import PayloadRetention, Retention

PLACES_A_RECORD = 500
"""How many bodies one `redact` record names."""


@dataclass(frozen=True, slots=True)
class DayUsage:
    """One day of the record: how many records and bytes it has, and whether all of its logs have ended."""

    day: str
    logs: int
    records: int
    bytes: int
    ended: bool


@dataclass(frozen=True, slots=True)
class DayPlan:
    """A day that is to be dropped, and why."""

    usage: DayUsage
    reason: str


@dataclass(frozen=True, slots=True)
class StoredBody:
    """A stored body, and what its call is looked for by. `place` is `SEQ/SLOT`."""

    log: int
    place: str
    day: str
    resource: str
    verb: str
    namespace: str
    username: str
    verdict: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose bodies are meant; what is empty or None means any."""

    user: str = ""
    issuer: str = ""
    call: str = ""
    since: datetime | None = None
    until: datetime | None = None
    before_day: str = ""


@dataclass(frozen=True, slots=True)
class PayloadRule:
    """Bodies of calls that match are erased when they are older than `days`; an empty list matches all, globs work."""

    name: str
    days: int
    resources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()

    def applies(self, body: StoredBody, now: datetime) -> bool:
        """Whether a body is to go."""
        return body.day < last_kept_day(now, self.days) and all(
            not patterns or any(fnmatchcase(value, pattern) for pattern in patterns)
            for patterns, value in (
                (self.resources, body.resource),
                (self.verbs, body.verb),
                (self.namespaces, body.namespace),
                (self.users, body.username),
                (self.verdicts, body.verdict),
            )
        )


class Recorder(Protocol):
    """Makes a record durable: a `Ledger`."""

    def write(self, batch: Sequence[Entry]) -> Sequence[Receipt | HoldfastError]:
        """Return when all of it is durable, or raise."""


def last_kept_day(now: datetime, days: int) -> str:
    """The oldest day (UTC) that is no older than so many days."""
    return (now.astimezone(UTC) - timedelta(days=days)).date().isoformat()


def plan_days(days: Sequence[DayUsage], settings: Retention, now: datetime) -> list[DayPlan]:
    """The days to drop, oldest first: those that are too old, then as many as must go for the rest to fit.

    Never today's, and never one with a log that may still be written.
    """
    planned: list[DayPlan] = []
    left = sum(usage.bytes for usage in days)
    for usage in sorted(days, key=lambda usage: usage.day):
        reason = _reason_to_drop(usage, settings, now, left)
        if reason and usage.ended and usage.day < last_kept_day(now, 0):
            planned.append(DayPlan(usage, reason))
            left -= usage.bytes
    return planned


def _reason_to_drop(usage: DayUsage, settings: Retention, now: datetime, left: int) -> str:
    if settings.max_age_days is not None and usage.day < last_kept_day(now, settings.max_age_days):
        return f"older than {settings.max_age_days} days"
    if settings.max_bytes is not None and left > settings.max_bytes:
        return f"more than {settings.max_bytes} bytes in all"
    return ""


def read_rules(rules: Iterable[PayloadRetention]) -> list[PayloadRule]:
    """The payload rules of the settings."""
    return [
        PayloadRule(
            rule.name, rule.older_than_days, rule.resources, rule.verbs, rule.namespaces, rule.users, rule.verdicts
        )
        for rule in rules
    ]


def plan_bodies(
    bodies: Iterable[StoredBody], rules: Sequence[PayloadRule], dropped_days: Collection[str], now: datetime
) -> dict[PayloadRule, list[StoredBody]]:
    """The bodies that each rule erases, of days that stay; the first rule that applies takes a body."""
    planned: dict[PayloadRule, list[StoredBody]] = {rule: [] for rule in rules}
    for body in bodies:
        rule = next((rule for rule in rules if rule.applies(body, now)), None)
        if rule is not None and body.day not in dropped_days:
            planned[rule].append(body)
    return planned


class Eraser:
    """Erases, and records first that it will. Blocking; every method raises Unavailable."""

    def __init__(
        self, store: RetentionStore, recorder: Recorder, requested_by: str, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._requested_by = requested_by
        self._clock = clock

    def drop_day(self, plan: DayPlan) -> None:
        """Drop one day but for its logs' leaf hashes and last checkpoints."""
        logs = self._store.logs_of(plan.usage.day)
        self._record([Redaction(_seen(log), plan.reason, self._requested_by) for log in logs])
        self._store.drop_day(plan.usage.day, timestamp(self._clock()))

    def erase(self, bodies: Iterable[StoredBody], reason: str, rule: str = "") -> Iterator[int]:
        """Erase bodies; yield how many, step by step."""
        by_log: dict[int, list[str]] = defaultdict(list)
        for body in bodies:
            by_log[body.log].append(body.place)
        for number, places in by_log.items():
            log = self._store.log(number)
            for some in batched(places, PLACES_A_RECORD):
                self._record([Redaction(_seen(log), reason, self._requested_by, rule, some)])
                self._store.erase(log, some)
                yield len(some)

    def _record(self, redactions: Sequence[Redaction]) -> None:
        now = timestamp(self._clock())
        if redactions:
            self._recorder.write([Entry(Record(kind=Kind.REDACT, at=now, redact=told)) for told in redactions])


def _seen(log: LogRow) -> Seen:
    return Seen(log.origin, log.size, log.root)
