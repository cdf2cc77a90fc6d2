"""Callers and the claims that their calls are found by: flat, bounded, the same whenever they are derived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.callers import LONGEST_CLAIM, MOST_CLAIMS, caller_claims, caller_id
from holdfast.audit.record import LARGEST_INTEGER, Caller, encode_caller

if TYPE_CHECKING:
    from random import Random

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=300), inner, max_size=4),
    max_leaves=100,
)


def test_the_id_is_the_beginning_of_a_sha_256() -> None:
    assert caller_id("") == "e3b0c44298fc1c149afbf4c8996fb924"


@pytest.mark.parametrize(
    ("claims", "pairs"),
    [
        ({}, []),
        ({"run_id": "7"}, [("run_id", "7")]),
        ({"attempt": 2, "fork": False, "draft": True}, [("attempt", "2"), ("draft", "true"), ("fork", "false")]),
        ({"aud": ["a", "b", "a"]}, [("aud", "a"), ("aud", "b")]),
        ({"k8s": {"pod": {"name": "web"}, "ns": "shop"}}, [("k8s.ns", "shop"), ("k8s.pod.name", "web")]),
        ({"nothing": None, "empty": [], "none": {}}, []),
        ({"list": [{"id": 1}, {"id": 2}]}, [("list.id", "1"), ("list.id", "2")]),
        ({"a\0b": "c\0"}, [("a\ufffdb", "c\ufffd")]),
        ({"x" * LONGEST_CLAIM: "y" * LONGEST_CLAIM}, [("x" * LONGEST_CLAIM, "y" * LONGEST_CLAIM)]),
        ({"x" * (LONGEST_CLAIM + 1): "y", "a": "y" * (LONGEST_CLAIM + 1), "b": "c"}, [("b", "c")]),
    ],
)
def test_claims_become_names_and_texts(claims: dict[str, Any], pairs: list[tuple[str, str]]) -> None:
    assert caller_claims(claims) == pairs


def test_one_token_does_not_fill_the_index() -> None:
    assert len(caller_claims({"groups": [str(number) for number in range(10 * MOST_CLAIMS)]})) == MOST_CLAIMS


numbers = st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
names = st.text(st.characters(codec="ascii"), max_size=20)
recorded = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(names, inner, max_size=40),
    max_leaves=200,
)


@given(st.dictionaries(names, recorded, max_size=40), st.randoms())
def test_the_same_claims_are_found_whatever_their_order_in_the_token(claims: dict[str, Any], random: Random) -> None:
    pairs = caller_claims(claims)
    assert caller_claims(shuffled(claims, random)) == pairs
    told = msgspec.json.decode(encode_caller(Caller(issuer="https://issuer", username="alice", claims=claims)))
    assert caller_claims(told.get("claims", {})) == pairs


def shuffled(value: Any, random: Random) -> Any:
    """The same objects, their members in another order."""
    if isinstance(value, list):
        return [shuffled(member, random) for member in value]
    if isinstance(value, dict):
        return {key: shuffled(value[key], random) for key in random.sample(list(value), len(value))}
    return value


def test_many_claims_are_cut_in_one_order() -> None:
    claims = {"sub": "alice", "groups": [f"g{number}" for number in range(MOST_CLAIMS + 6)], "aud": "holdfast"}
    assert caller_claims(claims)[:2] == [("aud", "holdfast"), ("groups", "g0")]
    assert caller_claims(dict(reversed(claims.items()))) == caller_claims(claims)


@given(st.dictionaries(st.text(), values, max_size=6))
def test_whatever_the_claims_the_pairs_are_few_short_distinct_and_text_to_postgres(claims: dict[str, Any]) -> None:
    pairs = caller_claims(claims)
    assert len(pairs) == len(set(pairs)) <= MOST_CLAIMS
    for text in (part for pair in pairs for part in pair):
        assert len(text) <= LONGEST_CLAIM
        assert "\0" not in text
