"""The strict wrapper around SAML 2.0: a response, or an assertion, becomes a SAMLIdentity, or is refused.

`verify_response` takes what a browser posts to the assertion consumer service (saml-profiles-2.0-os section 4.1),
`verify_assertion` what a client posts to the token endpoint (RFC 7522 section 3). Both block for a few milliseconds
of arithmetic, so call them in a thread. Neither remembers anything: a message is good once only if the caller asks
`holdfast.identity.saml.replay`.

Who it is is read from what `signature` returns and from nothing else. Of a response that is not signed itself, what is
read of its envelope (Status, Destination, InResponseTo, Issuer) can only refuse; the assertion says all of it again.

A refusal's `why`, for the record:

    too_large           longer than 256 KiB, a tag longer than 8 KiB, more than 8192 elements
    too_deep            elements in elements, more than 32
    wrong_encoding      not UTF-8, or declared as something else
    doctype_not_allowed, comment_not_allowed, cdata_not_allowed, processing_instruction_not_allowed
                        markup that a SAML message has no use for
    malformed           not XML, or an element, attribute or time that is missing, repeated or elsewhere
    duplicate_id        two elements have the same ID
    encrypted           an encrypted assertion, name or attribute
    status              the provider says that it did not log anybody in
    assertion_count     none, more than one, or one that is not the child of the response
    misplaced_signature a signature elsewhere than in the response and the assertion, or two in one of them
    unsigned            neither the response nor the assertion has a signature
    wrong_reference     not exactly one Reference, or not to the element that the signature is a child of
    object_not_allowed  an Object in the signature
    transform_not_allowed
                        not enveloped-signature and then exclusive canonicalization without comments
    alg_not_allowed     SHA-1, HMAC, DSA, or anything else but RSA and ECDSA with SHA-256, SHA-384 and SHA-512
    certificate_expired every pinned certificate's time has passed, or has not come
    bad_signature       no pinned certificate's key signed these bytes
    unknown_issuer      an Issuer that is not the entityID of the provider, or of any, letter for letter
    wrong_destination   the response is for another address
    wrong_request       InResponseTo is not the request's ID
    expired             NotOnOrAfter or SessionNotOnOrAfter has come; no leeway
    never_expires       NotOnOrAfter is missing
    not_yet_valid       NotBefore, IssueInstant or AuthnInstant is more than 30 s ahead
    lifetime_too_long   from IssueInstant to NotOnOrAfter is longer than the provider may grant
    wrong_audience      no AudienceRestriction, or one that does not name us
    unknown_condition   a condition beside AudienceRestriction and OneTimeUse
    wrong_confirmation  not exactly one SubjectConfirmation, of a bearer, with its data and no NotBefore
    wrong_recipient     the Recipient is another address
    no_login            a response without an AuthnStatement
    bad_name            a NameID that cannot be shown, of another format, or qualified for somebody else
    bad_attribute       an attribute value that is not text, or (`mapping`) that is missing or cannot be shown
    transient_name      (`mapping`) the user would be called by a NameID that is another at every login
    groups_overage      (`mapping`) the groups were too many to be in the assertion
    reserved_name       (`mapping`) the user or a group would be called `system:...`
    replayed            (`replay`) the assertion was used before

The caller is told the category where that helps an honest one; what a forger could learn from is one sentence.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from holdfast.errors import Unauthorized
from holdfast.identity.saml.assertion import SAMLIdentity, Terms, check_header, check_request, read_assertion
from holdfast.identity.saml.document import (
    ASSERTION,
    NOT_VALID,
    PROTOCOL,
    SIGNATURE,
    local_name,
    parse_document,
    read_attribute,
    read_children,
    read_text,
)
from holdfast.identity.saml.signature import find_signature, read_certificates, verify_signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lxml.etree import _Element

    from holdfast.settings.saml import SAMLProvider

SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"

_ENCRYPTED = ("EncryptedAssertion", "EncryptedID", "EncryptedAttribute", "EncryptedData")


def verify_response(document: bytes, provider: SAMLProvider, request_id: str, now: float) -> SAMLIdentity:
    """Believe the Response in `document` (XML, at most 256 KiB) as far as `provider` may be believed.

    `request_id` is that of the request which it must answer: what nobody asked for is not taken. `now` is in seconds
    since the epoch. Raises Unauthorized.
    """
    root = parse_document(document)
    if root.tag != f"{PROTOCOL}Response":
        raise Unauthorized(NOT_VALID, "malformed")
    _check_plain(root)
    _check_status(root)
    assertion = _find_assertion(root)
    _check_parts(root)
    _check_places(root, (root, assertion))
    response, assertion = _verify_both(root, assertion, provider, now)
    _check_response(response, provider, request_id, now)
    terms = Terms(
        recipient=provider.assertion_consumer_service_url,
        audiences=frozenset({provider.service_provider_entity_id}),
        in_response_to=request_id,
        is_login=True,
    )
    return read_assertion(assertion, provider, terms, now)


def verify_assertion(document: bytes, providers: Mapping[str, SAMLProvider], now: float) -> SAMLIdentity:
    """Believe the Assertion in `document` (XML, at most 256 KiB) as far as the provider that it names may be believed.

    `providers` are those that are trusted, by their `entityID`; it is RFC 7522 that has no request to know them by.
    `now` is in seconds since the epoch. Raises Unauthorized.
    """
    root = parse_document(document)
    _check_plain(root)
    if root.tag != f"{ASSERTION}Assertion":
        raise Unauthorized(NOT_VALID, "malformed")
    if _count(root)["Assertion"] != 1:
        raise Unauthorized(NOT_VALID, "assertion_count")
    _check_places(root, (root,))
    provider = _choose_provider(root, providers)
    assertion = verify_signature(root, root, read_certificates(provider.certificates), now)
    terms = Terms(
        recipient=provider.token_url,
        audiences=frozenset({provider.service_provider_entity_id, provider.token_url}),
        in_response_to=None,
        is_login=False,
    )
    return read_assertion(assertion, provider, terms, now)


def _choose_provider(assertion: _Element, providers: Mapping[str, SAMLProvider]) -> SAMLProvider:
    """Whose certificates to try; that it said so is known only when one of them fits."""
    issuer = assertion.find(f"{ASSERTION}Issuer")
    if issuer is None:
        raise Unauthorized(NOT_VALID, "malformed")
    named = read_text(issuer)
    provider = providers.get(named)
    if provider is None:
        detail = f"Issuer: {named!r}"
        raise Unauthorized("the SAML message's issuer is not one that is trusted here", "unknown_issuer", detail)
    return provider


def _count(root: _Element) -> Counter[str]:
    """How often each name is used, in whatever namespace."""
    return Counter(map(local_name, root.iter()))


def _check_plain(root: _Element) -> None:
    if any(_count(root)[name] for name in _ENCRYPTED):
        raise Unauthorized("the SAML message is encrypted; have the provider sign it and not encrypt it", "encrypted")


def _check_status(response: _Element) -> None:
    """Before any signature is, because a failure may have none; what else the provider says of it is not repeated."""
    codes = response.findall(f"{PROTOCOL}Status/{PROTOCOL}StatusCode")
    if len(codes) != 1:
        raise Unauthorized(NOT_VALID, "malformed")
    if codes[0].get("Value") != SUCCESS:
        raise Unauthorized("the identity provider did not log you in; try again there", "status")


def _find_assertion(response: _Element) -> _Element:
    assertion = response.find(f"{ASSERTION}Assertion")
    if assertion is None or _count(response)["Assertion"] != 1:
        raise Unauthorized(NOT_VALID, "assertion_count")
    return assertion


def _check_parts(response: _Element) -> None:
    """Exactly the children that are read, in the schema's order; the signature may be missing."""
    names = [child.tag for child in read_children(response)]
    expected = [f"{ASSERTION}Issuer", f"{SIGNATURE}Signature", f"{PROTOCOL}Status", f"{ASSERTION}Assertion"]
    if names not in (expected, [name for name in expected if name != f"{SIGNATURE}Signature"]):
        raise Unauthorized(NOT_VALID, "malformed")


def _check_places(root: _Element, parents: tuple[_Element, ...]) -> None:
    """Every signature, or what is called so, is one that is verified."""
    expected = [signature for signature in map(find_signature, parents) if signature is not None]
    if _count(root)["Signature"] != len(expected):
        raise Unauthorized(NOT_VALID, "misplaced_signature")


def _verify_both(root: _Element, assertion: _Element, provider: SAMLProvider, now: float) -> tuple[_Element, _Element]:
    """The response, signed or not, and the assertion, signed by itself or with the response around it."""
    certificates = read_certificates(provider.certificates)
    if find_signature(root) is None:
        return root, verify_signature(root, assertion, certificates, now)
    response = verify_signature(root, root, certificates, now)
    if find_signature(assertion) is None:
        return response, _find_assertion(response)
    return response, verify_signature(root, assertion, certificates, now)


def _check_response(response: _Element, provider: SAMLProvider, request_id: str, now: float) -> None:
    check_header(response, provider, now)
    if read_attribute(response, "Destination") != provider.assertion_consumer_service_url:
        raise Unauthorized("the SAML response is for another address", "wrong_destination")
    check_request(response, request_id)
