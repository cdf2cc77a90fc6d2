"""How claims become a user, held against what the API server does with the same configuration."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.errors import ConfigurationError, Unauthorized
from holdfast.exchange import CREDENTIAL_ID
from holdfast.identity.mapping import MAX_EXTRA_VALUES, User
from identity.forging import ISSUER, trusting

CLAIMS = {"iss": ISSUER.url, "sub": "ada", "groups": ("dev",), "aud": "holdfast"}


def mapped(claims: dict[str, Any] | None = None, mappings: dict[str, Any] | None = None, **rules: Any) -> User:
    return trusting(mappings=mappings, **rules).map({**CLAIMS, **(claims or {})})


def refusal(claims: dict[str, Any] | None = None, mappings: dict[str, Any] | None = None, **rules: Any) -> Unauthorized:
    with pytest.raises(Unauthorized) as raised:
        mapped(claims, mappings, **rules)
    return raised.value


def test_everything_is_mapped_by_expression() -> None:
    user = mapped(
        {"tenant": "72", "roles": "user,admin", "oid": "o-1", "jti": "t-1", "is_admin": True},
        {
            "username": {"expression": "'corp:' + claims.sub"},
            "groups": {"expression": "claims.roles.split(',')"},
            "uid": {"expression": "claims.oid"},
            "extra": [
                {"key": "example.com/tenant", "valueExpression": "claims.tenant"},
                {"key": "example.com/admin", "valueExpression": "claims.is_admin ? 'true' : ''"},
                {"key": "example.com/none", "valueExpression": "claims.?nope.orValue('')"},
            ],
        },
    )
    assert (user.username, user.groups, user.uid) == ("corp:ada", ("user", "admin"), "o-1")
    assert dict(user.extra) == {
        CREDENTIAL_ID: ("JTI=t-1",),
        "example.com/tenant": ("72",),
        "example.com/admin": ("true",),
    }


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"claim": "groups", "prefix": "oidc:"}, ("oidc:dev",)),
        ({"claim": "role", "prefix": ""}, ("admin",)),
        ({"claim": "absent", "prefix": ""}, ()),
        ({"expression": "claims.realm_access.roles"}, ("a", "b")),
        ({"expression": "claims.role"}, ("admin",)),
        ({"expression": "''"}, ()),
        ({"expression": "[]"}, ()),
        ({"expression": "null"}, ()),
        ({"expression": "['', 'x']"}, ("x",)),
        ({}, ()),
    ],
)
def test_groups_are_a_list_one_text_nested_or_absent(groups: dict[str, str], expected: tuple[str, ...]) -> None:
    claims = {"role": "admin", "realm_access": {"roles": ("a", "b")}}
    assert mapped(claims, {"groups": groups}).groups == expected


@pytest.mark.parametrize(
    "groups",
    [
        {"claim": "groups", "prefix": ""},
        {"expression": "claims.groups"},
        {"expression": "claims.?groups.orValue([])"},
        {"expression": "has(claims.groups) ? claims.groups : []"},
    ],
)
def test_groups_that_were_too_many_are_not_taken_for_none(groups: dict[str, str]) -> None:
    elsewhere = {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph"}}}
    mapper = trusting(mappings={"groups": groups})
    claims = {name: value for name, value in {**CLAIMS, **elsewhere}.items() if name != "groups"}
    with pytest.raises(Unauthorized, match="too many") as raised:
        mapper.map(claims)
    assert raised.value.why == "groups_overage"


NOT_TOO_MANY = {"claimValidationRules": [{"expression": "!('banned' in claims.?groups.orValue([]))"}]}
ROLES_TOO = {"mappings": {"groups": {"expression": "claims.?groups.orValue([]) + claims.?roles.orValue([])"}}}


@pytest.mark.parametrize(
    ("told", "configured"),
    [
        ({"hasgroups": True}, {}),
        ({"hasgroups": "true"}, {}),
        ({"hasgroups": True}, NOT_TOO_MANY),
        ({"_claim_names": {"groups": "src1"}}, {**NOT_TOO_MANY, "mappings": {"groups": {}}}),
        ({"_claim_names": {"groups": "src1", "roles": "src1"}, "roles": ("a",)}, ROLES_TOO),
    ],
    ids=["implicit flow", "implicit flow, a text", "implicit flow and a rule", "a rule alone", "one of two"],
)
def test_who_is_in_too_many_groups_does_not_lose_the_one_that_keeps_them_out(
    told: dict[str, Any], configured: dict[str, Any]
) -> None:
    mapper = trusting(**configured)
    claims = {name: value for name, value in {**CLAIMS, **told}.items() if name != "groups"}
    with pytest.raises(Unauthorized) as raised:
        mapper.map(claims)
    assert raised.value.why == "groups_overage"


def test_groups_that_are_told_in_full_are_taken() -> None:
    assert mapped({"hasgroups": False}).groups == ("dev",)
    assert mapped({"hasgroups": True}).groups == ("dev",)


def test_other_claims_that_are_kept_elsewhere_do_not_matter() -> None:
    assert mapped({"_claim_names": {"address": "src1"}}).groups == ("dev",)


@pytest.mark.parametrize(
    ("claims", "mappings"),
    [
        ({"sub": ""}, {}),
        ({"sub": 7}, {}),
        ({"sub": "a\nb"}, {}),
        ({"sub": "a" * 257}, {}),
        ({}, {"username": {"expression": "''"}}),
        ({"n": 7}, {"username": {"expression": "claims.n"}}),
        ({"g": {"a": 1}}, {"groups": {"expression": "claims.g"}}),
        ({"g": ("a", 1)}, {"groups": {"expression": "claims.g"}}),
        ({"g": ("a\u202eb",)}, {"groups": {"expression": "claims.g"}}),
        ({"uid": 7}, {"uid": {"claim": "uid"}}),
        ({}, {"uid": {"claim": "uid"}}),
        ({"uid": "a\r"}, {"uid": {"expression": "claims.uid"}}),
        ({"x": "a\n"}, {"extra": [{"key": "example.com/x", "valueExpression": "claims.x"}]}),
        ({"x": 7}, {"extra": [{"key": "example.com/x", "valueExpression": "claims.x"}]}),
        (
            {"x": ("a",) * (MAX_EXTRA_VALUES + 1)},
            {"extra": [{"key": "example.com/x", "valueExpression": "claims.x"}]},
        ),
    ],
)
def test_what_is_not_usable_is_refused(claims: dict[str, Any], mappings: dict[str, Any]) -> None:
    assert refusal(claims, mappings).why == "bad_claim"


def test_a_user_name_that_is_not_there_is_told_from_one_that_is_not_usable() -> None:
    mappings = {"username": {"claim": "email", "prefix": ""}}
    absent, unusable = refusal({}, mappings), refusal({"email": ""}, mappings)
    assert (absent.why, unusable.why) == ("bad_claim", "bad_claim")
    assert str(absent) == ("the token has no claim email; ask its issuer for that with a scope, or map another claim")
    assert str(unusable) == "the token's email is not a usable user name"


@pytest.mark.parametrize(
    "mappings",
    [
        {"username": {"expression": "claims.nope"}},
        {"groups": {"expression": "claims.nope"}},
        {"uid": {"expression": "claims.nope"}},
        {"extra": [{"key": "example.com/x", "valueExpression": "claims.nope"}]},
    ],
)
def test_an_expression_without_a_value_refuses(mappings: dict[str, Any]) -> None:
    assert refusal({}, mappings).why == "expression_failed"


@pytest.mark.parametrize(
    ("rules", "claims", "why", "told"),
    [
        ([{"claim": "hd", "requiredValue": "example.com"}], {}, "claim_rule", "the token's hd is not"),
        ([{"claim": "hd", "requiredValue": "example.com"}], {"hd": "evil.com"}, "claim_rule", "the token's hd is not"),
        ([{"claim": "hd"}], {}, "claim_rule", "the token's hd is not"),
        ([{"expression": "claims.sub == 'bob'", "message": "only bob"}], {}, "claim_rule", "only bob"),
        ([{"expression": "claims.sub == 'bob'"}], {}, "claim_rule", "does not meet the rules"),
        ([{"expression": "claims.nope == 'x'"}], {}, "expression_failed", "lacks what"),
        ([{"expression": "claims.flag"}], {"flag": "true"}, "claim_rule", "does not meet the rules"),
    ],
)
def test_claims_must_meet_their_rules(rules: list[dict[str, str]], claims: dict[str, Any], why: str, told: str) -> None:
    found = refusal(claims, claimValidationRules=rules)
    assert found.why == why
    assert told in str(found)


@pytest.mark.parametrize(
    ("claims", "settings", "detail"),
    [
        (
            {"hd": "evil.com"},
            {"claimValidationRules": [{"claim": "sub", "requiredValue": "ada"}, {"claim": "hd"}]},
            "claimValidationRules.1: hd is 'evil.com'",
        ),
        ({}, {"claimValidationRules": [{"claim": "hd"}]}, "claimValidationRules.0: hd is not there"),
        ({"hd": ("x",)}, {"claimValidationRules": [{"claim": "hd"}]}, "claimValidationRules.0: hd is no text"),
        (
            {},
            {
                "claimValidationRules": [
                    {"claim": "sub", "requiredValue": "ada"},
                    {"expression": "claims.sub\n  == 'b'"},
                ]
            },
            "claimValidationRules.1.expression: claims.sub == 'b'",
        ),
        (
            {},
            {"userValidationRules": [{"expression": "user.username == 'bob'"}]},
            "userValidationRules.0.expression: user.username == 'bob'",
        ),
        (
            {},
            {"claimValidationRules": [{"expression": "claims.nope == 'x'"}]},
            'claimValidationRules.0.expression: NOT_FOUND: Key not found in map : "nope"',
        ),
        (
            {},
            {"mappings": {"groups": {"expression": "claims.nope"}}},
            'claimMappings.groups.expression: NOT_FOUND: Key not found in map : "nope"',
        ),
        (
            {},
            {"mappings": {"extra": [{"key": "example.com/x", "valueExpression": "claims.nope"}]}},
            'claimMappings.extra.0.valueExpression: NOT_FOUND: Key not found in map : "nope"',
        ),
    ],
)
def test_which_rule_it_was_is_for_the_record(claims: dict[str, Any], settings: dict[str, Any], detail: str) -> None:
    found = refusal(claims, **settings)
    assert detail in found.detail
    assert found.detail not in str(found)


def test_claims_that_meet_their_rules_pass() -> None:
    rules = [{"claim": "hd", "requiredValue": "example.com"}, {"claim": "e"}, {"expression": "claims.sub == 'ada'"}]
    assert mapped({"hd": "example.com", "e": ""}, claimValidationRules=rules).username == "ada"


def test_users_must_meet_their_rules() -> None:
    rules = [{"expression": "'dev' in user.groups"}, {"expression": "user.username != 'bob'", "message": "not bob"}]
    assert mapped(userValidationRules=rules).username == "ada"
    found = refusal({"sub": "bob"}, userValidationRules=rules)
    assert (found.why, str(found)) == ("user_rule", "not bob")


@pytest.mark.parametrize(
    ("allowed", "name", "passes"),
    [
        ((), "system:admin", False),
        ((), "system:serviceaccount:a:b", False),
        (("system:serviceaccount:",), "system:serviceaccount:a:b", True),
        (("system:serviceaccount:",), "system:masters", False),
    ],
)
def test_names_of_kubernetes_are_an_issuers_only_where_that_is_said(
    allowed: tuple[str, ...], name: str, *, passes: bool
) -> None:
    mapper = trusting(ISSUER.model_copy(update={"system_names": allowed}))
    if passes:
        assert mapper.map({**CLAIMS, "sub": name, "groups": (name,)}).groups == (name,)
        return
    for claims in ({**CLAIMS, "sub": name}, {**CLAIMS, "groups": (name,)}):
        with pytest.raises(Unauthorized) as raised:
            mapper.map(claims)
        assert raised.value.why == "reserved_name"


@pytest.mark.parametrize(
    ("mappings", "rules", "fault"),
    [
        ({"username": {"expression": "claims.sub +"}}, {}, "claimMappings.username.expression: the expression"),
        ({"groups": {"expression": "1"}}, {}, "claimMappings.groups.expression: the expression '1' evaluates to INT"),
        ({"uid": {"expression": "[]"}}, {}, "claimMappings.uid.expression"),
        ({"extra": [{"key": "a.b/c", "valueExpression": "x"}]}, {}, "claimMappings.extra.0.valueExpression"),
        ({}, {"claimValidationRules": [{"expression": "'x'"}]}, "claimValidationRules.0.expression"),
        ({}, {"userValidationRules": [{"expression": "user.nope == 1"}]}, "userValidationRules.0.expression"),
        ({"username": {"expression": "claims.email"}}, {}, "must use claims.email_verified"),
    ],
)
def test_a_faulty_expression_names_issuer_and_field(
    mappings: dict[str, Any], rules: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        trusting(mappings=mappings, **rules)
    assert str(raised.value).startswith(f"issuer {ISSUER.url}: ")
    assert fault in str(raised.value)


@pytest.mark.parametrize(
    ("mappings", "rules"),
    [
        ({"username": {"expression": "claims.email_verified ? claims.email : ''"}}, {}),
        (
            {"username": {"expression": "claims.email"}},
            {"claimValidationRules": [{"expression": "claims.?email_verified.orValue(true) == true"}]},
        ),
        (
            {
                "username": {"expression": "claims.email"},
                "extra": [{"key": "a.b/c", "valueExpression": "string(claims.email_verified)"}],
            },
            {},
        ),
    ],
)
def test_an_address_is_a_name_where_something_looks_at_its_verification(
    mappings: dict[str, Any], rules: dict[str, Any]
) -> None:
    mapper = trusting(mappings=mappings, **rules)
    claims = {**CLAIMS, "email": "ada@example.com", "email_verified": True}
    assert mapper.map(claims).username == "ada@example.com"


def test_an_address_that_is_not_verified_is_refused() -> None:
    rules = [{"expression": "claims.?email_verified.orValue(true) == true", "message": "verify it"}]
    claims = {"email": "ada@example.com", "email_verified": "yes"}
    found = refusal(claims, {"username": {"expression": "claims.email"}}, claimValidationRules=rules)
    assert (found.why, str(found)) == ("claim_rule", "verify it")
