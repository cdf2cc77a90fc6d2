"""Does a rule match a request? Two questions, and which one is asked depends on the rule's effect.

`NAMED`, for allow: everything the request can reach is named by the rule. A request that names no namespace or no
object (a list of all namespaces, a create whose body has the name) reaches more than a rule with `namespaces`
or `resourceNames` names, so such a rule does not allow it. Only the namespace glob `*` covers cluster-wide
requests. A `*` among the verbs stands for the known verbs.

`REACHED`, for deny, hold and masks: the request could reach something the rule names. A list, watch or
deletecollection over all namespaces reaches into each of them; a request without an object's name reaches every
name; `*` stands for any verb, known or not.

Two consequences of what a request does not show. A cluster-scoped object has no namespace: a rule with
`namespaces` (other than `*`) does not match a request for one such object, whatever the effect, but a deny,
hold or mask of it does match a list of them, since a list across namespaces looks the same. And creating a
Namespace names it in the body: rules that are asked what could be reached match it for every `namespaces` glob.

Verbs, groups and resources mean what they mean in RBAC (k8s.io/kubernetes `pkg/apis/rbac/v1/evaluation_helpers.go`),
so `delete` is not `deletecollection`, and `pods` is not `pods/exec`.
"""

from __future__ import annotations

import enum
import fnmatch
import re
from typing import TYPE_CHECKING

from holdfast.exchange import flatten_claims
from holdfast.policy.rules import RESOURCE_VERBS, URL_VERBS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.exchange import Identity, RequestInfo
    from holdfast.policy.rules import MaskRule, Rule, Subject

type TextTest = Callable[[str], bool]
type RequestTest = Callable[[RequestInfo], bool]
type SubjectTest = Callable[[Identity], bool]

_ONE_OBJECT_VERBS = frozenset({"get", "create", "update", "patch", "delete"})


class Reading(enum.Enum):
    """Which of the two questions a rule is asked."""

    NAMED = enum.auto()
    REACHED = enum.auto()


def compile_globs(globs: Sequence[str]) -> TextTest:
    """Return a test whether a text matches one of `globs`: `*` any run, `?` one character, all else itself.

    No globs match nothing. Takes time linear in the text for each glob: `fnmatch.translate` writes each run
    between stars as an atomic group, so nothing backtracks.
    """
    if "*" in globs:
        return lambda text: True
    literals = frozenset(glob for glob in globs if not _is_wild(glob))
    wild = [fnmatch.translate(glob.replace("[", "[[]")) for glob in globs if _is_wild(glob)]
    if not wild:
        return literals.__contains__
    match = re.compile("|".join(wild)).match
    return lambda text: text in literals or match(text) is not None


def compile_resources(patterns: Sequence[str]) -> RequestTest:
    """Return a test of resource and subresource. Wildcards stay on their side of the slash, but `*` is everything."""
    if "*" in patterns:
        return lambda info: True
    whole = compile_globs([pattern for pattern in patterns if "/" not in pattern])
    pairs = [_compile_pair(pattern) for pattern in patterns if "/" in pattern]

    def matches(info: RequestInfo) -> bool:
        if not info.subresource:
            return whole(info.resource)
        return any(resource(info.resource) and subresource(info.subresource) for resource, subresource in pairs)

    return matches


def compile_subjects(subjects: Sequence[Subject]) -> SubjectTest:
    """Return a test whether an identity is one of `subjects`."""
    tests = [_compile_subject(subject) for subject in subjects]
    return lambda identity: any(test(identity) for test in tests)


def compile_rule(rule: Rule) -> RequestTest:
    """Return a test of what is asked, in the reading that the rule's effect calls for."""
    reading = Reading.NAMED if rule.effect == "allow" else Reading.REACHED
    if rule.non_resource_urls:
        return _all_of([_compile_url_verbs(rule.verbs, reading), _compile_urls(rule.non_resource_urls)])
    return _all_of(
        [
            _compile_resource_verbs(rule.verbs, reading),
            _compile_groups(rule.api_groups),
            compile_resources(rule.resources),
            *_compile_scope(rule.namespaces, reading),
            *_compile_names(rule.resource_names, reading),
        ]
    )


def compile_mask(mask: MaskRule) -> RequestTest:
    """Return a test whether a request could reach what `mask` covers, with whatever verb."""
    return _all_of(
        [
            lambda info: info.is_resource_request,
            _compile_groups(mask.api_groups),
            compile_resources(mask.resources),
            *_compile_scope(mask.namespaces, Reading.REACHED),
        ]
    )


def _all_of(tests: Sequence[RequestTest]) -> RequestTest:
    ordered = tuple(tests)

    def matches(info: RequestInfo) -> bool:
        for test in ordered:  # noqa: SIM110 - this is the hot loop, and all() over a generator takes twice as long
            if not test(info):
                return False
        return True

    return matches


def _is_wild(glob: str) -> bool:
    return "*" in glob or "?" in glob


def _compile_pair(pattern: str) -> tuple[TextTest, TextTest]:
    resource, _, subresource = pattern.partition("/")
    return compile_globs([resource]), compile_globs([subresource])


def _compile_subject(subject: Subject) -> SubjectTest:
    user = compile_globs(subject.users or ("*",))
    issuer = compile_globs(subject.issuers or ("*",))
    tests: list[SubjectTest] = [lambda identity: user(identity.username) and issuer(identity.issuer)]
    if subject.groups:
        group = compile_globs(subject.groups)
        tests.append(lambda identity: any(map(group, identity.groups)))
    tests += [_compile_claim(name, globs) for name, globs in subject.claims.items()]
    return lambda identity: all(test(identity) for test in tests)


def _compile_claim(name: str, globs: Sequence[str]) -> SubjectTest:
    matches = compile_globs(globs)
    return lambda identity: any(matches(text) for told, text in flatten_claims(identity.claims) if told == name)


def _compile_resource_verbs(verbs: Sequence[str], reading: Reading) -> RequestTest:
    if "*" in verbs and reading is Reading.REACHED:
        return lambda info: info.is_resource_request
    known = RESOURCE_VERBS if "*" in verbs else frozenset(verbs)
    return lambda info: info.is_resource_request and info.verb in known


def _compile_url_verbs(verbs: Sequence[str], reading: Reading) -> RequestTest:
    if "*" in verbs and reading is Reading.REACHED:
        return lambda info: not info.is_resource_request
    known = URL_VERBS if "*" in verbs else frozenset(verbs)
    return lambda info: not info.is_resource_request and info.verb in known


def _compile_urls(urls: Sequence[str]) -> RequestTest:
    exact = frozenset(url for url in urls if not url.endswith("*"))
    prefixes = tuple(url[:-1] for url in urls if url.endswith("*"))
    return lambda info: info.path in exact or info.path.startswith(prefixes)


def _compile_groups(groups: Sequence[str]) -> RequestTest:
    matches = compile_globs(groups)
    return lambda info: matches(info.api_group)


def _compile_scope(namespaces: Sequence[str], reading: Reading) -> list[RequestTest]:
    if not namespaces or "*" in namespaces:
        return []
    matches = compile_globs(namespaces)
    if reading is Reading.NAMED:
        return [lambda info: info.namespace != "" and matches(info.namespace)]
    return [lambda info: matches(info.namespace) if info.namespace else _crosses_namespaces(info)]


def _crosses_namespaces(info: RequestInfo) -> bool:
    """Whether a request without a namespace may reach into namespaces: all but those for one object may."""
    creates_namespace = info.resource == "namespaces" and not info.name
    return creates_namespace or info.verb not in _ONE_OBJECT_VERBS


def _compile_names(names: Sequence[str], reading: Reading) -> list[RequestTest]:
    if not names:
        return []
    matches = compile_globs(names)
    if reading is Reading.NAMED:
        return [lambda info: info.name != "" and matches(info.name)]
    return [lambda info: info.name == "" or matches(info.name)]
