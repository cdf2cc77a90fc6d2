"""What the gateway sends: requests, as an address and as a form, and its metadata; and what is posted to it."""

from __future__ import annotations

import base64
import zlib
from urllib.parse import parse_qs, urlsplit

import pytest
from lxml import etree

from holdfast.errors import Unauthorized
from holdfast.identity.saml.document import MAX_POST_CHARACTERS, decode_post
from holdfast.identity.saml.metadata import build_metadata
from holdfast.identity.saml.request import post_form, redirect_url
from identity.saml.forging import ACS, NOW, PREFIXES, SP, assertion_signed, instant, trusting

EMAIL = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
SSO = "https://idp.example/sso"


def read_redirect(url: str) -> etree._Element:
    (request,) = parse_qs(urlsplit(url).query)["SAMLRequest"]
    return etree.fromstring(zlib.decompress(base64.b64decode(request, validate=True), wbits=-15))


def test_a_request_as_an_address() -> None:
    url = redirect_url(trusting(), "_1", NOW, "state/+&=")
    assert url.startswith(f"{SSO}?SAMLRequest=")
    assert parse_qs(urlsplit(url).query)["RelayState"] == ["state/+&="]
    request = read_redirect(url)
    assert request.tag == f"{{{PREFIXES['samlp']}}}AuthnRequest"
    assert dict(request.attrib) == {
        "ID": "_1",
        "Version": "2.0",
        "IssueInstant": instant(),
        "Destination": SSO,
        "ProtocolBinding": POST,
        "AssertionConsumerServiceURL": ACS,
    }
    assert [(child.tag, child.text) for child in request] == [(f"{{{PREFIXES['saml']}}}Issuer", SP)]


def test_an_address_that_has_a_query_keeps_it() -> None:
    url = redirect_url(trusting(singleSignOnURL=f"{SSO}?idpid=C1"), "_1", NOW, "")
    assert url.startswith(f"{SSO}?idpid=C1&SAMLRequest=")
    assert "RelayState" not in url


def test_a_request_as_a_form() -> None:
    form = post_form(trusting(nameIDFormat=EMAIL), "_1", NOW, "state")
    assert (form.action, form.fields["RelayState"]) == (SSO, "state")
    request = etree.fromstring(base64.b64decode(form.fields["SAMLRequest"], validate=True))
    policy = request.find("samlp:NameIDPolicy", PREFIXES)
    assert policy is not None
    assert dict(policy.attrib) == {"Format": EMAIL, "AllowCreate": "true"}


def test_a_form_without_a_state() -> None:
    assert post_form(trusting(), "_1", NOW, "").fields.keys() == {"SAMLRequest"}


@pytest.mark.parametrize("request_id", ["", "1", "a b", "-1", 'a"b', "a\n", "é"])
def test_what_is_no_xml_id_is_not_sent(request_id: str) -> None:
    with pytest.raises(ValueError, match="request ID"):
        redirect_url(trusting(), request_id, NOW, "")


def test_a_state_that_need_not_come_back_is_not_sent() -> None:
    assert "RelayState" in post_form(trusting(), "_1", NOW, "é" * 40).fields
    with pytest.raises(ValueError, match="80 bytes"):
        post_form(trusting(), "_1", NOW, "é" * 40 + "a")


def test_the_metadata() -> None:
    metadata = build_metadata(trusting(nameIDFormat=EMAIL))
    assert metadata.startswith(b"<?xml version='1.0' encoding='UTF-8'?>")
    prefixes = {"md": "urn:oasis:names:tc:SAML:2.0:metadata"}
    entity = etree.fromstring(metadata)
    assert (entity.tag, dict(entity.attrib)) == (f"{{{prefixes['md']}}}EntityDescriptor", {"entityID": SP})
    (descriptor,) = entity
    assert dict(descriptor.attrib) == {
        "AuthnRequestsSigned": "false",
        "WantAssertionsSigned": "true",
        "protocolSupportEnumeration": PREFIXES["samlp"],
    }
    name_format, consumer = descriptor
    assert name_format.text == EMAIL
    assert dict(consumer.attrib) == {"Binding": POST, "Location": ACS, "index": "0", "isDefault": "true"}


def test_what_a_browser_posts_is_decoded() -> None:
    document = assertion_signed()
    assert decode_post(base64.b64encode(document).decode()) == document
    assert decode_post(base64.encodebytes(document).decode()) == document


@pytest.mark.parametrize(
    ("why", "value"),
    [
        ("malformed", "PHNhbWw"),
        ("malformed", "PHNhb-_="),
        ("malformed", "é"),
        ("malformed", "PA==PA=="),
        ("too_large", "A" * (MAX_POST_CHARACTERS + 4)),
    ],
)
def test_what_is_not_base64_is_refused(why: str, value: str) -> None:
    with pytest.raises(Unauthorized) as refusal:
        decode_post(value)
    assert refusal.value.why == why
