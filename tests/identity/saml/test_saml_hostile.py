"""Hostile responses and assertions, each refused for its own reason.

Every document is good but for what its name says, so that the reason is that of the one rule it breaks.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from signxml.verifier import VerifyResult, XMLVerifier

from holdfast.errors import Unauthorized
from holdfast.identity.saml import response
from holdfast.identity.saml.document import MAX_DEPTH, MAX_DOCUMENT_BYTES, NOT_VALID
from holdfast.identity.saml.response import verify_assertion, verify_response
from identity.saml import wrapping
from identity.saml.forging import (
    ACS,
    ASSERTION,
    AUDIENCE,
    CERTIFICATE_1,
    CONDITIONS,
    CONFIRMATION,
    DS,
    EC_1,
    EXCLUSIVE,
    GRANT,
    IDP,
    INCLUSIVE,
    ISSUER,
    LOGIN,
    NAME_ID,
    NOW,
    OLD_CERTIFICATE,
    REQUEST,
    RESPONSE,
    RSA_1,
    RSA_2,
    RSA_SHA256,
    SAML,
    SAMLP,
    SP,
    STRANGER,
    STRANGERS,
    SUCCESS,
    TOKEN_URL,
    Seal,
    assertion,
    assertion_signed,
    certify,
    changed,
    embed,
    grant,
    instant,
    pem,
    public_pem,
    response_signed,
    sealed,
    sign,
    trusting,
    wrap,
)

if TYPE_CHECKING:
    from holdfast.settings.saml import SAMLProvider

PROVIDER = trusting()

GOOD = assertion_signed()
SIGNED = sign(ASSERTION)
SIGNED_RESPONSE = response_signed().decode()


def cut(text: str, opening: str, ending: str) -> str:
    """What is between the two, and they."""
    return text[text.index(opening) : text.index(ending) + len(ending)]


SIGNATURE = cut(SIGNED, "<ds:Signature ", "</ds:Signature>")

XENC = 'xmlns:xenc="http://www.w3.org/2001/04/xmlenc#"'
BILLION_LAUGHS = "<!DOCTYPE r [<!ENTITY a '1234567890'>" + "".join(
    f"<!ENTITY {new} '{f'&{old};' * 10}'>" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
XPATH = (
    '<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"><ds:XPath>not(ancestor-or-self::saml:Subject)'
    "</ds:XPath></ds:Transform>"
)
XSLT = (
    '<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116">'
    '<xsl:stylesheet xmlns:xsl="http://www.w3.org/1999/XSL/Transform" version="1.0"/></ds:Transform>'
)
STATUS_CODE = cut(SUCCESS, "<samlp:StatusCode ", "/>")
FAILURE_AROUND_SUCCESS = SUCCESS.replace(
    STATUS_CODE, f"{STATUS_CODE.replace('Success', 'Responder').replace('/>', '>')}{STATUS_CODE}</samlp:StatusCode>"
)
MORE = "http://www.w3.org/2001/04/xmldsig-more#"
XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
METHOD = f'<ds:SignatureMethod Algorithm="{RSA_SHA256}"'
TRUNCATED = f"{METHOD}><ds:HMACOutputLength>0</ds:HMACOutputLength></ds:SignatureMethod>"
CANONICALIZATION = f'<ds:CanonicalizationMethod Algorithm="{EXCLUSIVE}'
ANSWER = f'Destination="{ACS}" InResponseTo="{REQUEST}"'
ENVELOPED_ONLY = f'<ds:Transform Algorithm="{DS}enveloped-signature"/>'


WITH_COMMENTS = Seal(
    transforms=ENVELOPED_ONLY + f'<ds:Transform Algorithm="{EXCLUSIVE}WithComments"/>', with_comments=True
)
COMMENTED = assertion(("ada@", "ada<!-- -->@"))


EXCLUSIVE_ONLY = f'<ds:Transform Algorithm="{EXCLUSIVE}"/>'
ENVELOPED_WITH_XPATH = f'<ds:Transform Algorithm="{DS}enveloped-signature"><ds:XPath>1</ds:XPath></ds:Transform>'


def canonicalizing(markup: str) -> str:
    """The two transforms, the second with this in it."""
    return f'{ENVELOPED_ONLY}<ds:Transform Algorithm="{EXCLUSIVE}">{markup}</ds:Transform>'


def listing(attributes: str, inner: str = "") -> bytes:
    """A good response but for these InclusiveNamespaces."""
    listed = f'<ec:InclusiveNamespaces xmlns:ec="{EXCLUSIVE}" {attributes}>{inner}</ec:InclusiveNamespaces>'
    return sealed(Seal(transforms=canonicalizing(listed)))


def in_response(*changes: tuple[str, str]) -> bytes:
    """The good response, changed after it was signed."""
    return changed(GOOD.decode(), *changes).encode()


def confirmed(*changes: tuple[str, str]) -> bytes:
    return assertion_signed((CONFIRMATION, changed(CONFIRMATION, *changes)))


def named(name: str) -> bytes:
    return assertion_signed(("ada@example.com", name))


def qualified(qualifier: str) -> bytes:
    return assertion_signed(("<saml:NameID ", f'<saml:NameID {qualifier}="https://other.example" '))


def holding_id(attribute: str) -> bytes:
    return in_response(("<samlp:Status>", f'<samlp:Status {attribute}="_assertion-1">'))


def after_declaration(encoding: str) -> str:
    return f'<?xml version="1.0" encoding="{encoding}"?>' + GOOD.decode()


def transform(method: str) -> str:
    return f'{ENVELOPED_ONLY}<ds:Transform Algorithm="{method}"/>'


WRAPPED = [(f"XSW{number}", getattr(wrapping, f"xsw{number}")()) for number in range(1, 9)]

XML = [
    ("nothing", "malformed", b""),
    ("not XML", "malformed", b"SAMLResponse"),
    ("JSON", "malformed", b'{"NameID": "ada@example.com"}'),
    ("cut short", "malformed", GOOD[:-1]),
    ("a second root", "malformed", GOOD + b"<a/>"),
    ("text after the root", "malformed", GOOD + b"ada"),
    ("a logout response", "malformed", GOOD.replace(b"samlp:Response", b"samlp:LogoutResponse")),
    ("a response of SAML 1.1", "malformed", GOOD.replace(SAMLP.encode(), b"urn:oasis:names:tc:SAML:1.0:protocol")),
    ("an assertion alone", "malformed", SIGNED.encode()),
    ("DTD", "doctype_not_allowed", b"<!DOCTYPE r>" + GOOD),
    (
        "DTD after the declaration",
        "doctype_not_allowed",
        b'<?xml version="1.0"?><!DOCTYPE r SYSTEM "http://x/">' + GOOD,
    ),
    (
        "an external entity",
        "doctype_not_allowed",
        b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + named("PLACE").replace(b"PLACE", b"&x;"),
    ),
    (
        "billion laughs",
        "doctype_not_allowed",
        f"{BILLION_LAUGHS}]>".encode() + named("PLACE").replace(b"PLACE", b"&i;"),
    ),
    ("an entity that nobody declared", "malformed", in_response(("ada@", "&ada;@"))),
    ("a comment in the NameID", "comment_not_allowed", in_response(("ada@", "ada<!-- -->@"))),
    ("a comment that cuts the NameID", "comment_not_allowed", in_response(("com<", "com<!-- -->.evil<"))),
    ("a comment before the root", "comment_not_allowed", b"<!-- -->" + GOOD),
    ("a comment in what was signed with comments", "comment_not_allowed", wrap(WITH_COMMENTS.sign(COMMENTED)).encode()),
    (
        "a processing instruction in the NameID",
        "processing_instruction_not_allowed",
        in_response(("ada@", "ada<?x?>@")),
    ),
    ("a stylesheet", "processing_instruction_not_allowed", b'<?xml-stylesheet href="x.xsl"?>' + GOOD),
    ("a declaration inside", "processing_instruction_not_allowed", in_response(("ada@", '<?xml version="1.0"?>ada@'))),
    ("XML 1.1", "processing_instruction_not_allowed", b'<?xml version="1.1"?>' + GOOD),
    ("CDATA in the NameID", "cdata_not_allowed", in_response(("ada@", "<![CDATA[ada]]>@"))),
    ("CDATA that hides a tag", "cdata_not_allowed", in_response(("ada@", "ada<![CDATA[</saml:NameID>]]>@"))),
    ("UTF-16 with a byte order mark", "wrong_encoding", GOOD.decode().encode("utf-16")),
    ("UTF-16", "wrong_encoding", GOOD.decode().encode("utf-16-be")),
    ("UTF-32", "wrong_encoding", GOOD.decode().encode("utf-32-le")),
    ("UTF-7 by its declaration", "wrong_encoding", after_declaration("UTF-7").encode()),
    ("UTF-7 without one", "malformed", GOOD.decode().encode("utf-7")),
    ("UTF-16 by its declaration only", "wrong_encoding", after_declaration("UTF-16").encode()),
    ("Latin-1", "wrong_encoding", after_declaration("ISO-8859-1").encode()),
    ("Latin-1 that says nothing", "wrong_encoding", GOOD.replace(b"ada@", "àda@".encode("latin-1"))),
    ("EBCDIC", "wrong_encoding", GOOD.decode().encode("cp037")),
    ("a byte order mark", "wrong_encoding", b"\xef\xbb\xbf" + GOOD),
    ("too large", "too_large", GOOD + b" " * (MAX_DOCUMENT_BYTES - len(GOOD) + 1)),
    ("a tag that is too long", "too_large", in_response(("<saml:NameID ", "<saml:NameID " + " " * 8192))),
    ("too many elements", "too_large", wrap("<a/>" * 20_000).encode()),
    ("too deep", "too_deep", wrap("<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH).encode()),
    ("deep behind what looks like an end", "too_deep", wrap('<a b="/>">' * MAX_DEPTH + "</a>" * MAX_DEPTH).encode()),
    ("a tag that never ends", "malformed", wrap("<a b='" * 1000).encode()),
]

SHAPE = [
    ("no assertion", "assertion_count", sign(RESPONSE).encode()),
    ("two assertions", "assertion_count", wrap(SIGNED + sign(assertion(("_assertion-1", "_2")))).encode()),
    ("an assertion of another namespace", "assertion_count", wrap(SIGNED + '<Assertion xmlns="urn:x"/>').encode()),
    ("an assertion in Advice", "assertion_count", assertion_signed((LOGIN, f"{LOGIN}<saml:Assertion/>"))),
    ("the assertion deeper", "assertion_count", wrap(f"<samlp:Extensions>{SIGNED}</samlp:Extensions>").encode()),
    (
        "the assertion in a namespace that looks alike",
        "assertion_count",
        GOOD.replace(SAML.encode(), SAML.encode() + b"/"),
    ),
    ("an encrypted assertion", "encrypted", wrap("<saml:EncryptedAssertion/>").encode()),
    ("an encrypted assertion beside a signed one", "encrypted", wrap(SIGNED + "<saml:EncryptedAssertion/>").encode()),
    ("an encrypted NameID", "encrypted", assertion_signed((NAME_ID, "<saml:EncryptedID/>"))),
    ("encrypted data", "encrypted", assertion_signed((">dev<", f"><xenc:EncryptedData {XENC}/><"))),
    ("a failure", "status", in_response(("status:Success", "status:Responder"))),
    ("a failure that was signed", "status", sign(RESPONSE.replace("status:Success", "status:Requester")).encode()),
    (
        "success beneath a failure",
        "status",
        in_response((SUCCESS, FAILURE_AROUND_SUCCESS)),
    ),
    ("no status", "malformed", in_response((SUCCESS, ""))),
    ("two statuses", "malformed", in_response((SUCCESS, SUCCESS * 2))),
    ("Extensions", "malformed", in_response((SUCCESS, f"<samlp:Extensions/>{SUCCESS}"))),
    ("text between the elements", "malformed", in_response((SUCCESS, f"ada{SUCCESS}"))),
    ("two elements with one ID", "duplicate_id", in_response(("_response-1", "_assertion-1"))),
    ("one ID in two attributes", "duplicate_id", holding_id("Id")),
    ("one ID, once as xml:id", "duplicate_id", holding_id("xml:id")),
    ("one ID, once as AssertionID", "duplicate_id", holding_id("AssertionID")),
    ("Advice", "malformed", assertion_signed((LOGIN, f"<saml:Advice/>{LOGIN}"))),
    ("an unknown statement", "malformed", assertion_signed((LOGIN, f"{LOGIN}<saml:Statement/>"))),
    ("no Conditions", "malformed", assertion_signed((CONDITIONS, ""))),
    ("two Conditions", "malformed", assertion_signed((CONDITIONS, CONDITIONS * 2))),
    ("the parts in another order", "malformed", assertion_signed((CONDITIONS + LOGIN, LOGIN + CONDITIONS))),
    ("version 1.1", "malformed", assertion_signed(('Version="2.0"', 'Version="1.1"'))),
    ("an attribute's name is missing", "malformed", assertion_signed(('Name="groups"', 'FriendlyName="groups"'))),
]

SIGNATURES = [
    ("unsigned", "unsigned", wrap(assertion(("ada@", "eve@"))).encode()),
    (
        "the signature renamed",
        "unsigned",
        GOOD.replace(b"ds:Signature>", b"ds:Note>").replace(b"ds:Signature ", b"ds:Note "),
    ),
    (
        "the signature removed",
        "unsigned",
        changed(SIGNED_RESPONSE, (cut(SIGNED_RESPONSE, "<ds:Signature ", "</ds:Signature>"), "")).encode(),
    ),
    ("an empty signature", "malformed", in_response((SIGNATURE, f'<ds:Signature xmlns:ds="{DS}"/>'))),
    (
        "an empty SignatureValue",
        "malformed",
        in_response((cut(SIGNATURE, "<ds:SignatureValue>", "</ds:SignatureValue>"), "<ds:SignatureValue/>")),
    ),
    ("the NameID changed", "bad_signature", in_response(("ada@", "eve@"))),
    ("the group changed", "bad_signature", in_response((">dev<", ">system:masters<"))),
    ("the response changed", "bad_signature", response_signed().replace(b"ada@", b"eve@")),
    (
        "the response signed, the assertion's signature spoilt",
        "bad_signature",
        sign(wrap(SIGNED.replace("ada@", "eve@"))).encode(),
    ),
    (
        "the assertion signed, the response's signature spoilt",
        "bad_signature",
        sign(wrap(SIGNED)).replace(f'"{REQUEST}">', '"_request-2">', 1).encode(),
    ),
    ("a wrong key", "bad_signature", wrap(sign(ASSERTION, STRANGER)).encode()),
    ("another key with its certificate", "bad_signature", sealed(Seal(STRANGER, after=embed(STRANGERS)))),
    ("another key with the pinned certificate", "bad_signature", sealed(Seal(STRANGER, after=embed(CERTIFICATE_1)))),
    (
        "another key as a KeyValue",
        "bad_signature",
        sealed(Seal(STRANGER, after="<ds:KeyInfo><ds:KeyName>idp</ds:KeyName></ds:KeyInfo>")),
    ),
    ("EC of another curve than the certificate's", "bad_signature", sealed(Seal(EC_1, MORE + "ecdsa-sha256"))),
    ("SHA-1", "alg_not_allowed", sealed(Seal(method=DS + "rsa-sha1"))),
    ("a SHA-1 digest", "alg_not_allowed", sealed(Seal(digest=DS + "sha1"))),
    ("MD5", "alg_not_allowed", in_response((RSA_SHA256, MORE + "rsa-md5"))),
    ("HMAC with the public key", "alg_not_allowed", sealed(Seal(public_pem(RSA_1), MORE + "hmac-sha256"))),
    ("HMAC with the certificate", "alg_not_allowed", sealed(Seal(pem(CERTIFICATE_1).encode(), MORE + "hmac-sha256"))),
    ("a truncated HMAC", "alg_not_allowed", in_response((f"{METHOD}/>", TRUNCATED))),
    ("a Reference to the response", "wrong_reference", sealed(Seal(uri="#_response-1"))),
    ("a Reference to the whole document", "wrong_reference", sealed(Seal(uri=""))),
    ("a Reference to nothing", "wrong_reference", sealed(Seal(uri="#_nobody"))),
    ("a Reference to a file", "wrong_reference", sealed(Seal(uri="file:///etc/passwd"))),
    ("a Reference by XPointer", "wrong_reference", sealed(Seal(uri="#xpointer(id('_assertion-1'))"))),
    ("a Reference with two signs", "wrong_reference", sealed(Seal(uri="##_assertion-1"))),
    ("two References", "wrong_reference", sealed(Seal(references=2))),
    ("no Reference", "wrong_reference", sealed(Seal(references=0))),
    (
        "an assertion without an ID",
        "wrong_reference",
        wrap(Seal(uri="").sign(assertion((' ID="_assertion-1"', "")))).encode(),
    ),
    ("an XPath transform", "transform_not_allowed", sealed(Seal(transforms=XPATH + transform(EXCLUSIVE)))),
    ("an XPath transform instead", "transform_not_allowed", sealed(Seal(transforms=ENVELOPED_ONLY + XPATH))),
    ("an XSLT transform", "transform_not_allowed", sealed(Seal(transforms=XSLT + transform(EXCLUSIVE)))),
    ("a base64 transform", "transform_not_allowed", sealed(Seal(transforms=transform(DS + "base64")))),
    (
        "canonicalization with comments",
        "transform_not_allowed",
        sealed(Seal(transforms=transform(EXCLUSIVE + "WithComments"))),
    ),
    ("inclusive canonicalization", "transform_not_allowed", sealed(Seal(transforms=transform(INCLUSIVE)))),
    ("no canonicalization", "transform_not_allowed", sealed(Seal(transforms=ENVELOPED_ONLY))),
    (
        "no enveloped-signature",
        "transform_not_allowed",
        sealed(Seal(transforms=transform(EXCLUSIVE).replace(ENVELOPED_ONLY, ""))),
    ),
    (
        "the SignedInfo with comments",
        "transform_not_allowed",
        sealed(Seal(canonicalization=f'{CANONICALIZATION}WithComments"/>')),
    ),
    (
        "an XPath in a canonicalization",
        "transform_not_allowed",
        sealed(Seal(canonicalization=f'{CANONICALIZATION}"><ds:XPath>1</ds:XPath></ds:CanonicalizationMethod>')),
    ),
    (
        "the transforms in another order",
        "transform_not_allowed",
        sealed(Seal(transforms=EXCLUSIVE_ONLY + ENVELOPED_ONLY)),
    ),
    (
        "an enveloped-signature with more",
        "transform_not_allowed",
        sealed(Seal(transforms=ENVELOPED_WITH_XPATH + EXCLUSIVE_ONLY)),
    ),
    (
        "an XPath that looks like prefixes",
        "transform_not_allowed",
        sealed(Seal(transforms=canonicalizing('<ds:XPath PrefixList="xs">1</ds:XPath>'))),
    ),
    ("prefixes that are missing", "transform_not_allowed", listing("")),
    ("prefixes with more", "transform_not_allowed", listing('PrefixList="xs"', "<ds:XPath/>")),
    ("prefixes on two lines", "transform_not_allowed", listing('PrefixList="xs&#10;xsi"')),
    ("more in the SignedInfo", "malformed", sealed(Seal(canonicalization=f'{CANONICALIZATION}"/><ds:Note/>'))),
    ("more in the Reference", "malformed", in_response(("</ds:DigestValue>", "</ds:DigestValue><ds:Note/>"))),
    ("an Object", "object_not_allowed", sealed(Seal(after="<ds:Object>ada</ds:Object>"))),
    ("something else in the signature", "malformed", sealed(Seal(after="<ds:KeyInfo/><ds:KeyInfo/>"))),
    ("a second signature", "misplaced_signature", in_response((SIGNATURE, SIGNATURE * 2))),
    (
        "a signature in the subject",
        "misplaced_signature",
        in_response((SIGNATURE, ""), ("<saml:Subject>", f"<saml:Subject>{SIGNATURE}")),
    ),
    (
        "a signature beside the assertion's",
        "misplaced_signature",
        in_response((SUCCESS, SUCCESS.replace("</samlp:Status>", f"{SIGNATURE}</samlp:Status>"))),
    ),
    (
        "the assertion's signature as the response's",
        "wrong_reference",
        wrap(ASSERTION, RESPONSE.replace("</saml:Issuer>", f"</saml:Issuer>{SIGNATURE}")).encode(),
    ),
    (
        "a signature of another namespace",
        "misplaced_signature",
        in_response((f'<ds:Signature xmlns:ds="{DS}"', f'<ds:Signature xmlns:ds="{DS}x"')),
    ),
    ("a signed failure inside", "wrong_reference", wrapping.signed_failure_inside()),
    ("signed metadata inside", "wrong_reference", wrapping.signed_metadata_inside()),
]

CLAIMS = [
    ("another provider's assertion", "unknown_issuer", assertion_signed((IDP, "https://evil.example/metadata"))),
    (
        "another provider's response",
        "unknown_issuer",
        in_response((f"{ANSWER}>{ISSUER}", f"{ANSWER}>{ISSUER.replace(IDP, 'https://evil.example')}")),
    ),
    ("an issuer with a space", "unknown_issuer", assertion_signed((f"{IDP}<", f"{IDP} <"))),
    ("an issuer of another case", "unknown_issuer", assertion_signed((IDP, IDP.upper()))),
    (
        "an issuer that is no entity",
        "unknown_issuer",
        assertion_signed(("<saml:Issuer>", '<saml:Issuer Format="urn:x">')),
    ),
    (
        "another Destination",
        "wrong_destination",
        in_response((f'Destination="{ACS}"', 'Destination="https://other.example/acs"')),
    ),
    (
        "another Destination, signed",
        "wrong_destination",
        response_signed((f'Destination="{ACS}"', f'Destination="{ACS}/"')),
    ),
    ("no Destination", "malformed", in_response((f' Destination="{ACS}"', ""))),
    (
        "the answer to another request",
        "wrong_request",
        in_response((ANSWER, f'Destination="{ACS}" InResponseTo="_request-2"')),
    ),
    ("an assertion for another request", "wrong_request", confirmed((REQUEST, "_request-2"))),
    ("an assertion for no request", "wrong_request", confirmed((f' InResponseTo="{REQUEST}"', ""))),
    ("a response to no request", "wrong_request", in_response((ANSWER, f'Destination="{ACS}"'))),
    ("expired", "expired", assertion_signed((f'"{instant(300)}">{AUDIENCE}', f'"{instant(0)}">{AUDIENCE}'))),
    ("expired for its bearer", "expired", confirmed((instant(300), instant(0)))),
    ("a session that has ended", "expired", assertion_signed((instant(28800), instant(-1)))),
    ("not yet valid", "not_yet_valid", assertion_signed((f'NotBefore="{instant(-5)}"', f'NotBefore="{instant(31)}"'))),
    (
        "issued in the future",
        "not_yet_valid",
        assertion_signed((f'IssueInstant="{instant()}"', f'IssueInstant="{instant(31)}"')),
    ),
    (
        "a response of the future",
        "not_yet_valid",
        in_response((f'IssueInstant="{instant()}" Destination', f'IssueInstant="{instant(31)}" Destination')),
    ),
    (
        "a login in the future",
        "not_yet_valid",
        assertion_signed((f'AuthnInstant="{instant(-60)}"', f'AuthnInstant="{instant(31)}"')),
    ),
    (
        "Conditions without an end",
        "never_expires",
        assertion_signed((f' NotOnOrAfter="{instant(300)}">{AUDIENCE}', f">{AUDIENCE}")),
    ),
    ("a confirmation without an end", "never_expires", confirmed((f'NotOnOrAfter="{instant(300)}" ', ""))),
    ("good for too long", "lifetime_too_long", assertion_signed((instant(300), instant(36001)))),
    ("a time with a zone", "malformed", confirmed((instant(300), instant(300)[:-1] + "+00:00"))),
    ("a time without a zone", "malformed", confirmed((instant(300), instant(300)[:-1]))),
    ("a day that does not exist", "malformed", confirmed((instant(300), "2027-02-30T00:00:00Z"))),
    ("a time in other digits", "malformed", confirmed((instant(300), "٢٠٢٧-01-15T08:05:00Z"))),
    (
        "another audience",
        "wrong_audience",
        assertion_signed((f"<saml:Audience>{SP}", "<saml:Audience>https://other.example")),
    ),
    (
        "the token endpoint's audience",
        "wrong_audience",
        assertion_signed((f"<saml:Audience>{SP}", f"<saml:Audience>{TOKEN_URL}")),
    ),
    ("no audience", "wrong_audience", assertion_signed((AUDIENCE, "<saml:AudienceRestriction/>"))),
    ("no restriction to an audience", "wrong_audience", assertion_signed((AUDIENCE, ""))),
    (
        "a second restriction that leaves us out",
        "wrong_audience",
        assertion_signed((AUDIENCE, AUDIENCE + AUDIENCE.replace(SP, "urn:x"))),
    ),
    (
        "an unknown condition",
        "unknown_condition",
        assertion_signed((AUDIENCE, f'{AUDIENCE}<saml:Condition {XSI} xsi:type="x"/>')),
    ),
    (
        "a restriction for proxies",
        "unknown_condition",
        assertion_signed((AUDIENCE, f'{AUDIENCE}<saml:ProxyRestriction Count="0"/>')),
    ),
    (
        "a condition of another namespace",
        "unknown_condition",
        assertion_signed((AUDIENCE, f'{AUDIENCE}<OneTimeUse xmlns="urn:x"/>')),
    ),
    ("holder of key", "wrong_confirmation", confirmed(("cm:bearer", "cm:holder-of-key"))),
    ("sender vouches", "wrong_confirmation", confirmed(("cm:bearer", "cm:sender-vouches"))),
    ("no confirmation", "wrong_confirmation", assertion_signed((CONFIRMATION, ""))),
    ("two confirmations", "wrong_confirmation", assertion_signed((CONFIRMATION, CONFIRMATION * 2))),
    (
        "a confirmation without data",
        "wrong_confirmation",
        assertion_signed((cut(CONFIRMATION, "<saml:SubjectConfirmationData", "/>"), "")),
    ),
    (
        "a confirmation with a beginning",
        "wrong_confirmation",
        confirmed(("Recipient=", f'NotBefore="{instant(-5)}" Recipient=')),
    ),
    ("another Recipient", "wrong_recipient", confirmed((ACS, "https://other.example/acs"))),
    ("the token endpoint's Recipient", "wrong_recipient", confirmed((ACS, TOKEN_URL))),
    ("no Recipient", "wrong_recipient", confirmed((f' Recipient="{ACS}"', ""))),
    ("nobody logged in", "no_login", assertion_signed((LOGIN, ""))),
    ("no NameID", "bad_name", assertion_signed((NAME_ID, ""))),
    ("an empty NameID", "bad_name", named("")),
    ("a NameID that is too long", "bad_name", named("a" * 257)),
    ("a NameID with a line in it", "bad_name", named("ada@example.com&#10;eve")),
    ("a NameID with a control character", "bad_name", named("ada&#127;@example.com")),
    ("a NameID that runs backwards", "bad_name", named("ada&#x202E;@example.com")),
    ("a NameID with a space of no width", "bad_name", named("ada&#8203;@example.com")),
    ("a NameID with NUL", "malformed", in_response(("ada@", "ada&#0;@"))),
    ("a NameID with elements", "malformed", named("ada<saml:x/>@example.com")),
    ("a NameID of another name space", "bad_name", qualified("NameQualifier")),
    ("a NameID for another service", "bad_name", qualified("SPNameQualifier")),
    (
        "an audience by another name",
        "malformed",
        assertion_signed((f"<saml:Audience>{SP}</saml:Audience>", f"<saml:Other>{SP}</saml:Other>")),
    ),
    (
        "an attribute by another name",
        "malformed",
        assertion_signed(("<saml:Attribute ", "<saml:Other "), ("</saml:Attribute>", "</saml:Other>")),
    ),
    (
        "a confirmation by a key",
        "wrong_confirmation",
        confirmed(
            (
                "/></saml:SubjectConfirmation>",
                f'><ds:KeyInfo xmlns:ds="{DS}"/></saml:SubjectConfirmationData></saml:SubjectConfirmation>',
            )
        ),
    ),
    (
        "an attribute value with elements",
        "bad_attribute",
        assertion_signed((">dev<", "><saml:NameID>dev</saml:NameID><")),
    ),
]

TABLE = XML + SHAPE + SIGNATURES + CLAIMS


def refuse(document: bytes, provider: SAMLProvider = PROVIDER, request_id: str = REQUEST) -> Unauthorized:
    with pytest.raises(Unauthorized) as refusal:
        verify_response(document, provider, request_id, NOW)
    return refusal.value


def test_the_document_that_all_of_them_are_made_of_is_good() -> None:
    assert verify_response(GOOD, PROVIDER, REQUEST, NOW).name_id == "ada@example.com"


@pytest.mark.parametrize(("name", "document"), WRAPPED, ids=[name for name, _ in WRAPPED])
def test_signature_wrapping(name: str, document: bytes) -> None:
    assert wrapping.EVE.encode() in document
    assert b"ada@example.com" in document
    assert refuse(document).why == "assertion_count"


@pytest.mark.parametrize(("why", "document"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_hostile_responses(why: str, document: bytes) -> None:
    assert refuse(document).why == why


def test_each_of_them_is_another_attack() -> None:
    documents = [document for _, _, document in TABLE] + [document for _, document in WRAPPED]
    assert len(set(documents)) == len(documents)
    assert GOOD not in documents


@pytest.mark.parametrize("document", [row[2] for row in SIGNATURES], ids=[row[0] for row in SIGNATURES])
def test_a_forger_is_told_one_sentence(document: bytes) -> None:
    assert str(refuse(document)) == NOT_VALID


def test_a_response_to_another_request_than_ours() -> None:
    assert refuse(GOOD, request_id="_request-2").why == "wrong_request"


def test_a_response_that_nobody_asked_for() -> None:
    asked = f' InResponseTo="{REQUEST}"'
    document = changed(wrap(sign(assertion((asked, "")))), (asked, "")).encode()
    assert refuse(document).why == "wrong_request"


@pytest.mark.parametrize(
    ("why", "provider"),
    [
        pytest.param("bad_signature", trusting(certificates=pem(certify(RSA_2))), id="another certificate"),
        pytest.param("certificate_expired", trusting(certificates=pem(OLD_CERTIFICATE)), id="an old certificate"),
        pytest.param("certificate_expired", trusting(certificates=pem(certify(RSA_1, NOW + 60))), id="one of tomorrow"),
        pytest.param("unknown_issuer", trusting(entityID=IDP.removesuffix("metadata")), id="another entityID"),
        pytest.param("wrong_audience", trusting(serviceProviderEntityID=SP + "2"), id="another entity of ours"),
        pytest.param("bad_name", trusting(nameIDFormat="urn:x"), id="another format"),
        pytest.param("lifetime_too_long", trusting(maxLifetimeSeconds=299), id="a shorter life"),
    ],
)
def test_a_good_response_for_another_provider(why: str, provider: SAMLProvider) -> None:
    assert refuse(GOOD, provider).why == why


@pytest.mark.parametrize(
    ("provider", "detail"),
    [
        (trusting(entityID="https://other.example"), f"Issuer: {IDP!r}"),
        (trusting(serviceProviderEntityID=SP + "2"), f"Audience: {SP!r}"),
    ],
)
def test_what_was_found_is_for_the_record_and_not_for_the_caller(provider: SAMLProvider, detail: str) -> None:
    refusal = refuse(GOOD, provider)
    assert refusal.detail == detail
    assert detail not in str(refusal)


GRANTS = [
    ("a response", "malformed", GOOD),
    ("unsigned", "unsigned", GRANT.encode()),
    ("changed", "bad_signature", grant().replace(b"ada@", b"eve@")),
    ("of another key", "bad_signature", sign(GRANT, STRANGER).encode()),
    (
        "an assertion inside",
        "assertion_count",
        grant(("</saml:AttributeValue>", "<saml:Assertion/></saml:AttributeValue>")),
    ),
    ("a signature inside", "misplaced_signature", grant((">ops<", f'><ds:Signature xmlns:ds="{DS}"/><'))),
    ("encrypted", "encrypted", b'<saml:EncryptedAssertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"/>'),
    ("of a login at the gateway", "wrong_recipient", SIGNED.encode()),
    ("the answer to a request", "wrong_request", grant(("Recipient=", 'InResponseTo="_1" Recipient='))),
    ("another audience", "wrong_audience", grant((f"<saml:Audience>{SP}", f"<saml:Audience>{ACS}"))),
    ("expired", "expired", grant((instant(300), instant(0)))),
    ("a session that has ended", "expired", grant((instant(28800), instant(0)))),
    ("holder of key", "wrong_confirmation", grant(("cm:bearer", "cm:holder-of-key"))),
    ("DTD", "doctype_not_allowed", b"<!DOCTYPE a>" + grant()),
    ("two IDs", "duplicate_id", grant().replace(b">ops<", b' ID="_assertion-1">ops<')),
]


@pytest.mark.parametrize(("why", "document"), [row[1:] for row in GRANTS], ids=[row[0] for row in GRANTS])
def test_hostile_assertions_for_the_token_endpoint(why: str, document: bytes) -> None:
    with pytest.raises(Unauthorized) as refusal:
        verify_assertion(document, {PROVIDER.entity_id: PROVIDER}, NOW)
    assert refusal.value.why == why


def test_every_reason_is_documented() -> None:
    documented = set(re.findall(r"\w+", response.__doc__ or ""))
    assert {why for _, why, _ in TABLE + GRANTS} <= documented


def test_what_signxml_says_was_signed_must_be_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Reference is checked before signxml resolves it; should the two ever differ, the answer is no."""
    verify = XMLVerifier.verify

    def verify_another(self: XMLVerifier, *args: Any, **options: Any) -> VerifyResult:
        result = verify(self, *args, **options)
        assert isinstance(result, VerifyResult)
        assert result.signed_xml is not None
        result.signed_xml.set("ID", "_another")
        return result

    monkeypatch.setattr(XMLVerifier, "verify", verify_another)
    assert refuse(GOOD).why == "wrong_reference"
