"""What an identity provider must know of the gateway (SAML metadata 2.0, section 2.4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lxml import etree

from holdfast.identity.saml.document import POST_BINDING, PROTOCOL

if TYPE_CHECKING:
    from holdfast.settings.saml import SAMLProvider

MEDIA_TYPE = "application/samlmetadata+xml"

_METADATA = "{urn:oasis:names:tc:SAML:2.0:metadata}"


def build_metadata(provider: SAMLProvider) -> bytes:
    """The gateway's EntityDescriptor for this provider: UTF-8, unsigned, without an end."""
    entity = etree.Element(
        f"{_METADATA}EntityDescriptor",
        {"entityID": provider.service_provider_entity_id},
        nsmap={"md": _METADATA.strip("{}")},
    )
    descriptor = etree.SubElement(
        entity,
        f"{_METADATA}SPSSODescriptor",
        {
            "AuthnRequestsSigned": "false",
            "WantAssertionsSigned": "true",
            "protocolSupportEnumeration": PROTOCOL.strip("{}"),
        },
    )
    if provider.name_id_format is not None:
        etree.SubElement(descriptor, f"{_METADATA}NameIDFormat").text = provider.name_id_format
    etree.SubElement(
        descriptor,
        f"{_METADATA}AssertionConsumerService",
        {
            "Binding": POST_BINDING,
            "Location": provider.assertion_consumer_service_url,
            "index": "0",
            "isDefault": "true",
        },
    )
    return etree.tostring(entity, encoding="UTF-8", xml_declaration=True)
