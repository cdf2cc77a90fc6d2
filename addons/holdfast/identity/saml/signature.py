"""The strict wrapper around signxml: an element becomes what was signed of it, or is refused.

signxml is told what to verify and where; whether a signature is of the one accepted shape is decided here, before
(XML Signature 1.1; SAML core section 5.4): a child of the element it signs, one Reference that names the ID of that
element, enveloped-signature and then exclusive canonicalization without comments, no Object, SHA-256 or better, RSA or
ECDSA. Keys are those of the pinned certificates alone; KeyInfo is not read. What is returned was parsed again from
the very bytes that the digest is over, so nothing that was not signed can be in it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, VerifyResult, XMLVerifier

from holdfast.errors import Unauthorized
from holdfast.identity.saml.document import NOT_VALID, SIGNATURE, make_parser, read_children, read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lxml.etree import _Element

SIGNATURE_METHODS = frozenset(
    {
        SignatureMethod.RSA_SHA256,
        SignatureMethod.RSA_SHA384,
        SignatureMethod.RSA_SHA512,
        SignatureMethod.ECDSA_SHA256,
        SignatureMethod.ECDSA_SHA384,
        SignatureMethod.ECDSA_SHA512,
    }
)
DIGEST_ALGORITHMS = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})
ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"

_INCLUSIVE_NAMESPACES = f"{{{EXCLUSIVE}}}InclusiveNamespaces"
_PREFIXES = re.compile(r"[\w#.-]+( [\w#.-]+)*", re.ASCII)
_NAME = re.compile(r"[\w.-]+", re.ASCII)
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


@lru_cache(maxsize=64)
def read_certificates(pem: str) -> tuple[x509.Certificate, ...]:
    """The pinned certificates, as the settings checked them."""
    return tuple(x509.load_pem_x509_certificates(pem.encode())) if pem else ()


def find_signature(element: _Element) -> _Element | None:
    """The first signature that is a child of `element`, the one that signxml finds too."""
    return element.find(f"{SIGNATURE}Signature")


def verify_signature(
    root: _Element, element: _Element, certificates: Sequence[x509.Certificate], now: float
) -> _Element:
    """What was signed of `element`: the root of its document, or a child of the root that alone has its name.

    `now` is in seconds since the epoch: a certificate is good from its first day to its last. Raises Unauthorized.
    """
    signature = find_signature(element)
    if signature is None:
        raise Unauthorized(NOT_VALID, "unsigned")
    _check_signature(signature, element)
    moment = datetime.fromtimestamp(now, UTC)
    current = [it for it in certificates if it.not_valid_before_utc <= moment <= it.not_valid_after_utc]
    if not current:
        raise Unauthorized(NOT_VALID, "certificate_expired")
    location = "./" if element is root else f"./{etree.QName(element).text}/"
    for certificate in current:
        signed = _verify(root, location, certificate, moment)
        if signed is not None:
            return _require_same(signed, element)
    raise Unauthorized(NOT_VALID, "bad_signature")


def _verify(root: _Element, location: str, certificate: x509.Certificate, moment: datetime) -> _Element | None:
    configuration = SignatureConfiguration(
        require_x509=True,
        location=location,
        expect_references=1,
        signature_methods=SIGNATURE_METHODS,
        digest_algorithms=DIGEST_ALGORITHMS,
        ignore_ambiguous_key_info=True,
        verification_time=moment,
    )
    try:
        result = XMLVerifier().verify(
            root, x509_cert=certificate, parser=make_parser(), id_attribute="ID", expect_config=configuration
        )
    except (SignXMLException, etree.LxmlError, ValueError):
        return None
    return result.signed_xml if isinstance(result, VerifyResult) else None


def _require_same(signed: _Element, element: _Element) -> _Element:
    # The shape was checked before signxml saw it; were the two ever to resolve a Reference differently, it ends here.
    if signed.tag != element.tag or signed.get("ID") != element.get("ID"):
        raise Unauthorized(NOT_VALID, "wrong_reference")
    return signed


def _check_signature(signature: _Element, element: _Element) -> None:
    children = read_children(signature)
    names = [child.tag for child in children]
    if f"{SIGNATURE}Object" in names:
        raise Unauthorized(NOT_VALID, "object_not_allowed")
    if names[:2] != [f"{SIGNATURE}SignedInfo", f"{SIGNATURE}SignatureValue"] or names[2:] not in (
        [],
        [f"{SIGNATURE}KeyInfo"],
    ):
        raise Unauthorized(NOT_VALID, "malformed")
    _check_base64(children[1])
    _check_signed_info(children[0], element)


def _check_signed_info(signed_info: _Element, element: _Element) -> None:
    children = read_children(signed_info)
    if len([child for child in children if child.tag == f"{SIGNATURE}Reference"]) != 1:
        raise Unauthorized(NOT_VALID, "wrong_reference")
    canonicalization, method, reference = _require(children, ("CanonicalizationMethod", "SignatureMethod", "Reference"))
    _check_canonicalization(canonicalization)
    _check_algorithm(method, frozenset(it.value for it in SIGNATURE_METHODS))
    _check_reference(reference, element)


def _check_reference(reference: _Element, element: _Element) -> None:
    element_id = element.get("ID", "")
    if _NAME.fullmatch(element_id) is None or reference.get("URI") != f"#{element_id}":
        raise Unauthorized(NOT_VALID, "wrong_reference")
    transforms, method, value = _require(read_children(reference), ("Transforms", "DigestMethod", "DigestValue"))
    _check_transforms(transforms)
    _check_algorithm(method, frozenset(it.value for it in DIGEST_ALGORITHMS))
    _check_base64(value)


def _check_transforms(transforms: _Element) -> None:
    children = read_children(transforms)
    if [child.tag for child in children] != [f"{SIGNATURE}Transform"] * 2:
        raise Unauthorized(NOT_VALID, "transform_not_allowed")
    enveloped, canonicalization = children
    if enveloped.get("Algorithm") != ENVELOPED or read_children(enveloped):
        raise Unauthorized(NOT_VALID, "transform_not_allowed")
    _check_canonicalization(canonicalization)


def _check_canonicalization(element: _Element) -> None:
    if element.get("Algorithm") != EXCLUSIVE:
        raise Unauthorized(NOT_VALID, "transform_not_allowed")
    children = read_children(element)
    if not children:
        return
    if [child.tag for child in children] != [_INCLUSIVE_NAMESPACES] or read_children(children[0]):
        raise Unauthorized(NOT_VALID, "transform_not_allowed")
    if _PREFIXES.fullmatch(children[0].get("PrefixList", "")) is None:
        raise Unauthorized(NOT_VALID, "transform_not_allowed")


def _check_algorithm(element: _Element, allowed: frozenset[str]) -> None:
    if element.get("Algorithm") not in allowed or read_children(element):
        raise Unauthorized(NOT_VALID, "alg_not_allowed")


def _check_base64(element: _Element) -> None:
    text = "".join(read_text(element).split())
    if not text or _BASE64.fullmatch(text) is None:
        raise Unauthorized(NOT_VALID, "malformed")


def _require(children: list[_Element], names: tuple[str, ...]) -> list[_Element]:
    if [child.tag for child in children] != [f"{SIGNATURE}{name}" for name in names]:
        raise Unauthorized(NOT_VALID, "malformed")
    return children
