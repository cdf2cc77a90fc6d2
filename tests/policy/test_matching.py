"""Which requests a rule matches: globs, RBAC's resources, and the two readings, attacked from many sides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.exchange import Identity, RequestInfo
from holdfast.kube.canonical import canonicalize
from holdfast.kube.request_info import parse_request_info
from holdfast.policy.matching import compile_globs, compile_mask, compile_resources, compile_rule, compile_subjects
from holdfast.policy.rules import MaskRule, Rule, Subject


def ask(request: str) -> RequestInfo:
    """Read `METHOD TARGET` as the gateway does."""
    method, _, target = request.partition(" ")
    return parse_request_info(method, canonicalize(target.encode()))


def rule(effect: str, **fields: Any) -> Rule:
    """A rule about every core resource and verb, narrowed by `fields` (keys as in a file)."""
    narrow = {"verbs": ["*"], "apiGroups": [""], "resources": ["*"]} | fields
    approvers = {"approvers": {"groups": ["p"]}} if effect == "hold" else {}
    return Rule.model_validate({"name": "r", "effect": effect, "subjects": [{"users": ["*"]}], **narrow, **approvers})


def url_rule(effect: str, urls: list[str], verbs: list[str]) -> Rule:
    fields = {"name": "r", "effect": effect, "subjects": [{"users": ["*"]}], "verbs": verbs, "nonResourceURLs": urls}
    return Rule.model_validate(fields)


def mask(**fields: Any) -> MaskRule:
    return MaskRule.model_validate({"name": "m", "fields": ["$.data"], "apiGroups": [""], "resources": ["*"]} | fields)


GLOBS = [
    ("web", "web", True),
    ("web", "web-1", False),
    ("web", "WEB", False),
    ("web", "web\n", False),
    ("*", "", True),
    ("*", "anything\nat all", True),
    ("?*", "", False),
    ("?", "a", True),
    ("?", "ab", False),
    ("??", "é€", True),
    ("dev-*", "dev-", True),
    ("dev-*", "dev", False),
    ("dev-*", "a-dev-b", False),
    ("*-dev", "dev", False),
    ("*-dev", "a-dev-dev", True),
    ("a*b*c", "abcbc", True),
    ("a*b*c", "acb", False),
    ("a**b", "ab", True),
    ("[ab]", "a", False),
    ("[ab]", "[ab]", True),
    ("[a*", "[abc", True),
    ("[!a]*", "b", False),
    ("a.b", "axb", False),
    ("a.*", "a.b", True),
    ("a|b*", "bb", False),
    ("(a)+*", "(a)+x", True),
    ("\\*", "\\x", True),
    ("\\?", "?", False),
    ("system:*", "system:node:a", True),
    ("dev-*", "dev-\nprod", True),
]


@pytest.mark.parametrize(("glob", "text", "expected"), GLOBS)
def test_a_glob_knows_star_and_question_mark_only(glob: str, text: str, expected: bool) -> None:
    assert compile_globs([glob])(text) is expected


def test_one_of_several_globs_is_enough() -> None:
    matches = compile_globs(["a", "b*", "?c"])
    assert [text for text in ("a", "b", "bb", "cc", "ab", "c") if matches(text)] == ["a", "b", "bb", "cc"]


def test_no_globs_match_nothing() -> None:
    assert not compile_globs([])("")


def test_a_glob_of_many_stars_ends_on_long_text() -> None:
    assert not compile_globs(["*a" * 40 + "b"])("a" * 5000)


def _naive(glob: str, text: str) -> bool:
    if not glob:
        return not text
    if glob[0] == "*":
        return any(_naive(glob[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and glob[0] in {"?", text[0]} and _naive(glob[1:], text[1:])


@given(st.text("ab[]*?.", max_size=6), st.text("ab[].", max_size=8))
def test_globs_agree_with_the_definition(glob: str, text: str) -> None:
    assert compile_globs([glob])(text) is _naive(glob, text)


RESOURCES = [
    ("pods", "pods", "", True),
    ("pods", "pods", "exec", False),
    ("pods/exec", "pods", "exec", True),
    ("pods/exec", "pods", "", False),
    ("pods/exec", "pods", "execute", False),
    ("*", "pods", "", True),
    ("*", "pods", "exec", True),
    ("pods/*", "pods", "exec", True),
    ("pods/*", "pods", "", False),
    ("pods/*", "podtemplates", "x", False),
    ("*/scale", "deployments", "scale", True),
    ("*/scale", "deployments", "status", False),
    ("*/scale", "scale", "", False),
    ("*/*", "pods", "log", True),
    ("*/*", "pods", "", False),
    ("pod*", "pods", "", True),
    ("pod*", "podtemplates", "", True),
    ("pod*", "pods", "exec", False),
    ("**", "pods", "", True),
    ("**", "pods", "exec", False),
    ("?ods", "pods", "", True),
    ("pods?exec", "pods", "exec", False),
    ("pods/ex*", "pods", "exec", True),
]


@pytest.mark.parametrize(("pattern", "resource", "subresource", "expected"), RESOURCES)
def test_resources_are_matched_as_rbac_spells_them(
    pattern: str, resource: str, subresource: str, expected: bool
) -> None:
    info = RequestInfo(True, "GET", b"/", "/", "get", resource=resource, subresource=subresource)
    assert compile_resources([pattern])(info) is expected


SUBJECTS = [
    ([{"users": ["ci-*"]}], True),
    ([{"users": ["ci"]}], False),
    ([{"groups": ["dev"]}], True),
    ([{"groups": ["de?"]}], True),
    ([{"groups": ["ops"]}], False),
    ([{"issuers": ["https://a.example/*"]}], True),
    ([{"issuers": ["https://a.example"]}], False),
    ([{"users": ["ci-*"], "groups": ["ops"]}], False),
    ([{"users": ["ci-*"], "groups": ["ops", "dev"]}], True),
    ([{"users": ["ci-*"], "issuers": ["https://b.example/*"]}], False),
    ([{"groups": ["ops"]}, {"users": ["ci-1"]}], True),
    ([{"issuers": ["*"], "claims": {"repository": ["org/app"]}}], True),
    ([{"issuers": ["*"], "claims": {"repository": ["org/*"]}}], True),
    ([{"issuers": ["*"], "claims": {"repository": ["other/*"]}}], False),
    ([{"issuers": ["*"], "claims": {"repository": ["org/app"], "ref": ["refs/heads/main"]}}], True),
    ([{"issuers": ["*"], "claims": {"repository": ["org/app"], "ref": ["refs/tags/*"]}}], False),
    ([{"issuers": ["https://b.example"], "claims": {"repository": ["org/app"]}}], False),
    ([{"issuers": ["*"], "claims": {"absent": ["*"]}}], False),
    ([{"issuers": ["*"], "claims": {"nothing": ["*"]}}], False),
    ([{"issuers": ["*"], "claims": {"kubernetes.io.namespace": ["shop"]}}], True),
    ([{"issuers": ["*"], "claims": {"roles": ["admin"]}}], True),
    ([{"issuers": ["*"], "claims": {"roles": ["adm"]}}], False),
    ([{"issuers": ["*"], "claims": {"build": ["17"]}}], True),
    ([{"issuers": ["*"], "claims": {"protected": ["true"]}}], True),
    ([{"issuers": ["*"], "claims": {"kubernetes.io": ["*"]}}], False),
]
CLAIMS = {
    "repository": "org/app",
    "ref": "refs/heads/main",
    "nothing": None,
    "kubernetes.io": {"namespace": "shop"},
    "roles": ("dev", "admin"),
    "build": 17,
    "protected": True,
}


@pytest.mark.parametrize(("subjects", "expected"), SUBJECTS)
def test_a_subject_matches_when_each_of_its_lists_does(subjects: list[dict[str, list[str]]], expected: bool) -> None:
    matches = compile_subjects([Subject.model_validate(subject) for subject in subjects])
    assert matches(Identity("https://a.example/realm", "ci-1", ("all", "dev"), claims=CLAIMS)) is expected


def test_a_group_glob_needs_a_group() -> None:
    matches = compile_subjects([Subject.model_validate({"groups": ["*"]})])
    assert not matches(Identity("https://a.example", "groups"))


# One row: what the rule is narrowed to, the request, whether an allow covers it, whether a deny reaches it.
READINGS = [
    # One namespace, asked for by name
    ({"namespaces": ["dev-*"]}, "GET /api/v1/namespaces/dev-1/pods", True, True),
    ({"namespaces": ["dev-*"]}, "GET /api/v1/namespaces/prod/pods", False, False),
    ({"namespaces": ["dev-*"]}, "DELETE /api/v1/namespaces/dev-1", True, True),
    ({"namespaces": ["dev-*"]}, "PUT /api/v1/namespaces/dev-1/finalize", True, True),
    # All namespaces at once, in every spelling
    ({"namespaces": ["dev-*"]}, "GET /api/v1/pods", False, True),
    ({"namespaces": ["dev-*"]}, "HEAD /api/v1/pods", False, True),
    ({"namespaces": ["dev-*"]}, "GET /api/v1/pods?watch=true", False, True),
    ({"namespaces": ["dev-*"]}, "GET /api/v1/watch/pods", False, True),
    ({"namespaces": ["dev-*"]}, "GET /api/v1/pods?fieldSelector=metadata.namespace%3Dprod", False, True),
    ({"namespaces": ["dev-*"]}, "GET /api/v1/pods?fieldSelector=metadata.name%3Dweb", False, True),
    ({"namespaces": ["dev-*"]}, "DELETE /api/v1/pods", False, True),
    ({"namespaces": ["dev-*"]}, "GET /api/v1/namespaces", False, True),
    ({"namespaces": ["dev-*"]}, "GET /api/v1/namespaces?fieldSelector=metadata.name%3Ddev-1", False, True),
    ({"namespaces": ["dev-*"]}, "POST /api/v1/namespaces", False, True),
    ({"namespaces": ["dev-*"]}, "OPTIONS /api/v1/pods", False, True),
    # One cluster-scoped object has no namespace
    ({"namespaces": ["dev-*"]}, "GET /api/v1/nodes/node-1", False, False),
    ({"namespaces": ["dev-*"]}, "PATCH /api/v1/nodes/node-1", False, False),
    ({"namespaces": ["dev-*"]}, "POST /api/v1/nodes", False, False),
    ({"namespaces": ["dev-*"]}, "DELETE /api/v1/persistentvolumes/pv-1", False, False),
    ({"namespaces": ["dev-*"]}, "GET /api/v1/nodes", False, True),
    # The glob * alone is cluster-wide
    ({"namespaces": ["*"]}, "GET /api/v1/pods", True, True),
    ({"namespaces": ["dev", "*"]}, "DELETE /api/v1/pods", True, True),
    ({"namespaces": ["*"]}, "GET /api/v1/nodes/node-1", True, True),
    ({"namespaces": ["**"]}, "GET /api/v1/pods", False, True),
    ({"namespaces": ["?*"]}, "GET /api/v1/pods", False, True),
    # One object, asked for by name
    ({"resourceNames": ["a"]}, "GET /api/v1/namespaces/x/secrets/a", True, True),
    ({"resourceNames": ["a"]}, "GET /api/v1/namespaces/x/secrets/b", False, False),
    ({"resourceNames": ["a*"]}, "PATCH /api/v1/namespaces/x/secrets/ab", True, True),
    ({"resourceNames": ["a"]}, "GET /api/v1/namespaces/x/secrets?fieldSelector=metadata.name%3Da", True, True),
    ({"resourceNames": ["a"]}, "GET /api/v1/namespaces/x/secrets?fieldSelector=metadata.name%3Db", False, False),
    ({"resourceNames": ["a"]}, "GET /api/v1/watch/namespaces/x/secrets/a", True, True),
    ({"resourceNames": ["a"]}, "POST /api/v1/namespaces/x/pods/a/eviction", True, True),
    # Without a name the request reaches every name
    ({"resourceNames": ["a"]}, "GET /api/v1/namespaces/x/secrets", False, True),
    ({"resourceNames": ["a"]}, "GET /api/v1/secrets", False, True),
    ({"resourceNames": ["a"]}, "GET /api/v1/namespaces/x/secrets?watch=1", False, True),
    ({"resourceNames": ["a"]}, "GET /api/v1/namespaces/x/secrets?fieldSelector=metadata.name%21%3Db", False, True),
    ({"resourceNames": ["a"]}, "GET /api/v1/namespaces/x/secrets?labelSelector=name%3Db", False, True),
    ({"resourceNames": ["a"]}, "DELETE /api/v1/namespaces/x/secrets", False, True),
    ({"resourceNames": ["a"]}, "POST /api/v1/namespaces/x/secrets", False, True),
    ({"resourceNames": ["*"]}, "GET /api/v1/namespaces/x/secrets", False, True),
    ({"resourceNames": ["*"]}, "GET /api/v1/namespaces/x/secrets/b", True, True),
    # Both bounds at once
    ({"namespaces": ["x"], "resourceNames": ["a"]}, "GET /api/v1/secrets", False, True),
    ({"namespaces": ["x"], "resourceNames": ["a"]}, "GET /api/v1/namespaces/x/secrets", False, True),
    ({"namespaces": ["x"], "resourceNames": ["a"]}, "GET /api/v1/namespaces/y/secrets", False, False),
    ({"namespaces": ["x"], "resourceNames": ["a"]}, "GET /api/v1/namespaces/x/secrets/b", False, False),
    ({"namespaces": ["x"], "resourceNames": ["a"]}, "GET /api/v1/namespaces/x/secrets/a", True, True),
    # Verbs
    ({"verbs": ["delete"]}, "DELETE /api/v1/namespaces/x/pods", False, False),
    ({"verbs": ["deletecollection"]}, "DELETE /api/v1/namespaces/x/pods", True, True),
    ({"verbs": ["get"]}, "GET /api/v1/namespaces/x/pods", False, False),
    ({"verbs": ["get"]}, "HEAD /api/v1/namespaces/x/pods/a", True, True),
    ({"verbs": ["get"]}, "GET /api/v1/namespaces/x/pods/a/exec?command=id", False, False),
    ({"verbs": ["create"]}, "GET /api/v1/namespaces/x/pods/a/exec?command=id", True, True),
    ({"verbs": ["create"]}, "GET /api/v1/namespaces/x/pods/a/portforward", True, True),
    ({"verbs": ["create"]}, "POST /api/v1/namespaces/x/pods/a/attach", True, True),
    # Verbs nobody knows are denied by *, and allowed by nothing
    ({"verbs": ["*"]}, "OPTIONS /api/v1/namespaces/x/pods/a", False, True),
    ({"verbs": ["*"]}, "GET /api/v1/proxy/namespaces/x/pods/a", False, True),
    # Groups
    ({"apiGroups": [""]}, "GET /apis/apps/v1/deployments", False, False),
    ({"apiGroups": ["*"]}, "GET /api/v1/pods", True, True),
    ({"apiGroups": ["?*"]}, "GET /api/v1/pods", False, False),
    ({"apiGroups": ["*.k8s.io"]}, "GET /apis/events.k8s.io/v1/events", True, True),
    ({"apiGroups": ["*.k8s.io"]}, "GET /apis/k8s.io/v1/events", False, False),
    # Subresources
    ({"resources": ["pods"]}, "GET /api/v1/namespaces/x/pods/a/log", False, False),
    ({"resources": ["pods/log"]}, "GET /api/v1/namespaces/x/pods/a/log", True, True),
    ({"resources": ["pods/proxy"]}, "GET /api/v1/namespaces/x/pods/a/proxy/exec", True, True),
    ({"resources": ["nodes/proxy"]}, "POST /api/v1/nodes/n/proxy/exec/x/a/c?command=id", True, True),
    ({"resources": ["pods/log"]}, "GET /api/v1/namespaces/x/pods/log", False, False),
    ({"resources": ["namespaces"]}, "GET /api/v1/namespaces/pods", True, True),
    # A rule about resources is not about URLs
    ({"resources": ["*"]}, "GET /api", False, False),
    ({"resources": ["*"]}, "GET /api/v1", False, False),
]


@pytest.mark.parametrize(("fields", "request_line", "named", "reached"), READINGS)
def test_an_allow_covers_what_it_names_and_a_deny_what_could_be_reached(
    fields: dict[str, Any], request_line: str, named: bool, reached: bool
) -> None:
    info = ask(request_line)
    assert compile_rule(rule("allow", **fields))(info) is named
    assert compile_rule(rule("deny", **fields))(info) is reached
    assert compile_rule(rule("hold", **fields))(info) is reached


MASKS = [
    ({"resources": ["secrets"]}, "GET /api/v1/secrets", True),
    ({"resources": ["secrets"]}, "POST /api/v1/namespaces/x/secrets", True),
    ({"resources": ["secrets"]}, "OPTIONS /api/v1/namespaces/x/secrets/a", True),
    ({"resources": ["secrets"]}, "GET /api/v1/namespaces/x/configmaps", False),
    ({"resources": ["secrets"]}, "GET /api/v1", False),
    ({"namespaces": ["prod"]}, "GET /api/v1/secrets", True),
    ({"namespaces": ["prod"]}, "GET /api/v1/secrets?watch=1", True),
    ({"namespaces": ["prod"]}, "GET /api/v1/namespaces/prod/secrets/a", True),
    ({"namespaces": ["prod"]}, "GET /api/v1/namespaces/dev/secrets/a", False),
]


@pytest.mark.parametrize(("fields", "request_line", "expected"), MASKS)
def test_a_mask_applies_wherever_what_it_covers_could_be_seen(
    fields: dict[str, Any], request_line: str, expected: bool
) -> None:
    assert compile_mask(mask(**fields))(ask(request_line)) is expected


URLS = [
    ("/api", "GET /api", True),
    ("/api", "GET /apis", False),
    ("/api", "GET /api/v1", False),
    ("/api/*", "GET /api/v1", True),
    ("/api/*", "GET /api", False),
    ("/api*", "GET /apis/apps/v1", True),
    ("*", "GET /logs/kube-apiserver.log", True),
    ("*", "GET /api/v1/pods", False),
    ("/api/*", "GET /api/v1/namespaces/x/secrets/a", False),
    ("/openapi/v3", "GET /openapi/v3?timeout=32s", True),
    ("/openapi/v3", "POST /openapi/v3", False),
]


@pytest.mark.parametrize(("url", "request_line", "expected"), URLS)
def test_a_url_is_exact_or_a_prefix(url: str, request_line: str, expected: bool) -> None:
    assert compile_rule(url_rule("allow", [url], ["get"]))(ask(request_line)) is expected


def test_star_verbs_of_urls_allow_known_methods_and_deny_all() -> None:
    odd = RequestInfo(False, "TRACE", b"/api", "/api", "trace")
    assert not compile_rule(url_rule("allow", ["*"], ["*"]))(odd)
    assert compile_rule(url_rule("deny", ["*"], ["*"]))(odd)
    assert compile_rule(url_rule("allow", ["*"], ["*"]))(ask("HEAD /healthz"))


# A model of the cluster: objects in namespaces, and what each request can reach of them.
NAMESPACES = ["a", "ab", "b"]
NAMES = ["x", "xy", "y"]
OBJECTS = {(namespace, name) for namespace in NAMESPACES for name in NAMES}

globs = st.lists(st.text("abxy*?", min_size=1, max_size=3), min_size=1, max_size=2)
bounds = st.fixed_dictionaries(
    {},
    optional={
        "namespaces": st.lists(st.text("ab*?", min_size=1, max_size=3), min_size=1, max_size=2),
        "resourceNames": globs,
    },
)
scopes = st.tuples(st.sampled_from(["", *NAMESPACES]), st.sampled_from(["", *NAMES]))


def _request(namespace: str, name: str, verb: str) -> RequestInfo:
    return RequestInfo(True, "GET", b"/", "/", verb, namespace=namespace, resource="secrets", name=name)


def _reachable(namespace: str, name: str) -> set[tuple[str, str]]:
    return {(ns, n) for ns, n in OBJECTS if namespace in {"", ns} and name in {"", n}}


def _named(fields: dict[str, list[str]]) -> set[tuple[str, str]]:
    inside = compile_globs(fields.get("namespaces", ["*"]))
    called = compile_globs(fields.get("resourceNames", ["*"]))
    return {(namespace, name) for namespace, name in OBJECTS if inside(namespace) and called(name)}


@given(bounds, scopes, st.sampled_from(["list", "watch", "deletecollection"]))
def test_an_allow_never_lets_through_more_than_it_names(
    fields: dict[str, list[str]], scope: tuple[str, str], verb: str
) -> None:
    if compile_rule(rule("allow", **fields))(_request(*scope, verb)):
        assert _reachable(*scope) <= _named(fields)


@given(bounds, scopes, st.sampled_from(["list", "watch", "deletecollection"]))
def test_a_deny_stops_whatever_reaches_something_it_names(
    fields: dict[str, list[str]], scope: tuple[str, str], verb: str
) -> None:
    if _reachable(*scope) & _named(fields):
        assert compile_rule(rule("deny", **fields))(_request(*scope, verb))


@given(bounds, scopes, st.sampled_from(["get", "list", "create", "delete", "deletecollection", ""]))
def test_whatever_an_allow_covers_a_deny_in_the_same_words_reaches(
    fields: dict[str, list[str]], scope: tuple[str, str], verb: str
) -> None:
    info = _request(*scope, verb)
    assert not compile_rule(rule("allow", **fields))(info) or compile_rule(rule("deny", **fields))(info)
