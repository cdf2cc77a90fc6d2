"""What the credential needs so that it can impersonate: only what the issuers can make it ask for."""

from __future__ import annotations

from typing import Any

from holdfast.credential.rights import Right, access_review, impersonation_rights, role_manifests
from holdfast.settings.identity import IdentitySection

NAMES = {"username": {"claim": "sub", "prefix": ""}}


def section(*system_names: str, **mappings: Any) -> IdentitySection:
    issuer = {"url": "https://a.test", "audiences": ["x"], "systemNames": list(system_names)}
    return IdentitySection.model_validate({"jwt": [{"issuer": issuer, "claimMappings": NAMES | mappings}]})


def saml_section(**mappings: Any) -> IdentitySection:
    provider = {
        "entityID": "https://id.test/saml",
        "certificatesFile": "id.pem",
        "singleSignOnURL": "https://id.test/sso",
        "serviceProviderEntityID": "https://gateway.test/saml",
        "assertionConsumerServiceURL": "https://gateway.test/saml/acs",
        "tokenURL": "https://gateway.test/token",
        "mappings": {"username": {"prefix": ""}} | mappings,
    }
    return IdentitySection.model_validate({"tokens": {"url": "https://gateway.test"}, "saml": [provider]})


def told(identity: IdentitySection) -> list[tuple[str, str]]:
    return [(right.combined_resource, right.name) for right in impersonation_rights(identity)]


ALWAYS = [
    ("users", ""),
    ("groups", "system:authenticated"),
    ("groups", ""),
    ("userextras/holdfast.dev/issuer", "https://a.test"),
    ("userextras/holdfast.dev/run-id", ""),
    ("userextras/authentication.kubernetes.io/credential-id", ""),
]


def test_names_and_groups_and_our_own_extra_are_always_needed() -> None:
    assert told(section()) == ALWAYS
    assert told(section("system:node:")) == ALWAYS


def test_what_the_mappings_give_is_needed_too() -> None:
    extra = [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}]
    found = told(section("system:serviceaccount", uid={"claim": "oid"}, extra=extra))
    assert set(found) - set(ALWAYS) == {("serviceaccounts", ""), ("uids", ""), ("userextras/example.com/tenant", "")}
    assert ("serviceaccounts", "") in told(section("system:serviceaccount:shop:"))


def test_a_saml_provider_is_named_as_an_issuer_is_and_its_mappings_count_too() -> None:
    issuer = ("userextras/holdfast.dev/issuer", "https://id.test/saml")
    assert set(told(saml_section())) == {*ALWAYS[:3], *ALWAYS[4:], issuer}
    found = told(saml_section(uid={"attribute": "oid"}, extra=[{"key": "example.com/tenant", "attribute": "tenant"}]))
    assert set(found) - set(told(saml_section())) == {("uids", ""), ("userextras/example.com/tenant", "")}


def test_the_role_has_each_right_once_in_its_api_group_and_nothing_else() -> None:
    role, binding = role_manifests(impersonation_rights(section(uid={"claim": "oid"})), "infra", "door")
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"]},
        {
            "apiGroups": ["authentication.k8s.io"],
            "resources": [
                "uids",
                "userextras/holdfast.dev/issuer",
                "userextras/holdfast.dev/run-id",
                "userextras/authentication.kubernetes.io/credential-id",
            ],
            "verbs": ["impersonate"],
        },
    ]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "door", "namespace": "infra"}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_the_question_is_asked_as_the_api_server_asks_itself() -> None:
    right = Right("authentication.k8s.io", "userextras", "holdfast.dev/issuer", "https://a.test")
    assert access_review(right)["spec"]["resourceAttributes"] == {
        "verb": "impersonate",
        "group": "authentication.k8s.io",
        "resource": "userextras",
        "subresource": "holdfast.dev/issuer",
        "name": "https://a.test",
    }
