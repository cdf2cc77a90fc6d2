"""What one command of retention or erasure does, in order: planned, or done.

Days go by age, bodies by rule, then days by size, for what the first two free need not go by size. A plan estimates
what each step frees; a run goes a day at a time, for what a day frees is only known afterwards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import batched, groupby
from typing import TYPE_CHECKING

from holdfast.audit.retention import Day, DayPlan, Why, choose_bodies, choose_wanted, plan_days

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from datetime import datetime

    from holdfast.audit.erasing import Eraser
    from holdfast.audit.retention import PayloadRule, StoredBody, Wanted
    from holdfast.audit.store.retention import RetentionStore
    from holdfast.settings.audit import Retention

    type Advance = Callable[[int], None]

BODIES_A_MEASURE = 500


@dataclass(frozen=True)
class Erasure:
    """Bodies that are to be erased, or were: how many, and what that frees in bytes, by rule.

    `unattributed` counts, by log, those that stay because nothing else is left of their calls that anybody could go
    by.
    """

    bodies: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    unattributed: Counter[str] = field(default_factory=Counter)

    def add(self, rule: str, bodies: int, size: int) -> None:
        """Count bodies that a rule erases."""
        self.bodies[rule] += bodies
        self.bytes[rule] += size

    def attributed(self, chosen: Iterable[tuple[StoredBody, Why | None]]) -> Iterator[tuple[StoredBody, Why]]:
        """Yield what is to be erased; count what stays because nobody can tell whose it is."""
        for body, why in chosen:
            if why is None:
                self.unattributed[body.log.origin] += 1
            else:
                yield body, why


@dataclass
class Outcome:
    """What is to go, or went; the day that could not go; the bytes used by all, before and, of a run, after."""

    used_before: int
    used_after: int | None = None
    days: list[DayPlan] = field(default_factory=list)
    blocked: Day | None = None
    erasure: Erasure = field(default_factory=Erasure)

    @property
    def used_then(self) -> int:
        """The bytes used after it, of a plan about."""
        if self.used_after is not None:
            return self.used_after
        return self.used_before - sum(plan.bytes for plan in self.days) - self.erasure.bytes.total()

    def add_day(self, plan: DayPlan) -> None:
        """Take in a day that is to be dropped, if it can be."""
        if plan.day.unended:
            self.blocked = plan.day
        else:
            self.days.append(plan)


def plan_retention(store: RetentionStore, retention: Retention, rules: Sequence[PayloadRule], now: datetime) -> Outcome:
    """Say what `run_retention` would do. Raises Conflict when a row is not as a gateway writes it, Unavailable."""
    store.check_sizes()
    outcome = Outcome(store.used_bytes())
    by_age = plan_days(store.days(), _by_age(retention), 0, store.size_of, now)
    old = {plan.day.day for plan in by_age if not plan.day.unended}
    _measure(store, _chosen_by(rules, store, old), outcome.erasure)
    used = outcome.used_before - outcome.erasure.bytes.total()
    for planned in plan_days(store.days(), retention, used, store.size_of, now):
        outcome.add_day(planned)
    return outcome


def run_retention(
    store: RetentionStore,
    eraser: Eraser,
    retention: Retention,
    rules: Sequence[PayloadRule],
    now: datetime,
    advance: Advance,
) -> Outcome:
    """Finish what an earlier run did not, then drop and erase what is to go; `advance` hears of it bit by bit.

    Raises Conflict when a log that is to be dropped is not as it was signed, or a row not as a gateway writes it,
    Unavailable.
    """
    store.check_sizes()
    outcome = Outcome(store.used_bytes())
    _tell_each(eraser.finish_earlier(), advance)
    for planned in plan_days(store.days(), _by_age(retention), 0, store.size_of, now):
        _drop(eraser, planned, outcome, advance)
    _erase(eraser, _signed_by(rules, store, eraser), outcome.erasure, advance)
    while outcome.blocked is None:
        next_day = next(plan_days(store.days(), retention, store.used_bytes(), store.size_of, now), None)
        if next_day is None:
            break
        _drop(eraser, next_day, outcome, advance)
    outcome.used_after = store.used_bytes()
    return outcome


def plan_erasure(store: RetentionStore, wanted: Wanted) -> Erasure:
    """Say what `run_erasure` would do. Raises Unavailable."""
    erasure = Erasure()
    bodies = store.bodies(wanted.call, first_day=wanted.first_day)
    _measure(store, choose_wanted(bodies, wanted, Why("")), erasure)
    return erasure


def run_erasure(store: RetentionStore, eraser: Eraser, wanted: Wanted, reason: str, advance: Advance) -> Erasure:
    """Finish what an earlier command did not, then erase the bodies that are meant; `advance` hears of it bit by bit.

    Leaves decide: every log that may have some is read once, or, for one call, those that say they have records of it.
    Raises Conflict when one is not as it was signed, or a row is not as its record says, Unavailable.
    """
    erasure = Erasure()
    for _ in eraser.finish_earlier():
        pass
    bodies = eraser.hold(store.bodies(wanted.call, first_day=wanted.first_day))
    _erase(eraser, choose_wanted(bodies, wanted, Why(reason)), erasure, advance)
    return erasure


def _by_age(retention: Retention) -> Retention:
    return retention.model_copy(update={"max_bytes": None})


def _chosen_by(
    rules: Sequence[PayloadRule], store: RetentionStore, dropped: Collection[str]
) -> Iterator[tuple[StoredBody, Why | None]]:
    """Yield what rules say of bodies, of days that stay."""
    if rules:
        found = store.bodies(before_day=max(rule.kept_from for rule in rules))
        yield from choose_bodies((body for body in found if body.log.day not in dropped), rules)


def _signed_by(
    rules: Sequence[PayloadRule], store: RetentionStore, eraser: Eraser
) -> Iterator[tuple[StoredBody, Why | None]]:
    """Yield the same, as leaves have it; a log of which rows say that nothing is to go is not read for it."""
    for log in store.kept_logs(before_day=max(rule.kept_from for rule in rules)) if rules else ():
        doubtful = []
        for body, why in choose_bodies(store.bodies_of(log), rules):
            if why is not None:
                yield from choose_bodies(eraser.hold(store.bodies_of(log)), rules)
                break
            doubtful.append((body, why))
        else:
            yield from doubtful


def _measure(store: RetentionStore, chosen: Iterable[tuple[StoredBody, Why | None]], erasure: Erasure) -> None:
    """Count bodies, which come day by day and log by log, and what erasing them would free."""
    bodies = erasure.attributed(chosen)
    for day, of_day in groupby(bodies, key=lambda found: found[0].log.day):
        references = store.references(day)
        for (_, rule), group in groupby(of_day, key=lambda found: (found[0].log.id, found[1].rule)):
            for some in batched((body for body, _ in group), BODIES_A_MEASURE):
                places = [body.place for body in some]
                erasure.add(rule, len(some), store.measure(some[0].log, places, references))


def _erase(eraser: Eraser, chosen: Iterable[tuple[StoredBody, Why | None]], erasure: Erasure, advance: Advance) -> None:
    for erased in eraser.erase(erasure.attributed(chosen)):
        erasure.add(erased.why.rule, erased.bodies, erased.bytes)
        advance(erased.bodies)


def _drop(eraser: Eraser, planned: DayPlan, outcome: Outcome, advance: Advance) -> None:
    outcome.add_day(planned)
    if not planned.day.unended:
        _tell_each(eraser.drop_day(planned), advance)


def _tell_each(steps: Iterable[int], advance: Advance) -> None:
    for number in steps:
        advance(number)
