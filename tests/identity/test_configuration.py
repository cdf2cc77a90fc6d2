"""The section `identity`: files of the API server load as they are, and faults are one sentence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.errors import ConfigurationError
from holdfast.identity.mapping import UserMapper
from holdfast.settings import Settings, load_settings
from running import trusted_issuer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from identity.conftest import ServingCertificate

# Every field that the API server knows, as its documentation shows them.
KUBERNETES = """
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: false
  conditions:
  - path: /livez
jwt:
- issuer:
    url: https://example.com
    discoveryURL: https://discovery.example.com/.well-known/openid-configuration
    certificateAuthority: |
{pem}
    audiences: [my-app, my-other-app]
    audienceMatchPolicy: MatchAny
    egressSelectorType: cluster
  claimValidationRules:
  - claim: hd
    requiredValue: example.com
  - expression: claims.hd == "example.com"
    message: the hd claim must be set to example.com
  - expression: claims.exp - claims.nbf <= 86400
    message: total token lifetime must not exceed 24 hours
  claimMappings:
    username:
      expression: claims.username + ":external-user"
    groups:
      expression: claims.roles.split(",")
    uid:
      expression: claims.sub
    extra:
    - key: example.com/client_name
      valueExpression: claims.some_claim
    - key: example.com/admin
      valueExpression: '(has(claims.is_admin) && claims.is_admin) ? "true" : ""'
  userValidationRules:
  - expression: "!user.username.startsWith('system:')"
    message: username cannot use reserved system- prefix
  - expression: "user.groups.all(group, !group.startsWith('system:'))"
    message: groups cannot use reserved system- prefix
- issuer:
    url: https://second.example.com
    audiences: [my-app]
  claimMappings:
    username:
      claim: sub
      prefix: ""
"""
BASE: dict[str, Any] = {
    "upstream": {"server": "https://api:6443", "certificateAuthority": "ca.crt", "tokenFile": "token"},
    "policies": ["p.yaml"],
}

type Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Read settings with this section `identity`."""

    def load(**identity: object) -> Settings:
        file = tmp_path / "holdfast.yaml"
        file.write_text(json.dumps({**BASE, "identity": identity}))
        return load_settings(file)

    return load


@pytest.fixture
def kubernetes(tmp_path: Path, serving_certificate: ServingCertificate) -> Path:
    pem = serving_certificate.authority.read_text().replace("\n", "\n      ").rstrip()
    file = tmp_path / "authentication.yaml"
    file.write_text(KUBERNETES.replace("{pem}", f"      {pem}"))
    return file


def test_a_file_of_the_api_server_loads_as_it_is(load: Load, kubernetes: Path) -> None:
    first, second = load(authenticationConfiguration=kubernetes.name).identity.jwt
    assert first.issuer.audiences == ("my-app", "my-other-app")
    assert first.issuer.discovery_url == "https://discovery.example.com/.well-known/openid-configuration"
    claims = {
        "username": "foo",
        "roles": "user,admin",
        "sub": "119abc",
        "hd": "example.com",
        "exp": 1703232949,
        "nbf": 1703200549,
        "some_claim": "ci",
        "is_admin": True,
    }
    user = UserMapper(first).map(claims)
    assert (user.username, user.groups, user.uid) == ("foo:external-user", ("user", "admin"), "119abc")
    assert dict(user.extra) == {"example.com/client_name": ("ci",), "example.com/admin": ("true",)}
    assert UserMapper(second).map(claims).username == "119abc"


def test_its_issuers_come_after_those_of_the_settings(load: Load, kubernetes: Path) -> None:
    settings = load(jwt=[trusted_issuer()], authenticationConfiguration=str(kubernetes))
    urls = [trusted.issuer.url for trusted in settings.identity.jwt]
    assert urls == ["https://issuer.test", "https://example.com", "https://second.example.com"]


def entry(mappings: dict[str, Any] | None = None, rules: dict[str, Any] | None = None, **issuer: Any) -> dict[str, Any]:
    """An entry of `jwt`, with mappings, rules and members of its issuer replaced."""
    usual = trusted_issuer(**issuer)
    return {**usual, "claimMappings": {**usual["claimMappings"], **(mappings or {})}, **(rules or {})}


def without(member: str) -> dict[str, Any]:
    usual = trusted_issuer()
    return {**usual, "issuer": {key: value for key, value in usual["issuer"].items() if key != member}}


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ([], "identity: found {'jwt': []}; expected: jwt, saml, or authenticationConfiguration"),
        (
            [entry(url="https://a.test"), entry(), entry()],
            "identity.jwt.2.issuer.url: found 'https://issuer.test'; expected: each issuer.url once.",
        ),
        (
            [entry(discoveryURL="https://d.test/x"), entry(url="https://a.test", discoveryURL="https://d.test/x")],
            "identity.jwt.1.issuer.discoveryURL: found 'https://d.test/x'; expected: each issuer.discoveryURL once.",
        ),
        ([without("url")], "identity.jwt.0.issuer.url: is missing"),
        ([without("audiences")], "identity.jwt.0.issuer.audiences: is missing"),
        ([entry(audiences=[])], "identity.jwt.0.issuer.audiences: found []"),
        ([entry(audiences=[""])], "audiences that are not empty"),
        ([entry(audiences=["a", "a"], audienceMatchPolicy="MatchAny")], "each once"),
        ([entry(audiences=["a", "b"])], "`audienceMatchPolicy: MatchAny` with several audiences"),
        ([entry(audienceMatchPolicy="MatchAll")], "identity.jwt.0.issuer.audienceMatchPolicy: found 'MatchAll'"),
        ([entry(url="http://issuer.test")], "discovered over https://, or has a jwksURL or jwksFile"),
        ([entry(url="spiffe://example.org")], "discovered over https://, or has a jwksURL or jwksFile"),
        ([entry(url="spiffe://example.org/ns/a")], "a trust domain, without a path"),
        ([entry(url="spiffe://")], "a trust domain, without a path"),
        ([entry(url="spiffe://EXAMPLE.org")], "a trust domain, without a path"),
        ([entry(jwksURL="http://keys.test/jwks")], "jwksURL: found 'http://keys.test/jwks'; expected: an https://"),
        ([entry(jwksURL="https://keys.test/jwks", jwksFile="j")], "one of discoveryURL, jwksURL and jwksFile"),
        ([entry(url="issuer.test")], "identity.jwt.0.issuer.url: found 'issuer.test'; expected: an https:// address"),
        ([entry(url="https://")], "an https:// address"),
        ([entry(url="https://u:p@issuer.test")], "without a user name"),
        ([entry(url="https://issuer.test?x=1")], "without a query"),
        ([entry(url="https://issuer.test#x")], "without a query or fragment"),
        ([entry(url="https://issuer.test:99999")], "identity.jwt.0.issuer.url"),
        (
            [entry(discoveryURL="http://d.test/x")],
            "discoveryURL: found 'http://d.test/x'; expected: an https://",
        ),
        ([entry(discoveryURL="https://issuer.test/")], "a discoveryURL that is not url"),
        ([entry(discoveryURL="https://d.test/x", jwksFile="j")], "one of discoveryURL, jwksURL and jwksFile"),
        ([entry(discoveryUrl="https://d.test/x")], "discoveryUrl: there is no such key"),
        ([entry(certificateAuthority="ca.crt")], "certificateAuthority: found 'ca.crt'; expected: certificates in PEM"),
        (
            [entry(certificateAuthority="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")],
            "certificates in PEM",
        ),
        ([entry(egressSelectorType="etcd")], "egressSelectorType: found 'etcd'"),
        ([entry(algorithms=["HS256"])], "algorithms.0: found 'HS256'"),
        ([entry(algorithms=["none"])], "algorithms.0: found 'none'"),
        ([entry(maxLifetimeSeconds=0)], "maxLifetimeSeconds: found 0"),
        ([entry(systemNames=["system:"])], "prefixes that begin with `system:` and go on"),
        ([entry(systemNames=["admin"])], "prefixes that begin with `system:`"),
        ([entry({"username": {}})], "username with a claim or an expression"),
        ([entry({"username": {"claim": "sub"}})], "a prefix with the claim"),
        ([entry({"username": {"claim": "sub", "prefix": "", "expression": "x"}})], "claim or expression, not both"),
        ([entry({"username": {"prefix": "", "expression": "x"}})], "no prefix with an expression"),
        ([entry({"groups": {"claim": "groups"}})], "a prefix with the claim"),
        ([entry({"uid": {"claim": "a", "expression": "b"}})], "claim or expression, not both"),
        ([entry({"uid": {"claim": "a", "prefix": "b"}})], "uid.prefix: there is no such key"),
        ([entry({"extra": [{"key": "tenant", "valueExpression": "x"}]})], "lower-case DOMAIN/PATH"),
        ([entry({"extra": [{"key": "Example.com/t", "valueExpression": "x"}]})], "lower-case DOMAIN/PATH"),
        ([entry({"extra": [{"key": "a.kubernetes.io/t", "valueExpression": "x"}]})], "a domain of your own"),
        ([entry({"extra": [{"key": "k8s.io/t", "valueExpression": "x"}]})], "a domain of your own"),
        ([entry({"extra": [{"key": "holdfast.dev/issuer", "valueExpression": "x"}]})], "holdfast.dev is ours"),
        ([entry({"extra": [{"key": "a.b/t", "valueExpression": ""}]})], "valueExpression: found ''"),
        (
            [entry({"extra": [{"key": "a.b/t", "valueExpression": "x"}] * 2})],
            "extra.1.key: found 'a.b/t'; expected: each key of extra once.",
        ),
        ([entry(rules={"claimValidationRules": [{}]})], "claim or expression: one of them"),
        ([entry(rules={"claimValidationRules": [{"claim": "a", "expression": "b"}]})], "one of them"),
        ([entry(rules={"claimValidationRules": [{"claim": "a", "message": "b"}]})], "no message with a claim"),
        ([entry(rules={"claimValidationRules": [{"expression": "a", "requiredValue": "b"}]})], "no requiredValue"),
        (
            [entry(rules={"claimValidationRules": [{"claim": "a"}, {"claim": "a"}]})],
            "Rules.1.claim: found 'a'; expected: each rule",
        ),
        ([entry(rules={"userValidationRules": [{"expression": ""}]})], "expression: found ''"),
        (
            [entry(rules={"userValidationRules": [{"expression": "a"}] * 2})],
            "Rules.1.expression: found 'a'; expected: each rule",
        ),
        ([entry(rules={"rules": []})], "rules: there is no such key"),
    ],
)
def test_a_fault_is_one_sentence(load: Load, entries: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(jwt=entries)
    assert fault in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        (
            "https://issuer.test",
            "identity.tokens.url: found 'https://issuer.test'; expected: an address that is no issuer",
        ),
        ("https://gateway.test/", "without a slash at its end"),
        ("https://gateway.test/token", "the address of the approvals API, under which /token and /jwks are found"),
        ("http://gateway.test", "an https:// address"),
    ],
)
def test_own_tokens_have_an_address_of_their_own(load: Load, url: str, fault: str) -> None:
    assert load(jwt=[entry()], tokens={"url": "https://gateway.test"}).identity.tokens is not None
    with pytest.raises(ConfigurationError, match=fault):
        load(jwt=[entry()], tokens={"url": url})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v2"),
            "apiVersion: found 'apiserver.config.k8s.io/v2'",
        ),
        (("kind: Auth", "kind: Anth"), "kind: found 'AnthenticationConfiguration'"),
        (("  enabled: false", "  enabled: maybe"), "anonymous.enabled: found 'maybe'"),
        (
            ("  enabled: false", "  enabled: true"),
            "anonymous.enabled: found True; expected: false: the gateway lets no call pass without a token, whatever",
        ),
        (
            ("https://second.example.com", "https://example.com"),
            "jwt.1.issuer.url: found 'https://example.com'; expected: each issuer.url once.",
        ),
        (("egressSelectorType", "egress"), "egress: there is no such key"),
    ],
)
def test_a_fault_in_the_api_servers_file_names_that_file(
    load: Load, kubernetes: Path, change: tuple[str, str], fault: str
) -> None:
    kubernetes.write_text(kubernetes.read_text().replace(*change))
    with pytest.raises(ConfigurationError) as raised:
        load(authenticationConfiguration=str(kubernetes))
    assert str(raised.value).startswith(f"{kubernetes}: ")
    assert fault in str(raised.value)


def test_an_issuer_is_in_one_of_both_files(load: Load, kubernetes: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(jwt=[entry(), entry(url="https://second.example.com")], authenticationConfiguration=str(kubernetes))
    assert str(raised.value) == (
        f"{kubernetes}: jwt.1.issuer.url: found 'https://second.example.com'; expected: each issuer.url once, in it "
        "and in the settings file."
    )


def test_a_file_without_issuers_is_refused(load: Load, kubernetes: Path) -> None:
    kubernetes.write_text("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: []\n")
    with pytest.raises(ConfigurationError, match="found no issuer"):
        load(authenticationConfiguration=str(kubernetes))
