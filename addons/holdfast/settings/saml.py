"""The section `identity.saml`: providers of SAML 2.0 (saml-core-2.0-os, saml-profiles-2.0-os, RFC 7522)."""

from __future__ import annotations

from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import Field, field_validator, model_validator

from holdfast.errors import ConfigurationError
from holdfast.settings.section import FilePath, Misfit, Section, read_file
from holdfast.settings.values import check_certificates, check_extra_key, check_secure, require_once

TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
"""A NameID that is another at every login."""

MAX_ENTITY_ID_CHARACTERS = 1024
MAX_PINNED_CERTIFICATES = 8
MIN_RSA_BITS = 2048
CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})


class PrefixedNameOrAttribute(Section):
    """The NameID, or an attribute, with a prefix."""

    attribute: str = Field("", description="The attribute's `Name`; the NameID when absent.")
    prefix: str = Field(description="Put before the name; may be empty, must be given.")


class PrefixedAttribute(Section):
    """An attribute with a prefix."""

    attribute: str = Field(description="The attribute's `Name`.", min_length=1)
    prefix: str = Field(description="Put before each value; may be empty, must be given.")


class Attribute(Section):
    """An attribute."""

    attribute: str = Field(description="The attribute's `Name`.", min_length=1)


class ExtraAttribute(Section):
    """An extra attribute of the user, from an attribute of the assertion."""

    key: str = Field(description="Lower-case `DOMAIN/PATH`, not of Kubernetes' own domains nor of `holdfast.dev`.")
    attribute: str = Field(description="The attribute's `Name`; without it the key is left out.", min_length=1)

    @field_validator("key")
    @classmethod
    def _own_domain(cls, key: str) -> str:
        check_extra_key(key)
        return key


class AttributeMappings(Section):
    """How an assertion becomes a user."""

    username: PrefixedNameOrAttribute = Field(description="The user name: one value.")
    groups: PrefixedAttribute | None = Field(None, description="The groups.")
    uid: Attribute | None = Field(None, description="The user's lasting ID: one value.")
    extra: tuple[ExtraAttribute, ...] = Field((), description="Extra attributes.")

    @model_validator(mode="after")
    def _distinct_keys(self) -> AttributeMappings:
        require_once("extra.{}.key", (mapping.key for mapping in self.extra), "each key of extra once")
        return self


class SAMLProvider(Section):
    """A SAML identity provider, what the gateway is to it, and how its assertions become users."""

    entity_id: str = Field(alias="entityID", description="The provider's: the exact `Issuer` of what it says.")
    certificates: str = Field("", description="Those it signs with, PEM itself; several while they are changed.")
    certificates_file: FilePath | None = Field(None, description="The same from a file.")
    single_sign_on_url: str = Field(alias="singleSignOnURL", description="Where people log in.")
    binding: Literal["HTTP-Redirect", "HTTP-POST"] = Field(
        "HTTP-Redirect", description="How the request gets there: `HTTP-Redirect` or `HTTP-POST`."
    )
    name_id_format: str | None = Field(
        None, alias="nameIDFormat", description="The NameID's `Format`: asked for, and nothing else is accepted."
    )
    service_provider_entity_id: str = Field(
        alias="serviceProviderEntityID", description="The gateway's: assertions must be for this audience."
    )
    assertion_consumer_service_url: str = Field(
        alias="assertionConsumerServiceURL", description="Where the gateway takes responses, as the provider knows it."
    )
    token_url: str = Field(
        alias="tokenURL",
        description="Where the gateway takes assertions (RFC 7522): their `Recipient`, and one more audience.",
    )
    mappings: AttributeMappings = Field(description="How an assertion becomes a user.")
    max_lifetime_seconds: int = Field(
        86400, gt=0, description="Assertions that are good for longer are refused; no session lasts longer."
    )

    @field_validator("entity_id", "service_provider_entity_id")
    @classmethod
    def _entity(cls, entity_id: str) -> str:
        if not 0 < len(entity_id) <= MAX_ENTITY_ID_CHARACTERS or not entity_id.isprintable() or " " in entity_id:
            raise ValueError(f"a URI of at most {MAX_ENTITY_ID_CHARACTERS} characters")
        return entity_id

    @field_validator("single_sign_on_url")
    @classmethod
    def _sign_on_address(cls, url: str) -> str:
        if "#" in url:
            raise ValueError("an address without a fragment")
        check_secure(url.partition("?")[0])  # some providers tell their applications apart in the query
        return url

    @field_validator("assertion_consumer_service_url", "token_url")
    @classmethod
    def _own_address(cls, url: str) -> str:
        check_secure(url)
        return url

    @field_validator("certificates")
    @classmethod
    def _signing_certificates(cls, pem: str) -> str:
        if pem:
            _check_signing_certificates(pem)
        return pem

    @model_validator(mode="after")
    def _lasting(self) -> SAMLProvider:
        if self.name_id_format == TRANSIENT and not self.mappings.username.attribute:
            expected = (
                "a format of lasting names, or mappings.username.attribute: nobody is called by a transient NameID"
            )
            raise Misfit("nameIDFormat", TRANSIENT, expected)
        return self

    @model_validator(mode="after")
    def _pinned(self) -> SAMLProvider:
        if bool(self.certificates) == (self.certificates_file is not None):
            raise ValueError("certificates (PEM) or certificatesFile: one of them")
        return self


def include_provider_certificates(provider: SAMLProvider) -> SAMLProvider:
    file = provider.certificates_file
    if file is None:
        return provider
    pem = read_file(file).decode("utf-8", errors="replace")
    try:
        _check_signing_certificates(pem)
    except ValueError as error:
        raise ConfigurationError(f"{file}: expected {error}.") from error
    return provider.model_copy(update={"certificates": pem, "certificates_file": None})


def _check_signing_certificates(pem: str) -> None:
    check_certificates(pem)
    certificates = x509.load_pem_x509_certificates(pem.encode())
    if len(certificates) > MAX_PINNED_CERTIFICATES:
        raise ValueError(f"at most {MAX_PINNED_CERTIFICATES} certificates")
    if not all(map(_has_strong_key, certificates)):
        raise ValueError(f"certificates with RSA keys of at least {MIN_RSA_BITS} bits, or EC keys on P-256, 384 or 521")


def _has_strong_key(certificate: x509.Certificate) -> bool:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= MIN_RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES
