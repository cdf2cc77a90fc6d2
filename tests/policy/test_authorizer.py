"""Composition: any deny wins, else any hold, else an allow; nothing matches: denied."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.exchange import Approvers, Decision, Effect, Identity, Mask, RequestInfo
from holdfast.policy.authorizer import NO_RULE, Policy, compose, load_policies
from holdfast.policy.rules import PolicyFile

if TYPE_CHECKING:
    from pathlib import Path

AGENT = Identity("https://issuer.example", "agent-1", ("agents",))
GET = RequestInfo(True, "GET", b"/", "/", "get", namespace="x", resource="pods", name="a")


def rule(name: str, effect: str, **fields: Any) -> dict[str, Any]:
    """A rule that matches every call of agents, narrowed by `fields`."""
    approvers = {"approvers": {"groups": [f"{name}-approvers"]}} if effect == "hold" else {}
    wide = {"subjects": [{"groups": ["agents"]}], "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    return {"name": name, "effect": effect, "reason": f"because of {name}"} | wide | approvers | fields


def document(*rules: dict[str, Any], masks: list[dict[str, Any]] | None = None) -> PolicyFile:
    content: dict[str, Any] = {"apiVersion": "holdfast.dev/v1", "kind": "Policy", "metadata": {"name": "test"}}
    content |= {"rules": list(rules)} if rules else {}
    content |= {"masks": masks} if masks else {}
    return PolicyFile.model_validate(content)


def policy(*rules: dict[str, Any]) -> Policy:
    return compose([document(*rules)])


COMPOSITIONS = [
    (["allow"], Effect.ALLOW, "allow-0"),
    (["hold"], Effect.HOLD, "hold-0"),
    (["deny"], Effect.DENY, "deny-0"),
    (["allow", "hold"], Effect.HOLD, "hold-1"),
    (["allow", "deny"], Effect.DENY, "deny-1"),
    (["hold", "deny"], Effect.DENY, "deny-1"),
    (["allow", "hold", "deny"], Effect.DENY, "deny-2"),
    (["deny", "hold", "allow"], Effect.DENY, "deny-0"),
    (["allow", "allow"], Effect.ALLOW, "allow-0"),
    (["allow", "hold", "hold"], Effect.HOLD, "hold-1"),
    (["allow", "deny", "deny"], Effect.DENY, "deny-1"),
]


@pytest.mark.parametrize(("effects", "effect", "name"), COMPOSITIONS)
def test_the_strictest_effect_wins_and_its_first_rule_names_it(effects: list[str], effect: Effect, name: str) -> None:
    rules = [rule(f"{each}-{index}", each) for index, each in enumerate(effects)]
    for composed in (policy(*rules), compose([document(each) for each in rules])):
        decision = composed.authorize(AGENT, GET)
        assert (decision.effect, decision.rule, decision.reason) == (effect, name, f"because of {name}")


def test_nothing_matches_is_denied() -> None:
    composed = policy(rule("others", "allow", subjects=[{"groups": ["people"]}]), rule("urls", "allow", verbs=["list"]))
    assert composed.authorize(AGENT, GET) == Decision(reason=NO_RULE, policy_hash=composed.hash)


def test_no_rules_deny() -> None:
    composed = compose([])
    assert composed.authorize(AGENT, GET).effect is Effect.DENY
    assert composed.authorize(AGENT, GET).policy_hash == composed.hash


def test_the_first_hold_says_who_approves_and_how_long_it_waits() -> None:
    first, second = rule("first", "hold", wait="10m"), rule("second", "hold", wait="1s")
    decision = policy(first, second).authorize(AGENT, GET)
    assert decision.approvers == Approvers(groups=("first-approvers",))
    assert decision.wait_seconds == 600


@pytest.mark.parametrize("effect", ["allow", "deny"])
def test_only_a_hold_has_approvers_and_a_wait(effect: str) -> None:
    decision = policy(rule("one", effect)).authorize(AGENT, GET)
    assert (decision.approvers, decision.wait_seconds) == (Approvers(), 0)


def _mask(name: str, resources: list[str]) -> dict[str, Any]:
    return {"name": name, "apiGroups": [""], "resources": resources, "fields": ["$.a"], "base64Fields": ["$.b"]}


@pytest.mark.parametrize("rules", [[], [rule("a", "allow")], [rule("d", "deny")], [rule("h", "hold")]])
def test_every_mask_that_matches_applies_whatever_the_effect(rules: list[dict[str, Any]]) -> None:
    masks = [_mask("one", ["pods"]), _mask("two", ["*"]), _mask("three", ["secrets"])]
    composed = compose([document(*rules, masks=masks), document(masks=[_mask("four", ["pods"])])])
    decision = composed.authorize(AGENT, GET)
    assert [mask.name for mask in decision.masks] == ["one", "two", "four"]
    assert decision.masks[0] == Mask("one", fields=("$.a",), base64_fields=("$.b",))
    assert decision.policy_hash == composed.hash


# Properties: random rules over few words, so that they often match and often conflict.
verbs = st.lists(st.sampled_from(["get", "list", "create", "*"]), min_size=1, max_size=2, unique=True)
names = st.lists(st.sampled_from(["a", "b", "a*", "*"]), min_size=1, max_size=2, unique=True)
subjects: st.SearchStrategy[Any] = st.sampled_from(
    [[{"users": ["*"]}], [{"groups": ["agents"]}], [{"groups": ["people"]}]]
)
bodies: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"effect": st.sampled_from(["allow", "deny", "hold"]), "verbs": verbs, "subjects": subjects},
    optional={"namespaces": names, "resourceNames": names, "resources": names},
)
requests = st.builds(
    lambda verb, namespace, resource, name: RequestInfo(
        True, "GET", b"/", "/", verb, namespace=namespace, resource=resource, name=name
    ),
    st.sampled_from(["get", "list", "create", "delete", ""]),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", "a", "b"]),
)


@st.composite
def rule_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    drawn = draw(st.lists(bodies, max_size=5))
    return [rule(f"r{index}", **body) for index, body in enumerate(drawn)]


@given(rule_lists(), bodies, st.integers(0, 5), requests)
def test_adding_a_deny_never_widens(
    rules: list[dict[str, Any]], body: dict[str, Any], place: int, info: RequestInfo
) -> None:
    before = compose([document(*rules)] if rules else []).authorize(AGENT, info)
    added = rule("added", **(body | {"effect": "deny"}))
    after = policy(*rules[:place], added, *rules[place:]).authorize(AGENT, info)
    assert after.effect <= before.effect


@given(st.data(), rule_lists().filter(bool), requests)
def test_order_never_changes_the_effect(data: st.DataObject, rules: list[dict[str, Any]], info: RequestInfo) -> None:
    shuffled = data.draw(st.permutations(rules))
    assert policy(*rules).authorize(AGENT, info).effect == policy(*shuffled).authorize(AGENT, info).effect


@given(rule_lists().filter(bool), requests)
def test_several_files_are_one_policy(rules: list[dict[str, Any]], info: RequestInfo) -> None:
    apart, together = compose([document(each) for each in rules]), policy(*rules)
    before, after = apart.authorize(AGENT, info), together.authorize(AGENT, info)
    assert (before.effect, before.rule, before.approvers) == (after.effect, after.rule, after.approvers)


@given(rule_lists(), requests)
def test_without_a_matching_rule_there_is_no_way_in(rules: list[dict[str, Any]], info: RequestInfo) -> None:
    decision = compose([document(*rules)] if rules else []).authorize(AGENT, info)
    assert decision.effect is Effect.DENY or decision.rule


FILE = """\
apiVersion: holdfast.dev/v1
kind: Policy
metadata: {name: test}
rules:
- name: read
  effect: allow
  subjects: [{groups: [agents]}]
  verbs: [get, list]
  apiGroups: [""]
  resources: [pods]
"""


def _hash(folder: Path, *texts: str) -> str:
    files = [folder / f"{index}.yaml" for index in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text, encoding="utf-8")
    return load_policies(files).hash


def test_the_hash_is_that_of_the_content_not_of_the_layout(tmp_path: Path) -> None:
    same = "# comment\nkind: Policy\n" + FILE.replace("kind: Policy\n", "").replace("[get, list]", '["get",\n  list]')
    assert _hash(tmp_path, FILE) == _hash(tmp_path, same)
    assert re.fullmatch(r"[0-9a-f]{64}", _hash(tmp_path, FILE))


def test_the_hash_is_sha256_of_what_is_written_as_sorted_json(tmp_path: Path) -> None:
    content = (
        b'[{"apiVersion":"holdfast.dev/v1","kind":"Policy","metadata":{"name":"test"},"rules":[{"apiGroups":[""],'
        b'"effect":"allow","name":"read","resources":["pods"],"subjects":[{"groups":["agents"]}],'
        b'"verbs":["get","list"]}]}]'
    )
    assert _hash(tmp_path, FILE) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("old", "new"),
    [("get, list", "get"), ("get, list", "list, get"), ("agents", "people"), ("allow", "deny"), ("read", "reads")],
)
def test_the_hash_changes_with_the_content(tmp_path: Path, old: str, new: str) -> None:
    assert _hash(tmp_path, FILE) != _hash(tmp_path, FILE.replace(old, new))


def test_the_hash_changes_with_the_order_of_files(tmp_path: Path) -> None:
    other = FILE.replace("name: read", "name: other")
    assert _hash(tmp_path, FILE, other) != _hash(tmp_path, other, FILE)
