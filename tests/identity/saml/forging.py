"""SAML messages of every kind, good and hostile.

Good ones are signed by signxml's signer. Those that it would not sign are signed here, element by element, so that
what is wrong with them is the only thing that is wrong.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml.algorithms import (
    CanonicalizationMethod,
    DigestAlgorithm,
    SignatureConstructionMethod,
    SignatureMethod,
)
from signxml.signer import XMLSigner

from holdfast.settings.saml import SAMLProvider

if TYPE_CHECKING:
    from lxml.etree import _Element

NOW = 1_800_000_000
IDP = "https://idp.example/metadata"
SP = "https://gateway.example/saml"
ACS = "https://gateway.example/saml/acs"
TOKEN_URL = "https://gateway.example/token"
REQUEST = "_request-1"

SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
DS = "http://www.w3.org/2000/09/xmldsig#"
PREFIXES = {"saml": SAML, "samlp": SAMLP, "ds": DS}

ENVELOPED = DS + "enveloped-signature"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
INCLUSIVE = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"

type PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

RSA_1 = rsa.generate_private_key(65537, 2048)
RSA_2 = rsa.generate_private_key(65537, 2048)
EC_1 = ec.generate_private_key(ec.SECP256R1())
STRANGER = rsa.generate_private_key(65537, 2048)


def certify(key: PrivateKey, first: int = NOW - 86400, last: int = NOW + 86400) -> x509.Certificate:
    """A self-signed certificate, good from `first` to `last` (seconds since the epoch)."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "idp.example")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(first, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(last, datetime.UTC))
        .sign(key, hashes.SHA256())
    )


def pem(*certificates: x509.Certificate) -> str:
    return "".join(it.public_bytes(Encoding.PEM).decode() for it in certificates)


def public_pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


CERTIFICATE_1, CERTIFICATE_2, EC_CERTIFICATE, STRANGERS = map(certify, (RSA_1, RSA_2, EC_1, STRANGER))
OLD_CERTIFICATE = certify(RSA_1, last=NOW - 3600)


def trusting(**changes: Any) -> SAMLProvider:
    """The provider, with settings changed; written as in a settings file."""
    settings = {
        "entityID": IDP,
        "certificates": pem(CERTIFICATE_1),
        "singleSignOnURL": "https://idp.example/sso",
        "serviceProviderEntityID": SP,
        "assertionConsumerServiceURL": ACS,
        "tokenURL": TOKEN_URL,
        "maxLifetimeSeconds": 36000,
        "mappings": {
            "username": {"prefix": ""},
            "groups": {"attribute": "groups", "prefix": "saml:"},
        },
    }
    return SAMLProvider.model_validate({**settings, **changes})


def instant(offset: float = 0) -> str:
    """A time, so many seconds from NOW, as SAML writes it."""
    moment = datetime.datetime.fromtimestamp(NOW + offset, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


CONFIRMATION_DATA = f'NotOnOrAfter="{instant(300)}" Recipient="{ACS}" InResponseTo="{REQUEST}"'
CONFIRMATION = (
    '<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">'
    f"<saml:SubjectConfirmationData {CONFIRMATION_DATA}/></saml:SubjectConfirmation>"
)
NAME_ID = '<saml:NameID Format="urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress">ada@example.com</saml:NameID>'
AUDIENCE = f"<saml:AudienceRestriction><saml:Audience>{SP}</saml:Audience></saml:AudienceRestriction>"
CONDITIONS_OPENING = f'<saml:Conditions NotBefore="{instant(-5)}" NotOnOrAfter="{instant(300)}">'
CONDITIONS = f"{CONDITIONS_OPENING}{AUDIENCE}</saml:Conditions>"
LOGIN = (
    f'<saml:AuthnStatement AuthnInstant="{instant(-60)}" SessionIndex="_s" SessionNotOnOrAfter="{instant(28800)}">'
    "<saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password"
    "</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>"
)
ATTRIBUTES = (
    '<saml:AttributeStatement><saml:Attribute Name="groups"><saml:AttributeValue>dev</saml:AttributeValue>'
    "<saml:AttributeValue>ops</saml:AttributeValue></saml:Attribute></saml:AttributeStatement>"
)
SUCCESS = '<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>'
ISSUER = f"<saml:Issuer>{IDP}</saml:Issuer>"

ASSERTION = (
    f'<saml:Assertion xmlns:saml="{SAML}" ID="_assertion-1" Version="2.0" IssueInstant="{instant()}">'
    f"{ISSUER}<saml:Subject>{NAME_ID}{CONFIRMATION}</saml:Subject>{CONDITIONS}{LOGIN}{ATTRIBUTES}</saml:Assertion>"
)
RESPONSE = (
    f'<samlp:Response xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}" ID="_response-1" Version="2.0" '
    f'IssueInstant="{instant()}" Destination="{ACS}" InResponseTo="{REQUEST}">{ISSUER}{SUCCESS}</samlp:Response>'
)
# RFC 7522: the recipient is the token endpoint, and nobody asked for it.
GRANT = ASSERTION.replace(CONFIRMATION_DATA, f'NotOnOrAfter="{instant(300)}" Recipient="{TOKEN_URL}"')


def changed(text: str, *changes: tuple[str, str]) -> str:
    """The text with replacements, each of something that is there."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def assertion(*changes: tuple[str, str]) -> str:
    return changed(ASSERTION, *changes)


def wrap(inner: str, response: str = RESPONSE) -> str:
    """The response with this inside."""
    return response.replace("</samlp:Response>", f"{inner}</samlp:Response>")


@dataclass(frozen=True)
class Seal:
    """How a signature is made; every part of it can be wrong."""

    key: PrivateKey | bytes = RSA_1
    method: str = RSA_SHA256
    digest: str = SHA256
    canonicalization: str = f'<ds:CanonicalizationMethod Algorithm="{EXCLUSIVE}"/>'
    transforms: str = f'<ds:Transform Algorithm="{ENVELOPED}"/><ds:Transform Algorithm="{EXCLUSIVE}"/>'
    uri: str | None = None
    references: int = 1
    with_comments: bool = False
    after: str = ""

    def sign(self, text: str, place: str = "</saml:Issuer>") -> str:
        """The element with its signature after its first Issuer."""
        element = etree.fromstring(text)
        uri = "#" + element.get("ID", "") if self.uri is None else self.uri
        content = etree.tostring(element, method="c14n", exclusive=True, with_comments=self.with_comments)
        value = base64.b64encode(digest_of(self.digest, content)).decode()
        reference = (
            f'<ds:Reference URI="{uri}"><ds:Transforms>{self.transforms}</ds:Transforms>'
            f'<ds:DigestMethod Algorithm="{self.digest}"/><ds:DigestValue>{value}</ds:DigestValue></ds:Reference>'
        )
        signed_info = (
            f'<ds:SignedInfo xmlns:ds="{DS}">{self.canonicalization}<ds:SignatureMethod Algorithm="{self.method}"/>'
            f"{reference * self.references}</ds:SignedInfo>"
        )
        canonical = etree.tostring(
            etree.fromstring(signed_info), method="c14n", exclusive=True, with_comments=self.with_comments
        )
        signature = (
            f'<ds:Signature xmlns:ds="{DS}">{signed_info}<ds:SignatureValue>'
            f"{base64.b64encode(sign_bytes(canonical, self.key, self.method)).decode()}</ds:SignatureValue>"
            f"{self.after}</ds:Signature>"
        )
        return text.replace(place, place + signature, 1)


def digest_of(algorithm: str, content: bytes) -> bytes:
    return hashlib.new(algorithm.rpartition("#")[2], content, usedforsecurity=False).digest()


def sign_bytes(content: bytes, key: PrivateKey | bytes, method: str) -> bytes:
    name = method.rpartition("-")[2]
    if isinstance(key, bytes):
        return hmac.digest(key, content, name)
    algorithm = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha512": hashes.SHA512()}[name]  # noqa: S303
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(content, padding.PKCS1v15(), algorithm)
    r, s = decode_dss_signature(key.sign(content, ec.ECDSA(algorithm)))
    size = (key.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def embed(certificate: x509.Certificate) -> str:
    """A KeyInfo with this certificate."""
    der = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
    return f"<ds:KeyInfo><ds:X509Data><ds:X509Certificate>{der}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>"


def sign(
    text: str,
    key: PrivateKey = RSA_1,
    certificate: x509.Certificate = CERTIFICATE_1,
    method: SignatureMethod = SignatureMethod.RSA_SHA256,
    digest: DigestAlgorithm = DigestAlgorithm.SHA256,
) -> str:
    """The element with the signature that signxml makes of it, certificate and all, after its first Issuer."""
    placed = text.replace("</saml:Issuer>", f'</saml:Issuer><ds:Signature xmlns:ds="{DS}" Id="placeholder"/>', 1)
    root = etree.fromstring(placed)
    signer = XMLSigner(
        method=SignatureConstructionMethod.enveloped,
        signature_algorithm=method,
        digest_algorithm=digest,
        c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
    )
    signed: _Element = signer.sign(root, key=key, cert=[certificate], reference_uri=root.get("ID"))
    return etree.tostring(signed).decode()


def assertion_signed(*changes: tuple[str, str]) -> bytes:
    """A good response but for these changes of its assertion, which is signed."""
    return wrap(sign(assertion(*changes))).encode()


def response_signed(*changes: tuple[str, str]) -> bytes:
    """A good response but for these changes of it, which is signed."""
    return sign(changed(wrap(ASSERTION), *changes)).encode()


def sealed(seal: Seal) -> bytes:
    """A good response but for how its assertion is signed."""
    return wrap(seal.sign(ASSERTION)).encode()


def grant(*changes: tuple[str, str]) -> bytes:
    """A signed assertion for the token endpoint."""
    return sign(changed(GRANT, *changes)).encode()
