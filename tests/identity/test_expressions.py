"""CEL over claims and users: what Kubernetes' documentation shows works, faults are found when it is compiled."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from holdfast.identity.expressions import (
    BOOLEAN,
    CLAIMS,
    LONGEST_EXPRESSION,
    TEXT,
    TEXTS,
    USER,
    Expression,
    NotEvaluated,
    Values,
)

TOKEN = MappingProxyType(
    {
        "sub": "119abc",
        "aud": ("my-app",),
        "email": "foo@bar.com",
        "email_verified": True,
        "username": "foo",
        "roles": "user,admin",
        "groups": ("a", "b"),
        "hd": "example.com",
        "exp": 1703232949,
        "nbf": 1703200549,
        "foo": MappingProxyType({"bar": MappingProxyType({"baz": "deep"})}),
        "admin": True,
        "kubernetes.io": MappingProxyType({"namespace": "shop"}),
        "nothing": None,
    }
)
PERSON = {"username": "foo", "uid": "u1", "groups": ("g1", "system:x"), "extra": {"example.com/tenant": ("72",)}}
ALL = BOOLEAN | TEXTS


def evaluate(text: str, variable: str = CLAIMS, value: Any = TOKEN) -> Any:
    return Expression(text, variable, ALL).evaluate(Values(variable, value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # the first ones are those of Kubernetes' documentation of AuthenticationConfiguration
        ("claims.username + ':external-user'", "foo:external-user"),
        ("'oidc:' + claims.username + ':v1'", "oidc:foo:v1"),
        ("claims.roles.split(',')", ["user", "admin"]),
        ("claims.sub", "119abc"),
        ("claims.hd == 'example.com'", True),
        ("claims.exp - claims.nbf <= 86400", True),
        ("claims.?email_verified.orValue(true) == true", True),
        ("claims.?absent.orValue(true) == true", True),
        ("sets.equivalent(claims.aud, ['my-app'])", True),
        ("(has(claims.is_admin) && claims.is_admin) ? 'true' : ''", ""),
        ("has(claims.foo.nope)", False),
        ("claims.foo.bar.baz", "deep"),
        ("claims.?foo.?bar.?baz.orValue('')", "deep"),
        ("claims['kubernetes.io'].namespace", "shop"),
        ("claims.groups.map(g, 'x:' + g)", ["x:a", "x:b"]),
        ("claims.groups.filter(g, g != 'a')", ["b"]),
        ("claims.groups.exists(g, g == 'b') && !('c' in claims.groups)", True),
        ("claims.admin ? ['admin'] : []", ["admin"]),
        ("claims.email.lowerAscii().split('@')[1]", "bar.com"),
        ("claims.username.matches('^f.*')", True),
        ("claims.roles.replace(',', ';').substring(0, 4)", "user"),
        ("claims.groups.join('-')", "a-b"),
        ("'%s-%d'.format([claims.username, 3])", "foo-3"),
        ("sets.contains(claims.groups, ['a']) && sets.intersects(claims.groups, ['b', 'z'])", True),
        ("claims.exists(name, value, name == 'hd' && value == 'example.com')", True),
        ("claims.nothing", None),
        ("size(claims.groups) == 2 && claims.exp > 1", True),
    ],
)
def test_what_the_api_server_evaluates_is_evaluated_alike(text: str, expected: object) -> None:
    assert evaluate(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("!user.username.startsWith('system:')", True),
        ("user.groups.all(group, !group.startsWith('system:'))", False),
        ("user.extra['example.com/tenant'][0] == '72'", True),
        ("user.uid == 'u1'", True),
    ],
)
def test_users_are_judged(text: str, *, expected: bool) -> None:
    assert evaluate(text, USER, PERSON) is expected


@pytest.mark.parametrize(
    ("text", "variable", "kinds", "fault"),
    [
        ("claims.sub +", CLAIMS, TEXT, "Syntax error"),
        ("", CLAIMS, TEXT, "Syntax error"),
        ("1 + 'a'", CLAIMS, TEXT, "no matching overload"),
        ("nope.x", CLAIMS, TEXT, "undeclared reference to 'nope.x'"),
        ("user.username", CLAIMS, TEXT, "undeclared reference to 'user.username'"),
        ("claims.sub == 'x'", USER, BOOLEAN, "undeclared reference to 'claims.sub'"),
        ("claims.sub == 'x'", CLAIMS, TEXT, "evaluates to BOOL, expected STRING"),
        ("'x'", CLAIMS, BOOLEAN, "evaluates to STRING, expected BOOL"),
        ("{'a': 'b'}", CLAIMS, TEXTS, "evaluates to MAP<STRING, STRING>"),
        ("claims.?sub", CLAIMS, TEXTS, "evaluates to"),
        ("url(claims.iss).getHost()", CLAIMS, TEXT, "'url': the library for URLs is not supported here"),
        ("isURL(claims.iss)", CLAIMS, BOOLEAN, "undeclared reference to 'isURL': the library for URLs is not"),
        ("ip(claims.ip).family() == 4", CLAIMS, BOOLEAN, "'ip': the library for IP addresses and CIDRs is not"),
        ("quantity(claims.sub)", CLAIMS, TEXT, "the library for quantities is not supported here"),
        ("semver(claims.sub).major() == 1", CLAIMS, BOOLEAN, "the library for semantic versions is not supported here"),
        ("format.named('uuid')", CLAIMS, TEXT, "the library for formats is not supported here"),
        ("claims.groups.isSorted()", CLAIMS, BOOLEAN, "the library for lists that Kubernetes adds is not supported"),
        ("claims.sub.find('[a-z]+')", CLAIMS, TEXT, "'find': the library for regular expressions is not supported"),
        (
            "claims.groups.mapp(g, g)",
            CLAIMS,
            TEXTS,
            "1:19: undeclared reference to 'mapp': there is no such function or",
        ),
        ("claims.groups.map(g, h)", CLAIMS, TEXTS, "undeclared reference to 'h' (in container '')"),
        ("claims.kubernetes__dot__io.namespace", CLAIMS, TEXT, 'write `["..."]`'),
        ("claims.__namespace__", CLAIMS, TEXT, 'write `["..."]`'),
        ("user.name == 'x'", USER, BOOLEAN, "a field that user has not; it has extra, groups, uid, username"),
        ("'" + "x" * LONGEST_EXPRESSION + "'", CLAIMS, TEXT, "longer than"),
    ],
)
def test_a_fault_is_found_when_it_is_compiled(text: str, variable: str, kinds: frozenset[str], fault: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  the text is looked at below
        Expression(text, variable, kinds)
    assert fault in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["claims.absent == 'x'", "claims.exp + 'a'", "claims.groups[7]", "claims.sub.nope", "claims.groups.nope"]
)
def test_what_claims_do_not_have_has_no_value(text: str) -> None:
    with pytest.raises(NotEvaluated):
        evaluate(text)


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "ada\0min"},
        {"sub": "ada", "groups": ("a", "b\0")},
        {"sub": "ada", "x": {"y\0z": 1}},
        {"sub\0": "bob", "sub": "ada"},
    ],
)
def test_no_text_is_cut_at_a_nul(claims: dict[str, Any]) -> None:
    with pytest.raises(NotEvaluated):
        evaluate("claims.sub", CLAIMS, claims)


@pytest.mark.parametrize("text", ["optional.none()", "[optional.of(1)]", "claims.groups.first()"])
def test_a_value_that_may_be_absent_is_no_value(text: str) -> None:
    try:
        expression = Expression(text, CLAIMS, ALL | {"OPTIONAL_TYPE"})
    except ValueError:
        return
    with pytest.raises(NotEvaluated):
        expression.evaluate(Values(CLAIMS, TOKEN))


@pytest.mark.parametrize("text", ["dyn(claims.?sub)", "has(claims.nope) ? claims.nope : claims.?absent"])
def test_a_value_that_turns_out_absent_is_no_value(text: str) -> None:
    with pytest.raises(NotEvaluated):
        evaluate(text)


def test_claims_that_take_too_long_have_no_value() -> None:
    names = tuple(map(str, range(1000)))
    with pytest.raises(NotEvaluated):
        evaluate("claims.a.filter(x, !claims.b.exists(y, y == x))", CLAIMS, {"a": names, "b": names[:500]})


@pytest.mark.parametrize(
    ("text", "claim", "reads"),
    [
        ("claims.email", "email", True),
        ("claims.?email.orValue('')", "email", True),
        ("claims['email']", "email", True),
        ('claims["email"]', "email", True),
        ("claims . email", "email", True),
        ("claims.email_verified", "email", False),
        ("claims.sub", "email", False),
    ],
)
def test_which_claims_an_expression_reads(text: str, claim: str, *, reads: bool) -> None:
    assert Expression(text, CLAIMS, ALL).reads(claim) is reads
