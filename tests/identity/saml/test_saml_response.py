"""Which SAML messages become an identity, and what is read of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from signxml.algorithms import DigestAlgorithm, SignatureMethod

from holdfast.errors import Unauthorized
from holdfast.identity.saml.assertion import SAMLIdentity
from holdfast.identity.saml.response import verify_assertion, verify_response
from identity.saml.forging import (
    ASSERTION,
    ATTRIBUTES,
    AUDIENCE,
    CERTIFICATE_1,
    CERTIFICATE_2,
    EC_1,
    EC_CERTIFICATE,
    IDP,
    LOGIN,
    NOW,
    OLD_CERTIFICATE,
    REQUEST,
    RSA_2,
    SP,
    TOKEN_URL,
    Seal,
    assertion_signed,
    changed,
    embed,
    grant,
    instant,
    pem,
    response_signed,
    sealed,
    sign,
    trusting,
    wrap,
)

if TYPE_CHECKING:
    from cryptography import x509

    from holdfast.settings.saml import SAMLProvider

PROVIDER = trusting()
TRUSTED = {PROVIDER.entity_id: PROVIDER}

ADA = SAMLIdentity(
    issuer=IDP,
    name_id="ada@example.com",
    name_id_format="urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress",
    assertion_id="_assertion-1",
    not_on_or_after=NOW + 300,
    expires_at=NOW + 28800,
    session_not_on_or_after=NOW + 28800,
    in_response_to=REQUEST,
    attributes={"groups": ("dev", "ops")},
)

PLAIN = (' xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"', ' xmlns="urn:oasis:names:tc:SAML:2.0:assertion"')
TYPED = (
    "<saml:AttributeValue>dev",
    '<saml:AttributeValue xmlns:xs="http://www.w3.org/2001/XMLSchema" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="xs:string">dev',
)
REPEATED = (
    "<saml:AttributeValue>ops",
    '</saml:Attribute><saml:Attribute Name="groups"><saml:AttributeValue>ops',
)
OTHER_AUDIENCE = "<saml:Audience>https://other.example</saml:Audience>"
PREFIX_LIST = (
    '<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>'
    '<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#">'
    '<ec:InclusiveNamespaces xmlns:ec="http://www.w3.org/2001/10/xml-exc-c14n#" PrefixList="xs saml"/></ds:Transform>'
)


CONDITIONS_END = f'{instant(300)}"><saml:AudienceR'


def unprefixed(text: str) -> str:
    return changed(text, PLAIN).replace("<saml:", "<").replace("</saml:", "</")


def verify(document: bytes, provider: SAMLProvider = PROVIDER, now: float = NOW) -> SAMLIdentity:
    return verify_response(document, provider, REQUEST, now)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(assertion_signed(), id="assertion signed"),
        pytest.param(response_signed(), id="response signed"),
        pytest.param(sign(wrap(sign(ASSERTION))).encode(), id="both signed"),
        pytest.param(wrap(Seal().sign(unprefixed(ASSERTION), "</Issuer>")).encode(), id="default namespace"),
        pytest.param(assertion_signed(TYPED), id="typed values"),
        pytest.param(assertion_signed(REPEATED), id="one attribute as two"),
        pytest.param(assertion_signed((AUDIENCE, AUDIENCE + "<saml:OneTimeUse/>")), id="one time use"),
        pytest.param(
            assertion_signed((f"<saml:Audience>{SP}", f"{OTHER_AUDIENCE}<saml:Audience>{SP}")), id="audiences"
        ),
        pytest.param(assertion_signed((instant(), f"{instant()[:-1]}.0000000Z")), id="fractions of a second"),
        pytest.param(assertion_signed(("><saml:", ">\n  <saml:")), id="indented"),
        pytest.param(assertion_signed((LOGIN + ATTRIBUTES, ATTRIBUTES + LOGIN)), id="attributes before the login"),
        pytest.param(sealed(Seal(transforms=PREFIX_LIST)), id="inclusive namespaces"),
        pytest.param(sealed(Seal(after=embed(EC_CERTIFICATE))), id="the certificate in the message is not looked at"),
        pytest.param(b'<?xml version="1.0" encoding="UTF-8"?>\n' + assertion_signed() + b"\n", id="declaration"),
        pytest.param(assertion_signed(("ada@example.com", "a&#100;a@example.com")), id="character reference"),
    ],
)
def test_a_good_response_is_ada(document: bytes) -> None:
    assert verify(document) == ADA


@pytest.mark.parametrize(
    ("method", "digest"),
    [
        (SignatureMethod.RSA_SHA256, DigestAlgorithm.SHA512),
        (SignatureMethod.RSA_SHA384, DigestAlgorithm.SHA384),
        (SignatureMethod.RSA_SHA512, DigestAlgorithm.SHA256),
    ],
)
def test_rsa_with_every_hash(method: SignatureMethod, digest: DigestAlgorithm) -> None:
    assert verify(wrap(sign(ASSERTION, method=method, digest=digest)).encode()) == ADA


@pytest.mark.parametrize(
    "method", [SignatureMethod.ECDSA_SHA256, SignatureMethod.ECDSA_SHA384, SignatureMethod.ECDSA_SHA512]
)
def test_ecdsa_with_every_hash(method: SignatureMethod) -> None:
    document = wrap(sign(ASSERTION, EC_1, EC_CERTIFICATE, method)).encode()
    assert verify(document, trusting(certificates=pem(EC_CERTIFICATE))) == ADA


@pytest.mark.parametrize("pinned", [(CERTIFICATE_1, CERTIFICATE_2), (EC_CERTIFICATE, CERTIFICATE_2, OLD_CERTIFICATE)])
def test_any_of_the_pinned_certificates_will_do(pinned: tuple[x509.Certificate, ...]) -> None:
    document = wrap(sign(ASSERTION, RSA_2, CERTIFICATE_2)).encode()
    assert verify(document, trusting(certificates=pem(*pinned))) == ADA


def test_it_is_good_until_the_very_end_and_no_longer() -> None:
    assert verify(assertion_signed(), now=NOW + 299.999) == ADA
    with pytest.raises(Unauthorized) as refusal:
        verify(assertion_signed(), now=NOW + 300)
    assert refusal.value.why == "expired"


def test_a_clock_that_is_thirty_seconds_behind_is_forgiven() -> None:
    document = assertion_signed((f'NotBefore="{instant(-5)}"', f'NotBefore="{instant(30)}"'))
    assert verify(document) == ADA


def test_the_earliest_end_of_a_session_counts() -> None:
    document = assertion_signed((LOGIN, LOGIN + LOGIN.replace(instant(28800), instant(7200))))
    assert verify(document) == replace(ADA, session_not_on_or_after=NOW + 7200, expires_at=NOW + 7200)


def test_a_session_without_an_end_lasts_as_long_as_the_provider_may_grant() -> None:
    document = assertion_signed((f' SessionNotOnOrAfter="{instant(28800)}"', ""))
    assert verify(document) == replace(ADA, session_not_on_or_after=None, expires_at=NOW + 36000)


def test_a_session_lasts_no_longer_than_the_provider_may_grant() -> None:
    identity = verify(assertion_signed(), trusting(maxLifetimeSeconds=3600))
    assert (identity.session_not_on_or_after, identity.expires_at) == (NOW + 28800, NOW + 3600)


def test_the_earlier_of_the_two_ends_of_an_assertion_counts() -> None:
    assert verify(assertion_signed((CONDITIONS_END, f'{instant(120)}"><saml:AudienceR'))).not_on_or_after == NOW + 120
    confirmed = (f'NotOnOrAfter="{instant(300)}" Recipient', f'NotOnOrAfter="{instant(60)}" Recipient')
    assert verify(assertion_signed(confirmed)).not_on_or_after == NOW + 60


@pytest.mark.parametrize("audience", [SP, TOKEN_URL])
def test_an_assertion_for_the_token_endpoint(audience: str) -> None:
    identity = verify_assertion(grant((f"<saml:Audience>{SP}", f"<saml:Audience>{audience}")), TRUSTED, NOW)
    assert identity == replace(ADA, in_response_to=None)


def test_an_assertion_for_the_token_endpoint_needs_no_login() -> None:
    identity = verify_assertion(grant((LOGIN, "")), TRUSTED, NOW)
    assert identity == replace(ADA, in_response_to=None, session_not_on_or_after=None, expires_at=NOW + 36000)


def test_the_format_that_is_asked_for() -> None:
    assert verify(assertion_signed(), trusting(nameIDFormat=ADA.name_id_format)) == ADA


def test_qualifiers_that_name_the_two_of_us() -> None:
    qualified = ("<saml:NameID ", f'<saml:NameID NameQualifier="{IDP}" SPNameQualifier="{SP}" ')
    assert verify(assertion_signed(qualified)) == ADA


def test_the_provider_of_an_assertion_is_found_by_its_issuer() -> None:
    other = trusting(entityID="https://other.example", certificates=pem(CERTIFICATE_2))
    identity = verify_assertion(grant(), {other.entity_id: other, **TRUSTED}, NOW)
    assert identity == replace(ADA, in_response_to=None)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "malformed"),
        (b"<a/>", "malformed"),
        (ASSERTION.replace("Issuer", "Emitter").encode(), "malformed"),
        (grant((IDP, "https://stranger.example")), "unknown_issuer"),
        (grant((IDP, f"{IDP}/")), "unknown_issuer"),
    ],
)
def test_an_assertion_of_nobody_that_is_trusted_is_refused(document: bytes, why: str) -> None:
    with pytest.raises(Unauthorized) as refusal:
        verify_assertion(document, TRUSTED, NOW)
    assert refusal.value.why == why
