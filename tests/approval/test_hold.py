"""The hold's rules: who may decide, what may follow what, and when a refusal answers again."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approval.holds import AGENT, CAROL, DAVE, DELETE, DIGEST, NOON, hold, seconds
from holdfast.approval.hold import decide, hold_id, may_decide, recent_refusal, states_before, transition
from holdfast.errors import BadRequest, Conflict, Forbidden
from holdfast.exchange import Approvers, HoldState, Identity

PENDING, APPROVED, DENIED = HoldState.PENDING, HoldState.APPROVED, HoldState.DENIED
EXPIRED, CANCELLED, RELEASED = HoldState.EXPIRED, HoldState.CANCELLED, HoldState.RELEASED
MOVES = {
    (PENDING, APPROVED),
    (PENDING, DENIED),
    (PENDING, EXPIRED),
    (PENDING, CANCELLED),
    (APPROVED, RELEASED),
    (APPROVED, CANCELLED),
}


@pytest.mark.parametrize("to", HoldState)
@pytest.mark.parametrize("state", HoldState)
def test_only_the_moves_of_the_table_are_made(state: HoldState, to: HoldState) -> None:
    before = hold(state=state)
    assert (state in states_before(to)) == ((state, to) in MOVES)
    if (state, to) in MOVES:
        assert transition(before, to, at=NOON).state is to
    else:
        with pytest.raises(Conflict, match=f"is {state} and cannot become {to}"):
            transition(before, to, at=NOON)


@pytest.mark.parametrize("approve", [True, False])
@pytest.mark.parametrize(
    ("state", "reason", "told"),
    [
        (APPROVED, "yes", "was approved by carol already; its call goes on"),
        (RELEASED, "yes", "was approved by carol already; its call went through"),
        (DENIED, "no", "was denied by carol already"),
        (EXPIRED, "", "has expired; the caller must ask again"),
        (CANCELLED, "the caller left", "was given up (the caller left); the caller must ask again"),
    ],
)
def test_what_has_become_of_a_hold_is_told_to_whom_wants_to_decide_it(
    state: HoldState, reason: str, told: str, *, approve: bool
) -> None:
    by = "carol" if state in {APPROVED, RELEASED, DENIED} else ""
    over = replace(hold(), state=state, decided_by=by, decided_at=NOON, decision_reason=reason)
    with pytest.raises(Conflict) as refused:
        decide(over, approve, CAROL, "why not", NOON)
    assert str(refused.value) == f"hold {over.id} {told}"


def test_a_new_hold_waits_as_long_as_its_rule_says() -> None:
    made = hold()
    assert (made.state, made.expires_at - made.created_at) == (PENDING, seconds(60))
    assert (made.issuer, made.username, made.groups) == (AGENT.issuer, AGENT.username, AGENT.groups)
    assert (made.verb, made.resource, made.name) == (DELETE.verb, "namespaces", "shop")


@given(st.binary(min_size=7, max_size=20))
def test_hold_ids_can_be_read_aloud(random: bytes) -> None:
    assert re.fullmatch("h-[a-z2-7]{10}", hold_id(random))


def test_a_hold_id_needs_enough_randomness() -> None:
    with pytest.raises(ValueError, match="takes 7 random bytes, got 6"):
        hold_id(bytes(6))


@pytest.mark.parametrize(
    ("approvers", "identity", "message"),
    [
        (Approvers(groups=("oncall",)), CAROL, None),
        (Approvers(users=("dave",)), DAVE, None),
        (Approvers(groups=("oncall",)), DAVE, "decided by group oncall; dave is none of them"),
        (Approvers(users=("carol", "erin")), DAVE, "decided by carol, erin; dave is none"),
        (Approvers(), CAROL, "nobody: its rule names no approvers"),
        (Approvers(users=("agent",)), AGENT, "asked for by agent; somebody else"),
        (Approvers(users=("agent",)), replace(AGENT, issuer="https://people"), "somebody else"),
        (Approvers(groups=("oncall",)), Identity("https://people", "Agent", ("oncall",)), "somebody else"),
        (Approvers(users=("oncall",)), CAROL, "carol is none of them"),
        (Approvers(groups=("carol",)), CAROL, "carol is none of them"),
        (Approvers(groups=("onc",)), CAROL, "carol is none of them"),
    ],
)
def test_approvers_decide_and_nobody_else(approvers: Approvers, identity: Identity, message: str | None) -> None:
    if message is None:
        may_decide(hold(approvers=approvers), identity)
    else:
        with pytest.raises(Forbidden, match=message):
            may_decide(hold(approvers=approvers), identity)


@pytest.mark.parametrize(
    ("requester", "approver"),
    [
        ("josé@example.com", "jose\u0301@example.com"),
        ("STRASSE", "straße"),
        ("alice", "\uff41lice"),
        ("alice", "alice "),
        ("alice smith", "Alice  Smith"),
    ],
    ids=["composed and not", "sharp s", "a wide letter", "a space after", "two spaces"],
)
def test_another_spelling_of_the_requester_does_not_decide(requester: str, approver: str) -> None:
    asked = replace(hold(approvers=Approvers(groups=("oncall",))), username=requester)
    with pytest.raises(Forbidden, match="somebody else must decide it"):
        may_decide(asked, Identity("https://people", approver, ("oncall",)))
    may_decide(asked, Identity("https://people", "carol", ("oncall",)))


def test_a_decision_says_who_when_and_why() -> None:
    approved = decide(hold(), True, CAROL, " fine ", NOON + seconds(5))
    assert (approved.state, approved.decided_by, approved.decision_reason) == (APPROVED, "carol", "fine")
    assert approved.decided_at == NOON + seconds(5)
    released = transition(approved, RELEASED, at=NOON + seconds(6))
    assert released == replace(approved, state=RELEASED)


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_denial_needs_a_reason(reason: str) -> None:
    with pytest.raises(BadRequest, match="needs a reason"):
        decide(hold(), False, CAROL, reason, NOON)
    assert decide(hold(), True, CAROL, reason, NOON).state is APPROVED


def test_a_decision_comes_in_time_or_not_at_all() -> None:
    made = hold()
    assert decide(made, True, CAROL, "", made.expires_at - seconds(0.000001)).state is APPROVED
    with pytest.raises(Conflict, match="has expired"):
        decide(made, True, CAROL, "", made.expires_at)
    with pytest.raises(Conflict, match=r"was denied by carol already"):
        decide(hold(state=DENIED, decided_by="carol"), True, CAROL, "", NOON)


@pytest.mark.parametrize(
    ("state", "age", "upgraded", "digest", "answered"),
    [
        (DENIED, 0, True, DIGEST, True),
        (DENIED, 15, True, DIGEST, True),
        (EXPIRED, 14, True, DIGEST, True),
        (DENIED, 15.000001, True, DIGEST, False),
        (DENIED, 1, False, DIGEST, False),
        (DENIED, 1, True, "other", False),
        (APPROVED, 1, True, DIGEST, False),
        (RELEASED, 1, True, DIGEST, False),
        (CANCELLED, 1, True, DIGEST, False),
    ],
)
def test_a_refused_upgrade_answers_its_second_attempt(
    state: HoldState, age: float, upgraded: bool, digest: str, answered: bool
) -> None:
    candidate = hold(state=state, decided_at=NOON)
    answer = recent_refusal(candidate, digest, upgraded=upgraded, now=NOON + seconds(age))
    assert answer == (candidate if answered else None)


def test_an_upgrade_without_history_gets_a_hold_of_its_own() -> None:
    assert recent_refusal(None, DIGEST, upgraded=True, now=NOON) is None
    assert recent_refusal(hold(), DIGEST, upgraded=True, now=NOON) is None
