"""Holds in the database: whoever acts at once, one succeeds; whatever the order, nothing is released twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from approval.holds import AGENT, CAROL, DAVE, DIGEST, NOON, hold, seconds
from holdfast.approval.store import RESTARTED, HoldStore
from holdfast.database import Database
from holdfast.errors import BadRequest, Conflict, Forbidden, HoldfastError, NotFound
from holdfast.exchange import Approvers, Hold, HoldState

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> HoldStore:
    return HoldStore(Database.open(f"sqlite:///{tmp_path / 'audit.db'}"))


@pytest.fixture
def held(store: HoldStore) -> Hold:
    made = hold(approvers=Approvers(("erin",), ("oncall",)))
    store.insert(made, "replica-1")
    return made


def test_a_hold_comes_back_as_it_was_kept(store: HoldStore, held: Hold) -> None:
    assert store.get(held.id) == held
    assert store.latest_with_digest(held.digest) == held
    assert store.list() == [held]
    with pytest.raises(NotFound, match="there is no hold 'h-none'"):
        store.get("h-none")


def test_holds_are_listed_newest_first(store: HoldStore) -> None:
    made = [hold(created_at=NOON + seconds(number)) for number in range(4)]
    for each in made:
        store.insert(each, "replica-1")
    store.decide(made[1].id, True, CAROL, "", NOON)
    assert store.list(limit=3) == [made[3], made[2], store.get(made[1].id)]
    assert store.list([HoldState.PENDING]) == [made[3], made[2], made[0]]
    assert [each.id for each in store.list([HoldState.APPROVED])] == [made[1].id]
    assert store.list([]) == []
    assert store.latest_with_digest(DIGEST) == made[3]
    assert store.latest_with_digest("other") is None


def test_a_decision_is_kept(store: HoldStore, held: Hold) -> None:
    denied = store.decide(held.id, False, CAROL, "not today", NOON + seconds(3))
    assert store.get(held.id) == denied
    assert (denied.state, denied.decided_by, denied.decision_reason) == (HoldState.DENIED, "carol", "not today")


@pytest.mark.parametrize(
    ("by", "approve", "after", "refusal"),
    [
        (AGENT, True, 0, Forbidden),
        (DAVE, True, 0, Forbidden),
        (CAROL, False, 0, BadRequest),
        (CAROL, True, 60, Conflict),
    ],
)
def test_a_refused_decision_changes_nothing(
    store: HoldStore, held: Hold, by: object, approve: bool, after: float, refusal: type[HoldfastError]
) -> None:
    with pytest.raises(refusal):
        store.decide(held.id, approve, by, "", NOON + seconds(after))  # type: ignore[arg-type]
    assert store.get(held.id) == held
    with pytest.raises(NotFound):
        store.decide("h-none", True, CAROL, "", NOON)


def test_an_approval_is_used_once_and_for_its_own_request(store: HoldStore, held: Hold) -> None:
    assert not store.release(held.id, held.digest, NOON)
    approved = store.decide(held.id, True, CAROL, "", NOON)
    assert not store.release(held.id, "another request", NOON)
    assert store.release(held.id, held.digest, NOON)
    assert not store.release(held.id, held.digest, NOON)
    assert store.get(held.id) == replace(approved, state=HoldState.RELEASED)


def test_a_hold_expires_when_its_time_is_over(store: HoldStore, held: Hold) -> None:
    assert not store.expire(held.id, held.expires_at - seconds(0.000001))
    assert store.expire(held.id, held.expires_at)
    assert store.get(held.id).state is HoldState.EXPIRED
    assert not store.expire(held.id, held.expires_at)


def test_an_approval_ends_when_its_caller_left(store: HoldStore, held: Hold) -> None:
    store.decide(held.id, True, CAROL, "", NOON)
    assert store.cancel(held.id, "the caller left", NOON + seconds(1))
    cancelled = store.get(held.id)
    assert (cancelled.state, cancelled.decision_reason) == (HoldState.CANCELLED, "the caller left")
    assert not store.release(held.id, held.digest, NOON)
    assert not store.cancel(held.id, "again", NOON)


def test_settled_tells_of_those_that_no_longer_wait(store: HoldStore) -> None:
    waiting, denied, unasked = hold(), hold(), hold()
    for each in (waiting, denied, unasked):
        store.insert(each, "replica-1")
    after = [store.decide(each.id, False, CAROL, "no", NOON) for each in (denied, unasked)]
    assert store.settled([waiting.id, denied.id]) == {denied.id: after[0]}
    assert store.settled([]) == {}


def test_a_restart_ends_what_its_own_replica_held(store: HoldStore) -> None:
    pending, approved, denied, other = hold(), hold(), hold(), hold()
    for each in (pending, approved, denied):
        store.insert(each, "replica-1")
    store.insert(other, "replica-2")
    store.decide(approved.id, True, CAROL, "", NOON)
    store.decide(denied.id, False, CAROL, "no", NOON)
    assert store.abandon("replica-1", NOON) == 2
    assert [store.get(each.id).state for each in (pending, approved, denied, other)] == [
        HoldState.CANCELLED,
        HoldState.CANCELLED,
        HoldState.DENIED,
        HoldState.PENDING,
    ]
    assert store.get(pending.id).decision_reason == RESTARTED


def race(act: Callable[[int], bool]) -> int:
    """How many of 20 threads succeeded."""
    with ThreadPoolExecutor(20) as pool:
        return sum(pool.map(act, range(20)))


def test_of_many_releases_one_succeeds(store: HoldStore, held: Hold) -> None:
    store.decide(held.id, True, CAROL, "", NOON)
    assert race(lambda _: store.release(held.id, held.digest, NOON)) == 1


def test_of_many_decisions_one_succeeds(store: HoldStore, held: Hold) -> None:
    def decide(number: int) -> bool:
        try:
            store.decide(held.id, number % 2 == 0, CAROL, f"reason {number}", NOON)
        except Conflict:
            return False
        return True

    assert race(decide) == 1
    assert store.get(held.id).state in {HoldState.APPROVED, HoldState.DENIED}


def test_a_release_and_a_cancellation_exclude_each_other(store: HoldStore, held: Hold) -> None:
    store.decide(held.id, True, CAROL, "", NOON)

    def act(number: int) -> bool:
        if number % 2:
            return store.cancel(held.id, "the caller left", NOON)
        return store.release(held.id, held.digest, NOON)

    assert race(act) == 1


PEOPLE = st.sampled_from([AGENT, CAROL, DAVE, replace(AGENT, issuer="https://people", groups=("oncall",))])


class HoldLife(RuleBasedStateMachine):
    """Any events in any order, against the store itself."""

    folder: Path

    @initialize()
    def begin(self) -> None:
        self.store = HoldStore(Database.open(f"sqlite:///{self.folder / 'audit.db'}"))
        self.held = hold()
        self.now: datetime = NOON
        self.approved_by: list[str] = []
        self.releases = 0
        self.ended = False
        self.store.insert(self.held, "replica-1")

    @rule(by=PEOPLE, approve=st.booleans(), reason=st.sampled_from(["", "because"]))
    def decide(self, by: object, approve: bool, reason: str) -> None:
        before = self.store.get(self.held.id)
        try:
            after = self.store.decide(self.held.id, approve, by, reason, self.now)  # type: ignore[arg-type]
        except HoldfastError:
            assert self.store.get(self.held.id) == before
            return
        assert by is CAROL
        assert before.state is HoldState.PENDING
        assert self.now < self.held.expires_at
        assert approve or reason
        self.approved_by += [after.decided_by] if approve else []

    @rule(digest=st.sampled_from([DIGEST, "other"]))
    def release(self, digest: str) -> None:
        if self.store.release(self.held.id, digest, self.now):
            assert digest == DIGEST
            assert self.approved_by == ["carol"]
            assert not self.ended
            self.releases += 1

    @rule()
    def cancel(self) -> None:
        self.ended |= self.store.cancel(self.held.id, "the caller left", self.now)

    @rule()
    def expire(self) -> None:
        if self.store.expire(self.held.id, self.now):
            assert self.now >= self.held.expires_at
            self.ended = True

    @rule(replica=st.sampled_from(["replica-1", "replica-2"]))
    def restart(self, replica: str) -> None:
        self.ended |= self.store.abandon(replica, self.now) > 0

    @rule(later=st.sampled_from([1, 59, 60]))
    def wait(self, later: int) -> None:
        self.now += seconds(later)

    @invariant()
    def nothing_is_released_twice_or_without_approval(self) -> None:
        assert self.releases <= len(self.approved_by) <= 1
        assert not (self.releases and self.ended)


def test_no_order_of_events_breaks_a_hold(tmp_path_factory: pytest.TempPathFactory) -> None:
    class Life(HoldLife):
        folder = tmp_path_factory.mktemp("life")

    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=40, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
