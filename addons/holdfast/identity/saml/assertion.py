"""What a signed assertion says, if it says it to us, now, of a bearer (SAML core section 2, profiles section 4.1.4).

Every element is either understood or refused: the children of an assertion, of its subject and of its conditions are
those named here and no others, so that an extension cannot take back what the rest of the assertion
grants. Advice is refused because it holds assertions of others. What is given to `read_assertion` must have come from
`signature.verify_signature`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from holdfast.errors import Unauthorized
from holdfast.identity.mapping import is_name
from holdfast.identity.saml.document import ASSERTION, NOT_VALID, read_attribute, read_children, read_text

if TYPE_CHECKING:
    from lxml.etree import _Element

    from holdfast.settings.saml import SAMLProvider

LEEWAY_SECONDS = 30
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
ENTITY = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"
UNSPECIFIED = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"

_ISSUER = f"{ASSERTION}Issuer"
_SUBJECT = f"{ASSERTION}Subject"
_CONDITIONS = f"{ASSERTION}Conditions"
_AUTHN_STATEMENT = f"{ASSERTION}AuthnStatement"
_ATTRIBUTE_STATEMENT = f"{ASSERTION}AttributeStatement"
_AUDIENCE_RESTRICTION = f"{ASSERTION}AudienceRestriction"
_ONE_TIME_USE = f"{ASSERTION}OneTimeUse"
_INSTANT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?Z")


@dataclass(frozen=True, slots=True)
class SAMLIdentity:
    """Who a verified assertion is about. Times are in seconds since the epoch.

    The assertion itself may be used once, before `not_on_or_after`; who was let in by it may stay until `expires_at`,
    which is the end of the session at the provider (`session_not_on_or_after`) or the provider's `maxLifetimeSeconds`
    after the assertion was issued, whichever is earlier. `attributes` are named as the provider names them.
    """

    issuer: str
    name_id: str
    name_id_format: str
    assertion_id: str
    not_on_or_after: float
    expires_at: float
    session_not_on_or_after: float | None = None
    in_response_to: str | None = None
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Terms:
    """What an assertion must be made for: where it is taken, who we are, the request, and a login at the provider."""

    recipient: str
    audiences: frozenset[str]
    in_response_to: str | None
    is_login: bool


def read_assertion(assertion: _Element, provider: SAMLProvider, terms: Terms, now: float) -> SAMLIdentity:
    """Who the assertion is about. `now` is in seconds since the epoch. Raises Unauthorized."""
    subject, conditions, statements = _read_parts(assertion)
    issued_at = check_header(assertion, provider, now)
    name_id, name_id_format = _read_subject(subject, provider)
    until = min(_check_conditions(conditions, terms, now), _check_confirmation(subject[1], terms, now))
    if until - issued_at > provider.max_lifetime_seconds:
        raise Unauthorized("the assertion is good for too long; get one with a shorter lifetime", "lifetime_too_long")
    session_until = _check_logins(_having(statements, _AUTHN_STATEMENT), terms, now)
    return SAMLIdentity(
        issuer=provider.entity_id,
        name_id=name_id,
        name_id_format=name_id_format,
        assertion_id=read_attribute(assertion, "ID"),
        not_on_or_after=until,
        expires_at=_bound(session_until, issued_at + provider.max_lifetime_seconds, now),
        session_not_on_or_after=session_until,
        in_response_to=terms.in_response_to,
        attributes=MappingProxyType(_read_attributes(_having(statements, _ATTRIBUTE_STATEMENT))),
    )


def check_header(element: _Element, provider: SAMLProvider, now: float) -> float:
    """Check what a response and an assertion begin with; the time of its issue. Raises Unauthorized."""
    if read_attribute(element, "Version") != "2.0":
        raise Unauthorized(NOT_VALID, "malformed")
    _check_issuer(element, provider)
    issued_at = _read_instant(element, "IssueInstant")
    if issued_at > now + LEEWAY_SECONDS:
        raise Unauthorized("the assertion is not valid yet; check the clocks", "not_yet_valid")
    return issued_at


def _check_issuer(element: _Element, provider: SAMLProvider) -> None:
    """Require that the element names the provider, letter for letter."""
    issuer = element.find(_ISSUER)
    if issuer is None or read_text(issuer) != provider.entity_id or issuer.get("Format", ENTITY) != ENTITY:
        found = "none" if issuer is None else repr(read_text(issuer))
        detail = f"Issuer: {found}"
        raise Unauthorized("the SAML message's issuer is not the one that is trusted here", "unknown_issuer", detail)


def _read_instant(element: _Element, name: str) -> float:
    """A time in seconds since the epoch, in the one spelling of SAML core 1.3.3: UTC."""
    match = _INSTANT.fullmatch(read_attribute(element, name))
    if match is None:
        raise Unauthorized(NOT_VALID, "malformed")
    try:
        whole = datetime.fromisoformat(match[1]).replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise Unauthorized(NOT_VALID, "malformed") from error
    return whole + float(match[2] or 0)


def _bound(session_until: float | None, latest: float, now: float) -> float:
    expires_at = latest if session_until is None else min(session_until, latest)
    if now >= expires_at:
        raise Unauthorized("the session at the identity provider has ended; log in again", "expired")
    return expires_at


def _read_parts(assertion: _Element) -> tuple[_Element, _Element, list[_Element]]:
    """The subject, the conditions and the statements; the assertion's own signature went when it was verified."""
    children = read_children(assertion)
    if [child.tag for child in children[:3]] != [_ISSUER, _SUBJECT, _CONDITIONS]:
        raise Unauthorized(NOT_VALID, "malformed")
    if any(child.tag not in {_AUTHN_STATEMENT, _ATTRIBUTE_STATEMENT} for child in children[3:]):
        raise Unauthorized(NOT_VALID, "malformed")
    return children[1], children[2], children[3:]


def _having(elements: list[_Element], tag: str) -> list[_Element]:
    return [element for element in elements if element.tag == tag]


def _read_subject(subject: _Element, provider: SAMLProvider) -> tuple[str, str]:
    """The NameID and its format."""
    children = read_children(subject)
    if not children or children[0].tag != f"{ASSERTION}NameID":
        raise Unauthorized("the assertion has no NameID", "bad_name")
    if [child.tag for child in children[1:]] != [f"{ASSERTION}SubjectConfirmation"]:
        raise Unauthorized("the assertion does not say once for whom it is", "wrong_confirmation")
    name_id = children[0]
    name, name_format = read_text(name_id), name_id.get("Format", UNSPECIFIED)
    if not is_name(name):
        raise Unauthorized("the assertion's NameID is not a usable name", "bad_name")
    # SAML core 2.2.2: a qualifier puts the name into the name space of somebody else.
    qualifiers = {"NameQualifier": provider.entity_id, "SPNameQualifier": provider.service_provider_entity_id}
    if any(name_id.get(attribute, expected) != expected for attribute, expected in qualifiers.items()):
        raise Unauthorized("the assertion's NameID is qualified for another party", "bad_name")
    if provider.name_id_format is not None and name_format != provider.name_id_format:
        raise Unauthorized("the assertion's NameID is not of the format that is asked for here", "bad_name")
    return name, name_format


def _check_conditions(conditions: _Element, terms: Terms, now: float) -> float:
    until = _check_end(conditions, now)
    if conditions.get("NotBefore") is not None and _read_instant(conditions, "NotBefore") > now + LEEWAY_SECONDS:
        raise Unauthorized("the assertion is not valid yet; check the clocks", "not_yet_valid")
    children = read_children(conditions)
    if any(child.tag not in {_AUDIENCE_RESTRICTION, _ONE_TIME_USE} for child in children):
        raise Unauthorized("the assertion has a condition that is not known here", "unknown_condition")
    restrictions = _having(children, _AUDIENCE_RESTRICTION)
    if not restrictions or not all(_names_us(restriction, terms) for restriction in restrictions):
        named = [repr(read_text(audience)) for restriction in restrictions for audience in read_children(restriction)]
        detail = f"Audience: {', '.join(named) or 'none'}"
        raise Unauthorized("the assertion is for another audience; get one for this gateway", "wrong_audience", detail)
    return until


def _names_us(restriction: _Element, terms: Terms) -> bool:
    audiences = read_children(restriction)
    if any(audience.tag != f"{ASSERTION}Audience" for audience in audiences):
        raise Unauthorized(NOT_VALID, "malformed")
    return not terms.audiences.isdisjoint(map(read_text, audiences))


def _check_confirmation(confirmation: _Element, terms: Terms, now: float) -> float:
    children = read_children(confirmation)
    if confirmation.get("Method") != BEARER or [it.tag for it in children] != [f"{ASSERTION}SubjectConfirmationData"]:
        raise Unauthorized("the assertion is not for whoever bears it", "wrong_confirmation")
    data = children[0]
    if read_children(data) or data.get("NotBefore") is not None:
        raise Unauthorized("the assertion is not for whoever bears it", "wrong_confirmation")
    if data.get("Recipient") != terms.recipient:
        raise Unauthorized("the assertion is for another recipient; get one for this gateway", "wrong_recipient")
    check_request(data, terms.in_response_to)
    return _check_end(data, now)


def check_request(element: _Element, expected: str | None) -> None:
    """Require the answer to our request, or where there was none, that it answers none. Raises Unauthorized."""
    if element.get("InResponseTo") != expected:
        raise Unauthorized("the SAML message answers another request; log in again", "wrong_request")


def _check_end(element: _Element, now: float) -> float:
    if element.get("NotOnOrAfter") is None:
        raise Unauthorized("the assertion never expires (NotOnOrAfter is missing)", "never_expires")
    until = _read_instant(element, "NotOnOrAfter")
    if now >= until:
        raise Unauthorized("the assertion has expired; log in again", "expired")
    return until


def _check_logins(statements: list[_Element], terms: Terms, now: float) -> float | None:
    """The earliest end of the session that the statements speak of, if they do."""
    if terms.is_login and not statements:
        raise Unauthorized("the assertion does not say that anybody logged in", "no_login")
    ends = []
    for statement in statements:
        if _read_instant(statement, "AuthnInstant") > now + LEEWAY_SECONDS:
            raise Unauthorized("the assertion is not valid yet; check the clocks", "not_yet_valid")
        if statement.get("SessionNotOnOrAfter") is not None:
            ends.append(_read_instant(statement, "SessionNotOnOrAfter"))
    return min(ends, default=None)


def _read_attributes(statements: list[_Element]) -> dict[str, tuple[str, ...]]:
    """Every value by the attribute's name: some providers write one attribute with many values as many attributes."""
    attributes: dict[str, tuple[str, ...]] = {}
    for attribute in (attribute for statement in statements for attribute in read_children(statement)):
        if attribute.tag != f"{ASSERTION}Attribute":
            raise Unauthorized(NOT_VALID, "malformed")
        name = read_attribute(attribute, "Name")
        values = read_children(attribute)
        if any(value.tag != f"{ASSERTION}AttributeValue" or len(value) for value in values):
            raise Unauthorized(f"the assertion's attribute {name!r} is not text", "bad_attribute")
        attributes[name] = attributes.get(name, ()) + tuple(map(read_text, values))
    return attributes
