"""What is kept how long: whole days of the record by age and size, bodies by rule, and one person's bodies on request.

Deciding, from values; `erasing` carries it out. Days go the oldest first and never past one that may still be
written: a call that spans midnight has its records in two days, and what is left of it must fit together. By age a
day goes once its last record is as old as that, too, be it the one that closed a log long after midnight.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import TYPE_CHECKING

from holdfast.audit.logs import LogRow
from holdfast.audit.payload import Slot
from holdfast.audit.record import CallRow, Redaction, Seen, column_text, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from holdfast.audit.record import Leaf
    from holdfast.settings.audit import PayloadRetention, Retention

    type CallTest = Callable[[CallRow], bool]

PLACES_A_RECORD = 500
"""How many bodies one `redact` record names."""

CLOCK_SLACK = timedelta(hours=1)
"""So long after midnight a gateway whose clock is behind may still begin a log of the day before."""


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the record: its logs that were not dropped, and those among them that may still be written.

    `until` is the latest time of their last records.
    """

    day: str
    logs: tuple[LogRow, ...]
    unended: tuple[LogRow, ...] = ()
    until: str = ""

    @property
    def records(self) -> int:
        """How many records it has."""
        return sum(log.size for log in self.logs)


@dataclass(frozen=True, slots=True)
class Why:
    """Why something is erased: in words, and by which retention rule, if by one."""

    reason: str
    rule: str = ""


@dataclass(frozen=True, slots=True)
class DayPlan:
    """A day that is to be dropped, what that frees in bytes, about, and why."""

    day: Day
    bytes: int
    why: Why


@dataclass(frozen=True, slots=True)
class Place:
    """Where a body hangs in its log."""

    seq: int
    slot: Slot

    def __str__(self) -> str:
        """As a `redact` record names it."""
        return f"{self.seq}/{self.slot}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """The place that a `redact` record names so."""
        seq, _, slot = text.partition("/")
        return cls(int(seq), Slot(slot))


@dataclass(frozen=True, slots=True)
class StoredBody:
    """A stored body, and the call that it is of; None where nothing else is left of that call.

    So it is when a call was streamed past midnight, never ended, and the day on which it arrived was dropped.
    `told_by` are the log, by number, and the place of the record that `call` is derived from.
    """

    log: LogRow
    place: Place
    audit_id: str
    call: CallRow | None
    told_by: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose bodies are meant; what is empty or None means any. `call` is the beginning of an audit ID."""

    user: str = ""
    issuer: str = ""
    call: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def first_day(self) -> str:
        """The first day whose logs can have such bodies; empty when every day can."""
        return timestamp(self.since)[:10] if self.since else ""

    def means(self, body: StoredBody) -> bool | None:
        """Whether this body is meant; None when nobody can tell any more."""
        call = body.call
        if not body.audit_id.startswith(self.call):
            return False
        if call is None:
            return None if self.user or self.issuer or self.since or self.until else True
        return (
            (not self.user or call.username == column_text(self.user))
            and (not self.issuer or call.issuer == self.issuer)
            and (self.since is None or call.received_at >= timestamp(self.since))
            and (self.until is None or call.received_at < timestamp(self.until))
        )


@dataclass(frozen=True, slots=True)
class PayloadRule:
    """Bodies of the calls that match are erased once they are of a day before `kept_from`; None: of all calls."""

    kept_from: str
    matches: CallTest | None
    why: Why

    def takes(self, body: StoredBody) -> bool | None:
        """Whether the rule erases this body; None when nobody can tell any more."""
        if body.log.day >= self.kept_from:
            return False
        if self.matches is None:
            return True
        return self.matches(body.call) if body.call is not None else None


def first_kept_day(now: datetime, days: int) -> str:
    """The oldest day (UTC) that has not ended more than so many days ago."""
    return (now.astimezone(UTC) - timedelta(days=days)).date().isoformat()


def first_written_day(now: datetime) -> str:
    """The oldest day of which a log may still be begun."""
    return (now.astimezone(UTC) - CLOCK_SLACK).date().isoformat()


def is_pinned_by(log: LogRow, first: Leaf) -> bool:
    """Whether another log's first leaf goes on from this log as it is."""
    start = first.record.start
    return (
        start is not None
        and (start.previous_log, start.previous_size) == (log.origin, log.size)
        and first.previous == log.root
    )


def plan_days(
    days: Iterable[Day], settings: Retention, used: int, size_of: Callable[[Day], int], now: datetime
) -> Iterator[DayPlan]:
    """Yield the days to drop, of all days, the oldest first: the too old, then as many as must go for the rest.

    `used` is what all of the record takes, in bytes. Never today's. A day that has `unended` logs is the last that is
    told, and must stay.
    """
    for day in days:
        why = _why_to_drop(day, settings, used, now)
        if why is None or day.day >= first_written_day(now):
            return
        size = size_of(day)
        yield DayPlan(day, size, why)
        if day.unended:
            return
        used -= size


def _why_to_drop(day: Day, settings: Retention, used: int, now: datetime) -> Why | None:
    days = settings.max_age_days
    if days is not None and day.day < first_kept_day(now, days) and day.until < timestamp(now - timedelta(days=days)):
        return Why(f"older than {days} days", "maxAgeDays")
    if settings.max_bytes is not None and used > settings.max_bytes:
        return Why(f"the record took more than {settings.max_bytes} bytes", "maxBytes")
    return None


def read_rules(
    rules: Iterable[PayloadRetention], compile_test: Callable[[PayloadRetention], CallTest], now: datetime
) -> list[PayloadRule]:
    """The payload rules of the settings, as of now; `compile_test` reads their globs."""
    return [
        PayloadRule(
            first_kept_day(now, rule.older_than_days),
            None if _is_for_all(rule) else compile_test(rule),
            Why(f"older than {rule.older_than_days} days", rule.name),
        )
        for rule in rules
    ]


def _is_for_all(rule: PayloadRetention) -> bool:
    return all("*" in globs for globs in (rule.resources, rule.verbs, rule.namespaces, rule.users, rule.verdicts))


def choose_bodies(
    bodies: Iterable[StoredBody], rules: Sequence[PayloadRule]
) -> Iterator[tuple[StoredBody, Why | None]]:
    """Yield the bodies that a rule erases, the first rule that applies says why; and, with None, those that stay
    because no rule takes them and one of them cannot tell.
    """
    for body in bodies:
        is_doubtful = False
        for rule in rules:
            takes = rule.takes(body)
            if takes:
                yield body, rule.why
                break
            is_doubtful |= takes is None
        else:
            if is_doubtful:
                yield body, None


def choose_wanted(bodies: Iterable[StoredBody], wanted: Wanted, why: Why) -> Iterator[tuple[StoredBody, Why | None]]:
    """Yield the bodies that are meant; and, with None, those of which nobody can tell any more."""
    for body in bodies:
        means = wanted.means(body)
        if means is not False:
            yield body, why if means else None


def describe_drop(log: LogRow, until: str, why: Why, requested_by: str) -> Redaction:
    """What is recorded before a log is dropped, whose last leaf is of the time `until`."""
    return Redaction(
        log=_seen(log), reason=why.reason, requested_by=requested_by, rule=why.rule, day=log.day, until=until
    )


def describe_erasure(log: LogRow, places: Iterable[Place], why: Why, requested_by: str) -> list[Redaction]:
    """What is recorded before bodies of one log are erased."""
    return [
        Redaction(
            log=_seen(log),
            reason=why.reason,
            requested_by=requested_by,
            rule=why.rule,
            payloads=tuple(map(str, some)),
        )
        for some in batched(places, PLACES_A_RECORD)
    ]


def carry_over(recorded: Iterable[Redaction], dropped: Collection[str]) -> list[Redaction]:
    """What must be recorded again before the log that records it is dropped: nothing else says it then.

    `dropped` are the origins of all logs that are dropped by now or go along: of their bodies nothing is asked any
    more, but that they were dropped themselves must stay on record.
    """
    return [told for told in recorded if not told.payloads or told.log.log not in dropped]


def _seen(log: LogRow) -> Seen:
    return Seen(log=log.origin, size=log.size, root=log.root)
