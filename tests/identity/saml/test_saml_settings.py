"""`identity.saml`: faults are one sentence when the settings are loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from ruamel.yaml import YAML

from holdfast.errors import ConfigurationError
from holdfast.settings import Settings, load_settings
from identity.saml.forging import ACS, CERTIFICATE_1, CERTIFICATE_2, EC_CERTIFICATE, IDP, SP, TOKEN_URL, certify, pem
from running import trusted_issuer

if TYPE_CHECKING:
    from collections.abc import Callable

type Load = Callable[..., Settings]

PEM = pem(CERTIFICATE_1)
SMALLEST: dict[str, Any] = {
    "entityID": IDP,
    "certificates": PEM,
    "singleSignOnURL": "https://idp.example/sso",
    "serviceProviderEntityID": SP,
    "assertionConsumerServiceURL": ACS,
    "tokenURL": TOKEN_URL,
    "mappings": {"username": {"prefix": ""}},
}
TOKENS = {"url": "https://gateway.example"}
SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505
EXTRA = {"key": "example.com/team", "attribute": "team"}
KUBERNETES = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "AuthenticationConfiguration",
    "jwt": [trusted_issuer(url="https://second.example")],
}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Read settings with these SAML providers and this of `identity`."""

    def load(*providers: dict[str, Any], **identity: Any) -> Settings:
        content = {
            "upstream": {"server": "https://api:6443", "certificateAuthority": "ca.crt", "tokenFile": "token"},
            "identity": {"jwt": [trusted_issuer()], "saml": providers, "tokens": TOKENS, **identity},
            "policies": ["p.yaml"],
        }
        file = tmp_path / "holdfast.yaml"
        file.write_text(json.dumps(content))
        return load_settings(file)

    return load


def changed(**values: Any) -> dict[str, Any]:
    """The smallest provider with keys changed; None removes one."""
    return {key: value for key, value in {**SMALLEST, **values}.items() if value is not None}


def mapped(**mappings: Any) -> dict[str, Any]:
    return changed(mappings={"username": {"prefix": ""}, **mappings})


def test_the_smallest_provider(load: Load) -> None:
    (provider,) = load(SMALLEST).identity.saml
    assert (provider.binding, provider.max_lifetime_seconds, provider.name_id_format) == ("HTTP-Redirect", 86400, None)
    assert (provider.mappings.username.attribute, provider.mappings.groups) == ("", None)


def test_certificates_in_a_file_are_read_when_the_settings_are(load: Load, tmp_path: Path) -> None:
    text = pem(CERTIFICATE_1, CERTIFICATE_2, EC_CERTIFICATE)
    (tmp_path / "idp.pem").write_text(text)
    (provider,) = load(changed(certificates=None, certificatesFile="idp.pem")).identity.saml
    assert (provider.certificates, provider.certificates_file) == (text, None)


def test_providers_stay_when_issuers_come_from_a_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "authentication.yaml").write_text(json.dumps(KUBERNETES))
    identity = load(SMALLEST, authenticationConfiguration="authentication.yaml").identity
    assert (len(identity.jwt), [provider.entity_id for provider in identity.saml]) == (2, [IDP])


def self_sign(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return pem(certify(key))


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        *[
            (changed(**{key: None}), f"identity.saml.0.{key}: is missing")
            for key in SMALLEST
            if key not in {"certificates"}
        ],
        (changed(certificates=None), "expected: certificates (PEM) or certificatesFile: one of them"),
        (changed(certificatesFile="idp.pem"), "expected: certificates (PEM) or certificatesFile: one of them"),
        (changed(certificates="MIIC"), "identity.saml.0.certificates: found 'MIIC'; expected: certificates in PEM"),
        (changed(certificates=PEM.replace("MII", "XII", 1)), "expected: certificates in PEM"),
        (changed(certificates=PEM * 9), "expected: at most 8 certificates"),
        (changed(certificates=self_sign(SHORT)), "RSA keys of at least 2048 bits"),
        (changed(certificates=self_sign(ec.generate_private_key(ec.SECP192R1()))), "EC keys on P-256, 384 or 521"),
        (changed(entityID=""), "expected: a URI of at most 1024 characters"),
        (changed(entityID="a b"), "expected: a URI of at most 1024 characters"),
        (changed(serviceProviderEntityID="a" * 1025), "expected: a URI of at most 1024 characters"),
        (changed(singleSignOnURL="http://idp.example/sso"), "identity.saml.0.singleSignOnURL: found 'http://idp"),
        (changed(singleSignOnURL="https://idp.example/#sso"), "expected: an address without a fragment"),
        (changed(singleSignOnURL="https://a:b@idp.example/"), "expected: an address without a user name or password"),
        (changed(assertionConsumerServiceURL=ACS.replace("s:", ":")), "assertionConsumerServiceURL: found 'http://"),
        (changed(assertionConsumerServiceURL=f"{ACS}?a=b"), "expected: an address without a query or fragment"),
        (changed(tokenURL="http://gateway.example/token"), "identity.saml.0.tokenURL: found 'http://"),
        (changed(binding="SOAP"), "identity.saml.0.binding: found 'SOAP'"),
        (changed(maxLifetimeSeconds=0), "identity.saml.0.maxLifetimeSeconds: found 0"),
        (changed(algorithms=["RS256"]), "identity.saml.0.algorithms: there is no such key"),
        (mapped(username={}), "identity.saml.0.mappings.username.prefix: is missing"),
        (mapped(groups={"prefix": ""}), "identity.saml.0.mappings.groups.attribute: is missing"),
        (mapped(groups={"attribute": "groups"}), "identity.saml.0.mappings.groups.prefix: is missing"),
        (mapped(groups={"attribute": "", "prefix": ""}), "identity.saml.0.mappings.groups.attribute: found ''"),
        (mapped(uid={"attribute": ""}), "identity.saml.0.mappings.uid.attribute: found ''"),
        (mapped(extra=[EXTRA, EXTRA]), "expected: each key of extra once"),
        (mapped(extra=[{**EXTRA, "key": "team"}]), "expected: lower-case DOMAIN/PATH"),
        (mapped(extra=[{**EXTRA, "key": "a.k8s.io/team"}]), "expected: a domain of your own"),
    ],
)
def test_a_fault_is_one_sentence(load: Load, provider: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError) as fault:
        load(provider)
    assert expected in str(fault.value)
    assert str(fault.value).count("\n") == 0


def test_a_provider_is_named_once(load: Load) -> None:
    with pytest.raises(ConfigurationError, match="each entityID of saml once"):
        load(SMALLEST, SMALLEST)


@pytest.mark.parametrize(
    ("provider", "identity", "expected"),
    [
        (
            {"assertionConsumerServiceURL": "https://other.example/saml/acs"},
            {},
            f"identity.saml.1.assertionConsumerServiceURL: found 'https://other.example/saml/acs'; expected: {ACS}, as "
            "tokens.url has it.",
        ),
        (
            {"tokenURL": ACS},
            {},
            f"identity.saml.1.tokenURL: found '{ACS}'; expected: {TOKEN_URL}, as tokens.url has it.",
        ),
        ({}, {"tokens": None}, "identity.tokens: found None; expected: tokens beside saml: an assertion is exchanged "),
        ({"entityID": IDP}, {}, f"identity.saml.1.entityID: found '{IDP}'; expected: each entityID of saml once."),
        (
            {"entityID": TOKENS["url"]},
            {},
            f"identity.tokens.url: found '{TOKENS['url']}'; expected: an address that is no issuer.url of jwt and no ",
        ),
        (
            {"nameIDFormat": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"},
            {},
            "identity.saml.1.nameIDFormat: found 'urn:oasis:names:tc:SAML:2.0:nameid-format:transient'; expected: a "
            "format of lasting names, or mappings.username.attribute: nobody is called by a transient NameID.",
        ),
    ],
)
def test_what_does_not_fit_the_rest_is_shown_where_it_is(
    load: Load, provider: dict[str, Any], identity: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigurationError) as fault:
        load(SMALLEST, changed(**{"entityID": "https://second.example", **provider}), **identity)
    assert expected in str(fault.value)


def test_a_transient_name_does_beside_an_attribute(load: Load) -> None:
    attribute = {"username": {"attribute": "mail", "prefix": ""}}
    load(changed(nameIDFormat="urn:oasis:names:tc:SAML:2.0:nameid-format:transient", mappings=attribute))


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "cannot be read"), (b"\xff", "expected certificates in PEM"), (b"MIIC", "expected certificates in PEM")],
)
def test_a_fault_in_the_file_names_it(load: Load, tmp_path: Path, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "idp.pem").write_bytes(content)
    with pytest.raises(ConfigurationError) as fault:
        load(changed(certificates=None, certificatesFile="idp.pem"))
    assert str(fault.value).startswith(f"{tmp_path / 'idp.pem'}: ")
    assert expected in str(fault.value)


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), dsa.generate_private_key(2048)])
def test_other_keys_sign_nothing_that_is_accepted(load: Load, key: Any) -> None:
    name = CERTIFICATE_1.subject
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(CERTIFICATE_1.not_valid_before_utc)
        .not_valid_after(CERTIFICATE_1.not_valid_after_utc)
    )
    hashed = None if isinstance(key, ed25519.Ed25519PrivateKey) else CERTIFICATE_1.signature_hash_algorithm
    with pytest.raises(ConfigurationError, match="RSA keys of at least 2048 bits, or EC keys"):
        load(changed(certificates=pem(builder.sign(key, hashed))))


def test_the_provider_that_is_shown_can_be_loaded(load: Load, tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(- entityID: .*?)```", text, re.S)
    (tmp_path / "id.example.com.pem").write_text(PEM)
    (provider,) = load(
        *YAML(typ="safe", pure=True).load(example), tokens={"url": "https://gateway.example.com"}
    ).identity.saml
    assert provider.entity_id == "https://id.example.com/saml/metadata"
